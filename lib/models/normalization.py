"""Batch normalisation for training in bfloat16 under TensorFlow."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("study")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation of the last axis, in training computed by TensorFlow's fused kernel.

    The same numbers: the kernel reads and writes bfloat16 and sums in float32. Keras 3 composes the layer of moments
    and products, with the map cast to float32 for each, and that costs what bfloat16 gains in the convolutions.
    Input and output: a feature map, float, shape (n, h, w, c). Masks and renormalisation are not supported.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = self.moving_mean.shape
        output, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            epsilon=self.epsilon,
            is_training=True,
        )
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        variance *= (n - 1) / n  # the kernel's is the sample variance, Keras 3 keeps the population's
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return output


def with_fused_batch_norm(model: keras.Model) -> keras.Model:
    """The same model, weights included, with `FusedBatchNormalization` wherever it had Keras' layer."""

    def fused(layer):
        kind = FusedBatchNormalization if type(layer) is layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=fused)
    copy.set_weights(model.get_weights())
    return copy
