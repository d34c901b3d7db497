"""Pickles of plain values and of matrices, and those that would do something else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videollm.data.pickles import load_matrix, load_plain
from videollm.errors import DataError

MATRICES = [
    np.arange(12, dtype=np.float64).reshape(3, 4) / 7,
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.array([[1, 0], [0, 1]], dtype=np.int64),
    np.array([[0.5, 1.0]], dtype=">f8"),
    np.eye(3, dtype=bool),
]


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: str(matrix.dtype))
def test_matrices_come_back(tmp_path: Path, matrix: np.ndarray, protocol: int) -> None:
    path = tmp_path / "relevancy.pkl"
    path.write_bytes(pickle.dumps(matrix, protocol))
    found = load_matrix(path)
    assert found.dtype == matrix.dtype and np.array_equal(found, matrix)


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/was_run",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps(Runs()), r"system, which would run code"),
        (pickle.dumps(np.array([[Runs()]], dtype=object)), "which would run code|objects"),
        (pickle.dumps(np.array([["text"]], dtype=object)), "not a matrix of numbers"),
        (pickle.dumps(np.array([["text"]])), "numbers of the kind 'U4'"),
        (pickle.dumps(np.arange(3.0)), r"the shape \(3,\), not a matrix"),
        (pickle.dumps(np.zeros((0, 3))), "not a matrix"),
        (pickle.dumps([1, 2]), "holds no array"),
        (pickle.dumps(np.float64(1)), "scalar, which would run code"),
        (pickle.dumps(np.eye(2))[:-20], "not a pickle of a matrix of numbers"),
        (b"", "not a pickle"),
    ],
)
def test_what_is_no_matrix_is_one_line(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "relevancy.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        load_matrix(path)
    assert "\n" not in str(caught.value) and "relevancy.pkl" in str(caught.value)
    assert not Path("/tmp/was_run").exists()


def test_a_shape_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "relevancy.pkl"
    told = pickle.dumps(np.zeros((2, 3)), 2)
    path.write_bytes(told.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86"))
    with pytest.raises(DataError, match="6 numbers and the shape"):
        load_matrix(path)


def test_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([("v", 1.5, ["a"])]))
    assert load_plain(path) == [("v", 1.5, ["a"])]
    path.write_bytes(pickle.dumps(np.eye(2)))
    with pytest.raises(DataError, match="would run code"):
        load_plain(path)
    with pytest.raises(DataError, match="cannot read"):
        load_plain(tmp_path / "none.pkl")
