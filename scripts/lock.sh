#!/bin/sh
# Renew the two locks: `make lock`. The argument is the compile command.
#
# Releases younger than a week are left out: most bad ones are found and withdrawn by then. An
# index that does not tell when a file was uploaded cannot answer that; then the newest is taken.
set -eu
cd "$(dirname "$0")/.."
compile=$1

renew() {
    # shellcheck disable=SC2086  # a command and its words
    if ! $compile --upgrade --exclude-newer '1 week' "$@"; then
        echo "craftastic: trying again without the week's distance" >&2
        # shellcheck disable=SC2086
        $compile --upgrade "$@"
    fi
}

renew pyproject.toml --group dev -o requirements.lock
node=$(sed -n 's/^NODE = "\(.*\)"$/\1/p' hatch_build.py)
printf 'uv\nhatchling>=1.27\neditables\n%s\n' "$node" >.cache/tools.in
renew .cache/tools.in -o tools.lock
