"""One server for all tests of this package, with a model that thinks and calls tools."""

import json
from collections.abc import Iterator

import pytest

from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny
from tests.server.conftest import Running, running

THINKER = (
    "{% for t in tools or [] %}<tools>{{ t.function.name }}</tools>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{# enable_thinking </think> #}"
)


@pytest.fixture(scope="package")
def openai_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("openai")
    tiny = make_tiny(home / "tiny.gguf", n_ctx=512)
    thinker = make_tiny(home / "thinker.gguf", n_ctx=2048, chat_template=THINKER, seed=1)
    store_model(home / "models", "tiny", tiny)
    store_model(home / "models", "thinker", thinker)
    store_model(home / "models", "someone/thinker:v2", thinker, system="Be brief.")
    return home


@pytest.fixture(scope="package")
def server(openai_home) -> Iterator[Running]:
    with running(openai_home) as state:
        yield state


def says(*pieces: str) -> dict[str, object]:
    """What makes the fake runner say these pieces."""
    return {"stop": [f"fake: pieces {json.dumps(pieces)}"]}


FUNCTION = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
ADD = {"type": "function", "function": FUNCTION}


def call_text(*arguments: str) -> list[str]:
    """How the model of these tests calls `add`, in pieces."""
    first, *rest = arguments
    return ['<tool_call>{"name": "add", "arguments": ' + first, *rest, "}</tool_call>"]
