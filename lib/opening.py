"""What the README opens with: does attention make the network more robust? Data frames in, Markdown out."""

import jinja2
import pandas as pd

from lib import PUBLISHED, answers
from lib.claims import CLAIMS, PAIR, PAPER_GAIN, TYPICAL
from lib.curves import attack_in_full
from lib.datasets import DATASETS
from lib.profile import Profile
from lib.tables import markdown, written
from lib.why.conclusions import single_runs
from lib.why.summary import direction

FALLEN = 0.02  # robust accuracy at which nothing much is left to compare

ANSWERED = """\
**{{ verdict }}** On {{ title }}, under {{ attack }}, attention changes robust accuracy as follows, averaged over the
budgets at which the baseline keeps at least {{ typical }}, all of them {{ largest }} gray levels or less{% if off %}
(though not by attention, whose branch is off){% endif %}:

{{ table }}

{{ constant }} {{ standing }}{% if gain %} What is tested is a weak signal: with gamma as it was
learnt the attention branch multiplies features by {{ gain }}, on average over the
map{% if runs > 1 %}, in one training run each{% endif %}.{% endif %}"""

CONTROLS = {
    "pooling": "`pooling`: the same head, the block's output replaced by its input",
    "frozen": "`frozen`: the same block, gamma held at 0",
}

AGAIN = {"ham10000-cpu": "ham10000-seeds"}
"""Runs whose comparison of attention with the baseline another profile repeats with other seeds."""


def answer(profile: Profile, tables: dict[str, pd.DataFrame]) -> str:
    """Answered for each data set of a run in the numbers of `why_attribution`, `claims` and `comparison`
    (`tables`, by name), as Markdown.

    Where the run that repeats this one (`AGAIN`) is there, its comparison with the baseline is shown too: its training
    runs are more, and the verdict is that of them.
    """
    repeat = AGAIN.get(profile.profile, "")
    folder = PUBLISHED / repeat / "tables"
    again = written(folder) if repeat and folder.is_dir() else None
    attack = profile.evaluation.named(profile.evaluation.headline)
    clean_models, paragraphs = tables["clean_accuracy"], []
    for dataset, rows in tables["why_attribution"].groupby("dataset", sort=False):
        rows = rows.set_index("against")
        row, runs = rows.loc["baseline"], rows.loc["baseline", "seeds"]
        attacked, clean = _against_baseline(tables, dataset)
        controls = [
            _compared(words + (f", {PAIR}" if rows.loc[name, "seeds"] == 1 else ""), rows.loc[name])
            for name, words in CONTROLS.items()
            if name in rows.index
        ]
        compared = [*attacked, *controls, clean]
        if again is not None:
            attacked, clean = _against_baseline(again, dataset, f", in further runs (`{repeat}`)")
            compared += [*attacked, clean]
        models = clean_models[clean_models["dataset"] == dataset]
        text = jinja2.Template(ANSWERED).render(
            verdict=_verdict(tables if again is None else again, dataset),
            title=DATASETS[dataset].named(phantom=profile.phantom is not None),
            attack=attack_in_full(attack),
            off="not to be attributed" in row["conclusion"],
            typical=f"{100 * TYPICAL:.0f} %",
            largest=row["epsilons"].split()[-1],
            table=markdown(
                pd.DataFrame(
                    compared,
                    columns=["attention against", "change (95 % interval)", "images", "training runs"],
                )
            ),
            gain=answers.gains(models, profile.model.attention_maps),
            constant=_constant(models),
            standing=standing(tables, dataset),
            runs=runs,
        )
        paragraphs += [p if p.startswith("|") else p.replace("\n", " ") for p in text.split("\n\n")]
    typical, extreme = (CLAIMS[claim][1].removesuffix(" (relative)") for claim in ("C1", "C2"))
    said = (
        "Intervals are paired by image, over images and, with several, training runs; in brackets behind their number "
        f"the change in each of them. The paper reports {typical} in typical and {extreme} in extreme scenarios, "
        "relative, at no cost in clean accuracy."
    )
    return "\n\n".join([*paragraphs, said])


def _verdict(tables, dataset) -> str:
    row, claims = _baseline_and_claims(tables, dataset)
    yes, no = "Yes, in these runs.", "No, it does the opposite."
    relative = claims.loc["C1"]
    verdict = direction(relative, 0, yes, no)
    if verdict in (yes, no):
        return verdict
    if relative["ci_high"] < PAPER_GAIN:
        found, theirs = "Not that could be seen", f"but not the paper's +{PAPER_GAIN} %"
    else:
        found, theirs = "Inconclusive", f"and the paper's +{PAPER_GAIN} % as well"
    runs = f"{row['seeds']} training runs" if row["seeds"] > 1 else "one training run"
    return f"{found}: the 95 % interval of the relative change over {runs} of each network holds 0, {theirs}."


def _baseline_and_claims(tables, dataset) -> tuple[pd.Series, pd.DataFrame]:
    """Attention against the baseline of `why_attribution`, and the claims by name."""
    claims, attributed = (
        tables[name].set_index("dataset").loc[[dataset]] for name in ("claims", "why_attribution")
    )
    return attributed.set_index("against").loc["baseline"], claims.set_index("claim")


def _compared(words, row) -> tuple:
    """A row of the answer's table from one of `why_attribution`."""
    runs = f"{row['seeds']} ({single_runs(row)})" if row["seeds"] > 1 else "1"
    return words, _change(row, "difference"), row["n"], runs


def _change(row, column, unit=" points") -> str:
    return f"{row[column]:+.1f}{unit} ({row['ci_low']:.1f} to {row['ci_high']:.1f})"


def _against_baseline(tables, dataset, where="") -> tuple[list[tuple], tuple]:
    """Rows of the answer's table that compare attention with the baseline, attacked and clean."""
    row, claims = _baseline_and_claims(tables, dataset)
    n, runs, clean = row["n"], row["seeds"], claims.loc["C3"]
    attacked = [
        _compared(f"the baseline{where}", row),
        ("the same, relative", _change(claims.loc["C1"], "ours", " %"), n, runs),
        (
            "the same, every class weighing the same, the rare ones of few images",
            _change(claims.loc["S3"], "ours"),
            n,
            runs,
        ),
    ]
    return attacked, (f"the baseline, clean images{where}", _change(clean, "ours"), f"{clean['n']:.0f}", runs)


def _constant(clean) -> str:
    """What the clean accuracies of one data set's two networks are worth, beside a constant answer's."""
    clean = clean[clean["variant"].isin(["baseline", "attention"])]

    def span(column, scale=100, digits=1):
        return f"{scale * clean[column].min():.{digits}f} to {scale * clean[column].max():.{digits}f}"

    return (
        f"Without attack both kinds of network are right on {span('accuracy')} % of the {clean['n'].iloc[0]} test "
        f"images, a constant answer, the most frequent class, on {100 * clean['majority'].iloc[0]:.1f} %; with every "
        f"class weighing the same they are on {span('balanced_accuracy')} %, and the AUC is {span('auc', 1, 2)}."
    )


def standing(tables, dataset) -> str:
    rows = tables["comparison"][tables["comparison"]["dataset"] == dataset]
    fallen = rows[rows[["baseline", "attention"]].max(axis="columns") < FALLEN]
    if fallen.empty:
        return f"Some images stand at all budgets, up to {rows['epsilon'].max():g} gray levels."
    return (
        f"From {fallen['epsilon'].min():g} gray levels on, each of the two networks keeps less than "
        f"{100 * FALLEN:.0f} % of the {rows['n'].iloc[0]} images"
        + (", on average over its training runs." if rows["seeds"].iloc[0] > 1 else ".")
    )
