"""Robust accuracy over a grid of budgets, per image.

An image that falls at one epsilon has fallen at every larger one, because the smaller ball lies within the
larger. So an image needs no attack at every budget but a search for the smallest budget at which it falls.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lib import StudyError
from lib.attacks.base import POOL, checked_problem, fallen
from lib.attacks.gradients import as_classifier, checked_bounds


def robust_accuracy(
    model,
    images,
    labels,
    attack,
    epsilons,
    *,
    targets=None,
    image_ids=None,
    batch_size=None,
    seed=0,
    exhaustive=None,
    progress=None,
    bounds=(0, 255),
):
    """Outcome of an attack for every image and every budget, as a tidy table.

    Parameters
    ----------
    model : Keras model, or Classifier (which says whether attacks go through logits or softmax).
    images : (n, H, W, C) within `bounds`.  labels : the true classes, whole numbers (n,) or one-hot rows.
    attack : an attack of `lib.attacks`.  epsilons : budgets above 0, in the unit of the images.
    bounds : the range of the pixels that the model takes and the images have, as in Foolbox.
    targets : int (n,) or None: classes to be reached. An image has then fallen where the model says its target,
        and `correct` says that it has not; any wrong class will do when None.
    image_ids : n identities; "0" to "n-1" when None.  seed : of the attack's random starts.
    batch_size : images in one compiled call, or None for the attack's own.
    exhaustive : attack every standing image at every budget, upwards, instead of searching. None: only for
        attacks of a single step, which often fail at a larger budget where a smaller one succeeds.
    progress : called as progress(settled, n), or None.

    Returns a DataFrame with columns image_id, label, attack, norm, epsilon, correct, predicted,
    smallest_epsilon; one row per image and budget, and one for the clean image with epsilon 0. `predicted` is
    what the model says of the perturbed image. An image that the model gets wrong unperturbed is not robust
    at any budget and is never attacked; one that has fallen is carried to every larger budget.
    `smallest_epsilon` is the norm of the smallest perturbation known to fool the model: 0 for clean mistakes,
    infinite where none is known. Its attrs hold `notes`: what had to be done to reach the model's logits, in words.

    The search goes downwards from the largest budget: success is found in a few steps, what succeeds is shrunk as
    far as it still does, and a step from there often succeeds at the next budget too (`Attack.refinement`). Only where
    it fails the whole attack is run, so that each image costs about one attack that fails. At every budget the table
    thus speaks of the attack and what the search adds to it. An image that stands at the largest budget may have been
    missed there for want of a gradient, so attacks that follow one try it at every smaller budget too.
    Raises StudyError for budgets that are not above 0, repeated ids, no images, a model whose outputs are not finite,
    and whatever the attack refuses.
    """
    classifier, n = as_classifier(model, bounds), len(images)
    images, unit = in_gray_levels(images, bounds)
    given, ids = checked_grid(epsilons), checked_ids(image_ids, n)
    grid = given * unit
    if not n:
        raise StudyError("There are no images to attack.")
    if exhaustive is None:
        exhaustive = getattr(attack, "steps", 2) == 1
    if batch_size is not None:
        attack = attack.with_(batch_size=batch_size)
    blocks = []
    for first in range(0, n, POOL):
        rows = slice(first, first + POOL)
        aims = None if targets is None else np.asarray(targets)[rows]
        problem = checked_problem(classifier, images[rows], labels[rows], 0.0, aims, np.arange(n)[rows])
        search = Search(classifier, problem, attack, grid, seed, targeted=targets is not None)
        search.upwards() if exhaustive else search.downwards()
        search.refine()
        blocks.append(search.table(ids[rows]))
        if progress:
            progress(min(first + POOL, n), n)
    table = pd.concat(blocks, ignore_index=True)
    if unit != 1:
        in_units = dict(zip([0.0, *grid], [0.0, *given], strict=True))
        table["epsilon"], table["smallest_epsilon"] = table["epsilon"].map(in_units), table["smallest_epsilon"] / unit
    table.attrs["notes"] = classifier.notes
    return table


def in_gray_levels(images, bounds):
    """Images of another range as attacks take them, float32 in [0, 255], and the gray levels of a unit of theirs."""
    low, high = checked_bounds(bounds)
    if (low, high) == (0, 255):
        return images, 1.0
    images = np.asarray(images, "float32")
    if images.size and not (images.min() >= low and images.max() <= high):
        raise StudyError(
            f"Images must be pixels within bounds={bounds}; they go from {images.min():g} to {images.max():g}."
        )
    unit = 255 / (high - low)
    return np.clip((images - low) * unit, 0, 255), unit


def checked_grid(epsilons):
    """Budgets as a sorted array. Raises StudyError if there are none or some are not above 0."""
    grid = np.unique(np.asarray(list(epsilons), "float64"))
    if not len(grid) or not np.isfinite(grid).all() or grid[0] <= 0:
        raise StudyError("epsilons must be one or more finite numbers above 0, in pixel units.")
    return grid


def checked_ids(image_ids, n):
    """Identities of n images as strings. Raises StudyError if they are not n different ones."""
    ids = [str(i) for i in (range(n) if image_ids is None else image_ids)]
    if len(ids) != n or len(set(ids)) != n:
        raise StudyError(f"image_ids must be {n} different names, one per image.")
    return ids


class Search:
    """The smallest budget of a grid at which each image of a block falls.

    `level`: index of that budget in the grid, -1 for clean mistakes, len(grid) while none is known.
    """

    def __init__(self, classifier, problem, attack, grid, seed, targeted=False):
        self.classifier, self.problem, self.attack = classifier, problem, attack
        self.grid, self.seed, self.targeted = grid, seed, targeted
        logits = classifier.logits(problem.images, attack.batch_size)
        if not np.isfinite(logits).all():
            worst = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise StudyError(f"The model's output is not finite on image {problem.index[worst]}: {logits[worst]}.")
        self.clean = logits.argmax(axis=1)
        wrong = fallen(self.clean, problem, targeted)
        self.level = np.where(wrong, -1, len(grid))
        self.smallest = np.where(wrong, 0.0, np.inf)
        self.predicted = self.clean.copy()
        self.adversarial = problem.images.copy()

    def upwards(self):
        """Every budget in turn, on all that still stand."""
        for level in range(len(self.grid)):
            self.attack_at(np.flatnonzero(self.level > level), level)

    def downwards(self):
        """From the largest budget down, each image until it stands after the whole attack."""
        rows = np.flatnonzero(self.level >= 0)
        self.attack_at(rows, self.level[rows] - 1)
        if getattr(self.attack, "minimal", False):
            return
        if self.attack.refinement() is not None:
            for level in range(len(self.grid) - 1):
                self.attack_at(np.flatnonzero(self.level == len(self.grid)), level)
        rows = rows[(self.level[rows] < len(self.grid)) & (self.level[rows] > 0)]
        while len(rows):
            moving = rows
            while len(moving):  # all the way down, so that the whole attack then meets all images in large batches
                before = self.level[moving]
                self.step_on(moving, before - 1)
                moving = moving[(self.level[moving] < before) & (self.level[moving] > 0)]
            rows = rows[self.level[rows] > 0]
            before = self.level[rows]
            self.attack_at(rows, before - 1)
            rows = rows[(self.level[rows] < before) & (self.level[rows] > 0)]

    def step_on(self, rows, level):
        """A step at budgets of the grid, from what succeeded at larger ones."""
        refinement, epsilon = self.attack.refinement(), self.grid[level].astype("float32")
        if refinement is None:
            return
        here = replace(self.problem[rows], epsilon=epsilon)
        start = self.project(rows, self.adversarial[rows], epsilon)
        self.shrink(rows, refinement.attempt(self.classifier, here, start, self.targeted, self.seed), level)

    def attack_at(self, rows, level):
        """Attack images at budgets of the grid."""
        if not len(rows):
            return
        level = np.broadcast_to(level, rows.shape)
        here = self.problem[rows]
        targets = here.targets if self.targeted else None
        options = {"seed": self.seed, "targets": targets, "index": here.index}
        x = self.attack(self.classifier, here.images, here.labels, self.grid[level], **options)
        self.shrink(rows, x, level)

    def shrink(self, rows, x, level):
        """Note which of these images, tried at budgets of the grid, fool the model, and at which smaller ones still."""
        while len(rows):
            fell = self.record(rows, x, level)
            rows, x, level = rows[fell], x[fell], self.level[rows[fell]] - 1
            rows, x, level = rows[level >= 0], x[level >= 0], level[level >= 0]
            if len(rows):
                x = self.project(rows, x, self.grid[level])

    def project(self, rows, x, epsilon):
        """Adversarial images with their perturbations projected to smaller budgets."""
        images = self.problem.images[rows]
        delta = self.attack.norm.project(x - images, epsilon.astype("float32"))
        return np.clip(images + delta, 0, 255)

    def record(self, rows, x, level=None):
        """Note which of these images fool the model, and with how small a perturbation."""
        predicted = self.classifier.predict(x, self.attack.batch_size)
        goal = self.problem.targets if self.targeted else self.problem.labels
        fell = (predicted == goal[rows]) == self.targeted
        size = self.attack.norm.size(x - self.problem.images[rows]).astype("float64")
        if level is None:
            level = self.level[rows]
        # A float32 pixel near 255 is exact to 1.5e-5; a size at a budget belongs to that budget.
        level = np.minimum(level, np.searchsorted(self.grid * (1 + 1e-5) + 1.6e-5, size))
        better = fell & (size < self.smallest[rows])
        won = rows[better]
        self.level[won] = np.minimum(self.level[won], level[better])
        self.smallest[won] = size[better]
        self.predicted[won] = predicted[better]
        self.adversarial[won] = x[better]
        return better

    def refine(self, times=4):
        """Bisect along the line to the image: budgets of the grid are far apart, distances need not be."""
        rows = np.flatnonzero((self.level >= 0) & (self.level < len(self.grid)))
        low = np.concatenate([[0.0], self.grid])[self.level[rows]]
        for _ in range(times):
            if not len(rows):
                break
            middle = (low + self.smallest[rows]) / 2
            fell = self.record(rows, self.project(rows, self.adversarial[rows], middle))
            low = np.where(fell, low, middle)

    def table(self, ids):
        """The tidy table of this block."""
        columns = {"image_id": ids, "label": self.problem.labels.astype("int64")}
        columns |= {"attack": self.attack.name, "norm": self.attack.norm.name}
        outcomes = []
        for level, epsilon in enumerate([0.0, *self.grid], start=-1):
            stands = self.level > level
            found = {"epsilon": epsilon, "correct": stands, "predicted": np.where(stands, self.clean, self.predicted)}
            outcomes.append(pd.DataFrame(columns | found | {"smallest_epsilon": self.smallest}))
        return pd.concat(outcomes)
