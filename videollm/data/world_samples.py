"""Training samples of the world, made on the fly: sample ``i`` of a seed is always the same, in any order or process.

Notation: T frames, S segments of sound, Q slots, L tokens.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from videollm.clips import Clip, Frames, Waveform
from videollm.data import dialogue as talk
from videollm.data.drawing import render, through_camera
from videollm.data.sounds import beep_times, synthesise
from videollm.data.world import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SOUNDS,
    Scene,
    draw_pile,
    draw_scene,
    reversed_in_time,
    thing_at,
)
from videollm.media.sampling import FrameSampling, SoundSampling, on_screen
from videollm.messages import MediaPart, Message, assistant, user
from videollm.models.video_llama import VideoLlamaProcessor


def frame_times(scene: Scene, sampling: FrameSampling) -> np.ndarray:
    """Presentation times (seconds) of the frames that the model would be shown of the scene's file."""
    count = max(1, round(scene.duration_seconds * scene.frame_rate))
    times = np.arange(count) / scene.frame_rate
    return times[np.unique(on_screen(times, sampling.choose(times, scene.duration_seconds)))]


def scene_frames(scene: Scene, sampling: FrameSampling, size_px: int) -> Frames:
    """The frames that the model would be shown, drawn at its own size."""
    times = frame_times(scene, sampling)
    return Frames(render(scene, times, size_px), times, scene.duration_seconds)


def scene_sound(scene: Scene, processor: VideoLlamaProcessor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(audio_values ``(S, 1, F, W)``, seconds ``(S,)``) of the scene's sound, or None without a sound track."""
    samples = synthesise(scene, 16000, 1)
    if samples is None:
        return None
    wave = Waveform(samples, 16000)
    windows = SoundSampling(**processor.sound_sampling).choose(wave.duration_seconds)
    return processor.process_sound((wave,), windows)


# --- the eye ----------------------------------------------------------------------------------------------------------


def _inside(width: float, height: float, x: float, y: float) -> bool:
    return -0.02 <= x <= width + 0.02 and -0.02 <= y <= height + 0.02


class FrameSamples(Dataset[dict[str, Any]]):
    """Single frames with what is where in them, several of each scene: for training the eye.

    Each item: ``pixel_values`` float ``(K, 3, H, W)``; ``shape`` int ``(K, colours)`` (0: no such thing), ``where``
    float ``(K, colours, 3)`` centre x, y in [-1, 1] of the padded square and radius; ``patch_colour``,
    ``patch_shape`` int ``(K, P)``; ``background`` int ``(K,)``; ``shares`` float ``(K, names)`` of colour; ``luma``
    float ``(K,)``; ``map`` float ``(K, 192)``, the frame at 8 x 8 pixels; ``view`` float ``(K, 4)``: the camera's
    offset x, y, log scale, and the number of the shot.
    """

    def __init__(self, processor: VideoLlamaProcessor, count: int, size_px: int, patches: int, seed: int = 0) -> None:
        self.processor, self.count, self.size_px, self.patches, self.seed = processor, count, size_px, patches, seed

    frames_per_scene = 4

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.seed * 100_000_000 + index
        rng = np.random.default_rng([number, 17])
        draw = rng.random()
        if draw < 0.45:
            scene, times = draw_pile(number), np.arange(self.frames_per_scene) + 0.5
        else:
            scene = draw_scene(number, "camera" if draw < 0.58 else "plain" if draw < 0.75 else None)
            times = np.sort(rng.uniform(0, scene.duration_seconds, self.frames_per_scene))
        pixels = render(scene, times, self.size_px)
        if rng.random() < 0.3:  # what compression does to noise
            pixels = (pixels // 6 * 6 + 3).astype(np.uint8)
        values, _ = self.processor.process_frames(Frames(pixels, times, scene.duration_seconds))
        labels = [self._labels(scene, moment, frame) for moment, frame in zip(times, pixels, strict=True)]
        small = torch.nn.functional.adaptive_avg_pool2d(values, 8).flatten(1)
        return {
            "pixel_values": values,
            "map": small,
            **{key: torch.as_tensor(np.stack([label[key] for label in labels])) for key in labels[0]},
        }

    def _labels(self, scene: Scene, moment: float, pixels: np.ndarray) -> dict[str, np.ndarray]:
        shot = scene.shot_at(moment)
        height, width = pixels.shape[0] / self.size_px, pixels.shape[1] / self.size_px
        shape = np.zeros(len(COLOURS), np.int64)
        where = np.zeros((len(COLOURS), 3), np.float32)
        grid = (np.arange(self.patches) + 0.5) / self.patches
        gx, gy = grid - (1 - width) / 2, grid - (1 - height) / 2  # patch centres in the picture's units
        wx, wy = through_camera(shot, moment, gx, gy, width, height)
        patch_colour = np.zeros((self.patches, self.patches), np.int64)
        patch_shape = np.zeros((self.patches, self.patches), np.int64)
        # Where the picture's centre and a point right of it look to, gives the camera's view.
        cx, cy = through_camera(
            shot, moment, np.array([width / 2, width / 2 + 0.1]), np.array([height / 2]), width, height
        )
        scale = 0.1 / (cx[1] - cx[0])
        for thing in shot.things:
            if moment < thing.start_seconds:
                continue
            x, y, size = thing_at(thing, moment - max(shot.start_seconds, thing.start_seconds))
            px, py, size_px = width / 2 + (x - cx[0]) * scale, height / 2 + (y - cy[0]) * scale, size * scale
            if not _inside(width, height, px, py):
                continue
            colour = COLOURS.index(thing.colour)
            shape[colour] = 1 + SHAPES.index(thing.shape)
            where[colour] = (2 * px - width, 2 * py - height, 4 * size_px)
            covered = np.hypot(wx[None, :] - x, wy[:, None] - y) < size * 0.8
            patch_colour[covered] = 1 + colour
            patch_shape[covered] = 1 + SHAPES.index(thing.shape)
        shares = talk.attributes.colour_shares(pixels[None])
        background = 0 if shot.ground.colour is None else 1 + BACKGROUNDS.index(shot.ground.colour)
        return {
            "shape": shape,
            "where": where,
            "patch_colour": patch_colour.reshape(-1),
            "patch_shape": patch_shape.reshape(-1),
            "background": np.int64(background),
            "shares": np.array([shares[name] for name in talk.attributes.COLOURS], np.float32),
            "luma": np.float32(pixels.astype(np.float32).mean() / 255 * 2 - 1),
            "view": np.array([cx[0], cy[0], np.log(scale), scene.shots.index(shot)], np.float32),
        }


# --- the ear ----------------------------------------------------------------------------------------------------------


class SegmentSamples(Dataset[dict[str, Any]]):
    """All segments of a scene's sound with what sounds in each: for training the ear.

    Each item: ``audio_values`` float ``(S, 1, F, W)``; ``kind`` int ``(S,)`` (0: nothing); ``starts`` int ``(S,)``, how
    many sounds (beeps and clicks one by one) start in it; ``start`` float ``(S,)``, where the first of them does, in
    [0, 1] of the segment, -1 without one; ``level`` float ``(S,)``, dB / 50 below full scale; ``spectrum`` float
    ``(S, 64)``, the mean log-mel.
    """

    def __init__(self, processor: VideoLlamaProcessor, count: int, seed: int = 0) -> None:
        self.processor, self.count, self.seed = processor, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.seed * 100_000_000 + index
        scene = draw_scene(number)
        while not scene.sounds:
            number += 7_000_003
            scene = draw_scene(number)
        sound = scene_sound(scene, self.processor)
        assert sound is not None
        values, seconds = sound
        length = self.processor.sound_sampling["length_seconds"]
        labels = {
            "kind": np.zeros(len(values), np.int64),
            "starts": np.zeros(len(values), np.int64),
            "start": np.full(len(values), -1, np.float32),
            "level": np.full(len(values), -1.8, np.float32),
        }
        for index_of_segment, begin in enumerate(seconds.tolist()):
            for event in scene.sounds:
                end = event.end_seconds
                moments = np.array([event.start_seconds])
                if event.kind in ("beeps", "clicks"):
                    moments = beep_times(event)
                    end = moments[-1] + (0.14 if event.kind == "beeps" else 0.04)
                inside = moments[(moments >= begin) & (moments < begin + length)]
                if event.start_seconds < begin + length - 0.02 and end > begin + 0.02:
                    # Between two beeps there may be nothing to hear in a segment, but it belongs to them.
                    labels["kind"][index_of_segment] = 1 + SOUNDS.index(event.kind)
                    labels["level"][index_of_segment] = scene.gain_db / 50
                if len(inside):
                    labels["starts"][index_of_segment] = min(3, len(inside))
                    labels["start"][index_of_segment] = (inside[0] - begin) / length
        # The scene's whole sound would be a long row; a stretch of it is enough.
        first = int(np.random.default_rng([scene.seed, 19]).integers(0, max(1, len(values) - 8)))
        part = slice(first, first + 8)
        return {
            "audio_values": values[part],
            "spectrum": values[part].mean(dim=(1, 3)),
            **{key: torch.as_tensor(value[part]) for key, value in labels.items()},
        }


# --- words ------------------------------------------------------------------------------------------------------------


def fact_ids(values: Sequence[dict[str, str]], slots) -> np.ndarray:
    """Facts as numbers: int ``(Q, fields)``, -1 where a slot has fewer fields than the longest."""
    width = max(len(fields) for _, fields in slots)
    ids = np.full((len(slots), width), -1, np.int64)
    for row, (value, (_, fields)) in enumerate(zip(values, slots, strict=True)):
        for column, (name, options) in enumerate(fields.items()):
            ids[row, column] = options.index(value.get(name, options[0]))
    return ids


def _invented_picture(scene: Scene, rng: np.random.Generator) -> talk.Picture:
    """Attributes for the decoder's text, where no picture is drawn."""
    colour = scene.shots[0].ground.colour
    if colour is None or rng.random() < 0.2:
        colour = str(rng.choice(talk.attributes.COLOURS))
    return talk.Picture(colour, 1.0, str(rng.choice(("dark", "medium", "bright"))), 100.0)


_PIXEL = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1), 0.0)
_SILENCE = Waveform(np.zeros((1, 1), np.float32), 16000)


def encode_dialogue(
    processor: VideoLlamaProcessor, turns: Sequence[talk.Turn], seen: bool, heard: bool
) -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation about one clip; only answers and their ends are learned."""
    clip = Clip(
        "clip", "video" if seen else "audio", "", 1.0, _PIXEL if seen else None,
        (_SILENCE,) if heard else None, ((0.0, 1.0),) if heard else (),
    )  # fmt: skip
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        answer = assistant(turn.answer, answer_ids(processor.tokenizer, turn.answer))
        messages += [user(turn.question, [MediaPart("clip")] if index == 0 else []), answer]
    ids = processor.render(messages, {"clip": clip}, add_generation_prompt=False).input_ids
    return ids, answer_labels(ids, processor)


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of an answer with its capitals, each a token of its own: the tokenizer lower-cases whatever it reads."""
    ids: list[int] = []
    for piece in re.split("([A-Z])", text):
        if len(piece) == 1 and piece.isupper():
            ids.append(tokenizer.convert_tokens_to_ids(piece))
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def answer_labels(ids: Sequence[int], processor: VideoLlamaProcessor) -> list[int]:
    """Labels of a rendered conversation in `tiny`'s template: -100 but for answers and the token that ends them."""
    tokenizer = processor.tokenizer
    start, end = tokenizer.convert_tokens_to_ids(["<assistant>", tokenizer.eos_token])
    labels, learned = [], False
    for token in ids:
        labels.append(token if learned else -100)
        if token == start:
            learned = True
        elif token == end:
            learned = False
    return labels


class DialogueSamples(Dataset[dict[str, Any]]):
    """Conversations about scenes that nobody has drawn: for training the decoder on the world's text.

    Each item: ``video_facts`` int ``(Q, fields)`` and ``sound_facts``, ``seen``, ``heard`` bool, ``input_ids`` and
    ``labels`` int ``(L,)``.
    """

    def __init__(
        self,
        processor: VideoLlamaProcessor,
        count: int,
        turns: int,
        seed: int = 0,
        *,
        emphasis: tuple[str, ...] = (),
        only: tuple[str, ...] | None = None,
        kinds: tuple[str, ...] = (),
    ) -> None:
        self.processor, self.count, self.turns, self.seed = processor, count, turns, seed
        self.emphasis, self.only, self.kinds = emphasis, only, kinds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        kind = self.kinds[index // 3 % len(self.kinds)] if self.kinds and index % 3 else None
        scene = draw_scene(self.seed * 100_000_000 + index, kind)
        rng = np.random.default_rng([scene.seed, 23])
        picture = _invented_picture(scene, rng)
        return dialogue_item(self.processor, scene, picture, rng, self.turns, self.only, self.emphasis)


def dialogue_item(
    processor: VideoLlamaProcessor,
    scene: Scene,
    picture: talk.Picture,
    rng: np.random.Generator,
    turns: int,
    only: tuple[str, ...] | None = None,
    emphasis: tuple[str, ...] = (),
) -> dict[str, Any]:
    """One conversation about a scene (``only`` and ``emphasis``: see `dialogue`), with the facts behind it."""
    seen, heard = rng.random() > 0.03, scene.has_sound_track and rng.random() > 0.05
    if not seen and not heard:
        seen = True
    said = talk.dialogue(scene, picture, rng, turns, seen=seen, heard=heard, only=only, emphasis=emphasis)
    ids, labels = encode_dialogue(processor, said, seen, heard)
    return {**facts_item(scene, picture), "seen": seen, "heard": heard, "input_ids": ids, "labels": labels}


def facts_item(scene: Scene, picture: talk.Picture) -> dict[str, Any]:
    """The facts of a scene: ``video_facts`` int ``(Q, fields)`` and ``sound_facts``."""
    return {
        "video_facts": fact_ids(talk.video_facts(scene, picture), talk.VIDEO_SLOTS),
        "sound_facts": fact_ids(talk.sound_facts(scene), talk.SOUND_SLOTS),
    }


# --- clips ------------------------------------------------------------------------------------------------------------


class ClipSamples(Dataset[dict[str, Any]]):
    """Whole clips as the model is shown them: frames, sound, and the attributes computed from the frames.

    Each item: ``pixel_values (T, 3, H, W)``, ``frame_seconds (T,)``, ``audio_values (S, 1, F, W)``, ``segment_seconds
    (S,)`` (none without a sound track) and ``picture`` float ``(4,)``, see `picture_of`.
    """

    def __init__(self, processor: VideoLlamaProcessor, count: int, seed: int = 0) -> None:
        self.processor, self.count, self.seed = processor, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = clip_scene(self.seed, index)
        frames = scene_frames(
            scene, FrameSampling(**self.processor.frame_sampling), self.processor.image_processor.size
        )
        if is_still(self.seed, index):
            frames = Frames(frames.pixels[:1], frames.seconds[:1], 0.0)
        pixels, seconds = self.processor.process_frames(frames)
        sound = scene_sound(scene, self.processor)
        extractor = self.processor.feature_extractor
        nothing = torch.zeros(0, 1, extractor.num_mel_bins, extractor.target_length), torch.zeros(0)
        values, starts = sound or nothing
        picture = talk.measure(frames.pixels)
        numbers = (
            talk.attributes.COLOURS.index(picture.main_colour), picture.main_colour_margin,
            ("dark", "medium", "bright").index(picture.brightness), picture.brightness_margin,
        )  # fmt: skip
        return {
            "pixel_values": pixels,
            "frame_seconds": seconds,
            "audio_values": values,
            "segment_seconds": starts,
            "picture": torch.tensor(numbers),
        }


def is_still(seed: int, index: int) -> bool:
    """Whether a training clip is shown as a photograph (one in 25)."""
    return (index + seed) % 25 == 3


def clip_scene(seed: int, index: int) -> Scene:
    """The scene behind a training clip."""
    scene = draw_scene((seed + 1) * 100_000_000 + 50_000_000 + index)
    return talk.as_still(scene) if is_still(seed, index) else scene


def picture_of(numbers: torch.Tensor) -> talk.Picture:
    """The measured attributes kept by `ClipSamples`."""
    colour, colour_margin, brightness, brightness_margin = numbers.tolist()
    names = talk.attributes.COLOURS
    return talk.Picture(
        names[int(colour)], colour_margin, ("dark", "medium", "bright")[int(brightness)], brightness_margin
    )


@dataclass(frozen=True)
class Visit:
    """One use of kept clips: which clip is seen, whether backwards, which is heard, and what is said."""

    seen: int
    backwards: bool
    heard: int
    item: dict[str, Any]


class ClipItems:
    """Makes what is said about kept clips: facts alone, captions and narrations, or a dialogue; anew at every visit.

    To make more of few clips, half of them run backwards where the world has words for that, and half are heard with
    the sound of another clip.
    """

    def __init__(self, processor: VideoLlamaProcessor, turns: int, seed: int, about: str) -> None:
        self.processor, self.turns, self.seed, self.about = processor, turns, seed, about
        self.visits = 0

    def __call__(self, index: int, pictures: torch.Tensor) -> Visit:
        """A visit of clip ``index``; ``pictures`` are the kept attributes of all clips, ``(N, 4)``."""
        scene = clip_scene(self.seed, index)
        self.visits += 1
        rng = np.random.default_rng([scene.seed, 31, self.visits])
        backwards = False
        if rng.random() < 0.5 and not is_still(self.seed, index):
            turned = reversed_in_time(scene)
            if turned is not None:
                scene, backwards = turned, True
        heard = index
        if rng.random() < 0.5 and not is_still(self.seed, index):
            other_index = int(rng.integers(len(pictures)))
            other = clip_scene(self.seed, other_index)
            if other.timed == scene.timed:
                heard = other_index
                scene = replace(
                    scene, sounds=other.sounds, loudness=other.loudness, has_sound_track=other.has_sound_track
                )
        picture = picture_of(pictures[index])
        if self.about == "facts":
            return Visit(index, backwards, heard, facts_item(scene, picture))
        only = ("caption", "narration", "caption_both", "sound") if self.about == "captions" else None
        item = dialogue_item(self.processor, scene, picture, rng, self.turns, only)
        return Visit(index, backwards, heard, item)


@functools.cache
def corpus(count: int = 6000) -> tuple[str, ...]:
    """Questions and answers of the world, for training a tokenizer."""
    texts: list[str] = []
    for index in range(count):
        scene = draw_scene(900_000_000 + index)
        rng = np.random.default_rng([scene.seed, 29])
        for turn in talk.dialogue(scene, _invented_picture(scene, rng), rng, 4):
            texts += [turn.question, turn.answer]
    return tuple(texts)


# --- batches ----------------------------------------------------------------------------------------------------------


def stack(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of items of equal shapes."""
    return {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in items[0]}


def stack_segments(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of `SegmentSamples`; ``kind`` is -100 where an item has fewer segments."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        key: pad([item[key] for item in items], batch_first=True, padding_value=-100 if key == "kind" else 0)
        for key in items[0]
    }
