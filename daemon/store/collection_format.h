#ifndef CTS_DAEMON_STORE_COLLECTION_FORMAT_H
#define CTS_DAEMON_STORE_COLLECTION_FORMAT_H

/* What the reader and the writer of a collection share: names of files and
 * tensors, the digest. */

#include "daemon/store/collection.h"

#include <stddef.h>

#define CTS_COLLECTION_VERSION    1
#define CTS_COLLECTION_JSON       "collection.json"
#define CTS_COLLECTION_BASIS      "basis.safetensors"
#define CTS_COLLECTION_LOCK       "lock"
#define CTS_COLLECTION_FILE_BYTES 32 /* of a file's name, with the zero */

/* One entry of "files". */
struct cts_collection_file {
    char     name[CTS_COLLECTION_FILE_BYTES];
    uint64_t bytes;
    uint8_t  digest[CTS_DIGEST_BYTES];
};

/* "sigma.4k.slots". */
void cts_collection_slots_name(uint64_t class_bytes, char out[CTS_COLLECTION_FILE_BYTES]);

/* Size class of a file of that name; 0 when it is no such name. */
uint64_t cts_collection_slots_class(const char *name);

/* "cluster.0.layer.3.q_proj.U"; uv is 'U' or 'V'. */
void cts_collection_tensor_name(const struct cts_basis *b, char uv, char out[96]);

/* The reverse: fills cluster, layer, linear of *b and *uv. 0, or -EINVAL when it is no such name. */
int cts_collection_tensor_parse(const char *name, struct cts_basis *b, char *uv);

/* -1, 0, 1 by cluster, layer, linear. */
int cts_basis_compare(const void *a, const void *b);

/* The collection's digest, as cts-collection(5) says. */
void cts_collection_digest(const struct cts_collection *c, const struct cts_collection_file *files, uint32_t n_files,
                           uint8_t out[CTS_DIGEST_BYTES]);

/* BLAKE2b-256 of the first n bytes of fd; -EIO when there are fewer, -errno. Blocks. */
int cts_collection_file_digest(int fd, uint64_t n, uint8_t out[CTS_DIGEST_BYTES]);

#endif
