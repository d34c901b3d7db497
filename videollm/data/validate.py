"""A dataset looked over before it is trained on: `validate` reads every sample, decodes its media and counts.

Media are decoded by `videollm.media.decode_worker`, whatever they are, and each file once. Lengths in tokens are those
of the whole conversation as a model's processor renders it, clips included.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from videollm.clips import Clip, Frames, Waveform
from videollm.data.histograms import draw_histograms
from videollm.data.ranges import shown
from videollm.data.sample import JsonlSamples, Media, Sample
from videollm.data.shards import fetched
from videollm.errors import DataError, MediaError, MediaNotFoundError, UnusableSampleError
from videollm.media.decode_worker import open_clip
from videollm.media.sampling import FrameSampling, SoundSampling

if TYPE_CHECKING:
    from videollm.models.video_llama import VideoLlamaProcessor

ProblemKind = Literal[
    "unusable line", "missing media", "broken media", "wrong stretch", "too long", "repeated id", "repeated sample"
]
LATE_SECONDS = 0.5
"""A stretch may end so much after its file: annotations are rounded."""


@dataclass(frozen=True)
class Problem:
    """Why the sample of a line is bad, in one line."""

    line: int
    kind: ProblemKind
    reason: str


@dataclass
class Report:
    """What is in a file of samples.

    Attributes:
        file: its path.
        samples: lines with a sample, good or bad.
        bad_samples: how many have a problem.
        messages: of all samples that can be read.
        media: pieces of media by kind as found ("video", "image", "audio"), each piece of a sample counted.
        files: media files that were looked at.
        with_sound: pieces of media in which there is something to hear.
        seconds: of each piece of media that has a length, what is shown of it.
        tokens: of each sample, the whole conversation with its clips.
        context_tokens: how many a sample may have, by the model.
        problems: all of them, by line.
        notes: (line, sentence) about media that can be used, but not wholly.
    """

    file: str
    samples: int = 0
    bad_samples: int = 0
    messages: int = 0
    media: Counter[str] = field(default_factory=Counter)
    files: int = 0
    with_sound: int = 0
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    context_tokens: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: numbers of distributions, not each value."""
        return {
            "file": self.file,
            "samples": self.samples,
            "bad_samples": self.bad_samples,
            "messages": self.messages,
            "media": dict(sorted(self.media.items())),
            "files": self.files,
            "with_sound": self.with_sound,
            "seconds": spread(self.seconds),
            "tokens": spread(self.tokens),
            "context_tokens": self.context_tokens,
            "problems_by_kind": dict(sorted(Counter(problem.kind for problem in self.problems).items())),
            "problems": [asdict(problem) for problem in self.problems],
            "notes": [{"line": line, "note": note} for line, note in self.notes],
        }

    def lines(self) -> list[str]:
        """For a person: the problems, then the numbers."""
        told = [f"line {problem.line}: {problem.kind}: {problem.reason}" for problem in self.problems]
        told += [f"line {line}: note: {note}" for line, note in self.notes]
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.media.items())) or "none"
        told.append(f"samples: {self.samples:,} with {self.messages:,} messages")
        told.append(f"media: {kinds}; {self.with_sound:,} with sound; {self.files:,} files")
        for name, values, unit in (("length", self.seconds, " s"), ("tokens", self.tokens, "")):
            if numbers := spread(values):
                told.append(
                    f"{name}: {numbers['smallest']:,.4g} to {numbers['largest']:,.4g}{unit}, median "
                    f"{numbers['median']:,.4g}{unit}, 95 % up to {numbers['percentile_95']:,.4g}{unit}, together "
                    f"{numbers['sum']:,.6g}{unit}"
                )
        by_kind = Counter(problem.kind for problem in self.problems)
        why = f" ({', '.join(f'{count:,} {kind}' for kind, count in sorted(by_kind.items()))})" if by_kind else ""
        told.append(f"bad: {self.bad_samples:,} of {self.samples:,}{why}")
        return told


def spread(values: Sequence[float]) -> dict[str, float]:
    """A distribution in a few numbers; nothing for no values."""
    if not values:
        return {}
    return {
        "count": len(values), "sum": float(sum(values)), "smallest": min(values), "largest": max(values),
        "mean": statistics.fmean(values), "median": float(np.median(values)),
        "percentile_95": float(np.percentile(values, 95)),
    }  # fmt: skip


@dataclass(frozen=True)
class _File:
    """A media file as far as it matters here: what went wrong with it, or a clip of a few bytes in its place."""

    clip: Clip | None
    error: MediaError | None = None


class _Files:
    """Media files, each decoded once, by several threads."""

    def __init__(self, pool: ThreadPoolExecutor, processor: VideoLlamaProcessor) -> None:
        self._pool = pool
        self._frames = FrameSampling(**processor.frame_sampling)
        self._sound = SoundSampling(**processor.sound_sampling)
        self._found: dict[str, Future[_File]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def look(self, media: Media) -> Future[_File]:
        if media.path not in self._found:
            self._found[media.path] = self._pool.submit(self._decode, media)
        return self._found[media.path]

    def _decode(self, media: Media) -> _File:
        try:
            if media.is_url:
                with tempfile.TemporaryDirectory() as folder:
                    clip = self._open(fetched(media, Path(folder) / Path(shown(media.path)).name[-100:]))
            else:
                clip = self._open(Path(media.path))
        except DataError as error:
            return _File(None, MediaNotFoundError(str(error)))
        except MediaError as error:
            return _File(None, error)
        frames = clip.frames
        if frames is not None:
            frames = Frames(np.zeros((len(frames), 1, 1, 3), np.uint8), frames.seconds, frames.duration_seconds)
        waves = None if clip.waveforms is None else (Waveform(np.zeros((1, 1), np.float32), 16000),)
        return _File(replace(clip, frames=frames, waveforms=waves))

    def _open(self, path: Path) -> Clip:
        return open_clip(path, frames=self._frames, sound=self._sound)


def _ahead(
    samples: JsonlSamples, files: _Files, most: int
) -> Iterator[tuple[Sample | UnusableSampleError, list[Future[_File]]]]:
    """Sample, or why it is none, and its media being decoded: so many samples ahead, in order."""
    waiting: deque[tuple[Sample | UnusableSampleError, list[Future[_File]]]] = deque()
    for index in range(len(samples)):
        try:
            sample = samples[index]
            waiting.append((sample, [files.look(one) for one in sample.media.values()]))
        except UnusableSampleError as error:
            waiting.append((error, []))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def _line_numbers(path: Path) -> array[int]:
    """The line of each sample, from 1: those that are not blank."""
    with path.open("rb") as file:
        return array("Q", (number for number, line in enumerate(file, 1) if not line.isspace()))


def _judge(
    line: int,
    sample: Sample | UnusableSampleError,
    media: list[Future[_File]],
    processor: VideoLlamaProcessor,
    report: Report,
    ids: dict[str, int],
    contents: dict[bytes, int],
) -> list[Problem]:
    """What is wrong with a sample; counts it into the report."""
    if isinstance(sample, UnusableSampleError):
        return [Problem(line, "unusable line", str(sample))]
    problems: list[Problem] = []
    clips: dict[str, Clip] = {}
    digest = hashlib.sha256()
    report.messages += len(sample.messages)
    for (name, one), future in zip(sample.media.items(), media, strict=True):
        file = future.result()
        clip = file.clip
        if clip is None:
            kind: ProblemKind = "missing media" if isinstance(file.error, MediaNotFoundError) else "broken media"
            problems.append(Problem(line, kind, str(file.error)))
            continue
        start, end = one.start_seconds or 0.0, one.end_seconds
        if clip.kind != "image":
            last = clip.duration_seconds if end is None else min(end, clip.duration_seconds)
            if start >= clip.duration_seconds or (end or 0.0) > clip.duration_seconds + LATE_SECONDS:
                reason = f"{clip.name} lasts {clip.duration_seconds:.2f} s, but {start:g} to {end} s are asked of it"
                problems.append(Problem(line, "wrong stretch", reason))
                continue
            report.seconds.append(last - start)
        report.media[clip.kind] += 1
        report.with_sound += bool(clip.waveforms)
        report.notes += [(line, f"{clip.name}: {note}") for note in clip.notes]
        clips[name] = clip
        digest.update(f"{clip.content_hash} {start} {end}\n".encode())
    if (first := ids.setdefault(sample.id, line)) != line:
        problems.append(Problem(line, "repeated id", f"{sample.id!r} is the id of line {first}, too"))
    if len(clips) < len(sample.media):
        return problems
    for message in sample.messages:
        digest.update(f"{message.role}\n{message.text}\n\0".encode("utf-8", "surrogatepass"))
    if (first := contents.setdefault(digest.digest(), line)) != line:
        problems.append(Problem(line, "repeated sample", f"the same media and words as in line {first}"))
    try:
        tokens = len(processor.render(sample.messages, clips, add_generation_prompt=False).input_ids)
    except ValueError as error:
        problems.append(Problem(line, "unusable line", " ".join(str(error).split())))
        return problems
    report.tokens.append(tokens)
    if tokens > report.context_tokens:
        reason = f"{tokens:,} tokens, the model's context has {report.context_tokens:,}"
        problems.append(Problem(line, "too long", reason))
    return problems


def validate(
    file: str | Path, *, model: str | Path = "tiny", workers: int | None = None, progress: bool | None = None
) -> Report:
    """Look over a file of samples.

    Args:
        file: JSONL of our own schema.
        model: whose tokens count, and whose choice of frames is decoded.
        workers: files decoded at once; None: as many as processors.
        progress: show a bar; None: where stderr is a terminal.

    Raises:
        DataError: the file cannot be read or holds nothing.
        ModelNotFoundError: there is no such model.
    """
    from tqdm import tqdm

    from videollm.models import hub

    if workers is not None and workers < 1:
        raise DataError(f"media are decoded by at least 1 worker, found {workers}; leave it out for all processors")
    workers = workers or os.cpu_count() or 1
    samples = JsonlSamples(file)
    numbers = _line_numbers(Path(file))
    folder = hub.find(model)
    processor = hub.read_processor(folder)
    report = Report(str(file), context_tokens=int(hub.read_config(folder).text_config.max_position_embeddings))
    ids: dict[str, int] = {}
    contents: dict[bytes, int] = {}
    disable = None if progress is None else not progress
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(samples), desc="samples", disable=disable) as bar:
        files = _Files(pool, processor)
        try:
            looked = _ahead(samples, files, 4 * workers)
            for line, (sample, media) in zip(numbers, looked, strict=True):
                found = _judge(line, sample, media, processor, report, ids, contents)
                report.samples += 1
                report.bad_samples += bool(found)
                report.problems += found
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        report.files = len(files)
    return report


def draw(report: Report, path: str | Path) -> Path:
    """Draw a report's distributions as a PNG; its path.

    Raises:
        DataError: the picture cannot be written.
    """
    try:
        draw_histograms(path, {"length of media (s)": report.seconds, "tokens of a sample": report.tokens})
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot write the picture {path}: {reason}; name another with --picture") from None
    return Path(path)
