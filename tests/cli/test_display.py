"""What an answer looks like: wrapped at words, reasoning set apart."""

import io
import re

import pyte
from hypothesis import given
from hypothesis import strategies as st

from localrun.cli.display import Display, Wrapper

WIDTH = 20


def on_screen(text: str, width: int = WIDTH) -> list[str]:
    """The lines that a terminal shows, wider than the text so that it never breaks by itself."""
    screen = pyte.Screen(4 * width, 200)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display]


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    wrapper = Wrapper(width)
    lines = on_screen("".join(wrapper.feed(letter) for letter in text), width)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def test_a_line_breaks_between_words() -> None:
    assert wrapped("The sky is blue because of how air scatters light.") == [
        "The sky is blue",
        "because of how air",
        "scatters light.",
    ]


def test_a_word_longer_than_the_line_is_cut() -> None:
    assert wrapped("x" * 45) == ["x" * 20, "x" * 20, "x" * 5]


def test_chinese_breaks_anywhere_and_counts_two_columns_a_letter() -> None:
    wrapper = Wrapper(8)
    shown = "".join(map(wrapper.feed, "天空是蓝色的。"))
    assert shown == "天空是蓝\n色的。"


def test_code_between_fences_is_left_as_it_is() -> None:
    code = "```\nprint('a line that is longer than the terminal')\n```"
    assert Wrapper(WIDTH).feed(code) == code


def test_without_a_width_nothing_changes() -> None:
    text = "word " * 50
    assert Wrapper(0).feed(text) == text


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=19), max_size=30))
def test_every_word_is_shown_whole_and_in_order(words: list[str]) -> None:
    lines = wrapped(" ".join(words))
    assert " ".join(lines).split() == words
    assert all(len(line) <= WIDTH for line in lines)


@given(st.text("ab \n天`", max_size=80), st.integers(0, 80))
def test_what_is_fed_in_two_pieces_looks_as_if_fed_at_once(text: str, cut: int) -> None:
    whole, parts = Wrapper(9), Wrapper(9)
    assert parts.feed(text[:cut]) + parts.feed(text[cut:]) == whole.feed(text)


def test_reasoning_is_set_apart_from_the_answer() -> None:
    out = io.StringIO()
    display = Display(out)
    for message in ({"thinking": "let me"}, {"thinking": " see"}, {"content": "Blue."}):
        display.show({"message": message})
    assert out.getvalue() == "Thinking...\nlet me see\n...done thinking.\n\nBlue."


def test_reasoning_is_left_out_where_it_is_hidden() -> None:
    out = io.StringIO()
    display = Display(out, hides_thinking=True)
    display.show({"thinking": "let me see", "response": ""})
    display.show({"response": "Blue."})
    assert out.getvalue() == "Blue."


def test_a_tool_call_is_told() -> None:
    out = io.StringIO()
    call = {"function": {"name": "weather", "arguments": {"city": "上海"}}}
    Display(out).show({"message": {"content": "", "tool_calls": [call]}})
    assert re.search(r"'weather\(\)' with \{\"city\": \"上海\"\}", out.getvalue())
