"""Figures of the planned comparisons, from the tables of `lib.evaluation.planned`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.data import DATASETS
from lib.evaluation.claims import PAPER_EXTREME, PAPER_GAIN
from lib.evaluation.tasks import ESTIMATES, TASKS
from lib.report.figures import COLOURS, DASHES, MARKERS, WIDTH, legend

KINDS = {
    "primary": "primary: ",
    "control": "positive control: ",
    "intact control": "its intact pairs: ",
    "extended control": "with runs added: ",
}
CAP = 1e4  # percent; what is divided by nothing is drawn there


def forest(effects: pd.DataFrame, runs: pd.DataFrame, margin: float, base: pd.Series, titles: dict[str, str]) -> Figure:
    """The answer in one figure: a row for each planned comparison, its interval, and a dot for each training run.

    `effects` and `runs`: as from `lib.evaluation.planned.effects` and `by_run`. `base`: by data set, the baseline's
    robust accuracy over the same budgets, in percent, and the paper's +16 % of it a line.
    """
    datasets = list(dict.fromkeys(effects["dataset"]))
    counts = [sum(effects["dataset"] == name) for name in datasets]
    size = WIDTH, 0.6 + sum(0.32 * n + 0.6 for n in counts)
    figure, axes = plt.subplots(len(datasets), figsize=size, height_ratios=counts, squeeze=False)
    for ax, dataset in zip(axes[:, 0], datasets, strict=True):
        here = effects[effects["dataset"] == dataset].reset_index(drop=True)
        points = PAPER_GAIN / 100 * base[dataset]
        ax.axvspan(-margin, margin, color="0.93", zorder=0)
        ax.axvline(0, color="0.4", lw=0.8, zorder=1)
        ax.axvline(points, color="#D55E00", ls="--", lw=1.2, zorder=1)
        above = {"va": "bottom", "transform": ax.get_xaxis_transform(), "fontsize": 7}
        ax.text(points, 1, f"the paper's\n+{PAPER_GAIN} %", color="#D55E00", ha="left", **above)
        ax.text(-margin, 1, f"within {margin:g} points:\nno effect that matters", color="0.35", ha="right", **above)
        for y, row in here.iterrows():
            of_pair = (runs[["dataset", "one", "other"]] == [dataset, row["one"], row["other"]]).all(axis=1)
            shown = of_pair & runs["seed"].astype(str).isin(row["seeds"].split())
            _comparison(ax, y, row, runs.loc[shown, "difference"])
        pairs = [f"{KINDS.get(row.kind, '')}{row.one} − {row.other}, {row.runs} run" for row in here.itertuples()]
        names = [f"{pair}s" if n > 1 else pair for pair, n in zip(pairs, here["runs"], strict=True)]
        for tick in ax.set_yticks(range(len(here)), names)[: sum(here["kind"] == "primary")]:
            tick.label1.set_weight("bold")
        ax.set_ylim(len(here) - 0.45, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_title(titles[dataset], pad=24)
        header = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7, "color": "0.35"}
        ax.annotate("difference (95 % CI)", (1.01, 1), (0, 22), **header)
    axes[-1, 0].set_xlabel("difference of robust accuracy, percentage points")
    return figure


def _comparison(ax, y, row, differences):
    """One row of `forest`: the interval, the mean, a dot for each run below them, and the numbers on the right."""
    colour, first = COLOURS[row["one"]], row["kind"] == "primary"
    ax.plot(differences, np.full(len(differences), y + 0.24), ".", color=colour, ms=4.5, alpha=0.6, mew=0)
    width, size = (2.4, 7) if first else (1.6, 5.5)
    ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=width, solid_capstyle="butt")
    ax.plot(row["difference"], y, MARKERS[row["one"]], color=colour, ms=size, mec="white", mew=0.6)
    known = np.isfinite(row["ci_low"])
    said = f"{row['difference']:+.1f}" + (f" ({row['ci_low']:+.1f} to {row['ci_high']:+.1f})" if known else "")
    style = {"fontsize": 7.5, "weight": "bold" if first else "normal"}
    ax.text(1.01, y, said.replace("-", "−"), va="center", transform=ax.get_yaxis_transform(), **style)


def tasks(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The paper's tasks and all of them together, in points and, on the right, as the relative change.

    `table`: as from `lib.evaluation.tasks.beside_published`; its rows over all tasks are set off.
    """
    titles = {name: DATASETS[name].short for name in TASKS} | titles  # of the other tasks too
    table = table.reset_index(drop=True)
    heads = table["kind"].ne(table["kind"].shift())
    places = np.arange(len(table)) + heads.cumsum()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.7 + 0.3 * places.iloc[-1]), sharey=True)
    for ax, columns in zip(axes, ESTIMATES.values(), strict=True):
        for y, (_, row) in zip(places, table.iterrows(), strict=True):
            mean, low, high = row[list(columns)].astype(float)
            whole = row["dataset"] not in titles
            colour = "0.1" if whole else COLOURS[row["one"]]
            ax.plot([low, high], [y, y], color=colour, lw=2.4 if whole else 1.6, solid_capstyle="butt")
            ax.plot(mean, y, "D" if whole else MARKERS[row["one"]], color=colour, ms=5.5, mec="white", mew=0.6)
            said = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")
            style = {"fontsize": 7, "weight": "bold" if whole else "normal", "va": "center"}
            ax.text(1.01, y, said, transform=ax.get_yaxis_transform(), **style)
        ax.axvline(0, color="0.4", lw=0.8, zorder=1)
        ax.grid(axis="y", visible=False)
    axes[0].axvspan(*table["margin"].iloc[0] * np.array([-1, 1]), color="0.93", zorder=0)
    axes[1].axvline(PAPER_GAIN, color="#D55E00", ls="--", lw=1.2, zorder=1)
    above = {"va": "bottom", "ha": "center", "fontsize": 7, "color": "#D55E00"}
    axes[1].text(PAPER_GAIN, 1, f"the paper's +{PAPER_GAIN} %", transform=axes[1].get_xaxis_transform(), **above)
    names = [f"{titles.get(row.dataset, row.dataset)}, {row.runs} runs" for row in table.itertuples()]
    for tick, row in zip(axes[0].set_yticks(places, names), table.itertuples(), strict=True):
        tick.label1.set_weight("normal" if row.dataset in titles else "bold")
    for row in table[heads].itertuples():
        question, at = f"{row.kind}: {row.one} − {row.other}", (0, places[row.Index] - 1)
        style = {"fontsize": 8, "weight": "bold", "ha": "right", "va": "center"}
        axes[0].annotate(question, at, (-7, 0), axes[0].get_yaxis_transform(), "offset points", **style)
    axes[0].set_ylim(places.iloc[-1] + 0.6, -0.6)
    axes[0].set_xlabel("difference of robust accuracy, percentage points")
    axes[1].set_xlabel("relative change, %")
    return figure


def up_to(gains: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The largest relative gain over budgets in each pair of runs, of the comparisons and of chance, as dots.

    `gains`: as from `lib.evaluation.planned.largest_gains`. Left over typical budgets, right over extreme ones. Pairs
    of one seed are dark, pairs of two seeds faint.
    """
    gains = gains.assign(
        pair=np.where(gains["one"] == gains["other"], "one baseline − another", gains["one"] + " − " + gains["other"])
    )
    pairs = list(dict.fromkeys(gains["pair"]))
    datasets = list(dict.fromkeys(gains["dataset"]))
    height = 0.3 * len(pairs) + 0.75
    figure, axes = plt.subplots(len(datasets), 2, figsize=(WIDTH, height * len(datasets)), squeeze=False, sharey=True)
    rng = np.random.default_rng(0)
    for line, dataset in zip(axes, datasets, strict=True):
        line[0].set_ylabel(titles[dataset])
        for ax, regime, claim in zip(line, ("typical", "extreme"), (PAPER_GAIN, PAPER_EXTREME), strict=True):
            for y, pair in enumerate(pairs):
                here = gains[(gains["dataset"] == dataset) & (gains["pair"] == pair)]
                one, said = here["one"].iloc[0] if len(here) else "baseline", []
                for matched, alpha, size in ((False, 0.18, 2.5), (True, 0.8, 4.5)):
                    known = here[(here["seed"] == here["over"]) == matched][regime].dropna().clip(upper=CAP)
                    spread = y + rng.uniform(-0.18, 0.18, len(known))
                    ax.plot(known, spread, MARKERS[one], color=COLOURS[one], ms=size, alpha=alpha, mew=0)
                    said += [f"{(known >= claim).sum()} of {len(known)}"] if len(known) else []
                said = "; ".join(reversed(said)) or "no such budget"
                ax.text(1.01, y, said, va="center", transform=ax.get_yaxis_transform(), fontsize=7)
            ax.axvline(claim, color="#D55E00", ls="--", lw=1.2)
            ax.axvline(0, color="0.4", lw=0.8)
            ax.set_yticks(range(len(pairs)), pairs)
            ax.set_ylim(len(pairs) - 0.5, -0.6)
            ax.grid(axis="y", visible=False)
            ax.set_title(f"{regime} budgets")
            ax.text(1.01, 1, f"+{claim} %\nor more", va="bottom", transform=ax.transAxes, fontsize=7, color="#D55E00")
            if regime == "extreme":
                ax.set_xscale("symlog", linthresh=100)
                ax.set_xlim(-150, 2 * CAP)
                ax.set_xticks([-100, 0, 100, 1000, CAP], ["-100", "0", "100", "1,000", "∞"])
            ax.set_xlabel("largest relative gain of a pair of runs, %")
    return figure


def dose(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """How much the branch has a part in the logits, against the change of robust accuracy: a point for each run.

    `points`: dataset, variant, seed, part (the change of the logits when the branch is taken out, by their size, in
    percent; NaN, and not drawn, without a branch) and difference (of robust accuracy to the baseline of that seed,
    percentage points). Open: constant.
    """
    datasets = list(dict.fromkeys(points["dataset"]))
    figure, axes = plt.subplots(1, len(datasets), figsize=(WIDTH, 2.6), squeeze=False)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        here = points[points["dataset"] == dataset].dropna(subset="part")
        for variant, group in here.groupby("variant", sort=False):
            look = {"color": COLOURS[variant], "alpha": 0.8}
            look |= {"markerfacecolor": "white"} if variant.startswith("uniform") else {}
            ax.plot(group["part"], group["difference"], MARKERS[variant], label=variant, **look)
        ax.axhline(0, color="0.4", lw=0.8)
        ax.set_title(titles[dataset])
    axes[0, 0].set_ylabel("robust accuracy less the baseline's,\npercentage points")
    figure.supxlabel("change of the logits when the branch is taken out, % of their size", fontsize=8)
    return legend(figure, axes[0], side="right")


def spread(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """How many positions each network's attention map spreads over: a dot for each run, filled clean, open attacked.

    `points`: as from `lib.evaluation.planned.spread_by_run`.
    """
    datasets = list(dict.fromkeys(points["dataset"]))
    variants = list(dict.fromkeys(points["variant"]))
    size = (WIDTH, 0.9 + 0.3 * len(variants))
    figure, axes = plt.subplots(1, len(datasets), figsize=size, squeeze=False, sharey=True)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        here = points[points["dataset"] == dataset]
        even = here["positions"].iloc[0]
        ax.axvline(even, color="0.4", lw=0.8, ls="--")
        for (variant, attacked), group in here.groupby(["variant", "attacked"], sort=False):
            y = np.full(len(group), variants.index(variant) + (0.14 if attacked else -0.14))
            face = "white" if attacked else COLOURS[variant]
            look = {"color": COLOURS[variant], "marker": MARKERS[variant], "markerfacecolor": face}
            ax.plot(group["effective"], y, ls="", ms=5, **look)
        ax.set(xlim=(0, 1.05 * even), title=titles[dataset])
        ax.set_yticks(range(len(variants)), variants)
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_ylim(len(variants) - 0.5, -0.5)
    figure.supxlabel("positions that the attention map spreads over (dashed: an even map)", fontsize=8)
    return figure


def spread_by_step(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """How many positions each attention map spreads over in training: a line for each training run.

    `points`: as from `lib.study.Runs.spread_by_step`; a panel for each network, or data set.
    """
    apart = "network" if len(set(points["network"])) > 1 else "dataset"
    figure, axes = plt.subplots(1, points[apart].nunique(), figsize=(WIDTH, 2.6), squeeze=False, sharey=True)
    for ax, (name, here) in zip(axes[0], points.groupby(apart, sort=False), strict=True):
        for (variant, _), run in here.groupby(["variant", "seed"], sort=False):
            ax.plot(run["step"], run["effective"], DASHES[variant], color=COLOURS[variant], lw=1.2, label=variant)
        ax.set(title=titles.get(name, name), xlabel="training step", xlim=(0, None))
    axes[0, 0].set(ylim=(0, 1.05 * points["effective"].max()), ylabel="positions that the\nattention map spreads over")
    return legend(figure, axes[0], side="right")


def natural(accuracies: pd.DataFrame, title: str) -> Figure:
    """Accuracy under each natural change against its severity, a line for each variant, of one data set.

    `accuracies`: as from `lib.evaluation.natural.accuracies`. Severity 0 is the image as it is; bands: Wilson's 95 %.
    """
    kinds = [kind for kind in dict.fromkeys(accuracies["change"]) if kind != "none"]
    columns = 5
    lines = -(-len(kinds) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH, 1.5 * lines + 0.5), sharex=True, sharey=True, squeeze=False
    )
    for ax, kind in zip(axes.flat, kinds, strict=False):
        here = accuracies[accuracies["change"].isin(["none", kind])]
        for (variant, _), group in here.groupby(["variant", "seed"], sort=False):
            look = {"color": COLOURS[variant], "marker": MARKERS[variant], "ls": DASHES[variant]}
            ax.plot(group["severity"], 100 * group["accuracy"], ms=2.5, lw=1, label=variant, **look)
            if variant == "baseline":
                ends = 100 * group["ci_low"], 100 * group["ci_high"]
                ax.fill_between(group["severity"], *ends, color=COLOURS[variant], alpha=0.12, lw=0)
        ax.set_title(kind)
        ax.set_xticks(range(6))
    for ax in axes.flat[len(kinds) :]:
        ax.axis("off")
    for ax in axes[-1]:
        ax.set_xlabel("severity")
    for line in axes:
        line[0].set_ylabel("accuracy, %")
    return legend(figure, axes[0, :1], 4, "right", title=title)
