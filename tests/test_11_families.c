/* test_11_families.c - section 11 against an independent implementation of every family.
 * builds: float double
 * tests/golden/families.py says what the golden files hold and how weights come from names: each variant's directory
 * is written here, loaded, and compared: logits, the loss, the gradient of every tensor, greedy continuations past the
 * window, what is saved. Then configs that mean the same in other words, and configs that must be refused by name.
 * With ORL_FAMILIES_OUT=DIR what is saved stays in DIR, for families.py to read. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"

#define LOGIT_TOLERANCE (ORLI_DOUBLE ? 1e-6 : 1e-4)    /* absolute; the golden numbers have eight digits */
#define GRADIENT_TOLERANCE (ORLI_DOUBLE ? 1e-6 : 1e-3) /* of a gradient's norm */
#define SEQUENCES 2
#define MAX_TOKENS 64
#define MAX_COLUMNS 8
#define MAX_TENSORS 96
#define MAX_BUFFERS 16

static orl_ctx *ctx;

static const char *const variants[] = {
    "gpt2_inverse", "gpt_neo_tied", "gpt_neo_untied", "gpt_neox_parallel", "gpt_neox_sequential", "gpt_neox_bare",
    "llama_linear", "llama_llama3", "llama_bias", "smollm", "smollm3_list", "smollm3_interval", "mistral_window",
    "mistral_full", "qwen2_full", "qwen2_window", "qwen3_full", "qwen3_window", "gemma3_pattern", "gemma3_types",
    "gpt_neox_reward", "gemma3_reward"};

/* ---- golden files ---- */

typedef struct golden_tensor {
    char name[80];
    size_t shape[4], rank, count;
    int bits, exponent;
    double offset, norm, dot[4]; /* of its gradient */
} golden_tensor;

typedef struct golden_buffer { /* in the file, but no weights */
    char name[80], dtype[8];
    size_t shape[4], rank, count;
} golden_buffer;

typedef struct golden {
    char name[40], config[2000], dtype[8], strip[24];
    size_t shards, tensors, buffers, rows, columns, prompt, more;
    golden_tensor tensor[MAX_TENSORS];
    golden_buffer buffer[MAX_BUFFERS];
    int32_t id[SEQUENCES][MAX_TOKENS], greedy[MAX_TOKENS]; /* greedy: the prompt and what follows it */
    size_t length[SEQUENCES], column[MAX_COLUMNS];
    double logit[SEQUENCES * MAX_TOKENS][MAX_COLUMNS], logsumexp[SEQUENCES * MAX_TOKENS];
    double nll, greedy_logp, score[SEQUENCES];
} golden;

static void read_string(orli_json *j, char *out, size_t size) {
    orli_str s = orli_str_new(ctx);
    if (orli_json_string(j, &s)) {
        check(s.length < size);
        snprintf(out, size, "%s", s.data);
    }
    orli_str_free(&s);
}

/* [2, 3, …]: how many there are. */
static size_t read_sizes(orli_json *j, size_t *out, size_t most) {
    size_t n = 0;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++) {
        size_t x = (size_t)orli_json_int(j, 0, 1 << 30);
        if (n < most) out[n] = x;
    }
    check(n <= most);
    return n;
}
static size_t read_reals(orli_json *j, double *out, size_t most) {
    size_t n = 0;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++) {
        double x = orli_json_number(j);
        if (n < most) out[n] = x;
    }
    check(n <= most);
    return n;
}
static size_t read_ids(orli_json *j, int32_t *out, size_t most) {
    size_t n = 0;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++) {
        int32_t x = (int32_t)orli_json_int(j, 0, INT32_MAX);
        if (n < most) out[n] = x;
    }
    check(n <= most);
    return n;
}

static size_t product(const size_t *shape, size_t rank) {
    size_t i, n = 1;
    for (i = 0; i < rank; i++) n *= shape[i];
    return n;
}

static void read_tensor(orli_json *j, golden_tensor *t) {
    size_t k;
    orli_json_open(j, ORLI_JSON_ARRAY);
    read_string(j, t->name, sizeof t->name);
    t->rank = read_sizes(j, t->shape, 2);
    t->count = product(t->shape, t->rank);
    t->bits = (int)orli_json_int(j, 1, 24);
    t->exponent = (int)orli_json_int(j, -40, 0);
    t->offset = orli_json_number(j);
    t->norm = orli_json_number(j);
    for (k = 0; k < 4; k++) t->dot[k] = orli_json_number(j);
    orli_json_expect(j, ORLI_JSON_ARRAY_END);
}

static void read_buffer(orli_json *j, golden_buffer *b) {
    orli_json_open(j, ORLI_JSON_ARRAY);
    read_string(j, b->name, sizeof b->name);
    read_string(j, b->dtype, sizeof b->dtype);
    b->rank = read_sizes(j, b->shape, 4);
    b->count = product(b->shape, b->rank);
    orli_json_expect(j, ORLI_JSON_ARRAY_END);
}

static void read_greedy(orli_json *j, golden *g) {
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) { /* the prompt comes first */
        if (orli_json_is(j, "prompt")) g->prompt = read_ids(j, g->greedy, MAX_TOKENS);
        else if (orli_json_is(j, "tokens")) g->more = read_ids(j, g->greedy + g->prompt, MAX_TOKENS - g->prompt);
        else if (orli_json_is(j, "logp")) g->greedy_logp = orli_json_number(j);
        else orli_json_skip(j);
    }
}

static void read_golden(orli_json *j, golden *g) {
    size_t n;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "config")) read_string(j, g->config, sizeof g->config);
        else if (orli_json_is(j, "dtype")) read_string(j, g->dtype, sizeof g->dtype);
        else if (orli_json_is(j, "strip")) read_string(j, g->strip, sizeof g->strip);
        else if (orli_json_is(j, "shards")) g->shards = (size_t)orli_json_int(j, 1, 2);
        else if (orli_json_is(j, "tensors"))
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j) && g->tensors < MAX_TENSORS;)
                read_tensor(j, &g->tensor[g->tensors++]);
        else if (orli_json_is(j, "buffers"))
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j) && g->buffers < MAX_BUFFERS;)
                read_buffer(j, &g->buffer[g->buffers++]);
        else if (orli_json_is(j, "sequences"))
            for (n = 0, orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j) && n < SEQUENCES; n++)
                g->length[n] = read_ids(j, g->id[n], MAX_TOKENS);
        else if (orli_json_is(j, "columns")) g->columns = read_sizes(j, g->column, MAX_COLUMNS);
        else if (orli_json_is(j, "logits"))
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j) && g->rows < SEQUENCES * MAX_TOKENS; g->rows++)
                check(read_reals(j, g->logit[g->rows], MAX_COLUMNS) == g->columns);
        else if (orli_json_is(j, "logsumexp")) check(read_reals(j, g->logsumexp, SEQUENCES * MAX_TOKENS) == g->rows);
        else if (orli_json_is(j, "nll")) g->nll = orli_json_number(j);
        else if (orli_json_is(j, "greedy")) read_greedy(j, g);
        else if (orli_json_is(j, "score")) check(read_reals(j, g->score, SEQUENCES) == SEQUENCES);
        else orli_json_skip(j);
    }
    orli_json_end(j);
}

/* The golden file of a variant; it stays the same until the next call. */
static const golden *golden_open(const char *name) {
    static golden g;
    const char *tests = getenv("ORL_TEST_DIR");
    char path[600];
    orli_file file;
    orli_json j;
    if (strcmp(g.name, name) == 0) return &g;
    memset(&g, 0, sizeof g);
    snprintf(path, sizeof path, "%s/golden/families/%s.json", tests ? tests : "tests", name);
    if (orli_file_open(ctx, path, &file) == ORL_OK) {
        j = orli_json_new(ctx, file.data, file.size, path, 1);
        read_golden(&j, &g);
        orli_file_close(&file);
    }
    check(!orl_failed(ctx) && g.tensors > 0);
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    orl_clear_error(ctx);
    snprintf(g.name, sizeof g.name, "%s", name);
    return &g;
}

/* ---- weights from names ---- */

static uint64_t fnv1a(const char *text) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001B3u;
    return h;
}

/* Number i of a name: `bits` bits, around zero. */
static double mixed(uint64_t name, size_t i, int bits) {
    uint64_t z = name + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z = z ^ z >> 31;
    return (double)(int64_t)(z >> (64 - bits)) - (double)((uint64_t)1 << (bits - 1));
}

static void put_bytes(orli_str *s, uint64_t x, size_t bytes) { /* little-endian */
    char b[8];
    size_t i;
    for (i = 0; i < bytes; i++) b[i] = (char)(x >> 8 * i & 255);
    orli_str_add(s, b, bytes);
}

/* x is exact in the type, and not subnormal. */
static void put_element(orli_str *s, const char *dtype, double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (strcmp(dtype, "F32") == 0) put_bytes(s, bits, 4);
    else if (strcmp(dtype, "BF16") == 0) put_bytes(s, bits >> 16, 2);
    else if (strcmp(dtype, "F16") == 0)
        put_bytes(s, (bits >> 16 & 0x8000u) | (x != 0 ? (bits >> 13 & 0x3ffffu) - (112u << 10) : 0), 2);
    else put_bytes(s, x > 0, 1); /* U8, BOOL */
}

static const char *bare(const golden *g, const char *name) { /* as the file has it */
    size_t n = strlen(g->strip);
    return strncmp(name, g->strip, n) == 0 ? name + n : name;
}

static void put_entry(orli_str *header, const char *name, const char *dtype, const size_t *shape, size_t rank,
                      size_t from, size_t to) {
    size_t i;
    orli_str_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", header->length > 1 ? "," : "", name, dtype);
    for (i = 0; i < rank; i++) orli_str_printf(header, "%s%zu", i ? "," : "", shape[i]);
    orli_str_printf(header, "],\"data_offsets\":[%zu,%zu]}", from, to);
}

/* Tensors first … last − 1, and with the first of them the buffers. */
static void write_tensors(const golden *g, const char *path, size_t first, size_t last) {
    orli_str header = orli_str_new(ctx), data = orli_str_new(ctx), all = orli_str_new(ctx);
    size_t t, i, from;
    orli_str_puts(&header, "{");
    for (t = first; t < last; t++) {
        const golden_tensor *x = &g->tensor[t];
        uint64_t seed = fnv1a(x->name);
        for (from = data.length, i = 0; i < x->count; i++)
            put_element(&data, g->dtype, x->offset + ldexp(mixed(seed, i, x->bits), x->exponent));
        put_entry(&header, bare(g, x->name), g->dtype, x->shape, x->rank, from, data.length);
    }
    for (t = 0; first == 0 && t < g->buffers; t++) {
        const golden_buffer *x = &g->buffer[t];
        for (from = data.length, i = 0; i < x->count; i++) put_element(&data, x->dtype, mixed(fnv1a(x->name), i, 8));
        put_entry(&header, bare(g, x->name), x->dtype, x->shape, x->rank, from, data.length);
    }
    orli_str_puts(&header, "}");
    while (header.length % 8) orli_str_puts(&header, " ");
    put_bytes(&all, header.length, 8);
    orli_str_add(&all, header.data, header.length);
    orli_str_add(&all, data.data, data.length);
    check(!all.failed);
    write_bytes(path, all.data, all.length);
    orli_str_free(&header), orli_str_free(&data), orli_str_free(&all);
}

static void write_shards(const golden *g, const char *to) {
    orli_str index = orli_str_new(ctx);
    char path[900], file[64];
    size_t s, t;
    orli_str_puts(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (s = 0; s < g->shards; s++) {
        size_t first = g->tensors * s / g->shards, last = g->tensors * (s + 1) / g->shards;
        snprintf(file, sizeof file, "model-%05zu-of-%05zu.safetensors", s + 1, g->shards);
        snprintf(path, sizeof path, "%s/%s", to, file);
        write_tensors(g, path, first, last);
        for (t = first; t < last; t++)
            orli_str_printf(&index, "%s\"%s\": \"%s\"", t ? ", " : "", bare(g, g->tensor[t].name), file);
    }
    orli_str_puts(&index, "}}");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", to);
    write_bytes(path, index.data, index.length);
    orli_str_free(&index);
}

/* A fresh directory with this config and the variant's weights. */
static const char *write_variant(const golden *g, const char *config) {
    static char to[400];
    char path[900];
    snprintf(to, sizeof to, "%s", in_dir("model"));
    remove_tree(to);
    check(orli_make_dir(ctx, to) == ORL_OK);
    snprintf(path, sizeof path, "%s/config.json", to);
    write_bytes(path, config, strlen(config));
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    if (g->shards > 1) write_shards(g, to);
    else write_tensors(g, path, 0, g->tensors);
    return to;
}

/* ---- what the library makes of it ---- */

/* Logits of the golden sequences, one after the other; with `split`, the first one as a parent and its child. NULL if
 * there are none; free() it. */
static orl_real *logits_of(orl_model *m, const golden *g, size_t split, size_t *cols) {
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *stream = orl_stream_create(ctx);
    orl_tensor *y;
    orl_real *copy = NULL;
    size_t s, parent = ORL_ROOT, n = 0;
    if (split) parent = orl_stream_add(stream, g->id[0], split, ORL_ROOT);
    for (s = 0; s < SEQUENCES; s++, split = 0, parent = ORL_ROOT) {
        orl_stream_add(stream, g->id[s] + split, g->length[s] - split, parent);
        n += g->length[s];
    }
    y = orl_logits(tape, m, stream);
    check(y && orl_rows(y) == n);
    if (y) {
        *cols = orl_cols(y);
        copy = (orl_real *)malloc(n * *cols * sizeof *copy);
        memcpy(copy, orl_data(y), n * *cols * sizeof *copy);
    }
    orl_tape_free(tape);
    orl_stream_free(stream);
    return copy;
}

static void check_logits(const golden *g, const orl_real *y, size_t cols, const char *what) {
    double worst = 0, nll = 0;
    size_t r, c, s, at = 0, from = 0;
    for (r = 0; y && r < g->rows; r++) {
        double sum = 0, off = 0;
        for (c = 0; c < cols; c++) sum += exp((double)y[r * cols + c]);
        off = fabs(log(sum) - g->logsumexp[r]);
        for (c = 0; c < g->columns; c++)
            off = fmax(off, fabs((double)y[r * cols + g->column[c]] - g->logit[r][c]));
        if (!(off <= worst)) worst = off, at = r; /* NaN is the worst of all */
    }
    test_check(y && worst <= LOGIT_TOLERANCE, "logits are the golden ones", __FILE__, __LINE__);
    if (y && !(worst <= LOGIT_TOLERANCE))
        printf("    %s, %s: off by %.3g in row %zu of %zu\n", g->name, what, worst, at, g->rows);
    for (s = 0; y && s < SEQUENCES; from += g->length[s++])
        for (r = 0; r + 1 < g->length[s]; r++) {
            const orl_real *row = y + (from + r) * cols;
            double sum = 0;
            for (c = 0; c < cols; c++) sum += exp((double)row[c]);
            nll += (log(sum) - (double)row[g->id[s][r + 1]]) / (double)(g->rows - SEQUENCES);
        }
    check_near(nll, g->nll, LOGIT_TOLERANCE);
}

/* The summed NLL of the golden sequences, or of a reward model its summed scores. */
static orl_tensor *loss_of(orl_tape *tape, orl_model *m, const golden *g, const orl_stream *stream) {
    size_t position[SEQUENCES * MAX_TOKENS], n = 0, from = 0, s, t;
    int32_t target[SEQUENCES * MAX_TOKENS];
    orl_tensor *h = orl_hidden(tape, m, stream);
    if (orl_is_reward_model(m)) {
        for (s = 0; s < SEQUENCES; s++) position[s] = (from += g->length[s]) - 1;
        h = orl_gather(tape, h, position, SEQUENCES);
        return orl_linear(tape, h, orl_use(tape, orl_param_find(orl_model_params(m), "score.weight")), NULL);
    }
    for (s = 0; s < SEQUENCES; from += g->length[s++])
        for (t = 0; t + 1 < g->length[s]; t++) position[n] = from + t, target[n++] = g->id[s][t + 1];
    h = orl_gather(tape, h, position, n);
    h = orl_token_logp(tape, h, orl_head(tape, m), orl_model_get_config(m)->vocab, target, NULL);
    return orl_scale(tape, h, -1.0);
}

/* Where element (r, c) of a parameter lies in its tensor on disk. part: 0, 1, 2 of a fused q, k, v, or −1. GPT-2 keeps
 * its matrices (in, out), and q, k, v beside each other; GPT-NeoX keeps q, k and v of each head together. */
static size_t on_disk(const golden *g, const golden_tensor *t, int part, size_t heads, const orl_param *p, size_t r,
                      size_t c) {
    size_t parts = part < 0 ? 1 : 3, which = part < 0 ? 0 : (size_t)part, size;
    int transposed = strstr(g->config, "\"model_type\": \"gpt2\"") && t->rank == 2 && strstr(t->name, ".c_");
    if (transposed) return c * parts * p->rows + which * p->rows + r;
    if (t->rank == 1) { /* a vector: as a matrix of one column */
        if (part < 0) return c;
        if (!strstr(t->name, "query_key_value")) return which * p->cols + c;
        size = p->cols / heads;
        return (c / size * 3 + which) * size + c % size;
    }
    if (part < 0) return r * p->cols + c;
    size = p->rows / heads;
    if (strstr(t->name, "query_key_value")) return ((r / size * 3 + which) * size + r % size) * p->cols + c;
    return (which * p->rows + r) * p->cols + c;
}

/* The gradient of a tensor in its layout on disk, from the parameter of that name, or three with .q, .k, .v behind it.
 * NULL if they do not make up the whole; free() it. */
static double *gradient_of(orl_model *m, const golden *g, const golden_tensor *t) {
    static const char *const ends[] = {"", ".q", ".k", ".v"};
    double *whole = (double *)calloc(t->count, sizeof *whole);
    size_t seen = 0, k, r, c;
    for (k = 0; k < 4; k++) {
        char name[100];
        orl_param *p;
        snprintf(name, sizeof name, "%s%s", t->name, ends[k]);
        p = orl_param_find(orl_model_params(m), name);
        if (!p || !p->grad) continue;
        seen += p->rows * p->cols;
        for (r = 0; seen <= t->count && r < p->rows; r++)
            for (c = 0; c < p->cols; c++) {
                size_t at = on_disk(g, t, (int)k - 1, m->config.heads, p, r, c);
                if (at < t->count) whole[at] = (double)p->grad[r * p->cols + c];
            }
    }
    if (seen == t->count) return whole;
    printf("    %s: %zu of the %zu numbers of \"%s\" are in parameters\n", g->name, seen, t->count, t->name);
    free(whole);
    return NULL;
}

static void check_gradient(orl_model *m, const golden *g) {
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *stream = orl_stream_create(ctx);
    orl_tensor *loss;
    double largest = 0;
    size_t s, t, k, i;
    for (s = 0; s < SEQUENCES; s++) orl_stream_add(stream, g->id[s], g->length[s], ORL_ROOT);
    orl_params_zero_grad(orl_model_params(m));
    loss = loss_of(tape, m, g, stream);
    for (s = 0; loss && orl_is_reward_model(m) && s < SEQUENCES; s++)
        check_near(orl_data(loss)[s], g->score[s], LOGIT_TOLERANCE);
    check(orl_backward(tape, orl_sum(tape, loss)) == ORL_OK);
    for (t = 0; t < g->tensors; t++) largest = fmax(largest, g->tensor[t].norm);
    for (t = 0; t < g->tensors && !orl_failed(ctx); t++) {
        const golden_tensor *x = &g->tensor[t];
        double *whole = gradient_of(m, g, x), norm = 0, dot[4] = {0, 0, 0, 0}, worst;
        double allowed = GRADIENT_TOLERANCE * fmax(x->norm, 1e-3 * largest); /* a small one is a sum that cancels */
        check(whole != NULL);
        if (!whole) continue;
        for (k = 0; k < 4; k++) {
            char name[100];
            uint64_t seed;
            snprintf(name, sizeof name, "%s#%zu", x->name, k);
            seed = fnv1a(name);
            for (i = 0; i < x->count; i++) dot[k] += whole[i] * ldexp(mixed(seed, i, 24), -23);
        }
        for (i = 0; i < x->count; i++) norm += whole[i] * whole[i];
        worst = fabs(sqrt(norm) - x->norm);
        for (k = 0; k < 4; k++) worst = fmax(worst, fabs(dot[k] - x->dot[k]));
        test_check(worst <= allowed, "the gradient is the golden one", __FILE__, __LINE__);
        if (!(worst <= allowed))
            printf("    %s: %s: norm %.9g, golden %.9g; off by %.3g, allowed %.3g\n", g->name, x->name, sqrt(norm),
                   x->norm, worst, allowed);
        free(whole);
    }
    orl_tape_free(tape);
    orl_stream_free(stream);
}

/* Two prompts side by side, the second being the first and nine tokens of its continuation: caches of unequal length,
 * past the window and past a page. */
static void check_greedy(orl_model *m, const golden *g) {
    orli_str text = orli_str_new(ctx);
    orl_generate_options o = orl_generate_default();
    orl_dataset *prompts, *d;
    size_t i, k, more = 9;
    double logp[2] = {0, 0};
    for (k = 0; k < 2; k++) {
        orli_str_puts(&text, "{\"prompt_ids\": [");
        for (i = 0; i < g->prompt + k * more; i++) orli_str_printf(&text, "%s%d", i ? ", " : "", (int)g->greedy[i]);
        orli_str_puts(&text, "]}\n");
    }
    prompts = orl_dataset_parse(ctx, text.data, text.length, "prompts");
    o.temperature = 0, o.max_tokens = g->more;
    d = orl_sample(m, prompts, &o);
    check(d && orl_dataset_count(d) == 2);
    for (k = 0; k < 2 && d && orl_dataset_count(d) == 2; k++) {
        const orl_row *row = orl_dataset_row(d, k);
        size_t n = g->more - k * more;
        int same = row->response.tokens == g->more &&
                   memcmp(row->response.ids, g->greedy + g->prompt + k * more, n * sizeof *g->greedy) == 0;
        test_check(same, "the greedy continuation is the golden one", __FILE__, __LINE__);
        if (!same) printf("    %s, prompt %zu\n", g->name, k);
        if (same && k == 0) check_near(row->logp, g->greedy_logp, (double)g->more * LOGIT_TOLERANCE);
        logp[k] = row->logp;
    }
    check(orl_logprob(m, d, NULL, NULL) == ORL_OK); /* the whole sequence at once: the same bits as token by token */
    for (k = 0; k < 2 && d && orl_dataset_count(d) == 2; k++)
        check(memcmp(&logp[k], &orl_dataset_row(d, k)->logp, sizeof *logp) == 0);
    orl_dataset_free(d);
    orl_dataset_free(prompts);
    orli_str_free(&text);
}

static void check_same_file(const char *a, const char *b, const char *name) {
    char path[900];
    char *x, *y;
    size_t n = 0, k = 0;
    snprintf(path, sizeof path, "%s/%s", a, name), x = read_bytes(path, &n);
    snprintf(path, sizeof path, "%s/%s", b, name), y = read_bytes(path, &k);
    check(x && y && n == k && memcmp(x, y, n) == 0);
    free(x), free(y);
}

/* Saved, loaded and saved again: the same files, and a model that computes the same bits. */
static void check_saved(orl_model *m, const golden *g) {
    const char *keep = getenv("ORL_FAMILIES_OUT");
    char first[400], second[400], kept[600];
    orl_model *again;
    orl_real *a = NULL, *b = NULL;
    size_t cols = 0, n = g->rows;
    snprintf(first, sizeof first, "%s", in_dir("first"));
    snprintf(second, sizeof second, "%s", in_dir("second"));
    remove_tree(first), remove_tree(second);
    check(orl_model_save(m, first) == ORL_OK);
    if (keep) snprintf(kept, sizeof kept, "%s/%s", keep, g->name), check(orl_model_save(m, kept) == ORL_OK);
    again = orl_model_load(ctx, first);
    check(again != NULL && orl_is_reward_model(again) == orl_is_reward_model(m));
    if (again) {
        check(orl_model_save(again, second) == ORL_OK);
        check_same_file(first, second, "config.json");
        check_same_file(first, second, "model.safetensors");
        if (!orl_is_reward_model(m)) {
            a = logits_of(m, g, 0, &cols), b = logits_of(again, g, 0, &cols);
            check(a && b && memcmp(a, b, n * cols * sizeof *a) == 0);
        } else check_gradient(again, g);
    }
    free(a), free(b);
    orl_model_free(again);
}

/* Loads it; if that fails, says why, and clears the failure. */
static orl_model *load(const golden *g, const char *config) {
    orl_model *m = orl_model_load(ctx, write_variant(g, config));
    test_check(m != NULL, "the model loads", __FILE__, __LINE__);
    if (!m) printf("    %s: %s\n", g->name, orl_error(ctx));
    orl_clear_error(ctx);
    return m;
}

static void test_variant(const char *name) {
    const golden *g = golden_open(name);
    orl_model *m = load(g, g->config);
    orl_real *y;
    size_t cols = 0, split;
    if (!m) return;
    if (!orl_is_reward_model(m)) {
        y = logits_of(m, g, 0, &cols);
        check_logits(g, y, cols, "packed");
        free(y);
        for (split = 3; split < 40; split += 17) { /* a window reaches over the border between parent and child */
            y = logits_of(m, g, split, &cols);
            check_logits(g, y, cols, "split");
            free(y);
        }
    }
    check(orl_is_reward_model(m) == (g->rows == 0));
    check_gradient(m, g);
    if (g->rows) check_greedy(m, g);
    check_saved(m, g);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s: %s\n", name, orl_error(ctx));
    orl_clear_error(ctx);
    orl_model_free(m);
}

/* ---- other configs ---- */

/* The config with another value of a key at its top (NULL: without it), which is appended if it was not there. */
static const char *config_with(const char *config, const char *key, const char *value) {
    static char out[4000];
    orli_json j = orli_json_new(ctx, config, strlen(config), "config", 1);
    size_t n = 0;
    out[0] = 0;
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        size_t start = j.start - 1; /* its quote */
        int same = orli_json_is(&j, key);
        orli_json_skip(&j);
        if (same) continue;
        n += (size_t)snprintf(out + n, sizeof out - n, "%c%.*s", n ? ',' : '{', (int)(j.end - start), config + start);
    }
    check(!orl_failed(ctx) && n < sizeof out / 2);
    if (value) n += (size_t)snprintf(out + n, sizeof out - n, ",\"%s\": %s", key, value);
    snprintf(out + n, sizeof out - n, "}");
    return out;
}

typedef struct other {
    const char *variant, *key, *value;
    const char *names[2]; /* what the error must name */
} other;

/* Other words for the same: defaults, names of other releases, what does not change what is computed. */
static const other harmless[] = {
    {"gpt2_inverse", "layer_norm_epsilon", NULL, {0}},
    {"gpt2_inverse", "n_inner", NULL, {0}},
    {"gpt2_inverse", "activation_function", "\"gelu_pytorch_tanh\"", {0}},
    {"gpt2_inverse", "reorder_and_upcast_attn", "true", {0}},
    {"gpt_neo_tied", "layer_norm_epsilon", NULL, {0}},
    {"gpt_neo_tied", "activation_function", NULL, {0}},
    {"gpt_neo_tied", "intermediate_size", NULL, {0}},
    {"gpt_neo_tied", "attention_layers", NULL, {0}},
    {"gpt_neo_tied", "tie_word_embeddings", "true", {0}},
    {"gpt_neo_tied", "attention_types", "[[[\"global\"], 1], [[\"local\", \"global\"], 1], [[\"local\"], 1]]", {0}},
    {"gpt_neox_parallel", "rotary_pct", NULL, {0}},
    {"gpt_neox_parallel", "rotary_emb_base", NULL, {0}},
    {"gpt_neox_parallel", "hidden_act", NULL, {0}},
    {"gpt_neox_parallel", "use_parallel_residual", NULL, {0}},
    {"gpt_neox_parallel", "attention_bias", "true", {0}},
    {"gpt_neox_parallel", "tie_word_embeddings", NULL, {0}},
    {"gpt_neox_parallel", "rope_scaling", "null", {0}},
    {"gpt_neox_parallel", "layer_norm_eps", NULL, {0}},
    {"llama_linear", "pretraining_tp", "4", {0}},
    {"llama_linear", "tie_word_embeddings", NULL, {0}},
    {"llama_linear", "sliding_window", "null", {0}},
    {"llama_linear", "use_qk_norm", "false", {0}},
    {"llama_linear", "quantization_config", "null", {0}},
    {"llama_linear", "partial_rotary_factor", "1.0", {0}},
    {"llama_linear", "rope_interleaved", "false", {0}},
    {"llama_linear", "torch_dtype", "\"bfloat16\"", {0}},
    {"llama_linear", "auto_map", "{\"a\": [1, {\"b\": null}]}", {0}},
    {"llama_linear", "rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2.5}", {0}},
    {"llama_linear", "rope_scaling", "{\"type\": \"linear\", \"rope_type\": \"linear\", \"factor\": 2.5}", {0}},
    {"llama_linear", "head_dim", "6", {0}},
    {"llama_bias", "rope_theta", NULL, {0}},
    {"llama_bias", "rms_norm_eps", "1e-6", {0}},
    {"llama_bias", "num_key_value_heads", NULL, {0}},
    {"llama_bias", "rope_scaling", "{\"type\": \"default\"}", {0}},
    {"mistral_window", "head_dim", "8", {0}},
    {"mistral_window", "rope_theta", NULL, {0}},
    {"mistral_full", "sliding_window", NULL, {0}},     /* 4096 */
    {"mistral_full", "sliding_window", "41", {0}},     /* as long as what it looks at */
    {"mistral_full", "head_dim", "10", {0}},
    {"qwen2_full", "use_sliding_window", NULL, {0}},
    {"qwen2_full", "sliding_window", "null", {0}},
    {"qwen2_full", "use_mrope", "false", {0}},
    {"qwen2_full", "layer_types", "[\"full_attention\", \"full_attention\"]", {0}},
    {"qwen2_window", "rms_norm_eps", NULL, {0}},
    {"qwen2_window", "rope_theta", NULL, {0}},
    {"qwen2_window", "layer_types", "[\"full_attention\", \"sliding_attention\", \"sliding_attention\"]", {0}},
    {"qwen3_full", "rms_norm_eps", NULL, {0}},
    {"qwen3_full", "attention_bias", NULL, {0}},
    {"qwen3_window", "rope_parameters", NULL, {0}},
    {"qwen3_window", "tie_word_embeddings", NULL, {0}},
    {"smollm3_list", "layer_types", NULL, {0}},
    {"smollm3_list", "tie_word_embeddings", "true", {0}},
    {"smollm3_interval", "no_rope_layers", "[1, 0, 1, 0]", {0}},
    {"smollm3_interval", "rope_theta", "2000000.0", {0}},
    {"smollm3_interval", "rms_norm_eps", NULL, {0}},
    {"gemma3_pattern", "rope_theta", NULL, {0}},
    {"gemma3_pattern", "rope_local_base_freq", NULL, {0}},
    {"gemma3_pattern", "attn_logit_softcapping", NULL, {0}},
    {"gemma3_pattern", "tie_word_embeddings", "true", {0}},
    {"gemma3_pattern", "hidden_activation", NULL, {0}},
    {"gemma3_pattern", "layer_types",
     "[\"sliding_attention\", \"sliding_attention\", \"full_attention\", \"sliding_attention\"]", {0}},
    {"gemma3_types", "rms_norm_eps", NULL, {0}},
    {"gemma3_types", "_sliding_window_pattern", "6", {0}},
    {"gemma3_types", "cache_implementation", "\"hybrid\"", {0}},
};

static void test_harmless(void) {
    size_t i, cols = 0;
    for (i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        const other *h = &harmless[i];
        const golden *g = golden_open(h->variant);
        int failed = test_failed;
        orl_model *m = load(g, config_with(g->config, h->key, h->value));
        orl_real *y = m ? logits_of(m, g, 0, &cols) : NULL;
        if (m) check_logits(g, y, cols, h->key);
        if (test_failed != failed) printf("    with \"%s\": %s\n", h->key, h->value ? h->value : "absent");
        free(y);
        orl_model_free(m);
        orl_clear_error(ctx);
    }
}

static const other refused[] = {
    {"llama_linear", "model_type", "\"mamba\"", {"model_type", "mamba"}},
    {"llama_linear", "quantization_config", "{\"quant_method\": \"gptq\", \"bits\": 4}",
     {"quantization_config", "gptq"}},
    {"llama_linear", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 4.0}", {"rope", "yarn"}},
    {"llama_linear", "rope_scaling", "{\"rope_type\": \"dynamic\", \"factor\": 2.0}", {"rope", "dynamic"}},
    {"llama_linear", "rope_scaling", "{\"rope_type\": \"linear\"}", {"rope", "factor"}},
    {"llama_linear", "rope_scaling", "{\"type\": \"linear\", \"factor\": 0}", {"factor", "0"}},
    {"llama_llama3", "rope_parameters", "{\"rope_type\": \"longrope\", \"rope_theta\": 1e4}", {"rope", "longrope"}},
    {"llama_llama3", "rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 8.0}", {"rope", "low_freq_factor"}},
    {"llama_linear", "hidden_act", "\"relu\"", {"hidden_act", "relu"}},
    {"llama_linear", "sliding_window", "5", {"sliding_window", "5"}},
    {"llama_linear", "use_qk_norm", "true", {"use_qk_norm", "true"}},
    {"llama_linear", "partial_rotary_factor", "0.5", {"partial_rotary_factor", "0.5"}},
    {"llama_linear", "rope_interleaved", "true", {"rope_interleaved", "true"}},
    {"llama_linear", "num_key_value_heads", "4", {"num_key_value_heads", "num_attention_heads"}},
    {"llama_llama3", "head_dim", "9", {"head", "even"}},
    {"gpt2_inverse", "add_cross_attention", "true", {"add_cross_attention", "true"}},
    {"gpt2_inverse", "activation_function", "\"relu\"", {"activation_function", "relu"}},
    {"gpt_neo_tied", "activation_function", "\"relu\"", {"activation_function", "relu"}},
    {"gpt_neo_tied", "attention_types", "[[[\"global\", \"chunked\"], 2]]", {"attention_types", "chunked"}},
    {"gpt_neo_tied", "attention_types", "[[[\"global\"], 3]]", {"attention_types", "3"}},
    {"gpt_neo_tied", "window_size", "0", {"window_size", "0"}},
    {"gpt_neox_parallel", "hidden_act", "\"quick_gelu\"", {"hidden_act", "quick_gelu"}},
    {"gpt_neox_parallel", "rotary_pct", "1.5", {"rotary_pct", "1.5"}},
    {"mistral_window", "sliding_window", "0", {"sliding_window", "0"}},
    {"qwen2_window", "layer_types", "[\"full_attention\", \"chunked_attention\", \"full_attention\"]",
     {"layer_types", "chunked_attention"}},
    {"qwen2_window", "layer_types", "[\"full_attention\"]", {"layer_types", "1"}},
    {"qwen2_full", "use_mrope", "true", {"use_mrope", "true"}},
    {"smollm3_list", "no_rope_layers", "[1, 0]", {"no_rope_layers", "2"}},
    {"gemma3_pattern", "hidden_activation", "\"relu\"", {"hidden_activation", "relu"}},
    {"gemma3_pattern", "attn_logit_softcapping", "50.0", {"attn_logit_softcapping", "50.0"}},
    {"gemma3_pattern", "final_logit_softcapping", "30.0", {"final_logit_softcapping", "30.0"}},
    {"gemma3_pattern", "use_bidirectional_attention", "true", {"use_bidirectional_attention", "true"}},
    {"gemma3_pattern", "sliding_window_pattern", "0", {"sliding_window_pattern", "0"}},
    {"gemma3_pattern", "query_pre_attn_scalar", "0", {"query_pre_attn_scalar", "0"}},
    {"gemma3_types", "rope_parameters", "{\"full_attention\": {\"rope_type\": \"yarn\", \"factor\": 2.0}}",
     {"rope", "yarn"}},
};

static void test_refused(void) {
    size_t i, k;
    for (i = 0; i < sizeof refused / sizeof *refused; i++) {
        const other *r = &refused[i];
        const golden *g = golden_open(r->variant);
        int failed = test_failed;
        const char *sentence;
        orl_model *m = orl_model_load(ctx, write_variant(g, config_with(g->config, r->key, r->value)));
        check(m == NULL && orl_failed(ctx));
        sentence = strstr(orl_error(ctx), "config.json"); /* what stands before, and the place, is no evidence */
        sentence = sentence ? strstr(sentence, ": ") : NULL;
        for (k = 0; k < 2; k++) check_contains(sentence, r->names[k]);
        if (test_failed != failed) printf("    %s with \"%s\": %s\n", r->variant, r->key, r->value);
        orl_model_free(m);
        orl_clear_error(ctx);
    }
}

int main(void) {
    orl_config config = orl_config_default();
    size_t i;
    config.threads = ORLI_DOUBLE ? 1 : 2;
    ctx = orl_create(&config);
    if (!ctx || !make_dir("test_11_families", NULL)) return 1;
    for (i = 0; i < sizeof variants / sizeof *variants; i++) test_variant(variants[i]);
    test_harmless();
    test_refused();
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_11_families");
}
