"""Times of the attacks beside the libraries', on ResNet-50 logits with seven classes, side by side.

    ./reproduce bench                                   # an environment with all peers, and all that follows
    python tests/benchmarks/attacks.py --autoattack     # without AutoAttack, whose peers take most of the time
    python tests/benchmarks/attacks.py --trained ham10000:ham10000:baseline --data DIR    # AutoAttack on it as well
    python tests/benchmarks/attacks.py --repeats 0 --autoattack --trained ...    # that alone
    python tests/benchmarks/attacks.py --draw           # the figure again, from the times that were measured

PGD against Foolbox, ART and CleverHans, AutoAttack against its reference implementation (pyautoattack) and ART's.
The peers are optional: what cannot be imported is left out, and said so. Every work is timed in turn, ours
and the peers', `--repeats` times after one warm-up, and the median counts; AutoAttack runs once. Writes
figures/bench/attacks.csv (work, unit, ours, peer, theirs, ratio, required, repeats), a figure of it, and
attacks.json (machine, versions). `ratio` is the peer's number over ours; for one step it is ours over the bare
gradient's, as its limit is. Other works that an earlier call measured on the same machine with the same versions stay
in the table, so that it can be measured in parts.
"""

import argparse
import importlib
import json
import os
import re
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from machine import machine, peak_memory, timed, versions  # noqa: E402

from lib.artifacts import read_provenance  # noqa: E402
from lib.attacks import Classifier, make_attack  # noqa: E402
from lib.evaluation.robustness import robust_accuracy  # noqa: E402

GRID = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CLASSES, STEPS = 7, 20
ONE_STEP = "one PGD step"  # whose time is to be the smaller
PACKAGES = (
    "tensorflow",
    "keras",
    "foolbox",
    "adversarial-robustness-toolbox",
    "cleverhans",
    "pyautoattack",
    "torch",
)
REQUIRED = {"foolbox": 4.0, "art": 4.0, "cleverhans": 1.08}
REASONS = {  # why so many times as fast is required, as the figure says it
    1.08: "compiled, as ours is",
    4.0: "not compiled",
    5.0: "not compiled, and run at every budget",
    6.0: "a curve: it runs at every budget, ours searches over them",
}
NAMES = {
    "foolbox": "Foolbox",
    "art": "ART",
    "cleverhans": "CleverHans",
    "pyautoattack": "pyautoattack",
    "every budget": "ours without the search",
}


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
        pgd = importlib.import_module("cleverhans.tf2.attacks.projected_gradient_descent").projected_gradient_descent

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


def one_step(classifier, images, labels, repeats):
    """A step of PGD-20, with its share of the call, against the bare compiled gradient of the same loss and batch."""
    import tensorflow as tf

    network = classifier.network

    @tf.function(input_signature=[tf.TensorSpec(images.shape), tf.TensorSpec(labels.shape, tf.int64)])
    def bare(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x, training=False))
        return tape.gradient(loss, x)

    attack = make_attack("pgd", steps=STEPS, leave=False, batch_size=len(images))

    def gradients():
        for _ in range(STEPS):
            bare(images, labels).numpy()

    times = timed({"ours": lambda: attack(classifier, images, labels, 1.0), "bare": gradients}, repeats)
    return times["ours"] / STEPS, times["bare"] / STEPS


def pgd_rows(classifier, images, labels, size, repeats):
    """One step, PGD-20 at one budget, and the whole curve."""
    rows = []

    def row(work, ours, peer, theirs, required):
        work = f"{work}, {size} px, {len(images)} images"
        rows.append([work, "seconds", ours, peer, theirs, required, repeats])
        print(*rows[-1], flush=True)

    batch = images[:16], labels[:16]
    ours, bare = one_step(classifier, *batch, repeats)
    row(ONE_STEP, ours, "bare compiled gradient", bare, 0.93)

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

    def every_budget():
        table = robust_accuracy(classifier, images, labels, attack, GRID, exhaustive=True)
        curves["every budget"] = table.groupby("epsilon").correct.mean().iloc[1:].tolist()

    times = timed({"ours": short_cut, best: peer, "every budget": every_budget}, repeats)
    print({name: np.round(curve, 3).tolist() for name, curve in curves.items()})
    for name, required in ((best, 6.0), ("every budget", np.nan)):
        higher = max(0, *np.subtract(curves["ours"], curves[name]))
        row(
            f"curve of 8 epsilons (higher by at most {higher:.3f})",
            times["ours"],
            name,
            times[name],
            required,
        )
    return rows


def autoattack_rows(network, images, labels, name, epsilons, arguments):
    """AutoAttack at three budgets beside pyautoattack's and ART's on Keras' PyTorch backend, each in its own process.

    These libraries want PyTorch, so the ratio of times is of frameworks too (ours is compiled TensorFlow, theirs eager
    PyTorch); what the search over budgets brings is in the row of our own attack at every budget. Beside the times, the
    peak memory of the process, and the images' passes through the network, forwards and gradients, as AttackBench
    (Cina et al. 2024) counts them.
    """
    n, found = len(images), {}
    numbers = {"steps": arguments.steps, "queries": arguments.queries, "epsilons": list(epsilons)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        network.save(folder / "network.keras")
        np.savez(folder / "data.npz", images=images, labels=labels)
        for peer in ("ours", "every budget", "pyautoattack", "art"):
            (folder / "numbers.json").write_text(json.dumps(numbers | {"peer": peer}))
            backend = "tensorflow" if peer in ("ours", "every budget") else "torch"
            command = [sys.executable, __file__, "--reference", str(folder)]
            done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": backend})
            if done.returncode:
                print(f"{peer} is left out: its run ended with status {done.returncode}, see above.")
                continue
            found[peer] = json.loads((folder / "result.json").read_text())
            print(f"autoattack, {peer}: {found[peer]}", flush=True)
    ours, rows = found.pop("ours"), []
    for peer, theirs in found.items():
        stand = f"({robust_counts(ours['curve'], n)} stand; {peer}: {robust_counts(theirs['curve'], n)})"
        work = f"AutoAttack, {len(epsilons)} epsilons, {arguments.steps} steps, {arguments.queries} queries {stand}"
        for unit in ("seconds", "MB at most", "forwards per image", "gradients per image"):
            required = 5.0 if unit == "seconds" and peer in ("pyautoattack", "art") else np.nan
            rows.append([f"{work}, {name}, {n} images", unit, ours[unit], peer, theirs[unit], required, 1])
    return rows


def robust_counts(curve, n):
    return ", ".join(str(round(share * n)) for share in curve)


def spread_budgets(classifier, images, labels, steps):
    """The budgets at which a third, two thirds and all of the images fall, as targeted APGD sees them."""
    distance = robust_accuracy(classifier, images, labels, make_attack("apgd_t", steps=steps), GRID)
    smallest = np.sort(distance.groupby("image_id")["smallest_epsilon"].first())
    return [float(np.ceil(100 * smallest[round(share * len(images)) - 1]) / 100) for share in (0.35, 0.65, 1.0)]


def trained(name, data, n):
    """A trained network of this study, its first attacked images and their labels.

    `name`: profile, data set and variant, such as quick:ham10000:baseline; of the first seed.
    """
    from lib.study import Study, results, study

    study.set_determinism = lambda *_: None  # of training: TensorFlow runs already, with the threads that are measured
    profile, dataset, variant = name.split(":")
    here = Study(profile, dataset, 0, data)
    published = results.PUBLISHED / profile / f"{dataset}-seed0-{variant}.zip"
    model = results.opened(published, data).model() if published.is_file() else here.trained(variant)[0]
    rows = here.evaluated.head(n)
    return Classifier(model), here.pixels(rows), rows["label"].to_numpy()


def reference(folder):
    """One implementation of AutoAttack on the saved network, budget by budget; writes what it took and its curve."""
    folder = Path(folder)
    numbers = json.loads((folder / "numbers.json").read_text())
    with np.load(folder / "data.npz") as data:
        images, labels = data["images"], data["labels"]
    importlib.import_module("lib.models.backbones")  # registers the layers that a trained network may have
    network = keras.saving.load_model(folder / "network.keras")
    run = ours if numbers["peer"] in ("ours", "every budget") else peers
    seconds, curve, forwards, gradients = run(network, images, labels, numbers)
    result = {
        "seconds": seconds,
        "MB at most": peak_memory(),
        "forwards per image": forwards / len(images),
        "gradients per image": gradients / len(images),
        "curve": curve,
    }
    (folder / "result.json").write_text(json.dumps(result))


def ours(network, images, labels, numbers):
    """Seconds, curve, forwards and gradients of this study's attack, searching over budgets or at every one."""
    from lib.attacks.fab import FABSteps
    from lib.attacks.square import SquareSteps

    counted = {"forwards": 0, "gradients": 0}

    class Counting(Classifier):
        def run(self, program, *arrays):
            n = len(next(leaf for leaf in keras.tree.flatten(arrays) if np.ndim(leaf)))
            steps = next((int(tree["steps"]) for tree in arrays if isinstance(tree, dict) and "steps" in tree), None)
            if steps is None or isinstance(program, SquareSteps):
                counted["forwards"] += n * (steps or 1)
            else:
                counted["gradients"] += n * steps
                counted["forwards"] += n * steps if isinstance(program, FABSteps) else 0
            return super().run(program, *arrays)

    classifier = Counting(network)
    attack = make_attack("autoattack", steps=numbers["steps"], queries=numbers["queries"])
    exhaustive = numbers["peer"] == "every budget"
    short = attack.with_(queries=2, steps=2)
    robust_accuracy(classifier, images[:2], labels[:2], short, (0.001, GRID[-1]))  # compile
    counted.update(forwards=0, gradients=0)
    start = time.perf_counter()
    table = robust_accuracy(classifier, images, labels, attack, numbers["epsilons"], exhaustive=exhaustive)
    seconds = time.perf_counter() - start
    curve = table.groupby("epsilon").correct.mean().iloc[1:].tolist()
    return seconds, curve, counted["forwards"], counted["gradients"]


def peers(network, images, labels, numbers):
    """The same of a peer, budget by budget, on images of [0, 1] with channels first."""
    import torch

    for parameter in network.parameters():
        parameter.requires_grad_(False)
    x, y = torch.tensor(images / 255.0).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
    counted = {"forwards": 0, "gradients": 0}

    class Logits(torch.nn.Module):
        def forward(self, x):
            counted["gradients" if x.requires_grad else "forwards"] += len(x)
            return network(x.permute(0, 2, 3, 1) * 255.0, training=False)

    model = Logits().eval()
    seconds, curve = 0.0, []
    attack = {"pyautoattack": pyautoattack, "art": art_autoattack}[numbers["peer"]]
    for epsilon in numbers["epsilons"]:
        run = attack(model, x, y, epsilon / 255, numbers)
        start = time.perf_counter()
        adversarial = run()
        seconds += time.perf_counter() - start
        assert float((adversarial - x).abs().max()) <= epsilon / 255 * (1 + 1e-4) + 1e-6
        before = dict(counted)
        with torch.no_grad():
            curve.append(float((model(adversarial).argmax(1) == y).float().mean()))
        counted.update(before)
    return seconds, curve, counted["forwards"], counted["gradients"]


def pyautoattack(model, x, y, epsilon, numbers):
    """The reference implementation, packaged: its standard version with our numbers."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=epsilon, version="standard", seed=0)
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = numbers["steps"]
    attack.square.n_queries = numbers["queries"]
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = CLASSES - 1
    return lambda: attack.run_standard_evaluation(x, y, batch_size=16)[0]


def art_autoattack(model, x, y, epsilon, numbers):
    """ART's own set (APGD on two losses, DeepFool, Square; no FAB, no targeted APGD) with our numbers, one restart.

    On its PyTorch classifier: its APGD does not run on TensorFlow with Keras 3.
    """
    import torch
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(x.shape[1:])
    estimator = PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), shape, CLASSES, clip_values=(0.0, 1.0), device_type="cpu"
    )
    ball = {"norm": np.inf, "eps": epsilon}
    attacks = [
        evasion.AutoProjectedGradientDescent(
            estimator, eps_step=2 * epsilon, max_iter=numbers["steps"], nb_random_init=1, batch_size=16,
            loss_type=loss, verbose=False, **ball,
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]  # fmt: skip
    attacks += [
        evasion.DeepFool(estimator, max_iter=numbers["steps"], epsilon=1e-3, nb_grads=10, batch_size=16, verbose=False),
        evasion.SquareAttack(estimator, max_iter=numbers["queries"], p_init=0.8, nb_restarts=1, batch_size=16,
                             verbose=False, **ball),
    ]  # fmt: skip
    attack = evasion.AutoAttack(estimator, eps_step=2 * epsilon, attacks=attacks, batch_size=16, **ball)
    return lambda: torch.tensor(attack.generate(x.numpy(), y.numpy()))


def draw(table, about, path, **provenance):
    """Times as fast as each peer, a bar per work and peer, with what was required and why."""
    import matplotlib.pyplot as plt

    from lib.report import figures

    figures.use_style()
    table = table[(table["unit"] == "seconds") & (table["peer"] != "bare compiled gradient")].reset_index(drop=True)
    required, peers = table["required"].astype(float), table["peer"].map(NAMES)
    colours = {
        "every budget": "0.6",
        "foolbox": "#009E73",
        "art": "#E69F00",
        "cleverhans": "#56B4E9",
        "pyautoattack": "#CC79A7",
    }
    works = without_outcome(table["work"])
    first = ~works.duplicated()
    places = np.arange(len(table)) + 1.1 * first.cumsum()  # each work has a line of its own above its bars
    picture, ax = plt.subplots(figsize=(figures.WIDTH, 0.15 * places.iloc[-1] + 1.1))
    ax.barh(places, table["ratio"], color=table["peer"].map(colours), height=0.7)
    mark = {"color": "0.1", "markersize": 9, "markeredgewidth": 2}
    ax.plot(required, places, "|", **mark, label="required (see below)")
    right = np.where(required - table["ratio"] < 1.5, np.fmax(required + 0.05, table["ratio"]), table["ratio"])
    for place, ratio, end in zip(places, table["ratio"], right, strict=True):
        ax.text(end, place, f" {ratio:.2f}", va="center", fontsize=7)  # a mark just right of a bar stays clear
    for place, work in zip(places[first], works[first], strict=True):
        words = re.sub(r"(\S+):\S+:(\S+),", r"trained \2 of profile \1,", work)
        ax.text(0.1, place - 1, words, va="center", fontsize=7.5, color="0.2", in_layout=False,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    ax.set(yticks=places, yticklabels=peers, xlabel="times as fast as the peer (its seconds over ours)")
    ax.axvline(1, color="0.4", linewidth=0.8, zorder=0.9)  # below the marks that stand on it
    ax.set_ylim(places.iloc[-1] + 0.8, places.iloc[0] - 1.8)
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    place = f"{about['machine']['processor']}, {about['machine']['cores']} cores"
    said = [
        f"{least:g} beside {', '.join(names.unique())} ({REASONS[least]})" for least, names in peers.groupby(required)
    ]
    label = "ResNet-50: random weights, seven logits, random smooth images; others: trained networks"
    label += f" (quick: on phantoms); {place}"
    label += f"\nrequired: {', '.join(said)}"
    ensemble = table["work"].str.startswith("AutoAttack") & (table["peer"] != "every budget")
    if ensemble.any():
        label += f"\nAutoAttack of {', '.join(peers[ensemble].unique())}: on PyTorch"
    figures.save(picture, path, label, **provenance)


def with_earlier(table, about, folder):
    """The table below what the folder holds of other works, if that is of the same machine and versions."""
    path = folder / "attacks.csv"
    if not path.is_file() or json.loads(path.with_suffix(".json").read_text()) != about:
        return table
    both = pd.concat([pd.read_csv(path), table], ignore_index=True)
    work = without_outcome(both["work"])
    both = both[~both.assign(work=work).duplicated(["work", "peer", "unit"], keep="last")]
    return both.sort_values("work", key=lambda work: [_place(name) for name in work], kind="stable", ignore_index=True)


def _place(work):
    """Where a work stands in the table: by size, AutoAttack behind the single attacks, trained networks last."""
    size = re.search(r"(\d+) px", work)
    return int(size[1]) + 1000 * work.startswith("AutoAttack") if size else np.inf


def without_outcome(works):
    """Works without what came out of them, which stands in brackets."""
    return works.str.replace(r" \(.*?\)", "", regex=True)


def redraw(path):
    """Draw the figure from the times in its CSV; its record stays that of the measurement."""
    measured = read_provenance(path)
    measured.pop("label", None)
    about = json.loads(path.with_suffix(".json").read_text())
    draw(pd.read_csv(path.with_suffix(".csv")), about, path, **measured)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[64, 112])
    parser.add_argument("--images", type=int, nargs="+", default=[16, 8], help="at each size")
    parser.add_argument("--repeats", type=int, default=5, help="of everything but autoattack; 0 for none of it")
    parser.add_argument("--autoattack", type=int, nargs="*", default=[64], help="sizes of autoattack")
    parser.add_argument("--autoattack-images", type=int, default=16)
    parser.add_argument(
        "--trained", nargs="*", default=[], help="networks for autoattack, as ham10000:ham10000:baseline"
    )
    parser.add_argument("--data", default="data/raw", help="folder of the original data, for those")
    parser.add_argument("--steps", type=int, default=30, help="of autoattack's gradient attacks")
    parser.add_argument("--queries", type=int, default=500, help="of autoattack's Square")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    parser.add_argument("--draw", action="store_true", help="only draw the figure again, from attacks.csv")
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        return reference(arguments.reference)
    if arguments.draw:
        return redraw(arguments.out / "attacks")

    rows = []
    about = {"machine": machine(), "versions": versions(*PACKAGES)}
    arguments.out.mkdir(parents=True, exist_ok=True)

    def write():
        columns = ["work", "unit", "ours", "peer", "theirs", "required", "repeats"]
        table = pd.DataFrame(rows, columns=columns)
        ratio, one_step = table["theirs"] / table["ours"], table["work"].str.startswith(ONE_STEP)
        table.insert(5, "ratio", ratio.where(~one_step, 1 / ratio))
        table = with_earlier(table.round(3), about, arguments.out)
        table.to_csv(arguments.out / "attacks.csv", index=False)
        (arguments.out / "attacks.json").write_text(json.dumps(about, indent=1) + "\n")
        if table["peer"].isin(REQUIRED).any() or (table["peer"] == "pyautoattack").any():
            draw(table, about, arguments.out / "attacks")

    for size, n in zip(arguments.size, arguments.images, strict=True):
        model, images = resnet(size), smooth_images(max(n, arguments.autoattack_images), size)
        centre(model, images)
        classifier = Classifier(model)
        labels = classifier.predict(images)
        if arguments.repeats:
            rows += pgd_rows(classifier, images[:n], labels[:n], size, arguments.repeats)
            write()
        if size in arguments.autoattack:
            few = images[: arguments.autoattack_images], labels[: arguments.autoattack_images]
            epsilons = spread_budgets(classifier, *few, arguments.steps)
            rows += autoattack_rows(classifier.network, *few, f"ResNet-50, {size} px", epsilons, arguments)
            write()
    for name in arguments.trained:
        classifier, images, labels = trained(name, arguments.data, arguments.autoattack_images)
        epsilons = spread_budgets(classifier, images, labels, arguments.steps)
        rows += autoattack_rows(classifier.network, images, labels, name, epsilons, arguments)
        write()


if __name__ == "__main__":
    main()
