"""Make a finished run the one that this repository shows: `./reproduce publish PROFILE`, for maintainers.

Copies the run's figures (palette-optimised), tables and notebooks to figures/published/<profile>, writes their index,
puts its numbers into the README where it has a place, and, of the default run, its outputs into notebooks/.
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from lib import PUBLISHED, ROOT, StudyError
from lib.artifacts import PROVENANCE
from lib.index import figures, write_index
from lib.profile import load_profile
from lib.readme import render_notebooks, write_readme
from lib.report import with_palette

LARGEST = 300_000  # bytes of a figure
DEFAULT = "quick"


def shrink(source: Path, target: Path) -> None:
    """Write a PNG with a palette of 256 colours, at fewer pixels where it would be larger than `LARGEST`."""
    picture, width = Image.open(source), None
    while width is None or target.stat().st_size > LARGEST:
        width = picture.width if width is None else int(0.9 * width)
        with_palette(picture, width).save(target, optimize=True)


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
    if notebooks:
        shutil.copytree(run / "notebooks", new / "notebooks", ignore=shutil.ignore_patterns("*.failed.ipynb"))
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    write_index(target)


def main(name: str) -> None:
    """Publish a profile's run, or the benchmarks (`bench`)."""
    if name == "bench":
        publish(ROOT / "figures" / "bench", PUBLISHED / "bench")
        return
    profile = load_profile(name)
    run = ROOT / "figures" / profile.profile
    if not (run / "report.html").is_file():
        raise StudyError(f"There is no finished run of {name}: run ./reproduce --profile {name} first.")
    if profile.profile == DEFAULT:
        render_notebooks(profile)  # first, as it refuses a run of other notebooks
    publish(run, PUBLISHED / profile.profile, notebooks=profile.phantom is None)
    write_readme(profile)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    except StudyError as error:
        sys.exit(f"publish: {error}")
