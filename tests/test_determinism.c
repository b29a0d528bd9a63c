/* test_determinism.c - the same bits for any number of threads, any batch, any split.
 * builds: float threads
 * Every method trains 50 steps (PPO: a few iterations) of a tiny model with odd shapes, grouped queries and
 * prompts shared within pairs and chains; all parameters are compared with memcmp over 1, 2, 3, 4 and 7
 * threads. The pool's record shows that each parallel path really ran as two tasks or more. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define DIM 84 /* 6 heads of 14 on 2 kv heads; wider than the 64 columns of an embedding task */
#define VOCAB 37

static size_t steps = 50;

static orl_ctx *context(size_t threads, const char *isa) {
    orl_config config = orl_config_default();
    config.threads = threads, config.isa = isa, config.seed = 3;
    return orl_create(&config);
}

static orl_model *make_model(orl_ctx *c, orl_tokenizer *tok) {
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    mc.dim = DIM, mc.heads = 6, mc.kv_heads = 2, mc.layers = 2, mc.ffn = 45, mc.context = 75, mc.tied = 0;
    mc.vocab = tok ? orl_vocab(tok) : VOCAB;
    if (!tok) mc.eos = 0;
    return orl_model_create(c, &mc, tok);
}

/* ---- data: `n` rows, three to a prompt; as ids, or as text for methods that write words ---- */

typedef enum kind { ROWS, PAIRS, TEXT } kind;

static void put_ids(orli_str *s, orli_rng *r, const char *key, size_t n) {
    size_t i;
    orli_str_printf(s, "%s\"%s\": [", s->data && s->data[s->length - 1] != '\n' ? ", " : "{", key);
    for (i = 0; i < n; i++) orli_str_printf(s, "%s%zu", i ? ", " : "", 1 + orli_rng_below(r, VOCAB - 1));
    orli_str_puts(s, "]");
}

static orl_dataset *make_data(orl_ctx *c, kind which, size_t n) {
    orli_str s = orli_str_new(c);
    orl_dataset *d;
    size_t i;
    for (i = 0; i < n; i++) {
        orli_rng prompt = orli_rng_new(1, i / 3), r = orli_rng_new(2, i);
        size_t length = 1 + orli_rng_below(&prompt, 19), response = 1 + orli_rng_below(&r, 21);
        if (which == TEXT) {
            static const char *const words[] = {"so", "the", "cat", "sat", "on", "a", "mat"};
            size_t k;
            orli_str_printf(&s, "{\"prompt\": \"%s\", \"completion\": \"", words[i / 3 % 7]);
            for (k = 0; k < 1 + response / 4; k++) orli_str_printf(&s, " %s", words[orli_rng_below(&r, 7)]);
            orli_str_puts(&s, "\"");
        } else {
            put_ids(&s, &prompt, "prompt_ids", length);
            put_ids(&s, &r, which == PAIRS ? "chosen_ids" : "completion_ids", response);
            if (which == PAIRS) put_ids(&s, &r, "rejected_ids", 1 + orli_rng_below(&r, 21));
        }
        orli_str_printf(&s, ", \"reward\": %d}\n", (int)orli_rng_below(&r, 2000) - 1000);
    }
    d = orl_dataset_parse(c, s.data, s.length, "data");
    orli_str_free(&s);
    return d;
}

/* ---- the methods: each trains a new model in its context and gives it back ---- */

static orl_train_options options(void) {
    orl_train_options o = orl_train_default();
    o.steps = steps, o.batch = 7, o.micro_tokens = 120, o.lr = 3e-3, o.warmup = 3;
    return o;
}

static orl_model *run_sft(orl_ctx *c) {
    orl_model *m = make_model(c, NULL);
    orl_train_options o = options();
    orl_train(m, make_data(c, ROWS, 24), &o);
    return m;
}
static orl_model *run_reward(orl_ctx *c) {
    orl_model *m = orl_reward_model(make_model(c, NULL));
    orl_train_options o = options();
    orl_train_reward(m, make_data(c, PAIRS, 18), &o);
    return m;
}
static orl_model *run_mle(orl_ctx *c) {
    orl_model *m = make_model(c, NULL);
    orl_train_options o = options();
    orl_train(m, orl_filter(make_data(c, ROWS, 36), ORL_ABOVE, 0), &o);
    return m;
}
static orl_model *run_rwr(orl_ctx *c) {
    orl_model *m = make_model(c, NULL);
    orl_train_options o = options();
    orl_train(m, orl_weight(make_data(c, ROWS, 24), 0.5, ORL_BASELINE_PROMPT, 20), &o);
    return m;
}
static orl_model *run_dt_bins(orl_ctx *c) {
    orl_model *m = make_model(c, NULL);
    orl_train_options o = options();
    orl_condition_options q = orl_condition_default(ORL_CONDITION_BINS);
    q.bins = 5, q.dropout = 0.2;
    orl_train(m, orl_condition(make_data(c, ROWS, 24), &q), &o);
    return m;
}
static orl_model *run_dt_text(orl_ctx *c) {
    static const char text[] = "so the cat sat on a mat <rm_score>: 0.1 <rm_score>: -1.2 so the cat sat on a mat";
    static const char *const specials[] = {"<|end|>", NULL};
    orl_model *m = make_model(c, orl_tokenizer_train(c, text, sizeof text - 1, 277, specials));
    orl_train_options o = options();
    orl_condition_options q = orl_condition_default(ORL_CONDITION_TEXT);
    orl_train(m, orl_condition(make_data(c, TEXT, 24), &q), &o);
    return m;
}
static orl_model *run_dpo(orl_ctx *c) {
    orl_model *m = make_model(c, NULL);
    orl_train_options o = options();
    orl_train_dpo(m, make_data(c, PAIRS, 18), NULL, 0.1, &o);
    return m;
}
static orl_model *run_ppo(orl_ctx *c) {
    orl_model *m = make_model(c, NULL), *rm = orl_reward_model(m);
    orl_ppo_options o = orl_ppo_default();
    o.iterations = 1 + steps / 12, o.rollouts = 13, o.epochs = 2, o.minibatch = 6, o.max_tokens = 12, o.micro_tokens = 120;
    o.kl_target = 0.1, o.ptx = 0.05, o.ptx_data = make_data(c, ROWS, 9);
    rm->reward_sd = 0.5;
    orl_train_ppo(m, rm, make_data(c, ROWS, 15), &o);
    return m;
}
/* Chains of depth 2 as no preset builds them yet: a prompt, two continuations of it, two answers to one. */
static orl_model *run_chains(orl_ctx *c) {
    static const size_t length[] = {11, 7, 5, 20, 1, 3, 18}, parent[] = {ORL_ROOT, 0, 1, 1, 0, ORL_ROOT, 5};
    orl_model *m = make_model(c, NULL);
    orl_tape *tape = orl_tape_create(c);
    orl_stream *s = orl_stream_create(c);
    orli_adam adam;
    orli_adam_options o;
    size_t step, i;
    int32_t ids[32], target[65];
    double norm;
    o.lr = 3e-3, o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.weight_decay = 0.01, o.clip = 1;
    orli_adam_create(&adam, m->params);
    for (step = 0; step < steps && !orl_failed(c); step++) {
        orli_rng r = orli_rng_new(9, step);
        orl_tensor *entropy, *logp;
        size_t k;
        orl_stream_clear(s);
        orl_tape_reset(tape);
        for (i = 0; i < 7; i++) {
            for (k = 0; k < length[i]; k++) ids[k] = (int32_t)orli_rng_below(&r, VOCAB);
            orl_stream_add(s, ids, length[i], parent[i]);
        }
        for (i = 0; i < s->tokens; i++) target[i] = (int32_t)orli_rng_below(&r, VOCAB);
        logp = orl_token_logp(tape, orl_hidden(tape, m, s), orl_head(tape, m), VOCAB, target, &entropy);
        orl_backward(tape, orl_sum(tape, orl_sub(tape, orl_scale(tape, entropy, -0.1), logp)));
        orli_adam_step(&adam, &o, (double)s->tokens, &norm);
    }
    orli_adam_free(&adam);
    orli_params_freeze(m->params);
    return m;
}

#define GEMM (1u << ORLI_WORK_GEMM)
#define PACK (1u << ORLI_WORK_PACK)
#define TRAINS (GEMM | PACK | 1u << ORLI_WORK_ROWS | 1u << ORLI_WORK_ATTENTION | 1u << ORLI_WORK_ATTENTION_BACKWARD | 1u << ORLI_WORK_EMBEDDING | 1u << ORLI_WORK_OPTIMIZER)
#define HEAD (1u << ORLI_WORK_HEAD)
#define SAMPLES (1u << ORLI_WORK_SAMPLE)

static const struct method {
    const char *name;
    orl_model *(*run)(orl_ctx *c);
    unsigned parallel; /* what must have run as two tasks or more */
} methods[] = {
    {"sft", run_sft, TRAINS | HEAD},         {"reward model", run_reward, TRAINS}, {"mle filter", run_mle, TRAINS | HEAD},
    {"rwr", run_rwr, TRAINS | HEAD},         {"dt bins", run_dt_bins, TRAINS | HEAD}, {"dt text", run_dt_text, TRAINS | HEAD},
    {"dpo", run_dpo, TRAINS | HEAD},         {"ppo", run_ppo, TRAINS | HEAD | SAMPLES}, {"chains", run_chains, TRAINS | HEAD}};

/* ---- one method on many threads ---- */

static int same_weights(const orl_model *a, const orl_model *b) {
    const orl_param *p = a->params->first, *q = b->params->first;
    for (; p && q; p = p->next, q = q->next)
        if (p->rows != q->rows || p->cols != q->cols || memcmp(p->data, q->data, p->rows * p->cols * sizeof *p->data) != 0) return 0;
    return !p && !q && memcmp(&a->reward_sd, &b->reward_sd, sizeof a->reward_sd) == 0;
}

static int any_moved(const orl_model *m) { /* a run that changed nothing would agree with itself too */
    orl_ctx *c = context(1, NULL);
    orl_model *fresh = make_model(c, NULL);
    int moved = memcmp(orli_model_weight(fresh, ORLI_W_Q, 1)->data, orli_model_weight(m, ORLI_W_Q, 1)->data, DIM * DIM * sizeof(orl_real)) != 0;
    orl_destroy(c);
    return moved;
}

static void test_threads(const struct method *method, const char *isa, const size_t *threads, size_t n) {
    orl_ctx *first = context(threads[0], isa);
    orl_model *reference = method->run(first);
    size_t i, w;
    int failed = test_failed;
    check(!orl_failed(first) && reference);
    if (orl_failed(first)) printf("    %s\n", orl_error(first));
    else {
        check(any_moved(reference));
        for (i = 1; i < n; i++) {
            orl_ctx *c = context(threads[i], isa);
            orl_model *m = method->run(c);
            check(!orl_failed(c) && orl_threads(c) == threads[i]);
            if (!orl_failed(c)) check(same_weights(reference, m));
            for (w = 0; w < ORLI_WORK_COUNT; w++)
                if (method->parallel >> w & 1) {
                    check(c->pool->most_tasks[w] >= 2);
                    if (c->pool->most_tasks[w] < 2) printf("    work of kind %zu\n", w);
                }
            orl_destroy(c);
        }
    }
    if (test_failed != failed) printf("    in %s, %s\n", method->name, isa ? isa : "best instruction set");
    orl_destroy(first);
}

/* ---- batch 1 = batch N ---- */

static void test_batches(orl_ctx *c) {
    orl_model *m = make_model(c, NULL), *rm = orl_reward_model(m);
    orl_dataset *rows = make_data(c, ROWS, 23), *pairs = make_data(c, PAIRS, 17);
    orl_real *all, *one;
    size_t total, n, i, at = 0;
    check(orl_logprob(m, rows, &all, &total) == ORL_OK && orl_score(rm, pairs) == ORL_OK);
    for (i = 0; i < 23; i++) { /* log-probabilities, token by token */
        orl_dataset *single = orl_dataset_view(rows, i, 1);
        check(orl_logprob(m, single, &one, &n) == ORL_OK);
        check(at + n <= total && memcmp(all + at, one, n * sizeof *one) == 0);
        check(memcmp(&orl_dataset_row(single, 0)->logp, &orl_dataset_row(rows, i)->logp, sizeof(double)) == 0);
        at += n;
        orl_free(c, one);
        orl_dataset_free(single);
    }
    check(at == total);
    orl_free(c, all);
    for (i = 0; i < 17; i++) { /* scores: in a batch, alone, and each side as a row of its own without a shared prompt */
        orl_dataset *single = orl_dataset_view(pairs, i, 1), *sides = orl_dataset_join(single, single);
        orl_row *r = orl_dataset_row(sides, 0), *other = orl_dataset_row(sides, 1);
        const orl_row *p = orl_dataset_row(pairs, i);
        check(orl_score(rm, single) == ORL_OK);
        check(memcmp(&orl_dataset_row(single, 0)->reward, &p->reward, sizeof p->reward) == 0);
        check(memcmp(&orl_dataset_row(single, 0)->rejected_reward, &p->rejected_reward, sizeof p->reward) == 0);
        r->flags &= ~ORL_PAIR, other->flags &= ~ORL_PAIR;
        other->response = other->rejected;
        check(orl_score(rm, sides) == ORL_OK);
        check(memcmp(&r->reward_raw, &p->reward_raw, sizeof p->reward) == 0 && memcmp(&other->reward_raw, &p->rejected_reward_raw, sizeof p->reward) == 0);
        orl_dataset_free(sides);
        orl_dataset_free(single);
    }
    check(!orl_failed(c));
    orl_dataset_free(rows);
    orl_dataset_free(pairs);
    orl_model_free(rm);
    orl_model_free(m);
}

/* ---- any split into micro-batches gives the same step; a fixed split the same bits ---- */

typedef struct gradient {
    orl_real *of_step; /* of the first step, undivided */
    size_t count, calls;
} gradient;
static void keep_gradient(void *user, orl_real *g, size_t count, double *divisor) {
    gradient *k = (gradient *)user;
    (void)divisor;
    if (k->calls++) return;
    k->count = count;
    k->of_step = (orl_real *)malloc(count * sizeof *g);
    memcpy(k->of_step, g, count * sizeof *g);
}

static double last_loss;
static int keep_loss(void *user, const orl_step_info *info) {
    (void)user;
    last_loss = info->loss;
    return 0;
}

static gradient train_split(orl_ctx *c, kind which, size_t micro_tokens, orl_model **m, double *loss) {
    orl_train_options o = options();
    gradient g;
    memset(&g, 0, sizeof g);
    o.steps = 2, o.batch = 13, o.micro_tokens = micro_tokens, o.reduce = keep_gradient, o.reduce_user = &g, o.progress = keep_loss;
    *m = make_model(c, NULL);
    if (which == PAIRS) orl_train_dpo(*m, make_data(c, PAIRS, 18), NULL, 0.1, &o);
    else orl_train(*m, orl_weight(make_data(c, ROWS, 24), 0.5, ORL_BASELINE_NONE, 20), &o);
    *loss = last_loss;
    check(!orl_failed(c) && g.calls == 2);
    return g;
}

static void test_splits(orl_ctx *c) {
    static const kind kinds[] = {ROWS, PAIRS};
    static const size_t splits[] = {1, 90, 250};
    size_t k, s, i;
    for (k = 0; k < 2; k++) {
        orl_model *m, *again;
        double loss, other_loss, most = 0;
        gradient whole = train_split(c, kinds[k], 100000, &m, &loss), part, repeated;
        for (i = 0; i < whole.count; i++) most = fmax(most, fabs((double)whole.of_step[i]));
        for (s = 0; s < 3; s++) {
            double worst = 0;
            part = train_split(c, kinds[k], splits[s], &m, &other_loss);
            for (i = 0; i < whole.count; i++) worst = fmax(worst, fabs((double)part.of_step[i] - (double)whole.of_step[i]));
            check(part.count == whole.count);
            check_near(worst, 0, 1e-5 * most);
            check_near(other_loss, loss, 1e-4 * fabs(loss));
            repeated = train_split(c, kinds[k], splits[s], &again, &other_loss);
            check(memcmp(part.of_step, repeated.of_step, part.count * sizeof *part.of_step) == 0 && same_weights(m, again));
            free(part.of_step);
            free(repeated.of_step);
        }
        free(whole.of_step);
    }
}

int main(void) {
    static const size_t many[] = {1, 2, 3, 4, 7}, few[] = {1, 3};
#if ORLI_NEON
    static const char *const others[] = {"scalar"};
#else
    static const char *const others[] = {"scalar", "avx2"};
#endif
    int quick = getenv("ORL_TEST_QUICK") != NULL;
    orl_ctx *c;
    size_t i, k;
    if (quick) steps = 3;
    for (i = 0; i < sizeof methods / sizeof *methods; i++) test_threads(&methods[i], NULL, many, quick ? 3 : 5);
    c = context(3, NULL);
    test_batches(c);
    test_splits(c);
    orl_destroy(c);
    steps = 3;
    for (k = 0; k < sizeof others / sizeof *others && !quick && !getenv("ORL_ISA"); k++) {
        c = context(2, others[k]);
        if (orl_failed(c)) printf("skipped: %s\n", orl_error(c));
        else {
            test_batches(c);
            for (i = 0; i < sizeof methods / sizeof *methods; i++) test_threads(&methods[i], others[k], few, 2);
        }
        orl_destroy(c);
    }
    return test_report("test_determinism");
}
