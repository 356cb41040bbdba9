"""Whether a file lies inside a folder, links followed: what leads out of it is not opened."""

from pathlib import Path


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, all links followed, is under a folder, all links followed too."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False
