"""Weights that Keras publishes, from a server of our own: fetched once, whole or not at all, the same file again."""

import functools
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from lib import StudyError
from lib.models import pretrained
from lib.profile import Model

FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"  # its name at Keras'
SETTINGS = Model(backbone="mobilenet_v2", feature_layer="block_13_expand_relu")


class Server(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list] = []
    broken = False

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile):
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.broken else data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A network, and the folder of a server that gives its weights as Keras' does."""
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
    folder = tmp_path_factory.mktemp("served")
    with h5py.File(folder / FILE, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    return network, folder


@pytest.fixture
def published(served, tmp_path, monkeypatch):
    """The network, and an empty repository that asks its server."""
    network, served = served
    monkeypatch.setattr(Server, "asked", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    start = tmp_path / "start"  # what Python runs first, in the process that fetches
    start.mkdir()
    address = f"http://127.0.0.1:{server.server_port}/"
    (start / "sitecustomize.py").write_text(
        "import keras.src.applications.mobilenet_v2 as network\n" + f"network.BASE_WEIGHT_PATH = {address!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(start))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("lib.profile.settings.ROOT", tmp_path)
    yield network
    server.shutdown()
    server.server_close()


def test_weights_are_fetched_once_and_are_the_same_file_whoever_fetches(published):
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(pretrained.starting_file, [SETTINGS, SETTINGS])
    assert one == other == SETTINGS.weights_file
    assert Server.asked == [f"/{FILE}"]
    here = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(112, 112, 3))
    here.load_weights(one)
    for weight, expected in zip(here.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    first = one.read_bytes()
    one.unlink()
    assert pretrained.starting_file(SETTINGS).read_bytes() == first
    assert [path.name for path in one.parent.iterdir() if not path.name.startswith(".")] == [one.name]


def test_a_download_that_breaks_off_leaves_nothing_and_is_one_sentence(published, monkeypatch):
    monkeypatch.setattr(Server, "broken", True)
    with pytest.raises(
        StudyError, match=r"weights of mobilenet_v2 could not be fetched \(.+\); without a network, put "
    ):
        pretrained.starting_file(SETTINGS)
    assert SETTINGS.weights_file is None
    monkeypatch.setattr(Server, "broken", False)
    assert pretrained.starting_file(SETTINGS).is_file()


def test_what_names_a_file_or_none_is_not_fetched(tmp_path):
    file = tmp_path / "own.weights.h5"
    file.write_bytes(b"")
    assert pretrained.starting_file(Model(weights=str(file))) == file
    assert pretrained.starting_file(Model(weights="none")) is None
