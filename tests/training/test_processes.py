"""Two processes give what one gives: with DDP, ZeRO-2 and ZeRO-3, whatever each is shown; and a stopped run goes on,
with as many processes exactly, with another number nearly."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.small_run import ROOT, Ranks, launch, losses_of, recipe_of, write_datasets, write_model
from videollm.cli.main import main
from videollm.data.datasets import Dataset, open_mixture
from videollm.models import hub
from videollm.training.parts import PARTS_FILE

pytestmark = pytest.mark.timeout(900)  # several processes on a machine that may be busy
WAYS = ("ddp", "zero2", "zero3")
EACH = [
    pytest.param("ddp", marks=pytest.mark.slow), "zero2", pytest.param("zero3", marks=pytest.mark.slow)
]  # fmt: skip
SLOW = [pytest.param(way, marks=pytest.mark.slow) for way in WAYS]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    write_model(root / "model")
    write_datasets(root / "data")
    return root


def recipe(root, way, output, **changes):
    if way == "ddp":
        return recipe_of(root, output, **changes)
    config = json.loads((ROOT / "train_configs" / "deepspeed" / f"{way}.json").read_text())
    if way == "zero3":
        # What is small is not spread by itself, and here everything is.
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = root / f"{way}.json"
    path.write_text(json.dumps(config))
    return recipe_of(root, output, deepspeed=str(path), **changes)


@pytest.fixture(scope="module")
def ranks():
    with Ranks() as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone(root, ranks):
    """One process that takes two batches a step."""
    ranks(recipe_of(root, "alone", gradient_accumulation=2))
    return losses_of(root / "alone")


@pytest.fixture(scope="module")
def together(root, ranks):
    """Runs of two processes, each made once."""
    done = {}

    def run(way):
        if way not in done:
            done[way] = ranks(recipe(root, way, way), processes=2)
        return root / way

    return run


def near(found, wanted, steps):
    assert list(found)[-1] == list(wanted)[-1] == 20
    for step in steps:
        assert found[step] == pytest.approx(wanted[step], rel=1e-3), step


def test_every_batch_of_two_processes_is_of_one_modality_and_they_differ(root):
    """What the tests below are about: in most steps one process has no picture, or no sound, and the other has."""
    datasets = [Dataset(**one) for one in recipe_of(root, "any")["datasets"]]
    mixture = open_mixture(datasets, seed=0, group=2)
    places = [[mixture.place(position).source for position in range(4 * step, 4 * step + 4)] for step in range(20)]
    assert all(first == second and third == fourth for first, second, third, fourth in places)
    assert sum(step[0] != step[2] for step in places) >= 12
    assert {source for step in places for source in step} == {0, 1, 2, 3}


@pytest.mark.parametrize("way", EACH)
def test_losses_are_those_of_one_process(alone, together, way):
    """Twenty steps in which the processes hold different modalities: nobody waits, and target tokens weigh the same."""
    near(losses_of(together(way)), alone, range(1, 21))


@pytest.mark.parametrize("way", EACH)
def test_the_whole_model_is_there_at_the_end(root, together, way):
    folder = together(way)
    model, _ = hub.load(folder / "model")
    held = model.state_dict()
    before = hub.load(root / "model")[0].state_dict()
    trained = {name.removeprefix("model."): tensor for name, tensor in load_file(folder / PARTS_FILE).items()}
    assert {name.split(".")[0] for name in trained} == {
        f"{kind}_{part}" for kind in ("video", "audio") for part in ("qformer", "query_tokens", "projection")
    } | {"frame_position_embedding", "audio_position_embedding"}
    for name, tensor in held.items():
        wanted = trained.get(name, before[name])
        assert torch.equal(tensor, wanted), name
    # Rows of positions that no clip reaches, and biases that cannot matter, stay as they were.
    assert sum(not torch.equal(held[name], before[name]) for name in trained) > 0.8 * len(trained)


@pytest.mark.parametrize("way", SLOW)
def test_goes_on_exactly(root, ranks, together, way):
    whole = together(way)
    cut = root / f"{way}_cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-20")
    (cut / PARTS_FILE).unlink()
    assert "goes on from step 10" in ranks(recipe(root, way, cut.name), processes=2)
    assert losses_of(cut) == losses_of(whole)
    found, wanted = load_file(cut / PARTS_FILE), load_file(whole / PARTS_FILE)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("way", SLOW)
def test_goes_on_with_another_number_of_processes(root, ranks, together, way):
    """DeepSpeed's checkpoint becomes a universal one on the way."""
    whole = together(way)
    other = root / f"{way}_other"
    shutil.copytree(whole, other)
    shutil.rmtree(other / "checkpoint-20")
    told = ranks(recipe(root, way, other.name, gradient_accumulation=2))
    assert "processes 2 -> 1" in told and "gradient_accumulation 1 -> 2" in told
    near(losses_of(other), losses_of(whole), range(11, 21))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "zero2", "zero3"])
def test_half_precision_and_gradient_checkpointing(root, ranks, alone, way):
    """As a large model is trained: bfloat16, layers computed again in the backward pass, low-rank updates."""
    output = f"{way}_half"
    ranks(recipe(root, way, output, bf16=True, gradient_checkpointing=True, lora_rank=2, steps=6), processes=2)
    found = losses_of(root / output)
    assert list(found) == list(range(1, 7))
    assert all(found[step] == pytest.approx(alone[step], rel=0.05) for step in found)
    assert hub.load(root / output / "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"],
        [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2", "--module"],
    ],
    ids=["torchrun", "deepspeed"],
)
def test_launchers(root, launcher):
    output = f"by_{len(launcher)}"
    done = launch(recipe(root, "zero2", output, steps=2), launcher)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (root / output / "model" / "config.json").exists() and "stage2: 2 steps" in done.stdout


def test_what_the_launcher_of_deepspeed_adds_is_accepted(capsys):
    assert main(["--local_rank=1", "train", "nowhere.yaml", "--local_rank=1"]) == 2
    assert "cannot read nowhere.yaml" in capsys.readouterr().err
