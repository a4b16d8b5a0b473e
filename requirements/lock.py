"""Write the lock files of this folder, and the pins of constraints.txt, from pyproject.toml: `make lock`.

constraints.txt decides the versions. A package that it does not pin gets its newest version and a pin; a pin that
nothing needs any more is removed. What constraints.txt does not know (build requirements, tools, CUDA's libraries,
the lowest versions) keeps the version it is locked at; with the option `--upgrade` it gets a new one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
TORCH = re.compile(r"^(?:torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==.*\n(?:[ #].*\n)*", re.MULTILINE)
COMPILE = [
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-annotate", "--no-header"),
]
CLUSTER = "pyspark\nray[data]\n"
# Tests run with these, also where all else is the lowest version that pyproject.toml admits.
TESTING = ("hypothesis", "pytest", "pytest-randomly", "pytest-xdist")


def pins(text: str) -> dict[str, str]:
    """Return the versions that a file of constraints or requirements pins, by normalized name."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PIN.findall(text)}


def compiled(requirements: str, *options: str, previous: str | None = None) -> str:
    """Resolve packages to a lock with the digests of every file that they have on PyPI.

    Args:
        requirements: A package a line.
        options: For `uv pip compile`.
        previous: The lock that has the versions to keep, a file of this folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        source.write_text(requirements, encoding="utf-8")
        if previous and (HERE / previous).exists():
            shutil.copyfile(HERE / previous, result)
        command = [*COMPILE, "--output-file", str(result), *options, str(source)]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit("The lock files are not complete. Mend this and run `make lock` again.")
        return result.read_text(encoding="utf-8")


def write(name: str, purpose: str, text: str) -> None:
    """Write a lock file and say whether it changed."""
    path = HERE / name
    text = f"# {purpose}\n# Written by `make lock`.\n{text}"
    changed = not path.exists() or path.read_text(encoding="utf-8") != text
    if changed:
        path.write_text(text, encoding="utf-8")
    print(f"requirements/{name}: {len(pins(text))} packages, {'written' if changed else 'unchanged'}")


def write_constraints(versions: dict[str, str]) -> None:
    """Make the pins of constraints.txt these versions; comments and the spelling of names stay."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    before = {name: line for line in lines for name in pins(line)}
    after = [before.get(name, f"{name}=={version}") for name, version in versions.items()]
    for name in sorted(versions.keys() ^ before.keys()):
        print(f"constraints.txt: {name} {'added' if name in versions else 'removed, nothing needs it'}")
    comments = [line for line in lines if not pins(line)]
    ordered = sorted(after, key=lambda line: line.lower().split("==")[0])
    CONSTRAINTS.write_text("\n".join([*comments, *ordered, ""]), encoding="utf-8")


def write_cpu_builds(version: str) -> None:
    """Write the lock of torch's CPU builds for Linux, which PyPI does not have, from PyTorch's package index."""
    path = HERE / "torch-cpu.lock"
    try:
        with urllib.request.urlopen(TORCH_INDEX, timeout=10) as page:
            text = page.read().decode()
    except OSError as error:
        locked = pins(path.read_text(encoding="utf-8")).get("torch") if path.exists() else None
        if locked != f"{version}+cpu":
            raise SystemExit(
                f"requirements/{path.name} has the digests of torch {locked}, not of {version}, and {TORCH_INDEX} "
                f"does not answer ({error}). Run `make lock` where it does."
            ) from None
        print(f"requirements/{path.name}: kept, {TORCH_INDEX} does not answer")
        return
    wheel = (
        rf"(torch-{re.escape(version)}(?:\+|%2B)cpu-cp3\d+-cp3\d+t?-manylinux[^#\"]*\.whl)#sha256=([0-9a-f]{{64}})"
    )
    builds = {name.replace("%2B", "+"): digest for name, digest in re.findall(wheel, text)}
    if not builds:
        raise SystemExit(f"{TORCH_INDEX} lists no CPU build of torch {version} for Linux.")
    digests = " \\\n".join(f"    --hash=sha256:{digest}" for digest in builds.values())
    names = "".join(f"#   {name}\n" for name in builds)
    purpose = f"torch's CPU builds for Linux, from {TORCH_INDEX}"
    write(
        path.name, purpose, f"# The digests are, in order, those of\n{names}torch=={version}+cpu \\\n{digests}\n"
    )


def main(options: list[str]) -> None:
    """Write every lock file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [f"--extra={name}" for name in project["optional-dependencies"] if name != "dev"]
    text = TORCH.sub("", compiled("", "--constraint", str(CONSTRAINTS), "--all-extras", "pyproject.toml"))
    torch = compiled("torch\n", *options, "--constraint", str(CONSTRAINTS), previous="torch.lock")
    write_constraints({**pins(text), "torch": pins(torch)["torch"]})
    write("requirements.lock", "What nertool needs beside torch, with all extras.", text)
    write("torch.lock", "torch as PyPI has it, and what it needs; for Linux that is the CUDA build.", torch)
    write_cpu_builds(pins(torch)["torch"])
    text = compiled(
        "setuptools\nsetuptools-scm\n", *options, "--constraint", str(CONSTRAINTS), previous="build.lock"
    )
    write("build.lock", "What builds nertool, and seqeval, which has no wheel.", text)
    text = compiled("cyclonedx-bom\npip-audit\nuv\n", *options, previous="tools.lock")
    write("tools.lock", "Tools that `make lock`, `make audit` and `make test-lowest` use.", text)
    text = compiled(CLUSTER, *options, "--constraint", str(CONSTRAINTS), previous="cluster.lock")
    write(
        "cluster.lock", "What `make test-cluster` needs beside nertool: engines of clusters.", TORCH.sub("", text)
    )
    lowest = "".join(
        f"{name}=={version}\n" for name, version in pins(CONSTRAINTS.read_text()).items() if name in TESTING
    )
    text = compiled(lowest, "--resolution", "lowest-direct", *extras, "pyproject.toml", previous="lowest.lock")
    write("lowest.lock", "The lowest versions of what nertool needs beside torch.", TORCH.sub("", text))


if __name__ == "__main__":
    main(sys.argv[1:])
