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
from typing import BinaryIO

from tqdm import tqdm

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
    options = {"unit": "B", "unit_scale": True, "desc": f"unpacking {target.name}", "disable": None}
    try:
        working.mkdir()
        with open(archive, "rb") as raw, tqdm(total=archive.stat().st_size, **options) as bar:
            for parts, stream in (_read_tar if archive.name.endswith(".tar.gz") else _read_zip)(raw, archive):
                path = working.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    shutil.copyfileobj(stream, file, CHUNK)
                bar.update(raw.tell() - bar.n)
        _give_name(working, target)
    except UNREADABLE as error:
        raise Unreadable(f"{archive} is damaged and cannot be unpacked ({error})") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _read_zip(raw: BinaryIO, archive: Path) -> Iterator[tuple[list[str], BinaryIO]]:
    with zipfile.ZipFile(raw) as opened:
        members = []
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0: made where files have no mode
            parts = _parts(member.filename, archive, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if not member.is_dir() and parts[0] != "__MACOSX":
                members.append((parts, member))
        need_space(sum(member.file_size for _, member in members), archive.parent, f"Unpacking {archive}")
        for parts, member in members:
            with opened.open(member) as stream:
                yield parts, stream


def _read_tar(raw: BinaryIO, archive: Path) -> Iterator[tuple[list[str], BinaryIO]]:
    with gzip.open(raw) as stream, tarfile.open(fileobj=stream, mode="r|") as opened:
        for member in opened:
            parts = _parts(member.name, archive, plain=member.isreg() or member.isdir())
            if member.isreg() and parts[0] != "__MACOSX":
                need_space(member.size, archive.parent, f"Unpacking {member.name} of {archive}")
                yield parts, opened.extractfile(member)
        while stream.read(CHUNK):  # tarfile stops at its end mark, the checksum stands behind it
            pass


def _parts(name: str, archive: Path, plain: bool) -> list[str]:
    """The folders and the file that a member's name stands for; StudyError if it may lead elsewhere."""
    parts = name.replace("\\", "/").split("/")
    absolute = parts[0] == "" or re.match(r"[A-Za-z]:", name)
    if absolute or ".." in parts or "\0" in name or not plain:
        raise StudyError(
            f"{archive} was not unpacked, as its member {name!r} is a link, a device or leads out of the folder: do "
            "not use it, and tell the publisher."
        )
    return [part for part in parts if part not in ("", ".")] or ["."]


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
