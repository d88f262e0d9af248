"""The relative links of notebooks: they lead on from wherever the notebook lies, on the site to pages of code."""

import os
import re
from pathlib import Path

TO_CODE = re.compile(r"\]\(((?:\.\./)*lib/[\w/]+)\.py\)")
RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s]+)(?=\))")


def to_pages(text: str) -> tuple[str, set[str]]:
    """Markdown whose links to modules of lib go to a page of each, `lib/<module>.md`, and the modules' paths."""
    modules = {f"{path.replace('../', '')}.py" for path in TO_CODE.findall(text)}
    return TO_CODE.sub(r"](\1.md)", text), modules


def moved(text: str, source: Path, target: Path) -> str:
    """Markdown written for the folder `source`, with its relative links as the folder `target` needs them."""

    def renewed(link):
        return os.path.relpath(source / link[1], target).replace(os.sep, "/")

    return RELATIVE.sub(renewed, text)


def move_outputs(outputs: list, source: Path, target: Path) -> None:
    """The same for what the cells of a notebook show as Markdown, in place."""
    for data in (output["data"] for output in outputs if "data" in output):
        if "text/markdown" in data:
            data["text/markdown"] = moved(data["text/markdown"], source, target)


def move(notebook, source: Path, target: Path) -> None:
    """The same for all of a notebook, what it says and what it shows, in place."""
    for cell in notebook.cells:
        move_outputs(cell.get("outputs", []), source, target)
        if cell.cell_type == "markdown":
            cell.source = moved(cell.source, source, target)
