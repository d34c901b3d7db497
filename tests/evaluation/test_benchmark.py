"""A benchmark file is read exactly, and a mistake in it is one line that names file, line and the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from videollm.errors import ConfigError
from videollm.evaluation.benchmark import CONDITIONS, Benchmark, load_benchmark

ROOT = Path(__file__).parent.parent.parent


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


def test_values_are_taken_as_written(tmp_path: Path) -> None:
    text = (
        "name: x\nmodel: some/where\nfilms: 3\nkinds: [one, cut]\nconditions:\n  - new wordings\nfilms_folder: null\n"
    )
    benchmark = load_benchmark(written(tmp_path, text))
    assert benchmark == Benchmark("x", "some/where", films=3, kinds=("one", "cut"), conditions=("new wordings",))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: x\nfilm: 3\n", ["some.yaml line 2", "'film'", "did you mean 'films'?"]),
        ("name: x\n\nfilms: many\n", ["some.yaml line 3", "films", "'many'"]),
        ("name: x\nfilms: true\n", ["some.yaml line 2", "films"]),
        ("name: x\nfilms: 0\n", ["some.yaml", "films must be at least 1"]),
        ("films: 3\n", ["some.yaml", "'name'", "missing"]),
        ("name: 5\n", ["some.yaml line 1", "name"]),
        ("name: x\nkinds: one\n", ["some.yaml line 2", "kinds"]),
        ("name: x\nkinds: [onee]\n", ["some.yaml", "'onee'", "did you mean 'one'?"]),
        ("name: x\nkinds: [uno]\n", ["some.yaml", "'uno'", "one, two"]),
        ("name: x\nconditions: [revrsed]\n", ["some.yaml", "did you mean 'reversed'?"]),
        ("name: x\nconditions: []\n", ["some.yaml", "conditions", "empty"]),
        ("name: a/b\n", ["some.yaml", "folder"]),
        ("name: x\nfirst_film: -1\n", ["some.yaml", "first_film"]),
        ("- name\n", ["some.yaml", "mapping"]),
        ("name: [x\n", ["some.yaml line 2", "not valid YAML"]),
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
