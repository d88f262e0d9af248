import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from small import tiny, toy

from lib.models.training import Epoch, best_epoch, class_weights, set_determinism, train
from lib.profile import Training

SHORT = Training(epochs=4, batch_size=8, epoch_fraction={})


@settings(max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=60))
def test_class_weights_are_scikit_learns_balanced_ones(labels):
    labels = np.array(labels)
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels) * len(present) / 5
    weights = class_weights(labels, 5)
    np.testing.assert_allclose(weights[present], expected, rtol=1e-6)
    assert weights.sum() == pytest.approx(weights[present].sum())


@settings(max_examples=30)
@given(  # never 0.001 apart: Keras compares in float32, where that may be less
    st.lists(st.integers(0, 2_000).map(lambda n: 0.0007 * n), min_size=1, max_size=30), st.integers(1, 5)
)
def test_early_stopping_is_keras_early_stopping(losses, patience):
    stopper = keras.callbacks.EarlyStopping("val_loss", min_delta=0.001, patience=patience)
    stopper.set_model(keras.Sequential())
    stopper.model.stop_training = False
    stopper.on_train_begin()
    for epoch, loss in enumerate(losses):
        stopper.on_epoch_end(epoch, {"val_loss": loss})
        if stopper.model.stop_training:
            break
    seen = losses[: epoch + 1]
    best = best_epoch(seen, 0.001, "min")
    assert best == stopper.best_epoch
    assert (len(seen) - 1 - best >= patience) == stopper.model.stop_training or epoch == 0


def test_an_epoch_sees_every_image_once_and_a_fraction_a_share():
    images, labels = toy(30)
    images[:, 0, 0, 0] = np.arange(30)
    whole = Epoch(images, labels, 2, np.ones(2), SHORT, 1.0, 0, 0)
    batches = [whole[i] for i in range(len(whole))]
    assert sorted(int(x) for images, _, _ in batches for x in images[:, 0, 0, 0]) == list(range(30))
    part = Epoch(images, labels, 2, np.ones(2), SHORT, 0.5, 0, 0)
    assert len(set(part.order)) == 15
    assert set(part.order) != set(Epoch(images, labels, 2, np.ones(2), SHORT, 0.5, 0, 1).order)


def test_training_learns_and_chooses_the_best_epoch(tmp_path):
    set_determinism(0)
    model = tiny()
    data = toy(64)
    model, history = train(model, data, toy(32, seed=1), SHORT, tmp_path, seed=0)
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert history["gamma"].notna().all()
    positions = np.prod(model.get_layer("soft_attention").output[1].shape[1:3])
    assert history["effective"].between(1, positions + 1e-6).all()
    loss, _ = model.evaluate(toy(32, seed=1)[0].astype("float32"), keras.utils.to_categorical(toy(32)[1]), verbose=0)
    assert loss == pytest.approx(history["val_loss"].min(), abs=1e-3)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_training_stops_early(tmp_path):
    images, labels = toy(16)
    settings = Training(epochs=50, patience=2, min_delta=10, batch_size=8, epoch_fraction={})
    _, history = train(tiny(), (images, labels), (images, labels), settings, tmp_path)
    assert len(history) == 3  # nothing improves by 10: the first epoch stays the best, patience 2


def test_a_model_compiled_before_is_trained_as_a_new_one(tmp_path):
    """Weights, optimiser, dropout: nothing of the first training is left in the second."""
    settings = Training(epochs=3, batch_size=8, epoch_fraction={}, learning_rate=0.003, adam_epsilon=1e-7)
    data, start = (toy(32), toy(16, seed=1), settings), [tiny(seed=seed).get_weights() for seed in (0, 1)]
    shared = tiny()
    for seed in (0, 1):
        shared.set_weights(start[seed])
        train(shared, *data, tmp_path / f"shared{seed}", seed=seed)
    fresh, _ = train(tiny(seed=1), *data, tmp_path / "fresh", seed=1)
    for ours, theirs in zip(shared.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_of_short_epochs_none_is_kept_but_the_history_is(tmp_path):
    settings = Training(epochs=3, batch_size=8, epoch_fraction={}, restore_best=False)
    model, history = train(tiny(), toy(16), toy(16, seed=1), settings, tmp_path)
    assert list(tmp_path.glob("*.keras")) == []
    assert len(pd.read_csv(tmp_path / "gamma.csv")) == 3 * 2
    again, read = train(tiny(), toy(16), toy(16, seed=1), settings, tmp_path)
    pd.testing.assert_frame_equal(read, history, check_dtype=False)
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_gamma_is_kept_after_every_step(tmp_path):
    settings = Training(epochs=3, batch_size=8, epoch_fraction={})
    _, history = train(tiny(), toy(20), toy(16, seed=1), settings, tmp_path)
    gamma = pd.read_csv(tmp_path / "gamma.csv")
    assert gamma["step"].tolist() == list(range(1, 10))  # three batches an epoch
    assert gamma["gamma"].nunique() > 5
    last = gamma.groupby("epoch")["gamma"].last()
    np.testing.assert_allclose(last, history["gamma"].astype(float), rtol=1e-6)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import numpy as np
from small import tiny, toy
from lib.models import training
from lib.profile import Training
training.CHECKPOINT_EVERY = 0
training.set_determinism(0, 1)
kinds = (("plain", None), ("trades", {{"method": "trades", "steps": 2}}))
for folder, name, adversarial in [(folder, *kind) for folder in {folders!r} for kind in kinds]:
    folder = Path(folder) / name
    settings = Training(epochs=4, batch_size=8, epoch_fraction={{}}, adversarial=adversarial)
    model, history = training.train(tiny(), toy(64), toy(32, seed=1), settings, folder, seed=0, fraction=0.5)
    np.save(folder / "predictions.npy", model.predict(toy(32, seed=2)[0].astype("float32"), verbose=0))
"""


def start(*folders):
    code = SCRIPT.format(path=[os.path.dirname(__file__)], folders=list(map(str, folders)))
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})


def test_training_that_was_killed_ends_as_if_undisturbed(tmp_path):
    """Plain training is killed once, and TRADES after it; each time it goes on elsewhere, from its folder alone."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    first = [undisturbed]
    for name, epoch in (("plain", 2), ("trades", 1)):
        process = start(*first, killed)
        while process.poll() is None and not any(
            int(path.stem.split("-")[1]) >= epoch for path in (killed / name).glob("checkpoint-*.keras")
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert epoch <= len(pd.read_csv(killed / name / "history.csv")) < 4
        killed, first = killed.rename(tmp_path / f"carried away, {name}"), []
    assert start(killed).wait() == 0
    for name in ("plain", "trades"):
        for file in ("history.csv", "gamma.csv", "predictions.npy"):
            assert (killed / name / file).read_bytes() == (undisturbed / name / file).read_bytes()
