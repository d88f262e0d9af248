"""Drawing tools of the phantoms: soft fields, noise, strokes, spots and a camera.

Pictures are float32 in [0, 1] on a square canvas with coordinates x (right) and y (down) in [-1, 1].
A coverage is a float32 map (size, size) in [0, 1]: how much of each pixel a drawn thing covers.

The same seed gives the same picture on every processor. NumPy and OpenCV pick kernels by processor, and these differ
in last bits, which a rounding to gray levels now and then makes visible. Sums, products and square roots are exact in
IEEE arithmetic; what is not goes through `portable`, and OpenCV's filters through `plain_opencv`.
"""

from functools import cache

import cv2
import numpy as np

from lib.data.decoding import plain_opencv

SUPERSAMPLING = 4


def portable(function, *values) -> np.ndarray:
    """A NumPy function such as np.exp of float64 values, rounded to multiples of 2**-24.

    Processors give float64 results that differ by about 2**-53, and so all but never in the rounded ones.
    """
    exact = function(*(np.asarray(value, np.float64) for value in values))
    return np.round(exact * 2.0**24) / 2.0**24


def portable_map(function, *values) -> np.ndarray:
    """The same as float32, for maps of pixels."""
    return portable(function, *values).astype(np.float32)


@cache
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of the pixel centres, each (size, size) float32, read-only."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(axis, axis)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step: 0 below `low`, 1 above `high` (the two swapped if high < low), cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def distance(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Length of (dx, dy), ten times faster than np.hypot."""
    return np.sqrt(dx * dx + dy * dy)


@cache
def _splines(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the first of its four knots, int (size,), and their cubic B-spline weights, float32 (size, 4).

    Scaled so that white noise on the knots comes out with unit variance.
    """
    position = (np.arange(size) + 0.5) * cells / size
    first = np.floor(position).astype(int)
    t = position - first
    u = 1 - t
    outer, inner = u * u * u / 6, 2 / 3 - t * t + t * t * t / 2
    weights = np.stack([outer, inner, 2 / 3 - u * u + u * u * u / 2, t * t * t / 6], axis=1)
    return first, (weights / np.sqrt((weights * weights).sum(axis=1).mean())).astype(np.float32)


def noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 1) -> np.ndarray:
    """Smooth noise (size, size), zero mean, unit variance; `cells` knots across, doubled in each octave."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        first, weights = _splines(size, cells << octave)
        knots = rng.standard_normal(((cells << octave) + 3,) * 2, np.float32) * np.float32(0.5**octave)
        # Four taps a side, not a matrix product, whose last bits depend on the processor.
        rows = sum(weights[:, tap, None] * knots[first + tap] for tap in range(4))
        total += sum(rows[:, first + tap] * weights[:, tap] for tap in range(4))
    return total / np.sqrt(np.float32(sum(0.25**octave for octave in range(octaves))))


def paint(image: np.ndarray, color, alpha: np.ndarray) -> None:
    """Lay `color` (a triple) in place over the RGB image (size, size, 3), with opacity `alpha`."""
    # Merged planes, as NumPy is slow at broadcasting over a last axis of three.
    alpha = alpha.astype(np.float32, copy=False)
    shade(image, 1 - alpha)
    image += cv2.merge([alpha * float(channel) for channel in color])


def shade(image: np.ndarray, light: np.ndarray) -> None:
    """Multiply the RGB image (size, size, 3) in place by `light` (size, size)."""
    image *= cv2.merge([light.astype(np.float32, copy=False)] * 3)


def _subpixels(points: np.ndarray, size: int) -> np.ndarray:
    """Canvas coordinates to OpenCV's fixed-point pixels (4 fractional bits) of the supersampled canvas."""
    return np.round(((points + 1) / 2 * size * SUPERSAMPLING - 0.5) * 16).astype(np.int32)


def _downsample(fine: np.ndarray) -> np.ndarray:
    with plain_opencv():
        for _ in range(2):  # halving is OpenCV's fast path
            fine = cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return fine.astype(np.float32) / 255


def strokes(size: int, paths: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Coverage of curves: paths (curves, points, 2), widths (curves, points - 1) or broadcast to it."""
    fine = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    segments = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)
    pixels = np.broadcast_to(widths, (paths.shape[0], paths.shape[1] - 1)).ravel() * fine.shape[0] / 2
    thickness = np.maximum(1, np.round(pixels)).astype(int)
    corners = _subpixels(segments, size)
    for value in np.unique(thickness):
        cv2.polylines(fine, list(corners[thickness == value]), False, 255, int(value), cv2.LINE_8, 4)
    return _downsample(fine)


def spots(size: int, centres, radii, aspect=1.0, angles=0.0) -> np.ndarray:
    """Coverage of ellipses: centres (n, 2), long radii (n,), aspect = short/long, angles in degrees."""
    fine = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    centres = _subpixels(np.asarray(centres, float).reshape(-1, 2), size)
    radii, aspect, angles = np.broadcast_arrays(radii, aspect, angles, np.empty(len(centres)))[:3]
    scale = fine.shape[0] * 8  # half the canvas, in 1/16 pixel
    for centre, radius, ratio, angle in zip(centres, radii, aspect, angles, strict=True):
        axes = (max(8, int(radius * scale)), max(8, int(radius * ratio * scale)))
        cv2.ellipse(fine, centre.tolist(), axes, float(angle), 0, 360, 255, -1, cv2.LINE_8, 4)
    return _downsample(fine)


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with sigma in canvas units."""
    pixels = sigma * image.shape[0] / 2
    if pixels <= 0.2:
        return image
    with plain_opencv():
        return cv2.GaussianBlur(image, (0, 0), pixels)


def branches(rng: np.random.Generator, origins, angles, lengths, bend: float, points: int = 10) -> np.ndarray:
    """Wandering curves (curves, points, 2) from `origins` (curves, 2); `angles` in radians, 0 = right."""
    angles = np.asarray(angles, float)
    turns = rng.normal(0, bend / np.sqrt(points), (len(angles), points - 1)).cumsum(axis=1)
    heading = angles[:, None] + turns
    steps = np.stack([portable(np.cos, heading), portable(np.sin, heading)], axis=2) * (
        np.asarray(lengths) / (points - 1)
    ).reshape(-1, 1, 1)
    origins = np.broadcast_to(origins, (len(angles), 2))[:, None]
    return np.concatenate([origins, origins + steps.cumsum(axis=1)], axis=1)


def offshoots(rng: np.random.Generator, paths: np.ndarray, count: int, length: tuple, bend: float) -> np.ndarray:
    """`count` branches off random points of `paths`, at 25 to 60 degrees; `length` is a range."""
    which = rng.integers(len(paths), size=count)
    where = rng.integers(1, paths.shape[1] - 2, size=count)
    start, following = paths[which, where], paths[which, where + 1]
    heading = portable(np.arctan2, *(following - start).T[::-1])
    angles = heading + rng.choice([-1, 1], count) * rng.uniform(0.45, 1.05, count)
    return branches(rng, start, angles, rng.uniform(*length, count), bend, paths.shape[1])


def camera(size: int, angle: float, scale: float, shift: tuple[float, float], mirror: bool = False) -> np.ndarray:
    """Affine matrix (2, 3) of a view: mirrored, turned by `angle` degrees, scaled, shifted (canvas units)."""
    a, b = (scale * float(portable(f, np.deg2rad(angle))) for f in (np.cos, np.sin))
    side, centre = (-1.0 if mirror else 1.0), (size - 1) / 2
    shift = [part * size / 2 + centre for part in shift]
    return np.array([
        [a * side, b, shift[0] - a * side * centre - b * centre],
        [-b * side, a, shift[1] + b * side * centre - a * centre],
    ])  # fmt: skip


def photograph(layer: np.ndarray, matrix: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The layer as this camera sees it; 0 beyond its edges, unless `border` says otherwise."""
    with plain_opencv():
        return cv2.warpAffine(layer, matrix, layer.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=border)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round [0, 1] floats to uint8, saturating."""
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
