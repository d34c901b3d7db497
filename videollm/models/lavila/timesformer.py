"""LaViLa's space-time encoder: a ViT whose blocks attend along time, then within each frame.

Notation: B clips, T frames, N patches of a frame, D width, H heads. Tokens: one class token for the whole clip, then
all patches of frame 0 row by row, then frame 1, ...
Source: Bain et al., "Frozen in Time" (2021), section 3.1; Zhao et al., "LaViLa" (2022), appendix; Bertasius et al.,
"Is Space-Time Attention All You Need?" (2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from .configuration_lavila import LavilaVisionConfig


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out: ``(B, H, L, D/H)`` to ``(B, L, H, D/H)``, and its weights."""
    weights = (query @ key.mT * scaling).softmax(dim=-1)
    return (weights @ value).transpose(1, 2), weights


class SpaceTimeAttention(nn.Module):
    """Self-attention of patches in groups; the class token sees all and is seen by all.

    Args:
        along: ``"time"``: a group is one place in all frames; ``"space"``: all places in one frame. Each patch attends
            to its group and the class token.
    """

    def __init__(self, config: LavilaVisionConfig, along: str) -> None:
        super().__init__()
        self.config = config
        self.along = along
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, frames: int) -> torch.Tensor:
        """Attend: float ``(B, 1 + T N, D)`` to the same."""
        query, key, value = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        class_token = self._attend(query[:, :1], key, value)
        key, value = (self._with_class_token(states, frames) for states in (key, value))
        patches = self._attend(self._grouped(query[:, 1:], frames), key, value)
        patches = self._swapped(patches.unflatten(0, (len(hidden_states), -1))).flatten(1, 2)
        return self.proj(torch.cat([class_token, patches], dim=1).flatten(2))

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of states ``(rows, tokens, H, D/H)``, by the implementation that the config names."""
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        states = (part.transpose(1, 2) for part in (query, key, value))
        return attention(self, *states, None, scaling=self.scaling, dropout=0.0)[0]

    def _swapped(self, states: torch.Tensor) -> torch.Tensor:
        """``(B, T, N, ...)`` to ``(B, groups, group, ...)``, or back."""
        return states.transpose(1, 2) if self.along == "time" else states

    def _grouped(self, patches: torch.Tensor, frames: int) -> torch.Tensor:
        """``(B, T N, H, D/H)`` to ``(B groups, group, H, D/H)``."""
        return self._swapped(patches.unflatten(1, (frames, -1))).flatten(0, 1)

    def _with_class_token(self, states: torch.Tensor, frames: int) -> torch.Tensor:
        """``(B, 1 + T N, H, D/H)`` to ``(B groups, 1 + group, H, D/H)``: the class token is a member of every group."""
        groups = self._grouped(states[:, 1:], frames)
        copies = states[:, :1].repeat_interleave(len(groups) // len(states), dim=0)
        return torch.cat([copies, groups], dim=1)


class SpaceTimeMLP(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, config: LavilaVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(hidden_states)))


class SpaceTimeBlock(GradientCheckpointingLayer):
    """Attention along time, then within frames, then an MLP.

    What attention along time gives is read by attention within frames only: it is not part of the residual stream.
    In training whole branches of a sample are dropped with probability ``drop_path``.
    """

    def __init__(self, config: LavilaVisionConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm_time = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.time_attention = SpaceTimeAttention(config, "time")
        self.time_gate = nn.Parameter(torch.zeros(())) if config.gated_time_attention else None
        self.norm_space = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.space_attention = SpaceTimeAttention(config, "space")
        self.norm_mlp = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SpaceTimeMLP(config)
        self.drop_path = drop_path

    def _kept(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        kept = torch.empty(len(branch), 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * kept / keep

    def forward(self, hidden_states: torch.Tensor, frames: int) -> torch.Tensor:
        """Float ``(B, 1 + T N, D)`` to the same.

        Args:
            hidden_states: of the class token and the patches, frame after frame.
            frames: T.
        """
        over_time = self.time_attention(self.norm_time(hidden_states), frames)
        if self.time_gate is not None:
            over_time = self.time_gate.tanh() * over_time
        within = self.space_attention(self.norm_space(hidden_states + over_time), frames)
        hidden_states = hidden_states + self._kept(within)
        return hidden_states + self._kept(self.mlp(self.norm_mlp(hidden_states)))


def resize_time_embedding(embedding: torch.Tensor, frames: int, mode: str = "bilinear") -> torch.Tensor:
    """The table of times for another number of frames, as published.

    Args:
        embedding: float ``(1, T, D)``.
        frames: how many are wanted; fewer than T: the first ones.
        mode: of more: ``"bilinear"`` stretches them over time, as in all published fine-tuning; ``"nearest"`` repeats
            them; ``"zeros"`` leaves the new ones 0.

    Returns:
        float ``(1, frames, D)``.

    Raises:
        ValueError: for no frames, or another mode.
    """
    if frames < 1 or mode not in ("bilinear", "nearest", "zeros"):
        raise ValueError(f"times are resized to 1 or more, bilinear, nearest or zeros; found {frames}, {mode!r}")
    known, width = embedding.shape[1:]
    if frames <= known:
        return embedding[:, :frames]
    if mode == "zeros":
        return torch.cat([embedding, embedding.new_zeros(1, frames - known, width)], dim=1)
    options = {"align_corners": False} if mode == "bilinear" else {}
    return nn.functional.interpolate(embedding[None], size=(frames, width), mode=mode, **options)[0]


class LavilaPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving of every LaViLa model."""

    config: Any
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["SpaceTimeBlock"]  # noqa: RUF012 (declared by the library)

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: the library would take modules without parameters of their own for initialised already, and pass over
        what is said of their children here and in GPT-2. That is for code that writes into parameters by itself.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LavilaVisionModel):
            std = module.config.initializer_range
            init.normal_(module.class_token, mean=0.0, std=std)
            init.normal_(module.position_embedding, mean=0.0, std=std)
            init.zeros_(module.time_embedding)
        elif isinstance(module, SpaceTimeBlock):
            # At the beginning nothing comes of attention along time: the model sees as one of single frames does.
            init.zeros_(module.time_attention.qkv.weight)
            init.zeros_(module.time_attention.qkv.bias)
            init.ones_(module.time_attention.proj.weight)
            init.zeros_(module.time_attention.proj.bias)
            if module.time_gate is not None:
                init.zeros_(module.time_gate)


class LavilaVisionModel(LavilaPreTrainedModel):
    """Clips to tokens, and to one vector."""

    config_class = LavilaVisionConfig

    def __init__(self, config: LavilaVisionConfig) -> None:
        super().__init__(config)
        width, last = config.hidden_size, max(config.num_hidden_layers - 1, 1)
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + config.patches_per_frame, width))
        self.time_embedding = nn.Parameter(torch.zeros(1, config.num_frames, width))
        self.pre_layernorm = nn.LayerNorm(width, eps=config.pre_layer_norm_eps) if config.pre_layernorm else None
        self.blocks = nn.ModuleList(
            SpaceTimeBlock(config, config.drop_path_rate * i / last) for i in range(config.num_hidden_layers)
        )
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.post_init()

    def resize_frames(self, frames: int, mode: str = "bilinear") -> None:
        """Make room for clips of more frames, or of fewer; see `resize_time_embedding`."""
        resized = resize_time_embedding(self.time_embedding.detach(), frames, mode)
        self.time_embedding = nn.Parameter(resized.clone(), requires_grad=self.time_embedding.requires_grad)
        self.config.num_frames = frames

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode clips.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised; T at most the config's ``num_frames``.

        Returns:
            ``last_hidden_state``: float ``(B, 1 + T N, D)``, after the last norm, the class token first;
            ``pooler_output``: float ``(B, D)``, the class token.

        Raises:
            ValueError: for another shape of clips, or too many frames.
        """
        size, most = self.config.image_size, self.config.num_frames
        if pixel_values.ndim != 5 or tuple(pixel_values.shape[2:]) != (3, size, size):
            raise ValueError(
                f"pixel_values must be (clips, frames, 3, {size}, {size}), found {tuple(pixel_values.shape)}; use the "
                f"processor that was saved with this model"
            )
        batch, frames = pixel_values.shape[:2]
        if not 1 <= frames <= most:
            raise ValueError(f"clips of {frames} frames were given, this model takes 1 to {most}; see resize_frames")
        patches = self.patch_embedding(pixel_values.flatten(0, 1).to(self.patch_embedding.weight.dtype))
        patches = patches.flatten(2).mT.unflatten(0, (batch, frames))
        patches = patches + self.position_embedding[:, None, 1:] + self.time_embedding[:, :frames, None]
        class_token = (self.class_token + self.position_embedding[:, :1]).expand(batch, -1, -1)
        hidden_states = torch.cat([class_token, patches.flatten(1, 2)], dim=1)
        if self.pre_layernorm is not None:
            hidden_states = self.pre_layernorm(hidden_states)
        for block in self.blocks:
            hidden_states = block(hidden_states, frames)
        hidden_states = self.layernorm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0])
