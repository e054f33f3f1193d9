#!/bin/sh
# Runs once, when the source is packaged: brings numpy along where the base image, or this machine, has none.
set -eu
cd "$(dirname "$0")"
python3 -c 'import numpy' 2>/dev/null || python3 -m pip install --quiet --target . numpy
