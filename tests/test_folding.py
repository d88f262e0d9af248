"""Folded batch normalisation: the same logits and gradients as the network, whatever it is built of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from lib.attacks import Classifier, make_attack
from lib.attacks.folding import Folded
from lib.models import build_classifier
from lib.models.backbones import APPLICATIONS
from lib.profile import Model


def unsettled(model, seed=0):
    """The model with weights as training leaves them, none of them 0 or 1."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def normalised(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]


def assert_same(model, folded, images):
    """Logits to 1e-5 and input gradients to 1e-4, of their size; gives the gradients of the model."""
    images, answers = tf.constant(images), []
    for network in (model, folded):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = network(images, training=False)
            total = tf.reduce_sum(logits * tf.range(1.0, 1.0 + logits.shape[1]))
        answers.append((logits.numpy(), tape.gradient(total, images).numpy()))
    for one, other, tolerance in zip(*answers, (1e-5, 1e-4), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * np.abs(one).max())
    return answers[0][1]


@pytest.mark.filterwarnings("ignore:You are using a softmax")
@pytest.mark.parametrize(
    ("name", "variant"),
    [("resnet14", "baseline"), *((name, "attention-reference") for name in ["resnet14", *sorted(APPLICATIONS)])],
)
def test_every_backbone_stays_the_same(name, variant):
    size = 75 if name == "inception_resnet_v2" else 32  # larger, and rounding turns ReLUs of DenseNet on and off
    model = unsettled(build_classifier(Model(backbone=name, weights="none"), variant, 3, size))
    network = keras.Model(model.input, model.get_layer("logits").output)
    folded = Folded(network).network
    assert len(normalised(folded)) < len(normalised(network))
    images = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype("float32")
    assert np.abs(assert_same(network, folded, images)).max(axis=(1, 2, 3)).min() > 0


KINDS = st.sampled_from(
    ["conv", "depthwise", "separable", "norm", "norm without", "relu", "two ways", "nested", "sequential"]
)


@settings(max_examples=25)
@given(st.lists(KINDS, min_size=1, max_size=8), st.booleans(), st.integers(0, 5))
def test_random_networks_stay_the_same(kinds, bias, seed):
    keras.utils.set_random_seed(seed)

    def grown(x, kinds):
        for kind in kinds:
            if kind == "conv":
                x = layers.Conv2D(4, 3, padding="same", use_bias=bias)(x)
            elif kind == "depthwise":
                x = layers.DepthwiseConv2D(3, padding="same", use_bias=bias, depth_multiplier=1 + seed % 2)(x)
            elif kind == "separable":
                x = layers.SeparableConv2D(4, 3, padding="same", use_bias=bias)(x)
            elif kind.startswith("norm"):
                plain = kind == "norm"
                x = layers.BatchNormalization(axis=3 if seed % 2 else -1, scale=plain, center=plain)(x)
            elif kind == "relu":
                x = layers.ReLU()(x)
            elif kind == "two ways":
                x = layers.Conv2D(4, 1, use_bias=bias)(x)
                x = layers.Concatenate()([layers.BatchNormalization()(x), x])  # the convolution is needed as it is
        return x

    inputs = keras.Input((6, 6, 3))
    x = inputs
    for kind in kinds:
        if kind == "sequential":
            plain = [layers.Conv2D(4, 1, use_bias=bias), layers.BatchNormalization(), layers.ReLU()]
            x = keras.Sequential([keras.Input(x.shape[1:]), *plain])(x)
        elif kind == "nested":
            inner = keras.Input(x.shape[1:])
            x = keras.Model(inner, grown(inner, ["conv", "norm", "relu"]))(x)
        else:
            x = grown(x, [kind])
    x = layers.BatchNormalization()(layers.Dense(5, use_bias=bias)(layers.GlobalAveragePooling2D()(x)))
    model = unsettled(keras.Model(inputs, layers.Dense(3)(x)), seed)
    assert_same(model, Folded(model).network, np.random.default_rng(seed).normal(size=(2, 6, 6, 3)).astype("float32"))


def test_what_follows_directly_is_folded_and_nothing_else():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="first")(inputs)  # follows nothing
    x = layers.BatchNormalization(name="folded")(layers.Conv2D(4, 3)(x))
    x = layers.BatchNormalization(name="behind")(layers.Conv2D(4, 3, activation="relu")(x))  # not linear
    shared = layers.Conv2D(4, 3, padding="same")
    x = layers.BatchNormalization(name="of_shared")(shared(shared(x)))  # one kernel for two uses
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    assert [layer.name for layer in normalised(Folded(model).network)] == ["first", "behind", "of_shared"]


def test_models_within_models_are_gone_through_and_what_is_not_built_of_layers_is_left():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = [layers.Conv2D(4, 3), layers.BatchNormalization()]

        def call(self, x, training=False):
            return self.inner[1](self.inner[0](x), training=training)

    inner = [layers.Conv2D(4, 1), layers.BatchNormalization(name="folded")]
    inputs = keras.Input((8, 8, 3))
    x = Own()(keras.Sequential([keras.Input((8, 8, 3)), *inner], name="part")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    folded = Folded(model).network
    assert len(normalised(model)) == 2
    assert not normalised(folded.get_layer("part"))
    assert len(normalised(folded)) == 1
    assert_same(model, folded, np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32"))


def test_a_model_that_is_trained_on_is_attacked_as_it_is_now():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs)))
    model = unsettled(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.ReLU()(x)))))
    classifier = Classifier(model)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 255, (16, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 16)
    before = classifier.logits(images)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, epochs=2, verbose=0)
    now = model.predict(images, verbose=0)
    assert np.abs(now - before).max() > 1e-3
    np.testing.assert_allclose(classifier.logits(images), now, atol=1e-4)
    attack = make_attack("pgd", steps=3)
    adversarial = attack(classifier, images, labels, 4.0)
    model.set_weights([weight * 1.5 for weight in model.get_weights()])
    np.testing.assert_array_equal(
        attack(classifier, images, labels, 4.0), attack(Classifier(model), images, labels, 4.0)
    )
    assert (adversarial != images).any()
