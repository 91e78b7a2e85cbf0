# Runs in the guest: each program of a folder, with its output between marks.
dmesg -n 1
cd "$1" || exit 1
for name in *; do
    echo "@@ begin $name"
    timeout -s KILL 120 "./$name" </dev/null
    echo "@@ end $name $?"
done
