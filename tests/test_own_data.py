"""A data set of one's own: what docs/own-data.md says is what runs, all notebooks included."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image

from lib import ROOT

TEXT = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
MOLES, FUNDI, SCANS, PROFILE = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
[READER] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NAME = "mine"


def picture(path, bright):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([int(path.stem.strip("eyposng")), bright])
    level = rng.uniform(150, 190) if bright else rng.uniform(60, 100)
    Image.fromarray(np.clip(rng.normal(level, 40, (48, 52, 3)), 0, 255).astype("uint8")).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The three sets, the file that describes them, and where a run of them is left."""
    folder = tmp_path_factory.mktemp("mine")
    for i in range(60):
        bright = i % 2 == 0
        picture(folder / "raw" / "moles" / ("malignant" if bright else "benign") / "camera" / f"{i:03d}.jpg", bright)
        picture(folder / "raw" / "fundi" / "png" / f"eye{i:03d}.png", bright)
        picture(folder / "raw" / "scans" / f"case{i // 3:02d}" / f"{i:03d}{'pos' if bright else 'neg'}.png", bright)
    rows = [(f"eye{i:03d}", ("Healthy", "REFERABLE")[i % 2 == 0], f"patient {i // 2}") for i in range(60)]
    rows = [(name, said, f"p{i // 4}") for i, (name, said, _) in enumerate(rows)]
    pd.DataFrame(rows, columns=["file", "diagnosis", "patient"]).to_csv(
        folder / "raw" / "fundi" / "labels.csv", index=False
    )
    (folder / "datasets.yaml").write_text("\n".join((MOLES, FUNDI, SCANS)))
    (folder / "read_scans.py").write_text(READER)
    small = {
        "preprocessing": {"image_size": 48},
        "model": {"width": 4, "feature_layer": "conv2_block1_add"},
        "training": {"epochs": 2, "batch_size": 16, "epoch_fraction": {}},
        "controls": [],
        "threads": 1,
    }
    test = yaml.safe_load((ROOT / "profiles" / "test.yaml").read_text())
    evaluation = test["evaluation"] | {
        "attacks": [{"attack": "pgd", "parameters": {"steps": 2}}],
        "headline": "pgd-linf",
    }
    # One of the three, for the time's sake: the others come through the same reading as far as their check goes.
    values = yaml.safe_load(PROFILE) | small | {"evaluation": evaluation, "datasets": list(RUN)}
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(values))
    yield folder
    for left in (
        ROOT / "data" / "runs" / NAME,
        ROOT / "figures" / NAME,
        *(ROOT / "data" / "cache" / n for n in DATASETS),
    ):
        shutil.rmtree(left, ignore_errors=True)


DATASETS = ("moles", "fundi", "scans")
RUN = DATASETS[1:2]


def reproduce(place, *words):
    environment = os.environ | {"STUDY_DATASETS": str(place / "datasets.yaml")}
    command = [sys.executable, ROOT / "reproduce", *words, "--data", place / "raw"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", DATASETS)
def test_each_set_is_checked(place, name):
    found = reproduce(place, "data", "check", name)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "is usable: 60 of the 60 images found, 0 left out." in found.stdout


def test_the_command_takes_them_as_the_document_says(place):
    planned = reproduce(place, "--profile", str(place / f"{NAME}.yaml"), "--dry-run")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE))
    assert (jobs["prepare"], jobs["variant"], jobs["results"], jobs["total"]) == ("1", "2", "1", "10")


def test_the_whole_study_runs_on_them(place, monkeypatch):
    """All notebooks in one kernel, which imports and compiles once; tests/test_study.py runs a study by its command."""
    whole = nbformat.v4.new_notebook()
    given = f"profile, dataset, data = {str(place / f'{NAME}.yaml')!r}, {RUN[0]!r}, {str(place / 'raw')!r}"
    for path in sorted((ROOT / "notebooks").glob("0[1-6]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            whole.cells.append(cell)
            if "parameters" in cell.metadata.get("tags", []):
                whole.cells.append(nbformat.v4.new_code_cell(given))
    assert sum(cell.source == given for cell in whole.cells) == 6
    monkeypatch.setenv("STUDY_DATASETS", str(place / "datasets.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(whole, startup_timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    tables = ROOT / "figures" / NAME / "tables"
    images = pd.read_csv(tables / "images.csv.gz", dtype=str)
    assert images.groupby("dataset").size().to_dict() == dict.fromkeys(RUN, 60)
    patients = images[images["dataset"] == "fundi"].groupby("group")
    assert patients["split"].nunique().max() == 1
    assert patients.size().max() == 4
    assert set(images.loc[images["dataset"] == "fundi", "class_name"]) == {"healthy", "referable"}
    assert set(pd.read_csv(tables / "claims.csv")["dataset"]) == {*RUN, "any"}
    page = subprocess.run([sys.executable, "-m", "lib.report.page", place / f"{NAME}.yaml"], cwd=ROOT)
    assert page.returncode == 0
    report = (ROOT / "figures" / NAME / "report.html").read_text()
    assert "own data" in report
    assert "phantom data" not in report


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("Moles: {title: x, classes: {a: b, c: d}}", "small letters and digits"),
        ("moles: {title: x, classes: [a, b]}", "classes must list"),
        ("moles: {title: x, clases: {a: b}, classes: {a: b, c: d}}", "clases is not a known key"),
        ("moles: {classes: {a: b, c: d}}", "title is missing"),
        ("moles: {title: x, classes: {a: b, c: d}, label_files: [l.csv]}", "columns must say"),
        ("moles: {title: x, classes: {a: b, c: d}, reader: nowhere.py}", "there is no reader"),
    ],
)
def test_an_entry_that_does_not_do_is_one_sentence(place, tmp_path, entry, said):
    (tmp_path / "datasets.yaml").write_text(entry)
    environment = os.environ | {"STUDY_DATASETS": str(tmp_path / "datasets.yaml")}
    code = f"from lib.data import read_index; read_index('moles', {str(place / 'raw')!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode != 0
    assert said in run.stderr.splitlines()[-1]
