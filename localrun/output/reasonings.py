"""How the families mark their reasoning, one row each. Pure.

A row is found by texts that must, and texts that must not, stand in the chat template. The first
row that is found holds, so the special stand before the general.
"""

from dataclasses import dataclass


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


REASONINGS: tuple[Reasons, ...] = (
    Reasons(
        ("<|channel|>", "<|message|>"),
        start="<|channel|>analysis<|message|>",
        end="<|end|>",
        closing="<|end|><|start|>assistant",
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
