"""The ImageNet weights that Keras publishes, fetched once and kept under `data/weights`.

`python -m lib.models.pretrained BACKBONE` does it on a machine with a network, before nodes without one need them.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

from lib import ROOT, StudyError, artifacts
from lib.models.backbones import APPLICATIONS
from lib.profile import Model

TIMEOUT = 60  # seconds without an answer


def starting_file(settings: Model) -> Path | None:
    """The file that training starts from, fetched where `weights` is imagenet and it is not there; None without one.

    One process fetches, the others wait. A process of its own, since the bytes of a saved network depend on what was
    built before it: the file is then the same on every machine of these versions, and so are the keys of what starts
    from it. Raises StudyError, in one sentence, if that fails; nothing partial is left.
    """
    path = settings.weights_file
    if path or settings.weights != "imagenet":
        return path
    path = settings.imagenet_file
    with artifacts.locked(path):
        if not path.is_file():
            with artifacts.replacing(path) as temporary:
                _fetch(settings.backbone, temporary, path)
    return path


def _fetch(backbone: str, temporary: Path, path: Path) -> None:
    print(f"Fetching the ImageNet weights of {backbone} that Keras publishes ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as home:  # Keras takes what an interrupted download left for the whole file
        own = {"KERAS_HOME": home, "KERAS_BACKEND": keras.backend.backend()}
        command = [sys.executable, "-m", "lib.models.pretrained", backbone, str(temporary.resolve())]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["the process was ended"]
        raise StudyError(
            f"The ImageNet weights of {backbone} could not be fetched ({why[0]}); without a network, put them at "
            f"{path}, or give model.weights the path of a weights file, or none."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m lib.models.pretrained", description="Fetch Keras' ImageNet weights.")
    parser.add_argument("backbone", choices=APPLICATIONS)
    parser.add_argument("file", nargs="?", help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args()
    if given.file:
        socket.setdefaulttimeout(TIMEOUT)
        network = APPLICATIONS[given.backbone](include_top=False, weights="imagenet", input_shape=(224, 224, 3))
        network.save_weights(given.file)
    else:
        try:
            print(starting_file(Model(backbone=given.backbone)))
        except StudyError as error:
            sys.exit(f"weights: {error}")
