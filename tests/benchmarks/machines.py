"""Does the default run come to the same verdicts on other processors? `./reproduce bench machines` (over an hour).

Runs a profile once for each setting of ONEDNN_MAX_CPU_ISA, which makes oneDNN, TensorFlow's engine, compute as an older
processor would, so that training takes another way. Writes figures/bench/machines.csv (setting, claim, dataset, unit,
ours, ci_low, ci_high, n, verdict) and machines.json; ends with status 1 where a verdict depends on the setting.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from machine import machine, versions  # noqa: E402

from lib.evaluation.claims import stem  # noqa: E402

SETTINGS = {"sse41": "SSE41", "avx2": "AVX2", "best": "DEFAULT"}
COLUMNS = ["claim", "dataset", "unit", "ours", "ci_low", "ci_high", "n", "verdict"]


def run(profile: str, setting: str, folder: Path) -> pd.DataFrame:
    """The claims of a run under a setting, which goes on if called again.

    The machine's best is the profile's own run, so that one that is there is not made again; the others are called
    <profile>-<setting>.
    """
    name = profile if SETTINGS[setting] == "DEFAULT" else f"{profile}-{setting}"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"extends": profile, "profile": name}))
    command = [sys.executable, ROOT / "reproduce", "--profile", path]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": SETTINGS[setting]}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    claims = pd.read_csv(ROOT / "figures" / name / "tables" / "claims.csv")
    return claims[COLUMNS].assign(verdict=claims["verdict"].map(stem))


def differing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of claims and data sets whose verdicts are not the same in all settings."""
    verdicts = table.groupby(["claim", "dataset"])["verdict"].transform("nunique")
    return table[verdicts > 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = {setting: run(options.profile, setting, Path(folder)) for setting in SETTINGS}
    table = pd.concat(tables, names=["setting"]).reset_index(level="setting").reset_index(drop=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "machines.csv", index=False)
    about = machine() | versions("tensorflow", "keras", "numpy") | {"profile": options.profile}
    (options.out / "machines.json").write_text(json.dumps(about, indent=1) + "\n")
    apart = differing(table)
    print(apart.to_string(index=False) if len(apart) else f"All {len(tables['best'])} verdicts are the same.")
    return int(len(apart) > 0)


if __name__ == "__main__":
    sys.exit(main())
