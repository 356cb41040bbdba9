"""GET /health: what of this server works, part by part."""

from localrun import __version__
from localrun.backends.ollama import Daemon
from localrun.server.answers import Call
from localrun.server.wire import dump, local_time_of

Status = dict[str, object]


async def health(call: Call) -> None:
    """GET /health: 200, or 503 while the server is closing.

    `degraded` means that a daemon which is counted on cannot be reached; it is asked now.
    """
    rooms = call.rooms
    pid = rooms.parts.text.pid
    ollama = await _daemon_status(rooms.daemon)
    is_closing = rooms.closing.is_set()
    status = "degraded" if ollama["status"] == "gone" else "ok"
    body = {
        "status": "closing" if is_closing else status,
        "version": __version__,
        "text_worker": {"status": "ok", "pid": pid} if pid else {"status": "stopped"},
        "scheduler": _scheduler_status(call),
        "backends": {"llamacpp": {"status": "ok"}, "ollama": ollama},
    }
    await call.answer(503 if is_closing else 200, dump(body))


def _scheduler_status(call: Call) -> Status:
    rooms = call.rooms
    names = {digest: model.name.short() for digest, model in rooms.names.items()}
    runners = [
        {"model": names.get(runner.model, runner.model[:19]), "leases": runner.n_leases}
        for runner in rooms.scheduler.status()
    ]
    return {"status": "ok", "waiting": len(rooms.scheduler.state.waiting), "runners": runners}


async def _daemon_status(daemon: Daemon | None) -> Status:
    """`off`; `ok`; `none` where nobody counts on one; or `gone`, with why."""
    if daemon is None:
        return {"status": "off"}
    found: Status = {"address": daemon.address}
    if await daemon.is_alive():
        return {"status": "ok", **found, "version": daemon.version}
    if not daemon.is_expected and not daemon.seen_at:
        return {"status": "none", **found}
    if daemon.seen_at:
        found["last_seen"] = local_time_of(daemon.seen_at)
    return {"status": "gone", **found, "error": daemon.trouble}
