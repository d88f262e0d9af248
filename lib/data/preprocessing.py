"""From the images of an index to the uint8 RGB arrays that the models take, computed once and kept in a cache.

Paper, section 3.2: resize to 224 x 224; chest x-rays first go through a contrast pipeline (Figure 1). The
ResNet mean subtraction is the models' first layer and not done here.

The pass that fills the cache looks at every image anyway, so it takes the records by which `lib.data.check`
judges the set: no image is decoded twice.
"""

import hashlib
import importlib.metadata
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lib import StudyError
from lib.artifacts import locked
from lib.artifacts.sources import code_key
from lib.data.decoding import TINY, Header, ImageError, decode, decode_towards, plain_opencv, read_bytes, read_header
from lib.data.medmnist import stored_images
from lib.data.registry import dataset_info

XrayContrast = Literal["before-resize", "after-resize", "none"]
XRAY_CONTRASTS: tuple[str, ...] = ("before-resize", "after-resize", "none")
WIDTH = 1024  # pixels: of the x-rays of ChestX-ray14, on which the paper's sigma is counted

_MADE_WITH = [f"{name} {importlib.metadata.version(name)}" for name in ("opencv-python-headless", "simplejpeg")]
_BLOCK = 256  # images whose bytes are held at once
_RECORD = np.dtype(
    [
        ("done", "?"),
        ("sha256", "S64"),
        ("content", "S32"),
        ("width", "i4"),
        ("height", "i4"),
        ("mode", "S8"),
        ("format", "S8"),
        ("flawed", "?"),
        ("problem", "S12"),
    ]
)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W) or (H, W, 3) to (size, size, ...), whatever the aspect ratio, same dtype.

    A side that shrinks is averaged (cv2.INTER_AREA, no aliasing), a side that grows is interpolated (cubic).
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    image = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if image.shape[:2] == (size, size):
        return image
    with plain_opencv():
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def xray_stages(
    image: np.ndarray, sigma: float = 20.0, gain: float = 4.0, offset: float = 128.0
) -> dict[str, np.ndarray]:
    """The contrast pipeline for chest x-rays, stage by stage (paper, section 3.2 and Figure 1).

    Takes a gray image (H, W), uint8 or uint16. Returns "input", "min-max" (x: stretched to [0, 255]), "blur"
    (Gaussian of `sigma` pixels in both directions, OpenCV's meaning of the paper's sigma_y = 0) and "result"
    (x' = gain * x - gain * blur + offset); all but the input are uint8, rounded and saturated at 0 and 255
    as OpenCV does for 8-bit images: the paper does not say, and its notation is OpenCV's. A constant image,
    which has no contrast, gives `offset` everywhere.

    `sigma` is counted on an image 1024 pixels wide, as the originals are: on a copy of another width the same part of
    the chest is blurred, 2 % of the width, and not another filter run.
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise StudyError(f"The x-ray pipeline takes a gray image of 8 or 16 bits, not {image.dtype} {image.shape}.")
    stretched = _stretched(image)
    blur = cv2.GaussianBlur(stretched, (0, 0), sigmaX=sigma * image.shape[1] / WIDTH, sigmaY=0)
    result = cv2.addWeighted(stretched, gain, blur, -gain, offset)
    return {"input": image, "min-max": stretched, "blur": blur, "result": result}


def _stretched(image: np.ndarray) -> np.ndarray:
    """Min to 0 and max to 255 in whole numbers, ties upwards: `cv2.normalize` rounds them by the processor's kernel."""
    low, span = int(image.min()), int(image.max()) - int(image.min())
    table = (510 * np.arange(span + 1) + span) // max(2 * span, 1)
    return table.astype(np.uint8)[image.astype(np.int32) - low]


def preprocess(
    path: str | Path, dataset: str, size: int, xray_contrast: XrayContrast = "before-resize", xray_sigma: float = 20.0
) -> np.ndarray:
    """Read one image of a data set as the models take it: uint8 RGB of shape (size, size, 3).

    For chest x-rays `xray_contrast` says where the contrast pipeline runs, which the paper does not:
    "before-resize" (default), on the original pixels; "after-resize", on the resized ones; "none", nowhere.
    `xray_sigma` is that of `xray_stages`. The default is the original resolution because the paper names the pipeline
    as the first step for x-rays, and because sigma = 20 is then 2 % of the width, near the 1.7 % (sigma 10 on a
    fundus 600 pixels wide) of B. Graham's formula with the same gain and offset (report on the Kaggle
    competition Diabetic Retinopathy Detection, 2015). It passes the scale of vessels and rib edges, and a
    thin pleural line is amplified before averaging dims it. Other data sets ignore both.

    Raises StudyError for an unknown data set or choice and for a file that cannot be decoded.
    """
    data = read_bytes(path)
    return _preprocess(data, path, size, _contrast(dataset, xray_contrast), xray_sigma, read_header(data))[0]


def _contrast(dataset: str, xray_contrast: str) -> str:
    if xray_contrast not in XRAY_CONTRASTS:
        raise StudyError(f"xray_contrast is {xray_contrast!r}: choose one of {', '.join(XRAY_CONTRASTS)}.")
    return xray_contrast if dataset_info(dataset).xray_contrast else "none"


def _preprocess(data, path, size: int, contrast: str, sigma: float, header: Header) -> tuple[np.ndarray, bool]:
    """The image, and whether its data are flawed."""
    if contrast == "none":
        image, flawed = decode_towards(data, path, size, header)
        return resize(image, size), flawed
    # Any depth: the 12 bits that some 16-bit x-rays use of 16 survive until min-max.
    gray = decode(data, path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    return _with_contrast(gray, size, contrast, sigma), False


def _with_contrast(gray: np.ndarray, size: int, contrast: str, sigma: float) -> np.ndarray:
    if contrast == "before-resize":
        gray = resize(xray_stages(gray, sigma)["result"], size)
    else:
        gray = xray_stages(resize(gray, size), sigma)["result"]
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def _preprocess_array(image: np.ndarray, size: int, contrast: str, sigma: float) -> np.ndarray:
    """The same for an image that is stored as an array, uint8 (h, w) or (h, w, 3)."""
    if contrast != "none":
        return _with_contrast(image if image.ndim == 2 else image[..., 0], size, contrast, sigma)
    image = resize(image, size)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def images_and_records(
    index: pd.DataFrame,
    dataset: str,
    size: int,
    cache_dir: str | Path,
    xray_contrast: XrayContrast = "before-resize",
    xray_sigma: float = 20.0,
) -> tuple[np.ndarray, pd.DataFrame]:
    """The preprocessed images of an index, and what the pass over them saw of each, both in its order.

    Images: uint8 (n, size, size, 3), memory-mapped read-only, black where there is a problem; never raises for a bad
    one. Records: image_id; sha256 of the file's bytes ("" if it cannot be read); content, a digest of the preprocessed
    pixels ("" if not decoded); width and height in pixels, mode (Pillow's name of what is stored) and format of the
    file (0 or "" if unknown); flawed, whether JPEG data have a mistake that the decoder worked around; problem, "" when
    fine, else empty, unreadable, truncated, damaged or tiny (a side under `lib.data.decoding.TINY` pixels).

    The first call decodes every image on all cores and keeps both under `cache_dir`; later calls map them. The cache is
    keyed by the preprocessing parameters and by path, size and modification time of every file, so a change of any
    makes a new one. A call that is killed goes on where it was; a second process waits for the first. Everything under
    `cache_dir` may be deleted at any time.
    """
    if index.empty:
        raise StudyError("There are no images to load: the index is empty.")
    contrast = _contrast(dataset, xray_contrast)
    filtered = f"{contrast}{xray_sigma:g}" if contrast != "none" else contrast
    folder = Path(cache_dir) / dataset / f"{size}px-{filtered}-{_key(index)}"
    with locked(folder):
        if not folder.exists():
            _build(index, size, contrast, xray_sigma, folder)
    records = np.load(folder / "records.npy")
    texts = {name: np.char.decode(records[name], "utf-8") for name in _RECORD.names if records[name].dtype.kind == "S"}
    table = pd.DataFrame({"image_id": index["image_id"].to_numpy()} | {
        name: texts.get(name, records[name]) for name in _RECORD.names[1:]
    })  # fmt: skip
    return map_images(folder), table


def map_images(folder: str | Path) -> np.ndarray:
    """The array of a cache folder, memory-mapped read-only."""
    return np.load(Path(folder) / "images.npy", mmap_mode="r")


def data_fingerprint(index: pd.DataFrame, records: pd.DataFrame) -> str:
    """16 hexadecimal digits that stand for the data of a run, for its provenance.

    SHA-256 over image_id, label, split (if there is one) and content of every image file: the same for the
    same bytes in any folder, row order or machine and with any preprocessing parameters. `records`: of the rows
    of the index, in its order.
    """
    rows = index[[column for column in ("image_id", "label", "split") if column in index]]
    rows = rows.assign(sha256=records["sha256"].to_numpy()).sort_values("image_id")
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()[:16]


def _key(index: pd.DataFrame) -> str:
    """What decides whether a cache may be used; from file attributes, as reading every file takes minutes."""
    key = hashlib.sha256("\t".join([*_MADE_WITH, code_key(_build)]).encode())
    files = {path: _attributes(path) for path in index["path"].unique()}
    for image_id, path in zip(index["image_id"], index["path"], strict=True):
        key.update(f"{image_id}\t{path}\t{files[path]}\n".encode())
    return key.hexdigest()[:16]


def _attributes(path: str) -> str:
    try:
        file = os.stat(path)
    except OSError:
        return "missing"
    return f"{os.path.abspath(path)}\t{file.st_size}\t{file.st_mtime_ns}"


def _build(index: pd.DataFrame, size: int, contrast: str, sigma: float, folder: Path) -> None:
    """Fill `<folder>.partial` and rename it when complete; an image is done once its record says so."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(exist_ok=True)
    shape = (len(index), size, size, 3)
    if not (partial / "records.npy").exists():
        free = shutil.disk_usage(partial).free
        if math.prod(shape) > free:  # a memory map that meets a full disk kills the process
            raise StudyError(
                f"The cache of {len(index)} images needs {math.prod(shape) / 1e9:.1f} GB in {folder.parent}, "
                f"{free / 1e9:.1f} GB are free: make room or choose another cache folder."
            )
        np.lib.format.open_memmap(partial / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        np.save(partial / "new.npy", np.zeros(len(index), _RECORD))
        os.replace(partial / "new.npy", partial / "records.npy")
    images, records = (np.load(partial / name, mmap_mode="r+") for name in ("images.npy", "records.npy"))
    todo = np.flatnonzero(~records["done"])

    def work(source: tuple[int, str | np.ndarray]) -> None:
        row, image = source
        examine = _examine_file if isinstance(image, str) else _examine_array
        image, record = examine(image, size, contrast, sigma)
        if image is not None:
            images[row] = image
        record = {"done": True} | record
        records[row] = tuple(record.get(name, _RECORD[name].type()) for name in _RECORD.names)

    paths = index["path"].to_numpy()
    sources = stored_images(index, todo) if "stored_at" in index else ((row, paths[row]) for row in todo)
    pool = ThreadPoolExecutor(os.cpu_count())
    with tqdm(total=len(todo), desc=f"images of {folder.parent.name}", leave=False) as bar:
        try:
            while block := list(islice(sources, _BLOCK)):
                list(pool.map(work, block))
                bar.update(len(block))
        finally:
            pool.shutdown(cancel_futures=True)
    partial.rename(folder)


def _examine_file(path: str, size: int, contrast: str, sigma: float) -> tuple[np.ndarray | None, dict]:
    """The preprocessed image of a file, or None, and its record."""
    record = {}
    try:
        data = read_bytes(path)
        header = read_header(data)
        record = {"sha256": hashlib.sha256(data).hexdigest()} | vars(header)
        image, flawed = _preprocess(data, path, size, contrast, sigma, header)
        if 0 < min(header.width, header.height) < TINY:
            raise ImageError("tiny", f"{path} has {header.width} x {header.height} pixels.")
    except ImageError as error:
        return None, record | {"problem": error.problem}
    return image, record | {"content": _digest(image)[:32], "flawed": flawed}


def _examine_array(image: np.ndarray, size: int, contrast: str, sigma: float) -> tuple[np.ndarray, dict]:
    """The same for an image that is stored as an array."""
    height, width = image.shape[:2]
    record = {"sha256": _digest(image), "width": width, "height": height, "format": "NPZ"}
    record["mode"] = "L" if image.ndim == 2 else "RGB"
    image = _preprocess_array(image, size, contrast, sigma)
    return image, record | {"content": _digest(image)[:32]}


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()
