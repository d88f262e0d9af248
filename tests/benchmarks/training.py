"""Times of training: the study's loop against a bare model.fit, and bfloat16 against float32.

    ./reproduce bench training
    python tests/benchmarks/training.py --size 112 --images 960 --repeats 5

One epoch of the small ResNet on random images, in turn: by `lib.models.training.train`, with validation and
checkpoint, and by model.fit on the same arrays as float32 in memory, with validation. Then the same fit of ResNet-50
in both precisions, of which nothing is required. Writes
figures/bench/training.csv: work, ours_seconds, peer, peer_seconds, ratio (peer over ours), required, and the processor
seconds of both, which a busy machine disturbs less, with their ratio; of the fastest round of each.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from machine import machine, versions  # noqa: E402

from lib.models import build_classifier  # noqa: E402
from lib.models.training import class_weights, train  # noqa: E402
from lib.profile import Model, Training  # noqa: E402

CLASSES = 7


def clocks():
    return np.array([time.perf_counter(), time.process_time()])


class Beside:
    """Calls a work after each of `repeats` rounds of another, and keeps both's (seconds, processor seconds).

    As `progress` of `train` it comes after each epoch. The first round, a warm-up, is not kept.
    """

    def __init__(self, work):
        self.work, self.seconds, self.mark = work, [], clocks()

    def set_postfix_str(self, text):
        pass

    def update(self):
        between = clocks()
        self.work()
        end = clocks()
        self.seconds.append((between - self.mark, end - between))
        self.mark = clocks()

    def fastest(self):
        """Of each work's rounds: TensorFlow often sleeps at the end of a dataset, but in model.fit only."""
        return np.min(self.seconds[1:], axis=0)


def compiled(settings, model_settings, size, precision="float32"):
    model = build_classifier(model_settings, "attention", CLASSES, size, precision=precision)
    model.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=settings.adam_epsilon),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def bare_fit(model, images, labels, settings, validation=None):
    """A function that trains the model for an epoch from arrays in memory."""
    one_hot, weights = keras.utils.to_categorical(labels, CLASSES), class_weights(labels, CLASSES)[labels]
    pixels = images.astype("float32")
    if validation:
        validation = validation[0].astype("float32"), keras.utils.to_categorical(validation[1], CLASSES)

    def fit():
        model.fit(
            pixels,
            one_hot,
            sample_weight=weights,
            batch_size=settings.batch_size,
            validation_data=validation,
            validation_batch_size=settings.batch_size,
            verbose=0,
        )

    return fit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=960, help="in an epoch of the small ResNet")
    parser.add_argument("--large-images", type=int, default=128, help="in one of ResNet-50")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["loop", "precision"])
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (options.images, options.size, options.size, 3), dtype=np.uint8)
    labels = np.arange(options.images) % CLASSES
    held_out = images[: options.images // 4], labels[: options.images // 4]
    rounds = options.repeats + 1
    settings = Training(batch_size=16, epochs=rounds, patience=rounds, epoch_fraction={})
    small = Model(backbone="resnet14", weights="none", width=16)
    rows = []

    def add(work, peer, beside, required):
        (a, a_cpu), (b, b_cpu) = beside.fastest()
        rows.append([work, a, peer, b, b / a, required, a_cpu, b_cpu, b_cpu / a_cpu, options.repeats])
        print(
            f"{work}: {a:.2f} s, {peer} {b:.2f} s, {b / a:.2f}; of the processor {b_cpu / a_cpu:.2f}",
            flush=True,
        )

    if options.only != "precision":
        fit = bare_fit(compiled(settings, small, options.size), images, labels, settings, held_out)
        beside = Beside(fit)
        with tempfile.TemporaryDirectory() as folder:
            model = build_classifier(small, "attention", CLASSES, options.size)
            train(model, (images, labels), held_out, settings, Path(folder), progress=beside)
        add("epoch of the small ResNet", "model.fit", beside, 0.97)
    if options.only != "loop":
        images, labels = images[: options.large_images], labels[: options.large_images]
        mixed, plain = (
            bare_fit(compiled(settings, Model(weights="none"), options.size, precision), images, labels, settings)
            for precision in ("mixed_bfloat16", "float32")
        )
        beside = Beside(plain)
        for _ in range(rounds):
            mixed()
            beside.update()
        add("epoch of ResNet-50 in bfloat16", "in float32", beside, np.nan)

    options.out.mkdir(parents=True, exist_ok=True)
    columns = "work ours_seconds peer peer_seconds ratio required ours_processor_seconds peer_processor_seconds"
    pd.DataFrame(rows, columns=[*columns.split(), "processor_ratio", "repeats"]).to_csv(
        options.out / "training.csv", index=False, float_format="%.4g"
    )
    about = machine() | {
        "size": options.size,
        "images": options.images,
        "versions": versions("tensorflow", "keras"),
    }
    (options.out / "training.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
