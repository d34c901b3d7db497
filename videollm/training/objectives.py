"""What each stage of a training run minimises. Each objective holds the model and the heads that only it needs.

Notation: B batch, T frames, S segments, Q queries, D width, L tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from videollm.data.attributes import COLOURS as COLOUR_NAMES
from videollm.data.dialogue import SOUND_SLOTS, VIDEO_SLOTS
from videollm.data.world import BACKGROUNDS, COLOURS, SHAPES, SOUNDS, is_held_out_pair
from videollm.models.video_llama import VideoLlamaForConditionalGeneration
from videollm.training.freeze import rest

Slots = Sequence[tuple[str, dict[str, tuple[str, ...]]]]


class FactEmbedding(nn.Module):
    """Facts as soft tokens: the sum of a vector for the slot and one for the value of each of its fields.

    A field's vectors are shared by all slots that have it, so that "star" is the same in every colour's slot. They are
    drawn once and not learned: decoder and Q-Formers can learn the same language at the same time, apart.
    """

    def __init__(self, slots: Slots, width: int, std: float, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        fields: dict[tuple[str, tuple[str, ...]], int] = {}
        size = 0
        columns = max(len(values) for _, values in slots)
        base = torch.full((len(slots), columns), -1)
        for row, (_, values) in enumerate(slots):
            for column, field in enumerate(values.items()):
                if field not in fields:
                    fields[field] = size
                    size += len(field[1])
                base[row, column] = fields[field]
        self.register_buffer("base", base, persistent=False)
        self.register_buffer("slot", torch.randn(len(slots), width, generator=draw) * std, persistent=False)
        value = torch.randn(size + 1, width, generator=draw) * std
        value[size] = 0
        self.register_buffer("value", value, persistent=False)

    def rows(self, facts: torch.Tensor) -> torch.Tensor:
        """Rows of the value table for facts ``(B, Q, fields)``; the padding row where there is no field."""
        return torch.where(facts >= 0, self.base + facts, len(self.value) - 1)

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        """int ``(B, Q, fields)`` (-1: no such field) to ``(B, Q, D)``."""
        return self.slot + self.value[self.rows(facts)].sum(2)


def fact_embeddings(model: VideoLlamaForConditionalGeneration) -> nn.ModuleDict:
    """The facts of pictures ("video") and of sounds ("sound") as soft tokens of the model's decoder."""
    width, std = model.config.text_config.hidden_size, model.config.text_config.initializer_range
    return nn.ModuleDict({
        "video": FactEmbedding(VIDEO_SLOTS, width, std, 1), "sound": FactEmbedding(SOUND_SLOTS, width, std, 2)
    })  # fmt: skip


def _never_shown() -> torch.Tensor:
    """bool ``(colours, 1 + shapes)``: pairs held out of training, about which training must not say no either."""
    return torch.tensor([[shape is not None and is_held_out_pair(shape, colour) for shape in (None, *SHAPES)]
                         for colour in COLOURS])  # fmt: skip


class VisionObjective(nn.Module):
    """The eye from nothing: what is where in single frames, told by the frame Q-Former's queries.

    Query ``c`` answers for colour ``c``; the next one for the background, the next for colour shares and brightness;
    the others carry what is needed to see, from two frames, how the camera moved between them.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: VideoLlamaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        width, patch_width = model.config.qformer_config.hidden_size, model.config.vision_config.hidden_size
        self.colours = len(COLOURS)
        self.landmarks = model.config.num_query_tokens - self.colours - 2
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.where = nn.Linear(width, 3)
        self.patch_colour = nn.Linear(patch_width, self.colours + 1)
        self.patch_shape = nn.Linear(patch_width, len(SHAPES) + 1)
        self.background = nn.Linear(width, len(BACKGROUNDS) + 1)
        self.shares = nn.Linear(width, len(COLOUR_NAMES) + 1)
        self.map = nn.Linear((self.landmarks + 2) * width, 192)
        self.mark = nn.Linear(width, 64)
        self.view = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 3))
        self.register_buffer("never_shown", _never_shown(), persistent=False)
        self.metrics: dict[str, torch.Tensor] = {}

    def forward(self, pixel_values: torch.Tensor, **labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """pixel_values ``(B, K, 3, H, W)``; labels as `FrameSamples` gives them."""
        batch, views = pixel_values.shape[:2]
        patches = self.model.vision_model(pixel_values.flatten(0, 1)).last_hidden_state
        states = self.model.qformer(
            query_embeds=self.model.query_tokens.expand(len(patches), -1, -1), encoder_hidden_states=patches
        ).last_hidden_state
        states, patches = states.float(), patches[:, 1:].float()
        flat = {name: value.flatten(0, 1) for name, value in labels.items()}
        losses: dict[str, torch.Tensor] = {}

        things = states[:, : self.colours]
        shape_logits = self.shape(things).masked_fill(self.never_shown, -1e4)
        weight = torch.ones(len(SHAPES) + 1, device=shape_logits.device)
        weight[0] = 0.3
        losses["shape"] = 2 * functional.cross_entropy(shape_logits.flatten(0, 1), flat["shape"].flatten(), weight)
        there = flat["shape"] > 0
        if there.any():
            losses["where"] = 4 * functional.smooth_l1_loss(self.where(things[there]), flat["where"][there], beta=0.1)
        # Most patches show no thing: those that do weigh as much as all others together.
        for name, head in (("patch_colour", self.patch_colour), ("patch_shape", self.patch_shape)):
            each = functional.cross_entropy(head(patches).flatten(0, 1), flat[name].flatten(), reduction="none")
            covered = flat[name].flatten() > 0
            losses[name] = 0.5 * (each.mean() + (each * covered).sum() / covered.sum().clamp(min=1))
        losses["background"] = 0.3 * functional.cross_entropy(
            self.background(states[:, self.colours]), flat["background"]
        )
        shares = self.shares(states[:, self.colours + 1])
        losses["shares"] = 0.6 * (
            functional.cross_entropy(shares[:, :-1], flat["shares"])
            + 4 * functional.mse_loss(shares[:, -1], flat["luma"])
        )
        losses["map"] = functional.mse_loss(self.map(states[:, self.colours :].flatten(1)), flat["map"])

        # From any two views of one shot: the camera's way between them, in quarters of the picture.
        marks = self.mark(states[:, self.colours + 2 :].mean(1)).unflatten(0, (batch, views))
        view = labels["view"]
        first, second = torch.triu_indices(views, views, 1)
        way = view[:, second, :3] - view[:, first, :3]
        way = torch.cat([way[..., :2], way[..., 2:]], -1) * 4
        same = (view[:, first, 3] == view[:, second, 3]) & (way.abs().amax(-1) < 2)
        if same.any():
            guess = self.view(torch.cat([marks[:, first], marks[:, second]], -1)[same])
            losses["view"] = 3 * functional.smooth_l1_loss(guess, way[same], beta=0.1)
            large = way[same].abs().amax(-1) > 0.2
            if large.any():
                axis = way[same][large].abs().argmax(-1, keepdim=True)
                right = guess[large].abs().argmax(-1, keepdim=True) == axis
                right &= guess[large].gather(-1, axis) * way[same][large].gather(-1, axis) > 0
                self.metrics["view_right"] = right.float().mean()
        with torch.no_grad():
            guess_shape = shape_logits.argmax(-1)
            self.metrics["present"] = ((guess_shape > 0) == there).float().mean()
            self.metrics["shape_right"] = (guess_shape[there] == flat["shape"][there]).float().mean()
        self.metrics.update({name: loss.detach() for name, loss in losses.items()})
        return {"loss": torch.stack(list(losses.values())).sum()}


class AudioObjective(nn.Module):
    """The ear from nothing: what sounds in each segment, how many sounds start, where, and how loud."""

    accepts_loss_kwargs = False

    def __init__(self, model: VideoLlamaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        width = model.config.audio_config.projection_dim
        self.kind = nn.Linear(width, len(SOUNDS) + 1)
        self.starts = nn.Linear(width, 4)
        self.start = nn.Linear(width, 1)
        self.level = nn.Linear(width, 1)
        self.spectrum = nn.Linear(width, model.config.audio_config.num_mel_bins)
        self.metrics: dict[str, torch.Tensor] = {}

    def forward(self, audio_values: torch.Tensor, **labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """audio_values ``(B, S, 1, F, W)``, labels ``(B, S)``; segments that are not there have ``kind`` -100."""
        real = labels["kind"] >= 0
        states = self.model.encode_audio_segments(audio_values[real]).float()
        kind, starts = labels["kind"][real], labels["starts"][real]
        kind_logits, starts_logits = self.kind(states), self.starts(states)
        losses = {
            "kind": functional.cross_entropy(kind_logits, kind),
            "starts": functional.cross_entropy(starts_logits, starts),
            "level": functional.mse_loss(self.level(states)[:, 0], labels["level"][real]),
            "spectrum": functional.mse_loss(self.spectrum(states), labels["spectrum"][real]),
        }
        begun = labels["start"][real] >= 0
        if begun.any():
            losses["start"] = 2 * functional.smooth_l1_loss(
                self.start(states[begun])[:, 0], labels["start"][real][begun], beta=0.1
            )
        self.metrics["kind_right"] = (kind_logits.argmax(-1) == kind).float().mean()
        self.metrics["starts_right"] = (starts_logits.argmax(-1) == starts).float().mean()
        self.metrics.update({name: loss.detach() for name, loss in losses.items()})
        return {"loss": torch.stack(list(losses.values())).sum()}


class DecoderObjective(nn.Module):
    """The decoder on the world's text: conversations whose soft tokens are the scene's facts.

    ``accent`` turns facts into the tokens that the decoder likes to read, starting as the identity: linear, so that
    `add_accent` can put it into the projections of Q-Formers that learned to state the facts themselves.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: VideoLlamaForConditionalGeneration, noise: float = 0.25, weigh: str = "tokens") -> None:
        super().__init__()
        self.model, self.weigh = model, weigh
        self.facts = fact_embeddings(model)
        width = model.config.text_config.hidden_size
        self.accent = nn.ModuleDict({kind: nn.Linear(width, width, bias=False) for kind in self.facts})
        for linear in self.accent.values():
            nn.init.eye_(linear.weight)
        self.noise = noise
        self.metrics: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def speak_in_words(self, tokenizer: Any) -> None:
        """Start the accent such that each value of a fact carries, beside its own vector, the embedding of its word.

        A question's word then resembles the fact that it asks for, so that the decoder can find it by likeness.
        """
        words = self.model.get_input_embeddings().weight
        for kind, slots in (("video", VIDEO_SLOTS), ("sound", SOUND_SLOTS)):
            table = self.facts[kind]
            said = torch.zeros_like(table.value)
            for row, (_, fields) in enumerate(slots):
                for column, options in enumerate(fields.values()):
                    for number, option in enumerate(options):
                        ids = tokenizer(f" {option}", add_special_tokens=False)["input_ids"]  # as inside a sentence
                        said[int(table.base[row, column]) + number] = words[ids].mean(0)
            codes = torch.cat([table.slot, table.value[:-1]])
            moved = torch.cat([torch.zeros_like(table.slot), said[:-1]])
            self.accent[kind].weight.copy_(torch.eye(codes.shape[1]) + (torch.linalg.pinv(codes) @ moved).T)
        for layer in self.model.language_model.model.layers[1:3]:
            _look_for_alike(layer.self_attn, self.model.config.text_config)

    def _speak(self, kind: str, facts: torch.Tensor) -> torch.Tensor:
        return self.accent[kind](self._noisy(self.facts[kind](facts)))

    def _noisy(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.training or self.noise == 0:
            return tokens
        scale = tokens.detach().pow(2).mean().sqrt()
        return tokens + torch.randn_like(tokens) * scale * self.noise * torch.rand(len(tokens), 1, 1)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        video_facts: torch.Tensor,
        sound_facts: torch.Tensor,
        seen: torch.Tensor,
        heard: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Facts ``(B, Q, fields)``; ``seen`` and ``heard`` bool ``(B,)``; the rest ``(B, L)``."""
        video = self._speak("video", video_facts[seen]) if seen.any() else None
        sound = self._speak("sound", sound_facts[heard]) if heard.any() else None
        return {"loss": _conversation_loss(self, input_ids, attention_mask, labels, video, sound, self.weigh)[0]}


@torch.no_grad()
def _look_for_alike(attention: Any, config: Any) -> None:
    """Start one head such that a token attends to those that resemble it, wherever they stand.

    Its queries are its keys, in those dimensions only that the rotary positions turn slowly.
    """
    size = config.head_dim
    draw = torch.Generator().manual_seed(3)
    alike = torch.randn(size, config.hidden_size, generator=draw) * (2 / config.hidden_size) ** 0.5
    fast = torch.arange(size) % (size // 2) < size // 5
    alike[fast] = 0
    attention.k_proj.weight[:size] = alike
    attention.q_proj.weight[:size] = 2 * alike


@torch.no_grad()
def add_accent(model: VideoLlamaForConditionalGeneration, accent: dict[str, torch.Tensor]) -> None:
    """Let Q-Formers that state facts speak as the decoder learned to read them.

    Args:
        model: has the Q-Formers of the alignment stage.
        accent: matrix ``(D, D)`` for "video" and "sound".
    """
    for projection, kind in ((model.video_projection, "video"), (model.audio_projection, "sound")):
        projection.weight.copy_(accent[kind] @ projection.weight)
        projection.bias.copy_(accent[kind] @ projection.bias)


@torch.no_grad()
def resemble(model: VideoLlamaForConditionalGeneration, tokenizer: Any, new: str, known: str) -> None:
    """Let a token that was never learned begin as one that was, so that what stands behind it is read likewise."""
    words = model.get_input_embeddings().weight
    words[tokenizer.convert_tokens_to_ids(new)] = words[tokenizer.convert_tokens_to_ids(known)]


def _conversation_loss(
    objective: Any, input_ids, attention_mask, labels, video, sound, weigh: str = "tokens", targets_in_step: Any = None,
    idle: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """(loss, loss of each target token, which ``(B, L - 1)`` are target tokens).

    ``targets_in_step``: what the sum is divided by; the target tokens at hand if None. ``idle``: see `_soft_tokens`.
    """
    words = objective.model.embed(input_ids, video, sound)
    outputs = objective.model(
        inputs_embeds=words if idle is None else words + idle, attention_mask=attention_mask, use_cache=False
    )
    logits, targets = outputs.logits[:, :-1], labels[:, 1:]
    learned = targets != -100
    each = functional.cross_entropy(logits[learned].float(), targets[learned], reduction="none")
    if weigh == "answers":
        # Every answer as much as any other: otherwise captions outweigh answers of one word ten to one.
        run = ((learned & ~functional.pad(learned, (1, 0))[:, :-1]).flatten().cumsum(0) - 1)[learned.flatten()]
        length = torch.bincount(run)
        loss = (each / length[run]).sum() / len(length)
    elif targets_in_step is None:
        loss = each.mean()
    else:
        loss = each.sum() / targets_in_step
    _note_right(objective, logits[learned], targets[learned], learned)
    return loss, each.detach(), learned


@torch.no_grad()
def _note_right(objective: Any, logits: torch.Tensor, targets: torch.Tensor, learned: torch.Tensor) -> None:
    """Keeps which shares of target tokens, and of whole answers, are the likeliest: logits ``(N, V)`` of those."""
    right = logits.argmax(-1) == targets
    if len(right):
        objective.metrics["token_right"] = right.float().mean()
        objective.metrics["answer_right"] = _answers_right(learned, right)


def _by_roots(labels: torch.Tensor) -> torch.Tensor:
    """float ``(B, L)``: what each target token counts, 1 in all: an answer as much as the root of its length.

    Long answers are lists in which every token is to be right; yet the few tokens of a call must not drown in them.
    """
    learned = labels != -100
    starts = learned & ~functional.pad(learned, (1, 0))[:, :-1]
    run = (starts.flatten().cumsum(0) - 1)[learned.flatten()]
    each = torch.bincount(run).float().rsqrt()[run]
    return torch.zeros(labels.shape, device=labels.device).masked_scatter(learned, each / each.sum())


def _answers_right(learned: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Share of answers (runs of learned tokens) of which every token is the likeliest.

    Args:
        learned: bool ``(B, L)``.
        right: bool, for each learned token.
    """
    wrong = torch.zeros_like(learned).masked_scatter(learned, ~right)
    starts = learned & ~functional.pad(learned, (1, 0))[:, :-1]
    run = starts.cumsum(1) * learned  # 1, 2, ... inside answers
    runs = int(run.max())
    failed = torch.zeros(len(learned), runs + 1, dtype=torch.long, device=run.device)
    failed.scatter_add_(1, run, wrong.long())
    count = starts.sum(1)
    there = torch.arange(1, runs + 1, device=run.device) <= count[:, None]
    return (failed[:, 1:][there] == 0).float().mean()


class AlignmentObjective(nn.Module):
    """The Q-Formers learn to state a clip's facts as the soft tokens that the decoder understands; no decoder pass."""

    accepts_loss_kwargs = False

    def __init__(self, model: VideoLlamaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.facts = fact_embeddings(model)
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleDict({kind: nn.Linear(width, len(facts.value)) for kind, facts in self.facts.items()})
        self.register_buffer("never_shown", _never_shown(), persistent=False)
        self.clocks = nn.ModuleDict({kind: nn.Linear(width, 1) for kind in self.facts})
        self.metrics: dict[str, torch.Tensor] = {}

    def forward(
        self,
        frame_states: torch.Tensor,
        frame_mask: torch.Tensor,
        frame_seconds: torch.Tensor,
        segment_states: torch.Tensor,
        segment_mask: torch.Tensor,
        segment_seconds: torch.Tensor,
        video_facts: torch.Tensor,
        sound_facts: torch.Tensor,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        """Kept encoder states with the facts of their clips; a clip without sound has no true ``segment_mask``."""
        video = self.model.get_video_features(
            frame_states=frame_states, frame_mask=frame_mask, frame_seconds=frame_seconds
        )
        loss = self._loss("video", video.float(), video_facts, VIDEO_SLOTS)
        heard = segment_mask.any(1)
        if heard.any():
            sound = self.model.get_audio_features(
                segment_states=segment_states[heard], segment_mask=segment_mask[heard],
                segment_seconds=segment_seconds[heard],
            )  # fmt: skip
            loss = loss + self._loss("sound", sound.float(), sound_facts[heard], SOUND_SLOTS)
        return {"loss": loss}

    def _loss(self, kind: str, tokens: torch.Tensor, facts: torch.Tensor, slots: Slots) -> torch.Tensor:
        table = self.facts[kind]
        target = table(facts)
        loss = 2 * functional.mse_loss(tokens, target) / target.var()
        logits = self.heads[kind](tokens)
        right, total = {}, {}
        for row, (name, fields) in enumerate(slots):
            for column, (field, options) in enumerate(fields.items()):
                base = int(table.base[row, column])
                part, truth = logits[:, row, base : base + len(options)], facts[:, row, column]
                asked = torch.ones_like(truth, dtype=torch.bool)
                if field in ("motion", "appears"):
                    asked = facts[:, row, 0] > 0  # of nothing there is nothing to tell
                if not asked.any():
                    continue
                if field == "shape":
                    part = part.masked_fill(self.never_shown[COLOURS.index(name.split()[1])], -1e4)
                common = torch.tensor([_COMMON.get(field, {}).get(option, 1.0) for option in options])
                weight = common[truth]
                each = functional.cross_entropy(part, truth, reduction="none") * weight
                loss = loss + _SHARE.get(field, 0.3) * each[asked].mean()
                told = truth > 0
                if field in ("time", "appears") and told.any():
                    # A time that is nearly right is worth more than one far off, long before it is right.
                    clock = self.clocks[kind](tokens[:, row])[told, 0]
                    loss = loss + 2 * functional.smooth_l1_loss(clock, truth[told] / 8 - 1, beta=0.1)
                with torch.no_grad():
                    counted = asked & (weight == 1)  # what is rarer tells more
                    key = f"{kind[0]}_{field}"
                    right[key] = right.get(key, 0) + (part.argmax(-1) == truth)[counted].sum()
                    total[key] = total.get(key, 0) + counted.sum()
        self.metrics.update({key: right[key] / total[key].clamp(min=1) for key in right})
        return loss


# Weight of each field in each slot. Of sixteen slots for things few are filled; times and cameras are the last to be
# learned; a half second is one of sixteen.
_SHARE = {
    "shape": 0.15, "motion": 0.15, "background": 0.15, "time": 1.2, "appears": 1.2, "camera": 1.2, "happens": 0.6,
    "carried": 0.3,
}  # fmt: skip
# Weight of the values that are the commonest by far.
_COMMON = {
    "shape": {"none": 0.3}, "appears": {"none": 0.3}, "time": {"none": 0.3}, "kind": {"none": 0.3},
    "happens": {"nothing": 0.1}, "camera": {"still": 0.3}, "carried": {"past": 0.1, "still": 0.3},
}  # fmt: skip


class ConversationObjective(nn.Module):
    """Captions and narrations (stage 1) or dialogues (stage 2) about real clips, told by the decoder.

    Every branch runs in every batch: one that a batch has nothing for is shown an empty clip, whose soft tokens count
    nothing. So processes with text, pictures and sound go through the same layers, and none waits for another.

    Args:
        model: with what learns unfrozen.
        branches: those that any batch of the run may show, and those that learn.
        kept: whether clips come as kept encoder states.
        datasets: how many there are; the losses of each are summed where batches have ``source``.
    """

    # Its loss is the sum over target tokens divided by those of the whole step, and no first token is one.
    accepts_loss_kwargs = True
    loss_type = "ForCausalLM"

    def __init__(
        self, model: VideoLlamaForConditionalGeneration, branches: Sequence[str], kept: bool, datasets: int = 0
    ) -> None:
        super().__init__()
        self.model, self.branches, self.kept, self.datasets = model, tuple(branches), kept, datasets
        self.metrics: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> ConversationObjective:
        super().train(mode)
        rest(self.model)
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        seen: torch.Tensor | None = None,
        heard: torch.Tensor | None = None,
        **media: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """A batch of `videollm.data.collate.Collate`.

        Args:
            num_items_in_batch: target tokens of the step, in all processes.
            source: int ``(B,)``, number of each row's dataset.
            seen, heard: bool ``(B,)``, where every row has a clip, whether it is shown.
            media: pixels, sounds or kept states, with masks and seconds, see `VideoLlamaForConditionalGeneration`.

        Returns:
            ``loss``; and ``by_source`` float ``(datasets, 3)``: sum of losses, target tokens, rows.
        """
        video, idle = self._soft_tokens("video", _rows(media, seen, ("pixel_values", "frame_")), labels.device)
        sound, idle_ear = self._soft_tokens("audio", _rows(media, heard, ("audio_values", "segment_")), labels.device)
        unheard = [one for one in (idle, idle_ear) if one is not None]
        loss, each, learned = _conversation_loss(
            self, input_ids, attention_mask, labels, video, sound, targets_in_step=num_items_in_batch,
            idle=torch.stack(unheard).sum() if unheard else None,
        )  # fmt: skip
        outputs = {"loss": loss}
        if source is not None:
            row = torch.arange(len(labels), device=labels.device)[:, None].expand_as(learned)[learned]
            told = torch.zeros(self.datasets, 3, device=each.device)
            told[:, 0].index_add_(0, source[row], each)
            told[:, 1].index_add_(0, source[row], torch.ones_like(each))
            told[:, 2].index_add_(0, source, torch.ones_like(source, dtype=told.dtype))
            outputs["by_source"] = told
        return outputs

    def _soft_tokens(
        self, branch: str, media: dict[str, torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(the soft tokens of a batch's clips or None, what keeps the branch in step where there are none).

        The latter is 0 and goes into the words: so the backward pass, too, goes through decoder and branch everywhere.
        """
        if branch not in self.branches:
            return None, None
        encode = self.model.get_video_features if branch == "video" else self.model.get_audio_features
        if media and len(next(iter(media.values()))):
            return encode(**media), None
        return None, 0 * encode(**self._empty(branch, device)).sum()

    def _empty(self, branch: str, device: torch.device) -> dict[str, torch.Tensor]:
        """A clip of nothing. No parameter is looked at: ZeRO-3 would fetch it, and nobody else would take part."""
        config = self.model.config
        if branch == "video":
            size = config.vision_config.image_size
            shape = (config.num_query_tokens, config.qformer_config.hidden_size) if self.kept else (3, size, size)
            name, seconds = ("frame_states" if self.kept else "pixel_values"), "frame_seconds"
        else:
            audio = config.audio_config
            shape = (audio.projection_dim,) if self.kept else (1, audio.num_mel_bins, audio.target_length)
            name, seconds = ("segment_states" if self.kept else "audio_values"), "segment_seconds"
        return {
            name: torch.zeros(1, 1, *shape, dtype=self.model.dtype, device=device),
            seconds: torch.zeros(1, 1, device=device),
        }


@dataclass(frozen=True)
class _Conversations:
    """Rows of a batch, with the soft tokens of their clips; see `ToolObjective.forward`."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    said_again: torch.Tensor
    video: torch.Tensor | None
    sound: torch.Tensor | None

    def of(self, rows: torch.Tensor, config: Any) -> _Conversations:
        """Some of the rows, no longer than they need to be."""
        length = int(self.attention_mask[rows].sum(1).max())
        found: list[torch.Tensor | None] = []
        for token, soft in ((config.video_token_id, self.video), (config.audio_token_id, self.sound)):
            if soft is not None:
                ends = ((self.input_ids == token).sum(1) // soft.shape[1]).cumsum(0).tolist()
                clips = [at for row in rows.tolist() for at in range(ends[row - 1] if row else 0, ends[row])]
                soft = soft[clips] if clips else None
            found.append(soft)
        several = (self.input_ids, self.attention_mask, self.labels, self.weights)
        return _Conversations(*(one[rows, :length] for one in several), self.said_again[rows], *found)


class ToolObjective(ConversationObjective):
    """Conversations with calls; those without stay what they were.

    Saying again what stands before it needs two kinds of heads behind each other: some that tell each token what stands
    before it, and some that find the token behind what was said last. From words alone the decoder does not find them
    in 500 steps, so heads that have nothing else to do are told where to look. What the model says in conversations
    without calls is held to what it said before, word by word.

    Args:
        model: with what learns unfrozen, and heads that are free.
        call_token_ids: of what only conversations with calls have.
        before: the model that it is held to; None: as it is when the run begins.

    Source: Olsson et al., "In-context Learning and Induction Heads" (2022); Li and Hoiem, "Learning without Forgetting"
    (2016).
    """

    accepts_loss_kwargs = False

    def __init__(
        self,
        model: VideoLlamaForConditionalGeneration,
        call_token_ids: Sequence[int],
        before: VideoLlamaForConditionalGeneration | None = None,
    ) -> None:
        super().__init__(model, ("audio", "video"), kept=True)
        self.call_token_ids = list(call_token_ids)
        before = copy.deepcopy(model) if before is None else before
        # In a tuple, so that it is no part of what is trained, saved or moved.
        self._before = (before.eval().requires_grad_(False),)
        self._looks: dict[int, torch.Tensor] = {}
        for number in (BEFORE_LAYER, *AGAIN_LAYERS):
            attention = model.language_model.model.layers[number].self_attn
            attention.register_forward_hook(lambda _, __, out, number=number: self._looks.update({number: out[1]}))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        said_again: torch.Tensor,
        rehearsed: torch.Tensor,
        **media: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """A batch of `videollm.training.features.ToolSamples`.

        Args:
            said_again: int ``(B, P, 2)``, a place and the earlier one that says the same, -1 where there is no pair.
            rehearsed: bool ``(B,)``, conversations without calls.
            media: see `ConversationObjective.forward`.
        """
        video, _ = self._soft_tokens("video", _rows(media, None, ("pixel_values", "frame_")), labels.device)
        sound, _ = self._soft_tokens("audio", _rows(media, None, ("audio_values", "segment_")), labels.device)
        weights = _by_roots(labels.masked_fill(rehearsed[:, None], -100))
        batch = _Conversations(input_ids, attention_mask, labels, weights, said_again, video, sound)
        losses: list[torch.Tensor] = []
        if rehearsed.any():
            losses.append(KEEP_WEIGHT * self._changed(batch.of(rehearsed.nonzero()[:, 0], self.model.config)))
        # By length, so that less is padded.
        calling = (attention_mask.sum(1) + rehearsed * attention_mask.shape[1]).argsort()[: int((~rehearsed).sum())]
        for rows in calling.chunk(2) if len(calling) else ():
            part = batch.of(rows, self.model.config)
            learned = part.labels[:, 1:] != -100
            logits, targets = self._logits(self.model, part)[:, :-1][learned], part.labels[:, 1:][learned]
            each = functional.cross_entropy(logits.float(), targets, reduction="none")
            losses.append((each * part.weights[:, 1:][learned]).sum())
            losses.append(len(rows) / len(calling) * self._looks_elsewhere(part.said_again, part.attention_mask))
            _note_right(self, logits, targets, learned)
        return {"loss": torch.stack(losses).sum()}

    @staticmethod
    def _logits(model: VideoLlamaForConditionalGeneration, part: _Conversations) -> torch.Tensor:
        words = model.embed(part.input_ids, part.video, part.sound)
        return model(inputs_embeds=words, attention_mask=part.attention_mask, use_cache=False).logits

    def _changed(self, part: _Conversations) -> torch.Tensor:
        """How far what is said in conversations without calls is from what the model said at first: a divergence."""
        before = self._before[0].to(part.input_ids.device)
        with torch.no_grad():
            first = self._logits(before, part)
            first[..., self.call_token_ids] = torch.finfo(first.dtype).min
        told = part.labels[:, 1:] != -100
        said = functional.log_softmax(self._logits(self.model, part)[:, :-1][told].float(), -1)
        meant = functional.log_softmax(first[:, :-1][told].float(), -1)
        far = functional.kl_div(said, meant, reduction="batchmean", log_target=True)
        self.metrics["changed"] = far.detach()
        return far

    def _looks_elsewhere(self, said_again: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """How far the heads that are told are from looking where they should."""
        before = self._looks[BEFORE_LAYER].float().clamp(min=1e-5)
        loss = before.new_zeros(())
        for head, back in BEFORE_HEADS.items():
            real = attention_mask[:, back:].bool()
            looks = before[:, head].diagonal(-back, 1, 2)[real]
            loss = loss - 0.1 * looks.log().mean()
            self.metrics[f"looks_back_{back}"] = looks.detach().mean()
        row, pair = (said_again[..., 0] > 0).nonzero(as_tuple=True)
        place, source = said_again[row, pair].unbind(-1)
        for number in AGAIN_LAYERS if len(place) else ():
            found = self._looks[number][:, AGAIN_HEAD].float().clamp(min=1e-5)[row, place - 1, source]
            loss = loss - 0.3 * found.log().mean()
            self.metrics[f"looks_again_{number}"] = found.detach().mean()
        return loss


KEEP_WEIGHT = 2.0
BEFORE_LAYER, AGAIN_LAYERS = 1, (2, 3)
BEFORE_HEADS, AGAIN_HEAD = {8: 1, 9: 2, 10: 3}, 8
"""Layers and heads of `tiny` that learn to say again: which look how many tokens back, and which find what was said."""


def _rows(
    media: dict[str, torch.Tensor], shown: torch.Tensor | None, names: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """The tensors of one branch, of those clips that are shown."""
    mine = {name: value for name, value in media.items() if name.startswith(names)}
    return mine if shown is None else {name: value[shown] for name, value in mine.items()}
