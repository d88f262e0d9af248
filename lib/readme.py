"""What this repository shows of its runs: their results in the README, and the outputs of one in the notebooks."""

import nbformat
import pandas as pd

from lib import PUBLISHED, ROOT, StudyError, answers, artifacts, links, opening
from lib.claims import printed, under
from lib.datasets import DATASETS
from lib.profile import Profile
from lib.run_notebook import run_notebook
from lib.tables import markdown, written

EXPLORE = "00_explore"
BEGIN = "<!-- results of figures/published/{0}, written by: ./reproduce publish {0} -->"
END = "<!-- end of results -->"
ANSWER = "<!-- answer of figures/published/{0}, written by: ./reproduce publish {0} -->"
END_ANSWER = "<!-- end of answer -->"


def section(profile: Profile, tables: dict[str, pd.DataFrame]) -> str:
    """The results of a run as Markdown for the README, every number with its n and 95 % interval.

    What was found, and of original data the claims, clean and robust accuracy; of phantoms the tables are named.
    `tables`: those of `figures/published/<profile>/tables` by name.
    """
    titles = {name: DATASETS[name].named(phantom=profile.phantom is not None) for name in profile.datasets}
    tables = {name: table.replace({"dataset": titles}) for name, table in tables.items()}
    place, headline = f"figures/published/{profile.profile}/tables", profile.evaluation.headline
    data = f"**{profile.label}**; {profile.backbone_title}; {len(profile.seeds)} training run(s) per variant"
    departures = f" Not as in the paper: {', '.join(profile.departures)}." if profile.departures else ""
    said = [
        f"From profile `{profile.profile}`: {data}. Intervals are 95 %.{departures}",
        "\n".join(f"- {sentence}" for sentence in _found(tables, profile)),
    ]
    checks = (
        f"**Trust**: {answers.by_kind(tables['trust'])}. They look at `{profile.evaluation.gradcam_attack}` at a "
        f"budget of {profile.evaluation.trust_epsilon:g}; of them, `longer ensemble` runs AutoAttack again with more "
        f"steps ([`trust.csv`]({place}/trust.csv))."
    )
    if profile.phantom is not None:
        named = (
            ("claims", "the claims and their verdicts"),
            ("clean_accuracy", "clean accuracy"),
            ("comparison", "robust accuracy, attention against baseline"),
        )
        shown = ", ".join(f"[{words}]({place}/{name}.csv)" for name, words in named)
        return "\n\n".join([*said, checks, f"The tables: {shown}."])
    clean, robust, constant = _tables(profile, tables)
    return "\n\n".join(
        [
            *said,
            "<details><summary>Claims and tables</summary>",
            "**The claims**, each with a verdict by the rule that stands beside it in "
            f"[`claims.csv`]({place}/claims.csv):",
            markdown(printed(tables["claims"])),
            "**Clean accuracy** on the whole test split:",
            markdown(clean),
            f"**Robust accuracy** under the headline attack, `{headline}`, by budget in gray levels; the difference is "
            "paired by image:",
            markdown(robust),
            "A constant answer, the most frequent class, would be right on this share of the test split and of the "
            f"attacked images, whatever the budget: {constant}. Balanced accuracies are means over the classes.",
            checks,
            "</details>",
        ]
    )


def _tables(profile, tables) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Clean and robust accuracy as text, and what a constant answer would have."""

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
    return accuracy, robust, constant


def _found(tables, profile) -> list[str]:
    """What a reader wants to know first: what attention does, to what it is due, and what stands in the end."""
    comparison, clean, headline = tables["comparison"], tables["clean_accuracy"], profile.evaluation.headline
    sentences = [*tables.get("why_findings", {"sentence": []})["sentence"]]
    if "why_attribution" in tables:  # its comparison with the baseline is the first of the findings
        attributed = tables["why_attribution"]
        sentences += [*attributed.loc[attributed["against"] != "baseline", "conclusion"]]
    standing = {name: opening.standing(tables, name) for name in comparison["dataset"].unique()}
    sentences += [
        f"{', '.join(name for name in standing if standing[name] == said)} under `{headline}`: {said}"
        for said in dict.fromkeys(standing.values())
    ]
    sentences.append(_gamma(clean, profile.model.attention_maps))
    if "why_sanity" in tables:
        sentences.append(answers.sound(tables["why_sanity"], profile.label))
    return [sentence for sentence in sentences if sentence]


def _gamma(clean, maps) -> str:
    """Gamma of the attention blocks that were kept, and what the branch passes on; "" without such blocks."""
    said = []
    for dataset, rows in clean[clean["variant"] == "attention"].groupby("dataset", sort=False):
        values = ", ".join(f"{gamma:.2g}" for gamma in rows["gamma"])
        off = (rows["gamma"] <= 0).sum()
        passed = f"off in {off} of {len(rows)}" if off else answers.gains(rows, maps)
        said.append(f"{dataset} {values} ({passed})")
    if not said:
        return ""
    return (
        "Gamma of the attention block, and in brackets what the branch multiplies features by, on average over a map "
        f"of 7 x 7, and more where attention peaks (off: gamma at or below 0, it passes nothing on): {'; '.join(said)}."
    )


def write_readme(profile: Profile) -> None:
    """Put the results of a run, and the answer where it has a place, between their markers in the README."""
    readme = ROOT / "README.md"
    tables = written(PUBLISHED / profile.profile / "tables")
    text = readme.read_text(encoding="utf-8")
    if (begin := BEGIN.format(profile.profile)) not in text:
        raise StudyError(f"README.md has no place for the results of {profile.profile}: a line `{begin}`.")
    for begin, end, write in ((BEGIN, END, section), (ANSWER, END_ANSWER, opening.answer)):
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
