"""Children that every server needs, launched before the server's own imports.

The imports of the server and of its children take a third of a second each: side by side, the first
request finds both ready.
"""

from dataclasses import dataclass

from localrun.config import child_environment
from localrun.system.launch import Launched, launch_child

RUNNER_MODULE, TEXT_MODULE = "localrun.runner", "localrun.text"


@dataclass(slots=True, eq=False)
class Early:
    """The children; each is whose who takes it.

    Attributes:
        text: A text worker with the default limits.
        runner: A bare runner.
    """

    text: Launched | None = None
    runner: Launched | None = None

    def take_text(self) -> Launched | None:
        """The text worker, once."""
        taken, self.text = self.text, None
        return taken

    def take_runner(self) -> Launched | None:
        """The runner, once."""
        taken, self.runner = self.runner, None
        return taken

    def discard(self) -> None:
        """End those that nobody has taken."""
        for child in (self.take_text(), self.take_runner()):
            if child is not None:
                child.discard()


def launch_early() -> Early:
    """Launch both. Call it on the main thread, in the process that will serve.

    Raises:
        OSError: If a process cannot be started.
    """
    env = child_environment()
    early = Early(text=launch_child(TEXT_MODULE, env=env))
    try:
        early.runner = launch_child(RUNNER_MODULE, env=env)
    except OSError:
        early.discard()
        raise
    return early
