"""LF-VILA's runs: what learns in which stage, what a batch is made of, and that several processes learn as one."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.small_lf_vila import SENTENCES, write_model, write_videos
from tests.training.small_run import Ranks
from videollm.data.datasets import LongVideos, open_mixture
from videollm.data.long_items import CollateLong, LongItems, MixtureLongItems
from videollm.errors import ConfigError, DataError, UnusableSampleError
from videollm.models.lf_vila import (
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
    LfVilaImageProcessor,
    LfVilaProcessor,
)
from videollm.training.lf_vila import LongObjective, begin, freeze
from videollm.training.parts import PARTS_FILE
from videollm.training.recipe import LfVilaRecipe, read_recipe
from videollm.training.run import train

DATA = {
    "stage1": ("clips", "clips"), "stage2": ("clips", "clips"), "retrieval": ("didemo", "retrieval"),
    "question_answering": ("activitynet_qa", "activitynet_qa"), "multiple_choice": ("how2qa", "how2qa"),
    "classification": ("coin", "coin"),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lf_vila")
    write_model(folder / "first", 2)
    write_model(folder / "second", 4)
    write_videos(folder / "data")
    return folder


def recipe_of(root, stage, output="out", **changes):
    format, name = DATA[stage]
    data = (LongVideos(format, str(root / "data" / f"{name}.jsonl"), str(root / "data")),)
    model = "first" if stage in ("stage1", "retrieval", "classification") else "second"
    base = LfVilaRecipe(
        stage=stage, model=str(root / model), output=str(output), steps=2, batch_size=2, learning_rate=1e-3,
        datasets=data, warmup_steps=0, bf16=False, workers=0, log_steps=1, save_steps=2,
        shape={"classification": {"num_answers": 3}}.get(stage, {}),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def trained(folder):
    return load_file(folder / PARTS_FILE)


def learning(recipe):
    model, _ = begin(recipe, say=False)
    freeze(model, recipe)
    return model, {name for name, value in model.named_parameters() if value.requires_grad}


# ---- what learns


@pytest.mark.parametrize("stage", DATA)
def test_what_learns_is_what_the_loss_depends_on(root, stage):
    """In every stage the parameters that get a gradient are those that are not frozen: none is left over."""
    recipe = recipe_of(root, stage)
    model, expected = learning(recipe)
    source = MixtureLongItems(
        open_mixture(recipe.datasets, 0), stage, LfVilaImageProcessor(size=model.config.video_config.image_size), 16, 4,
        0, 10,
    )  # fmt: skip
    words = None if stage == "classification" else LfVilaProcessor.from_pretrained(root / "first")
    collate = CollateLong(words or source.images, 4 if words else 1, masked_share=0.15 if stage == "stage2" else 0.0)
    objective = LongObjective(model, stage, 0).train()
    objective(**collate([source[0], source[1]]))["loss"].backward()
    found = {name for name, value in model.named_parameters() if value.grad is not None}
    assert found == expected
    assert objective.metrics and all(torch.isfinite(value) for value in objective.metrics.values())


def test_second_stage_and_poolers(root):
    _, names = learning(recipe_of(root, "stage2"))
    assert not any(name.startswith("video_encoder") for name in names)
    layers = {name.split(".")[4] for name in names if ".encoder.layer." in name}
    assert layers == {"2", "3"} and "text_encoder.bert.pooler.dense.weight" in names
    _, without = learning(recipe_of(root, "stage2", learn_pooler=False))
    assert names - without == {f"text_encoder.bert.pooler.dense.{part}" for part in ("weight", "bias")}


def test_local_features_are_learned_only_where_they_are_used(root):
    local = {name for name in learning(recipe_of(root, "stage1"))[1] if "video_encoder.local_" in name}
    final = recipe_of(root, "stage1", shape={"local_features": "final"})
    assert local and not any("video_encoder.local_" in name for name in learning(final)[1])


def test_weight_decay_is_as_published(root):
    model, _ = learning(recipe_of(root, "stage2"))
    plain = {name for name, value in model.named_parameters() if not LongObjective.decays(name, value)}
    for name in ("video_positions.space", "video_positions.time", "mlm_transform.LayerNorm.weight",
                 "text_encoder.bert.embeddings.LayerNorm.weight", "mlm_decoder.bias",
                 "video_encoder.groups.0.blocks.0.attn.relative_position_bias_table"):  # fmt: skip
        assert name in plain
    for name in ("video_encoder.norm.weight", "text_encoder.bridge.norm.weight", "video_positions.norm.weight"):
        assert name not in plain


# ---- items and batches


def test_a_question_is_read_with_its_choices_and_what_is_said(root):
    data = recipe_of(root, "multiple_choice").datasets
    images = LfVilaImageProcessor(size=(48, 80))
    items = MixtureLongItems(open_mixture(data, 0), "multiple_choice", images, 16, 4, 0, 10)
    item = items[3]
    assert len(item["choices"]) == 4 and all(len(paragraph) == 2 + 5 for paragraph in item["choices"])
    assert [paragraph[1] for paragraph in item["choices"]] == list(SENTENCES[:4])
    assert item["span_labels"].sum() in (3, 4) and item["pixel_values"].shape == (16, 3, 48, 80)  # 1 of 5 seconds
    batch = CollateLong(LfVilaProcessor.from_pretrained(root / "first"), 8)([item, items[4]])
    assert batch["input_ids"].shape == (2, 4, 7, 12) and batch["labels"].shape == (2,)
    with pytest.raises(DataError, match="as many choices each, found"):
        CollateLong(LfVilaProcessor.from_pretrained(root / "first"), 8)([item, {**items[4], "choices": [("a",)]}])


def test_items_are_the_same_at_every_visit_and_clips_stand_in_order(root):
    data = recipe_of(root, "stage1").datasets
    images = LfVilaImageProcessor(size=(48, 80))
    items = MixtureLongItems(open_mixture(data, 0), "stage1", images, 16, 4, 0, 100, augment=True)
    for position in (0, 5):
        one, other = items[position], items[position]
        assert torch.equal(one["pixel_values"], other["pixel_values"]) and one["sentences"] == other["sentences"]
        at = SENTENCES.index(one["sentences"][0])
        assert one["sentences"] == tuple(SENTENCES[(at + k) % 5] for k in range(4))
    assert len({items[k]["sentences"] for k in range(8)}) > 2
    words = CollateLong(LfVilaProcessor.from_pretrained(root / "first"), 4, masked_share=0.5)
    batch, again = words([items[0], items[1]]), words([items[0], items[1]])
    assert torch.equal(batch["input_ids"], again["input_ids"]) and (batch["labels"] != -100).any()
    whole = CollateLong(LfVilaProcessor.from_pretrained(root / "first"), 4, whole=True)
    assert whole([{"sentences": ("a man",), "position": 0}])["input_ids"].shape == (1, 4, 12)


def test_an_answer_that_the_model_does_not_have_is_told(root):
    data = recipe_of(root, "classification").datasets
    images = LfVilaImageProcessor(size=(48, 80))
    items = MixtureLongItems(open_mixture(data, 0), "classification", images, 16, 4, 0, 9, answers=2)
    source = items.mixture.sources[0]
    with pytest.raises(UnusableSampleError, match="its answer is 2, the model has 2"):
        items._given(source[2], source, items.draw(0))


# ---- runs


def test_stages_build_on_each_other_and_leave_models(root, tmp_path):
    train(recipe_of(root, "stage1", tmp_path / "one"))
    assert LfVilaForPreTraining.from_pretrained(tmp_path / "one" / "model").video_positions is None
    train(recipe_of(root, "stage2", tmp_path / "two", start_from=(str(tmp_path / "one"),)))
    first = load_file(tmp_path / "one" / "model" / "model.safetensors")
    second = load_file(tmp_path / "two" / "model" / "model.safetensors")
    frozen = [name for name in first if name.startswith(("video_encoder.", "text_encoder.bridge."))]
    assert frozen and all(torch.equal(first[name], second[name]) for name in frozen)
    train(recipe_of(root, "retrieval", tmp_path / "found", model=str(tmp_path / "two" / "model")))
    assert LfVilaForRetrieval.from_pretrained(tmp_path / "found" / "model")
    assert LfVilaProcessor.from_pretrained(tmp_path / "found" / "model").max_sentence_tokens == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("question_answering", LfVilaForQuestionAnswering),
        ("multiple_choice", LfVilaForMultipleChoice),
        ("classification", LfVilaForVideoClassification),
    ],
)
def test_fine_tuning_leaves_models(root, tmp_path, stage, kind):
    train(recipe_of(root, stage, tmp_path / "out", augment=True))
    assert kind.from_pretrained(tmp_path / "out" / "model").config.model_type == "lf_vila"


class Row:
    """A row of samples without an end, whose order is its own."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, position):
        self.asked.append(position)
        draw = torch.Generator().manual_seed(position)
        return {"pixel_values": torch.randn(16, 3, 48, 80, generator=draw), "sentences": SENTENCES[:4]}


def test_a_row_that_is_handed_over_goes_on_where_it_stopped(root, tmp_path):
    recipe, row = recipe_of(root, "stage1", tmp_path / "whole", datasets=(), save_steps=1), Row()
    train(recipe, data=row)
    assert row.asked == [0, 1, 2, 3]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / PARTS_FILE).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-2")
    train(dataclasses.replace(recipe, output=str(tmp_path / "cut")), data=row)
    whole, cut = trained(tmp_path / "whole"), trained(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole) and whole.keys() == cut.keys()


def test_what_cannot_be_run_is_one_line(root, tmp_path):
    with pytest.raises(ConfigError, match="has no layers that read words and video together"):
        begin(recipe_of(root, "stage2", model=str(root / "first")), say=False)
    more = recipe_of(root, "stage2", model=str(root / "first"), shape={"text_config": {"num_hidden_layers": 4}})
    with pytest.raises(ConfigError, match=r"tensors of the model are in none of .*encoder\.layer\.2"):
        begin(more, say=False)
    with pytest.raises(ConfigError, match="leave one of them out"):
        train(recipe_of(root, "stage1", tmp_path / "out"), data=[1])
    path = tmp_path / "recipe.yaml"
    text = "family: lf_vila\nstage: stage1\nmodel: m\noutput: o\nsteps: 1\nbatch_size: 1\nlearning_rate: 0.1\n"
    for line, message in (
        ("datasets: [{format: clip, path: a, videos: b}]", "format is 'clip'; choose one of clips"),
        ("masked_share: 1.5", "masked_share must be between 0 and 1"),
        ("piece_size: 4", "line 8: unknown key 'piece_size'"),
    ):
        path.write_text(text + line + "\n")
        with pytest.raises(ConfigError, match=message):
            read_recipe(path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "retrieval"])
def test_two_processes_learn_as_one(root, tmp_path, stage):
    """Videos, paragraphs, clips and sentences are compared over both processes."""
    format, name = DATA[stage]
    plain = {
        "family": "lf_vila", "stage": stage, "model": str(root / "first"), "steps": 3,
        "learning_rate": 0.005, "momentum": 0.9,  # at ten times that, rounding in batches of other sizes shows
        "warmup_steps": 0, "bf16": False, "workers": 0, "log_steps": 1, "save_steps": 3,
        "datasets": [{"format": format, "path": str(root / "data" / f"{name}.jsonl"), "videos": str(root / "data")}],
    }  # fmt: skip
    with Ranks() as run:
        run({**plain, "output": str(tmp_path / "one"), "batch_size": 4})
        run({**plain, "output": str(tmp_path / "two"), "batch_size": 2}, processes=2)
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    before = load_file(root / "first" / "model.safetensors")
    assert (
        max((one[f"model.{name}"] - value).abs().max() for name, value in before.items() if f"model.{name}" in one)
        > 5e-4
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6, msg=name)


def test_frames_are_squashed_in_training_only(root):
    images = LfVilaImageProcessor(size=(48, 80))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 40, 3), dtype=np.uint8)
    plain = LongItems("retrieval", images, 2, 1, 0, 9)
    given = {"pixels": pixels, "sentences": ("a",)}
    assert torch.equal(plain.made(given, 0, plain.draw(0))["pixel_values"], images(pixels))
    moved = LongItems("retrieval", images, 2, 1, 0, 9, augment=True)
    values = moved.made(given, 0, moved.draw(0))["pixel_values"]
    assert values.shape == (2, 3, 48, 80) and not (values[:, :, :, 0] == 0).all()  # no bars at the sides
