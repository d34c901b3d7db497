"""Annotations of long videos, as LF-VILA's loaders read them: clips with sentences, paragraphs, questions, classes.

All are lists of objects, one a line (JSONL) or in one JSON list. A video is ``<videos>/<id>`` with one of the endings
of `ENDINGS`. LF-VILA-8M kept its rows as Python source and ran them (D12): export them as JSON, one row a line.

Source: Sun et al. 2022, section 4 and the loaders released with it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from videollm.data.annotations import bad, json_list, media_file
from videollm.data.sample import JsonlLines, Media, UnusableSampleError
from videollm.errors import DataError
from videollm.models.lf_vila.processing_lf_vila import merge_sentences

ENDINGS = ("mp4", "mkv", "webm", "avi")


@dataclass(frozen=True)
class Subtitle:
    """What is said, and when."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class LongForm:
    """One annotation of a long video. What a format does not have is empty, or None.

    Attributes:
        id: unique within its source.
        clips: the video; or its consecutive clips, each with the sentence at its place in ``sentences``.
        sentences: a paragraph.
        question: a question, or a statement that is true or false.
        choices: answers to choose from.
        answer: the number of the right choice, answer or class.
        subtitles: what is said in the video.
        span_seconds: when the answer is to be seen.
    """

    id: str
    clips: tuple[Media, ...]
    sentences: tuple[str, ...] = ()
    question: str = ""
    choices: tuple[str, ...] = ()
    answer: int | None = None
    subtitles: tuple[Subtitle, ...] = ()
    span_seconds: tuple[float, float] | None = None


Format = Literal[
    "clips", "activitynet_captions", "queryd", "condensed_movies", "didemo", "activitynet_qa", "how2qa", "violin",
    "coin", "lvu",
]  # fmt: skip


class LongFormAnnotations:
    """Annotations by number.

    Args:
        format: ``clips`` for lists of ``clip_id`` and ``text`` of one video, in order (LF-VILA-8M). Retrieval
            (``activitynet_captions``, ``queryd``, ``condensed_movies``, ``didemo``): ``clip_id`` and ``text``, a text
            or a list of sentences. ``activitynet_qa``: ``video_name``, ``question``, ``answer``, a number. ``how2qa``:
            ``clip_id``, ``span``, ``text_q``, ``text_a``, ``text_s``, ``answer_idx``. ``violin``: ``clip_id``,
            ``text_q``, ``text_s``, ``answer``. ``coin`` and ``lvu``: ``video_id``, ``recipe_type``, a number.
        path: of the annotations.
        videos: the folder of videos. Of ``clips``: a clip ``a.3.mp4`` is ``<videos>/a/a.3.mp4``.
        name: of the dataset; the format, if None.

    Raises:
        DataError: an unknown format, or no annotations. An item raises `UnusableSampleError`.
    """

    def __init__(
        self, format: Format, path: str | os.PathLike[str], videos: str | os.PathLike[str], name: str | None = None
    ) -> None:
        if format not in _READERS:
            raise DataError(f"no format {format!r} of long videos; choose one of {', '.join(_READERS)}")
        self.name, self.format, self._path, self._videos = name or format, format, Path(path), Path(videos)
        self._lines: JsonlLines | None = None
        self._rows: list[Any] = []
        if self._is_one_list():
            self._rows = json_list(path)
        else:
            self._lines = JsonlLines(path)

    def _is_one_list(self) -> bool:
        """Whether the file is one JSON list; of ``clips``, each line is a list, too."""
        try:
            with self._path.open("rb") as file:
                first = file.readline(1 << 24).strip()
        except OSError as error:
            raise DataError(
                f"cannot read {self._path}: {error.strerror}; give an existing JSON or JSONL file"
            ) from None
        if not first.startswith(b"["):
            return False
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            return True  # goes on on the next line
        return self.format != "clips" or not row or isinstance(row[0], list)

    def __len__(self) -> int:
        return len(self._rows) if self._lines is None else len(self._lines)

    def __getitem__(self, index: int) -> LongForm:
        if self._lines is None:
            row, where = self._rows[index], f"{self._path} entry {index + 1}"
        else:
            row, where = self._lines[index], self._lines.where(index)
        return _READERS[self.format](row, self._videos, where, index)


def consecutive(sample: LongForm, count: int, rng: Random) -> LongForm:
    """Some consecutive clips of a video with their sentences, from a random one on.

    The published loader never began at the last place that is possible (D14).

    Raises:
        UnusableSampleError: if it has fewer.
    """
    if len(sample.clips) < count or len(sample.clips) != len(sample.sentences):
        raise UnusableSampleError(
            "bad annotation", f"{sample.id} has {len(sample.clips)} clips, not {count}; leave it out"
        )
    start = rng.randint(0, len(sample.clips) - count)
    part = slice(start, start + count)
    return LongForm(f"{sample.id}:{start}", sample.clips[part], sample.sentences[part])


SUBTITLES = {"how2qa": 6, "violin": 4}
"""Into how many sentences the subtitles of a format are joined, as published."""


def question_sentences(sample: LongForm, choice: int | None = None, subtitles: int = 0) -> tuple[str, ...]:
    """What is read of a question: itself, one of its choices, and what is said in the video, in that order.

    Args:
        sample: with a question.
        choice: the number of a choice; None: none is read.
        subtitles: into how many sentences all that is said is joined, see `SUBTITLES`; 0 leaves it out.
    """
    said = [one.text.strip() for one in sample.subtitles if one.text.strip()] if subtitles else []
    chosen = () if choice is None else (sample.choices[choice],)
    return (sample.question, *chosen, *(merge_sentences(said, subtitles) if said else ()))


# ---- one reader a format


def _clips(row: Any, videos: Path, where: str, index: int) -> LongForm:
    if not isinstance(row, list) or not row:
        raise bad(where, "must be a list of clips that is not empty")
    clips, sentences = [], []
    for one in row:
        name, text = _text(one, "clip_id", where), _text(one, "text", where)
        clips.append(media_file(videos, os.path.join(name.split(".")[0], name), where))
        sentences.append(text)
    return LongForm(f"{index}-{_text(row[0], 'clip_id', where)}", tuple(clips), tuple(sentences))


def _paragraph(row: Any, videos: Path, where: str, index: int) -> LongForm:
    name = _text(row, "clip_id", where)
    told = row.get("text")
    sentences = [told] if isinstance(told, str) else told
    if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
        raise bad(where, "text must be a text or a list of texts")
    kept = tuple(one for one in sentences if one.strip())
    if not kept:
        raise UnusableSampleError("empty caption", f"{where}: the paragraph has no words")
    return LongForm(f"{index}-{name}", (video_file(videos, name, where),), kept)


def _activitynet_qa(row: Any, videos: Path, where: str, index: int) -> LongForm:
    name = _text(row, "video_name", where)
    question, answer = _text(row, "question", where), _number(row, "answer", where)
    return LongForm(f"{index}-{name}", (video_file(videos, name, where),), question=question, answer=answer)


def _how2qa(row: Any, videos: Path, where: str, index: int) -> LongForm:
    name, question = _text(row, "clip_id", where), _text(row, "text_q", where)
    choices = row.get("text_a")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
        raise bad(where, "text_a must be a list of at least two texts")
    answer = _number(row, "answer_idx", where)
    if answer >= len(choices):
        raise bad(where, f"answer_idx is {answer}, but there are {len(choices)} choices")
    return LongForm(
        f"{index}-{name}",
        (video_file(videos, name, where),),
        question=question,
        choices=tuple(choices),
        answer=answer,
        subtitles=_subtitles(row, where),
        span_seconds=_span(row.get("span"), where),
    )


def _violin(row: Any, videos: Path, where: str, index: int) -> LongForm:
    name, statement = _text(row, "clip_id", where), _text(row, "text_q", where)
    answer = int(row["answer"]) if isinstance(row.get("answer"), bool) else _number(row, "answer", where)
    said = _subtitles(row, where)
    return LongForm(
        f"{index}-{name}", (video_file(videos, name, where),), question=statement, answer=answer, subtitles=said
    )


def _classes(row: Any, videos: Path, where: str, index: int) -> LongForm:
    name, answer = _text(row, "video_id", where), _number(row, "recipe_type", where)
    return LongForm(f"{index}-{name}", (video_file(videos, name, where),), answer=answer)


_READERS: dict[str, Callable[[Any, Path, str, int], LongForm]] = {
    "clips": _clips,
    "activitynet_captions": _paragraph,
    "queryd": _paragraph,
    "condensed_movies": _paragraph,
    "didemo": _paragraph,
    "activitynet_qa": _activitynet_qa,
    "how2qa": _how2qa,
    "violin": _violin,
    "coin": _classes,
    "lvu": _classes,
}


def _text(row: Any, key: str, where: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise bad(where, f"there is no {key}")
    return value


def _number(row: Any, key: str, where: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad(where, f"{key} must be a whole number from 0")
    return value


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _span(value: Any, where: str) -> tuple[float, float] | None:
    """Start and end; None where they are not known, which the published files write as NaN."""
    if value is None:
        return None
    pair = [_seconds(one) for one in value] if isinstance(value, list) and len(value) == 2 else []
    start, end = pair if len(pair) == 2 else (None, None)
    if start is None or end is None:
        raise bad(where, "span must be two numbers of seconds")
    if math.isnan(start) or math.isnan(end):
        return None
    if not (math.isfinite(start) and math.isfinite(end)) or not 0 <= start <= end:
        raise bad(where, f"span ends before it starts, or is not finite: {start:g} to {end:g}")
    return start, end


def _subtitles(row: Any, where: str) -> tuple[Subtitle, ...]:
    said = row.get("text_s", [])
    if not isinstance(said, list):
        raise bad(where, "text_s must be a list")
    found = []
    for one in said:
        start, end = (_seconds(one.get(key)) if isinstance(one, dict) else None for key in ("start", "end"))
        if start is None or end is None or not isinstance(one.get("text"), str):
            raise bad(where, "a subtitle needs start, end and text")
        found.append(Subtitle(start, end, one["text"]))
    return tuple(found)


def video_file(videos: Path, name: str, where: str) -> Media:
    """The file of a video, whichever ending it has; `UnusableSampleError` if there is none."""
    names: Sequence[str] = [name] if name.endswith(tuple(f".{ending}" for ending in ENDINGS)) else []
    for candidate in [*names, *(f"{name}.{ending}" for ending in ENDINGS)]:
        try:
            return media_file(videos, candidate, where)
        except UnusableSampleError as error:
            if error.reason != "missing media":
                raise
    raise UnusableSampleError("missing media", f"{where}: there is no {name}.{ENDINGS[0]} in {videos}; download it")
