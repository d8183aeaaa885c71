#!/bin/sh
# Counts the edge's user-space instructions per proxied keep-alive request, without and with TLS.
# Prints one line each, and fails when a bound is exceeded. Needs valgrind.
#
#   proxy/benches/instructions.sh [requests] [bound plain] [bound tls]
set -eu
cd "$(dirname "$0")/../.."
requests=${1:-2000}
bound_plain=${2:-40000}
bound_tls=${3:-47500}
edge=127.77.200.1
container=127.77.200.2

command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 2; }
program=$(cargo bench -q -p gantry-proxy --bench load --no-run --message-format=json |
    sed -n 's|.*"executable":"\([^"]*deps/load-[^"]*\)".*|\1|p' | tail -n 1)
work=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || :; done; rm -rf "$work"' EXIT
"$program" certificates "$work"
"$program" origin "$container:3000" >"$work/origin" &
pids="$pids $!"

# Runs the edge once for $2 requests of kind $1; prints the instructions of the whole run.
count() {
    rm -f "$work/hold" "$work/ready"
    mkfifo "$work/hold"
    : >"$work/ready"
    valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.$1.$2" \
        "$program" edge "$edge" "$container" "$work" \
        <"$work/hold" >"$work/ready" 2>"$work/log" &
    pid=$!
    exec 3>"$work/hold"
    tries=0
    until grep -q ready "$work/ready"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] && kill -0 "$pid" || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    case $1 in
        plain) "$program" requests plain "$edge:8080" "$2" 3>&- ;;
        tls) "$program" requests tls "$edge:8443" "$2" "$work/ca.pem" 3>&- ;;
    esac
    exec 3>&-
    wait "$pid"
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/log"
}

status=0
for kind in plain tls; do
    once=$(count "$kind" "$requests")
    twice=$(count "$kind" $((requests * 2)))
    each=$(((twice - once) / requests))
    bound=$bound_plain
    [ "$kind" = plain ] || bound=$bound_tls
    echo "proxied keep-alive request, $kind: $each instructions (bound $bound)"
    [ "$each" -le "$bound" ] || status=1
done
[ -z "${KEEP:-}" ] || cp "$work"/callgrind.* "$KEEP"/
exit $status
