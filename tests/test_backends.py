"""The same numbers from Keras' TensorFlow and JAX backends, and a run that travels to a machine without TensorFlow.

JAX runs in the environment of `./reproduce test --jax`, which has no TensorFlow, or in this one, if it is in either.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from small import tiny, toy  # noqa: F401, for in_jax

from lib import ROOT, artifacts
from lib.attacks import Classifier, make_attack
from lib.attacks.gradients import value_and_gradient
from lib.evaluation.attacked import outcomes_of
from lib.models import build_classifier
from lib.models.training import train  # noqa: F401, for in_jax
from lib.profile import Model, Training  # noqa: F401, for in_jax
from lib.study import Study
from lib.study.pack import pack
from lib.study.results import joined, unpack

SMALL = Model(backbone="resnet14", weights="none", width=4, feature_layer="conv2_block1_add")
BARE = ROOT / ".venv-jax" / "bin" / "python"  # which has no TensorFlow
JAX_PYTHON = str(BARE) if BARE.is_file() else sys.executable
needs_jax = pytest.mark.skipif(
    not BARE.is_file() and importlib.util.find_spec("jax") is None,
    reason="JAX is not installed: ./reproduce test --jax",
)


def measure(folder):
    """Logits, input gradients and PGD's images of the saved models, on whatever backend this process has."""
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (6, 48, 48, 3)).astype("float32")
    labels = generator.integers(0, 3, 6)
    found = {}
    for path in sorted(folder.glob("*.keras")):
        classifier = Classifier(keras.saving.load_model(path))

        def loss(x, classifier=classifier):
            logits = ops.log_softmax(classifier.scores_of(x))
            return -ops.sum(logits * ops.one_hot(labels, 3), axis=-1), ()

        attack = make_attack("pgd", norm="l2", steps=5, leave=False)
        signs = make_attack("pgd", steps=5, leave=False)(classifier, images, labels, 2.0)
        found |= {
            f"{path.stem} logits": classifier.logits(images),
            f"{path.stem} gradient": np.asarray(value_and_gradient(loss, ops.convert_to_tensor(images))[-1]),
            # In L2 a step is a continuous function of the gradient, and images can be compared pixel by pixel; in
            # L-infinity a gradient near 0 may have either sign, and only what the model makes of them can be.
            f"{path.stem} pgd l2": attack(classifier, images, labels, 50.0),
            f"{path.stem} pgd linf": classifier.logits(signs),
        }
    return found


def in_jax(code, **variables):
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom test_backends import *\n{code}"
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | variables
    result = subprocess.run([JAX_PYTHON, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@needs_jax
def test_jax_gives_tensorflows_numbers(tmp_path):
    generator = np.random.default_rng(1)
    for variant in ("attention", "cbam"):
        model = build_classifier(SMALL, variant, 3, 48)
        for layer in model.layers:  # statistics unlike the initial ones
            if isinstance(layer, keras.layers.BatchNormalization):
                gamma, beta, mean, variance = layer.get_weights()
                noise = generator.uniform(-0.2, 0.2, (2, len(mean)))
                layer.set_weights([gamma, beta + noise[0], mean + noise[1], variance])
        model.save(tmp_path / f"{variant}.keras")
    in_jax(f"np.savez({str(tmp_path / 'jax.npz')!r}, **measure(Path({str(tmp_path)!r})))")
    ours = measure(tmp_path)
    with np.load(tmp_path / "jax.npz") as theirs:
        assert set(theirs) == set(ours)
        for name, values in ours.items():
            if name.endswith("l2"):  # a pixel at a kink of a ReLU may go another way, by a fraction of a gray level
                away = np.abs(theirs[name] - values)
                assert (away > 1e-3 + 1e-3 * values).mean() < 0.02, name
                assert away.max() < 0.5, name
                continue
            scale = np.abs(values).max()
            np.testing.assert_allclose(theirs[name], values, atol=1e-3 * scale, rtol=1e-3, err_msg=name)


@needs_jax
def test_on_a_gpu_one_program_serves_all_batches(tmp_path):
    build_classifier(SMALL, "baseline", 3, 32).save(tmp_path / "model.keras")
    in_jax(f"""
import jax
classifier = Classifier(keras.saving.load_model({str(tmp_path / "model.keras")!r}))
images = np.zeros((6, 32, 32, 3), "float32")
for backend, expected in (("cpu", [8, 1, 4]), ("gpu", [8])):
    jax.default_backend = lambda: backend
    sizes = []
    def program(classifier, x):
        assert jax.config.jax_default_matmul_precision == "highest"
        sizes.append(x.shape[0])
        return classifier.logits_of(x)
    for n in (6, 1, 3):
        assert classifier.run(program, images[:n]).shape == (n, 3)
    assert sizes == expected, sizes
""")


@needs_jax
def test_jax_trains_and_keeps_gamma_after_every_step(tmp_path):
    in_jax(f"""
settings = Training(epochs=3, batch_size=8, epoch_fraction={{}}, adam_epsilon=0.01)
_, history = train(tiny(), toy(60), toy(31, seed=1), settings, Path({str(tmp_path)!r}))
history.to_csv({str(tmp_path / "returned.csv")!r}, index=False)
""")
    history, gamma = (pd.read_csv(tmp_path / name) for name in ("returned.csv", "gamma.csv"))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert gamma["step"].tolist() == list(range(1, 3 * 8 + 1))
    np.testing.assert_allclose(gamma.groupby("epoch")["gamma"].last(), history["gamma"], rtol=1e-5)
    assert np.ptp(gamma["gamma"]) > 1e-4


def bare(*command, folder):
    """Run Python where TensorFlow is not."""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(folder)}
    result = subprocess.run([JAX_PYTHON, *command], env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-2000:]
    return result.stdout


@needs_jax
def test_a_run_travels_and_comes_home(tmp_path, monkeypatch):
    there, job = tmp_path / "there", ("ham10000", "baseline", "1")
    *parts, script = pack("test", there, megabytes=0.08)
    assert len(parts) > 1
    said = bare(script.name, "--jobs", ",".join(job), "--split", "0.01", folder=there)
    assert "1 of 1: ham10000-seed1-baseline took" in said
    assert "is there" in bare(script.name, "--jobs", ",".join(job), folder=there), "it is not made again"
    pieces = sorted((there / "results").iterdir())
    assert len(pieces) > 1
    [whole] = joined(map(str, pieces))

    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
    home = Study("test", job[0], 1)
    home.runs = tmp_path / "home"
    monkeypatch.setattr("lib.study.results.Study", lambda *_: home)
    unpack(Path(whole))
    record = artifacts.read_provenance(home.directory("baseline") / "model.keras")
    assert "tensorflow" not in record["packages"] or sys.executable == JAX_PYTHON
    monkeypatch.setattr("lib.study.study.train", None)  # nothing is trained here
    ours = [home.predictions_of("baseline"), outcomes_of(home, "baseline")]
    answers = home.trained("baseline")[0].predict(home.pixels(home.index[home.index["split"] == "test"]), verbose=0)
    np.testing.assert_allclose(answers, ours[0].filter(regex=r"^p\d"), atol=1e-3)

    study = tmp_path / "in place"
    shutil.copytree(there / "study", study)
    shutil.rmtree(study / "data" / "runs")
    bare("-m", "lib.study", "test", job[0], "1", "baseline", "data/raw", folder=study)
    place = study / "data" / "runs" / "test" / job[0] / "seed1" / "baseline"
    for table, name in zip(ours, ("predictions.csv", "attacks/autoattack-linf.csv"), strict=True):
        theirs = artifacts.read_table(place / name)
        pd.testing.assert_frame_equal(theirs, table[theirs.columns], atol=1e-3, check_dtype=False)
