"""Video-LLaMA: clips and sounds become a few soft tokens in the prompt of a LLaMA decoder.

Notation: N clips (of video, or of sound) in the whole batch, B prompts, T frames, S audio segments, Q queries, F mel
bins, W fbank frames, L text tokens, D width.
Source: Zhang et al., "Video-LLaMA" (2023), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel, Blip2VisionModel

from ..imagebind.modeling_imagebind import ImageBindAudioModel
from .configuration_video_llama import VideoLlamaConfig

_VIDEO_INPUTS = ("pixel_values", "frame_mask", "frame_seconds", "video_features")
_AUDIO_INPUTS = ("audio_values", "segment_mask", "segment_seconds", "audio_features")


@dataclass
class VideoLlamaOutputWithPast(CausalLMOutputWithPast):
    """The decoder's output, and the soft tokens that went into it.

    Attributes:
        video_features: float ``(N, Q, D)`` or None.
        audio_features: float ``(N, Q, D)`` or None.
    """

    video_features: torch.Tensor | None = None
    audio_features: torch.Tensor | None = None


class VideoLlamaPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving."""

    config_class = VideoLlamaConfig
    config: VideoLlamaConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012 (declared by the library)
    _no_split_modules = [  # noqa: RUF012 (declared by the library)
        "Blip2EncoderLayer",
        "Blip2QFormerLayer",
        "ImageBindBlock",
        "LlamaDecoderLayer",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoLlamaForConditionalGeneration):
            for name in ("query_tokens", "video_query_tokens", "audio_query_tokens"):
                if getattr(module, name) is not None:
                    init.normal_(getattr(module, name), mean=0.0, std=self.config.initializer_range)
            for table in (module.frame_position_embedding, module.audio_position_embedding):
                if table is not None:
                    init.normal_(table.weight, mean=0.0, std=self.config.position_initializer_range)


class VideoLlamaForConditionalGeneration(VideoLlamaPreTrainedModel, GenerationMixin):
    """A decoder that is shown clips and sounds as soft tokens."""

    main_input_name = "input_ids"

    def __init__(self, config: VideoLlamaConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_model = Blip2VisionModel(config.vision_config)
        # The library uses one eps for every norm of the ViT; the published norm after it has its own.
        self.vision_model.post_layernorm.eps = config.vision_output_layer_norm_eps
        self.qformer = Blip2QFormerModel(config.qformer_config)
        frame_width = config.qformer_config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, frame_width))
        self.frame_position_embedding = nn.Embedding(config.max_frame_positions, frame_width)
        self.video_qformer = Blip2QFormerModel(config.video_qformer_config)
        clip_width = config.video_qformer_config.hidden_size
        self.video_query_tokens = nn.Parameter(torch.zeros(1, config.num_video_query_tokens, clip_width))
        self.video_projection = nn.Linear(clip_width, width)

        # Any: absent (None) in a model without an audio branch, which every method checks once, at its beginning.
        self.audio_model: Any = None
        self.audio_position_embedding: Any = None
        self.audio_qformer: Any = None
        self.audio_query_tokens: Any = None
        self.audio_projection: Any = None
        if config.audio_config is not None:
            self.audio_model = ImageBindAudioModel(config.audio_config)
            self.audio_position_embedding = nn.Embedding(config.max_audio_positions, config.audio_config.projection_dim)
            self.audio_qformer = Blip2QFormerModel(config.audio_qformer_config)
            sound_width = config.audio_qformer_config.hidden_size
            self.audio_query_tokens = nn.Parameter(torch.zeros(1, config.num_audio_query_tokens, sound_width))
            self.audio_projection = nn.Linear(sound_width, width)

        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        if self.generation_config is not None:
            self.generation_config.bos_token_id = config.bos_token_id
            self.generation_config.eos_token_id = config.eos_token_id
            self.generation_config.pad_token_id = config.pad_token_id
            # A placeholder that the decoder itself would say has no clip to stand for.
            placeholders = (config.video_token_id, config.audio_token_id)
            spoken = [token for token in placeholders if token < config.text_config.vocab_size]
            self.generation_config.suppress_tokens = spoken or None

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    # ---- sight

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the frame Q-Former makes of single frames.

        Args:
            pixel_values: float ``(N, 3, H, W)``, normalised, one frame a row. Position embeddings are interpolated
                where H or W differ from the config's ``image_size``.

        Returns:
            float ``(N, num_query_tokens, D_q)``.
        """
        size = self.config.vision_config.image_size
        patches = self.vision_model(
            pixel_values, interpolate_pos_encoding=tuple(pixel_values.shape[-2:]) != (size, size)
        ).last_hidden_state
        queries = self.query_tokens.expand(len(patches), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state

    def get_video_features(
        self,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        frame_seconds: torch.Tensor | None = None,
        frame_states: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The soft tokens of clips. A still image is a clip of one frame at 0 s.

        Args:
            pixel_values: float ``(N, T, 3, H, W)``; or None where ``frame_states`` are given.
            frame_mask: bool ``(N, T)``, false at padding; None: all frames are real.
            frame_seconds: float ``(N, T)``, the presentation time of each frame; needed where the config has
                ``frame_position_seconds``, unused otherwise.
            frame_states: float ``(N, T, Q, D_q)``, kept results of `encode_frames`.

        Returns:
            float ``(N, num_video_query_tokens, D_text)``.

        Raises:
            ValueError: for more frames than positions, for missing seconds, for both or neither of pixels and states.
        """
        if (pixel_values is None) == (frame_states is None):
            raise ValueError("get_video_features takes pixel_values or frame_states: give exactly one of them")
        if frame_states is None:
            assert pixel_values is not None
            frame_states = _encode_real_rows(self.encode_frames, pixel_values, frame_mask)
        positions = _positions(
            "frame", frame_states.shape[:2], frame_states.device, frame_mask, frame_seconds,
            self.config.max_frame_positions, self.config.frame_position_seconds,
        )  # fmt: skip
        states = frame_states + self.frame_position_embedding(positions).unsqueeze(2).to(frame_states.dtype)
        mask = None if frame_mask is None else frame_mask.repeat_interleave(states.shape[2], dim=1)
        hidden = self.video_qformer(
            query_embeds=self.video_query_tokens.expand(len(states), -1, -1),
            encoder_hidden_states=states.flatten(1, 2),
            encoder_attention_mask=mask,
        ).last_hidden_state
        return self.video_projection(hidden)

    # ---- sound

    def encode_audio_segments(self, audio_values: torch.Tensor) -> torch.Tensor:
        """ImageBind embeddings of segments of sound.

        Args:
            audio_values: float ``(N, 1, F, W)``, normalised log-mel, one segment a row.

        Returns:
            float ``(N, D_a)``.

        Raises:
            ValueError: if the model has no audio branch.
        """
        if self.audio_model is None:
            raise ValueError("this model has no audio branch (config.audio_config is None); show it pictures only")
        return self.audio_model(audio_values)

    def get_audio_features(
        self,
        audio_values: torch.Tensor | None = None,
        segment_mask: torch.Tensor | None = None,
        segment_seconds: torch.Tensor | None = None,
        segment_states: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The soft tokens of sounds.

        Args:
            audio_values: float ``(N, S, 1, F, W)``; or None where ``segment_states`` are given.
            segment_mask: bool ``(N, S)``, false at padding; None: all segments are real.
            segment_seconds: float ``(N, S)``, where each segment starts; needed where the config has
                ``audio_position_seconds``, unused otherwise.
            segment_states: float ``(N, S, D_a)``, kept results of `encode_audio_segments`.

        Returns:
            float ``(N, num_audio_query_tokens, D_text)``.

        Raises:
            ValueError: for more segments than positions, for missing seconds, for both or neither of sound and states,
                or if the model has no audio branch.
        """
        if self.audio_model is None:
            raise ValueError("this model has no audio branch (config.audio_config is None); show it pictures only")
        if (audio_values is None) == (segment_states is None):
            raise ValueError("get_audio_features takes audio_values or segment_states: give exactly one of them")
        if segment_states is None:
            assert audio_values is not None
            segment_states = _encode_real_rows(self.encode_audio_segments, audio_values, segment_mask)
        positions = _positions(
            "segment", segment_states.shape[:2], segment_states.device, segment_mask, segment_seconds,
            self.config.max_audio_positions, self.config.audio_position_seconds,
        )  # fmt: skip
        states = segment_states + self.audio_position_embedding(positions).to(segment_states.dtype)
        hidden = self.audio_qformer(
            query_embeds=self.audio_query_tokens.expand(len(states), -1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=segment_mask,
        ).last_hidden_state
        return self.audio_projection(hidden)

    # ---- words

    def embed(
        self,
        input_ids: torch.Tensor,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings of the prompt, with soft tokens in the place of placeholders, in order of appearance.

        Args:
            input_ids: int ``(B, L)``.
            video_features: float ``(N, Q, D)``, the clips of the whole batch, row after row.
            audio_features: float ``(N, Q, D)``, likewise.

        Returns:
            float ``(B, L, D)``.

        Raises:
            ValueError: if the number of placeholders is not that of the soft tokens.
        """
        placeholders = {
            "video": (input_ids == self.config.video_token_id, video_features),
            "audio": (input_ids == self.config.audio_token_id, audio_features),
        }
        # Placeholders may lie outside the vocabulary; any row does, it is overwritten.
        is_placeholder = placeholders["video"][0] | placeholders["audio"][0]
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_placeholder, 0))
        for kind, (places, features) in placeholders.items():
            found = int(places.sum())
            given = 0 if features is None else len(features) * features.shape[1]
            if found != given:
                raise ValueError(
                    f"the prompt has {found} {kind} placeholders, but {given} soft {kind} tokens were given; give each "
                    f"clip its run of placeholders, and each run its clip"
                )
            if features is not None and given:
                # The encoders may be on another device than the decoder.
                rows = features.flatten(0, 1).to(inputs_embeds)
                places = places.unsqueeze(-1).to(inputs_embeds.device)
                inputs_embeds = inputs_embeds.masked_scatter(places, rows)
        return inputs_embeds

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        frame_seconds: torch.Tensor | None = None,
        audio_values: torch.Tensor | None = None,
        segment_mask: torch.Tensor | None = None,
        segment_seconds: torch.Tensor | None = None,
        frame_states: torch.Tensor | None = None,
        segment_states: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> VideoLlamaOutputWithPast:
        """Logits of the next token at every place, and the loss where there are labels.

        Args:
            input_ids: int ``(B, L)``; placeholders stand where soft tokens go. Or give ``inputs_embeds`` alone.
            attention_mask: ``(B, L)``, 0 at padding (with a cache: over the cached tokens too).
            position_ids: int ``(B, L)``.
            past_key_values: the decoder's cache.
            inputs_embeds: float ``(B, L, D)``, e.g. from `embed`.
            pixel_values, frame_mask, frame_seconds: see `get_video_features`; all clips of the batch, row after row.
            audio_values, segment_mask, segment_seconds: see `get_audio_features`.
            frame_states, segment_states: kept encoder states, instead of pixels and mel images.
            video_features, audio_features: soft tokens, instead of pixels and sound.
            labels: int ``(B, L)``, -100 where nothing is to be learned; placeholders are never learned.
            logits_to_keep: compute logits of the last so many places only; 0: of all.

        Returns:
            loss (if labels), logits float ``(B, L, vocabulary)``, past_key_values.

        Raises:
            ValueError: see `get_video_features`, `get_audio_features` and `embed`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("forward takes input_ids or inputs_embeds: give exactly one of them")
        if pixel_values is not None or frame_states is not None:
            if video_features is not None:
                raise ValueError("forward takes pixel_values or video_features, found both: give one of them")
            video_features = self.get_video_features(pixel_values, frame_mask, frame_seconds, frame_states)
        if audio_values is not None or segment_states is not None:
            if audio_features is not None:
                raise ValueError("forward takes audio_values or audio_features, found both: give one of them")
            audio_features = self.get_audio_features(audio_values, segment_mask, segment_seconds, segment_states)
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, video_features, audio_features)
            if labels is not None:
                learned = (input_ids != self.config.video_token_id) & (input_ids != self.config.audio_token_id)
                labels = labels.masked_fill(~learned, -100)
        elif video_features is not None or audio_features is not None:
            raise ValueError("inputs_embeds already hold the soft tokens; give media together with input_ids instead")
        items = kwargs.pop("num_items_in_batch", None)
        kwargs.pop("return_dict", None)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **kwargs,
        )
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=outputs.logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=items,
            )
        return VideoLlamaOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_features=video_features,
            audio_features=audio_features,
        )

    # ---- generation

    def _clips_per_row(self, input_ids: torch.Tensor, kind: str) -> torch.Tensor:
        """How many clips of a kind each row of ids holds: int ``(B,)``."""
        token, queries = {
            "video": (self.config.video_token_id, self.config.num_video_query_tokens),
            "audio": (self.config.audio_token_id, self.config.num_audio_query_tokens),
        }[kind]
        count = (input_ids == token).sum(dim=1)
        if bool((count % queries).any()):
            raise ValueError(
                f"a {kind} takes {queries} placeholders in a row, found rows with {count.tolist()} to process; do not "
                f"cut a prompt or a cache inside a clip"
            )
        return count // queries

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Media go into the first step only, and of them only those that the cache does not hold already."""
        inputs = super().prepare_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue]
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        new_ids = inputs.get("input_ids")
        for kind, names in (("video", _VIDEO_INPUTS), ("audio", _AUDIO_INPUTS)):
            present = [name for name in names if inputs.get(name) is not None]
            if not present:
                continue
            if not is_first_iteration or new_ids is None:
                for name in present:
                    inputs.pop(name)
            elif new_ids.shape[1] < input_ids.shape[1]:
                per_row = self._clips_per_row(input_ids, kind).tolist()
                new_per_row = self._clips_per_row(new_ids, kind).tolist()
                kept, first = [], 0
                for total, new in zip(per_row, new_per_row, strict=True):
                    kept += range(first + total - new, first + total)
                    first += total
                for name in present:
                    inputs[name] = inputs[name][kept] if kept else None
        return inputs

    def _expand_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Beams and samples: media are encoded once, and repeated row by row (a row may hold several clips)."""
        if expand_size == 1 or input_ids is None:
            return super()._expand_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue]
                expand_size, is_encoder_decoder, input_ids, **model_kwargs
            )
        soft_tokens: dict[str, torch.Tensor] = {}
        encoders = (
            ("video", _VIDEO_INPUTS, self.get_video_features),
            ("audio", _AUDIO_INPUTS, self.get_audio_features),
        )
        for kind, names, encode in encoders:
            *media, ready = (model_kwargs.pop(name, None) for name in names)
            if media[0] is not None:
                ready = encode(*media)
            if ready is not None:
                per_row = self._clips_per_row(input_ids, kind).tolist()
                rows = [row for clips in ready.split(per_row) for row in [clips] * expand_size]
                soft_tokens[names[-1]] = torch.cat(rows)
        expanded_ids, model_kwargs = super()._expand_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue]
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return expanded_ids, {**model_kwargs, **soft_tokens}


def _encode_real_rows(
    encode: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Encode ``(N, T, ...)`` row by row; padding is not encoded, its states are zero."""
    clips, rows = values.shape[:2]
    if mask is None:
        states = encode(values.flatten(0, 1))
        return states.unflatten(0, (clips, rows))
    mask = mask.bool()
    real = encode(values[mask])
    states = real.new_zeros((clips, rows, *real.shape[1:]))
    states[mask.to(real.device)] = real
    return states


def _positions(
    what: str,
    shape: torch.Size,
    device: torch.device,
    mask: torch.Tensor | None,
    seconds: torch.Tensor | None,
    table_size: int,
    unit_seconds: float | None,
) -> torch.Tensor:
    """Rows of a position table, int ``(N, T)``: by order as published, or by seconds."""
    if unit_seconds is not None:
        if seconds is None:
            raise ValueError(
                f"this model places {what}s by their seconds (config), but {what}_seconds was not given; pass what the "
                f"processor returned"
            )
        places = torch.round(seconds.to(device=device, dtype=torch.float32) / unit_seconds)
        return places.clamp(0, table_size - 1).long()
    if mask is None:
        longest, places = shape[1], torch.arange(shape[1], device=device).expand(shape)
    else:
        places = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        longest = int(mask.sum(dim=1).max()) if mask.numel() else 0
    if longest > table_size:
        raise ValueError(
            f"{longest} {what}s were given, but the model has {table_size} {what} positions; sample fewer {what}s, or "
            f"use a model that places them by seconds"
        )
    return places
