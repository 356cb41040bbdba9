"""`verify`: are the files what they should be?"""

import json
import sys

import click

from localrun.cli.completion import complete_model
from localrun.cli.progress import Progress
from localrun.config import load_settings
from localrun.errors import LocalrunError
from localrun.store.adopt.adopted import open_library
from localrun.store.manifest import Layer
from localrun.store.verify import Damage, explain, mend
from localrun.store.verify import verify as verify_models


@click.command()
@click.argument("models", nargs=-1, shell_complete=complete_model)
@click.option("--repair", is_flag=True, help="Fetch again what is damaged, and no more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, models: tuple[str, ...], *, repair: bool, as_json: bool) -> None:
    """Hash all files of models, of all without a name, and name the damaged.

    With --repair they are fetched again from where they came: of a file that was found whole
    before, or that was cut short, only the damaged parts. Exits with 1 if something is left.
    """
    settings = load_settings()
    library = open_library(settings)
    chosen = [library.find(name) for name in models] if models else library.list()
    with Progress() as progress:

        def tell(layer: Layer, n_bytes: int) -> None:
            label = f"verifying {layer.digest[7:19]}"
            progress.transfer(label, layer.digest, layer.size, n_bytes)

        damages = verify_models(library, chosen, tell, lambda: False)
    left: list[tuple[Damage, str]] = []
    for damage in damages:
        if not as_json:
            print(f"{damage.path} {damage.reason}; needed by {', '.join(damage.models)}")
        remedy = "localrun verify --repair"
        if repair:
            remedy = _mended(damage)
        if remedy:
            left.append((damage, remedy))
    if as_json:
        print(json.dumps({"checked": len(chosen), "damaged": [_to_json(d, left) for d in damages]}))
    else:
        _conclude(len(chosen), damages, left)
    ctx.exit(1 if left else 0)


def _mended(damage: Damage) -> str:
    """Fetch it again; the reason if that cannot be done, else nothing."""
    settings = load_settings()
    size = damage.layer.size
    try:
        with Progress() as progress:
            label = f"fetching {damage.layer.digest[7:19]}"
            mend(
                damage,
                open_library(settings),
                settings,
                lambda n_bytes: progress.transfer(label, damage.layer.digest, size, n_bytes),
                lambda: False,
            )
    except LocalrunError as error:
        return explain(error)
    return ""


def _conclude(n_models: int, damages: list[Damage], left: list[tuple[Damage, str]]) -> None:
    mended = len(damages) - len(left)
    words = f"{n_models} models checked, {len(damages)} files damaged"
    print(f"{words}, {mended} of them mended" if mended else words)
    for damage, remedy in left:
        print(f"{damage.path.name}: {remedy}", file=sys.stderr)


def _to_json(damage: Damage, left: list[tuple[Damage, str]]) -> dict[str, object]:
    return {
        "path": str(damage.path),
        "digest": damage.layer.digest,
        "reason": damage.reason,
        "models": list(damage.models),
        "is_mended": damage not in [each for each, _ in left],
    }
