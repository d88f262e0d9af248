"""The loss around an image: its curvature, and how fast the margin can fall.

With m(x) = z_y(x) - max_{k != y} z_k(x), the margin of the logits, the nearest mistake of a linear model lies
at the L-inf distance m / ||grad m||_1: a network is robust at x because its margin is large or because its
slope is small.
"""

from dataclasses import dataclass

import numpy as np
from keras import ops

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


@dataclass(frozen=True)
class HessianProduct:
    """Program: the product of the loss's input Hessian with a vector per image (Pearlmutter 1994), without
    the Hessian.
    """

    loss: str = "crossentropy"

    def __call__(self, classifier, images, labels, vectors):
        def slope(x):
            gradient = LossGradient(self.loss)(classifier, x, labels)["gradient"]
            return ops.sum(gradient * vectors, axis=(1, 2, 3)), ()

        _, _, product = value_and_gradient(slope, images)
        return product


def _batched(classifier, program, *arrays):
    """A program on all images, a batch at a time."""
    arrays = [np.asarray(array) for array in arrays]
    if not len(arrays[0]):
        raise StudyError("There are no images to measure.")
    parts = [
        classifier.run(program, *(array[first : first + BATCH] for array in arrays))
        for first in range(0, len(arrays[0]), BATCH)
    ]
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def loss_gradient(classifier, images, labels, loss: str = "crossentropy") -> tuple[np.ndarray, np.ndarray]:
    """Loss (n,) in nats (or logit units for "margin") and its gradient by pixel, float32 (n, H, W, C)."""
    result = _batched(classifier, LossGradient(loss), np.float32(images), np.int32(labels))
    return result["loss"], result["gradient"]


def top_eigenvalue(classifier, images, labels, steps: int = 20, seed: int = 0, loss: str = "crossentropy"):
    """The eigenvalue of largest magnitude of each image's input Hessian, by power iteration: float64 (n,).

    Per squared gray level. `steps` Hessian-vector products from a random vector (the same for every model),
    then the Rayleigh quotient, with its sign; 0 where the Hessian is 0. Too few steps find too small a magnitude, or
    neither of two eigenvalues of opposite sign that are as large.
    """
    images = np.float32(images)
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal(images.shape).astype(np.float32)
    values = np.zeros(len(images))
    for _ in range(steps):
        vectors = vectors / np.maximum(_length(vectors), 1e-30)
        products = _batched(classifier, HessianProduct(loss), images, np.int32(labels), vectors)
        values = (vectors.astype(np.float64) * products).sum(axis=(1, 2, 3))
        vectors = np.where(_length(products) > 0, products, vectors)
    return values


def _length(vectors):
    # In float64: squares of a float32 gradient underflow below 1e-19.
    return np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def margins(logits, labels) -> np.ndarray:
    """Logit of the true class less the best other one, float (n,), of logits (n, classes): negative when
    wrong.
    """
    rows, logits = np.arange(len(labels)), np.asarray(logits, float)
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - others.max(axis=1)


def lipschitz_by_gradient(classifier, images, labels) -> np.ndarray:
    """||grad m||_1, float (n,): the local Lipschitz constant of the margin in L-inf, to first order, per gray
    level.
    """
    _, gradient = loss_gradient(classifier, images, labels, "margin")
    return np.abs(gradient).sum(axis=(1, 2, 3), dtype=np.float64)


def lipschitz_by_attack(classifier, images, adversarial, labels) -> np.ndarray:
    """|m(x) - m(x')| / ||x - x'||_inf, float (n,), per gray level: a lower bound of the constant over the
    ball.

    The empirical local Lipschitz constant of Yang et al. 2020 ("A closer look at accuracy vs. robustness",
    equation 3) with the margin as the function and an attack's images, which lower the margin, as x'. NaN
    where x' = x.
    """
    images, adversarial = np.float32(images), np.float32(adversarial)
    fall = np.abs(margins(classifier.logits(images), labels) - margins(classifier.logits(adversarial), labels))
    size = np.abs(adversarial - images).max(axis=(1, 2, 3)).astype(float)
    return np.divide(fall, size, out=np.full(len(size), np.nan), where=size > 0)
