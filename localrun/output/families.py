"""The families, one row each. Pure.

A row is found by texts that must, and texts that must not, stand in the chat template. The first
row that is found holds, so the special stand before the general. How a family reasons and how it
calls tools are found apart: many have the one in common and not the other.
"""

# ruff: noqa: RUF001 - the bars in DeepSeek's markers are wide on purpose

from dataclasses import dataclass
from typing import Literal

from localrun.output.channels import HARMONY_MARKERS
from localrun.output.syntax.bare_json import BareJson
from localrun.output.syntax.base import Syntax
from localrun.output.syntax.json_calls import JsonCalls
from localrun.output.syntax.named_calls import QUOTES, NamedCalls
from localrun.output.syntax.python_calls import PythonCalls
from localrun.output.syntax.tagged_calls import TaggedCalls, Tags

Layout = Literal["marked", "harmony", "recipients"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What tells a template.

    Attributes:
        all_of: Texts that stand in it.
        none_of: Texts that do not.
    """

    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def found_in(self, source: str) -> bool:
        """The template is of this kind."""
        return all(text in source for text in self.all_of) and not any(
            text in source for text in self.none_of
        )


@dataclass(frozen=True, slots=True)
class Reasons(Facts):
    """A way of marking the reasoning.

    Attributes:
        start: Opens it.
        end: Closes it.
        closing: What makes a model that is cut short go on with its answer; `end` if empty.
        opened_by: Where a prompt ends so, the reasoning is open; `start` if empty.
        anywhere: It may begin behind content too.
    """

    start: str = ""
    end: str = ""
    closing: str = ""
    opened_by: str = ""
    anywhere: bool = False


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


REASONINGS: tuple[Reasons, ...] = (
    Reasons(
        ("<|channel|>", "<|message|>"),
        start="<|channel|>analysis<|message|>",
        end="<|end|>",
        closing="<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    Reasons(("hy_Assistant",), start="<think:opensource>", end="</think:opensource>"),
    Reasons(("<mm:think>",), start="<mm:think>", end="</mm:think>"),
    Reasons(("<seed:think>",), start="<seed:think>", end="</seed:think>"),
    Reasons(("[THINK]",), start="[THINK]", end="[/THINK]"),
    Reasons(("<|START_THINKING|>",), start="<|START_THINKING|>", end="<|END_THINKING|>"),
    Reasons(("<|channel>thought",), start="<|channel>thought", end="<channel|>", anywhere=True),
    Reasons(("<|inner_prefix|>",), start="<|inner_prefix|>", end="<|inner_suffix|>", anywhere=True),
    Reasons(("<|open|>", "<|close|>"), start="<|open|>think<|sep|>", end="<|close|>think<|sep|>"),
    Reasons(
        ("[BEGIN FINAL RESPONSE]",),
        start="Here are my reasoning steps:",
        end="[BEGIN FINAL RESPONSE]",
    ),
    Reasons(("<|begin|>assistant<|think|>",), start="<|think|>", end="<|end|><|begin|>assistant"),
    Reasons(("<|begin_of_thought|>",), start="<|begin_of_thought|>", end="<|end_of_thought|>"),
    Reasons(("</thought>",), ("</think>",), start="<thought>", end="</thought>"),
    Reasons(("</reasoning>",), ("</think>",), start="<reasoning>", end="</reasoning>"),
    Reasons(("</think>",), start="<think>", end="</think>", closing="\n</think>\n\n"),
)

_BARE = BareJson()
_HERMES = JsonCalls(("<tool_call>",), ("</tool_call>",))
_INVOKE = Tags('<invoke name="', '">', "</invoke>", '<parameter name="', '">', "", "</parameter>")
_ATEM = Tags(
    '<atem:invoke name="', '">', "</atem:invoke>", '<atem:parameter name="', '">', "",
    "</atem:parameter>",
)  # fmt: skip
_FUNCTION = Tags("<function=", ">", "</function>", "<parameter=", ">", "", "</parameter>")
_GLM = Tags("", "", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_HUNYUAN = Tags(
    "<tool_call:opensource>", "<tool_sep:opensource>", "</tool_call:opensource>",
    "<arg_key:opensource>", "</arg_key:opensource>", "<arg_value:opensource>",
    "</arg_value:opensource>",
)  # fmt: skip
_DSML = Tags(
    '<｜DSML｜invoke name="', '">', "</｜DSML｜invoke>",
    '<｜DSML｜parameter name="', '"', ">", "</｜DSML｜parameter>",
)  # fmt: skip
_KIMI_K3 = Tags(
    '<|open|>call tool="', '"', "<|close|>call<|sep|>",
    '<|open|>argument key="', '"', "<|sep|>", "<|close|>argument<|sep|>",
    ' index="',
)  # fmt: skip
_NS = "]<]minimax[>["
_MINIMAX_M3 = Tags(
    f'{_NS}<invoke name="', '">', f"{_NS}</invoke>", f"{_NS}<", ">", "", f"{_NS}</{{}}>"
)


def _tagged(opener: str, closer: str, tags: Tags = _FUNCTION) -> TaggedCalls:
    """Tags between markers that a model may forget."""
    return TaggedCalls(
        tags, (opener, tags.call), (closer,), otherwise=JsonCalls((opener,), (closer,))
    )


_DSML_SIGNS = (' string="true"', ' string="false"')

TOOLS: tuple[Row, ...] = (
    Row(("<|channel|>", "<|message|>"), name="harmony", wrappers=HARMONY_MARKERS, layout="harmony"),
    Row((">>>all",), name="functionary", layout="recipients", wrappers=(">>>",)),
    Row(
        ("<|open|>", "<|close|>", "<|sep|>"),
        name="kimi-k3",
        syntaxes=(
            TaggedCalls(
                _KIMI_K3,
                ("<|open|>tools<|sep|>",),
                ("<|close|>tools<|sep|>",),
                string_sign=' type="string"',
                json_sign=' type="{}"',
            ),
        ),
        wrappers=(
            "<|open|>response<|sep|>",
            "<|close|>response<|sep|>",
            "<|close|>message<|sep|>",
        ),
    ),
    Row(
        ("<|tool_calls_section_begin|>",),
        name="kimi-k2",
        syntaxes=(
            NamedCalls(
                ("<|tool_call_begin|>",),
                ("<|tool_call_argument_begin|>",),
                ("<|tool_call_end|>",),
                before_name="functions.",
                numbered=":",
                sections=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            ),
        ),
        calls_end_reasoning=True,
    ),
    Row(
        ("DSML", "tool_calls"),
        ("function_calls",),
        name="deepseek-v4",
        syntaxes=(
            TaggedCalls(_DSML, ("<｜DSML｜tool_calls>",), ("</｜DSML｜tool_calls>",), *_DSML_SIGNS),
        ),
    ),
    Row(
        ("DSML",),
        name="deepseek-v3.2",
        syntaxes=(
            TaggedCalls(
                _DSML, ("<｜DSML｜function_calls>",), ("</｜DSML｜function_calls>",), *_DSML_SIGNS
            ),
        ),
    ),
    Row(
        ("<｜tool▁call▁begin｜>", "```json"),
        name="deepseek-r1",
        syntaxes=(
            NamedCalls(
                ("<｜tool▁call▁begin｜>",),
                ("```json", "{"),
                ("<｜tool▁call▁end｜>",),
                before_name="function<｜tool▁sep｜>",
                after_name="\n```json\n",
                before_close="\n```",
                sections=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            ),
        ),
    ),
    Row(
        ("<｜tool▁call▁begin｜>",),
        name="deepseek",
        syntaxes=(
            NamedCalls(
                ("<｜tool▁call▁begin｜>",),
                ("<｜tool▁sep｜>",),
                ("<｜tool▁call▁end｜>",),
                sections=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            ),
        ),
    ),
    Row(
        ("]<]minimax[>[",),
        name="minimax-m3",
        syntaxes=(TaggedCalls(_MINIMAX_M3, (f"{_NS}<tool_call>",), (f"{_NS}</tool_call>",)),),
        wrappers=("</mm:think>",),
    ),
    Row(
        ("<minimax:tool_call>",),
        name="minimax",
        syntaxes=(_tagged("<minimax:tool_call>", "</minimax:tool_call>", _INVOKE),),
    ),
    Row(
        ("<atem:function_calls>",),
        name="glimmer",
        syntaxes=(_tagged("<atem:function_calls>", "</atem:function_calls>", _ATEM),),
    ),
    Row(
        ("<seed:tool_call>",),
        name="seed-oss",
        syntaxes=(_tagged("<seed:tool_call>", "</seed:tool_call>"),),
    ),
    Row(
        ("hy_Assistant", "<arg_key{}>"),
        name="hunyuan",
        syntaxes=(_tagged("<tool_calls:opensource>", "</tool_calls:opensource>", _HUNYUAN),),
    ),
    Row(
        ("<arg_key>", "<arg_value>"),
        name="glm",
        syntaxes=(TaggedCalls(_GLM, ("<tool_call>",), otherwise=_HERMES), _BARE),
        calls_end_reasoning=True,
    ),
    Row(
        ("<tool_call>", "<function=", "<parameter="),
        name="qwen3-coder",
        syntaxes=(_tagged("<tool_call>", "</tool_call>"), _BARE),
    ),
    Row(
        ('<function name="', '<param name="'),
        name="minicpm",
        syntaxes=(
            TaggedCalls(
                Tags(
                    '<function name="', '">', "</function>", '<param name="', '">', "", "</param>"
                ),
                ('<function name="',),
            ),
        ),
    ),
    Row(
        ("<|tool_call>call:",),
        name="gemma4",
        syntaxes=(
            NamedCalls(
                ("<|tool_call>call:",), ("{",), ("<tool_call|>",), quotes=('<|"|>', *QUOTES)
            ),
        ),
        wrappers=("<channel|>",),
    ),
    Row(
        ("<start_function_call>",),
        name="functiongemma",
        syntaxes=(
            NamedCalls(
                ("<start_function_call>call:",),
                ("{",),
                ("<end_function_call>",),
                quotes=("<escape>", *QUOTES),
            ),
        ),
    ),
    Row(
        ("[TOOL_CALLS]", "[ARGS]"),
        name="mistral",
        syntaxes=(
            NamedCalls(
                ("[TOOL_CALLS]",),
                ("[ARGS]", "[CALL_ID]"),
                otherwise=JsonCalls(("[TOOL_CALLS]",), is_array=True),
            ),
        ),
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
        syntaxes=(
            NamedCalls(
                ("<|tool_call:begin|>",),
                ("<|tool_call:args|>",),
                ("<|tool_call:end|>",),
                id_end="<|tool_call:name|>",
                sections=("<|tool_calls|>", "<|calls|>"),
            ),
        ),
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
