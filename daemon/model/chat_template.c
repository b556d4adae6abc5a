/* ChatML: "<|im_start|>" role newline content "<|im_end|>" newline for each
 * message, then "<|im_start|>assistant" newline. Its templates differ in whether
 * a system message is made up where there is none, and in which words. */
#include "daemon/model/chat_template.h"

#include "common/file.h"
#include "common/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE_BYTES_MAX ((size_t)1 << 20)

/* The spellings in use, in parts. Every template that is recognised is FOR, at
 * most one SYSTEM_BEGIN text SYSTEM_END, and REST; DEFINED may stand before it,
 * which changes nothing here: the opening is always wanted. */
static const char DEFINED[] = "{% if not add_generation_prompt is defined %}"
                              "{% set add_generation_prompt = false %}{% endif %}";
static const char FOR[] = "{% for message in messages %}";
static const char SYSTEM_BEGIN[] =
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n";
static const char SYSTEM_END[] = "<|im_end|>\n' }}{% endif %}";
static const char REST[] = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
                           "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/* ---- recognition ---- */

static int take(const char **s, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strncmp(*s, prefix, n) != 0) return 0;
    *s += n;
    return 1;
}

/* What Jinja reads alike: "\n" within its quotes is a newline, and one newline
 * at the end is dropped. In place. */
static void canonicalise(char *s)
{
    size_t n = 0;

    for (const char *p = s; *p != '\0'; p++) {
        s[n] = *p;
        if (p[0] == '\\' && p[1] == 'n') {
            s[n] = '\n';
            p++;
        }
        n++;
    }
    if (n > 0 && s[n - 1] == '\n') n--;
    s[n] = '\0';
}

/* The text between the quotes of the default system message. Only a text that
 * stands for itself is taken: no escape, no quote, no control token. */
static int take_system(const char **s, struct cts_chat_template *c)
{
    const char *end = strstr(*s, SYSTEM_END);
    size_t      n = end != NULL ? (size_t)(end - *s) : 0;

    if (end == NULL || n >= sizeof(c->default_system)) return 0;
    memcpy(c->default_system, *s, n);
    c->default_system[n] = '\0';
    if (strpbrk(c->default_system, "'\\") != NULL || strstr(c->default_system, "<|") != NULL) return 0;
    c->has_default_system = 1;
    *s = end + sizeof(SYSTEM_END) - 1;
    return 1;
}

static int is_chatml(const char *s, struct cts_chat_template *c)
{
    (void)take(&s, DEFINED);
    if (!take(&s, FOR)) return 0;
    if (take(&s, SYSTEM_BEGIN) && !take_system(&s, c)) return 0;
    return strcmp(s, REST) == 0;
}

static void set_unknown(struct cts_chat_template *c, const char *why)
{
    *c = (struct cts_chat_template){ .kind = CTS_CHAT_UNKNOWN };
    snprintf(c->unknown_why, sizeof(c->unknown_why), "%s: use raw prompts", why);
}

int cts_chat_template_recognise(struct cts_chat_template *c, const char *text, const struct cts_tokenizer *t)
{
    char *s = strdup(text);
    int   is_known;

    if (s == NULL) return -ENOMEM;
    *c = (struct cts_chat_template){ .kind = CTS_CHAT_CHATML };
    canonicalise(s);
    is_known = is_chatml(s, c);
    free(s);
    c->im_start = cts_tokenizer_id(t, "<|im_start|>");
    c->im_end = cts_tokenizer_id(t, "<|im_end|>");
    if (!is_known) set_unknown(c, "the base's chat template is none that is known here (ChatML is)");
    else if (!cts_tokenizer_is_special(t, c->im_start) || !cts_tokenizer_is_special(t, c->im_end))
        set_unknown(c, "the base's chat template is ChatML, but <|im_start|> and <|im_end|> are no special tokens");
    return 0;
}

/* ---- where templates lie ---- */

/* The template of tokenizer_config.json: a string, or the one named "default"
 * of a list; NULL when there is none. */
static const char *template_of(json_t *doc)
{
    json_t *v = json_object_get(doc, "chat_template"), *one;
    size_t  i;

    if (!json_is_array(v)) return json_string_value(v);
    json_array_foreach(v, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return NULL;
}

static int load_config(struct cts_chat_template *c, const char *path, const struct cts_tokenizer *t,
                       struct cts_err *err)
{
    json_t     *doc = NULL;
    const char *text;
    int         rc = cts_json_load(path, TEMPLATE_BYTES_MAX, &doc, err);

    if (rc < 0) return rc;
    text = template_of(doc);
    if (text == NULL) set_unknown(c, "the base has no chat template");
    else if (cts_chat_template_recognise(c, text, t) < 0) rc = cts_err_set(err, -ENOMEM, "'%s'", path);
    json_decref(doc);
    return rc;
}

static int load_jinja(struct cts_chat_template *c, const char *path, const struct cts_tokenizer *t,
                      struct cts_err *err)
{
    char  *text = NULL;
    size_t n = 0;
    int    rc = cts_file_read(path, TEMPLATE_BYTES_MAX, &text, &n, err);

    if (rc < 0) return rc;
    if (strlen(text) != n) set_unknown(c, "the base's chat template holds a zero byte");
    else if (cts_chat_template_recognise(c, text, t) < 0) rc = cts_err_set(err, -ENOMEM, "'%s'", path);
    free(text);
    return rc;
}

int cts_chat_template_load(struct cts_chat_template *c, const char *dir, const struct cts_tokenizer *t,
                           struct cts_err *err)
{
    char path[4096];
    int  rc;

    if (snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir) >= (int)sizeof(path))
        return cts_err_set(err, -ENAMETOOLONG, "'%s'", dir);
    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir); /* newer, and the one that counts */
    rc = load_jinja(c, path, t, err);
    if (rc != -ENOENT) return rc;
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
    rc = load_config(c, path, t, err);
    if (rc != 0 && rc != -ENOENT) return rc;
    if (rc == -ENOENT) set_unknown(c, "the base has no chat template");
    if (err != NULL) *err = (struct cts_err){ 0 };
    return 0;
}

/* ---- rendering ---- */

struct output {
    struct cts_encoder *e;
    int32_t            *ids;
    size_t              n, cap;
};

static int put_id(struct output *o, int32_t id)
{
    if (o->n == o->cap) return -EMSGSIZE;
    o->ids[o->n++] = id;
    return 0;
}

/* role, a newline, and content, as the one text that the template makes of them. */
static int put_text(struct output *o, struct cts_span role, struct cts_span content)
{
    const struct cts_span parts[] = { role, { (const uint8_t *)"\n", 1 }, content };
    int64_t               got = cts_encode_parts(o->e, parts, 3, o->ids + o->n, o->cap - o->n);

    if (got < 0) return (int)got;
    o->n += (size_t)got;
    return 0;
}

static int put_message(struct output *o, const struct cts_chat_template *c, struct cts_span role,
                       struct cts_span content)
{
    int rc = put_id(o, c->im_start);

    if (rc == 0) rc = put_text(o, role, content);
    if (rc == 0) rc = put_id(o, c->im_end);
    if (rc == 0) rc = put_text(o, (struct cts_span){ 0 }, (struct cts_span){ 0 });
    return rc;
}

static struct cts_span span_of(const char *s)
{
    return (struct cts_span){ (const uint8_t *)s, strlen(s) };
}

static int is_role(struct cts_span role, const char *name)
{
    return role.len == strlen(name) && memcmp(role.ptr, name, role.len) == 0;
}

int64_t cts_chat_render(const struct cts_chat_template *c, struct cts_encoder *e, const struct cts_chat_message *m,
                        size_t n_messages, int32_t *ids, size_t cap)
{
    struct output o = { .e = e, .ids = ids, .cap = cap };
    int           rc = 0;

    if (c->kind != CTS_CHAT_CHATML) return CTS_EUNSUP;
    for (size_t i = 0; i < n_messages; i++)
        if (!is_role(m[i].role, "system") && !is_role(m[i].role, "user") && !is_role(m[i].role, "assistant") &&
            !is_role(m[i].role, "tool"))
            return CTS_EARG;
    if (c->has_default_system && n_messages > 0 && !is_role(m[0].role, "system"))
        rc = put_message(&o, c, span_of("system"), span_of(c->default_system));
    for (size_t i = 0; i < n_messages && rc == 0; i++) rc = put_message(&o, c, m[i].role, m[i].content);
    if (rc == 0) rc = put_id(&o, c->im_start);
    if (rc == 0) rc = put_text(&o, span_of("assistant"), (struct cts_span){ 0 });
    return rc < 0 ? rc : (int64_t)o.n;
}
