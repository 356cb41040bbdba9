"""The families, one row each. Pure.

A row is found by texts that must, and texts that must not, stand in the chat template. The first
row that is found holds, so the special stand before the general.
"""

from dataclasses import dataclass

from localrun.output.syntax.bare_json import BareJson
from localrun.output.syntax.base import Syntax
from localrun.output.syntax.json_calls import JsonCalls


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
    """

    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Row(Facts):
    """A way of calling tools.

    Attributes:
        name: Of the family.
        syntaxes: How calls are written, the model's own way first.
        wrappers: Markers around the content.
    """

    name: str = ""
    syntaxes: tuple[Syntax, ...] = ()
    wrappers: tuple[str, ...] = ()


REASONINGS: tuple[Reasons, ...] = (Reasons(("</think>",), start="<think>", end="</think>"),)

TOOLS: tuple[Row, ...] = (
    Row(
        ("<tool_call>",),
        name="hermes",
        syntaxes=(
            JsonCalls(("<tool_call>",), ("</tool_call>",)),
            BareJson(),
        ),
    ),
)
