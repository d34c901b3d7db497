"""What the page shows of a clip, as HTML: a player, the sound with what was heard of it, the frames that were seen.

A view holds small pictures and a line, never the clip. Every element that leads to a second of the clip says so in
``data-at``; the page's script does the rest.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

import numpy as np
from PIL import Image

from videollm.clips import Clip, Waveform

STRIP_HEIGHT_PX = 72
WAVEFORM_BINS = 240
WAVEFORM_WIDTH, WAVEFORM_HEIGHT = 1000.0, 56.0


@dataclass(frozen=True)
class ClipView:
    """What is shown of one clip.

    Attributes:
        id: under which the page's script and the player know it.
        name: of the clip.
        kind: ``"video"``, ``"image"`` or ``"audio"``.
        duration_seconds: of the clip.
        sentence: what of it the model is shown.
        frames: seconds and a small JPEG, base64, of each frame that the model saw.
        peaks: loudness of the sound in `WAVEFORM_BINS` equal stretches, 0 to 1; None where it was not decoded.
        heard_seconds: stretches (start, end) that the model heard.
    """

    id: str
    name: str
    kind: str
    duration_seconds: float
    sentence: str
    frames: tuple[tuple[float, str], ...] = field(repr=False)
    peaks: tuple[float | None, ...] = field(repr=False)
    heard_seconds: tuple[tuple[float, float], ...]

    @property
    def has_time(self) -> bool:
        """Whether one can go to a second of it."""
        return self.kind != "image"


def view_of(clip: Clip, view_id: str, sentence: str) -> ClipView:
    """Makes the small pictures."""
    frames = () if clip.frames is None else zip(clip.frames.seconds.tolist(), clip.frames.pixels, strict=True)
    return ClipView(
        id=view_id,
        name=clip.name,
        kind=clip.kind,
        duration_seconds=float(clip.duration_seconds),
        sentence=sentence,
        frames=tuple((seconds, _small_jpeg(pixels)) for seconds, pixels in frames),
        peaks=_peaks(clip.waveforms, clip.duration_seconds) if clip.waveforms else (),
        heard_seconds=joined(clip.windows_seconds, clip.duration_seconds),
    )


def _small_jpeg(pixels: np.ndarray) -> str:
    """An image uint8 (H, W, 3) as base64."""
    height, width = pixels.shape[:2]
    # Twice as large as shown, for screens with small pixels; a very wide picture is made narrower, to be cropped.
    factor = 2 * STRIP_HEIGHT_PX / height
    image = Image.fromarray(pixels).resize(
        (max(1, min(round(width * factor), 8 * STRIP_HEIGHT_PX)), 2 * STRIP_HEIGHT_PX), Image.Resampling.BILINEAR
    )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=72)
    return base64.b64encode(file.getvalue()).decode()


def _peaks(waveforms: Sequence[Waveform], duration_seconds: float) -> tuple[float | None, ...]:
    edges = np.linspace(0.0, duration_seconds, WAVEFORM_BINS + 1)
    peaks: list[float | None] = [None] * WAVEFORM_BINS
    loudest = max(float(np.abs(wave.samples).max()) for wave in waveforms)
    for wave in waveforms:
        loud = np.abs(wave.samples).max(axis=0)
        places = np.round((edges - wave.start_seconds) * wave.rate_hz).astype(int).clip(0, len(loud))
        for index, (start, end) in enumerate(pairwise(places.tolist())):
            if end > start:
                peak = float(loud[start:end].max()) / (loudest or 1.0)
                peaks[index] = max(peak, peaks[index] or 0.0)
    return tuple(peaks)


def joined(stretches: Iterable[tuple[float, float]], duration_seconds: float) -> tuple[tuple[float, float], ...]:
    """Stretches in order, those that touch made one, none beyond the clip."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((max(0.0, s), min(e, duration_seconds)) for s, e in stretches):
        if end <= start:
            continue
        if found and start <= found[-1][1] + 1e-3:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def in_words(seconds: float) -> str:
    """A moment: ``2.5 s``, or ``1:05`` from a minute on."""
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def panel_html(views: Sequence[ClipView], media_path: str = "media/") -> str:
    """All clips of a conversation; the last one is in front."""
    if not views:
        return '<section class="clips empty" aria-label="Clips"></section>'
    front = views[-1].id
    tabs = "".join(
        f'<button type="button" role="tab" class="clip-tab" data-clip="{view.id}" id="tab-{view.id}" '
        f'tabindex="{0 if view.id == front else -1}" '
        f'aria-controls="clip-{view.id}" aria-selected="{str(view.id == front).lower()}">'
        f'<span aria-hidden="true">{_SYMBOLS[view.kind]}</span> {escape(view.name)}</button>'
        for view in views
    )
    articles = "".join(_article(view, view.id == front, media_path) for view in views)
    hidden = " hidden" if len(views) == 1 else ""
    return (
        f'<section class="clips" aria-label="Clips"><div class="clip-tabs" role="tablist" data-row{hidden}>{tabs}</div>'
        f"{articles}</section>"
    )


_SYMBOLS = {"video": "▶", "image": "▣", "audio": "♪"}


def _article(view: ClipView, in_front: bool, media_path: str) -> str:
    source, name = f"{media_path}{view.id}", escape(view.name)
    if view.kind == "video":
        poster = f' poster="data:image/jpeg;base64,{view.frames[0][1]}"' if view.frames else ""
        player = f'<video class="player" controls playsinline preload="metadata" src="{source}" aria-label="{name}"'
        player += f"{poster}></video>"
    elif view.kind == "audio":
        player = f'<audio class="player" controls preload="metadata" src="{source}" aria-label="{name}"></audio>'
    else:
        player = f'<img class="player" src="{source}" alt="{name}">'
    return (
        f'<article class="clip" role="tabpanel" id="clip-{view.id}" data-clip="{view.id}" '
        f'data-duration="{view.duration_seconds:.3f}" aria-labelledby="tab-{view.id}"{"" if in_front else " hidden"}>'
        f'{player}<p class="unplayable" role="status" hidden>Your browser cannot play this file; what the model saw of '
        f"it is below.</p>{_waveform(view)}{_strip(view)}"
        f'<p class="seen">The model {escape(view.sentence)}.</p></article>'
    )


def _strip(view: ClipView) -> str:
    if view.kind != "video" or not view.frames:
        return ""
    buttons = "".join(
        f'<button type="button" class="frame" data-clip="{view.id}" data-at="{seconds:.3f}" '
        f'tabindex="{0 if index == 0 else -1}" aria-label="Go to {in_words(seconds)}"><img alt="" '
        f'src="data:image/jpeg;base64,{jpeg}">'
        f"<span>{in_words(seconds)}</span></button>"
        for index, (seconds, jpeg) in enumerate(view.frames)
    )
    return f'<div class="strip" role="group" data-row aria-label="Frames that the model saw">{buttons}</div>'


def _waveform(view: ClipView) -> str:
    """The loudness of the sound; what was heard has a ground, what was not decoded is a thin line."""
    if not view.peaks or not view.duration_seconds:
        return ""
    width, height = WAVEFORM_WIDTH, WAVEFORM_HEIGHT
    heard = "".join(
        f'<rect class="heard" x="{start / view.duration_seconds * width:.1f}" y="0" '
        f'width="{(end - start) / view.duration_seconds * width:.1f}" height="{height:g}"/>'
        for start, end in view.heard_seconds
    )
    step = width / len(view.peaks)
    bars = "".join(
        f"M{(index + 0.5) * step:.1f} {(height - extent) / 2:.1f}v{extent:.1f}"
        for index, peak in enumerate(view.peaks)
        for extent in (1.0 if peak is None else max(1.0, peak * (height - 6)),)
    )
    total = sum(end - start for start, end in view.heard_seconds)
    label = f"Sound: {total:.1f} of {view.duration_seconds:.1f} s were heard. Click to go there."
    return (
        f'<div class="sound" data-clip="{view.id}" title="{label}">'
        f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" role="img" aria-label="{label}">{heard}'
        f'<path class="loud" d="{bars}"/><rect class="playhead" x="0" y="0" width="2" height="{height:g}"/></svg></div>'
    )
