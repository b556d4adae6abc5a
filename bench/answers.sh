#!/bin/sh
# Errors and right answers of every setting, ours beside the reference's.
#   bench/answers.sh BUILD_DIR [--json FILE]
build=${1:?usage: answers.sh BUILD_DIR [--json FILE]}; shift
src=$(cd "$(dirname "$0")/.." && pwd)
set -- --build "$build" --source "$src" "$@"
for coll in shared-start own-start; do
    for s in 16:1 32:1 64:1 16:4 32:4 16:8 32:8; do set -- "$@" $coll:full:$s; done
    for s in 16:4:bf16 32:4:bf16; do set -- "$@" $coll:full:$s; done
    for s in 1 2 4; do set -- "$@" $coll:svd:$s; done
done
exec python3 "$src/tests/system/answers.py" "$@"
