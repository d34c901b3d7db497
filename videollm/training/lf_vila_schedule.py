"""The learning rates of LF-VILA's published runs, step by step.

Source: the schedules that were released with Sun et al. 2022: linear for pretraining and most fine-tuning, stepwise for
retrieval, cosine for ActivityNet-QA.
"""

from __future__ import annotations

import math
from typing import Literal

LfVilaSchedule = Literal["linear", "step", "cosine"]

_LINEAR_FLOOR = 0.01


def lf_vila_share(
    name: LfVilaSchedule,
    step: int,
    *,
    steps: int,
    warmup_steps: int,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
    floor_share: float = 0.0,
) -> float:
    """The learning rate of a step, as a share of the highest; for ``torch.optim.lr_scheduler.LambdaLR``.

    All rise from 0 in a line. "linear" then falls in a line to a hundredth at the last step; "step" is multiplied by
    ``decay_rate`` every ``decay_steps``, counted from the beginning of the run; "cosine" falls to ``floor_share`` along
    a cosine over all steps, those of the warm-up among them.

    Args:
        name: of the schedule.
        step: from 0.
        steps: of the whole run.
        warmup_steps: of the rise.
        decay_steps, decay_rate: of "step".
        floor_share: of "cosine".

    Raises:
        ValueError: for "step" without its two numbers.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if name == "linear":
        return 1 - (1 - _LINEAR_FLOOR) * min(step - warmup_steps, steps - warmup_steps) / max(steps - warmup_steps, 1)
    if name == "cosine":
        return floor_share + (1 - floor_share) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    if not decay_steps or decay_rate is None:
        raise ValueError("the schedule 'step' needs decay_steps and decay_rate; give them")
    return decay_rate ** (step // decay_steps)
