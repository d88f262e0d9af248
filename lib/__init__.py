"""Shared code of the study: what the notebooks would otherwise repeat."""

import os
from pathlib import Path

# Before TensorFlow is imported: on processors where it leaves oneDNN off by default (AMD), gradients are
# several times slower without it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "figures" / "published"
"""What the repository shows of its runs; a run of one's own writes beside it, to figures/<profile>."""

REGISTRIES = [
    ROOT / "lib" / "data" / "registry.yaml",
    Path(os.environ.get("STUDY_DATASETS", ROOT / "data" / "datasets.yaml")),
]
"""The facts of the data sets: the study's, and one's own where that file is there (see docs/own-data.md)."""


class StudyError(Exception):
    """Bad input (a profile key, a file, a row); the message says in one sentence what to do."""


def _checkout(folder: Path) -> Path | None:
    """The copy of this repository that a folder lies in."""
    places = (place for place in (folder, *folder.parents) if (place / "lib" / "study" / "study.py").is_file())
    return next((place for place in places if (place / "notebooks").is_dir()), None)


if (_here := _checkout(Path.cwd())) and _here.resolve() != ROOT:
    # An environment that was made for one copy is used in another: results would silently go to the first.
    raise StudyError(
        f"This runs in {_here}, and Python imports the code of {ROOT}: use the environment that ./reproduce makes "
        f"there, or set PYTHONPATH={_here}."
    )
