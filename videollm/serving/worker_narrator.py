"""A narrator whose model belongs to a worker: what narrates, indexes or cuts into chapters runs unchanged in a thread.

Files are read in that thread; only a batch of windows at a time goes to the worker, between the words of answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from typing import Any, Generic, TypeVar

from videollm.clips import Clip
from videollm.errors import BusyError, UnavailableError
from videollm.serving.model_worker import ModelChoice, Runtime
from videollm.serving.several_workers import Workers
from videollm.tools.narrators import ChatNarrator, Sentence

T = TypeVar("T")
PATIENCE_SECONDS, RETRY_SECONDS = 60.0, 0.5
"""How long, and how often, a batch asks again for a place in the worker's full queue."""


class Stopped(Exception):
    """Whoever asked does not want the rest."""


class LongWork(Generic[T]):
    """Something long that is done in a thread and tells of it meanwhile; async iteration gives what it tells.

    Args:
        work: called with this, in a thread; calls `tell`. `Stopped` ends it without an error.
        executor: whose threads do it.
    """

    def __init__(self, work: Callable[[LongWork[T]], None], executor: Executor) -> None:
        self._work, self._executor = work, executor
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[T | None] = asyncio.Queue()
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Ends it before its next batch; callable from any thread, any number of times."""
        self._stop.set()

    async def __aiter__(self) -> AsyncIterator[T]:
        done = self._loop.run_in_executor(self._executor, self._run)
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # whoever reads on is told below
        try:
            while (told := await self._told.get()) is not None:
                yield told
            await done
        finally:
            self.stop()

    def _run(self) -> None:
        try:
            if not self.stopped:
                self._work(self)
        except Stopped:
            pass
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._told.put_nowait, None)

    # In its thread.

    def tell(self, what: T) -> None:
        """Raises Stopped: nobody wants to know any more."""
        if self.stopped:
            raise Stopped
        self._loop.call_soon_threadsafe(self._told.put_nowait, what)

    def on_the_loop(self, start: Callable[[], Any]) -> Any:
        """Waits for a coroutine that runs on the loop; raises what it raises, and Stopped."""
        if self.stopped:
            raise Stopped
        future = asyncio.run_coroutine_threadsafe(start(), self._loop)
        while True:
            try:
                return future.result(0.2)
            except TimeoutError:
                if future.done():
                    raise
                if self.stopped:
                    future.cancel()
            except CancelledError:
                raise Stopped from None


class WorkerNarrator:
    """A chat model behind a worker, asked the same question about every window: a `videollm.tools.narrators.Narrator`.

    Args:
        worker: whose model is asked.
        runtime: the model that is loaded; if another is loaded meanwhile, the next batch fails.
        question: what it is asked.
        work: in whose thread `describe` is called.
    """

    def __init__(self, worker: Workers, runtime: Runtime, question: str, work: LongWork[Any]) -> None:
        self.identity: dict[str, Any] = {"model": [runtime.choice.model, runtime.choice.bits], "question": question}
        self.frames = runtime.frame_sampling(None)
        self.sound = runtime.sound_sampling
        self._worker, self._choice, self._question, self._work = worker, runtime.choice, question, work

    def describe(self, clips: Sequence[Clip], candidates: int, seed: int) -> list[list[Sentence]]:
        """See `Narrator.describe`.

        Raises:
            Stopped: nobody wants to know any more.
            BusyError: the worker's queue is full, and stays so.
            UnavailableError: another model was loaded, or the worker ends.
        """
        arguments = (self._choice, self._question, list(clips), candidates, seed)
        return self._work.on_the_loop(lambda: found_by(self._worker, _described, *arguments))


async def found_by(worker: Workers, function: Callable[..., Iterator[T]], *arguments: Any) -> T:
    """What a function finds first beside a worker's model; a full queue is asked again for a while.

    Raises:
        BusyError: it stays full.
        UnavailableError: the worker ends.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            errand = worker.run(function, *arguments)
            break
        except BusyError:
            if loop.time() > until:
                raise
            await asyncio.sleep(RETRY_SECONDS)
    async with errand as items:
        async for found in items:
            return found
    raise UnavailableError("the work was ended before it was done; begin it again")


def _described(
    runtime: Any, choice: ModelChoice, question: str, clips: Sequence[Clip], candidates: int, seed: int
) -> Iterator[list[list[Sentence]]]:
    """Beside the model: what it says of a batch of windows."""
    if runtime.choice != choice:
        raise UnavailableError("the model was changed in the meantime; begin again")
    yield ChatNarrator(runtime.model, runtime.processor, question=question).describe(clips, candidates, seed)
