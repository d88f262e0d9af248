"""`python -m lib.profile NAME [DATASET] [DATA]`: is the profile valid, and is what it needs there?"""

import sys

from lib import StudyError

try:
    from lib.profile import check  # it reads the registries of data sets

    check(*sys.argv[1:])
except StudyError as error:
    sys.exit(f"reproduce: {error}")
