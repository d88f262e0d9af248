"""Train and attack the networks of a packed study: `python run_packed.py --help`. Beside it lie the archives.

What is finished lies in `results/`, a file for each network: bring these home, to `./reproduce merge`.
"""

import argparse
import importlib.util
import os
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUDY = HERE / "study"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", metavar="[DATASET,]VARIANT,SEED", help="networks to make, in this order")
    parser.add_argument("--minutes", type=float, help="begin no network that would not end within so many minutes")
    parser.add_argument(
        "--split", type=float, metavar="MB", help="write results in pieces of at most so many megabytes"
    )
    options = parser.parse_args()
    for archive in sorted(HERE.glob("*-*.zip")):
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                target = (STUDY / name).resolve()
                if not target.is_relative_to(STUDY):
                    sys.exit(f"run_packed: {archive.name} names a file outside its folder, {name!r}; do not use it.")
                if not target.is_file() or target.stat().st_size != file.getinfo(name).file_size:
                    file.extract(name, STUDY)
    if not (STUDY / "PROFILE").is_file():
        sys.exit(f"run_packed: no archive of ./reproduce pack lies in {HERE}.")
    needed = [line.split("\t") for line in (STUDY / "requirements.txt").read_text().splitlines()]
    missing = [package for module, package in needed if importlib.util.find_spec(module) is None]
    for package in missing:
        print(f"run_packed: the package {package} is missing; install it with: pip install {package}", file=sys.stderr)
    if missing:
        sys.exit(1)
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # TensorFloat-32 rounds a pixel of 200 to a tenth
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE / "compiled"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.chdir(STUDY)
    sys.path.insert(0, str(STUDY))
    run = importlib.import_module("lib.study.packed").run
    sys.exit(run((STUDY / "PROFILE").read_text(), HERE / "results", options.jobs, options.minutes, options.split))


if __name__ == "__main__":
    main()
