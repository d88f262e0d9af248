"""Adversarial training: budgets, losses against NumPy, and whether it makes a model more robust."""

import keras
import numpy as np
import pytest

from lib.attacks import Classifier, make_attack
from lib.models import build_classifier
from lib.models.adversarial import AdversarialTrainer, TradesLoss
from lib.models.training import set_determinism, train
from lib.profile import Adversarial, Model, Training
from lib.study import Study

EPSILON = 8.0
SMALL = Model(backbone="resnet14", weights="none", width=4, feature_layer="conv2_block1_add")


def dense():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64, -2)(inputs))
    return keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(2, name="logits")(x)))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def divergences(p, q):
    return (p * np.log(p / q)).sum(axis=1)


def test_the_trades_loss_is_the_formula():
    rng = np.random.default_rng(0)
    clean, adversarial = rng.normal(size=(2, 5, 3)).astype("float32")
    labels, weights = rng.integers(0, 3, 5), rng.uniform(0.5, 2, 5).astype("float32")
    p, q = softmax(clean), softmax(adversarial)
    expected = np.mean(weights * (-np.log(p[np.arange(5), labels]) + 4 * divergences(p, q)))
    one_hot = np.eye(3, dtype="float32")[labels]
    loss = TradesLoss(4.0)(
        np.concatenate([one_hot] * 2),
        np.concatenate([clean, adversarial]),
        sample_weight=np.concatenate([weights] * 2),
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def fragile(n, seed):
    """Two classes told apart by a small bright square, and by faint stripes all over that a small budget undoes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    sign = 2 * labels[:, None, None, None] - 1
    images = rng.normal(128, 6, (n, 16, 16, 3))
    images += 3 * sign * np.where(np.arange(16) % 2, 1, -1)[:, None, None]
    images[:, 6:10, 6:10] += sign * 20
    return np.clip(images, 0, 255).astype("uint8"), labels


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_images_lie_in_the_budget_and_raise_the_loss(method):
    model = dense()
    model.compile("adam", "categorical_crossentropy")
    trainer = AdversarialTrainer(model, Adversarial(method=method, epsilon=EPSILON, steps=2, step_size=3))
    images, labels = fragile(24, 0)
    images = images.astype("float32")
    adversarial = trainer.attack(images, labels, 3)
    assert 6 <= np.abs(adversarial - images).max() <= EPSILON + 1e-3
    assert adversarial.min() >= 0
    assert adversarial.max() <= 255
    noise = images + EPSILON * np.random.default_rng(0).choice([-1, 1], images.shape)
    p, q, r = (softmax(trainer.classifier.logits(x).astype("float64")) for x in (images, adversarial, noise))
    if method == "trades":
        assert (divergences(p, q) > divergences(p, r)).all()
    else:
        rows = np.arange(24), labels
        assert (q[rows] < np.minimum(p[rows], r[rows])).all()
    np.testing.assert_array_equal(adversarial, trainer.attack(images, labels, 3))
    assert not np.array_equal(adversarial, trainer.attack(images, labels, 4))


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_it_makes_a_model_more_robust(method, tmp_path):
    set_determinism(0)
    data, held_out = fragile(128, 0), fragile(64, 1)

    def robust(adversarial):
        settings = Training(epochs=12, batch_size=32, learning_rate=0.02, adam_epsilon=1e-7, adversarial=adversarial)
        model, _ = train(dense(), data, held_out, settings, tmp_path / str(bool(adversarial)))
        images, labels = held_out[0].astype("float32"), held_out[1]
        attacked = make_attack("pgd", steps=10)(Classifier(model), images, labels, 4.0)
        return (Classifier(model).predict(attacked) == labels).mean()

    assert robust(Adversarial(method=method, epsilon=4.0, steps=3)) > robust(None) + 0.2


def test_in_bfloat16_it_is_the_trained_network_that_is_attacked():
    model = build_classifier(SMALL, "baseline", 2, 32, precision="mixed_bfloat16")
    model.compile(keras.optimizers.Adam(0.01), keras.losses.CategoricalCrossentropy())
    trainer = AdversarialTrainer(model, Adversarial(method="pgd-at", steps=1))
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    before = trainer.classifier.logits(images)
    trainer.network.train_on_batch(images, np.eye(2)[[0, 1, 0, 1]])
    assert np.abs(trainer.classifier.logits(images) - before).max() > 0
    assert trainer.classifier.network.get_layer("logits") is model.get_layer("logits")


def test_the_positive_control_goes_on_from_the_trained_baseline(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    study = Study("test", "chestxray14", 0)
    study.runs = tmp_path
    tuning = Training(
        learning_rate=1e-12, epochs=1, batch_size=16, epoch_fraction={}, restore_best=False, kept_as="float16",
        adversarial=Adversarial(method="pgd-at", epsilon=1, steps=1),
    )  # fmt: skip
    variants = ["baseline", "attention", "adversarial"]
    study.profile = study.profile.model_copy(update={"tuning": tuning, "variants": variants})
    baseline, tuned = (study.trained(variant)[0] for variant in ("baseline", "adversarial"))
    for before, after in zip(baseline.trainable_weights, tuned.trainable_weights, strict=True):
        held = np.asarray(after)
        np.testing.assert_array_equal(held, held.astype("float16").astype("float32"))
        np.testing.assert_allclose(held, before, rtol=1e-3, atol=1e-6)  # so small a rate leaves them where they were
    key = study.model_key("adversarial")
    study.profile = study.profile.model_copy(
        update={"training": study.profile.training.model_copy(update={"learning_rate": 0.5})}
    )
    assert study.model_key("adversarial") != key, "another baseline gives another control"
