"""Links of the notebooks to the lines of lib that do what they say: ``[`PGD`](../lib/attacks/gradients.py#L1)``."""

import ast
import os
import re
from functools import cache
from pathlib import Path

from lib import ROOT, StudyError

TO_CODE = re.compile(r"\[`(?P<name>\w+)`\]\((?P<path>(?:\.\./)*lib/[\w/]+\.py)(?:#L\d+)?\)")
RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s]+)(?=\))")


def anchored(text: str) -> str:
    """Markdown whose links to functions and classes of lib name the line at which those are defined now."""

    def renewed(link):
        path, name = link["path"], link["name"]
        return f"[`{name}`]({path}#L{line(path.replace('../', ''), name)})"

    return TO_CODE.sub(renewed, text)


def to_pages(text: str) -> tuple[str, set[tuple[str, str]]]:
    """Markdown whose links to code go to a page that shows it, `lib/<module>.md`, and the (path, name) of each."""
    shown = {(link["path"].replace("../", ""), link["name"]) for link in TO_CODE.finditer(text)}

    def renewed(link):
        return f"[`{link['name']}`]({link['path'].removesuffix('.py')}.md#{link['name'].lower()})"

    return TO_CODE.sub(renewed, text), shown


def line(path: str, name: str) -> int:
    """The line at which the module at `path` (from the repository's root) defines a function or class.

    Raises StudyError if it defines none of this name, so that a renamed function does not leave a dead link.
    """
    if name not in (found := _definitions(path)):
        raise StudyError(
            f"A notebook links to {name} of {path}, which is not there: name another, or the new one."
        )
    return found[name]


@cache
def _definitions(path):
    if not (ROOT / path).is_file():
        return {}
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node.lineno for node in tree.body if isinstance(node, kinds)}


def moved(text: str, source: Path, target: Path) -> str:
    """Markdown written for the folder `source`, with its relative links as the folder `target` needs them.

    Lines of code are left out: what is moved is the record of a run, and later code has other lines.
    """

    def renewed(link):
        return os.path.relpath(source / link[1].split("#L")[0], target).replace(os.sep, "/")

    return RELATIVE.sub(renewed, text)
