"""Laws of order: the k-th sample is the k-th sample, whoever reads it, and wherever one begins."""

import pickle
from collections import Counter

import pytest
from torch.utils.data import DataLoader, Dataset

from videollm.data.ledger import Ledger, read_ledger
from videollm.data.mixture import Mixture
from videollm.data.sample import Sample
from videollm.errors import DataError, UnusableSampleError
from videollm.messages import assistant, user


class Numbers:
    """A source of numbered samples, some of which cannot be used."""

    def __init__(self, name, count, unusable=()):
        self.name, self.count, self.unusable = name, count, frozenset(unusable)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.unusable:
            raise UnusableSampleError("broken media", f"{self.name} {index} is broken")
        return Sample(f"{self.name}-{index}", (user("?"), assistant(str(index))), {}, self.name)


class Ids(Dataset):
    """What a loader's workers see of a mixture."""

    def __init__(self, mixture, start, stop):
        self.mixture, self.order = mixture, list(mixture.positions(start, stop))

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        return self.mixture[self.order[index]].id


def mixture(**options):
    return Mixture([Numbers("webvid", 50, {7, 8}), Numbers("cc3m", 20)], [100, 24], **{"seed": 3, **options})


def test_one_worker_and_three_give_the_same_order():
    ids = [mixture()[k].id for k in range(40)]
    for workers in (1, 3):
        loader = DataLoader(Ids(mixture(), 0, 40), batch_size=4, num_workers=workers, multiprocessing_context="fork")
        assert [one for batch in loader for one in batch] == ids


def test_resumed_is_uninterrupted_and_ranks_share_all():
    ids = [mixture()[k].id for k in range(4300)]
    fresh = mixture()
    assert [fresh[k].id for k in range(4290, 4300)] == ids[4290:]
    assert [fresh[k].id for k in range(10)] == ids[:10]
    assert [pickle.loads(pickle.dumps(fresh))[k].id for k in range(4090, 4100)] == ids[4090:4100]
    parts = [list(fresh.positions(100, 163, part, 3)) for part in range(3)]
    assert sorted(one for part in parts for one in part) == list(range(100, 163))


def test_ratios_are_kept_and_every_epoch_has_each_sample_once():
    mixed = Mixture([Numbers("webvid", 50), Numbers("cc3m", 20)], [100, 24], seed=3)
    places = [mixed.place(k) for k in range(8_000)]
    assert sum(place.source == 0 for place in places) / 8_000 == pytest.approx(100 / 124, abs=0.02)
    for source, count in ((0, 50), (1, 20)):
        epochs = Counter((place.epoch, place.index) for place in places if place.source == source)
        assert set(epochs.values()) == {1}
        assert {index for epoch, index in epochs if epoch == 5} == set(range(count))
    first, second = ([place.index for place in places if place.source == 0 and place.epoch == e] for e in (0, 1))
    assert first != second and sorted(first) == sorted(second)
    assert [Mixture(mixed.sources, seed=4).place(k) for k in range(50)] != places[:50]


def test_a_group_is_of_one_source():
    mixed = Mixture([Numbers("a", 50), Numbers("b", 20), Numbers("c", 7)], seed=1, group=8)
    groups = [{mixed.place(k).source for k in range(g * 8, g * 8 + 8)} for g in range(200)]
    assert all(len(group) == 1 for group in groups) and set().union(*groups) == {0, 1, 2}


def test_a_skipped_sample_is_replaced_by_the_next_and_told(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    mixed = Mixture([Numbers("webvid", 50, {7, 8})], seed=3, ledger=ledger)
    order = [mixed.place(k).index for k in range(50)]
    for broken in (7, 8):
        place = order.index(broken)
        assert mixed[place].id == mixed[(place + 1) % 50].id == f"webvid-{order[(place + 1) % 50]}"
    assert [(entry["source"], entry["index"]) for entry in read_ledger(ledger.path)] == [("webvid", 7), ("webvid", 8)]
    assert ledger.used == 4 and ledger.skipped == 2


def test_broken_ones_side_by_side_count_as_many_as_they_are():
    """A folder that is missing: 30 of 400 samples, one after the other in the file."""
    ledger = Ledger(max_skipped_share=0.09)
    mixed = Mixture([Numbers("webvid", 400, range(100, 130))], seed=3, ledger=ledger)
    for k in range(400):
        mixed[k]
    assert ledger.used == 400 and 30 <= ledger.skipped <= 35


def test_a_source_with_nothing_usable_ends():
    with pytest.raises(DataError, match=r"webvid: none of 5 samples in a row could be used \(5 broken media\)"):
        Mixture([Numbers("webvid", 5, range(5))])[0]


def test_too_many_skipped_stop():
    mixed = Mixture([Numbers("webvid", 500, range(0, 500, 3))], ledger=Ledger(max_skipped_share=0.2))
    with pytest.raises(DataError, match=r"more than max_skipped_share 0\.2 \(\d+ broken media\)"):
        for k in range(500):
            mixed[k]


@pytest.mark.parametrize(
    ("sources", "options"),
    [([], {}), ([Numbers("a", 0)], {}), ([Numbers("a", 1)], {"ratios": [0]}), ([Numbers("a", 1)], {"group": 0})],
)
def test_mixtures_that_are_none(sources, options):
    with pytest.raises(ValueError, match=r"needs|empty|positive"):
        Mixture(sources, **options)
