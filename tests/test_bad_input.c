/* test_bad_input.c - what must end in a status and one sentence, never in a crash, a leak or half a file:
 * damaged and contradictory files of every kind, data nothing can be learned from, things that do not
 * belong together, outputs that exist, no memory at any place of a whole pipeline; and some thousands of
 * byte flips and cuts of good files. */
#include "fault.h"
#include "files.h"

static orl_ctx *ctx;
static int quick; /* under sanitizers */

static orl_ctx *make_ctx(size_t limit) {
    orl_config c = orl_config_default();
    c.threads = 1, c.memory_limit = limit;
    return orl_create(&c);
}

/* A failure of this kind, in one sentence that has this part. */
static void check_refused(orl_ctx *c, orl_status status, const char *part, int line) {
    const char *sentence = orl_error(c);
    int ok = orl_error_status(c) == status && strstr(sentence, part) && strlen(sentence) > 15 && !strchr(sentence, '\n');
    test_check(ok, "it is refused with this sentence", __FILE__, line);
    if (!ok) printf("    line %d: status %d, \"%s\"; wanted %d and \"%s\"\n", line, (int)orl_error_status(c), sentence, (int)status, part);
    orl_clear_error(c);
}
#define refused(status, part) check_refused(ctx, status, part, __LINE__)

/* ---- files ---- */

static void put_text(const char *path, const char *text) { write_bytes(path, text, strlen(text)); }

static int exists(const char *path) { return access(path, F_OK) == 0; }

/* What `from` says becomes `to`, once, in a copy of the text; NULL if it does not say so. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    char *out = (char *)calloc(1, strlen(text) + strlen(to) + 1);
    check(at != NULL);
    if (!at || !out) return out;
    memcpy(out, text, (size_t)(at - text));
    strcpy(out + (at - text), to);
    strcat(out, at + strlen(from));
    return out;
}

/* ---- a small world ---- */

static orl_tokenizer *make_tokenizer(orl_ctx *c) {
    static const char *const specials[] = {"<|endoftext|>", NULL};
    static const char text[] = "the cat sat on the mat and the dog sat on the log";
    return orl_tokenizer_train(c, text, sizeof text - 1, 262, specials);
}

static orl_model *make_model(orl_ctx *c, orl_arch arch, orl_tokenizer *tok) {
    orl_model_config mc = orl_model_config_default(arch);
    mc.vocab = tok ? orl_vocab(tok) : 8, mc.dim = 8, mc.heads = 2, mc.kv_heads = arch == ORL_GPT2 ? 2 : 1, mc.layers = 1, mc.ffn = 8, mc.context = 32;
    mc.eos = 0;
    return orl_model_create(c, &mc, tok);
}

static const char ask_lines[] = "{\"prompt\": \"the cat\", \"completion\": \" sat\"}\n{\"prompt\": \"the dog\", \"completion\": \" sat on\", \"id\": 7}\n";
static const char pair_lines[] = "{\"prompt\": \"the cat\", \"chosen\": \" sat\", \"rejected\": \" log\"}\n{\"prompt\": \"the dog\", \"chosen\": \" on\", \"rejected\": \" mat\"}\n";

static orl_dataset *parse(orl_ctx *c, const char *text) { return orl_dataset_parse(c, text, strlen(text), "data"); }

static orl_train_options two_steps(void) {
    orl_train_options o = orl_train_default();
    o.steps = 2, o.batch = 2, o.warmup = 0;
    return o;
}

/* ---- no memory, at every place ---- */

/* Everything once; whatever fails first is in the context. */
static void pipeline(orl_ctx *c, const char *out) {
    orl_tokenizer *tok = make_tokenizer(c), *again;
    orl_model *m = make_model(c, ORL_LLAMA, tok), *rm, *back;
    orl_dataset *data = parse(c, ask_lines), *pairs = parse(c, pair_lines), *samples, *best, *weighed, *told;
    orl_train_options o = two_steps();
    orl_generate_options g = orl_generate_default();
    orl_condition_options condition = orl_condition_default(ORL_CONDITION_BINS);
    orl_ppo_options p = orl_ppo_default();
    orl_result result[2];
    orl_model *both[2];
    char path[600], *text;
    snprintf(path, sizeof path, "%s.checkpoint", out);
    o.checkpoint = path, o.save_every = 1;
    orl_train(m, data, &o);
    o.checkpoint = NULL;
    g.samples = 2, g.max_tokens = 4;
    samples = orl_sample(m, data, &g);
    rm = orl_reward_model(m);
    orl_train_reward(rm, pairs, &o);
    orl_score(rm, samples);
    p.iterations = 2, p.rollouts = 2, p.minibatch = 2, p.epochs = 1, p.max_tokens = 3;
    p.checkpoint = path, p.save_every = 1;
    orl_train_ppo(m, rm, data, &p);
    orl_normalise(samples);
    best = orl_filter(samples, ORL_BEST_OF, 2);
    weighed = orl_weight(samples, 1, ORL_BASELINE_PROMPT, 20);
    condition.bins = 4;
    told = orl_condition(weighed, &condition);
    orl_train(m, told, &o);
    orl_train_dpo(m, pairs, NULL, 0.1, &o);
    orl_dataset_free(orl_sample(m, best, &g));
    both[0] = both[1] = m;
    orl_evaluate(both, 2, data, rm, NULL, result);
    snprintf(path, sizeof path, "%s.jsonl", out);
    orl_dataset_save(samples, path);
    text = orl_generate_text(m, "the", &g);
    orl_free(c, text);
    orl_model_save(m, out);
    back = orl_model_load(c, out);
    again = orl_tokenizer_load(c, out);
    orl_tokenizer_free(again);
    orl_model_free(back);
}

/* The same for adapters on frozen weights, and what is written for others. */
static void adapters(orl_ctx *c, const char *out) {
    orl_model *m = make_model(c, ORL_GPT2, make_tokenizer(c)), *frozen, *back;
    orl_dataset *data = parse(c, ask_lines), *pairs = parse(c, pair_lines);
    orl_train_options o = two_steps();
    orl_generate_options g = orl_generate_default();
    orl_lora_options l = orl_lora_default();
    char path[600], *text;
    orl_model_save_as(m, out, ORL_BF16);
    frozen = orl_model_load_frozen(c, out);
    l.rank = 2, l.targets = "c_attn";
    orl_lora_add(frozen, &l);
    orl_train(frozen, data, &o);
    orl_train_dpo(frozen, pairs, NULL, 0.1, &o);
    snprintf(path, sizeof path, "%s.adapter", out);
    orl_lora_save(frozen, path);
    back = orl_model_load(c, path);
    g.max_tokens = 3;
    text = orl_generate_text(back, "the", &g);
    orl_free(c, text);
    orl_lora_merge(back);
    orl_model_store_bf16(back);
    snprintf(path, sizeof path, "%s.gguf", out);
    orl_model_save_gguf(back, path, ORL_Q8_0);
    orl_model_free(back);
}

static void clean(const char *out) {
    static const char *const names[] = {".adapter/adapter_config.json", ".adapter/orl_adapter.json", ".adapter/adapter_model.safetensors",
                                        ".adapter", ".gguf", "/config.json", "/model.safetensors", "/tokenizer.json", "/tokenizer_config.json", "", ".writing/config.json",
                                        ".writing/model.safetensors", ".writing/tokenizer.json", ".writing/tokenizer_config.json", ".writing",
                                        ".checkpoint", ".jsonl"};
    char path[700];
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", out, names[i]);
        remove(path);
    }
}

/* Nothing half-written is to be seen after a failure: temporary files are gone, and what has its name is whole. */
static void check_whole(const char *out) {
    char path[600];
    orl_ctx *c = make_ctx(0);
    size_t was = fault_at;
    fault_at = 0;
    snprintf(path, sizeof path, "%s.checkpoint.tmp", out);
    check(!exists(path));
    snprintf(path, sizeof path, "%s.jsonl.tmp", out);
    check(!exists(path));
    snprintf(path, sizeof path, "%s.writing", out);
    check(!exists(path));
    snprintf(path, sizeof path, "%s.adapter.writing", out);
    check(!exists(path));
    snprintf(path, sizeof path, "%s.gguf.tmp", out);
    check(!exists(path));
    if (exists(out)) check(orl_model_load(c, out) != NULL);
    snprintf(path, sizeof path, "%s.adapter", out);
    if (exists(path)) check(orl_has_lora(orl_model_load(c, path)));
    snprintf(path, sizeof path, "%s.jsonl", out);
    if (exists(path)) check(orl_dataset_count(orl_dataset_load(c, path)) == 4);
    if (orl_failed(c)) printf("    %s\n", orl_error(c));
    orl_destroy(c);
    fault_at = was;
}

static void test_no_memory(void (*all_of)(orl_ctx *, const char *)) {
    char out[600];
    size_t before = fault_live, all, n, step;
    orl_ctx *c;
    snprintf(out, sizeof out, "%s", in_dir("pipeline"));
    fault_count = 0;
    c = make_ctx(0);
    all_of(c, out);
    check(!orl_failed(c));
    if (orl_failed(c)) printf("    %s\n", orl_error(c));
    orl_destroy(c);
    check(fault_live == before);
    all = fault_count;
    printf("a pipeline of %zu allocations\n", all);
    check_whole(out);
    clean(out);
    step = quick ? all / 150 : all / 1000;
    if (step < 1) step = 1;
    for (n = 1; n <= all; n += n < 200 ? 1 : step) {
        fault_count = 0, fault_at = n;
        c = make_ctx(0);
        if (c) {
            all_of(c, out);
            if (orl_error_status(c) != ORL_ERR_MEMORY || !strstr(orl_error(c), "no memory")) {
                check(orl_error_status(c) == ORL_ERR_MEMORY);
                printf("    request %zu refused: status %d, %s\n", n, (int)orl_error_status(c), orl_error(c));
            } else test_passed++;
            orl_destroy(c);
        }
        fault_at = 0;
        check(fault_live == before);
        if (fault_live != before) {
            printf("    request %zu refused: %zu blocks leak\n", n, fault_live - before);
            before = fault_live;
        }
        if (n % 7 == 0) check_whole(out);
        clean(out);
    }
    { /* and by a limit */
        size_t limit;
        for (limit = 1000; limit < 40000000; limit += limit / (quick ? 2 : 6)) {
            c = make_ctx(limit);
            if (!c) continue;
            all_of(c, out);
            check(orl_memory_peak(c) <= limit);
            check(!orl_failed(c) || orl_error_status(c) == ORL_ERR_MEMORY);
            orl_destroy(c);
            check(fault_live == before);
            clean(out);
        }
    }
}

/* ---- damaged and contradictory model directories ---- */

typedef struct edit {
    const char *file, *from, *to; /* from NULL: the whole file becomes `to`; to NULL: the file is removed */
    orl_status status;
    const char *part;
} edit;

static void copy_dir(const char *from, const char *to) {
    char command[1300];
    snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s'", to, from, to);
    check(system(command) == 0);
}

static void test_model_files(orl_arch arch) {
    static const edit both[] = {
        {"config.json", NULL, NULL, ORL_ERR_IO, "config.json"},
        {"config.json", NULL, "", ORL_ERR_FORMAT, "config.json"},
        {"config.json", NULL, "{\"model_type\": \"llama\"", ORL_ERR_FORMAT, "config.json"},
        {"config.json", NULL, "[]", ORL_ERR_FORMAT, "config.json"},
        {"config.json", NULL, "{}", ORL_ERR_FORMAT, "model_type"},
        {"config.json", "\"vocab_size\": 262", "\"vocab_size\": 100", ORL_ERR_MISMATCH, "262"},
        {"config.json", "\"vocab_size\": 262", "\"vocab_size\": 300", ORL_ERR_FORMAT, "model.safetensors"},
        {"config.json", "\"vocab_size\": 262", "\"vocab_size\": -1", ORL_ERR_FORMAT, "config.json"},
        {"config.json", "\"vocab_size\": 262", "\"vocab_size\": 1e30", ORL_ERR_FORMAT, "config.json"},
        {"config.json", "\"vocab_size\"", "\"n_vocab\"", ORL_ERR_ARGUMENT, "vocab_size"},
        {"model.safetensors", NULL, NULL, ORL_ERR_IO, "model.safetensors"},
        {"model.safetensors", NULL, "", ORL_ERR_FORMAT, "model.safetensors"},
        {"model.safetensors", NULL, "1234567", ORL_ERR_FORMAT, "model.safetensors"},
        {"model.safetensors", NULL, "\377\377\377\377\377\377\377\177{}", ORL_ERR_FORMAT, "model.safetensors"},
        {"tokenizer.json", NULL, "", ORL_ERR_FORMAT, "tokenizer.json"},
        {"tokenizer.json", NULL, "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", ORL_ERR_FORMAT, "tokenizer.json"},
        {"tokenizer.json", NULL, "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", ORL_ERR_FORMAT, "tokenizer.json"}};
    static const edit llama[] = {
        {"config.json", "\"num_attention_heads\": 2", "\"num_attention_heads\": 3", ORL_ERR_FORMAT, "q_proj.weight"},
        {"config.json", "\"hidden_size\": 8", "\"hidden_size\": 16", ORL_ERR_FORMAT, "model.safetensors"},
        {"config.json", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2", ORL_ERR_FORMAT, "layers.1"},
        {"config.json", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0", ORL_ERR_FORMAT, "config.json:"},
        {"config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", ORL_ERR_FORMAT, "lm_head"},
        {"config.json", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", ORL_ERR_FORMAT, "hidden_act"}};
    char good[300], bad[300], path[600];
    orl_tokenizer *tok = make_tokenizer(ctx);
    orl_model *m = make_model(ctx, arch, tok);
    size_t i, n, extra = arch == ORL_LLAMA ? sizeof llama / sizeof *llama : 0;
    snprintf(good, sizeof good, "%s", in_dir("good"));
    snprintf(bad, sizeof bad, "%s", in_dir("bad"));
    check(orl_model_save(m, good) == ORL_OK);
    for (i = 0; i < sizeof both / sizeof *both + extra; i++) {
        const edit *e = i < extra ? &llama[i] : &both[i - extra];
        size_t blocks;
        copy_dir(good, bad);
        snprintf(path, sizeof path, "%s/%s", bad, e->file);
        if (!e->to) check(remove(path) == 0);
        else if (!e->from) put_text(path, e->to);
        else {
            char *text = read_bytes(path, &n), *changed = replaced(text, e->from, e->to);
            put_text(path, changed);
            free(text), free(changed);
        }
        blocks = fault_live;
        m = orl_model_load(ctx, bad);
        check(!m);
        if (m) printf("    %s with %s for %s loads\n", e->file, e->to, e->from);
        else {
            if (!strstr(orl_error(ctx), e->part) || orl_error_status(ctx) != e->status) printf("    (%s: %s → %s)\n", e->file, e->from ? e->from : "all", e->to ? e->to : "removed");
            refused(e->status, e->part);
        }
        (void)blocks; /* a tokenizer that did load stays in the context until its end */
    }
    { /* tensors: missing, of another shape, of no dtype there is, overlapping, cut off */
        static const char *const names[2] = {"transformer.ln_f.weight", "model.norm.weight"};
        static const char *const shapes[][2] = {{"\"dtype\":\"F32\"", "\"dtype\":\"F33\""}, {"\"shape\":[8]", "\"shape\":[4,2]"}, {"\"shape\":[8]", "\"shape\":[9]"}};
        char *bytes, swapped[64];
        size_t k;
        copy_dir(good, bad);
        snprintf(path, sizeof path, "%s/model.safetensors", bad);
        bytes = read_bytes(path, &n);
        for (k = 8; k + strlen(names[arch]) < n; k++)
            if (memcmp(bytes + k, names[arch], strlen(names[arch])) == 0) break;
        snprintf(swapped, sizeof swapped, "%s", names[arch]);
        bytes[k] = 'x', swapped[0] = 'x'; /* the tensor is called something else */
        write_bytes(path, bytes, n);
        check(!orl_model_load(ctx, bad)), refused(ORL_ERR_FORMAT, names[arch]);
        bytes[k] = names[arch][0];
        for (i = 0; i < 3; i++) { /* the header may or may not have blanks: only what is found is changed */
            char *at = NULL;
            size_t length = strlen(shapes[i][0]), to;
            for (to = k; to + length < n && !at; to++)
                if (memcmp(bytes + to, shapes[i][0], length) == 0) at = bytes + to;
            if (!at || strlen(shapes[i][1]) != length) continue;
            memcpy(at, shapes[i][1], length);
            write_bytes(path, bytes, n);
            check(!orl_model_load(ctx, bad)), refused(ORL_ERR_FORMAT, "model.safetensors");
            memcpy(at, shapes[i][0], length);
        }
        for (i = n - 1; i > 0; i -= 1 + i / 20) { /* cut off at any place */
            write_bytes(path, bytes, i);
            check(!orl_model_load(ctx, bad)), refused(ORL_ERR_FORMAT, "model.safetensors");
        }
        write_bytes(path, bytes, n);
        check(orl_model_load(ctx, bad) != NULL);
        free(bytes);
    }
    check(!orl_model_load(ctx, in_dir("nowhere"))), refused(ORL_ERR_IO, "nowhere");
    put_text(in_dir("llama2c.bin"), "too short");
    check(!orl_model_load_llama2c(ctx, in_dir("llama2c.bin"), NULL)), refused(ORL_ERR_FORMAT, "llama2c.bin");
    write_bytes(in_dir("llama2c.bin"), "\10\0\0\0\10\0\0\0\1\0\0\0\2\0\0\0\2\0\0\0\10\0\0\0\10\0\0\0....", 32);
    check(!orl_model_load_llama2c(ctx, in_dir("llama2c.bin"), NULL)), refused(ORL_ERR_FORMAT, "cut off");
    remove_tree(good), remove_tree(bad);
}

/* ---- an output that is there already ---- */

static void test_existing(void) {
    orl_model *m = make_model(ctx, ORL_GPT2, NULL);
    char *before, *after;
    size_t n, k;
    check(orl_model_save(m, in_dir("there")) == ORL_OK);
    before = read_bytes(in_dir("there/model.safetensors"), &n);
    m->params->first->data[0] = 7;
    check(orl_model_save(m, in_dir("there")) == ORL_ERR_EXISTS), refused(ORL_ERR_EXISTS, "there");
    after = read_bytes(in_dir("there/model.safetensors"), &k);
    check(n == k && memcmp(before, after, n) == 0);
    put_text(in_dir("file"), "x");
    check(orl_model_save(m, in_dir("file")) != ORL_OK);
    check(orl_failed(ctx));
    check_contains(orl_error(ctx), "file");
    orl_clear_error(ctx);
    check(orl_model_save(m, in_dir("no/such/place")) == ORL_ERR_IO), refused(ORL_ERR_IO, "no/such/place");
    check(!exists(in_dir("there.writing")) && !exists(in_dir("no")));
    free(before), free(after);
    remove_tree(in_dir("there"));
}

/* ---- checkpoints ---- */

static void test_checkpoints(void) {
    orl_tokenizer *tok = make_tokenizer(ctx);
    orl_model *m = make_model(ctx, ORL_LLAMA, tok);
    orl_dataset *d = parse(ctx, ask_lines);
    orl_train_options o = two_steps();
    char path[300], *bytes;
    size_t n, i;
    snprintf(path, sizeof path, "%s", in_dir("checkpoint"));
    o.checkpoint = path, o.save_every = 1;
    check(orl_train(m, d, &o) == ORL_OK);
    bytes = read_bytes(path, &n);
    o.resume = 1;
    for (i = n - 1; i > 0; i -= 1 + i / 10) {
        write_bytes(path, bytes, i);
        check(orl_train(m, d, &o) == ORL_ERR_FORMAT), refused(ORL_ERR_FORMAT, "checkpoint");
    }
    write_bytes(path, "", 0);
    check(orl_train(m, d, &o) == ORL_ERR_FORMAT), refused(ORL_ERR_FORMAT, "checkpoint");
    check(orl_model_save(m, in_dir("model")) == ORL_OK); /* weights are no checkpoint */
    o.checkpoint = in_dir("model/model.safetensors");
    check(orl_train(m, d, &o) != ORL_OK), refused(ORL_ERR_MISMATCH, "model.safetensors");
    o.checkpoint = path;
    write_bytes(path, bytes, n);
    check(orl_train(m, d, &o) == ORL_OK);
    free(bytes);
    remove_tree(in_dir("model"));
    remove(path);
}

/* ---- data ---- */

static double nan_reward(const orl_row *r, void *user) {
    (void)user;
    return r->line == 2 ? (double)NAN : 1;
}
static double one(const orl_row *r, void *user) {
    (void)r, (void)user;
    return 1;
}
static double by_line(const orl_row *r, void *user) {
    (void)user;
    return (double)r->line;
}

static void test_data(void) {
    orl_tokenizer *tok = make_tokenizer(ctx);
    orl_model *m = make_model(ctx, ORL_LLAMA, tok), *rm = orl_reward_model(m), *bare = make_model(ctx, ORL_LLAMA, NULL);
    orl_dataset *d = parse(ctx, ask_lines), *pairs = parse(ctx, pair_lines), *empty = orl_dataset_create(ctx), *bytes;
    orl_train_options o = two_steps();
    orl_ppo_options p = orl_ppo_default();
    orl_condition_options text = orl_condition_default(ORL_CONDITION_TEXT);
    orl_accuracy accuracy;
    orl_dataset *v;
    put_text(in_dir("empty.jsonl"), "");
    check(!orl_dataset_load(ctx, in_dir("empty.jsonl"))), refused(ORL_ERR_DATA, "empty.jsonl");
    put_text(in_dir("bad.jsonl"), "{\"text\": \"fine\"}\n\n{\"text\": \"cut");
    check(!orl_dataset_load(ctx, in_dir("bad.jsonl"))), refused(ORL_ERR_FORMAT, "bad.jsonl:3");
    bytes = orl_dataset_parse(ctx, "{\"text\": \"a\"}\0{\"text\": \"b\"}", 26, "zeros");
    check(!bytes), refused(ORL_ERR_FORMAT, "zeros:1");
    check(orl_train(m, empty, &o) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "no row");
    check(orl_logprob(m, empty, NULL, NULL) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "no row");
    check(orl_score(rm, empty) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "no rows");
    check(!orl_sample(m, empty, NULL)), refused(ORL_ERR_DATA, "no row");
    check(!orl_filter(empty, ORL_ABOVE, 0)), refused(ORL_ERR_DATA, "data");
    check(!orl_filter(d, ORL_ABOVE, 0)), refused(ORL_ERR_DATA, "no reward");
    check(!orl_weight(d, 1, ORL_BASELINE_NONE, 20)), refused(ORL_ERR_DATA, "no reward");
    check(orl_score_with(d, nan_reward, NULL) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "row 2");
    check(orl_score_with(d, one, NULL) == ORL_OK);
    check(orl_normalise(d) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "equal");
    check(orl_score_with(d, by_line, NULL) == ORL_OK);
    check(!orl_filter(d, ORL_ABOVE, 5)), refused(ORL_ERR_DATA, "keeps none of 2 rows");
    check(!orl_filter(d, ORL_ABOVE, (double)NAN)), refused(ORL_ERR_DATA, "keeps none");
    check(!orl_weight(d, 0, ORL_BASELINE_NONE, 20)), refused(ORL_ERR_ARGUMENT, "beta");
    check(!orl_weight(d, (double)NAN, ORL_BASELINE_NONE, 20)), refused(ORL_ERR_ARGUMENT, "beta");
    orl_dataset_row(d, 1)->weight = (double)INFINITY;
    check(orl_train(m, d, &o) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "data:2");
    orl_dataset_row(d, 1)->weight = 1;
    orl_dataset_row(d, 1)->reward_raw = (double)NAN;
    v = orl_dataset_view(d, 0, 2);
    check(!orl_condition(v, NULL)), refused(ORL_ERR_DATA, "row 2");
    orl_dataset_row(d, 1)->reward_raw = 5;
    orl_dataset_free(v), v = orl_condition(d, &text);
    check(orl_train(bare, v, &o) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "tokenizer");
    check(orl_train(bare, d, &o) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "data:1");
    { /* ids of another vocabulary, made by this model's big sister */
        orl_dataset *ids = parse(ctx, "{\"prompt_ids\": [1], \"completion_ids\": [2]}\n{\"prompt_ids\": [1], \"completion_ids\": [8]}");
        check(orl_train(bare, ids, &o) == ORL_ERR_MISMATCH), refused(ORL_ERR_MISMATCH, "data:2");
        check(orl_logprob(bare, ids, NULL, NULL) == ORL_ERR_MISMATCH), refused(ORL_ERR_MISMATCH, "data:2");
    }
    { /* a tokenizer with more tokens than the model */
        orl_model_config c = *orl_model_get_config(bare);
        check(!orl_model_create(ctx, &c, tok)), refused(ORL_ERR_MISMATCH, "262");
        check(!orl_model_create(ctx, NULL, NULL)), refused(ORL_ERR_ARGUMENT, "config");
    }
    /* models and data of the wrong kinds */
    check(orl_score(m, d) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "reward model");
    check(orl_logprob(rm, d, NULL, NULL) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "reward model");
    check(!orl_sample(rm, d, NULL)), refused(ORL_ERR_ARGUMENT, "language head");
    check(orl_train_dpo(m, d, NULL, 0.1, &o) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "pair");
    check(orl_train_dpo(m, pairs, NULL, 0, &o) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "beta");
    check(orl_train_dpo(m, pairs, rm, 0.1, &o) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "reward model");
    check(orl_train_dpo(m, pairs, bare, 0.1, &o) == ORL_ERR_MISMATCH), refused(ORL_ERR_MISMATCH, "vocabular");
    check(orl_pair_accuracy(pairs, &accuracy) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "no scored pair");
    check(orl_train_ppo(m, NULL, d, &p) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "reward");
    check(orl_train_ppo(m, m, d, &p) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "language model");
    check(orl_train_ppo(rm, rm, d, &p) == ORL_ERR_ARGUMENT), refused(ORL_ERR_ARGUMENT, "policy");
    p.rollouts = p.minibatch = 4, p.iterations = 1, p.reward = nan_reward, p.max_tokens = 3;
    check(orl_train_ppo(m, NULL, d, &p) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "not finite");
    m->params->first->data[3] = (orl_real)NAN; /* damaged weights */
    orl_param_changed(m->params->first);
    check(!orl_sample(m, d, NULL)), refused(ORL_ERR_DATA, "not finite");
    check(orl_train(m, d, &o) == ORL_ERR_DATA), refused(ORL_ERR_DATA, "not finite");
}

/* ---- flips and cuts ---- */

static void fuzz_one(const char *what, const char *path, const char *bytes, size_t n, size_t rounds, void (*load)(void), const size_t *blocks) {
    char *copy = (char *)malloc(n + 16);
    size_t round, fine = 0;
    orli_rng r = orli_rng_new(99, n);
    for (round = 0; round < rounds && copy; round++) {
        size_t size = n, k, edits = 1 + orli_rng_below(&r, 3), kept;
        memcpy(copy, bytes, n);
        for (k = 0; k < edits; k++) {
            size_t at = orli_rng_below(&r, 2) ? orli_rng_below(&r, size) : orli_rng_below(&r, size < 400 ? size : 400); /* headers come first */
            size_t how = orli_rng_below(&r, 8);
            if (how < 3) copy[at] = (char)(copy[at] ^ (1 << orli_rng_below(&r, 8)));
            else if (how < 5) copy[at] = "\"{}[]:,0919eE-+. \\u\n\377\0tfn"[orli_rng_below(&r, 26)];
            else if (how == 5) size = at ? at : 1;
            else if (how == 6 && at + 8 < size) memmove(copy + at, copy + at + 1 + orli_rng_below(&r, 7), size - at - 8), size -= 7;
            else if (size + 4 < n + 16) memmove(copy + at + 4, copy + at, size - at), size += 4;
        }
        write_bytes(path, copy, size);
        kept = fault_live;
        load();
        fine += !orl_failed(ctx);
        if (orl_failed(ctx)) {
            int good = orl_error_status(ctx) != ORL_ERR_STOPPED && strlen(orl_error(ctx)) > 15 && !strchr(orl_error(ctx), '\n');
            if (!good) check(good), printf("    %s, round %zu: \"%s\"\n", what, round, orl_error(ctx));
            else test_passed++;
        }
        orl_clear_error(ctx);
        if (blocks && fault_live != kept) check(fault_live == kept), printf("    %s, round %zu leaks\n", what, round);
    }
    printf("%s: %zu changed files, of which %zu were read\n", what, rounds, fine);
    write_bytes(path, bytes, n);
    free(copy);
}

static char fuzz_path[400], fuzz_dir[300];
static orl_model *fuzz_model;
static orl_dataset *fuzz_data;

static void fuzz_load_model(void) {
    orl_model *m = orl_model_load(ctx, fuzz_dir);
    if (m) { /* what was read can be used */
        orl_generate_options g = orl_generate_default();
        g.max_tokens = 2, g.target = ORL_TARGET_NONE;
        if (m->config.context < 2000 && !m->reward) orl_dataset_free(orl_sample(m, fuzz_data, &g));
        orl_tokenizer_free(m->tokenizer);
    }
    orl_model_free(m);
}
static void fuzz_load_tokenizer(void) {
    orl_tokenizer *t = orl_tokenizer_load(ctx, fuzz_dir);
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n = 0, bytes;
    if (t && orl_encode(t, "the cat\377 sat <|endoftext|>", 26, 1, &ids, &n) == ORL_OK) orl_decode(t, ids, n, 0, &text, &bytes);
    orl_free(ctx, ids);
    orl_free(ctx, text);
    orl_tokenizer_free(t);
}
static void fuzz_load_data(void) {
    orl_dataset *d = orl_dataset_load(ctx, fuzz_path);
    size_t i;
    for (i = 0; i < orl_dataset_count(d) && !orl_failed(ctx); i++) orl_free(ctx, orl_dataset_row_json(d, i));
    orl_dataset_set_template(d, ORL_TEMPLATE_CHATML);
    orl_dataset_free(d);
}
static void fuzz_load_checkpoint(void) {
    orl_train_options o = two_steps();
    o.checkpoint = fuzz_path, o.resume = 1;
    orl_train(fuzz_model, fuzz_data, &o);
    if (orl_failed(ctx)) { /* not to start from weights that a flipped bit made infinite */
        orl_model *fresh;
        char sentence[700];
        orl_status status = orl_error_status(ctx);
        snprintf(sentence, sizeof sentence, "%s", orl_error(ctx));
        orl_clear_error(ctx);
        fresh = make_model(ctx, ORL_LLAMA, fuzz_model->tokenizer);
        orl_model_free(fuzz_model);
        fuzz_model = fresh;
        orli_fail(ctx, status, "%s", sentence);
    }
}

static void test_fuzz(void) {
    static const char rows[] = "{\"prompt\": \"a\\u00e9\", \"completion\": \"b\", \"reward\": -1.5e0, \"id\": [1, {\"x\": null}]}\r\n"
                               "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: y\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: n\", \"margin\": 0.5}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"x\"}]}\n\n"
                               "{\"prompt_ids\": [1, 2], \"completion_ids\": [3], \"truncated\": true, \"sample\": 2, \"logprob\": -3, \"tokens\": 1}\n"
                               "{\"prompt\": \"p\", \"chosen_ids\": [4], \"rejected\": \"j\"}";
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    orl_tokenizer *tok = make_tokenizer(ctx);
    orl_condition_options condition = orl_condition_default(ORL_CONDITION_BINS);
    orl_train_options o = two_steps();
    orl_dataset *told;
    char *bytes;
    size_t n, i, rounds = quick ? 150 : 1500, yes = 1;
    fuzz_data = parse(ctx, ask_lines);
    fuzz_model = make_model(ctx, ORL_LLAMA, tok);
    snprintf(fuzz_dir, sizeof fuzz_dir, "%s", in_dir("fuzz"));
    snprintf(fuzz_path, sizeof fuzz_path, "%s", in_dir("fuzz.jsonl"));
    put_text(fuzz_path, rows);
    fuzz_load_data();
    check(!orl_failed(ctx));
    fuzz_one("rows", fuzz_path, rows, sizeof rows - 1, 2 * rounds, fuzz_load_data, &yes);
    orl_score_with(fuzz_data, by_line, NULL);
    condition.bins = 4;
    told = orl_condition(fuzz_data, &condition); /* so that config.json has everything */
    check(orl_train(fuzz_model, told, &o) == ORL_OK && orl_model_save(fuzz_model, fuzz_dir) == ORL_OK);
    for (i = 0; i < 3; i++) {
        snprintf(fuzz_path, sizeof fuzz_path, "%s/%s", fuzz_dir, files[i]);
        bytes = read_bytes(fuzz_path, &n);
        fuzz_one(files[i], fuzz_path, bytes, n, rounds, i == 2 ? fuzz_load_tokenizer : fuzz_load_model, i == 2 ? &yes : NULL);
        free(bytes);
    }
    orl_model_free(fuzz_model);
    fuzz_model = make_model(ctx, ORL_LLAMA, tok);
    snprintf(fuzz_path, sizeof fuzz_path, "%s", in_dir("fuzz.checkpoint"));
    o.checkpoint = fuzz_path, o.save_every = 1;
    check(orl_train(fuzz_model, fuzz_data, &o) == ORL_OK);
    bytes = read_bytes(fuzz_path, &n);
    fuzz_one("checkpoint", fuzz_path, bytes, n, rounds, fuzz_load_checkpoint, &yes);
    free(bytes);
}

int main(void) {
    /* in memory where there is such a place: thousands of files are written and synced */
    if (!make_dir("test_bad", "/dev/shm")) return 1;
    quick = getenv("ORL_TEST_QUICK") != NULL;
    ctx = make_ctx(0);
    test_model_files(ORL_LLAMA);
    test_model_files(ORL_GPT2);
    test_existing();
    test_checkpoints();
    test_data();
    test_fuzz();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    check(fault_live == 0);
    test_no_memory(pipeline);
    test_no_memory(adapters);
    remove_tree(dir);
    return test_report("test_bad_input");
}
