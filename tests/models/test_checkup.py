"""Looking over folders: whole ones, quantised ones, and every way to be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from videollm.errors import ModelNotFoundError
from videollm.models import hub
from videollm.models.checkup import check_folder, compare, licences
from videollm.models.video_llama import VideoLlamaConfig


@pytest.fixture
def folder(model, processor, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def with_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_folder(folder: Path, model) -> None:
    found = check_folder(folder)
    assert found.problems == () and found.bits is None
    assert found.parameters == model.num_parameters()
    assert check_folder("tiny").problems == ()


def test_a_sharded_folder(model, processor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert check_folder(tmp_path).problems == ()
    sorted(tmp_path.glob("*.safetensors"))[0].unlink()
    problems = check_folder(tmp_path).problems
    assert problems[0].startswith("there is no model-00001") and "missing" in problems[1]
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert "cannot be read" in check_folder(tmp_path).problems[0]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_folder_that_was_saved_quantised(folder: Path, tmp_path_factory, bits: int, used: bool) -> None:
    pytest.importorskip("bitsandbytes")
    model, processor = hub.load(folder, device="cpu", bits=bits)
    saved = tmp_path_factory.mktemp("quantised")
    ids = torch.full((1, 5), 9)
    with torch.inference_mode():
        if used:
            model(input_ids=ids)
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    found = check_folder(saved)
    assert found.problems == () and found.bits == bits
    assert found.parameters == check_folder(folder).parameters
    with torch.inference_mode():
        again, _ = hub.load(saved, device="cpu")
        torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, atol=0.05, rtol=0.05)
    layer = "language_model.model.layers.0.mlp.up_proj"
    beside = f"{layer}.weight.absmax" if bits == 4 else f"{layer}.SCB"

    def without(weights: dict[str, torch.Tensor]) -> None:
        del weights[beside]
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"][:-1].clone()

    with_weights(saved, without)
    missing, wrong = check_folder(saved).problems
    assert beside in missing and f"{layer}.weight is" in wrong


def test_missing_unknown_and_wrong(folder: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["video_projection.wieght"] = weights.pop("video_projection.weight")
        weights["query_tokens"] = weights["query_tokens"][:, 1:].clone()
        weights["frame_position_embedding.weight"] = weights["frame_position_embedding.weight"].to(torch.int32)

    with_weights(folder, spoil)
    missing, unknown, wrong = check_folder(folder).problems
    assert missing == "1 missing: video_projection.weight"
    assert unknown == "1 unknown: video_projection.wieght"
    assert wrong.startswith("2 of the wrong shape or kind: query_tokens is 1 x 3 x 32, the config asks for 1 x 4 x 32")
    assert "frame_position_embedding.weight holds I32 numbers" in wrong


def test_cut_off_or_absent(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:5000])
    (problem,) = check_folder(folder).problems
    assert problem.startswith("model.safetensors cannot be read")
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    first, second = check_folder(folder).problems
    assert first == "there is no model.safetensors" and "no tokenizer" in second


def test_no_folder_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "video_llama", "num_query_tokens": "many"}))
    with pytest.raises(ModelNotFoundError, match=r"config\.json cannot be used") as caught:
        check_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_long_lists_are_cut() -> None:
    wanted = {f"part.{i}": (2,) for i in range(9)}
    assert compare(wanted, {}) == ["9 missing: part.0; part.1; part.2; ..."]
    assert compare(wanted, {}, tied=wanted) == []


def test_licences_by_shape() -> None:
    published = licences(VideoLlamaConfig.preset("7b"))
    bound = {licence.part for licence in published if licence.commercial is False}
    assert "ImageBind" in bound and len(published) == 5
    assert any("CC BY-NC" in licence.text and "NOT for commercial use" in licence.text for licence in published)
    assert licences(hub.read_config(hub.find("tiny"))) == []
