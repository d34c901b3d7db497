"""Kept encoder states: what training gets of them is what it gets of the encoders, and nobody else's is taken."""

import json
import shutil

import pytest
import torch

from tests.media.numbered import numbered_frames, tones
from tests.small_model import small_model
from videollm.data.collate import Collate, TrainingItems
from videollm.data.datasets import Dataset, open_mixture
from videollm.data.ledger import Ledger, read_ledger
from videollm.data.shards import write_shards
from videollm.data.world_samples import ClipItems, ClipSamples
from videollm.errors import ConfigError, DataError
from videollm.media.decode_worker import close_server
from videollm.media.write import write_video
from videollm.training import features
from videollm.training.features import (
    FeatureSamples,
    KeptClips,
    KeptMedia,
    encoder_name,
    make_features,
    make_media_features,
)


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    close_server()


@pytest.fixture(scope="module")
def small():
    model, processor = small_model()
    return model.eval(), processor


@pytest.fixture
def folder(tmp_path):
    """Four samples with three different clips in them, words alone, and a file that is none."""
    write_video(tmp_path / "a.mp4", numbered_frames(8), fps=4, waveform=tones(2.0, 16000, 1))
    write_video(tmp_path / "b.mp4", numbered_frames(6, first=50), fps=4)
    (tmp_path / "bad.mp4").write_text("no film")
    clips = [("a.mp4",), ("b.mp4",), ("a.mp4", 0.5, 1.5), ("a.mp4",), None, ("bad.mp4",)]
    lines = []
    for number, clip in enumerate(clips):
        keys = ("path", "start_seconds", "end_seconds")
        media = {} if clip is None else {"m": dict(zip(keys, clip, strict=False))}
        parts = [{"type": "video", "clip": "m"}] if media else []
        messages = [
            {"role": "user", "parts": [*parts, {"type": "text", "text": "what is in the video?"}]},
            {"role": "assistant", "parts": [{"type": "text", "text": f"{number} shapes"}]},
        ]
        lines.append(json.dumps({"id": str(number), "messages": messages, "media": media}))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    return tmp_path


def mixture_of(path, ledger=None, format="jsonl"):
    datasets = [Dataset(format, str(path))]
    return open_mixture(datasets, seed=1, ledger=Ledger(max_skipped_share=1.0) if ledger is None else ledger), datasets


def made(small, folder, name="kept", dtype=torch.float32, source="mine.jsonl", format="jsonl"):
    model, processor = small
    mixture, datasets = mixture_of(folder / source, format=format)
    make_media_features(model, processor, mixture, datasets, folder / name, 0, dtype)
    return KeptMedia(folder / name, processor, encoder_name(model, processor, dtype))


def items_of(small, path, media=None, ledger=None, format="jsonl"):
    mixture, datasets = mixture_of(path, ledger, format)
    return TrainingItems(mixture, datasets, small[1], 6, media=media)


def batch_of(small, items):
    batch = Collate(small[1].tokenizer.pad_token_id)([items[k] for k in range(6)])
    batch.pop("source")
    return batch


def test_losses_and_gradients_are_those_of_the_encoders_which_never_run(small, folder):
    model, _ = small
    kept = made(small, folder)
    live = batch_of(small, items_of(small, folder / "mine.jsonl"))
    stored = batch_of(small, items_of(small, folder / "mine.jsonl", kept))
    assert "frame_states" in stored and not {"pixel_values", "audio_values"} & stored.keys()
    runs = []
    hooks = [part.register_forward_hook(lambda *_: runs.append(1)) for part in (model.vision_model, model.audio_model)]
    found = {}
    for name, batch in (("live", live), ("stored", stored)):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        parts = [model.video_qformer, model.audio_qformer, model.video_projection]
        found[name] = loss.detach(), [p.grad.clone() for part in parts for p in part.parameters() if p.grad is not None]
        assert len(runs) == 2, name  # by the live batch
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found["stored"][0], found["live"][0], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found["stored"][1], found["live"][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_lengths_are_exact(small, folder):
    items = items_of(small, folder / "mine.jsonl", made(small, folder))
    assert [items.length(k) for k in range(6)] == [len(items[k]["input_ids"]) for k in range(6)]


def test_a_clip_is_encoded_once_and_a_stopped_run_goes_on(small, folder, monkeypatch):
    monkeypatch.setattr(features, "SHARD_CLIPS", 1)
    model, _ = small
    seen = []
    hook = model.vision_model.register_forward_hook(lambda *_: seen.append(1))
    kept = made(small, folder)
    assert len(kept._clips) == 3 and len(seen) == 3  # of five that are shown
    shards = sorted((folder / "kept").glob("clips-*"))
    times = {path.name: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    (folder / "kept" / "clips-x.part").touch()  # what a killed run leaves
    made(small, folder)
    hook.remove()
    assert len(seen) in (3, 4)  # the lost one may be the one that cannot be used
    again = {path.name: path.stat().st_mtime_ns for path in (folder / "kept").glob("clips-*.safetensors")}
    assert again.keys() == times.keys() and sum(again[name] != times[name] for name in again) == 1


def test_clips_are_found_by_what_they_are(small, folder, tmp_path_factory):
    made(small, folder)
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other / "moved")
    kept = KeptMedia(folder / "kept", small[1], encoder_name(*small, torch.float32))
    items = items_of(small, other / "moved" / "mine.jsonl", kept)
    same = items_of(small, folder / "mine.jsonl", kept)
    for k in range(6):
        assert torch.equal(items[k]["labels"], same[k]["labels"])
    write_video(other / "moved" / "a.mp4", numbered_frames(9), fps=4)
    with pytest.raises(DataError, match=r"a\.mp4: there are no kept features of it"):
        for k in range(6):
            items[k]


def test_what_cannot_be_used_is_kept_as_such(small, folder, tmp_path):
    kept = made(small, folder)
    ledger = Ledger(tmp_path / "ledger.jsonl", max_skipped_share=1.0)
    items = items_of(small, folder / "mine.jsonl", kept, ledger)
    for k in range(6):
        items[k]
    (entry,) = read_ledger(ledger.path)
    assert (entry["index"], entry["reason"]) == (5, "broken media") and "bad.mp4" in entry["message"]
    (folder / "b.mp4").unlink()
    for k in range(6):
        items[k]
    assert ledger.reasons["missing media"] >= 1


def test_shards_have_their_features_too(small, folder):
    write_shards(folder / "mine.jsonl", folder / "shards", shard_size=2, workers=1, whole=True, progress=False)
    kept = made(small, folder, source="shards", format="shards")
    stored = batch_of(small, items_of(small, folder / "shards", kept, format="shards"))
    live = batch_of(small, items_of(small, folder / "shards", format="shards"))
    with torch.no_grad():
        torch.testing.assert_close(small[0](**stored).loss, small[0](**live).loss, atol=1e-5, rtol=1e-5)
    # Whole files are the same content, wherever they lie.
    assert len(made(small, folder, source="mine.jsonl")._clips) == 3


def test_another_encoder_is_refused(small, folder):
    made(small, folder)
    other, processor = small_model(seed=1)
    mixture, datasets = mixture_of(folder / "mine.jsonl")
    with pytest.raises(ConfigError, match="made by another encoder, or with other preprocessing") as error:
        make_media_features(other.eval(), processor, mixture, datasets, folder / "kept", 0, torch.float32)
    assert "\n" not in str(error.value)
    names = {encoder_name(*small, torch.float32), encoder_name(*small, torch.bfloat16)}
    processor.frame_sampling = {"strategy": "uniform", "frames": 3}
    assert len(names | {encoder_name(small[0], processor, torch.float32)}) == 3


def test_damage_is_found(small, folder):
    made(small, folder)
    (path,) = (folder / "kept").glob("clips-*")
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    offsets = json.loads(content[8:begin])["frame_states"]["data_offsets"]
    content[begin + offsets[0] + 5] ^= 1
    path.write_bytes(content)
    items = items_of(small, folder / "mine.jsonl", KeptMedia(folder / "kept", small[1], kept_encoder(small)))
    with pytest.raises(DataError, match="damaged; delete it"):
        for k in range(6):
            items[k]
    path.write_bytes(content[:100])
    with pytest.raises(ConfigError, match="not readable"):
        KeptMedia(folder / "kept", small[1], kept_encoder(small))


def kept_encoder(small):
    return encoder_name(*small, torch.float32)


def test_drawn_clips_go_the_same_way(small, tmp_path):
    model, processor = small
    clips = ClipSamples(processor, 3)
    make_features(model, clips, tmp_path / "kept", 0, torch.float32)
    samples = FeatureSamples(tmp_path / "kept", ClipItems(processor, 2, 0, "captions"))
    assert len(samples) == 3
    kept = KeptClips(tmp_path / "kept", kept_encoder(small))
    for number in range(3):
        with torch.no_grad():
            states = model.encode_frames(clips[number]["pixel_values"])
        torch.testing.assert_close(kept[number]["frame_states"], states, atol=1e-5, rtol=1e-4)
    batch = Collate(processor.tokenizer.pad_token_id)([samples[k] for k in range(3)])
    assert batch["frame_states"].shape[0] == batch["segment_states"].shape[0] == 3
    with pytest.raises(ConfigError, match="drawn clips, too"):
        mixed = tmp_path / "mixed"
        shutil.copytree(tmp_path / "kept", mixed)
        KeptMedia(mixed, processor, kept_encoder(small))
    make_features(model, clips, tmp_path / "kept", 0, torch.float32)
    with pytest.raises(ConfigError, match="another encoder"):
        make_features(small_model(seed=1)[0], clips, tmp_path / "kept", 0, torch.float32)


def test_a_folder_that_cannot_be_written_is_one_line(small, folder):
    (folder / "file").touch()
    mixture, datasets = mixture_of(folder / "mine.jsonl")
    with pytest.raises(ConfigError, match="cannot keep features in") as error:
        make_media_features(*small, mixture, datasets, folder / "file", 0)
    assert "\n" not in str(error.value)
