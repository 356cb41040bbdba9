"""`localrun run`: one shot, piped, interrupted, and the conversation on a real terminal."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fakes.server import FakeServer

pty = pytest.importorskip("pty", reason="terminals of Unix")


def test_answer_is_streamed_to_standard_output(run: Run, server: FakeServer) -> None:
    done = run("run", "tiny", "why", "is it?")
    assert (done.stdout, done.stderr) == ("天空 is blue.\n", "")
    assert server.bodies("/api/generate") == [{"model": "tiny", "prompt": "why is it?"}]


def test_piped_text_goes_before_the_prompt(run: Run, server: FakeServer) -> None:
    run("run", "tiny", "summarize", stdin="a text\n")
    assert server.bodies("/api/generate")[0]["prompt"] == "a text\n\nsummarize"


def test_flags_become_fields_of_the_request(run: Run, server: FakeServer) -> None:
    run("run", "tiny", "hi", "-o", "temperature=0", "-o", "stop=x", "--keepalive", "1h",
        "--format", "json", "--system", "be brief", "--nowordwrap")  # fmt: skip
    assert server.bodies("/api/generate")[0] == {
        "model": "tiny",
        "prompt": "hi",
        "options": {"temperature": 0, "stop": ["x"]},
        "keep_alive": "1h",
        "format": "json",
        "system": "be brief",
    }


def test_schema_is_sent_as_an_object(run: Run, server: FakeServer) -> None:
    run("run", "tiny", "hi", "--format", '{"type": "object"}')
    assert server.bodies("/api/generate")[0]["format"] == {"type": "object"}


@pytest.mark.parametrize("flags", [["--format", "{"], ["-o", "temperature"]])
def test_flag_that_cannot_be_read_is_wrong_use(run: Run, flags: list[str]) -> None:
    assert run("run", "tiny", "hi", *flags).returncode == 2


def test_verbose_prints_counts_on_standard_error(run: Run) -> None:
    done = run("run", "tiny", "hi", "--verbose")
    assert "eval count:           3 token(s)\neval rate:            2.00 tokens/s\n" in done.stderr


def test_missing_model_is_pulled_first(run: Run, server: FakeServer) -> None:
    server.pull_events = [{"status": "pulling manifest"}, {"status": "success"}]
    done = run("run", "new", "hi")
    assert done.stdout == "天空 is blue.\n"
    assert done.stderr == "pulling manifest\nsuccess\n"
    assert [path for path, _ in server.asked] == [
        "/api/show",
        "/api/pull",
        "/api/show",
        "/api/generate",
    ]


def test_a_file_is_taken_and_run_under_its_stored_name(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "my model.gguf").write_bytes(b"GGUF")
    server.models = {"my-model:latest"}
    server.pull_events = [{"status": "success", "name": "my-model:latest"}]
    done = run("run", str(tmp_path / "my model.gguf"), "hi")
    assert done.stdout == "天空 is blue.\n"
    assert server.bodies("/api/generate")[0]["model"] == "my-model:latest"


def test_without_a_model_the_newest_one_here_answers(run: Run, server: FakeServer) -> None:
    server.models = {"tiny:latest"}
    done = run("run", stdin="hi")
    assert done.stderr == "Using tiny:latest, the newest model here\n"
    assert done.stdout == "天空 is blue.\n"


def test_without_any_model_the_embedded_default_answers_and_is_called_what_it_is(
    run: Run, server: FakeServer
) -> None:
    server.tags, server.models = {"models": []}, {"smollm2:135m"}
    done = run("run", stdin="hi")
    assert done.stderr == "Using smollm2:135m, a small test model\n"
    assert done.stdout == "天空 is blue.\n"


def test_interrupt_ends_with_130_and_drops_the_request(
    environment: dict[str, str], server: FakeServer
) -> None:
    server.stall = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-m", "localrun", "run", "tiny", "hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(6).decode() == "天空"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert server.dropped.wait(5)


CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes its standard input the terminal whose Ctrl-C reaches it, then becomes the program."""


class Terminal:
    """A program on a terminal: type, and read until something is shown."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()
        command = [sys.executable, "-c", CONTROL, "-m", "localrun", *arguments]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        self._seen = ""
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> str:
        """What was shown up to and with `text`, which is then forgotten."""
        with self._more:
            assert self._more.wait_for(lambda: text in self._seen, 10), self._seen
            before, _, self._seen = self._seen.partition(text)
            return before + text

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 4096)
            except OSError:
                return
            if not data:
                return
            with self._more:
                self._seen += data.decode("utf-8", "replace")
                self._more.notify_all()


@pytest.fixture
def terminal(
    environment: dict[str, str],
) -> Generator[Callable[..., Terminal], None, None]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        env = environment | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        opened.append(Terminal(list(arguments), env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


READY = "Send a message"
"""Drawn once at each prompt."""


def test_conversation_keeps_the_turns_and_the_history(
    terminal: Callable[..., Terminal], server: FakeServer, tmp_path: Path
) -> None:
    shown = terminal("run", "tiny", "--system", "be brief")
    shown.wait_for(READY)
    shown.type("hello\r")
    shown.wait_for("is blue.")
    shown.wait_for(READY)
    shown.type('"""one\r')
    shown.wait_for("...")
    shown.type('two"""\r')
    shown.wait_for("is blue.")
    shown.wait_for(READY)
    shown.type("/bye\r")
    assert shown.process.wait(10) == 0
    turns = server.bodies("/api/chat")[-1]["messages"]
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("system", "be brief"),
        ("user", "hello"),
        ("assistant", "天空 is blue."),
        ("user", "one\ntwo"),
    ]
    assert "hello" in (tmp_path / "history").read_text()
    assert (tmp_path / "history").stat().st_mode & 0o077 == 0


def test_commands_of_the_prompt_answer(
    terminal: Callable[..., Terminal], server: FakeServer
) -> None:
    shown = terminal("run", "tiny")
    for line, answer in [
        ("/?", "Clear session context"),
        ("/? set", "Enable thinking"),
        ("/what", "Unknown command '/what'. Type /? for help"),
        ("/clear", "Cleared session context"),
        ("/show info", "context length"),
        ("/show system", "No system message was specified for this model."),
        ("/list", "tiny:latest"),
        ("/load nobody", "Couldn't find model 'nobody'"),
        ("/set think", 'model "tiny" does not support thinking output'),
    ]:
        shown.wait_for(READY)
        shown.type(f"{line}\r")
        shown.wait_for(answer)
    shown.wait_for(READY)
    shown.type("\x03")
    shown.wait_for("Use Ctrl + d or /bye to exit.")
    shown.wait_for(READY)
    shown.type("\x04")
    assert shown.process.wait(10) == 0
    assert server.bodies("/api/chat") == []


def test_what_is_set_goes_into_the_next_request_and_into_a_saved_model(
    terminal: Callable[..., Terminal], server: FakeServer
) -> None:
    shown = terminal("run", "tiny")
    for line, answer in [
        ("/set parameter num_ctx 2048", "Set parameter 'num_ctx' to '2048'"),
        ("/set parameter num_ctx much", "invalid int value [much]"),
        ("/set parameter stop A B", "Set parameter 'stop' to 'A, B'"),
        ('/set system """be\rkind"""', "Set system message."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set verbose", "Set 'verbose' mode."),
        ("hello", "is blue."),
        ("/save mine", "Created new model 'mine'"),
    ]:
        shown.wait_for(READY)
        shown.type(f"{line}\r")
        shown.wait_for(answer)
    shown.wait_for(READY)
    options = {"num_ctx": 2048, "stop": ["A", "B"]}
    said = [{"role": "user", "content": "hello"}]
    assert server.bodies("/api/chat") == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "be\nkind"}, *said],
            "options": options,
            "format": "json",
        }
    ]
    assert server.bodies("/api/create") == [
        {
            "model": "mine",
            "from": "tiny",
            "stream": False,
            "system": "be\nkind",
            "parameters": options,
            "messages": [*said, {"role": "assistant", "content": "天空 is blue."}],
        }
    ]


def test_pasted_lines_are_one_message(
    terminal: Callable[..., Terminal], server: FakeServer
) -> None:
    shown = terminal("run", "tiny")
    shown.wait_for(READY)
    shown.type("one")
    shown.wait_for("one")
    shown.type("\x1b[200~ and\ntwo\x1b[201~")
    shown.wait_for("two")
    shown.type("\r")
    shown.wait_for("is blue.")
    assert server.bodies("/api/chat")[0]["messages"][0]["content"] == "one and\ntwo"


def test_interrupt_stops_the_answer_and_not_the_conversation(
    terminal: Callable[..., Terminal], server: FakeServer
) -> None:
    shown = terminal("run", "tiny")
    shown.wait_for(READY)
    server.stall = threading.Event()
    shown.type("hello\r")
    shown.wait_for("天空")
    shown.type("\x03")
    shown.wait_for(READY)
    assert server.dropped.wait(5)
    server.stall = None
    shown.type("again\r")
    shown.wait_for("is blue.")
    said = server.bodies("/api/chat")[-1]["messages"]
    assert json.dumps(said[1], ensure_ascii=False) == ('{"role": "assistant", "content": "天空"}')


def test_progress_is_drawn_on_a_terminal(
    terminal: Callable[..., Terminal], server: FakeServer
) -> None:
    half = {"status": "pulling 0123", "digest": "d", "total": 2_000_000, "completed": 1_000_000}
    server.pull_events = [half, half | {"completed": 2_000_000}, {"status": "success"}]
    shown = terminal("pull", "new")
    drawn = shown.wait_for("success")
    assert "pulling 0123: 100% ▕█" in drawn
    assert shown.process.wait(10) == 0
