"""What the graph watches is what Python imports."""

import json
import subprocess
import sys

import pytest

from lib import ROOT
from lib.sources import sources

LOADED = (
    "import importlib, json, sys; importlib.import_module(sys.argv[1]); "
    "print(json.dumps([m.__file__ for m in list(sys.modules.values()) if (m.__name__ + '.').startswith('lib.')]))"
)


@pytest.mark.parametrize("module", ["lib.report", "lib.why.conclusions"])
def test_every_file_that_an_import_runs_is_a_source(module):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, module], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {path.removeprefix(f"{ROOT}/") for path in json.loads(done.stdout.splitlines()[-1])}
    assert len(loaded) > 5
    assert loaded <= set(sources(module.replace(".", "/") + ".py"))


def test_notebooks_have_what_they_import_and_what_that_imports():
    found = sources("notebooks/03_attacks.ipynb")
    assert {
        "notebooks/03_attacks.ipynb",
        "lib/answers.py",
        "lib/statistics.py",
        "lib/attacks/apgd.py",
    } <= set(found)
    assert any(name.endswith(".yaml") for name in found)
    assert "lib/readme.py" not in found


def test_imports_inside_functions_and_commands_of_notebooks_are_understood(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.sources.ROOT", tmp_path)
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    for name, text in {
        "lib/__init__.py": "",
        "lib/deep/__init__.py": "",
        "lib/deep/end.py": "x = 1",
        "lib/deep/table.yaml": "{}",
        "lib/late.py": "def f():\n    from lib.deep.end import x\n    return x",
        "lib/other.py": "",
    }.items():
        (tmp_path / name).write_text(text)
    cell = {"cell_type": "code", "source": ["%matplotlib inline\n", "from lib import late\n", "import numpy"]}
    (tmp_path / "n.ipynb").write_text(
        json.dumps({"cells": [cell, {"cell_type": "markdown", "source": ["import lib.other"]}]})
    )
    assert sources("n.ipynb") == [
        "lib/__init__.py",
        "lib/deep/__init__.py",
        "lib/deep/end.py",
        "lib/deep/table.yaml",
        "lib/late.py",
        "n.ipynb",
    ]
