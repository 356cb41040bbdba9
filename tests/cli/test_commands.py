"""Every command as a real process against a loopback server."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from localrun import __version__
from localrun.cli.app import cli
from localrun.config import SETTINGS
from tests.cli.conftest import Run
from tests.fakes.server import DIGEST, FakeServer, fake_server
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

PULL_EVENTS: list[dict[str, Any]] = [
    {"status": "pulling manifest"},
    {"status": "pulling 0123456789ab", "digest": "sha256:01", "total": 98_362_432},
    {"status": "pulling 0123456789ab", "digest": "sha256:01", "total": 98_362_432,
     "completed": 98_362_432},
    {"status": "verifying sha256 digest"},
    {"status": "success"},
]  # fmt: skip


def test_version_is_one_line(run: Run) -> None:
    for flag in ("--version", "-v"):
        assert run(flag).stdout == f"localrun {__version__}\n"


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").stdout
    for name in cli.list_commands(click.Context(cli)):
        assert f"\n  {name} " in shown
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_serve_help_lists_the_variables_with_their_defaults(run: Run) -> None:
    shown = run("serve", "--help").stdout
    for setting in SETTINGS:
        assert setting.variable in shown
        assert f"[{setting.default}" in shown


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["lst"], "'list'"),
        (["list", "--jsn"], "--json"),
        (["rm"], "MODELS"),
        (["list", "a", "b"], "b"),
    ],
)
def test_wrong_use_exits_2_and_says_what_is_near(run: Run, arguments: list[str], hint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert hint in done.stderr


def test_list_is_a_table(run: Run) -> None:
    done = run("list")
    head, row = done.stdout.splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.split()[:4] == ["tiny:latest", DIGEST[:12], "98", "MB"]
    assert row.endswith("years ago")


def test_list_takes_a_prefix_and_its_alias(run: Run) -> None:
    assert run("ls", "TI").stdout.count("\n") == 2
    assert run("ls", "other").stdout.split() == ["NAME", "ID", "SIZE", "MODIFIED"]


def test_list_and_ps_print_json(run: Run) -> None:
    assert json.loads(run("list", "--json").stdout)[0]["digest"] == DIGEST
    assert json.loads(run("ps", "--json").stdout)[0]["context_length"] == 4096


def test_ps_says_where_a_model_lies_and_until_when(run: Run) -> None:
    row = run("ps").stdout.splitlines()[1]
    assert "50%/50% CPU/GPU    4096       Forever" in row


def test_show_has_sections(run: Run) -> None:
    shown = run("show", "tiny").stdout
    assert shown.startswith("  Model\n    architecture      llama\n")
    assert '  Parameters\n    stop    "<|im_end|>"\n\n' in shown
    assert shown.endswith("    Version 2.0\n    ...\n\n")


def test_show_prints_one_part(run: Run) -> None:
    assert run("show", "tiny", "--template").stdout == "{{ .Prompt }}"
    assert run("show", "tiny", "--license").stdout.endswith("2004\n")


def test_missing_model_exits_1_with_the_command_that_helps(run: Run) -> None:
    done = run("show", "none")
    assert done.returncode == 1
    assert done.stderr == "Error: model 'none' not found\nlocalrun pull none\n"
    assert done.stdout == ""


def test_stop_unloads(run: Run, server: FakeServer) -> None:
    assert run("stop", "tiny").returncode == 0
    assert server.bodies("/api/generate")[0]["keep_alive"] == 0


def test_stop_of_an_unknown_model_says_so(run: Run) -> None:
    done = run("stop", "none")
    assert (done.returncode, done.stderr) == (1, "Error: couldn't find model 'none' to stop\n")


def test_rm_deletes_in_order_and_stops_at_the_first_error(run: Run, server: FakeServer) -> None:
    server.models |= {"other"}
    done = run("rm", "tiny", "none", "other")
    assert done.returncode == 1
    assert done.stdout == "deleted 'tiny'\n"
    assert server.models == {"other"}


def test_pull_is_one_line_a_step_when_piped(run: Run, server: FakeServer) -> None:
    server.pull_events = PULL_EVENTS
    done = run("pull", "new")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "pulling manifest",
        "pulling 0123456789ab: 98 MB",
        "verifying sha256 digest",
        "success",
    ]


def test_pull_json_is_the_servers_records(run: Run, server: FakeServer) -> None:
    server.pull_events = PULL_EVENTS
    lines = run("pull", "new", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == PULL_EVENTS


def test_pull_shows_the_plan_and_the_error_in_the_stream(run: Run, server: FakeServer) -> None:
    rows: list[dict[str, Any]] = [
        {"quantization": "Q4_K_M", "n_bytes": 4_080_000_000, "reason": "fits", "is_chosen": True},
        {"quantization": "Q8_0", "n_bytes": 7_160_000_000, "reason": "needs 7.5 GiB"},
    ]
    error: dict[str, Any] = {
        "error": "gated",
        "code": "access_denied",
        "hint": "accept the licence at …",
    }
    server.pull_events = [{"status": "choosing", "plan": rows}, error]
    done = run("pull", "new")
    assert done.returncode == 1
    assert "★    Q4_K_M          4.1 GB    fits\n" in done.stderr
    assert done.stderr.endswith("Error: gated\naccept the licence at …\n")


def test_pull_that_ends_early_is_an_error(run: Run, server: FakeServer) -> None:
    server.pull_events = PULL_EVENTS[:2]
    done = run("pull", "new")
    assert done.returncode == 1
    assert "ended early" in done.stderr


def test_local_file_is_pulled_with_the_token_of_our_home(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    server.pull_events = PULL_EVENTS
    (tmp_path / "cli-token").write_text("secret\n")
    file = tmp_path / "a model.gguf"
    file.write_bytes(b"GGUF")
    assert run("pull", str(file)).returncode == 0
    assert server.bodies("/api/pull")[0]["model"] == str(file)
    assert server.headers[-1]["X-Localrun-Local"] == "secret"


def test_the_name_that_a_pulled_file_got_is_said(run: Run, server: FakeServer) -> None:
    server.pull_events = [{"status": "success", "name": "a-model:latest"}]
    assert run("pull", "me/a-model").stderr == "success\nstored as a-model:latest\n"
    assert run("pull", "a-model").stderr == "success\n"


@pytest.mark.parametrize("command", [["pull"], ["run"]])
@pytest.mark.parametrize("path", ["./none.gguf", "/none/none.gguf"])
def test_a_path_without_a_file_is_said(run: Run, command: list[str], path: str) -> None:
    done = run(*command, path)
    assert done.returncode == 1
    assert "there is no file" in done.stderr


def test_key_is_sent_as_bearer(run: Run, server: FakeServer) -> None:
    run("show", "tiny", LOCALRUN_API_KEYS="k1,k2")
    assert server.headers[-1]["Authorization"] == "Bearer k1"


@pytest.fixture
def foreign() -> Generator[FakeServer, None, None]:
    with fake_server(FakeServer(server="")) as fake:
        yield fake


def test_foreign_program_on_the_port_is_named_and_not_driven(run: Run, foreign: FakeServer) -> None:
    done = run("ps", LOCALRUN_HOST=f"127.0.0.1:{foreign.port}")
    assert done.returncode == 1
    assert f"127.0.0.1:{foreign.port} belongs to Ollama, not to localrun" in done.stderr
    assert foreign.asked == []


def test_no_server_is_said_with_the_command_that_starts_one(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = run("ps", LOCALRUN_HOST=f"127.0.0.1:{free.getsockname()[1]}")
    assert done.returncode == 1
    assert done.stderr.endswith("\nlocalrun serve\n")


def test_bad_setting_names_its_variable(run: Run) -> None:
    done = run("list", LOCALRUN_KEEP_ALIVE="soon")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: LOCALRUN_KEEP_ALIVE: keep_alive cannot be 'soon'\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(run: Run, shell: str) -> None:
    assert "_LOCALRUN_COMPLETE" in run("completion", shell).stdout


COMPLETE = """
source <("$1" -m localrun completion bash)
localrun() { "$PYTHON" -m localrun "$@"; }
COMP_LINE=$2 COMP_POINT=${#2}
_localrun_completion localrun
echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("localrun prob", "probe"),
        ("localrun show tiny:", "latest"),
        ("localrun run tiny:l", "latest"),
        ("localrun pull tinyl", "tinyllama"),
        ("localrun pull smollm2:13", "135m"),
    ],
)
def test_bash_completes_commands_and_names_with_colons(
    environment: dict[str, str], line: str, found: str
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    done = subprocess.run(
        [bash, "--norc", "-c", COMPLETE, "bash", sys.executable, line],
        env=environment | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.strip() == found, done.stderr


def test_model_names_are_completed_from_the_store_without_a_server(
    run: Run, tmp_path: Path
) -> None:
    store_model(tmp_path / "models", "mine:q8", make_tiny(tmp_path / "t.gguf"))
    words = {"COMP_WORDS": "localrun show m", "COMP_CWORD": "2"}
    found = run(_LOCALRUN_COMPLETE="bash_complete", LOCALRUN_HOST="127.0.0.1:1", **words)
    assert found.stdout == "plain,mine:q8\n"


def test_model_names_are_completed(run: Run) -> None:
    found = run(
        _LOCALRUN_COMPLETE="bash_complete", COMP_WORDS="localrun show t", COMP_CWORD="2"
    ).stdout
    assert found == "plain,tiny:latest\n"


def test_config_show_says_where_each_value_came_from(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"OLLAMA_KEEP_ALIVE": "10m", "LOCALRUN_API_KEYS": "secret"}
    (tmp_path / "config.toml").write_text("max_queue = 7\n")
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["keep_alive"] == {"value": "600s", "origin": "OLLAMA_KEEP_ALIVE"}
    assert shown["api_keys"] == {"value": "(set)", "origin": "LOCALRUN_API_KEYS"}
    assert shown["max_queue"] == {"value": "7", "origin": str(tmp_path / "config.toml")}
    assert shown["context_length"] == {"value": "what fits", "origin": "default"}
    assert "secret" not in run("config", "show").stdout
