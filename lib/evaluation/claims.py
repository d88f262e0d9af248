"""The claims of the paper against what this run measured, each with a rule that gives the verdict.

The rules stand in words in `claims.yaml` and beside every verdict in the claims table.
"""

import re
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from lib.evaluation.comparison import compare, matrix
from lib.evaluation.planned import FEWEST_RUNS, worst_case
from lib.evaluation.statistics import MeanInterval, mean_over_seeds, paired_difference, relative_change

CLEAN_MARGIN = 0.01
"""The loss of clean accuracy, as a share, that counts as none (a non-inferiority margin, chosen here)."""

FEWEST_MAPS = 6
"""Images with a Grad-CAM map of both variants, clean and attacked, below which C6 is not judged."""

UNTESTABLE = "not testable on this data"


class Claim(NamedTuple):
    """What `claims.yaml` says of a claim; `paper_value`: the paper's number where it is in the unit of ours."""

    statement: str
    paper: str
    unit: str
    about_attention: bool
    rule: str
    paper_value: float | None = None


CLAIMS = {
    name: Claim(**about)
    for name, about in yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")).items()
}

PAPER_GAIN = CLAIMS["C1"].paper_value
"""The paper's best relative gain of robust accuracy in typical scenarios, in percent."""

PAPER_EXTREME = 2700
"""Its best relative gain in extreme scenarios, in percent."""

PAIR = "in this pair of networks"
"""What a verdict from one training run of each variant is about."""

FEW_RUNS = (
    f"Fewer than {FEWEST_RUNS} training runs of each variant decide nothing: of one, an interval is over images alone; "
    "of two to four it is over the runs, and itself too uncertain. Such a claim is not judged, whatever its interval."
)


class Inactive(NamedTuple):
    """In how many of a variant's training runs the attention branch is off; as text "2 of 3 runs"."""

    off: int
    runs: int

    @property
    def all(self) -> bool:
        return self.off == self.runs

    def __str__(self):
        return f"{self.off} of {self.runs} runs"


def inactive_attention(clean_accuracy: pd.DataFrame) -> dict[str, Inactive]:
    """For data sets on which gamma is at or below 0 in kept attention models: in how many.

    The block multiplies a feature map that is never negative by gamma, and a ReLU follows: once gamma is at
    or below 0 the branch gives zeros and gets no gradient, so it stays off; max-pooling and dropout are left.
    Where it is off in every run no claim about attention is judged; single runs that end so stay in, as what training
    led to. (Where a map can be negative, gamma shuts nothing off: see `Model.gated`.)
    """
    attention = clean_accuracy[clean_accuracy["variant"] == "attention"]
    off = (attention["gamma"] <= 0).groupby(attention["dataset"]).agg(["sum", "size"])
    return {name: Inactive(row["sum"], row["size"]) for name, row in off.iterrows() if row["sum"]}


def undecided(runs: int) -> str:
    """The verdict where each variant was trained so few times."""
    return f"not judged, {runs} training runs" if runs > 1 else "not judged, one training run"


def stem(verdict: str) -> str:
    """A verdict without what stands behind it in brackets or after a colon."""
    return re.split(r" \(|: ", verdict)[0]


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

    `headline`: attack, norm and output of the main attack; C1 and C2 are judged on the worst case over all attacks
    of this norm and output that every run met, see `lib.evaluation.planned.worst_case`. `resnet50_percent`: the
    block's share of ResNet-50's parameters (C4), `head_percent`: that of all parameters that the attentive network
    has more than the baseline, of 7 classes. `protocol`: whether training ran with the paper's 300 epochs and
    patience of 40 (C5). `label`: the data, said in every verdict on them. `inactive`: data sets on which
    the attention branch is off in some kept models, see `inactive_attention`.
    """
    attack, norm, through = headline
    worst = worst_case(outcomes, norm, through).assign(attack=attack, norm=norm, through=through)
    curve = compare(worst, *headline)
    rows = []
    for dataset in dict.fromkeys(outcomes["dataset"]):
        here, hardest, tested, trained, explained = (
            table[table["dataset"] == dataset] for table in (curve, worst, predictions, histories, shifts)
        )
        standing = here[here[["baseline", "attention"]].max(axis="columns") > 0]
        typical, extreme = (standing.loc[standing["regime"] == regime, "epsilon"] for regime in ("typical", "extreme"))
        if extreme.empty:  # whether a last image stands is chance: the verdict must not hang on it
            extreme = here.loc[here["regime"] == "extreme", "epsilon"].head(1)
        found = {
            "C1": _relative(hardest, typical),
            "C2": _difference(hardest, extreme),
            "C3": _clean(tested),
            "C5": _stopping(trained, protocol),
            "C6": _gradcam(explained),
        }
        rows += [{"claim": claim, "dataset": dataset} | row for claim, row in found.items()]
    for row in rows:
        runs = (inactive or {}).get(row["dataset"]) if CLAIMS[row["claim"]].about_attention else None
        if runs and runs.all:
            row["verdict"] = f"{UNTESTABLE}: attention inactive in {runs}, gamma <= 0 ({label})"
            continue
        if row.get("seeds", FEWEST_RUNS) < FEWEST_RUNS:
            row["verdict"] = undecided(row["seeds"])
        row["verdict"] += f" ({label}; attention inactive in {runs})" if runs else f" ({label})"
    few = resnet50_percent < CLAIMS["C4"].paper_value
    verdict = f"(the block; with the wider dense layer after it {head_percent:.2f} %, of 7 classes)"
    verdict = f"{'reproduced' if few else 'not reproduced'} {verdict}"
    rows.append({"claim": "C4", "dataset": "any", "ours": resnet50_percent, "verdict": verdict})
    table = pd.DataFrame(rows).rename(columns={"seeds": "runs"})
    for fact in ("statement", "paper", "unit", "rule"):
        table[fact] = [getattr(CLAIMS[claim], fact) for claim in table["claim"]]
    columns = ["claim", "statement", "dataset", "paper", "ours", "ci_low", "ci_high", "unit", "n", "runs", "verdict"]
    order = table["claim"].rank(method="first").sort_values().index
    return table.reindex(columns=[*columns, "rule"]).loc[order].reset_index(drop=True)


def of_pairs(pairs, frames: dict[str, pd.DataFrame], inactive: Mapping[str, Inactive], **about) -> pd.DataFrame:
    """The ledgers of several pairs of variants, one below the other, with columns variant and against.

    `pairs`: of an attentive variant and one that it is held against, each pair judged on the training runs that both
    have, as if they were `attention` and `baseline`. `frames`: outcomes, predictions, histories and shifts; `inactive`:
    where the branch of `attention` is off; `about`: what else `ledger` takes.
    """
    tables = []
    for variant, against in pairs:
        ours = {name: of_pair(table, variant, against) for name, table in frames.items()}
        table = ledger(**ours, inactive=inactive if variant == "attention" else {}, **about)
        table.insert(2, "variant", variant)
        table.insert(3, "against", against)
        tables.append(table if not tables else table[table["claim"].map(lambda claim: CLAIMS[claim].about_attention)])
    return pd.concat(tables).sort_values("claim", kind="stable", ignore_index=True)


def first_pair(claims: pd.DataFrame) -> pd.DataFrame:
    """Of the ledgers of several pairs, that of the paper's own comparison, which comes first."""
    pairs = claims.reindex(columns=["variant", "against"]).astype(object).fillna("-")
    return claims[(pairs == pairs.iloc[0]).all(axis=1)]


def of_pair(table: pd.DataFrame, variant: str, against: str) -> pd.DataFrame:
    """The rows of the training runs that both variants have, under the names `attention` and `baseline`."""
    run = pd.MultiIndex.from_frame(table[["dataset", "seed"]])
    shared = [run.isin(run[table["variant"] == name]) for name in (variant, against)]
    names = {variant: "attention", against: "baseline"}
    table = table[shared[0] & shared[1] & table["variant"].isin(names)]
    return table.assign(variant=table["variant"].replace(names))


def _verdict(low: float, high: float, above: float = 0.0, below: float = 0.0) -> str:
    return "reproduced" if low > above else "not reproduced" if high < below else "inconclusive"


def _judged_where_some(judge):
    """A rule on budgets of one regime, of which a curve need not have any."""

    @wraps(judge)
    def judged(outcomes, epsilons, *more):
        return {"verdict": UNTESTABLE} if epsilons.empty else judge(outcomes, epsilons, *more)

    return judged


def _in_points(change, verdict):
    """A row of the ledger from a paired difference of shares."""
    return {
        "n": change.images, "seeds": change.seeds, "verdict": verdict,
        "ours": 100 * change.difference, "ci_low": 100 * change.low, "ci_high": 100 * change.high,
    }  # fmt: skip


def _share_survived(attacked: pd.DataFrame, epsilons) -> tuple[np.ndarray, np.ndarray]:
    """Per seed and image, the share of these budgets that it survives: what an average over budgets is made of."""
    part = attacked[attacked["epsilon"].isin(epsilons)].assign(correct=lambda t: t["correct"].astype(float))
    return tuple(matrix(part, "variant", variant) for variant in ("baseline", "attention"))


@_judged_where_some
def _relative(attacked, epsilons):
    baseline, attention = _share_survived(attacked, epsilons)
    change = relative_change(baseline, attention)
    verdict = _verdict(change.low, change.high)
    if verdict == "inconclusive" and change.high < PAPER_GAIN:  # open is whether there is a gain, not one of that size
        verdict += f", +{PAPER_GAIN} % excluded"
    return {
        "ours": change.estimate, "ci_low": change.low, "ci_high": change.high,
        "n": baseline.shape[1], "seeds": len(baseline), "verdict": verdict,
    }  # fmt: skip


@_judged_where_some
def _difference(attacked, epsilons):
    change = paired_difference(*_share_survived(attacked, epsilons))
    return _in_points(change, _verdict(change.low, change.high))


def _clean(predictions):
    change = paired_difference(*(matrix(predictions, "variant", variant) > 0 for variant in ("baseline", "attention")))
    return _in_points(change, _verdict(change.low, change.high, above=-CLEAN_MARGIN))


def _stopping(histories, protocol):
    stopped = histories.groupby(["variant", "seed"])["epoch"].max()
    row = {"ours": float(stopped.median()), "n": len(stopped)}
    if not protocol:
        return row | {"verdict": f"{UNTESTABLE}: it needs up to 300 epochs and a patience of 40"}
    return row | {"verdict": "reproduced" if stopped.between(60, 90).mean() > 0.5 else "not reproduced"}


def map_difference(shifts: pd.DataFrame, attentive: str = "attention") -> MeanInterval:
    """Attention minus baseline in the rank correlation of clean and attacked Grad-CAM, paired by image (C6)."""
    wide = shifts[shifts["map"] == "gradcam"].pivot_table(
        index=["seed", "image_id"], columns="variant", values="rank_correlation", dropna=False
    )
    return mean_over_seeds((wide[attentive] - wide["baseline"]).unstack("image_id").to_numpy())  # noqa: PD010


def _gradcam(shifts):
    shifts = shifts[shifts["map"] == "gradcam"]
    mean = map_difference(shifts)
    verdict = "reproduced" if mean.low > 0 or mean.high < 0 else "inconclusive"
    return {
        "n": mean.n, "seeds": shifts.loc[shifts["variant"] == "baseline", "seed"].nunique(),
        "ours": mean.mean, "ci_low": mean.low, "ci_high": mean.high,
        "verdict": verdict if mean.n >= FEWEST_MAPS else UNTESTABLE,
    }  # fmt: skip


def estimate(value: float, low: float, high: float, unit: str) -> str:
    """A number with its unit and, where it has one, its interval, as text; "-" where there is none."""
    change = unit == "points" or unit.endswith("(relative)")  # said everywhere with its sign and one digit

    def text(number):
        return f"{round(number, 1) + 0.0:+.1f}" if change else f"{number:.3g}"

    interval = "" if pd.isna(low) else f" ({text(low)} to {text(high)})"
    return "-" if pd.isna(value) else f"{text(value)} {unit}{interval}"


def printed(claims: pd.DataFrame) -> pd.DataFrame:
    """The claims for people, as text: each with the paper's number, ours with its 95 % interval, n and the verdict."""
    pairs = claims.reindex(columns=["variant", "against"]).astype(object).fillna("-")
    pair = pairs["variant"] + " with " + pairs["against"]
    return pd.DataFrame(
        {
            "claim": claims["claim"] + ": " + claims["statement"],
            **({"compared": pair} if len(set(pair)) > 1 else {}),
            "data set": claims["dataset"],
            "paper": claims["paper"],
            "here (95 % interval)": [
                estimate(r["ours"], r["ci_low"], r["ci_high"], r["unit"]) for _, r in claims.iterrows()
            ],
            "n": claims["n"].map(lambda n: "-" if pd.isna(n) else f"{n:.0f}"),
            "verdict": claims["verdict"],
        }
    )
