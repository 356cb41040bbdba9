"""`localrun completion`, and the completion of model names."""

import sys
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from localrun.errors import LocalrunError

_BASH = r"""_localrun_completion() {
    # Bash breaks words at colons, and model names have them: split the line at spaces instead.
    local line=${COMP_LINE:0:COMP_POINT} words word type value
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    local cut=""
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && cut=${word%"${word##*:}"}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("${value#"$cut"}") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$((${#words[@]} - 1)) \
        _LOCALRUN_COMPLETE=bash_complete "$1" 2> /dev/null)
}
complete -o nosort -F _localrun_completion localrun
"""


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
    if shell == "bash":
        sys.stdout.write(_BASH)
        return
    found = get_completion_class(shell)
    assert found is not None
    command = ctx.find_root().command
    sys.stdout.write(found(command, {}, "localrun", "_LOCALRUN_COMPLETE").source() + "\n")


def complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the models: of the server that answers at once, else of the store."""
    from localrun.cli.client import find_server
    from localrun.cli.wire import array, text
    from localrun.config import load_settings
    from localrun.store.adopt.adopted import open_library

    try:
        settings = load_settings()
        if client := find_server(settings, timeout_s=0.3):
            names = [text(model, "name") for model in array(client.get("/api/tags"), "models")]
        else:
            names = [model.name.short() for model in open_library(settings).list()]
    except (LocalrunError, OSError):
        return []
    return _beginning_with(incomplete, names)


def complete_source(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the catalog, with their sizes after a colon; or paths of files."""
    from localrun.config import load_settings
    from localrun.store.catalog import Catalog

    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    try:
        entries = Catalog.load(load_settings().catalog).entries
    except LocalrunError:
        return []
    is_tagged = ":" in incomplete
    names = (f"{entry.name}:{entry.tag}" if is_tagged else entry.name for entry in entries)
    return _beginning_with(incomplete, dict.fromkeys(names))


def _beginning_with(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
