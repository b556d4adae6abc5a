#!/bin/sh
# Compression and answers of one setting held against the reference; the whole
# table is bench/answers.sh's. Sanitized builds take minutes for it and see the
# same code in the other tests.
command -v python3 >/dev/null || { echo 'SKIP: no python3 to compare with the reference'; exit 77; }
if grep -q 'fsanitize' "$CTS_BUILDDIR/config.status"; then
    echo 'SKIP: 4,096 answers take minutes in a sanitized build'
    exit 77
fi
exec python3 "$CTS_SRCDIR/tests/system/answers.py" own-start:full:32:4 shared-start:full:16:4:bf16
