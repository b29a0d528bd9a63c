/* builds: float double */
/* Low-rank adapters and frozen weights in bf16, on every family's kind of layers: plain, transposed, fused. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"
#include "test.h"

static orl_ctx *ctx;
#define TIGHT (ORLI_DOUBLE ? 1e-11 : 2e-5)

static orl_model *make_model(orl_arch arch) {
    orl_model_config c = orl_model_config_default(arch);
    orl_model *m;
    orl_param *p;
    orli_rng r = orli_rng_new(11, (uint64_t)arch);
    size_t i;
    c.vocab = 37, c.dim = 24, c.layers = 2, c.heads = 4, c.kv_heads = arch == ORL_GPT2 || arch == ORL_GPT_NEOX ? 4 : 2;
    c.ffn = 40, c.context = 48, c.eos = 0, c.rope.width = arch == ORL_GPT_NEOX ? 2 : 0;
    m = orl_model_create(ctx, &c, NULL);
    for (p = m->params->first; p; p = p->next) /* biases too, and weights that matter */
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] += (orl_real)(0.1 * orli_rng_normal(&r));
    return m;
}

static const int32_t ids[] = {3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9, 32, 3, 8, 4, 6, 26, 4, 33};

static orl_real *logits_of(orl_model *m) { /* free it */
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *s = orl_stream_create(ctx);
    size_t n = sizeof ids / sizeof *ids;
    orl_real *copy = (orl_real *)malloc(n * m->config.vocab * sizeof *copy);
    orl_tensor *y;
    orl_stream_add(s, ids, n, ORL_ROOT);
    y = orl_logits(tape, m, s);
    if (y) memcpy(copy, orl_data(y), n * m->config.vocab * sizeof *copy);
    else printf("    %s\n", orl_error(ctx)), memset(copy, 0, n * m->config.vocab * sizeof *copy);
    orl_tape_free(tape);
    orl_stream_free(s);
    return copy;
}

static double apart(orl_model *a, orl_model *b) { /* largest difference of their logits */
    orl_real *x = logits_of(a), *y = logits_of(b);
    size_t i, n = sizeof ids / sizeof *ids * a->config.vocab;
    double most = 0;
    for (i = 0; i < n; i++) most = fmax(most, fabs((double)x[i] - (double)y[i]));
    free(x), free(y);
    return most;
}
static int same(orl_model *a, orl_model *b) {
    orl_real *x = logits_of(a), *y = logits_of(b);
    int equal = memcmp(x, y, sizeof ids / sizeof *ids * a->config.vocab * sizeof *x) == 0;
    free(x), free(y);
    return equal;
}

static orl_dataset *demonstrations(void) {
    static const char rows[] =
        "{\"prompt_ids\": [3, 14, 15], \"completion_ids\": [9, 2, 6, 5, 0]}\n"
        "{\"prompt_ids\": [3, 14, 16], \"completion_ids\": [9, 2, 7, 0]}\n"
        "{\"prompt_ids\": [8, 9], \"completion_ids\": [7, 9, 32, 3, 8, 0]}\n"
        "{\"prompt_ids\": [4, 6, 26], \"completion_ids\": [4, 33, 0]}\n";
    return orl_dataset_parse(ctx, rows, sizeof rows - 1, "rows");
}

static void fill_adapter(orl_model *m) { /* B is zero at first, which would hide much */
    orli_rng r = orli_rng_new(5, 77);
    orl_param *p;
    size_t i;
    for (p = m->adapter->first; p; p = p->next) {
        if (strstr(p->name, "lora_B") == NULL) continue;
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] = (orl_real)(0.2 * orli_rng_normal(&r));
        p->version++;
    }
}

/* ---- adapters ---- */

/* W + scale·B·A by hand, in a copy of the base. */
static void merge_by_hand(orl_model *to, const orl_model *from, double scale) {
    size_t slot, r, c, k;
    for (slot = 0; slot < orli_model_slots(from); slot++) {
        const orl_param *a = from->down[slot], *b = from->up[slot];
        orl_param *w = to->weight[slot];
        if (!b) continue;
        for (r = 0; r < w->rows; r++)
            for (c = 0; c < w->cols; c++) {
                double sum = (double)w->data[r * w->cols + c];
                for (k = 0; k < a->rows; k++)
                    sum += scale * (double)b->data[r * b->cols + k] * (double)a->data[k * a->cols + c];
                w->data[r * w->cols + c] = (orl_real)sum;
            }
        w->version++;
    }
}

static void test_function(orl_arch arch) {
    orl_model *base = make_model(arch), *m = orl_model_copy(base), *merged = orl_model_copy(base), *copy;
    orl_lora_options o = orl_lora_default();
    o.rank = 3, o.alpha = 5;
    check(orl_lora_add(m, &o) == ORL_OK && orl_has_lora(m) && !orl_has_lora(base));
    check(same(m, base)); /* B = 0 */
    fill_adapter(m);
    check(apart(m, base) > 0.01);
    merge_by_hand(merged, m, 5.0 / 3.0);
    check(apart(m, merged) < TIGHT);
    copy = orl_model_copy(m);
    check(copy && orl_has_lora(copy) && same(copy, m));
    check(orl_lora_merge(copy) == ORL_OK && !orl_has_lora(copy) && apart(copy, merged) < TIGHT);
    check(orl_params_count(orl_model_params(copy)) == orl_params_count(base->params));
    check(orl_params_count(orl_model_params(m)) == m->adapter->count && m->adapter->count < base->params->count / 2);
    orl_model_free(base), orl_model_free(m), orl_model_free(merged), orl_model_free(copy);
}

static orl_tensor *loss_of(orl_tape *tape, orl_model *m, orl_stream *s) {
    orl_tensor *h;
    orl_tape_reset(tape);
    h = orl_hidden(tape, m, s);
    if (m->reward) return orl_sum(tape, orl_square(tape, orl_linear(tape, h, orl_use(tape, m->weight[ORLI_W_SCORE]), NULL)));
    return orl_sum(tape, orl_token_logp(tape, h, orl_head(tape, m), 37, ids, NULL));
}

/* Slopes of A, B and a reward head against differences; the base stays without any. */
static void test_gradient(orl_arch arch, int reward, int half) {
    orl_model *m = make_model(arch), *old = m;
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *s = orl_stream_create(ctx);
    orl_lora_options o = orl_lora_default();
    orl_param *p;
    size_t i;
    double h = 2e-6;
    if (reward) m = orl_reward_model(old), orl_model_free(old);
    if (half) check(orl_model_store_bf16(m) == ORL_OK);
    o.rank = 2, o.root = 1;
    check(orl_lora_add(m, &o) == ORL_OK);
    fill_adapter(m);
    orl_stream_add(s, ids, sizeof ids / sizeof *ids, ORL_ROOT);
    orl_params_zero_grad(orl_model_params(m));
    check(orl_backward(tape, loss_of(tape, m, s)) == ORL_OK);
    for (p = m->params->first; p; p = p->next) check(orl_param_grad(p) == NULL);
    for (p = m->adapter->first; p; p = p->next) {
        size_t n = p->rows * p->cols, stride = n / 6 + 1;
        double most = 1e-8, worst = 0;
        for (i = 0; i < n; i++) most = fmax(most, fabs((double)p->grad[i]));
        check(most > 1e-6);
        for (i = 0; ORLI_DOUBLE && i < n; i += stride) {
            orl_real x = p->data[i];
            double up, down;
            p->data[i] = (orl_real)((double)x + h), p->version++;
            up = (double)orl_data(loss_of(tape, m, s))[0];
            p->data[i] = (orl_real)((double)x - h), p->version++;
            down = (double)orl_data(loss_of(tape, m, s))[0];
            p->data[i] = x, p->version++;
            worst = fmax(worst, fabs((up - down) / (2 * h) - (double)p->grad[i]));
        }
        check_near(worst, 0, 2e-6 * most);
    }
    orl_tape_free(tape), orl_stream_free(s), orl_model_free(m);
}

static void test_training(void) {
    orl_model *m = make_model(ORL_LLAMA), *base = orl_model_copy(m), *again;
    orl_dataset *data = demonstrations();
    orl_train_options o = orl_train_default();
    orl_estimate e;
    orl_tape *tape = orl_tape_create(ctx);
    orl_real *first, *second;
    size_t slot;
    double before, after;
    check(orl_lora_add(m, NULL) == ORL_OK);
    again = orl_model_copy(m);
    o.steps = 12, o.batch = 4, o.lr = 1e-2;
    check(orl_train_estimate(m, data, &o, &e) == ORL_OK);
    check(e.gradients == m->adapter->count * sizeof(orl_real) && e.moments == 2 * e.gradients);
    check(e.weights == (m->params->count + m->adapter->count) * sizeof(orl_real));
    orl_logprob(m, data, NULL, NULL);
    before = orl_dataset_row(data, 0)->logp;
    check(orl_train(m, data, &o) == ORL_OK);
    orl_logprob(m, data, NULL, NULL);
    after = orl_dataset_row(data, 0)->logp;
    check(after > before + 0.5);
    for (slot = 0; slot < orli_model_slots(m); slot++)
        if (m->weight[slot])
            check(memcmp(m->weight[slot]->data, base->weight[slot]->data,
                         m->weight[slot]->rows * m->weight[slot]->cols * sizeof(orl_real)) == 0);
    /* stopped half-way and resumed: the same bits */
    o.checkpoint = in_dir("checkpoint"), o.save_every = 6, o.steps = 12;
    check(orl_train(again, data, &o) == ORL_OK && same(again, m));
    orl_model_free(again);
    again = orl_model_copy(base);
    check(orl_lora_add(again, NULL) == ORL_OK);
    o.resume = 1;
    check(orl_train(again, data, &o) == ORL_OK && same(again, m));
    /* blocks worked out again: the same bits */
    orl_model_free(again);
    again = orl_model_copy(base);
    check(orl_lora_add(again, NULL) == ORL_OK);
    o.checkpoint = NULL, o.resume = 0, o.recompute = 1;
    check(orl_train(again, data, &o) == ORL_OK && same(again, m));
    first = logits_of(m), second = logits_of(again);
    free(first), free(second);
    orl_tape_free(tape), orl_dataset_free(data), orl_model_free(m), orl_model_free(base), orl_model_free(again);
}

/* ---- files ---- */

static char *text_of(const char *path) {
    size_t n;
    return read_bytes(path, &n);
}

/* The file has PEFT's names and shapes; B of fused tensors has rows as the whole has them. */
static void check_files(const orl_model *m, const char *where) {
    static const char *const names[3] = {
        "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight",
        "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight",
        "base_model.model.gpt_neox.layers.1.attention.query_key_value.lora_B.weight"};
    int fused = m->config.arch == ORL_GPT2 || m->config.arch == ORL_GPT_NEOX;
    const char *name = names[m->config.arch == ORL_GPT2 ? 0 : m->config.arch == ORL_GPT_NEOX ? 2 : 1];
    size_t d = m->config.head_dim, h, r, k, part;
    orli_safetensors st;
    const orli_st_tensor *t;
    orl_real *x;
    char path[900];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", where);
    check(orli_safetensors_open(ctx, path, &st) == ORL_OK);
    t = orli_safetensors_find(&st, name);
    check(t && t->rank == 2 && t->shape[1] == m->lora.rank);
    if (!t) return;
    check(t->shape[0] == (fused ? 3 : 1) * m->config.kv_heads * d);
    x = (orl_real *)malloc(t->shape[0] * t->shape[1] * sizeof *x);
    orli_safetensors_read(&st, t, 0, t->shape[0] * t->shape[1], x);
    for (part = fused ? 0 : 2; part < 3; part++)
        for (h = 0; h < m->config.kv_heads; h++)
            for (r = 0; r < d; r++)
                for (k = 0; k < m->lora.rank; k++) {
                    size_t row = !fused ? h * d + r : m->config.arch == ORL_GPT2 ? part * m->config.dim + h * d + r : (h * 3 + part) * d + r;
                    const orl_param *b = orli_model_weight(m, ORLI_W_Q, 1);
                    b = m->up[orli_slot((orli_weight)(ORLI_W_Q + (int)part), 1)];
                    if (!(x[row * m->lora.rank + k] <= b->data[(h * d + r) * m->lora.rank + k]) ||
                        !(x[row * m->lora.rank + k] >= b->data[(h * d + r) * m->lora.rank + k])) {
                        check(!"rows of B as the whole has them");
                        part = 3, h = 1000, r = d;
                        break;
                    }
                }
    free(x);
    orli_safetensors_close(&st);
}

static void test_files(orl_arch arch) {
    orl_model *base = make_model(arch), *m = orl_model_copy(base), *back;
    orl_lora_options o = orl_lora_default();
    char base_dir[400], at[400], *config;
    snprintf(base_dir, sizeof base_dir, "%s/base%d", dir, (int)arch);
    snprintf(at, sizeof at, "%s/adapter%d", dir, (int)arch);
    o.rank = 4, o.root = arch == ORL_LLAMA;
    if (arch == ORL_LLAMA) o.targets = "q_proj, v_proj";
    check(orl_model_save(base, base_dir) == ORL_OK);
    orl_model_free(m);
    m = orl_model_load(ctx, base_dir);
    check(orl_lora_add(m, &o) == ORL_OK);
    fill_adapter(m);
    check(orl_lora_save(m, at) == ORL_OK);
    check_files(m, at);
    snprintf(at, sizeof at, "adapter%d/adapter_config.json", (int)arch);
    config = text_of(in_dir(at));
    check(config && strstr(config, "\"peft_type\": \"LORA\"") && strstr(config, "\"r\": 4") && strstr(config, base_dir));
    check(config && strstr(config, arch == ORL_LLAMA ? "[\"q_proj\", \"v_proj\"]" : arch == ORL_GPT2 ? "\"c_attn\", \"c_proj\", \"c_fc\"" : "\"query_key_value\", \"dense\""));
    free(config);
    snprintf(at, sizeof at, "%s/adapter%d", dir, (int)arch);
    check(orl_lora_load(base, at) == ORL_OK && same(base, m));
    back = orl_model_load(ctx, at); /* with its base */
    check(back && orl_has_lora(back) && same(back, m));
    check(back && strncmp(orl_model_name(back), at, strlen(orl_model_name(back))) == 0); /* not its base's */
    if (!back) printf("    %s\n", orl_error(ctx)), orl_clear_error(ctx);
    check(orl_lora_save(m, at) == ORL_ERR_EXISTS && strstr(orl_error(ctx), "is there already"));
    orl_clear_error(ctx);
    orl_model_free(back), orl_model_free(base), orl_model_free(m);
}

/* A reward model's head is trained and kept with the adapter, and the normalisation and condition with them. */
static void test_reward_files(void) {
    orl_model *trunk = make_model(ORL_LLAMA), *rm, *back, *dt = orl_model_copy(trunk);
    char *config;
    check(orl_model_save(trunk, in_dir("trunk")) == ORL_OK);
    orl_model_free(trunk);
    trunk = orl_model_load(ctx, in_dir("trunk")), rm = orl_reward_model(trunk);
    check(orl_lora_add(rm, NULL) == ORL_OK && orl_param_find(orl_model_params(rm), "score.weight"));
    fill_adapter(rm);
    rm->reward_mean = 0.25, rm->reward_sd = 1.5;
    check(orl_lora_save(rm, in_dir("rm")) == ORL_OK);
    config = text_of(in_dir("rm/adapter_config.json"));
    check(config && strstr(config, "SEQ_CLS") && strstr(config, "[\"score\"]"));
    free(config);
    back = orl_model_load(ctx, in_dir("rm"));
    check(back && back->reward && back->reward_mean > 0.2 && back->reward_sd > 1.4);
    check(back && memcmp(back->weight[ORLI_W_SCORE]->data, rm->weight[ORLI_W_SCORE]->data, 24 * sizeof(orl_real)) == 0);
    check(back && orl_lora_merge(back) == ORL_OK && orl_model_save(back, in_dir("rm-merged")) == ORL_OK);
    check(orl_lora_load(dt, in_dir("rm")) == ORL_ERR_MISMATCH && strstr(orl_error(ctx), "modules_to_save"));
    orl_clear_error(ctx);
    check(!orl_has_lora(dt));
    dt->condition.kind = ORL_CONDITION_TEXT, dt->condition.sd = 1, dt->condition.target = 0.75;
    snprintf(dt->condition.format, sizeof dt->condition.format, " <rm_score>: %%s ");
    orl_model_set_name(dt, "../trunk"); /* from where the adapter is */
    dt->stop[0] = 9, dt->stop[1] = 0, dt->stops = 2; /* as a chat template does */
    check(orl_lora_add(dt, NULL) == ORL_OK && orl_lora_save(dt, in_dir("dt")) == ORL_OK);
    orl_model_free(back);
    back = orl_model_load(ctx, in_dir("dt"));
    check(back && back->condition.kind == ORL_CONDITION_TEXT && back->condition.target > 0.7);
    check(back && back->stops == 2 && back->stop[0] == 9 && back->stop[1] == 0 && back->config.eos == 9);
    if (!back) printf("    %s\n", orl_error(ctx)), orl_clear_error(ctx);
    orl_model_free(trunk), orl_model_free(rm), orl_model_free(back), orl_model_free(dt);
}

/* ---- refusals ---- */

static void expect(const char *part) {
    check_contains(orl_error(ctx), part);
    orl_clear_error(ctx);
}

static void test_refusals(void) {
    static const char *const bad[][2] = {
        {"\"peft_type\": \"IA3\"", "peft_type is \"IA3\""},
        {"\"r\": 4", "no peft_type"},
        {"\"peft_type\": \"LORA\", \"use_dora\": true", "use_dora is true"},
        {"\"peft_type\": \"LORA\", \"bias\": \"all\"", "bias is \"all\""},
        {"\"peft_type\": \"LORA\", \"rank_pattern\": {\"q_proj\": 2}", "rank_pattern is not empty"},
        {"\"peft_type\": \"LORA\", \"target_modules\": \".*q_proj\"", "target_modules is the pattern"},
        {"\"peft_type\": \"LORA\", \"target_modules\": [\"gate\"]", "no linear layer of a llama model is called \"gate\""},
        {"\"peft_type\": \"LORA\", \"modules_to_save\": [\"embed_tokens\"]", "only \"score\" is supported"},
        {"\"peft_type\": \"LORA\", \"r\": 0", "from 1 to"},
        {"\"peft_type\": \"LORA\", \"r\": 3", "is not (3, 24)"},
        {"\"peft_type\": \"LORA\", \"r\": 4, \"target_modules\": [\"q_proj\"]", "has no place in this llama model"},
        {"\"peft_type\": \"LORA\", \"r\": 4, \"target_modules\": [\"q_proj\", \"v_proj\", \"o_proj\"]", "o_proj.lora_A.weight\" is missing"}};
    orl_model *m = make_model(ORL_LLAMA), *frozen = orl_model_copy(m);
    orl_lora_options o = orl_lora_default();
    orl_dataset *data = demonstrations();
    orl_train_options t = orl_train_default();
    char text[400];
    size_t i;
    o.targets = "wq";
    check(orl_lora_add(m, &o) == ORL_ERR_ARGUMENT), expect("\"wq\"");
    o = orl_lora_default(), o.rank = 0;
    check(orl_lora_add(m, &o) == ORL_ERR_ARGUMENT), expect("rank must be 1 to 24");
    o.rank = 1, o.alpha = (double)NAN;
    check(orl_lora_add(m, &o) == ORL_ERR_ARGUMENT), expect("alpha");
    check(orl_lora_save(m, in_dir("none")) == ORL_ERR_ARGUMENT), expect("has no adapter");
    check(orl_lora_merge(m) == ORL_OK); /* nothing to do */
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{%s}", bad[i][0]);
        write_bytes(in_dir("adapter1/adapter_config.json"), text, strlen(text));
        check(orl_lora_load(m, in_dir("adapter1")) != ORL_OK && !orl_has_lora(m));
        expect(bad[i][1]);
    }
    check(orl_lora_add(m, NULL) == ORL_OK);
    check(orl_lora_add(m, NULL) == ORL_ERR_ARGUMENT), expect("merge it first");
    check(orl_model_save(m, in_dir("whole")) == ORL_ERR_ARGUMENT), expect("orl_lora_merge()");
    check(orl_model_save_gguf(m, in_dir("whole.gguf"), ORL_F32) == ORL_ERR_ARGUMENT), expect("orl_lora_merge()");
    check(orli_model_grow(m, 8) == ORL_ERR_ARGUMENT), expect("condition by text");
    check(orl_model_store_bf16(frozen) == ORL_OK);
    t.steps = 1;
    check(orl_train(frozen, data, &t) == ORL_ERR_ARGUMENT), expect("frozen");
    orl_model_free(m), orl_model_free(frozen), orl_dataset_free(data);
}

/* ---- bf16 ---- */

static void round_weights(orl_model *m) {
    orl_param *p;
    uint16_t half;
    size_t i;
    for (p = m->params->first; p; p = p->next)
        for (i = 0; i < p->rows * p->cols; i++) {
            orli_tensor_from_real(ORLI_BF16, p->data + i, 1, &half);
            orli_tensor_to_real(ORLI_BF16, &half, 1, p->data + i);
            p->version++;
        }
}

static void test_bf16(orl_arch arch) {
    orl_model *m = make_model(arch), *stored, *mapped, *plain, *copy, *rm;
    orl_generate_options g = orl_generate_default();
    orl_dataset *prompts = demonstrations(), *a, *b;
    char at[300];
    size_t before, i;
    round_weights(m);
    stored = orl_model_copy(m);
    check(orl_model_store_bf16(stored) == ORL_OK);
    check(orl_param_data(stored->weight[ORLI_W_EMBED]) == NULL);
    check(same(stored, m)); /* the same numbers in the same order */
    g.samples = 2, g.max_tokens = 9, g.temperature = 1;
    a = orl_sample(stored, prompts, &g), b = orl_sample(m, prompts, &g);
    check(a && b && orl_dataset_count(a) == orl_dataset_count(b));
    for (i = 0; a && b && i < orl_dataset_count(a); i++) {
        orl_row *x = orl_dataset_row(a, i), *y = orl_dataset_row(b, i);
        check(x->response.tokens == y->response.tokens &&
              memcmp(x->response.ids, y->response.ids, x->response.tokens * sizeof(int32_t)) == 0);
        check(x->logp <= y->logp && x->logp >= y->logp);
    }
    snprintf(at, sizeof at, "%s/bf16-%d", dir, (int)arch);
    check(orl_model_save_as(stored, at, ORL_BF16) == ORL_OK);
    before = orl_memory_now(ctx);
    plain = orl_model_load(ctx, at);
    i = orl_memory_now(ctx) - before;
    before = orl_memory_now(ctx);
    mapped = orl_model_load_frozen(ctx, at);
    check(orl_memory_now(ctx) - before < i / 2 + 6000);
    check(plain && mapped && same(plain, m) && same(mapped, m));
    copy = orl_model_copy(mapped), rm = orl_reward_model(mapped);
    orl_model_free(mapped); /* the file stays mapped for the copy */
    check(copy && same(copy, m));
    check(rm && orl_param_data(rm->weight[ORLI_W_SCORE]) != NULL);
    orl_model_free(rm);
    rm = orl_model_copy(copy);
    check(rm && orl_lora_add(rm, NULL) == ORL_OK);
    fill_adapter(rm);
    check(apart(rm, copy) > 0.01);
    mapped = orl_model_copy(rm);
    check(orl_lora_merge(rm) == ORL_OK && apart(rm, mapped) < TIGHT);
    orl_model_free(m), orl_model_free(stored), orl_model_free(plain), orl_model_free(copy), orl_model_free(rm);
    orl_model_free(mapped), orl_dataset_free(prompts), orl_dataset_free(a), orl_dataset_free(b);
}

/* Such weights belong to products, embeddings and heads; another operator refuses them. */
static void test_bf16_operators(void) {
    orl_model *m = make_model(ORL_LLAMA);
    orl_tape *tape = orl_tape_create(ctx);
    check(orl_model_store_bf16(m) == ORL_OK);
    check(orl_square(tape, orl_use(tape, m->weight[ORLI_W_EMBED])) == NULL), expect("stored in bf16");
    orl_tape_free(tape), orl_model_free(m);
}

int main(void) {
    static const orl_arch archs[] = {ORL_GPT2, ORL_LLAMA, ORL_GPT_NEOX, ORL_GEMMA3};
    size_t i, start;
    if (!make_dir("test_11_lora", NULL)) return 1;
    ctx = orl_create(NULL);
    start = orl_memory_now(ctx);
    for (i = 0; i < sizeof archs / sizeof *archs; i++) {
        test_function(archs[i]);
        test_gradient(archs[i], 0, 0);
        test_bf16(archs[i]);
        if (archs[i] != ORL_GEMMA3) test_files(archs[i]);
    }
    test_gradient(ORL_LLAMA, 1, 0);
    test_gradient(ORL_LLAMA, 0, 1);
    test_gradient(ORL_GPT_NEOX, 1, 1);
    test_training();
    test_reward_files();
    test_refusals();
    test_bf16_operators();
    check(orl_memory_now(ctx) == start);
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_11_lora");
}
