"""The whole study on the test profile, through ./reproduce, as a newcomer runs it; and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest

from lib import ROOT
from lib.artifacts import PROVENANCE
from lib.attacks import Classifier
from lib.models import build_classifier
from lib.study import Study

OUT = ROOT / "figures" / "test"
COLUMNS = {
    "datasets": "dataset, split, label, n",
    "clean_accuracy": "dataset, variant, seed, n, accuracy, ci_low, ci_high, balanced_accuracy, auc, parameters, "
    "stopped_epoch, epochs_max",
    "robust_accuracy": "dataset, variant, seed, attack, norm, epsilon, n, robust_accuracy, ci_low, ci_high",
    "gradcam_shift": "dataset, variant, seed, map, measure, n, mean, ci_low, ci_high",
    "claims": "claim, dataset, paper, ours, ci_low, ci_high, verdict, rule",
    "timings": "stage, dataset, seed, variant, seconds",
    "comparison": "dataset, epsilon, n, baseline, attention, difference, ci_low, ci_high, p_value, p_holm, regime",
    "softmax_gap": "dataset, variant, attack, epsilon, n, logits, softmax, difference, ci_low, ci_high",
    "trust": "dataset, variant, seed, check, passed, value, sentence, n",
    "distances": "dataset, variant, seed, norm, n, median, ci_low, ci_high, unbroken",
    "directions": "dataset, variant, seed, start, goal, attack, epsilon, n, reached, ci_low, ci_high",
    "why_density": "dataset, variant, seed, region, attack, norm, epsilon, n, mean, ci_low, ci_high",
    "why_maps": "dataset, variant, seed, map, attack, norm, epsilon, measure, n, mean, ci_low, ci_high, chance",
    "why_surface": "dataset, variant, seed, measure, unit, n, mean, ci_low, ci_high",
    "why_ratios": "dataset, variant, seed, against, measure, n, ratio, ci_low, ci_high",
    "why_frequency": "dataset, variant, seed, source, epsilon, cutoff, keep, n, accuracy, ci_low, ci_high",
    "why_sanity": "dataset, variant, seed, map, against, n, mean, ci_low, ci_high",
    "effects": "dataset, kind, one, other, n, runs, difference, ci_low, ci_high, smallest_seen, conclusion",
    "effects_by_run": "dataset, one, other, seed, difference, balanced, both_right, percent",
    "sensitivity": "dataset, attack, one, other, n, runs, difference, ci_low, ci_high",
    "robust_by_run": "dataset, variant, seed, n, robust_accuracy, balanced",
    "clean_by_run": "dataset, one, other, seed, clean, clean_balanced",
    "up_to": "dataset, one, other, seed, over, typical, extreme",
    "dose": "dataset, variant, seed, n, part, answers, difference",
    "spread": "dataset, variant, seed, attacked, n, positions, effective, peak",
    "spread_by_step": "network, dataset, variant, seed, step, effective",
    "natural_changes": "dataset, variant, seed, change, n, accuracy, ci_low, ci_high",
}
FIGURES = [
    "planned",
    "up_to",
    "dose",
    "spread",
    "spread_by_step",
    "training_curves",
    "robust_accuracy",
    "adversarial_examples",
    "gradcam",
    "gradcam_shift",
    "relative_change",
    "why_ratios",
]


def reproduce(*arguments, **options):
    command = [sys.executable, str(ROOT / "reproduce"), "--profile", "test", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def finished():
    """The study run from nothing, killed in the middle of it once, and called again until it is done."""
    for folder in (OUT, ROOT / "data" / "runs" / "test", ROOT / "data" / "phantom" / "140x64px-seed0"):
        subprocess.run(["rm", "-rf", folder], check=True)
    command = [sys.executable, str(ROOT / "reproduce"), "--profile", "test"]
    run = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    trained = ROOT / "data" / "runs" / "test" / "ham10000" / "seed0" / "baseline" / "model.keras"
    whole = trained.with_name(trained.name + PROVENANCE)  # written last: an artifact without it is made again
    while run.poll() is None and not whole.exists():
        time.sleep(0.1)
    before = trained.stat().st_mtime_ns
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    result = reproduce()
    assert result.returncode == 0, result.stdout + result.stderr
    assert trained.stat().st_mtime_ns == before, "what was finished before the kill was made again"
    return result


def test_the_tables_are_there_with_their_columns_and_provenance(finished):
    for name, columns in COLUMNS.items():
        table = pd.read_csv(OUT / "tables" / f"{name}.csv")
        assert len(table), name
        assert set(columns.split(", ")) <= set(table), name
        for suffix in (".md", ".tex", ".provenance.json"):
            assert (OUT / "tables" / f"{name}{suffix}").stat().st_size, name
    record = json.loads((OUT / "tables" / "claims.provenance.json").read_text())
    assert set(record) >= {"commit", "packages", "profile", "seed", "data_fingerprint", "machine", "date"}


def test_steps_of_training_are_those_that_were_made(finished):
    table = pd.read_csv(OUT / "tables" / "spread_by_step.csv").query("variant == 'attention'")
    for (dataset, seed), run in table.groupby(["dataset", "seed"]):
        made = pd.read_csv(ROOT / "data" / "runs" / "test" / dataset / f"seed{seed}" / "attention" / "gamma.csv")
        assert run["step"].tolist() == made.groupby("epoch")["step"].max().tolist()


def test_the_numbers_follow_from_the_per_image_outcomes(finished):
    outcomes = pd.read_csv(OUT / "tables" / "outcomes.csv.gz")
    table = pd.read_csv(OUT / "tables" / "robust_accuracy.csv")
    keys = ["dataset", "variant", "seed", "attack", "norm", "through", "epsilon"]
    by_hand = outcomes.groupby(keys)["correct"].agg(["mean", "size"]).reset_index()
    both = table.merge(by_hand, on=keys)
    worst = table["attack"] == "worst case"
    assert len(both) == (~worst).sum() == len(by_hand)
    runs = table.groupby(["dataset", "attack", "norm", "through"])[["variant", "seed"]].transform("nunique")
    met = (runs == table[["variant", "seed"]].nunique()).all(axis=1)  # by every training run: those count
    least = table[~worst & met].groupby(keys[:3] + keys[4:])["robust_accuracy"].min()
    under_all = table[worst].set_index(keys[:3] + keys[4:])["robust_accuracy"]
    assert len(under_all)
    assert (under_all <= least[under_all.index] + 1e-9).all()
    np.testing.assert_allclose(both["robust_accuracy"], both["mean"])
    assert (both["n"] == both["size"]).all()
    assert ((both["ci_low"] <= both["robust_accuracy"]) & (both["robust_accuracy"] <= both["ci_high"])).all()
    curves = table.sort_values("epsilon").groupby(keys[:-1])["robust_accuracy"]
    assert curves.apply(lambda curve: curve.is_monotonic_decreasing).all()


def test_every_figure_is_there_twice_and_says_phantom(finished):
    for name in FIGURES:
        assert (OUT / f"{name}.png").stat().st_size > 10_000, name
        assert (OUT / f"{name}.pdf").read_bytes().startswith(b"%PDF"), name
        assert "phantom" in json.loads((OUT / f"{name}.provenance.json").read_text())["label"]
    report = (OUT / "report.html").read_text()
    assert report.count("<img") == len(FIGURES)
    assert "phantom data" in report
    assert 'src="http' not in report


def test_the_executed_notebooks_hold_no_error_and_no_path_of_this_machine(finished):
    notebooks = sorted((OUT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 5 + 1
    for path in notebooks:
        text = path.read_text()
        assert str(ROOT) not in text, path.name
        for cell in nbformat.reads(text, as_version=4).cells:
            assert all(output.output_type != "error" for output in cell.get("outputs", []))


def test_the_terminal_ends_with_the_claims_and_the_comparison(finished):
    assert "Claims, phantom data" in finished.stdout
    assert "There is no published run of profile test" in (OUT / "compared.md").read_text()
    assert "Report: figures/test/report.html" in finished.stdout
    assert "Select jobs to execute" not in finished.stdout + finished.stderr


def test_a_second_call_does_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in OUT.rglob("*") if path.is_file()}
    result = reproduce()
    assert result.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in OUT.rglob("*") if path.is_file()} == before
    assert "Nothing to be done" in (ROOT / "data" / "runs" / "test" / "snakemake.log").read_text()


def test_runs_of_ones_own_are_ignored_by_git(finished):
    ignored = subprocess.run(["git", "check-ignore", OUT / "report.html", OUT / "compared.md"], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_run_killed_just_before_it_keeps_its_model_goes_on(tmp_path, monkeypatch):
    def killed(model):
        raise KeyboardInterrupt

    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    study = Study("test", "chestxray14", 0)
    study.runs = tmp_path
    with monkeypatch.context() as patch:
        patch.setattr("lib.study.study.parameter_counts", killed)
        with pytest.raises(KeyboardInterrupt):
            study.trained("attention")
    _, history = study.trained("attention")
    gamma = pd.read_csv(study.directory("attention") / "gamma.csv")
    assert gamma["epoch"].unique().tolist() == history["epoch"].tolist()
    assert [path.name for path in study.directory("attention").glob("training-*")] == []


def test_what_was_compiled_passes_over_to_the_next_seed_with_its_weights(monkeypatch):
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    first = Study("test", "chestxray14", 0)
    settings, images = first.profile.model, np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    made = {seed: build_classifier(settings, "attention", 2, 64, seed) for seed in (0, 1)}
    monkeypatch.setattr(Study, "trained", lambda study, _: (made[study.seed], None))
    compiled, logits = first.classifier("attention"), first.classifier("attention").logits(images)
    second = first.followed_by(1)
    assert second.classifier("attention") is compiled
    np.testing.assert_array_equal(second.classifier("attention").logits(images), Classifier(made[1]).logits(images))
    assert np.abs(second.classifier("attention").logits(images) - logits).max() > 1e-3


def test_a_typo_in_a_profile_is_one_sentence(tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text((ROOT / "profiles" / "test.yaml").read_text().replace("epochs:", "epoch:"))
    result = reproduce("--profile", str(profile))
    assert result.returncode != 0
    assert result.stderr.strip() == "reproduce: mine.yaml: training.epoch is not a known key; did you mean epochs?"


def test_help_fits_one_screen():
    result = reproduce("--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) <= 40
    assert "--data" in result.stdout
