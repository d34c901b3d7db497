"""LaViLa's dual encoder: clips and texts as unit vectors of one space; and classifiers of clips.

Notation: B clips or texts, T frames, L text tokens, D width.
Source: Zhao et al., "LaViLa" (2022), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.models.auto.modeling_auto import AutoModel

from .configuration_lavila import LavilaClassifierConfig, LavilaDualEncoderConfig
from .losses import Contrast, contrastive_loss
from .timesformer import LavilaPreTrainedModel, LavilaVisionModel


@dataclass
class LavilaDualEncoderOutput(ModelOutput):
    """Embeddings of a batch.

    Attributes:
        loss: float ``()``, where it was asked for.
        accuracy: share of clips whose own text is nearest, float ``()``, beside the loss.
        logits_per_video: float ``(clips, texts)``, where both were given.
        video_embeds, text_embeds: float ``(B, projection_dim)``, of length 1; None where none were given.
    """

    loss: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None


class LavilaDualEncoder(LavilaPreTrainedModel):
    """Clips and texts in one space; each side may be used alone."""

    config_class = LavilaDualEncoderConfig

    def __init__(self, config: LavilaDualEncoderConfig) -> None:
        super().__init__(config)
        self.vision_model = LavilaVisionModel(config.vision_config)
        self.text_model = AutoModel.from_config(config.text_config)
        bias = config.nonlinear_projection
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=bias)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=bias)
        self.log_logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LavilaDualEncoder):
            init.constant_(module.log_logit_scale, -math.log(self.config.initial_temperature))

    @property
    def logit_scale(self) -> torch.Tensor:
        """What similarities are multiplied by: float ``()``, from 1 to the config's ``max_logit_scale``.

        Beyond its limits the parameter keeps its gradient, so that it finds its way back.
        """
        stored = self.log_logit_scale
        limited = stored.detach().clamp(0.0, math.log(self.config.max_logit_scale))
        return (stored + (limited - stored.detach())).exp()

    def get_video_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Clips in the shared space, of any length.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised.

        Returns:
            float ``(B, projection_dim)``.

        Raises:
            ValueError: see `LavilaVisionModel.forward`.
        """
        return self.visual_projection(self.vision_model(pixel_values).pooler_output)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Texts in the shared space, of any length.

        Args:
            input_ids: int ``(B, L)``, padded on the right. CLIP's text transformer is read at the largest id, which is
                that of the end token.
            attention_mask: ``(B, L)``, 0 at padding; DistilBERT needs it, CLIP's text transformer does not.

        Returns:
            float ``(B, projection_dim)``.
        """
        if self.config.text_config.model_type == "clip_text_model":
            states = self.text_model(input_ids).last_hidden_state
            pooled = states[torch.arange(len(states), device=states.device), input_ids.argmax(dim=-1)]
        else:
            pooled = self.text_model(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        if self.config.nonlinear_projection:
            pooled = pooled.relu()
        return self.text_projection(pooled)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        is_human: torch.Tensor | None = None,
        pseudo_logit_scale: float | None = None,
        **kwargs: Any,
    ) -> LavilaDualEncoderOutput:
        """Embed clips, texts, or both.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised; see `get_video_features`.
            input_ids, attention_mask: ``(B, L)``; see `get_text_features`.
            return_loss: row i of the clips belongs to row i of the texts: the contrastive loss over all processes.
            is_human, pseudo_logit_scale: see `contrastive_loss`.

        Raises:
            ValueError: if nothing was given, or one side only where the loss is asked for.
        """
        if pixel_values is None and input_ids is None:
            raise ValueError("the dual encoder was given neither clips nor texts; give pixel_values, input_ids or both")
        if return_loss and (pixel_values is None or input_ids is None):
            raise ValueError("the contrastive loss needs clips and their texts; give pixel_values and input_ids")
        videos = texts = logits = None
        contrast: Contrast | None = None
        if pixel_values is not None:
            videos = nn.functional.normalize(self.get_video_features(pixel_values), dim=-1)
        if input_ids is not None:
            texts = nn.functional.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
        if videos is not None and texts is not None:
            scale = self.logit_scale
            logits = scale * videos @ texts.mT
            if return_loss:
                contrast = contrastive_loss(
                    videos, texts, scale, is_human=is_human, pseudo_logit_scale=pseudo_logit_scale
                )
        return LavilaDualEncoderOutput(
            loss=None if contrast is None else contrast.loss,
            accuracy=None if contrast is None else contrast.accuracy,
            logits_per_video=logits,
            video_embeds=videos,
            text_embeds=texts,
        )


@dataclass
class LavilaClassifierOutput(ModelOutput):
    """Scores of classes.

    Attributes:
        loss: float ``()``, the sum over heads, where there are labels.
        logits: for each head, float ``(B, classes)``.
    """

    loss: torch.Tensor | None = None
    logits: tuple[torch.Tensor, ...] | None = None


class LavilaForVideoClassification(LavilaPreTrainedModel):
    """One head of classes, or several side by side, on the space-time encoder's class token."""

    config_class = LavilaClassifierConfig

    def __init__(self, config: LavilaClassifierConfig) -> None:
        super().__init__(config)
        self.vision_model = LavilaVisionModel(config.vision_config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.heads = nn.ModuleList(nn.Linear(config.vision_config.hidden_size, n) for n in config.num_classes)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LavilaForVideoClassification):
            for head in module.heads:
                init.normal_(head.weight, mean=0.0, std=self.config.head_initializer_range)
                init.zeros_(head.bias)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> LavilaClassifierOutput:
        """Classify clips.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised.
            labels: int ``(B, heads)``, or ``(B,)`` for one head.
            label_smoothing: of the loss; 0.1 in the published fine-tuning.

        Raises:
            ValueError: for labels of another number of heads; see also `LavilaVisionModel.forward`.
        """
        pooled = self.dropout(self.vision_model(pixel_values).pooler_output)
        logits = tuple(head(pooled) for head in self.heads)
        loss = None
        if labels is not None:
            labels = labels.reshape(len(pooled), -1)
            if labels.shape[1] != len(logits):
                raise ValueError(f"labels for {labels.shape[1]} heads were given, this model has {len(logits)}")
            losses = [
                nn.functional.cross_entropy(scores, labels[:, head], label_smoothing=label_smoothing)
                for head, scores in enumerate(logits)
            ]
            loss = torch.stack(losses).sum()
        return LavilaClassifierOutput(loss=loss, logits=logits)
