"""Two variants on the same images: attention against baseline by budget, and the logits against the softmax."""

import numpy as np
import pandas as pd
from scipy.stats import binom

from lib.evaluation.statistics import holm, paired_difference, proportion, relative_change

TYPICAL = 0.10
"""Typical budgets are those at which the baseline keeps this robust accuracy, extreme ones those below it.

The paper's text that would define the two words is missing; this is a reconstruction."""


def compare(
    outcomes: pd.DataFrame, attack: str, norm: str, through: str = "logits", attentive: str = "attention"
) -> pd.DataFrame:
    """Attention against baseline at every budget of one attack; `attentive`: the variant with attention.

    Returns one row per data set and epsilon: dataset, epsilon, n, seeds, baseline, attention (robust accuracies),
    difference, ci_low, ci_high (shares, paired 95 % interval), p_value (McNemar's exact test; of several training runs
    Student's), p_holm (the same, adjusted by Holm for all rows of the table), percent, percent_low, percent_high
    (relative change) and regime (typical or extreme).
    """
    here = under(outcomes, attack, norm, through)
    rows = []
    for (dataset, epsilon), group in here.groupby(["dataset", "epsilon"], sort=False):
        if epsilon == 0:
            continue
        baseline, attention = (matrix(group, "variant", variant) for variant in ("baseline", attentive))
        change, relative = paired_difference(baseline, attention), relative_change(baseline, attention)
        regime = "typical" if baseline.mean() >= TYPICAL else "extreme"
        rows.append((dataset, epsilon, change.images, change.seeds, baseline.mean(), attention.mean(), *change[:4],
                     np.nan, *relative, regime))  # fmt: skip
    columns = "dataset epsilon n seeds baseline attention difference ci_low ci_high p_value p_holm percent percent_low"
    table = pd.DataFrame(rows, columns=[*columns.split(), "percent_high", "regime"])
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
        shared = of_all(group, "through")
        logits, softmax = (matrix(shared, "through", route) for route in ("logits", "softmax"))
        gap = paired_difference(logits, softmax)
        rows.append((*key, gap.images, gap.seeds, logits.mean(), softmax.mean(), gap.difference, gap.low, gap.high))
    columns = [*keys, "n", "seeds", "logits", "softmax", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def under(outcomes, attack, norm, through):
    """The rows of one attack, of a table with columns attack, norm and through."""
    return outcomes[(outcomes[["attack", "norm", "through"]] == [attack, norm, through]).all(axis=1)]


def of_all(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of those images, in those training runs, that every value of `column` has."""
    values = table.groupby(["dataset", "variant", "seed", "image_id"])[column].transform("nunique")
    return table[values == table[column].nunique()]


def matrix(table: pd.DataFrame, column: str, value: str, outcome: str = "correct") -> np.ndarray:
    """(seeds, images) of an outcome where `column` has this value, images in the same order for every value."""
    rows = table[table[column] == value]
    return rows.pivot_table(index="seed", columns="image_id", values=outcome, aggfunc="mean").to_numpy()


def shares(table: pd.DataFrame, keys: list[str], column: str, name: str) -> pd.DataFrame:
    """In which share of a group's rows a column of bools holds, with Wilson's 95 % interval.

    Columns: the keys that make the groups, n, the share by this name, ci_low, ci_high.
    """
    groups = table.groupby(keys, sort=False)
    rows = [(*key, len(group), *proportion(group[column].to_numpy(bool))) for key, group in groups]
    return pd.DataFrame(rows, columns=[*keys, "n", name, "ci_low", "ci_high"])


def median_distance(smallest) -> tuple[int, float, float, float, int]:
    """n, median, the ends of its 95 % interval, and how many are infinite, of distances (n,) to a mistake.

    The interval is exact, by order statistics (Conover 1999, section 3.2); what no attack broke counts as infinite.
    """
    smallest = np.sort(smallest)
    low, high = binom.ppf([0.025, 0.975], len(smallest), 0.5).astype(int)
    ends = smallest[max(low - 1, 0)], smallest[min(high, len(smallest) - 1)]
    median = smallest[(len(smallest) - 1) // 2]  # the lower one of two: no mean with infinity
    return len(smallest), float(median), float(ends[0]), float(ends[1]), int(np.isinf(smallest).sum())
