"""Times of the attacks beside the libraries', on ResNet-50 logits with seven classes, side by side.

    python tests/benchmarks/attacks.py                  # PGD: Foolbox, ART, CleverHans (those installed)
    python tests/benchmarks/attacks.py --autoattack     # also pyautoattack (with PyTorch)

The peers are optional: what cannot be imported is left out, and said so. Every work is timed in turn, ours
and the peers', `--repeats` times after one warm-up, and the median counts. Writes figures/bench/attacks.csv
(work, ours_seconds, peer, peer_seconds, ratio, required) and attacks.json (machine, versions, arguments).
`ratio` is the peer's time over ours; for one step it is ours over the bare gradient's, as its limit is.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.attacks import Classifier, make_attack  # noqa: E402
from lib.robustness import robust_accuracy  # noqa: E402

GRID = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CLASSES, STEPS = 7, 20
REQUIRED = {"foolbox": 3.0, "art": 3.0, "cleverhans": 1.0}


def resnet(size):
    """ResNet-50 with random weights and seven logits, on pixels scaled to about unit variance."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 64, offset=-2)(inputs)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x, pooling="avg")
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(backbone.output))


def smooth_images(n, size, seed=0):
    """Random images without sharp edges, float32 in [0, 255]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (n, 8, 8, 3)).astype("float32")
    return np.asarray(keras.ops.image.resize(coarse, (size, size), "bicubic")).clip(0, 255)


def centre(model, images):
    """Take the mean logits off the bias, so that a model without training does not say one class only."""
    logits = model.get_layer("logits")
    kernel, bias = logits.get_weights()
    values = np.asarray(model.predict(images, verbose=0))
    scale = 4 / values.std(axis=0)
    logits.set_weights([kernel * scale, (bias - values.mean(axis=0)) * scale])


def peers_pgd(model, images, labels):
    """PGD-20 of each library that is there: name -> function of epsilon that gives adversarial images."""
    import tensorflow as tf

    def foolbox():
        fb = importlib.import_module("foolbox")
        wrapped = fb.TensorFlowModel(model, bounds=(0, 255))
        x, y = tf.constant(images), tf.constant(labels)

        def run(epsilon):
            attack = fb.attacks.LinfPGD(abs_stepsize=2.5 * epsilon / STEPS, steps=STEPS)
            return attack(wrapped, x, y, epsilons=epsilon)[1]

        return run

    def art():
        evasion = importlib.import_module("art.attacks.evasion")
        estimators = importlib.import_module("art.estimators.classification")
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        wrapped = estimators.TensorFlowV2Classifier(
            model=model,
            nb_classes=CLASSES,
            input_shape=images.shape[1:],
            loss_object=loss,
            clip_values=(0, 255),
        )

        def run(epsilon):
            attack = evasion.ProjectedGradientDescent(
                wrapped,
                eps=epsilon,
                eps_step=2.5 * epsilon / STEPS,
                max_iter=STEPS,
                num_random_init=1,
                batch_size=len(images),
                verbose=False,
            )
            return attack.generate(images, labels)

        return run

    def cleverhans():
        pgd = importlib.import_module(
            "cleverhans.tf2.attacks.projected_gradient_descent"
        ).projected_gradient_descent

        def run(epsilon):
            step = 2.5 * epsilon / STEPS
            return pgd(
                model,
                images,
                epsilon,
                step,
                STEPS,
                np.inf,
                clip_min=0,
                clip_max=255,
                y=labels,
                sanity_checks=False,
            )

        return run

    found = {}
    for name, make in (("foolbox", foolbox), ("art", art), ("cleverhans", cleverhans)):
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def timed(works, repeats):
    """Median seconds of functions, run in turn so that a busy machine is busy for all."""
    seconds = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def one_step(classifier, images, labels, repeats):
    """One PGD step against the bare compiled gradient of the same loss, on the same batch."""
    import tensorflow as tf

    network = classifier.network

    @tf.function(input_signature=[tf.TensorSpec(images.shape), tf.TensorSpec(labels.shape, tf.int64)])
    def bare(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x, training=False))
        return tape.gradient(loss, x)

    attack = make_attack("fgsm", leave=False, batch_size=len(images))
    times = timed(
        {
            "ours": lambda: attack(classifier, images, labels, 1.0),
            "bare": lambda: bare(images, labels).numpy(),
        },
        repeats,
    )
    return times["ours"], times["bare"]


def pgd_rows(classifier, images, labels, size, repeats):
    """One step, PGD-20 at one budget, and the whole curve."""
    rows = []

    def row(work, ours, peer, theirs, ratio, required):
        rows.append([f"{work}, {size} px, {len(images)} images", ours, peer, theirs, ratio, required])
        print(*rows[-1], flush=True)

    batch = images[:16], labels[:16]
    ours, bare = one_step(classifier, *batch, repeats)
    row("one PGD step", ours, "bare compiled gradient", bare, ours / bare, "<= 1.05")

    peers = peers_pgd(classifier.network, images, labels)
    pgd = make_attack("pgd", leave=False)
    works = {name: lambda run=run: run(2.0) for name, run in peers.items()}
    times = timed({"ours": lambda: pgd(classifier, images, labels, 2.0)} | works, repeats)
    for name in peers:
        row(
            "PGD-20, one epsilon",
            times["ours"],
            name,
            times[name],
            times[name] / times["ours"],
            REQUIRED[name],
        )

    def long_way(run):
        stands, curve = np.ones(len(images), bool), []
        for epsilon in GRID:
            stands = stands & (classifier.predict(np.asarray(run(epsilon))) == labels)
            curve.append(stands.mean())
        return curve

    if not peers:
        return rows
    best = min(peers, key=times.get)
    attack, curves = make_attack("pgd"), {}

    def short_cut():
        table = robust_accuracy(classifier, images, labels, attack, GRID)
        curves["ours"] = table.groupby("epsilon").correct.mean().iloc[1:].tolist()

    def peer():
        curves[best] = long_way(peers[best])

    times = timed({"ours": short_cut, best: peer}, max(1, repeats // 2))
    print({name: np.round(curve, 3).tolist() for name, curve in curves.items()})
    higher = max(np.subtract(curves["ours"], curves[best]))
    ratio = times[best] / times["ours"]
    row(
        f"curve of 8 epsilons (higher by at most {max(higher, 0):.3f})",
        times["ours"],
        best,
        times[best],
        ratio,
        4.0,
    )
    return rows


def autoattack_row(classifier, images, labels, size, arguments):
    """AutoAttack at three budgets against pyautoattack on Keras' PyTorch backend, in a process of its own."""
    epsilons = [float(e) for e in arguments.epsilons.split(",")]
    attack = make_attack("autoattack", steps=arguments.steps, queries=arguments.queries)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        classifier.network.save_weights(folder / "resnet.weights.h5")
        np.savez(folder / "data.npz", images=images, labels=labels, epsilons=epsilons)
        command = [sys.executable, __file__, "--reference", str(folder), "--size", str(size)]
        command += ["--steps", str(arguments.steps), "--queries", str(arguments.queries)]
        done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "torch"})
        if done.returncode:
            print(f"pyautoattack is left out: its run ended with status {done.returncode}, see above.")
            return []
        reference = json.loads((folder / "result.json").read_text())
    attack(classifier, images[:2], labels[:2], epsilons[0])  # compile
    start = time.perf_counter()
    table = robust_accuracy(classifier, images, labels, attack, epsilons)
    ours = time.perf_counter() - start
    curve = table.groupby("epsilon").correct.mean().iloc[1:].tolist()
    print("autoattack", epsilons, "ours", curve, "pyautoattack", reference["curve"])
    work = f"autoattack at 3 epsilons ({arguments.steps} steps, {arguments.queries} queries)"
    work += f", {size} px, {len(images)} images"
    return [[work, ours, "pyautoattack", reference["seconds"], reference["seconds"] / ours, 3.0]]


def reference(folder, size, steps, queries):
    """pyautoattack on the saved weights; writes its seconds and its curve."""
    import torch
    from pyautoattack import AutoAttack

    folder = Path(folder)
    model = resnet(size)
    model.load_weights(folder / "resnet.weights.h5")
    with np.load(folder / "data.npz") as data:
        images, labels, epsilons = data["images"], data["labels"], data["epsilons"]
    x = torch.tensor(images / 255.0).permute(0, 3, 1, 2).contiguous()
    y = torch.tensor(labels)

    def logits(x):
        return model(x.permute(0, 2, 3, 1) * 255.0, training=False)

    seconds, curve = 0.0, []
    for epsilon in epsilons:
        adversary = AutoAttack(logits, norm="Linf", eps=epsilon / 255, version="standard", device="cpu")
        adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = steps
        adversary.square.n_queries = queries
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = CLASSES - 1
        start = time.perf_counter()
        adversarial = adversary.run_standard_evaluation(x, y, batch_size=16)
        seconds += time.perf_counter() - start
        with torch.no_grad():
            curve.append(float((logits(adversarial).argmax(1) == y).float().mean()))
    (folder / "result.json").write_text(json.dumps({"seconds": seconds, "curve": curve}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[64, 112])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--autoattack", action="store_true")
    parser.add_argument("--epsilons", default="0.25,0.5,1.0", help="of autoattack")
    parser.add_argument("--steps", type=int, default=100, help="of autoattack's gradient attacks")
    parser.add_argument("--queries", type=int, default=5000, help="of autoattack's Square")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        return reference(arguments.reference, arguments.size[0], arguments.steps, arguments.queries)

    rows = []
    for size in arguments.size:
        model, images = resnet(size), smooth_images(arguments.images, size)
        centre(model, images)
        classifier = Classifier(model)
        labels = classifier.predict(images)
        if arguments.repeats:
            rows += pgd_rows(classifier, images, labels, size, arguments.repeats)
        if arguments.autoattack:
            rows += autoattack_row(classifier, images, labels, size, arguments)
    columns = ["work", "ours_seconds", "peer", "peer_seconds", "ratio", "required"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).round(3).to_csv(arguments.out / "attacks.csv", index=False)
    packages = [
        "tensorflow",
        "keras",
        "foolbox",
        "adversarial-robustness-toolbox",
        "cleverhans",
        "pyautoattack",
    ]
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    about = {
        "machine": machine,
        "versions": versions,
        "images": arguments.images,
        "repeats": arguments.repeats,
    }
    (arguments.out / "attacks.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
