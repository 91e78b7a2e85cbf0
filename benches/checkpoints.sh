#!/usr/bin/env bash
# What the checkpoints in a recording cost: the same boot recorded with and without them, in turn, N times, and
# each time the other one first; then how long journeys in it take.
#
#   benches/checkpoints.sh [N]
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-9}
bin=target/release/colinux-trace
[ -x $bin ] || cargo build --release --locked
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

one() { # one NAME OPTION…: wall and CPU seconds of a recording
    local name=$1
    shift
    local TIMEFORMAT='%R %U %S'
    { time $bin record -q -f -o "$dir/$name.clt" "$@" -- 'dmesg | tail -3' </dev/null >/dev/null; } 2>&1 |
        tail -1 | awk '{print $1, $2 + $3}'
}

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

one warm >/dev/null
for round in $(seq "$runs"); do
    if [ $((round % 2)) = 1 ]; then
        read -r wall cpu < <(one with)
        read -r wall0 cpu0 < <(one without --checkpoint-interval 0)
    else
        read -r wall0 cpu0 < <(one without --checkpoint-interval 0)
        read -r wall cpu < <(one with)
    fi
    echo "$wall $wall0" | awk '{print $1 / $2}' >>"$dir/wall"
    echo "$cpu $cpu0" | awk '{print $1 / $2}' >>"$dir/cpu"
done
echo "with checkpoints, over without, median of $runs pairs: wall $(median <"$dir/wall"), CPU of all threads $(median <"$dir/cpu")"
stat -c '%n %s bytes' "$dir/with.clt" "$dir/without.clt" | sed "s|$dir/||"
RECORDING=$dir/with.clt cargo bench --locked -q -p colinux-replay --bench past
