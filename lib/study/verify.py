"""Do the published networks do here what is published of them? `./reproduce verify PROFILE --data DIR`.

Each one whose weights are published answers the published test images, and is attacked on a few of them; every answer
and outcome is compared with the published one. Where all agree, results that an earlier version of the code made may be
taken over (`--take-over`). With other copies of the images, or other starting weights, answers may differ, which is no
disagreement.
"""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from scipy.special import softmax

from lib import ROOT, StudyError, artifacts
from lib.attacks import Classifier
from lib.profile import load_profile
from lib.study.results import PUBLISHED, WEIGHTS, Packed, opened, unpack

IMAGES = 30
# Another processor rounds otherwise, which may turn an answer or an outcome that was on the edge.
ANSWERS, OUTCOMES = 0.005, 0.02  # shares that may differ


def verify(packed: Packed, images: int = IMAGES) -> dict:
    """One network held against what its file says of it: a row of the table of `main`.

    variant, seed, same_data (are images and starting weights those that it was published with?), answers (images),
    answers_differ, probability (the largest difference of one), images (attacked), outcomes (image and budget, for each
    attack that every run met), outcomes_differ, here and published (robust accuracy, a share, over these images and
    budgets), agrees. Raises StudyError where the settings are others, none of the published images is here, or the file
    lacks an outcome.
    """
    study, variant = packed.study, packed.variant
    if not packed.same_settings():
        raise StudyError(f"{packed.path.name} was made with other settings: there is nothing here to compare it with.")
    theirs = packed.table("predictions.csv").set_index("image_id")
    here = study.index.reset_index().set_index("image_id", drop=False)  # rows by name, whatever split they are in here

    def rows_of(names):
        return here.loc[[name for name in names if name in here.index]].set_index("index")

    test = rows_of(theirs.index)
    if test.empty:
        raise StudyError(f"None of the {len(theirs)} test images of {packed.path.name} is in this data folder.")
    classifier = Classifier(packed.model())
    logits = np.concatenate([classifier.logits(study.pixels(test.iloc[i : i + 64])) for i in range(0, len(test), 64)])
    chances = softmax(logits, axis=1)
    published = theirs.loc[test["image_id"]]
    differ = int((chances.argmax(axis=1) != published["predicted"]).sum())
    keys, headline = ["image_id", "epsilon"], study.profile.evaluation.headline
    entries = [entry for entry in study.profile.evaluation.attacks if entry.every_run or entry.name == headline]
    outcomes = {entry.name: packed.table(f"attacks/{entry.name}.csv") for entry in entries}
    # The first ones, in their order: random numbers depend on an image's place among the attacked ones.
    rows = rows_of(outcomes[headline]["image_id"].unique()).head(images)
    pairs = []
    for entry in entries:
        ours = study.robust_accuracy(classifier, rows, entry).set_index(keys)["correct"]
        known = outcomes[entry.name].set_index(keys)["correct"].reindex(ours.index)
        if known.isna().any():
            raise StudyError(f"{packed.path.name} lacks outcomes of {entry.name}: get the file anew.")
        pairs.append(pd.DataFrame({"here": ours.astype(bool), "published": known.astype(bool)}))
    table = pd.concat(pairs).query("epsilon > 0")
    others = int((table["here"] != table["published"]).sum())
    return {
        "variant": variant,
        "seed": study.seed,
        "same_data": packed.same_data(),
        "answers": len(test),
        "answers_differ": differ,
        "probability": float(np.abs(chances - published.filter(regex=r"^p\d+$").to_numpy()).max()),
        "images": len(rows),
        "outcomes": len(table),
        "outcomes_differ": others,
        "here": table["here"].mean(),
        "published": table["published"].mean(),
        "agrees": differ <= ANSWERS * len(test) and others <= OUTCOMES * len(table),
    }


def main(profile: str, data: str, take_over: bool = False) -> pd.DataFrame:
    """Verify a profile's published networks, say so line by line, and keep the table as data/runs/.../verified.csv.

    Raises StudyError where none is published, one does not agree, or, to be taken over, the images are other copies.
    """
    name = load_profile(profile).profile
    files = sorted((PUBLISHED / name).glob("*.zip"))
    whole = [path for path in files if WEIGHTS in opened(path, data).files]
    if not whole:
        raise StudyError(f"No network of {name} is published with its weights: there is nothing to verify.")
    rows = []
    with ProcessPoolExecutor(min(os.cpu_count(), len(whole)), multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(_verified, whole, [data] * len(whole)):
            rows.append(row)
            print(said(row), flush=True)
    table = pd.DataFrame(rows)
    with artifacts.replacing(ROOT / "data" / "runs" / name / "verified.csv") as temporary:
        table.to_csv(temporary, index=False)
    same, agrees = table["same_data"].all(), table["agrees"].all()
    if take_over and not same:
        raise StudyError("Results can be taken over only where images and starting weights are the same.")
    if not same:
        print("Images or starting weights are other copies than the published ones (see data/README.md).")
    if same and not agrees:
        raise StudyError(f"{(~table['agrees']).sum()} of {len(table)} networks do not do what is published of them.")
    verdict = f"All {len(table)} networks do here what is published of them."
    print(verdict if agrees else "No verdict: that may be why some networks answer otherwise.")
    for path in files if take_over else []:
        unpack(path, data, verified=True)
    if take_over:
        print(f"The results of {len(files)} networks are taken over: ./reproduce --profile {name} goes on from them.")
    return table


def _verified(path, data):
    return verify(opened(path, data))


def said(row: dict) -> str:
    """A line on one network."""
    disagrees = "DOES NOT AGREE" if row["same_data"] else "other images or starting weights"
    verdict = "agrees" if row["agrees"] else disagrees
    return (
        f"{row['variant']}, seed {row['seed']}: {verdict}; "
        f"{row['answers_differ']} of {row['answers']} answers differ, probabilities by {row['probability']:.1g}; "
        f"{row['outcomes_differ']} of {row['outcomes']} outcomes of attacks on {row['images']} images differ, "
        f"robust accuracy {row['here']:.1%}, published {row['published']:.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser("reproduce verify", description="Hold published networks against their results.")
    parser.add_argument("profile", nargs="?", default="ham10000")
    parser.add_argument("--take-over", action="store_true", help="let results of an earlier version of the code stand")
    parser.add_argument("--data", default="data/raw", help="folder of the original data")
    options = parser.parse_args()
    try:
        main(options.profile, options.data, options.take_over)
    except StudyError as error:
        sys.exit(f"verify: {error}")
