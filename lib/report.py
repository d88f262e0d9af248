"""One HTML file with a run's claims, figures and tables, and the time that each stage took."""

import base64
import sys
from pathlib import Path

import jinja2
import nbformat
import pandas as pd

from lib import ROOT, StudyError, answers, artifacts, links
from lib.claims import TYPICAL, printed, under
from lib.curves import ATTACK_TITLES
from lib.datasets import DATASETS
from lib.index import FIGURES, figures, write_index
from lib.profile import Profile, load_profile
from lib.run_notebook import run_notebook
from lib.tables import rounded, timings, write_table
from lib.why.summary import direction

EXPLORE = "00_explore"
BEGIN = "<!-- results of figures/{0}, written by: python -m lib.report {0} --readme -->"
END = "<!-- end of results -->"
ANSWER = "<!-- answer of figures/{0}, written by: python -m lib.report {0} --readme -->"
END_ANSWER = "<!-- end of answer -->"
FALLEN = 0.02  # robust accuracy at which nothing much is left to compare

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ profile.title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
h1, h2 { line-height: 1.2 } figure { margin: 2rem 0 } img { max-width: 100%; height: auto }
figcaption, .note { color: #444; font-size: .92rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .84rem } th, td { padding: .25rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } th { border-bottom: 2px solid #777 }
details { margin: 1rem 0 } summary { cursor: pointer; font-weight: 600 }
</style></head><body>
<h1>{{ profile.title }}</h1>
<p>Does a soft attention block make a medical image classifier more robust to adversarial images, at no cost in clean
accuracy? A reproducibility study of Wasserman 2022 (<a href="https://arxiv.org/abs/2210.14405">arXiv:2210.14405</a>).
This report: <b>{{ profile.label }}</b>; {{ profile.backbone_title }}; profile <code>{{ profile.profile }}</code>,
{{ profile.seeds | length }} training run(s) per variant.</p>
<h2>The claims</h2><div class="scroll">{{ claims }}</div>
<h2>Figures</h2>
{% for name, caption, image in figures %}
<figure id="{{ name }}"><img alt="{{ caption }}" src="data:image/png;base64,{{ image }}">
<figcaption>{{ caption }} ({{ profile.label }})</figcaption></figure>
{% endfor %}
<h2>Tables</h2>
{% for title, table in tables %}
<details><summary>{{ title }}</summary><div class="scroll">{{ table }}</div></details>
{% endfor %}
<h2>Where it came from</h2>
<p class="note">{% for key, value in provenance.items() %}{{ key }}: {{ value }}<br>{% endfor %}</p>
</body></html>
"""


def write_report(profile: Profile) -> Path:
    """Write `figures/<profile>/report.html`, with everything embedded, its index and the timings table; return the
    report's path."""
    out = ROOT / "figures" / profile.profile
    spent = timings(ROOT / "data" / "runs" / profile.profile)
    write_table(
        spent,
        out / "tables" / "timings",
        f"Seconds per stage ({profile.label})",
        {"profile": profile.profile},
    )
    tables = _tables(profile)
    if "claims" not in tables:
        raise StudyError(f"{out / 'tables'} has no claims.csv; run the notebooks first, with ./reproduce.")
    record = {name: artifacts.read_provenance(out / "tables" / name) for name in tables}
    pictures = [
        (name, FIGURES[name].shows, base64.b64encode((out / f"{name}.png").read_bytes()).decode())
        for name in figures(out)
    ]

    def html(table):
        return rounded(table).to_html(index=False, border=0)

    page = jinja2.Template(PAGE).render(
        profile=profile,
        claims=html(tables["claims"]),
        figures=pictures,
        tables=[(record[name].get("title", name), html(table)) for name, table in tables.items()],
        provenance={k: v for k, v in record["claims"].items() if k != "title"},
    )
    artifacts.write_text(out / "report.html", page)
    write_index(out)
    stages = spent.groupby("stage", sort=False)["seconds"].sum()
    print("Time per stage: " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in stages.items()))
    return out / "report.html"


def _tables(profile: Profile) -> dict[str, pd.DataFrame]:
    folder = ROOT / "figures" / profile.profile / "tables"
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def readme_section(profile: Profile, tables: dict[str, pd.DataFrame]) -> str:
    """The results of a run as Markdown for the README: claims, clean and robust accuracy, every number with
    its n and 95 % interval. `tables`: those of `figures/<profile>/tables` by name.
    """

    def percent(row, name, low, high):
        return f"{100 * row[name]:.1f} ({100 * row[low]:.1f} to {100 * row[high]:.1f})"

    clean, comparison = tables["clean_accuracy"], tables["comparison"]
    accuracy = clean[["dataset", "variant", "seed", "n"]].assign(
        gamma=clean["gamma"].map(lambda gamma: "-" if pd.isna(gamma) else f"{gamma:.3f}"),
        **{
            "clean accuracy, %": clean.apply(percent, axis=1, args=("accuracy", "ci_low", "ci_high")),
            "balanced, %": clean.apply(
                percent,
                axis=1,
                args=("balanced_accuracy", "balanced_accuracy_ci_low", "balanced_accuracy_ci_high"),
            ),
            "AUC": clean.apply(
                lambda r: f"{r['auc']:.3f} ({r['auc_ci_low']:.3f} to {r['auc_ci_high']:.3f})", axis=1
            ),
        },
    )
    difference = comparison.apply(percent, axis=1, args=("difference", "ci_low", "ci_high"))
    attack = profile.evaluation.named(profile.evaluation.headline)
    here = under(tables["robust_accuracy"], attack.attack, attack.norm, attack.through)
    balanced = here.pivot_table(index=["dataset", "epsilon"], columns="variant", values="balanced")
    balanced = balanced.loc[comparison.set_index(["dataset", "epsilon"]).index]  # mean over the training runs
    robust = comparison[["dataset", "epsilon", "n"]].assign(
        **{name: (100 * comparison[name]).map("{:.1f} %".format) for name in ("baseline", "attention")},
        **{"attention - baseline, points": difference},
        **{
            f"{name}, balanced": [f"{100 * value:.1f} %" for value in balanced[name]]
            for name in ("baseline", "attention")
        },
    )
    constant = "; ".join(
        f"{dataset} {100 * clean.loc[clean['dataset'] == dataset, 'majority'].iloc[0]:.1f} % and "
        f"{100 * rows['majority'].iloc[0]:.1f} %"
        for dataset, rows in here.groupby("dataset", sort=False)
    )
    data = f"**{profile.label}**; {profile.backbone_title}; {len(profile.seeds)} training run(s) per variant"
    departures = f" Not as in the paper: {', '.join(profile.departures)}." if profile.departures else ""
    headline = profile.evaluation.headline
    parts = [
        f"From profile `{profile.profile}`: {data}. Intervals are 95 %.{departures}",
        "\n".join(f"- {sentence}" for sentence in _found(tables, profile)),
        "<details><summary>Claims and tables</summary>",
        "**The claims**, each with a verdict by the rule that stands beside it in "
        f"[`claims.csv`](figures/{profile.profile}/tables/claims.csv):",
        printed(tables["claims"]).to_markdown(index=False, disable_numparse=True),
        "**Clean accuracy** on the whole test split:",
        accuracy.to_markdown(index=False, disable_numparse=True),
        f"**Robust accuracy** under the headline attack, `{headline}`, by budget in gray levels; the difference is "
        "paired by image:",
        robust.astype(str).to_markdown(index=False, disable_numparse=True),
        "A constant answer, the most frequent class, would be right on this share of the test split and of the "
        f"attacked images, whatever the budget: {constant}. Balanced accuracies are means over the classes.",
        f"**Trust**: {answers.by_kind(tables['trust'])}. They look at `{profile.evaluation.gradcam_attack}`, "
        "and `longer ensemble`, where it is among them, at the headline attack cut short, at a "
        f"budget of {profile.evaluation.trust_epsilon:g}; all are in "
        f"[`trust.csv`](figures/{profile.profile}/tables/trust.csv).",
    ]
    return "\n\n".join([*parts, "</details>"])


PARAGRAPH = """\
**{{ verdict }}** On {{ title }}, attention changes robust accuracy under {{ attack }} by {{ difference }} points
against the baseline{% if off %}, though not by attention, whose branch is off{% endif %}; relative, by {{ relative }}
%, where the paper reports {{ paper }}. That is the average over the budgets at which the baseline keeps at least
{{ typical }}, all of them {{ largest }} gray levels or less; n = {{ n }} test images, {{ runs }} of each network.
{% for isolates, change in beside %}Against {{ isolates }}: {{ change }} points. {% endfor %}
{%- if balanced %}With every class weighing the same: {{ balanced }} points. {% endif %}Clean accuracy: {{ clean }}
points, n = {{ n_clean }}. {{ standing }}{% if gain %} What is tested is a weak signal: with gamma as it was learnt
the branch passes on {{ gain }} of the feature map on average.{% endif %}"""

CONTROLS = {
    "pooling": "the same head with the features themselves in attention's place",
    "frozen": "the same block with gamma held at 0",
}


def answer(profile: Profile, tables: dict[str, pd.DataFrame]) -> str:
    """Does attention make the network more robust? Answered for each data set of a run in the numbers of
    `why_attribution`, `claims` and `comparison` (`tables`, by name), as paragraphs of Markdown.
    """

    def change(row, value="difference"):
        return f"{row[value]:+.1f} ({row['ci_low']:.1f} to {row['ci_high']:.1f})"

    yes, no, unseen = "Yes, in this run.", "No, it does the opposite.", "Not that this run could see."
    attack = profile.evaluation.named(profile.evaluation.headline)
    numbers = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in attack.parameters.items())
    ledger, paragraphs = tables["claims"].set_index(["claim", "dataset"]), []
    clean_models = tables["clean_accuracy"]
    for dataset, rows in tables["why_attribution"].groupby("dataset", sort=False):
        rows = rows.set_index("against")
        row, relative, clean = rows.loc["baseline"], ledger.loc[("C1", dataset)], ledger.loc[("C3", dataset)]
        verdict = direction(row, 0, yes, no)
        paragraph = jinja2.Template(PARAGRAPH).render(
            verdict=verdict if verdict in (yes, no) else unseen,
            title=DATASETS[dataset].named(phantom=profile.phantom is not None),
            attack=f"{ATTACK_TITLES[attack.attack]} ({numbers})",
            difference=change(row),
            off="not to be attributed" in row["conclusion"],
            relative=change(relative, "ours"),
            paper=relative["paper"].removesuffix(" (relative)"),
            typical=f"{100 * TYPICAL:.0f} %",
            largest=row["epsilons"].split()[-1],
            n=row["n"],
            runs=f"{row['seeds']} training runs" if row["seeds"] > 1 else "one training run",
            beside=[
                (
                    f"{words}{'' if rows.loc[name, 'seeds'] > 1 else ' (one training run)'}",
                    change(rows.loc[name]),
                )
                for name, words in CONTROLS.items()
                if name in rows.index
            ],
            balanced=change(ledger.loc[("S3", dataset)], "ours") if ("S3", dataset) in ledger.index else "",
            gain=answers.gains(
                clean_models[clean_models["dataset"] == dataset], profile.model.attention_maps
            ),
            clean=change(clean, "ours"),
            n_clean=f"{clean['n']:.0f}",
            standing=_standing(tables, dataset),
        )
        paragraphs.append(paragraph.replace("\n", " "))
    return "\n\n".join(
        [*paragraphs, "In brackets: 95 % intervals, paired by image, over images and training runs."]
    )


def _standing(tables, dataset) -> str:
    rows = tables["comparison"][tables["comparison"]["dataset"] == dataset]
    fallen = rows[rows[["baseline", "attention"]].max(axis="columns") < FALLEN]
    if fallen.empty:
        return f"Some images stand at all budgets, up to {rows['epsilon'].max():g} gray levels."
    return (
        f"From {fallen['epsilon'].min():g} gray levels on, each of the two networks keeps less than "
        f"{100 * FALLEN:.0f} % of the {rows['n'].iloc[0]} images"
        + (", on average over its training runs." if rows["seeds"].iloc[0] > 1 else ".")
    )


def _found(tables, profile) -> list[str]:
    """What a reader wants to know first: what attention does, to what it is due, and what stands in the end."""
    comparison, clean, headline = tables["comparison"], tables["clean_accuracy"], profile.evaluation.headline
    sentences = [*tables.get("why_findings", {"sentence": []})["sentence"]]
    if "why_attribution" in tables:  # its comparison with the baseline is the first of the findings
        attributed = tables["why_attribution"]
        sentences += [*attributed.loc[attributed["against"] != "baseline", "conclusion"]]
    sentences += [
        f"{name} under `{headline}`: {_standing(tables, name)}" for name in comparison["dataset"].unique()
    ]
    sentences += [
        f"{name}: {said}"
        for name, rows in clean.groupby("dataset", sort=False)
        if (said := answers.branch(rows, profile.model.attention_maps))
    ]
    if "why_sanity" in tables:
        sentences.append(answers.sound(tables["why_sanity"], profile.label))
    return [sentence for sentence in sentences if sentence]


def write_readme(profile: Profile) -> None:
    """Put the results of a run, and the answer where it has a place, between their markers in the README."""
    tables, readme = _tables(profile), ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if (begin := BEGIN.format(profile.profile)) not in text:
        raise StudyError(f"README.md has no place for the results of {profile.profile}: a line `{begin}`.")
    for begin, end, write in ((BEGIN, END, readme_section), (ANSWER, END_ANSWER, answer)):
        head, found, rest = text.partition(begin.format(profile.profile))
        if found:
            text = f"{head}{found}\n\n{write(profile, tables)}\n\n{end}{rest.split(end, 1)[1]}"
    artifacts.write_text(readme, text)


def render_notebooks(profile: Profile) -> None:
    """Put the outputs of a run into `notebooks/*.ipynb`, each for the data set that it names by default, and the lines
    that their links to code mean today.

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
            else:
                cell.source = links.anchored(cell.source)
        with artifacts.replacing(path) as temporary:
            nbformat.write(notebook, temporary)


def _code(cells):
    """The code of each cell, None for text, whose links depend on where the notebook lies."""
    return [cell.source if cell.cell_type == "code" else None for cell in cells]


if __name__ == "__main__":
    try:
        profile = load_profile(sys.argv[1])
        if (
            "--readme" in sys.argv
        ):  # what this repository shows: both runs in the README, one in the notebooks
            write_readme(profile)
            if profile.profile == "quick":
                render_notebooks(profile)
            write_index(ROOT / "figures" / profile.profile)
        else:
            write_report(profile)
    except StudyError as error:
        sys.exit(f"report: {error}")
