"""The commands of the prompt: what begins with a slash."""

import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

from localrun.cli.session import Session
from localrun.cli.wire import array, text
from localrun.errors import LocalrunError, ModelNotFound

Obey: TypeAlias = Callable[[Session, str], None]

_HELP = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load <model>   Load a session or model
  /save <model>   Save your current session
  /list [prefix]  List the models on this machine
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message."""
_HELP_SET = """\
Available Commands:
  /set parameter ...     Set a parameter
  /set system <string>   Set system message
  /set history           Enable history
  /set nohistory         Disable history
  /set wordwrap          Enable wordwrap
  /set nowordwrap        Disable wordwrap
  /set format json       Enable JSON mode
  /set noformat          Disable formatting
  /set verbose           Show LLM stats
  /set quiet             Disable LLM stats
  /set think [level]     Enable thinking
  /set nothink           Disable thinking"""
_HELP_SHOW = """\
Available Commands:
  /show info         Show details for this model
  /show license      Show model license
  /show modelfile    Show Modelfile for this model
  /show parameters   Show parameters for this model
  /show system       Show system message
  /show template     Show prompt template"""
_HELP_SHORTCUTS = """\
Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line (Home)
  Ctrl + e            Move to the end of the line (End)
   Alt + b            Move back (left) one word
   Alt + f            Move forward (right) one word
  Ctrl + k            Delete the sentence after the cursor
  Ctrl + u            Delete the sentence before the cursor
  Ctrl + w            Delete the word before the cursor

  Ctrl + j            Insert a newline
  Ctrl + g            Write the message in your editor
  Ctrl + r            Search in what you typed before
  Ctrl + l            Clear the screen
  Ctrl + c            Stop the model from responding
  Ctrl + d            Exit (/bye)"""
_HELP_PAGES = {"set": _HELP_SET, "show": _HELP_SHOW, "shortcuts": _HELP_SHORTCUTS}
_NONE_OF = {
    "license": "No license was specified for this model.",
    "parameters": "No additional parameters were specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
    "modelfile": "No Modelfile can be made for this model.",
}
_LEVELS = ("low", "medium", "high", "max")


class Leave(Exception):
    """Raised when the user wants to go."""


def obey(session: Session, line: str) -> None:
    """Do what a line that begins with a slash says; an error is a sentence, not an end.

    Raises:
        Leave: If it says goodbye.
    """
    command, _, rest = line.strip().partition(" ")
    act = _COMMANDS.get(command)
    if act is None:
        print(f"Unknown command '{command}'. Type /? for help")
        return
    try:
        act(session, rest.strip())
    except LocalrunError as error:
        print(f"Error: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)


def _leave(_: Session, __: str) -> None:
    raise Leave


def _help(_: Session, page: str) -> None:
    print(_HELP_PAGES.get(page.removeprefix("/"), _HELP), file=sys.stderr)


def _clear(session: Session, _: str) -> None:
    session.messages.clear()
    print("Cleared session context")


def _list(session: Session, prefix: str) -> None:
    from localrun.cli.models import models_table

    print(models_table(array(session.client.get("/api/tags"), "models"), prefix), end="")


def _load(session: Session, name: str) -> None:
    if not name:
        print("Usage:\n  /load <modelname>")
        return
    try:
        shown = session.client.call("POST", "/api/show", {"model": name})
    except ModelNotFound:
        print(f"Couldn't find model '{name}'")
        return
    from localrun.cli.wire import words

    print(f"Loading model '{name}'")
    session.model, session.capabilities = name, words(shown, "capabilities")
    session.messages.clear()
    session.system, session.form = "", None
    session.options.clear()
    session.load()


def _save(session: Session, name: str) -> None:
    if not name:
        print("Usage:\n  /save <modelname>")
        return
    body: dict[str, object] = {"model": name, "from": session.model, "stream": False}
    body |= {"system": session.system} if session.system else {}
    body |= {"parameters": session.options} if session.options else {}
    body |= {"messages": session.messages} if session.messages else {}
    session.client.call("POST", "/api/create", body)
    print(f"Created new model '{name}'")


def _show(session: Session, what: str) -> None:
    if what != "info" and what not in _NONE_OF:
        print(_HELP_SHOW if not what else f"Unknown command '/show {what}'. Type /? for help")
        return
    shown = session.client.call("POST", "/api/show", {"model": session.model})
    if what == "info":
        from localrun.cli.models import describe

        print(describe(shown), end="")
        return
    print(_of_session(session, what) + text(shown, what) or _NONE_OF[what])


def _of_session(session: Session, what: str) -> str:
    """What the user has set, before what the model's author has."""
    if what == "system" and session.system:
        return f"User defined system message:\n{session.system}\n\n"
    if what == "parameters" and session.options:
        rows = [f"  {name:<30} {value}" for name, value in session.options.items()]
        return "\n".join(["User defined parameters:", *rows, "", "Model defined parameters:", ""])
    return ""


# ── /set ──────────────────────────────────────────────────────────────────────────────────────


def _set(session: Session, words: str) -> None:
    name, _, rest = words.partition(" ")
    if not name:
        print(_HELP_SET)
    elif (act := _SETTERS.get(name)) is not None:
        act(session, rest.strip())
    else:
        print(f"Unknown command '/set {name}'. Type /? for help")


def _set_parameter(session: Session, words: str) -> None:
    from localrun.modelfile import read_parameter

    name, _, value = words.partition(" ")
    if not value.strip():
        print("Usage:\n  /set parameter <parameter> <value>\n\nSuch as: num_ctx 8192, seed 7, stop")
        return
    if name == "stop":
        session.options[name] = value.split()
    else:
        session.options[name] = read_parameter(name, value.strip())
    shown = ", ".join(value.split()) if name == "stop" else value.strip()
    print(f"Set parameter '{name}' to '{shown}'")


def _set_system(session: Session, words: str) -> None:
    if not words:
        print("Usage:\n  /set system <string>")
        return
    session.system = words.removeprefix('"""').removesuffix('"""').strip("\n")
    print("Set system message.")


def _set_format(session: Session, words: str) -> None:
    if words == "json":
        session.form = "json"
        print("Set format to 'json' mode.")
    else:
        print("Invalid or missing format. For 'json' mode use '/set format json'")


def _set_noformat(session: Session, _: str) -> None:
    session.form = None
    print("Disabled format.")


def _set_think(session: Session, level: str) -> None:
    if level and level not in _LEVELS:
        print(f"Invalid think level '{level}': one of {', '.join(_LEVELS)}, or none")
        return
    session.think = level or True
    print(f"Set 'think' mode to '{level}'." if level else "Set 'think' mode.")
    _warn_think(session)


def _set_nothink(session: Session, _: str) -> None:
    session.think = False
    print("Set 'nothink' mode.")
    _warn_think(session)


def _warn_think(session: Session) -> None:
    if "thinking" not in session.capabilities:
        model = session.model
        print(f'warning: model "{model}" does not support thinking output', file=sys.stderr)
        session.think = None


def _switch(field: str, word: str, *, on: bool) -> Obey:
    def act(session: Session, _: str) -> None:
        setattr(session, field, on)
        print(f"Set '{word}' mode.")

    return act


_SETTERS: Mapping[str, Obey] = {
    "parameter": _set_parameter,
    "system": _set_system,
    "format": _set_format,
    "noformat": _set_noformat,
    "think": _set_think,
    "nothink": _set_nothink,
    "history": _switch("keeps_history", "history", on=True),
    "nohistory": _switch("keeps_history", "nohistory", on=False),
    "wordwrap": _switch("wraps", "wordwrap", on=True),
    "nowordwrap": _switch("wraps", "nowordwrap", on=False),
    "verbose": _switch("is_verbose", "verbose", on=True),
    "quiet": _switch("is_verbose", "quiet", on=False),
}
_COMMANDS: Mapping[str, Obey] = {
    "/set": _set,
    "/show": _show,
    "/load": _load,
    "/save": _save,
    "/list": _list,
    "/clear": _clear,
    "/bye": _leave,
    "/exit": _leave,
    "/?": _help,
    "/help": _help,
}

WORDS: Mapping[str, object] = {
    **dict.fromkeys(_COMMANDS),
    "/set": {**dict.fromkeys(_SETTERS), "format": {"json": None}},
    "/show": dict.fromkeys(("info", *_NONE_OF)),
    "/?": dict.fromkeys(_HELP_PAGES),
}
"""What Tab completes, nested by word."""
