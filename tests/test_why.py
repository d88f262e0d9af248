"""The measures of 05_why against cases whose answer is known in closed form."""

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

from lib import StudyError
from lib.attacks import PGD, Classifier
from lib.explain import attention_map, frequency, overlap, regions, sanity, surface, top_area
from lib.report import conclusions, summary

SIDE = 4
CELLS = SIDE * SIDE * 3


# Where


def test_the_energy_in_a_region_is_its_share():
    delta = np.ones((2, 4, 4, 3))
    delta[1, :2] *= 3  # nine times the energy in the upper half
    upper = np.zeros((2, 4, 4), bool)
    upper[:, :2] = True
    np.testing.assert_allclose(regions.energy_share(regions.energy(delta), upper), [0.5, 0.9])
    assert np.isnan(regions.energy_share(np.zeros((1, 4, 4)), upper[:1])).all()


def test_the_top_area_is_exact_and_ties_share_it():
    maps = np.arange(16.0).reshape(1, 4, 4)
    np.testing.assert_array_equal(top_area(maps, 0.25)[0].ravel(), [0] * 12 + [1] * 4)
    tied = np.zeros((1, 2, 2))
    tied[0, 0, 0] = 1
    np.testing.assert_allclose(top_area(tied, 0.5), [[[1, 1 / 3], [1 / 3, 1 / 3]]])


def test_the_overlap_of_two_maps_is_that_of_their_highest_cells():
    first, second = np.random.default_rng(0).standard_normal((2, 5, 7, 7))
    second[4] = 1
    expected = []
    for a, b in zip(first[:4], second[:4], strict=True):
        tops = [set(np.argsort(m, axis=None)[-10:]) for m in (a, b)]  # a fifth of 49 cells
        expected.append(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
    np.testing.assert_allclose(overlap(first, second), [*expected, np.nan])


def test_pointing_and_iou_on_a_synthetic_map():
    mask = np.zeros((3, 4, 4), bool)
    mask[:, :2, :2] = True
    maps = np.zeros((3, 4, 4))
    maps[0, :2, :2] = 2  # the mask itself
    maps[1, 2:, 2:] = 2  # elsewhere
    maps[2, :2, 1:3] = [[1, 2], [1, 2]]  # half on it, its peak beside it
    np.testing.assert_allclose(regions.pointing(maps, mask), [1, 0, 0])
    np.testing.assert_allclose(regions.iou(maps, mask), [1, 0, 2 / 6])
    assert np.isnan(regions.iou(maps[:1], np.zeros((1, 4, 4), bool))).all()


def test_masks_are_found_where_the_originals_have_them(tmp_path):
    empty, source = regions.lesion_masks(["a"], "eyepacs", tmp_path, 8)
    assert source == ""
    assert not empty.any()

    nih = tmp_path / "nih"
    nih.mkdir()
    (nih / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "1_0.png,Pneumothorax,512,0,256,128,,,\n1_0.png,Mass,0,0,1024,1024,,,\n2_0.png,Mass,0,0,1024,1024,,,\n"
    )
    found, source = regions.lesion_masks(["1_0", "2_0"], "chestxray14", nih, 16)
    assert "boxes" in source
    expected = np.zeros((16, 16), bool)
    expected[0:2, 8:12] = True
    np.testing.assert_array_equal(found[0], expected)
    assert not found[1].any()

    folder = tmp_path / "ham" / regions.SEGMENTATIONS
    folder.mkdir(parents=True)
    picture = np.zeros((40, 60), np.uint8)
    picture[:20] = 255
    cv2.imwrite(str(folder / "ISIC_1_segmentation.png"), picture)
    found, source = regions.lesion_masks(["ISIC_1", "ISIC_2"], "ham10000", tmp_path / "ham", 8)
    assert "segmentations" in source
    np.testing.assert_array_equal(found[0].mean(axis=1), [1] * 4 + [0] * 4)
    assert not found[1].any()
    (folder / "ISIC_2_segmentation.png").write_bytes(b"no picture")
    with pytest.raises(StudyError, match=r"ISIC_2_segmentation\.png cannot be read"):
        regions.lesion_masks(["ISIC_2"], "ham10000", tmp_path / "ham", 8)


# The loss surface


def linear(weights, bias=(0.0, 0.0)):
    pixels = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(pixels, layers.Dense(2, name="logits")(layers.Flatten()(pixels)))
    model.set_weights([np.float32(weights), np.float32(bias)])
    return model


def test_the_lipschitz_constant_of_a_linear_model_by_gradient_and_by_attack():
    weights = np.random.default_rng(2).standard_normal((CELLS, 2)) / 10
    classifier, labels = Classifier(linear(weights)), np.array([0, 1])
    images = np.random.default_rng(0).uniform(50, 200, (2, SIDE, SIDE, 3)).astype("float32")
    exact = np.abs(weights[:, 0] - weights[:, 1]).sum()
    np.testing.assert_allclose(surface.lipschitz_by_gradient(classifier, images, labels), exact, rtol=1e-4)
    attacked = PGD(loss="margin", leave=False)(classifier, images, labels, 2.0)
    np.testing.assert_allclose(surface.lipschitz_by_attack(classifier, images, attacked, labels), exact, rtol=1e-3)
    assert np.isnan(surface.lipschitz_by_attack(classifier, images, images, labels)).all()


def test_margins_are_negative_where_the_class_is_wrong():
    np.testing.assert_allclose(surface.margins([[3, 1, 2], [3, 1, 2]], np.array([0, 1])), [1, -2])


# Frequency


def wave(k, n=32):
    """A plane wave along the width that the transform holds in one coefficient."""
    line = np.cos(np.pi * k * (2 * np.arange(n) + 1) / (2 * n))
    return np.broadcast_to(line[None, None, :, None], (1, n, n, 3)).copy()


def test_filters_take_a_wave_or_leave_it_and_add_up():
    both = wave(3) + 0.5 * wave(29)
    np.testing.assert_allclose(frequency.filtered(both, 0.25, "low"), wave(3), atol=1e-6)
    np.testing.assert_allclose(frequency.filtered(both, 0.25, "high"), 0.5 * wave(29), atol=1e-6)
    noise = np.random.default_rng(0).standard_normal((2, 16, 16, 3))
    parts = [frequency.filtered(noise, 0.125, keep) for keep in ("low", "high")]
    np.testing.assert_allclose(sum(parts), noise, atol=1e-6)


# Soundness


class Block(layers.Layer):
    """A block with the interface of the study's."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), initializer="normal", name="kernel")

    def call(self, features):
        maps = ops.softmax(ops.reshape(features @ self.kernel, (-1, 36, 2)), axis=1)
        maps = ops.reshape(maps, (-1, 6, 6, 2))
        return features * ops.sum(maps, axis=-1, keepdims=True), maps


def network():
    keras.utils.set_random_seed(1)
    pixels = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(layers.Rescaling(1 / 255)(pixels))
    x = layers.Conv2D(5, 4, strides=4, name="second")(x)
    x = layers.ReLU(name="features")(x)
    weighted, _ = Block(name="soft_attention")(x)
    x = layers.Concatenate()([x, weighted])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, layers.Softmax()(layers.Dense(3, name="logits")(x)))


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype("float32")


def test_randomising_goes_down_from_the_logits_and_leaves_the_model_alone():
    model = network()
    before = [w.copy() for w in model.get_weights()]
    attention = attention_map(model, IMAGES, upsample=False)
    seen = []
    for step, destroyed in sanity.randomised(model):
        seen.append(step)
        changed = {
            layer.name
            for layer in destroyed.layers
            if layer.weights
            and any(
                (a != b).any()
                for a, b in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True)
            )
        }
        for layer in (layer for layer in destroyed.layers if layer.weights):  # the numbers stay, their places do not
            for a, b in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(np.sort(a, axis=None), np.sort(b, axis=None))
        if step == "logits":
            assert changed == {"logits"}
            np.testing.assert_array_equal(attention_map(destroyed, IMAGES, upsample=False), attention)
    assert changed == {"logits", "soft_attention", "first", "second"}
    assert seen[:2] == ["logits", "attention block"]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_agreement_is_undefined_for_a_constant_map():
    ramp = np.arange(9.0).reshape(1, 3, 3)
    np.testing.assert_allclose(sanity.agreement(ramp, -ramp), -1)
    assert np.isnan(sanity.agreement(ramp, np.ones((1, 3, 3)))).all()


# Summaries


def surfaces():
    """Attention with twice the baseline's margin and half its slope."""
    rng = np.random.default_rng(0)
    margin, slope = rng.uniform(1, 2, 30), rng.uniform(1, 2, 30)
    rows = []
    for variant, m, s in (("baseline", margin, slope), ("attention", 2 * margin, slope / 2)):
        table = pd.DataFrame({"image_id": np.arange(30), "margin": m, "slope": s, "distance": m / s, "correct": True})
        table["slope_by_attack"] = rng.uniform(1, 2, 30)
        rows.append(table.assign(dataset="ham10000", variant=variant, seed=0))
    return pd.concat(rows, ignore_index=True)


def test_ratios_come_apart_into_margin_and_slope():
    ratios = summary.surface_ratios(surfaces()).set_index("measure")
    for measure, ratio in (("margin", 2), ("slope of the margin", 0.5), ("margin / slope", 4)):
        np.testing.assert_allclose(ratios.loc[measure, ["ratio", "ci_low", "ci_high"]].astype(float), ratio)


def energies():
    """A gradient with 3 (attention) and 2 (baseline) times an even share in the lesion."""
    rows = [
        ("ham10000", variant, 0, f"i{i}", "energy", "gradient", "none", 0.0, "lesion", 0.1, share)
        for variant, share in (("baseline", 0.2), ("attention", 0.3))
        for i in range(10)
    ]
    columns = [
        "dataset",
        "variant",
        "seed",
        "image_id",
        "kind",
        "attack",
        "norm",
        "epsilon",
        "target",
        "area",
        "share",
    ]
    return pd.DataFrame(rows, columns=columns)


def test_a_density_is_a_share_of_energy_by_the_share_of_the_area():
    density = summary.density(energies())
    np.testing.assert_allclose(density.set_index("variant")["mean"][["baseline", "attention"]], [2, 3])


def mechanism(*runs):
    """The sentence on the mechanism from the surfaces of several training runs."""
    table = pd.concat([run.assign(seed=seed) for seed, run in enumerate(runs)])
    return conclusions.mechanism(summary.surface_ratios(table), {"ham10000": "HAM10000 phantoms"})


def test_a_mechanism_is_named_only_where_every_run_shows_it():
    swapped = surfaces().assign(variant=lambda t: t["variant"].map({"baseline": "attention", "attention": "baseline"}))
    assert mechanism(surfaces(), surfaces()).endswith("farther, by a larger margin and by a flatter slope.")
    assert "farther, by a larger margin and by a flatter slope, in this pair of networks" in mechanism(surfaces())
    assert "4.00 (4.00 to 4.00), 0.25 (0.25 to 0.25), n = 30, 30" in mechanism(surfaces(), swapped)
    assert mechanism(surfaces(), swapped).endswith(
        "training runs contradict each other, farther in 1 and nearer in 1 of 2 training runs."
    )
    same = surfaces().assign(margin=1.0, slope=1.0, distance=1.0)
    assert mechanism(surfaces(), same).endswith("farther in 1 of 2 training runs.")


def test_a_mechanism_that_could_not_be_measured_is_not_a_difference_that_was_not_seen():
    said = mechanism(surfaces().assign(correct=False))
    assert "not measured" in said
    assert "nan" not in said
