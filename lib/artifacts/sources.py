"""The code of `lib` behind a notebook, a module or a function.

The graph of the study watches the first two for changes, and the key of a result that is kept holds the third.
"""

import ast
import functools
import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path

from lib import ROOT, StudyError
from lib.artifacts import key_of

# What these give is in a result's key by value: settings, facts of the data sets, and how files are kept.
BY_VALUE = (
    "lib/__init__.py",
    "lib/profile/__init__.py",
    "lib/profile/evaluation.py",
    "lib/profile/reading.py",
    "lib/profile/settings.py",
    "lib/artifacts/__init__.py",
    "lib/artifacts/sources.py",
    "lib/data/registry.py",
)
STUDY = ROOT / "lib" / "study" / "study.py"
# Methods of a study whose answers are in every key: the model's key names the data and how it was trained.
KEYED = ("trained", "split", "index", "images", "pixels", "fingerprint", "model_key", "directory", "provenance", "kept")

_AT_START = {path: path.stat().st_mtime_ns for path in (ROOT / "lib").rglob("*.py")}  # what this program runs


def sources(entry: str | Path) -> list[str]:
    """An entry point, a notebook or a module, and all files of `lib` behind it, relative to the repository, sorted.

    Follows `import` and `from ... import` wherever they stand, also in functions; the data files (YAML, templates) of a
    package come with it.
    """
    found = _closure([ROOT / entry])
    folders = {path.parent for path in found if path.suffix == ".py"}
    data = {file for folder in folders for kind in ("*.yaml", "*.j2") for file in folder.glob(kind)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found | data)


def code_key(*made_by: Callable) -> str:
    """Fingerprint of the code behind functions or classes of `lib`, blind to comments, docstrings, imports and layout.

    The code is a function's own, that of all it names in its module, of the methods that it calls on `self` or `study`,
    and of the modules that these import from, with all that those import. Variables of a function around it are not
    followed: they are inputs. Changing what the code does makes what it made stale; rewording a comment does not cost a
    day of training. Raises StudyError if a file of it was changed since this program began: other code runs here.
    """
    return _key(*((_file(each), None if inspect.isclass(each) else _line(each), each.__name__) for each in made_by))


def _file(function) -> Path:
    return Path(inspect.getsourcefile(function)).resolve()


def _line(function) -> int:
    return inspect.unwrap(function).__code__.co_firstlineno


@functools.cache
def _key(*definitions: tuple[Path, int | None, str]) -> str:
    code, files = [], set()
    for definition in definitions:
        own, imported = _behind(*definition)
        code += own
        files |= _closure(imported)
    names = sorted((path.relative_to(ROOT).as_posix(), path) for path in files)
    return key_of(sorted(code), [_code_of(path) for name, path in names if name not in BY_VALUE])


def _closure(waiting: list[Path]) -> set[Path]:
    """These files and all files of `lib` behind them."""
    found, waiting = set(), list(waiting)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for files in _imports(path).values() for file in files]
    return found


def _behind(path: Path, line: int | None, name: str) -> tuple[list[str], list[Path]]:
    """The code behind a definition, in its own module and in methods, and the files that this imports from."""
    code, imported, seen = [], [], set()
    waiting = [(path, *_definition(_parsed(path), line, name))]
    while waiting:
        path, node, methods = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        code.append(_dump(node))
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                imported += _imports(path).get(part.id, [])
                if part.id in _defined(path):
                    waiting.append((path, _defined(path)[part.id], {}))
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.attr not in KEYED:
                if part.value.id == "self" and part.attr in methods:
                    waiting.append((path, methods[part.attr], methods))
                elif part.value.id == "study":
                    of_study = _methods(_defined(STUDY)["Study"])
                    waiting += [(STUDY, of_study[part.attr], of_study)] if part.attr in of_study else []
    return code, imported


@functools.cache
def _defined(path: Path) -> dict[str, ast.AST]:
    """What a module defines at its top, by name."""
    found = {}
    for node in _parsed(path).body:
        targets = [*getattr(node, "targets", []), *([node.target] if isinstance(node, ast.AnnAssign) else [])]
        names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        found |= {name: node for name in [*names, getattr(node, "name", None)] if name}
    return found


def _methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}


def _definition(node: ast.AST, line: int | None, name: str, methods=None):
    """The node that defines a function at a line, or a class of a name, and the methods of the class around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name:
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            if line in (first, None):
                return child, methods or {}
        inside = _methods(child) if isinstance(child, ast.ClassDef) else methods
        if found := _definition(child, line, name, inside):
            return found
    return None


@functools.cache
def _imports(path: Path) -> dict[str, list[Path]]:
    """The names that a file imports, anywhere in it, and the files of `lib` that run for each."""
    package = _dotted(path.parent).split(".") if path.suffix == ".py" else []
    found = {}
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.asname or alias.name.split(".")[0], []).extend(_files(alias.name))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).extend(_files(module, alias.name))
    return found


def _files(module: str, name: str = "") -> list[Path]:
    """The files of `lib` that `import module`, or `from module import name`, runs."""
    parts = module.split(".")
    if parts[0] != "lib":
        return []
    if name and (path := _module([*parts, name])):
        files = [path]
    elif (path := _module(parts)) and path.name == "__init__.py" and name in _lazy(path):
        files = [path.parent / f"{_lazy(path)[name]}.py"]
    else:
        files = []
    packages = [_module(parts[:end]) for end in range(1, len(parts) + 1)]
    return files + [path for path in packages if path]


def _module(parts: list[str]) -> Path | None:
    path = ROOT.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def _lazy(path: Path) -> dict[str, str]:
    """The names that a package leaves to lazy_loader, and the module of each."""
    calls = [node for node in ast.walk(_parsed(path)) if isinstance(node, ast.Call)]
    tables = [word.value for call in calls for word in call.keywords if word.arg == "submod_attrs"]
    modules = [item for table in tables for item in ast.literal_eval(table).items()]
    return {name: module for module, names in modules for name in names}


@functools.cache
def _parsed(path: Path) -> ast.Module:
    if _AT_START.get(path) not in (None, path.stat().st_mtime_ns):
        raise StudyError(f"{path.relative_to(ROOT)} was changed while this ran: start it, or the kernel, anew.")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = "\n".join("".join(source) for source in cells).splitlines()
        text = "\n".join(line for line in lines if not line.startswith(("%", "!")))  # IPython's own commands
    return ast.parse(text)


@functools.cache
def _code_of(path: Path) -> str:
    return _dump(_parsed(path))


def _dump(node: ast.AST) -> str:
    """The code of a node, without imports and docstrings (or whatever else is a bare constant)."""
    copied = pickle.loads(pickle.dumps(node))  # half the time of copy.deepcopy
    return ast.unparse(_WithoutWords().visit(copied))


class _WithoutWords(ast.NodeTransformer):
    def visit_Import(self, node):
        return None

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node


def _dotted(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().replace("/", ".")
