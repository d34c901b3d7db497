"""LLaVA-Instruct: conversations about COCO's pictures.

Source: LLaVA's published JSON list as Video-LLaMA reads it: ``image`` and ``conversations`` of ``from`` (human or gpt)
and ``value``; ``<image>`` stands where the picture is shown; the file is ``COCO_train2014_<image>``.
"""

from __future__ import annotations

import os
from pathlib import Path

from videollm.data.annotations import bad, json_list, media_file
from videollm.data.sample import Sample
from videollm.messages import MediaPart, Message, TextPart

ROLES = {"human": "user", "gpt": "assistant"}


class LlavaInstruct:
    """Conversations by number.

    A published defect that is not reproduced: an annotation with a wrong key was taken for a broken picture.

    Args:
        path: the JSON file.
        images: the folder of pictures.
        prefix: what stands before a picture's name.
        name: of the dataset.

    Raises:
        DataError: no annotations.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        images: str | os.PathLike[str],
        prefix: str = "COCO_train2014_",
        name: str = "llava_instruct",
    ) -> None:
        self.name, self._path, self._images, self._prefix = name, Path(path), Path(images), prefix
        self._annotations = json_list(path)

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> Sample:
        one, where = self._annotations[index], f"{self._path} conversation {index + 1}"
        if not isinstance(one, dict) or not isinstance(one.get("image"), str):
            raise bad(where, "there is no image")
        turns = one.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise bad(where, "there are no conversations")
        messages = []
        for turn in turns:
            known = isinstance(turn, dict) and isinstance(turn.get("value"), str)
            if not known or turn.get("from") not in ROLES:
                raise bad(where, "a turn needs a value, and from human or gpt")
            parts: list[TextPart | MediaPart] = []
            for place, text in enumerate(turn["value"].split("<image>")):
                parts += [MediaPart("clip", "image")] * (place > 0) + [TextPart(text)] * bool(text)
            messages.append(Message(ROLES[turn["from"]], tuple(parts)))
        if not any(message.role == "assistant" and message.text.strip() for message in messages):
            raise bad(where, "no answer has words")
        if not any(message.media for message in messages):
            raise bad(where, "no turn shows the picture with <image>")
        media = media_file(self._images, self._prefix + one["image"], where)
        return Sample(f"{index}-{one['image']}", tuple(messages), {"clip": media}, self.name)
