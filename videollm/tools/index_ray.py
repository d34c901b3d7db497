"""An index made by a cluster: Ray Data hands videos to actors, each with the models; this process writes what they saw.

All machines see the videos under the same paths, and have this package. Where RAY_ADDRESS names no cluster, a small one
is started here and ends with the run. An actor that dies is begun again by Ray, and its video with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from videollm.errors import ConfigError, MissingDependencyError, MomentIndexError, VideoLLMError
from videollm.media.source import Limits
from videollm.moments.moment import Video
from videollm.tools.index import CrewNames, CrewTold, Indexed, IndexSettings, Looked, gather, look_at, stored_in
from videollm.tools.narrate import LONG_FILE, Progress, Report

OBJECT_STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here: only what was told of videos goes through it, never pictures."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_BACKEND_LOG_LEVEL": "fatal"}
BLOCK_BYTES = 8 * 2**20
"""What Ray keeps room for, a video; an hour in windows of 2 s with three vectors takes as much."""


def index_on_ray(
    videos: Sequence[Path],
    into: str | Path,
    names: CrewNames,
    settings: IndexSettings | None = None,
    *,
    workers: int | None = None,
    prune: bool = False,
    limits: Limits = LONG_FILE,
    progress: Callable[[Path], Progress] | None = None,
    report: Report | None = None,
) -> Indexed:
    """`videollm.tools.index.index` on Ray; what is stored is the same.

    Args:
        names: who looks at the windows; each actor loads them.
        workers: how many actors; None: as many as the cluster has GPUs, or else machines.
        progress: told of whole videos only.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: less than one actor.
        MomentIndexError: the index cannot be used, or the cluster cannot be reached.
        VideoLLMError: as `CrewNames.load`.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"an index is made by at least 1 worker, found {workers}")
    with _cluster(workers) as ray:
        results = _results(ray, videos, into, names, settings or IndexSettings(), workers, limits)
        told = next(results)
        assert isinstance(told, CrewTold)
        return gather(told.open(into), _counted(results, videos, progress), prune=prune, report=report)


class _Looker:
    """An actor. What is wrong with the models is handed on: what cannot begin, Ray would begin again and again."""

    def __init__(self, names: CrewNames, settings: IndexSettings, known: Mapping[str, Video], limits: Limits) -> None:
        self.settings, self.known, self.limits = settings, known, limits
        self.error: VideoLLMError | None = None
        try:
            self.crew = names.load()
        except VideoLLMError as error:
            self.error = error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = []
        for path in batch["path"]:
            one: Any = self.error
            if one is None:
                told = self.crew.told(self.settings)
                one = told, look_at(Path(str(path)), self.known, self.crew, self.settings, self.limits)
            results.append(one)
        column = np.empty(len(results), object)
        column[:] = results
        return {"result": column}


def _results(
    ray: Any,
    videos: Sequence[Path],
    into: str | Path,
    names: CrewNames,
    settings: IndexSettings,
    workers: int | None,
    limits: Limits,
) -> Iterator[CrewTold | Looked]:
    """What the first actor says of its crew, and every video that was looked at, in the order in which they came."""
    import ray.data as data

    gpus = int(ray.cluster_resources().get("GPU", 0)) if names.device != "cpu" else 0
    count = min(workers or gpus or len(ray.nodes()), len(videos))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.max_errored_blocks = -1  # what is missing in the end is told, video by video
    rows = data.from_items([{"path": str(video.resolve())} for video in videos], override_num_blocks=len(videos))
    looked = rows.map_batches(
        _Looker,
        fn_constructor_kwargs={
            "names": _everywhere(names), "settings": settings, "known": stored_in(into), "limits": limits,
        },
        batch_size=1,
        compute=data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=1 if gpus >= count else 0,
    )  # fmt: skip
    first = True
    for row in looked.iter_rows():
        result = row["result"]
        if isinstance(result, VideoLLMError):
            raise result
        told, one = result
        if first:
            yield told
        first = False
        yield one
    if first:
        raise MomentIndexError("no worker of Ray looked at any video; what went wrong is in Ray's own logs")


def _counted(
    results: Iterator[CrewTold | Looked], videos: Sequence[Path], progress: Callable[[Path], Progress] | None
) -> Iterator[Looked]:
    """The videos that were looked at; in the end those that were not."""
    left = {str(video.resolve()): video for video in videos}
    for one in results:
        if isinstance(one, Looked):
            video = left.pop(one.path, None)
            if progress is not None and video is not None and one.video is not None:
                progress(video)(one.video.moments, one.video.moments)
            yield one
    for path, video in left.items():
        yield Looked(path, reason=f"{video.name}: no worker came to its end; see Ray's own logs")


def _everywhere(names: CrewNames) -> CrewNames:
    """Folders by their whole paths: an actor has another working folder."""
    said = {field.name: getattr(names, field.name) for field in fields(names)}
    folders = {name: str(Path(said[name]).resolve()) for name in ("model", "encoder", "long", "ear")
               if said[name] is not None and Path(said[name]).is_dir()}  # fmt: skip
    return replace(names, **folders)


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """The cluster that this process is in already, the one that RAY_ADDRESS names, or one of its own."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--engine ray needs Ray: pip install 'videollm[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            cores = max(workers or 1, os.cpu_count() or 1)
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MomentIndexError(f"Ray cannot be started or reached ({reason}); see RAY_ADDRESS") from error
    try:
        yield ray
    finally:
        ray.shutdown()
