"""What all attacks share: the check of their input, starts, restarts, and the loop that drives their steps.

An iterative attack is a dataclass that says how its state begins and gives the program that advances it.
The driver here holds a pool of images, advances all that still stand by a few steps inside one compiled
program, lets those leave that have fallen, and goes on. Random numbers depend on the seed and an image's
index alone, so neither batches nor who has left change what happens to an image.
"""

from dataclasses import dataclass, field, fields, replace

import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.gradients import as_classifier, subgraph, value_and_gradient
from lib.attacks.norms import L2, Linf, get_norm, per_image

POOL = 256  # images whose state is kept in memory at once


@dataclass
class Problem:
    """Images to be attacked, all arrays with the images along the first axis.

    images float32 (n, H, W, C), labels and targets int32 (n,), epsilon float32 (n,), index int64 (n,).
    """

    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    epsilon: np.ndarray
    index: np.ndarray

    def __getitem__(self, rows):
        return Problem(**{name: array[rows] for name, array in vars(self).items()})

    def __len__(self):
        return len(self.images)

    def tensors(self):
        """What compiled programs are given."""
        return {name: array for name, array in vars(self).items() if name != "index"}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack with its numbers; calling it attacks.

    `name`: as tables show it. `norm`: "linf" or "l2", or a norm object. `restarts`: own starts tried.
    `leave`: images that have fallen leave the batch (off only to compare with libraries that go on).
    `batch_size`: images in one compiled call; it changes the time, not the result. On a CPU small batches
    are faster, because what a step leaves for its gradient then stays in the cache.
    """

    name: str
    norm: Linf | L2 = field(default_factory=Linf)
    restarts: int = 1
    leave: bool = True
    batch_size: int = 16

    def __post_init__(self):
        object.__setattr__(self, "norm", get_norm(self.norm))
        for name in ("restarts", "steps", "batch_size"):
            value = getattr(self, name, 1)
            if not isinstance(value, int) or value < 1:
                raise StudyError(f"{name} of an attack must be a whole number of at least 1, not {value!r}.")

    def __call__(self, model, images, labels, epsilon, start=None, seed=0, *, targets=None, index=None, progress=None):
        """Adversarial images, float32 (n, H, W, C), within [0, 255] and the epsilon-balls of `images`.

        Parameters
        ----------
        model : Keras model or Classifier (make one Classifier for several calls: it keeps what is compiled).
        images : (n, H, W, C) in [0, 255].  labels : int (n,), the true classes.
        epsilon : radius in pixel units (1/255 of the range), one number or one per image (n,).
        start : (n, H, W, C) or None: starting points tried before the attack's own.
        seed : of the random starts.
        targets : int (n,) or None: classes to be reached; any wrong class will do when None.
        index : int (n,) or None: the images' identities for random numbers; their positions when None.
        progress : called as progress(settled, n) as images are settled, or None.

        An image that stands comes back as the attack's last try, still with its label. Raises StudyError for
        shapes, ranges or labels that do not fit.
        """
        classifier = as_classifier(model)
        targeted = targets is not None
        problem = checked_problem(classifier, images, labels, epsilon, targets, index)
        start = None if start is None else np.asarray(start, "float32")
        if start is not None and start.shape != problem.images.shape:
            raise StudyError(f"start has shape {start.shape}, but the images have {problem.images.shape}.")
        adversarial = problem.images.copy()
        pool = max(POOL, self.batch_size)
        for first in range(0, len(problem), pool):
            rows = np.arange(first, min(first + pool, len(problem)))
            attempts = list(range(0 if start is None else -1, self.attempts(classifier, targeted)))
            while attempts and len(rows):
                # A batch costs little less for being half empty: few images share theirs between several attempts.
                share = max(self.batch_size // len(rows), 1)
                together, attempts = attempts[:share], attempts[share:]
                parts = [self.prepare(classifier, problem[rows], max(attempt, 0), targeted) for attempt in together]
                tried = zip(together, parts, strict=True)
                x = [start[rows] if attempt < 0 else self.own_start(part, seed, attempt) for attempt, part in tried]
                here = Problem(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(problem)})
                found = self.attempt(classifier, here, np.concatenate(x), targeted, seed)
                if attempts or len(together) > 1:
                    fell = fallen(classifier.predict(found, self.batch_size), here, targeted).reshape(len(together), -1)
                    found = found.reshape(*fell.shape, *found.shape[1:])
                    # What the first attempt found that found anything, as if one had come after the other.
                    adversarial[rows] = found[np.where(fell.any(0), fell.argmax(0), -1), np.arange(len(rows))]
                    rows = rows[~fell.any(0)]
                else:
                    adversarial[rows] = found
            if progress:
                progress(min(first + pool, len(problem)), len(problem))
        return adversarial

    def attempts(self, classifier, targeted):
        """How often an image is attacked before it counts as standing."""
        return self.restarts

    def prepare(self, classifier, problem, attempt, targeted):
        """The problem as one attempt sees it."""
        return problem

    def own_start(self, problem, seed, attempt):
        """Starting points of the attack itself: the images."""
        return problem.images

    def attempt(self, classifier, problem, start, targeted, seed):
        """Adversarial images from one start."""
        program = self.program(targeted)
        state = self.begin(problem, into_ball(self.norm, problem, start), seed)
        state["fallen"] = np.zeros(len(problem), bool)
        result, active, done = np.empty_like(problem.images), np.arange(len(problem)), 0
        while len(active) and done < self.steps:
            # Most images fall early: look often at first, so that few steps are spent in vain.
            steps = min(max(1, done // 4), self.steps - done) if self.leave else self.steps
            state = self.advance(classifier, program, problem, state, done, steps)
            done += steps
            gone = state["fallen"] & self.leave
            for row in np.flatnonzero(gone):  # and later attempts on the same image, whose outcome no longer counts
                gone[row:] |= problem.index[row:] == problem.index[row]
            result[active[gone]] = state["x"][gone]
            stay = ~gone
            active, problem = active[stay], problem[stay]
            state = {name: array[stay] for name, array in state.items()}
        result[active] = state["x"]
        return result

    def advance(self, classifier, program, problem, state, done, steps):
        """The state after `steps` more steps, batch by batch."""
        numbers = {"done": np.int32(done), "steps": np.int32(steps), "leave": np.bool_(self.leave)}
        numbers |= self.numbers()
        parts = []
        for first in range(0, len(problem), self.batch_size):
            rows = slice(first, first + self.batch_size)
            part = {name: array[rows] for name, array in state.items()}
            parts.append(classifier.run(program, problem[rows].tensors(), part, numbers))
        return {name: np.concatenate([part[name] for part in parts]) for name in state}

    def program(self, targeted):
        """The Program that advances the state; `targeted` says whether only the target counts as fallen."""
        raise NotImplementedError

    def begin(self, problem, x, seed):
        """The state before the first step: arrays by name, per image, among them "x", what is handed back."""
        raise NotImplementedError

    def numbers(self):
        """Scalars that the program is given; they can change without a new compilation."""
        return {}

    def numbers_shown(self):
        """What the attack is run with, for tables: its numbers by name, without the norm and what changes no result."""
        hidden = {"name", "norm", "leave", "batch_size", "state"}
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in hidden}

    def refinement(self):
        """An attack of a step or two that goes on from an image which fell at a larger budget; None for none.

        Its successes count as the attack's, so it must know no more of the model than the attack does.
        """
        return None

    def with_(self, **changes):
        """A copy with other numbers."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class TowardsEach(Attack):
    """Goes towards each of the `target_classes` likeliest wrong classes in turn, though any wrong class counts. Given
    targets, it goes for these alone."""

    target_classes: int = 9

    def attempts(self, classifier, targeted):
        return self.restarts * (1 if targeted else min(self.target_classes, classifier.classes - 1))

    def prepare(self, classifier, problem, attempt, targeted):
        return problem if targeted else likeliest_target(classifier, problem, attempt // self.restarts)


class Program:
    """The compiled loop of an attack; a frozen dataclass of what a compilation depends on."""

    def __call__(self, classifier, problem, state, numbers):
        def body(i, state):
            return self.step(classifier, problem, state, numbers, numbers["done"] + i)

        problem = problem | box(problem)  # here, and not in every step
        return ops.fori_loop(0, numbers["steps"], subgraph(body), state)

    def step(self, classifier, problem, state, numbers, k):
        """The state after step k (from 0), with "fallen" true for images that no longer need the attack."""
        raise NotImplementedError


def ascent(classifier, problem, x, loss):
    """Loss (n,), scores (n, classes) and gradient of the loss at x, for the tensors of a problem."""

    def objective(x):
        scores = classifier.scores_of(x)
        return loss(scores, problem["labels"], problem["targets"], classifier.through), scores

    return value_and_gradient(objective, x)


def random_in_ball(norm, problem, seed, attempt):
    """Perturbations, uniform in the unit ball, that depend on seed, attempt and each image's index alone."""
    shape = problem.images.shape[1:]
    return np.stack([norm.random(np.random.default_rng([seed, i, attempt]), shape) for i in problem.index])


def likeliest_target(classifier, problem, rank):
    """The problem with each image's wrong class of a rank (0 is the likeliest) as its target."""
    logits = classifier.logits(problem.images)
    logits[np.arange(len(problem)), problem.labels] = -np.inf
    return replace(problem, targets=np.argsort(-logits, axis=1, kind="stable")[:, rank].astype("int32"))


def checked_problem(classifier, images, labels, epsilon, targets=None, index=None):
    """The arguments of an attack as a Problem. Raises StudyError where they do not fit each other."""
    images = np.array(images, "float32")
    n = len(images)
    expected = tuple(classifier.network.input_shape[1:])
    if images.ndim != 4 or any(e not in (None, s) for e, s in zip(expected, images.shape[1:], strict=True)):
        raise StudyError(f"The model takes images of shape (n, *{expected}); these have {images.shape}.")
    if n and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 255):
        raise StudyError("Images must be pixels in [0, 255], and some are not: give bounds for another range.")
    if n and images.max() <= 1 and (images % 1).any():
        raise StudyError("Images lie in [0, 1], not in [0, 255]: give bounds=(0, 1), or multiply them by 255.")
    labels = checked_classes(classifier, "labels", labels, n)
    targets = labels if targets is None else checked_classes(classifier, "targets", targets, n)
    epsilon = np.broadcast_to(np.asarray(epsilon, "float32"), (n,)).copy()
    if not (np.isfinite(epsilon).all() and (epsilon >= 0).all()):
        raise StudyError("epsilon must be a finite number of at least 0, in pixel units.")
    index = np.arange(n) if index is None else np.asarray(index, "int64")
    if index.shape != (n,) or len(np.unique(index)) != n or (index < 0).any():
        raise StudyError(f"index must be {n} different whole numbers of at least 0, one per image.")
    return Problem(images, labels, targets, epsilon, index)


def checked_classes(classifier, name, values, n):
    """Class numbers as int32 (n,), from whole numbers of any type or one-hot rows.

    Raises StudyError if they are not classes of the model.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.shape[1] == classifier.classes and _is_one_hot(values):
        values = values.argmax(axis=1)
    if values.shape != (n,):
        raise StudyError(f"{name} must be {n} whole numbers, one per image; they have shape {values.shape}.")
    if values.dtype.kind not in "biuf" or (values.dtype.kind == "f" and not (values % 1 == 0).all()):
        found = values.dtype if values.dtype.kind not in "f" else f"{values[values % 1 != 0][0]}"
        raise StudyError(f"{name} must be whole numbers, the classes of the images; found {found}.")
    if n and not (values.min() >= 0 and values.max() < classifier.classes):
        raise StudyError(
            f"{name} must be classes 0 to {classifier.classes - 1} of the model; "
            f"they go from {values.min()} to {values.max()}."
        )
    return values.astype("int32")


def _is_one_hot(rows):
    return rows.dtype.kind in "biuf" and np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()


def fallen(predicted, problem, targeted):
    """Whether predictions (n,) are what the attack wants: the target, or any class but the label."""
    return predicted == problem.targets if targeted else predicted != problem.labels


def fallen_scores(scores, problem, targeted):
    """The same inside a program: from scores (n, classes) and the tensors of a problem."""
    predicted = ops.cast(ops.argmax(scores, axis=-1), "int32")
    return predicted == problem["targets"] if targeted else predicted != problem["labels"]


def into_ball(norm, problem, x):
    """NumPy images brought into the epsilon-balls of a Problem and into [0, 255]."""
    delta = norm.project(np.asarray(x, "float32") - problem.images, problem.epsilon)
    return np.clip(problem.images + delta, 0, 255)


def box(problem):
    """The lowest and highest values that the pixels of a problem's tensors may have in an L-inf ball."""
    images, epsilon = problem["images"], per_image(problem["epsilon"])
    return {"low": ops.maximum(images - epsilon, 0.0), "high": ops.minimum(images + epsilon, 255.0)}


def choose(condition, new, old):
    """`new` where a per-image condition (n,) holds, else `old`; tensors of any rank."""
    return ops.where(ops.reshape(condition, (-1,) + (1,) * (len(new.shape) - 1)), new, old)
