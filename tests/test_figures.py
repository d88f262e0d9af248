"""Figures are for readers with any eyes, and in print: colours, sizes of words."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from skimage.color import rgb2lab

from lib import ROOT, curves, figures

TABLES = ROOT / "figures" / "quick" / "tables"
TITLES = {"ham10000": "HAM10000", "chestxray14": "ChestX-ray14", "eyepacs": "EyePACS"}

# Machado, Oliveira and Fernandes 2009: deuteranopia (severity 1), on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
APART = 15  # CIELAB units; about 2.3 are just noticeable (Mahy et al. 1994)


def seen_with_deuteranopia(colour):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(DEUTERANOPIA @ linear, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


def distance(one, other):
    return np.linalg.norm(seen_with_deuteranopia(one) - seen_with_deuteranopia(other))


def test_the_simulation_confuses_what_deuteranopes_confuse():
    assert distance("#d7191c", "#6a7a00") < APART  # a red and an olive
    assert distance("#ffffff", "#000000") == pytest.approx(100, abs=0.1)  # and leaves gray alone


@pytest.mark.parametrize(
    "palette",
    [figures.COLOURS, figures.SPLIT_COLOURS],
    ids=["variants", "splits"],
)
def test_colours_are_apart_with_deuteranopia(palette):
    for one, other in combinations(palette, 2):
        assert distance(palette[one], palette[other]) > APART, (one, other)


def test_variants_differ_by_marker_too():
    assert len(set(figures.MARKERS.values())) == len(figures.MARKERS)


def histories():
    rows = [
        {"dataset": d, "variant": v, "seed": 0, "epoch": e, "loss": 1 / e, "val_loss": 2 / e}
        for d in TITLES for v in ("baseline", "attention") for e in (1, 2, 3)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(accuracy=0.5, val_accuracy=0.5)


def table(name):
    return pd.read_csv(TABLES / f"{name}.csv")


def few(attacks, ways=("logits",)):
    robust = table("robust_accuracy")
    norm = np.where(robust["attack"] == "cw", "l2", "linf")
    return robust[robust["attack"].isin(attacks) & robust["through"].isin(ways) & (robust["norm"] == norm)]


IMAGE = np.full((8, 8, 3), 128.0, "float32")


def strips():
    said = dict.fromkeys(("baseline", "attention"), "no pneumothorax (100%)")
    attacked = {
        variant: {"image": IMAGE + 1, "says": says, "outcome": "FOOLED"} for variant, says in said.items()
    }
    return [{"title": "pneumothorax", "clean": IMAGE, "clean_says": said, "attacked": attacked}] * 2


def maps():
    panels = [("clean image", IMAGE, None, "")]
    panels += [("attention\nGrad-CAM,\nclean", IMAGE, np.eye(4), "no pneumothorax\n99%")] * 6
    return [{"title": "pneumothorax", "panels": panels}] * 2


def predictions():
    each = pd.DataFrame({"label": [0, 1, 1], "predicted": [0, 1, 0]})
    return pd.concat([each.assign(variant=variant) for variant in ("baseline", "attention")])


DRAWN = {
    "robust_curves": lambda: curves.robust_curves(few(["fgsm", "pgd", "square", "autoattack", "cw"]), TITLES),
    "routes": lambda: curves.routes(table("softmax_gap").query("attack == 'pgd'"), TITLES),
    "relative_change": lambda: curves.relative_change(table("comparison"), TITLES),
    "map_shift": lambda: figures.map_shift(table("gradcam_shift"), TITLES),
    "training_curves": lambda: curves.training_curves(histories(), TITLES),
    "adversarial_examples": lambda: figures.adversarial_examples(strips(), "PGD"),
    "gradcam": lambda: figures.gradcam(maps(), "PGD"),
    "confusion": lambda: figures.confusion(predictions(), ("no pneumothorax", "pneumothorax")),
    "class_counts": lambda: figures.class_counts(table("datasets").query("dataset == 'eyepacs'")),
}


@pytest.mark.parametrize("name", DRAWN)
def test_words_have_7_points_in_print(name, tmp_path):
    with plt.rc_context():
        figures.use_style()
        figure = figures.save(DRAWN[name](), tmp_path / name, "phantom data; profile test")
    box = (tmp_path / f"{name}.pdf").read_bytes().split(b"/MediaBox [")[1].split(b"]")[0]
    shrunk = min(1, 72 * figures.WIDTH / float(box.split()[2]))
    sizes = {text.get_text(): text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()}
    small = {words: size for words, size in sizes.items() if round(size * shrunk, 1) < 7}
    plt.close(figure)
    assert len(sizes) > 3
    assert not small


def test_figures_say_what_data_they_show(tmp_path):
    with plt.rc_context():
        figures.use_style()
        figure = figures.save(DRAWN["training_curves"](), tmp_path / "x", "phantom data")
    assert "phantom data" in [text.get_text() for text in figure.texts]
    plt.close(figure)
