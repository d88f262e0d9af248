"""The pictures of 05_why: loss planes and gradients of a few images."""

import cv2
import numpy as np

from lib.explain import surface, where
from lib.explain.looked_at import going_on, masked, masks, middle, spread, variants


def loss_planes(study) -> dict[str, np.ndarray]:
    """By variant: the loss on a plane through each of a few images, (n, points, points), see `surface.plane`.

    The first direction is the variant's own PGD perturbation at the middle epsilon, the second a random sign
    per pixel.
    """
    why = study.profile.evaluation.why
    rows = spread(masked(study), why.plane_images)

    def planes(variant):
        def make():
            images, labels = study.pixels(rows), rows["label"].to_numpy()
            classifier, epsilon = study.classifier(variant), middle(why.epsilons)
            adversarial = going_on(study, "pgd")(classifier, images, labels, epsilon, seed=study.seed)
            random = np.random.default_rng(study.seed).choice(np.float32([-1, 1]), images.shape)
            delta, half = adversarial - images, max(why.epsilons)
            return {
                "losses": surface.plane(classifier, images, labels, delta, random, half, why.plane_points)
            }

        inputs = [rows["image_id"].tolist(), why.model_dump()]
        return study.kept("why/planes.npz", variant, inputs, make)["losses"]

    return {variant: planes(variant) for variant in variants(study)}


def examples(study, n: int) -> list[dict]:
    """Rows for `lib.report.charts.examples`: n of the masked images, spread over the classes, and blurred
    gradient energies.
    """
    rows = masked(study)
    rows = spread(rows, n)
    images, labels = study.pixels(rows), rows["label"].to_numpy()
    found, source = masks(study, rows)
    blurred = {}
    for variant in variants(study):
        _, gradient = surface.loss_gradient(study.classifier(variant), images, labels)
        blurred[variant] = [cv2.GaussianBlur(e, (0, 0), images.shape[1] / 56) for e in where.energy(gradient)]
    return [
        {
            "title": rows["class_name"].iloc[i],
            "image": images[i],
            "mask": found[i] if source else None,
            "energy": {variant: energies[i] for variant, energies in blurred.items()},
        }
        for i in range(len(rows))
    ]
