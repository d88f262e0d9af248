"""Phantom data sets: cartoons of the three originals, drawn from a seed and laid out as the originals are.

They let the whole study run without any patient's data. Each image comes with a mask of what makes its label.
Results on phantoms say that the code works; they say nothing about medicine.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from lib import StudyError

from . import fundus, skin, xray
from .layouts import WRITERS

VERSION = 4
STAMP = "PHANTOM.txt"


def write_phantoms(dataset: str, root: Path, n: int, size: int, seed: int) -> Path:
    """Write `n` phantom images of `size` x `size` pixels under `root`/`dataset` and return that folder.

    Beside the original's files there are masks/<image_id>.png (8-bit, 0 or 255) and PHANTOM.txt. The same
    arguments give the same bytes. A folder that already holds these phantoms is left alone, other phantoms
    are replaced; the folder appears only when complete. Raises StudyError for an unknown dataset, n < 1,
    size < 32, seed < 0, or a folder that holds anything else than phantoms.
    """
    if dataset not in WRITERS:
        raise StudyError(f"There are no phantoms of {dataset!r}; choose one of {', '.join(WRITERS)}.")
    if n < 1 or size < 32 or seed < 0:
        raise StudyError(f"Phantoms need n >= 1, size >= 32 and seed >= 0, not n={n}, size={size}, seed={seed}.")
    root, target = Path(root), Path(root) / dataset
    stamp = (
        f"Phantom data: every image here is a computer's drawing in {dataset}'s layout, no patient's.\n"
        f"generator version {VERSION}, dataset {dataset}, seed {seed}, n {n}, size {size}\n"
    )
    if (target / STAMP).is_file():
        if (target / STAMP).read_text(encoding="utf-8") == stamp:
            return target
    elif target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise StudyError(f"{target} holds something else than phantoms: move it away or choose another folder.")

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dataset}-", dir=root) as scratch:
        made = Path(scratch) / "new"
        (made / "masks").mkdir(parents=True)
        WRITERS[dataset](made, n, size, seed)
        (made / STAMP).write_text(stamp, encoding="utf-8")
        if target.exists():
            target.rename(Path(scratch) / "old")
        made.rename(target)
        shutil.rmtree(Path(scratch) / "old", ignore_errors=True)
    return target


def draw_phantom(dataset: str, label: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One phantom: uint8 RGB image (size, size, 3), uint8 mask (size, size), 0 or 255, of its evidence.

    label: the class index; for eyepacs the grade 0 to 4. Generators in the same state give the same patient,
    view, light and noise for every label. The mask is empty without pneumothorax and at grade 0. Raises
    StudyError for an unknown dataset or label.
    """
    choices = {"ham10000": skin.CLASSES, "chestxray14": xray.CLASSES, "eyepacs": fundus.GRADES}
    if dataset not in choices or label not in range(len(choices[dataset])):
        raise StudyError(f"There is no phantom of {dataset!r} with label {label!r}.")
    subject, photo, other = rng.spawn(3)
    if dataset == "ham10000":
        return skin.draw(label, size, subject, photo)
    if dataset == "eyepacs":
        return fundus.draw(label, size, subject, photo)
    grey, mask = xray.draw(xray.sample_findings(label, other), size, subject, photo)
    return np.repeat(grey[..., None], 3, axis=2), mask
