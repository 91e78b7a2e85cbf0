# Shell work with the host's data: busybox in the guest, whatever there is on the host. $1 is a
# folder for files.
cd "$1" || exit 1
seq 1 20000 >numbers
awk '{ print ($1 * 7919) % 20011, "line", $1 }' numbers >lines
md5sum lines
sha256sum lines
sha1sum <lines
sort -n lines | md5sum
sort -k3 -n -r lines | head -n 3
gzip -c lines | gunzip | sha256sum
awk '{ n[$1 % 97] += $3 } END { for (i = 0; i < 97; i += 12) print i, n[i] }' lines
grep -c '7.*line.*3$' lines
sed -n 's/^\([0-9]*\) line \([0-9]*\)5$/\2-\1/p' lines | md5sum
tr 0-9 a-j <lines | cut -d' ' -f1 | sort | uniq -c | awk '{ print $1 }' | sort -n | tail -n 1
mkdir -p tree/a/b/c tree/d
for i in 1 2 3 4 5 6 7 8; do
    head -n $((i * 100)) lines >tree/a/$i
    ln -s ../a/$i tree/d/link$i
done
cp -r tree copy
find copy -type f | sort | xargs cat | md5sum
mv copy/a copy/e && rm copy/e/3 && ls -R copy | grep -c .
tar cf - tree | tar tf - | sort | md5sum
tar cf - -C tree a | gzip | gunzip | tar xf - -C copy && diff -r tree/a copy/a && echo same
(cat lines | while read -r a b c; do [ "$a" -lt 20 ] && echo "$a $c"; done) | sort -n | md5sum
x=0
for i in $(seq 1 30); do x=$((x + $(echo "$i" | wc -c))); done
echo "pipes $x"
dd if=lines bs=1000 skip=3 count=5 2>/dev/null | md5sum
cmp -s lines tree/a/8 || echo "cmp is $?"
false || echo "false is $?"
sleep 0.02 & wait $! && echo waited
date -u -d @1234567890 '+%Y-%m-%d %H:%M:%S'
printf '%05d %x %s\n' 42 255 end
