"""A label file as a table of images, labels and groups, and all that is wrong with it, in one pass."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lib.data import isic
from lib.data.findings import Findings
from lib.data.registry import DatasetInfo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SEPARATORS = ",;\t"

NAMES_WITH_SUFFIX = ("chestxray14",)  # the other publishers write names without .jpg
GROUP_PATTERNS = {"ham10000": r"HAM_\d+", "chestxray14": r"\d+", "eyepacs": r".+"}
PATIENT_IN_NAME = {"chestxray14": r"^(\d+)_\d+$", "eyepacs": r"^(.+)_(?:left|right)$"}


def scan_labels(info: DatasetInfo, path: str, files: list[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images that a label file names, and its findings (as of `lib.data.findings`).

    Takes commas, semicolons or tabs, quotes, any line ends, a byte-order mark, names of columns in any case, rows and
    columns in any order. Images: one row each with image_id (without extension), key (the same in small letters, as
    file systems and unpackers differ about case), row (its line), label (float), class_name, group and, for eyepacs,
    grade (float). The label is NaN where an error finding says why the row cannot be trusted; rows whose fields
    cannot be told apart are left out. `files`: what else lies in the folder, for labels that are spread over files.
    Raises nothing, whatever is in the file.
    """
    found = Findings()
    rows = isic.read_truth(path, files, found) if isic.is_truth(path) else _read(info, path, found)
    written, rows["label"] = rows["label"], _canonical(info, rows["label"])
    labels = pd.DataFrame({"image_id": rows["image"].map(without_suffix)}, dtype=str)
    labels["key"], labels["row"] = labels["image_id"].str.lower(), rows["row"]
    labels = labels.join(_meaning(info, rows["label"]))
    labels["class_name"] = labels["label"].map(dict(enumerate(info.classes)))
    in_name = labels["key"].str.extract(PATIENT_IN_NAME.get(info.name, "()$"), expand=False).fillna("")
    # eyepacs: the part of the name before _left; of one's own set without groups, each image is one
    labels["group"] = rows.get("group", labels["image_id"] if info.own else in_name)

    def report(kind: str, which: pd.Series, detail: str = "", of: pd.Series = rows["image"]) -> None:
        where = {"image_id": labels["image_id"][which], "file": path, "row": labels["row"][which]}
        found.add(kind, **where, detail=[detail.format(value) for value in of[which]])

    suffixed = rows["image"] != labels["image_id"]
    report("label in another form", written != rows["label"], "written {!r}", written)
    report("name with other ending", (suffixed != (info.name in NAMES_WITH_SUFFIX)) & (not info.own), "written {}")
    doubtful = pd.Series(False, index=labels.index)
    no_group = ~labels["group"].str.fullmatch(GROUP_PATTERNS.get(info.name, ".+"))
    for kind, which, *detail in (
        ("no image name", labels["image_id"] == "", "there is no image name"),
        ("unknown group", no_group, f"there is no {info.group}, but {{!r}}", labels["group"]),
        ("unknown label", labels["label"].isna(), f"{info.columns['label']!r} is {{!r}}", rows["label"]),
        ("contradiction", *_contradictions(info, labels, in_name)),
    ):
        report(kind, which, *detail)
        doubtful |= which

    said = labels[[column for column in ("key", "label", "group", "grade") if column in labels]]
    again = said.duplicated()
    report("repeated row", again)
    named = ~again & (said["key"] != "")
    clash = named & said["key"].isin(said["key"][named & said["key"].duplicated()])
    twice = "image {!r} is named twice with different labels or groups"
    report("conflicting rows", clash, twice, labels["image_id"])
    labels["label"] = labels["label"].mask(doubtful | clash)
    return labels.drop_duplicates("key", ignore_index=True), found.table()


def without_suffix(name: str) -> str:
    """An image's name without the ending of an image file, in any case."""
    return name.rpartition(".")[0] if name.lower().endswith(IMAGE_SUFFIXES) else name


def text_of(data: bytes, path: str, found: Findings) -> str:
    """The text of a file in UTF-8. Other bytes are findings, and replaced, so that the rest can be looked at."""
    bad = data.find(b"\0")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad, text = error.start, data.decode("utf-8-sig", errors="replace")
    if bad >= 0:
        row = data[:bad].count(b"\n") + 1
        detail = f"byte {bad} cannot be read as text in UTF-8"
        found.add("undecodable text", file=path, row=row, detail=detail)
    return text


def _canonical(info: DatasetInfo, texts: pd.Series) -> pd.Series:
    """Labels as their publisher writes them, of those in another case, or of grades written as decimal numbers."""
    if info.name == "eyepacs":
        return texts.str.replace(r"^([0-4])\.0*$", r"\1", regex=True)
    known = {name.lower(): name for name in info.classes} if info.name == "ham10000" or info.own else {}
    return texts.map({text: known.get(text.lower(), text) for text in texts.unique()})


def _meaning(info: DatasetInfo, texts: pd.Series) -> pd.DataFrame:
    """What the label column's texts stand for: label and, for eyepacs, grade; NaN if unknown."""
    if info.name == "eyepacs":
        grade = texts.map({str(grade): float(grade) for grade in range(5)}).astype(float)
        return pd.DataFrame({"label": (grade >= 2).astype(float).where(grade.notna()), "grade": grade})
    meaning = {name: float(label) for label, name in enumerate(info.classes)}
    if info.name == "chestxray14":
        meaning = {text: _pneumothorax(info, text.split("|")) for text in texts.unique()}
    return pd.DataFrame({"label": texts.map(meaning).astype(float)})


def _pneumothorax(info: DatasetInfo, findings: list[str]) -> float | None:
    known = set(findings) <= set(info.findings) and ("No Finding" not in findings or len(findings) == 1)
    return float("Pneumothorax" in findings) if known else None


def _contradictions(info: DatasetInfo, labels: pd.DataFrame, in_name: pd.Series) -> tuple:
    """Where one column denies another, as in a row whose fields are mixed up."""
    if info.group == "lesion":
        labels_of = labels.groupby("group")["label"].nunique()
        return labels["group"].map(labels_of) > 1, "lesion {!r} has two diagnoses", labels["group"]
    other = (in_name != "") & (in_name.str.lstrip("0") != labels["group"].str.lstrip("0"))
    return other, "the name of the image says another patient than {!r}", labels["group"]


def _read(info: DatasetInfo, path: str, found: Findings) -> pd.DataFrame:
    """The needed columns as stripped texts, named by what they are for (image, label, group), and row, the line."""
    nothing = pd.DataFrame(dict.fromkeys(info.columns, "") | {"row": 0}, index=[0]).iloc[:0]
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        found.add("unreadable file", file=path, detail=f"it cannot be read ({error.strerror})")
        return nothing
    name = os.path.basename(path).lower()
    published = next((file["md5"] for file in info.files if file["name"].lower() == name), None)
    if published and hashlib.md5(data).hexdigest() != published:
        found.add("not the published file", file=path, detail=f"its MD5 is not {published}")
    text = text_of(data, path, found)
    if not text.strip():
        found.add("empty label file", file=path, detail="it has no rows")
        return nothing
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, info.columns.values()))
    try:
        header = [field.strip() for field in next(filter(any, reader), [])]
        while header and not header[-1]:
            header.pop()
        places = _places(info, header, path, found)
        columns = _columns(reader, places, len(header), path, found)
    except csv.Error as error:  # a field longer than any can be
        found.add("broken quotes", file=path, row=reader.line_num, detail=f"it cannot be read ({error})")
        return nothing
    return pd.DataFrame(columns).astype(nothing.dtypes) if len(places) == len(info.columns) else nothing


def _separator(text: str, needed: Iterable[str]) -> str:
    """The one that splits the first line with text into the most of the needed names, and into the most at all."""
    header = next(line for line in io.StringIO(text, newline="") if line.strip())

    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip(' "\r\n').lower() for name in header.split(separator)]
        return sum(name.lower() in names for name in needed), len(names)

    return max(SEPARATORS, key=fit)


def _places(info: DatasetInfo, header: list[str], path: str, found: Findings) -> dict[str, int]:
    """The place of the column for image, label and group, where it is there once."""
    lower = [name.lower() for name in header]
    times = {name: lower.count(name.lower()) for name in info.columns.values()}
    missing = ", ".join(repr(name) for name in times if not times[name])
    if missing:
        detail = f"there is no column {missing}, only {', '.join(map(repr, header))}"
        found.add("missing column", file=path, row=1, detail=detail)
    twice = [f"{name!r} is there twice" for name in times if times[name] > 1]
    found.add("repeated column", file=path, row=1, detail=twice)
    return {role: lower.index(name.lower()) for role, name in info.columns.items() if times[name] == 1}


def _columns(reader, places: dict[str, int], n: int, path: str, found: Findings) -> dict[str, list]:
    """The fields at these places, stripped, of all rows that have n fields, and `row`, their lines."""
    columns = {role: [] for role in places} | {"row": []}
    quoted, ragged, detail = [], [], []
    for fields in reader:
        text, row = "".join(fields), reader.line_num
        if not text or text.isspace():
            continue
        if '"' in text or "\n" in text or "\r" in text:
            quoted.append(row)  # a mark out of place may have swallowed the rows up to the next
        elif len(fields) < n or "".join(fields[n:]).strip():
            ragged.append(row)
            detail.append(f"there are {len(fields)} fields, not {n}")
        else:
            columns["row"].append(row)
            for role, place in places.items():
                columns[role].append(fields[place].strip())
    found.add("broken quotes", file=path, row=quoted, detail="a quotation mark is out of place")
    found.add("ragged row", file=path, row=ragged, detail=detail)
    if not (columns["row"] or quoted or ragged):
        found.add("empty label file", file=path, detail="it has no rows")
    return columns
