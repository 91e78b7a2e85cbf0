#!/usr/bin/env bash
# Runs the kernel's own x86 selftests in the guest, all in one recording, verifies that, and
# compares what each came to with expected.txt.
#
#   run.sh [KERNEL-VERSION [FLAVOUR]]    such as 6.1, 6.12, or 6.1 amd64; 6.1 (cloud) by default
#
# COLINUX_TRACE is the binary [target/release/colinux-trace]; SELFTESTS the folder to build in
# [target/selftests]. Needs apt-get (for linux-source), gcc and libc6-dev.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${COLINUX_TRACE:-$root/target/release/colinux-trace}
folder=${SELFTESTS:-$root/target/selftests}
version=${1:-6.1}
flavour=${2:-cloud}

[ -d "$folder/bin" ] || "$here/build.sh" "$folder"
folder=$(cd "$folder" && pwd)
kernel=$("$binary" guest fetch --kernel-version "$version" --flavour "$flavour" | head -1)
echo "kernel ${kernel%% *}" >&2

trace=$folder/selftests.clt
status=0
"$binary" record --kernel "${kernel#* }" -f -o "$trace" --pack "$folder/bin" -- \
    sh "$here/guest.sh" "$folder/bin" >"$folder/console.txt" || status=$?
[ "$status" = 0 ] || { tail -5 "$folder/console.txt"; exit "$status"; }
"$binary" verify "$trace"

# One line per program: its name and what it came to.
tr -d '\r' <"$folder/console.txt" | awk '
    $1 == "@@" && $2 == "begin" { failed = ok = skipped = 0 }
    /^\[FAIL\]|^not ok/ { failed = 1 }
    /^\[OK\]|^ok / { ok = 1 }
    /^\[SKIP\]/ { skipped = 1 }
    $1 == "@@" && $2 == "end" {
        if ($4 == 4 || $4 == 0 && skipped && !ok && !failed) what = "skip"
        else if ($4 != 0 || failed) what = "fail"
        else what = "pass"
        print $3, what
    }' | sort >"$folder/results.txt"
sed 's/#.*//' "$here/expected.txt" | awk 'NF && $2 != "unbuilt" { print $1, $2 }' | sort \
    >"$folder/expected.txt"
if ! diff -u "$folder/expected.txt" "$folder/results.txt"; then
    echo "the results differ from expected.txt; the console is in $folder/console.txt" >&2
    exit 1
fi
awk '{ n[$2]++ } END { for (what in n) printf "%d %s  ", n[what], what; print "" }' \
    "$folder/results.txt"
