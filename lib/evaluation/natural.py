"""Natural changes of an image: what dust, hair, focus, light, colour and compression do to accuracy.

The paper opens with a speck of dust that changes a diagnosis; these are such changes, none of them chosen against the
network. Kinds and severities are those that MedMNIST-C has for dermatoscopy at 224 px (Di Salvo, Doerrich and Ledig
2024, arXiv:2406.17536; their package wants ImageMagick and PyTorch); lengths go with the image. Colour cast,
hair and dust are this study's own.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from lib.evaluation.comparison import shares
from lib.evaluation.statistics import mean_interval

SEVERITIES = (1, 2, 3, 4, 5)
SIZE = 224  # pixels, at which lengths are given


def _scaled(image, length):
    return max(1, round(length * image.shape[1] / SIZE))


def _blur(image, radius, rng):
    """Out of focus: the mean over a disc, as a lens gives it."""
    radius = radius * image.shape[1] / SIZE
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype("float32")
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)


def _noise(image, deviation, rng):
    return image + rng.normal(0, 255 * deviation, image.shape)


def _jpeg(image, quality, rng):
    whole = cv2.cvtColor(image.round().astype("uint8"), cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _brightness(image, factor, rng):
    return image * factor


def _contrast(image, factor, rng):
    """About the mean gray of the image, as Pillow's ImageEnhance has it."""
    mean = (image @ [0.299, 0.587, 0.114]).mean()
    return mean + factor * (image - mean)


def _colour_cast(image, share, rng):
    """A warmer or colder light: red and blue go apart."""
    share *= rng.choice([-1, 1])
    return image * [1 + share, 1, 1 - share]


def _hair(image, hairs, rng):
    """Dark lines, slightly bent, from edge to edge."""
    size = image.shape[1]
    drawn = image.copy()
    for _ in range(hairs):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4) * size
        along = np.linspace(-0.8, 0.8, 40) * size
        bend = rng.uniform(-0.15, 0.15) * size * (2 * along / size) ** 2
        x = size / 2 + along * np.cos(angle) - (offset + bend) * np.sin(angle)
        y = size / 2 + along * np.sin(angle) + (offset + bend) * np.cos(angle)
        line = np.stack([x, y], axis=1).round().astype("int32")
        cv2.polylines(drawn, [line], False, rng.uniform(15, 60, 3).tolist(), _scaled(image, 2), cv2.LINE_AA)
    return drawn


def _dust(image, specks, rng):
    """Dark round specks on the lens."""
    drawn = image.copy()
    for _ in range(specks):
        centre = rng.uniform(0, image.shape[1], 2).round().astype(int).tolist()
        cv2.circle(drawn, centre, _scaled(image, rng.uniform(2, 6)), rng.uniform(10, 50, 3).tolist(), -1, cv2.LINE_AA)
    return drawn


CHANGES: dict[str, tuple[Callable, tuple]] = {
    "blur": (_blur, (4, 5, 6, 7, 8)),  # pixels
    "noise": (_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),  # standard deviation, of the range
    "JPEG": (_jpeg, (30, 20, 15, 10, 7)),  # quality
    "brighter": (_brightness, (1.1, 1.2, 1.3, 1.4, 1.5)),
    "darker": (_brightness, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "more contrast": (_contrast, (1.1, 1.2, 1.3, 1.4, 1.6)),
    "less contrast": (_contrast, (0.8, 0.7, 0.6, 0.5, 0.4)),
    "colour cast": (_colour_cast, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "hair": (_hair, (1, 3, 6, 10, 16)),
    "dust": (_dust, (1, 2, 4, 8, 16)),
}
"""The kinds of change, and what each severity is."""


def changed(images: np.ndarray, kind: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images with one of `CHANGES`, of severity 1 to 5: float32 (n, size, size, 3), in [0, 255].

    What is random depends on the seed, the kind and the place of the image: a worse severity of dust or hair has the
    specks and hairs of the milder one, and more.
    """
    change, values = CHANGES[kind]
    draws = [np.random.default_rng([seed, list(CHANGES).index(kind), place]) for place in range(len(images))]
    pairs = zip(np.asarray(images, "float32"), draws, strict=True)
    made = [change(image, values[severity - 1], rng) for image, rng in pairs]
    return np.clip(np.stack(made), 0, 255).astype("float32")


def natural_changes(study) -> pd.DataFrame:
    """Answers to the attacked images under every kind and severity of change, and without one (severity 0).

    Columns: dataset, variant, seed, image_id, label, change, severity, predicted, correct. Of the variants that meet
    every attack.
    """
    return study.gather(lambda variant: _of(study, variant), study.whole_variants)


def _of(study, variant):
    rows = study.evaluated

    def make():
        pixels, classifier = study.pixels(rows), study.classifier(variant)
        tables = []
        for kind, severity in [("none", 0), *((kind, severity) for kind in CHANGES for severity in SEVERITIES)]:
            seen = changed(pixels, kind, severity, study.profile.split.seed) if severity else pixels
            predicted = classifier.predict(seen)
            table = rows[["image_id", "label"]].assign(change=kind, severity=severity, predicted=predicted)
            tables.append(table.assign(correct=predicted == rows["label"].to_numpy()))
        return pd.concat(tables, ignore_index=True)

    return study.kept("natural.csv", variant, [rows["image_id"].tolist(), study.profile.split.seed], make)


def over_severities(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under each change, averaged over its severities, with a 95 % interval over images.

    Columns: dataset, variant, seed, change, n, accuracy, ci_low, ci_high.
    """
    keys = ["dataset", "variant", "seed", "change"]
    rows = []
    for key, group in answers.groupby(keys, sort=False):
        mean = mean_interval(group.groupby("image_id")["correct"].mean().to_numpy(float), bounds=(0, 1))
        rows.append((*key, mean.n, *mean[:3]))
    return pd.DataFrame(rows, columns=[*keys, "n", "accuracy", "ci_low", "ci_high"])


def accuracies(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under each change: dataset, variant, seed, change, severity, n, accuracy, ci_low, ci_high (Wilson's)."""
    return shares(answers, ["dataset", "variant", "seed", "change", "severity"], "correct", "accuracy")
