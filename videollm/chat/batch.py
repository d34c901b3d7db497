"""Answers to many questions at once: exact greedy ones, or drawn.

A clip is encoded once; the beginning that all prompts about it share (usually the clip itself) is computed once; the
rest of many prompts, of any clips, runs in one batch, padded between the shared beginning and the question. Answers are
those of one-by-one generation.

Notation: B rows, L tokens, P tokens of a shared beginning, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from videollm.chat.generation import GenerationOptions, TokenChooser, stop_sequences
from videollm.clips import Clip
from videollm.messages import Message

CLIP = "clip"
"""The key under which messages name the clip that a question is about."""

PREFILL_ROWS = 48


@dataclass(frozen=True, eq=False)
class Shown:
    """A clip as the model sees and hears it.

    Attributes:
        clip: the clip.
        video, audio: soft tokens, float ``(1, Q, D)``; None where there is nothing to see, or to hear.
    """

    clip: Clip
    video: torch.Tensor | None
    audio: torch.Tensor | None


@dataclass(frozen=True)
class Prompt:
    """A conversation about one clip, up to the user's question; its media parts name `CLIP`."""

    shown: Shown
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Answered:
    """An answer: its words and the ids that were generated, without the stop token."""

    text: str
    token_ids: tuple[int, ...]


class Predictor:
    """Answers questions with a model and its processor.

    Args:
        model: a `VideoLlamaForConditionalGeneration`.
        processor: its processor.
        max_new_tokens: answers are cut after this many tokens.
        batch_rows: questions answered at once.
    """

    def __init__(self, model: Any, processor: Any, *, max_new_tokens: int = 96, batch_rows: int = 192) -> None:
        self.model, self.processor = model, processor
        self.max_new_tokens, self.batch_rows = max_new_tokens, batch_rows
        self.device, self.dtype = model.get_input_embeddings().weight.device, model.get_input_embeddings().weight.dtype
        config = model.config
        self.never = [i for i in (config.video_token_id, config.audio_token_id) if i < config.text_config.vocab_size]
        self.never += processor.call_token_ids
        self.stops = stop_sequences(model, processor)

    @torch.inference_mode()
    def show(self, clips: Sequence[Clip]) -> list[Shown]:
        """Encode clips, a few at a time."""
        shown: list[Shown] = []
        for start in range(0, len(clips), 8):
            part = clips[start : start + 8]
            seen = [i for i, clip in enumerate(part) if clip.frames is not None]
            heard = [i for i, clip in enumerate(part) if clip.waveforms and self.model.audio_model is not None]
            media = self.processor.collate_media(
                [self.processor.process_frames(part[i].frames) for i in seen],
                [self.processor.process_sound(part[i].waveforms, part[i].windows_seconds) for i in heard],
            )
            media = {name: value.to(self.device) for name, value in media.items()}
            video: dict[int, torch.Tensor] = {}
            audio: dict[int, torch.Tensor] = {}
            if seen:
                pixels = media["pixel_values"].to(self.dtype)
                features = self.model.get_video_features(pixels, media["frame_mask"], media["frame_seconds"])
                video = {i: features[row : row + 1] for row, i in enumerate(seen)}
            if heard:
                values = media["audio_values"].to(self.dtype)
                features = self.model.get_audio_features(values, media["segment_mask"], media["segment_seconds"])
                audio = {i: features[row : row + 1] for row, i in enumerate(heard)}
            shown += [Shown(clip, video.get(i), audio.get(i)) for i, clip in enumerate(part)]
        return shown

    @torch.inference_mode()
    def answer(self, prompts: Sequence[Prompt], drawn: Sequence[GenerationOptions] | None = None) -> list[Answered]:
        """Answer prompts, in their order.

        Args:
            prompts: what to answer; answers to the same prompt may be drawn several times.
            drawn: how the answer to each is drawn; their limits on tokens are not looked at. None: greedy.

        Raises:
            ValueError: a prompt that the processor cannot render.
        """
        choosers = [TokenChooser(options, self.never) for options in drawn or ()]
        ids = [
            self.processor.render(prompt.messages, {CLIP: prompt.shown.clip}, add_generation_prompt=True)
            for prompt in prompts
        ]
        beginnings = self._beginnings(prompts, ids)
        states = self._prefill(beginnings)
        # Rows whose beginnings are equally long need no padding there; questions of like length go together.
        order = sorted(
            range(len(prompts)),
            key=lambda i: (beginnings[id(prompts[i].shown)].length, len(ids[i].input_ids), i),
        )
        answers: dict[int, Answered] = {}
        at = 0
        while at < len(order):
            length = beginnings[id(prompts[order[at]].shown)].length
            rows = [order[at]]
            while len(rows) < self.batch_rows and at + len(rows) < len(order):
                following = order[at + len(rows)]
                if beginnings[id(prompts[following].shown)].length != length:
                    break
                rows.append(following)
            at += len(rows)
            rests = [ids[i].input_ids[length:] for i in rows]
            cache = self._joined([states[id(prompts[i].shown)] for i in rows])
            choose = [choosers[i] for i in rows] if choosers else None
            for i, tokens in zip(rows, self._generate(cache, length, rests, choose), strict=True):
                text = self.processor.tokenizer.decode(
                    tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
                ).strip()
                answers[i] = Answered(text, tuple(tokens))
        return [answers[i] for i in range(len(prompts))]

    def _beginnings(self, prompts: Sequence[Prompt], rendered: Sequence[Any]) -> dict[int, _Beginning]:
        """The longest common beginning of the prompts about each clip; it holds all of the clip's soft tokens."""
        found: dict[int, _Beginning] = {}
        for prompt, one in zip(prompts, rendered, strict=True):
            tokens = one.input_ids[:-1]  # at least one token is left to be computed for each prompt
            last_media = max((span.start + span.length for span in one.media), default=0)
            known = found.get(id(prompt.shown))
            if known is None:
                found[id(prompt.shown)] = _Beginning(prompt.shown, list(tokens), last_media)
                continue
            same = 0
            for a, b in zip(known.ids, tokens, strict=False):
                if a != b:
                    break
                same += 1
            if same < max(last_media, known.media_end):
                raise ValueError("prompts about one clip must show it in the same place; ask about it in its own batch")
            del known.ids[same:]
        return found

    def _prefill(self, beginnings: Mapping[int, _Beginning]) -> dict[int, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Keys and values of each beginning: a pair ``(1, heads, P, width)`` a layer."""
        states: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        waiting = sorted(beginnings.items(), key=lambda item: item[1].length)
        at = 0
        while at < len(waiting):
            group = [item for item in waiting[at : at + PREFILL_ROWS] if item[1].length == waiting[at][1].length]
            at += len(group)
            if group[0][1].length == 0:
                states |= {key: [] for key, _ in group}
                continue
            input_ids = torch.tensor([beginning.ids for _, beginning in group], device=self.device)
            videos = [b.shown.video for _, b in group if b.shown.video is not None and self._holds(b, "video")]
            audios = [b.shown.audio for _, b in group if b.shown.audio is not None and self._holds(b, "audio")]
            embeds = self.model.embed(
                input_ids, torch.cat(videos) if videos else None, torch.cat(audios) if audios else None
            )
            cache = DynamicCache(config=self.model.language_model.config)
            self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
            for row, (key, _) in enumerate(group):
                layers: list[Any] = list(cache.layers)
                states[key] = [(one.keys[row : row + 1].clone(), one.values[row : row + 1].clone()) for one in layers]
        return states

    def _holds(self, beginning: _Beginning, kind: str) -> bool:
        token = self.model.config.video_token_id if kind == "video" else self.model.config.audio_token_id
        return token in beginning.ids

    def _joined(self, rows: Sequence[list[tuple[torch.Tensor, torch.Tensor]]]) -> DynamicCache:
        cache = DynamicCache(config=self.model.language_model.config)
        for layer in range(len(rows[0])):
            keys = torch.cat([row[layer][0] for row in rows])
            cache.update(keys, torch.cat([row[layer][1] for row in rows]), layer)
        return cache

    def _generate(
        self,
        cache: DynamicCache,
        start: int,
        rests: Sequence[Sequence[int]],
        choosers: Sequence[TokenChooser] | None,
    ) -> list[list[int]]:
        """Ids after prompts whose first ``start`` tokens are cached, until each has stopped; greedy by default."""
        count, longest = len(rests), max(map(len, rests))
        input_ids = torch.full((count, longest), int(self.processor.tokenizer.pad_token_id or 0), device=self.device)
        mask = torch.zeros((count, start + longest), dtype=torch.long, device=self.device)
        mask[:, :start] = 1
        for row, rest in enumerate(rests):
            input_ids[row, longest - len(rest) :] = torch.tensor(rest, device=self.device)
            mask[row, start + longest - len(rest) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, start:]
        embeds = self.model.get_input_embeddings()(input_ids)
        generated: list[list[int]] = [[] for _ in rests]
        rows = torch.arange(count)
        done = torch.zeros(count, dtype=torch.bool)
        for step in range(self.max_new_tokens):
            output = self.model(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            logits[:, self.never] = -torch.inf
            if choosers is None:
                chosen = logits.argmax(-1)
            else:
                places = enumerate(rows.tolist())
                picked = [choosers[row].choose(logits[place], generated[row]) for place, row in places]
                chosen = torch.tensor(picked, device=logits.device)
            for place, (row, token) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
                if not done[place]:
                    generated[row].append(token)
                    done[place] = self._ended(generated[row])
            if bool(done.all()) or step == self.max_new_tokens - 1:
                break
            if int(done.sum()) * 5 >= len(done):  # finished rows run along until there are enough to be worth a copy
                rows, left = rows[~done], (~done).nonzero().flatten().to(self.device)
                cache.batch_select_indices(left)
                mask, positions, chosen, done = mask[left], positions[left], chosen[left], done[~done]
            embeds = self.model.get_input_embeddings()(chosen[:, None])
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return generated

    def _ended(self, generated: list[int]) -> bool:
        """Whether the last ids end an answer; they are taken from it."""
        end = next((len(stop) for stop in self.stops if tuple(generated[-len(stop) :]) == stop), 0)
        del generated[len(generated) - end :]
        return end > 0


@dataclass(eq=False)
class _Beginning:
    """What all prompts about one clip begin with."""

    shown: Shown
    ids: list[int]
    media_end: int

    @property
    def length(self) -> int:
        return len(self.ids)
