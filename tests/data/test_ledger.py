"""The ledger: nothing is skipped without a word, and too much is too much."""

import json
import multiprocessing

import pytest

from videollm.data.ledger import Ledger, read_ledger
from videollm.errors import DataError, UnusableSampleError


def skip(ledger, index, reason="broken media"):
    ledger.skip("films", index, f"film {index}", UnusableSampleError(reason, f"{index}.mp4:\nis broken"))


def test_each_is_entered_and_counted(tmp_path):
    ledger = Ledger(tmp_path / "run" / "ledger.jsonl")
    for index in range(3):
        skip(ledger, index)
    skip(ledger, 9, "empty caption")
    assert str(ledger) == "3 broken media, 1 empty caption" and ledger.skipped == 4
    assert read_ledger(ledger.path)[0] == {
        "source": "films", "index": 0, "id": "film 0", "reason": "broken media", "message": "0.mp4: is broken",
    }  # fmt: skip


def test_past_the_share_the_reasons_are_told(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", max_skipped_share=0.05)
    for index in range(95):
        ledger.use()
        if index % 19 == 0:
            skip(ledger, index)  # 5 of 100 is not more than 0.05
    assert ledger.skipped == 5
    with pytest.raises(DataError) as error:
        skip(ledger, 100, "missing media")
    assert str(error.value).startswith("6 of 101 samples could not be used, more than max_skipped_share 0.05")
    assert "5 broken media, 1 missing media" in str(error.value) and "ledger.jsonl" in str(error.value)
    assert len(read_ledger(ledger.path)) == 6


def test_a_cut_line_harms_no_other(tmp_path):
    path = tmp_path / "ledger.jsonl"
    skip(Ledger(path), 1)
    with path.open("a") as file:
        file.write('{"source": "films", "ind')
    skip(Ledger(path), 2)
    skip(Ledger(path), 1)
    assert [entry["index"] for entry in read_ledger(path)] == [1, 2]


def _fill(path, first):
    ledger = Ledger(path, max_skipped_share=1.0)
    for index in range(first, first + 200):
        skip(ledger, index)


def test_processes_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(path, first)) for first in (0, 1000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 400 and len({json.loads(line)["index"] for line in lines}) == 400


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match="max_skipped_share"):
        Ledger(max_skipped_share=5)
    with pytest.raises(DataError, match="cannot read"):
        read_ledger("/nowhere/ledger.jsonl")
