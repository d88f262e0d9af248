# The study as a graph: prepare -> variant -> train, attack, gradcam, why -> results -> report.
# Every rule but two runs one notebook; `variant` trains one variant and attacks it, which is nearly all of the work, in
# a job of its own so that cores and machines can share it, and `report` writes a page. Run it through ./reproduce,
# which makes the environment.

import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)  # for tools

from lib import StudyError
from lib.artifacts import listing
from lib.profile import check, profile_files
from lib.artifacts.sources import sources
from tools import cost

NAME = str(config.get("profile", "quick"))
try:
    PROFILE = check(NAME, config.get("dataset", ""))
except StudyError as error:
    sys.exit(f"reproduce: {error}")
DATASETS = [config["dataset"]] if "dataset" in config else PROFILE.datasets

THREADS = PROFILE.threads or int(config.get("threads", 0)) or workflow.cores
GPUS = int(config.get("gpus", 0))  # of each job that trains or attacks

DATA = str(config.get("data", "data/raw"))  # relative to this folder, like everything here
RUNS = f"data/runs/{PROFILE.profile}"
HERE = f"{RUNS}/{{dataset}}/seed{{seed}}"
NOTEBOOKS = f"figures/{PROFILE.profile}/notebooks"


WHOLE = [seed for seed in PROFILE.seeds if PROFILE.whole_variants_of(seed)]  # the others have no notebooks of their own


def job_of(dataset, variant, seed):
    """The marker of the job that trains and attacks this network.

    Networks of phantoms are small, a process takes as long to start as they to train: one makes all seeds of a variant.
    """
    seeds = PROFILE.seeds_of(variant) if PROFILE.source == "phantom" else [seed]
    return f"{RUNS}/{dataset}/seed{'-'.join(map(str, seeds))}/{variant}/variant.done"


def trained(dataset, seed):
    """The markers of the variants that are trained from a seed, and attacked."""
    return [job_of(dataset, variant, seed) for variant in PROFILE.variants_of(seed)]


def prepared(wildcards):
    """The marker of the data set's preparation, which is the same for every seed."""
    seed = wildcards.seed if wildcards.seed in map(str, WHOLE) else PROFILE.seeds[0]
    return f"{RUNS}/{wildcards.dataset}/seed{seed}/prepare.done"


def finished_variants(wildcards):
    return trained(wildcards.dataset, int(wildcards.seed))


def needs(stage, gpus=0):
    """What a job of a stage asks a cluster for: memory, minutes (more of both when it is tried again) and GPUs.

    Snakemake heeds none of this on a machine of one's own, unless it is told with --resources what there is.
    """
    return dict(
        mem_mb=lambda wildcards, attempt: attempt * cost.megabytes(PROFILE, stage),
        runtime=lambda wildcards, attempt: attempt
        * len(wildcards.get("seed", "").split("-"))
        * cost.minutes(PROFILE, stage, wildcards.get("dataset"), THREADS, gpus),
        gpu=gpus,
    )


def raw_files(dataset):
    """What the data set's folder holds: more of a partial download, or an exchanged file, starts the study anew."""
    return listing(Path(DATA) / dataset) if PROFILE.source == "original" else ""


# A finished stage is a marker under data/runs, which git ignores: a fresh clone runs the whole study although
# it holds rendered figures. What a stage computes lies beside its marker and is reused if it is still valid.
RUN = (
    "TF_CPP_MIN_LOG_LEVEL=3 python -m tools.run_notebook {params.notebook} {params.output:q} "
    "-p profile {params.profile:q} -p seed {wildcards.seed} -p dataset {wildcards.dataset} -p data {params.data:q} "
    "2> {log:q} || (grep -v -e WARNING -e '^I0000' {log:q} | tail -n 12 >&2; exit 1)"
)


def stage(notebook):
    """What the rules of all stages share."""
    return dict(
        notebook=notebook,
        profile=NAME,
        data=DATA,
        output=lambda wildcards: f"{NOTEBOOKS}/{notebook}_{wildcards.dataset}_seed{wildcards.seed}.ipynb",
    )


wildcard_constraints:
    dataset="[a-z0-9]+",
    seed="[0-9]+(-[0-9]+)*",
    variant="[a-z0-9-]+",


rule all:
    input:
        f"{RUNS}/report.done",


rule prepare:
    input:
        profile_files(NAME),
        sources("notebooks/01_preprocessing.ipynb"),
    output:
        touch(f"{HERE}/prepare.done"),
    params:
        **stage("01_preprocessing"),
        files=lambda wildcards: raw_files(wildcards.dataset),
    priority: 20  # so that no data set's chain is left to run alone at the end
    threads: THREADS
    resources:
        **needs("prepare"),
    benchmark:
        f"{HERE}/prepare.tsv"
    log:
        f"{HERE}/prepare.log",
    shell:
        RUN


rule variant:
    input:
        prepared,
        # The adversarially trained network goes on from the baseline.
        lambda wildcards: (
            [job_of(wildcards.dataset, "baseline", int(seed)) for seed in wildcards.seed.split("-")]
            if wildcards.variant == "adversarial"
            else []
        ),
        sources("lib/study/__main__.py"),
    output:
        touch(f"{HERE}/{{variant}}/variant.done"),
    params:
        profile=NAME,
        data=DATA,
    priority: 10  # the notebooks of one data set then run beside the variants of the next
    threads: THREADS
    resources:
        **needs("variant", GPUS),
    benchmark:
        f"{HERE}/{{variant}}/variant.tsv"
    log:
        f"{HERE}/{{variant}}/variant.log",
    shell:
        "TF_CPP_MIN_LOG_LEVEL=3 python -m lib.study {params.profile:q} {wildcards.dataset} {wildcards.seed} "
        "{wildcards.variant} {params.data:q} 2> {log:q} || (grep -v -e WARNING -e '^I0000' {log:q} | tail -n 12 >&2; exit 1)"


# The notebooks of one data set and seed: what each needs beside its variants, priority, and whether it wants a GPU.
STAGES = {
    "train": ("02_training", [job_of("{dataset}", "attention", seed) for seed in PROFILE.seeds_of("attention")], 0, 0),
    "attack": ("03_attacks", [], 5, GPUS),  # the longest of them
    "gradcam": ("04_gradcam", [], 0, GPUS),
    "why": ("05_why", [f"{HERE}/attack.done"], 0, 0),
}
for name, (notebook, more, first, gpus) in STAGES.items():

    rule:
        name:
            name
        input:
            finished_variants,
            more,
            sources(f"notebooks/{notebook}.ipynb"),
        output:
            touch(f"{HERE}/{name}.done"),
        params:
            **stage(notebook),
        priority: first
        threads: THREADS
        resources:
            **needs(name, gpus),
        benchmark:
            f"{HERE}/{name}.tsv"
        log:
            f"{HERE}/{name}.log",
        shell:
            RUN


rule results:
    input:
        expand(f"{HERE}/{{stage}}.done",
               dataset=DATASETS, seed=WHOLE, stage=STAGES),
        [finished for dataset in DATASETS for seed in PROFILE.seeds for finished in trained(dataset, seed)],
        sources("notebooks/06_results.ipynb"),
    output:
        touch(f"{RUNS}/results.done"),
    params:
        profile=NAME,
        datasets=",".join(DATASETS),
        data=DATA,
        output=f"{NOTEBOOKS}/06_results.ipynb",
    threads: THREADS
    resources:
        **needs("results"),
    benchmark:
        f"{RUNS}/results.tsv"
    log:
        f"{RUNS}/results.log",
    shell:
        "TF_CPP_MIN_LOG_LEVEL=3 python -m tools.run_notebook 06_results {params.output:q} "
        "-p profile {params.profile:q} -p dataset {params.datasets} -p data {params.data:q} "
        "2> {log:q} || (grep -v -e WARNING -e '^I0000' {log:q} | tail -n 12 >&2; exit 1)"


rule report:
    input:
        rules.results.output,
        sources("lib/report/page.py"),
    output:
        touch(f"{RUNS}/report.done"),
    params:
        profile=NAME,
    resources:
        **needs("report"),
    log:
        f"{RUNS}/report.log",
    shell:
        "python -m lib.report.page {params.profile:q} 2> {log:q} || (cat {log:q} >&2; exit 1)"
