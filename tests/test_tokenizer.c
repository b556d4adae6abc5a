#include "daemon/model/tokenizer.h"
#include "common/json.h"
#include "common/utf8.h"
#include "daemon/model/pretok.h"
#include "tests/check.h"

#include <errno.h>
#include <string.h>

#define TEXT_MAX ((size_t)1 << 18)

static json_t  *demo;     /* contrib/demo/base/tokenizer.json */
static int32_t *ids;      /* [TEXT_MAX] */
static char    *text_buf; /* [TEXT_MAX + 1] */

static int parse_doc(struct cts_tokenizer **t, const json_t *doc, struct cts_err *err)
{
    char *text = json_dumps(doc, JSON_COMPACT);
    int   rc;

    CHECK(text != NULL);
    rc = cts_tokenizer_parse(t, text, strlen(text), "tokenizer.json", err);
    free(text);
    return rc;
}

static void open_doc(const json_t *doc, struct cts_tokenizer **t, struct cts_encoder **e, size_t text_bytes_max)
{
    struct cts_err err = { 0 };
    int            rc = parse_doc(t, doc, &err);

    CHECK_MSG(rc == 0, "%s\n", err.text);
    CHECK(cts_encoder_new(e, *t, text_bytes_max) == 0);
}

static void close_both(struct cts_tokenizer *t, struct cts_encoder *e)
{
    cts_encoder_free(e);
    cts_tokenizer_close(t);
}

/* Set the value at a path of keys and indices ("pre_tokenizer/pretokenizers/0/x"); NULL removes the key. */
static void set_at(json_t *doc, const char *where, json_t *v)
{
    char    path[256], *key = path, *slash;
    json_t *at = doc;

    snprintf(path, sizeof(path), "%s", where);
    while ((slash = strchr(key, '/')) != NULL) {
        *slash = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
        CHECK(at != NULL);
        key = slash + 1;
    }
    if (v == NULL) CHECK(json_object_del(at, key) == 0);
    else if (json_is_array(at) && strcmp(key, "+") == 0) CHECK(json_array_append_new(at, v) == 0);
    else if (json_is_array(at)) CHECK(json_array_set_new(at, strtoul(key, NULL, 10), v) == 0);
    else CHECK(json_object_set_new(at, key, v) == 0);
}

/* ---- against Hugging Face's tokenizers ---- */

static const char BYTE_LEVEL[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                                 "\"use_regex\":true}";

/* The same changes as VARIANTS of tests/golden/make_tokenizer.py. */
static json_t *variant(const char *name)
{
    json_t *doc = json_deep_copy(demo), *v;
    size_t  i;

    if (strcmp(name, "regex") == 0) set_at(doc, "pre_tokenizer", json_loads(BYTE_LEVEL, 0, NULL));
    if (strcmp(name, "runs") == 0) set_at(doc, "pre_tokenizer/pretokenizers/0/individual_digits", json_false());
    if (strcmp(name, "whole") == 0) {
        set_at(doc, "pre_tokenizer", json_loads(BYTE_LEVEL, 0, NULL));
        set_at(doc, "pre_tokenizer/use_regex", json_false());
    }
    if (strcmp(name, "ignore") == 0) set_at(doc, "model/ignore_merges", json_true());
    if (strcmp(name, "legacy") == 0) {
        json_t *merges = json_object_get(json_object_get(doc, "model"), "merges");
        json_array_foreach(merges, i, v)
        {
            char line[256];
            snprintf(line, sizeof(line), "%s %s", json_string_value(json_array_get(v, 0)),
                     json_string_value(json_array_get(v, 1)));
            CHECK(json_array_set_new(merges, i, json_string(line)) == 0);
        }
    }
    return doc;
}

static void check_ids(struct cts_encoder *e, const char *text, size_t n, int parse_special, const json_t *want)
{
    int64_t n_ids = cts_encode(e, text, n, parse_special, ids, TEXT_MAX);

    CHECK_MSG(n_ids == (int64_t)json_array_size(want), "'%s': %lld ids, wanted %zu\n", text, (long long)n_ids,
              json_array_size(want));
    for (int64_t i = 0; i < n_ids; i++)
        CHECK_MSG(ids[i] == json_integer_value(json_array_get(want, (size_t)i)), "'%s': id %lld is %d\n", text,
                  (long long)i, ids[i]);
}

static void tokenizer_ids_equal_the_reference(void **state)
{
    char                  path[512], *line = NULL, open_name[32] = "";
    size_t                cap = 0, n_rows = 0;
    struct cts_tokenizer *t = NULL;
    struct cts_encoder   *e = NULL;
    FILE                 *f = fopen(src_path(path, sizeof(path), "tests/golden/tokenizer.jsonl"), "r");

    (void)state;
    CHECK(f != NULL);
    CHECK(getline(&line, &cap, f) > 0); /* what made the file */
    while (getline(&line, &cap, f) > 0) {
        json_t       *row = json_loads(line, 0, NULL);
        const json_t *text = json_object_get(row, "text"), *parsed = json_object_get(row, "parsed");
        const char   *name = json_string_value(json_object_get(row, "variant"));

        CHECK(row != NULL && name != NULL && text != NULL);
        if (strcmp(name, open_name) != 0) {
            json_t *doc = variant(name);
            close_both(t, e);
            open_doc(doc, &t, &e, TEXT_MAX);
            json_decref(doc);
            snprintf(open_name, sizeof(open_name), "%s", name);
        }
        check_ids(e, json_string_value(text), json_string_length(text), 0, json_object_get(row, "plain"));
        check_ids(e, json_string_value(text), json_string_length(text), 1,
                  parsed != NULL ? parsed : json_object_get(row, "plain"));
        n_rows++;
        json_decref(row);
    }
    CHECK(n_rows > 1000);
    close_both(t, e);
    free(line);
    fclose(f);
}

/* ---- properties ---- */

static struct cts_tokenizer *t;
static struct cts_encoder   *e;

/* Appends the pieces of n_ids ids to text_buf; returns their bytes. */
static size_t decode(int64_t n_ids)
{
    size_t n = 0;

    for (int64_t i = 0; i < n_ids; i++) {
        struct cts_span p = cts_tokenizer_piece(t, ids[i]);
        CHECK(n + p.len <= TEXT_MAX);
        memcpy(text_buf + n, p.ptr, p.len);
        n += p.len;
    }
    return n;
}

static uint64_t next_random(uint64_t *x)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return *x >> 33;
}

static void tokenizer_random_texts_decode_back_to_themselves(void **state)
{
    uint64_t seed = 11;
    uint8_t  text[400];

    (void)state;
    for (int round = 0; round < 2000; round++) {
        size_t n = 0, n_chars = next_random(&seed) % 90;
        for (size_t i = 0; i < n_chars; i++) {
            static const uint32_t LIMIT[] = { 0x80, 0x80, 0x80, 0x250, 0x3000, 0xd800, 0x20000, 0x110000 };
            uint32_t              cp = (uint32_t)(next_random(&seed) % LIMIT[next_random(&seed) % 8]);
            if (cp >= 0xd800 && cp < 0xe000) cp = ' ';
            n += cts_utf8_put(cp, text + n);
        }
        int64_t n_ids = cts_encode(e, (char *)text, n, 0, ids, TEXT_MAX);
        CHECK(n_ids >= 0 && n_ids <= (int64_t)n);
        CHECK(decode(n_ids) == n && memcmp(text_buf, text, n) == 0);
        for (int64_t i = 0; i < n_ids; i++) CHECK(!cts_tokenizer_is_special(t, ids[i]));
    }
}

static void tokenizer_takes_control_tokens_from_raw_prompts_only(void **state)
{
    static const char TEXT[] = "<|im_start|>user\nstop<|im_end|>";
    int64_t           n;

    (void)state;
    n = cts_encode(e, TEXT, sizeof(TEXT) - 1, 1, ids, TEXT_MAX);
    CHECK(n >= 4 && ids[0] == cts_tokenizer_id(t, "<|im_start|>") &&
          ids[n - 1] == cts_tokenizer_id(t, "<|im_end|>"));
    CHECK(cts_tokenizer_is_special(t, ids[0]) && cts_tokenizer_piece(t, ids[0]).len == 0);
    n = cts_encode(e, TEXT, sizeof(TEXT) - 1, 0, ids, TEXT_MAX);
    for (int64_t i = 0; i < n; i++) CHECK(!cts_tokenizer_is_special(t, ids[i]));
    CHECK(decode(n) == sizeof(TEXT) - 1 && memcmp(text_buf, TEXT, sizeof(TEXT) - 1) == 0);
}

static void tokenizer_refuses_what_is_not_utf8(void **state)
{
    static const struct {
        const char *text;
        size_t      n;
    } BAD[] = { { "\xff", 1 },
                { "ab\x80", 3 },
                { "\xc3", 1 },
                { "\xc0\x80", 2 },
                { "\xed\xa0\x80", 3 },
                { "\xf4\x90\x80\x80", 4 },
                { "<|im_end|>\xe2\x82", 12 } };

    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        for (int special = 0; special < 2; special++)
            CHECK(cts_encode(e, BAD[i].text, BAD[i].n, special, ids, TEXT_MAX) == -EILSEQ);
}

static void tokenizer_says_when_text_or_ids_do_not_fit(void **state)
{
    static const char   TEXT[] = "one two<|im_end|>three";
    struct cts_encoder *small = NULL;
    int64_t             n = cts_encode(e, TEXT, sizeof(TEXT) - 1, 1, ids, TEXT_MAX);

    (void)state;
    CHECK(n > 3);
    for (int64_t cap = 0; cap < n; cap++) {
        ids[cap] = -77;
        CHECK(cts_encode(e, TEXT, sizeof(TEXT) - 1, 1, ids, (size_t)cap) == -EMSGSIZE);
        CHECK(ids[cap] == -77);
    }
    CHECK(cts_encode(e, TEXT, sizeof(TEXT) - 1, 1, ids, (size_t)n) == n);
    CHECK(cts_encoder_new(&small, t, 4) == 0);
    CHECK(cts_encode(small, "abcd", 4, 0, ids, TEXT_MAX) > 0);
    CHECK(cts_encode(small, "abcde", 5, 0, ids, TEXT_MAX) == -EMSGSIZE);
    CHECK(cts_encode(small, "", 0, 0, NULL, 0) == 0);
    cts_encoder_free(small);
    CHECK(cts_encoder_new(&small, t, SIZE_MAX) == -EINVAL);
    cts_encoder_free(NULL);
    cts_tokenizer_close(NULL);
}

/* A word of 256 KiB takes n log n steps; with n squared it would take half an hour.
 * The vocabulary gets merges that double the letter, so that nearly every byte merges. */
static void tokenizer_encodes_one_word_as_long_as_a_text_may_be(void **state)
{
    struct cts_tokenizer *t2;
    struct cts_encoder   *e2;
    json_t               *doc = json_deep_copy(demo);
    char                  half[65] = "a", where[100];

    (void)state;
    for (int id = 3000; id < 3006; id++) {
        set_at(doc, "model/merges/+", json_pack("[ss]", half, half));
        memset(half, 'a', 2 * strlen(half)); /* the array is zeroed: still terminated */
        snprintf(where, sizeof(where), "model/vocab/%s", half);
        set_at(doc, where, json_integer(id));
    }
    open_doc(doc, &t2, &e2, TEXT_MAX);
    json_decref(doc);
    memset(text_buf, 'a', TEXT_MAX);
    CHECK(cts_encode(e2, text_buf, TEXT_MAX, 0, ids, TEXT_MAX) == TEXT_MAX / 64 && ids[77] == 3005);
    CHECK(cts_encode(e2, text_buf, TEXT_MAX - 1, 0, ids, TEXT_MAX) ==
          TEXT_MAX / 64 + 5); /* 63 = 32 + 16 + .. + 1 */
    for (size_t i = 0; i < TEXT_MAX; i++) text_buf[i] = "\n <"[i % 3];
    CHECK(cts_encode(e2, text_buf, TEXT_MAX, 1, ids, TEXT_MAX) > 0);
    memset(text_buf, ' ', TEXT_MAX);
    CHECK(cts_encode(e2, text_buf, TEXT_MAX, 1, ids, TEXT_MAX) > 0);
    close_both(t2, e2);
}

static void tokenizer_answers_for_any_id_and_name(void **state)
{
    (void)state;
    CHECK(cts_tokenizer_n_vocab(t) == 2048);
    CHECK(cts_tokenizer_id(t, "<|im_end|>") == 2 && cts_tokenizer_id(t, "!") == 3);
    CHECK(cts_tokenizer_id(t, "") == -1 && cts_tokenizer_id(t, "<|im_end|") == -1 &&
          cts_tokenizer_id(t, " ") == -1);
    CHECK(cts_tokenizer_id(t, "\xc4\xa0") >= 0); /* U+0120 stands for a space */
    CHECK(cts_tokenizer_piece(t, cts_tokenizer_id(t, "\xc4\xa0")).ptr[0] == ' ');
    CHECK(cts_tokenizer_piece(t, -1).len == 0 && cts_tokenizer_piece(t, INT32_MIN).len == 0);
    CHECK(cts_tokenizer_piece(t, 2048).len == 0 && cts_tokenizer_piece(t, INT32_MAX).len == 0);
    CHECK(!cts_tokenizer_is_special(t, -1) && !cts_tokenizer_is_special(t, 2048) &&
          !cts_tokenizer_is_special(t, 3));
}

/* ---- added tokens ---- */

static json_t *added(int id, const char *content, int is_special)
{
    return json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", id, "content", content, "single_word", 0, "lstrip", 0,
                     "rstrip", 0, "normalized", 0, "special", is_special);
}

static void tokenizer_matches_added_tokens_leftmost_and_longest(void **state)
{
    struct cts_tokenizer *t2;
    struct cts_encoder   *e2;
    json_t               *doc = json_deep_copy(demo);
    static const struct {
        const char *text;
        int         n;
        int32_t     ids[4];
    } CASES[] = {
        { "<t>", 1, { 3000 } },
        { "<t><t>x", 1, { 3001 } }, /* the longer one */
        { "<t><t>", 2, { 3000, 3000 } },
        { "<t><t><t>x", 2, { 3000, 3001 } }, /* leftmost first, then longest */
        { "\xc3\xa9\xc3\xa9", 1, { 3002 } },
        { "a b", 1, { 3003 } },
    };

    (void)state;
    set_at(doc, "added_tokens/+", added(3000, "<t>", 0));
    set_at(doc, "added_tokens/+", added(3001, "<t><t>x", 1));
    set_at(doc, "added_tokens/+", added(3002, "\xc3\xa9\xc3\xa9", 0));
    set_at(doc, "added_tokens/+", added(3003, "a b", 0));
    open_doc(doc, &t2, &e2, 100);
    json_decref(doc);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        CHECK(cts_encode(e2, CASES[i].text, strlen(CASES[i].text), 1, ids, 10) == CASES[i].n);
        CHECK(memcmp(ids, CASES[i].ids, (size_t)CASES[i].n * sizeof(int32_t)) == 0);
        CHECK(cts_encode(e2, CASES[i].text, strlen(CASES[i].text), 0, ids, 100) > 0 && ids[0] < 2048);
    }
    CHECK(cts_tokenizer_n_vocab(t2) == 3004);
    CHECK(cts_tokenizer_id(t2, "<t>") == 3000 && cts_tokenizer_id(t2, "a b") == 3003);
    CHECK(cts_tokenizer_piece(t2, 3000).len == 3 && cts_tokenizer_piece(t2, 3001).len == 0);
    CHECK(cts_tokenizer_piece(t2, 3003).len == 3 && memcmp(cts_tokenizer_piece(t2, 3003).ptr, "a b", 3) == 0);
    CHECK(cts_tokenizer_piece(t2, 2500).len == 0); /* a hole */
    close_both(t2, e2);
}

/* ---- refusals ---- */

static void tokenizer_refuses_by_key_what_would_change_a_token(void **state)
{
    static const struct {
        const char *where, *value; /* value NULL: the key is removed */
        int         code;
        const char *want;
    } CASES[] = {
        { "version", "\"2.0\"", CTS_EUNSUP, "'version' is '2.0'" },
        { "truncation", "{\"max_length\":8}", CTS_EUNSUP, "'truncation'" },
        { "padding", "{\"pad_id\":0}", CTS_EUNSUP, "'padding'" },
        { "normalizer", "{\"type\":\"NFC\"}", CTS_EUNSUP, "'normalizer'" },
        { "surprise", "1", CTS_EUNSUP, "'surprise'" },
        { "post_processor", "{\"type\":\"TemplateProcessing\"}", CTS_EUNSUP,
          "'post_processor' is 'TemplateProcessing'" },
        { "decoder", "{\"type\":\"Metaspace\"}", CTS_EUNSUP, "'decoder' is 'Metaspace'" },
        { "decoder", "null", CTS_EUNSUP, "'decoder' is null" },
        { "pre_tokenizer", "null", CTS_EUNSUP, "pre-tokenizer '(none)'" },
        { "pre_tokenizer", "{\"type\":\"Split\"}", CTS_EUNSUP, "pre-tokenizer 'Split'" },
        { "pre_tokenizer", "{\"type\":\"ByteLevel\"}", CTS_EUNSUP, "'add_prefix_space'" }, /* true where absent */
        { "pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", CTS_EFORMAT, "'pretokenizers'" },
        { "pre_tokenizer/pretokenizers/0/type", "\"ByteLevel\"", CTS_EUNSUP, "before another" },
        { "pre_tokenizer/pretokenizers/1/type", "\"Digits\"", CTS_EUNSUP, "as the last" },
        { "pre_tokenizer/pretokenizers/0/type", "\"Sequence\"", CTS_EUNSUP, "'Sequence'" },
        { "pre_tokenizer/pretokenizers/0/flavour", "1", CTS_EUNSUP, "'flavour'" },
        { "pre_tokenizer/pretokenizers/1/flavour", "1", CTS_EUNSUP, "'flavour'" },
        { "pre_tokenizer/pretokenizers/0/individual_digits", "1", CTS_EFORMAT, "'individual_digits'" },
        { "pre_tokenizer/pretokenizers/1/add_prefix_space", "true", CTS_EUNSUP, "'add_prefix_space'" },
        { "model/type", "\"Unigram\"", CTS_EUNSUP, "'Unigram'" },
        { "model", "null", CTS_EUNSUP, "only BPE" },
        { "model/dropout", "0.1", CTS_EUNSUP, "'dropout'" },
        { "model/continuing_subword_prefix", "\"##\"", CTS_EUNSUP, "'continuing_subword_prefix'" },
        { "model/end_of_word_suffix", "\"</w>\"", CTS_EUNSUP, "'end_of_word_suffix'" },
        { "model/surprise", "1", CTS_EUNSUP, "'surprise'" },
        { "model/ignore_merges", "3", CTS_EFORMAT, "'ignore_merges'" },
        { "model/vocab", "[]", CTS_EFORMAT, "'vocab'" },
        { "model/vocab/!", NULL, CTS_EUNSUP, "byte 0x21 has no token" },
        { "model/vocab/!", "-1", CTS_EFORMAT, "id of the token '!'" },
        { "model/vocab/!", "2097152", CTS_EFORMAT, "id of the token '!'" },
        { "model/vocab/!", "\"3\"", CTS_EFORMAT, "id of the token '!'" },
        { "model/vocab/!", "4", CTS_EFORMAT, "two tokens have the id 4" },
        { "model/vocab/", "3000", CTS_EFORMAT, "a token has 0 bytes" },
        { "model/vocab/<|im_end|>", "3000", CTS_EFORMAT, "'<|im_end|>' has the id 2" },
        { "model/vocab/<|im_end|>", NULL, 0, NULL },
        { "model/merges", "null", CTS_EFORMAT, "'merges'" },
        { "model/merges/0", "\"ab\"", CTS_EFORMAT, "merge 0 is neither" },
        { "model/merges/0", "\"a b c\"", CTS_EFORMAT, "merge 0 is neither" },
        { "model/merges/1", "[\"a\"]", CTS_EFORMAT, "merge 1 is neither" },
        { "model/merges/1", "[\"a\",1]", CTS_EFORMAT, "merge 1 is neither" },
        { "model/merges/1", "7", CTS_EFORMAT, "merge 1 is neither" },
        { "model/merges/1", "[\"\\u4e00\",\"a\"]", CTS_EFORMAT,
          "merge 1: '\xe4\xb8\x80' is not in the vocabulary" },
        { "model/merges/1", "[\"a\",\"Z\"]", CTS_EFORMAT, "merge 1: 'aZ' is not in the vocabulary" },
        { "model/unk_token", "\"<|endoftext|>\"", 0, NULL }, /* there are no unknown bytes */
        { "model/byte_fallback", "true", 0, NULL },
        { "post_processor", "{\"type\":\"ByteLevel\",\"trim_offsets\":false}", 0, NULL },
        { "added_tokens", "{}", CTS_EFORMAT, "'added_tokens'" },
        { "added_tokens", "null", 0, NULL },
        { "added_tokens/0/content", "null", CTS_EFORMAT, "added token 0 has no 'content'" },
        { "added_tokens/0/content", "\"\"", CTS_EFORMAT, "a token has 0 bytes" },
        { "added_tokens/0/content", "\"<|im_end|>\"", CTS_EFORMAT, "has the id 0" },
        { "added_tokens/0/content", "\"new\"", CTS_EFORMAT, "'new' has the id 0" },
        { "added_tokens/0/id", "99999999", CTS_EFORMAT, "id of the token '<|endoftext|>'" },
        { "added_tokens/0/single_word", "true", CTS_EUNSUP, "'single_word' of the added token '<|endoftext|>'" },
        { "added_tokens/0/lstrip", "true", CTS_EUNSUP, "'lstrip' of" },
        { "added_tokens/0/rstrip", "true", CTS_EUNSUP, "'rstrip' of" },
        { "added_tokens/0/normalized", "true", CTS_EUNSUP, "'normalized' of" },
        { "added_tokens/0/special", "1", CTS_EFORMAT, "'special'" },
        { "added_tokens/0/surprise", "1", CTS_EUNSUP, "'surprise'" },
        { "added_tokens/+", "{\"id\":2,\"content\":\"<|im_end|>\"}", CTS_EFORMAT, "'<|im_end|>' is there twice" },
        { "added_tokens/+", "{\"id\":3,\"content\":\"!\",\"special\":true}", CTS_EUNSUP, "byte 0x21 has no token" },
        { "added_tokens/+", "7", CTS_EFORMAT, "added token 3 has no 'content'" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct cts_tokenizer *t2 = NULL;
        struct cts_err        err = { 0 };
        json_t               *doc = json_deep_copy(demo);
        int                   rc;

        set_at(doc, CASES[i].where,
               CASES[i].value != NULL ? json_loads(CASES[i].value, JSON_DECODE_ANY, NULL) : NULL);
        rc = parse_doc(&t2, doc, &err);
        json_decref(doc);
        CHECK_MSG(rc == CASES[i].code && (rc == 0) == (t2 != NULL), "%s %s: want %d, got %d '%s'\n", CASES[i].where,
                  CASES[i].value, CASES[i].code, rc, err.text);
        CHECK_MSG(rc == 0 ||
                      (strstr(err.text, CASES[i].want) != NULL && strstr(err.text, "'tokenizer.json'") != NULL),
                  "%s: no '%s' in '%s'\n", CASES[i].where, CASES[i].want, err.text);
        cts_tokenizer_close(t2);
    }
}

static void tokenizer_refuses_merges_that_make_a_control_token(void **state)
{
    struct cts_tokenizer *t2 = NULL;
    struct cts_err        err = { 0 };
    json_t               *doc = json_deep_copy(demo);

    (void)state;
    set_at(doc, "added_tokens/+", added(3000, "~~", 1));
    set_at(doc, "model/vocab/~~", json_integer(3000));
    set_at(doc, "model/merges/+", json_pack("[ss]", "~", "~"));
    CHECK(parse_doc(&t2, doc, &err) == CTS_EUNSUP && strstr(err.text, "control token '~~'") != NULL);
    json_decref(doc);
}

/* With ignore_merges a word is looked up whole, and a control token that is one
 * word must not be found. */
static void tokenizer_finds_no_control_token_among_whole_words(void **state)
{
    struct cts_tokenizer *t2;
    struct cts_encoder   *e2;
    json_t               *doc = json_deep_copy(demo);

    (void)state;
    set_at(doc, "model/ignore_merges", json_true());
    set_at(doc, "added_tokens/+", added(3000, "BOS", 1));
    set_at(doc, "model/vocab/BOS", json_integer(3000));
    open_doc(doc, &t2, &e2, 100);
    json_decref(doc);
    CHECK(cts_encode(e2, "BOS", 3, 0, ids, 10) > 0 && ids[0] != 3000);
    CHECK(cts_encode(e2, "BOS", 3, 1, ids, 10) == 1 && ids[0] == 3000);
    close_both(t2, e2);
}

static void tokenizer_open_names_the_file_that_is_missing(void **state)
{
    struct cts_tokenizer *t2 = NULL;
    struct cts_err        err = { 0 };
    char                  path[512];

    (void)state;
    CHECK(cts_tokenizer_open(&t2, src_path(path, sizeof(path), "contrib/demo/tokenizer.json"), &err) == -ENOENT);
    CHECK(t2 == NULL && strstr(err.text, path) != NULL);
    CHECK(cts_tokenizer_open(&t2, src_path(path, sizeof(path), "contrib/demo/base/config.json"), &err) ==
          CTS_EUNSUP);
    CHECK(t2 == NULL && strstr(err.text, path) != NULL);
}

/* Every character, against what tests/golden/make_char_classes.py found out. */
static void char_classes_equal_the_reference(void **state)
{
    char     path[512], *line = NULL;
    size_t   cap = 0;
    uint32_t cp = 0;
    FILE    *f = fopen(src_path(path, sizeof(path), "tests/golden/char_classes.jsonl"), "r");
    json_t  *runs;

    (void)state;
    CHECK(f != NULL && getline(&line, &cap, f) > 0 && getline(&line, &cap, f) > 0);
    runs = json_loads(line, 0, NULL);
    CHECK(json_array_size(runs) > 700);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i);
        uint32_t      lo = (uint32_t)json_integer_value(json_array_get(run, 0));
        uint32_t      hi = (uint32_t)json_integer_value(json_array_get(run, 1));
        for (; cp < lo; cp++) CHECK_MSG(cts_char_class(cp) == CTS_CHAR_OTHER, "U+%04X\n", cp);
        for (; cp <= hi; cp++)
            CHECK_MSG(cts_char_class(cp) == json_integer_value(json_array_get(run, 2)), "U+%04X\n", cp);
    }
    for (; cp < 0x110000; cp++) CHECK_MSG(cts_char_class(cp) == CTS_CHAR_OTHER, "U+%04X\n", cp);
    json_decref(runs);
    free(line);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(char_classes_equal_the_reference),
        cmocka_unit_test(tokenizer_ids_equal_the_reference),
        cmocka_unit_test(tokenizer_random_texts_decode_back_to_themselves),
        cmocka_unit_test(tokenizer_takes_control_tokens_from_raw_prompts_only),
        cmocka_unit_test(tokenizer_refuses_what_is_not_utf8),
        cmocka_unit_test(tokenizer_says_when_text_or_ids_do_not_fit),
        cmocka_unit_test(tokenizer_encodes_one_word_as_long_as_a_text_may_be),
        cmocka_unit_test(tokenizer_answers_for_any_id_and_name),
        cmocka_unit_test(tokenizer_matches_added_tokens_leftmost_and_longest),
        cmocka_unit_test(tokenizer_refuses_by_key_what_would_change_a_token),
        cmocka_unit_test(tokenizer_refuses_merges_that_make_a_control_token),
        cmocka_unit_test(tokenizer_finds_no_control_token_among_whole_words),
        cmocka_unit_test(tokenizer_open_names_the_file_that_is_missing),
    };
    struct cts_err err = { 0 };
    char           path[512];
    int            rc;

    src_path(path, sizeof(path), "contrib/demo/base/tokenizer.json");
    ids = malloc(TEXT_MAX * sizeof(*ids));
    text_buf = malloc(TEXT_MAX + 1);
    if (ids == NULL || text_buf == NULL || cts_json_load(path, 1 << 24, &demo, &err) < 0 ||
        cts_tokenizer_open(&t, path, &err) < 0 || cts_encoder_new(&e, t, TEXT_MAX) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    close_both(t, e);
    json_decref(demo);
    free(ids);
    free(text_buf);
    return rc;
}
