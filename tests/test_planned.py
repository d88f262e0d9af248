"""The planned comparisons against SciPy, statsmodels and counting by hand."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from lib.evaluation import claims, convergence
from lib.evaluation import planned as planning
from lib.profile import load_profile
from lib.profile.settings import Planned
from lib.report.sentences import by_budget
from lib.study import Study, results

pytestmark = pytest.mark.usefixtures("few_resamples")

BUDGETS = [1.0, 2.0]
PLANNED = Planned(
    primary=["attention", "uniform"], secondary=[["attention", "baseline"], ["uniform", "baseline"]],
    control=["adversarial", "baseline"],
)  # fmt: skip
VARIANTS = ["baseline", "uniform", "attention", "adversarial"]


def outcomes(images=40, seeds=5, variants=VARIANTS, attacks=("pgd", "autoattack"), rng=0) -> pd.DataFrame:
    """Outcomes of made-up networks, each with a share of images of its own that an attack breaks at a budget."""
    rng = np.random.default_rng(rng)
    rows = []
    for variant in variants:
        for seed in range(seeds):
            level = rng.uniform(0.4, 0.6) + 0.2 * (variant == "adversarial")
            distance = rng.exponential(2 * level, images) * (rng.random(images) < 0.9)
            for attack in attacks:
                reached = distance * rng.uniform(1, 1.2, images)
                for epsilon in [0.0, *BUDGETS, 3.0]:
                    rows += [
                        ("skin", variant, seed, f"i{i}", i % 3, attack, "linf", "logits", epsilon, reached[i] > epsilon)
                        for i in range(images)
                    ]
    columns = ["dataset", "variant", "seed", "image_id", "label", "attack", "norm", "through", "epsilon", "correct"]
    return pd.DataFrame(rows, columns=columns)


def clean(worst):
    """The answers to the clean images, as if they were the test split."""
    return worst[worst["epsilon"] == 0]


def test_the_worst_case_is_over_the_attacks_that_every_run_met():
    table = outcomes()
    worst = planning.worst_case(table)
    both = table.pivot_table(index=["variant", "seed", "image_id", "epsilon"], columns="attack", values="correct")
    expected = both.min(axis=1)
    found = worst.set_index(["variant", "seed", "image_id", "epsilon"])["correct"]
    pd.testing.assert_series_equal(found.astype(float).sort_index(), expected.sort_index(), check_names=False)
    spared = table.drop(table.index[(table["attack"] == "pgd") & (table["seed"] == 4)])
    alone = planning.worst_case(table[table["attack"] == "autoattack"])
    pd.testing.assert_frame_equal(planning.worst_case(spared), alone)
    assert planning.worst_case(table, norm="l2").empty
    other = table.assign(through="softmax", correct=False)
    pd.testing.assert_frame_equal(planning.worst_case(pd.concat([table, other])), worst)


def test_tables_have_the_worst_case_beside_the_attacks_where_there_are_several():
    table = outcomes()
    alone = table[table["attack"] == "pgd"].assign(norm="l2")
    both = planning.with_worst_case(pd.concat([table, alone]))
    added = both[both["attack"] == planning.WORST]
    pd.testing.assert_frame_equal(added[planning.worst_case(table).columns], planning.worst_case(table))
    assert set(added["norm"]) == {"linf"}, "of one attack alone it would say the same twice"
    pd.testing.assert_frame_equal(both[both["attack"] != planning.WORST], pd.concat([table, alone]))


def test_a_run_is_its_mean_over_images_and_budgets():
    worst = planning.worst_case(outcomes())
    run = planning.over_budgets(worst, BUDGETS).set_index(["variant", "seed"]).loc[("uniform", 3)]
    here = worst[(worst["variant"] == "uniform") & (worst["seed"] == 3) & worst["epsilon"].isin(BUDGETS)]
    assert run["robust_accuracy"] == pytest.approx(here["correct"].mean())
    assert run["balanced"] == pytest.approx(np.mean([here[here["label"] == k]["correct"].mean() for k in range(3)]))
    assert run["n"] == 40


def test_intervals_are_students_and_holm_is_over_the_secondary_ones():
    worst = planning.worst_case(outcomes())
    table = planning.effects(worst, clean(worst), PLANNED, BUDGETS)
    assert list(table["kind"]) == ["primary", "secondary", "secondary", "control"]
    shares = planning.over_budgets(worst, BUDGETS).pivot_table(
        index="seed", columns="variant", values="robust_accuracy"
    )
    for _, row in table.iterrows():
        differences = 100 * (shares[row["one"]] - shares[row["other"]])
        assert row["difference"] == pytest.approx(differences.mean())
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(DescrStatsW(differences).tconfint_mean())
        assert row["p_value"] == pytest.approx(stats.ttest_rel(shares[row["one"]], shares[row["other"]]).pvalue)
        logs = np.log(shares[row["one"]] / shares[row["other"]])
        low, high = DescrStatsW(logs).tconfint_mean()
        assert row["percent_low"] == pytest.approx(100 * (np.exp(low) - 1))
        assert row["percent_high"] == pytest.approx(100 * (np.exp(high) - 1))
        assert row["both_low"] < row["difference"] < row["both_high"]
        accuracy = clean(worst).pivot_table(index="seed", columns="variant", values="correct")
        apart = 100 * (accuracy[row["one"]] - accuracy[row["other"]])
        assert (row["clean_low"], row["clean_high"]) == pytest.approx(DescrStatsW(apart).tconfint_mean())
        power = TTestPower().power(row["smallest_seen"] / differences.std(), 5, 0.05)
        assert power == pytest.approx(0.8, abs=1e-6)
    p = table.loc[table["kind"] == "secondary", "p_value"].to_numpy()
    expected = np.minimum(np.maximum.accumulate(np.sort(p) * [2, 1]), 1)[np.argsort(np.argsort(p))]
    np.testing.assert_allclose(table.loc[table["kind"] == "secondary", "p_holm"], expected)
    assert table.loc[table["kind"] != "secondary", "p_holm"].isna().all()


def test_a_run_that_keeps_nothing_has_no_relative_change():
    worst = planning.worst_case(outcomes())
    worst.loc[(worst["variant"] == "uniform") & (worst["seed"] == 1), "correct"] = False
    primary = planning.effects(worst, clean(worst), PLANNED, BUDGETS).iloc[0]
    assert primary[["percent", "percent_low", "percent_high"]].isna().all()
    assert np.isfinite(primary["ci_high"])
    assert planning.printed(planning.effects(worst, clean(worst), PLANNED, BUDGETS)).loc[0, "relative, %"] == "-"


def test_runs_added_to_the_control_make_a_row_of_their_own_and_leave_the_planned_one_alone():
    worst = planning.worst_case(outcomes())
    first = worst[(worst["variant"] != "adversarial") | (worst["seed"] < 3)]
    planned = planning.effects(first, clean(first), PLANNED, BUDGETS)
    extended = planning.effects(worst, clean(worst), PLANNED.model_copy(update={"control_runs": 3}), BUDGETS)
    pd.testing.assert_frame_equal(extended.iloc[:-1], planned)
    every = planning.effects(worst, clean(worst), PLANNED, BUDGETS).iloc[-1]
    assert extended.iloc[-1]["kind"] == "extended control"
    pd.testing.assert_series_equal(extended.iloc[-1].drop("kind"), every.drop("kind"), check_names=False)
    told = PLANNED.model_copy(update={"control_runs": 3, "control_intact": [0, 4]})
    intact = planning.effects(worst, clean(worst), told, BUDGETS).iloc[-2]
    runs = planning.by_run(worst, [PLANNED.control], BUDGETS).set_index("seed")["difference"]
    assert (intact["kind"], intact["runs"]) == ("intact control", 2)
    assert intact["difference"] == pytest.approx(runs[[0, 4]].mean())
    all_planned = planning.effects(worst, clean(worst), told.model_copy(update={"control_runs": None}), BUDGETS)
    assert list(all_planned["kind"][-2:]) == ["control", "intact control"]
    of_all = told.model_copy(update={"control_intact": sorted(runs.index)})
    assert "intact control" not in set(planning.effects(worst, clean(worst), of_all, BUDGETS)["kind"])


def test_claims_and_planned_comparisons_of_one_pair_are_the_same_numbers():
    worst, (one, other) = planning.worst_case(outcomes(seeds=4)), PLANNED.primary
    effect = planning.effects(worst, clean(worst), PLANNED, BUDGETS).iloc[0]
    frames = {name: claims.of_pair(frame, one, other) for name, frame in (("worst", worst), ("clean", clean(worst)))}
    relative = claims._relative(frames["worst"], pd.Series(BUDGETS))
    kept = claims._clean(frames["clean"])
    assert [relative[name] for name in ("ours", "ci_low", "ci_high")] == pytest.approx(
        [effect[name] for name in ("percent", "percent_low", "percent_high")]
    )
    assert [kept[name] for name in ("ours", "ci_low", "ci_high")] == pytest.approx(
        [effect[name] for name in ("clean", "clean_low", "clean_high")]
    )


def test_runs_are_paired_by_their_seed_whoever_has_more():
    table = outcomes()
    few = table[(table["variant"] != "adversarial") | (table["seed"] < 2)]
    worst = planning.worst_case(few)
    found = planning.effects(worst, clean(worst), PLANNED, BUDGETS).set_index("kind")
    assert found.loc["control", "runs"] == 2
    assert found.loc["primary", "runs"] == 5
    one = planning.by_run(worst, [["adversarial", "baseline"]], BUDGETS)
    assert list(one["seed"]) == [0, 1]
    added = PLANNED.model_copy(update={"control_runs": 3})
    assert set(planning.effects(worst, clean(worst), added, BUDGETS)["kind"]) == {"primary", "secondary", "control"}
    single = planning.effects(worst[worst["seed"] == 0], clean(worst[worst["seed"] == 0]), PLANNED, BUDGETS)
    assert single[["ci_low", "ci_high", "p_value", "smallest_seen"]].isna().all(axis=None)
    assert set(single["conclusion"]) == {planning.OPEN}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 5, "higher"),
        (-5, -0.1, "lower"),
        (-1.9, 1.9, "no effect that would matter"),
        (0.1, 1.9, "higher, no effect that would matter"),
        (-2.1, 1, "not decided"),
        (np.nan, np.nan, "not decided"),
    ],
)
def test_what_an_interval_says(low, high, said):
    assert planning.conclusion(low, high, 2) == said


@pytest.mark.parametrize(("p_holm", "said"), [(0.049, "higher"), (0.05, "not decided"), (np.nan, "higher")])
def test_a_secondary_comparison_differs_only_if_it_does_after_the_adjustment(p_holm, said):
    assert planning.conclusion(0.1, 5, 2, p_holm) == said
    assert planning.conclusion(-1, 1, 2, p_holm) == "no effect that would matter"


@pytest.mark.parametrize("runs", [4, 5])
def test_fewer_than_five_runs_conclude_nothing(runs):
    """Whatever their interval: here attention stands at every budget in every run, and uniform at none."""
    worst = planning.worst_case(outcomes(seeds=runs, variants=["attention", "uniform"]))
    worst = worst.assign(correct=worst["variant"] == "attention")
    plan = Planned(primary=["attention", "uniform"])
    [row] = planning.effects(worst, clean(worst), plan, BUDGETS).itertuples()
    assert (row.runs, row.ci_low) == (runs, 100)
    assert row.conclusion == (planning.HIGHER if runs == 5 else planning.OPEN)


def test_the_adjusted_p_value_decides_on_secondary_comparisons_alone(monkeypatch):
    pair, other = ["adversarial", "baseline"], ["adversarial", "uniform"]
    monkeypatch.setattr(planning, "holm", lambda p_values: 0 * p_values + 0.06)
    worst = planning.worst_case(outcomes(images=200))
    found = planning.effects(worst, clean(worst), Planned(primary=pair, secondary=[other]), BUDGETS)
    assert (found["ci_low"] > 0).all()
    assert list(found["conclusion"]) == [planning.HIGHER, planning.OPEN]
    both = planning.effects(worst, clean(worst), Planned(primary=pair, secondary=[pair, other]), BUDGETS)
    assert list(both["kind"]) == ["primary", "secondary"]
    assert list(both["conclusion"]) == [planning.OPEN, planning.OPEN]


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_largest_gains_by_hand(rng):
    worst = planning.worst_case(outcomes(images=12, seeds=2, variants=["baseline", "attention"], rng=rng))
    table = planning.largest_gains(worst, [["attention", "baseline"]])
    assert len(table) == 4 + 2  # two seeds over two; one baseline over the other

    def share(variant, seed, epsilon):
        run = (worst["variant"] == variant) & (worst["seed"] == seed) & (worst["epsilon"] == epsilon)
        return worst["correct"][run].mean()

    for row in table.itertuples():
        best = {"typical": [], "extreme": []}
        for epsilon in (1.0, 2.0, 3.0):
            base, other = share(row.other, row.over, epsilon), share(row.one, row.seed, epsilon)
            gain = 100 * (other / base - 1) if base else (np.inf if other else np.nan)
            best["typical" if base >= 0.1 else "extreme"].append(gain)
        for name, gains in best.items():
            known = [gain for gain in gains if not np.isnan(gain)]
            assert getattr(row, name) == pytest.approx(max(known) if known else np.nan, nan_ok=True)


def test_the_dose_is_the_change_of_the_logits_by_their_size():
    worst = planning.worst_case(outcomes())
    rows = [("skin", "attention", seed, f"i{i}", 3.0, 1.5, 0, i % 2) for seed in (0, 1) for i in range(10)]
    columns = ["dataset", "variant", "seed", "image_id", "size", "change", "predicted", "without"]
    branch = pd.DataFrame(rows, columns=columns)
    table = planning.dose(branch, worst, BUDGETS)
    pd.testing.assert_frame_equal(table[list(planning.part(branch))], planning.part(branch))
    assert list(table["part"]) == pytest.approx([50, 50])
    assert list(table["answers"]) == pytest.approx([50, 50])
    apart = planning.by_run(worst, [["attention", "baseline"]], BUDGETS)["difference"]
    assert list(table["difference"]) == pytest.approx(list(apart[:2]))


def test_doses_are_described_by_variant_with_student_s_interval():
    rows = [("d", "strong", s, 60 + s, x) for s, x in enumerate((1.0, 2.0, 4.0))]
    rows += [("d", "weak", 0, 0.0, 0.5), ("d", "weak", 1, 20.0, np.nan), ("d", "weak", 2, 30.0, 1.5)]
    dose = pd.DataFrame(rows, columns=["dataset", "variant", "seed", "part", "difference"])
    weak, strong = planning.by_dose(dose).itertuples(index=False)
    assert (weak.variant, weak.runs, weak.off, weak.part_low, weak.part_high) == ("weak", 2, 1, 0, 30)
    assert (strong.variant, strong.runs, strong.off, strong.part_low, strong.part_high) == ("strong", 3, 0, 60, 62)
    expected = stats.t.interval(0.95, 2, np.mean([1, 2, 4]), stats.sem([1, 2, 4]))
    assert (strong.ci_low, strong.ci_high) == pytest.approx(expected)


def packed(folder, profile, variant, seed, tables):
    """Results of a network as they are published: tables by name."""
    (folder / profile).mkdir(exist_ok=True)
    about = {"profile": profile, "dataset": "ham10000", "variant": variant, "settings": {}, "seed": seed}
    with zipfile.ZipFile(folder / profile / f"ham10000-seed{seed}-{variant}.zip", "w") as file:
        file.writestr("network.json", json.dumps(about))
        file.writestr("model.keras.provenance.json", "{}")
        for name, table in tables.items():
            file.writestr(name, table.to_csv(index=False))


def test_networks_of_other_profiles_stand_beside_the_baselines_of_their_seeds(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "PUBLISHED", tmp_path)
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    ours = pd.DataFrame({"dataset": "ham10000", "variant": ["baseline", "baseline", "uniform"], "seed": [0, 1, 0]})
    ours["robust_accuracy"] = [0.4, 0.5, 0.9]
    assert results.beside(load_profile("ham10000"), ours).empty
    rng = np.random.default_rng(0)
    budgets, logits = [0.0, *load_profile("ham10000").planned_budgets], rng.normal(size=(2, 6))
    grid = pd.MultiIndex.from_product([[f"i{n}" for n in range(6)], budgets], names=["image_id", "epsilon"])
    branch = pd.DataFrame({"image_id": range(6), "size": 2.0, "change": logits[0], "predicted": 1, "without": 1})
    kept = {}
    for profile, variant, seeds in (("ham10000-strong", "uniform", (0, 1)), ("ham10000-scaled", "scaled", (1,))):
        for seed in seeds:
            stands = {name: pd.Series(rng.random(len(grid)) < 0.7, grid) for name in ("pgd", "autoattack", "fgsm")}
            found = {
                f"attacks/{name}-linf.csv": correct.rename("correct")
                .reset_index()
                .assign(label=0, attack=name, norm="linf", through="logits")
                for name, correct in stands.items()
                if name != "fgsm" or (variant == "uniform" and seed == 0)  # which not every run met
            }
            packed(tmp_path, profile, variant, seed, found | {"branch.csv": branch[: 6 * (variant == "uniform")]})
            kept[variant, seed] = (stands["pgd"] & stands["autoattack"]).drop(0.0, level="epsilon").mean()
    table = results.beside(load_profile("ham10000"), ours).set_index(["variant", "seed"])
    assert list(table.index) == [("uniform-strong", 0), ("uniform-strong", 1), ("scaled", 1)]
    expected = 100 * (np.array(list(kept.values())) - [0.4, 0.5, 0.5])
    assert table["difference"].to_numpy(float) == pytest.approx(expected)
    assert table.loc["uniform-strong", "part"].to_numpy(float) == pytest.approx(50 * np.sqrt((logits[0] ** 2).mean()))
    assert table.loc[("scaled", 1), ["n", "part"]].isna().all(), "there is no branch"
    assert results.beside(load_profile("ham10000-adam"), ours).empty


def test_runs_that_were_trained_again_are_counted_with_their_study(monkeypatch, tmp_path):
    """Their checks are read from the packed results of `<profile>-again`, whatever budgets these have."""
    images = pd.DataFrame({"image_id": list("abcd"), "label": 0, "epsilon": 0.2, "correct": [False, True, True, True]})
    alone = convergence.fallen(images.assign(dataset="ham10000", variant="baseline", seed=0))
    assert alone["fallen"].tolist() == [0.25]
    assert alone[["ci_low", "ci_high"]].to_numpy()[0] == pytest.approx(proportion_confint(1, 4, method="wilson"))
    monkeypatch.setattr(results, "PUBLISHED", tmp_path)
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    for seed in (1, 2):
        packed(tmp_path, "ham10000-again", "baseline", seed, {"convergence-0.2.csv": images, "predictions.csv": images})
    study = Study("ham10000", "ham10000", 0)
    again = pd.concat(results.checked_again(study))
    assert not list(results.checked_again(Study("ham10000-adam", "ham10000", 0)))
    assert list(convergence.fallen(again)) == list(alone)
    table = pd.concat([alone, convergence.fallen(again)])
    assert table["seed"].tolist() == [0, 1, 2]
    [(budget, [row])] = by_budget(table)
    assert (budget, row) == (0.2, {"epsilon": 0.2, "variant": "baseline", "n": 12, "fallen": 3, "runs": 3})
