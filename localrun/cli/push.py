"""`push`."""

import click

from localrun.cli.completion import complete_model
from localrun.cli.connect import connect
from localrun.cli.progress import Progress
from localrun.cli.wire import number, text
from localrun.config import load_settings
from localrun.errors import AccessDenied, LocalrunError
from localrun.names import parse_name


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option("--insecure", is_flag=True, help="Speak plain HTTP with the registry.")
@click.option("--username", help="User name at the registry; the password is asked for.")
def push(model: str, username: str | None, *, insecure: bool) -> None:
    """Send a model to a registry.

    MODEL is its whole name, such as registry.example/me/model:tag; give it that name with `localrun
    cp`.
    """
    name = parse_name(model)
    body: dict[str, object] = {"model": model, "insecure": insecure}
    if username:
        password = click.prompt("Password", hide_input=True, err=True)
        body |= {"username": username, "password": password}
    done = False
    with connect(load_settings()) as client, Progress() as progress:
        try:
            for event in client.stream("/api/push", body):
                if total := number(event, "total"):
                    completed = number(event, "completed")
                    label = text(event, "status")
                    progress.transfer(label, text(event, "digest"), int(total), int(completed))
                else:
                    progress.status(text(event, "status"))
                done = text(event, "status") == "success"
        except AccessDenied as error:
            hint = f"{error.hint}; " if error.hint else ""
            raise AccessDenied(
                "you are not authorized to push to this namespace, create the model under a"
                " namespace you own",
                hint=f"{hint}localrun cp {model} HOST/YOUR-NAMESPACE/{name.model}",
            ) from error
    if not done:
        raise LocalrunError(f"the push of '{model}' ended early", hint=f"localrun push {model}")
    print(f"\nYou can find your model at:\n\n\t{name.full()}")
