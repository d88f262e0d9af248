"""The jobs of a packed study, one after the other in one process, which keeps what was compiled (see run_packed.py)."""

import time
from itertools import product
from pathlib import Path

from lib import StudyError
from lib.profile import Profile, load_profile
from lib.study.results import make, pack
from lib.study.study import Study


def jobs_of(profile: Profile, wanted: list[str] | None) -> list[tuple[str, str, int]]:
    """(data set, variant, seed) of the networks to make, in the order asked for.

    Raises StudyError for one that the profile does not have.
    """
    every = [(dataset, variant, seed) for seed in profile.seeds for dataset, variant in
             product(profile.datasets, profile.variants_of(seed))]  # fmt: skip
    if not wanted:
        return every
    found = []
    for name in wanted:
        asked = [job for job in every if name in (f"{job[1]},{job[2]}", f"{job[0]},{job[1]},{job[2]}")]
        if not asked:
            known = ", ".join(dict.fromkeys(f"{variant},{seed}" for _, variant, seed in every))
            raise StudyError(f"There is no job {name!r}; there are {known}.")
        found += asked
    return found


def run(name: str, results: Path, wanted=None, minutes: float | None = None, split: float | None = None) -> int:
    """Make networks until all are there or time is up; returns the exit status, 1 for a failure.

    A network whose results lie in `results` is not made again. With `minutes` none is begun that, judged by the longest
    so far, would not end in time. `split`: megabytes of a piece of a result.
    """
    begin, longest = time.monotonic(), 0.0
    try:
        profile = load_profile(name)
        jobs = jobs_of(profile, wanted)
        for number, (dataset, variant, seed) in enumerate(jobs, 1):
            path = results / f"{dataset}-seed{seed}-{variant}.zip"
            if path.is_file() or path.with_name(f"{path.name}.001").is_file():
                print(f"{number} of {len(jobs)}: {path.stem} is there", flush=True)
                continue
            spent = time.monotonic() - begin
            if minutes is not None and spent + longest > 60 * minutes:
                print(f"{number} of {len(jobs)}: {path.stem} would not end in time: call again", flush=True)
                return 0
            print(f"{number} of {len(jobs)}: {path.stem} ...", flush=True)
            study, start = Study(profile.profile, dataset, seed), time.monotonic()
            make(study, variant)
            pack(study, variant, path, weights=True)
            _split(path, split)
            longest = max(longest, time.monotonic() - start)
            print(f"{number} of {len(jobs)}: {path.stem} took {time.monotonic() - start:.0f} s", flush=True)
    except StudyError as error:
        print(f"run_packed: {error}", flush=True)
        return 1
    return 0


def _split(path: Path, megabytes: float | None) -> None:
    """Cut a file that is larger into pieces .001, .002 and so on, which `./reproduce merge` joins."""
    size = int((megabytes or 0) * 1e6)
    if not size or path.stat().st_size <= size:
        return
    content = path.read_bytes()
    for number, first in enumerate(range(0, len(content), size), 1):
        path.with_name(f"{path.name}.{number:03d}").write_bytes(content[first : first + size])
    path.unlink()
