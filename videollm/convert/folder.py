"""A folder of weights that appears whole or not at all, written one shard at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tqdm import tqdm

from ..errors import ConversionError
from .audit import Fill, Plan
from .checkpoint import Checkpoint, Source
from .published import FILES, Checksums

SHARD_BYTES = 2**30
"""Shards are at most this large: as much may be in memory beside one source file."""

_BESIDE_WEIGHTS_BYTES = 2**26


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` that becomes ``out`` when the block ends, and vanishes when it fails.

    What an earlier run that was killed has left there is removed first: a conversion always starts clean.

    Raises:
        ConversionError: if ``out`` is there already, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out} is there already; remove it, or choose another --out")
    staging = out.with_name(f".{out.name}.part")
    missing = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    mine = True
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with _locked(staging) as mine:
            if not mine:
                raise ConversionError(
                    f"{out} is being written by another conversion; wait for it, or choose another --out"
                )
            for left in staging.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield staging
            _flush(staging)
            os.replace(staging, out)
    except (OSError, SafetensorError) as error:
        _vanish(staging, missing)
        reason = getattr(error, "strerror", None) or str(error)
        raise ConversionError(
            f"{out} could not be written ({reason}; {_free(out):,} bytes are free); nothing was left behind; make "
            f"room, or choose another --out"
        ) from error
    except BaseException:
        if mine:
            _vanish(staging, missing)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's alone; if so, until the block or the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), os.stat(folder))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        yield mine
    finally:
        os.close(handle)


def _vanish(staging: Path, parents: Sequence[Path]) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    for folder in parents:
        with contextlib.suppress(OSError):  # somebody else has put something there
            folder.rmdir()


def _flush(folder: Path) -> None:
    """Onto the disk, so that a folder of the right name is a whole one after a power cut, too."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _free(path: Path) -> int:
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def build(
    out: Path,
    sources: Sequence[Source],
    plan: Plan,
    save: Callable[[Path], None],
    *,
    facts: Mapping[str, Any],
    left_out: Mapping[str, list[str]],
    dtype: torch.dtype | None,
    say: Callable[[str], None],
) -> Path:
    """Carry out a plan: weights, a report of what became of every key, and what else belongs into the folder.

    Args:
        out: the folder to make.
        sources: the pieces of the plan.
        plan: what to do.
        save: writes the rest into a folder: config.json last, because without it no folder loads.
        facts: for the report, ``conversion.json``.
        left_out: by label of a source: the keys that the user did not want.
        dtype: of the weights; None: as in their files.
        say: takes lines for the user.

    Returns:
        ``out``.

    Raises:
        ConversionError: for a published file that has changed, or a disk that is full.
    """
    checkpoints = [source.checkpoint for source in sources]
    _check_numbers(sources, plan)
    _check_room(out, plan, checkpoints, dtype)
    checksums = Checksums()
    say(f"reading {len(checkpoints)} files")
    digests = [checksums.check(checkpoint.path) for checkpoint in checkpoints]
    with staged(out) as folder:
        parameters = _write_weights(folder, plan, checkpoints, dtype)
        pieces = [
            _piece(source, dropped, left_out[source.label], digest)
            for source, dropped, digest in zip(sources, plan.dropped, digests, strict=True)
        ]
        report = {**facts, "parameters": parameters, "sources": pieces}
        (folder / "conversion.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        save(folder)
    try:
        checksums.remember((c.path.name, digest) for c, digest in zip(checkpoints, digests, strict=True) if digest)
    except OSError as error:
        say(f"the checksums could not be kept in {checksums.path} ({error.strerror})")
    for piece in pieces:
        gone = sum(map(len, piece["dropped"].values()))
        why = "; ".join(f"{len(keys)} {text}" for text, keys in piece["dropped"].items())
        say(f"{piece['file']}: {piece['keys'] - gone} of {piece['keys']} keys used" + (f" (not: {why})" if why else ""))
    licences = sorted({piece["licence"] for piece in pieces if piece["licence"]})
    say(f"{parameters:,} parameters" + (f"; licences of the weights: {'; '.join(licences)}" if licences else ""))
    return out


def _piece(source: Source, dropped: dict[str, list[str]], left_out: list[str], digest: str | None) -> dict[str, Any]:
    known = FILES.get(source.checkpoint.path.name)
    return {
        "file": source.label,
        "kind": source.kind,
        "bytes": source.checkpoint.path.stat().st_size,
        "sha256": digest,
        "licence": known.licence if known else None,
        "keys": len(source.checkpoint.shapes),
        "dropped": dropped | ({"left out as asked": left_out} if left_out else {}),
    }


def _check_numbers(sources: Sequence[Source], plan: Plan) -> None:
    """Every parameter is made of floating point numbers; integers would load as weights that answer nonsense."""
    for fill in plan.fills:
        source = sources[fill.piece]
        for key in fill.sources:
            if key is not None and not source.checkpoint.dtypes[key].is_floating_point:
                kind = str(source.checkpoint.dtypes[key]).removeprefix("torch.")
                raise ConversionError(
                    f"{key} in {source.label} holds {kind} numbers, weights are floating point; get the published file "
                    f"anew"
                )


def _check_room(out: Path, plan: Plan, checkpoints: Sequence[Checkpoint], dtype: torch.dtype | None) -> None:
    needed = sum(_bytes(fill, checkpoints[fill.piece], dtype) for fill in plan.fills)
    free = _free(Path(os.path.abspath(out)))
    if needed + _BESIDE_WEIGHTS_BYTES > free:
        raise ConversionError(
            f"{out} needs {needed:,} bytes, its disk has {free:,} free; make room, or choose another --out"
        )


def _write_weights(folder: Path, plan: Plan, checkpoints: Sequence[Checkpoint], dtype: torch.dtype | None) -> int:
    """Write the parameters of a plan as safetensors shards with their index, and return their number.

    One source file is open at a time, and a shard holds parameters of one file only.
    """
    shards: list[list[Fill]] = []
    room = 0
    for fill in plan.fills:
        size = _bytes(fill, checkpoints[fill.piece], dtype)
        if not shards or shards[-1][0].piece != fill.piece or size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(fill)
        room -= size
    weight_map: dict[str, str] = {}
    parameters = 0
    total = sum(_bytes(fill, checkpoints[fill.piece], dtype) for fill in plan.fills)
    with tqdm(total=total, unit="B", unit_scale=True, desc="weights", disable=None) as bar:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        for piece, checkpoint in enumerate(checkpoints):
            mine = [(name, shard) for name, shard in zip(names, shards, strict=True) if shard[0].piece == piece]
            if not mine:
                continue
            with checkpoint.open() as read:
                for name, shard in mine:
                    tensors = {fill.target: _own(fill.make(read), dtype) for fill in shard}
                    _check_finite(tensors, checkpoint, dtype)
                    save_file(tensors, folder / name, metadata={"format": "pt"})
                    weight_map |= dict.fromkeys(tensors, name)
                    parameters += sum(value.numel() for value in tensors.values())
                    bar.update(sum(value.nbytes for value in tensors.values()))
                    tensors.clear()
    index_file = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(index_file, indent=1) + "\n", encoding="utf-8")
    for name in names:  # safetensors makes files that only their owner may read
        (folder / name).chmod(index.stat().st_mode)
    return parameters


def _check_finite(tensors: Mapping[str, torch.Tensor], checkpoint: Checkpoint, dtype: torch.dtype | None) -> None:
    """A damaged download, or a number format that is too narrow, would make a model that answers nonsense."""
    for name, value in tensors.items():
        # Of the extremes, which need no memory of the tensor's size, as a mask of all numbers would.
        if value.numel() and not all(math.isfinite(float(extreme)) for extreme in value.aminmax()):
            cure = "download it again" if dtype is None else f"try another --dtype than {dtype}, or download it again"
            raise ConversionError(f"{checkpoint.path} gives numbers for {name} that are not finite; {cure}")


def _own(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """In the dtype wanted, in memory of its own: published state dicts hold views of each other."""
    value = value.detach()
    if dtype is not None and value.is_floating_point():
        value = value.to(dtype)
    value = value.contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _bytes(fill: Fill, checkpoint: Checkpoint, dtype: torch.dtype | None) -> int:
    first = next(source for source in fill.sources if source is not None)
    number = dtype or checkpoint.dtypes[first]
    sizes = [0 if source is None else torch.Size(checkpoint.shapes[source]).numel() for source in fill.sources]
    zeros = sum(source is None for source in fill.sources) * torch.Size(checkpoint.shapes[first]).numel()
    return (sum(sizes) + zeros) // fill.parts * number.itemsize
