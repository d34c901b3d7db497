"""What a model of LaViLa, LF-VILA or ImageBind takes, known before anything of it is loaded.

Weights are counted on the meta device; working memory by sending one clip of the model's own size through the encoder
there, where tensors have sizes and no numbers, and adding up what is alive. Attention counts as if all its scores were
kept, so that it is an upper estimate for the fused kernels.

Notation: T frames, H W pixels, Q visual tokens, D width.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .families import FamilyFolder
from .memory import GIB

SEQUENCES = 10
"""Sentences that a narrator draws for a clip, as published."""
NUMBER_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class FamilyPlan:
    """What a model takes in a precision.

    Attributes:
        precision: "fp32" or "bf16".
        weights_bytes: of the weights.
        encoding_bytes: alive at once while one clip is encoded.
        decoding_bytes: keys and values of a narrator's sentences; 0 for others.
        clip: what was planned for, in words.
    """

    precision: str
    weights_bytes: int
    encoding_bytes: int
    decoding_bytes: int
    clip: str

    @property
    def total_bytes(self) -> int:
        """At most at once."""
        return self.weights_bytes + max(self.encoding_bytes, self.decoding_bytes)

    @property
    def summary(self) -> str:
        """One line."""
        decoding = f", {SEQUENCES} sentences {self.decoding_bytes / GIB:.2f} GiB" if self.decoding_bytes else ""
        weights, encoding = self.weights_bytes / GIB, self.encoding_bytes / GIB
        return (
            f"{self.precision}: {self.total_bytes / GIB:.2f} GiB (weights {weights:.2f} GiB, {self.clip} "
            f"{encoding:.2f} GiB{decoding})"
        )


def plan_family(found: FamilyFolder) -> list[FamilyPlan]:
    """Plans in float32 and bfloat16."""
    with torch.device("meta"):
        model = found.model_class(found.config).eval()
    parameters = sum(value.numel() for value in model.parameters())
    numbers, clip = _encoding(found, model)
    decoding = _decoding(found)
    return [
        FamilyPlan(name, parameters * size, numbers * size, decoding * size, clip)
        for name, size in NUMBER_BYTES.items()
    ]


def _encoding(found: FamilyFolder, model: Any) -> tuple[int, str]:
    """Numbers alive at once while a clip is encoded, and the clip in words."""
    config = found.config
    if found.model_type == "t5":
        return 0, "a sentence"
    if found.model_type == "imagebind":
        return _encoding_sound(config, model)
    if found.model_type == "lf_vila":
        frames, (height, width) = int(config.num_frames), config.video_config.image_size
        encode = model.video_encoder
    else:
        frames, height = int(config.vision_config.num_frames), config.vision_config.image_size
        width, encode = height, model.vision_model
    pixels = torch.empty(1, frames, 3, height, width, device="meta")
    with torch.no_grad(), _Alive() as alive:
        encode(pixels)
    return pixels.numel() + alive.most // 4, f"a clip of {frames} frames of {height}x{width}"


def _encoding_sound(config: Any, model: Any) -> tuple[int, str]:
    """The same for ImageBind's ear; without one, for its text trunk alone."""
    with torch.no_grad(), _Alive() as alive:
        if model.audio_model is None:
            return 0, "a sentence"
        ear = config.audio_config
        mel = torch.empty(1, 1, ear.num_mel_bins, ear.target_length, device="meta")
        model.audio_model(mel)
    return mel.numel() + alive.most // 4, f"a segment of sound of {ear.num_mel_bins}x{ear.target_length}"


def _decoding(found: FamilyFolder) -> int:
    """Numbers that a narrator keeps of its sentences, and of the clip that they look at."""
    if found.model_type != "lavila_narrator":
        return 0
    config, text = found.config, found.config.text_config
    said = SEQUENCES * config.max_text_tokens * 2 * text.n_layer * text.n_embd
    looking = -(-text.n_layer // config.cross_attention_frequency)
    return said + looking * config.num_query_tokens * 2 * text.n_embd + SEQUENCES * text.vocab_size


class _Alive(TorchDispatchMode):
    """Adds up the bytes of storages that operations make, while they are alive.

    Attributes:
        most: the most at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most, self._now = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(made):
            # A view shares what it was given.
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                size = leaf.numel() * leaf.element_size()
                self._now += size
                weakref.finalize(leaf.untyped_storage(), self._gone, size)
        self.most = max(self.most, self._now)
        return made

    def _gone(self, size: int) -> None:
        self._now -= size
