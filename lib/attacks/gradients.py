"""The one file of the attacks that touches the backend: compiled programs and input gradients.

An attack is written with `keras.ops` alone, as a *program*: a hashable callable
`program(classifier, *arrays) -> tree of tensors`. `Classifier.run` compiles it once and runs it on any batch
size. With TensorFlow the batch axis of the compiled function is symbolic, so an odd batch never traces anew;
with JAX batches are padded: on a CPU to the next power of two, on a GPU, where compiling costs more than what padding
wastes, to the largest so far. Weights are never differentiated.
"""

import hashlib

import keras
import numpy as np
from keras import ops

from lib import StudyError
from lib.attacks.folding import Folded
from lib.attacks.networks import logits_of

SCORES = ("logits", "softmax")


def value_and_gradient(function, x):
    """Value of `function` at `x` and the gradient of its summed loss with respect to `x` alone.

    `function(x)` returns (loss, rest): loss of shape (n,), rest any tree. Images do not interact in inference
    mode, so the gradient of the sum holds each image's own gradient. Returns (loss, rest, gradient).
    """
    if keras.backend.backend() == "jax":
        import jax

        def total(x):
            loss, rest = function(x)
            return ops.sum(loss), (loss, rest)

        (_, (loss, rest)), gradient = jax.value_and_grad(total, has_aux=True)(x)
    else:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss, rest = function(x)
        gradient = tape.gradient(loss, x, unconnected_gradients="zero")
    return loss, rest, gradient


def subgraph(function):
    """The function as a graph of its own, for the body of a compiled loop.

    TensorFlow would spread a loop's body over the graph around it and then fuse operations in an order that changes
    from one compilation to the next, and with it the last digits; as a graph of its own the body always computes the
    same, and faster.
    """
    if keras.backend.backend() == "jax":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


class Classifier:
    """A Keras model in inference mode, as attacks see it.

    Parameters
    ----------
    model : a built Keras classifier of images (n, H, W, C); see `lib.attacks.networks.logits_of` for how its logits are
        found. `notes` has a sentence for each thing that had to be done for them.
    through : "logits" (right) or "softmax": the attack then sees the probabilities, and the cross-entropy
        is Keras' on probabilities, clipped to [1e-7, 1 - 1e-7], whose gradient vanishes where the softmax
        saturates (Athalye et al. 2018, section 4, "vanishing gradients"). A worst case: on TensorFlow, Keras finds
        the logits behind probabilities where it can trace them, and then nothing vanishes.
    bounds : the range of the pixels that the model takes. Attacks and all methods here work in [0, 255]; the model is
        given the images in its own range.
    float32 : attack a float32 copy of a model that computes in lower precision, with its batch normalisations folded
        (see `lib.attacks.folding`). Off, it is the model itself, which may go on being trained.

    `network` gives the model's logits, and `computed` the same faster.

    Raises StudyError for another `through`, another backend, or a model whose logits cannot be reached.
    """

    def __init__(self, model, through="logits", bounds=(0, 255), float32=True):
        if through not in SCORES:
            raise StudyError(f"An attack goes through one of {', '.join(SCORES)}, not through {through!r}.")
        if keras.backend.backend() not in ("tensorflow", "jax"):
            raise StudyError(
                f"Attacks run on Keras' tensorflow or jax backend, not on {keras.backend.backend()}; set KERAS_BACKEND."
            )
        self.model = model
        self.through = through
        self.bounds = checked_bounds(bounds)
        self.network, self.notes = logits_of(model, float32)
        self.classes = self.network.output_shape[-1]
        self._folded = Folded(self.network) if float32 else None
        self.computed = self._folded.network if float32 else self.network
        self._compiled, self._largest = {}, 1

    def refresh(self) -> None:
        """Take over the weights of a model that was trained on since; every attack begins with it."""
        if self._folded is not None:
            self._folded.refresh()

    def take(self, model) -> None:
        """Go on with the weights of another model of the same layers, and all that was compiled."""
        self.model.set_weights(model.get_weights())
        if self._folded is not None:
            self._folded.refresh(anew=True)

    def logits_of(self, x):
        """Logits (n, classes) of a batch of tensors in [0, 255]; for use inside a program."""
        low, high = self.bounds
        return self.computed(x if self.bounds == (0, 255) else x * ((high - low) / 255) + low, training=False)

    def scores_of(self, x):
        """What the attack sees of a batch of tensors: its logits or its probabilities, (n, classes)."""
        logits = self.logits_of(x)
        return logits if self.through == "logits" else ops.softmax(logits)

    def logits(self, images, batch_size=64):
        """Logits, float32 (n, classes), of float32 images (n, H, W, C) in [0, 255]."""
        self.refresh()
        images = np.asarray(images, "float32")
        # Not every backend's convolutions take an empty batch.
        none = np.empty((0, self.classes), "float32")
        parts = [self.run(_logits, images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
        return np.concatenate([none, *parts])

    def predict(self, images, batch_size=64):
        """Predicted classes, int64 (n,), of float32 images (n, H, W, C) in [0, 255]."""
        return self.logits(images, batch_size).argmax(axis=1)

    def fingerprint(self):
        """16 bytes that change with the architecture or any weight."""
        try:
            built = self.network.to_json()
        except (NotImplementedError, TypeError, ValueError):  # a class of somebody's own that cannot be written down
            built = repr([(type(layer).__name__, layer.name) for layer in self.network.layers])
        digest = hashlib.blake2b(f"{built} {self.bounds}".encode(), digest_size=16)
        for weights in self.network.get_weights():
            digest.update(np.ascontiguousarray(weights))
        return digest.digest()

    def run(self, program, *arrays):
        """Run a program on trees of NumPy arrays (first axis: the batch) and scalars; gives NumPy arrays.

        The program is compiled at its first use with this classifier and these shapes, whatever the number
        of images. Programs that compare equal share the compiled function.
        """
        shapes = tuple((np.shape(leaf)[1:], np.asarray(leaf).dtype) for leaf in keras.tree.flatten(arrays))
        key = (program, shapes)
        if key not in self._compiled:
            compile_ = _compile_jax if keras.backend.backend() == "jax" else _compile_tensorflow
            self._compiled[key] = compile_(self, program, arrays)
        return self._compiled[key](*arrays)


def as_classifier(model, bounds=(0, 255)):
    """`model` itself if it is a Classifier, with its weights as they are now, else a Classifier of it."""
    if not isinstance(model, Classifier):
        return Classifier(model, bounds=bounds)
    model.refresh()
    return model


def checked_bounds(bounds) -> tuple[float, float]:
    """The range of pixels as two numbers; raises StudyError if it is none."""
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise StudyError(f"bounds must be two numbers, the lower first, such as (0, 255) or (0, 1); got {bounds!r}.")
    return low, high


def _logits(classifier, images):
    return classifier.logits_of(images)


def _compile_tensorflow(classifier, program, arrays):
    import tensorflow as tf

    def spec(array):
        array = np.asarray(array)
        return tf.TensorSpec([None, *array.shape[1:]] if array.ndim else [], array.dtype)

    signature = tf.nest.map_structure(spec, arrays)
    function = tf.function(lambda *tensors: program(classifier, *tensors), input_signature=signature, autograph=False)
    return lambda *arrays: tf.nest.map_structure(np.asarray, function(*arrays))


def _compile_jax(classifier, program, arrays):
    import jax

    variables = classifier.computed.variables

    @jax.jit
    def function(values, *tensors):
        # Weights as arguments: as constants they would be compiled into the program.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return program(classifier, *tensors)

    def call(*arrays):
        n = next(len(a) for a in jax.tree.leaves(arrays) if np.ndim(a))
        bucket = 1 << (max(n, 1) - 1).bit_length()
        if jax.default_backend() != "cpu":
            bucket = classifier._largest = max(bucket, classifier._largest)

        def pad(array):
            return np.pad(array, [(0, bucket - n)] + [(0, 0)] * (np.ndim(array) - 1), mode="edge")

        padded = jax.tree.map(lambda a: pad(a) if np.ndim(a) else a, arrays)
        with jax.default_matmul_precision("highest"):  # TensorFloat-32 rounds a pixel of 200 to a tenth
            result = function([v.value for v in variables], *padded)
        return jax.tree.map(lambda a: np.asarray(a)[:n], result)

    return call
