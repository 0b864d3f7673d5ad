# shellcheck shell=bash
# For scripts/asan_nginx.sh and scripts/test_mainline.sh, which source this: an nginx of our own from somebody's sources.

# Prints what tells these sources from others: where they are, which files, how large and how old.
nginx_source_mark() { # SOURCE
    echo "$1"
    (cd "$1" && find . -path ./.git -prune -o -path ./objs -prune -o -type f -printf '%p %s %T@\n' | sort | sha256sum)
}

# Copies the sources, without what was built in them; all is new then for what is built from it.
copy_nginx() { # SOURCE TREE
    rm -rf "$2"
    mkdir -p "$2"
    tar -C "$1" --exclude=./.git --exclude=./objs -cf - . | tar -C "$2" -xmf -
}

# Configures and builds TREE; everything that is said goes to LOG. Ends the script when that fails.
build_nginx() { # TREE LOG [OPTION of configure …]
    local tree=$1 log=$2 configure=auto/configure
    shift 2
    [ -x "$tree/$configure" ] || configure=configure
    (cd "$tree" && "./$configure" --with-compat --with-debug --with-threads --with-http_ssl_module --with-http_v2_module \
        --with-http_auth_request_module --with-http_realip_module "$@" && make -j"$(nproc)") >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "Building nginx failed (everything is in $log)." >&2
        exit 1
    }
}
