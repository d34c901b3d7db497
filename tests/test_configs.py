"""Every recipe that ships is one that the program reads."""

from pathlib import Path

import pytest

from videollm.settings import load_settings
from videollm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "train_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_recipe(path):
    recipe = load_settings(path, Recipe)
    assert path.read_text().startswith("# ") and recipe.steps > 0
