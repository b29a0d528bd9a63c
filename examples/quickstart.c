/* quickstart.c - the whole road in one page: from nothing to two aligned models and a table.
 *
 * What it teaches: the order of things. A model learns to answer from demonstrations (SFT); a reward
 * model learns what annotators prefer; the SFT model's samples are labelled by it once; and then an
 * offline method is a view of those samples, given to the same trainer: here the best fifth of them
 * (MLE with filtering), and all of them, told how good each is (decision transformer). The task is the
 * made-up world of world.h, whose true reward (gold: 1 at best) no model sees; it only checks them.
 *
 *   cc -O2 examples/quickstart.c -o quickstart -lm -lpthread && ./quickstart
 *
 * It takes about a minute of processor time, half a minute on two free cores, shows progress and notes on
 * stderr, and prints:
 *
 *     reward model: right about 88.3 % of new pairs (85.0 to 90.9)
 *
 *     method       gold  reward  win %  95 % interval    KL  length  distinct2  cut %  train Mtok  train TFLOP  data TFLOP
 *     sft         0.008    0.01   50.0    45.5 … 54.5  0.00    27.1      0.057    0.0        0.68         1.55           0
 *     mle filter  0.459    1.33   83.0    79.3 … 86.1  1.94    24.5      0.054    0.0       0.132          0.3       0.306
 *     dt bins     0.463    1.32   81.6    77.9 … 84.9  2.34    24.2      0.061    0.0       0.735         1.68       0.306
 *
 * All of prompts that no model was trained on. gold: the true reward; reward: the learned one; win: against
 * SFT, by gold; KL: how far from SFT; train: what the method itself cost, data: sampling and labelling,
 * which both methods share. One machine gives the same numbers every time, on any number of threads. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "world.h"

static void note(void *user, const char *sentence) { (void)user, fprintf(stderr, "note: %s\n", sentence); }

static int progress(void *user, const orl_step_info *s) {
    (void)user;
    if (s->step % 25 == 0 || s->step == s->steps)
        fprintf(stderr, "%s %zu/%zu  loss %.3f\n", s->stage, s->step, s->steps, s->loss);
    return 0; /* anything else would stop the run */
}

static double gold(const orl_row *r, void *user) {
    world_parts parts;
    (void)user;
    return world_judge(r->prompt.text, r->prompt.bytes, r->response.text, r->response.bytes,
                       (r->flags & ORL_TRUNCATED) != 0, &parts);
}

/* People's answers of all qualities, and which of two is preferred. (orl_dataset_load() reads JSONL.) */
static orl_tokenizer *people(orl_ctx *ctx, orl_dataset *demos, orl_dataset *pairs, orl_dataset *tests) {
    static const char *const specials[] = {"<|endoftext|>", NULL};
    static char text[1 << 20]; /* for the tokenizer to learn from */
    char prompt[WORLD_SIZE], a[WORLD_SIZE] = " ", b[WORLD_SIZE] = " "; /* an answer begins with a blank */
    uint64_t rng = 1;
    size_t used = 0, i;
    for (i = 0; i < 5000 && !orl_failed(ctx); i++) {
        int a_wins;
        world_prompt(&rng, prompt, sizeof prompt);
        world_answer(&rng, prompt, -1, a + 1, sizeof a - 1);
        world_answer(&rng, prompt, -1, b + 1, sizeof b - 1);
        a_wins = world_prefers(&rng, world_gold(prompt, a, 0), world_gold(prompt, b, 0));
        if (world_is_test(prompt)) {
            orl_dataset_add(tests, prompt, NULL);
            continue;
        }
        orl_dataset_add(demos, prompt, a);
        orl_dataset_add_pair(pairs, prompt, a_wins ? a : b, a_wins ? b : a);
        if (used + 2 * WORLD_SIZE < sizeof text)
            used += (size_t)snprintf(text + used, 2 * WORLD_SIZE, "%s%s\n", prompt, a);
    }
    return orl_tokenizer_train(ctx, text, used, 512, specials);
}

/* Trains, and fills in what that has cost. */
static void fit(orl_model *m, const char *name, orl_dataset *data, orl_train_options *o, orl_cost *cost) {
    orl_cost before = orl_cost_now(orl_model_ctx(m));
    orl_model_set_name(m, name);
    o->stage = name;
    orl_train(m, data, o);
    *cost = orl_cost_since(orl_model_ctx(m), before);
}

int main(void) {
    orl_ctx *ctx = orl_create(NULL); /* all cores, the best instruction set; owns all that follows */
    orl_dataset *demos = orl_dataset_create(ctx), *pairs = orl_dataset_create(ctx);
    orl_dataset *tests = orl_dataset_create(ctx), *samples, *known = NULL, *unknown = NULL;
    orl_model_config config = orl_model_config_default(ORL_LLAMA);
    orl_train_options train = orl_train_default();
    orl_generate_options sampling = orl_generate_default();
    orl_condition_options bins = orl_condition_default(ORL_CONDITION_BINS);
    orl_eval_options eval = orl_eval_default();
    orl_model *model[3], *rm;
    orl_result result[3];
    orl_accuracy accuracy;
    orl_cost cost[3], data;
    char *table;
    int failed, i;
    orl_on_note(ctx, note, NULL);

    /* SFT: learn to answer as people do. orl_model_load() would read a Hugging Face directory instead. */
    config.dim = 96, config.layers = 3, config.ffn = 256, config.context = 128;
    model[0] = orl_model_create(ctx, &config, people(ctx, demos, pairs, tests));
    train.batch = 32, train.lr = 3e-3, train.epochs = 4, train.progress = progress;
    fit(model[0], "sft", demos, &train, &cost[0]);

    /* The reward model: the same trunk with a scalar head, checked on a tenth of the prompts. */
    rm = orl_reward_model(model[0]);
    orl_dataset_split(pairs, NULL, 0.1, 1, &known, &unknown);
    train.stage = "reward model", train.lr = 1e-3, train.epochs = 1;
    orl_train_reward(rm, known, &train);
    orl_score(rm, unknown);
    orl_pair_accuracy(unknown, &accuracy);

    /* Sample and label, once. */
    data = orl_cost_now(ctx);
    sampling.samples = 8, sampling.max_tokens = 56;
    samples = orl_sample(model[0], orl_dataset_view(demos, 0, 800), &sampling);
    orl_score(rm, samples);
    data = orl_cost_since(ctx, data);

    /* Two methods: two views of the samples, one trainer. */
    model[1] = orl_model_copy(model[0]), model[2] = orl_model_copy(model[0]);
    train.epochs = 3;
    fit(model[1], "mle filter", orl_filter(samples, ORL_ABOVE_QUANTILE, 0.8), &train, &cost[1]);
    fit(model[2], "dt bins", orl_condition(samples, &bins), &train, &cost[2]);

    /* All three on new prompts; a conditioned model is asked for its default target, the 0.99-quantile. */
    eval.gold = gold, eval.generate.max_tokens = 56;
    orl_evaluate(model, 3, tests, rm, &eval, result);
    for (i = 0; i < 3; i++) { /* columns without numbers are left out; seconds depend on the day */
        result[i].train_tokens = (double)cost[i].tokens, result[i].train_flops = cost[i].flops;
        result[i].data_flops = i ? data.flops : 0;
    }
    table = orl_results_table(ctx, result, 3);
    failed = orl_failed(ctx); /* once: the first failure went through to here */
    if (failed) fprintf(stderr, "quickstart: %s\n", orl_error(ctx));
    else printf("reward model: right about %.1f %% of new pairs (%.1f to %.1f)\n\n%s",
                100 * accuracy.accuracy, 100 * accuracy.low, 100 * accuracy.high, table);
    orl_destroy(ctx);
    return failed;
}
