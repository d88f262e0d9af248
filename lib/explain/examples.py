"""Pictures of where a network's input gradient lies."""

import cv2

from lib.explain import regions, surface
from lib.explain.selected import masked, masks, spread


def examples(study, n: int) -> list[dict]:
    """Rows for `lib.report.charts.examples`: n of the masked images, spread over the classes, and blurred gradient
    energies."""
    rows = masked(study)
    rows = spread(rows, n)
    images, labels = study.pixels(rows), rows["label"].to_numpy()
    found, source = masks(study, rows)
    blurred = {}
    for variant in study.whole_variants:
        _, gradient = surface.loss_gradient(study.classifier(variant), images, labels)
        blurred[variant] = [cv2.GaussianBlur(e, (0, 0), images.shape[1] / 56) for e in regions.energy(gradient)]
    return [
        {
            "title": rows["class_name"].iloc[i],
            "image": images[i],
            "mask": found[i] if source else None,
            "energy": {variant: energies[i] for variant, energies in blurred.items()},
        }
        for i in range(len(rows))
    ]
