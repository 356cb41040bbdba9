"""The commands by name, imported when used, and the one place that turns errors into an exit."""

import importlib
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from localrun import __version__
from localrun.errors import LocalrunError

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

_COMMANDS = {
    "serve": ("serve:serve", "Start the server"),
    "create": ("create:create", "Make a model from a Modelfile"),
    "run": ("run:run", "Run a model: answer a prompt, or talk"),
    "pull": ("pull:pull", "Fetch a model"),
    "push": ("push:push", "Send a model to a registry"),
    "adopt": ("adopt:adopt", "Run models of other programs where they lie"),
    "list": ("models:list_", "List the models on this machine"),
    "ps": ("models:ps", "List the models in memory"),
    "show": ("models:show", "Show what a model is"),
    "explain": ("explain:explain", "Show what kept prompts from the cache"),
    "stop": ("models:stop", "Unload a model from memory"),
    "cp": ("copy:cp", "Give a model a second name"),
    "rm": ("models:rm", "Remove models"),
    "bundle": ("bundle:bundle", "Carry models to a machine without a network"),
    "export": ("export:export", "Write a model as one GGUF file"),
    "prune": ("prune:prune", "Remove files that no model needs"),
    "verify": ("verify:verify", "Check the files of models, and mend them"),
    "probe": ("probe:probe", "Show what this machine can run"),
    "config": ("settings:config", "Show the settings, and where each comes from"),
    "completion": ("completion:completion", "Print the completion script of a shell"),
}
_ALIASES = {"ls": "list", "start": "serve"}


class _Commands(click.Group):
    """A group whose commands are imported only when one is used: start-up is a feature."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name or alias."""
        name = _ALIASES.get(cmd_name, cmd_name)
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(f"localrun.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name when there is no such command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}{_near(args[0])}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  localrun run smollm2:135m 'Why is the sky blue?'",
)
@click.version_option(__version__, "-v", "--version", message="localrun %(version)s")
def cli() -> None:
    """Run language models on the machine in front of you."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; errors become a sentence on standard error.

    Returns:
        The exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a letter must not end us
            stream.reconfigure(errors="replace")
    try:
        status = cli.main(list(arguments), prog_name="localrun", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except LocalrunError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return FAILED
    return status if isinstance(status, int) else OK


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*_COMMANDS, *_ALIASES], 1)
    return f" Did you mean {near[0]!r}?" if near else ""
