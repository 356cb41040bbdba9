"""`localrun completion`, and the completion of model names."""

import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

from localrun.errors import LocalrunError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print the completion script of a shell.

    \b
    bash:  localrun completion bash > ~/.local/share/bash-completion/completions/localrun
    zsh:   localrun completion zsh > "${fpath[1]}/_localrun"
    fish:  localrun completion fish > ~/.config/fish/completions/localrun.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    command = ctx.find_root().command
    sys.stdout.write(found(command, {}, "localrun", "_LOCALRUN_COMPLETE").source() + "\n")


def complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the models on this machine; none where no server answers at once."""
    from localrun.cli.client import find_server
    from localrun.cli.wire import array, text
    from localrun.config import load_settings

    try:
        client = find_server(load_settings(), timeout_s=0.3)
        models = array(client.get("/api/tags"), "models") if client else []
    except LocalrunError:
        return []
    names = [text(model, "name") for model in models]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
