"""The classifiers of section 3.3: a convolutional backbone with a plain or an attentive head.

Every model takes RGB pixels, float32 in [0, 255], shape (n, size, size, 3): the backbone's own
preprocessing is its first layer, so that attacks live in pixel space. It ends in a Dense layer named
`logits` followed by a softmax, and is one flat functional model, so that any layer can be reached by
its name. The map that the head reads is named `features` in every model.
"""

from contextlib import contextmanager

import keras
from keras import layers

from lib.models.attention import CBAM, SoftAttention, SqueezeExcitation
from lib.models.backbones import FEATURES, backbone
from lib.profile import Model as ModelSettings


def build_classifier(
    settings: ModelSettings, variant: str, classes: int, image_size: int, seed: int = 0, precision: str = "float32"
) -> keras.Model:
    """A classifier of section 3.3 with the head of `variant`.

    `baseline`: global average pooling, dense, softmax; `adversarial` is the same, trained otherwise. `attention`: the
    soft attention block; its output and its input, each 2 x 2 max-pooled, concatenated; ReLU; dropout; global average
    pooling; dense; softmax. `attention-reference`: the same with the reference code's arithmetic in the block.

    Controls, for what else the attention head brings: `pooling`, the same head with the block's output replaced by its
    input; `uniform`, with the reference's map held constant, at the same scale and with the same parameters, so that
    what is left is attention itself; `uniform-matched`, the same at the scale s = `settings.branch_scale` (at 1 it
    computes what `pooling` does); `scaled`, the baseline with its pooled features multiplied by 1 + s, which has no
    branch and whose dense layer learns faster; `frozen`, with gamma fixed at 0, so that the attended half is zeros;
    `attention-gamma1` and `attention-gamma3`, with gamma fixed at 1 and 3; `attention-no-dropout`. Beyond the paper, in
    place of soft attention: `se` (squeeze-and-excitation) and `cbam`.

    With `precision` "mixed_bfloat16" all between the preprocessing and the logits is computed in bfloat16; weights,
    pixels, logits and probabilities are float32, so that `set_weights` passes between the two.

    Initial weights depend on `seed` alone, and those of the backbone are the same for all variants.
    Raises StudyError when a weights file is missing or does not fit, the download of weights fails, or the library of
    the backbone is not installed.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((image_size, image_size, 3), name="pixels", dtype="float32")
    with _computing_in(precision):
        features = backbone(settings, inputs)
        head = _baseline_head if variant in ("baseline", "adversarial", "scaled") else _attention_head
        pooled = head(features, settings, variant, seed)
    logits = layers.Dense(classes, name="logits", kernel_initializer=_glorot(seed), dtype="float32")(pooled)
    outputs = layers.Softmax(name="probabilities", dtype="float32")(logits)
    model = keras.Model(inputs, outputs, name=variant.replace("-", "_"))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = settings.batch_norm_momentum
    return model


@contextmanager
def _computing_in(precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _glorot(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def _baseline_head(features, settings, variant, seed):
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    return layers.Rescaling(1 + settings.branch_scale, name="scale")(pooled) if variant == "scaled" else pooled


def _attention_head(features, settings, variant, seed):
    weighted = features if variant == "pooling" else _attended(features, settings, variant)
    # Datta et al.'s code pads here ("same"); with 7 x 7 maps the alternative drops a row and a column.
    pool = {"pool_size": 2, "padding": "same"}
    x = layers.Concatenate(name="concatenate")(
        [
            layers.MaxPooling2D(**pool, name="pool_features")(features),
            layers.MaxPooling2D(**pool, name="pool_attended")(weighted),
        ]
    )
    x = layers.ReLU(name="head_relu")(x)
    rate = 0.0 if variant == "attention-no-dropout" else settings.dropout
    x = layers.Dropout(rate, seed=seed, name="dropout")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _attended(features, settings, variant):
    """What the variant's block makes of the map; blocks that weigh positions give their maps as well."""
    if variant == "se":
        return SqueezeExcitation(name="squeeze_excitation")(features)
    if variant == "cbam":
        weighted, _ = CBAM(name="cbam")(features)
        return weighted
    fixed = {"frozen": 0.0, "attention-gamma1": 1.0, "attention-gamma3": 3.0}.get(variant)
    block = SoftAttention(
        settings.attention_maps,
        gamma=settings.gamma if fixed is None else fixed,
        form={"attention-reference": "reference", "uniform": "uniform", "uniform-matched": "uniform"}.get(
            variant, "formula"
        ),
        train_gamma=fixed is None,
        scale=settings.branch_scale if variant == "uniform-matched" else None,
        name="soft_attention",
    )
    weighted, _ = block(features)
    return weighted


def without_branch(model: keras.Model) -> keras.Model | None:
    """A copy of a classifier with its attention branch taken out; None for one that has none.

    What the branch gives is zero there, all else is as it was: how far the logits differ says how much the branch has a
    part in them, whatever gamma and the dense layer's weights are by themselves.
    """
    if not any(layer.name == "pool_attended" for layer in model.layers):
        return None
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel, bias = copy.get_layer("logits").get_weights()
    kernel[len(kernel) // 2 :] = 0  # the attended half stands second in the concatenation
    copy.get_layer("logits").set_weights([kernel, bias])
    return copy


def parameter_counts(model: keras.Model) -> dict[str, int | float]:
    """Parameters of the model, of its attention block, and the block's share of the backbone in percent.

    Claim C4 ("< 1.3 %") compares the block with the backbone: 9 * 2048 * 16 + 16 weights, and gamma.
    """
    blocks = [layer for layer in model.layers if isinstance(layer, (SoftAttention, SqueezeExcitation))]
    block = sum(layer.count_params() for layer in blocks)
    backbone = keras.Model(model.input, model.get_layer(FEATURES).output).count_params()
    return {
        "parameters": model.count_params(),
        "attention_parameters": block,
        "backbone_parameters": backbone,
        "attention_percent": 100 * block / backbone,
    }
