"""`python -m lib.profile NAME [DATASET] [DATA]`: is the profile valid, and is what it needs there?"""

import sys

from lib import StudyError
from lib.profile import check

try:
    check(*sys.argv[1:])
except StudyError as error:
    sys.exit(f"reproduce: {error}")
