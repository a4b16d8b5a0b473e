"""The lock files, constraints.txt and pyproject.toml agree. `make lock` puts them in step."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADVICE = "run `make lock`"


def locked(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Return the requirements of a lock file or of constraints, each with its SHA-256 digests."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8")).replace("\\\n", " ")
    entries = [line.split("--hash=") for line in text.splitlines() if line.strip()]
    return [(Requirement(name), [digest.strip() for digest in digests]) for name, *digests in entries]


def versions(path: Path) -> dict[str, str]:
    """Return the version of each package of a file; every one must be pinned."""
    result = {}
    for requirement, _ in locked(path):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        result[canonicalize_name(requirement.name)] = specifier.version
    return result


def wanted(without: str | None = None) -> list[Requirement]:
    """Return what pyproject.toml asks for: to run, to build, and for every extra but one."""
    project = PROJECT["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != without]
    lists = [project["dependencies"], PROJECT["build-system"]["requires"], *extras]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_digests(path):
    assert locked(path)
    for requirement, digests in locked(path):
        assert digests, requirement.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), requirement.name


def test_the_lock_has_the_pins_of_the_constraints():
    constraints = versions(ROOT / "constraints.txt")
    torch = constraints.pop("torch")
    assert versions(ROOT / "requirements" / "requirements.lock") == constraints, ADVICE
    assert versions(ROOT / "requirements" / "torch.lock")["torch"] == torch, ADVICE
    assert versions(ROOT / "requirements" / "torch-cpu.lock") == {"torch": f"{torch}+cpu"}, ADVICE
    for name in ("torch.lock", "build.lock"):
        for package, version in versions(ROOT / "requirements" / name).items():
            assert constraints.get(package, version) == version or package == "torch", ADVICE


def test_every_dependency_has_a_pin_that_it_admits():
    pins = versions(ROOT / "constraints.txt")
    assert wanted()
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        assert name in pins and requirement.specifier.contains(pins[name]), f"{requirement}: {ADVICE}"


def test_the_lowest_versions_are_those_that_are_tested():
    """The lowest torch is not locked: it is read from pyproject.toml."""
    lowest = versions(ROOT / "requirements" / "lowest.lock")
    for requirement in wanted("dev"):
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        assert bounds, f"{requirement} has no lowest version"
        if requirement.name not in ("torch", "setuptools"):
            tested = lowest.get(canonicalize_name(requirement.name))
            assert tested and Version(tested) == Version(bounds[0]), f"{requirement}, locked {tested}: {ADVICE}"
