"""What the numbers of a run say in words, and its tables with names for people.

Every sentence is made from the numbers that it states; none knows how a run should come out.
"""

import pandas as pd

from lib.evaluation.claims import UNTESTABLE, inactive_attention
from lib.profile import Training
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


def branch(clean_accuracy: pd.DataFrame, maps: int) -> str:
    """Whether the attention branch is on: gamma of the attention models that were kept; "" if there are none.

    `maps`: the number K of attention maps that the block adds up.
    """
    gamma = clean_accuracy.loc[clean_accuracy["variant"] == "attention", "gamma"].dropna()
    if gamma.empty:
        return ""
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
            if n := (runs["mean"] > 0.5).sum():
                kept.append(f"{name} in {n} of {len(runs)} training run(s) ({count(runs)} images each)")
        said.append(f"{dataset}, {', '.join(kept) or f'no map ({count(maps)} images)'}")
    if not said:
        return ""
    return (
        "Maps that keep a rank correlation above 0.5 when all weights of their network are randomised, and so show the "
        f"image and not what was learnt (Adebayo et al. 2018; {label}; numbers in `why_sanity`): {'; '.join(said)}."
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
    return (
        "higher with attention" if low > 0 else "lower with attention" if high < 0 else "no difference seen"
    )


def hidden(gap: pd.DataFrame, label: str) -> str:
    """How much robust accuracy an attack through the softmax overstates; `gap` as from `claims.softmax_gap`."""
    if gap.empty:
        return f"No attack was run both ways ({label})."
    row = gap.loc[gap["difference"].abs().idxmax()]
    clear = ((gap["ci_low"] > 0) | (gap["ci_high"] < 0)).sum()
    where = (
        f"{ATTACK_TITLES.get(row['attack'], row['attack'])} on {row['variant']} at epsilon {row['epsilon']:g}"
    )
    largest = (
        "The two routes agree at every budget"
        if row["difference"] == 0
        else f"The largest difference is {_points(row)} points (95 % interval), n = {row['n']}, for {where}"
    )
    return (
        f"{largest}; {clear} of {len(gap)} comparisons, each by itself, have an interval without 0 ({label})."
    )


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


def robustness(curve: pd.DataFrame, attack: str, label: str) -> str:
    """Answer to 03: robust accuracy under the headline attack; `curve` as from `claims.compare`, one data set."""
    name = ATTACK_TITLES.get(attack, attack)
    half = curve[curve["baseline"] < 0.5 * curve["baseline"].iloc[0]]
    row = (half if len(half) else curve.iloc[::-1]).iloc[0]
    small = f"at {curve['epsilon'].iloc[0]:g}"
    budget = (
        f"the first budget at which the baseline keeps less than half of what it has {small}"
        if len(half)
        else f"the largest budget, at which the baseline keeps more than half of what it has {small}"
    )
    clear = curve[(curve["ci_low"] > 0) | (curve["ci_high"] < 0)]
    said = "; ".join(f"{r['epsilon']:g}: {_points(r)} points" for _, r in clear.iterrows())
    return (
        f"At epsilon {row['epsilon']:g}, {budget}, {name} leaves the "
        f"baseline {row['baseline']:.0%} and attention {row['attention']:.0%} of the images: {_points(row)} points "
        f"(95 % interval). The interval excludes 0 at {len(clear)} of {len(curve)} budgets"
        + (f" (epsilon {said})" if said else "")
        + f"; n = {curve['n'].iloc[0]}, {label}, intervals not adjusted for the number of budgets."
    )


def _points(row):
    return f"{100 * row['difference']:+.1f} ({100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f})"


def overall(ledger: pd.DataFrame, attack: str, titles: dict[str, str], label: str) -> str:
    """Answer to 05, as Markdown: the headline difference on every data set, and each claim's verdicts counted."""
    lines = [
        f"**In short** ({label}). Attention against baseline under {ATTACK_TITLES.get(attack, attack)}, robust "
        "accuracy averaged over the typical budgets, relative change with 95 % interval:\n"
    ]
    for _, row in ledger[ledger["claim"] == "C1"].iterrows():
        number = (
            "no typical budget"
            if pd.isna(row["ours"])
            else f"{row['ours']:+.1f} % ({row['ci_low']:+.1f} to {row['ci_high']:+.1f}), n = {row['n']:.0f}"
        )
        lines.append(f"- {titles[row['dataset']]}: {number}; {row['verdict']}")
    lines.append("\nVerdicts, by number of data sets:\n")
    for claim, rows in ledger.groupby("claim", sort=False):
        # "not testable on this data: why (data)" counts as "not testable"
        kinds = rows["verdict"].str.split(r" \(|: ", regex=True).str[0].replace(UNTESTABLE, "not testable")
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.value_counts(sort=False).items())
        lines.append(f"- **{claim}** ({rows['statement'].iloc[0]}): {counts}")
    return "\n".join(lines)
