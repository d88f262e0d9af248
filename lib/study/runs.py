"""All data sets and training runs of a profile, side by side."""

from functools import cached_property

import pandas as pd

from lib import PUBLISHED, evaluation
from lib.data.splits import class_counts
from lib.evaluation import claims, natural, planned, tasks
from lib.evaluation.convergence import convergence, fallen
from lib.explain import measured
from lib.models import build_classifier, parameter_counts
from lib.models.training import Epoch
from lib.profile import Model, departures, load_profile
from lib.profile.settings import BACKBONES
from lib.study import results
from lib.study.study import Study

WHOLE = ("shifts", "checks", "directions", "natural")  # made of the runs that meet every attack


class Runs:
    """The studies of a profile's data sets and seeds, and their tables one below the other.

    `profile`: a name or a path; `dataset`: "all", or data sets of the profile separated by commas; `data`: the folder
    of the original data. Raises StudyError for an unknown profile or data set.
    """

    def __init__(self, profile="quick", dataset="all", data="data/raw"):
        self.profile = load_profile(profile)
        names = self.profile.datasets if dataset == "all" else dataset.split(",")
        self.studies = [Study(profile, name, seed, data) for name in names for seed in self.profile.seeds]
        self.whole = [study for study in self.studies if study.whole_variants]
        self.first = {name: next(study for study in self.studies if study.dataset == name) for name in names}
        self.titles = {name: study.short for name, study in self.first.items()}
        self.figures, self.stamp = self.studies[0].figures, self.studies[0].stamp
        self.headline = self.studies[0].headline()

    @property
    def about(self) -> str:
        """One sentence on the runs, as Markdown."""
        profile, runs = self.profile, len(self.profile.seeds)
        return (
            f"**{profile.title}**: {', '.join(self.titles.values())} ({profile.label}); {profile.backbone_title}; "
            f"{runs} training run{'s' if runs > 1 else ''} of each network. Not as in the paper: "
            f"{', '.join(departures(profile)) or 'nothing'}."
        )

    def provenance(self) -> dict:
        """Profile, seeds, data and starting weights, for whatever is written."""
        return {
            "profile": self.profile.profile,
            "data": self.profile.label,
            "seed": self.profile.seeds,
            "data_fingerprint": {name: study.fingerprint for name, study in self.first.items()},
        } | self.studies[0].starting_weights

    def gather(self, read, whole: bool = False) -> pd.DataFrame:
        """The tables that `read(study)` gives, of all studies, or of those that meet every attack."""
        return pd.concat([read(study) for study in (self.whole if whole else self.studies)], ignore_index=True)

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """What all is computed from, each a table of all runs: histories, predictions, outcomes, checks and so on."""
        reads = {
            "histories": Study.histories,
            "parameters": Study.parameters,
            "predictions": Study.predictions,
            "outcomes": evaluation.outcomes,
            "shifts": Study.shifts,
            "checks": evaluation.trust_checks,
            "directions": evaluation.directions,
            "branch": Study.branch,
            "spread": Study.spread,
            "natural": natural.natural_changes,
            "convergence": convergence,
        }
        return {name: self.gather(read, name in WHOLE) for name, read in reads.items()}

    @cached_property
    def measures(self) -> list[pd.DataFrame]:
        """The measures of 05_why: where it is hit, loss surface, frequencies, soundness."""
        reads = measured.where_it_is_hit, measured.loss_surface, measured.frequencies, measured.soundness
        return [self.gather(read, whole=True) for read in reads]

    def spread_by_step(self) -> pd.DataFrame:
        """How many positions each attention map spreads over (`lib.models.spread`), in training, after every epoch.

        Columns: network, dataset, variant, seed, step, effective. Maps that are constant are left out, and what was
        trained before this was measured. Another network than a task's has that one's published beside it.
        """
        settings, model = self.profile.training, self.profile.model
        network = BACKBONES[model.backbone]["title"].format(width=model.width)
        table = self.frames["histories"].reindex(columns=[*planned.RUN, "epoch", "effective"])
        table = table[~table["variant"].str.startswith("uniform")].dropna(subset="effective")
        steps = {}
        for name, study in self.first.items():
            drawn = settings.epoch_fraction.get(name, 1)
            steps[name] = len(Epoch(*study.split("train"), 1, None, settings, drawn, 0, 0))
        table = table.assign(network=network, step=table["epoch"] * table["dataset"].map(steps))
        file = PUBLISHED / self.profile.datasets[0] / "tables" / "spread_by_step.csv"
        if self.profile.source == "original" and file.is_file():
            table = pd.concat([table, pd.read_csv(file).query("network != @network")])
        return table[["network", *planned.RUN, "step", "effective"]].reset_index(drop=True)

    def class_counts(self) -> pd.DataFrame:
        """Images per data set, split and class."""
        return pd.concat([class_counts(study.index, name) for name, study in self.first.items()])

    def images(self) -> pd.DataFrame:
        """Which images there were: image_id, group, class_name, split, dataset."""
        columns = ["image_id", "group", "class_name", "split"]
        return pd.concat([study.index[columns].assign(dataset=name) for name, study in self.first.items()])

    def inactive(self, clean_accuracy: pd.DataFrame) -> dict:
        """Data sets on which the attention branch is off, see `lib.evaluation.claims.inactive_attention`."""
        return claims.inactive_attention(clean_accuracy) if self.profile.gated else {}

    def claims(self, clean_accuracy: pd.DataFrame) -> pd.DataFrame:
        """The claims of the paper and what these runs measured, see `lib.evaluation.claims.ledger`."""
        resnet50 = {
            variant: parameter_counts(build_classifier(Model(weights="none"), variant, 7, 224))
            for variant in ("baseline", "attention")
        }
        added = resnet50["attention"]["parameters"] - resnet50["baseline"]["parameters"]
        return claims.of_pairs(
            self.profile.judged,
            {name: self.frames[name] for name in ("outcomes", "predictions", "histories", "shifts")},
            self.inactive(clean_accuracy),
            resnet50_percent=resnet50["attention"]["attention_percent"],
            head_percent=100 * added / resnet50["baseline"]["backbone_parameters"],
            headline=(self.headline.attack, self.headline.norm, self.headline.through),
            protocol=(self.profile.training.epochs, self.profile.training.patience) == (300, 40),
            label=self.profile.label,
        )

    @cached_property
    def worst(self) -> pd.DataFrame:
        """Whether each image stands under all attacks that every run met, see `lib.evaluation.planned.worst_case`."""
        return planned.worst_case(self.frames["outcomes"], self.headline.norm, self.headline.through)

    def planned(self) -> dict[str, pd.DataFrame]:
        """The tables of the planned comparisons by file name, see `lib.evaluation.planned`."""
        plan, budgets, predictions = self.profile.planned, self.profile.planned_budgets, self.frames["predictions"]
        outcomes, primary = self.frames["outcomes"], plan.model_copy(update={"secondary": [], "control": None})
        terms, names = (self.headline.norm, self.headline.through), outcomes["attack"].unique()
        alone = {name: planned.worst_case(outcomes[outcomes["attack"] == name], *terms) for name in names}
        runs = [len(worst[planned.RUN].drop_duplicates()) for worst in [self.worst, *alone.values()]]
        met = [name for name, n in zip(alone, runs[1:], strict=True) if n == runs[0]]  # by every run
        sides = {planned.WORST: self.worst} | {name: alone[name] for name in met}
        sensitivity = {name: planned.effects(worst, predictions, primary, budgets) for name, worst in sides.items()}
        variants, pairs = dict.fromkeys(self.worst["variant"]), [*map(list, dict.fromkeys(map(tuple, plan.pairs)))]
        over_baseline = [[name, "baseline"] for name in variants if name != "baseline"]
        robust = planned.over_budgets(self.worst, budgets)
        dose = planned.dose(self.frames["branch"], self.worst, budgets)
        again = [table for study in self.first.values() for table in results.checked_again(study)]
        return {
            "effects": planned.effects(self.worst, predictions, plan, budgets),
            "sensitivity": pd.concat([table.assign(attack=name) for name, table in sensitivity.items()]),
            "clean_by_run": planned.clean_by_run(predictions, pairs),
            "effects_by_run": planned.by_run(self.worst, pairs, budgets),
            "robust_by_run": robust,
            "up_to": planned.largest_gains(self.worst, over_baseline),
            "tasks": tasks.beside_published(self.profile, self.worst, predictions),
            "dose": pd.concat([dose, results.beside(self.profile, robust)], ignore_index=True),
            "spread": planned.spread_by_run(self.frames["spread"]),
            "convergence": fallen(pd.concat([self.frames["convergence"], *again])),
        }
