"""Batched = one by one, for answers under way: the same ids, and logits within 1e-4, whoever joins or leaves when."""

from itertools import cycle

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.chat import cache, generation
from videollm.chat.generation import Step, Stepper
from videollm.chat.session import ChatSession


@pytest.fixture(scope="module")
def model_and_processor():
    return small_model()


class Talk:
    """A session that is asked some questions in turn, alone or among others; every choice of a token is recorded."""

    def __init__(self, model_and_processor, clips, questions, begins, **options):
        self.session = ChatSession(*model_and_processor)
        for number in clips:
            self.session.add(drawn_clip(number, frames=2 + number))
        self.questions, self.options, self.begins = list(questions), options, begins
        self.answers, self.logits = [], []
        self.stream = self.event = self.outcome = None

    def advance(self):
        """Up to the next step that the model must take; False at the end of all questions."""
        while True:
            if self.stream is None:
                if not self.questions:
                    return False
                self.stream = self.session.stream(self.questions.pop(0), **self.options)
            try:
                self.event = self.stream.advance(self.outcome)
            except StopIteration:
                self.stream, self.event = None, None
                self.answers.append(self.session.last)
            self.outcome = None
            if isinstance(self.event, Step):
                return True

    def finish_alone(self, model):
        while self.advance():
            self.outcome = generation.take_step(model, self.event)
            self.logits.append(self.outcome)
        return self


QUESTIONS = ["what is in the video?", "and which colour?", "größe? 日本 🙂", "why?"]
OPTIONS = [
    {"max_new_tokens": 25},
    {"max_new_tokens": 40, "temperature": 1.3, "seed": 5},
    {"max_new_tokens": 9, "repetition_penalty": 1.4},
    {"max_new_tokens": 33, "temperature": 0.8, "top_k": 7, "top_p": 0.9, "seed": 11},
    {"max_new_tokens": 1},
]


def talks(model_and_processor):
    """Seven conversations of other lengths, clips, options and beginnings."""
    clips, options = cycle([[1], [], [2, 3], [4]]), cycle(OPTIONS)
    return [
        Talk(model_and_processor, next(clips), QUESTIONS[number % 3 : number % 3 + 2], 6 * number, **next(options))
        for number in range(7)
    ]


def together(model, all_talks, after_step=lambda number, active: None):
    """Talks begin at their step, and go on together until all have ended."""
    stepper, waiting, active = Stepper(model), list(all_talks), []
    together.largest, number = 0, 0
    while waiting or active:
        active += [talk for talk in waiting if talk.begins <= number]
        waiting = [talk for talk in waiting if talk.begins > number]
        active = [talk for talk in active if talk.advance()]
        together.largest = max(together.largest, len(active))
        for talk, outcome in zip(active, stepper.take([talk.event for talk in active]), strict=True):
            talk.outcome = outcome
            talk.logits.append(outcome)
        after_step(number, active)
        number += 1
    assert stepper.memory_bytes == 0, "the last one has left the batch"


def same(talk, alone):
    assert [a.token_ids for a in talk.answers] == [a.token_ids for a in alone.answers]
    assert [a.text for a in talk.answers] == [a.text for a in alone.answers]
    assert [a.timings.reused_tokens for a in talk.answers] == [a.timings.reused_tokens for a in alone.answers]
    assert talk.session.messages == alone.session.messages
    assert len(talk.logits) == len(alone.logits)
    for one, other in zip(talk.logits, alone.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("columns", [128, 8])
def test_whoever_joins_and_leaves_when(model_and_processor, monkeypatch, columns):
    monkeypatch.setattr(cache, "COLUMNS_AT_ONCE", columns)
    model = model_and_processor[0]
    batched = talks(model_and_processor)
    together(model, batched)
    assert together.largest >= 4
    for talk, alone in zip(batched, talks(model_and_processor), strict=True):
        same(talk, alone.finish_alone(model))
    assert len({answer.token_ids for talk in batched for answer in talk.answers}) > 8, "equal answers prove little"


def test_stopped_and_closed_among_others(model_and_processor):
    model = model_and_processor[0]
    batched = talks(model_and_processor)

    def leave(number, active):
        if number == 8:
            batched[0].session.stop()
        if number == 14:
            batched[1].questions.clear()
            batched[1].stream.close()
            active.remove(batched[1])

    together(model, batched, leave)
    for talk, alone in list(zip(batched, talks(model_and_processor), strict=True))[2:]:
        same(talk, alone.finish_alone(model))
    for talk, alone in list(zip(batched, talks(model_and_processor), strict=True))[:2]:
        finished = alone.finish_alone(model).answers[0]
        stopped = talk.answers[0] if talk.answers else talk.session.last
        assert stopped.finish == "stopped"
        assert 0 < len(stopped.token_ids) < len(finished.token_ids)
        assert stopped.token_ids == finished.token_ids[: len(stopped.token_ids)]
        # What it has in its cache is what it said: the next turn goes on from there.
        after = talk.session.ask("go on", max_new_tokens=8)
        assert after.timings.reused_tokens >= stopped.timings.prompt_tokens
        fresh = ChatSession(*model_and_processor, reuse_cache=False)
        for clip in talk.session.clips.values():
            fresh.add(clip)
        fresh.messages = talk.session.messages[:-2]
        assert fresh.ask("go on", max_new_tokens=8).token_ids == after.token_ids


def test_a_long_prompt_is_read_in_parts_between_which_others_go_on(model_and_processor, monkeypatch):
    monkeypatch.setattr(generation, "PREFILL_CHUNK_TOKENS", 16)
    session = ChatSession(*model_and_processor)
    session.add(drawn_clip(1, frames=20))
    whole = ChatSession(*model_and_processor)
    whole.add(drawn_clip(1, frames=20))
    stream = session.stream("what is in the video? " * 4, max_new_tokens=6)
    parts, event = 0, stream.advance()
    while event is None:
        parts, event = parts + 1, stream.advance()
    assert parts >= 3 + session.clips["clip1.mp4"].frames.pixels.shape[0] // 8
    while not isinstance(event, Step):
        event = stream.advance()
    outcome = generation.take_step(session.model, event)
    rest = stream.advance(outcome)
    while True:
        try:
            rest = stream.advance(generation.take_step(session.model, rest) if isinstance(rest, Step) else None)
        except StopIteration:
            break
    assert session.last.token_ids == whole.ask("what is in the video? " * 4, max_new_tokens=6).token_ids
