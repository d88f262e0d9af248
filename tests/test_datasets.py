"""Readers on tiny sets in the publishers' layouts, splits of random indexes, and the real data if there."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, StudyError
from lib.data import DATASETS, check_no_leak, read_index, split_index, subset

REAL = Path(os.environ.get("STUDY_REAL_DATA", ROOT.parent / "shared" / "data"))

HAM_ROWS = [
    ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"],
    ["HAM_2", "ISIC_0000003", "vasc", "histo", "50", "male", "face"],
    ["HAM_1", "ISIC_0000001", "akiec", "histo", "", "female", "back"],
    ["HAM_1", "ISIC_0000002", "akiec", "histo", "80.0", "female", "back"],
    ["HAM_3", "ISIC_0000009", "nv", "follow_up", "80", "male", "scalp"],
]
NIH_ROWS = [
    ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "OriginalImage[Width", "Height]"],
    ["00000001_000.png", "No Finding", "0", "1", "2682", "2749"],
    ["00000001_001.png", "Effusion|Pneumothorax", "1", "1", "2682", "2749"],
    ["00000002_000.png", "Pneumothorax", "0", "2", "2682", "2749"],
    ["00000003_000.png", "Pneumonia|Pleural_Thickening", "0", "3", "2682", "2749"],
]
KAGGLE_ROWS = [["image", "level"], *([f"{p}_{eye}", p] for p in range(5) for eye in ("left", "right"))]


def write_csv(path: Path, rows: list, encoding: str = "utf-8", separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)


def touch(folder: Path, *names: str) -> None:
    """Readers of label files never open images, so that empty files will do."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    write_csv(tmp_path / "ham10000/HAM10000_metadata.csv", HAM_ROWS)
    touch(
        tmp_path / "ham10000",
        "HAM10000_images_part_1/ISIC_0000001.jpg",
        "HAM10000_images_part_1/ISIC_0000002.JPG",
        "HAM10000_images_part_2/ISIC_0000003.jpg",
        "HAM10000_images_part_2/ISIC_0034000.jpg",
    )
    return tmp_path


def test_ham10000_index_and_counts_of_a_partial_download(ham: Path) -> None:
    index = read_index("ham10000", ham)
    assert index["image_id"].tolist() == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert index["label"].tolist() == [0, 0, 6]
    assert index["label"].dtype == np.int64
    assert index["class_name"].tolist() == ["akiec", "akiec", "vasc"]
    assert index["group"].tolist() == ["HAM_1", "HAM_1", "HAM_2"]
    assert all(Path(path).stem == name for path, name in zip(index["path"], index["image_id"], strict=True))
    assert all(Path(path).is_file() for path in index["path"])
    assert index.attrs["report"] == {
        "labelled": 4,
        "found": 3,
        "missing_files": 1,
        "unlabelled_files": 1,
        "duplicate_files": 0,
        "duplicate_rows": 0,
    }


def test_what_mirrors_and_unpackers_do_to_a_set_changes_nothing(ham: Path, tmp_path: Path) -> None:
    original = read_index("ham10000", ham)
    folder = tmp_path / "other" / "ham10000"
    write_csv(
        folder / "Nested/ham10000_METADATA.csv",
        [HAM_ROWS[0], *HAM_ROWS[:0:-1], HAM_ROWS[1]],  # other row order, one row twice
        encoding="utf-8-sig",
        separator=";",
    )
    touch(folder, "train/deep/ISIC_0000001.JPEG", "train/isic_0000002.png", "b/ISIC_0000003.jpg")
    touch(folder, "c/ISIC_0000003.jpg", "__MACOSX/ISIC_0000009.jpg", ".hidden/ISIC_0000009.jpg")
    touch(folder, "b/._ISIC_0000009.jpg", "HAM10000_segmentations/ISIC_0000009.png", "masks/ISIC_0000009.png")
    (folder / "loop").symlink_to(folder)
    mirror = read_index("ham10000", tmp_path / "other")
    pd.testing.assert_frame_equal(mirror.drop(columns="path"), original.drop(columns="path"))
    assert mirror["path"].iloc[2].endswith(os.path.join("b", "ISIC_0000003.jpg"))
    assert mirror.attrs["report"] == original.attrs["report"] | {
        "unlabelled_files": 0,
        "duplicate_files": 1,
        "duplicate_rows": 1,
    }


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"])
@pytest.mark.parametrize("where", ["images", "images_001/images"])
def test_chestxray14_labels_patients_and_official_split(tmp_path: Path, name: str, where: str) -> None:
    folder = tmp_path / "chestxray14"
    write_csv(folder / name, NIH_ROWS)
    touch(folder, *(f"{where}/{row[0]}" for row in NIH_ROWS[1:]))
    index = read_index("chestxray14", tmp_path)
    assert index["image_id"].tolist() == ["00000001_000", "00000001_001", "00000002_000", "00000003_000"]
    assert index["label"].tolist() == [0, 1, 1, 0]
    assert index["group"].tolist() == ["1", "1", "2", "3"]
    assert "official_split" not in index

    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000003_000.png\n")
    (folder / "test_list.txt").write_text("00000002_000.png\n", encoding="utf-8-sig")
    index = read_index("chestxray14", tmp_path)
    assert index["official_split"].tolist() == ["train", "train", "test", "train"]


def test_eyepacs_grades_become_two_classes_and_eyes_share_a_patient(tmp_path: Path) -> None:
    write_csv(tmp_path / "eyepacs/trainLabels.csv", KAGGLE_ROWS)
    touch(tmp_path / "eyepacs/train", *(f"{row[0]}.jpeg" for row in KAGGLE_ROWS[1:]))
    index = read_index("eyepacs", tmp_path)
    assert index["image_id"].tolist()[:3] == ["0_left", "0_right", "1_left"]
    assert index["grade"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert index["label"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert index["class_name"].tolist() == ["no or mild"] * 4 + ["referable"] * 6
    assert index["group"].tolist() == [str(p) for p in range(5) for _ in range(2)]


@pytest.mark.parametrize(
    ("dataset", "rows", "words"),
    [
        (
            "ham10000",
            [HAM_ROWS[0], ["HAM_1", "I1", "melanoma", "", "", "", ""]],
            ["row 2", "'dx'", "melanoma"],
        ),
        ("ham10000", [HAM_ROWS[0], HAM_ROWS[1], ["", "I1", "mel", "", "", "", ""]], ["row 3", "no lesion"]),
        ("ham10000", [HAM_ROWS[0], ["HAM_1", "", "mel", "", "", "", ""]], ["row 2", "no image name"]),
        (
            "ham10000",
            [HAM_ROWS[0], *([f"HAM_{i}", "I1", "mel", "", "", "", ""] for i in "12")],
            ["'I1'", "twice"],
        ),
        ("ham10000", [["image", "dx"], ["a", "b"]], ["'image_id', 'lesion_id'", "'image', 'dx'"]),
        (
            "chestxray14",
            [NIH_ROWS[0], ["1_0.png", "Effusion|pneumothorax", "0", "1", "", ""]],
            ["Finding Labels"],
        ),
        ("eyepacs", [KAGGLE_ROWS[0], ["1_left", "5"]], ["row 2", "'level'"]),
        ("eyepacs", [KAGGLE_ROWS[0], ["1_left", ""]], ["row 2", "'level'"]),
        ("eyepacs", [KAGGLE_ROWS[0], ["1", "0"]], ["row 2", "no patient"]),
    ],
)
def test_a_row_that_makes_no_sense_is_named(tmp_path: Path, dataset: str, rows: list, words: list) -> None:
    write_csv(tmp_path / dataset / DATASETS[dataset].label_files[0], rows)
    with pytest.raises(StudyError) as error:
        read_index(dataset, tmp_path)
    assert all(word in str(error.value) for word in words)


def test_what_is_missing_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    folder = tmp_path / "eyepacs"
    for prepare, word in (
        (lambda: None, "no folder"),
        (folder.mkdir, "no label file trainLabels.csv"),
        (lambda: write_csv(folder / "trainLabels.csv", KAGGLE_ROWS), "None of the 10 images"),
    ):
        prepare()
        with pytest.raises(StudyError, match=word) as error:
            read_index("eyepacs", tmp_path)
        assert str(folder) in str(error.value)
        assert "kaggle.com" in str(error.value)
    with pytest.raises(StudyError, match="ham10000, chestxray14, eyepacs"):
        read_index("mnist", tmp_path)
    (folder / "trainLabels.csv").write_bytes(b"image,level\n\xff\xfe_left,0\n")
    with pytest.raises(StudyError, match="cannot be read"):
        read_index("eyepacs", tmp_path)


def test_registry_has_the_shared_label_order_and_distinct_addresses() -> None:
    assert DATASETS["ham10000"].classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert DATASETS["chestxray14"].classes == ("no pneumothorax", "pneumothorax")
    assert DATASETS["eyepacs"].classes == ("no or mild", "referable")
    files = [file for info in DATASETS.values() for file in info.files]
    assert len({file["url"] for file in files}) == len(files) == 21
    assert all(len(info.classes) == len(info.class_titles) for info in DATASETS.values())


@st.composite
def indexes(draw: st.DrawFn) -> pd.DataFrame:
    """Indexes of 30 to 150 groups of up to 5 images, whose classes may differ inside a group."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 7))
    frequencies = rng.dirichlet(np.ones(classes))
    sizes = rng.integers(1, draw(st.integers(1, 5)) + 1, draw(st.integers(30, 150)))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.choice(classes, len(sizes), p=frequencies)[groups]
    if draw(st.booleans()):
        labels = rng.choice(classes, len(groups), p=frequencies)
    names = [f"image{i:04d}" for i in range(len(groups))]
    frame = {"image_id": names, "label": labels, "group": [f"g{group}" for group in groups]}
    return pd.DataFrame(frame).sample(frac=1, random_state=rng.integers(2**31))


@settings(max_examples=20)
@given(indexes(), st.integers(0, 1000), st.floats(0.1, 0.3), st.floats(0.1, 0.3))
def test_split_is_whole_by_group_near_its_fractions_and_independent_of_order(
    index: pd.DataFrame, seed: int, validation: float, test: float
) -> None:
    split = split_index(index, seed, validation, test)
    pd.testing.assert_frame_equal(split[list(index)], index)
    assert set(split["split"]) == {"train", "validation", "test"}
    assert len(split[["group", "split"]].drop_duplicates()) == split["group"].nunique()
    assert check_no_leak(split)["groups in two splits"] == 0
    shares = split["split"].value_counts(normalize=True)
    assert shares["validation"] == pytest.approx(validation, abs=0.12)
    assert shares["test"] == pytest.approx(test, abs=0.12)

    other = split_index(index.iloc[::-1], seed, validation, test)["split"].reindex(index.index)
    assert (other == split["split"]).all()


@settings(max_examples=20)
@given(indexes(), st.integers(0, 1000))
def test_split_of_single_images_has_every_class_within_two_images_of_its_share(index: pd.DataFrame, seed: int) -> None:
    index = index.assign(group=index["image_id"])
    split = split_index(index, seed)
    for label, total in Counter(index["label"]).items():
        for name, fraction in (("train", 0.65), ("validation", 0.15), ("test", 0.20)):
            count = ((split["label"] == label) & (split["split"] == name)).sum()
            assert -2 < count - fraction * total < 1


def test_split_depends_on_the_seed_and_spreads_large_groups() -> None:
    sizes = np.r_[np.full(40, 20), np.ones(800, dtype=int)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    index = pd.DataFrame({"image_id": [f"i{i:05d}" for i in range(len(groups))], "group": groups.astype(str)})
    index["label"] = np.random.default_rng(0).integers(0, 2, len(sizes))[groups]
    splits = [split_index(index, seed) for seed in (0, 1)]
    assert (splits[0]["split"] != splits[1]["split"]).any()
    large = splits[0][splits[0]["group"].astype(int) < 40].drop_duplicates("group")["split"].value_counts()
    assert large["train"] <= 30
    assert large["validation"] >= 3
    assert large["test"] >= 4


def test_a_group_goes_where_it_fits() -> None:
    sizes = [6, 6, *[1] * 88]  # the class of the first ten groups has 20 images: 13, 3 and 4 are wanted
    index = pd.DataFrame({"group": np.repeat(np.arange(90), sizes).astype(str)})
    index["label"] = (index["group"].astype(int) >= 10).astype(int)
    index["image_id"] = [f"i{i:03d}" for i in range(len(index))]
    split = split_index(index, 0)
    assert set(split.loc[split["group"].isin(["0", "1"]), "split"]) == {"train"}
    assert split.loc[split["label"] == 0, "split"].value_counts().to_dict() == {
        "train": 13,
        "test": 4,
        "validation": 3,
    }


def test_official_test_split_is_used_unless_told_otherwise() -> None:
    n = 60
    index = pd.DataFrame({"image_id": [f"i{i:02d}" for i in range(n)], "label": np.arange(n) % 3 == 0})
    index["group"] = [str(i // 2) for i in range(n)]
    official = np.arange(n) >= 41  # divides group 20, images 40 and 41: a leak, so that all of it is test
    index["official_split"] = np.where(official, "test", "train")
    split = split_index(index, 0, validation=0.2, test=0.2)
    assert (split["split"] == "test").tolist() == [i >= 40 for i in range(n)]
    assert (split["split"] == "validation").sum() == 10  # 0.2 / (1 - 0.2) of 40
    check_no_leak(split)
    own = split_index(index, 0, validation=0.2, test=0.2, use_official=False)
    assert (own["split"] == "test").sum() == 12
    without = index[~official]  # a partial download without the official test part
    assert (split_index(without, 0)["split"] == "test").sum() > 0


def test_impossible_splits_and_leaks_are_refused(ham: Path) -> None:
    index = read_index("ham10000", ham)
    with pytest.raises(StudyError, match="3 images of 2 groups are too few"):
        split_index(index, 0)
    for fractions in ({"test": 0}, {"validation": -0.1}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(StudyError, match="fractions"):
            split_index(index, 0, **fractions)
    with pytest.raises(StudyError, match=r"1 groups .* 'HAM_1'"):
        check_no_leak(index.assign(split=["train", "test", "train"]))
    assert check_no_leak(index.assign(split=["train", "train", "test"])) == {
        "images": 3,
        "groups": 2,
        "images in test": 1,
        "groups in test": 1,
        "images in train": 2,
        "groups in train": 1,
        "groups in two splits": 0,
    }


@settings(max_examples=20)
@given(indexes(), st.integers(0, 1000), st.integers(7, 40))
def test_subset_is_stratified_nested_and_independent_of_order(index: pd.DataFrame, seed: int, n: int) -> None:
    index = split_index(index, 0)
    chosen = subset(index, n, seed)
    pd.testing.assert_frame_equal(chosen, index[index["image_id"].isin(chosen["image_id"])])
    assert set(chosen["image_id"]) == set(subset(index.iloc[::-1], n, seed)["image_id"])
    assert set(chosen["image_id"]) <= set(subset(index, n + 5, seed)["image_id"])
    for name, rows in index.groupby("split"):
        part = chosen[chosen["split"] == name]
        assert len(part) == min(n, len(rows))
        assert set(part["label"]) == set(rows["label"])
        # One image less of any class would be a smaller share of it than is kept of every other class.
        kept, there = (table["label"].value_counts().sort_index() for table in (part, rows))
        assert ((kept - 1) / there).max() <= (kept / there).min() + 1e-9


def test_subset_with_limits_for_some_splits_only() -> None:
    index = pd.DataFrame({"image_id": [f"i{i:03d}" for i in range(100)], "label": [0, 1] * 50})
    index["split"] = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    counts = subset(index, {"train": 10, "test": 5}, 0)["split"].value_counts()
    assert counts.to_dict() == {"train": 10, "validation": 20, "test": 5}
    assert set(subset(index, 10, 0)["image_id"]) != set(subset(index, 10, 1)["image_id"])


@pytest.mark.skipif(not (REAL / "ham10000").is_dir(), reason="no real HAM10000 here")
def test_real_ham10000() -> None:
    index = read_index("ham10000", REAL)
    assert index.attrs["report"] == {
        "labelled": 10015,
        "found": 5984,
        "missing_files": 4031,
        "unlabelled_files": 60,
        "duplicate_files": 0,
        "duplicate_rows": 0,
    }
    assert index["label"].value_counts().sort_index().tolist() == [183, 264, 583, 60, 491, 4323, 80]
    check_no_leak(split_index(index, 0))


@pytest.mark.skipif(not (REAL / "chestxray14").is_dir(), reason="no real ChestX-ray14 here")
def test_real_chestxray14() -> None:
    index = read_index("chestxray14", REAL)
    assert index.attrs["report"]["labelled"] == 112120
    assert index.attrs["report"]["found"] == len(index) == 3499
    assert index["label"].value_counts().to_dict() == {0: 2950, 1: 549}
    assert index["group"].nunique() == 2035
    assert index["group"].astype(int).tolist() == [int(name[:8]) for name in index["image_id"]]
    check_no_leak(split_index(index, 0))


@pytest.mark.skipif(not (REAL / "eyepacs").is_dir(), reason="no real EyePACS here")
def test_real_eyepacs() -> None:
    index = read_index("eyepacs", REAL)
    assert index.attrs["report"]["labelled"] == 35126
    assert index.attrs["report"]["found"] == len(index) == 1948
    assert index["grade"].value_counts().sort_index().tolist() == [1450, 114, 293, 49, 42]
    assert ((index["grade"] >= 2) == index["label"]).all()
    assert index["group"].nunique() == 974  # both eyes of each
    check_no_leak(split_index(index, 0))
