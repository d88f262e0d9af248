"""Archives from elsewhere, unpacked whole or not at all, and nowhere but where they should."""

import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from lib import StudyError

CHUNK = 1 << 20
# RuntimeError: encrypted; NotImplementedError: a compression that Python does not know.
UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
              RuntimeError, NotImplementedError)  # fmt: skip


class Unreadable(StudyError):
    """An archive that cannot be read to its end, as opposed to one that is unsafe or too large."""


def in_words(size: int) -> str:
    """A number of bytes in MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def need_space(size: int, folder: Path, what: str) -> None:
    """StudyError if the disk of the folder has less than `size` bytes free; `what` begins the sentence."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StudyError(
            f"{what} needs {in_words(size)} and the disk of {folder} has {in_words(free)} free: free some, call again."
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip or .tar.gz into the folder `target`, which takes its name when everything is there and read.

    An archive that holds nothing but one folder or file of the target's name becomes that. If the target is there
    already, the files are moved into it one by one. `__MACOSX` is left out. Raises Unreadable if the archive is
    damaged, StudyError if a member is not a plain file or folder below the target or the disk is too small for it;
    both leave nothing.
    """
    working = target.with_name(f".unpacking-{target.name}")
    shutil.rmtree(working, ignore_errors=True)  # of a call that was killed
    bar = tqdm(total=archive.stat().st_size, unit="B", unit_scale=True, desc=f"unpacking {target.name}", disable=None)
    try:
        working.mkdir()
        with bar, open(archive, "rb") as file:
            raw = CallbackIOWrapper(bar.update, file)
            if archive.name.endswith(".tar.gz"):
                with gzip.open(raw) as stream, tarfile.open(fileobj=stream, mode="r|") as opened:
                    opened.extractall(working, _checked_tar(opened, archive), filter="data")
                    while stream.read(CHUNK):  # tarfile stops at its end mark, the checksum stands behind it
                        pass
            else:
                with zipfile.ZipFile(raw) as opened:
                    for member in opened.infolist():
                        kind = stat.S_IFMT(member.external_attr >> 16)  # 0: made where files have no mode
                        _check(member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), archive)
                    whole = sum(member.file_size for member in opened.infolist())
                    need_space(whole, archive.parent, f"Unpacking {archive}")
                    opened.extractall(working)
        shutil.rmtree(working / "__MACOSX", ignore_errors=True)
        _give_name(working, target)
    except UNREADABLE as error:
        raise Unreadable(f"{archive} is damaged and cannot be unpacked ({error})") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _checked_tar(opened: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    for member in opened:
        _check(member.name, member.isreg() or member.isdir(), archive)
        need_space(member.size, archive.parent, f"Unpacking {member.name} of {archive}")
        yield member


def _check(name: str, plain: bool, archive: Path) -> None:
    """StudyError for a member whose name may lead elsewhere, on any system, or that is not a `plain` file or folder."""
    if not plain or "\0" in name or re.match(r"[\\/]|[A-Za-z]:", name) or ".." in re.split(r"[\\/]", name):
        raise StudyError(
            f"{archive} was not unpacked, as its member {name!r} is a link, a device or leads out of the folder: do "
            "not use it, and tell the publisher."
        )


def _give_name(working: Path, target: Path) -> None:
    content = sorted(path.name for path in working.iterdir())
    if not content:
        raise zipfile.BadZipFile("it is empty")
    whole = working / target.name if content == [target.name] else working
    if not target.exists():
        os.rename(whole, target)
        return
    for path in [whole] if whole.is_file() else whole.rglob("*"):
        if path.is_file():
            goal = target / path.relative_to(whole) if path != whole else target
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, goal)
