/* bench.h - what the benches share: clocks and medians, the peak of fused multiply-adds, rows of build/bench.jsonl.
 * Include it after the library, and define _GNU_SOURCE before that: it names cores, which is not in any standard.
 * A bench uses some of these functions, not all. */
#ifndef ORL_BENCH_H
#define ORL_BENCH_H
#include <sched.h>

#if defined(__GNUC__)
#define BENCH_UNUSED __attribute__((unused))
#else
#define BENCH_UNUSED
#endif

/* ---- time ------------------------------------------------------------------------------------------------------ */

/* Where one thread works, its own time is taken, which other processes disturb less than the time of day. */
static int bench_own_time;

static double bench_seconds(void) {
    struct timespec t;
    clock_gettime(bench_own_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int bench_ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* NaN if there is none. */
static double bench_median(const double *x, size_t n) {
    double *sorted = (double *)malloc((n + 1) * sizeof *x), middle;
    if (!sorted || n == 0) return free(sorted), (double)NAN;
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, bench_ascending);
    middle = 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
    free(sorted);
    return middle;
}

/* ---- cores ------------------------------------------------------------------------------------------------------ */

/* Keeps a thread on the i-th of the cores that were ours at the first call; 0 is the calling thread. Without this a
 * thread that slept may wake on the core of the one who woke it, and the two share it for many milliseconds. */
static BENCH_UNUSED void bench_pin(pid_t thread, size_t i) {
#if defined(__linux__)
    static cpu_set_t all;
    cpu_set_t one;
    size_t core, seen = 0;
    if (CPU_COUNT(&all) == 0) sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&one);
    for (core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &all) && seen++ == i % (size_t)CPU_COUNT(&all)) CPU_SET(core, &one);
    sched_setaffinity(thread, sizeof one, &one);
#else
    (void)thread, (void)i;
#endif
}

/* ---- the peak of fused multiply-adds --------------------------------------------------------------------------- */

#define BENCH_XMM \
    "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm15"

/* FLOPs done by 12 independent chains on data in registers: n steps on vectors of `width` floats. */
static double bench_fma(size_t width, long n) {
#if ORLI_X86
#define Z(i) "vpxor %%xmm" #i ",%%xmm" #i ",%%xmm" #i "\n\t"
#define ALL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define F512(i) "vfmadd231ps %%zmm15,%%zmm15,%%zmm" #i "\n\t"
#define F256(i) "vfmadd231ps %%ymm15,%%ymm15,%%ymm" #i "\n\t"
    long count = n;
    if (width == 16) {
        __asm__ volatile(ALL(Z) Z(15) "1:\n\t" ALL(F512) "dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(count) : : BENCH_XMM);
        return 12.0 * 32.0 * (double)n;
    }
    if (width == 8) {
        __asm__ volatile(ALL(Z) Z(15) "1:\n\t" ALL(F256) "dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(count) : : BENCH_XMM);
        return 12.0 * 16.0 * (double)n;
    }
#endif
    (void)width, (void)n;
    return 0;
}

static BENCH_UNUSED size_t bench_width(const char *isa) { /* floats in a vector; 0: no peak is known */
    return strcmp(isa, "avx512") == 0 ? 16 : strcmp(isa, "avx2") == 0 ? 8 : 0;
}

typedef struct bench_peak_job {
    size_t width, index;
    pthread_barrier_t *begin;
    double rate;
} bench_peak_job;

static void *bench_peak_thread(void *p) {
    bench_peak_job *job = (bench_peak_job *)p;
    double start, done;
    if (job->index) bench_pin(0, job->index); /* or it would inherit the core of its maker */
    pthread_barrier_wait(job->begin);
    bench_fma(job->width, 100000); /* until all run and the clock has risen */
    start = bench_seconds();
    done = bench_fma(job->width, 600000); /* about a millisecond */
    job->rate = done / (bench_seconds() - start);
    return NULL;
}

/* FLOP/s of so many threads at the same time (two busy cores may run at a lower clock than one); NaN if not known. */
static BENCH_UNUSED double bench_peak(size_t width, size_t threads) {
    pthread_t thread[64];
    bench_peak_job job[64];
    pthread_barrier_t begin;
    double rate = 0;
    size_t i, n = ORLI_MIN(threads, 64);
    if (!width || bench_fma(width, 1) == 0) return (double)NAN;
    pthread_barrier_init(&begin, NULL, (unsigned)n);
    for (i = 0; i < n; i++) job[i].width = width, job[i].index = i, job[i].begin = &begin, job[i].rate = 0;
    for (i = 1; i < n; i++)
        if (pthread_create(&thread[i], NULL, bench_peak_thread, &job[i]) != 0) exit(1);
    bench_peak_thread(&job[0]);
    for (i = 1; i < n; i++) pthread_join(thread[i], NULL);
    for (i = 0; i < n; i++) rate += job[i].rate;
    pthread_barrier_destroy(&begin);
    return rate * (double)threads / (double)n;
}

/* ---- rows of build/bench.jsonl --------------------------------------------------------------------------------- */

typedef struct bench_row {
    const char *bench, *name, *isa, *peer_name, *unit; /* peer_name: NULL if there is none */
    size_t threads;
    double ours, peer, ratio, peak_fraction;           /* ratio > 1: ours is better; NaN: unknown */
} bench_row;

static void bench_number(FILE *f, const char *key, double x) {
    if (x - x == 0) fprintf(f, ", \"%s\": %.6g", key, x);
    else fprintf(f, ", \"%s\": null", key);
}

/* Appends a row to $BENCH_JSONL, if it is set (`make bench` sets build/bench.jsonl). */
static void bench_json(const bench_row *r) {
    const char *path = getenv("BENCH_JSONL");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (!f) return;
    fprintf(f, "{\"bench\": \"%s\", \"case\": \"%s\", \"threads\": %zu, \"isa\": \"%s\"", r->bench, r->name, r->threads,
            r->isa);
    bench_number(f, "ours", r->ours);
    bench_number(f, "peer", r->peer_name ? r->peer : (double)NAN);
    if (r->peer_name) fprintf(f, ", \"peer_name\": \"%s\"", r->peer_name);
    else fprintf(f, ", \"peer_name\": null");
    fprintf(f, ", \"unit\": \"%s\"", r->unit);
    bench_number(f, "ratio", r->peer_name ? r->ratio : (double)NAN);
    bench_number(f, "peak_fraction", r->peak_fraction);
    fprintf(f, "}\n");
    fclose(f);
}

#endif
