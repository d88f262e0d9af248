"""What a classifier reaches over its classes, with 95 % intervals by a stratified bootstrap over images."""

import numpy as np
from sklearn.metrics import recall_score, roc_auc_score

from lib import StudyError
from lib.evaluation.statistics import TAILS, Interval

RESAMPLES = 2_000
BLOCK = 4_000_000  # most weights (resamples x images) of a bootstrap held in memory at once


def balanced_accuracy(labels, predicted, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean recall over the classes that occur in `labels`, with a stratified bootstrap interval.

    `labels`, `predicted`: int, shape (images,). Images are resampled within their class, so that class
    sizes stay fixed; then a class's number of hits is a binomial variable, and is drawn as such. A class
    whose images are all right (or all wrong) does not vary: with few images per class read the interval
    as a lower bound of the uncertainty. Raises StudyError for empty or unequal input.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1 or not labels.size:
        raise StudyError(f"labels {labels.shape} and predictions {predicted.shape} must match in shape.")
    classes, sizes = np.unique(labels, return_counts=True)
    recalls = recall_score(labels, predicted, labels=classes, average=None)
    draws = np.random.default_rng(seed).binomial(sizes, recalls, size=(resamples, len(classes))) / sizes
    low, high = np.quantile(draws.mean(axis=1), TAILS)
    return Interval(float(recalls.mean()), float(low), float(high))


def macro_auc(labels, probabilities, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Area under the ROC curve, one-vs-rest and averaged over classes, with a stratified bootstrap interval.

    `labels`: int, shape (images,); `probabilities`: float, shape (images, classes). Two classes: the
    ordinary AUC of class 1. More: the plain mean over the classes that occur in `labels` (Hand and Till's
    one-vs-one mean is something else). Images are resampled within their class. Raises StudyError for
    shapes that do not fit and for fewer than two classes in `labels`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise StudyError(f"labels {labels.shape} and probabilities {probabilities.shape} do not fit.")
    present = np.unique(labels)
    if len(present) < 2:
        raise StudyError("An AUC needs images of at least two classes.")
    targets = [1] if probabilities.shape[1] == 2 else present
    estimate = np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in targets])

    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // labels.size)
    draws = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = np.empty((size, labels.size))
        for k in present:
            members = np.flatnonzero(labels == k)
            uniform = np.full(members.size, 1 / members.size)
            weights[:, members] = rng.multinomial(members.size, uniform, size=size)
        draws.append(np.mean([_weighted_auc(labels == k, probabilities[:, k], weights) for k in targets], 0))
    low, high = np.quantile(np.concatenate(draws), TAILS)
    return Interval(float(estimate), float(low), float(high))


def _weighted_auc(positive, scores, weights) -> np.ndarray:
    """AUC of `scores` for each row of image weights (resamples, images): the Mann-Whitney form, ties half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first image of each tied group
    ordered, positive = weights[:, order], positive[order]
    positives = np.add.reduceat(ordered * positive, starts, axis=1)
    negatives = np.add.reduceat(ordered * ~positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))
