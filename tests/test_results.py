"""A network's results as one file: what comes out is what went in, and nothing else's is taken."""

import io
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from lib import StudyError, artifacts
from lib.artifacts.sources import code_key
from lib.data.prepared import Prepared, Rows
from lib.evaluation.attacked import directions_of, outcomes_of
from lib.study import Study
from lib.study.explanations import branch_of, spread_of
from lib.study.pack import _images
from lib.study.results import WEIGHTS, Packed, _learnt, pack, unpack


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of which one network is trained: frozen stem, kept as float16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
        study = Study("test", "chestxray14", 0)
    study.runs = tmp_path_factory.mktemp("runs")
    profile = study.profile
    study.profile = profile.model_copy(
        update={
            "model": profile.model.model_copy(update={"frozen_up_to": "pool1_pool"}),
            "training": profile.training.model_copy(update={"views": 8, "kept_as": "float16", "epochs": 1}),
        }
    )
    study.predictions_of("attention")
    outcomes_of(study, "attention")
    directions_of(study, "attention")
    spread_of(study, "attention")
    branch_of(study, "attention")
    return study


@pytest.fixture
def elsewhere(study, tmp_path, monkeypatch):
    """The same study on another machine, which has none of the results."""
    other = study._with(runs=tmp_path / "runs")
    monkeypatch.setattr("lib.study.results.Study", lambda *_: other)
    return other


def test_results_and_weights_come_out_as_they_went_in(study, elsewhere, tmp_path, monkeypatch):
    pack(study, "attention", tmp_path / "network.zip", weights=True)
    assert unpack(tmp_path / "network.zip") == (elsewhere, "attention")
    monkeypatch.setattr("lib.study.study.train", None)  # nothing is trained again
    there, here = elsewhere.trained("attention"), study.trained("attention")
    pd.testing.assert_frame_equal(there[1], here[1])
    for one, other in zip(there[0].get_weights(), here[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for read in (type(study).predictions_of, branch_of, spread_of):
        pd.testing.assert_frame_equal(read(elsewhere, "attention"), read(study, "attention"))
    with zipfile.ZipFile(tmp_path / "network.zip") as file, np.load(file.open("weights.npz")) as weights:
        kinds = {int(name.split("/")[0]): weight.dtype for name, weight in weights.items()}
    assert set(kinds.values()) == {np.dtype("float16")}
    layers = [layer.name for layer in here[0].layers if layer.weights]
    assert not any(layers[place].startswith("conv1") for place in kinds), "the stem is nobody's result"


def test_weights_find_layers_whose_names_keras_makes_up(monkeypatch, tmp_path):
    def network(*_):
        keras.utils.set_random_seed(0)
        dense = [keras.layers.Dense(2) for _ in range(3)]  # dense_4, dense_5 and so on: other names each time
        return keras.Sequential([keras.Input((2,)), *dense])

    trained = network()
    trained.layers[1].set_weights([np.float32([[1, 2], [3, 4]]), np.float32([5, 6])])
    monkeypatch.setattr("lib.study.results._untrained", network)
    held = io.BytesIO()
    np.savez(held, **_learnt(SimpleNamespace(trained=lambda _: (trained, None)), "baseline"))
    packed = Packed(tmp_path, None, "baseline", {}, {}, {WEIGHTS: held.getvalue()})
    for one, other in zip(packed.model().get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_weights_what_was_measured_is_there(study, elsewhere, tmp_path, monkeypatch):
    pack(study, "attention", tmp_path / "network.zip")
    unpack(tmp_path / "network.zip")
    monkeypatch.setattr("lib.study.study.train", None)
    assert not (elsewhere.directory("attention") / "model.keras").exists()
    pd.testing.assert_frame_equal(elsewhere.history("attention"), study.history("attention"))
    pd.testing.assert_frame_equal(elsewhere.predictions_of("attention"), study.predictions_of("attention"))


def test_the_same_results_are_the_same_file(study, tmp_path):
    for name in ("one.zip", "two.zip"):
        pack(study, "attention", tmp_path / name, weights=True)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_what_does_not_belong_is_refused_in_one_sentence(study, elsewhere, tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="no finished baseline of seed 0 in test"):
        pack(study, "baseline", tmp_path / "network.zip")
    pack(study, "attention", tmp_path / "network.zip")
    elsewhere.profile = study.profile.model_copy(
        update={"training": study.profile.training.model_copy(update={"learning_rate": 0.5})}
    )
    for verified in (False, True):
        with pytest.raises(StudyError, match="was made with other settings"):
            unpack(tmp_path / "network.zip", verified=verified)
    monkeypatch.setattr(type(elsewhere), "fingerprint", "another")
    with pytest.raises(StudyError, match="of other data"):
        unpack(tmp_path / "network.zip")
    (tmp_path / "no.zip").write_bytes(b"nothing")
    with pytest.raises(StudyError, match="does not hold the results of a network"):
        unpack(tmp_path / "no.zip")
    assert not elsewhere.directory("attention").exists()


def test_what_other_code_made_is_taken_over_once_it_is_verified(study, elsewhere, tmp_path, monkeypatch):
    pack(study, "attention", tmp_path / "network.zip")
    made = study.directory("attention") / "predictions.csv"
    monkeypatch.setattr("lib.study.study.code_key", lambda *_: "other code")
    with pytest.raises(StudyError, match="by other code"):
        unpack(tmp_path / "network.zip")
    for name in ("train", "robust_accuracy"):  # nothing is made again
        monkeypatch.setattr(f"lib.study.study.{name}", None)
    unpack(tmp_path / "network.zip", verified=True)
    pd.testing.assert_frame_equal(elsewhere.predictions_of("attention"), artifacts.read_table(made))
    record = artifacts.read_provenance(elsewhere.directory("attention") / "predictions.csv")
    first = artifacts.read_provenance(made)
    assert record["key"] != first["key"]
    assert record["commit"] == first["commit"], "who made it stays beside who took it over"
    assert record["taken_over"]["commit"]


def test_outcomes_of_other_attacks_are_told_from_those_of_these_where_the_network_is_the_same(
    study, elsewhere, tmp_path, monkeypatch
):
    pack(study, "attention", tmp_path / "network.zip")

    def code(function, *more):
        return "other attacks" if function.__module__ == "lib.evaluation.attacked" else code_key(function, *more)

    monkeypatch.setattr("lib.study.study.code_key", code)
    monkeypatch.setattr("lib.study.study.robust_accuracy", None)  # nothing is attacked
    assert elsewhere.model_key("attention") == study.model_key("attention")
    with pytest.raises(StudyError, match=r"results by other code \(see ./reproduce verify\): .*-linf.csv"):
        unpack(tmp_path / "network.zip")
    unpack(tmp_path / "network.zip", verified=True)
    outcomes_of(elsewhere, "attention")
    records = [artifacts.read_provenance(path) for path in elsewhere.directory("attention").glob("attacks/*.csv")]
    assert records
    assert all(record["taken_over"]["commit"] for record in records)


@pytest.mark.parametrize(("limit", "kind"), [(None, "raw"), (2, "packed")])
def test_a_part_of_the_data_travels_as_arrays_with_its_split(tmp_path, limit, kind):
    for name in ("labels.csv", "one.jpg", "two.jpg"):
        (tmp_path / "ham10000").mkdir(exist_ok=True)
        (tmp_path / "ham10000" / name).write_bytes(b"some bytes")
    index = pd.DataFrame({"path": [str(tmp_path / "ham10000" / name) for name in ("one.jpg", "two.jpg")]})
    images = Rows(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2))  # larger than the files
    study = SimpleNamespace(
        prepared=Prepared(index, images, "0" * 16),
        images=images,
        raw=tmp_path,
        dataset="ham10000",
        profile=SimpleNamespace(split=SimpleNamespace(max_images=limit)),
    )
    names = [name for name, _ in _images(study)]
    assert names
    assert all(name.startswith(f"data/{kind}/ham10000/") for name in names)


def test_as_many_images_of_each_class_are_attacked_as_there_are(study):
    test = study.index[study.index["split"] == "test"]
    least = int(test["label"].value_counts().min())
    for wanted in (4, 2 * least + 6):
        evaluation = study.profile.evaluation.model_copy(update={"balanced": True, "images": wanted})
        other = study._with(profile=study.profile.model_copy(update={"evaluation": evaluation}))
        other.__dict__.pop("evaluated", None)
        chosen = other.evaluated["label"].value_counts()
        expected = test["label"].value_counts().clip(upper=wanted // 2)
        assert chosen.to_dict() == expected.to_dict()
        assert other.evaluated.index.is_monotonic_increasing
