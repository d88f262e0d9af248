"""Auto-PGD (Croce and Hein 2020a, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", section 3, algorithm 1): steps that start at twice epsilon, with momentum, and are
halved wherever they stop paying, from the best point so far."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.base import Attack, Program, TowardsEach, ascent, choose, fallen_scores, random_in_ball
from lib.attacks.gradient_attacks import long_step
from lib.attacks.losses import LOSSES, TARGETED
from lib.attacks.norms import L2, Linf, per_image

MOMENTUM = 0.75  # share of the gradient step in a move (alpha in the paper)
RISES = 0.75  # share of steps that must raise the loss between two checkpoints (rho)


@dataclass(frozen=True)
class APGDSteps(Program):
    """Steps of APGD. `aimed`: the loss is about the target. `targeted`: only the target counts as fallen."""

    norm: Linf | L2
    loss: str
    aimed: bool
    targeted: bool

    def step(self, classifier, problem, state, numbers, k):
        x, size = state["x"], state["size"]
        loss, scores, gradient = ascent(classifier, problem, x, (TARGETED if self.aimed else LOSSES)[self.loss])
        down = fallen_scores(scores, problem, self.targeted)

        rises = state["rises"] + ops.cast(loss > state["loss"], "int32")
        better = loss > state["best_loss"]
        best_loss = ops.where(better, loss, state["best_loss"])
        best = choose(better, x, state["best"])
        best_gradient = choose(better, gradient, state["best_gradient"])

        # Checkpoint, conditions 1 and 2: too few rises; neither progress nor a halving since the last one.
        check = state["since"] == state["period"]
        few = ops.cast(rises, "float32") <= RISES * ops.cast(state["period"], "float32")
        stuck = ops.logical_and(ops.logical_not(state["halved"]), state["checked_loss"] >= best_loss)
        halve = ops.logical_and(check, ops.logical_or(few, stuck))
        size = ops.where(halve, size / 2, size)
        here = choose(halve, best, x)
        gradient = choose(halve, best_gradient, gradient)

        climbed = self.norm.inside(problem, here + per_image(size) * self.norm.direction(gradient))
        share = ops.where(k == 0, 1.0, MOMENTUM)
        moved = here + share * (climbed - here) + (1 - share) * (here - state["previous"])
        moved = self.norm.inside(problem, moved)
        leaves = ops.logical_and(down, numbers["leave"])
        period = ops.maximum(state["period"] - numbers["shorter"], numbers["shortest"])
        return {
            "x": choose(leaves, x, moved),
            "previous": here,
            "best": best,
            "best_gradient": best_gradient,
            "loss": loss,
            "best_loss": best_loss,
            "checked_loss": ops.where(check, best_loss, state["checked_loss"]),
            "halved": ops.where(check, halve, state["halved"]),
            "size": size,
            "rises": ops.where(check, 0, rises),
            "since": ops.where(check, 1, state["since"] + 1),
            "period": ops.where(check, period, state["period"]),
            "fallen": down,
        }


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD on a loss, from random starts. `loss`: "crossentropy", "dlr" or "margin"."""

    steps: int = 100
    loss: str = "crossentropy"

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise StudyError(f"Unknown loss {self.loss!r}; known are {', '.join(LOSSES)}.")

    def program(self, targeted):
        return APGDSteps(self.norm, self.loss, targeted, targeted)

    def numbers(self):
        # Checkpoints at 0.22 of the steps, then ever closer by 0.03, at least 0.06 apart (section 3.2).
        return {
            "shorter": np.int32(max(int(0.03 * self.steps), 1)),
            "shortest": np.int32(max(int(0.06 * self.steps), 1)),
        }

    def refinement(self):
        return long_step(self)

    def begin(self, problem, x, seed):
        n = len(x)
        return {
            "x": x,
            "previous": x,
            "best": x,
            "best_gradient": np.zeros_like(x),
            "loss": np.full(n, np.inf, "float32"),
            "best_loss": np.full(n, -np.inf, "float32"),
            "checked_loss": np.full(n, -np.inf, "float32"),
            "halved": np.ones(n, bool),
            "size": 2 * problem.epsilon,
            "rises": np.zeros(n, "int32"),
            "since": np.zeros(n, "int32"),
            "period": np.full(n, max(int(0.22 * self.steps), 1), "int32"),
        }

    def own_start(self, problem, seed, attempt):
        # On the boundary of the ball, as in the authors' code.
        delta = random_in_ball(self.norm, problem, seed, attempt)
        delta /= np.asarray(self.norm.size(delta))[:, None, None, None]
        return problem.images + problem.epsilon[:, None, None, None] * delta


@dataclass(frozen=True, kw_only=True)
class APGDCE(APGD):
    """APGD on the cross-entropy, the first attack of AutoAttack."""

    name: str = "apgd_ce"


@dataclass(frozen=True, kw_only=True)
class APGDDLR(APGD):
    """APGD on the difference-of-logits ratio; on the margin with two classes, which have no DLR."""

    name: str = "apgd_dlr"
    loss: str = "dlr"


@dataclass(frozen=True, kw_only=True)
class APGDT(TowardsEach, APGD):
    """Targeted APGD on the DLR, the second attack of AutoAttack."""

    name: str = "apgd_t"
    loss: str = "dlr"

    def program(self, targeted):
        return APGDSteps(self.norm, self.loss, True, targeted)
