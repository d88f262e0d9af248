import json
from pathlib import Path

import pytest

from lib import StudyError, artifacts


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv"
    artifacts.write_text(path, "old")

    def interrupted():
        with artifacts.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_cached_makes_once_per_key_and_again_when_the_key_changes(tmp_path):
    made = []

    def get(key):
        return artifacts.cached(
            tmp_path / "a.txt",
            key,
            lambda p: (made.append(key), p.write_text(key)),
            lambda p: p.read_text(),
            seed=3,
        )

    assert [get("x"), get("x"), get("y"), get("x")] == ["x", "x", "y", "x"]
    assert made == ["x", "y", "x"]
    record = json.loads((tmp_path / "a.txt.provenance.json").read_text())
    assert record["key"] == "x"
    assert record["seed"] == 3
    assert set(record) >= {"commit", "packages", "machine", "date", "python", "seconds"}


def test_cached_does_not_trust_a_file_whose_making_failed(tmp_path):
    path = tmp_path / "a.txt"
    artifacts.cached(path, "x", lambda p: p.write_text("good"), lambda p: p.read_text())

    def fails(temporary):
        temporary.write_text("bad")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        artifacts.cached(path, "y", fails, lambda p: p.read_text())
    assert artifacts.cached(path, "y", lambda p: p.write_text("made"), lambda p: p.read_text()) == "made"


def test_what_other_code_found_of_a_network_is_taken_or_refused_and_data_are_made_as_ever(tmp_path):
    def ask(name, key, **facts):
        return artifacts.cached(tmp_path / name, key, lambda path: path.write_text(key), Path.read_text, **facts)

    ask("outcomes", "other", variant="baseline")
    with artifacts.as_it_lies(take=False):
        assert ask("index", "this") == "this"
        for name in ("outcomes", "missing"):
            with pytest.raises(StudyError, match=f"{name} is missing, or was made by other code"):
                ask(name, "this", variant="baseline")
        assert ask("outcomes", "other", variant="baseline") == "other", "this code's own"
    with artifacts.as_it_lies(take=True):
        assert ask("outcomes", "this", variant="baseline") == "other"
        assert ask("index", "that") == "that"
    record = artifacts.read_provenance(tmp_path / "outcomes")
    assert record["key"] == "this"
    assert record["taken_over"]["commit"] == record["commit"]
    assert ask("outcomes", "new", variant="baseline") == "new", "outside of it all is as ever"
