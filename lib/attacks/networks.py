"""The logits behind a Keras classifier, whoever built it and however it ends.

A classifier may end in a softmax (a layer, an activation or an operation, under any name, also inside a nested model),
in one sigmoid or linear unit, in logits, or in probabilities that nothing turns back into logits, such as the mean of
two networks' answers. An attack needs logits in float32.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from lib import StudyError

PASSED = ("Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout")
"""Layers that change nothing in inference: an ending is looked for in front of them."""


class Logits(NamedTuple):
    """A network that gives logits (n, classes), and what had to be done for it, a sentence each."""

    network: keras.Model
    notes: list[str]


def logits_of(model: keras.Model, float32: bool = True) -> Logits:
    """The logits of a built Keras classifier.

    A softmax at the end is cut off. One unit (a sigmoid, or a linear one as a logit) becomes the logits (0, z) of two
    classes. Probabilities that cannot be undone are taken by their logarithm. What computes in float16 or bfloat16 is
    copied in float32, if `float32`. A model of its own class, whose layers cannot be seen, is taken by what it gives.
    Raises StudyError for a model that was never called, with several inputs or outputs, or whose outputs are neither
    logits nor probabilities of classes.
    """
    model = _symbolic(model)
    inputs, outputs = model.inputs, model.outputs
    for what, tensors in (("inputs", inputs), ("outputs", outputs)):
        if len(tensors) > 1:
            raise StudyError(f"The model has {len(tensors)} {what}; pass a model with one.")
    if len(outputs[0].shape) != 2 or outputs[0].shape[1] is None:
        raise StudyError(f"The model gives {tuple(outputs[0].shape)}; a classifier gives (images, classes).")
    notes = []
    if float32 and (low := _low_precision(model)):
        model = _in_float32(model)
        notes.append(f"The model computes in {low}; a float32 copy of the same weights is attacked.")
    logits, kind = _before_ending(model.outputs[0])
    if kind == "unknown":
        kind = _seen(keras.Model(model.inputs[0], logits))
    if kind == "probabilities":
        notes.append("The model gives probabilities whose logits are out of reach; their logarithm is attacked.")
        logits = Logarithm(name="logarithm")(logits)
    if kind == "sigmoid":
        notes.append("The model gives a probability whose logit is out of reach; its log-odds are attacked.")
        logits = LogOdds(name="log_odds")(logits)
    if kind == "sigmoids":
        raise StudyError(
            f"The model ends in {logits.shape[1]} separate sigmoids, an answer for each class by itself; pass a model "
            "that chooses one class."
        )
    if logits.shape[1] == 1:
        notes.append("The model has one output unit z; it is attacked as two classes with logits 0 and z.")
        logits = TwoClasses(name="two_classes")(logits)
    return Logits(keras.Model(model.inputs[0], logits), notes)


def _symbolic(model):
    """The model, or a functional one around it where its `call` is its own code (a subclass of `keras.Model`)."""
    name = getattr(model, "name", model)
    try:
        if model.inputs and model.outputs:
            return model
    except (AttributeError, ValueError):
        pass
    try:
        shape = model.get_build_config()["input_shape"]
        pixels = keras.Input(shape[1:])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StudyError(
            f"The logits of model {name!r} cannot be reached, as it was never called: call it once, model(images[:1])."
        ) from None
    try:
        return keras.Model(pixels, model(pixels))
    except Exception as error:  # it is somebody's own code
        reason = " ".join(str(error).split())[-200:]
        raise StudyError(f"Model {name!r} cannot be traced by Keras ({reason}); build it of Keras layers.") from error


@keras.saving.register_keras_serializable("study")
class TwoClasses(keras.layers.Layer):
    """The logits (0, z) of two classes from one unit z: the softmax of these is the sigmoid of z."""

    def call(self, z):
        return ops.concatenate([ops.zeros_like(z), z], axis=-1)


@keras.saving.register_keras_serializable("study")
class Logarithm(keras.layers.Layer):
    """The logarithm of probabilities, which are logits of the same probabilities."""

    def call(self, probabilities):
        return ops.log(ops.maximum(probabilities, 1e-30))


@keras.saving.register_keras_serializable("study")
class LogOdds(keras.layers.Layer):
    """The logarithm of p / (1 - p): the logit of a probability p of one class."""

    def call(self, p):
        return ops.log(ops.maximum(p, 1e-30)) - ops.log(ops.maximum(1 - p, 1e-30))


def _before_ending(tensor):
    """The tensor that a softmax or a sigmoid at the end was made of, and what it is: logits, sigmoids or unknown."""
    operation = tensor._keras_history.operation
    name, activation = type(operation).__name__, getattr(operation, "activation", None)
    if isinstance(operation, keras.Model) and len(getattr(operation, "outputs", None) or []) == 1:
        inner, kind = _before_ending(operation.outputs[0])
        return keras.Model(operation.inputs[0], inner)(_input(tensor)), kind
    if name in PASSED or (name == "Activation" and activation is keras.activations.linear):
        return _before_ending(_input(tensor))
    if name == "Softmax" or activation is keras.activations.softmax:
        return _without(operation, tensor), "logits"
    if name == "Sigmoid" or activation is keras.activations.sigmoid:
        return (tensor, "sigmoids") if tensor.shape[1] > 1 else (_without(operation, tensor), "logits")
    if name == "Dense" and activation is keras.activations.linear:
        return tensor, "logits"
    return tensor, "unknown"


def _input(tensor):
    """What the operation that gave a tensor was called with."""
    operation, node, _ = tensor._keras_history
    return operation._inbound_nodes[node].input_tensors[0]


def _without(operation, tensor):
    """The output of a layer without its activation: what goes into it, or the layer's linear copy on that."""
    if not hasattr(operation, "kernel"):
        return _input(tensor)
    config = operation.get_config() | {"activation": "linear", "name": f"{operation.name}_linear"}
    copy = type(operation).from_config(config)
    logits = copy(_input(tensor))
    copy.set_weights(operation.get_weights())
    return logits


def _seen(network: keras.Model) -> str:
    """What outputs look like on random images: probabilities, a sigmoid of one unit, or logits."""
    shape = [size or 64 for size in network.input_shape[1:]]
    images = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype("float32")
    scores = np.concatenate([ops.convert_to_numpy(network(x, training=False)) for x in (images, images / 255)])
    if scores.shape[1] == 1:
        return "sigmoid" if ((scores >= 0) & (scores <= 1)).all() else "logits"
    simplex = (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    return "probabilities" if simplex else "logits"


def _low_precision(model) -> str:
    """The lower precision that some layer of a model computes in; "" if there is none."""
    kinds = [str(layer.compute_dtype) for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    return next((kind for kind in kinds if kind in ("float16", "bfloat16")), "")


def _in_float32(model):
    """A copy of a model, with the same weights, all of whose layers compute in float32."""

    def converted(config):
        if isinstance(config, dict):
            return {key: "float32" if key == "dtype" else converted(value) for key, value in config.items()}
        return [converted(value) for value in config] if isinstance(config, list | tuple) else config

    try:
        copy = type(model).from_config(converted(model.get_config()))
        copy.set_weights([np.asarray(weights, "float32") for weights in model.get_weights()])
    except Exception as error:  # a layer of somebody's own may refuse in any way
        raise StudyError(
            f"The model computes in lower precision and cannot be copied in float32 ({error}); pass a float32 model."
        ) from error
    return copy
