"""A dual encoder beside a worker's model: what indexes and searches with it runs unchanged in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np

from videollm.clips import Clip
from videollm.errors import ConfigError, UnavailableError
from videollm.moments.embed import SightEncoder
from videollm.serving.engine import ModelChoice, Runtime
from videollm.serving.several_workers import Workers
from videollm.serving.worker_narrator import found_by

OnTheLoop = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""Runs a coroutine on the service's loop and waits for it, from another thread."""


class WorkerEncoder(SightEncoder):
    """Stands in, where there is no model, for the encoder that was loaded beside one.

    Args:
        worker: beside whose model it is.
        runtime: the model that is loaded; if another is loaded meanwhile, the next call fails.
        on_the_loop: how its thread waits for the worker.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, worker: Workers, runtime: Runtime, on_the_loop: OnTheLoop) -> None:
        if runtime.encoder is None:
            raise ConfigError("no dual encoder was loaded; name one (--encoder)")
        self.name, self.width = runtime.encoder
        self._worker, self._choice, self._on_the_loop = worker, runtime.choice, on_the_loop

    def clips(self, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """As `SightEncoder.clips`. Raises as `videollm.serving.worker_narrator.WorkerNarrator.describe`."""
        return self._on_the_loop(lambda: found_by(self._worker, _clips, self._choice, list(clips)))

    def words(self, text: str) -> np.ndarray:
        """As `SightEncoder.words`. Raises as `clips`."""
        return self._on_the_loop(lambda: found_by(self._worker, _words, self._choice, text))


def waiting_on(loop: asyncio.AbstractEventLoop) -> OnTheLoop:
    """For a thread that nobody stops."""
    return lambda start: asyncio.run_coroutine_threadsafe(start(), loop).result()


def _clips(runtime: Any, choice: ModelChoice, clips: Sequence[Clip]) -> Iterator[list[np.ndarray | None]]:
    """Beside the model."""
    yield _encoder(runtime, choice).clips(clips)


def _words(runtime: Any, choice: ModelChoice, text: str) -> Iterator[np.ndarray]:
    """Beside the model."""
    yield _encoder(runtime, choice).words(text)


def _encoder(runtime: Any, choice: ModelChoice) -> Any:
    if runtime.choice != choice:
        raise UnavailableError("the model was changed in the meantime; begin again")
    return runtime.sight
