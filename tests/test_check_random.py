"""Random corruption of images and label files: nothing is silently wrong, and no good image is lost.

What no check can see is left out: a label changed to another valid label, a wrong bit in a JPEG's data that still
decodes, and an image replaced by another one of the set that then goes.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_check import ALWAYS, HAM, KAGGLE, NIH, SETS, Place, encode, make_clean, records_of

from lib import StudyError
from lib.data import read_index
from lib.data.check import usable_index
from lib.data.decoding import read_image


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return make_clean(tmp_path_factory)


class Spoilt(Place):
    """A copy of a clean set, with the names (in small letters) of images that were touched, whose pixels may be
    others, and that must stay as they are."""

    def __init__(self, clean: dict, tmp_path: Path, dataset: str):
        super().__init__(clean, tmp_path, dataset)
        self.touched, self.loose, self.staying = set(), set(), set()


# A spoiler changes one image and gives the names of the images that it touched.


def pick(rng: np.random.Generator, options: list):
    return options[rng.integers(len(options))]


def stem(path: Path) -> str:
    return path.stem.lower()


def spoil_bytes(change: Callable) -> Callable:
    def spoil(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
        path.write_bytes(change(path.read_bytes(), rng))
        return {stem(path)}

    return spoil


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    first = rng.integers(len(data) + 1)
    block = rng.bytes(rng.integers(1, 200)) if rng.random() < 0.7 else bytes(rng.integers(1, 200))
    return data[:first] + block + data[first + len(block) :]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    place = rng.integers(max(len(data), 1))
    flipped = bytes(byte ^ 1 << rng.integers(8) for byte in data[place : place + 1])
    return data[:place] + flipped + data[place + 1 :]


def renamed(name: Callable) -> Callable:
    def spoil(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
        path.rename(path.with_name(name(path, rng)))
        return set()

    return spoil


def other_bytes(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
    """Only of an image that stays: no file says that it is another's once that one is gone."""
    whole = [other for other in spot.images() if stem(other) not in spot.touched and other != path]
    other = pick(rng, whole)
    path.write_bytes(other.read_bytes())
    spot.staying.add(stem(other))
    return {stem(path), stem(other)}


def other_storage(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
    """The same pixels in another format."""
    if stem(path) in spot.touched:
        return set()
    pixels = read_image(path)
    image = Image.fromarray(pixels[..., 0] if spot.dataset == NIH else pixels)
    image.save(path, format=pick(rng, ["PNG", "BMP", "TIFF"]))
    return set()


def gone(replace: Callable) -> Callable:
    def spoil(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
        path.unlink()
        replace(path)
        return {stem(path)}

    return spoil


def second(path: Path, rng: np.random.Generator, spot: Spoilt) -> set[str]:
    folder = path.parent / pick(rng, ["0", "zz", "masks", "__MACOSX"])
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / path.name)
    return set()


SPOIL_IMAGE = {
    "truncate": spoil_bytes(lambda data, rng: data[: rng.integers(len(data) + 1)]),
    "zero": spoil_bytes(lambda data, rng: bytes(len(data))),
    "empty": spoil_bytes(lambda data, rng: b""),
    "overwrite": spoil_bytes(overwrite),
    "flip": spoil_bytes(flip),
    "text": spoil_bytes(lambda data, rng: b"<html>" + rng.bytes(50).hex().encode()),
    "noise": spoil_bytes(lambda data, rng: rng.bytes(len(data))),
    "append": spoil_bytes(lambda data, rng: data + rng.bytes(9)),
    "other bytes": other_bytes,
    "other storage": other_storage,
    "case": renamed(lambda path, rng: path.stem.swapcase() + path.suffix),
    "ending": renamed(lambda path, rng: path.stem + pick(rng, [".JPG", ".jpeg", ".Png", ".jpg"])),
    "other name": lambda path, rng, spot: {stem(path)} | renamed(lambda *_: f"x{path.name}")(path, rng, spot),
    "delete": gone(lambda path: None),
    "folder": gone(Path.mkdir),
    "link": gone(lambda path: path.symlink_to("nowhere")),
    "tiny": gone(lambda path: encode(path, np.zeros((20, 40, 3), np.uint8), format="PNG")),
    "second": second,
}


def of_lines(change: Callable) -> Callable:
    """A spoiler of the lines of the label file, of which `change` gets all and the place of one, not the header."""

    def spoil(text: str, rng: np.random.Generator, spot: Spoilt) -> str:
        lines = text.splitlines(keepends=True)
        if len(lines) < 2:
            return text
        return "".join(change(lines, rng.integers(1, len(lines)), rng))

    return spoil


def of_line(change: Callable) -> Callable:
    return of_lines(lambda lines, i, rng: [*lines[:i], change(lines[i], rng), *lines[i + 1 :]])


def of_table(change: Callable) -> Callable:
    """A spoiler of the columns: `change` gets the rows as an array of texts."""

    def spoil(text: str, rng: np.random.Generator, spot: Spoilt) -> str:
        rows = [line.split(",") for line in text.splitlines()]
        if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
            return text  # spoiled before
        return "\n".join(",".join(row) for row in change(np.array(rows, object), rng)) + "\n"

    return spoil


def insert(text: str, what: str, rng: np.random.Generator) -> str:
    place = rng.integers(len(text) + 1)
    return text[:place] + what + text[place:]


def swap_rows(lines: list[str], i: int, rng: np.random.Generator) -> list[str]:
    j = rng.integers(1, len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return lines


def swap_columns(rows: np.ndarray, rng: np.random.Generator, first: int = 0) -> np.ndarray:
    order = rng.permutation(rows.shape[1])
    rows[first:] = rows[first:, order]
    return rows


def swap_cells(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    i = rng.integers(len(rows))
    rows[i] = rows[i, rng.permutation(rows.shape[1])]
    return rows


def other_label(line: str, rng: np.random.Generator, spot: Spoilt) -> str:
    role = {HAM: 2, NIH: 1, KAGGLE: 1}[spot.dataset]
    fields = line.rstrip("\n").split(",")
    fields[min(role, len(fields) - 1)] = pick(rng, ["", "?", "5", "NV", "Pneumothorax|", "nevus", " ", "NaN"])
    return ",".join(fields) + "\n"


SPOIL_LABELS = {
    "byte-order mark": lambda text, rng, spot: "\xef\xbb\xbf" + text,
    "separator": lambda text, rng, spot: text.replace(",", pick(rng, [";", "\t", "|", " "])),
    "separator in a row": of_line(lambda line, rng: line.replace(",", pick(rng, [";", "\t", "|"]))),
    "quotes": of_table(lambda rows, rng: np.vectorize('"{}"'.format, otypes=[object])(rows)),
    "quote": lambda text, rng, spot: insert(text, pick(rng, ['"', "'"]), rng),
    "drop a row": of_lines(lambda lines, i, rng: [*lines[:i], *lines[i + 1 :]]),
    "drop the header": lambda text, rng, spot: text.partition("\n")[2],
    "repeat a row": of_lines(lambda lines, i, rng: [*lines, lines[i]]),
    "swap rows": of_lines(swap_rows),
    "shuffle rows": of_lines(lambda lines, i, rng: [lines[0], *rng.permutation(np.array(lines[1:], object))]),
    "drop a column": of_table(lambda rows, rng: np.delete(rows, rng.integers(rows.shape[1]), axis=1)),
    "repeat a column": of_table(lambda rows, rng: np.c_[rows, rows[:, rng.integers(rows.shape[1])]]),
    "swap columns": of_table(swap_columns),
    "swap columns, not names": of_table(lambda rows, rng: swap_columns(rows, rng, 1)),
    "swap cells": of_table(swap_cells),
    "label": lambda text, rng, spot: of_line(lambda line, rng: other_label(line, rng, spot))(text, rng, spot),
    "zero byte": lambda text, rng, spot: insert(text, "\0", rng),
    "no UTF-8": lambda text, rng, spot: insert(text, pick(rng, ["\xff", "\xe9", "\xc3("]), rng),
    "truncate": lambda text, rng, spot: text[: rng.integers(len(text) + 1)],
    "truncate near the end": lambda text, rng, spot: text[: -rng.integers(1, 60)],
    "CRLF": lambda text, rng, spot: text.replace("\n", "\r\n"),
    "CR": lambda text, rng, spot: text.replace("\n", "\r"),
    "trailing": lambda text, rng, spot: text.replace("\n", ",\n"),
    "trailing in a row": of_line(lambda line, rng: line.replace("\n", ",,\n")),
    "blank lines": of_line(lambda line, rng: pick(rng, ["\n", " \n", ",,,\n"]) + line),
    "case of the header": of_lines(lambda lines, i, rng: [lines[0].swapcase(), *lines[1:]]),
    "case of a row": of_line(lambda line, rng: line.swapcase()),
    "spaces": lambda text, rng, spot: text.replace(",", " , "),
    "insert": lambda text, rng, spot: insert(text, pick(rng, [",", "\n", "\r", " ", ".jpg", "\u00a0"]), rng),
    "remove": lambda text, rng, spot: remove(text, pick(rng, [",", "\n"]), rng),
    "ending": of_line(lambda line, rng: re.sub(r"(ISIC_\d+|\d+_left)", r"\1.JPG", line)),
}


def remove(text: str, what: str, rng: np.random.Generator) -> str:
    places = [match.start() for match in re.finditer(what, text)]
    place = pick(rng, places) if places else len(text)
    return text[:place] + text[place + 1 :]


# These concern no single row: no image may be lost by them. The others touch the images of the rows that they change.
HANDLED = {
    *("byte-order mark", "separator", "quotes", "drop the header", "repeat a row", "swap rows", "shuffle rows"),
    *("drop a column", "repeat a column", "swap columns", "swap columns, not names", "CRLF", "CR", "trailing"),
    *("trailing in a row", "blank lines", "case of the header", "spaces", "ending"),
}  # fmt: skip


def spoil_list(spot: Spoilt, rng: np.random.Generator) -> None:
    path = spot.folder / pick(rng, ["test_list.txt", "train_val_list.txt"])
    lines = path.read_text("latin-1").splitlines(keepends=True) or [""]
    i = rng.integers(len(lines))
    other = pick(rng, (spot.folder / "train_val_list.txt").read_text("latin-1").splitlines() or [""])
    text = pick(
        rng,
        [
            "".join(lines[:i] + lines[i + 1 :]),
            "".join([*lines, "\n", other]),
            "".join(lines)[: rng.integers(60 * len(lines))],
            insert("".join(lines), pick(rng, ["\xff", "\0", "x", " ", "\n", "\r"]), rng),
            "".join(rng.permutation(np.array(lines, object))),
            "\r\n".join(line.strip() for line in lines),
        ],
    )
    path.write_text(text, "latin-1")


def hold_against(truth: pd.DataFrame, spot: Spoilt) -> bool:
    """What must hold of a spoiled set, whatever was done to it; whether it is usable."""
    check = spot.check()
    found = check.findings[~check.findings["kind"].isin(ALWAYS)]
    try:
        read = read_index(spot.dataset, spot.root)
        records = records_of(read, spot.cache)
        index = usable_index(read, records)
    except StudyError:
        index = None
    assert check.usable == (index is not None)
    if index is None:
        return False
    assert not index["image_id"].str.lower().duplicated().any()
    truth = truth.set_index(truth.index.str.lower())
    names = index["image_id"].str.lower()
    kept = truth.loc[names].reset_index(drop=True)

    # No label is wrong, no patient or lesion in two groups, nothing in another part of the official split.
    assert (index["label"] == kept["label"]).all()
    assert (index["class_name"] == kept["class_name"]).all()
    assert index.groupby(kept["group"].to_numpy())["group"].nunique().max() == 1
    if "official_split" in index:
        assert (index["official_split"] == kept["official_split"]).all()

    # Pixels are the image's own, or, and that is said, those of another image of the same class.
    content = index["image_id"].map(records.set_index("image_id")["content"])
    other = (content != kept["content"]) & ~names.isin(spot.loose)
    label_of = pd.Series(truth["label"].to_numpy(), truth["content"])
    assert (content[other].map(label_of) == index["label"][other]).all()
    assert set(names[other]) <= set(found["image_id"][found["kind"] == "identical images"].str.lower())

    assert index.groupby(content)["group"].nunique().max() == 1

    # No good image is lost, and none in silence.
    lost = set(truth.index) - set(names)
    assert lost <= spot.touched
    assert lost <= set(found["image_id"].str.lower())
    return True


often = settings(suppress_health_check=list(HealthCheck), derandomize=True)
sets, seeds = st.sampled_from(SETS), st.integers(0, 2**32)


def some_of(spoilers: dict, fewest: int, most: int) -> st.SearchStrategy:
    return st.lists(st.sampled_from(sorted(spoilers)), min_size=fewest, max_size=most)


def test_random_corruption_of_images(clean: dict, tmp_path: Path) -> None:
    """Every image that stays has its label and its pixels, and every good image stays, or the set is refused.

    But a wrong bit or block within a JPEG's data that still decodes gives other pixels, and no decoder can notice.
    """
    corruptions, usable = 0, 0

    @settings(often, max_examples=110)
    @given(sets, some_of(SPOIL_IMAGE, 5, 7), seeds)
    def corrupt(dataset: str, names: list[str], seed: int) -> None:
        nonlocal corruptions, usable
        shutil.rmtree(tmp_path)
        spot, rng = Spoilt(clean, tmp_path, dataset), np.random.default_rng(seed)
        for name in names:
            path = pick(rng, [image for image in spot.images() if stem(image) not in spot.staying])
            jpeg = path.read_bytes().startswith(b"\xff\xd8")
            touched = SPOIL_IMAGE[name](path, rng, spot)
            spot.touched |= touched
            if name in ("overwrite", "flip") and jpeg:
                spot.loose |= touched
        corruptions += len(names)
        usable += hold_against(clean[dataset], spot)

    corrupt()
    assert corruptions >= 550
    assert usable >= 50


def test_random_corruption_of_label_files(clean: dict, tmp_path: Path) -> None:
    """Every image that stays has its label and group, and every image of a good row stays, or the set is refused."""
    corruptions, usable = 0, 0

    @settings(often, max_examples=260)
    @given(sets, some_of(SPOIL_LABELS, 1, 3), seeds)
    def corrupt(dataset: str, names: list[str], seed: int) -> None:
        nonlocal corruptions, usable
        shutil.rmtree(tmp_path)
        spot, rng = Spoilt(clean, tmp_path, dataset), np.random.default_rng(seed)
        for name in names:
            before = spot.table.read_bytes().decode("latin-1")
            after = SPOIL_LABELS[name](before, rng, spot)
            spot.table.write_bytes(after.encode("latin-1"))
            if name not in HANDLED:
                changed = " ".join(set(before.splitlines()) - set(after.splitlines())).lower()
                spot.touched |= {image for image in clean[dataset].index.str.lower() if image in changed}
        if dataset == NIH and rng.random() < 0.3:
            spoil_list(spot, rng)
            names = [*names, "official list"]
        corruptions += len(names)
        usable += hold_against(clean[dataset], spot)

    corrupt()
    assert corruptions >= 450
    assert usable >= 50
