"""Training behind a frozen stem: the same network, cut in two."""

import keras
import numpy as np
import pytest

from lib import StudyError
from lib.models import build_classifier, frozen
from lib.models.training import Epoch, set_determinism, train
from lib.profile import Model, Training
from lib.study import Study

SIZE = 64
SETTINGS = Model(backbone="resnet14", weights="none", width=4, frozen_up_to="conv3_block1_out")
IMAGES = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3)).astype("uint8")
LABELS = np.arange(20) % 2


@pytest.mark.parametrize("variant", ["baseline", "attention-reference"])
def test_stem_and_rest_are_the_whole_network(variant, tmp_path):
    model = build_classifier(SETTINGS, variant, 2, SIZE)
    stem, rest = frozen.split(model, SETTINGS.frozen_up_to)
    held = frozen.features(stem, IMAGES, 1, tmp_path, "k")
    assert held.shape == (20, 1, *stem.output_shape[1:])
    said = rest.predict(held[:, 0].astype("float32"), verbose=0)
    np.testing.assert_allclose(said, model.predict(IMAGES.astype("float32"), verbose=0), atol=2e-3)  # float16 between


def test_the_views_are_the_eight_of_a_square():
    image = np.arange(16.0).reshape(1, 4, 4)
    views = {frozen.view(image, number).tobytes() for number in frozen.VIEWS[8]}
    assert len(views) == 8
    np.testing.assert_array_equal(frozen.view(image, 0), image)
    assert {np.sort(np.frombuffer(v)).tobytes() for v in views} == {np.sort(image.ravel()).tobytes()}


def test_features_of_a_view_are_those_of_the_turned_image_and_are_kept(tmp_path):
    model = build_classifier(SETTINGS, "baseline", 2, SIZE)
    stem, _ = frozen.split(model, SETTINGS.frozen_up_to)
    held = frozen.features(stem, IMAGES[:3], 8, tmp_path, "k")
    for number in (0, 3, 6):
        expected = stem.predict_on_batch(frozen.view(IMAGES[:3], number).astype("float32"))
        np.testing.assert_allclose(held[:, number], expected, rtol=2e-3, atol=1e-3)
    two = frozen.features(stem, IMAGES[:3], 2, tmp_path / "two", "k")
    mirrored = stem.predict_on_batch(IMAGES[:3, :, ::-1].astype("float32"))
    np.testing.assert_allclose(two, np.stack([held[:, 0], mirrored], 1), rtol=2e-3, atol=1e-3)
    [path] = tmp_path.glob("*.npy")
    before = path.stat().st_mtime_ns
    frozen.features(stem, IMAGES[:3], 8, tmp_path, "k")
    assert path.stat().st_mtime_ns == before
    frozen.features(stem, IMAGES[:3], 8, tmp_path, "other images")
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_an_epoch_draws_one_view_of_each_image():
    held = np.broadcast_to(np.arange(8.0).reshape(1, 8, 1, 1, 1), (40, 8, 2, 2, 3))
    settings = Training(batch_size=40, epoch_fraction={})
    drawn = [
        Epoch(held, np.zeros(40, int), 2, np.ones(2), settings, 1.0, 0, epoch)[0][0][:, 0, 0, 0] for epoch in (0, 0, 1)
    ]
    assert len(set(drawn[0])) > 4
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_a_cosine_warms_up_and_ends_at_zero(tmp_path):
    set_determinism(0)
    model = build_classifier(
        Model(backbone="resnet14", weights="none", width=4, feature_layer="conv2_block1_add"), "baseline", 2, SIZE
    )
    settings = Training(
        epochs=3, batch_size=5, schedule="cosine", warmup_epochs=1, learning_rate=0.01, epoch_fraction={}
    )
    train(model, (IMAGES, LABELS), (IMAGES, LABELS), settings, tmp_path)
    rate = model.optimizer._learning_rate
    values = [float(rate(step)) for step in (0, 2, 4, 8, 12)]  # four steps an epoch
    np.testing.assert_allclose(values, [0, 0.005, 0.01, 0.005, 0], atol=1e-9)


def test_training_behind_a_stem_leaves_it_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    study = Study("test", "chestxray14", 0)
    study.runs = tmp_path
    changes = {"views": 8, "schedule": "cosine", "warmup_epochs": 1, "restore_best": False}
    study.profile = study.profile.model_copy(
        update={
            "model": study.profile.model.model_copy(update={"frozen_up_to": "pool1_pool"}),
            "training": study.profile.training.model_copy(update=changes),
        }
    )
    model, history = study.trained("attention")
    fresh = build_classifier(study.profile.model, "attention", 2, study.profile.preprocessing.image_size, study.seed)
    moved = {
        layer.name: any((a != b).any() for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))
        for layer, other in zip(model.layers, fresh.layers, strict=True)
        if layer.weights
    }
    stem, rest = frozen.split(model, "pool1_pool")
    assert not any(moved.get(layer.name) for layer in stem.layers)
    assert all(moved.get(layer.name, True) for layer in rest.layers)
    again = keras.saving.load_model(study.directory("attention") / "model.keras")
    np.testing.assert_array_equal(again.get_weights()[-1], model.get_weights()[-1])
    assert len(history) == study.profile.training.epochs


def test_a_layer_that_cannot_be_cut_behind_is_named():
    model = build_classifier(SETTINGS, "baseline", 2, SIZE)
    for layer in ("nowhere", "conv3_block1_1_conv"):  # inside a block, which has a way around it
        with pytest.raises(StudyError, match=f"frozen_up_to names '{layer}'"):
            frozen.split(model, layer)
