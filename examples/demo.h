/* demo.h - the paper's whole story on the built-in world: the part of orl.c behind `orl demo`.
 *
 * demo_prepare()  from nothing to labelled samples: tokenizer, base model, SFT model, noisy
 *                 preference pairs, reward model, samples, labels
 * demo_offline()  one offline method: a view of the samples, and the one trainer
 * demo_ppo()      the baseline
 * Each method records its curve: gold and learned reward against the FLOPs it has spent.
 * The same functions run the sweep that chose the settings in demo_methods (examples/sweep.c). */
#ifndef DEMO_H
#define DEMO_H
#include "world.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

typedef struct demo_scale { /* how much of everything */
    size_t demos, pairs, prompts, samples, tests, ppo_iterations;
    double base_epochs, sft_epochs, rm_epochs;
} demo_scale;

#define DEMO_CLAIM 0.123 /* the paper: its offline methods do as well as PPO at this share of PPO's compute */

static const demo_scale demo_full = {10000, 6000, 1024, 8, 400, 40, 1, 6, 2};
static const demo_scale demo_quick = {1500, 600, 128, 4, 64, 2, 1, 2, 1};

/* One offline method = filter × weight × condition, and how long it is trained. */
typedef struct demo_method {
    const char *name;
    double quantile;   /* keep rewards above this quantile; 0: all */
    double beta, clip; /* weights e^(r̂/β), at most clip; β = 0: none */
    orl_condition_kind condition;
    double dropout, guidance, target; /* target: a quantile of the training rewards */
    double epochs, lr;
} demo_method;

typedef struct demo_point { /* of a curve */
    double train_flops, total_flops, gold, reward, kl;
} demo_point;

#define DEMO_POINTS 64
#define DEMO_TEST_SAMPLES 4 /* answers per test prompt in the final figures */
typedef struct demo_curve {
    char name[64];
    demo_point point[DEMO_POINTS];
    size_t points;
} demo_curve;

typedef struct demo_lab { /* everything one seed has made */
    orl_ctx *ctx;
    demo_scale scale;
    uint64_t seed;
    orl_model *sft, *rm;
    orl_dataset *prompts, *samples, *tests, *base; /* base: SFT's own answers to the tests */
    orl_accuracy accuracy;
    orl_cost sft_cost, rm_cost, sampling, labelling;
    double spent, spent_seconds; /* on measuring, which counts for nobody */
    uint64_t spent_tokens;
    void (*say)(const char *stage, double seconds);
} demo_lab;

static double demo_gold(const orl_row *row, void *user) {
    char prompt[WORLD_SIZE], answer[4 * WORLD_SIZE];
    (void)user;
    snprintf(prompt, sizeof prompt, "%.*s", (int)row->prompt.bytes, row->prompt.text);
    snprintf(answer, sizeof answer, "%.*s", (int)row->response.bytes, row->response.text ? row->response.text : "");
    return world_gold(prompt, answer, (row->flags & ORL_TRUNCATED) != 0);
}

/* Rows of prompts; those of the test kind never occur in training. */
static orl_dataset *demo_prompts(orl_ctx *ctx, size_t n, uint64_t seed, int test) {
    orl_dataset *d = orl_dataset_create(ctx);
    uint64_t rng = seed;
    char prompt[WORLD_SIZE];
    while (orl_dataset_count(d) < n && !orl_failed(ctx)) {
        do world_prompt(&rng, prompt, sizeof prompt);
        while (world_is_test(prompt) != test);
        orl_dataset_add(d, prompt, NULL);
    }
    return d;
}

/* What people of all kinds answered. */
static orl_dataset *demo_demonstrations(orl_ctx *ctx, size_t n, uint64_t seed) {
    orl_dataset *d = orl_dataset_create(ctx);
    uint64_t rng = seed;
    char prompt[WORLD_SIZE], answer[WORLD_SIZE], text[WORLD_SIZE + 1];
    while (orl_dataset_count(d) < n && !orl_failed(ctx)) {
        do world_prompt(&rng, prompt, sizeof prompt);
        while (world_is_test(prompt));
        world_answer(&rng, prompt, -1, answer, sizeof answer);
        snprintf(text, sizeof text, " %s", answer); /* the border's blank belongs to the answer's first word */
        orl_dataset_add(d, prompt, text);
    }
    return d;
}

/* The tokenizer's text: demonstrations, and some conditions so that their digits are tokens. */
static orl_tokenizer *demo_tokenizer(orl_ctx *ctx, orl_dataset *demos) {
    static const char *const specials[] = {"<|endoftext|>", NULL};
    size_t i, n = orl_dataset_count(demos), used = 0, room = n * WORLD_SIZE;
    char *text = (char *)malloc(room + 64);
    orl_tokenizer *tok;
    if (!text) return NULL;
    for (i = 0; i < n && i < 4000; i++) {
        const orl_row *r = orl_dataset_row(demos, i);
        used += (size_t)sprintf(text + used, "%.*s%.*s\n", (int)r->prompt.bytes, r->prompt.text, (int)r->response.bytes,
                                r->response.text);
        if (i % 8 == 0)
            used += (size_t)sprintf(text + used, " <rm_score>: %d.%d \n", (int)(i / 8) % 4, (int)(i / 32) % 10);
    }
    tok = orl_tokenizer_train(ctx, text, used, 512, specials);
    free(text);
    return tok;
}

static orl_generate_options demo_sampling(const demo_lab *lab, size_t samples, uint64_t seed) {
    orl_generate_options g = orl_generate_default();
    g.samples = samples;
    g.max_tokens = 56;
    g.seed = seed + lab->seed * 1000;
    return g;
}

/* Two answers of the SFT model to each prompt; an annotator, who errs now and then, prefers one. */
static orl_dataset *demo_pairs(demo_lab *lab) {
    orl_dataset *asks = demo_prompts(lab->ctx, lab->scale.pairs, lab->seed * 77 + 3, 0), *answers,
                *pairs = orl_dataset_create(lab->ctx);
    orl_generate_options g = demo_sampling(lab, 2, 11);
    uint64_t rng = lab->seed * 77 + 4;
    size_t i;
    answers = orl_sample(lab->sft, asks, &g);
    for (i = 0; i + 1 < orl_dataset_count(answers); i += 2) {
        const orl_row *a = orl_dataset_row(answers, i), *b = orl_dataset_row(answers, i + 1);
        int a_wins = world_prefers(&rng, demo_gold(a, NULL), demo_gold(b, NULL));
        char text[3][2 * WORLD_SIZE];
        snprintf(text[0], sizeof text[0], "%.*s", (int)a->prompt.bytes, a->prompt.text);
        snprintf(text[1], sizeof text[1], "%.*s", (int)a->response.bytes, a->response.text);
        snprintf(text[2], sizeof text[2], "%.*s", (int)b->response.bytes, b->response.text);
        if (!*text[1] || !*text[2]) continue; /* silence is no answer to choose, nor is one that begins with a zero byte */
        orl_dataset_add_pair(pairs, text[0], text[a_wins ? 1 : 2], text[a_wins ? 2 : 1]);
    }
    orl_dataset_free(asks);
    orl_dataset_free(answers);
    return pairs;
}

static orl_train_options demo_train(const demo_lab *lab, double epochs, double lr, size_t batch) {
    orl_train_options t = orl_train_default();
    t.epochs = epochs;
    t.lr = lr;
    t.batch = batch;
    t.seed = lab->seed;
    return t;
}

static void demo_say(const demo_lab *lab, const char *stage, double since) {
    if (lab->say) lab->say(stage, orl_seconds() - since);
}

/* From nothing to labelled samples. Errors stay in the context. */
static void demo_prepare(demo_lab *lab) {
    orl_ctx *ctx = lab->ctx;
    const demo_scale *s = &lab->scale;
    orl_dataset *demos = demo_demonstrations(ctx, s->demos, lab->seed * 77 + 1), *blocks, *pairs, *train, *held;
    orl_model_config config = orl_model_config_default(ORL_LLAMA);
    orl_generate_options g;
    orl_train_options t;
    orl_cost before;
    double from = orl_seconds();
    config.dim = 96, config.layers = 3, config.heads = config.kv_heads = 4, config.ffn = 256, config.context = 128;
    before = orl_cost_now(ctx);
    lab->sft = orl_model_create(ctx, &config, demo_tokenizer(ctx, demos));
    blocks = orl_dataset_blocks(demos, lab->sft); /* the base model reads prompts and answers alike */
    t = demo_train(lab, s->base_epochs, 3e-3, 64);
    orl_train(lab->sft, blocks, &t);
    orl_dataset_free(blocks);
    demo_say(lab, "base model", from), from = orl_seconds();
    t = demo_train(lab, s->sft_epochs, 3e-3, 64);
    orl_train(lab->sft, demos, &t);
    orl_model_set_name(lab->sft, "sft");
    lab->sft_cost = orl_cost_since(ctx, before);
    orl_dataset_free(demos);
    demo_say(lab, "SFT model", from), from = orl_seconds();

    pairs = demo_pairs(lab);
    demo_say(lab, "preference pairs", from), from = orl_seconds();
    orl_dataset_split(pairs, NULL, 0.1, lab->seed, &train, &held);
    before = orl_cost_now(ctx);
    lab->rm = orl_reward_model(lab->sft);
    t = demo_train(lab, s->rm_epochs, 1e-3, 64);
    orl_train_reward(lab->rm, train, &t);
    lab->rm_cost = orl_cost_since(ctx, before);
    orl_score(lab->rm, held);
    orl_pair_accuracy(held, &lab->accuracy);
    demo_say(lab, "reward model", from), from = orl_seconds();

    lab->prompts = demo_prompts(ctx, s->prompts, lab->seed * 77 + 5, 0);
    before = orl_cost_now(ctx);
    g = demo_sampling(lab, s->samples, 12);
    lab->samples = orl_sample(lab->sft, lab->prompts, &g);
    lab->sampling = orl_cost_since(ctx, before);
    before = orl_cost_now(ctx);
    orl_score(lab->rm, lab->samples);
    orl_normalise(lab->samples);
    lab->labelling = orl_cost_since(ctx, before);
    demo_say(lab, "samples and labels", from), from = orl_seconds();

    lab->tests = demo_prompts(ctx, s->tests, 7, 1); /* the same for every seed */
    g = demo_sampling(lab, 1, 13);
    lab->base = orl_sample(lab->sft, lab->tests, &g);
}

/* ---- measuring ---- */

/* Gold, learned reward, KL … on the test prompts. What that costs is measuring, not the method's. */
static void demo_measure(demo_lab *lab, orl_model *m, const demo_method *how, size_t samples, orl_result *result) {
    orl_cost before = orl_cost_now(lab->ctx);
    orl_eval_options e = orl_eval_default();
    orl_model *models[2];
    orl_result results[2];
    models[0] = lab->sft, models[1] = m;
    e.generate = demo_sampling(lab, samples, 13);
    e.gold = demo_gold;
    if (how && how->condition != ORL_CONDITION_NONE) {
        e.generate.target = ORL_TARGET_QUANTILE, e.generate.target_value = how->target;
        e.generate.guidance = how->guidance;
    }
    if (orl_evaluate(models, m == lab->sft ? 1 : 2, lab->tests, lab->rm, &e, results) == ORL_OK)
        *result = results[m != lab->sft];
    before = orl_cost_since(lab->ctx, before);
    lab->spent += before.flops, lab->spent_tokens += before.tokens, lab->spent_seconds += before.seconds;
}

static void demo_curve_add(demo_curve *c, const orl_result *r, double train_flops, double data_flops) {
    demo_point *p = &c->point[c->points < DEMO_POINTS ? c->points++ : DEMO_POINTS - 1];
    p->train_flops = train_flops, p->total_flops = train_flops + data_flops;
    p->gold = r->gold, p->reward = r->reward, p->kl = r->kl;
}

/* ---- the methods ---- */

typedef struct demo_run { /* what a progress callback needs */
    demo_lab *lab;
    orl_model *model;
    const demo_method *how;
    demo_curve *curve, *loss;
    orl_cost before;
    double spent_before, data_flops;
    size_t every;
} demo_run;

static int demo_progress(void *user, const orl_step_info *info) {
    demo_run *run = (demo_run *)user;
    if (run->loss && (info->step % (1 + info->steps / 60) == 0)) {
        demo_point *p = &run->loss->point[run->loss->points < DEMO_POINTS ? run->loss->points++ : DEMO_POINTS - 1];
        p->train_flops = (double)info->step / (double)info->steps, p->gold = info->loss, p->reward = info->reward;
    }
    if (run->curve && info->step % run->every == 0 && info->step < info->steps) {
        orl_result r;
        demo_measure(run->lab, run->model, run->how, 1, &r);
        demo_curve_add(run->curve, &r,
                       orl_cost_since(run->lab->ctx, run->before).flops - (run->lab->spent - run->spent_before),
                       run->data_flops);
    }
    return orl_failed(run->lab->ctx);
}

static demo_run demo_run_begin(demo_lab *lab, orl_model *m, const demo_method *how, demo_curve *curve,
                               demo_curve *loss) {
    demo_run run;
    memset(&run, 0, sizeof run);
    run.lab = lab, run.model = m, run.how = how, run.curve = curve, run.loss = loss;
    run.before = orl_cost_now(lab->ctx);
    run.spent_before = lab->spent;
    lab->spent_seconds = 0, lab->spent_tokens = 0;
    return run;
}

/* Final figures, and what the method cost. */
static void demo_run_end(demo_run *run, const char *name, orl_result *result) {
    demo_lab *lab = run->lab;
    orl_cost cost = orl_cost_since(lab->ctx, run->before);
    double flops = cost.flops - (lab->spent - run->spent_before), seconds = cost.seconds - lab->spent_seconds;
    uint64_t tokens = lab->spent_tokens;
    demo_measure(lab, run->model, run->how, DEMO_TEST_SAMPLES, result);
    snprintf(result->method, sizeof result->method, "%s", name);
    result->seed = lab->seed;
    result->train_flops = flops, result->train_seconds = seconds;
    result->train_tokens = (double)(cost.tokens - tokens);
    result->data_flops = run->data_flops, result->data_seconds = 0;
    if (run->curve) demo_curve_add(run->curve, result, flops, run->data_flops);
}

static orl_dataset *demo_view(const demo_lab *lab, const demo_method *how) {
    orl_dataset *d = lab->samples;
    if (how->quantile > 0) d = orl_filter(d, ORL_ABOVE_QUANTILE, how->quantile);
    if (how->beta > 0) d = orl_weight(d, how->beta, ORL_BASELINE_NONE, how->clip);
    if (how->condition != ORL_CONDITION_NONE) {
        orl_condition_options o = orl_condition_default(how->condition);
        o.dropout = how->dropout;
        o.target_quantile = how->target;
        d = orl_condition(d, &o);
    }
    return d;
}

/* Aligns a copy of the SFT model by one offline method; the caller frees it. */
static orl_model *demo_offline(demo_lab *lab, const demo_method *how, demo_curve *curve, demo_curve *loss,
                               orl_result *result) {
    orl_model *m = orl_model_copy(lab->sft);
    demo_run run = demo_run_begin(lab, m, how, curve, loss);
    orl_dataset *d = demo_view(lab, how);
    orl_train_options t = demo_train(lab, how->epochs, how->lr, 32);
    double from = orl_seconds();
    orl_model_set_name(m, how->name);
    run.data_flops = lab->sampling.flops + lab->labelling.flops;
    run.every = 1 + (size_t)((double)orl_dataset_count(d) * how->epochs / 32 / 6);
    t.progress = demo_progress, t.user = &run;
    t.stage = how->name;
    if (curve) curve->points = 0, snprintf(curve->name, sizeof curve->name, "%s", how->name);
    if (loss) loss->points = 0, snprintf(loss->name, sizeof loss->name, "%s", how->name);
    orl_train(m, d, &t);
    demo_run_end(&run, how->name, result);
    result->data_seconds = lab->sampling.seconds + lab->labelling.seconds;
    demo_say(lab, how->name, from);
    return m;
}

static orl_ppo_options demo_ppo_options(const demo_lab *lab) {
    orl_ppo_options o = orl_ppo_default();
    o.iterations = lab->scale.ppo_iterations;
    o.kl = 0.02, o.lr = 3e-4; /* by the sweep, like demo_methods */
    o.max_tokens = 56;
    o.seed = lab->seed;
    return o;
}

static orl_model *demo_ppo(demo_lab *lab, const char *name, const orl_ppo_options *options, demo_curve *curve,
                           demo_curve *loss, orl_result *result) {
    orl_model *m = orl_model_copy(lab->sft);
    orl_ppo_options o = *options;
    demo_run run = demo_run_begin(lab, m, NULL, curve, loss);
    double from = orl_seconds();
    orl_model_set_name(m, name);
    run.every = 1 + o.iterations / 20;
    o.progress = demo_progress, o.user = &run;
    if (curve) curve->points = 0, snprintf(curve->name, sizeof curve->name, "%s", name);
    if (loss) loss->points = 0, snprintf(loss->name, sizeof loss->name, "%s", name);
    orl_train_ppo(m, lab->rm, lab->prompts, &o);
    demo_run_end(&run, name, result);
    demo_say(lab, name, from);
    return m;
}

/* Best of n answers of the SFT model by learned reward: no training at all, and n times the sampling. */
static void demo_best_of(demo_lab *lab, size_t n, orl_result *result) {
    orl_cost before = orl_cost_now(lab->ctx);
    orl_generate_options g = demo_sampling(lab, n, 14);
    orl_eval_options e = orl_eval_default();
    orl_dataset *all = orl_sample(lab->sft, lab->tests, &g), *best;
    orl_cost cost;
    orl_score(lab->rm, all);
    best = orl_filter(all, ORL_BEST_OF, (double)n);
    cost = orl_cost_since(lab->ctx, before);
    e.gold = demo_gold;
    orl_evaluate_samples(best, lab->base, lab->rm, &e, result);
    snprintf(result->method, sizeof result->method, "best_of_%d", (int)n);
    result->seed = lab->seed;
    result->kl = log((double)n) - ((double)n - 1) / (double)n; /* an upper bound, known in closed form */
    result->train_tokens = result->train_flops = result->train_seconds = 0;
    result->data_flops = cost.flops, result->data_seconds = cost.seconds;
}

/* ---- one seed ---- */

typedef struct demo_options {
    const char *out;
    uint64_t seed;
    size_t seeds, threads;
    int quick, quiet;
} demo_options;

/* Chosen by the sweep (examples/sweep.c) by learned reward alone. */
static const demo_method demo_methods[] = {
    {"mle", 0.95, 0, 0, ORL_CONDITION_NONE, 0, 0, 0, 12, 1e-3},
    {"rwr", 0, 0.2, 1000, ORL_CONDITION_NONE, 0, 0, 0, 1, 1e-3},
    {"dt", 0, 0, 0, ORL_CONDITION_BINS, 0.1, 4, 0.95, 1, 3e-3},
};
#define DEMO_OFFLINE (sizeof demo_methods / sizeof *demo_methods)
#define DEMO_ROWS (DEMO_OFFLINE + 4) /* sft, best of 16, the offline methods, ppo twice */
#define DEMO_PPO (DEMO_ROWS - 1)     /* the baseline; before it, PPO held closer to the SFT model */
#define DEMO_TARGETS 9
#define DEMO_SEEDS 16
#define DEMO_SHOWN 4 /* test prompts whose answers the report shows */

typedef struct demo_outcome { /* what one seed leaves behind */
    orl_result row[DEMO_ROWS];
    demo_curve curve[DEMO_ROWS], loss[DEMO_ROWS];
    double asked[DEMO_TARGETS], got[DEMO_TARGETS];
    orl_accuracy accuracy;
    orl_cost sft, rm;
    double *after[DEMO_ROWS]; /* learned rewards on the test prompts, of the last seed */
    size_t rewards;
    char shown[DEMO_SHOWN][DEMO_ROWS + 1][2 * WORLD_SIZE];
} demo_outcome;

/* Asked-for against obtained reward, both as z-scores of the labelled samples, without guidance. */
static void demo_calibrate(demo_lab *lab, orl_model *dt, demo_outcome *out) {
    static const double quantile[DEMO_TARGETS] = {0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95, 0.99};
    size_t i, k, n = orl_dataset_count(lab->samples);
    double mean = 0, square = 0, sd;
    for (i = 0; i < n; i++) mean += orl_dataset_row(lab->samples, i)->reward_raw / (double)n;
    for (i = 0; i < n; i++)
        square += (orl_dataset_row(lab->samples, i)->reward_raw - mean) *
                  (orl_dataset_row(lab->samples, i)->reward_raw - mean);
    sd = sqrt(square / (double)n);
    for (k = 0; k < DEMO_TARGETS; k++) {
        orl_generate_options g = demo_sampling(lab, 2, 15);
        orl_dataset *d;
        g.target = ORL_TARGET_QUANTILE, g.target_value = quantile[k];
        orl_model_condition(dt, quantile[k], &out->asked[k]);
        d = orl_sample(dt, lab->tests, &g);
        orl_score(lab->rm, d);
        out->got[k] = 0;
        for (i = 0; i < orl_dataset_count(d); i++)
            out->got[k] += (orl_dataset_row(d, i)->reward_raw - mean) / sd / (double)orl_dataset_count(d);
        orl_dataset_free(d);
    }
}

/* Learned rewards and some answers of a model on the test prompts, for the report. */
static void demo_collect(demo_lab *lab, orl_model *m, const demo_method *how, demo_outcome *out, size_t row) {
    orl_generate_options g = demo_sampling(lab, 1, 13);
    orl_dataset *d;
    size_t i;
    if (how && how->condition != ORL_CONDITION_NONE)
        g.target = ORL_TARGET_QUANTILE, g.target_value = how->target, g.guidance = how->guidance;
    d = orl_sample(m, lab->tests, &g);
    orl_score(lab->rm, d);
    out->rewards = orl_dataset_count(d);
    out->after[row] = (double *)malloc((out->rewards + 1) * sizeof(double));
    for (i = 0; out->after[row] && i < out->rewards; i++) {
        const orl_row *r = orl_dataset_row(d, i);
        out->after[row][i] = r->reward;
        if (i >= DEMO_SHOWN) continue;
        snprintf(out->shown[i][0], sizeof out->shown[i][0], "%.*s", (int)r->prompt.bytes, r->prompt.text);
        snprintf(out->shown[i][row + 1], sizeof out->shown[i][0], "%.*s  (gold %.2f)", (int)r->response.bytes,
                 r->response.text, demo_gold(r, NULL));
    }
    orl_dataset_free(d);
}

static void demo_percent(demo_outcome *out) {
    const orl_result *ppo = &out->row[DEMO_PPO];
    size_t i;
    for (i = 0; i < DEMO_ROWS; i++) {
        out->row[i].percent_of_ppo = 100 * out->row[i].train_flops / ppo->train_flops;
        out->row[i].percent_of_ppo_total = 100 * (out->row[i].train_flops + out->row[i].data_flops) / ppo->train_flops;
    }
}

/* Everything for one seed; errors stay in the context. */
static void demo_seed(demo_lab *lab, demo_outcome *out, int collect) {
    size_t i;
    orl_model *m;
    orl_ppo_options ppo;
    demo_prepare(lab);
    out->accuracy = lab->accuracy, out->sft = lab->sft_cost, out->rm = lab->rm_cost;
    demo_measure(lab, lab->sft, NULL, DEMO_TEST_SAMPLES, &out->row[0]);
    out->row[0].train_tokens = out->row[0].train_flops = out->row[0].train_seconds = 0; /* all methods start from it */
    out->row[0].data_flops = out->row[0].data_seconds = 0;
    snprintf(out->row[0].method, sizeof out->row[0].method, "sft");
    out->row[0].seed = lab->seed;
    if (collect) demo_collect(lab, lab->sft, NULL, out, 0);
    demo_best_of(lab, 16, &out->row[1]);
    for (i = 0; i < DEMO_OFFLINE && !orl_failed(lab->ctx); i++) {
        demo_method how = demo_methods[i];
        if (lab->scale.ppo_iterations < 5) how.epochs = 1; /* the quick form */
        m = demo_offline(lab, &how, &out->curve[i + 2], &out->loss[i + 2], &out->row[i + 2]);
        if (how.condition != ORL_CONDITION_NONE) demo_calibrate(lab, m, out);
        if (collect) demo_collect(lab, m, &how, out, i + 2);
        orl_model_free(m);
    }
    for (i = DEMO_PPO - 1; i <= DEMO_PPO && !orl_failed(lab->ctx); i++) {
        ppo = demo_ppo_options(lab);
        if (i < DEMO_PPO)
            ppo.kl = 0.1, ppo.lr = 1.5e-4; /* the sweep's best by gold, which a real project could not know */
        m = demo_ppo(lab, i < DEMO_PPO ? "ppo_kl0.1" : "ppo", &ppo, &out->curve[i], &out->loss[i], &out->row[i]);
        if (collect) demo_collect(lab, m, NULL, out, i);
        orl_model_free(m);
    }
    demo_percent(out);
}

/* ---- over seeds ---- */

/* Mean and half-width of the 95 % interval (Student's t) of n numbers. */
static double demo_mean(const double *x, size_t n, double *half) {
    static const double t[] = {0,     12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365,
                               2.306, 2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131};
    double mean = 0, square = 0;
    size_t i;
    for (i = 0; i < n; i++) mean += x[i] / (double)n;
    for (i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    *half = n > 1 ? t[n - 1] * sqrt(square / (double)(n - 1) / (double)n) : 0;
    return mean;
}

#define DEMO_FIELD(half, outcomes, n, r, field) demo_field(outcomes, n, r, offsetof(orl_result, field), half)
static double demo_field(const demo_outcome *o, size_t n, size_t row, size_t offset, double *half) {
    double x[DEMO_SEEDS], unused;
    size_t i;
    for (i = 0; i < n; i++) x[i] = *(const double *)(const void *)((const char *)&o[i].row[row] + offset);
    return demo_mean(x, n, half ? half : &unused);
}

/* The mean over seeds of a row, for the table; *gold_half: of its gold reward. */
static orl_result demo_average(const demo_outcome *o, size_t n, size_t row, double *gold_half) {
    orl_result r = o[0].row[row];
    if (n == 1) {
        *gold_half = 0;
        return r;
    }
    r.gold = DEMO_FIELD(gold_half, o, n, row, gold);
    r.reward = DEMO_FIELD(NULL, o, n, row, reward);
    r.win_rate = DEMO_FIELD(NULL, o, n, row, win_rate);
    r.win_rate_lo = DEMO_FIELD(NULL, o, n, row, win_rate_lo);
    r.win_rate_hi = DEMO_FIELD(NULL, o, n, row, win_rate_hi);
    r.kl = DEMO_FIELD(NULL, o, n, row, kl);
    r.length = DEMO_FIELD(NULL, o, n, row, length);
    r.distinct2 = DEMO_FIELD(NULL, o, n, row, distinct2);
    r.train_tokens = DEMO_FIELD(NULL, o, n, row, train_tokens);
    r.train_flops = DEMO_FIELD(NULL, o, n, row, train_flops);
    r.train_seconds = DEMO_FIELD(NULL, o, n, row, train_seconds);
    r.data_flops = DEMO_FIELD(NULL, o, n, row, data_flops);
    r.data_seconds = DEMO_FIELD(NULL, o, n, row, data_seconds);
    r.percent_of_ppo = DEMO_FIELD(NULL, o, n, row, percent_of_ppo);
    r.percent_of_ppo_total = DEMO_FIELD(NULL, o, n, row, percent_of_ppo_total);
    return r;
}

static demo_curve demo_average_curve(const demo_outcome *o, size_t n, size_t row) {
    demo_curve c = o[0].curve[row];
    size_t i, k;
    for (i = 1; i < n; i++)
        if (o[i].curve[row].points < c.points) c.points = o[i].curve[row].points;
    for (k = 0; k < c.points; k++) {
        memset(&c.point[k], 0, sizeof c.point[k]);
        for (i = 0; i < n; i++) {
            const demo_point *p = &o[i].curve[row].point[k];
            c.point[k].train_flops += p->train_flops / (double)n, c.point[k].total_flops += p->total_flops / (double)n;
            c.point[k].gold += p->gold / (double)n, c.point[k].reward += p->reward / (double)n,
                c.point[k].kl += p->kl / (double)n;
        }
    }
    return c;
}

/* FLOPs at which the curve first reaches `gold`, linear between its points; NaN if it never does. */
static double demo_first_equal(const demo_curve *c, double start, double gold) {
    double x0 = 0, y0 = start;
    size_t k;
    for (k = 0; k < c->points; k++) {
        const demo_point *p = &c->point[k];
        if (p->gold >= gold)
            return p->gold > y0 ? x0 + (p->train_flops - x0) * (gold - y0) / (p->gold - y0) : p->train_flops;
        x0 = p->train_flops, y0 = p->gold;
    }
    return nan("");
}

/* What of the paper's claim holds here, in sentences. */
static void demo_verdict(const demo_outcome *o, size_t n, FILE *out) {
    demo_curve ppo = demo_average_curve(o, n, DEMO_PPO);
    double half, sft = DEMO_FIELD(NULL, o, n, 0, gold), best = DEMO_FIELD(NULL, o, n, DEMO_PPO, gold);
    size_t row, i;
    for (row = 2; row < DEMO_PPO; row++) {
        double gold = DEMO_FIELD(NULL, o, n, row, gold), flops = DEMO_FIELD(NULL, o, n, row, train_flops),
               data = DEMO_FIELD(NULL, o, n, row, data_flops);
        double share = DEMO_FIELD(NULL, o, n, row, percent_of_ppo), equal = demo_first_equal(&ppo, sft, gold),
               gap[DEMO_SEEDS];
        for (i = 0; i < n; i++) gap[i] = o[i].row[row].gold - o[i].row[DEMO_PPO].gold;
        fprintf(out, "%-10s gold %.3f, PPO %.3f: ", o[0].row[row].method, gold, best);
        fprintf(out, "difference %+.3f", demo_mean(gap, n, &half));
        if (n > 1)
            fprintf(out, " (95 %% interval %+.3f to %+.3f)", demo_mean(gap, n, &half) - half,
                    demo_mean(gap, n, &half) + half);
        fprintf(out, " at %.1f %% of PPO's training compute. ", share);
        if (equal == equal)
            fprintf(out, "PPO first equals it at %.2f TFLOP, %.1f x its training and %.1f x its total compute.\n",
                    equal / 1e12, equal / flops, equal / (flops + data));
        else fprintf(out, "PPO does not reach it.\n");
    }
}

/* ---- the report ---- */

static void demo_chart_curves(orl_report *report, const demo_outcome *o, size_t n, int learned, int total) {
    static double x[DEMO_ROWS][DEMO_POINTS], y[DEMO_ROWS][DEMO_POINTS];
    static demo_curve c[DEMO_ROWS];
    orl_series series[DEMO_ROWS];
    orl_chart chart;
    size_t row, k, used = 0;
    memset(series, 0, sizeof series);
    memset(&chart, 0, sizeof chart);
    for (row = 2; row < DEMO_ROWS; row++) {
        c[row] = demo_average_curve(o, n, row);
        for (k = 0; k < c[row].points; k++) {
            x[row][k] = (total ? c[row].point[k].total_flops : c[row].point[k].train_flops) / 1e12;
            y[row][k] = learned ? c[row].point[k].reward : c[row].point[k].gold;
        }
        series[used].name = c[row].name, series[used].x = x[row], series[used].y = y[row],
        series[used].n = c[row].points;
        used++;
    }
    chart.title = learned ? (total ? "Learned reward against total compute" : "Learned reward against training compute")
                          : (total ? "Gold reward against total compute" : "Gold reward against training compute");
    chart.x_label = total ? "training, sampling and labelling, TFLOP" : "training, TFLOP (PPO: everything in its loop)";
    chart.y_label = learned ? "learned reward" : "gold reward";
    chart.series = series, chart.series_count = used, chart.log_x = 1;
    orl_report_chart(report, &chart);
}

static void demo_chart_losses(orl_report *report, const demo_outcome *o) {
    static double x[DEMO_ROWS][DEMO_POINTS], y[DEMO_ROWS][DEMO_POINTS];
    orl_series series[DEMO_ROWS];
    orl_chart chart;
    size_t row, k, used = 0;
    memset(series, 0, sizeof series);
    memset(&chart, 0, sizeof chart);
    for (row = 2; row < DEMO_ROWS; row++, used++) {
        for (k = 0; k < o->loss[row].points; k++)
            x[row][k] = 100 * o->loss[row].point[k].train_flops, y[row][k] = o->loss[row].point[k].gold;
        series[used].name = o->loss[row].name, series[used].x = x[row], series[used].y = y[row],
        series[used].n = o->loss[row].points;
    }
    chart.title = "Training loss", chart.x_label = "share of training, %", chart.y_label = "loss per token";
    chart.note = "Weights, conditions and PPO's surrogate make these losses different things: each is to be compared "
                 "with itself alone.";
    chart.series = series, chart.series_count = used;
    orl_report_chart(report, &chart);
}

static void demo_chart_calibration(orl_report *report, const demo_outcome *o, size_t n) {
    double asked[DEMO_TARGETS], got[DEMO_TARGETS], low[DEMO_TARGETS], high[DEMO_TARGETS], x[DEMO_SEEDS], half;
    orl_series series[1];
    orl_chart chart;
    size_t i, k;
    memset(series, 0, sizeof series);
    memset(&chart, 0, sizeof chart);
    for (k = 0; k < DEMO_TARGETS; k++) {
        for (i = 0; i < n; i++) x[i] = o[i].asked[k];
        asked[k] = demo_mean(x, n, &half);
        for (i = 0; i < n; i++) x[i] = o[i].got[k];
        got[k] = demo_mean(x, n, &half);
        low[k] = got[k] - half, high[k] = got[k] + half;
    }
    series[0].name = "dt", series[0].x = asked, series[0].y = got, series[0].n = DEMO_TARGETS;
    if (n > 1) series[0].low = low, series[0].high = high;
    chart.title = "Decision transformer: reward asked for against reward obtained";
    chart.x_label = "asked for (r̂)", chart.y_label = "obtained (r̂)";
    chart.series = series, chart.series_count = 1, chart.diagonal = 1;
    orl_report_chart(report, &chart);
}

static void demo_report(orl_ctx *ctx, const char *file, const demo_outcome *o, size_t n, const orl_result *rows) {
    orl_report *report = orl_report_create(ctx, "Offline RLHF on the built-in world");
    const char *names[DEMO_ROWS], *cells[(DEMO_SHOWN + 1) * (DEMO_ROWS)];
    const double *values[DEMO_ROWS];
    size_t counts[DEMO_ROWS], i, k, sets = 0, cols = 0;
    const demo_outcome *last = &o[n - 1];
    orl_report_text(
        report,
        "All methods start from the same SFT model and learn from the same reward model, itself learned from noisy "
        "preferences. Gold is the world's own reward, which no method sees; 1 is the best there can be.");
    orl_report_results(report, rows, DEMO_ROWS);
    demo_chart_curves(report, o, n, 0, 0);
    demo_chart_curves(report, o, n, 0, 1);
    demo_chart_curves(report, o, n, 1, 0);
    demo_chart_curves(report, o, n, 1, 1);
    demo_chart_calibration(report, o, n);
    demo_chart_losses(report, last);
    for (i = 0; i < DEMO_ROWS; i++)
        if (last->after[i])
            names[sets] = last->row[i].method, values[sets] = last->after[i], counts[sets++] = last->rewards;
    orl_report_histogram(report, "Learned reward before (sft) and after", "learned reward of one answer", names, values,
                         counts, sets, 24);
    orl_report_heading(report, "Answers side by side");
    for (k = 0; k <= DEMO_SHOWN; k++) { /* one row a prompt, one column a model */
        cols = 0;
        cells[k * DEMO_ROWS + cols++] = k ? last->shown[k - 1][0] : "prompt";
        for (i = 0; i < DEMO_ROWS; i++)
            if (i != 1) cells[k * DEMO_ROWS + cols++] = k ? last->shown[k - 1][i + 1] : last->row[i].method;
    }
    orl_report_table(report, "Answers to test prompts", cells, DEMO_SHOWN + 1, cols);
    orl_report_save(report, file);
    orl_report_free(report);
}

/* ---- orl demo ---- */

static void demo_print_stage(const char *stage, double seconds) {
    fprintf(stderr, "  %-20s %6.1f s\n", stage, seconds);
}

static void demo_print_table(orl_ctx *ctx, const demo_outcome *o, size_t n, orl_result *rows) {
    double half;
    size_t i;
    char *table;
    for (i = 0; i < DEMO_ROWS; i++) rows[i] = demo_average(o, n, i, &half);
    table = orl_results_table(ctx, rows, DEMO_ROWS);
    if (table) printf("%s\n", table);
    orl_free(ctx, table);
    printf("Shared by all: SFT %.2f TFLOP, reward model %.2f TFLOP, its held-out accuracy %.3f (%.3f to %.3f).\n",
           o[n - 1].sft.flops / 1e12, o[n - 1].rm.flops / 1e12, o[n - 1].accuracy.accuracy, o[n - 1].accuracy.low,
           o[n - 1].accuracy.high);
    if (n > 1) {
        printf("\nGold reward over %d seeds, mean and 95 %% interval:\n", (int)n);
        for (i = 0; i < DEMO_ROWS; i++) {
            orl_result r = demo_average(o, n, i, &half);
            printf("  %-12s %6.3f  %6.3f to %6.3f\n", r.method, r.gold, r.gold - half, r.gold + half);
        }
    }
    printf("\n");
    demo_verdict(o, n, stdout);
}

static inline int demo_main(const demo_options *options) { /* inline: the sweep does without it */
    size_t n = options->seeds ? options->seeds : 1, i, k;
    demo_outcome *outcomes = (demo_outcome *)calloc(DEMO_SEEDS, sizeof *outcomes);
    orl_result rows[DEMO_ROWS];
    orl_ctx *ctx = NULL;
    char path[4200];
    FILE *results = NULL;
    int failed = 0;
    if (n > DEMO_SEEDS) {
        fprintf(stderr, "orl: demo: at most %d seeds\n", DEMO_SEEDS);
        free(outcomes);
        return 2;
    }
    mkdir(options->out, 0777); /* if it cannot be made, the file in it cannot either, and that is said */
    snprintf(path, sizeof path, "%s/results.jsonl", options->out);
    if (outcomes) results = fopen(path, "w");
    if (!results) fprintf(stderr, "orl: %s cannot be written\n", path);
    for (i = 0; i < n && results && !failed; i++) {
        orl_config config = orl_config_default();
        demo_lab lab;
        memset(&lab, 0, sizeof lab);
        config.threads = options->threads;
        config.seed = options->seed + i;
        orl_destroy(ctx);
        ctx = lab.ctx = orl_create(&config);
        lab.seed = options->seed + i;
        lab.scale = options->quick ? demo_quick : demo_full;
        lab.say = options->quiet ? NULL : demo_print_stage;
        if (!options->quiet)
            fprintf(stderr, "seed %d of %d: %s, %d threads\n", (int)(i + 1), (int)n, orl_isa(ctx),
                    (int)orl_threads(ctx));
        demo_seed(&lab, &outcomes[i], i + 1 == n);
        for (k = 0; k < DEMO_ROWS && !orl_failed(ctx); k++) {
            char *line = orl_result_json(ctx, &outcomes[i].row[k]);
            if (line) fprintf(results, "%s\n", line), fflush(results);
            orl_free(ctx, line);
        }
        failed = orl_failed(ctx);
    }
    if (results) fclose(results);
    if (results && !failed) {
        demo_print_table(ctx, outcomes, n, rows);
        snprintf(path, sizeof path, "%s/report.html", options->out);
        demo_report(ctx, path, outcomes, n, rows);
        if (!orl_failed(ctx)) printf("\nReport: %s\n", path);
    }
    if (ctx && orl_failed(ctx)) fprintf(stderr, "orl: demo: %s\n", orl_error(ctx)), failed = 1;
    for (i = 0; outcomes && i < n; i++)
        for (k = 0; k < DEMO_ROWS; k++) free(outcomes[i].after[k]);
    free(outcomes);
    orl_destroy(ctx);
    return failed || !results;
}
#endif
