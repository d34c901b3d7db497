"""Parity with the published Video-LLaMA: every stage on the same small weights and inputs, every indexed tensor.

Sizes, inputs, words and tolerances come from the index ``video_llama/golden/goldens.json``. The tests run twice: on the
goldens, and on a small part of them that is kept in ``tests/parity/data``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from tests.parity.tally import Tally, golden_of
from videollm.chat.session import ChatSession
from videollm.clips import Clip, Frames, Waveform
from videollm.convert.audit import Piece, audit
from videollm.convert.video_llama import imagebind_state_dict, our_name, rules_of, state_dict, wanted
from videollm.data.captions import ALIGNMENT_REQUESTS, clean_caption
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import (
    FrameSampling,
    SoundSampling,
    headtail_indices,
    published_sound_windows,
    uniform_indices,
)
from videollm.messages import MediaPart, Message, TextPart, assistant, system, user
from videollm.models.imagebind import ImageBindConfig, ImageBindModel, ImageBindVisionConfig, ImageBindVisionModel
from videollm.models.video_llama import (
    VideoLlamaConfig,
    VideoLlamaFeatureExtractor,
    VideoLlamaForConditionalGeneration,
    VideoLlamaImageProcessor,
    VideoLlamaProcessor,
)
from videollm.models.video_llama.feature_extraction_video_llama import resample
from videollm.models.video_llama.llama_tokenizer import PLACEHOLDERS, llama_tokenizer
from videollm.training.trainer import StageTrainer

PLACEHOLDER = PLACEHOLDERS[0]


class Goldens:
    """The index, its tensors, and what was compared."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self.folder = folder
        self.index: dict[str, Any] = json.loads((folder / "goldens.json").read_text())
        self.entries = {(entry["file"], entry["key"]): entry for entry in self.index["tensors"]}
        self.files: dict[str, dict[str, torch.Tensor]] = {}
        self.tally = tally

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self.entries

    def __call__(self, file: str, key: str) -> torch.Tensor:
        if file not in self.files:
            self.files[file] = load_file(self.folder / file)
        return self.files[file][key]

    def keys(self, file: str, beginning: str = "") -> list[str]:
        return [key for name, key in self.entries if name == file and key.startswith(beginning)]

    def check(self, file: str, key: str, found: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Compare with the stored tensor at the stated tolerance; ``where``: only there is the reference meaningful."""
        entry = self.entries[file, key]
        stored = self(file, key)
        found = found.detach()
        if re.search(r"first \d+ rows", entry["what"]):
            found = found[: len(stored)]
        assert found.shape == stored.shape, f"{file} {key}: {tuple(found.shape)} is not {tuple(stored.shape)}"
        if where is not None:
            found, stored = found[where], stored[where]
        if entry.get("compare") == "exact":
            assert torch.equal(found.to(stored.dtype), stored), (
                f"{file} {key}: {found.tolist()} is not {stored.tolist()}"
            )
        else:
            torch.testing.assert_close(
                found, stored, atol=entry["atol"], rtol=entry["rtol"], msg=lambda text: f"{file} {key}: {text}"
            )
        self.tally.compared.add((file, key))


golden = golden_of("video_llama", Goldens)


def small_config(index: dict[str, Any]) -> VideoLlamaConfig:
    config = index["config"]
    derived, vit, bert, llama, imagebind = (config[key] for key in ("derived", "vit", "bert", "llama", "ib"))
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    qformer = {key: bert[key] for key in shape}
    qformer |= {"layer_norm_eps": derived["bert_ln_eps"], "hidden_dropout_prob": derived["bert_dropout"]}
    clip = qformer | {
        "num_hidden_layers": derived["video_and_audio_qformer_layers"],
        "cross_attention_frequency": derived["video_and_audio_qformer_cross_attention_freq"],
    }
    special = {f"{name}_token_id": derived["special_ids"][name] for name in ("bos", "eos")}
    special["pad_token_id"] = derived["special_ids"]["unk_and_pad"]
    return VideoLlamaConfig(
        vision_config={
            "hidden_size": vit["embed_dim"],
            "intermediate_size": derived["vit_mlp_hidden"],
            "num_hidden_layers": vit["depth"],
            "num_attention_heads": vit["num_heads"],
            "image_size": vit["img_size"],
            "patch_size": vit["patch_size"],
            "layer_norm_eps": derived["vit_ln_eps"],
        },
        qformer_config=qformer | {"cross_attention_frequency": derived["qformer_cross_attention_freq"]},
        video_qformer_config=clip,
        audio_qformer_config=clip,
        audio_config={
            "hidden_size": imagebind["audio_embed_dim"],
            "intermediate_size": 4 * imagebind["audio_embed_dim"],
            "num_hidden_layers": imagebind["audio_num_blocks"],
            "num_attention_heads": imagebind["audio_num_heads"],
            "patch_size": [imagebind["audio_kernel_size"]] * 2,
            "patch_stride": [imagebind["audio_stride"]] * 2,
            "projection_dim": imagebind["out_embed_dim"],
            "layer_norm_eps": derived["imagebind_block_ln_eps"],
            "stem_layer_norm_eps": derived["imagebind_audio_stem_ln_eps"],
            "logit_scale": derived["imagebind_audio_logit_scale"],
            "drop_path_rate": imagebind["audio_drop_path"],
        },
        text_config={"model_type": "llama", "rope_theta": derived["rope_theta"], **special, **llama},
        num_query_tokens=config["nq"],
        num_video_query_tokens=config["nvq"],
        num_audio_query_tokens=config["naq"],
        vision_output_layer_norm_eps=derived["ln_vision_eps"],
        max_frame_positions=derived["max_frame_pos"],
        max_audio_positions=derived["audio_positions"],
        video_token_id=derived["image_placeholder_id"],
        audio_token_id=derived["audio_placeholder_id"],
        **special,
    )


@pytest.fixture(scope="module")
def weights(golden: Goldens) -> dict[str, torch.Tensor]:
    return load_file(golden.folder / "weights.safetensors")


@pytest.fixture(scope="module")
def model(golden: Goldens, weights: dict[str, torch.Tensor]) -> VideoLlamaForConditionalGeneration:
    config = small_config(golden.index)
    model = VideoLlamaForConditionalGeneration(config).eval()
    parts = golden.index.get("kept_parts")
    if parts is None:
        model.load_state_dict(state_dict(weights, config=config), strict=True)
        return model
    # Of the kept part every key is used, too, and every parameter of these parts filled.
    names = {name: shape for name, shape in wanted(config).items() if name.startswith(tuple(parts))}
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    fills = audit([Piece("weights", rules_of("whole", config), shapes)], names).fills
    model.load_state_dict({fill.target: fill.make(weights.__getitem__) for fill in fills}, strict=False)
    return model


@pytest.fixture(scope="module")
def processors(golden: Goldens) -> dict[str, VideoLlamaProcessor]:
    """One for each published prompt format, by the name that the index has for it."""
    config = small_config(golden.index)
    tokenizer = llama_tokenizer(golden.folder / "tokenizer.model")
    assert tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS)) == [config.video_token_id, config.audio_token_id]
    return {
        name: VideoLlamaProcessor.for_model(config, tokenizer, template=template, as_published=True)
        for name, template in (("vicuna", "vicuna_v0"), ("llama_v2", "llama_2_chat"))
    }


@pytest.fixture
def stages(model: VideoLlamaForConditionalGeneration) -> Iterator[dict[str, torch.Tensor]]:
    """What every module of the model was given (``name:in``) and returned in the forward passes of a test."""
    seen: dict[str, torch.Tensor] = {}
    yield from watch(model, seen)


def watch(model: torch.nn.Module, seen: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    def keep(name: str):
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if inputs and isinstance(inputs[0], torch.Tensor):
                seen[f"{name}:in"] = inputs[0].detach()
            if isinstance(output, torch.Tensor):
                seen[name] = output.detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    yield seen
    for handle in handles:
        handle.remove()


# ---- the encoders


@torch.no_grad()
def test_video_branch(whole: Goldens, model: VideoLlamaForConditionalGeneration, stages: dict) -> None:
    file = "vl.safetensors"
    video = whole(file, "image").transpose(1, 2)
    out = model.get_video_features(video)
    # What reached the encoder, frame by frame, is what the index calls the input.
    shown = stages["vision_model.embeddings.patch_embedding:in"]
    whole.check(file, "image", shown.unflatten(0, video.shape[:2]).transpose(1, 2))
    whole.check(file, "patch_embed", stages["vision_model.embeddings.patch_embedding"].flatten(2).mT)
    for layer in range(model.config.vision_config.num_hidden_layers):
        whole.check(file, f"vit_block_{layer}", stages[f"vision_model.encoder.layers.{layer}"])
    whole.check(file, "ln_vision", model.vision_model(shown).last_hidden_state)
    for layer in range(model.config.qformer_config.num_hidden_layers):
        whole.check(file, f"qformer_layer_{layer}", stages[f"qformer.encoder.layer.{layer}"])
    whole.check(file, "qformer_embeddings", stages["qformer.layernorm"])
    whole.check(file, "qformer_out", model.encode_frames(shown))
    whole.check(file, "llama_proj_out", out)
    still = whole(file, "single_image").transpose(1, 2)
    whole.check(file, "single_image_llama_proj_out", model.get_video_features(still))
    shown = stages["vision_model.embeddings.patch_embedding:in"]
    whole.check(file, "single_image", shown.unflatten(0, still.shape[:2]).transpose(1, 2))


@torch.no_grad()
def test_video_qformer(golden: Goldens, model: VideoLlamaForConditionalGeneration, stages: dict) -> None:
    file, frames = "vl.safetensors", model.config.max_frame_positions
    states = golden(file, "qformer_out")
    clips = len(golden(file, "llama_proj_out"))
    states = states.unflatten(0, (clips, -1))
    assert states.shape[1] <= frames
    out = model.get_video_features(frame_states=states)
    positions = model.frame_position_embedding.weight[: states.shape[1]]
    golden.check(file, "frame_hidden", (states + positions[None, :, None]).flatten(1, 2))
    golden.check(file, "video_qformer_embeddings", stages["video_qformer.layernorm"])
    last = model.config.video_qformer_config.num_hidden_layers - 1
    for layer in range(last + 1):
        golden.check(file, f"video_qformer_layer_{layer}", stages[f"video_qformer.encoder.layer.{layer}"])
    golden.check(file, "video_qformer_out", stages[f"video_qformer.encoder.layer.{last}"])
    golden.check(file, "llama_proj_out", out)


def test_norms_of_the_vision_encoder(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    derived = golden.index["config"]["derived"]
    assert model.vision_model.post_layernorm.eps == derived["ln_vision_eps"]
    assert model.vision_model.encoder.layers[0].layer_norm1.eps == derived["vit_ln_eps"]


@torch.no_grad()
def test_audio_branch(whole: Goldens, model: VideoLlamaForConditionalGeneration, stages: dict) -> None:
    file = "audio.safetensors"
    mel = whole(file, "mel")
    out = model.get_audio_features(mel)
    whole.check(file, "mel", stages["audio_model:in"].unflatten(0, mel.shape[:2]))
    stem = stages["audio_model.stem_layernorm"]
    whole.check(file, "stem", stem)
    whole.check(file, "tokens", stages["audio_model.blocks.0:in"])
    for layer in range(model.config.audio_config.num_hidden_layers):
        whole.check(file, f"trunk_block_{layer}", stages[f"audio_model.blocks.{layer}"])
    whole.check(file, "head_feature", stages["audio_model.head_layernorm"].unflatten(0, mel.shape[:2]))
    states = stages["audio_model"].unflatten(0, mel.shape[:2])
    whole.check(file, "imagebind_out", states)
    whole.check(file, "audio_qformer_input", states + model.audio_position_embedding.weight[: states.shape[1]])
    whole.check(file, "audio_llama_proj_out", out)
    whole.check(file, "audio_qformer_embeddings", stages["audio_qformer.layernorm"])
    last = model.config.audio_qformer_config.num_hidden_layers - 1
    for layer in range(last + 1):
        whole.check(file, f"audio_qformer_layer_{layer}", stages[f"audio_qformer.encoder.layer.{layer}"])
    whole.check(file, "audio_qformer_out", stages[f"audio_qformer.encoder.layer.{last}"])


@pytest.fixture(scope="module")
def stand_in(whole: Goldens, weights: dict[str, torch.Tensor]) -> ImageBindVisionModel:
    """ImageBind's vision trunk, which saw in the place of the ear while the audio branch was trained."""
    sizes = whole.index["config"]["ib"]
    config = ImageBindConfig(
        vision_config=ImageBindVisionConfig(
            hidden_size=sizes["vision_embed_dim"],
            intermediate_size=4 * sizes["vision_embed_dim"],
            num_hidden_layers=sizes["vision_num_blocks"],
            num_attention_heads=sizes["vision_num_heads"],
            image_size=whole("imagebind_vision.safetensors", "image").shape[-1],
            patch_size=sizes["kernel_size"][1],
            num_frames=sizes["video_frames"],
            projection_dim=sizes["out_embed_dim"],
            layer_norm_eps=whole.index["config"]["derived"]["imagebind_block_ln_eps"],
        )
    )
    imagebind = ImageBindModel(config)
    imagebind.load_state_dict(imagebind_state_dict(weights, config), strict=True)
    trunk = imagebind.vision_model
    assert trunk is not None
    return trunk.eval().requires_grad_(False)


@torch.no_grad()
def test_imagebind_vision_trunk(
    whole: Goldens, model: VideoLlamaForConditionalGeneration, stand_in: ImageBindVisionModel
) -> None:
    file = "imagebind_vision.safetensors"
    image = whole(file, "image")
    for seen in watch(stand_in, {}):
        states = stand_in(image.flatten(0, 1)).unflatten(0, image.shape[:2])
        repeated = seen["patch_embedding:in"]  # (B T, 3, copies, H, W): each frame, shown as often as a patch is long
        assert repeated.shape[2] == whole.index["config"]["ib"]["video_frames"]
        for copy in repeated.unbind(2):
            whole.check(file, "image", copy.unflatten(0, image.shape[:2]))
        whole.check(file, "tokens", seen["pre_layernorm:in"])
        for layer in range(stand_in.config.num_hidden_layers):
            whole.check(file, f"trunk_block_{layer}", seen[f"blocks.{layer}"])
    whole.check(file, "imagebind_out", states)
    whole.check(file, "audio_llama_proj_out", model.get_audio_features(segment_states=states))


# ---- training: prompts, masked targets, losses, gradients


def training_files(index: dict[str, Any]) -> list[str]:
    return sorted({entry["file"] for entry in index["tensors"] if entry["key"] == "labels"})


def clip_at(seconds: Sequence[float], kind: str = "video", sound: bool = False) -> Clip:
    """A clip of which only the seconds matter: its pixels are replaced by those of the index."""
    frames = Frames(np.zeros((len(seconds), 2, 2, 3), np.uint8), np.array(seconds, np.float64), 0.0)
    heard = (Waveform(np.zeros((1, 1), np.float32), 16000),) if sound else None
    return Clip("clip", kind, "", 0.0, frames, heard, ((0.0, 1.0),) if sound else ())


def seconds_of(sentence: str | None) -> list[float]:
    """The seconds in a time sentence; one frame at 0 s where there is none."""
    if sentence is None:
        return [0.0]
    return [float(number) for number in sentence.split("sampled at ")[1].split(" seconds")[0].split(", ")]


def dialogue(turns: list[dict[str, str]], clip: Clip) -> list[Message]:
    """An annotation of the published data sets as messages."""
    media = MediaPart("clip", "image" if clip.kind == "image" else "video")
    if "q" in turns[0]:
        pairs = [
            (user(turn["q"], [media] if not place else []), assistant(turn["a"])) for place, turn in enumerate(turns)
        ]
        return [message for pair in pairs for message in pair]
    messages = []
    for turn in turns:
        if turn["from"] == "gpt":
            messages.append(assistant(turn["value"]))
            continue
        pieces = re.split("(<image>)", turn["value"])
        parts = [media if piece == "<image>" else TextPart(piece) for piece in pieces if piece]
        messages.append(Message("user", tuple(parts)))
    return messages


class TrainingCase:
    """What a golden file of training was made from: conversations, prompt format, branch and pixels."""

    def __init__(self, golden: Goldens, file: str) -> None:
        index, stem = golden.index, file.removesuffix(".safetensors")
        self.file = file
        self.style = "llama_v2" if stem.endswith("llama_v2") else "vicuna"
        self.branch = "audio" if stem.startswith("train_al") else "video"
        self.limits: dict[str, int] = {}
        texts, rows = index["texts"], len(golden(file, "labels"))
        facts = texts.get(stem) or texts.get(stem.removeprefix("train_vl_")) or texts["stage1"]
        self.facts = facts
        self.form = "dialogue" if "annotations" in facts else "caption"
        self.is_image = "image" in stem or "alignment_prompt" in facts
        self.clip = clip_at(seconds_of(facts.get("time_sentence")), "image" if self.is_image else "video")
        media = MediaPart("clip", "image" if self.is_image else "video")
        if self.form == "dialogue":
            self.conversations = [dialogue(turns, self.clip) for turns in facts["annotations"]]
        else:
            request = facts.get("alignment_prompt", "")
            request = request.removeprefix(f"<Image>{PLACEHOLDER}</Image> ")
            captions = facts.get("captions") or facts["processed_captions"]
            self.conversations = [[user(request, [media]), assistant(caption)] for caption in captions[:rows]]
            self.limits["max_learned_tokens"] = facts["max_txt_len"]

    def batch(self, processor: VideoLlamaProcessor) -> dict[str, torch.Tensor]:
        prompts = [
            processor.render_for_training(messages, {"clip": self.clip}, self.form, self.branch, **self.limits)
            for messages in self.conversations
        ]
        ids, labels = [prompt.input_ids for prompt in prompts], [prompt.labels for prompt in prompts]
        return processor.collate_prompts(ids, padding="right", labels=labels)

    def features(
        self, golden: Goldens, model: VideoLlamaForConditionalGeneration, stand_in: ImageBindVisionModel
    ) -> dict[str, torch.Tensor]:
        """The soft tokens, and the check of the pixels that reached the encoder."""
        named = re.search(r"(\w+\.safetensors)/(\w+)", golden.entries[self.file, "inputs_embeds"]["what"])
        file, key = (named[1], named[2]) if named else (self.file, "image")
        stored = golden(file, key)
        pixels = stored.unsqueeze(1) if stored.ndim == 4 else stored.transpose(1, 2)
        seen: dict[str, torch.Tensor] = {}
        encoder = model if self.branch == "video" else stand_in
        for _ in watch(encoder, seen):
            if self.branch == "video":
                out = {"video_features": model.get_video_features(pixels)}
                shown = seen["vision_model.embeddings.patch_embedding:in"]
            else:
                states = stand_in(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
                out = {"audio_features": model.get_audio_features(segment_states=states)}
                shown = seen["patch_embedding:in"][:, :, 0]
        shown = shown.unflatten(0, pixels.shape[:2])
        golden.check(file, key, shown[:, 0] if stored.ndim == 4 else shown.transpose(1, 2))
        return out


def test_masked_targets(golden: Goldens, processors: dict[str, VideoLlamaProcessor]) -> None:
    """Ids, masks and labels of both stages of both branches in both prompt formats, from messages alone."""
    files = training_files(golden.index)
    assert files
    config = small_config(golden.index)
    for file in files:
        case = TrainingCase(golden, file)
        processor = processors[case.style]
        batch = case.batch(processor)
        golden.check(file, "labels", batch["labels"])
        golden.check(file, "attention_mask", batch["attention_mask"])
        # The published prompts write one placeholder for both branches.
        ids = batch["input_ids"].masked_fill(batch["input_ids"] == config.audio_token_id, config.video_token_id)
        if (file, "input_ids") in golden:
            golden.check(file, "input_ids", ids)
        if "prefix_ids" in case.facts:
            for row, target in zip(ids.tolist(), case.facts["target_ids"], strict=True):
                media = [config.video_token_id] * config.num_video_query_tokens
                prompt = [config.bos_token_id, *case.facts["prefix_ids"], *media, *case.facts["suffix_ids"]]
                assert row[: len(prompt) + len(target)] == prompt + target
        for row, target in zip(batch["labels"].tolist(), case.facts.get("token_ids", ()), strict=False):
            unknown = golden.index["config"]["derived"]["special_ids"]["unk_and_pad"]
            assert [token for token in row if token != -100] == [token for token in target if token != unknown]


def test_words_of_dialogues(golden: Goldens, processors: dict[str, VideoLlamaProcessor]) -> None:
    """What the user says in training, letter by letter."""
    count = 0
    for file in training_files(golden.index):
        case = TrainingCase(golden, file)
        for messages, (source, *_) in zip(
            case.conversations, case.facts.get("sources_after_templating", ()), strict=False
        ):
            text = processors[case.style].prompt_text(messages, {"clip": case.clip}, False, case.form, case.branch)
            for turn in source:
                said = turn["value"].replace(PLACEHOLDER * case.facts["num_placeholder_tokens"], PLACEHOLDER)
                assert said in text
                count += 1
    assert count


def test_losses_and_gradients(
    whole: Goldens,
    model: VideoLlamaForConditionalGeneration,
    stand_in: ImageBindVisionModel,
    processors: dict[str, VideoLlamaProcessor],
) -> None:
    """From messages and pixels through the whole model: embeddings, logits, loss, and gradients of what is trained."""
    for file in training_files(whole.index):
        case = TrainingCase(whole, file)
        batch = case.batch(processors[case.style])
        model.zero_grad()
        features = case.features(whole, model, stand_in)
        whole.check(file, "inputs_embeds", model.embed(batch["input_ids"], **features))
        out = model(**batch, **features)
        # At padding the reference is not meaningful.
        whole.check(file, "logits", out.logits, where=batch["attention_mask"].bool())
        whole.check(file, "loss", out.loss.reshape(1))
        gradients = whole.keys(file, "grad.")
        if gradients:
            out.loss.backward()
        found = dict(model.named_parameters())
        for key in gradients:
            name = our_name(key.removeprefix("grad."), model.config)
            assert name is not None and found[name].grad is not None, key
            whole.check(file, key, found[name].grad)
        steps = whole.keys(file, "adamw_step.")
        after = stepped(model, whole.entries[file, steps[0]]["what"]) if steps else {}
        for key in steps:
            whole.check(file, key, after[our_name(key.removeprefix("adamw_step."), model.config)])
    model.zero_grad()


def stepped(model: VideoLlamaForConditionalGeneration, what: str) -> dict[str | None, torch.Tensor]:
    """Copies of the parameters after one step of the trainer's optimiser, with the settings that the index states."""
    number = r"([\d.]+(?:e-?\d+)?)"
    stated = re.search(rf"lr {number}, betas {number}/{number}, eps {number}, weight decay {number}", what)
    assert stated, what
    lr, beta_1, beta_2, eps, decay = (float(value) for value in stated.groups())
    arguments = TrainingArguments(
        learning_rate=lr, adam_beta1=beta_1, adam_beta2=beta_2, adam_epsilon=eps, use_cpu=True, report_to="none"
    )  # fmt: skip
    made, settings = StageTrainer.get_optimizer_cls_and_kwargs(arguments)
    decayed = set(StageTrainer.get_decay_parameter_names(None, model))
    copies: dict[str | None, torch.Tensor] = {}
    groups: dict[float, list[torch.Tensor]] = {decay: [], 0.0: []}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            copies[name] = torch.nn.Parameter(parameter.detach().clone())
            copies[name].grad = parameter.grad.clone()
            groups[decay if name in decayed else 0.0].append(copies[name])
    made([{"params": found, "weight_decay": size} for size, found in groups.items()], **settings).step()
    return copies


def test_decoder_on_stored_embeddings(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    files = [file for file in training_files(golden.index) if (file, "logits") in golden]
    assert files
    for file in files:
        mask = golden(file, "attention_mask")
        with torch.no_grad():
            out = model(inputs_embeds=golden(file, "inputs_embeds"), attention_mask=mask, labels=golden(file, "labels"))
        golden.check(file, "logits", out.logits, where=mask.bool())
        golden.check(file, "loss", out.loss.reshape(1))


# ---- chat: prompts, prefixes, embeddings and greedy answers over two turns


def flow_of(name: str) -> tuple[str, str]:
    """What is shown and in which prompt format: ``video_audio_llama_v2`` is (video_audio, llama_v2)."""
    style = "llama_v2" if name.endswith("llama_v2") else "vicuna"
    return name.removesuffix(f"_{style}"), style


def conversation(name: str, turns: list[dict[str, Any]], upto: int) -> list[Message]:
    """The messages before the answer of a turn. Earlier answers are tokenised again from their text, as published."""
    shown = MediaPart("clip", "image" if flow_of(name)[0] == "image" else "video")
    messages: list[Message] = []
    for place, turn in enumerate(turns[: upto + 1]):
        messages.append(user(turn["question"], [shown] if place == 0 else []))
        if place < upto:
            messages.append(assistant(turn["text"]))
    return messages


def test_prompts(golden: Goldens, processors: dict[str, VideoLlamaProcessor]) -> None:
    """Every prompt letter by letter, and its ids stretch by stretch."""
    assert golden.index["chat"]
    generation = golden.index["chat_generation"]
    for name, turns in golden.index["chat"].items():
        shown, style = flow_of(name)
        processor = processors[style]
        seconds = [0.0] if shown == "image" else seconds_of(generation["time_sentence"])
        clip = clip_at(seconds, "image" if shown == "image" else "video", sound=shown == "video_audio")
        opening = system(generation["system_prompts"][shown])
        for place, turn in enumerate(turns):
            messages = conversation(name, turns, place)
            # The published system text is also what the template says of itself.
            for known in ([opening, *messages], messages):
                text = processor.prompt_text(known, {"clip": clip})
                assert text == processor.tokenizer.bos_token + turn["prompt"]
                prompt = processor.render(known, {"clip": clip})
                segments, start = [], 0
                for span in prompt.media:
                    segments.append(prompt.input_ids[start : span.start])
                    start = span.start + span.length
                assert [*segments, prompt.input_ids[start:]] == turn["segment_token_ids"]


def shown_clip(golden: Goldens, processor: VideoLlamaProcessor, find: Callable[[str], Path], shown: str) -> Clip:
    """The media file of a flow, read as the converted model reads it."""
    generation = golden.index["chat_generation"]
    if shown == "image":
        return read_clip(find(generation["image"]), name="clip")
    path = find(generation["video"])
    sound = SoundSampling(**processor.sound_sampling) if shown == "video_audio" else None
    frames = FrameSampling(**{**processor.frame_sampling, "frames": generation["n_frames"]})
    clip = read_clip(path, frames=frames, sound=sound, name="clip")
    return clip if sound is None else replace(clip, windows_seconds=exact_windows(clip))


def exact_windows(clip: Clip, rate_hz: int = 16000) -> tuple[tuple[float, float], ...]:
    """The published windows, which are cut after resampling, whose length is rounded up to a whole sample.

    One sample decides about the quiet bins, so that a comparison needs exactly these.
    """
    assert clip.waveforms is not None
    (waveform,) = clip.waveforms
    samples = resample(torch.from_numpy(waveform.samples), waveform.rate_hz, rate_hz, precision=torch.float32)
    return tuple(published_sound_windows(samples.shape[1] / rate_hz))


@torch.no_grad()
def test_chat_media(
    whole: Goldens, processors: dict[str, VideoLlamaProcessor], golden_media: Callable[[str], Path]
) -> None:
    """From media files to what the encoders take: frames to the bit, mel images, a still image."""
    file, processor = "chat.safetensors", processors["vicuna"]
    clip = shown_clip(whole, processor, golden_media, "video_audio")
    assert clip.frames is not None and clip.waveforms is not None
    whole.check(file, "frames_uint8", torch.from_numpy(clip.frames.pixels).permute(3, 0, 1, 2))
    whole.check(file, "frames_normalised", processor.process_frames(clip.frames)[0].transpose(0, 1))
    whole.check(file, "mel", processor.process_sound(clip.waveforms, clip.windows_seconds)[0][None])
    picture = shown_clip(whole, processor, golden_media, "image")
    assert picture.frames is not None
    whole.check(file, "image_normalised", processor.process_frames(picture.frames)[0][0])


@torch.no_grad()
def test_chat_from_files_to_answers(
    whole: Goldens,
    model: VideoLlamaForConditionalGeneration,
    processors: dict[str, VideoLlamaProcessor],
    golden_media: Callable[[str], Path],
) -> None:
    file = "chat.safetensors"
    for name, turns in whole.index["chat"].items():
        shown, style = flow_of(name)
        processor = processors[style]
        clip = shown_clip(whole, processor, golden_media, shown)
        for place, turn in enumerate(turns):
            messages = conversation(name, turns, place)
            assert processor.prompt_text(messages, {"clip": clip}).endswith(turn["prompt"])
            batch = processor(messages, {"clip": clip})
            out = model(**batch)
            features = {"video": out.video_features, "audio": out.audio_features}
            for number, span in enumerate(processor.render(messages, {"clip": clip}).media):
                whole.check(file, f"{name}.prefix_{number}", features[span.kind])
            embeds = model.embed(batch["input_ids"], features["video"], features["audio"])
            whole.check(file, f"{name}.turn{place}.inputs_embeds", embeds)
            whole.check(file, f"{name}.turn{place}.first_logits", out.logits[0, -1])
            session = ChatSession(model, processor)
            session.add(clip)
            if place:
                session.messages = messages[:-1]
            answer = session.ask(turn["question"], max_new_tokens=whole.index["chat_generation"]["max_new_tokens"])
            check_answer(whole, f"{name}.turn{place}", turn, answer.token_ids, answer.finish, processor, model)
            if "\ufffd" not in answer.text:  # of bytes that are no text, tokenizers show other numbers of marks
                assert answer.text == turn["text"]


def check_answer(
    golden: Goldens,
    key: str,
    turn: dict[str, Any],
    token_ids: Sequence[int],
    finish: str,
    processor: VideoLlamaProcessor,
    model: VideoLlamaForConditionalGeneration,
) -> None:
    """Compare generated ids; the index keeps the token that ended an answer as its last."""
    assert (finish == "end") == turn["hit_stop"], key
    wanted_ids = golden("chat.safetensors", f"{key}.generated_ids").tolist()
    assert wanted_ids == turn["generated_ids"]
    stop: list[int] = []
    if turn["hit_stop"]:
        stop = wanted_ids[len(token_ids) :]
        assert tuple(stop) in [*processor.stop_sequences, (model.config.eos_token_id,)]
    golden.check("chat.safetensors", f"{key}.generated_ids", torch.tensor([*token_ids, *stop]))


@torch.no_grad()
def test_chat_from_stored_prefixes(
    golden: Goldens, model: VideoLlamaForConditionalGeneration, processors: dict[str, VideoLlamaProcessor]
) -> None:
    """Prompt and soft tokens to embeddings, logits and greedy ids, with the library's own `generate`."""
    file, count = "chat.safetensors", 0
    limit = golden.index["chat_generation"]["max_new_tokens"]
    for name, turns in golden.index["chat"].items():
        shown, style = flow_of(name)
        processor = processors[style]
        seconds = [0.0] if shown == "image" else seconds_of(golden.index["chat_generation"]["time_sentence"])
        clip = clip_at(seconds, "image" if shown == "image" else "video", sound=shown == "video_audio")
        for place in range(len(turns)):
            prompt = processor.render(conversation(name, turns, place), {"clip": clip})
            features = {
                f"{span.kind}_features": golden(file, f"{name}.prefix_{number}")
                for number, span in enumerate(prompt.media)
            }
            ids = torch.tensor([prompt.input_ids])
            golden.check(file, f"{name}.turn{place}.inputs_embeds", model.embed(ids, **features))
            golden.check(file, f"{name}.turn{place}.first_logits", model(ids, **features).logits[0, -1])
            stops = [list(sequence) for sequence in processor.stop_sequences]
            single = [sequence[0] for sequence in stops if len(sequence) == 1]
            generated = model.generate(
                ids,
                **features,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=[model.config.eos_token_id, *single],
            )
            golden.check(file, f"{name}.turn{place}.generated_ids", generated[0, ids.shape[1] :])
            count += 1
    assert count


# ---- preprocessing, sampling, captions, tokenisation: the index is ``preprocess.json``


@pytest.fixture(scope="module")
def preprocess(golden: Goldens) -> dict[str, Any]:
    return json.loads((golden.folder / "preprocess.json").read_text())


def arrays(golden: Goldens, section: dict[str, Any]) -> dict[str, torch.Tensor]:
    with np.load(golden.folder / section["npz"]) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def test_frame_sampling(preprocess: dict[str, Any]) -> None:
    cases = preprocess["sampling"]
    assert cases["uniform"] and cases["headtail"] and cases["uniform_float_drift_cases"]
    for case in cases["uniform"]:
        assert uniform_indices(case["vlen"], case["n_frms"]) == case["indices"], case
    for case in cases["uniform_float_drift_cases"]:
        # Where the published floats drift into one index too many, ours stops in range.
        assert uniform_indices(case["vlen"], case["n_frms"]) == case["indices"][: case["n_frms"]], case
    for case in cases["headtail"]:
        if case["indices"]:
            rng = random.Random(case["python_random_seed"])
            assert headtail_indices(case["vlen"], case["n_frms"], rng) == case["indices"], case


def test_time_sentences(
    whole: Goldens,
    preprocess: dict[str, Any],
    processors: dict[str, VideoLlamaProcessor],
    golden_media: Callable[[str], Path],
) -> None:
    """Sentences from seconds. From files, too, except where the published index / average rate is not the truth."""
    cases = preprocess["sampling"]["time_sentences"]
    even = 0
    for case in cases:
        published_seconds = [index / case["avg_fps"] for index in case["indices"]]
        sampling = FrameSampling("uniform", frames=case["n_frms"], squash_px=8)
        clip = replace(read_clip(golden_media(case["file"]), frames=sampling), waveforms=None, windows_seconds=())
        assert clip.frames is not None
        shown = [clip_at(published_seconds)]
        if np.allclose(clip.frames.seconds, published_seconds, atol=1e-3):
            shown.append(clip)
            even += 1
        for one in shown:
            text = processors["vicuna"].prompt_text([user("?", [MediaPart("clip")])], {"clip": one})
            assert case["sentence"] in text, case["file"]
    assert even


def test_captions(golden: Goldens, preprocess: dict[str, Any]) -> None:
    assert preprocess["caption_normaliser"]
    for case in preprocess["caption_normaliser"]:
        assert clean_caption(case["input"], as_published=True) == case["output"]
    facts = golden.index["texts"]["stage1"]
    assert [clean_caption(text, as_published=True) for text in facts["raw_captions"]] == facts["processed_captions"]
    prompts = [facts["alignment_prompt"] for facts in golden.index["texts"].values() if "alignment_prompt" in facts]
    assert prompts
    for prompt in prompts:
        assert prompt in [f"<Image>{PLACEHOLDER}</Image> {request}" for request in ALIGNMENT_REQUESTS]


def test_tokenisation(preprocess: dict[str, Any], processors: dict[str, VideoLlamaProcessor]) -> None:
    tokenizer = processors["vicuna"].tokenizer
    assert preprocess["tokenisation"]
    for case in preprocess["tokenisation"]:
        assert tokenizer(case["text"])["input_ids"] == case["with_bos"], case["text"]
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["no_special"], case["text"]
    for case in preprocess["decode"]:
        # The published tokenizer put blanks before special tokens, which are cut away before an answer is shown.
        assert tokenizer.decode(case["ids"]).replace(" ", "") == case["text"].replace(" ", "")


def test_sound_to_mel(whole: Goldens, preprocess: dict[str, Any], golden_media: Callable[[str], Path]) -> None:
    section = preprocess["audio"]
    stored, extractor = arrays(whole, section), VideoLlamaFeatureExtractor(as_published=True)
    assert section["files"]
    for name, facts in section["files"].items():
        clip = read_clip(golden_media(name), sound=SoundSampling("published"))
        (waveform,) = clip.waveforms or ()
        assert waveform.rate_hz == facts["native_rate"] and len(waveform.samples) == facts["channels"]
        np.testing.assert_allclose(clip.windows_seconds, facts["clip_start_end_s"], atol=1e-4)
        samples = torch.from_numpy(waveform.samples)
        resampled = resample(samples, waveform.rate_hz, extractor.sampling_rate, precision=torch.float32)
        assert resampled.shape[1] == facts["resampled_samples"]
        key = name.replace(".", "_")
        if f"{key}__resampled_16k" in stored:
            torch.testing.assert_close(resampled, stored[f"{key}__resampled_16k"], atol=1e-6, rtol=0)
        windows = exact_windows(clip, extractor.sampling_rate)
        np.testing.assert_allclose(windows, facts["clip_start_end_s"], atol=1e-9)
        mel = extractor(clip.waveforms or (), windows)
        assert [1, *mel.shape] == facts["mel_shape"]
        stated = section["tolerance"][name.rsplit(".", 1)[-1]]
        found = re.search(r"atol ([\d.e-]+\d)", stated)
        assert found, stated
        tolerance = float(found[1])
        torch.testing.assert_close(mel[None], stored[f"{key}__mel"], atol=tolerance, rtol=0)
        padding = mel[..., facts["fbank_frames_before_pad"] :]
        torch.testing.assert_close(padding, torch.full_like(padding, facts["pad_value_after_normalisation"]))
        if name == whole.index["config"]["wav"]:
            torch.testing.assert_close(mel, whole("audio.safetensors", "mel")[0], atol=tolerance, rtol=0)


def test_frames_to_pixels(whole: Goldens, preprocess: dict[str, Any], golden_media: Callable[[str], Path]) -> None:
    section = preprocess["frames"]
    stored = arrays(whole, section)
    native, squashed = stored["native_uint8"].numpy(), stored["decord_resized_uint8"]
    published = VideoLlamaImageProcessor(size=squashed.shape[0], as_published=True)
    by_frame = squashed.permute(2, 0, 1)[None]
    exact = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(published.normalise(by_frame)[0], stored["eval_normalised"][:, 0], **exact)
    torch.testing.assert_close(published(native[None], still=True)[0], stored["still_image_eval"], **exact)
    box = tuple(section["train_boxes_top_left_h_w_by_torch_seed"][0])
    crop = published.crop_for_training(by_frame, box)
    torch.testing.assert_close(published.normalise(crop)[0], stored["train_crop_normalised"][:, 0], **exact)
    ours = VideoLlamaImageProcessor(size=squashed.shape[0]).crop_for_training(by_frame, box)[0]
    raw = stored["train_crop_float_before_cast"][:, 0]
    assert int(((raw < 0) | (raw >= 256)).sum()) == section["train_crop_out_of_range_pixels_box0"]
    torch.testing.assert_close(ours, raw.clamp(0, 255), **exact)
    # The reference scaled while decoding, in YUV: so do we where frames are squashed, to the bit.
    path = golden_media(section["video"])
    for squash_px, wanted_pixels in ((None, native), (squashed.shape[0], squashed.numpy())):
        sampling = FrameSampling("uniform", frames=10**6, squash_px=squash_px)
        frames = read_clip(path, frames=sampling).frames
        assert frames is not None
        np.testing.assert_array_equal(frames.pixels[section["frame_index"]], wanted_pixels)


# ---- the last test: nothing was left out


def test_every_indexed_tensor_was_compared(request: pytest.FixtureRequest, golden: Goldens) -> None:
    here = {item.function for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    tests = {value for name, value in globals().items() if name.startswith("test_") and callable(value)}
    if here != tests:
        pytest.skip("only some of the comparisons were run")
    assert not golden.tally.indexed - golden.tally.compared
