"""LF-VILA's video encoder: attention within windows of space and time that grow longer in time with depth (HTWA).

Each frame keeps its place from the first layer to the last; space shrinks. With windows of fixed size the work is
linear in the number of frames, and how far frames see each other doubles from group to group, where tokens are few.

Notation: B batch, T frames, H W pixels or, inside the encoder, rows and columns, C channels, N tokens of a window.
Source: Sun et al. 2022, section 3.2; Liu et al., "Swin Transformer" (2021) and "Video Swin Transformer" (2022) for
windows, shifts and the table of relative positions. Written from the published description.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput

from .configuration_lf_vila import LfVilaVideoConfig

Window = tuple[int, int, int]

_APART = -100.0
"""Added to the score of two tokens that a shift has put into one window, as published."""

_FRAMES_AT_ONCE = 32

# Of a published block, biases are up to 30 MB for each length of window; videos that fill no window have their own.
_KEPT_BIASES = 4


@cache
@torch.inference_mode(False)  # whoever asks first may only answer, and the next one trains
def relative_positions(window: Window, table: Window) -> torch.Tensor:
    """Rows of a table of biases, for each pair of tokens of a window.

    Args:
        window: frames, rows and columns of the window.
        table: those of the window that the table was made for, none smaller.

    Returns:
        int64 ``(N, N)``; the table has a row for each offset, (2t - 1)(2h - 1)(2w - 1) of them, columns fastest.
    """
    axes = torch.meshgrid(*(torch.arange(size) for size in window), indexing="ij")
    places = torch.stack(axes).flatten(1)
    offsets = places[:, :, None] - places[:, None, :]
    frames, rows, columns = (offset + size - 1 for offset, size in zip(offsets, table, strict=True))
    return (frames * (2 * table[1] - 1) + rows) * (2 * table[2] - 1) + columns


def window_mask(
    size: tuple[int, int], window: Window, shift: tuple[int, int], filled: tuple[int, int] | None = None
) -> torch.Tensor:
    """What is added to the scores of tokens that are in one window but not neighbours.

    Args:
        size: rows and columns of the map, multiples of the window's.
        window: frames, rows and columns.
        shift: how far the map was rolled, rows and columns.
        filled: rows and columns of the map before zeros were appended, to keep the tokens from the zeros.

    Returns:
        float32 ``(windows of a map, N, N)``: 0 or -100.
    """
    axes = []
    for axis in (0, 1):
        place, length, rolled = torch.arange(size[axis]), window[axis + 1], shift[axis]
        region = (place >= size[axis] - length).long() + (place >= size[axis] - rolled) if rolled else 0 * place
        if filled is not None:
            region = torch.where((place + rolled) % size[axis] >= filled[axis], 3, region)
        axes.append(region.unflatten(0, (-1, length)))
    rows, columns = axes
    labels = 4 * rows[:, None, :, None] + columns[None, :, None, :]
    labels = labels.flatten(2).flatten(0, 1).repeat(1, window[0])
    return torch.where(labels[:, :, None] == labels[:, None, :], 0.0, _APART)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each offset in time and space.

    Args:
        width: channels.
        heads: of the attention.
        window: frames, rows and columns; it shrinks to a smaller map.
        shift: whether windows are shifted by half in space.
        shift_time: whether they are shifted by half in time where there are several behind each other.
        as_published: see `LfVilaConfig`.
    """

    def __init__(
        self, width: int, heads: int, window: Window, shift: bool, shift_time: bool, as_published: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = (window[1] // 2, window[2] // 2) if shift else (0, 0)
        self.shift_time = shift_time and not as_published
        self.as_published = as_published
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        rows = math.prod(2 * size - 1 for size in window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self._cached: dict[Any, torch.Tensor] = {}
        self._cached_of: Any = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Attend: float ``(B, T, H, W, C)`` to the same shape."""
        if self.as_published:
            return self._attend(hidden_states)
        # Frames that fill no window are one of their own, smaller: nothing has to be padded, or masked, in time.
        frames, length = hidden_states.shape[1], self.window[0]
        first = length // 2 if self.shift_time and frames > length else 0
        whole = (frames - first) // length * length
        parts = [part for part in (first, whole, frames - first - whole) if part]
        if len(parts) == 1:
            return self._attend(hidden_states)
        return torch.cat([self._attend(part) for part in hidden_states.split(parts, dim=1)], dim=1)

    def _attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        batch, frames, rows, columns, width = hidden_states.shape
        window = (min(self.window[0], frames), min(self.window[1], rows), min(self.window[2], columns))
        down = self.shift[0] if rows > window[1] else 0
        right = self.shift[1] if columns > window[2] else 0
        padding = (-frames % window[0], -rows % window[1], -columns % window[2])
        states = functional.pad(hidden_states, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        if down or right:
            states = states.roll((-down, -right), (2, 3))
        size = (rows + padding[1], columns + padding[2])
        bias = self._bias(window, size, (down, right), (rows, columns))

        # Windows of one map stand beside the heads, so that one bias serves the whole batch and all of time.
        across, along = size[0] // window[1], size[1] // window[2]
        stretches = batch * (frames + padding[0]) // window[0]
        split = (stretches, window[0], across, window[1], along, window[2], 3, self.heads, width // self.heads)
        qkv = self.qkv(states).reshape(split).permute(6, 0, 2, 4, 7, 1, 3, 5, 8)
        query, key, value = qkv.reshape(3, stretches, len(bias), math.prod(window), width // self.heads)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype)[None])
        attended = attended.reshape(stretches, across, along, self.heads, *window, width // self.heads)
        attended = attended.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, -1, *size, width)

        if down or right:
            attended = attended.roll((down, right), (2, 3))
        return self.proj(attended[:, :frames, :rows, :columns])

    def _bias(
        self, window: Window, size: tuple[int, int], shift: tuple[int, int], filled: tuple[int, int]
    ) -> torch.Tensor:
        """What is added to the scores: float ``(windows of a map x heads, N, N)``, kept in evaluation."""
        table = self.relative_position_bias_table
        # A tensor made in inference mode does not count its changes.
        keep = not (self.training or torch.is_grad_enabled() or table.is_inference())
        if not keep:
            return self._make_bias(window, size, shift, filled)
        of = (table.data_ptr(), table._version, table.dtype, table.device)
        if of != self._cached_of:
            self._cached.clear()
            self._cached_of = of
        kind = (window, size, shift, filled)
        if kind not in self._cached:
            if len(self._cached) == _KEPT_BIASES:
                self._cached.pop(next(iter(self._cached)))
            self._cached[kind] = self._make_bias(*kind)
        return self._cached[kind]

    def _make_bias(
        self, window: Window, size: tuple[int, int], shift: tuple[int, int], filled: tuple[int, int]
    ) -> torch.Tensor:
        table, tokens = self.relative_position_bias_table, math.prod(window)
        if self.as_published:
            index = relative_positions(self.window, self.window)[:tokens, :tokens]  # D6
        else:
            index = relative_positions(window, self.window)
        bias = table[index.flatten().to(table.device)].view(tokens, tokens, self.heads).permute(2, 0, 1)
        windows = size[0] // window[1] * (size[1] // window[2])
        if any(shift) or (size != filled and not self.as_published):
            mask = window_mask(size, window, shift, None if self.as_published else filled)
            return (bias + mask.to(bias)[:, None]).flatten(0, 1)
        return bias.repeat(windows, 1, 1)


class WindowBlock(GradientCheckpointingLayer):
    """Pre-norm block; in training a whole residual branch of a sample is dropped with probability ``drop_path``."""

    def __init__(self, config: LfVilaVideoConfig, group: int, block: int, drop_path: float) -> None:
        super().__init__()
        width = config.width(group)
        window = config.window_sizes[group]
        odd, last = block % 2 == 1, group == len(config.depths) - 1
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = WindowAttention(
            width,
            config.num_heads[group],
            (window[0], window[1], window[2]),
            shift=odd,
            shift_time=odd and last,
            as_published=config.as_published,
        )
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        wide = config.mlp_ratio * width
        mlp = {"fc1": nn.Linear(width, wide), "activation": nn.GELU(), "fc2": nn.Linear(wide, width)}
        self.mlp = nn.Sequential(OrderedDict(mlp))
        self.drop_path = drop_path

    def _residual(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        kept = torch.empty(branch.shape[0], 1, 1, 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * kept / keep

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self._residual(self.attn(self.norm1(hidden_states)))
        return hidden_states + self._residual(self.mlp(self.norm2(hidden_states)))


class PatchMerging(nn.Module):
    """Squares of patches become one patch, side by side in the channels and then projected."""

    def __init__(self, config: LfVilaVideoConfig, width: int, out_width: int, side: int = 2) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(side**2 * width, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(side**2 * width, out_width, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float ``(B, T, H, W, C)`` to ``(B, T, H / side, W / side, C')``; what is missing of a square is zeros."""
        rows, columns = hidden_states.shape[2:4]
        states = functional.pad(hidden_states, (0, 0, 0, -columns % self.side, 0, -rows % self.side))
        squares = states.unflatten(3, (-1, self.side)).unflatten(2, (-1, self.side))  # B T H side W side C
        squares = squares.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)
        return self.reduction(self.norm(squares))


class WindowGroup(nn.Module):
    """Blocks with windows of one size; behind some groups patches are merged."""

    def __init__(self, config: LfVilaVideoConfig, group: int) -> None:
        super().__init__()
        before, last = sum(config.depths[:group]), max(sum(config.depths) - 1, 1)
        self.blocks = nn.ModuleList(
            WindowBlock(config, group, block, config.drop_path_rate * (before + block) / last)
            for block in range(config.depths[group])
        )
        merges = group in config.merge_after
        self.merge = PatchMerging(config, config.width(group), config.width(group + 1)) if merges else None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states if self.merge is None else self.merge(hidden_states)


class PatchEmbedding(nn.Module):
    """Pixels of one frame to patches; time is not touched."""

    def __init__(self, config: LfVilaVideoConfig) -> None:
        super().__init__()
        self.patch_size = (config.patch_size[0], config.patch_size[1])
        self.as_published = config.as_published
        self.proj = nn.Conv3d(3, config.embed_dim, (1, *self.patch_size), stride=(1, *self.patch_size))
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """float ``(B, T, 3, H, W)`` to ``(B, T, H / patch, W / patch, C)``."""
        height, width = pixel_values.shape[-2:]
        if self.as_published:
            if height < self.patch_size[0] or width < self.patch_size[1]:
                raise ValueError(
                    f"frames must be at least a patch of {self.patch_size[0]} x {self.patch_size[1]} pixels, found "
                    f"{height} x {width}; enlarge them"
                )
            if width % self.patch_size[1]:  # D5
                empty = self.patch_size[1] - width % self.patch_size[1]
                pixel_values = functional.pad(pixel_values, (0, 0, 0, 0, 0, 0, 0, empty))
        else:
            pixel_values = functional.pad(
                pixel_values, (0, -width % self.patch_size[1], 0, -height % self.patch_size[0])
            )
        weight = self.proj.weight.squeeze(2)
        flat = pixel_values.flatten(0, 1).to(weight.dtype)
        patches = functional.conv2d(flat, weight, self.proj.bias, stride=self.patch_size)
        return self.norm(patches.unflatten(0, pixel_values.shape[:2]).permute(0, 1, 3, 4, 2))


@dataclass
class LfVilaVideoOutput(ModelOutput):
    """What the encoder says of a video.

    Attributes:
        last_hidden_state: float ``(B, T, rows, columns, C)``.
        local_hidden_state: the same shape, seen through the groups with short temporal windows only; None if not asked.
    """

    last_hidden_state: torch.Tensor | None = None
    local_hidden_state: torch.Tensor | None = None


class LfVilaVideoEncoder(PreTrainedModel):
    """Frames, any number of them, to a map of tokens for each frame."""

    config_class = LfVilaVideoConfig
    config: Any
    base_model_prefix = "video_encoder"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["WindowBlock"]  # noqa: RUF012 (declared by the library)

    def __init__(self, config: LfVilaVideoConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbedding(config)
        self.groups = nn.ModuleList(WindowGroup(config, group) for group in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # What is tapped skips the merges behind it (in the published model one): it is merged as often at once (D20).
        skipped = 2 ** sum(after >= config.tap for after in config.merge_after)
        self.local_projection = PatchMerging(config, config.width(config.tap), config.hidden_size, skipped)
        self.local_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WindowAttention):
            init.normal_(module.relative_position_bias_table, mean=0.0, std=self.config.initializer_range)

    def stem(self, pixel_values: torch.Tensor, local: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
        """All groups but the last.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            local: whether the local features are wanted.

        Returns:
            what the last group is given, and the local features.
        """
        if pixel_values.ndim != 5 or pixel_values.shape[2] != 3 or not math.prod(pixel_values.shape):
            raise ValueError(
                f"pixel_values must be (B, T, 3, H, W) with at least one frame, found {tuple(pixel_values.shape)}; use "
                f"the processor that was saved with this model"
            )
        hidden_states, tapped = self.patch_embed(pixel_values), None
        for number, group in enumerate(self.groups[:-1]):
            tapped = hidden_states if number == self.config.tap else tapped
            hidden_states = group(hidden_states)
        if self.config.tap == len(self.groups) - 1:
            tapped = hidden_states
        if not local or tapped is None:
            return hidden_states, None
        return hidden_states, self.local_norm(self.local_projection(tapped))

    def finish(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The last group and the last norm."""
        return self.norm(self.groups[-1](hidden_states))

    def frames_at_once(self, frames: int) -> int:
        """How many of so many frames the stem may be given at a time without a difference to all of them."""
        windows = math.lcm(*(window[0] for window in self.config.window_sizes[:-1]))
        step = windows * math.ceil(_FRAMES_AT_ONCE / windows)
        if self.config.as_published and frames % step:
            return frames  # their windows are filled up with zeros at the very end only
        return min(step, frames)

    def forward(self, pixel_values: torch.Tensor, local: bool = True) -> LfVilaVideoOutput:
        """Encode videos.

        Without gradients, the groups before the last work on a stretch of frames at a time: what they hold in memory
        does not grow with the video.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised, any T, H and W from 1.
            local: whether the local features are wanted.

        Raises:
            ValueError: for another shape.
        """
        step = pixel_values.shape[1] if torch.is_grad_enabled() else self.frames_at_once(pixel_values.shape[1])
        parts = [self.stem(part, local) for part in pixel_values.split(max(step, 1), dim=1)]
        hidden_states = parts[0][0] if len(parts) == 1 else torch.cat([part for part, _ in parts], dim=1)
        locals_ = [part for _, part in parts if part is not None]
        last = self.finish(hidden_states)
        local_state = (torch.cat(locals_, dim=1) if locals_ else last) if local else None
        return LfVilaVideoOutput(last_hidden_state=last, local_hidden_state=local_state)
