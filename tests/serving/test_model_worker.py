"""One worker, many conversations: order, limits, leaving, forgetting, another model."""

import asyncio
import contextlib
import threading
from dataclasses import replace

import pytest

from tests.cli.bad_files import good, written
from tests.small_model import ENDLESS_TOKENS, endless_model, small_model
from videollm.chat.session import ChatSession
from videollm.errors import (
    BusyError,
    ChatError,
    ConfigError,
    MediaUnreadableError,
    ModelNotFoundError,
    NotYoursError,
    UnavailableError,
)
from videollm.media.decode_worker import open_clip
from videollm.serving import model_worker
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits

MODEL = endless_model()
OTHER = small_model(seed=1)
ENDLESS = {"max_new_tokens": ENDLESS_TOKENS}
"""Options of an answer that goes on until it is stopped, however slow whoever stops it is."""
LIMITS = WorkerLimits(new_tokens=ENDLESS_TOKENS, working_tokens=2**40, working_bytes=2**50)
"""With room for such answers."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def work():
    """Runs a scenario against a worker, which is closed at its end."""

    def run(scenario, limits=LIMITS, load=lambda choice, tell: MODEL, **options):
        async def whole():
            worker = ModelWorker(limits=limits, load=load, **options).start()
            try:
                return await asyncio.wait_for(scenario(worker), 240)
            finally:
                await asyncio.to_thread(worker.close, 0)

        return asyncio.run(whole())

    return run


def alone(clip, *questions, model=MODEL, **options):
    """What a session answers that nobody else disturbs."""
    session = ChatSession(*model)
    session.add(clip)
    return [session.ask(question, **options).text for question in questions]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def test_an_answer_is_streamed_and_is_that_of_a_session(work, clip):
    async def scenario(worker):
        one = worker.open()
        await worker.add(one, clip, "good.mp4")
        turn = await worker.ask(one, "what is it", max_new_tokens=40)
        pieces = [piece async for piece in turn]
        return pieces, turn.answer, one

    pieces, answer, one = work(scenario)
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == alone(clip, "what is it", max_new_tokens=40)[0]
    assert answer.coverage[0].name == "good.mp4" and answer.coverage[0].frames == 8
    assert [exchange.clips for exchange in one.exchanges] == [("good.mp4",)]
    assert one.transcript()["turns"][0]["answer"] == answer.text


def test_conversations_at_once_do_not_disturb_each_other(work, clip):
    questions = [f"question {number}" for number in range(6)]

    async def scenario(worker):
        async def talk(question):
            one = worker.open()
            await worker.add(one, clip, "good.mp4")
            first = await (await worker.ask(one, question, max_new_tokens=30)).finished()
            second = await (await worker.ask(one, "and then?", max_new_tokens=30)).finished()
            assert second.timings.reused_tokens > first.timings.prompt_tokens
            return [first.text, second.text]

        return await asyncio.gather(*map(talk, questions))

    together = work(scenario, WorkerLimits(at_once=3))
    assert together == [alone(clip, question, "and then?", max_new_tokens=30) for question in questions]


def test_a_full_queue_refuses_and_recovers(work, clip):
    async def scenario(worker):
        conversations = [worker.open() for _ in range(4)]
        turns = [await worker.ask(one, "tell all", **ENDLESS) for one in conversations[:3]]
        with pytest.raises(BusyError, match="3 questions are being answered or wait, which is the limit"):
            await worker.ask(conversations[3], "and me?")
        assert worker.counts.refused == 1
        for turn in turns:
            turn.cancel()
        for turn in turns:
            [piece async for piece in turn]
        return await (await worker.ask(conversations[3], "and me?", max_new_tokens=5)).finished()

    assert work(scenario, replace(LIMITS, at_once=1, waiting=2)).finish in ("end", "length")


STEPS = []
"""What `counting` did."""


def counting(runtime, upto):
    assert not runtime.model.training and runtime.choice == ModelChoice()
    try:
        for number in range(upto):
            STEPS.append(number)
            yield number
            yield None
            if upto == 9 and number == 7:
                raise ChatError("seven is too many")
    finally:
        STEPS.append("closed")


def test_other_work_goes_on_beside_answers(work, clip):
    async def scenario(worker):
        one = worker.open()
        turn = await worker.ask(one, "tell all", **ENDLESS)
        assert [number async for number in worker.run(counting, 5)] == [0, 1, 2, 3, 4]
        assert worker.answering == 1, "it waited for the answer"
        turn.cancel()
        [piece async for piece in turn]
        return turn.answer

    assert work(scenario).token_ids


def test_other_work_is_bounded_and_ends_with_its_reader(work):
    STEPS.clear()

    async def scenario(worker):
        await worker.ready()
        async with worker.run(counting, 10**12) as numbers:
            async for number in numbers:
                if number == 3:
                    with pytest.raises(BusyError, match="1 questions are being answered or wait"):
                        worker.run(counting, 1)
                    break
        await until(lambda: not worker.answering)
        assert STEPS[-1] == "closed"
        return [number async for number in worker.run(counting, 1)]

    assert work(scenario, WorkerLimits(at_once=1, waiting=0)) == [0]


def test_what_goes_wrong_in_other_work_is_said(work):
    async def scenario(worker):
        heard = []
        with pytest.raises(ChatError, match="seven is too many"):
            async for number in worker.run(counting, 9):
                heard.append(number)
        assert heard == list(range(8))
        with pytest.raises(UnavailableError, match="unexpected way"):
            async for number in worker.run(wrong):
                raise AssertionError(number)
        return [number async for number in worker.run(counting, 2)]

    assert work(scenario) == [0, 1]


def wrong(runtime):
    yield from runtime.nonsense


def test_who_goes_away_is_not_answered_any_more(work):
    async def scenario(worker):
        one, two = worker.open(), worker.open()
        async with await worker.ask(one, "tell all", **ENDLESS) as turn:
            async for _ in turn:
                break
            waiting = await worker.ask(two, "and me?", **ENDLESS)
            waiting.cancel()
        await until(lambda: not worker.answering and not worker.queue_length)
        with pytest.raises(UnavailableError, match="taken back before"):
            await waiting.finished()
        assert one.exchanges[0].answer.finish == "stopped"
        assert two.exchanges == []
        return await (await worker.ask(one, "go on", max_new_tokens=5)).finished()

    assert work(scenario, replace(LIMITS, at_once=1)).finish in ("end", "length")


def test_one_answer_at_a_time_in_a_conversation(work):
    async def scenario(worker):
        one = worker.open()
        first = await worker.ask(one, "tell all", **ENDLESS)
        with pytest.raises(ChatError, match="still answering"):
            await worker.ask(one, "and this?")
        with pytest.raises(ChatError, match="must end first"):
            await worker.look(one, 3)
        first.cancel()

    work(scenario)


def test_a_bad_file_and_a_bad_question_leave_the_conversation_usable(work, clip, tmp_path):
    async def scenario(worker):
        one = worker.open()
        with pytest.raises(MediaUnreadableError, match=r"^holiday\.mp4: "):
            await worker.add(one, written(tmp_path, "x", b"no video at all" * 100), "holiday.mp4")
        assert one.files == {}
        await worker.add(one, clip, "good.mp4")
        with pytest.raises(ChatError, match="empty"):
            await worker.ask(one, "  ")
        with pytest.raises(ConfigError, match="temperature"):
            await worker.ask(one, "what?", temperature=-1)
        return await (await worker.ask(one, "what is it", max_new_tokens=40)).finished()

    assert work(scenario).text == alone(clip, "what is it", max_new_tokens=40)[0]


def test_a_conversation_whose_memory_was_taken_goes_on(work, clip):
    async def scenario(worker):
        one = worker.open()
        await worker.add(one, clip, "good.mp4")
        first = await (await worker.ask(one, "what is it", max_new_tokens=20)).finished()
        await until(lambda: not one.held)
        assert worker.memory_bytes == 0 and worker.counts.dropped_caches >= 1
        second = await (await worker.ask(one, "and then?", max_new_tokens=20)).finished()
        assert second.timings.reused_tokens == 0
        return [first.text, second.text]

    texts = work(scenario, WorkerLimits(memory_bytes=0))
    assert texts == alone(clip, "what is it", "and then?", max_new_tokens=20)


def test_the_least_recently_used_is_dropped_first(work, clip):
    async def scenario(worker):
        one, two = worker.open(), worker.open()
        for conversation in (one, two):
            await worker.add(conversation, clip, "good.mp4")
            await (await worker.ask(conversation, "what is it", max_new_tokens=5)).finished()
        worker.limits = WorkerLimits(memory_bytes=two.memory_bytes)
        await worker.begin_with(two, two.messages)
        await until(lambda: not one.held)
        assert two.held

    work(scenario)


def test_conversations_that_were_left_are_closed(work, clip):
    now = [0.0]
    closed = []

    async def scenario(worker):
        worker.closed = closed.append
        one, two = worker.open(), worker.open()
        now[0] = 9.0
        worker.get(two.id)
        now[0] = 11.0
        await worker.begin_with(two, ())
        await until(lambda: closed)
        with pytest.raises(NotYoursError, match="not open any more"):
            worker.get(one.id)
        assert worker.get(two.id) is two
        return one

    one = work(scenario, WorkerLimits(idle_seconds=10), clock=lambda: now[0])
    assert closed == [one.id]


def test_there_is_a_limit_to_conversations_and_clips(work, clip):
    async def scenario(worker):
        one = worker.open()
        with pytest.raises(BusyError, match="1 conversations are open"):
            worker.open()
        await worker.add(one, clip, "good.mp4")
        with pytest.raises(ChatError, match="at most 1 clips"):
            await worker.add(one, clip, "good.mp4")
        await worker.clear(one)
        return (await worker.add(one, clip, "good.mp4")).name

    assert work(scenario, WorkerLimits(conversations=1, clips=1)) == "good.mp4"


def test_clips_brought_at_once_all_arrive(work, clip):
    async def scenario(worker):
        one = worker.open()
        clips = await asyncio.gather(*(worker.add(one, clip, "good.mp4") for _ in range(3)))
        assert sorted(added.name for added in clips) == sorted(one.files)
        return sorted(one.files)

    assert work(scenario) == ["good.mp4", "good.mp4 (2)", "good.mp4 (3)"]


def test_undo_and_fewer_frames(work, clip):
    async def scenario(worker):
        one = worker.open()
        await worker.add(one, clip, "good.mp4")
        await (await worker.ask(one, "what is it", max_new_tokens=5)).finished()
        assert await worker.undo(one) == "what is it"
        assert one.exchanges == []
        assert await worker.undo(one) is None
        with pytest.raises(ConfigError, match="1 to 32 frames"):
            await worker.look(one, 33)
        await worker.look(one, 3)
        return await (await worker.ask(one, "what is it", max_new_tokens=5)).finished()

    assert work(scenario).coverage[0].frames == 3


def test_ceilings_are_over_what_clients_ask_for(work):
    async def scenario(worker):
        return await (await worker.ask(worker.open(), "tell all", **ENDLESS)).finished()

    assert len(work(scenario, WorkerLimits(new_tokens=7)).token_ids) <= 7


def test_another_model_and_back(work, clip):
    def load(choice, tell):
        if choice.model == "gone":
            raise ModelNotFoundError("no model 'gone': there is no folder gone")
        return OTHER if choice.model == "other" else MODEL

    async def scenario(worker):
        one = worker.open()
        await worker.add(one, clip, "good.mp4")
        first = await (await worker.ask(one, "what is it", max_new_tokens=20)).finished()
        await worker.undo(one)
        await worker.switch(ModelChoice("other"))
        other = await (await worker.ask(one, "what is it", max_new_tokens=20)).finished()
        await worker.undo(one)
        with pytest.raises(ModelNotFoundError, match="gone"):
            await worker.switch(ModelChoice("gone"))
        assert worker.runtime.choice == ModelChoice("other")
        await worker.switch(ModelChoice("tiny"))
        again = await (await worker.ask(one, "what is it", max_new_tokens=20)).finished()
        return first.text, other.text, again.text

    first, other, again = work(scenario, load=load)
    assert first == again == alone(clip, "what is it", max_new_tokens=20)[0]
    assert other == alone(clip, "what is it", model=OTHER, max_new_tokens=20)[0] != first


def test_a_model_that_cannot_be_loaded_is_said_to_everybody(work, clip):
    def load(choice, tell):
        raise ModelNotFoundError("no model 'tiny': run `make tiny` to build it")

    async def scenario(worker):
        for attempt in (worker.ready(), worker.ask(worker.open(), "what?"), worker.add(worker.open(), clip, "a.mp4")):
            with pytest.raises(ModelNotFoundError, match="make tiny"):
                await attempt
        assert worker.state == "failed"

    work(scenario, load=load)


def test_who_waits_for_the_model_may_leave(work):
    slow = threading.Event()

    def load(choice, tell):
        assert slow.wait(240)
        return MODEL

    async def scenario(worker):
        impatient = asyncio.create_task(worker.ask(worker.open(), "what?"))
        await until(lambda: worker._queued)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        slow.set()
        return await (await worker.ask(worker.open(), "what?", max_new_tokens=5)).finished()

    assert work(scenario, load=load).finish in ("end", "length")


def test_shutting_down_lets_answers_end_and_refuses_new_ones():
    async def scenario():
        worker = ModelWorker(load=lambda choice, tell: MODEL).start()
        short = await worker.ask(worker.open(), "what?", max_new_tokens=30)
        await worker.ready()
        closing = asyncio.create_task(asyncio.to_thread(worker.close, 30.0))
        answer = await short.finished()
        await closing
        with pytest.raises(UnavailableError, match="shutting down"):
            worker.open()
        return answer

    assert asyncio.run(scenario()).finish in ("end", "length")


def test_shutting_down_stops_what_takes_too_long():
    async def scenario():
        worker = ModelWorker(limits=LIMITS, load=lambda choice, tell: MODEL).start()
        turn = await worker.ask(worker.open(), "tell all", **ENDLESS)
        async for _ in turn:
            break
        await asyncio.to_thread(worker.close, 0.0)
        return await turn.finished()

    assert asyncio.run(scenario()).finish == "stopped"


def test_nobody_but_the_thread_is_left(work):
    async def scenario(worker):
        await worker.ready()
        return worker

    worker = work(scenario)
    assert not worker.alive
    assert "model-worker" not in {thread.name for thread in threading.enumerate()}


def test_questions_that_wait_together_are_answered_together(work, clip):
    """One pass of the decoder gives a token to each of them, and the answers are those of one by one."""
    model, processor = endless_model()
    passes = []
    model.register_forward_hook(lambda _, __, output: passes.append(len(output.logits)))
    questions = [f"question {number}" for number in range(6)]

    async def scenario(worker):
        conversations = [worker.open() for _ in questions]
        await asyncio.gather(*(worker.add(one, clip, "good.mp4") for one in conversations))
        turns = [
            await worker.ask(one, question, **ENDLESS) for one, question in zip(conversations, questions, strict=True)
        ]
        await until(lambda: passes.count(6) >= 30)
        for turn in turns:
            turn.cancel()
        return [await turn.finished() for turn in turns]

    for question, answer in zip(questions, work(scenario, load=lambda choice, tell: (model, processor)), strict=True):
        session = ChatSession(*MODEL)
        session.add(clip)
        assert answer.finish == "stopped" and len(answer.token_ids) >= 30
        assert session.ask(question, max_new_tokens=len(answer.token_ids)).token_ids == answer.token_ids


def test_what_is_admitted_is_bounded_by_tokens_and_bytes(work):
    room = ENDLESS_TOKENS + 100
    message = rf"up to \d+ tokens \(\d+ MiB\); \d+ \(\d+ MiB\) of {room} \(\d+ MiB\) are taken"

    async def scenario(worker):
        one, two, three = (worker.open() for _ in range(3))
        first = await worker.ask(one, "tell all", **ENDLESS)
        for conversation, options in ((two, ENDLESS), (three, {"max_new_tokens": 90})):
            with pytest.raises(BusyError, match=message):
                await worker.ask(conversation, "and me?", **options)
        assert worker.counts.refused == 2
        short = await (await worker.ask(two, "and me?", max_new_tokens=5)).finished()
        first.cancel()
        [piece async for piece in first]
        assert (await (await worker.ask(three, "and me?", max_new_tokens=90)).finished()).token_ids
        return short

    async def facts(worker):
        alone = await worker.ask(worker.open(), "tell all", max_new_tokens=5)  # it may take more than there is
        assert (await alone.finished()).token_ids
        return await worker.ready()

    assert work(scenario, replace(LIMITS, working_tokens=room)).token_ids
    each = work(facts, replace(LIMITS, working_tokens=3)).token_bytes
    assert each == 2 * 3 * 2 * 12 * 4  # keys and values of three layers, two heads, twelve numbers of four bytes
    assert work(scenario, replace(LIMITS, working_bytes=room * each)).token_ids


def test_closed_while_it_is_answered_or_decoded(work, clip, monkeypatch):
    closed = threading.Event()

    def decoded_when_closed(*given, **options):
        assert closed.wait(240)
        return open_clip(*given, **options)

    async def scenario(worker):
        one, two, three = (worker.open() for _ in range(3))
        turn = await worker.ask(one, "tell all", **ENDLESS)
        async for _ in turn:
            break
        adding = asyncio.create_task(worker.add(two, clip, "good.mp4"))
        await until(lambda: worker._opening)
        await asyncio.gather(worker.end(one), worker.end(two))
        closed.set()
        assert (await turn.finished()).finish == "stopped"
        for late in (adding, worker.ask(one, "and now?")):
            with pytest.raises((NotYoursError, UnavailableError)):
                await late
        assert (await (await worker.ask(three, "what?", max_new_tokens=5)).finished()).token_ids
        assert set(worker.conversations) == {three.id}

    monkeypatch.setattr(model_worker, "open_clip", decoded_when_closed)
    work(scenario)


class Unpacked:
    def __reduce__(self):
        return __import__, ("there_is_no_such_module",)


def test_what_cannot_be_handed_over_is_said_and_harms_nobody(work):
    async def scenario(worker):
        for arguments, words in (((lambda: 1,), "cannot be handed"), ((Unpacked(),), "unexpected way")):
            with pytest.raises(UnavailableError, match=words):
                async for number in worker.run(counting, *arguments):
                    raise AssertionError(number)
        with pytest.raises(UnavailableError, match="unexpected way"):
            async for number in worker.run(telling_what_cannot_be_told):
                raise AssertionError(number)
        return [number async for number in worker.run(counting, 2)]

    assert work(scenario) == [0, 1]


def telling_what_cannot_be_told(runtime):
    yield lambda: 1


def test_who_waits_for_the_model_when_the_service_ends_is_told(work):
    slow = threading.Event()

    def load(choice, tell):
        assert slow.wait(240)
        return MODEL

    async def scenario():
        worker = ModelWorker(load=load).start()
        waiting = asyncio.create_task(worker.ready())
        closing = asyncio.create_task(asyncio.to_thread(worker.close, 0))
        await until(lambda: not worker.alive)
        slow.set()
        await closing
        with contextlib.suppress(UnavailableError):  # or it was loaded before the thread heard of the end
            await asyncio.wait_for(waiting, 240)
        with pytest.raises(UnavailableError, match="shutting down"):
            await worker.ready()

    asyncio.run(scenario())
