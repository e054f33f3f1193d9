# What every script here needs: its folder, words on the screen, and packages of the system where they may be installed.
# Sourced, not run. After it, the working folder is the repository's root.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/raymaker
PYTHON=.venv/bin/python
_apt_updated=

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# as_root COMMAND...: run it as root, directly or through sudo where that asks for no password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_be_root() {
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# install_packages PACKAGE...: install packages of Debian or Ubuntu, or say exactly what is missing and fail.
install_packages() {
  command -v apt-get >/dev/null || die "missing: $*. Install what these Debian packages hold, and run this again."
  may_be_root || die "missing: $*. As root: apt-get install --no-install-recommends $*"
  mkdir -p "$CACHE"
  local log=$CACHE/apt.log
  if [ -z "$_apt_updated" ]; then
    say "reading the package lists"
    as_root apt-get update >"$log" 2>&1 || say "apt-get update failed; trying with the lists that are there"
    _apt_updated=yes
  fi
  say "installing $*"
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    die "apt-get could not install: $* (log: $log)"
  fi
}

# need PROGRAM PACKAGE...: install the packages unless the program is there.
need() {
  local program=$1
  shift
  PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || install_packages "$@"
}
