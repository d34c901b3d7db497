"""Encoder states of many clips, computed once: the encoders are frozen when the Q-Formers learn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from videollm.data.world_samples import ClipItems, ClipSamples
from videollm.models.video_llama import VideoLlamaForConditionalGeneration

SHARD_CLIPS = 1000


def _first(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return items


@torch.no_grad()
def make_features(
    model: VideoLlamaForConditionalGeneration, samples: ClipSamples, folder: str | Path, workers: int
) -> None:
    """Encode clips into shards of `SHARD_CLIPS`; shards that are there are kept, so that a stopped run goes on.

    Each shard holds ``frame_states`` bfloat16 ``(sum T, Q, D)``, ``segment_states`` ``(sum S, D)`` with their
    seconds, and how many of them each clip has.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    for first in range(0, len(samples), SHARD_CLIPS):
        target = folder / f"clips-{first:07d}.safetensors"
        if target.exists():
            continue
        part = torch.utils.data.Subset(samples, range(first, min(first + SHARD_CLIPS, len(samples))))
        loader = DataLoader(part, batch_size=16, num_workers=workers, collate_fn=_first)
        kept: dict[str, list[torch.Tensor]] = {}
        for items in tqdm(loader, desc=f"{folder.name} {first}+{len(part)}", mininterval=5):
            with torch.autocast("cpu", torch.bfloat16):
                frames = model.encode_frames(torch.cat([item["pixel_values"] for item in items]))
                sounds = torch.cat([item["audio_values"] for item in items])
                segments = model.encode_audio_segments(sounds) if len(sounds) else torch.zeros(0, 1)
            kept.setdefault("frame_states", []).append(frames.bfloat16())
            if len(sounds):
                kept.setdefault("segment_states", []).append(segments.bfloat16())
            for item in items:
                kept.setdefault("frame_seconds", []).append(item["frame_seconds"])
                kept.setdefault("segment_seconds", []).append(item["segment_seconds"])
                kept.setdefault("frame_count", []).append(torch.tensor([len(item["frame_seconds"])]))
                kept.setdefault("segment_count", []).append(torch.tensor([len(item["segment_seconds"])]))
                kept.setdefault("picture", []).append(item["picture"][None])
        staging = target.with_suffix(".part")
        save_file({name: torch.cat(values) for name, values in kept.items()}, staging)
        os.replace(staging, target)


class FeatureSamples(Dataset[dict[str, Any]]):
    """What `ClipItems` says about kept clips, with the encoder states of what is seen and heard."""

    def __init__(self, folder: str | Path, items: ClipItems) -> None:
        self.items = items
        self.shards: list[dict[str, torch.Tensor]] = []
        self.places: list[tuple[int, int, int, int, int]] = []
        for path in sorted(Path(folder).glob("clips-*.safetensors")):
            with safe_open(path, "pt") as file:
                shard = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            frame = segment = 0
            counts = zip(shard["frame_count"].tolist(), shard["segment_count"].tolist(), strict=True)
            for frames, segments in counts:
                self.places.append((len(self.shards), frame, frames, segment, segments))
                frame, segment = frame + frames, segment + segments
            self.shards.append(shard)
        self.pictures = torch.cat([shard["picture"] for shard in self.shards])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit = self.items(index, self.pictures)
        shard, frame, frames, _, _ = self.places[visit.seen]
        states = self.shards[shard]["frame_states"][frame : frame + frames]
        seconds = self.shards[shard]["frame_seconds"][frame : frame + frames]
        if visit.backwards:
            states, seconds = states.flip(0), (seconds[-1] - seconds).flip(0)
        item = {**visit.item, "frame_states": states, "frame_seconds": seconds}
        shard, _, _, segment, segments = self.places[visit.heard]
        item["segment_states"] = self.shards[shard]["segment_states"][segment : segment + segments]
        item["segment_seconds"] = self.shards[shard]["segment_seconds"][segment : segment + segments]
        return item
