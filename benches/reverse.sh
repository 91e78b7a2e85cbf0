#!/usr/bin/env bash
# Going back with gdb, under QEMU's record and replay and under colinux-trace: the same kernel and initial file
# system, the same gdb and the same commands to it, in the same run.
#
#   benches/reverse.sh [-k KERNEL] [-n STEPS] [-m MEMORY_MB] [-t SECONDS]
#
# QEMU goes back from the snapshot that it takes at the beginning (rrsnapshot); its icount shift is 5.
set -euo pipefail
export LC_ALL=C
die() {
    echo "reverse.sh: $*" >&2
    exit 69
}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${COLINUX_TRACE:-$here/target/release/colinux-trace}
qemu=${QEMU:-qemu-system-x86_64}
kernel="" steps=5 memory=256 limit=300
while [ $# -gt 0 ]; do
    case $1 in
        -k) kernel=$2 ;;
        -n) steps=$2 ;;
        -m) memory=$2 ;;
        -t) limit=$2 ;;
        *) die "usage: benches/reverse.sh [-k KERNEL] [-n STEPS] [-m MEMORY_MB] [-t SECONDS]" ;;
    esac
    shift 2
done
[ -x "$ours" ] || die "$ours is not there; build it with: cargo build --release"
for program in "$qemu" qemu-img gdb; do
    command -v "$program" >/dev/null || die "$program is not there; sudo apt-get install qemu-system-x86 qemu-utils gdb"
done
if [ -z "$kernel" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/colinux-trace/kernels
    kernel=$(ls -d "$cache"/*-cloud-amd64/vmlinuz 2>/dev/null | sort -V | head -n 1 || true)
fi
[ -r "$kernel" ] || die "no kernel; get one with: $ours guest fetch"

dir=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
append='console=ttyS0 cryptomgr.notests nokaslr'
"$ours" guest initramfs -o "$dir/boot.cpio" -- 'exit 0'
address() { # of a kernel function
    "$ours" symbols --kernel "$kernel" --no-debug "$1" | grep -oE -m 1 'ffffffff[0-9a-f]{8}' | head -n 1
}
early=$(address start_kernel)
late=$(address run_init_process)

# One conversation, for both. A command that does not come back in time ends it, and says so.
cat >"$dir/journey.py" <<PYTHON
import gdb, os, statistics, threading, time

def timed(command):
    late = threading.Timer($limit, lambda: (print(f"{command}: no answer in $limit s", flush=True), os._exit(1)))
    late.start()
    began = time.monotonic()
    gdb.execute(command, to_string=True)
    late.cancel()
    return time.monotonic() - began

def pc():
    return int(gdb.parse_and_eval("(unsigned long)\$pc"))

def arrive(command, at, name):
    took = timed(command)
    print(f"{name:<44} {took:9.3f} s" + ("" if pc() == at else f"  but stopped at {pc():#x}"), flush=True)

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set suppress-cli-notifications on")
gdb.execute("set architecture i386:x86-64", to_string=True)
gdb.execute("set remotetimeout $limit")
print(f"{'attach, to the first stop':<44} {timed('target remote ' + os.environ['SERVER']):9.3f} s", flush=True)
gdb.execute("hbreak *0x$late", to_string=True)
arrive("continue", 0x$late, "continue, to the start of init")
gdb.execute("delete")
steps = [timed("reverse-stepi") for _ in range($steps)]
print(f"{'reverse-stepi, median and most of $steps':<44} {statistics.median(steps):9.4f} s {max(steps):9.4f} s", flush=True)
gdb.execute("hbreak *0x$early", to_string=True)
arrive("reverse-continue", 0x$early, "reverse-continue, to start_kernel")
gdb.execute("kill" if os.environ["WHO"] == "qemu" else "detach", to_string=True)
PYTHON

journey() { # journey WHO SERVER
    echo "== $1"
    WHO=$1 SERVER=$2 gdb -nx -q -batch -x "$dir/journey.py" 2>"$dir/$1.err" </dev/null ||
        { echo "gdb ended early:"; tail -n 5 "$dir/$1.err"; }
}

"$ours" record -q -f -o "$dir/boot.clt" --kernel "$kernel" --initrd "$dir/boot.cpio" --append "$append" \
    --memory "${memory}M" </dev/null >"$dir/record.log" 2>&1 ||
    die "recording failed: $(tail -n 3 "$dir/record.log")"
"$ours" gdb "$dir/boot.clt" --listen "$dir/ours.sock" >/dev/null 2>&1 &
server=$!
until [ -S "$dir/ours.sock" ]; do sleep 0.05; done
journey colinux-trace "$dir/ours.sock"
kill $server 2>/dev/null || true
wait $server 2>/dev/null || true
server=

qemu-img create -q -f qcow2 "$dir/rr.qcow2" 1G
machine=("$qemu" -M pc -accel 'tcg,thread=single' -m "$memory" -smp 1 -nodefaults -no-user-config -no-reboot
    -display none -monitor none -serial "file:$dir/qemu.log" -device 'isa-debug-exit,iobase=0xf4,iosize=0x04'
    -drive "file=$dir/rr.qcow2,if=none,id=rr" -kernel "$kernel" -initrd "$dir/boot.cpio" -append "$append")
rr="shift=5,rrfile=$dir/rr.log,rrsnapshot=init"
# isa-debug-exit ends QEMU with 2 * status + 1.
timeout "$limit" "${machine[@]}" -icount "$rr,rr=record" </dev/null 2>"$dir/qemu.err" || [ $? = 1 ] ||
    die "QEMU did not record: $(tail -n 3 "$dir/qemu.err")"
"${machine[@]}" -icount "$rr,rr=replay" -S -gdb "unix:$dir/qemu.sock,server=on,wait=off" </dev/null 2>"$dir/qemu.err" &
server=$!
until [ -S "$dir/qemu.sock" ] || ! kill -0 $server 2>/dev/null; do sleep 0.05; done
journey qemu "$dir/qemu.sock"
