"""The backbones, each from pixels to the map that the head reads."""

import warnings

import keras
from keras import layers, ops

from lib import StudyError
from lib.profile import Model as ModelSettings

FEATURES = "features"
IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]
APPLICATIONS = {
    "resnet50": keras.applications.ResNet50,
    "resnet50v2": keras.applications.ResNet50V2,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "densenet121": keras.applications.DenseNet121,
    "efficientnet_b0": keras.applications.EfficientNetB0,
    "inception_resnet_v2": keras.applications.InceptionResNetV2,
}


@keras.saving.register_keras_serializable("study")
class CaffePreprocessing(layers.Layer):
    """RGB pixels to zero-centred BGR: Keras' "caffe" mode, the paper's preprocessing (section 3.2)."""

    def call(self, images):
        return ops.flip(images - ops.convert_to_tensor(IMAGENET_MEAN_RGB, images.dtype), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape


def backbone(settings: ModelSettings, inputs):
    """The map `settings.feature_layer` of the chosen backbone on `inputs`, with its weights loaded, named `features`.

    Raises StudyError when a weights file is missing or does not fit, the download of weights fails, or the library of
    the backbone is not installed.
    """
    x = _preprocessing(settings.backbone)(inputs)
    if settings.backbone in APPLICATIONS:
        application = APPLICATIONS[settings.backbone]
        model = application(include_top=False, weights=None, input_tensor=x)
        features = model.get_layer(settings.feature_layer).output
        if settings.weights != "none":
            _load_application_weights(application, model, settings)
    else:
        if settings.backbone == "resnet14":
            features = _resnet14(x, settings.width, settings.feature_layer)
        else:
            features = _vit_tiny(x, settings.feature_layer)
        if settings.weights != "none":
            keras.Model(inputs, features).load_weights(settings.weights_file)
    return layers.Identity(name=FEATURES)(features)


def _preprocessing(backbone: str):
    """The backbone's documented preprocessing of RGB pixels, in float32 whatever the precision of the rest."""
    options = {"name": "preprocessing", "dtype": "float32"}
    if backbone in ("resnet50", "resnet14"):
        return CaffePreprocessing(**options)
    if backbone == "densenet121":  # Keras' "torch" mode
        return layers.Rescaling(*_standardisation(1 / 255), **options)
    if backbone == "efficientnet_b0":
        # Keras' model holds its preprocessing, but not the same with ImageNet weights as without: then a second
        # division, by the square roots of the deviations, is part of it. Here the whole comes first, times 255
        # because what the model does without weights, a division by 255, is left in.
        return layers.Rescaling(*_standardisation(1.0, further=0.5), **options)
    # Keras' "tf" mode, and Keras Hub's for vision transformers.
    return layers.Rescaling(1 / 127.5, -1, **options)


def _standardisation(factor, further=0.0):
    """Scale and offset, per channel, that standardise pixels by ImageNet's statistics, times 255 `factor`."""
    divisors = [deviation ** (1 + further) for deviation in DEVIATION]
    scale = [factor / divisor for divisor in divisors]
    return scale, [-255 * factor * mean / divisor for mean, divisor in zip(MEAN, divisors, strict=True)]


def _load_application_weights(application, model, settings):
    """Copy weights, layer by layer, from a bare application model, the form that weights files are saved in."""
    file, shape = settings.weights_file, model.input_shape[1:]
    try:
        source = application(include_top=False, weights=None if file else "imagenet", input_shape=shape)
        if file and settings.weights == "imagenet":
            source.load_weights(file)
        elif file:
            _load_matching(source, file)
    except Exception as error:  # Keras raises bare Exception when a download fails
        raise StudyError(
            f"The weights {settings.weights!r} of {settings.backbone} could not be loaded ({error}); without a "
            f"network, put them at data/weights/{settings.backbone}_imagenet_notop.weights.h5, or give model.weights "
            "the path of a weights file, or none."
        ) from error
    # In their order: names that Keras makes up differ from one copy of a model to the next.
    pairs = zip(*([layer for layer in m.layers if layer.weights] for m in (model, source)), strict=True)
    for layer, other in pairs:
        if not isinstance(layer, layers.Normalization):  # EfficientNet's; see _preprocessing
            layer.set_weights(other.get_weights())


def _load_matching(source, path):
    """Load a file of the whole backbone or of its first stages (ResNet50V2: conv1 to conv4)."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it lacks, which the first stages lack
            source.load_weights(path)
    except ValueError:
        if "conv4_block6_out" not in {layer.name for layer in source.layers}:
            raise
        keras.Model(source.input, source.get_layer("conv4_block6_out").output).load_weights(path)


def _resnet14(x, width: int, end: str):
    """ResNet-50 block for block (He et al. 2016), with one bottleneck per stage, and of these only the second strided.

    At 56 x 56 pixels its last map is 7 x 7, as ResNet-50's is at 224 x 224. Layers carry ResNet-50's
    names; the only block of the last stage is conv5_block3, so that `feature_layer` reads alike.
    """

    def conv(x, filters, size, strides, name, padding="same"):
        return layers.Conv2D(filters, size, strides, padding=padding, name=name)(x)

    def norm(x, name):
        return layers.BatchNormalization(epsilon=1.001e-5, name=name)(x)

    x = conv(layers.ZeroPadding2D(3, name="conv1_pad")(x), width, 7, 2, "conv1_conv", "valid")
    x = layers.ReLU(name="conv1_relu")(norm(x, "conv1_bn"))
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    for stage, strides in zip((2, 3, 4, 5), (1, 2, 1, 1), strict=True):
        name = "conv5_block3" if stage == 5 else f"conv{stage}_block1"
        filters = width * 2 ** (stage - 2)
        shortcut = norm(conv(x, 4 * filters, 1, strides, f"{name}_0_conv"), f"{name}_0_bn")
        x = layers.ReLU(name=f"{name}_1_relu")(norm(conv(x, filters, 1, strides, f"{name}_1_conv"), f"{name}_1_bn"))
        x = layers.ReLU(name=f"{name}_2_relu")(norm(conv(x, filters, 3, 1, f"{name}_2_conv"), f"{name}_2_bn"))
        x = norm(conv(x, 4 * filters, 1, 1, f"{name}_3_conv"), f"{name}_3_bn")
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        if f"{name}_add" == end:
            return x
        x = layers.ReLU(name=f"{name}_out")(x)
    return x


def _vit_tiny(x, name: str):
    """The patch tokens of ViT-Ti/16 (Touvron et al. 2021, table 1; Dosovitskiy et al. 2021) as a map of stride 16.

    From Keras Hub, without the class token: the head reads a map. 12 layers, 3 heads, 192 channels.
    """
    try:
        from keras_hub.models import ViTBackbone
    except ImportError as error:
        raise StudyError(
            f"The backbone vit_tiny needs Keras Hub ({error}); install it with: pip install -e '.[vit]'."
        ) from None
    height, width = x.shape[1:3]
    vit = ViTBackbone(
        image_shape=(height, width, 3),
        patch_size=16,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
        use_class_token=False,
    )
    for layer in vit.layers[1:]:  # laid out flat, so that every layer can be reached by its name
        x = layer(x)
    return layers.Reshape((height // 16, width // 16, 192), name=name)(x)
