"""OpenAI's API: chat completions, completions, embeddings, models and responses."""

from localrun.server.answers import Handler
from localrun.server.openai.chat import chat
from localrun.server.openai.completions import completions
from localrun.server.openai.errors import DIALECT
from localrun.server.openai.models import model, models

__all__ = ["DIALECT", "ROUTES"]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/chat/completions", chat),
    ("POST", "/v1/completions", completions),
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{name:path}", model),
)
"""Methods, path and handler of each route."""
