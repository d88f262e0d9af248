"""MedMNIST+ (Yang et al. 2023): one NumPy file per set, with arrays {train,val,test}_{images,labels}."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lib import StudyError
from lib.data.registry import DatasetInfo

PARTS = {"train": "train", "val": "validation", "test": "test"}  # their names of the splits, and ours
# What zipfile and NumPy raise on other bytes than they expect; NumPy hands an array's header to Python's own parser.
DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError)
DAMAGED += (SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def read_medmnist(info: DatasetInfo, folder: Path) -> pd.DataFrame:
    """The index of a MedMNIST+ set, in the form of `lib.data.read_index`, from the largest file that is there.

    Every image is a group of its own, since the file names neither patients nor lesions, and `official_split` is
    the published one. `path` is the .npz and `stored_at` the image's place in it, such as "train_images/17".
    Raises StudyError if there is no file, it is damaged, or its arrays are not those of the set.
    """
    path = next((folder / name for name in info.label_files if (folder / name).is_file()), None)
    if path is None:
        raise StudyError(
            f"There is no {' or '.join(info.label_files)} in {folder}: run ./reproduce data {info.name}, or get it "
            f"from {info.homepage}."
        )
    tables = []
    try:
        with zipfile.ZipFile(path) as archive, np.load(path) as arrays:
            for part, split in PARTS.items():
                labels = arrays[f"{part}_labels"]
                with archive.open(f"{part}_images.npy") as stream:
                    shape, dtype = _header(stream)
                if len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or dtype != np.uint8:
                    raise StudyError(f"{path}: {part}_images has shape {shape} of {dtype}; get the file again.")
                if labels.ndim != 2 or len(labels) != shape[0]:
                    raise StudyError(
                        f"{path}: {part} has {shape[0]} images but labels of shape {labels.shape}; get the file again."
                    )
                tables.append(_part(info, path, part, split, labels))
    except DAMAGED as error:
        raise StudyError(f"{path} is damaged or not a MedMNIST+ file ({error}): get it again.") from error
    index = pd.concat(tables, ignore_index=True)
    names = dict(enumerate(info.classes))
    index.insert(3, "class_name", index["label"].map(names))
    index.attrs["report"] = {"labelled": len(index), "found": len(index), "pixels_wide": shape[2]}
    return index


def _part(info, path, part, split, labels):
    values = labels[:, info.label_column or 0].astype("int64")
    grades = info.name == "retinamnist"  # referable from 2 on, as in EyePACS (paper, section 3.1)
    if not np.isin(values, range(5 if grades else len(info.classes))).all():
        known = "grades 0 to 4" if grades else ", ".join(info.classes)
        raise StudyError(f"{path}: {part} has labels that are none of {known}; get it again.")
    ids = [f"{part}-{i:05d}" for i in range(len(labels))]
    table = pd.DataFrame({"image_id": ids, "path": str(path), "label": (values >= 2) * 1 if grades else values})
    table["group"] = ids
    if grades:
        table["grade"] = values
    return table.assign(official_split=split, stored_at=[f"{part}_images/{i}" for i in range(len(labels))])


def stored_images(index: pd.DataFrame, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The images of these rows of an index of `read_medmnist`, as pairs (row, image), in the order of the file.

    The arrays are compressed whole and larger than memory, so they are read as a stream, once. An image is uint8
    (h, w) or (h, w, 3). Raises StudyError if the file turns out to be damaged.
    """
    places = index["stored_at"].iloc[rows].str.split("/", expand=True)
    wanted = places.assign(path=index["path"].to_numpy()[rows], row=rows, number=places[1].astype("int64"))
    for (path, member), table in wanted.sort_values("number").groupby(["path", 0]):
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                shape, _ = _header(stream)
                begin, step = stream.tell(), int(np.prod(shape[1:]))
                for row, number in zip(table["row"], table["number"], strict=True):
                    stream.seek(begin + number * step)
                    yield int(row), np.frombuffer(stream.read(step), np.uint8).reshape(shape[1:])
                while stream.read(1 << 20):  # at the end of the array its checksum is compared
                    pass
        except DAMAGED as error:
            raise StudyError(f"{path} is damaged ({error}): get it again.") from error


def _header(stream) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a .npy stream, which then stands at its first value."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if fortran_order:
        raise ValueError("arrays in Fortran order")
    return shape, dtype
