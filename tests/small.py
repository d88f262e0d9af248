"""A network and images that are trained on within a second."""

import keras
import numpy as np

from lib.models import SoftAttention


def tiny(seed=0):
    """Everything whose state a resumed training must restore: batch norm, gamma, dropout."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 8, 8)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    x, _ = SoftAttention(maps=2, name="soft_attention")(x)
    x = keras.layers.Dropout(0.5, seed=seed)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(2, name="logits")(x)))


def toy(n=32, size=32, seed=0):
    """Two classes told apart by colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 100, (n, size, size, 3), dtype=np.uint8)
    images[labels == 1, :, :, 0] += 120
    return images, labels
