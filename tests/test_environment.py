"""The lock file, the conda environment and pyproject name the same things."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lib import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PINS = [Requirement(line.rstrip("\\ ")) for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)]


def marker_environment(version):
    return {
        "python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip


def locked(version):
    environment = marker_environment(version)
    here = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}
    assert len(versions) == len(here), "a package is pinned twice"
    return versions


def test_every_pin_is_exact_and_hashed_and_no_index_is_named():
    assert all(re.fullmatch(r"==[^=*]+", str(pin.specifier)) for pin in PINS)
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK
    assert "index-url" not in LOCK


def test_conda_environment_has_the_pins_of_the_lock_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *_, python, _, pip = environment["dependencies"]
    pins = [Requirement(line) for line in pip["pip"] if not line.startswith("-")]
    version = python.removeprefix("python=")
    ours = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert ours == locked(version)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_lock_file_satisfies_pyproject(version):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = locked(version)
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        assert Version(versions[canonicalize_name(wanted.name)]) in wanted.specifier, line
    assert "cuda" in project["optional-dependencies"]["gpu"][0]
