/* own_loss.c - operators, gradients, and a loss of your own in ten lines.
 *
 * What it teaches: a loss is a function from a micro-batch to one number, written with the operators of
 * section 7; gradients follow by themselves, and the trainer does the rest. First the tape alone: a line
 * is fitted, and a gradient compared with a difference quotient. Then SimPO (Meng et al., arXiv
 * 2405.14734), which the library does not have, beside DPO, which it has, on the same preference pairs.
 * Half a minute of processor time. Smaller steps or a higher beta keep either nearer to SFT (see KL).
 *
 *   cc -O2 examples/own_loss.c -o own_loss -lm -lpthread && ./own_loss
 *
 * It prints (progress goes to stderr; gold is the true reward, which no model sees, 1 at best):
 *
 *     gradient -2.6250, difference quotient -2.6250
 *     y = 2.000 x -1.000
 *
 *     sft    gold -0.172   better than sft: 50.0 %   KL 0.0
 *     simpo  gold  0.166   better than sft: 81.4 %   KL 4.7
 *     dpo    gold  0.190   better than sft: 84.0 %   KL 2.6 */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "world.h"

#define POINTS 8
typedef struct line { orl_params *set; orl_param *slope, *height; } line;

/* mean (slope·x + height − y)² over some points of y = 2x − 1: a (1, 1) tensor */
static orl_tensor *line_loss(orl_tape *tape, const line *l) {
    orl_real x[POINTS], y[POINTS];
    orl_tensor *guess, *error;
    int i;
    for (i = 0; i < POINTS; i++) x[i] = (orl_real)(0.25 * i), y[i] = 2 * x[i] - 1;
    orl_tape_reset(tape); /* forgets the last step's tensors */
    guess = orl_constant(tape, x, POINTS, 1);
    guess = orl_linear(tape, guess, orl_use(tape, l->slope), orl_use(tape, l->height));
    error = orl_sub(tape, guess, orl_constant(tape, y, POINTS, 1));
    return orl_scale(tape, orl_sum(tape, orl_square(tape, error)), 1.0 / POINTS);
}

/* The loss at another slope. (A failed call gives NULL, which every call takes, but no one can read.) */
static double line_loss_at(orl_tape *tape, const line *l, orl_real slope) {
    orl_real before = *orl_param_data(l->slope);
    const orl_real *loss;
    *orl_param_data(l->slope) = slope;
    loss = orl_data(line_loss(tape, l));
    *orl_param_data(l->slope) = before;
    return loss ? (double)*loss : 0;
}

static void fit_a_line(orl_ctx *ctx) {
    const orl_real h = (orl_real)0.01;
    orl_tape *tape = orl_tape_create(ctx);
    line l;
    int step;
    l.set = orl_params_create(ctx);
    l.slope = orl_param_add(l.set, "slope", 1, 1, 2), l.height = orl_param_add(l.set, "height", 1, 1, 1);
    for (step = 0; step < 500; step++) {
        orl_params_zero_grad(l.set); /* gradients add up until they are cleared */
        if (orl_backward(tape, line_loss(tape, &l)) != ORL_OK) return;
        if (step == 0)
            printf("gradient %.4f, difference quotient %.4f\n", (double)*orl_param_grad(l.slope),
                   (line_loss_at(tape, &l, h) - line_loss_at(tape, &l, -h)) / (2 * (double)h));
        *orl_param_data(l.slope) -= (orl_real)0.2 * *orl_param_grad(l.slope);
        *orl_param_data(l.height) -= (orl_real)0.2 * *orl_param_grad(l.height);
        orl_param_changed(l.slope), orl_param_changed(l.height);
    }
    printf("y = %.3f x %+.3f\n\n", (double)*orl_param_data(l.slope), (double)*orl_param_data(l.height));
    orl_tape_free(tape);
}

typedef struct simpo_options { double beta, gamma; } simpo_options;

/* Σ pairs −log σ(β·(mean log π of chosen − mean log π of rejected) − γ); chosen is 2i, rejected 2i + 1 */
static orl_tensor *simpo(orl_tape *tape, const orl_batch *b, void *user) {
    const simpo_options *o = (const simpo_options *)user;
    orl_real *share = (orl_real *)malloc(b->sequences * sizeof *share);
    orl_tensor *mean, *gap;
    size_t s;
    for (s = 0; share && s < b->sequences; s++)
        share[s] = (orl_real)(1.0 / (double)(b->offset[s + 1] - b->offset[s]));
    mean = orl_sum_groups(tape, b->logp, b->offset, b->sequences);
    mean = orl_mul(tape, mean, orl_constant(tape, share, b->sequences, 1));
    free(share); /* the tape has a copy */
    gap = orl_sub(tape, orl_every(tape, mean, 0, 2), orl_every(tape, mean, 1, 2));
    return orl_sum(tape, orl_softplus(tape, orl_shift(tape, orl_scale(tape, gap, -o->beta), o->gamma)));
}

static int progress(void *user, const orl_step_info *s) {
    (void)user;
    if (s->step % 25 == 0) fprintf(stderr, "%s %zu/%zu  loss %.3f\n", s->stage, s->step, s->steps, s->loss);
    return 0;
}
static double gold(const orl_row *r, void *user) { /* what everybody wants; no model sees it */
    world_parts parts;
    (void)user;
    return world_judge(r->prompt.text, r->prompt.bytes, r->response.text, r->response.bytes,
                       (r->flags & ORL_TRUNCATED) != 0, &parts);
}

int main(void) {
    static const char *const specials[] = {"<|endoftext|>", NULL};
    static char text[1 << 19]; /* for the tokenizer to learn from */
    char prompt[WORLD_SIZE], a[WORLD_SIZE] = " ", b[WORLD_SIZE] = " ";
    uint64_t rng = 2;
    size_t used = 0, i;
    orl_ctx *ctx = orl_create(NULL);
    orl_dataset *demos = orl_dataset_create(ctx), *pairs = orl_dataset_create(ctx), *tests = orl_dataset_create(ctx);
    orl_model_config config = orl_model_config_default(ORL_LLAMA);
    orl_train_options train = orl_train_default();
    orl_eval_options eval = orl_eval_default();
    orl_model *models[3];
    orl_result results[3];
    simpo_options o = {2.5, 1};
    int failed;
    fit_a_line(ctx);
    for (i = 0; i < 4000 && !orl_failed(ctx); i++) { /* two answers, and which is preferred */
        world_prompt(&rng, prompt, sizeof prompt);
        world_answer(&rng, prompt, -1, a + 1, sizeof a - 1);
        world_answer(&rng, prompt, -1, b + 1, sizeof b - 1);
        if (world_is_test(prompt)) {
            orl_dataset_add(tests, prompt, NULL);
        } else {
            int a_wins = world_prefers(&rng, world_gold(prompt, a, 0), world_gold(prompt, b, 0));
            orl_dataset_add(demos, prompt, a);
            orl_dataset_add_pair(pairs, prompt, a_wins ? a : b, a_wins ? b : a);
            if (sizeof text - used > 2 * WORLD_SIZE)
                used += (size_t)snprintf(text + used, 2 * WORLD_SIZE, "%s%s\n", prompt, a);
        }
    }
    config.dim = 96, config.layers = 3, config.ffn = 256, config.context = 128;
    models[0] = orl_model_create(ctx, &config, orl_tokenizer_train(ctx, text, used, 512, specials));
    train.batch = 32, train.lr = 3e-3, train.epochs = 4, train.stage = "sft", train.progress = progress;
    orl_train(models[0], demos, &train);
    models[1] = orl_model_copy(models[0]), models[2] = orl_model_copy(models[0]);
    for (i = 0; i < 3; i++) orl_model_set_name(models[i], i == 0 ? "sft" : i == 1 ? "simpo" : "dpo");
    train.batch = 64, train.lr = 1e-4, train.epochs = 1, train.stage = "simpo";
    train.loss = simpo, train.loss_user = &o, train.per_pair = 1; /* bringing one's own: this line */
    orl_train(models[1], pairs, &train);
    train.stage = "dpo";
    orl_train_dpo(models[2], pairs, NULL, 0.3, &train);
    eval.gold = gold, eval.generate.max_tokens = 56;
    orl_evaluate(models, 3, tests, NULL, &eval, results);
    for (i = 0; i < 3 && !orl_failed(ctx); i++)
        printf("%-5s  gold %6.3f   better than sft: %.1f %%   KL %.1f\n", results[i].method, results[i].gold,
               100 * results[i].win_rate, results[i].kl);
    failed = orl_failed(ctx);
    if (failed) fprintf(stderr, "own_loss: %s\n", orl_error(ctx));
    orl_destroy(ctx); /* and all that hangs off it */
    return failed;
}
