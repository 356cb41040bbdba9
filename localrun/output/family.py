"""Which family a model's answers belong to, told by facts in its chat template. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from localrun.errors import TemplateFailed
from localrun.gotemplate.render import infer_tags
from localrun.output.calls import Tools
from localrun.output.channels import HarmonyParser, RecipientParser
from localrun.output.families import TOOLS, Layout, Row
from localrun.output.grammar.channels import harmony, recipients
from localrun.output.grammar.compose import compose
from localrun.output.grammar.wanted import Wanted
from localrun.output.parser import Style, StyleParser
from localrun.output.pieces import Parser
from localrun.output.reasonings import REASONINGS, Reasons
from localrun.output.syntax.bare_json import BareJson
from localrun.output.syntax.json_calls import JsonCalls

_TAIL = 200
_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|\]<\]\w+\[>\[")


@dataclass(frozen=True, slots=True)
class Family:
    """What is special in the way a model answers.

    Attributes:
        name: `qwen3`, `llama3`, `harmony`, …; `generic` for a template with tools in no way that
            is known, `plain` for one with neither tools nor reasoning.
        thinks: It can reason.
        calls_tools: It can call tools.
        style: How the parts of an answer are marked.
        layout: What an answer is made of.
        reasoning_closing: Text that ends the reasoning early and leads to the answer.
        opened_by: A prompt that ends so ends inside the reasoning.
        switches: Template variables that switch the reasoning.
    """

    name: str
    thinks: bool
    calls_tools: bool
    style: Style = field(default_factory=Style)
    layout: Layout = "marked"
    reasoning_closing: str = ""
    opened_by: str = ""
    switches: tuple[str, ...] = ()

    @property
    def reasoning_start(self) -> str:
        """What opens the reasoning; empty where it does not reason."""
        return self.style.reasoning_start

    @property
    def reasoning_end(self) -> str:
        """What closes the reasoning; empty where it does not reason."""
        return self.style.reasoning_end

    @property
    def markers(self) -> tuple[str, ...]:
        """Special tokens whose text the parser needs."""
        style = self.style
        calls = [text for syntax in style.syntaxes for text in (*syntax.markers, *syntax.sections)]
        texts = [style.reasoning_start, style.reasoning_end, *style.wrappers, *calls]
        found = [token for text in texts for token in (text.strip(), *_TOKEN.findall(text))]
        return tuple(dict.fromkeys(token for token in found if len(token) > 1))

    def reads(self, *, tools: bool) -> bool:
        """An answer needs `parser`; else its text is the content as it stands."""
        is_marked = self.layout != "marked" or bool(self.style.wrappers)
        return self.thinks or is_marked or (tools and bool(self.style.syntaxes))

    def variables(self, think: bool | str | None) -> dict[str, object]:  # noqa: FBT001 - three-valued
        """Template variables that switch the reasoning as `think` says; None leaves it as it is."""
        if think is None:
            return {}
        values: dict[str, object] = {}
        for name in self.switches:
            if name == "reasoning_effort":
                values |= self._effort(think)
            elif name == "thinking_mode":
                values[name] = "enabled" if think else "disabled"
            else:
                values[name] = bool(think)
        return values

    def _effort(self, think: bool | str) -> dict[str, object]:  # noqa: FBT001 - three-valued
        if isinstance(think, str):
            level = "high" if think == "max" and self.name == "harmony" else think
            return {"reasoning_effort": level}
        return {"reasoning_effort": "medium"} if think and self.name == "harmony" else {}

    def opens_reasoning(self, prompt_text: str) -> bool:
        """The rendered prompt ends inside the reasoning."""
        opener = self.opened_by.strip()
        return bool(opener) and prompt_text[-_TAIL:].rstrip().endswith(opener)

    def parser(
        self,
        *,
        prompt_text: str,
        tools: Sequence[Mapping[str, object]],
        think: bool | str | None,
        is_formatted: bool = False,
    ) -> Parser:
        """A fresh parser for one answer.

        Args:
            prompt_text: The rendered prompt, whose end may have begun the reasoning.
            tools: What may be called; without any, what looks like a call is content.
            think: As asked; a model that reasons all the same is understood all the same.
            is_formatted: The content is JSON, which may hold texts that look like markers.
        """
        del think
        if self.layout == "harmony":
            return HarmonyParser(Tools(tools), prompt_text)
        if self.layout == "recipients":
            return RecipientParser(Tools(tools), prompt_text)
        is_open = self.opens_reasoning(prompt_text)
        return StyleParser(self.style, Tools(tools), is_open=is_open, is_formatted=is_formatted)

    def grammar(
        self,
        *,
        format: str | Mapping[str, object] | None,  # noqa: A002 - the request's word
        tools: Sequence[Mapping[str, object]] = (),
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        is_open: bool = False,
        think: bool | str | None = None,
    ) -> str:
        """What holds an answer to a format and tools, Lark in llguidance's dialect.

        Args:
            format: `json`, a JSON schema, or None.
            tools: What may be called.
            tool_choice: `auto`, `none`, `required`, or `name:` and a tool's name.
            parallel_tool_calls: More than one call is wanted.
            is_open: The prompt ends inside the reasoning.
            think: False where the model is told not to reason.

        Returns:
            The grammar; empty where everything is allowed.
        """
        wanted = Wanted(
            format, Tools(tools), tool_choice, parallel_tool_calls, is_open, think is not False
        )
        if not wanted.holds:
            return ""
        if self.layout == "marked":
            return compose(self.style, wanted)
        return harmony(wanted) if self.layout == "harmony" else recipients(wanted)


@lru_cache(maxsize=64)
def family_of(*, jinja: str | None, go: str | None, architecture: str) -> Family:
    """The family of a model.

    Args:
        jinja: Its chat template, unless a Go template takes its place.
        go: Its Go template.
        architecture: As its GGUF header says; decides where the template says nothing.
    """
    del architecture
    source = go or jinja or ""
    row = next((row for row in TOOLS if row.found_in(source)), Row())
    if go is not None and row.layout == "marked":
        return _of_go(go, row)
    reasons = next((row for row in REASONINGS if row.found_in(source)), Reasons())
    calls_tools = bool(row.name) or "tools" in source
    bare = (BareJson(),) if calls_tools else ()
    name = row.name or ("generic" if calls_tools else "plain")
    if name == "hermes" and reasons.end:
        name = "qwen3"
    switches = _switches(source) if reasons.end else ()
    return _family(name, reasons, replace(row, syntaxes=row.syntaxes or bare), switches)


def _of_go(source: str, row: Row) -> Family:
    """What a Go template tells: the texts around its reasoning and before its calls."""
    try:
        tags = infer_tags(source)
    except TemplateFailed:  # whoever renders it says so
        return Family("go", thinks=False, calls_tools=False)
    start, end = tags.thinking
    syntaxes = row.syntaxes
    if not syntaxes and "tools" in tags.names:
        opener = tags.tool_call
        closer = f"</{opener[1:]}" if opener[:1] == "<" else ""
        own = JsonCalls((opener,), (closer,) if closer and closer in source else ())
        bare = BareJson("parameters" if '"parameters":' in source else "arguments")
        syntaxes = (bare,) if opener in {"{", "["} else (own, bare)
    reasons = Reasons(start=start, end=end) if start and end else Reasons()
    return _family(row.name or "go", reasons, replace(row, syntaxes=syntaxes), ())


def _family(name: str, reasons: Reasons, row: Row, switches: tuple[str, ...]) -> Family:
    style = Style(
        reasoning_start=reasons.start,
        reasoning_end=reasons.end,
        wrappers=row.wrappers,
        syntaxes=row.syntaxes,
        calls_end_reasoning=row.calls_end_reasoning,
        reasons_anywhere=reasons.anywhere,
    )
    return Family(
        name=name,
        thinks=bool(reasons.end),
        calls_tools=bool(row.syntaxes) or row.layout != "marked",
        style=style,
        layout=row.layout,
        reasoning_closing=reasons.closing or reasons.end,
        opened_by=reasons.opened_by or reasons.start,
        switches=switches,
    )


_SWITCHES = tuple(
    (name, re.compile(rf"(?<![\w.'\"]){name}(?![\w(])"))
    for name in ("enable_thinking", "thinking", "thinking_mode", "reasoning_effort")
)


def _switches(source: str) -> tuple[str, ...]:
    """Variables that the template's own code (not its words) reads."""
    code = " ".join(_CODE.findall(source))
    return tuple(name for name, pattern in _SWITCHES if pattern.search(code))


_CODE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
