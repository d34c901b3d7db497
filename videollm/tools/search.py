"""Moments at which something is seen or heard, in an index: by words, by an example, by a long description in order.

Words are looked for in what is told of windows, and, with the encoders that the index was made with, compared with
vectors of what is seen and heard. An example is a picture, a clip or a sound: its vectors are compared.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videollm.errors import ConfigError
from videollm.media.decode_worker import inspect_clip, open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.media.write import atomic, cut_clip
from videollm.moments.moment import Found, Reason, VectorKind
from videollm.moments.senses import by_sense, phrases
from videollm.moments.store import MomentStore
from videollm.tools.narrate import LONG_FILE, clock

if TYPE_CHECKING:
    import numpy as np

    from videollm.moments.embed import SightEncoder
    from videollm.moments.long_form import LongFormEncoder
    from videollm.moments.sound import SoundEncoder

EXPORT_SUFFIXES = (".json", ".csv")
_TOLD = 64
"""Texts of an index, of each sense, with which words are compared that it does not tell."""
_OF_A_SENTENCE = 50
"""Hits of each sentence of a paragraph that are tried."""


def search(
    store: MomentStore,
    query: str = "",
    *,
    heard: str | None = None,
    like: Path | None = None,
    encoder: SightEncoder | None = None,
    long: LongFormEncoder | None = None,
    ear: SoundEncoder | None = None,
    text: bool = True,
    paths: Iterable[str] | None = None,
    between_seconds: tuple[float, float] | None = None,
    limit: int = 5,
    limits: Limits = LONG_FILE,
) -> list[Found]:
    """Stretches of videos that fit words or an example, the best first.

    Args:
        store: the index.
        query: what is seen or heard; may be empty beside an example. With an ear, its phrases are told apart: see
            `videollm.moments.senses`.
        heard: what is heard, where ``query`` says only what is seen.
        like: a picture, clip or sound: windows that look or sound like it. Words beside it say what it does not show.
        encoder, long, ear: those that the index was made with; None: without such vectors, by words alone without any.
        text: look for words in what is told of windows, too.
        paths: only in these videos.
        between_seconds: only in this stretch of them.
        limit: how many at most.
        limits: what reading the example may cost.

    Raises:
        MomentIndexError: the index was made with another encoder.
        MediaError: the example cannot be read.
        ConfigError: an example of which the encoders can make nothing.
    """
    said: str | dict[Reason, str] = query
    sight = sounds = query
    if heard is not None:
        sounds = heard
    elif ear is not None and like is None:
        sight, sounds = by_sense(query, store.familiar, _ears_judgement(store, encoder, ear))
    if (sight, sounds) != (query, query):
        said = {"narrated": sight, "heard in words": sounds}
    vectors: dict[VectorKind, np.ndarray] = {}
    if encoder is not None:
        store.check_encoder("seen", encoder.name)
    if long is not None:
        store.check_encoder("long", long.name)
    if ear is not None:
        store.check_encoder("heard", ear.name)
    if like is not None:
        vectors |= vectors_like(like, encoder, ear, limits)
    if sight.strip():
        if encoder is not None and "seen" not in vectors:
            vectors["seen"] = encoder.words(sight)
        if long is not None:
            vectors["long"] = long.words(sight)
    if sounds.strip() and ear is not None and "heard" not in vectors:
        vectors["heard"] = _sounds_named(ear, sounds)
    return store.search(said if text else None, vectors, paths=paths, between_seconds=between_seconds, limit=limit)


def _ears_judgement(
    store: MomentStore, encoder: SightEncoder | None, ear: SoundEncoder
) -> Callable[[str], bool] | None:
    """Whether words are nearer to what the index tells of sounds than to what it tells of pictures; None: who knows."""
    if encoder is None:
        return None

    def sounds_like(phrase: str) -> bool:
        narrations, sounds = store.told(_TOLD)
        sides = (encoder, narrations), (ear, sounds)
        seen, heard = (
            max((_vectors_of(one, tuple(texts)) @ one.words(phrase)).tolist(), default=-1.0) for one, texts in sides
        )
        return heard > seen

    return sounds_like


def _sounds_named(ear: SoundEncoder, words: str) -> np.ndarray:
    """The vector of words about sounds: the mean over their phrases, as that of a window is the mean over its segments.

    An ear reads the name of a sound in any phrase, and sentences that name several only if it has learned such.
    """
    import numpy as np

    parts = [words[start:end] for start, end in phrases(words)] or [words]
    mean = np.mean([ear.words(part) for part in parts], axis=0)
    return mean / np.linalg.norm(mean)


@lru_cache(maxsize=8)
def _vectors_of(encoder: SightEncoder | SoundEncoder, texts: tuple[str, ...]) -> np.ndarray:
    """Texts as float32 ``(N, D)``."""
    import numpy as np

    return np.array([encoder.words(text) for text in texts], np.float32).reshape(-1, encoder.width)


def vectors_like(
    example: Path, encoder: SightEncoder | None, ear: SoundEncoder | None, limits: Limits = LONG_FILE
) -> dict[VectorKind, np.ndarray]:
    """The vectors of an example, of what it shows and of its sound, as far as there are encoders for them.

    Raises:
        MediaError: it cannot be read.
        ConfigError: there is no encoder for what it has.
    """
    clip = open_clip(
        example,
        frames=FrameSampling("centre", frames=1) if encoder is None else encoder.frames,
        sound=SoundSampling("contiguous", 1) if ear is None else ear.sound,
        limits=limits,
    )
    made: dict[VectorKind, Any] = {
        "seen": None if encoder is None else encoder.clips([clip])[0],
        "heard": None if ear is None else ear.clips([clip])[0],
    }
    vectors: dict[VectorKind, Any] = {kind: vector for kind, vector in made.items() if vector is not None}
    if not vectors:
        needs = "an ear (--ear)" if clip.kind == "audio" else "a dual encoder (--encoder)"
        raise ConfigError(f"nothing can be compared with {example.name}: it needs {needs} that the index was made with")
    return vectors


# -- long descriptions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundStory:
    """A stretch of a video in which a description happens, sentence after sentence.

    Attributes:
        path: the video.
        start_seconds, end_seconds: from the first to the last moment that was found.
        score: the mean of those of its moments; a sentence that was not found counts as 0.
        parts: of each sentence its moment; None where none was found in its place.
    """

    path: str
    start_seconds: float
    end_seconds: float
    score: float
    parts: tuple[Found | None, ...]


def search_paragraph(
    store: MomentStore, paragraph: str, *, limit: int = 5, **options: Any
) -> tuple[list[str], list[FoundStory]]:
    """Stretches of videos in which the sentences of a description happen in their order; at most one of each video.

    Args:
        store: the index.
        paragraph: sentences.
        limit: how many at most.
        options: as of `search`.

    Returns:
        the sentences, and what was found, the best first.

    Raises:
        ConfigError: no words.
        MomentIndexError: the index was made with another encoder.
    """
    from videollm.models.lf_vila.processing_lf_vila import split_sentences

    sentences = split_sentences(paragraph)
    if not sentences:
        raise ConfigError("the description has no words; say in sentences what happens")
    of_video: dict[str, list[list[Found]]] = {}
    for number, sentence in enumerate(sentences):
        for hit in search(store, sentence, limit=_OF_A_SENTENCE, **options):
            of_video.setdefault(hit.path, [[] for _ in sentences])[number].append(hit)
    found = []
    for path, candidates in of_video.items():
        parts = in_order(candidates)
        chosen = [part for part in parts if part is not None]
        score = sum(part.score for part in chosen) / len(sentences)
        end = max(part.end_seconds for part in chosen)
        found.append(FoundStory(path, chosen[0].start_seconds, end, score, parts))
    return sentences, sorted(found, key=lambda one: (-one.score, one.path))[:limit]


Chain = tuple[float, tuple[Found | None, ...]]
"""A moment or none for each sentence so far, and their scores together."""


def in_order(candidates: Sequence[Sequence[Found]]) -> tuple[Found | None, ...]:
    """One moment for each sentence, or none, such that none begins before one of an earlier sentence.

    Args:
        candidates: of each sentence the moments of one video, in any order; at least one moment in all.

    Returns:
        those whose scores add up to the most.
    """
    # The best choice up to each sentence, by the start of its last moment.
    best: dict[float, Chain] = {-1.0: (0.0, ())}
    for moments in candidates:
        grown: dict[float, Chain] = {start: (score, (*parts, None)) for start, (score, parts) in best.items()}
        for moment in moments:
            before = max((one for start, one in best.items() if start <= moment.start_seconds), key=lambda one: one[0])
            score = before[0] + moment.score
            if score > grown.get(moment.start_seconds, (-1.0, ()))[0]:
                grown[moment.start_seconds] = score, (*before[1], moment)
        best = grown
    return max(best.values(), key=lambda one: one[0])[1]


# -- what is found, for others -----------------------------------------------------------------------------------------


def told(hit: Found, name: str) -> str:
    """A hit in one line: ``garden.mp4 [0:12-0:16] A red star moves left. (a dog barks)``."""
    words = " ".join(f"{hit.narration} {hit.sound and f'({hit.sound})'}".split())
    return f"{name} [{clock(hit.start_seconds)}-{clock(hit.end_seconds)}] {words}"


def export(hits: Sequence[Found], file: Path) -> None:
    """Write hits as a table, whole or not at all: JSON, or CSV with a line each.

    Raises:
        ConfigError: another suffix, or the file cannot be written.
    """
    if file.suffix.lower() not in EXPORT_SUFFIXES:
        raise ConfigError(
            f"moments are exported as {' or '.join(EXPORT_SUFFIXES)}, found {file.name}; name such a file"
        )
    rows = [asdict(hit) for hit in hits]
    try:
        with atomic(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
            if file.suffix.lower() == ".json":
                json.dump(rows, opened, ensure_ascii=False, indent=1)
                opened.write("\n")
                return
            columns = ["path", "start_seconds", "end_seconds", "score", "why", "narration", "sound"]
            table = csv.DictWriter(opened, columns)
            table.writeheader()
            for row in rows:
                why = "; ".join(f"{way} #{rank}" for way, rank in row["why"].items())
                table.writerow({name: _cell(value) for name, value in {**row, "why": why}.items()})
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); choose another place") from error


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula begins with a quote."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def cut(hits: Sequence[Found], folder: Path, limits: Limits = LONG_FILE) -> list[Path]:
    """Cut each hit out of its video into a file of its own, exactly: ``01-garden-12.0-16.0.mp4``; a sound's is an .m4a.

    Args:
        hits: what was found, the best first.
        folder: where the files go; made if need be. Files of these names are replaced.
        limits: what reading a video may cost.

    Returns:
        the files.

    Raises:
        ConfigError: the folder cannot be made.
        MediaError: a video is gone or cannot be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
    made = []
    for number, hit in enumerate(hits, 1):
        source = Path(hit.path)
        suffix = ".m4a" if inspect_clip(source, limits=limits).kind == "audio" else ".mp4"
        name = f"{number:02d}-{source.stem}-{hit.start_seconds:.1f}-{hit.end_seconds:.1f}{suffix}"
        made.append(cut_clip(source, folder / name, hit.start_seconds, hit.end_seconds, limits=limits))
    return made
