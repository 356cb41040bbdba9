"""From a request and a model to what the text worker renders. Pure."""

import re

from localrun.errors import BadRequest
from localrun.messages import Prepare, Turn, pack_tokens
from localrun.server.schema.native import ChatRequest, GenerateRequest
from localrun.server.shelf import vocab_of
from localrun.store.library import StoredModel

_GO = re.compile(r"\{\{-?\s*(\.|\$|/\*|if\b|else\b|end\b|range\b|with\b|block\b|template\b)")


def generate_prompt(request: GenerateRequest, model: StoredModel) -> Prepare:
    """The prompt of /api/generate.

    Raises:
        BadRequest: If `context` holds what is no token.
    """
    vocab = vocab_of(model)
    if request.raw:
        return Prepare(0, vocab, "raw", prompt=request.prompt)
    turns: list[Turn] = []
    if system := request.system or model.system:
        turns.append(Turn("system", system))
    if not request.context:
        turns += _history(model)
    turns.append(Turn("user", request.prompt))
    try:
        context = pack_tokens(request.context or ())
    except OverflowError as error:
        raise BadRequest("context holds a number that is no token") from error
    return _with_template(
        Prepare(0, vocab, "chat", turns=tuple(turns), context=context), model, request.template
    )


def chat_prompt(request: ChatRequest, model: StoredModel) -> Prepare:
    """The prompt of /api/chat: the model's own turns come before the client's."""
    turns = [*_history(model), *request.messages]
    if model.system and request.messages[0].role != "system":
        turns.insert(0, Turn("system", model.system))
    return _with_template(Prepare(0, vocab_of(model), "chat", turns=tuple(turns)), model, "")


def _with_template(prompt: Prepare, model: StoredModel, asked: str) -> Prepare:
    """The request's template, else the store's for a file that has none, else the file's own."""
    text = asked or model.chat_template or model.template
    if text is None:
        return prompt
    is_go = asked or text == model.template
    return Prepare(
        prompt.request_id,
        prompt.vocab,
        prompt.kind,
        turns=prompt.turns,
        context=prompt.context,
        template=text,
        template_language="go" if is_go and looks_like_go(text) else "jinja",
    )


def looks_like_go(template: str) -> bool:
    """Whether a template is Go's; a request does not say in which language it writes."""
    return "{%" not in template and (_GO.search(template) is not None or "{{" not in template)


def _history(model: StoredModel) -> list[Turn]:
    return [
        Turn(str(turn.get("role", "")).lower(), str(turn.get("content", "")))
        for turn in model.messages
    ]
