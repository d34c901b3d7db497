"""How many of the indexed tensors were compared, printed at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

Place = tuple[str, str]
"""File and key of a tensor."""


@dataclass
class Tally:
    """The tensors of an index, and those of them that were compared."""

    indexed: set[Place] = field(default_factory=set)
    compared: set[Place] = field(default_factory=set)


_TALLIES = pytest.StashKey[dict[str, Tally]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLIES] = {}


@pytest.fixture(scope="session")
def tallies(request: pytest.FixtureRequest) -> dict[str, Tally]:
    """By name of a family."""
    return request.config.stash[_TALLIES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, tally in config.stash[_TALLIES].items():
        line = f"{name}: compared {len(tally.compared)} of {len(tally.indexed)} indexed tensors"
        terminalreporter.write_line(line)
