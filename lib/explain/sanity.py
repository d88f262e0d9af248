"""Is an explanation sound? Randomise the model's weights from the top down.

Adebayo et al. 2018 ("Sanity checks for saliency maps", section 3.1): a map that stays as it is when the
weights that it is said to explain are destroyed shows the image, not the model.
"""

import keras
import numpy as np
from scipy.stats import spearmanr

from lib.explain import constant

STAGES = 3  # parts that the backbone is randomised in


def randomisation_steps(model: keras.Model) -> list[tuple[str, list[str]]]:
    """What is randomised, cumulatively and from the top: (name of the step, names of its layers).

    The logits, then the attention block if there is one, then the backbone's weighted layers in equal parts.
    """
    weighted = [layer for layer in model.layers if layer.weights]
    blocks = [layer.name for layer in weighted if layer.name == "soft_attention"]
    backbone = [layer.name for layer in weighted if layer.name not in ("logits", "soft_attention")][::-1]
    parts = [list(part) for part in np.array_split(backbone, STAGES) if len(part)]
    names = ["top", "middle", "bottom"] if len(parts) == STAGES else [str(n + 1) for n in range(len(parts))]
    steps = [("logits", ["logits"])] + ([("attention block", blocks)] if blocks else [])
    return steps + [(f"backbone, {name}", part) for name, part in zip(names, parts, strict=True)]


def randomised(model: keras.Model, seed: int = 0):
    """Copies of a model with ever more of it randomised: yields (step, model), the same object further destroyed.

    Randomising permutes the numbers within each tensor of a layer, which keeps their distribution, and with it the
    scale of the activations, and destroys what they say. The model itself is left as it is.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    rng = np.random.default_rng(seed)
    for step, names in randomisation_steps(model):
        for name in names:
            layer = copy.get_layer(name)
            layer.set_weights([rng.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()])
        yield step, copy


def agreement(first, second) -> np.ndarray:
    """Spearman's rank correlation of two maps' cells, float (n,), of maps (n, h, w); NaN where one is constant."""
    unknown = constant(first) | constant(second)
    return np.array(
        [
            np.nan if flat else spearmanr(a, b, axis=None).statistic
            for a, b, flat in zip(first, second, unknown, strict=True)
        ]
    )
