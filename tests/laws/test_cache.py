"""Cached decoding = uncached decoding: the same ids, and logits within 1e-4, whatever happened between two turns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.chat import generation
from videollm.chat.session import ChatSession
from videollm.messages import MediaPart, user

TINY = Path(__file__).parents[2] / "videollm" / "assets" / "tiny"
QUESTIONS = ["What is in the video?", "Which colour has it?", "And what do you hear?", "Größe? 日本 🙂", "Again?"]


@pytest.fixture(scope="module", params=["random", "tiny"])
def model_and_processor(request):
    if request.param == "random":
        return small_model()
    if not (TINY / "config.json").exists():
        pytest.skip("the embedded tiny is not in videollm/assets yet")
    from videollm.models.hub import load

    return load("tiny", dtype=torch.float32)


class Run:
    """A session whose every choice of a token is recorded: the logits it was made from."""

    def __init__(self, model, processor, **options):
        self.session = ChatSession(model, processor, **{"max_new_tokens": 12, **options})
        self.turns = []

    def ask(self, question):
        logits = []
        hook = self.session.model.register_forward_hook(lambda _, __, output: logits.append(output.logits[0, -1]))
        try:
            answer = self.session.ask(question)
        finally:
            hook.remove()
        # A prompt that is prefilled in chunks has logits after each; only those of the last chunk choose a token.
        self.turns.append((answer, torch.stack(logits[-max(1, len(answer.token_ids) + (answer.finish == "end")) :])))
        return answer


def both(model_and_processor, story, **options):
    """Plays a story with and without reuse, compares every turn, and returns the run with reuse."""
    runs = []
    for reuse in (True, False):
        run = Run(*model_and_processor, reuse_cache=reuse, **options)
        story(run)
        runs.append(run)
    cached, uncached = runs
    assert len(cached.turns) == len(uncached.turns) > 0
    for (a, a_logits), (b, b_logits) in zip(cached.turns, uncached.turns, strict=True):
        assert a.token_ids == b.token_ids
        assert a.text == b.text
        torch.testing.assert_close(a_logits, b_logits, atol=1e-4, rtol=0)
        assert b.timings.reused_tokens == 0
    assert cached.session.messages == uncached.session.messages
    assert any(answer.timings.reused_tokens for answer, _ in cached.turns), "nothing was reused: nothing was compared"
    return cached


def whole_prompt_logits(session, upto):
    """The logits that chose an answer, by one pass over the conversation up to its end, without any cache."""
    conversation = session.messages[: 2 * upto + 2]
    prompt = session.processor.render(conversation[:-1], session.clips, add_generation_prompt=True)
    answer = list(conversation[-1].parts[0].token_ids)
    batch = session.processor(conversation[:-1], session.clips)
    ids = torch.tensor([prompt.input_ids + answer])
    media = {name: value for name, value in batch.items() if name not in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = session.model(input_ids=ids, **media).logits[0]
    return logits[len(prompt.input_ids) - 1 :]


def test_four_turns(model_and_processor):
    def story(run):
        run.session.add(drawn_clip(1))
        for question in QUESTIONS[:4]:
            run.ask(question)

    cached = both(model_and_processor, story)
    assert len({answer.token_ids for answer, _ in cached.turns}) > 1 or TINY.exists(), "four equal answers prove little"
    session = cached.session
    for turn, (answer, logits) in enumerate(cached.turns):
        whole = whole_prompt_logits(session, turn)[: len(logits)]
        torch.testing.assert_close(logits, whole, atol=1e-4, rtol=0)
        assert answer.timings.encoded_clips == (1 if turn == 0 else 0)


def test_turn_two_prefills_only_its_own_tokens(model_and_processor):
    session = ChatSession(*model_and_processor, max_new_tokens=12)
    session.add(drawn_clip(1))
    render = session.processor.render
    first = session.ask(QUESTIONS[0])
    for question in QUESTIONS[1:]:
        before = len(render(session.messages, session.clips, add_generation_prompt=False).input_ids)
        # Not in the cache: the last token of a cut answer (nothing followed it), and the token that closes an answer.
        waiting = 1 + (session.last.finish == "length")
        answer = session.ask(question)
        whole = len(render([*session.messages[:-1]], session.clips).input_ids)
        assert answer.timings.prompt_tokens == whole
        assert answer.timings.prefilled_tokens == whole - before + waiting
        assert answer.timings.reused_tokens > first.timings.prompt_tokens


def test_after_undo(model_and_processor):
    def story(run):
        run.session.add(drawn_clip(1))
        run.ask(QUESTIONS[0])
        run.ask(QUESTIONS[1])
        assert run.session.undo() == QUESTIONS[1]
        run.ask(QUESTIONS[2])
        run.session.undo()
        run.session.undo()
        run.ask(QUESTIONS[3])

    cached = both(model_and_processor, story)
    never_asked = Run(*model_and_processor)
    never_asked.session.add(drawn_clip(1))
    never_asked.ask(QUESTIONS[3])
    assert never_asked.turns[-1][0].token_ids == cached.turns[-1][0].token_ids


def test_two_clips(model_and_processor):
    def story(run):
        run.session.add(drawn_clip(1))
        run.ask(QUESTIONS[0])
        run.session.add(drawn_clip(2, frames=7))
        run.ask(QUESTIONS[1])
        run.session.add(drawn_clip(3, frames=0, sound_seconds=1.7))
        run.session.add(drawn_clip(4, frames=1, sound_seconds=0))
        run.ask(QUESTIONS[2])
        run.ask(QUESTIONS[3])

    cached = both(model_and_processor, story)
    assert [answer.timings.encoded_clips for answer, _ in cached.turns] == [1, 1, 2, 0]
    assert len(cached.turns[-1][0].coverage) == 4


def test_after_an_edit_of_turn_one(model_and_processor):
    def story(run):
        session = run.session
        session.add(drawn_clip(1))
        for question in QUESTIONS[:3]:
            run.ask(question)
        first, *rest = session.messages
        session.messages = [replace(first, parts=user("How loud is it?", first.media).parts), *rest]
        run.ask(QUESTIONS[3])

    cached = both(model_and_processor, story)
    last = cached.turns[-1][0].timings
    session = cached.session
    media = sum(span.length for span in session.processor.render(session.messages, session.clips).media)
    assert media <= last.reused_tokens < cached.turns[0][0].timings.prompt_tokens


def test_another_clip_in_the_same_place_is_not_mistaken_for_the_first(model_and_processor):
    """The placeholder ids of two clips are the same numbers: only their content tells them apart."""

    def story(run):
        session = run.session
        session.add(drawn_clip(1))
        session.add(drawn_clip(2))
        session.messages = [user(media=[MediaPart("clip1.mp4")])]
        run.ask(QUESTIONS[0])
        question, answer = session.messages
        session.messages = [replace(question, parts=user(QUESTIONS[0], [MediaPart("clip2.mp4")]).parts), answer]
        run.ask(QUESTIONS[1])

    cached = both(model_and_processor, story)
    prompt = cached.session.processor.render(cached.session.messages, cached.session.clips)
    assert cached.turns[-1][0].timings.reused_tokens == prompt.media[0].start
    assert cached.turns[-1][0].timings.encoded_clips == 1


def test_after_dropped_turns():
    model_and_processor = small_model(context_tokens=160)

    def story(run):
        run.session.add(drawn_clip(1))
        for turn in range(9):
            run.ask(f"{QUESTIONS[turn % 4]} {turn}")

    cached = both(model_and_processor, story)
    dropping = [turn for turn, (answer, _) in enumerate(cached.turns) if answer.dropped_turns]
    assert dropping, "the context was never full"
    for turn, (answer, _) in enumerate(cached.turns):
        if turn in dropping:
            assert "forgotten" in answer.notes[0]
        elif turn:
            assert answer.timings.reused_tokens >= cached.turns[turn - 1][0].timings.prompt_tokens


def test_prefilled_in_chunks(model_and_processor, monkeypatch):
    def answers():
        run = Run(*model_and_processor)
        run.session.add(drawn_clip(1))
        for question in QUESTIONS[:3]:
            run.ask(question)
        return run.turns

    whole = answers()
    monkeypatch.setattr(generation, "PREFILL_CHUNK_TOKENS", 5)
    for (a, a_logits), (b, b_logits) in zip(whole, answers(), strict=True):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(a_logits, b_logits, atol=1e-4, rtol=0)


def test_after_an_interrupted_turn(model_and_processor, monkeypatch):
    """An exception in the middle of the decoder, when some layers have the new keys and some have not."""

    def story(run):
        run.session.add(drawn_clip(1))
        run.ask(QUESTIONS[0])
        layer = run.session.model.language_model.model.layers[1]

        def fail(*_):
            raise KeyboardInterrupt

        handle = layer.register_forward_hook(fail)
        try:
            with pytest.raises(KeyboardInterrupt):
                run.session.ask(QUESTIONS[1])
        finally:
            handle.remove()
        run.ask(QUESTIONS[2])

    cached = both(model_and_processor, story)
    assert cached.turns[-1][0].timings.reused_tokens > cached.turns[0][0].timings.prompt_tokens
