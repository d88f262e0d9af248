"""./reproduce data: what is there of each data set and what is missing, getting it, and looking through it.

./reproduce data                          what is there, what is missing, how large it is, under which licence
./reproduce data NAME [NAME ...]          fetch what may be fetched, and say what to do for the rest; called again
                                          after an interruption, it goes on where it was
./reproduce data check NAME [NAME ...]    look for what is wrong with the files and images that are there
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
from tabulate import SEPARATING_LINE, tabulate

from lib import ROOT, StudyError, artifacts
from lib.data import DATASETS, DatasetInfo, dataset_info
from lib.data.download import is_verified, part_of, read_state
from lib.data.fetch import content_name, count_images, fetch_dataset, is_unpacked, label_file
from lib.data.medmnist import DAMAGED

WIDTHS = [18, 28, 29, 29]  # of the table's columns, 110 characters with what is between them


def images_there(info: DatasetInfo, folder: Path) -> int:
    """How many images of the set are in its folder; of a MedMNIST+ file, how many it has labels for."""
    path = label_file(info, folder)
    if not info.stands_for or not path:
        return count_images(folder)
    try:
        with np.load(path) as arrays:
            return sum(len(arrays[name]) for name in arrays.files if name.endswith("_labels"))
    except DAMAGED:
        return 0


def what_is_needed(info: DatasetInfo) -> list[str]:
    """The files that make up the set, one a line."""
    if info.own:
        return [f"{name} (your own)" for name in info.label_files] or ["your own images"]
    if not info.files:
        return [f"{name} (by hand)" for name in (*info.label_files, "images")]
    return _few(_required(info)) + ([f"{info.label_files[0]} (by hand)"] if _labels_by_hand(info) else [])


def what_is_there(info: DatasetInfo, folder: Path) -> list[str]:
    """What the folder has of the set, one thing a line; empty if nothing."""
    images, labels, state = images_there(info, folder), label_file(info, folder), read_state(folder)
    there = [f"{images:,} of {info.images:,} images"] if images else []
    plain = [file["name"] for file in info.files if not _is_archive(file["name"])]
    there += [f"{n}{'' if is_verified(folder / n) else ' (not verified)'}" for n in plain if (folder / n).exists()]
    if labels and os.path.basename(labels) not in plain:
        there.append(os.path.basename(labels))
    unpacked = [name for name in state if is_unpacked(name, folder)]
    there += [f"{name} (unpacked)" for name in _few([content_name(name) for name in unpacked])]
    packed = {path.name for path in folder.glob("*") if _is_archive(path.name)}.difference(unpacked)
    return there + [f"{name} (not unpacked)" for name in _few(sorted(packed))]


def what_is_missing(info: DatasetInfo, folder: Path) -> list[str]:
    """What the study needs of the set and the folder does not have, one thing a line; empty if it is complete."""
    images, state = images_there(info, folder), read_state(folder)
    if info.own:
        return [] if images else ["your own images"]
    missing = [info.label_files[0]] if _labels_by_hand(info) and not label_file(info, folder) else []
    archives = []
    for name in _required(info):
        if not _is_archive(name) and not (folder / name).exists():
            missing.append(name + _fetched_so_far(folder / name))
        elif _is_archive(name) and images < info.images and not is_unpacked(name, folder):
            archives.append(name + _fetched_so_far(folder / name))
        elif _is_archive(name) and count_images(folder / content_name(name)) < state.get(name, {}).get("images", 0):
            missing.append(f"images of {content_name(name)} (to fetch them, remove it)")
    missing += _few(archives)
    return missing + ([f"{info.images - images:,} of {info.images:,} images"] if images < info.images else [])


def _required(info: DatasetInfo) -> list[str]:
    return [file["name"] for file in info.files if not file.get("optional")]


def _labels_by_hand(info: DatasetInfo) -> bool:
    return not set(_required(info)) & set(info.label_files)


def _is_archive(name: str) -> bool:
    return bool(re.search(r"\.(zip(\.\d+)?|tar\.gz)$", name))


def _fetched_so_far(path: Path) -> str:
    share = part_of(path)
    return "" if share is None else f" ({share:.0%} is there)"


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]


def status_table(root: Path) -> str:
    """What each data set of the registry needs, has and lacks under this folder, as a table for a terminal."""
    rows = []
    for info in DATASETS.values():
        folder = root / info.name
        megabytes = info.megabytes or sum(file["megabytes"] for file in info.files if not file.get("optional"))
        about = [info.name, f"{megabytes / 1000:,.1f} GB{'' if info.files else ' (by hand)'}", info.licence]
        there, missing = what_is_there(info, folder), what_is_missing(info, folder)
        cells = [about, what_is_needed(info), there or ["nothing"], missing or ["nothing"]]
        rows += [["\n".join(cell) for cell in cells], SEPARATING_LINE]
    headers = ["data set", "needs", "there", "missing"]
    return tabulate(rows[:-1], headers, tablefmt="simple", disable_numparse=True, maxcolwidths=WIDTHS)


def fetch(info: DatasetInfo, root: Path, optional: bool) -> bool:
    """Get a data set, say what a person has to do and what is still missing, and return whether it is complete."""
    folder, errors = root / info.name, []
    instructions = info.by_hand.replace("{folder}", shlex.quote(str(folder)))
    if info.files and instructions and not label_file(info, folder):
        print(instructions)  # before the archives, which take hours

    def complain(sentence: str) -> None:
        errors.append(sentence)
        _complain(sentence)

    fetch_dataset(info, root, complain, optional)
    missing = what_is_missing(info, folder)
    if missing and not info.files:
        print(instructions)
    if missing:
        _complain(f"{info.name} is not complete in {folder}, missing: {', '.join(missing)}.")
    elif not errors:
        print(f"{info.name} is complete: {images_there(info, folder):,} images in {folder}.")
    return not missing and not errors


def check(info: DatasetInfo, root: Path) -> bool:
    """Look through a data set, print and write what was found, and return whether it can be used."""
    from lib.data.check import check_dataset  # it decodes images, for which nothing else here has a use

    result = check_dataset(info.name, root)
    path = ROOT / "data" / "runs" / f"check_{info.name}.csv"
    with artifacts.replacing(path) as temporary:
        result.findings.to_csv(temporary, index=False)
    print(f"{result.summary.to_string(index=False)}\nAll findings: {path}\n{result.sentence}")
    return result.usable


def _complain(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 if something is not as it should be, 130 if stopped."""
    parser = argparse.ArgumentParser(
        prog="reproduce data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("--optional", action="store_true", help="fetch the optional files too (MedMNIST+ at 64 x 64)")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "raw", help="folder of the data (data/raw)")
    options = parser.parse_args(arguments)
    root, names = options.data.resolve(), list(dict.fromkeys(options.names))
    checking = names[:1] == ["check"]
    try:
        infos = [dataset_info(name) for name in names[checking:]]
        if checking and not infos:
            raise StudyError(f"Which data set is to be checked: {', '.join(DATASETS)}?")
    except StudyError as error:
        _complain(str(error))
        return 2
    if not infos:
        print(status_table(root))
        print(f"\nAll under {root}. ./reproduce data NAME fetches, ./reproduce data check NAME looks through.")
        return 0
    good = []
    for info in infos:
        try:
            good.append(check(info, root) if checking else fetch(info, root, options.optional))
        except StudyError as error:
            _complain(str(error))
            good.append(False)
        except KeyboardInterrupt:
            _complain("Stopped; call again to go on.")
            return 130
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
