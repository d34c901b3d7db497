"""Training samples: what the model learns from is what it is shown later."""

import numpy as np
import pytest
import torch

from videollm.data import dialogue as talk
from videollm.data.collate import Collate
from videollm.data.world import draw_scene
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.data.world_samples import (
    ClipItems,
    DialogueSamples,
    FrameSamples,
    SegmentSamples,
    answer_ids,
    answer_labels,
    encode_dialogue,
    fact_ids,
    scene_frames,
    scene_sound,
)
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.training.tiny import build_tiny


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return build_tiny(0, tmp_path_factory.mktemp("tiny") / "tokenizer")[1]


def test_answers_keep_their_capitals(processor):
    for text in (
        "A red circle moves left, then at 2.5 s I hear two beeps.",
        "I see none of the shapes I know. Mostly blue.",
    ):
        assert processor.tokenizer.decode(answer_ids(processor.tokenizer, text)) == text


def test_only_answers_and_their_ends_are_learned(processor):
    turns = [talk.Turn("a", "what do you see?", "A star."), talk.Turn("b", "and hear?", "Noise.")]
    ids, labels = encode_dialogue(processor, turns, True, True)
    learned = [token for token in labels if token != -100]
    assert processor.tokenizer.decode(learned) == "A star.<eos>Noise.<eos>"
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    assert ids.count(processor.video_token_id) == processor.num_video_query_tokens
    assert ids.count(processor.audio_token_id) == processor.num_audio_query_tokens
    assert answer_labels(ids[:3], processor) == [-100] * 3
    silent, _ = encode_dialogue(processor, turns, True, False)
    assert processor.audio_token_id not in silent


@pytest.mark.parametrize(("kind", "index"), [("one", 0), ("cut", 3), ("entry", 1), ("plain", 2)])
def test_drawn_frames_are_those_of_the_file(processor, tmp_path, kind, index):
    scene = kept_scene(kind, "seen", index)
    write_scene(scene, tmp_path / "film.mp4")
    sampling = FrameSampling(**processor.frame_sampling)
    clip = read_clip(tmp_path / "film.mp4", frames=sampling, sound=SoundSampling(**processor.sound_sampling))
    drawn = scene_frames(scene, sampling, processor.image_processor.size)
    assert clip.frames is not None
    np.testing.assert_allclose(clip.frames.seconds, drawn.seconds, atol=1e-3)
    read, _ = processor.process_frames(clip.frames)
    made, _ = processor.process_frames(drawn)
    assert (read - made).abs().mean() < 0.15  # compression and two ways of drawing small
    sound = scene_sound(scene, processor)
    assert (sound is None) == (clip.waveforms is None)
    if sound is not None and clip.waveforms is not None and scene.sounds:
        values, _ = processor.process_sound(clip.waveforms, clip.windows_seconds)
        shared = min(len(values), len(sound[0]))
        loud = sound[0][:shared] > sound[0][:shared].max() - 0.7  # dB 60 below the loudest and more is coded away
        assert (values[:shared] - sound[0][:shared])[loud].abs().mean() < 0.1


def test_samples_have_the_shapes_they_promise(processor):
    frames = FrameSamples(processor, 4, 64, 8)[1]
    assert frames["pixel_values"].shape == (4, 3, 64, 64) and frames["patch_shape"].shape == (4, 64)
    assert ((frames["shape"] > 0) == (frames["where"][..., 2] > 0)).all()
    segments = SegmentSamples(processor, 4)[2]
    assert segments["audio_values"].shape[1:] == (1, 64, 48) and (segments["kind"] > 0).any()
    items = [DialogueSamples(processor, 4, 3)[i] for i in range(4)]
    batch = Collate(processor.tokenizer.pad_token_id)(items)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert batch["video_facts"].shape[:2] == (4, len(talk.VIDEO_SLOTS))


def test_the_same_number_is_the_same_sample(processor):
    for samples in (FrameSamples(processor, 9, 64, 8), DialogueSamples(processor, 9, 3)):
        first, again = samples[7], samples[7]
        for key in first:
            assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key])), key


def test_facts_are_numbers_of_their_options():
    scene = draw_scene(4, "cut")
    picture = talk.Picture("black", 1.0, "dark", 99.0)
    ids = fact_ids(talk.video_facts(scene, picture), talk.VIDEO_SLOTS)
    for row, (name, fields) in zip(ids, talk.VIDEO_SLOTS, strict=True):
        if name == f"first {scene.things[0].colour}":
            assert list(fields["shape"])[row[0]] == scene.things[0].shape
    assert (ids[:, 0] >= 0).all()


def test_a_visit_says_what_its_clips_show(processor):
    items = ClipItems(processor, 3, 0, "dialogues")
    pictures = torch.tensor([[0.0, 1.0, 0.0, 99.0]] * 40)
    for index in range(40):
        visit = items(index, pictures)
        assert 0 <= visit.heard < 40 and visit.seen == index
        assert len(visit.item["input_ids"]) == len(visit.item["labels"])
