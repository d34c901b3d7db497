"""Answers as the page shows and exports them: plain words, whose times are links into the clip, and what was seen.

The words of a model are shown as words: nothing in them becomes markup, a picture or a link of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from videollm.chat.calls import Evidence, Modality
from videollm.chat.session import Answer
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.serving.clip_view import ClipView
from videollm.serving.model_worker import Exchange
from videollm.tools.narrate import clock

LATER_SECONDS = 0.5
"""A time may be told this much beyond the end of a clip, by rounding, and still lead to its end."""

_SHOWN_AS: dict[str, Modality] = {"look": "seen", "listen": "heard"}
"""What a clip is that a tool shows."""

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


def with_coverage(answer: Answer, view: ClipView | None, views: Mapping[str, ClipView]) -> str:
    """An answer and, small below it, what the model was shown, what it rests on, and what else is to be said."""
    text = linked(answer.text, view) if answer.text else "&#8230;"
    rests = "".join(f" {_receipt(one, views)}" for one in receipts(answer))
    return f"{text}\n\n<small>{as_words(footnote(answer))}{' Rests on' + rests + '.' if rests else ''}</small>"


def footnote(answer: Answer) -> str:
    """What of the clips the model was shown for an answer, whether it was stopped or cut, and what it forgot."""
    seen = [clip.sentence for clip in answer.coverage] or ["was shown no clip"]
    more = [*answer.notes, *(["stopped"] if answer.stopped else [])]
    return ". ".join(part[:1].upper() + part[1:] for part in ("; ".join(seen), *more)) + "."


def receipts(answer: Answer) -> list[Evidence]:
    """The stretches that tools told of or showed for an answer, in their order; what else it was shown stands in the
    coverage."""
    again = [
        (_SHOWN_AS[call.name], call.arguments)
        for call, result in paired(answer.rounds)
        if call.name in _SHOWN_AS and result is not None and not result.refused
    ]

    def was_shown(one: Evidence) -> bool:
        return any(
            (how, asked["video"]) == (one.how, one.video)
            and asked["start_seconds"] <= one.start_seconds
            and one.end_seconds <= asked["end_seconds"]
            for how, asked in again
        )

    told = (one for one in answer.used if one.how in ("narrated", "retrieved") or was_shown(one))
    return list(dict.fromkeys(told))


def _receipt(one: Evidence, views: Mapping[str, ClipView]) -> str:
    stretch = f"[{clock(one.start_seconds)}-{clock(one.end_seconds)}]"
    return f"{linked(stretch, views.get(one.video))} {as_words(f'of {one.video} ({one.how})')}"


def messages_of(exchanges: Sequence[Exchange], views: Mapping[str, ClipView]) -> list[dict[str, Any]]:
    """A conversation as the page's chat shows it: a question, the calls of tools if there were any, and an answer."""
    shown: list[dict[str, Any]] = []
    view: ClipView | None = None
    for one in exchanges:
        view = view_for(one.clips, views) or view
        shown.append({"role": "user", "content": one.question})
        shown += calls_of(one.answer.rounds, views)
        shown.append({"role": "assistant", "content": with_coverage(one.answer, view, views)})
    return shown


def question_of(index: int, exchanges: Sequence[Exchange]) -> int:
    """Which question the message with this index in `messages_of` belongs to; their number where it is of none."""
    for number, one in enumerate(exchanges):
        index -= 2 + len(paired(one.answer.rounds))
        if index < 0:
            return number
    return len(exchanges)


Rounds = Sequence[ToolCallPart | ToolResultPart]


def calls_of(rounds: Rounds, views: Mapping[str, ClipView]) -> list[dict[str, Any]]:
    """Calls of tools as messages that are folded away, each with what it gave back; open while it is under way."""
    shown = []
    for call, result in paired(rounds):
        title = call_in_words(call) + (", refused" if result is not None and result.refused else "")
        words = "&#8230;" if result is None else "\n".join(_found(line, call, views) for line in _lines(result))
        status = "pending" if result is None else "done"
        shown.append({"role": "assistant", "content": words, "metadata": {"title": as_words(title), "status": status}})
    return shown


def paired(rounds: Rounds) -> list[tuple[ToolCallPart, ToolResultPart | None]]:
    """Each call with what it gave back; None where that is still to come."""
    results = {part.call_id: part for part in rounds if isinstance(part, ToolResultPart)}
    return [(part, results.get(part.call_id)) for part in rounds if isinstance(part, ToolCallPart)]


def call_in_words(call: ToolCallPart) -> str:
    """For example ``narrate holiday.mp4, 0:12-0:16``, or ``search: a purple star``."""
    named = dict(call.arguments)
    what = [str(named.pop("video"))] if "video" in named else []
    start, end = named.pop("start_seconds", None), named.pop("end_seconds", None)
    if isinstance(start, int | float) and isinstance(end, int | float):
        what.append(f"{clock(start)}-{clock(end)}")
    name = call.name if what else f"{call.name}:"
    return _one_line(f"{name} {', '.join([*what, *map(str, named.values())])}")


def _lines(result: ToolResultPart) -> list[str]:
    return [line for line in result.content.splitlines() if line.strip()]


def _found(line: str, call: ToolCallPart, views: Mapping[str, ClipView]) -> str:
    """A line of what a tool gave back; its times lead into the clip that it names, or that was asked about."""
    about = next((view for name, view in views.items() if line.startswith(name)), None)
    return linked(line, about or views.get(str(call.arguments.get("video"))))


def view_for(clips: Sequence[str], views: Mapping[str, ClipView]) -> ClipView | None:
    """Of some clips, the last that one can go to a second of: what times of an answer are about."""
    return next((views[name] for name in reversed(clips) if name in views and views[name].has_time), None)


def as_markdown(model: str, clips: Sequence[str], exchanges: Sequence[Exchange]) -> str:
    """A conversation as a file to keep."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = ["# Conversation", "", f"With {model}, {when}.", ""]
    lines += [f"* {name}" for name in clips]
    for one in exchanges:
        lines += ["", f"**{_one_line(one.question)}**"]
        for call, result in paired(one.answer.rounds):
            lines += ["", f"* {call_in_words(call)}"]
            lines += [f"  * {line}" for line in (_lines(result) if result is not None else ())]
        lines += ["", one.answer.text, "", f"> {footnote(one.answer)}"]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
