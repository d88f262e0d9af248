"""How many images a second pass through the networks of the profiles, for the cost table.

    ./reproduce bench throughput                        # the networks of all profiles
    ./reproduce bench throughput --profiles paper       # and of these only; the other rows stay

Each network (the attention variant, random weights and images) runs in a process of its own with the batch sizes of its
profile and all cores: training steps, steps of PGD through the logits, predictions. The median of `--repeats` counts,
after one warm-up. Writes figures/bench/throughput.csv: backbone, width, image_size, parameters, training, gradient,
forward (images/s), memory_mb (the process's peak), batch sizes, cores, processor, load (programs that were running as
it began, of which a quiet machine has next to none), versions, repeats.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from machine import machine, peak_memory, timed, versions  # noqa: E402

from lib.profile import load_profile  # noqa: E402
from tools.cost import THROUGHPUT  # noqa: E402

NETWORK = ["backbone", "width", "image_size"]
CLASSES = 7


def network_of(profile):
    """What a rate depends on: backbone, width and image size."""
    return profile.model.backbone, profile.model.width, profile.preprocessing.image_size


def measure(profile, repeats):
    """The row of a profile's network."""
    load = os.getloadavg()[0]
    import keras

    from lib.attacks import Classifier, make_attack
    from lib.models import build_classifier

    size = profile.preprocessing.image_size
    settings = profile.model.model_copy(update={"weights": "none"})
    model = build_classifier(settings, "attention", CLASSES, size, 0)
    model.compile(
        keras.optimizers.Adam(0.01, epsilon=0.1),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    batch, attacked = profile.training.batch_size, min(profile.evaluation.batch_size, 64)
    n = max(batch, attacked)
    images = rng.uniform(0, 255, (n, size, size, 3)).astype("float32")
    labels = rng.integers(0, CLASSES, n)
    one_hot = keras.utils.to_categorical(labels[:batch], CLASSES)
    classifier = Classifier(model)
    attack = make_attack("pgd", steps=1, leave=False, batch_size=attacked)
    took = timed(
        {
            "training": lambda: model.train_on_batch(images[:batch], one_hot),
            "gradient": lambda: attack(classifier, images[:attacked], labels[:attacked], 1.0),
            "forward": lambda: classifier.logits(images[:attacked]),
        },
        repeats,
    )
    rates = {name: round((batch if name == "training" else attacked) / s, 2) for name, s in took.items()}
    # An attack's call also predicts once per restart, for which a single step is charged here: a little too slow.
    about = {key: machine()[key] for key in ("cores", "processor")}
    return (
        dict(zip(NETWORK, network_of(profile), strict=True))
        | {"parameters": model.count_params()}
        | rates
        | {"memory_mb": round(peak_memory())}
        | {"training_batch": batch, "attack_batch": attacked}
        | about
        | {"load": round(load, 1)}
        | versions("tensorflow", "keras")
        | {"repeats": repeats}
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="*", help="names from profiles/ (all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one network
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(load_profile(options.one), options.repeats)))
        return
    names = options.profiles or sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
    wanted = {network_of(load_profile(name)): name for name in reversed(names)}
    table = pd.read_csv(THROUGHPUT) if THROUGHPUT.is_file() else pd.DataFrame()
    for network, name in wanted.items():
        command = [sys.executable, __file__, "--one", name, "--repeats", str(options.repeats)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if len(table):
            table = table[(table[NETWORK] != list(network)).any(axis=1)]
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        THROUGHPUT.parent.mkdir(parents=True, exist_ok=True)
        table.sort_values(NETWORK).to_csv(THROUGHPUT, index=False)


if __name__ == "__main__":
    main()
