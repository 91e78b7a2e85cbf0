#!/bin/bash
# What the viewer takes of a host while nobody touches it: memory and CPU in a terminal of 120x40.
#
#   benches/viewer.sh BINARY FILE.clt      a finished recording, its middle on the screen
#   benches/viewer.sh BINARY KERNEL        record --tui of a shell in that kernel, which waits
#
# How soon frames and panels are there: VIEWER_BENCH=FILE.clt cargo bench -p colinux-tui --bench viewer
set -eu
binary=$(realpath "$1") what=$(realpath "$2") seconds=${SECONDS_LONG:-20}
server=viewer-bench-$$
folder=$(mktemp -d)
trap 'tmux -L $server kill-server 2>/dev/null; rm -rf "$folder"' EXIT
case $what in
*.clt) words="tui --goto 50% $what" ;;
*) words="record --tui --kernel $what -o $folder/live.clt" ;;
esac
tmux -L $server -f /dev/null new-session -d -x 120 -y 40 \
    "env LANG=C.UTF-8 TERM=screen-256color $binary $words; exec cat"
sleep "${WARM_UP:-15}"
pane=$(tmux -L $server display-message -p '#{pane_pid}')
# The list has no newline behind it.
read -r viewer _ <"/proc/$pane/task/$pane/children" || [ -n "$viewer" ]
used() { awk '{print $14 + $15}' "/proc/$viewer/stat"; }
before=$(used)
sleep "$seconds"
after=$(used)
awk '/^Vm(HWM|RSS)/ {printf "%s %.0f MiB\n", $1, $2 / 1024}' "/proc/$viewer/status"
awk -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" -v seconds="$seconds" \
    'BEGIN {printf "CPU: %.2f %%\n", 100 * ticks / hertz / seconds}'
tmux -L $server send-keys q
sleep 1
