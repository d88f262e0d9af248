"""Fetching from a server that drops, stalls and lies, unpacking what should not be unpacked, and ./reproduce data."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, StudyError
from lib.data import DATASETS, DatasetInfo, archives, download, fetch, read_index
from lib.data import __main__ as data

QUICK = download.Patience(timeout=2, tries=3, pause=0)
BYTES = np.random.default_rng(0).bytes(300_000)
METADATA = b"lesion_id,image_id,dx\n" + b"".join(b"HAM_%07d,ISIC_%07d,nv\n" % (i, i) for i in (1, 2, 3))


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; each request takes the next of `server.script`, a dict of the faults it meets."""

    def do_GET(self):
        server = self.server
        server.log.append({"path": self.path, **self.headers})
        act = {"ranges": True, "status": 200} | (server.script.pop(0) if server.script else server.always)
        body, wanted = server.files.get(self.path), self.headers.get("Range", "")
        if act["status"] != 200 or body is None:
            self.send_response(act["status"] if act["status"] != 200 else 404)
            self.send_header("Retry-After", str(act.get("retry_after", 0)))
            return self.end_headers()
        start, status = 0, 200
        if wanted and act["ranges"]:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(body) else 416
        self.send_response(status)
        if status != 200:
            span = f"{start}-{len(body) - 1}" if status == 206 else "*"
            self.send_header("Content-Range", f"bytes {span}/{len(body)}")
        body = body[start:]
        if act.get("says_length", True):
            self.send_header("Content-Length", str(len(body) + act.get("longer", 0)))
        self.end_headers()
        self.wfile.write(body[: act.get("drop", len(body))])
        self.wfile.flush()
        if act.get("stall"):
            server.closing.wait(20)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.closing, server.daemon_threads = threading.Event(), True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.files, running.log, running.script, running.always = {}, [], [], {}
    return running


def ranges(server) -> list:
    return [request.get("Range") for request in server.log]


def address(server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def offer(server, info: DatasetInfo | str, files: dict[str, bytes], checksums: bool = True, **facts) -> DatasetInfo:
    """The record of a data set whose files come from the local server."""
    info = DATASETS[info] if isinstance(info, str) else info
    server.files |= {f"/{name}": content for name, content in files.items()}
    entries = tuple(
        {"name": name, "url": address(server, name), "megabytes": len(content) / 1e6}
        | ({"md5": md5(content)} if checksums else {})
        for name, content in files.items()
    )
    return dataclasses.replace(info, files=entries, **facts)


def get(info: DatasetInfo, root: Path, **options) -> list[str]:
    sentences = []
    fetch.fetch_dataset(info, root, sentences.append, **{"patience": QUICK} | options)
    for sentence in sentences:
        assert "\n" not in sentence
        assert sentence.startswith(info.name)
        assert sentence.endswith(".")
    return sentences


def visible(folder: Path) -> set[str]:
    """Everything below the folder but what remembers and locks."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return files - {".fetched.json", ".fetch.lock"}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


HAM = {
    "HAM10000_metadata.csv": METADATA,
    "HAM10000_images_part_1.zip": zipped(
        {"ISIC_0000001.jpg": b"one", "ISIC_0000002.jpg": b"two", "__MACOSX/._ISIC_0000001.jpg": b"x"}
    ),
    "HAM10000_images_part_2.zip": zipped({"ISIC_0000003.jpg": b"three"}),
}
HAM_LAYOUT = {
    "HAM10000_metadata.csv",
    "HAM10000_images_part_1/ISIC_0000001.jpg",
    "HAM10000_images_part_1/ISIC_0000002.jpg",
    "HAM10000_images_part_2/ISIC_0000003.jpg",
}


def test_a_set_comes_in_the_layout_that_the_reader_takes_and_comes_once(server, tmp_path, monkeypatch, capsys):
    info = offer(server, "ham10000", HAM, images=3)
    assert get(info, tmp_path) == []
    assert visible(tmp_path / "ham10000") == HAM_LAYOUT
    assert (tmp_path / "ham10000/HAM10000_images_part_1/ISIC_0000002.jpg").read_bytes() == b"two"
    assert len(read_index("ham10000", tmp_path)) == 3
    assert len(server.log) == 3
    assert all(request["User-Agent"].startswith("Mozilla/") for request in server.log)

    monkeypatch.setattr(download.pooch, "file_hash", lambda *arguments, **options: pytest.fail("hashed again"))
    assert get(info, tmp_path) == []
    assert len(server.log) == 3
    shutil.rmtree(tmp_path / "ham10000/HAM10000_images_part_2")
    monkeypatch.undo()
    assert get(info, tmp_path) == []
    assert [request["path"] for request in server.log[3:]] == ["/HAM10000_images_part_2.zip"]
    assert visible(tmp_path / "ham10000") == HAM_LAYOUT


def test_optional_files_only_when_asked_for(server, tmp_path):
    info = offer(server, "retinamnist", {"retinamnist_224.npz": b"large", "retinamnist_64.npz": b"small"})
    info.files[1]["optional"] = True
    assert get(info, tmp_path) == []
    assert visible(tmp_path / "retinamnist") == {"retinamnist_224.npz"}
    assert get(info, tmp_path, optional=True) == []
    assert visible(tmp_path / "retinamnist") == {"retinamnist_224.npz", "retinamnist_64.npz"}
    assert len(server.log) == 2


# Downloads


@pytest.mark.parametrize("with_ranges", [True, False])
def test_wherever_the_connection_drops_the_bytes_come_out_right(running, tmp_path_factory, with_ranges):
    @settings(max_examples=25)
    @given(st.binary(min_size=1, max_size=3000), st.lists(st.integers(0, 3000), max_size=4))
    def holds(content, drops):
        running.files, running.log = {"/file": content}, []
        running.always = {"ranges": with_ranges}
        running.script = [{"drop": drop} | running.always for drop in drops]
        path = tmp_path_factory.mktemp("download") / "file"
        download.download(address(running, "file"), path, md5(content), download.Patience(2, 6, 0))
        assert path.read_bytes() == content
        assert not path.with_name("file.part").exists()
        kept = [min(drop, len(content)) for drop in drops]
        if with_ranges and len(running.log) > 1 and kept[0]:
            assert ranges(running)[1] == f"bytes={kept[0]}-"

    holds()


def test_a_call_goes_on_where_the_last_one_broke_off(server, tmp_path):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    server.script = [{"drop": 100_000}, *[{"drop": 0}] * 3]
    (sentence,) = get(info, tmp_path)
    assert "0.1 MB are kept, call again to go on" in sentence
    part = tmp_path / "dermamnist/dermamnist_224.npz.part"
    assert part.read_bytes() == BYTES[:100_000]
    assert data.what_is_missing(info, part.parent)[0] == "dermamnist_224.npz (33% is there)"
    server.log.clear()
    assert get(info, tmp_path) == []
    assert ranges(server) == ["bytes=100000-"]
    assert part.with_suffix("").read_bytes() == BYTES
    assert visible(part.parent) == {"dermamnist_224.npz"}


CALL = """
import dataclasses, shutil, sys, time
from lib.data import DATASETS, fetch
info = dataclasses.replace(DATASETS[{name!r}], files={files!r}, images={images})
copy = shutil.copyfileobj
def slow(source, target, *arguments):
    copy(source, target, *arguments)
    if {slow} and "2" in target.name.rsplit("/", 1)[1]:
        print("unpacking", flush=True)
        time.sleep(60)
shutil.copyfileobj = slow
fetch.fetch_dataset(info, {root!r}, print)
"""


def call_apart(info: DatasetInfo, root: Path, slow: bool = False) -> subprocess.Popen:
    facts = {"name": info.name, "files": info.files, "images": info.images, "root": str(root), "slow": slow}
    command = [sys.executable, "-c", CALL.format(**facts)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_kill_in_the_middle_of_a_download_loses_nothing(server, tmp_path):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    server.script = [{"drop": 200_000, "stall": True}]
    part = tmp_path / "dermamnist/dermamnist_224.npz.part"
    process = call_apart(info, tmp_path)
    while process.poll() is None and (not part.exists() or part.stat().st_size < 150_000):
        time.sleep(0.02)
    with pytest.raises(StudyError, match="Another call is at work"):
        get(info, tmp_path)
    kill(process)
    there = part.stat().st_size
    assert 150_000 <= there <= 200_000
    assert get(info, tmp_path) == []
    assert ranges(server) == [None, f"bytes={there}-"]
    assert (part.with_suffix("")).read_bytes() == BYTES


def test_a_kill_in_the_middle_of_unpacking_leaves_no_name(server, tmp_path):
    info = offer(server, "ham10000", HAM, images=3)
    process = call_apart(info, tmp_path, slow=True)
    folder = tmp_path / "ham10000"
    assert any(line == "unpacking\n" for line in process.stdout)
    kill(process)
    assert not (folder / "HAM10000_images_part_1").exists()
    assert (folder / "HAM10000_images_part_1.zip").exists()
    assert fetch.count_images(folder) == 0
    assert get(info, tmp_path) == []
    assert len(server.log) == 3
    assert visible(folder) == HAM_LAYOUT


def test_a_file_that_changed_in_between_is_noticed_and_fetched_anew(server, tmp_path):
    path, url = tmp_path / "file", address(server, "file")
    server.files["/file"] = BYTES
    server.script = [{"drop": 1000}, *[{"drop": 0}] * 3]
    with pytest.raises(StudyError, match="call again"):
        download.download(url, path, md5(BYTES), QUICK)
    changed = server.files["/file"] = BYTES[::-1]
    with pytest.raises(StudyError, match="another MD5 checksum"):
        download.download(url, path, md5(changed), QUICK)
    download.download(url, path, md5(changed), QUICK)
    assert path.read_bytes() == changed


@pytest.mark.parametrize(("part", "total", "requests"), [
    (BYTES, len(BYTES), []),  # killed between the last byte and the name
    (BYTES + b"more", None, [f"bytes={len(BYTES) + 4}-", None]),  # 416, then from the beginning
])  # fmt: skip
def test_a_part_that_is_whole_or_too_long(server, tmp_path, part, total, requests):
    server.files["/file"] = BYTES
    (tmp_path / "file.part").write_bytes(part)
    (tmp_path / ".fetched.json").write_text(json.dumps({"file.part": {"total": total}}))
    download.download(address(server, "file"), tmp_path / "file", md5(BYTES), QUICK)
    assert (tmp_path / "file").read_bytes() == BYTES
    assert ranges(server) == requests


def test_where_nothing_could_tell_a_part_of_another_file_it_is_not_gone_on_with(server, tmp_path):
    server.files["/file"] = BYTES
    (tmp_path / "file.part").write_bytes(b"something")
    download.download(address(server, "file"), tmp_path / "file", None, QUICK)
    assert (tmp_path / "file").read_bytes() == BYTES
    assert ranges(server) == [None]


def test_wrong_lengths(server, tmp_path):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    server.always = {"longer": 10}
    (sentence,) = get(info, tmp_path)
    assert "call again to go on" in sentence
    assert "dermamnist_224.npz" not in visible(tmp_path / "dermamnist")
    server.always = {"longer": -10}
    (sentence,) = get(info, tmp_path)
    assert f"another MD5 checksum than {md5(BYTES)} and was deleted" in sentence
    assert visible(tmp_path / "dermamnist") == set()
    server.always = {"says_length": False}
    assert get(info, tmp_path) == []


def test_a_wrong_checksum_deletes_the_file_and_stops_no_other(server, tmp_path):
    info = offer(server, "ham10000", HAM, images=3)
    server.files["/HAM10000_metadata.csv"] = b"<html>Log in first</html>"
    (sentence,) = get(info, tmp_path)
    assert f"HAM10000_metadata.csv came with another MD5 checksum than {md5(METADATA)} and was deleted" in sentence
    assert visible(tmp_path / "ham10000") == HAM_LAYOUT - {"HAM10000_metadata.csv"}
    server.files["/HAM10000_metadata.csv"] = METADATA
    assert get(info, tmp_path) == []
    assert visible(tmp_path / "ham10000") == HAM_LAYOUT


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (404, 1), (202, 1), (500, 3), (503, 3), (429, 3)])
def test_refusals_are_final_and_faults_are_tried_again(server, tmp_path, status, requests):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    server.always = {"status": status}
    (sentence,) = get(info, tmp_path)
    assert f"127.0.0.1 answered {status}" in sentence
    assert len(server.log) == requests
    if requests == 1:
        assert f"in a browser from {address(server, 'dermamnist_224.npz')}" in sentence
    server.always, server.script = {}, [{"status": status}] if requests > 1 else []
    assert get(info, tmp_path) == []


def test_pauses_double_and_heed_the_server(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.files["/file"] = BYTES
    server.script = [
        {"status": 500},
        {"status": 500},
        {"status": 429, "retry_after": 17},
        {"drop": 5},
        {"drop": 0},
    ]
    download.download(address(server, "file"), tmp_path / "file", None, download.Patience(2, 4, 1))
    assert pauses == [2, 4, 17, 1, 2]


def test_a_server_that_stalls_or_is_not_there_does_not_hang(server, tmp_path):
    server.files["/file"], server.always = BYTES, {"drop": 0, "stall": True}
    server.script = [{"drop": 100_000, "stall": True}]
    with pytest.raises(StudyError, match=r"127.0.0.1 did not answer for 0.2 seconds; 0.1 MB are kept"):
        download.download(address(server, "file"), tmp_path / "file", None, download.Patience(0.2, 1, 0))
    with pytest.raises(StudyError, match=r"there is no connection to 127.0.0.1, or it broke off; 0.0 MB are kept"):
        download.download("http://127.0.0.1:9/other", tmp_path / "other", None, QUICK)
    with pytest.raises(StudyError, match="other could not be fetched from nowhere"):
        download.download("nowhere", tmp_path / "other", None, QUICK)


def test_what_a_person_has_brought_is_checked_once_and_never_deleted(server, tmp_path):
    folder = tmp_path / "ham10000"
    folder.mkdir()
    info = offer(server, "ham10000", HAM, images=3)
    (folder / "HAM10000_metadata.csv").write_bytes(METADATA + b"HAM_0000004,ISIC_0000004,nv\n")
    (folder / "HAM10000_images_part_2.zip").write_bytes(HAM["HAM10000_images_part_2.zip"])
    (sentence,) = get(info, tmp_path)
    assert "HAM10000_metadata.csv is not the published file" in sentence
    assert (folder / "HAM10000_metadata.csv").read_bytes().endswith(b"HAM_0000004,ISIC_0000004,nv\n")
    assert visible(folder) == HAM_LAYOUT | {"HAM10000_images_part_2.zip"}
    assert [request["path"] for request in server.log] == ["/HAM10000_images_part_1.zip"]

    shutil.copytree(folder, tmp_path / "other/ham10000", ignore=lambda *_: [".fetched.json"])
    (tmp_path / "other/ham10000/HAM10000_metadata.csv").write_bytes(METADATA)
    assert get(info, tmp_path / "other") == []  # images that a person unpacked count
    assert len(server.log) == 1


# Full disks


class FullDisk:
    """Stands for `open`: what it opens takes so many bytes, and no more."""

    def __init__(self, room: int):
        self.room = room

    @contextlib.contextmanager
    def __call__(self, path, mode):
        with open(path, mode) as file:
            yield (file if mode == "rb" else types.SimpleNamespace(write=lambda content: self.write(file, content)))

    def write(self, file, content):
        file.write(content[: self.room])
        if len(content) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(content)


def test_a_disk_that_fills_up_is_one_sentence_and_keeps_the_part(server, tmp_path, monkeypatch):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    monkeypatch.setattr(download, "open", FullDisk(123_456), raising=False)
    (sentence,) = get(info, tmp_path)
    assert "dermamnist_224.npz failed: the disk is full; free some and call again" in sentence
    there = (tmp_path / "dermamnist/dermamnist_224.npz.part").stat().st_size
    assert there == 123_456
    monkeypatch.undo()
    assert get(info, tmp_path) == []
    assert ranges(server) == [None, f"bytes={there}-"]


def test_a_disk_that_is_too_small_is_noticed_before(server, tmp_path, monkeypatch):
    info = offer(server, "dermamnist", {"dermamnist_224.npz": BYTES})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    (sentence,) = get(info, tmp_path)
    assert "needs 0.3 MB" in sentence
    assert "0.2 MB free" in sentence
    assert visible(tmp_path / "dermamnist") == set()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_too_large_for_the_disk_leaves_nothing(tmp_path, monkeypatch, suffix):
    members = {"1.jpg": b"a" * 1000, "2.jpg": b"b" * 600_000}
    (tmp_path / f"a{suffix}").write_bytes(zipped(members) if suffix == ".zip" else tarred(members))
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_000))
        with pytest.raises(StudyError, match=r"needs 0.6 MB and .* 0.5 MB free"):
            archives.unpack(tmp_path / f"a{suffix}", tmp_path / "a")
    assert visible(tmp_path) == {f"a{suffix}"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            archives.unpack(tmp_path / f"a{suffix}", tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert visible(tmp_path) == {f"a{suffix}"}
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


# Archives


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member


EVIL_NAMES = [
    "../evil",
    "a/../../evil",
    "/tmp/evil",
    "..",
    "..\\evil",
    "C:\\evil",
    "c:evil",
    "\\\\host\\evil",
]
EVIL = {f"zip {name!r}": (".zip", zipped({"1.jpg": b"1", name: b"evil", "2.jpg": b"2"})) for name in EVIL_NAMES}
EVIL |= {f"tar {name!r}": (".tar.gz", tarred({"1.jpg": b"1", name: b"evil", "2.jpg": b"2"})) for name in EVIL_NAMES}
EVIL["zip symbolic link"] = (".zip", zipped({"1.jpg": b"1", zip_link("2.jpg"): b"/etc/passwd"}))
EVIL |= {
    f"tar {what}": (
        ".tar.gz",
        tarred({"1.jpg": b"1", "2": special("2.jpg", kind, target), "2.jpg/3.jpg": b"3"}),
    )
    for what, kind, target in (
        ("symbolic link", tarfile.SYMTYPE, "/tmp"),
        ("hard link", tarfile.LNKTYPE, "1.jpg"),
        ("hard link out", tarfile.LNKTYPE, "../../x"),
        ("character device", tarfile.CHRTYPE, ""),
        ("block device", tarfile.BLKTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    )
}


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_that_leads_elsewhere_is_refused_whole(server, tmp_path, case):
    suffix, content = EVIL[case]
    root = tmp_path / "deep" / "root"
    info = offer(server, "chestxray14", {f"images_001{suffix}": content})
    (sentence,) = get(info, root)
    assert "is a link, a device or leads out of the folder" in sentence
    assert visible(tmp_path) - {f"deep/root/chestxray14/{name}" for name in (".fetched.json", ".fetch.lock")} == {
        f"deep/root/chestxray14/images_001{suffix}"
    }
    assert [path.name for path in (root / "chestxray14").iterdir() if path.is_dir()] == []
    assert not Path("/tmp/evil").exists()


NAMES = st.lists(st.text("abC .-_é", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join)


@settings(max_examples=40)
@given(
    st.dictionaries(
        NAMES.filter(lambda name: not {".", ".."} & set(name.split("/"))), st.binary(max_size=200), min_size=1
    ),
    st.booleans(),
)
def test_what_is_packed_is_what_is_unpacked(tmp_path_factory, members, as_zip):
    paths = {tuple(name.split("/")) for name in members}
    if any(path[:n] in paths for path in paths for n in range(1, len(path))):
        return  # a file and a folder of one name
    folder = tmp_path_factory.mktemp("archives")
    archive = folder / ("packed.zip" if as_zip else "packed.tar.gz")
    archive.write_bytes(zipped(members) if as_zip else tarred(members))
    archives.unpack(archive, folder / "unpacked")
    found = folder / "unpacked"
    assert {
        path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()
    } == members
    assert {path.name for path in folder.iterdir()} == {archive.name, "unpacked"}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_cut_anywhere_or_damaged_is_never_unpacked_in_part(tmp_path, suffix):
    members = {f"{i}.jpg": np.random.default_rng(i).bytes(60) for i in range(4)}
    content = zipped(members, zipfile.ZIP_STORED) if suffix == ".zip" else tarred(members)
    archive = tmp_path / f"a{suffix}"
    damaged = [content[:cut] for cut in range(0, len(content), 7)]
    place = content.index(members["3.jpg"]) if suffix == ".zip" else len(content) // 2
    damaged.append(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for content in damaged:
        archive.write_bytes(content)
        with pytest.raises(archives.Unreadable, match="damaged"):
            archives.unpack(archive, tmp_path / "a")
        assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_damaged_archive_without_a_checksum_is_deleted_and_fetched_again(server, tmp_path):
    whole = tarred({"images/00000001_000.png": BYTES, "images/00000002_000.png": b"2"})
    info = offer(server, "chestxray14", {"images_001.tar.gz": whole}, checksums=False)
    server.files["/images_001.tar.gz"] = whole[:-4]
    (sentence,) = get(info, tmp_path)
    assert "damaged and cannot be unpacked" in sentence
    assert "was deleted" in sentence
    assert visible(tmp_path / "chestxray14") == set()
    server.files["/images_001.tar.gz"] = whole
    assert get(info, tmp_path) == []
    layout = {"images_001/images/00000001_000.png", "images_001/images/00000002_000.png"}
    assert visible(tmp_path / "chestxray14") == layout


def test_an_archive_is_added_to_a_folder_that_is_there(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/old.jpg").write_bytes(b"old")
    (tmp_path / "a/b/new.jpg").write_bytes(b"half")
    (tmp_path / "a.zip").write_bytes(zipped({"b/new.jpg": b"new", "c.jpg": b"c"}))
    archives.unpack(tmp_path / "a.zip", tmp_path / "a")
    assert visible(tmp_path / "a") == {"b/old.jpg", "b/new.jpg", "c.jpg"}
    assert (tmp_path / "a/b/new.jpg").read_bytes() == b"new"


def bring(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_eyepacs_is_what_a_person_has_brought_and_unpacked(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "eyepacs", dataclasses.replace(DATASETS["eyepacs"], images=6))
    folder = tmp_path / "eyepacs"
    assert data.main(["--data", str(tmp_path), "eyepacs"]) == 1
    said = capsys.readouterr()
    assert f"kaggle competitions download -c diabetic-retinopathy-detection -p {folder}\n" in said.out
    assert "accept the rules" in said.out
    assert said.err.strip().endswith("missing: trainLabels.csv, 6 of 6 images.")
    names = [f"{i}_{eye}" for i in range(3) for eye in ("left", "right")]
    labels = "image,level\n" + "".join(f"{name},{name[0]}\n" for name in names)
    parts = zipped({f"train/{name}.jpeg": BYTES[i : i + 50] for i, name in enumerate(names)})
    pieces = {f"train.zip.{i + 1:03d}": parts[i * 200 : (i + 1) * 200] for i in range(-(-len(parts) // 200))}
    assert len(pieces) > 2
    bundle = pieces | {"trainLabels.csv.zip": zipped({"trainLabels.csv": labels.encode()}), "test.zip.001": b"test"}
    bring(folder, {"diabetic-retinopathy-detection.zip": zipped(bundle)})
    commands = re.findall(r"^ +(cd .*|cat .*)$", said.out, re.MULTILINE)  # as they are printed
    subprocess.run(["bash", "-ec", "\n".join(commands)], check=True, capture_output=True)
    assert data.main(["--data", str(tmp_path), "eyepacs"]) == 0
    assert "eyepacs is complete: 6 images" in capsys.readouterr().out
    assert read_index("eyepacs", tmp_path)["grade"].tolist() == [0, 0, 1, 1, 2, 2]


# The command


def test_status_table(server, tmp_path, monkeypatch):
    info = offer(server, "ham10000", HAM, images=4)
    monkeypatch.setitem(DATASETS, "ham10000", info)
    get(info, tmp_path)
    (tmp_path / "ham10000/HAM10000_images_part_2/ISIC_0000003.jpg").unlink()
    bring(
        tmp_path / "chestxray14",
        {"Data_Entry_2017.csv": b"", "images_003.tar.gz": b"", "00000001_000.png": b""},
    )
    bring(tmp_path / "eyepacs", {"train.zip.001": b""})
    labels = {f"{part}_labels": np.zeros((n, 1), "uint8") for part, n in (("train", 1080), ("val", 120), ("test", 400))}
    (tmp_path / "retinamnist").mkdir()
    np.savez(tmp_path / "retinamnist/retinamnist_224.npz", **labels)
    bring(tmp_path / "dermamnist", {"dermamnist_224.npz": b"damaged"})

    table = data.status_table(tmp_path)
    assert max(map(len, table.splitlines())) <= 110
    head, rule, *lines = table.splitlines()
    assert head.split() == ["data", "set", "needs", "there", "missing"]
    rows = {}
    for separate, group in itertools.groupby(lines, lambda line: line == rule):
        if not separate:
            starts = [0, *(i for i in range(2, len(rule)) if rule[i - 2 : i] == "  "), None]
            cells = [" ".join(" ".join(line[a:b] for line in group_lines).split()) for group_lines in [list(group)]
                     for a, b in itertools.pairwise(starts)]  # fmt: skip
            rows[cells[0].split()[0]] = cells
    assert list(rows) == list(DATASETS)
    assert rows["ham10000"][0].endswith("CC BY-NC 4.0")
    assert rows["ham10000"][1] == "HAM10000_metadata.csv HAM10000_images_part_1.zip HAM10000_images_part_2.zip"
    assert rows["ham10000"][2].startswith("2 of 4 images HAM10000_metadata.csv HAM10000_images_part_1 (unpacked)")
    assert rows["ham10000"][3] == "images of HAM10000_images_part_2 (to fetch them, remove it) 2 of 4 images"
    assert rows["chestxray14"][0].startswith("chestxray14 43.8 GB no restrictions")
    assert "Data_Entry_2017_v2020.csv (by hand)" in rows["chestxray14"][1]
    assert rows["chestxray14"][2] == "1 of 112,120 images Data_Entry_2017.csv images_003.tar.gz (not unpacked)"
    assert rows["chestxray14"][3] == "images_001.tar.gz images_002.tar.gz 10 more 112,119 of 112,120 images"
    assert rows["eyepacs"][0].startswith("eyepacs 88.0 GB (by hand) competition rules")
    assert rows["eyepacs"][2:] == ["train.zip.001 (not unpacked)", "trainLabels.csv 35,126 of 35,126 images"]
    assert rows["retinamnist"][2:] == ["1,600 of 1,600 images retinamnist_224.npz (not verified)", "nothing"]
    assert rows["dermamnist"][2:] == ["dermamnist_224.npz (not verified)", "10,015 of 10,015 images"]
    assert rows["chestmnist"][0] == "chestmnist 5.6 GB CC BY 4.0"
    assert rows["chestmnist"][2] == "nothing"


def test_one_failure_stops_no_other_set_and_the_end_says_what_is_complete(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "ham10000", offer(server, "ham10000", HAM, images=3))
    chest = offer(server, "chestxray14", {"images_001.tar.gz": tarred({"images/1.png": b"1"})}, images=2)
    monkeypatch.setitem(DATASETS, "chestxray14", chest)
    server.files.pop("/images_001.tar.gz")
    assert data.main(["--data", str(tmp_path), "chestxray14", "ham10000", "chestxray14"]) == 1
    said = capsys.readouterr()
    assert "take Data_Entry_2017_v2020.csv and test_list.txt" in said.out
    assert f"ham10000 is complete: 3 images in {tmp_path / 'ham10000'}." in said.out
    assert [line.split()[0] for line in said.err.splitlines()] == ["chestxray14:", "chestxray14"]
    assert "missing: Data_Entry_2017_v2020.csv, images_001.tar.gz, 2 of 2 images." in said.err

    requests = len(server.log)
    assert data.main(["--data", str(tmp_path), "ham10000"]) == 0
    assert capsys.readouterr().out == f"ham10000 is complete: 3 images in {tmp_path / 'ham10000'}.\n"
    assert len(server.log) == requests


def test_two_calls_do_not_share_a_folder(server, tmp_path):
    info = offer(server, "ham10000", HAM, images=3)
    (tmp_path / "ham10000").mkdir()
    with open(tmp_path / "ham10000/.fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="wait for it or stop it"):
            get(info, tmp_path)
    assert server.log == []
    assert get(info, tmp_path) == []


def test_check_prints_the_summary_and_writes_the_findings(tmp_path, monkeypatch, capsys):
    def check_dataset(name, root):
        findings = pd.DataFrame({"severity": ["error"], "kind": ["truncated"], "image_id": ["ISIC_1"]})
        summary = pd.DataFrame({"kind": ["truncated"], "n": [1]})
        return types.SimpleNamespace(
            findings=findings, summary=summary, usable=name == "ham10000", sentence=f"{name}, {root}"
        )

    monkeypatch.setitem(sys.modules, "lib.data.check", types.SimpleNamespace(check_dataset=check_dataset))
    monkeypatch.setattr(data, "ROOT", tmp_path)
    assert data.main(["--data", str(tmp_path), "check", "ham10000"]) == 0
    written = tmp_path / "data/runs/check_ham10000.csv"
    assert written.read_text() == "severity,kind,image_id\nerror,truncated,ISIC_1\n"
    out = capsys.readouterr().out
    assert "truncated" in out
    assert str(written) in out
    assert out.endswith(f"ham10000, {tmp_path}\n")
    assert data.main(["--data", str(tmp_path), "check", "ham10000", "eyepacs"]) == 1


@pytest.fixture
def reproduce(monkeypatch, capfd):
    """Calls ./reproduce in this process, without its check of the environment that the tests run in."""
    module = types.ModuleType("reproduce")
    module.__file__ = str(ROOT / "reproduce")
    exec((ROOT / "reproduce").read_text(), module.__dict__)
    monkeypatch.setattr(module, "set_up", lambda *arguments, **options: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
        with pytest.raises(SystemExit) as exit:
            module.main()
        return exit.value.code, *capfd.readouterr()

    return call


def test_the_command_line(reproduce, tmp_path, monkeypatch):
    bring(tmp_path, {"file": b""})
    monkeypatch.chdir(tmp_path)
    status, _, error = reproduce("data", "--data", "file", "eyepacs", "ham10000")
    assert status == 1
    assert [line.split(" cannot be written to ")[0] for line in error.splitlines()] == [
        str(tmp_path / "file" / name) for name in ("eyepacs", "ham10000")
    ]
    status, usage, _ = reproduce("data", "--help")
    assert status == 0
    assert "--optional" in usage
    assert "data check NAME" in usage


def test_what_the_command_does_not_understand_is_one_sentence(tmp_path, monkeypatch, capsys):
    known = ", ".join(DATASETS)
    for arguments, sentence in (
        (["ham10000", "mnist"], f"There is no data set 'mnist': choose one of {known}."),
        (["check"], f"Which data set is to be checked: {known}?"),
    ):
        assert data.main([*arguments, "--data", str(tmp_path)]) == 2
        assert capsys.readouterr().err == sentence + "\n"
    assert list(tmp_path.iterdir()) == []

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "fetch_dataset", stop)
    assert data.main(["ham10000", "--data", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Stopped; call again to go on.\n"
