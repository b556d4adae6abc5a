/* Sums of products. The order of each is: lane l takes the elements l, l + L,
 * l + 2L, ... (L lanes) one after the other, then vf_hsum adds the lanes. One
 * accumulator per sum, however many sums a register tile holds, so every tile
 * gives the same bits. */

#define INLINE static inline __attribute__((always_inline))

/* acc[r * n_w + o] = the lanes of x[r] . w[o], for a tile of n_x by n_w, both
 * constants where this is inlined. */
INLINE void dot_tile(vf *acc, const float *const *x, const float *const *w, const int n_x, const int n_w,
                     int64_t n_in)
{
    int64_t whole = n_in - n_in % VF_LANES;
    int     rest = (int)(n_in - whole);

    for (int i = 0; i < n_x * n_w; i++) acc[i] = vf_zero();
    for (int64_t i = 0; i < whole; i += VF_LANES) {
        vf xs[8];

#pragma GCC unroll 8
        for (int r = 0; r < n_x; r++) xs[r] = vf_load(x[r] + i);
#pragma GCC unroll 8
        for (int o = 0; o < n_w; o++) {
            vf ws = vf_load(w[o] + i);

#pragma GCC unroll 8
            for (int r = 0; r < n_x; r++) acc[r * n_w + o] = vf_fma(xs[r], ws, acc[r * n_w + o]);
        }
    }
    if (rest == 0) return;
#pragma GCC unroll 8
    for (int o = 0; o < n_w; o++) {
        vf ws = vf_load_n(w[o] + whole, rest);

#pragma GCC unroll 8
        for (int r = 0; r < n_x; r++)
            acc[r * n_w + o] = vf_fma(vf_load_n(x[r] + whole, rest), ws, acc[r * n_w + o]);
    }
}

/* out[0..3] = x . w[0..3] */
static void dot_4(float *out, const float *x, const float *const *w, int64_t n_in)
{
    vf acc[4];

    dot_tile(acc, &x, w, 1, 4, n_in);
    vf_hsum4(out, acc[0], acc[1], acc[2], acc[3]);
}
