/* config.json and, behind a zero byte, generation_config.json. */

#include "tests/fuzz/fuzz.h"

#include "daemon/model/model_config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t          *zero = n > 0 ? memchr(data, 0, n) : NULL;
    struct cts_span         config = { data, zero != NULL ? (size_t)(zero - data) : n }, gen = { NULL, 0 };
    struct cts_model_config c;

    if (zero != NULL) gen = (struct cts_span){ zero + 1, n - config.len - 1 };
    if (cts_model_config_parse(&c, config, gen, NULL) != 0) return 0;
    PROMISE(c.n_layers > 0 && c.n_layers <= CTS_LAYERS_MAX);
    PROMISE(c.n_kv_heads > 0 && c.n_heads % c.n_kv_heads == 0 && c.head_dim % 2 == 0);
    PROMISE(c.n_stop_tokens <= CTS_STOP_TOKENS_MAX);
    return 0;
}
