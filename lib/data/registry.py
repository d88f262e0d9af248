"""The facts of `registry.yaml` as typed records."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from lib import StudyError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of one data set; `classes` is in label order, `class_titles` has the long names, `short`
    is the title that fits a figure. `direction`: the pair of classes, disease first, between which targeted attacks
    push; the two classes where there are no more. `stands_for`: the original set that a MedMNIST+ set replaces, empty
    for originals. What the other fields mean stands at the head of `registry.yaml`."""

    name: str
    short: str
    title: str
    modality: str
    classes: tuple[str, ...]
    class_titles: tuple[str, ...]
    xray_contrast: bool
    images: int
    group: str
    licence: str
    citation: str
    homepage: str
    label_files: tuple[str, ...]
    columns: dict[str, str]
    layout: str
    direction: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    official_test_list: str = ""
    files: tuple[dict, ...] = ()
    archives: tuple[str, ...] = ()
    megabytes: int = 0
    by_hand: str = ""
    stands_for: str = ""
    split_note: str = ""
    leaks: bool = False
    label_column: int | None = None

    def named(self, *, phantom: bool) -> str:
        """The name for figures and sentences; phantoms are never called by the original's name alone."""
        return f"{self.short} phantoms" if phantom else self.short


def _load(path: Path) -> dict[str, DatasetInfo]:
    infos = {}
    for name, facts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        classes = facts.pop("classes")
        facts = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
        infos[name] = DatasetInfo(name=name, classes=tuple(classes), class_titles=tuple(classes.values()), **facts)
    return infos


DATASETS: dict[str, DatasetInfo] = _load(Path(__file__).with_name("registry.yaml"))


def dataset_info(name: str) -> DatasetInfo:
    """The record of a data set; StudyError with the known names if there is none."""
    if name not in DATASETS:
        raise StudyError(f"There is no data set {name!r}: choose one of {', '.join(DATASETS)}.")
    return DATASETS[name]
