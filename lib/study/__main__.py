"""Train a variant from one or more seeds and attack it: `python -m lib.study quick ham10000 0-1-2 attention data/raw`.

Seeds that share a process share its start and the compiled training steps, of which small networks are most. Each
leaves its marker, `variant.done`, when all of it is there.
"""

import sys

from lib import StudyError
from lib.study import Study
from lib.study.results import make

if __name__ == "__main__":
    try:
        profile, dataset, seeds, variant, data = sys.argv[1:]
        study = None
        for seed in map(int, seeds.split("-")):
            study = study.followed_by(seed) if study else Study(profile, dataset, seed, data)
            make(study, variant)
            (study.directory(variant) / "variant.done").touch()
    except StudyError as error:
        sys.exit(f"study: {error}")
