"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: the tests are small, and results must not depend on how many cores a machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.parity.tally import Tally

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        default=None,
        metavar="DIR",
        help="folder that holds <family>/golden/ (default: ../shared/reference beside the repository)",
    )


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a test lets DeepSpeed or Ray write into the environment is not handed on to the programs of the next one.
    Ctrl-C interrupts, whatever a test before has made of it, and even where tests in the background would ignore it.
    """
    before, at_interrupt = dict(os.environ), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, at_interrupt)
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.fixture(scope="session")
def reference() -> Path:
    """Where manifests and tokenizers are: always beside the repository."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def goldens(request: pytest.FixtureRequest) -> Path:
    """The folder of ``--goldens``; skips where the default one is absent."""
    given = request.config.getoption("--goldens")
    if given is not None:
        folder = Path(given)
        assert folder.is_dir(), f"--goldens {given}: no such folder"
        return folder
    if not REFERENCE.is_dir():
        pytest.skip(f"no goldens at {REFERENCE}; give them with --goldens DIR")
    return REFERENCE


@pytest.fixture(scope="session")
def golden_media(request: pytest.FixtureRequest, goldens: Path):
    """A function from the name of a media file in an index to its path.

    Looked for in DIR/media, then DIR/../media. Missing is a failure with ``--goldens``, a skip without.
    """

    def find(name: str) -> Path:
        for folder in (goldens / "media", goldens.parent / "media"):
            if (folder / name).is_file():
                return folder / name
        message = f"{name} is neither in {goldens / 'media'} nor in {goldens.parent / 'media'}"
        if request.config.getoption("--goldens") is not None:
            pytest.fail(message)
        pytest.skip(message)

    return find


# -- how many tensors of the originals were compared, printed at the end of a run

_TALLIES = pytest.StashKey[dict[str, Tally]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLIES] = {}


@pytest.fixture(scope="session")
def tallies(request: pytest.FixtureRequest) -> dict[str, Tally]:
    """By name of a family."""
    return request.config.stash[_TALLIES]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells what it has compared."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        told = session.config.stash[_TALLIES].items()
        output["tallies"] = {name: (sorted(one.indexed), sorted(one.compared)) for name, one in told}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    tallies = node.config.stash[_TALLIES]
    for name, (indexed, compared) in getattr(node, "workeroutput", {}).get("tallies", {}).items():
        tally = tallies.setdefault(name, Tally())
        tally.indexed |= set(map(tuple, indexed))
        tally.compared |= set(map(tuple, compared))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, tally in sorted(config.stash[_TALLIES].items()):
        line = f"{name}: compared {len(tally.compared)} of {len(tally.indexed)} indexed tensors"
        terminalreporter.write_line(line)
