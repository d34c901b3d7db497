"""Published pieces to a folder: the goldens' numbers, the full sizes by name and shape, and the miniature for real."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.convert import miniature as mini
from videollm.convert.video_llama import convert, our_name, plan, recognise, state_dict
from videollm.errors import ConversionError
from videollm.models.hub import load
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration
from videollm.models.video_llama.llama_tokenizer import llama_tokenizer

# Source: the published checkpoints; a decoder's count is that of its paper's model with 32,000 tokens.
USED = {
    "eva_vit": {"7b": 985_894_528, "13b": 985_894_528},
    "blip2": {"7b": 105_137_664 + 24_576 + 2_816, "13b": 105_137_664 + 24_576 + 2_816},
    "imagebind": {"7b": 86_235_648, "13b": 86_235_648},
    "video_branch": {"7b": 22_104_064, "13b": 22_891_520},
    "audio_branch": {"7b": 22_855_680, "13b": 23_643_136},
    "llama": {"7b": 6_738_415_616, "13b": 13_015_864_320},
}

Shapes = dict[str, tuple[int, ...]]


# ---- full size, on names and shapes alone


def published_shapes(reference: Path, size: str) -> dict[str, tuple[str, Shapes]]:
    """Every published file by its manifest, with what else is said to be in it."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((reference / "video_llama" / f"manifest_{name}.json").read_text())

    vision, branch, sound, llama = (read(name) for name in ("vision", "vl_branch", "audio_branch", "llama"))
    eye = dict(vision["eva_vit_g_pth"])
    eye |= {key.replace("blocks.38.", "blocks.39."): shape for key, shape in eye.items() if "blocks.38." in key}
    eye |= {"norm.weight": [1408], "norm.bias": [1408], "head.weight": [1000, 1408], "head.bias": [1000]}
    known = branch["parameters"] | branch["buffers"] | vision["in_video_llama"]["ln_vision"]["parameters"]
    blip2 = {key: known[key] for key in branch["consumed_from_blip2_pretrained_flant5xxl_pth"]}
    blip2 |= {"t5_proj.weight": [4096, 768], "t5_proj.bias": [4096]}
    ears = sound["imagebind_audio"] | sound["imagebind_vision"]
    for trunk in sound["imagebind_unused_modalities"].values():
        ears |= trunk
    layers = llama["num_layers"][size.upper()]
    branches = {}
    for name in ("vl", "al"):
        stated = read(f"checkpoint_{name}")
        shapes = stated["model_trainable_parameters"] | stated["model_buffers"]
        shapes |= stated["overrides_for_13B"] if size == "13b" else {}
        for pattern, entry in stated["model_buffers_pattern"].items():
            shapes |= {pattern.replace("{i}", str(layer)): entry["shape"] for layer in range(layers)}
        branches[name] = shapes
    decoder: dict[str, list[int]] = {}
    for key, shape in llama[f"{size.upper()}_layer0_and_global"].items():
        name = key.removeprefix("llama_model.")
        every = range(layers) if ".layers.0." in name else range(1)
        decoder |= {name.replace(".layers.0.", f".layers.{layer}."): shape for layer in every}
    assert len(decoder) == llama["total_keys"][size.upper()]
    files = {
        "eva_vit": eye, "blip2": blip2, "imagebind": ears, "video_branch": branches["vl"],
        "audio_branch": branches["al"], "llama": decoder,
    }  # fmt: skip
    return {kind: (kind, {key: tuple(shape) for key, shape in keys.items()}) for kind, keys in files.items()}


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_full_size(reference: Path, size: str) -> None:
    files = published_shapes(reference, size)
    for kind, (_, shapes) in files.items():
        assert recognise(shapes) == kind
    config = VideoLlamaConfig.preset(size)
    made = plan(files, config)
    with torch.device("meta"):
        names = set(VideoLlamaForConditionalGeneration(config).state_dict())
    assert {fill.target for fill in made.fills} == names
    used = {index: {s for fill in made.fills if fill.piece == index for s in fill.sources if s} for index in range(6)}
    for index, (kind, (_, shapes)) in enumerate(files.items()):
        dropped = [key for keys in made.dropped[index].values() for key in keys]
        assert used[index].isdisjoint(dropped) and used[index] | set(dropped) == set(shapes)
        assert sum(torch.Size(shapes[key]).numel() for key in used[index]) == USED[kind][size], kind


def test_the_other_size_is_refused(reference: Path) -> None:
    files = published_shapes(reference, "7b") | {"llama": published_shapes(reference, "13b")["llama"]}
    with pytest.raises(ConversionError, match="video_branch has 2 keys of another shape: llama_proj"):
        plan(files, VideoLlamaConfig.preset("13b"))


# ---- the goldens' numbers


def test_goldens_by_pieces_and_as_a_whole(goldens: Path) -> None:
    """The published model's own small weights: split as published, or whole, they make one model."""
    folder = goldens / "video_llama" / "golden"
    index = json.loads((folder / "goldens.json").read_text())["config"]
    whole = load_file(folder / "weights.safetensors")

    def part(*prefixes: str) -> dict[str, torch.Tensor]:
        names = [key for key in whole if key.startswith(prefixes)]
        cut = prefixes[0] if len(prefixes) == 1 else ""
        return {key.removeprefix(cut): whole[key] for key in names}

    qformer = {key: index["bert"][key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    qformer["intermediate_size"] = index["bert"]["intermediate_size"]
    clip = qformer | {"num_hidden_layers": 2, "cross_attention_frequency": 1}
    config = VideoLlamaConfig(
        vision_config={
            "hidden_size": index["vit"]["embed_dim"],
            "intermediate_size": index["derived"]["vit_mlp_hidden"],
            "num_hidden_layers": index["vit"]["depth"],
            "num_attention_heads": index["vit"]["num_heads"],
            "image_size": index["vit"]["img_size"],
            "patch_size": index["vit"]["patch_size"],
        },
        qformer_config=qformer,
        video_qformer_config=clip,
        audio_qformer_config=clip,
        audio_config={
            "hidden_size": index["ib"]["audio_embed_dim"],
            "intermediate_size": 4 * index["ib"]["audio_embed_dim"],
            "num_hidden_layers": index["ib"]["audio_num_blocks"],
            "num_attention_heads": index["ib"]["audio_num_heads"],
            "projection_dim": index["ib"]["out_embed_dim"],
        },
        text_config={"model_type": "llama", **index["llama"]},
        num_query_tokens=index["nq"],
        num_video_query_tokens=index["nvq"],
        num_audio_query_tokens=index["naq"],
    )
    branches = [torch.load(folder / f"checkpoint_{name}.pth", weights_only=True) for name in ("vl", "al")]
    pieces = [
        part("visual_encoder."),
        part("query_tokens", "ln_vision.", "Qformer."),
        part("audio_encoder."),
        part("llama_model."),
        *branches,
    ]
    by_pieces, at_once = state_dict(*pieces, config=config), state_dict(whole, config=config)
    VideoLlamaForConditionalGeneration(config).load_state_dict(by_pieces, strict=True)
    assert by_pieces.keys() == at_once.keys()
    assert all(torch.equal(by_pieces[name], at_once[name]) for name in at_once)
    assert our_name("llama_proj.weight", config) == "video_projection.weight"
    assert our_name("Qformer.bert.embeddings.position_ids", config) is None


# ---- the miniature, for real


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("published")
    mini.make_miniature(folder)
    return folder


@pytest.fixture
def bundle(published: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(published, tmp_path / "bundle")


def run(bundle: Path, out: Path, **options: Any) -> Path:
    options = {"config": bundle / "shape.json", "say": lambda line: None, **options}
    return convert([bundle], out, **options)


def contents(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def pth(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_every_number_arrives(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = run(published, tmp_path / "new" / "model", say=said.append)
    found = contents(out)
    eye = pth(published / "eva_vit_g.pth")
    video = pth(published / "VL_LLaMA_2_7B_Finetuned.pth")["model"]
    decoder = pth(published / "llama-2-7b-chat-hf" / "pytorch_model-00002-of-00002.bin")
    block = "vision_model.encoder.layers.1.self_attn"
    query, value = eye["blocks.1.attn.q_bias"], eye["blocks.1.attn.v_bias"]
    assert torch.equal(found[f"{block}.qkv.bias"], torch.cat([query, torch.zeros_like(query), value]))
    assert torch.equal(found[f"{block}.projection.weight"], eye["blocks.1.attn.proj.weight"])
    assert torch.equal(found["video_projection.weight"], video["llama_proj.weight"])
    assert torch.equal(
        found["language_model.model.layers.1.mlp.up_proj.weight"], decoder["model.layers.1.mlp.up_proj.weight"]
    )
    # As in their files, which loses nothing.
    assert {value.dtype for value in found.values()} == {torch.float16, torch.float32}
    model, processor = load(out, device="cpu")
    with torch.device("meta"):
        assert found.keys() == VideoLlamaForConditionalGeneration(model.config).state_dict().keys()
    assert torch.equal(model.video_projection.weight, video["llama_proj.weight"])
    config = model.config
    assert (config.num_query_tokens, config.num_video_query_tokens, config.num_audio_query_tokens) == (4, 6, 3)
    assert (config.max_frame_positions, config.max_audio_positions) == (32, 8)
    assert config.audio_config.logit_scale == 20.0 and config.text_config.rms_norm_eps == 1e-5
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert processor.video_token_id == processor.tokenizer.convert_tokens_to_ids("<ImageHere>") == config.video_token_id
    assert "[INST]" in processor.chat_template and processor.image_processor.as_published
    assert model.generation_config.max_new_tokens == 300 and not model.generation_config.do_sample
    report = json.loads((out / "conversion.json").read_text())
    assert report["parameters"] == sum(value.numel() for value in found.values())
    names = ("file", "kind", "sha256", "licence", "dropped")
    assert all(name in source for source in report["sources"] for name in names)
    assert any("not commercial" in line for line in said)
    assert {path.stat().st_mode for path in out.iterdir()} == {(out / "config.json").stat().st_mode}


def test_vicuna_with_its_wrong_ids(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    out = mini.convert_miniature(tmp_path, llama_2=False)
    model, processor = load(out, device="cpu")
    assert "Human: " in processor.chat_template
    text = model.config.text_config
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (1, 2, 0)


def test_only_sight_and_another_number_format(bundle: Path, tmp_path: Path) -> None:
    (bundle / "AL_LLaMA_2_7B_Finetuned.pth").unlink()
    (bundle / "imagebind_huge.pth").unlink()
    out = run(bundle, tmp_path / "model", audio=False, dtype=torch.bfloat16)
    assert {value.dtype for value in contents(out).values()} == {torch.bfloat16}
    assert not load(out, device="cpu")[0].config.has_audio


def test_files_in_any_order_and_kinds_said(published: Path, tmp_path: Path) -> None:
    files = [str(path) for path in reversed(mini.files_of(published))]
    kinds = {"VL": "video_branch", "AL": "audio_branch", "eva": "eva_vit"}
    files = [next((f"{kinds[k]}={f}" for k in kinds if Path(f).name.startswith(k)), f) for f in files]
    out = convert(files, tmp_path / "model", config=published / "shape.json", say=lambda line: None)
    assert load(out, device="cpu")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a checkpoint holds."""
    loaded = pth(path)
    change(loaded.get("model", loaded))
    torch.save(loaded, path)


def rename(keys: dict[str, Any], old: str, new: str) -> None:
    keys[new] = keys.pop(old)


class Code:
    """A pickle of it runs a command when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch CODE_WAS_RUN",)


VL, AL, LLAMA = "VL_LLaMA_2_7B_Finetuned.pth", "AL_LLaMA_2_7B_Finetuned.pth", "llama-2-7b-chat-hf"
NAME = "video_Qformer.bert.encoder.layer.0.attention.self.query.weight"


def swap(bundle: Path) -> None:
    (bundle / VL).rename(bundle / "x")
    (bundle / AL).rename(bundle / VL)
    (bundle / "x").rename(bundle / AL)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(bundle: Path) -> None:
    shutil.rmtree(bundle / LLAMA)
    other = bundle.parent / "other"
    mini.make_miniature(other, width=64)
    shutil.move(other / LLAMA, bundle / LLAMA)


def with_code(bundle: Path) -> None:
    loaded = pth(bundle / VL)
    torch.save({**loaded, "scaler": Code()}, bundle / VL)


CODE = {"AutoConfig": "mine.Config", "AutoTokenizer": ["mine.Tokenizer", "mine.Tokenizer"]}


def configured(bundle: Path, **changed: Any) -> None:
    path = bundle / LLAMA / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    (bundle / LLAMA / "mine.py").write_text("open('CODE_WAS_RUN', 'w')")


def tokenizer_with_code(bundle: Path) -> None:
    configured(bundle)
    (bundle / LLAMA / "tokenizer.model").unlink()
    (bundle / LLAMA / "tokenizer.json").write_text("{}")
    (bundle / LLAMA / "tokenizer_config.json").write_text(json.dumps({"auto_map": CODE, "tokenizer_class": "Mine"}))


# What is done to a whole bundle, and what is said of it.
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no eye": (lambda b: (b / "eva_vit_g.pth").unlink(), "the EVA ViT .* is missing; give it, too"),
    "no sound": (lambda b: (b / "imagebind_huge.pth").unlink(), "ImageBind .* is missing.*--no-audio"),
    "no branch": (lambda b: (b / VL).unlink(), "video branch .* is missing"),
    "no decoder": (lambda b: shutil.rmtree(b / LLAMA), "folder of the decoder .* is missing"),
    "part of a decoder": (lambda b: (b / LLAMA / "pytorch_model-00001-of-00002.bin").unlink(), "lacks pytorch_model-0"),
    "no tokenizer": (lambda b: (b / LLAMA / "tokenizer.model").unlink(), "neither tokenizer.model nor tokenizer.json"),
    "no tokenizer, really": (lambda b: (b / LLAMA / "tokenizer.model").write_bytes(b"x"), "no sentencepiece model"),
    "another size": (other_size, r"decoder 48 wide, but .* is 64 wide; give the two of one size"),
    "renamed key": (
        lambda b: edit(b / VL, lambda keys: rename(keys, NAME, NAME.replace("query", "querry"))),
        r"querry.weight \(renamed\? video_qformer.*query.weight has nothing\)",
    ),
    "key too many": (lambda b: edit(b / "eva_vit_g.pth", lambda k: k.update(x=torch.ones(2))), "no part .* takes: x;"),
    "key too few": (lambda b: edit(b / AL, lambda k: k.pop("audio_query_tokens")), "no file of Video-LLaMA"),
    "cut off": (lambda b: cut_off(b / "imagebind_huge.pth"), "imagebind_huge.pth .* is damaged or cut off"),
    "cut off, old format": (lambda b: cut_off(b / "blip2_pretrained_flant5xxl.pth"), "blip2.* is damaged or cut off"),
    "address of a large file": (
        lambda b: (b / AL).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "fetch it with `git lfs pull`",
    ),
    "web page": (lambda b: (b / AL).write_text("<!DOCTYPE html><html>404</html>"), "is a web page"),
    "code": (with_code, r"holds code \(posix.system\) beside its weights and was not run"),
    "swapped": (swap, f"{AL} is published as .*AL.*, but holds .*VL.*swapped"),
    "two branches": (lambda b: shutil.copy(b / VL, b / "more.pth"), "was given 2 times .*give one"),
    "integers": (
        lambda b: edit(b / VL, lambda k: k.update(video_query_tokens=k["video_query_tokens"].int())),
        "int32 num",
    ),
    "no numbers": (lambda b: edit(b / AL, lambda k: k["audio_query_tokens"].fill_(math.nan)), "that are not finite"),
    "sparse": (
        lambda b: edit(b / VL, lambda k: k.update(video_query_tokens=k["video_query_tokens"].to_sparse())),
        "holds sparse tensors",
    ),
    "a million layers": (lambda b: configured(b, num_hidden_layers=10**6), "asks for 1000000 layers, .* have 2;"),
    "no heads": (lambda b: configured(b, num_attention_heads=0), "is no config of a decoder"),
    "no decoder at all": (lambda b: configured(b, model_type="t5"), "a 't5' model answers no prompts"),
    "a decoder with code": (lambda b: configured(b, model_type="mine", auto_map=CODE), "is no config of a decoder"),
    "a tokenizer with code": (tokenizer_with_code, "the tokenizer in .* cannot be used"),
    "projection": (lambda b: torch.save({"model": {"llama_proj.bias": torch.ones(1)}}, b / "p.pth"), "leave it out"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_inputs(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked whether to run foreign code"))
    spoil, words = WRONG[what]
    spoil(bundle)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match=words) as caught:
        run(bundle, tmp_path / "deep" / "model")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


def test_a_kind_that_is_not_so(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=f"{AL} was given as .*VL.*, but holds .*AL.*swapped"):
        convert([f"video_branch={published / AL}"], tmp_path / "model")


def test_keys_left_out_on_request(bundle: Path, tmp_path: Path) -> None:
    edit(bundle / "eva_vit_g.pth", lambda keys: keys.update({"extra.a": torch.ones(2), "extra.b": torch.ones(2)}))
    out = run(bundle, tmp_path / "model", drop=["extra.*"])
    sources = json.loads((out / "conversion.json").read_text())["sources"]
    asked = {source["file"]: source["dropped"].get("left out as asked") for source in sources}
    assert asked.pop("eva_vit_g.pth") == ["extra.a", "extra.b"] and not any(asked.values())
    with pytest.raises(ConversionError, match="'nothing' matches no key"):
        run(bundle, tmp_path / "other", drop=["nothing"])


def test_prompts_that_nothing_tells(bundle: Path, tmp_path: Path) -> None:
    (bundle / VL).rename(bundle / "mine.pth")
    edit(bundle / "mine.pth", lambda keys: None)
    loaded = pth(bundle / "mine.pth")
    torch.save({"model": loaded["model"]}, bundle / "mine.pth")
    (bundle / LLAMA).rename(bundle / "decoder")
    with pytest.raises(ConversionError, match="say --prompt vicuna_v0 or --prompt llama_2_chat"):
        run(bundle, tmp_path / "model")
    out = run(bundle, tmp_path / "model", prompt="vicuna_v0")
    assert "Human: " in (out / "chat_template.jinja").read_text()


def test_a_newer_decoder_with_its_own_template(bundle: Path, tmp_path: Path) -> None:
    decoder = bundle / LLAMA
    tokenizer = llama_tokenizer(decoder / "tokenizer.model")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(without_placeholders(tokenizer))),
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}",
    )
    with pytest.raises(ConversionError, match="has no chat template; choose another --prompt"):
        run(bundle, tmp_path / "model", prompt="own")
    (decoder / "tokenizer.model").unlink()
    fast.save_pretrained(decoder)
    model, processor = load(run(bundle, tmp_path / "model", prompt="own"), device="cpu")
    assert processor.chat_template == fast.chat_template and processor.words_only_template
    assert (model.config.video_token_id, model.config.audio_token_id) == (380, 381)
    assert processor.tokenizer.pad_token == "</s>"
    assert model.generation_config.eos_token_id == fast.eos_token_id


def test_a_template_that_ends_answers_with_a_token_of_its_own(bundle: Path, tmp_path: Path) -> None:
    decoder = bundle / LLAMA
    tokenizer = llama_tokenizer(decoder / "tokenizer.model")
    end = tokenizer.convert_ids_to_tokens(300)  # the decoder has no room for one more
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(without_placeholders(tokenizer))),
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=[end],
        chat_template="{% for message in messages %}<{{ message.role }}>{{ message.content }}" + end + "{% endfor %}",
    )
    (decoder / "tokenizer.model").unlink()
    fast.save_pretrained(decoder)
    model, _ = load(run(bundle, tmp_path / "model", prompt="own"), device="cpu")
    assert model.generation_config.eos_token_id == [fast.eos_token_id, 300]


def without_placeholders(tokenizer: Any) -> dict[str, Any]:
    """A tokenizer as its decoder's makers publish it: they know nothing of media."""
    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    stored["added_tokens"] = [token for token in stored["added_tokens"] if "Here>" not in token["content"]]
    return stored


def test_a_published_file_that_changed(bundle: Path, tmp_path: Path, cache: Path) -> None:
    run(bundle, tmp_path / "one")
    kept = json.loads((cache / "checksums.json").read_text())
    assert set(kept) == {"eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "imagebind_huge.pth", VL, AL}
    run(bundle, tmp_path / "two")
    edit(bundle / VL, lambda keys: keys["llama_proj.bias"].add_(1))
    with pytest.raises(ConversionError, match=f"is not the {VL} that was used first.*download it again"):
        run(bundle, tmp_path / "three")
    assert not (tmp_path / "three").exists() and json.loads((cache / "checksums.json").read_text()) == kept


def test_a_folder_that_is_there_is_left_alone(published: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ConversionError, match="is there already; remove it, or choose another --out"):
        run(published, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["mine.txt"]


def test_a_disk_without_room(bundle: Path, tmp_path: Path) -> None:
    """A decoder with more embeddings than the disk holds: its file is sparse, its numbers were never written."""
    rows = shutil.disk_usage(tmp_path).free // (2 * mini.DECODER)
    end = rows * mini.DECODER * 2
    header = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "F16", "shape": [rows, mini.DECODER], "data_offsets": [0, end]}}
    ).encode()
    decoder = bundle / LLAMA
    parts = pth(decoder / "pytorch_model-00002-of-00002.bin")
    save_file(
        {key: value.clone() for key, value in parts.items() if key != "lm_head.weight"}, decoder / "b.safetensors"
    )
    with (decoder / "a.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    weight_map = {"model.embed_tokens.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}
    (decoder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = json.loads((decoder / "config.json").read_text())
    (decoder / "config.json").write_text(json.dumps(config | {"vocab_size": rows, "tie_word_embeddings": True}))
    with pytest.raises(ConversionError, match=r"needs [\d,]+ bytes, its disk has [\d,]+ free; make room"):
        run(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists() and not (tmp_path / ".model.part").exists()


SCRIPT = """
import resource, sys
from pathlib import Path
from videollm.cli.main import main
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
bundle = Path(sys.argv[1])
sys.exit(main(["convert", "video-llama", str(bundle), "--config", str(bundle / "shape.json"), "--out", sys.argv[2]]))
"""


def start(bundle: Path, out: Path, largest_file: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(bundle), str(out), str(largest_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_write_that_fails_halfway(published: Path, tmp_path: Path) -> None:
    """As on a full disk: the operating system refuses, after some shards were written."""
    process = start(published, tmp_path / "model", largest_file=100_000)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert "could not be written" in line and "nothing was left behind; make room" in line
    assert not any("model" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_started_again(published: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Whenever it ends: no folder, or a whole one."""
    out, staging = tmp_path / "model", tmp_path / ".model.part"
    process = start(published, out)
    while process.poll() is None and not staging.exists():
        time.sleep(0.001)
    process.send_signal(how)
    process.communicate(timeout=280)
    if out.exists():
        pytest.skip("it was done before it could be interrupted")
    if how is signal.SIGINT:
        assert process.returncode == 130 and not staging.exists()
    assert not (staging / "config.json").exists(), "a half-written folder that loads"
    (staging / "left over").mkdir(parents=True, exist_ok=True)
    assert load(run(published, out), device="cpu") and not staging.exists()


@pytest.mark.slow
def test_memory_is_that_of_one_file(bundle: Path, tmp_path: Path) -> None:
    """A decoder of three files of 1.5 GB: at most the largest and 2 GB, where all would be 4.5 GB."""
    decoder, size = bundle / LLAMA, 1_536 * 2**20
    config = json.loads((decoder / "config.json").read_text())
    hidden, inner = config["hidden_size"], size // 2 // config["hidden_size"]
    weight_map = {}
    parts = pth(decoder / "pytorch_model-00001-of-00002.bin") | pth(decoder / "pytorch_model-00002-of-00002.bin")
    for layer, part in ((0, "gate"), (0, "up"), (0, "down")):
        key = f"model.layers.{layer}.mlp.{part}_proj.weight"
        shape = [hidden, inner] if part == "down" else [inner, hidden]
        header = json.dumps({key: {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}}).encode()
        with (decoder / f"{part}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)
        weight_map[key] = f"{part}.safetensors"
    rest = {key: value.clone() for key, value in parts.items() if ".layers.1." not in key and ".mlp." not in key}
    save_file(rest, decoder / "rest.safetensors")
    weight_map |= dict.fromkeys(rest, "rest.safetensors")
    (decoder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (decoder / "config.json").write_text(json.dumps(config | {"intermediate_size": inner, "num_hidden_layers": 1}))
    process = start(bundle, tmp_path / "model")
    process.communicate(timeout=280)
    assert process.returncode == 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak <= size + 2 * 10**9, f"{peak:,} bytes"
