"""What ./reproduce hands on to Snakemake, on pretended clusters."""

import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import nbformat
import pytest

from lib import ROOT
from lib.profile import load_profile
from tools import run_notebook
from tools.run_notebook import _settle


@pytest.fixture
def reproduce(monkeypatch):
    """The script as a module that neither sets up nor runs anything; `handed` has what it would run last."""
    loader = SourceFileLoader("reproduce", str(ROOT / "reproduce"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = module_from_spec(spec_from_loader("reproduce", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(module, "lock", lambda _: 0)
    monkeypatch.setattr(module, "run", lambda *command, **_: setattr(module, "handed", command) or 0)
    return module


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Make Slurm's commands answer with this configuration and these generic resources."""

    def pretend(configuration, resources="(null)"):
        answers = {"sbatch": "", "scontrol": configuration, "sinfo": resources}
        for name, answer in answers.items():
            (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return pretend


def call(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["reproduce", *words])
    with pytest.raises(SystemExit) as left:
        module.main()
    assert not left.value.code
    return list(module.handed)[list(module.handed).index("snakemake") :]


def after(command, option):
    return command[command.index(option) + 1]


def test_the_workflow_has_a_job_for_every_network_of_the_planned_study(tmp_path):
    profile = load_profile("ham10000")  # with variants that have a digit in their name, and runs of different number
    words = ["--dry-run", "--quiet", "rules", "--nolock", "--cores", "1"]
    words += ["--config", "profile=ham10000", f"data={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "snakemake", *words], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    jobs = re.search(r"^variant +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    assert int(jobs[1]) == sum(len(profile.variants_of(seed)) for seed in profile.seeds)


def test_values_of_snakemakes_options_are_no_targets(reproduce, monkeypatch):
    command = call(reproduce, monkeypatch, "--cores", "3", "--forcerun", "train", "--jobs", "36")
    assert command[:5] == ["snakemake", "--forcerun", "train", "--jobs", "36"]
    assert after(command, "--cores") == "3"
    assert "--" not in command
    assert call(reproduce, monkeypatch, "results", "--cores", "3")[:2] == ["snakemake", "results"]


def test_without_accounts_squeue_is_asked_before_slurm_forgets(reproduce, cluster, monkeypatch):
    cluster("AccountingStorageType   = accounting_storage/none\nMinJobAge               = 60 sec")
    command = call(reproduce, monkeypatch, "--executor", "slurm", "--jobs", "36", "--retries", "5")
    assert after(command, "--slurm-status-command") == "squeue"
    # The plugin goes back to sacct when three checks do not fit into the time that Slurm remembers a job.
    assert int(after(command, "--slurm-init-seconds-before-status-checks")) * 3 <= 60
    assert command.count("--retries") == 1
    assert after(command, "--retries") == "5"
    assert {"threads=8", "gpus=0"} <= set(command)
    assert "--cores" not in command


def test_with_accounts_the_plugins_own_way_is_kept(reproduce, cluster, monkeypatch):
    cluster("AccountingStorageType   = accounting_storage/slurmdbd\nMinJobAge   = 300 sec", "gpu:v100:4")
    command = call(reproduce, monkeypatch, "--executor", "slurm", "--jobs", "36", "--cores", "4")
    assert not [word for word in command if word.startswith("--slurm")]
    assert {"threads=4", "gpus=1"} <= set(command)


def test_a_machine_without_slurm_is_told_so_in_one_sentence(reproduce, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["reproduce", "--executor", "slurm", "--jobs", "36"])
    with pytest.raises(SystemExit, match=r"^reproduce: --executor slurm needs Slurm's commands.*login node\.$"):
        reproduce.main()


def test_slurm_is_refused_where_the_path_has_a_space(reproduce, cluster, monkeypatch, tmp_path):
    cluster("AccountingStorageType   = accounting_storage/slurmdbd")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path / "my study")
    monkeypatch.setattr(sys, "argv", ["reproduce", "--executor", "slurm", "--jobs", "36"])
    with pytest.raises(SystemExit, match=r"^reproduce: on Slurm every job fails in a folder with a space"):
        reproduce.main()


def test_windows_is_told_of_wsl_in_one_sentence(reproduce, monkeypatch):
    monkeypatch.setattr(reproduce.os, "name", "nt")
    monkeypatch.setattr(sys, "argv", ["reproduce"])
    with pytest.raises(SystemExit, match=r"^reproduce: .*WSL"):
        reproduce.main()


@pytest.mark.parametrize(
    ("given", "kept"),
    [("../../elsewhere/data", "data/raw"), ("/srv/data", "data/raw"), ("data/mine", "data/mine")],
)
def test_a_kept_notebook_does_not_say_where_on_this_machine_the_data_lay(tmp_path, given, kept):
    cell = nbformat.v4.new_code_cell(f'data = "{given}"', metadata={"tags": ["injected-parameters"]})
    facts = {"name": "python3", "display_name": "Python 3"}, {"name": "python"}
    metadata = {
        "kernelspec": facts[0],
        "language_info": facts[1],
        "papermill": {"parameters": {"data": given}},
    }
    path = tmp_path / "run.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), path)
    _settle(path, tmp_path)
    settled = nbformat.read(path, as_version=4)
    assert settled.cells[0].source == f'data = "{kept}"'
    assert settled.metadata["papermill"]["parameters"] == {"data": kept}


def test_two_equal_runs_of_a_notebook_are_the_same_bytes(tmp_path, monkeypatch):
    source = """import time
import pandas as pd
from IPython.display import display
for _ in range(3):
    print("a line", flush=True)
    time.sleep(0.2)
display(pd.DataFrame({"a": [number]}).style)
object()"""
    cells = [
        nbformat.v4.new_code_cell("number = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(source),
    ]
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebooks" / "n.ipynb")
    monkeypatch.setattr(run_notebook, "ROOT", tmp_path)
    first, second = tmp_path / "1" / "n.ipynb", tmp_path / "2" / "n.ipynb"
    for path in (first, second):
        run_notebook.run_notebook("n", path, {"number": 2})
    assert "<object>" in first.read_text()
    assert first.read_bytes() == second.read_bytes()


def test_a_second_copy_runs_its_own_code_in_the_environment_of_the_first(tmp_path):
    """One environment, two checkouts: the kernel imports the copy's code, or it is said that it does not."""
    for name in ("lib", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell("import lib\nprint(lib.ROOT)")
    cell.metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebooks" / "where.ipynb")
    here = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = [sys.executable, "-m", "tools.run_notebook", "where", tmp_path / "out.ipynb"]
    subprocess.run(run, cwd=tmp_path, env=here, check=True)
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text.strip() == str(tmp_path.resolve())
    opened = subprocess.run(  # as JupyterLab would start it: Python has the code that the environment was made for
        [sys.executable, "-P", "-c", "import lib"], cwd=tmp_path / "notebooks",
        env=here | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    said = opened.stderr.strip().splitlines()[-1]
    assert f"This runs in {tmp_path}, and Python imports the code of {ROOT}" in said
