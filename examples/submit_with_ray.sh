#!/usr/bin/env bash
# Run driver.py as a Ray job on the platform's own cluster, instead of from this shell.
#   examples/submit_with_ray.sh /tmp/breast-cancer [more arguments of driver.py]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Where the cluster takes jobs, the token that it asks for, and where the platform answers.
variables=$(raymaker env)
eval "$variables"
ray job submit --working-dir "$here" -- python driver.py --url "$RAYMAKER_ENDPOINT_URL" "$@"
