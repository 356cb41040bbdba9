"""The description of the API is true: every route is in it, and answers as it says."""

import json
import shutil

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from localrun.errors import SourceMissing
from localrun.server.openapi import make_document
from localrun.server.openapi.operations import openapi_path
from localrun.server.routes import routes
from tests.server.conftest import running

DOCUMENT = json.loads(make_document())
N_FEW, N_MANY = 2, 60

schema = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
"""Not that whatever fits a schema is accepted: a model has to exist, too."""


def operations():
    return [
        (method, path)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if path != "/api/push"  # it would ask a registry
    ]


def test_every_route_is_described_and_nothing_else():
    there = {
        (method.lower(), openapi_path(wiring.path))
        for wiring in routes()
        for method in wiring.methods.split()
    }
    described = {(m, path) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert described == there


def test_the_document_is_served(client):
    assert client.get("/openapi.json").json() == DOCUMENT


def test_no_reference_leads_nowhere():
    names = DOCUMENT["components"]["schemas"]
    text = json.dumps(DOCUMENT)
    links = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert links <= set(names)
    assert set(names) <= links


def refuse_pull(text, **_):
    """A source that has nothing."""
    raise SourceMissing(f"there is no {text}")


@pytest.fixture(scope="module")
def shaken(models, tmp_path_factory):
    """A server over a store of its own, which may be changed."""
    home = tmp_path_factory.mktemp("shaken")
    shutil.copytree(models / "models", home / "models")
    with running(home, pull=refuse_pull) as server:
        yield server


@pytest.mark.parametrize(
    "n_examples", [N_FEW, pytest.param(N_MANY, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize(("method", "path"), operations())
def test_a_route_answers_as_it_is_described(shaken, method, path, n_examples):
    strategy = schema[path][method.upper()].as_strategy
    cases = st.one_of(strategy(), strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    names = st.sampled_from(["tiny", "tiny", "other", "nope", ""])

    @settings(
        max_examples=n_examples,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, names)
    def shake(case, name):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = name  # else hardly one would be answered
        case.call_and_validate(base_url=shaken.url, checks=CHECKS, timeout=20)

    shake()
