"""Links from the notebooks to the code: to the line that they name, from wherever the notebook lies."""

import re
from pathlib import Path

import nbformat
import pytest

from lib import ROOT, StudyError, links

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[0-9]_*.ipynb"))


def texts(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_relative_links_lead_to_the_line_that_defines_what_they_name(path):
    for name, target in re.findall(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)", "\n".join(texts(path))):
        file, _, line = target.partition("#L")
        assert (path.parent / file).is_file(), target
        if "/lib/" in file:
            defined = (path.parent / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
            assert re.match(rf"(def|class) {name.strip('`')}\b", defined), (
                f"{target} is not {name}: write the links again with python -m lib.readme quick"
            )


def test_a_link_gets_the_line_and_an_old_line_is_renewed():
    source = (ROOT / "lib" / "links.py").read_text(encoding="utf-8").splitlines()
    line = 1 + source.index("def moved(text: str, source: Path, target: Path) -> str:")
    for written in ("", "#L1"):
        text = f"so ([`moved`](../lib/links.py{written})) it is"
        assert links.anchored(text) == f"so ([`moved`](../lib/links.py#L{line})) it is"
    assert links.anchored("[p](https://e.org/lib/links.py)") == "[p](https://e.org/lib/links.py)"


@pytest.mark.parametrize(
    "link", ["[`no_such_function`](../lib/links.py)", "[`moved`](../lib/no_such_module.py)"]
)
def test_a_link_to_nothing_is_refused(link):
    with pytest.raises(StudyError, match="links to"):
        links.anchored(link)


def test_a_notebook_that_moves_takes_its_links_along():
    text = (
        "[a](../lib/x.py#L3), ![b](pic.png), [c](https://e.org/a), [d](#here), [e](/root), [f](mailto:a@b.c)"
    )
    source, target = Path("/r/notebooks"), Path("/r/figures/quick/notebooks")
    moved = links.moved(text, source, target)
    assert "[a](../../../lib/x.py)" in moved
    assert "![b](../../../notebooks/pic.png)" in moved
    assert moved.endswith("[c](https://e.org/a), [d](#here), [e](/root), [f](mailto:a@b.c)")
    assert links.moved(moved, target, source) == text.replace("#L3", "")
