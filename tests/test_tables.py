import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from lib import artifacts
from lib.data.splits import class_counts
from lib.profile import Training
from lib.report import tables


def predictions(seed=0, n=60, classes=3):
    rng = np.random.default_rng(seed)
    tidy = []
    for variant in ("baseline", "attention"):
        labels = np.arange(n) % classes
        scores = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[labels]
        scores /= scores.sum(1, keepdims=True)
        table = pd.DataFrame(scores, columns=[f"p{k}" for k in range(classes)])
        table = table.assign(label=labels, predicted=scores.argmax(1), image_id=[f"i{i}" for i in range(n)])
        table["correct"] = table["label"] == table["predicted"]
        tidy.append(table.assign(dataset="d", variant=variant, seed=0))
    return pd.concat(tidy, ignore_index=True)


def test_clean_accuracy_is_that_of_scikit_learn_and_statsmodels():
    table = predictions()
    runs = pd.DataFrame({"dataset": "d", "variant": ["baseline", "attention"], "seed": 0})
    parameters = runs.assign(parameters=[10, 12], attention_parameters=[0, 2], attention_percent=[0, 20.0])
    histories = runs.loc[[0, 0, 0, 1, 1]].assign(
        gamma=[np.nan, np.nan, np.nan, 0.02, 0.05],
        epoch=[1, 2, 3, 1, 2],
        kept=[False, True, False, True, False],
    )
    settings = Training(epochs=9, epoch_fraction={})
    clean = tables.clean_accuracy(table, histories, parameters, settings).set_index("variant")
    for variant, group in table.groupby("variant"):
        row = clean.loc[variant]
        low, high = proportion_confint(group["correct"].sum(), len(group), method="wilson")
        assert row["accuracy"] == group["correct"].mean()
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(group["label"], group["predicted"]))
        auc = roc_auc_score(group["label"], group[["p0", "p1", "p2"]], multi_class="ovr")
        assert row["auc"] == pytest.approx(auc)
        assert row["auc_ci_low"] <= auc <= row["auc_ci_high"]
    assert list(clean["stopped_epoch"]) == [3, 2]
    assert list(clean["kept_epoch"]) == [2, 1]
    assert list(clean["epochs_max"]) == [9, 9]
    assert list(clean["parameters"]) == [10, 12]
    assert clean.loc["attention", "gamma"] == 0.02
    np.testing.assert_allclose(clean["majority"], 1 / 3)


def test_robust_accuracy_counts_every_image_at_every_epsilon():
    outcomes = pd.DataFrame(
        [
            ("d", "baseline", 0, f"i{i}", "pgd", "linf", "logits", e, i >= k, int(i > 2))
            for e, k in ((0, 1), (1, 4))
            for i in range(5)
        ],
        columns=[
            "dataset", "variant", "seed", "image_id", "attack", "norm", "through", "epsilon", "correct", "label"
        ],
    )  # fmt: skip
    table = tables.robust_accuracy(outcomes)
    assert list(table["robust_accuracy"]) == [0.8, 0.2]
    assert list(table["n"]) == [5, 5]
    assert list(table.columns[:10]) == (
        [
            "dataset",
            "variant",
            "seed",
            "attack",
            "norm",
            "epsilon",
            "n",
            "robust_accuracy",
            "ci_low",
            "ci_high",
        ]
    )
    assert table["ci_low"].iloc[1] == pytest.approx(proportion_confint(1, 5, method="wilson")[0])
    # Classes of three and two images: two and two of them right on the clean ones, none and one under attack.
    np.testing.assert_allclose(table["balanced"], [(2 / 3 + 1) / 2, (0 + 1 / 2) / 2])
    np.testing.assert_allclose(table["majority"], 3 / 5)
    assert (table["balanced_low"] <= table["balanced"]).all()
    assert (table["balanced"] <= table["balanced_high"]).all()


def test_printed_has_a_row_per_attack_and_percent_with_its_interval():
    robust = pd.DataFrame(
        {"dataset": "d", "variant": "baseline", "seed": 0, "attack": "pgd", "norm": "linf", "epsilon": [0, 1, 2] * 2,
         "n": 50, "robust_accuracy": [0.9, 0.5, 0.1] * 2, "ci_low": [0.8, 0.4, 0.05] * 2,
         "ci_high": [0.95, 0.6, 0.2] * 2, "through": ["logits"] * 3 + ["softmax"] * 3}
    )  # fmt: skip
    table = tables.printed(robust, [2])
    assert list(table.columns) == [0, 2]
    assert table.loc[("d", "pgd (softmax)", "baseline", 0, 50), 2] == "10 (5 to 20)"
    assert len(table) == 2
    table = tables.printed(robust.rename(columns={"seed": "seeds"}).assign(seeds=8))
    assert table.loc[("d", "pgd", "baseline", 8, 50), 1] == "50 (40 to 60)", "over training runs"


def test_the_interval_of_a_median_distance_covers_it_as_often_as_it_says():
    """Exact order statistics cover the true median of any continuous distribution in at least 95 % of samples."""
    rng = np.random.default_rng(0)
    columns = {"dataset": "d", "variant": "baseline", "seed": 0, "norm": "linf"}
    covered = 0
    for _ in range(300):
        drawn = rng.exponential(1, 25)
        outcomes = pd.DataFrame(
            columns | {"image_id": np.repeat(np.arange(25), 2), "smallest_epsilon": np.repeat(drawn, 2)}
        )
        row = tables.distances(outcomes).iloc[0]
        covered += row["ci_low"] <= np.log(2) <= row["ci_high"]
        assert row["median"] == np.median(drawn)
    assert 0.93 <= covered / 300 <= 1


def test_distances_take_the_nearest_of_all_attacks_and_count_what_none_broke():
    outcomes = pd.DataFrame(
        [(a, i, e)
         for i, pair in enumerate([(1, 2), (3, 0.5), (np.inf, 4), (np.inf, np.inf), (0, 0), (2, np.inf)])
         for a, e in zip(("pgd", "square"), pair, strict=True)],
        columns=["attack", "image_id", "smallest_epsilon"],
    ).assign(dataset="d", variant="baseline", seed=0, norm="linf")  # fmt: skip
    row = tables.distances(outcomes).iloc[0]
    assert row["n"] == 5  # without the one that is wrong from the start
    assert row["median"] == 2  # of 0.5, 1, 2, 4, infinity
    assert row["unbroken"] == 1


def test_directions_count_each_way_apart():
    rows = [("mel", "nv", i, 1.0, i < 3) for i in range(4)] + [("nv", "mel", i, 1.0, i < 1) for i in range(5)]
    table = pd.DataFrame(rows, columns=["start", "goal", "image_id", "epsilon", "reached"])
    table = table.assign(dataset="d", variant="baseline", seed=0, attack="pgd")
    shares = tables.reached(table).set_index("start")
    assert shares["reached"].to_dict() == {"mel": 0.75, "nv": 0.2}
    low, high = proportion_confint(3, 4, method="wilson")
    assert (shares.loc["mel", "ci_low"], shares.loc["mel", "ci_high"]) == pytest.approx((low, high))


def test_gradcam_shift_leaves_out_undefined_maps_and_counts_them():
    shifts = pd.DataFrame(
        {"dataset": "d", "variant": "baseline", "seed": 0, "map": "gradcam", "rank_correlation": [0.5, 0.7, np.nan],
         "ssim": [1.0, 1.0, np.nan], "top20_overlap": [0.2, 0.4, np.nan]}
    )  # fmt: skip
    table = tables.gradcam_shift(shifts).set_index("measure")
    assert table.loc["rank correlation", "mean"] == pytest.approx(0.6)
    assert list(table["n"]) == [2, 2, 2]
    assert list(table["undefined"]) == [1, 1, 1]


def test_class_counts_sum_to_the_index():
    index = pd.DataFrame({"split": ["train"] * 3 + ["test"], "label": [1, 0, 0, 1], "class_name": ["b", "a", "a", "b"]})
    counts = class_counts(index, "d")
    assert counts.to_numpy().tolist() == [
        ["d", "train", "a", 2],
        ["d", "train", "b", 1],
        ["d", "test", "b", 1],
    ]


def test_a_table_is_written_three_ways_with_provenance(tmp_path):
    table = pd.DataFrame({"dataset": ["a_b"], "share_of_%": [0.12345], "n": [7], "missing": [np.nan]})
    tables.write_table(table, tmp_path / "t", "50 % & more_", {"profile": "x"})
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)
    assert "0.123" in (tmp_path / "t.md").read_text()
    tex = (tmp_path / "t.tex").read_text()
    assert r"50 \% \& more\_" in tex
    assert r"\toprule" in tex
    assert r"a\_b & 0.123 & 7 & -" in tex
    assert (tmp_path / "t.provenance.json").is_file()


def test_latex_escapes_what_would_mean_something_to_it():
    awkward = pd.DataFrame({"a_b": ["x & y % # $ { } ~ ^ \\ <= ε"], "share": ["0.5"]})
    text = tables.latex(awkward, "50 % of $x$ & {more} ~ _", "awkward")
    row, caption = (next(line for line in text.splitlines() if start in line) for start in ("x ", "caption"))
    for sign in "&%#$_":
        assert len(re.findall(rf"(?<!\\)\{sign}", caption)) == 0
    assert row.count("&") - row.count(r"\&") == 1
    assert [text.count(f"{end}{{{name}}}") for name in ("table", "tabular") for end in ("begin", "end")] == [1, 1, 1, 1]


def test_latex_puts_an_interval_beside_its_value_and_breaks_long_tables():
    columns = {
        "n": ["7", "8"],
        "share": ["0.5", "1"],
        "ci_low": ["0.1", "-"],
        "ci_high": ["0.9", "-"],
        "p": ["1", "1"],
    }
    text = tables.latex(pd.DataFrame(columns), "title", "name")
    assert r"n & share & p \\" in text
    assert r"7 & 0.5 (0.1 to 0.9) & 1 \\" in text
    assert r"8 & 1 & 1 \\" in text
    assert r"\begin{longtable}" not in text
    assert r"\begin{longtable}" in tables.latex(pd.DataFrame({"n": ["7"] * 41}), "title", "name")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (0.0, "0"),
        (-0.0004, "-4.0e-04"),
        (12, "12"),
        (1234.5678, "1234.568"),
        (None, "-"),
        (float("inf"), "inf"),
        (True, "True"),
        (100.0, "100"),
        (0.00012, "1.2e-04"),
    ],
)
def test_numbers_for_people(value, text):
    assert tables.rounded(pd.DataFrame({"x": [value]}, dtype=object)).iloc[0, 0] == text


def test_times_are_those_of_the_stages_and_of_what_was_made_in_them(tmp_path):
    variant = tmp_path / "eyepacs" / "seed3" / "attention"
    made = {"model.keras": 7, "attacks/fgsm-linf.csv": 1, "attacks/pgd-l2.csv": 2}
    for path, seconds in (made | {"convergence.csv": 4, "convergence-0.2.csv": 5}).items():
        artifacts.write_provenance(variant / path, seconds=seconds)
    artifacts.write_provenance(variant / "old.csv")  # no time known
    (tmp_path / "results.tsv").write_text("s\th:m:s\n4.24\t0:00:04\n")
    (variant.parent / "why.tsv").write_text("s\th:m:s\n5\t0:00:05\n")
    table = tables.timings(tmp_path).set_index("stage")["seconds"]
    assert table.to_dict() == {
        "results": 4.2, "why": 5.0, "made: model": 7.0, "made: attacks": 3.0, "made: convergence": 9.0, "made: old": 0.0
    }  # fmt: skip
    where = tables.timings(tmp_path).set_index("stage")[["dataset", "seed", "variant"]]
    assert where.loc["made: model"].tolist() == ["eyepacs", "3", "attention"]
    assert where.loc["why"].tolist() == ["eyepacs", "3", "all"]


def test_tables_of_an_earlier_run_do_not_stay(tmp_path):
    for name in ("claims", "why_ratios", "timings"):
        tables.write_table(pd.DataFrame({"x": [1]}), tmp_path / name, name, {"data": "phantom data"})
    tables.keep_only(tmp_path, ["claims"])
    assert sorted(tables.written(tmp_path)) == ["claims", "timings"]
    assert len(list(tmp_path.iterdir())) == 8
    assert tables.written(tmp_path)["claims"]["data"].tolist() == ["phantom data"]
