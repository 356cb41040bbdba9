"""Anthropic's Messages API."""

from localrun.server.anthropic.errors import DIALECT
from localrun.server.anthropic.messages import count_tokens, messages

ROUTES = (
    ("POST", "/v1/messages", messages),
    ("POST", "/v1/messages/count_tokens", count_tokens),
)

__all__ = ["DIALECT", "ROUTES"]
