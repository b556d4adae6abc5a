/* A safetensors header; the file's size is the header's plus what two bytes in front say. */

#include "tests/fuzz/fuzz.h"

#include "common/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cts_safetensors f = { .fd = -1 };
    uint64_t               file_bytes;

    if (n < 2) return 0;
    file_bytes = 8 + (n - 2) + (uint64_t)data[0] * 256 + data[1];
    f.path = strdup("fuzz.safetensors");
    if (f.path == NULL) return 0;
    if (cts_safetensors_parse(&f, data + 2, n - 2, file_bytes, NULL) == 0)
        for (uint32_t i = 0; i < f.n_tensors; i++) {
            const struct cts_tensor *t = &f.tensors[i];

            PROMISE(t->n_dims <= CTS_TENSOR_DIMS_MAX);
            PROMISE(t->off <= file_bytes && t->bytes <= file_bytes - t->off);
            PROMISE(cts_safetensors_find(&f, t->name) == t);
        }
    cts_safetensors_close(&f);
    return 0;
}
