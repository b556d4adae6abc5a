#!/bin/sh
# One-way dependencies: which directory may include which, and the one home of
# each foreign library. Exit 1 lists what breaks the table.
cd "${srcdir:-.}" || exit 1
bad=0

layer() { # dir, then the directories it may include
    dir=$1; shift
    allow=$(printf '%s|' "$dir" "$@")
    out=$(grep -rnE '^#include "[^"]+/' --include='*.[ch]' --include='*.cu' "$dir" |
          grep -vE "#include \"(${allow%|})/")
    [ -z "$out" ] || { echo "$dir may not include:"; echo "$out"; bad=1; }
}
layer common
layer shm             common
layer proto           common
layer kernels         common
layer client          common shm proto
layer daemon/model    common kernels
layer daemon/store    common kernels
layer daemon/compress common kernels daemon/model daemon/store
layer daemon/engine   common kernels daemon/model daemon/store
layer daemon/serve    common kernels shm proto daemon/model daemon/store daemon/engine
layer daemon          common kernels shm proto

home() { # header pattern, then the only paths that may include it
    h=$1; shift
    allow=$(printf '%s|' "$@")
    out=$(grep -rlE "^#include <($h)" --include='*.[ch]' --include='*.cu' \
              common kernels shm proto client daemon tests bench |
          grep -vE "^(${allow%|})")
    [ -z "$out" ] || { echo "<$h> outside its home:"; echo "$out"; bad=1; }
}
home 'uv\.h'                daemon/loop daemon/serve/
home 'cuda|cublas|cusolver' kernels/cuda/
home 'msgpack'              proto/ tests/
home 'jansson'              common/json
home 'sqlite3'              daemon/store/catalog
home 'liburing'             daemon/store/
home 'confuse'              daemon/config
home 'lapacke|cblas'        daemon/compress/
home 'sodium|xxhash'        common/hash

# Quoted includes are rooted, so that each file's head is its dependency list.
out=$(grep -rnE '^#include "[^/"]+"' --include='*.[ch]' --include='*.cu' \
          common kernels shm proto client daemon tests bench | grep -vE '"config\.h"')
[ -z "$out" ] || { echo "includes that are not rooted:"; echo "$out"; bad=1; }
exit $bad
