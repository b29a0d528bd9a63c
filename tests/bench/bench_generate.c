/* bench_generate.c - tokens per second of sampling: one sequence, and many side by side.
 *   cc -O2 tests/bench/bench_generate.c -o bench_generate -lm -lpthread && ./bench_generate [threads] [15M] [110M]
 * Models of llama2.c's shapes with random weights. One sequence reads every weight once for each token, so the read
 * bandwidth measured beside it is its limit; many sequences share what is read, and arithmetic is theirs. Where
 * $LLAMA2C names a build of llama2.c's run.c, it decodes the same weights in turns with ours. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"

#define MOST_ROUNDS 9

typedef struct shape {
    const char *name;
    size_t dim, layers, heads, ffn, vocab, context, length; /* length: tokens decoded by one sequence */
    int rounds;
} shape;

static const shape shapes[] = {
    {"15M", 288, 6, 6, 768, 32000, 256, 128, 9},
    {"110M", 768, 12, 12, 2048, 32000, 1024, 64, 5},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static orl_model *shape_model(orl_ctx *ctx, const shape *s) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.dim = s->dim, c.layers = s->layers, c.heads = c.kv_heads = s->heads, c.ffn = s->ffn, c.vocab = s->vocab;
    c.context = s->context, c.tied = 1;
    return orl_model_create(ctx, &c, NULL);
}

static orl_dataset *prompts(orl_ctx *ctx, size_t n, size_t length) { /* of random ids */
    orli_str s = orli_str_new(ctx);
    orli_rng r = orli_rng_new(1, 0);
    orl_dataset *d;
    size_t i, t;
    for (i = 0; i < n; i++) {
        orli_str_puts(&s, "{\"prompt_ids\": [1");
        for (t = 1; t < length; t++) orli_str_printf(&s, ", %d", 3 + (int)(30000 * orli_rng_uniform(&r)));
        orli_str_puts(&s, "]}\n");
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "generated");
    orli_str_free(&s);
    return d;
}

/* Tokens per second of one call. */
static double decode(orl_model *m, const orl_dataset *d, size_t samples, size_t tokens, double temperature) {
    orl_generate_options o = orl_generate_default();
    orl_dataset *out;
    double start = bench_seconds();
    o.samples = samples, o.max_tokens = tokens, o.temperature = temperature, o.batch = getenv("B") ? atoi(getenv("B")) : 256;
    out = orl_sample(m, d, &o);
    start = bench_seconds() - start;
    orl_dataset_free(out);
    return (double)(samples * tokens * orl_dataset_count(d)) / start;
}

int main(int argc, char **argv) {
    orl_config config = orl_config_default();
    size_t i;
    int r;
    config.threads = argc > 1 && atoi(argv[1]) > 0 ? (size_t)atoi(argv[1]) : 2;
    for (i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        orl_ctx *ctx = orl_create(&config);
        orl_model *m = shape_model(ctx, s), *half = shape_model(ctx, s), *int8 = shape_model(ctx, s);
        orl_dataset *one = prompts(ctx, 1, 1), *many = prompts(ctx, 64, 16);
        double single[MOST_ROUNDS], halves[MOST_ROUNDS], batch[MOST_ROUNDS], bytes[MOST_ROUNDS], batch8[MOST_ROUNDS];
        if (argc > 2 && strcmp(argv[2], s->name) != 0) continue;
        orl_model_store_bf16(half), orl_model_store_int8(int8);
        for (r = -1; r < s->rounds; r++) {
            double a = decode(m, one, 1, s->length, 1), b = decode(half, one, 1, s->length, 1);
            double d = decode(int8, one, 1, s->length, 1), e = r >= 0 && r < 3 ? decode(int8, many, 8, 64, 1) : 0;
            double c = r >= 0 && r < 3 ? decode(m, many, 8, 64, 1) : 0;
            if (r < 0) continue;
            single[r] = a, halves[r] = b;
            bytes[r] = d;
            if (r < 3) batch[r] = c, batch8[r] = e;
        }
        if (orl_failed(ctx)) return fprintf(stderr, "%s\n", orl_error(ctx)), 1;
        printf("%s: one %.0f tok/s, bf16 %.0f (%.2f), 64x8 %.0f (%.2f)\n", s->name, bench_median(single, s->rounds),
               bench_median(halves, s->rounds), bench_median(halves, s->rounds) / bench_median(single, s->rounds), bench_median(batch, 3),
               bench_median(batch, 3) / bench_median(single, s->rounds));
        printf("int8 one %.0f (%.2f), 64x8 %.0f (%.2f of fp32)\n", bench_median(bytes, s->rounds), bench_median(bytes, s->rounds) / bench_median(single, s->rounds), bench_median(batch8, 3), bench_median(batch8, 3) / bench_median(batch, 3));
        orl_destroy(ctx);
    }
    return 0;
}
