#!/bin/sh
# Ray Serve starts this in place of haproxy (RAY_SERVE_HAPROXY_BINARY_PATH). Serve's template has no setting for what is
# mended here, so the generated configuration (the argument of -f) is edited in place before haproxy takes over this
# process. Whatever the template no longer contains is left as it is, and a test notices.
set -eu
configuration=
previous=
for argument in "$@"; do
    [ "$previous" = -f ] && configuration=$argument
    previous=$argument
done
if [ -n "$configuration" ]; then
    host=${RAYMAKER_PROXY_HOST:?names the address to listen on}
    # 1: statistics and metrics listen where the traffic does, not on every interface.
    # 2: a client has a limited time to send its header.
    # 3: one line per event, none per request.
    # 4: what cannot be answered is answered in the wire's own shape, so that clients retry.
    # 5: so is everything while haproxy knows no routes yet; with the platform's own at / it is the only time.
    # 6: replicas of endpoints notice themselves that a client leaves (leaving.py), which costs less than Serve's way.
    sed -i \
        -e "s/^\( *bind \):\([0-9][0-9]*\)\$/\1$host:\2/" \
        -e "s/^\( *bind \)\*:\([0-9][0-9]*\)\$/\1$host:\2/" \
        -e "s/^\( *log .* local0 \)info\$/\1notice/" \
        -e "/^defaults\$/a\\    timeout http-request ${RAYMAKER_PROXY_HEADER_TIMEOUT_S:-30}s" \
        -e "s#^\( *errorfile 503 \).*#\1${RAYMAKER_PROXY_UNAVAILABLE_FILE}#" \
        -e "s#^\( *errorfile 50[24] \).*#\1${RAYMAKER_PROXY_BROKEN_OFF_FILE}#" \
        -e "s/^\( *http-request return status \)404 .*/\1503 default-errorfiles/" \
        -e "/^frontend http_frontend\$/a\\    http-request set-header x-request-disconnect-disabled ?1 if { path_beg /endpoints/ }" \
        "$configuration"
    # What has no live replica is sent to the application at /, the platform's own, which holds a request or says why not.
    # Serve's fallback would hold it without bound, and for good where no replica ever comes. Its name says the port: of a
    # server that it knows by name haproxy keeps address and state across reloads, also where the platform has moved.
    root=$(sed -n 's/^ *acl is_\([^ ]*\) path \/$/\1/p' "$configuration")
    platform=$(sed -n "/^backend $root\$/,/^backend /s/^ *server [^ ]* \([^ ]*\) check.*/\1/p" "$configuration" | head -n 1)
    if [ -n "$platform" ]; then
        sed -i \
            -e "/^backend $root\$/,/^backend /{/ check backup\$/d;}" \
            -e "s/^\( *server [^ ]*\) [^ ]* check backup\$/\1:${platform##*:} $platform check backup/" \
            "$configuration"
    fi
fi
exec "${RAYMAKER_HAPROXY:?names the haproxy to run}" "$@"
