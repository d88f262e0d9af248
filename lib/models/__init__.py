"""The classifiers of the study; see `lib.models.classifiers`."""

from lib.models.attention import SoftAttention
from lib.models.backbones import FEATURES, IMAGENET_MEAN_RGB, CaffePreprocessing
from lib.models.classifiers import build_classifier, parameter_counts

__all__ = [
    "FEATURES",
    "IMAGENET_MEAN_RGB",
    "CaffePreprocessing",
    "SoftAttention",
    "build_classifier",
    "parameter_counts",
]
