"""Published networks against what is published of them: the same network agrees, another does not."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from lib import StudyError
from lib.evaluation.attacked import outcomes_of_one
from lib.study import Study
from lib.study.explanations import branch_of
from lib.study.results import opened, pack
from lib.study.verify import main, verify


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The file of a network that was trained and attacked, and the study that it is of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.study.study.set_determinism", lambda *_: None)  # TensorFlow may run already
        study = Study("test", "chestxray14", 1)  # of which only the headline attack is made
    folder = tmp_path_factory.mktemp("published")
    study.runs = folder / "runs"
    study.predictions_of("baseline")
    outcomes_of_one(study, "baseline", study.headline())
    branch_of(study, "baseline")
    path = folder / "test" / "chestxray14-seed1-baseline.zip"
    pack(study, "baseline", path, weights=True)
    return path


@pytest.fixture
def packed(published, monkeypatch):
    monkeypatch.setattr("lib.study.study.set_determinism", lambda *_: None)
    return opened(published)


def test_the_same_network_agrees_image_by_image(packed):
    row = verify(packed, images=8)
    assert row["answers_differ"] == row["outcomes_differ"] == 0
    assert row["probability"] < 1e-5
    assert row["outcomes"] == 8 * 2
    assert row["here"] == row["published"]
    assert row["agrees"]


def test_another_network_does_not(packed, monkeypatch):
    model = packed.model()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel[:, ::-1], bias[::-1]])  # it answers the other way round
    monkeypatch.setattr(type(packed), "model", lambda _: model)
    row = verify(packed, images=8)
    assert row["answers_differ"] > 0.9 * row["answers"]
    assert not row["agrees"]


def test_the_command_says_what_it_found(published, packed, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("lib.study.verify.PUBLISHED", published.parents[1])
    monkeypatch.setattr("lib.study.verify.ROOT", tmp_path)
    table = main("test", "data/raw")
    assert table["agrees"].all()
    assert (tmp_path / "data" / "runs" / "test" / "verified.csv").is_file()
    assert "baseline, seed 1: agrees; 0 of" in capsys.readouterr().out
    with zipfile.ZipFile(published) as file, zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
        for name in file.namelist():
            if name != "weights.npz":
                bare.writestr(name, file.read(name))
    (tmp_path / "test").mkdir()
    (tmp_path / "bare.zip").rename(tmp_path / "test" / "bare.zip")
    monkeypatch.setattr("lib.study.verify.PUBLISHED", tmp_path)
    with pytest.raises(StudyError, match="No network of test is published with its weights"):
        main("test", "data/raw")


def test_other_copies_of_the_images_are_compared_by_name_and_are_no_disagreement(
    published, packed, monkeypatch, capsys, tmp_path
):
    row = verify(packed, images=8)
    index = packed.study.index
    more = index[index["split"] != "test"].assign(split="test")  # another folder is split otherwise
    fewer = index[index["split"] == "test"].iloc[::-1].iloc[:10].assign(split="train")
    monkeypatch.setattr(Study, "fingerprint", "another")
    monkeypatch.setattr(Study, "index", pd.concat([more, fewer]))
    other = verify(packed, images=8)
    assert other["answers"] == 10
    assert other["answers_differ"] == 0, "the same pixels, found by their names"
    assert row["same_data"]
    assert not other["same_data"]
    monkeypatch.setattr("lib.study.verify.PUBLISHED", published.parents[1])
    monkeypatch.setattr("lib.study.verify.ROOT", tmp_path)
    monkeypatch.setattr("lib.study.verify.ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))  # knows the patches
    assert len(main("test", "data/raw")) == 1
    said = capsys.readouterr().out
    assert "baseline, seed 1: agrees; 0 of 10" in said
    assert "other copies than the published ones" in said
    with monkeypatch.context() as patch:
        patch.setattr("lib.study.verify.ANSWERS", -1.0)  # as if they answered otherwise
        assert not main("test", "data/raw")["agrees"].any()
    said = capsys.readouterr().out
    assert "baseline, seed 1: other images or starting weights; 0 of 10" in said
    assert said.endswith("No verdict: that may be why some networks answer otherwise.\n")
    with pytest.raises(StudyError, match="only where images and starting weights are the same"):
        main("test", "data/raw", take_over=True)
    monkeypatch.setattr(Study, "index", more.iloc[:0])
    with pytest.raises(StudyError, match=r"None of the .* test images of .*baseline.zip is in this data folder"):
        verify(opened(published))


def test_other_settings_are_nothing_to_compare_with(packed, monkeypatch):
    monkeypatch.setattr("lib.study.results._settings", lambda _: {})
    with pytest.raises(StudyError, match="was made with other settings"):
        verify(packed)


def test_a_file_that_lacks_an_outcome_is_refused_and_not_taken_to_agree(packed, monkeypatch):
    name = f"attacks/{packed.study.headline().name}.csv"
    text = packed.files[name].decode().splitlines()
    monkeypatch.setitem(packed.files, name, "\n".join(text[:-1]).encode())
    with pytest.raises(StudyError, match=r"baseline\.zip lacks outcomes of"):
        verify(packed, images=len(packed.study.evaluated))
