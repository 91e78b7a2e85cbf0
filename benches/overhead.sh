#!/usr/bin/env bash
# What recording events costs: the same guest recorded with and without them, in turn, N times, and each time
# the other one first. Prints the ratio of CPU seconds pair by pair, and instructions per second.
#
#   benches/overhead.sh [N]
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-11}
bin=target/release/colinux-trace
[ -x $bin ] || cargo build --release --locked
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
command='for i in 1 2 3 4 5 6 7 8 9 10; do ls -lR /sys | md5sum; done; gzip -c /bin/busybox | wc -c'

one() { # one NAME OPTION…: CPU seconds of a recording
    local name=$1
    shift
    local TIMEFORMAT='%U %S'
    { time $bin record -q -f -o "$dir/$name.clt" "$@" -- "$command" </dev/null >/dev/null; } 2>&1 |
        awk '{print $1 + $2}'
}

one warm >/dev/null
for round in $(seq "$runs"); do
    if [ $((round % 2)) = 1 ]; then
        with=$(one with)
        without=$(one without --no-trace)
    else
        without=$(one without --no-trace)
        with=$(one with)
    fi
    awk -v a="$with" -v b="$without" 'BEGIN {printf "%.2f s with events, %.2f s without: ratio %.3f\n", a, b, a / b; print a / b > "/dev/stderr"}' 2>>"$dir/ratios"
done
sort -n "$dir/ratios" | awk '{r[NR] = $1} END {printf "median ratio %.3f over %d pairs\n", r[int((NR + 1) / 2)], NR}'
$bin info "$dir/with.clt" | grep -E '^(ticks|speed|events)'
