"""The description of the whole API at /openapi.json."""

from localrun.server.openapi.document import ROUTES, make_document

__all__ = ["ROUTES", "make_document"]
