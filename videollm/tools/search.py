"""Moments at which something is seen or heard, in an index: by words, and by the vector of what is seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from videollm.moments.moment import Found, VectorKind
from videollm.moments.store import MomentStore
from videollm.tools.narrate import clock

if TYPE_CHECKING:
    import numpy as np

    from videollm.moments.embed import SightEncoder
    from videollm.moments.long_form import LongFormEncoder


def search(
    store: MomentStore,
    query: str,
    *,
    encoder: SightEncoder | None = None,
    long: LongFormEncoder | None = None,
    paths: Iterable[str] | None = None,
    between_seconds: tuple[float, float] | None = None,
    limit: int = 5,
) -> list[Found]:
    """Stretches of videos that fit words, the best first.

    Args:
        store: the index.
        query: what is seen or heard.
        encoder, long: those that the index was made with; None: without such vectors, by words alone without both.
        paths: only in these videos.
        between_seconds: only in this stretch of them.
        limit: how many at most.

    Raises:
        MomentIndexError: the index was made with another encoder.
    """
    vectors: dict[VectorKind, np.ndarray] = {}
    if encoder is not None:
        store.check_encoder("seen", encoder.name)
        vectors["seen"] = encoder.words(query)
    if long is not None:
        store.check_encoder("long", long.name)
        vectors["long"] = long.words(query)
    return store.search(query, vectors, paths=paths, between_seconds=between_seconds, limit=limit)


def told(hit: Found, name: str) -> str:
    """A hit in one line: ``garden.mp4 [0:12-0:16] A red star moves left. (a dog barks)``."""
    words = " ".join(f"{hit.narration} {hit.sound and f'({hit.sound})'}".split())
    return f"{name} [{clock(hit.start_seconds)}-{clock(hit.end_seconds)}] {words}"
