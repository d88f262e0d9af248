"""What the graph watches is what Python imports; what a kept result's key holds is the code behind it."""

import ast
import functools
import json
import subprocess
import sys
import types

import pytest

from lib import ROOT, StudyError
from lib.artifacts import sources as module_of_sources
from lib.artifacts.sources import code_key, sources
from lib.data.prepared import prepare
from lib.data.preprocessing import images_and_records
from lib.evaluation import attacked
from lib.explain import measured
from lib.models.adversarial import AdversarialTrainer
from lib.study import Study, explanations
from lib.study.study import _fit

LOADED = (
    "import importlib, json, sys; importlib.import_module(sys.argv[1]); "
    "print(json.dumps([m.__file__ for m in list(sys.modules.values()) if (m.__name__ + '.').startswith('lib.')]))"
)


@pytest.mark.parametrize("module", ["lib.report.page", "lib.report.conclusions"])
def test_every_file_that_an_import_runs_is_a_source(module):
    done = subprocess.run([sys.executable, "-c", LOADED, module], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {path.removeprefix(f"{ROOT}/") for path in json.loads(done.stdout.splitlines()[-1])}
    assert len(loaded) > 5
    assert loaded <= set(sources(module.replace(".", "/") + ".py"))


def test_notebooks_have_what_they_import_and_what_that_imports():
    found = sources("notebooks/03_attacks.ipynb")
    assert {
        "notebooks/03_attacks.ipynb",
        "lib/report/sentences.py",
        "lib/evaluation/statistics.py",
        "lib/attacks/apgd.py",
    } <= set(found)
    assert any(name.endswith(".yaml") for name in found)
    assert "tools/readme.py" not in found


def test_imports_inside_functions_and_commands_of_notebooks_are_understood(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.artifacts.sources.ROOT", tmp_path)
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


def nested(function, name="make"):
    """The function of that name that is defined in another, as a function."""
    code = [function.__code__]
    while code:
        inner = code.pop()
        if inner.co_name == name:
            return type(function)(
                inner, function.__globals__, name, None, tuple(map(types.CellType, inner.co_freevars))
            )
        code += [part for part in inner.co_consts if isinstance(part, types.CodeType)]
    raise AssertionError(f"{function.__name__} has no {name}")


RESULTS = {
    "model": [_fit],
    "adversarially trained model": [_fit, AdversarialTrainer],
    "pixels": [images_and_records],
    "index": [prepare],
    "outcomes": [nested(attacked._attacked)],
    "trust": [nested(attacked.trust_checks)],
    "explanations": [nested(explanations.explanations)],
    "predictions": [nested(Study.predictions_of)],
    "surface": [nested(measured.loss_surface)],
}
BEHIND = [
    ("model", "models/training"), ("model", "models/attention"), ("model", "models/backbones"),
    ("model", "study/study"),
    ("adversarially trained model", "models/adversarial"), ("adversarially trained model", "attacks/base"),
    ("pixels", "data/preprocessing"), ("pixels", "data/decoding"), ("pixels", "data/medmnist"),
    ("index", "data/splits"), ("index", "data/labels"), ("index", "data/check"), ("index", "data/medmnist"),
    ("outcomes", "attacks/apgd"), ("outcomes", "evaluation/robustness"), ("outcomes", "evaluation/attacked"),
    ("trust", "attacks/trust"), ("trust", "evaluation/attacked"),
    ("explanations", "explain/gradcam"), ("explanations", "attacks/gradient_attacks"),
    ("explanations", "study/explanations"),
    ("predictions", "study/study"),
    ("surface", "explain/surface"), ("surface", "explain/selected"), ("surface", "explain/measured"),
]  # fmt: skip
NOT_BEHIND = [
    ("model", "attacks/base"), ("model", "models/adversarial"), ("model", "data/check"), ("model", "report/tables"),
    ("model", "profile/settings"), ("pixels", "data/check"), ("pixels", "data/splits"), ("pixels", "models/training"),
    ("index", "data/fetch"), ("index", "models/training"), ("outcomes", "explain/gradcam"),
    ("outcomes", "models/training"), ("outcomes", "report/curves"), ("outcomes", "evaluation/claims"),
    ("trust", "explain/surface"),
    ("explanations", "evaluation/statistics"), ("explanations", "report/figures"), ("predictions", "attacks/base"),
    ("surface", "report/charts"),
]  # fmt: skip


def forget():
    for name in ("_key", "_code_of", "_defined", "_imports"):
        getattr(module_of_sources, name).cache_clear()


@pytest.fixture
def edited(monkeypatch):
    """Makes one module look as if every function in it, and it itself, had a statement more."""

    def edit(name, text="edited = 1"):
        path = ROOT / "lib" / f"{name}.py"
        assert path.is_file()
        tree = ast.parse(path.read_text())
        statement = ast.parse(text).body
        for node in [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))]:
            node.body = node.body + statement
        parse = module_of_sources._parsed.__wrapped__
        changed = functools.cache(lambda file: tree if file == path else parse(file))
        monkeypatch.setattr(module_of_sources, "_parsed", changed)
        forget()

    yield edit
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(("result", "module"), BEHIND)
def test_an_edit_behind_a_result_makes_it_again(edited, result, module):
    before = code_key(*RESULTS[result])
    edited(module)
    assert code_key(*RESULTS[result]) != before


@pytest.mark.parametrize(("result", "module"), NOT_BEHIND)
def test_an_edit_elsewhere_does_not(edited, result, module):
    before = code_key(*RESULTS[result])
    edited(module)
    assert code_key(*RESULTS[result]) == before


@pytest.mark.parametrize("text", ["'a comment'", "import json", "from numpy import linalg"])
def test_words_and_imports_make_nothing_again(edited, text):
    before = code_key(_fit)
    for name in ("models/training", "models/attention"):
        edited(name, text)
        assert code_key(_fit) == before


def test_code_that_was_changed_while_it_runs_gives_no_key(monkeypatch):
    """It would be the key of what does not run: git pull beside a training, or an edit beside an open notebook."""
    path = ROOT / "lib" / "models" / "attention.py"
    monkeypatch.setitem(module_of_sources._AT_START, path, path.stat().st_mtime_ns - 1)
    monkeypatch.setattr(module_of_sources, "_parsed", functools.cache(module_of_sources._parsed.__wrapped__))
    forget()
    with pytest.raises(StudyError, match=r"attention\.py was changed while this ran: start it"):
        code_key(_fit)
    assert code_key(images_and_records), "which that file has no part in"
