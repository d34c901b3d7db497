"""What the page's buttons do with clips over their time, in a thread: narrate, cut into chapters, find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from videollm.errors import MediaUnreadableError
from videollm.media.source import Limits
from videollm.serving.moment_view import Span
from videollm.serving.worker_narrator import LongWork
from videollm.tools.chapters import LEAST_SECONDS, MOST, parts_of
from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew, index
from videollm.tools.narrate import Narration, Progress, narrate
from videollm.tools.narrators import QUESTION, Narrator
from videollm.tools.search import search

FOUND_AT_MOST = 8

Asking = Callable[[str], Narrator]
"""Makes a narrator that asks a question about each window."""


@dataclass(frozen=True)
class Report:
    """How far work is: windows that are done, and of all; what is told so far; whether that is all."""

    done: int
    total: int
    spans: tuple[Span, ...] = ()
    whole: bool = False


def narrated(work: LongWork[Report], path: Path, view: str, asking: Asking, limits: Limits) -> None:
    """Tells what happens in a clip."""
    spans: list[Span] = []
    for one in _narrations(work, path, asking, limits, spans):
        spans.append(Span(view, one.start_seconds, one.end_seconds, one.text))
    work.tell(Report(1, 1, tuple(spans), whole=True))


def chaptered(work: LongWork[Report], path: Path, view: str, asking: Asking, limits: Limits) -> None:
    """Tells of which parts a clip consists."""
    parts = parts_of(_narrations(work, path, asking, limits, []), most=MOST, least_seconds=LEAST_SECONDS)
    spans = tuple(Span(view, part.start_seconds, part.end_seconds, part.title) for part in parts)
    work.tell(Report(1, 1, spans, whole=True))


def _narrations(
    work: LongWork[Report], path: Path, asking: Asking, limits: Limits, spans: list[Span]
) -> Iterator[Narration]:
    return narrate(
        path,
        asking(QUESTION),
        limits=limits,
        progress=lambda done, total: work.tell(Report(done, total, tuple(spans))),
    )


def found(
    work: LongWork[Report], words: str, paths: Mapping[Path, str], folder: Path, asking: Asking, limits: Limits
) -> None:
    """Finds the stretches of clips that fit words.

    Args:
        words: what is looked for.
        paths: the clips' files, and the ids of their views.
        folder: of an index of these clips, which is made and brought up to date as needed.
    """
    looker, listener = asking(LOOK_QUESTION), asking(LISTEN_QUESTION)
    crew = Crew(looker, None if listener.sound is None else listener)

    def progress(_: Path) -> Progress:
        return lambda done, total: work.tell(Report(done, total))

    made = index(list(paths), folder, crew, limits=limits, progress=progress)
    if made.failed:
        raise MediaUnreadableError(made.failed[0][1])
    views = {str(path.resolve()): view for path, view in paths.items()}
    hits = search(crew.open(folder), words, paths=views, limit=FOUND_AT_MOST)
    spans = tuple(
        Span(views[hit.path], hit.start_seconds, hit.end_seconds, " ".join(f"{hit.narration} {hit.sound}".split()))
        for hit in hits
    )
    work.tell(Report(1, 1, spans, whole=True))
