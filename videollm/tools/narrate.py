"""Narration: what happens in a video of any length, as sentences with their times.

A video is cut into windows; a narrator says what happens in each; where several sentences were drawn, a dual encoder
keeps those that fit; neighbouring windows of which the same is said become one span; a rephraser may say it in other
words. At any time a batch of windows is in memory, and nothing else that grows with the video but the sentences.

Source: Zhao et al., "LaViLa" (2022), section 3 and appendix (drawn candidates, threshold on the similarity, rephraser).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videollm.errors import ConfigError, MediaUnreadableError, VideoLLMError
from videollm.media.decode_worker import OpenWindows, open_windows
from videollm.media.source import DEFAULT_LIMITS, STILL, Limits, open_source, sniff
from videollm.media.windows import Window, WindowSampling
from videollm.media.write import atomic
from videollm.tools.journal import Journal
from videollm.tools.subtitles import Cue, srt, vtt

if TYPE_CHECKING:
    from videollm.models.lavila import Rephraser
    from videollm.tools.narrators import DualEncoderScorer, Narrator

PUBLISHED_THRESHOLD = 0.5
REPHRASINGS = 3
"""Of each sentence, as published."""
REPHRASED_AT_ONCE = 8
LONG_FILE = replace(DEFAULT_LIMITS, file_bytes=256 * 1024**3, wall_seconds=600.0, cpu_seconds=600.0)
"""A film may be large; the times are for one window, and for the first look at the file."""
LEAST_PIXEL_BYTES = 8 * 1024**2
"""Of one window, however many are narrated at once."""
SUFFIXES = (".jsonl", ".srt", ".vtt")

Report = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with the number of windows that are done, and of all."""


@dataclass(frozen=True)
class Narration:
    """A sentence and the time of which it tells.

    Attributes:
        start_seconds, end_seconds: in the video, to the millisecond.
        text: the words.
        similarity: the cosine similarity that the dual encoder finds between words and window; None without one.
        perplexity: the narrator's own score, see `videollm.tools.narrators.Sentence`.
        others: further sentences for the same window that were kept, best first.
        rephrased: the same in other words, best first.
    """

    start_seconds: float
    end_seconds: float
    text: str
    similarity: float | None = None
    perplexity: float | None = None
    others: tuple[str, ...] = ()
    rephrased: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For example ``[0:12-0:16] a red circle moves left``."""
        text = self.rephrased[0] if self.rephrased else self.text
        return f"[{clock(self.start_seconds)}-{clock(self.end_seconds)}] {text}"

    def to_json(self) -> dict[str, Any]:
        """Plain data; what there is none of is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != ()}


@dataclass(frozen=True)
class NarrationSettings:
    """How a video is narrated.

    Attributes:
        window_seconds: length of a window; the last one may be shorter.
        stride_seconds: from the start of one window to the start of the next; None: the length. Where windows overlap,
            each tells of the time up to the middle of the overlap.
        start_seconds, end_seconds: the stretch of the video that is narrated; None: to its end.
        candidates: sentences drawn for each window; 1 is greedy. Several need a scorer.
        top_k: how many of them are kept, best first.
        threshold: the least similarity of what is kept; None: 0.5, as published. Only with a scorer.
        repeats: from which likeness on, 0 to 1, neighbouring sentences are one: the share of words that are the same
            and in the same order, apart from articles, punctuation and capitals.
        batch_windows: how many windows are narrated at once.
        seed: of drawing.
        cuts: windows end at cuts, too, so that each shot is told by itself; only longer ones are cut into several.

    Raises:
        ConfigError: a value out of its range.
    """

    window_seconds: float = 4.0
    stride_seconds: float | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    candidates: int = 1
    top_k: int = 1
    threshold: float | None = None
    repeats: float = 1.0
    batch_windows: int = 8
    seed: int = 0
    cuts: bool = False

    def __post_init__(self) -> None:
        for name in ("window_seconds", "stride_seconds"):
            value = getattr(self, name)
            if value is not None and not 0.05 <= value < math.inf:
                what = name.removesuffix("_seconds")
                raise ConfigError(f"the {what} must be at least 0.05 seconds, found {value:g}; the default is 4")
        if not 0 <= self.start_seconds < (math.inf if self.end_seconds is None else self.end_seconds):
            raise ConfigError(
                f"what is narrated starts at 0 or later and ends after that, found {self.start_seconds:g} to "
                f"{'the end' if self.end_seconds is None else format(self.end_seconds, 'g')}; correct one of them"
            )
        for name in ("candidates", "top_k", "batch_windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name.replace('_', ' ')} must be at least 1, found {getattr(self, name)}")
        if self.top_k > self.candidates:
            raise ConfigError(f"{self.top_k} of {self.candidates} candidates cannot be kept; ask for more candidates")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ConfigError(f"the threshold is a cosine similarity from -1 to 1, found {self.threshold:g}")
        if not 0 < self.repeats <= 1:
            raise ConfigError(f"repeats is a likeness above 0 and at most 1, found {self.repeats:g}")
        if self.seed < 0:
            raise ConfigError(f"the seed must be at least 0, found {self.seed}")

    def windows(self, narrator: Narrator, first: int = 0) -> WindowSampling:
        """What the narrator is shown of a file."""
        return WindowSampling(
            length_seconds=self.window_seconds,
            stride_seconds=self.stride_seconds or self.window_seconds,
            frames=narrator.frames,
            sound=narrator.sound,
            start_seconds=self.start_seconds,
            end_seconds=math.inf if self.end_seconds is None else self.end_seconds,
            first=first,
            cuts=self.cuts,
        )


def narrate(
    video: str | Path,
    model: str | Path | Narrator = "tiny",
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    window_seconds: float = 4.0,
    stride_seconds: float | None = None,
    scorer: DualEncoderScorer | None = None,
    rephraser: Rephraser | None = None,
    candidates: int = 1,
    top_k: int = 1,
    threshold: float | None = None,
    repeats: float = 1.0,
    batch_windows: int = 8,
    seed: int = 0,
    cuts: bool = False,
    limits: Limits = LONG_FILE,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Iterator[Narration]:
    """Tell what happens in a video, sentence by sentence, as it is read.

    Args:
        video: a video or sound file of any length.
        model: a name or folder for `videollm.tools.narrators.load_narrator`, or a narrator that is loaded.
        start_seconds, end_seconds: the stretch that is narrated; None: to the end.
        window_seconds, stride_seconds: see `NarrationSettings`, also for what is not said here.
        scorer, rephraser: loaded by `videollm.tools.narrators`; None: none.
        limits: what reading the file may cost.
        progress: called with the number of windows that are done, and of all.
        report: called with sentences for the user about what could not be read.

    Returns:
        an iterator of narrations in the order of their times; the video is read as it is used.

    Raises:
        ConfigError: a setting out of its range, or several candidates without a scorer.
        ModelNotFoundError: no such model.
        MediaError: the video cannot be read.
    """
    from videollm.tools.narrators import load_narrator, question_for

    settings = NarrationSettings(
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        candidates=candidates,
        top_k=top_k,
        threshold=threshold,
        repeats=repeats,
        batch_windows=batch_windows,
        seed=seed,
        cuts=cuts,
    )
    check_settings(settings, scorer)
    narrator = model
    if isinstance(narrator, str | Path):
        narrator = load_narrator(narrator, question=question_for(window_seconds, stride_seconds))
    staff = _Staff(narrator, scorer, rephraser)
    return _narrate(Path(video), staff, settings, None, limits=limits, progress=progress, report=report)


def check_settings(settings: NarrationSettings, scorer: Any) -> None:
    """Raises ConfigError where settings ask for a scorer that is not there."""
    if scorer is None and settings.candidates > 1:
        raise ConfigError(
            f"{settings.candidates} candidates need something that chooses among them; give a scorer, or ask for 1"
        )
    if scorer is None and settings.threshold is not None:
        raise ConfigError("a threshold needs a scorer, whose similarities it is for; give a scorer, or leave it out")


@dataclass(frozen=True)
class _Staff:
    """Those who work on a video."""

    narrator: Narrator
    scorer: DualEncoderScorer | None
    rephraser: Rephraser | None


def _narrate(
    video: Path,
    staff: _Staff,
    settings: NarrationSettings,
    journal: Journal | None,
    *,
    limits: Limits = LONG_FILE,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Iterator[Narration]:
    """Narrations of a video; what a journal holds of it is not computed again, what it lacks is added to it."""
    # All windows of a batch are in memory at once: they share what one clip may take.
    limits = replace(limits, pixel_bytes=max(limits.pixel_bytes // settings.batch_windows, LEAST_PIXEL_BYTES))
    entries = [] if journal is None else journal.entries
    batches = [entry for entry in entries if "windows" in entry]
    first = batches[-1]["next"] if batches else 0
    with open_windows(video, settings.windows(staff.narrator, first), limits=limits) as opened:
        if opened.file.kind == "audio" and staff.narrator.sound is None:
            raise MediaUnreadableError(
                f"{opened.file.name}: this is a sound, and the narrator has no ear; give a video"
            )
        if report is not None:
            for note in opened.file.notes:
                report(f"{opened.file.name}: {note}")

        def batch_by_batch() -> Iterator[dict[str, Any]]:
            total = len(opened.file.spans)
            if progress is not None:
                progress(first, total)
            yield from batches
            for batch in _describe(opened, staff, settings, report):
                if journal is not None:
                    journal.add(batch)
                if progress is not None:
                    progress(batch["next"], total)
                yield batch

        found = (window for batch in batch_by_batch() for window in batch["windows"])
        spans = _merged(_placed(found, opened.file.spans), settings.repeats)
        yield from spans if staff.rephraser is None else _rephrased(spans, staff.rephraser, journal)


# -- windows to sentences ----------------------------------------------------------------------------------------------


def _describe(
    opened: OpenWindows, staff: _Staff, settings: NarrationSettings, report: Report | None
) -> Iterator[dict[str, Any]]:
    """Batches of windows with what is kept of them, as plain data.

    A batch always holds the same windows, wherever a run began, so that it gets the same sentences to the last bit.
    """
    from videollm.models.memory import give_memory_back

    total = len(opened.file.spans)
    size = settings.batch_windows
    told: set[str] = set()
    for number, group in groupby(opened, key=lambda window: window.index // size):
        windows = list(group)
        give_memory_back()
        for window in windows:
            for note in window.clip.notes:
                if report is None or note in told:
                    continue
                told.add(note)
                report(f"{opened.file.name}, from {clock(window.start_seconds)}: {note}")
        kept = _sentences(windows, staff, settings, number)
        found = [{"window": w.index, "kept": said} for w, said in zip(windows, kept, strict=True) if said]
        yield {"next": min((number + 1) * size, total), "windows": found}


def _sentences(
    windows: Sequence[Window], staff: _Staff, settings: NarrationSettings, number: int
) -> list[list[dict[str, Any]]]:
    """Of each window what is kept of its sentences, best first."""
    clips = [window.clip for window in windows]
    said = staff.narrator.describe(clips, settings.candidates, _seed_of(settings.seed, number))
    # The same words drawn twice are one candidate.
    distinct = [list({one.text: one for one in reversed(some) if one.text.strip()}.values())[::-1] for some in said]
    if staff.scorer is None:
        return [[_kept(one.text, None, one.perplexity) for one in some] for some in distinct]
    least = PUBLISHED_THRESHOLD if settings.threshold is None else settings.threshold
    scores = staff.scorer.similarities(clips, [[one.text for one in some] for some in distinct])
    found = []
    for some, each in zip(distinct, scores, strict=True):
        rows = [_kept(one.text, score, one.perplexity) for one, score in zip(some, each, strict=True)]
        # What the scorer cannot see (a window of sound alone) it does not judge.
        rows = [row for row in rows if row.get("similarity", 1.0) >= least]
        found.append(sorted(rows, key=lambda row: -row.get("similarity", 1.0))[: settings.top_k])
    return found


def _kept(text: str, similarity: float | None, perplexity: float | None) -> dict[str, Any]:
    row = {"text": " ".join(text.split()), "similarity": similarity, "perplexity": perplexity}
    return {name: value for name, value in row.items() if value is not None}


def _seed_of(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big")


# -- sentences to spans ------------------------------------------------------------------------------------------------

_TIMED = re.compile(r"(?:^|(?<=\s))(\d+(?:\.\d+)?) s: ")


def _placed(found: Iterable[dict[str, Any]], spans: Sequence[tuple[float, float]]) -> Iterator[Narration]:
    """Each window's best sentence at the time of which it tells.

    A window tells of the time that is nearer to its middle than to that of its neighbours. An answer that names seconds
    ("0.0 s: this. 2.0 s: that.") is several narrations.
    """
    for window in found:
        index, (best, *others) = window["window"], window["kept"]
        start, end = spans[index]
        low, high = start, end
        if index > 0 and spans[index - 1][1] > start:
            low = (spans[index - 1][1] + start) / 2
        if index + 1 < len(spans) and spans[index + 1][0] < end:
            high = (spans[index + 1][0] + end) / 2
        timed = _TIMED.split(best["text"])
        parts = [(start, best["text"])]
        if len(timed) > 1 and not timed[0]:
            parts = [(start + float(at), text) for at, text in zip(timed[1::2], timed[2::2], strict=True)]
        ends = [*(at for at, _ in parts[1:]), math.inf]
        for (at, text), until in zip(parts, ends, strict=True):
            begins, lasts = max(at, low), min(until, high)
            if text.strip() and lasts > begins:
                yield Narration(
                    round(begins, 3),
                    round(lasts, 3),
                    text.strip(),
                    best.get("similarity"),
                    best.get("perplexity"),
                    tuple(other["text"] for other in others),
                )


def _merged(narrations: Iterable[Narration], repeats: float) -> Iterator[Narration]:
    """Neighbours that say the same become one, in the words of the one that fits best."""
    last: Narration | None = None
    for one in narrations:
        if last is not None and one.start_seconds <= last.end_seconds + 2e-3 and alike(last.text, one.text) >= repeats:
            better = one if (one.similarity or 0.0) > (last.similarity or 0.0) else last
            last = replace(better, start_seconds=last.start_seconds, end_seconds=one.end_seconds)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def alike(a: str, b: str) -> float:
    """The share of words of two sentences that are the same and in the same order, 0 to 1.

    Articles, punctuation, capitals, and LaViLa's marks of who acts ("#C C") do not count.
    """
    first, second = _content(a), _content(b)
    if first == second:
        return 1.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _content(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", re.sub(r"^#\w\s+", "", text.lower()))
    return [word for word in words if word not in ("a", "an", "the")]


def _rephrased(narrations: Iterator[Narration], rephraser: Rephraser, journal: Journal | None) -> Iterator[Narration]:
    """The same with other words; always the same sentences at a time, so that they get the same words."""
    known = [entry["rephrased"] for entry in (journal.entries if journal is not None else []) if "rephrased" in entry]
    while group := list(islice(narrations, REPHRASED_AT_ONCE)):
        if known:
            words = known.pop(0)
        else:
            words = rephraser.rephrase([one.text for one in group], REPHRASINGS)
            if journal is not None:
                journal.add({"rephrased": words})
        for one, others in zip(group, words, strict=True):
            yield replace(one, rephrased=tuple(others))


# -- into files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A video and the files that its narration goes into.

    Attributes:
        name: what the video is called in the output.
        targets: files by suffix; of one .jsonl file for several videos, each writes its part.
        journal: what is computed so far, until all is written.
    """

    video: Path
    name: str
    targets: tuple[Path, ...]
    journal: Path


def videos_in(paths: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Files, and those in folders that are videos or sounds by their first bytes, with a name for each.

    Raises:
        ConfigError: a folder without any.
        MediaError: a file that is not there or must not be read.
    """
    found: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        if not path.is_dir():
            open_source(path, LONG_FILE).__exit__()
            found.append((path, path.name))
            continue
        inside = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name[0] != "." and _is_media(f)]
        if not inside:
            raise ConfigError(f"no video in the folder {path}; give another one, or files")
        found += [(file, file.relative_to(path).as_posix()) for file in inside]
    return found


def _is_media(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            kind = sniff(opened.read(4096))
    except OSError:
        return False
    return kind is not None and kind not in STILL


def plan_outputs(videos: Sequence[tuple[Path, str]], out: str | Path) -> list[Job]:
    """Which files the narrations of videos go into.

    Args:
        videos: of `videos_in`.
        out: a .jsonl, .srt or .vtt file; or a folder, which gets all three of every video, and is made if need be.

    Raises:
        ConfigError: another suffix, several videos for one file of subtitles, or a place that cannot be written.
    """
    target = Path(out)
    is_folder = target.is_dir() or not target.suffix or str(out).endswith("/")
    if not is_folder:
        if target.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"narrations cannot be written as {target.name!r}; name a .jsonl, .srt or .vtt file")
        if target.suffix.lower() != ".jsonl" and len(videos) > 1:
            raise ConfigError(f"{target.name} can hold one video, not {len(videos)}; name a folder, or a .jsonl file")
        folder = target.parent
        places = [f".{number}" if len(videos) > 1 else "" for number in range(len(videos))]
        jobs = [
            Job(video, name, (target,), folder / f".{target.name}{place}.unfinished")
            for (video, name), place in zip(videos, places, strict=True)
        ]
        if not folder.is_dir():
            raise ConfigError(f"cannot write {target}: there is no folder {folder}; make it first")
        folders = {folder}
    else:
        stems = [str(Path(name).with_suffix("")) for _, name in videos]
        jobs, folders = [], {target}
        for (video, name), stem in zip(videos, stems, strict=True):
            place = target / (stem if stems.count(stem) == 1 else name)
            targets = tuple(place.with_name(place.name + suffix) for suffix in SUFFIXES)
            jobs.append(Job(video, name, targets, place.with_name(f".{place.name}.unfinished")))
            folders.add(place.parent)
        if len({job.journal for job in jobs}) < len(jobs):
            raise ConfigError(f"two of the videos have the same name, {target} would hold one of them; rename one")
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=is_folder, exist_ok=True)
            with atomic(folder / "narration"):  # the only way to know that files can be made and renamed here
                raise _JustTrying
        except _JustTrying:
            pass
        except OSError as error:
            raise ConfigError(f"cannot write into {folder} ({error.strerror}); choose another place") from None
    for path in {path for job in jobs for path in job.targets if path.is_dir()}:
        raise ConfigError(f"cannot write {path}: it is a folder; choose another name")
    for video in {job.video.resolve() for job in jobs} & {path.resolve() for job in jobs for path in job.targets}:
        raise ConfigError(f"the output {video} is one of the videos; choose another name")
    return jobs


class _JustTrying(Exception):
    """Ends a try without anything written."""


def narrate_files(
    jobs: Sequence[Job],
    narrator: Narrator,
    settings: NarrationSettings,
    *,
    scorer: DualEncoderScorer | None = None,
    rephraser: Rephraser | None = None,
    limits: Limits = LONG_FILE,
    progress: Callable[[Job], Progress] | None = None,
    report: Report | None = None,
) -> list[tuple[Job, VideoLLMError]]:
    """Narrate videos into files. Whatever ends it, the same call goes on where it was, with the same result.

    In a folder, what was narrated in the same way before is left as it is. Files appear whole or not at all.

    Args:
        jobs: of `plan_outputs`.
        progress: gives, for each video, what is told of its progress.
        report: gets sentences for the user.

    Returns:
        the videos that could not be narrated, and why; one alone is raised.
    """
    check_settings(settings, scorer)
    staff, say = _Staff(narrator, scorer, rephraser), report or (lambda _: None)
    failed: list[tuple[Job, VideoLLMError]] = []
    shared = len(jobs) > 1 and len(jobs[0].targets) == 1
    parts: list[tuple[Job, str, list[Narration]]] = []
    for job in jobs:
        try:
            work = _work(job, staff, settings, limits)
            run = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:12]
            if len(job.targets) > 1 and _is_done(job, run):
                say(f"{job.name}: narrated already")
                continue
            with Journal(job.journal, work) as journal:
                if journal.forgot:
                    say(f"{job.name}: starts anew: the file or the settings are not those of the unfinished narration")
                told = progress(job) if progress is not None else None
                try:
                    found = _narrate(job.video, staff, settings, journal, limits=limits, progress=told, report=report)
                    said = list(found)
                except BaseException:
                    if journal.is_empty:
                        journal.remove()
                    raise
                if shared:
                    parts.append((job, run, said))
                    continue
                _write(job.targets, [(job, run, said)])
                journal.remove()
        except VideoLLMError as error:
            if len(jobs) == 1:
                raise
            failed.append((job, error))
            say(str(error))
    if shared and parts:
        _write(jobs[0].targets, parts)
        for job, _, _ in parts:
            job.journal.unlink(missing_ok=True)
    return failed


def _work(job: Job, staff: _Staff, settings: NarrationSettings, limits: Limits) -> dict[str, Any]:
    """All that the result depends on."""
    with open_source(job.video, limits) as source:
        content = source.content_hash()
    rephraser = staff.rephraser
    return {
        "video": job.name,
        "content": content,
        "narrator": staff.narrator.identity,
        "scorer": None if staff.scorer is None else staff.scorer.identity,
        "rephraser": None if rephraser is None else [rephraser.prompt, str(rephraser.model.config._name_or_path)],
        "settings": asdict(settings),
    }


def _is_done(job: Job, run: str) -> bool:
    """Whether the files of a job are there, and were made in the same way."""
    if not all(path.is_file() for path in job.targets):
        return False
    try:
        with job.targets[0].open(encoding="utf-8") as lines:
            return json.loads(next(lines, "null") or "null")["run"] == run
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(targets: Sequence[Path], parts: Sequence[tuple[Job, str, list[Narration]]]) -> None:
    """The .jsonl file is written last: it says that the others are there."""
    for path in sorted(targets, key=lambda path: path.suffix.lower() == ".jsonl"):
        if path.suffix.lower() == ".jsonl":
            lines = [{"video": job.name, **one.to_json(), "run": run} for job, run, said in parts for one in said]
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            cues = [
                Cue(one.start_seconds, one.end_seconds, one.rephrased[0] if one.rephrased else one.text)
                for _, _, said in parts
                for one in said
            ]
            text = srt(cues) if path.suffix.lower() == ".srt" else vtt(cues)
        try:
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise ConfigError(f"cannot write {path} ({error.strerror}); make room, then run it again") from None


def clock(seconds: float) -> str:
    """Seconds for a person: 0:12, 1:02:03, 0:00.5."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    hours, minutes = divmod(whole // 60, 60)
    text = f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
    return f"{text}.{tenth}" if tenth else text
