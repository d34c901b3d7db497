"""Small samples in our own schema."""

from __future__ import annotations

import json
from pathlib import Path

from videollm.data.sample import Media, Sample, sample_to_json
from videollm.messages import MediaPart, assistant, user

SHOWN_AS = {"sound": "audio", "picture": "image"}


def sample(number: int, about: int | None = None, words: str = "", **media: Media) -> Sample:
    """A question and an answer about media; ``about`` is the number in the words where it is not that of the id."""
    about = number if about is None else about
    parts = [MediaPart(name, SHOWN_AS.get(name, "video")) for name in media]  # type: ignore[arg-type]
    messages = (user(f"What is {about}?{words}", parts), assistant(f"It is {about}."))
    return Sample(f"größe-{number}", messages, media)


def write_samples(path: Path, samples: list[Sample]) -> None:
    """A JSONL file with a blank line between two samples, and paths as they are."""
    path.write_text("\n\n".join(json.dumps(sample_to_json(one)) for one in samples) + "\n", encoding="utf-8")
