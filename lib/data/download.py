"""Files over HTTP that go on where they broke off, are checked, and take their name only when they are whole.

What is known of the files of a folder stands in it, in `.fetched.json`: which are verified, what each archive was
unpacked to, and what a partial file (`<name>.part`) is a part of. pooch's own downloads begin anew after every
interruption and hash everything at every call, which 40 GB do not bear, so that only its hashing is used.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
import urllib3
from tqdm import tqdm

from lib import StudyError, artifacts
from lib.data.archives import CHUNK, in_words, need_space

AGENT = "Mozilla/5.0"  # Dataverse turns away the default agents of Python's libraries


@dataclass(frozen=True)
class Patience:
    """Seconds without a byte that are borne, tries without progress, and the first pause, which then doubles."""

    timeout: float = 30
    tries: int = 5
    pause: float = 1


class _Interrupted(Exception):
    """A fault of the connection or the server that another try may not meet; `pause`: what the server asks for."""

    def __init__(self, why: str, pause: float = 0):
        super().__init__(why)
        self.pause = pause


def read_state(folder: Path) -> dict[str, dict]:
    """What is known of the files of this folder, by name; empty when nothing is."""
    try:
        return dict(json.loads((folder / ".fetched.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def remember(path: Path, facts: dict | None) -> None:
    """Change what is known of a file; None: nothing any more."""
    state = read_state(path.parent) | {path.name: facts}
    state = {name: facts for name, facts in state.items() if facts}
    artifacts.write_text(path.with_name(".fetched.json"), json.dumps(state, indent=1) + "\n")


def is_verified(path: Path) -> bool:
    """Whether the file is the one that was checked, by size and date: hashing gigabytes takes long."""
    known = read_state(path.parent).get(path.name, {})
    return path.is_file() and _size_and_date(path).items() <= known.items()


def part_of(path: Path) -> float | None:
    """Which share of this file a broken-off download has left; None if there is none or its length is not known."""
    part = path.with_name(f"{path.name}.part")
    total = read_state(path.parent).get(part.name, {}).get("total")
    return _size(part) / total if total and part.exists() else None


def has_md5(path: Path, md5: str) -> bool:
    """Whether the content of the file has this MD5 checksum, in hexadecimal digits."""
    return pooch.file_hash(path, alg="md5") == md5.lower()


def verify_brought(path: Path, md5: str | None) -> None:
    """Check, if there is a checksum, and remember a file that a person has put there.

    Nothing remembers where it came from, so that it is never deleted. StudyError if it is not what was published.
    """
    if md5 and not has_md5(path, md5):
        raise StudyError(
            f"{path} is not the published file, whose MD5 checksum is {md5}: move it away and call again to fetch that."
        )
    remember(path, {"md5": md5, **_size_and_date(path)})


def download(url: str, path: Path, md5: str | None, patience: Patience) -> None:
    """Fetch a file, going on with `<name>.part` where what comes is checked: by MD5, or as an archive by its own sums.

    A connection that breaks off and a server that is busy are tried again. Raises StudyError, and keeps the part,
    if that does not help, the server refuses or the disk is too small; and without the part if the checksum is wrong.
    OSError if the disk fills up, which also keeps the part.
    """
    part = path.with_name(f"{path.name}.part")
    if not (md5 or path.name.endswith((".zip", ".tar.gz", ".npz"))):
        part.unlink(missing_ok=True)
    failures, longest = 0, _size(part)
    while True:
        try:
            _get(url, part, patience.timeout)
            break
        except _Interrupted as error:
            failures = failures + 1 if _size(part) <= longest else 0
            longest = max(longest, _size(part))
            if failures >= patience.tries:
                raise StudyError(
                    f"{path.name} could not be fetched: {error}; {in_words(_size(part))} are kept, call again to go on."
                ) from error
            time.sleep(max(error.pause, patience.pause * 2**failures))
    if md5 and not has_md5(part, md5):
        part.unlink()
        remember(part, None)
        raise StudyError(
            f"{path.name} came with another MD5 checksum than {md5} and was deleted: call again, and if that does not "
            f"help, see what {url} gives."
        )
    remember(path, {"url": url, "md5": md5, **_size_and_date(part)})
    os.replace(part, path)
    remember(part, None)
    print(f"{path}: fetched{' and verified' if md5 else ''}, {in_words(_size(path))}", flush=True)


def _size_and_date(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size, "mtime": path.stat().st_mtime_ns}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get(url: str, part: Path, timeout: float) -> None:
    """Make `part` whole with one request, going on behind what it has; _Interrupted if it is not whole after that."""
    host, have = urlsplit(url).hostname or url, _size(part)
    if have and have == read_state(part.parent).get(part.name, {}).get("total"):
        return
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            status, asked = response.status_code, response.headers.get("Retry-After", "")
            answer = f"{host} answered {status} {response.reason}".rstrip()
            if status == 416:  # the part is longer than the file
                part.unlink(missing_ok=True)
            if status in (408, 416, 429) or status >= 500:
                raise _Interrupted(answer, pause=min(int(asked), 60) if asked.isdigit() else 0)
            if status not in (200, 206):
                where = f"get it in a browser from {url} and put it in {part.parent}"
                raise StudyError(f"{part.stem} could not be fetched: {answer}; {where}.")
            have = have if status == 206 else 0
            length = response.headers.get("Content-Length", "")
            known = length.isdigit() and "Content-Encoding" not in response.headers
            total = have + int(length) if known else None
            remember(part, {"total": total})
            need_space((total or 0) - have, part.parent, f"Fetching {part.stem}")
            bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
            with open(part, "ab" if have else "wb") as file, bar:
                # Not `iter_content`, which waits for whole chunks and loses the last one when the connection drops.
                while data := response.raw.read1(CHUNK, decode_content=True):
                    file.write(data)
                    bar.update(len(data))
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _Interrupted(f"{host} did not answer for {timeout:g} seconds") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        raise _Interrupted(f"there is no connection to {host}, or it broke off") from error
    except requests.RequestException as error:
        raise StudyError(f"{part.stem} could not be fetched from {url} ({error}).") from error
    if total is not None and _size(part) != total:
        raise _Interrupted(f"{host} sent {_size(part)} bytes of {total}")
