#ifndef CTS_COMMON_DTYPE_H
#define CTS_COMMON_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* Number formats of tensors in files. The values are part of the collection's
 * format: never renumber. */
enum cts_dtype { CTS_F32 = 1, CTS_F16 = 2, CTS_BF16 = 3 };

/* Bytes of one value; 0 for a dtype that is not in the list. */
size_t cts_dtype_bytes(enum cts_dtype t);
/* "F32", "F16", "BF16" as safetensors spells them; NULL when unknown. */
const char *cts_dtype_name(enum cts_dtype t);

/* Widen n values at src (any alignment, little endian) to float32. Exact. */
void cts_dtype_widen(float *dst, const void *src, size_t n, enum cts_dtype t);
/* Narrow n values to t, to nearest, ties to even; NaN stays NaN. dst any alignment. */
void cts_dtype_narrow(void *dst, const float *src, size_t n, enum cts_dtype t);

#endif
