"""Do the published networks do here what is published of them? `./reproduce verify PROFILE --data DIR`.

Each network whose weights are published is put together again, answers the whole test split, and is attacked on a few
images with the published settings; every answer and outcome is compared with the published one. Where all agree,
results that an earlier version of the code made may be taken over (`--take-over`) and need not be made again.
"""

import argparse
import sys

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

    variant, seed, answers (images), answers_differ, probability (the largest difference of one), images (attacked),
    outcomes (image and budget, for each attack that every run met), outcomes_differ, here and published (robust
    accuracy, a share, over these images and budgets), agrees. Raises StudyError where data or settings are others.
    """
    study, variant = packed.study, packed.variant
    if why := packed.other_than():
        raise StudyError(f"{packed.path.name} was made {why}: there is nothing here to compare it with.")
    classifier = Classifier(packed.model())
    theirs = packed.table("predictions.csv")
    test = study.index[study.index["split"] == "test"]
    logits = np.concatenate([classifier.logits(study.pixels(test.iloc[i : i + 64])) for i in range(0, len(test), 64)])
    chances = softmax(logits, axis=1)
    published = theirs.set_index("image_id").loc[test["image_id"]]
    columns = [f"p{k}" for k in range(chances.shape[1])]
    differ = int((chances.argmax(axis=1) != published["predicted"]).sum())

    # The first ones: random numbers depend on an image's place among the attacked ones.
    rows, keys = study.evaluated.head(images), ["image_id", "epsilon"]
    headline = study.profile.evaluation.headline
    entries = [entry for entry in study.profile.evaluation.attacks if entry.every_run or entry.name == headline]
    pairs = []
    for entry in entries:
        ours = study.robust_accuracy(classifier, rows, entry).set_index(keys)["correct"]
        known = packed.table(f"attacks/{entry.name}.csv").set_index(keys)["correct"]
        pairs.append(pd.DataFrame({"here": ours.astype(bool), "published": known.reindex(ours.index).astype(bool)}))
    table = pd.concat(pairs).reset_index()
    table = table[table["epsilon"] > 0]
    others = int((table["here"] != table["published"]).sum())
    return {
        "variant": variant,
        "seed": study.seed,
        "answers": len(test),
        "answers_differ": differ,
        "probability": float(np.abs(chances - published[columns].to_numpy()).max()),
        "images": len(rows),
        "outcomes": len(table),
        "outcomes_differ": others,
        "here": table["here"].mean(),
        "published": table["published"].mean(),
        "agrees": differ <= ANSWERS * len(test) and others <= OUTCOMES * len(table),
    }


def main(profile: str, data: str, take_over: bool = False) -> pd.DataFrame:
    """Verify a profile's published networks, say so line by line, and keep the table as data/runs/.../verified.csv.

    Raises StudyError where none is published, one does not agree, or the data are not here.
    """
    name = load_profile(profile).profile
    files = sorted((PUBLISHED / name).glob("*.zip"))
    rows = []
    for path in files:
        packed = opened(path, data)
        if WEIGHTS in packed.files:
            rows.append(verify(packed))
            print(said(rows[-1]), flush=True)
    if not rows:
        raise StudyError(f"No network of {name} is published with its weights: there is nothing to verify.")
    table = pd.DataFrame(rows)
    with artifacts.replacing(ROOT / "data" / "runs" / name / "verified.csv") as temporary:
        table.to_csv(temporary, index=False)
    if not table["agrees"].all():
        raise StudyError(
            f"{(~table['agrees']).sum()} of {len(table)} networks do not do here what is published of them."
        )
    print(f"All {len(table)} networks do here what is published of them.")
    for path in files if take_over else []:
        unpack(path, data, verified=True)
    if take_over:
        print(f"The results of {len(files)} networks are taken over: ./reproduce --profile {name} goes on from them.")
    return table


def said(row: dict) -> str:
    """A line on one network."""
    return (
        f"{row['variant']}, seed {row['seed']}: {'agrees' if row['agrees'] else 'DOES NOT AGREE'}; "
        f"{row['answers_differ']} of {row['answers']} answers differ, probabilities by {row['probability']:.1g}; "
        f"{row['outcomes_differ']} of {row['outcomes']} outcomes of attacks on {row['images']} images differ, "
        f"robust accuracy {row['here']:.1%}, published {row['published']:.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="reproduce verify", description="Hold published networks against their results."
    )
    parser.add_argument("profile", nargs="?", default="ham10000")
    parser.add_argument("--take-over", action="store_true", help="let results of an earlier version of the code stand")
    parser.add_argument("--data", default="data/raw", help="folder of the original data")
    options = parser.parse_args()
    try:
        main(options.profile, options.data, options.take_over)
    except StudyError as error:
        sys.exit(f"verify: {error}")
