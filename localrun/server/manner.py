"""How a model answers a request: its abilities, its family, what its template is told. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from localrun.errors import BadRequest, Unsupported
from localrun.gguf import ModelInfo
from localrun.messages import Prepare
from localrun.output.family import Family, family_of
from localrun.server.ask import Ask
from localrun.server.shelf import capabilities
from localrun.server.templates import family_in, template_of
from localrun.store.library import StoredModel

_PLAIN = family_of(jinja=None, go=None, architecture="")
_VERBS = {"insert": "generate"}


@dataclass(frozen=True, slots=True)
class Manner:
    """How this model answers this request.

    Attributes:
        family: What is special in the model's answers; a plain one where the prompt is raw.
        parses: The answer must be taken apart.
        think: Whether, or how hard, it is to reason; None for a model that cannot.
        tools: What it may call.
    """

    family: Family
    parses: bool
    think: bool | str | None
    tools: tuple[dict[str, object], ...]


def check_able(model: StoredModel, info: ModelInfo, ask: Ask) -> None:
    """Refuse what the model cannot do, in Ollama's words.

    Raises:
        Unsupported: If it lacks what is wanted. Whether it can fill a gap is for the text worker
            to say, which knows the vocabulary.
    """
    able = capabilities(model, info)
    if ask.think and not ask.forgives_think and "thinking" not in able:
        raise Unsupported(f'"{ask.model}" does not support thinking')
    if "completion" not in able:
        raise Unsupported(f'"{ask.model}" does not support {_VERBS.get(ask.verb, ask.verb)}')
    if ask.tools and "tools" not in able:
        raise lacks(model, "tools")
    if ask.n_images:
        _refuse_images(ask, able)
    for tool in ask.tools:
        function = tool.get("function")
        if not (
            isinstance(function, Mapping) and cast("Mapping[str, object]", function).get("name")
        ):
            raise BadRequest("a tool has no function.name")


def lacks(model: StoredModel, what: str) -> Unsupported:
    """The error of a model that cannot do something, in Ollama's words."""
    return Unsupported(f"{model.name.full()} does not support {what}")


def _refuse_images(ask: Ask, able: Sequence[str]) -> None:
    if "vision" in able:
        raise Unsupported("images are not supported by this version of localrun yet")
    raise Unsupported(f'"{ask.model}" does not support images')


def manner_of(model: StoredModel, info: ModelInfo, ask: Ask, prompt: Prepare) -> Manner:
    """How this model answers this request.

    Raises:
        Unsupported: If it lacks what is wanted.
    """
    check_able(model, info, ask)
    if prompt.kind != "chat":
        return Manner(_PLAIN, parses=False, think=None, tools=())
    family = _family(model, prompt, info)
    think = ask.think
    if not family.thinks:
        think = None
    elif think is None:
        think = True  # as Ollama: who can reason does, unless told not to
    tools = () if ask.tool_choice == "none" else tuple(dict(tool) for tool in ask.tools)
    return Manner(family, family.reads(tools=bool(tools)), think, tools)


def _family(model: StoredModel, prompt: Prepare, info: ModelInfo) -> Family:
    """By the template that the prompt is rendered with."""
    if prompt.template is None:
        return template_of(model, info).family
    return family_in(prompt.template, prompt.template_language, info.architecture)


def laid_out(
    model: StoredModel, prompt: Prepare, ask: Ask, manner: Manner, info: ModelInfo
) -> Prepare:
    """The prompt with all that its template and the reader of the answer want to know."""
    prompt = _with_template(
        model, msgspec.structs.replace(prompt, n_ctx_train=info.n_ctx_train), info
    )
    if prompt.kind != "chat":
        return prompt
    family = manner.family
    return msgspec.structs.replace(
        prompt,
        tools=manner.tools,
        think=manner.think,
        variables={**family.variables(manner.think), **ask.variables},
        markers=family.markers if manner.parses else (),
        reasoning_end=family.reasoning_closing if manner.parses else "",
    )


def _with_template(model: StoredModel, prompt: Prepare, info: ModelInfo) -> Prepare:
    """The model's template, unless the request brought one or the file's own holds."""
    if prompt.template is not None or prompt.kind == "raw":
        return prompt
    template = template_of(model, info)
    if template.is_from_file or (prompt.kind == "fill" and not template.fills):
        return prompt
    return msgspec.structs.replace(
        prompt, template=template.text, template_language=template.language
    )
