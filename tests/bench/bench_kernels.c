/* bench_kernels.c - speed of matrix products beside this processor's peak and beside OpenBLAS.
 *   cc -O2 tests/bench/bench_kernels.c -o bench_kernels -lm -lpthread -ldl && ./bench_kernels [threads] [quick]
 * For each shape of a linear layer: forward X·Wᵀ, the same with W packed before, dX = dY·W, dW = dYᵀ·X.
 * Each figure is the best of several runs, in % of the peak of fused multiply-adds, measured between the runs. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include <dlfcn.h>

static const orli_kernels *kern;

/* ---- what is measured ------------------------------------------------------------------------------------ */

typedef void (*cblas_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
static cblas_fn cblas;

typedef struct layer {
    orl_ctx *ctx;
    size_t m, k, n; /* X (m, k), W (n, k), Y (m, n) */
    orl_real *x, *w, *y, *panels;
} layer;

enum { FORWARD, PACKED, BACK_X, BACK_W, FORMS };
static const char *const form_name[FORMS] = {"fwd", "packed", "dX", "dW"};

static orli_mat mat(const orl_real *data, size_t rs, size_t cs) {
    orli_mat a;
    a.data = data, a.rs = rs, a.cs = cs;
    return a;
}
static void ours(const layer *l, int form) {
    if (form == FORWARD) orli_gemm(l->ctx, l->m, l->n, l->k, mat(l->x, l->k, 1), mat(l->w, 1, l->k), l->y, l->n, 0);
    if (form == PACKED) orli_gemm_packed(l->ctx, l->m, l->n, l->k, mat(l->x, l->k, 1), l->panels, l->y, l->n, 0);
    if (form == BACK_X) orli_gemm(l->ctx, l->m, l->k, l->n, mat(l->y, l->n, 1), mat(l->w, l->k, 1), l->x, l->k, 0);
    if (form == BACK_W) orli_gemm(l->ctx, l->n, l->k, l->m, mat(l->y, 1, l->n), mat(l->x, l->k, 1), l->w, l->k, 0);
}
static void theirs(const layer *l, int form) {
    const int m = (int)l->m, n = (int)l->n, k = (int)l->k;
#if !ORLI_DOUBLE
    if (form <= PACKED) cblas(101, 111, 112, m, n, k, 1, l->x, k, l->w, k, 0, l->y, n);
    if (form == BACK_X) cblas(101, 111, 111, m, k, n, 1, l->y, n, l->w, k, 0, l->x, k);
    if (form == BACK_W) cblas(101, 112, 111, n, k, m, 1, l->y, n, l->x, k, 0, l->w, k);
#else
    (void)m, (void)n, (void)k, (void)form, (void)l;
#endif
}

/* Seconds: of the processor where one thread runs, so that other processes disturb less. */
static int one_thread;
static double now(void) {
    struct timespec t;
    clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of a call, of `calls` in a row. */
static double timed(void (*fn)(const layer *, int), const layer *l, int form, int calls) {
    double start = now();
    int i;
    for (i = 0; i < calls; i++) fn(l, form);
    return (now() - start) / calls;
}

static orl_real *numbers(size_t n) {
    orl_real *p = NULL;
    size_t i;
    if (posix_memalign((void **)&p, (size_t)1 << 21, n * sizeof *p)) exit(1);
#if defined(MADV_HUGEPAGE)
    madvise(p, n * sizeof *p, MADV_HUGEPAGE);
#endif
    for (i = 0; i < n; i++) p[i] = (orl_real)((double)(i * 2654435761u % 1000) / 1000 - 0.5);
    return p;
}

static void json_row(int form, size_t m, size_t k, size_t n, size_t threads, double best, double blas, double peak) {
    char name[80];
    bench_row row;
    memset(&row, 0, sizeof row);
    snprintf(name, sizeof name, "%s %zux%zux%zu", form_name[form], m, k, n);
    row.bench = "gemm", row.name = name, row.isa = kern->name, row.threads = threads, row.unit = "FLOP/s";
    row.ours = best, row.peer = blas, row.ratio = best / blas, row.peak_fraction = best / peak;
    row.peer_name = blas > 0 ? "OpenBLAS" : NULL;
    bench_json(&row);
}

static void bench(orl_ctx *ctx, size_t m, size_t k, size_t n, size_t threads) {
    layer l;
    int form, round;
    l.ctx = ctx;
    l.m = m, l.k = k, l.n = n;
    l.x = numbers(m * k), l.w = numbers(n * k), l.y = numbers(m * n);
    l.panels = numbers(orli_pack_size(ctx, n, k));
    orli_pack(ctx, n, k, mat(l.w, 1, k), l.panels);
    printf("%5zu %5zu %5zu ", m, k, n);
    for (form = 0; form < FORMS; form++) {
        const double flops = 2.0 * (double)m * (double)k * (double)n;
        const int calls = (int)ORLI_MAX(1.0, 1e-3 * 100e9 / flops);
        double best = 1e9, blas = 1e9, peak = 0, begin = orl_seconds();
        for (round = 0; round < 12 && (round < 2 || orl_seconds() - begin < 1.5); round++) { /* fewer on a busy machine */
            double start = now(), done = peak_run(kern->width, 200000);
            peak = ORLI_MAX(peak, done / (now() - start) * (double)threads);
            best = ORLI_MIN(best, timed(ours, &l, form, calls));
            if (cblas) blas = ORLI_MIN(blas, timed(theirs, &l, form, calls));
        }
        printf("| %-6s %6.1f GF %3.0f%%", form_name[form], flops / best * 1e-9, peak > 0 ? 100 * flops / best / peak : 0);
        if (cblas) printf(" (%3.0f%%) ×%.2f ", peak > 0 ? 100 * flops / blas / peak : 0, blas / best);
        json_row(form, m, k, n, threads, flops / best, cblas ? flops / blas : 0, peak);
    }
    printf("\n");
    fflush(stdout);
    free(l.x), free(l.w), free(l.y), free(l.panels);
}

/* Causal attention of one head over m tokens of 3·heads·d numbers, as a model lays them out; FLOPs of the visible half. */
static void bench_attention(size_t m, size_t d) {
    const size_t tiles = (m + 15) / 16, stride = 12 * d;
    const double flops = 4.0 * (double)d * (double)m * (double)(m + 1) / 2;
    orl_real *q = numbers(m * stride), *out = numbers(m * d), *lse = numbers(m), *kv = numbers(4 * tiles * 16 * d), *dq = numbers(m * stride);
    orl_real *tile[4][512], *scratch = numbers(ORLI_SCRATCH / sizeof *scratch);
    const orl_real *k[512], *v[512];
    double forward = 1e9, backward = 1e9, peak = 0;
    size_t t;
    int round, part, i, calls = (int)(1 + 1e8 / flops);
    for (t = 0; t < tiles; t++) {
        for (part = 0; part < 4; part++) tile[part][t] = kv + ((size_t)part * tiles + t) * 16 * d;
        k[t] = tile[0][t], v[t] = tile[1][t];
    }
    for (round = 0; round < 12; round++) {
        double start = now(), done = peak_run(kern->width, 200000);
        peak = ORLI_MAX(peak, done / (now() - start));
        start = now();
        for (i = 0; i < calls; i++) kern->attention(d, m, q, stride, 0, k, v, SIZE_MAX, (orl_real)0.125, out, d, lse, scratch);
        forward = ORLI_MIN(forward, (now() - start) / calls);
        start = now();
        for (i = 0; i < calls; i++)
            kern->attention_backward(d, m, q, stride, 0, k, v, SIZE_MAX, (orl_real)0.125, out, d, out, d, lse, dq, stride, tile[2],
                                     tile[3], scratch);
        backward = ORLI_MIN(backward, (now() - start) / calls);
    }
    printf("attention %5zu tokens, d %3zu: forward %6.1f GF %3.0f%%, backward %6.1f GF %3.0f%%\n", m, d, flops / forward * 1e-9,
           peak > 0 ? 100 * flops / forward / peak : 0, 2.5 * flops / backward * 1e-9, peak > 0 ? 250 * flops / backward / peak : 0);
    free(q), free(out), free(lse), free(kv), free(dq), free(scratch);
}

static void open_blas(size_t threads) {
    char count[16];
    void *library;
    snprintf(count, sizeof count, "%zu", threads);
    setenv("OPENBLAS_CORETYPE", kern->width == 16 ? "SkylakeX" : "Haswell", 1); /* 0.3.21 does not know newer processors */
    setenv("OPENBLAS_NUM_THREADS", count, 1);
    library = dlopen("libopenblas.so.0", RTLD_NOW);
    if (library && !ORLI_DOUBLE) {
        void *symbol = dlsym(library, "cblas_sgemm");
        const char *(*core)(void);
        memcpy(&cblas, &symbol, sizeof cblas);
        symbol = dlsym(library, "openblas_get_corename");
        memcpy(&core, &symbol, sizeof core);
        if (core) printf("OpenBLAS runs its kernels for %s\n", core());
    }
    if (!cblas) printf("OpenBLAS is not there: apt install libopenblas0-pthread\n");
}

int main(int argc, char **argv) {
    static const size_t rows[] = {1, 8, 32, 256, 1024, 2048};
    static const size_t layers[][2] = {{64, 192}, {128, 512}, {256, 768}, {256, 1024}, {1024, 256}, {768, 2304}, {768, 3072}, {3072, 768}};
    const size_t threads = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1;
    const int quick = argc > 2;
    orl_ctx ctx;
    size_t i, j;
    one_thread = threads == 1;
    memset(&ctx, 0, sizeof ctx);
    ctx.kernels = kern = orli_kernels_select(&ctx, getenv("ORL_ISA"));
    if (!kern || orli_pool_create(&ctx, threads) != ORL_OK) {
        fprintf(stderr, "%s\n", orl_error(&ctx));
        return 1;
    }
    open_blas(threads);
    printf("%s, %zu threads. GFLOP/s, %% of peak (OpenBLAS's), × OpenBLAS\n    m     k     n\n", kern->name, threads);
    for (j = 0; j < sizeof layers / sizeof *layers; j += quick ? 2 : 1)
        for (i = 0; i < sizeof rows / sizeof *rows; i += quick ? 2 : 1) bench(&ctx, rows[i], layers[j][0], layers[j][1], threads);
    for (i = 128; i <= 2048; i *= 4) bench_attention(i, 64), bench_attention(i, 128);
    orli_pool_destroy(&ctx);
    return 0;
}
