"""Square attack (Andriushchenko et al. 2020, "Square attack: a query-efficient black-box adversarial attack
via random search", algorithms 1 to 3): changes one random square at a time and keeps what lowers the margin.
It needs scores alone, no gradient, so masked gradients do not stop it."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.base import Attack, Program, choose, fallen_scores
from lib.attacks.losses import LOSSES, TARGETED
from lib.attacks.norms import L2, Linf, per_image

# The share of pixels in a square halves after these queries of 10,000 (section 5 of the paper).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def side_of_square(share, height, width, k, steps, least=1):
    """Side of the square at step k, a scalar tensor, from the share of pixels at first."""
    query = ops.cast(k, "float32") / ops.cast(steps, "float32") * 10000
    halvings = ops.sum(ops.cast(query > np.array(HALVINGS, "float32"), "float32"))
    side = ops.round(ops.sqrt(share * 0.5**halvings * height * width))
    return ops.minimum(ops.maximum(side, least), max(min(height, width) - 1, 1))


def window(corners, side, height, width):
    """Row and column of every pixel within a square, (n, H, 1, 1) and (n, 1, W, 1), and who is in it.

    corners: (n, 2) in [0, 1), the place of the square among all places it can have.
    """
    top = ops.floor(corners[:, 0] * (height - side + 1))
    left = ops.floor(corners[:, 1] * (width - side + 1))
    rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1)) - per_image(top)
    columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1)) - per_image(left)
    inside_rows = ops.logical_and(rows >= 0, rows < side)
    inside_columns = ops.logical_and(columns >= 0, columns < side)
    return rows, columns, ops.logical_and(inside_rows, inside_columns)


def pyramid(rows, columns, height, width, table):
    """A bump on a height x width rectangle: the sum of centred squares with weights 1/i^2 (equation 3)."""
    middle_row, middle_column = height // 2, width // 2
    distance = ops.maximum(ops.abs(rows - middle_row), ops.abs(columns - middle_column))
    levels = ops.maximum(middle_row, middle_column) + 1
    last = len(table) - 1
    total = ops.take(table, ops.cast(ops.clip(levels, 0, last), "int32"))
    bump = ops.maximum(total - ops.take(table, ops.cast(ops.clip(distance, 0, last), "int32")), 0.0)
    valid = ops.logical_and(rows >= 0, rows < height)
    valid = ops.logical_and(valid, ops.logical_and(columns >= 0, columns < width))
    bump = ops.where(valid, bump, 0.0)
    return bump / ops.maximum(_length(bump, axis=(1, 2, 3)), 1e-12)


def two_bumps(rows, columns, side, table):
    """The pattern of algorithm 3: a bump above its negative, of length 1."""
    upper = side // 2
    pattern = pyramid(rows, columns, upper, side, table)
    pattern = pattern - pyramid(rows - upper, columns, side - upper, side, table)
    return pattern / ops.maximum(_length(pattern, axis=(1, 2, 3)), 1e-12)


def bump_table(size):
    """Partial sums of 1/i^2: entry j is the sum over i = 1 .. j, float32 (size + 2,)."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, size + 2) ** 2.0)]).astype("float32")


def _length(values, axis):
    return ops.sqrt(ops.sum(ops.square(values), axis=axis, keepdims=True))


@dataclass(frozen=True)
class SquareSteps(Program):
    """Queries of the Square attack."""

    norm: Linf | L2
    targeted: bool

    def step(self, classifier, problem, state, numbers, k):
        x = state["x"]
        draws = ops.take(state["draws"], k, axis=1)
        propose = self.propose_l2 if self.norm.name == "l2" else self.propose_linf
        proposed = propose(problem, x, draws, numbers, k)
        scores = classifier.scores_of(proposed)
        loss = TARGETED["crossentropy"] if self.targeted else LOSSES["margin"]
        loss = loss(scores, problem["labels"], problem["targets"], classifier.through)
        down = fallen_scores(scores, problem, self.targeted)
        take = ops.logical_or(loss > state["loss"], down)
        take = ops.logical_and(take, ops.logical_not(state["fallen"]))
        return {
            "x": choose(take, proposed, x),
            "loss": ops.where(take, loss, state["loss"]),
            "draws": state["draws"],
            "fallen": ops.logical_or(state["fallen"], down),
        }

    def propose_linf(self, problem, x, draws, numbers, k):
        """Algorithm 2: one square of one colour, each channel at plus or minus epsilon; the start itself at step 0."""
        height, width, channels = x.shape[1:]
        side = side_of_square(numbers["share"], height, width, k, numbers["queries"])
        _, _, inside = window(draws[:, :2], side, height, width)
        up = ops.reshape(draws[:, 4 : 4 + channels] > 0.5, (-1, 1, 1, channels))
        coloured = ops.where(up, problem["high"], problem["low"])
        return ops.where(ops.logical_and(inside, k > 0), coloured, x)

    def propose_l2(self, problem, x, draws, numbers, k):
        """Algorithm 3: mass moves from a second square, and from what is left of the budget, to the first."""
        images, epsilon = problem["images"], per_image(problem["epsilon"])
        height, width, channels = images.shape[1:]
        side = side_of_square(numbers["share"], height, width, k, numbers["queries"], least=3)
        side = ops.minimum(side + (side + 1) % 2, min(height, width) - 1 + min(height, width) % 2)
        rows, columns, first = window(draws[:, :2], side, height, width)
        _, _, second = window(draws[:, 2:4], side, height, width)
        delta = x - images
        table = bump_table(max(height, width))
        upright = two_bumps(rows, columns, side, table)
        lying = two_bumps(columns, rows, side, table)
        pattern = ops.where(per_image(draws[:, -1]) < 0.5, upright, lying)
        signs = ops.reshape(ops.sign(draws[:, 4 : 4 + channels] - 0.5), (-1, 1, 1, channels))
        in_first = ops.where(first, delta, 0.0)
        in_both = ops.where(ops.logical_or(first, second), delta, 0.0)
        old = in_first / (1e-12 + _length(in_first, axis=(1, 2)))
        new = ops.where(first, pattern * signs + old, 0.0)
        left = ops.maximum(ops.square(epsilon) - ops.square(_length(delta, axis=(1, 2, 3))), 0.0)
        budget = ops.sqrt(left / channels + ops.square(_length(in_both, axis=(1, 2))))
        new = new / (1e-12 + _length(new, axis=(1, 2))) * budget
        delta = ops.where(first, new, ops.where(second, 0.0, delta))
        delta = delta / (1e-12 + _length(delta, axis=(1, 2, 3))) * epsilon
        return ops.where(k == 0, x, ops.clip(images + delta, 0.0, 255.0))


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack, the fourth attack of AutoAttack. `steps`: queries per image. `share`: of the pixels, in the first
    square."""

    name: str = "square"
    steps: int = 5000
    share: float = 0.8

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise StudyError(f"share of the square attack must be above 0 and at most 1, not {self.share}.")

    def program(self, targeted):
        return SquareSteps(self.norm, targeted)

    def numbers(self):
        return {"share": np.float32(self.share), "queries": np.int32(self.steps)}

    def own_start(self, problem, seed, attempt):
        """Vertical stripes (L-inf), or a grid of 5 x 5 patterns (L2)."""
        height, width, channels = problem.images.shape[1:]
        delta = np.empty_like(problem.images)
        for row, i in enumerate(problem.index):
            generator = np.random.default_rng([seed, i, attempt])
            if self.norm.name == "linf":
                delta[row] = generator.choice([-1.0, 1.0], (1, width, channels))
            else:
                delta[row] = grid_of_bumps(generator, height, width, channels)
        return problem.images + problem.epsilon[:, None, None, None] * delta

    def begin(self, problem, x, seed):
        # Four corners, a sign per channel, one orientation, for each query.
        shape = (self.steps, 5 + x.shape[-1])
        draws = [np.random.default_rng([seed, i, 1 << 20]).random(shape, "float32") for i in problem.index]
        return {"x": x, "loss": np.full(len(x), -np.inf, "float32"), "draws": np.stack(draws)}


def grid_of_bumps(generator, height, width, channels):
    """The start of the L2 attack: patterns side by side with random signs, of length 1 together."""
    side = max(min(height, width) // 5, 2)
    place = np.arange(side, dtype="float32")
    pattern = two_bumps(place[None, :, None, None], place[None, None, :, None], side, bump_table(side))
    delta = np.zeros((height, width, channels), "float32")
    for top in range((height % side) // 2, height - side + 1, side):
        for left in range((width % side) // 2, width - side + 1, side):
            tile = np.asarray(pattern)[0, :, :, 0]
            tile = tile if generator.random() < 0.5 else tile.T
            signs = generator.choice([-1.0, 1.0], channels)
            delta[top : top + side, left : left + side] = tile[:, :, None] * signs
    return delta / np.linalg.norm(delta)
