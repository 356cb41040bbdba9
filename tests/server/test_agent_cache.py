"""Ten turns of Claude Code and of Codex, replayed as they are on a real engine."""

import json
import string
from itertools import islice, pairwise

import pytest

from localrun.backends.early import RUNNER_MODULE
from tests.fakes import transcripts
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny
from tests.server.conftest import running

TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{{- '\n# Tools\nAnswer with <tool_call>{"name", "arguments"}</tool_call>.\n<tools>' }}
{%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
{{- '\n</tools><|im_end|>\n' }}{% endif %}
{%- for m in messages %}{% if not (loop.first and tools and m.role == 'system') %}
{{- '<|im_start|>' + m.role + '\n' + m.content }}
{%- for call in m.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}
{{- '<|im_end|>\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""A template like Qwen2.5's: the tools stand behind the system prompt, before the history."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    home = tmp_path_factory.mktemp("agents")
    model = make_tiny(home / "tiny.gguf", arch="qwen2", n_ctx=16384, chat_template=TEMPLATE)
    # The transcript goes on whatever the model says: it stops at its first letter.
    letters = [*string.ascii_letters, *string.digits]
    store_model(home / "models", "agent", model, params={"stop": letters})
    with running(home, runner=RUNNER_MODULE, num_parallel=1) as server:
        yield server


def replay(server, path, bodies):
    """For each request its prompt tokens and how many came from the cache, by its usage."""
    found = []
    with server.client() as client:
        for body in bodies:
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
            found.append(usage_of([json.loads(line[6:]) for line in lines]))
    return found


def usage_of(events):
    if events[-1]["type"] == "message_stop":
        usage = next(e for e in events if e["type"] == "message_delta")["usage"]
        read = usage["cache_read_input_tokens"]
        new = usage["input_tokens"] + usage["cache_creation_input_tokens"]
        start = next(e for e in events if e["type"] == "message_start")["message"]["usage"]
        assert start["input_tokens"] == read + new
        return read + new, read
    usage = events[-1]["response"]["usage"]
    return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]


AGENTS = [("/v1/messages", transcripts.claude_code), ("/v1/responses", transcripts.codex)]


@pytest.mark.parametrize(("path", "transcript"), AGENTS)
def test_an_agents_second_request_begins_where_its_first_ended(engine, path, transcript):
    (first, _), (_, cached) = replay(engine, path, islice(transcript("agent"), 2))
    assert cached >= first


@pytest.mark.slow
@pytest.mark.parametrize(("path", "transcript"), AGENTS)
def test_nine_tenths_of_an_agents_prompts_come_from_the_cache(engine, path, transcript):
    found = replay(engine, path, transcript("agent"))
    assert len(found) == 20
    n_prompt, n_cached = (sum(column) for column in zip(*found, strict=True))
    assert n_cached >= 0.9 * n_prompt, found
    # Not only on average: no request begins anew after the first.
    assert all(cached >= before for (before, _), (_, cached) in pairwise(found))
