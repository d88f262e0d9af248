"""The classifiers of section 3.3: a convolutional backbone with a plain or an attentive head.

Every model takes RGB pixels, float32 in [0, 255], shape (n, size, size, 3): the backbone's own
preprocessing is its first layer, so that attacks live in pixel space. It ends in a Dense layer named
`logits` followed by a softmax, and is one flat functional model, so that any layer can be reached by
its name. The map that the head reads is named `features` in every model.
"""

from pathlib import Path

import keras
from keras import layers, ops

from lib import StudyError
from lib.profile import Model as ModelSettings

FEATURES = "features"
IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)


@keras.saving.register_keras_serializable("study")
class CaffePreprocessing(layers.Layer):
    """RGB pixels to zero-centred BGR: Keras' "caffe" mode, the paper's preprocessing (section 3.2)."""

    def call(self, images):
        return ops.flip(images - ops.convert_to_tensor(IMAGENET_MEAN_RGB, images.dtype), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("study")
class SoftAttention(layers.Layer):
    """Soft attention, f_sa = gamma * t * sum_k softmax(W_k * t), the softmax over positions.

    Input: a feature map t, float, shape (n, h, w, c). Returns a pair: the weighted features, shape
    (n, h, w, c), and the K attention maps, shape (n, h, w, K), each of which sums to 1 over h x w.

    `form="formula"` follows the equation of Datta et al. 2021 as Wasserman 2022 (section 3.3) restates
    it: W_k is a 3 x 3 x c kernel and gamma a learnable scalar. `form="reference"` does the arithmetic of
    the public Keras code of Datta et al.: a 3D convolution over (h, w, c, 1) with a kernel of shape
    (c, 3, 3, 1, K) and strides (1, 1, c), then a ReLU, and no gamma. Read against Keras' axis order,
    its axis of length c lies along the height, 3 x 3 along width and channels, and the stride leaves
    one position on the channel axis: the maps see the first three channels only, and of the c kernel
    rows only 2h - 1 ever meet the input. (That is what "same" padding means and what is computed here.
    TensorFlow's own 3D convolution is not reliable on a CPU when the stride exceeds the kernel, neither
    forward, with oneDNN, nor backward, so that the public code's input gradients are wrong there.)
    Both forms have 9 c K + K weights, and the formula one more for gamma, which `train_gamma=False` fixes.
    """

    def __init__(self, maps=16, gamma=0.01, form="formula", train_gamma=True, **kwargs):
        super().__init__(**kwargs)
        if form not in ("formula", "reference"):
            raise ValueError(f"form must be 'formula' or 'reference', got {form!r}")
        self.maps, self.initial_gamma, self.form, self.train_gamma = maps, gamma, form, train_gamma

    def build(self, input_shape):
        channels = input_shape[-1]
        formula = self.form == "formula"
        shape = (3, 3, channels, self.maps) if formula else (channels, 3, 3, 1, self.maps)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.maps,), initializer="zeros", name="bias")
        self.gamma = (
            self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self.initial_gamma),
                trainable=self.train_gamma,
                name="gamma",
            )
            if formula
            else None
        )

    def call(self, features):
        height, width = features.shape[1:3]
        scores = (
            self._formula_scores(features) if self.form == "formula" else self._reference_scores(features)
        )
        flat = ops.reshape(scores, (-1, height * width, self.maps))
        maps = ops.reshape(ops.softmax(flat, axis=1), (-1, height, width, self.maps))
        weighted = features * ops.sum(maps, axis=-1, keepdims=True)
        return (weighted if self.gamma is None else self.gamma * weighted), maps

    def _formula_scores(self, features):
        return ops.conv(features, ops.cast(self.kernel, features.dtype), padding="same") + self.bias

    def _reference_scores(self, features):
        # The 3D convolution, reduced to the part of its kernel that meets the input: an ordinary
        # convolution of the first three channels. The same numbers at a fraction of the work.
        height, channels = features.shape[1], features.shape[3]
        rows = 2 * height - 1
        first = (channels - 1) // 2 - (height - 1)  # "same" padding puts (c - 1) // 2 rows above
        kernel = self.kernel[max(first, 0) : first + rows, :, :, 0, :]
        if kernel.shape[0] < rows:  # a kernel shorter than the map: rows beyond it weigh nothing
            above = max(-first, 0)
            kernel = ops.pad(kernel, [(above, rows - above - kernel.shape[0]), (0, 0), (0, 0), (0, 0)])
        kernel = ops.cast(kernel, features.dtype)
        return ops.relu(ops.conv(features[..., :3], kernel, padding="same") + self.bias)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape), (*input_shape[:-1], self.maps)

    def get_config(self):
        return super().get_config() | {
            "maps": self.maps,
            "gamma": self.initial_gamma,
            "form": self.form,
            "train_gamma": self.train_gamma,
        }


def build_classifier(
    settings: ModelSettings, variant: str, classes: int, image_size: int, seed: int = 0
) -> keras.Model:
    """A classifier of section 3.3 with the head of `variant`.

    `baseline`: global average pooling, dense, softmax. `attention`: the soft attention block; its output
    and its input, each 2 x 2 max-pooled, concatenated; ReLU; dropout; global average pooling; dense;
    softmax. `attention-reference`: the same with the reference code's arithmetic in the block.

    Controls, for what else the attention head brings: `pooling`, the same head with the block's output replaced by its
    input; `frozen`, with gamma fixed at 0, so that the attended half is zeros; `attention-no-dropout`.

    Initial weights depend on `seed` alone, and those of the backbone are the same for all variants.
    Raises StudyError when a weights file is missing or does not fit, or the download of weights fails.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    features = _backbone(settings, inputs)
    head = _baseline_head if variant == "baseline" else _attention_head
    pooled = head(features, settings, variant, seed)
    logits = layers.Dense(classes, name="logits", kernel_initializer=_glorot(seed))(pooled)
    outputs = layers.Softmax(name="probabilities", dtype="float32")(logits)
    model = keras.Model(inputs, outputs, name=variant.replace("-", "_"))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = settings.batch_norm_momentum
    return model


def _glorot(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def _baseline_head(features, settings, variant, seed):
    return layers.GlobalAveragePooling2D(name="pool")(features)


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
    x = layers.ReLU(name="relu")(x)
    rate = 0.0 if variant == "attention-no-dropout" else settings.dropout
    x = layers.Dropout(rate, seed=seed, name="dropout")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _attended(features, settings, variant):
    block = SoftAttention(
        settings.attention_maps,
        gamma=0.0 if variant == "frozen" else settings.gamma,
        form="reference" if variant == "attention-reference" else "formula",
        train_gamma=variant != "frozen",
        name="soft_attention",
    )
    weighted, _ = block(features)
    return weighted


def _backbone(settings: ModelSettings, inputs):
    """The feature map of the chosen backbone on `inputs`, with its weights loaded, named `features`."""
    if settings.backbone in ("resnet50", "resnet14"):
        x = CaffePreprocessing(name="preprocessing")(inputs)
        end = settings.feature_layer
    else:
        x = layers.Rescaling(1 / 127.5, -1, name="preprocessing")(inputs)
        end = {"resnet50v2": "post_relu", "mobilenet_v2": "out_relu"}[settings.backbone]
    if settings.backbone == "resnet14":
        features = _resnet14(x, settings.width, end)
        model = keras.Model(inputs, features)
        load = settings.weights != "none" and (lambda: model.load_weights(_weights_file(settings)))
    else:
        application = {
            "resnet50": keras.applications.ResNet50,
            "resnet50v2": keras.applications.ResNet50V2,
            "mobilenet_v2": keras.applications.MobileNetV2,
        }[settings.backbone]
        model = application(include_top=False, weights=None, input_tensor=x)
        features = model.get_layer(end).output
        load = settings.weights != "none" and (
            lambda: _load_application_weights(application, model, settings)
        )
    if load:
        load()
    return layers.Identity(name=FEATURES)(features)


def _weights_file(settings: ModelSettings) -> Path:
    path = Path(settings.weights)
    if not path.is_file():
        raise StudyError(
            f"model.weights names {settings.weights}, which is not a file; give imagenet, none or a path."
        )
    return path


def _load_application_weights(application, model, settings):
    """Copy weights by layer name from a bare application model, the form that weights files are saved in."""
    shape = model.input_shape[1:]
    try:
        if settings.weights == "imagenet":
            source = application(include_top=False, weights="imagenet", input_shape=shape)
        else:
            path = _weights_file(settings)
            source = application(include_top=False, weights=None, input_shape=shape)
            _load_matching(source, path)
    except StudyError:
        raise
    except Exception as error:  # Keras raises bare Exception when a download fails
        raise StudyError(
            f"The weights {settings.weights!r} of {settings.backbone} could not be loaded ({error}); "
            "without a network, give model.weights the path of a weights file, or none."
        ) from error
    for layer in source.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def _load_matching(source, path):
    """Load a file of the whole backbone or of its first stages (ResNet50V2: conv1 to conv4)."""
    try:
        source.load_weights(path)
    except ValueError:
        if "conv4_block6_out" not in {layer.name for layer in source.layers}:
            raise
        keras.Model(source.input, source.get_layer("conv4_block6_out").output).load_weights(path)


def _resnet14(x, width: int, end: str):
    """ResNet-50 block for block (He et al. 2016), with one bottleneck per stage and a last stage not strided.

    At 112 x 112 pixels its last map is 7 x 7, as ResNet-50's is at 224 x 224. Layers carry ResNet-50's
    names; the only block of the last stage is conv5_block3, so that `feature_layer` reads alike.
    """

    def conv(x, filters, size, strides, name, padding="same"):
        return layers.Conv2D(filters, size, strides, padding=padding, name=name)(x)

    def norm(x, name):
        return layers.BatchNormalization(epsilon=1.001e-5, name=name)(x)

    x = conv(layers.ZeroPadding2D(3, name="conv1_pad")(x), width, 7, 2, "conv1_conv", "valid")
    x = layers.ReLU(name="conv1_relu")(norm(x, "conv1_bn"))
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    for stage, strides in zip((2, 3, 4, 5), (1, 2, 2, 1), strict=True):
        name = "conv5_block3" if stage == 5 else f"conv{stage}_block1"
        filters = width * 2 ** (stage - 2)
        shortcut = norm(conv(x, 4 * filters, 1, strides, f"{name}_0_conv"), f"{name}_0_bn")
        x = layers.ReLU(name=f"{name}_1_relu")(
            norm(conv(x, filters, 1, strides, f"{name}_1_conv"), f"{name}_1_bn")
        )
        x = layers.ReLU(name=f"{name}_2_relu")(norm(conv(x, filters, 3, 1, f"{name}_2_conv"), f"{name}_2_bn"))
        x = norm(conv(x, 4 * filters, 1, 1, f"{name}_3_conv"), f"{name}_3_bn")
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        if f"{name}_add" == end:
            return x
        x = layers.ReLU(name=f"{name}_out")(x)
    return x


def parameter_counts(model: keras.Model) -> dict[str, int | float]:
    """Parameters of the model, of its attention block, and the block's share of the backbone in percent.

    Claim C4 ("< 1.3 %") compares the block with the backbone: 9 * 2048 * 16 + 16 weights, and gamma.
    """
    blocks = [layer for layer in model.layers if isinstance(layer, SoftAttention)]
    block = sum(layer.count_params() for layer in blocks)
    backbone = keras.Model(model.input, model.get_layer(FEATURES).output).count_params()
    return {
        "parameters": model.count_params(),
        "attention_parameters": block,
        "backbone_parameters": backbone,
        "attention_percent": 100 * block / backbone,
    }
