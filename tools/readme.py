"""What this repository shows of its runs: their results in its pages, and the outputs of one in the notebooks."""

import jinja2
import nbformat
import pandas as pd

from lib import PUBLISHED, ROOT, StudyError, artifacts
from lib.data import DATASETS
from lib.evaluation.claims import PAPER_GAIN, estimate, first_pair, stem
from lib.evaluation.planned import by_dose
from lib.evaluation.tasks import ALL, TASKS
from lib.profile import Profile, load_profile
from lib.report import sentences
from lib.report.tables import written
from tools import links
from tools.run_notebook import run_notebook

EXPLORE = "00_explore"
PROFILE = DATASET = "ham10000"  # the run on real data that leads, and of which most is told
BESIDE = {  # runs beside it, and what is different in them
    "ham10000-adam": "with the paper's own optimiser",
    "ham10000-binary": "with two classes",
}
IMAGES = {"ham10000": "skin lesions", "chestxray14": "chest x-rays", "eyepacs": "fundus photographs"}
PAGES = {"answer": "README.md", "results": "README.md", "findings": "docs/findings.md"}  # where each part stands
BEGIN, END = "<!-- {0}: written by ./reproduce publish -->", "<!-- end of {0} -->"


def parts() -> dict[str, str]:
    """What the published tables say, as Markdown: the answer and the results, of all tasks, and findings of a run."""
    settings, tables = load_profile(PROFILE), _tables(PROFILE, DATASET)
    tasks = {DATASET: tables} | {name: _tables(name, name) for name in TASKS[1:]}
    primary, controls, secondary = sentences.by_kind(tables["effects"])
    titles, accuracy = sentences.titles_of(settings), tables["clean_accuracy"]
    beside = [(name, words, _table(name, "effects")) for name, words in BESIDE.items()]
    values = {
        "words": sentences.lead(primary, controls),
        "primary": primary,
        "controls": controls,
        "secondary": secondary,
        "say": sentences.say,
        "tables": tables,
        "tasks": tasks,
        "titles": titles,
        "shown": IMAGES,
        "together": _table(PROFILE, "tasks"),
        "everywhere": ALL,
        "published": {name: DATASETS[name].images for name in tasks},
        "adam": written(PUBLISHED / "ham10000-adam" / "tables"),
        "over": [*dict.fromkeys(one for one, _ in settings.judged), "baseline"],
        "spread": tables["spread"].to_dict("records"),
        "paper": PAPER_GAIN,
        "doses": list(by_dose(tables["dose"]).itertuples()),
        "matched": [
            r for t in tasks.values() for r in by_dose(t["dose"]).itertuples() if r.variant == "uniform-matched"
        ],
        "fallen": sentences.by_budget(tables["convergence"]),
        "beside": [(name, words, sentences.by_kind(rows)[0]) for name, words, rows in beside],
        "accuracy": list(100 * accuracy["accuracy"]),
        "constant": 100 * accuracy["majority"].iloc[0],
        "network": settings.backbone_title,
        "size": settings.preprocessing.image_size,
        "claims": _claims(tasks),
        "pair": settings.judged[0],
    }
    template = jinja2.Template((ROOT / "tools" / "readme.md.j2").read_text(), undefined=jinja2.StrictUndefined)
    return {part: template.render(part=part, **values).strip() for part in PAGES}


def _tables(profile: str, dataset: str) -> dict[str, pd.DataFrame]:
    """The published tables of a run, of one of its data sets."""
    tables = written(PUBLISHED / profile / "tables").items()
    return {name: table[table["dataset"].isin([dataset, "any"])] for name, table in tables if "dataset" in table}


def _table(profile: str, name: str) -> pd.DataFrame:
    """A table of a published run as it is; empty where there is none."""
    path = PUBLISHED / profile / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _claims(tasks: dict[str, dict]) -> list[dict]:
    """The claims of the paper's own comparison: of each, what it says and, for each task, what came out."""
    found = {}
    for name, tables in tasks.items():
        for row in first_pair(tables["claims"]).to_dict("records"):
            said = estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"]).replace(" (relative)", "")
            of = f", n = {row['n']:.0f}, runs = {row['runs']:.0f}" if pd.notna(row["runs"]) else ""
            found.setdefault(row["claim"], row | {"here": {}})["here"][name] = f"{said}{of}: {stem(row['verdict'])}"
    return list(found.values())


def write_pages() -> None:
    """Put what is published between its markers in the README and docs/findings.md.

    Raises StudyError if a marker is missing.
    """
    for name, said in parts().items():
        path, begin, end = ROOT / PAGES[name], BEGIN.format(name), END.format(name)
        text = path.read_text(encoding="utf-8")
        if begin not in text or end not in text:
            raise StudyError(f"{path.name} has no place for its {name}: lines `{begin}` and `{end}`.")
        artifacts.write_text(path, f"{text.split(begin)[0]}{begin}\n\n{said}\n\n{end}{text.split(end, 1)[1]}")


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
