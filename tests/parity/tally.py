"""Which indexed tensors were compared; `tests/conftest.py` prints how many at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

Place = tuple[str, str]
"""File and key of a tensor."""


@dataclass
class Tally:
    """The tensors of an index, and those of them that were compared."""

    indexed: set[Place] = field(default_factory=set)
    compared: set[Place] = field(default_factory=set)
