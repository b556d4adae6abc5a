#!/bin/sh
# Every page of man/ passes mandoc's lint in its strictest form, and the pages
# that it refers to within this project exist.
dir=${CTS_SRCDIR:-.}/man
command -v mandoc >/dev/null || { echo 'SKIP: mandoc is not installed'; exit 77; }
bad=0
for page in "$dir"/*.[1-9]; do
    # What mandoc says of references depends on the pages that this machine has
    # installed, so those are looked at below.
    out=$(mandoc -Tlint -Wstyle "$page" 2>&1 | grep -vE 'referenced manual not found|outdated mandoc\.db')
    [ -z "$out" ] || { echo "$out"; bad=1; }
    for ref in $(sed -nE 's/^\.Xr ((lib)?cts[a-z.-]*) ([0-9]).*/\1.\3/p' "$page" | sort -u); do
        [ -e "$dir/$ref" ] || { echo "${page##*/}: refers to $ref, which does not exist"; bad=1; }
    done
done
exit $bad
