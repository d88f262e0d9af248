"""From the folder of a data set, in the layout its publishers use, to one tidy index of labelled images."""

import os
from pathlib import Path

import pandas as pd

from lib import StudyError
from lib.datasets.registry import DatasetInfo, dataset_info

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_index(dataset: str, root: str | Path) -> pd.DataFrame:
    """One row per labelled image found under `<root>/<dataset>/`, sorted by image_id.

    Columns: image_id (file name without extension), path, label (int64, order of `DATASETS[...].classes`),
    class_name, group (patient or lesion), for eyepacs also grade (0 to 4), and official_split ("train" or
    "test") where the official NIH test list is there.

    Images may lie in any folders below (Kaggle's copies nest them), with extension .jpg, .jpeg or .png in any
    case; hidden files, `__MACOSX` and folders of masks are passed over. A partial download is no error:
    `index.attrs["report"]` counts labelled rows, found images, missing_files (row without a file),
    unlabelled_files (file without a row), duplicate_files (a second file of the same name, not used) and
    duplicate_rows (repeated in the label file, used once).

    Raises StudyError if the folder, the label file or every image is missing, or a row cannot be understood.
    """
    info = dataset_info(dataset)
    folder = Path(root) / dataset
    if not folder.is_dir():
        raise StudyError(f"There is no folder {folder}. {how_to_get(info)}")
    files = list_files(folder)
    labels = read_labels(info, find_label_file(info, folder, files))
    duplicate_rows = int(labels.duplicated().sum())
    labels = _unique_ids(labels.drop_duplicates(), info)
    images, duplicate_files = _images_by_id(files)

    labels["path"] = _key(labels["image_id"]).map(images)
    index = labels.dropna(subset="path").sort_values("image_id", ignore_index=True)
    if index.empty:
        raise StudyError(
            f"None of the {len(labels)} images of the label file is under {folder}. {how_to_get(info)}"
        )
    index = _add_official_split(index, info, files)
    first = ["image_id", "path", "label", "class_name", "group"]
    index = index[first + [column for column in index if column not in first]]
    index.attrs["report"] = {
        "labelled": len(labels),
        "found": len(index),
        "missing_files": len(labels) - len(index),
        "unlabelled_files": len(images.keys() - set(_key(labels["image_id"]))),
        "duplicate_files": duplicate_files,
        "duplicate_rows": duplicate_rows,
    }
    return index


def how_to_get(info: DatasetInfo) -> str:
    """Where to get the data and how the folder must look, for error messages."""
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
        found += [os.path.join(where, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _passed_over(folder_name: str) -> bool:
    name = folder_name.lower()
    return name.startswith(".") or name == "__macosx" or "mask" in name or "segmentation" in name


def _find(files: list[str], name: str) -> str | None:
    """The file of that name, any case; the one nearest to the top if there are several."""
    matches = [path for path in files if os.path.basename(path).lower() == name.lower()]
    return min(matches, key=lambda path: (path.count(os.sep), path), default=None)


def find_label_file(info: DatasetInfo, folder: Path, files: list[str]) -> str:
    """Path of the label file under any of its names; StudyError if there is none."""
    for name in info.label_files:
        if path := _find(files, name):
            return path
    names = " or ".join(info.label_files)
    raise StudyError(f"There is no label file {names} under {folder}. {how_to_get(info)}")


def read_table(path: str, columns: list[str]) -> pd.DataFrame:
    """The named columns of a text table, as stripped strings.

    Takes commas, semicolons or tabs, with or without byte-order mark. StudyError if the file cannot be read
    or a column is missing.
    """
    try:
        # Fields are not converted: pandas would read the id "001" as 1 and the text "NA" as missing.
        options = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding": "utf-8-sig"}
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        table = pd.read_csv(path, sep=max(",;\t", key=header.count), **options)
    except (OSError, ValueError) as error:  # ValueError: also pandas' ParserError and bad UTF-8
        raise StudyError(f"The label file {path} cannot be read ({error}): get it again.") from error
    table.columns = table.columns.str.strip()
    missing = [column for column in columns if column not in table]
    if missing:
        raise StudyError(
            f"The label file {path} has no column {', '.join(map(repr, missing))}, only "
            f"{', '.join(map(repr, table.columns))}: get the original file."
        )
    return table[columns].apply(lambda column: column.str.strip())


def read_labels(info: DatasetInfo, path: str) -> pd.DataFrame:
    """The label file as image_id, label, class_name, group and, for eyepacs, grade; one row per row.

    Raises StudyError naming the first row whose id, group or label cannot be understood.
    """
    rows = read_table(path, list(info.columns.values()))
    rows = rows.rename(columns={column: role for role, column in info.columns.items()})
    labels = pd.DataFrame({"image_id": rows["image"].map(_without_suffix)})
    if info.name == "ham10000":
        label, group = rows["label"].map({name: i for i, name in enumerate(info.classes)}), rows["group"]
    elif info.name == "chestxray14":
        known = rows["label"].map(lambda text: set(text.split("|")) <= set(info.findings))
        positive = rows["label"].map(lambda text: "Pneumothorax" in text.split("|"))
        label, group = positive.astype(float).where(known), rows["group"]
    else:
        labels["grade"] = rows["label"].map({str(grade): grade for grade in range(5)})
        label = (labels["grade"] >= 2).astype(float).where(labels["grade"].notna())
        group = rows["image"].map(_without_suffix).str.extract(r"^(.+)_(?:left|right)$", expand=False)
    for what, bad in (
        ("no image name", labels["image_id"] == ""),
        (f"no {info.group}", group.isna() | (group == "")),
        (f"an unknown {info.columns['label']!r}", label.isna()),
    ):
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise StudyError(
                f"{path}: row {row + 2} has {what}: {rows.iloc[row].to_dict()}; "
                "correct it or get the file again."
            )
    labels["label"] = label.astype("int64")
    labels["class_name"] = labels["label"].map(dict(enumerate(info.classes)))
    labels["group"] = group
    return labels.astype({"grade": "int64"}) if "grade" in labels else labels


def _unique_ids(labels: pd.DataFrame, info: DatasetInfo) -> pd.DataFrame:
    clash = _key(labels["image_id"]).duplicated()
    if clash.any():
        name = labels.loc[clash, "image_id"].iloc[0]
        raise StudyError(
            f"The label file of {info.name} names image {name!r} twice with different labels or groups: "
            "get the original file."
        )
    return labels


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _key(image_ids: pd.Series) -> pd.Series:
    """What files and rows are matched by: file systems and unpackers differ about case."""
    return image_ids.str.lower()


def _images_by_id(files: list[str]) -> tuple[dict[str, str], int]:
    images, duplicates = {}, 0
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))
        if suffix.lower() in IMAGE_SUFFIXES:
            duplicates += stem.lower() in images
            images.setdefault(stem.lower(), path)
    return images, duplicates


def _add_official_split(index: pd.DataFrame, info: DatasetInfo, files: list[str]) -> pd.DataFrame:
    """Add `official_split` if the official test list is there; what it does not name is train."""
    path = info.official_test_list and _find(files, info.official_test_list)
    if not path:
        return index
    names = Path(path).read_text(encoding="utf-8-sig").split()
    test = {_without_suffix(name).lower() for name in names}
    is_test = _key(index["image_id"]).isin(test)
    return index.assign(official_split=is_test.map({True: "test", False: "train"}))
