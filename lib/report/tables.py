"""The tidy tables of a run, computed from per-image outcomes, and their files (.csv, .md, .tex)."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from lib.artifacts import PROVENANCE, read_provenance, replacing, write_provenance, write_text
from lib.evaluation import natural
from lib.evaluation.classification import balanced_accuracy, macro_auc
from lib.evaluation.comparison import median_distance, shares, softmax_gap
from lib.evaluation.planned import RUN, with_worst_case
from lib.evaluation.statistics import accuracy_over_seeds, mean_interval, proportion
from lib.profile import Training
from lib.report.index import TABLES

MEASURES = {"rank_correlation": "rank correlation", "ssim": "SSIM", "top20_overlap": "overlap of the top 20 %"}


def clean_accuracy(
    predictions: pd.DataFrame, histories: pd.DataFrame, parameters: pd.DataFrame, settings: Training
) -> pd.DataFrame:
    """Accuracy on the whole test split with 95 % intervals, parameters, and where training stopped.

    `kept_epoch` is the epoch whose weights the model has, and `gamma` the attention block's scalar there.
    `majority` is the accuracy of a constant answer, the most frequent class.
    """
    rows = []
    for run, group in predictions.groupby(RUN, sort=False):
        scores = group.filter(regex=r"^p\d+$").dropna(axis="columns").to_numpy()
        accuracy = proportion(group["correct"].to_numpy(bool))
        balanced = balanced_accuracy(group["label"], group["predicted"])
        auc = macro_auc(group["label"], scores)
        counts = _of_run(parameters, run).iloc[0]
        history = _of_run(histories, run)
        kept = history[history["kept"]].iloc[0]
        rows.append(
            dict(zip(RUN, run, strict=True))
            | {"n": len(group), "accuracy": accuracy.estimate, "ci_low": accuracy.low, "ci_high": accuracy.high}
            | {"majority": _majority(group["label"])}
            | _with_interval("balanced_accuracy", balanced)
            | _with_interval("auc", auc)
            | {
                "parameters": int(counts["parameters"]),
                "attention_parameters": int(counts["attention_parameters"]),
                "attention_percent": counts["attention_percent"],
                "stopped_epoch": len(history),
                "epochs_max": settings.epochs,
                "kept_epoch": int(kept["epoch"]),
                "gamma": kept["gamma"],
            }
        )
    return pd.DataFrame(rows)


def _of_run(table, run):
    return table[(table[RUN] == list(run)).all(axis=1)]


def _majority(labels) -> float:
    return float(labels.value_counts(normalize=True).iloc[0])


def _with_interval(name, interval):
    return {name: interval.estimate, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}


def robust_accuracy(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per run, attack and epsilon with Wilson's 95 % interval; epsilon 0 is the clean image.

    Beside it `balanced`, the mean over the classes with a stratified bootstrap interval, and `majority`, what a
    constant answer, the most frequent class, keeps at every budget.
    """
    keys = [*RUN, "attack", "norm", "through", "epsilon"]
    rows = []
    for key, group in outcomes.groupby(keys, sort=False):
        correct = group["correct"].to_numpy(bool)
        # A class that does not occur stands for every wrong answer: only hits count.
        balanced = balanced_accuracy(group["label"], group["label"].where(correct, -1))
        rows.append((*key, len(group), *proportion(correct), *balanced, _majority(group["label"])))
    values = ["robust_accuracy", "ci_low", "ci_high", "balanced", "balanced_low", "balanced_high", "majority"]
    table = pd.DataFrame(rows, columns=[*keys, "n", *values])
    return table[[column for column in table if column != "through"] + ["through"]]


def over_seeds(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy over the training runs of a variant, with a 95 % interval over images and, if there are
    several runs, over seeds: dataset, variant, attack, norm, epsilon, n (images), seeds, robust_accuracy, ci_low,
    ci_high, through."""
    keys = ["dataset", "variant", "attack", "norm", "epsilon", "through"]
    rows = []
    for key, group in outcomes.groupby(keys, sort=False):
        correct = group.pivot_table(index="seed", columns="image_id", values="correct").to_numpy(float)
        rows.append((*key, correct.shape[1], len(correct), *accuracy_over_seeds(correct)))
    table = pd.DataFrame(rows, columns=[*keys, "n", "seeds", "robust_accuracy", "ci_low", "ci_high"])
    return table[[column for column in table if column != "through"] + ["through"]]


def _in_percent(table: pd.DataFrame, share: str) -> list[str]:
    """A share of each row and its 95 % interval in percent, as text."""
    percent = 100 * table[[share, "ci_low", "ci_high"]]
    return [f"{value:.0f} ({low:.0f} to {high:.0f})" for value, low, high in percent.itertuples(index=False)]


def printed(robust: pd.DataFrame, epsilons=None) -> pd.DataFrame:
    """Robust accuracies as a paper prints them: a row per attack and network, a column per epsilon, each cell percent
    and 95 % interval. `robust` as from `robust_accuracy` or `over_seeds`, of one norm; `epsilons`: those wanted or all.
    """
    wanted = robust if epsilons is None else robust[robust["epsilon"].isin([0, *epsilons])]
    cells = wanted.assign(
        attack=wanted["attack"].where(wanted["through"] == "logits", wanted["attack"] + " (softmax)"),
        cell=_in_percent(wanted, "robust_accuracy"),
    )
    rows = [name for name in ("dataset", "attack", "variant", "seed", "seeds", "n") if name in cells]
    return cells.pivot_table(index=rows, columns="epsilon", values="cell", aggfunc="first", sort=False)


def distances(outcomes: pd.DataFrame) -> pd.DataFrame:
    """How far the nearest known adversarial image is, by run and norm: the smallest over all attacks.

    Over the images that are right unperturbed, as from `lib.evaluation.comparison.median_distance`, in pixel units.
    Smallest known distances are upper bounds of the true ones.
    """
    rows = []
    for key, group in outcomes.groupby([*RUN, "norm"], sort=False):
        smallest = group.groupby("image_id")["smallest_epsilon"].min().to_numpy()
        if (smallest > 0).any():
            rows.append((*key, *median_distance(smallest[smallest > 0])))
    return pd.DataFrame(rows, columns=[*RUN, "norm", "n", "median", "ci_low", "ci_high", "unbroken"])


def reached(directions: pd.DataFrame) -> pd.DataFrame:
    """Share of images that an attack moved from one class to another, with Wilson's 95 % interval; `directions` as
    from `lib.evaluation.directions`."""
    return shares(directions, [*RUN, "start", "goal", "attack", "epsilon"], "reached", "reached")


def gradcam_shift(shifts: pd.DataFrame) -> pd.DataFrame:
    """Mean agreement of the maps of a clean image and of its adversarial version, with 95 % intervals.

    1 means that the map did not move. `undefined` counts the images whose map is constant before or after the
    attack; they have no such number and are not in the mean.
    """
    rows = []
    for key, group in shifts.groupby([*RUN, "map"], sort=False):
        for measure, title in MEASURES.items():
            lowest = 0 if measure == "top20_overlap" else -1
            mean = mean_interval(group[measure].to_numpy(), bounds=(lowest, 1))
            rows.append((*key, title, mean.n, mean.mean, mean.low, mean.high, mean.undefined))
    columns = [*RUN, "map", "measure", "n", "mean", "ci_low", "ci_high", "undefined"]
    return pd.DataFrame(rows, columns=columns)


def ways(moved: pd.DataFrame) -> pd.DataFrame:
    """`reached` as text: percent of images with 95 % intervals, a column per epsilon."""
    moved = moved.assign(share=_in_percent(moved, "reached"), way=moved["start"] + " → " + moved["goal"])
    rows = ["way", "attack", "variant", "n"]
    return moved.pivot_table(index=rows, columns="epsilon", values="share", aggfunc="first", sort=False)


def everything(frames: dict[str, pd.DataFrame], counts: pd.DataFrame, settings: Training) -> dict[str, pd.DataFrame]:
    """The tables of a run by file name; `frames` as from `lib.study.Runs.frames`, `counts` as from `class_counts`."""
    outcomes, shifts = frames["outcomes"], frames["shifts"]
    under_all = with_worst_case(outcomes)
    return {
        "datasets": counts,
        "clean_accuracy": clean_accuracy(frames["predictions"], frames["histories"], frames["parameters"], settings),
        "robust_accuracy": robust_accuracy(under_all),
        "robust_accuracy_over_seeds": over_seeds(under_all),
        "distances": distances(outcomes),
        "softmax_gap": softmax_gap(outcomes),
        "directions": reached(frames["directions"]),
        "trust": frames["checks"],
        "gradcam_shift": gradcam_shift(shifts),
        "natural_changes": natural.over_severities(frames["natural"]),
    }


def write_run(folder: Path, tables: dict[str, pd.DataFrame], images: dict[str, pd.DataFrame], label: str, provenance):
    """Write a run's tables, and what was seen image by image, into `folder`; what a former run left there goes.

    `tables` by name, of which empty ones are left out, each with the title that the catalogue has for it; `images`:
    per-image tables, written as `<name>.csv.gz`, the same bytes for the same rows, numbers to six digits, probabilities
    to three. `label`: what data they are of.
    """
    tables = {name: table for name, table in tables.items() if len(table)}
    keep_only(folder, tables)
    for name, table in tables.items():
        write_table(table, folder / name, f"{TABLES[name].title}: {TABLES[name].shows} ({label})", provenance)
    for name, table in images.items():
        packed = {"method": "gzip", "mtime": 0}
        path = folder / f"{name}.csv.gz"
        digits = "%.3g" if name == "predictions" else "%.6g"
        table.assign(data=label).to_csv(path, index=False, float_format=digits, compression=packed)


def timings(runs: Path) -> pd.DataFrame:
    """Seconds of wall clock: columns stage, dataset, seed, variant, seconds.

    Per stage as Snakemake measured its last run, which takes what it finds; and per variant what the parts of
    its stages took when they were made ("made: model", "made: attacks" and so on, each the sum of its files).
    """
    spent = Counter()
    for path in sorted(runs.rglob("*.tsv")):
        *folders, _ = path.relative_to(runs).parts
        dataset, seed, variant = (*folders, "all", "all", "all")[:3]
        spent[path.stem, dataset, seed, variant] = pd.read_csv(path, sep="\t")["s"].iloc[0]
    for path in sorted(runs.glob(f"*/seed*/*/**/*{PROVENANCE}")):
        dataset, seed, variant, part = path.relative_to(runs).parts[:4]
        stage = f"made: {part.split('.')[0].split('-')[0]}"  # convergence-0.2.csv is a part of it
        made = read_provenance(path.with_name(path.name.removesuffix(PROVENANCE)))
        spent[stage, dataset, seed, variant] += made.get("seconds", 0)
    rows = [
        (stage, dataset, seed.removeprefix("seed"), variant, round(seconds, 1))
        for (stage, dataset, seed, variant), seconds in spent.items()
    ]
    return pd.DataFrame(rows, columns=["stage", "dataset", "seed", "variant", "seconds"])


def write_table(table: pd.DataFrame, path: Path, title: str, provenance: dict) -> None:
    """Write `<path>.csv`, `.md` and `.tex` (booktabs) and the provenance of the table.

    The CSV holds every digit and is what programs read; the others are for people and round. What data the numbers are
    of, `provenance["data"]`, is a column of the CSV and should be said by `title`.
    """
    csv, md, tex = (path.with_suffix(suffix) for suffix in (".csv", ".md", ".tex"))
    with replacing(csv) as temporary:
        said = {"data": provenance["data"]} if "data" in provenance else {}
        table.assign(**said).to_csv(temporary, index=False, lineterminator="\n")
    short = rounded(table)
    write_text(md, f"**{title}**\n\n{markdown(short)}\n")
    write_text(tex, latex(short, title, path.name))
    write_provenance(path, title=title, **provenance)


def keep_only(folder: Path, names) -> None:
    """Remove the tables of an earlier run that are not among these names, but for the report's timings."""
    for path in folder.glob("*.csv"):
        if path.stem not in {*names, "timings"}:
            for suffix in (".csv", ".md", ".tex", PROVENANCE):
                path.with_suffix(suffix).unlink(missing_ok=True)


def written(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that lie in a folder, by name."""
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its values as they are."""
    return table.astype(str).to_markdown(index=False, disable_numparse=True)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text for people: three digits after the point, integers as they are, missing values as -."""

    def show(value):
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "-"
        if isinstance(value, float):
            if 0 < abs(value) < 5e-4:
                return f"{value:.1e}"
            return f"{value:.3f}".rstrip("0").rstrip(".") if np.isfinite(value) else str(value)
        return str(value)

    return table.astype(object).map(show)


def styled(table: pd.DataFrame, *without: str):
    """The table as notebooks show it: `rounded`, with neither its index nor the columns `without`."""
    return rounded(table.drop(columns=list(without))).style.hide(axis="index")


def latex(table: pd.DataFrame, title: str, name: str) -> str:
    """A table of texts as LaTeX for booktabs, a value and its interval in one column; over pages where it is long.

    The columns of an interval end in `low` and `high` and follow that of their value.
    """
    table = table.copy()
    for low in [column for column in table if column.endswith("low")]:
        place = table.columns.get_loc(low)
        value, high = table.columns[place - 1], table.columns[place + 1]
        both = table[value] + " (" + table[low] + " to " + table[high] + ")"
        table[value] = table[value].where(table[low] == "-", both)
        table = table.drop(columns=[low, high])
    table.columns = [column.replace("_", " ") for column in table]
    long, caption = len(table) > 30, re.sub(r"([%&_#${}])", r"\\\1", title)
    body = table.to_latex(index=False, escape=True, caption=caption, label=f"tab:{name}", longtable=long)
    body = f"% needs \\usepackage{{booktabs,graphicx,longtable}}\n{body.translate(str.maketrans(SYMBOLS))}"
    # A table wider than the text is shrunk to it.
    body = body.replace("\\begin{tabular}", f"\\scriptsize\n{FIT}{{\\begin{{tabular}}", 1)
    return body.replace("end{tabular}", "end{tabular}}", 1)


FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
SYMBOLS = {"ε": r"$\epsilon$", "γ": r"$\gamma$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$"}
