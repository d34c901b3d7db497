"""Parity with the published LaViLa: every stage on the same small weights and inputs, every indexed tensor.

Sizes, seeds, file names and tolerances come from the index ``lavila/golden/goldens.json``. The tests run twice: on the
goldens, and on a small part of them that is kept in ``tests/parity/data``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import videollm
from tests.parity.tally import KEPT, Tally, golden_of
from tests.parity.test_video_llama import Goldens, watch
from videollm.convert.audit import Piece, audit
from videollm.convert.keymap import LAVILA_VISION
from videollm.convert.lavila import convert, plan, recognise, shape_of, state_dict
from videollm.evaluation.retrieval import (
    average_precisions,
    charades_map,
    classification,
    egomcq,
    marginal,
    multi_instance,
    ndcgs,
)
from videollm.media.ego4d import published_frames, segment_frames, segments
from videollm.models.imagebind.text_tokenizer import load_text_tokenizer
from videollm.models.lavila import (
    EntropyMeter,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaProcessor,
    LavilaVisionConfig,
)
from videollm.models.lavila.gpt2_tokenizer import load_gpt2_tokenizer
from videollm.models.lavila.losses import caption_loss, contrastive_loss, max_margin_loss
from videollm.models.lavila.timesformer import SpaceTimeBlock, resize_time_embedding

DUAL = "dual_encoder_io.safetensors"
DUAL_HF = "dual_encoder_hf_io.safetensors"
NARRATOR = "narrator_io.safetensors"
LOSSES = "losses_io.safetensors"


TOKENIZERS = Path(videollm.__file__).parent / "assets" / "tokenizers"


class LavilaGoldens(Goldens):
    """The index, whose inputs are not outputs of anything: only what is kind ``output`` can be wrong."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        super().__init__(folder, tally)
        for entry in self.index["tensors"]:
            entry["what"] = entry["description"]

    def shown(self, file: str, key: str) -> torch.Tensor:
        """An input of the index, as it was stored: its shape and kind of numbers are those of the index."""
        entry, stored = self.entries[file, key], self(file, key)
        assert entry["kind"] == "input" and list(stored.shape) == entry["shape"]
        assert str(stored.dtype) == f"torch.{entry['dtype']}"
        self.tally.compared.add((file, key))
        return stored

    def number(self, file: str, key: str, found: torch.Tensor | float) -> None:
        """A single number, which the index keeps as a row of one."""
        self.check(file, key, torch.as_tensor(found).reshape(self(file, key).shape))


golden = golden_of("lavila", LavilaGoldens)


def vision_fields(config: dict[str, Any]) -> dict[str, Any]:
    return {"num_attention_heads": config["heads"], "hidden_act": config["activation"]}


def converted(golden: LavilaGoldens, stem: str, fields: dict[str, Any]) -> Any:
    """The model of golden weights, made of their file's keys alone but for what weights do not show: heads."""
    weights = load_file(golden.folder / needed(golden, f"{stem}_weights.safetensors"))
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    kind = recognise(shapes)
    assert kind is not None
    config = shape_of(kind, shapes, fields)
    model = {"dual_encoder": LavilaDualEncoder, "narrator": LavilaNarrator}[kind](config).eval()
    missing = model.load_state_dict(state_dict(weights, config), strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"language_model.lm_head.weight"}
    return model


def dual_fields(golden: LavilaGoldens) -> dict[str, Any]:
    config = golden.index["configs"]["dual_encoder"]
    return {
        "vision_config": vision_fields(config["vision"]),
        "text_config": {"num_attention_heads": config["text"]["heads"], "hidden_act": config["text"]["activation"]},
    }


@pytest.fixture(scope="module")
def dual(golden: LavilaGoldens) -> LavilaDualEncoder:
    return converted(golden, "dual_encoder", dual_fields(golden))


def narrator_fields(golden: LavilaGoldens) -> dict[str, Any]:
    config = golden.index["configs"]["narrator"]
    decoder = config["decoder"]
    return {
        "vision_config": vision_fields(config["vision"]),
        "text_config": {
            "n_head": decoder["n_head"],
            "activation_function": decoder["activation"],
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
        },
        "max_text_tokens": config["max_text_length"],
    }


@pytest.fixture(scope="module")
def narrator(golden: LavilaGoldens) -> LavilaNarrator:
    return converted(golden, "narrator", narrator_fields(golden))


@pytest.fixture
def dual_stages(dual: LavilaDualEncoder) -> Iterator[dict[str, torch.Tensor]]:
    yield from watch(dual, {})


@pytest.fixture
def narrator_stages(narrator: LavilaNarrator) -> Iterator[dict[str, torch.Tensor]]:
    yield from watch(narrator, {})


def needed(golden: LavilaGoldens, file: str) -> str:
    """A file of the index, which the kept part may lack."""
    if not (golden.folder / file).is_file() and golden.folder.is_relative_to(KEPT):
        pytest.skip(f"{file} is not kept")
    return file


def frames_first(video: torch.Tensor) -> torch.Tensor:
    """The published order of axes to ours."""
    return video.transpose(1, 2)


# ---- shapes


def test_shapes_are_those_of_the_index(dual: LavilaDualEncoder, golden: LavilaGoldens) -> None:
    """What weights show of their model is what the index says."""
    config = golden.index["configs"]["dual_encoder"]
    vision, stated, text = dual.config.vision_config, config["vision"], dual.config.text_config
    assert vision.image_size == stated["img_size"] and vision.patch_size == stated["patch_size"]
    assert vision.num_frames == stated["num_frames"] and vision.hidden_size == stated["width"]
    assert vision.num_hidden_layers == stated["depth"] and vision.hidden_act == stated["activation"]
    assert vision.intermediate_size == stated["mlp_ratio"] * stated["width"]
    assert vision.pre_layernorm == stated["ln_pre"] and vision.gated_time_attention == stated["gated_time_attention"]
    assert (
        text.max_position_embeddings == config["text"]["context_length"] and text.hidden_size == config["text"]["width"]
    )
    assert text.vocab_size == config["text"]["vocab_size"] and text.num_hidden_layers == config["text"]["layers"]
    assert dual.config.projection_dim == config["embed_dim"]
    assert vision.layer_norm_eps == golden.index["configs"]["block"]["norm_eps"]


# ---- the space-time encoder


@torch.no_grad()
def test_space_time_block(golden: LavilaGoldens) -> None:
    config, file = golden.index["configs"]["block"], needed(golden, "block_io.safetensors")
    weights = load_file(golden.folder / config["weights"].split(",")[0])
    x = golden.shown(file, "x")
    for variant, words in config["variants"].items():
        mine = {k.removeprefix(f"{variant}."): v for k, v in weights.items() if k.startswith(f"{variant}.")}
        shape = LavilaVisionConfig(
            hidden_size=config["dim"],
            intermediate_size=len(mine["mlp.fc1.bias"]),
            num_attention_heads=config["heads"],
            num_frames=config["frames"],
            hidden_act="gelu" if words.startswith("exact") else "quick_gelu",
            gated_time_attention="alpha_timeattn" in mine,
            layer_norm_eps=config["norm_eps"],
        )
        block = SpaceTimeBlock(shape).eval()
        shape._attn_implementation = "sdpa"
        published = {f"visual.blocks.0.{key}": tuple(value.shape) for key, value in mine.items()}
        names = {f"vision_model.blocks.0.{key}": tuple(v.shape) for key, v in block.state_dict().items()}
        fills = audit([Piece(variant, LAVILA_VISION, published)], names).fills
        filled = {
            fill.target.removeprefix("vision_model.blocks.0."): fill.make(
                lambda key, mine=mine: mine[key.removeprefix("visual.blocks.0.")]
            )
            for fill in fills
        }
        block.load_state_dict(filled, strict=True)
        for seen in watch(block, {}):
            y = block(x, config["frames"])
            for ours, theirs in (("time_attention", "time_attention"), ("space_attention", "space_attention")):
                golden.check(file, f"{variant}.{theirs}_in", seen[f"{ours}:in"])
                golden.check(file, f"{variant}.{theirs}_out", seen[ours])
            golden.check(file, f"{variant}.y", y)


def test_times_for_other_numbers_of_frames(golden: LavilaGoldens) -> None:
    file = "temporal_embed_inflation.safetensors"
    stored = golden.shown(file, "temporal_embed")
    modes = {"bilinear": "bilinear", "interp": "nearest", "zeros": "zeros"}
    for key in golden.keys(file, "to_"):
        _, frames, mode = key.split("_")
        golden.check(file, key, resize_time_embedding(stored, int(frames), modes[mode]))


# ---- the dual encoder


@torch.no_grad()
def test_dual_encoder(golden: LavilaGoldens, dual: LavilaDualEncoder, dual_stages: dict[str, torch.Tensor]) -> None:
    video, tokens = frames_first(golden.shown(DUAL, "video")), golden.shown(DUAL, "tokens")
    raw_video, raw_text = dual.get_video_features(video), dual.get_text_features(tokens)
    golden.check(DUAL, "visual_after_ln_pre", dual_stages["vision_model.pre_layernorm"])
    for layer in range(dual.config.vision_config.num_hidden_layers):
        golden.check(DUAL, f"visual_block{layer}", dual_stages[f"vision_model.blocks.{layer}"])
    seen = dual.vision_model(video)
    golden.check(DUAL, "visual_tokens", seen.last_hidden_state)
    golden.check(DUAL, "visual_cls", seen.pooler_output)
    golden.check(DUAL, "video_embed", raw_video)
    golden.check(DUAL, "text_embed", raw_text)
    golden.check(DUAL, "video_embed_short", dual.get_video_features(video[:, :-1]))
    golden.number(DUAL, "logit_scale", dual.logit_scale)
    both = dual(video, tokens)
    golden.check(DUAL, "video_embed_norm", both.video_embeds)
    golden.check(DUAL, "text_embed_norm", both.text_embeds)
    assert torch.equal(dual(input_ids=tokens).text_embeds, both.text_embeds)


@torch.no_grad()
def test_attention_implementations_agree(golden: LavilaGoldens, dual: LavilaDualEncoder) -> None:
    video = frames_first(golden.shown(DUAL, "video"))
    dual.set_attn_implementation("eager")
    try:
        golden.check(DUAL, "video_embed", dual.get_video_features(video))
    finally:
        dual.set_attn_implementation("sdpa")


def test_contrastive_loss_and_gradients(golden: LavilaGoldens, dual: LavilaDualEncoder) -> None:
    video, tokens = frames_first(golden.shown(DUAL, "video")), golden.shown(DUAL, "tokens")
    dual.zero_grad()
    out = dual(video, tokens, return_loss=True)
    out.loss.backward()
    golden.number(DUAL, "clip_loss", out.loss)
    golden.number(DUAL, "clip_acc", 100 * out.accuracy)
    # The published names of what was learned, through the key map backwards.
    weights = load_file(golden.folder / "dual_encoder_weights.safetensors")
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    parameters = dict(dual.named_parameters())
    compared = 0
    fills = plan("weights", "dual_encoder", shapes, dual.config).fills
    for key in golden.keys(DUAL, "grad."):
        published = "module." + key.removeprefix("grad.")
        mine = [fill for fill in fills if fill.sources == (published,)]
        assert mine
        parts = [parameters[fill.target].grad for fill in sorted(mine, key=lambda fill: fill.part)]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        whole = whole.mT if mine[0].transposed else whole
        golden.check(DUAL, key, whole.reshape(golden(DUAL, key).shape))
        compared += 1
    assert compared
    dual.zero_grad()


@torch.no_grad()
def test_two_temperatures(golden: LavilaGoldens, dual: LavilaDualEncoder) -> None:
    humans = golden.shown(DUAL, "gt_indicators").bool()
    embeds = golden(DUAL, "video_embed_norm"), golden(DUAL, "text_embed_norm")
    temperature = pseudo_temperature(golden, DUAL)
    out = contrastive_loss(*embeds, dual.logit_scale, is_human=humans, pseudo_logit_scale=1 / temperature)
    golden.number(DUAL, "ssl_clip_loss", out.loss)
    golden.number(DUAL, "ssl_clip_acc", 100 * out.accuracy)
    assert out.accuracy_human is not None and out.accuracy_pseudo is not None and out.humans is not None
    golden.number(DUAL, "ssl_clip_acc_gt", 100 * out.accuracy_human)
    golden.number(DUAL, "ssl_clip_acc_pseudo", 100 * out.accuracy_pseudo)
    golden.number(DUAL, "ssl_num_gt", out.humans)
    golden.number(DUAL, "ssl_num_pseudo", len(humans) - out.humans)


def pseudo_temperature(golden: LavilaGoldens, file: str) -> float:
    found = re.search(r"pseudo temperature ([\d.]+\d)", golden.entries[file, "ssl_clip_loss"]["description"])
    assert found
    return float(found[1])


@torch.no_grad()
def test_dual_encoder_of_egovlp(golden: LavilaGoldens) -> None:
    config = golden.index["configs"]["dual_encoder_hf"]
    text = {"n_heads": config["text"]["n_heads"]}
    model = converted(
        golden, "dual_encoder_hf", {"vision_config": vision_fields(config["vision"]), "text_config": text}
    )
    assert isinstance(model.config, LavilaDualEncoderConfig) and model.config.nonlinear_projection
    video = frames_first(golden.shown(DUAL_HF, "video"))
    tokens, mask = golden.shown(DUAL_HF, "tokens"), golden.shown(DUAL_HF, "attention_mask")
    golden.check(DUAL_HF, "video_embed", model.get_video_features(video))
    golden.check(DUAL_HF, "text_embed", model.get_text_features(tokens, mask))
    golden.number(DUAL_HF, "logit_scale", model.logit_scale)


# ---- losses


@torch.no_grad()
def test_losses(golden: LavilaGoldens) -> None:
    video, text = golden.shown(LOSSES, "video_embed"), golden.shown(LOSSES, "text_embed")
    scale, humans = golden.shown(LOSSES, "logit_scale")[0], golden.shown(LOSSES, "gt_indicators").bool()
    weight = golden.shown(LOSSES, "weight")
    plain = contrastive_loss(video, text, scale)
    golden.number(LOSSES, "clip_loss", plain.loss)
    golden.number(LOSSES, "clip_acc", 100 * plain.accuracy)
    pseudo = 1 / pseudo_temperature(golden, LOSSES)
    both = contrastive_loss(video, text, scale, is_human=humans, pseudo_logit_scale=pseudo)
    golden.number(LOSSES, "ssl_clip_loss", both.loss)
    similarity = video @ text.mT
    for key in golden.keys(LOSSES, "max_margin") + golden.keys(LOSSES, "adaptive_max_margin"):
        found = re.search(r"margin ([\d.]*\d)", golden.entries[LOSSES, key]["description"])
        assert found
        options = {"keep_diagonal": key.endswith("False"), "weights": weight if key.startswith("adaptive") else None}
        golden.number(LOSSES, key, max_margin_loss(similarity, float(found[1]), **options))
    logits, labels = golden.shown(LOSSES, "caption_logits").mT, golden.shown(LOSSES, "caption_labels")
    captions = caption_loss(logits, labels, ignore_index=0, as_published=True)
    golden.number(LOSSES, "caption_loss", captions.loss)
    golden.number(LOSSES, "caption_acc", 100 * captions.accuracy)
    golden.number(LOSSES, "caption_ppl", captions.perplexity)


# ---- the narrator


@torch.no_grad()
def test_narrator(golden: LavilaGoldens, narrator: LavilaNarrator, narrator_stages: dict[str, torch.Tensor]) -> None:
    video, text = frames_first(golden.shown(NARRATOR, "video")), golden.shown(NARRATOR, "text")
    pad = golden.index["configs"]["narrator"]["pad_token_id"]
    golden.check(NARRATOR, "visual_tokens", narrator.vision_model(video).last_hidden_state)
    visual_tokens = narrator.get_visual_tokens(video)
    golden.check(NARRATOR, "attention_pool_out", narrator_stages["visual_pool.to_out"])
    golden.check(NARRATOR, "image_tokens", visual_tokens)
    logits = narrator(text[:, :-1], pixel_values=video).logits
    golden.check(NARRATOR, "text_tokens_logits", logits.mT)
    blocks = "language_model.transformer.h."
    last = narrator.config.text_config.n_layer
    golden.check(NARRATOR, "decoder_hidden0", narrator_stages[f"{blocks}0:in"])
    for layer in range(1, last):
        golden.check(NARRATOR, f"decoder_hidden{layer}", narrator_stages[f"{blocks}{layer - 1}"])
    golden.check(NARRATOR, f"decoder_hidden{last}", narrator_stages["language_model.transformer.ln_f"])
    labels = text[:, 1:]
    golden.check(NARRATOR, "labels", labels)
    captions = caption_loss(logits, labels, ignore_index=pad, as_published=True)
    golden.number(NARRATOR, "caption_loss", captions.loss)
    golden.number(NARRATOR, "caption_acc", 100 * captions.accuracy)
    golden.number(NARRATOR, "caption_ppl", captions.perplexity)
    golden.check(NARRATOR, "caption_nll_per_position", captions.token_losses)
    golden.check(NARRATOR, "logits_without_vision", narrator(text[:, :-1]).logits)


def perplexity_of(logits: torch.Tensor, targets: torch.Tensor, pad: int) -> torch.Tensor:
    """Of each row: exp of the mean cost of its targets but padding."""
    losses = torch.nn.functional.cross_entropy(logits.mT, targets, ignore_index=pad, reduction="none")
    return (losses.sum(dim=1) / (targets != pad).sum(dim=1)).exp()


@torch.no_grad()
def test_greedy_narration(golden: LavilaGoldens, narrator: LavilaNarrator) -> None:
    """Our key/value cache against the published loop without one; it goes on after the end token."""
    video = frames_first(golden.shown(NARRATOR, "video"))
    config = golden.index["configs"]["narrator"]
    greedy = {"do_sample": False, "max_length": config["max_text_length"], "eos_token_id": None, "pad_token_id": 0}
    meter = EntropyMeter(config["eos_token_id"])
    ids = narrator.generate(pixel_values=video, logits_processor=[meter], **greedy)
    golden.check(NARRATOR, "greedy_ids", ids)
    golden.check(NARRATOR, "greedy_ppl", meter.scores)
    uncached = narrator.generate(pixel_values=video, use_cache=False, **greedy)
    golden.check(NARRATOR, "greedy_ids", uncached)
    # Early stopping cuts a batch where the last of its rows has ended.
    ended = (ids[:, 1:] == config["eos_token_id"]).cumsum(dim=1).bool().all(dim=0)
    stop = int(ended.int().argmax()) + 2 if bool(ended.any()) else ids.shape[1]
    early = torch.nn.functional.pad(ids[:, :stop], (0, golden(NARRATOR, "greedy_early_stop_ids").shape[1] - stop))
    golden.check(NARRATOR, "greedy_early_stop_ids", early)
    golden.check(NARRATOR, "greedy_early_stop_ppl", meter.scores)
    target, pad = golden.shown(NARRATOR, "target"), config["pad_token_id"]
    forced = narrator(target[:, :-1], pixel_values=video).logits
    golden.check(NARRATOR, "teacher_forced_ppl", perplexity_of(forced, target[:, 1:], pad))
    free = narrator(ids[:, :-1], pixel_values=video).logits
    golden.check(NARRATOR, "target_nll_on_greedy_context_ppl", perplexity_of(free, target[:, 1:], pad))
    # Rows that end are filled up with the end token in our own use.
    own = narrator.generate(pixel_values=video, do_sample=False)
    for row, free_row in zip(own.tolist(), ids.tolist(), strict=True):
        words = free_row[1:]
        end = words.index(config["eos_token_id"]) if config["eos_token_id"] in words else len(words)
        assert row[1 : end + 1] == words[:end] and set(row[end + 1 :]) <= {config["eos_token_id"]}


@torch.no_grad()
def test_scores_of_sampled_sentences(golden: LavilaGoldens, narrator: LavilaNarrator) -> None:
    visual_tokens = narrator.get_visual_tokens(frames_first(golden.shown(NARRATOR, "video")))
    end = golden.index["configs"]["narrator"]["eos_token_id"]
    for key in golden.keys(NARRATOR, "sampled_"):
        if not key.endswith("_ids"):
            continue
        ids = golden.shown(NARRATOR, key)
        logits = narrator(ids[:, :-1], visual_tokens=visual_tokens).logits  # several sentences a clip
        meter = EntropyMeter(end)
        for step in range(logits.shape[1]):
            meter(ids[:, : step + 1], logits[:, step])
        golden.check(NARRATOR, key.replace("_ids", "_ppl"), meter.scores)


def test_warpers(golden: LavilaGoldens, narrator: LavilaNarrator) -> None:
    """The library's filters, in its order, are the published ones."""
    logits = golden.shown(NARRATOR, "warper_logits")
    for key in golden.keys(NARRATOR, "warped_"):
        settings = {
            {"t": "temperature", "k": "top_k", "p": "top_p"}[part[0]]: float(part[1:])
            if part[0] != "k"
            else int(part[1:])
            for part in key.split("_")[1:]
        }
        options = {"do_sample": True, "top_k": 0, **settings}
        generation, _ = narrator._prepare_generation_config(None, **options)
        processors = narrator._get_logits_processor(generation, input_ids_seq_length=1)
        golden.check(NARRATOR, key, processors(torch.zeros(len(logits), 1, dtype=torch.long), logits.clone()))


@torch.no_grad()
def test_group_beams(golden: LavilaGoldens, narrator: LavilaNarrator) -> None:
    video = frames_first(golden.shown(NARRATOR, "video"))
    words = golden.entries[NARRATOR, "group_beam_ids"]["description"]
    found = re.search(r"(\d+) beams, (\d+) groups, (\d+) returned", words)
    assert found
    beams, groups, returned = map(int, found.groups())
    options = {
        "num_beams": beams, "num_beam_groups": groups, "num_return_sequences": returned, "diversity_penalty": 0.0,
        "pad_token_id": golden.index["configs"]["narrator"]["pad_token_id"], "length_penalty": 1.0,
        "max_length": golden.index["configs"]["narrator"]["max_text_length"], "return_dict_in_generate": True,
    }  # fmt: skip
    out = narrator.generate(pixel_values=video, **options)
    golden.check(NARRATOR, "group_beam_ids", out.sequences)
    golden.check(NARRATOR, "group_beam_scores", out.sequences_scores)
    plain = narrator.generate(pixel_values=video, use_cache=False, **options)
    assert torch.equal(plain.sequences, out.sequences)
    # The published search has no diversity: all groups find the same.
    rows = out.sequences.unflatten(0, (-1, returned)).tolist()
    assert all(len(set(map(tuple, row))) <= beams // groups for row in rows)


# ---- files to folders


@pytest.mark.parametrize("stem", ["dual_encoder", "narrator"])
def test_checkpoints_become_folders(golden: LavilaGoldens, stem: str, tmp_path: Path) -> None:
    """A published file, as it was saved with the flags of its run, through ``convert`` and ``from_pretrained``."""
    file = golden.folder / needed(golden, f"{stem}_checkpoint.pth")
    fields = dual_fields(golden) if stem == "dual_encoder" else narrator_fields(golden)
    (tmp_path / "shape.json").write_text(json.dumps(fields))
    out = convert([file], tmp_path / "model", config=tmp_path / "shape.json", say=lambda line: None)
    cls = LavilaDualEncoder if stem == "dual_encoder" else LavilaNarrator
    model, report = cls.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = converted(golden, stem, fields).state_dict()
    found = model.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in found)


def test_manifests_at_full_size(reference: Path) -> None:
    """Every published model by name and shape: every key used once or dropped for a reason, no parameter left over."""
    manifests = sorted((reference / "lavila").glob("manifest_*.json"))
    assert len(manifests) == 9
    models = {
        "dual_encoder": LavilaDualEncoder, "narrator": LavilaNarrator, "classifier": LavilaForVideoClassification
    }  # fmt: skip
    for path in manifests:
        manifest = json.loads(path.read_text())
        entries = manifest["parameters"] | manifest["buffers_in_state_dict"]
        assert len(entries) == manifest["n_state_dict_entries"]
        shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
        kind = recognise(shapes)
        assert kind is not None
        config = shape_of(kind, shapes)
        made = plan(path.name, kind, shapes, config)
        used = {source for fill in made.fills for source in fill.sources}
        dropped = {key for keys in made.dropped[0].values() for key in keys}
        assert used.isdisjoint(dropped) and used | dropped == set(shapes)
        tied = {key for group in manifest["tied_parameters"] for key in group[1:]}
        assert dropped == set(manifest["buffers_in_state_dict"]) | tied
        with torch.device("meta"):
            model = models[kind](config)
        model.tie_weights()
        assert sum(p.numel() for p in model.parameters()) == manifest["total_parameters_unique"], path.name
        filled = sum(
            torch.Size(shapes[fill.sources[0]]).numel() // fill.parts for fill in made.fills if fill.sources[0]
        )
        assert filled == manifest["total_parameters_unique"], path.name


# ---- frames and words


def test_frames_to_pixels(golden: LavilaGoldens) -> None:
    config, file = golden.index["configs"]["preprocess"], needed(golden, "preprocess_io.safetensors")
    for key in golden.keys(file):
        name, what = key.split(".")
        pixels = golden(file, f"{name}.frames")
        if what == "frames":
            golden.shown(file, key)
            continue
        size = golden(file, key).shape[-1]
        processor = LavilaImageProcessor(size, config["mean"], config["std"])
        if what.startswith("crop"):
            golden.check(file, key, processor(pixels).transpose(0, 1))
            continue
        clips, crops = map(int, what.removeprefix("multi_").split("x"))
        golden.check(file, key, processor.views(pixels, clips, crops).transpose(1, 2))


def test_published_mean() -> None:
    """The slip in the first number, which every published model was trained with, is kept."""
    assert LavilaImageProcessor().image_mean[0] == 108.3272985


@pytest.fixture(scope="module")
def words(golden: LavilaGoldens) -> dict[str, Any]:
    return json.loads((golden.folder / "tokenizers.json").read_text())


@pytest.fixture(scope="module")
def processors(words: dict[str, Any]) -> dict[str, LavilaProcessor]:
    """With the tokenizers that converted folders get."""
    frames, clip = LavilaImageProcessor(), load_text_tokenizer(TOKENIZERS / "clip_merges.txt.gz")
    gpt2 = load_gpt2_tokenizer(TOKENIZERS / "gpt2_merges.txt")
    return {
        "clip_bpe": LavilaProcessor(frames, clip, "clip", words["clip_bpe"]["context_length"]),
        "gpt2": LavilaProcessor(frames, gpt2, "gpt2", words["gpt2"]["context_length"]),
    }


def test_shipped_tokenizers_are_the_published_ones(reference: Path, processors: dict[str, LavilaProcessor]) -> None:
    folder = reference / "lavila" / "tokenizers"
    clip = load_text_tokenizer(next(folder.glob("clip_bpe*.gz")))
    assert processors["clip_bpe"].tokenizer.get_vocab() == clip.get_vocab()
    assert processors["gpt2"].tokenizer.get_vocab() == json.loads((folder / "gpt2_vocab.json").read_text())


def test_words_of_clip(words: dict[str, Any], processors: dict[str, LavilaProcessor]) -> None:
    stated, processor = words["clip_bpe"], processors["clip_bpe"]
    assert stated["cases"]
    for case in stated["cases"]:
        ids = processor.texts([case["text"]], as_published=True)["input_ids"][0].tolist()
        assert ids == case["ids"], case["text"]
        own = processor.texts([case["text"]])["input_ids"][0].tolist()
        assert own[-1] == stated["end"] and own[:-1] == case["ids"][: len(own) - 1]
    cut = stated["truncation_context8"]
    short = LavilaProcessor(processor.image_processor, processor.tokenizer, "clip", len(cut["ids"]))
    assert short.texts([cut["text"]], as_published=True)["input_ids"][0].tolist() == cut["ids"]


def test_words_of_gpt2(words: dict[str, Any], processors: dict[str, LavilaProcessor]) -> None:
    stated, processor = words["gpt2"], processors["gpt2"]
    assert processor.tokenizer.bos_token_id == stated["bos"] and processor.tokenizer.eos_token_id == stated["eos"]
    for case in stated["cases"]:
        batch = processor.texts([case["text"]], as_published=True)
        assert batch["input_ids"][0].tolist() == case["ids_add_bos"], case["text"]
        bare = [*processor.tokenizer(case["text"])["input_ids"][: stated["context_length"] - 1], stated["eos"]]
        assert case["ids_no_bos"] == bare + [stated["pad"]] * (stated["context_length"] - len(bare)), case["text"]
        own = processor.texts([case["text"], "two words"])
        learned = own["labels"][0][own["labels"][0] != -100].tolist()
        assert learned == case["ids_add_bos"][: len(learned)] and learned[-1] == stated["eos"]
    for case in words["caption_decoding"]:
        ids = torch.tensor([case["ids"]])
        assert processor.sentences(ids, as_published=True) == [case["decoded"]]


# ---- metrics


@pytest.fixture(scope="module")
def measured(golden: LavilaGoldens) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Inputs of the published metrics, and what came of them."""
    with np.load(golden.folder / "metrics.npz") as arrays:
        return dict(arrays), json.loads((golden.folder / "metrics.json").read_text())


def same(found: Any, stated: Any, golden: LavilaGoldens) -> None:
    stated_tolerance = re.search(
        r"tolerance ([\d.e-]+\d) absolute", golden.index["other_files"]["metrics.npz + metrics.json"]
    )
    assert stated_tolerance
    np.testing.assert_allclose(found, stated, rtol=0, atol=float(stated_tolerance[1]), equal_nan=True)


def test_multi_instance_retrieval(golden: LavilaGoldens, measured: tuple[dict, dict]) -> None:
    arrays, stated = measured
    for section, prefix in (("ek100_mir", "mir"), ("ek100_mir_fractional", "mir2")):
        similarity, relevancy = arrays[f"{prefix}_similarity"], arrays[f"{prefix}_relevancy"]
        found = multi_instance(similarity, relevancy)
        names = {
            "mAP_vis_to_text": found.map_video_to_text, "mAP_text_to_vis": found.map_text_to_video,
            "mAP_avg": found.map, "nDCG_vis_to_text": found.ndcg_video_to_text,
            "nDCG_text_to_vis": found.ndcg_text_to_video, "nDCG_avg": found.ndcg,
        }  # fmt: skip
        assert {name for name in stated[section] if not name.endswith("note")} == set(names)
        for name, value in names.items():
            same(value, stated[section][name], golden)
    same(ndcgs(arrays["mir2_similarity"], arrays["mir2_relevancy"]), arrays["mir2_per_query_nDCG_vis"], golden)
    same(ndcgs(arrays["mir2_similarity"].T, arrays["mir2_relevancy"].T), arrays["mir2_per_query_nDCG_txt"], golden)
    section = stated["ek100_mir_query_without_positive"]
    row = re.search(r"row (\d+) clipped to ([\d.]+)", section["note"])
    assert row and section["mAP_vis_to_text"] == "nan"
    relevancy = arrays["mir_relevancy"].copy()
    relevancy[int(row[1])] = relevancy[int(row[1])].clip(max=float(row[2].rstrip(".")))
    of_queries = average_precisions(arrays["mir_similarity"], relevancy)
    assert np.isnan(of_queries).nonzero()[0].tolist() == [int(row[1])] and np.isnan(of_queries.mean())
    # Ours leaves the query out, and says so.
    found = multi_instance(arrays["mir_similarity"], relevancy)
    same(found.map_video_to_text, np.nanmean(of_queries), golden)
    assert found.without_positive >= 1


def test_egomcq(golden: LavilaGoldens, measured: tuple[dict, dict]) -> None:
    arrays, stated = measured
    found = egomcq(arrays["mcq_scores"], arrays["mcq_answers"], arrays["mcq_types"])
    section = stated["egomcq"]
    same(100 * found["inter_video"], section["accuracy_of_type_1"], golden)
    same(100 * found["intra_video"], section["accuracy_of_type_2"], golden)
    # The published names are the wrong way round.
    same(100 * found["inter_video"], section["reference_output"]["Intra-video"], golden)
    same(100 * found["intra_video"], section["reference_output"]["Inter-video"], golden)


def test_charades(golden: LavilaGoldens, measured: tuple[dict, dict]) -> None:
    arrays, stated = measured
    found = charades_map(arrays["charades_scores"], arrays["charades_gt"])
    same(found.of_class, arrays["charades_ap"], golden)
    same(found.map, stated["charades_ego"]["mAP"], golden)
    truths = arrays["charades_gt"]
    same(found.of_class * truths.sum(axis=0) / truths.sum(), arrays["charades_weighted_ap"], golden)
    found = charades_map(arrays["charades_scores"], arrays["charades_gt_missing_class"])
    same(found.of_class, arrays["charades_ap_missing_class"], golden)
    section = stated["charades_ego_missing_class"]
    assert section["mAP"] == "nan" and np.isnan(found.of_class.mean())
    same(found.map, section["mAP_nan_ignored"], golden)


def test_classification(golden: LavilaGoldens, measured: tuple[dict, dict]) -> None:
    arrays, stated = measured
    section = stated["classification"]
    found = classification(arrays["cls_logits"], arrays["cls_targets"], as_published=True)
    np.testing.assert_array_equal(found.confusion, arrays["cls_confusion"])
    assert len(found.confusion) == section["classes_in_confusion"]
    same(100 * found.mean_class_accuracy, section["mean_class_accuracy"], golden)
    same(100 * found.top1, section["accuracy_from_confusion"], golden)
    # Top-1 and top-5 were summed in float32.
    assert np.isclose(100 * found.top1, section["top1"], rtol=1e-6, atol=0)
    assert np.isclose(100 * found.top5, section["top5"], rtol=1e-6, atol=0)
    ours = classification(arrays["cls_logits"], arrays["cls_targets"])
    assert ours.mean_class_accuracy > found.mean_class_accuracy


def test_verbs_and_nouns_of_actions(golden: LavilaGoldens, measured: tuple[dict, dict]) -> None:
    arrays, stated = measured
    probabilities = arrays["marg_action_probs"]
    for column, part in enumerate(("verb", "noun")):
        parts, wanted = arrays[f"marg_action_{part}"], arrays[f"marg_{part}_scores"]
        names = [int(name.split(":")[column]) for name in stated["ek100_cls_marginals"]["action_names"]]
        assert parts.tolist() == names
        same(marginal(probabilities, parts, wanted.shape[1], as_published=True), wanted, golden)
        ours = marginal(probabilities, parts, wanted.shape[1])
        occurs = np.isin(np.arange(wanted.shape[1]), parts)
        same(ours[:, occurs], wanted[:, occurs], golden)
        assert not ours[:, ~occurs].any()


# ---- which frames


class Drawn:
    """The random numbers that the published code drew, of the generator that it used."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.RandomState(seed)

    def randint(self, low: int, high: int) -> int:
        return int(self.generator.randint(low, high + 1))


def test_published_frames(golden: LavilaGoldens) -> None:
    stated = json.loads((golden.folder / "frame_sampling.json").read_text())
    for case in stated["get_frame_ids"]:
        assert segment_frames(case["start"], case["end"], case["num_segments"]) == case["ids"], case
    for case in stated["get_frame_ids_jitter"]:
        place = case["start"], case["end"], case["num_segments"]
        assert segments(*place) == [tuple(bounds) for bounds in case["inclusive_bounds"]], case
        drawn: Any = Drawn(case["numpy_seed"])
        assert segment_frames(*place, drawn) == case["ids"], case
    for case in stated["video_loader"]:
        assert case["error"] is None, case
        whole = case["chunk_len"] == -1

        def name(chunk: int | None, video: str = case["video"]) -> str:
            return f"{video}.mp4" if chunk is None else f"{video}.mp4/{chunk}.mp4"

        def frames_in(chunk: int | None, name: Any = name) -> int | None:
            return stated["files"].get(name(chunk), {}).get("frames")

        found = published_frames(
            case["start_second"],
            case["end_second"],
            case["clip_length"],
            frames_in,
            chunk_seconds=None if whole else case["chunk_len"],
            rate_hz=stated["files"][name(None)]["fps"] if case["fps"] == "container" else case["fps"],
        )
        assert [[name(chunk), frame] for chunk, frame in found] == case["returned"], case


# ---- the last test: nothing was left out


def test_every_indexed_tensor_was_compared(request: pytest.FixtureRequest, golden: LavilaGoldens) -> None:
    here = {item.function for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    tests = {value for name, value in globals().items() if name.startswith("test_") and callable(value)}
    if here != tests:
        pytest.skip("only some of the comparisons were run")
    assert not golden.tally.indexed - golden.tally.compared
