"""The files of `lib` that a notebook or module runs on, read off its imports: what the graph watches for changes."""

import ast
import json
from functools import cache
from pathlib import Path

from lib import ROOT


def sources(entry: str | Path) -> list[str]:
    """An entry point, a notebook or a module, and all files of `lib` behind it, relative to the repository, sorted.

    Follows `import` and `from ... import` wherever they stand, also in functions; the data files (YAML, templates) of a
    package come with it.
    """
    found, waiting = set(), [ROOT / entry]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    folders = {path.parent for path in found if path.suffix == ".py"}
    data = {file for folder in folders for kind in ("*.yaml", "*.j2") for file in folder.glob(kind)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found | data)


@cache
def _imported(path: Path) -> list[Path]:
    """The files of `lib` that one file names."""
    names = set()
    for node in ast.walk(ast.parse(_code(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] == "lib"]
    # A name runs every package on its way; the last part may be a function in one of them.
    modules = {Path(*part[:end]) for part in parts for end in range(1, len(part) + 1)}
    files = [
        ROOT / file for module in modules for file in (module.with_suffix(".py"), module / "__init__.py")
    ]
    return [file for file in files if file.is_file()]


def _code(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(source) for source in cells).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))  # IPython's own commands
