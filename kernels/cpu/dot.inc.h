/* Sums of products. The order of each is: lane l takes the elements l, l + L,
 * l + 2L, ... (L lanes) one after the other, then vf_hsum adds the lanes. One
 * accumulator per sum, however many sums a register tile holds and however
 * often it is put down and taken up again, so every tile gives the same bits. */

#define INLINE static inline __attribute__((always_inline))

static int at_most(int64_t n, int max)
{
    return n < max ? (int)n : max;
}

/* acc[r * n_w + o] += the products of elements begin .. end-1 of x[r] and w[o];
 * begin is a multiple of VF_LANES, end one too or the last of all. n_x and n_w
 * are constants where this is inlined. */
INLINE void dot_tile(vf *acc, const float *const *x, const float *const *w, const int n_x, const int n_w,
                     int64_t begin, int64_t end)
{
    int64_t whole = end - (end - begin) % VF_LANES;
    int     rest = (int)(end - whole);
    vf      xs[8];

    for (int64_t i = begin; i < whole; i += VF_LANES) {
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
    for (int r = 0; r < n_x; r++) xs[r] = vf_load_n(x[r] + whole, rest);
#pragma GCC unroll 8
    for (int o = 0; o < n_w; o++) {
        vf ws = vf_load_n(w[o] + whole, rest);

#pragma GCC unroll 8
        for (int r = 0; r < n_x; r++) acc[r * n_w + o] = vf_fma(xs[r], ws, acc[r * n_w + o]);
    }
}

/* sums[4 * r + o] of the accumulators of n_x by 4. */
INLINE void sum_tile(float *sums, const vf *acc, const int n_x)
{
    int r = 0;

    if (n_x >= 4) {
        vf_hsum16(sums, acc);
        r = 4;
    }
#pragma GCC unroll 8
    for (; r < n_x; r++) vf_hsum4(sums + r * 4, acc[r * 4], acc[r * 4 + 1], acc[r * 4 + 2], acc[r * 4 + 3]);
}

INLINE void dot_sums(float *sums, const float *const *x, const float *const *w, const int n_x, int64_t n)
{
    vf acc[VF_MM_ROWS * 4];

#pragma GCC unroll 32
    for (int i = 0; i < n_x * 4; i++) acc[i] = vf_zero();
    dot_tile(acc, x, w, n_x, 4, 0, n);
    sum_tile(sums, acc, n_x);
}

/* Run code(n) with n as a constant, 1 <= n <= VF_MM_ROWS. */
#if VF_MM_ROWS == 2
#define WITH_ROWS(n, code) \
    switch (n) {           \
    case 1: code(1);       \
    case 2: code(2);       \
    }
#elif VF_MM_ROWS == 3
#define WITH_ROWS(n, code) \
    switch (n) {           \
    case 1: code(1);       \
    case 2: code(2);       \
    case 3: code(3);       \
    }
#elif VF_MM_ROWS == 6
#define WITH_ROWS(n, code) \
    switch (n) {           \
    case 1: code(1);       \
    case 2: code(2);       \
    case 3: code(3);       \
    case 4: code(4);       \
    case 5: code(5);       \
    case 6: code(6);       \
    }
#endif

/* sums[4 * r + o] = x[r] . w[o] over n elements, 1 <= n_x <= VF_MM_ROWS. */
static void dot_rows(float *sums, const float *const *x, const float *const *w, int n_x, int64_t n)
{
#define CODE(rows) dot_sums(sums, x, w, rows, n); break
    WITH_ROWS(n_x, CODE)
#undef CODE
}

/* The first n rows of a matrix from w on, then the last of them up to n_rows. */
static void name_rows(const float **rows, const float *w, int n, int n_rows, int64_t ld)
{
    for (int i = 0; i < n_rows; i++) rows[i] = w + (i < n ? i : n - 1) * ld;
}

/* sums[0..7] = x . w[0..7]: eight chains, since one of x by 4 of w wait for each other. */
static void dot_8(float *sums, const float *x, const float *const *w, int64_t n)
{
    vf acc[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) acc[i] = vf_zero();
    dot_tile(acc, &x, w, 1, 8, 0, n);
    vf_hsum4(sums, acc[0], acc[1], acc[2], acc[3]);
    vf_hsum4(sums + 4, acc[4], acc[5], acc[6], acc[7]);
}

/* out[o] = m[o,:] . x for n_out rows of n elements. */
static void dot_matrix(float *out, const float *m, const float *x, int64_t n_out, int64_t n)
{
    for (int64_t o = 0; o < n_out; o += 8) {
        int          n_rows = at_most(n_out - o, 8);
        const float *rows[8];
        float        sums[8];

        name_rows(rows, m + o * n, n_rows, 8, n);
        if (n_rows > 4) dot_8(sums, x, rows, n);
        else dot_rows(sums, &x, rows, 1, n);
        memcpy(out + o, sums, (size_t)n_rows * sizeof(float));
    }
}
