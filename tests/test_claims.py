import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from lib.evaluation import claims, comparison

pytestmark = pytest.mark.usefixtures("few_resamples")

HEADLINE = ("pgd", "linf", "logits")


RUNS = (0, 1, 2, 3, 4)


def outcomes(baseline, attention, epsilons=(0, 1, 4), n=200, seeds=RUNS, attack=HEADLINE):
    """The first share * n images stand at each epsilon."""
    rows = []
    for variant, shares in (("baseline", baseline), ("attention", attention)):
        for seed in seeds:
            for epsilon, share in zip(epsilons, shares, strict=True):
                for i in range(n):
                    correct = i < round(share * n)
                    rows.append(("d", variant, seed, f"i{i:03d}", i % 2, *attack, epsilon, correct))
    keys = ["dataset", "variant", "seed", "image_id", "label", "attack", "norm", "through", "epsilon"]
    columns = [*keys, "correct"]
    return pd.DataFrame(rows, columns=columns)


def ledger(table, *, shift=(0.5, 0.5), protocol=False, epochs=70, inactive=None):
    predictions = table[table["epsilon"] == 0]
    histories = pd.DataFrame(
        [("d", v, 0, e + 1) for v in ("baseline", "attention") for e in range(epochs)],
        columns=["dataset", "variant", "seed", "epoch"],
    )
    seeds = table["seed"].unique()
    wobble = np.random.default_rng(0).normal(0, 0.05, (2, len(seeds), 30))
    shifts = pd.DataFrame(
        [("d", v, seed, f"i{i}", "gradcam", mean + wobble[k, seed, i])
         for k, (v, mean) in enumerate(zip(("baseline", "attention"), shift, strict=True))
         for seed in seeds for i in range(30)],
        columns=["dataset", "variant", "seed", "image_id", "map", "rank_correlation"],
    )  # fmt: skip
    result = claims.ledger(
        table,
        predictions,
        histories,
        shifts,
        1.25,
        1.31,
        headline=HEADLINE,
        protocol=protocol,
        label="phantom data",
        inactive=inactive,
    )
    return result.set_index("claim")


def test_every_claim_is_there_with_its_rule_and_the_paper_s_value():
    table = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05)))
    assert list(table.index) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert table["rule"].notna().all()
    assert table.loc["C2", "paper"] == "up to +2700 % (relative)"
    on_data = table.drop(index="C4")
    assert on_data["verdict"].str.contains("phantom data").all()


def test_a_clear_gain_is_reproduced_with_the_relative_change_by_hand():
    table = ledger(outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30)))
    assert table.loc["C1", "ours"] == pytest.approx(50)  # from 0.4 to 0.6 at the one typical budget
    assert table.loc["C1", "verdict"].startswith("reproduced")
    assert table.loc["C2", "ours"] == pytest.approx(25)  # points, at the one extreme budget
    assert table.loc["C2", "verdict"].startswith("reproduced")


def test_a_clear_loss_is_not_reproduced_and_no_difference_is_inconclusive():
    loss = ledger(outcomes((0.9, 0.6, 0.05), (0.6, 0.4, 0.0)))
    assert loss.loc["C1", "verdict"].startswith("not reproduced")
    assert loss.loc["C3", "verdict"].startswith("not reproduced")
    same = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05)))
    assert same.loc["C1", "verdict"].startswith("inconclusive")
    assert same.loc["C1", "ours"] == 0


def test_clean_accuracy_needs_enough_images_to_call_it_no_drop():
    few = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05), n=40))
    many = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05), n=2000))
    assert few.loc["C3", "verdict"].startswith("inconclusive")
    assert many.loc["C3", "verdict"].startswith("reproduced")


def test_a_last_image_that_stands_or_falls_does_not_turn_the_extreme_claim():
    none = ledger(outcomes((0.9, 0.6, 0.0), (0.9, 0.6, 0.0), n=50))
    one = ledger(outcomes((0.9, 0.6, 0.02), (0.9, 0.6, 0.0), n=50))
    assert none.loc["C2", "ours"] == 0
    assert none.loc["C2", "ci_low"] < 0 < none.loc["C2", "ci_high"]
    for table in (none, one):
        assert table.loc["C2", "verdict"].startswith("inconclusive")


def test_budgets_at_which_nothing_stands_do_not_water_the_extreme_claim_down():
    epsilons, shares = (0, 1, 2, 4, 8), ((0.9, 0.6, 0.05, 0.0, 0.0), (0.9, 0.6, 0.02, 0.0, 0.0))
    table = ledger(outcomes(*shares, epsilons=epsilons, n=100))
    assert table.loc["C2", "ours"] == pytest.approx(-3)  # points, at epsilon 2 alone


def test_a_network_whose_attention_is_off_tests_no_claim_about_attention():
    gain = outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30))
    table = ledger(gain, shift=(0.2, 0.7), inactive={"d": claims.Inactive(3, 3)})
    for claim in ("C1", "C2", "C3", "C6"):
        assert table.loc[claim, "verdict"].startswith("not testable on this data: attention inactive in 3 of 3 runs")
    assert table.loc["C4", "verdict"].startswith("reproduced (the block; ")
    assert "1.31 %" in table.loc["C4", "verdict"]


def test_attention_is_off_where_a_kept_model_has_no_positive_gamma():
    clean = pd.DataFrame(
        [
            ("a", "attention", 0.02),
            ("a", "attention", -0.1),
            ("b", "attention", -0.001),
            ("b", "baseline", np.nan),
            ("c", "attention", 0.01),
        ],
        columns=["dataset", "variant", "gamma"],
    )
    assert claims.inactive_attention(clean) == {"a": (1, 2), "b": (1, 1)}
    assert str(claims.inactive_attention(clean)["a"]) == "1 of 2 runs"


def test_regimes_that_do_not_occur_are_not_testable():
    typical = ledger(outcomes((0.9, 0.6, 0.5), (0.9, 0.6, 0.5)))
    assert typical.loc["C2", "verdict"].startswith("not testable on this data")
    extreme = ledger(outcomes((0.9, 0.05, 0.0), (0.9, 0.05, 0.0)))
    assert extreme.loc["C1", "verdict"].startswith("not testable on this data")


def test_stopping_is_testable_under_the_paper_s_protocol_only():
    same = outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05))
    assert ledger(same).loc["C5", "verdict"].startswith("not testable on this data")
    assert ledger(same, protocol=True).loc["C5", "verdict"].startswith("reproduced")
    assert ledger(same, protocol=True, epochs=300).loc["C5", "verdict"].startswith("not reproduced")


def test_gradcam_differs_or_not():
    same = outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05))
    assert ledger(same, shift=(0.2, 0.7)).loc["C6", "verdict"].startswith("reproduced")
    assert ledger(same, shift=(0.5, 0.5)).loc["C6", "verdict"].startswith("inconclusive")


def test_runs_whose_maps_disagree_are_no_difference_however_many_images_each_has():
    """Attention's maps move less than the baseline's in every run, or by 0.3 less, 0.4 more and 0.2 less."""
    rng = np.random.default_rng(0)
    mean = {"baseline": 0.2, "attention": 0.7}
    rows = [
        ("d", variant, seed, f"i{i}", "gradcam", value + rng.normal(0, 0.05))
        for variant, value in mean.items()
        for seed in range(3)
        for i in range(30)
    ]
    columns = ["dataset", "variant", "seed", "image_id", "map", "rank_correlation"]
    table = pd.DataFrame(rows, columns=columns)
    assert claims._gradcam(table)["verdict"] == "reproduced"
    runs = table["seed"].map({0: 0.3, 1: -0.4, 2: 0.2}).where(table["variant"] == "attention", 0)
    assert claims._gradcam(table.assign(rank_correlation=0.5 + runs))["verdict"] == "inconclusive"


def test_fewer_than_five_training_runs_settle_no_claim():
    gain, loss = ((0.9, 0.4, 0.05), (0.95, 0.6, 0.30)), ((0.9, 0.6, 0.05), (0.6, 0.4, 0.0))
    for curves in (gain, loss):
        one = ledger(outcomes(*curves, seeds=(0,)), shift=(0.2, 0.7))
        for claim in ("C1", "C2", "C3", "C6"):
            assert claims.stem(one.loc[claim, "verdict"]) == "not judged, one training run"
            assert one.loc[claim, "ci_low"] <= one.loc[claim, "ours"] <= one.loc[claim, "ci_high"]
        assert claims.stem(one.loc["C4", "verdict"]) == "reproduced"
    four, five = (ledger(outcomes(*gain, seeds=range(n))) for n in (4, 5))
    assert claims.stem(four.loc["C1", "verdict"]) == "not judged, 4 training runs"
    assert claims.stem(five.loc["C1", "verdict"]) == "reproduced"


def test_single_runs_with_attention_off_stay_in():
    gain = outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30))
    table = ledger(gain, inactive={"d": claims.Inactive(1, 3)})
    assert table.loc["C1", "verdict"] == "reproduced (phantom data; attention inactive in 1 of 3 runs)"
    assert claims.stem(table.loc["C1", "verdict"]) == claims.stem(ledger(gain).loc["C1", "verdict"])


def test_a_route_that_one_run_took_is_compared_in_that_run():
    logits = outcomes((0.9, 0.6, 0.05), (0.9, 0.8, 0.05))
    softmax = outcomes((0.9, 0.7, 0.05), (0.9, 0.7, 0.05), seeds=(0,)).assign(through="softmax")
    table = pd.concat([logits, softmax], ignore_index=True)
    gap = comparison.softmax_gap(table).set_index(["variant", "epsilon"])
    assert gap.loc[("baseline", 1), "difference"] == pytest.approx(0.1)
    assert gap["seeds"].eq(1).all()


def test_compare_is_paired_and_splits_regimes_at_ten_percent():
    both = outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30))
    table = comparison.compare(both[both["seed"] == 0], *HEADLINE).set_index("epsilon")
    assert list(table.index) == [1, 4]
    assert list(table["regime"]) == ["typical", "extreme"]
    assert table.loc[1, "difference"] == pytest.approx(0.2)
    assert table.loc[1, "percent"] == pytest.approx(50)
    assert table.loc[1, "p_value"] == pytest.approx(2 * 0.5**40)  # 40 images to none
    assert table["p_holm"].to_list() == pytest.approx(multipletests(table["p_value"], method="holm")[1])


def both_ways(softmax_baseline, softmax_attention, **options):
    """PGD through the logits at fixed robust accuracies, and another run of it through the softmax."""
    return pd.concat(
        [
            outcomes((0.9, 0.4, 0.05), (0.9, 0.5, 0.05), **options),
            outcomes(softmax_baseline, softmax_attention, attack=("pgd", "linf", "softmax"), **options),
        ],
        ignore_index=True,
    )


def test_an_attack_run_on_fewer_images_one_way_is_compared_on_those():
    full = both_ways((0.9, 0.7, 0.05), (0.9, 0.9, 0.05), n=200)
    few = full[(full["through"] == "logits") | (full["image_id"] < "i100")]
    expected = full[full["image_id"] < "i100"]
    pd.testing.assert_frame_equal(comparison.softmax_gap(few), comparison.softmax_gap(expected))
    assert set(comparison.softmax_gap(few)["n"]) == {100}


def test_the_softmax_gap_is_what_the_attack_misses():
    table = comparison.softmax_gap(both_ways((0.9, 0.5, 0.3), (0.9, 0.8, 0.3))).set_index(["variant", "epsilon"])
    assert len(table) == 4
    assert table.loc[("attention", 1), ["logits", "softmax", "difference"]].to_list() == pytest.approx([0.5, 0.8, 0.3])
    assert (table["ci_low"] <= table["difference"]).all()
    assert (table["difference"] <= table["ci_high"]).all()
    assert comparison.softmax_gap(outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.3))).empty


def test_the_range_of_epochs_is_not_given_for_an_interval():
    same = outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05))
    assert ledger(same, protocol=True).loc["C5", ["ci_low", "ci_high"]].isna().all()


def test_each_pair_is_judged_on_the_runs_that_both_have():
    table = outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30))
    more = outcomes((0.9, 0.4, 0.05), (0.9, 0.5, 0.30), seeds=(0, 1)).query("variant == 'attention'")
    table = pd.concat([table, more.assign(variant="attention-gamma1")], ignore_index=True)
    runs = table[["dataset", "variant", "seed"]].drop_duplicates()
    shifts = runs.merge(pd.DataFrame({"image_id": [f"i{i}" for i in range(30)]}), how="cross")
    shifts = shifts.assign(map="gradcam", rank_correlation=np.random.default_rng(0).uniform(0, 1, len(shifts)))
    frames = {
        "outcomes": table,
        "predictions": table[table["epsilon"] == 0],
        "histories": runs.assign(epoch=1),
        "shifts": shifts,
    }
    found = claims.of_pairs(
        [["attention", "baseline"], ["attention-gamma1", "baseline"], ["attention-gamma1", "attention"]], frames, {},
        resnet50_percent=1.25, head_percent=1.31, headline=HEADLINE, protocol=False, label="x",
    ).set_index(["variant", "against", "claim"])  # fmt: skip
    assert found.loc[("attention", "baseline", "C1"), "ours"] == pytest.approx(50)
    assert found.loc[("attention", "baseline", "C1"), "runs"] == 5
    assert found.loc[("attention-gamma1", "baseline", "C1"), "ours"] == pytest.approx(25)
    assert found.loc[("attention-gamma1", "baseline", "C1"), "runs"] == 2
    assert found.loc[("attention-gamma1", "attention", "C1"), "ours"] < 0
    assert found.xs("C4", level="claim").shape[0] == 1, "what is not about attention is said once"


def test_the_worst_case_over_attacks_decides():
    weak = outcomes((0.9, 0.4, 0.05), (0.9, 0.6, 0.30))
    strong = outcomes((0.9, 0.4, 0.05), (0.9, 0.4, 0.05), attack=("autoattack", "linf", "logits"))
    table = ledger(pd.concat([weak, strong], ignore_index=True))
    assert table.loc["C1", "ours"] == 0
    assert table.loc["C1", "verdict"].startswith("inconclusive")


def test_what_an_open_verdict_excludes_is_said():
    table = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05), n=2000))
    assert table.loc["C1", "verdict"].startswith("inconclusive, +16 % excluded")
    few = ledger(outcomes((0.9, 0.6, 0.05), (0.9, 0.6, 0.05), n=20))
    assert "excluded" not in few.loc["C1", "verdict"]
