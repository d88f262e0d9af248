"""What the numbers of a run say in words (`sentences.md.j2`), and its tables with names for people.

Every sentence is made from the numbers that it states; none knows how a run should come out.
"""

import re
from pathlib import Path

import jinja2
import pandas as pd

from lib.data import DATASETS
from lib.evaluation.claims import CLAIMS, FEW_RUNS, PAPER_GAIN, inactive_attention
from lib.evaluation.planned import CONTROLS, FEWEST_RUNS, HIGHER, LOWER, OPEN, SAME
from lib.profile import Model, Profile, Training
from lib.report.curves import ATTACK_TITLES
from lib.report.tables import rounded

COLUMNS = {
    "ci_low": "95 % from",
    "ci_high": "95 % to",
    "p_value": "p",
    "p_holm": "p (Holm, all rows)",
    "percent": "relative change, %",
    "percent_low": "relative, 95 % from",
    "percent_high": "relative, 95 % to",
    "balanced_accuracy_ci_low": "balanced, 95 % from",
    "balanced_accuracy_ci_high": "balanced, 95 % to",
    "majority": "of a constant answer",
    "auc": "AUC",
    "auc_ci_low": "AUC, 95 % from",
    "auc_ci_high": "AUC, 95 % to",
    "attention_percent": "block, % of the backbone's parameters",
    "attention_parameters": "parameters of the block",
    "backbone_parameters": "parameters of the backbone",
    "epochs_max": "most epochs",
    "stopped_epoch": "epochs trained",
    "kept_epoch": "epoch kept",
    "part_low": "change of logits, % from",
    "part_high": "% to",
    "off": "branch off in",
    "dataset": "data set",
    "regime": "budget",
}


def _words() -> jinja2.environment.TemplateModule:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["points"] = lambda share: f"{100 * share:+.1f}"
    return environment.from_string(Path(__file__).with_suffix(".md.j2").read_text(encoding="utf-8")).module


WORDS = _words()


def say(name: str, **values) -> str:
    """The sentence of this name with these values, on one line."""
    return re.sub(r" (?=[,;.])", "", " ".join(getattr(WORDS, name)(**values).split()))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text, with the attacks' names as in the figures and columns in words."""
    table = rounded(table)
    if "attack" in table:
        table["attack"] = table["attack"].replace(ATTACK_TITLES)
    return table.rename(columns=lambda name: COLUMNS.get(name, str(name).replace("_", " ")))


def box(question: str, answer: str, doubt: str, real: str = "") -> str:
    """What a notebook opens with, as Markdown: its question, the answer, and what would change our mind.

    `real`: what real images say to the question (`lib.report.real`), which stands before the answer of phantoms.
    """
    parts = [f"**Question.** {question}", real, f"**Answer.** {answer}", f"**What would change our mind.** {doubt}"]
    said = "\n\n".join(filter(None, parts))
    return "> " + said.replace("\n\n", "\n>\n> ")  # paragraphs stay within the box


def early_stopping(settings: Training) -> str:
    """Whether early stopping can act at all under these settings."""
    return say("early_stopping", settings=settings)


def data(index: pd.DataFrame, label: str) -> str:
    """Answer to 01: how many images there are and how they are split; `index` as from `Study.index`."""
    parts = index.groupby("split")["group"].agg(["size", "nunique"]).itertuples()
    return say("data", n=len(index), label=label, parts=parts)


def training(change, label: str, margin: float) -> str:
    """Answer to 02: the paired `change` of clean accuracy, held against the `margin` that counts as no loss."""
    return say("training", change=change, label=label, margin=margin, said=difference(change.low, change.high))


def maps(change, fewest: int, label: str) -> str:
    """Answer to 04: the `change` of the rank correlation of clean and attacked Grad-CAM, attention minus baseline."""
    said = "too few images to say" if change.n < fewest else difference(change.low, change.high)
    return say("maps", change=change, label=label, said=said)


def branch(clean_accuracy: pd.DataFrame, model: Model) -> str:
    """Whether the attention branch is on: gamma of the attention models that were kept; "" if there are none, or where
    gamma shuts nothing off. `model`: the profile's section."""
    gamma = clean_accuracy.loc[clean_accuracy["variant"] == "attention", "gamma"].dropna()
    if gamma.empty or not model.gated:
        return ""
    values, off = ", ".join(f"{value:.3g}" for value in gamma), inactive_attention(clean_accuracy).values()
    # What a branch of this gamma multiplies a 7 x 7 feature map by, on average over its positions.
    gain = [f"{share:.1%}" for share in gamma * model.attention_maps / 49]
    return say("branch", gamma=values, off=off, maps=model.attention_maps, gains=gain)


def gamma_in_training(histories: pd.DataFrame) -> str:
    """Where gamma of one attention model began and ended, and when it first fell to 0, if ever; "" without one."""
    run = histories[(histories["variant"] == "attention") & histories["gamma"].notna()]
    if run.empty:
        return ""
    fell = run.loc[run["gamma"] <= 0, "epoch"]
    return say("gamma_in_training", first=run.iloc[0], last=run.iloc[-1], fell=int(fell.min()) if len(fell) else 0)


def difference(low: float, high: float) -> str:
    """The direction that a 95 % interval of attention minus baseline allows to state."""
    return "higher with attention" if low > 0 else "lower with attention" if high < 0 else "no difference seen"


def hidden(gap: pd.DataFrame, label: str) -> str:
    """How much robust accuracy an attack through the softmax overstates; `gap` as from `comparison.softmax_gap`."""
    row = gap.loc[gap["difference"].abs().idxmax()] if len(gap) else None
    attack = "" if row is None else ATTACK_TITLES.get(row["attack"], row["attack"])
    clear = ((gap["ci_low"] > 0) | (gap["ci_high"] < 0)).sum()
    return say("hidden", largest=row, attack=attack, clear=clear, n=len(gap), label=label)


def failed(checks: pd.DataFrame, label: str) -> str:
    """Which checks of `lib.evaluation.trust_checks` failed and by how much, as Markdown."""
    wrong = checks[~checks["passed"]]
    head = f"{checks['passed'].sum()} of {len(checks)} checks pass ({label})."
    if wrong.empty:
        return head + " None gives a reason to doubt the robust accuracies."
    lines = [
        f"- {row['dataset']}, {row['variant']}, {row['check']}: {row['value']:.3g} (n = {row['n']}). {row['sentence']}"
        for _, row in wrong.iterrows()
    ]
    one = f"one image is a share of {1 / wrong['n'].max():.3g}"
    head += f" Robust accuracy under the examined attack may be too high by about the values below ({one}).\n"
    return "\n".join([head, *lines])


def rules() -> str:
    """The rule of each verdict, folded away, as Markdown."""
    said = "\n".join([*(f"- **{name}**: {claim.rule}" for name, claim in CLAIMS.items()), "", FEW_RUNS])
    return f"<details><summary>The rule of each verdict</summary>\n\n{said}\n\n</details>"


def titles_of(profile: Profile) -> dict[str, str]:
    """What every data set is called in this profile's figures and sentences."""
    return {name: info.named(phantom=profile.phantom is not None) for name, info in DATASETS.items()}


def by_kind(rows: pd.DataFrame) -> tuple:
    """Of one data set's `lib.evaluation.planned.effects`: the primary comparison, the control's (none, as planned, or
    that and with the runs added), and the secondary ones that have a p-value, which one training run does not give."""
    [primary] = rows[rows["kind"] == "primary"].itertuples()
    controls = list(rows[rows["kind"].isin(CONTROLS)].itertuples())
    return primary, controls, [row for row in rows[rows["kind"] == "secondary"].itertuples() if row.p_holm >= 0]


def answer(tables: dict[str, pd.DataFrame], profile: Profile) -> str:
    """The answer of a whole run, as Markdown, from the tables that it wrote, by name; see `planned`."""
    off = inactive_attention(tables["clean_accuracy"]) if profile.gated else {}
    return planned(tables["effects"], titles_of(profile), profile.label, off)


def answers(tables: dict[str, pd.DataFrame], profile: Profile) -> pd.DataFrame:
    """The same as a table, as text: a row for each data set, its columns named for people."""
    off, rows = inactive_attention(tables["clean_accuracy"]) if profile.gated else {}, []
    for dataset, effects in tables["effects"].groupby("dataset", sort=False):
        primary, controls, _ = by_kind(effects)
        alone = primary.runs == 1
        ends = (primary.both_low, primary.both_high) if alone else (primary.ci_low, primary.ci_high)
        rows.append(
            {
                "data": titles_of(profile)[dataset],
                "robust accuracy": f"{primary.difference:+.1f} points ({ends[0]:+.1f} to {ends[1]:+.1f})",
                "compared": f"{primary.one} minus {primary.other}, {primary.runs} training run{'s' * (not alone)}",
                "answer": lead(primary, controls, off.get(dataset)),
            }
        )
    return pd.DataFrame(rows)


def planned(effects: pd.DataFrame, titles: dict[str, str], label: str, inactive=None) -> str:
    """The answer by the planned comparisons, as Markdown, a paragraph for each data set.

    `effects`: as from `lib.evaluation.planned.effects`, whose primary comparison is the answer. `inactive`: data sets
    on which the attention branch is off, and in how many runs (`lib.evaluation.claims.inactive_attention`): where it
    is off in all, nothing is answered about attention.
    """
    said = []
    for dataset, rows in effects.groupby("dataset", sort=False):
        primary, controls, others = by_kind(rows)
        off = (inactive or {}).get(dataset)
        words = lead(primary, controls, off)
        about = {"row": primary, "controls": controls, "words": words, "off": off, "paper": PAPER_GAIN}
        said.append(say("planned", **about, others=others, title=titles[dataset], label=label))
    return "\n\n".join(said)


def lead(primary, controls=(), off=None) -> str:
    """The answer in a few words: none where attention is off, or where no interval of the positive control, as planned
    or with the runs added, lies above 0."""
    if off and off.all:
        return "Not testable."
    if 1 < primary.runs < FEWEST_RUNS:
        return f"Not decided: {primary.runs} training runs are too few."
    if controls and all(control.runs > 1 and not control.ci_low > 0 for control in controls):
        return "Not decided: the positive control's interval holds 0."
    return ANSWERS[primary.conclusion].format(margin=getattr(primary, "margin", 2))


ANSWERS = {
    HIGHER: "Attention raised robust accuracy.",
    LOWER: "Attention lowered robust accuracy.",
    SAME: "Attention changed robust accuracy by less than {margin:g} points.",
    f"{HIGHER}, {SAME}": "Attention raised robust accuracy, by less than {margin:g} points.",
    f"{LOWER}, {SAME}": "Attention lowered robust accuracy, by less than {margin:g} points.",
    OPEN: "Not decided.",
}
"""What each conclusion of `lib.evaluation.planned` says of attention."""


def converged(fallen: pd.DataFrame, label: str) -> str:
    """How many images fall to the published AutoAttack; `fallen` as from `lib.evaluation.convergence.fallen`."""
    return say("converged", budgets=by_budget(fallen), label=label)


def by_budget(fallen: pd.DataFrame) -> list[tuple[float, list[dict]]]:
    """Each budget with its variants: n (images) and fallen (their number), over all training runs, and runs."""
    counts = fallen.assign(fallen=(fallen["n"] * fallen["fallen"]).astype(float).round().astype(int))
    sums = {"n": ("n", "sum"), "fallen": ("fallen", "sum"), "runs": ("seed", "nunique")}
    counts = counts.groupby(["epsilon", "variant"], sort=False).agg(**sums).reset_index()
    return [(epsilon, rows.to_dict("records")) for epsilon, rows in counts.groupby("epsilon")]
