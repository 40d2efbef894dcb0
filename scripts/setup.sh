#!/bin/sh
# Set this checkout up: system packages, uv, the virtual environment, the locked packages.
#
#   scripts/setup.sh [serve|test]     without a word: no system packages
#
# Quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-}
mkdir -p .cache

say() { printf 'craftastic: %s\n' "$*" >&2; }

# The system's own certificate authorities count for pip and uv too, unless the caller says
# otherwise: some networks inspect what passes.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -r "$authorities" ]; then
    export PIP_CERT="${PIP_CERT:-$authorities}" SSL_CERT_FILE="${SSL_CERT_FILE:-$authorities}"
fi
if [ -z "${HOME:-}" ] || ! [ -w "${HOME:-/}" ]; then
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.cache/uv}"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if [ -r "$authorities" ]; then export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$authorities}"; fi

# ---- a Python of at least 3.11 --------------------------------------------------------------

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer is needed and was not found; install it, or set PYTHON to its path."
    exit 1
}
python=$(find_python)

scripts/system-packages.sh "$python" "$purpose"

# ---- uv, the virtual environment, the packages ----------------------------------------------

ensure_uv() {
    wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' tools.lock)
    if [ -x .tools/bin/uv ] && [ "$(.tools/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$wanted" ]
    then
        return
    fi
    say "bringing uv $wanted"
    rm -rf .tools
    "$python" -m venv .tools
    # What builds the package stands there too, and is brought by uv when it is needed.
    sed -n '/^uv==/,/[^\\]$/p' tools.lock >.cache/uv.lock
    .tools/bin/python -m pip install -q --require-hashes --no-deps -r .cache/uv.lock
}
ensure_uv

# The first line of the stamp names what the environment was made of, the second what it holds.
stamp=.venv/.craftastic-setup
made_of="$PWD $("$python" --version)"
holds=$(cat requirements.lock tools.lock pyproject.toml | cksum)

if ! [ "$(sed -n 1p $stamp 2>/dev/null)" = "$made_of" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "making .venv"
    .tools/bin/uv venv -q --clear --python "$python" .venv
    printf '%s\n' "$made_of" >$stamp
fi
if ! [ "$(sed -n 2p $stamp)" = "$holds" ]; then
    say "installing the locked packages"
    .tools/bin/uv pip sync -q --python .venv --require-hashes requirements.lock
    # Editable, so that a change of the source needs no second installation. What builds it is
    # held to the hashes of tools.lock.
    CRAFTASTIC_SKIP_UI=1 \
        .tools/bin/uv pip install -q --python .venv --no-deps --build-constraints tools.lock -e .
    printf '%s\n%s\n' "$made_of" "$holds" >$stamp
fi

# ---- the web page ---------------------------------------------------------------------------

# Built here and not by the installation above, whose words would be lost. What failed is not tried
# again until the page's sources change, or by `make web`.
if [ "${CRAFTASTIC_SKIP_UI:-}" != 1 ]; then .venv/bin/python hatch_build.py --quiet || :; fi
