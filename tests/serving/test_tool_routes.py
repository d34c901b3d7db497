"""Narrations and moments over HTTP: what the tools themselves give, of one's own files alone, and nothing is left."""

import contextlib
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.cli.bad_files import good, written
from tests.serving.served import KEY, MODEL, OTHER_KEY, QUESTION, Served, data_url, until
from videollm.errors import MomentIndexError
from videollm.moments.embed import load_sight_encoder
from videollm.moments.moment import Moment, Video
from videollm.moments.store import MomentStore
from videollm.serving import app as app_of
from videollm.serving import tool_routes
from videollm.tools.narrate import narrate
from videollm.tools.narrators import ChatNarrator
from videollm.tools.subtitles import Cue, srt, vtt


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """An index of two videos of this machine, told by hand."""
    folder = tmp_path_factory.mktemp("index")
    store = MomentStore.create(folder / "index", {}, {})
    for name, words in (("a/dog.mp4", "a dog barks"), ("b/cat.mp4", "a cat sleeps")):
        told = [Moment(at, at + 4, f"{words} {at}" if at else words) for at in (0.0, 10.0)]
        store.put(Video(str(folder / "films" / name), name, 14.0, 2, "hand"), told)
    return store


@pytest.fixture(scope="module")
def served(moments):
    one = Served(KEY, OTHER_KEY, moments=moments)
    yield one
    one.close()


def posted(served, path, body, key=KEY):
    return served.http.post(path, json=body, headers={"authorization": f"Bearer {key}"})


def uploaded(served, path, name="clip.mp4", key=KEY):
    answer = served.http.post(
        "/v1/media", params={"name": name}, content=path.read_bytes(), headers={"authorization": f"Bearer {key}"}
    )
    return f"media:{answer.json()['id']}"


def narrated(clip, window_seconds=1, **options):
    return list(narrate(clip, ChatNarrator(*MODEL), window_seconds=window_seconds, batch_windows=4, **options))


def refused(answer, status, words):
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]["message"]
    assert re.search(words, message) and "\n" not in message and len(message) < 500 and "/tmp" not in message, message


# -- narrations


def test_a_narration_is_that_of_the_tool(served, clip):
    told = narrated(clip)
    assert len(told) >= 2
    for media in (uploaded(served, clip), data_url(clip)):
        answer = posted(served, "/v1/narrations", {"media": media, "window_seconds": 1}).json()
        assert answer["narrations"] == [one.to_json() for one in told]
        assert (answer["object"], answer["model"], answer["notes"]) == ("narration", "small", [])
    part = posted(served, "/v1/narrations", {"media": data_url(clip), "window_seconds": 1, "start_seconds": 1}).json()
    assert part["narrations"][0]["start_seconds"] == 1
    assert posted(served, "/v1/narrations", {"media": data_url(clip), "cuts": True}).json()["narrations"] == [
        one.to_json() for one in narrated(clip, window_seconds=4, cuts=True)
    ]


def test_a_narration_as_subtitles(served, clip):
    cues = [Cue(one.start_seconds, one.end_seconds, one.text) for one in narrated(clip)]
    for form, kind, text in (("srt", "application/x-subrip", srt(cues)), ("vtt", "text/vtt", vtt(cues))):
        answer = posted(
            served, "/v1/narrations", {"media": data_url(clip), "window_seconds": 1, "response_format": form}
        )
        assert answer.headers["content-type"].startswith(kind) and answer.text == text


def test_a_streamed_narration_says_how_far_it_is(served, clip):
    kept = served.store.held_bytes
    answer = posted(served, "/v1/narrations", {"media": data_url(clip), "window_seconds": 1, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    events = [json.loads(one) for one in events]
    assert [one["narration"] for one in events if "narration" in one] == [one.to_json() for one in narrated(clip)]
    progress = [one["progress"] for one in events if "progress" in one]
    assert progress[0] == {"done": 0, "windows": 2} and progress[-1] == {"done": 2, "windows": 2}
    until(lambda: served.store.held_bytes == kept)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"media": "media:AAAAAAAAAAAAAAAAAAAAAAAA"}, 404, "no such media"),
        ({"media": "https://example.org/a.mp4"}, 400, "media: addresses are not fetched here"),
        ({"media": "file:///etc/passwd"}, 400, "media: addresses are not fetched"),
        ({"media": 7}, 400, "media: "),
        ({"model": "gpt-4o"}, 404, "no model 'gpt-4o'"),
        ({"window_seconds": 0.01}, 400, "window_seconds"),
        ({"window_seconds": 1e999}, 400, ""),
        ({"start_seconds": 5, "end_seconds": 5}, 400, "end_seconds must be more"),
        ({"start_seconds": 500}, 400, "video: .*lasts"),
        ({"stream": True, "response_format": "srt"}, 400, "not streamed"),
        ({"response_format": "mp4"}, 400, "response_format"),
    ],
)
def test_what_cannot_be_narrated(served, clip, change, status, words):
    body = json.dumps({"media": data_url(clip), **change})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    refused(served.http.post("/v1/narrations", content=body, headers=headers), status, words)


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_cannot_be_read_is_named_as_its_owner_does(served, tmp_path, stream):
    media = uploaded(served, written(tmp_path, "bad.mp4", b"no video " * 99), "holiday.mp4")
    answer = posted(served, "/v1/narrations", {"media": media, "stream": stream})
    refused(answer, 400, "^holiday.mp4: ")
    assert media.removeprefix("media:") not in answer.text


def test_others_cannot_have_it_narrated_or_searched(served, clip):
    media = uploaded(served, clip)
    for path, body in (("/v1/narrations", {"media": media}), ("/v1/moments", {"query": "x", "media": [media]})):
        refused(posted(served, path, body, OTHER_KEY), 404, "no such media")
    assert posted(served, "/v1/narrations", {"media": media}).status_code == 200


def test_two_at_once_and_whoever_goes_makes_room(clip, monkeypatch):
    go_on = threading.Event()

    def held(*arguments, progress, **options):
        progress(0, 2)
        assert go_on.wait(60)
        yield from narrate(*arguments, progress=progress, **options)

    monkeypatch.setattr(tool_routes, "narrate", held)
    one = Served()
    try:
        body = {"media": data_url(clip), "window_seconds": 1}
        with contextlib.ExitStack() as both:
            for _ in range(2):
                answer = both.enter_context(one.http.stream("POST", "/v1/narrations", json=body | {"stream": True}))
                assert answer.status_code == 200
            for path, asked in (
                ("/v1/narrations", body),
                ("/v1/moments", {"query": "x", "media": [uploaded(one, clip)]}),
            ):
                third = one.http.post(path, json=asked)
                refused(third, 429, "2 videos are being looked through, which is the limit")
                assert third.headers["retry-after"] == "1"
        go_on.set()
        until(lambda: "videollm_long_work 0" in one.http.get("/metrics").text)
        until(lambda: len(list(one.store.folder.iterdir())) == 1)  # the upload
        assert one.http.post("/v1/narrations", json=body).status_code == 200
    finally:
        go_on.set()
        one.close()


# -- moments


def test_moments_of_ones_own_uploads(served, clip, tmp_path):
    other = good(tmp_path, "other.mkv")
    first, second = uploaded(served, clip, "first.mp4"), uploaded(served, other, "second.mkv")
    library = served.store.folder
    said = posted(served, "/v1/narrations", {"media": first, "question": "Describe the video."}).json()["narrations"]
    words = re.sub(r"\W+", " ", said[0]["text"]).split()
    answer = posted(served, "/v1/moments", {"query": " ".join(words), "media": [first, second]}).json()
    assert answer["object"] == "list" and answer["data"], words
    for one in answer["data"]:
        assert (one["media"], one["video"]) in ((first, "first.mp4"), (second, "second.mkv"))
        assert 0 <= one["start_seconds"] < one["end_seconds"] and 0 < one["score"] <= 1 and one["why"]
    asked = served.worker.counts.generated_tokens
    only = posted(served, "/v1/moments", {"query": " ".join(words), "media": [second]}).json()["data"]
    assert {one["media"] for one in only} <= {second}
    assert served.worker.counts.generated_tokens == asked
    assert [path for path in library.iterdir() if path.name.startswith("moments-")]


def test_moments_of_the_index_tell_no_folders_of_the_machine(served, moments):
    answer = posted(served, "/v1/moments", {"query": "barks"}).json()
    assert [(one["video"], one["media"]) for one in answer["data"]] == [("a/dog.mp4", None)] * 2
    later = posted(served, "/v1/moments", {"query": "barks", "start_seconds": 5, "end_seconds": 20}).json()["data"]
    assert [one["start_seconds"] for one in later] == [10.0]
    assert str(Path(moments.address).parent) not in json.dumps(answer)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "query"),
        ({"query": ""}, 400, "query"),
        ({"query": "x", "media": []}, 400, "media"),
        ({"query": "x", "media": ["/etc/passwd"]}, 400, "only uploads"),
        ({"query": "x", "media": ["media:../../etc/passwd"]}, 404, "no such media"),
        ({"query": "x", "media": ["https://example.org/a.mp4"]}, 400, "only uploads"),
        ({"query": "x", "limit": 1000}, 400, "limit"),
        ({"query": "x", "start_seconds": 2, "end_seconds": 1}, 400, "end_seconds"),
    ],
)
def test_what_cannot_be_found(served, body, status, words):
    refused(posted(served, "/v1/moments", body), status, words)


def indexed(folder):
    """Videos in a library, also while it is being written anew."""
    with contextlib.suppress(MomentIndexError, ValueError, RuntimeError, OSError):
        return MomentStore.open(folder).videos()
    return []


def test_an_encoder_finds_by_what_is_seen_in_uploads_and_in_the_index(clip, tmp_path, monkeypatch):
    """As the encoder itself finds in the same store; and what is left after a deletion still has its vectors."""
    sight = load_sight_encoder("tiny_dual_encoder")
    vectors = dict(zip("ab", (sight.words("a red circle moves left"), sight.words("a dog barks")), strict=True))
    index = MomentStore.create(tmp_path / "index", {"seen": sight.width}, {"seen": sight.name})
    for name, vector in vectors.items():
        index.put(Video(f"/films/{name}.mp4", name, 4.0, 1, "hand"), [Moment(0.0, 4.0, "", "", {"seen": vector})])
    assert np.allclose(index.moments("/films/a.mp4", with_vectors=True)[0].vectors["seen"], vectors["a"], atol=1e-6)
    monkeypatch.setattr(app_of, "JANITOR_SECONDS", 0.05)
    one = Served(moments=index, encoder="tiny_dual_encoder")
    try:
        assert one.worker.runtime.encoder == (sight.name, sight.width)
        hits = one.http.post("/v1/moments", json={"query": "a red circle moves left", "limit": 1}).json()["data"]
        assert [hit["video"] for hit in hits] == ["a.mp4"] and "seen" in str(hits[0]["why"])
        ids = [one.http.post("/v1/media", content=clip.read_bytes() + bytes(n)).json()["id"] for n in range(2)]
        asked = {"query": "zzz", "media": [f"media:{each}" for each in ids]}  # no word of it is told
        before = one.http.post("/v1/moments", json=asked).json()["data"]
        assert {hit["media"] for hit in before} == set(asked["media"])
        one.http.delete(f"/v1/media/{ids[0]}")
        (folder,) = one.store.folder.glob("moments-*")
        until(lambda: len(indexed(folder)) == 1)
        left = one.http.post("/v1/moments", json=asked | {"media": asked["media"][1:]}).json()["data"]
        assert left == [hit for hit in before if hit["media"] == asked["media"][1]]
    finally:
        one.close()


def test_words_are_no_query_language(served):
    for words in ("' OR 1=1 --", "dog) OR (", "*", '"', "narration:dog^9", "\\", "🙂", "\x00"):
        assert posted(served, "/v1/moments", {"query": words}).status_code == 200


def test_nothing_is_left_of_an_upload_that_is_gone(clip, monkeypatch, tmp_path):
    monkeypatch.setattr(app_of, "JANITOR_SECONDS", 0.05)
    one = Served()
    try:
        body = good(tmp_path).read_bytes()
        both = [one.http.post("/v1/media", content=body + bytes(n)).json()["id"] for n in range(2)]
        ids = [f"media:{each}" for each in both]
        asked = {"query": "x", "media": ids}
        assert one.http.post("/v1/moments", json=asked).status_code == 200

        def indexed():
            with contextlib.suppress(MomentIndexError, ValueError, RuntimeError):  # it is being written anew
                return [len(MomentStore.open(folder).videos()) for folder in one.store.folder.glob("moments-*")]

        assert indexed() == [2]
        for number, left in ((0, [1]), (1, [])):
            one.http.delete(f"/v1/media/{both[number]}")
            until(lambda left=left: indexed() == left)
        assert os.listdir(one.store.folder) == []
        assert one.http.post("/v1/moments", json=asked).status_code == 404
        refused(one.http.post("/v1/moments", json={"query": "x"}), 400, "without an index")
    finally:
        one.close()


def test_the_service_answers_afterwards(served):
    assert served.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=5).usage
