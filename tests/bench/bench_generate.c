/* bench_generate.c - tokens per second of sampling: one sequence, and many side by side.
 *   cc -O2 tests/bench/bench_generate.c -o bench_generate -lm -lpthread
 *   ./bench_generate [threads] [15M|110M] [whole]      whole: 64 prompts × 8 samples of the larger model too, not half
 * Models of llama2.c's shapes with random weights, as floats, bf16 and int8. One sequence reads every weight once for
 * each token, so what memory gives is its limit; many sequences share what is read, and arithmetic is theirs. Where
 * $LLAMA2C names a build of llama2.c's run.c, it decodes the same weights in turns with ours; else its figures of
 * another day, on two cores of this kind, stand as reference. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"

#define MOST_ROUNDS 9
enum { F32, BF16, INT8, FORMATS };
static const char *const format_name[FORMATS] = {"fp32", "bf16", "int8"};

typedef struct shape {
    const char *name;
    size_t dim, layers, heads, ffn, vocab, context;
    double reference;                  /* llama2.c's tokens/s, gcc -Ofast and OpenMP on two cores */
    size_t length, far;                /* tokens that one sequence decodes; from position `far` on in another row */
    int rounds, far_rounds, many_rounds;
    size_t prompts;                    /* of 8 samples each */
} shape;

static const shape shapes[] = {
    {"15M", 288, 6, 6, 768, 32000, 256, 876, 120, 0, 9, 0, 3, 64},
    {"110M", 768, 12, 12, 2048, 32000, 1024, 66, 100, 900, 4, 2, 2, 32},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, SAMPLES = 8, PROMPT = 16, NEW = 64, FAR_NEW = 48 };

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

typedef struct stopwatch { /* begins at the first token: what comes before is the prompt's */
    double first, last;
    size_t tokens;
} stopwatch;
static int tick(void *user, const orl_spoken *token) {
    stopwatch *w = (stopwatch *)user;
    (void)token;
    w->last = bench_seconds();
    if (!w->tokens++) w->first = w->last;
    return 0;
}

/* Tokens per second of one sequence, after its first. */
static double decode_one(orl_model *m, const orl_dataset *d, size_t tokens) {
    orl_generate_options o = orl_generate_default();
    stopwatch w = {0, 0, 0};
    o.max_tokens = tokens, o.on_token = tick, o.user = &w;
    orl_dataset_free(orl_sample(m, d, &o));
    return (double)(w.tokens - 1) / (w.last - w.first);
}

/* … of many, prompts included. */
static double decode_many(orl_model *m, const orl_dataset *d, int kv_bf16) {
    orl_generate_options o = orl_generate_default();
    double start = bench_seconds();
    o.samples = SAMPLES, o.max_tokens = NEW, o.kv_bf16 = kv_bf16;
    orl_dataset_free(orl_sample(m, d, &o));
    return (double)(SAMPLES * NEW * orl_dataset_count(d)) / (bench_seconds() - start);
}

/* ---- beside it: what memory gives, and llama2.c ---------------------------------------------------------------- */

typedef struct read_job {
    const orl_real *data;
    const orli_kernels *kern;
    size_t n;
    volatile orl_real *sink;
} read_job;
static void read_task(void *arg, size_t task, size_t worker) {
    const read_job *j = (const read_job *)arg;
    (void)worker;
    j->sink[task] = j->kern->sum(j->n, j->data + task * j->n);
}
/* Bytes per second that all threads read of 256 MB. */
static double bench_read(orl_ctx *ctx, const orl_real *data, size_t n) {
    volatile orl_real sink[64];
    const size_t threads = ORLI_MIN(ctx->pool->threads, 64);
    read_job j;
    double start;
    j.data = data, j.kern = ctx->kernels, j.n = n / threads, j.sink = sink;
    start = bench_seconds();
    orli_parallel(ctx, ORLI_WORK_ROWS, threads, read_task, &j);
    return (double)(n * sizeof *data) / (bench_seconds() - start);
}

/* The model as llama2.c's run.c reads it. */
static int write_llama2c(orl_model *m, const shape *s, const char *path) {
    static const orli_weight order[] = {ORLI_W_EMBED, ORLI_W_NORM1, ORLI_W_Q, ORLI_W_K, ORLI_W_V, ORLI_W_O,
                                        ORLI_W_NORM2, ORLI_W_GATE, ORLI_W_DOWN, ORLI_W_UP, ORLI_W_NORM};
    const int header[7] = {(int)s->dim, (int)s->ffn, (int)s->layers, (int)s->heads, (int)s->heads, (int)s->vocab,
                           (int)s->context};
    FILE *f = fopen(path, "wb");
    size_t i, layer;
    if (!f) return 0;
    fwrite(header, sizeof header, 1, f);
    for (i = 0; i < sizeof order / sizeof *order; i++)
        for (layer = 0; layer < ((int)order[i] < ORLI_W_FIRST_OF_LAYER ? 1 : s->layers); layer++) {
            const orl_param *p = orli_model_weight(m, order[i], layer);
            fwrite(p->data, sizeof *p->data, p->rows * p->cols, f);
        }
    for (i = 0; i < s->context * s->dim / s->heads; i++) fwrite("\0\0\0", 4, 1, f); /* tables it does not read */
    return fclose(f) == 0;
}
/* Its tokens per second, as it says; NaN if there is none. */
static double llama2c(const char *model, size_t tokens) {
    const char *program = getenv("LLAMA2C"), *tokenizer = getenv("LLAMA2C_TOKENIZER");
    char line[1024];
    double speed = (double)NAN;
    FILE *f;
    if (!program) return speed;
    snprintf(line, sizeof line, "OMP_NUM_THREADS=2 '%s' '%s' -t 1 -p 1 -n %zu -z '%s' 2>&1 >/dev/null", program,
             model, tokens, tokenizer ? tokenizer : "tokenizer.bin"); /* -p 1: it would sort the vocabulary */
    if (!(f = popen(line, "r"))) return speed;
    while (fgets(line, sizeof line, f)) sscanf(line, "achieved tok/s: %lf", &speed);
    pclose(f);
    return speed;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static void row(const shape *s, const char *what, const char *isa, size_t threads, const double *ours,
                const double *peer, int n, const char *peer_name, double limit) {
    double ratio[MOST_ROUNDS];
    bench_row r;
    char name[64];
    int i;
    memset(&r, 0, sizeof r);
    snprintf(name, sizeof name, "%s %s", s->name, what);
    for (i = 0; i < n; i++) ratio[i] = ours[i] / peer[i];
    r.bench = "generate", r.name = name, r.isa = isa, r.threads = threads, r.unit = "tokens/s", r.peer_name = peer_name;
    r.ours = bench_median(ours, (size_t)n), r.peer = bench_median(peer, (size_t)n);
    r.ratio = bench_median(ratio, (size_t)n), r.peak_fraction = r.ours / limit;
    printf("%-28s %9.0f %9.0f %7.2f  %-24s", name, r.ours, r.peer, r.ratio, peer_name);
    printf(limit - limit == 0 ? " %5.0f %%\n" : "\n", 100 * r.peak_fraction);
    fflush(stdout);
    bench_json(&r);
}

static int bench_shape(const shape *s, size_t threads, int whole) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    orl_model *m[FORMATS];
    orl_dataset *one, *far_one, *many;
    double near[FORMATS][MOST_ROUNDS], far[FORMATS][MOST_ROUNDS], batch[3][MOST_ROUNDS], peer[MOST_ROUNDS];
    double read[MOST_ROUNDS], fma[MOST_ROUNDS], bytes[FORMATS], bandwidth, peak;
    const char *path = "build/llama2c.bin", *peer_name = getenv("LLAMA2C") ? "llama2.c" : "llama2.c, another day";
    const size_t n = (size_t)64 << 20; /* floats, to read */
    orl_real *block = (orl_real *)malloc(n * sizeof *block);
    char name[64];
    int r, f;
    if (!block) return 1;
    memset(block, 1, n * sizeof *block); /* or its pages would all be the one of zeros */
    config.threads = threads;
    ctx = orl_create(&config);
    m[F32] = shape_model(ctx, s), m[BF16] = orl_model_copy(m[F32]), m[INT8] = orl_model_copy(m[F32]);
    if (getenv("LLAMA2C") && !write_llama2c(m[F32], s, path))
        return fprintf(stderr, "%s: cannot be written\n", path), 1;
    orl_model_store_bf16(m[BF16]), orl_model_store_int8(m[INT8]);
    one = prompts(ctx, 1, 1), many = prompts(ctx, whole ? 64 : s->prompts, PROMPT);
    far_one = prompts(ctx, 1, s->far ? s->far : 1);
    for (f = 0; f < FORMATS; f++) bytes[f] = (double)orli_model_bytes(m[f]);
    for (r = -1; r < s->rounds; r++) { /* round −1 warms up */
        const int at = ORLI_MAX(r, 0);
        for (f = 0; f < FORMATS; f++) near[f][at] = decode_one(m[f], one, r < 0 ? 8 : s->length);
        peer[at] = getenv("LLAMA2C") ? llama2c(path, s->length) : s->reference;
        read[at] = bench_read(ctx, block, n);
        for (f = 0; f < FORMATS && r < s->far_rounds; f++) far[f][at] = decode_one(m[f], far_one, r < 0 ? 2 : FAR_NEW);
    }
    for (r = 0; r < s->many_rounds; r++) {
        batch[0][r] = decode_many(m[F32], many, 0);
        batch[1][r] = decode_many(m[INT8], many, 0);
        batch[2][r] = decode_many(m[INT8], many, 1);
        fma[r] = bench_peak(bench_width(orl_isa(ctx)), threads);
    }
    bandwidth = bench_median(read, (size_t)s->rounds); /* and tokens/s at the peak of fused multiply-adds: */
    peak = bench_median(fma, (size_t)s->many_rounds) / (2 * (double)orl_params_count(orl_model_params(m[F32])));
    for (f = 0; f < FORMATS; f++) {
        snprintf(name, sizeof name, "one %s", format_name[f]);
        row(s, name, orl_isa(ctx), threads, near[f], peer, s->rounds, peer_name, bandwidth / bytes[f]);
    }
    for (f = 0; f < FORMATS && s->far_rounds; f++) {
        snprintf(name, sizeof name, "one %s from %zu on", format_name[f], s->far);
        row(s, name, orl_isa(ctx), threads, far[f], far[F32], s->far_rounds, "our fp32 there", bandwidth / bytes[f]);
    }
    snprintf(name, sizeof name, "%zu x %d fp32", orl_dataset_count(many), SAMPLES);
    row(s, name, orl_isa(ctx), threads, batch[0], near[F32], s->many_rounds, "our one fp32", peak);
    row(s, name, orl_isa(ctx), threads, batch[0], peer, s->many_rounds, peer_name, peak);
    snprintf(name, sizeof name, "%zu x %d int8", orl_dataset_count(many), SAMPLES);
    row(s, name, orl_isa(ctx), threads, batch[1], batch[0], s->many_rounds, "our fp32", (double)NAN);
    snprintf(name, sizeof name, "%zu x %d int8, kv bf16", orl_dataset_count(many), SAMPLES);
    row(s, name, orl_isa(ctx), threads, batch[2], batch[0], s->many_rounds, "our fp32", (double)NAN);
    if (orl_failed(ctx)) fprintf(stderr, "%s\n", orl_error(ctx));
    r = orl_failed(ctx);
    orl_destroy(ctx);
    free(block);
    if (getenv("LLAMA2C")) remove(path);
    return r;
}

int main(int argc, char **argv) {
    const size_t threads = argc > 1 && atoi(argv[1]) > 0 ? (size_t)atoi(argv[1]) : 2;
    int a, whole = 0, failed = 0;
    size_t i;
    printf("sampling, %zu threads, medians; the limit: reading all weights for a token, or for many the peak of FMAs\n",
           threads);
    printf("%-28s %9s %9s %7s  %-24s %7s\n", "case", "tokens/s", "peer", "ratio", "peer", "limit");
    for (a = 2; a < argc; a++) whole |= strcmp(argv[a], "whole") == 0;
    for (i = 0; i < SHAPES; i++) {
        int asked = argc <= 2 + whole;
        for (a = 2; a < argc; a++) asked |= strcmp(argv[a], shapes[i].name) == 0;
        if (asked) failed |= bench_shape(&shapes[i], threads, whole);
    }
    return failed;
}
