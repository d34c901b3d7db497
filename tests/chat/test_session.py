"""A conversation: what is kept, what is taken back, what is said about what was seen and heard."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.small_model import drawn_clip, small_model
from videollm.chat.cache import EncodedMedia
from videollm.chat.session import ChatSession, printable
from videollm.clips import Clip, Frames, Waveform
from videollm.errors import (
    ChatError,
    ConfigError,
    ContextFullError,
    EmptyQuestionError,
    MediaNotFoundError,
    QuestionTooLongError,
)
from videollm.media.write import write_video
from videollm.messages import MediaPart, assistant, system, user


@pytest.fixture(scope="module")
def model_and_processor():
    return small_model()


@pytest.fixture
def session(model_and_processor):
    session = ChatSession(*model_and_processor, max_new_tokens=12)
    session.add(drawn_clip(1))
    return session


def state(session):
    """Everything that a failed turn must leave as it was."""
    return session.messages, dict(session.clips), session.last, session._forgotten


# -- asking


@pytest.fixture
def wordy(session):
    """A question that the random model answers in several words."""
    for number in range(100):
        pieces = list(session.stream(f"question {number}", max_new_tokens=60))
        session.undo()
        if len(pieces) > 3:
            return f"question {number}"
    raise AssertionError("no answer of several words: change the seed of the model")


def test_the_stream_joined_is_the_answer(session, wordy):
    pieces = list(session.stream(wordy, max_new_tokens=60))
    answer = session.last
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text
    decoded = session.processor.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert answer.text == decoded.strip()
    question, said = session.messages
    assert question == user(wordy, [MediaPart("clip1.mp4")])
    assert said == assistant(answer.text, answer.token_ids)


def test_the_same_question_gets_the_same_answer(session):
    first = session.ask("what is there?")
    session.undo()
    assert session.ask("what is there?").token_ids == first.token_ids
    session.undo()
    drawn = session.ask("what is there?", temperature=2.0, seed=3)
    assert drawn.token_ids != first.token_ids
    session.undo()
    assert session.ask("what is there?", temperature=2.0, seed=3).token_ids == drawn.token_ids


def test_other_clips_get_other_answers(model_and_processor):
    answers = set()
    for seed in (1, 2, 3):
        session = ChatSession(*model_and_processor, max_new_tokens=12)
        session.add(drawn_clip(seed))
        answers.add(session.ask("what is there?").token_ids)
    assert len(answers) == 3


def test_the_end_token_ends_the_answer(session):
    plain = session.ask("what is there?").token_ids
    session.undo()
    end = next(i for i in range(2, len(plain)) if plain[i] not in plain[:i])
    session.processor.stop_sequences = [(plain[end],)]
    try:
        answer = session.ask("what is there?")
    finally:
        del session.processor.stop_sequences
    assert answer.token_ids == plain[:end]
    assert answer.finish == "end"
    assert not answer.notes


def test_a_cut_answer_says_so(session):
    answer = session.ask("what is there?", max_new_tokens=3)
    assert len(answer.token_ids) == 3
    assert answer.finish == "length"
    assert answer.notes == ("the answer was cut at 3 tokens",)


def test_model_never_says_a_placeholder(session):
    """It would be read as a clip in the next turn."""
    config = session.model.config
    head = session.model.language_model.lm_head.weight.data
    kept = head.clone()
    try:
        head[config.video_token_id] = head.mean(0) + 5 * head[10]
        head[config.audio_token_id] = -head[config.video_token_id]
        for question in ("one?", "two?", "three?"):
            assert not {config.video_token_id, config.audio_token_id} & set(session.ask(question).token_ids)
    finally:
        head.copy_(kept)


# -- stopping


def test_stop_keeps_what_was_said(session, wordy):
    whole = session.ask(wordy, max_new_tokens=60)
    session.undo()
    stream = session.stream(wordy, max_new_tokens=60)
    pieces = [next(stream)]
    thread = threading.Thread(target=session.stop)
    thread.start()
    thread.join()
    pieces += list(stream)
    answer = session.last
    assert answer.stopped
    assert 0 < len(answer.token_ids) < len(whole.token_ids)
    assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
    assert "".join(pieces) == answer.text
    assert session.messages[-1] == assistant(answer.text, answer.token_ids)
    assert session.ask("and now?").finish != "stopped"


def test_stopped_before_the_first_token_nothing_is_kept(session):
    before = session.messages
    stream = session.stream("what is there?")
    session.stop()
    assert list(stream) == []
    assert session.last.stopped and session.last.token_ids == ()
    assert session.messages == before
    assert session.ask("what is there?").text


def test_stop_of_an_idle_session_does_nothing(session):
    session.stop()
    assert session.ask("what is there?").finish == "length"


def test_a_closed_stream_counts_as_stopped(session):
    stream = session.stream("what is there?")
    first = next(stream)
    stream.close()
    assert session.last.stopped
    assert session.last.text.startswith(first)
    assert len(session.messages) == 2
    unread = session.stream("never read")
    del unread
    assert len(session.messages) == 2
    assert session.ask("again?").text


def test_one_answer_at_a_time(session):
    stream = session.stream("what is there?")
    next(stream)
    for act in (lambda: session.ask("another?"), session.undo, session.clear, lambda: setattr(session, "messages", [])):
        with pytest.raises(ChatError, match="still answering"):
            act()
    list(stream)
    assert session.ask("another?").text


# -- failing


@pytest.mark.parametrize("where", ["encode_frames", "encode_audio_segments", "get_video_features", "embed", "forward"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failed_turn_leaves_the_session_as_it_was(model_and_processor, monkeypatch, where, error):
    session = ChatSession(*model_and_processor, max_new_tokens=6)
    session.add(drawn_clip(1))
    session.ask("what is there?")
    session.add(drawn_clip(2))
    before = state(session)

    def fail(*_, **__):
        raise error("broken")

    with monkeypatch.context() as patch:
        patch.setattr(session.model, where, fail)
        with pytest.raises(error):
            session.ask("and here?")
    assert state(session) == before
    answer = session.ask("and here?")
    fresh = ChatSession(*model_and_processor, max_new_tokens=6)
    for clip in session.clips.values():
        fresh.add(clip)
    fresh.messages = before[0]
    assert fresh.ask("and here?").token_ids == answer.token_ids


@pytest.mark.parametrize(
    ("question", "error", "says"),
    [
        ("", EmptyQuestionError, "empty"),
        (" \n\t ", EmptyQuestionError, "empty"),
        ("\u200b\u00a0", EmptyQuestionError, "empty"),
        ("x" * 100_000, QuestionTooLongError, "100000 characters"),
        ("word " * 1000, QuestionTooLongError, "takes .* tokens"),
        ("is it red\x00?", ChatError, r"a control character \(U\+0000\) at character 10"),
        ("\x1b[2J", ChatError, "control character"),
        ("is it \udce9?", ChatError, "a byte that is no UTF-8 text"),
    ],
    ids=["nothing", "blanks", "invisible", "100000", "5000", "nul", "escape", "surrogate"],
)
def test_a_bad_question_is_one_line_and_changes_nothing(session, question, error, says):
    before = state(session)
    with pytest.raises(error, match=says) as caught:
        session.ask(question)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert state(session) == before
    assert session.ask("is it red?\nor\tblue?").text


def test_options_are_checked_before_anything_happens(session):
    before = state(session)
    with pytest.raises(ConfigError, match=r"no such option: \['temprature'\]"):
        session.ask("what?", temprature=1)
    with pytest.raises(ConfigError, match="top_p must be"):
        session.ask("what?", top_p=3)
    assert state(session) == before


# -- undo and edits


def test_undo_takes_back_words_and_never_clips(session):
    session.ask("one?")
    session.add(drawn_clip(2))
    session.ask("two?")
    session.add(drawn_clip(3))
    assert session.undo() == "two?"
    assert session.messages[-1] == user(media=[MediaPart("clip2.mp4"), MediaPart("clip3.mp4")])
    assert list(session.clips) == ["clip1.mp4", "clip2.mp4", "clip3.mp4"]
    assert session.undo() == "one?"
    assert session.undo() is None
    assert [part.clip for part in session.messages[-1].media] == list(session.clips)
    assert session.ask("all?").seen == ("clip1.mp4", "clip2.mp4", "clip3.mp4")


def test_messages_set_to_themselves_change_nothing(session):
    session.system = "be kind"
    session.ask("one?")
    session.add(drawn_clip(2))
    before = session.messages
    assert before[0] == system("be kind")
    session.messages = before
    assert session.messages == before
    assert session.ask("two?").timings.reused_tokens > 0


@pytest.mark.parametrize(
    "messages",
    [
        [assistant("first")],
        [user("one"), user("two"), assistant("three")],
        [user("one")],
        [system("a"), system("b"), user("one"), assistant("two")],
        [user("one", [MediaPart("nobody.mp4")]), assistant("two")],
        [user(media=[MediaPart("nobody.mp4")])],
    ],
)
def test_messages_that_are_no_conversation_are_refused(session, messages):
    session.ask("one?")
    before = state(session)
    with pytest.raises(ChatError, match=r"user and assistant in turn|nobody\.mp4"):
        session.messages = messages
    assert state(session) == before


def test_clear_forgets_everything(session):
    session.ask("one?")
    session.clear()
    assert session.messages == () and not session.clips and session.last is None
    session.add(drawn_clip(2))
    assert session.ask("two?").timings.reused_tokens == 0


def test_the_transcript_is_json(session):
    session.ask("one?")
    written = json.loads(json.dumps(session.transcript()))
    assert [message["role"] for message in written["messages"]] == ["user", "assistant"]
    assert written["messages"][1]["parts"][0]["text"] == session.last.text
    assert written["clips"][0]["name"] == "clip1.mp4" and written["clips"][0]["frames"] == 4


# -- clips


def test_clips_are_encoded_once_even_between_sessions(model_and_processor):
    encoded = EncodedMedia()
    for expected in (1, 0):
        session = ChatSession(*model_and_processor, max_new_tokens=2, encoded=encoded)
        session.add(drawn_clip(1))
        assert session.ask("what?").timings.encoded_clips == expected
    session.add(drawn_clip(1, name="the same again"))
    assert session.ask("what?").timings.encoded_clips == 0


def test_names(session):
    assert session.add(drawn_clip(1)).name == "clip1.mp4 (2)"
    assert session.add(drawn_clip(1)).name == "clip1.mp4 (3)"
    assert session.add(drawn_clip(1), name="mine").name == "mine"
    with pytest.raises(ChatError, match="another clip has this name"):
        session.add(drawn_clip(1), name="mine")
    assert session.add(drawn_clip(1, name="a\nb\x1b[2J\udce9.mp4")).name == "a\\u000ab\\u001b[2J\\udce9.mp4"
    assert printable("größe 日本 'x'.mp4") == "größe 日本 'x'.mp4"


def test_a_file_is_opened_as_the_processor_samples(model_and_processor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    sound = Waveform(np.random.default_rng(0).normal(0, 0.1, (1, 16000)).astype(np.float32), 8000)
    path = tmp_path / "my clip.mp4"
    write_video(path, pixels, fps=10, waveform=sound)
    session = ChatSession(*model_and_processor, max_new_tokens=2)
    clip = session.add(path)
    assert clip.name == "my clip.mp4"
    assert len(clip.frames) == 8  # 4 a second
    answer = session.ask("what?")
    assert answer.seen == answer.heard == ("my clip.mp4",)
    with pytest.raises(MediaNotFoundError):
        session.add(tmp_path / "missing.mp4")
    assert list(session.clips) == ["my clip.mp4"]


def still(name="dog.jpg"):
    frames = Frames(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), 0.0)
    return Clip(name, "image", "still", 0.0, frames)


def test_coverage_says_what_was_seen_and_heard(session):
    session.add(drawn_clip(2, frames=1, sound_seconds=0))
    session.add(drawn_clip(3, frames=0, sound_seconds=1.7, name="beep.wav"))
    session.add(replace(drawn_clip(4, sound_seconds=0), notes=("the file is cut off: readable up to 1.0 s",)))
    session.add(still())
    answer = session.ask("what?")
    assert [clip.sentence for clip in answer.coverage] == [
        "saw 4 frames of clip1.mp4 (0.0-0.8 of 1.0 s), heard 1.0 s of 1.0 s",
        "saw 1 frame of clip2.mp4 (0.0-0.0 of 0.2 s), which has no sound",
        "heard 1.7 s of 1.7 s of beep.wav",
        "saw 4 frames of clip4.mp4 (0.0-0.8 of 1.0 s), which has no sound; the file is cut off: readable up to 1.0 s",
        "saw the image dog.jpg",
    ]
    assert answer.seen == ("clip1.mp4", "clip2.mp4", "clip4.mp4", "dog.jpg")
    assert answer.heard == ("clip1.mp4", "beep.wav")
    record = json.loads(json.dumps(answer.to_json()))
    assert record["coverage"][0]["seen_seconds"] == [0.0, 0.75]
    assert session.coverage == answer.coverage


def test_overlapping_windows_are_heard_once():
    wave = Waveform(np.zeros((1, 8000), np.float32), 8000)
    clip = Clip("a.wav", "audio", "a", 4.0, None, (wave,), ((0.0, 0.6), (0.5, 0.8), (0.9, 2.0)))
    session = ChatSession(*small_model(), max_new_tokens=1)
    session.add(clip)
    assert session.coverage[0].heard_seconds == pytest.approx(0.9)  # 0 to 0.8, and 0.9 to the end of the samples


def test_a_model_without_ears_says_so():
    session = ChatSession(*small_model(ears=False), max_new_tokens=2)
    session.add(drawn_clip(1))
    answer = session.ask("what?")
    assert answer.heard == ()
    assert answer.coverage[0].sentence.endswith("did not hear its sound: this model has no ear")
    with pytest.raises(ChatError, match="has no ear"):
        session.add(drawn_clip(2, frames=0))


# -- a full context


def fill(session, turns):
    return [session.ask(f"what is there in turn {turn}?") for turn in range(turns)]


def test_the_oldest_text_is_forgotten_and_never_a_clip():
    session = ChatSession(*small_model(context_tokens=160), max_new_tokens=8)
    session.add(drawn_clip(1))
    first = fill(session, 3)
    session.add(drawn_clip(2))
    answers = first + fill(session, 9)
    dropping = [answer for answer in answers if answer.dropped_turns]
    assert dropping
    for answer in answers:
        assert answer.timings.prompt_tokens <= 160 - 8
    assert {len(answer.coverage) for answer in answers[3:]} == {2}, "a clip was forgotten"
    for answer in dropping:
        assert "forgotten (no clip was), and the rest was read again" in answer.notes[0]
    # Forgetting makes room for several turns: not every one of them reads everything again.
    after = answers[answers.index(dropping[0]) + 1]
    assert not after.dropped_turns and after.timings.prefilled_tokens < after.timings.prompt_tokens / 2
    assert len(session.messages) == 24, "what was said stays in the transcript"


def test_undo_takes_back_the_forgetting_too():
    session = ChatSession(*small_model(context_tokens=160), max_new_tokens=8)
    session.add(drawn_clip(1))
    while not session.ask("what is there?").dropped_turns:
        before = session._forgotten
    assert session._forgotten > before
    session.undo()
    assert session._forgotten == before
    assert session.ask("what is there?").dropped_turns


def test_clips_that_cannot_fit_are_refused_when_they_are_added():
    session = ChatSession(*small_model(context_tokens=60), max_new_tokens=8)
    for seed in range(4):
        session.add(drawn_clip(seed))
    before = state(session)
    with pytest.raises(ContextFullError, match=r"the clips take .* tokens and the model's context leaves"):
        for seed in range(4, 9):
            session.add(drawn_clip(seed))
            before = state(session)
    assert state(session) == before
    with pytest.raises((QuestionTooLongError, ContextFullError)):
        session.ask("a question that is a good deal longer than the room that is left for it after all these clips")
    assert state(session) == before


def test_clips_pinned_leave_too_little_for_the_question_says_how_much():
    session = ChatSession(*small_model(context_tokens=100), max_new_tokens=8)
    session.add(drawn_clip(1))
    with pytest.raises(QuestionTooLongError, match=r"takes \d+ tokens and the model's context leaves \d+ for it"):
        session.ask("why " * 100)


def test_the_answer_ends_where_the_context_does():
    model, processor = small_model(context_tokens=64)
    model.config.eos_token_id = model.generation_config.eos_token_id = None  # it never ends by itself
    session = ChatSession(model, processor, max_new_tokens=1000)
    session.add(drawn_clip(1))
    answer = session.ask("what is there?")
    assert answer.finish == "length"
    assert answer.timings.prompt_tokens + len(answer.token_ids) == 64
