"""Make a finished run the one that this repository shows: `./reproduce publish PROFILE`, for maintainers.

Copies the run's figures (palette-optimised), tables and notebooks to figures/published/<profile>, writes their index,
puts the published numbers into the README, and, of the default run, its outputs into notebooks/ (Figure 1 has a real
x-ray where ChestX-ray14 lay under data/raw when 01 ran). Of a run on original data it packs the results of every
network; with `--networks` that is all it does, so that finished ones are safe while others are still trained. With
`--brief`, for a run beside another, it takes the answer's figures and the tables alone; what was seen image by image
is in the packed results. Of data that may not be passed on it takes no picture.
"""

import argparse
import base64
import io
import shutil
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path

import nbformat
from PIL import Image

from lib import PUBLISHED, ROOT, StudyError
from lib.artifacts import PROVENANCE
from lib.data import DATASETS
from lib.profile import Profile, load_profile
from lib.report.index import figures, write_index
from lib.report.page import MAIN_FIGURES, with_palette
from lib.study import Study, results
from tools import links
from tools.readme import render_notebooks, write_pages

LARGEST, WIDEST = 300_000, 1100  # bytes of a figure, pixels of a picture in a notebook
BARE = dict.fromkeys(("chestxray14", "eyepacs"), ("uniform-matched", "adversarial"))
BARE |= {"ham10000-strong": ("baseline",), "ham10000-scaled": ("scaled",)}
DEFAULT = "quick"
PICTURES = ("adversarial_examples", "gradcam")  # figures that show images; in notebooks, cells with the tag `pictures`
CLOSED = "Pictures of these data may not be passed on: run the notebook on your own copy to see them."


def shrink(source: Path, target: Path) -> None:
    """Write a PNG with a palette of 128 colours, at fewer pixels where it would be larger than `LARGEST`."""
    picture, width = Image.open(source), None
    while width is None or target.stat().st_size > LARGEST:
        width = picture.width if width is None else int(0.9 * width)
        with_palette(picture, width).save(target, optimize=True)


def slim(notebook: Path, target: Path, home: Path, closed: bool = False) -> None:
    """Write a rendered notebook into the folder `target` with its figures in palettes, no wider than a page, and its
    links as the folder `home` needs them; of `closed` data, no images."""
    content = nbformat.read(notebook, as_version=4)
    links.move(content, notebook.parent, home)
    for cell in (cell for cell in content.cells if closed and "pictures" in cell.metadata.get("tags", [])):
        words = [output for output in cell.outputs if "image/png" not in output.get("data", {})]
        cell.outputs = [*words, nbformat.v4.new_output("stream", text=CLOSED)]
    outputs = [output for cell in content.cells for output in cell.get("outputs", []) if "data" in output]
    for output in outputs:
        if "image/png" in output["data"]:
            picture, held = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))), io.BytesIO()
            with_palette(picture, min(picture.width, WIDEST)).save(held, "PNG", optimize=True)
            output["data"]["image/png"] = base64.b64encode(held.getvalue()).decode()
    nbformat.write(content, target / notebook.name)


def publish(run: Path, target: Path, notebooks: bool = False, brief: bool = False, closed: bool = False) -> None:
    """Replace `target` by the figures and tables of a run's folder, and its notebooks if asked; or by less, if `brief`.

    `closed`: of data that may not be passed on. Raises StudyError where the folder holds no finished run.
    """
    tables = run / "tables" if (run / "tables").is_dir() else run
    if not any(tables.glob("*.csv")):
        raise StudyError(f"{run} holds no tables; finish the run first.")
    new = target.with_name(f".{target.name}")
    shutil.rmtree(new, ignore_errors=True)
    (new / tables.relative_to(run)).mkdir(parents=True)
    left = PICTURES if closed else ()
    for name in (name for name in figures(run) if name in MAIN_FIGURES or not (brief or name in left)):
        shrink(run / f"{name}.png", new / f"{name}.png")
        shutil.copy(run / f"{name}{PROVENANCE}", new)
    for pattern in ("*.csv", "*.json", *([] if brief else ["*.csv.gz"])):
        for file in tables.glob(pattern):
            shutil.copy(file, new / file.relative_to(run))
    if notebooks:  # of the other training runs only that of training: the rest shows the same with other numbers
        (new / "notebooks").mkdir()
        for file in sorted((run / "notebooks").glob("[0-9]*.ipynb")):
            if file.stem.endswith(("results", "_seed0")) or file.stem.startswith("02_"):
                slim(file, new / "notebooks", target / "notebooks", closed)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    write_index(target)


def networks(profile: Profile, data: str) -> None:
    """Pack the finished networks of a run on original data into `data/networks`.

    The weights go with training run 0 of each variant, but for `BARE`: 15 MB more for this repository.
    """
    for seed, name in product(profile.seeds, profile.datasets):
        study = Study(profile.profile, name, seed, data)
        for variant in study.variants:
            with suppress(StudyError):  # not finished yet
                path = results.PUBLISHED / profile.profile / f"{name}-seed{seed}-{variant}.zip"
                results.pack(study, variant, path, weights=seed == 0 and variant not in BARE.get(profile.profile, ()))


def main(name: str, data: str, only_networks: bool, brief: bool) -> None:
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
    if profile.phantom is None:
        networks(profile, data)
    if only_networks:
        return
    run = ROOT / "figures" / profile.profile
    if not (run / "report.html").is_file():
        raise StudyError(f"There is no finished run of {name}: run ./reproduce --profile {name} first.")
    if profile.profile == DEFAULT:
        render_notebooks(profile)  # first, as it refuses a run of other notebooks
        for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
            slim(notebook, notebook.parent, notebook.parent)
    closed = not profile.phantom and any("no redistribution" in DATASETS[name].licence for name in profile.datasets)
    publish(run, PUBLISHED / profile.profile, profile.phantom is None and not brief, brief, closed)
    write_pages()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="reproduce publish")
    parser.add_argument("profile", nargs="?", default=DEFAULT)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--data", default="data/raw")
    options = parser.parse_args()
    try:
        main(options.profile, options.data, options.networks, options.brief)
    except StudyError as error:
        sys.exit(f"publish: {error}")
