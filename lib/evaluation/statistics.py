"""Intervals and tests: arrays of outcomes in, estimates with 95 % intervals out.

One rule for every table: **of several training runs an interval is Student's t over the runs**, and says how another
run may come out; of one run it is over images, and says nothing about that. Two variants are compared on the same
images and in runs of one seed, so their outcomes are paired. Where all runs come out alike, their spread says nothing,
and images and runs are resampled together (`images_and_runs`). What is drawn depends on `seed` alone.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, norm, sem, t, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lib import StudyError

TAILS = (0.025, 0.975)
MANY = 30  # values from which the bootstrap of a mean is trusted by itself
PAIRED_RESAMPLES = 10_000  # cheap: see `_resample`


class Interval(NamedTuple):
    """An estimate with the ends of its 95 % interval."""

    estimate: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Accuracy of the second variant minus that of the first, see `paired_difference`."""

    difference: float
    low: float
    high: float
    p_value: float
    images: int
    seeds: int


class MeanInterval(NamedTuple):
    """A mean with its 95 % interval, over `n` values; `undefined` more were NaN and are not in it."""

    mean: float
    low: float
    high: float
    n: int
    undefined: int


def proportion(correct) -> Interval:
    """Share of correct images with Wilson's score interval (Wilson 1927).

    `correct`: bool, shape (images,). Outcomes of several seeds must not be strung together: they are
    not independent. Raises StudyError if empty, not one-dimensional or not bool.
    """
    correct = np.asarray(correct)
    if correct.dtype != bool or correct.ndim != 1 or not correct.size:
        raise StudyError(
            f"proportion takes outcomes of one model, bool (images,), once per seed; got {correct.dtype}, "
            f"{correct.shape}."
        )
    share = float(correct.mean())
    low, high = proportion_confint(correct.sum(), correct.size, method="wilson")
    return Interval(share, min(float(low), share), max(float(high), share))  # rounding leaves 0 and 1 outside


def over_runs(values) -> tuple[float, float, float, float]:
    """Mean of the values of training runs, its 95 % interval and p-value by Student's t; NaN for what one run lacks."""
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return values.mean() if len(values) == 1 else np.nan, np.nan, np.nan, np.nan
    if np.ptp(values) == 0:
        return values[0], values[0], values[0], float(values[0] == 0)
    test = ttest_1samp(values, 0)
    return float(values.mean()), *map(float, test.confidence_interval()), float(test.pvalue)


def accuracy_over_seeds(correct) -> Interval:
    """Mean accuracy of several training runs on the same images.

    `correct`: bool, or float of 0 and 1, (images,) or (seeds, images). With one seed Wilson's interval, over images;
    with several Student's over the runs, within [0, 1]. Raises StudyError for empty input and other values.
    """
    correct = _outcomes(correct, "correct")
    if not np.isin(correct, (0, 1)).all():
        raise StudyError("correct must be 0 or 1 for every image: shares are no outcomes of one model.")
    if len(correct) == 1:
        return proportion(correct[0].astype(bool))
    runs = correct.mean(axis=1)
    ends = over_runs(runs)[1:3] if _vary(runs) else np.quantile(_resample(correct, correct, 0)[0], TAILS)
    return Interval(float(runs.mean()), *map(float, np.clip(ends, 0, 1)))


def paired_difference(baseline, attention, seed: int = 0) -> PairedDifference:
    """Difference of two variants' accuracies on the same images, attention minus baseline.

    `baseline`, `attention`: shape (images,) or (seeds, images), row i of both from the same seed; bool, or
    float in [0, 1] for the share of several attacks or budgets that an image survived.

    The interval and `p_value` of several runs are Student's over the runs' differences. Of one run, the interval is
    that of `images_and_runs`, and the test McNemar's exact one; by the share survived where outcomes are shares, a sign
    test. Raises StudyError for shapes that differ, empty input and values outside [0, 1].
    """
    baseline, attention = _pair(baseline, attention)
    runs = attention.mean(axis=1) - baseline.mean(axis=1)
    _, low, high, p_value = over_runs(runs)
    if not _vary(runs):
        p_value, (low, high) = np.nan, images_and_runs(baseline, attention, seed)
    if len(runs) == 1:
        lead = np.round(attention - baseline, 9)  # shares that are equal but for rounding
        p_value = float(mcnemar([[0, (lead < 0).sum()], [(lead > 0).sum(), 0]], exact=True).pvalue)
    return PairedDifference(float(runs.mean()), float(low), float(high), p_value, baseline.shape[1], len(runs))


def images_and_runs(baseline, attention, seed: int = 0) -> tuple[float, float]:
    """The ends of a 95 % interval of `paired_difference` by a paired bootstrap over images, and over runs if several.

    With few runs their spread is itself poorly known, for which the interval is widened (`_widening`). It contains the
    Laplace adjustment of Bonett and Price (2012): two images more, on one of which only the baseline and on the other
    only attention is right. Without it two variants that agree on every image would get an interval of zero width.
    """
    first, second = _resample(*_pair(baseline, attention), seed)
    low, high = np.quantile(second - first, TAILS)
    return float(low), float(high)


def relative_change(baseline, attention, seed: int = 0) -> Interval:
    """Relative change of accuracy, 100 * (attention - baseline) / baseline, in percent.

    Input as in `paired_difference`. Of several runs: Student's t on the log ratios, and their mean. Of one, or where a
    run has nothing left to divide by or by which to be divided, the plain ratio and a bootstrap of images (and runs),
    with the two images more of `images_and_runs`. If the baseline's accuracy is 0, the estimate is inf, or NaN if
    attention's is 0 too. A resample in which the baseline has no image right stands for inf if attention has one right;
    if it has none either, the change could be anything: it counts as -100 at the lower end and as inf at the upper end.
    None is left out, so that a baseline near 0 gives an interval that is as wide as it should be, often without an
    upper end (inf).
    """
    baseline, attention = _pair(baseline, attention)
    ratios = _percent(baseline.mean(axis=1), attention.mean(axis=1))
    with np.errstate(divide="ignore"):
        logarithms = np.log1p(ratios / 100)
    if _vary(logarithms):
        return Interval(*map(float, 100 * np.expm1(over_runs(logarithms)[:3])))
    change = _percent(*_resample(baseline, attention, seed))
    unknown = np.isnan(change)
    # Order statistics: interpolating between a number and inf has no meaning.
    low = np.quantile(np.where(unknown, -100, change), TAILS[0], method="inverted_cdf")
    high = np.quantile(np.where(unknown, np.inf, change), TAILS[1], method="inverted_cdf")
    return Interval(float(_percent(baseline.mean(), attention.mean())), float(low), float(high))


def mean_interval(values, seed: int = 0, bounds: tuple[float, float] = (-np.inf, np.inf)) -> MeanInterval:
    """Mean of values, one per image, with a BCa bootstrap interval (Efron 1987; scipy.stats.bootstrap).

    A bootstrap of few values is too narrow: of fewer than 30 the interval holds Student's t as well.
    `values`: float, any shape. NaN is left out and counted. Equal values: an interval of zero width, which
    is all that the data say. One value: low and high are NaN; none: the mean as well. `bounds`: the smallest and the
    largest value that is possible; the interval ends there.
    """
    values = np.asarray(values, float).ravel()
    known = values[~np.isnan(values)]
    undefined = int(values.size - known.size)
    if known.size < 2:
        mean = known[0] if known.size else np.nan
        return MeanInterval(float(mean), np.nan, np.nan, int(known.size), undefined)
    mean = float(known.mean())
    if np.ptp(known) == 0:
        return MeanInterval(mean, mean, mean, int(known.size), undefined)
    low, high = bootstrap((known,), np.mean, batch=1000, rng=seed).confidence_interval
    if known.size < MANY:
        lowest, highest = t.interval(0.95, known.size - 1, mean, sem(known))
        low, high = min(low, lowest), max(high, highest)
    low, high = np.clip((low, high), *bounds)
    return MeanInterval(mean, float(low), float(high), int(known.size), undefined)


def mean_over_seeds(values) -> MeanInterval:
    """Mean of the means of several training runs, with a 95 % interval: over images of one, over the runs of several.

    `values`: float, (seeds, images), the same image in a column; NaN where a run has no value for it. An image is
    counted (`n`) if any run has a value. Each run weighs the same, however many values it has.
    """
    values = np.atleast_2d(np.asarray(values, float))
    runs, images = (np.ma.masked_invalid(values).mean(axis=axis).filled(np.nan) for axis in (1, 0))
    runs, known = runs[~np.isnan(runs)], int((~np.isnan(images)).sum())
    if not _vary(runs):
        return mean_interval(images)
    return MeanInterval(*over_runs(runs)[:3], known, images.size - known)


def holm(p_values) -> np.ndarray:
    """Holm's (1979) adjusted p-values for several tests, float, in the order given; NaN, no test, stays NaN.

    Raises StudyError for a value outside [0, 1].
    """
    adjusted = np.array(p_values, float)
    done = ~np.isnan(adjusted)
    if not ((adjusted[done] >= 0) & (adjusted[done] <= 1)).all():
        raise StudyError("p-values must lie in [0, 1].")
    if done.any():
        adjusted[done] = multipletests(adjusted[done], method="holm")[1]
    return adjusted


def _outcomes(values, name: str) -> np.ndarray:
    values = np.atleast_2d(np.asarray(values))
    if values.ndim != 2 or not values.size or values.dtype.kind not in "bf":
        raise StudyError(
            f"{name} must be bool or float, (images,) or (seeds, images); got {values.dtype}, {values.shape}."
        )
    values = values.astype(float)
    if not ((values >= 0) & (values <= 1)).all():
        raise StudyError(f"{name} needs an outcome in [0, 1] for every image; some are missing or outside.")
    return values


def _pair(baseline, attention) -> tuple[np.ndarray, np.ndarray]:
    baseline, attention = _outcomes(baseline, "baseline"), _outcomes(attention, "attention")
    if baseline.shape != attention.shape:
        raise StudyError(f"Outcomes are not paired: baseline {baseline.shape}, attention {attention.shape}.")
    return baseline, attention


def _vary(runs) -> bool:
    """Whether the numbers of several runs are all finite and not all alike."""
    return len(runs) > 1 and bool(np.isfinite(runs).all()) and np.ptp(runs) > 1e-9


def _percent(first, second):
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (np.float64(second) / first - 1)


def _resample(first, second, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of two variants in bootstrap resamples, each of shape (PAIRED_RESAMPLES,).

    Images are drawn with all their outcomes, seeds with all their images, crossed (Owen 2007, "The pigeonhole
    bootstrap", which errs on the wide side). S seeds are drawn S - 1 at a time: with so few, drawing S would understate
    their variance by (S - 1) / S (Rao and Wu 1988). The two images more are explained in `paired_difference`.
    """
    rng = np.random.default_rng(seed)
    seeds, images = first.shape
    extra = np.tile([1.0, 0.0], (seeds, 1))
    outcomes = np.vstack([np.hstack([first, extra]), np.hstack([second, 1 - extra])])
    # Images with the same outcomes are interchangeable: drawing how often each pattern occurs has the same
    # distribution as drawing images, and costs the same for any number of images.
    patterns, counts = np.unique(outcomes, axis=1, return_counts=True)
    image_share = rng.multinomial(images + 2, counts / (images + 2), size=PAIRED_RESAMPLES) / (images + 2)
    drawn = max(seeds - 1, 1)
    seed_share = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=PAIRED_RESAMPLES) / drawn
    accuracy = image_share @ patterns.T  # (resamples, 2 * seeds)
    shares = [(half * seed_share).sum(1) for half in (accuracy[:, :seeds], accuracy[:, seeds:])]
    wider = _widening(np.subtract(second, first, dtype=float) if (first != second).any() else first)
    means = outcomes.mean(1).reshape(2, seeds).mean(1)
    return tuple(np.clip(mean + wider * (share - mean), 0, 1) for mean, share in zip(means, shares, strict=True))


def _widening(values: np.ndarray) -> float:
    """By how much an interval of the mean over (seeds, images) is to be wider for knowing the spread of few seeds.

    The quantile of Student's t by the normal one, with the degrees of freedom of Satterthwaite (1946) for the
    sum of the variances of the means over seeds and over images. 1 for one seed, and where seeds agree.
    """
    parts = [
        (values.mean(axis=axis).var(ddof=1) / n, n) for axis, n in ((1, len(values)), (0, values.shape[1])) if n > 1
    ]
    if len(values) == 1 or parts[0][0] == 0:
        return 1.0
    freedom = sum(v for v, _ in parts) ** 2 / sum(v**2 / (n - 1) for v, n in parts)
    return float(t.ppf(TAILS[1], freedom) / norm.ppf(TAILS[1]))
