"""What the terminal shows: the jobs of a profile, results as they come, and what went wrong."""

import io
import os
import time

import pandas as pd
import pytest
from rich.console import Console

from lib import ROOT
from lib.profile import load_profile
from tools import cost, display

PROFILE = load_profile("test")


@pytest.fixture
def place(tmp_path, monkeypatch):
    for module in (cost, display):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path / "data" / "runs" / "test"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_every_job_of_the_graph_is_counted(place):
    todo = cost.jobs(PROFILE, PROFILE.datasets)
    assert {dataset for dataset, _ in todo.values()} == {"ham10000", ""}
    markers = [marker.relative_to(place).as_posix() for marker, (dataset, _) in todo.items() if dataset == "ham10000"]
    variants = [f"ham10000/seed{seed}/{name}/variant.done" for seed in (0, 1) for name in PROFILE.variants]
    stages = ("prepare", "train", "attack", "gradcam", "why")  # later seeds have no notebooks
    assert sorted(markers) == sorted(variants + [f"ham10000/seed0/{stage}.done" for stage in stages])
    assert {stage for _, stage in todo.values()} == set(cost.STAGES)


def test_a_job_takes_what_it_took_in_the_published_run_or_what_is_expected_of_it(place):
    quick, unpublished = load_profile("quick"), PROFILE
    for profile in (quick, load_profile("ham10000")):
        table = pd.read_csv(ROOT / "figures" / "published" / profile.profile / "tables" / "timings.csv")
        rows = table[table["stage"] == "variant"]
        each = [row.seconds / len(str(row.seed).split("-")) for row in rows.itertuples()]  # "0-1-2": three networks
        parts = [f"made: {part}" for part in ("model", "predictions", "attacks", "branch")]
        made = sum(table[table["stage"] == part]["seconds"].mean() for part in parts)
        [took] = display.seconds(profile, [("ham10000", "variant")])
        found = sum(each) / max(len(each), 1)  # none where all networks came packed
        assert took == pytest.approx(max(found, made)), "not of finding it made"
    [long, short] = display.seconds(unpublished, [("ham10000", "variant"), ("", "report")])
    assert long == cost.seconds(unpublished, "variant", "ham10000") > short == cost.START


def finish(folder, clean, curve):
    (folder / "attacks").mkdir(parents=True)
    pd.DataFrame({"image_id": "a", "correct": clean}).to_csv(folder / "predictions.csv", index=False)
    rows = [("a", 0.0, True)] + [("a", epsilon, stands) for epsilon, stood in curve.items() for stands in stood]
    table = pd.DataFrame(rows, columns=["image_id", "epsilon", "correct"])
    table.to_csv(folder / "attacks" / f"{PROFILE.evaluation.headline}.csv", index=False)
    touch(folder / "variant.done")


def test_a_result_names_data_network_and_run(place):
    folder = place / "chestxray14" / "seed1" / "attention"
    finish(folder, [True] * 9 + [False], {0.5: [True, False], 4.0: [False, False]})
    assert PROFILE.evaluation.gradcam_epsilon == 1  # nearest to 0.5; a network that stands at 4 is told at 0.5 too
    said = display.result(PROFILE, "chestxray14", folder / "variant.done")
    assert said.startswith("ChestX-ray14 phantoms, attention, run 2 of 2: 90% clean, 50% at 0.5 gray levels")


def shown(place, script):
    """Run the display over a program that stands in for Snakemake: status and what was printed."""
    (place.parent.parent.parent / "pretended.py").write_text(script)
    console = Console(file=io.StringIO(), width=200)
    status = display.show(PROFILE, ["ham10000"], ["pretended"], console)
    return status, console.file.getvalue()


def test_results_are_printed_when_their_jobs_finish(place):
    folder = place / "ham10000" / "seed0" / "baseline"
    finish(folder, [True], {0.5: [True]})
    marker = folder / "variant.done"
    marker.unlink()
    status, said = shown(place, f"import pathlib, time; time.sleep(0.2); pathlib.Path({str(marker)!r}).touch()")
    assert status == 0
    assert said.count("HAM10000 phantoms, baseline, run 1 of 2: 100% clean, 100% at 0.5 gray levels") == 1
    assert "done, about" in said
    again, said = shown(place, "")  # what was finished before is not news
    assert (again, said.strip()) == (0, "")


def test_a_failed_job_is_named_with_its_last_words(place):
    (place / "ham10000").mkdir(parents=True)
    old, log = place / "ham10000" / "old.log", place / "ham10000" / "train.log"
    old.write_text("of an earlier run\n")
    os.utime(old, (1, 1))
    since = time.time() - 1
    log.write_text(
        "WARNING: x\n 5%|#  | 3.2it/s]\n02_training (seed 0) failed in cell 4: ValueError: no\nThe notebook ...\n"
    )
    status, _ = shown(place, "import sys; print('log of the graph'); sys.exit(3)")
    assert status == 3
    assert "log of the graph" in (place / "snakemake.log").read_text()
    [said] = display.failures(place, since)
    assert "train.log" in said
    assert "02_training (seed 0) failed in cell 4: ValueError: no" in said
    assert "WARNING" not in said
    touch(log.with_suffix(".done"))
    assert display.failures(place, since) == []


def test_where_a_job_wrote_nothing_slurm_is_quoted(place, tmp_path):
    folder = place / "ham10000" / "seed0" / "attention"
    touch(folder / "variant.log")
    assert "(nothing was written)" in display.failures(place, 0)[0]
    for variant, words in (("attention", "python: command not found"), ("baseline", "of another job")):
        log = tmp_path / ".snakemake" / "slurm_logs" / "rule_variant" / f"ham10000_0_{variant}" / "17.log"
        touch(log)
        log.write_text(words)
    [said] = display.failures(place, 0)
    assert said.endswith("python: command not found")


def test_the_answer_has_a_row_for_each_claim(place, monkeypatch):
    tables = place.parent.parent.parent / "figures" / "test" / "tables"
    tables.mkdir(parents=True)
    claims = pd.read_csv(ROOT / "figures" / "published" / "quick" / "tables" / "claims.csv")
    claims.to_csv(tables / "claims.csv", index=False)
    assert display.answer(PROFILE).row_count == len(claims)
