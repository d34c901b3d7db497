"""Datasets mixed by ratio: which sample is the k-th is a function of (seed, k) alone.

So the order is the same for any number of workers and ranks, and a run goes on at the exact sample: its state is one
number. Loaders hand position k to whoever is free.

Source: Video-LLaMA's published configurations: WebVid 100 to CC3M 24 in the first stage, equal odds in the second.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from videollm.data.ledger import Ledger
from videollm.data.sample import Sample, Source
from videollm.errors import DataError, UnusableSampleError

T = TypeVar("T")

MAX_REPLACEMENTS = 100
"""After so many unusable samples in a row a source is given up."""


@dataclass(frozen=True)
class Place:
    """Which sample is meant: ``index`` of source number ``source``, met for the ``epoch``-th time."""

    source: int
    epoch: int
    index: int


class Mixture:
    """Sources mixed by ratio, without end; position k is found without looking at those before it.

    Positions are dealt in groups of ``group`` that come from one source, as published, where a batch is of one dataset;
    1 mixes within batches. Each group draws its source by the ratios. Every source is shuffled anew in each epoch.

    Args:
        sources: the datasets.
        ratios: the odds of each; equal if None.
        seed: of the draws and the orders.
        group: positions in a row from one source.
        ledger: where unusable samples are entered.

    Raises:
        ValueError: an empty source, or ratios that are none.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        ratios: Sequence[float] | None = None,
        seed: int = 0,
        group: int = 1,
        ledger: Ledger | None = None,
    ) -> None:
        ratios = [1.0] * len(sources) if ratios is None else list(ratios)
        if not sources or len(ratios) != len(sources):
            raise ValueError(f"a mixture needs sources and one ratio each, found {len(sources)} and {len(ratios)}")
        if group < 1 or not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
            raise ValueError(f"group must be at least 1 and ratios positive, found {group} and {ratios}")
        for source in sources:
            if len(source) == 0:
                raise ValueError(f"the source {source.name!r} is empty; leave it out")
        self.sources, self.seed, self.group = list(sources), seed, group
        self.ledger = Ledger() if ledger is None else ledger
        self._turns = _Turns(tuple(ratio / sum(ratios) for ratio in ratios), seed)

    def place(self, position: int, later: int = 0) -> Place:
        """Which sample stands at a position, before anything is read; or one so much later in its epoch's order."""
        source, turn = self._turns.at(position // self.group)
        count = len(self.sources[source])
        epoch, step = divmod(turn * self.group + position % self.group, count)
        return Place(source, epoch, _shuffled(count, (self.seed, source, epoch), (step + later) % count))

    def __getitem__(self, position: int) -> Sample:
        """The sample at a position; in place of an unusable one, the next usable one of its source, see `take`.

        Raises:
            DataError: the ledger's limit is passed, or the source has nothing usable.
        """
        return self.take(position, lambda sample: sample)

    def take(
        self,
        position: int,
        make: Callable[[Sample], T],
        count: bool = True,
        read: Callable[[Source, int], Sample] = operator.getitem,
    ) -> T:
        """What ``make`` makes of the sample at a position; where it cannot, of the next one of its source.

        The next in the shuffled order, not in the file: where a whole folder is missing, its samples stand side by side
        there, and each would be tried for all of those before it.

        Args:
            make: may raise `UnusableSampleError`.
            count: enter what was skipped in the ledger; False to look ahead.
            read: how a sample of a source is read.

        Raises:
            DataError: the ledger's limit is passed, or the source has nothing usable.
        """
        if position < 0:
            raise IndexError(position)
        place = self.place(position)
        source = self.sources[place.source]
        tries = min(len(source), MAX_REPLACEMENTS)
        for later in range(tries):
            index, sample_id = self.place(position, later).index if later else place.index, None
            try:
                sample = read(source, index)
                sample_id = sample.id
                made = make(sample)
            except UnusableSampleError as error:
                if count:
                    self.ledger.skip(source.name, index, sample_id, error)
                continue
            if count:
                self.ledger.use()
            return made
        raise DataError(
            f"{source.name}: none of {tries} samples in a row could be used ({self.ledger}); repair the dataset"
        )

    def positions(self, start: int, stop: int, part: int = 0, parts: int = 1) -> Iterator[int]:
        """The positions of one of several ranks or workers; all parts together are start to stop, each once."""
        if not 0 <= part < parts:
            raise ValueError(f"part must be one of {parts}, found {part}")
        return iter(range(start + part, stop, parts))


class _Turns:
    """Which source group g is of, and how many groups of that source came before it.

    Draws are made in blocks; the counts before a block are kept, so that later positions need no replay of draws.
    """

    block = 4096

    def __init__(self, odds: tuple[float, ...], seed: int) -> None:
        self._odds, self._seed = np.cumsum(odds), seed
        self._before: list[np.ndarray] = [np.zeros(len(odds), np.int64)]
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def _draw(self, number: int) -> np.ndarray:
        draws = np.random.default_rng([self._seed, 101, number]).random(self.block)
        return np.minimum(np.searchsorted(self._odds, draws, side="right"), len(self._odds) - 1)

    def at(self, group: int) -> tuple[int, int]:
        number, offset = divmod(group, self.block)
        while len(self._before) <= number:
            counts = np.bincount(self._draw(len(self._before) - 1), minlength=len(self._odds))
            self._before.append(self._before[-1] + counts)
        if self._cached is None or self._cached[0] != number:
            drawn = self._draw(number)
            ranks = np.zeros(self.block, np.int64)
            for source in range(len(self._odds)):
                mine = drawn == source
                ranks[mine] = np.arange(mine.sum())
            self._cached = (number, drawn, ranks)
        _, drawn, ranks = self._cached
        source = int(drawn[offset])
        return source, int(self._before[number][source] + ranks[offset])


def _shuffled(count: int, key: tuple[int, ...], step: int) -> int:
    """Element ``step`` of a permutation of ``count`` numbers, drawn by the key."""
    return int(_order(count, key)[step])


@lru_cache(maxsize=16)
def _order(count: int, key: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([*key, 202]).permutation(count)
