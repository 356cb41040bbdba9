"""Start, ports, loads that fail, and the end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest

from localrun.config import Settings, child_environment
from localrun.errors import BadSetting
from localrun.server.ports import address_of, bind
from localrun.server.rooms import Patience
from tests.server.conftest import DEADLINE_S, ROOT, running


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ask(client, **body):
    return client.post("/api/generate", json={"model": "tiny", "prompt": "hi", **body})


def test_the_default_address_is_bound_in_both_families(tmp_path):
    sockets = bind(Settings(home=tmp_path, models=tmp_path, port=0))
    try:
        port = sockets[0].getsockname()[1]
        assert [address_of(s) for s in sockets] == [
            f"http://127.0.0.1:{port}",
            f"http://[::1]:{port}",
        ]
    finally:
        for sock in sockets:
            sock.close()


def test_the_server_answers_on_the_ipv6_loopback_too(models):
    with running(models) as state:
        assert httpx2.get(f"http://[::1]:{state.port}/").text == "Ollama is running"


class Other(BaseHTTPRequestHandler):
    """A web server that is not ours."""

    body = b"{}"
    name = "nginx"

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def version_string(self):
        return self.name

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("", b'{"version":"0.31.1"}', "taken by Ollama 0.31.1"),
        ("nginx", b"<html>", "taken by another program"),
        ("nginx", b"{}", r"taken by another web server \(nginx\)"),
        ("localrun/9", b"{}", "localrun is already running there"),
    ],
)
def test_a_busy_port_says_whose_it_is(tmp_path, name, body, words):
    handler = type("Handler", (Other,), {"name": name, "body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        port = other.server_address[1]
        with pytest.raises(BadSetting, match=words) as caught:
            bind(Settings(home=tmp_path, models=tmp_path, port=port))
        assert f"localrun serve --port {port + 1}" in caught.value.hint
        assert ("--backend ollama" in caught.value.hint) == ("Ollama" in words)
        other.shutdown()


def test_a_port_that_is_taken_on_ipv6_only_is_busy_too(tmp_path):
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        other.listen()
        with pytest.raises(BadSetting, match="is taken"):
            bind(Settings(home=tmp_path, models=tmp_path, port=other.getsockname()[1]), ask_s=0.05)


def test_an_address_that_is_not_this_machines_is_one_sentence(tmp_path):
    with pytest.raises(BadSetting, match=r"cannot listen on 203\.0\.113\.1"):
        bind(Settings(home=tmp_path, models=tmp_path, host="203.0.113.1"))


@pytest.mark.parametrize(
    ("fake", "status", "words"),
    [
        ({"FAKE_LOAD": "refuse"}, 422, "the file is odd"),
        ({"FAKE_LOAD": "crash"}, 500, "ggml_abort: out of luck"),
        ({"FAKE_NEED": str(1 << 40)}, 507, "refused 1099511627776"),
    ],
)
def test_a_load_that_fails_fails_its_request(models, fake, status, words):
    with running(models, fake=fake) as state, state.client() as client:
        response = ask(client)
        assert response.status_code == status
        assert words in response.json()["error"]
        assert client.get("/api/ps").json() == {"models": []}


def test_a_load_that_stalls_is_ended(models):
    changes = {"load_timeout_s": 0.3}
    with running(models, fake={"FAKE_LOAD": "stall"}, **changes) as state, state.client() as client:
        response = ask(client)
        assert response.status_code == 500
        assert "timed out waiting for the model to load" in response.json()["error"]


def test_a_model_that_the_machine_cannot_hold_is_refused_with_numbers(models):
    with running(models, budget_bytes=1 << 20) as state, state.client() as client:
        response = ask(client)
    assert response.status_code == 507
    assert response.json()["code"] == "out_of_memory"


def test_requests_that_arrive_during_a_load_share_it(models, tmp_path):
    release = tmp_path / "go"
    fake = {"FAKE_LOAD": "hold", "FAKE_RELEASE": str(release)}
    with running(models, fake=fake) as state:
        answers = []

        def one():
            with state.client() as client:
                answers.append(ask(client, stream=False).status_code)

        threads = [threading.Thread(target=one) for _ in range(5)]
        for thread in threads:
            thread.start()
        state.wait_for(lambda: state.rooms is not None and state.rooms.scheduler.n_waiting() == 5)
        release.touch()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert answers == [200] * 5
        assert sum(line.startswith("load ") for line in state.log()) == 1
        assert sum(line.startswith("started ") for line in state.log()) == 1


def test_a_full_queue_is_told_so(models, tmp_path):
    fake = {"FAKE_LOAD": "hold", "FAKE_RELEASE": str(tmp_path / "go")}
    with running(models, fake=fake, max_queue=1) as state, state.client() as client:

        def wait():
            with state.client() as other:
                ask(other)

        waiting = threading.Thread(target=wait)
        waiting.start()
        state.wait_for(lambda: state.rooms is not None and state.rooms.scheduler.n_waiting() == 1)
        response = ask(client)
        assert response.status_code == 503
        assert response.json()["error"] == (
            "server busy, please try again.  maximum pending requests exceeded"
        )
        (tmp_path / "go").touch()
        waiting.join(DEADLINE_S)


def test_a_second_model_evicts_the_first_where_only_one_fits(models):
    with (
        running(models, budget_bytes=300 << 20, keep_alive_s=60.0) as state,
        state.client() as client,
    ):
        for name in ("tiny", "other", "tiny"):
            assert ask(client, model=name, stream=False).status_code == 200
        assert len([line for line in state.log() if line.startswith("load ")]) == 3
        assert [m["name"] for m in client.get("/api/ps").json()["models"]] == ["tiny:latest"]


def test_a_model_goes_when_its_keep_alive_ends(models):
    with running(models, keep_alive_s=0.05) as state, state.client() as client:
        ask(client, stream=False)
        state.wait_for(lambda: client.get("/api/ps").json() == {"models": []})


def test_a_process_that_was_started_for_a_prompt_that_does_not_fit_is_used_by_the_next(models):
    with running(models) as state, state.client() as client:
        assert ask(client, prompt="hello " * 300).status_code == 400
        assert ask(client, stream=False).status_code == 200
        assert sum(line.startswith("started ") for line in state.log()) == 1


def test_the_end_lets_a_running_answer_finish_and_leaves_no_child(models):
    with running(models, fake={"FAKE_PACE": "0.02"}) as state, state.client() as client:
        with client.stream(
            "POST",
            "/api/generate",
            json={"model": "tiny", "prompt": "x", "options": {"num_predict": 30}},
        ) as response:
            lines = response.iter_lines()
            next(lines)
            pids = [int(line.split()[1]) for line in state.log() if line.startswith("started")]
            state.stop()
            last = json.loads(list(lines)[-1])
        assert (last["done"], last["eval_count"]) == (True, 30)
        state.wait_for(lambda: not state.thread.is_alive())
        assert not any(is_alive(pid) for pid in pids)


def test_an_answer_that_does_not_finish_is_told(models):
    with running(models, patience=Patience(grace_s=0.2)) as state, state.client() as client:
        with client.stream(
            "POST",
            "/api/generate",
            json={"model": "tiny", "prompt": "x", "options": {"stop": ["fake: stall 1"]}},
        ) as response:
            lines = response.iter_lines()
            next(lines)
            state.stop()
            last = json.loads(list(lines)[-1])
        assert last == {"error": "the server is shutting down", "code": "busy"}


def test_a_request_that_never_comes_whole_does_not_hold_up_the_end(models):
    with (
        running(models, patience=Patience(grace_s=0.2)) as state,
        socket.create_connection(("127.0.0.1", state.port)) as sock,
    ):
        sock.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        state.wait_for(lambda: state.rooms is not None and len(state.rooms.calls) == 1)
        state.stop()
        assert b"503" in sock.recv(100)


def test_a_client_that_does_not_read_does_not_hold_up_the_end(models):
    body = b'{"model":"tiny","prompt":"x","options":{"stop":["fake: flood 50000"]}}'
    head = f"POST /api/generate HTTP/1.1\r\nHost: x.local\r\nContent-Length: {len(body)}\r\n\r\n"
    patience = Patience(grace_s=0.1, told_s=0.1)
    with (
        running(models, patience=patience) as state,
        socket.create_connection(("127.0.0.1", state.port)) as sock,
    ):
        sock.sendall(head.encode() + body)
        sock.recv(1000)
        state.stop()
        state.wait_for(lambda: not state.thread.is_alive())


def test_a_second_signal_ends_at_once(models):
    with running(models) as state, state.client() as client:
        with client.stream(
            "POST",
            "/api/generate",
            json={"model": "tiny", "prompt": "x", "options": {"stop": ["fake: stall 1"]}},
        ) as response:
            next(response.iter_lines())
            pids = [int(line.split()[1]) for line in state.log() if line.startswith("started")]
            state.stop()
            state.stop()
            state.wait_for(lambda: not state.thread.is_alive())
        assert state.server is not None
        assert state.server.force_exit
        state.wait_for(lambda: not any(is_alive(pid) for pid in pids))


def start_serve(home: Path, port: int) -> subprocess.Popen[bytes]:
    env = child_environment(PYTHONPATH=str(ROOT), LOCALRUN_HOME=str(home))
    code = (
        "from localrun.config import load_settings\n"
        "from localrun.server.app import serve\n"
        f"settings = load_settings(overrides={{'port': {port}}})\n"
        "serve(settings, ready=lambda address: print(address, flush=True))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_server_cleanly(tmp_path, number):
    process = start_serve(tmp_path, 0)
    assert process.stdout is not None
    address = process.stdout.readline().decode().strip()
    assert httpx2.get(f"{address}/api/version").status_code == 200
    assert oct((tmp_path / "cli-token").stat().st_mode)[-3:] == "600"
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert b"Traceback" not in err


def test_a_killed_server_leaves_no_child(models, tmp_path):
    process = start_serve(models, 0)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)
    deadline = threading.Event()
    timer = threading.Timer(DEADLINE_S, deadline.set)
    timer.start()
    while any(is_alive(int(pid)) for pid in children):
        assert not deadline.wait(0.01)
    timer.cancel()
