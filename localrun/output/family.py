"""Which family a model's answers belong to, told by facts in its chat template. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from localrun.output.calls import Tools
from localrun.output.families import REASONINGS, TOOLS, Reasons
from localrun.output.grammar.compose import Wanted, compose
from localrun.output.parser import Style, StyleParser
from localrun.output.pieces import Parser
from localrun.output.syntax.bare_json import BareJson


@dataclass(frozen=True, slots=True)
class Family:
    """What is special in the way a model answers.

    Attributes:
        name: `qwen3`, `llama3`, `harmony`, …; `generic` for a template with tools in no way that
            is known, `plain` for one with neither tools nor reasoning.
        thinks: It can reason.
        calls_tools: It can call tools.
        style: How the parts of an answer are marked.
        switches: Template variables that switch the reasoning.
    """

    name: str
    thinks: bool
    calls_tools: bool
    style: Style = field(default_factory=Style)
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
        calls = [marker for syntax in style.syntaxes for marker in syntax.markers]
        texts = (style.reasoning_start, style.reasoning_end, *style.wrappers, *calls)
        return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))

    def reads(self, *, tools: bool) -> bool:
        """An answer needs `parser`; else its text is the content as it stands."""
        return self.thinks or bool(self.style.wrappers) or (tools and bool(self.style.syntaxes))

    def variables(self, think: bool | str | None) -> dict[str, object]:  # noqa: FBT001 - three-valued
        """Template variables that switch the reasoning as `think` says; None leaves it as it is."""
        if think is None:
            return {}
        level = think if isinstance(think, str) else ("medium" if think else "")
        values: dict[str, object] = {}
        for name in self.switches:
            if name == "reasoning_effort":
                values |= {name: level} if level else {}
            else:
                values[name] = bool(think)
        return values

    def opens_reasoning(self, prompt_text: str) -> bool:
        """The rendered prompt ends inside the reasoning."""
        start = self.reasoning_start.strip()
        return bool(start) and prompt_text[-200:].rstrip().endswith(start)

    def parser(
        self, *, prompt_text: str, tools: Sequence[Mapping[str, object]], think: bool | str | None
    ) -> Parser:
        """A fresh parser for one answer to this prompt."""
        del think
        return StyleParser(self.style, Tools(tools), is_open=self.opens_reasoning(prompt_text))

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
        return compose(self.style, wanted)


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
    reasons = next((row for row in REASONINGS if row.found_in(source)), Reasons())
    row = next((row for row in TOOLS if row.found_in(source)), None)
    has_tools = row is not None or "tools" in source or ".Tools" in source
    syntaxes = row.syntaxes if row else ((BareJson(),) if has_tools else ())
    style = Style(
        reasoning_start=reasons.start,
        reasoning_end=reasons.end,
        syntaxes=syntaxes,
        wrappers=row.wrappers if row else (),
    )
    name = row.name if row else ("generic" if has_tools else "plain")
    return Family(name, bool(reasons.end), has_tools, style, _switches(source))


def _switches(source: str) -> tuple[str, ...]:
    names = ("enable_thinking", "thinking", "reasoning_effort")
    return tuple(name for name in names if name in source)
