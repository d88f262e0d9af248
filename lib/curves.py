"""Figures of robust accuracy against the budget."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from lib.figures import COLOURS, DASHES, MARKERS, WIDTH

ATTACK_TITLES = {
    "fgsm": "FGSM",
    "bim": "BIM",
    "mi_fgsm": "MI-FGSM",
    "pgd": "PGD",
    "apgd_ce": "APGD",
    "apgd_dlr": "APGD (DLR)",
    "apgd_t": "APGD (targeted)",
    "fab_t": "FAB",
    "square": "Square",
    "cw": "Carlini-Wagner",
    "autoattack": "AutoAttack",
}
ROUTES = {"logits": ("#000000", "-", "o"), "softmax": ("#CC79A7", "--", "D")}
NORM_TITLES = {"linf": r"$L_\infty$", "l2": r"$L_2$"}


def robust_curves(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Robust accuracy against epsilon with 95 % bands, a panel per attack; several data sets, a row for each.

    `table` as from `lib.tables.over_seeds` or, to draw every training run, `robust_accuracy`.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    attacks = list(dict.fromkeys(zip(table["attack"], table["norm"], table["through"], strict=True)))
    panels = [(dataset, attack) for dataset in datasets for attack in attacks]
    columns = len(attacks) if len(datasets) > 1 else -(-len(attacks) // -(-len(attacks) // 4))
    figure, axes = _grid(len(panels), columns)
    for ax, (dataset, (attack, norm, through)) in zip(axes, panels, strict=True):
        here = table[
            (table["dataset"] == dataset) & (table["attack"] == attack)
            & (table["norm"] == norm) & (table["through"] == through)
        ]  # fmt: skip
        runs = ["variant", "seed"] if "seed" in here else ["variant"]
        for (variant, *_), run in here.groupby(runs, sort=False):
            style = COLOURS[variant], DASHES[variant], MARKERS[variant]
            _curve(ax, run, variant, *style)
        name = f"{ATTACK_TITLES.get(attack, attack)}, {NORM_TITLES[norm]}"
        ax.set_title(name + (", softmax" if through == "softmax" else ""))
        if ax in axes[::columns]:
            ax.set_ylabel(f"{titles[dataset]}\nrobust accuracy")
    return _with_legend(figure, axes)


def routes(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The same attacks through logits and through softmax: a row per data set, a panel per attack and variant.

    `table` as from `lib.tables.robust_accuracy`; attacks that were not run both ways are left out.
    """
    keys = ["attack", "norm", "variant"]
    both = table[table.groupby(["dataset", *keys])["through"].transform("nunique") > 1]
    datasets, columns = list(dict.fromkeys(both["dataset"])), both[keys].drop_duplicates()
    columns = columns.sort_values(keys[:2], kind="stable").apply(tuple, axis="columns").to_list()
    figure, axes = _grid(len(datasets) * len(columns), len(columns))
    panels = [(dataset, column) for dataset in datasets for column in columns]
    for ax, (dataset, (attack, norm, variant)) in zip(axes, panels, strict=True):
        here = both[(both[["dataset", *keys]] == [dataset, attack, norm, variant]).all(axis="columns")]
        for (through, _), run in here.groupby(["through", "seed"], sort=False):
            _curve(ax, run, f"through {through}", *ROUTES[through])
        ax.set_title(f"{ATTACK_TITLES.get(attack, attack)}, {NORM_TITLES[norm]}, {variant}")
        if ax in axes[:: len(columns)]:
            ax.set_ylabel(f"{titles[dataset]}\nrobust accuracy")
    return _with_legend(figure, axes)


def relative_change(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Change of robust accuracy, attention minus baseline in percentage points, against epsilon.

    `table`: dataset, epsilon, difference, ci_low, ci_high, regime (typical or extreme). The relative change
    in percent is written at each point where it is defined.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    size = (max(WIDTH * len(datasets) / 3, 3.2), 2.3)
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        here = table[table["dataset"] == dataset].reset_index(drop=True)
        ax.axhline(0, color="0.3", linewidth=0.8)
        for regime, face in (("typical", COLOURS["attention"]), ("extreme", "white")):
            part = here[here["regime"] == regime]
            error = 100 * np.array(
                [part["difference"] - part["ci_low"], part["ci_high"] - part["difference"]]
            )
            ax.errorbar(part.index, 100 * part["difference"], yerr=error, fmt="s", markersize=4, capsize=2,
                        color=COLOURS["attention"], markerfacecolor=face, label=regime)  # fmt: skip
        for i, row in here.iterrows():
            if np.isfinite(row["percent"]):
                ax.annotate(f"{row['percent']:+.0f} %", (i, 100 * row["ci_high"]), xytext=(0, 2),
                            textcoords="offset points", ha="center", fontsize=7, rotation=90)  # fmt: skip
        ax.margins(y=0.4)
        ax.set(xticks=here.index, xticklabels=[f"{e:g}" for e in here["epsilon"]], title=titles[dataset],
               xlabel=r"$\epsilon$ (1/255)")  # fmt: skip
    axes[0, 0].set_ylabel("attention - baseline\n(percentage points)")
    axes[0, -1].legend(frameon=False, title="baseline's regime", title_fontsize=7)
    return figure


def _grid(panels, columns):
    """A figure with this many panels; axes that are left over are gone."""
    rows = -(-panels // columns)
    size = (max(WIDTH * columns / 4, 3.2) if columns < 4 else WIDTH, 1.75 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for ax in axes.flat[panels:]:
        ax.remove()
    axes = list(axes.flat[:panels])
    axes[0].set_ylim(0, 1)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    for ax in axes[-columns:]:
        ax.set_xlabel(r"$\epsilon$ (1/255)")
    return figure, axes


def _with_legend(figure, axes):
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    # Above the panels: inside, the one free corner is another one in every panel.
    figure.legend(unique.values(), unique.keys(), frameon=False, loc="outside upper left", ncols=len(unique))
    return figure


def _curve(ax, run, label, colour, dashes, marker):
    """One curve on a log axis, with the clean accuracy at the left edge, where epsilon is 0."""
    run = run.sort_values("epsilon")
    positive = run.loc[run["epsilon"] > 0, "epsilon"]
    clean = positive.min() / 3
    x = run["epsilon"].replace(0, clean)
    ax.fill_between(x, run["ci_low"], run["ci_high"], color=colour, alpha=0.16, linewidth=0)
    ax.plot(
        x,
        run["robust_accuracy"],
        dashes,
        marker=marker,
        color=colour,
        markersize=3.2,
        linewidth=1.3,
        label=label,
    )
    ticks = [clean, *positive.iloc[1::3]]
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels(["0", *(f"{t:g}" for t in ticks[1:])])
