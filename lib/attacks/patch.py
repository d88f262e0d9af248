"""A universal adversarial patch (Brown et al. 2017, "Adversarial patch"; on medical images, Finlayson et al.
2019): one small square that, laid anywhere on any image, makes the model say a class."""

from dataclasses import dataclass

import numpy as np

from lib import StudyError
from lib.attacks.base import ascent, checked_problem
from lib.attacks.gradients import as_classifier
from lib.attacks.losses import LOSSES, TARGETED


@dataclass(frozen=True)
class InputGradient:
    """A program: the gradient of a loss with respect to each image, (n, H, W, C)."""

    loss: str = "crossentropy"
    targeted: bool = False

    def __call__(self, classifier, problem):
        loss = (TARGETED if self.targeted else LOSSES)[self.loss]
        return ascent(classifier, problem, problem["images"], loss)[2]


def make_patch(model, images, labels, target=None, *, share=0.05, steps=200, batch_size=16, seed=0):
    """A patch, float32 (s, s, C) in [0, 255], that covers `share` of an image's area.

    Maximises the expected log-probability of the class `target` (Brown et al. 2017, equation 1), or the
    cross-entropy of the true classes when `target` is None, over images, places and quarter turns, by Adam in
    steps of 1 % of the range. images (n, H, W, C) in [0, 255] are those to learn from; try it on others.
    Raises StudyError for a share outside (0, 1) and input that does not fit the model.
    """
    if not 0 < share < 1:
        raise StudyError(f"share of a patch must be between 0 and 1, not {share}.")
    classifier = as_classifier(model)
    targets = None if target is None else np.full(len(images), target)
    problem = checked_problem(classifier, images, labels, 0.0, targets)
    height, width, channels = problem.images.shape[1:]
    side = max(1, min(round((share * height * width) ** 0.5), height, width))
    generator = np.random.default_rng(seed)
    patch = generator.uniform(0, 255, (side, side, channels))
    first, second = np.zeros_like(patch), np.zeros_like(patch)
    program = InputGradient(targeted=target is not None)
    for step in range(1, steps + 1):
        here = problem[generator.choice(len(problem), min(batch_size, len(problem)), replace=False)]
        places = random_places(generator, len(here), height, width, side)
        here.images = lay(here.images, patch, places)
        gradients = classifier.run(program, here.tensors())
        gradient = np.mean(
            [
                np.rot90(g[top : top + side, left : left + side], -turns)
                for g, (top, left, turns) in zip(gradients, places, strict=True)
            ],
            axis=0,
        )
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
        patch = np.clip(patch + 2.55 * move, 0, 255)
    return patch.astype("float32")


def apply_patch(images, patch, seed=0):
    """Images with the patch laid on each at a random place and quarter turn, from a seed."""
    images = np.array(images, "float32")
    places = random_places(np.random.default_rng(seed), len(images), *images.shape[1:3], len(patch))
    return lay(images, patch, places)


def random_places(generator, n, height, width, side):
    """Top, left and quarter turns of n patches, int (n, 3)."""
    return generator.integers(0, [height - side + 1, width - side + 1, 4], (n, 3))


def lay(images, patch, places):
    """Copies of the images with the patch at each image's place."""
    images, side = images.copy(), len(patch)
    for image, (top, left, turns) in zip(images, places, strict=True):
        image[top : top + side, left : left + side] = np.rot90(patch, turns)
    return images
