"""What went wrong in a run: the last words of the jobs that did not finish."""

from pathlib import Path

from lib import ROOT


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
