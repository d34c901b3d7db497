"""Which indexed tensors were compared; `tests/conftest.py` prints how many at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

KEPT = Path(__file__).parent / "data"
"""A small part of the goldens."""

Place = tuple[str, str]
"""File and key of a tensor."""


@dataclass
class Tally:
    """The tensors of an index, and those of them that were compared."""

    indexed: set[Place] = field(default_factory=set)
    compared: set[Place] = field(default_factory=set)


def golden_of(family: str, goldens_of: Callable[[Path, Tally], Any]) -> Any:
    """The fixture of a family's goldens: of all of them, then of what is kept.

    Args:
        goldens_of: makes them of their folder and of what will have been compared; its ``entries`` are the index.
    """

    @pytest.fixture(scope="module", params=["goldens", "kept"])
    def golden(request: pytest.FixtureRequest, tallies: dict[str, Tally]) -> Any:
        kept = request.param == "kept"
        folder = (KEPT if kept else request.getfixturevalue("goldens")) / family / "golden"
        tally = tallies.setdefault(f"{family}, kept in tests/parity/data" if kept else family, Tally())
        found = goldens_of(folder, tally)
        tally.indexed = set(found.entries)
        return found

    return golden
