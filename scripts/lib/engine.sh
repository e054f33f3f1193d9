# The container engine and the base image of the tests, the demo and the benchmarks. Sourced after common.sh.
#
# A daemon started here is recorded in $CACHE/dockerd.pid and stopped by the last script that uses it.

BASE_IMAGE=raymaker-base:bookworm
_rootfs=$CACHE/base-bookworm.tar
_daemon_pid=$CACHE/dockerd.pid

# The SDK asks, so that what holds here holds for raymaker too.
engine_answers() {
  "$PYTHON" -c 'import docker; docker.from_env(timeout=10).ping()' 2>/dev/null
}

have_image() { docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; }

# use_engine: go on once an engine answers; start Debian's where none does.
use_engine() {
  mkdir -p "$CACHE"
  exec 8>"$CACHE/engine.users" 9>"$CACHE/engine.lock"
  flock 9
  flock -s 8
  engine_answers || _start_daemon
  flock -u 9
  trap release_engine EXIT
}

# release_engine: stop the daemon if a script here started it and no other script still uses it.
release_engine() {
  { flock 9; } 2>/dev/null || return 0 # nothing was used
  if [ -s "$_daemon_pid" ] && flock -n -x 8; then
    local pid
    pid=$(cat "$_daemon_pid")
    say "stopping the container engine that was started here (process $pid)"
    as_root kill "$pid" 2>/dev/null || true
    while as_root kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    rm -f "$_daemon_pid"
  fi
  flock -u 9
}

# make_base_image: Debian with sh, perl, python3 and numpy, from the cache, a registry or a Debian mirror.
make_base_image() {
  have_image && return
  if [ ! -s "$_rootfs" ] && _build_from_registry; then return; fi
  [ -s "$_rootfs" ] || _debootstrap
  say "loading the base image $BASE_IMAGE"
  docker import --change 'CMD ["sh"]' "$_rootfs" "$BASE_IMAGE" >/dev/null
}

_start_daemon() {
  rm -f "$_daemon_pid"
  [ -z "${DOCKER_HOST:-}" ] || die "no container engine answers at DOCKER_HOST=$DOCKER_HOST"
  [ ! -S /var/run/docker.sock ] || [ -w /var/run/docker.sock ] ||
    die "/var/run/docker.sock may not be used by $(id -un): add the account to the group docker, or run as root"
  need dockerd docker.io
  need iptables iptables
  engine_answers && return # installing the package starts the daemon where systemd runs
  may_be_root || die "no container engine answers, and only root may start one: start the docker service"
  say "starting a container engine (log: $CACHE/dockerd.log)"
  as_root setsid dockerd --group "$(id -gn)" >"$CACHE/dockerd.log" 2>&1 </dev/null 8>&- 9>&- &
  local waited
  for waited in $(seq 60); do
    if engine_answers; then
      cat /var/run/docker.pid >"$_daemon_pid"
      return
    fi
    sleep 0.5
  done
  tail -n 20 "$CACHE/dockerd.log" >&2
  die "dockerd did not answer within 30 s; the lines above are the end of $CACHE/dockerd.log"
}

_build_from_registry() {
  timeout 180 docker pull -q debian:bookworm-slim >/dev/null 2>&1 || return 1
  say "building the base image $BASE_IMAGE on debian:bookworm-slim"
  timeout 300 docker build -q -t "$BASE_IMAGE" - >/dev/null <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-minimal python3-numpy \
    && rm -rf /var/lib/apt/lists/*
DOCKERFILE
}

_debootstrap() {
  need debootstrap debootstrap debian-archive-keyring
  may_be_root || die "no registry answers, and only root may make the base image $BASE_IMAGE with debootstrap"
  local root
  root=$(mktemp -d "$CACHE/rootfs.XXXXXX")
  say "no registry answers: making the base image with debootstrap (about a minute, once)"
  if ! as_root debootstrap --variant=minbase --include=python3-minimal,python3-numpy bookworm "$root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$CACHE/debootstrap.log" 2>&1; then
    as_root rm -rf "$root"
    die "debootstrap failed; see $CACHE/debootstrap.log (DEBIAN_MIRROR=URL names another mirror)"
  fi
  as_root tar -C "$root" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . >"$_rootfs.new"
  as_root rm -rf "$root"
  mv "$_rootfs.new" "$_rootfs"
}
