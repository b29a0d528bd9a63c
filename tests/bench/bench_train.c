/* bench_train.c - a training step beside PyTorch's on the same model, and its memory beside the estimate.
 *   cc -O2 tests/bench/bench_train.c -o bench_train -lm -lpthread
 *   ./bench_train [threads] [CASE …] [rounds=N] [alone]   the table, of all cases or some; alone: without PyTorch
 *   ./bench_train serve CASE THREADS                      a worker: one step of ours for each line read on stdin
 *   ./bench_train compare CASE THREADS A B                two builds of this program against each other, in turns
 * Each side is a process of its own that makes one training step when it is asked to, so only one of them
 * works at a time and both see the same disturbances. A step is a whole one: batch, forward, backward, optimizer.
 * Figures are medians over rounds; a round is a step of each side and a look at the peak of fused multiply-adds. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include "cases.h"
#include "worker.h"
#include <signal.h>
#include <sys/resource.h>

/* ---- a worker: ours ---------------------------------------------------------------------------------------- */

static double process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* After each step: tells its time, and waits until another is asked for. */
static int served(void *user, const orl_step_info *info) {
    double *began = (double *)user;
    char line[64];
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6f %.17g %ld %.6f\n", info->seconds, info->loss, usage.ru_maxrss, process_seconds() - *began);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    *began = process_seconds();
    return 0;
}

static int serve(const bench_case *c, size_t threads) {
    orl_config config = orl_config_default();
    orl_train_options o;
    orl_estimate need;
    orl_ctx *ctx;
    orl_model *m;
    orl_dataset *data;
    double began;
    char line[64];
    size_t weights;
    config.threads = threads;
    ctx = orl_create(&config);
    m = case_model(ctx, c);
    data = case_rows(ctx, c, 8);
    o = case_options(c);
    o.progress = served, o.user = &began;
    orl_train_estimate(m, data, &o, &need);
    weights = orl_params_count(orl_model_params(m));
    if (m && c->arch == ORL_GPT2) weights -= orl_model_get_config(m)->context * c->dim; /* positions */
    printf("ready %s %zu %zu\n", orl_isa(ctx), weights, need.total);
    fflush(stdout);
    if (fgets(line, sizeof line, stdin)) {
        began = process_seconds();
        orl_train(m, data, &o);
    }
    if (orl_failed(ctx) && orl_error_status(ctx) != ORL_ERR_STOPPED) fprintf(stderr, "%s\n", orl_error(ctx));
    orl_destroy(ctx);
    return 0;
}

/* ---- the driver -------------------------------------------------------------------------------------------- */

#define MOST_ROUNDS 64
#define LONGEST 35.0 /* seconds of rounds: fewer are made on a machine that is busy with other things */

typedef struct worker {
    bench_worker side;
    double wall[MOST_ROUNDS], cpu[MOST_ROUNDS], loss, rss; /* rss: bytes, at most so far */
} worker;

static void stop(worker *w) { bench_stop(&w->side); }

static int step(worker *w, int round) {
    const struct timespec pause = {0, 30000000}; /* the other side's threads may spin for a while after its step */
    char line[256];
    double kilobytes;
    nanosleep(&pause, NULL);
    fputs("\n", w->side.to);
    fflush(w->side.to);
    if (!fgets(line, sizeof line, w->side.from)) return 0;
    if (sscanf(line, "%lf %lf %lf %lf", &w->wall[round], &w->loss, &kilobytes, &w->cpu[round]) != 4) return 0;
    w->rss = kilobytes * 1024;
    return 1;
}

static double median(const double *x, int n) { return bench_median(x, (size_t)n); }
static double least(const double *x, int n) {
    double best = x[0];
    int i;
    for (i = 1; i < n; i++) best = ORLI_MIN(best, x[i]);
    return best;
}
/* Of ratios of steps made one after the other, which a disturbance of both leaves alone. */
static double median_ratio(const double *a, const double *b, int n) {
    double ratio[MOST_ROUNDS];
    int i;
    for (i = 0; i < n; i++) ratio[i] = a[i] / b[i];
    return median(ratio, n);
}

static int start_ours(worker *w, const char *program, const bench_case *c, const char *threads) {
    const char *argv[5];
    argv[0] = program, argv[1] = "serve", argv[2] = c->name, argv[3] = threads, argv[4] = NULL;
    memset(w, 0, sizeof *w);
    return bench_start(&w->side, argv);
}

static int start_torch(worker *w, const bench_case *c, const char *threads, int wide) {
    char number[7][16];
    const size_t value[7] = {c->layers, c->dim, c->heads, c->ffn, c->vocab, c->rows, c->length};
    const char *argv[11];
    size_t i;
    argv[1] = c->arch == ORL_GPT2 ? "tests/bench/torch_gpt.py" : "tests/bench/torch_llama.py";
    for (i = 0; i < 7; i++) snprintf(number[i], sizeof number[i], "%zu", value[i]), argv[2 + i] = number[i];
    argv[9] = threads, argv[10] = NULL;
    memset(w, 0, sizeof *w);
    return bench_start_torch(&w->side, argv, threads, wide);
}

static int compare(const bench_case *c, const char *threads, const char *first, const char *second) {
    worker a, b;
    const double begin = orl_seconds();
    int n;
    if (!start_ours(&a, first, c, threads) || !start_ours(&b, second, c, threads)) return 1;
    if (!step(&a, 0) || !step(&b, 0)) return 1; /* to warm up */
    for (n = 0; n < 2 * c->rounds && n < MOST_ROUNDS && (n < 3 || orl_seconds() - begin < LONGEST); n++)
        if (!step(&a, n) || !step(&b, n)) return 1;
    stop(&a), stop(&b);
    printf("%s, %s threads: A %.1f ms (cpu %.1f), B %.1f ms (cpu %.1f); ", c->name, threads, 1e3 * least(a.wall, n),
           1e3 * least(a.cpu, n), 1e3 * least(b.wall, n), 1e3 * least(b.cpu, n));
    printf("A / B: least %.3f, median %.3f, cpu least %.3f, median %.3f; loss %s\n",
           least(a.wall, n) / least(b.wall, n), median_ratio(a.wall, b.wall, n), least(a.cpu, n) / least(b.cpu, n),
           median_ratio(a.cpu, b.cpu, n), a.loss < b.loss || a.loss > b.loss ? "DIFFERS" : "equal");
    return 0;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

/* 6 per weight (the tied head once, positions not at all) and token, and 6·layers·dim·length a token for causal
 * attention. */
static double model_flops(const bench_case *c, double weights) {
    const double tokens = (double)(c->rows * c->length);
    return tokens * (6 * weights + 6.0 * (double)(c->layers * c->dim * c->length));
}

typedef struct table_row {
    const bench_case *c;
    char isa[16];
    size_t threads, weights, need; /* need: bytes, as estimated before the run */
    double peak[MOST_ROUNDS];      /* FLOP/s of all threads */
    worker ours, torch, single;    /* single: ours on one thread */
    int with_torch, with_single, rounds;
} table_row;

/* Starts the sides, makes the rounds, ends the sides. 0: ours did not work. */
static int measure(table_row *r, const char *program, int rounds, int alone) {
    const bench_case *c = r->c;
    const int warm = c->rounds < 10 ? 1 : 2; /* steps before the counted ones */
    const double begin = orl_seconds();
    char threads[24];
    size_t width;
    int i, ok = 1;
    snprintf(threads, sizeof threads, "%zu", r->threads);
    ok = start_ours(&r->ours, program, c, threads) &&
         sscanf(r->ours.side.ready, "ready %15s %zu %zu", r->isa, &r->weights, &r->need) == 3;
    width = bench_width(r->isa);
    r->with_single = ok && (c->more & SINGLE) && r->threads > 1 && start_ours(&r->single, program, c, "1");
    r->with_torch = ok && width && !alone && !(c->more & NO_PEER) && start_torch(&r->torch, c, threads, width == 16);
    for (i = -warm; ok && i < rounds && (i < 2 || orl_seconds() - begin < LONGEST); i++) {
        const int at = ORLI_MAX(i, 0);
        ok = step(&r->ours, at) && (!r->with_torch || step(&r->torch, at)) && (!r->with_single || step(&r->single, at));
        r->peak[at] = bench_peak(width, r->threads);
    }
    r->rounds = i;
    stop(&r->ours);
    if (r->with_single) stop(&r->single);
    if (r->with_torch) stop(&r->torch);
    return ok;
}

static void print_side(const char *name, const worker *w, int n, double flops, double peak) {
    printf("  %-24s median %8.1f ms, least %8.1f ms; %5.1f %% of peak; at most %7.1f MB resident\n", name,
           1e3 * median(w->wall, n), 1e3 * least(w->wall, n), 100 * flops / median(w->wall, n) / peak, w->rss / 1e6);
}

static void report(const table_row *r, int alone) {
    const bench_case *c = r->c;
    const int n = r->rounds;
    const double flops = model_flops(c, (double)r->weights), peak = median(r->peak, n), need = (double)r->need;
    bench_row row;
    printf("%s: %s, %zu layers of %zu, vocabulary %zu, %zu rows of about %zu tokens, %.2f M weights\n", c->name,
           c->arch == ORL_GPT2 ? "GPT-2" : "Llama", c->layers, c->dim, c->vocab, c->rows, c->length,
           (double)r->weights / 1e6);
    printf("  %zu threads, %s, peak %.0f GFLOP/s, median of %d rounds", r->threads, r->isa, peak * 1e-9, n);
    if (c->micro) printf(", micro-batches of %zu tokens", c->micro);
    if (c->more & RECOMPUTE) printf(", activations worked out again");
    printf("\n");
    print_side("offline_rlhf.h", &r->ours, n, flops, peak);
    memset(&row, 0, sizeof row);
    row.bench = "train", row.name = c->name, row.isa = r->isa, row.threads = r->threads, row.unit = "s";
    row.ours = median(r->ours.wall, n), row.peak_fraction = flops / row.ours / peak;
    if (r->with_torch) {
        row.peer_name = "PyTorch", row.peer = median(r->torch.wall, n);
        row.ratio = median_ratio(r->torch.wall, r->ours.wall, n);
        print_side("PyTorch", &r->torch, n, flops, peak);
        printf("  ours is %.2f × as fast (median of the rounds' ratios; least by least %.2f)\n", row.ratio,
               least(r->torch.wall, n) / least(r->ours.wall, n));
    } else if (!alone && !(c->more & NO_PEER)) {
        printf("  PyTorch is not there: apt install python3-torch (Debian), then /usr/bin/python3 has it\n");
    }
    bench_json(&row);
    printf("  memory: estimated before the run %.1f MB, %+.1f %%\n", need / 1e6, 100 * (need / r->ours.rss - 1));
    row.bench = "train memory", row.unit = "bytes", row.ours = r->ours.rss, row.peak_fraction = (double)NAN;
    row.peer = r->with_torch ? r->torch.rss : 0, row.ratio = row.peer / row.ours;
    bench_json(&row);
    row.bench = "train memory estimate", row.peer_name = "estimate", row.peer = need, row.ratio = need / row.ours;
    bench_json(&row);
    if (r->with_single) {
        print_side("offline_rlhf.h, 1 thread", &r->single, n, flops, peak / (double)r->threads);
        row.bench = "train threads", row.unit = "s", row.peer_name = "1 thread";
        row.ours = median(r->ours.wall, n), row.peer = median(r->single.wall, n);
        row.ratio = median_ratio(r->single.wall, r->ours.wall, n);
        printf("  %zu threads are %.2f × as fast as one; losses are %s\n", r->threads, row.ratio,
               r->single.loss < r->ours.loss || r->single.loss > r->ours.loss ? "DIFFERENT" : "equal");
        bench_json(&row);
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    static table_row row;
    size_t threads = 2, i;
    int rounds = 0, alone = 0, some = 0, j, chosen[CASES] = {0};
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(case_named(argv[2]), (size_t)strtoul(argv[3], NULL, 10));
    signal(SIGPIPE, SIG_IGN);
    if (argc == 6 && strcmp(argv[1], "compare") == 0) return compare(case_named(argv[2]), argv[3], argv[4], argv[5]);
    for (j = 1; j < argc; j++) {
        if (strcmp(argv[j], "alone") == 0) alone = 1;
        else if (strncmp(argv[j], "rounds=", 7) == 0) rounds = (int)strtol(argv[j] + 7, NULL, 10);
        else if (argv[j][0] >= '0' && argv[j][0] <= '9') threads = ORLI_MAX(1, (size_t)strtoul(argv[j], NULL, 10));
        else chosen[case_named(argv[j]) - cases] = some = 1;
    }
    for (i = 0; i < CASES; i++) {
        if (some && !chosen[i]) continue;
        memset(&row, 0, sizeof row);
        row.c = &cases[i], row.threads = threads;
        if (measure(&row, argv[0], ORLI_MIN(rounds > 0 ? rounds : cases[i].rounds, MOST_ROUNDS), alone))
            report(&row, alone);
        else
            printf("%s: no figures: a side stopped working\n", cases[i].name);
    }
    return 0;
}
