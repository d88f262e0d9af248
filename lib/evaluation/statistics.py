"""Intervals and tests: arrays of outcomes in, estimates with 95 % intervals out.

Two variants are compared on the same images, so their outcomes are paired, and with several seeds the
same images come back once per seed. Everything about a pair of variants therefore resamples images and
seeds (`_resample`), never single outcomes. All resampling is percentile bootstrap unless a docstring
says otherwise, and depends on `seed` alone.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, norm, t
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
    first_better: int
    second_better: int
    images: int
    seeds: int
    covers: str


class RelativeChange(NamedTuple):
    """Change of accuracy in percent of the first variant's, see `relative_change`."""

    percent: float
    low: float
    high: float
    undefined: int
    resamples: int
    covers: str


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


def accuracy_over_seeds(correct) -> Interval:
    """Mean accuracy of several training runs on the same images.

    `correct`: bool, or float of 0 and 1, (images,) or (seeds, images). With one seed Wilson's interval, over images;
    with several the bootstrap over images and seeds of `paired_difference`, which pulls in two images more, one
    right and one wrong. Raises StudyError for empty input and other values.
    """
    correct = _outcomes(correct, "correct")
    if not np.isin(correct, (0, 1)).all():
        raise StudyError("correct must be 0 or 1 for every image: shares are no outcomes of one model.")
    if len(correct) == 1:
        return proportion(correct[0].astype(bool))
    low, high = np.quantile(_resample(correct, correct, 0)[0], TAILS)
    return Interval(float(correct.mean()), float(low), float(high))


def paired_difference(baseline, attention, seed: int = 0) -> PairedDifference:
    """Difference of two variants' accuracies on the same images, attention minus baseline.

    `baseline`, `attention`: shape (images,) or (seeds, images), row i of both from the same seed; bool, or
    float in [0, 1] for the share of several attacks or budgets that an image survived.

    The interval is a paired bootstrap over images, and over seeds as well if there are several (`covers`
    says which; with one seed it says nothing about how another training run would come out). With few seeds
    their spread is itself poorly known, for which the interval is widened (`_widening`). It contains the
    Laplace adjustment of Bonett and Price (2012): two images more, on one of which only the baseline and on
    the other only attention is right. Without it two variants that agree on every image would get an
    interval of zero width.

    `p_value`: McNemar's exact test; by the share survived where outcomes are shares, a sign test. NaN with
    several seeds, where a test over images would ignore that training runs differ. `first_better`,
    `second_better`: the images on which each variant is right in more runs, which are the counts of the test.
    Raises StudyError for shapes that differ, empty input and values outside [0, 1].
    """
    baseline, attention = _pair(baseline, attention)
    first, second = _resample(baseline, attention, seed)
    low, high = np.quantile(second - first, TAILS)
    lead = np.round((attention - baseline).sum(axis=0), 9)  # shares that are equal but for rounding
    first_better, second_better = int((lead < 0).sum()), int((lead > 0).sum())
    one = len(baseline) == 1
    return PairedDifference(
        float(attention.mean() - baseline.mean()),
        float(low),
        float(high),
        float(mcnemar([[0, first_better], [second_better, 0]], exact=True).pvalue) if one else np.nan,
        first_better,
        second_better,
        baseline.shape[1],
        baseline.shape[0],
        _covers(baseline),
    )


def relative_change(baseline, attention, seed: int = 0) -> RelativeChange:
    """Relative change of accuracy, 100 * (attention - baseline) / baseline, in percent.

    Input, resampling and the two added images are those of `paired_difference`; `percent` is the plain
    ratio. If the baseline's accuracy is 0, `percent` is inf, or NaN if attention's is 0 too. A resample
    in which the baseline has no image right (`undefined` counts them, of `resamples`) stands for inf if
    attention has one right. If it has none either, the change could be anything: it counts as -100 at
    the lower end and as inf at the upper end. None is left out, so that a baseline near 0 gives an
    interval that is as wide as it should be, often without an upper end (inf).
    """
    baseline, attention = _pair(baseline, attention)
    first, second = _resample(baseline, attention, seed)
    change = _percent(first, second)
    unknown = np.isnan(change)
    # Order statistics: interpolating between a number and inf has no meaning.
    low = np.quantile(np.where(unknown, -100, change), TAILS[0], method="inverted_cdf")
    high = np.quantile(np.where(unknown, np.inf, change), TAILS[1], method="inverted_cdf")
    return RelativeChange(
        float(_percent(baseline.mean(), attention.mean())),
        float(low),
        float(high),
        int((first == 0).sum()),
        PAIRED_RESAMPLES,
        _covers(baseline),
    )


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
        _, lowest, highest = _student(mean, [known.var(ddof=1) / known.size], known.size - 1)
        low, high = min(low, lowest), max(high, highest)
    low, high = np.clip((low, high), *bounds)
    return MeanInterval(mean, float(low), float(high), int(known.size), undefined)


def mean_over_seeds(values) -> MeanInterval:
    """Mean of the means of several training runs, with a 95 % interval over images and runs.

    `values`: float, (seeds, images), the same image in a column; NaN where a run has no value for it. An image is
    counted (`n`) if any run has a value. Each run weighs the same, however many values it has.
    One seed: `mean_interval`. Several: Student's t on the sum of the variances of the means over seeds and over
    images, with the degrees of freedom of Satterthwaite (1946).
    """
    values = np.atleast_2d(np.asarray(values, float))
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) < 2:
        return mean_interval(values)
    known = values[:, ~np.isnan(values).all(axis=0)]
    variances, freedom = _variances_of_mean(known)
    n = known.shape[1]
    mean = np.nanmean(known, axis=1).mean()
    return MeanInterval(*_student(mean, variances, freedom), n, values.shape[1] - n)


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


def _covers(outcomes) -> str:
    return "images and seeds" if len(outcomes) > 1 else "images, not seeds"


def _percent(first, second):
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (np.float64(second) / first - 1)


def _resample(first, second, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of two variants in bootstrap resamples, each of shape (PAIRED_RESAMPLES,).

    Images are drawn with all their outcomes, seeds with all their images, crossed (Owen 2007, "The
    pigeonhole bootstrap", which errs on the wide side). S seeds are drawn S - 1 at a time: with so few,
    drawing S would understate their variance by (S - 1) / S (Rao and Wu 1988). The two images more are
    explained in `paired_difference`.
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
    variances, freedom = _variances_of_mean(values)
    return float(t.ppf(TAILS[1], freedom) / norm.ppf(TAILS[1])) if variances[0] > 0 else 1.0


def _variances_of_mean(values) -> tuple[tuple[float, float], float]:
    """Variance of the mean of the seeds' means, by seeds and by images, and the degrees of freedom of their sum.

    `values`: (seeds, images), NaN where a seed has none. What differs from seed to seed and image to image is in
    both, which errs on the wide side.
    """
    means = np.nanmean(values, axis=1)
    weight = 1 / (means.size * (~np.isnan(values)).sum(axis=1))  # of each value of a seed
    # Each image's share in the error of the mean.
    shares = np.nansum((values - means[:, None]) * weight[:, None], axis=0)
    parts = (means.var() / means.size, means.size), ((shares**2).sum(), shares.size)  # biased, and of how many values
    variances = tuple(float(variance * n / (n - 1)) if n > 1 else 0.0 for variance, n in parts)
    terms = sum(v**2 / (n - 1) for v, (_, n) in zip(variances, parts, strict=True) if n > 1)
    return variances, sum(variances) ** 2 / terms if terms else np.inf


def _student(mean, variances, freedom) -> tuple[float, float, float]:
    """A mean and its 95 % interval by Student's t, from the variances that add up."""
    half = t.ppf(TAILS[1], freedom) * np.sqrt(sum(variances))
    return float(mean), float(mean - half), float(mean + half)
