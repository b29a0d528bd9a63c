/* test_closed_form.c - each method against the distribution it converges to, in closed form.
 * The world: two prompts, four letters, answers of at most three tokens, so 85 answers a prompt and 170
 * in all, every one of which is enumerated. A small model is trained to some uneven π_ref; the data set
 * of the offline methods is every answer once with weight ∝ π_ref, which is the data set of infinitely
 * many samples without their noise. Then, in total variation (½ Σ |p − q|, at most 0.05 per prompt):
 *     MLE with filtering:  π_ref restricted to r̂ > τ
 *     RWR:                 ∝ π_ref · min(e^(r̂/β), C)
 *     DT, bins and text:   π_ref restricted to the answers of that bin, of those digits
 *     PPO:                 ∝ π_ref · e^(R/β_kl)
 * r̂ is normalised over the labelled rows as they are listed, each once; so are mean and sd here. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define PROMPTS 2
#define LETTERS 4
#define MOST 3                        /* tokens of an answer, its end token included */
#define ANSWERS (1 + 4 + 16 + 64)     /* of one prompt: "", a, ab, and those cut at abc */
#define ROWS (PROMPTS * ANSWERS)
#define ALLOWED 0.05

typedef struct answer {
    int32_t id[MOST];
    size_t tokens, letter[LETTERS], prompt;
    int truncated;
} answer;

typedef struct world {
    orl_ctx *ctx;
    orl_tokenizer *tok;               /* NULL: rows of ids are all there is */
    int32_t eos, letter[LETTERS], prompt[PROMPTS][2];
    answer answer[ROWS];
    size_t answers;
    double reward[ROWS], rhat[ROWS];  /* as the library should have them */
    double ref[ROWS];                 /* π_ref(y|x), sums to 1 for each prompt */
    orl_dataset *data;                /* every answer once, scored; weight 1 */
    orl_model *model;                 /* π_ref */
} world;

static int quick;                     /* under sanitizers: the same code, too few steps to converge */

/* ---- the world ---- */

static void add_answers(world *w, size_t prompt, const answer *so_far) {
    size_t i;
    answer a = *so_far;
    if (a.tokens == MOST) { /* cut before it could end */
        a.truncated = 1;
        w->answer[w->answers++] = a;
        return;
    }
    a.id[a.tokens++] = w->eos;
    w->answer[w->answers++] = a;
    for (i = 0; i < LETTERS; i++) {
        a = *so_far;
        a.id[a.tokens++] = w->letter[i];
        a.letter[i]++;
        add_answers(w, prompt, &a);
    }
}

/* Coarse on purpose, so that several answers share a reward; another for each prompt. */
static double reward_of(const int32_t *id, size_t n, const world *w, size_t prompt) {
    static const double worth[PROMPTS][LETTERS] = {{0.8, 0.4, 0.0, -0.6}, {-0.4, 0.0, 0.6, 0.8}};
    double r = 0;
    size_t t, i;
    for (t = 0; t < n; t++)
        for (i = 0; i < LETTERS; i++)
            if (id[t] == w->letter[i]) r += worth[prompt][i];
    return r + (id[n - 1] == w->eos ? 0.4 : 0.0);
}

static double reward_row(const orl_row *row, void *user) {
    const world *w = (const world *)user;
    size_t prompt = row->prompt.ids[0] == w->prompt[1][0];
    return reward_of(row->response.ids, row->response.tokens, w, prompt);
}

static orl_dataset *all_answers(world *w) {
    orli_str s = orli_str_new(w->ctx);
    orl_dataset *d;
    size_t i, t;
    for (i = 0; i < w->answers; i++) {
        const answer *a = &w->answer[i];
        const int32_t *p = w->prompt[a->prompt];
        orli_str_printf(&s, "{\"prompt_ids\": [%d, %d], \"completion_ids\": [", (int)p[0], (int)p[1]);
        for (t = 0; t < a->tokens; t++) orli_str_printf(&s, t ? ", %d" : "%d", (int)a->id[t]);
        orli_str_printf(&s, "]%s}\n", a->truncated ? ", \"truncated\": true" : "");
    }
    d = orl_dataset_parse(w->ctx, s.data, s.length, "answers");
    orli_str_free(&s);
    return d;
}

/* Weights of the rows: p (sums to 1 for each prompt) with mean 1, times factor (NULL: 1). */
static void set_weights(orl_dataset *d, const double *p) {
    size_t i;
    for (i = 0; i < orl_dataset_count(d); i++) orl_dataset_row(d, i)->weight = p[i] * ANSWERS;
}

static orl_train_options recipe(size_t steps, double lr) {
    orl_train_options o = orl_train_default();
    o.steps = quick ? 3 : steps;
    o.batch = ROWS; /* every row in every step: the gradient is exact */
    o.micro_tokens = 8192;
    o.lr = lr, o.min_lr = 0.01, o.warmup = 10;
    o.weight_decay = 0, o.beta2 = 0.99;
    return o;
}

/* Probabilities of all answers, told `condition` (NULL: not told). */
static void probabilities(world *w, orl_model *m, const double *condition, double *p) {
    orl_dataset *d = orl_dataset_view(w->data, 0, ROWS);
    size_t i;
    for (i = 0; condition && i < ROWS; i++) {
        orl_dataset_row(d, i)->condition = *condition;
        orl_dataset_row(d, i)->flags |= ORL_CONDITIONED;
    }
    check(orl_logprob(m, d, NULL, NULL) == ORL_OK);
    for (i = 0; i < ROWS; i++) p[i] = exp(orl_dataset_row(d, i)->logp);
    orl_dataset_free(d);
}

/* Normalises target (≥ 0) within each prompt and holds p to it; p's mass on no answer counts as distance. */
static void hold(const char *what, const double *p, const double *target) {
    size_t prompt, i;
    for (prompt = 0; prompt < PROMPTS; prompt++) {
        double sum = 0, mass = 0, distance = 0;
        for (i = 0; i < ANSWERS; i++) sum += target[prompt * ANSWERS + i], mass += p[prompt * ANSWERS + i];
        for (i = 0; i < ANSWERS; i++) distance += 0.5 * fabs(p[prompt * ANSWERS + i] - target[prompt * ANSWERS + i] / sum);
        distance += 0.5 * fabs(1 - mass);
        check(mass < 1 + 1e-4);
        if (quick) continue;
        printf("%s, prompt %zu: total variation %.4f\n", what, prompt + 1, distance);
        test_check(distance <= ALLOWED, what, __FILE__, __LINE__);
    }
}

static void world_open(world *w, orl_ctx *ctx, orl_tokenizer *tok) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    orl_train_options o = recipe(tok ? 1000 : 400, 5e-3);
    double start[ROWS], mean = 0, square = 0, sum = 0, uniform = 0;
    size_t i, prompt;
    memset(w, 0, sizeof *w);
    w->ctx = ctx, w->tok = tok;
    w->eos = tok ? orl_eos(tok) : 0;
    for (i = 0; i < LETTERS; i++) {
        char letter[2] = {(char)('a' + (int)i), 0};
        w->letter[i] = tok ? orl_token_id(tok, letter) : (int32_t)i + 1;
    }
    for (prompt = 0; prompt < PROMPTS; prompt++) {
        answer empty;
        memset(&empty, 0, sizeof empty);
        empty.prompt = prompt;
        w->prompt[prompt][0] = w->letter[prompt], w->prompt[prompt][1] = w->letter[prompt + 2];
        add_answers(w, prompt, &empty);
    }
    check(w->answers == ROWS);
    c.vocab = tok ? orl_vocab(tok) : LETTERS + 1;
    c.dim = 32, c.layers = 2, c.heads = 2, c.kv_heads = 2, c.ffn = 64, c.context = 40;
    c.tied = 0, c.eos = w->eos;
    w->model = orl_model_create(ctx, &c, tok);
    w->data = all_answers(w);
    for (i = 0; i < ROWS && w->data; i++) { /* some uneven distribution to learn */
        orli_rng r = orli_rng_new(11, i);
        w->reward[i] = reward_of(w->answer[i].id, w->answer[i].tokens, w, w->answer[i].prompt);
        start[i] = exp(0.8 * orli_rng_normal(&r)) * pow(0.5, (double)w->answer[i].tokens);
        mean += w->reward[i] / ROWS;
    }
    for (i = 0; i < ROWS; i++) square += (w->reward[i] - mean) * (w->reward[i] - mean) / ROWS;
    for (i = 0; i < ROWS; i++) w->rhat[i] = (w->reward[i] - mean) / sqrt(square);
    for (prompt = 0; prompt < PROMPTS; prompt++) {
        for (i = 0, sum = 0; i < ANSWERS; i++) sum += start[prompt * ANSWERS + i];
        for (i = 0; i < ANSWERS; i++) start[prompt * ANSWERS + i] /= sum;
    }
    set_weights(w->data, start);
    check(orl_train(w->model, w->data, &o) == ORL_OK);
    for (i = 0; i < ROWS; i++) orl_dataset_row(w->data, i)->weight = 1;
    check(orl_score_with(w->data, reward_row, w) == ORL_OK);
    check(orl_normalise(w->data) == ORL_OK);
    for (i = 0; i < ROWS; i++) check_near(orl_dataset_row(w->data, i)->reward, w->rhat[i], 1e-12);
    probabilities(w, w->model, NULL, w->ref);
    hold("SFT reproduces its data", w->ref, start);
    for (prompt = 0; prompt < PROMPTS; prompt++) { /* the enumeration is complete, and π_ref is not uniform */
        for (i = 0, sum = uniform = 0; i < ANSWERS; i++) {
            sum += w->ref[prompt * ANSWERS + i];
            uniform += 0.5 * fabs(w->ref[prompt * ANSWERS + i] - 1.0 / ANSWERS);
        }
        if (!quick) check_near(sum, 1, tok ? 2e-2 : 1e-5);
        if (!quick) check(uniform > 0.2);
        for (i = 0; i < ANSWERS; i++) w->ref[prompt * ANSWERS + i] /= sum; /* what other tokens got of it is left out */
    }
}

static void world_close(world *w) {
    orl_dataset_free(w->data);
    orl_model_free(w->model);
}

/* ---- the offline methods ---- */

/* Every answer once, weighed by π_ref: what infinitely many samples of π_ref would be. */
static orl_dataset *reference_data(world *w) {
    orl_dataset *d = orl_dataset_view(w->data, 0, ROWS);
    set_weights(d, w->ref);
    return d;
}

static void test_mle(world *w, double tau) {
    orl_dataset *d = reference_data(w), *kept = orl_filter(d, ORL_ABOVE, tau); /* rescales the weights of what is left to mean 1 */
    orl_model *m = orl_model_copy(w->model);
    orl_train_options o = recipe(300, 5e-3);
    double p[ROWS], target[ROWS];
    size_t i, stay = 0;
    char what[80];
    for (i = 0; i < ROWS; i++) target[i] = w->rhat[i] > tau ? w->ref[i] : 0, stay += w->rhat[i] > tau;
    check(stay == orl_dataset_count(kept) && stay > 0 && stay < ROWS);
    o.batch = stay;
    check(orl_train(m, kept, &o) == ORL_OK);
    probabilities(w, m, NULL, p);
    snprintf(what, sizeof what, "MLE above %g (%zu answers)", tau, stay);
    hold(what, p, target);
    orl_model_free(m);
    orl_dataset_free(kept);
    orl_dataset_free(d);
}

static void test_rwr(world *w, double beta, double clip) {
    orl_dataset *d = orl_weight(w->data, beta, ORL_BASELINE_MEAN, clip);
    orl_model *m = orl_model_copy(w->model);
    orl_train_options o = recipe(300, 5e-3);
    double p[ROWS], target[ROWS];
    size_t i;
    char what[80];
    for (i = 0; i < ROWS; i++) {
        target[i] = w->ref[i] * fmin(exp(w->rhat[i] / beta), clip);
        orl_dataset_row(d, i)->weight *= w->ref[i] * ANSWERS; /* as often as π_ref says it, times the pull orl_weight gave it */
    }
    check(orl_train(m, d, &o) == ORL_OK);
    probabilities(w, m, NULL, p);
    snprintf(what, sizeof what, "RWR, beta %g, clip %g", beta, clip);
    hold(what, p, target);
    orl_model_free(m);
    orl_dataset_free(d);
}

/* Does the library say the same of both rewards? */
static int same_condition(const orli_condition *o, double one, double other) {
    char a[32], b[32];
    if (o->kind == ORL_CONDITION_BINS) return orli_condition_bin(o, one) == orli_condition_bin(o, other);
    snprintf(a, sizeof a, "%.*f", o->decimals, one), snprintf(b, sizeof b, "%.*f", o->decimals, other);
    if (strcmp(a, "-0.0") == 0) snprintf(a, sizeof a, "0.0");
    if (strcmp(b, "-0.0") == 0) snprintf(b, sizeof b, "0.0");
    return strcmp(a, b) == 0;
}

/* With dropout, which rows are shown without their reward changes from step to step: `copies` of the data
 * make up a batch, so that this noise stays small. What is told to nobody must then stay π_ref. */
static void test_dt(world *w, orl_condition_kind kind, double dropout, size_t copies, size_t steps) {
    orl_condition_options c = orl_condition_default(kind);
    orl_dataset *d, *base;
    orl_model *m = orl_model_copy(w->model);
    orl_train_options o = recipe(steps, 5e-3);
    double p[ROWS], target[ROWS], told[ROWS]; /* told: as the rows have it, to the last bit: bins may begin at one of them */
    size_t i, k, held = 0;
    char what[80];
    c.bins = 12, c.dropout = dropout;
    o.batch = copies * ROWS;
    if (dropout > 0) o.lr = 2e-3, o.beta2 = 0.999;
    base = reference_data(w);
    d = orl_condition(base, &c);
    for (i = 0; i < ROWS; i++) told[i] = orl_dataset_row(d, i)->condition;
    check(orl_train(m, d, &o) == ORL_OK);
    for (k = 0; k < ROWS; k++) { /* every condition once, by its first answer, if both prompts have 2 % of their mass there */
        double mass[PROMPTS] = {0, 0};
        int seen = 0;
        for (i = 0; i < k; i++) seen |= same_condition(&m->condition, told[i], told[k]);
        for (i = 0; i < ROWS; i++) {
            target[i] = same_condition(&m->condition, told[i], told[k]) ? w->ref[i] : 0;
            mass[w->answer[i].prompt] += target[i];
        }
        if (seen || mass[0] < 0.02 || mass[1] < 0.02) continue;
        probabilities(w, m, &told[k], p);
        snprintf(what, sizeof what, "DT by %s, told %.1f (%.0f %% of answers)", kind == ORL_CONDITION_BINS ? "bins" : "text", w->rhat[k], 50 * (mass[0] + mass[1]));
        hold(what, p, target);
        held++;
    }
    check(held >= 4 || quick);
    if (c.dropout > 0) {
        probabilities(w, m, NULL, p);
        hold("DT by bins, not told", p, w->ref);
    }
    orl_model_free(m);
    orl_dataset_free(d);
    orl_dataset_free(base);
}

/* ---- PPO ---- */

static void test_ppo(world *w, double kl) {
    orl_dataset *prompts = orl_dataset_join(w->data, w->data), *two;
    orl_model *m = orl_model_copy(w->model);
    orl_ppo_options o = orl_ppo_default();
    unsigned char keep[2 * ROWS];
    double p[ROWS], target[ROWS];
    size_t i;
    char what[80];
    memset(keep, 0, sizeof keep);
    keep[0] = keep[ANSWERS] = 1; /* one row of each prompt */
    two = orli_dataset_select(prompts, keep);
    o.iterations = quick ? 1 : 160, o.rollouts = quick ? 16 : 512, o.minibatch = quick ? 8 : 128, o.epochs = 2;
    o.lr = 2e-3, o.critic_lr = 6e-3, o.schedule = ORL_COSINE;
    o.kl = kl, o.max_tokens = MOST;
    o.reward = reward_row, o.reward_user = w; /* used as it is, neither normalised nor clipped below 10 */
    check(orl_train_ppo(m, NULL, two, &o) == ORL_OK);
    for (i = 0; i < ROWS; i++) target[i] = w->ref[i] * exp((w->reward[i] - (w->answer[i].truncated ? o.unfinished_penalty : 0)) / kl);
    probabilities(w, m, NULL, p);
    snprintf(what, sizeof what, "PPO, KL coefficient %g", kl);
    hold(what, p, target);
    orl_model_free(m);
    orl_dataset_free(two);
    orl_dataset_free(prompts);
}

static orl_tokenizer *small_tokenizer(orl_ctx *ctx) { /* bytes, and the template's words whole */
    static const char *const specials[] = {"<|endoftext|>", NULL};
    char text[4096];
    int n = 0, i;
    for (i = -30; i < 30; i++) n += snprintf(text + n, sizeof text - (size_t)n, " <rm_score>: %.1f ", 0.1 * i);
    return orl_tokenizer_train(ctx, text, (size_t)n, 280, specials);
}

int main(void) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    orl_tokenizer *tok;
    world *w = (world *)malloc(sizeof *w);
    double begin = orl_seconds();
    quick = getenv("ORL_TEST_QUICK") != NULL;
    config.threads = 1;
    ctx = orl_create(&config);
    world_open(w, ctx, NULL);
    printf("%.1f s\n", orl_seconds() - begin);
    test_mle(w, 0.0);
    test_mle(w, 0.8);
    test_rwr(w, 1.0, 20);
    test_rwr(w, 0.5, 3);
    printf("%.1f s\n", orl_seconds() - begin);
    test_dt(w, ORL_CONDITION_BINS, 0, 1, 500);
    test_dt(w, ORL_CONDITION_BINS, 0.35, 6, 1000);
    printf("%.1f s\n", orl_seconds() - begin);
    test_ppo(w, 1.0);
    test_ppo(w, 0.5);
    printf("%.1f s\n", orl_seconds() - begin);
    world_close(w);
    tok = small_tokenizer(ctx);
    world_open(w, ctx, tok);
    test_dt(w, ORL_CONDITION_TEXT, 0, 1, 900);
    printf("%.1f s\n", orl_seconds() - begin);
    world_close(w);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    free(w);
    return test_report("test_closed_form");
}
