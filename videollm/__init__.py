"""An assistant that sees and hears: `videollm chat CLIP "question"`, or from Python:

    import videollm

    model, processor = videollm.load()  # the embedded `tiny`
    session = videollm.ChatSession(model, processor)
    session.add("clip.mp4")
    print(session.ask("What is there?").text)

Public names are imported when they are first used, so that importing the package costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Answer": "videollm.chat.session",
    "ChatSession": "videollm.chat.session",
    "Clip": "videollm.clips",
    "Frames": "videollm.clips",
    "GenerationOptions": "videollm.chat.generation",
    "VideoLLMError": "videollm.errors",
    "Waveform": "videollm.clips",
    "load": "videollm.models.hub",
    "narrate": "videollm.tools.narrate",
}

__all__ = [
    "Answer",
    "ChatSession",
    "Clip",
    "Frames",
    "GenerationOptions",
    "VideoLLMError",
    "Waveform",
    "load",
    "narrate",
]

if TYPE_CHECKING:
    from videollm.chat.generation import GenerationOptions
    from videollm.chat.session import Answer, ChatSession
    from videollm.clips import Clip, Frames, Waveform
    from videollm.errors import VideoLLMError
    from videollm.models.hub import load
    from videollm.tools.narrate import narrate


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
