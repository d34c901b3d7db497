"""What a recipe may say of its data."""

import json

import pytest

from videollm.data.datasets import Dataset, open_mixture
from videollm.errors import ConfigError, DataError


def own(path, ids):
    parts = [{"role": role, "parts": [{"type": "text", "text": "a"}]} for role in ("user", "assistant")]
    path.write_text("\n".join(json.dumps({"id": one, "messages": parts}) for one in ids))
    return str(path)


def test_a_mixture_has_its_datasets_in_order(tmp_path):
    datasets = [
        Dataset("jsonl", own(tmp_path / "a.jsonl", "ab"), ratio=3.0),
        Dataset("jsonl", own(tmp_path / "b.jsonl", "xyz"), name="other"),
    ]
    mixture = open_mixture(datasets, seed=1, group=4)
    assert [(source.name, len(source)) for source in mixture.sources] == [("a", 2), ("other", 3)]
    places = [mixture.place(k).source for k in range(4000)]
    assert 0.7 < places.count(0) / 4000 < 0.8 and all(len(set(places[k : k + 4])) == 1 for k in range(0, 4000, 4))
    assert {mixture[k].id for k in range(100)} == set("abxyz")


def test_captions_and_dialogues_are_told_apart():
    assert Dataset("webvid", "a", "b").learned_as == "caption" and Dataset("jsonl", "a").learned_as == "dialogue"
    assert Dataset("jsonl", "a", form="caption").learned_as == "caption"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("webvid", "a"), "needs the folder"),
        (("jsonl", "a", "", 0.0), "ratio of a must be positive"),
        (("jsonl", "a", "", float("nan")), "ratio of a must be positive"),
    ],
)
def test_what_cannot_be(given, told):
    with pytest.raises(ValueError, match=told):
        Dataset(*given)


def test_what_belongs_to_other_formats():
    with pytest.raises(ValueError, match="requests stand before"):
        Dataset("jsonl", "a", requests=True)
    with pytest.raises(ValueError, match="as_published is about captions of webvid"):
        Dataset("minigpt4", "a", as_published=True)


def test_pickles_are_converted_once(tmp_path):
    with pytest.raises(ConfigError, match="videollm data convert lavila_narrations"):
        open_mixture([Dataset("lavila_narrations", "a.pkl", "videos")])
    with pytest.raises(ConfigError, match="at least one dataset"):
        open_mixture([])
    with pytest.raises(DataError, match="cannot read"):
        open_mixture([Dataset("jsonl", str(tmp_path / "none.jsonl"))])
