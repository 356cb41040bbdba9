"""Every route of the server: methods, path, handler, and how its errors are said."""

from typing import NamedTuple

from localrun.server import (
    account,
    anthropic,
    blobs,
    control,
    copy,
    create,
    explain,
    health,
    models,
    native,
    openai,
    openapi,
    push,
    vectors,
)
from localrun.server.answers import NATIVE, Dialect, Handler
from localrun.server.relay import relayed


class Wiring(NamedTuple):
    """A route.

    Attributes:
        methods: With spaces between them.
        path: As Starlette writes paths.
        handler: Answers.
        dialect: How its errors are said.
    """

    methods: str
    path: str
    handler: Handler
    dialect: Dialect = NATIVE


_ROUTES = (
    ("HEAD GET", "/", models.alive),
    ("HEAD GET", "/api/version", models.version),
    ("HEAD GET", "/api/tags", models.tags),
    ("GET", "/api/ps", models.ps),
    ("POST", "/api/generate", native.generate),
    ("POST", "/api/chat", native.chat),
    ("POST", "/api/show", models.show),
    ("POST", "/api/pull", models.pull),
    ("DELETE", "/api/delete", models.delete),
    ("GET", "/metrics", models.metrics),
    ("GET", "/health", health.health),
)
_NATIVE = (
    _ROUTES,
    vectors.ROUTES,
    create.ROUTES,
    blobs.ROUTES,
    copy.ROUTES,
    account.ROUTES,
    control.ROUTES,
    explain.ROUTES,
    push.ROUTES,
    openapi.ROUTES,
)


def routes() -> list[Wiring]:
    """All of them."""
    found = [Wiring(*route) for group in _NATIVE for route in group]
    for module in (openai, anthropic):
        found += [Wiring(*route)._replace(dialect=module.DIALECT) for route in module.ROUTES]
    found.append(Wiring("POST", "/v1/rerank", vectors.v1_rerank, openai.DIALECT))
    return [wiring._replace(handler=relayed(wiring.path, wiring.handler)) for wiring in found]
