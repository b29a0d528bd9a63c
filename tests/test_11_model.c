/* test_11_model.c - section 11: gradients through whole models, files in and out, real weights.
 * builds: float double */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"

static orl_ctx *ctx;

/* ---- small models with weights far from their beginnings ---- */

static orl_model *make_model(orl_ctx *c, orl_arch arch, int tied, orl_tokenizer *tok) {
    orl_model_config mc = orl_model_config_default(arch);
    orl_model *m;
    orl_param *p;
    orli_rng r = orli_rng_new(11, 0);
    size_t i;
    mc.dim = 16, mc.heads = 4, mc.kv_heads = arch == ORL_GPT2 ? 4 : 2, mc.layers = 2, mc.ffn = 10, mc.context = 64, mc.tied = tied;
    mc.vocab = tok ? orl_vocab(tok) : 11;
    m = orl_model_create(c, &mc, tok);
    for (p = m ? m->params->first : NULL; p; p = p->next) {
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] += (orl_real)(0.2 * orli_rng_normal(&r));
        orl_param_changed(p);
    }
    return m;
}

/* ---- gradients of whole losses, in the double build ---- */

static const char rows_of_text[] =
    "{\"prompt_ids\": [1, 2, 3], \"completion_ids\": [4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 1, 8, 2]}\n"
    "{\"prompt_ids\": [7], \"completion_ids\": [3]}\n";
static const char pairs_of_text[] =
    "{\"prompt_ids\": [1, 9, 9, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1], \"chosen_ids\": [4, 5, 6], \"rejected_ids\": [7, 5, 1, 0, 10]}\n"
    "{\"prompt_ids\": [10, 2], \"chosen_ids\": [4], \"rejected_ids\": [3, 3, 3, 8, 2, 1, 9, 0, 4, 1, 2, 5, 6, 7, 3, 2]}\n";

static orli_micro micro;

static void make_micro(const orl_model *m, int with_rows) { /* pairs share their prompts; rows stand alone */
    orl_dataset *rows = orl_dataset_parse(ctx, rows_of_text, sizeof rows_of_text - 1, "rows");
    orl_dataset *pairs = orl_dataset_parse(ctx, pairs_of_text, sizeof pairs_of_text - 1, "pairs");
    orli_examples e;
    size_t i;
    orli_micro_create(&micro, ctx);
    check(orli_examples_build(&e, m, pairs, 2) == ORL_OK);
    for (i = 0; i < e.count; i++) orli_micro_add(&micro, &e, &e.example[i], &pairs->row[i], 2, 0, m->reward);
    orli_examples_free(&e);
    if (with_rows) {
        check(orli_examples_build(&e, m, rows, 1) == ORL_OK);
        for (i = 0; i < e.count; i++) orli_micro_add(&micro, &e, &e.example[i], &rows->row[i], 1, 0, m->reward);
        orli_examples_free(&e);
    }
    for (i = 0; i < micro.sequences; i++) micro.weight[i] = 0.5 + 0.3 * (double)i, micro.margin[i] = 0.1;
    orl_dataset_free(rows);
    orl_dataset_free(pairs);
}

static orl_tensor *loss_of(orl_tape *tape, orl_model *m) {
    static const orl_rm_loss center = {0.2, 0.01};
    union { const void *from; void *to; } user;
    orl_batch batch;
    user.from = &center;
    orl_tape_reset(tape);
    if (orli_micro_run(tape, m, &micro, NULL, &batch) != ORL_OK) return NULL;
    return m->reward ? orl_loss_reward(tape, &batch, user.to) : orl_loss_nll(tape, &batch, NULL);
}

/* The losses' values, written out: a gradient check cannot see that a loss is the wrong one. */
static void check_loss(orl_model *m) {
    orl_tape *tape = orl_tape_create(ctx);
    double have = (double)orl_data(loss_of(tape, m))[0], want = 0;
    orl_batch b;
    size_t i, t;
    orl_tape_reset(tape);
    check(orli_micro_run(tape, m, &micro, NULL, &b) == ORL_OK);
    for (i = 0; m->reward && i < b.sequences; i += 2) {
        double c = (double)orl_data(b.score)[i], r = (double)orl_data(b.score)[i + 1];
        want += log(1 + exp(-(c - r - 0.1 - 0.2))) + 0.01 * (c + r) * (c + r);
    }
    for (i = 0; !m->reward && i < b.sequences; i++)
        for (t = b.offset[i]; t < b.offset[i + 1]; t++) want -= b.weight[i] * (double)orl_data(b.logp)[t];
    check_near(have, want, (ORLI_DOUBLE ? 1e-12 : 1e-5) * fabs(want));
    orl_tape_free(tape);
}

static void check_gradient(orl_model *m, const char *name) {
    const double h = 1e-5;
    orl_tape *tape = orl_tape_create(ctx);
    orl_param *p;
    size_t i;
    check_loss(m);
    if (!ORLI_DOUBLE) {
        orl_tape_free(tape);
        return;
    }
    orl_params_zero_grad(m->params);
    check(orl_backward(tape, loss_of(tape, m)) == ORL_OK);
    for (p = m->params->first; p; p = p->next) {
        size_t n = p->rows * p->cols, stride = n / 20 + 1; /* some 20 of each tensor */
        double most = 1e-8, worst = 0;
        for (i = 0; i < n; i++) most = fmax(most, fabs((double)p->grad[i]));
        for (i = 0; i < m->config.layers; i++)
            if (p == orli_model_weight(m, ORLI_W_K_B, i)) most = 1; /* softmax does not see it: its gradient is rounding */
        for (i = (size_t)(p->name[0] - '0') % stride; i < n; i += stride) {
            orl_real x = p->data[i];
            double up, down;
            p->data[i] = (orl_real)((double)x + h);
            up = (double)orl_data(loss_of(tape, m))[0];
            p->data[i] = (orl_real)((double)x - h);
            down = (double)orl_data(loss_of(tape, m))[0];
            p->data[i] = x;
            worst = fmax(worst, fabs((up - down) / (2 * h) - (double)p->grad[i]));
        }
        check_near(worst, 0, 1e-6 * most);
        if (!(worst <= 1e-6 * most)) printf("    parameter %s (%zu, %zu) of %s\n", p->name, p->rows, p->cols, name);
    }
    orl_tape_free(tape);
}

static void test_gradients(void) {
    int arch, tied;
    for (arch = 0; arch < 2; arch++)
        for (tied = 0; tied < 2; tied++) {
            orl_model *m = make_model(ctx, (orl_arch)arch, tied, NULL), *rm = orl_reward_model(m);
            make_micro(m, 1);
            check_gradient(m, arch == ORL_GPT2 ? "gpt2, sft" : "llama, sft");
            orli_micro_free(&micro);
            make_micro(rm, 0);
            check_gradient(rm, arch == ORL_GPT2 ? "gpt2, Bradley-Terry" : "llama, Bradley-Terry");
            orli_micro_free(&micro);
            orl_model_free(m);
            orl_model_free(rm);
        }
}

/* ---- files ---- */

static char *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *bytes = (char *)calloc(1, 1 << 20);
    *n = f ? fread(bytes, 1, (1 << 20) - 1, f) : 0;
    if (f) fclose(f);
    return bytes;
}
static void write_all(const char *path, const char *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    check(f && fwrite(bytes, 1, n, f) == n);
    if (f) fclose(f);
}

static void check_same_file(const char *a, const char *b, const char *name) {
    char path[600];
    size_t na, nb;
    char *x, *y;
    snprintf(path, sizeof path, "%s/%s", a, name);
    x = read_all(path, &na);
    snprintf(path, sizeof path, "%s/%s", b, name);
    y = read_all(path, &nb);
    check(na > 0 && na == nb && memcmp(x, y, na) == 0);
    free(x);
    free(y);
}

static void check_same_weights(const orl_model *a, const orl_model *b) {
    const orl_param *p = a->params->first, *q = b->params->first;
    for (; p && q; p = p->next, q = q->next) check(p->rows == q->rows && p->cols == q->cols && memcmp(p->data, q->data, p->rows * p->cols * sizeof *p->data) == 0);
    check(!p && !q);
}

static void round_trip(orl_model *m, const char *name) {
    char first[512], second[520];
    orl_model *back;
    snprintf(first, sizeof first, "%s", in_dir(name));
    snprintf(second, sizeof second, "%s.again", first);
    check(orl_model_save(m, first) == ORL_OK);
    back = orl_model_load(ctx, first);
    check(back != NULL);
    if (!back) {
        printf("    %s\n", orl_error(ctx));
        orl_clear_error(ctx);
        return;
    }
    check_same_weights(m, back);
    check(memcmp(&m->config, &back->config, sizeof m->config) == 0);
    check(back->reward == m->reward && back->stops == m->stops && memcmp(back->stop, m->stop, sizeof m->stop) == 0 && back->classes == m->classes);
    check(memcmp(&back->reward_mean, &m->reward_mean, sizeof m->reward_mean) == 0 && memcmp(&back->reward_sd, &m->reward_sd, sizeof m->reward_sd) == 0);
    check(back->condition.kind == m->condition.kind && strcmp(back->condition.format, m->condition.format) == 0);
    check(memcmp(back->condition.quantile, m->condition.quantile, sizeof m->condition.quantile) == 0);
    check(orl_model_save(back, second) == ORL_OK);
    check_same_file(first, second, "config.json");
    check_same_file(first, second, "model.safetensors");
    if (m->tokenizer) check_same_file(first, second, "tokenizer.json");
    check(orl_model_save(back, second) == ORL_ERR_EXISTS);
    expect_error(ORL_ERR_EXISTS, second);
    orl_model_free(back);
}

static orl_tokenizer *make_tokenizer(void) {
    static const char text[] = "the cat sat on the mat and the cat ate the rat";
    static const char *const specials[] = {"<|end|>", NULL};
    return orl_tokenizer_train(ctx, text, sizeof text - 1, 262, specials);
}

static void test_round_trips(void) {
    orl_tokenizer *tok = make_tokenizer();
    orl_model *m, *rm;
    size_t i;
    check(tok != NULL);
    m = make_model(ctx, ORL_LLAMA, 1, tok);
    m->config.rope.theta = 12345.678, m->config.norm_eps = 3e-6;
    check(m->config.eos == orl_eos(tok) && m->stops == 1);
    m->stop[m->stops++] = 3; /* a set of end tokens */
    round_trip(m, "llama");
    rm = orl_reward_model(m);
    rm->reward_mean = 0.1 + 0.2, rm->reward_sd = 1.0 / 3;
    round_trip(rm, "llama-reward");
    orl_model_free(rm);
    m->condition.kind = ORL_CONDITION_BINS, m->condition.bins = 4, m->condition.first_id = (int32_t)m->config.vocab;
    m->condition.mean = 1.0 / 7, m->condition.sd = 0.7, m->condition.target = 2.5;
    for (i = 0; i < 101; i++) m->condition.quantile[i] = ((double)i - 50) / 17;
    check(orli_model_grow(m, 5) == ORL_OK);
    m->classes = m->config.vocab - 5;
    round_trip(m, "llama-bins");
    orl_model_free(m);
    m = make_model(ctx, ORL_GPT2, 1, NULL);
    m->condition.kind = ORL_CONDITION_TEXT, m->condition.decimals = 2;
    snprintf(m->condition.format, sizeof m->condition.format, " <rm \"%s\">: {reward} ", "%d\n");
    round_trip(m, "gpt2");
    rm = orl_reward_model(m);
    round_trip(rm, "gpt2-reward");
    orl_model_free(rm), orl_model_free(m);
    m = make_model(ctx, ORL_LLAMA, 0, NULL), round_trip(m, "llama-untied"), orl_model_free(m);
    m = make_model(ctx, ORL_GPT2, 0, NULL), round_trip(m, "gpt2-untied"), orl_model_free(m);
    orl_tokenizer_free(tok);
}

/* Loads a copy of the model saved as `from` in which `old` stands as `new_` in one file (old NULL: the file is
 * cut to `cut` bytes, or taken away if cut is 0). */
static orl_model *load_damaged(const char *from, const char *file, const char *old, const char *new_, size_t cut) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
    char path[600], *bytes, *at;
    size_t i, n, k;
    orl_model *m;
    if (orli_make_dir(ctx, in_dir("damaged")) != ORL_OK) return NULL;
    for (i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", in_dir(from), files[i]);
        bytes = read_all(path, &n);
        snprintf(path, sizeof path, "%s/%s", in_dir("damaged"), files[i]);
        remove(path);
        if (strcmp(file, files[i]) == 0 && old) {
            size_t length = strlen(old), more = strlen(new_);
            for (at = NULL, k = 0; k + length <= n && !at; k++)
                if (memcmp(bytes + k, old, length) == 0) at = bytes + k;
            check(at != NULL);
            if (at) {
                memmove(at + more, at + length, n - (size_t)(at - bytes) - length);
                memcpy(at, new_, more);
                n = n + more - length;
            }
        } else if (strcmp(file, files[i]) == 0) n = ORLI_MIN(cut, n);
        if (n) write_all(path, bytes, n);
        free(bytes);
    }
    m = orl_model_load(ctx, in_dir("damaged"));
    return m;
}

typedef struct damage {
    const char *from, *file, *old, *new_; /* `old` becomes `new_`, or the file is cut */
    size_t cut;
    const char *message;                  /* what the sentence must name */
} damage;

static const damage damages[] = {
    {"llama", "model.safetensors", "model.norm.weight", "model.nurm.weight", 0, "tensor \"model.norm.weight\" is missing"},
    {"gpt2", "model.safetensors", "h.1.attn.c_attn.bias", "h.1.attn.c_attn.bios", 0, "h.1.attn.c_attn.bias"},
    {"llama-reward", "model.safetensors", "score.weight", "scope.weight", 0, "score.weight"},
    {"llama", "config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", 0, "tensor \"lm_head.weight\" is missing"},
    {"llama", "config.json", "\"intermediate_size\": 10", "\"intermediate_size\": 12", 0, "mlp.gate_proj.weight\" is (10, 16) and config.json asks for (12, 16)"},
    {"gpt2", "config.json", "\"n_positions\": 64", "\"n_positions\": 65", 0, "wpe.weight\" is (64, 16)"},
    {"llama", "config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", 0, "k_proj.weight"},
    {"llama", "config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", 0, "num_key_value_heads"},
    {"llama", "config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 0", 0, "config.json:6"},
    {"llama", "config.json", "\"head_dim\": 4", "\"head_dim\": 3", 0, "its part that rotates, must be even"},
    {"llama", "config.json", "\"hidden_size\": 16,", "", 0, "hidden_size"},
    {"llama", "config.json", "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", 0, "model_type \"mamba\" is not supported"},
    {"llama", "config.json", "\"model_type\": \"llama\",", "", 0, "no model_type"},
    {"llama", "config.json", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", 0, "hidden_act is \"relu\", which is not supported"},
    {"gpt2", "config.json", "\"gelu_new\"", "\"quick_gelu\"", 0, "activation_function is \"quick_gelu\""},
    {"llama", "config.json", "\"attention_bias\": false", "\"attention_bias\": true", 0, "self_attn.q_proj.bias\" is missing"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"rope_scaling\": {\"factor\": 8}", 0, "rope_scaling has a factor and no rope_type"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"rope_parameters\": {\"rope_type\": \"yarn\"}", 0, "rope_type is \"yarn\""},
    {"llama", "config.json", "\"mlp_bias\": false", "\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8}", 0, "low_freq_factor"},
    {"llama", "config.json", "\"head_dim\": 4", "\"head_dim\": 8", 0, "asks for (32, 16)"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"quantization_config\": {\"bits\": 4}", 0, "quantization_config is {\"bits\": 4}"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"sliding_window\": 9", 0, "sliding_window is 9, which is not supported"},
    {"llama", "config.json", "\"model_type\": \"llama\"", "\"model_type\": \"qwen3\"", 0, "q_norm.weight\" is missing"},
    {"gpt2", "config.json", "\"n_inner\": 10", "\"n_inner\": null", 0, "asks for (16, 64)"},
    {"llama-reward", "config.json", "\"id2label\": {\"0\": \"reward\"}", "\"id2label\": {\"0\": \"a\", \"1\": \"b\"}", 0, "2 labels"},
    {"llama-reward", "config.json", "\"std\": 0.", "\"std\": -0.", 0, "orl_reward.std must be positive"},
    {"llama-bins", "config.json", "\"first_id\": 262", "\"first_id\": 261", 0, "orl_condition"},
    {"llama", "config.json", "\"vocab_size\": 262", "\"vocab_size\": 261", 0, "the tokenizer has 262 tokens and config.json's vocab_size is 261"},
    {"llama", "config.json", "\"vocab_size\": 262", "\"vocab_size\": 300", 0, "embed_tokens.weight"},
    {"llama", "config.json", "\"rope_theta\": 12345.678", "\"rope_theta\": 1e999", 0, "config.json"},
    {"llama", "config.json", "\"rope_theta\": 12345.678", "\"rope_theta\": \"no\"", 0, "config.json"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"hidden_act\": \"silu\"", 0, "the key \"hidden_act\" occurs twice"},
    {"llama", "config.json", "\"mlp_bias\": false", "\"hidden\\u005fact\": \"silu\"", 0, "the key \"hidden_act\" occurs twice"},
    {"llama", "config.json", "\"rms_norm_eps\": 3", "\"rms_norm_eps\": 3e9, \"x\": 3", 0, "the norm's epsilon must be 0 to 1"},
    {"llama", "config.json", "\"rope_theta\": 1", "\"rope_theta\": -1", 0, "rope_theta must be positive"},
    {"llama", "config.json", "\"max_position_embeddings\": 64", "\"max_position_embeddings\": 134217728", 0, "max_position_embeddings"},
    {"llama", "config.json", "\"intermediate_size\": 10", "\"intermediate_size\": 10.5", 0, "10.5 stands where a whole number"},
    {"llama", "model.safetensors", "norm.weight\":{\"dtype\":\"F", "norm.weight\":{\"dtype\":\"I", 0, ", which cannot be read as numbers"},
    {"llama", "model.safetensors", "norm.weight\":{\"dtype\":\"F", "norm.weight\":{\"dtype\":\"f", 0, "\" is of type f"},
    {"llama", "config.json", NULL, NULL, 60, "config.json"},
    {"llama", "config.json", NULL, NULL, 0, "config.json"},
    {"llama", "model.safetensors", NULL, NULL, 0, "model.safetensors"},
    {"llama", "model.safetensors", NULL, NULL, 5, "model.safetensors"},
    {"llama", "model.safetensors", NULL, NULL, 300, "model.safetensors"},
    {"llama", "model.safetensors", NULL, NULL, 6000, "model.safetensors"},
    {"llama", "tokenizer.json", NULL, NULL, 100, "tokenizer.json"}};

/* generation_config.json knows the end tokens best; it goes out as it came, or with those that have changed since. */
static void test_generation_config(void) {
    static const char text[] = "{\"temperature\": 0.5, \"eos_token_id\": [3, 7]}";
    orl_model *m = make_model(ctx, ORL_LLAMA, 1, NULL);
    char path[400], *back;
    size_t n;
    snprintf(path, sizeof path, "%s/stops", dir);
    check(orl_model_save(m, path) == ORL_OK);
    orl_model_free(m);
    write_bytes(in_dir("stops/generation_config.json"), text, sizeof text - 1);
    m = orl_model_load(ctx, path);
    check(m && m->stops == 2 && m->stop[0] == 3 && m->stop[1] == 7 && m->config.eos == 3);
    check(orl_model_save(m, in_dir("stops1")) == ORL_OK);
    back = read_bytes(in_dir("stops1/generation_config.json"), &n);
    check(back && strcmp(back, text) == 0);
    free(back);
    m->stop[1] = 3, m->stop[0] = 5; /* as a chat template does */
    check(orl_model_save(m, in_dir("stops2")) == ORL_OK);
    orl_model_free(m);
    back = read_bytes(in_dir("stops2/generation_config.json"), &n);
    check(back && strstr(back, "\"eos_token_id\": [5, 3]") && strstr(back, "\"temperature\": 0.5"));
    free(back);
    m = orl_model_load(ctx, in_dir("stops2"));
    check(m && m->stops == 2 && m->stop[0] == 5 && m->stop[1] == 3);
    orl_model_free(m);
}

/* Published tokenizers may have added tokens beyond the embedding; text with one of them is an error. */
static void test_added_beyond(void) {
    static const char text[] = "a<image>b";
    orl_tokenizer *tok = make_tokenizer();
    orl_model *m = make_model(ctx, ORL_LLAMA, 1, tok);
    orl_dataset *data;
    char path[400];
    size_t known = orl_vocab(tok);
    snprintf(path, sizeof path, "%s/beyond", dir);
    check((size_t)orl_token_add_special(tok, "<image>") == known);
    check(orl_model_save(m, path) == ORL_OK);
    orl_model_free(m);
    m = orl_model_load(ctx, path);
    check(m && orl_vocab(orl_model_tokenizer(m)) == known + 1 && m->config.vocab == known);
    data = orl_dataset_create(ctx);
    orl_dataset_add(data, text, "c");
    check(m && orl_logprob(m, data, NULL, NULL) != ORL_OK);
    check_contains(orl_error(ctx), "outside the vocabulary of 262");
    orl_clear_error(ctx);
    orl_dataset_free(data), orl_model_free(m), orl_tokenizer_free(tok);
}

static void test_damaged(void) {
    size_t i, before;
    orl_model *m;
    for (i = 0; i < sizeof damages / sizeof *damages; i++) {
        const damage *d = &damages[i];
        int failed = test_failed;
        before = orl_memory_now(ctx);
        m = load_damaged(d->from, d->file, d->old, d->new_, d->cut);
        check(m == NULL && orl_failed(ctx));
        check_contains(orl_error(ctx), d->message);
        orl_clear_error(ctx);
        orl_model_free(m);
        check(orl_memory_now(ctx) == before || strcmp(d->file, "model.safetensors") == 0 || d->from[0] == 'l'); /* a tokenizer may be left to the context */
        if (test_failed != failed) printf("    %s: %s -> %s\n", d->file, d->old ? d->old : "cut", d->old ? d->new_ : "");
    }
    /* what other writers write and we need not refuse */
    m = load_damaged("llama", "config.json", "\"mlp_bias\": false", "\"rope_scaling\": null, \"use_cache\": true, \"pretraining_tp\": 1", 0);
    check(m != NULL);
    orl_model_free(m);
    m = load_damaged("llama", "config.json", "\"rope_theta\": 12345.678", "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\"}", 0);
    check(m && m->config.rope.theta > 499999 && m->config.rope.theta < 500001);
    orl_model_free(m);
    m = load_damaged("llama-untied", "config.json", "\"mlp_bias\": false", "\"use_cache\": true, \"eos_token_id\": [3, 7], \"bos_token_id\": 1", 0);
    check(m && m->stops == 2 && m->stop[1] == 7 && m->config.eos == 3 && m->config.bos == 1);
    orl_model_free(m);
    orl_clear_error(ctx);
}

/* Loads in_dir("hostile"): refused with this sentence or, without one, taken. The peak of memory is at most twice the
 * files and 1 MiB. */
static void check_peak(const char *message) {
    static const char *const files[] = {"config.json", "model.safetensors"};
    char path[600];
    size_t i, bytes = 0, n;
    struct stat info;
    orl_model *m;
    for (i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", in_dir("hostile"), files[i]);
        check(stat(path, &info) == 0);
        bytes += (size_t)info.st_size;
    }
    n = orl_memory_now(ctx);
    ctx->memory_peak = n;
    m = orl_model_load(ctx, in_dir("hostile"));
    check(ctx->memory_peak - n <= 2 * bytes + (1u << 20));
    if (ctx->memory_peak - n > 2 * bytes + (1u << 20)) printf("    %s: %zu for files of %zu\n", message ? message : "taken", ctx->memory_peak - n, bytes);
    check((m != NULL) == !message);
    if (message) check_contains(orl_error(ctx), message);
    orl_clear_error(ctx);
    orl_model_free(m);
    check(orl_memory_now(ctx) == n);
    if (orl_memory_now(ctx) != n) printf("    %s: %zu stay\n", message ? message : "taken", orl_memory_now(ctx) - n);
}

static void test_hostile_memory(void) {
    static const char *const wide[] = {"\"num_hidden_layers\": 1024", "\"hidden_size\": 1048576, \"num_attention_heads\": 4096",
                                       "\"vocab_size\": 67108864", "\"intermediate_size\": 16777216"};
    orl_model_config c = orl_model_config_default(ORL_GPT2);
    orl_model *m;
    orli_str s = orli_str_new(ctx);
    char path[600], *text;
    size_t i, n, k;
    if (ORLI_DOUBLE) return; /* where F16 grows fourfold */
    c.layers = 1, c.dim = 256, c.heads = 4, c.kv_heads = 4, c.ffn = 4096, c.vocab = 64, c.context = 64;
    m = orl_model_create(ctx, &c, NULL);
    snprintf(path, sizeof path, "%s", in_dir("hostile"));
    check(orl_model_save_as(m, path, ORL_F16) == ORL_OK); /* twice as large in memory, and what is transposed too */
    orl_model_free(m);
    check_peak(NULL);
    snprintf(path, sizeof path, "%s/config.json", in_dir("hostile"));
    text = read_all(path, &n);
    for (i = 0; i < 4; i++) { /* small files that speak of large weights */
        s.length = 0;
        orli_str_puts(&s, "{\"model_type\": \"llama\", \"hidden_size\": 256, \"num_hidden_layers\": 1, \"vocab_size\": 64, "
                          "\"num_attention_heads\": 4, \"intermediate_size\": 8, \"max_position_embeddings\": 64, ");
        orli_str_printf(&s, "%s}", wide[i]);
        write_all(path, s.data, s.length);
        check_peak("model.safetensors: tensor \"");
    }
    for (k = 0; k < 3; k++) { /* very many settings, a very long name, a very long text */
        s.length = 0;
        orli_str_add(&s, text, n);
        while (s.data[s.length - 1] != '}') s.length--;
        s.length--;
        for (i = 0; i < (k ? 3 : 300000); i++) orli_str_printf(&s, ",\"%zx\":0", i + 0x1000);
        if (k) orli_str_puts(&s, k == 1 ? ",\"" : ",\"x\":\"");
        for (i = 0; k && i < 3000000; i++) orli_str_add(&s, "x", 1);
        orli_str_puts(&s, k == 0 ? "}" : k == 1 ? "\":0}" : "\"}");
        write_all(path, s.data, s.length);
        check_peak(k == 2 ? NULL : "more than 4096 keys");
    }
    free(text);
    orli_str_free(&s);
}

static void test_wrong_use(void) {
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_tokenizer *tok = make_tokenizer();
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *s = orl_stream_create(ctx);
    orl_model *m, *copy;
    static const int32_t ids[] = {1, 2, 11};
#define FAILS(change, part) do { \
        mc = orl_model_config_default(ORL_LLAMA); \
        change; \
        check(orl_model_create(ctx, &mc, NULL) == NULL); \
        expect_error(ORL_ERR_ARGUMENT, part); \
    } while (0)
    FAILS(mc.dim = 0, "hidden_size");
    FAILS(mc.heads = 3, "num_attention_heads");
    FAILS(mc.kv_heads = 3, "num_key_value_heads");
    FAILS(mc.ffn = 0, "intermediate_size");
    FAILS(mc.vocab = 0, "vocab_size");
    FAILS(mc.context = 0, "max_position_embeddings");
    FAILS(mc.layers = 0, "num_hidden_layers");
    FAILS(mc.norm_eps = (double)NAN, "epsilon");
    FAILS(mc.rope.theta = 0, "rope_theta");
    FAILS(mc.arch = ORL_GPT2; mc.kv_heads = 2, "GPT-2");
#undef FAILS
    mc = orl_model_config_default(ORL_LLAMA);
    mc.vocab = 200;
    check(orl_model_create(ctx, &mc, tok) == NULL);
    expect_error(ORL_ERR_MISMATCH, "262 tokens and the model only 200");
    check(orl_model_create(ctx, NULL, NULL) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "config is NULL");
    check(!orl_model_create(NULL, &mc, NULL) && !orl_model_load(NULL, dir) && !orl_model_copy(NULL) && !orl_reward_model(NULL));
    check(!orl_hidden(tape, NULL, s) && !orl_logits(tape, NULL, s) && !orl_model_ctx(NULL) && !orl_model_params(NULL) && !orl_is_reward_model(NULL));
    check(orl_model_save(NULL, dir) == ORL_ERR_MEMORY);
    orl_model_free(NULL);
    m = make_model(ctx, ORL_LLAMA, 1, NULL);
    orl_model_set_name(m, "a name");
    copy = orl_model_copy(m);
    check_same_weights(m, copy);
    check(strcmp(orl_model_name(copy), "a name") == 0 && memcmp(orl_model_get_config(m), orl_model_get_config(copy), sizeof mc) == 0);
    orl_stream_add(s, ids, 3, ORL_ROOT);
    check(orl_logits(tape, m, s) == NULL);
    expect_error(ORL_ERR_MISMATCH, "token id 11 is outside the vocabulary of 11");
    check(orl_model_save(m, "/nowhere/at/all") != ORL_OK);
    expect_error(ORL_ERR_IO, "/nowhere/at/all");
    orl_model_free(m);
    orl_model_free(copy);
    orl_tape_free(tape);
    orl_stream_free(s);
    orl_tokenizer_free(tok);
}

/* ---- real weights: stories260K, and what llama2.c computes with them ---- */

static const char *data_path(const char *name) {
    static char paths[4][700];
    static unsigned next;
    const char *from = getenv("ORL_DATA");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/weights/%s", from && *from ? from : "../shared/data", name);
    return path;
}

typedef struct stories { /* stories260K.json and .logits.f32 */
    int32_t token[64];
    size_t tokens;
    char prompt[256];
    float *logits; /* (tokens, 512) */
} stories;

static int stories_open(stories *s) {
    orli_file file;
    orli_json j;
    orli_str text = orli_str_new(ctx);
    memset(s, 0, sizeof *s);
    if (!orli_exists(data_path("stories260K/stories260K.bin"))) return 0;
    if (orli_file_open(ctx, data_path("stories260K/stories260K.json"), &file) != ORL_OK) return 0;
    j = orli_json_new(ctx, file.data, file.size, "stories260K.json", 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "tokens")) {
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);) {
                int32_t id = (int32_t)orli_json_int(&j, 0, 511);
                if (s->tokens < 64) s->token[s->tokens++] = id;
            }
        } else if (orli_json_is(&j, "prompt")) {
            if (orli_json_string(&j, &text)) snprintf(s->prompt, sizeof s->prompt, "%s", text.data);
        } else orli_json_skip(&j);
    }
    orli_json_end(&j);
    orli_str_free(&text);
    orli_file_close(&file);
    if (orl_failed(ctx) || orli_file_open(ctx, data_path("stories260K/stories260K.logits.f32"), &file) != ORL_OK) return 0;
    if (file.size != s->tokens * 512 * sizeof(float)) {
        check(file.size == s->tokens * 512 * sizeof(float));
        return 0;
    }
    s->logits = (float *)malloc(file.size + 1);
    memcpy(s->logits, file.data, file.size);
    orli_file_close(&file);
    return 1;
}

static double worst_logit(orl_ctx *c, orl_model *m, const stories *s, orl_real *keep) { /* against llama2.c */
    orl_tape *tape = orl_tape_create(c);
    orl_stream *stream = orl_stream_create(c);
    orl_tensor *y;
    double worst = 0;
    size_t i;
    orl_stream_add(stream, s->token, s->tokens, ORL_ROOT);
    y = orl_logits(tape, m, stream);
    check(y != NULL);
    for (i = 0; y && i < s->tokens * 512; i++) worst = fmax(worst, fabs((double)orl_data(y)[i] - (double)s->logits[i]));
    if (y && keep) memcpy(keep, orl_data(y), s->tokens * 512 * sizeof *keep);
    orl_tape_free(tape);
    orl_stream_free(stream);
    return y ? worst : HUGE_VAL;
}

static void test_stories(void) {
    static orl_real first[64 * 512], second[64 * 512];
    stories s;
    orl_model *m;
    int32_t *ids;
    size_t n;
    char cut[600], *bytes;
    if (!stories_open(&s)) {
        printf("skipped: real weights, %s: %s\n", data_path("stories260K"), orl_failed(ctx) ? orl_error(ctx) : "not there (set ORL_DATA)");
        orl_clear_error(ctx);
        return;
    }
    m = orl_model_load_llama2c(ctx, data_path("stories260K/stories260K.bin"), data_path("stories260K/stories260K.tok512.bin"));
    check(m != NULL);
    if (!m) printf("    %s\n", orl_error(ctx));
    check_near(worst_logit(ctx, m, &s, first), 0, 1e-4);
    check(m && m->config.kv_heads == 4 && m->config.heads == 8 && m->config.layers == 5 && m->config.tied);
    check(orl_encode(orl_model_tokenizer(m), s.prompt, strlen(s.prompt), 0, &ids, &n) == ORL_OK);
    check(n + 1 == s.tokens && s.token[0] == orl_bos(orl_model_tokenizer(m)) && memcmp(ids, s.token + 1, n * sizeof *ids) == 0);
    orl_free(ctx, ids);
    round_trip(m, "stories");
    orl_model_free(m);
    m = orl_model_load(ctx, data_path("hf-stories260K"));
    check(m != NULL);
    check_near(worst_logit(ctx, m, &s, second), 0, 1e-4);
    check(memcmp(first, second, s.tokens * 512 * sizeof *first) == 0); /* one model in two formats */
    orl_model_free(m);
    bytes = read_all(data_path("stories260K/stories260K.bin"), &n);
    snprintf(cut, sizeof cut, "%s", in_dir("cut.bin"));
    write_all(cut, bytes, n / 2);
    check(orl_model_load_llama2c(ctx, cut, NULL) == NULL);
    expect_error(ORL_ERR_FORMAT, "cut off");
    write_all(cut, bytes, 20);
    check(orl_model_load_llama2c(ctx, cut, NULL) == NULL);
    expect_error(ORL_ERR_FORMAT, "too few");
    memset(bytes, 255, 28);
    write_all(cut, bytes, n);
    check(orl_model_load_llama2c(ctx, cut, NULL) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "cut.bin");
    free(bytes);
    free(s.logits);
}

/* ---- every instruction set computes the same, up to rounding ---- */

static void test_instruction_sets(void) {
#if ORLI_NEON
    static const char *const names[] = {"scalar", "neon"};
#else
    static const char *const names[] = {"scalar", "avx2", "avx512"};
#endif
    static orl_real first[64 * 512], other[64 * 512];
    stories s;
    size_t i, arch;
    int real = stories_open(&s);
    orl_clear_error(ctx);
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        orl_config config = orl_config_default();
        orl_ctx *c;
        config.isa = names[i], config.threads = 1;
        c = orl_create(&config);
        if (orl_failed(c)) {
            if (!ORLI_DOUBLE) printf("skipped: %s\n", orl_error(c));
            orl_destroy(c);
            continue;
        }
        check(strcmp(orl_isa(c), names[i]) == 0);
        if (real) {
            orl_model *m = orl_model_load_llama2c(c, data_path("stories260K/stories260K.bin"), NULL);
            check_near(worst_logit(c, m, &s, NULL), 0, 1e-4);
            orl_model_free(m);
        }
        for (arch = 0; arch < 2; arch++) {
            orl_model *m = make_model(c, (orl_arch)arch, 0, NULL);
            orl_tape *tape = orl_tape_create(c);
            orl_stream *stream = orl_stream_create(c);
            int32_t ids[33];
            size_t k;
            orl_real *keep = (i ? other : first) + arch * 33 * 11;
            for (k = 0; k < 33; k++) ids[k] = (int32_t)(k * k % 11);
            orl_stream_add(stream, ids, 33, ORL_ROOT);
            memcpy(keep, orl_data(orl_logits(tape, m, stream)), 33 * 11 * sizeof *keep);
            for (k = 0; i && k < 33 * 11; k++) check_near(keep[k], first[arch * 33 * 11 + k], 2e-5);
            orl_tape_free(tape);
            orl_stream_free(stream);
            orl_model_free(m);
        }
        orl_destroy(c);
    }
    free(s.logits);
}

int main(void) {
    orl_config config = orl_config_default();
    config.threads = ORLI_DOUBLE ? 1 : 2;
    ctx = orl_create(&config);
    if (!ctx || !make_dir("test_11", NULL)) return 1;
    test_gradients();
    test_round_trips();
    test_damaged();
    test_added_beyond();
    test_generation_config();
    test_hostile_memory();
    test_wrong_use();
    test_stories();
    if (!getenv("ORL_ISA")) test_instruction_sets();
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_11_model");
}
