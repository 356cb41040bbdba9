"""`explain`: why prompts were, or were not, read from the cache."""

import json
import sys
from datetime import UTC, datetime
from urllib.parse import urlencode

import click

from localrun.cli.client import need_server
from localrun.cli.completion import complete_model
from localrun.cli.tables import table, time_text
from localrun.cli.wire import Json, array, number, record, text
from localrun.config import load_settings


@click.command()
@click.argument("model", required=False, default="", shell_complete=complete_model)
@click.option("-n", "n", default=8, show_default=True, type=click.IntRange(1, 1000), metavar="N",
              help="Show the last N requests.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(model: str, n: int, *, as_json: bool) -> None:
    """Show for the last requests what broke the prefix of their prompts."""
    query = urlencode({"model": model, "n": n})
    requests = array(need_server(load_settings()).get(f"/api/explain?{query}"), "requests")
    if as_json:
        print(json.dumps(requests, indent=2, ensure_ascii=False))
        return
    sys.stdout.write(describe(requests, datetime.now(UTC)))


def describe(requests: list[Json], now: datetime) -> str:
    """A table of the requests, the newest last, and the words that differ below it."""
    if not requests:
        return "no prompt was answered yet\n"
    rows: list[tuple[str, ...]] = []
    words = ""
    for count, request in enumerate(reversed(requests), 1):
        rows.append(
            (
                str(count),
                text(request, "model"),
                time_text(text(request, "answered_at"), now),
                f"{int(number(request, 'prompt_tokens')):,}",
                f"{int(number(request, 'cached_tokens')):,}",
                text(request, "why"),
            )
        )
        words += _words(count, record(request, "broken"))
    return table(("#", "MODEL", "ANSWERED", "PROMPT", "CACHED", "WHY"), rows) + words


def _words(count: int, broken: Json) -> str:
    if not broken:
        return ""
    was, now = text(broken, "was"), text(broken, "now")
    lines = [f"\n{count}  {text(broken, 'role')} {int(number(broken, 'index'))}\n"]
    if was:
        lines.append(f"   was  {was!r}\n")
    if now:
        lines.append(f"   now  {now!r}\n")
    return "".join(lines)
