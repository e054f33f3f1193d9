#!/usr/bin/env bash
# Make the image: a base image, the torch that a Python of this machine has, and `train`. Downloads nothing.
#   examples/torch_ddp/build.sh IMAGE [BASE_IMAGE]    PYTHON=.venv/bin/python says which Python; default: python3
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=${1:?"usage: build.sh IMAGE [BASE_IMAGE]"}
base=${2:-python:3.11-slim}
python=${PYTHON:-python3}
die() {
  echo "build.sh: $*" >&2
  exit 1
}

command -v docker >/dev/null || die "there is no docker here: install it (Debian: docker.io)"
"$python" -c 'import torch, numpy' 2>/dev/null ||
  die "$python has no torch, or no numpy for it: pip install torch numpy, or say which Python has them with PYTHON=..."
version='import sys; print("%d.%d" % sys.version_info[:2])'
ours=$("$python" -c "$version")
theirs=$(docker run --rm --entrypoint python3 "$base" -c "$version") || die "the image $base does not run python3"
[ "$ours" = "$theirs" ] || die "$base has Python $theirs, but the torch of $python is for $ours: name another BASE_IMAGE"

# The build's context goes through a pipe: it is most of a gigabyte.
"$python" - "$here" <<'PYTHON' | docker build --quiet --tag "$image" --build-arg "BASE_IMAGE=$base" -
import re, sys, tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

def installed(*names):
    """These packages and all that they need, as far as they are here."""
    found, wanted = {}, list(names)
    while wanted:
        name = wanted.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        if package.name not in found:
            found[package.name] = package
            needed = [need for need in package.requires or [] if "extra ==" not in need]
            wanted += [re.match(r"[\w.-]+", need)[0] for need in needed]
    return found.values()

with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as context:
    for name in ("Dockerfile", "train"):
        context.add(Path(sys.argv[1], name), name)
    for package in installed("torch", "numpy"):
        for file in package.files:
            for_building = file.parts[:2] in {("torch", "include"), ("torch", "test")}
            if ".." not in file.parts and not for_building and file.locate().is_file():
                context.add(file.locate(), f"torch/{file}")
PYTHON
