"""What the numbers of a run say in words, and its tables with names for people.

Every sentence is made from the numbers that it states; none knows how a run should come out.
"""

import pandas as pd

from lib.evaluation.claims import CLAIMS, ONE_RUN, inactive_attention, stem
from lib.profile import Model, Training
from lib.report.conclusions import SAME_MAP
from lib.report.curves import ATTACK_TITLES
from lib.report.figures import count
from lib.report.tables import rounded

COLUMNS = {
    "ci_low": "95 % from",
    "ci_high": "95 % to",
    "p_value": "p (McNemar)",
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
    "dataset": "data set",
    "regime": "budget",
}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text, with the attacks' names as in the figures and columns in words."""
    table = rounded(table)
    if "attack" in table:
        table["attack"] = table["attack"].replace(ATTACK_TITLES)
    return table.rename(columns=lambda name: COLUMNS.get(name, str(name).replace("_", " ")))


def early_stopping(settings: Training) -> str:
    """Whether early stopping can act at all under these settings."""
    if settings.epochs <= settings.patience:
        return (
            f"With {settings.epochs} epochs at most and a patience of {settings.patience} early stopping cannot act: "
            "every run trains to its last epoch, and only the choice of the epoch whose weights are kept remains."
        )
    return f"Training stops after {settings.patience} epochs without improvement, or after {settings.epochs}."


def box(question: str, answer: str, doubt: str) -> str:
    """What a notebook opens with, as Markdown: its question, the answer, and what would change our mind."""
    return f"> **Question.** {question}\n>\n> **Answer.** {answer}\n>\n> **What would change our mind.** {doubt}"


def data(index: pd.DataFrame, label: str) -> str:
    """Answer to 01: how many images there are and how they are split; `index` as from `Study.index`."""
    split = index.groupby("split")["group"].agg(["size", "nunique"])
    parts = ", ".join(f"{rows['size']} ({rows['nunique']} groups) for {name}" for name, rows in split.iterrows())
    return f"{len(index)} usable images of {label}: {parts}. No group and no picture is in two of them."


def training(change, label: str, margin: float) -> str:
    """Answer to 02: the paired `change` of clean accuracy, held against the `margin` that counts as no loss."""
    holds = "" if change.low > -margin else " not"
    return (
        f"Clean accuracy of {label}: {100 * change.difference:+.1f} points with attention (95 % CI "
        f"{100 * change.low:+.1f} to {100 * change.high:+.1f}, n = {change.images}, one training run of each network): "
        f"**{difference(change.low, change.high)}**. Attention counts as no loss if the interval stays above "
        f"{-100 * margin:g} points, which it does{holds}."
    )


def maps(change, fewest: int, label: str) -> str:
    """Answer to 04: the `change` of the rank correlation of clean and attacked Grad-CAM, attention minus baseline."""
    said = "too few images to say" if change.n < fewest else difference(change.low, change.high)
    return (
        f"Rank correlation of clean and attacked Grad-CAM, attention minus baseline on the same {change.n} images "
        f"({change.undefined} more have a constant map): {change.mean:+.3f} (95 % CI {change.low:+.3f} to "
        f"{change.high:+.3f}; {label}, one training run of each network): **{said}** (higher: the map moves less)."
    )


def branch(clean_accuracy: pd.DataFrame, model: Model) -> str:
    """Whether the attention branch is on: gamma of the attention models that were kept; "" if there are none, or where
    the block reads a map that can be negative, so that gamma shuts nothing off. `model`: the profile's section.
    """
    gamma = clean_accuracy.loc[clean_accuracy["variant"] == "attention", "gamma"].dropna()
    if gamma.empty or model.feature_layer == "conv5_block3_add":
        return ""
    maps = model.attention_maps
    values = ", ".join(f"{value:.3g}" for value in gamma)
    off = inactive_attention(clean_accuracy)
    if off:
        return (
            f"Gamma at the kept epoch: {values}. At or below 0 the ReLU gives zeros and the attention branch is off, "
            f"here in {'; '.join(map(str, off.values()))}: there the variant is max-pooling and dropout, and says "
            "nothing about attention."
        )
    return (
        f"Gamma at the kept epoch: {values}. Above 0, so the attention branch is on, but on need not be much: each of "
        f"the {maps} maps sums to 1 over its positions, so that the branch multiplies a feature map of 7 x 7 by "
        f"{gains(clean_accuracy, maps)}, on average over its positions."
    )


def gamma_in_training(histories: pd.DataFrame) -> str:
    """Where gamma of one attention model began and ended, and when it first fell to 0, if ever; "" without one."""
    run = histories[(histories["variant"] == "attention") & histories["gamma"].notna()]
    if run.empty:
        return ""
    fallen = run.loc[run["gamma"] <= 0, "epoch"]
    when = f"fell to 0 or below in epoch {fallen.min():.0f}" if len(fallen) else "never fell to 0"
    first, last = run.iloc[0], run.iloc[-1]
    return (
        f"In training gamma {when}; it was {first['gamma']:.2g} after epoch {first['epoch']:.0f} and "
        f"{last['gamma']:.2g} after epoch {last['epoch']:.0f}, the last."
    )


def gains(clean_accuracy: pd.DataFrame, maps: int) -> str:
    """What each kept attention branch multiplies a 7 x 7 feature map by, on average over its positions, in percent;
    "" if a branch is off.
    """
    gamma = clean_accuracy.loc[clean_accuracy["variant"] == "attention", "gamma"].dropna()
    return "" if (gamma <= 0).any() else ", ".join(f"{value * maps / 49:.1%}" for value in gamma)


def sound(sanity: pd.DataFrame, label: str) -> str:
    """What randomising all weights leaves of the maps (Adebayo et al. 2018); `sanity` as from `summary.sanity`.

    A map that stays much the same shows the image, not what was learnt. "" where nothing was randomised.
    """
    rows = sanity[(sanity["against"] == "backbone, bottom") & sanity["mean"].notna()]
    rows = rows[rows["variant"].isin(["baseline", "attention"])]
    said = []
    for dataset, maps in rows.groupby("dataset", sort=False):
        kept = []
        for (kind, variant), runs in maps.groupby(["map", "variant"], sort=False):
            name = "attention's own map" if kind == "attention" else f"Grad-CAM of {variant}"
            if n := (runs["mean"] > SAME_MAP).sum():
                kept.append(f"{name} in {n} of {len(runs)} training run(s) ({count(runs)} images each)")
        said.append(f"{dataset}, {', '.join(kept) or f'no map ({count(maps)} images)'}")
    if not said:
        return ""
    return (
        f"Maps that keep a rank correlation above {SAME_MAP} when all weights of their network are randomised, and so "
        f"show the image and not what was learnt (Adebayo et al. 2018; {label}; numbers in `why_sanity`): "
        f"{'; '.join(said)}."
    )


def by_kind(checks: pd.DataFrame) -> str:
    """The checks of `lib.evaluation.trust_checks` counted, and those that failed by kind, in words."""
    said = f"{checks['passed'].sum()} of {len(checks)} checks of the evaluation pass"
    failures = []
    for (dataset, kind), rows in checks.groupby(["dataset", "check"], sort=False):
        wrong = rows[~rows["passed"]]
        if len(wrong):
            worst = f"at most {wrong['value'].max():.1%} of {wrong['n'].max()} images"
            failures.append(f"{kind} ({dataset}) in {len(wrong)} of {len(rows)}, {worst}")
    return f"{said}; of those that do not: {'; '.join(failures)}" if failures else said


def difference(low: float, high: float) -> str:
    """The direction that a 95 % interval of attention minus baseline allows to state."""
    return "higher with attention" if low > 0 else "lower with attention" if high < 0 else "no difference seen"


def _points(row):
    return f"{100 * row['difference']:+.1f} ({100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f})"


def hidden(gap: pd.DataFrame, label: str) -> str:
    """How much robust accuracy an attack through the softmax overstates; `gap` as from `comparison.softmax_gap`."""
    if gap.empty:
        return f"No attack was run both ways ({label})."
    row = gap.loc[gap["difference"].abs().idxmax()]
    clear = ((gap["ci_low"] > 0) | (gap["ci_high"] < 0)).sum()
    where = f"{ATTACK_TITLES.get(row['attack'], row['attack'])} on {row['variant']} at epsilon {row['epsilon']:g}"
    largest = (
        "The two routes agree at every budget"
        if row["difference"] == 0
        else f"The largest difference is {_points(row)} points (95 % interval), n = {row['n']}, for {where}"
    )
    return f"{largest}; {clear} of {len(gap)} comparisons, each by itself, have an interval without 0 ({label})."


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


def robustness(attributed: pd.DataFrame, attack: str, label: str) -> str:
    """Answer to 03: the change of robust accuracy under the headline attack over the typical budgets, of one data set.

    `attributed` as from `conclusions.attribution`: the number that C1 is about, here of one training run.
    """
    name, rows = ATTACK_TITLES.get(attack, attack), attributed[attributed["against"] == "baseline"]
    if rows.empty:
        return f"Under {name} the baseline keeps 10 % of the images at no budget: nothing can be compared ({label})."
    row = rows.iloc[0]
    return (
        f"Under {name}, averaged over the budgets at which the baseline keeps at least 10 %, attention keeps "
        f"{100 * row['attention']:.0f} % of the images and the baseline {100 * row['other']:.0f} %: "
        f"{row['difference']:+.1f} points (95 % CI {row['ci_low']:+.1f} to {row['ci_high']:+.1f}; n = {row['n']}, one "
        f"training run of each network, {label}): **{difference(row['ci_low'], row['ci_high'])}**. 06_results has the "
        "number over all training runs."
    )


def in_short(ledger: pd.DataFrame, attack: str, titles: dict[str, str], label: str) -> str:
    """Answer to 06: the headline difference on every data set, and each claim's verdicts counted."""
    numbers = []
    for _, row in ledger[ledger["claim"] == "C1"].iterrows():
        interval = f"(95 % CI {row['ci_low']:+.0f} to {row['ci_high']:+.0f}, n = {row['n']:.0f})"
        number = "no typical budget" if pd.isna(row["ours"]) else f"{row['ours']:+.0f} % {interval}"
        numbers.append(f"{titles[row['dataset']]} {number}")
    verdicts = []
    for claim, rows in ledger.groupby("claim", sort=False):
        counts = rows["verdict"].map(stem).value_counts(sort=False)
        verdicts.append(f"{claim} " + ", ".join(f"{kind} ({n} of {len(rows)})" for kind, n in counts.items()))
    return (
        f"Relative change of robust accuracy with attention under {ATTACK_TITLES.get(attack, attack)}, over the "
        f"typical budgets ({label}): {'; '.join(numbers)}. Verdicts, by data sets: {'; '.join(verdicts)}."
    )


def rules() -> str:
    """The rule of each verdict, folded away, as Markdown."""
    lines = [f"- **{name}**: {claim.rule}" for name, claim in CLAIMS.items()]
    said = "\n".join([*lines, "", ONE_RUN])
    return f"<details><summary>The rule of each verdict</summary>\n\n{said}\n\n</details>"
