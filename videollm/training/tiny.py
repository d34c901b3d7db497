"""The shape of the embedded model `tiny`, before any training."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from videollm.data.dialogue import SOUND_SLOTS, VIDEO_SLOTS
from videollm.data.world import COLOURS
from videollm.data.world_samples import corpus
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.models.video_llama.tiny_tokenizer import TOOL_TOKENS, build_tiny_tokenizer, with_tool_tokens

SEGMENT_SECONDS = 0.5
CONTEXT_TOKENS = 320
"""Little more than the longest conversations that it learns from (243 tokens): behind that it talks nonsense, so a
session drops the oldest turns, and says so."""
_LANDMARKS = 4


HEADS, HEADS_THAT_CAME_LATER = 8, 8
"""Of each layer of the decoder; half of them come when the model learns to call tools, and to say again."""


def tiny_config(vocab_size: int, tokens: dict[str, int], tools: bool = False) -> VideoLlamaConfig:
    """The architecture of Video-LLaMA, class for class, at about a thousandth of its size."""
    width, small, words = 128, 96, 256
    heads = HEADS + tools * HEADS_THAT_CAME_LATER
    qformer = {
        "hidden_size": width, "num_attention_heads": 4, "intermediate_size": 4 * width, "num_hidden_layers": 2,
        "cross_attention_frequency": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return VideoLlamaConfig(
        vision_config={
            "image_size": 64, "patch_size": 8, "hidden_size": width, "intermediate_size": 4 * width,
            "num_hidden_layers": 4, "num_attention_heads": 4,
        },
        qformer_config=qformer,
        video_qformer_config={**qformer, "num_hidden_layers": 3},
        audio_qformer_config=dict(qformer),
        audio_config={
            "hidden_size": small, "intermediate_size": 4 * small, "num_hidden_layers": 3, "num_attention_heads": 3,
            "num_mel_bins": 64, "target_length": 48, "patch_size": [16, 8], "patch_stride": [16, 8],
            "projection_dim": small, "drop_path_rate": 0.0, "logit_scale": 10.0,
        },
        text_config={
            "model_type": "llama", "vocab_size": vocab_size, "hidden_size": words, "intermediate_size": 704,
            "num_hidden_layers": 4, "num_attention_heads": heads, "num_key_value_heads": heads,
            "head_dim": words // HEADS, "max_position_embeddings": CONTEXT_TOKENS,
            "tie_word_embeddings": True, "initializer_range": 0.06, "rms_norm_eps": 1e-6,
            "bos_token_id": tokens["<bos>"], "eos_token_id": tokens["<eos>"], "pad_token_id": tokens["<pad>"],
        },
        num_query_tokens=len(COLOURS) + 2 + _LANDMARKS,
        num_video_query_tokens=len(VIDEO_SLOTS),
        num_audio_query_tokens=len(SOUND_SLOTS),
        max_frame_positions=128,
        frame_position_seconds=0.25,
        max_audio_positions=64,
        audio_position_seconds=0.5,
        position_initializer_range=0.5,
        video_token_id=tokens["<video>"],
        audio_token_id=tokens["<audio>"],
        bos_token_id=tokens["<bos>"],
        eos_token_id=tokens["<eos>"],
        pad_token_id=tokens["<pad>"],
    )  # fmt: skip


def build_tiny(
    seed: int = 0, tokenizer_folder: str | Path | None = None, tools: bool = False
) -> tuple[VideoLlamaForConditionalGeneration, VideoLlamaProcessor]:
    """`tiny` with random weights, and its processor.

    Args:
        seed: of the weights.
        tokenizer_folder: where the tokenizer is kept, so that all stages read the same ids; it is learned from the
            world's text and put there if the folder does not exist. None: learned anew.
        tools: with the tokens and the template for calls of tools.
    """
    if tokenizer_folder is not None and Path(tokenizer_folder).exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    else:
        tokenizer = build_tiny_tokenizer(corpus(), vocab_size=1000)
        if tokenizer_folder is not None:
            staging = Path(f"{tokenizer_folder}.part-{os.getpid()}")
            tokenizer.save_pretrained(staging)
            os.replace(staging, tokenizer_folder)
    if tools:
        tokenizer = with_tool_tokens(tokenizer)
    names = ("<bos>", "<eos>", "<pad>", "<video>", "<audio>")
    tokens = dict(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))
    config = tiny_config(len(tokenizer), tokens, tools)
    torch.manual_seed(seed)
    model = VideoLlamaForConditionalGeneration(config)
    _start_well(model)
    model.generation_config.max_new_tokens = 96
    model.generation_config.do_sample = False
    if tools:
        # Who has no tools hears no calls; a conversation that has some chooses its tokens itself.
        model.generation_config.suppress_tokens = tokenizer.convert_tokens_to_ids(list(TOOL_TOKENS))
    processor = VideoLlamaProcessor.for_model(
        config,
        tokenizer,
        template="tiny_tools" if tools else "tiny",
        segment_seconds=SEGMENT_SECONDS,
        frame_sampling={"strategy": "rate", "rate_hz": 4.0, "max_frames": 32},
        sound_sampling={"strategy": "contiguous", "segments": 32, "length_seconds": SEGMENT_SECONDS},
        video_token="<video>",
        audio_token="<audio>",
        time_sentence=False,
        separate_text=True,
    )
    return model, processor


@torch.no_grad()
def _start_well(model: VideoLlamaForConditionalGeneration) -> None:
    """Weights to start from that a small model learns with several times sooner than with the published N(0, 0.02).

    Deviation 1 / sqrt(inputs) in the encoders and Q-Formers, queries far from each other, and sines and cosines as
    positions. The decoder's deviation is in its config.
    """
    encoders = (model.vision_model, model.qformer, model.video_qformer, model.audio_model, model.audio_qformer)
    for part in encoders:
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for queries in (model.query_tokens, model.video_query_tokens, model.audio_query_tokens):
        queries.normal_(std=1.0)
    vision = model.config.vision_config
    side, width = vision.image_size // vision.patch_size, vision.hidden_size
    frequency = 1.5 / 20 ** (torch.arange(width // 4) / (width // 4))
    place = torch.arange(side)[:, None] * frequency
    axis = torch.cat([place.sin(), place.cos()], 1)
    rows, columns = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
    table = model.vision_model.embeddings.position_embedding
    table.zero_()
    table[0, 1:] = torch.cat([rows, columns], -1).flatten(0, 1)
    for embedding in (model.frame_position_embedding, model.audio_position_embedding):
        count, depth = embedding.weight.shape
        embedding.weight.copy_(_clock(torch.arange(count), depth))
    _look_around(model)


def _clock(places: torch.Tensor, depth: int) -> torch.Tensor:
    """Sines and cosines of places in time, ``(N,)`` to ``(N, depth)``."""
    angle = places[:, None] * _frequencies(depth)
    return torch.cat([angle.sin(), angle.cos()], 1) * 0.7


def _frequencies(depth: int) -> torch.Tensor:
    return 1.5 / 60 ** (torch.arange(depth // 2) / (depth // 2))


# Where, in frame positions (quarters of a second) from its own moment, each head of each layer looks at the start.
_HEADS_LOOK = ((-1, 1, -3, 3), (-1, 1, -6, 6), (0, -2, 2, 0))


@torch.no_grad()
def _look_around(model: VideoLlamaForConditionalGeneration) -> None:
    """Let each query for a half second start out looking at the frames around it, a head before it, a head after.

    Frames meet in the video Q-Former only, where a change has to be found by comparing what two heads see. A head's
    query matrix is its key matrix turned by a step in time, so that a query made of the sines and cosines of a
    place is nearest to the keys of the frame that many places away.
    """
    moments = [row for row, (name, _) in enumerate(VIDEO_SLOTS) if name.startswith("at ")]
    depth = model.config.video_qformer_config.hidden_size
    heads = model.config.video_qformer_config.num_attention_heads
    size = depth // heads
    per_moment = round(0.5 / model.config.frame_position_seconds)
    places = torch.arange(len(moments)) * per_moment
    model.video_query_tokens[0, moments] = _clock(places, depth) * 2 + 0.2 * model.video_query_tokens[0, moments]
    frequency = _frequencies(depth)
    for layer, steps in zip(model.video_qformer.encoder.layer, _HEADS_LOOK, strict=True):
        attention = layer.crossattention.attention
        for head, step in zip(range(heads), steps, strict=True):
            rows = slice(head * size, (head + 1) * size)
            sine, cosine = attention.key.weight[rows].chunk(2, dim=1)
            turn_sin, turn_cos = (frequency * step).sin(), (frequency * step).cos()
            turned = torch.cat([sine * turn_cos - cosine * turn_sin, sine * turn_sin + cosine * turn_cos], 1)
            attention.query.weight[rows] = 3.0 * turned
