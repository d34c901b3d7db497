"""The benchmarks that LaViLa is measured on, as they are published: Ego4D, EPIC-Kitchens-100, Charades-Ego, EGTEA.

Every reader gives stretches of videos with what is known of them. Files are looked for when a stretch is read, so that
a missing video is one stretch left out; what is wrong with an annotation file as a whole is an error.

Source: the annotations of the four datasets, and the released code of LaViLa for how they are read.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videollm.data.annotations import bad, media_file
from videollm.data.lavila_narrations import PIECE_SECONDS, read_narrations
from videollm.data.sample import Media
from videollm.errors import DataError

_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


@dataclass(frozen=True)
class Stretch:
    """A stretch of a video, and what is known of it.

    Attributes:
        id: unique in its file.
        video: the file, below the folder of videos. Of Ego4D it may be a folder of five-minute pieces.
        start_seconds, end_seconds: None: its very start, its very end.
        texts: what people wrote about it.
        classes: the classes of what happens in it.
        where: file and row, for errors.
    """

    id: str
    video: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    texts: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    where: str = ""

    def media(self, videos: str | os.PathLike[str]) -> Media:
        """The file in a folder of videos.

        A stretch of a video in five-minute pieces that runs on into the next one ends with its own.

        Raises:
            UnusableSampleError: it is not there, or ends before it starts.
        """
        name, start, end = self.video, self.start_seconds, self.end_seconds
        if end is not None and end <= (start or 0.0):
            raise bad(self.where, f"{self.id} must end after {start or 0.0:g} s, found {end:g} s")
        if start is not None and (Path(videos) / name).is_dir():
            first = int(start // PIECE_SECONDS) * PIECE_SECONDS
            end = None if end is None else min(end, first + PIECE_SECONDS) - first
            name, start = f"{name}/{first}.mp4", start - first
        found = media_file(videos, name, self.where)
        try:
            return Media(found.path, start, end)
        except ValueError as error:
            raise bad(self.where, str(error)) from None


# ---- Ego4D


@dataclass(frozen=True)
class Choice:
    """A question of EgoMCQ: which of five clips does a text tell of?

    Attributes:
        id: its key.
        text: what somebody narrated.
        clips: five, with their own texts.
        answer: the number of the right one.
        type: 1 or 2, see `videollm.evaluation.retrieval.EGOMCQ_TYPES`.
    """

    id: str
    text: str
    clips: tuple[Stretch, ...]
    answer: int
    type: int


def egomcq(path: str | os.PathLike[str]) -> list[Choice]:
    """The questions of ``egomcq.json``.

    Raises:
        DataError: no such file, or a question with something missing.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give the published egomcq.json") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: must be questions by their numbers; give the published egomcq.json")
    return [_choice(key, row, f"{path} question {key}") for key, row in found.items()]


def _choice(key: str, row: Any, where: str) -> Choice:
    try:
        clips = tuple(
            _egomcq_clip(f"{key}-{number}", row["choices"][str(number)], where) for number in range(len(row["choices"]))
        )
        text, answer, kind = row["query"]["clip_text"], row["answer"], row["types"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: has no {error}; give the published egomcq.json") from None
    if not isinstance(text, str) or not isinstance(answer, int) or kind not in (1, 2) or not 0 <= answer < len(clips):
        raise DataError(f"{where}: needs a text, one of {len(clips)} answers and the type 1 or 2; download it again")
    return Choice(key, text, clips, answer, kind)


def _egomcq_clip(name: str, row: Any, where: str) -> Stretch:
    start, end, text = row["clip_start"], row["clip_end"], row["clip_text"]
    if not isinstance(row["video_uid"], str) or not all(isinstance(one, int | float) for one in (start, end)):
        raise DataError(f"{where}: a choice needs a video and two numbers of seconds; download it again")
    return Stretch(name, f"{row['video_uid']}.mp4", float(start), float(end), (str(text),), where=where)


def narrated(path: str | os.PathLike[str]) -> list[Stretch]:
    """The stretches of a published pickle of Ego4D's narrations, each once, with all its narrations.

    Raises:
        DataError: see `videollm.data.lavila_narrations.read_narrations`.
    """
    texts: dict[tuple[str, float, float], list[str]] = {}
    for video, start, end, text in read_narrations(path):
        texts.setdefault((video, start, end), []).append(text)
    return [
        Stretch(
            f"{number}-{video}", f"{video}.mp4", max(start, 0.0), end, tuple(said), where=f"{path} stretch {number}"
        )
        for number, ((video, start, end), said) in enumerate(texts.items(), 1)
    ]


# ---- EPIC-Kitchens-100


def epic_actions(path: str | os.PathLike[str]) -> list[Stretch]:
    """The actions of ``EPIC_100_validation.csv``, ``EPIC_100_retrieval_test.csv`` and their like.

    Classes are the verb and the noun. Videos are ``<participant>/<video>.MP4``.

    Raises:
        DataError: no such file, or without a column or number that is needed.
    """
    columns = (
        "narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "narration", "verb_class",
        "noun_class",
    )  # fmt: skip
    found = []
    for row, where in _table(path, columns):
        found.append(
            Stretch(
                row["narration_id"],
                f"{row['participant_id']}/{row['video_id']}.MP4",
                _clock(row, "start_timestamp", where),
                _clock(row, "stop_timestamp", where),
                (row["narration"],),
                (_class(row["verb_class"], where), _class(row["noun_class"], where)),
                where,
            )
        )
    return found


def epic_sentences(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """(narration id, narration) of ``EPIC_100_retrieval_test_sentence.csv``: the columns of its relevancies.

    Raises:
        DataError: see `epic_actions`.
    """
    return [(row["narration_id"], row["narration"]) for row, _ in _table(path, ("narration_id", "narration"))]


def action_classes(*files: Sequence[Stretch]) -> list[tuple[int, int]]:
    """The actions (verb, noun) that occur, in the order of the published classifiers: sorted as text."""
    pairs = {f"{one.classes[0]}:{one.classes[1]}" for some in files for one in some}
    return [(int(verb), int(noun)) for verb, noun in (pair.split(":") for pair in sorted(pairs))]


# ---- Charades-Ego


def charades_ego(path: str | os.PathLike[str]) -> list[Stretch]:
    """The videos of ``CharadesEgo_v1_test_only1st.csv``, whole, with the classes of all that happens in them.

    Raises:
        DataError: see `epic_actions`.
    """
    found = []
    for row, where in _table(path, ("id", "actions", "length")):
        classes = set()
        for action in filter(None, (one.strip() for one in row["actions"].split(";"))):
            name = action.split()[0]
            if not re.fullmatch(r"c\d+", name):
                raise DataError(f"{where}: the action {action!r} has no class like c001; download it again")
            classes.add(int(name[1:]))
        found.append(Stretch(row["id"], f"{row['id']}.mp4", classes=tuple(sorted(classes)), where=where))
    return found


def charades_classes(path: str | os.PathLike[str]) -> list[str]:
    """The names of ``Charades_v1_classes.txt``, class by class.

    Raises:
        DataError: no such file, or lines that are not numbered from c000.
    """
    names = []
    for number, line in enumerate(_lines(path)):
        label, _, name = line.partition(" ")
        if label != f"c{number:03d}" or not name.strip():
            raise DataError(
                f"{path} line {number + 1}: must be 'c{number:03d} NAME', found {line[:40]!r}; download it again"
            )
        names.append(name.strip())
    return names


# ---- EGTEA


def egtea(path: str | os.PathLike[str]) -> list[Stretch]:
    """The clips of ``test_split1.txt``, each a file of its own: ``<recipe>/<clip>.mp4``. Classes count from 0.

    Raises:
        DataError: no such file, or a line that is none of its.
    """
    found = []
    for number, line in enumerate(_lines(path), 1):
        where, words = f"{path} line {number}", line.split()
        if len(words) < 2 or not words[1].isdigit() or words[0].count("-") < 3 or int(words[1]) < 1:
            raise DataError(
                f"{where}: must be a clip and the number of its action from 1, found {line[:40]!r}; download it again"
            )
        folder = "-".join(words[0].split("-")[:3])
        found.append(Stretch(words[0], f"{folder}/{words[0]}.mp4", classes=(int(words[1]) - 1,), where=where))
    return found


def egtea_actions(path: str | os.PathLike[str]) -> list[str]:
    """The actions of ``action_idx.txt`` as words, class by class.

    Raises:
        DataError: no such file, or a line that is none of its.
    """
    names: dict[int, str] = {}
    for number, line in enumerate(_lines(path), 1):
        name, _, index = line.rpartition(" ")
        if not name or not index.isdigit():
            raise DataError(
                f"{path} line {number}: must be an action and its number, found {line[:40]!r}; download it again"
            )
        names[int(index) - 1] = " ".join(name.lower().replace("_", " ").split())
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{path}: actions must be numbered from 1 to {len(names)}; download it again")
    return [names[index] for index in range(len(names))]


# ---- tables and lines


def _table(path: str | os.PathLike[str], columns: Sequence[str]) -> list[tuple[dict[str, str], str]]:
    """The rows of a CSV file, with where they stand."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                there = ", ".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{path}: has no column {missing[0]!r}, but {there}; give the published file")
            rows = [(row, f"{path} line {reader.line_num}") for row in reader]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error}); download it again") from None
    if not rows:
        raise DataError(f"{path}: has no rows; give the published file")
    for row, where in rows:
        for name in columns:
            if row[name] is None:
                raise DataError(f"{where}: ends before the column {name!r}; download it again")
    return rows


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text; download it again") from None
    found = [line for line in lines if line]
    if not found:
        raise DataError(f"{path}: is empty; give the published file")
    return found


def _clock(row: dict[str, str], column: str, where: str) -> float:
    """hh:mm:ss.ss to seconds."""
    found = _CLOCK.fullmatch(row[column].strip())
    if found is None:
        raise DataError(f"{where}: {column} must be hh:mm:ss.ss, found {row[column]!r}; download it again")
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _class(text: str, where: str) -> int:
    if not text.strip().isdigit():
        raise DataError(f"{where}: a class must be a whole number from 0, found {text!r}; download it again")
    return int(text)
