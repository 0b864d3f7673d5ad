#!/bin/sh
# Puts another version of the module (or of nginx) into service without losing a request: install the new files, then run this.
# The old workers finish what they have, queued requests too. A reload does not load a changed .so; this does.
#
#   upgrade-module.sh [PIDFILE]
#
# While both run, each dispatches for itself: an engine may see up to twice its limit for that long. nginx must run as a
# daemon (a service of Type=forking); under `daemon off` it ignores USR2.
set -eu
pidfile=${1:-/run/nginx.pid}
old=$(cat "$pidfile")

# nginx starts itself anew by the name that it was started by, without looking into PATH.
title=$(tr '\0' ' ' <"/proc/$old/cmdline")
case $title in
"nginx: master process /"*) ;;
*)
    echo "nginx cannot start itself anew: it was started as \"${title#nginx: master process }\", not by an absolute path such as /usr/sbin/nginx" >&2
    exit 1
    ;;
esac

# A configuration that the new files cannot load must not stop what runs: the old master goes on if the new one does not start.
kill -USR2 "$old"
tries=0
until [ -s "$pidfile.oldbin" ] && [ -s "$pidfile" ] && [ "$(cat "$pidfile")" != "$old" ]; do
    tries=$((tries + 1))
    if [ $tries -ge 100 ]; then
        echo "the new nginx did not start; the old one still serves, see the error log" >&2
        exit 1
    fi
    sleep 0.1
done
kill -QUIT "$old"
while [ -e "$pidfile.oldbin" ]; do sleep 0.1; done   # the old master removes it when it ends
echo "nginx $(cat "$pidfile") has taken over from $old"
