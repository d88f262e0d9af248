"""What the terminal shows while the study runs: `python -m tools.display PROFILE [DATASET] -- snakemake ...`.

Snakemake's own log goes to data/runs/<profile>/snakemake.log. What is done is read off the markers that its jobs leave,
so the same display serves one machine and a cluster.
"""

import os
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
from lib.evaluation.claims import estimate, first_pair, stem
from lib.profile import Profile, load_profile
from tools import cost


def seconds(profile: Profile, todo: list[tuple[str, str]]) -> list[float]:
    """Seconds of these jobs (data set, stage): the mean of the published run, or what the cost table expects.

    A run that found its networks made waited for none of them: then what each took when it was made counts.
    """
    path = PUBLISHED / profile.profile / "tables" / "timings.csv"
    seen = {}
    if path.is_file():
        table = pd.read_csv(path, dtype={"seed": str})
        each = table["seconds"] / (table["seed"].str.count("-").fillna(0) + 1)  # a job may make the networks of several
        seen = each.groupby(table["stage"]).mean().to_dict()
    made = sum(seen.get(f"made: {part}", 0) for part in ("model", "predictions", "attacks", "branch"))
    seen |= {"variant": max(seen.get("variant", 0), made)} if made else {}
    return [seen[stage] if stage in seen else cost.seconds(profile, stage, name) for name, stage in todo]


def result(profile: Profile, dataset: str, marker: Path) -> str:
    """What a finished variant can do without attack, and under one: at the budget of Grad-CAM, the same for all."""
    variant, seed = marker.parent.name, int(marker.parent.parent.name.removeprefix("seed"))
    headline = profile.evaluation.headline
    clean = pd.read_csv(marker.parent / "predictions.csv")["correct"].mean()
    attacked = pd.read_csv(marker.parent / "attacks" / f"{headline}.csv")
    kept = attacked[attacked["epsilon"] > 0].groupby("epsilon")["correct"].mean()
    budget = min(kept.index, key=lambda epsilon: abs(epsilon - profile.evaluation.gradcam_epsilon))
    title = DATASETS[dataset].named(phantom=profile.phantom is not None)
    run = f"run {profile.seeds.index(seed) + 1} of {len(profile.seeds)}"
    return f"{title}, {variant}, {run}: {clean:.0%} clean, {kept[budget]:.0%} at {budget:g} gray levels ({headline})"


def answer(profile: Profile) -> Table:
    """The claims of the run with their verdicts, beside those that the repository publishes."""
    keys, path = ["claim", "dataset"], Path(profile.profile) / "tables" / "claims.csv"
    here, theirs = pd.read_csv(ROOT / "figures" / path), pd.DataFrame(columns=[*keys, "verdict"])
    if (PUBLISHED / path).is_file():
        theirs = first_pair(pd.read_csv(PUBLISHED / path))[[*keys, "verdict"]]
    shown = Table("claim", "data set", "here (95 % interval)", "verdict", "published", title=f"Claims, {profile.label}")
    both = first_pair(here).merge(theirs, "left", keys, suffixes=("", "_published")).fillna({"verdict_published": "-"})
    for _, row in both.iterrows():
        said = estimate(row["ours"], row["ci_low"], row["ci_high"], row["unit"])
        name = DATASETS[row["dataset"]].short if row["dataset"] in DATASETS else row["dataset"]
        shown.add_row(row["claim"], name, said, stem(row["verdict"]), stem(row["verdict_published"]))
    return shown


def show(profile: Profile, datasets: list[str], command: list[str], console: Console) -> int:
    """Run Snakemake under the display, a line for each data set, and return its exit status."""
    runs, todo = ROOT / "data" / "runs" / profile.profile, cost.jobs(profile, datasets)
    runs.mkdir(parents=True, exist_ok=True)
    sets = pd.DataFrame(todo.values(), index=list(todo), columns=["dataset", "stage"])
    sets["seconds"], sets["done"] = seconds(profile, todo.values()), [marker.exists() for marker in todo]
    before, begin, told = sets.loc[sets["done"], "seconds"].sum(), time.time(), 0.0
    columns = TextColumn("{task.description:16}"), BarColumn(), TextColumn("{task.fields[jobs]}"), TimeElapsedColumn()
    with (
        open(runs / "snakemake.log", "w") as log,
        Progress(*columns, console=console, disable=not console.is_terminal) as bars,
    ):
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        titles = {name: DATASETS[name].short if name else "results, report" for name in sets["dataset"].unique()}
        rows, ended = {name: bars.add_task(title, jobs="") for name, title in titles.items()}, False
        while not ended:
            ended = process.poll() is not None
            for marker, job in sets[~sets["done"]].iterrows():
                if marker.exists() and marker.stat().st_mtime >= begin - 1:
                    sets.loc[marker, "done"] = True
                    if job["stage"] == "variant":
                        bars.console.print(result(profile, job["dataset"], marker))
            ready, total = sets.loc[sets["done"], "seconds"].sum(), sets["seconds"].sum()
            words = f"{ready / total:.0%} done"
            if ready > before:
                prior = max(0, total / 5 - (ready - before))  # at first, what is expected says more than what has ended
                pace = (time.time() - begin + prior / os.cpu_count()) / (ready - before + prior)
                words += f", about {max(1, round(pace * (total - ready) / 60))} min left"
            for name, group in sets.groupby("dataset"):
                spent, said = group.loc[group["done"], "seconds"].sum(), f"{group['done'].sum()} of {len(group)} jobs"
                bars.update(rows[name], total=group["seconds"].sum(), completed=spent, jobs=said if name else words)
            if not console.is_terminal and ready > before and time.time() - told > 60:
                told = time.time()
                console.print(words)
            time.sleep(0 if ended else 0.5)
    return process.returncode


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
    found = (ROOT / ".snakemake" / "slurm_logs" / f"rule_{log.stem}").rglob("*.log")
    mine = [path for path in found if wildcards <= set(path.parent.name.split("_")) and path.stat().st_mtime >= since]
    return sorted(mine, key=lambda path: path.stat().st_mtime)


def main() -> int:
    split, begin = sys.argv.index("--"), time.time()
    profile, datasets = load_profile(sys.argv[1]), sys.argv[2:split]
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    runs, figures = Path("data", "runs", profile.profile), f"figures/{profile.profile}"
    try:
        status = show(profile, datasets or profile.datasets, sys.argv[split + 1 :], console)
    except KeyboardInterrupt:  # Snakemake has had it too, and ends its jobs
        console.print("Stopped. What is finished is kept: the next call goes on from there.")
        return 130
    if status:
        log = runs / "snakemake.log"
        said = failures(ROOT / runs, begin) or (ROOT / log).read_text(errors="replace").splitlines()[-5:]
        said.append(f"The study is not finished. Mend what is named and call again: what is done is kept. ({log})")
        console.print("\n".join(said), markup=False)
        return status
    console.print(answer(profile))
    compared = [line[2:] for line in (ROOT / figures / "compared.md").read_text().splitlines() if line.startswith("- ")]
    ways = f"Report: {figures}/report.html   Compared: {figures}/compared.md   Next: notebooks/00_explore.ipynb"
    console.print("\n".join([*compared, ways]), markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
