"""Every figure and table that is shown is accounted for."""

import re

import pytest

from lib import PUBLISHED, ROOT, StudyError
from lib.data import DATASETS
from lib.report import index

RUNS = (
    "quick",
    "ham10000",
    "chestxray14",
    "eyepacs",
    "ham10000-adam",
    "ham10000-binary",
    "ham10000-cpu",
    "ham10000-seeds",
)
RUNS += ("bench",)
FOLDERS = [PUBLISHED / name for name in RUNS]
SHOWN = [(folder, "figure", name) for folder in FOLDERS for name in index.figures(folder)] + [
    (folder, "table", path.name) for folder in FOLDERS for path in index.tables(folder)
]


@pytest.mark.parametrize(("folder", "kind", "name"), SHOWN, ids=lambda value: getattr(value, "name", str(value)))
def test_each_figure_and_table_has_an_entry_and_a_maker(folder, kind, name):
    about = index.entry(index.FIGURES if kind == "figure" else index.TABLES, name)
    assert all(about)
    assert name.removeprefix("why_") in (ROOT / about.made_by).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_index_is_that_of_what_lies_beside_it(folder):
    text = (folder / "index.md").read_text(encoding="utf-8")
    assert text == index.index(folder), f"write it again: python -m lib.report.index {folder.name}"
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert not [link for link in links if not (folder / link).is_file()]
    for file in [*folder.glob("*.png"), *folder.glob("tables/*.csv")]:
        if file.stem != "timings" and not any(f"_{dataset}" in file.name for dataset in DATASETS):
            assert file.relative_to(folder).as_posix() in links
    if folder.name != "bench":
        assert "phantom" in text or "phantom" not in (folder / "tables" / "claims.csv").read_text()


def test_an_unknown_table_is_refused(tmp_path):
    (tmp_path / "surprise.csv").touch()
    with pytest.raises(StudyError, match="surprise"):
        index.index(tmp_path)


def test_figures_of_one_data_set_and_unknown_ones_are_left_out(tmp_path):
    for name in ("surprise", "gradcam_ham10000", "gradcam_ham10000_seed1", "gradcam", "robust_accuracy"):
        (tmp_path / f"{name}.png").touch()
    assert index.figures(tmp_path) == ["robust_accuracy", "gradcam"]
