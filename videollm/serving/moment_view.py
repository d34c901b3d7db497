"""What was told of clips over their time, as HTML: narration, chapters and moments that were found.

Each of them is a track: a bar as long as the clip, and its words as a list. As everywhere on the page, an element that
leads to a second of a clip says so in ``data-clip`` and ``data-at``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from videollm.serving.clip_view import ClipView
from videollm.tools.narrate import clock
from videollm.tools.subtitles import Cue, srt, vtt

Kind = Literal["narration", "chapters", "found"]
FORMS = {"jsonl": "application/x-ndjson", "srt": "application/x-subrip", "vtt": "text/vtt"}
"""What a track can be saved as, with the media type of each."""
WIDE_SHARE = 0.12
"""Of a clip: a shorter stretch is drawn without words."""


@dataclass(frozen=True)
class Span:
    """A stretch of a clip, and what is told of it.

    Attributes:
        view: id of the clip's `ClipView`.
        start_seconds, end_seconds: of the stretch.
        text: the words.
    """

    view: str
    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class Track:
    """Spans that belong together.

    Attributes:
        kind: what they are. Moments that were found may be of several clips; the others are of one.
        title: above the bar.
        spans: in the order of the list.
        note: a few words behind the title.
    """

    kind: Kind
    title: str
    spans: tuple[Span, ...] = ()
    note: str = ""


def moments_html(tracks: Mapping[str, Sequence[Track]], views: Sequence[ClipView]) -> str:
    """The tracks of all clips, one section a clip; the page shows that of the clip in front.

    Args:
        tracks: by id of the view that they are shown under.
        views: of the conversation.
    """
    return "".join(
        f'<section class="moments" data-clip="{view.id}" aria-label="Timeline of {escape(view.name)}">'
        + "".join(_track(track, view, views) for track in tracks[view.id])
        + "</section>"
        for view in views
        if tracks.get(view.id)
    )


def _track(track: Track, view: ClipView, views: Sequence[ClipView]) -> str:
    here = sorted((span for span in track.spans if span.view == view.id), key=lambda span: span.start_seconds)
    names = {other.id: other.name for other in views}
    # Of a row of many only one is reached by Tab, the others from there by arrow keys: the script sees to it.
    bar = "".join(
        f'<button type="button" class="span"{_place(span)} tabindex="{0 if index == 0 else -1}" '
        f'style="left:{_percent(span.start_seconds, view)};'
        f'width:{_percent(span.end_seconds - span.start_seconds, view)}" '
        f'aria-label="{_label(span)}" title="{_label(span)}">{_if_wide(span, view)}</button>'
        for index, span in enumerate(here)
    )
    told = "".join(
        f'<li><button type="button" class="told"{_place(span)} tabindex="{0 if index == 0 else -1}">'
        f'<span class="when">{_range(span)}</span><span>{_elsewhere(span, view, names)}{escape(span.text)}</span>'
        "</button></li>"
        for index, span in enumerate(track.spans)
    )
    saving = "".join(
        f'<a href="export/{track.kind}/{view.id}.{form}" download>{form.upper()}</a>'
        for form in FORMS
        if track.spans and track.kind != "found"
    )
    saved = f'<span class="downloads">Save as {saving}</span>' if saving else ""
    note = f'<span class="note">{escape(track.note)}</span>' if track.note else ""
    return (
        f'<div class="track {track.kind}"><div class="track-head"><strong>{escape(track.title)}</strong>{note}{saved}'
        f'</div><div class="bar" data-clip="{view.id}" role="group" data-row aria-label="{escape(track.title)}, as a '
        f'bar">{bar}<i class="playhead" aria-hidden="true"></i></div>'
        f'<ol class="list" data-row aria-label="{escape(track.title)}">{told}</ol></div>'
    )


def _place(span: Span) -> str:
    return f' data-clip="{span.view}" data-at="{span.start_seconds:.3f}" data-until="{span.end_seconds:.3f}"'


def _percent(seconds: float, view: ClipView) -> str:
    return f"{min(seconds / view.duration_seconds, 1.0) * 100:.3f}%"


def _if_wide(span: Span, view: ClipView) -> str:
    """The words, where a bar has room for some of them."""
    share = (span.end_seconds - span.start_seconds) / view.duration_seconds
    return escape(span.text) if share >= WIDE_SHARE else ""


def _range(span: Span) -> str:
    return f"{clock(span.start_seconds)}\u2013{clock(span.end_seconds)}"


def _label(span: Span) -> str:
    return escape(f"{_range(span)}: {span.text}")


def _elsewhere(span: Span, view: ClipView, names: Mapping[str, str]) -> str:
    return "" if span.view == view.id else f'<em class="whose">{escape(names.get(span.view, ""))}</em> '


def saved_as(form: str, track: Track, name: str) -> str:
    """A track as a file to keep: JSON lines as ``videollm narrate`` writes them, or subtitles.

    Args:
        form: one of `FORMS`.
        name: of the clip.
    """
    if form == "jsonl":
        rows = (
            {"video": name, "start_seconds": one.start_seconds, "end_seconds": one.end_seconds, "text": one.text}
            for one in track.spans
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    cues = [Cue(one.start_seconds, one.end_seconds, one.text) for one in track.spans]
    return srt(cues) if form == "srt" else vtt(cues)
