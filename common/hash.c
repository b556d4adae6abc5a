#include "common/hash.h"

#include "common/assert.h"

#include <errno.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

void cts_blake2b_init(struct cts_blake2b *h)
{
    CTS_ASSERT(crypto_generichash_blake2b_init(&h->st, NULL, 0, CTS_DIGEST_BYTES) == 0);
}

void cts_blake2b_add(struct cts_blake2b *h, const void *p, size_t n)
{
    if (n > 0) CTS_ASSERT(crypto_generichash_blake2b_update(&h->st, p, n) == 0);
}

void cts_blake2b_add_int(struct cts_blake2b *h, uint64_t v, size_t n_bytes)
{
    uint8_t le[8];

    CTS_ASSERT(n_bytes <= sizeof(le));
    for (size_t i = 0; i < n_bytes; i++) le[i] = (uint8_t)(v >> (8 * i));
    cts_blake2b_add(h, le, n_bytes);
}

void cts_blake2b_add_field(struct cts_blake2b *h, const void *p, size_t n)
{
    cts_blake2b_add_int(h, n, 8);
    cts_blake2b_add(h, p, n);
}

void cts_blake2b_end(struct cts_blake2b *h, uint8_t out[CTS_DIGEST_BYTES])
{
    CTS_ASSERT(crypto_generichash_blake2b_final(&h->st, out, CTS_DIGEST_BYTES) == 0);
}

void cts_digest_hex(const uint8_t d[CTS_DIGEST_BYTES], char out[CTS_DIGEST_HEX_BYTES])
{
    CTS_ASSERT(sodium_bin2hex(out, CTS_DIGEST_HEX_BYTES, d, CTS_DIGEST_BYTES) != NULL);
}

int cts_digest_from_hex(const char *s, uint8_t out[CTS_DIGEST_BYTES])
{
    uint8_t d[CTS_DIGEST_BYTES];
    size_t  n = 0;

    if (strlen(s) != 2 * CTS_DIGEST_BYTES) return -EINVAL;
    if (sodium_hex2bin(d, sizeof(d), s, 2 * CTS_DIGEST_BYTES, NULL, &n, NULL) != 0 || n != sizeof(d)) return -EINVAL;
    memcpy(out, d, sizeof(d));
    return 0;
}

void cts_xxh128(const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[16])
{
    XXH3_state_t        st; /* 576 bytes, 64-byte aligned: on the stack, nothing allocated */
    XXH128_canonical_t  c;

    CTS_ASSERT(XXH3_128bits_reset(&st) == XXH_OK);
    if (a_bytes > 0) CTS_ASSERT(XXH3_128bits_update(&st, a, a_bytes) == XXH_OK);
    if (b_bytes > 0) CTS_ASSERT(XXH3_128bits_update(&st, b, b_bytes) == XXH_OK);
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(&st));
    memcpy(out, c.digest, 16);
}
