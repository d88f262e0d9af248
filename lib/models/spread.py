"""How far an attention map spreads: whether the block attends anywhere."""

import numpy as np


def effective_positions(maps: np.ndarray) -> np.ndarray:
    """The number of positions that a map spreads over, the exponential of its entropy: shape (n,).

    `maps`: not negative, shape (n, h, w), of any scale. An even map spreads over all h w positions, one with a single
    peak over 1; whatever k positions share evenly spreads over k (Hill 1973, order 1).
    """
    p = _shares(maps)
    return np.exp(-np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1))


def peak(maps: np.ndarray) -> np.ndarray:
    """The largest value of each map over its mean, shape (n,): 1 for an even map, h w for a single peak."""
    return _shares(maps).max(axis=1) * np.prod(maps.shape[1:])


def _shares(maps):
    flat = np.asarray(maps, "float64").reshape(len(maps), -1)
    return flat / flat.sum(axis=1, keepdims=True)
