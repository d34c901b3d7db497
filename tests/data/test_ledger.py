"""The ledger: nothing is skipped without a word, and too much is too much."""

import json

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tests import fresh
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
    for _ in range(920):
        ledger.use()
    for index in range(62):
        skip(ledger, index)  # 0.05 of 982, and what chance may add to them, is 62.8
    with pytest.raises(DataError) as error:
        skip(ledger, 1000, "missing media")
    assert str(error.value).startswith("63 of 983 samples could not be used, more than max_skipped_share 0.05")
    assert "62 broken media, 1 missing media" in str(error.value) and "ledger.jsonl" in str(error.value)
    assert len(read_ledger(ledger.path)) == 63


@pytest.mark.parametrize(("broken", "stops"), [(0.05, 0), (0.3, 200)])
def test_chance_does_not_stop_a_run_and_damage_does(broken, stops):
    draw = np.random.default_rng(0)
    stopped = 0
    for _ in range(200):
        ledger = Ledger()
        try:
            for index, is_broken in enumerate(draw.random(300) < broken):
                if is_broken:
                    skip(ledger, index)
                else:
                    ledger.use()
        except DataError:
            stopped += 1
    assert stopped == stops


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
    fresh.run(_fill, (path, 0), (path, 1000))
    lines = path.read_text().splitlines()
    assert len(lines) == 400 and len({json.loads(line)["index"] for line in lines}) == 400


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match="max_skipped_share"):
        Ledger(max_skipped_share=5)
    with pytest.raises(DataError, match="cannot read"):
        read_ledger("/nowhere/ledger.jsonl")


class Tried(Dataset):
    """Every third cannot be used."""

    def __init__(self, ledger):
        self.ledger = ledger

    def __len__(self):
        return 120

    def __getitem__(self, index):
        if index % 3:
            self.ledger.use()
        else:
            skip(self.ledger, index, "missing media" if index % 2 else "too long")
        return index


def test_counts_are_those_of_all_workers():
    ledger = Ledger(max_skipped_share=1.0)
    list(DataLoader(Tried(ledger), batch_size=4, num_workers=2, multiprocessing_context="fork"))
    assert ledger.used == 80 and ledger.reasons == {"missing media": 20, "too long": 20}


def test_the_share_is_that_of_all_workers():
    """Neither of two workers alone tries so many that it would judge; the error is one line, though a worker's."""
    ledger = Ledger(max_skipped_share=0.2, least_seen=80)
    with pytest.raises(DataError, match=r"^\d+ of \d+ samples could not be used, more than max_skipped_share") as error:
        list(DataLoader(Tried(ledger), batch_size=4, num_workers=2, multiprocessing_context="fork"))
    assert "\n" not in str(error.value)
