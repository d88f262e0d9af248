"""What `./reproduce publish` takes of a run: whole, or in brief for a run beside another."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import ROOT, StudyError
from tools import publish

DRAWN = ("robust_accuracy", "planned", "gradcam")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of three figures, a table, outcomes by image and two notebooks."""
    monkeypatch.setattr(publish, "write_index", lambda folder: (folder / "index.md").write_text("index"))
    folder = tmp_path / "figures" / "run"
    for name in ("tables", "notebooks"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)  # of which 300 KB are to be left
    for name in DRAWN:
        Image.fromarray(noise if name == "planned" else noise[:90]).save(folder / f"{name}.png")
        (folder / f"{name}.provenance.json").write_text("{}")
    table = pd.DataFrame({"claim": ["C1"]})
    table.to_csv(folder / "tables" / "claims.csv", index=False)
    table.to_csv(folder / "tables" / "outcomes.csv.gz", index=False)
    for name in ("03_attacks_ham10000_seed0", "03_attacks_ham10000_seed1", "06_results"):
        nbformat.write(nbformat.v4.new_notebook(), folder / "notebooks" / f"{name}.ipynb")
    return folder


def taken(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_taken_whole_and_replaces_what_was_there(run, tmp_path):
    target = tmp_path / "published"
    target.mkdir()
    (target / "planned_of_long_ago.png").touch()
    publish.publish(run, target, notebooks=True)
    figures = {f"{name}{kind}" for name in DRAWN for kind in (".png", ".provenance.json")}
    notebooks = {"notebooks/03_attacks_ham10000_seed0.ipynb", "notebooks/06_results.ipynb"}
    assert taken(target) == {*figures, *notebooks, "tables/claims.csv", "tables/outcomes.csv.gz", "index.md"}
    assert all((target / f"{name}.png").stat().st_size <= publish.LARGEST for name in DRAWN)


def test_in_brief_the_answers_figures_and_the_tables_are_taken(run, tmp_path):
    publish.publish(run, tmp_path / "published", brief=True)
    figures = {f"{name}{kind}" for name in DRAWN[:2] for kind in (".png", ".provenance.json")}
    assert taken(tmp_path / "published") == {*figures, "tables/claims.csv", "index.md"}


def test_an_unfinished_run_is_refused_and_what_is_published_stays(run, tmp_path):
    (run / "tables" / "claims.csv").unlink()
    target = tmp_path / "published"
    target.mkdir()
    (target / "index.md").touch()
    with pytest.raises(StudyError, match="holds no tables"):
        publish.publish(run, target)
    assert taken(target) == {"index.md"}


def test_of_data_that_may_not_be_passed_on_no_picture_is_taken(run, tmp_path):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": pixel}),
        nbformat.v4.new_output("stream", text="n = 1"),
    ]
    cell = nbformat.v4.new_code_cell(outputs=outputs)
    open_cell, shown = (nbformat.from_dict(dict(cell) | {"id": name}) for name in ("open", "shown"))
    shown.metadata["tags"] = ["hide-input", "pictures"]
    path = run / "notebooks" / "06_results.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[open_cell, shown]), path)
    for closed in (False, True):
        publish.publish(run, tmp_path / "published", notebooks=True, closed=closed)
        assert (tmp_path / "published" / "gradcam.png").exists() is not closed
        assert (tmp_path / "published" / "planned.png").exists()
        cells = nbformat.read(tmp_path / "published" / "notebooks" / "06_results.ipynb", 4).cells
        first, second = (str(cell.outputs) for cell in cells)
        assert "image/png" in first
        assert ("image/png" in second, publish.CLOSED in second) == (not closed, closed)
        assert "n = 1" in second


def test_every_cell_that_shows_images_says_so():
    shows = r"imshow|samples\(|xray_pipeline\(|adversarial_examples\(|figures\.gradcam\(|charts\.examples\("
    drawn = set()
    for path in sorted((ROOT / "notebooks").glob("0[1-6]_*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and re.search(shows, cell.source):
                assert "pictures" in cell.metadata.get("tags", []), f"{path.name}: {cell.source}"
                drawn |= set(re.findall(r'figures\.save\(.*?"(\w+)"', cell.source))
    assert set(publish.PICTURES) <= drawn
