"""An index of videos: each cut into windows, and of each window stored what is told of it and vectors of it.

A video that is stored, and has not changed since, is not read again; one that changed replaces what it was. A run that
was killed is begun again: what it had stored stays, the video that it was at is done anew.

Looking and writing are apart: `look_at` makes of a file what is to be stored, `gather` stores it as it comes. `index`
does both in turn; with `videollm.tools.index_processes` other processes look, with `videollm.tools.index_ray` other
machines. Only one process of a run ever writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from videollm.clips import Clip
from videollm.errors import ConfigError, MediaError
from videollm.media.decode_worker import OpenWindows, open_windows
from videollm.media.source import Limits
from videollm.media.windows import Window, WindowSampling
from videollm.moments.moment import Moment, VectorKind, Video
from videollm.moments.store import MomentStore
from videollm.tools.narrate import LONG_FILE, Progress, Report

if TYPE_CHECKING:
    import numpy as np

    from videollm.models.memory import MemoryPlan
    from videollm.moments.embed import SightEncoder
    from videollm.moments.long_form import LongFormEncoder
    from videollm.moments.sound import SoundEncoder
    from videollm.tools.narrators import Narrator

LOOK_QUESTION = "Describe the video."
"""What a chat model is asked about each window."""
LISTEN_QUESTION = "What do you hear?"
"""What it is asked about the sound of each window."""
TIDY_EVERY = 200
"""Videos: each leaves a small file in each table, and what has many opens slowly."""


@dataclass(frozen=True)
class IndexSettings:
    """How videos are cut.

    Attributes:
        window_seconds: length of a window.
        stride_seconds: from the start of one to the start of the next; less than the length, they overlap, so that
            whatever happens lies whole in one of them.
        batch_windows: how many are looked at at once.
        cuts: windows end at cuts, too: a shot that is no longer than a window is one window.

    Raises:
        ConfigError: a value out of its range.
    """

    window_seconds: float = 4.0
    stride_seconds: float = 2.0
    batch_windows: int = 8
    cuts: bool = False

    def __post_init__(self) -> None:
        if not 0.05 <= self.stride_seconds <= self.window_seconds < float("inf"):
            raise ConfigError(
                f"windows of {self.window_seconds:g} s every {self.stride_seconds:g} s leave gaps or make no sense; "
                "the stride is at least 0.05 s and at most the window"
            )
        if self.batch_windows < 1:
            raise ConfigError(f"the batch must be at least 1 window, found {self.batch_windows}")


@dataclass(frozen=True)
class Crew:
    """Those who look at windows.

    Attributes:
        narrator: tells what is seen.
        listener: tells what is heard; None: nobody does.
        encoder: makes the vectors of what is seen; None: there are none.
        long: makes those of windows as part of the stretch around them; None: there are none. Without vectors only
            words find anything.
        ear: makes those of what is heard; None: there are none.
    """

    narrator: Narrator
    listener: Narrator | None = None
    encoder: SightEncoder | None = None
    long: LongFormEncoder | None = None
    ear: SoundEncoder | None = None

    def open(self, into: str | Path) -> MomentStore:
        """The index for this crew's vectors; raises MomentIndexError where it is of another's."""
        return self.told(IndexSettings()).open(into)

    def told(self, settings: IndexSettings) -> CrewTold:
        """What an index must know of this crew."""
        vectors: dict[VectorKind, SightEncoder | LongFormEncoder | SoundEncoder | None] = {
            "seen": self.encoder,
            "long": self.long,
            "heard": self.ear,
        }
        names: dict[VectorKind, str] = {kind: one.name for kind, one in vectors.items() if one is not None}
        widths: dict[VectorKind, int] = {kind: one.width for kind, one in vectors.items() if one is not None}
        return CrewTold(widths, names, self.made_by(settings))

    def made_by(self, settings: IndexSettings) -> str:
        """What decides what is stored, in short: another value means that a video is done anew."""
        told = {
            "narrator": self.narrator.identity,
            "listener": None if self.listener is None else self.listener.identity,
            "encoder": None if self.encoder is None else self.encoder.name,
            "windows": asdict(settings),
        }
        if self.long is not None:
            told["long"] = self.long.name
        if self.ear is not None:
            told["ear"] = self.ear.name
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CrewTold:
    """What an index must know of those who look: numbers and names of their vectors by kind, and `Crew.made_by`."""

    widths: Mapping[VectorKind, int]
    encoders: Mapping[VectorKind, str]
    made_by: str

    def open(self, into: str | Path) -> MomentStore:
        """The index for these vectors; raises MomentIndexError where it is of others."""
        return MomentStore.create(into, self.widths, self.encoders)


@dataclass(frozen=True)
class CrewNames:
    """A crew by the names or folders of its models, so that other processes can load it, too.

    Attributes:
        model: the narrator's, and where it is a chat model with an ear, the listener's.
        encoder, long, ear: as of `Crew`.
        device, bits: as of `videollm.models.hub.load`.
    """

    model: str = "tiny"
    encoder: str | None = None
    long: str | None = None
    ear: str | None = None
    device: str | None = None
    bits: int | None = None

    def load(self, announce: Callable[[MemoryPlan], None] | None = None) -> Crew:
        """Loads the models.

        Raises:
            ModelNotFoundError: no such model, or one of another kind.
            ConfigError, MemoryPlanError: a device that cannot be used, or that is too small.
        """
        from videollm.moments.embed import load_sight_encoder
        from videollm.moments.long_form import load_long_form_encoder
        from videollm.moments.sound import load_sound_encoder
        from videollm.tools.narrators import ChatNarrator, load_narrator

        # The small ones first: what is wrong with them is known before the wait for a large model.
        encoder = None if self.encoder is None else load_sight_encoder(self.encoder, self.device)
        long = None if self.long is None else load_long_form_encoder(self.long, self.device)
        ear = None if self.ear is None else load_sound_encoder(self.ear, self.device)
        narrator = load_narrator(self.model, device=self.device, bits=self.bits, announce=announce)
        if not isinstance(narrator, ChatNarrator):
            return Crew(narrator, None, encoder, long, ear)
        listener = None if narrator.sound is None else narrator.asking(LISTEN_QUESTION)
        return Crew(narrator.asking(LOOK_QUESTION), listener, encoder, long, ear)


@dataclass(frozen=True, eq=False)
class Looked:
    """What became of a file.

    Attributes:
        path: the file.
        video, moments: what is to be stored of it; None and nothing where it is stored already, or was not read.
        reason: why it was not read.
    """

    path: str
    video: Video | None = None
    moments: Sequence[Moment] = ()
    reason: str = ""


@dataclass(frozen=True)
class Indexed:
    """What a run did with each video, by path; ``failed`` with the reason."""

    stored: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


def index(
    videos: Sequence[Path],
    into: str | Path,
    crew: Crew,
    settings: IndexSettings | None = None,
    *,
    prune: bool = False,
    limits: Limits = LONG_FILE,
    progress: Callable[[Path], Progress] | None = None,
    report: Report | None = None,
) -> Indexed:
    """Bring an index up to date with videos.

    Args:
        videos: files.
        into: the folder or object store of the index, made if need be.
        crew: who looks at the windows.
        settings: how videos are cut.
        prune: take videos out of the index whose file is gone.
        limits: what reading a file may cost.
        progress: gives, for each video, what is told of the windows that are done.
        report: gets sentences for the user, among them why a video could not be read; the others go on.

    Raises:
        MomentIndexError: the index cannot be used.
    """
    settings = settings or IndexSettings()
    told, known = crew.told(settings), stored_in(into)

    def looked() -> Iterator[Looked]:
        for file in videos:
            yield look_at(file, known, crew, settings, limits, None if progress is None else progress(file))

    return gather(told.open(into), looked(), prune=prune, report=report)


def stored_in(into: str | Path) -> dict[str, Video]:
    """What an index holds whole, by path; nothing where there is none yet."""
    return {video.path: video for video in MomentStore.open(into).whole()} if MomentStore.exists(into) else {}


def look_at(
    file: Path,
    known: Mapping[str, Video],
    crew: Crew,
    settings: IndexSettings,
    limits: Limits = LONG_FILE,
    progress: Progress | None = None,
) -> Looked:
    """What is to be stored of a file, if it is not what is known; see `index`."""
    path, made_by = str(file.resolve()), crew.made_by(settings)
    try:
        with open_windows(file, _sampling(crew, settings), limits=limits) as opened:
            before, about = known.get(path), opened.file
            if before and (before.content, before.made_by) == (about.content_hash, made_by):
                return Looked(path)
            moments = _moments(opened, crew, settings, progress)
    except MediaError as error:
        return Looked(path, reason=str(error))
    return Looked(path, Video(path, about.content_hash, about.duration_seconds, len(moments), made_by), moments)


def gather(store: MomentStore, looked: Iterable[Looked], *, prune: bool, report: Report | None) -> Indexed:
    """Stores what was looked at as it comes, a video at a time."""
    stored: list[str] = []
    unchanged: list[str] = []
    failed: list[tuple[str, str]] = []
    for one in looked:
        if one.reason:
            failed.append((one.path, one.reason))
            if report is not None:
                report(one.reason)
        elif one.video is None:
            unchanged.append(one.path)
        else:
            store.put(one.video, one.moments)
            stored.append(one.path)
            if len(stored) % TIDY_EVERY == 0:
                store.tidy()
    removed = [video.path for video in store.videos() if not Path(video.path).exists()] if prune else []
    for path in removed:
        store.remove(path)
    if removed or len(stored) % TIDY_EVERY:
        store.tidy()
    return Indexed(tuple(stored), tuple(unchanged), tuple(removed), tuple(failed))


def _sampling(crew: Crew, settings: IndexSettings) -> WindowSampling:
    sound = crew.narrator.sound if crew.listener is None else crew.listener.sound
    if sound is None and crew.ear is not None:
        sound = crew.ear.sound
    length, stride = settings.window_seconds, settings.stride_seconds
    return WindowSampling(length, stride, crew.narrator.frames, sound, cuts=settings.cuts)


def _moments(opened: OpenWindows, crew: Crew, settings: IndexSettings, progress: Progress | None) -> list[Moment]:
    """All windows of a video, a batch at a time; of their pictures and sounds nothing is kept."""
    from videollm.models.memory import give_memory_back

    moments: list[Moment] = []
    total = len(opened.file.spans)
    for number, group in groupby(opened, key=lambda window: window.index // settings.batch_windows):
        moments += _described(list(group), crew, number)
        give_memory_back()
        if progress is not None:
            progress(min((number + 1) * settings.batch_windows, total), total)
    return moments


def _described(windows: Sequence[Window], crew: Crew, number: int) -> list[Moment]:
    clips = [window.clip for window in windows]
    seen = [_first(said) for said in crew.narrator.describe(clips, 1, number)]
    heard = ["" for _ in clips]
    if crew.listener is not None:
        sounds = [clip for clip in clips if clip.waveforms]
        told = iter(crew.listener.describe([_without_pictures(clip) for clip in sounds], 1, number))
        heard = [_first(next(told)) if clip.waveforms else "" for clip in clips]
    nothing: list[np.ndarray | None] = [None for _ in clips]
    of_kind: dict[VectorKind, list[np.ndarray | None]] = {
        "seen": nothing if crew.encoder is None else crew.encoder.clips(clips),
        "long": nothing if crew.long is None else crew.long.windows(clips),
        "heard": nothing if crew.ear is None else crew.ear.clips(clips),
    }
    vectors: list[dict[VectorKind, np.ndarray]] = [
        {kind: row for kind, rows in of_kind.items() if (row := rows[number]) is not None}
        for number in range(len(clips))
    ]
    return [
        Moment(window.start_seconds, window.end_seconds, narration, sound, found)
        for window, narration, sound, found in zip(windows, seen, heard, vectors, strict=True)
    ]


def _first(said: Sequence[object]) -> str:
    return " ".join(str(getattr(said[0], "text", "")).split()) if said else ""


def _without_pictures(clip: Clip) -> Clip:
    return replace(clip, kind="audio", frames=None)
