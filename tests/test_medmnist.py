"""MedMNIST+ files made up in the publishers' form: labels, splits, and images read as a stream."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import StudyError
from lib.data import DATASETS
from lib.data.medmnist import read_medmnist, stored_images
from lib.data.prepared import original, prepare
from lib.data.preprocessing import images_and_records, resize, xray_stages
from lib.profile import Preprocessing, Split

COUNTS = {"train": 30, "val": 9, "test": 12}
COLUMNS = {"dermamnist": 1, "chestmnist": 14, "retinamnist": 1}


def write(folder: Path, name: str, size: int = 40, **changes) -> dict[str, np.ndarray]:
    """`<folder>/<name>/<name>_224.npz` as MedMNIST+ writes it, compressed; returns its arrays."""
    rng = np.random.default_rng(0)
    colour = () if name == "chestmnist" else (3,)
    highest = {"dermamnist": 7, "chestmnist": 2, "retinamnist": 5}[name]
    arrays = {}
    for part, n in COUNTS.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, size, size, *colour), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, highest, (n, COLUMNS[name]), dtype=np.uint8)
    arrays |= changes
    (folder / name).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / name / f"{name}_224.npz", **arrays)
    return arrays


@pytest.mark.parametrize("name", COLUMNS)
def test_the_index_has_the_published_labels_and_splits(tmp_path: Path, name: str) -> None:
    arrays = write(tmp_path, name)
    index = read_medmnist(DATASETS[name], tmp_path / name)
    assert index["official_split"].value_counts().to_dict() == {"train": 30, "validation": 9, "test": 12}
    assert index["image_id"].is_unique
    published = np.concatenate([arrays[f"{part}_labels"] for part in COUNTS])
    expected = {
        "dermamnist": lambda: published[:, 0],
        "chestmnist": lambda: published[:, 7],  # the eighth of the fourteen findings, pneumothorax
        "retinamnist": lambda: published[:, 0] >= 2,
    }[name]()
    np.testing.assert_array_equal(index["label"], expected)
    assert (index["class_name"] == np.array(DATASETS[name].classes)[index["label"]]).all()


@pytest.mark.parametrize("name", COLUMNS)
def test_images_are_preprocessed_as_files_are(tmp_path: Path, name: str) -> None:
    arrays = write(tmp_path, name)
    index = read_medmnist(DATASETS[name], tmp_path / name).sample(frac=1, random_state=0)
    images, records = images_and_records(index, name, 32, tmp_path / "cache")
    for image, place in zip(images, index["stored_at"], strict=True):
        member, i = place.split("/")
        source = arrays[member][int(i)]
        if name == "chestmnist":
            source = np.repeat(xray_stages(source)["result"][..., None], 3, axis=2)
        np.testing.assert_array_equal(image, resize(source, 32))
    assert (records["problem"] == "").all()
    assert (records[["width", "height"]] == 40).all(axis=None)
    assert records["content"].nunique() == len(index)


@settings(max_examples=30)
@given(rows=st.sets(st.integers(0, 50), min_size=1))
def test_any_rows_come_out_of_the_stream_once_each(tmp_path_factory, rows: set) -> None:
    folder = tmp_path_factory.getbasetemp() / "stream"
    if not folder.exists():
        write(folder, "dermamnist")
    index = read_medmnist(DATASETS["dermamnist"], folder / "dermamnist")
    pairs = list(stored_images(index, np.array(sorted(rows))))
    found = dict(pairs)
    assert sorted(found) == sorted(rows)
    assert len(pairs) == len(rows)
    with np.load(folder / "dermamnist" / "dermamnist_224.npz") as arrays:
        for row, image in found.items():
            member, i = index["stored_at"][row].split("/")
            np.testing.assert_array_equal(image, arrays[member][int(i)])


def test_the_published_split_is_taken_whole_unless_told_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "retinamnist")
    settings_ = Preprocessing(image_size=32)
    data = prepare("retinamnist", tmp_path, Split(), settings_, tmp_path / "cache")
    assert data.index["split"].value_counts().to_dict() == {"train": 30, "validation": 9, "test": 12}
    assert data.index.attrs["proof"]["identical images in two splits"] == 0
    own = prepare("retinamnist", tmp_path, Split(official=False), settings_, tmp_path / "cache")
    assert own.index["split"].value_counts().to_dict() != {"train": 30, "validation": 9, "test": 12}
    with np.load(tmp_path / "retinamnist" / "retinamnist_224.npz") as arrays:
        np.testing.assert_array_equal(original(data.index.iloc[31]), arrays["val_images"][1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_labels": np.zeros((8, 1), np.uint8)}, "val has 9 images but labels of shape"),
        ({"val_labels": np.full((9, 1), 7, np.uint8)}, "none of akiec"),
        ({"test_images": np.zeros((12, 40, 40, 3), "float32")}, "test_images has shape .* float32"),
        ({"train_images": np.zeros((30, 40), np.uint8)}, "train_images has shape"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, changes: dict, words: str) -> None:
    write(tmp_path, "dermamnist", **changes)
    with pytest.raises(StudyError, match=words):
        read_medmnist(DATASETS["dermamnist"], tmp_path / "dermamnist")


def refused(path: Path) -> str:
    try:
        read_medmnist(DATASETS["chestmnist"], path.parent)
    except StudyError as error:
        return str(error)
    return path.name  # it changed nothing that is read


@pytest.mark.parametrize(
    "text", ["{'shape': (30, 40", "{'shape': \\ x", "{'shape': ", "(1, 2)", "\0", "{'a': 1}", "f()"]
)
def test_a_header_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    write(tmp_path, "chestmnist")
    path = tmp_path / "chestmnist" / "chestmnist_224.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["train_images.npy"] = b"\x93NUMPY\x01\x00\x76\x00" + text.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "is damaged" in refused(path)


def test_a_damaged_directory_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "chestmnist")
    path = tmp_path / "chestmnist" / "chestmnist_224.npz"
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    for at in range(directory, directory + 64):
        for mask in (1, 4, 28, 124, 177, 255):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            assert path.name in refused(path)


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_file_is_one_sentence(tmp_path_factory, data) -> None:
    """Cut off or with other bytes: refused by the index or by the stream's checksums, or it changed nothing."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    arrays = write(folder, "chestmnist")
    path = folder / "chestmnist" / "chestmnist_224.npz"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    index, pairs, error = None, [], ""
    try:
        index = read_medmnist(DATASETS["chestmnist"], folder / "chestmnist")
        pairs = list(stored_images(index, np.arange(len(index))))
    except StudyError as refused:
        error = str(refused)
    if error:
        assert "chestmnist_224.npz" in error
        return
    assert len(pairs) == sum(COUNTS.values())
    for row, image in pairs:
        member, i = index["stored_at"][row].split("/")
        np.testing.assert_array_equal(image, arrays[member][int(i)])


def test_a_missing_file_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"\./reproduce data chestmnist"):
        read_medmnist(DATASETS["chestmnist"], tmp_path)
