/* bench.h - what the benches share: the peak of fused multiply-adds, and rows of build/bench.jsonl.
 * Include it after the library. */
#ifndef ORL_BENCH_H
#define ORL_BENCH_H

/* FLOPs done by 12 independent chains on data in registers: n steps with the instruction set in use. */
static double peak_run(size_t width, long n) {
#if ORLI_X86
#define Z(i) "vpxor %%xmm" #i ",%%xmm" #i ",%%xmm" #i "\n\t"
#define ALL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define F512(i) "vfmadd231ps %%zmm15,%%zmm15,%%zmm" #i "\n\t"
#define F256(i) "vfmadd231ps %%ymm15,%%ymm15,%%ymm" #i "\n\t"
    long count = n;
    if (width == 16) {
        __asm__ volatile(ALL(Z) Z(15) "1:\n\t" ALL(F512) "dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(count) : : "cc", "xmm0", "xmm1",
                         "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm15");
        return 12.0 * 32.0 * (double)n;
    }
    if (width == 8) {
        __asm__ volatile(ALL(Z) Z(15) "1:\n\t" ALL(F256) "dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(count) : : "cc", "xmm0", "xmm1",
                         "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm15");
        return 12.0 * 16.0 * (double)n;
    }
#endif
    (void)width, (void)n;
    return 0;
}

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
    fprintf(f, "{\"bench\": \"%s\", \"case\": \"%s\", \"threads\": %zu, \"isa\": \"%s\"", r->bench, r->name, r->threads, r->isa);
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
