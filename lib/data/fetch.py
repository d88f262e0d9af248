"""Getting a data set: what has an address is fetched, what a person has brought is checked, archives are unpacked."""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lib import StudyError
from lib.data.archives import Unreadable, unpack
from lib.data.download import Patience, download, is_verified, read_state, remember, verify_brought
from lib.data.readers import IMAGE_SUFFIXES, list_files
from lib.data.registry import DatasetInfo

PATIENCE = Patience()


def fetch_dataset(
    info: DatasetInfo,
    root: str | Path,
    complain: Callable[[str], None],
    optional: bool = False,
    patience: Patience = PATIENCE,
) -> None:
    """Get what is missing under `<root>/<name>/`, and call `complain` with one sentence for each file that fails.

    Files with an address are fetched, with `optional` the optional ones too, and archives unpacked. What is there and
    known to be whole is not touched, and nothing but `.part` files and what is hidden is ever there in part. Raises
    StudyError if the folder cannot be made or another call is at work in it.
    """
    folder = Path(root) / info.name
    with _locked(folder):
        for file in info.files:
            if optional or not file.get("optional"):
                with _told(complain, info, file["name"]):
                    _fetch_file(file, folder, info, patience)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".fetch.lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StudyError(f"{folder} cannot be written to ({error.strerror}): choose another with --data.") from error
    with os.fdopen(handle):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system however the process ends
        except BlockingIOError:
            raise StudyError(f"Another call is at work in {folder}: wait for it or stop it.") from None
        yield


@contextmanager
def _told(complain: Callable[[str], None], info: DatasetInfo, what: str) -> Iterator[None]:
    """Turn what goes wrong with one file into a sentence, so that the others get their turn."""
    try:
        yield
    except StudyError as error:
        complain(f"{info.name}: {error}")
    except OSError as error:
        why = f"{error.strerror}, {error.filename}" if error.filename else str(error.strerror or error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some and call again, a download goes on where it was"
        complain(f"{info.name}: {what} failed: {why}.")


# What is there


def count_images(folder: Path) -> int:
    """How many images lie under the folder, one of each name, where `read_index` looks for them."""
    names = (os.path.splitext(os.path.basename(file).lower()) for file in list_files(folder))
    return len({stem for stem, suffix in names if suffix in IMAGE_SUFFIXES})


def label_file(info: DatasetInfo, folder: Path) -> str | None:
    """The path of the label file under any of its names, or None."""
    names = [name.lower() for name in info.label_files]
    return next((file for file in list_files(folder) if os.path.basename(file).lower() in names), None)


def content_name(archive: str) -> str:
    """What an archive unpacks to: its name without .zip or .tar.gz; other names stay as they are."""
    return re.sub(r"\.(zip|tar\.gz)$", "", archive)


def is_unpacked(archive: str, folder: Path) -> bool:
    """Whether this archive was unpacked into the folder by a call of ours and its content is still there."""
    return "images" in read_state(folder).get(archive, {}) and (folder / content_name(archive)).exists()


# Files with an address


def _fetch_file(file: dict, folder: Path, info: DatasetInfo, patience: Patience) -> None:
    """Get a file unless it is there; of an archive, what is in it."""
    path, md5 = folder / file["name"], file.get("md5")
    is_archive = content_name(path.name) != path.name
    if is_archive and is_unpacked(path.name, folder):
        _delete_if_fetched(path)  # the call that unpacked it may have been killed before it did
        return
    if is_archive and count_images(folder) >= info.images:
        return  # a person has unpacked it
    if not path.exists():
        download(file["url"], path, md5, patience)
    elif not is_verified(path):
        verify_brought(path, md5)
    if is_archive:
        _unpack_fetched(path)
        _delete_if_fetched(path)


def _unpack_fetched(archive: Path) -> None:
    target, known = archive.with_name(content_name(archive.name)), read_state(archive.parent)[archive.name]
    try:
        unpack(archive, target)
    except Unreadable as error:
        if "url" not in known:
            raise StudyError(f"{error}: delete it and call again to fetch it.") from error
        archive.unlink()
        remember(archive, None)
        raise StudyError(f"{error} and was deleted: call again to fetch it anew.") from error
    _remember_unpacked(archive, target, known)


def _remember_unpacked(archive: Path, target: Path, known: dict) -> None:
    images = count_images(target)
    remember(archive, known | {"images": images})
    print(f"{target}: unpacked from {archive.name}{f', {images:,} images' if images else ''}", flush=True)


def _delete_if_fetched(archive: Path) -> None:
    if "url" in read_state(archive.parent)[archive.name]:
        archive.unlink(missing_ok=True)
