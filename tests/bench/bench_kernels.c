/* bench_kernels.c - speed of matrix products beside this processor's peak and beside other libraries.
 *   cc -O2 tests/bench/bench_kernels.c -o bench_kernels -lm -lpthread -ldl
 *   ./bench_kernels [threads] [quick|full] [form=fwd|dX|dW] [m=1024] [shape=768x2304] [gemm|attention]
 * The products of a linear layer with X (m, k), W (n, k), Y (m, n): forward X·Wᵀ, backward dX = dY·W, dW = dYᵀ·X;
 * beside the forward one the same with W packed before. ORL_ISA=avx2 limits ours and the peers to AVX2.
 *
 * A round gives each contender one turn of about 3 ms, at least one call; a row's figure is the median over its
 * rounds, and so is the peak of fused multiply-adds, which takes a turn like the others. The first turn goes to
 * another contender in each round. The table is gone through several times, and a row's rounds are spread over these
 * passes: a shared machine has slow seconds, which would else spoil whole rows.
 *
 * Every library here has threads of its own, which go on spinning for a while after a call and would take the
 * cores from the next contender. So their spinning is cut short (some tenths of a millisecond), a pause of 2 ms
 * stands before each turn, and each turn begins with calls that are not timed, so that nobody pays for waking up.
 * All their threads are kept on a core each. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include <dirent.h>
#include <dlfcn.h>

#define MOST_ROUNDS 60
#define PASSES 3
#define PAUSE 2e-3   /* seconds before a turn */
#define WARM 1e-3    /* seconds of calls before the timed ones … */
#define LONG_CALL 0.05 /* … which are left out after the first round if a call takes longer than this */
#define TURN 3e-3

static const orli_kernels *kern;
static size_t threads = 2;
static double row_seconds = 0.4;  /* rounds go on for so long in all passes */
static size_t least_rounds = 1;   /* in each pass */

/* ---- the peers: libraries that are loaded if they are there --------------------------------------------------- */

typedef void (*cblas_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *,
                         int);
typedef int (*dnnl_fn)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t,
                       float, float *, int64_t);

typedef struct peer {
    const char *name, *package, *symbol, *file[3];
    cblas_fn cblas; /* one of the two, or none: not there */
    dnnl_fn dnnl;
} peer;

enum { PEERS = 3 };
static peer peers[PEERS] = {
    {"OpenBLAS", "libopenblas0-pthread", "cblas_sgemm", {"libopenblas.so.0", "libopenblas.so", NULL}, NULL, NULL},
    {"oneDNN", "libdnnl2", "dnnl_sgemm", {"libdnnl.so.2", "libdnnl.so.3", "libdnnl.so"}, NULL, NULL},
    {"BLIS", "libblis4-pthread", "cblas_sgemm", {"libblis.so.4", "libblis.so", NULL}, NULL, NULL},
};

static int peer_is_there(const peer *p) { return p->cblas || p->dnnl; }

/* The libraries read these when they are loaded or first called. Debian's do not know newer processors: told what
 * to use they are up to four times faster. */
static void peers_environment(void) {
    const int wide = kern->width == 16;
    char count[24];
    snprintf(count, sizeof count, "%zu", threads);
    setenv("OMP_NUM_THREADS", count, 1), setenv("OPENBLAS_NUM_THREADS", count, 1), setenv("BLIS_NUM_THREADS", count, 1);
    setenv("OPENBLAS_CORETYPE", wide ? "SkylakeX" : "Haswell", 1);
    if (!wide) setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1), setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    setenv("GOMP_SPINCOUNT", "10000", 1);        /* oneDNN's and BLIS's threads: some tenths of a millisecond */
    setenv("OPENBLAS_THREAD_TIMEOUT", "20", 1);  /* OpenBLAS's: 2^20 cycles */
}

/* C (m, n) = op(A)·op(B), all row-major. */
static void peer_gemm(const peer *p, int at, int bt, size_t m, size_t n, size_t k, const orl_real *a, size_t lda,
                      const orl_real *b, size_t ldb, orl_real *c, size_t ldc) {
    const float *fa = (const float *)(const void *)a, *fb = (const float *)(const void *)b;
    float *fc = (float *)(void *)c;
    if (p->dnnl)
        p->dnnl(at ? 'T' : 'N', bt ? 'T' : 'N', (int64_t)m, (int64_t)n, (int64_t)k, 1, fa, (int64_t)lda, fb,
                (int64_t)ldb, 0, fc, (int64_t)ldc);
    else
        p->cblas(101, at ? 112 : 111, bt ? 112 : 111, (int)m, (int)n, (int)k, 1, fa, (int)lda, fb, (int)ldb, 0, fc,
                 (int)ldc);
}

/* BLIS 0.9 wants the number of a processor (any name is taken for number 0); it knows these numbers' names. */
static void choose_blis(void *library) {
    const char *wanted = kern->width == 16 ? "skx" : "haswell", *(*name)(int);
    void *symbol = dlsym(library, "bli_arch_string");
    char number[16];
    int i;
    memcpy(&name, &symbol, sizeof symbol);
    for (i = 0; symbol && i < 12; i++)
        if (strcmp(name(i), wanted) == 0) {
            snprintf(number, sizeof number, "%d", i);
            setenv("BLIS_ARCH_TYPE", number, 1);
            return;
        }
}

/* Keeps threads that have come since the last call on the second core, the third, … */
static void pin_new_threads(void) {
    static pid_t known[256];
    static size_t count;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *e;
    size_t i, core = 1;
    while (tasks && (e = readdir(tasks)) != NULL) {
        const pid_t thread = (pid_t)strtol(e->d_name, NULL, 10);
        for (i = 0; i < count && known[i] != thread; i++) {}
        if (thread <= 0 || thread == getpid() || i < count || count == 256) continue;
        known[count++] = thread;
        bench_pin(thread, core++);
    }
    if (tasks) closedir(tasks);
}

static void peers_open(void) {
    float *c = (float *)calloc(3 * 65536, sizeof *c);
    orl_real *x = (orl_real *)(void *)c, *y = (orl_real *)(void *)(c + 2 * 65536);
    size_t i, j;
    if (ORLI_DOUBLE || kern->width < 8 || !c) {
        printf("no peers: they are measured beside AVX2 and AVX-512 in float\n");
        free(c);
        return;
    }
    peers_environment();
    for (i = 0; i < PEERS; i++) {
        peer *p = &peers[i];
        void *library = NULL, *symbol;
        for (j = 0; j < 3 && p->file[j] && !library; j++) library = dlopen(p->file[j], RTLD_NOW | RTLD_LOCAL);
        symbol = library ? dlsym(library, p->symbol) : NULL;
        if (!symbol) printf("%s is not there: apt install %s (Debian)\n", p->name, p->package);
        else if (strcmp(p->symbol, "dnnl_sgemm") == 0) memcpy(&p->dnnl, &symbol, sizeof symbol);
        else memcpy(&p->cblas, &symbol, sizeof symbol);
        if (p->cblas && strcmp(p->name, "BLIS") == 0) choose_blis(library);
        if (peer_is_there(p)) peer_gemm(p, 0, 0, 256, 256, 256, x, 256, x, 256, y, 256); /* starts its threads */
        pin_new_threads();
    }
    free(c);
}

/* ---- a layer and its contenders ------------------------------------------------------------------------------- */

enum { FORWARD, BACK_X, BACK_W, FORMS };
static const char *const form_name[FORMS] = {"fwd", "dX", "dW"};

enum { PEAK, OURS, PACKED, FIRST_PEER, CONTENDERS = FIRST_PEER + PEERS };

typedef struct layer {
    orl_ctx *ctx;
    size_t m, k, n; /* X (m, k), W (n, k), Y (m, n) */
    const orl_real *x, *w, *y;
    orl_real *panels, *out; /* out: any of dX, dW and Y */
} layer;

static void call_ours(const layer *l, int form) {
    const size_t m = l->m, n = l->n, k = l->k;
    if (form == FORWARD) orli_gemm(l->ctx, m, n, k, orli_mat_of(l->x, k, 1), orli_mat_of(l->w, 1, k), l->out, n, 0);
    if (form == BACK_X) orli_gemm(l->ctx, m, k, n, orli_mat_of(l->y, n, 1), orli_mat_of(l->w, k, 1), l->out, k, 0);
    if (form == BACK_W) orli_gemm(l->ctx, n, k, m, orli_mat_of(l->y, 1, n), orli_mat_of(l->x, k, 1), l->out, k, 0);
}

static void call_peer(const peer *p, const layer *l, int form) {
    const size_t m = l->m, n = l->n, k = l->k;
    if (form == FORWARD) peer_gemm(p, 0, 1, m, n, k, l->x, k, l->w, k, l->out, n);
    if (form == BACK_X) peer_gemm(p, 0, 0, m, k, n, l->y, n, l->w, k, l->out, k);
    if (form == BACK_W) peer_gemm(p, 1, 0, n, k, m, l->y, n, l->x, k, l->out, k);
}

static void call(int who, const layer *l, int form) {
    if (who == OURS) call_ours(l, form);
    else if (who == PACKED)
        orli_gemm_packed(l->ctx, l->m, l->n, l->k, orli_mat_of(l->x, l->k, 1), l->panels, l->out, l->n, 0);
    else call_peer(&peers[who - FIRST_PEER], l, form);
}

static int takes_part(int who, int form) {
    if (who == PACKED) return form == FORWARD;
    return who < FIRST_PEER || peer_is_there(&peers[who - FIRST_PEER]);
}

static void pause_for(double seconds) {
    struct timespec t;
    t.tv_sec = 0, t.tv_nsec = (long)(seconds * 1e9);
    nanosleep(&t, NULL);
}

/* One turn: seconds a call; of PEAK: FLOP/s. */
static double turn(int who, const layer *l, int form, int calls, int warm) {
    double start;
    int i;
    pause_for(PAUSE);
    if (who == PEAK) return bench_peak(kern->width, threads);
    for (start = bench_seconds(); warm && bench_seconds() - start < WARM;) call(who, l, form);
    start = bench_seconds();
    for (i = 0; i < calls; i++) call(who, l, form);
    return (bench_seconds() - start) / calls;
}

static orl_real *numbers(size_t n) {
    orl_real *p = NULL;
    unsigned x = 1;
    size_t i;
    if (posix_memalign((void **)&p, (size_t)1 << 21, (n + 1) * sizeof *p)) exit(1);
#if defined(MADV_HUGEPAGE)
    madvise(p, n * sizeof *p, MADV_HUGEPAGE);
#endif
    for (i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (orl_real)(x >> 8) * (orl_real)(1.0 / (1 << 24)) - (orl_real)0.5;
    }
    return p;
}

/* ---- rows of the table ------------------------------------------------------------------------------------------ */

typedef struct result {
    int form;
    size_t m, k, n;
    int calls;              /* in a turn */
    double one;             /* seconds of a call, roughly */
    double sample[CONTENDERS][MOST_ROUNDS];
    size_t rounds;
    double ratio, fraction; /* best peer's time / ours; of peak */
    const char *best;
} result;
static result results[200];
static size_t result_count;

static void report(result *r) {
    const double flops = 2.0 * (double)r->m * (double)r->k * (double)r->n;
    bench_row row;
    char name[80];
    const int form = r->form, counts = r->m < 256 ? PACKED : OURS; /* decoding's weights are frozen: packed once */
    double median[CONTENDERS];
    int who, best = 0;
    for (who = 0; who < CONTENDERS; who++) median[who] = bench_median(r->sample[who], r->rounds);
    printf("%-3s %4zu %4zu %5zu | %6.1f GF %4.0f %% |", form_name[form], r->m, r->k, r->n, flops / median[OURS] * 1e-9,
           100 * flops / median[OURS] / median[PEAK]);
    for (who = FIRST_PEER; who < CONTENDERS; who++) {
        if (!takes_part(who, form)) continue;
        printf(" %s %6.1f ×%.2f", peers[who - FIRST_PEER].name, flops / median[who] * 1e-9,
               median[who] / median[OURS]);
        if (!best || median[who] < median[best]) best = who;
    }
    printf(" | peak %.0f", median[PEAK] * 1e-9);
    if (form == FORWARD)
        printf(" | packed %6.1f GF %4.0f %% ×%.2f", flops / median[PACKED] * 1e-9,
               100 * flops / median[PACKED] / median[PEAK], best ? median[best] / median[PACKED] : 0);
    printf("%s\n", best && median[best] < 0.97 * median[counts] ? " | behind" : "");
    fflush(stdout);

    r->fraction = flops / median[counts] / median[PEAK];
    r->ratio = best ? median[best] / median[counts] : (double)NAN;
    r->best = best ? peers[best - FIRST_PEER].name : NULL;
    memset(&row, 0, sizeof row);
    row.bench = "gemm", row.name = name, row.isa = kern->name, row.threads = threads, row.unit = "FLOP/s";
    snprintf(name, sizeof name, "%s %zux%zux%zu", form_name[form], r->m, r->k, r->n);
    row.ours = flops / median[OURS], row.peak_fraction = row.ours / median[PEAK];
    row.peer_name = r->best, row.peer = best ? flops / median[best] : 0, row.ratio = best ? row.ours / row.peer : 0;
    bench_json(&row);
    if (form != FORWARD) return;
    snprintf(name, sizeof name, "packed %zux%zux%zu", r->m, r->k, r->n);
    row.ours = flops / median[PACKED], row.peak_fraction = row.ours / median[PEAK];
    row.ratio = best ? median[best] / median[PACKED] : 0;
    bench_json(&row);
}

/* One pass's rounds of a row. */
static void bench_row_pass(result *r, layer *l) {
    const int form = r->form;
    const double start = orl_seconds();
    size_t round, i;
    int who;
    l->m = r->m, l->k = r->k, l->n = r->n;
    if (form == FORWARD) orli_pack(l->ctx, l->n, l->k, orli_mat_of(l->w, 1, l->k), l->panels);
    if (!r->calls) {
        double begin;
        call(OURS, l, form);
        begin = bench_seconds();
        call(OURS, l, form);
        r->one = bench_seconds() - begin;
        r->calls = (int)ORLI_MAX(1.0, TURN / ORLI_MAX(r->one, 1e-7));
    }
    for (round = 0; round < MOST_ROUNDS / PASSES; round++, r->rounds++) {
        if (round >= least_rounds && orl_seconds() - start >= row_seconds / PASSES) break;
        for (i = 0; i < CONTENDERS; i++) {
            who = (int)((i + r->rounds) % CONTENDERS);
            if (takes_part(who, form))
                r->sample[who][r->rounds] = turn(who, l, form, r->calls, r->rounds == 0 || r->one < LONG_CALL);
        }
    }
}

/* The rows of the table in their order. Few tokens: decoding, which has no gradients. */
static void add_rows(size_t m, size_t k, size_t n, const char *form) {
    int f;
    for (f = FORWARD; f < (m >= 256 ? FORMS : FORWARD + 1); f++) {
        result *r = &results[result_count];
        if ((form && strcmp(form, form_name[f]) != 0) || result_count == sizeof results / sizeof *results) continue;
        r->form = f, r->m = m, r->k = k, r->n = n;
        result_count++;
    }
}

static void bench_rows(orl_ctx *ctx) {
    size_t x = 0, w = 0, y = 0, panels = 0, i, pass;
    layer l;
    for (i = 0; i < result_count; i++) {
        const result *r = &results[i];
        x = ORLI_MAX(x, r->m * r->k), w = ORLI_MAX(w, r->n * r->k), y = ORLI_MAX(y, r->m * r->n);
        panels = ORLI_MAX(panels, orli_pack_size(ctx, r->n, r->k));
    }
    memset(&l, 0, sizeof l);
    l.ctx = ctx, l.x = numbers(x), l.w = numbers(w), l.y = numbers(y);
    l.panels = numbers(panels), l.out = numbers(ORLI_MAX(x, ORLI_MAX(w, y)));
    for (pass = 0; pass < PASSES; pass++) {
        fprintf(stderr, "pass %zu of %d\n", pass + 1, PASSES);
        for (i = 0; i < result_count; i++) {
            bench_row_pass(&results[i], &l);
            if (pass + 1 == PASSES) report(&results[i]);
        }
    }
    free((void *)(uintptr_t)l.x), free((void *)(uintptr_t)l.w), free((void *)(uintptr_t)l.y);
    free(l.panels), free(l.out);
}

/* ---- what the table says ---------------------------------------------------------------------------------------- */

/* Rows with at least `low` and at most `high` tokens; form FORMS: all. */
static void summary(const char *title, int form, size_t low, size_t high) {
    double sum = 0;
    size_t i, n = 0, behind = 0;
    const result *worst = NULL, *r;
    bench_row row;
    for (i = 0; i < result_count; i++) {
        r = &results[i];
        if ((form != FORMS && r->form != form) || r->m < low || r->m > high || !r->best) continue;
        sum += log(r->ratio), n++, behind += r->ratio < 0.97;
        if (!worst || r->ratio < worst->ratio) worst = r;
    }
    if (!n) return;
    printf("%-14s %3zu rows: geometric mean %.3f × the best peer, %zu under 0.97; worst %.3f: %s %zux%zux%zu, %s\n",
           title, n, exp(sum / (double)n), behind, worst->ratio, form_name[worst->form], worst->m, worst->k, worst->n,
           worst->best);
    memset(&row, 0, sizeof row);
    row.bench = "gemm geometric mean", row.name = title, row.isa = kern->name, row.threads = threads;
    row.unit = "ratio", row.peer_name = "best peer", row.peer = 1, row.peak_fraction = (double)NAN;
    row.ours = row.ratio = exp(sum / (double)n);
    bench_json(&row);
}

static void summaries(void) {
    size_t i, n = 0, below = 0;
    const result *worst = NULL;
    summary("forward", FORWARD, 256, SIZE_MAX);
    summary("dX", BACK_X, 256, SIZE_MAX);
    summary("dW", BACK_W, 256, SIZE_MAX);
    summary("decoding", FORWARD, 1, 255); /* W packed before */
    summary("all", FORMS, 1, SIZE_MAX);
    for (i = 0; i < result_count; i++) {
        const result *r = &results[i];
        if (r->m < 256 || r->k == 64 || r->n == 50257 || !(r->fraction > 0)) continue;
        n++, below += r->fraction < 0.9;
        if (!worst || r->fraction < worst->fraction) worst = r;
    }
    if (worst)
        printf("of peak: %zu of %zu rows with m ≥ 256 below 90 %% (64x192 and 768x50257 not counted); lowest %.0f %%: "
               "%s %zux%zux%zu\n",
               below, n, 100 * worst->fraction, form_name[worst->form], worst->m, worst->k, worst->n);
}

/* ---- attention ------------------------------------------------------------------------------------------------ */

/* Causal attention of one head over m tokens of 3·heads·d numbers, as a model lays them out; FLOPs of the visible
 * half. One thread: a head is one task. */
static void bench_attention(size_t m, size_t d) {
    const size_t tiles = (m + 15) / 16, stride = 12 * d;
    const double flops = 4.0 * (double)d * (double)m * (double)(m + 1) / 2;
    orl_real *q = numbers(m * stride), *out = numbers(m * d), *lse = numbers(m), *kv = numbers(4 * tiles * 16 * d);
    orl_real *dq = numbers(m * stride), *tile[4][512], *scratch = numbers(ORLI_SCRATCH / sizeof *scratch);
    const orl_real *k[512], *v[512];
    double forward[12], backward[12], peak[12], f, b, p;
    size_t t, round, part;
    int i, calls = (int)(1 + 1e8 / flops);
    for (t = 0; t < tiles; t++) {
        for (part = 0; part < 4; part++) tile[part][t] = kv + (part * tiles + t) * 16 * d;
        k[t] = tile[0][t], v[t] = tile[1][t];
    }
    for (round = 0; round < 12; round++) {
        double start;
        peak[round] = bench_peak(kern->width, 1);
        start = bench_seconds();
        for (i = 0; i < calls; i++)
            kern->attention(d, m, q, stride, 0, k, v, SIZE_MAX, (orl_real)0.125, out, d, lse, scratch);
        forward[round] = (bench_seconds() - start) / calls;
        start = bench_seconds();
        for (i = 0; i < calls; i++)
            kern->attention_backward(d, m, q, stride, 0, k, v, SIZE_MAX, (orl_real)0.125, out, d, out, d, lse, dq,
                                     stride, tile[2], tile[3], scratch);
        backward[round] = (bench_seconds() - start) / calls;
    }
    f = flops / bench_median(forward, 12), b = 2.5 * flops / bench_median(backward, 12), p = bench_median(peak, 12);
    printf("attention %5zu tokens, d %3zu: forward %6.1f GF %3.0f %%, backward %6.1f GF %3.0f %%\n", m, d, f * 1e-9,
           100 * f / p, b * 1e-9, 100 * b / p);
    for (part = 0; part < 2; part++) {
        bench_row row;
        char name[80];
        memset(&row, 0, sizeof row);
        snprintf(name, sizeof name, "%s %zu tokens, d %zu", part ? "backward" : "forward", m, d);
        row.bench = "attention", row.name = name, row.isa = kern->name, row.threads = 1, row.unit = "FLOP/s";
        row.ours = part ? b : f, row.peak_fraction = row.ours / p;
        bench_json(&row);
    }
    free(q), free(out), free(lse), free(kv), free(dq), free(scratch);
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static const char *value_of(const char *argument, const char *key) { /* of "key=value", or NULL */
    const size_t n = strlen(key);
    return strncmp(argument, key, n) == 0 && argument[n] == '=' ? argument + n + 1 : NULL;
}

int main(int argc, char **argv) {
    static const size_t rows[] = {256, 1024, 2048, 1, 8, 32};
    static const size_t layers[][2] = {{64, 192},   {128, 512},  {256, 768},  {256, 1024}, {1024, 256},
                                       {768, 2304}, {768, 3072}, {3072, 768}, {768, 50257}};
    const char *form = NULL, *shape = NULL, *only_m = NULL, *value;
    int gemm = 1, attention = 1, i;
    size_t r, s, m;
    orl_ctx ctx;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "quick") == 0) row_seconds = 0.3;
        else if (strcmp(argv[i], "full") == 0) row_seconds = 3, least_rounds = 3;
        else if (strcmp(argv[i], "gemm") == 0) attention = 0;
        else if (strcmp(argv[i], "attention") == 0) gemm = 0;
        else if ((value = value_of(argv[i], "form")) != NULL) form = value, attention = 0;
        else if ((value = value_of(argv[i], "shape")) != NULL) shape = value, attention = 0;
        else if ((value = value_of(argv[i], "m")) != NULL) only_m = value, attention = 0;
        else threads = ORLI_MAX(1, (size_t)strtoul(argv[i], NULL, 10));
    }
    memset(&ctx, 0, sizeof ctx);
    kern = orli_kernels_select(&ctx, getenv("ORL_ISA"));
    if (kern) ctx.kernels = kern;
    if (!kern || orli_pool_create(&ctx, threads) != ORL_OK) {
        fprintf(stderr, "%s\n", orl_error(&ctx));
        return 1;
    }
    bench_own_time = threads == 1;
    pin_new_threads();
    if (gemm) {
        peers_open();
        bench_pin(0, 0); /* after the libraries have counted the cores */
        printf("%s, %zu threads: form m k n | ours, %% of peak | peers, × what ours is faster | peak in GFLOP/s | "
               "W packed before\n", kern->name, threads);
        for (s = 0; s < sizeof layers / sizeof *layers; s++)
            for (r = 0; r < sizeof rows / sizeof *rows; r++) {
                char name[64];
                m = rows[r];
                snprintf(name, sizeof name, "%zux%zu", layers[s][0], layers[s][1]);
                if (shape && strcmp(shape, name) != 0) continue;
                if (only_m && strtoul(only_m, NULL, 10) != m) continue;
                add_rows(m, layers[s][0], layers[s][1], form);
            }
        bench_rows(&ctx);
        summaries();
    }
    bench_own_time = 1;
    for (m = 128; attention && m <= 2048; m *= 4) bench_attention(m, 64), bench_attention(m, 128);
    orli_pool_destroy(&ctx);
    return 0;
}
