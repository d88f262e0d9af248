"""What can be wrong with a data set: one table of kinds, and findings as rows of a data frame."""

from textwrap import shorten
from typing import NamedTuple

import pandas as pd

from lib import StudyError

SEVERITIES = ("error", "excluded", "note")


class Kind(NamedTuple):
    """How bad a finding is, what it means, and what is done (or, for errors, is to be done) about it."""

    severity: str
    meaning: str
    then: str = ""


# The rules behind the severities stand in `lib.data.check`.
KINDS: dict[str, Kind] = {
    # The folder and the label file
    "no folder": Kind("error", "the data set is not there"),
    "no label file": Kind("error", "the label file is not there"),
    "unreadable file": Kind("error", "a label file, list or array file cannot be read", "get it again"),
    "undecodable text": Kind("error", "a label file or split list is not text in UTF-8", "get it again"),
    "empty label file": Kind("error", "the label file has no rows", "get it again"),
    "missing column": Kind("error", "a column that is needed is not there", "get the publisher's file"),
    "repeated column": Kind("error", "a column that is needed is there twice", "get the publisher's file"),
    "broken quotes": Kind("error", "a quotation mark is out of place", "get the file again"),
    "ragged row": Kind("error", "a row has too many or too few fields", "get the file again"),
    "no image name": Kind("error", "a row names no image", "correct it or get the file again"),
    "unknown group": Kind("error", "a row names no patient or lesion", "correct it or get the file again"),
    "no lesions": Kind("error", "ISIC's labels without its lesions: the split would leak", "get that file too"),
    "unknown label": Kind("error", "a row has none of the known labels", "correct it or get the file again"),
    "conflicting rows": Kind("error", "rows of one image differ in label or group", "get it again"),
    "contradiction": Kind("error", "a lesion of two labels or an x-ray of another patient", "get it again"),
    "short label file": Kind("error", "the label file lost rows of images that are there", "get it again"),
    # The official split
    "in both lists": Kind("error", "an image is in both official lists", "get the lists again"),
    "in no list": Kind("error", "an image is in neither official list", "get the lists again"),
    "patient in both lists": Kind("error", "a patient is in both official lists", "get the lists again"),
    "no listed image": Kind("error", "the official test list names no image of the set", "get it again"),
    "leaking image": Kind("error", "an image in two official splits", "delete one, or split.official: false"),
    # The images as a whole
    "no image": Kind("error", "no image can be used"),
    "too many excluded": Kind("error", "more than 5 % of the images cannot be used", "get them again"),
    "class without images": Kind("error", "a class has no image that can be used", "get more images"),
    # Single images
    "empty": Kind("excluded", "a file of no bytes", "left out"),
    "unreadable": Kind("excluded", "a file that cannot be read", "left out"),
    "truncated": Kind("excluded", "an image that is cut off", "left out"),
    "damaged": Kind("excluded", "a file that cannot be decoded or is no image", "left out"),
    "pointer": Kind("excluded", "a Git LFS pointer in an image's place", "left out; git lfs pull fetches it"),
    "page": Kind("excluded", "a web page in an image's place", "left out; fetch it again"),
    "tiny": Kind("excluded", "an image with a side under 32 pixels", "left out"),
    "contradictory label": Kind("excluded", "equal images with different labels", "all left out"),
    "leaking copy": Kind("excluded", "equal to an image of a later part of the published split", "left out"),
    # What is handled
    "missing file": Kind("note", "a row without an image, as in a partial download", "not used"),
    "unlabelled file": Kind("note", "an image without a row", "not used"),
    "other file": Kind("note", "a file among the images with another ending", "not read"),
    "second file": Kind("note", "another file of the same image name and size", "not used"),
    "other second file": Kind("note", "another file of the same image name, of another size", "not used"),
    "other label file": Kind("note", "another file that could be the label file", "not used"),
    "not the published file": Kind("note", "its MD5 is not the publisher's", "used as it is"),
    "identical images": Kind("note", "equal images with the same label", "kept in one split"),
    "repeated row": Kind("note", "a row that says what another says", "used once"),
    "listed without a row": Kind("note", "an official list names an image without a row", "not used"),
    "no test list": Kind("note", "an official list, but not that of the test part", "the study splits"),
    "label in another form": Kind("note", "a label in another case, or a grade as a decimal number", "understood"),
    "name in another case": Kind("note", "file and row write an image's name in another case", "matched"),
    "name with other ending": Kind("note", "a name with an ending, or without, unlike published", "matched"),
    "flawed data": Kind("note", "JPEG data with a mistake that decoders work around", "look at it"),
    "alpha channel": Kind("note", "an image with transparency", "its colours are used"),
    "16 bits": Kind("note", "an image of 16 bits", "reduced to 8"),
    "dark 16 bits": Kind("note", "16 bits of which only 12 or fewer are used: almost black", "scale it to its range"),
    "palette": Kind("note", "an image with a palette", "its colours are used"),
    "CMYK": Kind("note", "an image in printing colours", "turned to RGB"),
    "gray image": Kind("note", "a gray image where colour is expected", "used as it is"),
    "colour image": Kind("note", "an image stored in colour where gray is expected", "turned to gray"),
    "other size": Kind("note", "an image that is not of the publisher's size", "used as it is"),
    "other format": Kind("note", "an image that is not in the publisher's format", "decoded all the same"),
}

COLUMNS = ["severity", "kind", "image_id", "file", "row", "detail"]


class Findings:
    """Collects findings. `table()` has one row each, with severity, kind, image_id, file, row (a line of that text
    file, its header being 1; 0 where no row is meant) and detail (what is there, or the kind's meaning)."""

    def __init__(self):
        self._tables = []

    def add(self, kind: str, *, image_id="", file="", row=0, detail="") -> None:
        """One finding or, where a value is a list, array or column, as many as it is long, which may be none."""
        severity, meaning, then = KINDS[kind]
        detail = f"{meaning}: {then}" if isinstance(detail, str) and not detail else detail
        values = {"image_id": image_id, "file": file, "row": row, "detail": detail}
        many = {name: list(value) for name, value in values.items() if not isinstance(value, str | int)}
        length = max(map(len, many.values()), default=1)
        if length:
            self.extend(pd.DataFrame({"severity": severity, "kind": kind} | values | many, index=range(length)))

    def extend(self, table: pd.DataFrame) -> None:
        if len(table):
            self._tables.append(table)

    def table(self) -> pd.DataFrame:
        if not self._tables:
            return pd.DataFrame(columns=COLUMNS).astype({"row": "int64"})
        table = pd.concat(self._tables, ignore_index=True)
        for column in ("image_id", "file", "detail"):  # names of files may have bytes that no output takes
            table[column] = [text.encode("utf-8", "backslashreplace").decode() for text in table[column]]
        return table


def errors(findings: pd.DataFrame) -> pd.DataFrame:
    """The findings that make a set unusable."""
    return findings[findings["severity"] == "error"]


def summarise(findings: pd.DataFrame) -> pd.DataFrame:
    """One row per kind, worst first: severity, kind, n and examples (up to three)."""
    rows = []
    for kind, (severity, *_) in KINDS.items():
        some = findings[findings["kind"] == kind]
        if len(some):
            examples = ", ".join(dict.fromkeys(map(_example, some.head(3).itertuples())))
            rows.append([severity, kind, len(some), examples])
    return pd.DataFrame(rows, columns=["severity", "kind", "n", "examples"])


def _example(finding) -> str:
    name = finding.image_id or shorten(finding.detail, 70)
    return f"{name} (row {finding.row})" if finding.row else name


def counts(findings: pd.DataFrame) -> str:
    """Such as "unknown label, truncated (3)", worst first."""
    rows = summarise(findings).itertuples()
    return ", ".join(f"{row.kind} ({row.n})" if row.n > 1 else row.kind for row in rows)


def raise_first_error(findings: pd.DataFrame, dataset: str) -> None:
    """Raise the first error as a StudyError with file, row and what to do; does nothing if there is none."""
    bad = errors(findings)
    if bad.empty:
        return
    first = bad.iloc[0]
    then = KINDS[first["kind"]].then
    if not then:
        raise StudyError(first["detail"])  # nothing is there, so that there is nothing to list
    row = f", row {first['row']}" if first["row"] else ""
    where = f"{first['file']}{row}" if first["file"] else dataset
    others = f" ({counts(bad)})" if len(bad) > 1 else ""
    raise StudyError(
        f"{where}: {first['detail']}; {then}; ./reproduce data check {dataset} lists every problem{others}."
    )
