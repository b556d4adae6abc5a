#ifndef CTS_TESTS_LOSSLESS_H
#define CTS_TESTS_LOSSLESS_H

/* A collection that loses nothing: two adapters share a basis that holds both of
 * their factors side by side, U = [B1 B2], V = [A1; A2], and a sigma that picks
 * one's half. So compressed rows must answer exactly as peft did. Of four adapters
 * the third has half of its rank in a sigma and half in a pair beside it, and the
 * fourth is a pair alone. Damages go into the files, as an accident would put them
 * there, with checksums that are right. */

#include "daemon/model/model_config.h"

#include <stdint.h>

struct lossless_damage {
    const char     *swap[2]; /* these two adapters' slots change places */
    const char     *zero;    /* this adapter's sigma or pair of one module is 0 */
    uint32_t        zero_layer;
    enum cts_linear zero_linear;
    const char     *drop_scale; /* this adapter's scales are 1 */
};

/* Write the collection of a folder of adapters (of the source tree) to dir, a new
 * folder. damage may be NULL. A failure fails the running test. */
void lossless_write(const char *dir, const char *adapters_folder, const struct lossless_damage *damage);

/* Remove a folder and all in it. */
void remove_tree(const char *dir);

#endif
