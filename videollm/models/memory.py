"""The memory plan: what a model takes on a device, known from its config before anything of it is loaded.

Weights are counted on the meta device, where a model has shapes and no numbers. The key/value cache follows from the
decoder's shape and the context. Working memory is an estimate: of the tensors that are alive at once in the widest
layer, as the attention kernels that never hold all scores leave them.

Notation: T frames, S audio segments, N patches, Q queries, L text tokens, D width.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..errors import MemoryPlanError
from .video_llama.configuration_video_llama import VideoLlamaConfig

GIB = 2**30
BLOCK = 64
"""Weights that share one scale in 4 bits (bitsandbytes' default)."""
SCALES_BLOCK = 256
"""Scales that share one scale of their own, in double quantisation."""
_TABLES_BYTES = 4 * 16 + 4 * 256 + 4
"""What each 4-bit layer keeps beside its blocks: the 16 values, the 256 values of its scales, their mean."""

AT_ONCE = 8
"""Frames, or audio segments, in one pass of an encoder in a chat."""
PREFILL_TOKENS = 512
"""Prompt positions in one pass of the decoder in a chat."""
CUDA_RESERVE_BYTES = GIB // 2
"""Taken by CUDA itself and lost between tensors, before the first weight is loaded."""

DECODER = "language_model"
_DECODER_LAYERS = f"{DECODER}.model.layers."
_PARTS = (
    ("ViT", ("vision_model",)),
    ("frame Q-Former", ("qformer", "query_tokens")),
    (
        "video Q-Former, projection",
        ("frame_position_embedding", "video_qformer", "video_query_tokens", "video_projection"),
    ),
    ("ImageBind audio trunk", ("audio_model",)),
    (
        "audio Q-Former, projection",
        ("audio_position_embedding", "audio_qformer", "audio_query_tokens", "audio_projection"),
    ),
)
ENCODERS = tuple(name for _, names in _PARTS for name in names)
"""Modules and parameters of a model that are not its decoder."""

Side = Literal["encoders", "decoder"]


@dataclass(frozen=True)
class Precision:
    """How weights are kept.

    Attributes:
        name: e.g. ``"bf16"`` or ``"4-bit"``.
        number_bytes: of one number of what is not quantised, and of the cache.
        bits: 4 or 8: of the decoder's linear layers; None: they are kept like the rest.
        cure: how to ask for it.
    """

    name: str
    number_bytes: int
    bits: int | None
    cure: str


PRECISIONS: Mapping[str, Precision] = {
    "fp32": Precision("fp32", 4, None, "dtype float32"),
    "bf16": Precision("bf16", 2, None, "dtype bfloat16"),
    "fp16": Precision("fp16", 2, None, "dtype float16"),
    "8-bit": Precision("8-bit", 2, 8, "--bits 8"),
    "4-bit": Precision("4-bit", 2, 4, "--bits 4"),
}
OFFERED = ("fp32", "bf16", "8-bit", "4-bit")
"""What a refused plan, and the doctor, try."""


@dataclass(frozen=True)
class Weight:
    """One parameter: its name, shape, and whether it is the weight of a linear layer that is quantised."""

    name: str
    shape: tuple[int, ...]
    quantised: bool

    def bytes(self, precision: Precision) -> int:
        """In memory."""
        if self.quantised and precision.bits is not None:
            return quantised_bytes(self.shape[0], self.shape[1], precision.bits)
        return math.prod(self.shape) * precision.number_bytes


@dataclass(frozen=True)
class Part:
    """One part of a model's weights."""

    name: str
    side: Side
    parameters: int
    bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """What a model takes.

    Attributes:
        model: its name.
        precision: of its weights.
        parts: weights, part by part.
        context_tokens: the longest conversation that is planned for, tokens.
        cache_bytes: keys and values of so many tokens.
        frames, segments: of the clip that is planned for.
        media_bytes: working memory while it is encoded.
        prefill_bytes: working memory of the decoder.
    """

    model: str
    precision: Precision
    parts: tuple[Part, ...]
    context_tokens: int
    cache_bytes: int
    frames: int
    segments: int
    media_bytes: int
    prefill_bytes: int

    @property
    def weights_bytes(self) -> int:
        """Of all parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def working_bytes(self) -> int:
        """The larger of the two working sets: clips are encoded before the decoder runs."""
        return max(self.media_bytes, self.prefill_bytes)

    @property
    def total_bytes(self) -> int:
        """On one device."""
        return self.weights_bytes + self.cache_bytes + self.working_bytes

    def side_bytes(self, side: Side) -> int:
        """On the device of the encoders, or of the decoder, where they are on two."""
        weights = sum(part.bytes for part in self.parts if part.side == side)
        return weights + (self.media_bytes if side == "encoders" else self.cache_bytes + self.prefill_bytes)

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.model} in {self.precision.name} takes {_gib(self.total_bytes)}: "
            f"weights {_gib(self.weights_bytes)}, cache {_gib(self.cache_bytes)} for {self.context_tokens} tokens, "
            f"work {_gib(self.working_bytes)}"
        )

    def lines(self) -> list[str]:
        """A table, one line a part."""
        rows = [(part.name, f"{part.parameters / 1e6:,.1f} M parameters", part.bytes) for part in self.parts]
        rows.append(("key/value cache", f"{self.context_tokens} tokens", self.cache_bytes))
        clip = f"{self.frames} frames" + (f", {self.segments} segments of sound" if self.segments else "")
        rows.append(("work", f"{clip}; prompts by {PREFILL_TOKENS}", self.working_bytes))
        rows.append(("in all", self.precision.name, self.total_bytes))
        return [f"{name:<27}{what:<38}{_gib(size):>10}" for name, what, size in rows]


def quantised_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of a linear layer's quantised weight, all that belongs to it counted.

    In 4 bits (NF4, double quantisation): half a byte a weight, one byte a block for its scale, four bytes for each
    block of scales, and three small tables. In 8 bits: one byte a weight, four a row.

    Source: Dettmers et al., "QLoRA" (2023), section 3, and "LLM.int8()" (2022), section 3.
    """
    count = rows * columns
    if bits == 8:
        return count + 4 * rows
    scales = math.ceil(count / BLOCK)
    return math.ceil(count / 2) + scales + 4 * math.ceil(scales / SCALES_BLOCK) + _TABLES_BYTES


def empty_model(config: VideoLlamaConfig) -> Any:
    """The model of a config on the meta device: names and shapes, no numbers, no memory."""
    from .video_llama.modeling_video_llama import VideoLlamaForConditionalGeneration

    with torch.device("meta"):
        return VideoLlamaForConditionalGeneration(config)


def weights_of(model: nn.Module) -> list[Weight]:
    """The parameters of a model, tied ones once. Quantised are the linear layers of its decoder, but for the head."""
    linear = {f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear}
    return [
        Weight(name, tuple(value.shape), name in linear and name.startswith(_DECODER_LAYERS))
        for name, value in model.named_parameters()
    ]


def parts_of(weights: Iterable[Weight], precision: Precision) -> tuple[Part, ...]:
    """Weights by part, in the order in which a clip passes them."""
    homes = {name: part for part, names in _PARTS for name in names}
    sides: dict[str, Side] = dict.fromkeys((part for part, _ in _PARTS), "encoders")
    sides |= {"decoder: linear layers": "decoder", "decoder: the rest": "decoder"}
    sums = {name: [0, 0] for name in sides}
    for weight in weights:
        part = homes.get(weight.name.split(".")[0])
        if part is None:
            part = "decoder: linear layers" if weight.quantised else "decoder: the rest"
        sums[part][0] += math.prod(weight.shape)
        sums[part][1] += weight.bytes(precision)
    return tuple(Part(name, side, *sums[name]) for name, side in sides.items() if sums[name][0])


def plan(
    config: VideoLlamaConfig,
    precision: str,
    *,
    model: str = "the model",
    context_tokens: int | None = None,
    frames: int = 8,
    segments: int = 8,
    weights: Sequence[Weight] | None = None,
) -> MemoryPlan:
    """Plan a model.

    Args:
        config: its config.
        precision: a key of `PRECISIONS`.
        model: how to call it.
        context_tokens: of the longest conversation; None: the whole context of the decoder.
        frames, segments: of the clip to plan for.
        weights: from `weights_of`, where they are known already.

    Raises:
        ValueError: no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    kept = PRECISIONS[precision]
    known = weights_of(empty_model(config)) if weights is None else weights
    text = config.text_config
    context = text.max_position_embeddings if context_tokens is None else context_tokens
    hears = config.audio_config is not None
    return MemoryPlan(
        model=model,
        precision=kept,
        parts=parts_of(known, kept),
        context_tokens=context,
        cache_bytes=context * token_cache_bytes(text, kept.number_bytes),
        frames=frames,
        segments=segments if hears else 0,
        media_bytes=media_bytes(config, kept.number_bytes, frames=frames, segments=segments if hears else 0),
        prefill_bytes=prefill_bytes(config, kept, known, context_tokens=context),
    )


def token_cache_bytes(text_config: Any, number_bytes: int) -> int:
    """Keys and values of one token in all layers of a decoder."""
    heads = getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
    width = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
    return 2 * text_config.num_hidden_layers * heads * width * number_bytes


def _layer_numbers(rows: int, width: int, hidden: int) -> int:
    """Numbers alive at once in a pre-norm layer over ``rows`` tokens of ``width``: attention, or the feed-forward.

    Attention holds its input, the normed input, queries, keys and values twice (joint, and by head) and the result;
    the feed-forward what came into the layer, what attention added and their sum, the normed sum, and the hidden states
    before and behind the activation.
    """
    return rows * max(9 * width, 4 * width + 2 * hidden)


def media_bytes(config: VideoLlamaConfig, number_bytes: int, *, frames: int, segments: int) -> int:
    """Working memory of encoding one clip, `AT_ONCE` frames and segments at a time; an estimate."""
    vision = config.vision_config
    together = min(frames, AT_ONCE)
    patches = 1 + (vision.image_size // vision.patch_size) ** 2
    pixels = frames * 3 * vision.image_size**2
    sight = _layer_numbers(together * patches, vision.hidden_size, vision.intermediate_size)
    frame = config.qformer_config
    # Keys and values of the patches, and their states, while the queries look at them.
    looking = together * patches * (vision.hidden_size + 2 * frame.hidden_size)
    kept_states = frames * config.num_query_tokens * frame.hidden_size
    joining = 3 * kept_states + 2 * frames * config.num_query_tokens * config.video_qformer_config.hidden_size
    numbers = pixels + max(sight + kept_states, looking + kept_states, joining)
    if segments and config.audio_config is not None:
        audio = config.audio_config
        rows = min(segments, AT_ONCE) * (1 + audio.grid[0] * audio.grid[1])
        mel = segments * audio.num_mel_bins * audio.target_length
        numbers = max(numbers, mel + _layer_numbers(rows, audio.hidden_size, audio.intermediate_size))
    return numbers * number_bytes


def prefill_bytes(
    config: VideoLlamaConfig, precision: Precision, weights: Iterable[Weight], *, context_tokens: int
) -> int:
    """Working memory of the decoder on a long prompt, `PREFILL_TOKENS` at a time; an estimate.

    In 4 and 8 bits one weight at a time is unpacked to the precision of the rest.
    """
    text = config.text_config
    rows = min(PREFILL_TOKENS, context_tokens)
    # The gate of the feed-forward is a third hidden state.
    numbers = _layer_numbers(rows, text.hidden_size, text.intermediate_size) + rows * text.intermediate_size
    # The longest layer of the cache is copied when it grows.
    cache = context_tokens * token_cache_bytes(text, precision.number_bytes) // text.num_hidden_layers
    unpacked = 0
    if precision.bits is not None:
        unpacked = max((math.prod(w.shape) for w in weights if w.quantised), default=0) * precision.number_bytes
    mask = rows * context_tokens
    return numbers * precision.number_bytes + cache + mask + unpacked + 4 * text.vocab_size


# ---- what there is


def free_bytes(device: torch.device | str) -> int | None:
    """Memory that is free on a device, less what the device itself will take; None where that is not known."""
    place = torch.device(device)
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        return max(free - CUDA_RESERVE_BYTES, 0)
    if place.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return _free_memory_bytes() if place.type == "cpu" else None


def _free_memory_bytes() -> int | None:
    """Of the machine, or of the container where that has less."""
    if sys.platform.startswith("linux"):
        return free_linux_bytes(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_linux_bytes(meminfo: Path, cgroup: Path) -> int | None:
    """What Linux says: memory available without swapping, and what the limit of a container leaves of it."""
    found = []
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (
        (cgroup / "memory.max", cgroup / "memory.current"),
        (cgroup / "memory" / "memory.limit_in_bytes", cgroup / "memory" / "memory.usage_in_bytes"),
    ):
        try:
            left = int(limit.read_text()) - int(used.read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        found.append(max(left, 0))
    return min(found, default=None)


# ---- whether it fits


def give_memory_back() -> None:
    """To the system, what this process has freed.

    The C library keeps it in pieces between what is still used, too scattered to serve large tensors again: with a
    little more that stays after each of them, e.g. what is told of a window, a process would grow for ever.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)


def require_fit(
    wanted: MemoryPlan,
    config: VideoLlamaConfig,
    devices: Mapping[Side, torch.device] | torch.device,
    *,
    weights: Sequence[Weight],
    offered: Sequence[str] = OFFERED,
    free: Callable[[torch.device], int | None] = free_bytes,
) -> None:
    """Refuse a plan that does not fit.

    Args:
        wanted: the plan.
        config: of its model.
        devices: one, or one for the encoders and one for the decoder.
        weights: of the model, from `weights_of`.
        offered: precisions that could be chosen instead.
        free: what is free on a device.

    Raises:
        MemoryPlanError: with what is needed, what is free, and what would fit instead.
    """
    left = {place: free(place) for place in set(_places(devices).values())}
    short = [
        f"{place} has {_gib(left[place] or 0)} free for {_gib(need)}"
        for place, need in needs(wanted, devices).items()
        if not _room(left[place], need)
    ]
    if not short:
        return
    others = [
        plan(config, name, model=wanted.model, frames=wanted.frames, segments=wanted.segments, weights=weights)
        for name in offered
        if name != wanted.precision.name
    ]
    smaller = [other for other in others if other.total_bytes < wanted.total_bytes]
    fitting = [
        other for other in smaller if all(_room(left[place], need) for place, need in needs(other, devices).items())
    ]
    if fitting:
        cure = "; ".join(f"{other.precision.name} ({other.precision.cure}) would fit" for other in fitting)
        numbers = ", ".join(f"{other.precision.name} takes {_gib(other.total_bytes)}" for other in fitting)
        advice = f"{cure}: {numbers}"
    else:
        least = min([wanted, *smaller], key=lambda other: other.total_bytes)
        advice = (
            f"nothing fits: the least, {least.precision.name}, takes {_gib(least.total_bytes)}; free memory, use a "
            f"larger device, a smaller model, or two devices"
        )
    raise MemoryPlanError(f"{wanted.summary}; {' and '.join(short)}; {advice}")


def fits(wanted: MemoryPlan, device: torch.device | str) -> bool:
    """Whether a plan fits one device, as far as that is known."""
    return _room(free_bytes(device), wanted.total_bytes)


def needs(wanted: MemoryPlan, devices: Mapping[Side, torch.device] | torch.device) -> dict[torch.device, int]:
    """Bytes that a plan takes on each device."""
    places = _places(devices)
    if places["encoders"] == places["decoder"]:
        return {places["decoder"]: wanted.total_bytes}
    return {place: wanted.side_bytes(side) for side, place in places.items()}


def _places(devices: Mapping[Side, torch.device] | torch.device) -> Mapping[Side, torch.device]:
    return {"encoders": devices, "decoder": devices} if isinstance(devices, torch.device) else devices


def _room(free: int | None, need: int) -> bool:
    return free is None or need <= free


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
