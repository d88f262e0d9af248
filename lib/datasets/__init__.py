"""The three data sets: their facts, their label files and images as one tidy index, and leak-free splits."""

from lib.datasets.check import Check, check_dataset, usable_index
from lib.datasets.readers import read_index
from lib.datasets.registry import DATASETS, DatasetInfo, dataset_info
from lib.datasets.splits import SPLITS, check_no_leak, split_index, subset

__all__ = [
    "DATASETS",
    "SPLITS",
    "Check",
    "DatasetInfo",
    "check_dataset",
    "check_no_leak",
    "dataset_info",
    "read_index",
    "split_index",
    "subset",
    "usable_index",
]
