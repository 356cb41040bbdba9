"""The Modelfile that would make a stored model again. Pure."""

from collections.abc import Iterator
from typing import cast

from localrun.modelfile import Command, Modelfile
from localrun.store.library import StoredModel


def modelfile_of(model: StoredModel, system: str | None = None) -> Modelfile:
    """The instructions, in Ollama's order.

    A template that comes with the file is not among them: a Modelfile's TEMPLATE is Go's language,
    not Jinja's.

    Args:
        model: The model.
        system: Stands in place of the model's own system message; None keeps that.
    """
    system = model.system if system is None else system
    return Modelfile(
        (
            *(Command("from", str(path)) for path in model.model_paths),
            *(Command("adapter", str(path)) for path in model.adapter_paths),
            *(Command("draft", str(path)) for path in model.draft_paths),
            *(Command("from", str(path)) for path in model.projector_paths),
            *_given("template", model.template),
            *_given("system", system),
            *_given("renderer", model.config.renderer),
            *_given("parser", model.config.parser),
            *_given("requires", model.config.requires),
            *_parameters(model),
            *(Command("license", text) for text in model.licenses),
            *_messages(model),
        )
    )


def _given(name: str, value: str | None) -> tuple[Command, ...]:
    return (Command(name, value),) if value else ()


def _parameters(model: StoredModel) -> Iterator[Command]:
    for name, value in model.params.items():
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        for item in values:
            yield Command("parameter", _plain(item), name)


def _messages(model: StoredModel) -> Iterator[Command]:
    for turn in model.messages:
        yield Command("message", str(turn.get("content", "")), str(turn.get("role", "")))


def _plain(value: object) -> str:
    """As Go's `%v` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
