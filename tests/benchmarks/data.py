"""Times of reading image data beside Keras' and TensorFlow's own readers, side by side in one run.

    ./reproduce bench                                    # this after the attacks
    python tests/benchmarks/data.py --data DIR           # the folder of the original data, for HAM10000 as it is

Every work is timed in turn, ours and the peers', `--repeats` times after one warm-up, and the median counts. Ours
is `lib.data.preprocessing.images_and_records` into an empty cache: it reads, hashes, decodes, resizes, examines and
writes; the peers read, decode and resize only, and their floor, the JPEG decoder alone at the fraction of the size that
is needed, does not resize either. Writes figures/bench/data.csv (work, ours_seconds, peer, peer_seconds,
ratio, required, n) and data.json (machine, versions). `ratio` is the peer's time over ours; for a training epoch it
is ours over the peer's, as its limit is. HAM10000 is replaced by as many phantoms, and called so, where it is not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from machine import machine, timed, versions  # noqa: E402

from lib.data import read_index  # noqa: E402
from lib.data.decoding import decode_towards, read_header  # noqa: E402
from lib.data.phantoms import draw_phantom, write_phantoms  # noqa: E402
from lib.data.preprocessing import images_and_records  # noqa: E402

SIZE = 224
FLOOR = "the JPEG decoder alone"


def large_photographs(folder, n, noise, quality=90, distinct=10):
    """n fundus phantoms as JPEG of 4752 x 3168 pixels, a few drawings under many names; their index.

    `noise`: gray levels of the sensor's, on which, with JPEG's `quality`, the size of the files depends. Most of the
    time of a large file goes into its entropy code, which has to be read whole however few pixels are wanted.
    """
    folder.mkdir()
    paths = []
    for i in range(n):
        path = folder / f"{i:03d}.jpeg"
        if i < distinct:
            rng = np.random.default_rng(i)
            image, _ = draw_phantom("eyepacs", i % 5, 528, rng)
            image = cv2.resize(image, (4752, 3168), interpolation=cv2.INTER_CUBIC)
            grain = cv2.resize(rng.normal(0, noise, (1584, 2376, 3)).astype("float32"), (4752, 3168))
            image = np.clip(image + grain, 0, 255).astype("uint8")
            cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        else:
            shutil.copyfile(paths[i % distinct], path)
        paths.append(path)
    ids = [path.stem for path in paths]
    return pd.DataFrame({"image_id": ids, "path": [str(path) for path in paths]})


def readers(index, folder, dataset):
    """Functions that bring all images of an index to SIZE x SIZE: ours, Keras', and a pipeline of TensorFlow's."""
    import keras
    import tensorflow as tf

    paths = index["path"].tolist()

    def ours():
        cache = Path(tempfile.mkdtemp(dir=folder))
        images, _ = images_and_records(index, dataset, SIZE, cache)
        assert len(images) == len(index)
        shutil.rmtree(cache)

    def count(batches):
        batches = iter(batches)
        assert sum(len(batch) for batch in batches) == len(index)
        return batches

    def keras_reader():
        where = os.path.commonpath([os.path.dirname(path) for path in paths])
        return count(
            keras.utils.image_dataset_from_directory(
                where, label_mode=None, labels=None, image_size=(SIZE, SIZE), shuffle=False, verbose=False
            )
        )

    def decode(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (SIZE, SIZE), "area")

    def tf_data():
        return count(tf.data.Dataset.from_tensor_slices(paths).map(decode, tf.data.AUTOTUNE).batch(32))

    def floor():
        def work(path):
            data = Path(path).read_bytes()
            decode_towards(data, path, SIZE, read_header(data))

        with ThreadPoolExecutor() as pool:
            list(pool.map(work, paths))

    return {
        "ours": ours,
        "keras image_dataset_from_directory": keras_reader,
        "tf.data decode_jpeg": tf_data,
        FLOOR: floor,
    }


def reading_rows(work, index, folder, dataset, required, repeats):
    times = timed(readers(index, folder, dataset), repeats)
    ours = times.pop("ours")
    best = min(times.keys() - {FLOOR}, key=times.get)
    return [
        [work, ours, peer, seconds, seconds / ours, required if peer == best else np.nan, len(index)]
        for peer, seconds in times.items()
    ]


SECOND_START = """
import json, re, sys, time
def peak():  # of this program alone, in KiB
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
bare = peak()
begin = time.perf_counter()
import numpy as np
from lib.data.prepared import prepare
from lib.profile import Preprocessing, Split
loaded = time.perf_counter()
data = prepare("ham10000", sys.argv[1], Split(), Preprocessing(image_size=int(sys.argv[3])), sys.argv[2])
train = np.flatnonzero(data.index["split"] == "train")
batch = data.images[np.sort(np.random.default_rng(0).permutation(train)[:32])].astype("float32")
end = time.perf_counter()
print(json.dumps({"n": len(data.index), "first_batch": end - loaded, "with_imports": end - begin,
                  "mebibytes": (peak() - bare) / 1024}))
"""


def many_images(root, n):
    """n small JPEG files, all different, in the layout of HAM10000."""
    folder = root / "ham10000" / "images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    classes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    for i in range(n):
        _, data = cv2.imencode(".jpg", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        (folder / f"ISIC_{i:07d}.jpg").write_bytes(data)
    table = {
        "lesion_id": [f"HAM_{i // 2:07d}" for i in range(n)],
        "image_id": [f"ISIC_{i:07d}" for i in range(n)],
    }
    pd.DataFrame(table | {"dx": [classes[i // 2 % 7] for i in range(n)]}).to_csv(
        root / "ham10000" / "HAM10000_metadata.csv", index=False
    )


def second_start_rows(folder, n, size, repeats):
    """The first call prepares, the later ones start from the cache, each in a process of its own."""
    root, cache = folder / "many", folder / "many-cache"
    many_images(root, n)
    command = [sys.executable, "-c", SECOND_START, str(root), str(cache), str(size)]
    runs = []
    for _ in range(1 + repeats):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    first, again = runs[0], pd.DataFrame(runs[1:]).median()
    work = f"start from the cache to the first batch, {first['n']} images at {size} px"
    return [
        [work, again["first_batch"], "the first start", first["first_batch"],
         first["first_batch"] / again["first_batch"], "< 1 s", first["n"]],
        [f"{work}, imports included", again["with_imports"], "the first start", first["with_imports"],
         first["with_imports"] / again["with_imports"], np.nan, first["n"]],
        [f"{work}, {again['mebibytes']:.0f} MiB above the bare interpreter", np.nan, "", np.nan,
         again["mebibytes"], "< 300 MiB", first["n"]],
    ]  # fmt: skip


def epoch_rows(folder, repeats, n=1200, size=112):
    """One epoch of the quick profile's network from the cache, against the same on arrays in memory."""
    import keras

    from lib.data.prepared import prepare
    from lib.models import build_classifier
    from lib.models.training import Epoch
    from lib.profile import Preprocessing, Split, load_profile

    quick = load_profile("quick")
    write_phantoms("ham10000", folder / "phantom", n, 160, 0)
    data = prepare("ham10000", folder / "phantom", Split(), Preprocessing(image_size=size), folder / "cache")
    labels = data.index["label"].to_numpy()
    model = build_classifier(quick.model, "baseline", 7, size)
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.CategoricalCrossentropy(), jit_compile=False)
    weights = np.ones(7, "float32")
    in_memory = np.asarray(data.images)

    def epoch(images):
        batches = Epoch(images, labels, 7, weights, quick.training, 1.0, 0, 0)
        return lambda: model.fit(batches.feed(), epochs=1, shuffle=False, verbose=0)

    times = timed({"ours": epoch(data.images), "arrays": epoch(in_memory)}, repeats)
    work = f"a training epoch of the quick network, {size} px"
    ratio = times["ours"] / times["arrays"]
    return [[work, times["ours"], "arrays in memory", times["arrays"], ratio, "<= 1.03", len(labels)]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "raw", help="folder of the original data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", type=int, default=200, help="large photographs")
    parser.add_argument("--small", type=int, default=5984, help="images of HAM10000, or phantoms of it")
    parser.add_argument("--many", type=int, default=100_000, help="images in the cache of a second start")
    parser.add_argument("--many-size", type=int, default=64, help="their size in the cache, in pixels")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "bench")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []

    def write(more):
        rows.extend(more)
        print(*more, sep="\n", flush=True)
        columns = ["work", "ours_seconds", "peer", "peer_seconds", "ratio", "required", "n"]
        pd.DataFrame(rows, columns=columns).round(3).to_csv(arguments.out / "data.csv", index=False)
        about = {"machine": machine(), "versions": versions("tensorflow", "keras", "opencv-python-headless")}
        (arguments.out / "data.json").write_text(json.dumps(about | {"repeats": arguments.repeats}, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="study-bench-") as folder:
        folder = Path(folder)
        # EyePACS has 0.9 MB per image on average (82 GB for 88,702 images of all sizes).
        for noise, quality in ((2, 83), (2, 90), (6, 90)):
            index = large_photographs(folder / f"large{noise}-{quality}", arguments.large, noise, quality)
            megabytes = np.mean([os.path.getsize(path) for path in index["path"]]) / 1e6
            work = f"JPEG of 4752 x 3168 to 224 px, {megabytes:.1f} MB each"
            write(reading_rows(work, index, folder, "eyepacs", 3.0, arguments.repeats))
        real = (arguments.data / "ham10000").is_dir()
        if not real:
            write_phantoms("ham10000", folder / "small", arguments.small, SIZE, 0)
        index = read_index("ham10000", arguments.data if real else folder / "small").iloc[: arguments.small]
        if real:  # the peers take folders whole: give all the same files
            (folder / "real").mkdir()
            index = index.assign(path=[shutil.copy(path, folder / "real") for path in index["path"]])
        work = f"{'HAM10000' if real else 'HAM10000 phantoms'}, JPEG at 224 px"
        write(reading_rows(work, index, folder, "ham10000", 1.0, arguments.repeats))
        write(epoch_rows(folder, arguments.repeats))
        write(second_start_rows(folder, arguments.many, arguments.many_size, arguments.repeats))


if __name__ == "__main__":
    main()
