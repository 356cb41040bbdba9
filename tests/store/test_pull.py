"""A whole pull: names, choice, events, what is stored, and what happens when it is killed."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localrun.config import Settings, child_environment, load_settings
from localrun.errors import (
    BadModelFile,
    Cancelled,
    DiskFull,
    Forbidden,
    InvalidName,
    LocalrunError,
    Offline,
    OutOfMemory,
    PullFailed,
    SourceMissing,
)
from localrun.gguf import open_model
from localrun.hardware.plan import Budget, GpuBudget
from localrun.names import parse_name
from localrun.store.addresses import RegistryFailed
from localrun.store.catalog import Catalog
from localrun.store.library import Library, StoredModel
from localrun.store.pull import PullEvent, pull
from tests.fakes.hub import FakeHub, Fault, Repo
from tests.fakes.tinygguf import make_phantom, make_tiny, shard_paths

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
MINE = """
[tiny]
description = "for tests"
license = "llama2"
context = 512
template = "{{ messages }}"
params = { stop = ["[INST]"], num_ctx = 256 }
tags = { one = "me/tiny", bare = "me/bare", gone = "me/gone" }
[tinier]
license = "mit"
tags = { one = "me/tiny" }
"""


@dataclass
class World:
    """A Hub with tiny models, an empty store, and a catalog of two names."""

    hub: FakeHub
    library: Library
    catalog: Catalog
    settings: Settings
    folder: Path
    budget: Budget = field(default_factory=lambda: Budget(8 * GIB))
    events: list[PullEvent] = field(default_factory=list)

    def pull(
        self,
        text: str,
        cancelled: Callable[[], bool] = lambda: False,
        library: Library | None = None,
        allow_files: bool = True,
    ) -> StoredModel:
        return pull(
            text,
            library=library or self.library,
            catalog=self.catalog,
            settings=self.settings,
            budget=self.budget,
            allow_files=allow_files,
            report=self.events.append,
            cancelled=cancelled,
        )

    @property
    def plan(self) -> list[dict[str, object]]:
        (plan,) = (event.plan for event in self.events if event.plan)
        return plan


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    folder = tmp_path_factory.mktemp("models")
    tiny = {
        f"tiny-{kind}.gguf": make_tiny(folder / f"tiny-{kind}.gguf", quantization=kind)
        for kind in ("F32", "F16", "Q8_0")
    }
    (folder / "README.md").write_text("# tiny")
    bare = make_tiny(folder / "bare-Q8_0.gguf", quantization="Q8_0", chat_template=None)
    shards = shard_paths(make_tiny(folder / "big-Q8_0", quantization="Q8_0", shards=3))
    broken = folder / "broken-Q8_0.gguf"
    broken.write_bytes(tiny["tiny-Q8_0.gguf"].read_bytes()[:-1000])
    page = folder / "page-Q8_0.gguf"
    page.write_text("<html>not a model</html>" * 100)
    return {
        "me/tiny": Repo({**tiny, "README.md": folder / "README.md"}),
        "me/bare": Repo({"bare-Q8_0.gguf": bare}),
        "me/split": Repo({f"Q8_0/{path.name}": path for path in shards}, license=""),
        "me/half": Repo({path.name: path for path in shards[1:]}),
        "me/broken": Repo({"broken-Q8_0.gguf": broken}),
        "me/page": Repo({"page-Q8_0.gguf": page}),
        "me/none": Repo({"README.md": folder / "README.md"}),
    }


@pytest.fixture
def world(
    models: dict[str, Repo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    mine = tmp_path / "models.toml"
    mine.write_text(MINE)
    with FakeHub(models) as hub:
        # `prepare_hub_environment` writes these; monkeypatch takes them back.
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        environment = {"LOCALRUN_HOME": str(tmp_path), "HF_ENDPOINT": hub.url}
        library = Library(tmp_path / "models")
        settings = load_settings(environment)
        yield World(hub, library, Catalog.load(mine), settings, tmp_path)


def test_a_name_of_the_catalog_becomes_a_model_with_all_its_layers(world: World) -> None:
    model = world.pull("tiny:bare")
    assert model.name == parse_name("tiny:bare")
    assert model.chat_template == "{{ messages }}"
    assert model.params == {"stop": ["[INST]"], "num_ctx": 256}
    (license_text,) = model.licenses
    assert "Llama 2 Community License" in license_text
    assert "hf.co/me/bare@0123456789" in license_text
    config = model.config
    assert (config.model_family, config.file_type) == ("llama", "Q8_0")
    assert config.context_length == 512
    assert open_model(model.model_paths).architecture == "llama"
    assert world.library.find("tiny:bare").digest == model.digest


def test_a_template_of_the_file_is_kept_before_the_catalogs(world: World) -> None:
    assert world.pull("tiny").chat_template is None


def test_the_events_are_ollamas_with_our_plan_between(world: World) -> None:
    model = world.pull("hf.co/me/tiny")
    statuses = list(dict.fromkeys(event.status for event in world.events))
    digest = model.model_digest
    small = [*model.manifest.layers[1:], model.manifest.config]
    assert statuses == [
        "pulling manifest",
        statuses[1],
        f"pulling {digest[7:19]}",
        "verifying sha256 digest",
        *[f"pulling {layer.digest[7:19]}" for layer in small],
        "writing manifest",
        "success",
    ]
    assert statuses[1].startswith("chose Q8_0 (")
    assert statuses[1].endswith("; licence apache-2.0")
    ticks = [event for event in world.events if event.digest == digest]
    assert (ticks[-1].completed, ticks[-1].total) == (
        ticks[-1].total,
        model.manifest.layers[0].size,
    )
    assert world.events[-1].name == "hf.co/me/tiny:latest"
    assert json.dumps(world.plan)


def test_what_is_here_costs_one_event(world: World) -> None:
    digest = world.pull("me/tiny:q8_0").model_digest
    world.events.clear()
    world.hub.seen.clear()
    again = world.pull("hf.co/me/tiny:Q8_0")
    assert again.name.short() == "hf.co/me/tiny:q8_0"
    assert len([event for event in world.events if event.digest == digest]) == 1
    assert len(world.hub.requests("cdn")) == 1, "the header, for the plan"


@pytest.mark.parametrize(
    ("text", "name", "file_type"),
    [
        ("me/tiny", "hf.co/me/tiny:latest", "Q8_0"),
        ("me/tiny:f16", "hf.co/me/tiny:f16", "F16"),
        ("hf.co/me/tiny:F32", "hf.co/me/tiny:F32", "F32"),
        ("https://huggingface.co/me/tiny:F32", "hf.co/me/tiny:F32", "F32"),
        ("hf.co/me/tiny:tiny-F16.gguf", "hf.co/me/tiny:tiny-F16.gguf", "F16"),
        ("tiny:one-f16", "tiny:one-f16", "F16"),
        ("TINY:F32", "TINY:F32", "F32"),
        ("tiny", "tiny:latest", "Q8_0"),
    ],
)
def test_every_way_to_name_a_model_is_understood(
    text: str, name: str, file_type: str, world: World
) -> None:
    model = world.pull(text)
    assert (model.name.short(), model.config.file_type) == (name, file_type)
    assert sum(row["is_chosen"] is True for row in world.plan) == 1
    assert all(row["reason"] for row in world.plan)
    assert world.library.find(text).digest == model.digest


def test_a_split_model_is_taken_whole_with_its_files_names(world: World) -> None:
    model = world.pull("me/split")
    layers = model.manifest.layers[:3]
    assert [layer.name for layer in layers] == [f"big-Q8_0-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    info = open_model(model.model_paths)
    assert (info.split_count, len(model.model_paths)) == (3, 3)
    assert "MIT License" in model.licenses[0], "stated by the file itself, the Hub says nothing"


def test_a_local_file_is_taken_from_the_command_line_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny(world.folder / "plain.gguf", quantization="Q8_0")
    source = make_tiny(world.folder / "My Model (v1).Q8_0.gguf", quantization="Q8_0")
    model = world.pull(str(source))
    assert model.name.short() == "My-Model--v1-.Q8_0:latest"
    assert model.config.file_type == "Q8_0"
    with pytest.raises(Forbidden, match="only from the command line"):
        world.pull(str(source), allow_files=False)
    monkeypatch.chdir(source.parent)
    assert world.pull("plain.gguf").name.short() == "plain:latest"
    with pytest.raises(SourceMissing, match="not in the catalog"):  # as if it were not there
        world.pull("plain.gguf", allow_files=False)


FAILURES: dict[str, tuple[str, type[LocalrunError], str, str]] = {
    "no name": ("../x", InvalidName, "invalid model name", ""),
    "a host that is none": ("example/a/b", InvalidName, "invalid model name", ""),
    "plain HTTP elsewhere": ("http://example.com/a/b", RegistryFailed, "insecure protocol", ""),
    "not in the catalog": ("tiniest", SourceMissing, "not in the catalog", "tinier"),
    "an unknown size": ("tiny:9b", SourceMissing, "not in the catalog", "tiny:bare"),
    "an entry that is wrong": ("tiny:gone", SourceMissing, "never verified", "search"),
    "no repository": ("me/nope", SourceMissing, "no repository", "HF_TOKEN"),
    "no such quantization": ("me/tiny:Q2_K", SourceMissing, "no quantization 'Q2_K'", "F32"),
    "no models in it": ("me/none", SourceMissing, "no GGUF model", "GGUF"),
    "a shard is missing": ("me/half", SourceMissing, "2 of 3 shards", ""),
    "a truncated model": ("me/broken", BadModelFile, "", ""),
    "a page for a model": ("me/page", BadModelFile, "", ""),
    "no such file": ("/nonexistent/m.gguf", SourceMissing, "there is no file", ""),
}


@pytest.mark.parametrize(("text", "error", "why", "hint"), FAILURES.values(), ids=FAILURES.keys())
def test_a_pull_that_cannot_be_ends_with_a_next_step(
    text: str, error: type[LocalrunError], why: str, hint: str, world: World
) -> None:
    with pytest.raises(error) as caught:
        world.pull(text)
    assert why in caught.value.message
    assert hint in caught.value.hint
    assert world.library.list() == []


def test_a_store_that_cannot_be_written_is_named_with_a_next_step(world: World) -> None:
    world.library.root.mkdir()
    (world.library.root / "partial").touch()  # where a folder is wanted
    with pytest.raises(PullFailed, match=r"partial cannot be used: File exists") as caught:
        world.pull("tiny:bare")
    assert "LOCALRUN_MODELS" in caught.value.hint


def test_offline_mode_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment = {"LOCALRUN_HOME": str(world.folder), "HF_HUB_OFFLINE": "1"}
    world.settings = load_settings(environment)
    with pytest.raises(Offline, match="offline mode"):
        world.pull("me/tiny")
    assert world.hub.seen == []


# ── the choice ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The true sizes of Llama 2 7B; the files are holes, and are never read whole."""
    folder = tmp_path_factory.mktemp("llama2")
    kinds = ("Q4_K_M", "Q8_0")
    files = {
        f"llama-2-7b.{kind}.gguf": make_phantom(
            folder / f"{kind}.gguf", "llama2-7b", quantization=kind
        )
        for kind in kinds
    }
    declared = {path: f"{n:064x}" for n, path in enumerate(files)}
    files["llama-2-7b.Q4_0_4_4.gguf"] = files["llama-2-7b.Q4_K_M.gguf"]
    declared["llama-2-7b.Q4_0_4_4.gguf"] = "f" * 64
    return Repo(files, declared=declared)


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (Budget(16 * GIB, (GpuBudget("CUDA0", 0, 8 * GIB, 7 * GIB),)), "Q4_K_M"),
        (Budget(64 * GIB, (GpuBudget("CUDA0", 0, 24 * GIB, 23 * GIB),)), "Q8_0"),
        (Budget(12 * GIB), "Q4_K_M"),
    ],
    ids=["8 GB of VRAM", "24 GB of VRAM", "no GPU"],
)
def test_the_quantization_is_chosen_for_the_machine_before_a_byte_of_weights(
    budget: Budget, chosen: str, llama2: Repo, world: World
) -> None:
    world.hub.repos["me/llama2"] = llama2
    world.budget = budget
    # The disk is too small, which ends the pull before the first byte of weights.
    small = Library(world.folder / "small", free=lambda _: 0)
    with pytest.raises(DiskFull):
        world.pull("me/llama2", library=small)
    rows = {row["quantization"]: row for row in world.plan}
    assert rows[chosen]["is_chosen"]
    assert "no longer reads" in str(rows["Q4_0_4_4"]["reason"])
    assert sum(seen.n_bytes for seen in world.hub.requests("cdn")) <= 9 << 20


def test_what_does_not_fit_is_refused_with_numbers_unless_it_is_asked_for(
    llama2: Repo, world: World
) -> None:
    world.hub.repos["me/llama2"] = llama2
    world.budget = Budget(1 * GIB)
    with pytest.raises(OutOfMemory) as caught:
        world.pull("me/llama2")
    assert "smaller" in caught.value.hint
    assert "Q4_K_M" in caught.value.hint
    small = Library(world.folder / "small", free=lambda _: 0)
    with pytest.raises(DiskFull):
        world.pull("me/llama2:q4_k_m", library=small)
    assert "does not fit" in "".join(event.hint for event in world.events)


# ── kills, cancels and company ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["pulling ", "writing", "success"])
def test_a_pull_that_is_killed_leaves_a_whole_model_or_none(status: str, world: World) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from localrun.config import load_settings
from localrun.hardware.plan import Budget
from localrun.store.catalog import Catalog
from localrun.store.library import Library
from localrun.store.pull import pull
def report(event):
    if event.status.startswith(sys.argv[2]):
        Path(sys.argv[3]).write_text(event.status)
        os.kill(os.getpid(), signal.SIGKILL)
pull("me/tiny", library=Library(Path(sys.argv[1])), catalog=Catalog.load(), report=report,
     settings=load_settings(), budget=Budget(8 << 30), allow_files=False, cancelled=lambda: False)
"""
    witness = world.folder / "witness"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(world.library.root), status, str(witness)],
        env=child_environment(PYTHONPATH=str(ROOT), HF_ENDPOINT=world.hub.url),
        timeout=30,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert witness.read_text().startswith(status)
    assert len(Library(world.library.root).list()) == (status == "success")
    world.pull("me/tiny")
    (model,) = world.library.list()
    assert open_model(model.model_paths).n_layer == 2
    assert {path.name for path in world.library.root.glob("blobs/*")} == {
        digest.replace(":", "-") for digest in model.manifest.digests
    }


def test_a_cancelled_pull_leaves_no_model(world: World) -> None:
    world.hub.faults = [Fault("cdn", after=1, stall_at=100, times=99)]
    stop = threading.Event()

    def is_cancelled() -> bool:
        stop.set()
        return True

    with pytest.raises(Cancelled, match="cancelled"):
        world.pull("me/tiny", is_cancelled)
    assert stop.is_set()
    assert world.library.list() == []


def test_two_pulls_of_one_model_share_the_bytes(world: World) -> None:
    # The first request is the header's, the rest are slow enough to meet.
    world.hub.faults = [Fault("cdn", slow_s=0.03, times=99)]
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(world.pull, ["me/tiny:f32", "tiny:one-f32"]))
    assert models[0].model_digest == models[1].model_digest
    assert len(world.hub.requests("cdn")) == 3, "a header each, and the weights once"


def test_a_model_pulled_again_over_an_older_one_leaves_nothing_behind(world: World) -> None:
    old = world.pull("tiny")
    world.hub.repos["me/tiny"] = Repo(dict(world.hub.repos["me/bare"].files))
    world.events.clear()
    new = world.pull("tiny")
    assert new.model_digest != old.model_digest
    assert not world.library.blobs.has(old.model_digest)
    assert "removing unused layers" in [event.status for event in world.events]
