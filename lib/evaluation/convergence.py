"""How many images that stand would fall to AutoAttack as it was published, which a profile may cut short."""

import pandas as pd

from lib.attacks import make_attack
from lib.data import subset
from lib.evaluation.attacked import outcomes_of
from lib.evaluation.comparison import shares
from lib.evaluation.planned import worst_case


def convergence(study) -> pd.DataFrame:
    """AutoAttack as published (100 steps, 5,000 queries, up to 9 targets) on images that stand at `trust_epsilon`.

    One row per image of the first training run of each variant: dataset, variant, seed, image_id, label, epsilon,
    correct (still). The images are a stratified subset of `convergence_images`; none where the profile names none.
    """
    evaluation = study.profile.evaluation
    if not evaluation.convergence_images:
        return pd.DataFrame(columns=["dataset", "variant", "seed", "image_id", "label", "epsilon", "correct"])
    return study.gather(lambda variant: convergence_of(study, variant), study.whole_variants)


def convergence_of(study, variant: str) -> pd.DataFrame:
    """The images of one variant, without the columns that name it."""
    evaluation = study.profile.evaluation
    epsilon, headline = evaluation.trust_epsilon, study.headline()
    table = outcomes_of(study, variant).assign(dataset=study.dataset, variant=variant, seed=study.seed)
    worst = worst_case(table, headline.norm, headline.through)
    stands = worst.loc[(worst["epsilon"] == epsilon) & worst["correct"], "image_id"]
    rows = study.evaluated[study.evaluated["image_id"].isin(stands)]
    rows = subset(rows, evaluation.convergence_images, study.profile.split.seed)

    def make():
        attack = make_attack("autoattack", norm=headline.norm)
        classifier = study.classifier(variant, headline.through)
        found = study.robust_accuracy(classifier, rows, headline, attack=attack, epsilons=[epsilon])
        return found.loc[found["epsilon"] > 0, ["image_id", "label", "epsilon", "correct"]]

    return study.kept("convergence.csv", variant, [rows["image_id"].tolist(), epsilon, headline.norm], make)


def fallen(images: pd.DataFrame) -> pd.DataFrame:
    """Share that fell, with Wilson's 95 % interval: dataset, variant, seed, epsilon, n, fallen, ci_low, ci_high."""
    images = images.assign(fallen=~images["correct"].astype(bool))
    return shares(images, ["dataset", "variant", "seed", "epsilon"], "fallen", "fallen")
