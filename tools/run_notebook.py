"""Run one notebook through papermill: `python -m tools.run_notebook 03_attacks out.ipynb -p dataset ham10000`."""

import argparse
import os
import re
import sys
import warnings
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from lib import ROOT, artifacts
from tools import links

WIDGET = "application/vnd.jupyter.widget-view+json"
TRIES = 3  # kernels that start side by side can race for a port and die before they answer


def run_notebook(name: str, output: Path, parameters: dict) -> None:
    """Execute `notebooks/<name>.ipynb` with `parameters` into `output`, which appears only when all ran.

    What a failed run had shown is kept beside it as `<output>.failed.ipynb`. Raises
    PapermillExecutionError when a cell fails.
    """
    source = ROOT / "notebooks" / f"{name}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    for attempt in range(1, TRIES + 1):
        try:
            quiet = {"progress_bar": False, "log_output": False, "coalesce_streams": True}
            papermill.execute_notebook(source, partial, parameters, cwd=ROOT / "notebooks", **quiet)
            break
        except RuntimeError as error:  # nbclient's DeadKernelError and jupyter_client's start-up failures
            if attempt == TRIES or "Kernel died" not in str(error):
                raise
            print(f"{name}: the kernel died ({error}); trying again", file=sys.stderr)
    _settle(partial, source.parent)
    partial.replace(output)


def _settle(path: Path, written_for: Path) -> None:
    """Take out what differs between two equal runs (times, the place it ran), so that a rerun is no change, and let
    relative links, written for another folder, lead from where the notebook lies now."""
    notebook = nbformat.read(path, as_version=4)
    links.move(notebook, written_for, path.parent)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Progress bars and warnings belong to the log; of a widget with a picture, the picture stays.
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output["data"].pop(WIDGET, None)
            cell.outputs = [
                out for out in cell.outputs if out.get("name") != "stderr" and WIDGET not in out.get("data", {})
            ]
    _name_outputs(notebook)
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "parameters-given"  # papermill draws one
            if not (ROOT / given.get("data", "")).resolve().is_relative_to(ROOT):
                # Where the data lie on one machine says nothing to a reader: the place they have by default does.
                cell.source = cell.source.replace(repr(given["data"])[1:-1], "data/raw")
                given["data"] = "data/raw"
    keep = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata = nbformat.from_dict(keep | {"papermill": {"parameters": given}})
    with artifacts.replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def _name_outputs(notebook) -> None:
    """Number the tables that pandas' Styler gives a random name in each rendering, and take addresses off objects."""
    outputs = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    for number, data in enumerate(outputs):
        if "text/plain" in data:
            data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
        if found := re.search(r'<table id="(T_\w+?)"', data.get("text/html", "")):
            data["text/html"] = data["text/html"].replace(found[1], f"T_{number}")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="run_notebook", description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args(arguments)
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    # The kernel's `lib` is this folder's, whichever the environment was made for.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    warnings.filterwarnings("ignore")
    try:
        run_notebook(options.notebook, options.output, parameters)
    except PapermillExecutionError as error:
        where = ", ".join(f"{k} {v}" for k, v in parameters.items())
        print(
            f"\n{options.notebook} ({where}) failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"The notebook as far as it came: {options.output.with_suffix('.failed.ipynb')}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
