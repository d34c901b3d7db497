"""``videollm data`` as a person runs it: what it prints, how it ends, and one line for whatever cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.data.dataset import sample, write_samples
from tests.media.numbered import numbered_frames
from videollm.cli.main import main
from videollm.data.sample import Media
from videollm.data.shards import ShardSamples
from videollm.media.write import write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Run:
    """``videollm data``: its exit code, and what it wrote to stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["data", *map(str, words)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_video(folder / "film.mp4", numbered_frames(10), fps=10)
    write_samples(folder / "good.jsonl", [sample(0, film=Media("film.mp4")), sample(1)])
    write_samples(folder / "bad.jsonl", [sample(0, film=Media("film.mp4")), sample(1, film=Media("none.mp4"))])
    return folder


def test_validate(data: Run, folder: Path) -> None:
    code, out, err = data("validate", folder / "good.jsonl")
    assert (code, err) == (0, "")
    assert "samples: 2 with 4 messages" in out and "bad: 0 of 2" in out
    with Image.open(folder / "good.jsonl.png") as picture:
        assert picture.width > 500
    assert f"picture: {folder / 'good.jsonl.png'}" in out

    code, out, err = data("validate", folder / "bad.jsonl", "--json", "--no-picture", "--workers", 1)
    told = json.loads(out)
    assert (code, err) == (1, "") and "picture" not in told and not (folder / "bad.jsonl.png").exists()
    assert told["problems_by_kind"] == {"missing media": 1}
    assert [(problem["line"], problem["kind"]) for problem in told["problems"]] == [(3, "missing media")]
    code, out, _ = data("validate", folder / "bad.jsonl", "--picture", folder / "other.png")
    assert code == 1 and (folder / "other.png").exists()
    assert "line 3: missing media: " in out and "bad: 1 of 2 (1 missing media)" in out


def test_shard(data: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = data("shard", folder / "good.jsonl", "--out", tmp_path / "out", "--shard-size", 1, "--workers", 1)
    assert (code, err) == (0, "") and "2 samples, " in out and " in 2 shards, 0 left out" in out
    assert [one.id for _, one in ShardSamples(tmp_path / "out").stream(0, start=1)]
    code, out, _ = data("shard", folder / "good.jsonl", "--out", tmp_path / "out", "--shard-size", 1)
    assert code == 0 and "2 shards (2 of them were there)" in out
    code, out, _ = data("shard", folder / "bad.jsonl", "--out", tmp_path / "bad", "--whole")
    assert code == 1 and out.startswith("line 3: left out: ") and "1 left out" in out


def test_convert(data: Run, folder: Path, tmp_path: Path) -> None:
    told = [
        {"video": "film.mp4", "QA": [{"q": "Who?", "a": "A man."}]},
        {"video": "none.mp4", "QA": [{"q": "", "a": "b"}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(told[:1]))
    out_file = folder / "converted.jsonl"
    code, out, err = data("convert", "videochat", tmp_path / "a.json", "--media", folder, "--out", out_file)
    assert (code, err) == (0, "") and f"1 samples, 0 left out: {out_file}" in out and "form: dialogue" in out
    assert data("validate", out_file, "--no-picture")[0] == 0
    out_file.unlink()
    (tmp_path / "a.json").write_text(json.dumps(told))
    code, out, _ = data("convert", "videochat", tmp_path / "a.json", "--media", folder, "--out", out_file)
    assert code == 1 and "left out: " in out and "none.mp4" in out and "1 left out (1 missing media)" in out
    code, _, err = data("convert", "videochat", tmp_path / "a.json", "--media", folder, "--out", out_file)
    assert code == 2 and "exists; delete it" in err and err.count("\n") == 1
    out_file.unlink()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: WHAT"),
        (["valdate"], "invalid choice: 'valdate'"),
        (["validate"], "required: FILE.jsonl"),
        (["validate", "none.jsonl"], "cannot read none.jsonl"),
        (["validate", "{good}", "--model", "none"], "no model 'none'"),
        (["validate", "{good}", "--workers", "0"], "at least 1 worker"),
        (["validate", "{good}", "--workers", "x"], "invalid int value"),
        (["validate", "{good}", "--picture", "a.png", "--no-picture"], "exclude each other"),
        (["validate", "{good}", "--picture", "/none/a.png"], "cannot write the picture"),
        (["convert", "webvid", "{good}"], "required: --out"),
        (["convert", "jsonl", "{good}", "--out", "{out}"], "invalid choice: 'jsonl'"),
        (["convert", "webvid", "{good}", "--out", "{out}"], "give it with --media"),
        (["convert", "videochat", "{good}", "--out", "{out}", "--media", "none"], "no such folder of media"),
        (["convert", "videochat", "{good}", "--out", "{good}.jsonl", "--media", "{folder}"], "not JSON"),
        (["convert", "videochat", "{good}", "--out", "{out}", "--media", "{folder}", "--requests"], "requests stand"),
        (["shard", "{good}"], "required: --out"),
        (["shard", "none.jsonl", "--out", "{out}"], "cannot read none.jsonl"),
        (["shard", "{good}", "--out", "{out}", "--shard-size", "0"], "at least 1 sample"),
        (["shard", "{good}", "--out", "{out}", "--workers", "0"], "at least 1 worker"),
        (["shard", "{good}", "--out", "{good}"], "cannot write shards into"),
        (["shard", "{good}", "--out", "{out}", "--frob"], "--frob"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(data: Run, folder: Path, tmp_path: Path, words, says) -> None:
    given = [word.format(good=folder / "good.jsonl", out=tmp_path / "out", folder=folder) for word in words]
    code, out, err = data(*given)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["validate", "convert", "shard"])
def test_help_tells_the_exit_codes(data: Run, what: str) -> None:
    code, out, err = data(what, "--help")
    assert (code, err) == (0, "") and "Exit code 0" in " ".join(out.split())
