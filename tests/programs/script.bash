#!/bin/bash
# What Debian's bash can do by itself and with a few children.
set -u
declare -A count
text="the quick brown fox jumps over the lazy dog the end"
for word in $text; do count[$word]=$((${count[$word]:-0} + 1)); done
for word in "${!count[@]}"; do printf '%s=%d\n' "$word" "${count[$word]}"; done | sort
fib() { local n=$1; ((n < 2)) && { echo "$n"; return; }; echo $(($(fib $((n - 1))) + $(fib $((n - 2))))); }
echo "fib $(fib 9)"
a=1 b=1
for ((i = 0; i < 5000; i++)); do ((a = (a * 6364136223846793005 + 1442695040888963407), b ^= a >> 29)); done
echo "$a $b"
mapfile -t lines < <(seq 1 500 | sort -r)
echo "${#lines[@]} ${lines[0]} ${lines[499]} ${lines[*]:10:5}"
[[ "version 12.34-rc5" =~ ([0-9]+)\.([0-9]+)-rc([0-9]+) ]] && echo "${BASH_REMATCH[@]}"
echo "${text^^} ${text//the/a} ${#text} ${text:4:5} ${text%% *} ${text##* }"
coproc cat
echo "through a coprocess" >&"${COPROC[1]}"
read -r line <&"${COPROC[0]}"
echo "$line"
trap 'echo trapped USR1' USR1
kill -USR1 $$
(exit 3) || echo "status $?"
for i in {1..5}; do (sleep 0.0$i; exit "$i") & done
sum=0
for job in $(jobs -p | grep -v "^${COPROC_PID:-x}$"); do wait "$job"; ((sum += $?)); done
echo "children $sum"
printf '%q %x %08.3f %s\n' "it's" 255 3.14159 done
cat <<DOC | tr a-z A-Z
here document $((7 * 6))
DOC
