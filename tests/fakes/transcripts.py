"""What two agents send while they work for ten turns, request by request.

The shapes are those of Claude Code (/v1/messages) and of Codex (/v1/responses) as they are publicly
known, with shorter texts: what comes again, what moves and what changes from request to request is
as theirs. Claude Code's attribution line has another checksum in each request, its cache marks move
to the last message, and a message that carried one becomes a plain text again.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

_RULES = (
    "You are an interactive agent that helps users with software engineering tasks. Use the"
    " instructions below and the tools available to you to assist the user.\n\n# Tone and style\n"
    " - Only use emojis if the user explicitly requests it.\n - Your responses should be short and"
    " concise.\n\n# Doing tasks\n - The user will primarily request you to perform software"
    " engineering tasks.\n - In general, do not propose changes to code you haven't read.\n"
)
_ENV = (
    "\n# Environment\nYou have been invoked in the following environment:\n"
    " - Primary working directory: /home/user/project\n  - Is a git repository: true\n"
    " - Platform: linux\n - Shell: bash\n - OS Version: Linux 6.8.0\n\ngitStatus: This is the git"
    " status at the start of the conversation.\nCurrent branch: main\n\nStatus:\n(clean)\n"
)
_REMINDER = (
    "<system-reminder>\nAs you answer the user's questions, you can use the following context:\n"
    "# claudeMd\nRun the tests with pytest before you say that something works.\n# currentDate\n"
    "Today's date is 2026-11-24.\n</system-reminder>\n"
)
_TASKS = (
    ("Why does test_parse fail?", "Read", {"file_path": "/home/user/project/parse.py"}),
    ("Fix it.", "Edit", {"file_path": "/home/user/project/parse.py", "old_string": "x[1]",
                         "new_string": "x[0]"}),
    ("Run the tests.", "Bash", {"command": "pytest -q", "description": "Run the tests"}),
    ("Now add a test for an empty line.", "Read", {"file_path": "/home/user/project/test.py"}),
    ("Write it.", "Edit", {"file_path": "/home/user/project/test.py", "old_string": "# more",
                           "new_string": "def test_empty(): assert parse('') == []"}),
    ("Run them again.", "Bash", {"command": "pytest -q -x"}),
    ("What else uses parse?", "Grep", {"pattern": "parse\\(", "output_mode": "content"}),
    ("Is 今天 handled?", "Bash", {"command": "python -c 'import parse; parse.parse(\"今天\")'"}),
    ("Commit it.", "Bash", {"command": "git commit -am 'Fix parse'"}),
    ("Summarize what you did.", "Bash", {"command": "git log -1 --stat"}),
)  # fmt: skip
_OUTPUT = "     1→def parse(line):\n     2→    x = line.split(',')\n     3→    return x[1]\n"


def _schema(**properties: str) -> Body:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties)[:1],
        "additionalProperties": False,
    }


_TOOLS = (
    ("Bash", "Executes a given bash command and returns its output.",
     _schema(command="string", timeout="number", description="string")),
    ("Read", "Reads a file from the local filesystem.",
     _schema(file_path="string", offset="number", limit="number")),
    ("Edit", "Performs exact string replacements in files.",
     _schema(file_path="string", old_string="string", new_string="string")),
    ("Grep", "A powerful search tool built on ripgrep.",
     _schema(pattern="string", path="string", output_mode="string")),
    ("mcp__tracker__search", "Search issues.", _schema(query="string", limit="number")),
    ("mcp__tracker__comment", "Comment on an issue.", _schema(issue="string", text="string")),
)  # fmt: skip


def claude_code(model: str) -> Iterator[Body]:
    """Each request of ten turns: two for each, as every turn calls a tool once."""
    history: list[Body] = []
    for number, (task, tool, arguments) in enumerate(_TASKS):
        text = {"type": "text", "text": task}
        first = [{"type": "text", "text": _REMINDER}] if not history else []
        history.append({"role": "user", "content": [*first, text]})
        yield _claude_request(model, history)
        call = {"type": "tool_use", "id": f"toolu_{number:024d}", "name": tool, "input": arguments}
        said = {"type": "text", "text": "I'll look at that."}
        history.append({"role": "assistant", "content": [said, call]})
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": _OUTPUT}
        history.append({"role": "user", "content": [{**result, "is_error": False}]})
        yield _claude_request(model, history)
        done = {"type": "text", "text": f"Done with step {number}: it works now."}
        history.append({"role": "assistant", "content": [done]})


def _claude_request(model: str, history: list[Body]) -> Body:
    mark = {"cache_control": {"type": "ephemeral"}}
    messages = json.loads(json.dumps(history))
    messages[-1]["content"][-1] |= mark
    for message in messages[:-1]:  # what carried the mark before is a plain text again
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text":
            message["content"] = message["content"][0]["text"]
    nonce = hashlib.sha256(json.dumps(messages).encode()).hexdigest()
    attribution = (
        f"x-anthropic-billing-header: cc_version=2.1.177.{nonce[5:8]}; cc_entrypoint=cli;"
        f" cch={nonce[:5]};"
    )
    tools = [{"name": n, "description": d, "input_schema": s} for n, d, s in _TOOLS]
    if len(history) % 4 == 3:  # an MCP server that keeps its tools in a hash table
        tools[-2:] = tools[:-3:-1]
    return {
        "model": model,
        "messages": messages,
        "system": [
            {"type": "text", "text": attribution},
            {"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude.",
             **mark},
            {"type": "text", "text": _RULES + _ENV, **mark},
        ],
        "tools": tools,
        "metadata": {"user_id": f"user_{'0' * 64}_account__session_{'1' * 36}"},
        "max_tokens": 32000,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "medium"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": True,
    }  # fmt: skip


_CODEX_TOOLS: tuple[Body, ...] = (
    {"type": "function", "name": "shell_command", "strict": False,
     "description": "Runs a shell command and returns its output.",
     "parameters": _schema(command="string", workdir="string", timeout_ms="number")},
    {"type": "function", "name": "update_plan", "strict": False,
     "description": "Updates the task plan.", "parameters": _schema(explanation="string")},
    {"type": "function", "name": "view_image", "strict": False,
     "description": "View a local image.", "parameters": _schema(path="string")},
)  # fmt: skip


def codex(model: str) -> Iterator[Body]:
    """Each request of ten turns of Codex."""
    items: list[Body] = [
        _said("developer", "<permissions instructions>Filesystem sandboxing: workspace-write."),
        _said("user", "# AGENTS.md instructions for /home/user/project\n\n<INSTRUCTIONS>\nRun the"
              " tests.\n</INSTRUCTIONS>"),
        _said("user", "<environment_context>\n  <cwd>/home/user/project</cwd>\n  <shell>bash"
              "</shell>\n</environment_context>"),
    ]  # fmt: skip
    for number, (task, _, arguments) in enumerate(_TASKS):
        items.append(_said("user", task))
        yield _codex_request(model, items)
        call_id = f"call_{number:024d}"
        command = json.dumps({"command": json.dumps(arguments, ensure_ascii=False)})
        items += [
            {"type": "function_call", "name": "shell_command", "arguments": command,
             "call_id": call_id},
            {"type": "function_call_output", "call_id": call_id, "output": _OUTPUT},
        ]  # fmt: skip
        yield _codex_request(model, items)
        items.append(_said("assistant", f"Done with step {number}: it works now."))


def _said(role: str, text: str) -> Body:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _codex_request(model: str, items: list[Body]) -> Body:
    return {
        "model": model,
        "instructions": "You are Codex, based on GPT-5. You are running as a coding agent in the"
        " Codex CLI on a user's computer.\n\n" + _RULES,
        "input": list(items),
        "tools": list(_CODEX_TOOLS),
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": None,  # of a model that Codex does not know
        "store": False,
        "stream": True,
        "include": [],
        "prompt_cache_key": "019ab000-0000-7000-8000-000000000000",
    }
