"""The one table from error to HTTP status."""

from __future__ import annotations

from videollm.errors import (
    BusyError,
    ChatError,
    ConfigError,
    MediaError,
    MediaLimitError,
    MemoryPlanError,
    MissingDependencyError,
    ModelNotFoundError,
    MomentIndexError,
    NotYoursError,
    RequestError,
    UnavailableError,
    VideoLLMError,
)

STATUS: dict[type[VideoLLMError], int] = {
    VideoLLMError: 500,
    RequestError: 400,
    ConfigError: 400,
    ChatError: 400,
    MediaError: 400,
    MediaLimitError: 413,
    NotYoursError: 404,
    BusyError: 429,
    UnavailableError: 503,
    ModelNotFoundError: 503,
    MemoryPlanError: 503,
    MissingDependencyError: 503,
    MomentIndexError: 503,
}


def status_of(error: VideoLLMError) -> int:
    """Of the error's own class, or of the nearest above it."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
