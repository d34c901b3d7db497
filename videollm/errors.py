"""Every error that the package raises on purpose.

    VideoLLMError
    ├── MediaError               a file, its bytes or its streams
    │   ├── MediaNotFoundError   no such file, or not a file
    │   ├── MediaUnreadableError bytes that no decoder can turn into frames or sound
    │   ├── MediaLimitError      over a limit: bytes, pixels, seconds, frames, memory, wall time
    │   ├── MediaStretchError    a start and an end between which the file has nothing
    │   └── DecoderCrashedError  the decoding process died
    ├── ConfigError              a configuration file, a flag, a recipe
    ├── ModelNotFoundError       no such model name or folder
    ├── MemoryPlanError          a model that does not fit the memory at hand
    ├── ConversionError          published weights that cannot become a model
    ├── ChatError                a question or a conversation
    │   ├── EmptyQuestionError
    │   ├── QuestionTooLongError
    │   └── ContextFullError     the media alone do not fit the model's context
    ├── MomentIndexError         an index of moments
    ├── DataError                a dataset, an annotation, a scene
    ├── ServiceError             the page, or the HTTP service
    │   ├── RequestError         a request that cannot be understood, or that is not allowed here
    │   ├── NotYoursError        no such conversation or upload, or somebody else's: these look the same
    │   ├── BusyError            more is asked than can wait: come back later
    │   └── UnavailableError     shutting down, or the model could not answer
    └── MissingDependencyError   an optional package that this action needs

A message is one line and says what was asked, what was found, and what to do. On the command line it goes to
stderr and the exit code is 2.
"""

from typing import Any, Literal

UnusableReason = Literal[
    "missing media",
    "broken media",
    "media over a limit",
    "wrong stretch",
    "nothing to show",
    "too long",
    "empty caption",
    "bad annotation",
    "no target",
]
"""What a sample that cannot be used is counted under."""


class VideoLLMError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is one line for the user.

    A DataLoader hands on an error of a worker with the worker's traceback before it; only the message is kept.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught ") and "Original Traceback" in message:
            message = message.rstrip().rpartition("\n")[2].partition(": ")[2]
        super().__init__(message)


class MediaError(VideoLLMError):
    """A file, its bytes or its streams."""


class MediaNotFoundError(MediaError):
    """No such file, not a file, or not readable by this user."""


class MediaUnreadableError(MediaError):
    """Bytes that no decoder can turn into frames or sound."""


class MediaLimitError(MediaError):
    """The media is over a limit of bytes, pixels, seconds, frames, memory or wall time."""


class MediaStretchError(MediaError):
    """Between the start and the end that are asked of a file, it has nothing."""


class DecoderCrashedError(MediaError):
    """The decoding process died; the caller is unharmed."""


class ConfigError(VideoLLMError):
    """A configuration file, a flag or a recipe that cannot be used."""


class ModelNotFoundError(VideoLLMError):
    """No such model name or folder."""


class ConversionError(VideoLLMError):
    """Published weights that cannot become a model: a file missing, damaged, of another kind or of another size."""


class MemoryPlanError(VideoLLMError):
    """A model that, by its plan, does not fit the memory at hand; the message has the numbers and what would fit."""


class ChatError(VideoLLMError):
    """A question or a conversation that cannot go on."""


class EmptyQuestionError(ChatError):
    """A question without words."""


class QuestionTooLongError(ChatError):
    """A question longer than the model's context."""


class ContextFullError(ChatError):
    """The media alone do not fit the model's context."""


class MomentIndexError(VideoLLMError):
    """An index of moments: none there, of another version, or made by other models."""


class DataError(VideoLLMError):
    """A dataset, an annotation or a scene."""


class ServiceError(VideoLLMError):
    """The page, or the HTTP service."""


class RequestError(ServiceError):
    """A request that cannot be understood, or that is not allowed here."""


class NotYoursError(ServiceError):
    """No such conversation or upload, or somebody else's: these look the same."""


class BusyError(ServiceError):
    """More is asked than can wait; it may be asked again later."""


class UnavailableError(ServiceError):
    """The service is shutting down, or the model could not answer."""


class UnusableSampleError(DataError):
    """One sample that cannot be used; the dataset as a whole can."""

    def __init__(self, reason: UnusableReason, message: str) -> None:
        super().__init__(message)
        self.reason: UnusableReason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class MissingDependencyError(VideoLLMError):
    """An optional package that this action needs is not installed; the message has the pip line."""
