"""The pages: what goes into them, and, where Sphinx and Chromium are there, how they look in a browser."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from lib import ROOT
from lib.evaluation.tasks import TASKS
from tools import site

OWN = ROOT / ".venv-site" / "bin" / "python"  # of ./reproduce site; ./reproduce test --browser adds to the environment
PYTHON = OWN if OWN.is_file() else sys.executable
REQUIRED = os.environ.get("BROWSER") == "required"
BUILDS = REQUIRED or OWN.is_file() or importlib.util.find_spec("myst_nb")
BROWSER = REQUIRED or any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


def picture():
    data = {"image/png": "iVBORw0KGgo="}
    return nbformat.v4.new_output("display_data", data)


def code(source, *outputs):
    cell = nbformat.v4.new_code_cell(source)
    cell.outputs = list(outputs)
    return cell


def words(*cells):
    return [
        cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for cell in site.described(nbformat.v4.new_notebook(cells=list(cells))).cells
        if cell.cell_type == "code"
    ]


def test_pictures_get_the_caption_that_follows():
    caption = nbformat.v4.new_markdown_cell("*Robust `accuracy`*, with\nbands at $95$ %.\n\n## Next")
    assert words(code("draw()", picture()), caption, code("print()")) == [
        "Robust accuracy, with bands at 95 %.",
        None,
    ]


def test_or_what_the_index_says_or_the_heading():
    title = nbformat.v4.new_markdown_cell("Text\n\n## What it looks like\n\nMore")
    saved = 'figures.save(figure, out / "gradcam_shift", stamp)'
    shows = site.index.FIGURES["gradcam_shift"].shows
    assert words(title, code(saved, picture()), code("draw()", picture())) == [
        shows,
        "Figure: What it looks like",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0[1-5]*.ipynb")), ids=lambda path: path.stem)
def test_plumbing_is_folded_and_the_science_is_not(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    folded = [cell.source for cell in cells if "hide-input" in cell.metadata.get("tags", [])]
    assert all("import" in code or "figures.save(" in code or "sentences.box(" in code for code in folded)
    assert any("figures.use_style()" in code for code in folded)
    assert len(folded) < len(cells) / 1.5


def test_links_to_folders_are_text(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "x.md").touch()
    text = "[a](profiles), [b](x.md), ![c](profiles), [d](https://e.org/f)"
    assert site.without_folder_links(text, tmp_path) == "a, [b](x.md), ![c](profiles), [d](https://e.org/f)"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    site.assemble(folder)
    return folder


def test_the_ledger_stands_in_front_with_its_label_and_its_rules(source):
    front = (source / "index.md").read_text(encoding="utf-8")
    assert "<!--" not in front
    labels = [site.label(folder) for folder in site.results()]
    assert "phantom data" in labels
    for label in labels:  # each before its own ledger
        assert "| C1: " in front[front.index(label) :]
    assert min(front.index(label) for label in labels) < front.index("| C1: ")
    answered = [folder for folder in site.results() if (folder / "tables" / "effects.csv").is_file()]
    for folder in answered:  # the answer and its figure before the ledger
        begin = front.index("## Does attention" if folder.name == "ham10000" else f": {folder.name}")
        places = [front.index(said, begin) for said in ("**", f"{folder.name}/planned.png", "<details>", "| C1: ")]
        assert places == sorted(places)
    assert front.index("## Does attention") < front.index("ham10000/planned.png") < front.index("phantom data")
    assert answered
    for claim in ("C1", "C2", "C3", "C4", "C5", "C6"):
        assert f"| {claim}: " in front
        assert f"- **{claim}**: " in front
    for folder in site.results():
        assert f"<figures/published/{folder.name}/index>" in front
        assert (source / "figures" / "published" / folder.name / "index.md").is_file()


def test_each_picture_of_the_notebooks_has_words(source):
    for path in (source / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
                assert len(cell.metadata["mystnb"]["image"]["alt"]) > 15


def test_nothing_of_one_data_set_alone_is_shown(source):
    assert not [path for path in (source / "figures").rglob("*_eyepacs*") if path.suffix != ".ipynb"]


def test_notebooks_of_real_images_come_first_and_those_of_phantoms_under_that_word(source):
    front = (source / "index.md").read_text(encoding="utf-8")
    groups = [front.index(f":caption: Notebooks, {name}") for name in ("real images: skin lesions", "phantoms")]
    assert groups == sorted(groups)
    for task in TASKS:
        assert len(list((source / "figures" / "published" / task / "notebooks").glob("*.ipynb"))) == 6


def test_links_to_code_go_to_pages_that_show_it(source):
    linked = [
        path.parent / target
        for path in (source / "notebooks").glob("*.ipynb")
        for target in re.findall(r"\[`\w+`\]\((\.\./lib/[^)#]+\.md)\)", path.read_text(encoding="utf-8"))
    ]
    assert len(linked) > 20
    for page in linked:
        assert f"literalinclude}} {page.stem}.py\n" in page.read_text(encoding="utf-8")
        assert page.with_suffix(".py").is_file()


@pytest.mark.skipif(not BUILDS, reason="./reproduce test --browser installs what builds the pages")
def test_the_pages_are_well_in_a_browser(tmp_path):
    def run(*command):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run([PYTHON, *command], cwd=ROOT, env=environment, capture_output=True, text=True)

    built = run("-m", "tools.site", tmp_path / "site")  # Sphinx' warnings are errors
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "<table" in page
    assert "https://cdn" not in page
    if BROWSER:
        # The whole site takes minutes: ./reproduce site, then tests/pages_in_browser.py site
        few = (
            "index.html",
            "notebooks/02_training.html",
            "figures/published/quick/index.html",
            "lib/evaluation/statistics.html",
        )
        looked = run("tests/pages_in_browser.py", tmp_path / "site", "--only", *few)
        assert looked.returncode == 0, looked.stdout + looked.stderr
