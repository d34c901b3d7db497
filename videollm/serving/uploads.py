"""Files that people bring: under random ids in a private folder, seen only by who brought them, and not for ever."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from videollm.errors import MediaLimitError, MediaUnreadableError, NotYoursError

FOLDER_PREFIX = "videollm-uploads-"
LONGEST_NAME_CHARACTERS = 120


@dataclass(frozen=True)
class StoreLimits:
    """What a store keeps.

    Attributes:
        file_bytes: of one file.
        owner_bytes: of all files of one owner.
        total_bytes: of all.
        idle_seconds: a file that was not used for so long is deleted.
    """

    file_bytes: int = 512 * 1024**2
    owner_bytes: int = 2 * 1024**3
    total_bytes: int = 8 * 1024**3
    idle_seconds: float = 3600.0


@dataclass
class Upload:
    """One file: what its owner calls it, and where it is. The path holds nothing that came from outside."""

    id: str
    owner: str
    name: str
    path: Path = field(repr=False)
    size_bytes: int
    used_at: float = field(repr=False, default=0.0)

    def in_words(self, message: str) -> str:
        """A message about the file, which readers call by its path, as one for its owner."""
        return message.replace(str(self.path), self.name).replace(self.path.name, self.name)


class UploadStore:
    """A private folder of uploads. May be used from any thread.

    Args:
        limits: what it keeps.
        within: where its folder is made; None: where temporary ones are. Elsewhere, that of a killed process stays.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        limits: StoreLimits | None = None,
        *,
        within: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = StoreLimits() if limits is None else limits
        _remove_abandoned()
        # Only this user may enter it; resolved, as readers of files tell of them by their real paths.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=within)).resolve()
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()

    # -- ways in ---------------------------------------------------------------------------------------------------

    def take(self, source: Path, owner: str, name: str) -> Upload:
        """Moves a file into the store.

        Raises:
            MediaUnreadableError: it is no regular file, or an empty one.
            MediaLimitError: it, or all that its owner brought, or everything here, is too large.
        """
        shown = clean_name(name)
        try:
            found = source.lstat()
        except OSError:
            raise MediaUnreadableError(f"{shown}: the upload did not arrive; send it again") from None
        if not stat.S_ISREG(found.st_mode):
            raise MediaUnreadableError(f"{shown}: this is no file; send a video, an image or a sound")
        upload = self._admit(owner, shown, found.st_size)
        try:
            shutil.move(source, upload.path)
            upload.path.chmod(0o600)
        except OSError as error:
            self._forget(upload)
            raise MediaUnreadableError(f"{shown}: the upload could not be kept ({error.strerror}); try again") from None
        return upload

    async def receive(self, pieces: AsyncIterator[bytes], owner: str, name: str, size_bytes: int | None) -> Upload:
        """Writes a file as it arrives.

        Args:
            size_bytes: what its sender says; None where that is not known. No byte more is taken.

        Raises: as `take`; nothing is left behind.
        """
        shown = clean_name(name)
        promised = self.limits.file_bytes if size_bytes is None else size_bytes
        upload = self._admit(owner, shown, promised, known=size_bytes is not None)
        received = 0
        try:
            with open(upload.path, "xb", opener=_private) as file:
                async for piece in pieces:
                    received += len(piece)
                    if received > promised:
                        raise self._too_large(shown, received)
                    file.write(piece)
            if received == 0:
                raise MediaUnreadableError(f"{shown}: the file is empty (0 bytes); send it again")
        except BaseException:
            self._forget(upload)
            raise
        with self._lock:
            upload.size_bytes = received
        return upload

    def link(self, upload: Upload, owner: str) -> Upload:
        """The same file for another owner, who keeps it when the first is deleted.

        Raises:
            MediaLimitError: that owner has too much.
            NotYoursError: it was deleted in the meantime.
        """
        linked = self._admit(owner, upload.name, upload.size_bytes)
        try:
            linked.path.hardlink_to(upload.path)
        except OSError:
            self._forget(linked)
            raise NotYoursError("there is no such media; it was deleted: upload it again") from None
        return linked

    def _admit(self, owner: str, name: str, size_bytes: int, *, known: bool = True) -> Upload:
        """Books the room for a file, before a byte of it is written."""
        if known and size_bytes == 0:
            raise MediaUnreadableError(f"{name}: the file is empty (0 bytes); send it again")
        if size_bytes > self.limits.file_bytes:
            raise self._too_large(name, size_bytes)
        with self._lock:
            for whose, limit, kept in (
                (
                    "of this conversation",
                    self.limits.owner_bytes,
                    [u for u in self._uploads.values() if u.owner == owner],
                ),
                ("of everybody", self.limits.total_bytes, list(self._uploads.values())),
            ):
                held = sum(upload.size_bytes for upload in kept)
                if held + size_bytes > limit:
                    raise MediaLimitError(
                        f"{name}: with its {_mb(size_bytes)} the files {whose} would take {_mb(held + size_bytes)} and "
                        f"the limit is {_mb(limit)}; delete some, or wait until old ones are deleted"
                    )
            upload_id = secrets.token_urlsafe(18)
            upload = Upload(upload_id, owner, name, self.folder / upload_id, size_bytes, self._clock())
            self._uploads[upload_id] = upload
        return upload

    def _too_large(self, name: str, size_bytes: int) -> MediaLimitError:
        return MediaLimitError(
            f"{name}: the file has {_mb(size_bytes)} and the limit is {_mb(self.limits.file_bytes)}; send a smaller one"
        )

    # -- ways out --------------------------------------------------------------------------------------------------

    def get(self, upload_id: str, owner: str) -> Upload:
        """A file, for who brought it.

        Raises:
            NotYoursError: there is none of this id, or it is somebody else's: these look the same.
        """
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is None or not secrets.compare_digest(upload.owner.encode(), owner.encode()):
                raise NotYoursError("there is no such media; it was deleted, or never yours: upload it again")
            upload.used_at = self._clock()
            return upload

    def of(self, owner: str) -> list[Upload]:
        """All files of an owner, oldest first."""
        with self._lock:
            return [upload for upload in self._uploads.values() if upload.owner == owner]

    def delete(self, upload_id: str, owner: str) -> None:
        """Deletes a file. Raises as `get`."""
        self._forget(self.get(upload_id, owner))

    def delete_all(self, owner: str) -> None:
        """Deletes all files of an owner."""
        for upload in self.of(owner):
            self._forget(upload)

    def keep(self, owner: str) -> None:
        """Notes that an owner is still there: their files are not idle."""
        with self._lock:
            for upload in self._uploads.values():
                if upload.owner == owner:
                    upload.used_at = self._clock()

    def sweep(self) -> None:
        """Deletes files that were not used for `StoreLimits.idle_seconds`."""
        oldest = self._clock() - self.limits.idle_seconds
        with self._lock:
            idle = [upload for upload in self._uploads.values() if upload.used_at < oldest]
        for upload in idle:
            self._forget(upload)

    def close(self) -> None:
        """Deletes everything."""
        with self._lock:
            self._uploads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def held_bytes(self) -> int:
        """Of all files."""
        with self._lock:
            return sum(upload.size_bytes for upload in self._uploads.values())

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._uploads.pop(upload.id, None)
        with contextlib.suppress(FileNotFoundError):
            upload.path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def clean_name(name: str) -> str:
    """A file's name for showing: no folders, nothing that cannot be printed, not too long; its end is kept."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(character for character in last if character.isprintable()).strip(" .")
    if len(shown) > LONGEST_NAME_CHARACTERS:
        shown = f"{shown[: LONGEST_NAME_CHARACTERS - 21]}…{shown[-20:]}"
    return shown or "unnamed"


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _remove_abandoned() -> None:
    """Deletes stores of ours whose process was killed: nobody else will."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        with contextlib.suppress(OSError, ValueError):
            process = int(folder.name.removeprefix(FOLDER_PREFIX).split("-")[0])
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
