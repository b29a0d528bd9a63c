/* builds: float double threads */
/* Frozen weights in int8: what they say, who shares them, what they refuse, and that nothing is lost on the way. */
#include "fault.h"
#include "files.h"
#include "test.h"

static orl_ctx *ctx;
static int quick; /* under sanitizers */
#define TIGHT (ORLI_DOUBLE ? 1e-11 : 2e-5)
#define VOCAB 37
#define DIM 72 /* a group of 64 and another */

static orl_ctx *context(size_t threads) {
    orl_config config = orl_config_default();
    config.threads = threads;
    return orl_create(&config);
}

static orl_model *make_model(orl_ctx *c, orl_arch arch) {
    orl_model_config mc = orl_model_config_default(arch);
    orl_model *m;
    orl_param *p;
    orli_rng r = orli_rng_new(8, (uint64_t)arch);
    size_t i;
    mc.vocab = VOCAB, mc.dim = DIM, mc.layers = 2, mc.heads = 4, mc.kv_heads = arch == ORL_LLAMA ? 2 : 4;
    mc.ffn = 130, mc.context = 48, mc.eos = 0, mc.tied = arch == ORL_GPT2, mc.rope.width = arch == ORL_GPT_NEOX ? 4 : 0;
    m = orl_model_create(c, &mc, NULL);
    for (p = m ? m->params->first : NULL; p; p = p->next) { /* biases too, and weights that matter */
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] += (orl_real)(0.1 * orli_rng_normal(&r));
        orl_param_changed(p);
    }
    return m;
}
static orl_model *stored(orl_model *m) { /* a copy in int8 */
    orl_model *copy = orl_model_copy(m);
    check(orl_model_store_int8(copy) == ORL_OK);
    return copy;
}

static const int32_t ids[] = {3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9, 32, 3, 8, 4, 6, 26, 4, 33};
#define IDS (sizeof ids / sizeof *ids)

/* On a tape that records and on one that does not: the same. */
static void logits_of(orl_model *m, orl_real *out) {
    orl_tape *tape[2];
    orl_stream *s = orl_stream_create(ctx);
    orl_tensor *y[2];
    int k;
    tape[0] = orl_tape_create(ctx), tape[1] = orli_tape_inference(ctx);
    orl_stream_add(s, ids, IDS, ORL_ROOT);
    for (k = 0; k < 2; k++) y[k] = orl_logits(tape[k], m, s);
    check(y[0] && y[1]);
    if (y[0] && y[1]) {
        check(memcmp(orl_data(y[0]), orl_data(y[1]), IDS * m->config.vocab * sizeof *out) == 0);
        memcpy(out, orl_data(y[0]), IDS * m->config.vocab * sizeof *out);
    } else printf("    %s\n", orl_error(ctx)), orl_clear_error(ctx);
    orl_tape_free(tape[0]), orl_tape_free(tape[1]), orl_stream_free(s);
}
static double apart(orl_model *a, orl_model *b, double *size) { /* mean difference of logits; size: of logits */
    orl_real x[IDS * VOCAB] = {0}, y[IDS * VOCAB] = {0};
    double sum = 0, all = 0;
    size_t i;
    logits_of(a, x), logits_of(b, y);
    for (i = 0; i < IDS * VOCAB; i++) sum += fabs((double)x[i] - (double)y[i]), all += fabs((double)x[i]);
    if (size) *size = all / (double)(IDS * VOCAB);
    return sum / (double)(IDS * VOCAB);
}
static int same(orl_model *a, orl_model *b) {
    orl_real x[IDS * VOCAB] = {0}, y[IDS * VOCAB] = {0};
    logits_of(a, x), logits_of(b, y);
    return memcmp(x, y, sizeof x) == 0;
}

static orl_dataset *parse(orl_ctx *c, const char *text) { return orl_dataset_parse(c, text, strlen(text), "rows"); }
static const char demonstrations[] =
    "{\"prompt_ids\": [3, 14, 15], \"completion_ids\": [9, 2, 6, 5, 0]}\n"
    "{\"prompt_ids\": [3, 14, 16], \"completion_ids\": [9, 2, 7, 0]}\n"
    "{\"prompt_ids\": [8, 9], \"completion_ids\": [7, 9, 32, 3, 8, 0]}\n"
    "{\"prompt_ids\": [4, 6, 26], \"completion_ids\": [4, 33, 0]}\n";
static const char pairs[] =
    "{\"prompt_ids\": [3, 14, 15], \"chosen_ids\": [9, 2, 6, 5, 0], \"rejected_ids\": [1, 7, 0]}\n"
    "{\"prompt_ids\": [8, 9], \"chosen_ids\": [7, 9, 32, 0], \"rejected_ids\": [3, 8, 11, 12, 0]}\n";

/* ---- what it computes ---- */

/* Every number within half a step of the float one; the same from a file that the model was saved to. */
static void check_numbers(orl_model *m, orl_model *bytes, orl_model *back) {
    size_t slot;
    orl_real *x = (orl_real *)malloc(VOCAB * DIM * 4 * sizeof *x);
    for (slot = 0; slot < orli_model_slots(m); slot++) {
        const orl_param *p = m->weight[slot], *q = bytes->weight[slot];
        size_t i, c, n = p ? p->rows * p->cols : 0;
        int near = 1;
        if (!p) continue;
        check(n <= VOCAB * DIM * 4);
        orli_param_read(q, 0, n, x);
        for (i = 0; i < n; i++) {
            double top = 0;
            size_t first = i - i % p->cols % 64, end = ORLI_MIN(first + 64, i - i % p->cols + p->cols);
            for (c = first; c < end; c++) top = fmax(top, fabs((double)p->data[c]));
            near &= fabs((double)x[i] - (double)p->data[i]) <= (q->int8 ? 0.50001 * top / 127 : 0);
        }
        check(near);
        check((q->int8 != NULL) == (p->rank >= 2 && p != m->weight[ORLI_W_POSITION] && p != m->weight[ORLI_W_SCORE]));
        check((orl_param_data((orl_param *)(uintptr_t)q) == NULL) == (q->int8 != NULL));
        if (back) check(memcmp(back->weight[slot]->data, x, n * sizeof *x) == 0);
    }
    free(x);
}

static void test_numbers(orl_arch arch) {
    orl_model *m = make_model(ctx, arch), *bytes = stored(m), *back, *halves = orl_model_copy(m), *both, *again;
    double size, off, rounded;
    char at[300];
    snprintf(at, sizeof at, "%s/int8-%d", dir, (int)arch);
    check(orl_model_save(bytes, at) == ORL_OK);
    back = orl_model_load(ctx, at);
    check(back != NULL);
    check_numbers(m, bytes, back);
    /* Two things are rounded, weights and activations, each by about 1/254 of the largest of 64. The float model of
     * the rounded weights, which is `back`, differs from the bytes' by the second alone. */
    off = apart(m, bytes, &size), rounded = apart(back, bytes, NULL);
    printf("off by %.2f %% of a logit, of which the weights %.2f %%\n", 100 * off / size,
           100 * apart(m, back, NULL) / size);
    check(off > 0 && off < 0.04 * size);
    check(rounded > 0 && rounded < off);
    check(apart(m, back, NULL) < 0.04 * size);
    /* by way of bf16, twice, the other way round */
    check(orl_model_store_bf16(halves) == ORL_OK);
    both = stored(halves);
    check(apart(halves, both, &size) < 0.04 * size && orl_param_data(both->weight[ORLI_W_EMBED]) == NULL);
    check(both->weight[ORLI_W_EMBED]->int8 && !both->weight[ORLI_W_EMBED]->half && halves->weight[ORLI_W_EMBED]->half);
    again = orl_model_copy(bytes);
    check(orl_model_store_int8(again) == ORL_OK && orl_model_store_bf16(again) == ORL_OK);
    check(again->weight[ORLI_W_EMBED]->int8 == bytes->weight[ORLI_W_EMBED]->int8);
    if (arch != ORL_GPT2) check(same(again, bytes)); /* bf16 takes GPT-2's positions, which bytes leave alone */
    else check(again->weight[ORLI_W_POSITION]->half && bytes->weight[ORLI_W_POSITION]->data);
    orl_model_free(m), orl_model_free(bytes), orl_model_free(back), orl_model_free(halves), orl_model_free(both);
    orl_model_free(again);
}

/* Copies share the bytes, whoever is freed first. */
static void test_sharing(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *bytes = stored(m), *copy[3], *rm;
    size_t floats = m->params->count * sizeof(orl_real), before, i, order;
    orl_real first[IDS * VOCAB] = {0}, then[IDS * VOCAB] = {0};
    before = orl_memory_now(ctx);
    orl_model_free(m);
    check(before - orl_memory_now(ctx) > floats);
    logits_of(bytes, first);
    for (order = 0; order < 3; order++) {
        before = orl_memory_now(ctx);
        for (i = 0; i < 3; i++) copy[i] = orl_model_copy(bytes);
        check(orl_memory_now(ctx) - before < 3 * (floats / 8 + 8000)); /* names, norms */
        orl_model_free(copy[order]);
        copy[order] = bytes, bytes = copy[(order + 1) % 3];
        orl_model_free(copy[order]), orl_model_free(copy[(order + 2) % 3]);
        logits_of(bytes, then);
        check(memcmp(first, then, sizeof first) == 0);
    }
    rm = orl_reward_model(bytes); /* its head is made anew, of floats */
    check(rm && rm->weight[ORLI_W_EMBED]->int8 == bytes->weight[ORLI_W_EMBED]->int8);
    check(orl_param_data(rm->weight[ORLI_W_SCORE]) && orl_model_store_int8(rm) == ORL_OK);
    check(orl_param_data(rm->weight[ORLI_W_SCORE]) != NULL);
    orl_model_free(bytes), orl_model_free(rm);
}

/* What the library says of memory is what is held. */
static void test_memory(void) {
    orl_model *m, *bytes;
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    size_t before = orl_memory_now(ctx), held, floats;
    mc.vocab = 500, mc.dim = 128;
    m = orl_model_create(ctx, &mc, NULL);
    floats = orl_memory_now(ctx) - before;
    before = orl_memory_now(ctx);
    bytes = stored(m);
    held = orl_memory_now(ctx) - before;
    check_near((double)orli_model_bytes(bytes) / (double)held, 1, 0.05);
    check((double)held / (double)floats < (ORLI_DOUBLE ? 0.15 : 0.29));
    check(orli_packed_bytes(bytes) < orli_model_bytes(bytes) / 20 && orli_copied_bytes(bytes) < held / 20);
    orl_model_free(m);
    before = orl_memory_now(ctx);
    {
        orl_dataset *rows = parse(ctx, demonstrations);
        check(orl_logprob(bytes, rows, NULL, NULL) == ORL_OK);
        orl_dataset_free(rows);
    }
    check(orl_memory_now(ctx) - before <= orli_packed_bytes(bytes)); /* nothing is packed beside them */
    orl_model_free(bytes);
}

/* ---- sampling and scoring ---- */

static void check_same_rows(orl_dataset *a, orl_dataset *b) {
    size_t i;
    check(a && b && orl_dataset_count(a) == orl_dataset_count(b));
    for (i = 0; a && b && i < orl_dataset_count(a); i++) {
        orl_row *x = orl_dataset_row(a, i), *y = orl_dataset_row(b, i);
        check(x->response.tokens == y->response.tokens && memcmp(&x->logp, &y->logp, sizeof x->logp) == 0 &&
              memcmp(x->response.ids, y->response.ids, x->response.tokens * sizeof(int32_t)) == 0);
    }
}

static void test_sampling(orl_arch arch) {
    static const struct { size_t threads, batch; int vnni; } ways[] = {
        {1, 16, 1}, {1, 1, 1}, {2, 3, 1}, {5, 16, 1}, {3, 5, 0}};
    orl_dataset *first = NULL, *d;
    orl_generate_options o = orl_generate_default();
    orl_ctx *one[5];
    size_t w, i, longest = 0;
    o.samples = 5, o.max_tokens = 30, o.seed = 3;
    for (w = 0; w < 5; w++) {
        orl_model *m;
        double logp[20];
        one[w] = context(ways[w].threads);
        one[w]->vnni &= ways[w].vnni;
        m = make_model(one[w], arch), o.batch = ways[w].batch;
        check(orl_model_store_int8(m) == ORL_OK);
        d = orl_sample(m, parse(one[w], demonstrations), &o);
        if (!first) first = d;
        else check_same_rows(first, d);
        for (i = 0; d && i < 20; i++) {
            logp[i] = orl_dataset_row(d, i)->logp;
            longest = ORLI_MAX(longest, orl_dataset_row(d, i)->response.tokens);
        }
        check(d && orl_logprob(m, d, NULL, NULL) == ORL_OK); /* as the forward pass has it, to the bit */
        for (i = 0; d && i < 20; i++) check(memcmp(&logp[i], &orl_dataset_row(d, i)->logp, sizeof *logp) == 0);
        check(!orl_failed(one[w]));
    }
    check(longest > 17); /* more than a page */
    for (w = 0; w < 5; w++) orl_destroy(one[w]);
}

/* Fewer classes than the head has rows: as if it had no more. */
static void test_padded(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *bytes;
    orl_dataset *rows = parse(ctx, "{\"prompt_ids\": [3, 14, 15], \"completion_ids\": [9, 2, 6, 5, 0]}\n"), *d;
    orl_generate_options o = orl_generate_default();
    orl_real logits[VOCAB], *each = NULL;
    static const int32_t seen[] = {3, 14, 15, 9, 2, 6, 5};
    orl_tape *tape = orli_tape_inference(ctx);
    orl_stream *s = orl_stream_create(ctx);
    orl_tensor *y;
    size_t i, t;
    m->classes = 33; /* a panel and a column */
    bytes = stored(m);
    check(bytes->classes == 33 && orl_logprob(bytes, rows, &each, NULL) == ORL_OK && each);
    orl_stream_add(s, seen, 7, ORL_ROOT);
    y = orl_linear(tape, orl_hidden(tape, bytes, s), orl_head(tape, bytes), NULL);
    check(y && orl_cols(y) == VOCAB);
    for (t = 0; y && each && t < 5; t++) {
        double sum = 0;
        memcpy(logits, orl_data(y) + (t + 2) * VOCAB, sizeof logits);
        for (i = 0; i < 33; i++) sum += exp((double)logits[i]);
        check_near((double)each[t], (double)logits[orl_dataset_row(rows, 0)->response.ids[t]] - log(sum), TIGHT);
    }
    o.samples = 200, o.max_tokens = 3, o.temperature = 3;
    d = orl_sample(bytes, rows, &o);
    for (i = 0; d && i < 200; i++)
        for (t = 0; t < orl_dataset_row(d, i)->response.tokens; t++)
            if (orl_dataset_row(d, i)->response.ids[t] >= 33) check(!"a token that is no class");
    check(d != NULL);
    orl_free(ctx, each);
    orl_tape_free(tape), orl_stream_free(s), orl_dataset_free(rows), orl_dataset_free(d);
    orl_model_free(m), orl_model_free(bytes);
}

static void test_scores(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *rm = orl_reward_model(m), *bytes;
    orl_dataset *a = parse(ctx, pairs), *b = parse(ctx, pairs);
    size_t i;
    rm->reward_mean = 0.25, rm->reward_sd = 1.5;
    bytes = stored(rm);
    check(orl_is_reward_model(bytes) && bytes->reward_mean > 0.2 && bytes->reward_sd > 1.4);
    check(orl_score(rm, a) == ORL_OK && orl_score(bytes, b) == ORL_OK);
    for (i = 0; i < 2; i++) {
        check_near(orl_dataset_row(a, i)->reward, orl_dataset_row(b, i)->reward, 0.05);
        check_near(orl_dataset_row(a, i)->rejected_reward, orl_dataset_row(b, i)->rejected_reward, 0.05);
        check(fabs(orl_dataset_row(a, i)->reward - orl_dataset_row(b, i)->reward) > 0);
    }
    orl_dataset_free(a), orl_dataset_free(b), orl_model_free(m), orl_model_free(rm), orl_model_free(bytes);
}

/* ---- what it costs ---- */

static void test_compare(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *bytes = stored(m), *halves = orl_model_copy(m), *other, *rm;
    orl_dataset *rows = parse(ctx, demonstrations);
    orl_logprob_loss loss, half;
    orl_real *p = NULL, *q = NULL;
    double sum[3] = {0, 0, 0}, worst = 0;
    size_t i, n = 0;
    orl_dataset_row(rows, 1)->logp = 5;
    check(orl_model_store_bf16(halves) == ORL_OK);
    check(orl_compare_logprob(m, bytes, rows, &loss) == ORL_OK);
    check(orl_compare_logprob(m, halves, rows, &half) == ORL_OK);
    check(orl_dataset_row(rows, 1)->logp > 4 && !(orl_dataset_row(rows, 1)->flags & ORL_LOGP)); /* as they were */
    check(orl_logprob(m, rows, &p, &n) == ORL_OK && orl_logprob(bytes, rows, &q, NULL) == ORL_OK && n == 18);
    for (i = 0; p && q && i < n; i++) {
        sum[0] += (double)p[i], sum[1] += (double)q[i], sum[2] += fabs((double)p[i] - (double)q[i]);
        worst = fmax(worst, fabs((double)p[i] - (double)q[i]));
    }
    check(loss.tokens == 18 && loss.worst >= worst && loss.worst <= worst);
    check_near(loss.perplexity, exp(-sum[0] / 18), 1e-9), check_near(loss.other_perplexity, exp(-sum[1] / 18), 1e-9);
    check_near(loss.mean_difference, sum[2] / 18, 1e-12);
    check(half.mean_difference > 0 && loss.mean_difference > half.mean_difference && loss.mean_difference < 0.1);
    check(loss.perplexity > 10);
    check(orl_compare_logprob(bytes, bytes, rows, &loss) == ORL_OK && !(loss.worst > 0) && loss.tokens == 18);
    /* refusals */
    other = make_model(ctx, ORL_LLAMA), other->classes = 30;
    check(orl_compare_logprob(m, other, rows, &loss) == ORL_ERR_MISMATCH && !loss.tokens);
    expect_error(ORL_ERR_MISMATCH, "different vocabularies");
    orl_model_free(other);
    {
        orl_model_config c = m->config;
        c.context = 7;
        other = orl_model_create(ctx, &c, NULL);
        check(orl_compare_logprob(m, other, rows, &loss) == ORL_ERR_MISMATCH);
        expect_error(ORL_ERR_MISMATCH, "contexts differ");
    }
    {
        orl_tokenizer *x = orl_tokenizer_train(ctx, "a b a b ab ab", 13, 258, NULL);
        orl_tokenizer *y = orl_tokenizer_train(ctx, "a b a b ab ab", 13, 258, NULL);
        orl_tokenizer *z = orl_tokenizer_train(ctx, "c d c d cd cd", 13, 258, NULL);
        orl_model *by[3];
        orl_model_config c = m->config;
        orl_dataset *text = parse(ctx, "{\"text\": \"ab ab\"}\n{\"prompt\": \"a\", \"completion\": \" b\"}\n");
        c.vocab = 258;
        by[0] = orl_model_create(ctx, &c, x), by[1] = orl_model_create(ctx, &c, y);
        by[2] = orl_model_create(ctx, &c, z);
        check(orl_compare_logprob(by[0], by[1], text, &loss) == ORL_OK && loss.tokens > 2); /* made alike, apart */
        check(!(loss.worst > 0));
        check(orl_compare_logprob(by[0], by[2], text, &loss) == ORL_ERR_MISMATCH);
        expect_error(ORL_ERR_MISMATCH, "different vocabularies");
        orl_model_free(by[0]), orl_model_free(by[1]), orl_model_free(by[2]), orl_dataset_free(text);
        orl_tokenizer_free(x), orl_tokenizer_free(y), orl_tokenizer_free(z);
    }
    rm = orl_reward_model(m);
    check(orl_compare_logprob(m, rm, rows, &loss) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "reward model");
    check(orl_compare_logprob(m, NULL, rows, &loss) == ORL_OK && !loss.tokens);
    check(orl_compare_logprob(m, bytes, NULL, &loss) == ORL_OK);
    check(orl_compare_logprob(NULL, m, rows, &loss) != ORL_OK && !loss.tokens);
    orl_free(ctx, p), orl_free(ctx, q);
    orl_model_free(m), orl_model_free(bytes), orl_model_free(halves), orl_model_free(other), orl_model_free(rm);
    orl_dataset_free(rows);
}

/* ---- training: not with bytes, but beside them ---- */

static double for_nothing(const orl_row *r, void *user) {
    (void)user;
    return (double)r->response.tokens;
}

static void test_refusals(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *bytes = stored(m), *rm;
    orl_dataset *data = parse(ctx, demonstrations), *two = parse(ctx, pairs);
    orl_train_options o = orl_train_default();
    orl_ppo_options p = orl_ppo_default();
    orl_tape *tape = orl_tape_create(ctx);
    orl_tensor *h;
    o.steps = 1, o.batch = 2;
    check(orl_train(bytes, data, &o) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8 and frozen (model.embed_tokens.weight): to train, load the model");
    check(orl_train_dpo(bytes, two, NULL, 0.1, &o) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8");
    p.iterations = 1, p.rollouts = 2, p.minibatch = 2, p.max_tokens = 4, p.reward = for_nothing;
    check(orl_train_ppo(bytes, NULL, data, &p) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8");
    rm = orl_reward_model(bytes);
    check(orl_train_reward(rm, two, &o) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8");
    check(orl_lora_add(bytes, NULL) == ORL_OK); /* an adapter may be used on it, but not trained */
    check(orl_train(bytes, data, &o) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8 (model.layers.0.");
    check(orl_model_store_int8(m) == ORL_OK && m->frozen);
    check(orli_model_grow(m, 4) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "condition by text");
    check(orl_square(tape, orl_use(tape, m->weight[ORLI_W_EMBED])) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "stored in bf16 or int8");
    /* a gradient that would have to go through them */
    h = orl_use(tape, orl_param_add(orl_params_create(ctx), "h", 3, DIM, 2));
    h->needs_grad = 1;
    check(orl_token_logp(tape, h, orl_head(tape, m), VOCAB, ids, NULL) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8 (lm_head.weight)");
    check(orl_linear(tape, h, orl_head(tape, m), NULL) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "stored in int8 (lm_head.weight)");
    h->needs_grad = 0;
    check(orl_token_logp(tape, h, orl_head(tape, m), VOCAB, ids, NULL) != NULL);
    orl_tape_free(tape);
    orl_model_free(m), orl_model_free(bytes), orl_model_free(rm), orl_dataset_free(data), orl_dataset_free(two);
}

/* A reference and a reward model need no gradient. */
static void test_beside(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *start = orl_model_copy(m), *again = orl_model_copy(m);
    orl_model *bytes = stored(m), *rm = orl_reward_model(m), *small = stored(rm);
    orl_dataset *data = parse(ctx, demonstrations), *two = parse(ctx, pairs);
    orl_train_options o = orl_train_default();
    orl_ppo_options p = orl_ppo_default();
    orl_logprob_loss near, far;
    orl_estimate e;
    o.steps = 4, o.batch = 2, o.lr = 3e-3;
    check(orl_train_dpo(m, two, bytes, 0.1, &o) == ORL_OK);       /* against its own start in int8 … */
    check(orl_train_dpo(again, two, start, 0.1, &o) == ORL_OK);   /* … and in floats: much the same comes of it */
    check(orl_compare_logprob(m, again, data, &near) == ORL_OK && orl_compare_logprob(m, start, data, &far) == ORL_OK);
    check(near.mean_difference < far.mean_difference / 4);
    p.iterations = 2, p.rollouts = 4, p.minibatch = 4, p.epochs = 1, p.max_tokens = 6;
    check(orl_ppo_estimate(m, small, data, &p, &e) == ORL_OK && e.total > e.weights && e.gradients > 0);
    check(orl_train_ppo(m, small, data, &p) == ORL_OK); /* the critic begins as the reward model, in floats */
    check(small->weight[ORLI_W_EMBED]->int8 && !small->params->grads);
    check(orl_model_store_bf16(rm) == ORL_OK && orl_train_ppo(m, rm, data, &p) == ORL_OK);
    check(orl_lora_add(small, NULL) == ORL_OK && orl_train_ppo(m, small, data, &p) == ORL_OK);
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx)), orl_clear_error(ctx);
    orl_model_free(m), orl_model_free(start), orl_model_free(bytes), orl_model_free(rm), orl_model_free(small);
    orl_model_free(again), orl_dataset_free(data), orl_dataset_free(two);
}

/* Memory is known before it is used: of DPO against a reference in int8, of PPO with such a reward model. */
static void test_estimates(int ppo) {
    static const char *const fields[] = {"{\"prompt", "], \"chosen", "], \"rejected"};
    orl_ctx *c = context(2);
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_train_options o = orl_train_default();
    orl_ppo_options p = orl_ppo_default();
    orl_model *m, *other;
    orl_dataset *d;
    orl_estimate e;
    orli_str s = orli_str_new(c);
    double beta = 0.1;
    size_t i, t, side;
    for (i = 0; i < 200; i++) {
        for (side = 0; side < (ppo ? 1u : 3u); side++) {
            orli_str_printf(&s, "%s_ids\": [%d", fields[side], (int)side);
            for (t = 0; t < 10 + i % 9; t++) orli_str_printf(&s, ", %d", (int)((31 * i + 7 * t + side) % 512));
        }
        orli_str_puts(&s, "]}\n");
    }
    d = orl_dataset_parse(c, s.data, s.length, "rows");
    orli_str_free(&s);
    mc.vocab = 512, mc.dim = 64, mc.heads = 4, mc.kv_heads = 2, mc.ffn = 160, mc.layers = 3, mc.context = 128;
    m = orl_model_create(c, &mc, NULL), other = ppo ? orl_reward_model(m) : orl_model_copy(m);
    check(orl_model_store_int8(other) == ORL_OK);
    p.iterations = 1, p.rollouts = 128, p.minibatch = 64, p.epochs = 1, p.max_tokens = 40;
    o.steps = 2, o.batch = 64, o.micro_tokens = 2048, o.loss = orl_loss_dpo, o.loss_user = &beta, o.per_pair = 1;
    o.reference = ppo ? NULL : other;
    check((ppo ? orl_ppo_estimate(m, other, d, &p, &e) : orl_train_estimate(m, d, &o, &e)) == ORL_OK);
    check((ppo ? orl_train_ppo(m, other, d, &p) : orl_train(m, d, &o)) == ORL_OK);
    check_near((double)e.total / (double)orl_memory_peak(c), 1, 0.05);
    if (orl_failed(c)) printf("    %s\n", orl_error(c));
    orl_destroy(c);
}

/* An adapter that was trained on floats goes on with bytes below it, and merges with what they stand for. */
static void test_adapter(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA), *bytes, *merged;
    orli_rng r = orli_rng_new(4, 4);
    orl_param *p;
    double size;
    size_t i;
    check(orl_lora_add(m, NULL) == ORL_OK);
    for (p = m->adapter->first; p; p = p->next) {
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] = (orl_real)(0.1 * orli_rng_normal(&r));
        orl_param_changed(p);
    }
    bytes = stored(m);
    check(orl_has_lora(bytes) && apart(m, bytes, &size) < 0.04 * size);
    merged = orl_model_copy(bytes);
    check(orl_lora_merge(merged) == ORL_OK && apart(m, merged, &size) < 0.04 * size);
    check(orl_param_data(merged->weight[orli_slot(ORLI_W_Q, 0)]) != NULL); /* in floats */
    orl_model_free(m), orl_model_free(bytes), orl_model_free(merged);
}

/* ---- no memory, at every place ---- */

static void all_of(orl_ctx *c) {
    orl_model *m = make_model(c, ORL_LLAMA), *copy, *rm;
    orl_dataset *rows = parse(c, demonstrations), *two = parse(c, pairs), *d;
    orl_generate_options g = orl_generate_default();
    orl_train_options o = orl_train_default();
    orl_ppo_options p = orl_ppo_default();
    orl_logprob_loss loss;
    g.samples = 1, g.max_tokens = 3, o.steps = 1, o.batch = 2;
    p.iterations = 1, p.rollouts = 2, p.minibatch = 2, p.epochs = 1, p.max_tokens = 3;
    copy = orl_model_copy(m);
    orl_model_store_bf16(copy), orl_model_store_int8(copy);
    d = orl_sample(copy, rows, &g);
    orl_compare_logprob(m, copy, rows, &loss);
    orl_train_dpo(m, two, copy, 0.1, &o);
    rm = orl_reward_model(copy);
    orl_score(rm, d);
    orl_train_ppo(m, rm, rows, &p);
    orl_model_save(copy, in_dir("saved"));
    orl_model_free(copy);
}

static void clean(void) {
    static const char *const names[] = {"saved/config.json", "saved/model.safetensors", "saved",
                                        "saved.writing/config.json", "saved.writing/model.safetensors",
                                        "saved.writing"};
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++) remove(in_dir(names[i]));
}

static void test_no_memory(void) {
    size_t before = fault_live, all, n;
    orl_ctx *c;
    fault_count = 0;
    c = context(1);
    all_of(c);
    check(!orl_failed(c));
    if (orl_failed(c)) printf("    %s\n", orl_error(c));
    orl_destroy(c), clean();
    check(fault_live == before);
    all = fault_count;
    printf("%zu allocations\n", all);
    for (n = 1; n <= all; n += n < 100 ? 1 : 1 + all / (quick ? 100 : 500)) {
        fault_count = 0, fault_at = n;
        c = context(1);
        if (c) all_of(c);
        if (c && orl_error_status(c) != ORL_ERR_MEMORY) {
            check(!"refused memory is an error");
            printf("    request %zu of %zu: %s\n", n, all, orl_error(c));
        } else test_passed++;
        if (c) orl_destroy(c);
        fault_at = 0;
        check(fault_live == before);
        clean();
    }
}

int main(void) {
    size_t start;
    quick = getenv("ORL_TEST_QUICK") != NULL;
    if (!make_dir("test_11_int8", NULL)) return 1;
    ctx = orl_create(NULL);
    start = orl_memory_now(ctx);
    test_numbers(ORL_LLAMA);
    test_numbers(ORL_GPT2);
    test_numbers(ORL_GPT_NEOX);
    test_sharing();
    test_memory();
    test_sampling(ORL_LLAMA);
    test_sampling(ORL_GPT2);
    test_padded();
    test_scores();
    test_compare();
    test_adapter();
    test_beside();
    orli_spare_drop(ctx);
    check(orl_memory_now(ctx) == start);
    test_refusals();
    test_estimates(0);
    test_estimates(1);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    orl_destroy(ctx);
    test_no_memory();
    check(fault_live == 0);
    remove_tree(dir);
    return test_report("test_11_int8");
}
