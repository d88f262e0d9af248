"""The sections of a profile: what a run varies, and what fits together.

The defaults below are the paper's values (Wasserman 2022, sections 3.1 to 3.3) where the paper gives one;
where it does not, the field's comment says so.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from lib import REGISTRIES, ROOT, StudyError
from lib.profile.evaluation import Attack, Evaluation, Positive, Section

# Read as files, so that nothing above this floor is imported.
BACKBONES = yaml.safe_load((ROOT / "lib" / "models" / "backbones.yaml").read_text(encoding="utf-8"))


def _datasets() -> dict[str, dict]:
    """What the registries say of each data set, and whether it is one's own."""
    found = {}
    for path in (path for path in REGISTRIES if path.is_file()):
        try:
            entries = dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise StudyError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
        found |= {str(name): {"own": path != REGISTRIES[0]} | dict(facts or {}) for name, facts in entries.items()}
    return found


DATASETS = _datasets()
Dataset, Backbone = Literal[tuple(DATASETS)], Literal[tuple(BACKBONES)]
Variant = Literal[
    "baseline", "attention", "attention-reference", "attention-no-dropout", "pooling", "frozen", "se", "cbam",
    "uniform", "uniform-matched", "scaled", "attention-gamma1", "attention-gamma3", "adversarial",
]  # fmt: skip
Share = Annotated[float, Field(gt=0, lt=1)]


class Phantom(Section):
    """How many phantom images to draw per data set, and how large, in pixels."""

    images: Positive
    size: Annotated[int, Field(ge=32, le=1024)]
    seed: int = 0


class Split(Section):
    """Group-wise split; the paper gives no split."""

    validation: Share = 0.15
    test: Share = 0.20
    seed: int = 0
    official: bool = True  # take the published test split (or the whole published split) where there is one
    max_images: Positive | None = None  # a stratified subset of the data, for small machines

    @model_validator(mode="after")
    def leaves_training_data(self):
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave images for training")
        return self


class Preprocessing(Section):
    image_size: Annotated[int, Field(ge=32, le=512)] = 224
    # The text does not say where the contrast pipeline stands; see lib.data.preprocessing for the choice.
    xray_contrast: Literal["before-resize", "after-resize", "none"] = "before-resize"
    xray_sigma: Annotated[float, Field(gt=0)] = 20  # of the blur, in pixels of an x-ray 1024 pixels wide


class Model(Section):
    backbone: Backbone = "resnet50"
    weights: str = "imagenet"  # "imagenet", "none" or the path of a weights file
    width: Positive = 64  # channels of the first stage; only resnet14 may differ from 64
    feature_layer: str = ""  # of the backbone's maps; "" for the first
    attention_maps: Positive = 16
    gamma: float = 0.01  # initial value of the learnable scalar
    branch_scale: Annotated[float, Field(gt=0)] = 1  # of the constant branch of uniform-matched, and of scaled
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch_norm_momentum: Share = 0.99
    frozen_up_to: str = ""  # a layer of the backbone: all up to it keeps its weights, and is computed once

    @model_validator(mode="before")
    @classmethod
    def feature_layer_of_backbone(cls, values):
        if isinstance(values, dict) and not values.get("feature_layer"):
            backbone = str(values.get("backbone", "resnet50"))
            values = values | {"feature_layer": BACKBONES.get(backbone, {"maps": [""]})["maps"][0]}
        return values

    @model_validator(mode="after")
    def fits_backbone(self):
        about = BACKBONES[self.backbone]
        if self.feature_layer not in about["maps"]:
            known = " or ".join(about["maps"])
            raise ValueError(f"feature_layer of {self.backbone} must be {known}, got {self.feature_layer!r}")
        if self.backbone != "resnet14" and self.width != 64:
            raise ValueError(f"width can be set for resnet14 only, {self.backbone} has its own")
        if self.weights == "imagenet" and not about.get("imagenet", True):
            raise ValueError(f"there are no ImageNet weights for {self.backbone}; set weights to none")
        return self

    @property
    def gated(self) -> bool:
        """Whether gamma at or below 0 shuts the attention branch off: the block reads a map that is never negative."""
        return self.feature_layer not in BACKBONES[self.backbone].get("signed", [])

    @property
    def imagenet_file(self) -> Path:
        """Where the backbone's ImageNet weights stand, or will; see `lib.models.pretrained`."""
        return ROOT / "data" / "weights" / f"{self.backbone}_imagenet_notop.weights.h5"

    @property
    def weights_file(self) -> Path | None:
        """The file on this machine that training starts from; None without one, or while it is yet to be fetched.

        Raises StudyError when `weights` names a file that is not there.
        """
        if self.weights == "none":
            return None
        if self.weights == "imagenet":
            return self.imagenet_file if self.imagenet_file.is_file() else None
        path = Path(self.weights)
        if not path.is_file():
            raise StudyError(f"model.weights names {self.weights}, which is not a file; give imagenet, none or a path.")
        return path


class Adversarial(Section):
    """Training on adversarial images; budgets in gray levels, as in `evaluation`. See `lib.models.adversarial`."""

    method: Literal["pgd-at", "trades"]
    epsilon: Annotated[float, Field(gt=0)] = 1
    steps: Positive = 7
    step_size: Annotated[float, Field(gt=0)] | None = None  # null for 2.5 epsilon / steps
    beta: Annotated[float, Field(ge=0)] = 6  # weight of TRADES' second term

    @property
    def step_length(self) -> float:
        return self.step_size or 2.5 * self.epsilon / self.steps


class Training(Section):
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    adam_epsilon: Annotated[float, Field(gt=0)] = 0.1
    epochs: Positive = 300
    patience: Positive = 40
    min_delta: Annotated[float, Field(ge=0)] = 0.001
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"  # not said in the paper
    restore_best: bool = True  # not said in the paper
    batch_size: Positive = 32  # not said in the paper
    epoch_fraction: dict[Dataset, Annotated[float, Field(gt=0, le=1)]] = {"ham10000": 0.1}
    class_weights: bool = True
    adversarial: Adversarial | None = None  # beyond the paper: train on adversarial images
    # Of each training image, behind a frozen stem only; 2: it and its mirror image, 8: the flips and rotations.
    views: Literal[1, 2, 8] = 1
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: to zero, over all epochs
    warmup_epochs: Annotated[int, Field(ge=0)] = 0  # of a cosine
    precision: Literal["float32", "mixed_bfloat16"] = "float32"  # of training; evaluated is always in float32
    # float16: what was trained is rounded before anything is measured, so that small files hold the very network
    kept_as: Literal["float32", "float16"] = "float32"


Pair = Annotated[list[Variant], Field(min_length=2, max_length=2)]


class Planned(Section):
    """The comparisons that were planned before anything was trained; [one, other] is one minus other.

    The outcome is robust accuracy under all attacks that every run meets, averaged over `budgets`.
    """

    budgets: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None  # null for all
    primary: Pair = ["attention", "baseline"]
    secondary: list[Pair] = []
    control: Pair | None = None  # a positive control: an effect that must be seen
    control_runs: Positive | None = None  # its runs that were planned, where others were added later; null for all
    control_intact: list[int] = []  # the seeds whose tuned network is held against the one that it was tuned from
    # Budgets beside trust_epsilon at which AutoAttack is run to its end, on the first so many runs
    convergence: dict[Variant, list[float]] = {}
    convergence_runs: Positive = 3
    margin: Annotated[float, Field(gt=0)] = 2  # of equivalence, in percentage points

    @property
    def pairs(self) -> list[list[str]]:
        return [self.primary, *self.secondary, *([self.control] if self.control else [])]


class Profile(Section):
    profile: str
    title: str
    source: Literal["phantom", "original"]
    datasets: Annotated[list[Dataset], Field(min_length=1)]
    variants: Annotated[list[Variant], Field(min_length=2)] = ["baseline", "attention"]
    controls: list[Variant] = []  # further variants, for the first seed only
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    # Variants that are trained with the first so many seeds, not with all; 0: planned, and not trained yet.
    runs: dict[Variant, Annotated[int, Field(ge=0)]] = {}
    # What is done with the controls and with the seeds after the first: all that is done with the variants of the
    # first, or what C1 to C3 need: training, the headline attack, and the attacks that say every_run.
    repeats: Literal["all", "claims"] = "all"
    closely: list[Variant] = []  # those of the first run that are looked at closely if `repeats` is claims; none: all
    threads: Positive | None = None  # per job; fixed, so that results do not depend on --cores
    phantom: Phantom | None = None
    split: Split = Split()
    # Other classes than the data set's: the name of each, and those that it takes together.
    classes: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    preprocessing: Preprocessing = Preprocessing()
    model: Model = Model()
    training: Training = Training()
    tuning: Training | None = None  # of the variant adversarial, which goes on from the trained baseline, whole
    evaluation: Evaluation
    planned: Planned = Planned()

    @model_validator(mode="after")
    def is_consistent(self):
        if (self.source == "phantom") != (self.phantom is not None):
            raise ValueError("a phantom section belongs to source: phantom, and only there")
        if self.phantom and any(DATASETS[name].get("stands_for") or DATASETS[name]["own"] for name in self.datasets):
            raise ValueError("there are phantoms of ham10000, chestxray14 and eyepacs only")
        for name in ("datasets", "variants", "seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} lists an entry twice")
        if set(self.controls) & set(self.variants) or len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls lists an entry twice, or one of variants: {', '.join(self.controls)}")
        if ("adversarial" in self.variants + self.controls) != bool(self.tuning and self.tuning.adversarial):
            raise ValueError("the variant adversarial and a tuning section with its adversarial belong together")
        for name in self.datasets if self.classes else []:
            taken = sorted(old for olds in self.classes.values() for old in olds)
            if taken != sorted(DATASETS[name]["classes"]) or len(self.classes) < 2:
                known = ", ".join(DATASETS[name]["classes"])
                raise ValueError(f"classes must share out those of {name} among two or more: {known}")
        backbone, size = self.model.backbone, self.preprocessing.image_size
        smallest, multiple = (BACKBONES[backbone].get(limit, 1) for limit in ("smallest", "multiple"))
        if size < smallest:
            raise ValueError(f"{backbone} needs an image_size of at least {smallest}, got {size}")
        if size % multiple:
            raise ValueError(f"{backbone} cuts images in patches of {multiple} pixels: image_size {size} does not fit")
        if self.training.views > 1 and not self.model.frozen_up_to:
            raise ValueError("training.views needs model.frozen_up_to: views are made of what a frozen stem gives")
        if self.training.adversarial and self.model.frozen_up_to:
            raise ValueError("training.adversarial trains on pixels, which model.frozen_up_to does not show")
        if "baseline" not in self.variants or not any(name.startswith("attention") for name in self.variants):
            raise ValueError("variants needs baseline and an attention variant: the study compares them")
        compared = {name for pair in self.planned.pairs for name in pair}
        if missing := compared - set(self.variants + self.controls):
            raise ValueError(f"planned names {', '.join(sorted(missing))}, which variants does not list")
        further = self.planned.convergence.values() if self.evaluation.convergence_images else []
        named = set(self.planned.budgets or []).union(*further)
        if unknown := named - set(self.evaluation.epsilons):
            raise ValueError(f"budgets that planned names must be among evaluation.epsilons, got {sorted(unknown)}")
        return self

    def variants_of(self, seed: int) -> list[str]:
        """The variants trained and attacked with this seed, in the order of `variants`, then `controls`."""
        number = self.seeds.index(seed) if seed in self.seeds else 0
        run = [variant for variant in self.variants if number < self.runs.get(variant, len(self.seeds))]
        return run + (self.controls if seed == self.seeds[0] else [])

    def seeds_of(self, variant: str) -> list[int]:
        """The seeds that a variant is trained with."""
        return [seed for seed in self.seeds if variant in self.variants_of(seed)]

    def whole_variants_of(self, seed: int) -> list[str]:
        """The variants of this seed that meet every attack, the trust checks, Grad-CAM and the measures of 05_why."""
        if self.repeats == "all":
            return self.variants_of(seed)
        named = [name for name in self.variants if name in self.closely] or self.variants
        return [name for name in named if self.seeds_of(name)] if seed == self.seeds[0] else []

    def attacks_of(self, seed: int, variant: str) -> list[Attack]:
        """The attacks that a variant of this seed meets."""
        attacks, headline = self.evaluation.attacks, self.evaluation.headline
        whole = variant in self.whole_variants_of(seed)
        return attacks if whole else [entry for entry in attacks if entry.name == headline or entry.every_run]

    @property
    def attentive(self) -> str:
        """The attentive variant that is held against the baseline where one pair is looked at closely."""
        return next((one for one, _ in self.planned.pairs if one.startswith("attention")), "attention")

    @property
    def gated(self) -> bool:
        """Whether a gamma that falls to 0 would shut off the branch of the attentive variant."""
        return self.model.gated and self.attentive == "attention"

    @property
    def planned_budgets(self) -> list[float]:
        """The budgets that the planned comparisons average over."""
        return self.planned.budgets or self.evaluation.epsilons

    @property
    def judged(self) -> list[list[str]]:
        """The pairs that the claims are judged on, the paper's first: attentive variants against the two plain ones."""
        pairs = [pair for pair in self.planned.pairs if all(map(self.seeds_of, pair))]
        attentive = dict.fromkeys(one for one, _ in pairs if one.startswith("attention"))
        compared = {other for _, other in pairs}
        others = [name for name in ("baseline", "uniform", "uniform-matched") if name in compared]
        return [[one, other] for one in attentive for other in others]

    @property
    def label(self) -> str:
        """What every output says about the data it came from."""
        if self.source == "phantom":
            return "phantom data"
        stand_ins = ["stands_for" in DATASETS[name] for name in self.datasets]
        label = "MedMNIST+ data" if all(stand_ins) else "original data"
        if any(DATASETS[name]["own"] for name in self.datasets):
            label = "own data" if all(DATASETS[name]["own"] for name in self.datasets) else f"{label} and own data"
        label += " and MedMNIST+ data" if any(stand_ins) and not all(stand_ins) else ""
        leaking = [DATASETS[name]["short"] for name in self.datasets if DATASETS[name].get("leaks")]
        return label + (f", {' and '.join(leaking)} with leaking split" if leaking else "")

    @property
    def backbone_title(self) -> str:
        """The backbone as outputs name it, with its width and weights where they matter."""
        about, layer = BACKBONES[self.model.backbone], self.model.feature_layer
        start = {"none": "from scratch", "imagenet": "from ImageNet weights"}
        weights = start.get(self.model.weights, f"from {Path(self.model.weights).name}")
        end = f" up to {layer}" if layer != about["maps"][0] else ""
        return f"{about['title'].format(width=self.model.width)}{end}, {weights}"
