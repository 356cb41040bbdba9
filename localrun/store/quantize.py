"""Have a child write a GGUF file in another number format, and watch it."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, cast

from localrun.config import child_environment
from localrun.errors import BadModelFile, BadRequest, Cancelled, EngineMissing

SOURCES = ("F16", "BF16", "F32")
"""What can be quantized: anything else has lost what another format would keep."""

TARGETS = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
"""Formats that need no importance matrix; Ollama has six of them."""

COPY = "COPY"
_ALIASES = {"Q2_K_M": "Q2_K", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_MOST_BITS = {"F32": 32, "F16": 16, "BF16": 16}
_OTHER_BITS = 9  # Q8_0, and the output matrix of every smaller one
_TICK_S = 0.05
_STDERR_BYTES = 4096

Tell = Callable[[int], None]
"""Told how many bytes of the source are done."""


def read_target(text: str) -> str:
    """The format that a user asks for, in its own spelling.

    Raises:
        BadRequest: If there is no such format.
    """
    wanted = text.upper()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in TARGETS:
        raise BadRequest(
            f"unsupported quantization type {text.upper()} - supported types are"
            f" {', '.join(TARGETS)}"
        )
    return wanted


def most_bytes(n_params: int, target: str) -> int:
    """What a model takes at most in a format."""
    return n_params * _MOST_BITS.get(target, _OTHER_BITS) // 8


def run_quantizer(  # noqa: PLR0913 (each is one fact of one call)
    source: Path,
    target: Path,
    file_type: str,
    *,
    tensor_bytes: Mapping[str, int],
    n_threads: int,
    tell: Tell,
    is_cancelled: Callable[[], bool],
) -> None:
    """Write `source` to `target` in a child; blocking. What is half written is the caller's.

    Args:
        source: A GGUF file, or the first shard beside the others under their real names.
        target: Where the one new file goes.
        file_type: One of `TARGETS`, or `COPY`.
        tensor_bytes: Length of each tensor of the source, by name.
        n_threads: Threads that compute.
        tell: Told the progress, on this thread.
        is_cancelled: Asked many times a second whether to stop.

    Raises:
        BadModelFile: If llama.cpp cannot do it.
        EngineMissing: If the child cannot be started, or there is no llama.cpp.
        Cancelled: If `is_cancelled` said so; the child is gone.
    """
    command = [
        sys.executable, "-m", "localrun.runner", "--quantize", str(source), str(target), file_type,
        "--threads", str(n_threads),
    ]  # fmt: skip
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=child_environment()
        )
    except OSError as error:
        raise EngineMissing(f"the quantizing process cannot be started: {error}") from error
    try:
        _watch(child, tensor_bytes, tell, is_cancelled)
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _watch(
    child: subprocess.Popen[bytes],
    tensor_bytes: Mapping[str, int],
    tell: Tell,
    is_cancelled: Callable[[], bool],
) -> None:
    assert child.stdout is not None
    assert child.stderr is not None
    records: queue.SimpleQueue[Mapping[str, object] | None] = queue.SimpleQueue()
    said = bytearray()
    readers = [
        threading.Thread(target=_read_records, args=(child.stdout, records), daemon=True),
        threading.Thread(target=_drain, args=(child.stderr, said), daemon=True),
    ]
    for reader in readers:
        reader.start()
    done_bytes, running = 0, ""
    while True:
        if is_cancelled():
            raise Cancelled("the quantization was cancelled")
        try:
            record = records.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        if record is None:
            readers[1].join(1.0)
            raise _died(child, bytes(said))
        if "error" in record:
            raise BadModelFile(str(record["error"]), hint=str(record.get("hint", "")))
        done_bytes += tensor_bytes.get(running, 0)
        running = str(record.get("tensor", ""))
        tell(done_bytes)
        if "done" in record:
            return


def _read_records(
    stream: IO[bytes], records: "queue.SimpleQueue[Mapping[str, object] | None]"
) -> None:
    with contextlib.suppress(OSError, ValueError):  # the pipe was closed over us, or cut a line
        for line in stream:
            records.put(cast("dict[str, object]", json.loads(line)))
    records.put(None)


def _drain(stream: IO[bytes], said: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            said += line
            del said[:-_STDERR_BYTES]


def _died(child: subprocess.Popen[bytes], said: bytes) -> BadModelFile:
    status = child.wait()
    lines = said.decode("utf-8", "replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return BadModelFile(
        f"the quantizing process ended early with status {status}{last}",
        hint="the file may be damaged, or the memory too small; nothing was stored",
    )
