"""Sentences state what the numbers carry, and no more."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import planned
from lib.evaluation.claims import Inactive
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


def effects(runs, **more):
    """A primary comparison and its control as `planned.effects` gives them, of one training run or of eight."""
    low, high = (1.5, 2.5) if runs > 1 else (np.nan, np.nan)
    row = {"dataset": "d", "kind": "primary", "one": "attention-reference", "other": "uniform", "n": 300, "runs": runs}
    row |= {"difference": 2.0, "ci_low": low, "ci_high": high, "both_low": -4.0, "both_high": 8.0, "percent": 5.0}
    row |= {
        "percent_low": low,
        "percent_high": high,
        "smallest_seen": high,
        "conclusion": planned.conclusion(low, high, 2),
    }
    control = {"kind": "control", "one": "adversarial", "other": "baseline"} | more
    return pd.DataFrame([row, row | control])


def test_the_answer_of_several_runs_has_their_interval_and_what_the_control_shows():
    said = sentences.planned(effects(8), {"d": "D"}, "original data")
    assert said.startswith("**Attention raised robust accuracy.** D (original data): ")
    assert "over 8 training runs of each on 300 images: +2.0 percentage points (95 % CI +1.5 to +2.5)." in said
    assert "the paper's +16 % is excluded" in said
    assert (
        "adversarial minus baseline: +2.0 percentage points (95 % CI +1.5 to +2.5), over 8 runs: the experiment sees an"
        " effect of that size." in said
    )
    unseen = sentences.planned(effects(8, ci_low=-1.0), {"d": "D"}, "original data")
    assert "is too noisy to prove that the experiment is sensitive" in unseen
    assert unseen.startswith("**Not decided: the positive control's interval holds 0.**"), "as the protocol has it"


RAISED = "Attention raised robust accuracy."
BLIND = "Not decided: the positive control's interval holds 0."


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (-1.0, 1.0, RAISED),
        (-1.0, -0.5, BLIND),
        (1.0, 0.5, RAISED),
    ],
)
def test_what_the_planned_runs_of_the_control_say_stands_beside_what_all_say(first, then, words):
    planned = effects(8, ci_low=first)
    planned.loc[1, "runs"] = 3
    added = planned.iloc[[1]].assign(kind="extended control", ci_low=then, runs=8)
    said = sentences.planned(pd.concat([planned, added]), {"d": "D"}, "original data")
    assert said.startswith(f"**{words}** D")
    assert ("over 3 runs, +2.0 percentage points (95 % CI -1.0 to +2.5), is too noisy" in said) == (first < 0)
    does = "does" if then > 0 else "does not"
    assert f"With 8 runs it {does}: +2.0 percentage points (95 % CI {then:+.1f} to +2.5)." in said


def test_secondary_comparisons_are_told_with_their_adjusted_p_value():
    row = effects(8).iloc[[0]].assign(kind="secondary", one="attention-gamma1", p_holm=0.056, conclusion=planned.OPEN)
    both = pd.concat([effects(8), row])
    said = sentences.planned(both, {"d": "D"}, "original data")
    assert "(Holm): attention-gamma1 minus uniform +2.0 (+1.5 to +2.5) points, 8 runs, p = 0.056, not decided." in said
    assert "Holm" not in sentences.planned(both.assign(p_holm=np.nan), {"d": "D"}, "original data")


def test_the_answer_of_one_run_decides_nothing_and_says_what_its_interval_is_of():
    said = sentences.planned(effects(1), {"d": "D"}, "original data")
    assert said.startswith("**Not decided.**")
    assert said.count("(95 % CI over images alone -4.0 to +8.0)") == 2
    assert "One training run of each decides nothing" in said
    assert "sensitive" not in said
    assert "excluded" not in said


@pytest.mark.parametrize(("off", "words"), [(2, "Attention raised robust accuracy."), (8, "Not testable.")])
def test_an_answer_says_where_attention_is_inactive_and_claims_nothing_where_it_always_is(off, words):
    said = sentences.planned(effects(8), {"d": "D"}, "original data", {"d": Inactive(off, 8)})
    assert said.startswith(f"**{words}** D")
    assert f"inactive (gamma <= 0) in {off} of 8 runs" in said
    assert "inactive" not in sentences.planned(effects(8), {"d": "D"}, "original data", {"e": Inactive(8, 8)})


def test_failed_checks_are_listed_with_their_value_and_n():
    checks = pd.DataFrame(
        {"dataset": "d", "variant": "attention", "check": ["more steps", "transfer"], "passed": [False, True],
         "value": [0.1, 0.0], "n": 30, "sentence": "So it is."}
    )  # fmt: skip
    said = sentences.failed(checks, "phantom data")
    assert "1 of 2 checks pass (phantom data)" in said
    assert "d, attention, more steps: 0.1 (n = 30)" in said
    assert "transfer" not in said


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


def test_what_falls_to_the_published_attack_is_counted_for_those_of_whom_some_fell():
    rows = pd.DataFrame(
        {"variant": ["a", "b", "c"], "n": [40, 40, 30], "fallen": [0.05, 0.0, 0.0], "epsilon": 0.1, "seed": 0}
    )
    begins = "Of images that stand at 0.1 gray levels, AutoAttack as it was published fells "
    too_high = "(phantom data): by so much the robust accuracies here are too high."
    said = sentences.converged(rows, "phantom data")
    assert said == f"{begins}2 of 40 of a and none of 70 of the others {too_high}"
    assert sentences.converged(rows.assign(fallen=0.1), "phantom data") == (
        f"{begins}4 of 40 of a, 4 of 40 of b, 3 of 30 of c {too_high}"
    )
    assert sentences.converged(rows.iloc[1:], "phantom data") == f"{begins}none of 70 (phantom data)."
    assert sentences.say("fallen", budgets=sentences.by_budget(rows[:1]), code="`") == f"{begins}2 of 40 of `a`"
    more = pd.concat([rows, *(rows[:2].assign(epsilon=0.2, seed=seed) for seed in range(3))])
    assert sentences.converged(more, "phantom data") == (
        f"{begins}2 of 40 of a and none of 70 of the others, and at 0.2 it fells 6 of 120 of a and none of 120 of the "
        f"others (of 3 training runs of each) {too_high}"
    )
    assert "does not hold" in sentences.converged(rows.iloc[:0], "phantom data")
