"""The attacks of a study: per-image outcomes, the trust checks and the directions, as artifacts on disk."""

import shutil

import pandas as pd
from tqdm.auto import tqdm

from lib import artifacts
from lib.attacks import trust
from lib.data import subset


def run_variant(study, variant: str) -> None:
    """Make all that depends on one variant alone: the model, its predictions, outcomes and directions.

    One process for all of it starts once and compiles once. Each part is kept as soon as it is there (training after
    every epoch, attacks one by one), so that a process that was killed continues there when it is called again.
    Raises StudyError for an attack that cannot be, before anything is trained.
    """
    for entry in study.profile.evaluation.attacks:
        study.attack(entry)
    study.history(variant)
    study.predictions_of(variant)
    outcomes_of(study, variant)
    if variant in study.whole_variants:
        directions_of(study, variant)


def outcomes(study) -> pd.DataFrame:
    """The tidy table of the study: one row per image, attack and epsilon, and the clean images at 0.

    Columns: dataset, variant, seed, image_id, label, attack, norm, epsilon, correct, predicted, smallest_epsilon,
    through.
    """
    return study.gather(lambda variant: outcomes_of(study, variant))


def outcomes_of(study, variant: str) -> pd.DataFrame:
    """The outcomes of one variant, without the columns that name it."""
    return pd.concat(
        [outcomes_of_one(study, variant, entry) for entry in study.profile.attacks_of(study.seed, variant)]
    )


def outcomes_of_one(study, variant: str, entry) -> pd.DataFrame:
    """The outcomes of one variant under one of the profile's attacks."""
    rows = study.evaluated
    if entry.images:
        rows = subset(rows, entry.images, study.profile.split.seed)
    return _attacked(study, variant, entry, rows, entry.name)


def _attacked(study, variant, entry, rows, name, targets=None):
    """Outcomes of one attack on one model, kept as `attacks/<name>.csv`."""
    evaluation = study.profile.evaluation
    path = f"attacks/{name}.csv"
    epsilons = entry.epsilons or evaluation.epsilons
    inputs = [entry.model_dump(), rows["image_id"].tolist(), epsilons, evaluation.batch_size, targets]

    def make():
        state = study.directory(variant) / f"{path}.{artifacts.key_of(study.model_key(variant), inputs)}.state"
        attack = study.attack(entry)
        if hasattr(attack, "state"):
            attack = attack.with_(state=str(state))
        with tqdm(total=len(rows), desc=f"{study.dataset} {variant} {name}") as bar:
            table = study.robust_accuracy(
                study.classifier(variant, entry.through),
                rows,
                entry,
                attack=attack,
                targets=targets,
                progress=lambda done, _: bar.update(done - bar.n),
            )
        shutil.rmtree(state, ignore_errors=True)
        return table.assign(through=entry.through)

    return study.kept(path, variant, inputs, make)


def trust_checks(study) -> pd.DataFrame:
    """The checks of `lib.attacks.trust` per variant: dataset, variant, seed, check, passed, value, sentence, n.

    Looked at is the profile's `gradcam_attack` at `trust_epsilon`, and the headline attack if it is an AutoAttack on
    the same terms. Examples made on every other variant are tried for transfer, and what the outcomes already say is
    taken from them.
    """
    evaluation, entry = study.profile.evaluation, study.examined()
    ensemble = evaluation.ensemble
    rows = subset(study.evaluated, evaluation.trust_images, study.profile.split.seed)
    table = outcomes(study)
    same = (table[["norm", "through", "epsilon"]] == [entry.norm, entry.through, evaluation.trust_epsilon]).all(axis=1)
    known = table[same].pivot_table(index=["variant", "image_id"], columns="attack", values="correct")

    def check(variant):
        stands = known.loc[variant].reindex(rows["image_id"]).dropna(axis="columns").astype(bool)
        # The attack under question and the single step are run anew: what the search over budgets adds to them
        # would flatter the one and accuse the other.
        stands = stands.drop(columns=[entry.attack, "fgsm"], errors="ignore")
        inputs = [
            [study.model_key(name) for name in study.whole_variants],
            [entry.model_dump(), ensemble and ensemble.model_dump()],
            stands.to_csv(),
            [evaluation.trust_epsilon, evaluation.trust.model_dump()],
        ]

        def make():
            others = [name for name in study.whole_variants if name != variant]
            checks = trust(
                study.classifier(variant, entry.through),
                study.pixels(rows),
                rows["label"].to_numpy(),
                evaluation.trust_epsilon,
                attack=study.attack(entry).with_(batch_size=evaluation.batch_size),
                ensemble=ensemble and study.attack(ensemble).with_(batch_size=evaluation.batch_size),
                surrogates=[study.classifier(name, entry.through) for name in others],
                known={name: stands[name].to_numpy() for name in stands},
                seed=study.seed,
                **evaluation.trust.model_dump(),
            )
            return checks.assign(n=len(rows))

        return study.kept("trust.csv", variant, inputs, make)

    return study.gather(check, study.whole_variants)


def directions(study) -> pd.DataFrame:
    """How far attacks push images of one class to another, both ways, for the data set's clinical pair.

    One row per image and epsilon: dataset, variant, seed, start, goal (class names), attack, image_id, epsilon,
    reached. With two classes every attack goes towards the other class, so the headline attack's outcomes hold the
    answer; with more, the `gradcam_attack` is run towards the goal.
    """
    return study.gather(lambda variant: directions_of(study, variant), study.whole_variants)


def directions_of(study, variant: str) -> pd.DataFrame:
    """The directions of one variant, without the columns that name it."""
    classes = study.info.classes
    pair = study.info.direction or classes
    goal_of = {pair[0]: pair[1], pair[1]: pair[0]}
    if len(classes) == 2:
        table = outcomes_of_one(study, variant, study.headline())
    else:
        rows = study.evaluated[study.evaluated["class_name"].isin(pair)]
        targets = [classes.index(goal_of[name]) for name in rows["class_name"]]
        table = _attacked(study, variant, study.examined(), rows, "directions", targets)
    start = table["label"].map(dict(enumerate(classes)))
    facts = {"start": start, "goal": start.map(goal_of), "reached": ~table["correct"]}
    return table[["attack", "image_id", "epsilon"]].assign(**facts)
