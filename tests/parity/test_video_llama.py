"""Parity with the published Video-LLaMA: every stage on the same small weights and inputs.

Sizes, inputs and tolerances come from the index ``video_llama/golden/goldens.json``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.video_llama.published_keys import our_weights
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import (
    FrameSampling,
    SoundSampling,
    headtail_indices,
    published_sound_windows,
    uniform_indices,
)
from videollm.models.imagebind import ImageBindVisionConfig, ImageBindVisionModel
from videollm.models.video_llama import (
    VideoLlamaConfig,
    VideoLlamaFeatureExtractor,
    VideoLlamaForConditionalGeneration,
    VideoLlamaImageProcessor,
)
from videollm.models.video_llama.feature_extraction_video_llama import resample


class Goldens:
    """The index, its tensors, and a count of what was compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = json.loads((folder / "goldens.json").read_text())
        self.entries = {(entry["file"], entry["key"]): entry for entry in self.index["tensors"]}
        self.files: dict[str, dict[str, torch.Tensor]] = {}
        self.compared: set[tuple[str, str]] = set()

    def __call__(self, file: str, key: str) -> torch.Tensor:
        if file not in self.files:
            self.files[file] = load_file(self.folder / file)
        return self.files[file][key]

    def check(self, file: str, key: str, found: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Compare with the stored tensor at the stated tolerance; ``where``: only there is the reference meaningful."""
        wanted, entry = self(file, key), self.entries[file, key]
        found = found[: len(wanted)].detach()
        assert found.shape == wanted.shape, f"{file} {key}: {tuple(found.shape)} is not {tuple(wanted.shape)}"
        if where is not None:
            found, wanted = found[where], wanted[where]
        torch.testing.assert_close(
            found, wanted, atol=entry["atol"], rtol=entry["rtol"], msg=lambda text: f"{file} {key}: {text}"
        )
        self.compared.add((file, key))


@pytest.fixture(scope="module")
def golden(goldens: Path) -> Iterator[Goldens]:
    store = Goldens(goldens / "video_llama" / "golden")
    yield store
    print(f"\nvideo_llama: compared {len(store.compared)} of {len(store.entries)} indexed tensors")


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
        },
        text_config={"model_type": "llama", **llama},
        num_query_tokens=config["nq"],
        num_video_query_tokens=config["nvq"],
        num_audio_query_tokens=config["naq"],
        vision_output_layer_norm_eps=derived["ln_vision_eps"],
        max_frame_positions=derived["max_frame_pos"],
        max_audio_positions=derived["audio_positions"],
        video_token_id=derived["image_placeholder_id"],
        audio_token_id=derived["audio_placeholder_id"],
    )


@pytest.fixture(scope="module")
def weights(golden: Goldens) -> dict[str, torch.Tensor]:
    return our_weights(load_file(golden.folder / "weights.safetensors"))


@pytest.fixture(scope="module")
def model(golden: Goldens, weights: dict[str, torch.Tensor]) -> VideoLlamaForConditionalGeneration:
    model = VideoLlamaForConditionalGeneration(small_config(golden.index)).eval()
    vision_trunk = "vision_model.blocks.", "vision_model.head_", "vision_model.pre_", "vision_model.patch_embedding."
    vision_trunk += "vision_model.cls_token", "vision_model.position_embedding"
    missing, unexpected = model.load_state_dict(
        {name: value for name, value in weights.items() if not name.startswith(vision_trunk)}, strict=False
    )
    assert not missing and not unexpected, (missing, unexpected)
    return model


@pytest.fixture
def stages(model: VideoLlamaForConditionalGeneration) -> Iterator[dict[str, torch.Tensor]]:
    """What every module of the model returned in the forward passes of a test."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                seen[name] = output.detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    yield seen
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_video_branch(golden: Goldens, model: VideoLlamaForConditionalGeneration, stages: dict) -> None:
    video = golden("vl.safetensors", "image").transpose(1, 2)
    frames = model.encode_frames(video.flatten(0, 1))
    out = model.get_video_features(video)
    golden.check("vl.safetensors", "patch_embed", stages["vision_model.embeddings.patch_embedding"].flatten(2).mT)
    for layer in range(model.config.vision_config.num_hidden_layers):
        golden.check("vl.safetensors", f"vit_block_{layer}", stages[f"vision_model.encoder.layers.{layer}"])
    for layer in range(model.config.qformer_config.num_hidden_layers):
        golden.check("vl.safetensors", f"qformer_layer_{layer}", stages[f"qformer.encoder.layer.{layer}"])
    golden.check("vl.safetensors", "qformer_embeddings", stages["qformer.layernorm"])
    golden.check("vl.safetensors", "qformer_out", frames)
    for layer in range(model.config.video_qformer_config.num_hidden_layers):
        golden.check("vl.safetensors", f"video_qformer_layer_{layer}", stages[f"video_qformer.encoder.layer.{layer}"])
    golden.check("vl.safetensors", "video_qformer_embeddings", stages["video_qformer.layernorm"])
    golden.check("vl.safetensors", "video_qformer_out", stages["video_qformer.encoder.layer.1"])
    golden.check("vl.safetensors", "llama_proj_out", out)
    positions = model.frame_position_embedding.weight[: video.shape[1]]
    states = frames.unflatten(0, video.shape[:2]) + positions[None, :, None]
    golden.check("vl.safetensors", "frame_hidden", states.flatten(1, 2))
    still = golden("vl.safetensors", "single_image").transpose(1, 2)
    golden.check("vl.safetensors", "single_image_llama_proj_out", model.get_video_features(still))


@torch.no_grad()
def test_norm_after_the_vision_encoder(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    video = golden("vl.safetensors", "image").transpose(1, 2).flatten(0, 1)
    golden.check("vl.safetensors", "ln_vision", model.vision_model(video).last_hidden_state)
    assert model.vision_model.post_layernorm.eps == golden.index["config"]["derived"]["ln_vision_eps"]
    assert model.vision_model.encoder.layers[0].layer_norm1.eps == golden.index["config"]["derived"]["vit_ln_eps"]


@torch.no_grad()
def test_audio_branch(golden: Goldens, model: VideoLlamaForConditionalGeneration, stages: dict) -> None:
    mel = golden("audio.safetensors", "mel")
    states = model.encode_audio_segments(mel.flatten(0, 1))
    tokens = torch.cat(
        [
            model.audio_model.cls_token.expand(len(states), -1, -1),
            stages["audio_model.stem_layernorm"],
        ],
        dim=1,
    )
    golden.check("audio.safetensors", "stem", stages["audio_model.stem_layernorm"])
    golden.check("audio.safetensors", "tokens", tokens + model.audio_model.position_embedding)
    for layer in range(model.config.audio_config.num_hidden_layers):
        golden.check("audio.safetensors", f"trunk_block_{layer}", stages[f"audio_model.blocks.{layer}"])
    golden.check("audio.safetensors", "head_feature", stages["audio_model.head_layernorm"].unflatten(0, mel.shape[:2]))
    states = states.unflatten(0, mel.shape[:2])
    golden.check("audio.safetensors", "imagebind_out", states)
    golden.check("audio.safetensors", "audio_qformer_input", states + model.audio_position_embedding.weight)
    golden.check("audio.safetensors", "audio_llama_proj_out", model.get_audio_features(mel))
    golden.check("audio.safetensors", "audio_qformer_embeddings", stages["audio_qformer.layernorm"])
    for layer in range(model.config.audio_qformer_config.num_hidden_layers):
        golden.check(
            "audio.safetensors", f"audio_qformer_layer_{layer}", stages[f"audio_qformer.encoder.layer.{layer}"]
        )
    golden.check("audio.safetensors", "audio_qformer_out", stages["audio_qformer.encoder.layer.1"])


@torch.no_grad()
def test_imagebind_vision_trunk(
    golden: Goldens, model: VideoLlamaForConditionalGeneration, weights: dict[str, torch.Tensor]
) -> None:
    file, sizes = "imagebind_vision.safetensors", golden.index["config"]["ib"]
    trunk = ImageBindVisionModel(
        ImageBindVisionConfig(
            hidden_size=sizes["vision_embed_dim"],
            intermediate_size=4 * sizes["vision_embed_dim"],
            num_hidden_layers=sizes["vision_num_blocks"],
            num_attention_heads=sizes["vision_num_heads"],
            image_size=golden(file, "image").shape[-1],
            patch_size=sizes["kernel_size"][1],
            num_frames=sizes["video_frames"],
            projection_dim=sizes["out_embed_dim"],
        )
    ).eval()
    names = set(trunk.state_dict())
    own = {name.removeprefix("vision_model."): value for name, value in weights.items()}
    trunk.load_state_dict({name: own[name] for name in names})
    seen: list[torch.Tensor] = []
    for block in trunk.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = golden(file, "image")
    states = trunk(image.flatten(0, 1)).unflatten(0, image.shape[:2])
    for layer, output in enumerate(seen):
        golden.check(file, f"trunk_block_{layer}", output)
    golden.check(file, "imagebind_out", states)
    golden.check(file, "audio_llama_proj_out", model.get_audio_features(segment_states=states))


def test_decoder_logits_and_loss(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    files = sorted({file for file, key in golden.entries if key == "logits"})
    assert files
    for file in files:
        mask = golden(file, "attention_mask")
        with torch.no_grad():
            out = model(inputs_embeds=golden(file, "inputs_embeds"), attention_mask=mask, labels=golden(file, "labels"))
        golden.check(file, "logits", out.logits, where=mask.bool())
        golden.check(file, "loss", out.loss.reshape(1))


@torch.no_grad()
def test_embeddings_of_prompts_with_clips(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    """Ids and pixels to embeddings, as collated for instruction tuning."""
    files = [file for file, key in golden.entries if key == "input_ids" and "vl_stage2_video" in file]
    assert files
    video = golden("vl.safetensors", "image").transpose(1, 2)
    for file in files:
        found = model.embed(golden(file, "input_ids"), model.get_video_features(video))
        golden.check(file, "inputs_embeds", found)


def test_gradients_of_the_video_branch(golden: Goldens, model: VideoLlamaForConditionalGeneration) -> None:
    """The loss of stage 1, back through the decoder and the video Q-Former into the trained parameters."""
    file = "train_vl_stage1.safetensors"
    wanted = [key for entry, key in golden.entries if entry == file and key.startswith("grad.")]
    assert wanted
    model.zero_grad()
    features = model.get_video_features(golden("vl.safetensors", "image").transpose(1, 2))
    embeds = golden(file, "inputs_embeds")
    prompt = torch.cat([embeds[:, :1], features, embeds[:, 1 + features.shape[1] :]], dim=1)
    golden.check(file, "inputs_embeds", prompt)
    mask, labels = golden(file, "attention_mask"), golden(file, "labels")
    loss = model(inputs_embeds=prompt, attention_mask=mask, labels=labels).loss
    loss.backward()
    found = dict(model.named_parameters())
    for key in wanted:
        (name,) = our_weights({key.removeprefix("grad."): torch.empty(0)})
        golden.check(file, key, found[name].grad)
    model.zero_grad()


# ---- preprocessing: the index is ``preprocess.json``


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


def test_sound_to_mel(golden: Goldens, preprocess: dict[str, Any], golden_media: Callable[[str], Path]) -> None:
    section = preprocess["audio"]
    stored, extractor = arrays(golden, section), VideoLlamaFeatureExtractor(as_published=True)
    assert section["files"]
    for name, facts in section["files"].items():
        clip = read_clip(golden_media(name), sound=SoundSampling("published"))
        (waveform,) = clip.waveforms
        assert waveform.rate_hz == facts["native_rate"] and len(waveform.samples) == facts["channels"]
        np.testing.assert_allclose(clip.windows_seconds, facts["clip_start_end_s"], atol=1e-4)
        samples = torch.from_numpy(waveform.samples)
        resampled = resample(samples, waveform.rate_hz, extractor.sampling_rate, precision=torch.float32)
        assert resampled.shape[1] == facts["resampled_samples"]
        key = name.replace(".", "_")
        if f"{key}__resampled_16k" in stored:
            torch.testing.assert_close(resampled, stored[f"{key}__resampled_16k"], atol=1e-6, rtol=0)
        # The published windows are cut after resampling, whose length is rounded up to a whole sample; one sample
        # decides about the quiet bins, so the comparison needs exactly these.
        windows = published_sound_windows(resampled.shape[1] / extractor.sampling_rate)
        np.testing.assert_allclose(windows, facts["clip_start_end_s"], atol=1e-9)
        mel = extractor(clip.waveforms, windows)
        assert [1, *mel.shape] == facts["mel_shape"]
        stated = section["tolerance"][name.rsplit(".", 1)[-1]]
        tolerance = float(re.search(r"atol ([\d.e-]+\d)", stated)[1])
        torch.testing.assert_close(mel[None], stored[f"{key}__mel"], atol=tolerance, rtol=0)
        padding = mel[..., facts["fbank_frames_before_pad"] :]
        torch.testing.assert_close(padding, torch.full_like(padding, facts["pad_value_after_normalisation"]))


def test_frames_to_pixels(golden: Goldens, preprocess: dict[str, Any], golden_media: Callable[[str], Path]) -> None:
    section = preprocess["frames"]
    stored = arrays(golden, section)
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
    # The reference scaled while decoding, in YUV with halved chroma, so that from RGB only a loose bound can hold.
    found = published(native[None])[0] * torch.tensor(published.image_std).view(3, 1, 1)
    found = (found + torch.tensor(published.image_mean).view(3, 1, 1)) * 255
    assert (found - squashed.permute(2, 0, 1)).abs().mean() < 2.0
    clip = read_clip(golden_media(section["video"]), frames=FrameSampling("uniform", frames=10**6))
    np.testing.assert_array_equal(clip.frames.pixels[section["frame_index"]], native)
