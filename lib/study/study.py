"""Where the stages meet: one object that a notebook asks for data, models and outcomes.

Each answer is an artifact on disk. What is there and still belongs to this profile, data and code is read; what is not
is made, with the stages before it, so that every notebook runs alone and a run that was killed goes on where it was.
"""

import copy
import hashlib
import json
import shutil
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib import ROOT, StudyError, artifacts
from lib.artifacts.sources import code_key
from lib.attacks import Classifier, make_attack
from lib.data import DATASETS, subset
from lib.data.phantoms import write_phantoms
from lib.data.prepared import PACKED, Prepared, Rows, prepare, read_packed
from lib.data.preprocessing import images_and_records
from lib.evaluation import robust_accuracy
from lib.evaluation.claims import inactive_attention
from lib.models import build_classifier, frozen, parameter_counts, pretrained
from lib.models.adversarial import AdversarialTrainer
from lib.models.training import STEPS, best_epoch, rounded, set_determinism, train
from lib.profile import load_profile
from lib.study import explanations
from lib.study.names import Named


class Study(Named):
    """One data set and one seed of a profile, which is a name (`quick`) or a path.

    `data`: the folder of the original data (not used for phantoms). Raises StudyError for an unknown profile or set.
    """

    def __init__(self, profile="quick", dataset="ham10000", seed=0, data="data/raw"):
        self.profile = load_profile(profile)
        if dataset not in DATASETS:
            raise StudyError(f"There is no data set {dataset!r}; there are {', '.join(DATASETS)}.")
        self.dataset, self.seed = dataset, int(seed)
        self.info = DATASETS[dataset].merged(self.profile.classes)
        self.variants = self.profile.variants_of(self.seed)
        self.whole_variants = self.profile.whole_variants_of(self.seed)
        phantom = self.profile.phantom
        self.raw = (
            ROOT / "data" / "phantom" / f"{phantom.images}x{phantom.size}px-seed{phantom.seed}"
            if phantom
            else ROOT / data
        )
        self.originals = ROOT / data  # of every data set, where they are
        self.runs = ROOT / "data" / "runs" / self.profile.profile / dataset
        self.figures = ROOT / "figures" / self.profile.profile
        self._loaded = {}  # models and classifiers in memory, with their compiled gradients
        self._compiled = {}  # the network of each variant that was trained last, with its compiled steps
        self._spare = {}  # classifiers of another seed that are no longer wanted there
        set_determinism(self.seed, self.profile.threads)

    def inactive(self) -> dict:
        """This data set, if the attention branch of this training run is off, see `claims.inactive_attention`."""
        return inactive_attention(self.histories().query("kept")) if self.profile.gated else {}

    def provenance(self) -> dict:
        """Profile, data set, seed, data fingerprint and the file of starting weights, for whatever is written."""
        return {
            "profile": self.profile.profile,
            "dataset": self.dataset,
            "data": self.profile.label,
            "seed": self.seed,
            "data_fingerprint": self.fingerprint,
            "excluded_images": self.index.attrs["excluded"],
        } | self.starting_weights

    # Data

    @cached_property
    def prepared(self) -> Prepared:
        """The images, split, with the data set's own classes."""
        if (ROOT / PACKED / self.dataset).is_dir():
            return read_packed(ROOT / PACKED / self.dataset)
        if self.profile.phantom:
            phantom = self.profile.phantom
            write_phantoms(self.dataset, self.raw, phantom.images, phantom.size, phantom.seed)
        settings = self.profile.split, self.profile.preprocessing
        return prepare(self.dataset, self.raw, *settings, ROOT / "data" / "cache")

    @cached_property
    def _data(self) -> Prepared:
        return self.prepared.merged(self.profile.classes)

    @property
    def index(self) -> pd.DataFrame:
        """One row per usable image: image_id, path, label, class_name, group, split; nothing in two splits."""
        return self._data.index

    @property
    def images(self) -> Rows:
        """All images in the index's order, uint8 (n, size, size, 3), read from disk when asked for."""
        return self._data.images

    @property
    def fingerprint(self) -> str:
        """Names the content of the data: ids, labels, splits and bytes of every image."""
        return self._data.fingerprint

    def split(self, name: str) -> tuple[Rows, np.ndarray]:
        """Images, uint8 (n, size, size, 3), and labels, int64 (n,), of train, validation or test."""
        rows = np.flatnonzero(self.index["split"] == name)
        return Rows(self.images, rows), self.index["label"].to_numpy()[rows]

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """The test images that are attacked: all, or some of each class, the same for every variant and seed."""
        test = self.index[self.index["split"] == "test"]
        evaluation, seed = self.profile.evaluation, self.profile.split.seed
        if evaluation.balanced:
            each = evaluation.images // len(self.info.classes)
            kept = pd.concat([subset(rows, each, seed) for _, rows in test.groupby("label")])
            return test[test.index.isin(kept.index)]
        return subset(test, evaluation.images, seed) if evaluation.images else test

    def pixels(self, rows: pd.DataFrame) -> np.ndarray:
        """The images of these rows of the index, float32 in [0, 255], as models take them."""
        return self.images[rows.index.to_numpy()].astype("float32")

    # Models

    @cached_property
    def starting_weights(self) -> dict[str, str]:
        """The file that training starts from and its SHA-256; {} without one."""
        path = pretrained.starting_file(self.profile.model)
        if path is None:
            return {}
        with open(path, "rb") as file:
            return {"starting_weights": f"{path.name}, SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"}

    @cached_property
    def _data_key(self) -> str:
        return artifacts.key_of(self.fingerprint, self.profile.preprocessing.model_dump(), code_key(images_and_records))

    def model_key(self, variant: str) -> str:
        """Names all that a trained model depends on."""
        tuned = variant == "adversarial"
        settings = self.profile.tuning if tuned else self.profile.training
        return artifacts.key_of(
            self._data_key,
            self.profile.model.model_dump(),
            settings.model_dump(),
            [variant, self.seed, self.profile.threads],
            code_key(_fit, *([AdversarialTrainer] if settings.adversarial else [])),
            *self.starting_weights.values(),
            *([self.model_key("baseline")] if tuned else []),
        )

    def directory(self, variant: str) -> Path:
        """Where the artifacts of one variant and seed lie."""
        return self.runs / f"seed{self.seed}" / variant

    def trained(self, variant: str) -> tuple[keras.Model, pd.DataFrame]:
        """The trained model and its history; trains, or goes on training, when there is none."""
        if variant in self._loaded:
            return self._loaded[variant]
        directory, key = self.directory(variant), self.model_key(variant)

        def make(temporary):
            work = directory / f"training-{key}"
            model, history = _fit(self, variant, self.split("train"), self.split("validation"), work)
            with artifacts.replacing(directory / "history.csv") as path:
                history.to_csv(path, index=False)
            with artifacts.replacing(directory / "gamma.csv") as path:
                # Not moved: after a kill before the model is kept, training goes on from `work`.
                shutil.copyfile(work / "gamma.csv", path)
            with artifacts.replacing(directory / "parameters.json") as path:
                path.write_text(json.dumps(parameter_counts(model)))
            model.save(temporary)

        model = artifacts.cached(
            directory / "model.keras",
            key,
            make,
            keras.saving.load_model,
            **self.provenance(),
            variant=variant,
            backbone=self.profile.backbone_title,
        )
        for leftover in directory.glob("training-*"):  # checkpoints are of no use once the model is there
            for file in leftover.iterdir():
                file.unlink()
            leftover.rmdir()
        self._loaded[variant] = model, pd.read_csv(directory / "history.csv")
        return self._loaded[variant]

    def history(self, variant: str) -> pd.DataFrame:
        """The training history of a variant; trains where there is none. The weights themselves need not be here."""
        directory = self.directory(variant)
        if artifacts.read_provenance(directory / "model.keras").get("key") != self.model_key(variant):
            self.trained(variant)
        return pd.read_csv(directory / "history.csv")

    def classifier(self, variant: str, through: str = "logits") -> Classifier:
        """The trained model as attacks see it, through its logits or its softmax output."""
        key = variant, through
        if key not in self._loaded:
            model, spare = self.trained(variant)[0], self._spare.pop(key, None)
            if spare is not None:
                spare.take(model)
            self._loaded[key] = spare or Classifier(model, through=through)
        return self._loaded[key]

    def histories(self) -> pd.DataFrame:
        """The training histories of all variants, with columns dataset, variant, seed, and kept: the epoch it is."""
        settings = self.profile.training
        mode = "max" if settings.monitor == "val_accuracy" else "min"

        def read(variant):
            history = self.history(variant)
            last = best_epoch(history[settings.monitor], settings.min_delta, mode)
            kept = last if settings.restore_best else len(history) - 1
            return history.assign(kept=np.arange(len(history)) == kept)

        return self.gather(read)

    def gamma(self) -> pd.DataFrame:
        """Gamma of `attention` after every training step, of all its seeds: dataset, variant, seed, epoch, step,
        gamma."""
        tables = [pd.DataFrame(columns=["dataset", "variant", "seed", *STEPS])]
        for seed in self.profile.seeds_of("attention"):
            other = self.with_seed(seed)
            other.history("attention")
            steps = pd.read_csv(other.directory("attention") / "gamma.csv")
            tables.append(other.gather(lambda _, steps=steps: steps, ["attention"]))
        return pd.concat(tables[len(tables) > 1 :], ignore_index=True)

    def with_seed(self, seed: int) -> "Study":
        """This study with another seed; the data are the same."""
        variants, whole = self.profile.variants_of(seed), self.profile.whole_variants_of(seed)
        return self if seed == self.seed else self._with(seed=seed, variants=variants, whole_variants=whole)

    def followed_by(self, seed: int) -> "Study":
        """The same, where this study is done with: its classifiers, and all that was compiled for them, pass over."""
        other = self.with_seed(seed)
        other._spare = {key: kept for key, kept in self._loaded.items() if isinstance(kept, Classifier)}
        self._loaded.clear()
        return other

    def _with(self, **changes):
        other = copy.copy(self)  # with the data that are in memory
        other.__dict__ |= changes | {"_loaded": {}}
        return other

    def parameters(self) -> pd.DataFrame:
        """Parameter counts of all variants."""

        def read(variant):
            self.history(variant)
            return pd.DataFrame([json.loads((self.directory(variant) / "parameters.json").read_text())])

        return self.gather(read)

    def predictions(self) -> pd.DataFrame:
        """Per test image: image_id, label, predicted, correct and the probability of every class (p0, p1, ...)."""
        return self.gather(self.predictions_of)

    def predictions_of(self, variant: str) -> pd.DataFrame:
        """The predictions of one variant, without the columns that name it."""
        test = self.index[self.index["split"] == "test"]

        def make():
            model, _ = self.trained(variant)
            batches = [test.iloc[first : first + 64] for first in range(0, len(test), 64)]
            probabilities = np.concatenate([model.predict_on_batch(self.pixels(batch)) for batch in batches])
            table = test[["image_id", "label"]].assign(predicted=probabilities.argmax(1))
            table["correct"] = table["predicted"] == table["label"]
            for k in range(probabilities.shape[1]):
                table[f"p{k}"] = probabilities[:, k]
            return table

        return self.kept("predictions.csv", variant, [], make)

    def kept(self, name: str, variant: str, inputs, make):
        """What `make()` gives for a variant, from `<name>` beside its model if that is still valid.

        A data frame for .csv, arrays by name for .npz. Valid is what was made of this model, of the same `inputs`
        (JSON-able values) and by the same code: all that stands behind `make`.
        """
        key = artifacts.key_of(self.model_key(variant), inputs, code_key(make))
        table = name.endswith(".csv")

        def write(temporary):
            if table:
                make().to_csv(temporary, index=False)
                return
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **make())

        read = artifacts.read_table if table else artifacts.read_arrays
        facts = self.provenance() | {"variant": variant}
        return artifacts.cached(self.directory(variant) / name, key, write, read, **facts)

    # Attacks

    @staticmethod
    def attack(specification):
        """The attack that an entry of the profile describes."""
        return make_attack(specification.attack, norm=specification.norm, **specification.parameters)

    def robust_accuracy(self, classifier, rows: pd.DataFrame, entry, **options) -> pd.DataFrame:
        """Outcomes of a classifier on these rows of the index, under an entry of the profile's attacks; `options` go to
        `lib.evaluation.robust_accuracy`, whose table this is."""
        evaluation = self.profile.evaluation
        given = {"attack": self.attack(entry), "epsilons": entry.epsilons or evaluation.epsilons} | options
        return robust_accuracy(
            classifier,
            self.pixels(rows),
            rows["label"].to_numpy(),
            image_ids=rows["image_id"],
            batch_size=evaluation.batch_size,
            seed=self.seed,
            **given,
        )

    def headline(self):
        """The profile's entry for the attack that the claims are judged on."""
        return self.profile.evaluation.named(self.profile.evaluation.headline)

    def examined(self):
        """The profile's entry for the gradient attack that the trust section and Grad-CAM look at."""
        return self.profile.evaluation.named(self.profile.evaluation.gradcam_attack)

    # Explanations

    def chosen(self) -> pd.DataFrame:
        """The test images that Grad-CAM explains, see `lib.study.explanations`."""
        return explanations.chosen(self)

    def explanations(self, variant: str) -> dict[str, np.ndarray]:
        """Grad-CAM and attention maps of the chosen images, clean and attacked, see `lib.study.explanations`."""
        return explanations.explanations(self, variant)

    def branch(self) -> pd.DataFrame:
        """How much the attention branch has a part in the logits, see `lib.study.explanations.branch_of`."""
        return self.gather(lambda variant: explanations.branch_of(self, variant))

    def spread(self) -> pd.DataFrame:
        """How far the attention maps spread, see `lib.study.explanations.spread_of`."""
        return self.gather(lambda variant: explanations.spread_of(self, variant))

    def shifts(self) -> pd.DataFrame:
        """How far each map moves under attack: one row per image, variant and kind of map."""
        return self.gather(lambda variant: explanations.shifts_of(self, variant), self.whole_variants)

    def gather(self, read, variants=None) -> pd.DataFrame:
        """The tables that `read(variant)` gives, of all variants or these, with dataset, variant, seed in front."""
        tables = []
        for variant in self.variants if variants is None else variants:
            table = read(variant).copy()
            for column, value in (("seed", self.seed), ("variant", variant), ("dataset", self.dataset)):
                table.insert(0, column, value)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)


def _fit(study, variant, training, validation, work):
    """A network of the study, trained: the model and its history. `work` holds checkpoints, and gamma by step."""
    profile, tuned = study.profile, variant == "adversarial"
    settings, stem = (profile.tuning, "") if tuned else (profile.training, profile.model.frozen_up_to)

    def build(precision):
        sizes = len(study.info.classes), profile.preprocessing.image_size
        return build_classifier(profile.model, variant, *sizes, study.seed, precision)

    whole = rest = build(settings.precision)
    if not tuned and not stem and not settings.adversarial and len(profile.seeds_of(variant)) > 1:
        # Another seed's has the same steps, which take longer to compile than a small network to train.
        key = variant, settings.model_dump_json()
        rest = study._compiled[key] = study._compiled.get(key) or build(settings.precision)
        rest.set_weights(whole.get_weights())
    if tuned:
        whole.set_weights(study.trained("baseline")[0].get_weights())
    if stem:
        front, rest = frozen.split(whole, stem)
        cache, key = ROOT / "data" / "cache" / study.dataset, study.fingerprint
        training = frozen.features(front, training[0], settings.views, cache, f"{key} training"), training[1]
        validation = frozen.features(front, validation[0], 1, cache, f"{key} validation"), validation[1]
    bar = tqdm(total=settings.epochs, desc=f"{study.dataset} {variant}", unit="epoch")
    with bar as progress:
        model, history = train(
            rest,
            training,
            validation,
            settings,
            work,
            fraction=settings.epoch_fraction.get(study.dataset, 1.0),
            seed=study.seed,
            progress=progress,
        )
    for layer in model.layers:  # training that went on has read the model anew, and knows of no stem
        if layer.weights:
            whole.get_layer(layer.name).set_weights(rounded(layer.get_weights(), settings.kept_as))
    model = whole
    if settings.precision != "float32":
        # What is kept and attacked computes in float32: gray levels from 128 on are whole numbers in bfloat16, so that
        # a smaller budget would be rounded away.
        trained, model = model, build("float32")
        model.set_weights(trained.get_weights())
    return model, history
