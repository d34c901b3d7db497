"""A Video-LLaMA small enough for tests, with seeded random weights, and clips for it that need no file.

Weights are drawn wide, so that answers differ from question to question and from clip to clip.
"""

import hashlib
from functools import cache

import numpy as np
import torch

from videollm.clips import Clip, Frames, Waveform
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.models.video_llama.tiny_tokenizer import SPECIAL_TOKENS, build_tiny_tokenizer

TEXTS = [
    "a red circle moves to the left while a loud beep is heard at 1.5 s.",
    "what is in the video? how many shapes are there? which colour has the square?",
    "größe, 日本語のテキスト, and an emoji 🙂 now and then.",
]


@cache
def _tokenizer():
    return build_tiny_tokenizer(TEXTS, 320)


def small_model(context_tokens=512, seed=0, *, ears=True, **text_config):
    """A model and its processor, in float32 on the CPU."""
    tokenizer = _tokenizer()
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    qformer = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "cross_attention_frequency": 1,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.2,
    }
    config = VideoLlamaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "initializer_range": 0.2,
        },
        qformer_config=qformer,
        video_qformer_config=qformer,
        audio_qformer_config=qformer if ears else None,
        audio_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": 24,
            "num_mel_bins": 32,
            "target_length": 48,
        }
        if ears
        else None,
        text_config={
            "model_type": "llama",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": context_tokens,
            "initializer_range": 0.25,
            "bos_token_id": special["<bos>"],
            "eos_token_id": special["<eos>"],
            "pad_token_id": special["<pad>"],
            **text_config,
        },
        num_query_tokens=4,
        num_video_query_tokens=6,
        num_audio_query_tokens=3,
        max_frame_positions=32,
        frame_position_seconds=0.25,
        max_audio_positions=32,
        audio_position_seconds=0.5,
        video_token_id=special["<video>"],
        audio_token_id=special["<audio>"],
        bos_token_id=special["<bos>"],
        eos_token_id=special["<eos>"],
        pad_token_id=special["<pad>"],
    )
    torch.manual_seed(seed)
    model = VideoLlamaForConditionalGeneration(config).eval()
    processor = VideoLlamaProcessor.for_model(
        config,
        tokenizer,
        template="tiny",
        segment_seconds=0.5,
        separate_text=True,
        time_sentence=False,
        frame_sampling={"strategy": "rate", "rate_hz": 4.0, "max_frames": 32},
        sound_sampling={"strategy": "contiguous", "segments": 32, "length_seconds": 0.5},
    )
    return model, processor


ENDLESS_TOKENS = 10**6
"""Of an answer that goes on for hours."""


def endless_model():
    """A small model whose answers end when they are stopped, never by themselves; asked for `ENDLESS_TOKENS`, that is.

    There is room for so many, and no token that ends one.
    """
    model, processor = small_model(context_tokens=2 * ENDLESS_TOKENS)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    return model, processor


def words_for(model, processor, monkeypatch):
    """Answers to come, to be filled: each is put into the model's mouth token by token, under a template that tells of
    tools; all else is real.
    """
    monkeypatch.setattr(type(processor), "calls_tools", True)
    monkeypatch.setattr(type(processor), "call_token_ids", ())
    to_say, rest = [], []

    def choose(self, logits, generated):
        if not generated:
            words = processor.tokenizer(to_say.pop(0), add_special_tokens=False)["input_ids"]
            rest[:] = [*words, model.config.eos_token_id]
        return rest[len(generated)]

    monkeypatch.setattr("videollm.chat.generation.TokenChooser.choose", choose)
    return to_say


def drawn_clip(seed, *, frames=4, sound_seconds=1.0, name=None, seconds_a_frame=0.25):
    """A clip of noise: other seeds are other pictures and other sounds."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, 40, 48, 3), dtype=np.uint8) if frames else None
    duration = max(frames * seconds_a_frame, sound_seconds)
    waveforms, windows = None, ()
    if sound_seconds:
        samples = rng.normal(0, 0.2, (2, int(8000 * sound_seconds))).astype(np.float32)
        waveforms = (Waveform(samples, 8000),)
        windows = tuple((s, min(s + 0.5, sound_seconds)) for s in np.arange(0, sound_seconds, 0.5).tolist())
    return Clip(
        name=name or f"clip{seed}.mp4",
        kind="video" if frames else "audio",
        content_hash=hashlib.sha256(f"{seed} {frames} {sound_seconds}".encode()).hexdigest(),
        duration_seconds=duration,
        frames=Frames(pixels, np.arange(frames) * seconds_a_frame, duration) if frames else None,
        waveforms=waveforms,
        windows_seconds=windows,
    )
