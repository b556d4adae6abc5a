/* tokenizer.json, and a text through whatever it describes. */

#include "tests/fuzz/fuzz.h"

#include "daemon/model/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char     TEXT[] = "abc abc12 \n caf\xc3\xa9<|x|>  don't";
    struct cts_tokenizer *t;
    struct cts_encoder   *e = NULL;
    int32_t               ids[64];
    int64_t               n_ids;

    if (cts_tokenizer_parse(&t, data, n, "fuzz", NULL) != 0) return 0;
    if (cts_encoder_new(&e, t, sizeof(TEXT)) == 0) {
        n_ids = cts_encode(e, TEXT, strlen(TEXT), 1, ids, 64);
        for (int64_t i = 0; i < n_ids; i++) {
            PROMISE(ids[i] >= 0 && (uint32_t)ids[i] < cts_tokenizer_n_vocab(t));
            (void)cts_tokenizer_piece(t, ids[i]);
        }
    }
    cts_encoder_free(e);
    cts_tokenizer_close(t);
    return 0;
}
