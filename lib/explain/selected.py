"""What all measures of 05_why share: the selected images, the attacks, and where what comes out is kept.

All variants look at the same images. `common` images are drawn from the attacked ones, right or wrong; `masked` images
have a lesion mask, so that there is something to point to, and those that every variant gets right come first.
"""

import functools

import numpy as np
import pandas as pd

from lib.attacks import make_attack
from lib.data import subset
from lib.explain import choose_images, regions


def common(study) -> pd.DataFrame:
    """The images that surface and frequencies are measured on: rows of the index."""
    return subset(study.evaluated, study.profile.evaluation.why.images, study.profile.split.seed)


def masks(study, rows: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Masks, bool (n, size, size), of these rows, and where they come from ("" if the set has none)."""
    size = study.images.shape[1]
    return regions.lesion_masks(rows["image_id"], study.dataset, study.raw / study.dataset, size)


@functools.cache  # several measures ask, and every mask of the test split is looked into
def masked(study) -> pd.DataFrame:
    """The images that maps and energies are measured on: rows of the index, of the test split, with a mask if any has
    one.

    Chosen as Grad-CAM's are (`lib.explain.choose_images`): those that every variant gets right when clean come first.
    """
    test = study.index[study.index["split"] == "test"]
    found, _ = masks(study, test)
    if found.any():
        test = test[found.any(axis=(1, 2))]
    correct = study.predictions().pivot_table(index="image_id", columns="variant", values="correct", aggfunc="all")
    correct = correct.reindex(test["image_id"])
    chosen = choose_images(
        test["label"].to_numpy(),
        {variant: correct[variant].to_numpy(bool) for variant in study.whole_variants},
        study.profile.evaluation.why.images,
        study.profile.split.seed,
    )
    return test.iloc[chosen]


def spread(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """n of these rows, or all, spread evenly over them; `masked` rows are sorted by class."""
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))]


def kept(study, variant, name, rows, make, *more):
    """A per-image table of one variant, made by `make()` and kept as `why/<name>.csv`."""
    inputs = [rows["image_id"].tolist(), study.profile.evaluation.why.model_dump(), *more]
    return study.kept(f"why/{name}.csv", variant, inputs, make)


def attack_all(study, name, norm="linf"):
    """An attack that goes on with fallen images, so that all of them are perturbed alike."""
    steps = {} if name == "fgsm" else {"steps": study.profile.evaluation.why.steps}
    return make_attack(name, norm=norm, leave=False, batch_size=study.profile.evaluation.batch_size, **steps)


def noise(study, images, epsilon):
    """Images with every pixel moved up or down by epsilon, at random: what a perturbation without a model does."""
    rng = np.random.default_rng(study.seed)
    return np.clip(images + epsilon * rng.choice(np.float32([-1, 1]), images.shape), 0, 255)


def middle(values):
    """The budget that is looked at where one stands for all."""
    return values[len(values) // 2]
