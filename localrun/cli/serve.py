"""`serve`: the server in this process."""

import json
import os
import signal
import sys
import threading
from urllib.parse import urlsplit

import click

from localrun.config import BACKENDS, SETTINGS, load_settings, prepare_hub_environment


def _epilog() -> str:
    """The environment variables with their defaults, for the help."""
    width = max(len(setting.variable) for setting in SETTINGS)
    lines: list[str] = []
    for setting in SETTINGS:
        ollama = next((f"; or {name}" for name in setting.other), "")
        facts = f"{setting.meaning} [{setting.default}{ollama}]"
        lines.append(f"  {setting.variable.ljust(width)}  {facts}")
    heads = "Environment (a flag wins; config.toml in LOCALRUN_HOME holds the same in lower case):"
    lines += [
        f"  {'LOCALRUN_HOME'.ljust(width)}  where all of ours lies [~/.localrun]",
        f"  {'LOCALRUN_CONFIG'.ljust(width)}  another config.toml [config.toml in LOCALRUN_HOME]",
    ]
    return "\b\n" + "\n".join([heads, *lines])


@click.command(epilog=_epilog(), context_settings={"max_content_width": 120})
@click.option("--host", help="Address to listen on, such as 127.0.0.1 or 0.0.0.0:11434.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 takes a free one.")
@click.option("--models", help="Where models are stored.")
@click.option("--keep-alive", "keep_alive_s", help="How long a model stays, such as 5m or -1.")
@click.option("--context-length", help="Context window in tokens.")
@click.option("--num-parallel", help="Requests that one model answers at once.")
@click.option("--max-loaded-models", help="Models in memory at once.")
@click.option("--kv-cache-type", help="Number format of the KV cache, such as f16 or q8_0.")
@click.option("--backend", type=click.Choice(BACKENDS), help="What runs the models.")
@click.option("--debug/--no-debug", default=None, help="Log more.")
@click.option("--private", is_flag=True, hidden=True)
def serve(*, private: bool, **flags: object) -> None:
    """Start the server: Ollama's API on 127.0.0.1:11434."""
    if private:
        flags |= {"host": "127.0.0.1", "port": 0}
    settings = load_settings(overrides=flags)
    prepare_hub_environment(settings)
    from localrun.server.start import serve as run_server

    if private:
        _end_with_input()
    run_server(settings, ready=_tell_address if private else None)


def _tell_address(address: str) -> None:
    """Say where a private server listens: one line of JSON on standard output."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    sys.stdout.write(json.dumps({"host": parts.hostname, "port": parts.port}) + "\n")
    sys.stdout.flush()


def _end_with_input() -> None:
    """Stop as SIGTERM would when standard input ends, which it does with our parent."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGTERM)
        else:  # to the main thread, so that it wakes from its wait
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
