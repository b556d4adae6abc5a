#!/bin/sh
# Take the program out of libcts(3), install the library into a directory of its
# own, compile the one against the other by pkg-config, and run it with our
# arguments.
src=${CTS_SRCDIR:-.} build=${CTS_BUILDDIR:-.}
work=$(mktemp -d "${TMPDIR:-/tmp}/cts-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

sed -n '/^\.Sh EXAMPLES/,/^\.Sh ERRORS/p' "$src/man/libcts.3" | sed -n '/^\.Bd/,/^\.Ed/p' | sed '1d;$d;s/\\e/\\/g' >"$work/example.c"
env -u MAKEFLAGS -u MAKELEVEL make -s -C "$build" install-libLTLIBRARIES install-includeHEADERS install-pkgconfigDATA \
    DESTDIR="$work/root" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

# What the build was configured with: its compiler and, for ASan, its flags.
value() { sed -n "s/^$1 = //p" "$build/Makefile"; }
libdir=$(value libdir | sed "s|\${exec_prefix}|$(value exec_prefix)|; s|\${prefix}|$(value prefix)|g")
export PKG_CONFIG_LIBDIR="$work/root$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/root"
$(value CC) -std=c11 -Wall -Wextra -Werror $(value CTS_LDFLAGS) -o "$work/example" "$work/example.c" \
    $(pkg-config --cflags --libs cts) || exit 1
LD_LIBRARY_PATH="$work/root$libdir" "$work/example" "$@"
