"""LaViLa's runs: what learns, that pieces are the whole, that a stopped run goes on, and what a finished one leaves."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.small_lavila import (
    given,
    write_classifier,
    write_clips,
    write_dual_encoder,
    write_narrator,
    write_rephraser,
)
from tests.training.small_run import Ranks
from videollm.data.clip_items import ClipFrames, MixtureItems, clip_of
from videollm.data.datasets import ClipTexts, open_mixture
from videollm.errors import ConfigError, ModelNotFoundError, UnusableSampleError
from videollm.models.lavila import (
    LavilaDualEncoder,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaProcessor,
    Rephraser,
)
from videollm.training.lavila import begin, freeze
from videollm.training.parts import PARTS_FILE
from videollm.training.recipe import LavilaRecipe, read_recipe
from videollm.training.run import train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lavila")
    for name, write in (
        ("dual", write_dual_encoder), ("narrator", write_narrator), ("rephraser", write_rephraser),
        ("classifier", write_classifier), ("data", write_clips),
    ):  # fmt: skip
        write(folder / name)
    return folder


MODELS = {"dual_encoder": "dual", "ranking": "dual", "narrator": "narrator", "rephraser": "rephraser",
          "classifier": "classifier"}  # fmt: skip
DATA = {"rephraser": "pairs", "classifier": "classes"}


def recipe_of(root, stage, output, **changes):
    data = (ClipTexts(str(root / "data" / f"{DATA.get(stage, 'clips')}.jsonl")),)
    base = LavilaRecipe(
        stage=stage, model=str(root / MODELS[stage]), output=str(output), steps=2, batch_size=4, learning_rate=1e-3,
        datasets=data, schedule="constant", warmup_steps=0, bf16=False, workers=0, log_steps=1, save_steps=2,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def trained(folder):
    return load_file(folder / PARTS_FILE)


def assert_close(one, other, atol=1e-6):
    assert one.keys() == other.keys() and one
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=atol, msg=name)


def test_a_batch_in_pieces_learns_as_the_whole(root, tmp_path):
    """With a person's and a model's words, which have temperatures of their own; by SGD, whose steps are gradients."""
    whole = recipe_of(
        root, "dual_encoder", tmp_path / "whole", datasets=(), pseudo_temperature=0.1, momentum=0.9, learning_rate=0.1
    )
    train(whole, data=given())
    train(dataclasses.replace(whole, output=str(tmp_path / "pieces"), piece_size=3), data=given())
    assert_close(trained(tmp_path / "whole"), trained(tmp_path / "pieces"))
    before = LavilaDualEncoder.from_pretrained(root / "dual").state_dict()
    model, processor = (kind.from_pretrained(tmp_path / "pieces" / "model")
                        for kind in (LavilaDualEncoder, LavilaProcessor))  # fmt: skip
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and "log_logit_scale" not in changed  # frozen, as published
    assert processor.texts(["a red circle"])["input_ids"].shape == (1, 5)
    assert (tmp_path / "pieces" / "MODEL_CARD.md").exists() and (tmp_path / "pieces" / "loss.png").exists()


def test_a_narrator_learns_to_look_and_goes_on_where_it_stopped(root, tmp_path):
    """Its eye is the dual encoder's, and stays as it is, as its decoder does."""
    recipe = recipe_of(
        root, "narrator", tmp_path / "whole", start_from=(str(root / "dual"),), datasets=(), steps=4, augment=True
    )
    train(recipe, data=given())
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / PARTS_FILE).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    shutil.rmtree(tmp_path / "cut" / "model")
    train(dataclasses.replace(recipe, output=str(tmp_path / "cut")), data=given())
    assert_close(trained(tmp_path / "whole"), trained(tmp_path / "cut"), atol=0)
    model = LavilaNarrator.from_pretrained(tmp_path / "cut" / "model")
    eye = LavilaDualEncoder.from_pretrained(root / "dual").vision_model.state_dict()
    before = LavilaNarrator.from_pretrained(root / "narrator").state_dict()
    for name, value in model.state_dict().items():
        looks = any(part in name for part in ("crossattention", "cross_attn", "alpha_", "visual_pool"))
        start = eye[name.removeprefix("vision_model.")] if name.startswith("vision_model.") else before[name]
        assert torch.equal(value, start) != looks, name
    ids = model.generate(pixel_values=torch.zeros(1, 3, 3, 16, 16), max_new_tokens=3)
    assert ids.shape[1] <= 4


def test_what_a_narrator_learns_by_name(root):
    recipe = recipe_of(root, "narrator", "out")
    model, _ = begin(recipe)
    freeze(model, recipe)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    block = "language_model.transformer.h.0."
    for part in ("mlp_crossattention.c_fc.weight", "ln_2_crossattention.bias", "ln_cross_attn.weight", "alpha_cattn",
                 "alpha_dense", "crossattention.q_attn.weight"):  # fmt: skip
        assert block + part in learning
    assert {name for name in learning if not name.startswith((block[:-2], "visual_pool."))} == set()
    assert not any(name.startswith(block + part) for part in ("attn.", "mlp.", "ln_1") for name in learning)
    also = dataclasses.replace(recipe, also_learn=("language_model",))
    freeze(model, also)
    assert all(value.requires_grad for value in model.language_model.parameters())
    assert not any(value.requires_grad for value in model.vision_model.parameters())
    with pytest.raises(ConfigError, match="the model has no part 'ears'; it has vision_model"):
        freeze(model, dataclasses.replace(recipe, also_learn=("ears",)))


def test_rephraser_and_classifier(root, tmp_path):
    train(recipe_of(root, "rephraser", tmp_path / "words"))
    assert len(Rephraser.from_pretrained(tmp_path / "words" / "model").rephrase(["a red circle"], 1, groups=2)) == 1
    wide = {"vision_config": {"num_frames": 5}, "num_classes": [3, 2]}
    recipe = recipe_of(
        root, "classifier", tmp_path / "classes", start_from=(str(root / "dual"),), shape=wide, momentum=0.9,
        backbone_rate=0.1, label_smoothing=0.1, flip=True, learning_rate=1e-2,
    )  # fmt: skip
    train(recipe)
    model = LavilaForVideoClassification.from_pretrained(tmp_path / "classes" / "model")
    assert model.vision_model.time_embedding.shape[1] == 5
    assert LavilaImageProcessor.from_pretrained(tmp_path / "classes" / "model").num_frames == 5


@pytest.mark.slow
def test_ranking(root, tmp_path):
    train(recipe_of(root, "ranking", tmp_path / "ranked", margin=0.4))
    assert LavilaDualEncoder.from_pretrained(tmp_path / "ranked" / "model")


# ---- items


def test_items_draw_one_of_several_texts_and_frames_are_decoded_once(root, tmp_path):
    shutil.copytree(root / "data", tmp_path / "data")
    datasets = (ClipTexts(str(tmp_path / "data" / "clips.jsonl"), pseudo=True),)
    images = LavilaImageProcessor(size=16, num_frames=3)

    def items(random, kept=None):
        frames = ClipFrames(3, random, kept)
        return MixtureItems(open_mixture(datasets, 0), datasets, frames, "texts", images, 0, 100, augment=random)

    moving, kept = items(True), items(False, str(tmp_path / "kept"))
    first = moving[0]
    assert torch.equal(moving[0]["pixel_values"], first["pixel_values"]) and first["text"] == moving[0]["text"]
    assert first["pixel_values"].shape == (3, 3, 16, 16) and first["is_human"] is False and first["source"] == 0
    held = [kept[k] for k in range(4)]
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 4
    times = [file.stat().st_mtime_ns for file in files]
    texts = {kept[k]["text"] for k in range(0, 24)}
    assert [file.stat().st_mtime_ns for file in files] == times and len(texts) == 4
    again = items(False, str(tmp_path / "kept"))
    assert all(torch.equal(again[k]["pixel_values"], held[k]["pixel_values"]) for k in range(4))
    fresh = items(False)
    assert all(torch.equal(fresh[k]["pixel_values"], held[k]["pixel_values"]) for k in range(4))
    files[0].write_bytes(b"no frames")
    with pytest.raises(ConfigError, match=r"holds no frames .*; delete it"):
        [kept[k] for k in range(4)]


def test_what_cannot_be_used_is_told(root):
    datasets = (ClipTexts(str(root / "data" / "classes.jsonl")),)
    source = open_mixture(datasets, 0).sources[0]
    images = LavilaImageProcessor(size=16, num_frames=3)
    items = MixtureItems(open_mixture(datasets, 0), datasets, ClipFrames(3), "classes", images, 0, 9, classes=(3, 1))
    with pytest.raises(UnusableSampleError, match="must say numbers below 3, 1"):
        items._item(source[1], False, np.random.default_rng(0))
    with pytest.raises(UnusableSampleError, match="shows 0 clips; show one"):
        clip_of(open_mixture((ClipTexts(str(root / "data" / "pairs.jsonl")),), 0).sources[0][0])


# ---- bad recipes


TEXT = "family: lavila\nstage: {stage}\nmodel: {model}\noutput: out\nsteps: 1\nbatch_size: 1\nlearning_rate: 0.1\n"


@pytest.mark.parametrize(
    ("stage", "more", "message"),
    [
        ("narrator", "piece_size: 2\n", "piece_size belongs to stage dual_encoder, found narrator"),
        ("dual_encoder", "piece_size: 2\nlearn_temperature: true\n", "pieces cannot learn a temperature"),
        ("dual_encoder", "piece_size: 2\ngradient_accumulation: 2\n", "as it is to be; leave out gradient_acc"),
        ("dual_encoder", "branches: [video]\n", "line 8: unknown key 'branches'"),
        ("dual_encoder", "datasets: [{path: a.jsonl, psuedo: true}]\n", "unknown key 'psuedo'; did you mean 'pseudo'"),
        ("dual_encoder", "datasets: [{path: a.jsonl, ratio: 0}]\n", "ratio of a.jsonl must be positive"),
        ("stage3", "", "line 2: stage is 'stage3'; choose one of dual_encoder, ranking"),
        ("rephraser", "augment: true\n", "a rephraser sees no frames; leave out augment"),
        ("dual_encoder", "schedule: step\n", "needs decay_steps and decay_rate"),
        ("dual_encoder", "decay_rate: 0.5\n", "belong to schedule step, found cosine"),
    ],
)  # fmt: skip
def test_bad_recipes_are_one_line(tmp_path, stage, more, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT.format(stage=stage, model="m") + more)
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_family_is_one_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("stage: vision\nfamily: lavilla\n")
    with pytest.raises(ConfigError, match="line 2: family is 'lavilla'; choose one of video_llama, lavila, lf_vila"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"datasets": ()}, ConfigError, "nothing to learn from; add the key 'datasets'"),
        ({"model": "nowhere"}, ModelNotFoundError, "no model in nowhere"),
        ({"model": "narrator"}, ModelNotFoundError, "is a lavila_narrator, this stage needs a lavila_dual_encoder"),
        ({"shape": {"vision": 3}}, ConfigError, "config.json has no 'vision'; it has"),
        ({"shape": {"vision_config": {"hidden_size": 33}}}, ConfigError, "hidden_size must be a multiple"),
        ({"shape": {"projection_dim": 8}}, ConfigError, "of 20x24, the model of 8x24"),
        ({"start_from": ("data",)}, ConfigError, "holds 0 tensors and none of this model"),
        ({"start_from": ("rephraser",)}, ConfigError, "and none of this model; give another folder"),
        ({"start_from": ("nowhere",)}, ConfigError, "there is no folder"),
    ],
)  # fmt: skip
def test_what_a_run_cannot_start_from_is_one_line(root, tmp_path, changes, error, message):
    fixed = dict(changes)
    if "model" in fixed:
        fixed["model"] = fixed["model"] if fixed["model"] == "nowhere" else str(root / fixed["model"])
    if "start_from" in fixed:
        fixed["start_from"] = tuple(str(root / name) for name in fixed["start_from"])
    with pytest.raises(error, match=message) as caught:
        train(recipe_of(root, "dual_encoder", tmp_path / "out", **fixed))
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "model").exists()


def test_weights_that_a_stage_does_not_bring_must_be_there(root, tmp_path):
    shutil.copytree(root / "narrator", tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    bare = recipe_of(root, "narrator", "out", model=str(tmp_path / "bare"), start_from=(str(root / "dual"),))
    assert begin(bare, say=False)[0].config.num_query_tokens == 5  # a shape alone: the rest begins at random
    whole = dataclasses.replace(bare, model=str(root / "dual"), stage="dual_encoder")
    shutil.copytree(root / "dual", tmp_path / "holed")
    tensors = load_file(root / "dual" / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "text_projection" not in k}, tmp_path / "holed/model.safetensors")
    with pytest.raises(ConfigError, match=r"1 tensors of the model are in none of .*, e.g. text_projection\.weight"):
        begin(dataclasses.replace(whole, model=str(tmp_path / "holed"), start_from=()), say=False)


# ---- several processes


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dual_encoder", "narrator", "rephraser"])
def test_two_processes_learn_as_one(root, tmp_path, stage):
    """Negatives come from both processes, and every token of a step weighs the same."""
    plain = {
        "family": "lavila", "stage": stage, "model": str(root / MODELS[stage]), "steps": 3, "learning_rate": 0.1,
        "momentum": 0.9, "schedule": "constant", "warmup_steps": 0, "bf16": False, "workers": 0, "log_steps": 1,
        "save_steps": 3,
        "datasets": [{"path": str(root / "data" / f"{DATA.get(stage, 'clips')}.jsonl")}],
    }  # fmt: skip
    with Ranks() as run:
        run({**plain, "output": str(tmp_path / "one"), "batch_size": 4})
        run({**plain, "output": str(tmp_path / "two"), "batch_size": 2}, processes=2)
        assert_close(trained(tmp_path / "one"), trained(tmp_path / "two"))
        if stage == "dual_encoder":
            run({**plain, "output": str(tmp_path / "pieces"), "batch_size": 2, "piece_size": 1}, processes=2)
            assert_close(trained(tmp_path / "one"), trained(tmp_path / "pieces"))
