"""Other people's networks: their logits, their files, and the whole suite on them."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from PIL import Image
from scipy.special import expit, softmax

from lib import ROOT, StudyError
from lib.attacks import Classifier, make_attack
from lib.attacks.networks import logits_of
from lib.data.preprocessing import preprocess
from lib.evaluation import benchmark, robust_accuracy
from lib.evaluation.own import load_images, load_network
from lib.explain import grad_cam
from lib.explore import own

SIDE = 24
IMAGES = np.random.default_rng(0).integers(0, 256, (10, SIDE, SIDE, 3)).astype("float32")
LABELS = np.arange(10) % 3
PGD = make_attack("pgd", steps=4)


def features(scale=1 / 64, seed=1):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="tanh", name="maps")(layers.Rescaling(scale, -2.0)(pixels))
    return pixels, layers.GlobalAveragePooling2D()(x)


def network(head, scale=1 / 64, seed=1):
    pixels, x = features(scale, seed)
    return keras.Model(pixels, head(x))


def copied(source, target):
    target.set_weights(source.get_weights())
    return target


ENDINGS = {
    "dense softmax": lambda h: layers.Dense(3, activation="softmax")(h),
    "softmax named logits": lambda h: layers.Dense(3, activation="softmax", name="logits")(h),
    "softmax layer": lambda h: layers.Softmax()(layers.Dense(3)(h)),
    "activation": lambda h: layers.Activation("softmax")(layers.Dense(3)(h)),
    "operation": lambda h: ops.softmax(layers.Dense(3)(h), axis=-1),
    "identity behind": lambda h: layers.Identity()(layers.Dense(3, activation="softmax")(h)),
    "dropout behind": lambda h: layers.Dropout(0.3)(layers.Dense(3, activation="softmax")(h)),
    "inside": lambda h: keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax")])(h),
    "mean of two": lambda h: layers.Average()([layers.Dense(3, activation="softmax")(h) for _ in range(2)]),
    "lambda": lambda h: layers.Lambda(ops.softmax)(layers.Dense(3)(h)),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_softmax_of_the_logits_is_what_the_model_answers(name):
    model = network(ENDINGS[name])
    logits = Classifier(model).logits(IMAGES)
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-6)
    assert abs(logits.sum(axis=1)).max() > 1e-3
    assert bool(logits_of(model).notes) == (name in ("mean of two", "lambda"))


@settings(max_examples=8)
@given(st.integers(0, 1000), st.sampled_from(["sigmoid", "linear", "layer"]))
def test_one_unit_is_two_classes(seed, ending):
    head = {
        "sigmoid": lambda h: layers.Dense(1, activation="sigmoid")(h),
        "linear": lambda h: layers.Dense(1)(h),
        "layer": lambda h: layers.Activation("sigmoid")(layers.Dense(1)(h)),
    }[ending]
    model = network(head, seed=seed)
    logits, said = Classifier(model).logits(IMAGES), model.predict(IMAGES, verbose=0)[:, 0]
    assert (logits[:, 0] == 0).all()
    z = said if ending == "linear" else None
    if z is None:
        np.testing.assert_allclose(expit(logits[:, 1]), said, rtol=1e-4, atol=1e-6)
    else:
        np.testing.assert_allclose(logits[:, 1], z, rtol=1e-4, atol=1e-5)


def test_a_probability_whose_logit_is_out_of_reach_is_no_logit():
    model = network(lambda h: layers.Average()([layers.Dense(1, activation="sigmoid")(h) for _ in range(2)]))
    classifier = Classifier(model)
    np.testing.assert_allclose(
        expit(classifier.logits(IMAGES)[:, 1]), model.predict(IMAGES, verbose=0)[:, 0], rtol=1e-4
    )
    assert "log-odds" in classifier.notes[0]


def curve(model, images=IMAGES, labels=LABELS, epsilons=(1, 8), **options):
    table = robust_accuracy(model, images, labels, PGD, epsilons, **options)
    return table.pivot_table(index="image_id", columns="epsilon", values="correct").to_numpy()


def test_one_unit_has_the_curve_of_the_two_logits_that_it_stands_for():
    one = network(lambda h: layers.Dense(1, activation="sigmoid")(h))
    two = network(lambda h: layers.Dense(2)(h))
    kernel, bias = one.get_weights()[-2:]
    two.set_weights([*one.get_weights()[:-2], np.hstack([0 * kernel, kernel]), np.array([0, bias[0]])])
    labels = Classifier(one).predict(IMAGES)
    np.testing.assert_array_equal(curve(one, labels=labels), curve(two, labels=labels))


def test_images_in_the_unit_interval_need_bounds():
    unit = network(lambda h: layers.Dense(3)(h), scale=4.0)
    pixels, h = features(scale=4.0 / 255)
    gray = copied(unit, keras.Model(pixels, layers.Dense(3)(h)))
    with pytest.raises(StudyError, match=r"\[0, 1\].*bounds=\(0, 1\)"):
        curve(unit, IMAGES / 255)
    labels = Classifier(gray).predict(IMAGES)
    table = robust_accuracy(unit, IMAGES / 255, labels, PGD, [0.01, 0.1], bounds=(0, 1))
    assert sorted(table["epsilon"].unique()) == [0, 0.01, 0.1]
    np.testing.assert_array_equal(
        curve(unit, IMAGES / 255, labels, [1 / 255, 8 / 255], bounds=(0, 1)), curve(gray, labels=labels)
    )
    with pytest.raises(StudyError, match="they go from 0 to 255"):
        curve(unit, IMAGES, bounds=(0, 1))
    with pytest.raises(StudyError, match="the lower first"):
        Classifier(unit, bounds=(1, 0))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_attacked_as_a_float32_copy(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        low = network(lambda h: layers.Activation("softmax", dtype="float32")(layers.Dense(3)(h)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    same = copied(low, network(lambda h: layers.Activation("softmax")(layers.Dense(3)(h))))
    classifier = Classifier(low)
    np.testing.assert_allclose(classifier.logits(IMAGES), Classifier(same).logits(IMAGES), rtol=1e-5, atol=1e-6)
    assert "float32 copy" in classifier.notes[0]


@pytest.mark.parametrize(
    "labels",
    [LABELS.astype(float), np.eye(3)[LABELS], pd.Series(LABELS, index=range(50, 60)), LABELS[:, None], LABELS.tolist()],
    ids=["floats", "one-hot", "series", "column", "list"],
)
def test_labels_come_in_many_forms(labels):
    model = network(lambda h: layers.Dense(3)(h))
    np.testing.assert_array_equal(curve(model, labels=labels), curve(model))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A network whose layers stand in its own code."""

    def __init__(self, ending="linear", **rest):
        super().__init__(**rest)
        self.first, self.pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
        self.last = layers.Dense(3, activation=ending)

    def call(self, images):
        return self.last(self.pool(ops.tanh(self.first(images / 255.0))))


def not_finite():
    model = network(lambda h: layers.Dense(3)(h))
    weights = model.get_weights()
    weights[-1][:] = np.nan
    model.set_weights(weights)
    return model


@pytest.mark.parametrize(
    ("model", "images", "labels", "said"),
    [
        (
            lambda: network(lambda h: [layers.Dense(3)(h), layers.Dense(2)(h)]),
            IMAGES,
            LABELS,
            "has 2 outputs; pass a model",
        ),
        (lambda: network(lambda h: layers.Dense(3)(h)), IMAGES[:0], LABELS[:0], "no images"),
        (not_finite, IMAGES, LABELS, "not finite on image 0"),
        (lambda: network(lambda h: layers.Dense(3)(h)), IMAGES, LABELS + 0.5, "whole numbers.*found 0.5"),
        (lambda: network(lambda h: layers.Dense(3)(h)), IMAGES, np.array(["a"] * 10), "whole numbers"),
        (lambda: network(lambda h: layers.Dense(3, activation="sigmoid")(h)), IMAGES, LABELS, "3 separate sigmoids"),
        (Subclassed, IMAGES, LABELS, "never called: call it once"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_one_sentence(model, images, labels, said):
    with pytest.raises(StudyError, match=said) as error:
        robust_accuracy(model(), images, labels, PGD, (1, 8))
    assert "\n" not in str(error.value)


# Maps


def backbone():
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="first")(pixels)
    return keras.Model(pixels, layers.Conv2D(5, 3, activation="relu", name="last")(x), name="backbone")


def test_grad_cam_finds_the_last_map_also_of_a_backbone_inside():
    keras.utils.set_random_seed(0)
    inside, scale, head = backbone(), layers.Rescaling(1 / 255), layers.Dense(3, activation="softmax")
    pixels = keras.Input((SIDE, SIDE, 3))
    x = inside.get_layer("last")(inside.get_layer("first")(scale(pixels)))
    flat = keras.Model(pixels, head(layers.GlobalAveragePooling2D()(x)))
    pixels = keras.Input((SIDE, SIDE, 3))
    nested = keras.Model(pixels, head(layers.GlobalAveragePooling2D()(inside(scale(pixels)))))
    sequential = keras.Sequential([keras.Input((SIDE, SIDE, 3)), scale, inside, layers.GlobalAveragePooling2D(), head])
    expected = grad_cam(flat, IMAGES[:3], [0, 1, 2], upsample=False)
    assert expected.shape == (3, 9, 9)
    for model in (nested, sequential):
        np.testing.assert_allclose(grad_cam(model, IMAGES[:3], [0, 1, 2], upsample=False), expected, atol=1e-6)
    assert grad_cam(nested, IMAGES[:1], [0], layer="first", upsample=False).shape == (1, 11, 11)


def test_either_class_of_one_unit_has_a_map():
    model = network(lambda h: layers.Dense(1, activation="sigmoid")(h))
    low, high = (grad_cam(model, IMAGES[:2], [k, k], upsample=False) for k in (0, 1))
    assert (low.max(axis=(1, 2)) == 1).all()
    assert np.abs(low - high).max() > 0.1


# Files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, in folders and in a table, and two networks in files."""
    place = tmp_path_factory.mktemp("own")
    rng, rows = np.random.default_rng(1), []
    for label, level in (("benign", 80), ("malignant", 170)):
        (place / "images" / label).mkdir(parents=True)
        for i in range(5):
            picture = np.clip(rng.normal(level, 30, (SIDE + 6, SIDE, 3)), 0, 255).astype("uint8")
            Image.fromarray(picture).save(place / "images" / label / f"{i}.png")
            rows.append((f"{label}/{i}.png", label))
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(place / "labels.csv", index=False)
    model = network(lambda h: layers.Dense(2, activation="softmax")(h))
    for seed, name in enumerate(("model", "other")):
        weights = model.get_weights()
        weights[0] = np.random.default_rng(seed).normal(0, 0.1, weights[0].shape)
        model.set_weights(weights)
        model.save(place / f"{name}.keras")
    model.save(place / "model.h5")
    return place


def test_the_command_writes_a_page_and_goes_on_where_it_was(folder):
    words = ["own", "--model", "model.keras", "--images", "images", "--attack", "pgd", "--compare-with", "other.keras"]
    command = [sys.executable, ROOT / "reproduce", *words]
    first = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    page = (folder / "own" / "index.html").read_text()
    assert "How robust is" in page
    assert 'src="http' not in page
    curve = pd.read_csv(folder / "own" / "curve.csv")
    outcomes = pd.read_csv(folder / "own" / "outcomes.csv")
    mine = curve[curve["network"] == "network"].set_index("epsilon")["robust_accuracy"]
    np.testing.assert_allclose(mine, outcomes.groupby("epsilon")["correct"].mean())
    assert set(pd.read_csv(folder / "own" / "comparison.csv")) >= {"epsilon", "difference", "ci_low", "ci_high"}
    kept = {path: path.stat().st_mtime_ns for path in (folder / "own" / "progress").glob("outcomes-*.csv")}
    assert len(kept) == 2
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in (folder / "own" / "progress").glob("outcomes-*.csv")} == kept


def test_a_folder_and_a_table_are_the_same_images(folder):
    options = {"attack": "fgsm", "epsilons": [2], "examined": 4}
    by_folder = benchmark(folder / "model.keras", folder / "images", **options)
    by_table = benchmark(folder / "model.h5", folder / "images", folder / "labels.csv", **options)
    assert by_folder.facts["classes"] == by_table.facts["classes"] == "benign, malignant"
    assert set(by_folder.trust) >= {"check", "passed", "value", "sentence"}
    np.testing.assert_array_equal(by_folder.outcomes["label"], by_table.outcomes["label"])
    assert "Robust accuracy" in by_folder._repr_mimebundle_()["text/html"]


def test_a_network_that_answers_one_class_is_named():
    model = network(lambda h: layers.Dense(3)(h))
    weights = model.get_weights()
    weights[-2][:], weights[-1][:] = 0, [5, 0, 0]
    model.set_weights(weights)
    trust = benchmark(model, IMAGES, LABELS, attack="fgsm", epsilons=[1], examined=4).trust.set_index("check")
    assert not trust.loc["clean accuracy", "passed"]
    assert "bounds, preprocessing" in trust.loc["clean accuracy", "sentence"]
    assert not trust.loc["answers", "passed"]


def test_randomness_and_dead_gradients_are_seen():
    rounded = network(lambda h: layers.Dense(3)(h))
    pixels = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(pixels, rounded(ops.round(pixels)))
    trust = benchmark(model, IMAGES, LABELS, attack="fgsm", epsilons=[1], examined=4).trust.set_index("check")
    assert not trust.loc["input gradient", "passed"]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_file_whose_lambda_would_run_code_is_not_loaded(tmp_path, suffix):
    mark = tmp_path / "written"

    def harmless(x):
        return x / 255

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(harmless), layers.Flatten(), layers.Dense(2)])
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(StudyError, match=r"not loaded, as it runs code of its own .*safe_mode=False"):
        load_network(path)
    # The same file with code that leaves a mark, as an attacker would make it.
    code = f"lambda x: (open({str(mark)!r}, 'w').close(), x / 255)[1]"
    evil = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(eval(code)), layers.Flatten(), layers.Dense(2)])
    mark.unlink(missing_ok=True)
    evil.save(path)
    mark.unlink(missing_ok=True)
    with pytest.raises(StudyError, match="not loaded"):
        load_network(path)
    assert not mark.exists()


def test_files_that_are_no_models_are_named(tmp_path, folder):
    (tmp_path / "x.keras").write_text("no")
    (tmp_path / "x.h5").write_text("no")
    load_network(folder / "model.keras").save_weights(tmp_path / "w.weights.h5")
    for name, said in {
        "x.keras": "no Keras model file", "x.h5": "no HDF5 file", "w.weights.h5": "holds weights and no model",
        "nothing.keras": "There is no model file", "x.pt": "There is no model file",
    }.items():  # fmt: skip
        with pytest.raises(StudyError, match=said):
            load_network(tmp_path / name)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("image,label\nbenign/0.png,benign\nnowhere.png,benign\n", "row 3: there is no image 'nowhere.png'"),
        ("file,label\nbenign/0.png,benign\n", "no column 'image', only file, label"),
        ("image,label\n", "has no rows"),
        ("image,label\nbenign/0.png,5\n", "classes 0 to 1 of the model; they go from 5 to 5"),
    ],
)
def test_tables_of_labels_that_do_not_fit_are_named_by_row(folder, tmp_path, table, said):
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(StudyError, match=said):
        benchmark(folder / "model.keras", folder / "images", tmp_path / "labels.csv")


# The documents


def blocks(name, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_document_on_own_models_is_what_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    for block in blocks("own-model.md", "python"):
        exec(compile(block, "own-model.md", "exec"), names)
    assert len(names["result"].curve) == len(names["result"].outcomes["epsilon"].unique())
    assert (folder / "report" / "index.html").is_file()
    for line in (line for block in blocks("own-model.md", "sh") for line in block.splitlines()):
        words = line.split()
        assert words[:2] == ["./reproduce", "own"]
        assert own.main([*words[2:], "--attack", "fgsm"]) == 0


@pytest.mark.skipif(not (ROOT.parent / "shared" / "cases").is_dir(), reason="the cases are not there")
def test_the_known_cases_are_right():
    code = (ROOT.parent / "shared" / "cases" / "own_models.py").read_text(encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    said = dict(re.match(r"(.{24}) (.*)", line).groups() for line in run.stdout.splitlines() if line.strip())
    said = {name.strip(): text for name, text in said.items()}
    assert not [text for text in said.values() if "TRACEBACK" in text]
    for name in (
        "one sigmoid unit",
        "one linear unit",
        "softmax named logits",
        "soft-voting ensemble",
        "nested backbone",
    ):
        assert json.loads(
            said[name].replace("'", '"').replace("0.0:", '"0":').replace("1.0:", '"1":').replace("8.0:", '"8":')
        )
    assert "not finite" in said["NaN outputs"]
    assert "bounds" in said["images in [0, 1]"]
    assert "2 outputs" in said["two outputs"]


def test_outputs_without_a_gradient_are_attacked_by_what_needs_none_and_it_is_said(tmp_path):
    rounded = network(lambda h: ops.round(layers.Dense(3, activation="softmax")(h) * 100) / 100)
    result = benchmark(rounded, IMAGES, LABELS, epsilons=[4], attack=make_attack("square", steps=20))
    checks = result.trust.set_index("check")
    assert not checks.loc["input gradient", "passed"]
    assert checks.loc["input gradient", "value"] == 1
    assert "no gradient" in result.save(tmp_path).read_text()


@pytest.mark.parametrize("ending", ["linear", "softmax"])
def test_a_subclassed_model_has_the_curve_of_the_same_layers(ending):
    keras.utils.set_random_seed(3)
    own = Subclassed(ending)
    with pytest.raises(StudyError, match="never called"):
        Classifier(own)
    result = benchmark(own, IMAGES, LABELS, epsilons=[2, 8], attack=PGD)  # built with the images
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(ops.tanh(layers.Conv2D(4, 3)(pixels / 255.0)))
    same = copied(own, keras.Model(pixels, layers.Dense(3)(x)))
    expected = benchmark(same, IMAGES, LABELS, epsilons=[2, 8], attack=PGD)
    pd.testing.assert_frame_equal(result.curve, expected.curve)
    assert len(result.maps) == 0
    assert "has no feature map" in str(result.pictures["why no maps"])


def written_by_keras_2(path, groups):
    """A file with what Keras 2 says of a depthwise convolution, and Keras 3 no more."""
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(layers.Rescaling(1 / 255)(pixels)))
    model = keras.Model(pixels, keras.Sequential([keras.Input((3,)), layers.Dense(3)])(x))
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"]["groups"] = groups
        file.attrs["model_config"] = json.dumps(config)
    return model


def test_files_of_keras_2_with_depthwise_convolutions_are_read(tmp_path):
    model = written_by_keras_2(tmp_path / "old.h5", 1)
    before = (tmp_path / "old.h5").read_bytes()
    np.testing.assert_array_equal(load_network(tmp_path / "old.h5")(IMAGES), model(IMAGES))
    assert (tmp_path / "old.h5").read_bytes() == before
    written_by_keras_2(tmp_path / "grouped.h5", 3)
    with pytest.raises(StudyError, match=r"\.\.\. .*groups"):  # the end of what Keras says, where the reason is
        load_network(tmp_path / "grouped.h5")


def test_a_saved_model_folder_is_called_what_it_is(tmp_path):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").touch()
    with pytest.raises(StudyError, match=r"is a TensorFlow SavedModel.*model\.save\('model\.keras'\)"):
        load_network(tmp_path / "exported")


def test_every_kind_of_image_is_read_and_what_is_not_is_named(tmp_path):
    image = np.kron(np.arange(48, 240, 12, dtype="uint8").reshape(4, 4), np.ones((8, 8), "uint8"))
    for number, suffix in enumerate(("png", "BMP", "tif", "tiff", "webp", "jpg")):
        path = tmp_path / "ab"[number % 2] / f"image.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).convert("RGB").save(path, lossless=True, quality=100)
    Image.fromarray(image.astype("uint16") * 16).save(tmp_path / "a" / "deep.png")
    for name in ("a/notes.txt", "b/image.gif", "b/._image.png", "__MACOSX/._image.png", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    notes = {}
    images, labels, classes = load_images(tmp_path, None, (32, 32, 3), (0, 255), notes=notes)
    assert classes == ["a", "b"]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    dark = images.max((1, 2, 3)) < 16
    assert dark.sum() == 1
    assert np.abs(images[~dark] - image[..., None]).max() < 4  # JPEG rounds
    assert notes["not read"] == "2 other files in these folders were not read (1 .gif, 1 .txt)."
    assert notes["dark"].startswith("1 of the 7 images use 12 or fewer of their 16 bits")
    result = benchmark(network(layers.Dense(2)), tmp_path, epsilons=[4], attack=PGD)
    assert notes["dark"] in set(result.trust.loc[~result.trust["passed"].astype(bool), "sentence"])
    assert notes["not read"] in result.save(tmp_path / "out").read_text()


def test_a_published_network_goes_by_its_name(monkeypatch, tmp_path, folder):
    model = network(lambda h: layers.Dense(2, activation="softmax")(h))
    settings = SimpleNamespace(image_size=SIDE, xray_contrast="none", xray_sigma=20.0)
    study = SimpleNamespace(
        profile=SimpleNamespace(preprocessing=settings), dataset="eyepacs", info=SimpleNamespace(classes=("a", "b"))
    )
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "eyepacs-seed0-attention.zip").write_bytes(b"")
    packed = SimpleNamespace(files={own.WEIGHTS: b""}, study=study, model=lambda: model)
    monkeypatch.setattr(own, "PUBLISHED", tmp_path)
    monkeypatch.setattr(own, "opened", lambda path: packed)
    found = own.published("some/attention/0")
    assert (found["model"], found["classes"]) == (model, ("a", "b"))
    picture = next((folder / "images" / "benign").glob("*.png"))
    np.testing.assert_array_equal(found["read"](picture), preprocess(picture, "eyepacs", SIDE))
    named = {"classes": ["benign", "malignant"], "read": found["read"]}
    result = benchmark(model, folder / "images", attack="fgsm", epsilons=[1], examined=4, **named)
    assert len(result.outcomes["image_id"].unique()) == 10
    assert own.published("model.keras") == {}
    packed.files = {}
    for name in ("some/attention/0", "some/attention/7"):
        with pytest.raises(
            StudyError, match=r"no published network some/attention/. with its weights; there are some/attention/0\."
        ):
            own.published(name)
