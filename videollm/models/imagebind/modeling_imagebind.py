"""ImageBind's audio, vision and text trunks.

Notation: B batch, F mel bins, W fbank frames, L text tokens, N tokens, D width, H heads.
Source: Girdhar et al. 2023. Written from the published description; weights load by name (`videollm.convert`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel

from .configuration_imagebind import (
    ImageBindAudioConfig,
    ImageBindConfig,
    ImageBindTextConfig,
    ImageBindVisionConfig,
)

TrunkConfig = ImageBindAudioConfig | ImageBindVisionConfig | ImageBindTextConfig


class ImageBindAttention(nn.Module):
    """Self-attention; with ``add_bias_kv`` every query may also attend to one learned key and value.

    A causal one lets each token attend to itself and those before it.
    """

    def __init__(self, config: TrunkConfig, causal: bool = False) -> None:
        super().__init__()
        if causal and config.add_bias_kv:
            raise ValueError("causal attention has no learned key and value; set add_bias_kv to false")
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, found {config.hidden_size} and "
                f"{config.num_attention_heads}; change one of them"
            )
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.causal = causal
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.bias_k = nn.Parameter(torch.zeros(1, 1, width)) if config.add_bias_kv else None
        self.bias_v = nn.Parameter(torch.zeros(1, 1, width)) if config.add_bias_kv else None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Attend: float ``(B, N, D)`` to float ``(B, N, D)``."""
        batch, _, width = hidden_states.shape
        query, key, value = self.in_proj(hidden_states).chunk(3, dim=-1)
        if self.bias_k is not None and self.bias_v is not None:
            key = torch.cat([key, self.bias_k.to(key.dtype).expand(batch, -1, -1)], dim=1)
            value = torch.cat([value, self.bias_v.to(value.dtype).expand(batch, -1, -1)], dim=1)
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in (query, key, value)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, -1, width))


class ImageBindMLP(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(hidden_states)))


class ImageBindBlock(GradientCheckpointingLayer):
    """Pre-norm block; in training a whole residual branch of a sample is dropped with probability ``drop_path``."""

    def __init__(self, config: TrunkConfig, drop_path: float, causal: bool = False) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = ImageBindAttention(config, causal)
        self.norm_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ImageBindMLP(config)
        self.drop_path = drop_path

    def _residual(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        kept = torch.empty(branch.shape[0], 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * kept / keep

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self._residual(self.attn(self.norm_1(hidden_states)))
        return hidden_states + self._residual(self.mlp(self.norm_2(hidden_states)))


class ImageBindPreTrainedModel(PreTrainedModel):
    """Initialisation and loading of every ImageBind trunk."""

    config_class = ImageBindConfig
    config: Any
    base_model_prefix = "imagebind"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ImageBindBlock"]  # noqa: RUF012 (declared by the library)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ImageBindAttention) and module.bias_k is not None and module.bias_v is not None:
            init.normal_(module.bias_k, mean=0.0, std=std)
            init.normal_(module.bias_v, mean=0.0, std=std)
        elif isinstance(module, ImageBindAudioModel | ImageBindVisionModel):
            init.normal_(module.cls_token, mean=0.0, std=std)
            init.normal_(module.position_embedding, mean=0.0, std=std)
        elif isinstance(module, ImageBindTextModel):
            init.normal_(module.position_embedding, mean=0.0, std=std)
            init.constant_(module.log_logit_scale, math.log(module.config.initial_logit_scale))


def _blocks(config: TrunkConfig, causal: bool = False) -> nn.ModuleList:
    last = max(config.num_hidden_layers - 1, 1)
    return nn.ModuleList(
        ImageBindBlock(config, config.drop_path_rate * i / last, causal) for i in range(config.num_hidden_layers)
    )


class ImageBindAudioModel(ImageBindPreTrainedModel):
    """A mel image to one vector of the shared space, of length ``logit_scale``."""

    config_class = ImageBindAudioConfig
    main_input_name = "audio_values"

    def __init__(self, config: ImageBindAudioConfig) -> None:
        super().__init__(config)
        rows, columns = config.grid
        if rows < 1 or columns < 1:
            raise ValueError(
                f"a patch of {tuple(config.patch_size)} does not fit a mel image of "
                f"{config.num_mel_bins} x {config.target_length}; make the patch smaller"
            )
        kernel, stride = (config.patch_size[0], config.patch_size[1]), (config.patch_stride[0], config.patch_stride[1])
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, kernel, stride=stride, bias=False)
        self.stem_layernorm = nn.LayerNorm(config.hidden_size, eps=config.stem_layer_norm_eps)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))
        self.blocks = _blocks(config)
        self.head_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def tokens(self, audio_values: torch.Tensor) -> torch.Tensor:
        """Hidden states of all tokens, the class token first.

        Args:
            audio_values: float ``(B, 1, F, W)``, normalised log-mel.

        Returns:
            float ``(B, 1 + patches, D)``, before the head's norm; patches run over time within a band of mel bins.

        Raises:
            ValueError: if F or W are not those of the config.
        """
        expected = (1, self.config.num_mel_bins, self.config.target_length)
        if audio_values.ndim != 4 or tuple(audio_values.shape[1:]) != expected:
            raise ValueError(
                f"audio_values must be (B, {expected[0]}, {expected[1]}, {expected[2]}), found "
                f"{tuple(audio_values.shape)}; use the processor that was saved with this model"
            )
        patches = self.patch_embedding(audio_values.to(self.patch_embedding.weight.dtype))
        patches = self.stem_layernorm(patches.flatten(2).transpose(1, 2))
        cls_token = self.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        hidden_states = torch.cat([cls_token, patches], dim=1) + self.position_embedding.to(patches.dtype)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states

    def forward(self, audio_values: torch.Tensor) -> torch.Tensor:
        """Embed mel images.

        Args:
            audio_values: float ``(B, 1, F, W)``, normalised log-mel.

        Returns:
            float ``(B, projection_dim)``, each row of length ``logit_scale``.
        """
        pooled = self.head_projection(self.head_layernorm(self.tokens(audio_values)[:, 0]))
        return nn.functional.normalize(pooled, dim=-1) * self.config.logit_scale


class ImageBindVisionModel(ImageBindPreTrainedModel):
    """A picture to one unit vector of the shared space."""

    config_class = ImageBindVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ImageBindVisionConfig) -> None:
        super().__init__(config)
        patch = (config.num_frames, config.patch_size, config.patch_size)
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Conv3d(3, config.hidden_size, patch, stride=patch, bias=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + patches, config.hidden_size))
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.blocks = _blocks(config)
        self.head_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Args:
            pixel_values: float ``(B, 3, H, W)``, normalised; H and W are the config's ``image_size``.

        Returns:
            float ``(B, projection_dim)``, rows of length 1.
        """
        frames = pixel_values.to(self.patch_embedding.weight.dtype).unsqueeze(2)
        frames = frames.expand(-1, -1, self.config.num_frames, -1, -1)
        patches = self.patch_embedding(frames).flatten(2).transpose(1, 2)
        cls_token = self.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        hidden_states = torch.cat([cls_token, patches], dim=1) + self.position_embedding.to(patches.dtype)
        hidden_states = self.pre_layernorm(hidden_states)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        pooled = self.head_projection(self.head_layernorm(hidden_states[:, 0]))
        return nn.functional.normalize(pooled, dim=-1)


class ImageBindTextModel(ImageBindPreTrainedModel):
    """Words to one vector of the shared space, of the learned length ``exp(log_logit_scale)``.

    Its tokens are CLIP's: see `videollm.models.imagebind.text_tokenizer`.
    """

    config_class = ImageBindTextConfig
    main_input_name = "input_ids"

    def __init__(self, config: ImageBindTextConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Parameter(torch.zeros(1, config.max_position_embeddings, config.hidden_size))
        self.blocks = _blocks(config, causal=True)
        self.head_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.initial_logit_scale)))
        self.post_init()

    def tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states of all tokens.

        Args:
            input_ids: int ``(B, L)``, L at most the config's ``max_position_embeddings``.

        Returns:
            float ``(B, L, D)``, before the head's norm; none depends on what stands behind it.

        Raises:
            ValueError: if L is larger.
        """
        longest = self.config.max_position_embeddings
        if input_ids.ndim != 2 or input_ids.shape[1] > longest:
            raise ValueError(
                f"input_ids must be (B, L) with L at most {longest}, found {tuple(input_ids.shape)}; cut the text"
            )
        hidden_states = self.token_embedding(input_ids) + self.position_embedding[:, : input_ids.shape[1]]
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed texts.

        Args:
            input_ids: int ``(B, L)``: a start token, the text, an end token, and padding of any kind.

        Returns:
            float ``(B, projection_dim)``, rows of length ``exp(log_logit_scale)``, at most ``max_logit_scale``.

        Raises:
            ValueError: if a text has no end token, or is too long.

        The published code reads each text at its highest id, which is the same wherever there is an end token.
        """
        is_end = input_ids == self.config.eos_token_id
        if not bool(is_end.any(dim=1).all()):
            raise ValueError(
                f"every text needs its end token (id {self.config.eos_token_id}); make input_ids with "
                f"videollm.models.imagebind.tokenise"
            )
        ends = is_end.int().argmax(dim=1)
        states = self.tokens(input_ids)
        read = states[torch.arange(len(states), device=states.device), ends.to(states.device)]
        pooled = self.head_projection(self.head_layernorm(read))
        scale = self.log_logit_scale.exp().clamp(max=self.config.max_logit_scale)
        return nn.functional.normalize(pooled, dim=-1) * scale


class ImageBindModel(ImageBindPreTrainedModel):
    """The trunks that the config names, side by side."""

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__(config)
        self.audio_model = ImageBindAudioModel(config.audio_config) if config.audio_config is not None else None
        self.vision_model = ImageBindVisionModel(config.vision_config) if config.vision_config is not None else None
        self.text_model = ImageBindTextModel(config.text_config) if config.text_config is not None else None
        self.post_init()
