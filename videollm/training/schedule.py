"""Learning rates over a run: the library's schedule, and the published one with its drop behind the warm-up.

Both rise in a line and fall along a cosine. The published one draws its cosine over all steps, those of the warm-up
among them, so that the rate drops at once where the warm-up ends: from 3.0e-5 to 2.5e-5 in the published second stage.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
)

Schedule = Literal["cosine", "published"]


def published_share(step: int, *, warmup_steps: int, steps: int, start_share: float, floor_share: float) -> float:
    """The published learning rate of a step, as a share of the highest.

    A warm-up longer than an epoch began anew in each; no published run had one, and here it does not.

    Source: LAVIS' ``linear_warmup_cosine_lr``, as Video-LLaMA's four published runs use it.
    """
    if step < warmup_steps:
        return start_share + (1 - start_share) * step / warmup_steps
    return floor_share + (1 - floor_share) * 0.5 * (1 + math.cos(math.pi * step / steps))


def learning_rates(
    optimizer: Optimizer,
    name: Schedule,
    *,
    warmup_steps: int,
    steps: int,
    start_rate: float,
    floor_rate: float,
) -> LambdaLR:
    """A schedule for an optimizer, whose own learning rate is the highest.

    Args:
        optimizer: not stepped yet.
        name: "cosine": the cosine begins where the warm-up ends; "published": it counts the warm-up's steps too.
        warmup_steps: of the rise from ``start_rate``.
        steps: of the whole run; at its end the rate is ``floor_rate``.
        start_rate, floor_rate: learning rates.
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
    shares = {"warmup_steps": warmup_steps, "steps": steps, "start_share": start_share, "floor_share": floor_share}
    return LambdaLR(optimizer, partial(published_share, **shares))
