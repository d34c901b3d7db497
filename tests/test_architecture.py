"""The floor picture of ARCHITECTURE.md, proven: every import of every file, lazy ones included, obeys the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "videollm"

FLOOR_0 = {"messages", "clips", "toolset", "settings", "errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "media": set(),
    "models": set(),
    "convert": {"models"},
    "data": {"media", "models"},
    "chat": {"media", "models"},
    "moments": {"media", "models"},
    "tools": {"chat", "moments", "media", "models"},
    "training": {"data", "models"},
    "evaluation": {"data", "tools", "chat", "moments", "media", "models"},
    "serving": {"tools", "chat", "moments", "media", "models"},
    "cli": {"convert", "data", "chat", "moments", "tools", "training", "evaluation", "serving", "media", "models"},
    # Not rooms: the package's lazy public names, and `python -m videollm`.
    "__init__": {"chat", "tools", "moments", "models"},
    "__main__": {"cli"},
}
HEAVY = {"torch", "transformers", "av", "PIL", "decord", "peft", "accelerate", "deepspeed", "gradio", "safetensors"}
# Published annotations are pickles; it reads them through an unpickler that makes plain values only.
UNPICKLES = PACKAGE / "data" / "pickles.py"
FORBIDDEN_NAMES = {
    "utils",
    "util",
    "common",
    "misc",
    "helper",
    "helpers",
    "base",
    "manager",
    "factory",
    "registry",
    "legacy",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room of a file: its folder under the package, or its own name where it lies in the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, inside a function) of every import, by statement or by ``import_module("...")``.

    Imports under ``if TYPE_CHECKING:`` count as inside: they never run, but they draw an arrow.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["videollm", *path.relative_to(PACKAGE).parts[:-1]]
    found: list[tuple[str, int, bool]] = []

    def add(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                assert node.level <= len(package), f"{path}:{node.lineno} climbs out of the package"
                start = package[: len(package) - node.level + 1]
                module = ".".join([*start, *([node.module] if node.module else [])])
            else:
                module = node.module or ""
            # `from videollm.media import source` and `from videollm import media` name modules as well.
            found.extend((f"{module}.{alias.name}", node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.append((node.args[0].value, node.lineno, lazy))

    def walk(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            add(child, lazy)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, lazy or inside or typing_only)

    walk(tree, False)
    return found


def own(module: str) -> str | None:
    """The room (or floor-0 module) that an import of our own reaches; None for others; "" for the package itself."""
    parts = module.split(".")
    if parts[0] != "videollm":
        return None
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_obey_the_table(path: Path) -> None:
    room = room_of(path)
    for module, line, _ in imports_of(path):
        target = own(module)
        if target is None:
            continue
        where = f"{path.relative_to(ROOT)}:{line} imports {module}"
        if target in ("", "__version__"):
            assert room in ("cli", "__init__", "__main__"), f"{where}: only cli may import the package itself"
        elif target in FLOOR_0:
            assert room not in FLOOR_0 or target == "errors", f"{where}: floor 0 may import only errors"
        else:
            allowed = MAY_IMPORT.get(room, set()) | {room}
            assert target in allowed, f"{where}: {room} may import {sorted(allowed) or 'nothing but floor 0'}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_cli_imports_rooms_and_heavy_packages_inside_functions_only(path: Path) -> None:
    for module, line, lazy in imports_of(path):
        target = own(module)
        light = target in (None, "", "cli", "__version__", *FLOOR_0) and module.split(".")[0] not in {*HEAVY, "numpy"}
        if target == "clips":
            light = False  # it imports numpy
        assert lazy or light, f"{path.name}:{line} imports {module} at its top: --help would pay for it"


def test_floor_0_is_plain_data() -> None:
    for name in sorted(FLOOR_0):
        for module, line, _ in imports_of(PACKAGE / f"{name}.py"):
            assert module.split(".")[0] not in HEAVY, f"{name}.py:{line} imports {module}"


def test_media_and_its_worker_know_no_torch() -> None:
    """The decoding child must start fast: no file of the room imports torch or transformers, not even lazily."""
    for path in sorted((PACKAGE / "media").rglob("*.py")):
        for module, line, _ in imports_of(path):
            assert module.split(".")[0] not in {"torch", "transformers"}, f"{path.name}:{line} imports {module}"


def test_models_open_no_media_file() -> None:
    for path in sorted((PACKAGE / "models").rglob("*.py")):
        for module, line, _ in imports_of(path):
            assert module.split(".")[0] not in {"av", "decord", "soundfile", "cv2", "imageio", "wave"}, (
                f"{path.name}:{line} imports {module}"
            )


def test_only_convert_reads_foreign_checkpoints() -> None:
    """``torch.load`` and pickle occur in convert, in training where a run reads its own folder, and in `UNPICKLES`."""
    for path in FILES:
        if room_of(path) in ("convert", "training"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), f"{path.relative_to(ROOT)}:{node.lineno}"
        if path == UNPICKLES:
            continue
        for module, line, _ in imports_of(path):
            assert module.split(".")[0] not in {"pickle", "dill", "joblib"}, f"{path.relative_to(ROOT)}:{line}"


def test_no_trust_remote_code() -> None:
    for path in FILES:
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8"), path


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert rooms <= set(MAY_IMPORT), rooms - set(MAY_IMPORT)
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == FLOOR_0 | {"__init__", "__main__"}


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    for folder in (PACKAGE, ROOT / "tests", ROOT / "scripts", ROOT / "demo"):
        for path in folder.rglob("*.py"):
            words = {path.stem.lower(), *(part.lower() for part in path.relative_to(folder).parts[:-1])}
            words |= {re.sub(r"^test_", "", word) for word in words}
            assert not words & FORBIDDEN_NAMES, path.relative_to(ROOT)


def test_there_are_no_star_imports() -> None:
    for path in FILES:
        for module, line, _ in imports_of(path):
            assert not module.endswith(".*"), f"{path.relative_to(ROOT)}:{line}"


def test_the_table_in_the_document_is_the_table_here() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Where is it?")[0]
    rows = dict(re.findall(r"^\| ([a-z, ]+) \| ([^|]+) \|$", text, flags=re.MULTILINE))
    stated: dict[str, set[str]] = {}
    for rooms, may in rows.items():
        for room in rooms.split(","):
            names = set() if may.strip() == "-" else {name.strip() for name in may.split(",")}
            stated[room.strip()] = names
    stated.pop("room", None)
    cli = stated.pop("cli")
    assert any("inside" in name for name in cli)
    assert stated == {room: may for room, may in MAY_IMPORT.items() if room not in ("cli", "__init__", "__main__")}


def test_the_checker_sees_what_it_must_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: each kind of forbidden import is found."""
    package = tmp_path / "videollm"
    (package / "media").mkdir(parents=True)
    monkeypatch.setattr(f"{__name__}.PACKAGE", package)
    path = package / "media" / "bad.py"
    path.write_text(
        "import videollm.models\n"
        "from videollm import chat\n"
        "from ..data import world\n"
        "def f():\n"
        "    from videollm.tools.look import look\n"
        "    import importlib\n"
        "    importlib.import_module('videollm.training.run')\n"
    )
    reached = [own(module) for module, _, _ in imports_of(path)]
    assert [room for room in reached if room] == ["models", "chat", "data", "tools", "training"]
    assert [lazy for module, _, lazy in imports_of(path) if own(module)] == [False, False, False, True, True]
    path.write_text("from ....outside import thing\n")
    with pytest.raises(AssertionError, match="climbs out"):
        imports_of(path)


def test_no_folder_is_offered_to_run_its_own_code() -> None:
    """The library asks on a terminal where nobody has said no, and runs what a stranger's folder brings."""
    found = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = getattr(node.func.value, "id", "")
            if node.func.attr == "from_pretrained" and owner.startswith("Auto"):
                found += 1
                said = {keyword.arg or ast.unparse(keyword.value) for keyword in node.keywords}
                assert said & {"trust_remote_code", "ON_DISK", "own"}, f"{path}:{node.lineno}"
    assert found >= 5
