"""A server runs another program's model from where it lies, and says whose it is."""

from pathlib import Path

import pytest

from tests.fakes.foreign import ollama_model
from tests.fakes.tinygguf import make_tiny
from tests.server.conftest import running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("adopted")
    name = "registry.ollama.ai/library/tiny/latest"
    ollama_model(home / "ollama", name, make_tiny(home / "t.gguf"), system="Be brief.")
    with running(home, ollama_models=home / "ollama") as state:
        yield state


def test_it_is_listed_shown_run_and_taken_off_the_list(server, tmp_path: Path) -> None:
    theirs = server.settings.ollama_models
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    body = {"model": "tiny", "prompt": "Hi", "stream": False, "options": {"num_predict": 3}}
    with server.client() as client:
        (listed,) = client.get("/api/tags").json()["models"]
        assert (listed["name"], listed["details"]["adopted"]) == ("tiny:latest", str(theirs))
        assert client.post("/api/show", json={"model": "tiny"}).json()["system"] == "Be brief."
        answer = client.post("/api/generate", json=body).json()
        assert answer["eval_count"] == 3
        made = client.post("/api/create", json={"model": "mine", "from": "tiny", "stream": False})
        assert made.status_code == 400
        assert "is adopted" in made.json()["error"]
        assert client.request("DELETE", "/api/delete", json={"model": "tiny"}).status_code == 200
        assert client.get("/api/tags").json()["models"] == []
        assert client.post("/api/generate", json=body).status_code == 404
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before
