"""OpenAI's API: chat completions, completions, embeddings, models and responses."""

from localrun.server.answers import Handler
from localrun.server.openai.chat import chat
from localrun.server.openai.completions import completions
from localrun.server.openai.embeddings import embeddings
from localrun.server.openai.errors import DIALECT
from localrun.server.openai.models import model, models
from localrun.server.openai.responses import (
    count_chat,
    count_response,
    create,
    delete,
    input_items,
    show,
)

__all__ = ["DIALECT", "ROUTES"]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/chat/completions", chat),
    ("POST", "/v1/chat/completions/input_tokens", count_chat),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/embeddings", embeddings),
    ("POST", "/v1/responses", create),
    ("POST", "/v1/responses/input_tokens", count_response),
    ("GET", "/v1/responses/{id}", show),
    ("DELETE", "/v1/responses/{id}", delete),
    ("GET", "/v1/responses/{id}/input_items", input_items),
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{name:path}", model),
)
"""Methods, path and handler of each route."""
