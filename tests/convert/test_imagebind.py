"""ImageBind's own folder: three trunks of one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.convert import miniature as mini
from videollm.convert.imagebind import convert, imagebind_state_dict, plan
from videollm.errors import ConversionError
from videollm.models.imagebind import ImageBindConfig, ImageBindModel
from videollm.moments.sound import load_sound_encoder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "imagebind_huge.pth"
    torch.save(mini.imagebind(mini.Numbers(0)), path)
    (tmp_path / "shape.json").write_text(json.dumps(mini.IMAGEBIND_SHAPE))
    return path


def test_three_trunks(file: Path, tmp_path: Path) -> None:
    out = convert([file], tmp_path / "model", config=tmp_path / "shape.json", say=lambda line: None)
    model, report = ImageBindModel.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    published = torch.load(file, weights_only=True)
    found = model.state_dict()
    assert torch.equal(
        found["vision_model.pre_layernorm.weight"], published["modality_trunks.vision.pre_transformer_layer.0.weight"]
    )
    assert torch.equal(found["text_model.log_logit_scale"], published["modality_postprocessors.text.1.log_logit_scale"])
    assert model.config.audio_config.logit_scale == 20.0
    dropped = json.loads((out / "conversion.json").read_text())["sources"][0]["dropped"]
    assert {key.split(".")[1] for key in dropped["a sense that no model here has"]} == {"depth", "thermal", "imu"}


def test_only_the_trunks_of_the_config(file: Path) -> None:
    config = ImageBindConfig(vision_config=mini.IMAGEBIND_SHAPE["vision_config"])
    whole = {f"audio_encoder.{key}": value for key, value in torch.load(file, weights_only=True).items()}
    state = imagebind_state_dict(whole | {"llama_model.lm_head.weight": torch.zeros(1)}, config)
    ImageBindModel(config).load_state_dict(state, strict=True)
    assert all(name.startswith("vision_model.") for name in state)


def test_full_size(reference: Path) -> None:
    manifest = json.loads((reference / "video_llama" / "manifest_audio_branch.json").read_text())
    shapes = manifest["imagebind_audio"] | manifest["imagebind_vision"]
    for trunk in manifest["imagebind_unused_modalities"].values():
        shapes |= trunk
    shapes = {key: tuple(shape) for key, shape in shapes.items()}
    config = ImageBindConfig(audio_config={}, vision_config={}, text_config={})
    made = plan("imagebind_huge.pth", shapes, config)
    used = {source for fill in made.fills for source in fill.sources if source is not None}
    dropped = [key for keys in made.dropped[0].values() for key in keys]
    assert used.isdisjoint(dropped) and used | set(dropped) == set(shapes)


def test_another_file(tmp_path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="is not ImageBind; give"):
        convert([tmp_path / "x.pth"], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_finds_sounds_by_words(tmp_path: Path) -> None:
    """With CLIP's vocabulary at its size, the folder is all that a sound encoder needs."""
    shape = mini.IMAGEBIND_SHAPE | {"text_config": {**mini.IMAGEBIND_SHAPE["text_config"], "vocab_size": 49408}}
    published = mini.imagebind(mini.Numbers(0))
    key = "modality_preprocessors.text.token_embedding.weight"
    published[key] = mini.Numbers(1)(49408, published[key].shape[1])
    torch.save(published, tmp_path / "imagebind_huge.pth")
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    lines: list[str] = []
    out = convert(
        [tmp_path / "imagebind_huge.pth"], tmp_path / "model", config=tmp_path / "shape.json", say=lines.append
    )
    assert not any("no processor" in line for line in lines)
    encoder = load_sound_encoder(out, "cpu")
    assert encoder.words("a dog barks").shape == (encoder.width,)
    ids = encoder.processor.texts(["a photo of a dog"])["input_ids"]
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 1929, 49407]]
