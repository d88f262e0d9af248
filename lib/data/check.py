"""Whether a data set can be trusted: all its problems at once, and the index without the images that have any.

Severities and rules (the kinds of findings stand in `lib.data.findings`):

- error: the set is not used. What is wrong with the label file or the official lists and could give a wrong label, a
  wrong patient or a wrong split (unknown labels, rows that contradict each other, ragged rows, bytes that are no
  text); more than 5 % of the images excluded; a class without images; identical images in two parts of the
  official split; rows missing from the label file while their images are there.
- excluded: the image is left out. It is empty, unreadable, truncated, damaged or tiny. Or it is identical to an image
  with another label: one of the labels is wrong and nothing says which, so that all of them are left out. Or
  it is identical to an image in a later part of the published split of a MedMNIST+ set (train, validation, test),
  whose arrays nobody can correct.
- note: nothing is lost. Other spellings and formats are understood; rows without images and images without rows
  (a partial download, an unlabelled test set) are not used. Identical images with the same label are kept, and
  their groups are made one, so that they end up in one split.

"Identical" means of the same pixels after preprocessing, as the network would see them.

What the files cannot show: a label changed to another valid label (unless another row of the same lesion keeps the
old one), an image replaced by another good one, and a wrong bit within a JPEG's data. Against the first, the label
file is compared with the publisher's checksum where the registry has it; a difference is a note, as mirrors order
the rows otherwise. Against the rest, `./reproduce data` compares the archives' checksums when it fetches them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib import ROOT, StudyError
from lib.data import preprocessing
from lib.data.decoding import DARK, DEEP
from lib.data.findings import Findings, counts, errors, raise_first_error, summarise
from lib.data.readers import read_index, survey
from lib.data.registry import DatasetInfo, dataset_info
from lib.data.splits import SPLITS

MOST_EXCLUDED = 0.05  # of the images found
FORMATS = {"ham10000": "JPEG", "chestxray14": "PNG", "eyepacs": "JPEG"}  # as published
SIZES = {"ham10000": (600, 450), "chestxray14": (1024, 1024)}
GRAY = ("1", "L", "LA")
NOTED_MODES = {  # by Pillow's names
    "alpha channel": ("RGBA", "LA", "PA"),
    "16 bits": DEEP,
    "palette": ("P", "PA"),
    "CMYK": ("CMYK",),
}


@dataclass(frozen=True)
class Check:
    """What `check_dataset` found.

    findings: one row each, with severity ("error", "excluded" or "note"), kind (of `lib.data.findings.KINDS`),
    image_id, file, row (line in that file, 0 if none is meant) and detail. summary: one row per kind, worst first,
    with severity, kind, n and examples. usable: whether there is no error. sentence: the verdict.
    """

    dataset: str
    images: int
    findings: pd.DataFrame

    @property
    def summary(self) -> pd.DataFrame:
        return summarise(self.findings)

    @property
    def usable(self) -> bool:
        return errors(self.findings).empty

    @property
    def sentence(self) -> str:
        title, excluded = dataset_info(self.dataset).title, _excluded(self.findings)
        if not self.usable:
            return f"{title} is not usable: {counts(errors(self.findings))}."
        left_out = excluded["image_id"].nunique()
        why = f": {counts(excluded)}" if left_out else ""
        found = f"{self.images - left_out} of the {self.images} images found"
        return f"{title} is usable: {found}, {left_out} left out{why}."


def check_dataset(
    dataset: str,
    root: str | Path,
    cache_dir: str | Path = ROOT / "data" / "cache",
    size: int = 224,
    xray_contrast: str = "before-resize",
) -> Check:
    """Look at every row and every image of the set under `<root>/<dataset>/`, and report all that is wrong.

    Decodes the images as training with this `size` and `xray_contrast` would, and leaves them in the same cache.
    Raises StudyError for an unknown data set or choice and where the cache cannot be written, but not for what is
    wrong with the data.
    """
    info, found = dataset_info(dataset), Findings()
    if info.stands_for:
        try:
            index = read_index(dataset, root)
            images, records = preprocessing.images_and_records(index, dataset, size, cache_dir, xray_contrast)
        except StudyError as error:
            there = any((Path(root) / dataset / name).is_file() for name in info.label_files)
            found.add("unreadable file" if there else "no label file", detail=str(error))
            return Check(dataset, 0, found.table())
    else:
        index, findings = survey(info, Path(root) / dataset)
        found.extend(findings)
        if index.empty:
            return Check(dataset, 0, found.table())
        images, records = preprocessing.images_and_records(index, dataset, size, cache_dir, xray_contrast)
    found.extend(check_images(index, records))
    _note_storage(info, index, records, found)
    deep = np.flatnonzero(records["mode"].isin(DEEP) & (records["problem"] == ""))
    dark = index.iloc[[row for row in deep if images[row].max() <= DARK]]
    found.add("dark 16 bits", image_id=dark["image_id"], file=dark["path"])
    return Check(dataset, len(index), found.table())


def usable_index(found: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """What training uses: the index without its excluded images, groups of identical images made one.

    `found` is of `read_index`, `records` of `lib.data.preprocessing.images_and_records` for it. The attrs stay, and
    `attrs["excluded"]` lists the images left out, as {"image_id", "kind"}. Raises StudyError, with the first reason,
    where the images are not usable by the rules above.
    """
    findings = check_images(found, records)
    raise_first_error(findings, found.attrs["dataset"])
    excluded = _excluded(findings).drop_duplicates("image_id")
    keep = ~found["image_id"].isin(excluded["image_id"])
    index = found[keep].reset_index(drop=True)
    index["group"] = _merged(index["group"], records["content"].to_numpy()[keep])
    index.attrs["excluded"] = excluded[["image_id", "kind"]].to_dict("records")
    return index


def check_images(index: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The findings that decide on single images, and whether enough is left of them: errors, exclusions, twins."""
    info, report, found = dataset_info(index.attrs["dataset"]), index.attrs["report"], Findings()
    columns = ["image_id", "path", "label", *(["official_split"] if "official_split" in index else [])]
    images = index[columns].reset_index(drop=True)
    images["content"], images["problem"] = records["content"].to_numpy(), records["problem"].to_numpy()
    for problem in images["problem"][images["problem"] != ""].unique():
        bad = images[images["problem"] == problem]
        found.add(problem, image_id=bad["image_id"], file=bad["path"])

    usable = images[images["problem"] == ""].copy()
    same = usable.groupby("content")
    first, last = (same["image_id"].transform(which) for which in ("first", "last"))
    usable["twin"] = first.where(first != usable["image_id"], last)
    twins = same["image_id"].transform("size") > 1
    doubtful = same["label"].transform("nunique") > 1
    _add_twins("contradictory label", usable[doubtful], found)
    _add_twins("identical images", usable[twins & ~doubtful], found)
    if "official_split" in usable:
        leaking = (same["official_split"].transform("nunique") > 1) & ~doubtful
        if info.stands_for:  # nobody can delete an image from an array file
            part = usable["official_split"].map(list(SPLITS).index)
            leaking &= part < part.groupby(usable["content"]).transform("max")
            doubtful |= leaking
        _add_twins("leaking copy" if info.stands_for else "leaking image", usable[leaking], found)
    usable = usable[~doubtful]

    lost, unlabelled = images[~images["image_id"].isin(usable["image_id"])], report.get("unlabelled_files", 0)
    if len(lost) > MOST_EXCLUDED * len(images):
        first = ", ".join(lost["image_id"].head(3))
        which = f"{counts(_excluded(found.table()))}, the first of them {first}"
        found.add("too many excluded", detail=f"{len(lost)} of {len(images)} images cannot be used: {which}")
    empty = [name for label, name in enumerate(info.classes) if not (usable["label"] == label).any()]
    found.add("class without images", detail=[f"no image of class {name!r} can be used" for name in empty])
    if report["labelled"] < info.images and unlabelled > MOST_EXCLUDED * (len(images) + unlabelled):
        detail = f"{report['labelled']} of {info.images} rows are there, and {unlabelled} images have none"
        found.add("short label file", detail=detail)
    return found.table()


def _excluded(findings: pd.DataFrame) -> pd.DataFrame:
    return findings[findings["severity"] == "excluded"]


def _add_twins(kind: str, images: pd.DataFrame, found: Findings) -> None:
    """One finding per image, which names its twin, another one of the same content."""
    detail = "the same pixels as " + images["twin"]
    found.add(kind, image_id=images["image_id"], file=images["path"], detail=detail)


def _merged(groups: pd.Series, content: np.ndarray) -> pd.Index:
    """Group names, the same for all groups that are linked by images of equal content: the first of them."""
    codes, names = pd.factorize(groups, sort=True)
    contents = pd.factorize(content)[0] + len(names)
    n = contents.max(initial=-1) + 1
    links = coo_array((np.ones(len(codes)), (codes, contents)), shape=(n, n))
    component = pd.Series(connected_components(links, directed=False)[1][: len(names)])
    first = component.index.to_series().groupby(component).transform("min")  # in the order of the names
    return names.take(first.to_numpy()[codes])


def _note_storage(info: DatasetInfo, index: pd.DataFrame, records: pd.DataFrame, found: Findings) -> None:
    """What is unusual about how the images are stored, and handled by decoding."""
    mode, form, wide, high = (records[name].to_numpy() for name in ("mode", "format", "width", "height"))
    gray = np.isin(mode, GRAY + DEEP)
    kinds = {kind: np.isin(mode, modes) for kind, modes in NOTED_MODES.items()}
    kinds["flawed data"] = records["flawed"].to_numpy(bool)
    if info.xray_contrast:
        kinds["colour image"] = ~gray & ~np.isin(mode, ("", "P", "PA"))
    else:
        kinds["gray image"] = gray
    if info.name in FORMATS:
        kinds["other format"] = (form != "") & (form != FORMATS[info.name])
    if info.name in SIZES:
        width, height = SIZES[info.name]
        kinds["other size"] = (wide > 0) & ((wide != width) | (high != height))
    sizes = np.array([f"{w} x {h}" for w, h in zip(wide, high, strict=True)], object)
    for kind, which in kinds.items():
        detail = {"other format": form, "other size": sizes}.get(kind, mode)
        found.add(kind, image_id=index["image_id"][which], file=index["path"][which], detail=detail[which])
