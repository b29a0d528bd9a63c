/* test_14_share.c - prompts computed once for several responses: the same gradient, from fewer tokens.
 * builds: float double */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define PROMPTS 6
#define TOLERANCE (ORLI_DOUBLE ? 1e-12 : 2e-5) /* of the gradient's norm */

static orl_ctx *ctx;

static orl_model *make_model(void) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.vocab = 17, c.dim = 16, c.heads = 4, c.kv_heads = 2, c.layers = 2, c.ffn = 24, c.context = 48, c.eos = 0;
    return orl_model_create(ctx, &c, NULL);
}

/* `each` rows for every prompt: responses of 1 … 6 tokens and the end, or pairs of them; prompts of 1 … 6 tokens.
 * `apart`: rows of a prompt do not follow each other. */
static orl_dataset *make_rows(size_t each, int pairs, int apart) {
    orli_str s = orli_str_new(ctx);
    orl_dataset *d;
    size_t i, t, side;
    for (i = 0; i < PROMPTS * each; i++) {
        const size_t prompt = apart ? i % PROMPTS : i / each;
        orli_str_puts(&s, "{\"prompt_ids\": [");
        for (t = 0; t <= prompt; t++) orli_str_printf(&s, t ? ", %d" : "%d", (int)(1 + (prompt * 5 + t * 3) % 16));
        for (side = 0; side < (pairs ? 2u : 1u); side++) {
            orli_str_printf(&s, "], \"%s\": [", side ? "rejected_ids" : pairs ? "chosen_ids" : "completion_ids");
            for (t = 0; t < (i * 7 + side * 3) % 6; t++)
                orli_str_printf(&s, "%d, ", (int)(1 + (i * 11 + t * 7 + side) % 16));
            orli_str_printf(&s, "%d", (int)(side ? 1 : 0));
        }
        orli_str_printf(&s, "], \"reward\": %.3f}\n", sin((double)i));
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "rows");
    orli_str_free(&s);
    return d;
}

/* ---- the gradient of a step ---- */

typedef struct step_record {
    orl_real *gradient;
    size_t count;
    uint64_t tokens;
    double loss;
} step_record;

static void keep_gradient(void *user, orl_real *g, size_t count, double *divisor) {
    step_record *r = (step_record *)user;
    (void)divisor;
    r->count = count;
    r->gradient = (orl_real *)malloc(count * sizeof *g);
    if (r->gradient) memcpy(r->gradient, g, count * sizeof *g);
}
static int keep_info(void *user, const orl_step_info *info) {
    step_record *r = (step_record *)user;
    r->tokens = info->tokens, r->loss = info->loss;
    return 0;
}

enum { NLL, CONDITIONED, REWARD, DPO, KINDS };

static step_record one_step(int kind, orl_share share, size_t micro_tokens) {
    orl_train_options o = orl_train_default();
    orl_dataset *d = make_rows(4, kind >= REWARD, 0), *view = d;
    orl_model *trunk = make_model(), *m = kind == REWARD ? orl_reward_model(trunk) : trunk;
    step_record r;
    memset(&r, 0, sizeof r);
    o.steps = 1, o.batch = PROMPTS * 4, o.shuffle = 0, o.share = share, o.micro_tokens = micro_tokens;
    o.reduce = keep_gradient, o.reduce_user = &r, o.progress = keep_info, o.user = &r;
    if (kind == CONDITIONED) {
        orl_condition_options c = orl_condition_default(ORL_CONDITION_BINS);
        c.bins = 4, c.dropout = 0.3;
        view = orl_condition(orl_weight(d, 1, ORL_BASELINE_MEAN, 20), &c);
    }
    if (kind == DPO) check(orl_train_dpo(m, view, NULL, 0.1, &o) == ORL_OK);
    else check(orl_train(m, view, &o) == ORL_OK);
    if (m != trunk) orl_model_free(m);
    orl_model_free(trunk);
    orl_dataset_free(d);
    return r;
}

static void compare(int kind, orl_share share, size_t micro_tokens, const step_record *whole) {
    step_record r = one_step(kind, share, micro_tokens);
    double norm = 0, off = 0;
    size_t i;
    check(r.count == whole->count && r.gradient && whole->gradient);
    for (i = 0; i < r.count; i++) {
        const double a = (double)whole->gradient[i], b = (double)r.gradient[i];
        norm += a * a, off += (a - b) * (a - b);
    }
    check(norm > 0);
    check_near(sqrt(off / norm), 0, TOLERANCE);
    check_near(r.loss, whole->loss, TOLERANCE * fabs(whole->loss));
    if (share == ORL_SHARE_PROMPT) check(r.tokens < whole->tokens);
    if (share == ORL_SHARE_PAIR) check(kind >= REWARD ? r.tokens < whole->tokens : r.tokens == whole->tokens);
    free(r.gradient);
}

static void test_gradients(void) {
    static const size_t budgets[] = {4096, 60, 25};
    int kind;
    size_t i;
    for (kind = 0; kind < KINDS; kind++) {
        step_record whole = one_step(kind, ORL_SHARE_NONE, 4096);
        for (i = 0; i < 3; i++) {
            compare(kind, ORL_SHARE_PAIR, budgets[i], &whole);
            compare(kind, ORL_SHARE_PROMPT, budgets[i], &whole);
        }
        free(whole.gradient);
    }
}

/* ---- the order of rows ---- */

typedef struct order_record {
    size_t row[4 * PROMPTS * 4], count;
} order_record;

static orl_tensor *keep_rows(orl_tape *tape, const orl_batch *b, void *user) {
    order_record *r = (order_record *)user;
    size_t s;
    if (!orl_data(b->logp)) return orl_loss_nll(tape, b, NULL); /* a dry run: it measures memory */
    for (s = 0; s < b->sequences && r->count < sizeof r->row / sizeof *r->row; s++) r->row[r->count++] = b->row[s];
    return orl_loss_nll(tape, b, NULL);
}

/* Every row once an epoch, those of a prompt together and in file order, prompts in an order that changes. */
static void test_order(void) {
    orl_train_options o = orl_train_default();
    orl_dataset *d = make_rows(4, 0, 1);
    orl_model *m = make_model();
    order_record r;
    size_t i, epoch, same = 0;
    memset(&r, 0, sizeof r);
    o.epochs = 2, o.batch = 10, o.share = ORL_SHARE_PROMPT, o.loss = keep_rows, o.loss_user = &r;
    check(orl_train(m, d, &o) == ORL_OK);
    r.count = ORLI_MIN(r.count, (size_t)(2 * PROMPTS * 4));
    for (i = 0; i < r.count; i++) check(r.row[i] % PROMPTS == r.row[i / 4 * 4] % PROMPTS && r.row[i] / PROMPTS == i % 4);
    for (epoch = 0; epoch < 2; epoch++) {
        int seen[PROMPTS] = {0};
        for (i = 0; i < PROMPTS; i++) seen[r.row[(epoch * PROMPTS + i) * 4] % PROMPTS]++;
        for (i = 0; i < PROMPTS; i++) check(seen[i] == 1);
    }
    for (i = 0; i < PROMPTS; i++) same += r.row[i * 4] == r.row[(PROMPTS + i) * 4];
    check(same < PROMPTS);
    orl_model_free(m);
    orl_dataset_free(d);
}

int main(void) {
    ctx = orl_create(NULL);
    test_gradients();
    test_order();
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    return test_report("test_14_share");
}
