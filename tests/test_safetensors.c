#include "common/safetensors.h"
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256], path[300];

/* A file of the header's length, the header and n_data bytes 0, 1, 2, ... */
static void put_file(const char *header, size_t n_data)
{
    FILE    *f = fopen(path, "wb");
    uint64_t n = strlen(header);

    CHECK(f != NULL);
    CHECK(fwrite(&n, 8, 1, f) == 1 || n == 0);
    CHECK(fwrite(header, 1, n, f) == n);
    for (size_t i = 0; i < n_data; i++) CHECK(fputc((int)(i & 255), f) != EOF);
    CHECK(fclose(f) == 0);
}

static void put_bytes(const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");

    CHECK(f != NULL);
    CHECK(n == 0 || fwrite(p, 1, n, f) == n);
    CHECK(fclose(f) == 0);
}

/* Opening is refused with code and with want in the message, and leaves nothing open. */
static void check_refused(int code, const char *want)
{
    struct cts_safetensors f;
    struct cts_err         err = { 0 };
    int                    rc = cts_safetensors_open(&f, path, &err);

    CHECK_MSG(rc == code && strstr(err.text, want) != NULL, "want %d '%s', got %d '%s'\n", code, want, rc,
              err.text);
    CHECK_MSG(strstr(err.text, path) != NULL, "no file name in '%s'\n", err.text);
    CHECK(f.fd == -1 && f.tensors == NULL && f.n_tensors == 0);
}

#define T(name, dtype, shape, b, e)                                                                                \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #b "," #e "]}"

static void safetensors_open_refuses_what_the_reference_refuses(void **state)
{
    static const struct {
        const char *header;
        size_t      n_data;
        int         code;
        const char *want;
    } CASES[] = {
        { "", 0, CTS_EFORMAT, "does not begin with '{'" },
        { " {}", 0, CTS_EFORMAT, "does not begin with '{'" },
        { "[]", 0, CTS_EFORMAT, "does not begin with '{'" },
        { "{\"a\"", 0, CTS_EFORMAT, "line 1" },
        { "{}x", 0, CTS_EFORMAT, "line 1" },
        { "{\"\xff\":1}", 0, CTS_EFORMAT, "unable to decode byte 0xff" },
        { "{\"a\":1}", 0, CTS_EFORMAT, "tensor 'a': its entry is not an object" },
        { "{\"__metadata__\":{\"a\":1}}", 0, CTS_EFORMAT, "'a' is not a string" },
        { "{\"__metadata__\":[]}", 0, CTS_EFORMAT, "not an object" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, CTS_EFORMAT, "'dtype' is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, CTS_EFORMAT, "'shape' is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, CTS_EFORMAT, "'data_offsets'" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"scale\":2}}", 4, CTS_EFORMAT,
          "unknown key 'scale'" },
        { "{" T("a", "F31", "[1]", 0, 4) "}", 4, CTS_EFORMAT, "no dtype 'F31'" },
        { "{" T("a", "F32", "[-1]", 0, 4) "}", 4, CTS_EFORMAT, "not a count" },
        { "{" T("a", "F32", "[1.0]", 0, 4) "}", 4, CTS_EFORMAT, "not a count" },
        { "{" T("a", "F32", "[1,1,1,1,1]", 0, 4) "}", 4, CTS_EUNSUP, "5 dimensions" },
        { "{" T("a", "F32", "[1]", 4, 0) "}", 4, CTS_EFORMAT, "begin <= end" },
        { "{" T("a", "F32", "[2]", 0, 4) "}", 4, CTS_EFORMAT, "has 4 bytes, its shape and dtype want 8" },
        { "{" T("a", "F4", "[1]", 0, 1) "}", 1, CTS_EFORMAT, "whole bytes" },
        { "{" T("a", "F32", "[4294967296,4294967296]", 0, 4) "}", 4, CTS_EFORMAT, "passes 64 bits" },
        { "{" T("a", "F32", "[4611686018427387904]", 0, 4) "}", 4, CTS_EFORMAT, "passes 64 bits" },
        { "{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, CTS_EFORMAT, "uplicate" },
        { "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12, CTS_EFORMAT, "a hole" },
        { "{" T("a", "F32", "[1]", 4, 8) "}", 8, CTS_EFORMAT, "a hole" },
        { "{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[1]", 4, 8) "}", 8, CTS_EFORMAT, "an overlap" },
        { "{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 0, 8) "}", 8, CTS_EFORMAT, "an overlap" },
        { "{" T("a", "F32", "[1]", 0, 4) "}", 5, CTS_EFORMAT, "trailing bytes" },
        { "{" T("a", "F32", "[1]", 0, 4) "}", 3, CTS_EFORMAT, "cut off" },
        { "{}", 1, CTS_EFORMAT, "trailing bytes" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        put_file(CASES[i].header, CASES[i].n_data);
        check_refused(CASES[i].code, CASES[i].want);
    }
}

static void safetensors_open_names_files_that_are_something_else(void **state)
{
    static const char LFS[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";

    (void)state;
    put_bytes("", 0);
    check_refused(CTS_EFORMAT, "is empty");
    put_bytes("\2\0\0", 3);
    check_refused(CTS_EFORMAT, "too few for a header");
    put_bytes(LFS, sizeof(LFS) - 1);
    check_refused(CTS_EFORMAT, "git lfs pull");
    put_bytes("PK\3\4aaaaaaaaaaaa", 16);
    check_refused(CTS_EUNSUP, "zip archive");
    put_bytes("\x80\2}q\1aaaaaaaaaa", 15);
    check_refused(CTS_EUNSUP, "pickle");
    put_bytes("GGUF\3\0\0\0\0\0\0\0", 12);
    check_refused(CTS_EUNSUP, "GGUF");
    put_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    check_refused(CTS_EFORMAT, "not a safetensors file?");
    put_bytes("\0\0\0\2\0\0\0\0{}", 10);
    check_refused(CTS_EFORMAT, "not a safetensors file?");
    put_bytes("\3\0\0\0\0\0\0\0{}", 10);
    check_refused(CTS_EFORMAT, "cut off");
}

static void safetensors_open_refuses_what_is_no_regular_file(void **state)
{
    (void)state;
    unlink(path);
    check_refused(-ENOENT, "open");
    CHECK(mkfifo(path, 0600) == 0);
    check_refused(CTS_EFORMAT, "not a regular file");
    CHECK(unlink(path) == 0);
}

static void safetensors_open_refuses_deep_nesting_and_long_names(void **state)
{
    char *text = malloc(1 << 20);

    (void)state;
    CHECK(text != NULL);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', 100000);
    text[100005] = '\0';
    put_file(text, 0);
    check_refused(CTS_EFORMAT, "depth");
    memcpy(text, "{\"", 2);
    memset(text + 2, 'n', 1025);
    memcpy(text + 1027, "\":{}}", 6);
    put_file(text, 0);
    check_refused(CTS_EFORMAT, "1025 bytes");
    free(text);
}

static void safetensors_reads_padded_headers_empty_tensors_and_scalars(void **state)
{
    struct cts_safetensors   f;
    struct cts_err           err = { 0 };
    const struct cts_tensor *t;
    float                    v[4];

    (void)state;
    put_file("{" T("z", "U8", "[3]", 8, 11) "," T("e", "F32", "[0,7]", 8, 8) "," T("s", "F32", "[]", 4, 8) "," T(
                 "h", "BF16", "[2,1]", 0, 4) ",\"__metadata__\":{\"format\":\"pt\"}}    ",
             11);
    CHECK_MSG(cts_safetensors_open(&f, path, &err) == 0, "%s\n", err.text);
    CHECK(f.n_tensors == 4);
    CHECK(strcmp(f.tensors[0].name, "e") == 0 && strcmp(f.tensors[3].name, "z") == 0);

    t = cts_safetensors_find(&f, "h");
    CHECK(t != NULL && t->n_dims == 2 && t->dim[0] == 2 && t->dim[1] == 1 && t->bytes == 4 && t->dtype == CTS_BF16);
    CHECK(cts_safetensors_read_f32(&f, t, v, &err) == 0);
    CHECK(memcmp(v, "\0\0\0\1\0\0\2\3", 8) == 0);
    t = cts_safetensors_find(&f, "s");
    CHECK(t != NULL && t->n_dims == 0 && t->n_values == 1);
    CHECK(cts_safetensors_read(&f, t, v, &err) == 0 && memcmp(v, "\4\5\6\7", 4) == 0);
    t = cts_safetensors_find(&f, "e");
    CHECK(t != NULL && t->n_values == 0 && cts_safetensors_read_f32(&f, t, v, &err) == 0);
    t = cts_safetensors_find(&f, "z");
    CHECK(t != NULL && t->dtype == 0 && strcmp(t->dtype_name, "U8") == 0);
    CHECK(cts_safetensors_read_f32(&f, t, v, &err) == CTS_EUNSUP && strstr(err.text, "'z' is U8") != NULL);
    CHECK(cts_safetensors_find(&f, "y") == NULL);
    cts_safetensors_close(&f);
    cts_safetensors_close(&f); /* closing twice is harmless */
}

static void safetensors_read_of_a_file_that_became_shorter_is_eio(void **state)
{
    struct cts_safetensors f;
    struct cts_err         err = { 0 };
    float                  v[2];

    (void)state;
    put_file("{" T("a", "F16", "[2]", 0, 4) "}", 4);
    CHECK(cts_safetensors_open(&f, path, &err) == 0);
    CHECK(truncate(path, 60) == 0);
    CHECK(cts_safetensors_read_f32(&f, &f.tensors[0], v, &err) == -EIO);
    CHECK(cts_safetensors_read(&f, &f.tensors[0], v, &err) == -EIO && strstr(err.text, "'a'") != NULL);
    cts_safetensors_close(&f);
}

static void safetensors_write_reads_back_aligned_and_rounded(void **state)
{
    enum { N = 20000 }; /* more than two chunks */
    static float          x[N], y[N];
    struct cts_tensor_out out[] = {
        { "second \"quoted\" \xc3\xa4", CTS_F32, 2, { 100, 200 }, x },
        { "first", CTS_BF16, 1, { N }, x },
        { "none", CTS_F16, 2, { 0, 3 }, x },
        { "half", CTS_F16, 4, { 2, 2, 100, 50 }, x },
    };
    struct cts_safetensors f;
    struct cts_err         err = { 0 };
    char                   tmp[320];

    (void)state;
    for (int i = 0; i < N; i++) x[i] = sinf((float)i);
    CHECK_MSG(cts_safetensors_write(path, out, 4, &err) == 0, "%s\n", err.text);
    snprintf(tmp, sizeof(tmp), "%s.tmp", path);
    CHECK(access(tmp, F_OK) < 0);
    CHECK_MSG(cts_safetensors_open(&f, path, &err) == 0, "%s\n", err.text);
    CHECK(f.n_tensors == 4);
    CHECK(cts_safetensors_find(&f, out[0].name)->off % 64 == 0); /* the first of the file */
    for (int k = 0; k < 4; k++) {
        const struct cts_tensor *t = cts_safetensors_find(&f, out[k].name);
        float                    step = out[k].dtype == CTS_F32 ? 0 : out[k].dtype == CTS_F16 ? 0x1p-11f : 0x1p-8f;
        CHECK(t != NULL && t->dtype == out[k].dtype && t->n_dims == out[k].n_dims);
        CHECK(memcmp(t->dim, out[k].dim, sizeof(t->dim)) == 0);
        CHECK(cts_safetensors_read_f32(&f, t, y, &err) == 0);
        for (uint64_t i = 0; i < t->n_values; i++) CHECK(fabsf(y[i] - x[i]) <= step * fabsf(x[i]) + 0x1p-25f);
    }
    cts_safetensors_close(&f);
}

static void safetensors_write_leaves_nothing_where_it_fails(void **state)
{
    struct cts_err err = { 0 };
    char           bad[320];

    (void)state;
    snprintf(bad, sizeof(bad), "%s/absent/x", dir);
    CHECK(cts_safetensors_write(bad, NULL, 0, &err) == -ENOENT);
    unlink(path);
    CHECK(mkdir(path, 0700) == 0); /* rename onto a folder fails */
    CHECK(cts_safetensors_write(path, NULL, 0, &err) < 0);
    snprintf(bad, sizeof(bad), "%s.tmp", path);
    CHECK(access(bad, F_OK) < 0);
    CHECK(rmdir(path) == 0);
}

static void safetensors_reads_the_demo_base(void **state)
{
    struct cts_safetensors   f;
    struct cts_err           err = { 0 };
    const struct cts_tensor *t;
    char                     base[512];

    (void)state;
    src_path(base, sizeof(base), "contrib/demo/base/model.safetensors");
    CHECK_MSG(cts_safetensors_open(&f, base, &err) == 0, "%s\n", err.text);
    CHECK(f.n_tensors == 4 * 9 + 2);
    t = cts_safetensors_find(&f, "model.layers.3.self_attn.k_proj.weight");
    CHECK(t != NULL && t->dtype == CTS_BF16 && t->dim[0] == 128 && t->dim[1] == 256);
    cts_safetensors_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_open_refuses_what_the_reference_refuses),
        cmocka_unit_test(safetensors_open_names_files_that_are_something_else),
        cmocka_unit_test(safetensors_open_refuses_what_is_no_regular_file),
        cmocka_unit_test(safetensors_open_refuses_deep_nesting_and_long_names),
        cmocka_unit_test(safetensors_reads_padded_headers_empty_tensors_and_scalars),
        cmocka_unit_test(safetensors_read_of_a_file_that_became_shorter_is_eio),
        cmocka_unit_test(safetensors_write_reads_back_aligned_and_rounded),
        cmocka_unit_test(safetensors_write_leaves_nothing_where_it_fails),
        cmocka_unit_test(safetensors_reads_the_demo_base),
    };
    int rc;

    temp_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/f.safetensors", dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return rc;
}
