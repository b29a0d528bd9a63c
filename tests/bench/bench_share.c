/* bench_share.c - training steps with prompts computed once beside the same steps with prompts repeated.
 *   cc -O2 tests/bench/bench_share.c -o bench_share -lm -lpthread && ./bench_share [threads] [PAIRS.jsonl …]
 * Both see the same rows in the same order and work out the same gradient; the gain that can be had is the ratio of
 * the tokens fed. PAIRS: files of {"chosen", "rejected"} transcripts, for a reward model on real text; a tokenizer is
 * learned from them. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"

#define STEPS 4
#define ROUNDS 2

typedef struct timing {
    double seconds[STEPS * ROUNDS], tokens;
    int n;
} timing;

static int record(void *user, const orl_step_info *info) {
    timing *t = (timing *)user;
    t->seconds[t->n++] = info->seconds;
    t->tokens += (double)info->tokens;
    return 0;
}

/* Rows of random ids: `each` responses, or pairs of them, for every prompt. */
static orl_dataset *generated(orl_ctx *ctx, size_t prompts, size_t each, int pairs, size_t prompt, size_t response) {
    orli_str s = orli_str_new(ctx);
    orli_rng r = orli_rng_new(1, 0);
    orl_dataset *d;
    size_t i, j, t, side;
    for (i = 0; i < prompts; i++)
        for (j = 0; j < each; j++) {
            orli_rng same = orli_rng_new(2, i);
            orli_str_puts(&s, "{\"prompt_ids\": [1");
            for (t = 1; t < prompt; t++) orli_str_printf(&s, ", %d", 1 + (int)(4000 * orli_rng_uniform(&same)));
            for (side = 0; side < (pairs ? 2u : 1u); side++) {
                orli_str_printf(&s, "], \"%s\": [1", side ? "rejected_ids" : pairs ? "chosen_ids" : "completion_ids");
                for (t = 1; t < response; t++) orli_str_printf(&s, ", %d", 1 + (int)(4000 * orli_rng_uniform(&r)));
            }
            orli_str_puts(&s, "]}\n");
        }
    d = orl_dataset_parse(ctx, s.data, s.length, "generated");
    orli_str_free(&s);
    return d;
}

static void bench(orl_ctx *ctx, const char *name, orl_dataset *d, orl_tokenizer *tok, int reward, orl_share share) {
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_train_options o = orl_train_default();
    orl_model *trunk, *m;
    timing once, repeated;
    bench_row row;
    int i;
    memset(&once, 0, sizeof once), memset(&repeated, 0, sizeof repeated);
    mc.layers = 6, mc.dim = 256, mc.heads = mc.kv_heads = 8, mc.ffn = 688, mc.vocab = 4096, mc.context = 1024;
    trunk = orl_model_create(ctx, &mc, tok);
    m = reward ? orl_reward_model(trunk) : trunk;
    o.steps = STEPS, o.batch = 64, o.shuffle = 0, o.lr = 1e-4, o.progress = record;
    for (i = 0; i < ROUNDS; i++) {
        o.share = share, o.user = &once;
        orl_train(m, d, &o);
        o.share = ORL_SHARE_NONE, o.user = &repeated;
        orl_train(m, d, &o);
    }
    if (orl_failed(ctx)) {
        printf("%s: %s\n", name, orl_error(ctx));
        return;
    }
    memset(&row, 0, sizeof row);
    row.bench = "shared prompts", row.name = name, row.isa = orl_isa(ctx), row.threads = orl_threads(ctx);
    row.unit = "s", row.peer_name = "prompts repeated", row.peak_fraction = (double)NAN;
    row.ours = bench_median(once.seconds, (size_t)once.n), row.peer = bench_median(repeated.seconds, (size_t)repeated.n);
    row.ratio = row.peer / row.ours;
    printf("%-40s tokens ÷ %.2f, time ÷ %.2f: %3.0f %% of what can be had\n", name, repeated.tokens / once.tokens,
           row.ratio, 100 * row.ratio / (repeated.tokens / once.tokens));
    bench_json(&row);
    fflush(stdout);
    if (m != trunk) orl_model_free(m);
    orl_model_free(trunk);
}

int main(int argc, char **argv) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    int i;
    config.threads = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 0;
    ctx = orl_create(&config);
    printf("a training step of 64 rows, 6 layers of 256; prompts computed once beside prompts repeated\n");
    bench(ctx, "reward model, prompt 128, responses 64", generated(ctx, 256, 1, 1, 128, 64), NULL, 1, ORL_SHARE_PAIR);
    bench(ctx, "8 samples, prompt as long as they", generated(ctx, 32, 8, 0, 64, 64), NULL, 0, ORL_SHARE_PROMPT);
    bench(ctx, "8 samples, prompt three times as long", generated(ctx, 32, 8, 0, 192, 64), NULL, 0, ORL_SHARE_PROMPT);
    for (i = 2; i < argc; i++) {
        orl_dataset *d = orl_dataset_load(ctx, argv[i]);
        const char *slash = strrchr(argv[i], '/');
        orli_str text = orli_str_new(ctx);
        size_t k;
        for (k = 0; k < orl_dataset_count(d); k++) {
            const orl_row *r = orl_dataset_row(d, k);
            orli_str_add(&text, r->prompt.text, r->prompt.bytes), orli_str_add(&text, r->response.text, r->response.bytes);
        }
        bench(ctx, slash ? slash + 1 : argv[i], d, orl_tokenizer_train(ctx, text.data, text.length, 4096, NULL), 1,
              ORL_SHARE_PAIR);
        orli_str_free(&text);
    }
    orl_destroy(ctx);
    return 0;
}
