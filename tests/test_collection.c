#include "daemon/store/collection.h"

#include "common/json.h"
#include "common/safetensors.h"
#include "daemon/store/collection_format.h"
#include "tests/check.h"
#include "tests/fault.h"
#include "tests/tiny_collection.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char        top[256], dir[300];
static struct tiny tiny;

static const char *in_dir(const char *name)
{
    static char path[1024];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static int setup(void **state)
{
    (void)state;
    temp_dir(top, sizeof(top));
    snprintf(dir, sizeof(dir), "%s/tiny", top);
    tiny_fill(&tiny);
    CHECK(tiny_write(dir, &tiny.n, 0, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
    return 0;
}

static int teardown(void **state)
{
    char cmd[400];

    (void)state;
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", top);
    return system(cmd);
}

static int open_it(struct cts_err *err)
{
    struct cts_collection c;
    int                   rc = cts_collection_open(&c, dir, err);

    if (rc == 0) cts_collection_close(&c);
    CHECK(c.dir == NULL && c.bases == NULL && c.adapters == NULL && c.files == NULL);
    return rc;
}

/* Opening is refused with code, with want and the folder in the message. */
static void check_refused(int code, const char *want)
{
    struct cts_err err = { 0 };
    int            rc = open_it(&err);

    CHECK_MSG(rc == code && strstr(err.text, want) != NULL, "want %d '%s', got %d '%s'\n", code, want, rc, err.text);
    CHECK_MSG(strstr(err.text, dir) != NULL && strstr(err.text, "cts-compress") != NULL,
              "'%s' does not say what to do\n", err.text);
}

/* Reading adapter name is refused with code and want. */
static void check_read_refused(const char *name, int code, const char *want)
{
    struct cts_collection c;
    struct cts_slot       s = { 0 };
    struct cts_err        err = { 0 };
    int                   rc;

    CHECK(cts_collection_open(&c, dir, &err) == 0);
    rc = cts_collection_read(&c, (uint32_t)cts_collection_find(&c, name), &s, &err);
    CHECK_MSG(rc == code && strstr(err.text, want) != NULL, "want %d '%s', got %d '%s'\n", code, want, rc, err.text);
    CHECK_MSG(strstr(err.text, name) != NULL && strstr(err.text, ".slots") != NULL, "'%s' names no object\n", err.text);
    CHECK(s.parts == NULL && s.memory == NULL);
    cts_collection_close(&c);
}

static void collection_comes_back_as_it_was_written(void **state)
{
    struct cts_collection c;

    (void)state;
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    CHECK(c.generation == 7 && c.n_layers == 1 && c.n_clusters == 2 && c.n_bases == 4 && c.n_adapters == 4 &&
          c.rank_max == 2);
    CHECK(c.error_mean == 0.25 && c.error_energy == 0.2 &&
          memcmp(c.base_digest, tiny.n.base_digest, CTS_DIGEST_BYTES) == 0);
    for (uint32_t i = 0; i < 4; i++) {
        const struct cts_basis *a = &tiny.bases[i], *b = &c.bases[i];

        CHECK(a->cluster == b->cluster && a->layer == b->layer && a->linear == b->linear && a->n_out == b->n_out);
        CHECK(a->n_in == b->n_in && a->rank_u == b->rank_u && a->rank_v == b->rank_v);
        CHECK(memcmp(a->u, b->u, a->n_out * a->rank_u * sizeof(float)) == 0);
        CHECK(memcmp(a->vt, b->vt, a->n_in * a->rank_v * sizeof(float)) == 0);
        CHECK(cts_collection_basis(&c, a->cluster, 0, a->linear) == b);
    }
    CHECK(cts_collection_basis(&c, 0, 0, 2) == NULL && cts_collection_find(&c, "e") == -1);
    for (uint32_t i = 0; i < 4; i++) {
        const struct cts_collection_entry *e = &tiny.entries[i];
        struct cts_slot                    s;

        CHECK(strcmp(c.adapters[i].name, e->name) == 0 && cts_collection_find(&c, e->name) == (int64_t)i);
        CHECK(c.adapters[i].error_mean == e->error_mean && c.adapters[i].error_energy == e->error_energy);
        CHECK(cts_collection_read(&c, i, &s, NULL) == 0);
        CHECK(s.n_parts == e->slot.n_parts && memcmp(s.digest, e->slot.digest, CTS_DIGEST_BYTES) == 0);
        for (uint32_t p = 0; p < s.n_parts; p++)
            CHECK(memcmp(s.parts[p].values, e->slot.parts[p].values,
                         cts_slot_part_values(&s.parts[p]) * sizeof(float)) == 0);
        cts_slot_free(&s);
    }
    CHECK(c.adapters[0].cluster == 0 && c.adapters[2].cluster == 1 && c.adapters[3].cluster == CTS_CLUSTER_NONE);
    cts_collection_close(&c);
}

/* The bytes of version 1 do not change by accident: this digest covers all of them. */
static void collection_digest_is_that_of_version_1(void **state)
{
    struct cts_collection c;
    char                  hex[CTS_DIGEST_HEX_BYTES];

    (void)state;
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    cts_digest_hex(c.digest, hex);
    cts_collection_close(&c);
    CHECK_MSG(strcmp(hex, "d35612f5b4a3ff0264d20ca3e741ba3f65930c28a564615894996e6d2e877ef5") == 0, "digest %s\n", hex);
}

static uint64_t size_of(const char *name)
{
    struct stat st;

    CHECK(stat(in_dir(name), &st) == 0);
    return (uint64_t)st.st_size;
}

static void collection_bytes_add_up_to_the_files(void **state)
{
    struct cts_collection_bytes b;

    (void)state;
    CHECK(tiny_write(dir, &tiny.n, 1, &b, NULL) == 0);
    CHECK(b.basis == 4 * 2 * (3 + 4 + 2 + 4 + 3 + 4 + 2 + 4));
    CHECK(b.values == 4 * 4 * 4 + 2 * (6 + 7) && b.scales == 4 * 6);
    CHECK(b.basis + b.values + b.scales + b.headers == size_of("basis.safetensors") + size_of("sigma.4k.slots"));
}

/* Change one byte of a file. */
static void flip(const char *name, long off)
{
    FILE *f = fopen(in_dir(name), "r+b");
    int   c;

    CHECK(f != NULL && fseek(f, off, SEEK_SET) == 0);
    CHECK((c = fgetc(f)) != EOF && fseek(f, off, SEEK_SET) == 0 && fputc(c ^ 0x20, f) != EOF);
    CHECK(fclose(f) == 0);
}

static void collection_refuses_every_flipped_byte_of_its_basis(void **state)
{
    long n = (long)size_of("basis.safetensors");

    (void)state;
    for (long i = 0; i < n; i += i < 16 ? 1 : 29) {
        flip("basis.safetensors", i);
        check_refused(CTS_EDIGEST, "basis.safetensors: its bytes are damaged");
        flip("basis.safetensors", i);
    }
    CHECK(open_it(NULL) == 0);
}

static void collection_refuses_truncated_and_missing_files(void **state)
{
    static const char *const names[] = { "basis.safetensors", "sigma.4k.slots", "collection.json" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct cts_err err = { 0 };
        off_t          n = (off_t)size_of(names[i]);

        CHECK(truncate(in_dir(names[i]), i == 2 ? n / 2 : n - 1) == 0);
        check_refused(CTS_EFORMAT, names[i]);
        CHECK(unlink(in_dir(names[i])) == 0);
        CHECK(open_it(&err) == -ENOENT && strstr(err.text, names[i]) != NULL);
        CHECK(tiny_write(dir, &tiny.n, 1, &(struct cts_collection_bytes){ 0 }, NULL) == (i < 2 ? 0 : -EEXIST));
    }
}

/* A longer file of slots is fine: somebody is about to append. A file that shrinks after open is an error, not a
 * crash. */
static void collection_read_reports_a_file_that_shrank(void **state)
{
    struct cts_collection c;
    struct cts_slot       s;
    struct cts_err        err = { 0 };

    (void)state;
    CHECK(truncate(in_dir("sigma.4k.slots"), 5 * 4096) == 0 && open_it(NULL) == 0);
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    CHECK(truncate(in_dir("sigma.4k.slots"), 3 * 4096 + 100) == 0);
    CHECK(cts_collection_read(&c, 2, &s, NULL) == 0);
    cts_slot_free(&s);
    CHECK(cts_collection_read(&c, 3, &s, &err) == -EIO && strstr(err.text, "'d'") != NULL);
    cts_collection_close(&c);
}

static void get_slot(uint32_t i, uint8_t slot[4096])
{
    int fd = open(in_dir("sigma.4k.slots"), O_RDONLY);

    CHECK(fd >= 0 && pread(fd, slot, 4096, (off_t)i * 4096) == 4096 && close(fd) == 0);
}

static void put_slot(uint32_t i, const uint8_t slot[4096])
{
    int fd = open(in_dir("sigma.4k.slots"), O_WRONLY);

    CHECK(fd >= 0 && pwrite(fd, slot, 4096, (off_t)i * 4096) == 4096 && close(fd) == 0);
}

static void collection_refuses_swapped_slots(void **state)
{
    uint8_t a[4096], b[4096];

    (void)state;
    get_slot(0, a);
    get_slot(1, b);
    put_slot(0, b);
    put_slot(1, a);
    check_read_refused("a", CTS_EDIGEST, "slot number: it was written as slot 1, it lies here as slot 0");
    check_read_refused("b", CTS_EDIGEST, "slot number");
}

/* Pack entry e's slot, maybe changed, as slot i, with a checksum that is right. */
static void forge_slot(uint32_t i, const struct cts_slot *s)
{
    struct cts_slot_layout l;
    uint8_t                slot[4096], sum[CTS_SLOT_CHECKSUM_BYTES];

    CHECK(cts_slot_layout(&l, s->parts, s->n_parts, NULL) == 0 && l.class_bytes == 4096);
    cts_slot_pack(slot, &l, i, s, sum);
    put_slot(i, slot);
}

static void collection_refuses_a_forged_slot(void **state)
{
    struct cts_slot s = tiny.entries[1].slot;

    (void)state;
    forge_slot(0, &s);
    check_read_refused("a", CTS_EDIGEST, "adapter digest: it is another adapter's slot");
    s = tiny.entries[0].slot;
    s.generation = 6;
    forge_slot(0, &s);
    check_read_refused("a", CTS_EDIGEST, "generation: the slot's is 6, the collection's 7");
    s.generation = 7;
    tiny.values[0][0] += 1;
    forge_slot(0, &s);
    check_read_refused("a", CTS_EDIGEST, "checksum: it is not the one that collection.json records");
}

static void edit_json(void (*edit)(json_t *j, const void *arg), const void *arg)
{
    json_t *j = NULL;

    CHECK(cts_json_load(in_dir("collection.json"), 1 << 20, &j, NULL) == 0);
    edit(j, arg);
    CHECK(cts_json_save(j, in_dir("collection.json"), NULL) == 0);
    json_decref(j);
}

/* "key", "files.0.key" or "adapters.2.key" becomes the JSON value, or goes away where that is NULL. */
struct change {
    const char *path, *value;
    int         code;
    const char *want;
};

static void change_json(json_t *j, const void *arg)
{
    const struct change *c = arg;
    const char          *dot = strrchr(c->path, '.'), *key = dot == NULL ? c->path : dot + 1;
    unsigned             i = 0;
    char                 list[16];

    if (dot != NULL) {
        CHECK(sscanf(c->path, "%15[a-z].%u", list, &i) == 2);
        j = json_array_get(json_object_get(j, list), i);
    }
    CHECK(j != NULL);
    if (c->value == NULL) CHECK(json_object_del(j, key) == 0);
    else CHECK(json_object_set_new(j, key, json_loads(c->value, JSON_DECODE_ANY, NULL)) == 0);
}

#define HEX64 "\"00000000000000000000000000000000000000000000000000000000000000ff\""

static void collection_names_the_key_of_collection_json_that_lies(void **state)
{
    static const struct change CASES[] = {
        { "format", "\"cts\"", CTS_EFORMAT, "'format'" },
        { "version", "2", CTS_EVERSION, "'version' is 2, this program reads 1" },
        { "version", NULL, CTS_EFORMAT, "'version' is missing" },
        { "digest", HEX64, CTS_EDIGEST, "'digest'" },
        { "digest", "\"12\"", CTS_EFORMAT, "'digest'" },
        { "base_digest", HEX64, CTS_EDIGEST, "'digest'" },
        { "base_digest", NULL, CTS_EFORMAT, "'base_digest' is missing" },
        { "generation", "8", CTS_EDIGEST, "'digest'" },
        { "generation", "-1", CTS_EFORMAT, "'generation'" },
        { "n_layers", "2", CTS_EDIGEST, "'digest'" },
        { "n_layers", "257", CTS_EFORMAT, "'n_layers'" },
        { "clusters", "1", CTS_EFORMAT, "'adapters' entry 2: 'cluster'" },
        { "clusters", "3", CTS_EDIGEST, "'digest'" },
        { "clusters", "\"2\"", CTS_EFORMAT, "'clusters'" },
        { "error_mean", "0.3", CTS_EDIGEST, "'digest'" },
        { "error_energy", "-1", CTS_EFORMAT, "'error_energy'" },
        { "files", "{}", CTS_EFORMAT, "'files' is not an array" },
        { "files", "[]", CTS_EFORMAT, "'adapters' entry 0: 'class'" },
        { "files", "[1]", CTS_EFORMAT, "'files' entry 0: not an object" },
        { "files", "[1,2,3,4,5,6,7,8,9,10]", CTS_EFORMAT, "'files' has 10 entries" },
        { "files.0.name", "\"../basis.safetensors\"", CTS_EFORMAT, "'files' entry 0: 'name'" },
        { "files.1.name", "\"sigma.5k.slots\"", CTS_EFORMAT, "'files' entry 1: 'name'" },
        { "files.1.name", "\"sigma.04k.slots\"", CTS_EFORMAT, "'files' entry 1: 'name'" },
        { "files.1.name", "\"basis.safetensors\"", CTS_EFORMAT, "is not after the file before it" },
        { "files.1.bytes", "4097", CTS_EFORMAT, "'bytes' of sigma.4k.slots is 4097" },
        { "files.1.bytes", "12288", CTS_EFORMAT, "'adapters' entry 3: 'slot' is 3, the file has 3 slots" },
        { "files.1.bytes", "20480", CTS_EDIGEST, "'digest'" },
        { "files.1.digest", HEX64, CTS_EDIGEST, "'digest'" },
        { "files.0.bytes", "9223372036854775807", CTS_EDIGEST, "'digest'" },
        { "adapters", "3", CTS_EFORMAT, "'adapters' is not an array" },
        { "adapters.0.name", "\"b\"", CTS_EFORMAT, "adapter 'b' is not after 'b'" },
        { "adapters.0.name", "\"a/../b\"", CTS_EFORMAT, "'adapters' entry 0: 'name'" },
        { "adapters.0.name", "\"\"", CTS_EFORMAT, "'adapters' entry 0: 'name'" },
        { "adapters.0.name", "\"A\"", CTS_EDIGEST, "'digest'" },
        { "adapters.1.digest", HEX64, CTS_EDIGEST, "'digest'" },
        { "adapters.1.cluster", "2", CTS_EFORMAT, "'adapters' entry 1: 'cluster' is 2" },
        { "adapters.1.cluster", NULL, CTS_EDIGEST, "'digest'" },
        { "adapters.1.class", "8192", CTS_EFORMAT, "'class' is 8192, 'files' has no such class" },
        { "adapters.1.slot", "4", CTS_EFORMAT, "'slot' is 4, the file has 4 slots" },
        { "adapters.1.slot", "0", CTS_EFORMAT, "adapters 'a' and 'b' have the same slot" },
        { "adapters.1.checksum", "\"00\"", CTS_EFORMAT, "'checksum'" },
        { "adapters.1.checksum", "\"00000000000000000000000000000000\"", CTS_EDIGEST, "'digest'" },
        { "adapters.1.error_mean", "0.5", CTS_EDIGEST, "'digest'" },
        { "adapters.1.error_energy", NULL, CTS_EFORMAT, "'error_energy' is missing" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        CHECK(tiny_write(dir, &tiny.n, 1, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
        edit_json(change_json, &CASES[i]);
        check_refused(CASES[i].code, CASES[i].want);
    }
}

static void set_hex(json_t *o, const char *key, const uint8_t d[CTS_DIGEST_BYTES])
{
    char hex[CTS_DIGEST_HEX_BYTES];

    cts_digest_hex(d, hex);
    CHECK(json_object_set_new(o, key, json_string(hex)) == 0);
}

/* Record another basis.safetensors as if the writer had made it. arg: the good collection. */
static void record_basis(json_t *j, const void *arg)
{
    const struct cts_collection *c = arg;
    struct cts_collection_file   f[2] = { { .name = "basis.safetensors" }, { .name = "sigma.4k.slots" } };
    uint8_t                      digest[CTS_DIGEST_BYTES];
    json_t                      *files = json_object_get(j, "files");

    for (int i = 0; i < 2; i++) {
        int fd = open(in_dir(f[i].name), O_RDONLY);

        f[i].bytes = size_of(f[i].name);
        CHECK(fd >= 0 && cts_collection_file_digest(fd, f[i].bytes, f[i].digest) == 0 && close(fd) == 0);
        CHECK(json_object_set_new(json_array_get(files, (size_t)i), "bytes",
                                  json_integer((json_int_t)f[i].bytes)) == 0);
        set_hex(json_array_get(files, (size_t)i), "digest", f[i].digest);
    }
    cts_collection_digest(c, f, 2, digest);
    set_hex(j, "digest", digest);
}

static void collection_refuses_a_basis_of_another_shape(void **state)
{
    static const float v[64] = { 0 };
    static const float bad[8] = { [3] = __builtin_inff() };
    static const struct {
        struct cts_tensor_out t[2];
        const char           *want;
    } CASES[] = {
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v }, { "x", CTS_F32, 2, { 4, 2 }, v } },
          "'x': no basis has" },
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.0.layer.0.k_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "U or V is missing" },
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.1.layer.0.q_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "its V is missing" },
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.00.layer.0.q_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "no basis has" },
        { { { "cluster.2.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.2.layer.0.q_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "2 clusters" },
        { { { "cluster.0.layer.1.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.0.layer.1.q_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "1 layers" },
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 1, { 6 }, v },
            { "cluster.0.layer.0.q_proj.V", CTS_F32, 2, { 4, 2 }, v } },
          "shape" },
        { { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
            { "cluster.0.layer.0.q_proj.V", CTS_F32, 2, { 4, 2 }, bad } },
          "not finite" },
    };
    struct cts_collection c;

    (void)state;
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        CHECK(cts_safetensors_write(in_dir("basis.safetensors"), CASES[i].t, 2, NULL) == 0);
        edit_json(record_basis, &c);
        check_refused(CTS_EFORMAT, CASES[i].want);
    }
    cts_collection_close(&c);
}

/* A sound basis that is not the one for the sigmas. */
static void collection_refuses_a_sigma_without_its_basis(void **state)
{
    static const float          v[64] = { 0 };
    const struct cts_tensor_out t[2] = { { "cluster.0.layer.0.q_proj.U", CTS_F32, 2, { 3, 2 }, v },
                                         { "cluster.0.layer.0.q_proj.V", CTS_F32, 2, { 4, 1 }, v } };
    struct cts_collection       c;

    (void)state;
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    CHECK(cts_safetensors_write(in_dir("basis.safetensors"), t, 2, NULL) == 0);
    edit_json(record_basis, &c);
    check_read_refused("a", CTS_EFORMAT, "part 0: a sigma of 2 x 2 without a basis for it");
    check_read_refused("c", CTS_EFORMAT, "without a basis for it");
    cts_collection_close(&c);
}

static void collection_open_and_read_survive_failure_of_every_allocation(void **state)
{
    struct cts_collection c;
    struct cts_slot       s;
    int                   rc, i;

    (void)state;
    for (i = 0; i < 500; i++) {
        fault_after(i);
        rc = cts_collection_open(&c, dir, NULL);
        if (rc == 0) break;
        CHECK_MSG(rc == -ENOMEM, "allocation %d: %d\n", i, rc);
    }
    fault_after(-1);
    CHECK_MSG(i > 10 && i < 500, "%d allocations\n", i);
    for (i = 0; i < 10; i++) {
        fault_after(i);
        rc = cts_collection_read(&c, 0, &s, NULL);
        if (rc == 0) break;
        CHECK(rc == -ENOMEM);
    }
    fault_after(-1);
    CHECK(i == 3); /* the slot, its parts, their values */
    cts_slot_free(&s);
    cts_collection_close(&c);
}

static void writer_leaves_nothing_when_an_allocation_fails(void **state)
{
    char other[400], hidden[400];
    int  rc, i;

    (void)state;
    snprintf(other, sizeof(other), "%s/other", top);
    snprintf(hidden, sizeof(hidden), "%s/.other.new", top);
    for (i = 0; i < 500; i++) {
        fault_after(i);
        rc = tiny_write(other, &tiny.n, 0, &(struct cts_collection_bytes){ 0 }, NULL);
        if (rc == 0) break;
        CHECK_MSG(rc == -ENOMEM, "allocation %d: %d\n", i, rc);
        CHECK(access(other, F_OK) < 0 && access(hidden, F_OK) < 0);
    }
    fault_after(-1);
    CHECK_MSG(i >= 10 && i < 500, "%d allocations\n", i);
}

static void writer_holds_the_folder_alone_until_it_is_closed(void **state)
{
    struct cts_collection_writer w, second;
    struct cts_err               err = { 0 };
    struct cts_collection_bytes  bytes;
    uint8_t                      digest[CTS_DIGEST_BYTES];
    char                         other[400];

    (void)state;
    snprintf(other, sizeof(other), "%s/other/", top); /* a slash at the end changes nothing */
    CHECK(cts_collection_writer_open(&w, other, 0, NULL) == 0);
    CHECK(cts_collection_writer_open(&second, other, 0, &err) == CTS_EBUSY &&
          strstr(err.text, "another writer") != NULL);
    CHECK(access(w.dir, F_OK) < 0); /* nothing is there before the commit */
    CHECK(cts_collection_writer_commit(&w, &tiny.n, &bytes, digest, NULL) == 0);
    CHECK(cts_collection_writer_open(&second, other, 1, NULL) == CTS_EBUSY); /* the lock moved with the folder */
    cts_collection_writer_close(&w);
    CHECK(cts_collection_writer_open(&second, other, 1, NULL) == 0);
    cts_collection_writer_close(&second);
    CHECK(cts_collection_writer_open(&second, other, 0, &err) == -EEXIST);
}

static void writer_clears_what_a_crash_left_and_nothing_else(void **state)
{
    char path[400], other[400];

    (void)state;
    snprintf(other, sizeof(other), "%s/other", top);
    snprintf(path, sizeof(path), "%s/.other.new", top);
    CHECK(mkdir(path, 0777) == 0);
    snprintf(path, sizeof(path), "%s/.other.new/sigma.8k.slots", top);
    CHECK(close(open(path, O_CREAT | O_WRONLY, 0666)) == 0);
    CHECK(tiny_write(other, &tiny.n, 0, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
    snprintf(path, sizeof(path), "%s/other/sigma.8k.slots", top);
    CHECK(access(path, F_OK) < 0);

    /* A folder that is no collection is never replaced, whatever was asked for. */
    snprintf(path, sizeof(path), "%s/mine", top);
    CHECK(mkdir(path, 0777) == 0);
    CHECK(tiny_write(path, &tiny.n, 1, &(struct cts_collection_bytes){ 0 }, NULL) == -EEXIST);
    CHECK(rmdir(path) == 0); /* and nothing was put into it */
}

static void writer_replaces_a_collection_as_a_whole(void **state)
{
    struct cts_collection c;
    char                  path[400];

    (void)state;
    tiny.n.generation = 8;
    CHECK(tiny_write(dir, &tiny.n, 1, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
    CHECK(cts_collection_open(&c, dir, NULL) == 0 && c.generation == 8);
    cts_collection_close(&c);
    snprintf(path, sizeof(path), "%s/.tiny.new", top);
    CHECK(access(path, F_OK) < 0);
}

/* Ten sizes of slots end in eight files. */
static void writer_merges_size_classes_past_the_eighth(void **state)
{
    static float                big[6 << 16];
    struct cts_slot_part        part[10];
    struct cts_collection_entry e[10];
    char                        name[10][4];
    struct cts_collection_new   n = tiny.n;
    struct cts_collection       c;
    uint64_t                    sizes[16] = { 0 };
    uint32_t                    n_sizes = 0;

    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        uint64_t class_bytes = 4096;

        for (uint32_t k = 0; k < i; k++) class_bytes = cts_slot_class(class_bytes + 1);
        snprintf(name[i], sizeof(name[i]), "n%u", i);
        part[i] = (struct cts_slot_part){
            CTS_PART_LOWRANK, 0, 0, CTS_CLUSTER_NONE, (uint32_t)(class_bytes / 4 - 200), 8, 1, CTS_F32, 1, big
        };
        e[i] = (struct cts_collection_entry){ .name = name[i], .slot = { .n_parts = 1, .parts = &part[i] } };
    }
    n.n_bases = 0;
    n.n_clusters = 0;
    n.n_adapters = 10;
    n.adapters = e;
    CHECK(tiny_write(dir, &n, 1, &(struct cts_collection_bytes){ 0 }, NULL) == 0);
    CHECK(cts_collection_open(&c, dir, NULL) == 0);
    for (uint32_t i = 0; i < 10; i++) {
        struct cts_slot s;
        uint32_t        k = 0;

        CHECK(cts_collection_read(&c, i, &s, NULL) == 0);
        cts_slot_free(&s);
        while (k < n_sizes && sizes[k] != c.adapters[i].class_bytes) k++;
        if (k == n_sizes) sizes[n_sizes++] = c.adapters[i].class_bytes;
    }
    CHECK(n_sizes == CTS_COLLECTION_CLASSES_MAX);
    cts_collection_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(collection_comes_back_as_it_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_digest_is_that_of_version_1, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_bytes_add_up_to_the_files, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_every_flipped_byte_of_its_basis, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_truncated_and_missing_files, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_read_reports_a_file_that_shrank, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_swapped_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_a_forged_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_names_the_key_of_collection_json_that_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_a_basis_of_another_shape, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_refuses_a_sigma_without_its_basis, setup, teardown),
        cmocka_unit_test_setup_teardown(collection_open_and_read_survive_failure_of_every_allocation, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_leaves_nothing_when_an_allocation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_holds_the_folder_alone_until_it_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_clears_what_a_crash_left_and_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_replaces_a_collection_as_a_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_merges_size_classes_past_the_eighth, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
