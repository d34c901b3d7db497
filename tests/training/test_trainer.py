"""Training: what learns, what is saved, and that a stopped run goes on as if it had not been stopped."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from videollm.errors import ConfigError
from videollm.settings import load_settings
from videollm.training.freeze import LEARNS, freeze, table_of_parts
from videollm.training.parts import PARTS_FILE
from videollm.training.recipe import Recipe, World
from videollm.training.run import assemble, train
from videollm.training.tiny import build_tiny


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    build_tiny(0, folder)
    return str(folder)


def _recipe(tokenizer, output, **changes):
    base = Recipe(
        stage="audio", output=str(output), world=World(samples=64, tokenizer=tokenizer), batch_size=2, steps=4,
        learning_rate=1e-3, warmup_steps=1, workers=0, save_steps=2, log_steps=1,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_only_the_stage_learns_and_only_it_is_saved(tokenizer, tmp_path):
    before, _ = assemble((), 0, tokenizer)
    train(_recipe(tokenizer, tmp_path / "audio"))
    saved = load_file(tmp_path / "audio" / PARTS_FILE)
    parts = {name.split(".")[1] for name in saved if name.startswith("model.")}
    assert parts == set(LEARNS["audio"])
    after, _ = assemble((str(tmp_path / "audio"),), 0, tokenizer)
    changed = {
        name.split(".")[0]
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"audio_model"}


def test_resumed_equals_uninterrupted(tokenizer, tmp_path):
    train(_recipe(tokenizer, tmp_path / "whole"))
    # The same run, cut off after its first checkpoint.
    train(_recipe(tokenizer, tmp_path / "cut"))
    (tmp_path / "cut" / PARTS_FILE).unlink()
    import shutil

    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    assert (tmp_path / "cut" / "checkpoint-2").exists()
    train(_recipe(tokenizer, tmp_path / "cut"))
    whole, cut = load_file(tmp_path / "whole" / PARTS_FILE), load_file(tmp_path / "cut" / PARTS_FILE)
    assert whole.keys() == cut.keys()
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], atol=1e-5, rtol=1e-4)


def test_parts_add_up_in_the_table(tokenizer):
    model, _ = build_tiny(0, tokenizer)
    freeze(model, "alignment")
    lines = table_of_parts(model).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["vision_model"][1] == "0" and rows["video_qformer"][0] == rows["video_qformer"][1]
    total = sum(int(row[0].replace(",", "")) for name, row in rows.items() if name != "all")
    assert total == int(rows["all"][0].replace(",", "")) == sum(p.numel() for p in model.parameters())


def test_a_missing_stage_is_named(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="nowhere holds no trained"):
        assemble((str(tmp_path / "nowhere"),), 0, tokenizer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: audio\nstepz: 3\n", r"line 2: unknown key 'stepz'; did you mean 'steps'"),
        ("stage: ears\n", r"line 1: stage is 'ears'; choose one of vision"),
        ("stage: audio\nsteps: many\n", r"line 2: steps is 'many'; it must be int"),
        ("stage: audio\n", "missing key 'output'"),
        ("stage: [audio\n", "not valid YAML"),
        ("- 1\n", "no mapping"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(path, Recipe)
    assert "\n" not in str(caught.value)
