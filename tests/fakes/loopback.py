"""An HTTP server on a free port of this machine, for the fakes that speak HTTP for real."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackServer(ThreadingHTTPServer):
    """Serves each connection in a thread of its own."""

    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what tests are about."""


def serve(handler: type[BaseHTTPRequestHandler], **bound: object) -> LoopbackServer:
    """Start a server; `bound` are attributes of the handler's class."""
    server = LoopbackServer(("127.0.0.1", 0), type("_Bound", (handler,), dict(bound)))
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    return server
