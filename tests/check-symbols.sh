#!/bin/sh
# libcts shows the functions of cts.h and nothing else; each has its entry in
# libcts(3). It needs no library beyond libc and msgpack-c.
src=${CTS_SRCDIR:-.} build=${CTS_BUILDDIR:-.}
so=$build/.libs/libcts.so
[ -e "$so" ] || { echo "$so is not built"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/cts-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
bad=0

compare() { # file, its name, file, its name
    diff "$1" "$3" >"$work/diff" && return
    echo "$2 (<) and $4 (>) differ:"
    grep '^[<>]' "$work/diff"
    bad=1
}

nm -D --defined-only "$so" | sed 's/.* //; s/@.*//' >"$work/names"
out=$(grep -v '^cts_' "$work/names")
[ -z "$out" ] || { echo "libcts.so shows foreign names:" $out; bad=1; }
grep -v '^cts_[0-9]' "$work/names" | sort -u >"$work/so"
grep -oE '\bcts_[a-z_]+\(' "$src/client/cts.h" | tr -d '(' | sort -u >"$work/header"
sed -nE 's/^\.Nm (cts_[a-z_]+).*/\1/p' "$src/man/libcts.3" | sort -u >"$work/name"
sed -nE 's/^\.F[no] (cts_[a-z_]+).*/\1/p' "$src/man/libcts.3" | sort -u >"$work/page"
[ -s "$work/header" ] || { echo 'no function found in cts.h'; bad=1; }
compare "$work/so" libcts.so "$work/header" cts.h
compare "$work/header" cts.h "$work/name" 'NAME of libcts(3)'
compare "$work/header" cts.h "$work/page" 'libcts(3)'

if ! grep -q '^CTS_LDFLAGS = .*-fsanitize' "$build/Makefile"; then
    out=$(readelf -d "$so" | sed -nE 's/.*NEEDED.*\[(.*)\]/\1/p' | grep -vE '^(libc\.so|libmsgpack|ld-linux)')
    [ -z "$out" ] || { echo "libcts.so needs" $out; bad=1; }
fi
exit $bad
