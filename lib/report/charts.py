"""Figures of 05_why, from the tables of `lib.report.summary` and `conclusions` and the arrays of `lib.explain`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator, PercentFormatter

from lib.report.figures import COLOURS, DASHES, MARKERS, WIDTH, legend, narrow, whiskers

SOURCES = {
    ("gradient", "none"): "input gradient",
    ("pgd", "l2"): r"PGD, $L_2$",
    ("pgd", "linf"): r"PGD, $L_\infty$",
    ("fgsm", "linf"): "FGSM",
    ("noise", "linf"): "random signs",
}
REGIONS = {
    "lesion": "in the lesion",
    "gradcam": "in Grad-CAM's top 20 %",
    "attention": "in the attention map's top 20 %",
}
MAPS = {"gradcam": "Grad-CAM", "attention": "its own map"}
MAP_MEASURES = {
    "pointing": "pointing game: share of hits",
    "iou": "IoU with the lesion",
    "top20_overlap": "overlap with the clean map's top 20 %",
    "correct": "predictions still right",
}
CURVES = {
    "margin": "margin\n(logits)",
    "slope": "slope of the margin\n(logits per gray level)",
    "distance": "margin / slope\n(gray levels)",
}


def examples(rows: list[dict]) -> Figure:
    """Images with the lesion's outline and where the input gradient's energy lies, a row per image.

    Each row: `title`, `image` (H, W, 3), `mask` bool (H, W) or None, `energy` {variant: (H, W)}. Energies are
    blurred, and drawn from 0 to their 99th percentile.
    """
    variants = list(rows[0]["energy"])
    columns = 1 + len(variants)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.55 * columns, 1.55 * len(rows) + 0.2), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        line[0].imshow(row["image"].round().astype("uint8"))
        for ax, variant in zip(line[1:], variants, strict=True):
            energy = row["energy"][variant]
            ax.imshow(energy, cmap="inferno", vmin=0, vmax=max(np.quantile(energy, 0.99), 1e-30))
        for ax in line:
            if row["mask"] is not None and row["mask"].any():
                ax.contour(row["mask"], [0.5], colors="#56B4E9", linewidths=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(row["title"], fontsize=7)
    for ax, title in zip(axes[0], ["image", *(f"{v}\ngradient" for v in variants)], strict=True):
        ax.set_title(title, fontsize=7.5, loc="center")
    return figure


def density(table: pd.DataFrame, epsilon: float) -> Figure:
    """How densely energy lies in each region, with 95 % intervals, a panel per region; perturbations at one budget."""
    table = table[table["epsilon"].isin([0, epsilon])]
    regions = [name for name in REGIONS if name in set(table["region"])]
    figure, axes = plt.subplots(1, len(regions), figsize=(WIDTH, 2.5), sharey=True, sharex=True, squeeze=False)
    for ax, region in zip(axes[0], regions, strict=True):
        here = table[table["region"] == region]
        variants = list(dict.fromkeys(here["variant"]))
        ax.axvline(1, color="0.3", linewidth=0.8)
        for i, variant in enumerate(variants):
            rows = here[here["variant"] == variant].set_index(["attack", "norm"]).reindex(list(SOURCES))
            y = np.arange(len(SOURCES)) + _aside(i, len(variants), 0.22)
            _points(ax, rows["mean"], y, rows["ci_low"], rows["ci_high"], variant, label=variant)
        ax.set(title=REGIONS[region], xlabel="density of energy (1 = even)")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4, 8]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", visible=False)
    axes[0, 0].set(yticks=range(len(SOURCES)), yticklabels=list(SOURCES.values()))
    axes[0, 0].invert_yaxis()
    return legend(figure, axes[0])


def _points(ax, x, y, low, high, variant, **options):
    ax.errorbar(x, y, xerr=whiskers(x, low, high), fmt=MARKERS[variant], color=COLOURS[variant], markersize=4,
                capsize=2, **options)  # fmt: skip


def maps(table: pd.DataFrame) -> Figure:
    """How well maps point at the lesion and how far they move, against the budget: a panel per measure.

    Solid and dashed: PGD in L-inf by variant; open markers: the attention block's own map; dotted: random signs.
    """
    measures = [m for m in MAP_MEASURES if m in set(table["measure"])]
    figure, axes = plt.subplots(1, len(measures), figsize=(WIDTH, 2.4), squeeze=False)
    table = table[(table["norm"] != "l2") & (table["attack"] != "fgsm")]
    for ax, measure in zip(axes[0], measures, strict=True):
        here = table[table["measure"] == measure]
        for (variant, kind), run in here.groupby(["variant", "map"], sort=False):
            if measure == "correct" and kind != "gradcam":
                continue
            for attack, line in (("pgd", DASHES[variant]), ("noise", ":")):
                part = run[run["attack"].isin(["clean", attack])].sort_values("epsilon")
                x = np.arange(len(part))
                face = "white" if kind == "attention" else COLOURS[variant]
                name = f"{variant}, {MAPS[kind]}" if attack == "pgd" else "dotted: under random signs"
                options = {"color": COLOURS[variant], "linewidth": 1.2 if attack == "pgd" else 0.9}
                if attack == "pgd":
                    ax.fill_between(x, part["ci_low"], part["ci_high"], color=COLOURS[variant], alpha=0.1, linewidth=0)
                    options |= {"marker": MARKERS[variant], "markersize": 3.5, "markerfacecolor": face}
                ax.plot(x, part["mean"], line, label=name, **options)
                ax.set_xticks(x, [f"{e:g}" for e in part["epsilon"]])
        if "chance" in here and here["chance"].notna().any():
            ax.axhline(here["chance"].mean(), color="0.5", linewidth=0.8, linestyle=(0, (1, 1)))
            ax.annotate("chance", (0, here["chance"].mean()), fontsize=6.5, color="0.35", va="bottom")
        ax.set(ylim=(0, 1.02), title=MAP_MEASURES[measure].replace(": ", ":\n").replace(" the ", "\nthe ", 1),
               xlabel=r"$\epsilon$ (1/255)")  # fmt: skip
        ax.title.set_fontsize(7.5)
    return legend(figure, axes[0], columns=3)


def distributions(table: pd.DataFrame) -> Figure:
    """Empirical distributions of margin, slope and their quotient over the images; `table` of `loss_surface`."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(WIDTH, 2.2), sharey=True)
    for ax, (column, title) in zip(axes, CURVES.items(), strict=True):
        for (variant, _), run in table.groupby(["variant", "seed"], sort=False):
            values = np.sort(run[column].to_numpy(float))
            y = np.arange(1, len(values) + 1) / len(values)
            ax.step(values, y, where="post", color=COLOURS[variant], linestyle=DASHES[variant], label=variant)
        if column == "margin":
            ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_xlabel(title)
    axes[0].set_ylabel("share of the images")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return legend(figure, axes)


def frequency(accuracy: pd.DataFrame, epsilon: float) -> Figure:
    """Accuracy under low- and high-pass filtered PGD at one budget, a panel each."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH * 0.75, 2.3), sharey=True)
    here = accuracy[np.isclose(accuracy["epsilon"], epsilon) & (accuracy["source"] == "pgd")]
    clean = accuracy[accuracy["source"] == "clean"].set_index("variant")["accuracy"]
    for ax, keep, title in zip(axes, ("low", "high"), ("only below the cutoff", "only above the cutoff"), strict=True):
        for i, (variant, run) in enumerate(here.groupby("variant", sort=False)):
            part, whole = run[run["keep"] == keep].sort_values("cutoff"), run[run["keep"] == "all"].iloc[0]
            _curve(ax, np.arange(len(part)) + _aside(i, len(clean), 0.1), part, "accuracy", variant, label=variant)
            ax.axhline(whole["accuracy"], color=COLOURS[variant], linewidth=0.8, alpha=0.7)
            ax.axhline(clean[variant], color=COLOURS[variant], linewidth=0.8, linestyle=":")
        ax.set(title=title, ylim=(-0.02, 1.02), xlabel="cutoff (cycles per pixel)")
        ax.set_xticks(range(len(part)), [f"{c:g}" for c in part["cutoff"]])
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_ylabel("accuracy")
    return legend(figure, axes)


def sanity(table: pd.DataFrame) -> Figure:
    """Rank correlation of a map with itself after randomising the weights down to a layer, with 95 % intervals."""
    # The block is seen only in a variant that has one, and follows the logits.
    steps = sorted(dict.fromkeys(table["against"]), key=lambda name: {"logits": 0, "attention block": 1}.get(name, 2))
    figure, ax = plt.subplots(figsize=(WIDTH * 0.9, 2.4))
    groups = list(table.dropna(subset="mean").groupby(["variant", "map"], sort=False))  # a constant map has no ranks
    for i, ((variant, kind), run) in enumerate(groups):
        run = run.set_index("against").reindex([name for name in steps if name in set(run["against"])])
        x = np.array([steps.index(name) for name in run.index]) + _aside(i, len(groups), 0.1)
        _curve(ax, x, run, "mean", variant, markerfacecolor="white" if kind == "attention" else None,
               label=f"{variant}, {MAPS[kind]}")  # fmt: skip
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-1.05, 1.05), xlabel="randomised down to")
    ax.set_xticks(range(len(steps)), [name.replace(" ", "\n", 1) for name in steps], fontsize=7)
    ax.set_ylabel("rank correlation\nwith the model's own map")
    return legend(figure, [ax], columns=3)


def _aside(i, n, step):
    """How far from their place the markers of the i-th of n stand: `step` apart, less where so many would not fit."""
    return min(step, 0.8 / n) * (i - (n - 1) / 2)


def _curve(ax, x, table, value, variant, **options):
    """Values with their intervals, joined by the variant's line."""
    error = whiskers(table[value], table["ci_low"], table["ci_high"])
    ax.errorbar(x, table[value], yerr=error, fmt=MARKERS[variant], color=COLOURS[variant], linestyle=DASHES[variant],
                markersize=4, capsize=2, linewidth=0.9, **options)  # fmt: skip


def ratios(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The attentive network over each other variant: margin, slope and what follows from them; 1 is no change. A panel
    per data set, a marker per training run."""
    measures, datasets, others = (list(dict.fromkeys(table[key])) for key in ("measure", "dataset", "against"))
    runs = sorted({*zip(table["against"], table["seed"], strict=True)}, key=lambda run: (others.index(run[0]), run[1]))
    size = (WIDTH * (1 if len(datasets) > 1 else 0.75), 0.9 + max(0.27, 0.07 * len(runs)) * len(measures))
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        ax.axvline(1, color="0.3", linewidth=0.8)
        here = table[table["dataset"] == dataset].set_index(["against", "seed", "measure"])
        for i, (variant, seed) in enumerate(runs):
            run = here.reindex([(variant, seed, measure) for measure in measures])
            y = np.arange(len(measures)) + _aside(i, len(runs), 0.22)
            label = f"{table['variant'].iloc[0]} / {variant}"
            _points(ax, run["ratio"], y, run["ci_low"], run["ci_high"], variant, label=label)
        ax.set(title=narrow(titles[dataset]), xlabel="ratio (1 = no change)")
        _ratio_axis(ax)
        ax.grid(axis="y", visible=False)
    if len(runs) > len(others):
        axes[0, 0].errorbar([], [], fmt=" ", label="one marker per training run")  # words alone
    names = [measure.replace(", ", ",\n") for measure in measures]
    axes[0, 0].set(yticks=range(len(measures)), yticklabels=names, ylim=(len(measures) - 0.5, -0.5))
    return legend(figure, axes[0], columns=3 if len(datasets) > 1 else 2)


def _ratio_axis(ax):
    """A log axis from a half to twofold at least, and to 30-fold at most: of a wider interval the ends are not seen, as
    the rest could not be; where it is long, ticks at powers of ten only."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    low, high = max(min(low, 0.45), 1 / 30), min(max(high, 2.2), 30)
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
