"""The claims of the paper against what this run measured, each with a rule that gives the verdict.

All functions read data frames and nothing else; the rules stand here in words (`RULES`) and beside every
verdict in the claims table.
"""

import re
from collections.abc import Mapping
from functools import wraps
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.evaluation.statistics import (
    MeanInterval,
    balanced_difference,
    holm,
    mean_over_seeds,
    paired_difference,
    relative_change,
)

TYPICAL = 0.10
"""Typical budgets are those at which the baseline keeps this robust accuracy, extreme ones those below it.

The paper's text that would define the two words is missing; this is a reconstruction."""

PAPER_GAIN = 16
"""The paper's best relative gain of robust accuracy in typical scenarios, in percent."""

CLEAN_MARGIN = 0.02
"""The loss of clean accuracy, as a share, that counts as none (a non-inferiority margin, chosen here)."""

FEWEST_MAPS = 6
"""Images with a Grad-CAM map of both variants, clean and attacked, below which C6 is not judged."""

UNTESTABLE = "not testable on this data"

CLAIMS = {
    "C1": (
        "soft attention raises robust accuracy in typical adversarial scenarios",
        f"up to +{PAPER_GAIN} % (relative)",
    ),
    "C2": ("soft attention raises robust accuracy in extreme cases", "up to +2700 % (relative)"),
    "C3": ("clean accuracy is not sacrificed", "no drop"),
    "C4": ("attention adds few parameters to the ResNet-50 classifier", "< 1.3 %"),
    "C5": ("most runs stop early", "after 60 to 90 epochs of at most 300"),
    "C6": ("Grad-CAM of the two models behaves differently under attack", "a figure"),
    "S1": (
        "part of attention's change in typical scenarios that is seen only when attacked through the softmax",
        "not said",
    ),
    "S2": ("part of C6 that is due to the attention within its head", "not said"),
    "S3": (
        "attention's change of robust accuracy in typical scenarios, every class weighing the same",
        "not said",
    ),
}

UNITS = {"C1": "% (relative)", "C4": "%", "C5": "epochs (median)"} | dict.fromkeys(
    ("C6", "S2"), "difference of rank correlations"
)
"""What a claim's number counts, where it is not percentage points."""

ABOUT_ATTENTION = ("C1", "C2", "C3", "C6", "S1", "S2", "S3")
"""Claims that cannot be judged where the attention branch is off."""

PAIR = "in this pair of networks"
"""What a verdict from one training run of each variant is about."""

UNDECIDED = "not judged, one training run"
"""The verdict where each variant was trained once: its interval is over images alone."""

ONE_RUN = (
    "One training run of each variant decides nothing: an interval is then over images alone, and two runs of one "
    "network may differ as much. Such a claim is not judged, whatever its interval."
)

RULES = {
    "C1": "Relative change of robust accuracy, averaged over the typical budgets. Reproduced if its 95 % interval "
    "lies above 0, not reproduced if it lies below 0, else inconclusive. (The paper says 'up to', the best of "
    "several budgets, which flatters any method; the average does not. Which budgets are typical is read off the "
    "same images.)",
    "C2": "Difference of robust accuracy in points, averaged over those extreme budgets at which either network has an "
    "image right, or at the smallest of them if none stands (the relative change is undefined where the baseline has "
    "none). Reproduced if its 95 % interval lies above 0, not reproduced if it lies below 0, else inconclusive.",
    "C3": f"Difference of clean accuracy in points. Reproduced if its 95 % interval lies above {-100 * CLEAN_MARGIN:g} "
    "points, otherwise not reproduced if it lies below 0, else inconclusive.",
    "C4": "Parameters of the block on ResNet-50, in percent of the backbone's, counted in the built model. "
    "Reproduced if below 1.3. (The dense layer after it is wider than the baseline's, which adds to that, the more "
    "the more classes. Of a narrower backbone it is more: see the table of clean accuracies.)",
    "C5": "Epochs until training stopped. Testable only with the paper's limit of 300 epochs and patience of 40; "
    "reproduced if more than half of the runs stop between 60 and 90.",
    "C6": "Attention minus baseline in the mean rank correlation of clean and attacked Grad-CAM, paired by image, with "
    "an interval over images and, with several, training runs. Reproduced if its 95 % interval excludes 0, else "
    "inconclusive: the paper shows pictures, not numbers. (Over images whose maps are not constant, of which at "
    "least 6 must be left. Whether it is the attention or the rest of its head that does it is S2's question.)",
    "S1": "Attention minus baseline when the attack goes through the softmax output, less the same when it goes "
    "through the logits, in points, averaged over the typical budgets of both and paired by image; the headline attack "
    "if it was run both ways, else PGD. Gain overstated through the softmax if its 95 % interval lies above 0, "
    "understated if below, else no difference seen. (Not a claim of the paper, but its Keras models end in a softmax, "
    "whose saturation hides gradients.)",
    "S2": "The same as C6, attention minus `pooling`, which has the attentive head without the attention. Due to the "
    "attention if its 95 % interval excludes 0, else no difference seen. (Not a claim of the paper: C6 alone would "
    "give attention what max-pooling does.)",
    "S3": "Difference of robust accuracy in points, averaged over the typical budgets within each class and then over "
    "the classes. Higher if its 95 % interval lies above 0, lower if below, else no difference seen. (Not a claim of "
    "the paper, whose accuracy is mostly that of the most frequent class. With few images in a class the interval is "
    "a lower bound of the uncertainty.)",
}


class Inactive(NamedTuple):
    """In how many of a variant's training runs the attention branch is off; as text "2 of 3 runs"."""

    off: int
    runs: int

    @property
    def all(self) -> bool:
        return self.off == self.runs

    def __str__(self):
        return f"{self.off} of {self.runs} runs"


def inactive_attention(clean_accuracy: pd.DataFrame, feature_layer: str = "") -> dict[str, Inactive]:
    """For data sets on which gamma is at or below 0 in kept attention models: in how many.

    The block multiplies a feature map that is never negative by gamma, and a ReLU follows: once gamma is at
    or below 0 the branch gives zeros and gets no gradient, so it stays off, and what is left of the variant
    is max-pooling and dropout. Where it is off in every run no claim about attention is judged; single runs that end so
    stay in, as what training led to. Not so where the block reads a map that can be negative, before the backbone's
    last ReLU (`feature_layer` conv5_block3_add): gamma shuts nothing off there.
    """
    if feature_layer == "conv5_block3_add":
        return {}
    attention = clean_accuracy[clean_accuracy["variant"] == "attention"]
    off = (attention["gamma"] <= 0).groupby(attention["dataset"]).agg(["sum", "size"])
    return {name: Inactive(row["sum"], row["size"]) for name, row in off.iterrows() if row["sum"]}


def stem(verdict: str) -> str:
    """A verdict without what stands behind it in brackets or after a colon."""
    return re.split(r" \(|: ", verdict)[0]


def compare(outcomes: pd.DataFrame, attack: str, norm: str, through: str = "logits") -> pd.DataFrame:
    """Attention against baseline at every budget of one attack.

    Returns one row per data set and epsilon: dataset, epsilon, n, seeds, baseline, attention (robust accuracies),
    difference, ci_low, ci_high (shares, paired 95 % interval), p_value (McNemar's exact test; NaN with several
    training runs), p_holm (the same, adjusted by Holm for all rows of the table), percent, percent_low, percent_high
    (relative change) and regime (typical or extreme).
    """
    here = under(outcomes, attack, norm, through)
    rows = []
    for (dataset, epsilon), group in here.groupby(["dataset", "epsilon"], sort=False):
        if epsilon == 0:
            continue
        baseline, attention = (_matrix(group, "variant", variant) for variant in ("baseline", "attention"))
        difference = paired_difference(baseline, attention)
        relative = relative_change(baseline, attention)
        rows.append(
            {
                "dataset": dataset,
                "epsilon": epsilon,
                "n": difference.images,
                "seeds": difference.seeds,
                "baseline": baseline.mean(),
                "attention": attention.mean(),
                "difference": difference.difference,
                "ci_low": difference.low,
                "ci_high": difference.high,
                "p_value": difference.p_value,
                "p_holm": np.nan,
                "percent": relative.percent,
                "percent_low": relative.low,
                "percent_high": relative.high,
                "regime": "typical" if baseline.mean() >= TYPICAL else "extreme",
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"])
    return table


def softmax_gap(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What an attack misses when it goes through the softmax instead of the logits, at every budget.

    Returns one row per data set, variant, attack that was run both ways, and epsilon: n, seeds, logits, softmax
    (robust accuracies), difference (softmax minus logits: robustness that is not there), ci_low, ci_high (paired
    95 % interval). An attack that was run on fewer images one way is compared on those.
    """
    keys = ["dataset", "variant", "attack", "norm", "epsilon"]
    rows = []
    for key, group in outcomes[outcomes["epsilon"] > 0].groupby(keys, sort=False):
        if group["through"].nunique() < 2:
            continue
        shared = _of_all(group, "through")
        logits, softmax = (_matrix(shared, "through", route) for route in ("logits", "softmax"))
        gap = paired_difference(logits, softmax)
        rows.append((*key, gap.images, gap.seeds, logits.mean(), softmax.mean(), gap.difference, gap.low, gap.high))
    columns = [*keys, "n", "seeds", "logits", "softmax", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def under(outcomes, attack, norm, through):
    """The rows of one attack, of a table with columns attack, norm and through."""
    return outcomes[(outcomes[["attack", "norm", "through"]] == [attack, norm, through]).all(axis=1)]


def _of_all(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of those images that every value of `column` has."""
    values = table.groupby("image_id")[column].transform("nunique")
    return table[values == table[column].nunique()]


def _matrix(table: pd.DataFrame, column: str, value: str, outcome: str = "correct") -> np.ndarray:
    """(seeds, images) of an outcome where `column` has this value, images in the same order for every value."""
    rows = table[table[column] == value]
    return rows.pivot_table(index="seed", columns="image_id", values=outcome, aggfunc="mean").to_numpy()


def ledger(
    outcomes: pd.DataFrame,
    predictions: pd.DataFrame,
    histories: pd.DataFrame,
    shifts: pd.DataFrame,
    resnet50_percent: float,
    head_percent: float,
    *,
    headline: tuple[str, str, str],
    protocol: bool,
    label: str,
    inactive: Mapping[str, Inactive] | None = None,
) -> pd.DataFrame:
    """The claims table: claim, statement, dataset, paper, ours, ci_low, ci_high, unit, n, runs, verdict, rule.

    `headline`: attack, norm and output of the attack that C1 and C2 are judged on. `resnet50_percent`: the
    block's share of ResNet-50's parameters (C4), `head_percent`: that of all parameters that the attentive network
    has more than the baseline, of 7 classes. `protocol`: whether training ran with the paper's 300 epochs and
    patience of 40 (C5). `label`: the data, said in every verdict on them. `inactive`: data sets on which
    the attention branch is off in some kept models, see `inactive_attention`.
    """
    curve = compare(outcomes, *headline)
    rows = []
    for dataset in dict.fromkeys(outcomes["dataset"]):
        here, attacked, tested, trained, explained = (
            table[table["dataset"] == dataset] for table in (curve, outcomes, predictions, histories, shifts)
        )
        standing = here[here[["baseline", "attention"]].max(axis="columns") > 0]
        typical, extreme = (standing.loc[standing["regime"] == regime, "epsilon"] for regime in ("typical", "extreme"))
        if extreme.empty:  # whether a last image stands is chance: the verdict must not hang on it
            extreme = here.loc[here["regime"] == "extreme", "epsilon"].head(1)
        under_headline = under(attacked, *headline)
        found = {
            "C1": _relative(under_headline, typical),
            "C2": _difference(under_headline, extreme),
            "C3": _clean(tested),
            "C5": _stopping(trained, protocol),
            "C6": _gradcam(explained, "baseline", ("reproduced", "inconclusive")),
            "S1": _softmax(attacked, typical, headline),
            "S2": _gradcam(explained, "pooling", ("due to the attention", "no difference seen")),
            "S3": _balanced(under_headline, typical),
        }
        rows += [
            {"claim": claim, "dataset": dataset, "unit": UNITS.get(claim, "points")} | row
            for claim, row in found.items()
        ]
    for row in rows:
        runs = (inactive or {}).get(row["dataset"]) if row["claim"] in ABOUT_ATTENTION else None
        if runs and runs.all:
            row["verdict"] = f"{UNTESTABLE}: attention inactive in {runs}, gamma <= 0 ({label})"
            continue
        if row.get("seeds") == 1 and not row["verdict"].startswith("not tested"):
            row["verdict"] = UNDECIDED
        row["verdict"] += f" ({label}; attention inactive in {runs})" if runs else f" ({label})"
    rows.append(
        {
            "claim": "C4", "dataset": "any", "unit": UNITS["C4"], "ours": resnet50_percent,
            "verdict": ("reproduced" if resnet50_percent < 1.3 else "not reproduced")
            + f" (the block; with the wider dense layer after it {head_percent:.2f} %, of 7 classes)",
        }
    )  # fmt: skip
    table = pd.DataFrame(rows).rename(columns={"seeds": "runs"})
    table["statement"], table["paper"] = zip(*table["claim"].map(CLAIMS), strict=True)
    table["rule"] = table["claim"].map(RULES)
    columns = [
        "claim",
        "statement",
        "dataset",
        "paper",
        "ours",
        "ci_low",
        "ci_high",
        "unit",
        "n",
        "runs",
        "verdict",
        "rule",
    ]
    order = table["claim"].rank(method="first").sort_values().index
    return table.reindex(columns=columns).loc[order].reset_index(drop=True)


def _verdict(low: float, high: float, above: float = 0.0, below: float = 0.0) -> str:
    return "reproduced" if low > above else "not reproduced" if high < below else "inconclusive"


def _judged_where_some(judge):
    """A rule on budgets of one regime, of which a curve need not have any."""

    @wraps(judge)
    def judged(outcomes, epsilons, *more):
        return {"verdict": UNTESTABLE} if epsilons.empty else judge(outcomes, epsilons, *more)

    return judged


def _in_points(change, verdict, scale=100):
    """A row of the ledger from a paired difference of shares."""
    return {
        "n": change.images, "seeds": change.seeds, "verdict": verdict,
        "ours": scale * change.difference, "ci_low": scale * change.low, "ci_high": scale * change.high,
    }  # fmt: skip


def _share_survived(attacked: pd.DataFrame, epsilons) -> tuple[np.ndarray, np.ndarray]:
    """Per seed and image, the share of these budgets that it survives: what an average over budgets is made of."""
    part = attacked[attacked["epsilon"].isin(epsilons)].assign(correct=lambda t: t["correct"].astype(float))
    return tuple(_matrix(part, "variant", variant) for variant in ("baseline", "attention"))


@_judged_where_some
def _relative(attacked, epsilons):
    baseline, attention = _share_survived(attacked, epsilons)
    change = relative_change(baseline, attention)
    return {
        "ours": change.percent, "ci_low": change.low, "ci_high": change.high,
        "n": baseline.shape[1], "seeds": len(baseline), "verdict": _verdict(change.low, change.high),
    }  # fmt: skip


@_judged_where_some
def _difference(attacked, epsilons):
    change = paired_difference(*_share_survived(attacked, epsilons))
    return _in_points(change, _verdict(change.low, change.high))


@_judged_where_some
def _balanced(attacked, epsilons):
    shares = _share_survived(attacked, epsilons)
    labels = attacked.groupby("image_id")["label"].first()  # by image_id, as in the matrices of shares
    change = balanced_difference(*shares, labels.to_numpy())
    words = {"reproduced": "higher", "not reproduced": "lower", "inconclusive": "no difference seen"}
    return {
        "ours": 100 * change.mean, "ci_low": 100 * change.low, "ci_high": 100 * change.high,
        "n": change.n, "seeds": len(shares[0]), "verdict": words[_verdict(change.low, change.high)],
    }  # fmt: skip


@_judged_where_some
def _softmax(outcomes, epsilons, headline):
    for attack in (headline[:2], ("pgd", "linf")):
        routes = [under(outcomes, *attack, through) for through in ("logits", "softmax")]
        both = epsilons[np.all([epsilons.isin(route["epsilon"]) for route in routes], axis=0)]
        if len(both):
            break
    else:
        return {"verdict": UNTESTABLE}
    shared = _of_all(pd.concat(routes), "through")
    logits, softmax = (_share_survived(shared[shared["through"] == through], both) for through in ("logits", "softmax"))
    # Differences of shares lie in [-1, 1], the bootstrap takes shares: halved, and doubled again, and with them the
    # difference of 1 that the two made-up images have.
    hidden = [(1 + through - true) / 2 for through, true in zip(softmax, logits, strict=True)]
    change = paired_difference(*hidden, step=0.5)
    words = {
        "reproduced": "gain overstated through the softmax",
        "not reproduced": "gain understated through the softmax",
        "inconclusive": "no difference seen",
    }
    return _in_points(change, words[_verdict(change.low, change.high)], 200)


def _clean(predictions):
    change = paired_difference(*(_matrix(predictions, "variant", variant) > 0 for variant in ("baseline", "attention")))
    return _in_points(change, _verdict(change.low, change.high, above=-CLEAN_MARGIN))


def _stopping(histories, protocol):
    stopped = histories.groupby(["variant", "seed"])["epoch"].max()
    row = {"ours": float(stopped.median()), "n": len(stopped)}
    if not protocol:
        return row | {"verdict": f"{UNTESTABLE}: it needs up to 300 epochs and a patience of 40"}
    return row | {"verdict": "reproduced" if stopped.between(60, 90).mean() > 0.5 else "not reproduced"}


def map_difference(shifts: pd.DataFrame, other: str = "baseline") -> MeanInterval:
    """Attention minus another variant in the rank correlation of clean and attacked Grad-CAM, paired by image (C6)."""
    wide = shifts[shifts["map"] == "gradcam"].pivot_table(
        index=["seed", "image_id"], columns="variant", values="rank_correlation", dropna=False
    )
    return mean_over_seeds((wide["attention"] - wide[other]).unstack("image_id").to_numpy())  # noqa: PD010


def _gradcam(shifts, other, words):
    shifts = shifts[shifts["map"] == "gradcam"]
    if other not in set(shifts["variant"]):
        return {"verdict": f"not tested: no {other} was trained"}
    mean = map_difference(shifts, other)
    verdict = words[0 if mean.low > 0 or mean.high < 0 else 1]
    return {
        "n": mean.n, "seeds": shifts.loc[shifts["variant"] == other, "seed"].nunique(),
        "ours": mean.mean, "ci_low": mean.low, "ci_high": mean.high,
        "verdict": verdict if mean.n >= FEWEST_MAPS else UNTESTABLE,
    }  # fmt: skip


def estimate(value: float, low: float, high: float, unit: str) -> str:
    """A number with its unit and, where it has one, its interval, as text; "-" where there is none."""
    interval = "" if pd.isna(low) else f" ({low:.3g} to {high:.3g})"
    return "-" if pd.isna(value) else f"{value:.3g} {unit}{interval}"


def printed(claims: pd.DataFrame) -> pd.DataFrame:
    """The claims for people, as text: each with the paper's number, ours with its 95 % interval, n and the verdict."""
    return pd.DataFrame(
        {
            "claim": claims["claim"] + ": " + claims["statement"],
            "data set": claims["dataset"],
            "paper": claims["paper"],
            "here (95 % interval)": [
                estimate(r["ours"], r["ci_low"], r["ci_high"], r["unit"]) for _, r in claims.iterrows()
            ],
            "n": claims["n"].map(lambda n: "-" if pd.isna(n) else f"{n:.0f}"),
            "verdict": claims["verdict"],
        }
    )
