/* bench_prefill.c - reading many prompts before sampling, beside the training engine's forward pass over their tokens.
 *   cc -O2 tests/bench/bench_prefill.c -o bench_prefill -lm -lpthread && ./bench_prefill [threads] [15M] [110M]
 * Models of llama2.c's shapes with random weights. Both work on the same tokens in the same portions, run the head on
 * each prompt's last token alone, and take turns. Prefill is a whole call that samples one token of each prompt: its
 * pages, its tape and its draws are within the time. The forward pass records a tape as for training, which it keeps
 * from one round to the next, so prefill is given back the memory that it left too (where malloc can be told so): what
 * the system takes for fresh pages differs from one to the next, and is no work of either. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define LENGTH 240    /* tokens of a prompt */
#define PORTION 17    /* prompts in a forward pass: 4080 tokens, as many as a step of sampling reads */
#define MOST_ROUNDS 15

typedef struct shape {
    const char *name;
    size_t dim, layers, heads, ffn, vocab, context, prompts;
    int rounds;
} shape;

static const shape shapes[] = {
    {"15M", 288, 6, 6, 768, 32000, 256, 64, 4},
    {"110M", 768, 12, 12, 2048, 32000, 1024, 17, 2},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static orl_model *shape_model(orl_ctx *ctx, const shape *s) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.dim = s->dim, c.layers = s->layers, c.heads = c.kv_heads = s->heads, c.ffn = s->ffn, c.vocab = s->vocab;
    c.context = s->context, c.tied = 1;
    return orl_model_create(ctx, &c, NULL);
}

static void random_ids(int32_t *ids, size_t n) {
    orli_rng r = orli_rng_new(1, 0);
    size_t i;
    for (i = 0; i < n; i++) ids[i] = 3 + (int32_t)(30000 * orli_rng_uniform(&r));
}

static orl_dataset *prompts_of(orl_ctx *ctx, const int32_t *ids, size_t prompts) {
    orli_str s = orli_str_new(ctx);
    orl_dataset *d;
    size_t i, t;
    for (i = 0; i < prompts; i++) {
        for (t = 0; t < LENGTH; t++)
            orli_str_printf(&s, "%s%d", t ? ", " : "{\"prompt_ids\": [", (int)ids[i * LENGTH + t]);
        orli_str_puts(&s, "]}\n");
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "generated");
    orli_str_free(&s);
    return d;
}

static double prefill(orl_model *m, const orl_dataset *d) { /* seconds */
    orl_generate_options o = orl_generate_default();
    double begin = bench_seconds();
    o.max_tokens = 1;
    orl_dataset_free(orl_sample(m, d, &o));
    return bench_seconds() - begin;
}

static double forward(orl_model *m, orl_tape *tape, orl_stream *stream, const int32_t *ids, size_t prompts) {
    double begin = bench_seconds();
    size_t at, i, last[PORTION];
    for (at = 0; at < prompts; at += i) {
        orl_stream_clear(stream);
        orl_tape_reset(tape);
        for (i = 0; i < PORTION && at + i < prompts; i++) {
            orl_stream_add(stream, ids + (at + i) * LENGTH, LENGTH, ORL_ROOT);
            last[i] = (i + 1) * LENGTH - 1;
        }
        orl_linear(tape, orl_gather(tape, orl_hidden(tape, m, stream), last, i), orl_head(tape, m), NULL);
    }
    return bench_seconds() - begin;
}

static void report(orl_ctx *ctx, const shape *s, const double *ours, const double *theirs) {
    const double tokens = (double)(s->prompts * LENGTH);
    double ratio[MOST_ROUNDS];
    bench_row row;
    int i;
    for (i = 0; i < s->rounds; i++) ratio[i] = theirs[i] / ours[i];
    memset(&row, 0, sizeof row);
    row.bench = "prefill", row.name = s->name, row.isa = orl_isa(ctx), row.threads = orl_threads(ctx);
    row.unit = "tokens/s", row.peer_name = "forward pass of training", row.peak_fraction = (double)NAN;
    row.ours = tokens / bench_median(ours, (size_t)s->rounds);
    row.peer = tokens / bench_median(theirs, (size_t)s->rounds);
    row.ratio = bench_median(ratio, (size_t)s->rounds);
    printf("%-5s prefill %7.0f tokens/s, the forward pass of training %7.0f: %.3f of its speed\n", s->name, row.ours,
           row.peer, row.ratio);
    bench_json(&row);
}

static void bench(const orl_config *config, const shape *s) {
    orl_ctx *ctx = orl_create(config);
    orl_model *m = shape_model(ctx, s);
    orl_stream *stream = orl_stream_create(ctx);
    orl_tape *tape = orl_tape_create(ctx);
    int32_t *ids = (int32_t *)malloc(s->prompts * LENGTH * sizeof *ids);
    double ours[MOST_ROUNDS], theirs[MOST_ROUNDS];
    orl_dataset *d;
    int i;
    random_ids(ids, s->prompts * LENGTH);
    d = prompts_of(ctx, ids, s->prompts);
    for (i = -1; i < s->rounds; i++) { /* the first to warm up */
        const int at = ORLI_MAX(i, 0);
        ours[at] = prefill(m, d);
        theirs[at] = forward(m, tape, stream, ids, s->prompts);
    }
    if (orl_failed(ctx)) printf("%s: no figures: %s\n", s->name, orl_error(ctx));
    else report(ctx, s, ours, theirs);
    fflush(stdout);
    free(ids);
    orl_destroy(ctx);
}

int main(int argc, char **argv) {
    orl_config config = orl_config_default();
    size_t i;
    int j, some = 0, chosen[SHAPES] = {0};
    config.threads = 2;
#if defined(__GLIBC__)
    mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1);
#endif
    for (j = 1; j < argc; j++) {
        for (i = 0; i < SHAPES && strcmp(argv[j], shapes[i].name) != 0; i++) {}
        if (i < SHAPES) chosen[i] = some = 1;
        else config.threads = ORLI_MAX(1, (size_t)strtoul(argv[j], NULL, 10));
    }
    printf("prompts of %d tokens read before sampling, beside the forward pass of training over the same\n", LENGTH);
    for (i = 0; i < SHAPES; i++)
        if (!some || chosen[i]) bench(&config, &shapes[i]);
    return 0;
}
