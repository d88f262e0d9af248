"""Figures from data frames and arrays, in one style: readable in a printed column and without colour vision."""

from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

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
}
MARKERS = dict(zip(COLOURS, "os^vDPX*", strict=True))
DASHES = dict(zip(COLOURS, ("-", "--", ":", "--", "-.", ":", "-.", "--"), strict=True))
SPLIT_COLOURS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#009E73"}
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
    figure.text(0.0, -0.01, label, ha="left", va="top", fontsize=7, color="0.35")
    with replacing(path.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, format="pdf", bbox_inches="tight", metadata={"CreationDate": None})
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    write_provenance(path, label=label, **provenance)
    return figure


def class_counts(counts: pd.DataFrame) -> Figure:
    """Images per class and split; `counts` as from `lib.tables.class_counts`."""
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
            ax.text(
                -0.06, 0.5, titles[i // columns], rotation=90, va="center", ha="right", transform=ax.transAxes
            )
    return figure


def xray_pipeline(examples: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Figure 1 of the paper: the contrast pipeline, a row of stages and a row of histograms per example.

    `examples`: title -> the dictionary of `lib.preprocessing.xray_stages`, gray images (h, w).
    """
    stages = {
        "input": "input $x_0$",
        "min-max": "min-max, $x$",
        "blur": r"Gaussian blur, $\sigma = 20$",
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
            histogram.hist(images[stage].ravel(), bins=64, range=(0, top), color="0.35", density=True)
            histogram.set(yticks=[], xlim=(0, top), xticks=[0, top // 2 + 1, top])
            histogram.spines["left"].set_visible(False)
            if row == len(examples) - 1:
                histogram.set_xlabel("gray level")
        axes[2 * row, 0].text(
            -0.04, 0.5, title, rotation=90, va="center", ha="right", transform=axes[2 * row, 0].transAxes
        )
        axes[2 * row + 1, 0].set_ylabel("density")
    return figure


def training_curves(histories: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Loss and accuracy per epoch on training (thin) and validation data (thick), a column per data set.

    A larger marker stands where the weights were taken (lowest validation loss).
    """
    datasets = list(dict.fromkeys(histories["dataset"]))
    figure, axes = plt.subplots(
        2, len(datasets), figsize=(max(WIDTH * len(datasets) / 3, 3.6), 3.6), sharex="col", squeeze=False
    )
    for column, dataset in enumerate(datasets):
        for (variant, _), run in histories[histories["dataset"] == dataset].groupby(
            ["variant", "seed"], sort=False
        ):
            style = {"color": COLOURS[variant], "linestyle": DASHES[variant]}
            for row, measure in enumerate(("loss", "accuracy")):
                ax = axes[row, column]
                ax.plot(run["epoch"], run[measure], **style, linewidth=0.8, alpha=0.6)
                ax.plot(run["epoch"], run[f"val_{measure}"], **style, linewidth=1.6, label=variant)
                best = run.loc[run["val_loss"].idxmin()]
                ax.plot(
                    best["epoch"],
                    best[f"val_{measure}"],
                    MARKERS[variant],
                    color=COLOURS[variant],
                    markersize=5,
                )
        axes[0, column].set_title(titles[dataset])
        axes[1, column].set_xlabel("epoch")
        axes[1, column].yaxis.set_major_formatter(PercentFormatter(1))
        axes[0, column].set_ylim(0, min(4, axes[0, column].get_ylim()[1]))
    axes[0, 0].set_ylabel("cross-entropy (nats)")
    axes[1, 0].set_ylabel("accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0, 0].legend(unique.values(), unique.keys(), frameon=False)
    return figure


def confusion(predictions: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    """Confusion matrices side by side, a variant each: share of the true class in colour, counts in figures."""
    variants = list(dict.fromkeys(predictions["variant"]))
    size = max(2.2, 0.42 * len(classes) + 0.6)
    figure, axes = plt.subplots(1, len(variants), figsize=(size * len(variants) + 0.5, size), squeeze=False)
    for ax, variant in zip(axes[0], variants, strict=True):
        group = predictions[predictions["variant"] == variant]
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (group["label"], group["predicted"]), 1)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        sns.heatmap(share, annot=counts, fmt="d", vmin=0, vmax=1, cmap="cividis", square=True, ax=ax,
                    xticklabels=classes, yticklabels=classes if ax is axes[0, 0] else False,
                    cbar=ax is axes[0, -1], cbar_kws={"label": "share of the true class"})  # fmt: skip
        ax.set(title=variant, xlabel="predicted", ylabel="true" if ax is axes[0, 0] else "")
        ax.tick_params(axis="x", rotation=45)
        ax.tick_params(axis="y", rotation=0)
    return figure


def adversarial_examples(rows: list[dict]) -> Figure:
    """Strips of clean image, amplified perturbation and adversarial image, per variant.

    Each row: `title`, `clean` (h, w, 3), `clean_says` per variant, and per variant in `attacked`:
    `image` (h, w, 3) and `says`. Every perturbation is amplified to fill the gray levels; the factor is named.
    """
    variants = list(rows[0]["attacked"])
    columns = 1 + 2 * len(variants)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH, (WIDTH / columns + 0.65) * len(rows)), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        clean = row["clean"].astype("float32")
        line[0].imshow(clean.astype("uint8"))
        line[0].set_title(f"true class:\n{row['title']}", fontsize=7, fontweight="bold")
        for i, variant in enumerate(variants):
            attacked = row["attacked"][variant]
            delta = attacked["image"] - clean
            factor = 127 / max(np.abs(delta).max(), 1e-6)
            noise, result = line[1 + 2 * i], line[2 + 2 * i]
            noise.imshow(np.clip(128 + factor * delta, 0, 255).astype("uint8"))
            noise.set_title(f"{variant}\nperturbation x {factor:.0f}", fontsize=7)
            noise.set_xlabel(f"clean:\n{row['clean_says'][variant]}", fontsize=7)
            result.imshow(attacked["image"].round().astype("uint8"))
            result.set_title(f"{variant}\nattacked image", fontsize=7)
            result.set_xlabel(f"attacked:\n{attacked['says']}", fontsize=7)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
    return figure


def gradcam(rows: list[dict]) -> Figure:
    """Grad-CAM over clean and attacked images, a row per image; attention maps where a variant has them.

    Each row: `title`; `panels`: list of (heading, image (H, W, 3), map (h, w) or None). Maps are interpolated
    and drawn from 0 to their maximum.
    """
    columns = len(rows[0]["panels"])
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH, WIDTH / columns * len(rows) + 0.35), squeeze=False
    )
    for i, (line, row) in enumerate(zip(axes, rows, strict=True)):
        for ax, (heading, image, heat) in zip(line, row["panels"], strict=True):
            ax.imshow(image.round().astype("uint8") if heat is None else overlay(image, heat))
            ax.axis("off")
            if i == 0:
                ax.set_title(heading, fontsize=7, loc="center")
        line[0].text(-0.06, 0.5, row["title"], rotation=90, va="center", ha="right", fontsize=7,
                     transform=line[0].transAxes)  # fmt: skip
    return figure


def overlay(image, heat):
    """A map in colour over an image, half and half, uint8 (H, W, 3): one picture, so that files stay small."""
    large = cv2.resize(heat.astype("float32"), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = plt.get_cmap("inferno")(large / max(heat.max(), 1e-6))[..., :3]
    return (0.5 * image + 127.5 * colours).clip(0, 255).round().astype("uint8")


def map_shift(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Mean agreement of clean and attacked maps with 95 % intervals; `table` as from `gradcam_shift`."""
    measures = list(dict.fromkeys(table["measure"]))
    datasets = list(dict.fromkeys(table["dataset"]))
    kinds = list(dict.fromkeys(zip(table["variant"], table["map"], strict=True)))
    height = 0.5 + 0.18 * max(len(kinds), 3) * len(datasets) + 0.13 * (-(-len(kinds) // 4) - 1)
    figure, axes = plt.subplots(1, len(measures), figsize=(WIDTH, height), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        for i, (variant, kind) in enumerate(kinds):
            group = table[
                (table["measure"] == measure) & (table["variant"] == variant) & (table["map"] == kind)
            ]
            y = group["dataset"].map(datasets.index) + 0.6 / len(kinds) * (i - (len(kinds) - 1) / 2)
            error = [group["mean"] - group["ci_low"], group["ci_high"] - group["mean"]]
            name = f"{variant}, Grad-CAM" if kind == "gradcam" else f"{variant}, its own map"
            ax.errorbar(group["mean"], y, xerr=error, fmt=MARKERS[variant], color=COLOURS[variant], markersize=4,
                        markerfacecolor="white" if kind == "attention" else None, capsize=2, label=name)  # fmt: skip
        ax.set(xlabel=measure, yticks=range(len(datasets)), yticklabels=[titles[d] for d in datasets])
        ax.set_xlim(right=1.03)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper left",
        ncols=min(len(kinds), 4),
        frameon=False,
    )
    return figure
