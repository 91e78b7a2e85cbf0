#!/usr/bin/env bash
# Counts the host's instructions on the paths of the vCPU with callgrind, and compares them with
# benches/callgrind.tsv. Counts do not depend on how busy the machine is.
#
#   benches/callgrind.sh            compare; fails where a path has become more than 5 % longer
#   benches/callgrind.sh --write    take the counts as the new reference
#
# Needs valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."
reference=benches/callgrind.tsv
cargo build --release --locked -q -p colinux-driver --example paths
paths=target/release/examples/paths

count() { # count NAME COUNT: instructions of the whole run
    # Translated code is written while it runs, through another mapping than it is run by.
    valgrind --tool=callgrind --smc-check=all --callgrind-out-file=/dev/null \
        --toggle-collect='paths::advance' "$paths" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
while read -r name few many unit; do
    less=$(count "$name" "$few") more=$(count "$name" "$many")
    awk -v n="$name" -v a="$less" -v b="$more" -v d=$((many - few)) -v u="$unit" \
        'BEGIN { printf "%s\t%.2f\t%s\n", n, (b - a) / d, u }' | tee -a "$measured"
done <<'LIST'
interpret 100000 600000 host instructions per guest instruction, tier 0
compute 1000000 6000000 host instructions per guest instruction, registers only
memory 1000000 6000000 host instructions per guest instruction, four of six in memory
dispatch 1000000 6000000 host instructions per guest instruction, an indirect call and a return in six
tlb-miss 100000 600000 host instructions per guest instruction, two misses in four
helper 100000 600000 host instructions per guest instruction, one RDTSC in two
translate 200 1200 host instructions per block of six, from decoding to translation
LIST

if [ "${1:-}" = --write ]; then
    cp "$measured" "$reference"
    exit
fi
awk -F'\t' 'NR == FNR { want[$1] = $2; next }
    { ratio = $2 / want[$1]; if (ratio > 1.05) { printf "%s: %.2f, %.1f %% more than %.2f\n", $1, $2, (ratio - 1) * 100, want[$1]; bad = 1 } }
    END { exit bad }' "$reference" "$measured"
