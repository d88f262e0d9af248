"""What `notebooks/00_explore.ipynb` computes: attacks on one image at a time, which remember what they found.

Nothing here knows of widgets. `lib.explore.pictures` draws what comes out, and `lib.explore.panel` asks for it when
a control moves.
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops
from scipy.special import softmax

from lib import StudyError, artifacts
from lib.attacks import Classifier, make_attack
from lib.attacks.base import Attack
from lib.attacks.losses import margin, targeted_margin
from lib.data.decoding import ImageError, read_header
from lib.data.preprocessing import preprocess
from lib.explain import grad_cam
from lib.study import Study, results

# Attacks that answer within a slider's move; AutoAttack is four of them in a row and takes minutes.
ATTACKS = ("fgsm", "bim", "mi_fgsm", "pgd", "apgd_ce", "square")
BUDGETS = 2.0 ** np.arange(-6, 5)  # gray levels, from 1/64 to 16
TINY_PROFILE = "tiny"


@dataclass(frozen=True, eq=False)
class Subject:
    """An image to be attacked: `pixels` float32 (H, W, 3) in [0, 255] as models take them.

    `label`: its true class, or None where nobody has said; each network's own answer then takes its place.
    """

    name: str
    pixels: np.ndarray
    label: int | None


@dataclass(frozen=True)
class Choice:
    """An attack as the controls set it, in the L-infinity norm. `target`: a class, or None for any wrong one."""

    attack: str = "pgd"
    steps: int = 20
    target: int | None = None

    def make(self) -> Attack:
        """The attack. It takes all its steps, also on an image that has fallen, as the Grad-CAM figures do."""
        steps = {} if self.attack == "fgsm" else {"steps": self.steps}
        return make_attack(self.attack, leave=False, **steps)


@dataclass(frozen=True, eq=False)
class Found:
    """An image within a budget and what the model says of it.

    `epsilon`: the budget, in gray levels, at which it was found; `pixels` float32 (H, W, 3); `size`: the largest
    change of any pixel; `probabilities` float (classes,); `margin`: how far the logits are beyond the boundary
    that the attack wants crossed, positive when it is.
    """

    epsilon: float
    pixels: np.ndarray
    size: float
    probabilities: np.ndarray
    margin: float

    @property
    def fallen(self) -> bool:
        """Whether the attack has what it wants."""
        return self.margin > 0

    @property
    def predicted(self) -> int:
        """The class that the model names."""
        return int(self.probabilities.argmax())


class Trial:
    """One attack on one image of one model. It remembers every image that it found.

    An image within a small budget is within every larger one, so the answer at a budget is the best known within it:
    never worse than that of a smaller budget. Each new budget starts from what is known of its neighbours
    (one step, as in FGSM, starts at the image).
    `label` and `target`: classes, the target None for any wrong class; `attack`: of `lib.attacks`.
    """

    def __init__(self, classifier: Classifier, pixels, label: int, attack: Attack, target: int | None = None):
        self.classifier, self.label, self.attack, self.target = classifier, int(label), attack, target
        self.pixels = np.asarray(pixels, "float32")
        self.finds: dict[float, Found] = {}
        self._keep([0.0], self.pixels[None])

    @property
    def clean(self) -> Found:
        """The image itself."""
        return self.finds[0.0]

    def at(self, *epsilons: float) -> list[Found]:
        """The best known image within each of these budgets; those that are new are attacked first, all at once."""
        new = sorted({float(epsilon) for epsilon in epsilons} - self.finds.keys())
        if new:
            n = len(new)
            adversarial = self.attack(
                self.classifier,
                np.repeat(self.pixels[None], n, axis=0),
                np.full(n, self.label),
                np.array(new, "float32"),
                start=self._start(new),
                targets=None if self.target is None else np.full(n, self.target),
            )
            self._keep(new, adversarial)
        return [self.best(epsilon) for epsilon in epsilons]

    def best(self, epsilon: float) -> Found:
        """The best image known within a budget, without any attack."""
        return max((found for e, found in self.finds.items() if e <= epsilon), key=lambda found: found.margin)

    def smallest(self, budgets=BUDGETS) -> float:
        """The smallest size, in gray levels, of a perturbation that the attack finds; infinite if it finds none.

        Attacks at `budgets`, and then at seven more between the last that stands and the first that falls, each time
        in one batch, until these are within 2 % of each other (twice, for budgets that double).
        """
        self.at(*budgets)
        while falls := [epsilon for epsilon in self.finds if self.finds[epsilon].fallen]:
            stood = [epsilon for epsilon in self.finds if 0 < epsilon < min(falls)]
            if not stood or min(falls) / max(stood) < 1.02:
                break
            self.at(*np.geomspace(max(stood), min(falls), 9)[1:-1])
        return min((found.size for found in self.finds.values() if found.fallen), default=np.inf)

    def curve(self) -> pd.DataFrame:
        """What is known, one row per budget attacked (0: the clean image), in the order of epsilon.

        Columns: epsilon (gray levels), stands (whether the attack has failed), probability (of the target, or of the
        true class where there is none).
        """
        watched = self.label if self.target is None else self.target
        known = [(epsilon, self.best(epsilon)) for epsilon in sorted(self.finds)]
        return pd.DataFrame(
            {"epsilon": e, "stands": not found.fallen, "probability": float(found.probabilities[watched])}
            for e, found in known
        )

    def _start(self, epsilons):
        """Where to begin at new budgets, (n, H, W, 3): the best of smaller ones stretched to the budget, else the next
        larger one (the attack brings it into the ball); None where nothing is known or a step is all there is."""
        known = sorted(self.finds)[1:]
        if not known or getattr(self.attack, "steps", 1) == 1:
            return None
        starts = []
        for epsilon in epsilons:
            best = self.best(epsilon)
            if not best.size:
                best = self.finds[min((e for e in known if e > epsilon), default=known[0])]
            scale = epsilon / best.size if best.size else 0.0
            starts.append(self.pixels + scale * (best.pixels - self.pixels))
        return np.clip(np.stack(starts), 0, 255)

    def _keep(self, epsilons, images):
        logits = self.classifier.logits(images)
        goal = np.full(len(images), self.label if self.target is None else self.target, "int32")
        margins = np.asarray((margin if self.target is None else targeted_margin)(logits, goal, goal, "logits"))
        sizes = np.abs(images - self.pixels).max(axis=(1, 2, 3))
        found = zip(epsilons, images, sizes.astype(float), softmax(logits, axis=1), margins.astype(float), strict=True)
        self.finds |= {item[0]: Found(*item) for item in found}


@dataclass(frozen=True, eq=False)
class View:
    """What is shown of one variant: the clean and the attacked image, and its maps of both.

    `label`: the class that Grad-CAM explains; `gradcam` and `attention` float32 (2, h, w) at the feature map's
    resolution, clean first; `attention` is None for a variant without the block.
    """

    label: int
    clean: Found
    attacked: Found
    gradcam: np.ndarray
    attention: np.ndarray | None


class Explorer:
    """Two trained variants of a study, attacked on one image, with everything found so far kept in memory.

    `shown`: the baseline and another variant, at first the attentive one; one of `others`.
    """

    def __init__(self, study: Study):
        # Each kind of attack is compiled at its first use, which TensorFlow takes for a mistake and says on the page.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        self.study = study
        self.others = [name for name in study.profile.variants if name != "baseline" and study.profile.seeds_of(name)]
        self.shown = ["baseline", study.profile.attentive]
        chosen = study.chosen()
        self.gallery = [
            Subject(image_id, pixels, int(label))
            for image_id, pixels, label in zip(chosen["image_id"], study.pixels(chosen), chosen["label"], strict=True)
        ]
        self._trials = {}

    def trials(self, subject: Subject, choice: Choice) -> dict[str, Trial]:
        """The trial of each variant, the same one for the same image and attack.

        Raises StudyError for a target that is the image's own class.
        """
        if choice.target is not None and choice.target == subject.label:
            own = self.study.info.classes[choice.target]
            raise StudyError(f"The image is of the class {own} already: choose another target.")
        trials = {}
        for variant in self.shown:
            classifier = self.study.classifier(variant)
            key = variant, subject.pixels.tobytes(), subject.label, choice
            if key not in self._trials:
                label = subject.label
                if label is None:
                    label = classifier.predict(subject.pixels[None])[0]
                self._trials[key] = Trial(classifier, subject.pixels, label, choice.make(), choice.target)
            trials[variant] = self._trials[key]
        return trials

    def view(self, subject: Subject, choice: Choice, epsilon: float) -> dict[str, View]:
        """What there is to see of each variant at a budget in gray levels."""
        views = {}
        for variant, trial in self.trials(subject, choice).items():
            [attacked] = trial.at(epsilon)
            both = np.stack([trial.pixels, attacked.pixels])
            classifier = self.study.classifier(variant)
            maps = grad_cam(classifier.model, both, [trial.label] * 2, upsample=False)
            attention = classifier.run(_attention, both) if "attention" in variant else None
            views[variant] = View(trial.label, trial.clean, attacked, maps, attention)
        return views

    def falls(self, subject: Subject, choice: Choice) -> tuple[dict[str, float], pd.DataFrame]:
        """The smallest perturbation of each variant (see `Trial.smallest`) and the curves, with a column variant."""
        trials = self.trials(subject, choice)
        smallest = {variant: trial.smallest() for variant, trial in trials.items()}
        curves = [trial.curve().assign(variant=variant) for variant, trial in trials.items()]
        return smallest, pd.concat(curves, ignore_index=True)


def _attention(classifier, images):
    """`lib.explain.attention_map` as a program, which is compiled once and not for every call."""
    _, maps = classifier.model.get_layer("soft_attention").output
    return ops.sum(keras.Model(classifier.model.input, maps)(images, training=False), axis=-1)


def read_upload(data: bytes, name: str, study: Study) -> Subject:
    """An own image, from the bytes of its file, preprocessed like those of the study; its class is not known.

    Like them it is resized to a square whatever its aspect ratio, and chest x-rays go through their contrast
    pipeline. Raises StudyError with the file's name where the bytes are no whole image.
    """
    settings = study.profile.preprocessing
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "upload")
        path.write_bytes(data)
        try:
            image = preprocess(path, study.dataset, settings.image_size, settings.xray_contrast, settings.xray_sigma)
        except ImageError as error:
            what = {"empty": "is empty", "truncated": "is cut off"}.get(error.problem, "cannot be read as an image")
            raise StudyError(f"{name} {what}: choose a whole JPEG, PNG or TIFF file.") from error
    header = read_header(data)
    if min(header.width, header.height) < 32:
        raise StudyError(f"{name} has {header.width} x {header.height} pixels: choose one of at least 32 x 32.")
    return Subject(name, image.astype("float32"), None)


def open_study(profile="quick", dataset="ham10000", seed=0, data="data/raw") -> tuple[Study, str]:
    """The study if its models are trained, or published and its images are here; else one of the profile `tiny`, whose
    models are trained in a minute.

    Returns it and a sentence that says which it is; empty if it is the one that was asked for.
    """
    study = Study(profile, dataset, seed, data)
    if _trained(study):
        return study, ""
    why = _published(study, data)
    if not why and _trained(study):
        return study, ""
    tiny = Study(TINY_PROFILE, study.info.stands_for or dataset)  # there are phantoms of the originals alone
    return tiny, (
        f"{why}There are no trained models of profile {study.profile.profile} for {study.info.short} here, so a tiny "
        f"pair of profile {TINY_PROFILE} stands in, trained now if need be ({tiny.profile.label}, about a minute). It "
        f"shows how things work, not how robust anything is. For the real ones: ./reproduce --profile {profile}"
    )


def _trained(study: Study) -> bool:
    """Whether the networks of a study lie in its folder, made by this code from these data."""
    files = {variant: study.directory(variant) / results.MODEL for variant in study.variants}
    # The files first: without any there is no need to look at (or draw) the data.
    return all(file.is_file() for file in files.values()) and all(
        artifacts.read_provenance(file).get("key") == study.model_key(variant) for variant, file in files.items()
    )


def _published(study: Study, data) -> str:
    """Put the networks that are published of a study into its folder; why they do not belong there, if they do not."""
    name = f"{study.dataset}-seed{study.seed}"
    files = [results.PUBLISHED / study.profile.profile / f"{name}-{variant}.zip" for variant in study.variants]
    if not all(file.is_file() for file in files) or not (study.raw / study.dataset).is_dir():
        return ""
    try:
        for file in files:
            results.unpack(file, data)
    except StudyError as error:  # of other images, or of an earlier version of the code
        return f"{error} "
    return ""
