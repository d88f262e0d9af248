"""Train one variant and attack it: `python -m lib.study quick ham10000 0 attention data/raw`."""

import sys

from lib import StudyError
from lib.evaluation import run_variant
from lib.study import Study
from lib.study.explanations import branch_of

if __name__ == "__main__":
    try:
        profile, dataset, seed, variant, data = sys.argv[1:]
        study = Study(profile, dataset, int(seed), data)
        run_variant(study, variant)
        branch_of(study, variant)
    except StudyError as error:
        sys.exit(f"study: {error}")
