"""Perturbations by spatial frequency, in the discrete cosine transform of Shao et al. 2021 (section 4.3 there).

The transform is orthonormal (type II), so energies of coefficients add up to the energy of the perturbation, and it
sees no edge where an image ends, as a Fourier transform would. Frequencies are in cycles per pixel: coefficient k of N
has k / 2N, up to 0.5 along one axis and sqrt(0.5) along the diagonal.
"""

import numpy as np
from scipy.fft import dctn, idctn


def radius(height: int, width: int) -> np.ndarray:
    """The radial frequency of each coefficient, cycles per pixel, (height, width)."""
    return np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))


def filtered(perturbations, cutoff: float, keep: str) -> np.ndarray:
    """Perturbations (n, H, W, C) with only their frequencies below ("low") or from ("high") the cutoff on, float32.

    The two add up to the whole, as in Shao et al. 2021, equation 2; nothing is scaled up again, so that a filtered
    perturbation is a part of the original one.
    """
    perturbations = np.asarray(perturbations, np.float64)
    coefficients = dctn(perturbations, axes=(1, 2), norm="ortho")
    low = radius(*perturbations.shape[1:3]) < cutoff
    coefficients *= (low if keep == "low" else ~low)[None, :, :, None]
    return idctn(coefficients, axes=(1, 2), norm="ortho").astype(np.float32)
