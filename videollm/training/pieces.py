"""What a run is made of, whatever family its model belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from videollm.data.mixture import Mixture
from videollm.errors import ConfigError
from videollm.training import processes
from videollm.training.recipe import LavilaRecipe, LfVilaRecipe, Recipe


@dataclass(frozen=True)
class Pieces:
    """A family's share of a run.

    Attributes:
        model: with what learns unfrozen.
        objective: holds the model; returns the loss of a batch and keeps ``metrics``.
        data: items by position.
        collate: items to a batch.
        save_model: writes the finished model into a folder, from what the run's own folder has; None: it is no whole
            model yet.
        mixture: that the items are taken from; None: of no datasets, but of what ``source`` names.
        source: name of what there is instead of datasets.
        by_dataset: the objective tells the loss of each dataset apart.
        low_rank_scale: of the low-rank updates among what is trained.
        length: of the item at a position, where batches are to be of like length.
    """

    model: Any
    objective: nn.Module
    data: Any
    collate: Callable[[Any], Any]
    save_model: Callable[[Path], None] | None
    mixture: Mixture | None = None
    source: str = ""
    by_dataset: bool = False
    low_rank_scale: float = 0.0
    length: Callable[[int], int] | None = None

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets."""
        return [] if self.mixture is None else [source.name for source in self.mixture.sources]

    def used(self, count: int) -> Counter[str]:
        """How many of the first positions are of which dataset."""
        if self.mixture is None:
            return Counter({self.source: count})
        mixture = self.mixture
        return Counter(mixture.sources[mixture.place(k).source].name for k in range(count))


def positions(recipe: Recipe) -> int:
    """Samples of the whole run, of all processes."""
    return recipe.steps * recipe.batch_size * recipe.gradient_accumulation * processes.count()


def check_source(recipe: LavilaRecipe | LfVilaRecipe, given: Any) -> None:
    """A run learns from its recipe's datasets, or from what is handed over to it.

    Raises:
        ConfigError: from neither, or from both.
    """
    if given is None and not recipe.datasets:
        raise ConfigError("nothing to learn from; add the key 'datasets'")
    if given is not None and recipe.datasets:
        raise ConfigError("a dataset was handed over beside the recipe's 'datasets'; leave one of them out")
