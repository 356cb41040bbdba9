"""The families that write calls as tags. Pure."""

# ruff: noqa: RUF001 - the bars in DeepSeek's markers are wide on purpose

from localrun.output.syntax.json_calls import JsonCalls
from localrun.output.syntax.tagged_calls import TaggedCalls, Tags

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

_MINICPM = Tags('<function name="', '">', "</function>", '<param name="', '">', "", "</param>")


def _dsml(block: str) -> TaggedCalls:
    return TaggedCalls(_DSML, (f"<｜DSML｜{block}>",), (f"</｜DSML｜{block}>",), *_DSML_SIGNS)


ATEM = _tagged("<atem:function_calls>", "</atem:function_calls>", _ATEM)
DSML_FUNCTIONS = _dsml("function_calls")
DSML_TOOLS = _dsml("tool_calls")
FUNCTION = _tagged("<tool_call>", "</tool_call>")
GLM = TaggedCalls(_GLM, ("<tool_call>",), otherwise=JsonCalls(("<tool_call>",), ("</tool_call>",)))
HUNYUAN = _tagged("<tool_calls:opensource>", "</tool_calls:opensource>", _HUNYUAN)
KIMI_K3 = TaggedCalls(
    _KIMI_K3,
    ("<|open|>tools<|sep|>",),
    ("<|close|>tools<|sep|>",),
    string_sign=' type="string"',
    json_sign=' type="{}"',
)
MINICPM = TaggedCalls(_MINICPM, (_MINICPM.call,))
MINIMAX = _tagged("<minimax:tool_call>", "</minimax:tool_call>", _INVOKE)
MINIMAX_M3 = TaggedCalls(_MINIMAX_M3, (f"{_NS}<tool_call>",), (f"{_NS}</tool_call>",))
SEED = _tagged("<seed:tool_call>", "</seed:tool_call>")
