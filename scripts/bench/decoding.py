"""Decoding: 8 and 32 uniform frames by each decoder, and the two constants by which frames are reached.

    python scripts/bench/decoding.py [--media DIR] [--rounds 5] [--quick]

Every way is measured in turn within each round, on one thread; a figure is the median over the rounds. Made clips
come from the package's own writer; `--media` adds the videos of a folder. Printed are

1. what it costs to start again at a key frame, in decoded packets (-> JUMP_PACKETS), and what a seek costs, in packets
   that are read and dropped (-> SEEK_PACKETS), of `videollm/media/video.py`;
2. milliseconds for 8 and 32 uniform frames: PyAV as the package chooses, PyAV in one pass, PyAV from key frame to key
   frame, decord, and a naive seek for every frame;
3. what the separate decoding process costs over decoding in this one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from videollm.clips import Frames
from videollm.errors import MediaError, MissingDependencyError
from videollm.media import video
from videollm.media.decode_worker import close_server, open_clip
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling
from videollm.media.source import (
    choose_streams,
    open_source,
    opened_container,
    sniff,
    stream_aspect,
    timeline_origin_seconds,
)
from videollm.media.write import write_video

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


def moving_picture(count: int, height: int, width: int):
    """Frames of a textured picture that drifts: neither trivial nor noise to an encoder."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    for i in range(count):
        yield np.roll(picture, (i // 3, i), (0, 1))


def made_clips(folder: Path, quick: bool) -> list[tuple[str, Path]]:
    plans = [
        ("6 s 640x360, one key frame", 6, 360, 640, 10_000),
        ("20 s 640x360, key every 25", 20, 360, 640, 25),
        ("20 s 640x360, key every 250", 20, 360, 640, 250),
        ("10 min 160x90, key every 250", 600, 90, 160, 250),
    ]
    clips = []
    for name, seconds, height, width, every in plans[: 3 if quick else 4]:
        path = folder / f"{len(clips)}.mp4"
        pictures = moving_picture(seconds * 25, height, width)
        write_video(path, pictures, fps=25, key_every=every, preset="ultrafast" if seconds > 60 else "veryfast")
        clips.append((name, path))
    return clips


def one_by_one(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float | None]:
    """Median seconds of each way; None where it cannot."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            try:
                way()
            except (MediaError, MissingDependencyError):
                continue
            spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) if times else None for name, times in spent.items()}


def frames_of(path: Path, sampling: FrameSampling, plan: str, **options: int) -> Frames:
    """The whole of what `read_clip` does for pictures, with a chosen plan."""
    with open_source(path) as source:
        kind = sniff(source.head())
        assert kind is not None
        with opened_container(source, kind) as container:
            stream = choose_streams(source, container).video
            assert stream is not None
            origin, aspect = timeline_origin_seconds(container), stream_aspect(stream)
            scan = video.scan_packets(source, container, [stream])[stream.index]
            table = video.timetable(source, kind, stream, scan, origin)
        return video.read_frames(
            source,
            kind,
            table,
            sampling,
            aspect=aspect,
            origin_seconds=origin,
            plan=plan,
            **options,  # type: ignore
        )[0]


def constants(folder: Path, rounds: int) -> None:
    """The costs behind JUMP_PACKETS and SEEK_PACKETS."""
    path = write_video(folder / "keys.mp4", moving_picture(600, 360, 640), fps=25, key_every=20)
    with open_source(path) as source, opened_container(source, "mov") as container:
        stream = choose_streams(source, container).video
        assert stream is not None
        scan = video.scan_packets(source, container, [stream])[stream.index]
        table = video.timetable(source, "mov", stream, scan, 0.0)
    keys = [i for i in range(len(table.pts)) if table.packet_is_key[table.packet[i]]]  # type: ignore[index]
    never = 10**9
    with open_source(path) as source:

        def through() -> None:
            deque(video._frames_in_one_pass(source, "mov", {int(table.pts[-1])}, False), maxlen=0)

        def only_keys(seek_packets: int) -> None:
            runs = video.plan_runs(table, np.array(keys), 1)
            assert len(runs) == len(keys)
            deque(video._frames_by_runs(source, "mov", table, runs, seek_packets), maxlen=0)

        spent = one_by_one({"through": through, "drop": lambda: only_keys(never), "seek": lambda: only_keys(0)}, rounds)
        with opened_container(source, "mov") as container:
            started = time.perf_counter()
            count = sum(1 for packet in container.demux(video=0) if packet.size)
            read_one = (time.perf_counter() - started) / count
    decode_one = spent["through"] / len(table.pts)  # type: ignore[operator]
    restart = (spent["drop"] - count * read_one) / len(keys)  # type: ignore[operator]
    seek = (spent["seek"] - spent["drop"] + (count - len(keys)) * read_one) / len(keys)  # type: ignore[operator]
    print(f"decode one packet {decode_one * 1e6:.0f} us, read and drop one {read_one * 1e6:.1f} us")
    print(
        f"start again at a key frame: {restart / decode_one:.1f} decoded packets (JUMP_PACKETS = {video.JUMP_PACKETS})"
    )
    print(f"seek: {seek / read_one:.0f} dropped packets (SEEK_PACKETS = {video.SEEK_PACKETS})")


def table_of(clips: list[tuple[str, Path]], rounds: int) -> None:
    print(f"\n{'clip':34}{'frames':>7}{'chosen':>9}{'one pass':>10}{'jumps':>9}{'decord':>9}{'seek each':>11}   ms")
    for name, path in clips:
        for count in (8, 32):
            sampling = FrameSampling("uniform", frames=count)
            ways: dict[str, Callable[[], object]] = {
                "chosen": lambda p=path, s=sampling: frames_of(p, s, "auto"),
                "one pass": lambda p=path, s=sampling: frames_of(p, s, "one pass"),
                "jumps": lambda p=path, s=sampling: frames_of(p, s, "auto", jump_packets=1, seek_packets=1),
                "decord": lambda p=path, s=sampling: read_clip(p, frames=s, decoder="decord"),
                "seek each": lambda p=path, n=count: seek_each(p, n),
            }
            spent = one_by_one(ways, rounds)
            cells = "".join(
                f"{'-' if ms is None else f'{ms * 1e3:.0f}':>{width}}"
                for ms, width in zip(spent.values(), (9, 10, 9, 9, 11), strict=True)
            )
            print(f"{name[:33]:34}{count:>7}{cells}", flush=True)


def seek_each(path: Path, count: int) -> None:
    """What is often written: a seek for every frame, in a fresh position each time."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        length = stream.duration or 0
        for i in range(count):
            wanted = (stream.start_time or 0) + i * length // count
            container.seek(wanted, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts + (frame.duration or 1) > wanted:
                    frame.to_ndarray(format="rgb24")
                    break


def worker(path: Path, rounds: int) -> None:
    sampling = FrameSampling("uniform", frames=8)

    def cold() -> None:
        close_server()
        started = time.perf_counter()
        open_clip(path, frames=sampling)
        first.append(time.perf_counter() - started)

    first: list[float] = []
    for _ in range(rounds):
        cold()
    spent = one_by_one(
        {"here": lambda: read_clip(path, frames=sampling), "worker": lambda: open_clip(path, frames=sampling)}, rounds
    )
    close_server()
    here, warm = spent["here"] or 0.0, spent["worker"] or 0.0
    print(f"\n8 frames of {path.name}: in this process {here * 1e3:.0f} ms, in a worker {warm * 1e3:.0f} ms, ", end="")
    print(f"and {statistics.median(first) * 1e3:.0f} ms where the server must be started first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--media", type=Path, help="a folder of videos to measure as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="without the ten-minute clip")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        constants(Path(folder), args.rounds)
        clips = made_clips(Path(folder), args.quick)
        if args.media is not None:
            clips += [(p.name, p) for p in sorted(args.media.iterdir()) if p.suffix.lower() in SUFFIXES]
        table_of(clips, args.rounds)
        worker(clips[0][1], args.rounds)


if __name__ == "__main__":
    main()
