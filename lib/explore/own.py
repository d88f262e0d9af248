"""./reproduce own: how robust is a Keras classifier of your own, on images of your own?

./reproduce own --model model.keras --images folder                       a folder with a folder for each class
./reproduce own --model model.keras --images folder --labels labels.csv   columns image and label
./reproduce own --model model.keras --images folder --bounds 0 1          for a model that takes pixels in [0, 1]
./reproduce own --model ham10000/attention-reference/0 --images folder    a network that the study publishes

Writes tables, figures and a page, index.html; stopped and called again, it goes on where it was.
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

# TensorFlow greets on the way in, past every setting for its logs.
kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
    from lib import StudyError
    from lib.attacks import ATTACKS, make_attack
    from lib.data.preprocessing import preprocess
    from lib.evaluation import benchmark
    from lib.study.results import PUBLISHED, WEIGHTS, opened
finally:
    os.dup2(kept, 2)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="reproduce own", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="a .keras or .h5 file, or PROFILE/VARIANT/RUN of a published one"
    )
    parser.add_argument("--images", required=True, help="a folder of images")
    parser.add_argument("--labels", help="a CSV with columns image and label")
    parser.add_argument("--bounds", nargs=2, type=float, default=(0, 255), metavar=("LOW", "HIGH"),
                        help="the pixels that the model takes (0 255)")  # fmt: skip
    parser.add_argument("--epsilons", nargs="+", type=float, help="budgets in the unit of the bounds")
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--attack", choices=sorted(ATTACKS), default="autoattack")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=N",
                        help="numbers of the attack in place of its own, such as steps=50")  # fmt: skip
    parser.add_argument("--compare-with", help="another model, attacked on the same images")
    parser.add_argument("--layer", help="whose map Grad-CAM weights")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="own", help="folder of the results (own)")
    parser.add_argument("--here", default=".", help=argparse.SUPPRESS)  # where paths begin
    given = parser.parse_args(arguments)
    here, (low, high) = Path(given.here), given.bounds
    epsilons = given.epsilons or [gray * (high - low) / 255 for gray in (0.25, 0.5, 1, 2, 4)]
    bar = tqdm(desc="images settled", disable=None)

    def progress(done, total):
        bar.total, bar.n = total, done
        bar.refresh()

    try:
        model = here / given.model
        result = benchmark(
            images=here / given.images,
            labels=here / given.labels if given.labels else None,
            bounds=(low, high),
            epsilons=epsilons,
            norm=given.norm,
            attack=make_attack(given.attack, norm=given.norm, **_numbers(given.set)),
            compare_with=here / given.compare_with if given.compare_with else None,
            layer=given.layer,
            batch_size=given.batch_size,
            seed=given.seed,
            folder=here / given.out / "progress",
            progress=progress,
            **{"model": model} | ({} if model.exists() else published(given.model)),
        )
    except StudyError as error:
        print(f"reproduce own: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; call again to go on.", file=sys.stderr)
        return 130
    finally:
        bar.close()
    page = result.save(here / given.out)
    print(result.curve.to_string(index=False))
    if result.facts["not read"] != "none":
        print(result.facts["not read"])
    for said in result.trust.loc[~result.trust["passed"].astype(bool), "sentence"]:
        print(f"Look first: {said}")
    print(f"Page: {page}")
    return 0


def published(name: str) -> dict:
    """A network that this repository publishes, by a name such as `ham10000/attention-reference/0`: what `benchmark`
    needs of it, `model`, `classes` and how it reads a file; {} for what is no such name. Raises StudyError where there
    is none of that name, or its weights are not published."""
    found = re.fullmatch(r"([\w-]+)/([\w-]+)/(\d+)", name)
    if not found:
        return {}
    profile, variant, run = found.groups()
    path = next((PUBLISHED / profile).glob(f"*-seed{run}-{variant}.zip"), None)
    packed = path and opened(path)
    if not packed or WEIGHTS not in packed.files:
        names = sorted(
            f"{path.parent.name}/{path.stem.split('-seed0-')[1]}/0" for path in PUBLISHED.glob("*/*-seed0-*")
        )
        raise StudyError(f"There is no published network {name} with its weights; there are {', '.join(names)}.")
    study, settings = packed.study, packed.study.profile.preprocessing
    filtered = {"xray_contrast": settings.xray_contrast, "xray_sigma": settings.xray_sigma}
    read = partial(preprocess, dataset=study.dataset, size=settings.image_size, **filtered)
    return {"model": packed.model(), "classes": study.info.classes, "read": read}


def _numbers(words: list[str]) -> dict[str, int | float]:
    """Numbers by name, from words such as steps=50."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = int(value) if value.isdigit() else float(value)
        except ValueError:
            raise StudyError(f"--set takes words such as steps=50, not {word!r}.") from None
    return found


if __name__ == "__main__":
    sys.exit(main())
