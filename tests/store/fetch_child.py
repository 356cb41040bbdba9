"""A process that fetches and kills itself at a named point; says that it came there.

Arguments: Hub's address, store's root, name of the point, which passing of it (from 1), and a file
that gets the point's name before the end.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from tests.store.fetching import fetch


def main(url: str, root: str, point: str, nth: str, witness: str) -> None:
    lock, left = threading.Lock(), [int(nth)]

    def observe(passed: str) -> None:
        with lock:
            left[0] -= passed == point
            if left[0] == 0:
                Path(witness).write_text(passed)
                os.kill(os.getpid(), signal.SIGKILL)

    fetch(url, Path(root), observe=observe)


if __name__ == "__main__":
    main(*sys.argv[1:])
