import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from skimage.transform import resize

from lib import StudyError
from lib.explain import attention_map, choose_images, constant, grad_cam, map_shift

SIZE, CELLS, CHANNELS, CLASSES, MAPS = (24, 32), (6, 8), 5, 3, 4


class SoftAttentionStandIn(layers.Layer):
    """A block with the interface of the study's: (weighted features, maps)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], MAPS), initializer="normal", name="kernel")

    def call(self, features):
        scores = ops.reshape(features @ self.kernel, (-1, CELLS[0] * CELLS[1], MAPS))
        maps = ops.reshape(ops.softmax(scores, axis=1), (-1, *CELLS, MAPS))
        return features * ops.sum(maps, axis=-1, keepdims=True), maps


def classifier(attention):
    keras.utils.set_random_seed(2)  # some seeds give a class without positive evidence
    pixels = keras.Input((*SIZE, 3))
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(CHANNELS, 4, strides=4)(x)
    x = layers.ReLU(name="features")(x)
    if attention:
        weighted, _ = SoftAttentionStandIn(name="soft_attention")(x)
        x = layers.Concatenate()([x * x, 3 * weighted])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, layers.Softmax()(layers.Dense(CLASSES, name="logits")(x)))


def features_of(model, images):
    return np.asarray(keras.Model(model.input, model.get_layer("features").output)(images))


@pytest.fixture(scope="module")
def models():
    return {name: classifier(name == "attention") for name in ("baseline", "attention")}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3)).astype(np.uint8)


LABELS = np.array([0, 1, 2, 2, 1, 0, 1])


def stretched(cams):
    cams = np.maximum(cams, 0)
    low, high = cams.min((1, 2), keepdims=True), cams.max((1, 2), keepdims=True)
    return (cams - low) / (high - low)


def test_grad_cam_after_global_pooling_is_the_class_activation_map(models, images):
    model = models["baseline"]
    weights = model.get_layer("logits").get_weights()[0]
    cams = np.einsum("nhwc,cn->nhw", features_of(model, images / np.float32(1)), weights[:, LABELS])
    maps = grad_cam(model, images, LABELS, upsample=False, batch_size=3)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, stretched(cams), atol=1e-5)


def test_grad_cam_runs_back_through_the_attention_block(models, images):
    model = models["attention"]
    head = keras.Model(model.get_layer("features").output, model.get_layer("logits").output)
    features = features_of(model, images / np.float32(1))
    # Grad-CAM's weight of a channel is the derivative of the logit along a uniform change of that channel.
    step = 0.01 * np.eye(CHANNELS, dtype=np.float32)
    weights = np.stack(
        [(np.asarray(head(features + e)) - np.asarray(head(features - e)))[range(7), LABELS] / 0.02 for e in step]
    )
    maps = grad_cam(model, images, LABELS, upsample=False)
    np.testing.assert_allclose(maps, stretched(np.einsum("nhwc,cn->nhw", features, weights)), atol=5e-3)


def test_upsampling_is_bilinear_with_half_pixel_centres(models, images):
    small = grad_cam(models["baseline"], images, LABELS, upsample=False)
    large = grad_cam(models["baseline"], images, LABELS)
    assert large.dtype == np.float32
    expected = [resize(cam, SIZE, order=1, mode="edge", anti_aliasing=False) for cam in small]
    np.testing.assert_allclose(large, expected, atol=1e-5)


def test_a_class_without_positive_evidence_has_an_empty_map(images):
    model = classifier(attention=False)
    dense = model.get_layer("logits")
    dense.set_weights([-np.abs(dense.get_weights()[0]), dense.get_weights()[1]])
    maps = grad_cam(model, images, LABELS)
    assert (maps == 0).all()
    assert constant(maps).all()


def test_bad_requests_are_refused(models, images):
    model = models["baseline"]
    for message, call in {
        "no layer 'nowhere'": lambda: grad_cam(model, images, LABELS, layer="nowhere"),
        "no feature map": lambda: grad_cam(model, images, LABELS, layer="logits"),
        "one class per image": lambda: grad_cam(model, images, LABELS[:2]),
        "no layer 'soft_attention'": lambda: attention_map(model, images),
        "two arrays": lambda: map_shift(np.ones((2, 3, 3)), np.ones((2, 3, 4)), SIZE),
    }.items():
        with pytest.raises(StudyError, match=message):
            call()


def test_attention_maps_sum_to_k(models, images):
    maps = attention_map(models["attention"], images, upsample=False, batch_size=4)
    assert maps.shape == (7, *CELLS)
    np.testing.assert_allclose(maps.sum((1, 2)), MAPS, rtol=1e-5)
    assert not constant(maps).any()
    large = attention_map(models["attention"], images)
    assert large.shape == (7, *SIZE)
    np.testing.assert_allclose(large.mean((1, 2)), MAPS / np.prod(CELLS), rtol=0.1)


def test_attention_without_preference_is_constant(images):
    model = classifier(attention=True)
    block = model.get_layer("soft_attention")
    block.set_weights([np.zeros_like(block.get_weights()[0])])
    maps = attention_map(model, images, upsample=False)
    np.testing.assert_allclose(maps, MAPS / np.prod(CELLS), rtol=1e-5)
    maps[0, 0, 0] = np.nextafter(maps[0, 0, 0], np.float32(1))  # rounding is no preference
    assert constant(maps).all()


def distinct_maps(seed, n=3, shape=(7, 7)):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(np.prod(shape)).reshape(shape) for _ in range(n)]) / np.prod(shape)


NUMBERS = ["rank_correlation", "ssim", "top20_overlap"]


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_shift_of_equal_and_of_inverted_maps(seed):
    maps = distinct_maps(seed)
    same = map_shift(maps, 3 * maps + 1, (28, 28))  # scale does not matter
    np.testing.assert_allclose(same[NUMBERS], 1, atol=1e-5)
    inverted = map_shift(maps, -maps, (28, 28))
    np.testing.assert_allclose(inverted["rank_correlation"], -1)
    assert (inverted["top20_overlap"] == 0).all()
    assert (inverted["ssim"] < 0.5).all()
    assert list(same.columns) == [*NUMBERS, "clean_constant", "adversarial_constant"]


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_shift_numbers_by_other_means(seed):
    clean, adversarial = distinct_maps(seed), distinct_maps(seed + 1)
    shift = map_shift(clean, adversarial, (56, 56))
    for a, b, row in zip(clean, adversarial, shift.itertuples(), strict=True):
        squares = ((a - b) ** 2).sum() * 49**2
        assert row.rank_correlation == pytest.approx(1 - 6 * squares / (49 * (49**2 - 1)))
        top, other = (set(np.argsort(m.ravel())[-10:]) for m in (a, b))
        assert row.top20_overlap == pytest.approx(len(top & other) / len(top | other))
        unit = [((m - m.min()) / np.ptp(m))[..., None].astype(np.float32) for m in (a, b)]
        large = [tf.image.resize(m, (56, 56)) for m in unit]
        assert row.ssim == pytest.approx(float(tf.image.ssim(*large, max_val=1)), abs=1e-3)


def test_tied_cells_share_the_last_places():
    one, other = np.zeros((2, 1, 5, 5))
    one[0, 0, 0] = other[0, 4, 4] = 1  # of 5 places, 4 are shared by 24 cells
    overlap = map_shift(one, other, (15, 15))["top20_overlap"][0]
    assert overlap == pytest.approx((2 / 6 + 23 / 6) / (2 + 23 / 6))
    assert map_shift(one, one, (15, 15))["top20_overlap"][0] == 1


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_ties_prefer_no_cell(seed):
    rng = np.random.default_rng(seed)
    clean, adversarial = rng.integers(0, 3, (2, 2, 6, 6))
    order = rng.permutation(36)
    moved = [m.reshape(2, 36)[:, order].reshape(2, 6, 6) for m in (clean, adversarial)]
    before, after = (map_shift(*maps, (24, 24)) for maps in ((clean, adversarial), moved))
    np.testing.assert_allclose(before["top20_overlap"], after["top20_overlap"])
    np.testing.assert_allclose(before["rank_correlation"], after["rank_correlation"])


def test_constant_maps_are_counted_and_not_compared():
    clean, adversarial = distinct_maps(0), distinct_maps(1)
    whole = map_shift(clean, adversarial, (28, 28))
    clean[0], adversarial[2] = 0.3, 0
    shift = map_shift(clean, adversarial, (28, 28))
    assert shift["clean_constant"].tolist() == [True, False, False]
    assert shift["adversarial_constant"].tolist() == [False, False, True]
    assert shift.loc[[0, 2], NUMBERS].isna().all(axis=None)
    assert shift.loc[1].equals(whole.loc[1])
    nothing = map_shift(np.zeros((2, 7, 7)), clean[:2], (28, 28))
    assert nothing[NUMBERS].isna().all(axis=None)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_images_are_chosen_by_the_rule(seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 60)
    correct = {"baseline": rng.random(60) < 0.8, "attention": rng.random(60) < 0.6}
    eligible = correct["baseline"] & correct["attention"]
    chosen = choose_images(labels, correct, n, seed=5)
    assert len(set(chosen)) == len(chosen) == n
    assert eligible[chosen].sum() == min(n, eligible.sum())  # others only when these are used up
    if n > eligible.sum():
        return
    available, shown = (np.bincount(labels[which], minlength=4) for which in (eligible, chosen))
    assert (shown >= np.minimum(available, n // 4)).all()
    assert shown.max() - shown[shown < available].min(initial=n) <= 1  # turns differ by one at most
    assert chosen.tolist() == choose_images(labels, correct, n, seed=5).tolist()
    assert set(chosen) <= set(choose_images(labels, correct, n + 1, seed=5))
    assert (np.diff(labels[chosen]) >= 0).all()


def test_the_seed_chooses_among_equals():
    everyone = {"baseline": np.ones(100, bool)}
    draws = {tuple(choose_images(np.arange(100) % 2, everyone, 6, seed)) for seed in range(5)}
    assert len(draws) == 5
