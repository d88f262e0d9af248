"""Splits by patient or lesion, the proof that nothing leaks, and stratified subsets.

Every random choice is made on groups or images sorted by name, so the same images and the same seed give the
same split whatever the order of the label file.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib import StudyError

SPLITS = ("train", "validation", "test")


def split_index(
    index: pd.DataFrame, seed: int, validation: float = 0.15, test: float = 0.20, use_official: bool = True
) -> pd.DataFrame:
    """Return the index with a column `split`; a group (patient, lesion) is never in two splits.

    `validation` and `test` are fractions of the images. Where the data set has an official split (column
    `official_split`) and images of its test part are there, these are the test split, and `validation` is
    taken from the rest in the same proportion to train; one that names validation images too is taken whole.
    `use_official=False` ignores it. Classes are stratified as far as groups allow, see `_assign`. Raises StudyError
    if a fraction is impossible or a split would be empty.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise StudyError(
            f"Split fractions validation={validation} and test={test} must be positive and sum to below 1."
        )
    if use_official and "official_split" in index and (index["official_split"] == "validation").any():
        return _without_empty(index.assign(split=index["official_split"]))
    counts = pd.crosstab(index["group"], index["label"])  # (groups, classes), groups sorted
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    split = pd.Series("test", index=counts.index)
    free = pd.Series(True, index=counts.index)
    if use_official and "official_split" in index and (index["official_split"] == "test").any():
        free = ~(index["official_split"] == "test").groupby(index["group"]).any()
        del fractions["test"]
    split[free] = _assign(counts[free].to_numpy(), fractions, np.random.default_rng(seed))

    return _without_empty(index.assign(split=index["group"].map(split)))


def _without_empty(index: pd.DataFrame) -> pd.DataFrame:
    empty = [name for name in SPLITS if not (index["split"] == name).any()]
    if empty:
        raise StudyError(
            f"{len(index)} images of {index['group'].nunique()} groups are too few for a split: "
            f"{' and '.join(empty)} would be empty; add images or change the split fractions."
        )
    return index


def _assign(counts: np.ndarray, fractions: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Give each group (row of class counts) to a split, so that every class comes close to the fractions.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) with whole groups: in the order of their rarest
    class and then of their size, each group goes, if it fits, where the largest part of that class is still wanted. The
    part and not the number of images, or all large groups (patients with many follow-ups) would be train. Where groups
    are single images, a split ends less than one image above what is wanted of any class.
    """
    names = np.array(list(fractions))
    share = np.array(list(fractions.values()))
    totals = counts.sum(axis=0)
    quota = np.outer(share / share.sum(), totals)  # (splits, classes), in images
    wanted = quota.copy()
    rarest = np.where(counts > 0, totals, totals.max(initial=0) + 1).argmin(axis=1)
    order = np.lexsort((rng.permutation(len(counts)), -counts.sum(axis=1), rarest, totals[rarest]))
    assigned = np.empty(len(counts), dtype=int)
    for group in order:
        part = wanted[:, rarest[group]] / quota[:, rarest[group]]
        fits = wanted[:, rarest[group]] > counts[group, rarest[group]] - 1e-9
        if fits.any():
            part[~fits] = -np.inf
        best = np.flatnonzero(part >= part.max() - 1e-9)  # equal but for rounding
        assigned[group] = best[wanted[best].sum(axis=1).argmax()]
        wanted[assigned[group]] -= counts[group]
    return names[assigned]


def check_no_leak(index: pd.DataFrame, content: np.ndarray | None = None) -> dict[str, int]:
    """Count images and groups per split and what is in two splits; StudyError unless the latter is nothing.

    `content`: digests of the images' pixels, in the order of the index, for the proof that no image is in two
    splits under two names. Returns e.g. {"images": 100, "groups": 70, "images in train": 65, "groups in train": 40,
    ..., "groups in two splits": 0, "identical images in two splits": 0}.
    """
    leaks = _in_two_splits(index, index["group"].to_numpy())
    if len(leaks):
        raise StudyError(
            f"{len(leaks)} groups (patients or lesions) are in two splits, the first is {leaks[0]!r}: "
            "make the splits with split_index."
        )
    per_split = index.groupby("split")["group"].agg(["size", "nunique"])
    proof = {"images": len(index), "groups": index["group"].nunique()}
    for name in per_split.index:
        proof[f"images in {name}"] = int(per_split.loc[name, "size"])
        proof[f"groups in {name}"] = int(per_split.loc[name, "nunique"])
    proof["groups in two splits"] = len(leaks)
    if content is not None:
        twins = _in_two_splits(index, content)
        if len(twins):
            names = index.loc[content == twins[0], "image_id"].tolist()
            raise StudyError(
                f"{len(twins)} images are in two splits under different names, the first is {' = '.join(names)}: "
                "run ./reproduce data check, and leave out the official split."
            )
        proof["identical images in two splits"] = len(twins)
    return proof


def _in_two_splits(index, what):
    splits_of = index["split"].groupby(what).nunique()
    return splits_of.index[splits_of > 1]


def subset(index: pd.DataFrame, n: int | Mapping[str, int], seed: int) -> pd.DataFrame:
    """Keep at most `n` images of each split (or n[split], other splits whole), stratified by class.

    The rule: within a split and class, images are put in a random order fixed by the seed; the image of rank r among m
    gets the key r / m; the n smallest keys stay. So classes keep their proportions, no class vanishes while n is at
    least the number of classes, and a smaller subset is part of every larger one. Rows keep their order.
    """
    limits = dict(n) if isinstance(n, Mapping) else dict.fromkeys(SPLITS, n)
    rows = index.sort_values("image_id")[["label", "split"]]
    rows = rows.assign(draw=np.random.default_rng(seed).permutation(len(rows)))
    by_class = rows.groupby(["split", "label"])["draw"]
    rows["key"] = (by_class.rank(method="first") - 1) / by_class.transform("size")
    rows["rank"] = rows.sort_values(["key", "label"]).groupby("split").cumcount()
    keep = rows["rank"] < rows["split"].map(limits).fillna(np.inf)
    return index[keep.reindex(index.index)]


def class_counts(index: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Images per split and class: dataset, split, label (the class name), n."""
    counts = index.groupby(["split", "label", "class_name"], observed=True).size().rename("n").reset_index()
    counts["split"] = pd.Categorical(counts["split"], ["train", "validation", "test"])
    counts = counts.sort_values(["split", "label"]).drop(columns="label").rename(columns={"class_name": "label"})
    counts.insert(0, "dataset", dataset)
    return counts.reset_index(drop=True)
