"""Trained parts: into a file, back into a model, into a model's folder, low-rank updates among them."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from tests.small_model import small_model
from videollm.errors import ConfigError
from videollm.models import hub
from videollm.training.freeze import freeze
from videollm.training.parts import (
    PARTS_FILE,
    load_parts,
    load_trained_state,
    put_into_folder,
    read_parts,
    save_parts,
    trained_state,
)
from videollm.training.tiny import build_tiny


class Held(nn.Module):
    """A model under the name that it has in an objective."""

    def __init__(self, model):
        super().__init__()
        self.model = model


def trained(scale=2.0, seed=0):
    """A model with low-rank updates and moved weights, as a stage 2 leaves it."""
    model, processor = small_model()
    freeze(model, "stage2", ("video",))
    inject_adapter_in_model(
        LoraConfig(r=2, lora_alpha=2 * scale, target_modules=["q_proj", "up_proj"]), model.language_model
    )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return Held(model.eval()), processor


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "base"
    model, processor = small_model()
    model.save_pretrained(folder, max_shard_size="500KB")
    processor.save_pretrained(folder)
    (folder / "MODEL_CARD.md").write_text("of the base")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    held, _ = trained()
    save_parts(trained_state(held), folder, 2.0)
    return folder, held.model


def test_only_what_learns_is_kept(run):
    folder, _ = run
    tensors, scale = read_parts(folder)
    parts = {name.split(".")[1] for name in tensors}
    assert scale == 2.0 and "video_qformer" in parts and "language_model" in parts
    assert not parts & {"audio_qformer", "vision_model", "qformer", "audio_model"}
    assert all("lora_" in name for name in tensors if "language_model" in name)


@pytest.mark.parametrize("way", ["model", "folder"])
def test_low_rank_updates_are_added_up(way, base, run, tmp_path):
    """The parts in a plain model, and in a folder of several shards, give the logits of the model that was trained."""
    folder, model = run
    ids = torch.arange(5, 25)[None]
    features = model.get_video_features(
        torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), None, torch.zeros(1, 2)
    )
    if way == "model":
        plain, _ = small_model()
        load_parts(Held(plain), folder)
    else:
        put_into_folder(base, folder, tmp_path / "model")
        assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
        assert not (tmp_path / "model" / "MODEL_CARD.md").exists() and not list(tmp_path.glob(".*"))
        plain, _ = hub.load(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
        pixels = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(
            plain.get_video_features(pixels, None, torch.zeros(1, 2)), features, atol=1e-5, rtol=1e-5
        )
    assert not torch.equal(plain(ids).logits, small_model()[0](ids).logits)


def test_a_checkpoint_goes_back_where_it_was(run):
    folder, model = run
    held, _ = trained(seed=1)
    load_trained_state(held, folder)
    before = dict(model.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in held.model.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: freeze(model, "stage1", ("audio",)), "do not agree about model.audio_position_embedding"),
        (lambda model: None, "do not agree about"),
    ],
)
def test_a_checkpoint_of_something_else_is_one_line(run, change, message):
    model, _ = small_model()
    change(model)
    with pytest.raises(ConfigError, match=message) as caught:
        load_trained_state(Held(model), run[0])
    assert "\n" not in str(caught.value) and "--restart" in str(caught.value)


def test_parts_of_another_model_or_none(run, base, tmp_path):
    model, _ = small_model(hidden_size=32)
    with pytest.raises(ConfigError, match=r"the model has .*; give runs of this model"):
        load_parts(Held(model), run[0])
    model, _ = small_model(ears=False)
    held, _ = trained()
    freeze(held.model, "stage1", ("audio",))
    save_parts(trained_state(held), tmp_path / "ear")
    with pytest.raises(ConfigError, match=r"ear has model.audio_.*, the model has none"):
        load_parts(Held(model), tmp_path / "ear")
    with pytest.raises(ConfigError, match="holds no trained"):
        read_parts(tmp_path / "nowhere")
    (tmp_path / PARTS_FILE).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(ConfigError, match="cannot read") as caught:
        read_parts(tmp_path)
    assert "\n" not in str(caught.value)


def test_parts_of_a_smaller_vocabulary_fill_its_beginning(tmp_path):
    model, _ = small_model()
    held = Held(model)
    freeze(model, "tools")
    name = next(name for name, _ in held.named_parameters() if name.endswith("embed_tokens.weight"))
    state = {name: torch.full_like(model.get_input_embeddings().weight[:-2], 3.0)}
    last = model.get_input_embeddings().weight[-2:].clone()
    save_parts(state, tmp_path)
    assert load_parts(held, tmp_path) == [name]
    words = model.get_input_embeddings().weight
    assert torch.equal(words[:-2], state[name]) and torch.equal(words[-2:], last)
    larger = {name: torch.zeros(len(words) + 1, words.shape[1])}
    save_parts(larger, tmp_path)
    with pytest.raises(ConfigError, match=f"of {len(words) + 1}x"):
        load_parts(held, tmp_path)


def test_a_decoder_with_more_heads_does_what_it_did(tmp_path):
    """Also where what was trained is low-rank updates."""
    model, _ = build_tiny(0, hub.find("tiny"))
    grown, _ = build_tiny(1, hub.find("tiny"), tools=True)
    rank = torch.Generator().manual_seed(0)
    updates = {}
    for name, weight in model.language_model.named_parameters():
        if name.endswith(("q_proj.weight", "o_proj.weight", "up_proj.weight")):
            stem = f"model.language_model.{name.removesuffix('.weight')}"
            updates[f"{stem}.lora_A.default.weight"] = torch.randn(2, weight.shape[1], generator=rank) * 0.1
            updates[f"{stem}.lora_B.default.weight"] = torch.randn(weight.shape[0], 2, generator=rank) * 0.1
    save_parts({f"model.{name}": value for name, value in model.named_parameters()}, tmp_path / "whole")
    save_parts(updates, tmp_path / "updates", 2.0)
    ids = torch.randint(5, 500, (1, 12), generator=rank)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for folder in ("whole", "updates"):
            for one in (model, grown):
                load_parts(Held(one), tmp_path / folder)
            found = [one(input_ids=ids).logits[..., : before.shape[-1]] for one in (model, grown)]
            torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-5)
        assert (found[0] - before).abs().max() > 0.1
    assert grown.config.text_config.num_attention_heads == 2 * model.config.text_config.num_attention_heads
