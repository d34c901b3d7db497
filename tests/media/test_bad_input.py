"""Every bad file: one line that names it, of the right class, in little time, with nothing left behind."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.numbered import ALL_FRAMES, SOUND, everything, numbered_frames, numbers_of, smooth_noise, tones
from tests.media.processes import own_children
from videollm.clips import Clip
from videollm.errors import MediaError, MediaLimitError, MediaNotFoundError, MediaUnreadableError
from videollm.media.decode_worker import close_server, open_clip, read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import sniff
from videollm.media.write import write_sound, write_video

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    close_server()
    assert own_children() == []


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    return write_video(path, numbered_frames(50), fps=25, waveform=tones(2.0), key_every=10)


def opened(path: Path) -> Clip:
    return open_clip(path, frames=ALL_FRAMES, sound=SOUND)


def refused(path: Path, kind: type[MediaError], words: str, read: Callable[[Path], Clip] = opened) -> str:
    """The one line with which a file is refused, in both ways of reading it."""
    started = time.monotonic()
    with pytest.raises(MediaError, match=words) as caught:
        read(path)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert type(caught.value) is kind, (type(caught.value), message)
    assert path.name in message and "\n" not in message and len(message) < 400
    if read is opened:
        with pytest.raises(kind) as here:
            everything(path)
        assert str(here.value) == message
    return message


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", MediaNotFoundError, "no such file")
    refused(tmp_path / "folder" / "none.mp4", MediaNotFoundError, "no such file")
    with pytest.raises(MediaNotFoundError):
        opened(Path("a\0b.mp4"))
    with pytest.raises(MediaNotFoundError, match="cannot be opened"):
        opened(tmp_path / ("long" * 100))


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, MediaNotFoundError, "folder")


def test_pipe_and_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    refused(pipe, MediaNotFoundError, "pipe, socket or device")
    refused(Path("/dev/zero"), MediaNotFoundError, "pipe, socket or device")


def test_no_permission(good: Path, tmp_path: Path) -> None:
    """As another user: for root every file is readable."""
    closed = tmp_path / "closed.mp4"
    closed.write_bytes(good.read_bytes())
    closed.chmod(0)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            try:
                read_clip(closed, frames=ALL_FRAMES)
            except MediaNotFoundError as error:
                code = 0 if "no permission to read the file" in str(error) and "closed.mp4" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", MediaUnreadableError, "empty")


@pytest.mark.parametrize(
    "text",
    ["plain words\n" * 100, "x", "ünïcödé 視頻\n" * 30, "<html><body>404</body></html>", '{"a": 1}', "1,2\n" * 999],
)
def test_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text.mp4"
    path.write_text(text)
    refused(path, MediaUnreadableError, "this is text")


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(seed).bytes(300_000))
    assert sniff(path.read_bytes()) is None
    refused(path, MediaUnreadableError, "no known video, image or sound")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "file '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
        "[playlist]\nFile1={}\n",
        '<?xml version="1.0"?><MPD><BaseURL>{}</BaseURL></MPD>',
        "<smil><body><video src='{}'/></body></smil>",
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_playlists_open_nothing(good: Path, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text.format(good))
    refused(path, MediaUnreadableError, "points to other files|an xml document")


def _box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def _patched(good: Path, path: Path, name: bytes, offset: int, value: bytes, times: int = 99) -> Path:
    """A copy with bytes replaced at an offset from the name of each box."""
    body = bytearray(good.read_bytes())
    at = body.find(name)
    assert at > 0
    while at > 0 and times:
        body[at + offset : at + offset + len(value)] = value
        at, times = body.find(name, at + 4), times - 1
    path.write_bytes(body)
    return path


def test_media_in_another_file(good: Path, tmp_path: Path) -> None:
    """A QuickTime file whose data reference names another file instead of itself."""
    body = good.read_bytes()
    at = body.find(b"url \0\0\0\1")
    assert at > 0
    other = bytearray(body)
    other[at : at + 8] = b"url \0\0\0\0"  # no longer "in this file"
    path = tmp_path / "elsewhere.mp4"
    path.write_bytes(other)
    try:
        clip = opened(path)
    except MediaUnreadableError as error:
        assert "elsewhere.mp4" in str(error)
    else:
        assert clip.frames is not None and numbers_of(clip) == list(range(50)), "read from itself, or not at all"


def test_header_only(good: Path, tmp_path: Path) -> None:
    body = good.read_bytes()
    path = tmp_path / "head.mp4"
    path.write_bytes(body[: struct.unpack(">I", body[:4])[0]])
    refused(path, MediaUnreadableError, "moov")
    webm = write_video(tmp_path / "w.webm", numbered_frames(10), fps=5)
    short = tmp_path / "head.webm"
    short.write_bytes(webm.read_bytes()[:60])
    refused(short, MediaUnreadableError, "matroska")


@pytest.mark.parametrize(
    "head", [b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"GIF89a", b"OggS", b"fLaC", b"\xff\xd8\xff", b"FLV\x01"]
)
def test_nothing_but_a_signature(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(head)
    refused(path, MediaUnreadableError, "copy or download it again|moov|no streams|readable frames")


def test_no_streams(tmp_path: Path) -> None:
    mvhd = _box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(80))
    path = tmp_path / "bare.mp4"
    path.write_bytes(_box(b"ftyp", b"isom\0\0\2\0isom") + _box(b"moov", mvhd) + _box(b"mdat", bytes(100)))
    refused(path, MediaUnreadableError, "no streams|cannot be read")


def test_only_subtitles(tmp_path: Path) -> None:
    ebml = bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f381084282886d6174726f736b614287810442858102")
    track = bytes.fromhex("1654ae6b9fae9dd7810173c58101838111868b535f544558542f55544638")
    segment = b"\x18\x53\x80\x67" + bytes([0x01]) + len(track).to_bytes(7, "big") + track
    path = tmp_path / "words.mkv"
    path.write_bytes(ebml + segment)
    refused(path, MediaUnreadableError, "nothing to see or hear|cannot be read")


def test_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    refused(path, MediaUnreadableError, "0 readable frames|nothing to see|cannot be read")


def test_a_track_without_samples(good: Path, tmp_path: Path) -> None:
    """Tables that say: no samples."""
    path = _patched(good, tmp_path / "zero.mp4", b"stts", 8, bytes(4))
    path = _patched(path, path, b"stsz", 12, bytes(4))
    path = _patched(path, path, b"stsc", 8, bytes(4))
    path = _patched(path, path, b"stco", 8, bytes(4))
    refused(path, MediaUnreadableError, "0 readable frames|nothing to see|cannot be read")


def test_frames_that_do_not_decode(good: Path, tmp_path: Path) -> None:
    body = bytearray(good.read_bytes())
    start, end = body.index(b"mdat") + 4, body.index(b"moov") - 4
    body[start:end] = np.random.default_rng(0).bytes(end - start)
    path = tmp_path / "rot.mp4"
    path.write_bytes(body)
    refused(path, MediaUnreadableError, "decoded|readable")


def test_absurd_duration_in_matroska_and_avi(tmp_path: Path) -> None:
    mkv = write_video(tmp_path / "a.mkv", numbered_frames(10), fps=5)
    body = mkv.read_bytes()
    at = body.find(b"\x44\x89\x88")
    assert at > 0
    path = tmp_path / "age.mkv"
    path.write_bytes(body[: at + 3] + struct.pack(">d", 1e15) + body[at + 11 :])
    refused(path, MediaLimitError, "lasts .* years")
    avi = write_video(tmp_path / "a.avi", numbered_frames(10), fps=5)
    path = _patched(avi, tmp_path / "age.avi", b"avih", 8 + 16, struct.pack("<I", 0x7FFFFFFF))
    refused(path, MediaLimitError, "lasts .* years")
    path = _patched(avi, tmp_path / "fast.avi", b"avih", 8, struct.pack("<I", 1))
    refused(path, MediaLimitError, "pictures a second")


@pytest.mark.parametrize("box", [b"mvhd", b"mdhd"])
def test_absurd_duration(good: Path, tmp_path: Path, box: bytes) -> None:
    # version 0: version+flags, creation, modification, timescale, duration
    path = _patched(good, tmp_path / "age.mp4", box, 4 + 12, struct.pack(">II", 1, 0x7FFFFFF0))
    refused(path, MediaLimitError, "lasts .* years|lasts .* days")


def test_absurd_frame_rate(good: Path, tmp_path: Path) -> None:
    path = _patched(good, tmp_path / "fast.mp4", b"mdhd", 4 + 12, struct.pack(">I", 0x7FFFFFF0), times=1)
    refused(path, MediaLimitError, "pictures a second")


def test_absurd_size(good: Path, tmp_path: Path) -> None:
    path = _patched(good, tmp_path / "wide.mp4", b"stsd", 8 + 4 + 32, struct.pack(">HH", 60000, 60000), times=1)
    refused(path, MediaLimitError, "60000x60000")
    mkv = write_video(tmp_path / "a.mkv", numbered_frames(5, 480, 640), fps=5)
    body = mkv.read_bytes()
    at = body.find(b"\xb0\x82\x02\x80\xba\x82\x01\xe0")  # PixelWidth 640, PixelHeight 480
    assert at > 0
    path = tmp_path / "wide.mkv"
    path.write_bytes(body[:at] + b"\xb0\x82\xf0\x00\xba\x82\xf0\x00" + body[at + 8 :])
    refused(path, MediaLimitError, "61440x61440")


def _flat_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = zlib.compress(bytes(1 + width * 3) * min(height, 4))  # the size is refused before the rest is missed
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_hundred_megapixels(tmp_path: Path) -> None:
    picture = tmp_path / "large.png"
    picture.write_bytes(_flat_png(10_000, 10_000))
    refused(picture, MediaLimitError, "10000x10000 has 100 megapixels")
    video = tmp_path / "large.mov"
    with av.open(str(video), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        frame = av.VideoFrame.from_ndarray(smooth_noise(0), format="rgb24")
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            large = av.Packet(picture.read_bytes())
            large.stream, large.pts, large.dts, large.is_keyframe = stream, packet.pts, packet.dts, True
            large.time_base = packet.time_base
            out.mux(large)
    refused(video, MediaLimitError, "10000x10000 has 100 megapixels")


def test_cut_off_with_the_index_at_the_end(good: Path, tmp_path: Path) -> None:
    body = good.read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(body[: len(body) // 2])
    message = refused(path, MediaUnreadableError, "cut off")
    assert "moov" in message and "index" in message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {}),
        ("first.mp4", {"container_options": {"movflags": "faststart"}}),
        (
            "fragments.mp4",
            {"container_options": {"movflags": "frag_keyframe+delay_moov"}},
        ),
        ("a.webm", {}),
        ("a.avi", {}),
    ],
)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_cut_off_where_what_is_before_can_be_read(tmp_path: Path, name: str, options: dict, share: float) -> None:
    sound = None if name.endswith("avi") else tones(8.0, 48000)
    whole = write_video(tmp_path / name, numbered_frames(200), fps=25, waveform=sound, key_every=25, **options)
    body = whole.read_bytes()
    short = tmp_path / f"short {name}"
    short.write_bytes(body[: int(len(body) * share)])
    clip = opened(short)
    assert clip.frames is not None
    found = numbers_of(clip)
    # At the cut a frame may be there before those that are shown before it.
    assert found[:-4] == list(range(len(found) - 4)) and found == sorted(found)
    assert 200 * share * 0.5 < len(found) <= 200
    np.testing.assert_allclose(clip.frames.seconds, np.array(found) / 25, atol=1e-3)
    told = [note for note in clip.notes if note.startswith("the file is cut off: readable up to")]
    assert len(told) == 1, clip.notes
    assert f"up to {clip.duration_seconds:.1f} s" in told[0]
    assert clip.duration_seconds < 8.0 or "sound only up to 7." in told[0]
    if name != "fragments.mp4":
        assert " of 8.0 s" in told[0]
    assert clip.frames.duration_seconds <= clip.duration_seconds + 1e-9
    if sound is not None:
        assert clip.waveforms is not None
        # The whole files are not cut off, and say nothing.
    assert opened(whole).notes == ()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_sound_cut_off(tmp_path: Path, suffix: str) -> None:
    whole = write_sound(tmp_path / f"a.{suffix}", tones(6.0, 48000))
    short = tmp_path / f"short.{suffix}"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = opened(short)
    assert clip.waveforms is not None and 1.5 < clip.duration_seconds < 4.5
    if suffix == "wav":
        assert clip.notes == ("the file is cut off: readable up to 3.0 s of 6.0 s",) or "cut off" in clip.notes[0]


def test_file_that_changes_while_it_is_read(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(good.read_bytes())
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with path.open("ab") as out:
                out.write(bytes(16))
            time.sleep(0.0005)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for read in (opened, everything):
            with pytest.raises(MediaUnreadableError, match="changed while it was read") as caught:
                for _ in range(20):
                    read(path)
            assert "growing.mp4" in str(caught.value)
    finally:
        stop.set()
        writer.join()


def test_wrong_extension_and_odd_names_simply_work(good: Path, tmp_path: Path) -> None:
    for name in (
        "video.txt",
        "no extension",
        "a.mp3",
        'it\'s "quoted" & spaced $HOME `x`.mp4',
        "ünï 視頻 ☃.mkv",
        "-y.mp4",
        "%d.png",
        "a:b.mp4",
        "http:x.mp4",
    ):
        path = tmp_path / name
        path.write_bytes(good.read_bytes())
        clip = opened(path)
        assert clip.name == name and numbers_of(clip) == list(range(50))


def test_an_hour_of_silence(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "hour.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        for _ in range(60):
            out.writeframesraw(bytes(16000 * 60 * 2))
    started = time.monotonic()
    clip = open_clip(path, frames=FrameSampling(), sound=SoundSampling("contiguous", 32, 0.5))
    assert time.monotonic() - started < 15
    assert clip.duration_seconds == 3600 and len(clip.windows_seconds) == 32 and clip.waveforms is not None
    assert not any(wave.samples.any() for wave in clip.waveforms)
    path.unlink()


def test_ffmpeg_prints_nothing(good: Path, tmp_path: Path) -> None:
    body = bytearray(good.read_bytes())
    body[800:2000] = bytes(1200)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(body)
    program = (
        "import sys; from videollm.errors import MediaError; "
        "from videollm.media.decode_worker import open_clip, read_clip; "
        "from videollm.media.sampling import FrameSampling, SoundSampling\n"
        "for read in (open_clip, read_clip):\n"
        "    try: read(sys.argv[1], frames=FrameSampling(frames=99), sound=SoundSampling())\n"
        "    except MediaError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
