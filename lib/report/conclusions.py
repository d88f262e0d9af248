"""What the measures of 05_why add up to: attribution of the difference, and sentences that the numbers carry.

A sentence says that something changed only where the 95 % interval of the paired comparison excludes no
change, and "no difference seen" otherwise.
"""

import pandas as pd

from lib.evaluation.claims import PAIR
from lib.evaluation.comparison import under
from lib.evaluation.statistics import holm, paired_difference
from lib.report import summary
from lib.report.sentences import say
from lib.report.summary import MEASURES, paired, typical

NOTHING = "no difference"
COLUMNS = ["dataset", "against", "isolates", "epsilons", "n", "seeds", "attention", "other", "difference", "ci_low"]
COLUMNS += ["ci_high", "p_value", "by_run"]
SAME_MAP = 0.5  # rank correlation above which two maps count as much the same

ISOLATES = {
    "baseline": "the whole attentive head",
    "pooling": "attention, against the features themselves in its place",
    "uniform": "attention itself, against the reference's map held constant",
    "frozen": "attention, against the same block with gamma held at 0",
    "attention-no-dropout": "the dropout",
    "attention-reference": "the formula, against the reference code's arithmetic",
    "attention": "the reference code's arithmetic, against the formula with gamma as it was learnt",
    "attention-gamma1": "the reference code's arithmetic, against the formula with gamma 1",
    "attention-gamma3": "the reference code's arithmetic, against the formula with gamma 3",
    "adversarial": "attention, against adversarial training in its place",
}
"""What the difference between attention and each other variant is due to."""


def attribution(
    outcomes: pd.DataFrame,
    headline: tuple[str, str, str],
    inactive=None,
    label: str = "",
    attentive: str = "attention",
) -> pd.DataFrame:
    """What the difference is due to: attention (`attentive`) minus every other variant under the headline attack.

    Robust accuracy is averaged over the typical budgets (those at which the baseline keeps 10 %). One row per
    data set and other variant: dataset, against, isolates, epsilons, n, seeds, attention, other, difference,
    ci_low, ci_high (points, paired 95 % interval over images, and seeds where both variants have several),
    p_value (McNemar's, by the share of budgets survived; NaN with several training runs), by_run (the difference in
    each training run, points), p_holm (by Holm over all rows) and `conclusion`, by the rule of `concluded`.
    """
    here = under(outcomes, *headline)
    rows = []
    for dataset, part in here.groupby("dataset", sort=False):
        epsilons = typical(part[part["variant"] == "baseline"])
        part = part[part["epsilon"].isin(epsilons)]
        for variant in dict.fromkeys(part["variant"]):
            if variant == attentive:
                continue
            other, attention = paired(part, variant, attentive)
            change = paired_difference(other, attention)
            isolates = ISOLATES.get(variant, "soft attention, against another kind of attention")
            by_run = " ".join(f"{d:+.1f}" for d in 100 * (attention - other).mean(axis=1))
            points = [100 * share for share in change[:3]]
            rows.append((dataset, variant, isolates, " ".join(f"{e:g}" for e in epsilons), change.images, change.seeds,
                         attention.mean(), other.mean(), *points, change.p_value, by_run))  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = holm(table["p_value"])
    table["conclusion"] = [concluded(row, (inactive or {}).get(row["dataset"]), label) for _, row in table.iterrows()]
    return table


def single_runs(row) -> str:
    """The differences in the training runs of a row of `attribution`, as text."""
    return row["by_run"].replace(" ", ", ")


def concluded(row, off: str | None = None, label: str = "") -> str:
    """The sentence of one row of `attribution`: its rule.

    "raises" or "lowers" where the 95 % interval lies above or below 0, "no difference seen" where it holds 0.
    With one training run, "higher" or "lower in this pair of networks": two runs of one network may differ as
    much. "Not to be attributed to attention" where its branch is off (gamma <= 0), whatever the numbers.
    """
    several = row["seeds"] > 1
    return say("concluded", row=row, label=label, runs=single_runs(row), several=several, off=off)


def findings(attributed: pd.DataFrame, ratios: pd.DataFrame, titles: dict[str, str], inactive=None) -> pd.DataFrame:
    """Two sentences on what attention changes against the baseline: columns topic and sentence.

    Robustness (from `attribution`) and its mechanism (`surface_ratios`: does the distance margin / slope change, and
    which of the two changed it). `titles`: data sets as they are to be named. The mechanism is measured in each run by
    itself: with several, all are given, and a change is said only where it is seen in every run.
    `inactive`: data sets on which the attention branch is off.
    """

    def numbers(rows, value="ratio", digits=2):
        return ", ".join(
            f"{row[value]:.{digits}f} ({row['ci_low']:.{digits}f} to {row['ci_high']:.{digits}f})"
            for _, row in rows.iterrows()
        )

    robust, mechanism = [], []
    for dataset, title in titles.items():
        title += " (attention branch off)" if dataset in (inactive or {}) else ""
        rows = attributed[(attributed["dataset"] == dataset) & (attributed["against"] == "baseline")]
        if len(rows):
            row = rows.iloc[0]
            sign = "+" if row["difference"] > 0 else ""
            one = "" if row["seeds"] > 1 else f" {PAIR}"
            verdict = summary.direction(row, 0, f"higher{one}", f"lower{one}")
            runs = f", training runs {single_runs(row)}" if row["seeds"] > 1 else ""
            robust.append(f"{title} {sign}{numbers(rows, 'difference', 1)} points, n = {row['n']}{runs}: {verdict}")
        here = ratios[(ratios["dataset"] == dataset) & (ratios["against"] == "baseline")]
        if len(here):
            distance, margin, slope = (
                here[here["measure"] == MEASURES[name][0]] for name in ("distance", "margin", "slope")
            )
            mechanism.append(
                f"{title} {numbers(distance)}, n = {', '.join(map(str, distance['n']))}: "
                f"{_of_one(_mechanism(distance, margin, slope), distance)}"
                if distance["n"].all()
                else f"{title} not measured, no image here is classified correctly by both"
            )
    sentences = {
        "robustness": "Robust accuracy of attention minus baseline, averaged over the typical budgets: "
        + ("; ".join(robust) or "not measured, the baseline keeps 10 % at no budget"),
        "mechanism": "Attention over baseline in the estimated distance to the decision boundary (margin / slope, "
        "each by itself in `why_ratios`), image by image: " + "; ".join(mechanism),
    }
    return pd.DataFrame(
        [(topic, f"{sentence}.") for topic, sentence in sentences.items()], columns=["topic", "sentence"]
    )


def _of_one(verdict, rows):
    """A verdict of change, said of this pair of networks if there is one training run only."""
    return verdict if len(rows) > 1 or verdict.startswith("no ") else f"{verdict}, {PAIR}"


def _in_every_run(rows, nothing, more, less):
    """`summary.direction`, if it is the same in every training run."""
    said = [summary.direction(row, nothing, more, less) for _, row in rows.iterrows()]
    if len(set(said)) == 1:
        return said[0]
    some = " and ".join(f"{word} in {said.count(word)}" for word in (more, less) if word in said)
    verdict = f"{some} of {len(said)} training runs"
    return f"training runs contradict each other, {verdict}" if {more, less} <= set(said) else verdict


def _mechanism(distance, margin, slope):
    """Which of margin and slope moved the distance, by their intervals in every run."""
    moved = _in_every_run(distance, 1, "farther", "nearer")
    if moved not in ("farther", "nearer"):
        return moved
    wanted = ("larger", "flatter") if moved == "farther" else ("smaller", "steeper")
    causes = []
    if _in_every_run(margin, 1, "larger", "smaller") == wanted[0]:
        causes.append(f"by a {wanted[0]} margin")
    if _in_every_run(slope, 1, "steeper", "flatter") == wanted[1]:
        causes.append(f"by a {wanted[1]} slope")
    return f"{moved}, " + (" and ".join(causes) or "by neither of the two alone")


def everything(
    where: pd.DataFrame,
    surfaces: pd.DataFrame,
    frequencies: pd.DataFrame,
    soundness: pd.DataFrame,
    outcomes: pd.DataFrame,
    *,
    headline: tuple[str, str, str],
    inactive=None,
    label: str = "",
    titles: dict[str, str],
    attentive: str = "attention",
) -> dict[str, pd.DataFrame]:
    """All tables of 05_why over several data sets and seeds, by file name.

    The first four are the tables of `lib.explain.measured`, `outcomes` those of `lib.evaluation`; the others go
    to `attribution` and `findings`.
    """
    attributed = attribution(outcomes, headline, inactive, label, attentive)
    ratios = summary.surface_ratios(surfaces, attentive)
    found = {
        "density": summary.density(where),
        "maps": summary.maps(where),
        "surface": summary.surface(surfaces),
        "ratios": ratios,
        "frequency": summary.frequency(frequencies),
        "sanity": summary.sanity(soundness),
        "attribution": attributed,
        "findings": findings(attributed, ratios, titles, inactive),
    }
    return {f"why_{name}": table for name, table in found.items()}


def suggestions(
    tables: dict[str, pd.DataFrame], checks: pd.DataFrame, epsilon: float, attentive: str = "attention"
) -> pd.DataFrame:
    """What the sources suggest that makes attention robust, and what was measured: suggestion, measured, verdict.

    Of one data set and training run: `tables` as from `everything`, `checks` as from `lib.evaluation.trust_checks`.
    `epsilon`: the budget that is looked at. Two networks differ where their intervals do not overlap.
    """

    def rows(name, **wanted):
        table = tables.get(f"why_{name}", pd.DataFrame(columns=list(wanted)))
        return table[(table[list(wanted)] == list(wanted.values())).all(axis=1)]

    def said(row, value="mean"):
        return f"{row[value]:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})"

    def beside(name, value, less, more, **wanted):
        pair = [rows(name, variant=variant, **wanted) for variant in (attentive, "baseline")]
        if any(part.empty or part[value].isna().any() for part in pair):
            return "not measured", "-"
        one, other = (part.iloc[0] for part in pair)
        verdict = more if one["ci_low"] > other["ci_high"] else less if one["ci_high"] < other["ci_low"] else NOTHING
        return f"attention {said(one, value)}, baseline {said(other, value)}", verdict

    energy = rows("density", variant="baseline", region="lesion", attack="gradient")
    slope = rows("ratios", against="baseline", measure=MEASURES["slope"][0])
    maps = rows("sanity", against="backbone, bottom", map="gradcam")
    failed = checks[~checks["passed"].astype(bool)]
    unsound = maps[maps["mean"] > SAME_MAP]
    found = [
        (
            "attacks change what lies outside the lesion (Ma, Niu et al. 2021)",
            *(
                (f"gradient energy in the lesion, over an even spread: {said(energy.iloc[0])}",
                 summary.direction(energy.iloc[0], 1, "no: inside", "yes: outside"))
                if len(energy)
                else ("not measured: no masks", "-")
            ),
        ),
        (
            "attention keeps the network on the lesion (Datta et al. 2021)",
            *beside("maps", "mean", "less on it", "more on it", map="gradcam", measure="pointing", attack="clean"),
        ),
        (
            "robust networks have smoother loss surfaces (Mok et al. 2021)",
            *(
                (f"slope of the margin, attention over baseline: {said(slope.iloc[0], 'ratio')}",
                 summary.direction(slope.iloc[0], 1, "steeper", "flatter"))
                if len(slope) and slope["n"].iloc[0]
                else ("not measured: no image is right in both", "-")
            ),
        ),
        (
            "the robustness that is seen is masked gradients (Athalye et al. 2018)",
            f"{len(checks) - len(failed)} of {len(checks)} checks pass",
            "no sign of it" if failed.empty else f"see {', '.join(failed['check'].unique())}",
        ),
        (
            "attention filters high frequencies (Shao et al. 2021)",
            *beside("frequency", "accuracy", "weaker to them", "stronger to them", source="pgd", epsilon=epsilon,
                    cutoff=0.125, keep="high"),
        ),
        (
            "maps show the image, not the model (Adebayo et al. 2018)",
            "rank correlation after randomising all weights: "
            + ", ".join(f"{row['variant']} {said(row)}" for _, row in maps.iterrows()),
            f"yes, for {', '.join(unsound['variant'])}" if len(unsound) else "no: maps change with the weights",
        ),
    ]  # fmt: skip
    return pd.DataFrame(found, columns=["suggestion", "measured here (95 % CI)", "verdict"])
