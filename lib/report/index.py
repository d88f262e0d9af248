"""What each figure and table of a run shows, what made it, from which run, and the paper's counterpart."""

import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from lib import PUBLISHED, ROOT, StudyError, artifacts


class Entry(NamedTuple):
    """What `catalogue.yaml` says of a figure or table; `paper`: what answers to it there, `made_by`: a file's path."""

    title: str
    shows: str
    paper: str
    made_by: str


def _catalogue(kind: str) -> dict[str, Entry]:
    known = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    return {name: Entry(**about) for name, about in known[kind].items()}


FIGURES, TABLES = _catalogue("figures"), _catalogue("tables")


def figures(folder: Path) -> list[str]:
    """The figures in a folder of results by name, in the order of `FIGURES`.

    Others, which an earlier version may have left there, are left out, and so are those of one data set.
    """
    return [name for name in FIGURES if (folder / f"{name}.png").is_file()]


def tables(folder: Path) -> list[Path]:
    """The tables of a folder of results, without their extension, in the order of `TABLES`, unknown ones last.

    They lie in its `tables`, or in the folder itself where there is none.
    """
    place = folder / "tables" if (folder / "tables").is_dir() else folder
    names = sorted({path.name.split(".")[0] for path in place.glob("*.csv*")})
    return [place / name for name in sorted(names, key=lambda name: [*TABLES, name].index(name))]


def entry(known: dict[str, Entry], name: str) -> Entry:
    """What `FIGURES` or `TABLES` says of a name; raises StudyError where it says nothing."""
    if name not in known:
        raise StudyError(
            f"lib/report/catalogue.yaml says nothing of {name!r}; add what it shows and the paper's counterpart."
        )
    return known[name]


def _made(folder, about):
    up = "../" * len(folder.relative_to(ROOT).parts)
    return f"[{Path(about.made_by).name}]({up}{about.made_by})"


PER_IMAGE = {
    "outcomes": "robust_accuracy",
    "predictions": "clean_accuracy",
    "shifts": "gradcam_shift",
    "natural": "natural_changes",
    "images": "datasets",
}
"""Tables of images, and the table computed from each, which has the record of the run."""


def _run(path, folder):
    """One line on the run that an artifact is from, and the link to the whole record."""
    path = path.with_name(PER_IMAGE.get(path.name, path.name))
    record = artifacts.read_provenance(path)
    if not record:
        return f"[machine and versions]({path.name}.json)" if path.with_suffix(".json").is_file() else "no record"
    seeds = record.get("seed", [])
    seeds = ", ".join(map(str, seeds if isinstance(seeds, list) else [seeds]))
    link = path.relative_to(folder).as_posix() + artifacts.PROVENANCE
    words = [f"commit `{record['commit'][:7]}`", record["date"][:10], f"seed {seeds}" if seeds else ""]
    return ", ".join(filter(None, words)) + f" ([record]({link}))"


def index(folder: Path) -> str:
    """The index of a folder of results (`figures/<profile>`) as Markdown, with links relative to that folder.

    Raises StudyError for a table of which nothing is known.
    """
    stamps = [artifacts.read_provenance(folder / name).get("label", "") for name in figures(folder)]
    parts = [
        f"# Figures and tables: {folder.name}",
        f"**{stamps[0].rstrip('.')}.**" if stamps else "",
        "What each figure and table shows, what made it, from which run, and the paper's counterpart (our copy of the "
        "paper lacks section 3.4, section 4 and all figures but the first). Written by `python -m lib.report.index`.",
        "## Figures",
    ]
    for name in figures(folder):
        about = FIGURES[name]
        parts += [
            f"### {about.title}",
            f"![{about.shows}]({name}.png)",
            f"*{about.shows}*",
            f"- Made by: {_made(folder, about)}\n- In the paper: {about.paper}\n- Files: "
            + ", ".join(f"[{said}]({file.name})" for said, file in _files(folder, name)),
        ]
    rows = ["| table | what it shows | made by | run | in the paper | files |", "|:--|:--|:--|:--|:--|:--|"]
    for path in (path for path in tables(folder) if path.name != "timings"):
        about = entry(TABLES, path.name)
        files = [path.with_suffix(suffix) for suffix in (".md", ".csv", ".csv.gz", ".tex", ".json")]
        links = [
            f"[{file.name[len(path.name) + 1 :]}]({file.relative_to(folder).as_posix()})"
            for file in files
            if file.is_file()
        ]
        cells = [about.title, about.shows, _made(folder, about), _run(path, folder), about.paper]
        rows.append(f"| {' | '.join([*cells, ', '.join(links)])} |")
    return "\n\n".join([*filter(None, parts), "## Tables", "\n".join(rows)]) + "\n"


def _files(folder, name):
    kinds = {"PNG": ".png", "PDF": ".pdf", "record": artifacts.PROVENANCE}
    return [(said, file) for said, suffix in kinds.items() if (file := folder / f"{name}{suffix}").is_file()]


def write_index(folder: Path) -> None:
    """Write `index.md` into a folder of results."""
    artifacts.write_text(folder / "index.md", index(folder))


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            write_index(PUBLISHED / name)
    except StudyError as error:
        sys.exit(f"index: {error}")
