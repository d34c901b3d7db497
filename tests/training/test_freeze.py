"""What learns in a stage, and branches that begin anew."""

import pytest
import torch

from tests.small_model import small_model
from videollm.training.freeze import BRANCHES, forget, freeze


@pytest.mark.parametrize("branches", [["video"], ["audio"], ["video", "audio"]])
def test_forgotten_branches_are_random_and_nothing_else_changes(branches):
    model, _ = small_model()
    freeze(model, "stage1", branches)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    forget(model, branches)
    forgotten = {part for branch in branches for part in BRANCHES[branch]}
    for name, value in model.named_parameters():
        changed = not torch.equal(value, before[name])
        # What a norm or a bias begins with, it may have had before.
        constant = value.ndim == 1
        assert changed == (name.split(".")[0] in forgotten) or (constant and not changed), name
        assert value.requires_grad == (name.split(".")[0] in forgotten)
    for branch in branches:
        projection = getattr(model, f"{branch}_projection")
        assert projection.weight.std().item() == pytest.approx(model.config.initializer_range, rel=0.1)
        assert not projection.bias.any()
        qformer = getattr(model, f"{branch}_qformer")
        fresh = qformer.encoder.layer[0].attention.attention.query.weight.std().item()
        assert fresh == pytest.approx(qformer.config.initializer_range, rel=0.1)
    again, _ = small_model()
    torch.manual_seed(5)
    forget(again, branches)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
