"""A real text worker's manners without an engine; the prompt says how it misbehaves.

Answers carry the process id as their one token, so that a test sees who answered.
"""

import argparse
import os
import signal
import threading
from pathlib import Path

from localrun.messages import (
    Forget,
    Prepare,
    Prepared,
    Started,
    WorkerReady,
    decode_text_request,
    encode,
    pack_tokens,
)
from localrun.system.frames import ChildPipe
from localrun.system.parent import connect_to_parent


def answer(pipe: ChildPipe, job: Prepare) -> None:
    """Answer one request, or do what its prompt says."""
    word, _, rest = job.prompt.partition(" ")
    if word == "mute":
        threading.Event().wait()
    pipe.send(encode(Started(job.request_id, "render" if word == "hang" else "native")))
    if word in ("hang", "stall"):
        threading.Event().wait()
    if word == "garbage":
        pipe.send(b"\x03\x00\x00\x00bad")
        return
    if word == "crash" or (word == "crash-once" and _is_first(rest)):
        os.write(2, b"GGML_ASSERT failed\n")
        pipe.flush(5.0)
        os.kill(os.getpid(), signal.SIGABRT)
    pipe.send(encode(Prepared(job.request_id, pack_tokens([os.getpid()]), job.prompt)))


def _is_first(path: str) -> bool:
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    """Serve until the end of input; log what is forgotten."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames-fd", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    pipe = connect_to_parent(parser.parse_args().frames_fd)
    pipe.send(encode(WorkerReady(os.getpid())))
    for body in pipe.frames():
        job = decode_text_request(body)
        if isinstance(job, Forget):
            os.write(2, f"forget {job.request_id}\n".encode())
        elif isinstance(job, Prepare):
            answer(pipe, job)
    pipe.flush(5.0)


if __name__ == "__main__":
    main()
