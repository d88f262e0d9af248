"""Phantom chest radiographs with or without a pneumothorax, in ChestX-ray14's layout.

The picture is a sum of attenuations (soft tissue, lungs, ribs, heart, spine, vessels) under a film curve.
A pneumothorax is air between chest wall and lung: a band along apex and side without lung markings, ended by
the thin bright line of the visceral pleura.
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
    photograph,
    portable,
    portable_map,
    ramp,
    soften,
    spots,
    strokes,
    to_uint8,
)

CLASSES = ("no pneumothorax", "pneumothorax")
POSITIVE_SHARE = 0.45
OTHER_FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Emphysema", "Infiltration", "Mass", "Nodule")


def sample_findings(label: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Findings of one image, sorted; other findings are as likely with a pneumothorax as without."""
    others = rng.choice(OTHER_FINDINGS, size=rng.choice(3, p=(0.6, 0.3, 0.1)), replace=False).tolist()
    return tuple(sorted(others + ["Pneumothorax"] * int(label)))


def _body(rng):
    """The proportions of one patient, in canvas units."""
    return {
        "width": rng.uniform(0.66, 0.76),
        "top": rng.uniform(-0.78, -0.68),
        "dome": rng.uniform(0.40, 0.60),
        "heart": rng.uniform(0.85, 1.1),
        "lean": rng.uniform(-0.03, 0.03),
        "rib": rng.uniform(0.165, 0.2),
        "thick": rng.uniform(0.85, 1.1),
        "breast": rng.uniform(0.05, 0.14) if rng.random() < 0.5 else 0.0,
    }


def _power(value):
    """|value| ** 2.5, several times faster than the operator."""
    return value * value * np.sqrt(np.abs(value))


def _lung(body, lateral, y, side):
    """Depth below one lung's surface, negative outside; `lateral` grows from the midline to that side."""
    base = body["dome"]
    inner = 0.10 + 0.05 * ramp(y, -0.6, 0.3)
    centre = (body["width"] + inner) / 2 - 0.05 * ramp(y, 0.2, body["top"])
    half = (body["width"] - inner) / 2
    u, v = (lateral - centre) / half, np.minimum(y - base * 0.75, 0) / (base * 0.75 - body["top"])
    shell = (1 - _power(u) - _power(v)) * half / 2.5  # a superellipse; near its rim this is the distance to it
    # The diaphragm: a dome, the right one higher (liver), that falls to the costophrenic angle.
    peak = base - (0.05 if side < 0 else 0.0)
    dome = peak + 0.30 * _power(u + 0.15)
    return np.minimum(shell, (dome - y) * 0.8)


def _ribs(body, lateral, y):
    """Attenuation of the ribs of one side: posterior arches bright, anterior ends fainter."""
    u = np.clip((lateral - 0.08) / (body["width"] - 0.08), 0, 1.15)

    def arches(curve, spacing, width):
        phase = (y - curve) / spacing
        phase = np.abs(phase - np.round(phase)) * spacing
        return ramp(phase, width, width * 0.7) * (0.55 + 0.45 * ramp(phase, width * 0.2, width * 0.85))

    posterior = arches(0.05 - 0.16 * portable_map(np.sin, 2.4 * u) + 0.34 * u * u * u, body["rib"], 0.042)
    anterior = arches(0.02 + 0.52 * _power(np.maximum(1 - u, 0)) + 0.25 * _power(u), body["rib"] * 1.08, 0.046)
    return 0.19 * posterior + 0.09 * anterior * ramp(u, 0.3, 0.5)


def _vessels(rng, size, hilum, side):
    """Lung markings of one side: a tree that leaves the hilum and thins out."""
    start = np.array([side * hilum[0], hilum[1]]) + rng.normal(0, 0.02, (13, 2))
    angles = np.linspace(-1.35, 1.35, 13) + rng.normal(0, 0.1, 13)
    if side < 0:
        angles = np.pi - angles
    trunk = branches(rng, start, angles, rng.uniform(0.45, 0.75, 13), 0.35, 12)
    twigs = offshoots(rng, trunk, 46, (0.12, 0.38), 0.4)
    leaves = offshoots(rng, twigs, 60, (0.06, 0.2), 0.4)
    thin = np.linspace(1, 0.3, 11)
    return (
        strokes(size, trunk, 0.034 * thin)
        + 0.75 * strokes(size, twigs, 0.018 * thin)
        + 0.5 * strokes(size, leaves, np.array([[0.010]]))
    )


def _heart(body, scale, x, y):
    """Depth of heart and great vessels, positive inside."""
    scale = scale * body["heart"]
    a = math.radians(35)
    dx, dy = x - 0.13 - 0.1 * (scale - 1), y - body["dome"] + 0.2
    u, v = dx * math.cos(a) + dy * math.sin(a), -dx * math.sin(a) + dy * math.cos(a)
    ventricles = 0.3 * (1 - distance(u / (0.36 * scale), v / (0.27 * scale)))
    atrium = 0.25 * (1 - distance((x + 0.08) / (0.15 * scale), (y - body["dome"] + 0.2) / 0.26))
    arch = 0.12 * (1 - distance((x - 0.09) / 0.13, (y + 0.28) / 0.14))
    column = 0.115 + 0.02 * ramp(y, -0.3, 0.2) - np.abs(x - 0.01)
    return np.maximum.reduce([ventricles, atrium, arch, np.where(y < body["dome"], column, -1)])


def _pneumothorax(rng, body, side, x, y):
    """Depth in the collapsed lung on `side`: the lung's own shape, shrunk towards its lower inner end."""
    small = rng.random() < 0.2
    shrink = rng.uniform(0.80, 0.86) if small else rng.uniform(0.55, 0.80)
    anchor = rng.uniform(0.14, 0.26), body["dome"] + rng.uniform(-0.1, 0.15)
    ripple = 1 + 0.03 * portable_map(np.sin, 5 * y + rng.uniform(0, 6.3))
    lateral = anchor[0] + (side * x - anchor[0]) / (shrink * ripple)
    return _lung(body, lateral, anchor[1] + (y - anchor[1]) / shrink, side) * shrink


def draw(findings: tuple[str, ...], size: int, subject: np.random.Generator, photo: np.random.Generator):
    """One frontal radiograph.

    findings: names as in ChestX-ray14; "Pneumothorax" makes the positive. `subject` decides the patient's
    body, `photo` everything that changes between visits. Returns a uint8 grey image (size, size) and the
    mask (size, size), 0 or 255, of the air between chest wall and collapsed lung.
    """
    body = _body(subject)
    inner, collapse, disease, view, film = photo.spawn(5)
    x, y = grid(size)
    x = x - body["lean"] * y
    markings = subject.spawn(1)[0]
    sides = {side: _lung(body, side * x, y, side) for side in (-1, 1)}
    lungs = {side: ramp(depth, -0.012, 0.02) for side, depth in sides.items()}
    air = np.zeros_like(y)
    mask = np.zeros_like(y)
    trees = {side: _vessels(markings, size, (0.15, -0.02), side) for side in (-1, 1)}
    pleura = np.zeros_like(y)
    affected = int(collapse.choice((-1, 1)))
    if "Pneumothorax" in findings:
        depth = _pneumothorax(collapse, body, affected, x, y)
        mask = lungs[affected] * ramp(depth, 0.012, -0.012)
        pleura = ramp(np.abs(depth), 0.022, 0.004) * ramp(sides[affected], 0.015, 0.05)
        trees[affected] = trees[affected] * (1 - mask)

    # Soft tissue: torso, shoulders and neck; outside there is only air.
    shoulder = -0.98 + 0.34 * ramp(np.abs(x), 0.16, 1.0)
    torso = ramp(y - shoulder, -0.02, 0.06) * ramp(np.abs(x), 1.02, 0.86 + 0.06 * body["thick"])
    neck = ramp(np.abs(x), 0.26, 0.2)
    total = 0.80 * body["thick"] * np.maximum(torso, neck)
    total += 0.25 * ramp(y, -0.2, 0.9) * torso + 0.18 * ramp(np.abs(x), 0.7, 0.95) * torso * ramp(y, -0.9, -0.5)
    heart = _heart(body, 1.4 if "Cardiomegaly" in findings else 1.0, x, y)
    cardiac = ramp(heart, -0.025, 0.03)
    for side in (-1, 1):
        fold = 1 - distance((side * x - 0.42) / 0.36, (y - 0.34) / 0.30)
        total += body["breast"] * ramp(fold, 0, 0.35)
        emphysema = 0.08 if "Emphysema" in findings else 0.0
        air += lungs[side] * (0.50 + emphysema + 0.10 * ramp(sides[side], 0.0, 0.22))
        total += lungs[side] * (1 - cardiac) * 0.24 * soften(np.minimum(trees[side], 1), 0.008)
        cage = ramp(sides[side], -0.05, -0.03) * ramp(y, -0.74, -0.6) * ramp(y, 0.95, 0.6)
        cage = np.maximum(cage, 0.35 * ramp(side * x, 0.0, 0.05) * ramp(y, 0.3, 0.4) * ramp(y, 0.95, 0.6))
        total += _ribs(body, side * x, y) * cage
        hilum = ramp(distance((side * x - 0.17) / 0.10, (y + 0.02) / 0.17), 1.1, 0.1)
        total += 0.20 * hilum * lungs[side] * (1 - mask)
    total -= air
    total -= 0.20 * mask
    total += 0.16 * pleura

    total += 0.55 * cardiac * (lungs[-1] + lungs[1]) + 0.10 * ramp(np.abs(x), 0.17, 0.1)
    vertebrae = 0.5 + 0.5 * portable_map(np.sin, 2 * np.pi * y / 0.17)
    total += ramp(np.abs(x), 0.1, 0.07) * (0.10 + 0.06 * vertebrae)
    total -= 0.16 * ramp(np.abs(x + 0.01), 0.06, 0.035) * ramp(y, -0.1, -0.25)  # trachea
    stomach = 1 - distance((x - 0.34) / 0.16, (y - body["dome"] - 0.24) / 0.09)
    total -= 0.22 * ramp(stomach + 0.1 * noise(inner, size, 5), 0.0, 0.5) * ramp(sides[1], 0.0, -0.05)
    total += _clavicles(body, size) * torso

    for name in findings:
        if name in _OPACITIES:
            total += _OPACITIES[name](disease, body, sides, lungs, x, y) * (1 - mask)
    total += _hardware(inner, size)

    grey = 0.97 * (1 - portable_map(np.exp, -1.25 * np.maximum(total, 0.0)))
    scale = view.uniform(0.92, 1.08)
    matrix = camera(size, view.normal(0, 2.5), scale, view.uniform(-0.05, 0.05, 2))
    grey, mask = photograph(grey, matrix, cv2.BORDER_REPLICATE), photograph(mask, matrix)
    gain, lift = film.uniform(1.0, 1.2), film.uniform(-0.06, 0.04)
    grey = portable_map(np.power, np.clip(grey, 0, 1), film.uniform(0.85, 1.25)) * gain + lift
    grey = soften(grey, film.uniform(0, 0.008))
    grey = grey + film.uniform(0.012, 0.04) * soften(film.standard_normal(grey.shape, np.float32), 1.6 / size)
    _marker(film, grey)
    return to_uint8(grey), np.where(mask > 0.5, np.uint8(255), np.uint8(0))


def _clavicles(body, size):
    t = np.linspace(0, 1, 16)
    bone = np.zeros((size, size), np.float32)
    for side in (-1, 1):
        rise = body["top"] + 0.20 - 0.12 * t + 0.05 * portable(np.sin, 2 * np.pi * t)
        path = np.stack([side * (0.09 + 0.72 * t), rise], axis=1)[None]
        outer, marrow = strokes(size, path, np.array([[0.085]])), strokes(size, path, np.array([[0.05]]))
        bone += 0.30 * outer - 0.10 * marrow
    return soften(bone, 0.012)


def _side_of(rng):
    return int(rng.choice((-1, 1)))


def _effusion(rng, body, sides, lungs, x, y):
    side = _side_of(rng)
    level = body["dome"] - rng.uniform(0.02, 0.22)
    meniscus = level - 0.35 * portable_map(np.power, np.clip(side * x - 0.35, 0, 1), 1.5)
    return 0.5 * lungs[side] * ramp(y - meniscus, -0.03, 0.06)


def _patch(rng, lungs, x, y, radius, strength, ragged):
    side = _side_of(rng)
    cx, cy = side * rng.uniform(0.28, 0.5), rng.uniform(-0.35, 0.3)
    depth = 1 - distance(x - cx, y - cy) / radius + ragged * noise(rng, x.shape[0], 8, 2)
    return strength * lungs[side] * ramp(depth, 0, 0.25 + ragged)


def _band(rng, body, sides, lungs, x, y):
    side, tilt = _side_of(rng), rng.uniform(-0.3, 0.3)
    off = np.abs(y - rng.uniform(0.1, 0.35) - tilt * (side * x - 0.35))
    return 0.28 * lungs[side] * ramp(off, 0.035, 0.01) * ramp(np.abs(side * x - 0.38), 0.22, 0.12)


_OPACITIES = {
    "Atelectasis": _band,
    "Effusion": _effusion,
    "Infiltration": lambda rng, body, sides, lungs, x, y: _patch(rng, lungs, x, y, rng.uniform(0.2, 0.3), 0.25, 0.35),
    "Mass": lambda rng, body, sides, lungs, x, y: _patch(rng, lungs, x, y, rng.uniform(0.11, 0.16), 0.4, 0.05),
    "Nodule": lambda rng, body, sides, lungs, x, y: _patch(rng, lungs, x, y, rng.uniform(0.05, 0.08), 0.35, 0.0),
}


def _hardware(rng, size):
    """Leads and a tube, as likely with as without a pneumothorax; in ChestX-ray14 drains betray the label."""
    metal = np.zeros((size, size), np.float32)
    if rng.random() < 0.25:
        ends = rng.uniform((-0.6, -0.5), (0.6, 0.3), (3, 2))
        wires = branches(rng, ends, rng.uniform(0.2, 2.9, 3), np.full(3, 1.2), 1.0, 20)
        metal += 0.16 * strokes(size, wires, np.array([[0.012]])) + 0.4 * spots(size, ends, np.full(3, 0.03))
    if rng.random() < 0.2:
        side = _side_of(rng)
        tube = branches(rng, [[side * 0.8, 0.3]], [np.pi / 2 - side * 2.2], [1.0], 0.5, 20)
        metal += 0.14 * (strokes(size, tube, np.array([[0.03]])) - strokes(size, tube, np.array([[0.012]])))
    if rng.random() < 0.2:  # a skin fold: a line like the pleura's, but lung markings go on beyond it
        side = _side_of(rng)
        fold = branches(rng, [[side * 0.5, -0.7]], [np.pi / 2 + side * 0.1], [1.3], 0.25, 20)
        metal += 0.10 * soften(strokes(size, fold, np.array([[0.02]])), 0.008)
    return metal


_GLYPHS = {
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0), (0.5, 0), (0.6, 0.25), (0.5, 0.5), (0, 0.5)], [(0.2, 0.5), (0.6, 1)]],
}


def _marker(rng, grey):
    """The radiographer's lead letter, in place: L on the right edge of the image, or R on the left one."""
    letter = rng.choice(("L", "R", ""), p=(0.45, 0.2, 0.35))
    corner = np.array([0.82 if letter == "L" else -0.92, rng.uniform(-0.9, -0.75)])
    for line in _GLYPHS.get(str(letter), ()):
        path = corner + 0.1 * np.array(line)
        grey += 0.9 * strokes(grey.shape[0], path[None], np.array([[0.02]]))
