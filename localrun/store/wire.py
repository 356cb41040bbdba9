"""One HTTP request for bytes of a file: redirects by our policy, statuses turned into setbacks.

Used by `transfer` alone, which is the only place that fetches bytes.
"""

import http.client
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from localrun.errors import (
    AccessDenied,
    BrokenTransfer,
    Cancelled,
    LocalrunError,
    Offline,
    PullFailed,
    RateLimited,
)
from localrun.store.connections import Answer, CannotConnect, Connections
from localrun.store.origin import Location, next_location, origin_of

_LATER = {408, 425, 429, 500, 502, 503, 504}
_EXPIRED = {401, 403, 404, 410}
_MAX_REDIRECTS = 10
_KEPT_IS_SAFE = "what has arrived is kept; pull again to go on"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a source, in seconds.

    Attributes:
        connect_s: For a connection.
        stall_s: For the next byte.
        tries: Setbacks in a row, without a byte between them, until we give up.
        backoff_s: Before the second try; doubled each time.
        longest_wait_s: A source that asks for more than this is not waited for.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    tries: int = 6
    backoff_s: float = 1.0
    longest_wait_s: float = 60.0

    def backoff(self, n_tries: int) -> float:
        """Seconds before the next try, after `n_tries` setbacks in a row."""
        return float(min(self.backoff_s * 2 ** (n_tries - 1), 30.0))


class Setback(Exception):
    """Raised when a request failed in a way that a further try may mend.

    Attributes:
        error: What to raise when we give up.
        wait_s: What the source asks us to wait, in seconds; 0 if it says nothing.
        is_expired: The link must be resolved again.
    """

    def __init__(
        self, error: LocalrunError, *, wait_s: float = 0.0, is_expired: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error, self.wait_s, self.is_expired = error, wait_s, is_expired


class Wire:
    """An HTTP client whose running requests can be broken off from any thread."""

    def __init__(self, patience: Patience) -> None:
        self._connections = Connections(connect_s=patience.connect_s, stall_s=patience.stall_s)
        self.cancelled = threading.Event()

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def break_off(self) -> None:
        """End every running request now; later ones are not sent."""
        self.cancelled.set()
        self._connections.shut_down()

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond `break_off`.

        Raises:
            Cancelled: If the transfer is broken off.
        """
        if self.cancelled.wait(seconds):
            raise cancelled()

    @contextmanager
    def get(self, location: Location, start: int, end: int) -> Generator[Answer]:
        """Ask for bytes `start` to `end` (exclusive) and give the answer, 200 or 206.

        The token goes to its own origin only, whatever the redirects say.

        Raises:
            Setback: If a further try may help.
            PullFailed: If none will.
            Cancelled: If the transfer is broken off.
        """
        url = next_location(location.home, location.url, location.home)
        for _ in range(_MAX_REDIRECTS):
            headers = {"Range": f"bytes={start}-{end - 1}", **location.headers_for(url)}
            with self._translated(url), self._connections.get(url, headers) as answer:
                # A connection made while all were shut down has missed it.
                if self.cancelled.is_set():
                    raise cancelled()
                if not answer.redirect:
                    _check_status(answer, url)
                    yield answer
                    return
                url = next_location(url, answer.redirect, location.home)
        raise BrokenTransfer(f"{_host(location.home)} redirects in a circle")

    @contextmanager
    def _translated(self, url: str) -> Generator[None]:
        """Turn the client's errors into setbacks."""
        try:
            yield
        except CannotConnect as error:
            self._check_cancelled(error)
            raise Setback(unreachable(url, error)) from error
        except TimeoutError as error:
            self._check_cancelled(error)
            raise Setback(_broken(f"{_host(url)} has stopped sending")) from error
        except http.client.InvalidURL as error:
            raise BrokenTransfer(f"the source points to {url!r}, which is no address") from error
        except (ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            self._check_cancelled(error)
            why = str(error) or type(error).__name__
            raise Setback(_broken(f"the connection to {_host(url)} broke: {why}")) from error

    def _check_cancelled(self, error: Exception) -> None:
        if self.cancelled.is_set():
            raise cancelled() from error


def cancelled() -> Cancelled:
    """The error of a transfer that was broken off."""
    return Cancelled("the pull was cancelled", hint=_KEPT_IS_SAFE)


def unreachable(url: str, cause: Exception) -> Offline:
    """The error of a source that cannot be reached; its hint names endpoint and mirrors."""
    why = str(cause) or type(cause).__name__
    return Offline(
        f"{_host(url)} cannot be reached: {why}",
        hint="check the network and HTTPS_PROXY; where the Hub is blocked, set HF_ENDPOINT to a"
        " mirror such as https://hf-mirror.com",
    )


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait, by `Retry-After` or the Hub's `RateLimit`; else 0."""
    text = str(headers.get("Retry-After", ""))
    if text.strip().isdecimal():
        return float(text)
    for field in str(headers.get("RateLimit", "")).split(";"):
        name, _, value = field.strip().partition("=")
        if name == "t" and value.isdecimal():
            return float(value)
    return 0.0


def _asked_wait_s(answer: Answer) -> float:
    names = ("Retry-After", "RateLimit")
    return retry_after_s({name: answer.header(name) for name in names})


def _check_status(answer: Answer, url: str) -> None:
    status, host = answer.status, _host(url)
    if status in (200, 206):
        return
    if status == 429:
        wait_s = _asked_wait_s(answer)
        raise Setback(
            RateLimited(
                f"{host} asks to come back later",
                retry_after_s=wait_s,
                hint=f"pull again in {wait_s:.0f} s; {_KEPT_IS_SAFE}" if wait_s else _KEPT_IS_SAFE,
            ),
            wait_s=wait_s,
        )
    if status in _LATER:
        error = _broken(f"{host} answers with an error ({status})")
        raise Setback(error, wait_s=_asked_wait_s(answer))
    if status in _EXPIRED:
        error = AccessDenied(f"{host} refuses the link it gave ({status})", hint=_KEPT_IS_SAFE)
        raise Setback(error, is_expired=True)
    if status == 416:
        raise BrokenTransfer(
            f"the file at {host} is shorter than it was said to be", hint="pull it again"
        )
    raise _broken(f"{host} answers with status {status}")


def _broken(message: str) -> PullFailed:
    return BrokenTransfer(message, hint=_KEPT_IS_SAFE)


def _host(url: str) -> str:
    _, host, port = origin_of(url)
    return host if port in (80, 443) else f"{host}:{port}"


Observe = Callable[[str], None]
"""Told the name of each point that a transfer passes; tests end a process there."""
