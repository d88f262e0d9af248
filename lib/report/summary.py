"""The per-image measures of 05_why as tables with n and 95 % intervals: data frames in, data frames out."""

import numpy as np
import pandas as pd

from lib.evaluation.comparison import shares
from lib.evaluation.planned import RUN
from lib.evaluation.statistics import mean_interval, proportion

MEASURES = {
    "margin": ("margin", "logits"),
    "slope": ("slope of the margin", "logits per gray level"),
    "distance": ("margin / slope", "gray levels"),
    "slope_by_attack": ("slope along an attack", "logits per gray level"),
}
"""Columns of `measured.loss_surface`: title and unit."""

SHARES = ("correct", "pointing")
"""Columns whose values are 0 or 1 (`pointing` is in between where several pixels are the highest)."""


BOUNDS = {"rank_correlation": (-1, 1)} | dict.fromkeys(("pointing", "iou", "top20_overlap", "correct"), (0, 1))
BOUNDS |= dict.fromkeys(("density", "slope", "slope_by_attack", "distance"), (0, np.inf))
"""What a mean can be: intervals end there."""


def _interval_rows(table, keys, values):
    """One row per group: the keys, n, mean, ci_low, ci_high, undefined of a column; of a share Wilson's interval."""
    rows = []
    for key, group in table.groupby(keys, sort=False, dropna=False):
        numbers = np.round(group[values].to_numpy(float), 12)  # a map equals itself but for rounding
        known = numbers[~np.isnan(numbers)]
        if values in SHARES and known.size and np.isin(known, (0, 1)).all():
            rows.append((*key, known.size, *proportion(known.astype(bool)), numbers.size - known.size))
        else:
            m = mean_interval(numbers, bounds=BOUNDS.get(values, (-np.inf, np.inf)))
            rows.append((*key, m.n, m.mean, m.low, m.high, m.undefined))
    return pd.DataFrame(rows, columns=[*keys, "n", "mean", "ci_low", "ci_high", "undefined"])


def density(where: pd.DataFrame) -> pd.DataFrame:
    """How densely energy lies in a region: its share there by the region's share of the area, 1 if it is spread evenly.

    `where` as from `measured.where_it_is_hit`. One row per run, region (lesion, gradcam, attention), attack, norm and
    epsilon: n, mean, ci_low, ci_high (bootstrap over images), undefined.
    """
    energies = where[where["kind"] == "energy"].rename(columns={"target": "region"})
    energies = energies.assign(density=energies["share"] / energies["area"])
    return _interval_rows(energies, [*RUN, "region", "attack", "norm", "epsilon"], "density")


def maps(where: pd.DataFrame) -> pd.DataFrame:
    """How well maps point at the lesion, and how far they moved from the clean map, by attack and epsilon.

    One row per run, map, attack, norm, epsilon and measure (pointing, iou, rank_correlation, top20_overlap,
    correct): n, mean, ci_low, ci_high, undefined, and `chance`, what a map without knowledge would get (NaN
    where that is not known).
    """
    found = where[where["kind"] == "map"].rename(columns={"target": "map"})
    keys = [*RUN, "map", "attack", "norm", "epsilon"]
    tables = []
    for measure in ("pointing", "iou", "rank_correlation", "top20_overlap", "correct"):
        if measure not in found or found[measure].isna().all():
            continue
        table = _interval_rows(found, keys, measure)
        table.insert(len(keys), "measure", measure)
        if measure in ("pointing", "iou"):
            area = found["area"]
            chance = area if measure == "pointing" else area / (2 - area)
            table["chance"] = found.assign(chance=chance).groupby(keys, sort=False)["chance"].mean().to_numpy()
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def surface(table: pd.DataFrame) -> pd.DataFrame:
    """Means per run of the columns of `measured.loss_surface`: measure, unit, n, mean, ci_low, ci_high."""
    tables = []
    for column, (title, unit) in MEASURES.items():
        rows = _interval_rows(table, RUN, column)
        rows.insert(3, "measure", title)
        rows.insert(4, "unit", unit)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def surface_ratios(table: pd.DataFrame, attentive: str = "attention") -> pd.DataFrame:
    """Attention against each other variant, image by image: the geometric mean of the ratios, with a 95 % interval.

    Over images that both get right and on which both values are above 0 (n; `undefined` counts the others). A ratio of
    distances is the ratio of margins over that of slopes, on the same images, so the two say which of them changed.
    """
    rows = []
    for (dataset, seed), here in table.groupby(["dataset", "seed"], sort=False):
        runs = {variant: part.set_index("image_id") for variant, part in here.groupby("variant", sort=False)}
        attention = runs.pop(attentive)
        for variant, other in runs.items():
            right = attention["correct"] & other["correct"]
            for column in MEASURES:
                both = (attention[column] > 0) & (other[column] > 0) & right
                logs = np.log(attention[column].where(both)) - np.log(other[column].where(both))
                m = mean_interval(logs.to_numpy())
                rows.append((dataset, attentive, seed, variant, MEASURES[column][0], m.n, *np.exp(m[:3]), m.undefined))
    columns = ["dataset", "variant", "seed", "against", "measure", "n", "ratio", "ci_low", "ci_high", "undefined"]
    return pd.DataFrame(rows, columns=columns)


def frequency(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under filtered perturbations: per run, source, epsilon, cutoff and keep, with Wilson's 95 % interval;
    and `energy`, the mean share of the perturbation's energy that the filter leaves."""
    keys = [*RUN, "source", "epsilon", "cutoff", "keep"]
    table = table[table["source"] != "gradient"]
    energy = table.groupby(keys, sort=False)["energy"].mean().to_numpy()
    return shares(table, keys, "correct", "accuracy").assign(energy=energy)


def sanity(table: pd.DataFrame) -> pd.DataFrame:
    """Mean rank correlation with the model's own map per run, map and `against`: n, mean, ci_low, ci_high,
    undefined.
    """
    return _interval_rows(table, [*RUN, "map", "against"], "rank_correlation")


def direction(row, nothing, more, less):
    """What an interval, a row with ci_low and ci_high, says of a change: `more` or `less` if it excludes `nothing`."""
    return more if row["ci_low"] > nothing else less if row["ci_high"] < nothing else "no difference seen"
