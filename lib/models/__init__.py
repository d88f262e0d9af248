"""The classifiers of the study; see `lib.models.classifiers`."""

from lib.models.attention import CBAM, SoftAttention, SqueezeExcitation
from lib.models.backbones import FEATURES, IMAGENET_MEAN_RGB, CaffePreprocessing
from lib.models.classifiers import build_classifier, parameter_counts, without_branch

__all__ = [
    "CBAM",
    "FEATURES",
    "IMAGENET_MEAN_RGB",
    "CaffePreprocessing",
    "SoftAttention",
    "SqueezeExcitation",
    "build_classifier",
    "parameter_counts",
    "without_branch",
]
