"""The suite on somebody's own network: curve, distances, trust and maps of any Keras classifier, from one call."""

import hashlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib import StudyError, artifacts
from lib.attacks import Classifier, make_attack, trust
from lib.attacks.base import checked_classes
from lib.evaluation.comparison import median_distance, shares
from lib.evaluation.own import load_images, load_network
from lib.evaluation.robustness import checked_grid, in_gray_levels, robust_accuracy
from lib.evaluation.statistics import paired_difference
from lib.explain import grad_cam, map_shift
from lib.explain.selected import spread


@dataclass
class Result:
    """What `benchmark` found of a network; in a notebook it shows itself as a figure and a table.

    curve : epsilon, n, robust_accuracy, ci_low, ci_high (Wilson's 95 %); epsilon 0 is the clean image. Of two networks
        also `network` in front.
    outcomes : per image and epsilon, as from `robust_accuracy`.
    distances : n, median, ci_low, ci_high and unbroken: the smallest change known to fool the network.
    trust : checks of the network and of the evaluation: check, passed, value, sentence.
    maps : how far Grad-CAM moves under attack, a row per image, as from `lib.explain.map_shift`; empty without maps.
    comparison : epsilon, n, difference, ci_low, ci_high, p_value of the network less `compare_with`; else empty.
    pictures : images, attacked images and maps of those that `maps` is about.
    facts : what was attacked and how, in words.
    """

    curve: pd.DataFrame
    outcomes: pd.DataFrame
    distances: pd.DataFrame
    trust: pd.DataFrame
    maps: pd.DataFrame
    comparison: pd.DataFrame
    pictures: dict[str, np.ndarray] = field(repr=False)
    facts: dict[str, str] = field(repr=False)

    def save(self, folder) -> Path:
        """Write tables (.csv), figures (.png) and one page, `index.html`, into a folder; returns the page's path."""
        return _drawing().write(self, Path(folder))

    def _repr_mimebundle_(self, **_):
        return _drawing().shown(self)


def benchmark(
    model,
    images,
    labels=None,
    *,
    bounds=(0, 255),
    epsilons=(0.25, 0.5, 1, 2, 4),
    norm="linf",
    attack="autoattack",
    targets=None,
    batch_size=None,
    seed=0,
    classes=None,
    read=None,
    layer=None,
    folder=None,
    compare_with=None,
    examined=50,
    progress=None,
) -> Result:
    """Attack a Keras classifier, check whether the attack can be trusted, and see where the network looks.

    Parameters
    ----------
    model : a built Keras classifier, or the path of a `.keras` or `.h5` file.
    images : (n, H, W, C) within `bounds`; or a folder with a folder for each class; or, with `labels` the path of a CSV
        with columns image and label, the folder that these images lie in. Images from files are resized to the model.
    labels : the true classes, whole numbers (n,) or one-hot rows; the CSV; None for a folder of folders.
    bounds : the range of the pixels that the model takes, as in Foolbox; epsilons are in the same unit.
    epsilons : budgets.  norm : "linf" or "l2".
    attack : an attack of `lib.attacks`, or the name of one; by default the standard AutoAttack.
    targets : classes to be reached, as labels; any wrong class will do when None.
    classes : names of the classes.  layer : whose map Grad-CAM weights; the last feature map when None.
    read : of images in files, how one becomes pixels, uint8 RGB (H, W, 3) in the model's size, for a network with a
        preprocessing of its own; resized when None.
    folder : where progress is kept: killed and called again with the same arguments, it goes on.
    compare_with : another model, as `model`, attacked on the same images.
    examined : images that the checks look at.  progress : called as progress(settled, n), or None.

    Raises StudyError, in one sentence, for a file, images, labels or a model that cannot be used.
    """
    name = Path(model).stem if isinstance(model, str | Path) else getattr(model, "name", "model")
    model = load_network(model) if isinstance(model, str | Path) else model
    if not getattr(model, "built", True) and not isinstance(images, str | Path):
        model(np.asarray(images[:1], "float32"))
    classifier, notes = Classifier(model, bounds=bounds), {}
    if isinstance(images, str | Path):
        shape = classifier.network.input_shape[1:]
        images, labels, classes = load_images(Path(images), labels, shape, bounds, classes, notes, read)
    if labels is None:
        raise StudyError("labels are missing: give the true class of each image.")
    images = np.asarray(images, "float32")
    if not len(images):
        raise StudyError("There are no images to attack.")
    labels = checked_classes(classifier, "labels", labels, len(images))
    names = [str(name) for name in classes] if classes is not None else [str(k) for k in range(classifier.classes)]
    if len(names) != classifier.classes:
        raise StudyError(f"The model has {classifier.classes} classes, and {len(names)} names are given.")
    made = make_attack(attack, norm=norm) if isinstance(attack, str) else attack
    options = {"bounds": bounds, "targets": targets, "batch_size": batch_size, "seed": seed, "progress": progress}

    def attacked(of):
        return _kept(of, images, labels, made, epsilons, folder, options)

    outcomes, others = attacked(classifier), None
    if compare_with is not None:
        other = load_network(compare_with) if isinstance(compare_with, str | Path) else compare_with
        others = attacked(Classifier(other, bounds=bounds))
    gray, unit = in_gray_levels(images, bounds)
    grid = checked_grid(epsilons)
    middle = float(grid[len(grid) // 2])
    rows = np.unique(np.linspace(0, len(images) - 1, min(examined, len(images))).round().astype(int))
    pgd = make_attack("pgd", norm=made.norm, batch_size=batch_size or made.batch_size)
    checks = trust(classifier, gray[rows], labels[rows], middle * unit, attack=pgd, seed=seed)
    seen = model_checks(classifier, labels, outcomes, names)
    if "dark" in notes:
        seen.loc[len(seen)] = ["images", False, 0.0, notes["dark"], len(images)]
    checks = pd.concat([seen, checks.assign(n=len(rows))], ignore_index=True)
    maps, pictures = _maps(model, classifier, gray, labels, outcomes, pgd, middle * unit, layer)
    facts = {
        "network": name,
        "images": f"{len(images)} images of {len(np.unique(labels))} classes",
        "not read": notes.get("not read", "none"),
        "attack": made.name,
        "norm": made.norm.name,
        "bounds": f"{bounds[0]:g} to {bounds[1]:g}; epsilons are in this unit",
        "notes": " ".join(classifier.notes) or "none",
        "classes": ", ".join(names),
        "maps": f"PGD at epsilon {middle:g}",
        "checks": f"{len(rows)} images, PGD at epsilon {middle:g}",
    }
    curve = _curve(outcomes)
    if others is not None:
        both = curve.assign(network="network"), _curve(others).assign(network="other")
        curve = pd.concat(both, ignore_index=True)
    comparison = _compared(outcomes, others)
    return Result(curve, outcomes, _distances(outcomes), checks, maps, comparison, pictures, facts)


def model_checks(classifier: Classifier, labels, outcomes: pd.DataFrame, names) -> pd.DataFrame:
    """What a look at the network and its clean answers says, in the manner of AutoAttack's checks of a model."""
    clean = outcomes[outcomes["epsilon"] == 0]
    accuracy, counts = clean["correct"].mean(), np.bincount(labels, minlength=classifier.classes)
    constant, present = counts.max() / len(labels), (counts > 0).sum()
    said = clean["predicted"].value_counts(normalize=True)
    beats = accuracy > constant
    rows = [
        ("outputs", True, 0.0,
         " ".join(classifier.notes) or "The logits were found; what is attacked is the model itself."),
        ("clean accuracy", beats or constant == 1, accuracy,
         f"{accuracy:.0%} of the images are right without attack, and a constant answer has {constant:.0%}"
         + ("." if beats else ": look at bounds, preprocessing and the order of the classes first.")),
        ("answers", len(said) > 1 or constant == 1, said.iloc[0],
         f"The most frequent answer, {names[said.index[0]]}, is given to {said.iloc[0]:.0%} of the clean images."),
        ("classes", present > 1, present, f"The images are of {present} of {classifier.classes} classes"
         + (": of one class, a constant answer looks robust." if present == 1 else ".")),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["check", "passed", "value", "sentence"]).assign(n=len(labels))


def _kept(classifier, images, labels, attack, epsilons, folder, options) -> pd.DataFrame:
    """`robust_accuracy`, from the folder if these arguments were seen before; AutoAttack keeps its own steps there."""
    if folder is None:
        return robust_accuracy(classifier, images, labels, attack, epsilons, **options)
    digest = hashlib.blake2b(classifier.fingerprint(), digest_size=8)
    for array in (images, labels, options["targets"]):
        digest.update(b"" if array is None else np.ascontiguousarray(array))
    digest.update(repr((attack, sorted(map(float, epsilons)), options["bounds"], options["seed"])).encode())
    key = digest.hexdigest()
    if hasattr(attack, "state") and attack.state is None:
        attack = attack.with_(state=str(Path(folder) / "state"))

    def make(temporary):
        robust_accuracy(classifier, images, labels, attack, epsilons, **options).to_csv(temporary, index=False)

    return artifacts.cached(Path(folder) / f"outcomes-{key}.csv", key, make, artifacts.read_table)


def _curve(outcomes: pd.DataFrame) -> pd.DataFrame:
    return shares(outcomes.sort_values("epsilon"), ["epsilon"], "correct", "robust_accuracy")


def _distances(outcomes: pd.DataFrame) -> pd.DataFrame:
    smallest = outcomes.groupby("image_id")["smallest_epsilon"].first().to_numpy()
    columns = ["n", "median", "ci_low", "ci_high", "unbroken"]
    known = smallest[smallest > 0]
    return pd.DataFrame([median_distance(known)] if len(known) else [], columns=columns)


def _compared(outcomes, others) -> pd.DataFrame:
    columns = ["epsilon", "n", "difference", "ci_low", "ci_high", "p_value"]
    rows = []
    for epsilon, group in outcomes.groupby("epsilon") if others is not None else ():
        other = others[others["epsilon"] == epsilon].set_index("image_id")["correct"]
        mine = group.set_index("image_id")["correct"]
        change = paired_difference(other.loc[mine.index].to_numpy(bool), mine.to_numpy(bool))
        rows.append((epsilon, change.images, change.difference, change.low, change.high, change.p_value))
    return pd.DataFrame(rows, columns=columns)


def _maps(model, classifier, images, labels, outcomes, attack, epsilon, layer, most=6):
    """Grad-CAM of up to `most` images that are right when clean, before and after an attack, and how far it moves."""
    clean = outcomes[outcomes["epsilon"] == 0].reset_index(drop=True)
    right = clean[clean["correct"].astype(bool)]
    columns = ["image_id", "rank_correlation", "ssim", "top20_overlap", "clean_constant", "adversarial_constant"]
    if right.empty:
        return pd.DataFrame(columns=columns), {}
    shown = spread(right, most)
    rows = shown.index.to_numpy()
    adversarial = attack.with_(leave=False)(classifier, images[rows], labels[rows], epsilon)
    pictures = {"image": images[rows], "attacked": adversarial, "label": labels[rows]}
    pictures["predicted"] = classifier.predict(adversarial)
    low, high = classifier.bounds
    try:
        for name in ("image", "attacked"):
            taken = pictures[name] * ((high - low) / 255) + low
            pictures[f"map of {name}"] = grad_cam(model, taken, labels[rows], layer=layer, upsample=False)
    except StudyError as error:
        if layer is not None:
            raise
        return pd.DataFrame(columns=columns), pictures | {"why no maps": np.array(str(error))}
    shift = map_shift(pictures["map of image"], pictures["map of attacked"], images.shape[1:3])
    return shift.assign(image_id=shown["image_id"].to_numpy())[columns], pictures


def _drawing():
    """What draws a result: the one look up, as a result shows itself wherever it is made."""
    return importlib.import_module("lib.report.own")
