"""`config show`: every setting, its value, and where that came from."""

import json
import sys

import click

from localrun.cli.tables import table
from localrun.config import SETTINGS, Setting, Settings, load_settings

_SECRET = {"api_keys"}


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(*, as_json: bool) -> None:
    """Show every setting with its value and where that came from.

    A flag wins over LOCALRUN_NAME, that over Ollama's variable, that over config.toml.
    """
    settings = load_settings()
    rows = [("home", str(settings.home), settings.origin("home"))]
    rows += [(setting.key, _value(setting, settings), _origin(setting, settings))
             for setting in SETTINGS]  # fmt: skip
    if as_json:
        found = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        sys.stdout.write(table(("SETTING", "VALUE", "ORIGIN"), rows))


def _origin(setting: Setting, settings: Settings) -> str:
    return settings.origin(setting.field)


def _value(setting: Setting, settings: Settings) -> str:
    """A value as a person would write it; a secret is only said to be there."""
    value: object = getattr(settings, setting.field)
    if setting.field in _SECRET and value:
        return "(set)"
    if settings.origin(setting.field) == "default":
        return setting.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of any setting
    if isinstance(value, float):
        return "forever" if value == float("inf") else f"{value:g}s"
    return str(value)
