"""Who can say what happens in a window of a video: LaViLa's narrator, or any chat model, asked about each window.

Beside them what LaViLa puts behind a narrator: a dual encoder, which tells how well a sentence fits a window, and the
rephraser, which is `videollm.models.lavila.Rephraser` itself.

Source: Zhao et al., "LaViLa" (2022), section 3; the released code for how sentences are drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from videollm.chat.batch import CLIP, Predictor, Prompt
from videollm.chat.generation import GenerationOptions
from videollm.clips import Clip
from videollm.errors import ConfigError, ModelNotFoundError
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.messages import MediaPart, user
from videollm.models import families, hub
from videollm.moments.embed import pixel_values_of

if TYPE_CHECKING:
    from videollm.models.lavila import LavilaDualEncoder, LavilaNarrator, LavilaProcessor, Rephraser
    from videollm.models.memory import MemoryPlan

QUESTION = "Narrate the video."
"""What a chat model is asked about each window. `tiny` answers with the seconds at which things change."""

OVERLAP_QUESTION = "Describe the video."
"""What it is asked where windows overlap: each tells of its middle alone, so that no seconds within it are needed."""

DRAWN_TEMPERATURE, DRAWN_TOP_P = 0.7, 0.95
"""How several sentences for one window are drawn, as published. A single one is greedy."""

MAX_NEW_TOKENS = 96
SHOWN_AT_ONCE = 2
"""Windows whose pictures, or sounds, pass the encoders together: more take more memory, and no less time."""


def question_for(window_seconds: float, stride_seconds: float | None) -> str:
    """What a chat model is best asked about windows of a length and a stride."""
    return QUESTION if stride_seconds is None or stride_seconds >= window_seconds else OVERLAP_QUESTION


@dataclass(frozen=True)
class Sentence:
    """What a narrator says of a window.

    Attributes:
        text: its words.
        perplexity: the narrator's own published score, lower where it was surer; None where it has none.
    """

    text: str
    perplexity: float | None = None


class Narrator(Protocol):
    """What `videollm.tools.narrate` asks for sentences.

    Attributes:
        identity: plain data that is the same for the same weights and the same way of asking.
        frames, sound: what it looks at and listens to in a window; None: it has no ear.
    """

    identity: dict[str, Any]
    frames: FrameSampling
    sound: SoundSampling | None

    def describe(self, clips: Sequence[Clip], candidates: int, seed: int) -> list[list[Sentence]]:
        """Sentences for windows.

        Args:
            clips: the windows of one batch.
            candidates: how many for each: 1 is greedy; several are drawn.
            seed: the same windows with the same seed get the same sentences.

        Returns:
            for each window its sentences; none where there is nothing that it could see or hear.
        """
        ...


class ChatNarrator:
    """A chat model that is asked the same question about every window.

    Args:
        model: a `VideoLlamaForConditionalGeneration`.
        processor: its.
        question: what it is asked.
        max_new_tokens: answers are cut after so many.
        identity: see `Narrator`.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        question: str = QUESTION,
        max_new_tokens: int = MAX_NEW_TOKENS,
        identity: Any = None,
    ) -> None:
        self.identity = {"model": identity, "question": question, "max_new_tokens": max_new_tokens}
        self.frames = FrameSampling(**processor.frame_sampling)
        self.sound = SoundSampling(**processor.sound_sampling) if model.audio_model is not None else None
        self.question = question
        self._predictor = Predictor(model, processor, max_new_tokens=max_new_tokens)

    def asking(self, question: str) -> ChatNarrator:
        """The same model, asked something else."""
        other = copy.copy(self)
        other.question, other.identity = question, {**self.identity, "question": question}
        return other

    def describe(self, clips: Sequence[Clip], candidates: int, seed: int) -> list[list[Sentence]]:
        usable = [clip for clip in clips if clip.frames is not None or (clip.waveforms and self.sound is not None)]
        prompts = []
        for first in range(0, len(usable), SHOWN_AT_ONCE):
            for shown in self._predictor.show(usable[first : first + SHOWN_AT_ONCE]):
                kind = "video" if shown.clip.frames is not None else "audio"
                prompts += [Prompt(shown, (user(self.question, [MediaPart(CLIP, kind)]),))] * candidates
        drawn = None
        if candidates > 1:
            drawn = [
                GenerationOptions(temperature=DRAWN_TEMPERATURE, top_p=DRAWN_TOP_P, seed=_mixed(seed, place))
                for place in range(len(prompts))
            ]
        answers = iter(self._predictor.answer(prompts, drawn) if prompts else ())
        places = {id(clip) for clip in usable}
        return [[Sentence(next(answers).text) for _ in range(candidates if id(c) in places else 0)] for c in clips]


def _mixed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0] >> 1)


class LavilaNarrations:
    """LaViLa's narrator.

    Args:
        model, processor: of one folder.
        identity: see `Narrator`.
    """

    sound: SoundSampling | None = None

    def __init__(self, model: LavilaNarrator, processor: LavilaProcessor, *, identity: Any = None) -> None:
        self.identity = {"model": identity}
        self.model, self.processor = model, processor
        self.frames = FrameSampling("centre", frames=processor.image_processor.num_frames)

    @torch.inference_mode()
    def describe(self, clips: Sequence[Clip], candidates: int, seed: int) -> list[list[Sentence]]:
        from videollm.models.lavila import EntropyMeter

        seen = [clip for clip in clips if clip.frames is not None]
        if not seen:
            return [[] for _ in clips]
        meter = EntropyMeter(int(self.processor.tokenizer.eos_token_id))
        pixels = pixel_values_of(seen, self.processor, self.model)
        # Drawing takes its numbers from the global generators; they are put back.
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            drawing: dict[str, Any] = {"do_sample": False}
            if candidates > 1:
                drawing = {"do_sample": True, "temperature": DRAWN_TEMPERATURE, "top_p": DRAWN_TOP_P, "top_k": 0}
            ids = self.model.generate(
                pixel_values=pixels, num_return_sequences=candidates, logits_processor=[meter], **drawing
            )
        texts = self.processor.sentences(ids)
        said = [Sentence(text, round(score, 4)) for text, score in zip(texts, meter.scores.tolist(), strict=True)]
        groups = iter([said[at : at + candidates] for at in range(0, len(said), candidates)])
        return [[] if clip.frames is None else next(groups) for clip in clips]


class DualEncoderScorer:
    """How well sentences fit windows, by LaViLa's dual encoder.

    It looks at as many frames as it was trained with, the middles of segments among those that the narrator saw.

    Args:
        model, processor: of one folder.
        identity: plain data that is the same for the same weights.
    """

    def __init__(self, model: LavilaDualEncoder, processor: LavilaProcessor, *, identity: Any = None) -> None:
        self.identity = identity
        self.model, self.processor = model, processor

    @torch.inference_mode()
    def similarities(self, clips: Sequence[Clip], texts: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Cosine similarities, in [-1, 1], of each window with each of its sentences; None where nothing is seen."""
        seen = [(clip, said) for clip, said in zip(clips, texts, strict=True) if clip.frames is not None and said]
        found: dict[int, list[float | None]] = {}
        if seen:
            videos = self.model(pixel_values=pixel_values_of([c for c, _ in seen], self.processor, self.model))
            batch = self.processor.texts([text for _, said in seen for text in said])
            words = self.model(**{name: values.to(self.model.device) for name, values in batch.items()})
            rows = iter(words.text_embeds)
            for (clip, said), video in zip(seen, videos.video_embeds, strict=True):
                found[id(clip)] = [round(float(video @ next(rows)), 4) for _ in said]
        return [found.get(id(clip), [None] * len(said)) for clip, said in zip(clips, texts, strict=True)]


# -- from folders ------------------------------------------------------------------------------------------------------


def load_narrator(
    name_or_folder: str | Path = "tiny",
    *,
    device: str | None = None,
    bits: int | None = None,
    question: str = QUESTION,
    announce: Callable[[MemoryPlan], None] | None = None,
) -> ChatNarrator | LavilaNarrations:
    """A narrator from a name or a folder: of a chat model, or of LaViLa's narrator.

    Args:
        name_or_folder: ``"tiny"``, ``"tiny_narrator"``, or what ``videollm convert`` or ``save_pretrained`` wrote.
        device, bits, announce: as of `videollm.models.hub.load`.
        question: what a chat model is asked.

    Raises:
        ModelNotFoundError: no such model, or one of another kind.
        ConfigError: bits for LaViLa's narrator, or a device that cannot be used.
    """
    if families.model_type_of(name_or_folder) != "lavila_narrator":
        folder = hub.find(name_or_folder)  # says what is wrong with any other kind
        model, processor = hub.load(name_or_folder, device=device, bits=bits, announce=announce)
        identity = {"weights": families.weights_of(folder), "bits": bits}
        return ChatNarrator(model, processor, question=question, identity=identity)
    if bits is not None:
        raise ConfigError(f"{name_or_folder} is LaViLa's narrator, which is not quantised; leave --bits out")
    from videollm.models.lavila import LavilaNarrator

    model, processor = families.load(name_or_folder, LavilaNarrator, device=device)
    return LavilaNarrations(model, processor, identity={"weights": families.weights_of(name_or_folder)})


def load_scorer(folder: str | Path, *, device: str | None = None) -> DualEncoderScorer:
    """LaViLa's dual encoder from its folder.

    Raises:
        ModelNotFoundError: no such model, or one of another kind.
        ConfigError: a device that cannot be used.
    """
    kind = families.model_type_of(folder)
    if kind != "lavila_dual_encoder":
        found = f"is of a {kind!r} model" if kind else "holds no config.json that can be read"
        raise ModelNotFoundError(f"no scorer in {folder}: it {found}; give the folder of a LaViLa dual encoder")
    from videollm.models.lavila import LavilaDualEncoder

    model, processor = families.load(folder, LavilaDualEncoder, device=device)
    return DualEncoderScorer(model, processor, identity=families.weights_of(folder))


def load_rephraser(folder: str | Path, *, device: str | None = None) -> Rephraser:
    """LaViLa's rephraser from the folder of a T5.

    Raises:
        ModelNotFoundError: no such model.
        ConfigError: a device that cannot be used.
    """
    from videollm.models.lavila import Rephraser

    if families.model_type_of(folder) is None:
        raise ModelNotFoundError(f"no rephraser in {folder}: it holds no config.json; give the folder of a T5")
    rephraser = Rephraser.from_pretrained(hub.folder_of(folder))
    rephraser.model.to(hub.choose_device(device))
    return rephraser
