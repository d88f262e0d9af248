"""What a run varies: settings read from `profiles/<name>.yaml` and checked before anything is computed."""

from lib.profile.evaluation import Attack, Evaluation
from lib.profile.reading import check, departures, load_profile, profile_files, profile_path
from lib.profile.settings import BACKBONES, Adversarial, Model, Preprocessing, Profile, Split, Training, Variant

__all__ = ["BACKBONES", "Adversarial", "Attack", "Evaluation", "Model", "Preprocessing", "Profile", "Split", "Training",
           "Variant", "check", "departures", "load_profile", "profile_files", "profile_path"]  # fmt: skip
