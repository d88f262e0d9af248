"""Reading profiles, `profiles/<name>.yaml`, and holding them against the paper's."""

import difflib
import re
from functools import reduce
from operator import attrgetter
from pathlib import Path

import yaml
from pydantic import ValidationError

from lib import ROOT, StudyError
from lib.profile.evaluation import Section
from lib.profile.settings import Profile

DEPARTURES = {
    "data": ["label", "split.max_images"],
    "classes": ["classes"],
    "contrast of x-rays": ["preprocessing.xray_contrast", "preprocessing.xray_sigma"],
    "image size": ["preprocessing.image_size"],
    "backbone": ["model.backbone", "model.width"],
    "starting weights": ["model.weights"],
    "feature map": ["model.feature_layer"],
    "attention block": ["model.attention_maps", "model.gamma", "model.dropout"],
    "batch normalisation": ["model.batch_norm_momentum"],
    "optimiser settings": ["training.learning_rate", "training.adam_epsilon", "training.class_weights"],
    "course of the learning rate": ["training.schedule", "training.warmup_epochs"],
    "frozen stem": ["model.frozen_up_to"],
    "augmentation": ["training.views"],
    "adversarial training": ["training.adversarial"],
    "precision": ["training.precision", "training.kept_as"],
    "number of epochs": ["training.epochs", "training.patience", "training.min_delta"],
}
"""What counts as a departure from the paper's protocol, and the settings that make it."""


def departures(profile: Profile) -> list[str]:
    """In what a profile departs from the paper's protocol, as the profile `paper` holds it."""
    paper = load_profile("paper")
    found = [name for name, fields in DEPARTURES.items() if attrgetter(*fields)(profile) != attrgetter(*fields)(paper)]
    if profile.model.backbone != paper.model.backbone and "feature map" in found:
        found.remove("feature map")  # another backbone's map has another name
    shares = [[p.training.epoch_fraction.get(name, 1) for name in profile.datasets] for p in (profile, paper)]
    return found + ["share of the data per epoch"] * (shares[0] != shares[1])


def profile_path(name: str | Path) -> Path:
    """The file of a profile given by name (`quick`) or by path (`my/own.yaml`)."""
    return Path(name) if str(name).endswith((".yaml", ".yml")) else ROOT / "profiles" / f"{name}.yaml"


def load_profile(name: str | Path) -> Profile:
    """Read and check a profile; one that `extends` another has its values, but for those that it gives itself.

    Raises StudyError, in one sentence that names the file and the key, when the file is missing or
    is not YAML, or when a key is unknown, of the wrong type or impossible.
    """
    path = profile_path(name)
    if not path.is_file():
        known = sorted(p.stem for p in (ROOT / "profiles").glob("*.yaml"))
        raise StudyError(f"There is no profile {str(name)!r}; the profiles are: {', '.join(known)}.")
    values = reduce(_over, (values for _, values in reversed(_read(path))))
    try:
        profile = Profile(**values)
    except (ValidationError, TypeError) as error:
        raise StudyError(f"{path.name}: {_one_sentence(error)}") from None
    if profile.profile != path.stem:
        raise StudyError(f"{path.name}: profile is {profile.profile!r} but must be the file's name, {path.stem!r}.")
    return profile


def profile_files(name: str | Path) -> list[Path]:
    """The file of a profile, and those that it `extends`, down to the one that extends none."""
    return [path for path, _ in _read(profile_path(name))]


def _read(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """A file's values, and those of the profiles that it extends; raises StudyError if one is no YAML mapping."""
    if not path.is_file() or path in above:
        raise StudyError(f"{above[-1].name}: extends names {path.stem!r}, which is no other profile.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise StudyError(f"{path.name} must be a list of keys and values, such as `profile: {path.stem}`.")
    base = values.pop("extends", None)
    return [(path, values), *(_read(profile_path(str(base)), (*above, path)) if base is not None else [])]


def _over(base, values):
    """`base` with what `values` has in its place, section by section."""
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    return base | {key: _over(base.get(key), value) for key, value in values.items()}


class _Loader(yaml.SafeLoader):
    """Reads 1e-7 as a number too, which YAML 1.1 would have written 1.0e-7."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _one_sentence(error: Exception) -> str:
    """What pydantic found wrong first, named by its key."""
    if not isinstance(error, ValidationError):
        return f"keys must be text ({error})."
    # A mistyped key also leaves a required one missing: name the mistyped one.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) if str(part).isprintable() else repr(part) for part in first["loc"]) or "profile"
    if first["type"] == "extra_forbidden":
        *parents, unknown = first["loc"]
        known = _known_keys(parents)
        near = difflib.get_close_matches(str(unknown), known, n=1)
        said = f"did you mean {near[0]}?" if near else f"the keys there are {', '.join(known)}."
        return f"{key} is not a known key; {said}"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"{key}: {message[0].lower()}{message[1:]}{got}."


def _known_keys(parents) -> list[str]:
    section = Profile
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        if section is None:
            return []
    return list(section.model_fields)


def check(name: str, dataset: str = "", data: str | Path = "") -> Profile:
    """The profile, if it is valid and has this data set (or none is named), its weights file and data; else StudyError.

    `data`: the folder of the original data, looked into if it is given and the profile needs it.
    """
    profile = load_profile(name)
    if dataset and dataset not in profile.datasets:
        raise StudyError(
            f"Profile {profile.profile} has no data set {dataset!r}; it has {', '.join(profile.datasets)}."
        )
    _ = profile.model.weights_file  # raises where it is missing
    if data and profile.source == "original":
        missing = [d for d in ([dataset] if dataset else profile.datasets) if not (ROOT / data / d).is_dir()]
        if missing:
            raise StudyError(
                f"Profile {profile.profile} needs {', '.join(missing)} under {(ROOT / data).resolve()}, and there is "
                f"no such folder: run ./reproduce data {' '.join(missing)}, or say with --data where they are."
            )
    return profile
