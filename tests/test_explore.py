"""The computing part of 00_explore: attacks on one image that remember, and images that people bring."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_attacks import CLASSES, SIZE, convolutional, linear_problem

from lib import StudyError
from lib.attacks import Classifier, make_attack
from lib.data import DATASETS
from lib.data.preprocessing import preprocess
from lib.explain import attention_map, grad_cam
from lib.explore.explorer import ATTACKS, Choice, Explorer, Subject, Trial, open_study, read_upload
from lib.models import build_classifier
from lib.profile import load_profile


@pytest.fixture(scope="module")
def classifier():
    return Classifier(convolutional())


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(4).integers(0, 256, (SIZE, SIZE, 3)).astype("float32")


def trial(classifier, image, attack="pgd", target=None):
    label = classifier.predict(image[None])[0]
    return Trial(classifier, image, label, Choice(attack, 5, target).make(), target)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_found_is_within_the_budget_and_said_rightly(classifier, image, attack):
    here = trial(classifier, image, attack)
    for epsilon, found in zip((0.5, 4.0, 1.0), here.at(0.5, 4.0, 1.0), strict=True):
        assert np.abs(found.pixels - image).max() <= epsilon + 2e-5
        assert found.pixels.min() >= 0
        assert found.pixels.max() <= 255
        said = np.asarray(classifier.model(found.pixels[None]))[0]
        np.testing.assert_allclose(found.probabilities, said, atol=1e-5)
        assert found.fallen == (said.argmax() != here.label)


def test_what_is_known_is_not_attacked_again(classifier, image, monkeypatch):
    here, calls = trial(classifier, image), []
    run = type(here.attack).__call__

    def counted(self, model, images, *rest, **options):
        calls.append(len(images))
        return run(self, model, images, *rest, **options)

    monkeypatch.setattr(type(here.attack), "__call__", counted)
    [first] = here.at(1.0)
    assert here.at(1.0, 1.0) == [first, first]
    here.at(1.0, 2.0, 4.0)
    assert calls == [1, 2]


def test_a_larger_budget_is_never_worse_in_whatever_order_they_are_asked(classifier, image):
    """Even with a single step, which overshoots, and where a smaller budget finds more only later."""
    for attack in ("fgsm", "pgd"):
        here = trial(classifier, image, attack)
        here.at(*np.random.default_rng(0).permutation(np.geomspace(0.05, 60, 13)))
        here.at(1.0)
        margins = [here.best(epsilon).margin for epsilon in np.geomspace(0.01, 100, 40)]
        assert (np.diff(margins) >= 0).all()
        curve = here.curve()
        assert curve["epsilon"].is_monotonic_increasing
        assert curve["stands"].is_monotonic_decreasing
        assert curve["stands"].nunique() == 2


def test_a_new_budget_starts_from_its_neighbours(classifier, image):
    """One step from what a smaller budget found does more than one step from the image."""
    few = make_attack("bim", steps=2, path_length=0.02, leave=False)
    label = classifier.predict(image[None])[0]
    fresh, warm = Trial(classifier, image, label, few), Trial(classifier, image, label, few)
    warm.finds |= {0.5: trial(classifier, image).at(0.5)[0]}
    [cold], [better] = fresh.at(1.0), warm.at(1.0)
    assert better.margin > cold.margin
    assert better.size == pytest.approx(1.0, abs=0.05)


def test_the_smallest_epsilon_of_a_linear_model_has_its_closed_form():
    """Margin over the dual norm of the weights (Moosavi-Dezfooli et al. 2016, section 2)."""
    model, images, w, margins = linear_problem()
    classifier, attack = Classifier(model), make_attack("bim", leave=False)
    for image, exact in zip(images, margins / np.abs(w).sum(), strict=True):
        here = Trial(classifier, image, 0, attack)
        found = here.smallest(2.0 ** np.arange(-12, 6))
        assert exact * 0.999 <= found <= exact * 1.021
        known = len(here.finds)
        assert here.smallest(2.0 ** np.arange(-12, 6)) == found
        assert len(here.finds) == known
        curve = here.curve()
        assert (curve["stands"] == (curve["epsilon"] < found * 0.9999)).all()
    assert Trial(classifier, images[0], 1, attack).smallest() == 0  # wrong without any attack
    assert Trial(classifier, images[0], 0, attack).smallest([exact * 1e-3]) == np.inf


def test_towards_a_class_only_that_class_counts(classifier, image):
    label = classifier.predict(image[None])[0]
    target = (label + 1) % CLASSES
    here = trial(classifier, image, target=target)
    for found in here.at(0.01, 2.0, 60.0):
        assert found.fallen == (found.predicted == target)
    assert here.best(60.0).fallen
    watched = here.curve()["probability"]
    assert watched.iloc[-1] > watched.iloc[0]


@pytest.fixture(scope="module")
def explorer():
    """An Explorer on untrained networks of the study's own kind and images that nobody drew."""
    profile, info = load_profile("test"), DATASETS["ham10000"]
    sizes = len(info.classes), profile.preprocessing.image_size
    networks = {v: Classifier(build_classifier(profile.model, v, *sizes, 0)) for v in profile.variants}
    chosen = pd.DataFrame({"image_id": ["a", "b"], "label": [1, 5]})
    size = profile.preprocessing.image_size
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    study = SimpleNamespace(
        profile=profile, info=info, dataset="ham10000", chosen=lambda: chosen, pixels=lambda rows: pixels,
        classifier=networks.__getitem__,
    )  # fmt: skip
    return Explorer(study)


def test_a_view_has_the_maps_of_explain(explorer):
    subject, choice = explorer.gallery[1], Choice("bim", 2)
    views = explorer.view(subject, choice, 1.0)
    assert list(views) == ["baseline", "attention"]
    assert views["baseline"].attention is None
    for variant, view in views.items():
        model = explorer.study.classifier(variant).model
        both = np.stack([subject.pixels, view.attacked.pixels])
        np.testing.assert_allclose(view.gradcam, grad_cam(model, both, [5, 5], upsample=False), atol=1e-5)
        assert explorer.view(subject, choice, 1.0)[variant].attacked is view.attacked
    np.testing.assert_allclose(views["attention"].attention, attention_map(model, both, upsample=False), atol=1e-5)
    smallest, curves = explorer.falls(subject, choice)
    assert set(curves["variant"]) == set(smallest) == set(views)


def test_without_a_class_each_network_is_asked_and_a_target_must_be_another(explorer):
    pixels = explorer.gallery[0].pixels
    for variant, trial in explorer.trials(Subject("mine", pixels, None), Choice()).items():
        assert trial.label == explorer.study.classifier(variant).predict(pixels[None])[0]
    with pytest.raises(StudyError, match="class bcc already"):
        explorer.trials(explorer.gallery[0], Choice(target=1))


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_an_own_image_is_treated_like_the_data(tmp_path, explorer):
    pixels = np.random.default_rng(1).integers(0, 256, (90, 140, 3)).astype("uint8")
    for dataset in ("ham10000", "chestxray14"):
        study = SimpleNamespace(profile=explorer.study.profile, dataset=dataset)
        (tmp_path / "x.png").write_bytes(encoded(pixels))
        subject = read_upload(encoded(pixels), "mine.png", study)
        assert subject.label is None
        assert subject.pixels.dtype == np.float32
        np.testing.assert_array_equal(subject.pixels, preprocess(tmp_path / "x.png", dataset, 64))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "mine.png is empty"),
        (b"GIF, or so it says", "mine.png cannot be read as an image"),
        (encoded(np.zeros((90, 90, 3), "uint8"))[:90], "mine.png (is cut off|cannot be read)"),
        (encoded(np.zeros((8, 90, 3), "uint8")), "mine.png has 90 x 8 pixels"),
    ],
)
def test_what_is_no_image_is_named_in_one_sentence(explorer, data, sentence):
    with pytest.raises(StudyError, match=sentence) as caught:
        read_upload(data, "mine.png", explorer.study)
    assert "/" not in str(caught.value)


def test_where_nothing_is_trained_a_tiny_pair_stands_in_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.study.ROOT", tmp_path)
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow runs already
    study, message = open_study("quick", "eyepacs")
    assert study.profile.profile == "tiny"
    assert study.profile.phantom
    assert "no trained models of profile quick" in message
    assert "phantom" in message


def test_published_networks_are_taken_where_the_images_are(tmp_path, monkeypatch):
    """The way there: which files are asked for, and when; what is in them, `tests/test_results.py` knows."""
    study = SimpleNamespace(
        profile=SimpleNamespace(profile="real"), dataset="ham10000", seed=0, variants=["baseline", "attention"],
        raw=tmp_path / "raw", directory=lambda variant: tmp_path / variant, model_key=lambda variant: "this code's",
        info=DATASETS["ham10000"],
    )  # fmt: skip
    made_by = "this code's"

    def unpack(file, data):
        if made_by != "this code's":
            raise StudyError("It was made by other code.")
        folder = study.directory(file.stem.rsplit("-", 1)[1])
        folder.mkdir()
        (folder / "model.keras").touch()
        (folder / "model.keras.provenance.json").write_text('{"key": "this code\'s"}')

    tiny = SimpleNamespace(profile=SimpleNamespace(label="phantoms"))
    monkeypatch.setattr("lib.explore.explorer.Study", lambda name, *_: tiny if name == "tiny" else study)
    monkeypatch.setattr("lib.explore.explorer.results.PUBLISHED", tmp_path / "published")
    monkeypatch.setattr("lib.explore.explorer.results.unpack", unpack)
    (tmp_path / "published" / "real").mkdir(parents=True)
    for variant in study.variants:
        assert open_study("real")[0] is tiny
        (tmp_path / "published" / "real" / f"ham10000-seed0-{variant}.zip").touch()
    assert open_study("real")[0] is tiny, "the images are not here"
    (tmp_path / "raw" / "ham10000").mkdir(parents=True)
    made_by = "another"
    stand_in, message = open_study("real")
    assert stand_in is tiny
    assert message.startswith("It was made by other code. There are no trained models of profile real"), "says why"
    made_by = "this code's"
    assert open_study("real") == (study, "")


def test_any_other_variant_can_stand_beside_the_baseline(explorer, monkeypatch):
    baseline = explorer.study.classifier("baseline")
    monkeypatch.setattr(explorer.study, "classifier", lambda _: baseline)
    monkeypatch.setattr(explorer, "shown", ["baseline", "pooling"])
    assert list(explorer.falls(explorer.gallery[0], Choice("fgsm"))[0]) == ["baseline", "pooling"]
