"""From the bytes of an image file to pixels, and what the file is: size, mode, and what is wrong with it."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from lib import StudyError

TINY = 32  # pixels; no image of the data sets has a side this short
JPEG = b"\xff\xd8\xff"
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # Pillow's names of what holds more than 8 bits
DARK = 16  # of 255: what 12 bits of 16 come to
JPEG_MODES = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "L", "CMYK": "CMYK", "YCCK": "CMYK"}


class ImageError(StudyError):
    """An image file that cannot be used. `problem`: empty, unreadable, truncated, damaged, pointer, page or tiny."""

    def __init__(self, problem: str, message: str):
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True)
class Header:
    """What a file says of itself: size in pixels, Pillow's name of the stored mode, and format."""

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file to uint8 RGB of shape (H, W, 3).

    Gray and palette images become RGB, CMYK JPEGs are converted, 16-bit samples are divided by 256. An alpha
    channel is dropped, not composited (the RGBA x-rays of ChestX-ray14 are opaque), and EXIF orientation is
    ignored. Raises ImageError (a StudyError) if the file cannot be read or decoded in full.
    """
    return decode(read_bytes(path), path)


def read_bytes(path: str | Path) -> bytes:
    """The content of an image file. Raises ImageError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError("unreadable", f"{path} cannot be read ({error.strerror}): get it again.") from error


def read_header(data: bytes) -> Header:
    """What the bytes of an image file say of it, without decoding; an empty Header if they say nothing."""
    try:
        if data.startswith(JPEG):  # as Pillow would say it, in a hundredth of the time
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            return Header(width, height, JPEG_MODES[colours], "JPEG")
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            return Header(*image.size, image.mode, image.format)
    except Exception:  # Pillow's readers raise whatever a damaged header makes them stumble over
        return Header()


def decode(data: bytes, path: str | Path, mode: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """The pixels of an image file's bytes, in OpenCV's `mode` (RGB by default), in full.

    `path` names the file in errors. Raises ImageError if a part is missing or cannot be decoded. (A wrong bit
    within a JPEG's data gives other pixels and no error, with any decoder; a PNG carries checksums.)
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # an empty buffer, an absurd size in the header
        image = None
    if image is None:
        problem = _diagnosis(data)
        raise ImageError(problem, f"{path} ({len(data)} bytes) is {_WORDS[problem]}: get it again or delete it.")
    return image


def decode_towards(data: bytes, path: str | Path, size: int, header: Header) -> tuple[np.ndarray, bool]:
    """The pixels as RGB, uint8 (H, W, 3), for shrinking to size x size, and whether the data are flawed.

    A JPEG whose shorter side is at least twice `size` comes out smaller, though not smaller than `size` (than 1.5
    times `size`, from three times on): its decoder averages blocks of pixels at a fraction of the work of decoding
    them all, and the resize, which averages the rest, gives hardly another image. Flawed are JPEG data with a mistake
    that a decoder can work around, as most do without a word. Errors as in `decode`.
    """
    if header.format == "JPEG" and header.mode != "CMYK":
        side = min(header.width, header.height)
        least = 0 if side < 2 * size else size if side < 3 * size else size * 3 // 2
        try:
            return simplejpeg.decode_jpeg(data, min_height=least, min_width=least), False
        except ValueError:  # strict: also for what can be worked around
            return decode(data, path), True
    return decode(data, path), False


_WORDS = {
    "empty": "empty",
    "truncated": "cut off",
    "damaged": "damaged or not an image",
    "pointer": "a Git LFS pointer in the place of the image (git lfs pull fetches it)",
    "page": "a web page in the place of the image (the download failed)",
}


def _diagnosis(data: bytes) -> str:
    """Why bytes that OpenCV cannot decode cannot be decoded."""
    if not data:
        return "empty"
    if data.startswith(b"version https://git-lfs"):
        return "pointer"
    if re.match(
        rb"\s*(<\?xml|<!doctype html|<html|<head|<body)", data[:1024].removeprefix(b"\xef\xbb\xbf"), re.IGNORECASE
    ):
        return "page"
    try:
        with warnings.catch_warnings(action="ignore"):
            Image.open(io.BytesIO(data)).load()
    except UnidentifiedImageError:
        return "damaged"
    except Exception as error:  # as above
        return "truncated" if "truncated" in str(error) else "damaged"
    return "damaged"


_lock, _inside, _before = threading.Lock(), 0, True


@contextmanager
def plain_opencv() -> Iterator[None]:
    """OpenCV without the kernels that it picks by processor: what every x86-64 has is left, and gives one result.

    Its float filters differ in last bits between these kernels, whose fused multiply-adds round once where others
    round twice. The switch is the process's: it is set back when the last thread leaves.
    """
    global _inside, _before
    ipp = cv2.ipp.useIPP()  # of this thread alone, as the switch's effect on it is
    with _lock:
        if not _inside:
            _before = cv2.useOptimized()
            cv2.setUseOptimized(False)
        _inside += 1
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                cv2.setUseOptimized(_before)
        cv2.ipp.setUseIPP(ipp)
