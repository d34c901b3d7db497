"""A YAML file against a dataclass: sections, lists of sections, overrides, and one line for whatever is wrong."""

from dataclasses import dataclass

import pytest

from videollm.errors import ConfigError
from videollm.settings import load_settings


@dataclass(frozen=True)
class Source:
    path: str
    ratio: float = 1.0

    def __post_init__(self):
        if self.ratio <= 0:
            raise ValueError(f"ratio must be positive, found {self.ratio}")


@dataclass(frozen=True)
class Run:
    name: str
    sources: tuple[Source, ...] = ()
    best: Source | None = None
    sizes: tuple[int, ...] = ()


TEXT = """\
name: a run
sources:
  - path: one
  - {path: two, ratio: 3}
best:
  path: three
sizes: [1, 2]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(TEXT)
    return path


def test_sections_and_lists_of_sections(file):
    assert load_settings(file, Run) == Run("a run", (Source("one"), Source("two", 3.0)), Source("three"), (1, 2))


def test_overrides_reach_into_sections(file):
    run = load_settings(file, Run, ["best.ratio=2", "name=other", "sources=[{path: four}]"])
    assert run == Run("other", (Source("four"),), Source("three", 2.0), (1, 2))
    assert load_settings(file, Run, ["best=null"]).best is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  path: three", "  pahth: three", r"run.yaml line 6: unknown key 'pahth'; did you mean 'path'"),
        ("ratio: 3", "ratio: many", r"run.yaml line 4: ratio is 'many'; it must be float"),
        ("ratio: 3", "ratio: -3", r"run.yaml line 4: ratio must be positive, found -3.0"),
        ("  - path: one", "  - ratio: 1", r"run.yaml line 3: missing key 'path'"),
        (
            "  - path: one",
            "  - one",
            r"run.yaml line 2: sources is .*a list of sections, each with the keys path, ratio",
        ),
        ("  path: three", "  - path: three", r"run.yaml line 5: best is .*must be a section with the keys path, ratio"),
        ("sizes: [1, 2]", "sizes: [1, x]", r"run.yaml line 7: sizes is 'x'; it must be int"),
        ("name: a run", "nam: a run", r"run.yaml line 1: unknown key 'nam'; did you mean 'name'"),
        ("sizes: [1, 2]", "sizes: [1, 2", r"run.yaml line 8: not valid YAML"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(file, old, new, message):
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(file, Run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("best.ratio=x", "--set best.ratio: ratio is 'x'"),
        ("best.rtio=1", "--set best.rtio: unknown key 'rtio'"),
        ("name.first=a", "--set name.first: name is no section"),
        ("name", "is not key=value"),
        ("name=[", "is not a YAML value"),
    ],
)
def test_a_wrong_override_names_itself(file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(file, Run, [override])
