"""The catalog: what is shipped, and what a user's own file may say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import BadSetting, InvalidName
from localrun.store.catalog import Catalog, shipped_file

EXPECTED = {
    "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "mistral", "mixtral", "qwen2.5",
    "qwen3", "gemma2", "gemma3", "phi4", "deepseek-r1", "gpt-oss", "smollm2", "tinyllama",
    "codellama", "nomic-embed-text", "all-minilm", "bge-m3",
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


def test_the_shipped_catalog_knows_the_names_that_people_ask_for(catalog: Catalog) -> None:
    names = {entry.name for entry in catalog.entries}
    assert len(names) >= 40
    assert names >= EXPECTED
    for entry in catalog.entries:
        assert entry.license, entry
        assert entry.description, entry
        assert bool(entry.repo) != bool(entry.package), entry


def test_the_embedded_default_is_called_what_it_is(catalog: Catalog) -> None:
    entry = catalog.resolve("smollm2:135m")
    assert entry is not None
    assert entry.package is not None
    assert (entry.kind, entry.package.size) == ("test", 98_362_432)
    assert "small test model" in entry.description
    bare = catalog.resolve("smollm2")
    assert bare is not None
    assert bare.tag == "1.7b"


@pytest.mark.parametrize(
    ("text", "tag", "quantization"),
    [
        ("llama2", "7b", ""),
        ("llama2:latest", "7b", ""),
        ("LLAMA2:13B", "13b", ""),
        ("llama2:chat", "7b", ""),
        ("llama2:q5_k_m", "7b", "Q5_K_M"),
        ("llama2:7b-q4_K_M", "7b", "Q4_K_M"),
        ("llama2:13b-chat-q4_K_M", "13b", "Q4_K_M"),
        ("qwen2.5:0.5b", "0.5b", ""),
        ("gemma3:4b-it-q8_0", "4b", "Q8_0"),
    ],
)
def test_a_name_means_an_entry(catalog: Catalog, text: str, tag: str, quantization: str) -> None:
    entry = catalog.resolve(text)
    assert entry is not None
    assert (entry.tag, entry.quantization) == (tag, quantization)


@pytest.mark.parametrize("text", ["nope", "llama2:99b", "me/llama2", "hf.co/u/r", "llama2:x-q4_0"])
def test_what_is_not_in_the_catalog_is_none(catalog: Catalog, text: str) -> None:
    assert catalog.resolve(text) is None


def test_a_miss_has_near_names(catalog: Catalog) -> None:
    assert "llama2" in catalog.near("lama2")
    assert "mistral" in catalog.near("mistrall:7b")
    assert catalog.near("llama2:99b") == ["llama2:7b", "llama2:13b", "llama2:70b", "llama2:chat"]
    assert catalog.near("zzzzzz") == []


def test_a_size_says_again_what_differs(catalog: Catalog) -> None:
    three, seven = catalog.resolve("qwen2.5:3b"), catalog.resolve("qwen2.5:7b")
    assert three is not None
    assert seven is not None
    assert (three.license, seven.license) == ("qwen-research", "apache-2.0")


def test_files_without_a_template_get_one(catalog: Catalog) -> None:
    for name in ("llama2", "codellama", "tinyllama", "mixtral"):
        entry = catalog.resolve(name)
        assert entry is not None
        assert entry.template is not None
        assert "messages" in entry.template


def test_a_users_file_overrides_whole_names(tmp_path: Path, catalog: Catalog) -> None:
    mine = tmp_path / "models.toml"
    mine.write_text('[llama2]\ntags = { mine = "me/r" }\n[new]\ntags = { x = "me/n" }\n')
    own = Catalog.load(mine)
    entry, new = own.resolve("llama2"), own.resolve("new:x")
    assert entry is not None
    assert new is not None
    assert (entry.repo, new.repo) == ("me/r", "me/n")
    assert own.resolve("llama2:7b") is None
    assert own.resolve("mistral") == catalog.resolve("mistral")
    assert Catalog.load(tmp_path / "none").resolve("mistral")


BROKEN = {
    "no TOML": ("[a]\nx = \n", "line 2", ""),
    "no tags": ("\n[a]\nlicense = 'x'\n", ":2: ", "has no tags"),
    "an unknown key": ("[a]\ntags = {x='u/r'}\n\nlicence = 'x'\n", ":4: ", "no key 'licence'"),
    "no repository": ("[a]\n[a.tags]\nx = 'u/r'\ny = 'nope'\n", ":4: ", "no repository"),
    "a wrong type": ("[a]\ntags = {x='u/r'}\ncontext = 'long'\n", ":3: ", "no number"),
    "a wrong kind": ("[a]\ntags = {x='u/r'}\nkind = 'best'\n", ":3: ", "none of chat"),
    "a wrong date": ("[a]\ntags = {x='u/r'}\nverified = 'now'\n", ":3: ", "no date"),
    "a wrong default": ("[a]\ndefault = 'z'\ntags = {x='u/r'}\n", ":2: ", "none of its tags"),
    "same of nothing": ("[a.tags]\nx = {same = 'y'}\n", ":2: ", "does not stand above"),
    "both sources": ("[a.tags]\n\nx = {repo = 'u/r', package = {}}\n", ":3: ", "name is missing"),
    "neither": ("[a.tags]\nx = {license = 'mit'}\n", ":2: ", "needs a repo or a package"),
    "no table": ("\n\na = 3\n", ":3: ", "is no table"),
    "quoted names": ("['a.b']\ntags = {x='u/r'}\n['c.d']\nx = 1\n", ":4: ", "no key 'x'"),
    "a path as tag": ("[a.tags]\n'../x' = 'u/r'\n", ":2: ", "is no tag"),
}


@pytest.mark.parametrize(("text", "line", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_entry_names_file_and_line(text: str, line: str, why: str, tmp_path: Path) -> None:
    mine = tmp_path / "models.toml"
    mine.write_text(text)
    with pytest.raises(BadSetting) as caught:
        Catalog.load(mine)
    assert str(mine) in caught.value.message
    assert line in caught.value.message
    assert why in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_looked_up_without_surprise(catalog: Catalog, text: str) -> None:
    catalog.near(text)
    try:
        catalog.resolve(text)
    except InvalidName:
        return


def test_the_shipped_file_is_found() -> None:
    assert shipped_file().name == "models.toml"
