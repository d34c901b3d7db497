"""A benchmark file is read exactly, and a mistake in it is one line that names file, line and the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from videollm.errors import ConfigError
from videollm.evaluation.benchmark import (
    CONDITIONS,
    EgoMcq,
    PublishedBenchmark,
    ToolBenchmark,
    WorldBenchmark,
    load_benchmark,
)

ROOT = Path(__file__).parent.parent.parent


PUBLISHED = "name: x\ntask: egomcq\nmodel: m\nvideos: v\nannotations: a\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "eval_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_benchmarks_load(path: Path) -> None:
    benchmark = load_benchmark(path)
    assert benchmark.name == path.stem
    header = path.read_text(encoding="utf-8").split("\nname:")[0]
    assert all(line.startswith("#") or not line for line in header.splitlines())
    assert f"videollm evaluate eval_configs/{path.name}" in header and "Time:" in header
    assert isinstance(benchmark, WorldBenchmark | PublishedBenchmark | ToolBenchmark)
    assert isinstance(benchmark, WorldBenchmark) or "Needs:" in header


def test_values_are_taken_as_written(tmp_path: Path) -> None:
    text = (
        "name: x\nmodel: some/where\nfilms: 3\nkinds: [one, cut]\nconditions:\n  - new wordings\nfilms_folder: null\n"
        "task: world\n"
    )
    benchmark = load_benchmark(written(tmp_path, text))
    assert benchmark == WorldBenchmark("x", "some/where", films=3, kinds=("one", "cut"), conditions=("new wordings",))
    published = load_benchmark(written(tmp_path, f"{PUBLISHED}frames: 4\nmost_left_out: 0.1\n"))
    assert published == EgoMcq(
        name="x", task="egomcq", model="m", videos="v", annotations="a", frames=4, most_left_out=0.1
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: x\nfilm: 3\ntask: world\n", ["some.yaml line 2", "'film'", "did you mean 'films'?"]),
        ("name: x\n\nfilms: many\ntask: world\n", ["some.yaml line 3", "films", "'many'"]),
        ("name: x\nfilms: true\ntask: world\n", ["some.yaml line 2", "films"]),
        ("name: x\nfilms: 0\ntask: world\n", ["some.yaml", "films must be at least 1"]),
        ("films: 3\ntask: world\n", ["some.yaml", "'name'", "missing"]),
        ("name: 5\ntask: world\n", ["some.yaml line 1", "name"]),
        ("name: x\nkinds: one\ntask: world\n", ["some.yaml line 2", "kinds"]),
        ("name: x\nkinds: [onee]\ntask: world\n", ["some.yaml", "'onee'", "did you mean 'one'?"]),
        ("name: x\nkinds: [uno]\ntask: world\n", ["some.yaml", "'uno'", "one, two"]),
        ("name: x\nconditions: [revrsed]\ntask: world\n", ["some.yaml", "did you mean 'reversed'?"]),
        ("name: x\nconditions: []\ntask: world\n", ["some.yaml", "conditions", "empty"]),
        ("name: a/b\ntask: world\n", ["some.yaml", "folder"]),
        ("name: x\nfirst_film: -1\ntask: world\n", ["some.yaml", "first_film"]),
        ("- name\n", ["some.yaml", "mapping"]),
        ("name: [x\n", ["some.yaml line 2", "not valid YAML"]),
        ("name: x\n", ["some.yaml", "missing key 'task'", "world, multi_instance_retrieval"]),
        ("name: x\ntask: egomqc\n", ["some.yaml", "no task 'egomqc'", "did you mean 'egomcq'?"]),
        ("name: x\ntask: egomcq\nmodel: m\nvideos: v\n", ["some.yaml", "missing key 'annotations'"]),
        ("name: x\ntask: tool_use\nseconds: 5\n", ["some.yaml", "20 to 3600 seconds"]),
        ("name: x\ntask: tool_use\nworkers: 2\n", ["some.yaml", "workers must be 1"]),
        ("name: x\ntask: tool_use\nfilm: 2\n", ["some.yaml line 3", "did you mean 'films'?"]),
        (f"{PUBLISHED}batch: 3\n", ["some.yaml line 6", "'batch'", "did you mean 'batch_size'?"]),
        (f"{PUBLISHED}frames: 0\n", ["some.yaml", "frames must be at least 1"]),
        (f"{PUBLISHED}most_left_out: 2\n", ["some.yaml", "a share from 0 to 1"]),
        (f"{PUBLISHED}first: 0\n", ["some.yaml", "first must be at least 1"]),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, wanted: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_benchmark(written(tmp_path, text))
    line = str(caught.value)
    assert "\n" not in line
    for piece in wanted:
        assert piece in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(ConfigError, match=path.name):
            load_benchmark(path)


def test_conditions_are_those_of_the_splits() -> None:
    assert {"triples", "pairs"} < set(CONDITIONS)
