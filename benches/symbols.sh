#!/usr/bin/env bash
# What names cost, beside what others take for the same: the addr2line crate, llvm-symbolizer and gdb,
# on the debug image of a fetched kernel, in one run.
#
#   benches/symbols.sh [KERNEL_VERSION]
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-6.1}
bin=target/release/colinux-trace
cargo build --release --locked
vmlinux=$($bin guest fetch -q --kernel-version "$version" --debug | awk '{print $2}' | tail -1)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

echo "== in one process: $vmlinux"
COLINUX_TEST_VMLINUX=$vmlinux COLINUX_TEST_DEBUG_VMLINUX=$vmlinux \
    cargo bench -q -p colinux-symbols --bench symbols --locked 2>/dev/null |
    grep -E 'time:|thrpt:|^[a-z]+/[a-z].*$' | grep -v '^Benchmarking'

# Addresses inside of functions, the same in every run.
nm --defined-only -S "$vmlinux" | perl -ne '
    push @all, [hex $1, hex $2] if /^(ffffffff\w+) (\w+) [tT] /;
    END { srand 1; for (1 .. 100000) {
        my ($start, $size) = @{$all[rand @all]};
        printf "0x%x\n", $start + int rand $size;
    } }' >"$dir/addresses"
head -1 "$dir/addresses" >"$dir/one"

run() { # run NAME COMMAND…: wall and CPU seconds, peak memory
    local name=$1
    shift
    /usr/bin/time -f "%e s, %U s of CPU, %M KiB" -o "$dir/time" "$@" >/dev/null 2>&1 || true
    printf '%-48s %s\n' "$name" "$(tail -1 "$dir/time")"
}
ask() { run "$1" sh -c "exec $2 <$3"; }

ours="$bin -q symbols --kernel $vmlinux --vmlinux $vmlinux"
llvm="llvm-symbolizer --inlines --functions=linkage --obj=$vmlinux"
$ours <"$dir/one" >/dev/null # makes the index
echo "== whole processes, $(wc -l <"$dir/addresses") addresses with inlined functions and lines"
for _ in 1 2 3; do
    run "ours, one address" $ours "$(cat "$dir/one")"
    ask "llvm-symbolizer, one address" "$llvm" "$dir/one"
    run "gdb, one address" gdb -nx -batch -ex "info line *$(cat "$dir/one")" "$vmlinux"
    ask "ours, all" "$ours" "$dir/addresses"
    ask "llvm-symbolizer, all" "$llvm" "$dir/addresses"
done

if command -v valgrind >/dev/null; then
    cargo build -q --release --locked -p colinux-symbols --example count
    export TMPDIR=$dir
    count=target/release/examples/count
    $count unpacked "$vmlinux" >/dev/null # makes the index
    counted() { # instructions and misses of the first data cache
        valgrind --tool=callgrind --cache-sim=yes --callgrind-out-file=/dev/null $count "$@" 2>&1 |
            tr -d , | awk '/I +refs/ { print $NF } /D1 +misses/ { print $4 }' | xargs
    }
    echo "== counted: instructions, and misses of a first cache of 32 KiB"
    echo "kallsyms, BTF and hooks: $(counted load "$vmlinux")"
    for what in unpacked index; do
        read -r one_i one_d < <(counted $what "$vmlinux" 1)
        read -r three_i three_d < <(counted $what "$vmlinux" 3)
        awk -v what=$what -v i=$((three_i - one_i)) -v d=$((three_d - one_d)) \
            'BEGIN { printf "a stack, %s: %.0f, %.1f\n", what, i / 200000, d / 200000 }'
    done
fi
