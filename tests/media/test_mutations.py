"""500 seeded mutations of valid files: every one a clip or one clear line, no crash, no hang, no leak."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.media.numbered import numbered_frames, tones
from tests.media.processes import own_children
from videollm.errors import DecoderCrashedError, MediaError
from videollm.media.decode_worker import close_server, open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.media.write import write_sound, write_video

MUTATIONS = 500
SEED = 20_240_607
LIMITS = Limits(wall_seconds=20.0, cpu_seconds=20.0, memory_bytes=1024**3)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("originals")
    frames = numbered_frames(12)
    sound = tones(1.0, 48000)
    made = [
        write_video(folder / "a.mp4", frames, fps=12, waveform=sound, key_every=4),
        write_video(folder / "first.mp4", frames, fps=12, container_options={"movflags": "faststart"}),
        write_video(
            folder / "frag.mp4", frames, fps=12, waveform=sound, container_options={"movflags": "frag_keyframe"}
        ),
        write_video(folder / "hevc.mov", frames, fps=12, codec="hevc"),
        write_video(folder / "a.mkv", frames, fps=12, waveform=sound, key_every=4),
        write_video(folder / "a.webm", frames, fps=12, waveform=sound),
        write_video(folder / "av1.mkv", numbered_frames(8, 96, 128), fps=12, codec="av1"),
        write_video(folder / "a.avi", frames, fps=12, waveform=sound),
        write_video(folder / "a.gif", frames, fps=10),
        write_video(folder / "a.ts", frames, fps=12, waveform=sound),
        *(write_sound(folder / f"s.{suffix}", sound) for suffix in ("wav", "mp3", "m4a", "flac", "ogg")),
    ]
    for suffix in ("jpg", "png", "webp", "tiff", "bmp"):
        path = folder / f"p.{suffix}"
        Image.fromarray(frames[7]).save(path)
        made.append(path)
    return made


def mutated(bodies: list[bytes], rng: np.random.Generator) -> tuple[int, bytes]:
    """One mutation of one of the files: flipped bytes, mostly near a header, a cut, or a piece of another file."""
    which = int(rng.integers(len(bodies)))
    body = bytearray(bodies[which])
    kind = rng.integers(6)
    if kind <= 2:
        reach = len(body) if kind == 0 else min(len(body), 2048)
        start = len(body) - reach if kind == 2 else 0
        for _ in range(int(rng.choice([1, 3, 10, 40]))):
            at = start + int(rng.integers(reach))
            body[at] = int(rng.choice([rng.integers(256), 0, 255, body[at] ^ (1 << int(rng.integers(8)))]))
    elif kind == 3:
        del body[int(rng.integers(1, len(body))) :]
    elif kind == 4:
        other = bodies[int(rng.integers(len(bodies)))]
        at, length = int(rng.integers(len(body))), int(rng.integers(1, 4096))
        start = int(rng.integers(len(other)))
        body[at : at + length] = other[start : start + length]
    else:
        at = int(rng.integers(len(body)))
        del body[at : at + int(rng.integers(1, 512))]
    return which, bytes(body)


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    close_server()
    handles = len(os.listdir("/proc/self/fd"))
    yield
    close_server()
    assert own_children() == []
    assert len(os.listdir("/proc/self/fd")) <= handles


def test_mutations(originals: list[Path], tmp_path: Path, nothing_leaks: None) -> None:
    rng = np.random.default_rng(SEED)
    bodies = [path.read_bytes() for path in originals]
    me = psutil.Process()
    outcomes: Counter[str] = Counter()
    crashed: list[str] = []
    slowest, memory, handles, servers = 0.0, 0, 0, set()
    for number in range(MUTATIONS):
        which, body = mutated(bodies, rng)
        path = tmp_path / f"{number} {originals[which].name}"
        path.write_bytes(body)
        started = time.monotonic()
        try:
            clip = open_clip(
                path, frames=FrameSampling("rate", rate_hz=6, max_frames=8), sound=SoundSampling(), limits=LIMITS
            )
            outcomes["clip with a note" if clip.notes else "clip"] += 1
        except DecoderCrashedError as error:
            outcomes["crash"] += 1
            crashed.append(str(error))
        except MediaError as error:
            outcomes[type(error).__name__] += 1
            message = str(error)
            assert path.name in message and "\n" not in message and len(message) < 500, message
            assert "took longer" not in message, message
        slowest = max(slowest, time.monotonic() - started)
        path.unlink()
        children = own_children(recursive=False)
        servers |= {child.pid for child in children}
        if number == 100:
            memory = me.memory_info().rss + sum(c.memory_info().rss for c in children)
            handles = len(os.listdir("/proc/self/fd"))
    print(dict(outcomes), f"slowest {slowest:.2f} s")
    assert outcomes.total() == MUTATIONS
    assert outcomes["crash"] == 0, crashed
    assert outcomes["clip"] + outcomes["clip with a note"] > MUTATIONS // 10, "many mutations leave a readable file"
    assert outcomes["MediaUnreadableError"] > MUTATIONS // 10, "and many do not"
    assert len(servers) == 1, "one server served all"
    assert len(os.listdir("/proc/self/fd")) <= handles
    grown = me.memory_info().rss + sum(c.memory_info().rss for c in own_children(recursive=False)) - memory
    assert grown < 40 * 1024**2, f"{grown} bytes more than after the first hundred"
