"""The three layouts on disk: which phantoms are drawn, under which names, and the tables beside them."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from . import fundus, skin, xray

# First words of the seeds, so that no two streams coincide.
_PLAN, _SUBJECT, _PHOTO = range(3)
_SITES = ("abdomen", "back", "chest", "face", "foot", "lower extremity", "neck", "scalp", "trunk", "upper extremity")


def _quotas(n: int, proportions) -> np.ndarray:
    """Split `n` into whole numbers near the proportions (largest remainders)."""
    exact = n * np.asarray(proportions) / np.sum(proportions)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts


def _runs(rng, n: int, lengths, p) -> np.ndarray:
    """Group numbers 0, 0, 1, 2, 2, ... of `n` items, in groups whose lengths are drawn from `lengths`."""
    return np.repeat(np.arange(n), rng.choice(lengths, size=n, p=p))[:n]


def _ranked(rng, groups: np.ndarray, counts) -> np.ndarray:
    """Labels with exactly these counts, alike within a group (a tendency per group, a deviation per item)."""
    tendency = rng.standard_normal(groups.max() + 1)[groups] + 0.6 * rng.standard_normal(len(groups))
    labels = np.empty(len(groups), int)
    labels[np.argsort(tendency, kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    return labels


def _streams(seed: int, subject: int, photo: int):
    return np.random.default_rng([_SUBJECT, seed, subject]), np.random.default_rng([_PHOTO, seed, photo])


def _write(path: Path, image: np.ndarray) -> None:
    """Write RGB, RGBA or grey uint8 as PNG or JPEG (quality 92), by the name's ending."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    jpeg = path.suffix in (".jpg", ".jpeg")
    _, data = cv2.imencode(".jpg" if jpeg else ".png", image, [cv2.IMWRITE_JPEG_QUALITY, 92] if jpeg else [])
    path.write_bytes(data.tobytes())


def _write_csv(path: Path, rows: list[dict]) -> None:
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")


def write_ham10000(folder: Path, n: int, size: int, seed: int) -> None:
    """HAM10000_metadata.csv and two folders of JPEG; one lesion in five is photographed twice."""
    plan = np.random.default_rng([_PLAN, seed])
    plans = []
    for label, count in enumerate(_quotas(n, skin.PROPORTIONS)):
        runs = _runs(plan, count, (1, 2), (0.8, 0.2))
        plans += [(label, f"{label}-{run}") for run in runs]
    lesions = {key: number for number, key in enumerate(plan.permutation(sorted({key for _, key in plans})))}
    about = [
        {"age": int(age) * 5, "sex": str(plan.choice(("male", "female"))), "localization": str(plan.choice(_SITES))}
        for age in plan.integers(4, 18, len(lesions))
    ]
    parts = [folder / f"HAM10000_images_part_{part}" for part in (1, 2)]
    for part in parts:
        part.mkdir()
    rows = []
    for index, which in enumerate(plan.permutation(n)):
        label, key = plans[which]
        lesion = lesions[key]
        image, mask = skin.draw(label, size, *_streams(seed, lesion, index))
        image_id, dx = f"ISIC_{index + 1:07d}", skin.CLASSES[label]
        _write(parts[index >= (n + 1) // 2] / f"{image_id}.jpg", image)
        _write(folder / "masks" / f"{image_id}.png", mask)
        dx_type = "histo" if dx in ("akiec", "bcc", "mel") else "consensus"
        rows.append(
            {"lesion_id": f"HAM_{lesion + 1:07d}", "image_id": image_id, "dx": dx, "dx_type": dx_type} | about[lesion]
        )
    rows.sort(key=lambda row: (row["lesion_id"], row["image_id"]))
    _write_csv(folder / "HAM10000_metadata.csv", rows)


def write_chestxray14(folder: Path, n: int, size: int, seed: int) -> None:
    """images/*.png (grey, one in fifty RGBA), Data_Entry_2017_v2020.csv and BBox_List_2017.csv.

    Boxes enclose the pneumothorax of every third positive, in pixels of the original's 1024 x 1024 images.
    """
    plan = np.random.default_rng([_PLAN, seed])
    patients = _runs(plan, n, (1, 2, 3, 4), (0.4, 0.3, 0.2, 0.1))
    positives = round(n * xray.POSITIVE_SHARE)
    labels = _ranked(plan, patients, (n - positives, positives))
    age, sex = plan.integers(18, 85, n), plan.choice(("M", "F"), n)
    (folder / "images").mkdir()
    rows, boxes = [], []
    for index, (patient, label) in enumerate(zip(patients, labels, strict=True)):
        findings = xray.sample_findings(label, plan)
        grey, mask = xray.draw(findings, size, *_streams(seed, patient, index))
        visit = index - int(np.searchsorted(patients, patient))
        name = f"{patient + 1:08d}_{visit:03d}.png"
        rgba = index % 50 == 7
        opaque = np.full_like(grey, 255)
        _write(folder / "images" / name, np.dstack([grey, grey, grey, opaque]) if rgba else grey)
        _write(folder / "masks" / name, mask)
        rows.append(
            {
                "Image Index": name,
                "Finding Labels": "|".join(findings) or "No Finding",
                "Follow-up #": visit,
                "Patient ID": patient + 1,
                "Patient Age": age[patient] + visit,
                "Patient Gender": sex[patient],
                "View Position": "PA",
                "OriginalImage[Width": size,
                "Height]": size,
                "OriginalImagePixelSpacing[x": 0.143 * 2048 / size,
                "y]": 0.143 * 2048 / size,
            }
        )
        if label and len(boxes) * 3 <= labels[:index].sum() and mask.any():
            x, y, width, height = (value * 1024 / size for value in cv2.boundingRect(mask))
            boxes.append(f"{name},Pneumothorax,{x:.4f},{y:.4f},{width:.4f},{height:.4f}\n")
    _write_csv(folder / "Data_Entry_2017_v2020.csv", rows)
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    (folder / "BBox_List_2017.csv").write_text(header + "".join(boxes), encoding="utf-8")


def write_eyepacs(folder: Path, n: int, size: int, seed: int) -> None:
    """train/<patient>_left.jpeg and _right.jpeg, and trainLabels.csv; the two eyes of a patient are alike."""
    plan = np.random.default_rng([_PLAN, seed])
    patients = np.arange(n) // 2
    grades = _ranked(plan, patients, _quotas(n, fundus.PROPORTIONS))
    numbers = np.cumsum(plan.integers(1, 4, patients.max() + 1)) + 9
    (folder / "train").mkdir()
    rows = []
    for index, (patient, grade) in enumerate(zip(patients, grades, strict=True)):
        left = index % 2 == 0
        image, mask = fundus.draw(int(grade), size, *_streams(seed, patient, index), left)
        image_id = f"{numbers[patient]}_{'left' if left else 'right'}"
        _write(folder / "train" / f"{image_id}.jpeg", image)
        _write(folder / "masks" / f"{image_id}.png", mask)
        rows.append({"image": image_id, "level": grade})
    _write_csv(folder / "trainLabels.csv", rows)


WRITERS = {"ham10000": write_ham10000, "chestxray14": write_chestxray14, "eyepacs": write_eyepacs}
