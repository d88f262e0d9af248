import hashlib
from typing import get_args

import keras
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, StudyError
from lib.models import (
    CBAM,
    CaffePreprocessing,
    SoftAttention,
    SqueezeExcitation,
    build_classifier,
    parameter_counts,
    without_branch,
)
from lib.profile import Model, Variant
from lib.report.figures import COLOURS, DASHES, MARKERS
from lib.study import Study

VARIANTS = get_args(Variant)
SMALL = Model(backbone="resnet14", weights="none", width=8)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def formula(t, kernel, bias, gamma):
    """f_sa position by position, in loops, after the equation."""
    n, h, w, _ = t.shape
    padded = np.pad(t, [(0, 0), (1, 1), (1, 1), (0, 0)])
    scores = np.zeros((n, h, w, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            scores[:, i, j] = np.tensordot(padded[:, i : i + 3, j : j + 3], kernel, 3) + bias
    maps = softmax(scores, axis=(1, 2))
    return gamma * t * maps.sum(-1, keepdims=True), maps


@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_soft_attention_is_the_formula(height, width, channels, maps, seed):
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(2, height, width, channels)).astype("float32")
    layer = SoftAttention(maps=maps, gamma=0.5)
    weighted, attention = layer(t)
    bias = rng.normal(size=maps).astype("float32")
    layer.bias.assign(bias)
    weighted, attention = layer(t)
    expected, expected_maps = formula(t, np.asarray(layer.kernel), bias, 0.5)
    np.testing.assert_allclose(attention, expected_maps, atol=1e-5)
    np.testing.assert_allclose(weighted, expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(attention, axis=(1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 7, 32), (4, 5, 16), (3, 3, 31), (7, 7, 4), (2, 6, 3)])
def test_the_reference_form_is_the_3d_convolution_of_the_public_code(shape):
    channels = shape[-1]
    rng = np.random.default_rng(0)
    t = rng.normal(size=(2, *shape)).astype("float32")
    layer = SoftAttention(maps=5, form="reference")
    layer(t)
    bias = rng.normal(size=5).astype("float32")
    layer.bias.assign(bias)
    # Written out in NumPy. TensorFlow's own 3D convolution cannot be the reference: on the CPU it gives other
    # numbers with oneDNN than without when the stride exceeds the kernel.
    kernel = np.asarray(layer.kernel)[:, :, :, 0]  # (C along height, 3 along width, 3 along channels, maps)
    padded = np.pad(t, [(0, 0), ((channels - 1) // 2, channels // 2), (1, 1), (0, 0)])
    scores = np.empty((*t.shape[:3], 5))
    for i, j in np.ndindex(*t.shape[1:3]):
        scores[:, i, j] = np.tensordot(padded[:, i : i + channels, j : j + 3, :3], kernel, 3)
    scores = np.maximum(scores + bias, 0)
    maps = softmax(scores, axis=(1, 2))
    weighted, attention = layer(t)
    np.testing.assert_allclose(attention, maps, atol=1e-5)
    np.testing.assert_allclose(weighted, t * maps.sum(-1, keepdims=True), atol=1e-5)


def excitation(pooled, narrow, widen):
    return np.maximum(pooled @ narrow, 0) @ widen


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_squeeze_and_excitation_is_the_formula():
    t = np.random.default_rng(0).normal(size=(3, 4, 5, 32)).astype("float32")
    layer = SqueezeExcitation(reduction=8)
    result = layer(t)
    narrow, widen = layer.get_weights()
    assert narrow.shape == (32, 4)
    scale = sigmoid(excitation(t.mean(axis=(1, 2)), narrow, widen))
    np.testing.assert_allclose(result, t * scale[:, None, None], atol=1e-5)


def test_cbam_is_the_formula():
    t = np.random.default_rng(0).normal(size=(2, 4, 5, 32)).astype("float32")
    layer = CBAM()
    result, positions = layer(t)
    narrow, widen, kernel = layer.get_weights()
    both = excitation(t.mean(axis=(1, 2)), narrow, widen) + excitation(t.max(axis=(1, 2)), narrow, widen)
    weighted = t * sigmoid(both)[:, None, None]
    pooled = np.stack([weighted.mean(axis=-1), weighted.max(axis=-1)], axis=-1)
    padded = np.pad(pooled, [(0, 0), (3, 3), (3, 3), (0, 0)])
    expected = np.zeros((2, 4, 5, 1))
    for i, j in np.ndindex(4, 5):
        expected[:, i, j] = sigmoid(np.tensordot(padded[:, i : i + 7, j : j + 7], kernel, 3))
    np.testing.assert_allclose(positions, expected, atol=1e-5)
    np.testing.assert_allclose(result, weighted * expected, atol=1e-5)


def test_every_variant_has_a_look_of_its_own_in_figures():
    other = "uniform-strong"  # of another profile: a row of the dose figure, no network of its own
    assert [name for name in COLOURS if name != other] == list(VARIANTS)
    assert len(set(COLOURS.values())) == len(set(MARKERS.values())) == len(VARIANTS) + 1
    assert set(DASHES) == {*VARIANTS, other}


def test_the_uniform_block_scales_the_map_and_has_the_references_parameters():
    t = np.random.default_rng(0).normal(size=(2, 4, 5, 12)).astype("float32")
    uniform, reference = SoftAttention(maps=16, form="uniform"), SoftAttention(maps=16, form="reference")
    weighted, maps = uniform(t)
    np.testing.assert_allclose(weighted, t * 16 / 20, rtol=1e-5)
    np.testing.assert_allclose(maps, 1 / 20, rtol=1e-6)
    reference(t)
    assert uniform.count_params() == reference.count_params()
    assert uniform.trainable_variables == []
    matched = SoftAttention(maps=16, form="uniform", scale=2.5)
    np.testing.assert_allclose(matched(t)[0], t * 2.5, rtol=1e-6)
    assert matched.get_config() == SoftAttention.from_config(matched.get_config()).get_config()


def test_a_constant_branch_at_scale_1_computes_what_pooling_does():
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    one, other = (build_classifier(SMALL, variant, 3, 64, seed=2) for variant in ("uniform-matched", "pooling"))
    np.testing.assert_allclose(one.predict(images, verbose=0), other.predict(images, verbose=0), rtol=1e-5)


def test_scaled_is_the_baseline_whose_dense_layer_sees_more_of_the_same_features():
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    baseline = build_classifier(SMALL, "baseline", 3, 64)
    scaled = build_classifier(SMALL.model_copy(update={"branch_scale": 2.0}), "scaled", 3, 64)
    scaled.set_weights(baseline.get_weights())
    kernel, bias = scaled.get_layer("logits").get_weights()
    scaled.get_layer("logits").set_weights([kernel / 3, bias])
    np.testing.assert_allclose(scaled.predict(images, verbose=0), baseline.predict(images, verbose=0), rtol=1e-4)


@pytest.mark.parametrize(("variant", "gamma"), [("attention-gamma1", 1), ("attention-gamma3", 3)])
def test_a_fixed_gamma_is_not_trained(variant, gamma):
    block = build_classifier(SMALL, variant, 7, 64).get_layer("soft_attention")
    assert float(block.gamma) == gamma
    assert [v.path.split("/")[-1] for v in block.trainable_variables] == ["kernel", "bias"]


def test_without_its_branch_a_network_is_the_one_whose_gamma_is_0():
    model = build_classifier(SMALL, "attention-gamma3", 3, 64)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    before = model.predict(images, verbose=0)
    without = without_branch(model).predict(images, verbose=0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)
    assert np.abs(without - before).max() > 1e-3
    model.get_layer("soft_attention").gamma.assign(0)
    np.testing.assert_allclose(without, model.predict(images, verbose=0), rtol=1e-5)
    assert without_branch(build_classifier(SMALL, "baseline", 3, 64)) is None


def test_the_preprocessing_layer_is_keras_caffe_mode():
    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype("float32")
    expected = keras.applications.resnet50.preprocess_input(images.copy())
    np.testing.assert_allclose(CaffePreprocessing()(images), expected, atol=1e-4)


def test_attention_adds_less_than_1_3_percent_to_resnet50():
    """Claim C4, from the built models, against the count by hand."""
    settings = Model(weights="none")
    counts = {v: parameter_counts(build_classifier(settings, v, 7, 224)) for v in ("baseline", "attention")}
    assert counts["baseline"]["backbone_parameters"] == 23_587_712
    assert counts["attention"]["attention_parameters"] == 9 * 2048 * 16 + 16 + 1
    assert counts["attention"]["attention_percent"] < 1.3
    assert counts["baseline"]["parameters"] == 23_587_712 + 2048 * 7 + 7
    assert counts["attention"]["parameters"] == 23_587_712 + 294_929 + 2 * 2048 * 7 + 7


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_predicts_the_same(variant, tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    model = build_classifier(SMALL, variant, 7, 64, seed=3)
    assert model.get_layer("features").output.shape == (None, 8, 8, 256)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)
    np.testing.assert_allclose(np.sum(model(images), axis=1), 1, atol=1e-5)


def test_the_attention_head_is_that_of_section_3_3():
    """The head recomputed in NumPy from the feature map and the block's output."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 56, 56, 3)).astype("float32")
    model = build_classifier(SMALL, "attention", 3, 56)
    t, (weighted, _), logits = keras.Model(
        model.input, [model.get_layer(n).output for n in ("features", "soft_attention", "logits")]
    )(images)

    def max_pool(x):
        x = np.pad(np.asarray(x), [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
        return x.reshape(2, 4, 2, 4, 2, -1).max(axis=(2, 4))

    assert t.shape == (2, 7, 7, 256)
    pooled = np.maximum(np.concatenate([max_pool(t), max_pool(weighted)], -1), 0).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(logits, pooled @ kernel + bias, atol=1e-4)


def test_controls_take_one_thing_away_each():
    images = np.random.default_rng(0).uniform(0, 255, (2, 56, 56, 3)).astype("float32")
    models = {variant: build_classifier(SMALL, variant, 3, 56, seed=1) for variant in VARIANTS}
    counts = {variant: model.count_params() for variant, model in models.items()}
    block = parameter_counts(models["attention"])["attention_parameters"]
    assert counts["pooling"] == counts["attention"] - block
    assert counts["frozen"] == counts["attention-no-dropout"] == counts["attention"]
    assert counts["se"] == counts["pooling"] + 2 * 256 * 16
    assert counts["cbam"] == counts["se"] + 7 * 7 * 2

    def concatenated(variant):
        model = models[variant]
        return np.asarray(keras.Model(model.input, model.get_layer("concatenate").output)(images))

    half = concatenated("attention").shape[-1] // 2
    np.testing.assert_array_equal(concatenated("pooling")[..., :half], concatenated("pooling")[..., half:])
    np.testing.assert_array_equal(concatenated("frozen")[..., half:], 0)
    assert concatenated("attention")[..., half:].any()
    names = [variable.path for variable in models["frozen"].trainable_variables]
    assert not any("gamma" in name and "soft_attention" in name for name in names)

    def differs_in_training(variant):
        return not np.allclose(*(models[variant].get_layer("dropout")(np.ones((1, 4, 4, 8)), training=True)
                                 for _ in range(2)))  # fmt: skip

    assert differs_in_training("attention")
    assert not differs_in_training("attention-no-dropout")


def test_variants_share_the_backbone_they_start_from():
    pair = [build_classifier(SMALL, variant, 3, 64, seed=5) for variant in ("baseline", "attention")]
    other = build_classifier(SMALL, "baseline", 3, 64, seed=6)
    first, second, third = (m.get_layer("conv4_block1_2_conv").get_weights()[0] for m in (*pair, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_feature_layers_differ_by_one_relu():
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    maps = []
    for feature_layer in ("conv5_block3_add", "conv5_block3_out"):
        model = build_classifier(SMALL.model_copy(update={"feature_layer": feature_layer}), "baseline", 3, 64)
        maps.append(np.asarray(keras.Model(model.input, model.get_layer("features").output)(images)))
    assert maps[0].min() < 0
    np.testing.assert_allclose(np.maximum(maps[0], 0), maps[1], atol=1e-5)


def test_weights_are_loaded_from_a_file(tmp_path):
    shape = (32, 32, 3)
    source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape)
    source.get_layer("Conv1").set_weights([np.full((3, 3, 3, 32), 0.25)])
    source.save_weights(tmp_path / "mobilenet.weights.h5")
    settings = Model(backbone="mobilenet_v2", weights=str(tmp_path / "mobilenet.weights.h5"))
    model = build_classifier(settings, "attention", 2, 32)
    np.testing.assert_array_equal(model.get_layer("Conv1").get_weights()[0], 0.25)


def test_imagenet_weights_on_disk_are_taken_before_the_download(tmp_path, monkeypatch):
    source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(112, 112, 3))
    source.get_layer("Conv1").set_weights([np.full((3, 3, 3, 32), 0.5)])
    (tmp_path / "data" / "weights").mkdir(parents=True)
    source.save_weights(tmp_path / "data" / "weights" / "mobilenet_v2_imagenet_notop.weights.h5")
    monkeypatch.setattr("lib.profile.settings.ROOT", tmp_path)
    settings = Model(backbone="mobilenet_v2", feature_layer="block_13_expand_relu")
    model = build_classifier(settings, "attention", 2, 112)
    np.testing.assert_array_equal(model.get_layer("Conv1").get_weights()[0], 0.5)
    assert model.get_layer("features").output.shape[1:] == (7, 7, 576)


def test_other_starting_weights_make_another_model(tmp_path):
    """A file that is exchanged under the same name does not leave the old model standing."""
    file = tmp_path / "start.weights.h5"
    values = yaml.safe_load((ROOT / "profiles" / "test.yaml").read_text())
    values["model"] |= {"weights": str(file)}
    del values["threads"]  # whatever this process has
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(values))

    def key(content):
        file.write_bytes(content)
        study = Study(tmp_path / "test.yaml", values["datasets"][0], values["seeds"][0])
        study._data_key = "data"  # no need of images
        return study.model_key("attention"), study.starting_weights["starting_weights"]

    (first, said), (same, _), (other, _) = key(b"one"), key(b"one"), key(b"two")
    assert first == same != other
    assert said == f"start.weights.h5, SHA-256 {hashlib.sha256(b'one').hexdigest()}"


def test_missing_weights_are_one_clear_sentence(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.h5, which is not a file"):
        build_classifier(Model(weights="nowhere.h5"), "baseline", 2, 32)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"not HDF5")
    with pytest.raises(StudyError, match="could not be loaded"):
        build_classifier(Model(weights=str(broken)), "baseline", 2, 32)
