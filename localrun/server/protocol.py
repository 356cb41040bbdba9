"""HTTP as uvicorn speaks it, but that a method that nobody knows is told what there is.

The parser breaks off at an unknown method, and uvicorn answers 400; Go's servers answer 405, or 404
where there is no such path. Imported only where httptools is; h11 knows every method.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Allowed: TypeAlias = Callable[[str], list[str]]

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[^ ?]*)[^ ]* HTTP/1\.[01]\r\n")
_KNOWN = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}


def http_protocol(allowed: Allowed) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn.

    Args:
        allowed: The methods that a path takes; none for a path that is not there.
    """

    class Protocol(HttpToolsProtocol):
        _latest = b""

        def data_received(self, data: bytes) -> None:
            """Keep what may turn out to be no HTTP."""
            self._latest = data
            super().data_received(data)

        def send_400_response(self, msg: str) -> None:
            """Answer what the parser did not take."""
            answer = refusal(self._latest, allowed)
            if answer is None:
                super().send_400_response(msg)
                return
            self.transport.write(answer)
            self.transport.close()

    return Protocol


def refusal(data: bytes, allowed: Allowed) -> bytes | None:
    """The answer to a request with an unknown method; None if that is not what is wrong.

    Args:
        data: The beginning of the request.
        allowed: As above.
    """
    line = _REQUEST_LINE.match(data)
    if line is None or line[1] in _KNOWN:
        return None
    methods = ", ".join(allowed(line[2].decode("latin-1")))
    status, text = ("405 Method Not Allowed", "405 method not allowed")
    if not methods:
        status, text = ("404 Not Found", "404 page not found")
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(text)}"]
    lines += [f"Allow: {methods}"] if methods else []
    return "\r\n".join([*lines, "Connection: close", "", text]).encode()
