#!/usr/bin/env bash
# Installs what is missing of the named sets of Debian packages; says nothing when nothing is missing.
#
#   scripts/deps.sh build [postgres] [unit] [test] [fuzz] [bench] [package]
#
# CUDA is never installed: the engine's CUDA backend is built only where a toolkit is already there.
set -euo pipefail

# What the module and the engine are built from, and what `make run` starts. Debian's nginx-dev carries the headers of exactly
# the nginx that apt installs; headers from elsewhere differ in structure layout under an equal signature.
build=(g++ cmake ninja-build pkg-config make
    nginx nginx-dev redis-server
    libhiredis-dev nlohmann-json3-dev libpq-dev libcurl4-openssl-dev libssl-dev libpcre2-dev libicu-dev zlib1g-dev
    ca-certificates curl python3)
postgres=(postgresql)
unit=(libgtest-dev libgmock-dev) # of test, what compiling them needs
test=("${unit[@]}" python3-venv postgresql faketime iproute2 iptables chromium fonts-liberation prometheus dpkg-dev)
# Ubuntu has Chromium as a snap only, which does not run everywhere: there the browser tests are skipped unless it is installed.
! grep -qsx 'ID=ubuntu' /etc/os-release || test=("${test[@]/chromium/}")
fuzz=(clang)
bench=(wrk valgrind)
package=(dpkg-dev)

die() {
    echo "$*" >&2
    exit 1
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=()
for name in "$@"; do
    case $name in
    build | postgres | unit | test | fuzz | bench | package)
        declare -n list=$name
        wanted+=("${list[@]}")
        ;;
    *) die "scripts/deps.sh: no package set is called \"$name\" (known: build postgres unit test fuzz bench package)." ;;
    esac
done

# The way out for other distributions and for machines without root: bring the tools yourself.
[ "${SKIP_DEPS:-}" = 1 ] && exit 0

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    die "This is not a Debian or Ubuntu system: install the counterparts of \"${wanted[*]}\" yourself, then repeat with SKIP_DEPS=1."
fi

missing=()
for package in "${wanted[@]}"; do
    [ -z "$package" ] || installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "Missing packages: ${missing[*]}. Install them as root (sudo was not found), then repeat."
    root=(sudo)
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
own_policy=
cleanup() {
    [ -z "$own_policy" ] || "${root[@]}" rm -f "$policy"
    rm -f "$log"
}
trap cleanup EXIT

apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1
}

echo "== Installing ${#missing[@]} packages: ${missing[*]}"
apt update || true # a stale or partly unreachable index may still serve

# The distributions that are too old get one sentence instead of what apt and CMake say.
candidate() { # PACKAGE: the version that apt would install, without its epoch
    local version
    version=$(LC_ALL=C apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
    version=${version#*:}
    [ "$version" = "(none)" ] || printf '%s' "$version"
}
too_old=()
for need in cmake=3.25 g++=12 nginx-dev=1.22; do
    case " ${wanted[*]} " in *" ${need%%=*} "*) ;; *) continue ;; esac
    have=$(candidate "${need%%=*}")
    if [ -z "$have" ]; then
        too_old+=("no ${need%%=*}")
    elif dpkg --compare-versions "$have" lt "${need#*=}"; then
        too_old+=("${need%%=*} ${have%%-*} (${need#*=} is needed)")
    fi
done
if [ ${#too_old[@]} -gt 0 ]; then
    system=$(. /etc/os-release && echo "$PRETTY_NAME")
    printf -v found '%s, ' "${too_old[@]}"
    die "$system is too old or its package index incomplete: it has ${found%, }. Debian 12, Ubuntu 24.04 and what came after them have it all: take one of them, or a container of it."
fi

# Debian starts a service as soon as its package is unpacked; ours are needed as programs only, and nginx would take port 80.
# invoke-rc.d asks this file first; one that an administrator put there is left alone.
if [ ! -e "$policy" ]; then
    own_policy=1
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
fi
if ! apt install --no-install-recommends "${missing[@]}"; then
    tail -n 15 "$log" >&2
    die "apt-get could not install: ${missing[*]}."
fi

# Packages that were not there before become no services at the next boot either.
if [ -n "$own_policy" ] && [ -d /run/systemd/system ]; then
    for service in nginx redis-server postgresql prometheus; do
        case " ${missing[*]} " in
        *" $service "*) "${root[@]}" systemctl disable --quiet "$service" >>"$log" 2>&1 || true ;;
        esac
    done
fi
