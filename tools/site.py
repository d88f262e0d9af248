"""The study as web pages: what was found in front, then figures, tables and the rendered notebooks."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pandas as pd

from lib import PUBLISHED, ROOT, StudyError, artifacts
from lib.data import DATASETS
from lib.evaluation import planned
from lib.evaluation.claims import printed
from lib.profile import load_profile
from lib.report import index, real, sentences
from lib.report.page import MAIN_FIGURES
from lib.report.tables import markdown, written
from tools import links, readme

PAGES = ROOT / "site"
# What pages link to, beside the notebooks and the results.
FILES = ("README.md", "LICENSE", "CITATION.cff", "Snakefile", "environment.yml", "reproduce", "data/README.md")
FOLDERS = ("docs", "lib", "profiles", "tests")
BENCH = PUBLISHED / "bench"
MORE = "What speaks for it and against it: [the study in short](README.md), [what else was found](docs/findings.md)."


def results() -> list[Path]:
    """The published folders that hold a run's claims, those of original data before phantoms."""
    folders = [path.parent.parent for path in PUBLISHED.glob("*/tables/claims.csv")]
    return sorted(folders, key=lambda folder: ("phantom" in label(folder), folder.name))


def label(folder: Path) -> str:
    """What data the results in a folder are of, such as `phantom data`."""
    return artifacts.read_provenance(folder / "tables" / "claims").get("data", "data unknown")


def assemble(source: Path) -> None:
    """Put the source of the pages into `source`: a mirror of the repository, so that its links stay as they are."""
    caches = shutil.ignore_patterns("__pycache__", "static", "conf.py", "index.md")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=caches)
    one_run = ("notebooks", "report.html", *(f"*_{dataset}*" for dataset in DATASETS))
    for folder in (*results(), BENCH):
        shutil.copytree(folder, source / folder.relative_to(ROOT), ignore=shutil.ignore_patterns(".*", *one_run))
    (source / "data").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, source / file)
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").replace("](../", "](")
    front = front.replace("<!-- claims -->", claims())
    entries = [f"{folder.name}: {label(folder)} <figures/published/{folder.name}/index>" for folder in results()]
    entries.append("Benchmarks <figures/published/bench/index>")
    (source / "index.md").write_text(front.replace("<!-- results -->", "\n".join(entries)), encoding="utf-8")
    for folder in (source / PUBLISHED.relative_to(ROOT)).iterdir():
        complete(folder)
    shown, real_ones = set(), [p for name in readme.TASKS for p in (PUBLISHED / name / "notebooks").glob("*.ipynb")]
    for path in sorted([*real_ones, *(ROOT / "notebooks").glob("[0-9]*.ipynb")]):
        notebook = described(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source, code = links.to_pages(cell.source)
                shown |= code
        place = source / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place)
    for page in source.rglob("*.md"):
        page.write_text(without_folder_links(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
    for module in shown:
        code = f"```{{literalinclude}} {Path(module).name}\n:language: python\n```"
        page = f"---\norphan: true\n---\n\n# {module}\n\n{code}\n"
        (source / module).with_suffix(".md").write_text(page, encoding="utf-8")


def claims() -> str:
    """What every run found, as Markdown: the question with its answer on real images, then each run with its figures,
    and folded away its ledger with the rules."""
    lead = PUBLISHED / real.REAL
    answer = readme.parts()["answer"].split("\n\n")[0]
    parts = ["## Does attention make it more robust? On real images", answer, _compared(lead), MORE]
    for folder in sorted(results(), key=lambda folder: folder != lead):
        tables, said, drawn = written(folder / "tables"), label(folder), index.figures(folder)
        table, place = tables["claims"], folder.relative_to(ROOT).as_posix()
        stamp = artifacts.read_provenance(folder / "robust_accuracy").get("label", said)
        parts += [] if folder == lead else [f"## {said.capitalize()}: {folder.name}"]
        parts.append(f"*{folder.name}: {stamp}*")
        if "effects" in tables and folder != lead:
            answers = sentences.answers(tables, load_profile(folder.name))
            parts += [f"**{row['data']}**: {row['robust accuracy']}. {row['answer']}" for _, row in answers.iterrows()]
        for name in (name for name in MAIN_FIGURES if name in drawn):
            about = index.FIGURES[name]
            parts += [f"![{about.shows}]({place}/{name}.png)", f"*{about.title}. {about.shows} ({said})*"]
        parts += [
            "<details><summary>The claims, their verdicts, and the rule of each</summary>\n",
            markdown(printed(table)),
            "\n".join(f"- **{row['claim']}**: {row['rule']}" for _, row in table.drop_duplicates("claim").iterrows()),
            "</details>",
            f"[All figures and tables of this run]({place}/index.md)",
        ]
    return "\n\n".join(parts)


def _compared(folder: Path) -> str:
    """The planned comparisons of a run, or those of all tasks where they are published, as a small table."""
    table = planned.printed((tables := written(folder / "tables")).get("tasks", tables["effects"]))
    table = table.replace({"data set": readme.IMAGES})
    return markdown(table[["data set", "comparison", "runs", "difference, points (95 % CI)", "conclusion"]])


def complete(folder: Path) -> None:
    """Give a folder of results in the pages' source its index, and each of its tables a page."""
    if not (folder / "index.md").is_file():
        artifacts.write_text(folder / "index.md", index.index(PUBLISHED / folder.name))
    paths = index.tables(folder)
    for path in paths:
        page = path.with_suffix(".md")
        if page.is_file():
            title, table = page.read_text(encoding="utf-8").split("\n\n", 1)
        else:
            if not (file := path.with_suffix(".csv")).is_file():
                continue  # too large for a page
            title, table = index.TABLES[path.name].title, pd.read_csv(file).to_markdown(index=False)
        links = ", ".join(
            f"[{file.name}]({file.name})" for suffix in (".csv", ".tex") if (file := path.with_suffix(suffix)).is_file()
        )
        page.write_text(f"# {title.strip('*')}\n\n{links}\n\n{table}", encoding="utf-8")
    pages = [
        f"{index.TABLES[path.name].title} <{path.relative_to(folder).as_posix()}>"
        for path in paths
        if path.with_suffix(".md").is_file()
    ]
    with open(folder / "index.md", "a", encoding="utf-8") as file:
        file.write("\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n")


def without_folder_links(text: str, here: Path) -> str:
    """Markdown in which links to folders, which a web server need not list, are plain text, and to notebooks that the
    pages do not hold, those of published runs."""

    def plain(match):
        target = here / match[2]
        beyond = target.suffix == ".ipynb" and not target.exists()
        return match[1] if target.is_dir() or beyond else match[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)\)", plain, text)


def described(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with words for its pictures, for those who do not see them.

    The words are the figure's caption, which is the paragraph in italics that follows, or else what the index says
    of it, or the heading above.
    """
    heading = ""
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], nbformat.v4.new_markdown_cell()], strict=True):
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.*)", cell.source, re.MULTILINE) or [heading])[-1]
            continue
        if not any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            continue
        saved = re.search(r'figures\.save\([^"]*"(\w+)"', cell.source)
        if following.source.startswith("*"):
            words = following.source.split("\n\n")[0]
        elif saved and saved[1] in index.FIGURES:
            words = index.FIGURES[saved[1]].shows
        else:
            words = f"Figure: {heading}"
        words = re.sub(r"[*`$\\]", "", " ".join(words.split()))
        cell.metadata["mystnb"] = {"image": {"alt": words}}
    return notebook


def build(pages: Path = PAGES) -> None:
    """Build the pages into an empty or new folder; raises StudyError where Sphinx fails or warns."""
    with tempfile.TemporaryDirectory() as work:
        source, made = Path(work, "source"), Path(work, "site")
        source.mkdir()
        assemble(source)
        options = ["-q", "-W", "--keep-going", "-c", ROOT / "docs", "-d", Path(work, "doctrees")]
        if subprocess.run([sys.executable, "-m", "sphinx", *options, source, made]).returncode:
            raise StudyError("the pages were not built; see the lines above.")
        shutil.rmtree(pages, ignore_errors=True)
        shutil.copytree(made, pages)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGES)
        print("Pages: site/index.html")
    except StudyError as error:
        sys.exit(f"site: {error}")
