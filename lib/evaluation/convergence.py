"""How many images that stand would fall to AutoAttack as it was published, which a profile may cut short."""

import pandas as pd

from lib.attacks import make_attack
from lib.data import subset
from lib.evaluation.attacked import outcomes_of
from lib.evaluation.comparison import shares
from lib.evaluation.planned import worst_case

COLUMNS = ["image_id", "label", "epsilon", "correct"]


def convergence(study) -> pd.DataFrame:
    """AutoAttack as published (100 steps, 5,000 queries, up to 9 targets) on images that stand at some budgets.

    One row per image: dataset, variant, seed, image_id, label, epsilon, correct (still). The images are a stratified
    subset of `convergence_images`; none where the profile names none.
    """
    return study.gather(lambda variant: convergence_of(study, variant))


def convergence_of(study, variant: str) -> pd.DataFrame:
    """The images of one variant, without the columns that name it."""
    tables = [_at(study, variant, epsilon) for epsilon in budgets_of(study, variant)]
    return pd.concat([table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)])


def budgets_of(study, variant: str) -> list[float]:
    """`trust_epsilon` in the run that meets every attack, and what `planned.convergence` names in the first runs."""
    profile, plan = study.profile, study.profile.planned
    if not profile.evaluation.convergence_images:
        return []
    planned = plan.convergence.get(variant, []) if study.seed in profile.seeds[: plan.convergence_runs] else []
    return list(dict.fromkeys([profile.evaluation.trust_epsilon] * (variant in study.whole_variants) + planned))


def _at(study, variant: str, epsilon: float) -> pd.DataFrame:
    evaluation, headline = study.profile.evaluation, study.headline()
    table = outcomes_of(study, variant).assign(dataset=study.dataset, variant=variant, seed=study.seed)
    worst = worst_case(table, headline.norm, headline.through)
    stands = worst.loc[(worst["epsilon"] == epsilon) & worst["correct"], "image_id"]
    rows = study.evaluated[study.evaluated["image_id"].isin(stands)]
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    rows = subset(rows, evaluation.convergence_images, study.profile.split.seed)

    def make():
        attack = make_attack("autoattack", norm=headline.norm)
        classifier = study.classifier(variant, headline.through)
        found = study.robust_accuracy(classifier, rows, headline, attack=attack, epsilons=[epsilon])
        return found.loc[found["epsilon"] > 0, ["image_id", "label", "epsilon", "correct"]]

    name = "convergence.csv" if epsilon == evaluation.trust_epsilon else f"convergence-{epsilon:g}.csv"
    return study.kept(name, variant, [rows["image_id"].tolist(), epsilon, headline.norm], make)


def fallen(images: pd.DataFrame) -> pd.DataFrame:
    """Share that fell, with Wilson's 95 % interval: dataset, variant, seed, epsilon, n, fallen, ci_low, ci_high."""
    images = images.assign(fallen=~images["correct"].astype(bool))
    return shares(images, ["dataset", "variant", "seed", "epsilon"], "fallen", "fallen")
