"""Mixed precision: what is computed in bfloat16, what is not, and that attacks and explanations work on it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import toy

from lib.attacks import Classifier, make_attack
from lib.explain import grad_cam
from lib.models import build_classifier
from lib.models.normalization import FusedBatchNormalization, with_fused_batch_norm
from lib.models.training import computes_in_bfloat16, train
from lib.profile import Model, Training

SMALL = Model(backbone="resnet14", weights="none", width=4, batch_norm_momentum=0.9)


def test_bfloat16_trains_and_is_attacked_and_passes_its_weights_to_float32(tmp_path):
    mixed = build_classifier(SMALL, "attention", 2, 32, seed=1, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert (
        mixed.get_layer("conv1_conv").compute_dtype == mixed.get_layer("features").compute_dtype == "bfloat16"
    )
    for name in ("preprocessing", "logits", "probabilities"):
        assert mixed.get_layer(name).compute_dtype == "float32"
    assert {w.dtype for w in mixed.weights} == {"float32"}

    settings = Training(epochs=2, batch_size=8, epoch_fraction={}, precision="mixed_bfloat16")
    data = toy(32)
    mixed, history = train(mixed, data, data, settings, tmp_path)
    assert np.isfinite(history["loss"].astype(float)).all()

    same = build_classifier(SMALL, "attention", 2, 32, seed=2)
    same.set_weights(mixed.get_weights())
    images, labels = data[0].astype("float32"), data[1]
    near, exact = Classifier(mixed).logits(images), Classifier(same).logits(images)
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()  # bfloat16 keeps 8 bits

    adversarial = make_attack("pgd", steps=3)(Classifier(mixed), images, labels, 4.0)
    assert np.isfinite(adversarial).all()
    assert 3 < np.abs(adversarial - images).max() <= 4
    assert np.isfinite(grad_cam(mixed, images[:2], labels[:2])).all()


def normalised(layer, features, weights):
    """Output and gradients of a training step of a batch normalisation, and its moving statistics, as NumPy arrays."""
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = layer(features, training=True)
        total = tf.reduce_sum(tf.cast(output, "float32") * weights)
    gradients = tape.gradient(total, [features, *(v.value for v in layer.trainable_variables)])
    found = [output, *gradients, layer.moving_mean, layer.moving_variance]
    return [np.asarray(tf.cast(value, "float32")) for value in found]


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 1.001e-5}])
def test_fused_batch_normalisation_is_keras_own(options):
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(6, 5, 4, 3)) * [1, 5, 0.1] + [0, 40, -3]).astype("float32")
    weights = generator.normal(size=features.shape).astype("float32")
    ours, keras_own = (
        normalised(kind(momentum=0.9, **options), features, weights)
        for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    for a, b in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours[-1], 0.9 + 0.1 * features.var(axis=(0, 1, 2)), rtol=1e-4)

    near = normalised(
        FusedBatchNormalization(momentum=0.9, dtype="mixed_bfloat16", **options), features, weights
    )
    # Statistics are of what comes in, not rounded again.
    rounded = tf.cast(tf.cast(features, "bfloat16"), "float32").numpy()
    np.testing.assert_allclose(near[-2], 0.1 * rounded.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(near[-1], 0.9 + 0.1 * rounded.var(axis=(0, 1, 2)), rtol=1e-3)


def test_models_in_bfloat16_hold_the_fused_layer_saved_and_loaded_too(tmp_path):
    mixed = build_classifier(SMALL, "attention", 2, 32, seed=1, precision="mixed_bfloat16")
    mixed.save(tmp_path / "model.keras")
    for model in (mixed, keras.saving.load_model(tmp_path / "model.keras")):
        kinds = {type(x) for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}
        assert kinds == {FusedBatchNormalization}
        assert model.get_layer("conv1_bn").momentum == SMALL.batch_norm_momentum
    plain = build_classifier(SMALL, "attention", 2, 32, seed=1)
    assert not any(isinstance(x, FusedBatchNormalization) for x in plain.layers)
    assert [w.path for w in with_fused_batch_norm(plain).weights] == [w.path for w in plain.weights]
    # The same start in both precisions.
    for a, b in zip(mixed.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2", False),
        ("", None),
    ],
)
def test_processors_with_and_without_bfloat16_are_told_apart(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setattr("lib.models.training._has_gpu", lambda: False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert computes_in_bfloat16(tmp_path / "cpuinfo") is expected
    assert computes_in_bfloat16(tmp_path / "none") is None
