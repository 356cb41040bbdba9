"""JSON schemas of requests and answers. Pure.

Of a request only what is checked is typed; further fields are ignored by every route.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeAlias

from localrun.options import Options

Schema: TypeAlias = Mapping[str, object]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
ANY: Schema = {}

_OPTION_TYPES = {
    "int": COUNT, "float": NUMBER, "bool": FLAG, "tuple": {"type": "array", "items": TEXT},
}  # fmt: skip


def record(required: str = "", /, **properties: Schema) -> Schema:
    """An object; `required` are names with spaces between them, the rest may be null."""
    names = required.split()
    typed = {
        name: schema if name in names else nullable(schema) for name, schema in properties.items()
    }
    found: dict[str, object] = {"type": "object", "properties": typed}
    return found | ({"required": names} if names else {})


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def array(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def words(*values: str) -> Schema:
    """One of some strings."""
    return {"type": "string", "enum": list(values)}


def one_of(*schemas: Schema) -> Schema:
    """Any of several."""
    return {"anyOf": list(schemas)}


def _options() -> Schema:
    """Every option that is read, by its type in `options.py`."""
    found: dict[str, Schema] = {}
    for option in fields(Options):
        kind = str(getattr(option.type, "__name__", option.type)).split("[")[0].split(" |")[0]
        found[option.name] = _OPTION_TYPES[kind]
    return record(**found)


_THINK = one_of(FLAG, words("low", "medium", "high", "max"))
_FORMAT = one_of(words("json", ""), OBJECT)
_KEEP_ALIVE = one_of(TEXT, NUMBER)
_TOOL = record("function", type=TEXT, function=record("name", name=TEXT, description=TEXT,
               parameters=OBJECT))  # fmt: skip
_MESSAGE = record(
    role=TEXT, content=TEXT, thinking=TEXT, images=array(TEXT), tool_name=TEXT, tool_call_id=TEXT,
    tool_calls=array(record("function", id=TEXT,
                            function=record("name", name=TEXT, arguments=OBJECT))),
)  # fmt: skip
_RUN: dict[str, Schema] = {
    "model": TEXT, "stream": FLAG, "think": _THINK, "format": _FORMAT, "keep_alive": _KEEP_ALIVE,
    "options": _options(), "truncate": FLAG, "shift": FLAG, "logprobs": FLAG,
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20}, "_debug_render_only": FLAG,
}  # fmt: skip
_EMBED: dict[str, Schema] = {
    "model": TEXT, "options": _options(), "keep_alive": _KEEP_ALIVE, "truncate": FLAG,
}  # fmt: skip
_REGISTRY: dict[str, Schema] = {
    "model": TEXT, "name": TEXT, "stream": FLAG, "insecure": FLAG, "username": TEXT,
    "password": TEXT,
}  # fmt: skip
_METRICS: dict[str, Schema] = dict.fromkeys(
    ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
     "eval_duration"), COUNT
)  # fmt: skip
_PART = one_of(TEXT, array(OBJECT))

_SAMPLED: dict[str, Schema] = {
    "model": TEXT, "stream": FLAG, "temperature": NUMBER, "top_p": NUMBER, "seed": COUNT,
    "frequency_penalty": NUMBER, "presence_penalty": NUMBER, "stop": one_of(TEXT, array(TEXT)),
    "max_tokens": COUNT, "n": {"type": "integer", "minimum": 1, "maximum": 128}, "user": TEXT,
    "stream_options": record(include_usage=FLAG), "logit_bias": OBJECT,
}  # fmt: skip

SCHEMAS: Mapping[str, Schema] = {
    "Error": record("error code", error=TEXT, code=TEXT, hint=TEXT),
    "OpenAIError": record("error", error=record("message type", message=TEXT, type=TEXT,
                                                param=TEXT, code=TEXT)),
    "AnthropicError": record(
        "type error request_id", type=words("error"), request_id=TEXT,
        error=record("type message", type=TEXT, message=TEXT, code=TEXT, hint=TEXT),
    ),
    "GenerateRequest": record(
        "model", **_RUN, prompt=TEXT, suffix=TEXT, system=TEXT, template=TEXT, raw=FLAG,
        context=array(COUNT), images=array(TEXT),
    ),
    "GenerateResponse": record(
        "model created_at response done", model=TEXT, created_at=TEXT, response=TEXT, done=FLAG,
        thinking=TEXT, done_reason=TEXT, context=array(COUNT), **_METRICS,
    ),
    "ChatRequest": record("model", **_RUN, messages=array(_MESSAGE), tools=array(_TOOL)),
    "ChatResponse": record(
        "model created_at message done", model=TEXT, created_at=TEXT, done=FLAG, done_reason=TEXT,
        message=record("role content", role=TEXT, content=TEXT, thinking=TEXT,
                       tool_calls=array(OBJECT)), **_METRICS,
    ),
    "EmbedRequest": record("model", **_EMBED, input=one_of(TEXT, array(TEXT)), dimensions=COUNT),
    "EmbedResponse": record("model embeddings", model=TEXT, embeddings=array(array(NUMBER)),
                            **_METRICS),
    "EmbeddingsRequest": record("model", **_EMBED, prompt=TEXT),
    "EmbeddingsResponse": record("embedding", embedding=array(NUMBER)),
    "RerankRequest": record(
        "model query documents", **_EMBED, query=TEXT, documents=array(one_of(TEXT, OBJECT)),
        top_n=COUNT, return_documents=FLAG,
    ),
    "RerankResponse": record(
        "model results", model=TEXT,
        results=array(record("index relevance_score", index=COUNT, relevance_score=NUMBER)),
    ),
    "TokenizeRequest": record("model", model=TEXT, text=TEXT, content=TEXT, add_special=FLAG),
    "TokenizeResponse": record("tokens", model=TEXT, tokens=array(COUNT)),
    "DetokenizeRequest": record("model tokens", model=TEXT, tokens=array(COUNT)),
    "DetokenizeResponse": record("text", model=TEXT, text=TEXT),
    "ShowRequest": record(model=TEXT, name=TEXT, system=TEXT, verbose=FLAG, options=OBJECT),
    "ShowResponse": record("details model_info capabilities", details=OBJECT, model_info=OBJECT,
                           capabilities=array(TEXT)),
    "PullRequest": record(**_REGISTRY),
    "PushRequest": record(**_REGISTRY),
    "DeleteRequest": record(model=TEXT, name=TEXT),
    "CopyRequest": record("source destination", source=TEXT, destination=TEXT),
    "CreateRequest": record(
        "model", **{"from": TEXT}, model=TEXT, name=TEXT, stream=FLAG, files=OBJECT,
        adapters=OBJECT, template=TEXT, system=TEXT, license=one_of(TEXT, array(TEXT)),
        parameters=OBJECT, messages=array(_MESSAGE), quantize=TEXT,
    ),
    "Progress": record("status", status=TEXT, digest=TEXT, total=COUNT, completed=COUNT),
    "Models": record("models", models=array(record("name model", name=TEXT, model=TEXT))),
    "Version": record("version", version=TEXT),
    "Status": record("cloud", cloud=OBJECT),
    "Health": record("status version text_worker scheduler backends", version=TEXT,
                     status=words("ok", "degraded", "closing"), text_worker=OBJECT,
                     scheduler=OBJECT, backends=OBJECT),
    "Recommendations": record("recommendations", recommendations=array(ANY)),
    "AnswerNowRequest": record("stream", stream=TEXT),
    "AnswerNowResponse": record("stream status", stream=TEXT, status=TEXT),
    "ControlRequest": record("id action", id=TEXT, action=words("reasoning_end")),
    "ControlResponse": record("success", success=FLAG, message=TEXT),
    "Explained": record("requests", requests=array(record(
        "model answered_at prompt_tokens cached_tokens why", model=TEXT, answered_at=TEXT,
        prompt_tokens=COUNT, cached_tokens=COUNT, earlier_prompt_tokens=COUNT,
        truncated_messages=COUNT, why=TEXT, broken=OBJECT,
    ))),
    "ChatCompletionRequest": record(
        "model messages", **_SAMPLED, messages=array(record("role", role=TEXT, content=_PART)),
        max_completion_tokens=COUNT, tools=array(_TOOL), tool_choice=one_of(TEXT, OBJECT),
        parallel_tool_calls=FLAG, response_format=OBJECT, reasoning_effort=TEXT, logprobs=FLAG,
        top_logprobs=COUNT,
    ),
    "ChatCompletion": record("id object created model choices usage", id=TEXT, object=TEXT,
                             created=COUNT, model=TEXT, choices=array(OBJECT), usage=OBJECT),
    "CompletionRequest": record(
        "model", **_SAMPLED, prompt=one_of(TEXT, array(ANY)), suffix=TEXT, echo=FLAG,
        logprobs=COUNT, best_of=COUNT,
    ),
    "OpenAIEmbedRequest": record(
        "model input", model=TEXT, input=one_of(TEXT, array(ANY)), dimensions=COUNT,
        encoding_format=words("float", "base64"),
    ),
    "OpenAIList": record("object data", object=words("list"), data=array(OBJECT)),
    "OpenAIModel": record("id object created owned_by", id=TEXT, object=words("model"),
                          created=COUNT, owned_by=TEXT),
    "ResponseRequest": record(
        "model input", model=TEXT, input=_PART, instructions=TEXT, stream=FLAG, store=FLAG,
        previous_response_id=TEXT, tools=array(OBJECT), tool_choice=one_of(TEXT, OBJECT),
        parallel_tool_calls=FLAG, temperature=NUMBER, top_p=NUMBER, max_output_tokens=COUNT,
        reasoning=record(effort=TEXT, summary=TEXT), text=OBJECT, truncation=TEXT,
    ),
    "Response": record("id object status output", id=TEXT, object=words("response"), status=TEXT,
                       output=array(OBJECT)),
    "DeletedResponse": record("id object deleted", id=TEXT, object=TEXT, deleted=FLAG),
    "InputTokens": record("input_tokens", object=TEXT, input_tokens=COUNT),
    "MessagesRequest": record(
        "model max_tokens messages", model=TEXT, max_tokens={"type": "integer", "minimum": 1},
        messages=array(record("role content", role=words("user", "assistant", "system"),
                              content=_PART)),
        system=_PART, stream=FLAG, temperature=NUMBER, top_p=NUMBER, top_k=COUNT,
        stop_sequences=array(TEXT), metadata=OBJECT,
        tools=array(record("name", name=TEXT, description=TEXT, input_schema=OBJECT)),
        tool_choice=record("type", type=words("auto", "any", "tool", "none"), name=TEXT,
                           disable_parallel_tool_use=FLAG),
        thinking=record("type", type=TEXT, budget_tokens=COUNT, display=TEXT),
        output_config=record(effort=TEXT, format=OBJECT),
    ),
    "Message": record(
        "id type role model content stop_reason usage", id=TEXT, type=words("message"),
        role=words("assistant"), model=TEXT, content=array(record("type", type=TEXT)),
        stop_reason=TEXT, stop_sequence=TEXT,
        usage=record("input_tokens output_tokens", input_tokens=COUNT, output_tokens=COUNT,
                     cache_creation_input_tokens=COUNT, cache_read_input_tokens=COUNT),
    ),
}  # fmt: skip
"""All schemas by name."""
