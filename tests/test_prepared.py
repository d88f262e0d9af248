"""From raw files to index and images: what is left out, what stays together, what a second call costs."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import lib.data.preprocessing
from lib import StudyError
from lib.artifacts import listing
from lib.data.prepared import Rows, original, prepare
from lib.data.preprocessing import resize
from lib.profile import Preprocessing, Split

SMALL = Preprocessing(image_size=32)
CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def image(i: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(i).integers(0, 255, (5, 5, 3), dtype=np.uint8), (40, 40))


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    """140 images of 70 lesions in HAM10000's layout, as PNG so that pixels stay as they are; returns the root."""
    folder = tmp_path / "raw" / "ham10000" / "images"
    folder.mkdir(parents=True)
    rows = []
    for i in range(140):
        cv2.imwrite(str(folder / f"ISIC_{i:07d}.png"), image(i)[..., ::-1])
        rows.append([f"HAM_{i // 2:07d}", f"ISIC_{i:07d}", CLASSES[i // 2 % 7]])
    table = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    table.to_csv(folder.parent / "HAM10000_metadata.csv", index=False)
    return tmp_path / "raw"


def file_of(root: Path, i: int) -> Path:
    return root / "ham10000" / "images" / f"ISIC_{i:07d}.png"


def prepared(root: Path, split: Split | None = None):
    return prepare("ham10000", root, split or Split(), SMALL, root.parent / "cache")


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list:
    """The paths of all images decoded during a test."""
    paths, examine = [], lib.data.preprocessing._examine_file
    monkeypatch.setattr(
        lib.data.preprocessing,
        "_examine_file",
        lambda path, *rest: paths.append(path) or examine(path, *rest),
    )
    return paths


def test_every_row_has_its_own_image(ham: Path) -> None:
    data = prepared(ham)
    assert len(data.index) == len(data.images) == 140
    for row in (0, 57, 139):
        number = int(data.index["image_id"][row][-7:])
        np.testing.assert_array_equal(data.images[row], resize(image(number), 32))
        np.testing.assert_array_equal(original(data.index.iloc[row]), image(number))
    assert data.index.attrs["excluded"] == []
    assert data.index.attrs["proof"]["groups in two splits"] == 0
    assert data.index.attrs["proof"]["identical images in two splits"] == 0


def test_merged_classes_keep_images_and_split_and_have_another_fingerprint(ham: Path) -> None:
    data = prepared(ham)
    assert data.merged({}) is data
    other = data.merged({"benign": ["bkl", "df", "nv", "vasc"], "malignant": ["akiec", "bcc", "mel"]})
    is_malignant = data.index["class_name"].isin(["akiec", "bcc", "mel"])
    assert (other.index["label"] == is_malignant).all()
    assert (other.index["class_name"] == np.where(is_malignant, "malignant", "benign")).all()
    kept = ["image_id", "path", "group", "split"]
    pd.testing.assert_frame_equal(other.index[kept], data.index[kept])
    assert other.images is data.images
    assert other.fingerprint != data.fingerprint


def test_damaged_images_are_left_out_and_named_and_the_others_keep_theirs(ham: Path) -> None:
    whole = file_of(ham, 3).read_bytes()
    file_of(ham, 3).write_bytes(whole[: len(whole) // 2])
    file_of(ham, 8).write_bytes(b"")
    data = prepared(ham)
    kinds = {entry["image_id"]: entry["kind"] for entry in data.index.attrs["excluded"]}
    assert kinds == {"ISIC_0000003": "truncated", "ISIC_0000008": "empty"}
    assert len(data.index) == 138
    for row in range(138):
        number = int(data.index["image_id"][row][-7:])
        np.testing.assert_array_equal(data.images[row], resize(image(number), 32))


def test_too_many_damaged_images_make_the_set_unusable(ham: Path) -> None:
    for i in range(10):
        file_of(ham, i).write_bytes(b"")
    with pytest.raises(StudyError, match="10 of 140 images cannot be used"):
        prepared(ham)


def test_identical_images_of_two_lesions_end_up_in_one_split(ham: Path) -> None:
    for i in range(0, 56, 14):  # of the same class, two lesions on
        shutil.copyfile(file_of(ham, i), file_of(ham, i + 70))
    for seed in range(5):
        index = prepared(ham, Split(seed=seed)).index.set_index("image_id")
        for i in range(0, 56, 14):
            four = [f"ISIC_{k:07d}" for k in (i, i + 1, i + 70, i + 71)]
            assert len(set(index.loc[four, "split"])) == 1


def test_a_second_call_decodes_nothing_and_gives_the_same(ham: Path, examined: list) -> None:
    first = prepared(ham)
    assert len(examined) == 140
    again = prepared(ham)
    assert len(examined) == 140
    pd.testing.assert_frame_equal(first.index, again.index)
    assert first.index.attrs == again.index.attrs
    assert first.fingerprint == again.fingerprint
    np.testing.assert_array_equal(first.images, again.images)
    other = prepared(ham, Split(seed=1))  # another split of the same images
    assert len(examined) == 140
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("change", ["content", "new file", "labels", "cache deleted"])
def test_what_changed_is_never_taken_from_the_cache(ham: Path, examined: list, change: str) -> None:
    first = prepared(ham)
    if change == "content":
        shutil.copyfile(file_of(ham, 1), file_of(ham, 0))  # of the same lesion
        os.utime(file_of(ham, 0), (2e9, 2e9))
    elif change == "new file":
        cv2.imwrite(str(file_of(ham, 140)), image(140))
        with open(ham / "ham10000" / "HAM10000_metadata.csv", "a") as file:
            file.write("HAM_0000070,ISIC_0000140,nv\n")
    elif change == "labels":
        path = ham / "ham10000" / "HAM10000_metadata.csv"
        path.write_text(path.read_text().replace("akiec", "nv", 2))
    else:
        shutil.rmtree(ham.parent / "cache" / "ham10000" / first.index.attrs["folder"])
    second = prepared(ham)
    assert (first.fingerprint == second.fingerprint) == (change == "cache deleted")
    assert len(examined) == {"content": 280, "new file": 281, "labels": 140, "cache deleted": 280}[change]
    assert len(second.index) == 140 + (change == "new file")
    assert (second.index["label"] == 5).sum() - (first.index["label"] == 5).sum() == {
        "labels": 2,
        "new file": 1,
    }.get(change, 0)


def test_a_subset_keeps_images_and_rows_together(ham: Path) -> None:
    data = prepared(ham, Split(max_images=60))
    assert 55 <= len(data.index) <= 65
    for row in range(0, len(data.index), 7):
        number = int(data.index["image_id"][row][-7:])
        np.testing.assert_array_equal(data.images[row], resize(image(number), 32))


def test_rows_of_rows() -> None:
    array = np.arange(60).reshape(10, 2, 3)
    some = Rows(array, [7, 1, 4, 4])
    np.testing.assert_array_equal(some, array[[7, 1, 4, 4]])
    np.testing.assert_array_equal(Rows(some, [3, 0])[:], array[[4, 7]])
    np.testing.assert_array_equal(some[np.array([2, 0])], array[[4, 7]])
    assert len(some) == 4
    assert some.shape == (4, 2, 3)


def test_a_folder_that_links_to_itself_is_read_once(ham: Path) -> None:
    before = listing(ham / "ham10000")
    (ham / "ham10000" / "again").symlink_to(ham / "ham10000")
    (ham / "ham10000" / "nowhere").symlink_to(ham / "no such file")
    assert listing(ham / "ham10000") == before
    assert len(prepared(ham).index) == 140
