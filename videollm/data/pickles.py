"""Published pickles, read without running what is in them: plain values, and matrices of numbers.

A pickle is a program. Here it may make lists, tuples, text and numbers, and name the three things that a numpy array is
made of; for these it is given stand-ins that keep what they are told, and the array is built from that.
"""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from videollm.errors import DataError

_ERRORS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError,
    OverflowError, RecursionError,
)  # fmt: skip


class _PlainUnpickler(pickle.Unpickler):
    """Lists, tuples, text and numbers only: whatever else a pickle can make, it makes by running code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which would run code")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for objects that are not in it")


class _NumberFormat:
    """Stands for a numpy dtype: its code ("f8"), and in which order its bytes are."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or self.code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            raise ValueError(f"numbers of the kind {self.code!r}")
        return np.dtype(self.code).newbyteorder(self.order if self.order in ("<", ">") else "=")


class _Array:
    """Stands for a numpy array: how it is saved."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def plain(self) -> np.ndarray:
        _, shape, numbers, by_columns, held = self.state
        if not isinstance(numbers, _NumberFormat) or not isinstance(held, bytes):
            raise ValueError("an array of objects")
        flat = np.frombuffer(held, numbers.plain())
        if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) != flat.size:
            raise ValueError(f"an array of {flat.size} numbers and the shape {shape}")
        return flat.reshape(shape, order="F" if by_columns else "C")


def _reconstructed(*_: Any) -> _Array:
    return _Array()


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, as older pickles write them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are no latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _NumberFormat,
    ("numpy.core.multiarray", "_reconstruct"): _reconstructed,
    ("numpy._core.multiarray", "_reconstruct"): _reconstructed,
    ("_codecs", "encode"): _encoded,
}


class _ArrayUnpickler(_PlainUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        return super().find_class(module, name) if found is None else found


def load_plain(path: str | os.PathLike[str]) -> Any:
    """Lists, tuples, text and numbers of a pickle.

    Raises:
        DataError: no such file, or one that is not such a pickle.
    """
    return _load(path, _PlainUnpickler, "plain values")


def load_matrix(path: str | os.PathLike[str]) -> np.ndarray:
    """The matrix of numbers that a pickle holds.

    Raises:
        DataError: no such file, or one that is not such a pickle.
    """
    found = _load(path, _ArrayUnpickler, "a matrix of numbers")
    try:
        array = found.plain() if isinstance(found, _Array) else None
    except _ERRORS as error:
        raise DataError(
            f"{path}: holds {_flat(error)}, not a matrix of numbers; get the published file again"
        ) from None
    if array is None or array.ndim != 2 or not array.size:
        shape = "no array" if array is None else f"an array of the shape {array.shape}"
        raise DataError(f"{path}: holds {shape}, not a matrix of numbers; give the published file")
    return array


def _load(path: str | os.PathLike[str], unpickler: type[pickle.Unpickler], what: str) -> Any:
    try:
        with Path(path).open("rb") as file:
            return unpickler(file).load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing pickle") from None
    except _ERRORS as error:
        raise DataError(f"{path}: not a pickle of {what} ({_flat(error)}); get the published file again") from None


def _flat(error: BaseException) -> str:
    return " ".join(str(error).split())
