"""`python -m localrun.runner`: one model in a process of its own."""

import argparse
import json
import sys

from localrun.errors import LocalrunError


def main() -> int:
    """Serve a model over `--frames-fd`, or do one of the smaller errands."""
    parser = argparse.ArgumentParser(prog="python -m localrun.runner")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--frames-fd", type=int, help="socket inherited from the server")
    what.add_argument("--describe", action="store_true", help="print the engine as JSON")
    what.add_argument("--quantize", nargs=3, metavar=("IN", "OUT", "TYPE"),
                      help="write a GGUF file in another number format")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of a quantization")
    arguments = parser.parse_args()
    if arguments.quantize:
        from localrun.runner.requantize import run

        source, target, file_type = arguments.quantize
        return run(source, target, file_type, arguments.threads)
    return _describe() if arguments.describe else _serve(arguments.frames_fd)


def _describe() -> int:
    from localrun.llama import describe

    try:
        found = describe()
    except LocalrunError as error:
        sys.stdout.write(json.dumps({"error": error.message, "hint": error.hint}) + "\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _serve(frames_fd: int) -> int:
    from localrun.system.parent import connect_to_parent

    pipe = connect_to_parent(frames_fd)
    from localrun.runner.process import RunnerProcess

    RunnerProcess(pipe).run()
    return 1


if __name__ == "__main__":
    sys.exit(main())
