"""Make a finished run the one that this repository shows: `./reproduce publish PROFILE`, for maintainers.

Copies the run's figures (palette-optimised), tables and notebooks to figures/published/<profile>, writes their index,
puts the published numbers into the README, and, of the default run, its outputs into notebooks/.
"""

import base64
import io
import shutil
import sys
from pathlib import Path

import nbformat
from PIL import Image

from lib import PUBLISHED, ROOT, StudyError
from lib.artifacts import PROVENANCE
from lib.profile import load_profile
from lib.report.index import figures, write_index
from lib.report.page import with_palette
from tools.readme import render_notebooks, write_readme

LARGEST = 300_000  # bytes of a figure
WIDEST = 1100  # pixels of a picture in a notebook
DEFAULT = "quick"


def shrink(source: Path, target: Path) -> None:
    """Write a PNG with a palette of 256 colours, at fewer pixels where it would be larger than `LARGEST`."""
    picture, width = Image.open(source), None
    while width is None or target.stat().st_size > LARGEST:
        width = picture.width if width is None else int(0.9 * width)
        with_palette(picture, width).save(target, optimize=True)


def slim(notebook: Path) -> None:
    """Let a rendered notebook hold its pictures with palettes, and no wider than a page shows them."""
    content = nbformat.read(notebook, as_version=4)
    outputs = [output for cell in content.cells for output in cell.get("outputs", []) if "data" in output]
    for output in outputs:
        if "image/png" in output["data"]:
            picture, held = (
                Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))),
                io.BytesIO(),
            )
            with_palette(picture, min(picture.width, WIDEST)).save(held, "PNG", optimize=True)
            output["data"]["image/png"] = base64.b64encode(held.getvalue()).decode()
    nbformat.write(content, notebook)


def publish(run: Path, target: Path, notebooks: bool = False) -> None:
    """Replace `target` by the figures and tables of a run's folder, and its notebooks if asked.

    Raises StudyError where the folder holds no finished run.
    """
    tables = run / "tables" if (run / "tables").is_dir() else run
    if not any(tables.glob("*.csv")):
        raise StudyError(f"{run} holds no tables; finish the run first.")
    new = target.with_name(f".{target.name}")
    shutil.rmtree(new, ignore_errors=True)
    (new / tables.relative_to(run)).mkdir(parents=True)
    for name in figures(run):
        shrink(run / f"{name}.png", new / f"{name}.png")
        shutil.copy(run / f"{name}{PROVENANCE}", new)
    for pattern in ("*.csv", "*.csv.gz", "*.json"):
        for file in tables.glob(pattern):
            shutil.copy(file, new / file.relative_to(run))
    if notebooks:  # of the other training runs only that of training: the rest shows the same with other numbers
        (new / "notebooks").mkdir()
        for file in sorted((run / "notebooks").glob("[0-9]*.ipynb")):
            if file.stem.endswith(("results", "_seed0")) or file.stem.startswith("02_"):
                slim(Path(shutil.copy(file, new / "notebooks")))
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    write_index(target)


def main(name: str) -> None:
    """Publish a profile's run, or the benchmarks (`bench`)."""
    if name == "bench":
        run, published = ROOT / "figures" / "bench", PUBLISHED / "bench"
        run.mkdir(parents=True, exist_ok=True)
        for file in published.glob("*"):  # a part may be measured by itself: the others stay as they are
            if not (run / file.name).exists():
                shutil.copy(file, run)
        publish(run, published)
        return
    profile = load_profile(name)
    run = ROOT / "figures" / profile.profile
    if not (run / "report.html").is_file():
        raise StudyError(f"There is no finished run of {name}: run ./reproduce --profile {name} first.")
    if profile.profile == DEFAULT:
        render_notebooks(profile)  # first, as it refuses a run of other notebooks
        for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
            slim(notebook)
    publish(run, PUBLISHED / profile.profile, notebooks=profile.phantom is None)
    write_readme()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    except StudyError as error:
        sys.exit(f"publish: {error}")
