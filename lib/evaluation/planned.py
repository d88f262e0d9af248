"""The comparisons that a profile plans (`planned`): whole training runs, paired by their seed.

The outcome of a run is its robust accuracy in the worst case over attacks, averaged over the planned budgets. Intervals
are Student's over the runs' differences, so that they say how another training run may come out.
"""

from itertools import product

import numpy as np
import pandas as pd
from statsmodels.stats.power import TTestPower

from lib.evaluation.comparison import TYPICAL, matrix
from lib.evaluation.statistics import holm, images_and_runs, over_runs
from lib.profile.settings import Planned

RUN = ["dataset", "variant", "seed"]
POWER = 0.8
FEWEST_RUNS = 5
"""Training runs below which nothing is concluded: the spread of so few is itself too uncertain, so that whether their
interval holds 0 can hang on how a processor rounds (`./reproduce bench machines`)."""

WORST = "worst case"
CONTROLS = "control", "intact control", "extended control"
HIGHER, LOWER, SAME, OPEN = "higher", "lower", "no effect that would matter", "not decided"


def worst_case(outcomes: pd.DataFrame, norm: str = "linf", through: str = "logits") -> pd.DataFrame:
    """Whether each image stands under all attacks: dataset, variant, seed, image_id, label, epsilon, correct.

    Counted are the attacks of this norm and output that every run of the data set met on every attacked image at that
    budget: an attack that some runs were spared would make the others look weaker. Epsilon 0 is the clean image.
    """
    keys = [*RUN, "image_id", "label", "epsilon"]
    here = outcomes[(outcomes["norm"] == norm) & (outcomes["through"] == through)]
    if here.empty:
        return pd.DataFrame(columns=[*keys, "correct"])
    runs = here.groupby("dataset")[["variant", "seed"]].apply(lambda table: len(table.drop_duplicates()))
    rows = here["dataset"].map(runs * here.groupby("dataset")["image_id"].nunique())
    met = here.groupby(["dataset", "attack", "epsilon"])["correct"].transform("size") == rows
    return here[met].groupby(keys, sort=False)["correct"].all().reset_index()


def with_worst_case(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Outcomes, and before them `worst_case` as an attack "worst case" where several share a norm and output."""
    kinds = outcomes.groupby(["norm", "through"], sort=False)["attack"].nunique()
    several = [{"norm": norm, "through": through} for norm, through in kinds.index[kinds > 1]]
    worst = [worst_case(outcomes, **kind).assign(attack=WORST, **kind) for kind in several]
    return pd.concat([*worst, outcomes])[list(outcomes)]


def over_budgets(worst: pd.DataFrame, budgets) -> pd.DataFrame:
    """Robust accuracy of every run: dataset, variant, seed, n (images), robust_accuracy, balanced (over classes)."""
    here = worst[worst["epsilon"].isin(budgets)]
    by_class = here.groupby([*RUN, "label"], sort=False)["correct"].mean()
    table = here.groupby(RUN, sort=False).agg(n=("image_id", "nunique"), robust_accuracy=("correct", "mean"))
    return table.assign(balanced=by_class.groupby(RUN).mean()).reset_index()


def by_run(worst: pd.DataFrame, pairs, budgets) -> pd.DataFrame:
    """One variant minus another in each training run that both have, in percentage points.

    Columns: dataset, one, other, seed, difference, balanced (class-balanced), both_right (among the images that both
    classify correctly when nothing attacks them), percent (the relative change; infinite where `other` keeps nothing).
    """
    rows = []
    for dataset, here in worst.groupby("dataset", sort=False):
        clean = here[here["epsilon"] == 0].pivot_table(index=["variant", "seed"], columns="image_id", values="correct")
        part = here[here["epsilon"].isin(budgets)]
        stands = part.pivot_table(index=["variant", "seed"], columns="image_id", values="correct")
        shares = over_budgets(here, budgets).set_index(["variant", "seed"])
        for one, other in pairs:
            seeds = [seed for variant, seed in shares.index if variant == one and (other, seed) in shares.index]
            for seed in seeds:
                first, second = shares.loc[(one, seed)], shares.loc[(other, seed)]
                right = (clean.loc[(one, seed)] > 0) & (clean.loc[(other, seed)] > 0)
                apart = stands.loc[(one, seed)][right] - stands.loc[(other, seed)][right]
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio = np.float64(first["robust_accuracy"]) / second["robust_accuracy"]
                rows.append(
                    {
                        "dataset": dataset, "one": one, "other": other, "seed": seed,
                        "difference": 100 * (first["robust_accuracy"] - second["robust_accuracy"]),
                        "balanced": 100 * (first["balanced"] - second["balanced"]),
                        "both_right": 100 * apart.mean(),
                        "percent": 100 * (ratio - 1),
                    }
                )  # fmt: skip
    columns = ["dataset", "one", "other", "seed", "difference", "balanced", "both_right", "percent"]
    return pd.DataFrame(rows, columns=columns)


def clean_by_run(predictions: pd.DataFrame, pairs) -> pd.DataFrame:
    """One variant minus another in clean accuracy on the whole test split, in each run that both have.

    Columns: dataset, one, other, seed, clean, clean_balanced (over classes), in percentage points.
    """
    by_class = predictions.groupby([*RUN, "label"], sort=False)["correct"].mean()
    shares = predictions.groupby(RUN, sort=False).agg(clean=("correct", "mean"))
    shares = 100 * shares.assign(clean_balanced=by_class.groupby(RUN).mean())
    tables = []
    for one, other in pairs:
        named = [shares.xs(name, level="variant") for name in (one, other) if name in shares.index.unique("variant")]
        if len(named) == 2:
            tables.append((named[0] - named[1]).dropna().reset_index().assign(one=one, other=other))
    columns = ["dataset", "one", "other", "seed", "clean", "clean_balanced"]
    return pd.concat([pd.DataFrame(columns=columns), *tables], ignore_index=True)[columns]


def smallest_seen(values) -> float:
    """The difference that so many runs of this spread would have shown, at 5 %, in four of five experiments."""
    spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
    if not spread > 0:
        return spread
    return float(spread * TTestPower().solve_power(nobs=len(values), alpha=0.05, power=POWER))


def effects(worst: pd.DataFrame, predictions: pd.DataFrame, planned: Planned, budgets) -> pd.DataFrame:
    """The planned comparisons, a row for each data set and pair; differences in percentage points.

    Columns: dataset, kind (primary, secondary, control; extended control: with the runs that were added to those
    planned; intact control: of these, the ones that were not trained again in between), one, other, n (images), runs,
    seeds (which, as text), difference, ci_low, ci_high (95 %, Student's t over the runs), p_value,
    p_holm (of the secondary ones, adjusted together; with the primary one, if it is planned as secondary too, as in one
    of several tasks), smallest_seen, both_low, both_high (sensitivity: a bootstrap over
    images and runs), percent, percent_low, percent_high (relative change, by the runs' log ratios), the same difference
    with its interval class-balanced (balanced) and among images that both classify correctly (both_right), that of
    clean accuracy on the whole test split, plain and class-balanced (clean, clean_balanced), margin, conclusion.
    """
    others = [pair for pair in planned.secondary if pair != planned.primary]
    comparisons = [("primary", planned.primary), *(("secondary", pair) for pair in others)]
    comparisons += [(kind, planned.control) for kind in CONTROLS if planned.control]
    rows = []
    for (dataset, here), (kind, pair) in product(worst.groupby("dataset", sort=False), comparisons):
        found = by_run(here, [pair], budgets)
        if found.empty or (kind == "extended control" and len(found) <= (planned.control_runs or len(found))):
            continue
        if kind == "control":
            found = found.iloc[: planned.control_runs]
        if kind == "intact control":
            intact = found["seed"].isin(planned.control_intact)
            if not intact.any() or intact.all():
                continue
            found = found[intact]
        row = dict(zip(("difference", "ci_low", "ci_high", "p_value"), over_runs(found["difference"]), strict=True))
        row |= {"smallest_seen": smallest_seen(found["difference"])}
        part = here[here["epsilon"].isin(budgets) & here["seed"].isin(found["seed"])]
        shares = [matrix(part.astype({"correct": float}), "variant", variant) for variant in reversed(pair)]
        row |= dict(zip(("both_low", "both_high"), 100 * np.array(images_and_runs(*shares)), strict=True))
        with np.errstate(divide="ignore"):  # a run that keeps nothing has no ratio
            ratios = 100 * np.expm1(over_runs(np.log1p(found["percent"] / 100))[:3])
        row |= dict(zip(("percent", "percent_low", "percent_high"), ratios, strict=True))
        found = found.merge(clean_by_run(predictions[predictions["dataset"] == dataset], [pair]))
        for name in ("balanced", "both_right", "clean", "clean_balanced"):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), over_runs(found[name])[:3], strict=True))
        about, seeds = {"dataset": dataset, "kind": kind, "one": pair[0], "other": pair[1]}, found["seed"].astype(str)
        rows.append(about | {"n": shares[0].shape[1], "runs": len(found), "seeds": " ".join(seeds)} | row)
    table = pd.DataFrame(rows)
    family = ["secondary"] + ["primary"] * (planned.primary in planned.secondary)
    adjusted = table["p_value"].where(table["kind"].isin(family)).groupby(table["dataset"]).transform(holm)
    table.insert(table.columns.get_loc("p_value") + 1, "p_holm", adjusted)
    table["margin"] = planned.margin
    said = (conclusion(r.ci_low, r.ci_high, planned.margin, r.p_holm) for r in table.itertuples())
    table["conclusion"] = [OPEN if n < FEWEST_RUNS else words for words, n in zip(said, table["runs"], strict=True)]
    return table


def printed(effects: pd.DataFrame) -> pd.DataFrame:
    """The planned comparisons for people, as text: differences in points and relative changes with their intervals."""

    def interval(row, name, low, high):
        if pd.isna(row[name]):
            return "-"
        ends = "" if pd.isna(row[low]) else f" ({row[low]:+.1f} to {row[high]:+.1f})"
        return f"{row[name]:+.1f}{ends}"

    columns = {
        "difference, points (95 % CI)": ("difference", "ci_low", "ci_high"),
        "relative, %": ("percent", "percent_low", "percent_high"),
        "class-balanced, points": ("balanced", "balanced_low", "balanced_high"),
        "where both are right, points": ("both_right", "both_right_low", "both_right_high"),
        "clean accuracy, points": ("clean", "clean_low", "clean_high"),
    }
    rows = [row for _, row in effects.iterrows()]
    said = {name: [interval(row, *keys) for row in rows] for name, keys in columns.items()}
    return pd.DataFrame(
        {
            "data set": effects["dataset"],
            "comparison": effects["kind"] + ": " + effects["one"] + " minus " + effects["other"],
            "runs": effects["runs"],
            "n": effects["n"],
            **said,
            "would have been seen": effects["smallest_seen"].map(lambda seen: "-" if pd.isna(seen) else f"{seen:.1f}"),
            "p (Holm)": effects["p_holm"].map(lambda p: "-" if pd.isna(p) else f"{p:.2g}"),
            "conclusion": effects["conclusion"],
        }
    )


def conclusion(low: float, high: float, margin: float, p_holm: float = np.nan) -> str:
    """What an interval of a difference says, by the rules of docs/protocol.md; of a secondary one, its p-value too."""
    said = [word for word, holds in ((HIGHER, low > 0), (LOWER, high < 0)) if holds and not p_holm >= 0.05]
    return ", ".join(said + [SAME] * (-margin < low and high < margin)) or OPEN


def largest_gains(worst: pd.DataFrame, pairs) -> pd.DataFrame:
    """The largest relative gain over typical and over extreme budgets, of pairs of training runs: what "up to" is.

    Such a maximum flatters whatever is compared; how far, two runs of one network say. One row per data set and pair of
    runs, of one seed or of two: one, other, seed, over (the seed that is divided by), typical and extreme (percent; NaN
    without such a budget, infinite where the run divided by has nothing left). Typical are the budgets at which the run
    divided by keeps at least 10 %.
    """
    rows = []
    for dataset, here in worst[worst["epsilon"] > 0].groupby("dataset", sort=False):
        shares = here.pivot_table(index=["variant", "seed"], columns="epsilon", values="correct")
        runs = {variant: list(shares.loc[variant].index) for variant in shares.index.unique("variant")}
        for one, other in [*pairs, ("baseline", "baseline")]:
            for seed, over in product(runs.get(one, []), runs.get(other, [])):
                base = shares.loc[(other, over)]
                with np.errstate(divide="ignore", invalid="ignore"):
                    gain = 100 * (shares.loc[(one, seed)] / base - 1)
                typical = base >= TYPICAL
                if (one, seed) != (other, over):
                    rows.append((dataset, one, other, seed, over, gain[typical].max(), gain[~typical].max()))
    return pd.DataFrame(rows, columns=["dataset", "one", "other", "seed", "over", "typical", "extreme"])


def part(branch: pd.DataFrame) -> pd.DataFrame:
    """How much the attention branch has a part in each run's answers, by what changes when it is taken out.

    `branch`: per image, as from `lib.study.Study.branch`. Columns: dataset, variant, seed, n, part (the change of the
    logits in percent of their size, both root mean squares), answers (percent that change).
    """
    rows = []
    for key, group in branch.groupby(RUN, sort=False):
        change = 100 * np.sqrt((group["change"] ** 2).sum() / (group["size"] ** 2).sum())
        rows.append((*key, len(group), change, 100 * (group["predicted"] != group["without"]).mean()))
    return pd.DataFrame(rows, columns=[*RUN, "n", "part", "answers"])


def dose(branch: pd.DataFrame, worst: pd.DataFrame, budgets) -> pd.DataFrame:
    """`part`, and beside it `difference`: the run's robust accuracy less that of the baseline of the same seed.

    In percentage points, NaN without such a baseline.
    """
    table = part(branch)
    pairs = [[variant, "baseline"] for variant in dict.fromkeys(table["variant"])]
    differences = by_run(worst, pairs, budgets).rename(columns={"one": "variant"})
    return table.merge(differences[[*RUN, "difference"]], "left", RUN)


def spread_by_run(spread: pd.DataFrame) -> pd.DataFrame:
    """How far each network's attention map spreads, mean over its images, clean and attacked.

    `spread`: per image, as from `lib.study.Study.spread`. Columns: dataset, variant, seed, attacked, n, positions (of
    the map), effective, peak.
    """
    by_run = spread.astype({"effective": float, "peak": float}).groupby([*RUN, "attacked"], sort=False)
    table = by_run.agg(n=("image_id", "size"), positions=("positions", "first"), effective=("effective", "mean"),
                       peak=("peak", "mean"))  # fmt: skip
    return table.reset_index()


def by_dose(dose: pd.DataFrame) -> pd.DataFrame:
    """The runs of `dose` that have a baseline, a row for each variant, the weakest branch first; described, not tested.

    Columns: dataset, variant, runs, off (runs whose branch changes nothing), part_low, part_high (percent), difference,
    ci_low, ci_high (percentage points, Student's t over the runs; NaN of one run).
    """
    rows = []
    for key, runs in dose.dropna(subset="difference").groupby(["dataset", "variant"], sort=False):
        off = int((runs["part"] == 0).sum())
        rows.append((*key, len(runs), off, runs["part"].min(), runs["part"].max(), *over_runs(runs["difference"])[:3]))
    columns = ["dataset", "variant", "runs", "off", "part_low", "part_high", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns).sort_values(["dataset", "part_high"], ignore_index=True)
