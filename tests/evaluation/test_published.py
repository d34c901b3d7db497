"""Every benchmark on published annotations, on small files of the same layout: scores are those of what was said, a
stopped run goes on, and what is wrong with the files is one line. Models are small and random: scores mean nothing."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.lavila import small
from tests.models.lf_vila import small_lf_vila
from tests.tools import small_lavila
from videollm.cli.main import main
from videollm.errors import DataError, ModelNotFoundError
from videollm.evaluation import egocentric, long_videos, retrieval
from videollm.evaluation.alignment import alignment_scores
from videollm.evaluation.benchmark import TASKS, PublishedBenchmark
from videollm.evaluation.long_videos import frames_to_span
from videollm.evaluation.narration import WHY_NO_METEOR, caption_scores
from videollm.evaluation.predictors import dense_views
from videollm.evaluation.published import Result, evaluate_published, packed, table, unpacked
from videollm.media.decode_worker import close_server
from videollm.media.write import write_video
from videollm.models.lavila import LavilaImageProcessor
from videollm.models.lf_vila import (
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
)

SECONDS = 6
NARRATIONS = ["takes the knife", "opens the door", "lifts the lid", "takes a cup"]


@pytest.fixture(autouse=True, scope="module")
def no_server_left() -> Iterator[None]:
    yield
    close_server()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of noise that changes twice a second."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2 * SECONDS, 3, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, (coarse[i // 4] for i in range(8 * SECONDS)), fps=8, preset="ultrafast")


@pytest.fixture
def place(film: Path, tmp_path: Path) -> Path:
    """A folder ``videos`` with the film under every name that the annotations below have."""
    names = ["P01/P01_11.MP4", "u.mp4/0.mp4", "w.mp4", "OP01-R01-Pizza/OP01-R01-Pizza-1-2-F1-F2.mp4"]
    for name in [*names, *(f"v{n}.mp4" for n in range(4))]:
        target = tmp_path / "videos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(film.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small models of every kind."""
    folder = tmp_path_factory.mktemp("models")
    small_lavila.dual_encoder_folder(folder / "dual")
    small_lavila.narrator_folder(folder / "narrator")
    for name, classes in (("single", (3,)), ("heads", (5, 6, 3)), ("egtea", (2,))):
        LavilaImageProcessor(size=16, num_frames=3).save_pretrained(folder / name)
        small.classifier(*classes).save_pretrained(folder / name)
    kinds: dict[str, Any] = {
        "retrieval": (LfVilaForRetrieval, {}),
        "pretraining": (LfVilaForPreTraining, {}),
        "answers": (LfVilaForQuestionAnswering, {"num_answers": 3}),
        "choices": (LfVilaForMultipleChoice, {}),
        "classes": (LfVilaForVideoClassification, {"num_answers": 4}),
    }
    processor = small_lf_vila.small_processor(tmp_path_factory.mktemp("words"))
    for name, (kind, changed) in kinds.items():
        small_lf_vila.small_model(kind, **changed).save_pretrained(folder / name)
        one = processor.image_processor if name == "classes" else processor
        one.save_pretrained(folder / name)
    return folder


def epic_csv(path: Path, rows: list[tuple[str, str, str, int, int]], drop: str | None = None) -> str:
    """Rows of (start, stop, narration, verb, noun) as EPIC-Kitchens-100 publishes them."""
    names = [
        "narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp",
        "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class", "all_nouns",
        "all_noun_classes",
    ]  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        keep = [n for n, name in enumerate(names) if name != drop]
        writer.writerow([names[n] for n in keep])
        for number, (start, stop, text, verb, noun) in enumerate(rows):
            row = [
                f"P01_11_{number}",
                "P01",
                "P01_11",
                start,
                start,
                stop,
                1,
                2,
                text,
                "v",
                verb,
                "n",
                noun,
                "[]",
                "[]",
            ]
            writer.writerow([row[n] for n in keep])
    return str(path)


ACTIONS = [
    ("00:00:00.00", "00:00:02.00", NARRATIONS[0], 0, 1),
    ("00:00:02.00", "00:00:04.50", NARRATIONS[1], 3, 2),
    ("00:00:01.00", "00:00:05.99", NARRATIONS[2], 4, 5),
    ("00:00:03.00", "00:00:04.00", NARRATIONS[3], 0, 1),
]


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said_about(n: int) -> list[dict[str, Any]]:
    return [{"start": k, "end": k + 1, "text": "a man opens the door"} for k in range(n)]


def benchmark_of(task: str, place: Path, models: Path, variant: str = "") -> PublishedBenchmark:
    """A benchmark of a task with annotations of a few items, as they are published."""
    fields: dict[str, Any] = {"name": "small", "task": task, "videos": str(place / "videos"), "batch_size": 2}
    if task == "multi_instance_retrieval":
        relevancy = np.array([[1, 0, 0.5], [0, 1, 0], [0, 0.3, 0], [1, 0, 0]])
        (place / "relevancy.pkl").write_bytes(pickle.dumps(relevancy))
        sentences = place / "sentences.csv"
        sentences.write_text(
            "narration_id,narration\n" + "".join(f"P01_11_{n},{text}\n" for n, text in enumerate(NARRATIONS[:3]))
        )
        fields |= {
            "model": "dual", "annotations": epic_csv(place / "test.csv", ACTIONS), "sentences": str(sentences),
            "relevancies": str(place / "relevancy.pkl"),
        }  # fmt: skip
    elif task == "egomcq":
        choices = {str(n): {"video_uid": "u" if n % 2 else "w", "clip_start": n * 0.5, "clip_end": n * 0.5 + 1.5,
                            "clip_text": NARRATIONS[n % 4]} for n in range(5)}  # fmt: skip
        rows = {str(n): {"answer": n, "types": 1 + n % 2, "query": {"clip_text": NARRATIONS[n]}, "choices": choices}
                for n in range(2)}  # fmt: skip
        (place / "egomcq.json").write_text(json.dumps(rows))
        fields |= {"model": "dual", "annotations": str(place / "egomcq.json"), "unit_vectors": variant != "published"}
    elif task == "charades_ego":
        (place / "videos.csv").write_text(
            "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length,egocentric,\n"
            "v0,S,K,5,5,Yes,,,,c001 1.0 2.0;c002 0 3,6,Yes\n"
            "v1,S,K,5,5,Yes,,,,c001 0 1,6,Yes\nv2,S,K,5,5,Yes,,,,,6,Yes\n"
        )
        (place / "classes.txt").write_text("c000 Holding a cup\nc001 Opening a door\nc002 Taking a knife\n")
        fields |= {"model": "dual", "annotations": str(place / "videos.csv"), "classes": str(place / "classes.txt"),
                   "softmax": variant == "softmax", "frames": 6}  # fmt: skip
    elif task == "epic_classification":
        validation = epic_csv(place / "validation.csv", ACTIONS)
        train = epic_csv(place / "train.csv", ACTIONS[:2])
        fields |= {"model": variant, "annotations": validation, "occurring": (train, validation),
                   "crops": 3 if variant == "heads" else 1}  # fmt: skip
    elif task == "egtea":
        (place / "split.txt").write_text("OP01-R01-Pizza-1-2-F1-F2 1 1 1\nOP01-R01-Pizza-1-2-F1-F2 2 2 2\n")
        (place / "actions.txt").write_text("Open_door 1\nTake knife 2\n")
        fields |= {"model": variant, "annotations": str(place / "split.txt"), "classes": str(place / "actions.txt"),
                   "clips": 2}  # fmt: skip
    elif task == "captions":
        rows = [("u", 0.0, 2.0, "#C C takes the knife"), ("w", 1.0, 3.5, ["#C C opens the door", "C opens a door"]),
                ("u", 1, 4, "#C C lifts the lid")]  # fmt: skip
        (place / "val.pkl").write_bytes(pickle.dumps(rows))
        fields |= {"model": "narrator", "annotations": str(place / "val.pkl"), "drawn": variant == "drawn"}
    elif task == "paragraph_retrieval":
        texts = [
            "The man opens the door.",
            ["A red circle rolls.", "The circle stops."],
            ["A woman runs", "then falls"],
        ]
        rows = [{"clip_id": f"v{n}", "text": text} for n, text in enumerate(texts)]
        fields |= {
            "model": "retrieval",
            "annotations": jsonl(place / "r.jsonl", rows),
            "format": "didemo",
            "batch_size": 3,
        }
    elif task == "long_questions" and variant == "how2qa":
        rows = [{"clip_id": f"v{n}", "span": [1.0, 2.5 + n], "text_q": "who runs", "text_a": ["a man", "the woman"],
                 "text_s": said_about(n), "answer_idx": n % 2} for n in range(3)]  # fmt: skip
        fields |= {"model": "choices", "annotations": jsonl(place / "q.jsonl", rows), "format": "how2qa"}
    elif task == "long_questions":
        rows = [{"clip_id": f"v{n}", "text_q": "a man runs", "text_s": said_about(9 * n), "answer": bool(n % 2)}
                for n in range(3)]  # fmt: skip
        fields |= {"model": "answers", "annotations": jsonl(place / "q.jsonl", rows), "format": "violin"}
    elif task == "long_classes":
        rows = [{"video_id": f"v{n}", "recipe_type": n} for n in range(4)]
        fields |= {"model": "classes", "annotations": jsonl(place / "c.jsonl", rows), "format": "coin"}
    elif task == "paragraph_alignment":
        rows = {f"v{n}": {"duration": 6.0, "timestamps": [[0, 2.5], [2.5, 6.0]][: n + 1],
                          "sentences": ["A man runs.", "The man falls."][: n + 1]} for n in range(2)}  # fmt: skip
        (place / "val_1.json").write_text(json.dumps(rows))
        fields |= {"model": "pretraining", "annotations": str(place / "val_1.json"), "rate_hz": 2.0,
                   "frames_per_clip": 2}  # fmt: skip
    return TASKS[task](**fields | {"model": str(models / fields["model"])})  # type: ignore[return-value]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measured(benchmark: PublishedBenchmark, out: Path) -> tuple[Result, list[dict[str, Any]], list[str]]:
    """What is found, what is kept of it in files, and what is reported."""
    said: list[str] = []
    found = evaluate_published(benchmark, out, said.append)
    kept = json.loads((out / "scores.json").read_text())
    assert kept["metrics"] == found.metrics and kept["left_out"] == 0
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "scores.json"]
    return found, lines_of(out / "predictions.jsonl"), said


def test_multi_instance_retrieval(place: Path, models: Path) -> None:
    benchmark = benchmark_of("multi_instance_retrieval", place, models)
    found, rows, _ = measured(benchmark, place / "out")
    assert [row["id"] for row in rows] == [f"P01_11_{n}" for n in range(4)]
    scores = {text: np.zeros(4) for text in NARRATIONS[:3]}
    for place_of, row in enumerate(rows):
        for one in row["best"]:
            scores[one["is"]][place_of] = one["score"]
    relevancy = np.array([[1, 0, 0.5], [0, 1, 0], [0, 0.3, 0], [1, 0, 0]])
    expected = retrieval.multi_instance(np.stack([scores[text] for text in NARRATIONS[:3]], axis=1), relevancy)
    assert found.metrics["mAP"] == pytest.approx(expected.map) and found.metrics["nDCG"] == pytest.approx(expected.ndcg)
    assert rows[2]["average_precision"] is None and "2 queries have no positive" in found.notes[0]


@pytest.mark.parametrize("variant", ["", "published"])
def test_egomcq(place: Path, models: Path, variant: str) -> None:
    found, rows, _ = measured(benchmark_of("egomcq", place, models, variant), place / "out")
    assert [row["type"] for row in rows] == ["inter_video", "intra_video"]
    right = [row["right"] for row in rows]
    assert found.metrics == {"inter video": float(right[0]), "intra video": float(right[1])}
    assert all(row["said"] == int(np.argmax(row["similarities"])) for row in rows)
    longest = max(abs(value) for row in rows for value in row["similarities"])
    assert (longest > 1) == (variant == "published"), "vectors of length 1 have cosines"
    assert "the other way" in found.notes[0]


@pytest.mark.parametrize("variant", ["", "softmax"])
def test_charades_ego(place: Path, models: Path, variant: str) -> None:
    found, rows, _ = measured(benchmark_of("charades_ego", place, models, variant), place / "out")
    scores = np.zeros((3, 3))
    names = ["Holding a cup", "Opening a door", "Taking a knife"]
    for row, kept in enumerate(rows):
        for one in kept["best"]:
            scores[row, names.index(one["is"])] = one["score"]
    truths = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 0]])
    assert found.metrics["mAP"] == pytest.approx(retrieval.charades_map(scores, truths).map)
    assert rows[0]["classes"] == names[1:] and "1 classes occur in no video" in found.notes[0]
    assert scores[0].sum() == pytest.approx(1, abs=1e-3) if variant else scores.min() < 0.99


@pytest.mark.parametrize("variant", ["dual", "single", "heads"])
def test_epic_classification(place: Path, models: Path, variant: str) -> None:
    found, rows, _ = measured(benchmark_of("epic_classification", place, models, variant), place / "out")
    assert list(found.metrics) == [f"{one}, top {k}" for one in ("action", "verb", "noun") for k in (1, 5)]
    said = [row["best"][0]["is"] for row in rows]
    assert {one["is"] for row in rows for one in row["best"]} == {"0:1", "3:2", "4:5"}
    right = [one == row["action"] for one, row in zip(said, rows, strict=True)]
    assert found.metrics["action, top 1"] == sum(right) / 4 and found.metrics["action, top 5"] == 1
    assert found.metrics["verb, top 1"] == sum(row["verb"] == int(row["action"].split(":")[0]) for row in rows) / 4
    if variant != "heads":  # verbs are sums of actions, and here each belongs to one
        assert [row["verb"] for row in rows] == [int(one.split(":")[0]) for one in said]


def test_epic_classes_of_another_model(place: Path, models: Path) -> None:
    with pytest.raises(DataError, match=r"tells \[2\] classes apart, the annotations have \[3\]"):
        evaluate_published(benchmark_of("epic_classification", place, models, "egtea"), place / "out", print)


@pytest.mark.parametrize("variant", ["egtea", "dual"])
def test_egtea(place: Path, models: Path, variant: str) -> None:
    found, rows, _ = measured(benchmark_of("egtea", place, models, variant), place / "out")
    assert [row["action"] for row in rows] == ["open door", "take knife"]
    right = [row["best"][0]["is"] == row["action"] for row in rows]
    assert found.metrics["mean class accuracy"] == found.metrics["top 1"] == sum(right) / 2 == 0.5, (
        "one film, two classes"
    )


def test_dense_views() -> None:
    pixels = np.arange(1, 11, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    assert dense_views(pixels, 3, 2, 3)[:, 0, 0, 0].tolist() == [1, 3, 5, 3, 5, 7, 5, 7, 9]
    assert dense_views(pixels[:3], 3, 2, 2)[:, 0, 0, 0].tolist() == [1, 3, 0, 1, 3, 0]


@pytest.mark.parametrize("variant", ["", "drawn"])
def test_captions(place: Path, models: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videollm.evaluation.narration.shutil.which", lambda name: None)
    found, rows, said = measured(benchmark_of("captions", place, models, variant), place / "out")
    assert [len(row["references"]) for row in rows] == [1, 2, 1] and all(row["caption"] for row in rows)
    expected = caption_scores([row["caption"] for row in rows], [row["references"] for row in rows])
    assert found.metrics["CIDEr"] == expected.cider and found.metrics["BLEU-4"] == expected.bleu[3]
    assert found.metrics["METEOR"] is None and WHY_NO_METEOR in said
    assert any(line.startswith("METEOR") and line.endswith("not computed") for line in said)


def test_paragraph_retrieval(place: Path, models: Path) -> None:
    found, rows, said = measured(benchmark_of("paragraph_retrieval", place, models), place / "out")
    ranks = np.array([row["rank_of_video"] for row in rows])
    assert ranks.tolist() == [2.0] * 3, "the videos are the same film: a tie ranks in the middle"
    assert found.metrics["paragraph to video, R@1"] == 0 and found.metrics["paragraph to video, R@5"] == 1
    assert found.metrics["video to paragraph, mean rank"] == np.mean([row["rank_of_paragraph"] for row in rows])
    assert "paragraph to video, median rank  2.00" in said


@pytest.mark.parametrize("variant", ["how2qa", "violin"])
def test_long_questions(place: Path, models: Path, variant: str) -> None:
    found, rows, _ = measured(benchmark_of("long_questions", place, models, variant), place / "out")
    assert found.metrics["accuracy"] == pytest.approx(sum(row["right"] for row in rows) / 3)
    assert all(row["right"] == (row["said"] == row["answer"]) for row in rows)
    if variant == "how2qa":
        assert all(0 <= row["found_seconds"][0] < row["found_seconds"][1] <= SECONDS + 0.1 for row in rows)
        assert found.metrics["mean overlap of answers' times"] == pytest.approx(
            np.mean([row["overlap"] for row in rows]), abs=1e-4
        )


def test_frames_to_a_span() -> None:
    logits = np.zeros((8, 2))
    logits[[1, 3, 4, 5, 7], 1] = 1
    assert frames_to_span(logits, 16.0) == (6.0, 12.0)
    logits = np.stack([np.ones(4), np.array([0.0, 0.2, 0.9, 0.1])], axis=1)
    assert frames_to_span(logits, 4.0) == (2.0, 3.0)


def test_long_classes(place: Path, models: Path) -> None:
    found, rows, _ = measured(benchmark_of("long_classes", place, models), place / "out")
    assert found.metrics["accuracy"] == sum(row["right"] for row in rows) / 4 == 0.25, "one film, four classes"


def test_paragraph_alignment(place: Path, models: Path) -> None:
    found, rows, _ = measured(benchmark_of("paragraph_alignment", place, models), place / "out")
    spans = [tuple(span) for row in rows for span in row["found_seconds"]]
    true = [tuple(span) for row in rows for span in row["spans_seconds"]]
    assert found.metrics["mIoU"] == pytest.approx(alignment_scores(spans, true)["mIoU"], abs=1e-3)
    assert found.metrics["mIoU, equal parts instead"] == pytest.approx((2.5 / 6 + 2.5 / 3 + 3 / 3.5) / 3, abs=0.03)


# -- going on, and what cannot be measured -----------------------------------------------------------------------------


def test_a_stopped_run_goes_on_with_the_same_result(place: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = benchmark_of("multi_instance_retrieval", place, models)
    whole, rows, _ = measured(benchmark, place / "whole")
    predict = egocentric.MultiInstance.predict
    asked: list[int] = []

    def stopped(self: Any, indices: Any, read: Any) -> Any:
        if asked:
            raise KeyboardInterrupt
        asked.extend(indices)
        return predict(self, indices, read)

    monkeypatch.setattr(egocentric.MultiInstance, "predict", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate_published(benchmark, place / "out", print)
    assert [path.name for path in (place / "out").iterdir()] == ["unfinished.jsonl"] and asked == [0, 1]

    def counted(self: Any, indices: Any, read: Any) -> Any:
        asked.extend(indices)
        return predict(self, indices, read)

    monkeypatch.setattr(egocentric.MultiInstance, "predict", counted)
    again, others, _ = measured(benchmark, place / "out")
    assert asked == [0, 1, 2, 3] and again == whole and others == rows


def test_what_is_missing_or_broken_is_left_out_and_named(place: Path, models: Path) -> None:
    benchmark = benchmark_of("long_classes", place, models)
    (place / "videos" / "v1.mp4").unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 items cannot be measured, most_left_out allows 0 of them; .*no v1\.mp4"
    ):
        evaluate_published(benchmark, place / "out", print)
    assert not (place / "out").exists()
    (place / "videos" / "v2.mp4").write_bytes((place / "videos" / "v2.mp4").read_bytes()[:300])
    fields = vars(benchmark) | {"most_left_out": 0.5}
    said: list[str] = []
    found = evaluate_published(type(benchmark)(**fields), place / "out", said.append)
    rows = lines_of(place / "out" / "predictions.jsonl")
    assert len(found.rows) == 2 and [row.get("left_out") is None for row in rows] == [True, True, False, False]
    assert any(line.startswith("2 of 4 items were left out") for line in said)
    with pytest.raises(DataError, match=r"2 of 4 items cannot be measured, most_left_out allows 0\.4"):
        evaluate_published(type(benchmark)(**fields | {"most_left_out": 0.4}), place / "other", print)
    one = evaluate_published(type(benchmark)(**fields | {"first": 1}), place / "first", said.append)
    assert len(one.rows) == 1 and any("only the first 1 of 4 items" in line for line in said)


def test_the_wrong_model(place: Path, models: Path) -> None:
    for task, model, match in (
        ("multi_instance_retrieval", "narrator", "is LaViLa's narrator; this needs LavilaDualEncoder"),
        ("long_classes", "retrieval", r"is LF-VILA \(LfVilaForRetrieval\); this needs LfVilaForVideoClassification"),
        ("egomcq", "none", "holds no config.json"),
    ):
        fields = vars(benchmark_of(task, place, models)) | {"model": str(models / model)}
        with pytest.raises(ModelNotFoundError, match=match):
            evaluate_published(TASKS[task](**fields), place / "out", print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "name", "content", "match"),
    [
        ("multi_instance_retrieval", "test.csv", "a,b\n1,2\n", r"test\.csv: has no column 'narration_id', but a, b"),
        ("multi_instance_retrieval", "sentences.csv", "narration_id\n1\n", "has no column 'narration'"),
        ("multi_instance_retrieval", "sentences.csv", "narration_id,narration\n1,x\n", "of 4 videos and 3 sentences"),
        ("multi_instance_retrieval", "relevancy.pkl", "no pickle", "not a pickle of a matrix"),
        ("egomcq", "egomcq.json", '{"0": {"choices": {}}}', "question 0: has no 'query'"),
        ("egomcq", "egomcq.json", "[]", "must be questions by their numbers"),
        ("charades_ego", "videos.csv", "id,actions,length\nv0,x001 1 2,6\n", "line 2: the action 'x001 1 2' has no"),
        ("charades_ego", "classes.txt", "c000 A\nc002 B\n", "line 2: must be 'c001 NAME'"),
        ("charades_ego", "classes.txt", "c000 A\n", "class c002 is not among 1 classes"),
        ("egtea", "split.txt", "OP01-R01-Pizza-1 x\n", "line 1: must be a clip and the number"),
        ("egtea", "actions.txt", "Open_door 1\n", "action 2 is not among 1 actions"),
        ("captions", "val.pkl", "x", "not a pickle of plain values"),
        ("paragraph_retrieval", "r.jsonl", '{"clip_id": "v0"}\n', "text must be a text or a list"),
        ("paragraph_alignment", "val_1.json", '{"v0": {"timestamps": [[3, 4], [1, 2]], "sentences": ["a", "b"]}}',
         "times are not in order: sentence 2 starts at 1 s, before 3 s"),
        ("paragraph_alignment", "val_1.json", '{"v0": {"timestamps": [[3, 3]], "sentences": ["a"]}}', "ends before it"),
    ],
)  # fmt: skip
def test_broken_annotations_are_one_line(
    task: str, name: str, content: str, match: str, place: Path, models: Path
) -> None:
    benchmark = benchmark_of(task, place, models, "egtea" if task == "egtea" else "")
    (place / name).write_text(content)
    with pytest.raises(DataError, match=match) as caught:
        evaluate_published(benchmark, place / "out", print)
    assert "\n" not in str(caught.value) and not (place / "out").exists()


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [("start", "0:0", "start_timestamp must be hh:mm:ss.ss, found '0:0'"), ("verb", "take", "a class must be a whole")],
)
def test_a_wrong_cell_of_a_table_is_named(column: str, value: str, match: str, place: Path, models: Path) -> None:
    benchmark = benchmark_of("multi_instance_retrieval", place, models)
    row = list(ACTIONS[0])
    row[{"start": 0, "verb": 3}[column]] = value
    epic_csv(place / "test.csv", [tuple(row)])  # type: ignore[list-item]
    with pytest.raises(DataError, match=rf"test\.csv line 2: {match}"):
        evaluate_published(benchmark, place / "out", print)


def test_a_stretch_that_ends_before_it_starts_is_left_out(place: Path, models: Path) -> None:
    benchmark = benchmark_of("multi_instance_retrieval", place, models)
    epic_csv(place / "test.csv", [("00:00:03.00", "00:00:02.00", *ACTIONS[0][2:]), *ACTIONS[1:]])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"1 of 4 items.*line 2: P01_11_0 must end after 3 s, found 2 s"):
        evaluate_published(benchmark, place / "out", print)


def test_the_command_line(place: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = benchmark_of("long_classes", place, models)
    path = place / "b.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in vars(benchmark).items() if value is not None))
    assert main(["evaluate", str(path), "--out", str(place / "out")]) == 0
    out = capsys.readouterr().out
    assert "accuracy" in out and "0.2500" in out and "4 items; what was said of each is in" in out
    assert main(["evaluate", str(path), "--media", str(place)]) == 2
    assert "--media asks about" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--model", "tiny", "--out", str(place / "out")]) == 2
    assert "it is of a 'video_llama' model" in capsys.readouterr().err


def test_numbers_come_back_exactly() -> None:
    values = torch.randn(3, 4).numpy()
    assert np.array_equal(unpacked(json.loads(json.dumps(packed(values)))), values)
    assert table({"mean rank": 2.0, "R@1": 0.5, "METEOR": None}) == [
        "mean rank  2.00",
        "R@1        0.5000",
        "METEOR     not computed",
    ]


def test_every_task_is_of_some_room() -> None:
    assert {"world", "tool_use", *egocentric.TASKS, *long_videos.TASKS} == set(TASKS)
