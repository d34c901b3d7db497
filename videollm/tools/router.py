"""The one way to a tool: a name and arguments are checked, the tool is run within limits, its findings are made data.

Tools read files that the caller names them, under the names that the caller gives them, and the videos of one index;
an argument can only ever be one of these names. Whatever is wrong with a call is a refusal in words, which a model can
read; it is never an exception.
"""

from __future__ import annotations

import math
import os
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_type_hints

from videollm.chat.calls import Evidence, Outcome
from videollm.errors import ConfigError, MissingDependencyError, MomentIndexError, VideoLLMError
from videollm.media.decode_worker import inspect_clip
from videollm.media.source import Limits
from videollm.moments.embed import SightEncoder
from videollm.moments.moment import Found
from videollm.moments.store import MomentStore
from videollm.tools.chapters import chapters, chapters_of_moments
from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew, IndexSettings, index
from videollm.tools.listen import listen
from videollm.tools.locate import locate
from videollm.tools.look import in_words, look
from videollm.tools.narrate import LONG_FILE, Narration, Progress, clock, narrate
from videollm.tools.narrators import QUESTION, ChatNarrator, Narrator
from videollm.tools.search import search, told
from videollm.toolset import DECLARATIONS

LONGEST_TEXT_CHARACTERS = 300
"""Of an argument in words."""
SEARCH_HITS = 5
OWN_WINDOWS = IndexSettings(window_seconds=8.0, stride_seconds=4.0, cuts=True)
"""Of an index of files that were given: shots. Narrations tell of shots, too, each once."""

_NO_WORDS = re.compile(r"(?:^|\s)(?:/|~[/\\]|\\\\|\.\.?[/\\])|\w+://|[a-zA-Z]:\\")
"""A path or an address, where words are asked for."""


@dataclass(frozen=True)
class ToolLimits:
    """What calls may cost.

    Attributes:
        calls_per_turn: how often a model may call while it answers one question.
        seconds_per_call: a call ends then, with what it has found so far.
        output_characters: of one call; what is longer is cut, and says so.

    Raises:
        ConfigError: a value out of its range.
    """

    calls_per_turn: int = 4
    seconds_per_call: float = 60.0
    output_characters: int = 2000

    def __post_init__(self) -> None:
        if self.calls_per_turn < 0 or self.output_characters < 40 or not 0 < self.seconds_per_call < math.inf:
            raise ConfigError(
                "tools may be called 0 times a turn or more, for more than 0 seconds, and may say 40 characters or "
                f"more; found {self}"
            )


class Router:
    """The tools of all sessions of one model.

    Args:
        narrator: tells what happens, for narrate and chapters.
        looker, listener: tell what is seen and heard, for look, listen and search; None: the narrator.
        encoder: the dual encoder that the index was made with; None: search goes by words.
        index: what is searched; None: the files of a call, which are indexed when they are first searched.
        limits: what calls may cost.
        files_limits: what reading a file may cost.
    """

    def __init__(
        self,
        narrator: Narrator,
        *,
        looker: Narrator | None = None,
        listener: Narrator | None = None,
        encoder: SightEncoder | None = None,
        index: MomentStore | None = None,
        limits: ToolLimits | None = None,
        files_limits: Limits = LONG_FILE,
    ) -> None:
        self.narrator, self.encoder, self.index = narrator, encoder, index
        self.looker, self.listener = looker or narrator, listener or narrator
        self.limits = limits or ToolLimits()
        wall = min(files_limits.wall_seconds, self.limits.seconds_per_call)
        self.files_limits = replace(files_limits, wall_seconds=wall)
        self._own_index: TemporaryDirectory[str] | None = None
        self._own_files: set[Path] = set()
        self._tools: dict[str, Callable[..., Outcome]] = {
            "narrate": self._narrate,
            "search": self._search,
            "look": self._look,
            "listen": self._listen,
            "chapters": self._chapters,
        }

    @classmethod
    def of_model(cls, model: Any, processor: Any, **options: Any) -> Router:
        """The tools of a chat model, which tells itself what it sees and hears."""
        chat = ChatNarrator(model, processor, question=QUESTION)
        return cls(chat, looker=chat.asking(LOOK_QUESTION), listener=chat.asking(LISTEN_QUESTION), **options)

    @property
    def calls_per_turn(self) -> int:
        return self.limits.calls_per_turn

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """JSON schemas of all tools, as chat templates and other services take them."""
        from transformers.utils.chat_template_utils import get_json_schema

        return [get_json_schema(declaration) for declaration in DECLARATIONS]

    def close(self) -> None:
        """Takes the index of files that were searched from the disk."""
        if self._own_index is not None:
            self._own_index.cleanup()
            self._own_index, self._own_files = None, set()

    def prune(self) -> None:
        """Takes what was told of files that are gone out of this router's own index; every call does so, too."""
        gone = {file for file in self._own_files if not file.exists()}
        self._own_files -= gone
        if not gone:
            return
        with suppress(MomentIndexError, MissingDependencyError):  # it could not be made: nothing was stored
            store = MomentStore.open(self._own_place)
            for file in gone:
                store.remove(str(file))
            store.tidy()

    def prepare(self, files: Sequence[Path], progress: Callable[[Path], Progress] | None = None) -> None:
        """Makes files searchable, without a limit of time: long videos take a while.

        Raises:
            MediaError: none of them can be read.
        """
        self._store_of(list(files), progress)

    def stretches(self, words: str, file: Path, limit: int = 20) -> list[tuple[float, float]]:
        """Where in a file, which the index holds or which was prepared, that is which a question asks about; the best
        first.
        """
        store = self.index
        if store is None:
            store = MomentStore.open(self._own_place) if self._own_index is not None else self._store_of([file], None)
        path = str(file.resolve())

        def find(said: str, within: tuple[float, float] | None, most: int) -> list[Found]:
            return search(store, said, encoder=self.encoder, paths=[path], between_seconds=within, limit=most)

        return locate(store, path, words, find, limit)

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        *,
        stopped: Callable[[], bool] = lambda: False,
        shows: bool = False,
    ) -> Outcome:
        """Carries out a call.

        Args:
            name: of a tool.
            arguments: of the tool, by name; all of them and no others, of exactly the declared types.
            files: the videos and sounds that can be named, beside those of the index.
            stopped: is asked from time to time; once it says so, the call ends.
            shows: the caller can show clips to a model: look and listen then give the clip itself, instead of words.

        Returns:
            what was found, or a refusal. Never raises for what is asked, nor for files that cannot be read.
        """
        deadline = _Deadline(stopped, self.limits.seconds_per_call)
        names = self.names(files)
        try:
            self.prune()
            checked = _checked(name, arguments, names)
            return self._tools[name](names, deadline, shows, **checked)
        except _Ended as ended:
            return Outcome(f"{name if name in self._tools else 'the call'} was ended: {ended}", refused=True)
        except VideoLLMError as error:
            return Outcome(as_data(str(error)), refused=True)

    def names(self, files: Mapping[str, Path]) -> dict[str, Path]:
        """The videos that a call can name: the caller's files, and those of the index by their file names."""
        names = dict(files)
        known = {path.resolve() for path in files.values()}
        for video in self.index.videos() if self.index is not None else ():
            path = Path(video.path)
            if path in known:
                continue
            name, number = as_data(path.name), 2
            while name in names:
                name, number = f"{as_data(path.name)} ({number})", number + 1
            names[name] = path
        return names

    def _narrate(
        self,
        names: Mapping[str, Path],
        deadline: _Deadline,
        shows: bool,
        *,
        video: str,
        start_seconds: float,
        end_seconds: float,
    ) -> Outcome:
        start_seconds, end_seconds = self._stretch(names[video], start_seconds, end_seconds)
        found: list[Narration] = []
        note = ""
        try:
            for one in narrate(
                names[video],
                self.narrator,
                start_seconds=start_seconds,
                end_seconds=end_seconds,
                window_seconds=OWN_WINDOWS.window_seconds,
                cuts=OWN_WINDOWS.cuts,
                limits=self.files_limits,
                progress=lambda *_: deadline.check(),
            ):
                found.append(one)
        except _Ended as ended:
            if not found:
                raise
            note = f"({ended}: told up to {clock(found[-1].end_seconds)})"
        lines = [as_data(str(one)) for one in found] or ["nothing was told of this stretch"]
        used = tuple(Evidence(video, one.start_seconds, one.end_seconds, "narrated") for one in found)
        return self._outcome(lines, used, note)

    def _search(self, names: Mapping[str, Path], deadline: _Deadline, shows: bool, *, query: str) -> Outcome:
        by_path = {str(path.resolve()): name for name, path in names.items()}
        store = self.index if self.index is not None else self._indexed(list(names.values()), deadline)
        paths = None if self.index is not None else list(by_path)
        hits = search(store, query, encoder=self.encoder, paths=paths, limit=SEARCH_HITS)
        hits = [hit for hit in hits if hit.path in by_path]
        lines = [as_data(told(hit, by_path[hit.path])) for hit in hits] or ["nothing fits these words"]
        used = tuple(Evidence(by_path[hit.path], hit.start_seconds, hit.end_seconds, "retrieved") for hit in hits)
        return self._outcome(lines, used)

    def _look(
        self,
        names: Mapping[str, Path],
        deadline: _Deadline,
        shows: bool,
        *,
        video: str,
        start_seconds: float,
        end_seconds: float,
    ) -> Outcome:
        start_seconds, end_seconds = self._stretch(names[video], start_seconds, end_seconds)
        clip = look(names[video], self.looker, start_seconds, end_seconds, self.files_limits)
        if clip.frames is None:
            return Outcome(f"{video} has no pictures there; listen instead", refused=True)
        deadline.check()
        line = f"{video} [{clock(start_seconds)}-{clock(end_seconds)}] {len(clip.frames)} frames"
        if not shows:
            line += f": {in_words(clip, self.looker)}"
        used = (Evidence(video, start_seconds, end_seconds, "seen"),)
        return replace(self._outcome([as_data(line)], used), clip=clip if shows else None)

    def _listen(
        self,
        names: Mapping[str, Path],
        deadline: _Deadline,
        shows: bool,
        *,
        video: str,
        start_seconds: float,
        end_seconds: float,
    ) -> Outcome:
        start_seconds, end_seconds = self._stretch(names[video], start_seconds, end_seconds)
        clip = listen(names[video], self.listener, start_seconds, end_seconds, self.files_limits)
        deadline.check()
        line = f"{video} [{clock(start_seconds)}-{clock(end_seconds)}] its sound"
        if not shows:
            line += f": {in_words(clip, self.listener)}"
        used = (Evidence(video, start_seconds, end_seconds, "heard"),)
        return replace(self._outcome([as_data(line)], used), clip=clip if shows else None)

    def _chapters(self, names: Mapping[str, Path], deadline: _Deadline, shows: bool, *, video: str) -> Outcome:
        path = str(names[video].resolve())
        stored = [] if self.index is None else self.index.moments(path)
        if stored:
            found = chapters_of_moments(stored)
        else:
            found = chapters(
                names[video], self.narrator, limits=self.files_limits, progress=lambda *_: deadline.check()
            )
        # Numbered, so that whoever is asked about the second part need not count lines.
        lines = [as_data(f"part {number} {part}") for number, part in enumerate(found, 1)]
        lines = lines or ["nothing was told of this video"]
        used = tuple(Evidence(video, part.start_seconds, part.end_seconds, "narrated") for part in found)
        return self._outcome(lines, used)

    # -- small parts -----------------------------------------------------------------------------------------------

    def _stretch(self, path: Path, start: float, end: float) -> tuple[float, float]:
        """A stretch that the file has; an end behind the file's is the file's."""
        lasts = inspect_clip(path, limits=self.files_limits).duration_seconds
        if lasts and start >= lasts:
            raise ConfigError(f"the stretch starts at {start:g} s, the video lasts {lasts:.1f} s; start earlier")
        return start, min(end, lasts) if lasts else end

    def _indexed(self, files: list[Path], deadline: _Deadline) -> MomentStore:
        """An index of the files of a call, made when they are first searched."""
        if not files:
            raise ConfigError("there is no video to search; add one first")
        advice = "make an index of long videos first (videollm index), and search in it"
        return self._store_of(files, lambda _: lambda *__: deadline.check(advice))

    @property
    def _own_place(self) -> str:
        if self._own_index is None:
            self._own_index = TemporaryDirectory(prefix="videollm-index-")
        return os.path.join(self._own_index.name, "index")

    def _store_of(self, files: list[Path], progress: Callable[[Path], Progress] | None) -> MomentStore:
        """This router's own index, brought up to date with files."""
        place = self._own_place
        crew = Crew(self.looker, None if self.listener.sound is None else self.listener, self.encoder)
        # Before: of a call that is ended midway, some files may be stored.
        self._own_files.update(file.resolve() for file in files)
        done = index(files, place, crew, OWN_WINDOWS, limits=self.files_limits, progress=progress)
        if done.failed and not (done.stored or done.unchanged):
            raise ConfigError(done.failed[0][1])
        return MomentStore.open(place)

    def _outcome(self, lines: list[str], used: tuple[Evidence, ...], note: str = "") -> Outcome:
        """Findings, a line each, as many as there is room for; the first is cut rather than left out."""
        room = self.limits.output_characters - len(note) - 20
        kept = [lines[0] if len(lines[0]) <= room else lines[0][: max(room, 1)] + "..."]
        room -= len(kept[0])
        for line in lines[1:]:
            room -= len(line) + 1
            if room < 0:
                break
            kept.append(line)
        rest = f"({len(lines) - len(kept)} more)" if len(kept) < len(lines) else ""
        return Outcome("\n".join(filter(None, (*kept, note, rest))), used[: len(kept)])


class _Ended(Exception):
    """A call that took too long, or was stopped."""


class _Deadline:
    """When a call must end."""

    def __init__(self, stopped: Callable[[], bool], seconds: float) -> None:
        self._stopped, self._seconds, self._end = stopped, seconds, time.monotonic() + seconds

    def check(self, advice: str = "") -> None:
        if self._stopped():
            raise _Ended("it was stopped")
        if time.monotonic() > self._end:
            raise _Ended(f"a call may take {self._seconds:g} s" + (f"; {advice}" if advice else ""))


def _checked(name: str, arguments: Mapping[str, Any], names: Mapping[str, Path]) -> dict[str, Any]:
    """The arguments of a call that is allowed.

    Raises:
        ConfigError: why it is not.
    """
    declaration = next((one for one in DECLARATIONS if one.__name__ == name), None)
    if declaration is None:
        there = ", ".join(one.__name__ for one in DECLARATIONS)
        raise ConfigError(f"there is no tool {_quoted(name)}; there are {there}")
    types = {key: kind for key, kind in get_type_hints(declaration).items() if key != "return"}
    unknown, missing = [key for key in arguments if key not in types], [key for key in types if key not in arguments]
    if unknown or missing:
        found = ", ".join(map(_quoted, arguments)) or "none"
        raise ConfigError(f"{name} takes {', '.join(types)}; found {found}")
    checked: dict[str, Any] = {}
    for key, kind in types.items():
        value = arguments[key]
        if kind is float:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"{key} is a number of seconds, found {_quoted(value)}")
            checked[key] = float(value)
        elif not isinstance(value, str):
            raise ConfigError(f"{key} is text, found {_quoted(value)}")
        else:
            checked[key] = value
    if "video" in checked and checked["video"] not in names:
        there = ", ".join(map(_quoted, names)) or "none yet"
        raise ConfigError(f"there is no video {_quoted(checked['video'])} here; there are {there[:500]}")
    if "start_seconds" in checked and not 0 <= checked["start_seconds"] < checked["end_seconds"]:
        raise ConfigError(
            f"a stretch starts at 0 or later and ends after that, found {checked['start_seconds']:g} to "
            f"{checked['end_seconds']:g}"
        )
    if "query" in checked:
        query = as_data(checked["query"])
        if not query or len(query) > LONGEST_TEXT_CHARACTERS:
            raise ConfigError(f"a query has 1 to {LONGEST_TEXT_CHARACTERS} characters, found {len(query)}")
        if _NO_WORDS.search(query):
            raise ConfigError("a query says in words what is seen or heard; found a path or an address")
        checked["query"] = query
    return checked


def as_data(text: str) -> str:
    """Text of a stranger as one line: no line breaks, nothing that commands a terminal or hides."""
    kept = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(kept.split())


def _quoted(value: object) -> str:
    return repr(as_data(str(value))[:80])
