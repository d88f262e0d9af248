"""What a profile costs: jobs, hours and disk, from counted work, measured throughput and stated assumptions.

    ./reproduce --profile paper --cost

Counted is what passes through a network: images trained on, images whose input gradient is taken, images that are only
predicted, and images read. How many of each a second sees stands in figures/published/bench/throughput.csv, as
`./reproduce bench throughput` measured it; the constants below are assumptions, and the table names them.
"""

import math
import sys
from functools import cache

import pandas as pd
from tabulate import tabulate

from lib import PUBLISHED, ROOT, StudyError
from lib.data.registry import DATASETS
from lib.profile import Attack, Profile, check

EPOCHS = 75  # of a training that stops early: the paper's runs stop after 60 to 90 (section 3.3)
GPU_TRAINING = 412  # images/s: ResNet-50, 224 px, float32 on one V100, from NVIDIA's DeepLearningExamples
READING = 80  # original images/s on two cores; the slowest of `./reproduce bench data`
START = 30  # seconds of a job for imports, compilation and figures, about what the notebooks of `quick` take
MARGIN = 3  # by which a job may outrun what is expected before a cluster ends it
NOTEBOOK = 2e6  # bytes of an executed notebook with its figures
ROW = 110  # bytes of a line of per-image outcomes

THROUGHPUT = PUBLISHED / "bench" / "throughput.csv"
STAGES = ("prepare", "variant", "train", "attack", "gradcam", "why", "results", "report")
PASSES = ("training", "gradient", "forward")

# The attacks' own numbers, as `lib.attacks` has them; they stand here again because importing that takes seconds.
DEFAULTS = {
    "fgsm": {"steps": 1},
    "bim": {"steps": 10},
    "mi_fgsm": {"steps": 10},
    "pgd": {"steps": 20},
    "apgd_ce": {"steps": 100},
    "apgd_dlr": {"steps": 100},
    "apgd_t": {"steps": 100, "target_classes": 9},
    "fab_t": {"steps": 100, "target_classes": 9},
    "square": {"steps": 5000},
    "cw": {"steps": 100, "searches": 6},
    "autoattack": {"steps": 100, "queries": 5000, "target_classes": 9},
}


def work(training=0.0, gradient=0.0, forward=0.0, read=0.0) -> pd.Series:
    """Numbers of images by what is done with them."""
    return pd.Series({"training": training, "gradient": gradient, "forward": forward, "read": read}, dtype=float)


def attack_work(name: str, classes: int, **parameters) -> pd.Series:
    """What one whole attack on one image takes that stands to the end."""
    numbers = {"restarts": 1} | DEFAULTS[name] | parameters
    tries, steps = numbers["restarts"], numbers["steps"]
    if "target_classes" in numbers:
        aims = min(numbers["target_classes"], classes - 1)
    if name == "autoattack":
        return work(gradient=steps * (tries + 2 * aims), forward=steps * aims + numbers["queries"])
    if name == "square":
        return work(forward=steps * tries)
    if name in ("apgd_t", "fab_t"):
        steps *= aims
    return work(gradient=steps * tries * numbers.get("searches", 1), forward=steps * tries if name == "fab_t" else 0)


def fuller(numbers: dict, times: int) -> dict:
    """The numbers of `AutoAttack.fuller`, which stands here again for the same reason as `DEFAULTS`."""
    published = DEFAULTS["autoattack"]
    wanted = {"steps": times * numbers["steps"], "queries": times * numbers["queries"]}
    return numbers | {name: max(numbers[name], min(wanted.get(name, most), most)) for name, most in published.items()}


def search_work(entry: Attack, classes: int, budgets: int) -> pd.Series:
    """What the search for the smallest budget takes for one image: one whole attack, and a look at each budget."""
    whole = attack_work(entry.attack, classes, **entry.parameters)
    if whole["gradient"] == 1:  # a single step is tried at every budget
        return whole * budgets + work(forward=2 * budgets)
    return whole + work(gradient=budgets, forward=2 * budgets)


def images_of(profile: Profile, dataset: str) -> int:
    """How many images a data set has in this profile, all published ones where they are originals."""
    if profile.phantom:
        return profile.phantom.images
    published = DATASETS[dataset].images
    return min(published, profile.split.max_images or published)


def stage_work(profile: Profile, stage: str, dataset: str | None = None) -> pd.Series:
    """What one job of a stage takes, for one data set and seed (and variant); at most: the first seed has controls."""
    if stage not in ("prepare", "variant", "train", "attack", "gradcam", "why"):
        return work()
    images, settings, evaluation = images_of(profile, dataset), profile.training, profile.evaluation
    classes = len(DATASETS[dataset].classes)
    test, validation = round(profile.split.test * images), round(profile.split.validation * images)
    attacked = min(evaluation.images or test, test)
    examined = evaluation.named(evaluation.gradcam_attack)
    variants = len(profile.variants_of(profile.seeds[0]))
    once = attack_work(examined.attack, classes, **examined.parameters)
    if stage == "prepare":
        return work(read=images)
    if stage == "gradcam":
        shown = min(evaluation.gradcam_images, attacked)
        return variants * shown * (once + work(gradient=2, forward=4))
    if stage == "why":
        # lib.explain.measured: an attack at each budget; a Hessian-vector product is about two gradients.
        why = evaluation.why
        looked = min(why.images, attacked) * work(gradient=len(why.epsilons) * why.steps + 2 * why.power_steps)
        sound = min(why.sanity_images, attacked) * work(gradient=20, forward=why.score_cam_channels)
        return variants * (looked + sound)
    if stage == "attack":
        # lib.attacks.trust: a large budget, random search, transfer from every other variant, more steps, another loss,
        # and a fuller AutoAttack on what stands, here all.
        numbers = {"steps": DEFAULTS[examined.attack]["steps"], "restarts": 1} | examined.parameters
        longer = evaluation.trust.longer * numbers["steps"] * (numbers["restarts"] + 2)
        checks = once * variants + work(gradient=longer + evaluation.trust.steps, forward=evaluation.trust.queries)
        if cut := evaluation.ensemble:
            short = DEFAULTS["autoattack"] | cut.parameters
            if (more := fuller(short, evaluation.trust.longer)) != short:
                checks += attack_work("autoattack", classes, **more)
        return variants * min(evaluation.trust_images, attacked) * checks

    epoch = max(settings.batch_size, round(settings.epoch_fraction.get(dataset, 1.0) * (images - test - validation)))
    if stage == "train":  # gamma under other settings, from every seed
        epochs = min(profile.contrast.get("epochs", settings.epochs), EPOCHS) if profile.contrast else 0
        return len(profile.seeds) * epochs * work(training=epoch, forward=validation)
    epochs = min(settings.epochs, EPOCHS)
    total = work(training=epochs * epoch, forward=epochs * validation + test)
    if settings.adversarial:
        total += work(gradient=epochs * epoch * settings.adversarial.steps)
    for entry in evaluation.attacks:
        budgets = len(entry.epsilons or evaluation.epsilons)
        total += min(entry.images or attacked, attacked) * search_work(entry, classes, budgets)
    if classes > 2:  # towards the other class of the clinical pair
        budgets = len(examined.epsilons or evaluation.epsilons)
        total += attacked * 2 / classes * search_work(examined, classes, budgets)
    return total


@cache
def throughput() -> pd.DataFrame:
    """The measured rates: backbone, width, image_size, cores, training, gradient, forward (images/s), memory_mb, ..."""
    if not THROUGHPUT.is_file():
        raise StudyError(f"{THROUGHPUT.relative_to(ROOT)} is missing: run ./reproduce bench throughput.")
    return pd.read_csv(THROUGHPUT)


def measured(profile: Profile) -> pd.Series:
    """The row of the throughput table for a profile's network, brought to its image size by the number of pixels.

    A backbone that was not measured is taken for the slowest one that was.
    """
    table, size = throughput(), profile.preprocessing.image_size
    same = table[(table["backbone"] == profile.model.backbone) & (table["width"] == profile.model.width)]
    same = same if len(same) else table[table["training"] == table["training"].min()]
    row = same.loc[(same["image_size"] - size).abs().idxmin()].copy()
    ratio = (row["image_size"] / size) ** 2
    row[list(PASSES)] = row[list(PASSES)].astype(float) * ratio
    row["memory_mb"] = row["memory_mb"] / min(ratio, 1)
    return row


def gpu_factor() -> float:
    """How many times faster a GPU is assumed to be than the measured machine, for every network and kind of pass."""
    table = throughput()
    known = table[(table["backbone"] == "resnet50") & (table["image_size"] == 224)]
    return GPU_TRAINING / known["training"].iloc[0]


def seconds(profile: Profile, stage: str, dataset: str | None = None, *, gpu=False) -> float:
    """What a job is expected to take on the measured machine, all of its cores busy, or with a GPU in it."""
    todo, rates = stage_work(profile, stage, dataset), measured(profile)
    passes = sum(todo[kind] / rates[kind] for kind in PASSES)
    return START + todo["read"] / READING + passes / (gpu_factor() if gpu else 1)


def minutes(profile: Profile, stage: str, dataset: str | None, threads: int, gpus: int = 0) -> int:
    """The time limit of a job with so many threads or GPUs, in minutes: at least 30, MARGIN times what is expected."""
    slower = 1 if gpus else measured(profile)["cores"] / threads
    return max(30, math.ceil(MARGIN * slower * seconds(profile, stage, dataset, gpu=gpus > 0) / 60))


def megabytes(profile: Profile, stage: str) -> int:
    """The memory of a job: half more than was measured for its network, at least 4000."""
    heavy = stage in ("variant", "attack", "gradcam", "why")
    return max(4000, math.ceil(1.5 * measured(profile)["memory_mb"] / 100) * 100 if heavy else 0)


def jobs(profile: Profile, stage: str) -> int:
    """How many jobs of a stage there are for one data set; results and report have one for all."""
    if stage == "variant":
        return sum(len(profile.variants_of(seed)) for seed in profile.seeds)
    return sum(bool(profile.whole_variants_of(seed)) for seed in profile.seeds)


def cost_table(profile: Profile, datasets: list[str]) -> pd.DataFrame:
    """One row per stage: stage, jobs, cpu_hours (of the measured machine), gpu_hours; in the order of the graph."""
    rows = []
    for stage in STAGES:
        if stage in ("results", "report"):
            rows.append((stage, 1, *(seconds(profile, stage, gpu=gpu) / 3600 for gpu in (False, True))))
            continue
        count = jobs(profile, stage)
        hours = [
            sum(_shared(profile, stage, dataset, count, gpu) for dataset in datasets) / 3600 for gpu in (False, True)
        ]
        rows.append((stage, count * len(datasets), *hours))
    return pd.DataFrame(rows, columns=["stage", "jobs", "cpu_hours", "gpu_hours"])


def _shared(profile, stage, dataset, count, gpu):
    """Seconds of all jobs of a stage for one data set; images are read once for all seeds."""
    each = seconds(profile, stage, dataset, gpu=gpu)
    return each + (count - 1) * START if stage == "prepare" else each * count


def disk(profile: Profile, datasets: list[str]) -> pd.Series:
    """Bytes that a finished run leaves: prepared images, models (with Adam's two moments), outcomes, the rest."""
    evaluation, pixels = profile.evaluation, 3 * profile.preprocessing.image_size**2
    levels = [len(entry.epsilons or evaluation.epsilons) + 1 for entry in evaluation.attacks]
    size = pd.Series({"images": 0.0, "models": 0.0, "outcomes": 0.0, "figures": NOTEBOOK})
    for dataset in datasets:
        images, runs = images_of(profile, dataset), jobs(profile, "variant")
        attacked = min(evaluation.images or images, round(profile.split.test * images))
        lines = sum(
            min(entry.images or attacked, attacked) * level
            for entry, level in zip(evaluation.attacks, levels, strict=True)
        )
        size["images"] += images * pixels
        size["models"] += runs * 3 * 4 * measured(profile)["parameters"]
        size["outcomes"] += runs * (lines * ROW + min(evaluation.gradcam_images, attacked) * 4 * pixels)
        size["figures"] += 4 * jobs(profile, "why") * NOTEBOOK
    return size


def longest_chain(profile: Profile, datasets: list[str], *, gpu=False) -> float:
    """Seconds of the longest way through the graph, which no number of machines shortens."""
    ways = [
        sum(seconds(profile, stage, dataset, gpu=gpu) for stage in ("prepare", "variant"))
        + max(seconds(profile, stage, dataset, gpu=gpu) for stage in ("attack", "gradcam", "why"))
        for dataset in datasets
    ]
    return max(ways) + 2 * START


def text(profile: Profile, datasets: list[str]) -> str:
    """The cost of a profile for a terminal: a table, and what was assumed."""
    table, row, size = cost_table(profile, datasets), measured(profile), disk(profile, datasets)
    busy = f"; other programs ran beside it (load {row['load']}), so hours are too high" if row["load"] > 1 else ""
    lines = table.to_numpy(object).tolist()
    lines.append(["total", *table[["jobs", "cpu_hours", "gpu_hours"]].sum()])
    chain = [longest_chain(profile, datasets, gpu=gpu) / 3600 for gpu in (False, True)]
    lines.append(["longest chain", "", *chain])
    headers = ["stage", "jobs", f"hours, {row['cores']:.0f} CPU cores", "hours, one GPU"]
    where = f"{row['cores']:.0f} cores of {row['processor']}"
    seen = (row["backbone"], row["width"]) == (profile.model.backbone, profile.model.width)
    notes = [
        f"disk: {size.sum() / 1e9:.1f} GB ("
        + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in size.items())
        + "), without the original data; checkpoints of running trainings come on top",
        f"measured: {row['backbone']} at {row['image_size']:.0f} px in float32 on {where}{busy}"
        + ("" if seen else f"; {profile.model.backbone} itself was not measured"),
        f"assumed: all published images are there; training stops after {EPOCHS} epochs where more are allowed; "
        "every image costs one whole attack; "
        f"a GPU is {gpu_factor():.0f} times this machine (ResNet-50 at {GPU_TRAINING} images/s, one V100 in float32)",
    ]
    shown = tabulate(lines, headers=headers, floatfmt=("", ".0f", ".2f", ".2f"))
    return "\n".join([f"Expected cost of profile {profile.profile} ({', '.join(datasets)}):", "", shown, "", *notes])


if __name__ == "__main__":
    try:
        name, dataset = sys.argv[1:]
        known = check(name, dataset)
        print(text(known, [dataset] if dataset else known.datasets))
    except StudyError as error:
        sys.exit(f"reproduce: {error}")
