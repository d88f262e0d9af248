"""Every kind of finding on tiny sets in the publishers' layouts, the rules, and the real data if there."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import ROOT, StudyError
from lib.data import DATASETS, check_dataset, check_no_leak, read_index, split_index, usable_index
from lib.data.check import Check
from lib.data.findings import KINDS, SEVERITIES
from lib.data.preprocessing import images_and_records

REAL = Path(os.environ.get("STUDY_REAL_DATA", ROOT.parent / "shared" / "data"))
SETS = ("ham10000", "chestxray14", "eyepacs")
SIZE = 32
N = 100  # images of a set: up to five may be left out


def encode(path: Path, image: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def make_set(folder: Path, dataset: str) -> None:
    """N small images of noise, no two alike, and a label file (and lists) as the publisher writes them."""
    rng = np.random.default_rng(SETS.index(dataset))
    images = rng.integers(0, 256, (N, 40, 48, 3), dtype=np.uint8)
    names = DATASETS[dataset].classes
    if dataset == "ham10000":
        rows = [["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]]
        for i, image in enumerate(images):
            name, dx = f"ISIC_{1000000 + i}", names[i // 3 % 7]  # three images of each lesion
            rows.append([f"HAM_{i // 3:07d}", name, dx, "histo", "50", "male", "face"])
            encode(folder / f"HAM10000_images_part_{1 + i % 2}" / f"{name}.jpg", image)
    elif dataset == "chestxray14":
        rows = [["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]]
        rows[0] += ["View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"]
        for i, image in enumerate(images):
            name, labels = (
                f"{i // 2 + 1:08d}_{i % 2:03d}.png",
                ("No Finding", "Mass|Pneumothorax", "Nodule")[i % 3],
            )
            rows.append([name, labels, str(i % 2), str(i // 2 + 1), "57", "M", "PA", "48", "40", "0.143", "0.143"])
            encode(folder / "images" / name, image[..., 0])
        listed = [row[0] for row in rows[1:]]
        (folder / "test_list.txt").write_text("\n".join(listed[:20]))
        (folder / "train_val_list.txt").write_text("\n".join(listed[20:]))
    else:
        rows = [["image", "level"]]
        for i, image in enumerate(images):
            rows.append([f"{101 + i // 2}_{('left', 'right')[i % 2]}", str(i % 5)])
            encode(folder / "train" / f"{rows[-1][0]}.jpeg", image)
    write_rows(folder / DATASETS[dataset].label_files[0], rows)


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read_rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def records_of(index: pd.DataFrame, cache: Path) -> pd.DataFrame:
    return images_and_records(index, index.attrs["dataset"], SIZE, cache)[1]


def make_clean(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The three sets as they should be: their root, and for each the index with the content of every image."""
    root, cache = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("cache")
    truth = {"root": root}
    for dataset in SETS:
        make_set(root / dataset, dataset)
        index = read_index(dataset, root)
        truth[dataset] = index.assign(content=records_of(index, cache)["content"]).set_index("image_id")
        assert truth[dataset]["content"].nunique() == len(index) == N
    return truth


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return make_clean(tmp_path_factory)


class Place:
    """A copy of a clean set that a test spoils."""

    def __init__(self, clean: dict, tmp_path: Path, dataset: str):
        self.dataset, self.root, self.cache = dataset, tmp_path / "raw", tmp_path / "cache"
        self.folder = self.root / dataset
        shutil.copytree(clean["root"] / dataset, self.folder)
        self.table = self.folder / DATASETS[dataset].label_files[0]

    def images(self) -> list[Path]:
        endings = (".jpg", ".png", ".jpeg")
        return sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in endings and p.is_file())

    def image(self, i: int) -> Path:
        return self.images()[i]

    def row(self, i: int, change) -> None:
        """Change row i of the label file; `change` takes and gives the list of its fields."""
        rows = read_rows(self.table)
        rows[i] = change(rows[i])
        write_rows(self.table, rows)

    def check(self) -> Check:
        return check_dataset(self.dataset, self.root, self.cache, SIZE)

    def usable(self) -> pd.DataFrame:
        found = read_index(self.dataset, self.root)
        return usable_index(found, records_of(found, self.cache))


@pytest.fixture
def place(clean: dict, tmp_path: Path):
    return lambda dataset="ham10000": Place(clean, tmp_path, dataset)


def kinds(check: Check, *severities: str) -> set:
    return set(check.findings["kind"][check.findings["severity"].isin(severities or ("error", "excluded", "note"))])


# Of a made-up set: the published label file and sizes are others.
ALWAYS = {"not the published file", "other size"}


@pytest.mark.parametrize("dataset", SETS)
def test_a_clean_set_is_usable_with_every_image_and_nothing_above_a_note(place, clean: dict, dataset: str) -> None:
    spot = place(dataset)
    check = spot.check()
    assert kinds(check) <= ALWAYS
    assert check.usable
    assert check.sentence.endswith("is usable: 100 of the 100 images found, 0 left out.")
    index = spot.usable()
    pd.testing.assert_frame_equal(index, read_index(dataset, spot.root))
    assert index.attrs["excluded"] == []
    assert index.attrs["report"]["found"] == N
    assert list(check.findings) == ["severity", "kind", "image_id", "file", "row", "detail"]
    assert list(check.summary) == ["severity", "kind", "n", "examples"]


def test_the_table_of_kinds_has_known_severities_and_a_remedy_for_errors() -> None:
    assert {kind.severity for kind in KINDS.values()} == {"error", "excluded", "note"}
    no_remedy = {name for name, kind in KINDS.items() if not kind.then}
    assert no_remedy == {"no folder", "no label file", "no image"}  # their findings say where to get the data


def rewrite(change):
    """A spoiler of the label file that changes its bytes."""
    return lambda spot: spot.table.write_bytes(change(spot.table.read_bytes()))


def set_field(row: int, column: int, value: str):
    return lambda spot: spot.row(row, lambda fields: [*fields[:column], value, *fields[column + 1 :]])


def append_row(*fields: str):
    return lambda spot: write_rows(spot.table, [*read_rows(spot.table), list(fields)])


def columns(change):
    """A spoiler that changes the list of fields of every row, header included."""
    return lambda spot: write_rows(spot.table, [change(fields) for fields in read_rows(spot.table)])


def lists(test, train=lambda names: names):
    def spoil(spot: Place) -> None:
        for name, change in (("test_list.txt", test), ("train_val_list.txt", train)):
            path = spot.folder / name
            path.write_text("\n".join(change(path.read_text().split())))

    return spoil


HAM, NIH, KAGGLE = SETS
LABEL_FILES = [  # data set, what is done to it, the kind that it gives, how often
    (HAM, set_field(5, 2, "melanoma"), "unknown label", 1),
    (HAM, set_field(5, 2, ""), "unknown label", 1),
    (HAM, set_field(5, 2, "nv"), "contradiction", 3),
    (HAM, set_field(5, 0, ""), "unknown group", 1),
    (HAM, set_field(5, 0, "face"), "unknown group", 1),
    (HAM, set_field(5, 1, ""), "no image name", 1),
    (HAM, set_field(5, 1, "ISIC_1000004.jpg"), "name with other ending", 1),
    (HAM, set_field(5, 1, "isic_1000004"), "name in another case", 1),
    (HAM, append_row("HAM_0000000", "ISIC_1000000", "akiec", "", "", "", ""), "repeated row", 1),
    (HAM, append_row("HAM_0000000", "isic_1000000.jpg", "akiec", "", "", "", ""), "repeated row", 1),
    (HAM, append_row("HAM_0000009", "ISIC_1000000", "bkl", "", "", "", ""), "conflicting rows", 2),
    (HAM, append_row("HAM_0000009", "ISIC_1000000", "bkl"), "ragged row", 1),
    (HAM, lambda spot: spot.row(5, lambda fields: [*fields, "more"]), "ragged row", 1),
    (HAM, rewrite(lambda data: data.replace(b"face", b"fa\xe7e", 1)), "undecodable text", 1),
    (HAM, rewrite(lambda data: data.replace(b"face", b"fa\0e", 1)), "undecodable text", 1),
    (HAM, rewrite(lambda data: data.decode().encode("utf-16")), "undecodable text", 1),
    (HAM, rewrite(lambda data: data.replace(b"histo", b'"histo', 1)), "broken quotes", 1),
    (HAM, rewrite(lambda data: b'"' + data + b"x" * 200_000), "broken quotes", 1),
    (HAM, rewrite(lambda data: b""), "empty label file", 1),
    (HAM, rewrite(lambda data: data.partition(b"\n")[0]), "empty label file", 1),
    (HAM, rewrite(lambda data: data.partition(b"\n")[2]), "missing column", 1),
    (HAM, columns(lambda fields: fields[:2] + fields[3:]), "missing column", 1),
    (HAM, columns(lambda fields: [*fields, fields[2]]), "repeated column", 1),
    (HAM, rewrite(lambda data: data[:1000]), "short label file", 1),
    (HAM, rewrite(lambda data: data), "not the published file", 1),
    (HAM, lambda spot: shutil.copy(spot.table, spot.folder / "HAM10000_metadata.tab"), "other label file", 1),
    (NIH, set_field(5, 1, "No Finding|Pneumothorax"), "unknown label", 1),
    (NIH, set_field(5, 1, "Mass|pneumothorax"), "unknown label", 1),
    (NIH, set_field(5, 3, "7"), "contradiction", 1),
    (NIH, set_field(5, 0, "00000003_000"), "name with other ending", 1),
    (NIH, lists(lambda names: [*names, "00000011_000.png"]), "in both lists", 1),
    (NIH, lists(lambda names: names[:-2]), "in no list", 2),
    (
        NIH,
        lists(lambda names: names[:-1], lambda names: [*names, "00000010_001.png"]),
        "patient in both lists",
        1,
    ),
    (NIH, lists(lambda names: [*names, "00099999_000.png"]), "listed without a row", 1),
    (NIH, lists(lambda names: []), "no listed image", 1),
    (NIH, lambda spot: (spot.folder / "test_list.txt").unlink(), "no test list", 1),
    (NIH, lambda spot: (spot.folder / "test_list.txt").write_bytes(b"\xff\xfe"), "undecodable text", 1),
    (KAGGLE, set_field(5, 1, "5"), "unknown label", 1),
    (KAGGLE, set_field(5, 0, "103"), "unknown group", 1),
    (KAGGLE, append_row("101_left", "1"), "conflicting rows", 2),  # another grade, if of the same class
]


@pytest.mark.parametrize(("dataset", "spoil", "kind", "n"), LABEL_FILES)
def test_a_defect_of_the_label_file_is_found(place, dataset: str, spoil, kind: str, n: int) -> None:
    spot = place(dataset)
    spoil(spot)
    check = spot.check()
    assert check.findings["kind"].value_counts().get(kind) == n, check.findings
    assert check.usable == (KINDS[kind].severity != "error")
    if check.usable:
        assert len(spot.usable()) == N
    else:
        with pytest.raises(StudyError, match="data check") as error:
            spot.usable()
        assert ("row " in str(error.value)) == check.findings["row"].gt(0).any()
        assert kind in check.sentence


UNDERSTOOD = [
    (HAM, lambda spot: spot.row(5, lambda fields: [*fields, "", ""])),
    (HAM, rewrite(lambda data: data.replace(b"\n", b",\n"))),
    (HAM, rewrite(lambda data: data.replace(b"\n", b"\n\n"))),
    (HAM, append_row("", "", "", "", "", "", "")),
    (HAM, rewrite(lambda data: b"\xef\xbb\xbf" + data)),
    (HAM, rewrite(lambda data: data.replace(b",", b";"))),
    (HAM, rewrite(lambda data: data.replace(b",", b"\t"))),
    (HAM, columns(lambda fields: fields[:-1])),
    (HAM, columns(lambda fields: [*fields, "extra"])),
    (HAM, rewrite(lambda data: data.replace(b"image_id", b"Image_ID"))),
    (NIH, columns(lambda fields: [*fields, ""])),  # as in Data_Entry_2017.csv
]


@pytest.mark.parametrize(("dataset", "change"), UNDERSTOOD)
def test_a_label_file_in_another_form_is_read_all_the_same_and_needs_no_note(place, dataset: str, change) -> None:
    spot = place(dataset)
    before = spot.usable()
    change(spot)
    assert kinds(spot.check()) <= ALWAYS
    pd.testing.assert_frame_equal(spot.usable(), before)


def spoil_image(change, i: int = 3):
    def spoil(spot: Place) -> None:
        path = spot.image(i)
        change(path)

    return spoil


def reencode(mode: str, form: str, bits: int = 16, **options):
    def change(path: Path) -> None:
        image = Image.open(path).convert("RGB")
        deep = np.asarray(image)[..., 0].astype(np.uint16) << (bits - 8)
        image = Image.fromarray(deep) if mode == "I;16" else image.convert(mode)
        image.save(path, format=form, **options)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


def copy_beside(path: Path) -> None:
    (path.parent / "0").mkdir()  # sorted, it comes before the original
    shutil.copy(path, path.parent / "0")


def copy_cut(path: Path) -> None:
    copy_beside(path)
    cut(path.parent / "0" / path.name)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_image(path: Path) -> None:
    """The same class and another lesion: image 3 and image 24 of HAM10000 are of lesions 1 and 8, both bcc."""
    others = {p.name: p for p in path.parent.parent.rglob("*.jpg")}
    shutil.copy(others["ISIC_1000024.jpg"], others["ISIC_1000003.jpg"])


def stray_bytes(path: Path) -> None:
    """Bytes of no use between the image's data and the mark of its end: decoders pass over them."""
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes(13) + data[-2:])


IMAGES = [
    (HAM, spoil_image(lambda path: path.write_bytes(b"")), {"empty": 1}),
    (HAM, spoil_image(replace_by_link), {"unreadable": 1}),
    (HAM, spoil_image(cut), {"truncated": 1}),
    (NIH, spoil_image(cut), {"truncated": 1}),
    (HAM, spoil_image(lambda path: path.write_text("<html>Sign in</html>")), {"page": 1}),
    (HAM, spoil_image(lambda path: path.write_text("no image")), {"damaged": 1}),
    (HAM, spoil_image(lambda path: encode(path, np.zeros((31, 200, 3), np.uint8))), {"tiny": 1}),
    (HAM, spoil_image(stray_bytes), {"flawed data": 1}),
    (HAM, spoil_image(Path.unlink), {"missing file": 1}),
    (HAM, spoil_image(make_folder), {"missing file": 1}),
    (HAM, spoil_image(lambda path: path.rename(path.with_name("x.jpg"))), {"missing file": 1, "unlabelled file": 1}),
    (HAM, spoil_image(lambda path: path.rename(path.with_name(path.name.lower()))), {"name in another case": 1}),
    (HAM, spoil_image(lambda path: path.rename(path.with_suffix(".JPEG"))), {}),
    (HAM, spoil_image(copy_beside), {"second file": 1}),
    (HAM, spoil_image(copy_cut), {"other second file": 1, "truncated": 1}),
    (HAM, spoil_image(other_image), {"identical images": 2}),
    (HAM, spoil_image(reencode("RGBA", "PNG")), {"alpha channel": 1, "other format": 1}),
    (HAM, spoil_image(reencode("LA", "PNG")), {"alpha channel": 1, "gray image": 1, "other format": 1}),
    (HAM, spoil_image(reencode("I;16", "PNG")), {"16 bits": 1, "gray image": 1, "other format": 1}),
    (HAM, spoil_image(reencode("I;16", "PNG", bits=12)),
     {"16 bits": 1, "dark 16 bits": 1, "gray image": 1, "other format": 1}),
    (NIH, spoil_image(reencode("I;16", "PNG", bits=12)), {"16 bits": 1}),  # the filter stretches what there is
    (HAM, spoil_image(reencode("P", "PNG")), {"palette": 1, "other format": 1}),
    (HAM, spoil_image(reencode("L", "JPEG")), {"gray image": 1}),
    (HAM, spoil_image(reencode("1", "PNG")), {"gray image": 1, "other format": 1}),
    (HAM, spoil_image(reencode("CMYK", "JPEG")), {"CMYK": 1}),
    (KAGGLE, spoil_image(reencode("L", "JPEG")), {"gray image": 1}),
    (NIH, spoil_image(reencode("RGB", "PNG")), {"colour image": 1}),
    (NIH, spoil_image(reencode("RGBA", "PNG")), {"colour image": 1, "alpha channel": 1}),
    (NIH, spoil_image(reencode("I;16", "PNG")), {"16 bits": 1}),
    (NIH, spoil_image(reencode("L", "JPEG")), {"other format": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "spoil", "expected"), IMAGES)
def test_a_defect_of_an_image_is_found_and_costs_that_image_at_most(place, dataset: str, spoil, expected: dict) -> None:
    spot = place(dataset)
    spoil(spot)
    check = spot.check()
    found = check.findings[~check.findings["kind"].isin(ALWAYS)]
    assert found["kind"].value_counts().to_dict() == expected
    assert check.usable
    assert (found["image_id"] != "").all()
    index = spot.usable()
    excluded = found[found["severity"] == "excluded"]
    assert len(index) == N - len(excluded) - expected.get("missing file", 0)
    assert index.attrs["excluded"] == excluded[["image_id", "kind"]].to_dict("records")
    assert f"{len(excluded)} left out" in check.sentence


def give(spot: Place, i: int, j: int) -> None:
    """Image number i (in the order of the rows) gets the bytes of number j."""
    names = [Path(row[{HAM: 1}.get(spot.dataset, 0)]).stem for row in read_rows(spot.table)[1:]]
    files = {path.stem: path for path in spot.folder.rglob("*") if path.suffix != ".csv"}
    shutil.copy(files[names[j]], files[names[i]])


def test_identical_images_with_different_labels_are_all_left_out(place) -> None:
    spot = place()
    give(spot, 0, 50)  # lesions 0 and 16, akiec and bkl
    give(spot, 1, 50)
    check = spot.check()
    assert kinds(check) - ALWAYS == {"contradictory label"}
    index = spot.usable()
    lost = ["ISIC_1000000", "ISIC_1000001", "ISIC_1000050"]
    assert index.attrs["excluded"] == [{"image_id": name, "kind": "contradictory label"} for name in lost]
    found = check.findings[check.findings["kind"] == "contradictory label"]
    assert found["detail"].tolist() == [f"the same pixels as {lost[i]}" for i in (2, 0, 0)]
    assert len(index) == N - 3
    assert index["group"].tolist() == read_index(HAM, spot.root)["group"].drop([0, 1, 50]).tolist()


def test_groups_of_identical_images_become_one_so_that_no_split_parts_them(place) -> None:
    spot = place()
    give(spot, 0, 63)  # lesions 0, 21 and 7 are all akiec: 0 = 21 and 21 = 7, so that all three are one
    give(spot, 64, 23)
    index, before = spot.usable(), read_index(HAM, spot.root)
    assert kinds(spot.check()) - ALWAYS == {"identical images"}
    merged = before["group"].isin(["HAM_0000000", "HAM_0000007", "HAM_0000021"])
    assert merged.sum() == 9
    assert set(index["group"][merged]) == {"HAM_0000000"}
    assert index["group"][~merged].tolist() == before["group"][~merged].tolist()
    content = records_of(before, spot.cache)["content"].to_numpy()
    for seed in range(5):
        split = split_index(index, seed)
        assert check_no_leak(split)["groups in two splits"] == 0
        assert split.groupby(content)["split"].nunique().max() == 1


def test_identical_images_in_both_parts_of_the_official_split_are_an_error(place) -> None:
    spot = place(NIH)
    give(spot, 30, 3)  # both without findings; the first 20 are test
    check = spot.check()
    assert kinds(check, "error") == {"leaking image"}
    with pytest.raises(StudyError, match=r"the same pixels as.*delete one.*data check chestxray14"):
        spot.usable()
    found = read_index(NIH, spot.root).drop(columns="official_split")  # as with split.official = false
    assert len(usable_index(found, records_of(found, spot.cache))) == N
    spot.image(30).unlink()
    assert spot.check().usable
    assert len(spot.usable()) == N - 1


def test_one_image_too_many_left_out_is_an_error_and_all_are_listed(place) -> None:
    spot = place(KAGGLE)
    for i in range(5):
        spot.image(i).write_bytes(b"")
    assert spot.check().sentence.endswith("95 of the 100 images found, 5 left out: empty (5).")
    assert len(spot.usable()) == 95
    cut(spot.image(5))
    check = spot.check()
    assert kinds(check, "error") == {"too many excluded"}
    assert check.summary["n"].tolist()[:3] == [1, 5, 1]
    assert check.sentence.endswith("is not usable: too many excluded.")
    with pytest.raises(StudyError, match=r"6 of 100 images.*empty \(5\), truncated.*101_left.*data check eyepacs"):
        spot.usable()


def test_a_class_without_images_is_an_error(place) -> None:
    spot = place()
    write_rows(spot.table, [row for row in read_rows(spot.table) if row[2] != "df"])
    for i in range(N):  # their files too, so that the label file is not short of rows
        if i // 3 % 7 == 3:
            next(spot.folder.rglob(f"ISIC_{1000000 + i}.jpg")).unlink()
    assert kinds(spot.check(), "error") == {"class without images"}
    with pytest.raises(StudyError, match="no image of class 'df'"):
        spot.usable()


def test_what_is_not_there_at_all_is_said_with_where_to_get_it(place, tmp_path: Path) -> None:
    spot = place(KAGGLE)
    for prepare, kind in (
        (lambda: shutil.rmtree(spot.folder / "train"), "no image"),
        (lambda: spot.table.unlink(), "no label file"),
        (lambda: spot.table.mkdir(), "no label file"),
        (lambda: shutil.rmtree(spot.folder), "no folder"),
    ):
        prepare()
        check = spot.check()
        assert kinds(check, "error") == {kind}
        assert not check.usable
        assert kind in check.sentence
        with pytest.raises(StudyError, match=r"kaggle\.com"):
            spot.usable()
    with pytest.raises(StudyError, match="no data set 'mnist'"):
        check_dataset("mnist", tmp_path)


def test_all_problems_are_reported_at_once(place) -> None:
    spot = place()
    for i, change in enumerate((cut, Path.unlink, lambda path: path.write_bytes(b""), reencode("L", "JPEG"))):
        spoil_image(change, i)(spot)
    spot.row(50, lambda fields: [*fields[:2], "melanoma", *fields[3:]])
    spot.row(51, lambda fields: fields[:4])
    check = spot.check()
    assert kinds(check) - ALWAYS == {
        *(
            "truncated",
            "missing file",
            "empty",
            "gray image",
            "unknown label",
            "ragged row",
            "unlabelled file",
        )
    }
    assert check.sentence.endswith("is not usable: ragged row, unknown label.")
    assert check.summary["severity"].tolist() == sorted(check.summary["severity"], key=SEVERITIES.index)
    assert check.summary.set_index("kind").loc["unknown label", "examples"] == "ISIC_1000049 (row 51)"


def test_file_names_that_are_no_text_are_passed_over(place) -> None:
    spot = place()
    Path(os.fsdecode(os.fsencode(spot.folder) + b"/\xff\xfe.jpg")).touch()
    check = spot.check()
    assert kinds(check) - ALWAYS == {"unlabelled file"}
    check.findings.to_csv(spot.root / "findings.csv", index=False)
    check.summary.to_string().encode()


def medmnist(folder: Path, change: Callable = lambda arrays: None) -> Path:
    """RetinaMNIST in small; `change` may spoil its arrays."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 60), ("val", 20), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(n, dtype=np.uint8)[:, None] % 5
    change(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "retinamnist_224.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_medmnist_sets_are_checked_by_the_same_rules(tmp_path: Path) -> None:
    def checked() -> Check:
        return check_dataset("retinamnist", tmp_path, tmp_path / "cache", SIZE)

    def copy(target: str, source: str) -> Callable:
        def change(arrays: dict) -> None:
            (to, i), (of, j) = target.split(), source.split()
            arrays[f"{to}_images"][int(i)] = arrays[f"{of}_images"][int(j)]

        return change

    path = medmnist(tmp_path / "retinamnist")
    assert checked().findings.empty
    assert checked().sentence.endswith("100 of the 100 images found, 0 left out.")
    path.write_bytes(path.read_bytes()[:-5000])
    assert kinds(checked()) == {"unreadable file"}  # before a cache of it is there
    for target, source, expected in (
        ("train 5", "train 0", {"identical images"}),
        ("train 4", "train 0", {"contradictory label"}),
        ("test 5", "train 0", {"leaking copy", "identical images"}),
    ):
        medmnist(tmp_path / "retinamnist", copy(target, source))
        assert kinds(checked()) == expected
    findings = checked().findings.set_index("kind")  # the copy that training would see goes, the other is tested
    assert findings.loc["leaking copy", "image_id"] == "train-00000"
    assert findings.loc["leaking copy", "detail"] == "the same pixels as test-00005"
    assert checked().usable
    shutil.rmtree(tmp_path / "retinamnist")
    assert kinds(checked()) == {"no label file"}


@pytest.mark.parametrize(
    ("dataset", "images", "notes"),
    [
        (
            HAM,
            5984,
            {"missing file": 4031, "unlabelled file": 60, "other size": 5984, "not the published file": 1},
        ),
        (NIH, 3499, {"missing file": 108621, "other size": 3499}),
        (KAGGLE, 1948, {"missing file": 33178}),
    ],
)
def test_real_data(tmp_path: Path, dataset: str, images: int, notes: dict) -> None:
    if not (REAL / dataset).is_dir():
        pytest.skip(f"no real {dataset} here")
    check = check_dataset(dataset, REAL, tmp_path, 64, "none")
    assert check.findings["kind"].value_counts().to_dict() == notes
    assert check.usable
    assert check.sentence.endswith(f"{images} of the {images} images found, 0 left out.")
    found = read_index(dataset, REAL)
    index = usable_index(found, images_and_records(found, dataset, 64, tmp_path, "none")[1])
    pd.testing.assert_frame_equal(index, found)


# Labels and files as others have them


def test_labels_in_another_case_are_read_with_a_note(place, clean: dict) -> None:
    spot = place("ham10000")
    rows = read_rows(spot.table)
    at = rows[0].index("dx")
    write_rows(spot.table, [rows[0], *([*row[:at], f" {row[at].upper()} ", *row[at + 1 :]] for row in rows[1:])])
    check = spot.check()
    assert check.usable
    assert kinds(check) - ALWAYS == {"label in another form"}
    pd.testing.assert_series_equal(spot.usable().set_index("image_id")["label"], clean["ham10000"]["label"])


def test_grades_as_decimal_numbers_are_read_with_a_note(place, clean: dict) -> None:
    spot = place("eyepacs")
    rows = read_rows(spot.table)
    write_rows(spot.table, [rows[0], *([row[0], f"{row[1]}.0"] for row in rows[1:])])
    check = spot.check()
    assert check.usable
    assert kinds(check) - ALWAYS == {"label in another form"}
    pd.testing.assert_series_equal(spot.usable().set_index("image_id")["grade"], clean["eyepacs"]["grade"])


def isic_of(spot: Place, clean: dict, lesions: bool = True) -> None:
    """Replace HAM10000's label file by those of ISIC 2018, task 3."""
    truth, names = clean["ham10000"], ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    spot.table.unlink()
    rows = [[i, *(str(float(row["class_name"].upper() == name)) for name in names)] for i, row in truth.iterrows()]
    write_rows(spot.folder / "ISIC2018_Task3_Training_GroundTruth.csv", [["image", *names], *rows])
    if lesions:
        rows = [[i, row["group"], "histopathology"] for i, row in truth.iterrows()]
        head = ["image", "lesion_id", "diagnosis_confirm_type"]
        write_rows(spot.folder / "ISIC2018_Task3_Training_LesionGroupings.csv", [head, *rows])


def test_the_label_files_of_isic_2018_give_the_same_set(place, clean: dict) -> None:
    spot = place("ham10000")
    isic_of(spot, clean)
    check = spot.check()
    assert check.usable, check.sentence
    found = spot.usable().set_index("image_id")
    pd.testing.assert_frame_equal(found[["label", "group"]], clean["ham10000"][["label", "group"]])


def test_isics_labels_without_its_lesions_are_refused(place, clean: dict) -> None:
    spot = place("ham10000")
    isic_of(spot, clean, lesions=False)
    with pytest.raises(StudyError, match=r"LesionGroupings.csv is not there"):
        read_index("ham10000", spot.root)


@pytest.mark.parametrize(
    "text", ["image,MEL,NV\nISIC_1000000,1.0,1.0\n", "image,MEL,NV\nISIC_1000000,x,1.0\n", "a,b\n1,2\n"]
)
def test_isics_rows_that_name_no_single_class_are_errors(place, clean: dict, text) -> None:
    spot = place("ham10000")
    isic_of(spot, clean)
    (spot.folder / "ISIC2018_Task3_Training_GroundTruth.csv").write_text(text)
    assert kinds(spot.check(), "error") & {"unknown label", "missing column"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "page"),
        (b"\xef\xbb\xbf\n  <html>", "page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "page"),
    ],
)
def test_what_lies_in_an_images_place_is_named(place, data, kind) -> None:
    spot = place("ham10000")
    spot.image(3).write_bytes(data)
    assert kinds(spot.check(), "excluded") == {kind}
