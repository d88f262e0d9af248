"""The shape of the repository: which part of `lib` may import which, and how large the whole may grow."""

import ast
import subprocess
from pathlib import Path

import pytest

from lib import ROOT
from lib.artifacts import sources

# From the ground: a part imports from the floors below its own, and not from its neighbours.
FLOORS = [
    {"__init__"},
    {"artifacts", "profile", "attacks"},
    {"data", "models"},
    {"explain"},
    {"evaluation"},
    {"study", "report"},
    {"explore"},
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def part_of(path: Path) -> str:
    return Path(path.relative_to(ROOT / "lib").parts[0]).stem


def arrows() -> set[tuple[str, str]]:
    """(from, to) for every part of lib that imports another."""
    found = set()
    for path in (ROOT / "lib").rglob("*.py"):
        for files in sources._imports(path).values():
            found |= {(part_of(path), part_of(file)) for file in files if file != ROOT / "lib" / "__init__.py"}
            found |= {(part_of(path), "__init__") for file in files if file == ROOT / "lib" / "__init__.py"}
    return {(here, there) for here, there in found if here != there}


def test_every_part_of_lib_has_a_floor():
    assert {part_of(path) for path in (ROOT / "lib").rglob("*.py")} == set(FLOOR)


@pytest.mark.parametrize("part", sorted(FLOOR))
def test_a_part_imports_from_the_floors_below(part):
    upward = {there for here, there in arrows() if here == part and FLOOR[there] >= FLOOR[part]}
    assert not upward, f"lib.{part} imports {', '.join(sorted(upward))}, which is not below it"


def test_attacks_import_nothing_of_the_study():
    assert {there for here, there in arrows() if here == "attacks"} == {"__init__"}


def test_notebooks_import_from_lib_alone():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        modules = {
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(sources._parsed(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not any(module.split(".")[0] in ("tools", "tests") for module in modules), path.name


def test_the_sizes():
    assert len(FLOOR) - 1 <= 10
    assert len(arrows()) <= 45
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "lib").rglob("*.py")}
    assert sum(lines.values()) <= 15_650
    longest = {ROOT / "lib/study/study.py": 411}  # the one object that notebooks ask, a few lines for each answer
    assert not [path for path, n in lines.items() if n > longest.get(path, 350)]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tools").glob("*.py")) <= 952
    figures = subprocess.run(["git", "ls-files", "-z", "figures"], cwd=ROOT, capture_output=True, text=True)
    tracked = [ROOT / name for name in figures.stdout.split("\0") if name]
    assert sum(file.stat().st_size for file in tracked if file.is_file()) < 16e6
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.encode()) <= 12_000
    assert len(readme.splitlines()) <= 200
