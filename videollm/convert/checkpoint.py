"""Foreign weight files, read without running anything that is in them and without holding them in memory."""

from __future__ import annotations

import argparse
import contextlib
import errno
import fnmatch
import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..errors import ConversionError

ON_DISK: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How the library opens somebody else's folder: without the code in it, and without asking whether to run that."""

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

# What the readers of torch and of zip raise for bytes that are no checkpoint, or only the first part of one.
_DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, SafetensorError)

_TORCH_PICKLE_PROTOCOL = 2

# Plain data beside the weights of published files: the flags of a run, and scores as numpy's numbers.
_PLAIN = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")),
    *((np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds, without the numbers.

    Attributes:
        path: the file.
        shapes: of its tensors, by name.
        dtypes: likewise.
        notes: the plain values (numbers, texts, dicts of them) that stand beside the tensors.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    notes: Mapping[str, Any]

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[str], torch.Tensor]]:
        """A function from the name of a tensor to the tensor; its numbers are read when they are used.

        Raises:
            ConversionError: if the file has changed or gone meanwhile.
        """
        if self.path.suffix != ".safetensors":
            tensors, _ = _load(self.path)
            yield tensors.__getitem__
            return
        with _explained(self.path):
            file = safe_open(self.path, "pt")

        def read(key: str) -> torch.Tensor:
            with _explained(self.path):
                return file.get_tensor(key)

        yield read


def inspect(path: Path) -> Checkpoint:
    """Read the names, shapes and notes of a file.

    Args:
        path: a safetensors file, or one that ``torch.save`` wrote.

    Raises:
        ConversionError: if it is missing, cut off, something else, or holds code.
    """
    if not path.is_file():
        raise ConversionError(f"there is no file {path}; check the path")
    head = _head(path)
    if head.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path} is only the address of a large file; fetch it with `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise ConversionError(f"{path} is a web page, not weights; download the file itself again")
    if head[:1] == b"\x80" and head[1:2] > bytes([_TORCH_PICKLE_PROTOCOL]):
        raise ConversionError(
            f"{path} is a pickle that torch did not write: it may hold code and was not opened; use the published file"
        )
    if path.suffix == ".safetensors":
        with _explained(path):
            entries = _safetensors_header(path)
            shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
            dtypes = {key: _SAFETENSORS[entry["dtype"]] for key, entry in entries.items()}
        return Checkpoint(path, shapes, dtypes, {})
    tensors, notes = _load(path)
    return Checkpoint(
        path,
        {key: tuple(value.shape) for key, value in tensors.items()},
        {key: value.dtype for key, value in tensors.items()},
        notes,
    )


@dataclass
class Source:
    """A file that takes part in a conversion.

    Attributes:
        label: how it is called.
        kind: what it is.
        checkpoint: what is in it.
    """

    label: str
    kind: str
    checkpoint: Checkpoint


def without(
    sources: Sequence[Source], drop: Sequence[str]
) -> tuple[dict[str, dict[str, tuple[int, ...]]], dict[str, list[str]]]:
    """The shapes of each file without the keys that the user leaves out; and those keys.

    Args:
        sources: the files.
        drop: patterns of keys; ``*`` is anything.

    Raises:
        ConversionError: for a pattern that matches nothing.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    left_out: dict[str, list[str]] = {}
    for source in sources:
        keys = source.checkpoint.shapes
        gone = {key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in drop)}
        shapes[source.label] = {key: tuple(shape) for key, shape in keys.items() if key not in gone}
        left_out[source.label] = sorted(gone)
    for pattern in drop:
        if not any(fnmatch.fnmatchcase(key, pattern) for keys in left_out.values() for key in keys):
            raise ConversionError(f"--drop {pattern!r} matches no key; take it back")
    return shapes, left_out


def unwrap(loaded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a loaded checkpoint: of its ``model``, ``state_dict`` or (DeepSpeed) ``module``, or its own."""
    wrappers = ("model", "state_dict", "module")
    inner = next((loaded[name] for name in wrappers if isinstance(loaded.get(name), Mapping)), loaded)
    return {key: value for key, value in inner.items() if isinstance(value, torch.Tensor)}


_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


_LONGEST_HEADER_BYTES = 100_000_000
"""As the library has it."""


def _safetensors_header(path: Path) -> dict[str, Any]:
    """What a file says of its tensors; without the library, which would map all of it into memory for that."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _LONGEST_HEADER_BYTES):
            raise ValueError("the header is cut off")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        size = math.prod(entry["shape"]) * _SAFETENSORS[entry["dtype"]].itemsize
        if min(entry["shape"], default=0) < 0 or first < 0 or last - first != size:
            raise ValueError(f"{name} has another size than its shape says")
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != path.stat().st_size:
        raise ValueError("the tensors are cut off")
    return header


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    _check_stored(path)
    with _explained(path), torch.serialization.safe_globals(_PLAIN):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            # The format of before 2020 cannot be mapped: this one file has to be held as a whole.
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise ConversionError(f"{path} holds a {type(loaded).__name__}, not weights by name; give a checkpoint")
    tensors = unwrap(loaded)
    if any(value.layout != torch.strided for value in tensors.values()):
        raise ConversionError(f"{path} holds sparse tensors, which no published file does; give a checkpoint")
    if not all(isinstance(key, str) for key in tensors):
        raise ConversionError(f"{path} holds tensors under names that are no text; give a checkpoint")
    beside = {str(key): value for key, value in loaded.items() if not isinstance(value, torch.Tensor)}
    return tensors, {k: vars(v) if isinstance(v, argparse.Namespace) else v for k, v in beside.items()}


def _check_stored(path: Path) -> None:
    """Torch stores its archives as they are; one that is compressed could unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            squeezed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # of the format before 2020, or damaged: torch says which
    if squeezed:
        raise ConversionError(
            f"{path} is a compressed archive, which torch does not write, and was not opened; use the published file"
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|global:?|function|class)\s+`?([A-Za-z_][\w.]*\.\w+)`?", str(error))
        if code:
            raise ConversionError(
                f"{path} holds code ({code[1]}) beside its weights and was not run; use the published file, or save "
                f"its tensors alone"
            ) from error
        raise ConversionError(_damaged(path, error)) from error
    except _DAMAGE as error:
        if "mmap" in str(error):
            raise ConversionError(
                f"{path} ({path.stat().st_size:,} bytes) cannot be mapped into this machine's memory; add swap space, "
                f"or use a machine with more memory"
            ) from error
        raise ConversionError(_damaged(path, error)) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # seeking for the end of an archive that is not there
            raise ConversionError(_damaged(path, error)) from error
        raise ConversionError(f"{path} cannot be read ({error.strerror or error}); check the file") from error


def _damaged(path: Path, error: Exception) -> str:
    lines = str(error).strip().splitlines() if isinstance(error, RuntimeError | SafetensorError) else []
    reason = f": {lines[0][:120].rstrip('.')}" if lines else ""
    return f"{path} ({path.stat().st_size:,} bytes) is damaged or cut off{reason}; download it again"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror or error}); check the file") from error
