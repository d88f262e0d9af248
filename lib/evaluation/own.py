"""Networks and images from files of one's own."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from lib import StudyError
from lib.data.decoding import read_image
from lib.data.labels import IMAGE_SUFFIXES

TRUST = "it runs code of its own (a Lambda layer). If you trust where it is from, load it yourself and pass the model"


def load_network(path) -> keras.Model:
    """The classifier in a `.keras` or `.h5` file, without running code that the file brings along.

    Raises StudyError for a file that is not there, is no whole model, or holds a Lambda layer: Keras' safe mode stays
    on, and the older HDF5 format, for which Keras ignored it (CVE-2025-9905), is looked through before it is read.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"There is no model file {path}.")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise StudyError(f"{path.name} is no model file: give one that ends in .keras or .h5.")
    config = _keras_config(path) if path.suffix == ".keras" else _hdf5_config(path)
    if _holds_lambda(config):
        raise StudyError(f"{path.name} is not loaded, as {TRUST}: keras.saving.load_model(path, safe_mode=False).")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # layers of somebody's own may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise StudyError(
            f"{path.name} cannot be loaded as a Keras model ({reason}); load it and pass the model."
        ) from error


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


def load_images(folder: Path, labels, shape, bounds, classes=None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images from files, resized to the model's `shape` and brought into `bounds`; labels, and names of the classes.

    `labels`: None for a folder with a folder for each class (in the order of their names, or of `classes`), else a CSV
    with columns image (path in the folder) and label (a class by name, or by number). Raises StudyError for a missing
    or unreadable file, named with its row.
    """
    if not folder.is_dir():
        raise StudyError(f"There is no folder {folder}.")
    paths, said = _in_class_folders(folder) if labels is None else _in_table(folder, Path(labels))
    names = [str(name) for name in classes] if classes is not None else sorted(set(said))
    if classes is None and all(name.isdigit() for name in names):
        names = [str(number) for number in range(max(map(int, names)) + 1)]
    unknown = sorted(set(said) - set(names))
    if unknown:
        raise StudyError(f"{unknown[0]!r} is none of the classes {', '.join(names)}.")
    height, width, channels = (size or 224 for size in shape)
    images = np.stack([_resized(read_image(path), height, width) for path in paths])
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


def _in_class_folders(folder):
    found = [
        (path, inner.name)
        for inner in sorted(folder.iterdir())
        if inner.is_dir() and not inner.name.startswith(".")
        for path in sorted(inner.rglob("*"))
        if path.name.lower().endswith(IMAGE_SUFFIXES)
    ]
    if not found:
        raise StudyError(
            f"{folder} has no folder of images for each class; or give a CSV with columns image and label."
        )
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
