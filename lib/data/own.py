"""Data sets of one's own: a folder for each class, or a reader of a few lines."""

import importlib.util
from pathlib import Path

import pandas as pd

from lib import StudyError
from lib.data.findings import Findings
from lib.data.registry import DatasetInfo

NEEDED = ("path", "label")


def from_class_folders(info: DatasetInfo, folder: Path, images: list[str], found: Findings) -> pd.DataFrame:
    """Image_id, path, label (the class's name) and group of images that lie in folders named as their classes.

    Each image is a group of its own, as folders do not say whose they are. Images elsewhere are findings.
    """
    classes = {name.lower(): name for name in info.classes}
    rows = []
    for path in images:
        parts = Path(path).relative_to(folder).with_suffix("").parts
        named = [classes[part.lower()] for part in parts[:-1] if part.lower() in classes]
        if named:
            rows.append(("-".join(parts), path, named[-1]))
        else:
            found.add("unlabelled file", image_id=parts[-1], file=path)
    table = pd.DataFrame(rows, columns=["image_id", "path", "label"])
    return table.assign(group=table["image_id"])


def from_reader(info: DatasetInfo, folder: Path) -> pd.DataFrame:
    """The same from `read(folder)` of the Python file that the data set names as its reader.

    It gives a data frame with columns path and label (the class's name), and may give image_id and group (patient,
    lesion). Raises StudyError for a reader that is not there, fails, or gives something else.
    """
    path = Path(info.reader)
    if not path.is_file():
        raise StudyError(f"{info.name}: there is no reader {path}.")
    spec = importlib.util.spec_from_file_location(f"reader_of_{info.name}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        table = module.read(folder).reset_index(drop=True)
        missing = [name for name in NEEDED if name not in table]
    except Exception as error:  # it is the user's own code
        raise StudyError(f"{info.name}: {path.name} failed ({type(error).__name__}: {error}).") from error
    if missing:
        raise StudyError(f"{info.name}: read() of {path.name} gives no column {missing[0]!r}, only {', '.join(table)}.")
    table = table.assign(path=table["path"].astype(str), label=table["label"].astype(str))
    if "image_id" not in table:
        table["image_id"] = [Path(path).stem for path in table["path"]]
    return table.assign(group=table["group"].astype(str) if "group" in table else table["image_id"])
