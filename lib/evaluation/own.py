"""Networks and images from files of one's own."""

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from lib import StudyError
from lib.data.decoding import DARK, DEEP, decode, read_bytes, read_header
from lib.data.labels import IMAGE_SUFFIXES
from lib.data.readers import list_files

TRUST = "it runs code of its own (a Lambda layer). If you trust where it is from, load it yourself and pass the model"


def load_network(path) -> keras.Model:
    """The classifier in a `.keras` or `.h5` file, without running code that the file brings along.

    Raises StudyError for a file that is not there, is no whole model, or holds a Lambda layer: Keras' safe mode stays
    on, and the older HDF5 format, for which Keras ignored it (CVE-2025-9905), is looked through before it is read.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        raise StudyError(
            f"{path.name} is a TensorFlow SavedModel, which Keras 3 does not read as a model: save it as one file, "
            "model.save('model.keras'), where it was made."
        )
    if not path.is_file():
        raise StudyError(f"There is no model file {path}.")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise StudyError(f"{path.name} is no model file: give one that ends in .keras or .h5.")
    config = _keras_config(path) if path.suffix == ".keras" else _hdf5_config(path)
    if _holds_lambda(config):
        raise StudyError(f"{path.name} is not loaded, as {TRUST}: keras.saving.load_model(path, safe_mode=False).")
    try:
        with _for_keras_3(path, config) as readable:
            return keras.saving.load_model(readable, compile=False, safe_mode=True)
    except Exception as error:  # layers of somebody's own may fail in any way
        reason = " ".join(str(error).split())
        reason = f"... {reason[-250:]}" if len(reason) > 250 else reason  # Keras says the configuration first
        raise StudyError(
            f"{path.name} cannot be loaded as a Keras model ({reason}); load it and pass the model."
        ) from error


@contextmanager
def _for_keras_3(path, config):
    """The file or, where Keras 2 wrote into it what Keras 3 has no more, a copy without that.

    A depthwise convolution of `groups: 1` (keras issue 19151) says what every such layer is.
    """
    plain, found = _without_groups(config)
    if path.suffix == ".keras" or not found:
        yield path
        return
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(plain)
        yield copy


def _without_groups(config):
    """A configuration without `groups: 1` of depthwise convolutions, and whether there was any."""
    if isinstance(config, list):
        parts = [_without_groups(part) for part in config]
        return [part for part, _ in parts], any(found for _, found in parts)
    if not isinstance(config, dict):
        return config, False
    parts = {key: _without_groups(value) for key, value in config.items()}
    plain, found = {key: part for key, (part, _) in parts.items()}, any(found for _, found in parts.values())
    if plain.get("class_name") == "DepthwiseConv2D" and plain.get("config", {}).get("groups") == 1:
        del plain["config"]["groups"]
        found = True
    return plain, found


def _keras_config(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise StudyError(f"{path.name} is no Keras model file, or not a whole one ({error}).") from error


def _hdf5_config(path):
    import h5py

    try:
        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
    except OSError as error:
        raise StudyError(f"{path.name} is no HDF5 file, or not a whole one ({error}).") from error
    if config is None:
        raise StudyError(f"{path.name} holds weights and no model: build the model, load them into it, and pass it.")
    return json.loads(config)


def _holds_lambda(config) -> bool:
    """Whether a model's configuration names a Lambda layer or serialised code anywhere."""
    if isinstance(config, dict):
        code = config.get("class_name") in ("Lambda", "__lambda__") or config.get("function_type") == "lambda"
        return code or any(map(_holds_lambda, config.values()))
    return isinstance(config, list) and any(map(_holds_lambda, config))


def load_images(
    folder: Path, labels, shape, bounds, classes=None, notes: dict[str, str] | None = None, read=None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images from files, resized to the model's `shape` and brought into `bounds`; labels, and names of the classes.

    `labels`: None for a folder with a folder for each class (in the order of their names, or of `classes`), else a CSV
    with columns image (path in the folder) and label (a class by name, or by number). In `notes` it leaves a sentence
    on files that are "not read" and on images that are "dark", where there are any. `read`: as in `benchmark`. Raises
    StudyError for a missing or unreadable file, named with its row.
    """
    if not folder.is_dir():
        raise StudyError(f"There is no folder {folder}.")
    notes = {} if notes is None else notes
    paths, said = _in_class_folders(folder, notes) if labels is None else _in_table(folder, Path(labels))
    names = [str(name) for name in classes] if classes is not None else sorted(set(said))
    if classes is None and all(name.isdigit() for name in names):
        names = [str(number) for number in range(max(map(int, names)) + 1)]
    unknown = sorted(set(said) - set(names))
    if unknown:
        raise StudyError(f"{unknown[0]!r} is none of the classes {', '.join(names)}.")
    height, width, channels = (size or 224 for size in shape)
    images, dark = [], []
    for path in paths:
        data = read_bytes(path)
        image = decode(data, path)
        images.append(read(path) if read else _resized(image, height, width))
        dark += [path.name] if image.max() <= DARK and read_header(data).mode in DEEP else []
    images = np.stack(images)
    if dark:
        notes["dark"] = (
            f"{len(dark)} of the {len(images)} images use 12 or fewer of their 16 bits and are read almost black (the "
            f"first is {dark[0]}): scale them to their whole range."
        )
    if channels == 1:
        images = images @ np.array([0.299, 0.587, 0.114])[:, None]
    low, high = bounds
    return images.astype("float32") * ((high - low) / 255) + low, np.array([names.index(name) for name in said]), names


def _resized(image, height, width):
    import cv2

    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _is_image(path):
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def _in_class_folders(folder, notes):
    files = [Path(path).relative_to(folder) for path in list_files(folder)]
    inside = [path for path in files if len(path.parts) > 1]
    found = [(folder / path, path.parts[0]) for path in inside if _is_image(path)]
    if not found:
        raise StudyError(
            f"{folder} has no folder of images for each class; or give a CSV with columns image and label."
        )
    others = Counter(path.suffix.lower() or path.name for path in inside if not _is_image(path))
    if others:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items()))
        notes["not read"] = f"{others.total()} other files in these folders were not read ({kinds})."
    return zip(*found, strict=True)


def _in_table(folder, path):
    if not path.is_file():
        raise StudyError(f"There is no file of labels {path}.")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, sep=None, engine="python")
    except (ValueError, pd.errors.ParserError) as error:
        raise StudyError(f"{path.name} cannot be read as a table ({' '.join(str(error).split())}).") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    missing = [name for name in ("image", "label") if name not in table]
    if missing:
        raise StudyError(f"{path.name} has no column {missing[0]!r}, only {', '.join(table.columns)}.")
    paths = []
    for row, name in enumerate(table["image"].str.strip(), start=2):
        if not name or not (folder / name).is_file():
            raise StudyError(f"{path.name}, row {row}: there is no image {name!r} in {folder}.")
        paths.append(folder / name)
    if not paths:
        raise StudyError(f"{path.name} has no rows.")
    return paths, table["label"].str.strip().tolist()
