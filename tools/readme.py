"""What this repository shows of its runs: their results in the README, and the outputs of one in the notebooks."""

from pathlib import Path

import jinja2
import nbformat
import pandas as pd

from lib import PUBLISHED, ROOT, StudyError, artifacts
from lib.data import DATASETS
from lib.evaluation.claims import PAPER_GAIN, estimate, first_pair, stem
from lib.evaluation.planned import by_dose
from lib.profile import Profile, load_profile
from lib.report import sentences
from lib.report.tables import written
from tools import links
from tools.run_notebook import run_notebook

EXPLORE = "00_explore"
PROFILE = DATASET = "ham10000"  # the run on real data that the README leads with
BESIDE = {  # runs beside it, and what is different in them
    "ham10000-adam": "with the paper's own optimiser",
    "ham10000-binary": "with two classes",
}
BEGIN, END = "<!-- {0}: written by ./reproduce publish -->", "<!-- end of {0} -->"


def parts(profile: str = PROFILE) -> dict[str, str]:
    """What the published tables of a run say in the README, as Markdown: the answer, the results and the findings."""
    settings, tables = load_profile(profile), written(PUBLISHED / profile / "tables")
    tables = {
        name: table[table["dataset"].isin([DATASET, "any"])] for name, table in tables.items() if "dataset" in table
    }
    effects, claims = tables["effects"], first_pair(tables["claims"])
    primary, controls, secondary = sentences.by_kind(effects)
    doses = [row for row in by_dose(tables["dose"]).itertuples() if row.variant.startswith("attention")]
    accuracy = tables["clean_accuracy"]
    title = sentences.titles_of(settings)[DATASET]
    beside = [(name, words, _effects(name)) for name, words in BESIDE.items() if profile == PROFILE]
    values = {
        "words": sentences.lead(primary, controls),
        "images": title if settings.phantom else f"real dermatoscopic images ({title})",
        "primary": primary,
        "controls": controls,
        "secondary": secondary,
        "say": sentences.say,
        "tables": tables,
        "adam": written(PUBLISHED / "ham10000-adam" / "tables") if profile == PROFILE else {},
        "over": [*dict.fromkeys(one for one, _ in settings.judged), "baseline"],
        "used": int(tables["datasets"]["n"].sum()),
        "all": DATASETS[DATASET].images,
        "spread": tables.get("spread", pd.DataFrame()).to_dict("records"),
        "paper": PAPER_GAIN,
        "doses": doses,
        "fallen": tables.get("convergence", pd.DataFrame()).to_dict("records"),
        "beside": [(name, words, sentences.by_kind(rows)[0]) for name, words, rows in beside if len(rows)],
        "strong": list(_effects("ham10000-strong").itertuples()) if profile == PROFILE else [],
        "accuracy": list(100 * accuracy["accuracy"]),
        "constant": 100 * accuracy["majority"].iloc[0],
        "network": settings.backbone_title,
        "size": settings.preprocessing.image_size,
        "claims": [_row(row) for row in claims.to_dict("records")],
        "pair": settings.judged[0],
        "profile": profile,
    }
    template = jinja2.Template((ROOT / "tools" / "readme.md.j2").read_text(), undefined=jinja2.StrictUndefined)
    return {part: template.render(part=part, **values).strip() for part in ("answer", "results", "findings")}


def _effects(name: str) -> pd.DataFrame:
    """The comparisons of a published run; empty where there is none."""
    path = PUBLISHED / name / "tables" / "effects.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _row(row: dict) -> dict:
    """A line of the claims' table."""
    of_runs = pd.notna(row["runs"])
    return row | {
        "here": estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"]),
        "images": f"{row['n']:.0f}" if of_runs else "-",
        "runs": f"{row['runs']:.0f}" if of_runs else "-",
        "verdict": stem(row["verdict"]),
    }


def write_readme(path: Path = ROOT / "README.md") -> None:
    """Put the results that are published between their markers in the README.

    Raises StudyError if a marker is missing.
    """
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
                links.move_outputs(done.outputs, executed.parent, path.parent)
                cell.outputs, cell.execution_count = done.outputs, done.execution_count
        with artifacts.replacing(path) as temporary:
            nbformat.write(notebook, temporary)


def _code(cells):
    """The code of each cell, None for text, whose links depend on where the notebook lies."""
    return [cell.source if cell.cell_type == "code" else None for cell in cells]
