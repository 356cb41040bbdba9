"""What an answer has to be, in no family's words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from localrun.output.calls import Tools


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer has to be.

    Attributes:
        format: `json`, a JSON schema, or None.
        tools: What may be called.
        tool_choice: `auto`, `none`, `required`, or `name:` and a tool's name.
        many: More than one call is wanted.
        is_open: The prompt ends inside the reasoning.
        reasons: The model may reason first.
    """

    format: str | Mapping[str, object] | None
    tools: Tools
    tool_choice: str = "auto"
    many: bool = True
    is_open: bool = False
    reasons: bool = True

    @property
    def schema(self) -> Mapping[str, object]:
        """What the format says: `json` is any object."""
        if self.format is None or isinstance(self.format, str):
            return {"type": "object"}
        return self.format

    @property
    def callable(self) -> Tools:
        """The tools that the choice leaves."""
        choice = self.tool_choice
        if choice == "none":
            return Tools(())
        if choice.startswith("name:"):
            return self.tools.only(choice.removeprefix("name:"))
        return self.tools

    @property
    def must_call(self) -> bool:
        """Words are no answer."""
        return self.tool_choice not in {"auto", "none"} and bool(self.callable)

    @property
    def holds(self) -> bool:
        """There is something to hold the answer to."""
        return self.format is not None or bool(self.callable)
