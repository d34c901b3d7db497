"""Narrations as subtitles: SRT and WebVTT.

Cues are in the order of their starts, none is empty, and each lasts at least a millisecond.

Source: for WebVTT, the W3C's "WebVTT: The Web Video Text Tracks Format"; SRT has no standard, and no way to write the
characters of its tags.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

LINE_CHARACTERS = 42
_NO_TAG = "\u200b"  # a space of no width, behind which no player finds the name of a tag


@dataclass(frozen=True)
class Cue:
    """Words and when they are shown, seconds."""

    start_seconds: float
    end_seconds: float
    text: str


def srt(cues: Iterable[Cue]) -> str:
    """The text of an SRT file."""
    blocks = []
    for number, (start, end, text) in enumerate(_clean(cues), 1):
        for opening in "<{":
            text = text.replace(opening, opening + _NO_TAG)
        blocks.append(f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_lines(text)}\n")
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """The text of a WebVTT file."""
    blocks = ["WEBVTT\n"]
    for start, end, text in _clean(cues):
        lines = _lines(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{lines}\n")
    return "\n".join(blocks)


def _clean(cues: Iterable[Cue]) -> list[tuple[int, int, str]]:
    """(start, end, text) in milliseconds, in order; words of one line without control characters."""
    found = []
    for cue in cues:
        text = " ".join("".join(c if c.isprintable() else " " for c in cue.text).replace("-->", "->").split())
        start = max(round(cue.start_seconds * 1000), 0)
        if text:
            found.append((start, max(round(cue.end_seconds * 1000), start + 1), text))
    return sorted(found, key=lambda cue: cue[:2])


def _lines(text: str) -> str:
    return "\n".join(textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False))


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
