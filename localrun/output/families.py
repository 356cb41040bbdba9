"""The families by the way they call tools, one row each. Pure.

How a family reasons (`reasonings.py`) and how it calls tools are found apart, by texts in its chat
template: many have the one in common and not the other.
"""

# ruff: noqa: RUF001 - the bars in DeepSeek's markers are wide on purpose

from dataclasses import dataclass
from typing import Literal

from localrun.output.channels import HARMONY_MARKERS
from localrun.output.reasonings import Facts
from localrun.output.syntax.bare_json import BareJson
from localrun.output.syntax.base import Syntax
from localrun.output.syntax.json_calls import JsonCalls
from localrun.output.syntax.name_sets import (
    DEEPSEEK,
    DEEPSEEK_R1,
    FUNCTIONGEMMA,
    GEMMA4,
    KIMI_K2,
    MISTRAL,
    SOLAR,
)
from localrun.output.syntax.named_calls import NamedCalls
from localrun.output.syntax.python_calls import PythonCalls
from localrun.output.syntax.tag_sets import (
    ATEM,
    DSML_FUNCTIONS,
    DSML_TOOLS,
    FUNCTION,
    GLM,
    HUNYUAN,
    KIMI_K3,
    MINICPM,
    MINIMAX,
    MINIMAX_M3,
    SEED,
)

Layout = Literal["marked", "harmony", "recipients"]


@dataclass(frozen=True, slots=True)
class Row(Facts):
    """A way of calling tools.

    Attributes:
        name: Of the family.
        syntaxes: How calls are written, the model's own way first.
        wrappers: Markers around the content.
        calls_end_reasoning: A call inside the reasoning ends it.
        layout: What the whole answer is made of.
    """

    name: str = ""
    syntaxes: tuple[Syntax, ...] = ()
    wrappers: tuple[str, ...] = ()
    calls_end_reasoning: bool = False
    layout: Layout = "marked"


_BARE = BareJson()
_HERMES = JsonCalls(("<tool_call>",), ("</tool_call>",))

TOOLS: tuple[Row, ...] = (
    Row(("<|channel|>", "<|message|>"), name="harmony", wrappers=HARMONY_MARKERS, layout="harmony"),
    Row((">>>all",), name="functionary", layout="recipients", wrappers=(">>>",)),
    Row(
        ("<|open|>", "<|close|>", "<|sep|>"),
        name="kimi-k3",
        syntaxes=(KIMI_K3,),
        wrappers=(
            "<|open|>response<|sep|>",
            "<|close|>response<|sep|>",
            "<|close|>message<|sep|>",
        ),
    ),
    Row(
        ("<|tool_calls_section_begin|>",),
        name="kimi-k2",
        syntaxes=(KIMI_K2,),
        calls_end_reasoning=True,
    ),
    Row(
        ("DSML", "tool_calls"),
        ("function_calls",),
        name="deepseek-v4",
        syntaxes=(DSML_TOOLS,),
    ),
    Row(
        ("DSML",),
        name="deepseek-v3.2",
        syntaxes=(DSML_FUNCTIONS,),
    ),
    Row(
        ("<｜tool▁call▁begin｜>", "```json"),
        name="deepseek-r1",
        syntaxes=(DEEPSEEK_R1,),
    ),
    Row(
        ("<｜tool▁call▁begin｜>",),
        name="deepseek",
        syntaxes=(DEEPSEEK,),
    ),
    Row(
        ("]<]minimax[>[",),
        name="minimax-m3",
        syntaxes=(MINIMAX_M3,),
        wrappers=("</mm:think>",),
    ),
    Row(
        ("<minimax:tool_call>",),
        name="minimax",
        syntaxes=(MINIMAX,),
    ),
    Row(
        ("<atem:function_calls>",),
        name="glimmer",
        syntaxes=(ATEM,),
    ),
    Row(
        ("<seed:tool_call>",),
        name="seed-oss",
        syntaxes=(SEED,),
    ),
    Row(
        ("hy_Assistant", "<arg_key{}>"),
        name="hunyuan",
        syntaxes=(HUNYUAN,),
    ),
    Row(
        ("<arg_key>", "<arg_value>"),
        name="glm",
        syntaxes=(GLM, _BARE),
        calls_end_reasoning=True,
    ),
    Row(
        ("<tool_call>", "<function=", "<parameter="),
        name="qwen3-coder",
        syntaxes=(FUNCTION, _BARE),
    ),
    Row(
        ('<function name="', '<param name="'),
        name="minicpm",
        syntaxes=(MINICPM,),
    ),
    Row(
        ("<|tool_call>call:",),
        name="gemma4",
        syntaxes=(GEMMA4,),
        wrappers=("<channel|>",),
    ),
    Row(
        ("<start_function_call>",),
        name="functiongemma",
        syntaxes=(FUNCTIONGEMMA,),
    ),
    Row(
        ("[TOOL_CALLS]", "[ARGS]"),
        name="mistral",
        syntaxes=(MISTRAL,),
    ),
    Row(
        ("[TOOL_CALLS]",),
        name="mistral-nemo",
        syntaxes=(JsonCalls(("[TOOL_CALLS]",), is_array=True),),
    ),
    Row(
        ("<|START_ACTION|>",),
        name="command-r7b",
        syntaxes=(
            JsonCalls(
                ("<|START_ACTION|>",),
                ("<|END_ACTION|>",),
                name_key="tool_name",
                arguments_key="parameters",
                id_key="tool_call_id",
                is_array=True,
            ),
        ),
        wrappers=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Row(
        ("Action:", "tool_name", "<|CHATBOT_TOKEN|>"),
        name="command-r",
        syntaxes=(
            JsonCalls(
                ("Action:\n```json", "Action: ```json"),
                ("```",),
                name_key="tool_name",
                arguments_key="parameters",
                is_array=True,
            ),
        ),
        wrappers=("<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    Row(
        ("<|tools_prefix|>",),
        name="apertus",
        syntaxes=(
            JsonCalls(("<|tools_prefix|>",), ("<|tools_suffix|>",), name_key="", is_array=True),
        ),
    ),
    Row(
        ("<|tool_calls|>", "<|tool_call:begin|>"),
        name="solar",
        syntaxes=(SOLAR,),
        wrappers=("<|content|>", "<|end|>"),
    ),
    Row(
        ("<|tool_list_start|>",),
        name="lfm2",
        syntaxes=(PythonCalls(("<|tool_call_start|>",), ("<|tool_call_end|>",)),),
    ),
    Row(
        ("List of tools: [",),
        name="lfm2",
        syntaxes=(PythonCalls(("<|tool_call_start|>",), ("<|tool_call_end|>",)),),
    ),
    Row(
        ("<function_calls>", "</function_calls>"),
        name="olmo3",
        syntaxes=(PythonCalls(("<function_calls>",), ("</function_calls>",), is_list=False),),
    ),
    Row(
        ("<TOOLCALL>",),
        name="nemotron",
        syntaxes=(JsonCalls(("<TOOLCALL>",), ("</TOOLCALL>",), is_array=True), _BARE),
    ),
    Row(
        ("<tool_calls>[",),
        name="tool-calls",
        syntaxes=(JsonCalls(("<tool_calls>",), ("</tool_calls>",), is_array=True), _BARE),
    ),
    Row(
        ("<tool_calls>",),
        ("<tool_call>",),
        name="tool-calls",
        syntaxes=(JsonCalls(("<tool_calls>",), ("</tool_calls>",), repeats=True), _BARE),
        wrappers=("<answer>", "</answer>"),
    ),
    Row(
        ("<|function_call|>",),
        name="gigachat",
        syntaxes=(JsonCalls(("<|function_call|>",)),),
    ),
    Row(
        ("<|role_sep|>", "function call"),
        name="gigachat",
        syntaxes=(JsonCalls(("<|message_sep|>\n\nfunction call<|role_sep|>\n",)),),
    ),
    Row(
        ("<|action_start|>",),
        name="internlm",
        syntaxes=(
            JsonCalls(
                ("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
                ("<|action_end|>",),
                arguments_key="parameters",
            ),
            _BARE,
        ),
    ),
    Row(
        ("functools[",),
        name="firefunction",
        syntaxes=(JsonCalls(("functools",), is_array=True), _BARE),
    ),
    Row(
        ("<|tool_call|>",),
        name="granite",
        syntaxes=(
            JsonCalls(("<|tool_call|>",), is_array=True),
            _BARE,
        ),
    ),
    Row(
        ("<|tool|>",),
        name="phi4",
        syntaxes=(
            JsonCalls(("<|tool_call|>", "functools"), ("<|/tool_call|>",), is_array=True),
            _BARE,
        ),
    ),
    Row(("<tool_call>",), name="hermes", syntaxes=(_HERMES, _BARE)),
    Row(
        ("<|python_start|>",),
        name="llama4",
        syntaxes=(
            PythonCalls(starts=("[",)),
            PythonCalls(("<|python_start|>",), ("<|python_end|>",)),
            BareJson("parameters", starts=("{",)),
        ),
    ),
    Row(
        ("<function=", "</function>", "<|start_header_id|>"),
        name="functionary-v3.1",
        syntaxes=(NamedCalls(("<function=",), (">",), ("</function>",)), _BARE),
    ),
    Row(
        ("<|start_header_id|>", "tools"),
        name="llama3",
        syntaxes=(
            BareJson("parameters"),
            PythonCalls(
                ("<|python_tag|>",),
                is_list=False,
                otherwise=JsonCalls(("<|python_tag|>",), arguments_key="parameters"),
            ),
            NamedCalls(("<function=",), (">",), ("</function>",)),
        ),
    ),
)
