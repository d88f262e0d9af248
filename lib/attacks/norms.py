"""Norms of perturbations. Sizes are in pixel units: perturbations are differences of images in [0, 255].

A norm is all that distinguishes an L-inf from an L2 attack: how large a perturbation is, how it is brought
back into the ball, which step of unit size climbs fastest, and where a random start lies.

`size` and `project` take tensors or NumPy arrays and give the same. NumPy's stay NumPy's: TensorFlow reads them in
place, and how its sums round depends on where in memory they happen to lie, so a table would not come out the
same twice.
"""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lib import StudyError


def _library(array):
    return np if isinstance(array, np.ndarray) else ops


def per_image(values):
    """(n,) values as (n, 1, 1, 1), to be broadcast over the pixels of n images."""
    return ops.reshape(values, (-1, 1, 1, 1))


@dataclass(frozen=True)
class Linf:
    """The largest change of any pixel and channel."""

    name = "linf"

    def size(self, delta):
        """Norms (n,) of perturbations (n, H, W, C)."""
        of = _library(delta)
        return of.max(of.abs(delta), axis=(1, 2, 3))

    def project(self, delta, epsilon):
        """The nearest perturbations within the balls of radii `epsilon` (n,)."""
        of = _library(delta)
        epsilon = of.reshape(epsilon, (-1, 1, 1, 1))
        return of.clip(delta, -epsilon, epsilon)

    def inside(self, problem, x):
        """The same for images and the tensors of a problem, within [0, 255] too; for use inside a program."""
        return ops.minimum(ops.maximum(x, problem["low"]), problem["high"])

    def direction(self, gradient):
        """The perturbations of size 1 that raise a loss with this gradient fastest; 0 where it is 0."""
        return ops.sign(gradient)

    def rates(self, weights):
        """How fast each pixel moves along the shortest way to a hyperplane with these weights: all alike."""
        return ops.ones((1, 1, 1, 1), weights.dtype)

    def random(self, generator, shape):
        """One perturbation of `shape` (H, W, C), uniform in the unit ball, from a NumPy generator."""
        return generator.uniform(-1, 1, shape).astype("float32")


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the change over all pixels and channels."""

    name = "l2"

    def size(self, delta):
        """Norms (n,) of perturbations (n, H, W, C)."""
        of = _library(delta)
        return of.sqrt(of.sum(of.square(delta), axis=(1, 2, 3)))

    def project(self, delta, epsilon):
        """The nearest perturbations within the balls of radii `epsilon` (n,)."""
        of = _library(delta)
        size = of.maximum(self.size(delta), 1e-30)
        return delta * of.reshape(of.minimum(epsilon / size, 1.0), (-1, 1, 1, 1))

    def inside(self, problem, x):
        """The same for images and the tensors of a problem, within [0, 255] too; for use inside a program."""
        delta = self.project(x - problem["images"], problem["epsilon"])
        return ops.clip(problem["images"] + delta, 0.0, 255.0)

    def direction(self, gradient):
        """The perturbations of size 1 that raise a loss with this gradient fastest; 0 where it is 0."""
        # Scaled by its largest entry first: squares of a float32 gradient underflow below 1e-19.
        largest = per_image(Linf().size(gradient))
        scaled = gradient / ops.where(largest > 0, largest, 1.0)
        return scaled / per_image(ops.maximum(self.size(scaled), 1.0))

    def rates(self, weights):
        """How fast each pixel moves along the shortest way to a hyperplane with these weights: by weight."""
        return ops.abs(weights)

    def random(self, generator, shape):
        """One perturbation of `shape` (H, W, C), uniform in the unit ball, from a NumPy generator."""
        direction = generator.standard_normal(shape)
        radius = generator.uniform() ** (1 / direction.size)
        return (radius * direction / np.linalg.norm(direction)).astype("float32")


NORMS = {norm.name: norm for norm in (Linf(), L2())}


def get_norm(norm):
    """The norm object of a name ("linf" or "l2"), or the object itself. Raises StudyError for another."""
    if norm in NORMS.values():
        return norm
    if norm not in NORMS:
        raise StudyError(f"Unknown norm {norm!r}; known are {', '.join(NORMS)}.")
    return NORMS[norm]
