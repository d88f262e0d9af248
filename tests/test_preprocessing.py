"""Decoding against Pillow, the x-ray pipeline against NumPy and SciPy, the cache under changes and kills."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.transform import downscale_local_mean

import lib.data.preprocessing
from lib import ROOT, StudyError
from lib.data import read_index
from lib.data.decoding import decode, decode_towards, read_header, read_image
from lib.data.preprocessing import (
    data_fingerprint,
    images_and_records,
    preprocess,
    resize,
    xray_stages,
)

REAL = Path(os.environ.get("STUDY_REAL_DATA", ROOT.parent / "shared" / "data"))


def load_images(*arguments) -> np.ndarray:
    return images_and_records(*arguments)[0]


def image_records(*arguments) -> pd.DataFrame:
    return images_and_records(*arguments)[1]


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random smooth RGB image that JPEG keeps almost as it is."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    blurred = gaussian_filter(noise, (6, 6, 0))
    return np.uint8(np.clip(128 + 60 * blurred / blurred.std(), 0, 255))


def write(path: Path, image: Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


RGB = Image.fromarray(smooth(40, 60))
RGBA = RGB.copy()
RGBA.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))))


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("a.jpg", RGB, {"quality": 95}, RGB),
        ("progressive.JPG", RGB, {"quality": 95, "progressive": True, "format": "JPEG"}, RGB),
        ("gray.jpeg", RGB.convert("L"), {"quality": 95}, RGB.convert("L")),
        ("cmyk.jpg", RGB.convert("CMYK"), {"quality": 95}, RGB),
        ("a.PNG", RGB, {"format": "PNG"}, RGB),
        ("gray.png", RGB.convert("L"), {}, RGB.convert("L")),
        ("alpha.png", RGBA, {}, RGB),
        ("gray_alpha.png", RGBA.convert("LA"), {}, RGB.convert("L")),
        ("one_bit.png", RGB.convert("1"), {}, RGB.convert("1")),
        ("palette.png", RGB.quantize(30), {}, RGB.quantize(30)),
        ("palette_alpha.png", RGB.quantize(30), {"transparency": 3}, RGB.quantize(30)),
    ],
)
def test_read_image_takes_every_mode(
    tmp_path: Path, name: str, image: Image.Image, options: dict, expected: Image.Image
) -> None:
    read = read_image(write(tmp_path / name, image, **options))
    assert read.dtype == np.uint8
    assert read.shape == (40, 60, 3)
    difference = np.abs(read.astype(int) - np.asarray(expected.convert("RGB")))
    assert difference.mean() < (2.5 if name.lower().endswith(("jpg", "jpeg")) else 1e-9)


def test_read_image_scales_16_bits_and_ignores_orientation(tmp_path: Path) -> None:
    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    read = read_image(write(tmp_path / "deep.png", Image.fromarray(deep)))
    np.testing.assert_allclose(read, np.repeat((deep / 257)[..., None], 3, axis=2), atol=1)
    exif = RGB.getexif()
    exif[0x0112] = 6  # turned by a quarter
    assert read_image(write(tmp_path / "turned.jpg", RGB, exif=exif)).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.95])
def test_a_truncated_image_is_refused_and_named(tmp_path: Path, kind: str, keep: float) -> None:
    path = write(tmp_path / f"cut.{kind}", Image.fromarray(smooth(200, 200)))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(StudyError, match=rf"cut.{kind}.*(empty|cut off|damaged)") as error:
        read_image(path)
    assert error.value.problem == (
        "empty" if keep == 0 else "damaged" if keep == 1 or (keep, kind) == (100, "jpg") else "truncated"
    )


def test_a_png_with_a_wrong_byte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.png", RGB)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(StudyError, match=r"wrong\.png"):
        read_image(path)
    with pytest.raises(StudyError, match=r"nowhere\.png cannot be read"):
        read_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("shape", [(448, 448), (450, 600), (900, 700), (1000, 3000), (1800, 2400), (447, 900)])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_large_jpeg_is_decoded_smaller_with_the_same_result(tmp_path: Path, shape: tuple, quality: int) -> None:
    """Within 2 gray levels on average of the full decode and area resampling: texture, sensor noise, an edge."""
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.normal(size=(*shape, 3)), (4, 4, 0))
    image = 128 + 40 * texture / texture.std() + rng.normal(size=texture.shape, scale=8)
    image = np.uint8(np.clip(image, 0, 255))
    image[shape[0] // 2 :, shape[1] // 3 :] //= 4
    path = write(tmp_path / "large.jpg", Image.fromarray(image), quality=quality)
    data = path.read_bytes()
    less, flawed = decode_towards(data, path, 224, read_header(data))
    assert not flawed
    assert min(less.shape[:2]) >= 224
    assert (less.size < image.size / 3) == (min(shape) >= 448)
    full = resize(decode(data, path), 224).astype(int)
    assert np.abs(resize(less, 224) - full).mean() < 2
    half = data[: len(data) // 2]
    with pytest.raises(StudyError, match="cut off"):
        decode_towards(half, path, 224, read_header(half))


def test_a_jpeg_with_a_mistake_is_decoded_and_said_to_be_flawed(tmp_path: Path) -> None:
    """Wrong bits in the scan: most give other pixels and nothing else, some a code that does not exist."""
    data = write(tmp_path / "whole.jpg", Image.fromarray(smooth(100, 100)), quality=90).read_bytes()
    rng = np.random.default_rng(0)
    flawed = 0
    for _ in range(100):
        wrong = bytearray(data)
        wrong[rng.integers(len(data) // 2, len(data) - 2)] ^= 1 << rng.integers(8)
        image, is_flawed = decode_towards(bytes(wrong), "wrong.jpg", 32, read_header(bytes(wrong)))
        assert image.shape[2] == 3
        flawed += is_flawed
    assert 0 < flawed < 100
    assert not decode_towards(data, "whole.jpg", 32, read_header(data))[1]


def test_resize_averages_when_shrinking_and_interpolates_when_growing() -> None:
    image = smooth(96, 96)
    blocks = downscale_local_mean(image.astype(float), (4, 4, 1))
    np.testing.assert_allclose(resize(image, 24), blocks, atol=0.51)
    checkers = np.uint8(255 * (np.indices((64, 64)).sum(axis=0) % 2))
    np.testing.assert_allclose(resize(checkers, 16), 127.5, atol=0.51)  # no aliasing

    ramp = np.tile(np.arange(20, 220, 10, dtype=np.uint8), (20, 1))
    x = (np.arange(80) + 0.5) / 4 - 0.5  # pixel centres
    np.testing.assert_allclose(resize(ramp, 80)[:, 8:-8], np.tile(20 + 10 * x, (80, 1))[:, 8:-8], atol=1)
    stripes = np.uint8(255 * (np.indices((8, 64))[1] % 2))  # shrinks one way, grows the other
    np.testing.assert_allclose(resize(stripes, 16), 127.5, atol=0.51)
    np.testing.assert_array_equal(resize(image, 96), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("sigma", "gain", "offset"), [(160.0, 4.0, 128.0), (24.0, 2.0, 100.0)])
def test_xray_pipeline_against_numpy_and_scipy(dtype: type, sigma: float, gain: float, offset: float) -> None:
    top = np.iinfo(dtype).max
    x = (smooth(90, 130)[..., 0] / 255 * 0.6 * top + 0.1 * top).astype(dtype)
    stages = xray_stages(x, sigma, gain, offset)
    assert list(stages) == ["input", "min-max", "blur", "result"]
    np.testing.assert_array_equal(stages["input"], x)
    stretched = np.rint(255 * (x - float(x.min())) / (float(x.max()) - x.min()))
    assert stretched.min() == 0
    assert stretched.max() == 255
    np.testing.assert_allclose(stages["min-max"], stretched, atol=1)
    assert (stages["min-max"] == stretched).mean() > 0.99
    # OpenCV cuts the kernel at 3 sigma for 8 bits and mirrors at the border without repeating the last pixel.
    blur = gaussian_filter(stretched, sigma * 130 / 1024, mode="mirror", truncate=3.0)
    np.testing.assert_allclose(stages["blur"], blur, atol=1.5)
    assert np.abs(stages["blur"] - blur).mean() < 0.5
    result = np.clip(gain * stages["min-max"] - gain * stages["blur"].astype(float) + offset, 0, 255)
    np.testing.assert_array_equal(stages["result"], result)
    assert {0, 255} <= set(stages["result"].ravel()) or sigma == 24.0
    assert all(stages[name].dtype == np.uint8 for name in ("min-max", "blur", "result"))


def test_xray_pipeline_blurs_the_same_part_of_a_chest_at_any_size() -> None:
    large = resize(smooth(128, 128)[..., 0], 1024)
    stages = xray_stages(large)
    np.testing.assert_array_equal(stages["blur"], cv2.GaussianBlur(stages["min-max"], (0, 0), 20))
    small = xray_stages(resize(large, 256))["result"]
    assert np.abs(resize(stages["result"], 256).astype(float) - small).mean() < 3 < small.std() / 5


def test_xray_pipeline_of_a_constant_image_and_of_colour() -> None:
    assert (xray_stages(np.full((30, 30), 77, np.uint8))["result"] == 128).all()
    with pytest.raises(StudyError, match="gray image"):
        xray_stages(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(StudyError, match="float"):
        xray_stages(np.zeros((4, 4)))


def test_preprocess_runs_the_pipeline_where_it_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", Image.fromarray(smooth(128, 160)[..., 0]).convert("RGBA"))
    gray = smooth(128, 160)[..., 0]
    expected = {
        "before-resize": resize(xray_stages(gray)["result"], 32),
        "after-resize": xray_stages(resize(gray, 32))["result"],
        "none": resize(gray, 32),
    }
    for choice, image in expected.items():
        got = preprocess(path, "chestxray14", 32, choice)
        np.testing.assert_array_equal(got, np.repeat(image[..., None], 3, axis=2))
        np.testing.assert_array_equal(preprocess(path, "eyepacs", 32, choice)[..., 1], expected["none"])
    assert not (expected["before-resize"] == expected["after-resize"]).all()
    np.testing.assert_array_equal(preprocess(path, "chestxray14", 32)[..., 0], expected["before-resize"])
    with pytest.raises(StudyError, match="before-resize, after-resize, none"):
        preprocess(path, "chestxray14", 32, "before")
    with pytest.raises(StudyError, match="no data set 'xray'"):
        preprocess(path, "xray", 32)


def test_preprocess_keeps_the_contrast_of_12_bits_in_16(tmp_path: Path) -> None:
    gray = smooth(64, 64)[..., 0]
    deep = write(tmp_path / "deep.png", Image.fromarray(gray.astype(np.uint16) * 16))
    flat = write(tmp_path / "flat.png", Image.fromarray(gray))
    np.testing.assert_array_equal(preprocess(deep, "chestxray14", 32), preprocess(flat, "chestxray14", 32))


def make_index(folder: Path, n: int = 6) -> pd.DataFrame:
    """Images that differ in nothing but their names and pixels: not in length, not in time."""
    images = [Image.fromarray(smooth(32, 40, seed=i)) for i in range(n)]
    paths = [write(folder / f"i{i}.png", image, compress_level=0) for i, image in enumerate(images)]
    for path in paths:
        os.utime(path, (1e9, 1e9))
    assert len({path.stat().st_size for path in paths}) == 1
    ids = [path.stem for path in paths]
    return pd.DataFrame({"image_id": ids, "path": [str(path) for path in paths], "label": [0, 1] * (n // 2)})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list:
    """The paths of all images decoded during a test."""
    paths, examine = [], lib.data.preprocessing._examine_file

    def record(path: str, *arguments) -> tuple:
        paths.append(path)
        return examine(path, *arguments)

    monkeypatch.setattr(lib.data.preprocessing, "_examine_file", record)
    return paths


def test_load_images_in_index_order_and_from_the_cache(tmp_path: Path, decoded: list) -> None:
    index = make_index(tmp_path / "raw").iloc[[3, 0, 5]]
    images = load_images(index, "ham10000", 16, tmp_path / "cache")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert images.dtype == np.uint8
    for image, path in zip(images, index["path"], strict=True):
        np.testing.assert_array_equal(image, resize(np.asarray(Image.open(path)), 16))
    assert len(decoded) == 3
    again = load_images(index, "ham10000", 16, tmp_path / "cache", "after-resize")  # no matter here
    np.testing.assert_array_equal(again, images)
    assert len(decoded) == 3
    assert [path.name for path in (tmp_path / "cache/ham10000").glob("*.partial")] == []


def test_a_changed_file_parameter_or_order_never_gives_a_stale_image(tmp_path: Path, decoded: list) -> None:
    index, cache = make_index(tmp_path / "raw"), tmp_path / "cache"
    first = np.array(load_images(index, "chestxray14", 16, cache))
    assert load_images(index, "chestxray14", 8, cache).shape == (6, 8, 8, 3)
    assert not (load_images(index, "chestxray14", 16, cache, "none") == first).all()
    np.testing.assert_array_equal(load_images(index.iloc[::-1], "chestxray14", 16, cache), first[::-1])
    before = fingerprint(index, cache)
    one, two = (Path(path) for path in index["path"][:2])
    one.write_bytes(two.read_bytes())
    np.testing.assert_array_equal(load_images(index, "chestxray14", 16, cache), first[[1, 1, 2, 3, 4, 5]])
    assert fingerprint(index, cache) != before


def fingerprint(index: pd.DataFrame, cache: Path, size: int = 16) -> str:
    return data_fingerprint(index, image_records(index, "chestxray14", size, cache))


def test_fingerprint_stands_for_content_labels_and_splits_and_nothing_else(tmp_path: Path) -> None:
    index, cache = make_index(tmp_path / "raw"), tmp_path / "cache"
    first = fingerprint(index, cache)
    assert len(first) == 16
    shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    elsewhere = index.assign(path=index["path"].str.replace("raw", "elsewhere"))
    for other in (elsewhere, index.iloc[::-1], elsewhere.assign(note="any")):
        assert fingerprint(other, tmp_path / "cache2", 8) == first
    changed = [index.assign(label=1), index.assign(split="train"), index.iloc[:5]]
    changed.append(index.assign(path=index["path"].to_numpy()[::-1]))
    assert len({fingerprint(other, cache) for other in changed} | {first}) == 5


def test_damaged_images_are_black_and_recorded(tmp_path: Path, decoded: list) -> None:
    index, cache = make_index(tmp_path / "raw"), tmp_path / "cache"
    Path(index["path"][1]).write_bytes(b"")
    Path(index["path"][4]).write_bytes(b"no image")
    Path(index["path"][2]).unlink()
    images = load_images(index, "ham10000", 16, cache)
    assert [image.any() for image in images] == [True, False, False, True, False, True]
    records = image_records(index, "ham10000", 16, cache)
    assert len(decoded) == 6
    assert records["problem"].tolist() == ["", "empty", "unreadable", "", "damaged", ""]
    good = index.drop([1, 2, 4])
    assert load_images(good, "ham10000", 16, cache).shape == (3, 16, 16, 3)
    with pytest.raises(StudyError, match="index is empty"):
        load_images(good.iloc[:0], "ham10000", 16, cache)


def test_records_say_what_the_files_are(tmp_path: Path) -> None:
    big = RGB.resize((64, 48))
    files = {
        "rgb.jpg": (big, {}, "RGB", "JPEG"),
        "twin.png": (big, {}, "RGB", "PNG"),
        "twin2.png": (big, {"compress_level": 0}, "RGB", "PNG"),
        "alpha.png": (RGBA.resize((64, 48)), {}, "RGBA", "PNG"),
        "deep.png": (Image.fromarray(np.full((48, 64), 999, np.uint16)), {}, "I;16", "PNG"),
        "palette.png": (big.quantize(9), {}, "P", "PNG"),
        "cmyk.jpg": (big.convert("CMYK"), {}, "CMYK", "JPEG"),
        "gray.jpg": (big.convert("L"), {}, "L", "JPEG"),
    }
    paths = [write(tmp_path / "raw" / name, image, **options) for name, (image, options, *_) in files.items()]
    index = pd.DataFrame({"image_id": [path.stem for path in paths], "path": list(map(str, paths)), "label": 0})
    records = image_records(index, "ham10000", 32, tmp_path / "cache")
    assert records["image_id"].tolist() == index["image_id"].tolist()
    assert (records[["width", "height"]] == [64, 48]).all(axis=None)
    assert records[["mode", "format"]].to_numpy().tolist() == [list(file[2:]) for file in files.values()]
    assert (records["problem"] == "").all()
    assert records["sha256"].nunique() == len(files)
    assert records["content"][1] == records["content"][2]
    assert records["content"].nunique() == len(files) - 1


@pytest.mark.parametrize("row", range(9))
def test_images_that_differ_in_one_pixel_have_another_content(tmp_path: Path, row: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    other = image.copy()
    other[row, 3, 1] ^= 1
    pictures = {"a": image, "same": image, "other": other, "same as other": other}
    paths = [write(tmp_path / "raw" / f"{name}.png", Image.fromarray(pixels)) for name, pixels in pictures.items()]
    index = pd.DataFrame({"image_id": list(pictures), "path": list(map(str, paths)), "label": 0})
    content = image_records(index, "ham10000", 32, tmp_path / "cache")["content"].tolist()
    assert content[0] == content[1] != content[2] == content[3]


KILLED = """
import os, sys
os.cpu_count = lambda: 2
import pandas as pd
import lib.data.preprocessing as preprocessing
preprocessing._BLOCK = 4
examine, count = preprocessing._examine_file, 0
def examine_some(*arguments):
    global count
    count += 1
    if count > 12:
        os.kill(os.getpid(), 9)
    return examine(*arguments)
preprocessing._examine_file = examine_some
preprocessing.images_and_records(pd.read_csv(sys.argv[1]), "ham10000", 16, sys.argv[2])
"""


def test_a_killed_call_goes_on_where_it_was(tmp_path: Path, decoded: list) -> None:
    index, cache = make_index(tmp_path / "raw", n=20), tmp_path / "cache"
    index.to_csv(tmp_path / "index.csv")
    command = [sys.executable, "-c", KILLED, tmp_path / "index.csv", cache]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -9
    images = load_images(index, "ham10000", 16, cache)
    assert 8 <= len(decoded) <= 10
    np.testing.assert_array_equal(images, load_images(index, "ham10000", 16, tmp_path / "undisturbed"))


def test_two_calls_at_once_share_the_work(tmp_path: Path, decoded: list) -> None:
    index = make_index(tmp_path / "raw")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(load_images, index, "ham10000", 16, tmp_path / "cache") for _ in range(4)]
    assert all((call.result() == calls[0].result()).all() for call in calls)
    assert len(decoded) == 6


def test_a_cache_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=6 * 16 * 16 * 3 - 1)
    monkeypatch.setattr(lib.data.preprocessing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StudyError, match="make room"):
        load_images(make_index(tmp_path / "raw"), "ham10000", 16, tmp_path / "cache")


@pytest.mark.skipif(not (REAL / "chestxray14").is_dir(), reason="no real ChestX-ray14 here")
def test_real_xrays_are_what_pillow_reads(tmp_path: Path) -> None:
    index = read_index("chestxray14", REAL)
    few = index[index["path"].map(lambda path: Image.open(path).size == (224, 224))][:10]
    images = load_images(few, "chestxray14", 224, tmp_path, "none")
    for image, path in zip(images, few["path"], strict=True):
        np.testing.assert_array_equal(image, Image.open(path).convert("RGB"))


def test_small_x_rays_are_the_same_from_threads(tmp_path):
    """Enlarging switches OpenCV's kernels off, for the process and for one thread: no other image may notice."""
    rng, paths = np.random.default_rng(0), []
    for number in range(60):
        smooth = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)), (0, 0), 3)
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], np.clip(4 * (smooth - 127) + 127, 3, 3 + 85).astype(np.uint8))
    alone = [preprocess(path, "chestxray14", 160) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: preprocess(path, "chestxray14", 160), paths * 4))
    assert all(np.array_equal(one, other) for one, other in zip(alone * 4, together, strict=True))
