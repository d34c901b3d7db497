"""Several model workers as one: each conversation lives at one of them, and moves on when that one is gone.

Who answers HTTP keeps the words and files of all conversations (`videollm.serving.model_worker`), so an engine holds
nothing that cannot be made again: wherever it runs, its end costs its conversations one prefill at another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from videollm.clips import Clip
from videollm.errors import NotYoursError
from videollm.messages import Message
from videollm.serving.engine import Runtime, WorkerLimits
from videollm.serving.model_worker import Conversation, Counts, Errand, ModelWorker, Turn


class SeveralWorkers:
    """What a service needs of a `ModelWorker`, done by several of one model.

    Args:
        workers: of the same model and limits, not yet started. The limits are of each.
    """

    def __init__(self, workers: Sequence[ModelWorker]) -> None:
        self.workers = tuple(workers)

    def start(self) -> SeveralWorkers:
        for worker in self.workers:
            worker.start()
        return self

    def close(self, grace_seconds: float = 5.0) -> None:
        """As `ModelWorker.close`, all at the same time."""
        with ThreadPoolExecutor(len(self.workers)) as threads:
            list(threads.map(lambda worker: worker.close(grace_seconds), self.workers))

    # -- all together ----------------------------------------------------------------------------------------------

    @property
    def limits(self) -> WorkerLimits:
        one = self.workers[0].limits
        return replace(one, conversations=one.conversations * len(self.workers))

    @property
    def closed(self) -> Callable[[str], None] | None:
        """As `ModelWorker.closed`, for all."""
        return self.workers[0].closed

    @closed.setter
    def closed(self, closed: Callable[[str], None] | None) -> None:
        for worker in self.workers:
            worker.closed = closed

    @property
    def conversations(self) -> dict[str, Conversation]:
        return {known: one for worker in self.workers for known, one in list(worker.conversations.items())}

    @property
    def counts(self) -> Counts:
        """Summed up."""
        total = Counts()
        for worker in self.workers:
            for name in (known.name for known in fields(Counts)):
                before, more = getattr(total, name), getattr(worker.counts, name)
                if isinstance(before, dict):
                    before.update({key: before.get(key, 0) + more[key] for key in more})
                elif isinstance(before, deque):
                    before.extend(more)
                else:
                    setattr(total, name, before + more)
        return total

    @property
    def runtime(self) -> Runtime | None:
        """The model, if one of them has loaded it."""
        return next((worker.runtime for worker in self.workers if worker.runtime is not None), None)

    @property
    def alive(self) -> bool:
        return any(worker.alive for worker in self.workers)

    @property
    def state(self) -> str:
        """A few words for people."""
        return "ready" if self.runtime is not None else self.workers[0].state

    @property
    def queue_length(self) -> int:
        return sum(worker.queue_length for worker in self.workers)

    @property
    def answering(self) -> int:
        return sum(worker.answering for worker in self.workers)

    @property
    def memory_bytes(self) -> int:
        return sum(worker.memory_bytes for worker in self.workers)

    async def ready(self) -> Runtime:
        """Waits until one of them has the model.

        Raises:
            VideoLLMError: none can load it.
        """
        if self.runtime is not None:
            return self.runtime
        waiting = {asyncio.ensure_future(worker.ready()) for worker in self.workers}
        try:
            while True:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    if not waiting or one.exception() is None:
                        return one.result()
        finally:
            for one in waiting:
                one.cancel()

    # -- one of them -----------------------------------------------------------------------------------------------

    def _least_busy(self) -> ModelWorker:
        """The one for what is new."""

        def load(worker: ModelWorker) -> tuple[bool, bool, int, int]:
            full = len(worker.conversations) >= worker.limits.conversations
            return worker.runtime is None, full, worker.queue_length + worker.answering, len(worker.conversations)

        return min(self.workers, key=load)

    def _home(self, conversation: Conversation) -> ModelWorker:
        """Where a conversation lives; where its worker has no model at present, that is another that has.

        Raises:
            NotYoursError: it is not open any more.
        """
        home = next((worker for worker in self.workers if conversation.id in worker.conversations), None)
        if home is None:
            raise NotYoursError("this conversation is not open any more; begin another")
        if home.runtime is None and not conversation.users:
            other = self._least_busy()
            if other.runtime is not None:
                home.hand_over(conversation, other)
                return other
        return home

    def refuse_when_full(self) -> None:
        """Raises BusyError: a question would find no place with any of them."""
        self._least_busy().refuse_when_full()

    def open(self, circle: str | None = None) -> Conversation:
        return self._least_busy().open(circle)

    def get(self, conversation_id: str) -> Conversation:
        for worker in self.workers:
            with contextlib.suppress(NotYoursError):
                return worker.get(conversation_id)
        raise NotYoursError("this conversation is not open any more; begin another")

    async def end(self, conversation: Conversation) -> None:
        with contextlib.suppress(NotYoursError):
            await self._home(conversation).end(conversation)

    async def add(self, conversation: Conversation, path: Path, name: str) -> Clip:
        return await self._home(conversation).add(conversation, path, name)

    async def begin_with(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        await self._home(conversation).begin_with(conversation, messages)

    async def ask(self, conversation: Conversation, question: str | None, **options: Any) -> Turn:
        return await self._home(conversation).ask(conversation, question, **options)

    def run(
        self, function: Callable[..., Iterator[Any]], *arguments: Any, conversation: Conversation | None = None
    ) -> Errand:
        worker = self._least_busy() if conversation is None else self._home(conversation)
        return worker.run(function, *arguments, conversation=conversation)


Workers = ModelWorker | SeveralWorkers
"""Who answers."""
