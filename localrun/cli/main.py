"""The entry point. `--version` answers before click is imported; the rest is in `app`."""

import sys

from localrun import __version__


def main() -> None:
    """Run the command line of this process and exit with its status.

    0 done, 1 failed, 2 used wrongly, 130 interrupted.
    """
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-v"]):
        print(f"localrun {__version__}")
        return
    from localrun.cli.app import run

    sys.exit(run(arguments))
