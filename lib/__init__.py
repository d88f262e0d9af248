"""Shared code of the study: what the notebooks would otherwise repeat."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class StudyError(Exception):
    """Bad input (a profile key, a file, a row); the message says in one sentence what to do."""
