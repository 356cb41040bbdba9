"""The families that write calls as a name and JSON. Pure."""

# ruff: noqa: RUF001 - the bars in DeepSeek's markers are wide on purpose

from localrun.output.syntax.json_calls import JsonCalls
from localrun.output.syntax.named_calls import QUOTES, NamedCalls

DEEPSEEK = NamedCalls(
    ("<｜tool▁call▁begin｜>",),
    ("<｜tool▁sep｜>",),
    ("<｜tool▁call▁end｜>",),
    sections=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
)
DEEPSEEK_R1 = NamedCalls(
    ("<｜tool▁call▁begin｜>",),
    ("```json", "{"),
    ("<｜tool▁call▁end｜>",),
    before_name="function<｜tool▁sep｜>",
    after_name="\n```json\n",
    before_close="\n```",
    sections=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
)
FUNCTIONGEMMA = NamedCalls(
    ("<start_function_call>call:",),
    ("{",),
    ("<end_function_call>",),
    quotes=("<escape>", *QUOTES),
)
GEMMA4 = NamedCalls(("<|tool_call>call:",), ("{",), ("<tool_call|>",), quotes=('<|"|>', *QUOTES))
KIMI_K2 = NamedCalls(
    ("<|tool_call_begin|>",),
    ("<|tool_call_argument_begin|>",),
    ("<|tool_call_end|>",),
    before_name="functions.",
    numbered=":",
    sections=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
)
MISTRAL = NamedCalls(
    ("[TOOL_CALLS]",),
    ("[ARGS]", "[CALL_ID]"),
    otherwise=JsonCalls(("[TOOL_CALLS]",), is_array=True),
)
SOLAR = NamedCalls(
    ("<|tool_call:begin|>",),
    ("<|tool_call:args|>",),
    ("<|tool_call:end|>",),
    id_end="<|tool_call:name|>",
    sections=("<|tool_calls|>", "<|calls|>"),
)
