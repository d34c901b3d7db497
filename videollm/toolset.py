"""The typed declarations of the chat's tools: signature and docstring, from which every schema comes.

A declaration is a plain function without a body of its own; `videollm.tools` implements what is declared here, and
chat templates, the HTTP API and MCP all show the same schemas. A ``video`` is a name, never a path or an address.
"""

from __future__ import annotations

from collections.abc import Callable


def narrate(video: str, start_seconds: float, end_seconds: float) -> str:  # pyright: ignore[reportReturnType]
    """Tell what happens in a stretch of a video, sentence by sentence, with times.

    Args:
        video: The name of a video of this conversation.
        start_seconds: Where the stretch starts, in seconds of the video.
        end_seconds: Where the stretch ends, in seconds of the video.

    Returns:
        Sentences, each with its start and end.
    """


def search(query: str) -> str:  # pyright: ignore[reportReturnType]
    """Find the moments at which something is seen or heard, in all videos at hand.

    Args:
        query: What is seen or heard there, in words.

    Returns:
        The moments that fit best, each with its video, start and end.
    """


def look(video: str, start_seconds: float, end_seconds: float) -> str:  # pyright: ignore[reportReturnType]
    """Watch a stretch of a video again, with all frames that can be looked at in this stretch alone.

    Args:
        video: The name of a video of this conversation.
        start_seconds: Where the stretch starts, in seconds of the video.
        end_seconds: Where the stretch ends, in seconds of the video.

    Returns:
        What is to be seen there.
    """


def listen(video: str, start_seconds: float, end_seconds: float) -> str:  # pyright: ignore[reportReturnType]
    """Listen to the sound of a stretch of a video again, without its pictures.

    Args:
        video: The name of a video of this conversation.
        start_seconds: Where the stretch starts, in seconds of the video.
        end_seconds: Where the stretch ends, in seconds of the video.

    Returns:
        What is to be heard there.
    """


def chapters(video: str) -> str:  # pyright: ignore[reportReturnType]
    """Tell of what parts a whole video consists, with their times.

    Args:
        video: The name of a video of this conversation.

    Returns:
        The parts in their order, each with its number, its start, its end and a title.
    """


DECLARATIONS: tuple[Callable[..., str], ...] = (narrate, search, look, listen, chapters)
"""All that a chat can call."""
