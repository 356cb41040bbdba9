"""From a request and a model to what the text worker renders. Pure."""

import re
from collections.abc import Sequence

import msgspec

from localrun.errors import BadRequest
from localrun.messages import Prepare, Turn, pack_tokens
from localrun.server.schema.native import ChatRequest, GenerateRequest
from localrun.server.shelf import vocab_of
from localrun.server.templates import Language, looks_like_go
from localrun.store.library import StoredModel

_THOUGHTS = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)


def generate_prompt(request: GenerateRequest, model: StoredModel) -> Prepare:
    """The prompt of /api/generate.

    Raises:
        BadRequest: If `context` holds what is no token, or `raw` has company.
    """
    check_raw(request)
    vocab = vocab_of(model)
    if request.raw:
        return Prepare(0, vocab, "raw", prompt=request.prompt)
    if request.suffix:
        fill = Prepare(0, vocab, "fill", prompt=request.prompt, suffix=request.suffix)
        return _with_template(fill, request.template)
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
        Prepare(0, vocab, "chat", turns=tuple(turns), context=context), request.template
    )


def check_raw(request: GenerateRequest) -> None:
    """Refuse a raw prompt that is to be put into something.

    Raises:
        BadRequest: In Ollama's words.
    """
    if request.raw and (request.template or request.system or request.context):
        raise BadRequest("raw mode does not support template, system, or context")


def chat_prompt(request: ChatRequest, model: StoredModel) -> Prepare:
    """The prompt of /api/chat: the model's own turns come before the client's."""
    return conversation_prompt(request.messages, model)


def conversation_prompt(messages: Sequence[Turn], model: StoredModel) -> Prepare:
    """The prompt of a conversation in any dialect: the model's own turns come before it."""
    turns = [*_history(model), *messages]
    if model.system and not (messages and messages[0].role == "system"):
        turns.insert(0, Turn("system", model.system))
    if model.config.model_family == "qwen3" or model.name.model.lower() == "deepseek-r1":
        turns = _without_old_thoughts(turns)
    return Prepare(0, vocab_of(model), "chat", turns=tuple(turns))


def _without_old_thoughts(turns: list[Turn]) -> list[Turn]:
    """Drop the reasoning that clients send back, in answers before the last question.

    Source: Ollama's `filterThinkTags`.
    """
    last = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=0)
    return [
        Turn(turn.role, _THOUGHTS.sub("", turn.content), turn.extra)
        if turn.role == "assistant" and at < last
        else turn
        for at, turn in enumerate(turns)
    ]


def _with_template(prompt: Prepare, asked: str) -> Prepare:
    """With the request's own template; the model's is laid in by the core."""
    if not asked:
        return prompt
    language: Language = "go" if looks_like_go(asked) else "jinja"
    return msgspec.structs.replace(prompt, template=asked, template_language=language)


def _history(model: StoredModel) -> list[Turn]:
    return [
        Turn(str(turn.get("role", "")).lower(), str(turn.get("content", "")))
        for turn in model.messages
    ]
