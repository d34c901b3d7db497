"""LaViLa's published files to folders; their numbers are compared in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForVideoClassification

from tests.convert import lavila_files as mini
from videollm.cli.main import main
from videollm.convert.lavila import convert, recognise, shape_of, state_dict
from videollm.errors import ConversionError
from videollm.models.lavila import (
    LavilaDualEncoder,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaProcessor,
    Rephraser,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "c", "picks", "a", "knife", "##s"]


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(mini.SHAPE))
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def made(paths: list[Path], out: Path, **options: Any) -> Any:
    said: list[str] = []
    folder = convert(paths, out, say=said.append, **options)
    return folder, said, json.loads((folder / "conversion.json").read_text())


def test_a_dual_encoder(tmp_path: Path, shape: Path) -> None:
    tensors = mini.dual_encoder()
    out, said, report = made([mini.save(tmp_path / "b.pth", tensors)], tmp_path / "model", config=shape)
    model, loading = AutoModel.from_pretrained(out, output_loading_info=True)
    assert isinstance(model, LavilaDualEncoder) and not loading["missing_keys"] and not loading["unexpected_keys"]
    found = model.state_dict()
    layer = "text_model.encoder.layers.1.self_attn"
    query, key, value = tensors["transformer.resblocks.1.attn.in_proj_weight"].chunk(3)
    assert torch.equal(found[f"{layer}.q_proj.weight"], query) and torch.equal(found[f"{layer}.k_proj.weight"], key)
    assert torch.equal(found[f"{layer}.v_proj.weight"], value)
    assert torch.equal(found["visual_projection.weight"], tensors["image_projection"].mT)
    assert torch.equal(found["vision_model.blocks.1.norm_time.weight"], tensors["visual.blocks.1.norm3.weight"])
    assert found["log_logit_scale"] == 2.0 and report["model"] == "SMALL"
    assert any("the folder gets none" in line for line in said)
    assert report["parameters"] == sum(value.numel() for value in tensors.values())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_with_and_without_the_prefix_of_many_devices(prefix: str) -> None:
    tensors = {prefix + key: value for key, value in mini.dual_encoder().items()}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    config = shape_of("dual_encoder", shapes, mini.SHAPE)
    LavilaDualEncoder(config).load_state_dict(state_dict({"state_dict": tensors, "epoch": 1}, config), strict=True)


def test_egovlp_and_its_words(tmp_path: Path, shape: Path, words: Path) -> None:
    file = mini.save(tmp_path / "ego.pth", mini.egovlp())
    with pytest.raises(ConversionError, match=r"give its vocab\.txt or its folder"):
        convert([file], tmp_path / "model", config=shape, say=lambda line: None)
    assert not (tmp_path / "model").exists()
    out, _, _ = made([words, file], tmp_path / "model", config=shape)
    model = AutoModel.from_pretrained(out)
    assert model.config.nonlinear_projection and not model.config.vision_config.pre_layernorm
    assert model.config.vision_config.hidden_act == "gelu" and model.dtype == torch.float16
    processor = LavilaProcessor.from_pretrained(out)
    assert processor.image_processor.image_mean == [123.675, 116.28, 103.53]
    batch = processor.texts(["C picks a knife", "a KNIFES unseen"])
    assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 8, 3], [2, 7, 8, 9, 1, 3]]
    with torch.no_grad():
        assert model.float()(**batch).text_embeds.shape == (2, mini.SHARED)


def test_a_narrator(tmp_path: Path, shape: Path) -> None:
    tensors = mini.narrator()
    out, _, report = made([mini.save(tmp_path / "n.pth", tensors)], tmp_path / "model", config=shape)
    model, loading = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert isinstance(model, LavilaNarrator) and not loading["missing_keys"] and not loading["unexpected_keys"]
    assert model.config.cross_attention_frequency == 2 and model.config.gated_cross_attention
    assert model.config.pool_num_heads == 2 and model.config.num_query_tokens == 5
    assert model.generation_config.eos_token_id == mini.WORDS - 1 and model.generation_config.max_length == 16
    decoder = model.language_model
    assert torch.equal(decoder.lm_head.weight, tensors["text_decoder.lm_head.weight"])
    assert decoder.transformer.h[2].alpha_cattn == torch.tensor(0.3) and decoder.transformer.h[1].alpha_cattn is None
    assert (
        model.generate(pixel_values=torch.zeros(1, 4, 3, 16, 16), num_return_sequences=2, do_sample=True).shape[0] == 2
    )
    dropped = report["sources"][0]["dropped"]
    assert len(dropped["a constant (the causal mask) that is computed"]) == 2 * (4 + 2)
    assert dropped["the same as the embeddings of tokens"] == ["module.text_decoder.lm_head.weight"]


def test_an_output_matrix_that_is_not_the_embeddings(tmp_path: Path, shape: Path) -> None:
    tensors = mini.narrator()
    tensors["text_decoder.lm_head.weight"][3, 3] += 1
    with pytest.raises(ConversionError, match=r"lm_head.weight is not the same as .*wte.weight"):
        convert([mini.save(tmp_path / "n.pth", tensors)], tmp_path / "model", config=shape, say=lambda line: None)


@pytest.mark.parametrize("classes", [(7,), (4, 5, 6)])
def test_a_classifier(tmp_path: Path, shape: Path, classes: tuple[int, ...]) -> None:
    tensors = mini.classifier(*classes)
    out, _, _ = made([mini.save(tmp_path / "c.pth", tensors)], tmp_path / "model", config=shape)
    model = AutoModelForVideoClassification.from_pretrained(out)
    assert isinstance(model, LavilaForVideoClassification) and tuple(model.config.num_classes) == classes
    name = "fc_cls.weight" if len(classes) == 1 else "fc_cls.0.weight"
    assert torch.equal(model.heads[0].weight, tensors[name])
    assert LavilaImageProcessor.from_pretrained(out).num_frames == mini.FRAMES


def test_the_paraphraser(tmp_path: Path) -> None:
    from tests.models.lavila.test_rephraser import small_t5, small_tokenizer

    published = tmp_path / "published"
    model = small_t5()
    model.save_pretrained(published)
    small_tokenizer().save_pretrained(published)
    state = model.state_dict() | {
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.zeros(8, 2)
    }
    (published / "model.safetensors").unlink()
    torch.save(state, published / "pytorch_model.bin")
    out, _, report = made([published], tmp_path / "model")
    rephraser = Rephraser.from_pretrained(out)
    assert torch.equal(rephraser.model.shared.weight, model.shared.weight)
    assert sorted(path.suffix for path in out.iterdir() if path.suffix in (".bin", ".safetensors")) == [".safetensors"]
    assert len(report["sources"][0]["dropped"]) == 2
    assert rephraser.rephrase(["c picks a knife"], count=2, groups=3)


def file_with(tmp_path: Path, **changes: Any) -> Path:
    tensors = {key: value for key, value in {**mini.dual_encoder(), **changes}.items() if value is not None}
    return mini.save(tmp_path / "x.pth", tensors)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ln_final.weight": None}, "nothing fills 1 parameter of the model: text_model.final_layer_norm.weight"),
        ({"rotary.inv_freq": torch.zeros(2)}, "1 key that no part of the model takes: module.rotary.inv_freq"),
        ({"visual.norm.weight": torch.zeros(8)}, "module.visual.norm.weight is 8, the model needs 32"),
        ({"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(70)}, "in_proj_bias is 70, the model needs 24"),
        ({"image_projection": torch.zeros(20, 20)}, "module.image_projection is 20 x 20, the model needs 20 x 32"),
        ({"visual.patch_embed.proj.weight": None}, "make no model .no visual.patch_embed.proj.weight"),
        ({"image_projection": None}, "is no model of LaViLa"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, shape: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert([file_with(tmp_path, **changes)], tmp_path / "model", config=shape, say=lambda line: None)
    assert "\n" not in str(caught.value) and not (tmp_path / "model").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"x.pth", "shape.json"}


def test_a_needless_key_may_be_left_out(tmp_path: Path, shape: Path) -> None:
    file = file_with(tmp_path, **{"rotary.inv_freq": torch.zeros(2)})
    out, _, report = made([file], tmp_path / "model", config=shape, drop=["*inv_freq"])
    assert report["sources"][0]["dropped"]["left out as asked"] == ["module.rotary.inv_freq"]
    assert (out / "config.json").is_file()


def test_a_prefix_on_some_keys_only(tmp_path: Path, shape: Path) -> None:
    tensors = mini.dual_encoder()
    tensors["module.logit_scale"] = tensors.pop("logit_scale")
    with pytest.raises(ConversionError, match=r"no part of the model takes: module\.logit_scale"):
        convert([mini.save(tmp_path / "x.pth", tensors, "")], tmp_path / "m", config=shape, say=lambda line: None)


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    whole = mini.save(tmp_path / "whole.pth", mini.dual_encoder()).read_bytes()
    for part in (100, len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.pth").write_bytes(whole[:part])
        with pytest.raises(ConversionError, match="damaged or cut off") as caught:
            convert([tmp_path / "cut.pth"], tmp_path / "model", say=lambda line: None)
        assert "\n" not in str(caught.value)


def test_number_format_and_other_numbers_of_heads(tmp_path: Path) -> None:
    file = mini.save(tmp_path / "b.pth", mini.dual_encoder())
    out, _, _ = made([file], tmp_path / "model", dtype=torch.bfloat16)
    config = AutoConfig.from_pretrained(out)
    assert config.vision_config.num_attention_heads == 1 and AutoModel.from_pretrained(out).dtype == torch.bfloat16
    (tmp_path / "shape.json").write_text('{"vision_config": {"num_attention_heads": 5}}')
    with pytest.raises(ConversionError, match="must be a multiple of num_attention_heads, found 32 and 5"):
        convert([file], tmp_path / "other", config=tmp_path / "shape.json", say=lambda line: None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: [], "found 0 of weights"),
        (lambda folder: [folder / "a.pth", folder / "b.pth"], "found 2 of weights"),
        (lambda folder: [folder / "a.pth", folder / "x", folder / "y"], "and 2 others"),
        (lambda folder: [folder / "missing.pth"], "there is no file"),
    ],
)
def test_how_many_files(tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        convert(make(tmp_path), tmp_path / "model", say=lambda line: None)


def test_tokenizers_that_are_none(tmp_path: Path, shape: Path) -> None:
    ego = mini.save(tmp_path / "ego.pth", mini.egovlp())
    (tmp_path / "noise.txt").write_text("nothing\n")
    with pytest.raises(ConversionError, match="no vocabulary of WordPiece"):
        convert([ego, tmp_path / "noise.txt"], tmp_path / "model", config=shape, say=lambda line: None)
    narrator = mini.save(tmp_path / "n.pth", mini.narrator())
    with pytest.raises(ConversionError, match="no GPT-2 tokenizer at"):
        convert([narrator, tmp_path / "noise.txt"], tmp_path / "model", config=shape, say=lambda line: None)
    classifier = mini.save(tmp_path / "c.pth", mini.classifier(3))
    with pytest.raises(ConversionError, match="a classifier reads no text"):
        convert([classifier, tmp_path / "noise.txt"], tmp_path / "model", config=shape, say=lambda line: None)


def test_every_kind_is_recognised() -> None:
    kinds = {"dual_encoder": [mini.dual_encoder(), mini.egovlp()], "narrator": [mini.narrator()]}
    kinds["classifier"] = [mini.classifier(3), mini.classifier(3, 4)]
    for kind, files in kinds.items():
        for file in files:
            assert recognise(file) == recognise({f"module.{key}" for key in file}) == kind
    assert recognise({"cls_token", "blocks.0.attn.qkv.weight"}) is None


def test_the_verb(tmp_path: Path, shape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(mini.save(tmp_path / "b.pth", mini.dual_encoder()))
    words = ["convert", "lavila", file, "--config", str(shape), "--out", str(tmp_path / "model")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "keys used" in printed and printed.endswith(f"done: {tmp_path / 'model'}\n")
    assert main(words) == 2 and "is there already" in capsys.readouterr().err
    assert main([*words, "--no-audio"]) == 2 and "belong to video-llama" in capsys.readouterr().err
