"""What the readers of published datasets share: annotation files read whole, and media looked up in their folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videollm.data.sample import Media, Sample, path_inside
from videollm.errors import DataError, UnusableSampleError
from videollm.messages import MediaPart, assistant, user


def json_list(path: str | os.PathLike[str], key: str | None = None) -> list[Any]:
    """The list that a JSON file is, or that it holds under a key.

    Raises:
        DataError: no such file, no JSON, or no list.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing JSON file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); download it again") from None
    found = value.get(key) if key is not None and isinstance(value, dict) else value
    if not isinstance(found, list) or not found:
        what = "a list" if key is None else f"a list under {key!r}"
        raise DataError(f"{path}: must hold {what} that is not empty; give the published file")
    return found


def media_file(folder: str | os.PathLike[str], path: str, where: str) -> Media:
    """A media file of an annotation; `UnusableSampleError` if it is not there, or outside of the folder."""
    try:
        found = path_inside(folder, path)
    except ValueError as error:
        raise UnusableSampleError("bad annotation", f"{where}: {error}") from None
    if not os.path.isfile(found):
        raise UnusableSampleError("missing media", f"{where}: there is no file {found}; download it")
    return Media(found)


def bad(where: str, what: str) -> UnusableSampleError:
    return UnusableSampleError("bad annotation", f"{where}: {what}; correct it, or leave it out")


def captioned(name: str, source: str, kind: Any, media: Media, caption: str, where: str, request: str = "") -> Sample:
    """A sample in which a clip is shown, with or without a request, and its caption is the answer."""
    if not caption.strip():
        raise UnusableSampleError("empty caption", f"{where}: the caption has no words")
    return Sample(name, (user(request, [MediaPart("clip", kind)]), assistant(caption)), {"clip": media}, source)


def request_for(requests: Sequence[str], index: int) -> str:
    """One of the requests, always the same for a sample; none if there are none."""
    return requests[index % len(requests)] if requests else ""
