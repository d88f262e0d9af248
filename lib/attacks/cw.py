"""Carlini and Wagner's L2 attack (2017, "Towards evaluating the robustness of neural networks", VI.A). It
minimises squared distance + c * max(margin of the true class, 0) over w with
image = 255 * (tanh(w) + 1) / 2, by Adam, and searches the smallest c that succeeds."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.base import Attack, Program, choose, fallen_scores
from lib.attacks.gradients import value_and_gradient
from lib.attacks.losses import LOSSES, TARGETED
from lib.attacks.norms import L2


def pixels(w):
    """Images in [0, 255] of unbounded variables."""
    return 127.5 * (ops.tanh(w) + 1.0)


@dataclass(frozen=True)
class CWSteps(Program):
    """Adam steps (Kingma and Ba 2015) on the objective, in units of the range."""

    targeted: bool

    def step(self, classifier, problem, state, numbers, k):
        loss = (TARGETED if self.targeted else LOSSES)["margin"]

        def objective(w):
            x = pixels(w)
            scores = classifier.scores_of(x)
            shortfall = -loss(scores, problem["labels"], problem["targets"], classifier.through)
            distance = ops.sum(ops.square((x - problem["images"]) / 255.0), axis=(1, 2, 3))
            return distance + state["constant"] * ops.maximum(shortfall, 0.0), (scores, x, distance)

        _, (scores, x, distance), gradient = value_and_gradient(objective, state["w"])
        size = 255.0 * ops.sqrt(distance)
        down = fallen_scores(scores, problem, self.targeted)
        better = ops.logical_and(down, size < state["size"])
        t = ops.cast(k, "float32") + 1.0
        first = 0.9 * state["first"] + 0.1 * gradient
        second = 0.999 * state["second"] + 0.001 * ops.square(gradient)
        move = (first / (1 - 0.9**t)) / (ops.sqrt(second / (1 - 0.999**t)) + 1e-8)
        return {
            "x": choose(better, x, state["x"]),
            "w": state["w"] - numbers["learning_rate"] * move,
            "first": first,
            "second": second,
            "size": ops.where(better, size, state["size"]),
            "constant": state["constant"],
            "fallen": ops.logical_or(state["fallen"], down),
        }


@dataclass(frozen=True, kw_only=True)
class CW(Attack):
    """Carlini and Wagner's L2 attack. It looks for the smallest perturbation, whatever epsilon; one larger
    than epsilon counts as none, and the image comes back unchanged.

    `steps` of Adam for each of `searches` values of the constant, from `constant` on. Without the published
    `confidence`, a margin that is asked for: what counts here is who falls.
    """

    name: str = "cw"
    norm: L2 = L2()  # noqa: RUF009 - frozen, as the dataclass that has it
    steps: int = 100
    searches: int = 6
    constant: float = 0.1
    learning_rate: float = 0.01

    minimal = True  # one run finds the smallest perturbation: no search over budgets

    def __post_init__(self):
        super().__post_init__()
        if self.norm != L2():
            raise StudyError(f"The attack 'cw' is an L2 attack; its norm cannot be {self.norm.name!r}.")

    def program(self, targeted):
        return CWSteps(targeted)

    def numbers(self):
        return {"learning_rate": np.float32(self.learning_rate)}

    def begin(self, problem, x, seed):
        w = np.arctanh(np.clip(x / 127.5 - 1.0, -0.999999, 0.999999)).astype("float32")
        return {"w": w, "first": np.zeros_like(w), "second": np.zeros_like(w)}

    def attempt(self, classifier, problem, start, targeted, seed):
        n = len(problem)
        best, size = problem.images.copy(), np.full(n, np.inf, "float32")
        low, high = np.zeros(n, "float32"), np.full(n, np.inf, "float32")
        constant = np.full(n, self.constant, "float32")
        for _ in range(self.searches):
            state = self.begin(problem, start, seed)
            state |= {"x": best, "size": size, "constant": constant, "fallen": np.zeros(n, bool)}
            state = self.advance(classifier, self.program(targeted), problem, state, 0, self.steps)
            best, size, fell = state["x"], state["size"], state["fallen"]
            high = np.where(fell, constant, high)
            low = np.where(fell, low, constant)
            constant = np.where(np.isfinite(high), (low + high) / 2, constant * 10).astype("float32")
        best = np.where((size <= problem.epsilon)[:, None, None, None], best, problem.images)
        return np.clip(best, 0, 255)
