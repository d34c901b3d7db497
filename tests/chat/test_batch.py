"""Answers in one batch are the answers one by one."""

from __future__ import annotations

import random

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.chat.batch import CLIP, Predictor, Prompt
from videollm.chat.generation import GenerationOptions
from videollm.chat.session import ChatSession
from videollm.messages import MediaPart, Message, assistant, user

WORDS = [
    "a",
    "red",
    "circle",
    "moves",
    "to",
    "the",
    "left",
    "while",
    "loud",
    "beep",
    "is",
    "heard",
    "at",
    "what",
    "in",
    "video",
    "how",
    "many",
    "shapes",
    "are",
    "there",
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model, processor = small_model()
    return Predictor(model, processor, max_new_tokens=12, batch_rows=7)


def question(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 12))) + "?"


def asked(text: str) -> tuple[Message, ...]:
    return (user(text, [MediaPart(CLIP)]),)


def one_by_one(predictor: Predictor, prompt: Prompt) -> list[int]:
    """The library's own generate, uncached beginning, no batch."""
    model, processor = predictor.model, predictor.processor
    ids = processor.render(prompt.messages, {CLIP: prompt.shown.clip}).input_ids
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        video_features=prompt.shown.video,
        audio_features=prompt.shown.audio,
        do_sample=False,
        max_new_tokens=predictor.max_new_tokens,
        suppress_tokens=predictor.never,
    )[0, len(ids) :].tolist()
    stops = {token for token, *rest in predictor.stops if not rest}
    return out[: next((i for i, token in enumerate(out) if token in stops), len(out))]


def test_a_batch_answers_as_one_by_one(predictor: Predictor) -> None:
    rng = random.Random(0)
    clips = [drawn_clip(0), drawn_clip(1, frames=3), drawn_clip(2, sound_seconds=0), drawn_clip(3, frames=0)]
    shown = predictor.show(clips)
    prompts = [Prompt(rng.choice(shown), asked(question(rng))) for _ in range(40)]
    answers = predictor.answer(prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == one_by_one(predictor, prompt)
    assert len({answer.token_ids for answer in answers}) > 5  # the clips and the words matter


def test_drawn_answers_are_those_of_a_chat_with_the_same_seed(predictor: Predictor) -> None:
    clip = drawn_clip(11)
    (shown,) = predictor.show([clip])
    prompt = Prompt(shown, asked("what is in the video?"))
    drawn = [GenerationOptions(temperature=0.9, top_p=0.95, seed=seed) for seed in range(9)]
    answers = predictor.answer([prompt] * len(drawn), drawn)
    for options, answer in zip(drawn, answers, strict=True):
        session = ChatSession(predictor.model, predictor.processor, max_new_tokens=predictor.max_new_tokens)
        session.add(clip)
        said = session.ask("what is in the video?", temperature=0.9, top_p=0.95, seed=options.seed)
        assert tuple(said.token_ids) == answer.token_ids
    assert len({answer.token_ids for answer in answers}) > 3


def test_a_follow_up_keeps_the_generated_answer(predictor: Predictor) -> None:
    (shown,) = predictor.show([drawn_clip(4)])
    (first,) = predictor.answer([Prompt(shown, asked("how many shapes are there?"))])
    messages = (
        *asked("how many shapes are there?"),
        assistant(first.text, first.token_ids),
        user("which colour has the square?"),
    )
    prompts = [Prompt(shown, messages), Prompt(shown, asked("what is in the video?"))]
    answers = predictor.answer(prompts)
    assert [list(answer.token_ids) for answer in answers] == [one_by_one(predictor, prompt) for prompt in prompts]


def test_the_answer_is_that_of_a_chat(predictor: Predictor) -> None:
    clip = drawn_clip(5)
    (shown,) = predictor.show([clip])
    texts = ["what is in the video?", "how many shapes are there?", "is a loud beep heard?"]
    answers = predictor.answer([Prompt(shown, asked(text)) for text in texts])
    for text, answer in zip(texts, answers, strict=True):
        session = ChatSession(predictor.model, predictor.processor, max_new_tokens=predictor.max_new_tokens)
        session.add(clip)
        said = session.ask(text)
        assert (said.text, tuple(said.token_ids)) == (answer.text, answer.token_ids)


def test_clips_shown_together_are_encoded_as_alone(predictor: Predictor) -> None:
    clips = [drawn_clip(6, frames=2), drawn_clip(7, frames=5, sound_seconds=2.0), drawn_clip(8, sound_seconds=0)]
    together = predictor.show(clips)
    for clip, shown in zip(clips, together, strict=True):
        (alone,) = predictor.show([clip])
        for name in ("video", "audio"):
            a, b = getattr(alone, name), getattr(shown, name)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_limit_of_tokens_holds() -> None:
    model, processor = small_model()
    short = Predictor(model, processor, max_new_tokens=2, batch_rows=3)
    long = Predictor(model, processor, max_new_tokens=20, batch_rows=3)
    (shown,) = short.show([drawn_clip(9)])
    rng = random.Random(1)
    prompts = [Prompt(shown, asked(question(rng))) for _ in range(9)]
    for a, b in zip(short.answer(prompts), long.answer(prompts), strict=True):
        assert len(a.token_ids) <= 2 and b.token_ids[: len(a.token_ids)] == a.token_ids


def test_several_tokens_that_end_an_answer_end_it() -> None:
    model, processor = small_model()
    clip = drawn_clip(10)
    free = Predictor(model, processor, max_new_tokens=12)
    (shown,) = free.show([clip])
    prompts = [Prompt(shown, asked(text)) for text in ("what is in the video?", "how many shapes are there?")]
    said = [answer.token_ids for answer in free.answer(prompts)]
    assert len(said[0]) > 5
    stop = said[0][3:5]
    processor.stop_sequences = [stop]
    for ids, prompt, answer in zip(
        said, prompts, Predictor(model, processor, max_new_tokens=12).answer(prompts), strict=True
    ):
        end = next((i for i in range(len(ids)) if ids[i : i + 2] == stop), len(ids))
        assert answer.token_ids == ids[:end]
        session = ChatSession(model, processor, max_new_tokens=12)
        session.add(clip)
        assert tuple(session.ask(prompt.messages[0].text).token_ids) == answer.token_ids
