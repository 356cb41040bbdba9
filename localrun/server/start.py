"""Start a server: its children first, then the server's own imports beside theirs."""

from collections.abc import Callable

from localrun.backends.early import launch_early
from localrun.config import Settings


def serve(settings: Settings, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve until a signal; blocks. Call it on the main thread.

    Args:
        settings: All settings.
        ready: Called with the address as a URL once requests are taken.

    Raises:
        BadSetting: If the address cannot be used, with what to do.
        KeyboardInterrupt: If a second signal came before the end was clean.
    """
    early = launch_early()
    try:
        from localrun.server.app import serve as run

        run(settings, ready=ready, early=early)
    finally:
        early.discard()
