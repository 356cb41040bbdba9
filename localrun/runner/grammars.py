"""Make grammars ready beside the steps: no stream waits for another's grammar.

A thread makes the model's token table at the first grammar, up to a second, and every grammar after
it, some milliseconds; nearly all of it without the interpreter's lock.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from localrun.errors import GrammarFailed, LocalrunError
from localrun.llama import Matcher, TokenTable, Vocabulary
from localrun.messages import Submit


@dataclass(frozen=True, slots=True)
class GrammarMade:
    """The grammar of a request is ready, or cannot be."""

    request_id: int
    made: Matcher | LocalrunError


class GrammarMaker:
    """Makes matchers in order, on a thread that begins with the first.

    Args:
        vocabulary: The model's.
        post: Takes what was made, on the maker's thread.
    """

    def __init__(self, vocabulary: Vocabulary, post: Callable[[GrammarMade], None]) -> None:
        self._vocabulary, self._post = vocabulary, post
        self._wanted: queue.SimpleQueue[Submit] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._table: TokenTable | None = None

    def make(self, request: Submit) -> None:
        """Have the grammar of a request made; its `GrammarMade` follows."""
        self._wanted.put(request)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            request = self._wanted.get()
            self._post(GrammarMade(request.request_id, self._made(request)))

    def _made(self, request: Submit) -> Matcher | LocalrunError:
        try:
            if self._table is None:
                self._table = TokenTable(self._vocabulary)
            return Matcher(self._table, request.grammar, request.preserved)
        except LocalrunError as error:
            return error
        except Exception as error:  # noqa: BLE001 (else the request would wait for ever)
            return GrammarFailed(f"this grammar cannot be made: {error}")
