"""What the conversation objective computes: the model's loss per target token, with every branch in every batch."""

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.data.collate import Collate
from videollm.messages import MediaPart, assistant, user
from videollm.training.freeze import freeze
from videollm.training.objectives import ConversationObjective

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
