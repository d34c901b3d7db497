"""Every error that the package raises on purpose.

    VideoLLMError
    ├── MediaError               a file, its bytes or its streams
    │   ├── MediaNotFoundError   no such file, or not a file
    │   ├── MediaUnreadableError bytes that no decoder can turn into frames or sound
    │   ├── MediaLimitError      over a limit: bytes, pixels, seconds, frames, memory, wall time
    │   └── DecoderCrashedError  the decoding process died
    ├── ConfigError              a configuration file, a flag, a recipe
    ├── ModelNotFoundError       no such model name or folder
    ├── MemoryPlanError          a model that does not fit the memory at hand
    ├── ConversionError          published weights that cannot become a model
    ├── ChatError                a question or a conversation
    │   ├── EmptyQuestionError
    │   ├── QuestionTooLongError
    │   └── ContextFullError     the media alone do not fit the model's context
    ├── DataError                a dataset, an annotation, a scene
    └── MissingDependencyError   an optional package that this action needs

A message is one line and says what was asked, what was found, and what to do. On the command line it goes to
stderr and the exit code is 2.
"""


class VideoLLMError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is one line for the user."""


class MediaError(VideoLLMError):
    """A file, its bytes or its streams."""


class MediaNotFoundError(MediaError):
    """No such file, not a file, or not readable by this user."""


class MediaUnreadableError(MediaError):
    """Bytes that no decoder can turn into frames or sound."""


class MediaLimitError(MediaError):
    """The media is over a limit of bytes, pixels, seconds, frames, memory or wall time."""


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


class DataError(VideoLLMError):
    """A dataset, an annotation or a scene."""


class MissingDependencyError(VideoLLMError):
    """An optional package that this action needs is not installed; the message has the pip line."""
