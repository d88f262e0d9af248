"""Sentences state what the numbers carry, and no more."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation.statistics import MeanInterval, paired_difference
from lib.profile import Model, Training
from lib.report import sentences


def test_early_stopping_cannot_act_within_its_patience():
    assert "cannot act" in sentences.early_stopping(Training(epochs=12, patience=40))
    assert "cannot act" not in sentences.early_stopping(Training(epochs=300, patience=40))


@pytest.mark.parametrize(("gamma", "off"), [(0.02, False), (0.0, True), (-0.003, True)])
def test_a_branch_is_off_where_gamma_is_not_positive(gamma, off):
    clean = pd.DataFrame({"dataset": "d", "variant": ["baseline", "attention"], "gamma": [None, gamma]})
    said = sentences.branch(clean, Model())
    assert ("is off" in said) == off
    assert ("by 0.7%, on average" in said) == (gamma == 0.02)  # 16 * 0.02 / 49
    assert sentences.branch(clean, Model(feature_layer="conv5_block3_add")) == ""  # such a map can be negative


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.1, "higher with attention"), (-0.1, -0.01, "lower with attention"), (-0.1, 0.1, "no difference seen")],
)  # fmt: skip
def test_a_direction_is_said_only_where_the_interval_excludes_0(low, high, said):
    assert sentences.difference(low, high) == said


def test_the_softmax_gap_names_the_largest_difference_and_counts_the_clear_ones():
    gap = pd.DataFrame(
        {"attack": "pgd", "variant": ["baseline", "attention"], "epsilon": [1.0, 2.0], "n": 60,
         "difference": [0.05, -0.2], "ci_low": [-0.01, -0.3], "ci_high": [0.1, -0.1]}
    )  # fmt: skip
    said = sentences.hidden(gap, "phantom data")
    assert "-20.0 (-30.0 to -10.0) points" in said
    assert "PGD on attention at epsilon 2" in said
    assert "1 of 2 comparisons" in said
    assert "phantom data" in said


def test_the_answer_on_robustness_is_that_against_the_baseline():
    rows = pd.DataFrame(
        {"against": ["pooling", "baseline"], "attention": 0.45, "other": [0.4, 0.5], "difference": [5.0, -5.0],
         "ci_low": [1.0, -9.0], "ci_high": [9.0, -1.0], "n": 60}
    )  # fmt: skip
    said = sentences.robustness(rows, "autoattack", "phantom data")
    assert "attention keeps 45 % of the images and the baseline 50 %: -5.0 points (95 % CI -9.0 to -1.0; n = 60" in said
    assert "**lower with attention**" in said
    assert "one training run" in said
    assert "at no budget" in sentences.robustness(rows.iloc[:0], "autoattack", "phantom data")


def test_the_answer_on_training_holds_the_interval_against_the_margin():
    right = np.ones(200, bool)
    change = paired_difference(right, right)
    assert "no difference seen" in sentences.training(change, "phantom data", 0.05)
    assert sentences.training(change, "phantom data", 0.05).endswith("which it does.")
    assert sentences.training(change, "phantom data", 0.0).endswith("which it does not.")


def test_the_answer_on_maps_says_when_there_are_too_few():
    change = MeanInterval(0.2, 0.1, 0.3, 4, 8)
    assert "too few images to say" in sentences.maps(change, 6, "phantom data")
    assert "higher with attention" in sentences.maps(change, 4, "phantom data")


def test_failed_checks_are_listed_with_their_value_and_n():
    checks = pd.DataFrame(
        {"dataset": "d", "variant": "attention", "check": ["more steps", "transfer"], "passed": [False, True],
         "value": [0.1, 0.0], "n": 30, "sentence": "So it is."}
    )  # fmt: skip
    said = sentences.failed(checks, "phantom data")
    assert "1 of 2 checks pass (phantom data)" in said
    assert "d, attention, more steps: 0.1 (n = 30)" in said
    assert "transfer" not in said


def test_the_answer_on_the_claims_counts_verdicts_and_keeps_the_interval():
    ledger = pd.DataFrame(
        {"claim": "C1", "statement": "more robust", "dataset": ["a", "b", "c"], "ours": [6.0, 21.7, None],
         "ci_low": [-10.0, 10.9, None], "ci_high": [26.0, 34.1, None], "n": [60, 60, None],
         "verdict": ["inconclusive (phantom data)", "reproduced (phantom data)",
                     "not testable on this data: the attention branch is off (phantom data)"]}
    )  # fmt: skip
    said = sentences.in_short(ledger, "autoattack", {"a": "A", "b": "B", "c": "C"}, "phantom data")
    assert "B +22 % (95 % CI +11 to +34, n = 60)" in said
    assert "C no typical budget" in said
    assert "C1 inconclusive (1 of 3), reproduced (1 of 3), not testable on this data (1 of 3)" in said


def test_readable_tables_name_attacks_as_the_figures_do():
    table = sentences.readable(pd.DataFrame({"attack": ["mi_fgsm"], "ci_low": [0.12345], "p_holm": [1.0]}))
    assert list(table.columns) == ["attack", "95 % from", "p (Holm, all rows)"]
    assert table.iloc[0].tolist() == ["MI-FGSM", "0.123", "1"]


def test_when_gamma_fell_is_said():
    run = pd.DataFrame({"variant": "attention", "epoch": [1, 2, 3, 4], "gamma": [0.016, 0.0005, -0.002, -0.0021]})
    assert sentences.gamma_in_training(run) == (
        "In training gamma fell to 0 or below in epoch 3; it was 0.016 after epoch 1 and "
        "-0.0021 after epoch 4, the last."
    )
    assert "gamma never fell to 0" in sentences.gamma_in_training(run.head(2))
    assert sentences.gamma_in_training(run.assign(variant="pooling")) == ""
