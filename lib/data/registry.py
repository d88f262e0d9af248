"""The facts of `registry.yaml` as typed records."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lib import REGISTRIES, StudyError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of one data set; `classes` is in label order, `class_titles` has the long names, `short` is the
    title that fits a figure. `direction`: the pair of classes, disease first, between which targeted attacks push; the
    two classes where there are no more. `stands_for`: the original set that a MedMNIST+ set replaces, empty for
    originals. `reader`: of a set of one's own (`own`), the Python file that reads it. What the other fields mean stands
    at the head of `registry.yaml`."""

    name: str
    title: str
    classes: tuple[str, ...]
    class_titles: tuple[str, ...]
    short: str = ""
    modality: str = ""
    xray_contrast: bool = False
    images: int = 0
    group: str = "group"
    licence: str = "your own"
    citation: str = ""
    homepage: str = "where you have it"
    label_files: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    layout: str = ""
    direction: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    official_test_list: str = ""
    files: tuple[dict, ...] = ()
    megabytes: int = 0
    by_hand: str = ""
    stands_for: str = ""
    split_note: str = ""
    leaks: bool = False
    label_column: int | None = None
    reader: str = ""
    own: bool = False

    def named(self, *, phantom: bool) -> str:
        """The name for figures and sentences; phantoms are never called by the original's name alone."""
        return f"{self.short} phantoms" if phantom else self.short

    def merged(self, classes: dict[str, list[str]]) -> "DatasetInfo":
        """The same data set with other classes, each of which takes some of its own together; {} for its own."""
        if not classes:
            return self
        titles = tuple(", ".join(olds) for olds in classes.values())
        return dataclasses.replace(self, classes=tuple(classes), class_titles=titles, direction=())


def _load(path: Path) -> dict[str, DatasetInfo]:
    """The sets of a file. Raises StudyError, in one sentence, for an entry that says too little or too much."""
    if not path.is_file():
        return {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
    return {str(name): _entry(path, str(name), facts) for name, facts in dict(entries).items()}


def _entry(path: Path, name: str, facts: dict) -> DatasetInfo:
    def refuse(what):
        raise StudyError(f"{path.name}, {name}: {what}.")

    known = [item.name for item in dataclasses.fields(DatasetInfo) if item.name not in ("name", "class_titles", "own")]
    if not re.fullmatch("[a-z0-9]+", name):
        refuse("the name of a data set has small letters and digits only")
    if not isinstance(facts, dict) or not isinstance(facts.get("classes"), dict) or len(facts["classes"]) < 2:
        refuse("classes must list two or more, each with its meaning, such as `benign: benign lesion`")
    if unknown := [key for key in facts if key not in known]:
        refuse(f"{unknown[0]} is not a known key; the keys are {', '.join(known)}")
    if "title" not in facts:
        refuse("title is missing")
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    classes = {str(name): str(title) for name, title in facts.pop("classes").items()}
    own = path != REGISTRIES[0]
    if own and facts.get("label_files") and not {"image", "label"} <= set(facts.get("columns", {})):
        refuse(
            "columns must say which column has the image and which the label, such as {image: file, label: diagnosis}"
        )
    if facts.get("reader"):
        facts["reader"] = str(path.parent / facts["reader"])
    facts = {"short": facts["title"], "own": own} | facts
    return DatasetInfo(name=name, classes=tuple(classes), class_titles=tuple(classes.values()), **facts)


DATASETS: dict[str, DatasetInfo] = {name: info for path in REGISTRIES for name, info in _load(path).items()}


def dataset_info(name: str) -> DatasetInfo:
    """The record of a data set; StudyError with the known names if there is none."""
    if name not in DATASETS:
        raise StudyError(f"There is no data set {name!r}: choose one of {', '.join(DATASETS)}.")
    return DATASETS[name]
