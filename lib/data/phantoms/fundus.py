"""Phantom fundus photographs of diabetic retinopathy grades 0 to 4, in EyePACS' (Kaggle) layout.

Grades after the international scale (Wilkinson et al. 2003, doi:10.1016/S0161-6420(03)00475-5): 0 none;
1 microaneurysms only; 2 more than that; 3 haemorrhages in all quadrants, venous beading; 4 new vessels or
preretinal haemorrhage. Drusen and dust, which resemble exudates and haemorrhages a little, come at any grade.
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

GRADES = (0, 1, 2, 3, 4)
PROPORTIONS = (0.40, 0.14, 0.16, 0.15, 0.15)
DISC = (0.52, -0.03)  # centre of the optic disc of a right eye; the fovea lies near the origin
FOVEA = (-0.06, 0.06)


def _arcades(rng, size):
    """Vascular tree: the coverages (size, size) of veins and arteries, and the paths of the great veins."""
    t = np.linspace(0, 1, 28)[:, None]
    veins, arteries = [], []
    for up in (-1, 1):
        for kind, inset in ((veins, 0.0), (arteries, 0.07)):
            reach = rng.uniform(0.60, 0.72) - inset
            p1 = np.add(DISC, (rng.uniform(-0.02, 0.1), up * reach * 0.95))  # temporal arcade, around the macula
            p2 = np.array([rng.uniform(-0.25, -0.1), up * reach * 1.15])
            p3 = np.array([-1.1, up * rng.uniform(0.25, 0.6)])
            kind.append(_bezier(np.array(DISC), p1, p2, p3, t))
            q2 = np.add(DISC, (0.35, up * rng.uniform(0.3, 0.5)))  # nasal arcade
            q3 = np.add(DISC, (0.7, up * rng.uniform(0.45, 0.95)))
            kind.append(_bezier(np.array(DISC), np.add(DISC, (0.08, up * 0.25)), q2, q3, t))
    thin = np.linspace(1, 0.4, 27)
    maps = []
    for trunks, width in ((np.array(veins), 0.044), (np.array(arteries), 0.032)):
        trunks = trunks + 0.012 * portable(np.sin, np.linspace(0, rng.uniform(12, 22), 28))[:, None] * rng.uniform(
            -1, 1, (4, 1, 2)
        )
        twigs = offshoots(rng, trunks, 16, (0.35, 0.8), 0.6)
        leaves = offshoots(rng, twigs, 24, (0.12, 0.35), 0.6)
        maps.append(
            np.maximum.reduce(
                [
                    strokes(size, trunks, width * thin),
                    0.85 * strokes(size, twigs, width * 0.5 * thin),
                    0.6 * strokes(size, leaves, np.array([[width * 0.25]])),
                ]
            )
        )
    return maps, np.array(veins)


def _bezier(p0, p1, p2, p3, t):
    u = 1 - t
    return u * u * u * p0 + 3 * u * u * t * p1 + 3 * u * t * t * p2 + t * t * t * p3


def _eye(rng, size):
    """A healthy retina (size, size, 3), the right eye."""
    x, y = grid(size)
    dark = rng.random()
    base = np.array([0.86, 0.44, 0.19]) * (1 - dark) + np.array([0.62, 0.26, 0.11]) * dark
    image = np.tile(base.astype(np.float32), (size, size, 1))
    shade(image, 1 + 0.035 * noise(rng, size, 4, 3))
    streaks = noise(rng, size, 10) * ramp(distance(x, y), 0.2, 0.9)  # choroid, seen through
    paint(image, base * (1.15, 1.25, 1.3), ramp(np.abs(streaks), 0.25, 0.05) * rng.uniform(0, 0.28))
    glow = distance(x - DISC[0], y - DISC[1])
    paint(image, base * (1.12, 1.3, 1.4), portable_map(np.exp, -((glow / 0.5) ** 2)) * 0.55)
    fovea = distance(x - FOVEA[0], (y - FOVEA[1]) * 1.1)
    paint(image, base * (0.62, 0.5, 0.5), portable_map(np.exp, -((fovea / 0.2) ** 2)) * 0.75)
    (veins, arteries), _ = maps = _arcades(rng, size)
    calm = ramp(fovea, 0.1, 0.26)  # the fovea has no vessels
    paint(image, base * (0.56, 0.30, 0.32), veins * calm * 0.85)
    paint(image, base * (0.78, 0.46, 0.42), arteries * calm * 0.8)
    radius = rng.uniform(0.125, 0.155)
    disc = radius - distance(x - DISC[0], (y - DISC[1]) * 0.9)
    under = 1 - 0.55 * np.maximum(veins, arteries)
    paint(image, (0.97, 0.78, 0.48), ramp(disc, -0.012, 0.02) * under * 0.92)
    cup = radius * rng.uniform(0.35, 0.6) - distance(x - DISC[0] + 0.015, y - DISC[1])
    paint(image, (1.0, 0.93, 0.74), ramp(cup, -0.02, 0.03) * (1 - 0.4 * veins) * 0.85)
    reflex = distance(x - FOVEA[0], y - FOVEA[1])
    paint(image, base * (1.2, 1.3, 1.3), portable_map(np.exp, -((reflex / 0.025) ** 2)) * rng.uniform(0, 0.7))
    return image, maps[1]


def _around(rng, count, low=0.15, high=0.85):
    """Points (count, 2) in the ring around the fovea, off the optic disc."""
    r, a = np.sqrt(rng.uniform(low**2, high**2, 4 * count + 4)), rng.uniform(0, 2 * np.pi, 4 * count + 4)
    points = np.array(FOVEA) + np.stack([r * portable(np.cos, a), r * portable(np.sin, a)], axis=1)
    return points[distance(*(points - DISC).T) > 0.2][:count]


def _lesions(rng, size, grade, veins):
    """What makes the grade: list of (color, coverage), in the order of painting."""
    made = []
    if grade == 0:
        return made
    slight = grade == 2 and rng.random() < 0.4  # barely more than microaneurysms
    many = (3, 9) if slight else {1: (2, 9), 2: (6, 16), 3: (14, 24), 4: (8, 22)}[grade]
    count = int(rng.integers(*many))
    tiny = spots(size, _around(rng, count), rng.uniform(0.016, 0.026, count))
    made.append(((0.45, 0.05, 0.04), soften(tiny, 0.006) * 0.9))
    if grade == 1:
        return made
    blots = int(rng.integers(*((1, 4) if slight else {2: (3, 9), 3: (16, 28), 4: (5, 18)}[grade])))
    where = _around(rng, blots, 0.2, 0.9)
    blot = spots(
        size,
        where,
        rng.uniform(0.025, 0.035 if slight else 0.06, blots),
        rng.uniform(0.55, 1, blots),
        rng.uniform(0, 180, blots),
    )
    made.append(((0.38, 0.03, 0.03), soften(blot, 0.01) * 0.9))
    if slight:
        return made
    if rng.random() < 0.7:  # hard exudates: bright, waxy, in clusters and rings
        for centre in _around(rng, int(rng.integers(1, 4)), 0.12, 0.55):
            n = int(rng.integers(7, 18))
            a, r = rng.uniform(0, 2 * np.pi, n), rng.choice((0.05, 0.11)) * rng.normal(1, 0.25, n)
            where = centre + np.stack([r * portable(np.cos, a), r * portable(np.sin, a)], axis=1)
            made.append(((0.99, 0.90, 0.48), soften(spots(size, where, rng.uniform(0.012, 0.028, n)), 0.004) * 0.95))
    if grade == 3 or rng.random() < 0.35:  # cotton wool: pale, feathery
        n = int(rng.integers(1, 5))
        wool = spots(size, _around(rng, n, 0.35, 0.8), rng.uniform(0.05, 0.09, n), 0.65, rng.uniform(0, 180, n))
        made.append(((0.97, 0.86, 0.66), soften(wool, 0.03) * 0.8))
    if grade == 3:  # venous beading: sausages along the veins
        some = veins[:, 5:20:2].reshape(-1, 2)
        made.append(((0.40, 0.07, 0.06), soften(spots(size, some, np.full(len(some), 0.03)), 0.006) * 0.75))
    if grade == 4:
        made += _proliferative(rng, size, veins)
    return made


def _proliferative(rng, size, veins):
    """New vessels at the disc or elsewhere, and often a boat-shaped preretinal haemorrhage."""
    x, y = grid(size)
    made = []
    places = [DISC] if rng.random() < 0.6 else []
    while len(places) < 2:
        places.append(veins[rng.integers(len(veins)), rng.integers(9, 20)])
    for place in places:
        stems = branches(rng, place, rng.uniform(0, 2 * np.pi, 7), rng.uniform(0.18, 0.34, 7), 2.2, 14)
        frond = np.concatenate([stems, offshoots(rng, stems, 14, (0.06, 0.16), 2.2)])
        made.append(((0.60, 0.08, 0.06), strokes(size, frond, np.array([[0.013]])) * 0.9))
    if rng.random() < 0.65:
        cx, cy = _around(rng, 1, 0.3, 0.6)[0].tolist()
        half = rng.uniform(0.16, 0.32)
        boat = np.minimum(1 - distance((x - cx) / half, (y - cy) / (half * 0.75)), (y - cy) * 6 / half)
        made.append(((0.36, 0.02, 0.03), ramp(boat + 0.05 * noise(rng, size, 9), 0.0, 0.15) * 0.95))
    if rng.random() < 0.3:  # a fibrous veil
        veil = noise(rng, size, 4) - 2.5 * distance(x - float(places[0][0]), y - float(places[0][1]))
        made.append(((0.86, 0.80, 0.66), ramp(veil, -0.2, 0.8) * 0.55))
    return made


def draw(grade: int, size: int, subject: np.random.Generator, photo: np.random.Generator, left: bool = False):
    """One fundus photograph.

    grade: 0 to 4. `subject` decides the retina, `photo` lesions, view and light; `left` mirrors the eye, so
    that the disc is on the left. Returns a uint8 RGB image (size, size, 3), black outside the round field,
    and the mask (size, size), 0 or 255, of all lesions of retinopathy.
    """
    retina, field, disease, confounders, film = subject.spawn(1)[0], *photo.spawn(4)
    x, y = grid(size)
    image, veins = _eye(retina, size)
    if confounders.random() < 0.25:  # drusen: soft, pale, near the macula
        n = int(confounders.integers(4, 14))
        drusen = spots(size, FOVEA + confounders.normal(0, 0.13, (n, 2)), confounders.uniform(0.012, 0.028, n))
        paint(image, (0.94, 0.74, 0.42), soften(drusen, 0.012) * 0.6)
    found = np.zeros((size, size), np.float32)
    for color, coverage in _lesions(disease, size, grade, veins):
        paint(image, color, coverage)
        found = np.maximum(found, coverage)

    matrix = camera(size, field.normal(0, 5), field.uniform(1.0, 1.18), field.uniform(-0.07, 0.07, 2), left)
    image = photograph(image, matrix, cv2.BORDER_REFLECT_101)
    found = photograph(found, matrix)
    radius = distance(x, y)
    light = 1 - field.uniform(0.1, 0.35) * radius**2 + field.uniform(-0.15, 0.15) * x + field.uniform(-0.1, 0.1) * y
    shade(image, light)
    if film.random() < 0.25:  # dust on the lens: gray smudges
        n = int(film.integers(1, 5))
        dust = spots(size, film.uniform(-0.7, 0.7, (n, 2)), film.uniform(0.02, 0.04, n))
        shade(image, 1 - 0.3 * soften(dust, 0.02))
    if film.random() < 0.3:  # crescent of stray light at the edge of the field
        a = film.uniform(0, 2 * math.pi)
        away = distance(x + 0.25 * math.cos(a), y + 0.25 * math.sin(a))
        paint(image, (0.75, 0.65, 0.85), 0.5 * ramp(away, 1.0, 1.22))
    image = soften(image, film.uniform(0, 0.010))
    gains = film.uniform(0.8, 1.12) * film.uniform((0.96, 0.9, 0.8), (1.04, 1.1, 1.25))
    image *= gains.astype(np.float32)
    image += film.uniform(0.004, 0.016) * film.standard_normal(image.shape, np.float32)
    aperture = ramp(radius, 0.975, 0.955)
    if field.random() < 0.4:
        aperture = aperture * ramp(np.abs(y), 0.86, 0.845)  # the sensor cuts top and bottom
    if field.random() < 0.3:  # the notch that tells which way is up
        aperture = np.maximum(aperture, ramp(np.maximum(np.abs(x - 0.685) * 1.4, np.abs(y - 0.685)), 0.06, 0.05))
    shade(image, aperture)
    image += 0.012
    mask = np.where((found > 0.15) & (aperture > 0.5), np.uint8(255), np.uint8(0))
    return to_uint8(image), mask
