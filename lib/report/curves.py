"""Figures of curves: robust accuracy against the budget, and training against the epoch."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from lib.attacks import AutoAttack
from lib.profile import Attack
from lib.report.figures import COLOURS, DASHES, MARKERS, WIDTH, count, legend, narrow, whiskers

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
NORM_TITLES = {"linf": r"$L_\infty$", "l2": r"$L_2$"}
MOST_BANDS = 4  # variants whose bands can be told apart
# For a value above the panel; a triangle would be a variant's marker.
ARROW = {"linestyle": "", "marker": r"$\uparrow$", "markersize": 6}


def attack_in_full(attack: Attack, classes: int | None = None) -> str:
    """An attack's name with the numbers that the profile gives it, such as `PGD (20 steps)`; of an AutoAttack that is
    cut short also the published ones. `classes`: of the data, where they are of one set."""
    published = AutoAttack() if attack.attack == "autoattack" else None

    def said(name, value):
        whole, words = getattr(published, name, None), name.replace("_", " ")
        if name == "target_classes" and whole:
            whole = classes and min(whole, classes - 1)  # there are as many as wrong classes
            if whole and value >= whole:
                return "every wrong class as target"
        return f"{value} of {whole} {words}" if whole else f"{value} {words}"

    numbers = ", ".join(said(name, value) for name, value in attack.parameters.items())
    return ATTACK_TITLES.get(attack.attack, attack.attack) + (f" ({numbers})" if numbers else "")


def robust_curves(table: pd.DataFrame, titles: dict[str, str], large: str = "autoattack") -> Figure:
    """Robust accuracy against epsilon with 95 % bands, a panel per attack; several data sets, a row for each.

    `table` as from `lib.report.tables.over_seeds` or, to draw every training run, `robust_accuracy`. Of one data set
    with more than four attacks, the panel of `large` is the largest. Of many variants the baseline alone has its band.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    keys = ["attack", "norm", "through"]
    attacks = list(dict.fromkeys(zip(*(table[key] for key in keys), strict=True)))
    panels = [(dataset, *attack) for dataset in datasets for attack in attacks]
    grid = len(datasets) > 1 or len(panels) <= 4
    if not grid:
        panels.sort(key=lambda panel: panel[1:] != (large, "linf", "logits"))
    figure, axes, first = _grid(panels, len(attacks)) if grid else _one_large(panels)
    few = table["variant"].nunique() <= MOST_BANDS
    for place, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        here = table[(table[["dataset", *keys]] == list(panel)).all(axis="columns")]
        dataset, attack, norm, through = panel
        runs = ["variant", "seed"] if "seed" in here else ["variant"]
        for (variant, *_), run in here.groupby(runs, sort=False):
            _curve(ax, run, variant, band=few or variant == "baseline")
        if place < len(attacks):
            name = f"{ATTACK_TITLES.get(attack, attack)}, {NORM_TITLES[norm]}"
            ax.set_title(name + (", softmax" if through == "softmax" else ""))
        if ax in first:
            ax.set_ylabel(f"{narrow(titles[dataset])}\nrobust accuracy" if grid or place == 0 else "")
        one = here["seeds"].max() == 1 < table["seeds"].max() if "seeds" in here else False
        words = count(here) + (", one run" if one else "")
        ax.text(0.97, 0.95, words, transform=ax.transAxes, fontsize=7, ha="right", va="top")
    axes[0].set_ylim(0, 1)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    said = {"linf": "change of a pixel in $L_\\infty$", "l2": "length of the whole change in $L_2$"}
    words = ", ".join(words for norm, words in said.items() if (table["norm"] == norm).any())
    figure.supxlabel(rf"$\epsilon$ in gray levels (1/255): {words}", fontsize=8)
    return legend(figure, axes[:1], int(figure.get_figwidth() / 1.2))


def relative_change(
    table: pd.DataFrame, each: pd.DataFrame, titles: dict[str, str], attack: Attack, attentive: str = "attention"
) -> Figure:
    """Change of robust accuracy, attention minus baseline in percentage points, against epsilon.

    `table`: dataset, epsilon, n, difference, ci_low, ci_high, percent, regime (typical or extreme). The relative
    change in percent stands above each point of a typical budget; at extreme ones it is a ratio of few images.
    `each`: what `attack` left in each training run, as from `tables.robust_accuracy`; of several a small dot for each.
    """
    each = each.pivot_table(index=["dataset", "epsilon"], columns=["variant", "seed"], values="robust_accuracy")
    each = 100 * (each[attentive] - each["baseline"]).dropna(axis="columns", how="all")
    datasets = list(dict.fromkeys(table["dataset"]))
    size = (WIDTH, max(1.55 * len(datasets) + 0.5, 2.6))
    figure, axes = plt.subplots(len(datasets), 1, figsize=size, sharey=True, squeeze=False)
    for ax, dataset in zip(axes[:, 0], datasets, strict=True):
        here = table[table["dataset"] == dataset].reset_index(drop=True)
        ax.axhline(0, color="0.3", linewidth=0.8)
        for regime, face in (("typical", COLOURS["attention"]), ("extreme", "white")):
            part = here[here["regime"] == regime]
            error = 100 * whiskers(part["difference"], part["ci_low"], part["ci_high"])
            ax.errorbar(part.index, 100 * part["difference"], yerr=error, fmt="s", markersize=4, capsize=2,
                        color=COLOURS["attention"], markerfacecolor=face, label=f"{regime} budget")  # fmt: skip
        if each.shape[1] > 1:
            runs = each.loc[dataset].loc[here["epsilon"]].to_numpy()
            x = np.repeat(here.index + 0.13, each.shape[1])
            ax.plot(x, runs.ravel(), "o", color="0.2", markersize=2, alpha=0.8, label="a training run")
        above = ax.get_xaxis_transform()
        for i, percent in here["percent"].items():
            words = "\N{EN DASH}"
            if here["regime"][i] == "typical":
                words = f"{percent:+.0f} %".replace("-", "\N{MINUS SIGN}")
            ax.text(i, 1.02, words, transform=above, ha="center", va="bottom", fontsize=7)
        ax.text(1.005, 1.02, "relative", transform=ax.transAxes, ha="left", va="bottom", fontsize=7)
        ax.set_xticks(here.index, [f"{epsilon:g}" for epsilon in here["epsilon"]])
        ax.set_xlim(-0.5, len(here) - 0.5)
        ax.set_title(f"{titles[dataset]}, {count(here)}", pad=13)
    axes[-1, 0].set_xlabel(f"$\\epsilon$, change of a pixel (gray levels, 1/255)\n{attack_in_full(attack)}")
    figure.supylabel(f"robust accuracy,\n{attentive} - baseline\n(percentage points)", fontsize=8, ma="center")
    return legend(figure, axes[0], 3, "right")  # in the line of the title, above the relative changes


def training_curves(histories: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Loss and accuracy per epoch on training (thin) and validation data (thick), means over training runs.

    A column per data set with its variants in one panel; more than two variants get a column each and the data sets
    rows. A marker stands at each run's lowest validation loss. Losses far above the others are drawn as an
    arrow at the upper edge.
    """
    datasets, variants = (list(dict.fromkeys(histories[key])) for key in ("dataset", "variant"))
    apart = len(variants) > 2
    cells = [[[d, v] for v in variants] for d in datasets] if apart else [[[d] for d in datasets]]
    keys = ["dataset", "variant"][: len(cells[0][0])]
    size = (
        min(WIDTH, max(WIDTH * len(cells[0]) / (6 if apart else 3), 3.6)),
        3.2 * len(cells) + (0.6 if apart else 0.7),
    )
    figure, axes = plt.subplots(2 * len(cells), len(cells[0]), figsize=size, sharex=True, sharey="row", squeeze=False)
    beyond = False
    for block, line in enumerate(cells):
        for column, wanted in enumerate(line):
            here = histories[(histories[keys] == wanted).all(axis="columns")]
            for measure, ax in zip(("loss", "accuracy"), axes[2 * block : 2 * block + 2, column], strict=True):
                _history(ax, here, measure)
        losses = histories[histories["dataset"].isin(cell[0] for cell in line)][["loss", "val_loss"]].to_numpy()
        beyond |= _limit(axes[2 * block], 1.5 * np.nanquantile(losses, 0.95))
        axes[2 * block + 1, 0].set_ylim(0, 1)
        axes[2 * block + 1, 0].yaxis.set_major_formatter(PercentFormatter(1))
        name = f"{titles[line[0][0]]}\n" if apart else ""
        axes[2 * block, 0].set_ylabel(f"{name}cross-entropy" if apart else "cross-entropy (nats)")
        axes[2 * block + 1, 0].set_ylabel("accuracy")
    for ax, (dataset, *variant) in zip(axes[0], cells[0], strict=True):
        name = variant[0].replace("-", "-\n", 1) if apart else titles[dataset]
        ax.set_title(name, pad=9)  # above the arrows
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    entries = [{"color": COLOURS[v], "linestyle": DASHES[v], "label": v} for v in variants if not apart]
    entries += [{"linewidth": 0.7, "label": "training"}, {"linewidth": 1.7, "label": "validation"},
                {"linestyle": "", "marker": "o", "markersize": 4.5, "label": "lowest validation loss"}]  # fmt: skip
    if len(set(histories["seed"])) > 1:
        entries += [{"linewidth": 0.7, "alpha": 0.35, "label": "validation, a training run"}]
    entries += [ARROW | {"label": "loss above the panel"}] if beyond else []
    handles = [Line2D([], [], **({"color": "0.3"} | entry)) for entry in entries]
    figure.legend(handles=handles, loc="outside upper left", ncols=2 if size[0] < 5 else 6, frameon=False)
    return figure


def gamma_by_step(table: pd.DataFrame) -> Figure:
    """Gamma of the soft-attention block against the training step, a line per training run; below 0 the branch is off.

    `table` as from `lib.study.Study.gamma`.
    """
    figure, ax = plt.subplots(figsize=(WIDTH * 0.7, 2.5))
    ax.set_xlabel("training step (batch)")
    ax.set_ylabel(r"$\gamma$")
    if table.empty:
        ax.text(0.5, 0.5, "no gamma is trained in this run", transform=ax.transAxes, ha="center", va="center")
        return figure
    for _, run in table.groupby("seed"):
        ax.plot(run["step"], run["gamma"], color=COLOURS["attention"], linewidth=1)
    low, high = min(0, table["gamma"].min()), max(0, table["gamma"].max())
    margin = 0.15 * max(high - low, 1e-3)
    ax.set_ylim(low - margin, high + margin)
    ax.axhspan(low - margin, 0, color="0.9", zorder=0)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.text(0.99, 0.02, "attention branch off", transform=ax.transAxes, ha="right", va="bottom", fontsize=7)
    ax.set_xlim(0, table["step"].max())
    return figure


def _history(ax, runs, measure):
    """The curves of one measure, by variant: of one training run, or the mean of several over each of them, faint."""
    for variant, of_variant in runs.groupby("variant", sort=False):
        style = {"color": COLOURS[variant], "linestyle": DASHES[variant]}
        shown = of_variant.groupby("epoch")[[measure, f"val_{measure}"]].mean()
        ax.plot(shown.index, shown[measure], **style, linewidth=0.7)
        ax.plot(shown.index, shown[f"val_{measure}"], **style, linewidth=1.7)
        for _, run in of_variant.groupby("seed"):
            if len(set(of_variant["seed"])) > 1:
                ax.plot(run["epoch"], run[f"val_{measure}"], **style, linewidth=0.7, alpha=0.35)
            best = run.loc[run["val_loss"].idxmin()]
            place = best["epoch"], best[f"val_{measure}"]
            ax.plot(*place, MARKERS[variant], color=COLOURS[variant], markersize=4.5)


def _limit(axes, top):
    """Ends the axes at `top` at most, with an arrow for every point above; says whether there are any."""
    axes[0].set_ylim(0, min(top, axes[0].get_ylim()[1]))
    beyond = False
    for ax in axes:
        for line in list(ax.lines):
            x, y = (np.asarray(values, float) for values in line.get_data())
            if (above := x[y > top]).size:  # an empty line has a place in the layout: the figure's corner
                ax.plot(above, np.full(len(above), top), **ARROW, color=line.get_color(), clip_on=False)
                beyond = True
    return beyond


def _grid(panels, columns):
    """A figure with these panels in rows, its axes, and those at the left."""
    rows = -(-len(panels) // columns)
    size = (min(max(WIDTH * columns / 4, 3.2), WIDTH), 1.75 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    return figure, list(axes.flat), list(axes[:, 0])


def _one_large(panels):
    """The same with the first panel as large as four of the others."""
    columns = 5
    cells = [(row, column) for row in range(9) for column in range(columns) if row > 1 or column > 1][: len(panels) - 1]
    rows = max(2, cells[-1][0] + 1)
    figure = plt.figure(figsize=(WIDTH, 1.5 * rows + 0.4))
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[:2, :2])]
    axes += [figure.add_subplot(grid[cell], sharey=axes[0]) for cell in cells]
    for ax, (_, column) in zip(axes[1:], cells, strict=True):
        if column:
            ax.tick_params(labelleft=False)
    return figure, axes, [axes[0], *(ax for ax, cell in zip(axes[1:], cells, strict=True) if cell[1] == 0)]


def _curve(ax, run, variant, band=True):
    """One curve on a log axis, with the clean accuracy at the left edge, where epsilon is 0."""
    run = run.sort_values("epsilon")
    clean = run.loc[run["epsilon"] > 0, "epsilon"].min() / 3
    x = run["epsilon"].replace(0, clean)
    if band:
        ax.fill_between(x, run["ci_low"], run["ci_high"], color=COLOURS[variant], alpha=0.16, linewidth=0)
    ax.plot(x, run["robust_accuracy"], DASHES[variant], marker=MARKERS[variant], color=COLOURS[variant],
            markersize=3.2, linewidth=1.3, label=variant, clip_on=False, zorder=3)  # fmt: skip
    _budget_axis(ax, run["epsilon"], clean)


def _budget_axis(ax, epsilons, clean):
    """A log axis with 0 at `clean`, and ticks at the powers of ten and the largest budget."""
    smallest, largest = epsilons[epsilons > 0].min(), epsilons.max()
    powers = 10.0 ** np.arange(np.ceil(np.log10(smallest)), np.floor(np.log10(largest)) + 1)
    ticks = [*powers[powers < largest / 3], largest]  # nearer powers would overprint the largest budget
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([clean, *ticks], ["0", *(f"{t:g}" for t in ticks)])
    # Two strokes through the axis: between 0 and the smallest budget there is no scale.
    break_at = (clean * smallest) ** 0.5
    ax.plot([break_at, 1.15 * break_at], [0, 0], "|", transform=ax.get_xaxis_transform(), color="0.2", markersize=6,
            clip_on=False, zorder=4)  # fmt: skip
