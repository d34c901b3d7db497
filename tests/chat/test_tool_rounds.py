"""A session that was given tools: who may call, what is kept, shown, counted and forgotten; without tools, nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small_model import drawn_clip, small_model, words_for
from videollm.chat.calls import Evidence, Outcome, brief_call_in, call_in, may_become_a_call
from videollm.chat.choice import arguments_in, times_in
from videollm.chat.generation import TokenChooser
from videollm.chat.session import ChatSession
from videollm.chat.timeline import Timeline
from videollm.errors import ChatError, ConfigError
from videollm.media.decode_worker import close_server
from videollm.media.write import write_video
from videollm.messages import Message, TextPart, ToolCallPart, ToolResultPart, user
from videollm.models import hub
from videollm.tools.router import Router
from videollm.training.tiny import build_tiny

FILE = Path("a.mp4")


class Bench:
    """Real data, no files: what a call gives back is written down here."""

    def __init__(self, content: str = "a red circle", *, shows: bool = False, calls_per_turn: int = 2) -> None:
        self.content, self.shows, self.calls_per_turn = content, shows, calls_per_turn
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    schemas: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look"}}]  # noqa: RUF012

    def names(self, files: Any) -> Any:
        return files

    def call(self, name: str, arguments: Any, files: Any, *, stopped: Any = None, shows: bool = False) -> Outcome:
        self.made.append((name, dict(arguments)))
        if self.refuses:
            return Outcome("there is no such thing", refused=True)
        video = next(iter(files))
        if self.shows and shows:
            return Outcome("shown", (Evidence(video, 2.0, 3.0, "seen"),), clip=drawn_clip(9, frames=4, sound_seconds=0))
        return Outcome(self.content, (Evidence(video, 2.0, 3.0, "narrated"),))


@pytest.fixture(scope="module")
def model_and_processor():
    return small_model()


def session_with(model_and_processor, tools, **options) -> ChatSession:
    session = ChatSession(*model_and_processor, max_new_tokens=8, tools=tools, **options)
    session.add(drawn_clip(1), file=FILE)
    return session


@pytest.fixture
def chooses(monkeypatch: pytest.MonkeyPatch):
    """Makes the random model's choice known: its scores mean nothing."""

    def set_(*wanted: str) -> None:
        rest = list(wanted)

        def scores(model, tokenizer, cache, logits, words):
            first = scores.turn = not getattr(scores, "turn", False)
            pick = rest[0] if rest else "answer"
            if not first and rest:
                rest.pop(0)
            return {word: float(first and word == pick) * 9 for word in words}

        monkeypatch.setattr("videollm.chat.choice._scores", scores)

    return set_


def test_without_calls_nothing_changes(model_and_processor) -> None:
    plain = ChatSession(*model_and_processor, max_new_tokens=8)
    plain.add(drawn_clip(1))
    tools = Bench()
    given = session_with(model_and_processor, tools, calls=False)
    for question in ("what is there?", "and then?"):
        assert plain.ask(question).token_ids == given.ask(question).token_ids
    assert plain.messages == given.messages and not tools.made and given.last is not None
    assert given.last.timings.prompt_tokens == plain.last.timings.prompt_tokens  # pyright: ignore


def test_a_choice_that_the_model_makes_is_a_round_of_its_turn(model_and_processor, chooses) -> None:
    tools = Bench()
    session = session_with(model_and_processor, tools)
    chooses("look")
    events = list(session.stream("what is at 0.5 s?").events())
    call, result = events[:2]
    assert isinstance(call, ToolCallPart) and isinstance(result, ToolResultPart) and result.content == "a red circle"
    assert tools.made == [("look", {"video": "clip1.mp4", "start_seconds": 0.0, "end_seconds": 1.0})]
    answer = session.last
    assert answer is not None and answer.rounds == (call, result)
    assert "".join(event for event in events if isinstance(event, str)) == answer.text
    question, called, told, said = session.messages
    assert [m.role for m in (question, called, told, said)] == ["user", "assistant", "tool", "assistant"]
    assert called.parts == (call,) and told.parts == (result,)
    assert Evidence("clip1.mp4", 2.0, 3.0, "narrated") in answer.used
    assert (
        Evidence("clip1.mp4", 0.0, 0.75, "seen") in answer.used
        and Evidence("clip1.mp4", 0.0, 1.0, "heard") in answer.used
    )
    record = json.loads(json.dumps(answer.to_json()))
    assert record["rounds"][0]["name"] == "look" and record["used"][0]["how"] == "narrated"
    json.dumps(session.transcript())


def test_cached_rounds_are_uncached_rounds(model_and_processor, chooses) -> None:
    """What a turn with rounds computes is what its messages say, on this turn and the next, and after an undo."""
    session = session_with(model_and_processor, Bench(shows=True))
    plain = ChatSession(*model_and_processor, max_new_tokens=8, reuse_cache=False, tools=Bench(shows=True))
    plain.add(drawn_clip(1), file=FILE)
    for question in ("what is at 0.5 s?", "and then?", "why?"):
        found = []
        for each in (session, plain):
            chooses("look")
            found.append(each.ask(question))
        assert found[0].token_ids == found[1].token_ids
        assert found[0].timings.reused_tokens > 0 and found[1].timings.reused_tokens == 0
    session.undo()
    chooses("look")
    assert session.ask("why?").token_ids == found[1].token_ids


def test_what_is_shown_belongs_to_its_turn(model_and_processor, chooses) -> None:
    session = session_with(model_and_processor, Bench(shows=True))
    before = dict(session.clips)
    chooses("look")
    answer = session.ask("what is at 0.5 s?")
    assert list(session.clips) == ["clip1.mp4", "clip1.mp4 2-3 s"]
    assert Evidence("clip1.mp4", 2.0, 2.75, "seen") in answer.used, "in seconds of the video"
    assert session.undo() == "what is at 0.5 s?"
    assert dict(session.clips) == before
    stream = session.stream("what is at 0.5 s?")
    chooses("look")
    for event in stream.events():
        if isinstance(event, ToolResultPart):
            stream.close()
            break
    assert dict(session.clips) == before and len(session.messages) == 1


def test_calls_are_limited_and_none_is_made_twice(model_and_processor, chooses) -> None:
    tools = Bench(calls_per_turn=2)
    session = session_with(model_and_processor, tools)
    chooses("look", "look", "narrate", "listen")
    session.ask("what is there?")
    assert [name for name, _ in tools.made] == ["look"], (
        "the same again is not offered, so that the choice is to answer"
    )
    tools.made.clear()
    chooses("look", "narrate", "listen")
    session.ask("and now?")
    assert [name for name, _ in tools.made] == ["look", "narrate"]


def test_a_refusal_is_a_result_like_any_other(model_and_processor, chooses) -> None:
    tools = Bench()
    tools.refuses = True
    session = session_with(model_and_processor, tools)
    chooses("look")
    answer = session.ask("what is there?")
    result = answer.rounds[1]
    assert isinstance(result, ToolResultPart) and result.refused and not any(e.how == "narrated" for e in answer.used)


def test_results_are_cut_to_the_context(model_and_processor, chooses) -> None:
    small = small_model(context_tokens=320)
    session = session_with(small, Bench("a very long story. " * 200))
    chooses("look")
    answer = session.ask("what?")
    result = answer.rounds[1]
    assert isinstance(result, ToolResultPart) and result.content.endswith("...") and len(result.content) < 600
    assert answer.timings.prompt_tokens + 8 <= 320
    session.call("look", {"video": "clip1.mp4"})
    chooses()
    assert session.ask("and?").timings.prompt_tokens + 8 <= 320


def test_the_model_s_own_scores_choose(model_and_processor) -> None:
    """With real scores: whatever is chosen, it is one of the choices, and the same each time."""
    runs = []
    for _ in range(2):
        tools = Bench()
        answer = session_with(model_and_processor, tools).ask("where is the loud beep heard?")
        assert {name for name, _ in tools.made} <= {"narrate", "search", "look", "listen"}
        runs.append((tools.made, answer.token_ids))
    assert runs[0] == runs[1]


def test_the_person_calls_and_the_next_question_has_it(model_and_processor, chooses) -> None:
    tools = Bench()
    alone = session_with(model_and_processor, tools, calls=False)
    assert alone.call("look", {"video": "clip1.mp4"}).content == "a red circle"
    assert [part.type for part in alone.messages[-1].parts] == ["video"], "for a model that reads no results"
    chooses()
    session = session_with(model_and_processor, tools)
    assert session.call("look", {"video": "clip1.mp4"}).content == "a red circle"
    answer = session.ask("so?")
    parts = session.messages[0].parts
    assert [part.type for part in parts] == ["video", "tool_call", "tool_result", "text"]
    assert answer.used[0] == Evidence("clip1.mp4", 2.0, 3.0, "narrated")
    assert session.undo() == "so?"
    assert [part.type for part in session.messages[-1].parts] == ["video", "tool_call", "tool_result"]
    with pytest.raises(ChatError, match="has no tools"):
        ChatSession(*model_and_processor).call("look", {})


def test_a_conversation_with_rounds_can_be_set_anew(model_and_processor, chooses) -> None:
    session = session_with(model_and_processor, Bench(shows=True))
    chooses("look")
    first = session.ask("what is at 0.5 s?")
    kept = session.messages
    other = session_with(model_and_processor, Bench())
    other.messages = kept
    assert [m.role for m in other.messages] == ["user", "assistant", "tool", "assistant"]
    assert other.messages[2].media == (), "what is not here any more is not shown"
    session.messages = kept
    assert session.messages == kept and first.token_ids == session.messages[-1].parts[0].token_ids  # pyright: ignore
    with pytest.raises(ChatError, match="user and assistant in turn"):
        session.messages = [user("?"), Message("tool", (ToolResultPart("1", "x"),))]


def test_a_tool_that_fails_leaves_the_session_as_it_was(model_and_processor, chooses) -> None:
    tools = Bench()
    session = session_with(model_and_processor, tools)
    before = session.messages
    tools.call = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug"))  # type: ignore[method-assign]
    chooses("look")
    with pytest.raises(RuntimeError, match="a bug"):
        session.ask("what is there?")
    assert session.messages == before
    chooses()
    assert session.ask("what is there?").token_ids


# -- decoders whose template knows calls


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"name": "look", "parameters": {"video": "a"}}', ("look", {"video": "a"})),
        (' <tool_call>\n{"name": "look", "arguments": {}}\n</tool_call> ', ("look", {})),
        ('{"type": "function", "name": "search", "parameters": {"query": "x"}}', ("search", {"query": "x"})),
        ('I call {"name": "look", "parameters": {}}', None),
        ('{"name": "look", "parameters": {}} and more', None),
        ('{"name": ["look"], "parameters": {}}', None),
        ('{"name": "look", "parameters": "all"}', None),
        ('{"name": "look", "parameters": {}, "file": "/etc/passwd"}', None),
        ("{" * 5000 + "}" * 5000, None),
        ("[look(video='a')]", None),
        ("", None),
    ],
)
def test_only_a_text_that_is_nothing_but_a_call_is_one(text, call) -> None:
    assert call_in(text) == call
    if call is not None:
        assert all(may_become_a_call(text[:length]) for length in range(len(text)))


def test_a_call_in_words_is_carried_out_and_not_shown_as_words(model_and_processor, monkeypatch) -> None:
    """The model's words are put into its mouth token by token; all else is real."""
    model, processor = model_and_processor
    monkeypatch.setattr(type(processor), "calls_tools", True)
    wanted = '{"name": "look", "parameters": {"video": "clip1.mp4", "start_seconds": 0, "end_seconds": 1}}'
    says = [wanted, "a red circle.", wanted, wanted, wanted]
    rest: list[int] = []

    def choose(self, logits: torch.Tensor, generated) -> int:
        if not generated:
            rest[:] = [
                *processor.tokenizer(says.pop(0), add_special_tokens=False)["input_ids"],
                model.config.eos_token_id,
            ]
        return rest[len(generated)]

    monkeypatch.setattr("videollm.chat.generation.TokenChooser.choose", choose)
    tools = Bench(calls_per_turn=2)
    session = session_with(model_and_processor, tools)
    events = list(session.stream("what is there?", max_new_tokens=200).events())
    assert [type(event) for event in events[:2]] == [ToolCallPart, ToolResultPart]
    assert "".join(events[2:]) == session.last.text == "a red circle."  # pyright: ignore
    assert events[0].token_ids and tools.made[0][1]["end_seconds"] == 1  # pyright: ignore
    # A decoder that does nothing else: after so many calls what it says are words.
    events = list(session.stream("and now?", max_new_tokens=200).events())
    assert len(tools.made) == 3 and [type(event) for event in events[:4]] == [ToolCallPart, ToolResultPart] * 2
    assert "".join(events[4:]) == wanted


# -- functions of whoever asks

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
RESULT = "rain, 8 degrees"


@pytest.fixture
def says(model_and_processor, monkeypatch):
    return words_for(*model_and_processor, monkeypatch)


CALL = '{"name": "weather", "parameters": {"city": "ulm"}}'


def answered(session: ChatSession, content: str = RESULT) -> None:
    """The function is carried out."""
    assert session.last is not None
    results = tuple(ToolResultPart(call.call_id, content) for call in session.last.calls)
    session.messages = (*session.messages, Message("tool", results))


def test_a_turn_ends_with_a_call_of_the_asker_s_function_and_goes_on(model_and_processor, says) -> None:
    says += [CALL, CALL, "it rains.", "yes."]
    session = session_with(model_and_processor, None)
    session.functions = [WEATHER]
    events = list(session.stream("what is the weather in ulm?", max_new_tokens=100).events())
    answer = session.last
    assert answer is not None and not events and (answer.finish, answer.text) == ("calls", "")
    (call,) = answer.calls
    assert (call.name, call.arguments) == ("weather", {"city": "ulm"}) and call.token_ids
    assert [m.role for m in session.messages] == ["user", "assistant"] and session.messages[1].parts == (call,)
    with pytest.raises(ChatError, match="no question waits"):
        session.go_on()
    answered(session)
    answer = "".join(session.go_on(max_new_tokens=100))
    assert answer == "" and session.last.calls[0].call_id != call.call_id, "it may call again"  # pyright: ignore
    answered(session)
    assert "".join(session.go_on(max_new_tokens=100)) == "it rains."
    assert [m.role for m in session.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert session.last.timings.reused_tokens > 40 and session.last.finish == "end"  # pyright: ignore
    assert [type(part) for part in session.last.rounds] == [ToolCallPart, ToolResultPart] * 2  # pyright: ignore
    assert session.ask("really?", max_new_tokens=100).text == "yes." and session.undo() == "really?"
    with pytest.raises(ChatError, match="no question waits"):
        session.go_on()


def test_an_open_turn_can_be_set_anew_and_is_forgotten_by_another_question(model_and_processor, says) -> None:
    says += [CALL, "it rains.", "it rains.", CALL, CALL, "yes."]
    session = session_with(model_and_processor, None)
    session.functions = [WEATHER]
    session.ask("what is the weather in ulm?", max_new_tokens=100)
    kept = session.messages
    answered(session)
    first = "".join(session.go_on(max_new_tokens=100)), session.last.timings.prompt_tokens  # pyright: ignore
    other = session_with(model_and_processor, None)
    other.messages = kept
    assert other.messages == kept
    other.messages = session.messages[:3]
    assert ("".join(other.go_on(max_new_tokens=100)), other.last.timings.prompt_tokens) == first  # pyright: ignore
    assert other.messages == session.messages

    other.clear()
    other.add(drawn_clip(1), file=FILE)
    other.functions = [WEATHER]
    other.ask("what is the weather in ulm?", max_new_tokens=100)
    assert other.undo() == "what is the weather in ulm?" and [p.type for p in other.messages[-1].parts] == ["video"]
    other.ask("what is the weather in ulm?", max_new_tokens=100)
    assert other.ask("is there a circle?").coverage, "the clip that was shown with it is shown with the next question"
    assert len(other.messages) == 2


def test_the_service_s_tools_and_the_asker_s_functions_in_one_turn(model_and_processor, says) -> None:
    look = '{"name": "look", "parameters": {"video": "clip1.mp4", "start_seconds": 0, "end_seconds": 1}}'
    says += [look, CALL, "it rains.", look]
    tools = Bench(shows=True, calls_per_turn=1)
    session = session_with(model_and_processor, tools)
    session.functions = [WEATHER]
    events = list(session.stream("what is the weather?", max_new_tokens=200).events())
    assert [type(event) for event in events] == [ToolCallPart, ToolResultPart] and len(tools.made) == 1
    assert session.last.finish == "calls" and "clip1.mp4 2-3 s" in session.clips  # pyright: ignore
    answered(session)
    assert "".join(session.go_on(max_new_tokens=100)) == "it rains." and "clip1.mp4 2-3 s" in session.clips
    # What may not be called any more is words.
    tools.calls_per_turn = 0
    assert "".join(session.stream("and now?", max_new_tokens=200)) == look and len(tools.made) == 1


def test_a_model_that_cannot_be_told_of_functions_chooses_one(model_and_processor, chooses) -> None:
    session = session_with(model_and_processor, None)
    session.functions = [WEATHER]
    chooses("weather")
    answer = session.ask("Ulm?")
    assert answer.finish == "calls" and answer.calls[0].arguments == {"city": "Ulm?"}
    answered(session)
    chooses("weather")  # the same again is not offered
    assert "".join(session.go_on(max_new_tokens=100)) == session.last.text != ""  # pyright: ignore
    assert session.last.finish in ("end", "length")  # pyright: ignore


@pytest.mark.parametrize(
    ("question", "properties", "required", "arguments"),
    [
        ("play", {}, [], {}),
        (
            "set it to 21.5 or 3",
            {"to": {"type": "number"}, "n": {"type": "integer"}},
            ["to", "n"],
            {"to": 21.5, "n": 3},
        ),
        ("set it to 21.5", {"to": {"type": "integer"}}, ["to"], None),
        ("light OFF", {"how": {"type": "string", "enum": ["on", "off"]}}, ["how"], {"how": "off"}),
        ("lighten", {"how": {"type": "string", "enum": ["light"]}}, ["how"], None),
        ("where", {"a": {"type": "string"}, "b": {"type": "string"}}, ["a"], {"a": "where"}),
        ("where", {"a": {"type": "string"}, "b": {"type": "string"}}, ["a", "b"], None),
        ("who", {"a": {"type": "object"}}, ["a"], None),
        ("who", {}, ["a"], None),
    ],
)
def test_arguments_are_the_asker_s_words(question, properties, required, arguments) -> None:
    found = arguments_in(question, {"type": "object", "properties": properties, "required": required})
    assert found == arguments


# -- a decoder that calls with a token of its own


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("look 4:31", ("look", {"video": "a", "start_seconds": 269.0, "end_seconds": 273.0})),
        ("listen 1 s", ("listen", {"video": "a", "start_seconds": 0.0, "end_seconds": 3.0})),
        ("narrate 4:31 4:51", ("narrate", {"video": "a", "start_seconds": 271.0, "end_seconds": 291.0})),
        ("look 16.0 s 12.0 s", ("look", {"video": "a", "start_seconds": 12.0, "end_seconds": 16.0})),
        (" search  red star ", ("search", {"query": "red star"})),
        ("search look 4:31 /etc/passwd", ("search", {"query": "look 4:31 /etc/passwd"})),
        ("chapters", ("chapters", {"video": "a"})),
        ("look", ("look", {"video": "a"})),
        ("looks 4:31", ("looks 4:31", {})),
        ("open /etc/passwd", ("open /etc/passwd", {})),
        ("", ("", {})),
    ],
)
def test_a_brief_call_has_times_or_words(text, call) -> None:
    assert brief_call_in(text, "a") == call
    if "video" in call[1]:
        assert "video" not in brief_call_in(text, None)[1]


@pytest.fixture(scope="module")
def caller():
    """The shape of `tiny`, random weights."""
    model, processor = build_tiny(0, hub.find("tiny"), tools=True)
    return model.eval(), processor


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch, caller):
    """Puts words into the model's mouth, one answer after the other, as far as it may say them; all else is real."""
    model, processor = caller
    left: list[str] = []
    now: list[int] = []

    class Chooser(TokenChooser):
        def choose(self, logits: torch.Tensor, generated) -> int:
            if not generated:
                words = left.pop(0)
                now[:] = [*processor.tokenizer(words, add_special_tokens=False)["input_ids"], model.config.eos_token_id]
            wanted = torch.full_like(logits, -1e4)
            wanted[now[len(generated)]] = 0.0
            wanted[processor.tokenizer("no", add_special_tokens=False)["input_ids"][0]] = -1.0  # where it may not
            return super().choose(wanted, generated)

    monkeypatch.setattr("videollm.chat.generation.TokenChooser", Chooser)
    return left


def test_a_call_by_its_token_is_a_round_and_none_of_it_is_words(caller, speaks) -> None:
    tools = Bench(shows=True)
    session = ChatSession(*caller, max_new_tokens=24, tools=tools)
    session.add(drawn_clip(1), file=FILE)
    session.add(drawn_clip(2), file=Path("b.mp4"))
    speaks += ["<call>look 0:01", "a red circle."]
    events = list(session.stream("what is there in clip1.mp4 at 0:01?").events())
    assert [type(event) for event in events[:2]] == [ToolCallPart, ToolResultPart]
    assert "".join(events[2:]) == session.last.text == "a red circle."  # pyright: ignore
    assert tools.made == [("look", {"video": "clip1.mp4", "start_seconds": 0.0, "end_seconds": 3.0})]
    call = session.messages[1].parts[0]
    assert isinstance(call, ToolCallPart) and call.token_ids is not None
    assert call.token_ids[0] == caller[1].call_token_ids[0]
    # Words that say how a call is spelled are none; nor is a question that holds the token's name.
    speaks += ["look 0:01"]
    assert session.ask("<call>look 0:01").text == "look 0:01" and len(tools.made) == 1


def test_coverage_is_of_the_whole_video_whatever_tools_showed_or_told_of(caller, speaks) -> None:
    """A model of this shape is shown what a tool gave back in the place of the film."""
    film = drawn_clip(1, frames=20)
    seconds = film.duration_seconds
    for shows in (True, False):
        session = ChatSession(*caller, max_new_tokens=24, tools=Bench(shows=shows))
        session.add(film, file=FILE)
        speaks += ["<call>look 0:02", "a red circle."]
        (covered,) = session.ask("what is there at 0:02?").coverage
        assert (covered.name, covered.duration_seconds) == ("clip1.mp4", seconds) and covered.has_sound
        if shows:
            assert (covered.frames, covered.seen_seconds, covered.looked_seconds) == (4, (2.0, 2.75), 1.0)
            assert covered.sentence == f"saw 4 frames of clip1.mp4 (1.0 of {seconds:.1f} s), did not hear its sound"
        else:
            assert (covered.frames, covered.seen_seconds, covered.told_seconds) == (0, None, 1.0)
            assert covered.sentence == f"was told of 1.0 s of {seconds:.1f} s of clip1.mp4"


def test_an_answer_rests_on_what_the_prompt_still_holds(caller, speaks) -> None:
    """What came back for a question takes the place of what did before; what only follows it does not."""
    tools = Bench()
    session = ChatSession(*caller, max_new_tokens=24, tools=tools)
    session.add(drawn_clip(1), file=FILE)
    told = Evidence("clip1.mp4", 2.0, 3.0, "narrated")
    speaks += ["<call>look 0:01", "yes.", "yes."]
    assert session.ask("what is at 0:01?").used == session.ask("is it?").used == (told,)
    tools.shows = True
    speaks += ["<call>look 0:02", "yes."]
    assert session.ask("and at 0:02?").used == (Evidence("clip1.mp4", 2.0, 2.75, "seen"),)


def test_what_is_shown_beside_the_whole_film_counts_with_it(model_and_processor, chooses) -> None:
    session = session_with(model_and_processor, Bench(shows=True))
    whole = session.ask("what is there?").coverage[0]
    chooses("look")
    (both,) = session.ask("what is at 0.5 s?").coverage
    assert both.frames == whole.frames + 4 and both.heard_seconds == whole.heard_seconds > 0
    assert both.looked_seconds is None and both.seen_seconds == (0.0, 2.75)


def test_the_same_call_again_ends_the_calls(caller, speaks) -> None:
    tools = Bench(calls_per_turn=4)
    session = ChatSession(*caller, max_new_tokens=24, tools=tools)
    session.add(drawn_clip(1), file=FILE)
    speaks += ["<call>look 0:01", "<call>look 0:01", "<call>yes"]
    answer = session.ask("what is there?")
    assert len(tools.made) == 1 and answer.text.startswith("no"), "then it may not say the token at all"


def test_without_tools_nobody_calls(caller, speaks) -> None:
    for options in ({}, {"tools": Bench(), "calls": False}, {"tools": Bench(calls_per_turn=0)}):
        session = ChatSession(*caller, max_new_tokens=24, **options)
        session.add(drawn_clip(1), file=FILE)
        speaks += ["<call>look 0:01"]
        answer = session.ask("what is at 0:01?")
        assert answer.rounds == () and not set(answer.token_ids) & set(caller[1].call_token_ids)


def test_a_decoder_that_always_calls_for_what_is_not_there_is_refused(caller, speaks, tmp_path) -> None:
    """Whatever stands behind the token: the tools refuse it, and the turn ends."""
    path = write_video(tmp_path / "clip1.mp4", np.zeros((8, 32, 32, 3), np.uint8), fps=8)
    router = Router.of_model(*caller)
    for hostile in ("search /etc/passwd", "open /etc/passwd", "look ../../x", "look 9:59", "chapters http://x"):
        session = ChatSession(*caller, max_new_tokens=48, tools=router)
        session.add(path)
        speaks += [f"<call>{hostile}", f"<call>{hostile} ", "<call>chapter", "<call>x", "fine."]
        answer = session.ask("what?")
        results = [part for part in answer.rounds if isinstance(part, ToolResultPart)]
        assert results and (results[0].refused or hostile.startswith("chapters")), hostile
        assert all("root:" not in part.content for part in results)
        speaks.clear()
    router.close()


# -- long videos


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory):
    """100 s of changing grey, small: ten segments of 10 s."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    times = np.arange(0.0, 100.0, 0.5)
    grey = (np.arange(len(times)) % 200 + 20).astype(np.uint8)
    pixels = np.broadcast_to(grey[:, None, None, None], (len(times), 32, 32, 3))
    write_video(path, np.ascontiguousarray(pixels), fps=2.0)
    yield path
    close_server()


def test_each_question_is_shown_the_segments_that_fit_it(model_and_processor, long_film) -> None:
    """Those found for its words, within the budget; none twice; forgotten and taken back with their turns."""
    wanted: list[tuple[float, float]] = []
    session = ChatSession(*model_and_processor, max_new_tokens=8)
    session.watch(long_film, segment_seconds=10.0, choose=lambda words: wanted)

    def seen(answer) -> set[tuple[int, int]]:
        return {(round(e.start_seconds), round(e.end_seconds)) for e in answer.used if e.how == "seen"}

    wanted[:] = [(42.0, 44.0), (71.0, 89.0)]
    first = session.ask("where is it?")
    assert seen(first) == {(42, 44), (40, 50), (70, 80), (80, 90)} and first.timings.encoded_clips == 4
    assert first.used[0] == Evidence("long.mp4", 42.0, 44.0, "retrieved"), "the moment that fits best is cited first"
    (covered,) = first.coverage
    assert (covered.name, covered.looked_seconds, covered.duration_seconds) == ("long.mp4", 30.0, 100.0)
    assert covered.of_frames == session.timelines[0].frames > covered.frames > 0
    assert covered.sentence.startswith(
        f"saw {covered.frames} of {covered.of_frames} frames of long.mp4 (30.0 of 100.0 s)"
    )
    wanted[:] = [(43.0, 45.0)]
    second = session.ask("and there?")
    assert second.timings.encoded_clips == 0 and second.timings.prefilled_tokens < 60, "turn two reads its own words"
    assert seen(second) == seen(first)
    wanted[:] = [(0.0, 100.0)]
    third = session.ask("all of it?")
    assert third.used[0].how == "retrieved" and third.timings.prompt_tokens + 8 <= session.context_tokens
    each = model_and_processor[1].num_video_query_tokens
    for number in range(6):
        wanted[:] = [(10.0 * number, 10.0 * number + 1)]
        session.ask(f"and {number}?")
        assert len(session.clips) * each < session.context_tokens, "memory holds what the context has room for"
    session.undo()
    assert {part.clip for m in session.messages for part in m.media} >= set(session.clips)
    session.clear()
    assert not session.clips


def test_the_uncached_timeline_says_the_same(model_and_processor, long_film) -> None:
    answers = []
    for reuse in (True, False):
        session = ChatSession(*model_and_processor, max_new_tokens=8, reuse_cache=reuse)
        session.watch(long_film, segment_seconds=20.0)
        answers.append([session.ask(question).token_ids for question in ("what is there?", "and then?")])
    assert answers[0] == answers[1]


def test_a_question_is_shown_all_or_what_fits_or_an_even_spread() -> None:
    line = Timeline.of("v", FILE, 100.0, segment_seconds=10.0)
    assert line.fitting("x", 10).shown == line.segments and len(line.segments) == 10
    assert line.fitting("x", 2).shown == ((20.0, 30.0), (70.0, 80.0)) and line.fitting("x", 2).moment is None
    found = Timeline("v", FILE, line.segments, lambda words: [(93, 96), (5, 25)])
    assert found.fitting("x", 1).shown == ((93, 96),), "the moment itself comes first"
    assert found.fitting("x", 3).shown == ((0, 10), (90, 100), (93, 96)) and found.fitting("x", 3).moment == (93, 96)
    assert found.fitting("x", 3, without=[(93, 96), (0, 10)]).shown == ((90, 100),)
    assert found.fitting("x", 10).shown == line.segments and found.fitting("x", 10).moment == (93, 96)
    for moment, looked_at in (((0.5, 1.0), (0.0, 1.75)), ((99.0, 99.5), (98.25, 100.0)), ((5, 80), (5, 35))):
        short = Timeline("v", FILE, line.segments, lambda words, at=moment: [at])
        assert short.fitting("x", 1).shown == (looked_at,)
    for words, stretch in (
        ("what happens at 0:42?", (40, 44)), ("and at 0:00", (0, 2)), ("what is between 0:30 and 0:35?", (30, 35)),
    ):  # fmt: skip
        assert found.fitting(words, 1).shown == (stretch,), "a time that the question names goes before what fits"
        assert found.fitting(words, 1).moment is None
    assert found.fitting("what happens at 3:20?", 1).shown == ((93, 96),), "the video has no such time"
    for seconds, length in ((5.0, 60.0), (31.0, 60.0), (20.0, 0.0)):
        with pytest.raises(ConfigError):
            Timeline.of("v", FILE, length, segment_seconds=seconds)


def test_times_in_a_question() -> None:
    assert times_in("what is at 0:12, and between 1:02:03 and 3.5 s, or 7 seconds in?") == [12, 3723, 3.5, 7]
    assert times_in("there are 3 circles and 2 squares, version 1.2.3 of a:b") == []


def test_a_text_part_stays_text() -> None:
    """The one message format: nothing of a result is a call."""
    part = ToolResultPart("1", '{"name": "look", "parameters": {}}')
    assert Message("tool", (part, TextPart("x"))).text == "x"
