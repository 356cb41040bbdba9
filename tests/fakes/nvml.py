"""Build the stand-in for NVML (`nvml.c`) with the machine's C compiler."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def build_fake_nvml(folder: Path) -> Path | None:
    """Compile the library into a folder; None without a C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return library
