#ifndef CTS_COMMON_HASH_H
#define CTS_COMMON_HASH_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#define CTS_DIGEST_BYTES     32
#define CTS_DIGEST_HEX_BYTES 65 /* with the terminating zero */

/* BLAKE2b-256 over a stream of fields: identity of bases and adapters. */
struct cts_blake2b {
    crypto_generichash_blake2b_state st;
};
void cts_blake2b_init(struct cts_blake2b *h);
void cts_blake2b_add(struct cts_blake2b *h, const void *p, size_t n);
/* The low n_bytes (at most 8) of v, little endian. */
void cts_blake2b_add_int(struct cts_blake2b *h, uint64_t v, size_t n_bytes);
/* A field whose end is unambiguous: its length as u64 little endian, then its bytes. */
void cts_blake2b_add_field(struct cts_blake2b *h, const void *p, size_t n);
void cts_blake2b_end(struct cts_blake2b *h, uint8_t out[CTS_DIGEST_BYTES]);

/* Lower-case hex of a digest. */
void cts_digest_hex(const uint8_t d[CTS_DIGEST_BYTES], char out[CTS_DIGEST_HEX_BYTES]);
/* 0, or -EINVAL when s is not 64 hex digits. */
int cts_digest_from_hex(const char *s, uint8_t out[CTS_DIGEST_BYTES]);

/* XXH3-128 of two spans one after the other (second may be empty), canonical
 * big-endian bytes. Guards against accidents, not against people. */
void cts_xxh128(const void *a, size_t a_bytes, const void *b, size_t b_bytes, uint8_t out[16]);

#endif
