"""A loopback Hub with one large random file, and nothing of the user's own Hub settings."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub, Repo

# Read by huggingface_hub when it is first imported, which is after this file.
os.environ.update(HF_HOME="/nonexistent", HF_HUB_DISABLE_TELEMETRY="1", NO_PROXY="127.0.0.1")
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)

SIZE = (20 << 20) + 12345
"""Three parts, the last one odd."""


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random bytes."""
    path = tmp_path_factory.mktemp("large") / "m-Q8_0.gguf"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(scope="session")
def sha256(large: Path) -> str:
    return hashlib.sha256(large.read_bytes()).hexdigest()


@pytest.fixture
def hub(large: Path, sha256: str) -> Iterator[FakeHub]:
    repo = Repo({large.name: large}, declared={large.name: sha256})
    with FakeHub({"me/r": repo}) as hub:
        yield hub
