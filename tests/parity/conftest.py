"""What the tests of all families may use."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.tally import KEPT


@pytest.fixture(scope="module")
def whole(golden: Any) -> Any:
    """The goldens, where none is missing."""
    if golden.folder.is_relative_to(KEPT):
        pytest.skip("only a part is kept in tests/parity/data")
    return golden
