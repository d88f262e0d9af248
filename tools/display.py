"""What the terminal shows while the study runs: `python -m tools.display PROFILE [DATASET] -- snakemake ...`.

Snakemake's own log goes to data/runs/<profile>/snakemake.log. What is done is read off the markers that its jobs leave,
so the same display serves one machine and a cluster. A finished job counts by the seconds that it took in the
published run, where there is one.
"""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lib import PUBLISHED, ROOT
from lib.data import DATASETS
from lib.evaluation.claims import estimate, stem
from lib.evaluation.comparison import TYPICAL
from lib.profile import Profile, load_profile

STAGES = {
    "prepare": "images",
    "train": "02_training",
    "attack": "03_attacks",
    "gradcam": "04_gradcam",
    "why": "05_why",
}
WEIGHTS = {
    "prepare": 20,
    "variant": 90,
    "train": 15,
    "attack": 60,
    "gradcam": 20,
    "why": 60,
    "results": 60,
    "report": 5,
}


def jobs(profile: Profile, datasets: list[str]) -> dict[str, list[tuple[str, Path]]]:
    """By data set ("all" for the end of the study) its jobs: stage, and the marker of a finished one."""
    runs = ROOT / "data" / "runs" / profile.profile
    found = {}
    for dataset in datasets:
        found[dataset] = []
        for seed in profile.seeds:
            place = runs / dataset / f"seed{seed}"
            found[dataset] += [("variant", place / name / "variant.done") for name in profile.variants_of(seed)]
            if profile.whole_variants_of(seed):
                found[dataset] += [(stage, place / f"{stage}.done") for stage in STAGES]
    return found | {"all": [(stage, runs / f"{stage}.done") for stage in ("results", "report")]}


def weights(profile: Profile) -> dict[str, float]:
    """Seconds of a job by stage: the mean of the published run, or what such jobs take of one another's time."""
    path = PUBLISHED / profile.profile / "tables" / "timings.csv"
    seen = pd.read_csv(path).groupby("stage")["seconds"].mean().to_dict() if path.is_file() else {}
    return WEIGHTS | {stage: seconds for stage, seconds in seen.items() if stage in WEIGHTS}


def result(profile: Profile, dataset: str, marker: Path) -> str:
    """What a finished variant can do without attack, and at the largest budget that leaves it a tenth of the images."""
    variant, seed = marker.parent.name, int(marker.parent.parent.name.removeprefix("seed"))
    headline = profile.evaluation.headline
    clean = pd.read_csv(marker.parent / "predictions.csv")["correct"].mean()
    attacked = pd.read_csv(marker.parent / "attacks" / f"{headline}.csv")
    kept = attacked[attacked["epsilon"] > 0].groupby("epsilon")["correct"].mean()
    budget = max(kept.index[kept >= TYPICAL], default=kept.index.min())
    title = DATASETS[dataset].named(phantom=profile.phantom is not None)
    run = f"run {profile.seeds.index(seed) + 1} of {len(profile.seeds)}"
    return f"{title}, {variant}, {run}: {clean:.0%} clean, {kept[budget]:.0%} at {budget:g} gray levels ({headline})"


def answer(profile: Profile) -> Table:
    """The claims of the run with their verdicts, beside those that the repository publishes."""
    out = ROOT / "figures" / profile.profile / "tables" / "claims.csv"
    published = PUBLISHED / profile.profile / "tables" / "claims.csv"
    theirs = {}
    if published.is_file():
        table = pd.read_csv(published)
        theirs = dict(zip(zip(table["claim"], table["dataset"], strict=True), table["verdict"].map(stem), strict=True))
    shown = Table("claim", "data set", "here (95 % interval)", "verdict", "published", title=f"Claims, {profile.label}")
    for _, row in pd.read_csv(out).iterrows():
        here = estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"])
        name = DATASETS[row["dataset"]].short if row["dataset"] in DATASETS else row["dataset"]
        verdict = theirs.get((row["claim"], row["dataset"]), "-")
        shown.add_row(row["claim"], name, here, stem(row["verdict"]), verdict)
    return shown


def failures(runs: Path, since: float) -> list[str]:
    """The last lines of the logs of jobs that began after `since` (seconds) and did not finish.

    Where a job on a cluster wrote nothing, what Slurm itself says of it.
    """
    said = []
    for log in sorted(runs.rglob("*.log")):
        if log.name == "snakemake.log" or log.stat().st_mtime < since or log.with_suffix(".done").exists():
            continue
        lines = _words(log) or [line for path in _slurm_logs(log, runs, since) for line in _words(path)]
        said.append("\n".join([f"Failed, {log.relative_to(ROOT)}:", *(lines[-2:] or ["(nothing was written)"])]))
    return said


def _words(log: Path) -> list[str]:
    """The lines of a log without progress bars and TensorFlow's warnings."""
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "WARNING" not in line and "it/s" not in line]


def _slurm_logs(log: Path, runs: Path, since: float) -> list[Path]:
    """The logs that Snakemake's Slurm plugin has Slurm write of a job: rule_<stage>/<wildcards>/<number>.log."""
    wildcards = {part.removeprefix("seed") for part in log.parent.relative_to(runs).parts}
    place = ROOT / ".snakemake" / "slurm_logs" / f"rule_{log.stem}"
    found = [path for path in place.rglob("*.log") if wildcards <= set(path.parent.name.split("_"))]
    return sorted((path for path in found if path.stat().st_mtime >= since), key=lambda path: path.stat().st_mtime)


def show(profile: Profile, datasets: list[str], command: list[str], console: Console) -> int:
    """Run Snakemake under the display, and return its exit status."""
    runs, todo, seconds = ROOT / "data" / "runs" / profile.profile, jobs(profile, datasets), weights(profile)
    runs.mkdir(parents=True, exist_ok=True)
    done = {marker for group in todo.values() for _, marker in group if marker.exists()}
    begin, told = time.time(), 0.0
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[stage]}"),
    )
    with (
        open(runs / "snakemake.log", "w") as log,
        Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars,
    ):
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        rows = {
            name: bars.add_task(
                DATASETS[name].short if name in DATASETS else "results, report",
                total=sum(seconds[stage] for stage, _ in group),
                stage="",
            )
            for name, group in todo.items()
        }
        total, before = sum(map(sum, ([seconds[s] for s, _ in g] for g in todo.values()))), None
        while True:
            ended = process.poll() is not None
            for name, group in todo.items():
                for stage, marker in group:
                    if marker not in done and marker.exists() and marker.stat().st_mtime >= begin - 1:
                        done.add(marker)
                        if stage == "variant":
                            bars.console.print(result(profile, name, marker))
                ready = sum(seconds[stage] for stage, marker in group if marker in done)
                bars.update(
                    rows[name],
                    completed=ready,
                    stage=f"{sum(m in done for _, m in group)} of {len(group)} jobs",
                )
            finished = sum(seconds[s] for g in todo.values() for s, m in g if m in done)
            before = finished if before is None else before
            if finished > before and time.time() - told > (1 if console.is_terminal else 60):
                left = (time.time() - begin) * (total - finished) / (finished - before)
                told = time.time()
                words = f"{finished / total:.0%} done, about {max(1, round(left / 60))} min left"
                if console.is_terminal:
                    bars.update(rows["all"], stage=words)
                else:
                    console.print(words)
            if ended:
                break
            time.sleep(0.5)
    return process.returncode


def main() -> int:
    split = sys.argv.index("--")
    name, *datasets = sys.argv[1:split]
    profile, console, begin = (
        load_profile(name),
        Console(highlight=False, soft_wrap=not sys.stdout.isatty()),
        time.time(),
    )
    runs = ROOT / "data" / "runs" / profile.profile
    try:
        status = show(profile, datasets or profile.datasets, sys.argv[split + 1 :], console)
    except KeyboardInterrupt:  # Snakemake has had it too, and ends its jobs
        console.print("Stopped. What is finished is kept: the next call goes on from there.")
        return 130
    if status:
        said = failures(runs, begin) or (runs / "snakemake.log").read_text(errors="replace").splitlines()[-5:]
        console.print("\n".join(said), markup=False)
        log = (runs / "snakemake.log").relative_to(ROOT)
        console.print(f"The study is not finished. Mend what is named and call again: what is done is kept. ({log})")
        return status
    console.print(answer(profile))
    figures = f"figures/{profile.profile}"
    compared = (ROOT / figures / "compared.md").read_text().splitlines()
    console.print("\n".join(line.removeprefix("- ") for line in compared if line.startswith("- ")), markup=False)
    console.print(f"Report: {figures}/report.html   Compared: {figures}/compared.md   Next: notebooks/00_explore.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
