"""What the measures of 05_why add up to: the mechanism, and what the sources suggest held against it.

A sentence says that something changed only where the 95 % interval of the paired comparison excludes no
change, and "no difference seen" otherwise.
"""

import pandas as pd

from lib.evaluation.claims import PAIR
from lib.report import summary
from lib.report.summary import MEASURES

NOTHING = "no difference"
SAME_MAP = 0.5  # rank correlation above which two maps count as much the same


def mechanism(ratios: pd.DataFrame, titles: dict[str, str], inactive=None) -> str:
    """Whether the distance to the nearest mistake (margin / slope) differs from the baseline's, and which of the two
    changed it, in one sentence.

    `ratios`: as from `summary.surface_ratios`; `titles`: data sets as they are to be named; `inactive`: those on which
    the attention branch is off. Each training run is measured by itself: with several, all are given, and a change is
    said only where it is seen in every run.
    """
    said = []
    for dataset, title in titles.items():
        title += " (attention inactive)" if dataset in (inactive or {}) else ""
        here = ratios[(ratios["dataset"] == dataset) & (ratios["against"] == "baseline")]
        if here.empty:
            continue
        parts = [here[here["measure"] == MEASURES[name][0]] for name in ("distance", "margin", "slope")]
        if not parts[0]["n"].all():
            said.append(f"{title} not measured, no image here is classified correctly by both")
            continue
        numbers = ", ".join(_said(row, "ratio") for _, row in parts[0].iterrows())
        n = ", ".join(map(str, parts[0]["n"]))
        verdict = _mechanism(*parts)
        of_pair = f", {PAIR}" if len(parts[0]) == 1 and not verdict.startswith("no ") else ""
        said.append(f"{title} {numbers}, n = {n}: {verdict}{of_pair}")
    return (
        "The attentive network over the baseline in the estimated distance to the decision boundary (margin / slope, "
        f"each by itself in `why_ratios`), image by image: {'; '.join(said) or 'not measured'}."
    )


def _said(row, value="mean"):
    return f"{row[value]:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})"


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
    attentive: str = "attention",
) -> dict[str, pd.DataFrame]:
    """All tables of 05_why over several data sets and seeds, by file name, from those of `lib.explain.measured`."""
    return {
        "why_density": summary.density(where),
        "why_maps": summary.maps(where),
        "why_surface": summary.surface(surfaces),
        "why_ratios": summary.surface_ratios(surfaces, attentive),
        "why_frequency": summary.frequency(frequencies),
        "why_sanity": summary.sanity(soundness),
    }


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

    def beside(name, value, less, more, **wanted):
        pair = [rows(name, variant=variant, **wanted) for variant in (attentive, "baseline")]
        if any(part.empty or part[value].isna().any() for part in pair):
            return "not measured", "-"
        one, other = (part.iloc[0] for part in pair)
        verdict = more if one["ci_low"] > other["ci_high"] else less if one["ci_high"] < other["ci_low"] else NOTHING
        return f"attention {_said(one, value)}, baseline {_said(other, value)}", verdict

    def alone(found, what, value, unknown, less, more):
        if found.empty or not found["n"].iloc[0]:
            return f"not measured: {unknown}", "-"
        return f"{what}: {_said(found.iloc[0], value)}", summary.direction(found.iloc[0], 1, less, more)

    energy = rows("density", variant="baseline", region="lesion", attack="gradient")
    slope = rows("ratios", against="baseline", measure=MEASURES["slope"][0])
    maps = rows("sanity", against="backbone, bottom", map="gradcam")
    failed = checks[~checks["passed"].astype(bool)]
    unsound = maps[maps["mean"] > SAME_MAP]
    found = [
        (
            "attacks change what lies outside the lesion (Ma, Niu et al. 2021)",
            *alone(energy, "gradient energy in the lesion, over an even spread", "mean", "no masks", "no: inside",
                   "yes: outside"),
        ),
        (
            "attention keeps the network on the lesion (Datta et al. 2021)",
            *beside("maps", "mean", "less on it", "more on it", map="gradcam", measure="pointing", attack="clean"),
        ),
        (
            "robust networks have smoother loss surfaces (Mok et al. 2021)",
            *alone(slope, "slope of the margin, attention over baseline", "ratio", "no image is right in both",
                   "steeper", "flatter"),
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
            + ", ".join(f"{row['variant']} {_said(row)}" for _, row in maps.iterrows()),
            f"yes, for {', '.join(unsound['variant'])}" if len(unsound) else "no: maps change with the weights",
        ),
    ]  # fmt: skip
    return pd.DataFrame(found, columns=["suggestion", "measured here (95 % CI)", "verdict"])
