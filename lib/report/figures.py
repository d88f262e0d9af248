"""Figures from data frames and arrays, in one style: readable in a printed column and without colour vision."""

import textwrap
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lib.artifacts import replacing, write_provenance

# Okabe and Ito 2008 (the last, instead of their yellow, Tol's wine): distinct for colour-blind readers; line style and
# marker tell the same again.
COLOURS = {
    "baseline": "#0072B2",
    "attention": "#D55E00",
    "attention-reference": "#009E73",
    "attention-no-dropout": "#E69F00",
    "pooling": "#CC79A7",
    "frozen": "#56B4E9",
    "se": "#000000",
    "cbam": "#882255",
    "uniform": "#3b2fd0",
    "uniform-matched": "#300078",
    "uniform-strong": "#7a5cff",
    "scaled": "#183000",
    "attention-gamma1": "#8c2d04",
    "attention-gamma3": "#20264f",
    "adversarial": "#c3875a",
}
MARKERS = dict(zip(COLOURS, "os^vDPX*hH8d<>p", strict=True))
DASHES = dict(zip(COLOURS, ["-", "--", ":", "--", "-.", ":"] * 2 + [":", "-.", "-"], strict=True))
SPLIT_COLOURS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#009E73"}
HEAT = "inferno"
TOP = 8  # times an even map: where the scale of attention maps ends, as some are flat and some have a peak
WIDTH = 7.2  # inches, two columns of a journal page


def use_style() -> None:
    """Set the style of the study's figures for this process."""
    sns.set_theme(style="ticks", context="paper")
    plt.rcParams |= {
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.labelsize": 8,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.92",
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "image.interpolation": "nearest",  # pixels as they are, and small files
        "savefig.dpi": 300,
        "savefig.pad_inches": 0.02,  # a wider page would be made smaller in print, and its words with it
        "pdf.fonttype": 42,
        "axes.titlelocation": "left",
    }


def save(figure: Figure, path: Path, label: str, **provenance) -> Figure:
    """Write `<path>.png` (300 dpi) and `.pdf`, with `label` (what data and model it shows) on the figure."""
    letters = int(18 * figure.get_figwidth())  # of 7 points: a longer line would widen the page
    stamp = "\n".join(textwrap.fill(line, letters) for line in label.splitlines())
    figure.text(0.0, -0.01, stamp, ha="left", va="top", fontsize=7, color="0.35")
    with replacing(path.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, format="pdf", bbox_inches="tight", metadata={"CreationDate": None})
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    write_provenance(path, label=label, **provenance)
    return figure


def class_counts(counts: pd.DataFrame) -> Figure:
    """Images per class and split; `counts` as from `lib.report.tables.class_counts`."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.6, 2.3))
    table = counts.pivot_table(index="label", columns="split", values="n", sort=False, observed=True)
    left = np.zeros(len(table))
    for split in table:
        axes.barh(table.index, table[split], left=left, color=SPLIT_COLOURS[split], label=split, height=0.7)
        left += table[split].to_numpy()
    for y, n in enumerate(left):
        axes.text(n, y, f" {n:.0f}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="images", ylabel="class")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def samples(images: np.ndarray, titles: list[str], columns: int) -> Figure:
    """A contact sheet, row by row; `images` uint8 (n, h, w, 3), a title for the first image of each row."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, WIDTH / columns * rows + 0.1), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            ax.imshow(images[i])
        if i % columns == 0 and i < len(images):
            ax.text(-0.06, 0.5, titles[i // columns], rotation=90, va="center", ha="right", transform=ax.transAxes)
    return figure


def side_by_side(pictures: dict[str, np.ndarray]) -> Figure:
    """Gray pictures (h, w), uint8, in a row, each under its title."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(WIDTH, WIDTH / len(pictures) + 0.3), squeeze=False)
    for ax, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, loc="center")
        ax.axis("off")
    return figure


def xray_pipeline(examples: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Figure 1 of the paper: the contrast pipeline, a row of stages and a row of histograms per example.

    `examples`: title -> the dictionary of `lib.data.preprocessing.xray_stages`, gray images (h, w).
    """
    stages = {
        "input": "input $x_0$",
        "min-max": "min-max, $x$",
        "blur": r"blur, $\sigma = 2\,\%$ of the width",
        "result": r"$4x - 4\,\mathrm{blur}(x) + 128$",
    }
    figure, axes = plt.subplots(
        2 * len(examples),
        4,
        figsize=(WIDTH, 2.5 * len(examples)),
        height_ratios=[2.6, 1] * len(examples),
        squeeze=False,
    )
    for row, (title, images) in enumerate(examples.items()):
        for column, (stage, name) in enumerate(stages.items()):
            image, histogram = axes[2 * row, column], axes[2 * row + 1, column]
            top = 65535 if images[stage].dtype == np.uint16 else 255
            image.imshow(images[stage], cmap="gray", vmin=0, vmax=top)
            image.axis("off")
            if row == 0:
                image.set_title(name, loc="center")
            pixels = images[stage].ravel()
            share = np.full(pixels.size, 1 / pixels.size)
            histogram.hist(pixels, bins=64, range=(0, top), color="0.35", weights=share, histtype="stepfilled")
            # Where many pixels saturate, nothing else would be seen on an axis without logarithm.
            histogram.set(yscale="log", ylim=(1e-4, 1.5), xlim=(-0.02 * top, 1.02 * top), xticks=[0, top // 2 + 1, top])
            histogram.set_yticks([1e-4, 1e-2, 1], ["0.01%", "1%", "100%"] if column == 0 else [])
            histogram.yaxis.set_minor_locator(NullLocator())
            if row == len(examples) - 1:
                histogram.set_xlabel("gray level")
        axes[2 * row, 0].text(
            -0.04, 0.5, title, rotation=90, va="center", ha="right", transform=axes[2 * row, 0].transAxes
        )
        axes[2 * row + 1, 0].set_ylabel("pixels")
    return figure


def confusion(predictions: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    """Confusion matrices, a variant each, as many in a row as fit: share of the true class in colour, counts in it."""
    variants = list(dict.fromkeys(predictions["variant"]))
    size = max(2.2, 0.26 * len(classes) + 0.48)
    columns = min(len(variants), max(2, int(WIDTH / size)))
    shape = -(-len(variants) // columns), columns
    figure, axes = plt.subplots(*shape, figsize=(min(WIDTH, size * columns + 0.5), size * shape[0]), squeeze=False)
    for ax in axes.flat[len(variants) :]:
        ax.set_axis_off()
    for number, (ax, variant) in enumerate(zip(axes.flat, variants, strict=False)):
        left, lowest = number % columns == 0, number + columns >= len(variants)
        group = predictions[predictions["variant"] == variant]
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (group["label"], group["predicted"]), 1)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        sns.heatmap(share, annot=counts, fmt="d", annot_kws={"fontsize": 7}, vmin=0, vmax=1, cmap="cividis",
                    xticklabels=classes if lowest else False, yticklabels=classes if left else False,
                    square=True, cbar=False, ax=ax)  # fmt: skip
        ax.set(title=variant, xlabel="predicted" if lowest else "", ylabel="true" if left else "")
        ax.tick_params(axis="x", rotation=45)
        ax.tick_params(axis="y", rotation=0)
    colours = axes[0, 0].collections[0]
    figure.colorbar(colours, ax=axes, label="share of the true class", aspect=25 * shape[0], fraction=0.04)
    return figure


def adversarial_examples(rows: list[dict], title: str) -> Figure:
    """Strips of clean image, amplified perturbation and adversarial image, per variant; `title` names the attack.

    Each row: `title`, `clean` (h, w, 3), `clean_says` per variant, and per variant in `attacked`: `image` (h, w, 3),
    `says` and `outcome` (fooled or not). Every perturbation is amplified to fill the gray levels; the factor is named.
    """
    variants = list(rows[0]["attacked"])
    columns = 1 + 2 * len(variants)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH, (WIDTH / columns + 0.85) * len(rows) + 0.2), squeeze=False
    )
    figure.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    for line, row in zip(axes, rows, strict=True):
        clean = row["clean"].astype("float32")
        line[0].imshow(clean.astype("uint8"))
        line[0].set_title(f"true class:\n{row['title']}", fontsize=7, fontweight="bold")
        said = [f"clean, {variant}:\n{row['clean_says'][variant]}" for variant in variants]
        line[0].set_xlabel("\n".join(said), fontsize=7)
        for i, variant in enumerate(variants):
            attacked = row["attacked"][variant]
            delta = attacked["image"] - clean
            factor = 127 / max(np.abs(delta).max(), 1e-6)
            noise, result = line[1 + 2 * i], line[2 + 2 * i]
            noise.imshow(np.clip(128 + factor * delta, 0, 255).astype("uint8"))
            noise.set_title(f"{variant}\nperturbation x {factor:.0f}", fontsize=7)
            result.imshow(attacked["image"].round().astype("uint8"))
            result.set_title(f"{variant}\nattacked image", fontsize=7)
            result.set_xlabel(f"attacked, {variant}:\n{attacked['says']}\n{attacked['outcome']}", fontsize=7)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
    return figure


def gradcam(rows: list[dict], title: str) -> Figure:
    """Grad-CAM over clean and attacked images, a row per image; attention maps where a variant has them.

    Each row: `title`; `panels`: list of (heading, image (H, W, 3), map (h, w) or None, what stands below, whether it is
    of attention). `title` names the attack. Maps are interpolated. Grad-CAM is drawn from 0 to its own maximum,
    attention from 0 to `TOP` times an even share, so that a flat map looks flat.
    """
    columns = len(rows[0]["panels"])
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH, (WIDTH / columns + 0.27) * len(rows) + 0.8), squeeze=False
    )
    figure.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    for i, (line, row) in enumerate(zip(axes, rows, strict=True)):
        for ax, (heading, image, heat, says, attention) in zip(line, row["panels"], strict=True):
            shown = image.round().astype("uint8") if heat is None else overlay(image, heat, attention)
            ax.imshow(shown)
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
            ax.set_xlabel(says, fontsize=7, labelpad=2)
            if i == 0:
                ax.set_title(heading, fontsize=7, loc="center")
        line[0].set_ylabel(row["title"], fontsize=7)
    colours = plt.cm.ScalarMappable(plt.Normalize(0, 1), HEAT)
    bar = figure.colorbar(colours, ax=axes, location="bottom", shrink=0.35, aspect=40, pad=0.01)
    bar.set_label(f"Grad-CAM: share of its own maximum; attention: 1 is {TOP} times an even map", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def overlay(image, heat, attention=False):
    """A map in colour over a dimmed gray image, uint8 (H, W, 3): one picture, so that files stay small.

    The colour covers more where the map is higher, up to its maximum or, of attention, to `TOP` times its mean.
    """
    top = TOP * heat.mean() if attention else heat.max()
    large = cv2.resize(heat.astype("float32"), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    large = (large / max(top, 1e-6)).clip(0, 1)[..., None]
    colours, gray = 255 * plt.get_cmap(HEAT)(large[..., 0])[..., :3], 0.6 * image.mean(-1, keepdims=True)
    return ((1 - 0.8 * large) * gray + 0.8 * large * colours).round().astype("uint8")


def legend(figure: Figure, axes, columns: int = 5, side: str = "left", **options) -> Figure:
    """Say above the panels, once, what their curves and markers are; `columns`: the most entries in a line."""
    found = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    lines = max(1, -(-len(found) // columns))
    figure.set_figheight(figure.get_figheight() + 0.17 * (lines - 1))  # the panels stay as high
    place = {"loc": f"outside upper {side}", "ncols": -(-len(found) // lines) or 1, "frameon": False}
    figure.legend(found.values(), found.keys(), **place, **options)
    return figure


def whiskers(estimate, low, high) -> np.ndarray:
    """Lengths (2, n) of error bars: 0 where an interval ends short of its estimate, as a bootstrap's may."""
    estimate, low, high = (np.asarray(values, float) for values in (estimate, low, high))
    return np.maximum([estimate - low, high - estimate], 0)


def count(table: pd.DataFrame) -> str:
    """How many images a table with a column n is of, in words."""
    low, high = table["n"].min(), table["n"].max()
    return f"n = {low}" + (f" to {high}" if low < high else "")


def narrow(title: str) -> str:
    """A data set's title with its lines broken for the edge of a small panel."""
    return textwrap.fill(title, 24)


def map_shift(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Mean agreement of clean and attacked maps with 95 % intervals, a marker per training run.

    `table` as from `lib.report.tables.gradcam_shift`.
    """
    measures = list(dict.fromkeys(table["measure"]))
    datasets = list(dict.fromkeys(table["dataset"]))
    kinds = list(dict.fromkeys(zip(table["variant"], table["map"], strict=True)))
    seeds = table["seed"].nunique()
    several, step = seeds > 1, min(0.3, 0.9 / seeds)
    slot = max(0.26, 0.08 * seeds) if several else 0.18
    height = 0.5 + slot * max(len(kinds), 3) * len(datasets) + 0.13 * (-(-(len(kinds) + several) // 3) - 1)
    figure, axes = plt.subplots(1, len(measures), figsize=(WIDTH, height), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        for i, (variant, kind) in enumerate(kinds):
            group = table[(table["measure"] == measure) & (table["variant"] == variant) & (table["map"] == kind)]
            runs = group.groupby("dataset")["seed"]
            aside = i - (len(kinds) - 1) / 2 + step * (runs.cumcount() - (runs.transform("size") - 1) / 2)
            y = group["dataset"].map(datasets.index) + 0.8 / len(kinds) * aside
            error = whiskers(group["mean"], group["ci_low"], group["ci_high"])
            name = f"{variant}, Grad-CAM" if kind == "gradcam" else f"{variant}, its own map"
            ax.errorbar(group["mean"], y, xerr=error, fmt=MARKERS[variant], color=COLOURS[variant], markersize=4,
                        markerfacecolor="white" if kind == "attention" else None, capsize=2, label=name)  # fmt: skip
        names = [f"{narrow(titles[d])}\n{count(table[table['dataset'] == d])}" for d in datasets]
        ax.set(xlabel=measure, yticks=range(len(datasets)), yticklabels=names)
        ax.set(xlim=(None, 1.03), ylim=(-0.5, len(datasets) - 0.5))
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    if several:
        axes[0].errorbar([], [], fmt=" ", label="one marker per training run")  # words alone
    return legend(figure, axes[:1], 3)
