"""The backbones beyond the paper: each against its own library's model and preprocessing."""

import sys

import keras
import numpy as np
import pytest
from keras import ops

from lib import StudyError
from lib.attacks import Classifier
from lib.attacks.gradients import value_and_gradient
from lib.models import build_classifier
from lib.profile import BACKBONES as KNOWN
from lib.profile import Model

MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "float32")
# Application, its documented preprocessing, image size, and the side and channels of its map of stride 16.
BACKBONES = {
    "densenet121": (
        keras.applications.DenseNet121,
        keras.applications.densenet.preprocess_input,
        64,
        (4, 1024),
    ),
    "efficientnet_b0": (
        keras.applications.EfficientNetB0,
        # What the model with ImageNet weights does to pixels, times 255, which the model without divides by.
        lambda x: 255 * (x / 255 - MEAN) / DEVIATION / np.sqrt(DEVIATION),
        64,
        (4, 672),
    ),
    "inception_resnet_v2": (
        keras.applications.InceptionResNetV2,
        keras.applications.inception_resnet_v2.preprocess_input,
        75,
        (3, 1088),
    ),
}


def gradient(model, images):
    classifier = Classifier(model)

    def first_class(x):
        return classifier.scores_of(x)[:, 0], ()

    return np.asarray(value_and_gradient(first_class, ops.convert_to_tensor(images))[-1])


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_is_its_librarys_with_weights_from_a_file(name, tmp_path):
    application, preprocess, size, (side, channels) = BACKBONES[name]
    source = application(include_top=False, weights=None, input_shape=(size, size, 3))
    source.save_weights(tmp_path / "backbone.weights.h5")
    feature_layer = KNOWN[name]["maps"][1]
    settings = Model(backbone=name, weights=str(tmp_path / "backbone.weights.h5"), feature_layer=feature_layer)
    model = build_classifier(settings, "attention", 3, size)
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    features = keras.Model(model.input, model.get_layer("features").output)(images)
    assert features.shape == (2, side, side, channels)
    expected = keras.Model(source.input, source.get_layer(feature_layer).output)(preprocess(images.copy()))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))
    slope = gradient(model, images)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max(axis=(1, 2, 3)).min() > 0


def test_the_first_map_of_every_backbone_exists():
    for name in ("densenet121", "efficientnet_b0"):
        settings = Model(backbone=name, weights="none")
        features = build_classifier(settings, "baseline", 2, 32).get_layer("features")
        assert features.output.shape[1:3] == (1, 1)


def test_a_vision_transformer_gives_its_patches_as_a_map(tmp_path):
    pytest.importorskip("keras_hub", exc_type=ImportError)
    model = build_classifier(Model(backbone="vit_tiny", weights="none"), "attention", 3, 48)
    assert model.get_layer("features").output.shape == (None, 3, 3, 192)
    # DeiT-Ti has 5.7 million parameters with its class token and head, and 196 + 1 positions: by hand without.
    block = 4 * (192 * 192 + 192) + 2 * 192 * 768 + 768 + 192 + 4 * 192
    backbone = keras.Model(model.input, model.get_layer("features").output)
    assert backbone.count_params() == 16 * 16 * 3 * 192 + 192 + 9 * 192 + 12 * block + 2 * 192
    images = np.random.default_rng(0).uniform(0, 255, (2, 48, 48, 3)).astype("float32")
    slope = gradient(model, images)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(images), model(images), atol=1e-6)


def test_without_keras_hub_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    monkeypatch.setitem(sys.modules, "keras_hub.models", None)
    with pytest.raises(StudyError, match="vit_tiny needs Keras Hub"):
        build_classifier(Model(backbone="vit_tiny", weights="none"), "baseline", 2, 32)
