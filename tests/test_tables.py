import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from lib import tables
from lib.profile import Training


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
        gamma=[np.nan, np.nan, np.nan, 0.02, 0.05], val_loss=[3.0, 1.0, 2.0, 1.0, 1.5]
    )
    settings = Training(epochs=9, epoch_fraction={})
    clean = tables.clean_accuracy(table, histories, parameters, settings).set_index("variant")
    for variant, group in table.groupby("variant"):
        row = clean.loc[variant]
        low, high = proportion_confint(group["correct"].sum(), len(group), method="wilson")
        assert row["accuracy"] == group["correct"].mean()
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
        assert row["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(group["label"], group["predicted"])
        )
        auc = roc_auc_score(group["label"], group[["p0", "p1", "p2"]], multi_class="ovr")
        assert row["auc"] == pytest.approx(auc)
        assert row["auc_ci_low"] <= auc <= row["auc_ci_high"]
    assert list(clean["stopped_epoch"]) == [3, 2]
    assert list(clean["kept_epoch"]) == [2, 1]
    assert list(clean["epochs_max"]) == [9, 9]
    assert list(clean["parameters"]) == [10, 12]
    assert clean.loc["attention", "gamma"] == 0.02


def test_robust_accuracy_counts_every_image_at_every_epsilon():
    outcomes = pd.DataFrame(
        [
            ("d", "baseline", 0, f"i{i}", "pgd", "linf", "logits", e, i >= k)
            for e, k in ((0, 1), (1, 4))
            for i in range(5)
        ],
        columns=["dataset", "variant", "seed", "image_id", "attack", "norm", "through", "epsilon", "correct"],
    )
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
    index = pd.DataFrame(
        {"split": ["train"] * 3 + ["test"], "label": [1, 0, 0, 1], "class_name": ["b", "a", "a", "b"]}
    )
    counts = tables.class_counts(index, "d")
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
