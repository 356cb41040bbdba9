"""What a daemon answers about Ollama's cloud and an account there: there is neither."""

from localrun.errors import Forbidden, LocalrunError
from localrun.server.answers import Call, Handler
from localrun.server.schema.decode import parse_json


class NotSignedIn(LocalrunError):
    """Raised when somebody asks for an account."""

    code = "not_signed_in"
    status = 401


async def status(call: Call) -> None:
    """GET /api/status. There is no cloud, whether or not somebody has switched it off."""
    origin = call.rooms.settings.origin("no_cloud")
    source = "env" if origin.endswith("_NO_CLOUD") else "config"
    await call.json({"cloud": {"disabled": True, "source": source}})


async def me(_: Call) -> None:
    """POST /api/me."""
    raise NotSignedIn("unauthorized", hint="localrun has no accounts; everything is local")


async def sign_out(_: Call) -> None:
    """POST /api/signout, and what stood for it before."""
    raise NotSignedIn("you are not currently signed in")


async def web_search(call: Call) -> None:
    """POST /api/experimental/web_search."""
    parse_json(call.body)
    raise Forbidden("ollama cloud is disabled: web search is unavailable")


async def web_fetch(call: Call) -> None:
    """POST /api/experimental/web_fetch."""
    parse_json(call.body)
    raise Forbidden("ollama cloud is disabled: web fetch is unavailable")


async def recommendations(call: Call) -> None:
    """GET /api/experimental/model-recommendations."""
    await call.json({"recommendations": list[object]()})


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/api/status", status),
    ("POST", "/api/me", me),
    ("POST", "/api/signout", sign_out),
    ("DELETE", "/api/user/keys/{key}", sign_out),
    ("POST", "/api/experimental/web_search", web_search),
    ("POST", "/api/experimental/web_fetch", web_fetch),
    ("GET", "/api/experimental/model-recommendations", recommendations),
)
"""Methods, path and handler of each route."""
