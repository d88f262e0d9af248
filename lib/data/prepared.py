"""From a folder of raw data to images and an index that training can trust: read, checked, split, cached.

The first call decodes and checks every image. A later one only compares names, sizes and times of the files with
those that the cache was made from.
"""

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import StudyError, artifacts
from lib.artifacts.sources import code_key
from lib.data import check_no_leak, dataset_info, read_index, split_index, subset
from lib.data.check import usable_index
from lib.data.decoding import read_image
from lib.data.medmnist import stored_images
from lib.data.preprocessing import data_fingerprint, images_and_records, map_images
from lib.profile import Preprocessing, Split


class Rows(Sequence):
    """Some rows of an array on disk, in the order of `rows`; only what is asked for is read.

    `rows[i]` for a slice or an array of positions gives a NumPy array (k, h, w, 3).
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        rows = np.asarray(rows)
        array, self.rows = (array.array, array.rows[rows]) if isinstance(array, Rows) else (array, rows)
        self.array = np.asarray(array)  # still mapped; indexing a memmap itself costs more
        self.shape, self.dtype = (len(self.rows), *array.shape[1:]), array.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        return self.array[self.rows[which]]

    def __array__(self, dtype=None, copy=None):
        return self.array[self.rows] if dtype is None else self.array[self.rows].astype(dtype)


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training.

    index: one row per usable image: image_id, path, label, class_name, group, split, ...; its attrs hold "report"
    (what was found), "excluded" (images left out and why) and "proof" (of `check_no_leak`).
    images: uint8 (n, size, size, 3) in the order of the index. fingerprint: names the content of both.
    """

    index: pd.DataFrame
    images: Rows
    fingerprint: str

    def merged(self, classes: dict[str, list[str]]) -> "Prepared":
        """The same images and split with other classes, each of which takes some together; {} for their own."""
        if not classes:
            return self
        new_of = {old: new for new, olds in classes.items() for old in olds}
        names = self.index["class_name"].map(new_of)
        index = self.index.assign(class_name=names, label=names.map(list(classes).index).astype("int64"))
        return Prepared(index, self.images, artifacts.key_of(self.fingerprint, classes))


def prepare(
    dataset: str, root: str | Path, split: Split, preprocessing: Preprocessing, cache_dir: str | Path
) -> Prepared:
    """Read, check, preprocess and split a data set under `<root>/<dataset>/`, or map what an earlier call kept.

    Raises StudyError if the data are missing or, by the rules of `lib.data.check`, not usable.
    """
    cache = Path(cache_dir) / dataset
    settings = [split.model_dump(), preprocessing.model_dump()]
    code = code_key(prepare)
    info = dataset_info(dataset)
    facts = [list(info.classes), info.columns] if info.own else []
    facts += [Path(info.reader).read_text()] if Path(info.reader).is_file() else []  # one that is gone is named below
    key = artifacts.key_of(dataset, settings, artifacts.listing(Path(root) / dataset), code, *facts)
    path = cache / f"index-{key}.csv"

    def make(temporary):
        found = read_index(dataset, root)
        if not split.official:
            found = found.drop(columns="official_split", errors="ignore")
        filtered = preprocessing.xray_contrast, preprocessing.xray_sigma
        images, records = images_and_records(found, dataset, preprocessing.image_size, cache_dir, *filtered)
        index = usable_index(found, records)
        attributes = dict(index.attrs)
        index = split_index(index, split.seed, split.validation, split.test)
        if split.max_images:
            counts = index["split"].value_counts()
            limits = {name: round(split.max_images * n / len(index)) for name, n in counts.items()}
            index = subset(index, limits, split.seed)
        place = pd.Series(np.arange(len(found)), index=found["image_id"])
        index = index.assign(position=place[index["image_id"]].to_numpy())
        records = records.iloc[index["position"].to_numpy()]
        attributes["proof"] = check_no_leak(index, records["content"].to_numpy())
        attributes["fingerprint"] = data_fingerprint(index, records)
        attributes["folder"] = os.path.relpath(Path(images.filename).parent, cache)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(attributes, default=int) + "\n")
            index.to_csv(file, index=False)

    index = artifacts.cached(path, key, make, _read, dataset=dataset, split=settings[0], preprocessing=settings[1])
    folder = cache / index.attrs["folder"]
    if not folder.is_dir():  # somebody made room
        path.unlink()
        return prepare(dataset, root, split, preprocessing, cache_dir)
    images = Rows(map_images(folder), index.pop("position").to_numpy())
    return Prepared(index, images, index.attrs["fingerprint"])


def _read(path: Path) -> pd.DataFrame:
    """The index as it was written: the attributes in the first line, then the table."""
    with open(path, encoding="utf-8") as file:
        attributes = json.loads(file.readline())
        index = pd.read_csv(file, dtype=TEXTS, keep_default_na=False)
    index.attrs.update(attributes)
    return index


def original(row: pd.Series) -> np.ndarray:
    """The image of one row of the index as it is stored, before preprocessing: uint8 RGB (H, W, 3)."""
    if "stored_at" not in row:
        return read_image(row["path"])
    _, image = next(stored_images(row.to_frame().T, np.zeros(1, int)))
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


PACKED = Path("data/packed")  # in the folder of a study that travelled, see `lib.study.pack`


def packed_files(data: Prepared, rows: int = 500) -> Iterator[tuple[str, bytes]]:
    """Prepared data as files, name and content, for `read_packed`; the images in blocks of so many rows."""
    about = {"fingerprint": data.fingerprint, "attributes": data.index.attrs}
    yield "about.json", json.dumps(about, default=int).encode()
    yield "index.csv", data.index.to_csv(index=False).encode()
    for first in range(0, len(data.images), rows):
        held = io.BytesIO()
        np.save(held, np.asarray(data.images[first : first + rows]))
        yield f"images-{first:06d}.npy", held.getvalue()


def read_packed(folder: Path) -> Prepared:
    """What `packed_files` wrote into a folder. Raises StudyError where a block of images is missing."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    index = pd.read_csv(folder / "index.csv", dtype=TEXTS, keep_default_na=False)
    index.attrs.update(about["attributes"])
    blocks = [np.load(path) for path in sorted(folder.glob("images-*.npy"))]
    images = np.concatenate(blocks) if blocks else np.empty((0, 1, 1, 3), np.uint8)
    if len(images) != len(index):
        raise StudyError(
            f"{folder} holds {len(images)} of {len(index)} images: an archive is missing beside the others."
        )
    return Prepared(index, Rows(images, np.arange(len(index))), about["fingerprint"])


def first_original(dataset: str, root: str | Path, class_name: str) -> np.ndarray | None:
    """The first image of a class among the original data under `root`, as `original` gives it; None where none is."""
    try:
        index = read_index(dataset, root)
    except StudyError:
        return None
    rows = index[index["class_name"] == class_name]
    return original(rows.iloc[0]) if len(rows) else None


TEXTS = dict.fromkeys(["image_id", "path", "class_name", "group", "official_split", "stored_at", "split"], str)
