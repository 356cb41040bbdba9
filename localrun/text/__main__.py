"""The text worker: `python -m localrun.text --frames-fd N`, started by the server."""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from localrun.messages import WorkerReady, decode_text_request, encode
from localrun.system.frames import ChildPipe
from localrun.system.parent import connect_to_parent
from localrun.system.sandbox import limit_self

if TYPE_CHECKING:
    from localrun.text.tokens import Tokenizer
    from localrun.text.worker import Inbox

MEMORY_BYTES = 1 << 30


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the server closes its end."""
    parser = argparse.ArgumentParser(prog="localrun.text", allow_abbrev=False)
    parser.add_argument("--frames-fd", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, default=MEMORY_BYTES)
    given = parser.parse_args(arguments)
    pipe = connect_to_parent(given.frames_fd)
    pipe.send(encode(WorkerReady(os.getpid())))
    serve(pipe, memory_bytes=given.memory_bytes)


def serve(pipe: ChildPipe, *, memory_bytes: int) -> None:
    """Answer requests in this thread, read them in another; never returns."""
    # After WorkerReady, and before the first request: most of a cold start are these imports.
    from localrun.text.chat.conversation import Chat
    from localrun.text.chat.templates import Templates
    from localrun.text.prompts import Prompts
    from localrun.text.tokens import Vocabularies
    from localrun.text.worker import Inbox, Worker

    inbox = Inbox()
    threading.Thread(target=_read, args=(pipe, inbox), name="frames-in", daemon=True).start()
    prompts = Prompts(Chat(Templates()))
    worker = Worker(Vocabularies(_load), prompts, _check_grammar, pipe.send)
    _warm_up()
    # After the imports, which may write bytecode, and before anything foreign is touched.
    limit_self(memory_bytes=memory_bytes)
    while True:
        worker.answer(inbox.take())


def _read(pipe: ChildPipe, inbox: "Inbox") -> None:
    status = 0
    try:
        for body in pipe.frames():
            inbox.put(decode_text_request(body))
    except (msgspec.DecodeError, ValueError) as error:
        sys.stderr.write(f"a broken frame from the server: {error}\n")
        status = 1
    os._exit(status)  # the server is gone; not sys.exit, as the worker may be in a native call


def _load(paths: Sequence[str]) -> "Tokenizer":
    from localrun.llama import Vocabulary

    return Vocabulary.load(paths)


def _check_grammar(tokenizer: "Tokenizer", grammar: str) -> None:
    from localrun.llama import Vocabulary
    from localrun.llama.grammar import check_grammar

    assert isinstance(tokenizer, Vocabulary)
    check_grammar(tokenizer, grammar)


def _warm_up() -> None:
    """Load the engine before the first request needs it; its failure is told to that request."""
    from localrun.errors import EngineMissing
    from localrun.llama import version

    try:
        version()
    except EngineMissing as error:
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main()
