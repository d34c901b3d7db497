"""One benchmark: what an evaluation file may say, and how it is read. Its ``task`` tells the kinds apart."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from videollm.data.world import SCENE_KINDS
from videollm.errors import ConfigError
from videollm.settings import load_settings

CONDITIONS = ("seen", "triples", "pairs", "new wordings", "no sound", "reversed")


@dataclass(frozen=True)
class WorldBenchmark:
    """A measurement on films of the world, complete on its own.

    Attributes:
        name: of the folder under ``runs/evaluation`` and of the report.
        model: a name or folder for `videollm.models.hub.load`.
        first_film: the number of the first test scene of each kind; none is ever trained on.
        films: how many files of each kind of scene in each split.
        questions: wanted in each cell of the table; where a type of question does not occur often enough in the films,
            the cell has fewer, and says how many.
        kinds: the kinds of scenes (see `videollm.data.world.SCENE_KINDS`).
        conditions: what is measured: "seen" combinations in trained wordings; held-out "triples" and "pairs"; "new
            wordings" of seen combinations; "no sound", the same films with their sound removed; "reversed", with the
            order of their frames turned around.
        max_new_tokens: answers are cut after this many tokens.
        batch_rows: questions answered at once.
        workers: processes, of one thread each.
        films_folder: keep the films there, to look at them or to measure another model on them; None: they are removed.
        task: what is measured.
    """

    name: str
    model: str = "tiny"
    first_film: int = 0
    films: int = 100
    questions: int = 200
    kinds: tuple[str, ...] = SCENE_KINDS
    conditions: tuple[str, ...] = CONDITIONS
    max_new_tokens: int = 96
    batch_rows: int = 192
    workers: int = 2
    films_folder: str | None = None
    task: Literal["world"] = "world"

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 0 <= self.first_film < 9_000_000:
            raise ValueError(f"first_film must be from 0 to 9,000,000, found {self.first_film}")
        for name in ("films", "questions", "max_new_tokens", "batch_rows", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name, known in (("kinds", SCENE_KINDS), ("conditions", CONDITIONS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} has {value!r}; there are {', '.join(known)}{_near(value, known)}")
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name some of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class ToolBenchmark:
    """A measurement of how a chat model calls tools about long films of the world, see `videollm.evaluation.tool_use`.

    Attributes:
        name: of the folder under ``runs/evaluation`` and of the report.
        task: what is measured.
        model: a name or folder for `videollm.models.hub.load`; one that calls tools itself.
        films, seconds: how many films, and how long each is at least.
        first_scene: the number of the first test scene; none is ever trained on.
        questions: that need a tool, of all films together; as many are asked that need none.
        films_folder: keep films and their indexes there, and take those that are there; None: they are removed.
        workers: must be 1: what is measured is a conversation.
    """

    name: str
    task: Literal["tool_use"]
    model: str = "tiny"
    films: int = 4
    seconds: float = 600.0
    first_scene: int = 100_000
    questions: int = 200
    films_folder: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 0 <= self.first_scene < 9_000_000:
            raise ValueError(f"first_scene must be from 0 to 9,000,000, found {self.first_scene}")
        for name in ("films", "questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not 20 <= self.seconds <= 3600:
            raise ValueError(f"films last from 20 to 3600 seconds, found {self.seconds:g}")
        if self.workers != 1:
            raise ValueError(f"conversations are measured one by one: workers must be 1, found {self.workers}")


@dataclass(frozen=True, kw_only=True)
class PublishedBenchmark:
    """A measurement on published videos and annotations. Every task below has these keys beside its own.

    Attributes:
        name: of the folder under ``runs/evaluation`` and of the report.
        task: what is measured.
        model: a folder that ``videollm convert`` or a training run made.
        videos: the folder of the videos.
        annotations: the published file.
        first: only so many items, the first ones; None: all. Scores of a part are not those of the benchmark.
        batch_size: items that the model is given at once.
        workers: files that are read at once, ahead of the model.
        most_left_out: the largest share of items that may be left out because their video is missing or broken, or
            their annotation wrong; above it there are no scores. Published code showed black pictures instead.
    """

    files: ClassVar[tuple[str, ...]] = ("annotations",)

    name: str
    task: str
    model: str
    videos: str
    annotations: str
    first: int | None = None
    batch_size: int = 8
    workers: int = 2
    most_left_out: float = 0.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        for name in ("first", "batch_size", "workers", "frames", "clips", "stride", "every"):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if getattr(self, "crops", 1) not in (1, 3):
            raise ValueError(f"crops are 1 (the middle) or 3, found {getattr(self, 'crops', 1)}")
        if not 0 <= self.most_left_out <= 1:
            raise ValueError(f"most_left_out is a share from 0 to 1, found {self.most_left_out:g}")


@dataclass(frozen=True, kw_only=True)
class MultiInstanceRetrieval(PublishedBenchmark):
    """EPIC-Kitchens-100 multi-instance retrieval by a LaViLa dual encoder: mAP and nDCG.

    Attributes:
        annotations: ``EPIC_100_retrieval_test.csv``.
        sentences: ``EPIC_100_retrieval_test_sentence.csv``.
        relevancies: ``caption_relevancy_EPIC_100_retrieval_test.pkl``.
        frames: of a clip; None: as many as the model was trained with. Others resize its table of times, as published.
    """

    files: ClassVar[tuple[str, ...]] = ("annotations", "sentences", "relevancies")

    task: Literal["multi_instance_retrieval"]  # pyright: ignore[reportIncompatibleVariableOverride]
    sentences: str
    relevancies: str
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class EgoMcq(PublishedBenchmark):
    """EgoMCQ by a LaViLa dual encoder: which of five clips is narrated, within one video and between videos.

    Attributes:
        annotations: ``egomcq.json``.
        frames: see `MultiInstanceRetrieval`.
        unit_vectors: compare directions, as the model was trained; False: as published, where longer vectors win.
    """

    task: Literal["egomcq"]  # pyright: ignore[reportIncompatibleVariableOverride]
    frames: int | None = None
    unit_vectors: bool = True


@dataclass(frozen=True, kw_only=True)
class CharadesEgo(PublishedBenchmark):
    """Charades-Ego by a LaViLa dual encoder: each class ranks all videos; mAP.

    Attributes:
        annotations: ``CharadesEgo_v1_test_only1st.csv``.
        classes: ``Charades_v1_classes.txt``.
        frames: see `MultiInstanceRetrieval`; 16 as published.
        softmax: over the classes of each video before they rank, as the published evaluation of fine-tuned models does,
            which changes the order within a class.
    """

    files: ClassVar[tuple[str, ...]] = ("annotations", "classes")

    task: Literal["charades_ego"]  # pyright: ignore[reportIncompatibleVariableOverride]
    classes: str
    frames: int | None = None
    softmax: bool = False


@dataclass(frozen=True, kw_only=True)
class EpicClassification(PublishedBenchmark):
    """EPIC-Kitchens-100 actions, verbs and nouns: by a LaViLa classifier, or by a dual encoder that never learned them.

    Attributes:
        annotations: ``EPIC_100_validation.csv``.
        occurring: the files whose actions are the classes, in the order of the published classifiers:
            ``EPIC_100_train.csv`` and ``EPIC_100_validation.csv``. Their narrations name a class to a dual encoder.
        templates: what a dual encoder reads of a narration, ``{}`` being the narration; "#C C {}" as Ego4D writes it.
        frames: see `MultiInstanceRetrieval`.
        crops: squares of a clip that are looked at: 1 or 3.
    """

    files: ClassVar[tuple[str, ...]] = ("annotations", "occurring")

    task: Literal["epic_classification"]  # pyright: ignore[reportIncompatibleVariableOverride]
    occurring: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)
    frames: int | None = None
    crops: int = 1


@dataclass(frozen=True, kw_only=True)
class Egtea(PublishedBenchmark):
    """EGTEA Gaze+ actions: by a LaViLa classifier, or by a dual encoder that never learned them; mean class accuracy.

    Attributes:
        annotations: ``test_split1.txt``.
        classes: ``action_idx.txt``.
        frames: of a stretch; None: as many as the model was trained with.
        stride: frames from one to the next within a stretch.
        clips: stretches of a video, evenly spread.
        crops: squares of each: 1 or 3.
    """

    files: ClassVar[tuple[str, ...]] = ("annotations", "classes")

    task: Literal["egtea"]  # pyright: ignore[reportIncompatibleVariableOverride]
    classes: str
    frames: int | None = None
    stride: int = 2
    clips: int = 10
    crops: int = 3


@dataclass(frozen=True, kw_only=True)
class Captions(PublishedBenchmark):
    """Captions of a narrator, LaViLa's or a chat model, against Ego4D's narrations: BLEU, METEOR, ROUGE-L, CIDEr.

    Attributes:
        annotations: ``ego4d_val.pkl``.
        every: only every so many-th stretch, as published scores were made.
        drawn: sentences are drawn, as published (temperature 0.7, top-p 0.95), and not the likeliest words.
        seed: of drawing.
        question: what a chat model is asked; None: as `videollm narrate` asks.
    """

    task: Literal["captions"]  # pyright: ignore[reportIncompatibleVariableOverride]
    every: int = 1
    drawn: bool = False
    seed: int = 0
    question: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParagraphRetrieval(PublishedBenchmark):
    """Videos from paragraphs and paragraphs from videos, by LF-VILA: recall, median and mean rank.

    Attributes:
        format: see `videollm.data.long_form.LongFormAnnotations`.
        frames: of a video; None: as many as the model was trained with.
    """

    task: Literal["paragraph_retrieval"]  # pyright: ignore[reportIncompatibleVariableOverride]
    format: Literal["activitynet_captions", "queryd", "condensed_movies", "didemo"]
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class LongQuestions(PublishedBenchmark):
    """Questions about long videos, by an LF-VILA model of their kind: share of right answers.

    Attributes:
        format: see `videollm.data.long_form.LongFormAnnotations`. Of ``how2qa`` the overlap of the frames found with
            the time of the answer is measured, too.
    """

    task: Literal["long_questions"]  # pyright: ignore[reportIncompatibleVariableOverride]
    format: Literal["how2qa", "violin", "activitynet_qa"]


@dataclass(frozen=True, kw_only=True)
class LongClasses(PublishedBenchmark):
    """Classes of long videos, by an LF-VILA classifier: share of right answers.

    Attributes:
        format: see `videollm.data.long_form.LongFormAnnotations`.
        frames: of a video; None: as many as the model was trained with.
    """

    task: Literal["long_classes"]  # pyright: ignore[reportIncompatibleVariableOverride]
    format: Literal["coin", "lvu"]
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class ParagraphAlignment(PublishedBenchmark):
    """When in a video each sentence of a paragraph happens, by LF-VILA: overlap of the times found and the true ones.

    Attributes:
        annotations: ActivityNet Captions with its times, ``val_1.json``.
        rate_hz: frames a second that are looked at, at most ``most_frames`` of a video.
        frames_per_clip: of each of the video's vectors; None: as in training.
    """

    task: Literal["paragraph_alignment"]  # pyright: ignore[reportIncompatibleVariableOverride]
    rate_hz: float = 1.0
    most_frames: int = 256
    frames_per_clip: int | None = None


Benchmark = WorldBenchmark | ToolBenchmark | PublishedBenchmark
TASKS: dict[str, type[Benchmark]] = {
    "world": WorldBenchmark,
    "multi_instance_retrieval": MultiInstanceRetrieval,
    "egomcq": EgoMcq,
    "charades_ego": CharadesEgo,
    "epic_classification": EpicClassification,
    "egtea": Egtea,
    "captions": Captions,
    "paragraph_retrieval": ParagraphRetrieval,
    "long_questions": LongQuestions,
    "long_classes": LongClasses,
    "paragraph_alignment": ParagraphAlignment,
    "tool_use": ToolBenchmark,
}


def load_benchmark(path: str | Path) -> Benchmark:
    """Read a benchmark from YAML.

    Raises:
        ConfigError: no such file, not YAML, no task, an unknown or missing key, a wrong type or value; the line names
            the file, the line and what to do.
    """
    return load_settings(path, TASKS[_task_of(path)])


def _task_of(path: str | Path) -> str:
    """The task that a file names; what else is wrong with the file is for `load_settings` to say."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
        return "world"
    task = values.get("task") if isinstance(values, dict) else "world"
    if task is None and isinstance(values, dict):
        raise ConfigError(f"{path}: missing key 'task'; it is one of {', '.join(TASKS)}")
    if task not in TASKS:
        raise ConfigError(f"{path}: no task {task!r}; there are {', '.join(TASKS)}{_near(str(task), tuple(TASKS))}")
    return task


def _check_name(name: str) -> None:
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"name becomes a folder: use letters, digits, - and _, found {name!r}")


def _near(asked: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
