"""Learning rates over a run: the library's schedule, and those of the published runs.

All rise in a line. "cosine" then falls along one, as LaViLa's fine-tuning does. "published" draws its cosine over all
steps, those of the warm-up among them, so that the rate drops at once where the warm-up ends: from 3.0e-5 to 2.5e-5 in
Video-LLaMA's second stage; LF-VILA's runs on ActivityNet-QA do so, too. "linear" falls in a line (LF-VILA's pretraining
and most of its fine-tuning, to a hundredth), "step" is multiplied by a number every so many steps, counted from the
beginning of the run (its retrieval), and "constant" stays (LaViLa's pretraining).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
)

Schedule = Literal["cosine", "published", "constant", "linear", "step"]


def share(
    step: int,
    *,
    name: Schedule,
    warmup_steps: int,
    steps: int,
    start_share: float = 0.0,
    floor_share: float = 0.0,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
) -> float:
    """The learning rate of a step, from 0, as a share of the highest, by any schedule but "cosine".

    A published warm-up longer than an epoch began anew in each; no published run had one, and here it does not.

    Source: of "published" LAVIS' ``linear_warmup_cosine_lr``, as Video-LLaMA's four published runs use it; of "linear"
    and "step" the schedules that were released with LF-VILA (Sun et al. 2022).
    """
    if step < warmup_steps:
        return start_share + (1 - start_share) * step / warmup_steps
    if name == "published":
        return floor_share + (1 - floor_share) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    if name == "linear":
        return 1 - (1 - floor_share) * min(step - warmup_steps, steps - warmup_steps) / max(steps - warmup_steps, 1)
    if name == "step":
        assert decay_steps is not None and decay_rate is not None
        return decay_rate ** (step // decay_steps)
    return 1.0


def learning_rates(
    optimizer: Optimizer,
    name: Schedule,
    *,
    warmup_steps: int,
    steps: int,
    start_rate: float,
    floor_rate: float,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
) -> LambdaLR:
    """A schedule for an optimizer, whose own learning rate is the highest.

    Args:
        optimizer: not stepped yet.
        name: see above.
        warmup_steps: of the rise from ``start_rate``.
        steps: of the whole run; at its end the rate is ``floor_rate``.
        start_rate, floor_rate: learning rates.
        decay_steps, decay_rate: of "step".
    """
    highest = optimizer.param_groups[0]["lr"]  # of DeepSpeed's optimizers, too, which have no defaults
    start_share, floor_share = start_rate / highest, floor_rate / highest
    if name == "cosine" and not start_rate:
        # The library's usual one, whose first step stands still and whose highest rate comes right behind the warm-up.
        return get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup_steps, steps, min_lr_rate=floor_share)
    if name == "cosine":
        return get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
            optimizer, warmup_steps, steps, min_lr_rate=floor_share, warmup_lr_rate=start_share
        )
    # A partial, as in the library: a scheduler that is saved leaves out what it cannot read back.
    shares: dict[str, Any] = {"warmup_steps": warmup_steps, "steps": steps, "start_share": start_share}
    shares |= {"name": name, "floor_share": floor_share, "decay_steps": decay_steps, "decay_rate": decay_rate}
    return LambdaLR(optimizer, partial(share, **shares))
