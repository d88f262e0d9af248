import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from lib import StudyError
from lib.evaluation import classification, statistics
from lib.evaluation.classification import balanced_accuracy, macro_auc
from lib.evaluation.statistics import (
    accuracy_over_seeds,
    holm,
    images_and_runs,
    mean_interval,
    mean_over_seeds,
    over_runs,
    paired_difference,
    proportion,
    relative_change,
)

Z = stats.norm.ppf(0.975)


def outcomes(both, first, second, neither):
    """Paired outcomes with the given numbers of images per cell of the 2 x 2 table."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def bonett_price(first, second, n):
    p12, p21 = (first + 1) / (n + 2), (second + 1) / (n + 2)
    half = Z * np.sqrt((p12 + p21 - (p21 - p12) ** 2) / (n + 2))
    return p21 - p12 - half, p21 - p12 + half


@settings(max_examples=30)
@given(st.integers(1, 300), st.floats(0, 1))
def test_wilson_ends_solve_the_score_equation(n, share):
    hits = round(share * n)
    estimate, low, high = proportion(np.arange(n) < hits)
    assert estimate == hits / n
    assert low <= estimate + 1e-12
    assert estimate <= high + 1e-12
    for end in (low, high):
        assert (estimate - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / n, abs=1e-9)


@pytest.mark.parametrize("cells", [(160, 40, 80, 120), (300, 10, 25, 65), (0, 20, 60, 320)])
def test_paired_difference_agrees_with_closed_forms(cells):
    result = paired_difference(*outcomes(*cells))
    _, first, second, _ = cells
    assert result.difference == pytest.approx((second - first) / 400)
    assert (result.low, result.high) == pytest.approx(bonett_price(first, second, 400), abs=0.004)
    assert result.p_value == pytest.approx(stats.binomtest(first, first + second).pvalue)
    assert (result.images, result.seeds) == (400, 1)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_agreement_on_every_image_is_no_certainty(correct, seeds):
    same = np.full((seeds, 200), correct)
    result = paired_difference(same, same)
    assert result.difference == 0
    assert result.p_value == 1 if seeds == 1 else np.isnan(result.p_value)
    assert result.high == pytest.approx(3 / 200, rel=0.1)  # the rule of three
    assert result.low == pytest.approx(-result.high)


def test_copies_of_a_seed_add_no_information():
    first, second = outcomes(80, 20, 40, 60)
    one = paired_difference(first, second)
    three = paired_difference(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    assert three[:1] == one[:1]
    assert three[1:3] == pytest.approx(one[1:3], abs=0.006)


def test_of_several_runs_the_interval_and_the_test_are_students_over_the_runs():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 5, 200)) < np.array([0.4, 0.5])[:, None, None]
    result, runs = paired_difference(first, second), second.mean(1) - first.mean(1)
    expected = stats.t.interval(0.95, 4, runs.mean(), stats.sem(runs))
    assert result[:3] == pytest.approx((runs.mean(), *expected))
    assert result.p_value == pytest.approx(stats.ttest_rel(second.mean(1), first.mean(1)).pvalue)
    assert over_runs(runs)[1:3] == pytest.approx(expected)
    relative, ratios = relative_change(first, second), np.log(second.mean(1) / first.mean(1))
    expected = stats.t.interval(0.95, 4, ratios.mean(), stats.sem(ratios))
    assert list(relative) == pytest.approx([100 * np.expm1(x) for x in (ratios.mean(), *expected)])
    accuracy = accuracy_over_seeds(second)
    assert list(accuracy)[1:] == pytest.approx(stats.t.interval(0.95, 4, second.mean(), stats.sem(second.mean(1))))


def test_shares_of_budgets_survived():
    rng = np.random.default_rng(0)
    survived = rng.random((2, 300, 4)) < np.array([0.4, 0.6])[:, None, None]
    first, second = shares = survived.mean(axis=-1)
    result = paired_difference(first, second)
    expected = stats.t.interval(0.95, 299, (second - first).mean(), stats.sem(second - first))
    assert result.difference == pytest.approx((second - first).mean())
    assert (result.low, result.high) == pytest.approx(expected, abs=0.005)
    assert result.p_value == pytest.approx(
        stats.binomtest(int((first > second).sum()), int((first != second).sum())).pvalue
    )
    assert relative_change(*shares).estimate == pytest.approx(100 * (second.mean() / first.mean() - 1))
    assert paired_difference([0.1 + 0.2], [0.3]).p_value == 1  # which are not the same number


def test_variance_over_seeds_is_unbiased_and_the_interval_student_s(monkeypatch):
    accuracy = np.array([1, 1, 0, 0], float)
    second = np.tile(accuracy[:, None], (1, 5000))
    # Images do not vary, so that the degrees of freedom are those of four seeds.
    assert statistics._widening(second) == pytest.approx(stats.t.ppf(0.975, 3) / Z)
    monkeypatch.setattr(statistics, "_widening", lambda _: 1)
    _, drawn = statistics._resample(np.zeros_like(second), second, seed=0)
    assert drawn.var() == pytest.approx(accuracy.var(ddof=1) / 4, rel=0.05)


def test_intervals_over_few_training_runs_cover_the_truth(monkeypatch):
    """Three runs that differ by chance as much as their images make them: Student's quantiles are needed."""
    monkeypatch.setattr(statistics, "PAIRED_RESAMPLES", 2_000)
    rng = np.random.default_rng(0)
    hits, repetitions = np.zeros(2), 200
    for repetition in range(repetitions):
        run, image = rng.normal(0, 0.1, (2, 3, 1)), rng.normal(0, 0.2, (1, 1, 150))
        right = rng.random((2, 3, 150)) < np.clip(0.5 + run + image, 0, 1)
        found = paired_difference(*right)[1:3], images_and_runs(*right, seed=repetition)
        hits += [low <= 0 <= high for low, high in found]
    assert (hits / repetitions > 0.92).all()


def test_the_mean_over_runs_has_student_s_interval():
    runs = np.random.default_rng(1).normal([[1.0], [2.0], [4.0]], 0.1, (3, 50))
    means = runs.mean(axis=1)
    expected = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    np.testing.assert_allclose(mean_over_seeds(runs)[:3], [means.mean(), *expected])
    images = np.random.default_rng(0).normal(size=50)
    assert mean_over_seeds(np.tile(images, (3, 1))) == mean_over_seeds(images) == mean_interval(images)
    some = np.repeat([[1.0], [2.0], [4.0]], 50, axis=1)
    some[0, 1:] = np.nan  # a run weighs the same however many images it has
    assert mean_over_seeds(some).mean == pytest.approx(7 / 3)
    gaps = np.repeat([[1.0], [2.0], [4.0]], 50, axis=1)
    gaps[0, 0] = gaps[:, 1] = np.nan
    assert (mean_over_seeds(gaps).n, mean_over_seeds(gaps).undefined) == (49, 1)
    assert np.isnan(mean_over_seeds(np.full((2, 3), np.nan)).mean)


def test_seeds_of_both_variants_are_drawn_together():
    both = np.tile(np.array([True, False])[:, None], (1, 500))
    result = paired_difference(both, both)  # one good and one bad seed, for both variants alike
    assert result.high - result.low < 0.02


def test_paired_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    truth, n, repetitions = np.array([0.3, 0.1, 0.2, 0.4]), 60, 200
    difference, percent = truth[2] - truth[1], 100 * (truth[2] - truth[1]) / (truth[0] + truth[1])
    hits = np.zeros(2)
    for repetition in range(repetitions):
        pair = outcomes(*rng.multinomial(n, truth))
        results = paired_difference(*pair, seed=repetition), relative_change(*pair, seed=repetition)
        for i, (result, value) in enumerate(zip(results, (difference, percent), strict=True)):
            hits[i] += result.low <= value <= result.high
    assert (hits / repetitions > 0.91).all()
    assert (hits / repetitions < 0.99).all()


@pytest.mark.parametrize("cells", [(1000, 200, 500, 300), (100, 100, 300, 1500)])
def test_relative_change_agrees_with_the_delta_method(cells):
    both, first, second, _ = cells
    base, attentive = both + first, both + second
    result = relative_change(*outcomes(*cells))
    spread = Z * np.sqrt((first + second) / (base * attentive))  # of the log ratio of paired proportions
    expected = [100 * (attentive / base * np.exp(sign * spread) - 1) for sign in (-1, 1)]
    assert result.estimate == pytest.approx(100 * (attentive - base) / base)
    assert [result.low, result.high] == pytest.approx(expected, rel=0.04)


def test_relative_change_of_a_baseline_that_is_never_right():
    nothing = relative_change(*outcomes(0, 0, 0, 200))
    assert np.isnan(nothing.estimate)
    assert (nothing.low, nothing.high) == (-100, np.inf)
    something = relative_change(*outcomes(0, 0, 20, 180))
    assert (something.estimate, something.high) == (np.inf, np.inf)
    assert 100 < something.low < 1900  # finite: a baseline of 3 in 200 is not excluded
    lost = relative_change(*outcomes(0, 20, 0, 180))
    assert (lost.estimate, lost.low) == (-100, -100)
    assert lost.high < 0


def test_a_resample_without_any_image_right_could_be_any_change(monkeypatch):
    accuracies = np.where(np.arange(1000) < 100, 0, 0.5)
    monkeypatch.setattr(statistics, "_resample", lambda *_: (accuracies, accuracies))
    result = relative_change(*outcomes(1, 0, 0, 1))
    assert result == (0, -100, np.inf)


def test_one_seed_gives_the_same_bytes():
    pair = outcomes(30, 10, 20, 40)
    assert paired_difference(*pair, seed=3) == paired_difference(*pair, seed=3)
    assert relative_change(*pair, seed=3) != relative_change(*pair, seed=4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.ones(3, bool), np.ones(4, bool)),
        (np.ones(3, int), np.ones(3, int)),
        (np.ones(0, bool), np.ones(0, bool)),
        (np.ones((1, 2, 3), bool), np.ones((1, 2, 3), bool)),
        (np.array([0.5, np.nan]), np.ones(2)),
        (np.ones(2), np.array([0.5, 1.5])),
    ],
)
def test_what_is_not_paired_outcomes_is_refused(first, second):
    for function in (paired_difference, relative_change):
        with pytest.raises(StudyError):
            function(first, second)


def test_outcomes_of_several_seeds_are_no_proportion():
    with pytest.raises(StudyError, match="once per seed"):
        proportion(np.ones((2, 5), bool))


def scores(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_balanced_accuracy_agrees_with_sklearn_and_the_binomial_variance():
    labels, probabilities = scores(300, 3)
    predicted = probabilities.argmax(1)
    result = balanced_accuracy(labels, predicted)
    assert result.estimate == pytest.approx(balanced_accuracy_score(labels, predicted))
    recalls = np.array([(predicted[labels == k] == k).mean() for k in range(3)])
    spread = Z * np.sqrt((recalls * (1 - recalls) / 100).sum()) / 3
    assert (result.low, result.high) == pytest.approx((result.estimate - spread, result.estimate + spread), abs=0.008)


def test_balanced_accuracy_is_over_the_classes_that_occur():
    assert balanced_accuracy([0, 0, 2, 2], [0, 1, 2, 2]).estimate == 0.75


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(0, 3))
def test_weighted_auc_agrees_with_sklearn(seed, n, decimals):
    rng = np.random.default_rng(seed)
    values = rng.random(n).round(decimals)  # few decimals: many ties
    positive = rng.permutation(np.arange(n) % 2).astype(bool)
    weights = rng.integers(0, 4, (5, n)) + np.eye(n)[positive.argmax()] + np.eye(n)[positive.argmin()]
    expected = [roc_auc_score(positive, values, sample_weight=row) for row in weights]
    np.testing.assert_allclose(classification._weighted_auc(positive, values, weights), expected, atol=1e-12)


def test_macro_auc_of_several_classes():
    labels, probabilities = scores(150, 4)
    result = macro_auc(labels, probabilities)
    assert result.estimate == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert result.low < result.estimate < result.high
    assert macro_auc(labels, probabilities) == result
    without = labels != 3
    expected = np.mean([roc_auc_score(labels[without] == k, probabilities[without, k]) for k in range(3)])
    assert macro_auc(labels[without], probabilities[without]).estimate == pytest.approx(expected)


def test_auc_interval_agrees_with_a_two_sample_bootstrap(monkeypatch):
    labels, probabilities = scores(120, 2)
    result = macro_auc(labels, probabilities)
    assert result.estimate == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))

    def auc(positive, negative, axis):
        return (positive[..., :, None] > negative[..., None, :]).mean(axis=(-2, -1))

    samples = [probabilities[labels == k, 1] for k in (1, 0)]
    peer = stats.bootstrap(samples, auc, vectorized=True, method="percentile", n_resamples=2000, rng=0)
    assert (result.low, result.high) == pytest.approx(tuple(peer.confidence_interval), abs=0.012)
    assert macro_auc(labels, probabilities * [0, 1]) == result  # of class 1 alone
    monkeypatch.setattr(classification, "BLOCK", 120 * 300)  # 2,000 resamples in seven blocks
    assert macro_auc(labels, probabilities)[1:] == pytest.approx(result[1:], abs=0.012)


def test_metrics_refuse_what_does_not_fit():
    for labels, probabilities in (([0, 1], np.ones((3, 2))), ([0, 1], np.ones(2)), ([0, 0], np.ones((2, 2)))):
        with pytest.raises(StudyError):
            macro_auc(labels, probabilities)
    for labels, predicted in (([0, 1], [0]), ([], [])):
        with pytest.raises(StudyError):
            balanced_accuracy(labels, predicted)


def test_mean_interval():
    values = np.random.default_rng(0).normal(3, 1, 200)
    result = mean_interval([*values, np.nan, np.nan])
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert (result.low, result.high) == pytest.approx(expected, abs=0.02)
    assert (result.mean, result.n, result.undefined) == (pytest.approx(values.mean()), 200, 2)
    skewed = mean_interval(np.random.default_rng(0).exponential(size=40))
    assert skewed.high - skewed.mean > 1.1 * (skewed.mean - skewed.low)  # BCa follows the skewness


def test_mean_interval_of_next_to_nothing():
    assert mean_interval([0.5, 0.5, np.nan]) == (0.5, 0.5, 0.5, 2, 1)
    assert mean_interval([0.5])[0] == 0.5
    assert np.isnan(mean_interval([0.5])[1:3]).all()
    assert np.isnan(mean_interval([np.nan])[:3]).all()
    assert mean_interval([np.nan])[3:] == (0, 1)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([]).shape == (0,)
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])
    for bad in ([0.1, -0.1], [1.2]):
        with pytest.raises(StudyError):
            holm(bad)


def test_accuracy_over_seeds_is_wilsons_for_one_run():
    correct = np.random.default_rng(0).random(40) < 0.7
    assert accuracy_over_seeds(correct) == proportion(correct)


def test_accuracy_over_seeds_covers_the_spread_of_training_runs():
    """Runs that differ by a lot: the interval must be far wider than that of the same images with one run."""
    rng = np.random.default_rng(1)
    runs = rng.random((4, 400)) < np.array([[0.3], [0.5], [0.6], [0.8]])
    wide = accuracy_over_seeds(runs)
    narrow = accuracy_over_seeds(np.repeat(runs[1:2], 4, axis=0))
    assert wide.estimate == pytest.approx(runs.mean())
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    # identical runs hold no more than one: about the normal interval of one run
    share = runs[1].mean()
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.1)


def test_an_interval_of_a_share_holds_it_down_to_the_last_bit():
    for n in range(1, 60):
        for correct in (np.zeros(n, bool), np.ones(n, bool)):
            share, low, high = proportion(correct)
            assert low <= share <= high


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_intervals_of_a_few_values_cover_as_often_as_student_s(draw):
    rng = np.random.default_rng(0)
    truth, hits, student = {"normal": 0.0, "exponential": 1.0}[draw], 0, 0
    for repetition in range(300):
        values = getattr(rng, draw)(size=6)
        result = mean_interval(values, seed=repetition)
        hits += result.low <= truth <= result.high
        low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
        student += low <= truth <= high
        assert result.low <= low + 1e-12
        assert result.high >= high - 1e-12
    assert hits >= student > 0.8 * 300


def test_shares_are_no_outcomes_of_one_model():
    with pytest.raises(StudyError, match="0 or 1"):
        accuracy_over_seeds([0.5, 0.5, 0.2, 0.0])
