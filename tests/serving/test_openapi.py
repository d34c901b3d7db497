"""What the API says of itself: what its description allows, and much that it does not, is answered without a 5xx."""

import contextlib

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


@pytest.mark.parametrize("examples", [1, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_asked_is_answered_as_described(api, mode, examples):
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 12
    asked = []

    for operation in operations:

        @bounded(examples)
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def tried(case):
            asked.append(case)
            if isinstance(case.body, dict):
                if isinstance(case.body.get("model"), str):
                    case.body["model"] = "small"  # else it would never come farther than to a model that is not there
                for name in ("max_tokens", "max_completion_tokens"):
                    if isinstance(case.body.get(name), int) and case.body[name] > 5:
                        case.body[name] = 5
            case.validate_response(case.call(timeout=60), checks=CHECKS)

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # of an address without parameters nothing is wrong
            tried()
    assert len(asked) >= examples
