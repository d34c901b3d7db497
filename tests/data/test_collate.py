"""Samples as tensors: what is learned, in what order, whatever is broken; and batches of anything."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.cli.bad_files import BAD_FILES
from tests.data.file_server import serving
from tests.media.numbered import numbered_frames, tones
from tests.small_model import small_model
from videollm.data.collate import Collate, FileMedia, Look, TrainingItems, random_box
from videollm.data.datasets import Dataset, open_mixture
from videollm.data.ledger import Ledger, read_ledger
from videollm.data.sample import Media
from videollm.data.shards import write_shards
from videollm.errors import ConfigError, DataError
from videollm.media.decode_worker import close_server, open_clip
from videollm.media.sampling import FrameSampling
from videollm.media.write import write_sound, write_video
from videollm.models import hub
from videollm.models.video_llama import VideoLlamaImageProcessor
from videollm.models.video_llama.processing_video_llama import IGNORED

CLIPS = Path(__file__).parents[2] / "videollm" / "assets" / "clips"


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    close_server()


@pytest.fixture(scope="module")
def small():
    model, processor = small_model()
    return model.eval(), processor


def line(name, answer, media=None, question="what is in the video?"):
    """A line of a JSONL file; ``media`` by how it is shown: [(kind, path, start, end)]."""
    parts, files = [], {}
    for number, (kind, path, *stretch) in enumerate(media or []):
        parts.append({"type": kind, "clip": f"m{number}"})
        seconds = dict(zip(("start_seconds", "end_seconds"), stretch, strict=False))
        files[f"m{number}"] = {"path": str(path), **seconds}
    messages = [
        {"role": "user", "parts": [*parts, {"type": "text", "text": question}]},
        {"role": "assistant", "parts": [{"type": "text", "text": answer}]},
    ]
    return {"id": name, "messages": messages, "media": files}


def write(path, lines):
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return Dataset("jsonl", str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Words alone, a picture, a silent film, one with sound, a stretch of it, a sound, and two films at once."""
    folder = tmp_path_factory.mktemp("mine")
    write_video(folder / "silent.mp4", numbered_frames(8), fps=4)
    write_video(folder / "film.mp4", numbered_frames(12, first=50), fps=4, waveform=tones(3.0, 16000, 1))
    write_sound(folder / "sound.wav", tones(2.0, 16000, 1))
    Image.fromarray(numbered_frames(1, first=99)[0]).save(folder / "picture.png")
    film, silent = ("video", "film.mp4"), ("video", "silent.mp4")
    lines = [
        line("words", "a circle"),
        line("picture", "a red square", [("image", "picture.png")]),
        line("silent", "a loud beep moves", [silent]),
        line("film", "how many shapes", [film]),
        line("stretch", "now and then", [(*film, 1.0, 2.0)]),
        line("sound", "a beep", [("audio", "sound.wav")]),
        line("two", "which colour", [silent, film]),
    ]
    write(folder / "mine.jsonl", lines)
    return folder


def items_of(folder, processor, count=7, **options):
    ledger = options.pop("ledger", None)
    datasets = [Dataset("jsonl", str(folder / "mine.jsonl"), **options.pop("dataset", {}))]
    return TrainingItems(open_mixture(datasets, seed=1, ledger=ledger), datasets, processor, count, **options)


def by_id(items, count=7):
    return {items.mixture[k].id: items[k] for k in range(count)}


def same(one, other):
    assert one.keys() == other.keys()
    for key in ("input_ids", "labels"):
        assert torch.equal(one[key], other[key])
    for key in ("videos", "sounds"):
        assert len(one[key]) == len(other[key])
        for ours, theirs in zip(one[key], other[key], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_items_have_what_their_samples_show(folder, small):
    _, processor = small
    found = by_id(items_of(folder, processor))
    shown = {name: (len(item["videos"]), len(item["sounds"])) for name, item in found.items()}
    assert shown == {
        "words": (0, 0), "picture": (1, 0), "silent": (1, 0), "film": (1, 1), "stretch": (1, 1), "sound": (0, 1),
        "two": (2, 1),
    }  # fmt: skip
    for item in found.values():
        places = {"video": processor.video_token_id, "audio": processor.audio_token_id}
        counts = {kind: int((item["input_ids"] == token).sum()) for kind, token in places.items()}
        assert counts["video"] == len(item["videos"]) * processor.num_video_query_tokens
        assert counts["audio"] == len(item["sounds"]) * processor.num_audio_query_tokens
    learned = found["film"]["labels"]
    said = processor.tokenizer.decode(learned[learned != IGNORED], skip_special_tokens=True)
    assert said.strip() == "how many shapes" and learned[-1] == processor.tokenizer.eos_token_id
    assert float(found["stretch"]["videos"][0][1][-1]) < 1.0


def test_a_batch_of_anything_is_its_items_one_by_one(folder, small):
    model, processor = small
    items, collate = items_of(folder, processor), Collate(processor.tokenizer.pad_token_id)
    collate = pickle.loads(pickle.dumps(collate))
    each = [items[k] for k in range(7)]
    batch = collate(each)
    assert batch["input_ids"].shape[1] % 16 == 0 and batch.pop("source").tolist() == [0] * 7
    with torch.no_grad():
        together = model(**batch)
        sums, tokens = 0.0, 0
        for row, item in enumerate(each):
            alone_batch = collate([item])
            alone_batch.pop("source")
            alone = model(**alone_batch)
            length, count = len(item["input_ids"]), int((item["labels"] != IGNORED).sum())
            torch.testing.assert_close(together.logits[row, :length], alone.logits[0, :length], atol=1e-4, rtol=1e-4)
            sums, tokens = sums + float(alone.loss) * count, tokens + count
    assert float(together.loss) == pytest.approx(sums / tokens, rel=1e-4)


def test_the_kth_item_is_the_kth_item(folder, small):
    _, processor = small
    random = FileMedia(processor, random=True)
    whole = [items_of(folder, processor, 14, media=random)[k] for k in range(14)]
    resumed = pickle.loads(pickle.dumps(items_of(folder, processor, 14, media=random)))
    for k in (9, 13, 2):
        same(resumed[k], whole[k])
    loader = DataLoader(items_of(folder, processor, 14, media=random), batch_size=None, num_workers=2,
                        multiprocessing_context="fork")  # fmt: skip
    for one, other in zip(loader, whole, strict=True):
        same(one, other)


def test_random_as_published(folder, small):
    """The frames of captioned films and a box of all pictures are drawn anew at each position; sound is not."""
    _, processor = small_model()
    processor.frame_sampling = {"strategy": "uniform", "frames": 8}
    media = FileMedia(processor, random=True)
    film = Media(str(folder / "film.mp4"))
    caption, dialogue = Look(True, True, for_caption=True), Look(True, True)

    def shown(look, seed):
        return media(film, look, np.random.default_rng(seed))

    first, again, other = shown(caption, 1), shown(caption, 1), shown(caption, 2)
    assert torch.equal(first.video[0], again.video[0]) and not torch.equal(first.video[0], other.video[0])
    seconds = [shown(caption, seed).video[1].tolist() for seed in range(4)]
    assert all(len(one) == 8 and one[3] < 1.5 <= one[4] and one == sorted(one) for one in seconds)
    assert len({tuple(one) for one in seconds}) > 1
    plain = FileMedia(processor)(film, dialogue, np.random.default_rng(1))
    assert torch.equal(shown(dialogue, 1).video[1], plain.video[1])
    assert not torch.equal(shown(dialogue, 1).video[0], plain.video[0])
    assert torch.equal(first.sound[0], plain.sound[0])


def test_a_published_eye_squashes_films_before_they_are_cropped(folder):
    _, processor = small_model()
    eye = processor.image_processor = VideoLlamaImageProcessor(size=32, as_published=True)
    processor.frame_sampling = {"strategy": "uniform", "frames": 4, "squash_px": 32}
    draw = np.random.default_rng(5)
    clip = open_clip(folder / "film.mp4", frames=FrameSampling("uniform", 4, squash_px=32))
    shown = FileMedia(processor, random=True)(
        Media(str(folder / "film.mp4")), Look(True, False), np.random.default_rng(5)
    )
    squashed = torch.from_numpy(clip.frames.pixels).permute(0, 3, 1, 2)
    assert torch.equal(shown.video[0], eye.normalise(eye.crop_for_training(squashed, random_box(32, 32, draw))))
    # A picture is cropped as it is, and then squashed.
    picture = np.asarray(Image.open(folder / "picture.png").convert("RGB"))
    shown = FileMedia(processor, random=True)(
        Media(str(folder / "picture.png")), Look(True, False), np.random.default_rng(5)
    )
    top, left, height, width = random_box(*picture.shape[:2], np.random.default_rng(5))
    assert torch.equal(shown.video[0], eye(picture[None, top : top + height, left : left + width], still=True))


def test_boxes_are_half_of_the_picture_or_more():
    draw = np.random.default_rng(0)
    boxes = np.array([random_box(60, 80, draw) for _ in range(500)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 60).all() and (left + width <= 80).all()
    assert (height * width >= 0.48 * 60 * 80).all() and ((width / height > 0.72) & (width / height < 1.4)).all()
    assert random_box(10, 400, draw) == (0, 193, 10, 13)


def test_lengths_are_known_without_decoding(folder, small):
    _, processor = small
    items = items_of(folder, processor)
    for k in range(7):
        # Nothing tells of a film that has no sound, before it is opened.
        silent = {"silent": 1, "two": 1}.get(items.mixture[k].id, 0)
        extra = silent * processor.num_audio_query_tokens
        assert items.length(k) == len(items[k]["input_ids"]) + extra


def test_frames_alone_and_sound_alone(folder, small):
    _, processor = small
    ledger = Ledger(max_skipped_share=1.0)
    frames = by_id(items_of(folder, processor, dataset={"shown": "frames"}, ledger=ledger))
    assert all(not item["sounds"] for item in frames.values()) and ledger.reasons == {"nothing to show": 1}
    ledger = Ledger(max_skipped_share=1.0)
    items = items_of(folder, processor, dataset={"shown": "sound"}, ledger=ledger)
    sounds = [items[k] for k in range(7)]
    assert all(not item["videos"] for item in sounds) and ledger.used == 7
    assert set(ledger.reasons) <= {"nothing to show", "broken media"} and ledger.skipped >= 3
    _, deaf = small_model(ears=False)
    with pytest.raises(ConfigError, match="has no ear"):
        items_of(folder, deaf, dataset={"shown": "sound"})


def test_long_ones_are_skipped_or_cut(tmp_path, small):
    _, processor = small
    dataset = [write(tmp_path / "a.jsonl", [line("short", "a circle"), line("long", "circle " * 90)])]

    def made(**options):
        ledger = Ledger()
        items = TrainingItems(open_mixture(dataset, ledger=ledger), dataset, processor, 2, max_tokens=48, **options)
        return [items[k] for k in range(2)], ledger

    skipped, ledger = made()
    assert ledger.reasons == {"too long": 1} and torch.equal(skipped[0]["input_ids"], skipped[1]["input_ids"])
    cut, ledger = made(cut=True)
    assert ledger.skipped == 0 and sorted(len(item["input_ids"]) for item in cut)[1] == 48


def test_shards_give_the_items_of_their_file(folder, small, tmp_path):
    _, processor = small
    # Whole files only: what is cut is coded again.
    lines = [one for one in (folder / "mine.jsonl").read_text().splitlines() if '"stretch"' not in one]
    write(folder / "whole.jsonl", lines)
    write_shards(folder / "whole.jsonl", tmp_path / "shards", shard_size=4, workers=1, progress=False)
    own = [Dataset("jsonl", str(folder / "whole.jsonl"))]
    wanted = TrainingItems(open_mixture(own, seed=2), own, processor, 6)
    with serving(tmp_path / "shards") as server:
        for place in (str(tmp_path / "shards"), server.address):
            stored = [Dataset("shards", place)]
            items = TrainingItems(open_mixture(stored, seed=2), stored, processor, 6)
            for k in range(6):
                assert items.length(k) == wanted.length(k)
                same(items[k], wanted[k])


BROKEN_LINES = {
    "no JSON": ("{", "bad annotation"),
    "no answer": (json.dumps({"id": "x", "messages": [{"role": "user", "parts": []}]}), "bad annotation"),
    "too long": (line("x", "circle " * 500), "too long"),
    "wrong stretch": (line("x", "a", [("video", "film.mp4", 500.0)]), "wrong stretch"),
}


def broken_folder(folder, tmp_path, good):
    """A file with ``good`` good samples, and one broken in every way that there is."""
    lines = [line(f"{number}", "a circle", [("video", "film.mp4")] if number % 24 == 0 else None)
             for number in range(good)]  # fmt: skip
    for name in ("film.mp4",):
        shutil.copy(folder / name, tmp_path)
    for number, (make, _) in enumerate(BAD_FILES.values()):
        (tmp_path / str(number)).mkdir()
        path = make(tmp_path / str(number))
        lines.append(line(f"bad {number}", "a", [("image" if path.suffix == ".png" else "video", path)]))
    lines += [one for one, _ in BROKEN_LINES.values()]
    return [write(tmp_path / "mine.jsonl", lines)]


def test_a_folder_with_every_kind_of_damage_is_trained_on(folder, tmp_path, small):
    model, processor = small_model()
    datasets = broken_folder(folder, tmp_path, 361)
    ways = len(BAD_FILES) + len(BROKEN_LINES)
    assert ways / (361 + ways) == 0.05
    ledger = Ledger(tmp_path / "ledger.jsonl", max_skipped_share=0.1)
    items = TrainingItems(open_mixture(datasets, ledger=ledger), datasets, processor, 380, max_tokens=200)
    collate = Collate(processor.tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for batch in DataLoader(items, batch_size=20, num_workers=2, collate_fn=collate, multiprocessing_context="fork"):
        batch.pop("source")
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert len(losses) == 19 and losses[-1] < losses[0] / 2
    entries = {entry["index"]: entry for entry in read_ledger(ledger.path)}
    assert sorted(entries) == list(range(361, 380)) and ledger.used == 380
    for number, (name, (_, words)) in enumerate(BAD_FILES.items()):
        entry = entries[361 + number]
        assert entry["id"] == f"bad {number}", name
        assert re.search(words, entry["message"]), (name, entry)
        assert entry["reason"] in ("missing media", "broken media", "media over a limit")
    reasons = [entries[361 + len(BAD_FILES) + number]["reason"] for number in range(len(BROKEN_LINES))]
    assert reasons == [reason for _, reason in BROKEN_LINES.values()]


def test_too_much_damage_stops_with_the_reasons_counted(folder, tmp_path, small):
    _, processor = small
    datasets = broken_folder(folder, tmp_path, 44)  # 19 of 63: 30 %
    items = TrainingItems(
        open_mixture(datasets, ledger=Ledger(tmp_path / "ledger.jsonl")), datasets, processor, 1000, max_tokens=200
    )
    loader = DataLoader(items, batch_size=8, num_workers=2, multiprocessing_context="fork",
                        collate_fn=Collate(processor.tokenizer.pad_token_id))  # fmt: skip
    with pytest.raises(DataError) as error:
        list(loader)
    told = str(error.value)
    assert "\n" not in told and "more than max_skipped_share 0.1" in told and str(tmp_path / "ledger.jsonl") in told
    for reason in ("broken media", "bad annotation", "media over a limit", "missing media", "too long"):
        assert f" {reason}" in told
    assert told.startswith(tuple("123456789"))


def test_tiny_learns_three_clips_of_ones_own(tmp_path):
    model, processor = hub.load("tiny")
    lines = []
    for name, answer in (("cut", "a cow jumps"), ("textures", "nine grey horses"), ("two_things", "my old house")):
        shutil.copy(CLIPS / f"{name}.mp4", tmp_path)
        lines.append(line(name, answer, [("video", f"{name}.mp4")], question="What do you see?"))
    datasets = [write(tmp_path / "mine.jsonl", lines)]
    items = TrainingItems(open_mixture(datasets), datasets, processor, 3)
    batch = Collate(processor.tokenizer.pad_token_id)([items[k] for k in range(3)])
    batch.pop("source")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in ("video_qformer", "video_projection", "video_query_tokens"))
    with torch.no_grad():  # the encoders are frozen: once is enough
        frames, mask = batch.pop("pixel_values"), batch["frame_mask"]
        states = torch.zeros(*frames.shape[:2], *model.encode_frames(frames[mask]).shape[1:])
        states[mask] = model.encode_frames(frames[mask])
        batch["frame_states"] = states
    model.eval()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 3e-3)
    losses = []
    for _ in range(10):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0], losses
