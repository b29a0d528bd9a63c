/* test_golden.c - the library against an independent implementation.
 * tests/golden/reference.py computed everything compared here once more in PyTorch and double precision:
 * logits, log-probabilities, scores, gradients, ten steps of every loss, PPO's numbers, the optimizer.
 * In the double build the two agree to rounding (1e-10), in float to 2e-5 of each quantity's size. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define TOLERANCE (ORLI_DOUBLE ? 1e-10 : 2e-5)
#define MAX_STEPS 16

static orl_ctx *ctx;

/* ---- golden files: JSON flattened to lists of numbers, found by their path ("train/sft/loss") ---- */

typedef struct golden_list {
    char path[120];
    size_t first, count;
} golden_list;

typedef struct golden {
    golden_list *list;
    double *value;
    size_t lists, list_capacity, values, value_capacity;
    char name[64];
} golden;

static const char *golden_path(const char *name) { /* good until the next call but three */
    static char paths[4][600];
    static unsigned next;
    const char *dir = getenv("ORL_TEST_DIR");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/golden/%s", dir ? dir : "tests", name);
    return path;
}

static void golden_number(golden *g, double x) {
    if (ORLI_RESERVE(ctx, g->value, g->value_capacity, g->values + 1) != ORL_OK) return;
    g->value[g->values++] = x;
    if (g->lists) g->list[g->lists - 1].count++;
}

static void golden_key(golden *g, const char *path) {
    if (ORLI_RESERVE(ctx, g->list, g->list_capacity, g->lists + 1) != ORL_OK) return;
    snprintf(g->list[g->lists].path, sizeof g->list[0].path, "%s", path);
    g->list[g->lists].first = g->values;
    g->list[g->lists++].count = 0;
}

/* Every key becomes a list: all numbers below it, row by row; an object's keys go into the path. */
static golden golden_open(const char *name) {
    golden g;
    orli_file file;
    orli_json j;
    char path[120] = "";
    size_t length[ORLI_JSON_DEPTH], depth = 0, end = 0; /* length: of the path at each object */
    memset(&g, 0, sizeof g);
    snprintf(g.name, sizeof g.name, "%s", name);
    if (orli_file_open(ctx, golden_path(name), &file) != ORL_OK) return g;
    j = orli_json_new(ctx, file.data, file.size, name, 1);
    for (;;) {
        orli_json at = j;
        orli_json_event event = orli_json_next(&j);
        if (event == ORLI_JSON_ERROR || event == ORLI_JSON_END) break;
        if (event == ORLI_JSON_OBJECT) length[depth++] = end;
        if (event == ORLI_JSON_OBJECT_END) end = length[--depth];
        if (event == ORLI_JSON_NUMBER) golden_number(&g, orli_json_number(&at));
        if (event == ORLI_JSON_KEY) {
            end = length[depth - 1];
            end += (size_t)snprintf(path + end, sizeof path - end, "%s%.*s", end ? "/" : "",
                                    (int)(j.end - j.start), j.text + j.start);
            golden_key(&g, path);
        }
    }
    check(orli_json_end(&j) == ORL_OK);
    orli_file_close(&file);
    return g;
}

static void golden_close(golden *g) {
    orli_free(ctx, g->list);
    orli_free(ctx, g->value);
    memset(g, 0, sizeof *g);
}

/* The list at "a/b/c", any part of which may be NULL or empty. Absent: fails and gives zeros. */
static const double *golden_find(const golden *g, const char *a, const char *b, const char *c,
                                 size_t *count) {
    static const double zeros[1024] = {0};
    char path[240];
    size_t i;
    snprintf(path, sizeof path, "%s%s%s%s%s", a, b ? "/" : "", b ? b : "", c ? "/" : "",
             c ? c : "");
    for (i = 0; i < g->lists; i++) {
        if (strcmp(g->list[i].path, path) != 0) continue;
        if (count) *count = g->list[i].count;
        return g->value + g->list[i].first;
    }
    printf("%s has no \"%s\"\n", g->name, path);
    test_check(0, "golden value is there", __FILE__, __LINE__);
    if (count) *count = 0;
    return zeros;
}
static double golden_value(const golden *g, const char *a, const char *b, const char *c) {
    return golden_find(g, a, b, c, NULL)[0];
}

/* Checks a list as one: the largest difference against the largest value. */
static void near_list(const double *ours, const double *theirs, size_t n, double tolerance,
                      const char *what, const char *part) {
    double worst = 0, largest = 1e-3;
    size_t i, at = 0;
    for (i = 0; i < n; i++) {
        double difference = fabs(ours[i] - theirs[i]);
        if (!(difference <= worst)) worst = difference, at = i; /* NaN is the worst of all */
        largest = fmax(largest, fabs(theirs[i]));
    }
    test_check(worst <= tolerance * largest, what, __FILE__, __LINE__);
    if (!(worst <= tolerance * largest))
        printf("    %s: number %zu of %zu is %.17g, golden %.17g, off by %.2g of %.2g\n", part, at,
               n, ours[at], theirs[at], worst, tolerance * largest);
}

static void near_real(const orl_real *ours, const double *theirs, size_t n, const char *what,
                      const char *part) {
    double *copy = (double *)malloc((n + 1) * sizeof *copy);
    size_t i;
    for (i = 0; i < n; i++) copy[i] = (double)ours[i];
    near_list(copy, theirs, n, TOLERANCE, what, part);
    free(copy);
}

/* ---- parameters: gathered into Hugging Face's tensors, as the golden files have them ---- */

/* The numbers of tensor `name`, or of its gradient, in its layout on disk, which may transpose or fuse
 * parameters; *count receives how many. NULL if there is no such tensor. */
static double *gather_tensor(orl_model *model, const char *name, int gradient, size_t *count) {
    const orli_family *family = &orli_families[model->config.arch];
    const orli_weight_row *row;
    double *whole = NULL;
    size_t layer, r, c;
    *count = 0;
    for (row = family->weights; row->name; row++) {
        for (layer = 0; layer < model->config.layers; layer++) {
            const orl_param *p = orli_model_weight(model, row->weight, layer);
            const orl_real *x = p ? gradient ? p->grad : p->data : NULL;
            size_t part = row->third ? (size_t)row->third - 1 : 0;
            orli_disk_shape shape;
            char on_disk[160];
            orli_weight_name(on_disk, sizeof on_disk, row, family->prefix, layer);
            if (!x || strcmp(on_disk, name) != 0) continue;
            shape = orli_disk_shape_of(model, row);
            if (!whole) whole = (double *)calloc(p->rows * p->cols * 3, sizeof *whole);
            *count += p->rows * p->cols;
            for (r = 0; r < p->rows; r++)
                for (c = 0; c < p->cols; c++)
                    whole[p->rank >= 2 ? orli_disk_at(&shape, part, r, c) : orli_disk_at(&shape, part, c, 0)] =
                        (double)x[r * p->cols + c];
            if ((int)row->weight < ORLI_W_FIRST_OF_LAYER) break; /* it is there once */
        }
    }
    return whole;
}

/* The tensor listed at path/name has its size, its first eight numbers, its norm and its sum. */
static void near_tensor(const golden *g, const char *path, const char *name, orl_model *model,
                        int gradient, const char *what) {
    size_t rank, first, count, i;
    char place[240];
    const double *shape, *theirs;
    double *x = gather_tensor(model, name, gradient, &count), ours[2] = {0, 0}, golden_pair[2];
    snprintf(place, sizeof place, "%s/%s", path, name);
    shape = golden_find(g, place, "shape", NULL, &rank);
    theirs = golden_find(g, place, "first", NULL, &first);
    golden_pair[0] = golden_value(g, place, "norm", NULL);
    golden_pair[1] = golden_value(g, place, "sum", NULL);
    test_check(x && rank && count == (size_t)shape[0] * (size_t)(rank > 1 ? shape[1] : 1), place,
               __FILE__, __LINE__);
    if (x && first <= count) { /* a sum that cancels is as exact as the norm, no better: one list */
        for (i = 0; i < count; i++) ours[0] += x[i] * x[i], ours[1] += x[i];
        ours[0] = sqrt(ours[0]);
        near_list(x, theirs, first, TOLERANCE, what, place);
        near_list(ours, golden_pair, 2, TOLERANCE, what, place);
    }
    free(x);
}

/* All tensors listed below `path`. */
static void near_tensors(const golden *g, const char *path, orl_model *model, int gradient,
                         const char *what) {
    size_t i, n = strlen(path), seen = 0;
    for (i = 0; i < g->lists; i++) {
        const char *name = g->list[i].path;
        char copy[120];
        if (strncmp(name, path, n) != 0 || name[n] != '/' || strchr(name + n + 1, '/')) continue;
        snprintf(copy, sizeof copy, "%s", name + n + 1);
        near_tensor(g, path, copy, model, gradient, what);
        seen++;
    }
    check(seen > 0);
}

/* ---- forward and gradients ---- */

static void test_forward(const golden *g, const char *arch) {
    orl_model *model = orl_model_load(ctx, golden_path(arch));
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl"));
    orl_dataset *pairs = orl_dataset_load(ctx, golden_path("pairs.jsonl"));
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *stream = orl_stream_create(ctx);
    orl_tensor *logits;
    double sums[8];
    orl_real *logp = NULL;
    int32_t ids[64];
    size_t n, total = 0, i;
    const double *id = golden_find(g, "logits", "ids", NULL, &n), *values;
    for (i = 0; i < n && i < 64; i++) ids[i] = (int32_t)id[i];
    orl_stream_add(stream, ids, n, ORL_ROOT);
    logits = orl_logits(tape, model, stream);
    values = golden_find(g, "logits", "values", NULL, &n);
    check(logits && orl_rows(logits) * orl_cols(logits) == n);
    if (logits) near_real(orl_data(logits), values, n, "logits", arch);
    values = golden_find(g, "logp", NULL, NULL, &n);
    check(orl_logprob(model, rows, &logp, &total) == ORL_OK);
    check(total == n);
    if (logp && total == n)
        near_real(logp, values, n, "log-probabilities of response tokens", arch);
    check(orl_logprob(model, pairs, NULL, NULL) == ORL_OK);
    for (i = 0; i < 8 && i < orl_dataset_count(pairs); i++)
        sums[i] = orl_dataset_row(pairs, i)->logp;
    if (i == 8)
        near_list(sums, golden_find(g, "pair_logp", "chosen", NULL, NULL), 8, TOLERANCE,
                  "sums over chosen responses", arch);
    orl_free(ctx, logp);
    orl_stream_free(stream);
    orl_tape_free(tape);
    orl_dataset_free(rows);
    orl_dataset_free(pairs);
    orl_model_free(model);
}

static void test_scores(const golden *g, const char *arch, const char *reward_model) {
    orl_model *rm = orl_model_load(ctx, golden_path(reward_model));
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl"));
    orl_dataset *pairs = orl_dataset_load(ctx, golden_path("pairs.jsonl"));
    double score[MAX_STEPS], rejected[MAX_STEPS];
    size_t i;
    check(orl_is_reward_model(rm));
    check(orl_score(rm, rows) == ORL_OK);
    check(orl_score(rm, pairs) == ORL_OK);
    if (!orl_failed(ctx) && orl_dataset_count(rows) == 8 && orl_dataset_count(pairs) == 8) {
        for (i = 0; i < 8; i++) score[i] = orl_dataset_row(rows, i)->reward_raw;
        near_list(score, golden_find(g, "score", "completion", NULL, NULL), 8, TOLERANCE,
                  "scores of responses", arch);
        for (i = 0; i < 8; i++) score[i] = orl_dataset_row(pairs, i)->reward_raw;
        for (i = 0; i < 8; i++) rejected[i] = orl_dataset_row(pairs, i)->rejected_reward_raw;
        near_list(score, golden_find(g, "score", "chosen", NULL, NULL), 8, TOLERANCE,
                  "scores of chosen", arch);
        near_list(rejected, golden_find(g, "score", "rejected", NULL, NULL), 8, TOLERANCE,
                  "scores of rejected", arch);
    }
    orl_dataset_free(rows);
    orl_dataset_free(pairs);
    orl_model_free(rm);
}

/* The SFT loss by hand on the tensor API: what a user's own loss would do. Entropies by the way. */
static void test_gradient(const golden *g, const char *arch) {
    orl_model *model = orl_model_load(ctx, golden_path(arch));
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl"));
    orl_params *set = orl_model_params(model);
    orl_tape *tape = orl_tape_create(ctx);
    orl_stream *stream = orl_stream_create(ctx);
    size_t position[256] = {0}, n = 0, i, t;
    int32_t target[256], ids[64];
    orl_tensor *h, *loss, *entropy = NULL;
    double squares = 0;
    for (i = 0; i < orl_dataset_count(rows); i++) {
        const orl_row *row = orl_dataset_row(rows, i);
        size_t before = stream->tokens, prompt = row->prompt.tokens,
               length = prompt + row->response.tokens;
        memcpy(ids, row->prompt.ids, prompt * sizeof *ids);
        memcpy(ids + prompt, row->response.ids, row->response.tokens * sizeof *ids);
        orl_stream_add(stream, ids, length, ORL_ROOT);
        for (t = prompt; t < length; t++) position[n] = before + t - 1, target[n++] = ids[t];
    }
    orl_params_zero_grad(set);
    h = orl_gather(tape, orl_hidden(tape, model, stream), position, n);
    loss = orl_token_logp(tape, h, orl_head(tape, model), orl_model_get_config(model)->vocab,
                          target, &entropy);
    loss = orl_scale(tape, orl_sum(tape, loss), -1.0 / (double)n);
    check(orl_backward(tape, loss) == ORL_OK);
    if (!orl_failed(ctx)) {
        orl_param *p;
        check_near(orl_data(loss)[0], golden_value(g, "grad", "loss", NULL), TOLERANCE * 10);
        near_real(orl_data(entropy), golden_find(g, "entropy", NULL, NULL, NULL), n, "entropies",
                  arch);
        near_tensors(g, "grad/params", model, 1, "gradient of the SFT loss");
        for (p = set->first; p; p = p->next)
            for (i = 0; i < p->rows * p->cols; i++)
                squares += (double)p->grad[i] * (double)p->grad[i];
        check_near(sqrt(squares), golden_value(g, "grad", "norm", NULL), TOLERANCE * 10);
    }
    orl_stream_free(stream);
    orl_tape_free(tape);
    orl_dataset_free(rows);
    orl_model_free(model);
}

/* ---- ten optimizer steps of each loss ---- */

typedef struct steps {
    double loss[MAX_STEPS], grad_norm[MAX_STEPS], lr[MAX_STEPS];
    size_t n;
} steps;

static int note_step(void *user, const orl_step_info *info) {
    steps *s = (steps *)user;
    if (s->n < MAX_STEPS)
        s->loss[s->n] = info->loss, s->grad_norm[s->n] = info->grad_norm, s->lr[s->n] = info->lr;
    s->n++;
    return 0;
}

static orl_train_options golden_options(size_t batch, size_t micro_tokens, steps *s) {
    orl_train_options o = orl_train_default();
    memset(s, 0, sizeof *s);
    o.steps = 10, o.batch = batch, o.micro_tokens = micro_tokens, o.shuffle = 0;
    o.lr = 1e-3, o.schedule = ORL_CONSTANT, o.warmup = 0;
    o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.weight_decay = 0.1, o.clip = 1.0;
    o.progress = note_step, o.user = s;
    return o;
}

static void compare_run(const golden *g, const char *run, orl_model *model, const steps *s) {
    char params[120], what[120];
    size_t n;
    const double *loss = golden_find(g, "train", run, "loss", &n),
                 *norm = golden_find(g, "train", run, "grad_norm", NULL);
    snprintf(what, sizeof what, "%s %s", g->name, run);
    if (orl_failed(ctx)) {
        printf("%s: %s\n", what, orl_error(ctx));
        test_check(0, "training runs", __FILE__, __LINE__);
        orl_clear_error(ctx);
        return;
    }
    check(s->n == n);
    if (s->n != n) return;
    near_list(s->loss, loss, n, TOLERANCE, "losses of ten steps", what);
    near_list(s->grad_norm, norm, n, TOLERANCE, "gradient norms of ten steps", what);
    snprintf(params, sizeof params, "train/%s/params", run);
    near_tensors(g, params, model, 0, "parameters after ten steps");
}

static void run_tokens(const golden *g, const char *arch, const char *run, const orl_dataset *data,
                       size_t micro_tokens) {
    orl_model *model = orl_model_load(ctx, golden_path(arch));
    steps s;
    orl_train_options o = golden_options(orl_dataset_count(data), micro_tokens, &s);
    orl_train(model, data, &o);
    compare_run(g, run, model, &s);
    orl_model_free(model);
}

/* Filter, weight and condition are views of one labelled set; each is trained on in file order. */
static void test_offline_methods(const golden *g, const char *arch, size_t micro_tokens) {
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl")), *kept, *view;
    run_tokens(g, arch, "sft", rows, micro_tokens);
    orl_normalise(rows);
    view = orl_weight(rows, 1.0, ORL_BASELINE_NONE, 20.0);
    run_tokens(g, arch, "rwr", view, micro_tokens);
    orl_dataset_free(view);
    view = orl_weight(rows, 0.5, ORL_BASELINE_MEAN, 2.0);
    run_tokens(g, arch, "rwr_sharp", view, micro_tokens);
    kept = orl_filter(view, ORL_ABOVE, 0.0); /* weights come back to mean 1 over what survives */
    run_tokens(g, arch, "mle_rwr", kept, micro_tokens);
    orl_dataset_free(kept);
    orl_dataset_free(view);
    kept = orl_filter(rows, ORL_ABOVE, 0.0);
    run_tokens(g, arch, "mle", kept, micro_tokens);
    view = orl_weight(kept, 0.5, ORL_BASELINE_NONE, 2.0); /* the other order is the same method */
    run_tokens(g, arch, "mle_rwr", view, micro_tokens);
    orl_dataset_free(view);
    orl_dataset_free(kept);
    view = orl_dataset_load(ctx, golden_path("dt.jsonl"));
    run_tokens(g, arch, "dt", view, micro_tokens);
    orl_dataset_free(view);
    orl_dataset_free(rows);
}

static void test_pairs(const golden *g, const golden *data, const char *arch,
                       const char *reward_model, size_t micro_tokens) {
    static const char *const run[3] = {"rm", "rm_center", "rm_margin"};
    orl_dataset *pairs = orl_dataset_load(ctx, golden_path("pairs.jsonl"));
    orl_model *model = orl_model_load(ctx, golden_path(arch));
    const double *margin = golden_find(data, "margin", NULL, NULL, NULL);
    steps s;
    orl_train_options o = golden_options(8, micro_tokens, &s);
    size_t i, k;
    orl_train_dpo(model, pairs, NULL, 0.1, &o);
    compare_run(g, "dpo", model, &s);
    orl_model_free(model);
    for (k = 0; k < 3; k++) {
        orl_rm_loss loss = {0, 0};
        model = orl_model_load(ctx, golden_path(reward_model));
        o = golden_options(8, micro_tokens, &s);
        if (k == 1) loss.center = 0.01;
        for (i = 0; k == 2 && i < orl_dataset_count(pairs); i++)
            orl_dataset_row(pairs, i)->margin = margin[i];
        o.loss = orl_loss_reward, o.loss_user = &loss;
        orl_train_reward(model, pairs, &o);
        compare_run(g, run[k], model, &s);
        if (k == 0 && model) { /* its scores of the training responses give its scale */
            double ours[2], theirs[2];
            ours[0] = model->reward_mean, ours[1] = model->reward_sd;
            theirs[0] = golden_value(g, "train", "rm", "score_mean");
            theirs[1] = golden_value(g, "train", "rm", "score_sd");
            /* ten steps amplify rounding */
            near_list(ours, theirs, 2, 10 * TOLERANCE, "mean and sd of the scores", arch);
        }
        orl_model_free(model);
    }
    orl_dataset_free(pairs);
}

/* ---- r̂, weights, filters ---- */

static void near_weights(const golden *g, orl_dataset *view, const char *path, const char *name) {
    double weight[8];
    size_t n, i;
    const double *theirs = golden_find(g, path, name, "weight", &n);
    check(orl_dataset_count(view) == n && n <= 8);
    if (orl_dataset_count(view) != n || n > 8) return;
    for (i = 0; i < n; i++) weight[i] = orl_dataset_row(view, i)->weight;
    near_list(weight, theirs, n, 1e-12, "weights", name ? name : path); /* double in either build */
}

static void near_kept(const golden *g, orl_dataset *view, const char *name) {
    size_t n, i;
    const double *kept = golden_find(g, name, NULL, NULL, &n);
    check(orl_dataset_count(view) == n);
    for (i = 0; i < n && i < orl_dataset_count(view); i++) /* a file's lines count from 1 */
        check(orl_dataset_row(view, i)->line == (size_t)kept[i] + 1);
}

static void test_data(const golden *g) {
    static const struct {
        const char *name;
        double beta, clip;
        orl_baseline baseline;
    } variant[5] = {{"none", 1.0, 20.0, ORL_BASELINE_NONE},
                    {"mean", 1.0, 20.0, ORL_BASELINE_MEAN},
                    {"prompt", 1.0, 20.0, ORL_BASELINE_PROMPT},
                    {"sharp", 0.5, 2.0, ORL_BASELINE_NONE},
                    {"sharp_prompt", 0.25, 3.0, ORL_BASELINE_PROMPT}};
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl")), *view, *again;
    double rhat[8];
    size_t i;
    check(orl_normalise(rows) == ORL_OK && orl_dataset_count(rows) == 8);
    for (i = 0; i < 8 && !orl_failed(ctx); i++) rhat[i] = orl_dataset_row(rows, i)->reward;
    if (!orl_failed(ctx))
        near_list(rhat, golden_find(g, "rhat", NULL, NULL, NULL), 8, 1e-12, "normalised rewards",
                  "sft.jsonl");
    for (i = 0; i < 5; i++) {
        view = orl_weight(rows, variant[i].beta, variant[i].baseline, variant[i].clip);
        near_weights(g, view, "weights", variant[i].name);
        orl_dataset_free(view);
    }
    view = orl_filter(rows, ORL_ABOVE, 0.0);
    near_kept(g, view, "kept_above_0");
    again = orl_weight(view, 0.5, ORL_BASELINE_NONE, 2.0);
    near_weights(g, again, "filter_then_weight", NULL);
    orl_dataset_free(again);
    orl_dataset_free(view);
    view = orl_filter(rows, ORL_ABOVE_QUANTILE, 0.5);
    near_kept(g, view, "kept_above_median");
    orl_dataset_free(view);
    view = orl_filter(rows, ORL_TOP_K, 1);
    near_kept(g, view, "kept_best_per_prompt");
    orl_dataset_free(view);
    orl_dataset_free(rows);
}

/* ---- the optimizer alone ---- */

static void test_optimizer(const golden *g) {
    static const char *const schedule[3] = {"constant", "linear", "cosine"};
    static const orl_schedule kind[3] = {ORL_CONSTANT, ORL_LINEAR, ORL_COSINE};
    size_t n = (size_t)golden_value(g, "steps", NULL, NULL), i, k;
    double lr = golden_value(g, "lr", NULL, NULL), floor_lr = golden_value(g, "min_lr", NULL, NULL),
           rate[MAX_STEPS];
    size_t warmup = (size_t)golden_value(g, "warmup", NULL, NULL);
    orl_params *set = orl_params_create(ctx);
    orl_param *matrix = orl_param_add(set, "matrix", 3, 5, 2),
              *vector = orl_param_add(set, "vector", 1, 4, 1);
    const double *rates = golden_find(g, "trace", "lr", NULL, NULL),
                 *norms = golden_find(g, "trace", "grad_norm", NULL, NULL);
    orli_adam adam;
    orli_adam_options o;
    check(n <= MAX_STEPS);
    for (i = 0; i < 3 && n <= MAX_STEPS; i++) {
        char name[40];
        for (k = 0; k < n; k++) rate[k] = orli_learning_rate(lr, kind[i], warmup, floor_lr, k, n);
        near_list(rate, golden_find(g, schedule[i], NULL, NULL, NULL), n, 1e-12, "learning rates",
                  schedule[i]);
        for (k = 0; k < n; k++) rate[k] = orli_learning_rate(lr, kind[i], 0, floor_lr, k, n);
        snprintf(name, sizeof name, "%s_no_warmup", schedule[i]);
        near_list(rate, golden_find(g, name, NULL, NULL, NULL), n, 1e-12, "learning rates", name);
    }
    for (i = 0; i < 15; i++)
        orl_param_data(matrix)[i] = (orl_real)golden_find(g, "matrix", NULL, NULL, NULL)[i];
    for (i = 0; i < 4; i++)
        orl_param_data(vector)[i] = (orl_real)golden_find(g, "vector", NULL, NULL, NULL)[i];
    check(orli_adam_create(&adam, set) == ORL_OK);
    o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.weight_decay = 0.1, o.clip = 1.0;
    for (k = 0; k < n; k++) { /* gradients come as sums over 3 and are divided in the step */
        double norm = 0;
        for (i = 0; i < 15; i++)
            orl_param_grad(matrix)[i] =
                (orl_real)(3 * golden_find(g, "trace", "matrix_grad", NULL, NULL)[15 * k + i]);
        for (i = 0; i < 4; i++)
            orl_param_grad(vector)[i] =
                (orl_real)(3 * golden_find(g, "trace", "vector_grad", NULL, NULL)[4 * k + i]);
        o.lr = rates[k];
        check(orli_adam_step(&adam, &o, 3.0, &norm) == ORL_OK);
        check_near(norm, norms[k], TOLERANCE);
        near_real(orl_param_data(matrix), golden_find(g, "trace", "matrix", NULL, NULL) + 15 * k,
                  15, "AdamW on a matrix", "trace");
        near_real(orl_param_data(vector), golden_find(g, "trace", "vector", NULL, NULL) + 4 * k, 4,
                  "AdamW on a vector", "trace");
    }
    orli_adam_free(&adam);
}

/* ---- PPO ---- */

/* Rollouts of n responses whose lengths and scores are given, with room for their tokens' numbers. */
static void rollouts_create(orli_rollouts *r, size_t n, const double *length, const double *score) {
    size_t i;
    r->examples.ctx = ctx;
    r->start = (size_t *)orli_alloc_zero(ctx, n + 1, sizeof *r->start);
    r->score = (double *)orli_alloc_zero(ctx, n, sizeof *r->score);
    r->unfinished = (unsigned char *)orli_alloc_zero(ctx, n, 1);
    for (i = 0; i < n; i++)
        r->start[i + 1] = r->start[i] + (size_t)length[i], r->score[i] = score ? score[i] : 0;
    r->tokens = r->start[n];
    r->behaviour = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
    r->old_logp = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
    r->ref_logp = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
    r->value = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
    r->advantage = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
    r->target = (orl_real *)orli_alloc_zero(ctx, r->tokens, sizeof(orl_real));
}

static void golden_reals(const golden *g, const char *a, const char *b, orl_real *out, size_t n) {
    size_t count, i;
    const double *x = golden_find(g, a, b, NULL, &count);
    check(count == n);
    for (i = 0; i < n && i < count; i++) out[i] = (orl_real)x[i];
}

/* x·scale, n numbers of it, against the list at a/b. */
static void near_scaled(const golden *g, const orl_real *x, double scale, size_t n, const char *a,
                        const char *b) {
    double *copy = (double *)malloc((n + 1) * sizeof *copy);
    size_t i, count;
    const double *theirs = golden_find(g, a, b, NULL, &count);
    check(x && count == n);
    for (i = 0; x && i < n; i++) copy[i] = scale * (double)x[i];
    if (x && count == n) near_list(copy, theirs, n, TOLERANCE, b, a);
    free(copy);
}

/* The two losses and their gradients with respect to new log-probabilities and values. */
static void ppo_losses(const golden *g, const char *gamma, const orli_rollouts *r,
                       const orl_ppo_options *o) {
    orl_tape *tape = orl_tape_create(ctx);
    size_t n = r->tokens, t, outside = 0;
    orl_real x[64];
    orl_tensor *logp, *value, *loss, *ratio = NULL;
    golden_reals(g, "new_logp", NULL, x, n);
    logp = orl_variable(tape, x, n, 1);
    loss = orli_loss_ppo(tape, logp, orl_constant(tape, r->old_logp, n, 1),
                         orl_constant(tape, r->advantage, n, 1), o->clip_low, o->clip_high, &ratio);
    orl_backward(tape, loss);
    near_scaled(g, orl_data(loss), 1.0 / (double)n, 1, gamma, "policy_loss");
    near_scaled(g, orl_grad(logp), 1.0 / (double)n, n, gamma, "policy_grad");
    for (t = 0; t < n && ratio; t++)
        outside += (double)orl_data(ratio)[t] < 1 - o->clip_low ||
                   (double)orl_data(ratio)[t] > 1 + o->clip_high;
    check_near((double)outside / (double)n, golden_value(g, gamma, "clip_outside", NULL), 1e-12);
    golden_reals(g, "new_values", NULL, x, n);
    value = orl_variable(tape, x, n, 1);
    loss = orli_loss_value(tape, value, orl_constant(tape, r->value, n, 1),
                           orl_constant(tape, r->target, n, 1), o->value_clip);
    orl_backward(tape, loss);
    near_scaled(g, orl_data(loss), 1.0 / (double)n, 1, gamma, "value_loss");
    near_scaled(g, orl_grad(value), 1.0 / (double)n, n, gamma, "value_grad");
    orl_tape_free(tape);
}

/* A ratio of e^29 counts as e^20, and moves nothing. */
static void ppo_extreme(const golden *g) {
    orl_tape *tape = orl_tape_create(ctx);
    orl_real x[3];
    orl_tensor *logp, *loss, *ratio;
    golden_reals(g, "extreme", "new_logp", x, 1);
    golden_reals(g, "extreme", "old_logp", x + 1, 1);
    golden_reals(g, "extreme", "advantage", x + 2, 1);
    logp = orl_variable(tape, x, 1, 1);
    loss = orli_loss_ppo(tape, logp, orl_constant(tape, x + 1, 1, 1),
                         orl_constant(tape, x + 2, 1, 1), 0.2, 0.2, &ratio);
    orl_backward(tape, loss);
    near_scaled(g, orl_data(loss), 1, 1, "extreme", "policy_loss");
    near_scaled(g, orl_grad(logp), 1, 1, "extreme", "policy_grad");
    orl_tape_free(tape);
}

/* From given numbers: rewards, advantages, returns, whitening, KL estimators, losses, gradients. */
static void test_ppo_numbers(const golden *g) {
    static const char *const gamma[2] = {"gamma_1", "gamma_097"};
    orl_ppo_options o = orl_ppo_default();
    orli_ppo p;
    orli_ppo_stats stats;
    size_t sequences, i, k;
    const double *length = golden_find(g, "lengths", NULL, NULL, &sequences);
    memset(&p, 0, sizeof p);
    p.ctx = ctx, p.o = &o, p.kl = golden_value(g, "kl", NULL, NULL);
    o.clip_low = o.clip_high = golden_value(g, "clip", NULL, NULL);
    o.value_clip = golden_value(g, "value_clip", NULL, NULL);
    o.lambda = golden_value(g, "lambda", NULL, NULL);
    o.reward_clip = golden_value(g, "score_clip", NULL, NULL);
    rollouts_create(&p.roll, sequences, length, golden_find(g, "score", NULL, NULL, NULL));
    p.roll.examples.count = sequences;
    golden_reals(g, "old_logp", NULL, p.roll.old_logp, p.roll.tokens);
    golden_reals(g, "ref_logp", NULL, p.roll.ref_logp, p.roll.tokens);
    golden_reals(g, "values", NULL, p.roll.value, p.roll.tokens);
    for (k = 0; k < 2; k++) {
        double reward[64];
        o.gamma = golden_value(g, gamma[k], "gamma", NULL);
        for (i = 0; i < sequences; i++) orli_ppo_rewards(&p, i, reward + p.roll.start[i]);
        near_list(reward, golden_find(g, gamma[k], "rewards", NULL, NULL), p.roll.tokens, TOLERANCE,
                  "rewards of tokens", gamma[k]);
        memset(&stats, 0, sizeof stats);
        o.whiten = 0;
        check(orli_ppo_advantages(&p, &stats) == ORL_OK);
        near_scaled(g, p.roll.advantage, 1, p.roll.tokens, gamma[k], "advantages");
        near_scaled(g, p.roll.target, 1, p.roll.tokens, gamma[k], "returns");
        check_near(stats.k1, golden_value(g, "k1", NULL, NULL), TOLERANCE);
        check_near(stats.k3, golden_value(g, "k3", NULL, NULL), TOLERANCE);
        o.whiten = 1;
        check(orli_ppo_advantages(&p, &stats) == ORL_OK);
        near_scaled(g, p.roll.advantage, 1, p.roll.tokens, gamma[k], "whitened");
        ppo_losses(g, gamma[k], &p.roll, &o);
    }
    ppo_extreme(g);
    orli_rollouts_free(ctx, &p.roll);
}

/* Four steps of policy and critic on fixed rollouts, sft.jsonl's rows. */
static void ppo_steps(const golden *g, orli_ppo *p) {
    orli_rollouts *r = &p->roll;
    double policy_loss[4], value_loss[4], norm[4], critic_norm[4], clipped[4];
    size_t chosen[8], i, n = r->examples.count;
    orli_ppo_stats stats;
    for (i = 0; i < n; i++) chosen[i] = i;
    memset(&stats, 0, sizeof stats);
    check(orli_ppo_measure(p) == ORL_OK);
    near_list(r->score, golden_find(g, "ppo", "score", NULL, NULL), n, TOLERANCE,
              "normalised scores", "ppo");
    near_scaled(g, r->old_logp, 1, r->tokens, "ppo", "old_logp");
    near_scaled(g, r->ref_logp, 1, r->tokens, "ppo", "old_logp");
    near_scaled(g, r->value, 1, r->tokens, "ppo", "old_values");
    check(orli_ppo_advantages(p, &stats) == ORL_OK);
    near_scaled(g, r->target, 1, r->tokens, "ppo", "returns");
    near_scaled(g, r->advantage, 1, r->tokens, "ppo", "whitened");
    check_near(stats.kl, 0, 0);
    for (i = 0; i < 4 && !orl_failed(ctx); i++) {
        memset(&stats, 0, sizeof stats);
        check(orli_ppo_step(p, 0, chosen, n, &stats, i == 0) == ORL_OK);
        policy_loss[i] = stats.policy_loss / (double)r->tokens;
        value_loss[i] = stats.value_loss / (double)r->tokens;
        norm[i] = stats.norm, critic_norm[i] = stats.critic_norm;
        clipped[i] = stats.clipped / (double)r->tokens;
    }
    if (orl_failed(ctx)) return;
    near_list(policy_loss, golden_find(g, "ppo", "policy_loss", NULL, NULL), 4, TOLERANCE,
              "policy losses", "ppo");
    near_list(value_loss, golden_find(g, "ppo", "value_loss", NULL, NULL), 4, TOLERANCE,
              "value losses", "ppo");
    near_list(norm, golden_find(g, "ppo", "policy_grad_norm", NULL, NULL), 4, TOLERANCE,
              "policy gradient norms", "ppo");
    near_list(critic_norm, golden_find(g, "ppo", "critic_grad_norm", NULL, NULL), 4, TOLERANCE,
              "critic gradient norms", "ppo");
    near_list(clipped, golden_find(g, "ppo", "clip_outside", NULL, NULL), 4, 1e-12,
              "clip fractions", "ppo");
    near_tensors(g, "ppo/policy_params", p->policy, 0, "policy after four steps");
    near_tensors(g, "ppo/critic_params", p->critic, 0, "critic after four steps");
}

static void test_ppo(const golden *g, const char *arch, const char *reward_model,
                     size_t micro_tokens) {
    orl_dataset *rows = orl_dataset_load(ctx, golden_path("sft.jsonl"));
    orl_ppo_options o = orl_ppo_default();
    double length[8];
    orli_ppo p;
    size_t i;
    memset(&p, 0, sizeof p);
    p.ctx = ctx, p.o = &o;
    p.policy = orl_model_load(ctx, golden_path(arch)), p.reference = orl_model_copy(p.policy);
    p.rm = orl_model_load(ctx, golden_path(reward_model));
    if (p.rm) p.rm->reward_mean = golden_value(g, "ppo", "mean", NULL);
    if (p.rm) p.rm->reward_sd = golden_value(g, "ppo", "sd", NULL);
    p.critic = orli_ppo_make_critic(p.policy, p.rm);
    p.kl = o.kl = golden_value(g, "ppo", "kl", NULL);
    o.lr = golden_value(g, "ppo", "lr", NULL);
    o.critic_lr = golden_value(g, "ppo", "critic_lr", NULL);
    o.weight_decay = 0.1, o.micro_tokens = micro_tokens, o.schedule = ORL_CONSTANT, o.warmup = 0;
    p.tape = orl_tape_create(ctx);
    orli_micro_create(&p.micro, ctx);
    check(orl_dataset_count(rows) == 8);
    for (i = 0; i < orl_dataset_count(rows) && i < 8; i++)
        length[i] = (double)orl_dataset_row(rows, i)->response.tokens;
    if (!orl_failed(ctx)) orli_adam_create(&p.actor_adam, p.policy->params);
    if (!orl_failed(ctx)) orli_adam_create(&p.critic_adam, p.critic->params);
    if (!orl_failed(ctx)) {
        rollouts_create(&p.roll, 8, length, NULL);
        orli_examples_build(&p.roll.examples, p.policy, rows, 1);
        ppo_steps(g, &p);
    }
    orli_rollouts_free(ctx, &p.roll);
    orli_adam_free(&p.actor_adam);
    orli_adam_free(&p.critic_adam);
    orli_micro_free(&p.micro);
    orl_tape_free(p.tape);
    orl_dataset_free(rows);
    orl_model_free(p.policy);
    orl_model_free(p.reference);
    orl_model_free(p.critic);
    orl_model_free(p.rm);
}

static void test_family(const golden *data, const char *arch, const char *reward_model) {
    char name[40];
    golden g;
    snprintf(name, sizeof name, "%s.json", arch);
    g = golden_open(name);
    test_forward(&g, arch);
    test_scores(&g, arch, reward_model);
    test_gradient(&g, arch);
    test_offline_methods(&g, arch, 0);
    test_offline_methods(&g, arch, 30); /* many micro-batches: the same step */
    test_pairs(&g, data, arch, reward_model, 0);
    test_pairs(&g, data, arch, reward_model, 60);
    if (strcmp(arch, "llama") == 0) {
        test_ppo(&g, arch, reward_model, 0);
        test_ppo(&g, arch, reward_model, 30);
    }
    golden_close(&g);
}

static void test_all(const char *isa) {
    orl_config config = orl_config_default();
    golden data, optim, ppo;
    config.threads = 2, config.isa = isa;
    ctx = orl_create(&config);
    data = golden_open("data.json"), optim = golden_open("optim.json"),
    ppo = golden_open("ppo.json");
    test_data(&data);
    test_optimizer(&optim);
    test_ppo_numbers(&ppo);
    test_family(&data, "gpt2", "gpt2_rm");
    test_family(&data, "llama", "llama_rm");
    golden_close(&data);
    golden_close(&optim);
    golden_close(&ppo);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
}

int main(void) {
    test_all(NULL);
    if (!ORLI_DOUBLE && !getenv("ORL_ISA")) test_all("scalar");
    return test_report("golden");
}
