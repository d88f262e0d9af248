"""Phantoms: same seed same bytes, the originals' layouts, and masks that hold what makes the label."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib import ROOT, StudyError
from lib.data.phantoms import draw_phantom, write_phantoms

N, SIZE, SEED = 40, 64, 5
IMAGES = {
    "ham10000": "HAM10000_images_part_*/*.jpg",
    "chestxray14": "images/*.png",
    "eyepacs": "train/*.jpeg",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    for dataset in IMAGES:
        assert write_phantoms(dataset, root, N, SIZE, SEED) == root / dataset
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def levels(image: np.ndarray) -> np.ndarray:
    return image.astype(int)


@pytest.mark.parametrize("dataset", IMAGES)
def test_same_arguments_give_the_same_bytes_and_another_seed_does_not(dataset, root, tmp_path):
    first, again = contents(root / dataset), contents(write_phantoms(dataset, tmp_path / "a", N, SIZE, SEED))
    assert first == again
    other = contents(write_phantoms(dataset, tmp_path / "b", N, SIZE, SEED + 1))
    pictures = [name for name in first if name.endswith(("jpg", "jpeg")) or name.startswith("images")]
    assert not [name for name in pictures if first[name] == other.get(name)]


@pytest.mark.parametrize("dataset", IMAGES)
def test_every_image_has_its_size_and_a_binary_mask(dataset, root):
    images = sorted((root / dataset).glob(IMAGES[dataset]))
    masks = sorted((root / dataset / "masks").iterdir())
    assert len(images) == N
    assert {path.stem for path in images} == {path.stem for path in masks}
    for path in images:
        assert cv2.imread(str(path)).shape == (SIZE, SIZE, 3)
    for path in masks:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (SIZE, SIZE)
        assert set(np.unique(mask)) <= {0, 255}
    stamp = (root / dataset / "PHANTOM.txt").read_text()
    assert "Phantom" in stamp
    assert f"seed {SEED}, n {N}, size {SIZE}" in stamp


def test_ham10000_layout_classes_and_lesions(root):
    folder = root / "ham10000"
    table = pd.read_csv(folder / "HAM10000_metadata.csv")
    assert list(table) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert table.lesion_id.str.fullmatch(r"HAM_\d{7}").all()
    assert table.image_id.str.fullmatch(r"ISIC_\d{7}").all()
    parts = [{path.stem for path in (folder / f"HAM10000_images_part_{part}").iterdir()} for part in (1, 2)]
    assert parts[0].isdisjoint(parts[1])
    assert parts[0] | parts[1] == set(table.image_id)
    share = table.dx.value_counts(normalize=True)
    assert sorted(share.index) == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert share.idxmax() == "nv"
    assert share.between(0.10, 0.23).all()
    lesions = table.groupby("lesion_id")
    assert set(lesions.size()) == {1, 2}
    assert len(table[["lesion_id", "dx", "age", "sex", "localization"]].drop_duplicates()) == len(lesions)


def test_a_lesion_photographed_twice_is_the_same_lesion(tmp_path):
    folder = write_phantoms("ham10000", tmp_path, 120, 48, 1)
    table = pd.read_csv(folder / "HAM10000_metadata.csv")
    files = {path.stem: path for path in folder.glob(IMAGES["ham10000"])}

    def color(image_id):
        """Chromaticity within the lesion, which changes little with view, scale and light."""
        mask = cv2.imread(str(folder / "masks" / f"{image_id}.png"), cv2.IMREAD_GRAYSCALE)
        mean = np.array(cv2.mean(cv2.imread(str(files[image_id])), mask)[:3])
        return mean / mean.sum()

    table["color"] = [color(image_id) for image_id in table.image_id]
    twice = table.groupby("lesion_id").filter(lambda rows: len(rows) == 2)
    assert len(twice) >= 30
    pairs = [np.linalg.norm(np.subtract(*rows.color)) for _, rows in twice.groupby("lesion_id")]
    strangers = [
        np.linalg.norm(a - b)
        for _, rows in table.groupby("dx")
        for a, b in zip(rows.color[:-1], rows.color[1:], strict=True)
    ]
    assert np.median(pairs) < 0.75 * np.median(strangers)


def test_chestxray14_layout_labels_and_patients(root):
    folder = root / "chestxray14"
    header = (folder / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0]
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    names = [f"{p:08d}_{visit:03d}.png" for p, visit in zip(table["Patient ID"], table["Follow-up #"], strict=True)]
    assert list(table["Image Index"]) == names
    assert set(names) == {path.name for path in (folder / "images").iterdir()}
    assert table["Patient ID"].value_counts().max() > 1

    findings = table["Finding Labels"].str.split("|")
    positive = findings.map(lambda some: "Pneumothorax" in some)
    assert positive.sum() == round(0.45 * N)
    assert findings[positive].map(len).max() > 1
    assert "No Finding" in set(table["Finding Labels"])
    filled = [cv2.imread(str(folder / "masks" / name), cv2.IMREAD_GRAYSCALE).any() for name in names]
    assert filled == list(positive)

    channels = [cv2.imread(str(folder / "images" / name), cv2.IMREAD_UNCHANGED).shape[2:] for name in names]
    assert set(channels) == {(), (4,)}
    assert channels.count((4,)) < N / 10


def test_boxes_enclose_the_pneumothorax_in_1024_pixel_coordinates(root):
    folder = root / "chestxray14"
    first, *rows = (folder / "BBox_List_2017.csv").read_text().splitlines()
    assert first == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    assert len(rows) >= 5
    for row in rows:
        name, finding, *box = row.split(",")
        assert finding == "Pneumothorax"
        left, top, width, height = (float(value) * SIZE / 1024 for value in box)
        ys, xs = np.nonzero(cv2.imread(str(folder / "masks" / name), cv2.IMREAD_GRAYSCALE))
        edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_allclose([left, top, left + width, top + height], edges, atol=0.01)


def test_eyepacs_layout_grades_and_eyes(root):
    folder = root / "eyepacs"
    table = pd.read_csv(folder / "trainLabels.csv")
    assert list(table) == ["image", "level"]
    assert set(table.image) == {path.stem for path in (folder / "train").iterdir()}
    assert set(table.level) == {0, 1, 2, 3, 4}
    assert 0.4 <= (table.level >= 2).mean() <= 0.5
    names = table.image.map(lambda name: re.fullmatch(r"(\d+)_(left|right)", name).groups())
    eyes = names.str[1].groupby(names.str[0]).agg(set)
    assert (eyes.map(len) == 2).all()
    for name, level in zip(table.image, table.level, strict=True):
        mask = cv2.imread(str(folder / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        assert mask.any() == (level > 0)


def test_the_optic_disc_is_left_in_left_eyes(root):
    def brighter_on_the_left(path):
        green = cv2.GaussianBlur(cv2.imread(str(path))[8:-8, :, 1], (0, 0), 3)
        return green[:, : SIZE // 2].max() > green[:, SIZE // 2 :].max()

    right = sum(brighter_on_the_left(p) == ("left" in p.stem) for p in (root / "eyepacs/train").iterdir())
    assert right > 0.75 * N  # exudates and stray light outshine some discs


PAIRS = [
    ("chestxray14", 0, 1),
    *(("eyepacs", 0, grade) for grade in (1, 2, 3, 4)),
    ("ham10000", 5, 4),
    ("ham10000", 3, 6),
]


@pytest.mark.parametrize(("dataset", "label", "other"), PAIRS)
def test_with_one_generator_two_labels_differ_inside_their_masks_only(dataset, label, other):
    for seed in range(6):
        image, mask = draw_phantom(dataset, label, 112, np.random.default_rng(seed))
        changed, mask2 = draw_phantom(dataset, other, 112, np.random.default_rng(seed))
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (112, 112, 3)
        difference = np.abs(levels(image) - levels(changed)).max(axis=2)
        inside = (mask | mask2) > 0
        near = cv2.dilate(inside.astype(np.uint8), np.ones((7, 7))) > 0
        assert difference[~near].max(initial=0) <= 30  # feathered edges
        assert difference[~near].mean() < 0.3
        assert np.median(difference[inside]) >= 8  # visible


@pytest.mark.parametrize("size", [112, 160])
def test_pneumothorax_is_darker_than_the_same_place_without_it(size):
    for seed in range(6):
        without, _ = draw_phantom("chestxray14", 0, size, np.random.default_rng(seed))
        air, mask = draw_phantom("chestxray14", 1, size, np.random.default_rng(seed))
        assert 0.005 < (mask > 0).mean() < 0.25
        assert np.median(levels(air)[mask > 0] - levels(without)[mask > 0]) < -5


def test_higher_grades_show_more_lesions():
    area = [
        np.mean([(draw_phantom("eyepacs", grade, 96, np.random.default_rng(seed))[1] > 0).mean() for seed in range(8)])
        for grade in range(5)
    ]
    assert area[0] == 0
    assert area[0] < area[1] < area[2] < min(area[3], area[4])


def test_ready_phantoms_are_left_alone_and_stale_ones_replaced(tmp_path):
    folder = write_phantoms("eyepacs", tmp_path, 4, 48, 0)
    keep = folder / "train" / "keep.txt"
    keep.touch()
    assert write_phantoms("eyepacs", tmp_path, 4, 48, 0) == folder
    assert keep.exists()
    write_phantoms("eyepacs", tmp_path, 6, 48, 0)
    assert not keep.exists()
    assert len(pd.read_csv(folder / "trainLabels.csv")) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["eyepacs"]


def test_other_data_is_never_overwritten(tmp_path):
    real = tmp_path / "ham10000" / "HAM10000_metadata.csv"
    real.parent.mkdir()
    write_phantoms("ham10000", tmp_path / "fresh", 1, 32, 0)
    real.write_text("real")
    with pytest.raises(StudyError, match="something else"):
        write_phantoms("ham10000", tmp_path, 8, 48, 0)
    assert contents(tmp_path / "ham10000") == {"HAM10000_metadata.csv": b"real"}


@pytest.mark.parametrize(
    "bad", [("mnist", 5, 64, 0), ("eyepacs", 0, 64, 0), ("eyepacs", 5, 8, 0), ("eyepacs", 5, 64, -1)]
)
def test_bad_arguments_get_a_sentence(bad, tmp_path):
    dataset, n, size, seed = bad
    with pytest.raises(StudyError):
        write_phantoms(dataset, tmp_path, n, size, seed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("dataset", "label"), [("mnist", 0), ("ham10000", 7), ("chestxray14", -1), ("eyepacs", 5)])
def test_unknown_labels_get_a_sentence(dataset, label):
    with pytest.raises(StudyError):
        draw_phantom(dataset, label, 64, np.random.default_rng(0))


PROCESSORS = {
    "as it is": {},
    "no AVX-512": {
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX512-COMMON,AVX512-ICL",
    },
    "neither AVX2 nor FMA": {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OPENCV_CPU_DISABLE": "AVX,FP16,AVX2,FMA3,AVX512-SKX,AVX512-COMMON,AVX512-ICL",
        "OPENCV_IPP": "disabled",
    },
}
PIXELS = """
import hashlib, sys
from pathlib import Path
from lib.data.phantoms import write_phantoms
from lib.data.preprocessing import preprocess
for dataset, pattern in {patterns!r}.items():
    folder = write_phantoms(dataset, Path(sys.argv[1]), 24, 96, 3)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    for path in sorted(folder.glob(pattern)):
        for size in (48, 112):  # smaller and larger than the original
            digest.update(preprocess(path, dataset, size).tobytes())
    print(dataset, digest.hexdigest())
"""


def test_every_processor_draws_and_prepares_the_same_pixels(tmp_path):
    """NumPy, OpenBLAS and OpenCV choose kernels by processor when they are loaded: hence a process for each."""
    said = {}
    for name, variables in PROCESSORS.items():
        command = [sys.executable, "-c", PIXELS.format(patterns=IMAGES), tmp_path / name]
        # A feature that this processor lacks cannot be disabled, which NumPy only warns of.
        run = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        said[name] = run.stdout
    assert len(said["as it is"].split()) == 6
    assert len(set(said.values())) == 1, said
