"""Links from the notebooks to the code: to the line that they name, from wherever the notebook lies."""

import re
from pathlib import Path

import nbformat
import pytest

from lib import PUBLISHED, ROOT
from tools import links

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[0-9]_*.ipynb"))


def texts(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_to_code_name_what_their_file_defines(path):
    for name, file in re.findall(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)", "\n".join(texts(path))):
        assert (path.parent / file).is_file(), file
        if "/lib/" in file and name.startswith("`"):
            code = (path.parent / file).read_text(encoding="utf-8")
            assert re.search(rf"^(def|class) {name.strip('`')}\b", code, re.MULTILINE), f"{file} has no {name}"


def test_links_of_published_notebooks_lead_somewhere():
    published = sorted(PUBLISHED.glob("*/notebooks/*.ipynb"))
    assert published
    for path in published:
        cells = nbformat.read(path, as_version=4).cells
        shown = [
            output.get("data", {}).get("text/markdown", "") for cell in cells for output in cell.get("outputs", [])
        ]
        for text in [*texts(path), *shown]:
            for link in links.RELATIVE.findall(text):
                assert (path.parent / link.split("#")[0]).exists(), f"{path}: {link}"


def test_a_notebook_that_moves_takes_its_links_along():
    text = "[a](../lib/x.py), ![b](pic.png), [c](https://e.org/a), [d](#here), [e](/root), [f](mailto:a@b.c)"
    source, target = Path("/r/notebooks"), Path("/r/figures/quick/notebooks")
    moved = links.moved(text, source, target)
    assert "[a](../../../lib/x.py)" in moved
    assert "![b](../../../notebooks/pic.png)" in moved
    assert moved.endswith("[c](https://e.org/a), [d](#here), [e](/root), [f](mailto:a@b.c)")
    assert links.moved(moved, target, source) == text


def test_on_the_site_links_to_code_lead_to_pages():
    text, modules = links.to_pages("[`PGD`](../lib/attacks/pgd.py), [a](../README.md)")
    assert text == "[`PGD`](../lib/attacks/pgd.md), [a](../README.md)"
    assert modules == {"lib/attacks/pgd.py"}
