"""FAB (Croce and Hein 2020b, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
algorithm 1), in the targeted form that AutoAttack uses: it walks along the boundary between the true class
and one other class towards the image."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib.attacks.base import Program, TowardsEach, ascent, choose, fallen_scores, random_in_ball
from lib.attacks.norms import L2, Linf, per_image

BIAS = 0.1  # largest pull towards the image (alpha_max in the paper)
OVERSHOOT = 1.05  # how far a step goes past the linearised boundary (eta)
BACK = 0.9  # share of the perturbation that is kept after a success (beta)


def to_hyperplane(norm, x, weights, rise):
    """The smallest perturbations, by `norm`, that raise weights * x by `rise` (n,) with x kept in [0, 255].

    Pixels move at the norm's rates until they meet the range. What is gained is then a concave, piecewise
    linear function of the time, so Newton's iterations from 0 find the time exactly after a few steps. Where
    the range allows less than `rise`, all that it allows (Croce and Hein 2020b, equations 7 and 8).
    """
    largest = Linf().size(weights)
    scale = ops.where(largest > 0, largest, 1.0)
    weights, rise = weights / per_image(scale), rise / scale
    weights, rise = weights * per_image(ops.where(rise < 0, -1.0, 1.0)), ops.abs(rise)
    rates = norm.rates(weights)
    room = ops.where(weights > 0, 255.0 - x, x)
    gain = ops.abs(weights)
    fastest = gain * rates

    def newton(time, _):
        way = per_image(time) * rates
        gained = ops.sum(gain * ops.minimum(way, room), axis=(1, 2, 3))
        slope = ops.sum(ops.where(way < room, fastest, 0.0), axis=(1, 2, 3))
        step = ops.where(slope > 1e-12, (rise - gained) / ops.maximum(slope, 1e-12), 0.0)
        return time + step, ops.any(step > 1e-6 * time)

    # As if no pixel met the range, which takes no longer; two or three passes over the pixels do from there, and 12
    # bound what rounding could make of it.
    start = rise / ops.maximum(ops.sum(fastest, axis=(1, 2, 3)), 1e-12), ops.any(rise > 0)
    time, _ = ops.while_loop(lambda _, moving: moving, newton, start, maximum_iterations=12)
    return ops.sign(weights) * ops.minimum(per_image(time) * rates, room)


def difference(scores, labels, targets, through):
    """Score of the target minus the true one, whose zero is the boundary between the two."""
    one_hot = [ops.one_hot(classes, scores.shape[-1], dtype=scores.dtype) for classes in (targets, labels)]
    return ops.sum(scores * (one_hot[0] - one_hot[1]), axis=-1)


@dataclass(frozen=True)
class FABSteps(Program):
    """Steps of FAB: over the linearised boundary, and back towards the image wherever that was enough."""

    norm: Linf | L2
    targeted: bool

    def step(self, classifier, problem, state, numbers, k):
        images, here = problem["images"], state["iterate"]
        value, _, weights = ascent(classifier, problem, here, difference)
        step = to_hyperplane(self.norm, here, weights, -value)
        offset = ops.sum(weights * (here - images), axis=(1, 2, 3)) - value
        back = to_hyperplane(self.norm, images, weights, offset)
        near, far = self.norm.size(step), self.norm.size(back)
        pull = per_image(ops.minimum(near / ops.maximum(near + far, 1e-8), BIAS))
        forward = (1 - pull) * (here + OVERSHOOT * step) + pull * (images + OVERSHOOT * back)
        forward = ops.clip(forward, 0.0, 255.0)

        down = fallen_scores(classifier.scores_of(forward), problem, self.targeted)
        size = self.norm.size(forward - images)
        better = ops.logical_and(down, size < state["size"])
        within = ops.logical_and(better, size <= problem["epsilon"])
        return {
            "x": choose(within, forward, state["x"]),
            "iterate": choose(down, images + BACK * (forward - images), forward),
            "size": ops.where(better, size, state["size"]),
            "fallen": ops.logical_or(state["fallen"], within),
        }


@dataclass(frozen=True, kw_only=True)
class FABT(TowardsEach):
    """Targeted FAB, the third attack of AutoAttack. An image that stands comes back unchanged."""

    name: str = "fab_t"
    steps: int = 100

    def program(self, targeted):
        return FABSteps(self.norm, targeted)

    def own_start(self, problem, seed, attempt):
        if attempt % self.restarts == 0:
            return problem.images
        delta = random_in_ball(self.norm, problem, seed, attempt)
        return problem.images + problem.epsilon[:, None, None, None] * delta / 2

    def begin(self, problem, x, seed):
        return {"x": problem.images, "iterate": x, "size": np.full(len(x), np.inf, "float32")}
