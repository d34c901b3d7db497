"""MiniGPT-4's cc_sbu_align: pictures with long captions.

Source: MiniGPT-4's published files as Video-LLaMA reads them: ``filter_cap.json`` holds ``annotations`` with
``image_id`` and ``caption``; the picture is ``image/<image_id>.jpg``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from videollm.data.annotations import bad, captioned, json_list, media_file, request_for
from videollm.data.sample import Sample


class MiniGPT4:
    """Captioned pictures by number. Captions are used as they are, as published.

    A published defect that is not reproduced: a broken picture ended the run. Requests are drawn for each sample, not
    for each batch as published.

    Args:
        folder: holds ``filter_cap.json`` and ``image``.
        requests: what the user says before a caption, one in turn; none in the first stage, in the second
            `videollm.data.captions.ALIGNMENT_REQUESTS`.
        name: of the dataset.

    Raises:
        DataError: no annotations.
    """

    name = "minigpt4"

    def __init__(self, folder: str | os.PathLike[str], requests: Sequence[str] = (), name: str | None = None) -> None:
        self.name = name or self.name
        self._images, self._requests = Path(folder) / "image", tuple(requests)
        self._path = Path(folder) / "filter_cap.json"
        self._annotations = json_list(self._path, "annotations")

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> Sample:
        one, where = self._annotations[index], f"{self._path} annotation {index + 1}"
        if not isinstance(one, dict) or not isinstance(one.get("image_id"), str | int):
            raise bad(where, "there is no image_id")
        if not isinstance(one.get("caption"), str):
            raise bad(where, "there is no caption")
        image = str(one["image_id"])
        media = media_file(self._images, f"{image}.jpg", where)
        request = request_for(self._requests, index)
        return captioned(image, self.name, "image", media, one["caption"], where, request)
