"""Training after section 3.3: Adam, cross-entropy, class weights, early stopping, short epochs."""

import importlib
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from lib import StudyError
from lib.artifacts import replacing
from lib.models.spread import effective_positions
from lib.profile import Training

CHECKPOINT = "checkpoint-{:04d}.keras"  # after so many epochs
CHECKPOINT_EVERY = 20  # seconds: of epochs that take less not each needs one
HISTORY = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "gamma", "effective"]
STEPS = ["epoch", "step", "gamma"]  # of gamma.csv: gamma after every training step, counted from 1


def set_determinism(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and the backend, and ask the backend for deterministic operations.

    Sums over threads depend on how many there are: `threads` fixes that, so that results do not depend on
    the cores at hand. Raises StudyError when the backend already runs with another number.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        if threads is not None and tf.config.threading.get_intra_op_parallelism_threads() != threads:
            try:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
            except RuntimeError:
                raise StudyError(
                    f"The profile wants {threads} thread(s) but TensorFlow already runs; restart the kernel."
                ) from None
    keras.utils.set_random_seed(seed)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights by inverse frequency, n / (classes * n_c), float32, shape (classes,); 0 for an absent class."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1)) * (counts > 0)).astype("float32")


def best_epoch(values, min_delta: float, mode: str) -> int:
    """Index of the epoch that early stopping holds for the best: the last to improve by `min_delta`."""
    sign = 1 if mode == "max" else -1
    best, index = -np.inf, 0
    for i, value in enumerate(values):
        if sign * value - min_delta > best:
            best, index = sign * value, i
    return index


class Epoch(keras.utils.PyDataset):
    """The batches of one epoch, in an order that depends on (seed, epoch) alone, so that resuming is exact.

    `images` is uint8 (n, h, w, 3), possibly memory-mapped, and only the batch at hand is read. With
    `fraction` < 1 an epoch is that share of the data, drawn without replacement, a new draw each epoch. Of images with
    several views, (n, views, h, w, c), each epoch draws one.
    """

    def __init__(self, images, labels, classes, weights, settings, fraction, seed, epoch):
        super().__init__()
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        self.order = order[: max(settings.batch_size, round(fraction * len(labels)))]
        self.images, self.labels, self.weights = images, labels, weights
        views = images.shape[1] if len(images.shape) == 5 else 0
        self.views = np.random.default_rng([seed, epoch, 1]).integers(views, size=len(labels)) if views else None
        self.classes, self.batch_size = classes, settings.batch_size

    def __len__(self):
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, batch):
        rows = np.sort(self.order[batch * self.batch_size : (batch + 1) * self.batch_size])
        labels = self.labels[rows]
        images = self.images[rows] if self.views is None else self.images[rows, self.views[rows]]
        return (images.astype("float32"), keras.utils.to_categorical(labels, self.classes), self.weights[labels])

    def feed(self):
        """What `model.fit` and `model.evaluate` take: the batches, under TensorFlow as a dataset that is not tuned.

        TensorFlow (2.21) tunes a dataset from a thread that sleeps 10 ms, 20 ms, 40 ms and so on, and the end of the
        data often waits for it to wake: an epoch of 6 s then takes 10.2 s.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        shape, classes = self.images.shape[-3:], self.classes
        options = tf.data.Options()
        options.autotune.enabled = False
        batches = tf.data.Dataset.from_generator(
            lambda: map(self.__getitem__, range(len(self))),
            output_signature=tuple(tf.TensorSpec([None, *rest]) for rest in (shape, [classes], [])),
        ).apply(tf.data.experimental.assert_cardinality(len(self)))
        return batches.prefetch(2).with_options(options)


class GammaBySteps(keras.callbacks.Callback):
    """Keeps gamma of the soft-attention block after every training step; nothing for a model without one."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # there, the variables are behind during an epoch
        self.values += _gamma(self.model)


def _gamma(model) -> list[float]:
    """Gamma of the model's soft-attention block; [] without one."""
    return [float(value) for value in model.trainable_variables if value.path.endswith("soft_attention/gamma")]


def _spread(model, images):
    """What tells how many positions the map of the model's soft-attention block spreads over; NaN without one."""
    if "soft_attention" not in [layer.name for layer in model.layers]:
        return lambda: np.nan
    node = model.get_layer("soft_attention")._inbound_nodes[-1]  # behind a frozen stem the first is the whole model's
    maps = keras.Model(model.input, node.output_tensors[1])
    return lambda: effective_positions(np.asarray(maps(images, training=False)).sum(axis=-1)).mean()


def train(
    model: keras.Model,
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: Training,
    directory: Path,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    progress=None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a classifier as section 3.3 says; return it with the weights chosen, and its history.

    `training` and `validation` are pairs of images, uint8 (n, h, w, 3), and labels, int (n,). `fraction` is
    the share of the data that makes an epoch. The history has one row per epoch: loss, accuracy, val_loss,
    val_accuracy and, for an attention model, gamma, which `gamma.csv` in `directory` has after every step (plain
    training only), and effective, how many positions its map spreads over on a first batch of validation images (see
    `lib.models.spread`). With `settings.adversarial`, loss and accuracy are those on the adversarial images that were
    trained on (see `lib.models.adversarial`), and validation is on clean images.

    Epochs leave checkpoints in `directory`, the last one never older than CHECKPOINT_EVERY seconds and an epoch. Called
    again after an interruption, training goes on from it and ends with the same weights and history as if it had not
    been interrupted: the order of the data and the dropout masks depend on (seed, epoch), and early stopping is read
    off the history. A model that an earlier call with the same settings compiled keeps its compiled steps.
    """
    directory.mkdir(parents=True, exist_ok=True)
    classes = model.output_shape[-1]
    weights = class_weights(training[1], classes) if settings.class_weights else np.ones(classes, "float32")
    mode = "max" if settings.monitor == "val_accuracy" else "min"
    held_out = Epoch(*validation, classes, np.ones(classes, "float32"), settings, 1.0, 0, 0)

    history, gamma, resumed = _resume(directory)
    if resumed is not None:
        model = resumed
    elif model.compiled:
        _forget(model.optimizer)
    else:
        # XLA on a CPU is slower than TensorFlow's plain graph, which uses oneDNN; elsewhere Keras decides.
        model.compile(
            keras.optimizers.Adam(_rate(settings, fraction, len(training[1])), epsilon=settings.adam_epsilon),
            keras.losses.CategoricalCrossentropy(),
            metrics=["accuracy"],
            jit_compile="auto" if keras.backend.backend() != "tensorflow" or _has_gpu() else False,
        )
        # Left to the first step, what makes variables would have TensorFlow trace that twice.
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(None, *[np.eye(1, classes, dtype="float32")] * 2)
        model.reset_metrics()
    trainer = settings.adversarial and _adversarial_trainer(model, settings.adversarial)
    spread = _spread(model, held_out[0][0])
    best = best_epoch(history[settings.monitor], settings.min_delta, mode) if len(history) else 0
    kept = time.monotonic()

    def over():
        return len(history) >= settings.epochs or len(history) - 1 - best >= settings.patience

    while not over():
        epoch = len(history)
        _seed_dropout(model, seed, epoch)
        batches = Epoch(*training, classes, weights, settings, fraction, seed, epoch)
        by_step = GammaBySteps()
        if trainer:
            fitted = trainer.epoch(batches, seed, epoch)
        else:
            logs = model.fit(batches.feed(), epochs=1, shuffle=False, verbose=0, callbacks=[by_step]).history
            fitted = {name: values[0] for name, values in logs.items()}
        loss, accuracy = model.evaluate(held_out.feed(), verbose=0)
        row = [epoch + 1, fitted["loss"], fitted["accuracy"], loss, accuracy, *(_gamma(model) or [np.nan]), spread()]
        history = pd.concat([history, pd.DataFrame([row], columns=HISTORY)], ignore_index=True)
        steps = range(len(gamma) + 1, len(gamma) + len(by_step.values) + 1)
        rows = zip([epoch + 1] * len(steps), steps, by_step.values, strict=True)
        gamma = pd.concat([gamma, pd.DataFrame(rows, columns=STEPS)], ignore_index=True)
        best = best_epoch(history[settings.monitor], settings.min_delta, mode)
        if time.monotonic() - kept >= CHECKPOINT_EVERY or (settings.restore_best and best == epoch):
            _checkpoint(model, history, gamma, directory, best)
            kept = time.monotonic()
        if progress is not None:
            progress.set_postfix_str(f"validation accuracy {accuracy:.2f}, loss {loss:.2f}")
            progress.update()
    _write(history, gamma, directory)
    if settings.restore_best:
        model.load_weights(directory / CHECKPOINT.format(best + 1))
    return model, history


def _forget(optimizer):
    """Bring an optimizer back to where it began: step 0, no moments."""
    for variable in optimizer.variables:
        if not variable.path.endswith("learning_rate"):
            variable.assign(np.zeros(variable.shape))


def rounded(weights: list[np.ndarray], kept_as: str) -> list[np.ndarray]:
    """Weights, float32, rounded to what `kept_as` ("float32" or "float16") can hold.

    Raises StudyError for weights that float16 cannot hold, which are those beyond 65,504.
    """
    held = [weight.astype(kept_as).astype("float32") for weight in weights]
    if not all(np.isfinite(weight).all() for weight in held):
        raise StudyError(f"Weights do not fit into {kept_as}: set training.kept_as to float32.")
    return held


def _rate(settings: Training, fraction: float, images: int):
    """The learning rate, or its course over all steps."""
    if settings.schedule == "constant":
        return settings.learning_rate
    steps = -(-max(settings.batch_size, round(fraction * images)) // settings.batch_size)
    warm = steps * settings.warmup_epochs
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warm else settings.learning_rate,
        max(1, steps * settings.epochs - warm),
        warmup_target=settings.learning_rate if warm else None,
        warmup_steps=warm,
    )


def _adversarial_trainer(model, settings):
    """Found by its name when it is wanted: a plain training does not rest on the attacks, nor grow stale with them."""
    return importlib.import_module("lib.models.adversarial").AdversarialTrainer(model, settings)


def _has_gpu() -> bool:
    return any("GPU" in device.upper() for device in keras.distribution.list_devices("gpu"))


def _seed_dropout(model, seed, epoch):
    """Let the dropout masks of an epoch depend on (seed, epoch), not on what ran before."""
    for i, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Dropout) and layer.rate:
            state = np.random.SeedSequence([seed, epoch, i]).generate_state(2).astype("int64") % 2**31
            layer.seed_generator.state.assign(state.astype(layer.seed_generator.state.dtype))


def _checkpoint(model, history, gamma, directory, best):
    """Leave the epoch's files in an order that makes a kill at any moment harmless: the checkpoint last.

    The checkpoints of this epoch and of the best one stay.
    """
    _write(history, gamma, directory)
    with replacing(directory / CHECKPOINT.format(len(history))) as temporary:
        model.save(temporary)
    keep = {CHECKPOINT.format(len(history)), CHECKPOINT.format(best + 1)}
    for path in _checkpoints(directory):
        if path.name not in keep:
            path.unlink()


def _write(history, gamma, directory):
    for name, table in (("gamma.csv", gamma), ("history.csv", history)):
        with replacing(directory / name) as temporary:
            table.to_csv(temporary, index=False)


def _resume(directory) -> tuple[pd.DataFrame, pd.DataFrame, keras.Model | None]:
    """History, gamma by step and model of the last finished epoch, or two empty tables and no model."""
    checkpoints = _checkpoints(directory)
    if not checkpoints:
        return pd.DataFrame(columns=HISTORY), pd.DataFrame(columns=STEPS), None
    epoch = int(checkpoints[-1].stem.split("-")[1])
    history, gamma = (
        pd.read_csv(directory / name, float_precision="round_trip") for name in ("history.csv", "gamma.csv")
    )
    return (
        history[history["epoch"] <= epoch],
        gamma[gamma["epoch"] <= epoch],
        keras.saving.load_model(checkpoints[-1]),
    )


def _checkpoints(directory) -> list[Path]:
    """The checkpoints that are there, the last epoch's last."""
    return sorted(directory.glob(CHECKPOINT.replace("{:04d}", "*")))
