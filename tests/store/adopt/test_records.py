"""What is remembered of adopted models reads back as it was written."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.names import parse_name
from localrun.store.adopt.records import (
    AdoptedFile,
    Index,
    Place,
    Record,
    read_index,
    write_index,
)
from localrun.store.manifest import ModelConfig

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
PATHS = TEXTS.filter(lambda text: text not in (".", "..")).map(lambda text: Path("/", text))
PLACES = st.builds(Place, PATHS, st.sampled_from(["ollama", "hub", "folder"]))
FILES = st.builds(
    AdoptedFile,
    PATHS,
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 62),
    st.sampled_from(["", "ab" * 32]),
)
RECORDS = st.builds(
    Record,
    st.sampled_from(["a", "b/c:d", "hf.co/x.y/z:Q4_K_M"]).map(parse_name),
    PLACES,
    st.lists(FILES, min_size=1, max_size=3).map(tuple),
    st.builds(ModelConfig, model_family=TEXTS, context_length=st.integers(0, 1 << 30)),
)


@settings(max_examples=20)  # each writes a file down to the disk
@given(
    st.builds(
        Index,
        st.lists(PLACES, max_size=3).map(tuple),
        st.lists(RECORDS, max_size=3).map(tuple),
        st.frozensets(st.tuples(TEXTS, TEXTS), max_size=3),
    )
)
def test_what_is_written_reads_back(tmp_path_factory, index: Index) -> None:
    path = tmp_path_factory.getbasetemp() / "adopted.json"
    write_index(path, index)
    assert read_index(path) == index


@given(RECORDS)
def test_the_same_files_are_the_same_model(record: Record) -> None:
    model = record.model()
    assert model == record.model()
    assert model.size_bytes >= sum(file.size for file in record.files)
    assert model.model_digest == record.files[0].digest
