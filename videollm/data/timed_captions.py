"""ActivityNet Captions as published, with the time of each sentence: where in a video a paragraph's sentences happen.

Source: Krishna et al., "Dense-Captioning Events in Videos" (2017): ``val_1.json`` and its like, an object by video with
``duration``, ``timestamps`` and ``sentences``.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videollm.data.annotations import bad
from videollm.errors import DataError

Span = tuple[float, float]


@dataclass(frozen=True)
class TimedParagraph:
    """A video's sentences, each with its time.

    Attributes:
        id: of the video.
        sentences: in the order of their starts.
        spans_seconds: start and end of each.
    """

    id: str
    sentences: tuple[str, ...]
    spans_seconds: tuple[Span, ...]


def timed_captions(path: str | os.PathLike[str]) -> list[tuple[str, Any, str]]:
    """(video, its annotation, where it stands) of a file, to be read one by one by `timed_paragraph`.

    Raises:
        DataError: no such file, or one that is not by videos.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing JSON file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: must be annotations by video; give the published file with timestamps")
    return [(name, row, f"{path} video {name}") for name, row in found.items()]


def timed_paragraph(name: str, row: Any, where: str) -> TimedParagraph:
    """The sentences of a video.

    Raises:
        UnusableSampleError: something is missing, or a sentence starts before the one that stands before it: what is
            found by order alone cannot be measured there.
    """
    if not isinstance(row, dict) or not all(isinstance(row.get(key), list) for key in ("timestamps", "sentences")):
        raise bad(where, "needs the lists timestamps and sentences")
    said, spans = row["sentences"], row["timestamps"]
    if len(said) != len(spans) or not said or not all(isinstance(one, str) and one.strip() for one in said):
        raise bad(where, f"needs a sentence with words for each of {len(spans)} timestamps, found {len(said)}")
    found: list[Span] = []
    for number, span in enumerate(spans, 1):
        if not isinstance(span, list) or len(span) != 2 or not all(_is_seconds(one) for one in span):
            raise bad(where, f"timestamp {number} must be two numbers of seconds")
        start, end = float(span[0]), float(span[1])
        if end <= start:
            raise bad(where, f"timestamp {number} ends before it starts: {start:g} to {end:g}")
        if found and start < found[-1][0]:
            raise bad(
                where, f"times are not in order: sentence {number} starts at {start:g} s, before {found[-1][0]:g} s"
            )
        found.append((start, end))
    return TimedParagraph(name, tuple(" ".join(one.split()) for one in said), tuple(found))


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
