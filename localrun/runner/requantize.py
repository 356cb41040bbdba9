"""The child that quantizes: tells its progress on standard output, and ends with its parent.

One JSON object a line: `{"tensor": name}` when a tensor's turn comes, at the end `{"done": true}`
or `{"error": …, "hint": …}`. Standard input is held open by the parent; its end is the parent's.
"""

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import TextIO

from localrun.errors import LocalrunError

_NICENESS = 10


def run(source: str, target: str, file_type: str, n_threads: int) -> int:
    """Quantize; returns the exit status."""
    # C code may print on descriptor 1: that goes to the log, and the records have one of their own.
    records = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(AttributeError, OSError):  # Windows has no nice
        os.nice(_NICENESS)  # models that answer meanwhile come first
    from localrun.llama.quantize import quantize

    try:
        quantize(
            Path(source),
            Path(target),
            file_type,
            n_threads=n_threads,
            on_tensor=lambda name: _tell(records, {"tensor": name}),
        )
    except LocalrunError as error:
        _tell(records, {"error": error.message, "hint": error.hint})
        return 1
    _tell(records, {"done": True})
    return 0


def _tell(records: TextIO, record: dict[str, object]) -> None:
    records.write(json.dumps(record) + "\n")
    records.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
