"""A whole evaluation of a small untrained model: its files, resuming and processes; scores mean nothing here."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_model import small_model
from videollm.cli.main import main
from videollm.evaluation import world as evaluation
from videollm.evaluation.benchmark import WorldBenchmark
from videollm.evaluation.world import Examiner, evaluate_world, share_out

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    model, processor = small_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def two_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FILMS_A_PORTION", 3)


@pytest.fixture(scope="module")
def benchmark(model_folder: Path) -> WorldBenchmark:
    return WorldBenchmark(
        "small", str(model_folder), films=1, questions=2, kinds=("one", "cut"), max_new_tokens=5, workers=1
    )


def test_an_evaluation_writes_every_answer_and_resumes(
    benchmark: WorldBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    items = evaluate_world(benchmark, tmp_path, lines.append)
    kept = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(kept) == len(items) > 60
    assert {item["condition"] for item in kept} == set(benchmark.conditions)
    assert all(item["answer"] == again.answer for item, again in zip(kept, items, strict=True))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(cell["count"] for cell in scores["cells"]) == len(items)
    assert scores["benchmark"]["films"] == 1
    text = "\n".join(lines)
    for word in ("colour", "baseline", "refused outside", "questions about 6 films"):
        assert word in text
    assert not (tmp_path / "parts").exists()

    # Stopped half-way: the second run does the other portions only, and ends with the same answers.
    done: list[int] = []
    whole = Examiner.examine

    def interrupted(self: Examiner, portion: evaluation.Portion) -> list:
        if done:
            raise KeyboardInterrupt
        done.append(portion.number)
        return whole(self, portion)

    other = tmp_path / "again"
    monkeypatch.setattr(Examiner, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_world(benchmark, other, lines.append)
    assert len(list((other / "parts").glob("*.jsonl"))) == 1
    seen: list[int] = []

    def counted(self: Examiner, portion: evaluation.Portion) -> list:
        seen.append(portion.number)
        return whole(self, portion)

    monkeypatch.setattr(Examiner, "examine", counted)
    assert evaluate_world(benchmark, other, lines.append) == items
    assert sorted(seen + done) == [portion.number for portion in share_out(benchmark)]


def test_portions_of_another_benchmark_are_not_used(benchmark: WorldBenchmark, tmp_path: Path) -> None:
    folder = Path(benchmark.model)
    parts = evaluation._parts_folder(tmp_path, benchmark, folder)
    (parts / "00000.jsonl").write_text("")
    assert list(evaluation._parts_folder(tmp_path, benchmark, folder).glob("*.jsonl"))
    more = dataclasses.replace(benchmark, workers=7)
    assert list(evaluation._parts_folder(tmp_path, more, folder).glob("*.jsonl"))
    other = dataclasses.replace(benchmark, questions=9)
    assert not list(evaluation._parts_folder(tmp_path, other, folder).glob("*.jsonl"))


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(benchmark: WorldBenchmark, tmp_path: Path) -> None:
    alone = evaluate_world(benchmark, tmp_path / "one", lambda _: None)
    both = evaluate_world(dataclasses.replace(benchmark, workers=2), tmp_path / "two", lambda _: None)
    assert both == alone


def test_the_command_line(benchmark: WorldBenchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(
        "name: b\ntask: world\nmodel: nowhere\nfilms: 1\nquestions: 1\nkinds: [one]\nconditions: [seen]\nworkers: 1\n"
    )
    assert main(["evaluate", str(path)]) == 2
    assert "no model 'nowhere'" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--model", benchmark.model, "--out", str(tmp_path / "out")]) == 0
    assert "seen: score and majority baseline" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert main(["evaluate", str(path), "--model", benchmark.model, "--out", str(tmp_path / "file" / "out")]) == 2
    assert main(["evaluate", str(path), "--workers", "0"]) == 2
    for folder, words in ((tmp_path / "none", "no folder"), (tmp_path / "out", "no video in")):
        code = main(["evaluate", str(path), "--model", benchmark.model, "--media", str(folder)])
        errors = capsys.readouterr().err.strip().splitlines()
        assert code == 2 and len(errors[-1:]) == 1 and words in errors[-1]


def test_help_needs_no_torch() -> None:
    code = "import sys; from videollm.cli.main import main; main(['evaluate', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("False")
    assert "--media" in done.stdout
