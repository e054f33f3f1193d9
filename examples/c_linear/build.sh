#!/bin/sh
# Compile linear.c into `train` and `serve`, one static program under two names. Runs once, when the source is packaged;
# a base image without a compiler can be given the two programs ready made: run this first where there is one.
set -eu
cd "$(dirname "$0")"
if command -v cc >/dev/null; then
  cc -O2 -Wall -Wextra -static -pthread -o train linear.c -lm
  ln -f train serve
elif [ ! -x train ]; then
  echo "build.sh: no C compiler here; run it where there is one (Debian: gcc libc6-dev), then hand in the folder again" >&2
  exit 1
fi
