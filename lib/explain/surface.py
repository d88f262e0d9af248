"""The loss around an image: how large the margin is, and how fast it can fall.

With m(x) = z_y(x) - max_{k != y} z_k(x), the margin of the logits, the nearest mistake of a linear model lies at the
L-inf distance m / ||grad m||_1: a network is robust at x because its margin is large or because its slope is small.
"""

from dataclasses import dataclass

import numpy as np

from lib import StudyError
from lib.attacks.gradients import value_and_gradient
from lib.attacks.losses import LOSSES

BATCH = 16


@dataclass(frozen=True)
class LossGradient:
    """Program: a loss of `lib.attacks.losses` on logits, and its gradient with respect to the pixels."""

    loss: str = "crossentropy"

    def __call__(self, classifier, images, labels):
        def objective(x):
            return LOSSES[self.loss](classifier.logits_of(x), labels, labels, "logits"), ()

        loss, _, gradient = value_and_gradient(objective, images)
        return {"loss": loss, "gradient": gradient}


def loss_gradient(classifier, images, labels, loss: str = "crossentropy") -> tuple[np.ndarray, np.ndarray]:
    """Loss (n,) in nats (or logit units for "margin") and its gradient by pixel, float32 (n, H, W, C)."""
    images, labels = np.float32(images), np.int32(labels)
    if not len(images):
        raise StudyError("There are no images to measure.")
    parts = [
        classifier.run(LossGradient(loss), images[first : first + BATCH], labels[first : first + BATCH])
        for first in range(0, len(images), BATCH)
    ]
    return tuple(np.concatenate([part[name] for part in parts]) for name in ("loss", "gradient"))


def margins(logits, labels) -> np.ndarray:
    """Logit of the true class less the best other one, float (n,), of logits (n, classes): negative when wrong."""
    rows, logits = np.arange(len(labels)), np.asarray(logits, float)
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - others.max(axis=1)


def lipschitz_by_gradient(classifier, images, labels) -> np.ndarray:
    """||grad m||_1, float (n,): the local Lipschitz constant of the margin in L-inf, to first order, per gray
    level."""
    _, gradient = loss_gradient(classifier, images, labels, "margin")
    return np.abs(gradient).sum(axis=(1, 2, 3), dtype=np.float64)


def lipschitz_by_attack(classifier, images, adversarial, labels) -> np.ndarray:
    """|m(x) - m(x')| / ||x - x'||_inf, float (n,), per gray level: a lower bound of the constant over the
    ball.

    The empirical local Lipschitz constant of Yang et al. 2020 ("A closer look at accuracy vs. robustness", equation 3)
    with the margin as the function and an attack's images, which lower the margin, as x'. NaN where x' = x.
    """
    images, adversarial = np.float32(images), np.float32(adversarial)
    fall = np.abs(margins(classifier.logits(images), labels) - margins(classifier.logits(adversarial), labels))
    size = np.abs(adversarial - images).max(axis=(1, 2, 3)).astype(float)
    return np.divide(fall, size, out=np.full(len(size), np.nan), where=size > 0)
