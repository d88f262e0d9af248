"""What each figure and table of a run shows, what made it, from which run, and the paper's counterpart."""

import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

from lib import PUBLISHED, ROOT, StudyError, artifacts
from lib.datasets import DATASETS

LOST = "section 4, which our copy lacks"


class Entry(NamedTuple):
    title: str
    shows: str
    paper: str


FIGURES = {
    "robust_accuracy": Entry(
        "Robust accuracy",
        "Robust accuracy against the budget, mean over training runs, with 95 % bands; the leftmost point is the "
        "clean image.",
        f"the results behind the claims C1 and C2, in {LOST}",
    ),
    "relative_change": Entry(
        "What attention changes",
        "Attention minus baseline in percentage points, paired 95 % intervals; the numbers are the relative change. "
        "Filled: budgets at which the baseline keeps 10 %; open: larger ones. Small dots: training runs, if several.",
        f'"up to +16 %" and "up to +2700 %" (C1 and C2), in {LOST}',
    ),
    "softmax_route": Entry(
        "Through logits and through softmax",
        "What an attack through the softmax misses: robust accuracy there minus that through the logits, in percentage "
        "points, with paired 95 % intervals.",
        "none; it asks whether part of C1 and C2 is an artefact",
    ),
    "training_curves": Entry(
        "Training",
        "Loss and accuracy by epoch; thin: training data, thick: validation data; a marker at the lowest "
        "validation loss, an arrow where a loss leaves the panel.",
        "none that we know; section 3.3 says when training stopped (C5)",
    ),
    "adversarial_examples": Entry(
        "Adversarial images",
        "Clean image, amplified perturbation and attacked image, what the network says, and whether it was fooled.",
        f"none that we know; if there is one, in {LOST}",
    ),
    "gradcam": Entry(
        "Grad-CAM",
        "Grad-CAM for the true class and the block's attention map, clean and attacked.",
        f"the figure behind the claim C6, in {LOST}",
    ),
    "gradcam_shift": Entry(
        "How far the maps move",
        "How much of a map stays under attack, 1 for all of it, with 95 % intervals.",
        "none; it puts numbers to the figure behind the claim C6",
    ),
    "why_attribution": Entry(
        "What the difference is due to",
        "Attention minus each other variant in points of robust accuracy, averaged over the typical budgets, with "
        "paired 95 % intervals.",
        "none; it asks whether C1 is owed to attention",
    ),
    "why_ratios": Entry(
        "Margin, slope and curvature",
        "Attention over each other variant, image by image, with 95 % intervals: margin, slope, and the distance to "
        "the nearest mistake that they give to first order; curvature.",
        "none; why attention should help is not said in the text that we have",
    ),
    "fig1_xray_pipeline": Entry(
        "The contrast pipeline",
        "The contrast pipeline of the chest x-rays, stage by stage, each with its histogram of gray levels.",
        "Figure 1",
    ),
    "attacks": Entry(
        "Times of the attacks",
        "How many times as fast as other libraries' attacks ours are, on the same model and images.",
        "none",
    ),
}

TABLES = {
    "claims": Entry(
        "Claims",
        "Each claim with the paper's number, ours with a 95 % interval, and the verdict that a stated rule gives.",
        "the claims of its text",
    ),
    "clean_accuracy": Entry(
        "Clean accuracy",
        "Accuracy, balanced accuracy and AUC on the whole test split, parameters, and where training stopped.",
        f"the results behind the claim C3, in {LOST}; C4 and C5",
    ),
    "robust_accuracy": Entry(
        "Robust accuracy",
        "Robust accuracy of every run under every attack at every budget, with n and Wilson's 95 % interval.",
        f"the results behind the claims C1 and C2, in {LOST}",
    ),
    "robust_accuracy_over_seeds": Entry(
        "Robust accuracy over training runs",
        "Mean over the training runs of a variant, with 95 % intervals over images and, with several runs, seeds.",
        f"the results behind the claims C1 and C2, in {LOST}",
    ),
    "comparison": Entry(
        "Attention against baseline",
        "Difference and relative change under the headline attack, paired by image, with 95 % intervals.",
        '"up to +16 %" and "up to +2700 %" (C1 and C2)',
    ),
    "distances": Entry(
        "Distances",
        "Median distance to the nearest adversarial image that any attack found, with its 95 % interval.",
        "none",
    ),
    "softmax_gap": Entry(
        "Softmax gap",
        "What the same attack misses when it goes through the softmax, paired by image, with 95 % intervals.",
        "none",
    ),
    "directions": Entry(
        "Directions",
        "Share of the images of one class that an attack makes the network call another, with 95 % intervals.",
        "none",
    ),
    "trust": Entry(
        "Trust", "Checks of the evaluation itself, each with its figure, its limit and a sentence.", "none"
    ),
    "gradcam_shift": Entry(
        "Map shift",
        "Agreement of the maps of clean and attacked images by three measures, with 95 % intervals.",
        "the figure behind the claim C6",
    ),
    "datasets": Entry(
        "Images", "Images per split and class.", "section 3.1 names the data sets, and gives no split"
    ),
    "outcomes": Entry(
        "Outcomes",
        "Per image, attack and budget whether the network stood: what the robust accuracies are computed from.",
        "none",
    ),
    "predictions": Entry(
        "Predictions",
        "Per image of the clean test split the answer and its confidence: what the clean accuracies are computed from.",
        "none",
    ),
    "shifts": Entry(
        "Map shifts",
        "Per image how far each map moves under attack: what the agreement of maps and C6 are computed from.",
        "none",
    ),
    "images": Entry(
        "Images",
        "Which images there were, of which patient or lesion, and whether in training, validation or test.",
        "none; the paper gives no split",
    ),
    "why_density": Entry(
        "Energy in the lesion",
        "Energy of perturbations and input gradients in a region, relative to an even spread, with 95 % intervals.",
        "none; Ma et al. 2021 ask it",
    ),
    "why_density_ratios": Entry(
        "Energy in the lesion, compared",
        "The same, attention over each other variant, image by image.",
        "none",
    ),
    "why_maps": Entry(
        "Maps and masks",
        "Pointing game and overlap of Grad-CAM and attention maps with the lesion, clean and attacked.",
        "none; the figure behind C6 shows maps",
    ),
    "why_first_to_move": Entry(
        "What moves first", "Whether the map moves before the prediction falls.", "none"
    ),
    "why_surface": Entry("Loss surface", "Margin, slope and curvature of the loss, per variant.", "none"),
    "why_ratios": Entry(
        "Loss surface, compared",
        "Margin, slope and curvature, attention over each other variant, image by image.",
        "none",
    ),
    "why_matched": Entry(
        "At equal confidence",
        "Robust accuracy minus the baseline's, as it is and at equal clean confidence.",
        "none",
    ),
    "why_frequency": Entry(
        "Filtered perturbations",
        "Accuracy under low- and high-pass filtered perturbations.",
        "none; Shao et al. ask it of transformers",
    ),
    "why_spectra": Entry("Spectra", "Energy of perturbations by spatial frequency.", "none"),
    "why_sanity": Entry(
        "Are the maps sound?",
        "Rank correlation with the maps of randomised models, and of Grad-CAM++ and Score-CAM.",
        "none; Adebayo et al. 2018 ask it",
    ),
    "why_attribution": Entry(
        "What the difference is due to",
        "Attention minus each other variant in points of robust accuracy, with a sentence of conclusion.",
        "none; it asks whether C1 is owed to attention",
    ),
    "why_findings": Entry(
        "What attention changes",
        "Three sentences: on robustness, its mechanism and the place that is hit.",
        "a question that the text we have leaves open",
    ),
    "timings": Entry("Timings", "Seconds that each stage of the run took.", "none"),
    "attacks": Entry("Times of the attacks", "Seconds of our attacks and of other libraries'.", "none"),
    "training": Entry(
        "Times of training",
        "Seconds of an epoch beside a bare model.fit, and of one in bfloat16 beside float32.",
        "none",
    ),
    "throughput": Entry(
        "Rates",
        "Images per second that networks train, are attacked and predict at; the cost of a profile.",
        "none",
    ),
    "machines": Entry(
        "Other processors",
        "The claims of the default run as three kinds of processor would compute them, with their verdicts.",
        "none",
    ),
    "data": Entry(
        "Times of reading", "Seconds to read and resize images, ours and other libraries'.", "none"
    ),
}


def figures(folder: Path) -> list[str]:
    """The figures in a folder of results by name, in the order of `FIGURES`, unknown ones last.

    Those of one data set, which every run makes again and git ignores, are left out.
    """
    names = (path.stem for path in folder.glob("*.png"))
    return _ordered(
        (name for name in names if not any(f"_{dataset}" in name for dataset in DATASETS)), FIGURES
    )


def tables(folder: Path) -> list[Path]:
    """The tables of a folder of results, without their extension, in the order of `TABLES`, unknown ones last.

    They lie in its `tables`, or in the folder itself where there is none.
    """
    place = folder / "tables" if (folder / "tables").is_dir() else folder
    names = {path.name.split(".")[0] for path in place.glob("*.csv*")}
    return [place / name for name in _ordered(names, TABLES)]


def _ordered(names, known):
    order = {name: place for place, name in enumerate(known)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def entry(known: dict[str, Entry], name: str) -> Entry:
    """What `FIGURES` or `TABLES` says of a name; raises StudyError where it says nothing."""
    if name not in known:
        raise StudyError(
            f"lib/index.py says nothing of {name!r}; add what it shows and the paper's counterpart."
        )
    return known[name]


@cache
def _code_cells():
    cells = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells += [
            (path, cell) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
        ]
    return cells


def made_by(name: str, kind: str) -> tuple[Path, str]:
    """The file that makes a figure or table of this name, and the place in it, such as cell [7] (05-08).

    A notebook makes what one of its cells saves under the name, for all data sets together: as
    `figures.save(figure, out / "name", ...)`, or `results["name"] = ...`, or in the dictionary `results`.
    """
    patterns = {
        "figure": rf'figures\.save\(\s*\w+,\s*(out|study\.figures) / "{name}"',
        "table": rf'results\["{name}"\] =|^ +"{name}": \(|"{name}\.csv\.gz"',
    }
    for path, cell in _code_cells():
        if re.search(patterns[kind], cell.source, re.MULTILINE):
            return path, f"cell \\[{cell.execution_count}\\] (`{cell.id}`)"
    if name.startswith("why_"):
        return ROOT / "lib" / "why" / "conclusions.py", "from the measures of 06_why, saved by 05_results"
    if name == "timings":
        return ROOT / "lib" / "report.py", "from the times that Snakemake measured"
    if (bench := ROOT / "tests" / "benchmarks" / f"{name}.py").is_file():
        return bench, "by `./reproduce bench`"
    raise StudyError(f"No notebook makes the {kind} {name!r}.")


def _made(folder, name, kind):
    path, place = made_by(name, kind)
    up = "../" * len(folder.relative_to(ROOT).parts)
    return f"[{path.name}]({up}{path.relative_to(ROOT).as_posix()}), {place}"


PER_IMAGE = {
    "outcomes": "robust_accuracy",
    "predictions": "clean_accuracy",
    "shifts": "gradcam_shift",
    "images": "datasets",
}
"""Tables of images, and the table computed from each, which has the record of the run."""


def _run(path, folder):
    """One line on the run that an artifact is from, and the link to the whole record."""
    path = path.with_name(PER_IMAGE.get(path.name, path.name))
    record = artifacts.read_provenance(path)
    if not record:
        return (
            f"[machine and versions]({path.name}.json)"
            if path.with_suffix(".json").is_file()
            else "no record"
        )
    seeds = record.get("seed", [])
    seeds = ", ".join(map(str, seeds if isinstance(seeds, list) else [seeds]))
    link = path.relative_to(folder).as_posix() + artifacts.PROVENANCE
    words = [f"commit `{record['commit'][:7]}`", record["date"][:10], f"seed {seeds}" if seeds else ""]
    return ", ".join(filter(None, words)) + f" ([record]({link}))"


def index(folder: Path) -> str:
    """The index of a folder of results (`figures/<profile>`) as Markdown, with links relative to that folder.

    Raises StudyError for a figure or table of which nothing is known.
    """
    stamps = [artifacts.read_provenance(folder / name).get("label", "") for name in figures(folder)]
    parts = [
        f"# Figures and tables: {folder.name}",
        f"**{stamps[0].rstrip('.')}.**" if stamps else "",
        "What each figure and table shows, what made it, from which run, and the paper's counterpart (our copy of the "
        "paper lacks section 3.4, section 4 and all figures but the first). Written by `python -m lib.index`.",
        "## Figures",
    ]
    for name in figures(folder):
        about = entry(FIGURES, name)
        parts += [
            f"### {about.title}",
            f"![{about.shows}]({name}.png)",
            f"*{about.shows}*",
            f"- Made by: {_made(folder, name, 'figure')}\n- Run: {_run(folder / name, folder)}\n"
            f"- In the paper: {about.paper}\n- Files: "
            + ", ".join(f"[{file.suffix[1:].upper()}]({file.name})" for file in _files(folder, name)),
        ]
    rows = ["| table | what it shows | made by | run | in the paper | files |", "|:--|:--|:--|:--|:--|:--|"]
    for path in tables(folder):
        about = entry(TABLES, path.name)
        files = [path.with_suffix(suffix) for suffix in (".md", ".csv", ".csv.gz", ".tex", ".json")]
        links = [
            f"[{file.name[len(path.name) + 1 :]}]({file.relative_to(folder).as_posix()})"
            for file in files
            if file.is_file()
        ]
        cells = [about.title, about.shows, _made(folder, path.name, "table"), _run(path, folder), about.paper]
        rows.append(f"| {' | '.join([*cells, ', '.join(links)])} |")
    return "\n\n".join([*filter(None, parts), "## Tables", "\n".join(rows)]) + "\n"


def _files(folder, name):
    return [file for suffix in (".png", ".pdf") if (file := folder / f"{name}{suffix}").is_file()]


def write_index(folder: Path) -> None:
    """Write `index.md` into a folder of results."""
    artifacts.write_text(folder / "index.md", index(folder))


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            write_index(PUBLISHED / name)
    except StudyError as error:
        sys.exit(f"index: {error}")
