"""What the API says of itself: what its description allows, and much that it does not, is answered without a 5xx."""

import hypothesis
import pytest

from tests.serving.served import QUESTION, Served, until

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis to try what the API describes")

CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]


def bounded(examples):
    return hypothesis.settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def served():
    one = Served()
    yield one
    assert one.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=1).usage
    until(lambda: not one.worker.answering)
    one.close()


@pytest.fixture(scope="module")
def api(served):
    return schemathesis.openapi.from_url(f"{served.address}/openapi.json")


described = schemathesis.pytest.from_fixture("api")


def tried(case):
    if isinstance(case.body, dict):
        if isinstance(case.body.get("model"), str):
            case.body["model"] = "small"  # else it would never come farther than to a model that is not there
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(case.body.get(name), int) and case.body[name] > 5:
                case.body[name] = 5
    case.validate_response(case.call(timeout=60), checks=CHECKS)


@described.parametrize()
@bounded(4)
def test_a_few_of_each(case):
    tried(case)


@pytest.mark.slow
@described.parametrize()
@bounded(150)
def test_many_of_each(case):
    tried(case)
