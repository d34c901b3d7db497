"""LLaVA-CC3M: pictures of the web with short captions, in the layout of MiniGPT-4's files, as published."""

from __future__ import annotations

from videollm.data.minigpt4 import MiniGPT4


class LlavaCC3M(MiniGPT4):
    """See `MiniGPT4`, whose layout and arguments it has; its captions, too, are used as they are."""

    name = "llava_cc3m"
