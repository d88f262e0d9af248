"""From the folder of a data set, in the layout its publishers use, to one tidy index of labelled images."""

import os
from pathlib import Path

import pandas as pd

from lib.data import own
from lib.data.findings import Findings, raise_first_error
from lib.data.labels import IMAGE_SUFFIXES, scan_labels, text_of, without_suffix
from lib.data.medmnist import read_medmnist
from lib.data.registry import DatasetInfo, dataset_info

OFFICIAL_TRAIN_LIST = "train_val_list.txt"  # of NIH; what is not test is train, so that it is only compared


def read_index(dataset: str, root: str | Path) -> pd.DataFrame:
    """One row per labelled image found under `<root>/<dataset>/`, sorted by image_id.

    Columns: image_id (file name without extension), path, label (int64, order of `DATASETS[...].classes`),
    class_name, group (patient or lesion), for eyepacs also grade (0 to 4), and official_split ("train" or
    "test") where the official NIH test list is there. MedMNIST+ sets: see `lib.data.medmnist.read_medmnist`.

    Images may lie in any folders below (Kaggle's copies nest them), with an extension of IMAGE_SUFFIXES in any
    case; hidden files, `__MACOSX` and folders of masks are passed over. A partial download is no error:
    `index.attrs["report"]` counts labelled rows, found images, missing_files (row without a file),
    unlabelled_files (file without a row), duplicate_files (a second file of the same name, not used) and
    duplicate_rows (repeated in the label file, used once). `index.attrs["dataset"]` is the name of the set.

    Raises StudyError if the folder, the label file or every image is missing, or for the first thing in the label
    file or the official lists that is an error by the rules of `lib.data.check`. Opens no image.
    """
    info = dataset_info(dataset)
    if info.stands_for:
        index = read_medmnist(info, Path(root) / dataset)
        index.attrs["dataset"] = dataset
        return index
    index, findings = survey(info, Path(root) / dataset)
    raise_first_error(findings, dataset)
    return index


def survey(info: DatasetInfo, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `read_index` gives, without the rows that have errors, and all findings (`lib.data.findings`).

    Opens no image. Raises nothing: the index may be empty.
    """
    found = Findings()
    nothing = pd.DataFrame(columns=["image_id", "path", "label", "class_name", "group"])
    nothing.attrs = {"dataset": info.name, "report": {}}
    if not folder.is_dir():
        found.add("no folder", detail=f"There is no folder {folder}. {how_to_get(info)}")
        return nothing, found.table()
    files = list_files(folder)
    if info.own and not info.label_files:
        return _own(info, folder, files, found)
    texts = [path for path in files if not path.lower().endswith(IMAGE_SUFFIXES)]
    label_files = [path for name in info.label_files for path in find(texts, name)]
    if not label_files:
        names = " or ".join(info.label_files)
        detail = f"There is no label file {names} under {folder}. {how_to_get(info)}"
        found.add("no label file", detail=detail)
        return nothing, found.table()
    found.add("other label file", file=label_files[1:], detail=f"{label_files[0]} is used")
    labels, findings = scan_labels(info, label_files[0], texts)
    found.extend(findings)
    if labels.empty:  # an error finding says why
        return nothing, found.table()

    images, duplicate_files = _images_by_name(files, found)
    labels = labels.join(images.set_index("key"), on="key")
    missing, where = labels["path"].isna(), {"file": label_files[0]}
    found.add("missing file", image_id=labels["image_id"][missing], row=labels["row"][missing], **where)
    cased = ~missing & (labels["name"] != labels["image_id"])
    found.add("name in another case", image_id=labels["image_id"][cased], file=labels["path"][cased])
    unlabelled = images[~images["key"].isin(labels["key"])]
    found.add("unlabelled file", image_id=unlabelled["name"], file=unlabelled["path"])
    labels = _with_official_split(info, labels, texts, found)
    index = labels[~missing & labels["label"].notna()].sort_values("image_id", ignore_index=True)
    if index.empty:
        none = f"None of the {len(labels)} images of the label file is under {folder}. {how_to_get(info)}"
        found.add("no image", detail=none)
    first = ["image_id", "path", "label", "class_name", "group"]
    index = index[[*first, *(column for column in ("grade", "official_split") if column in index)]]
    index = index.astype({column: "int64" for column in ("label", "grade") if column in index})
    findings = found.table()
    index.attrs["dataset"] = info.name
    index.attrs["report"] = {
        "labelled": len(labels),
        "found": len(index),
        "missing_files": int(missing.sum()),
        "unlabelled_files": len(unlabelled),
        "duplicate_files": duplicate_files,
        "duplicate_rows": int((findings["kind"] == "repeated row").sum()),
    }
    return index, findings


def _own(info: DatasetInfo, folder: Path, files: list[str], found: Findings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`survey` of a set of one's own without a label file."""
    images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
    if info.reader:
        index = own.from_reader(info, folder)
        gone = ~index["path"].map(os.path.isfile).astype(bool)
        found.add("missing file", image_id=index["image_id"][gone], file=index["path"][gone])
        index = index[~gone]
    else:
        index, gone = own.from_class_folders(info, folder, images, found), pd.Series(dtype=bool)
        others = sorted(set(files) - set(images))
        found.add("other file", image_id=[_name(path) for path in others], file=others)
    unknown = ~index["label"].isin(info.classes)
    where = {"image_id": index["image_id"][unknown], "file": index["path"][unknown]}
    found.add("unknown label", **where, detail=[f"its label is {label!r}" for label in index["label"][unknown]])
    again = index["image_id"].duplicated()
    found.add("second file", image_id=index["image_id"][again], file=index["path"][again])
    index = index[~unknown & ~again].sort_values("image_id", ignore_index=True)
    if index.empty:
        found.add(
            "no image", detail=f"There is no image of {', '.join(info.classes)} under {folder}. {how_to_get(info)}"
        )
    index["class_name"], index["label"] = index["label"], index["label"].map(info.classes.index).astype("int64")
    index = index[["image_id", "path", "label", "class_name", "group"]]
    report = {"labelled": len(index) + int(gone.sum()), "found": len(index), "missing_files": int(gone.sum())}
    index.attrs = {"dataset": info.name, "report": report}
    return index, found.table()


def how_to_get(info: DatasetInfo) -> str:
    """Where to get the data and how the folder must look, for error messages."""
    if info.own and not info.layout:
        names = ", ".join(info.classes)
        return f"Put it there: {info.label_files[0] if info.label_files else f'a folder for each class ({names})'}."
    tree = "\n".join(f"  {line}" for line in info.layout.splitlines())
    return f"Get {info.title} from {info.homepage} (see data/README.md) so that the folder has:\n{tree}"


def list_files(folder: Path) -> list[str]:
    """Paths of all files under the folder, sorted; follows links to folders, once each."""
    found, seen = [], set()
    for where, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(where))
        folders[:] = sorted(
            name
            for name in folders
            if not _passed_over(name) and os.path.realpath(os.path.join(where, name)) not in seen
        )
        found += [f"{where}{os.sep}{name}" for name in names if not name.startswith(".")]
    return sorted(found)


def _passed_over(folder_name: str) -> bool:
    name = folder_name.lower()
    return name.startswith(".") or name == "__macosx" or "mask" in name or "segmentation" in name


def find(files: list[str], name: str) -> list[str]:
    """The files of that name, in any case; the one nearest to the top first."""
    matches = [path for path in files if _name(path).lower() == name.lower()]
    return sorted(matches, key=lambda path: (path.count(os.sep), path))


def _name(path: str) -> str:
    return path.rpartition(os.sep)[2]


def _images_by_name(files: list[str], found: Findings) -> tuple[pd.DataFrame, int]:
    """The image files as path, name (without extension) and key (in small letters), one per key; number of others."""
    paths = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
    names = [without_suffix(_name(path)) for path in paths]
    images = pd.DataFrame({"path": paths, "name": names}, dtype=str)
    images["key"] = images["name"].str.lower()
    second = images["key"].duplicated()
    used = images[~second]
    others = images[second].join(used.set_index("key")["path"].rename("first"), on="key")
    sizes = others[["path", "first"]].map(_size)
    same = sizes["path"] == sizes["first"]
    for kind, which in (("second file", same), ("other second file", ~same)):
        detail = others["first"][which] + " is used"
        found.add(kind, image_id=others["name"][which], file=others["path"][which], detail=detail)
    return used, len(others)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nowhere
        return -1


def _with_official_split(info: DatasetInfo, labels: pd.DataFrame, files: list[str], found: Findings) -> pd.DataFrame:
    """The labels with a column `official_split`, if the official test list is there; what it does not name is train."""
    if not info.official_test_list:
        return labels
    test_lists, train_lists = find(files, info.official_test_list), find(files, OFFICIAL_TRAIN_LIST)
    if not test_lists:
        found.add("no test list", file=train_lists[:1])
        return labels
    paths = test_lists[:1] + train_lists[:1]
    lists = [_listed(path, found) for path in paths]
    for path, listed in zip(paths, lists, strict=True):
        found.add("listed without a row", image_id=listed[~listed.isin(labels["key"])], file=path)
    test = labels["key"].isin(lists[0])
    if not test.any():
        found.add("no listed image", file=paths[0], detail="it names no image of the label file")
    train = labels["key"].isin(lists[1]) if len(lists) > 1 else ~test
    found.add("in both lists", image_id=labels["image_id"][test & train], file=paths[-1])
    found.add("in no list", image_id=labels["image_id"][~test & ~train], file=paths[-1])
    patients = set(labels["group"][test]) & set(labels["group"][~test])
    detail = [f"{info.group} {patient!r} is on both sides" for patient in sorted(patients)]
    found.add("patient in both lists", file=paths[0], detail=detail)
    return labels.assign(official_split=test.map({True: "test", False: "train"}))


def _listed(path: str, found: Findings) -> pd.Series:
    try:
        text = text_of(Path(path).read_bytes(), path, found)
    except OSError as error:
        found.add("unreadable file", file=path, detail=f"it cannot be read ({error.strerror})")
        text = ""
    return pd.Series([without_suffix(name).lower() for name in text.split()], dtype=str).drop_duplicates()
