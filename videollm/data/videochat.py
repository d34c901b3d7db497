"""VideoChat's instructions: questions and answers about videos.

Source: VideoChat's published JSON list as Video-LLaMA reads it: ``video``, a path in the folder of videos, and ``QA``,
a list of ``q`` and ``a``. The video is shown before the first question.
"""

from __future__ import annotations

import os
from pathlib import Path

from videollm.data.annotations import bad, json_list, media_file
from videollm.data.sample import Sample
from videollm.messages import MediaPart, assistant, user


class VideoChat:
    """Conversations by number. The sentence about the frames' seconds is the chat template's to write.

    A published defect that is not reproduced: an annotation with a wrong key was taken for a broken video.

    Args:
        path: the JSON file.
        videos: the folder of videos.
        name: of the dataset.

    Raises:
        DataError: no annotations.
    """

    def __init__(self, path: str | os.PathLike[str], videos: str | os.PathLike[str], name: str = "videochat") -> None:
        self.name, self._path, self._videos = name, Path(path), Path(videos)
        self._annotations = json_list(path)

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> Sample:
        one, where = self._annotations[index], f"{self._path} conversation {index + 1}"
        if not isinstance(one, dict) or not isinstance(one.get("video"), str):
            raise bad(where, "there is no video")
        pairs = one.get("QA")
        if not isinstance(pairs, list) or not pairs:
            raise bad(where, "there is no QA")
        messages = []
        for place, pair in enumerate(pairs):
            if not isinstance(pair, dict) or not all(isinstance(pair.get(key), str) for key in ("q", "a")):
                raise bad(where, "a pair needs q and a")
            if not pair["a"].strip():
                raise bad(where, "an answer has no words")
            messages += [user(pair["q"], [MediaPart("clip")] if place == 0 else []), assistant(pair["a"])]
        media = media_file(self._videos, one["video"], where)
        return Sample(f"{index}-{one['video']}", tuple(messages), {"clip": media}, self.name)
