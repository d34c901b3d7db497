"""The benchmarks of LaViLa: retrieval, choice and classification by its encoders, captions by a narrator.

Frames are chosen by seconds: the middles of equal segments of the frames that are on screen between a stretch's start
and end. The published code chose them by number, at 30 frames a second (Ego4D) or the file's mean rate; where a file's
rate is even, these are the same frames, or neighbours.

Source: the evaluation scripts released with Zhao et al., "LaViLa" (2022).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from videollm.clips import Clip
from videollm.data import egocentric as data
from videollm.data.egocentric import Choice, Stretch
from videollm.data.pickles import load_matrix
from videollm.errors import ConfigError, DataError
from videollm.evaluation import narration, retrieval
from videollm.evaluation.benchmark import (
    Captions,
    CharadesEgo,
    EgoMcq,
    Egtea,
    EpicClassification,
    MultiInstanceRetrieval,
    PublishedBenchmark,
)
from videollm.evaluation.predictors import (
    ALL_FRAMES,
    ClipModel,
    classifier_or_dual_encoder,
    dense_views,
    dual_encoder,
    frames_of,
)
from videollm.evaluation.published import Answer, Result, Task, packed, unpacked
from videollm.media.decode_worker import open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.models import families

B = TypeVar("B", bound=PublishedBenchmark)
NAMED = 5
"""How many of what a model ranks highest stand in ``predictions.jsonl``."""


class _Stretches(Task[B], Generic[B]):
    """Items that are stretches of videos.

    Attributes:
        stretches: the items.
        frames, sound: what is looked at and listened to; known once the model is loaded.
    """

    stretches: Sequence[Stretch]
    frames: FrameSampling
    sound: SoundSampling | None = None

    @property
    def ids(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return [one.id for one in self.stretches]

    def find(self, index: int) -> None:
        self.stretches[index].media(self.benchmark.videos)

    def read(self, index: int) -> Clip:
        return self.open(self.stretches[index])

    def open(self, stretch: Stretch) -> Clip:
        media = stretch.media(self.benchmark.videos)
        return open_clip(
            media.path,
            frames=self.frames,
            sound=self.sound,
            start_seconds=media.start_seconds,
            end_seconds=media.end_seconds,
        )


class _Seen(_Stretches[B], Generic[B]):
    """Stretches that an encoder sees as the middle frames of equal segments.

    Attributes:
        model: it.
    """

    model: ClipModel
    loader: Callable[[str, int | None], ClipModel] = staticmethod(dual_encoder)

    def load(self) -> dict[str, Any]:
        frames: int | None = getattr(self.benchmark, "frames", None)
        self.model = self.loader(self.benchmark.model, frames)
        self.frames = FrameSampling("centre", frames=self.model.count)
        return {"weights": families.weights_of(self.benchmark.model), "frames": self.model.count}

    def middles(self, clips: Sequence[Clip]) -> torch.Tensor:
        """float ``(B, T, 3, H, W)``, the middle square of each frame."""
        return torch.stack([self.model.images(self.model.centres(clip)) for clip in clips])

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        frames = self.middles(read)
        return [{"vector": packed(vector)} for vector in self.model.embed_clips(frames)]


def _vectors(answers: Sequence[Answer], key: str = "vector") -> np.ndarray:
    return np.stack([unpacked(answer[key]) for answer in answers])


def _best(scores: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """What has the highest scores."""
    order = np.argsort(-scores, kind="stable")[:NAMED]
    return [{"is": names[place], "score": round(float(scores[place]), 4)} for place in order.tolist()]


class MultiInstance(_Seen[MultiInstanceRetrieval]):
    """EPIC-Kitchens-100 multi-instance retrieval."""

    def __init__(self, benchmark: MultiInstanceRetrieval) -> None:
        super().__init__(benchmark)
        self.stretches = data.epic_actions(benchmark.annotations)
        self.sentences = data.epic_sentences(benchmark.sentences)
        self.relevancy = load_matrix(benchmark.relevancies).astype(np.float64)
        wanted = (len(self.stretches), len(self.sentences))
        if self.relevancy.shape != wanted:
            raise DataError(
                f"{benchmark.relevancies} is of {self.relevancy.shape[0]} videos and {self.relevancy.shape[1]} "
                f"sentences, the annotations of {wanted[0]} and {wanted[1]}; give files of one split"
            )

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        texts = [text for _, text in self.sentences]
        # As published, from 0 to 1; the order is that of the cosines.
        similarity = (_vectors(answers) @ self.model.embed_texts(texts).T + 1) / 2
        relevancy = self.relevancy[list(indices)]
        found = retrieval.multi_instance(similarity, relevancy)
        each = retrieval.average_precisions(similarity.astype(np.float64), relevancy)
        rows: list[dict[str, Any]] = []
        for row, index in enumerate(indices):
            precision = None if np.isnan(each[row]) else round(float(each[row]), 4)
            one = self.stretches[index]
            rows.append(
                {
                    "id": one.id,
                    "text": one.texts[0],
                    "average_precision": precision,
                    "best": _best(similarity[row], texts),
                }
            )
        metrics: dict[str, float | None] = {
            "mAP": found.map,
            "mAP, text to video": found.map_text_to_video,
            "mAP, video to text": found.map_video_to_text,
            "nDCG": found.ndcg,
            "nDCG, text to video": found.ndcg_text_to_video,
            "nDCG, video to text": found.ndcg_video_to_text,
        }
        notes = ()
        if found.without_positive:
            notes = (f"{found.without_positive} queries have no positive and do not count in mAP (as published: nan)",)
        return Result(metrics, rows, notes)


class MultipleChoice(_Seen[EgoMcq]):
    """EgoMCQ."""

    def __init__(self, benchmark: EgoMcq) -> None:
        super().__init__(benchmark)
        self.questions: list[Choice] = data.egomcq(benchmark.annotations)

    @property
    def ids(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return [one.id for one in self.questions]

    def find(self, index: int) -> None:
        for one in self.questions[index].clips:
            one.media(self.benchmark.videos)

    def read(self, index: int) -> list[Clip]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self.open(one) for one in self.questions[index].clips]

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        texts = self.model.embed_texts([self.questions[index].text for index in indices])
        answers: list[Answer] = []
        for text, clips in zip(texts, read, strict=True):
            vectors = self.model.embed_clips(self.middles(clips), unit=self.benchmark.unit_vectors)
            answers.append({"similarities": packed(vectors @ text)})
        return answers

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        asked = [self.questions[index] for index in indices]
        if len({len(one.clips) for one in asked}) > 1:
            raise DataError(
                f"{self.benchmark.annotations}: questions have different numbers of choices; download it again"
            )
        scores = _vectors(answers, "similarities")
        kinds = np.array([one.type for one in asked])
        found = retrieval.egomcq(scores, np.array([one.answer for one in asked]), kinds)
        rows = [
            {
                "id": one.id,
                "type": retrieval.EGOMCQ_TYPES[one.type],
                "text": one.text,
                "answer": one.answer,
                "said": int(row.argmax()),
                "right": bool(row.argmax() == one.answer),
                "similarities": [round(float(value), 4) for value in row],
            }
            for one, row in zip(asked, scores, strict=True)
        ]
        metrics: dict[str, float | None] = {name.replace("_", " "): share for name, share in found.items()}
        note = "type 1 is between videos and type 2 within one; the published code prints these two names the other way"
        return Result(metrics, rows, (note,))


class Charades(_Seen[CharadesEgo]):
    """Charades-Ego."""

    def __init__(self, benchmark: CharadesEgo) -> None:
        super().__init__(benchmark)
        self.stretches = data.charades_ego(benchmark.annotations)
        self.names = data.charades_classes(benchmark.classes)
        for one in self.stretches:
            if one.classes and one.classes[-1] >= len(self.names):
                raise DataError(f"{one.where}: class c{one.classes[-1]:03d} is not among {len(self.names)} classes")

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        scores = _vectors(answers) @ self.model.embed_texts(self.names).T
        if self.benchmark.softmax:
            scale = float(self.model.model.logit_scale.detach())
            scores = _softmax(scores * scale)
        truths = np.zeros(scores.shape)
        for row, index in enumerate(indices):
            truths[row, list(self.stretches[index].classes)] = 1
        found = retrieval.charades_map(scores, truths)
        rows = [
            {"id": one.id, "classes": [self.names[c] for c in one.classes], "best": _best(scores[row], self.names)}
            for row, one in enumerate(self.stretches[index] for index in indices)
        ]
        absent = int(np.isnan(found.of_class).sum())
        notes = (f"{absent} classes occur in no video and do not count (as published: nan)",) if absent else ()
        return Result({"mAP": found.map}, rows, notes)


class _Classes(_Seen[B], Generic[B]):
    """Stretches of one class each, told by a classifier's heads, or by a dual encoder from the names of classes.

    Attributes:
        views_at_once: how many views of a video the model is given at once.
    """

    loader = staticmethod(classifier_or_dual_encoder)

    def class_vectors(self) -> np.ndarray:
        """Unit vectors of the classes, of a dual encoder, float32 ``(C, D)``."""
        raise NotImplementedError

    def load(self) -> dict[str, Any]:
        identity = super().load()
        if not self.model.is_classifier:
            self.named = self.class_vectors()
        return identity

    def views(self, clip: Clip) -> torch.Tensor:
        """All that is seen of a video, float ``(views, T, 3, H, W)``."""
        raise NotImplementedError

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        answers: list[Answer] = []
        for clip in read:
            groups = self.views(clip).split(max(self.benchmark.batch_size, 1))
            if self.model.is_classifier:
                heads = [np.concatenate(head) for head in zip(*map(self.model.classify, groups), strict=True)]
                # As published: the mean of the views.
                answers.append({"heads": [packed(head.mean(axis=0)) for head in heads]})
            else:
                seen = np.concatenate([self.model.embed_clips(group) for group in groups])
                # As published, without training on the classes: the best view of each.
                answers.append({"heads": [packed((seen @ self.named.T).max(axis=0))]})
        return answers

    def heads(self, answers: Sequence[Answer]) -> list[np.ndarray]:
        """Of each head float32 ``(items, C)``."""
        return [np.stack(rows) for rows in zip(*[[unpacked(one) for one in a["heads"]] for a in answers], strict=True)]

    def check_heads(self, answers: Sequence[Answer], expected: Sequence[Sequence[int]]) -> None:
        """Raises DataError where a classifier's heads are of other classes than the files."""
        sizes = [one["shape"][0] for one in answers[0]["heads"]]
        if all(sizes != list(one) for one in expected):
            told = " or ".join(str(list(one)) for one in expected)
            raise DataError(
                f"the classifier in {self.benchmark.model} tells {sizes} classes apart, the annotations have {told}; "
                f"give the files that it was trained on"
            )


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class EpicActions(_Classes[EpicClassification]):
    """EPIC-Kitchens-100 classification."""

    def __init__(self, benchmark: EpicClassification) -> None:
        super().__init__(benchmark)
        for template in benchmark.templates:
            if template.count("{}") != 1:
                raise ConfigError(f"the template {template!r} must hold {{}} once, in the place of the narration")
        self.stretches = data.epic_actions(benchmark.annotations)
        self.occurring = [data.epic_actions(path) for path in benchmark.occurring]
        self.actions = data.action_classes(*self.occurring)
        self.place: dict[tuple[int, ...], int] = {action: number for number, action in enumerate(self.actions)}
        for one in self.stretches:
            if one.classes not in self.place:
                raise DataError(f"{one.where}: the action {one.classes} is in none of {', '.join(benchmark.occurring)}")
        self.verbs, self.nouns = (np.array(one) for one in zip(*self.actions, strict=True))

    def class_vectors(self) -> np.ndarray:
        said: dict[tuple[int, ...], dict[str, None]] = {action: {} for action in self.actions}
        for one in (stretch for some in self.occurring for stretch in some):
            said[one.classes] |= {template.format(one.texts[0]): None for template in self.benchmark.templates}
        texts = [list(said[action]) for action in self.actions]
        vectors = self.model.embed_texts([text for some in texts for text in some])
        ends = np.cumsum([len(some) for some in texts])[:-1]
        means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def views(self, clip: Clip) -> torch.Tensor:
        pixels = self.model.centres(clip)
        if self.benchmark.crops == 1:
            return self.model.images(pixels)[None]
        return self.model.images.views(pixels, 1, self.benchmark.crops)

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        heads = self.heads(answers)
        counts = (int(self.verbs.max()) + 1, int(self.nouns.max()) + 1)
        if self.model.is_classifier and len(heads) > 1:
            # A classifier may know verbs and nouns that occur in none of the files.
            wide = (max(counts[0], heads[0].shape[1]), max(counts[1], heads[1].shape[1]), len(self.actions))
            self.check_heads(answers, [wide])
            verbs, nouns, actions = heads
        else:
            self.check_heads(answers, [(len(self.actions),)])
            actions = heads[0]
            scale = 1.0 if self.model.is_classifier else float(self.model.model.logit_scale.detach())
            chances = _softmax(actions * scale)
            verbs = retrieval.marginal(chances, self.verbs, counts[0])
            nouns = retrieval.marginal(chances, self.nouns, counts[1])
        truths = [self.stretches[index].classes for index in indices]
        kinds = {
            "action": (actions, np.array([self.place[one] for one in truths])),
            "verb": (verbs, np.array([one[0] for one in truths])),
            "noun": (nouns, np.array([one[1] for one in truths])),
        }
        metrics: dict[str, float | None] = {}
        for name, (scores, true) in kinds.items():
            found = retrieval.classification(scores, true)
            metrics |= {f"{name}, top 1": found.top1, f"{name}, top 5": found.top5}
        names = [f"{verb}:{noun}" for verb, noun in self.actions]
        rows = [
            {
                "id": one.id,
                "text": one.texts[0],
                "action": f"{one.classes[0]}:{one.classes[1]}",
                "verb": int(verbs[row].argmax()),
                "noun": int(nouns[row].argmax()),
                "best": _best(actions[row], names),
            }
            for row, one in enumerate(self.stretches[index] for index in indices)
        ]
        return Result(metrics, rows)


class EgteaActions(_Classes[Egtea]):
    """EGTEA Gaze+."""

    def __init__(self, benchmark: Egtea) -> None:
        super().__init__(benchmark)
        self.stretches = data.egtea(benchmark.annotations)
        self.names = data.egtea_actions(benchmark.classes)
        for one in self.stretches:
            if one.classes[0] >= len(self.names):
                raise DataError(f"{one.where}: action {one.classes[0] + 1} is not among {len(self.names)} actions")

    def load(self) -> dict[str, Any]:
        identity = super().load()
        self.frames = ALL_FRAMES
        return identity

    def class_vectors(self) -> np.ndarray:
        return self.model.embed_texts(self.names)

    def views(self, clip: Clip) -> torch.Tensor:
        asked = self.benchmark
        pixels = dense_views(frames_of(clip).pixels, self.model.count, asked.stride, asked.clips)
        return self.model.images.views(pixels, asked.clips, asked.crops)

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        self.check_heads(answers, [(len(self.names),)])
        scores = self.heads(answers)[0]
        truths = np.array([self.stretches[index].classes[0] for index in indices])
        found = retrieval.classification(scores, truths)
        rows = [
            {"id": one.id, "action": self.names[one.classes[0]], "best": _best(scores[row], self.names)}
            for row, one in enumerate(self.stretches[index] for index in indices)
        ]
        metrics: dict[str, float | None] = {
            "mean class accuracy": found.mean_class_accuracy,
            "top 1": found.top1,
            "top 5": found.top5,
        }
        return Result(metrics, rows)


class NarratorCaptions(_Stretches[Captions]):
    """Captions of a narrator."""

    def __init__(self, benchmark: Captions) -> None:
        super().__init__(benchmark)
        self.stretches = data.narrated(benchmark.annotations)[:: benchmark.every]
        self.tokenise: Callable[[str], narration.Tokens] = narration.words_of

    def load(self) -> dict[str, Any]:
        from videollm.tools.narrators import QUESTION, load_narrator

        self.narrator = load_narrator(self.benchmark.model, question=self.benchmark.question or QUESTION)
        self.frames, self.sound = self.narrator.frames, self.narrator.sound
        return self.narrator.identity

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        # One candidate is the likeliest; to be drawn it must be one of several.
        count = 2 if self.benchmark.drawn else 1
        said = self.narrator.describe(read, count, seed=self.benchmark.seed + int(indices[0]))
        return [{"caption": " ".join(some[0].text.split()) if some else ""} for some in said]

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        captions = [answer["caption"] for answer in answers]
        references = [[re.sub(r"\s+", " ", text).strip() for text in self.stretches[i].texts] for i in indices]
        found = narration.caption_scores(captions, references)
        metrics: dict[str, float | None] = {f"BLEU-{n}": value for n, value in enumerate(found.bleu, 1)}
        metrics |= {"METEOR": found.meteor, "ROUGE-L": found.rouge_l, "CIDEr": found.cider}
        notes = () if found.meteor is not None else (narration.WHY_NO_METEOR,)
        rows = [
            {"id": self.stretches[index].id, "caption": caption, "references": texts}
            for index, caption, texts in zip(indices, captions, references, strict=True)
        ]
        return Result(metrics, rows, notes)


TASKS: dict[str, Callable[[Any], Task[Any]]] = {
    "multi_instance_retrieval": MultiInstance,
    "egomcq": MultipleChoice,
    "charades_ego": Charades,
    "epic_classification": EpicActions,
    "egtea": EgteaActions,
    "captions": NarratorCaptions,
}
