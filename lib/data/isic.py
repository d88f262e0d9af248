"""The label files of ISIC 2018, task 3, which name the images of HAM10000 with a column for each class."""

import os

import pandas as pd

from lib.data.findings import Findings

TRUTH = "isic2018_task3_training_groundtruth.csv"
GROUPINGS = "isic2018_task3_training_lesiongroupings.csv"


def is_truth(path: str) -> bool:
    """Whether a file is ISIC's ground truth, by its name."""
    return os.path.basename(path).lower() == TRUTH


def read_truth(path: str, files: list[str], found: Findings) -> pd.DataFrame:
    """Columns image, label (the class's name), group (the lesion) and row, as of HAM10000's own file.

    `files`: the paths among which the lesions are looked for; without them a split by image would leak, which is an
    error finding, and the table is empty. Rows that do not name one class have an empty label.
    """
    nothing = pd.DataFrame({"image": "", "label": "", "group": "", "row": 0}, index=[0]).iloc[:0]
    beside = [file for file in files if os.path.basename(file).lower() == GROUPINGS]
    if not beside:
        found.add(
            "no lesions", file=path,
            detail="ISIC2018_Task3_Training_LesionGroupings.csv is not there, which says what images are of one lesion",
        )  # fmt: skip
        return nothing
    truth, lesions = (_table(file, found) for file in (path, beside[0]))
    for table, file, needed in (
        (truth, path, "image"),
        (lesions, beside[0], "image"),
        (lesions, beside[0], "lesion_id"),
    ):
        if table is None:
            return nothing
        if needed not in table:
            detail = f"there is no column {needed!r}, only {', '.join(table)}"
            found.add("missing column", file=file, row=1, detail=detail)
            return nothing
    classes = [name for name in truth if name != "image"]
    marks = truth[classes].apply(lambda column: pd.to_numeric(column, errors="coerce"))
    one = (marks.isin([0, 1]).all(axis=1)) & (marks.sum(axis=1) == 1)
    lesion = lesions.drop_duplicates("image").set_index("image")["lesion_id"]
    return pd.DataFrame(
        {
            "image": truth["image"],
            "label": marks.idxmax(axis=1).where(one, ""),
            "group": truth["image"].map(lesion).fillna(""),
            "row": range(2, len(truth) + 2),
        }
    )


def _table(file: str, found: Findings) -> pd.DataFrame | None:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        found.add("unreadable file", file=file, detail=f"it cannot be read ({' '.join(str(error).split())})")
        return None
    table.columns = [name.strip().lower() for name in table.columns]
    return table.map(str.strip)
