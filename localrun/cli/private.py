"""A server for the length of one command, where none is running.

The child tells its address by one line on its standard output and ends when its standard input
does, so it goes with this process however that ends, `kill -9` included.
"""

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from dataclasses import replace
from typing import IO

from localrun.cli.client import Client
from localrun.config import child_environment
from localrun.errors import LocalrunError

_NEW_GROUP = 0x200 if sys.platform == "win32" else 0  # the same on Windows
_START_S = 30.0
_STOP_S = 10.0


@contextlib.contextmanager
def private_server() -> Generator[Client, None, None]:
    """Start a server on a free port and end it with the block.

    Raises:
        LocalrunError: If it does not start; the hint has the child's last words.
    """
    key = secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "localrun", "serve", "--private"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(LOCALRUN_API_KEYS=key),
            start_new_session=True,  # Ctrl-C is ours to handle
            creationflags=_NEW_GROUP,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            client = _wait_ready(process.stdout, log)
            yield replace(client, key=key)
        finally:
            process.stdin.close()
            _end(process)
            process.stdout.close()


def _wait_ready(stdout: IO[bytes], log: IO[bytes]) -> Client:
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
    reader.start()
    reader.join(_START_S)
    try:
        told = json.loads(lines[0])
        return Client(str(told["host"]), int(told["port"]))
    except (IndexError, ValueError, KeyError, TypeError) as error:
        log.seek(0)
        raise _failure(log.read().decode("utf-8", "replace")) from error


def _failure(log: str) -> LocalrunError:
    """What kept a private server from starting: its own error where it gave one."""
    lines = log.strip().splitlines()[-20:]
    last = next((n for n, line in enumerate(lines) if line.startswith("Error: ")), None)
    if last is None:
        return LocalrunError("a private server could not be started", hint="\n".join(lines))
    return LocalrunError(lines[last].removeprefix("Error: "), hint="\n".join(lines[last + 1 :]))


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
