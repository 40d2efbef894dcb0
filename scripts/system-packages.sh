#!/bin/sh
# Install the system's packages that are missing, or say in one line which are.
#
#   scripts/system-packages.sh PYTHON [serve|test]
#
# Only root on a system with apt installs anything. CRAFTASTIC_SYSTEM_PACKAGES=0 keeps it from that
# too. What cannot be installed is said, and no error: the rest works without it.
set -eu
cd "$(dirname "$0")/.."
python=$1
purpose=${2:-}
mkdir -p .cache

say() { printf 'craftastic: %s\n' "$*" >&2; }

# What proves that a part is there, and the Debian package that brings it.
parts() {
    case $purpose in serve | test)
        cat <<'LIST'
tmux tmux
bwrap bubblewrap
pasta passt
git git
/usr/bin/python3 python3
iptables iptables
/etc/ssl/certs/ca-certificates.crt ca-certificates
LIST
        ;;
    esac
    [ "$purpose" = test ] || return 0
    cat <<'LIST'
dockerd docker.io
docker-compose docker-compose
/usr/lib/postgresql/*/bin/initdb postgresql
mmdebstrap mmdebstrap
chromium chromium
nginx nginx-light
caddy caddy
/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf fonts-dejavu-core
vim vim
less less
htop htop
ps procps
ip iproute2
newuidmap uidmap
setpriv util-linux
LIST
    # A kernel with AppArmor refuses containers when the program that loads profiles is missing.
    if grep -qs Y /sys/module/apparmor/parameters/enabled; then
        echo apparmor_parser apparmor
    fi
}

present() {
    case $1 in
    /*)
        # Unquoted: the path may be a pattern.
        for path in $1; do [ -e "$path" ] && return 0; done
        return 1
        ;;
    *) PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing_packages() {
    if ! [ -x .tools/bin/uv ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo python3-venv
    fi
    parts | while read -r proof package; do
        present "$proof" || echo "$package"
    done
}

policy=/usr/sbin/policy-rc.d
our_policy=

no_services_while_installing() {
    # Packages of servers start them when they are installed. The tests start what they need
    # themselves and end it again, so nothing may be left running by an installation.
    if [ "$purpose" = test ] && ! [ -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        our_policy=$policy
        trap 'rm -f $policy' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
    fi
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -y -q "$@" >>.cache/apt.log 2>&1
}

install_missing() {
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && [ "${CRAFTASTIC_SYSTEM_PACKAGES:-1}" != 0 ] &&
        command -v apt-get >/dev/null 2>&1; then
        say "installing $missing(log: .cache/apt.log)"
        : >.cache/apt.log
        no_services_while_installing
        apt update || say "apt-get update failed; trying with the lists that are there."
        # shellcheck disable=SC2086  # a list of words
        if ! apt install --no-install-recommends $missing; then
            # One unknown name must not keep the others out.
            for package in $missing; do apt install --no-install-recommends "$package" || :; done
        fi
        if [ -n "$our_policy" ]; then
            rm -f "$our_policy"
            trap - EXIT INT TERM HUP
        fi
        missing=$(missing_packages | tr '\n' ' ')
    fi
    [ -z "$missing" ] || say "missing, going on without: $missing"
}
install_missing
