"""How `tiny` starts out, before it has learned anything."""

import pytest
import torch

from videollm.data.dialogue import MOMENTS, VIDEO_SLOTS
from videollm.training.tiny import _HEADS_LOOK, build_tiny


@pytest.fixture(scope="module")
def model():
    return build_tiny(0)[0]


def test_there_is_a_query_for_every_slot(model):
    assert model.config.num_video_query_tokens == len(VIDEO_SLOTS)
    assert model.video_query_tokens.shape[1] == len(VIDEO_SLOTS)


@torch.no_grad()
def test_a_half_second_starts_out_looking_at_the_frames_around_it(model):
    """Of the keys of all frames, those that a head's query is nearest to are the asked number of places away."""
    rows = [row for row, (name, _) in enumerate(VIDEO_SLOTS) if name.startswith("at ")]
    assert len(rows) == len(MOMENTS)
    attention = model.video_qformer.encoder.layer[0].crossattention.attention
    keys = attention.key(model.frame_position_embedding.weight)
    per_moment = round(0.5 / model.config.frame_position_seconds)
    off = []
    for head, step in enumerate(_HEADS_LOOK[0]):
        part = slice(head * 32, (head + 1) * 32)
        for moment in (3, 7, 11):
            scores = keys[:, part] @ attention.query(model.video_query_tokens[0, rows[moment]])[part]
            off.append(abs(int(scores[:32].argmax()) - (per_moment * moment + step)))
    assert max(off) <= 1 and sum(off) <= len(off) / 2, off


def test_the_same_seed_gives_the_same_weights(model):
    again = build_tiny(0)[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
