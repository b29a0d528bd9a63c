/* test_14_train.c - section 14: one trainer. Micro-batches, order, schedules, log, validation, checkpoints,
 * resume bit for bit, estimate, condition dropout, losses of one's own. The losses' numbers against an
 * independent implementation are in test_golden.c. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"
#include <signal.h>
#include <sys/wait.h>

#define ROWS 22

static orl_ctx *ctx;

static char last_note[700];
static void take_note(void *user, const char *sentence) {
    (void)user;
    snprintf(last_note, sizeof last_note, "%s", sentence);
}

/* ---- small models and data ---- */

static orl_ctx *make_ctx(void) {
    orl_config c = orl_config_default();
    orl_ctx *made;
    c.threads = 2;
    made = orl_create(&c);
    orl_on_note(made, take_note, NULL);
    return made;
}

static orl_model *make_model(orl_ctx *c) {
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    mc.vocab = 13, mc.dim = 16, mc.heads = 2, mc.kv_heads = 1, mc.layers = 2, mc.ffn = 24, mc.context = 32;
    mc.eos = 0;
    return orl_model_create(c, &mc, NULL);
}

/* rows: 1 responses with rewards, 2 pairs; of lengths 1 … 9. */
static orl_dataset *make_rows(orl_ctx *c, size_t n, int pairs, uint64_t seed) {
    orli_str s = orli_str_new(c);
    orli_rng r = orli_rng_new(seed, 0);
    orl_dataset *d;
    size_t i, side, t, k;
    for (i = 0; i < n; i++) {
        orli_str_printf(&s, "{\"prompt_ids\": [%d, %d], ", (int)(i % 5) + 1, (int)(i % 3) + 3);
        for (side = 0; side < (pairs ? 2u : 1u); side++) {
            orli_str_printf(&s, "%s\"%s\": [", side ? ", " : "", side ? "rejected_ids" : pairs ? "chosen_ids" : "completion_ids");
            k = 1 + (size_t)(9 * orli_rng_uniform(&r));
            for (t = 0; t < k; t++) orli_str_printf(&s, "%d, ", 1 + (int)(12 * orli_rng_uniform(&r)));
            orli_str_puts(&s, "0]");
        }
        if (!pairs) orli_str_printf(&s, ", \"reward\": %.3f", orli_rng_normal(&r));
        orli_str_puts(&s, "}\n");
    }
    d = orl_dataset_parse(c, s.data, s.length, "rows");
    orli_str_free(&s);
    return d;
}

static orl_train_options recipe(size_t steps) {
    orl_train_options o = orl_train_default();
    o.steps = steps, o.batch = 6, o.lr = 5e-3, o.warmup = 3;
    return o;
}

/* Largest difference of two models' parameters. */
static double distance(orl_model *a, orl_model *b) {
    orl_param *p = a->params->first, *q = b->params->first;
    double most = 0;
    size_t i;
    for (; p && q; p = p->next, q = q->next)
        for (i = 0; i < p->rows * p->cols; i++) most = fmax(most, fabs((double)p->data[i] - (double)q->data[i]));
    check(!p && !q);
    return most;
}
static int same_bits(orl_model *a, orl_model *b) {
    orl_param *p = a->params->first, *q = b->params->first;
    for (; p && q; p = p->next, q = q->next)
        if (p->rows != q->rows || p->cols != q->cols || memcmp(p->data, q->data, p->rows * p->cols * sizeof(orl_real)) != 0) return 0;
    return !p && !q;
}

/* ---- what a run does, step by step ---- */

typedef struct trace {
    size_t steps, stop_after; /* stop_after: 0 = never */
    double loss[64], lr[64], val[64], norm[64];
} trace;

static int record(void *user, const orl_step_info *info) {
    trace *t = (trace *)user;
    if (info->step <= 64) t->loss[info->step - 1] = info->loss, t->lr[info->step - 1] = info->lr, t->val[info->step - 1] = info->val_loss, t->norm[info->step - 1] = info->grad_norm;
    t->steps++;
    return t->stop_after && info->step == t->stop_after;
}

static trace run(orl_model *m, const orl_dataset *d, orl_train_options *o) {
    trace t;
    memset(&t, 0, sizeof t);
    o->progress = record, o->user = &t;
    check(orl_train(m, d, o) == ORL_OK);
    o->progress = NULL, o->user = NULL;
    return t;
}

/* ---- gradient accumulation ---- */

static void test_micro_batches(void) {
    static const size_t budgets[] = {1, 30, 64, 4096};
    orl_dataset *d = make_rows(ctx, ROWS, 0, 1), *w = orl_weight(d, 1, ORL_BASELINE_MEAN, 20);
    orl_model *whole = make_model(ctx), *split;
    orl_train_options o = recipe(8);
    trace a, b;
    size_t i, k;
    a = run(whole, w, &o);
    for (k = 0; k < 4; k++) {
        split = make_model(ctx);
        o.micro_tokens = budgets[k];
        b = run(split, w, &o);
        for (i = 0; i < 8; i++) check_near(a.loss[i], b.loss[i], 2e-6 * a.loss[i]);
        check(distance(whole, split) < 2e-4);
        if (budgets[k] == 4096) check(same_bits(whole, split));
        orl_model_free(split);
    }
    orl_model_free(whole);
    orl_dataset_free(w);
    orl_dataset_free(d);
}

/* The mean loss of rows first … first + n − 1 by one's own forward passes. */
static double plain_loss(orl_model *m, orl_dataset *d, size_t first, size_t n) {
    double sum = 0, tokens = 0;
    size_t i;
    check(orl_logprob(m, d, NULL, NULL) == ORL_OK);
    for (i = first; i < first + n; i++) {
        const orl_row *r = orl_dataset_row(d, i % orl_dataset_count(d));
        sum -= r->weight * r->logp, tokens += (double)r->tokens;
    }
    return sum / tokens;
}

/* 10 rows in batches of 4 are 3 steps, the last of 2 rows, divided by these rows' tokens. */
static void test_last_batch(void) {
    orl_dataset *d = make_rows(ctx, 10, 0, 2);
    orl_model *m = make_model(ctx), *two;
    orl_train_options o = recipe(0);
    trace t;
    o.batch = 4, o.epochs = 1, o.shuffle = 0, o.schedule = ORL_CONSTANT, o.warmup = 0;
    t = run(m, d, &o);
    check(t.steps == 3);
    two = make_model(ctx);
    o.steps = 2;
    check_near(t.loss[0], plain_loss(two, d, 0, 4), 1e-5);
    run(two, d, &o);
    check_near(t.loss[2], plain_loss(two, d, 8, 2), 1e-5);
    check(distance(m, two) > 1e-4); /* the third step was applied */
    o.steps = 0, o.epochs = 0.5;
    t = run(two, d, &o);
    check(t.steps == 2); /* 5 rows: 4 and 1 */
    o.epochs = 2.5;
    t = run(two, d, &o);
    check(t.steps == 7);
    orl_model_free(m);
    orl_model_free(two);
    orl_dataset_free(d);
}

/* ---- order, own losses ---- */

typedef struct seen {
    size_t row[400], rows;
    double untold;
} seen;

/* The built-in loss once more by hand: −Σ w_s Σ_t log π. */
static orl_tensor *own_loss(orl_tape *tape, const orl_batch *b, void *user) {
    seen *s = (seen *)user;
    orl_real weight[512];
    size_t q, t;
    for (q = 0; q < b->sequences; q++) {
        if (s && s->rows < 400) s->row[s->rows++] = b->row[q];
        for (t = b->offset[q]; t < b->offset[q + 1]; t++) weight[t] = (orl_real)b->weight[q];
    }
    return orl_scale(tape, orl_sum(tape, orl_mul(tape, b->logp, orl_constant(tape, weight, b->offset[b->sequences], 1))), -1);
}

static void test_order(void) {
    orl_dataset *d = make_rows(ctx, 7, 0, 3);
    orl_model *m = make_model(ctx);
    orl_train_options o = recipe(5);
    seen s;
    size_t i, k, times[7] = {0}, differs = 0, first;
    memset(&s, 0, sizeof s);
    o.batch = 3, o.shuffle = 0, o.loss = own_loss, o.loss_user = &s;
    check(orl_train(m, d, &o) == ORL_OK);
    first = s.rows - 15; /* the plan looks at batches too, before the first step */
    for (i = 0; i < 15; i++) check(s.row[first + i] == i % 7); /* file order, wrapping around */
    s.rows = 0;
    o.shuffle = 1, o.steps = 7;
    check(orl_train(m, d, &o) == ORL_OK);
    first = s.rows - 21;
    for (k = 0; k < 3; k++) { /* every epoch has every row once */
        memset(times, 0, sizeof times);
        for (i = 0; i < 7; i++) times[s.row[first + 7 * k + i]]++, differs += s.row[first + 7 * k + i] != i;
        for (i = 0; i < 7; i++) check(times[i] == 1);
    }
    check(differs > 7);
    orl_model_free(m);
    orl_dataset_free(d);
}

static void test_own_loss(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 4), *w = orl_weight(d, 0.7, ORL_BASELINE_PROMPT, 20);
    orl_model *a = make_model(ctx), *b = make_model(ctx);
    orl_train_options o = recipe(6);
    trace x, y;
    size_t i;
    x = run(a, w, &o);
    o.loss = own_loss;
    y = run(b, w, &o);
    for (i = 0; i < 6; i++) check(x.loss[i] == y.loss[i]);
    check(same_bits(a, b));
    orl_model_free(a);
    orl_model_free(b);
    orl_dataset_free(w);
    orl_dataset_free(d);
}

static orl_tensor *null_loss(orl_tape *tape, const orl_batch *b, void *user) {
    (void)tape, (void)b, (void)user;
    return NULL;
}

/* A loss that is a number for three steps and then is none. */
static orl_tensor *bad_loss(orl_tape *tape, const orl_batch *b, void *user) {
    size_t *calls = (size_t *)user;
    orl_tensor *loss = orl_loss_nll(tape, b, NULL);
    return orli_dry(tape) || ++*calls <= 3 ? loss : orl_log(tape, orl_scale(tape, loss, -1)); /* log of a negative number */
}

static void test_bad_losses(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 5);
    orl_model *m = make_model(ctx), *good = make_model(ctx);
    orl_train_options o = recipe(8);
    size_t calls = 0;
    o.schedule = ORL_CONSTANT;
    o.loss = bad_loss, o.loss_user = &calls;
    check(orl_train(m, d, &o) == ORL_ERR_DATA);
    expect_error(ORL_ERR_DATA, "not finite at step 4");
    o.loss = NULL, o.steps = 3;
    check(orl_train(good, d, &o) == ORL_OK);
    check(same_bits(m, good)); /* the last good step's weights */
    check(!m->params->grads);
    o.loss = null_loss;
    check(orl_train(m, d, &o) == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "NULL");
    check(same_bits(m, good));
    m->params->first->data[0] = (orl_real)NAN; /* weights that are damaged already */
    orl_param_changed(m->params->first);
    o.loss = NULL;
    check(orl_train(m, d, &o) == ORL_ERR_DATA);
    expect_error(ORL_ERR_DATA, "not finite at step 1");
    orl_model_free(m);
    orl_model_free(good);
    orl_dataset_free(d);
}

/* A row of weight 0 leaves the gradient alone, and its tokens stay in the divisor. */
static void test_zero_weight(void) {
    orl_dataset *d = make_rows(ctx, 6, 0, 6);
    orl_model *m = make_model(ctx), *n = make_model(ctx);
    orl_train_options o = recipe(1);
    double all = 0, kept = 0, without;
    orl_dataset *rest;
    trace t, u;
    size_t i;
    o.shuffle = 0, o.clip = 0;
    orl_logprob(m, d, NULL, NULL);
    for (i = 0; i < 6; i++) all += (double)orl_dataset_row(d, i)->tokens, kept += i < 4 ? (double)orl_dataset_row(d, i)->tokens : 0;
    orl_dataset_row(d, 4)->weight = orl_dataset_row(d, 5)->weight = 0;
    rest = orl_dataset_view(d, 0, 4);
    without = plain_loss(m, rest, 0, 4);
    t = run(m, d, &o);
    o.batch = 4;
    u = run(n, rest, &o);
    check_near(t.loss[0], without * kept / all, 1e-6);
    check_near(u.loss[0], without, 1e-6);
    check_near(t.norm[0], u.norm[0] * kept / all, 1e-5 * u.norm[0]);
    for (i = 0; i < 6; i++) orl_dataset_row(d, i)->weight = 0; /* nothing pulls at all */
    o.batch = 6;
    t = run(m, d, &o);
    check(t.loss[0] == 0 && t.norm[0] == 0);
    orl_model_free(m);
    orl_model_free(n);
    orl_dataset_free(rest);
    orl_dataset_free(d);
}

/* ---- schedules, validation, log ---- */

static void test_schedules(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 7);
    static const orl_schedule kind[] = {ORL_CONSTANT, ORL_LINEAR, ORL_COSINE};
    size_t k, i;
    for (k = 0; k < 3; k++) {
        orl_model *m = make_model(ctx);
        orl_train_options o = recipe(20);
        trace t;
        o.schedule = kind[k], o.warmup = 4, o.lr = 1e-3, o.min_lr = 0.2;
        t = run(m, d, &o);
        for (i = 0; i < 4; i++) check_near(t.lr[i], 1e-3 * (double)(i + 1) / 4, 1e-12);
        check_near(t.lr[4], 1e-3, 1e-12);
        for (i = 4; i < 20; i++) {
            double done = (double)(i - 4) / 16, want = k == 0 ? 1 : k == 1 ? 1 - 0.8 * done : 0.2 + 0.8 * 0.5 * (1 + cos(3.14159265358979 * done));
            check_near(t.lr[i], 1e-3 * want, 1e-12);
        }
        orl_model_free(m);
    }
    orl_dataset_free(d);
}

static void test_validation(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 8), *e = make_rows(ctx, 9, 0, 9), *pairs = make_rows(ctx, ROWS, 1, 10), *more = make_rows(ctx, 5, 1, 11);
    orl_model *m = make_model(ctx), *rm;
    orl_train_options o = recipe(7);
    double want = 0;
    trace t;
    size_t i;
    o.eval = e, o.eval_every = 3;
    t = run(m, d, &o);
    for (i = 0; i < 7; i++) check((t.val[i] == t.val[i]) == (i == 2 || i == 5 || i == 6)); /* and at the end */
    check_near(t.val[6], plain_loss(m, e, 0, 9), 1e-5);
    rm = orl_reward_model(m);
    o.eval = more;
    t = run(rm, pairs, &o);
    check(orl_score(rm, more) == ORL_OK);
    for (i = 0; i < 5; i++) want += log1p(exp(orl_dataset_row(more, i)->rejected_reward_raw - orl_dataset_row(more, i)->reward_raw)) / 5;
    check_near(t.val[6], want, 1e-5);
    orl_model_free(m);
    orl_model_free(rm);
    orl_dataset_free(d);
    orl_dataset_free(e);
    orl_dataset_free(pairs);
    orl_dataset_free(more);
}

static char *read_text(const char *path) { /* zero-terminated; free() it */
    FILE *f = fopen(path, "rb");
    char *text = (char *)calloc(1, 1u << 20);
    if (f && text) text[fread(text, 1, (1u << 20) - 1, f)] = 0;
    if (f) fclose(f);
    return text;
}

static size_t count_lines(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static double log_value(const char *text, size_t line, const char *key) { /* NaN if it is not there */
    char name[64], row[1024];
    const char *at;
    while (line-- && text) text = strchr(text, '\n'), text = text ? text + 1 : NULL;
    if (!text) return (double)NAN;
    snprintf(row, sizeof row, "%.*s", (int)strcspn(text, "\n"), text);
    snprintf(name, sizeof name, "\"%s\": ", key);
    at = strstr(row, name);
    return at ? atof(at + strlen(name)) : (double)NAN;
}

static void test_log(void) {
    static const char *const fields[] = {"step", "loss", "grad_norm", "lr", "tokens", "seconds", "elapsed"};
    orl_dataset *d = make_rows(ctx, ROWS, 0, 12);
    orl_model *m = make_model(ctx);
    orl_train_options o = recipe(5);
    orli_json j;
    trace t;
    char *text;
    size_t i, k;
    o.log = in_dir("log.jsonl"), o.eval = d, o.eval_every = 2;
    t = run(m, d, &o);
    t = run(m, d, &o); /* a fresh run starts a fresh log */
    text = read_text(o.log);
    check(count_lines(text) == 6);
    j = orli_json_new(ctx, text, strcspn(text, "\n"), "log", 1);
    orli_json_skip(&j);
    check(orli_json_end(&j) == ORL_OK);
    check_contains(text, "\"version\": \"" ORL_VERSION "\"");
    check_contains(text, "\"isa\": \"");
    check_near(log_value(text, 0, "seed"), 1, 0);
    check_near(log_value(text, 0, "threads"), 2, 0);
    for (i = 0; i < 5; i++) {
        for (k = 0; k < sizeof fields / sizeof *fields; k++) check(log_value(text, i + 1, fields[k]) == log_value(text, i + 1, fields[k]));
        check_near(log_value(text, i + 1, "step"), i + 1, 0);
        check_near(log_value(text, i + 1, "loss"), t.loss[i], 0); /* shortest round-trip form */
        check_near(log_value(text, i + 1, "lr"), t.lr[i], 0);
        check((log_value(text, i + 1, "val_loss") == log_value(text, i + 1, "val_loss")) == (i == 1 || i == 3 || i == 4));
    }
    free(text);
    o.log = in_dir("no/such/dir/log");
    check(orl_train(m, d, &o) == ORL_ERR_IO);
    expect_error(ORL_ERR_IO, "no/such/dir");
    orl_model_free(m);
    orl_dataset_free(d);
}

/* ---- checkpoints ---- */

typedef enum method { SFT, RWR, DT, RM, DPO, PPO, METHODS } method;
static const char *const method_names[] = {"sft", "rwr", "dt", "rm", "dpo", "ppo"};

static double count_threes(const orl_row *r, void *user) {
    double n = 0;
    size_t i;
    (void)user;
    for (i = 0; i < r->response.tokens; i++) n += r->response.ids[i] == 3;
    return n;
}

/* One run of a method, in the context c; stopped after a step, or resumed. */
static orl_status train_by(orl_ctx *c, method which, orl_model **out, size_t stop_after, int resume, const char *checkpoint, const char *log) {
    orl_dataset *rows = make_rows(c, ROWS, which == RM || which == DPO, 20), *view = NULL;
    orl_model *base = make_model(c), *m = which == RM ? orl_reward_model(base) : base;
    orl_train_options o = recipe(9);
    trace t;
    memset(&t, 0, sizeof t);
    t.stop_after = stop_after;
    o.checkpoint = checkpoint, o.log = log, o.resume = resume, o.progress = record, o.user = &t, o.stage = method_names[which];
    o.batch = 5; /* does not divide the rows: steps run across epochs */
    if (which == RWR) view = orl_weight(rows, 1, ORL_BASELINE_MEAN, 20);
    if (which == DT) {
        orl_condition_options condition = orl_condition_default(ORL_CONDITION_BINS);
        condition.bins = 6, condition.dropout = 0.3;
        view = orl_condition(rows, &condition);
    }
    if (which == PPO) {
        orl_ppo_options p = orl_ppo_default();
        p.iterations = 5, p.rollouts = 12, p.minibatch = 5, p.epochs = 2, p.max_tokens = 6;
        p.kl_target = 0.5, p.kl_horizon = 50; /* the coefficient moves, and must come back */
        p.ptx = 0.1, p.ptx_data = rows;
        p.reward = count_threes;
        p.checkpoint = checkpoint, p.log = log, p.resume = resume, p.progress = record, p.user = &t;
        orl_train_ppo(m, NULL, rows, &p);
    } else if (which == RM) {
        orl_train_reward(m, rows, &o);
    } else if (which == DPO) {
        orl_train_dpo(m, rows, NULL, 0.2, &o);
    } else {
        orl_train(m, view ? view : rows, &o);
    }
    *out = m;
    return orl_error_status(c);
}

static void test_resume(method which) {
    orl_ctx *a = make_ctx(), *b = make_ctx(), *c = make_ctx();
    char checkpoint[300], log[300];
    orl_model *whole, *stopped, *resumed;
    char *text;
    size_t last = which == PPO ? 5 : 9, stop = which == PPO ? 2 : 5;
    snprintf(checkpoint, sizeof checkpoint, "%s/%s.checkpoint", dir, method_names[which]);
    snprintf(log, sizeof log, "%s/%s.log", dir, method_names[which]);
    check(train_by(a, which, &whole, 0, 0, NULL, NULL) == ORL_OK);
    check(train_by(b, which, &stopped, stop, 0, checkpoint, log) == ORL_ERR_STOPPED);
    check_contains(orl_error(b), "stopped after");
    check(!same_bits(whole, stopped));
    text = read_text(log);
    check(count_lines(text) == 1 + stop);
    free(text);
    { /* as if a run had gone on after its checkpoint and been killed */
        FILE *f = fopen(log, "ab");
        check(f && fputs("{\"step\": 99, \"lo", f) >= 0);
        if (f) fclose(f);
    }
    check(train_by(c, which, &resumed, 0, 1, checkpoint, log) == ORL_OK);
    check(same_bits(whole, resumed));
    if (which == RM) check(whole->reward_mean == resumed->reward_mean && whole->reward_sd == resumed->reward_sd);
    text = read_text(log);
    check(count_lines(text) == 2 + last); /* header, resumed_from, one a step */
    check(!strstr(text, "\"step\": 99"));
    check_near(log_value(text, 1 + stop, "resumed_from"), stop, 0);
    check_near(log_value(text, 2 + stop, "step"), stop + 1, 0);
    free(text);
    orl_destroy(a);
    orl_destroy(b);
    orl_destroy(c);
}

static void test_resume_corners(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 21), *fewer = make_rows(ctx, ROWS - 1, 0, 21);
    orl_model *m = make_model(ctx), *n, *start = make_model(ctx);
    orl_model_config mc = m->config;
    orl_train_options o = recipe(6);
    trace t;
    o.checkpoint = in_dir("corner.checkpoint"), o.resume = 1;
    t = run(m, d, &o); /* no checkpoint: from the start, and it says so */
    check(t.steps == 6);
    check_contains(last_note, "no checkpoint");
    o.save_every = 2, o.resume = 0;
    m = make_model(ctx);
    run(m, d, &o); /* saves after 2 and 4 */
    n = make_model(ctx);
    o.resume = 1;
    t = run(n, d, &o);
    check(t.steps == 2);
    check(same_bits(m, n));

    o.seed = 2; /* another run's checkpoint */
    check(orl_train(n, d, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "seed");
    o.seed = 1, o.steps = 7;
    check(orl_train(n, d, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "steps");
    o.steps = 6;
    check(orl_train(n, fewer, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "rows");
    o.stage = "other";
    check(orl_train(n, d, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "stage");
    o.stage = NULL;
    orl_model_free(n);
    mc.ffn = 26; /* another model: its embedding fits, its feed-forward does not; nothing of it may change */
    n = orl_model_create(ctx, &mc, NULL), start = orl_model_copy(n);
    check(orl_train(n, d, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "corner.checkpoint");
    check(same_bits(n, start));
    orl_model_free(start);
    { /* the log is gone, or shorter than the checkpoint remembers: what is there is kept, and no hole is made */
        char *text;
        o.log = in_dir("short.log"), o.resume = 0;
        orl_model_free(m), m = make_model(ctx);
        run(m, d, &o);
        check(truncate(o.log, 100) == 0);
        o.resume = 1;
        orl_model_free(m), m = make_model(ctx);
        run(m, d, &o);
        text = read_text(o.log);
        check(strstr(text, "resumed_from") != NULL); /* a hole of zero bytes would end the text before it */
        free(text);
        remove(o.log);
        orl_model_free(m), m = make_model(ctx);
        run(m, d, &o);
        text = read_text(o.log);
        check(count_lines(text) == 3);
        free(text);
        o.log = NULL;
    }
    orl_model_free(m);
    orl_model_free(n);
    orl_dataset_free(d);
    orl_dataset_free(fewer);
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

/* A save that fails leaves the checkpoint that was there; kill -9 leaves a whole one. */
static void test_kill_safety(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 22);
    orl_model *m = make_model(ctx), *n;
    orl_train_options o = recipe(6);
    char path[300], temporary[310];
    trace t;
    int round;
    snprintf(path, sizeof path, "%s", in_dir("safe.checkpoint"));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    o.checkpoint = path, o.save_every = 2;
    run(m, d, &o);
    check(mkdir(temporary, 0700) == 0); /* where the next one would be written */
    n = make_model(ctx);
    check(orl_train(n, d, &o) == ORL_ERR_IO);
    expect_error(ORL_ERR_IO, "safe.checkpoint");
    check(rmdir(temporary) == 0);
    orl_model_free(n);
    n = make_model(ctx), o.resume = 1;
    t = run(n, d, &o);
    check(t.steps == 2 && same_bits(m, n));
    orl_model_free(n);
    for (round = 0; round < 6; round++) {
        pid_t child;
        int status;
        remove(path);
        fflush(stdout); /* else the child has our unprinted lines too */
        child = fork();
        if (child == 0) {
            orl_ctx *c = make_ctx();
            orl_train_options endless = recipe(1000000);
            endless.checkpoint = path, endless.save_every = 1;
            orl_train(make_model(c), make_rows(c, ROWS, 0, 22), &endless);
            _exit(1);
        }
        usleep((useconds_t)(60000 + 11003 * round));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        check(WIFSIGNALED(status));
        if (!exists(path)) continue; /* before its first step */
        n = make_model(ctx);
        o = recipe(1000000);
        memset(&t, 0, sizeof t);
        o.checkpoint = path, o.resume = 1, o.progress = record, o.user = &t;
        { /* goes on for one step */
            orli_safetensors st;
            const char *step;
            check(orli_safetensors_open(ctx, path, &st) == ORL_OK);
            step = orli_safetensors_metadata(&st, "step");
            t.stop_after = step ? (size_t)atol(step) + 1 : 1;
            orli_safetensors_close(&st);
        }
        check(orl_train(n, d, &o) == ORL_ERR_STOPPED);
        check(t.steps == 1);
        expect_error(ORL_ERR_STOPPED, "stopped after");
        orl_model_free(n);
    }
    orl_model_free(m);
    orl_dataset_free(d);
}

/* ---- memory known before it is used ---- */

static int no_more(void *user, const orl_step_info *info) {
    (void)user;
    return info->step >= 3;
}

static void test_estimate(int with_reference) {
    orl_ctx *c = make_ctx();
    orl_model_config mc = orl_model_config_default(ORL_LLAMA); /* 4 layers of 128, vocabulary 512 */
    orl_model *m;
    orl_dataset *d;
    orl_train_options o = orl_train_default();
    orl_estimate e;
    orli_str s = orli_str_new(c);
    orli_rng r = orli_rng_new(30, 0);
    double beta = 0.1, peak;
    size_t i, t, side;
    for (i = 0; i < 400; i++) {
        for (side = 0; side < (with_reference ? 3u : 2u); side++) {
            orli_str_printf(&s, "%s: [", side == 0 ? "{\"prompt_ids\"" : side == 2 ? "], \"rejected_ids\"" : with_reference ? "], \"chosen_ids\"" : "], \"completion_ids\"");
            for (t = 0; t < (side ? 20 + i % 23 : 12); t++) orli_str_printf(&s, t ? ", %d" : "%d", (int)(512 * orli_rng_uniform(&r)));
        }
        orli_str_puts(&s, "]}\n");
    }
    d = orl_dataset_parse(c, s.data, s.length, "rows");
    orli_str_free(&s);
    m = orl_model_create(c, &mc, NULL);
    o.batch = 64, o.micro_tokens = 2048, o.steps = 6;
    o.progress = no_more;
    if (with_reference) o.loss = orl_loss_dpo, o.loss_user = &beta, o.per_pair = 1, o.reference = orl_model_copy(m);
    check(orl_train_estimate(m, d, &o, &e) == ORL_OK);
    check(e.rows == 400 && e.dropped == 0 && e.cut == 0 && e.tokens > 0 && e.flops > 0 && e.seconds > 0);
    check(!m->params->grads); /* nothing stays behind */
    check(orl_train(m, d, &o) == ORL_ERR_STOPPED);
    peak = (double)orl_memory_peak(c);
    printf("estimated %.1f MB, peak %.1f MB%s\n", (double)e.total / 1e6, peak / 1e6, with_reference ? " (DPO)" : "");
    check_near((double)e.total / peak, 1, 0.1);
    orl_destroy(c);
}

/* FLOPs as estimated against those the ledger counted. */
static void test_estimate_flops(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 31);
    orl_model *m = make_model(ctx);
    orl_train_options o = recipe(0);
    orl_estimate e;
    orl_cost before, cost;
    o.epochs = 2;
    check(orl_train_estimate(m, d, &o, &e) == ORL_OK);
    before = orl_cost_now(ctx);
    check(orl_train(m, d, &o) == ORL_OK);
    cost = orl_cost_since(ctx, before);
    check_near(e.flops / cost.flops, 1, 0.1);
    check_near((double)e.tokens / (double)cost.tokens, 1, 0.15); /* a last token is not fed */
    orl_model_free(m);
    orl_dataset_free(d);
}

/* ---- condition dropout ---- */

static void test_dropout(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 40), *v;
    orl_condition_options c = orl_condition_default(ORL_CONDITION_BINS);
    orl_train_options o = recipe(400);
    orl_model *m = make_model(ctx);
    orli_trainer t;
    size_t g, untold = 0, at, rows = 0, unknown = 0;
    double divisor;
    c.dropout = 0.25, c.bins = 4;
    v = orl_condition(d, &c);
    check(orli_trainer_create(&t, m, v, &o) == ORL_OK);
    for (g = 0; g < 20000; g++) untold += (size_t)orli_trainer_untold(&t, g);
    check_near((double)untold / 20000, 0.25, 0.015);
    for (g = 0; g < 600;) { /* and what is fed stands for it: the id after the last bin's */
        divisor = 0;
        check(orli_trainer_fill(&t, &g, 600, &divisor) == ORL_OK);
        for (at = 0; at < t.micro.stream->segments; at++) {
            int32_t id = t.micro.stream->token[t.micro.stream->segment[at].start + 2]; /* after a prompt of two */
            check(id >= 13 && id <= 17);
            unknown += id == 17, rows++;
        }
    }
    for (g = untold = 0; g < 600; g++) untold += (size_t)orli_trainer_untold(&t, g);
    check(rows == 600 && unknown == untold);
    orli_trainer_free(&t);
    check(m->config.vocab == 13 + 5 && m->classes == 13);
    orl_model_free(m);
    orl_dataset_free(v);
    orl_dataset_free(d);
}

/* ---- activations worked out again ---- */

static void test_recompute(void) { /* the same bits; much less memory, and the estimate knows */
    orl_model_config mc = orl_model_config_default(ORL_GPT2);
    orl_train_options o = recipe(4);
    orl_estimate kept, again;
    int pairs;
    for (pairs = 0; pairs < 2; pairs++) {
        orl_dataset *d = make_rows(ctx, ROWS, pairs, 77);
        orl_model *m = make_model(ctx), *n = make_model(ctx);
        o.micro_tokens = 40;
        for (o.recompute = 0; o.recompute < 2; o.recompute++) {
            orl_model *which = o.recompute ? n : m;
            if (pairs) check(orl_train_dpo(which, d, NULL, 0.1, &o) == ORL_OK);
            else check(orl_train(which, d, &o) == ORL_OK);
        }
        check(same_bits(m, n));
        orl_model_free(m);
        orl_model_free(n);
        orl_dataset_free(d);
    }
    {
        orl_model *m;
        orl_dataset *d;
        orli_str s = orli_str_new(ctx);
        size_t i;
        mc.vocab = 64, mc.dim = 64, mc.heads = 4, mc.kv_heads = 4, mc.layers = 12, mc.ffn = 256, mc.context = 1024, mc.eos = 0;
        m = orl_model_create(ctx, &mc, NULL);
        orli_str_puts(&s, "{\"prompt_ids\": [1], \"completion_ids\": [1");
        for (i = 2; i < 1024; i++) orli_str_puts(&s, ", 2");
        orli_str_puts(&s, "]}\n");
        d = orl_dataset_parse(ctx, s.data, s.length, "long");
        o.batch = 1, o.micro_tokens = 0, o.recompute = 0;
        check(orl_train_estimate(m, d, &o, &kept) == ORL_OK);
        o.recompute = 1;
        check(orl_train_estimate(m, d, &o, &again) == ORL_OK);
        printf("activations: %.1f MB kept, %.1f MB worked out again\n", (double)kept.activations / 1e6, (double)again.activations / 1e6);
        check((double)again.activations < 0.4 * (double)kept.activations);
        check_near(again.flops / kept.flops, 1.333, 0.05);
        orli_str_free(&s);
        orl_model_free(m);
        orl_dataset_free(d);
    }
}

/* ---- options, reduce ---- */

typedef struct reduced {
    size_t calls, count;
    double divisor;
} reduced;
static void halve(void *user, orl_real *gradient, size_t count, double *divisor) { /* twice the divisor, and … */
    reduced *r = (reduced *)user;
    r->calls++, r->count = count, r->divisor = *divisor;
    *divisor *= 2;
    (void)gradient;
}
static void twice(void *user, orl_real *gradient, size_t count, double *divisor) { /* … twice everything: as two equal processes */
    size_t i;
    for (i = 0; i < count; i++) gradient[i] *= 2;
    *divisor *= 2;
    (void)user;
}

static void test_options(void) {
    orl_dataset *d = make_rows(ctx, ROWS, 0, 50);
    orl_model *m = make_model(ctx), *n = make_model(ctx);
    orl_train_options o = recipe(2), bad;
    reduced r;
    trace t, u;
    t = run(m, d, &o);
    memset(&r, 0, sizeof r);
    o.reduce = halve, o.reduce_user = &r;
    u = run(n, d, &o);
    check(r.calls == 2 && r.count == orl_params_count(m->params));
    check(r.divisor > 0);
    check_near(u.norm[0], t.norm[0] / 2, 1e-6 * t.norm[0]);
    check_near(u.loss[0], t.loss[0], 1e-6);
    orl_model_free(n), n = make_model(ctx);
    o.reduce = twice;
    u = run(n, d, &o);
    check(u.norm[0] <= t.norm[0] && u.norm[0] >= t.norm[0] && u.loss[1] <= t.loss[1] && u.loss[1] >= t.loss[1]);
    o.reduce = NULL;
    bad = o, bad.batch = 0, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "batch");
    bad = o, bad.lr = -1, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "lr");
    bad = o, bad.lr = (double)NAN, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "lr");
    bad = o, bad.steps = 0, bad.epochs = 0, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "epochs");
    bad = o, bad.beta2 = 1, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "beta2");
    bad = o, bad.min_lr = 2, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "min_lr");
    bad = o, bad.clip = -1, orl_train(m, d, &bad), expect_error(ORL_ERR_ARGUMENT, "clip");
    check(orl_train(NULL, d, &o) != ORL_OK);
    check(orl_train(m, NULL, &o) == ORL_OK && !orl_failed(ctx)); /* NULL passes on what there is: nothing */
    check(orl_train_reward(m, d, &o) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "language model");
    orl_model_free(n), n = orl_reward_model(m);
    check(orl_train_reward(n, d, &o) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "pairs");
    orl_model_free(m);
    orl_model_free(n);
    orl_dataset_free(d);
}

int main(void) {
    int i;
    if (!make_dir("test_14", NULL)) return 1;
    ctx = make_ctx();
    test_micro_batches();
    test_last_batch();
    test_order();
    test_own_loss();
    test_bad_losses();
    test_zero_weight();
    test_schedules();
    test_validation();
    test_log();
    for (i = 0; i < METHODS; i++) test_resume((method)i);
    test_resume_corners();
    test_kill_safety();
    test_estimate(0);
    test_estimate(1);
    test_estimate_flops();
    test_dropout();
    test_recompute();
    test_options();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_14_train");
}
