"""POST /v1/chat/completions: from a request to an `Ask`."""

from collections.abc import Mapping
from dataclasses import dataclass

from localrun.errors import BadRequest
from localrun.messages import Turn
from localrun.server.answers import Call
from localrun.server.ask import Ask
from localrun.server.complete import complete
from localrun.server.openai.errors import reading
from localrun.server.openai.fields import (
    MAX_N,
    Body,
    read_biases,
    read_body,
    read_keep_alive,
    read_n_logprobs,
    read_name,
    read_options,
    read_think,
    read_variables,
    refuse_fields,
)
from localrun.server.openai.tools import read_format, read_tools
from localrun.server.openai.turns import count_images, read_turns
from localrun.server.openai.writers import ChatWriter
from localrun.server.prompts import conversation_prompt

_REFUSED: Mapping[str, str] = {
    "functions": "send tools instead",
    "function_call": "send tool_choice instead",
    "audio": "answers are text",
    "web_search_options": "nothing here searches the web; give the model a tool that does",
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat as it was asked for.

    Attributes:
        ask: What the core is to do.
        includes_usage: End a stream with the counts.
    """

    ask: Ask
    includes_usage: bool


async def chat(call: Call) -> None:
    """POST /v1/chat/completions."""
    request = reading(call, read_chat)
    check_name(request.ask)
    writer = ChatWriter(request.ask.model, includes_usage=request.includes_usage)
    call.answer_id = writer.id
    answers = await complete(call, request.ask, writer)
    if request.ask.render_only:
        await call.answer(200, writer.rendered(answers[0]))


def check_name(ask: Ask) -> None:
    """Refuse a request without a model, in the words of Ollama's chat.

    Raises:
        BadRequest: If there is no name.
    """
    if not ask.model:
        raise BadRequest("model is required")


def read_chat(data: bytes) -> ChatRequest:
    """Read the body of a chat.

    Raises:
        BadRequest: If it cannot be understood, or asks for what nobody here does.
    """
    body = read_body(data, "ChatCompletionRequest")
    name = read_name(body)
    messages = body.inners("messages", "[]openai.Message")
    if not messages:
        raise BadRequest("[] is too short - 'messages'")
    turns = read_turns(messages)
    _refuse(body)
    usage = body.inner("stream_options", "openai.StreamOptions")
    return ChatRequest(_ask(body, name, turns), bool(usage and usage.flag("include_usage")))


def _ask(body: Body, name: str, turns: tuple[Turn, ...]) -> Ask:
    tools = read_tools(body)
    budget = body.count("thinking_budget")
    form = body.inner("response_format", "openai.ResponseFormat")
    return Ask(
        model=name,
        prompt=lambda model: conversation_prompt(turns, model),
        options=read_options(body, ("max_completion_tokens", "max_tokens")),
        stream=bool(body.flag("stream")),
        keep_alive_s=read_keep_alive(body),
        think=read_think(body),
        thinking_budget=-1 if budget is None else budget,
        format=read_format(form, "response_format"),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=tools.parallel,
        truncate=body.flag("truncate") is not False,
        n_logprobs=read_n_logprobs(body),
        logit_bias=read_biases(body),
        variables=read_variables(body),
        n=body.whole("n", 1, MAX_N) or 1,
        render_only=bool(body.flag("_debug_render_only")),
        n_images=count_images(turns),
    )


def _refuse(body: Body) -> None:
    refuse_fields(body, _REFUSED)
    modalities = body.array("modalities", "[]string") or []
    if "audio" in modalities:
        refuse_fields(body, {"modalities": "answers are text"})
