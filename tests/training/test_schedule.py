"""Learning rates against those of the published runner, and the schedule that does not drop behind the warm-up."""

import json
from itertools import pairwise

import pytest
import torch

from videollm.training.schedule import learning_rates

RUNS = ("vl_stage1", "al_stage1", "vl_stage2", "al_stage2")
STAGE_2 = {"warmup_steps": 1000, "steps": 3000, "start_rate": 1e-6, "floor_rate": 1e-5}


def rates(name, count, *, peak=3e-5, **shape):
    """The learning rate of each of the first steps."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = learning_rates(optimizer, name, **shape)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("run", RUNS)
def test_published(run, reference):
    wanted = json.loads((reference / "video_llama" / "lr_schedules.json").read_text())["schedules"][run]
    shape = {"warmup_steps": wanted["warmup_steps"], "steps": wanted["iters_per_epoch"] * wanted["max_epoch"]}
    shape |= {"start_rate": wanted["warmup_lr"], "floor_rate": wanted["min_lr"]}
    found = rates("published", shape["steps"], peak=wanted["init_lr"], **shape)
    assert wanted["points"]
    for point in wanted["points"]:
        step = point["epoch"] * wanted["iters_per_epoch"] + point["step"]
        assert found[step] == pytest.approx(point["lr"], rel=1e-12), point


def test_published_drops_behind_the_warm_up_and_the_default_does_not():
    published, ours = (rates(name, 3000, **STAGE_2) for name in ("published", "cosine"))
    assert published[999] == pytest.approx(3e-5, rel=1e-3) and published[1000] == pytest.approx(2.5e-5, rel=1e-12)
    assert ours[0] == published[0] == pytest.approx(1e-6)
    assert max(ours) == ours[999] == pytest.approx(3e-5)
    assert max(abs(after - before) for before, after in pairwise(ours)) < 3.1e-8
    assert ours[-1] == pytest.approx(1e-5)


def test_goes_on_from_a_saved_state():
    """What a checkpoint keeps of a scheduler, put into a new one, gives the rates that would have followed."""
    whole = rates("published", 20, warmup_steps=5, steps=20, start_rate=1e-6, floor_rate=1e-5)
    shape = {"warmup_steps": 5, "steps": 20, "start_rate": 1e-6, "floor_rate": 1e-5}
    state = None
    for _ in range(2):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
        schedule = learning_rates(optimizer, "published", **shape)
        if state is not None:
            optimizer.load_state_dict(state[0])
            schedule.load_state_dict(state[1])
        for _ in range(7):
            optimizer.step()
            schedule.step()
        state = optimizer.state_dict(), schedule.state_dict()
    assert optimizer.param_groups[0]["lr"] == whole[14]
