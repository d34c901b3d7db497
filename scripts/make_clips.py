"""Write the bundled clips, scenes kept for testing, into videollm/assets/clips: ``python scripts/make_clips.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from videollm.data.world_files import test_scene, write_scene

CLIPS = {"two_things": ("two", 338), "cut": ("cut", 5), "textures": ("plain", 154)}
"""File name: kind and number of the test scene."""


def main() -> None:
    """Write each clip anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder = Path(__file__).resolve().parents[1] / "videollm/assets/clips"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, number) in CLIPS.items():
        write_scene(test_scene(kind, "seen", number), folder / f"{name}.mp4", preset="medium")
        print(folder / f"{name}.mp4")


if __name__ == "__main__":
    main()
