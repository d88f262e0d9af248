"""The attention blocks that a head may hold: soft attention after Datta et al., and two that practice knows better."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("study")
class SoftAttention(layers.Layer):
    """Soft attention, f_sa = gamma * t * sum_k softmax(W_k * t), the softmax over positions.

    Input: a feature map t, float, shape (n, h, w, c). Returns a pair: the weighted features, shape (n, h, w, c), and
    the K attention maps, shape (n, h, w, K), each of which sums to 1 over h x w.

    The paper (section 3.3) gives no formula and refers to Datta et al. 2021, whose article and whose code differ.
    `form="formula"` follows the article's equation: W_k is a 3 x 3 x c kernel and gamma a learnable scalar.
    `form="reference"` does the arithmetic of the public Keras code of Datta et al.: a 3D convolution over (h, w, c, 1)
    with a kernel of shape (c, 3, 3, 1, K) drawn with `he_uniform` and strides (1, 1, c), then a ReLU, and no gamma.
    Read against Keras' axis order, its axis of length c lies along the height, 3 x 3 along width and channels, and the
    stride leaves one position on the channel axis: the maps see the first three channels only, and of the c kernel rows
    only 2h - 1 ever meet the input. (That is what "same" padding means and what is computed here. TensorFlow's own 3D
    convolution is not reliable on a CPU when the stride exceeds the kernel, neither forward, with oneDNN, nor backward,
    so that the public code's input gradients are wrong there.) Both forms have 9 c K + K weights, and the formula one
    more for gamma, which `train_gamma=False` fixes. `form="uniform"` is the control for attention itself: each map is 1
    / (h w) everywhere, so that the block scales the features by K / (h w), as the reference does on average, or by
    `scale` where that is given; it has the reference's weights, which nothing trains.
    """

    def __init__(self, maps=16, gamma=0.01, form="formula", train_gamma=True, scale=None, **kwargs):
        super().__init__(**kwargs)
        if form not in ("formula", "reference", "uniform"):
            raise ValueError(f"form must be 'formula', 'reference' or 'uniform', got {form!r}")
        self.maps, self.initial_gamma, self.form, self.train_gamma = maps, gamma, form, train_gamma
        self.scale = scale

    def build(self, input_shape):
        channels = input_shape[-1]
        formula = self.form == "formula"
        shape = (3, 3, channels, self.maps) if formula else (channels, 3, 3, 1, self.maps)
        # The public code's initializer; for its kernel's shape Keras counts a fan-in of 9 c: 4.1 times Glorot's limit.
        initializer = "glorot_uniform" if formula else "he_uniform"
        trained = self.form != "uniform"
        self.kernel = self.add_weight(shape=shape, initializer=initializer, trainable=trained, name="kernel")
        self.bias = self.add_weight(shape=(self.maps,), initializer="zeros", trainable=trained, name="bias")
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
        if self.form == "uniform":
            scores = ops.zeros_like(features[..., :1]) * ops.ones((self.maps,), features.dtype)
        else:
            scores = self._formula_scores(features) if self.form == "formula" else self._reference_scores(features)
        flat = ops.reshape(scores, (-1, height * width, self.maps))
        maps = ops.reshape(ops.softmax(flat, axis=1), (-1, height, width, self.maps))
        weighted = features * (ops.sum(maps, axis=-1, keepdims=True) if self.scale is None else self.scale)
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
            "scale": self.scale,
        }


@keras.saving.register_keras_serializable("study")
class SqueezeExcitation(layers.Layer):
    """Squeeze-and-excitation, t * sigmoid(W_2 relu(W_1 mean t)), the mean over positions.

    Hu et al. 2018, equations 2 to 4. Input and output: a feature map, float, shape (n, h, w, c). W_1 is
    c x max(1, c // reduction), W_2 its reverse; neither has a bias, as in the equations.
    """

    def __init__(self, reduction=16, **kwargs):
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape):
        channels = input_shape[-1]
        narrow = max(1, channels // self.reduction)
        self.narrow = self.add_weight(shape=(channels, narrow), initializer="he_normal", name="narrow")
        self.widen = self.add_weight(shape=(narrow, channels), initializer="glorot_uniform", name="widen")

    def excitation(self, pooled):
        """What the two layers make of pooled channels, before the sigmoid: shape (n, 1, 1, c) to the same."""
        return ops.matmul(ops.relu(ops.matmul(pooled, self.narrow)), self.widen)

    def call(self, features):
        return features * ops.sigmoid(self.excitation(ops.mean(features, axis=(1, 2), keepdims=True)))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {"reduction": self.reduction}


@keras.saving.register_keras_serializable("study")
class CBAM(SqueezeExcitation):
    """Convolutional block attention module: first channels are weighted, then positions.

    Woo et al. 2018, equations 1 to 3, without biases and without the batch normalisation that their code has:

        t'  = t * sigmoid(E(mean t) + E(max t)), over positions, E the two layers of squeeze-and-excitation
        t'' = t' * m,  m = sigmoid(f([mean t'; max t'])), over channels, f a convolution of 7 x 7

    Input: a feature map t, float, shape (n, h, w, c). Returns a pair: t'', shape (n, h, w, c), and the map m
    of positions, shape (n, h, w, 1), each entry between 0 and 1.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel = self.add_weight(shape=(7, 7, 2, 1), initializer="glorot_uniform", name="kernel")

    def call(self, features):
        mean, largest = (pool(features, axis=(1, 2), keepdims=True) for pool in (ops.mean, ops.max))
        features = features * ops.sigmoid(self.excitation(mean) + self.excitation(largest))
        pooled = [pool(features, axis=-1, keepdims=True) for pool in (ops.mean, ops.max)]
        scores = ops.conv(ops.concatenate(pooled, axis=-1), ops.cast(self.kernel, features.dtype), padding="same")
        positions = ops.sigmoid(scores)
        return features * positions, positions

    def compute_output_shape(self, input_shape):
        return tuple(input_shape), (*input_shape[:-1], 1)
