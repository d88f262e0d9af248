"""Where a classifier looks: Grad-CAM, the block's own attention, and how far such maps move.

Maps are compared at their native resolution (7 x 7 for the models here) where order matters, because the
pixels of an upsampled map depend on each other, and upsampled to the image where structure matters (SSIM).
"""

from functools import partial

import keras
import numpy as np
import pandas as pd
from keras import ops
from scipy.stats import rankdata, spearmanr
from skimage.metrics import structural_similarity

from lib import StudyError
from lib.attacks.networks import TwoClasses, logits_of


def grad_cam(
    model: keras.Model, images, classes, layer: str | None = None, upsample: bool = True, batch_size: int = 16
) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) of one class per image, through tf-keras-vis.

    `images`: RGB pixels in [0, 255], shape (n, H, W, 3); `classes`: int, shape (n,), the class whose logit
    is explained. `layer`: the layer whose map is weighted; the default is the map that the head reads: the layer
    `features` of every model here, so that baseline and attention are compared at the same place and attention's
    gradient runs back through the block, else the last feature map, also of a backbone inside. Returns float32, shape
    (n, H, W), or (n, h, w) of `layer` if not `upsample`, each map stretched to [0, 1]. A map without any positive
    evidence for the class, like every constant map, is all 0 (see `constant`). Raises StudyError for a layer that the
    model does not have or that is no feature map, for a number of classes unlike the number of images, and on another
    backend than TensorFlow, as tf-keras-vis knows no other.
    """
    if keras.backend.backend() != "tensorflow":
        raise StudyError("Grad-CAM goes through tf-keras-vis: run it with KERAS_BACKEND=tensorflow.")
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    images = np.asarray(images, np.float32)
    if len(classes) != len(images):
        raise StudyError(f"grad_cam needs one class per image, got {len(classes)} for {len(images)} images.")
    network, layer = explained(model, layer)
    explainer = Gradcam(network, clone=False)
    where = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False}
    maps = []
    for start in range(0, len(images), batch_size):
        score = CategoricalScore([int(label) for label in classes[start : start + batch_size]])
        try:
            cams = explainer(score, images[start : start + batch_size], **where, expand_cam=False, normalize_cam=False)
        except AttributeError as error:
            if "NoneType" not in str(error):
                raise
            raise StudyError(
                f"The logits of model {model.name!r} have no gradient at layer {layer!r}, which Grad-CAM would weight."
            ) from error
        maps.append(cams)
    maps = _stretch(np.concatenate(maps))
    return _upsample(maps, images.shape[1:3]) if upsample else maps


def explained(model: keras.Model, layer: str | None = None) -> tuple[keras.Model, str]:
    """The logits of a classifier as one flat network, and the layer of it whose map Grad-CAM weights.

    Models inside the model are laid out, so that their layers can be reached by name. Of a model with one output unit
    z, the logits are -z and z, so that either class has a map.
    """
    names = {inner.name for inner in model.layers}
    if {"features", "logits"} <= names and layer in (None, *names):  # of the study: flat, and ends in these
        network = keras.Model(model.input, model.get_layer("logits").output)
    else:
        network = logits_of(model).network
        if isinstance(network.layers[-1], TwoClasses):
            z = network.layers[-1].input
            network = keras.Model(network.input, ops.concatenate([-z, z], axis=-1))
        network = _laid_out(network)
    maps = [inner.name for inner in network.layers[1:] if _is_map(inner)]
    layer = layer or ("features" if "features" in maps else maps[-1] if maps else "")
    if not layer:
        raise StudyError(
            f"Model {model.name!r} has no feature map (n, h, w, channels): Grad-CAM has nothing to weight."
        )
    if not _is_map(_layer(network, layer)):
        raise StudyError(f"Layer {layer!r} has no feature map (n, h, w, channels); name another.")
    return network, layer


def _is_map(layer):
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and 1 not in shape[1:3]


def _laid_out(model):
    """A copy of a model with the layers of the models inside it called one by one, and the same weights."""
    copies = {}

    def copied(layer):
        if isinstance(layer, keras.Model) or not isinstance(layer, keras.Layer):  # an operation has no weights
            return layer
        if id(layer) not in copies:
            copies[id(layer)] = layer, type(layer).from_config(layer.get_config())
        return copies[id(layer)][1]

    def call(layer, *arguments, **options):
        inside = isinstance(layer, keras.Model) and getattr(layer, "outputs", None) and len(arguments) == 1
        return through(layer, arguments[0]) if inside else layer(*arguments, **options)

    def through(model, x):
        if not isinstance(model, keras.Sequential):
            return keras.tree.flatten(model._run_through_graph(x, lambda layer: partial(call, copied(layer))))[0]
        for layer in model.layers:
            x = call(copied(layer), x)
        return x

    pixels = keras.Input(model.input_shape[1:])
    network = keras.Model(pixels, through(model, pixels))
    for layer, copy in copies.values():
        copy.set_weights(layer.get_weights())
    return network


def attention_map(model: keras.Model, images, upsample: bool = True, batch_size: int = 16) -> np.ndarray:
    """The soft attention block's weight per position: the sum of its K maps (section 3.3).

    `images`: RGB pixels in [0, 255], shape (n, H, W, 3). Returns float32, shape (n, h, w) of the block's input, each
    map summing to K, or interpolated to (n, H, W) if `upsample`. Raises StudyError for a model without the block.
    """
    images = np.asarray(images, np.float32)
    _, maps = _layer(model, "soft_attention").output
    maps = keras.Model(model.input, maps).predict(images, batch_size=batch_size, verbose=0).sum(axis=-1)
    return _upsample(maps, images.shape[1:3]) if upsample else maps


def constant(maps) -> np.ndarray:
    """Which maps, shape (n, h, w), are constant up to float32 rounding: bool, shape (n,)."""
    high, low = maps.max(axis=(1, 2)), maps.min(axis=(1, 2))
    return high - low <= 1e-6 * np.maximum(np.abs(high), np.abs(low))


def map_shift(clean, adversarial, size: tuple[int, int]) -> pd.DataFrame:
    """How far each map moved between clean and adversarial image, as in Adebayo et al. 2018.

    `clean`, `adversarial`: float, shape (n, h, w), at native resolution (`upsample=False`), any scale;
    `size`: the images' height and width. One row per image:
    rank_correlation: Spearman's, over the h * w cells, from -1 to 1.
    ssim: structural similarity (Wang et al. 2004, their Gaussian window) of the maps, each stretched to
    [0, 1] and interpolated to `size`.
    top20_overlap: see `overlap`.
    clean_constant, adversarial_constant: a map that is constant says nothing, and all three numbers are
    NaN. Report how many: they are no random selection, Grad-CAM can vanish because of the attack.
    Raises StudyError for arrays whose shapes differ.
    """
    clean, adversarial = np.asarray(clean), np.asarray(adversarial)
    if clean.shape != adversarial.shape or clean.ndim != 3:
        raise StudyError(f"Maps must be two arrays (n, h, w), got {clean.shape} and {adversarial.shape}.")
    flat = constant(clean), constant(adversarial)
    rows = [
        (np.nan, np.nan) if unknown else _shift(*pair, size)
        for *pair, unknown in zip(clean, adversarial, flat[0] | flat[1], strict=True)
    ]
    shift = pd.DataFrame(rows, columns=["rank_correlation", "ssim"], dtype=float)
    moved = overlap(clean, adversarial)
    return shift.assign(top20_overlap=moved, clean_constant=flat[0], adversarial_constant=flat[1])


def top_area(maps, share) -> np.ndarray:
    """The region of the highest values of each map (n, H, W) that covers `share`, a number or (n,), of the area.

    Values that tie for the last places share them equally, so that no order of pixels is preferred.
    """
    flat = np.asarray(maps, float).reshape(len(maps), -1)
    places = np.broadcast_to(share, len(flat))[:, None] * flat.shape[1]
    above = rankdata(-flat, method="min", axis=1) - 1
    tied = rankdata(-flat, method="max", axis=1) - above
    return np.clip((places - above) / tied, 0, 1).reshape(np.shape(maps))


def overlap(first, second, share: float = 0.2) -> np.ndarray:
    """Intersection over union of the highest cells of two maps (n, h, w), float (n,); NaN where one is constant.

    The h * w / 5 highest cells of each; about 0.11 by chance.
    """
    cells = np.prod(np.shape(first)[1:])
    share = max(1, round(share * cells)) / cells
    regions = top_area(first, share), top_area(second, share)
    shared = np.minimum(*regions).sum(axis=(1, 2)) / np.maximum(*regions).sum(axis=(1, 2))
    return np.where(constant(first) | constant(second), np.nan, shared)


def choose_images(labels, correct_by_variant: dict, n: int, seed: int) -> np.ndarray:
    """Positions of min(n, images) images to show, by a rule: int64, sorted by class, then by position.

    First come images that every variant classifies correctly when clean: classes, in the order of their labels, give
    one such image each in turn, drawn at random from `seed`. Only if all of these are fewer than n do the others
    follow, in the same way. `labels`: int, shape (images,); `correct_by_variant`: variant -> bool, shape (images,).
    """
    labels = np.asarray(labels)
    eligible = np.logical_and.reduce(list(correct_by_variant.values()))
    drawn = np.random.default_rng(seed).permutation(len(labels))
    turn = pd.Series(drawn).groupby([eligible[drawn], labels[drawn]]).cumcount().to_numpy()
    chosen = drawn[np.lexsort((labels[drawn], turn, ~eligible[drawn]))][:n]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def _layer(model, name):
    try:
        return model.get_layer(name)
    except ValueError as error:
        raise StudyError(f"Model {model.name!r} has no layer {name!r}.") from error


def _stretch(maps):
    """Each map's minimum to 0 and its maximum to 1; constant maps to 0."""
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    flat = constant(maps)[:, None, None]
    return np.where(flat, 0, (maps - low) / np.where(flat, 1, high - low)).astype(np.float32)


def _upsample(maps, size):
    """Bilinear, with half-pixel centres: a cell lies over the pixels it was computed from."""
    return ops.convert_to_numpy(ops.image.resize(maps[..., None], size, interpolation="bilinear"))[..., 0]


def _shift(clean, adversarial, size):
    correlation = spearmanr(clean, adversarial, axis=None).statistic
    ssim = structural_similarity(
        *_upsample(_stretch(np.stack([clean, adversarial])), size),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return correlation, ssim
