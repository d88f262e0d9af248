"""The results of one trained network as one file, to carry from machine to machine and to publish.

A zip of what lies beside the model: predictions, outcomes of every attack, history, gamma by step, each with its
provenance, and, if wanted, the trained weights. With it, what is told of the network is made without training it again.

    python -m lib.study.results data/raw FILE ...

puts such files where the study looks for them: `./reproduce merge`.
"""

import fnmatch
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from lib import ROOT, StudyError, artifacts
from lib.evaluation import planned
from lib.evaluation.attacked import directions_of, outcomes_of, run_variant
from lib.evaluation.convergence import convergence_of
from lib.models import build_classifier
from lib.models.pretrained import starting_file
from lib.profile import Profile
from lib.study.explanations import branch_of, spread_of
from lib.study.study import Study

ABOUT, WEIGHTS, MODEL = "network.json", "weights.npz", "model.keras"
PUBLISHED = ROOT / "data" / "networks"  # those that this repository publishes, by profile
LAST = "branch.csv"  # what a network's job makes at its end
# Networks of other profiles that the dose of one has beside its own, and their names there.
BESIDE = {"ham10000": {"ham10000-strong": ("uniform", "uniform-strong"), "ham10000-scaled": ("scaled", "scaled")}}


def make(study: Study, variant: str) -> None:
    """All of a network's job: training, attacks, and what is measured on its attention; what is there stays."""
    run_variant(study, variant)
    convergence_of(study, variant)
    spread_of(study, variant)
    branch_of(study, variant)


def pack(study: Study, variant: str, path: Path, weights: bool = False) -> None:
    """Write the results of a trained network to `path`, a zip; `weights`: with what training changed of them.

    The same bytes on every machine that holds these results, whichever it was that made them.
    Raises StudyError for a network that is not trained, or not yet attacked.
    """
    directory = study.directory(variant)
    record = artifacts.read_provenance(directory / MODEL)
    if record.get("key") != study.model_key(variant) or not (directory / LAST).is_file():
        where = study.profile.profile
        raise StudyError(f"There is no finished {variant} of seed {study.seed} in {where}: run the study first.")
    about = {"profile": study.profile.profile, "dataset": study.dataset, "seed": study.seed, "variant": variant}
    about["settings"] = _settings(study.profile)
    record.pop("taken_to", None)
    as_made = {directory / (MODEL + artifacts.PROVENANCE): (json.dumps(record, indent=1) + "\n").encode()}
    kept = [file for pattern in ("*.csv", "*.json") for file in sorted(directory.rglob(pattern))]
    kept = [file for file in kept if not file.name.startswith(".") and not file.name.startswith("explanations")]
    with artifacts.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, True, 9) as file:
        _add(file, ABOUT, json.dumps(about, indent=1) + "\n")
        for source in kept:
            _add(file, source.relative_to(directory).as_posix(), as_made.get(source) or source.read_bytes())
        if weights:
            held = io.BytesIO()
            np.savez(held, **_learnt(study, variant))
            _add(file, WEIGHTS, held.getvalue())


def _add(file: zipfile.ZipFile, name: str, content) -> None:
    """The same bytes whenever it is written: a zip's own times are the first that it can hold."""
    file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def _settings(profile) -> dict:
    """All that a profile sets and a result may rest on: what stands as the default is left out, for later ones."""
    told = profile.model_dump(exclude_defaults=True, mode="json")
    attacked = ("images", "epsilons", "attacks", "batch_size")
    evaluation = {name: told["evaluation"].get(name) for name in attacked}
    parts = ("split", "classes", "preprocessing", "model", "training", "tuning")
    return {name: told.get(name) for name in parts} | {"evaluation": evaluation}


def _untrained(study: Study, variant: str) -> keras.Model:
    starting_file(study.profile.model)  # before each of several processes has Keras fetch its own
    sizes = len(study.info.classes), study.profile.preprocessing.image_size
    return build_classifier(study.profile.model, variant, *sizes, study.seed)


def _learnt(study: Study, variant: str) -> dict[str, np.ndarray]:
    """The weights that training changed, as `layer/number`, in float16 where that holds them as they are.

    A layer goes by its place among those that have weights, as Keras makes up names from what it built before.
    """
    found = {}
    pairs = zip(_weighted(study.trained(variant)[0]), _weighted(_untrained(study, variant)), strict=True)
    for place, (layer, first) in enumerate(pairs):
        for number, (weight, before) in enumerate(zip(layer.get_weights(), first.get_weights(), strict=True)):
            if not np.array_equal(weight, before):
                short = weight.astype("float16")
                found[f"{place}/{number}"] = short if np.array_equal(short, weight) else weight
    return found


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


@dataclass(frozen=True)
class Packed:
    """The results of a network as a file holds them: whose they are, the model's record, and the files by name."""

    path: Path
    study: Study
    variant: str
    record: dict
    settings: dict
    files: dict[str, bytes]

    def table(self, name: str) -> pd.DataFrame:
        """One of its tables, such as `attacks/pgd-linf.csv`."""
        return artifacts.read_table(io.BytesIO(self.files[name]))

    def model(self) -> keras.Model | None:
        """The trained network, from the weights that the file holds and those it started from; None without weights."""
        if WEIGHTS not in self.files:
            return None
        model = _untrained(self.study, self.variant)
        layers = _weighted(model)
        with np.load(io.BytesIO(self.files[WEIGHTS])) as weights:
            for name, weight in weights.items():
                place, number = name.rsplit("/", 1)
                layers[int(place)].weights[int(number)].assign(weight.astype("float32"))
        return model

    def same_data(self) -> bool:
        """Whether it was made of the very images, and the starting weights, that are here."""
        here = {"data_fingerprint": self.study.fingerprint} | self.study.starting_weights
        return all(self.record.get(name) == here.get(name) for name in ("data_fingerprint", "starting_weights"))

    def same_settings(self) -> bool:
        """Whether it was made with all the settings that this study has."""
        return self.settings == _settings(self.study.profile)


def opened(path: Path, data="data/raw") -> Packed:
    """Read the results of a network; raises StudyError for a file that is none of these."""
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read(ABOUT))
            record = json.loads(file.read(MODEL + artifacts.PROVENANCE))
            files = {name: file.read(name) for name in file.namelist() if name != ABOUT}
        study = Study(about["profile"], about["dataset"], about["seed"], data)
        return Packed(path, study, about["variant"], record, about["settings"], files)
    except (OSError, zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise StudyError(f"{path} does not hold the results of a network ({error}); pack them again.") from None


def unpack(path: Path, data="data/raw", verified: bool = False) -> tuple[Study, str]:
    """Put the results of a network where the study looks for them; returns the study and the variant.

    `verified`: also if other code made them, of which somebody made sure (`lib.study.verify`) that this code gives the
    same; their records then name both. Raises StudyError, in one sentence, for a file that is none of these, or one of
    other settings, data or, unless `verified`, code.
    """
    packed = opened(path, data)
    study, variant, key = packed.study, packed.variant, packed.study.model_key(packed.variant)
    if packed.record.get("key") != key:
        code = "" if verified else f"by other code (commit {packed.record['commit'][:7]}, see ./reproduce verify)"
        settings = "" if packed.same_settings() else "with other settings"
        if why := (settings or code) if packed.same_data() else "of other data or starting weights":
            raise StudyError(f"{path.name} was made {why}: it is no part of this run of {study.profile.profile}.")
    directory = study.directory(variant)
    for name, held in packed.files.items():
        if name != WEIGHTS:
            target = directory / name
            if not target.resolve().is_relative_to(directory.resolve()):
                raise StudyError(f"{path.name} names a file outside its folder, {name!r}; do not use it.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(held)
    if model := packed.model():
        with artifacts.replacing(directory / MODEL) as temporary:
            model.save(temporary)
    here, record = artifacts.environment(), dict(packed.record)
    if record["machine"] != here["machine"]:
        record["taken_to"] = here["machine"]
    if record["key"] != key:
        record |= {"key": key, "taken_over": here}
    if record != packed.record:
        artifacts.write_text(directory / (MODEL + artifacts.PROVENANCE), json.dumps(record, indent=1) + "\n")
    try:
        with artifacts.as_it_lies(take=verified):
            study.predictions_of(variant)
            outcomes_of(study, variant)
            if variant in study.whole_variants:
                directions_of(study, variant)
            spread_of(study, variant)
            branch_of(study, variant)
    except StudyError as error:
        raise StudyError(f"{path.name} holds results by other code (see ./reproduce verify): {error}") from error
    return study, variant


def checked_again(study: Study) -> Iterator[pd.DataFrame]:
    """The checks of convergence of runs that `<profile>-again` trained once more, from their published results."""
    files = sorted(PUBLISHED.glob(f"{study.profile.profile}-again/{study.dataset}-*.zip"))
    return _tables(map(opened, files), "convergence*.csv")


def beside(profile: Profile, robust: pd.DataFrame) -> pd.DataFrame:
    """Published runs of other profiles beside this one's dose, against its own baselines of their seeds.

    `robust`: of this profile's runs, as from `lib.evaluation.planned.over_budgets`. Columns as of `planned.dose`; of a
    network without a branch, part is NaN. Empty for profiles that have none beside them.
    """
    baseline = robust[robust["variant"] == "baseline"].set_index("seed")["robust_accuracy"]
    found = [pd.DataFrame(columns=[*planned.RUN, "n", "part", "answers", "difference"])]
    for other, (variant, name) in BESIDE.get(profile.profile, {}).items():
        if networks := list(map(opened, sorted((PUBLISHED / other).glob(f"*-{variant}.zip")))):
            outcomes, branch = (pd.concat(_tables(networks, kind)) for kind in ("attacks/*.csv", LAST))
            runs = planned.over_budgets(planned.worst_case(outcomes), profile.planned_budgets).set_index(planned.RUN)
            table = runs[["robust_accuracy"]].join(planned.part(branch).set_index(planned.RUN)).reset_index()
            table["difference"] = 100 * (table.pop("robust_accuracy") - table["seed"].map(baseline))
            found.append(table.assign(variant=name, n=table["n"].astype("Int64")))
    return pd.concat(found[len(found) > 1 :], ignore_index=True)


def _tables(networks: Iterable[Packed], name: str) -> Iterator[pd.DataFrame]:
    """The tables of this name (a pattern) in results of networks, with dataset, variant and seed."""
    for packed in networks:
        run = {"dataset": packed.study.dataset, "variant": packed.variant, "seed": packed.study.seed}
        yield from (packed.table(file).assign(**run) for file in fnmatch.filter(packed.files, name))


def joined(files: list[str]) -> list[str]:
    """The files, those that came in pieces (.001, .002, ...) put together."""
    whole = {}
    for path in map(Path, files):
        whole.setdefault(path.with_suffix("") if path.suffix[1:].isdigit() else path, []).append(path)
    for path, pieces in whole.items():
        if pieces != [path]:
            path.write_bytes(b"".join(piece.read_bytes() for piece in sorted(pieces)))
    return [str(path) for path in whole]


if __name__ == "__main__":
    data, *files = sys.argv[1:]
    try:
        if not files:
            raise StudyError("name the files that hold the results.")
        for name in joined(files):
            study, variant = unpack(Path(name), data)
            print(f"{name}: {variant} of {study.label}, seed {study.seed}, is in its place.", flush=True)
    except StudyError as error:
        sys.exit(f"merge: {error}")
