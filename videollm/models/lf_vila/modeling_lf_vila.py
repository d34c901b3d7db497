"""LF-VILA: long videos and paragraphs in one space, and read together.

BERT is cut in three: the first layers read each sentence alone, the next all sentences of a paragraph, the last words
and video together. Clips are matched with sentences, videos with paragraphs.

Notation: B samples, T frames, P tokens of a frame, K clips, M sentences, L tokens of a sentence, D width.
Source: Sun et al. 2022, section 3. What of the published model is corrected is listed in `LfVilaConfig`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bert.modeling_bert import BertModel, BertPredictionHeadTransform
from transformers.utils.generic import ModelOutput

from . import losses
from .configuration_lf_vila import LfVilaConfig
from .video_encoder import LfVilaVideoEncoder, WindowAttention


class SentenceBridge(nn.Module):
    """The sentences of a paragraph, read alone so far, become one sequence with a token for the paragraph before it."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__()
        text = config.text_config
        self.as_published = config.as_published
        self.position_embeddings = nn.Embedding(text.max_position_embeddings, text.hidden_size)
        self.segment_embeddings = nn.Embedding(config.max_sentences, text.hidden_size)
        self.norm = nn.LayerNorm(text.hidden_size, eps=text.layer_norm_eps)
        self.dropout = nn.Dropout(text.hidden_dropout_prob)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Join sentences.

        Args:
            states: float ``(B, M, L, D)``.
            attention_mask: ``(B, M, L)``, 1 for words and 0 for padding.

        Returns:
            float ``(B, 1 + M x L, D)`` and its mask ``(B, 1 + M x L)``. The first token is the mean of the sentences'
            first tokens: of those with words, or, as published, of all.

        Raises:
            ValueError: for more sentences or tokens than the tables have rows.
        """
        _, sentences, length, _ = states.shape
        rows, places = self.segment_embeddings.num_embeddings, self.position_embeddings.num_embeddings
        if sentences > rows or sentences * length > places:
            raise ValueError(
                f"a paragraph may have {rows} sentences and {places} tokens, found {sentences} x {length}; join or cut "
                f"sentences, as embed_paragraph does"
            )
        place = torch.arange(sentences * length, device=states.device).view(sentences, length)
        states = states + self.position_embeddings(place) + self.segment_embeddings(place[:, :1] // length)
        states = self.dropout(self.norm(states))
        first = states[:, :, 0]
        if self.as_published:
            paragraph = first.mean(dim=1)
        else:
            present = attention_mask[:, :, :1].to(states.dtype)
            paragraph = (first * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        mask = attention_mask.flatten(1)
        tokens = torch.cat([paragraph[:, None], states.flatten(1, 2)], dim=1)
        return tokens, torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)


class LfVilaTextEncoder(nn.Module):
    """BERT cut in three, with a bridge between sentences and paragraph."""

    def __init__(self, config: LfVilaConfig, cross: bool) -> None:
        super().__init__()
        if config.video_config.hidden_size != config.text_config.hidden_size:
            raise ValueError(
                f"words and video must be equally wide, found {config.text_config.hidden_size} and "
                f"{config.video_config.hidden_size}; change one of them"
            )
        self.config = config
        self.bert = BertModel(config.text_config, add_pooling_layer=cross)
        self.bridge = SentenceBridge(config)

    def _run(self, states: torch.Tensor, mask: torch.Tensor, first: int, last: int) -> torch.Tensor:
        masked_score = self.config.masked_score
        lowest = torch.finfo(states.dtype).min
        score = lowest if masked_score is None else max(float(masked_score), lowest)
        attention_mask = (1.0 - mask.to(states.dtype))[:, None, None, :] * score
        # Where all scores of a row are the lowest number, as of a published sentence without words, attention is even;
        # but the fused kernels sum up their gradients as if each token had all of it.
        even = self.config.as_published and torch.is_grad_enabled() and not mask.any(dim=1).all()
        with sdpa_kernel(SDPBackend.MATH) if even else nullcontext():
            for layer in self.bert.encoder.layer[first:last]:
                states = layer(states, attention_mask)
        return states

    def read_sentences(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Each sentence alone: int64 ids and mask ``(B, M, L)`` to float ``(B, M, L, D)``."""
        batch, sentences, length = input_ids.shape
        longest = self.bert.embeddings.position_embeddings.num_embeddings
        if length > longest:
            raise ValueError(f"a sentence may have {longest} tokens, found {length}; cut it, as embed_paragraph does")
        states = self.bert.embeddings(input_ids=input_ids.flatten(0, 1))
        states = self._run(states, attention_mask.flatten(0, 1), 0, self.config.sentence_layers)
        return states.unflatten(0, (batch, sentences))

    def read_paragraph(self, states: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sentences together: float ``(B, M, L, D)`` to float ``(B, 1 + M x L, D)``, the paragraph first; its mask."""
        tokens, mask = self.bridge(states, attention_mask)
        first = self.config.sentence_layers
        return self._run(tokens, mask, first, first + self.config.paragraph_layers), mask

    def read_with_video(self, tokens: torch.Tensor, mask: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
        """Words and video in one sequence: float ``(B, 1 + M x L, D)`` and ``(B, T x P, D)`` to both, joined."""
        first = self.config.sentence_layers + self.config.paragraph_layers
        joined = torch.cat([tokens, video], dim=1)
        seen = torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, video.shape[1])], dim=1)
        return self._run(joined, seen, first, self.config.text_config.num_hidden_layers)


class VideoPositions(nn.Module):
    """Tokens of a video are told their place in the frame and in time before they are read with words."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.as_published = config.as_published
        self.space = nn.Parameter(torch.zeros(1, 1, config.video_config.tokens_per_frame, width))
        self.time = nn.Parameter(torch.zeros(1, config.num_frames, 1, width))
        self.norm = nn.LayerNorm(width, eps=config.video_config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float ``(B, T, P, D)`` to the same shape.

        Raises:
            ValueError: for frames of another size; as published, also for another number of frames.
        """
        frames, patches = tokens.shape[1:3]
        if patches != self.space.shape[2]:
            raise ValueError(
                f"words are read with {self.space.shape[2]} tokens of a frame, found {patches}; give frames of the "
                f"size in the config"
            )
        time = self.time
        if frames != time.shape[1]:
            if self.as_published:
                raise ValueError(f"words are read with {time.shape[1]} frames, found {frames}; give as many")
            time = functional.interpolate(time[:, :, 0].mT, size=frames, mode="linear").mT[:, :, None]
        return self.norm(tokens + self.space + time)


@dataclass(frozen=True)
class VideoFeatures:
    """What is known of videos before words come in.

    Attributes:
        tokens: float ``(B, T, P, D)``.
        local_tokens: the same of the local features; None if not asked for.
    """

    tokens: torch.Tensor
    local_tokens: torch.Tensor | None = None


def clip_means(tokens: torch.Tensor, clips: int) -> torch.Tensor:
    """Tokens of frames to vectors of equal stretches of time, the first ones a frame longer where it does not come out.

    Args:
        tokens: float ``(B, T, P, D)``.
        clips: K, at most T.

    Returns:
        float ``(B, K, D)``.
    """
    frames = tokens.mean(dim=2)
    return torch.stack([clip.mean(dim=1) for clip in frames.tensor_split(clips, dim=1)], dim=1)


class LfVilaPreTrainedModel(PreTrainedModel):
    """Initialisation and loading of every LF-VILA model, and what they have in common."""

    config_class = LfVilaConfig
    config: Any
    base_model_prefix = "lf_vila"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["WindowBlock", "BertLayer"]  # noqa: RUF012 (declared by the library)

    video_encoder: LfVilaVideoEncoder

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, VideoPositions):
            init.normal_(module.space, mean=0.0, std=std)
            init.normal_(module.time, mean=0.0, std=std)
        elif isinstance(module, WindowAttention):
            init.normal_(module.relative_position_bias_table, mean=0.0, std=std)

    def pool(self, states: torch.Tensor) -> torch.Tensor:
        """A map of tokens to fewer: float ``(B, T, rows, columns, D)`` to ``(B, T, P, D)`` by max-pooling."""
        size = self.config.video_config.pool_size
        kernel = (min(size[0], states.shape[2]), min(size[1], states.shape[3]))
        pooled = functional.max_pool2d(states.flatten(0, 1).permute(0, 3, 1, 2), kernel, stride=1)
        return pooled.flatten(2).mT.unflatten(0, states.shape[:2])

    def encode_video(self, pixel_values: torch.Tensor, local: bool = False) -> VideoFeatures:
        """Frames to tokens.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            local: whether `VideoFeatures.local_tokens` are wanted.
        """
        tap = local and self.config.local_features == "tap"
        seen = self.video_encoder(pixel_values, local=tap)
        tokens = self.pool(seen.last_hidden_state)
        return VideoFeatures(tokens, (self.pool(seen.local_hidden_state) if tap else tokens) if local else None)


def _unit(states: torch.Tensor) -> torch.Tensor:
    return functional.normalize(states, dim=-1)


@dataclass
class LfVilaContrastiveOutput(ModelOutput):
    """Videos and paragraphs in one space.

    Attributes:
        loss: the weighted sum of what follows; None in retrieval without ``return_loss``.
        global_loss: of videos and paragraphs.
        mtc_loss: of clips and sentences, weighted; None in a model without them.
        video_embeds, text_embeds: float ``(B, D)``, unit vectors.
        clip_embeds, sentence_embeds: float ``(B, K, D)``, unit vectors; None in a model without them.
    """

    loss: torch.Tensor | None = None
    global_loss: torch.Tensor | None = None
    mtc_loss: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    clip_embeds: torch.Tensor | None = None
    sentence_embeds: torch.Tensor | None = None


@dataclass
class LfVilaMatchingOutput(ModelOutput):
    """Words and video read together.

    Attributes:
        loss: the weighted sum of what follows.
        mlm_loss: of masked words, in the samples whose video matches.
        vtm_loss: of telling which match, weighted.
        mlm_logits: float ``(labelled words, V)``, in the order of the samples.
        vtm_logits: float ``(B, 2)``; class 1 is matched.
        vtm_labels: int64 ``(B,)``.
        hidden_states: float ``(B, 1 + M x L + T x P, D)``.
        pooled: float ``(B, D)``.
    """

    loss: torch.Tensor | None = None
    mlm_loss: torch.Tensor | None = None
    vtm_loss: torch.Tensor | None = None
    mlm_logits: torch.Tensor | None = None
    vtm_logits: torch.Tensor | None = None
    vtm_labels: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None
    pooled: torch.Tensor | None = None


class _DualEncoder(LfVilaPreTrainedModel):
    """Videos and paragraphs to unit vectors."""

    text_encoder: LfVilaTextEncoder
    video_global_projection: nn.Linear
    text_global_projection: nn.Linear

    def video_vectors(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of videos: float ``(B, T, P, D)`` to ``(B, D)``; all frames count alike."""
        return _unit(self.video_global_projection(tokens.mean(dim=(1, 2))))

    def paragraph_vectors(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of paragraphs: float ``(B, 1 + M x L, D)`` to ``(B, D)``."""
        return _unit(self.text_global_projection(tokens[:, 0]))


class LfVilaForPreTraining(_DualEncoder):
    """Both stages of pretraining, and the encoder of clips and sentences.

    A model whose BERT ends with the paragraph is of the first stage. With further layers it is of the second; what the
    first has trained is frozen by `freeze_first_stage`.
    """

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.video_encoder = LfVilaVideoEncoder(config.video_config)
        self.text_encoder = LfVilaTextEncoder(config, cross=True)
        self.video_local_projection = nn.Linear(width, width)
        self.text_local_projection = nn.Linear(width, width)
        self.video_global_projection = nn.Linear(width, width)
        self.text_global_projection = nn.Linear(width, width)
        self.mlm_transform = BertPredictionHeadTransform(config.text_config)
        self.mlm_decoder = nn.Linear(width, config.text_config.vocab_size)
        self.match_head = nn.Linear(width, 2)
        self.video_positions = VideoPositions(config) if config.cross_layers else None
        self._frozen: list[nn.Module] = []
        self.post_init()

    def freeze_first_stage(self) -> None:
        """Freeze what the second stage does not train, and keep it without dropout, whatever `train` is called with."""
        bert, last = self.text_encoder.bert, self.config.sentence_layers + self.config.paragraph_layers
        self._frozen = [
            self.video_encoder,
            self.video_local_projection,
            self.text_local_projection,
            self.video_global_projection,
            self.text_global_projection,
            self.text_encoder.bridge,
            bert.embeddings,
            *bert.encoder.layer[:last],
        ]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True):
        """As the library's; frozen parts stay in evaluation."""
        super().train(mode)
        for module in self.__dict__.get("_frozen", ()):
            module.eval()
        return self

    def clip_vectors(self, tokens: torch.Tensor, clips: int) -> torch.Tensor:
        """Unit vectors of clips: the local features, float ``(B, T, P, D)``, to ``(B, K, D)``."""
        return _unit(self.video_local_projection(clip_means(tokens, clips)))

    def sentence_vectors(self, states: torch.Tensor) -> torch.Tensor:
        """Unit vectors of sentences read alone: float ``(..., L, D)`` to ``(..., D)``."""
        return _unit(self.text_local_projection(states[..., 0, :]))

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        draw: losses.MtcDraw | None = None,
    ) -> LfVilaContrastiveOutput | LfVilaMatchingOutput:
        """The losses of a stage: the second where there are ``labels``, else the first.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            input_ids, attention_mask: int64 ``(B, M, L)``; in the second stage with words masked.
            labels: int64 ``(B, M, L)``: the id of a masked word, -100 elsewhere (`losses.mask_words`).
            draw: positions for MTC, of the samples of all processes; None: drawn here.
        """
        if labels is None:
            return self._contrast(pixel_values, input_ids, attention_mask, draw)
        return self._match(pixel_values, input_ids, attention_mask, labels)

    def _contrast(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor, draw: losses.MtcDraw | None
    ) -> LfVilaContrastiveOutput:
        config, moments = self.config, input_ids.shape[1]
        video = self.encode_video(pixel_values, local=True)
        sentences = self.text_encoder.read_sentences(input_ids, mask)
        paragraph, _ = self.text_encoder.read_paragraph(sentences, mask)
        clips, said = self.clip_vectors(video.local_tokens, moments), self.sentence_vectors(sentences)
        videos, paragraphs = self.video_vectors(video.tokens), self.paragraph_vectors(paragraph)

        all_clips, all_said = losses.gathered(clips), losses.gathered(said)
        _, by_video, by_text = losses.global_contrastive(
            losses.gathered(videos), losses.gathered(paragraphs), config.temperature
        )
        if draw is None:
            draw = losses.draw_mtc(len(all_clips), moments, config.mtc_anchors, config.mtc_candidates)
        ordered = losses.mtc(
            all_clips, all_said, draw, config.mtc_negatives, config.mtc_temperature, config.as_published
        )
        global_loss, mtc_loss = by_video + by_text, config.mtc_weight * ordered.loss
        return LfVilaContrastiveOutput(
            global_loss + mtc_loss if config.mtc_weight else global_loss,
            global_loss, mtc_loss, videos, paragraphs, clips, said,
        )  # fmt: skip

    def _match(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> LfVilaMatchingOutput:
        if self.video_positions is None:
            raise ValueError(
                "a model of the first stage has no layers that read words and video together; give its config more "
                "BERT layers"
            )
        config, batch = self.config, len(input_ids)
        shown, matched = losses.mismatched(batch, config.as_published)
        matched = matched.to(pixel_values.device)
        tokens = self.encode_video(pixel_values).tokens
        video = self.video_positions(tokens)[shown.to(tokens.device)].flatten(1, 2)
        sentences = self.text_encoder.read_sentences(input_ids, mask)
        paragraph, mask = self.text_encoder.read_paragraph(sentences, mask)
        states = self.text_encoder.read_with_video(paragraph, mask, video)
        pooler: Any = self.text_encoder.bert.pooler
        pooled = pooler(states)
        vtm_logits = self.match_head(pooled)

        flat = labels.flatten(1)
        asked = flat != losses.IGNORED
        words = states[:, 1 : 1 + flat.shape[1]][asked]
        mlm_logits = self.mlm_decoder(self.mlm_transform(words))
        counted = (asked & (matched == 1)[:, None])[asked]
        mlm_total = functional.cross_entropy(mlm_logits[counted], flat[asked][counted], reduction="sum")
        mlm_loss = config.mlm_weight * mlm_total / counted.sum().clamp(min=1)
        vtm_loss = config.vtm_weight * functional.cross_entropy(vtm_logits, matched)
        return LfVilaMatchingOutput(
            mlm_loss + vtm_loss, mlm_loss, vtm_loss, mlm_logits, vtm_logits, matched, states, pooled
        )


class LfVilaForRetrieval(_DualEncoder):
    """Whole videos and paragraphs in one space, fine-tuned for retrieval."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.video_encoder = LfVilaVideoEncoder(config.video_config)
        self.text_encoder = LfVilaTextEncoder(config, cross=False)
        self.video_global_projection = nn.Linear(width, width)
        self.text_global_projection = nn.Linear(width, width)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> LfVilaContrastiveOutput:
        """Vectors and the global contrastive loss.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            input_ids, attention_mask: int64 ``(B, M, L)``, one paragraph for each video.
        """
        videos = self.video_vectors(self.encode_video(pixel_values).tokens)
        sentences = self.text_encoder.read_sentences(input_ids, attention_mask)
        paragraphs = self.paragraph_vectors(self.text_encoder.read_paragraph(sentences, attention_mask)[0])
        _, by_video, by_text = losses.global_contrastive(
            losses.gathered(videos), losses.gathered(paragraphs), self.config.temperature
        )
        loss = by_video + by_text
        return LfVilaContrastiveOutput(loss, loss, None, videos, paragraphs, None, None)


@dataclass
class LfVilaAnswerOutput(ModelOutput):
    """Answers to questions about videos, or classes of videos.

    Attributes:
        loss: the sum of the losses below; None without labels.
        answer_loss: cross-entropy of the answers.
        span_loss: of the frames; None without their labels.
        logits: float ``(B, answers or choices)``.
        span_logits: float ``(B, T, 2)``, whether each frame shows the answer; None where not asked.
        video_embeds: float ``(B, D)`` and
        frame_embeds: float ``(B, T, D)``, unit vectors, where videos are classified.
    """

    loss: torch.Tensor | None = None
    answer_loss: torch.Tensor | None = None
    span_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    span_logits: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    frame_embeds: torch.Tensor | None = None


class _CrossEncoder(LfVilaPreTrainedModel):
    """Words and video read together."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        if not config.cross_layers:
            raise ValueError(
                "questions need layers that read words and video together, this config has none; give text_config more "
                "layers than sentence_layers + paragraph_layers"
            )
        self.video_encoder = LfVilaVideoEncoder(config.video_config)
        self.text_encoder = LfVilaTextEncoder(config, cross=True)
        self.video_positions = VideoPositions(config)

    def read(self, tokens: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Tokens of videos ``(B, T, P, D)`` and words ``(B, M, L)`` to pooled ``(B, D)`` and video ``(B, T, P, D)``."""
        video = self.video_positions(tokens)
        sentences = self.text_encoder.read_sentences(input_ids, mask)
        paragraph, mask = self.text_encoder.read_paragraph(sentences, mask)
        states = self.text_encoder.read_with_video(paragraph, mask, video.flatten(1, 2))
        pooler: Any = self.text_encoder.bert.pooler
        return pooler(states), states[:, paragraph.shape[1] :].unflatten(1, tokens.shape[1:3])


class LfVilaForQuestionAnswering(_CrossEncoder):
    """A question about a video, answered by one of a fixed set of answers (ActivityNet-QA, VIOLIN)."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_answers)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> LfVilaAnswerOutput:
        """Answer.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            input_ids, attention_mask: int64 ``(B, M, L)``: the question, or a statement and subtitles.
            labels: int64 ``(B,)``.
        """
        pooled, _ = self.read(self.encode_video(pixel_values).tokens, input_ids, attention_mask)
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits, labels, label_smoothing=float(self.config.label_smoothing))
        return LfVilaAnswerOutput(loss, loss, None, logits)


class LfVilaForMultipleChoice(_CrossEncoder):
    """A question about a video with several answers to choose from, and when in the video it is answered (How2QA)."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.text_config.hidden_size, 1)
        self.span_classifier = nn.Linear(config.text_config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        span_labels: torch.Tensor | None = None,
        span_weights: torch.Tensor | None = None,
    ) -> LfVilaAnswerOutput:
        """Choose.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            input_ids, attention_mask: int64 ``(B, choices, M, L)``: question, choice, subtitles.
            labels: int64 ``(B,)``, the right choice.
            span_labels: int64 ``(B, T)``, 1 for frames that show the answer.
            span_weights: float ``(B, T)``, of each frame in the loss; None: 1.

        Returns:
            among others the span's logits: for each frame the largest over the choices, as published.
        """
        choices = input_ids.shape[1]
        tokens = self.encode_video(pixel_values).tokens.repeat_interleave(choices, dim=0)
        pooled, seen = self.read(tokens, input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
        logits = self.classifier(pooled).view(-1, choices)
        span_logits = self.span_classifier(seen.mean(dim=2)).unflatten(0, (-1, choices)).amax(dim=1)
        answer_loss = span_loss = loss = None
        if labels is not None:
            loss = answer_loss = functional.cross_entropy(logits, labels)
        if span_labels is not None:
            each = functional.cross_entropy(span_logits.flatten(0, 1), span_labels.flatten(), reduction="none")
            weights = 1.0 if span_weights is None else span_weights.flatten()
            span_loss = self.config.span_weight * (weights * each).mean()
            loss = span_loss if loss is None else loss + span_loss
        return LfVilaAnswerOutput(loss, answer_loss, span_loss, logits, span_logits)


class LfVilaForVideoClassification(LfVilaPreTrainedModel):
    """A long video to one of a fixed set of classes (COIN, LVU), without words."""

    def __init__(self, config: LfVilaConfig) -> None:
        super().__init__(config)
        width = config.video_config.hidden_size
        self.video_encoder = LfVilaVideoEncoder(config.video_config)
        self.video_global_projection = nn.Linear(width, width)
        self.video_frame_projection = nn.Linear(width, width)
        self.classifier = nn.Linear(width, config.num_answers)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> LfVilaAnswerOutput:
        """Classify: float ``(B, T, 3, H, W)``, and int64 ``(B,)`` labels. The vectors of frames are not in the loss."""
        tokens = self.encode_video(pixel_values).tokens
        frames = _unit(self.video_frame_projection(tokens.mean(dim=2)))
        videos = _unit(self.video_global_projection(tokens.mean(dim=(1, 2))))
        scale = 1.0 if self.config.as_published else 1.0 / self.config.temperature  # D19
        logits = self.classifier(videos * scale)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return LfVilaAnswerOutput(loss, loss, None, logits, None, videos, frames)
