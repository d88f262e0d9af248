"""FGSM, BIM, MI-FGSM and PGD: one loop with different numbers.

    momentum <- decay * momentum + gradient / mean |gradient|
    x        <- clip(project(x + step_size * direction(momentum)), 0, 255)

with step_size = path_length * epsilon / steps.

| attack  | steps | path_length | decay | start  | source                             |
| ------- | ----- | ----------- | ----- | ------ | ---------------------------------- |
| FGSM    | 1     | 1           | 0     | image  | Goodfellow et al. 2015, section 4  |
| BIM     | 10    | 1           | 0     | image  | Kurakin et al. 2017, section 2.2   |
| MI-FGSM | 10    | 1           | 1     | image  | Dong et al. 2018, algorithm 1      |
| PGD     | 20    | 2.5         | 0     | random | Madry et al. 2018, sections 2.1, 5 |
"""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.base import Attack, Program, ascent, choose, fallen_scores, random_in_ball
from lib.attacks.losses import LOSSES, TARGETED
from lib.attacks.norms import L2, Linf, per_image


@dataclass(frozen=True)
class GradientSteps(Program):
    """Steps of a GradientAttack."""

    norm: Linf | L2
    loss: str
    targeted: bool
    momentum: bool

    def step(self, classifier, problem, state, numbers, k):
        loss = (TARGETED if self.targeted else LOSSES)[self.loss]
        _, scores, gradient = ascent(classifier, problem, state["x"], loss)
        down = fallen_scores(scores, problem, self.targeted)
        more = {}
        if self.momentum:
            gradient = numbers["decay"] * state["momentum"] + unit_mean(gradient)
            more = {"momentum": gradient}
        move = per_image(numbers["step"] * problem["epsilon"]) * self.norm.direction(gradient)
        x = self.norm.inside(problem, state["x"] + move)
        leaves = ops.logical_and(down, numbers["leave"])
        return {"x": choose(leaves, state["x"], x), "fallen": down} | more


def long_step(attack):
    """One step across the ball on the cross-entropy, with the norm and batches of an attack.

    From a point near the boundary between two classes it finds most of what a whole attack would, as its gradient
    already knows where the boundary lies.
    """
    return BIM(steps=1, path_length=2.0, norm=attack.norm, batch_size=attack.batch_size)


def unit_mean(gradient):
    """Gradients divided by their mean absolute value, which gives the same steps as dividing by their L1 norm
    (Dong et al. 2018, equation 6); 0 where the gradient is 0."""
    mean = ops.mean(ops.abs(gradient), axis=(1, 2, 3), keepdims=True)
    return gradient / ops.where(mean > 0, mean, 1.0)


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Steepest ascent on a loss within the ball, with momentum.

    `path_length`: sum of the step sizes, in epsilons. `decay`: of the momentum. `random_start`: start
    uniformly in the ball instead of at the image (a restart always does). `loss`: "crossentropy" or "margin".
    """

    steps: int
    path_length: float = 1.0
    decay: float = 0.0
    random_start: bool = False
    loss: str = "crossentropy"

    def __post_init__(self):
        super().__post_init__()
        if not self.path_length > 0 or not self.decay >= 0:
            raise StudyError("path_length of an attack must be above 0 and its decay at least 0.")
        if self.loss not in LOSSES:
            raise StudyError(f"Unknown loss {self.loss!r}; known are {', '.join(LOSSES)}.")

    def program(self, targeted):
        return GradientSteps(self.norm, self.loss, targeted, self.decay > 0)

    def numbers(self):
        return {"step": np.float32(self.path_length / self.steps), "decay": np.float32(self.decay)}

    def refinement(self):
        return long_step(self) if self.steps > 1 else None

    def begin(self, problem, x, seed):
        return {"x": x} | ({"momentum": np.zeros_like(x)} if self.decay else {})

    def own_start(self, problem, seed, attempt):
        if not self.random_start and attempt == 0:
            return problem.images
        unit = random_in_ball(self.norm, problem, seed, attempt)
        return problem.images + problem.epsilon[:, None, None, None] * unit


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method (Goodfellow et al. 2015); in L2, one step along the gradient."""

    name: str = "fgsm"
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Basic iterative method (Kurakin et al. 2017): steps of epsilon / steps from the image."""

    name: str = "bim"
    steps: int = 10


@dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Momentum iterative FGSM (Dong et al. 2018): BIM on accumulated gradients."""

    name: str = "mi_fgsm"
    steps: int = 10
    decay: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent (Madry et al. 2018): steps of 2.5 epsilon / steps from random starts."""

    name: str = "pgd"
    steps: int = 20
    path_length: float = 2.5
    random_start: bool = True
