"""A run that travels: `./reproduce pack PROFILE [--data DIR] [--parts MB] [--out DIR]`.

Writes what a machine without this repository, TensorFlow or a network needs to train and attack a profile's networks:
code, profile, images and starting weights, in one zip or in parts of at most so many megabytes, and beside it
`run_packed.py`, which unpacks them there and runs (`lib.study.packed`). `./reproduce merge` brings its results home.
"""

import argparse
import ast
import importlib.metadata
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lib import ROOT, StudyError, artifacts
from lib.artifacts.sources import sources
from lib.data.prepared import PACKED, packed_files
from lib.models.pretrained import starting_file
from lib.profile import Profile, load_profile, profile_files
from lib.study.study import Study

ENTRIES = ("lib/study/packed.py", "lib/study/__main__.py")
NOT_NEEDED = {"tensorflow", "tf_keras_vis"}  # of another backend, and of Grad-CAM, which is made at home


def pack(profile: str, out: Path, data="data/raw", megabytes: float | None = None) -> list[Path]:
    """Write the archives of a profile into `out`; returns their paths, run_packed.py last.

    `megabytes`: the most that a part may have; a single file that is larger than that has a part of its own. Raises
    StudyError for a profile whose data or weights are not here.
    """
    settings = load_profile(profile)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{settings.profile}-*.zip"):
        old.unlink()
    paths, held, size = [], None, 0
    limit = np.inf if megabytes is None else megabytes * 1e6
    for name, content in _contents(settings, profile, data):
        packed = _deflated(name, content)
        if held is None or size + packed > limit:
            if held:
                held.close()
            paths.append(out / f"{settings.profile}-{len(paths) + 1}.zip")
            held, size = zipfile.ZipFile(paths[-1], "w", zipfile.ZIP_DEFLATED), 0
        held.writestr(name, content)
        size += packed
    held.close()
    script = out / "run_packed.py"
    script.write_bytes((ROOT / "lib" / "study" / "run_packed.py").read_bytes())
    return [*paths, script]


def _deflated(name: str, content: bytes) -> int:
    """What a file takes in a zip, with its two headers."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return held.tell()


def _contents(settings: Profile, profile: str, data) -> Iterator[tuple[str, bytes]]:
    code = sorted({file for entry in ENTRIES for file in sources(entry)} | {"profiles/paper.yaml"})
    code += [path.resolve().relative_to(ROOT).as_posix() for path in profile_files(profile) if _inside(path)]
    for name in dict.fromkeys(code):
        yield name, (ROOT / name).read_bytes()
    yield "PROFILE", settings.profile.encode()
    yield "COMMIT", artifacts.environment()["commit"].encode()
    yield "requirements.txt", "".join(f"{name}\n" for name in requirements()).encode()
    if path := _weights(settings):
        yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    for dataset in settings.datasets if settings.phantom is None else []:
        yield from _images(Study(profile, dataset, settings.seeds[0], data))


def _inside(path: Path) -> bool:
    if not path.resolve().is_relative_to(ROOT / "profiles"):
        raise StudyError(f"{path} must lie in {ROOT / 'profiles'} to be packed.")
    return True


def _weights(settings: Profile) -> Path | None:
    """The file of starting weights, which must lie in the repository."""
    path = starting_file(settings.model)
    path = path and path.resolve()
    if path and not path.is_relative_to(ROOT):
        raise StudyError(f"{path} must lie in {ROOT} to be packed, and model.weights name it from there.")
    return path


def _images(study: Study) -> Iterator[tuple[str, bytes]]:
    """The originals in their layout, or the prepared arrays where these are smaller or a part of the data.

    A part could not be split there as the whole is here.
    """
    index, raw = study.prepared.index, study.raw / study.dataset
    whole = "stored_at" not in index and not study.profile.split.max_images
    files = [Path(path) for path in index["path"]] if whole else []
    if files and sum(path.stat().st_size for path in files) < study.images.array.nbytes:
        labels = [path for path in sorted(raw.rglob("*")) if path.suffix.lower() in (".csv", ".tab", ".txt")]
        for path in [*labels, *files]:
            yield f"data/raw/{study.dataset}/{path.relative_to(raw).as_posix()}", path.read_bytes()
        return
    for name, content in packed_files(study.prepared):
        yield (PACKED / study.dataset / name).as_posix(), content


def requirements() -> list[str]:
    """The packages behind a network's job but TensorFlow's, and JAX: the module and the name to install it by."""
    modules = set()
    for name in {file for entry in ENTRIES for file in sources(entry) if file.endswith(".py")}:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules |= {name.split(".")[0] for name in names}
    known = importlib.metadata.packages_distributions()
    wanted = modules - set(sys.stdlib_module_names) - NOT_NEEDED - {"lib", "keras_hub", "tools"}
    return sorted({f"{module}\t{known[module][0]}" for module in wanted if module in known} | {"jax\tjax"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="reproduce pack", description="Pack a profile's run for another machine.")
    parser.add_argument("profile")
    parser.add_argument("--data", default="data/raw", help="folder of the original data")
    parser.add_argument("--parts", type=float, metavar="MB", help="write parts of at most so many megabytes")
    parser.add_argument("--out", type=Path, default=ROOT / "packed", help="folder to write to")
    options = parser.parse_args()
    try:
        for path in pack(options.profile, options.out, options.data, options.parts):
            print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")
        print("Take these to the other machine, and there: python run_packed.py")
    except StudyError as error:
        sys.exit(f"pack: {error}")
