"""Answers as the page shows and exports them: plain words, whose times are links into the clip, and what was seen.

The words of a model are shown as words: nothing in them becomes markup, a picture or a link of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from videollm.chat.session import Answer
from videollm.serving.clip_view import ClipView
from videollm.serving.model_worker import Exchange

LATER_SECONDS = 0.5
"""A time may be told this much beyond the end of a clip, by rounding, and still lead to its end."""

_NUMBER = r"\d{1,5}(?:\.\d{1,3})?"
_CLOCK = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:\.\d{1,3})?"
_UNIT = r"\s?(?:s|sec|seconds?)\b"
# A number is a time if its unit follows, at once or behind the end of a range (2.5-3.0 s).
_TIME = re.compile(
    rf"(?<![\w.:])(?:(?P<clock>{_CLOCK})|(?P<number>{_NUMBER})(?=(?:\s?[-\u2013]\s?{_NUMBER})?{_UNIT})(?:{_UNIT})?)(?!\w|:\d)"
)


def linked(text: str, view: ClipView | None) -> str:
    """Words as markdown that shows them as they are, with links at the times that the clip has."""
    if view is None or not view.has_time:
        return as_words(text)
    shown, place = [], 0
    for found in _TIME.finditer(text):
        seconds = _seconds(found["clock"] or found["number"])
        if seconds > view.duration_seconds + LATER_SECONDS:
            continue
        shown.append(as_words(text[place : found.start()]))
        shown.append(f"[{as_words(found[0])}](#at-{view.id}-{min(seconds, view.duration_seconds):g})")
        place = found.end()
    return "".join([*shown, as_words(text[place:])])


def _seconds(written: str) -> float:
    """``2.5``, ``0:02`` or ``1:02:03`` as seconds."""
    total = 0.0
    for part in written.split(":"):
        total = total * 60 + float(part)
    return total


def as_words(text: str) -> str:
    """Text as markdown without a meaning: every sign is written by its number."""
    return re.sub(r"[^\w\s]|_", lambda sign: f"&#{ord(sign[0])};", text)


def with_coverage(answer: Answer, view: ClipView | None) -> str:
    """An answer and, small below it, what the model was shown and what else is to be said."""
    text = linked(answer.text, view) if answer.text else "&#8230;"
    return f"{text}\n\n<small>{as_words(footnote(answer))}</small>"


def footnote(answer: Answer) -> str:
    """What of the clips the model was shown for an answer, whether it was stopped or cut, and what it forgot."""
    seen = [clip.sentence for clip in answer.coverage] or ["was shown no clip"]
    more = [*answer.notes, *(["stopped"] if answer.stopped else [])]
    return ". ".join(part[:1].upper() + part[1:] for part in ("; ".join(seen), *more)) + "."


def messages_of(exchanges: Sequence[Exchange], views: dict[str, ClipView]) -> list[dict[str, Any]]:
    """A conversation as the page's chat shows it: a question and an answer in turn."""
    shown: list[dict[str, Any]] = []
    view: ClipView | None = None
    for one in exchanges:
        view = view_for(one.clips, views) or view
        shown.append({"role": "user", "content": one.question})
        shown.append({"role": "assistant", "content": with_coverage(one.answer, view)})
    return shown


def view_for(clips: Sequence[str], views: dict[str, ClipView]) -> ClipView | None:
    """Of some clips, the last that one can go to a second of: what times of an answer are about."""
    return next((views[name] for name in reversed(clips) if name in views and views[name].has_time), None)


def as_markdown(model: str, clips: Sequence[str], exchanges: Sequence[Exchange]) -> str:
    """A conversation as a file to keep."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = ["# Conversation", "", f"With {model}, {when}.", ""]
    lines += [f"* {name}" for name in clips]
    for one in exchanges:
        lines += ["", f"**{_one_line(one.question)}**", "", one.answer.text, "", f"> {footnote(one.answer)}"]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
