"""The objects that notebooks ask for data, models and outcomes: a study, and all studies of a profile."""

from lib.study.runs import Runs
from lib.study.study import Study

__all__ = ["Runs", "Study"]
