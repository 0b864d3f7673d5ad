#!/usr/bin/env bash
# Builds an nginx under AddressSanitizer and UndefinedBehaviorSanitizer in build/nginx-asan: objs/nginx is the program,
# the tree is what the module is built against.
#
#   NGINX_SOURCE=/path/to/nginx scripts/asan_nginx.sh
#
# Without NGINX_SOURCE the sources are Debian's of the installed package, fetched by apt. Ends with 3 when there are
# none: the caller can still run the installed nginx with a sanitized module (tests/e2e/support/nginx.py does that when
# no NGINX_BINARY is named).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/nginx_tree.sh

tree=$PWD/build/nginx-asan
log=$PWD/build/nginx-asan.log
stamp=$tree/.source
mkdir -p build

# Debian's archive by a list of its own: apt's configuration of the machine need not name sources, and is not changed.
# The upstream tarball is enough: module and nginx are built from one tree, so the package's patches do not matter.
fetch() {
    local download=$PWD/build/nginx-source version codename keys=/usr/share/keyrings/debian-archive-keyring.gpg
    version=$(dpkg-query -W -f='${source:Upstream-Version}' nginx-dev 2>/dev/null) || return 1
    local tarball=$download/nginx_$version.orig.tar.gz
    if [ ! -e "$tarball" ]; then
        codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || return 1
        mkdir -p "$download/lists/partial"
        printf 'deb-src [signed-by=%s] http://deb.debian.org/%s %s main\n' \
            "$keys" debian "$codename" "$keys" debian-security "$codename-security" >"$download/sources.list"
        local apt=(apt-get -qq -o "Dir::Etc::SourceList=$download/sources.list" -o Dir::Etc::SourceParts=-
            -o "Dir::State::lists=$download/lists")
        (cd "$download" && "${apt[@]}" update && "${apt[@]}" source --download-only nginx) >>"$log" 2>&1 || true
        [ -e "$tarball" ] || return 1
    fi
    rm -rf "$tree"
    mkdir -p "$tree"
    tar -xf "$tarball" -C "$tree" --strip-components=1
}

: >"$log"
if [ -n "${NGINX_SOURCE:-}" ]; then
    source=$(nginx_source_mark "$NGINX_SOURCE")
    [ "$(cat "$stamp" 2>/dev/null)" = "$source" ] || copy_nginx "$NGINX_SOURCE" "$tree"
else
    source=debian:$(dpkg-query -W -f='${Version}' nginx-dev 2>/dev/null || true)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$source" ]; then
        fetch || {
            echo "No nginx sources: apt could not fetch them (see $log); NGINX_SOURCE=dir names a tree." >&2
            exit 3
        }
    fi
fi

if [ ! -x "$tree/objs/nginx" ]; then
    echo "== Building nginx with the sanitizers"
    # NGX_DEBUG_PALLOC makes every allocation from a pool one of malloc, so that a write past it is seen.
    # nginx itself passes null to memcpy with length 0 and adds to null pointers: these two checks are left out, and
    # it reads unaligned words where the processor allows it unless it is told not to.
    sanitize='-fsanitize=address,undefined -fno-sanitize=nonnull-attribute,pointer-overflow -fno-sanitize-recover=undefined'
    build_nginx "$tree" "$log" --with-cc-opt="-O1 -g -fno-omit-frame-pointer $sanitize -DNGX_DEBUG_PALLOC=1 -DNGX_HAVE_NONALIGNED=0" \
        --with-ld-opt="$sanitize"
    echo "$source" >"$stamp"
fi
