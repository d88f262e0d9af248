"""From an image file to the uint8 RGB array that the models take, computed once and kept in a cache.

Paper, section 3.2: resize to 224 x 224; chest x-rays first go through a contrast pipeline (Figure 1). The
ResNet mean subtraction is the models' first layer and not done here.
"""

import fcntl
import hashlib
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lib import StudyError
from lib.datasets.registry import dataset_info

XrayContrast = Literal["before-resize", "after-resize", "none"]
XRAY_CONTRASTS: tuple[str, ...] = ("before-resize", "after-resize", "none")

_VERSION = 1  # part of the cache key: raise it when the same file would give other pixels
_DIGEST = "S64"  # SHA-256 in hexadecimal digits


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file to uint8 RGB of shape (H, W, 3).

    Gray and palette images become RGB, CMYK JPEGs are converted, 16-bit samples are divided by 256. An alpha
    channel is dropped, not composited (the RGBA x-rays of ChestX-ray14 are opaque), and EXIF orientation is
    ignored. Raises StudyError if the file cannot be read or decoded in full.
    """
    return _decode(_read(path), path)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}): get it again.") from error


def _decode(data: bytes, path: str | Path, mode: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # an empty buffer, an absurd size in the header
        image = None
    if image is None:
        raise StudyError(f"{path} ({len(data)} bytes) is damaged or not an image: get it again or delete it.")
    return image


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W) or (H, W, 3) to (size, size, ...), whatever the aspect ratio, same dtype.

    A side that shrinks is averaged (cv2.INTER_AREA, no aliasing), a side that grows is interpolated (cubic).
    """
    height, width = image.shape[:2]
    image = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
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
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise StudyError(
            f"The x-ray pipeline takes a gray image of 8 or 16 bits, not {image.dtype} {image.shape}."
        )
    stretched = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, dtype=cv2.CV_8U)
    blur = cv2.GaussianBlur(stretched, (0, 0), sigmaX=sigma, sigmaY=0)
    result = cv2.addWeighted(stretched, gain, blur, -gain, offset)
    return {"input": image, "min-max": stretched, "blur": blur, "result": result}


def preprocess(
    path: str | Path, dataset: str, size: int, xray_contrast: XrayContrast = "before-resize"
) -> np.ndarray:
    """Read one image of a data set as the models take it: uint8 RGB of shape (size, size, 3).

    For chest x-rays `xray_contrast` says where the contrast pipeline runs, which the paper does not:
    "before-resize" (default), on the original pixels; "after-resize", on the resized ones; "none", nowhere.
    The default is the original resolution because the paper names the pipeline as the first step for x-rays,
    and because sigma = 20 is then 2 % of the width of a 1024-pixel x-ray, near the 1.7 % (sigma 10 on a
    fundus 600 pixels wide) of B. Graham's formula with the same gain and offset (report on the Kaggle
    competition Diabetic Retinopathy Detection, 2015). It passes the scale of vessels and rib edges, and a
    thin pleural line is amplified before averaging dims it. After a resize to 224 the same sigma is 9 % of
    the width and keeps more of the shading of whole organs. On sources of other sizes sigma stays 20 pixels.
    Other data sets ignore the parameter.

    Raises StudyError for an unknown data set or choice and for a file that cannot be decoded.
    """
    return _preprocess(_read(path), path, size, _contrast(dataset, xray_contrast))


def _contrast(dataset: str, xray_contrast: str) -> str:
    if xray_contrast not in XRAY_CONTRASTS:
        raise StudyError(f"xray_contrast is {xray_contrast!r}: choose one of {', '.join(XRAY_CONTRASTS)}.")
    return xray_contrast if dataset_info(dataset).xray_contrast else "none"


def _preprocess(data: bytes, path: str | Path, size: int, contrast: str) -> np.ndarray:
    if contrast == "none":
        return resize(_decode(data, path), size)
    # Any depth: the 12 bits that some 16-bit x-rays use of 16 survive until min-max.
    gray = _decode(data, path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if contrast == "before-resize":
        gray = resize(xray_stages(gray)["result"], size)
    else:
        gray = xray_stages(resize(gray, size))["result"]
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def load_images(
    index: pd.DataFrame,
    dataset: str,
    size: int,
    cache_dir: str | Path,
    xray_contrast: XrayContrast = "before-resize",
) -> np.ndarray:
    """The preprocessed images of an index, uint8 (n, size, size, 3) in its order, memory-mapped read-only.

    The first call decodes every image on all cores and keeps the array under `cache_dir`; later calls map it.
    The cache is keyed by the preprocessing parameters and by path, size and modification time of every file,
    so a change of any makes a new one. A call that is killed goes on where it was; a second process waits for
    the first. Everything under `cache_dir` may be deleted at any time.

    Raises StudyError that names all images that cannot be decoded, after having tried every one.
    """
    folder = _cached(index, size, Path(cache_dir) / dataset, _contrast(dataset, xray_contrast))
    return np.load(folder / "images.npy", mmap_mode="r")


def data_fingerprint(
    index: pd.DataFrame,
    dataset: str,
    size: int,
    cache_dir: str | Path,
    xray_contrast: XrayContrast = "before-resize",
) -> str:
    """16 hexadecimal digits that stand for the data of a run, for its provenance.

    SHA-256 over image_id, label, split (if there is one) and content of every image file: the same for the
    same bytes in any folder, row order or machine and with any preprocessing parameters. Those only say in
    which cache to look for the digests of the files, which `load_images` takes while it decodes.
    """
    folder = _cached(index, size, Path(cache_dir) / dataset, _contrast(dataset, xray_contrast))
    rows = index[[column for column in ("image_id", "label", "split") if column in index]]
    digests = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)["sha256"]
    rows = rows.assign(sha256=digests.to_numpy()).sort_values("image_id")
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()[:16]


def _cached(index: pd.DataFrame, size: int, root: Path, contrast: str) -> Path:
    """The folder with images.npy and index.csv (image_id, sha256) for these images; makes it if need be."""
    if index.empty:
        raise StudyError("There are no images to load: the index is empty.")
    folder = root / f"{size}px-{contrast}-{_key(index)}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with open(root / f"{folder.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system however the process ends
            if not folder.exists():
                _build(index, size, contrast, folder)
    return folder


def _key(index: pd.DataFrame) -> str:
    """What decides whether a cache may be used; from file attributes, as reading every file takes minutes."""
    key = hashlib.sha256(f"{_VERSION}\t{cv2.__version__}\n".encode())
    for image_id, path in zip(index["image_id"], index["path"], strict=True):
        try:
            file = os.stat(path)
        except OSError as error:
            raise StudyError(f"{path} is in the index but cannot be read ({error.strerror}).") from error
        key.update(f"{image_id}\t{os.path.abspath(path)}\t{file.st_size}\t{file.st_mtime_ns}\n".encode())
    return key.hexdigest()[:16]


def _build(index: pd.DataFrame, size: int, contrast: str, folder: Path) -> None:
    """Fill `<folder>.partial` and rename it when complete; an image is done once its digest is written."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(exist_ok=True)
    done = partial / "digests.npy"
    if not done.exists():
        shape = (len(index), size, size, 3)
        free = shutil.disk_usage(partial).free
        if math.prod(shape) > free:  # a memory map that meets a full disk kills the process
            raise StudyError(
                f"The cache of {len(index)} images needs {math.prod(shape) / 1e9:.1f} GB in {folder.parent}, "
                f"{free / 1e9:.1f} GB are free: make room or choose another cache folder."
            )
        np.lib.format.open_memmap(partial / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        np.save(partial / "new.npy", np.zeros(len(index), _DIGEST))
        os.replace(partial / "new.npy", done)
    images = np.load(partial / "images.npy", mmap_mode="r+")
    digests = np.load(done, mmap_mode="r+")

    def work(i: int) -> str:
        try:
            data = _read(paths[i])
            images[i] = _preprocess(data, paths[i], size, contrast)
        except StudyError as error:
            return str(error)
        digests[i] = hashlib.sha256(data).hexdigest().encode()
        return ""

    paths = index["path"].tolist()
    todo = np.flatnonzero(digests == b"").tolist()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        bar = tqdm(pool.map(work, todo), f"images of {folder.parent.name}", total=len(todo), leave=False)
        damaged = [error for error in bar if error]
    finally:
        pool.shutdown(cancel_futures=True)
    if damaged:
        shutil.rmtree(partial)  # a file that is mended has another key
        raise StudyError(f"{len(damaged)} of {len(index)} images are damaged:\n" + "\n".join(damaged))
    images.flush()
    rows = pd.DataFrame({"image_id": index["image_id"].to_numpy(), "sha256": digests.astype(str)})
    rows.to_csv(partial / "index.csv", index=False)
    partial.rename(folder)
    (folder / "digests.npy").unlink()
