"""Mixed precision: what is computed in bfloat16, what is not, and that attacks and explanations work on it."""

import keras
import numpy as np
from small import toy

from lib.attacks import Classifier, make_attack
from lib.explain import grad_cam
from lib.models import build_classifier
from lib.models.training import train
from lib.profile import Model, Training

SMALL = Model(backbone="resnet14", weights="none", width=4, feature_layer="conv2_block1_add", batch_norm_momentum=0.9)


def test_bfloat16_trains_and_is_attacked_and_passes_its_weights_to_float32(tmp_path):
    mixed = build_classifier(SMALL, "attention", 2, 32, seed=1, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert mixed.get_layer("conv1_conv").compute_dtype == mixed.get_layer("features").compute_dtype == "bfloat16"
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
    near, exact = Classifier(mixed, float32=False).logits(images), Classifier(same).logits(images)
    np.testing.assert_allclose(Classifier(mixed).logits(images), exact, rtol=1e-4, atol=1e-5)  # of a float32 copy
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()  # bfloat16 keeps 8 bits

    adversarial = make_attack("pgd", steps=3)(Classifier(mixed), images, labels, 4.0)
    assert np.isfinite(adversarial).all()
    assert 3 < np.abs(adversarial - images).max() <= 4
    assert np.isfinite(grad_cam(mixed, images[:2], labels[:2])).all()
