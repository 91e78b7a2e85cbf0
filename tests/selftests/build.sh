#!/usr/bin/env bash
# Builds the kernel's own x86 selftests from Debian's linux-source package.
#
#   build.sh FOLDER    the programs go to FOLDER/bin, the sources are kept in FOLDER/source
#
# 64-bit programs only, with the flags of tools/testing/selftests/x86/Makefile; the programs the
# Makefile builds for 32 bits only are taken too where they compile for 64.
set -euo pipefail
version=6.1
folder=${1:?where to build}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
source=$folder/source
tests=tools/testing/selftests

if [ ! -e "$source/.complete" ]; then
    rm -rf "$source"
    mkdir -p "$source"
    cd "$source"
    echo "downloading linux-source-$version with apt-get" >&2
    apt-get download -qq "linux-source-$version" 2>apt.log || {
        cat apt.log >&2
        echo "linux-source-$version is not to be had; 'apt-get update' may help" >&2
        exit 69
    }
    # The package is one archive in another. tar reads it to the end, or the pipe would break.
    dpkg-deb --fsys-tarfile "linux-source-${version}"_*.deb |
        tar xO "./usr/src/linux-source-$version.tar.xz" |
        tar xJ --strip-components=1 "linux-source-$version/$tests" \
            "linux-source-$version/arch/x86/include/asm/desc_defs.h"
    rm -f ./*.deb apt.log
    touch .complete
fi

rm -rf "$folder/bin"
mkdir -p "$folder/bin"
cd "$source/$tests"
# compile NAME SOURCES AND FLAGS...
compile() {
    local name=$1
    shift
    if ! gcc -m64 -g -std=gnu99 -pthread -w -no-pie -I. -o "$folder/bin/$name" "$@" -lrt -ldl -lm \
        2>"$folder/$name.log"; then
        echo "not built: $name, see $folder/$name.log" >&2
    else
        rm -f "$folder/$name.log"
    fi
}
# TARGETS_C_BOTHBITS, TARGETS_C_64BIT_ONLY and TARGETS_C_32BIT_NEEDED, then what compiles of
# TARGETS_C_32BIT_ONLY.
for name in \
    single_step_syscall syscall_nt test_mremap_vdso sigreturn iopl ioperm test_vsyscall \
    mov_ss_trap sigtrap_loop syscall_arg_fault fsgsbase_restore sigaltstack \
    fsgsbase sysret_rip syscall_numbering corrupt_xstate_header amx \
    ldt_gdt ptrace_syscall \
    test_FCMOV test_FCOMI test_FISTTP; do
    compile $name -O2 x86/$name.c
done
compile sysret_ss_attrs -O2 x86/sysret_ss_attrs.c x86/thunks.S
# It looks at its registers before any library has run.
compile check_initial_reg_state -O2 x86/check_initial_reg_state.c -Wl,-ereal_start -static
# Its own Makefile does not optimize: the accesses it waits for would be gone.
compile breakpoint_test breakpoints/breakpoint_test.c
ls "$folder/bin" | wc -l | sed 's/$/ programs built/' >&2
