"""Losses that attacks raise: of scores (n, classes), int labels (n,) and int targets (n,); they give (n,).

Targets matter to targeted losses only. `through` says what the scores are: logits, or softmax probabilities. The margin
and the DLR take the scores as they come, which is what attacks made for logits do to a model that ends in a softmax.
"""

import keras
from keras import ops


def crossentropy(scores, labels, targets, through):
    """Cross-entropy of the true class (Goodfellow et al. 2015, equation 1)."""
    if through == "softmax":
        return -at(clipped_log(scores), labels)
    # log(1 + exp(others - own)) equals -log softmax. Written so, its gradient does not lose the true class
    # when that class' probability rounds to 1, which in float32 it does from a margin of 17 on.
    others = ops.logsumexp(without(scores, labels), axis=-1)
    return ops.softplus(others - at(scores, labels))


def targeted_crossentropy(scores, labels, targets, through):
    """Minus the cross-entropy of the target class (Kurakin et al. 2017, section 2.3)."""
    return -crossentropy(scores, targets, targets, through)


def margin(scores, labels, targets, through):
    """Best wrong score minus the true one (Carlini and Wagner 2017, f_6): positive when misclassified."""
    return best_other(scores, labels) - at(scores, labels)


def targeted_margin(scores, labels, targets, through):
    """Score of the target minus the best other one: positive when classified as the target."""
    return at(scores, targets) - best_other(scores, targets)


def dlr(scores, labels, targets, through):
    """Difference-of-logits ratio (Croce and Hein 2020a, equation 6): the margin, free of the logits' scale.

    It needs three classes; with two it is the margin itself.
    """
    if scores.shape[-1] < 3:
        return margin(scores, labels, targets, through)
    top = ops.top_k(scores, 3)[0]
    return margin(scores, labels, targets, through) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(scores, labels, targets, through):
    """Targeted DLR (Croce and Hein 2020a, equation 7): score of the target minus the true one, rescaled.

    It needs four classes; with three the scale is that of `dlr`, with two there is none.
    """
    difference = at(scores, targets) - at(scores, labels)
    classes = scores.shape[-1]
    if classes < 3:
        return difference
    top = ops.top_k(scores, min(classes, 4))[0]
    return difference / (top[:, 0] - ops.mean(top[:, 2:], axis=1) + 1e-12)


LOSSES = {"crossentropy": crossentropy, "margin": margin, "dlr": dlr}
TARGETED = {"crossentropy": targeted_crossentropy, "margin": targeted_margin, "dlr": targeted_dlr}


def clipped_log(probabilities):
    """The logarithm in Keras' cross-entropy: clipped, so without gradient where the softmax saturates."""
    tiny = keras.backend.epsilon()
    return ops.log(ops.clip(probabilities, tiny, 1.0 - tiny))


def at(scores, classes):
    """The score (n,) of one class per image."""
    return ops.sum(scores * _one_hot(scores, classes), axis=-1)


def best_other(scores, classes):
    """The highest score (n,) of the classes other than the given one."""
    return ops.max(without(scores, classes), axis=-1)


def without(scores, classes):
    """Scores with the given class' made too small to matter."""
    return ops.where(_one_hot(scores, classes) > 0, -1e30, scores)


def _one_hot(scores, classes):
    return ops.one_hot(classes, scores.shape[-1], dtype=scores.dtype)
