"""Files of strangers: apart from each other, limited, and gone in the end."""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile

import pytest

from videollm.errors import MediaLimitError, MediaUnreadableError, NotYoursError
from videollm.serving.uploads import FOLDER_PREFIX, StoreLimits, UploadStore, clean_name


@pytest.fixture
def store():
    one = UploadStore(
        StoreLimits(file_bytes=100, owner_bytes=150, total_bytes=200, idle_seconds=10), clock=lambda: now[0]
    )
    now[0] = 0.0
    yield one
    one.close()
    assert not one.folder.exists()


now = [0.0]


def sent(tmp_path, body=b"x" * 40, name="a.mp4"):
    path = tmp_path / name
    path.write_bytes(body)
    return path


def received(store, *pieces, owner="me", name="a.mp4", size=None):
    async def parts():
        for piece in pieces:
            yield piece

    return asyncio.run(store.receive(parts(), owner, name, size))


def test_a_file_is_moved_under_a_random_id_and_only_its_owner_sees_it(store, tmp_path):
    path = sent(tmp_path)
    upload = store.take(path, "me", "my film.mp4")
    assert not path.exists() and upload.path.read_bytes() == b"x" * 40
    assert upload.name == "my film.mp4" and "film" not in str(upload.path)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700 and stat.S_IMODE(upload.path.stat().st_mode) == 0o600
    assert store.get(upload.id, "me") is upload
    for upload_id, owner in ((upload.id, "you"), ("../" + upload.id, "me"), ("", "me"), ("a" * 24, "me")):
        with pytest.raises(NotYoursError, match="no such media"):
            store.get(upload_id, owner)
    with pytest.raises(NotYoursError):
        store.delete(upload.id, "you")
    assert store.of("you") == [] and store.of("me") == [upload]


def test_links_folders_and_empty_files_are_not_taken(store, tmp_path):
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    sent(tmp_path, b"", "empty.mp4")
    for name in ("link.mp4", "folder.mp4", "pipe.mp4", "empty.mp4", "missing.mp4"):
        with pytest.raises(MediaUnreadableError, match=f"^{name}: "):
            store.take(tmp_path / name, "me", name)
    assert store.held_bytes == 0 and os.listdir(store.folder) == []


def test_limits_of_a_file_an_owner_and_all(store, tmp_path):
    with pytest.raises(MediaLimitError, match="the limit is"):
        store.take(sent(tmp_path, b"x" * 101), "me", "a.mp4")
    store.take(sent(tmp_path, b"x" * 100), "me", "a.mp4")
    with pytest.raises(MediaLimitError, match="files of this conversation would take"):
        store.take(sent(tmp_path, b"x" * 60), "me", "b.mp4")
    with pytest.raises(MediaLimitError, match="files of everybody would take"):
        received(store, b"x", owner="you", size=None) and received(store, b"x", owner="her", size=None)
    assert store.held_bytes == 101 and len(os.listdir(store.folder)) == 2
    store.delete_all("me")
    store.delete_all("you")
    assert store.held_bytes == 0 and os.listdir(store.folder) == []


def test_what_is_sent_in_pieces_is_no_more_than_was_said(store):
    upload = received(store, b"ab", b"c", size=3)
    assert upload.path.read_bytes() == b"abc" and upload.size_bytes == 3
    with pytest.raises(MediaLimitError):
        received(store, b"ab", b"cd", size=3)
    with pytest.raises(MediaUnreadableError, match="empty"):
        received(store, size=3)
    with pytest.raises(MediaUnreadableError, match="empty"):
        received(store, size=0)
    assert os.listdir(store.folder) == [upload.id]


def test_a_link_keeps_the_file_for_another_owner(store, tmp_path):
    first = store.take(sent(tmp_path), "me", "a.mp4")
    second = store.link(first, "you")
    store.delete(first.id, "me")
    assert second.path.read_bytes() == b"x" * 40 and second.name == "a.mp4"
    with pytest.raises(NotYoursError):
        store.link(first, "her")
    assert len(os.listdir(store.folder)) == 1


def test_idle_files_go_and_used_ones_stay(store, tmp_path):
    uploads = [store.take(sent(tmp_path), owner, "a.mp4") for owner in ("me", "you", "her")]
    now[0] = 9.0
    store.get(uploads[0].id, "me")
    store.keep("you")
    now[0] = 12.0
    store.sweep()
    assert [upload.path.exists() for upload in uploads] == [True, True, False]
    assert store.of("her") == []


def test_a_store_whose_process_was_killed_is_deleted_by_the_next():
    code = (
        "import os; from videollm.serving.uploads import UploadStore; "
        "print(UploadStore().folder, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    folder = done.stdout.strip()
    assert folder.startswith(os.path.join(tempfile.gettempdir(), FOLDER_PREFIX)) and os.path.isdir(folder)
    alive = UploadStore()
    assert not os.path.exists(folder)
    UploadStore().close()
    assert alive.folder.exists(), "that of a living process stays"
    alive.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.mp4", "a.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\a.mp4", "a.mp4"),
        ("a\nb\x00\x1b[31m.mp4", "ab[31m.mp4"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("日本.mp4", "日本.mp4"),
        ("x" * 200 + ".mp4", "x" * 99 + "…" + "x" * 16 + ".mp4"),
    ],
)
def test_names(name, shown):
    assert clean_name(name) == shown
