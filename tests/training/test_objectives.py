"""What the conversation objective computes: the model's loss per target token, with every branch in every batch."""

import numpy as np
import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.clips import Clip, Frames
from videollm.data.collate import Collate
from videollm.data.world_samples import answer_ids, answer_labels
from videollm.data.world_tools import ToolTurn, encode_tool_turns
from videollm.messages import MediaPart, assistant, user
from videollm.models import hub
from videollm.training.features import _pairs
from videollm.training.freeze import freeze
from videollm.training.objectives import (
    AGAIN_LAYERS,
    BEFORE_HEADS,
    ConversationObjective,
    ToolObjective,
    _by_roots,
    _Conversations,
)
from videollm.training.tiny import build_tiny

SHOWN = {"words": {}, "film": {"sound_seconds": 0}, "sound": {"frames": 0}, "both": {}}


def item(processor, kind, number):
    clips = {} if kind == "words" else {"it": drawn_clip(number, **SHOWN[kind])}
    parts = [MediaPart("it", "audio" if kind == "sound" else "video")] if clips else []
    messages = [user(f"what is in it {number}?", parts), assistant("a red circle." * (1 + number % 2))]
    prompt = processor.render_for_training(messages, clips)
    videos = [processor.process_frames(clips[span.clip].frames) for span in prompt.media if span.kind == "video"]
    sounds = [
        processor.process_sound(clips[span.clip].waveforms, clips[span.clip].windows_seconds)
        for span in prompt.media
        if span.kind == "audio"
    ]
    return {
        "input_ids": prompt.input_ids,
        "labels": prompt.labels,
        "videos": videos,
        "sounds": sounds,
        "source": number % 2,
    }


@pytest.fixture
def made():
    model, processor = small_model()
    for name in ("qformer", "video_qformer", "audio_qformer"):
        for module in getattr(model, name).modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
    freeze(model, "stage2")
    objective = ConversationObjective(model, ("audio", "video"), kept=False, datasets=2).train()
    return objective, processor


def batch(processor, *kinds):
    return Collate(processor.tokenizer.pad_token_id)([item(processor, kind, n) for n, kind in enumerate(kinds)])


@pytest.mark.parametrize("kinds", [("words",), ("film",), ("sound", "words"), ("both", "words", "film")])
def test_every_branch_runs_in_every_batch_and_an_empty_clip_counts_nothing(made, kinds):
    objective, processor = made
    given = batch(processor, *kinds)
    objective(**given)["loss"].backward()
    learning = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    assert all(parameter.grad is not None for parameter in learning.values())
    shown = {"words": set(), "film": {"video"}, "sound": {"audio"}, "both": {"video", "audio"}}
    branches = set().union(*(shown[kind] for kind in kinds))
    for branch in ("video", "audio"):
        gradient = sum(
            float(learning[f"model.{branch}_projection.{what}"].grad.abs().sum()) for what in ("weight", "bias")
        )
        assert (gradient > 0) == (branch in branches)
    own = objective.model(**{name: value for name, value in given.items() if name != "source"}).loss
    torch.testing.assert_close(objective(**given)["loss"], own)


def test_batches_of_a_step_add_up_to_the_whole(made):
    """Two batches, each divided by the target tokens of both, have the loss and the gradients of one of all rows."""
    objective, processor = made
    rows = [item(processor, kind, n) for n, kind in enumerate(("film", "words", "sound", "both"))]
    collate = Collate(processor.tokenizer.pad_token_id)
    whole = collate(rows)
    targets = (whole["labels"] != -100).sum()
    objective(**whole)["loss"].backward()
    wanted = {name: p.grad.clone() for name, p in objective.named_parameters() if p.requires_grad}
    objective.zero_grad()
    losses = [objective(**collate(part), num_items_in_batch=targets) for part in (rows[:1], rows[1:])]
    for one in losses:
        one["loss"].backward()
    torch.testing.assert_close(sum(one["loss"] for one in losses), objective(**whole)["loss"])
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)


def test_losses_by_dataset_are_the_loss(made):
    objective, processor = made
    given = batch(processor, "film", "words", "sound")
    out = objective(**given)
    told = out["by_source"]
    assert told[:, 2].tolist() == [2, 1] and told[:, 1].sum() == (given["labels"] != -100).sum()
    torch.testing.assert_close(told[:, 0].sum() / told[:, 1].sum(), out["loss"].detach())


def test_frozen_encoders_rest_and_what_learns_does_not(made):
    model = made[0].model
    assert not model.vision_model.training and not model.qformer.training and not model.audio_model.training
    assert model.video_qformer.training and model.audio_qformer.training and model.language_model.training
    freeze(model, "vision")
    assert made[0].train().model.qformer.training


def test_a_branch_that_nobody_shows_does_not_run(made):
    objective, processor = made
    silent = ConversationObjective(objective.model, ("video",), kept=False, datasets=2)
    silent(**batch(processor, "film"))["loss"].backward()
    assert objective.model.audio_projection.weight.grad is None


def test_kept_states_give_the_loss_of_pixels(made):
    objective, processor = made
    rows = [item(processor, kind, n) for n, kind in enumerate(("film", "both", "words"))]
    collate = Collate(processor.tokenizer.pad_token_id)
    kept = ConversationObjective(objective.model, ("audio", "video"), kept=True, datasets=2).train()
    states = []
    with torch.no_grad():
        for row in rows:
            videos = [(objective.model.encode_frames(pixels), seconds) for pixels, seconds in row["videos"]]
            sounds = [(objective.model.encode_audio_segments(values), seconds) for values, seconds in row["sounds"]]
            states.append({**row, "videos": videos, "sounds": sounds})
    torch.testing.assert_close(kept(**collate(states))["loss"], objective(**collate(rows))["loss"])
    kept(**collate(states[2:]))["loss"].backward()  # empty clips are of kept states, too


@pytest.fixture(scope="module")
def calling():
    """`tiny` before it learns to call, its objective, and a batch: a call, an answer from words, one without calls."""
    model, processor = build_tiny(0, hub.find("tiny"), tools=True)
    freeze(model, "tools")
    model.language_model.set_attn_implementation("eager")
    objective = ToolObjective(model, processor.call_token_ids).train()
    config, draw = model.config, torch.Generator().manual_seed(0)

    def shown(kind):
        if kind == "video":
            size = (4, config.num_query_tokens, config.qformer_config.hidden_size)
        else:
            size = (4, config.audio_config.projection_dim)
        return torch.randn(size, generator=draw), torch.arange(4.0)

    turn = ToolTurn(
        "narrate", "what happens from 0:10 to 0:20?", "[0:10-0:14] a red star grows.", "narrate 0:10 0:20",
        "[0:10-0:14] a red star grows.",
    )  # fmt: skip
    items = []
    for answered in (False, True):
        told = encode_tool_turns(processor, 60.0, [turn], True, answered)
        media = {kind: [shown(kind) for other, _ in told.shown if other == kind] for kind in ("video", "audio")}
        items.append((told.input_ids, told.labels, _pairs(told.said_again), media, False))
    clip = Clip("clip", "video", "", 4.0, Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1), 4.0))
    said = [user("what is it?", [MediaPart("clip")]), assistant("a star.", answer_ids(processor.tokenizer, "a star."))]
    ids = processor.render(said, {"clip": clip}, add_generation_prompt=False).input_ids
    items.insert(1, (ids, answer_labels(ids, processor), _pairs([]), {"video": [shown("video")], "audio": []}, True))
    given = [
        {"input_ids": one[0], "labels": one[1], "said_again": one[2], "videos": one[3]["video"],
         "sounds": one[3]["audio"], "rehearsed": one[4]}
        for one in items
    ]  # fmt: skip
    return objective, Collate(processor.tokenizer.pad_token_id)(given)


def test_rows_keep_their_own_clips(calling):
    objective, batch = calling
    soft = torch.arange(2.0)[:, None, None].expand(2, objective.model.config.num_video_query_tokens, 3)
    heard = torch.full((1, objective.model.config.num_audio_query_tokens, 3), 7.0)
    whole = _Conversations(
        batch["input_ids"],
        batch["attention_mask"],
        batch["labels"],
        torch.zeros(batch["labels"].shape),
        batch["said_again"],
        soft,
        heard,
    )
    first, other = (whole.of(torch.tensor(rows), objective.model.config) for rows in ([2, 0], [1]))
    assert first.video.unique().tolist() == [0.0] and first.sound.unique().tolist() == [7.0]
    assert other.video.unique().tolist() == [1.0] and other.sound is None
    assert other.input_ids.shape[1] == int(batch["attention_mask"][1].sum())


def test_an_answer_counts_as_the_root_of_its_length():
    labels = torch.tensor([[-100, 5, 5, 5, 5, -100, 7], [-100, -100, 9, -100, -100, -100, -100]])
    weights = _by_roots(labels)
    torch.testing.assert_close(weights[0], torch.tensor([0, 0.125, 0.125, 0.125, 0.125, 0, 0.25]))
    assert weights[1, 2] == 0.25 and weights.sum() == 1


def test_what_is_said_without_calls_is_held_and_the_rest_is_learned(calling):
    objective, batch = calling
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    optimizer = torch.optim.Adam([one for one in objective.parameters() if one.requires_grad], 2e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = objective(**batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append((float(loss.detach()), float(objective.metrics["changed"])))
        looks = {name: float(value) for name, value in objective.metrics.items() if name.startswith("looks")}
        assert all(0 < value < 1 for value in looks.values()) and len(looks) == len(BEFORE_HEADS) + len(AGAIN_LAYERS)
    assert losses[0][1] < 0.01 < losses[1][1], "at first nothing but what the tokens for calls, still random, take"
    assert losses[-1][0] < losses[0][0]
    changed = {name for name, value in objective.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("language_model", "lm_head")) for name in changed)
    assert not any("_before" in name for name, _ in objective.named_parameters())
