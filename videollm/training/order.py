"""The order of samples. A run is a row of positions; what stands at each is a function of the recipe alone.

So the order is the same for any number of workers, ranks and interruptions: a run that goes on skips positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler


class Revisited(Dataset[Any]):
    """A finite dataset as a row without end: gone through again and again, in a new order each time.

    A dataset that says something else at each visit counts ``visits`` before one; here they are the position, so that
    a run that goes on says what it would have said.

    Args:
        dataset: with a length.
        seed: of the orders.
        visited: has the ``visits`` of the dataset.
    """

    def __init__(self, dataset: Any, seed: int, visited: Any = None) -> None:
        self.dataset, self.seed, self.visited = dataset, seed, visited

    def __getitem__(self, position: int) -> Any:
        epoch, step = divmod(position, len(self.dataset))
        if self.visited is not None:
            self.visited.visits = position
        return self.dataset[int(_permutation(len(self.dataset), self.seed + epoch)[step])]


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class InOrder(Sampler[int]):
    """The positions of a run, one after the other."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class LengthGrouped(InOrder):
    """The positions of a run such that those of one step are of like length, and little is padded.

    Windows of ``window`` steps are sorted by length and cut into steps, which are shuffled: no sample leaves its
    window, and short ones do not come first.

    Args:
        count: positions of the run, a multiple of ``step``.
        step: positions of a step, of all ranks and batches together.
        length: of the sample at a position.
        seed: of the shuffling.
        window: steps.
    """

    def __init__(self, count: int, step: int, length: Callable[[int], int], seed: int, window: int = 32) -> None:
        super().__init__(count)
        self.step, self.length, self.seed, self.window = step, length, seed, window

    def __iter__(self) -> Iterator[int]:
        for first in range(0, self.count, self.step * self.window):
            positions = range(first, min(first + self.step * self.window, self.count))
            by_length = sorted(positions, key=lambda position: (self.length(position), position))
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + first)
            for place in torch.randperm(len(positions) // self.step, generator=draw).tolist():
                yield from by_length[place * self.step : (place + 1) * self.step]
