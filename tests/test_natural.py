"""Natural changes: against Pillow and NumPy where they have them, and what must hold for all."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from lib.evaluation.natural import CHANGES, SEVERITIES, accuracies, changed, natural_changes
from lib.study import Study

SIZE = 56
X = np.linspace(0, 1, SIZE)
SLOPES = np.stack([180 - 60 * np.outer(X, X), 120 + 40 * np.outer(X, 1 - X), np.full((SIZE, SIZE), 100)], axis=-1)
IMAGES = np.stack([SLOPES] * 3).round().astype("float32")


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_gives_images_and_grows_with_its_severity(kind):
    distances = []
    for severity in SEVERITIES:
        seen = changed(IMAGES, kind, severity)
        assert seen.shape == IMAGES.shape
        assert seen.dtype == np.float32
        assert 0 <= seen.min() <= seen.max() <= 255
        distances.append(np.abs(seen - IMAGES).mean())
        np.testing.assert_array_equal(seen, changed(IMAGES, kind, severity))
        np.testing.assert_array_equal(seen[:2], changed(IMAGES[:2], kind, severity), err_msg="depends on the batch")
    assert (np.diff(distances) > 0).all()
    assert distances[0] > 0


def test_jpeg_is_pillows():
    for severity, quality in zip(SEVERITIES, CHANGES["JPEG"][1], strict=True):
        held = io.BytesIO()
        Image.fromarray(IMAGES[0].astype("uint8")).save(held, "JPEG", quality=quality)
        expected = np.asarray(Image.open(held), "float32")
        assert np.abs(changed(IMAGES, "JPEG", severity)[0] - expected).mean() < 1.5  # another decoder's rounding


@pytest.mark.parametrize(
    ("kind", "enhance"),
    [
        ("brighter", ImageEnhance.Brightness),
        ("darker", ImageEnhance.Brightness),
        ("less contrast", ImageEnhance.Contrast),
    ],
)
def test_light_and_contrast_are_pillows(kind, enhance):
    for severity, factor in zip(SEVERITIES, CHANGES[kind][1], strict=True):
        expected = np.asarray(enhance(Image.fromarray(IMAGES[0].astype("uint8"))).enhance(factor), "float32")
        np.testing.assert_allclose(changed(IMAGES, kind, severity)[0], expected, atol=1.5)


def test_noise_has_its_deviation():
    gray = np.full((4, 64, 64, 3), 128, "float32")
    for severity, deviation in zip(SEVERITIES[:3], CHANGES["noise"][1][:3], strict=True):
        assert (changed(gray, "noise", severity) - 128).std() == pytest.approx(255 * deviation, rel=0.03)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["hair", "dust"]))
def test_a_milder_severity_leaves_alone_what_a_worse_one_does(seed, kind):
    touched = [changed(IMAGES, kind, severity, seed) != IMAGES for severity in SEVERITIES]
    for mild, worse in pairwise(touched):
        assert (worse | ~mild).all()


def test_a_disc_leaves_a_flat_image_as_it_is():
    flat = np.full((1, 64, 64, 3), 77, "float32")
    np.testing.assert_allclose(changed(flat, "blur", 5), flat, rtol=1e-5)


def test_a_study_answers_every_change_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    study = Study("test", "chestxray14", 0)
    study.runs, study.variants, study.whole_variants = tmp_path, ["attention"], ["attention"]
    table = natural_changes(study)
    n = len(study.evaluated)
    assert len(table) == n * (1 + 5 * len(CHANGES))
    plain = table[(table["change"] == "none") & (table["variant"] == "attention")].set_index("image_id")
    known = study.predictions_of("attention").set_index("image_id").loc[plain.index]
    np.testing.assert_array_equal(plain["predicted"], known["predicted"])
    shares = accuracies(table)
    assert shares["n"].eq(n).all()
    assert (tmp_path / "seed0" / "attention" / "natural.csv").is_file()
