"""One small model of random weights, its processor and drawn clips, shared by the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videollm.clips import Clip, Frames, Waveform
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.models.video_llama.tiny_tokenizer import build_tiny_tokenizer

SENTENCES = ["a red ball moves left at 2.5 s.", "what is there?", "one loud beep at 0.5 s.", "yes, twice."] * 20


def small_config(tokenizer, **changes) -> VideoLlamaConfig:
    """A config small enough for a test of milliseconds; ``changes`` replace whole fields."""
    qformer = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "cross_attention_frequency": 1,
        # Large, so that a random model's answer depends on all that it is shown.
        "initializer_range": 0.4,
    }
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    special_ids = {f"{name}_token_id": value for name, value in ids.items()}
    fields = {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "initializer_range": 0.3,
        },
        "qformer_config": qformer,
        "video_qformer_config": qformer,
        "audio_qformer_config": qformer,
        "audio_config": {
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_mel_bins": 32,
            "target_length": 48,
            "patch_size": [16, 8],
            "patch_stride": [16, 8],
            "projection_dim": 32,
            "initializer_range": 0.3,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            **special_ids,
        },
        "num_query_tokens": 4,
        "num_video_query_tokens": 6,
        "num_audio_query_tokens": 3,
        "max_frame_positions": 16,
        "frame_position_seconds": 0.25,
        "max_audio_positions": 16,
        "audio_position_seconds": 0.5,
        "initializer_range": 0.5,
        "video_token_id": tokenizer.convert_tokens_to_ids("<video>"),
        "audio_token_id": tokenizer.convert_tokens_to_ids("<audio>"),
        **special_ids,
    }
    return VideoLlamaConfig(**(fields | changes))


def small_processor(config: VideoLlamaConfig, tokenizer, **changes) -> VideoLlamaProcessor:
    options = {
        "template": "tiny",
        "segment_seconds": 0.5,
        "separate_text": True,
        "time_sentence": False,
        "video_token": "<video>",
        "audio_token": "<audio>",
        "frame_sampling": {"strategy": "rate", "rate_hz": 4, "max_frames": 32},
        "sound_sampling": {"strategy": "contiguous", "segments": 32, "length_seconds": 0.5},
    }
    return VideoLlamaProcessor.for_model(config, tokenizer, **(options | changes))


@pytest.fixture(scope="session")
def tokenizer():
    return build_tiny_tokenizer(SENTENCES, 400)


@pytest.fixture(scope="session")
def config(tokenizer) -> VideoLlamaConfig:
    return small_config(tokenizer)


@pytest.fixture(scope="session")
def model(config) -> VideoLlamaForConditionalGeneration:
    torch.manual_seed(0)
    return VideoLlamaForConditionalGeneration(config).eval()


@pytest.fixture(scope="session")
def processor(config, tokenizer) -> VideoLlamaProcessor:
    return small_processor(config, tokenizer)


def make_clip(name: str, frames: int, segments: int, seed: int, height: int = 40, width: int = 64) -> Clip:
    """A clip of noise: ``frames`` at 4 Hz, ``segments`` half seconds of stereo sound at 22.05 kHz; 0 for none."""
    rng = np.random.default_rng(seed)
    pictures = waveforms = None
    windows: tuple[tuple[float, float], ...] = ()
    if frames:
        pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        pictures = Frames(pixels, np.arange(frames) / 4, 0.0 if frames == 1 else frames / 4)
    if segments:
        samples = (rng.normal(size=(2, segments * 11025)) * 0.1).astype(np.float32)
        waveforms = (Waveform(samples, 22050),)
        windows = tuple((k / 2, k / 2 + 0.5) for k in range(segments))
    kind = "audio" if not frames else "image" if frames == 1 and not segments else "video"
    return Clip(name, kind, f"hash-{seed}", max(frames / 4, segments / 2), pictures, waveforms, windows)


@pytest.fixture(scope="session")
def clips() -> dict[str, Clip]:
    return {
        "long": make_clip("long", frames=8, segments=4, seed=1),
        "short": make_clip("short", frames=3, segments=2, seed=2, height=64, width=40),
        "silent": make_clip("silent", frames=5, segments=0, seed=3),
        "still": make_clip("still", frames=1, segments=0, seed=4),
        "sound": make_clip("sound", frames=0, segments=3, seed=5),
    }
