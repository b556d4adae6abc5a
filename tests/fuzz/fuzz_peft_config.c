/* adapter_config.json, and the scale of a module by it. */

#include "tests/fuzz/fuzz.h"

#include "daemon/model/peft_config.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cts_peft_config c = { 0 };
    uint32_t               rank;
    float                  scale;

    if (cts_peft_config_parse(&c, data, n, "fuzz", NULL) != 0) return 0;
    cts_peft_config_module(&c, "model.layers.0.self_attn.q_proj", &rank, &scale);
    PROMISE(rank > 0 && rank <= CTS_LORA_RANK_MAX);
    PROMISE(isfinite(scale));
    cts_peft_config_free(&c);
    return 0;
}
