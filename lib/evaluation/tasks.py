"""The paper's tasks together: questions A and B of the second part of docs/protocol.md."""

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from lib import PUBLISHED
from lib.evaluation.planned import conclusion, effects, worst_case
from lib.profile import Profile, load_profile
from lib.profile.settings import Planned

TASKS = ("ham10000", "chestxray14", "eyepacs")  # profiles, and their data sets
QUESTIONS = {"A": ["attention-reference", "baseline"], "B": ["attention-gamma1", "uniform-matched"]}
ALL = "all tasks"
ESTIMATES = {"difference": ("difference", "ci_low", "ci_high"), "percent": ("percent", "percent_low", "percent_high")}


def of_task(worst: pd.DataFrame, predictions: pd.DataFrame, budgets: list[float], margin: float) -> pd.DataFrame:
    """A and B in one task, as `lib.evaluation.planned.effects`, adjusted together by Holm; `kind` is the question."""
    first, *_ = QUESTIONS.values()
    plan = Planned(primary=first, secondary=list(QUESTIONS.values()), margin=margin)
    table = effects(worst, predictions, plan, budgets)
    names = {tuple(pair): name for name, pair in QUESTIONS.items()}
    return table.assign(kind=[names[pair] for pair in zip(table["one"], table["other"], strict=True)])


def beside_published(profile: Profile, worst: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """`of_task` of a run and, as they are published, of the other tasks, and all `together`.

    `worst`, `predictions`: of the run, per image, as `lib.study.Runs` has them. Empty for other profiles, and as long
    as it is the only task.
    """
    found = []
    for name in TASKS if profile.profile in TASKS else ():
        files = [PUBLISHED / name / "tables" / f"{kind}.csv.gz" for kind in ("outcomes", "predictions")]
        if name == profile.profile:
            tables = worst, predictions
        elif all(file.is_file() for file in files):
            tables = worst_case(pd.read_csv(files[0])), pd.read_csv(files[1])
        else:
            continue
        settings = load_profile(name)
        found.append(of_task(*tables, settings.planned_budgets, settings.planned.margin))
    if len(found) < 2:
        return pd.DataFrame()
    table = pd.concat(found)
    return pd.concat([table, together(table)]).sort_values("kind", kind="stable", ignore_index=True)


def together(tasks: pd.DataFrame) -> pd.DataFrame:
    """Rows of several tasks (`of_task`) as one effect for each question: random effects over the tasks.

    Each task's mean over its runs is weighed by its variance and the one between tasks (Paule and Mandel 1982), and the
    interval is that of Hartung and Knapp (2001), with tasks - 1 degrees of freedom; tasks that differ by less than
    chance does not make it narrower (Roever, Knapp and Friede 2015). Columns as of `of_task` where they are meant, with
    tasks (their number) and between (the standard deviation between tasks, in points); `runs` and `n` are sums. A
    question that fewer than two tasks answer has no row.
    """
    rows = []
    for question, here in tasks.groupby("kind"):
        if len(here) < 2:
            continue
        row = {"dataset": ALL, "kind": question, "one": here["one"].iloc[0], "other": here["other"].iloc[0]}
        row |= {"tasks": len(here), "n": here["n"].sum(), "runs": here["runs"].sum()}
        for name, (estimate, low, high) in ESTIMATES.items():
            values = here[[estimate, low, high]].to_numpy(float)
            values = np.log1p(values / 100) if name == "percent" else values  # ratios are symmetric as logarithms
            errors = (values[:, 2] - values[:, 1]) / 2 / stats.t.ppf(0.975, here["runs"] - 1)
            found = combine_effects(values[:, 0], errors**2, method_re="iterated", use_t=True)
            mean, error = found.mean_effect_re, np.sqrt(max(found.var_hksj_re, found.var_eff_w_re))
            ends = mean + error * np.array([0, *stats.t.interval(0.95, len(here) - 1)])
            row |= dict(zip((estimate, low, high), 100 * np.expm1(ends) if name == "percent" else ends, strict=True))
            if name == "difference":
                p_value = 2 * stats.t.sf(abs(mean / error), len(here) - 1)
                row |= {"p_value": p_value, "between": np.sqrt(found.tau2)}
        margin = float(here["margin"].iloc[0])
        said = conclusion(*map(float, (row["ci_low"], row["ci_high"], margin)))
        rows.append(row | {"margin": margin, "conclusion": said})
    return pd.DataFrame(rows)
