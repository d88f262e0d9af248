"""The three data sets: their facts, their label files and images as one tidy index, and leak-free splits."""

import lazy_loader

# Whoever needs the facts alone, as a profile does, does not wait for pandas, SciPy and OpenCV.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["Check", "check_dataset", "usable_index"],
        "readers": ["read_index"],
        "registry": ["DATASETS", "DatasetInfo", "dataset_info"],
        "splits": ["SPLITS", "check_no_leak", "split_index", "subset"],
    },
)
