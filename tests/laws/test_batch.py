"""Batched = one by one: the library's `generate` on a padded batch says what a session says."""

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.chat.session import ChatSession
from videollm.messages import MediaPart, assistant, user

CONVERSATIONS = [
    (user("what is in the video?", [MediaPart("a")]),),
    (user("größe?", [MediaPart("b"), MediaPart("a")]),),
    (user("hello", [MediaPart("c", type="audio")]), assistant("a red circle"), user("and now? 🙂")),
    (user("no clip at all"),),
]


@pytest.fixture(scope="module")
def model_and_processor():
    return small_model()


@pytest.fixture(scope="module")
def clips():
    return {
        "a": drawn_clip(1),
        "b": drawn_clip(2, frames=9, sound_seconds=2.2),
        "c": drawn_clip(3, frames=0, sound_seconds=1.3),
    }


@torch.inference_mode()
def generate(model, batch, tokens):
    never = [model.config.video_token_id, model.config.audio_token_id]
    new = model.generate(**batch, do_sample=False, max_new_tokens=tokens, suppress_tokens=never)
    return new[:, batch["input_ids"].shape[1] :].tolist()


def test_a_batch_says_what_sessions_say(model_and_processor, clips):
    model, processor = model_and_processor
    tokens = 16
    batched = generate(model, processor(CONVERSATIONS, clips), tokens)
    for conversation, ids in zip(CONVERSATIONS, batched, strict=True):
        session = ChatSession(model, processor, max_new_tokens=tokens)
        for name, clip in clips.items():
            session.add(clip, name=name)
        *earlier, question = conversation
        session.messages = [*earlier, user(media=question.media)] if question.media else earlier
        answer = session.ask(question.text)
        assert list(answer.token_ids) == ids[: len(answer.token_ids)]
        assert len(answer.token_ids) == tokens or ids[len(answer.token_ids)] == model.config.eos_token_id


def test_clips_of_one_batch_do_not_see_each_other(model_and_processor, clips):
    model, processor = model_and_processor
    whole = generate(model, processor(CONVERSATIONS, clips), 16)
    alone = [generate(model, processor(conversation, clips), 16)[0] for conversation in CONVERSATIONS]
    for a, b in zip(whole, alone, strict=True):
        length = min(len(a), len(b))
        assert a[:length] == b[:length]


def test_features_encoded_a_few_frames_at_a_time_are_those_of_all_at_once(model_and_processor, clips):
    model, processor = model_and_processor
    session = ChatSession(model, processor)
    clip = clips["b"]  # nine frames: two passes of the encoder
    pixels, seconds = processor.process_frames(clip.frames)
    with torch.inference_mode():
        whole = model.get_video_features(pixels[None], frame_seconds=seconds[None])[0]
    torch.testing.assert_close(session._encoded.get(model, processor, clip, "video"), whole, atol=1e-5, rtol=0)
