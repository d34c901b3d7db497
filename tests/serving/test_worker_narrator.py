"""Long work in a thread, with a model that a worker owns."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.small_model import drawn_clip, small_model
from videollm.errors import UnavailableError
from videollm.serving import worker_narrator
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits
from videollm.serving.worker_narrator import LongWork, WorkerNarrator
from videollm.tools.narrators import ChatNarrator

MODEL = small_model(context_tokens=2048)
QUESTION = "what is in the video?"
HOLD = threading.Event()
"""A worker whose model is given to it has it in a thread of this process, so that both sides see this one."""


def asked(work, worker=None):
    """What long work tells; and the error that ends it."""

    async def read():
        runtime = None if worker is None else await worker.ready()
        with ThreadPoolExecutor(1) as threads:
            return [told async for told in LongWork(lambda long: work(long, runtime), threads)]

    return asyncio.run(read())


@pytest.fixture(scope="module")
def worker():
    made = ModelWorker(
        ModelChoice("small"), WorkerLimits(waiting=1, at_once=1), load=lambda choice, tell: MODEL
    ).start()
    yield made
    made.close(0)


def test_it_says_what_the_model_says(worker):
    clips = [drawn_clip(1), drawn_clip(2)]

    def work(long, runtime):
        narrator = WorkerNarrator(worker, runtime, QUESTION, long)
        long.tell((narrator.describe(clips, 1, 7), narrator.describe(clips, 2, 7), narrator.frames, narrator.sound))

    ((greedy, drawn, frames, sound),) = asked(work, worker)
    alone = ChatNarrator(*MODEL, question=QUESTION)
    assert greedy == alone.describe(clips, 1, 7)
    assert drawn == alone.describe(clips, 2, 7) and len(drawn[0]) == 2
    assert (frames, sound) == (alone.frames, alone.sound)


def test_errors_come_out_and_stopping_is_none(worker):
    def fails(long, _):
        long.tell(1)
        raise UnavailableError("no")

    with pytest.raises(UnavailableError, match="no"):
        asked(fails)

    def stopped(long, runtime):
        long.tell(1)
        long.stop()
        WorkerNarrator(worker, runtime, QUESTION, long).describe([drawn_clip(1)], 1, 0)
        long.tell(2)

    assert asked(stopped, worker) == [1]


def test_another_model_ends_it(worker):
    def work(long, runtime):
        narrator = WorkerNarrator(worker, runtime, QUESTION, long)
        narrator._choice = ModelChoice("another")
        narrator.describe([drawn_clip(1)], 1, 0)

    with pytest.raises(UnavailableError, match="the model was changed"):
        asked(work, worker)


def test_a_full_queue_is_waited_for(worker, monkeypatch):
    monkeypatch.setattr(worker_narrator, "RETRY_SECONDS", 0.01)

    async def crowded():
        runtime = await worker.ready()
        loop = asyncio.get_running_loop()
        # One is under way and holds the worker, one waits: there is no place for a third.
        others = [worker.run(_held) for _ in range(2)]
        with ThreadPoolExecutor(1) as threads:
            long = LongWork(
                lambda it: it.tell(WorkerNarrator(worker, runtime, QUESTION, it).describe([drawn_clip(1)], 1, 0)),
                threads,
            )
            loop.call_later(0.3, HOLD.set)
            told = [one async for one in long]
        for one in others:
            async with one as items:
                assert [item async for item in items] == [1]
        return told

    ((said,),) = asyncio.run(crowded())
    assert [one.text for one in said] == [
        one.text for one in ChatNarrator(*MODEL, question=QUESTION).describe([drawn_clip(1)], 1, 0)[0]
    ]


def _held(runtime):
    HOLD.wait(20)
    yield 1
