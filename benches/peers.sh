#!/usr/bin/env bash
# Times the same kernel and initial file system under QEMU (plain, icount record and replay) and under
# colinux-trace (record and verify), and prints medians and ratios.
#
# The runs of one round follow each other, so that a noisy host is noisy for everybody; ratios count,
# absolute times do not. QEMU's cost depends on its icount shift, so two are measured and the better
# one is the peer.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'USAGE'
usage: benches/peers.sh [-n ROUNDS] [-k KERNEL] [-w boot,syscall,compute] [-m MEMORY_MB] [-t SECONDS]
                        [-o DIRECTORY] [--no-qemu] [--no-replay]

  -n  rounds; the median of each is printed             (default 3)
  -k  kernel                                            (default the newest cached cloud kernel)
  -w  workloads, with commas                            (default all three)
  -m  guest memory in MB                                (default 256)
  -t  give up on one run after so many seconds          (default 600)
  -o  keep logs, recordings and times.tsv there         (default a temporary directory, removed)

environment: COLINUX_TRACE, the binary  (default target/release/colinux-trace beside this script)
             QEMU, the peer             (default qemu-system-x86_64)
             SCALE, factor of the work  (default 1)

example: benches/peers.sh -n 5 -w boot
USAGE
}

die() {
    echo "peers.sh: $*" >&2
    exit 69
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${COLINUX_TRACE:-$here/target/release/colinux-trace}
qemu=${QEMU:-qemu-system-x86_64}
scale=${SCALE:-1}
shifts="3 5"
rounds=3 kernel="" workloads=boot,syscall,compute memory=256 limit=600 directory="" with_qemu=1 with_replay=1
while [ $# -gt 0 ]; do
    case $1 in
        -n) rounds=$2; shift ;;
        -k) kernel=$2; shift ;;
        -w) workloads=$2; shift ;;
        -m) memory=$2; shift ;;
        -t) limit=$2; shift ;;
        -o) directory=$2; shift ;;
        --no-qemu) with_qemu=0 ;;
        --no-replay) with_replay=0 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

# The guest's work, as lines for busybox's shell: nothing of the host goes in, so everybody runs the
# same bytes.
work_of() {
    case $1 in
        boot) echo 'exit 0' ;;
        syscall) cat <<LINE
i=0
while [ \$i -lt $((250 * scale)) ]; do
    echo line \$i | cat | grep -c line >/tmp/count
    mkdir /tmp/d\$i; echo x >/tmp/d\$i/f; mv /tmp/d\$i/f /tmp/d\$i/g; ls -l /tmp/d\$i >/dev/null
    /bin/true; /bin/sh -c 'exit 0'
    i=\$((i + 1))
done
find / -xdev | wc -l
rm -r /tmp/d*
LINE
            ;;
        compute) cat <<LINE
dd if=/dev/zero bs=64k count=$((100 * scale)) 2>/dev/null | sha256sum
awk 'BEGIN { for (i = 0; i < $((400000 * scale)); i++) s = (s * 31 + i) % 65521; print s }'
dd if=/bin/busybox bs=64k 2>/dev/null | gzip -9 | wc -c
LINE
            ;;
        *) die "no workload is called '$1'; there are boot, syscall and compute" ;;
    esac
}

[ -x "$ours" ] || die "$ours is not there; build it with: cargo build --release"
if [ $with_qemu = 1 ] && ! command -v "$qemu" >/dev/null; then
    die "$qemu is not there; install it with: sudo apt-get install qemu-system-x86 (or use --no-qemu)"
fi
if [ -z "$kernel" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/colinux-trace/kernels
    kernel=$(ls -d "$cache"/*-cloud-amd64/vmlinuz 2>/dev/null | sort -V | tail -n 1 || true)
fi
[ -r "$kernel" ] || die "no kernel; get one with: $ours guest fetch"

if [ -z "$directory" ]; then
    directory=$(mktemp -d)
    trap 'rm -rf "$directory"' EXIT
else
    mkdir -p "$directory"
fi
times=$directory/times.tsv
: >"$times"

# cryptomgr.notests: the self-tests of the crypto code are half of a boot and nobody's work.
append='console=ttyS0 cryptomgr.notests'

# timed WORKLOAD MODE COMMAND...: one row in times.tsv; a run that fails or takes too long says so.
timed() {
    local workload=$1 mode=$2 start end status=0
    shift 2
    start=$EPOCHREALTIME
    timeout "$limit" "$@" </dev/null >"$directory/$workload-$mode.out" 2>&1 || status=$?
    end=$EPOCHREALTIME
    # isa-debug-exit ends QEMU with 2 * status + 1.
    if [ $status = 0 ] || { [ $status = 1 ] && [[ $mode == qemu* ]]; }; then
        printf '%s\t%s\t%s\n' "$workload" "$mode" \
            "$(awk -v a="$start" -v b="$end" 'BEGIN { printf "%.3f", b - a }')" >>"$times"
    else
        echo "peers.sh: $workload under $mode failed with status $status; the end of its output:" >&2
        tail -n 5 "$directory/$workload-$mode.out" >&2
        return 1
    fi
}

# under_qemu WORKLOAD MODE [-icount VALUE]: the smallest PC that has what the guest uses.
under_qemu() {
    local workload=$1 mode=$2
    shift 2
    timed "$workload" "$mode" "$qemu" -M pc -accel tcg,thread=single -m "$memory" -smp 1 \
        -nodefaults -no-user-config -no-reboot -display none -monitor none -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
        -kernel "$kernel" -initrd "$directory/$workload.cpio" -append "$append" "$@"
}

IFS=, read -r -a selected <<<"$workloads"
for workload in "${selected[@]}"; do
    line=$(work_of "$workload")
    # A shell line has white space; the file is what `record -- LINE` would boot.
    "$ours" guest initramfs -o "$directory/$workload.cpio" -- "$line"
done

for ((round = 1; round <= rounds; round++)); do
    for workload in "${selected[@]}"; do
        echo "round $round of $rounds: $workload" >&2
        recording=$directory/$workload.clt
        if timed "$workload" record "$ours" record -q -f -o "$recording" --kernel "$kernel" \
            --initrd "$directory/$workload.cpio" --append "$append" --memory "${memory}M"; then
            timed "$workload" verify "$ours" verify -q "$recording" || true
        fi
        [ $with_qemu = 1 ] || continue
        under_qemu "$workload" qemu-plain || true
        for shift_by in $shifts; do
            log=$directory/$workload-$shift_by.rr
            under_qemu "$workload" "qemu-record-$shift_by" \
                -icount "shift=$shift_by,rr=record,rrfile=$log" || continue
            [ $with_replay = 1 ] || continue
            under_qemu "$workload" "qemu-replay-$shift_by" \
                -icount "shift=$shift_by,rr=replay,rrfile=$log" || true
        done
    done
done

bytes() {
    if [ -f "$1" ]; then stat -c %s "$1"; else echo -; fi
}

echo
echo "kernel $(basename "$(dirname "$kernel")"), $memory MB, 1 vCPU, median of $rounds; seconds, whole runs"
awk -F '\t' -v OFS='\t' '
    { key = $1 "\t" $2; n[key]++; t[key, n[key]] = $3; if (!seen[$1]++) order[++w] = $1 }
    function median(key,   i, j, x, count) {
        count = n[key]
        if (!count) return ""
        for (i = 2; i <= count; i++)
            for (j = i; j > 1 && t[key, j - 1] + 0 > t[key, j] + 0; j--) {
                x = t[key, j]; t[key, j] = t[key, j - 1]; t[key, j - 1] = x
            }
        if (count % 2) return t[key, (count + 1) / 2]
        return (t[key, count / 2] + t[key, count / 2 + 1]) / 2
    }
    function better(work, mode,   a, b) {
        a = median(work "\t" mode "-3"); b = median(work "\t" mode "-5")
        return a == "" ? b : b == "" ? a : a + 0 < b + 0 ? a : b
    }
    function show(x) { return x == "" ? "-" : sprintf("%.2f", x) }
    function ratio(peer, we) { return peer == "" || we == "" || we == 0 ? "-" : sprintf("%.2fx", peer / we) }
    END {
        row = "%-9s %9s %9s %9s %9s %9s   %10s %10s %10s\n"
        printf row, "", "record", "verify", "qemu", "rr=record", "rr=replay", "record:", "record:", "verify:"
        printf row, "workload", "ours", "ours", "plain", "better", "better", "rr=record", "plain", "rr=replay"
        for (i = 1; i <= w; i++) {
            work = order[i]
            rec = median(work "\trecord"); ver = median(work "\tverify"); plain = median(work "\tqemu-plain")
            qrec = better(work, "qemu-record"); qrep = better(work, "qemu-replay")
            printf row, work, show(rec), show(ver), show(plain), show(qrec), show(qrep), \
                ratio(qrec, rec), ratio(plain, rec), ratio(qrep, ver)
        }
    }' "$times"
echo "(a ratio above 1 means that colinux-trace is that many times faster)"
echo
printf '%-9s %14s %16s %16s\n' bytes recording "rr log, shift 3" "rr log, shift 5"
for workload in "${selected[@]}"; do
    printf '%-9s %14s %16s %16s\n' "$workload" "$(bytes "$directory/$workload.clt")" \
        "$(bytes "$directory/$workload-3.rr")" "$(bytes "$directory/$workload-5.rr")"
done
