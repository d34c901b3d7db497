"""Shards: samples and their media in tar files that can be streamed. `write_shards` makes them, `ShardSamples` reads.

A folder of shards holds ``shard-000000.tar`` and so on, in webdataset's layout: for each sample a ``.json`` of our own
schema and its media, cut to the sample's stretch. Beside each tar lies a small ``.json`` that says where each sample
begins and what its checksum is, and ``index.json`` lists all shards. Because of these a reader goes straight to sample
``i``, on a disk or behind an http(s) address, with one positioned read. So the order of samples is a list of numbers
that is drawn beforehand: the same for any number of workers, and resumed by starting anywhere in it.

A shard's tar is finished when its ``.json`` is there: that is written last, and each file gets its name when it is
whole. What a killed run leaves is either finished or has no name, so that the next run does the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import weakref
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from videollm.data import tars
from videollm.data.cutting import CUT_LIMITS, Cutter
from videollm.data.ranges import beside, is_address, read_range, read_whole, shown
from videollm.data.sample import JsonlSamples, Media, Sample, sample_from_json, sample_to_json
from videollm.errors import DataError, MediaError, UnusableSampleError
from videollm.media.decode_worker import inspect_clip
from videollm.media.write import atomic

FORMAT = "videollm-shards-1"
INDEX = "index.json"
PLAN = "plan.json"
SHARD_SIZE = 500
MOST_INDEX_BYTES = 256 * 1024**2
MOST_SAMPLE_BYTES = 8 * 1024**3
MOST_FETCHED_BYTES = 1024**3
"""Of one media file behind an address."""
FIRST_BYTES = 16 * 1024
"""Of a sample, read to look at its words: most descriptions are shorter."""
COPY_BYTES = 4 * 1024**2
CHECK_BYTES = 64 * 1024**2
_SHARD_NAME = re.compile(r"shard-\d{6,9}")
_SUFFIX = re.compile(r"[a-z0-9]{1,8}")


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardReport:
    """What `write_shards` made.

    Attributes:
        folder: where.
        shards: how many, and of these
        found: how many an earlier run had finished.
        samples: how many are in them.
        size_bytes: of all tars together.
        left_out: (line of the file, reason) of every sample that is not in them.
    """

    folder: Path
    shards: int
    found: int
    samples: int
    size_bytes: int
    left_out: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Plan:
    """The samples of a file, and all that decides what their shards look like."""

    samples: JsonlSamples
    numbers: array[int]  # the line of each, from 1
    settings: dict[str, Any]


def write_shards(
    source: str | Path,
    out: str | Path,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    whole: bool = False,
    progress: bool | None = None,
) -> ShardReport:
    """Write the samples of a JSONL file and their media as shards; go on where an earlier run stopped.

    A sample whose media are missing or broken is left out, with its reason in the report and in the shard's ``.json``.

    Args:
        source: JSONL of our own schema.
        out: the folder, made if need be.
        shard_size: samples in one shard.
        workers: shards that are written at once, each cutting in a process of its own; None: as many as processors.
        whole: keep whole files and the stretches beside them, where the default is to cut.
        progress: show a bar; None: where stderr is a terminal.

    Raises:
        DataError: the file cannot be read, no sample is usable, or the folder holds something else or is in use.
    """
    from tqdm import tqdm

    if shard_size < 1:
        raise DataError(f"a shard holds at least 1 sample, found {shard_size}; leave it out for {SHARD_SIZE}")
    if workers is not None and workers < 1:
        raise DataError(f"shards are written by at least 1 worker, found {workers}; leave it out for all processors")
    workers = workers or os.cpu_count() or 1
    folder = Path(out)
    plan = _read_plan(Path(source), shard_size, whole)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _claimed(folder, plan) as work:
            count = -(-len(plan.numbers) // shard_size)
            names = [f"shard-{number:06d}" for number in range(count)]
            found = {name: told for name in names if (told := _finished(folder, name)) is not None}
            todo = [number for number, name in enumerate(names) if name not in found]
            told = dict(found)
            stop = threading.Event()
            done = sum(one["samples"] + len(one["left_out"]) for one in found.values())
            with tqdm(
                total=len(plan.numbers), initial=done, desc="shards", unit=" samples",
                disable=None if progress is None else not progress,
            ) as bar, ThreadPoolExecutor(workers) as pool:  # fmt: skip
                waiting = iter(todo)
                running: dict[Any, str] = {}
                cutters: list[Cutter] = []
                lock = threading.Lock()

                def count(samples: int) -> None:
                    with lock:
                        bar.update(samples)

                try:
                    while True:
                        for number in waiting:
                            job = pool.submit(
                                _write_shard, plan, folder, names[number], number, work, stop, cutters, count
                            )
                            running[job] = names[number]
                            if len(running) >= workers:
                                break
                        if not running:
                            break
                        for job in wait(running, return_when=FIRST_COMPLETED).done:
                            told[running.pop(job)] = job.result()
                except BaseException:
                    stop.set()  # Ctrl-C, or a full disk: the others end at once
                    for cutter in list(cutters):
                        cutter.kill()
                    raise
            return _write_index(folder, plan, names, told, len(found))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot write shards into {folder}: {reason}; what is finished stays, run it again") from None


def _read_plan(source: Path, shard_size: int, whole: bool) -> _Plan:
    samples, numbers, digest = JsonlSamples(source), array("Q"), hashlib.sha256()
    try:
        with source.open("rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                if not line.isspace():
                    numbers.append(number)
    except OSError as error:
        raise DataError(f"cannot read {source}: {(error.strerror or 'error').lower()}; give a JSONL file") from None
    if len(numbers) != len(samples):
        raise DataError(f"{source} changed while it was read; run it again when it is complete")
    settings = {
        "format": FORMAT, "source": source.name, "source_sha256": digest.hexdigest(), "samples": len(numbers),
        "shard_size": shard_size, "whole": whole,
    }  # fmt: skip
    return _Plan(samples, numbers, settings)


@contextmanager
def _claimed(folder: Path, plan: _Plan) -> Iterator[Path]:
    """A scratch folder in a folder that is this run's alone: with its plan, and without half-written things."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder} is being written by another process; wait for it, or end it") from None
        path = folder / PLAN
        others = sorted(other.name for other in folder.iterdir() if not other.name.startswith("."))
        if others and not path.exists():
            raise DataError(f"{folder} holds other files ({others[0]!r}) and no {PLAN}; choose an empty or new folder")
        try:
            begun = json.loads(path.read_bytes()) if path.exists() else plan.settings
        except ValueError:
            begun = None
        wrong = [key for key, value in plan.settings.items() if not isinstance(begun, dict) or begun.get(key) != value]
        if wrong:
            what = {"source_sha256": "other contents of the file"}.get(
                wrong[0], f"another {wrong[0].replace('_', ' ')}"
            )
            raise DataError(f"{folder} was begun with {what}; give the same again to go on, or another folder")
        for stale in (*folder.glob(".shard-*"), *folder.glob(".work-*"), *folder.glob(f".{INDEX}.*")):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        if not path.exists():
            _write_json(path, plan.settings)
        with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
            yield Path(work)
    finally:
        os.close(lock)


def _write_json(path: Path, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    with atomic(path) as temporary:
        temporary.write_bytes(text)
    return text


def _finished(folder: Path, name: str) -> dict[str, Any] | None:
    """What a finished shard says of itself; None where it is not finished."""
    try:
        told = _checked_shard((folder / f"{name}.json").read_bytes(), name)
        if (folder / f"{name}.tar").stat().st_size == told["size_bytes"]:
            return told
    except (OSError, DataError):
        pass
    return None


class _Stopped(Exception):
    """Another shard's failure, or Ctrl-C, ends this one."""


class _Tar:
    """A tar being written, with its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256, self.size_bytes, self.crc32 = file, hashlib.sha256(), 0, 0

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self.sha256.update(block)
        self.size_bytes += len(block)
        self.crc32 = zlib.crc32(block, self.crc32)

    def add(self, name: str, content: bytes | Path) -> None:
        """Raises: DataError where a file changes while it is read."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.write(tars.header(name, size))
        if isinstance(content, bytes):
            self.write(content)
        else:
            left = size
            with content.open("rb") as file:
                while left and (block := file.read(min(left, COPY_BYTES))):
                    self.write(block)
                    left -= len(block)
            if left:
                raise DataError(f"{content} became shorter while it was read; run it again when it is complete")
        self.write(bytes(tars.padded(size) - size))


def _write_shard(
    plan: _Plan,
    folder: Path,
    name: str,
    number: int,
    work: Path,
    stop: threading.Event,
    cutters: list[Cutter],
    count: Callable[[int], Any],
) -> dict[str, Any]:
    """Write a shard's tar and then its ``.json``; what the latter says."""
    size = plan.settings["shard_size"]
    places = range(number * size, min((number + 1) * size, len(plan.numbers)))
    begins: list[int] = []
    checks: list[int] = []
    left_out: list[tuple[int, str]] = []
    with (
        atomic(folder / f"{name}.tar") as temporary,
        temporary.open("wb") as file,
        Cutter() as cutter,
        tempfile.TemporaryDirectory(dir=work) as scratch,
    ):
        cutters.append(cutter)
        tar = _Tar(file)
        for place in places:
            if stop.is_set():
                raise _Stopped
            try:
                files = _files_of_sample(plan.samples[place], plan.settings["whole"], cutter, Path(scratch))
            except (DataError, MediaError) as error:
                left_out.append((plan.numbers[place], str(error)))
            else:
                begins.append(tar.size_bytes)
                tar.crc32 = 0
                for key, content in files:
                    tar.add(f"{place:012d}.{key}", content)
                checks.append(tar.crc32)
            for made in Path(scratch).iterdir():
                made.unlink()
            count(1)
        cutters.remove(cutter)
        begins.append(tar.size_bytes)
        tar.write(tars.END)
        file.flush()
        os.fsync(file.fileno())
    told = {
        "samples": len(checks), "size_bytes": tar.size_bytes, "sha256": tar.sha256.hexdigest(), "begins": begins,
        "crc32": checks, "left_out": left_out,
    }  # fmt: skip
    _write_json(folder / f"{name}.json", told)
    return told


def _files_of_sample(sample: Sample, whole: bool, cutter: Cutter, scratch: Path) -> list[tuple[str, bytes | Path]]:
    """(name behind the number, content) of a sample's files, the description first; stretches are cut into scratch.

    Raises:
        DataError: one of its media cannot be fetched.
        MediaError: one of its media cannot be used.
    """
    media: dict[str, Media] = {}
    files: list[tuple[str, bytes | Path]] = []
    for index, (name, one) in enumerate(sample.media.items()):
        path = fetched(one, scratch / f"{index}.fetched") if one.is_url else Path(one.path)
        info = inspect_clip(path, name=Path(shown(one.path)).name)
        suffix = Path(shown(one.path)).suffix.lower().removeprefix(".")
        key = f"{index}.{suffix if _SUFFIX.fullmatch(suffix) else 'bin'}"
        stretch = one.start_seconds is not None or one.end_seconds is not None
        if stretch and info.kind != "image" and not whole:
            key = f"{index}.{'flac' if info.kind == 'audio' else 'mp4'}"
            end = one.end_seconds
            if end is None:
                end = (info.duration_seconds or CUT_LIMITS.duration_seconds) + 1.0
            cutter.cut(path, scratch / key, one.start_seconds or 0.0, end)
            path, one = scratch / key, replace(one, start_seconds=None, end_seconds=None)
        files.append((key, path))
        media[name] = replace(one, path=key)
    told = sample_to_json(replace(sample, media=media))
    return [("json", json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")), *files]


def fetched(media: Media, to: Path) -> Path:
    """A media file from an address, written to a path.

    Raises:
        DataError: it cannot be fetched.
    """
    to.write_bytes(read_whole(media.path, MOST_FETCHED_BYTES))
    return to


def _write_index(
    folder: Path, plan: _Plan, names: list[str], told: dict[str, dict[str, Any]], found: int
) -> ShardReport:
    left_out = [(int(line), str(reason)) for name in names for line, reason in told[name]["left_out"]]
    samples = sum(told[name]["samples"] for name in names)
    if not samples:
        raise DataError(
            f"none of the {len(plan.numbers)} samples of {plan.settings['source']} can be used; line {left_out[0][0]}: "
            f"{left_out[0][1]}"
        )
    shards = [
        {
            "name": name,
            "samples": told[name]["samples"],
            "size_bytes": told[name]["size_bytes"],
            "sha256": told[name]["sha256"],
            "json_sha256": hashlib.sha256((folder / f"{name}.json").read_bytes()).hexdigest(),
        }
        for name in names
    ]
    size = sum(shard["size_bytes"] for shard in shards)
    index = {"format": FORMAT, "samples": samples, "left_out": len(left_out), "size_bytes": size, "shards": shards}
    _write_json(folder / INDEX, index)
    return ShardReport(folder, len(names), found, samples, size, tuple(left_out))


# --- reading ----------------------------------------------------------------------------------------------------------


class ShardSamples:
    """The samples of a folder of shards, by number: on a disk, or streamed from an http(s) address.

    ``samples[i]`` fetches one sample and checks it. Its media lie in files of a scratch folder, of which each process
    keeps those of the last ``keep`` samples; the folder goes with this object. It may be used by several processes at
    once (a DataLoader's workers), and what it gives never depends on which.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        name: str | None = None,
        scratch: str | Path | None = None,
        keep: int = 64,
    ) -> None:
        """
        Args:
            location: a folder of shards or its ``index.json``, as a path or an http(s) address.
            name: of the dataset, for samples that do not say; the folder's name if None.
            scratch: where to make the scratch folder; None: the system's folder for temporary files.
            keep: samples whose media are kept.

        Raises:
            DataError: there is no index, or it is none.
        """
        where = str(location)
        if not where.partition("?")[0].endswith(".json"):
            where = beside(f"{where.rstrip('/')}/", INDEX) if is_address(where) else str(Path(where) / INDEX)
        self.location = where
        self.name = Path(shown(where)).parent.name if name is None else name
        self._shards = _checked_index(read_whole(where, MOST_INDEX_BYTES), shown(where))
        self._ends = list(accumulate(shard["samples"] for shard in self._shards))
        self._keep = max(1, keep)
        self._folder = Path(tempfile.mkdtemp(prefix="videollm-shards-", dir=scratch))
        weakref.finalize(self, _remove_folder, self._folder, os.getpid())
        self._told: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._held: dict[str, OrderedDict[int, list[Path]]] = {}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": {}}

    def order(self, seed: int, epoch: int = 0, mixed_shards: int = 8) -> np.ndarray:
        """All numbers of samples once, shuffled: the same for the same arguments, on any machine.

        Shards come in random order, and the samples of so many neighbours in it are mixed, so that a reader needs only
        these at a time.

        Returns:
            int64 (samples,).
        """
        random = np.random.default_rng([seed, epoch])
        shards = random.permutation(len(self._shards))
        parts = []
        for first in range(0, len(shards), max(1, mixed_shards)):
            group = shards[first : first + max(1, mixed_shards)].tolist()
            numbers = [np.arange(self._ends[i] - self._shards[i]["samples"], self._ends[i]) for i in group]
            parts.append(random.permutation(np.concatenate(numbers)))
        return np.concatenate(parts).astype(np.int64)

    def stream(
        self, seed: int, *, epoch: int = 0, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[int, Sample]]:
        """(place in the order, sample) of one pass, from a place on; of several ranks each has every so many-th.

        Raises:
            DataError: where a shard cannot be read or is damaged; go on behind it with ``start``.
        """
        order = self.order(seed, epoch)
        for place in range(start, len(order)):
            if place % ranks == rank:
                yield place, self[int(order[place])]

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number``; its media are files in the scratch folder.

        Raises:
            IndexError: there is no such number.
            UnusableSampleError: what is stored is damaged, or no sample.
            DataError: nothing can be read: the disk or the network.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} samples, found number {number}")
        shard = bisect_right(self._ends, number)
        place = number - (self._ends[shard] - self._shards[shard]["samples"])
        name = self._shards[shard]["name"]
        where = f"{shown(beside(self.location, f'{name}.tar'))} sample {place}"
        begin, end = self._shard(shard)["begins"][place : place + 2]
        stored = read_range(beside(self.location, f"{name}.tar"), begin, end - begin)
        try:
            self._check(shard, place, stored, where)
            return self._sample(number, tars.files_of(stored, where), where)
        except DataError as error:
            raise UnusableSampleError("broken media", str(error)) from None
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise DataError(f"cannot write media of a sample into {self._folder}: {reason}; give `scratch`") from None

    def words(self, number: int) -> Sample:
        """Sample ``number`` without fetching its media, whose files are not there; for looking ahead.

        Raises:
            as ``samples[number]``, but that damage to its media is not seen.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} samples, found number {number}")
        shard = bisect_right(self._ends, number)
        place = number - (self._ends[shard] - self._shards[shard]["samples"])
        tar = beside(self.location, f"{self._shards[shard]['name']}.tar")
        where = f"{shown(tar)} sample {place}"
        begin, end = self._shard(shard)["begins"][place : place + 2]
        stored = read_range(tar, begin, min(end - begin, FIRST_BYTES))
        try:
            # The description is the first file.
            size = tars.BLOCK + tars.padded(tars.size_of(stored, where))
            if size > len(stored):
                stored = read_range(tar, begin, min(size, end - begin))
            told = json.loads(bytes(tars.files_of(stored[:size], where)["json"]))
            return sample_from_json(told, self._folder, where, self.name)
        except (ValueError, RecursionError):
            raise UnusableSampleError(
                "broken media", f"{where}: its description is no JSON; fetch the shard again"
            ) from None
        except DataError as error:
            raise UnusableSampleError("broken media", str(error)) from None

    def _check(self, shard: int, place: int, stored: bytes, where: str) -> None:
        """Raises: DataError where the bytes read are not those that the index knows."""
        told = self._shard(shard)
        begin, end = told["begins"][place : place + 2]
        if len(stored) < end - begin:
            raise DataError(
                f"{where}: truncated ({begin + len(stored):,} bytes, its index says {told['size_bytes']:,}); fetch the "
                "shard again"
            )
        if zlib.crc32(stored) != told["crc32"][place]:
            # What is wrong with it may be plain to see; if not, it is another content.
            tars.files_of(stored, where)
            raise DataError(f"{where}: damaged (its checksum is another than in the index); fetch the shard again")

    def _shard(self, shard: int) -> dict[str, Any]:
        """What a shard's ``.json`` says, kept for the last 64 shards."""
        if shard not in self._told:
            listed = self._shards[shard]
            where = beside(self.location, f"{listed['name']}.json")
            text = read_whole(where, MOST_INDEX_BYTES)
            if hashlib.sha256(text).hexdigest() != listed["json_sha256"]:
                raise DataError(f"{shown(where)}: another file than {INDEX} lists; fetch the shards again, all of them")
            told = _checked_shard(text, shown(where))
            if (told["samples"], told["size_bytes"]) != (listed["samples"], listed["size_bytes"]):
                raise DataError(f"{shown(where)}: other counts than in {INDEX}; fetch the shards again, all of them")
            self._told[shard] = told
            while len(self._told) > 64:
                self._told.popitem(last=False)
        self._told.move_to_end(shard)
        return self._told[shard]

    def _sample(self, number: int, files: dict[str, memoryview], where: str) -> Sample:
        """A sample whose media are written into the scratch folder, and those of an old one removed from it."""
        try:
            told = json.loads(bytes(files["json"]))
        except (ValueError, RecursionError):
            raise DataError(f"{where}: its description is no JSON; fetch the shard again") from None
        sample = sample_from_json(told, self._folder, where, self.name)
        # Files of another process or thread are its own to remove.
        owner = f"{os.getpid()}-{threading.get_ident()}"
        held = self._held.setdefault(owner, OrderedDict())
        if number not in held and len(held) >= self._keep:
            for path in held.popitem(last=False)[1]:
                path.unlink(missing_ok=True)
        media: dict[str, Media] = {}
        for name, one in sample.media.items():
            key = Path(one.path).name
            if key not in files or key == "json":
                raise DataError(f"{where}: the file {key[:40]!r} of {name[:40]!r} is missing; fetch the shard again")
            media[name] = replace(one, path=str(self._folder / f"{owner}-{number}.{key}"))
        for name, one in sample.media.items():
            Path(media[name].path).write_bytes(files[Path(one.path).name])
        held[number] = [Path(one.path) for one in media.values()]
        held.move_to_end(number)
        return replace(sample, media=media)

    def check(self, progress: bool | None = None) -> None:
        """Read every tar wholly and compare its checksum with the index.

        Raises:
            DataError: the first that differs.
        """
        from tqdm import tqdm

        total = sum(shard["size_bytes"] for shard in self._shards)
        disable = None if progress is None else not progress
        with tqdm(total=total, unit="B", unit_scale=True, desc="checksums", disable=disable) as bar:
            for shard in self._shards:
                where = beside(self.location, f"{shard['name']}.tar")
                digest, at, size = hashlib.sha256(), 0, shard["size_bytes"]
                while at < size and (block := read_range(where, at, min(CHECK_BYTES, size - at))):
                    digest.update(block)
                    at += len(block)
                    bar.update(len(block))
                if digest.hexdigest() != shard["sha256"]:
                    what = f"truncated ({at:,} of {size:,} bytes)" if at < size else "other bytes than its index says"
                    raise DataError(f"{shown(where)}: {what}; fetch the shard again")


def _remove_folder(folder: Path, process: int) -> None:
    """At the end of the object that made it, but not of its copies in a DataLoader's workers."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _checked_index(text: bytes, where: str) -> list[dict[str, Any]]:
    """The shards of an index.

    Raises:
        DataError: it is none.
    """
    try:
        index = json.loads(text)
        if index["format"] != FORMAT:
            raise DataError(f"{where}: of the format {str(index['format'])[:40]!r}, this reads {FORMAT!r}")
        for shard in index["shards"]:
            whole = all(type(shard[key]) is int and 0 <= shard[key] < 2**60 for key in ("samples", "size_bytes"))
            text_ = all(re.fullmatch("[0-9a-f]{64}", shard[key]) for key in ("sha256", "json_sha256"))
            if not (whole and text_ and _SHARD_NAME.fullmatch(shard["name"])):
                raise ValueError(f"shard {str(shard['name'])[:40]!r}")
        if not sum(shard["samples"] for shard in index["shards"]):
            raise ValueError("no samples")
        return index["shards"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = " ".join(str(error).split())[:80]
        raise DataError(f"{where}: no index of shards ({what}); make one with `videollm data shard`") from None


def _checked_shard(text: bytes, where: str) -> dict[str, Any]:
    """What the ``.json`` of a shard says.

    Raises:
        DataError: it is none.
    """
    try:
        told = json.loads(text)
        begins, checks, end = told["begins"], told["crc32"], told["size_bytes"]
        whole = all(type(number) is int for number in (*begins, *checks, end, told["samples"]))
        steps = [b - a for a, b in pairwise(begins)]
        if not (
            whole
            and len(checks) == told["samples"] == len(begins) - 1
            and begins[0] == 0
            and begins[-1] + len(tars.END) == end
            and all(tars.BLOCK <= step <= MOST_SAMPLE_BYTES and step % tars.BLOCK == 0 for step in steps)
            and all(type(line) is int and isinstance(reason, str) for line, reason in told["left_out"])
        ):
            raise ValueError("its numbers do not fit together")
        return told
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        what = " ".join(str(error).split())[:80]
        raise DataError(f"{where}: no index of a shard ({what}); fetch it again") from None
