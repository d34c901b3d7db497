"""LaViLa's benchmarks as published: what becomes of a row, and where its video lies. Wrong files are in
tests/evaluation/test_published.py."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from videollm.data.egocentric import (
    Stretch,
    action_classes,
    charades_classes,
    charades_ego,
    egomcq,
    egtea,
    egtea_actions,
    epic_actions,
    narrated,
)
from videollm.data.sample import Media
from videollm.errors import DataError, UnusableSampleError

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def test_epic_kitchens(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"{HEADER}P01_11_0,P01,P01_11,0,01:02:03.50,01:02:04,1,2,take plate,take,10,plate,2,['plate'],[2]\n"
        'P01_11_1,P01,P01_11,0,00:00:00.00,00:00:01.25,1,2,"wash, then dry",wash,2,hand,11,"[1, 2]",[11]\n'
    )
    first, second = epic_actions(path)
    assert (first.id, first.video, first.classes) == ("P01_11_0", "P01/P01_11.MP4", (10, 2))
    assert (first.start_seconds, first.end_seconds) == (3723.5, 3724.0) and first.where.endswith("line 2")
    assert second.texts == ("wash, then dry",) and second.end_seconds == 1.25
    # Sorted as text, as the published heads are: "10:2" before "2:11".
    assert action_classes([second, first], [first]) == [(10, 2), (2, 11)]


def test_a_stretch_of_a_video_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "u.mp4").mkdir()
    for name in ("u.mp4/300.mp4", "w.mp4"):
        (tmp_path / name).write_bytes(b"")
    in_pieces = Stretch("1", "u.mp4", 310.0, 312.5).media(tmp_path)
    assert in_pieces == Media(str(tmp_path / "u.mp4/300.mp4"), 10.0, 12.5)
    runs_on = Stretch("1", "u.mp4", 599.0, 602.0).media(tmp_path)
    assert (runs_on.start_seconds, runs_on.end_seconds) == (299.0, 300.0)
    assert Stretch("1", "w.mp4", 310.0, 312.5).media(tmp_path) == Media(str(tmp_path / "w.mp4"), 310.0, 312.5)
    for stretch, match in (
        (Stretch("1", "u.mp4", 10.0, 12.0, where="row 7"), r"row 7: there is no file .*u\.mp4/0\.mp4"),
        (Stretch("1", "../w.mp4", 1.0, 2.0), "leads out of"),
        (Stretch("1", "w.mp4", 2.0, 2.0), "must end after 2 s, found 2 s"),
    ):
        with pytest.raises(UnusableSampleError, match=match):
            stretch.media(tmp_path)


def test_narrations_of_one_stretch_are_one_item(tmp_path: Path) -> None:
    rows = [("v", 0.5, 2.0, "a"), ("v", 0.5, 2.0, ["b", "c"]), ("v", -1, 2.0, "d", 0.5)]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(rows))
    assert [(one.texts, one.start_seconds) for one in narrated(tmp_path / "a.pkl")] == [
        (("a", "b", "c"), 0.5),
        (("d",), 0),
    ]


def test_egomcq(tmp_path: Path) -> None:
    choices = {str(n): {"video_uid": f"u{n}", "clip_start": n, "clip_end": n + 1.5, "clip_text": "x"} for n in range(5)}
    row = {"answer": 3, "types": 2, "query": {"clip_text": "#C C opens a door"}, "choices": choices}
    (tmp_path / "a.json").write_text(json.dumps({"7": row}))
    (one,) = egomcq(tmp_path / "a.json")
    assert (one.id, one.text, one.answer, one.type) == ("7", "#C C opens a door", 3, 2)
    assert [clip.video for clip in one.clips] == [f"u{n}.mp4" for n in range(5)] and one.clips[2].end_seconds == 3.5
    (tmp_path / "a.json").write_text(json.dumps({"7": row | {"answer": 5}}))
    with pytest.raises(DataError, match="needs a text, one of 5 answers and the type 1 or 2"):
        egomcq(tmp_path / "a.json")


def test_charades_and_egtea(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("id,actions,length\nAB12,c003 1 2;c000 0.5 9;c003 4 5,9\nCD34,,3\n")
    first, second = charades_ego(path)
    assert (first.video, first.classes, first.start_seconds) == ("AB12.mp4", (0, 3), None) and second.classes == ()
    path.write_text("c000 Holding some clothes\nc001 Putting clothes somewhere\n")
    assert charades_classes(path) == ["Holding some clothes", "Putting clothes somewhere"]
    path.write_text("OP01-R01-PastaSalad-66680-68130-F001597-F001639 12 3 4\n")
    (clip,) = egtea(path)
    assert clip.video == "OP01-R01-PastaSalad/OP01-R01-PastaSalad-66680-68130-F001597-F001639.mp4"
    assert clip.classes == (11,)
    path.write_text("Inspect/Read recipe 1\nCut_tomato 2\n")
    assert egtea_actions(path) == ["inspect/read recipe", "cut tomato"]
    path.write_text("Cut_tomato 2\n")
    with pytest.raises(DataError, match="numbered from 1 to 1"):
        egtea_actions(path)
