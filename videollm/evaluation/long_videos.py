"""The benchmarks of LF-VILA: paragraphs and long videos in one space, questions, classes, and times of sentences.

Source: the evaluation of Sun et al. 2022 and the loaders released with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from videollm.clips import Clip
from videollm.data.long_form import LongForm, LongFormAnnotations, video_file
from videollm.data.sample import Media
from videollm.data.timed_captions import TimedParagraph, timed_captions, timed_paragraph
from videollm.errors import DataError
from videollm.evaluation import retrieval
from videollm.evaluation.alignment import alignment_scores, temporal_iou
from videollm.evaluation.benchmark import (
    LongClasses,
    LongQuestions,
    ParagraphAlignment,
    ParagraphRetrieval,
    PublishedBenchmark,
)
from videollm.evaluation.predictors import (
    LongAnswerer,
    LongClassifier,
    ParagraphAligner,
    ParagraphVideoEmbedder,
)
from videollm.evaluation.published import Answer, Result, Task, packed, unpacked
from videollm.media.decode_worker import open_clip
from videollm.models import families
from videollm.tools.narrate import LONG_FILE

B = TypeVar("B", bound=PublishedBenchmark)
RECALL_AT = (1, 5, 10)


class _LongVideos(Task[B], Generic[B]):
    """Items that are whole videos.

    Attributes:
        model: what sees them, of a class of `videollm.evaluation.predictors`.
    """

    model: Any

    def identity(self) -> dict[str, Any]:
        """Of the weights."""
        return {"weights": families.weights_of(self.benchmark.model), "frames": self.model.count}

    def open(self, media: Media) -> Clip:
        return open_clip(media.path, frames=self.model.frames, limits=LONG_FILE)


class _Annotated(_LongVideos[B], Generic[B]):
    """Items of one of LF-VILA's formats."""

    def __init__(self, benchmark: B) -> None:
        super().__init__(benchmark)
        self.annotations = LongFormAnnotations(benchmark.format, benchmark.annotations, benchmark.videos)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def ids(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return [str(index) for index in range(len(self.annotations))]

    def find(self, index: int) -> None:
        self.annotations[index]

    def read(self, index: int) -> tuple[LongForm, Clip]:
        sample = self.annotations[index]
        return sample, self.open(sample.clips[0])

    def samples(self, indices: Sequence[int]) -> list[LongForm]:
        """Annotations; those of measured items are whole."""
        return [self.annotations[index] for index in indices]


class Paragraphs(_Annotated[ParagraphRetrieval]):
    """Paragraph-to-video and video-to-paragraph retrieval."""

    def load(self) -> dict[str, Any]:
        self.model = ParagraphVideoEmbedder(self.benchmark.model, self.benchmark.frames)
        return self.identity()

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        videos = self.model.videos([clip for _, clip in read])
        paragraphs = self.model.paragraphs([sample.sentences for sample, _ in read])
        return [{"video": packed(v), "paragraph": packed(p)} for v, p in zip(videos, paragraphs, strict=True)]

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        videos, paragraphs = (np.stack([unpacked(a[key]) for a in answers]) for key in ("video", "paragraph"))
        similarity = paragraphs @ videos.T
        directions = {"paragraph to video": similarity, "video to paragraph": similarity.T}
        metrics: dict[str, float | None] = {}
        for name, one in directions.items():
            found = retrieval.retrieval_scores(one, RECALL_AT)
            metrics |= {f"{name}, R@{k}": found[f"R{k}"] for k in RECALL_AT}
            metrics |= {f"{name}, median rank": found["MedR"], f"{name}, mean rank": found["MeanR"]}
        places = [retrieval.ranks(one) for one in directions.values()]
        samples = self.samples(indices)
        rows = [
            {
                "id": sample.id,
                "paragraph": " ".join(sample.sentences),
                "rank_of_video": float(places[0][row]),
                "rank_of_paragraph": float(places[1][row]),
                "first": samples[int(similarity[row].argmax())].id,
            }
            for row, sample in enumerate(samples)
        ]
        return Result(metrics, rows)


class Questions(_Annotated[LongQuestions]):
    """Questions about long videos."""

    def load(self) -> dict[str, Any]:
        self.model = LongAnswerer(self.benchmark.model, self.benchmark.format)
        return self.identity()

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        # Those with as many choices go together.
        for count in sorted({len(sample.choices) for sample, _ in read}):
            group = [place for place, (sample, _) in enumerate(read) if len(sample.choices) == count]
            samples, clips = zip(*(read[place] for place in group), strict=True)
            logits, frames = self.model.answer(samples, clips)
            for row, place in enumerate(group):
                answers[place] = {"logits": packed(logits[row])}
                if frames is not None:
                    answers[place] |= {
                        "frames": packed(frames[row]),
                        "duration_seconds": clips[row].duration_seconds,
                    }
        return [answers[place] for place in range(len(read))]

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        samples, rows = self.samples(indices), []
        for sample, answer in zip(samples, answers, strict=True):
            logits = unpacked(answer["logits"])
            if sample.answer is None or sample.answer >= len(logits):
                raise DataError(
                    f"{self.benchmark.annotations}: {sample.id} has the answer {sample.answer}, the model knows "
                    f"{len(logits)}; give a model that was trained on these answers"
                )
            said = int(logits.argmax())
            row: dict[str, Any] = {"id": sample.id, "question": sample.question, "answer": sample.answer, "said": said}
            row["right"] = said == sample.answer
            if sample.choices:
                row["choices"] = sample.choices
            if "frames" in answer:
                found = frames_to_span(unpacked(answer["frames"]), answer["duration_seconds"])
                row |= {"span_seconds": sample.span_seconds, "found_seconds": found}
                if sample.span_seconds is not None:
                    row["overlap"] = round(temporal_iou(found, sample.span_seconds), 4)
            rows.append(row)
        metrics: dict[str, float | None] = {"accuracy": sum(row["right"] for row in rows) / len(rows)}
        overlaps = [row["overlap"] for row in rows if "overlap" in row]
        if overlaps:
            metrics["mean overlap of answers' times"] = float(np.mean(overlaps))
        return Result(metrics, rows)


def frames_to_span(logits: np.ndarray, duration_seconds: float) -> tuple[float, float]:
    """The longest run of frames that are said to show the answer, in seconds; of none, the frame that is nearest to it.

    Args:
        logits: float ``(T, 2)``, of frames spread over the video; each stands for its T-th part.
        duration_seconds: of the video.
    """
    by = logits[:, 1] - logits[:, 0]
    shown = by > 0 if (by > 0).any() else by == by.max()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]).astype(int))).reshape(-1, 2)
    first, end = max(edges.tolist(), key=lambda run: run[1] - run[0])
    return first * duration_seconds / len(logits), end * duration_seconds / len(logits)


class Classes(_Annotated[LongClasses]):
    """Classes of long videos."""

    def load(self) -> dict[str, Any]:
        self.model = LongClassifier(self.benchmark.model, self.benchmark.frames)
        return self.identity()

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        return [{"logits": packed(row)} for row in self.model.classify([clip for _, clip in read])]

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        logits = np.stack([unpacked(answer["logits"]) for answer in answers])
        samples = self.samples(indices)
        found = retrieval.classification(logits, np.array([sample.answer for sample in samples]))
        rows = [
            {"id": sample.id, "class": sample.answer, "said": said, "right": said == sample.answer}
            for sample, said in zip(samples, logits.argmax(axis=1).tolist(), strict=True)
        ]
        metrics: dict[str, float | None] = {
            "accuracy": found.top1,
            "top 5": found.top5,
            "mean class accuracy": found.mean_class_accuracy,
        }
        return Result(metrics, rows)


class Alignment(_LongVideos[ParagraphAlignment]):
    """Times of a paragraph's sentences."""

    def __init__(self, benchmark: ParagraphAlignment) -> None:
        super().__init__(benchmark)
        self.rows = timed_captions(benchmark.annotations)

    @property
    def ids(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return [name for name, _, _ in self.rows]

    def find(self, index: int) -> None:
        self._paragraph(index)

    def _paragraph(self, index: int) -> tuple[TimedParagraph, Media]:
        name, row, where = self.rows[index]
        return timed_paragraph(name, row, where), video_file(Path(self.benchmark.videos), name, where)

    def load(self) -> dict[str, Any]:
        asked = self.benchmark
        self.model = ParagraphAligner(asked.model, asked.rate_hz, asked.most_frames, asked.frames_per_clip)
        return self.identity()

    def read(self, index: int) -> tuple[TimedParagraph, Clip]:
        paragraph, media = self._paragraph(index)
        return paragraph, self.open(media)

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        return [
            {"spans": self.model.align(clip, paragraph.sentences), "duration_seconds": clip.duration_seconds}
            for paragraph, clip in read
        ]

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        paragraphs = [self._paragraph(index)[0] for index in indices]
        true = [span for paragraph in paragraphs for span in paragraph.spans_seconds]
        found = [(float(start), float(end)) for answer in answers for start, end in answer["spans"]]
        even = [
            (k * answer["duration_seconds"] / count, (k + 1) * answer["duration_seconds"] / count)
            for answer, count in ((answer, len(answer["spans"])) for answer in answers)
            for k in range(count)
        ]
        metrics: dict[str, float | None] = {}
        for name, spans in (("", found), (", equal parts instead", even)):
            metrics |= {f"{metric}{name}": value for metric, value in alignment_scores(spans, true).items()}
        rows = [
            {
                "id": paragraph.id,
                "sentences": paragraph.sentences,
                "spans_seconds": paragraph.spans_seconds,
                "found_seconds": [[round(float(edge), 3) for edge in span] for span in answer["spans"]],
            }
            for paragraph, answer in zip(paragraphs, answers, strict=True)
        ]
        return Result(metrics, rows)


TASKS: dict[str, Callable[[Any], Task[Any]]] = {
    "paragraph_retrieval": Paragraphs,
    "long_questions": Questions,
    "long_classes": Classes,
    "paragraph_alignment": Alignment,
}
