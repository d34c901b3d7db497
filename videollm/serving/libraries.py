"""What was told of uploads, by which moments are found in them: an index for each asker, kept as long as the files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from videollm.errors import MediaUnreadableError
from videollm.media.source import Limits
from videollm.moments.moment import Found
from videollm.moments.store import MomentStore
from videollm.serving.uploads import Upload, UploadStore
from videollm.serving.worker_encoder import WorkerEncoder
from videollm.tools.index import Crew, index
from videollm.tools.search import search


class Library:
    """The moments of one asker's uploads. `add`, `search` and `forget` block: they are called in threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads: dict[str, Upload] = {}
        """Those of which anything may be stored, by path."""
        self._whole: set[str] = set()
        self.lock = asyncio.Lock()

    def missing(self, uploads: Sequence[Upload]) -> list[Upload]:
        return [upload for upload in uploads if str(upload.path) not in self._whole]

    def add(self, uploads: Sequence[Upload], crew: Crew, limits: Limits, progress: Callable[[int, int], None]) -> None:
        """Looks at uploads.

        Raises:
            MediaUnreadableError: one of them cannot be read; the others are stored.
        """
        self.uploads |= {str(upload.path): upload for upload in uploads}
        done = index([one.path for one in uploads], self.folder, crew, limits=limits, progress=lambda _: progress)
        self._whole |= {*done.stored, *done.unchanged}
        for path, reason in done.failed:
            raise MediaUnreadableError(self.uploads[path].in_words(reason))

    def search(
        self,
        words: str,
        uploads: Sequence[Upload],
        between_seconds: tuple[float, float] | None,
        limit: int,
        encoder: WorkerEncoder | None = None,
    ) -> list[tuple[Upload, Found]]:
        """The best moments, each with its upload; ``encoder`` is that of the crew that looked at them."""
        store, paths = MomentStore.open(self.folder), [str(upload.path) for upload in uploads]
        found = search(store, words, encoder=encoder, paths=paths, between_seconds=between_seconds, limit=limit)
        return [(self.uploads[one.path], one) for one in found]

    def forget(self, gone: Sequence[str]) -> None:
        """Writes the index anew without some: in the one before, what was taken out would stay on the disk."""
        kept = {path: upload for path, upload in self.uploads.items() if path not in gone}
        fresh = self.folder.with_name(f"new-{self.folder.name}")
        try:
            if kept:
                before = MomentStore.open(self.folder)
                after = MomentStore.create(fresh, before.widths, before.encoders)
                for video in before.videos():
                    if video.path in kept:
                        after.put(video, before.moments(video.path, with_vectors=True))
                after.tidy()
        except BaseException:  # better nothing than too much
            self.uploads, self._whole = {}, set()
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if kept:
            fresh.rename(self.folder)
        self.uploads, self._whole = kept, self._whole & set(kept)


class Libraries:
    """The libraries of everybody.

    Args:
        store: whose uploads are looked at; the indexes lie in its folder, and go with it.
    """

    def __init__(self, store: UploadStore) -> None:
        self._folder = store.folder
        self._known: dict[str, Library] = {}

    @contextlib.asynccontextmanager
    async def opened(self, asker: str) -> AsyncIterator[Library]:
        """An asker's library, for one request at a time."""
        name = hashlib.sha256(asker.encode()).hexdigest()[:32]
        library = self._known.setdefault(asker, Library(self._folder / f"moments-{name}"))
        async with library.lock:
            yield library

    async def tidy(self) -> None:
        """Forgets what was told of files that are gone."""
        for library in list(self._known.values()):
            gone = [path for path in library.uploads if not Path(path).exists()]
            if gone and not library.lock.locked():
                async with library.lock:
                    await asyncio.to_thread(library.forget, gone)
