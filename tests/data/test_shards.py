"""Shards: what goes in comes out, in an order that no number of workers changes, and a killed run is continued."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tests.data.dataset import sample, write_samples
from tests.data.file_server import serving
from tests.media.numbered import everything, numbered_frames, numbers_of, tones
from videollm.data import ranges
from videollm.data.sample import Media, Sample
from videollm.data.shards import ShardSamples, write_shards
from videollm.errors import DataError, UnusableSampleError
from videollm.media.write import write_sound, write_video

COUNT = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven samples over three files: whole ones, stretches, a sample with two, one of words alone."""
    folder = tmp_path_factory.mktemp("dataset")
    write_video(folder / "film.mp4", numbered_frames(40), fps=10, waveform=tones(4.0, 16000, 1), key_every=10)
    write_video(folder / "short.webm", numbered_frames(8, first=100), fps=8)
    write_sound(folder / "sound.wav", tones(3.0, 16000, 1))
    samples = [
        sample(0, film=Media("film.mp4")),
        sample(1, film=Media("film.mp4", 1.0, 2.0)),
        sample(2, film=Media("film.mp4", 3.0)),
        sample(3, sound=Media("sound.wav", 0.5, 1.5)),
        sample(4),
        sample(5, one=Media("film.mp4", 0.0, 0.5), two=Media("short.webm")),
        *(sample(number, short=Media("short.webm")) for number in range(6, COUNT)),
    ]
    write_samples(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


def test_words_alone_are_a_small_read(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ShardSamples(shards)
    taken: list[int] = []
    read = ranges.read_range

    def counted(location: str, start: int, count: int) -> bytes:
        taken.append(count)
        return read(location, start, count)

    monkeypatch.setattr("videollm.data.shards.read_range", counted)
    monkeypatch.setattr("videollm.data.shards.FIRST_BYTES", 1024)  # less than some of the descriptions
    few = all_ = 0
    for number in range(COUNT):
        words = samples.words(number)
        few, taken[:] = few + sum(taken), []
        whole = samples[number]
        all_, taken[:] = all_ + sum(taken), []
        assert (words.id, words.messages, words.media.keys()) == (whole.id, whole.messages, whole.media.keys())
    assert few < all_ / 4
    with pytest.raises(IndexError):
        samples.words(COUNT)


@pytest.fixture(scope="module")
def shards(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    report = write_shards(dataset, out, shard_size=4, workers=2, progress=False)
    assert (report.shards, report.found, report.samples, report.left_out) == (3, 0, COUNT, ())
    return out


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def frames_of(sample: Sample, name: str) -> list[int]:
    return numbers_of(everything(Path(sample.media[name].path)))


def test_what_goes_in_comes_out(shards):
    samples = ShardSamples(shards)
    assert len(samples) == COUNT
    found = [samples[number] for number in range(COUNT)]
    assert [one.id for one in found] == [f"größe-{number}" for number in range(COUNT)]
    assert [one.messages[1].text for one in found] == [f"It is {number}." for number in range(COUNT)]
    assert frames_of(found[0], "film") == list(range(40))
    assert frames_of(found[1], "film") == list(range(10, 20))
    assert frames_of(found[2], "film") == list(range(30, 40))
    assert found[1].media["film"].start_seconds is None
    assert everything(Path(found[3].media["sound"].path)).duration_seconds == pytest.approx(1.0, abs=1e-3)
    assert found[4].media == {}
    assert frames_of(found[5], "one") == list(range(5)) and frames_of(found[5], "two") == list(range(100, 108))
    for number in (COUNT, -1):
        with pytest.raises(IndexError):
            samples[number]
    samples.check(progress=False)


def test_the_tars_are_webdatasets(shards):
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(shards / "shard-000001.tar"), shardshuffle=False, empty_check=False))
    assert [one["__key__"] for one in found] == [f"{number:012d}" for number in range(4, 8)]
    assert set(found[1]) >= {"json", "0.mp4", "1.webm"}
    assert json.loads(found[0]["json"])["id"] == "größe-4"


def test_the_index_counts_and_checks(shards):
    index = json.loads((shards / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [4, 4, 3] and index["samples"] == COUNT
    for shard in index["shards"]:
        content = (shards / f"{shard['name']}.tar").read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["size_bytes"], shard["sha256"])
        with tarfile.open(shards / f"{shard['name']}.tar") as tar:
            assert all(member.isreg() for member in tar)


def test_the_shards_do_not_depend_on_the_number_of_workers(dataset, shards, tmp_path):
    write_shards(dataset, tmp_path / "one", shard_size=4, workers=1, progress=False)
    assert digests(tmp_path / "one") == digests(shards)


def test_whole_files_keep_their_stretches(dataset, tmp_path):
    write_shards(dataset, tmp_path, shard_size=100, whole=True, progress=False)
    samples = ShardSamples(tmp_path)
    one = samples[1].media["film"]
    assert (one.start_seconds, one.end_seconds) == (1.0, 2.0)
    assert Path(one.path).read_bytes() == (dataset.parent / "film.mp4").read_bytes()


def test_media_of_old_samples_go_and_all_with_the_object(shards, tmp_path):
    samples = ShardSamples(shards, scratch=tmp_path, keep=2)
    first = Path(samples[0].media["film"].path)
    again = Path(samples[0].media["film"].path)
    assert first == again and first.is_file()
    _ = samples[1], samples[2]
    assert not first.exists() and len(list(first.parent.iterdir())) == 2
    copy = pickle.loads(pickle.dumps(samples))
    assert Path(copy[1].media["film"].path).is_file()
    del copy
    assert first.parent.is_dir()
    del samples
    assert list(tmp_path.iterdir()) == []


# --- order ------------------------------------------------------------------------------------------------------------


class Ordered(Dataset):
    """The ids of samples in an order, as a DataLoader's workers see them."""

    def __init__(self, samples: ShardSamples, order: np.ndarray) -> None:
        self.samples, self.order = samples, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> str:
        one = self.samples[int(self.order[place])]
        assert all(Path(media.path).is_file() for media in one.media.values())
        return one.id


def test_the_order_is_a_law_of_seed_and_epoch(shards):
    samples, again = ShardSamples(shards), ShardSamples(shards)
    orders = {(seed, epoch): samples.order(seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    for (seed, epoch), order in orders.items():
        assert sorted(order) == list(range(COUNT)) and again.order(seed, epoch).tolist() == order
    # With one shard at a time, the samples of a shard stay together.
    blocks = [int(number) // 4 for number in samples.order(3, 0, mixed_shards=1)]
    assert sum(a != b for a, b in pairwise(blocks)) == 2


def test_no_number_of_workers_changes_the_order(shards):
    samples = ShardSamples(shards)
    order = samples.order(5)
    wanted = [f"größe-{number}" for number in order]
    for workers in (0, 1, 2):
        loader = DataLoader(Ordered(samples, order), batch_size=2, num_workers=workers)
        assert [one for batch in loader for one in batch] == wanted
    assert Path(samples[0].media["film"].path).is_file()  # no worker took the scratch folder with it


def test_a_stream_goes_on_at_the_exact_sample_and_ranks_share_it(shards):
    samples = ShardSamples(shards)
    whole = [(place, one.id) for place, one in samples.stream(7)]
    for start in (0, 1, 6, COUNT):
        assert [(place, one.id) for place, one in samples.stream(7, start=start)] == whole[start:]
    shares = [[(p, one.id) for p, one in samples.stream(7, start=3, rank=rank, ranks=3)] for rank in range(3)]
    assert sorted(one for share in shares for one in share) == whole[3:]


# --- over a network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_ranges", [True, False])
def test_streaming_from_an_address_is_streaming_from_a_disk(shards, monkeypatch, with_ranges):
    monkeypatch.setattr(ranges, "FIRST_WAIT_SECONDS", 0.01)
    with serving(shards) as server:
        server.with_ranges = with_ranges
        for location in (server.address, f"{server.address}/index.json?key=1"):
            samples = ShardSamples(location)
            server.busy, server.drops = 1, 2
            near = ShardSamples(shards)
            for (place, far), (_, here) in zip(samples.stream(2), near.stream(2), strict=True):
                assert far.messages == here.messages, place
                for name, one in far.media.items():
                    assert Path(one.path).read_bytes() == Path(here.media[name].path).read_bytes()
        samples.check(progress=False)


def test_an_address_without_shards_is_one_line(tmp_path):
    with serving(tmp_path) as server, pytest.raises(DataError, match=r"cannot read http.*/index\.json: status 404"):
        ShardSamples(server.address)
    with pytest.raises(DataError, match=r"cannot read .*index\.json: no such file"):
        ShardSamples(tmp_path)


# --- damage and ill will ----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(shards, tmp_path):
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def test_a_truncated_shard(copy):
    tar = copy / "shard-000000.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 2])
    samples = ShardSamples(copy)
    with pytest.raises(UnusableSampleError, match=r"shard-000000\.tar sample 3: truncated \("):
        samples[3]
    with pytest.raises(DataError, match=r"shard-000000\.tar: truncated \("):
        samples.check(progress=False)
    assert samples[4].id == "größe-4"  # the others are unharmed


def test_a_changed_byte(copy):
    tar = copy / "shard-000002.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    samples = ShardSamples(copy)
    failed = 0
    for number in range(8, COUNT):
        try:
            samples[number]
        except DataError as error:
            assert "damaged" in str(error)
            failed += 1
    assert failed == 1
    with pytest.raises(DataError, match="other bytes than its index says"):
        samples.check(progress=False)


def forge(folder: Path, change) -> None:
    """Shard 0's ``.json`` changed, with an index that agrees."""
    path = folder / "shard-000000.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["json_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("begins", [0, 10**15, 2, 3, 4]),
        ("begins", []),
        ("begins", "01234"),
        ("crc32", [0.5] * 4),
        ("samples", 10**12),
        ("size_bytes", -1),
        ("left_out", 7),
        ("left_out", [[1, 2, 3]]),
    ],
)
def test_a_forged_description_of_a_shard(copy, key, value):
    forge(copy, lambda told: told.update({key: value}))
    with pytest.raises(DataError, match=r"shard-000000\.json: no index of a shard"):
        ShardSamples(copy)[0]


def test_a_forged_link_in_a_shard_is_refused_and_nothing_is_written(copy, tmp_path):
    tar = copy / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    info = tarfile.TarInfo("../../../tmp/evil")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content[:512] = info.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(content)
    (tmp_path / "scratch").mkdir()
    samples = ShardSamples(copy, scratch=tmp_path / "scratch")
    with pytest.raises(DataError, match="holds a symbolic link"):
        samples[0]
    assert [path for path in (tmp_path / "scratch").rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "7",
        "[" * 100_000,
        '{"format": "videollm-shards-1"}',
        '{"format": "other"}',
        '{"format": "videollm-shards-1", "shards": []}',
        '{"format": "videollm-shards-1", "shards": [{"name": "../../etc/passwd", "samples": 1, "size_bytes": 1, '
        f'"sha256": "{"0" * 64}", "json_sha256": "{"0" * 64}"}}]}}',
    ],
    ids=range(8),
)
def test_an_index_that_is_none(tmp_path, index):
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(DataError, match=r"index\.json: (no index of shards|of the format 'other')") as caught:
        ShardSamples(tmp_path)
    assert "\n" not in str(caught.value)


# --- interrupted runs -------------------------------------------------------------------------------------------------

KILLED = """
import sys
from videollm.data.shards import write_shards
write_shards(sys.argv[1], sys.argv[2], shard_size=4, workers=2, progress=False)
"""


def test_a_killed_run_is_continued_and_gives_the_same_bytes(dataset, shards, tmp_path):
    """Killed at its very start, with shards half-written, and with the first one finished."""
    out = tmp_path / "out"
    wanted = digests(shards)
    finished_before: set[str] = set()
    for sign in ("plan.json", ".shard-*", "shard-*.json"):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(dataset), str(out)])
        while process.poll() is None and not list(out.glob(sign)):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it ended before {sign} was there"
        there = {path.name for path in out.iterdir() if not path.name.startswith(".")}
        assert "index.json" not in there and finished_before <= there
        for name in there:  # whatever has its final name is whole
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == wanted[name], name
        finished_before = there
    report = write_shards(dataset, out, shard_size=4, workers=2, progress=False)
    assert report.found >= 1
    assert digests(out) == wanted


def test_what_is_finished_is_not_written_again(dataset, shards, copy):
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("shard-*")}
    (copy / "shard-000001.json").unlink()
    (copy / ".shard-000001.tar.half.tar").write_bytes(b"half")
    (copy / ".work-old").mkdir()
    report = write_shards(dataset, copy, shard_size=4, progress=False)
    assert (report.shards, report.found, report.samples) == (3, 2, COUNT)
    assert digests(copy) == digests(shards)
    after = {path.name: path.stat().st_mtime_ns for path in copy.glob("shard-*")}
    assert {name for name in after if after[name] != before[name]} == {"shard-000001.json", "shard-000001.tar"}


def test_a_folder_of_another_run_is_left_alone(dataset, copy, tmp_path):
    wanted = digests(copy)
    with pytest.raises(DataError, match="begun with another shard size"):
        write_shards(dataset, copy, shard_size=5, progress=False)
    other = tmp_path / "samples.jsonl"
    other.write_bytes(dataset.read_bytes().replace(b"What is 1", b"What was 1"))
    with pytest.raises(DataError, match="begun with other contents of the file"):
        write_shards(other, copy, shard_size=4, progress=False)
    assert digests(copy) == wanted
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match=r"holds other files \('letter\.txt'\)"):
        write_shards(dataset, tmp_path / "mine", progress=False)
    with pytest.raises(DataError, match="cannot write shards into"):
        write_shards(dataset, tmp_path / "mine" / "letter.txt", progress=False)


def test_two_runs_at_once(dataset, copy):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(60)",
            str(copy),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(DataError, match="is being written by another process"):
        write_shards(dataset, copy, shard_size=4, progress=False)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    write_shards(dataset, copy, shard_size=4, progress=False)


def test_bad_samples_are_left_out_each_with_its_reason(dataset, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(dataset.parent, folder)
    (folder / "noise.mp4").write_bytes(b"no clip at all" * 99)
    samples = [
        sample(0, film=Media("film.mp4")),
        sample(1, film=Media("none.mp4")),
        sample(2, film=Media("noise.mp4")),
        sample(3, film=Media("film.mp4", 90.0, 91.0)),
        sample(4, film=Media("film.mp4", 1.0, 1.5)),
    ]
    write_samples(folder / "bad.jsonl", samples)
    with (folder / "bad.jsonl").open("a") as file:
        file.write("{no json\n")
    report = write_shards(folder / "bad.jsonl", tmp_path / "out", progress=False)
    assert report.samples == 2
    assert [line for line, _ in report.left_out] == [3, 5, 7, 10]
    for (_, reason), says in zip(report.left_out, ("none.mp4", "noise.mp4", "nothing to cut", "JSON"), strict=True):
        assert says in reason and "\n" not in reason
    samples = ShardSamples(tmp_path / "out")
    assert [samples[number].id for number in range(2)] == ["größe-0", "größe-4"]
    again = write_shards(folder / "bad.jsonl", tmp_path / "out", progress=False)
    assert (again.found, again.left_out) == (1, report.left_out)

    write_samples(folder / "worse.jsonl", [sample(1, film=Media("none.mp4"))])
    with pytest.raises(DataError, match=r"none of the 1 samples .* line 1: .*none\.mp4"):
        write_shards(folder / "worse.jsonl", tmp_path / "worse", progress=False)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name, says in (("none.jsonl", "cannot read .*: No such file"), ("empty.jsonl", "holds no line")):
        with pytest.raises(DataError, match=says):
            write_shards(tmp_path / name, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
