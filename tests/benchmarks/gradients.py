"""What an input gradient costs: as the network is, with batch normalisation folded, and in bfloat16.

    ./reproduce bench gradients

Networks of this study with random weights (MobileNetV2 with its ImageNet weights where these are at hand), one compiled
call after the other, in turn. Writes figures/bench/gradients.csv: network, size, images, kind, seconds (median), ratio
(times as fast as the network as it is), same_sign (share of pixels whose gradient has the sign that it has in float32).
Attacks use "folded": bfloat16 changes the sign of too many, and where convolutions are depthwise it is slower on a CPU.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from attacks import smooth_images  # noqa: E402
from machine import machine, timed, versions  # noqa: E402

from lib.attacks.folding import Folded  # noqa: E402
from lib.models import build_classifier  # noqa: E402
from lib.profile import load_profile  # noqa: E402

NETWORKS = (("quick", 16), ("ham10000", 32), ("paper", 4))  # profiles, and images in a batch


def gradient(network, images, labels):
    """A compiled function without arguments that gives the gradient of the cross-entropy by the images."""

    @tf.function
    def compiled(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x, training=False))
        return tape.gradient(loss, x)

    x, y = tf.constant(images), tf.constant(labels)
    return lambda: compiled(x, y).numpy()


def logits(profile, precision):
    model = profile.model
    if model.weights == "imagenet" and model.weights_file is None:
        model = model.model_copy(update={"weights": "none"})
    size = profile.preprocessing.image_size
    built = build_classifier(model, "attention-reference", 7, size, precision=precision)
    return keras.Model(built.input, built.get_layer("logits").output)


def measured(name, n, repeats):
    """The rows of one profile's network."""
    profile = load_profile(name)
    size = profile.preprocessing.image_size
    images, labels = smooth_images(n, size), np.random.default_rng(0).integers(0, 7, n)
    plain, low = (logits(profile, precision) for precision in ("float32", "mixed_bfloat16"))
    low.set_weights(plain.get_weights())
    networks = {"as it is": plain, "folded": Folded(plain).network}
    networks |= {"bfloat16": low, "bfloat16, folded": Folded(low).network}
    works = {kind: gradient(network, images, labels) for kind, network in networks.items()}
    seconds, sign = timed(works, repeats), np.sign(works["as it is"]())
    for kind, work in works.items():
        ratio, same = seconds["as it is"] / seconds[kind], float((np.sign(work()) == sign).mean())
        yield profile.model.backbone, size, n, kind, seconds[kind], ratio, same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="a job of the study has one")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    rows = [row for name, n in NETWORKS for row in measured(name, n, arguments.repeats)]
    table = pd.DataFrame(rows, columns=["network", "size", "images", "kind", "seconds", "ratio", "same_sign"]).round(4)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "gradients.csv", index=False)
    about = {"machine": machine(), "threads": arguments.threads, "repeats": arguments.repeats}
    about["versions"] = versions("tensorflow", "keras")
    (arguments.out / "gradients.json").write_text(json.dumps(about, indent=1) + "\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
