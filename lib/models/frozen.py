"""Training behind a frozen stem: its features are computed once for all views of every image, and kept on disk."""

import hashlib
import os
from pathlib import Path

import keras
import numpy as np
from tqdm.auto import tqdm

from lib import StudyError

VIEWS = {1: [0], 2: [0, 4], 8: range(8)}  # an image; it and its mirror image; the flips and rotations of a square


def split(model: keras.Model, layer: str) -> tuple[keras.Model, keras.Model]:
    """The part of a classifier up to a layer of its backbone, and the rest; both share the model's weights.

    Raises StudyError for a layer that is not there, or that the rest cannot do with alone.
    """
    try:
        between = model.get_layer(layer).output
        return keras.Model(model.input, between), keras.Model(between, model.output, name=model.name)
    except ValueError as error:
        raise StudyError(
            f"model.frozen_up_to names {layer!r}, behind which {model.name} cannot be cut ({error}); name a layer that "
            "all of what follows is made from, such as block_5_add of MobileNetV2."
        ) from error


def view(images: np.ndarray, number: int) -> np.ndarray:
    """One of the eight flips and rotations of square images (n, size, size, ...): 0 is the image itself, 4 mirrored."""
    turned = np.rot90(images, number % 4, axes=(1, 2))
    return turned if number < 4 else np.flip(turned, axis=2)


def features(stem: keras.Model, images, views: int, folder: Path, key: str, batch: int = 64) -> np.ndarray:
    """What a stem makes of `views` views of images, float16 (n, views, h, w, c), memory-mapped from `folder`.

    `images`: uint8 (n, size, size, 3), which `key` names. Kept by this key and the stem's weights, so that all networks
    behind one stem share them; the folder may be emptied at any time.
    """
    digest = hashlib.blake2b(f"{key} {views} {stem.layers[-1].name} {stem.input_shape}".encode(), digest_size=8)
    for weights in stem.get_weights():
        digest.update(np.ascontiguousarray(weights))
    path = folder / f"features-{digest.hexdigest()}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.npy")
        shape = (len(images), views, *stem.output_shape[1:])
        held = np.lib.format.open_memmap(new, mode="w+", dtype=np.float16, shape=shape)
        for first in tqdm(range(0, len(images), batch), desc="features of the frozen stem", leave=False):
            block = np.asarray(images[first : first + batch])
            for place, number in enumerate(VIEWS[views]):
                found = stem.predict_on_batch(view(block, number).astype("float32"))
                held[first : first + batch, place] = np.clip(found, -65504, 65504)
        held.flush()
        new.rename(path)
    return np.load(path, mmap_mode="r")
