"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: the tests are small, and results must not depend on how many cores a machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        default=None,
        metavar="DIR",
        help="folder that holds <family>/golden/ (default: ../shared/reference beside the repository)",
    )


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
