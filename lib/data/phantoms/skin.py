"""Phantom dermatoscopy: seven kinds of lesion, each drawn with its textbook cues, in HAM10000's layout.

Cues after the consensus terms of dermatoscopy (Kittler et al. 2016, doi:10.1016/j.jaad.2015.12.038). The
cartoons overlap on purpose: some nevi are dysplastic, some melanomas tame, some keratoses lack cysts, and
any lesion may be nondescript.
"""

import math

import cv2
import numpy as np

from .common import (
    branches,
    camera,
    distance,
    grid,
    noise,
    offshoots,
    paint,
    photograph,
    portable,
    portable_map,
    ramp,
    shade,
    soften,
    spots,
    strokes,
    to_uint8,
)

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PROPORTIONS = (0.13, 0.13, 0.15, 0.12, 0.15, 0.20, 0.12)


def _mix(first, second, t: float) -> np.ndarray:
    return np.asarray(first, np.float32) * (1 - t) + np.asarray(second, np.float32) * t


def _outline(rng, size, radius, wobble, rough, aspect=0.8):
    """Depth below the lesion's border: 0 on it, 1 at the centre, negative outside; in units of the radius."""
    x, y = grid(size)
    ratio = math.sqrt(rng.uniform(aspect, 1))
    rho = distance(x * ratio, y / ratio) / radius
    return 1 - rho + wobble * noise(rng, size, 4) + rough * noise(rng, size, 12)


def _network(rng, size, period, jitter):
    """Honeycomb of pigment: coverage of the lines; the holes repeat every `period` (canvas units)."""
    x, y = grid(size)
    x = x + jitter * noise(rng, size, 5)
    y = y + jitter * noise(rng, size, 5)
    k, turn = 4 * math.pi / (math.sqrt(3) * period), rng.uniform(0, np.pi)
    waves = sum(
        portable_map(np.cos, k * (math.cos(turn + a) * x + math.sin(turn + a) * y)) for a in (0, 2.0944, 4.1888)
    )
    return ramp(waves + 0.35 * noise(rng, size, 9), 0.7, -1.0)


def _scatter(rng, count, radius):
    """Points (count, 2) spread evenly over the disc of this radius."""
    r, a = radius * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    return np.stack([r * portable(np.cos, a), r * portable(np.sin, a)], axis=1)


def _flat(size, color):
    return np.tile(np.asarray(color, np.float32), (size, size, 1))


def _nv(rng, size, skin):
    """Melanocytic nevus: round, symmetric, one brown, a regular network, globules or no structure."""
    dysplastic = rng.random() < 0.28
    radius = rng.uniform(0.5, 0.72)
    depth = _outline(rng, size, radius, 0.09 if dysplastic else 0.035, 0.03 if dysplastic else 0.012)
    brown = _mix((0.62, 0.42, 0.29), (0.36, 0.22, 0.15), rng.random())
    image = _flat(size, brown)
    kind = rng.choice(3, p=(0.6, 0.2, 0.2))
    if kind == 0:
        lines = _network(rng, size, rng.uniform(0.11, 0.16), 0.02)
        paint(image, _mix(brown, skin, 0.3), (1 - lines) * 0.7)
        paint(image, brown * 0.6, lines * 0.7)
    elif kind == 1:
        dots = spots(size, _scatter(rng, 45, radius * 0.9), rng.uniform(0.03, 0.05, 45))
        paint(image, brown * 0.5, soften(dots, 0.008) * 0.8)
    paint(image, brown * 0.7, ramp(depth, 0.3, 1.0) * 0.6)
    if dysplastic:
        paint(image, brown * rng.uniform(0.35, 0.6), ramp(noise(rng, size, 3), 0.3, 1.2) * 0.7)
    return image, ramp(depth, -0.05, 0.2) * rng.uniform(0.85, 0.97)


def _mel(rng, size, skin):
    """Melanoma: asymmetric, irregular border, several colours, atypical network, blue veil, black dots."""
    tame = rng.random() < 0.28
    depth = _outline(rng, size, rng.uniform(0.52, 0.7), 0.1 if tame else 0.2, 0.04 if tame else 0.1, 0.6)
    x, y = grid(size)
    side = rng.uniform(0, 2 * np.pi)
    lobe = 1 - distance(x - 0.45 * math.cos(side), y - 0.45 * math.sin(side)) / rng.uniform(0.25, 0.42)
    depth = np.maximum(depth, lobe + 0.12 * noise(rng, size, 6))
    brown = _mix((0.50, 0.31, 0.20), (0.32, 0.19, 0.13), rng.random())
    image = _flat(size, brown)
    lines = _network(rng, size, rng.uniform(0.17, 0.24), 0.08) * ramp(noise(rng, size, 3), -0.4, 0.6)
    paint(image, brown * 0.4, lines * 0.8)
    lean = math.cos(side) * x + math.sin(side) * y  # the colours sit on one side
    paint(image, (0.66, 0.38, 0.30), ramp(noise(rng, size, 3) - lean, 0.1, 0.8) * (0.35 if tame else 0.75))
    paint(image, (0.12, 0.08, 0.08), ramp(noise(rng, size, 4) + 1.5 * lean, 0.1, 0.7) * (0.5 if tame else 0.9))
    if not tame or rng.random() < 0.5:
        veil = ramp(noise(rng, size, 3) + 0.8 * lean, 0.2, 0.7) * ramp(depth, 0.1, 0.4)
        paint(image, (0.44, 0.50, 0.62), veil * rng.uniform(0.6, 0.9))
    rim = branches(rng, _scatter(rng, 14, 0.6), rng.uniform(0, 6.3, 14), np.full(14, 0.001), 0.1, 3)
    paint(image, (0.08, 0.05, 0.05), strokes(size, rim, rng.uniform(0.03, 0.06, (14, 1))) * 0.8)
    return image, ramp(depth, -0.03, 0.1) * 0.96


def _bkl(rng, size, skin):
    """Seborrheic keratosis: stuck on, sharp border, waxy; milia-like cysts, comedo openings, fissures."""
    plain = rng.random() < 0.25
    radius = rng.uniform(0.5, 0.72)
    depth = _outline(rng, size, radius, 0.07, 0.03, 0.65)
    waxy = _mix((0.68, 0.54, 0.36), (0.44, 0.34, 0.27), rng.random())
    image = _flat(size, waxy)
    shade(image, 1 + 0.10 * noise(rng, size, 9, 2))
    fissures = ramp(np.abs(noise(rng, size, 6)), 0.16, 0.04)
    paint(image, waxy * 0.5, fissures * (0.1 if plain else rng.uniform(0.35, 0.7)))
    if not plain:
        plugs, cysts = rng.integers(5, 12), rng.integers(6, 14)
        openings = spots(size, _scatter(rng, plugs, radius * 0.8), rng.uniform(0.035, 0.06, plugs), 0.8)
        paint(image, (0.22, 0.13, 0.08), soften(openings, 0.01) * 0.9)
        milia = spots(size, _scatter(rng, cysts, radius * 0.85), rng.uniform(0.025, 0.05, cysts))
        paint(image, (0.97, 0.93, 0.80), soften(milia, 0.012) * 0.95)
    paint(image, waxy * 0.55, ramp(depth, 0.16, 0.02) * 0.7)  # the edge of a thing glued on
    return image, ramp(depth, -0.02, 0.025) * 0.98


def _bcc(rng, size, skin):
    """Basal cell carcinoma: pearly pink, arborising vessels, blue-gray ovoid nests, shiny rolled rim."""
    radius = rng.uniform(0.52, 0.72)
    depth = _outline(rng, size, radius, 0.07, 0.03)
    pearl = _mix((0.90, 0.66, 0.64), (0.84, 0.56, 0.54), rng.random())
    image = _flat(size, pearl)
    shade(image, 1 + 0.05 * noise(rng, size, 5, 2))
    paint(image, (0.98, 0.90, 0.88), ramp(noise(rng, size, 5), 0.5, 1.4) * ramp(depth, 0.6, 0.1) * 0.9)
    nests = rng.integers(2, 8) if rng.random() < 0.8 else 0
    if nests:
        where = _scatter(rng, nests, radius * 0.75)
        ovoid = spots(
            size, where, rng.uniform(0.05, 0.14, nests), rng.uniform(0.5, 0.9, nests), rng.uniform(0, 180, nests)
        )
        paint(image, (0.36, 0.38, 0.47), soften(ovoid, 0.02) * rng.uniform(0.7, 0.95))
    if rng.random() < 0.3:
        (cx, cy), (x, y) = _scatter(rng, 1, 0.3)[0].tolist(), grid(size)
        ulcer = 1 - distance(x - cx, y - cy) / 0.16
        paint(image, (0.55, 0.16, 0.10), ramp(ulcer + 0.25 * noise(rng, size, 8), 0, 0.3) * 0.9)
    trunks = rng.integers(2, 5)
    start = rng.uniform(0, 2 * np.pi, trunks)
    edge = radius * 0.95 * np.stack([portable(np.cos, start), portable(np.sin, start)], axis=1)
    trunk = branches(rng, edge, start + np.pi + rng.normal(0, 0.3, trunks), np.full(trunks, radius * 1.2), 0.5)
    twigs = offshoots(rng, trunk, 4 * trunks, (0.15, 0.4), 0.6)
    vessels = np.maximum(
        strokes(size, trunk, np.linspace(0.04, 0.016, trunk.shape[1] - 1)),
        strokes(size, twigs, np.linspace(0.02, 0.008, twigs.shape[1] - 1)),
    )
    paint(image, (0.70, 0.10, 0.12), vessels * rng.uniform(0.6, 0.95))
    return image, ramp(depth, -0.08, 0.2) * 0.93


def _akiec(rng, size, skin):
    """Actinic keratosis, Bowen's disease: ill-defined red patch, strawberry pattern, white-yellow scale."""
    radius = rng.uniform(0.55, 0.75)
    depth = _outline(rng, size, radius, 0.12, 0.05, 0.7)
    red = _mix((0.82, 0.46, 0.40), (0.74, 0.36, 0.34), rng.random())
    image = _flat(size, red)
    shade(image, 1 + 0.06 * noise(rng, size, 10, 2))
    strawberry = 1 - _network(rng, size, rng.uniform(0.17, 0.25), 0.06)  # seeds: pale follicles in a red net
    paint(image, red * (0.9, 0.6, 0.6), (1 - strawberry) * 0.35)
    paint(image, (0.94, 0.78, 0.66), strawberry * rng.uniform(0.45, 0.8))
    flakes = ramp(noise(rng, size, 9, 2), 0.5, 1.0) * ramp(noise(rng, size, 3), -0.3, 0.5)
    paint(image, (0.96, 0.92, 0.80), flakes * rng.uniform(0.5, 0.95))
    if rng.random() < 0.25:
        paint(image, (0.56, 0.36, 0.28), ramp(noise(rng, size, 4), 0.2, 1.0) * 0.6)  # pigmented variant
    return image, ramp(depth, -0.12, 0.32) * 0.9


def _vasc(rng, size, skin):
    """Angioma: well-demarcated red, purple or black lacunae parted by pale septa."""
    radius = rng.uniform(0.42, 0.62)
    depth = _outline(rng, size, radius, 0.05, 0.02)
    hue = rng.random()
    red = _mix((0.78, 0.16, 0.16), (0.46, 0.12, 0.30), hue)
    image = _flat(size, _mix(red, (0.86, 0.62, 0.62), 0.5))
    count = rng.integers(12, 26)
    where, sizes = _scatter(rng, count, radius * 0.85), rng.uniform(0.08, 0.17, count)
    aspect, turn = rng.uniform(0.7, 1, count), rng.uniform(0, 180, count)
    septa = spots(size, where[:1], 0.0)
    for i in range(0, count, 6):  # in layers, so that a later lacuna keeps its own pale rim
        some = slice(i, i + 6)
        septa = spots(size, where[some], sizes[some] * 1.22, aspect[some], turn[some])
        paint(image, _mix(red, (0.92, 0.72, 0.72), 0.55), septa * 0.7)
        shade = _mix(red, (0.20, 0.05, 0.14), rng.uniform(0, 0.55))
        lacuna = spots(size, where[some], sizes[some], aspect[some], turn[some])
        paint(image, shade, soften(lacuna, 0.01))
        glint = spots(size, where[some] - sizes[some, None] * 0.3, sizes[some] * 0.3)
        paint(image, _mix(shade, (1, 0.8, 0.8), 0.4), soften(glint, 0.02) * 0.6)
    return image, ramp(depth, -0.03, 0.08) * 0.96


def _df(rng, size, skin):
    """Dermatofibroma: white scar-like centre within a delicate light brown network that fades outwards."""
    radius = rng.uniform(0.5, 0.7)
    depth = _outline(rng, size, radius, 0.06, 0.02)
    tan = _mix((0.74, 0.52, 0.40), (0.60, 0.40, 0.30), rng.random())
    image = _flat(size, tan)
    lines = _network(rng, size, rng.uniform(0.11, 0.15), 0.012)
    paint(image, _mix(tan, skin, 0.5), (1 - lines) * 0.7)
    paint(image, tan * 0.7, lines * 0.6)
    scar = ramp(depth + 0.10 * noise(rng, size, 7, 2), *((0.45, 0.75) if rng.random() < 0.75 else (0.8, 1.2)))
    paint(image, _mix((0.97, 0.90, 0.86), skin, rng.uniform(0, 0.35)), scar * rng.uniform(0.65, 0.95))
    return image, ramp(depth, -0.1, 0.35) * 0.85


_PAINTERS = (_akiec, _bcc, _bkl, _df, _mel, _nv, _vasc)


def _skin(rng, size, tone):
    """Bare skin: a tone, mottling, and the fine criss-cross of skin lines."""
    image = _flat(size, tone)
    shade(image, 1 + 0.025 * noise(rng, size, 3, 2))
    red = noise(rng, size, 7)
    image += cv2.merge([0.008 * red, -0.008 * red, -0.008 * red])
    x, y = grid(size)
    turn, bend = rng.uniform(0, np.pi), noise(rng, size, 4)
    for angle in (turn, turn + 1.1):
        waves = (math.cos(angle) * x + math.sin(angle) * y) * rng.uniform(50, 75) + 2 * bend
        lines = portable_map(np.sin, waves)
        shade(image, 1 + 0.008 * lines)
    return image


def _hair(rng, image):
    count = int(rng.choice((0, 4, 9, 16), p=(0.4, 0.3, 0.2, 0.1)))
    if not count:
        return
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, count)
    origin = rng.uniform(-1.1, 1.1, (count, 2)) - 0.6 * np.stack(
        [portable(np.cos, angle), portable(np.sin, angle)], axis=1
    )
    paths = branches(rng, origin, angle, rng.uniform(0.9, 2.0, count), 0.45, 14)
    color = _mix((0.16, 0.10, 0.07), (0.45, 0.30, 0.18), rng.random())
    taper = np.linspace(1, 0.45, 13) * rng.uniform(0.014, 0.026, (count, 1))
    paint(image, color, strokes(image.shape[0], paths, taper) * rng.uniform(0.6, 0.95))


def _bubbles(rng, image):
    """Air in the immersion gel: pale rings with a glint."""
    size, count = image.shape[0], int(rng.integers(2, 8))
    where, radii = rng.uniform(-0.95, 0.95, (count, 2)), rng.uniform(0.03, 0.1, count)
    ring = spots(size, where, radii) - spots(size, where, radii * 0.82)
    paint(image, (0.98, 0.96, 0.95), np.clip(ring, 0, 1) * 0.45)
    paint(image, (1, 1, 1), soften(spots(size, where - radii[:, None] * 0.4, radii * 0.22), 0.006) * 0.9)


def _ruler(rng, image):
    """Millimetre scale along the lower edge, as dermatoscopes etch it."""
    ticks = np.arange(-0.9, 0.95, 0.09)
    height = np.where(np.arange(len(ticks)) % 5 == 0, 0.14, 0.07)
    base = rng.uniform(0.9, 0.96)
    paths = np.stack([np.stack([ticks, ticks * 0 + base], 1), np.stack([ticks, base - height], 1)], axis=1)
    paint(image, (0.15, 0.13, 0.13), strokes(image.shape[0], paths, np.array([[0.012]])) * 0.8)


def draw(label: int, size: int, subject: np.random.Generator, photo: np.random.Generator):
    """One dermatoscopic photograph of one lesion.

    label: index into CLASSES. `subject` decides skin and lesion, `photo` the view, hair, light and noise, so
    one subject under two photos is the same lesion seen twice. Returns a uint8 RGB image (size, size, 3) and
    the lesion's mask (size, size), 0 or 255.
    """
    person, lesion = subject.spawn(2)
    tone = _mix(
        _mix((0.93, 0.76, 0.70), (0.86, 0.66, 0.56), person.random()), (0.74, 0.54, 0.44), person.random() * 0.5
    )
    layer, alpha = _PAINTERS[label](lesion, size, tone)
    if lesion.random() < 0.35:  # a nondescript lesion: the cues fade into a brown that every kind shares
        fade = lesion.uniform(0.3, 0.85)
        paint(layer, layer.mean(axis=(0, 1)), np.full_like(alpha, fade))
        paint(layer, _mix((0.60, 0.38, 0.30), tone, 0.25), np.full_like(alpha, 0.6 * fade))
    mirror = bool(photo.random() < 0.5)
    view = camera(size, photo.uniform(0, 360), photo.uniform(0.62, 1.05), photo.uniform(-0.16, 0.16, 2), mirror)
    shade(layer, alpha)
    layer, alpha = photograph(layer, view), photograph(alpha, view)
    image = _skin(photo, size, tone)
    shade(image, 1 - alpha)
    image += layer

    if photo.random() < 0.25:
        _bubbles(photo, image)
    _hair(photo, image)
    if photo.random() < 0.15:
        _ruler(photo, image)
    x, y = grid(size)
    slope = photo.uniform(-0.09, 0.09, 2).tolist()
    light = 1 + slope[0] * x + slope[1] * y
    radius = distance(x, y)
    if photo.random() < 0.3:  # the round field of the dermatoscope darkens the corners
        light = light * ramp(radius, photo.uniform(1.35, 1.5), photo.uniform(1.05, 1.2))
    else:
        light = light * (1 - 0.08 * radius**2)
    gains = photo.uniform(0.86, 1.08) * photo.uniform(0.96, 1.04, 3)
    image *= cv2.merge([light * gain for gain in gains.tolist()])
    image = soften(image, photo.uniform(0, 0.009))
    image += photo.uniform(0.006, 0.02) * photo.standard_normal(image.shape, np.float32)
    mask = np.where(alpha > 0.1, np.uint8(255), np.uint8(0))
    return to_uint8(image), mask
