"""A plan leaves nothing out, or names what it would leave out."""

from __future__ import annotations

import pytest
import torch

from videollm.convert.audit import Fill, Piece, audit
from videollm.convert.keymap import Drop, Split, Stack, Take
from videollm.errors import ConversionError

RULES = (
    Take("a.{p}", "x.{p}"),
    Stack(("q", None, "v"), "x.qkv"),
    Drop("count", "computed"),
)
SHAPES = {"a.weight": (3, 2), "q": (4,), "v": (4,), "count": ()}
WANTED = {"x.weight": (3, 2), "x.qkv": (12,)}


def piece(**changes: tuple[int, ...] | None) -> Piece:
    shapes = {key: shape for key, shape in {**SHAPES, **changes}.items() if shape is not None}
    return Piece("file.pth", RULES, shapes)


def test_a_whole_plan() -> None:
    plan = audit([piece()], WANTED)
    assert plan.fills == [Fill("x.weight", 0, ("a.weight",)), Fill("x.qkv", 0, ("q", None, "v"))]
    assert plan.dropped == [{"computed": ["count"]}]


def test_a_stack_is_made_in_order_with_zeros_between() -> None:
    tensors = {"q": torch.ones(2, dtype=torch.float16), "v": torch.full((2,), 2.0, dtype=torch.float16)}
    made = Fill("x", 0, ("q", None, "v")).make(tensors.__getitem__)
    assert made.tolist() == [1, 1, 0, 0, 2, 2] and made.dtype == torch.float16


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([piece(**{"b.weight": (1,)})], "has 1 key that no part of the model takes: b.weight"),
        ([piece(**{"a.wieght": (3, 2), "a.weight": None})], r"a.wieght \(renamed\? x.weight has nothing\)"),
        ([piece(**{"a.weight": None})], "nothing fills 1 parameter of the model: x.weight"),
        ([piece(v=None)], "lacks 1 key: v"),
        ([piece(q=None)], "lacks 1 key: q"),
        ([piece(**{"a.weight": (2, 3)})], "a.weight is 2 x 3, the model needs 3 x 2"),
        ([piece(v=(5,))], "q is 13, the model needs 12"),
        (
            [piece(), Piece("other.pth", RULES, {"a.weight": (3, 2)})],
            r"other.pth fills 1 key a second time: x.weight \(also in file",
        ),
    ],
)
def test_what_is_wrong_is_named(pieces: list[Piece], words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        audit(pieces, WANTED)
    assert "\n" not in str(caught.value)


def test_all_complaints_at_once() -> None:
    with pytest.raises(ConversionError) as caught:
        audit([piece(**{"b.weight": (1,), "a.weight": None, "v": None})], WANTED)
    assert all(name in str(caught.value) for name in ("b.weight", "x.weight", "lacks 1 key: v"))


def test_split_and_transposed() -> None:
    rules = (Split("qk", ("q", "k")), Take("matrix", "linear", transposed=True))
    tensors = {"qk": torch.arange(8.0).view(4, 2), "matrix": torch.arange(6.0).view(2, 3)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    plan = audit([Piece("file.pth", rules, shapes)], {"q": (2, 2), "k": (2, 2), "linear": (3, 2)})
    made = {fill.target: fill.make(tensors.__getitem__) for fill in plan.fills}
    assert made["q"].tolist() == [[0, 1], [2, 3]] and made["k"].tolist() == [[4, 5], [6, 7]]
    assert made["linear"].tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(ConversionError, match="matrix is 3 x 2, the model needs 2 x 3"):
        audit([Piece("file.pth", rules, shapes)], {"q": (2, 2), "k": (2, 2), "linear": (2, 3)})
    with pytest.raises(ConversionError, match="qk is 5 x 2, the model needs 2 x 2"):
        audit([Piece("file.pth", rules, shapes | {"qk": (5, 2)})], {"q": (2, 2), "k": (2, 2), "linear": (3, 2)})
