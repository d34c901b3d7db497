"""The plan of a conversion: every key of every file used once or dropped for a reason, every parameter filled.

The plan needs names and shapes only, so that it is made, and refused, before any number is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import ConversionError
from .keymap import Drop, Rule, find

Shape = tuple[int, ...]

_NAMED = 3


@dataclass(frozen=True)
class Piece:
    """A published file, or what is known of it.

    Attributes:
        label: how errors call it, e.g. its file name.
        rules: its key map.
        shapes: of its tensors.
    """

    label: str
    rules: Sequence[Rule]
    shapes: Mapping[str, Shape]


@dataclass(frozen=True)
class Fill:
    """How one of our parameters is made.

    Attributes:
        target: its name.
        piece: the index of the piece that holds its sources.
        sources: keys whose tensors are put under each other; None: zeros like the others.
        part, parts: which of how many equal parts of the rows is taken.
        transposed: whether rows become columns then.
    """

    target: str
    piece: int
    sources: tuple[str | None, ...]
    part: int = 0
    parts: int = 1
    transposed: bool = False

    def make(self, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The parameter.

        Args:
            read: the tensor of a key of the piece.
        """
        parts = [None if source is None else read(source) for source in self.sources]
        like = next(part for part in parts if part is not None)
        made = like
        if len(parts) > 1:
            made = torch.cat([torch.zeros_like(like) if part is None else part for part in parts])
        if self.parts > 1:
            made = made.chunk(self.parts)[self.part]
        return made.mT if self.transposed else made

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """What `make` returns has this shape.

        Args:
            shapes: of the tensors of the piece.
        """
        first = next(shapes[source] for source in self.sources if source is not None)
        if len(self.sources) > 1:
            rows = sum(shapes[source][0] if source is not None else first[0] for source in self.sources)
            first = (rows, *first[1:])
        if self.parts > 1 and first and first[0] % self.parts == 0:
            first = (first[0] // self.parts, *first[1:])
        return (*first[:-2], *first[:-3:-1]) if self.transposed else tuple(first)


@dataclass
class Plan:
    """A conversion that leaves nothing out.

    Attributes:
        fills: one for each of our parameters, piece after piece.
        dropped: for each piece, by reason: the keys that are not used.
    """

    fills: list[Fill] = field(default_factory=list)
    dropped: list[dict[str, list[str]]] = field(default_factory=list)


def audit(pieces: Sequence[Piece], wanted: Mapping[str, Shape]) -> Plan:
    """Plan a conversion.

    Args:
        pieces: the files.
        wanted: names and shapes of the parameters of our model.

    Raises:
        ConversionError: in one line, all of: keys that no rule knows or that lead to no parameter, parts of a parameter
            without the others, parameters filled twice or not at all, and shapes that do not fit.
    """
    plan = Plan()
    owner: dict[str, int] = {}
    complaints: list[str] = []
    for index, piece in enumerate(pieces):
        unknown: list[str] = []
        parts: list[str] = []
        twice: list[str] = []
        misfits: list[str] = []
        dropped: dict[str, list[str]] = {}
        for key in piece.shapes:
            place = find(piece.rules, key)
            if isinstance(place, Drop):
                dropped.setdefault(place.reason, []).append(key)
                continue
            targets = () if place is None else (place.target, *place.further)
            if place is None or any(target not in wanted for target in targets):
                unknown.append(key)
                continue
            needed = [source for source in place.sources if source is not None]
            absent = [source for source in needed if source not in piece.shapes]
            if absent:
                parts += absent
                for target in targets:
                    owner.setdefault(target, index)  # complained of already
                continue
            if key != needed[0]:
                continue
            for part, target in enumerate(targets):
                if target in owner:
                    twice.append(f"{target} (also in {pieces[owner[target]].label})")
                    continue
                owner[target] = index
                fill = Fill(target, index, place.sources, part, len(targets), place.transposed)
                found = fill.shape(piece.shapes)
                if found != tuple(wanted[target]):
                    misfits.append(f"{key} is {_size(found)}, the model needs {_size(wanted[target])}")
                plan.fills.append(fill)
        plan.dropped.append(dropped)
        for what, keys in (
            ("has {n} that no part of the model takes: ", unknown),
            ("lacks {n}: ", sorted(set(parts))),
            ("fills {n} a second time: ", twice),
            ("has {n} of another shape: ", misfits),
        ):
            if keys:
                complaints.append(f"{piece.label} {what.format(n=_count(keys, 'key'))}{_some(keys)}")
                if keys is unknown:
                    complaints[-1] += _nearest(keys[0], piece, wanted, owner)
    empty = [name for name in wanted if name not in owner]
    if empty:
        complaints.append(f"nothing fills {_count(empty, 'parameter')} of the model: {_some(empty)}")
    if complaints:
        raise ConversionError(
            f"{'; '.join(complaints)}; get the published files anew, of one size, or leave out a key that you know to "
            f"be needless with --drop"
        )
    return plan


def _count(keys: Sequence[str], what: str) -> str:
    return f"{len(keys)} {what}{'s' * (len(keys) != 1)}"


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _nearest(key: str, piece: Piece, wanted: Mapping[str, Shape], owner: Mapping[str, int]) -> str:
    """What an unknown key was perhaps meant to be: a name that its piece could have and that is still missing."""
    place = find(piece.rules, key)
    if place is None or isinstance(place, Drop):
        return ""
    near = difflib.get_close_matches(place.target, [name for name in wanted if name not in owner], n=1)
    return f" (renamed? {near[0]} has nothing)" if near else ""
