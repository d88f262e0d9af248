"""The three tasks together, against the formulas of Paule and Mandel and of Hartung and Knapp by SciPy alone."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from test_planned import BUDGETS, outcomes

from lib.evaluation import tasks
from lib.evaluation.planned import by_run
from lib.evaluation.planned import worst_case as worst
from lib.profile import load_profile

pytestmark = pytest.mark.usefixtures("few_resamples")

NAMED = ["baseline", "attention-reference", "attention-gamma1", "uniform-matched"]


@pytest.fixture(scope="module")
def three() -> list[pd.DataFrame]:
    made = [outcomes(variants=NAMED, seeds=seeds, rng=rng) for rng, seeds in enumerate((6, 6, 8))]
    return [table.assign(dataset=name) for table, name in zip(made, tasks.TASKS, strict=True)]


@pytest.fixture(scope="module")
def of_three(three) -> pd.DataFrame:
    return answered(three)


def answered(tables) -> pd.DataFrame:
    clean = [table[table["epsilon"] == 0] for table in tables]
    return pd.concat(
        [tasks.of_task(worst(t), c, BUDGETS, 2.0) for t, c in zip(tables, clean, strict=True)], ignore_index=True
    )


def by_hand(means, variances):
    """Mean and ends of the interval, by the definitions."""

    def excess(between):
        weights = 1 / (variances + between)
        centre = np.average(means, weights=weights)
        return (weights * (means - centre) ** 2).sum() - (len(means) - 1)

    between = optimize.brentq(excess, 0, 1e4) if excess(0) > 0 else 0
    weights = 1 / (variances + between)
    centre = np.average(means, weights=weights)
    spread = (weights * (means - centre) ** 2).sum() / (len(means) - 1)
    half = stats.t.ppf(0.975, len(means) - 1) * np.sqrt(max(spread, 1) / weights.sum())
    return centre, centre - half, centre + half


@pytest.mark.parametrize("question", tasks.QUESTIONS)
def test_all_tasks_by_hand(three, of_three, question):
    row = tasks.together(of_three).set_index("kind").loc[question]
    runs = [by_run(worst(table), [tasks.QUESTIONS[question]], BUDGETS) for table in three]
    for column, scale in (("difference", lambda x: x), ("percent", lambda x: np.log1p(x / 100))):
        values = [scale(table[column]) for table in runs]
        means, variances = (np.array([f(v) for v in values]) for f in (np.mean, lambda v: v.var(ddof=1) / len(v)))
        expected = np.array(by_hand(means, variances))
        expected = expected if column == "difference" else 100 * np.expm1(expected)
        names = tasks.ESTIMATES[column]
        assert row[list(names)].to_numpy(float) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert (row["tasks"], row["runs"], row["n"]) == (3, 20, 120)
    assert (row["p_value"] < 0.05) == (row["ci_low"] > 0 or row["ci_high"] < 0)


def test_tasks_that_agree_better_than_chance_do_not_narrow_the_interval():
    row = {"kind": "A", "one": "x", "other": "y", "n": 9, "runs": 6, "margin": 2}
    means = pd.Series([0.1, 0.0, -0.1])
    alike = pd.DataFrame([row | {"dataset": name} for name in "abc"])
    alike = alike.assign(difference=means, ci_low=means - 1, ci_high=means + 1)
    alike = alike.assign(percent=means, percent_low=means - 1, percent_high=means + 1)
    error = 1 / stats.t.ppf(0.975, 5) / np.sqrt(3)
    [found] = tasks.together(alike).itertuples()
    assert found.ci_high == pytest.approx(error * stats.t.ppf(0.975, 2))
    assert found.conclusion == "no effect that would matter"


def test_in_a_task_both_questions_are_adjusted_together(of_three):
    for _, here in of_three.groupby("dataset"):
        first, second = np.sort(here["p_value"])
        assert np.sort(here["p_holm"]) == pytest.approx([min(2 * first, 1), min(max(2 * first, second), 1)])
    assert set(of_three["kind"]) == {"A", "B"}


def test_a_question_of_one_task_has_no_answer_over_tasks(three):
    without = [t if i == 0 else t[t["variant"].isin(NAMED[:2])] for i, t in enumerate(three)]
    assert list(tasks.together(answered(without))["kind"]) == ["A"]


def test_a_run_stands_beside_the_published_tasks(three, tmp_path, monkeypatch):
    def clean(table):
        return table[table["epsilon"] == 0]

    monkeypatch.setattr(tasks, "PUBLISHED", tmp_path)
    profile, budgets = load_profile("eyepacs"), dict(zip(BUDGETS, (0.03, 0.045), strict=True))
    mine, theirs = (three[n].assign(epsilon=three[n]["epsilon"].replace(budgets)) for n in (2, 1))
    assert tasks.beside_published(profile, worst(mine), clean(mine)).empty, "the only one"
    (tmp_path / "chestxray14" / "tables").mkdir(parents=True)
    theirs["epsilon"] = theirs["epsilon"].replace({0.03: 0.09, 0.045: 0.12})
    for name, table in (("outcomes", theirs), ("predictions", clean(theirs))):
        table.to_csv(tmp_path / "chestxray14" / "tables" / f"{name}.csv.gz", index=False)
    found = tasks.beside_published(profile, worst(mine), clean(mine))
    assert list(found["dataset"]) == ["chestxray14", "eyepacs", tasks.ALL] * 2
    assert tasks.beside_published(load_profile("quick"), worst(mine), clean(mine)).empty
