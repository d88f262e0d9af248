"""What a profile costs: jobs and hours, from counted work, measured throughput and stated assumptions.

    ./reproduce --profile paper --cost

Counted are images trained on, images whose input gradient is taken, and images that are only predicted.
"""

import math
import sys
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from lib import PUBLISHED, ROOT, StudyError
from lib.data.registry import DATASETS
from lib.profile import Profile, check

EPOCHS = 75  # of a training that stops early: the paper's runs stop after 60 to 90 (section 3.3)
GPU_TRAINING = 412  # images/s: ResNet-50, 224 px, float32 on one V100, from NVIDIA's DeepLearningExamples
FROZEN = 5  # times as fast as training all layers, where those that stay are computed once: ham10000 on one core
READING = 80  # original images/s on two cores; the slowest of `./reproduce bench data`
START = 30  # seconds of a job for imports, compilation and figures, about what the notebooks of `quick` take
MARGIN = 3  # by which a job may outrun what is expected before a cluster ends it
THROUGHPUT = PUBLISHED / "bench" / "throughput.csv"
STAGES = ("prepare", "variant", "train", "attack", "gradcam", "why", "results", "report")  # as the graph has them
STEPS = {"fgsm": 1, "bim": 10, "mi_fgsm": 10, "pgd": 20, "square": 5000}  # by default; of all others 100


def jobs(profile: Profile, datasets: list[str]) -> dict[Path, tuple[str, str]]:
    """The marker that each job leaves when it is done, with its data set ("" for the study's end) and stage."""
    runs, found = ROOT / "data" / "runs" / profile.profile, {}
    for dataset, seed in product(datasets, profile.seeds):
        place, whole = runs / dataset / f"seed{seed}", bool(profile.whole_variants_of(seed))
        found |= {place / name / "variant.done": (dataset, "variant") for name in profile.variants_of(seed)}
        found |= {place / f"{name}.done": (dataset, name) for name in STAGES[:-2] if whole and name != "variant"}
    return found | {runs / f"{stage}.done": ("", stage) for stage in STAGES[-2:]}


def work(training=0.0, gradient=0.0, forward=0.0) -> pd.Series:
    """Numbers of images by what is done with them."""
    return pd.Series({"training": training, "gradient": gradient, "forward": forward}, dtype=float)


def attack_work(name: str, classes: int, /, *, steps=None, restarts=1, target_classes=9, queries=5000, searches=6, **_):
    """What one whole attack on one image takes that stands to the end; the defaults are those of `lib.attacks`."""
    steps, targets = steps or STEPS.get(name, 100), min(target_classes, classes - 1)
    if name == "autoattack":
        return work(gradient=steps * (restarts + 2 * targets), forward=steps * targets + queries)
    if name == "square":
        return work(forward=steps * restarts)
    each = steps * restarts * {"apgd_t": targets, "fab_t": targets, "cw": searches}.get(name, 1)
    return work(gradient=each, forward=each if name == "fab_t" else 0)


def stage_work(profile: Profile, stage: str, dataset: str | None = None) -> pd.Series:
    """What passes through networks in one job of a stage, for one data set and seed (and variant), at most."""
    if stage in ("prepare", "train", "results", "report"):
        return work()
    settings, evaluation, classes = profile.training, profile.evaluation, len(DATASETS[dataset].classes)
    images, variants = images_of(profile, dataset), len(profile.variants_of(profile.seeds[0]))
    test, validation = round(profile.split.test * images), round(profile.split.validation * images)
    attacked, examined = min(evaluation.images or test, test), evaluation.named(evaluation.gradcam_attack)
    once, why, trust = attack_work(examined.attack, classes, **examined.parameters), evaluation.why, evaluation.trust
    looks = {  # images, and what each takes; a Hessian-vector product is about two gradients
        "gradcam": (evaluation.gradcam_images, once + work(gradient=2, forward=4)),
        "why": (why.images, work(gradient=len(why.epsilons) * why.steps)),
        "attack": (
            evaluation.trust_images,
            (variants + 3 * trust.longer) * once + work(gradient=trust.steps, forward=trust.queries),
        ),
    }
    if stage in looks:
        return variants * min(looks[stage][0], attacked) * looks[stage][1]
    epoch = max(settings.batch_size, round(settings.epoch_fraction.get(dataset, 1.0) * (images - test - validation)))
    epoch /= FROZEN if profile.model.frozen_up_to else 1
    epochs = min(settings.epochs, EPOCHS)
    total = work(training=epochs * epoch, forward=epochs * validation + test)
    total["gradient"] += epochs * epoch * (settings.adversarial.steps if settings.adversarial else 0)
    for entry in evaluation.attacks:  # the search: one whole attack, and a look at each budget
        looks = len(entry.epsilons or evaluation.epsilons) * work(gradient=1, forward=2)
        whole = attack_work(entry.attack, classes, **entry.parameters)
        total += min(entry.images or attacked, attacked) * (whole + looks)
    return total


def images_of(profile: Profile, dataset: str) -> int:
    """How many images a data set has in this profile, all published ones where they are originals."""
    published = DATASETS[dataset].images
    return profile.phantom.images if profile.phantom else min(published, profile.split.max_images or published)


@cache
def measured(backbone: str, width: int, size: int) -> pd.Series:
    """The rates of a network in images/s, or of the slowest one measured, brought to its number of pixels."""
    if not THROUGHPUT.is_file():
        raise StudyError(f"{THROUGHPUT.relative_to(ROOT)} is missing: run ./reproduce bench throughput.")
    table, passes = pd.read_csv(THROUGHPUT), ["training", "gradient", "forward"]
    same = table[(table["backbone"] == backbone) & (table["width"] == width)]
    same = same if len(same) else table[table["training"] == table["training"].min()]
    row = same.loc[(same["image_size"] - size).abs().idxmin()].copy()
    ratio = (row["image_size"] / size) ** 2
    row[passes] = row[passes].astype(float) * ratio
    row["memory_mb"] /= min(ratio, 1)
    return row


def rates(profile: Profile) -> pd.Series:
    """The row of `measured` for a profile's network."""
    return measured(profile.model.backbone, profile.model.width, profile.preprocessing.image_size)


def seconds(profile: Profile, stage: str, dataset: str | None = None, *, gpu=False) -> float:
    """What a job is expected to take on the measured machine, all of its cores busy, or with a GPU in it."""
    passes = stage_work(profile, stage, dataset)
    spent = (passes / rates(profile)[passes.index].astype(float)).sum()
    reading = images_of(profile, dataset) / READING if stage == "prepare" else 0
    return START + reading + spent / (GPU_TRAINING / measured("resnet50", 64, 224)["training"] if gpu else 1)


def minutes(profile: Profile, stage: str, dataset: str | None, threads: int, gpus: int = 0) -> int:
    """The time limit of a job with so many threads or GPUs, in minutes: at least 30, MARGIN times what is expected."""
    slower = 1 if gpus else rates(profile)["cores"] / threads
    return max(30, math.ceil(MARGIN * slower * seconds(profile, stage, dataset, gpu=gpus > 0) / 60))


def megabytes(profile: Profile, stage: str) -> int:
    """The memory of a job: half more than was measured for its network, at least 4000."""
    heavy = stage in ("variant", "attack", "gradcam", "why")
    return max(4000, math.ceil(1.5 * rates(profile)["memory_mb"] / 100) * 100 if heavy else 0)


def cost_table(profile: Profile, datasets: list[str]) -> pd.DataFrame:
    """One row per stage: stage, jobs, cpu_hours (of the measured machine), gpu_hours; in the order of the graph."""
    counted = Counter(jobs(profile, datasets).values())
    rows = [(s, n, *(n * seconds(profile, s, d, gpu=gpu) for gpu in (False, True))) for (d, s), n in counted.items()]
    table = pd.DataFrame(rows, columns=["stage", "jobs", "cpu_hours", "gpu_hours"]).groupby("stage").sum()
    table[["cpu_hours", "gpu_hours"]] /= 3600
    return table.loc[[*STAGES]].reset_index()


def text(profile: Profile, datasets: list[str]) -> str:
    """The cost of a profile for a terminal: a table, and what was assumed."""
    table, row, size = cost_table(profile, datasets), rates(profile), profile.preprocessing.image_size
    pixels = sum(3 * size**2 * images_of(profile, dataset) for dataset in datasets)
    models = table.set_index("stage").loc["variant", "jobs"] * 12 * row["parameters"]  # with Adam's two moments
    lines = [*table.to_numpy(object).tolist(), ["total", *table[["jobs", "cpu_hours", "gpu_hours"]].sum()]]
    headers = ["stage", "jobs", f"hours, {row['cores']:.0f} CPU cores", "hours, one GPU"]
    seen = (row["backbone"], row["width"]) == (profile.model.backbone, profile.model.width)
    return f"""Expected cost of profile {profile.profile} ({", ".join(datasets)}):

{tabulate(lines, headers=headers, floatfmt=("", ".0f", ".2f", ".2f"))}

disk: {(pixels + models) / 1e9:.1f} GB of prepared images and models, without the original data
measured: {row["backbone"]} at {row["image_size"]:.0f} px in float32 on {row["cores"]:.0f} cores of {row["processor"]}\
{"" if seen else f"; {profile.model.backbone} itself was not measured"}
assumed: all published images are there; training stops after {EPOCHS} epochs if more are allowed; every image costs \
one whole attack; a GPU trains ResNet-50 at {GPU_TRAINING} images/s (one V100 in float32)"""


if __name__ == "__main__":
    try:
        name, dataset = sys.argv[1:]
        known = check(name, dataset)
        print(text(known, [dataset] if dataset else known.datasets))
    except StudyError as error:
        sys.exit(f"reproduce: {error}")
