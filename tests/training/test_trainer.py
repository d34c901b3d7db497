"""Training: what learns, what is saved, and that a stopped run goes on as if it had not been stopped."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.training.small_run import losses_of, recipe_of, write_datasets, write_model
from videollm.errors import ConfigError, DataError, VideoLLMError
from videollm.models import hub
from videollm.settings import load_settings
from videollm.training.freeze import LEARNS, freeze, table_of_parts
from videollm.training.parts import PARTS_FILE, read_parts
from videollm.training.recipe import VideoLlamaRecipe, World
from videollm.training.run import train
from videollm.training.tiny import build_tiny
from videollm.training.trainer import checkpoints
from videollm.training.video_llama import assemble


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    build_tiny(0, folder)
    return str(folder)


def _recipe(tokenizer, output, **changes):
    base = VideoLlamaRecipe(
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


def test_goes_on_as_if_it_had_not_stopped(tokenizer, tmp_path, capsys):
    train(_recipe(tokenizer, tmp_path / "whole"))
    # The same run, cut off after its first checkpoint.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / PARTS_FILE).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    train(_recipe(tokenizer, tmp_path / "cut"))
    whole, cut = load_file(tmp_path / "whole" / PARTS_FILE), load_file(tmp_path / "cut" / PARTS_FILE)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    # What is done is done: once more changes nothing, unless it is to begin anew, or does something else.
    train(_recipe(tokenizer, tmp_path / "cut"))
    again = load_file(tmp_path / "cut" / PARTS_FILE)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    capsys.readouterr()
    train(_recipe(tokenizer, tmp_path / "cut", steps=5, clip_norm=0.5))
    assert "since checkpoint-4 the recipe changed: " in (told := capsys.readouterr().out)
    assert "steps 4 -> 5" in told and "clip_norm 1.0 -> 0.5" in told
    train(_recipe(tokenizer, tmp_path / "cut", steps=2), resume=False)
    assert [path.name for path in checkpoints(tmp_path / "cut")] == ["checkpoint-2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about processors")
def test_bfloat16_only_where_there_are_instructions_for_it(tokenizer, tmp_path, capsys, monkeypatch):
    def trained(name, bf16, has):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": has})
        train(_recipe(tokenizer, tmp_path / name, bf16=bf16, steps=2))
        return load_file(tmp_path / name / PARTS_FILE), "computing in float32" in capsys.readouterr().out

    exact, told = trained("exact", bf16=False, has=True)
    assert not told
    half, told = trained("half", bf16=True, has=True)
    assert not told and not all(torch.equal(half[name], exact[name]) for name in exact)
    without, told = trained("without", bf16=True, has=False)
    assert told and all(torch.equal(without[name], exact[name]) for name in exact)


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
        load_settings(path, VideoLlamaRecipe)
    assert "\n" not in str(caught.value)


FOLDER = "stage: stage2\nmodel: tiny\noutput: out\nsteps: 1\nbatch_size: 1\nlearning_rate: 1.0e-4\n"
DATASETS = "datasets:\n  - {format: jsonl, path: mine.jsonl}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FOLDER, "nothing to learn from; add the key 'datasets'"),
        (FOLDER.replace("model: tiny\n", ""), "add 'model' and 'datasets', or 'world'"),
        (FOLDER.replace("model: tiny\n", "") + DATASETS + "world: {samples: 1}\n", "'datasets' needs a model"),
        (FOLDER + DATASETS + "world: {samples: 1}\n", "'world' teaches tiny from nothing"),
        (FOLDER.replace("stage2", "vision") + DATASETS, "with 'model' choose stage1 or stage2"),
        (FOLDER + DATASETS + "branches: [video, video]\n", "branches must be video, audio or both"),
        (FOLDER + DATASETS + "bits: 3\n", "line 9: bits is 3; it must be"),
        (FOLDER + DATASETS + "betas: [0.9]\n", "betas must be two numbers"),
        (FOLDER + DATASETS + "bits: 4\ndeepspeed: zero2.json\n", "leave out 'bits' or 'deepspeed'"),
        (FOLDER.replace("stage2", "stage1") + DATASETS + "lora_rank: 4\n", "lora_rank belongs to stage2"),
        (FOLDER + DATASETS.replace("jsonl,", "jsnl,"), "line 8: format is 'jsnl'; choose one of jsonl"),
        (FOLDER + DATASETS + "min_learning_rate: 1\n", "min_learning_rate must be within"),
        (FOLDER + DATASETS + "max_tokens: 0\n", "max_tokens must be at least 1"),
    ],
)
def test_a_recipe_that_says_two_things_is_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(path, VideoLlamaRecipe)
    assert "\n" not in str(caught.value)


# ---- a model's folder on datasets


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    write_model(root / "model")
    write_datasets(root / "data")
    return root


def run(root, name, *, modalities=("words", "pictures", "sounds"), **changes):
    """A recipe over the small model's folder, run in this process; returns its folder."""
    datasets = [{"format": "jsonl", "path": str(root / "data" / f"{one}.jsonl")} for one in modalities]
    values = recipe_of(root, name, steps=4, save_steps=4, datasets=datasets, batch_from_one_dataset=False) | changes
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return train(load_settings(path, VideoLlamaRecipe))


@pytest.fixture(scope="module")
def plain(root):
    return run(root, "plain")


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"features": "kept"}])
def test_other_ways_to_the_same_losses(root, plain, changes):
    """Computing again and kept states change memory and time, and nothing else."""
    if "features" in changes:
        changes = {"features": str(root / "kept")}
    found, wanted = losses_of(run(root, "_".join(changes), **changes)), losses_of(plain)
    assert found == pytest.approx(wanted, rel=1e-5) and len(wanted) == 4
    assert len({round(loss, 3) for loss in wanted.values()}) == 4


def test_quantised_with_low_rank_updates(root):
    """QLoRA: the decoder learns in 4 bits; the finished model has the full-precision weights and the updates added."""
    pytest.importorskip("bitsandbytes")
    folder = run(root, "qlora", bits=4, lora_rank=2, lora_alpha=6, modalities=("words",), learning_rate=1e-2)
    parts, scale = read_parts(folder)
    assert scale == 3.0
    before, after = (hub.load(path)[0].state_dict() for path in (root / "model", folder / "model"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {name.split(".")[-2] for name in moved if name.startswith("language_model.")}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    name = "language_model.model.layers.1.self_attn.q_proj"
    update = parts[f"model.{name}.lora_B.default.weight"] @ parts[f"model.{name}.lora_A.default.weight"]
    assert update.abs().max() > 0
    torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + 3 * update)


def test_batches_of_like_length_hold_every_sample_once(root):
    folder = run(root, "grouped", length_grouped=True, batch_size=3, modalities=("words",))
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    plain_tokens = json.loads(
        (
            run(root, "ungrouped", batch_size=3, modalities=("words",)) / "checkpoint-4" / "trainer_state.json"
        ).read_text()
    )
    # Twelve samples are one epoch of the dataset: in whatever order, the tokens are the same.
    assert state["num_input_tokens_seen"] == plain_tokens["num_input_tokens_seen"] > 0
    assert losses_of(folder) != losses_of(root / "ungrouped")


def test_data_that_is_broken_stops_the_run_with_the_reasons(root):
    """Found out by a worker, told in one line by the process that waits for it."""
    words, pictures = ((root / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("words", "pictures"))
    lines = [*words, *(line.replace(".png", ".gone") for line in pictures[:4])]
    (root / "data" / "broken.jsonl").write_text("\n".join(lines * 10))
    with pytest.raises(DataError, match=r"of \d+ samples could not be used.*missing media") as caught:
        run(root, "broken", modalities=("broken",), workers=1, steps=200, batch_size=4)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert (root / "broken" / "ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deepspeed": "nowhere.json"}, "cannot read nowhere.json"),
        ({"start_from": ["nowhere"]}, "nowhere holds no trained"),
        ({"model": "nowhere"}, "no model 'nowhere'"),
    ],
)
def test_what_is_not_there_is_one_line(root, changes, message):
    with pytest.raises(VideoLLMError, match=message) as caught:
        run(root, "wrong", **changes)
    assert "\n" not in str(caught.value)
