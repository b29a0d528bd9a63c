/* test_11_gguf.c - section 11.7: GGUF files, read back by a reader of the test's own; and what else leaves the library
 * as files: directories in F16 and BF16, with the settings and tokenizer files they came with.
 * tests/gguf_check.mjs puts the same files before llama.cpp itself.
 * builds: float double */
#include <stddef.h>
static size_t fault_at, fault_count; /* the fault_at-th allocation fails (1, 2, …; 0: none) */
static void *fault_malloc(size_t n);
static void fault_free(void *p);
#define ORL_MALLOC(n) fault_malloc(n)
#define ORL_FREE(p) fault_free(p)
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"

static void *fault_malloc(size_t n) { return fault_at && ++fault_count == fault_at ? NULL : malloc(n); }
static void fault_free(void *p) { free(p); }

static orl_ctx *ctx;
static char notes[2000];
static void on_note(void *user, const char *sentence) {
    (void)user;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", sentence);
}

/* ---- a reader of GGUF, written from its definition alone ---- */

typedef struct value {
    char key[64];
    uint32_t type, item; /* item: of an array's elements */
    uint64_t count;
    const char *at;      /* the value's bytes; of a text, behind its length */
    uint64_t bytes;      /* of a text */
} value;
typedef struct tensor {
    char name[64];
    uint32_t rank, type;
    uint64_t shape[4], offset;
} tensor;
static struct {
    char *bytes;
    size_t size, at, data;
    uint32_t version;
    uint64_t tensors, values;
    value value[64];
    tensor tensor[128];
} g;

static uint64_t take(size_t n) { /* a little-endian number */
    uint64_t x = 0;
    size_t i;
    if (g.at + n > g.size) return 0;
    for (i = 0; i < n; i++) x |= (uint64_t)(unsigned char)g.bytes[g.at + i] << 8 * i;
    g.at += n;
    return x;
}
static void take_name(char *out, size_t size) {
    uint64_t n = take(8);
    check(n < size && g.at + n <= g.size);
    if (n >= size || g.at + n > g.size) n = 0;
    memcpy(out, g.bytes + g.at, (size_t)n);
    out[n] = 0;
    g.at += (size_t)n;
}
static size_t width(uint32_t type) {
    static const size_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < 13 ? widths[type] : 0;
}

/* Bytes of a tensor's data; its blocks. */
static size_t tensor_bytes(const tensor *t) {
    size_t n = (size_t)(t->shape[0] * (t->rank > 1 ? t->shape[1] : 1));
    return t->type == 0 ? 4 * n : t->type == 1 || t->type == 30 ? 2 * n : t->type == 8 ? n / 32 * 34 : 0;
}

static void read_gguf(const char *path) {
    size_t i, k, end = 0;
    free(g.bytes);
    memset(&g, 0, sizeof g);
    g.bytes = read_bytes(path, &g.size);
    check(g.bytes && g.size > 24 && memcmp(g.bytes, "GGUF", 4) == 0);
    if (!g.bytes) return;
    g.at = 4;
    g.version = (uint32_t)take(4), g.tensors = take(8), g.values = take(8);
    check(g.version == 3 && g.tensors <= 128 && g.values <= 64);
    for (i = 0; i < g.values && i < 64; i++) {
        value *v = &g.value[i];
        take_name(v->key, sizeof v->key);
        v->type = (uint32_t)take(4);
        v->count = 1;
        if (v->type == 9) v->item = (uint32_t)take(4), v->count = take(8);
        if (v->type == 8) v->bytes = take(8);
        v->at = g.bytes + g.at;
        if (v->type == 8) g.at += (size_t)v->bytes;
        else if (v->type != 9) g.at += width(v->type);
        else if (v->item != 8) g.at += width(v->item) * (size_t)v->count;
        else
            for (k = 0; k < v->count; k++) {
                uint64_t n = take(8);
                g.at += (size_t)n;
            }
        for (k = 0; k < i; k++) check(strcmp(g.value[k].key, v->key) != 0);
        check(g.at <= g.size);
    }
    for (i = 0; i < g.tensors && i < 128; i++) {
        tensor *t = &g.tensor[i];
        take_name(t->name, sizeof t->name);
        t->rank = (uint32_t)take(4);
        check(t->rank == 1 || t->rank == 2);
        for (k = 0; k < t->rank && k < 4; k++) t->shape[k] = take(8);
        t->type = (uint32_t)take(4), t->offset = take(8);
        check(t->offset % 32 == 0 && t->offset == end); /* end to end, each on a boundary */
        end = ((size_t)t->offset + tensor_bytes(t) + 31) / 32 * 32;
    }
    g.data = (g.at + 31) / 32 * 32;
    check(g.data + end == g.size);
}

static const value *get(const char *key) {
    size_t i;
    for (i = 0; i < g.values; i++)
        if (strcmp(g.value[i].key, key) == 0) return &g.value[i];
    return NULL;
}
static double number(const char *key) { /* −1: there is none */
    const value *v = get(key);
    float x = -1;
    uint32_t u;
    if (!v) return -1;
    memcpy(&u, v->at, 4), memcpy(&x, v->at, 4);
    return v->type == 6 ? (double)x : v->type == 7 ? (double)v->at[0] : (double)u;
}
static int is_text(const char *key, const char *text) {
    const value *v = get(key);
    return v && v->type == 8 && v->bytes == strlen(text) && memcmp(v->at, text, strlen(text)) == 0;
}
static const char *item(const char *key, size_t i, size_t *n) { /* text i of an array */
    const value *v = get(key);
    const char *at = v ? v->at : NULL;
    uint64_t bytes = 0;
    for (; v && i < v->count; i--, at += bytes) {
        memcpy(&bytes, at, 8);
        at += 8;
        if (i == 0) break;
    }
    *n = (size_t)bytes;
    return at;
}
static int is_item(const char *key, size_t i, const char *text) {
    size_t n;
    const char *at = item(key, i, &n);
    return at && n == strlen(text) && memcmp(at, text, n) == 0;
}
static int32_t whole(const char *key, size_t i) {
    int32_t x;
    memcpy(&x, get(key)->at + 4 * i, 4);
    return x;
}

static const tensor *find(const char *name) {
    size_t i;
    for (i = 0; i < g.tensors; i++)
        if (strcmp(g.tensor[i].name, name) == 0) return &g.tensor[i];
    return NULL;
}

static double half(uint16_t h) { /* IEEE 754's binary16 */
    int e = h >> 10 & 31, f = h & 1023;
    double x = e == 31 ? (f ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h >> 15 ? -x : x;
}
static double element(const tensor *t, size_t i) {
    const char *at = g.bytes + g.data + t->offset;
    float x;
    uint16_t h = 0;
    uint32_t u;
    if (t->type == 0) return memcpy(&x, at + 4 * i, 4), (double)x;
    memcpy(&h, at + (t->type == 8 ? i / 32 * 34 : 2 * i), 2);
    if (t->type == 1) return half(h);
    if (t->type == 8) return half(h) * (double)(signed char)at[i / 32 * 34 + 2 + i % 32];
    u = (uint32_t)h << 16, memcpy(&x, &u, 4);
    return (double)x;
}

/* FNV-1a of the file: what it was when llama.cpp was asked (see below). */
static void check_hash(const char *name, size_t dtype, uint64_t golden) {
    uint64_t h = 14695981039346656037u;
    size_t i;
    for (i = 0; i < g.size; i++) h = (h ^ (unsigned char)g.bytes[i]) * 1099511628211u;
    check(h == golden || ORLI_DOUBLE); /* whose F32 weights are rounded */
    if (h != golden && !ORLI_DOUBLE) printf("    %s %zu: 0x%016llxu\n", name, dtype, (unsigned long long)h);
}

/* ---- models ---- */

static orl_tokenizer *make_tokenizer(void) {
    static const char text[] = "the cat sat on the mat and the cat ate the rat, the fat cat sat";
    static const char *const specials[] = {"<|end|>", "<|user|>", NULL};
    return orl_tokenizer_train(ctx, text, sizeof text - 1, 265, specials);
}

/* Weights that are no work of libm, so that the files are the same everywhere. */
static orl_model *make_model(orl_arch arch, orl_tokenizer *tok, int tied) {
    orl_model_config c = orl_model_config_default(arch);
    orl_model *m;
    orl_param *p;
    size_t i, k = 1;
    c.dim = 64, c.heads = 4, c.layers = 2, c.ffn = 40, c.context = 24;
    c.kv_heads = arch == ORL_GPT2 || arch == ORL_GPT_NEO || arch == ORL_GPT_NEOX ? 4 : 2;
    c.vocab = tok ? orl_vocab(tok) + 3 : 11; /* three rows that no token has */
    c.tied = tied;
    m = orl_model_create(ctx, &c, tok);
    for (p = m ? m->params->first : NULL; p; p = p->next)
        for (i = 0; i < p->rows * p->cols; i++, k = (k * 131 + 7) % 4093)
            p->data[i] = (orl_real)((double)k - 2046) / (p->rank >= 2 ? 4096 : 1024);
    return m;
}

/* ---- what is in the file ---- */

static void check_numbers(const char *name, const orl_param *p, size_t first, int paired, size_t head) {
    const tensor *t = find(name);
    size_t r, c, failed = 0;
    check(t != NULL);
    if (!t) {
        printf("    no %s\n", name);
        return;
    }
    check(t->shape[0] == p->cols || p->rank == 1);
    for (r = 0; r < p->rows; r++)
        for (c = 0; c < p->cols; c++) {
            /* neighbours 2i, 2i + 1 of a head were i, i + head/2 */
            size_t to = paired ? r / head * head + (r % head % (head / 2)) * 2 + (r % head) / (head / 2) : r;
            double x = (double)p->data[r * p->cols + c], y = element(t, first + to * p->cols + c), most = 0;
            double error = t->type == 0 ? fabs(x) * 1e-7 : t->type == 1 ? fabs(x) / 2048 : fabs(x) / 256;
            size_t k, block = c / 32 * 32;
            if (t->type == 8) { /* half a step of the block, and what the scale was rounded by */
                for (k = block; k < block + 32; k++) most = ORLI_MAX(most, fabs((double)p->data[r * p->cols + k]));
                error = most / 254 * 1.01 + most / 2048;
            }
            failed += !(fabs(x - y) <= error);
        }
    check(failed == 0);
    if (failed) printf("    %s: %zu numbers are wrong\n", name, failed);
}

static void check_llama(const orl_model *m, uint32_t matrix) {
    char name[64];
    size_t l;
    check(g.tensors == 3 + 9 * m->config.layers);
    check_numbers("token_embd.weight", orli_model_weight(m, ORLI_W_EMBED, 0), 0, 0, 0);
    check_numbers("output.weight", orli_model_weight(m, ORLI_W_HEAD, 0), 0, 0, 0);
    check_numbers("output_norm.weight", orli_model_weight(m, ORLI_W_NORM, 0), 0, 0, 0);
    for (l = 0; l < m->config.layers; l++) {
        static const struct {
            const char *name;
            orli_weight weight;
            int paired;
        } all[] = {{"attn_norm", ORLI_W_NORM1, 0}, {"attn_q", ORLI_W_Q, 1},      {"attn_k", ORLI_W_K, 1},
                   {"attn_v", ORLI_W_V, 0},        {"attn_output", ORLI_W_O, 0}, {"ffn_norm", ORLI_W_NORM2, 0},
                   {"ffn_gate", ORLI_W_GATE, 0},   {"ffn_up", ORLI_W_UP, 0},     {"ffn_down", ORLI_W_DOWN, 0}};
        size_t i;
        for (i = 0; i < sizeof all / sizeof *all; i++) {
            const orl_param *p = orli_model_weight(m, all[i].weight, l);
            const tensor *t;
            snprintf(name, sizeof name, "blk.%zu.%s.weight", l, all[i].name);
            check_numbers(name, p, 0, all[i].paired, 16);
            t = find(name); /* vectors stay F32; rows of 40 are no blocks of 32 */
            check(t && t->type == (p->rank < 2 ? 0 : matrix == 8 && p->cols % 32 ? 1 : matrix));
        }
    }
}

static void check_gpt2(const orl_model *m) {
    char name[64];
    size_t l, k, d = m->config.dim;
    check(g.tensors == 4 + 12 * m->config.layers && !find("output.weight"));
    check_numbers("position_embd.weight", orli_model_weight(m, ORLI_W_POSITION, 0), 0, 0, 0);
    check(find("position_embd.weight")->type == 0);
    check_numbers("output_norm.bias", orli_model_weight(m, ORLI_W_NORM_B, 0), 0, 0, 0);
    for (l = 0; l < m->config.layers; l++) {
        snprintf(name, sizeof name, "blk.%zu.attn_qkv.weight", l);
        check(find(name) && find(name)->shape[0] == d && find(name)->shape[1] == 3 * d);
        for (k = 0; k < 3; k++)
            check_numbers(name, orli_model_weight(m, (orli_weight)((size_t)ORLI_W_Q + k), l), k * d * d, 0, 0);
        snprintf(name, sizeof name, "blk.%zu.attn_qkv.bias", l);
        check(find(name) && find(name)->rank == 1 && find(name)->shape[0] == 3 * d);
        for (k = 0; k < 3; k++)
            check_numbers(name, orli_model_weight(m, (orli_weight)((size_t)ORLI_W_Q_B + k), l), k * d, 0, 0);
        snprintf(name, sizeof name, "blk.%zu.ffn_down.weight", l);
        check_numbers(name, orli_model_weight(m, ORLI_W_DOWN, l), 0, 0, 0);
        snprintf(name, sizeof name, "blk.%zu.ffn_up.bias", l);
        check_numbers(name, orli_model_weight(m, ORLI_W_UP_B, l), 0, 0, 0);
        snprintf(name, sizeof name, "blk.%zu.ffn_norm.bias", l);
        check_numbers(name, orli_model_weight(m, ORLI_W_NORM2_B, l), 0, 0, 0);
    }
}

/* The bytes of these files: llama.cpp quantises the F32 one to the three others, bit for bit. */
static const uint64_t golden_llama[4] = {0x16a66b93b22e3054u, 0x2d068d890eedeb4cu, 0x7d31d5a20d0787f6u,
                                         0x910f3be65a4b19f1u};
static const uint64_t golden_gpt2[4] = {0x77bf75fa38251f9du, 0xdcb4fa5d28096d29u, 0x35a6f4013aef8b9cu,
                                        0x06e1054a7aa6dde0u};

static void test_files(void) {
    static const uint32_t codes[] = {0, 1, 30, 8}, files[] = {0, 1, 32, 7};
    orl_tokenizer *tok = make_tokenizer();
    orl_model *llama = make_model(ORL_LLAMA, tok, 0), *gpt2 = make_model(ORL_GPT2, tok, 1);
    size_t vocab = orl_vocab(tok), i;
    char path[600];
    for (i = 0; i < 4; i++) {
        size_t now = orl_memory_now(ctx);
        snprintf(path, sizeof path, "%s", in_dir("llama.gguf"));
        notes[0] = 0, ctx->memory_peak = now;
        check(orl_model_save_gguf(llama, path, (orl_dtype)i) == ORL_OK);
        check(orl_memory_now(ctx) == now && ctx->memory_peak - now < 64 << 10); /* no tensor is held */
        check(i == 3 ? strstr(notes, "2 tensors are stored in F16") != NULL : !notes[0]);
        read_gguf(path);
        check(number("general.file_type") == files[i] && number("general.quantization_version") == 2);
        check_llama(llama, codes[i]);
        check_hash("llama", i, golden_llama[i]);
        check(orl_model_save_gguf(gpt2, path, (orl_dtype)i) == ORL_OK); /* what is there is replaced */
        read_gguf(path);
        check_gpt2(gpt2);
        check_hash("gpt2", i, golden_gpt2[i]);
    }
    check(is_text("general.architecture", "gpt2") && number("gpt2.context_length") == 24);
    check_near(number("gpt2.attention.layer_norm_epsilon"), 1e-5, 1e-12);
    check(number("gpt2.rope.freq_base") == -1);
    llama->config.rope.theta = 5e5;
    llama->stop[llama->stops++] = 1;
    orl_model_set_name(llama, "some/where/mine");
    check(orl_model_save_gguf(llama, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(is_text("general.architecture", "llama") && is_text("general.name", "mine"));
    check(number("llama.block_count") == 2 && number("llama.embedding_length") == 64);
    check(number("llama.feed_forward_length") == 40 && number("llama.attention.head_count") == 4);
    check(number("llama.attention.head_count_kv") == 2 && number("llama.attention.key_length") == 16);
    check(number("llama.rope.dimension_count") == 16 && number("llama.rope.freq_base") == 5e5);
    check_near(number("llama.attention.layer_norm_rms_epsilon"), 1e-5, 1e-12);
    check(number("llama.vocab_size") == (double)vocab + 3);
    check(is_text("tokenizer.ggml.model", "gpt2") && is_text("tokenizer.ggml.pre", "gpt-2"));
    check(get("tokenizer.ggml.tokens")->count == vocab + 3 && get("tokenizer.ggml.token_type")->count == vocab + 3);
    check(is_item("tokenizer.ggml.tokens", 0, "<|end|>") && is_item("tokenizer.ggml.tokens", vocab, "[PAD265]"));
    check(is_item("tokenizer.ggml.tokens", 2 + 32, "\xc4\xa0")); /* a space: Ġ */
    check(whole("tokenizer.ggml.token_type", 1) == 3 && whole("tokenizer.ggml.token_type", 5) == 1);
    check(whole("tokenizer.ggml.token_type", vocab + 2) == 5);
    check(get("tokenizer.ggml.merges")->count == vocab - 258 && is_item("tokenizer.ggml.merges", 0, "a t"));
    check(number("tokenizer.ggml.eos_token_id") == 0 && number("tokenizer.ggml.eot_token_id") == 1);
    check(number("tokenizer.ggml.add_bos_token") == 0 && !get("tokenizer.chat_template"));
    orl_model_free(llama), orl_model_free(gpt2);
    orl_tokenizer_free(tok);
    llama = make_model(ORL_LLAMA, NULL, 1);
    check(orl_model_save_gguf(llama, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(is_text("tokenizer.ggml.model", "none") && number("llama.vocab_size") == 11 && !find("output.weight"));
    orl_model_free(llama);
}

/* The other families: what is special to each. */
static void test_families(void) {
    char path[600];
    orl_model *m;
    size_t i;
    snprintf(path, sizeof path, "%s", in_dir("family.gguf"));
    m = make_model(ORL_GPT_NEO, NULL, 1);
    check(orl_model_save_gguf(m, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "the family gpt_neo");
    orl_model_free(m);
    m = make_model(ORL_GPT_NEOX, NULL, 1); /* wants a head even if it is the embedding */
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(is_text("general.architecture", "gptneox") && number("gptneox.rope.dimension_count") == 8);
    check(get("gptneox.use_parallel_residual") && get("gptneox.use_parallel_residual")->at[0] == 1);
    check_numbers("output.weight", orli_model_weight(m, ORLI_W_EMBED, 0), 0, 0, 0);
    check_numbers("blk.1.attn_qkv.weight", orli_model_weight(m, ORLI_W_K, 1), 64 * 64, 0, 0);
    check_numbers("blk.1.attn_qkv.bias", orli_model_weight(m, ORLI_W_V_B, 1), 2 * 64, 0, 0);
    orl_model_free(m);
    m = make_model(ORL_QWEN3, NULL, 1);
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(is_text("general.architecture", "qwen3"));
    check_numbers("blk.0.attn_q.weight", orli_model_weight(m, ORLI_W_Q, 0), 0, 0, 0); /* pairs are halves there too */
    check_numbers("blk.0.attn_k_norm.weight", orli_model_weight(m, ORLI_W_K_NORM, 0), 0, 0, 0);
    m->config.rope.factor = 4; /* linear: two settings */
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(is_text("qwen3.rope.scaling.type", "linear") && number("qwen3.rope.scaling.factor") == 4);
    m->config.rope.original = 8192;
    check(orl_model_save_gguf(m, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "rope_scaling");
    m->config.rope.factor = 0, m->config.by_layer = 1;
    check(orl_model_save_gguf(m, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "scores are divided by");
    m->config.by_layer = 0, m->config.activation = ORL_GELU;
    check(orl_model_save_gguf(m, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "its activation");
    orl_model_free(m);
    m = make_model(ORL_GEMMA3, NULL, 1);
    for (i = 0; i < 64; i++) orli_model_weight(m, ORLI_W_POST2, 1)->data[i] = (orl_real)0.25;
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    read_gguf(path);
    check(find("blk.1.post_ffw_norm.weight") && number("gemma3.attention.sliding_window") == 64);
    check(element(find("blk.1.post_ffw_norm.weight"), 63) == 1.25 && number("gemma3.rope.freq_base") == 1e6);
    for (i = 0; i < 16; i++) {
        double x = element(find("blk.0.attn_q_norm.weight"), i);
        check_near(x, 1 + (double)orli_model_weight(m, ORLI_W_Q_NORM, 0)->data[i], 1e-6);
    }
    m->config.layer[0] = 0;
    check(orl_model_save_gguf(m, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "which of its layers");
    orl_model_free(m);
    m = make_model(ORL_MISTRAL, NULL, 1), notes[0] = 0;
    m->config.window = 8;
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    check_contains(notes, "2 layers see more than their 8 last tokens");
    orl_model_free(m);
    m = make_model(ORL_LLAMA, NULL, 1); /* Llama 3's scaling: a divisor for each pair */
    m->config.rope.theta = 5e5, m->config.rope.factor = 8, m->config.rope.low = 1, m->config.rope.high = 4;
    m->config.rope.original = 8192;
    check(orl_model_save_gguf(m, path, ORL_Q8_0) == ORL_OK);
    read_gguf(path);
    check(find("rope_freqs.weight") && find("rope_freqs.weight")->type == 0 && find("rope_freqs.weight")->shape[0] == 8);
    for (i = 0; i < 8; i++) { /* as in Meta's code */
        double f = pow(5e5, -(double)i / 8), wave = 2 * 3.14159265358979323846 / f, smooth = (8192 / wave - 1) / 3;
        double divisor = wave < 2048 ? 1 : wave > 8192 ? 8 : 1 / ((1 - smooth) / 8 + smooth);
        check_near(element(find("rope_freqs.weight"), i), divisor, 1e-5);
    }
    orl_model_free(m);
}

/* A SentencePiece-style tokenizer: scores in the order of merges, types, what is put before a text. */
static void test_sentencepiece(void) {
    static const struct {
        float score;
        const char *text;
    } tokens[] = {{0, "<unk>"}, {0, "\n<s>\n"}, {0, "\n</s>\n"}, {0, "<0x0A>"}, {-9, " "}, {-9, "a"}, {-9, "b"},
                  {-2, " a"},   {-1, "ab"},     {-3, " ab"}};
    char bytes[400];
    size_t i, n = 4;
    orl_tokenizer *tok;
    orl_model *m;
    const value *v;
    float score[10];
    memset(bytes, 0, sizeof bytes);
    for (i = 0; i < 10; i++) {
        int32_t length = (int32_t)strlen(tokens[i].text);
        memcpy(bytes + n, &tokens[i].score, 4), memcpy(bytes + n + 4, &length, 4);
        memcpy(bytes + n + 8, tokens[i].text, (size_t)length);
        n += 8 + (size_t)length;
    }
    write_bytes(in_dir("tok.bin"), bytes, n);
    tok = orl_tokenizer_load_llama2c(ctx, in_dir("tok.bin"), 0);
    check(tok && orl_vocab(tok) == 10);
    m = make_model(ORL_LLAMA, tok, 1);
    check(orl_model_save_gguf(m, in_dir("sp.gguf"), ORL_F32) == ORL_OK);
    read_gguf(in_dir("sp.gguf"));
    check(is_text("tokenizer.ggml.model", "llama") && number("tokenizer.ggml.add_space_prefix") == 1);
    check(number("tokenizer.ggml.bos_token_id") == 1 && number("tokenizer.ggml.add_bos_token") == 1);
    check(number("tokenizer.ggml.unknown_token_id") == 0 && number("tokenizer.ggml.eos_token_id") == 2);
    check(is_item("tokenizer.ggml.tokens", 1, "<s>") && is_item("tokenizer.ggml.tokens", 7, "\xe2\x96\x81" "a"));
    check(whole("tokenizer.ggml.token_type", 0) == 2 && whole("tokenizer.ggml.token_type", 2) == 3);
    check(whole("tokenizer.ggml.token_type", 3) == 6 && whole("tokenizer.ggml.token_type", 4) == 1);
    v = get("tokenizer.ggml.scores");
    check(v && v->count == 13 && v->item == 6 && !get("tokenizer.ggml.merges"));
    memcpy(score, v->at, sizeof score);
    check(score[8] > score[7] && score[7] > score[9] && score[9] > score[5]); /* ab, then " a", then " ab" */
    orl_model_free(m);
    orl_tokenizer_free(tok);
}

static void test_refused(void) {
    orl_tokenizer *tok = make_tokenizer();
    orl_model *m = make_model(ORL_LLAMA, tok, 1), *rm = orl_reward_model(m);
    orl_real before;
    orl_param *p = orli_model_weight(m, ORLI_W_UP, 1);
    size_t i;
    char path[600];
    snprintf(path, sizeof path, "%s", in_dir("no.gguf"));
    check(orl_model_save_gguf(rm, path, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "reward model");
    check(orl_model_save_gguf(m, NULL, ORL_F32) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "a path");
    check(orl_model_save_gguf(m, path, (orl_dtype)9) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "Q8_0");
    check(orl_model_save_gguf(m, in_dir("no/where.gguf"), ORL_F32) != ORL_OK), expect_error(ORL_ERR_IO, "where.gguf");
    check(orl_model_save_as(m, in_dir("dir"), ORL_Q8_0) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "GGUF");
    check(orl_model_save_gguf(NULL, path, ORL_F32) == ORL_OK || 1);
    before = p->data[5];
    p->data[5] = (orl_real)65520; /* F16's largest number and half a step */
    check(orl_model_save_gguf(m, path, ORL_F16) != ORL_OK);
    expect_error(ORL_ERR_ARGUMENT, "tensor \"blk.1.ffn_up.weight\" has the number 65520, which F16 cannot hold");
    check(orl_model_save_as(m, in_dir("dir"), ORL_F16) != ORL_OK);
    expect_error(ORL_ERR_ARGUMENT, "tensor \"model.layers.1.mlp.up_proj.weight\" has the number 65520, which F16");
    check(!orli_exists(in_dir("dir")) && !orli_exists(in_dir("dir.writing")) && !orli_exists(path));
    check(orl_model_save_gguf(m, path, ORL_BF16) == ORL_OK && orl_model_save_gguf(m, path, ORL_Q8_0) == ORL_OK);
    p->data[5] = (orl_real)-3.3961776e38;
    check(orl_model_save_gguf(m, path, ORL_BF16) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "BF16");
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    for (i = 0; i < 2; i++) {
        p->data[5] = i ? (orl_real)NAN : (orl_real)-INFINITY; /* no scale goes with these */
        check(orl_model_save_gguf(m, path, ORL_Q8_0) != ORL_OK), expect_error(ORL_ERR_ARGUMENT, "Q8_0");
        check(orl_model_save_gguf(m, path, ORL_F16) == ORL_OK);
    }
    p->data[5] = before;
    m->condition.kind = ORL_CONDITION_TEXT, notes[0] = 0;
    check(orl_model_save_gguf(m, path, ORL_F32) == ORL_OK);
    check_contains(notes, "condition");
    orl_model_free(rm), orl_model_free(m);
    orl_tokenizer_free(tok);
}

/* ---- directories ---- */

static void check_same_weights(const orl_model *a, const orl_model *b) {
    const orl_param *p = a->params->first, *q = b->params->first;
    for (; p && q; p = p->next, q = q->next)
        check(p->rows == q->rows && memcmp(p->data, q->data, p->rows * p->cols * sizeof *p->data) == 0);
    check(!p && !q);
}

static void check_same_file(const char *a, const char *b, const char *name) {
    char path[700];
    size_t na = 0, nb = 1;
    char *x, *y;
    snprintf(path, sizeof path, "%s/%s", a, name);
    x = read_bytes(path, &na);
    snprintf(path, sizeof path, "%s/%s", b, name);
    y = read_bytes(path, &nb);
    check(x && y && na == nb && memcmp(x, y, na) == 0);
    if (!x || !y) printf("    %s\n", name);
    free(x), free(y);
}

/* Rounded once, a model stays what it is: load → save → load is exact, in each type. */
static void test_types(void) {
    static const char *const torch[] = {"float32", "float16", "bfloat16"};
    int i, arch;
    char first[600], second[640], path[700], expected[64];
    for (arch = 0; arch < 2; arch++)
        for (i = 0; i < 3; i++) {
            orl_model *m = make_model((orl_arch)arch, NULL, 0), *once, *twice;
            orl_real *x = orli_model_weight(m, ORLI_W_K, 1)->data;
            orli_safetensors st;
            size_t n, k;
            char *text;
            x[0] = (orl_real)NAN, x[1] = (orl_real)INFINITY, x[2] = (orl_real)-0.0, x[3] = (orl_real)1e-7;
            snprintf(first, sizeof first, "%s", in_dir(torch[i]));
            snprintf(second, sizeof second, "%s.again", first);
            check(orl_model_save_as(m, first, (orl_dtype)i) == ORL_OK);
            once = orl_model_load(ctx, first);
            x = once ? orli_model_weight(once, ORLI_W_K, 1)->data : x;
            check(once && x[0] != x[0] && x[1] > (orl_real)1e38 && 1 / x[2] < 0 && x[3] > 0);
            check(orl_model_save_as(once, second, (orl_dtype)i) == ORL_OK);
            check_same_file(first, second, "model.safetensors");
            check_same_file(first, second, "config.json");
            twice = orl_model_load(ctx, second);
            if (once && twice) check_same_weights(once, twice);
            snprintf(path, sizeof path, "%s/config.json", first);
            text = read_bytes(path, &n);
            snprintf(expected, sizeof expected, "\"torch_dtype\": \"%s\"", torch[i]);
            check_contains(text, expected);
            free(text);
            check(orli_safetensors_open(ctx, first, &st) == ORL_OK);
            check((st.shard[0].header + 8) % 8 == 0); /* and the tensors lie end to end: the reader insists */
            for (k = 0; k < st.count; k++) check(st.tensor[k].dtype == (orli_dtype)i);
            orli_safetensors_close(&st);
            orl_model_free(m), orl_model_free(once), orl_model_free(twice);
            remove_tree(first), remove_tree(second);
        }
    check(!orl_failed(ctx));
}

/* Weights that stay in their file, in BF16, give the same bytes as those that were read. */
static void test_frozen(void) {
    int arch, i;
    char from[600], *bytes;
    size_t n = 0;
    snprintf(from, sizeof from, "%s", in_dir("half"));
    for (arch = 0; arch < 2; arch++) {
        orl_model *m = make_model((orl_arch)arch, NULL, 0), *read, *lies;
        check(orl_model_save_as(m, from, ORL_BF16) == ORL_OK);
        read = orl_model_load(ctx, from), lies = orl_model_load_frozen(ctx, from);
        for (i = 0; i < 4; i++) {
            check(orl_model_save_gguf(read, in_dir("read"), (orl_dtype)i) == ORL_OK);
            check(orl_model_save_gguf(lies, in_dir("lies"), (orl_dtype)i) == ORL_OK);
            read_gguf(in_dir("read"));
            bytes = read_bytes(in_dir("lies"), &n);
            check(bytes && n == g.size && memcmp(bytes, g.bytes, n) == 0);
            free(bytes);
        }
        orl_model_free(m), orl_model_free(read), orl_model_free(lies);
        remove_tree(from);
    }
}

static void put(const char *where, const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", where, name);
    write_bytes(path, text, strlen(text));
}

/* What a directory holds beside what we use of it is still there after load → save. */
static void test_kept(void) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json", "chat_template.jinja"};
    static const char *const config =
        "{\"chat_template\": [{\"name\": \"tools\", \"template\": \"T\"}, "
        "{\"template\": \"{% for m in messages %}\\n\", \"name\": \"default\"}], \"eos_token\": {\"content\": \"<|end|>\"}, \"extra_special_tokens\": {}}\n";
    char from[600], to[600], path[700], *text, *tokens;
    orl_tokenizer *tok = make_tokenizer();
    orl_model *m = make_model(ORL_LLAMA, tok, 1), *back, *rm;
    size_t n, i, now;
    snprintf(from, sizeof from, "%s", in_dir("from"));
    snprintf(to, sizeof to, "%s", in_dir("to"));
    check(orl_model_save(m, from) == ORL_OK);
    orl_model_free(m), orl_tokenizer_free(tok);
    snprintf(path, sizeof path, "%s/config.json", from);
    text = read_bytes(path, &n);
    text[strrchr(text, '}') - text] = 0;
    tokens = (char *)malloc(n + 500);
    snprintf(tokens, n + 500,
             "%s, \"initializer_range\": 0.02, \"use_cache\" : true,\n \"nested\": {\"a\": [1, {\"b\": \"}\"}]},"
             "\"dtype\": \"bfloat16\", \"\\u0068ead_note\": \"\\u00e9\"}", text);
    put(from, "config.json", tokens);
    free(text), free(tokens);
    put(from, "tokenizer_config.json", config);
    put(from, "special_tokens_map.json", "{ \"eos_token\" :\"<|end|>\"}");
    put(from, "generation_config.json", "{\"temperature\": 0.6}");
    put(from, "chat_template.jinja", "{{ messages }}");
    now = orl_memory_now(ctx);
    back = orl_model_load(ctx, from);
    check(back && orl_model_save(back, to) == ORL_OK);
    for (i = 0; i < 5; i++) check_same_file(from, to, files[i]);
    snprintf(path, sizeof path, "%s/config.json", to);
    text = read_bytes(path, &n);
    check_contains(text, "\"initializer_range\": 0.02,\n");
    check_contains(text, "\"use_cache\": true,\n");
    check_contains(text, "\"nested\": {\"a\": [1, {\"b\": \"}\"}]},\n");
    check_contains(text, "\"\\u0068ead_note\": \"\\u00e9\"\n}\n");
    check_contains(text, "\"torch_dtype\": \"float");
    check(text && !strstr(text, "\"dtype\": \"bfloat16\""));
    free(text);
    remove_tree(from); /* copies: nothing of it is needed any more */
    check(orl_model_save_gguf(back, in_dir("kept.gguf"), ORL_F32) == ORL_OK);
    read_gguf(in_dir("kept.gguf"));
    check(is_text("tokenizer.chat_template", "{{ messages }}"));
    rm = orl_reward_model(back);
    check(orl_model_save(rm, from) == ORL_OK); /* its head is not what the config came with: ours wins */
    snprintf(path, sizeof path, "%s/config.json", from);
    text = read_bytes(path, &n);
    check_contains(text, "LlamaForSequenceClassification");
    check_contains(text, "\"initializer_range\": 0.02");
    check(text && !strstr(text, "ForCausalLM"));
    free(text);
    orl_model_free(rm);
    remove_tree(from);
    tok = orl_model_tokenizer(back);
    check(orl_token_add_special(tok, "<|new|>") == 265);
    check(orl_tokenizer_save(tok, from) == ORL_OK);
    check_same_file(from, to, "tokenizer_config.json");
    orl_model_free(back), orl_tokenizer_free(tok);
    check(orl_memory_now(ctx) == now);
    snprintf(path, sizeof path, "%s/chat_template.jinja", from);
    check(remove(path) == 0);
    tok = orl_tokenizer_load(ctx, from); /* with the token, and the list of templates */
    check(tok && orl_token_id(tok, "<|new|>") == 265);
    m = make_model(ORL_LLAMA, tok, 1);
    check(orl_model_save_gguf(m, in_dir("kept.gguf"), ORL_F32) == ORL_OK);
    read_gguf(in_dir("kept.gguf"));
    check(is_text("tokenizer.chat_template", "{% for m in messages %}\n"));
    orl_model_free(m), orl_tokenizer_free(tok);
    remove_tree(from), remove_tree(to);
}

/* Each allocation in turn fails: an error, and nothing is left of a file or a directory. */
static void test_faults(void) {
    orl_tokenizer *tok = make_tokenizer();
    orl_model *m = make_model(ORL_LLAMA, tok, 1), *back;
    char from[600], to[600], file[600];
    size_t n, done = 0, now;
    snprintf(from, sizeof from, "%s", in_dir("whole"));
    snprintf(to, sizeof to, "%s", in_dir("part"));
    snprintf(file, sizeof file, "%s", in_dir("part.gguf"));
    check(orl_model_save(m, from) == ORL_OK);
    put(from, "generation_config.json", "{}");
    orl_model_free(m), orl_tokenizer_free(tok);
    back = orl_model_load(ctx, from);
    now = orl_memory_now(ctx);
    for (n = 1; n < 400 && !done; n++) {
        fault_at = n, fault_count = 0;
        orl_model_save_gguf(back, file, ORL_Q8_0);
        if (!orl_failed(ctx)) orl_model_save_as(back, to, ORL_F16);
        done = fault_count < n;
        fault_at = 0;
        check(done ? !orl_failed(ctx) : orl_error_status(ctx) == ORL_ERR_MEMORY);
        check(done || !orli_exists(to));
        check(orl_memory_now(ctx) == now);
        remove(file);
        orl_clear_error(ctx);
    }
    check(done && n > 20);
    tok = orl_model_tokenizer(back);
    orl_model_free(back), orl_tokenizer_free(tok);
    remove_tree(from), remove_tree(to);
}

int main(void) {
    ctx = orl_create(NULL);
    if (orl_failed(ctx) || !make_dir("test_11_gguf", NULL)) return 1;
    orl_on_note(ctx, on_note, NULL);
    test_files();
    test_families();
    test_sentencepiece();
    test_refused();
    test_types();
    test_frozen();
    test_kept();
    test_faults();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    orl_destroy(ctx);
    free(g.bytes);
    remove_tree(dir);
    return test_report("test_11_gguf");
}
