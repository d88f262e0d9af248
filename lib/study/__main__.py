"""Train one variant and attack it: `python -m lib.study quick ham10000 0 attention data/raw`."""

import sys

from lib import StudyError
from lib.evaluation import run_variant
from lib.study import Study

if __name__ == "__main__":
    try:
        profile, dataset, seed, variant, data = sys.argv[1:]
        run_variant(Study(profile, dataset, int(seed), data), variant)
    except StudyError as error:
        sys.exit(f"study: {error}")
