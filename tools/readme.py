"""What this repository shows of its runs: their results in the README, and the outputs of one in the notebooks."""

from pathlib import Path

import jinja2
import nbformat
import pandas as pd

from lib import PUBLISHED, ROOT, StudyError, artifacts
from lib.evaluation.claims import PAPER_GAIN, estimate, first_pair, stem
from lib.evaluation.comparison import largest_gains
from lib.profile import Profile, load_profile
from lib.report.sentences import gains
from lib.report.tables import written
from tools.run_notebook import run_notebook

EXPLORE = "00_explore"
PROFILE, REPEAT = (
    "ham10000-cpu",
    "ham10000-seeds",
)  # real data, and more training runs of the same two networks
BEGIN, END = "<!-- {0}: written by ./reproduce publish -->", "<!-- end of {0} -->"


def parts() -> dict[str, str]:
    """What the published tables say in the README, as Markdown: the answer and the results."""
    tables, repeated = (written(PUBLISHED / name / "tables") for name in (PROFILE, REPEAT))
    first, more = (
        {row["claim"]: row for row in first_pair(found["claims"]).to_dict("records")} for found in (tables, repeated)
    )
    network = repeated["clean_accuracy"].query("variant in ('baseline', 'attention')")
    gain = 100 * gains(network["gamma"].dropna(), load_profile(PROFILE).model)
    points = repeated["why_attribution"].set_index("against").loc["baseline"]
    relative, runs = more["C1"], int(points["seeds"])
    low, high = relative["ci_low"], relative["ci_high"]
    verdict = "Attention helps." if low > 0 else "Attention harms." if high < 0 else "No measurable effect."
    holds_paper = low <= PAPER_GAIN <= high
    curves = pd.concat([tables["robust_accuracy"], repeated["robust_accuracy"]])
    maxima = largest_gains(curves.query("attack == 'autoattack' and norm == 'linf' and through == 'logits'"))
    reach = {name: rows["typical"] >= PAPER_GAIN for name, rows in maxima.groupby("pair")}
    values = {
        "maxima": {name.split()[0]: (int(which.sum()), len(which)) for name, which in reach.items()},
        "verdict": "Inconclusive." if low <= 0 and holds_paper else verdict,
        "holds_paper": holds_paper,
        "points": points.rename({"difference": "ours"}),
        "relative": relative,
        "clean": more["C3"],
        "paper": PAPER_GAIN,
        "runs": runs,
        "gain": f"{gain.min():.1f} to {gain.max():.1f}",
        "accuracy": f"{100 * network['accuracy'].min():.0f} to {100 * network['accuracy'].max():.0f}",
        "constant": f"{100 * network['majority'].iloc[0]:.0f}",
        "claims": [_row(row, more, runs, int(tables["why_attribution"]["seeds"].max())) for row in first.values()],
        "profile": PROFILE,
        "repeat": REPEAT,
    }
    template = jinja2.Template((ROOT / "tools" / "readme.md.j2").read_text(), undefined=jinja2.StrictUndefined)
    return {part: template.render(part=part, **values).strip() for part in ("answer", "results")}


def _row(row: dict, more: dict, runs: int, fewer: int) -> dict:
    """A line of the claims' table, of the run with more training runs where that has judged the claim on robustness."""
    repeats = row["claim"] in ("C1", "C2", "C3", "S3")
    row = more[row["claim"]] if repeats else row
    of_runs = row["claim"] not in ("C4", "C5")
    return row | {
        "here": estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"]),
        "images": f"{row['n']:.0f}" if of_runs else "-",
        "runs": (runs if repeats else fewer) if of_runs else "-",
        "verdict": stem(row["verdict"]),
    }


def write_readme(path: Path = ROOT / "README.md") -> None:
    """Put the results that are published between their markers in the README; StudyError if a marker is missing."""
    text = path.read_text(encoding="utf-8")
    for name, said in parts().items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin not in text or end not in text:
            raise StudyError(f"{path.name} has no place for its {name}: lines `{begin}` and `{end}`.")
        text = f"{text.split(begin)[0]}{begin}\n\n{said}\n\n{end}{text.split(end, 1)[1]}"
    artifacts.write_text(path, text)


def render_notebooks(profile: Profile) -> None:
    """Put the outputs of a run into `notebooks/*.ipynb`, each for the data set that it names by default.

    00_explore is no stage of a run, so it is run here, on the models that the run left.
    """
    for path in sorted((ROOT / "notebooks").glob("0[0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        defaults = {}
        exec(next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", [])), defaults)
        suffix = "" if path.stem.endswith("results") else f"_{defaults['dataset']}_seed{defaults['seed']}"
        executed = ROOT / "figures" / profile.profile / "notebooks" / f"{path.stem}{suffix}.ipynb"
        if path.stem == EXPLORE:
            run_notebook(path.stem, executed, {"profile": profile.profile})
        if not executed.is_file():
            raise StudyError(f"There is no {executed}; run ./reproduce --profile {profile.profile} first.")
        cells = [
            cell
            for cell in nbformat.read(executed, as_version=4).cells
            if "injected-parameters" not in cell.metadata.get("tags", [])
        ]
        if _code(cells) != _code(notebook.cells):
            raise StudyError(f"{executed} is not of this {path.name}; run ./reproduce again.")
        for cell, done in zip(notebook.cells, cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = done.outputs, done.execution_count
        with artifacts.replacing(path) as temporary:
            nbformat.write(notebook, temporary)


def _code(cells):
    """The code of each cell, None for text, whose links depend on where the notebook lies."""
    return [cell.source if cell.cell_type == "code" else None for cell in cells]
