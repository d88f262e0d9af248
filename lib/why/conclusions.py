"""What the measures of 06_why add up to: attribution of the difference, and sentences that the numbers carry.

A sentence says that something changed only where the 95 % interval of the paired comparison excludes no
change, and "no difference seen" otherwise.
"""

import pandas as pd

from lib.statistics import holm, paired_difference
from lib.why import summary
from lib.why.summary import MEASURES, paired, typical

ISOLATES = {
    "baseline": "the whole attentive head",
    "pooling": "attention, in the same head",
    "frozen": "attention, against the same block with gamma held at 0",
    "attention-no-dropout": "the dropout",
    "attention-reference": "the formula, against the reference code's arithmetic",
}
"""What the difference between attention and each other variant is due to."""


def attribution(
    outcomes: pd.DataFrame, headline: tuple[str, str, str], inactive=None, label: str = ""
) -> pd.DataFrame:
    """What the difference is due to: attention minus every other variant under the headline attack.

    Robust accuracy is averaged over the typical budgets (those at which the baseline keeps 10 %). One row per
    data set and other variant: dataset, against, isolates, epsilons, n, seeds, attention, other, difference,
    ci_low, ci_high (points, paired 95 % interval over images, and seeds where both variants have several),
    p_value (McNemar's, by the share of budgets survived), p_holm (by Holm over all rows) and `conclusion`, by
    the rule of `concluded`.
    """
    here = outcomes[(outcomes[["attack", "norm", "through"]] == list(headline)).all(axis=1)]
    rows = []
    for dataset, part in here.groupby("dataset", sort=False):
        epsilons = typical(part[part["variant"] == "baseline"])
        part = part[part["epsilon"].isin(epsilons)]
        for variant in dict.fromkeys(part["variant"]):
            if variant == "attention":
                continue
            other, attention = paired(part, variant, "attention")
            change = paired_difference(other, attention)
            rows.append(
                {
                    "dataset": dataset,
                    "against": variant,
                    "isolates": ISOLATES.get(variant, "soft attention, against another kind of attention"),
                    "epsilons": " ".join(f"{e:g}" for e in epsilons),
                    "n": change.images,
                    "seeds": change.seeds,
                    "attention": attention.mean(),
                    "other": other.mean(),
                    "difference": 100 * change.difference,
                    "ci_low": 100 * change.low,
                    "ci_high": 100 * change.high,
                    "p_value": change.p_value,
                }
            )
    columns = [
        "dataset",
        "against",
        "isolates",
        "epsilons",
        "n",
        "seeds",
        "attention",
        "other",
        "difference",
        "ci_low",
        "ci_high",
        "p_value",
    ]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p_value"])
    table["conclusion"] = [
        concluded(row, (inactive or {}).get(row["dataset"]), label) for _, row in table.iterrows()
    ]
    return table


def concluded(row, off: str | None = None, label: str = "") -> str:
    """The sentence of one row of `attribution`: its rule.

    "raises" or "lowers" where the 95 % interval lies above or below 0, "no difference seen" where it holds 0;
    "not to be attributed to attention" where its branch is off (gamma <= 0), whatever the numbers.
    """
    data = f" ({label})" if label else ""
    seeds = f"{row['seeds']} training runs" if row["seeds"] > 1 else "one training run"
    verdict = summary.direction(row, 0, "raises robust accuracy", "lowers robust accuracy")
    if off:
        verdict += f"; not to be attributed to attention, whose branch is off in {off}"
    return (
        f"{row['dataset']}{data}, attention minus {row['against']} ({row['isolates']}): {row['difference']:+.1f} "
        f"points ({row['ci_low']:.1f} to {row['ci_high']:.1f}), n = {row['n']}, {seeds}: {verdict}."
    )


def findings(
    attributed: pd.DataFrame,
    ratios: pd.DataFrame,
    dense: pd.DataFrame,
    dense_ratios: pd.DataFrame,
    titles: dict[str, str],
    inactive=None,
) -> pd.DataFrame:
    """Three sentences on what attention changes against the baseline: columns topic and sentence.

    Robustness (from `attribution`), its mechanism (`surface_ratios`: does the distance margin / slope change,
    and which of the two changed it) and the place (`density` and `density_ratios` of the input gradient in
    the lesion). `titles`: data sets as they are to be named. Where there are several seeds the numbers of
    mechanism and place are of the first. `inactive`: data sets on which the attention branch is off.
    """

    def within(row, value="ratio", digits=2):
        return f"{row[value]:.{digits}f} ({row['ci_low']:.{digits}f} to {row['ci_high']:.{digits}f})"

    robust, mechanism, place = [], [], []
    for dataset, title in titles.items():
        title += " (attention branch off)" if dataset in (inactive or {}) else ""
        rows = attributed[(attributed["dataset"] == dataset) & (attributed["against"] == "baseline")]
        if len(rows):
            row = rows.iloc[0]
            verdict = summary.direction(row, 0, "higher", "lower")
            points = f"{'+' if row['difference'] > 0 else ''}{within(row, 'difference', 1)} points"
            robust.append(f"{title} {points}, n = {row['n']}: {verdict}")
        here = ratios[(ratios["dataset"] == dataset) & (ratios["against"] == "baseline")]
        here = here.drop_duplicates("measure").set_index("measure")
        if len(here):
            distance, margin, slope = (
                here.loc[MEASURES[name][0]] for name in ("distance", "margin", "slope")
            )
            mechanism.append(
                f"{title} {within(distance)}, margin {within(margin)}, slope {within(slope)}, n = {distance['n']}: "
                + _mechanism(distance, margin, slope)
                if distance["n"]
                else f"{title} not measured, no image here is classified correctly by both"
            )
        gradient = dense[
            (dense["dataset"] == dataset) & (dense["region"] == "lesion") & (dense["attack"] == "gradient")
        ]
        gradient = gradient.drop_duplicates("variant").set_index("variant")
        change = dense_ratios[
            (
                dense_ratios[["dataset", "against", "region", "attack"]]
                == [dataset, "baseline", "lesion", "gradient"]
            ).all(axis=1)
        ]
        if len(change):
            row = change.iloc[0]
            shares = f"{gradient.loc['attention', 'mean']:.2f} against {gradient.loc['baseline', 'mean']:.2f} times"
            verdict = summary.direction(row, 1, "denser in the lesion", "less dense in the lesion")
            place.append(f"{title} {shares}, ratio {within(row)}, n = {row['n']}: {verdict}")
    sentences = {
        "robustness": "Robust accuracy of attention minus baseline, averaged over the typical budgets: "
        + "; ".join(robust),
        "mechanism": "Attention over baseline in the distance to the nearest mistake that a linear model would have, "
        "image by image: " + "; ".join(mechanism),
        "place": "Energy of the input gradient in the lesion, relative to an even spread, for attention and baseline: "
        + ("; ".join(place) or "no data set here has masks"),
    }
    return pd.DataFrame(
        [(topic, f"{sentence}.") for topic, sentence in sentences.items()], columns=["topic", "sentence"]
    )


def _mechanism(distance, margin, slope):
    """Which of margin and slope moved the distance, by their intervals."""
    moved = summary.direction(distance, 1, "farther", "nearer")
    if moved == "no difference seen":
        return moved
    wanted = ("larger", "flatter") if moved == "farther" else ("smaller", "steeper")
    causes = []
    if summary.direction(margin, 1, "larger", "smaller") == wanted[0]:
        causes.append(f"by a {wanted[0]} margin")
    if summary.direction(slope, 1, "steeper", "flatter") == wanted[1]:
        causes.append(f"by a {wanted[1]} slope")
    return f"{moved}, " + (" and ".join(causes) or "by neither of the two alone")


def everything(
    where: pd.DataFrame,
    surfaces: pd.DataFrame,
    equal: pd.DataFrame,
    frequencies: pd.DataFrame,
    soundness: pd.DataFrame,
    outcomes: pd.DataFrame,
    *,
    headline: tuple[str, str, str],
    inactive=None,
    label: str = "",
    titles: dict[str, str],
) -> dict[str, tuple[pd.DataFrame, str]]:
    """All tables of 06_why over several data sets and seeds, by file name, with their titles.

    The first five are the tables of `lib.why.measured`, `outcomes` those of `lib.evaluation`; the others go
    to `attribution` and `findings`.
    """
    attributed = attribution(outcomes, headline, inactive, label)
    ratios, dense, dense_ratios = (
        summary.surface_ratios(surfaces),
        summary.density(where),
        summary.density_ratios(where),
    )
    found = {
        "density": (dense, "Energy in a region relative to an even spread"),
        "density_ratios": (dense_ratios, "The same, attention over each other variant, image by image"),
        "maps": (summary.maps(where), "Maps against the lesion and against the clean map"),
        "first_to_move": (summary.first_to_move(where), "Whether the map moves before the prediction falls"),
        "surface": (summary.surface(surfaces), "Margin, slope and curvature of the loss"),
        "ratios": (ratios, "Margin, slope and curvature, attention over each other variant, image by image"),
        "matched": (
            summary.matched(equal),
            "Robust accuracy minus the baseline's, as it is and at equal confidence",
        ),
        "frequency": (summary.frequency(frequencies), "Accuracy under filtered perturbations"),
        "spectra": (summary.spectra(frequencies), "Energy of perturbations by frequency"),
        "sanity": (
            summary.sanity(soundness),
            "Rank correlation with the map of randomised models and of other methods",
        ),
        "attribution": (attributed, "Attention minus each other variant in points of robust accuracy"),
        "findings": (
            findings(attributed, ratios, dense, dense_ratios, titles, inactive),
            "What attention changes",
        ),
    }
    return {
        f"why_{name}": (table, title if name == "findings" else f"{title}, with 95 % intervals")
        for name, (table, title) in found.items()
        if len(table)
    }
