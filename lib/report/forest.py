"""Figures of the planned comparisons, from the tables of `lib.evaluation.planned`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.report.figures import COLOURS, MARKERS, WIDTH

PAPER = 16  # percent, the paper's "up to" in typical scenarios
PAPER_EXTREME = 2700
CAP = 1e4  # percent; what is divided by nothing is drawn there


def forest(effects: pd.DataFrame, runs: pd.DataFrame, margin: float, base: pd.Series, titles: dict[str, str]) -> Figure:
    """The answer in one figure: a row for each planned comparison, its interval, and a dot for each training run.

    `effects` and `runs`: as from `lib.evaluation.planned.effects` and `by_run`. `base`: by data set, the baseline's robust
    accuracy over the same budgets, in percent, of which the paper's +16 % is a line. Shaded: the margin of equivalence.
    """
    datasets = list(dict.fromkeys(effects["dataset"]))
    counts = [sum(effects["dataset"] == name) for name in datasets]
    figure, axes = plt.subplots(
        len(datasets), figsize=(WIDTH, 0.55 + sum(0.34 * n + 0.45 for n in counts)), height_ratios=counts, squeeze=False
    )
    for ax, dataset in zip(axes[:, 0], datasets, strict=True):
        here = effects[effects["dataset"] == dataset].reset_index(drop=True)
        ax.axvspan(-margin, margin, color="0.93", zorder=0, label=f"margin of equivalence, ±{margin:g} points")
        ax.axvline(0, color="0.4", lw=0.8, zorder=1)
        paper = PAPER / 100 * base[dataset]
        ax.axvline(paper, color="#D55E00", ls="--", lw=1.2, zorder=1, label=f"the paper's +{PAPER} %, {paper:.1f} points here")
        for y, row in here.iterrows():
            pair = runs[(runs["dataset"] == dataset) & (runs["one"] == row["one"]) & (runs["other"] == row["other"])]
            colour, first = COLOURS[row["one"]], row["kind"] == "primary"
            ax.plot(pair["difference"], np.full(len(pair), y + 0.24), ".", color=colour, ms=4.5, alpha=0.6, mew=0)
            ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=2.4 if first else 1.6, solid_capstyle="butt")
            ax.plot(row["difference"], y, MARKERS[row["one"]], color=colour, ms=7 if first else 5.5, mec="white", mew=0.6)
            low, high = row["ci_low"], row["ci_high"]
            interval = f" ({low:+.1f} to {high:+.1f})" if np.isfinite(low) else ""
            ax.text(
                1.01, y, f"{row['difference']:+.1f}{interval}", va="center", transform=ax.get_yaxis_transform(), fontsize=7.5,
                weight="bold" if first else "normal",
            )  # fmt: skip
        words = {"primary": "primary: ", "control": "positive control: "}
        ax.set_yticks(
            range(len(here)),
            [f"{words.get(r['kind'], '')}{r['one']} - {r['other']}, {r['runs']} runs" for _, r in here.iterrows()],
        )
        for label, kind in zip(ax.get_yticklabels(), here["kind"], strict=True):
            label.set_weight("bold" if kind == "primary" else "normal")
        ax.set_ylim(len(here) - 0.45, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_title(titles[dataset])
    axes[-1, 0].set_xlabel("difference of robust accuracy, percentage points")
    axes[0, 0].legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.12), borderaxespad=0)
    return figure


def up_to(gains: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """The largest relative gain over budgets in each pair of runs, of the comparisons and of chance, as dots.

    `gains`: as from `lib.evaluation.planned.largest_gains`. Left over typical budgets, right over extreme ones.
    """
    gains = gains.assign(
        pair=np.where(gains["one"] == gains["other"], "one baseline - another", gains["one"] + " - " + gains["other"])
    )
    pairs = list(dict.fromkeys(gains["pair"]))
    datasets = list(dict.fromkeys(gains["dataset"]))
    height = 0.3 * len(pairs) + 0.75
    figure, axes = plt.subplots(len(datasets), 2, figsize=(WIDTH, height * len(datasets)), squeeze=False, sharey=True)
    rng = np.random.default_rng(0)
    for line, dataset in zip(axes, datasets, strict=True):
        for ax, regime, claim in zip(line, ("typical", "extreme"), (PAPER, PAPER_EXTREME), strict=True):
            for y, pair in enumerate(pairs):
                here = gains[(gains["dataset"] == dataset) & (gains["pair"] == pair)]
                known = here[regime].dropna().clip(upper=CAP)
                one = here["one"].iloc[0] if len(here) else "baseline"
                spread = y + rng.uniform(-0.18, 0.18, len(known))
                ax.plot(known, spread, MARKERS[one], color=COLOURS[one], ms=4, alpha=0.55, mew=0)
                said = f"{(known >= claim).sum()} of {len(known)}" if len(known) else "no such budget"
                ax.text(1.01, y, said, va="center", transform=ax.get_yaxis_transform(), fontsize=7)
            ax.axvline(claim, color="#D55E00", ls="--", lw=1.2)
            ax.axvline(0, color="0.4", lw=0.8)
            ax.set_yticks(range(len(pairs)), pairs)
            ax.set_ylim(len(pairs) - 0.5, -0.6)
            ax.grid(axis="y", visible=False)
            ax.set_title(f"{titles[dataset]}: {regime} budgets, dashed: the paper's +{claim} %")
            if regime == "extreme":
                ax.set_xscale("symlog", linthresh=100)
                ax.set_xlim(-150, 2 * CAP)
                ax.set_xticks([-100, 0, 100, 1000, CAP], ["-100", "0", "100", "1,000", "∞"])
            ax.set_xlabel("largest relative gain of a pair of runs, %")
    return figure


def dose(points: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """How much the branch has a part in the logits, against the change of robust accuracy: a point for each run.

    `points`: dataset, variant, seed, part (the change of the logits when the branch is taken out, by their size, in
    percent) and difference (of robust accuracy to the baseline of that seed, percentage points).
    """
    datasets = list(dict.fromkeys(points["dataset"]))
    figure, axes = plt.subplots(1, len(datasets), figsize=(max(4.2, WIDTH / 3 * len(datasets)), 2.6), squeeze=False)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        here = points[points["dataset"] == dataset]
        for variant, group in here.groupby("variant", sort=False):
            ax.plot(group["part"], group["difference"], MARKERS[variant], color=COLOURS[variant], label=variant, alpha=0.8)
        ax.axhline(0, color="0.4", lw=0.8)
        ax.set(title=titles[dataset], xlabel="change of the logits without the branch, % of their size")
    axes[0, 0].set_ylabel("robust accuracy minus the baseline's,\npercentage points")
    axes[0, -1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
