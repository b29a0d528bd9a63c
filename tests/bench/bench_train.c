/* bench_train.c - a training step beside PyTorch's on the same model, and its memory beside the estimate.
 *   cc -O2 tests/bench/bench_train.c -o bench_train -lm -lpthread
 *   ./bench_train [threads]                       the table
 *   ./bench_train serve CASE THREADS              a worker: one step of ours for each line read on stdin
 *   ./bench_train compare CASE THREADS A B        two builds of this program against each other, in turns
 * Each side is a process of its own that makes one training step when it is asked to, so only one of them
 * works at a time and both see the same disturbances. A step is a whole one: batch, forward, backward, optimizer. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

typedef struct bench_case {
    const char *name;
    size_t layers, dim, heads, ffn, vocab, rows, length, spread; /* a row has length − spread … length + spread tokens */
    int rounds;
} bench_case;

static const bench_case cases[] = {
    {"llama6x256", 6, 256, 8, 688, 4096, 8, 256, 0, 15}, /* the first is measured against PyTorch */
    {"demo", 3, 96, 4, 256, 512, 64, 38, 6, 40},
};

static const bench_case *case_named(const char *name) {
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(cases[i].name, name) == 0) return &cases[i];
    fprintf(stderr, "no case \"%s\"\n", name);
    exit(2);
}

/* ---- a worker: ours ---------------------------------------------------------------------------------------- */

/* Rows of random ids. A language model is not fed a row's last token: a row of n fed tokens has n + 1. */
static orl_dataset *random_rows(orl_ctx *ctx, const bench_case *c) {
    const size_t rows = c->rows * 8;
    char *text = (char *)malloc(rows * ((c->length + c->spread) * 6 + 64)), *at = text;
    orl_dataset *data;
    size_t i, j;
    unsigned x = 1;
    for (i = 0; text && i < rows; i++) {
        size_t n = c->length - c->spread + (c->spread ? i * 7 % (2 * c->spread + 1) : 0);
        for (j = 0; j <= n; j++) {
            x = x * 1664525u + 1013904223u;
            at += sprintf(at, "%s%u", j > 1 ? ", " : j ? "], \"completion_ids\": [" : "{\"prompt_ids\": [", (x >> 8) % (unsigned)c->vocab);
        }
        at += sprintf(at, "]}\n");
    }
    data = text ? orl_dataset_parse(ctx, text, (size_t)(at - text), "random") : NULL;
    free(text);
    return data;
}

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
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_train_options o = orl_train_default();
    orl_estimate need;
    orl_ctx *ctx;
    orl_model *m;
    orl_dataset *data;
    double began;
    char line[64];
    config.threads = threads;
    ctx = orl_create(&config);
    mc.layers = c->layers, mc.dim = c->dim, mc.heads = mc.kv_heads = c->heads, mc.ffn = c->ffn, mc.vocab = c->vocab;
    mc.context = c->length + c->spread + 1, mc.tied = 1;
    m = orl_model_create(ctx, &mc, NULL);
    data = random_rows(ctx, c);
    o.steps = 1000000, o.batch = c->rows, o.lr = 1e-4, o.schedule = ORL_CONSTANT, o.warmup = 0;
    o.progress = served, o.user = &began;
    orl_train_estimate(m, data, &o, &need);
    printf("ready %s %zu %zu\n", orl_isa(ctx), orl_params_count(orl_model_params(m)), need.total);
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
#define LONGEST 60.0 /* seconds of rounds: fewer are made on a machine that is busy with other things */

typedef struct worker {
    pid_t pid;
    FILE *to, *from;
    char ready[256];
    double wall[MOST_ROUNDS], cpu[MOST_ROUNDS], loss, rss; /* rss: bytes, at most so far */
} worker;

/* Starts a program; 0 if it does not get ready. */
static int start(worker *w, const char *const *argv) {
    int in[2], out[2];
    memset(w, 0, sizeof *w);
    if (pipe(in) != 0 || pipe(out) != 0) return 0;
    w->pid = fork();
    if (w->pid == 0) {
        char *copy[16];
        size_t i;
        for (i = 0; argv[i] && i < 15; i++) copy[i] = strdup(argv[i]);
        copy[i] = NULL;
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execvp(copy[0], copy);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    fcntl(in[1], F_SETFD, FD_CLOEXEC), fcntl(out[0], F_SETFD, FD_CLOEXEC); /* or the next worker keeps this one's input open */
    w->to = fdopen(in[1], "w"), w->from = fdopen(out[0], "r");
    return w->pid > 0 && w->to && w->from && fgets(w->ready, sizeof w->ready, w->from) && strncmp(w->ready, "ready", 5) == 0;
}

static void stop(worker *w) { /* its input ends, so it ends */
    if (w->to) fclose(w->to);
    if (w->from) fclose(w->from);
    if (w->pid > 0) waitpid(w->pid, NULL, 0);
}

static int step(worker *w, int round) {
    char line[256];
    double kilobytes;
    fputs("\n", w->to);
    fflush(w->to);
    if (!fgets(line, sizeof line, w->from)) return 0;
    if (sscanf(line, "%lf %lf %lf %lf", &w->wall[round], &w->loss, &kilobytes, &w->cpu[round]) != 4) return 0;
    w->rss = kilobytes * 1024;
    return 1;
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }
static double median(const double *x, int n) {
    double sorted[MOST_ROUNDS];
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
}
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

static double peak_per_thread(size_t width) { /* FLOP/s in a thread's own time */
    double best = 0;
    int i;
    for (i = 0; i < 5; i++) {
        double begin = process_seconds(), done = peak_run(width, 1000000);
        best = ORLI_MAX(best, done / (process_seconds() - begin));
    }
    return best;
}

static int start_ours(worker *w, const char *program, const bench_case *c, const char *threads) {
    const char *argv[5];
    argv[0] = program, argv[1] = "serve", argv[2] = c->name, argv[3] = threads, argv[4] = NULL;
    return start(w, argv);
}

static int start_torch(worker *w, const bench_case *c, const char *threads, const char *script) {
    static const char *const python[] = {"/usr/bin/python3", "python3"}; /* Debian's torch belongs to the first */
    char number[7][16];
    const size_t value[7] = {c->layers, c->dim, c->heads, c->ffn, c->vocab, c->rows, c->length};
    const char *argv[11];
    size_t i, j;
    setenv("OPENBLAS_CORETYPE", "SkylakeX", 1); /* Debian's OpenBLAS does not know newer processors */
    setenv("ATEN_CPU_CAPABILITY", "avx512", 1);
    setenv("OMP_NUM_THREADS", threads, 1), setenv("OPENBLAS_NUM_THREADS", threads, 1);
    setenv("GOMP_SPINCOUNT", "10000", 1); /* or its threads go on spinning while ours work */
    for (i = 0; i < 2; i++) {
        argv[0] = python[i], argv[1] = script;
        for (j = 0; j < 7; j++) snprintf(number[j], sizeof number[j], "%zu", value[j]), argv[2 + j] = number[j];
        argv[9] = threads, argv[10] = NULL;
        if (start(w, argv)) return 1;
        stop(w);
    }
    memset(w, 0, sizeof *w);
    return 0;
}

/* Steps in turns, after two to warm up. Gives the number of rounds; b may be NULL. */
static int rounds_of(worker *a, worker *b, int rounds) {
    const double begin = orl_seconds();
    int i, warm = 2;
    for (i = -warm; i < rounds && (i < 3 || orl_seconds() - begin < LONGEST); i++)
        if (!step(a, ORLI_MAX(i, 0)) || (b && !step(b, ORLI_MAX(i, 0)))) return 0;
    return i;
}

static int compare(const bench_case *c, const char *threads, const char *first, const char *second) {
    worker a, b;
    int n;
    if (!start_ours(&a, first, c, threads) || !start_ours(&b, second, c, threads)) return 1;
    n = rounds_of(&a, &b, c->rounds);
    stop(&a), stop(&b);
    if (!n) return 1;
    printf("%s, %s threads: A %.1f ms (cpu %.1f), B %.1f ms (cpu %.1f); A / B: least %.3f, median %.3f, cpu least %.3f, median %.3f; loss %s\n",
           c->name, threads, 1e3 * least(a.wall, n), 1e3 * least(a.cpu, n), 1e3 * least(b.wall, n), 1e3 * least(b.cpu, n),
           least(a.wall, n) / least(b.wall, n), median_ratio(a.wall, b.wall, n), least(a.cpu, n) / least(b.cpu, n),
           median_ratio(a.cpu, b.cpu, n), a.loss < b.loss || a.loss > b.loss ? "DIFFERS" : "equal");
    return 0;
}

/* 6 per weight (the tied head once) and token, and 6·layers·dim·length a token for causal attention. */
static double model_flops(const bench_case *c, double weights) {
    const double tokens = (double)(c->rows * c->length);
    return tokens * (6 * weights + 6.0 * (double)(c->layers * c->dim * c->length));
}

static void table_row(const bench_case *c, const char *program, const char *threads, const char *script) {
    worker ours, torch;
    bench_row row;
    char isa[16] = "";
    size_t weights = 0, need = 0, width;
    double peak, flops;
    int n, with = script && *script && start_torch(&torch, c, threads, script);
    if (!start_ours(&ours, program, c, threads) || sscanf(ours.ready, "ready %15s %zu %zu", isa, &weights, &need) != 3) return;
    n = rounds_of(&ours, with ? &torch : NULL, c->rounds);
    stop(&ours);
    if (with) stop(&torch);
    if (!n) return;
    width = strcmp(isa, "avx512") == 0 ? 16 : strcmp(isa, "avx2") == 0 ? 8 : 1;
    peak = peak_per_thread(width) * (double)strtoul(threads, NULL, 10);
    flops = model_flops(c, (double)weights);
    printf("%s: %zu layers of %zu, vocabulary %zu, %zu rows of about %zu tokens, %zu weights; %s threads, %s; peak %.0f GFLOP/s\n", c->name,
           c->layers, c->dim, c->vocab, c->rows, c->length, weights, threads, isa, peak * 1e-9);
    printf("  %-22s median %8.1f ms, least %8.1f ms, processor %8.1f ms; %5.1f %% of peak\n", "offline_rlhf.h", 1e3 * median(ours.wall, n),
           1e3 * least(ours.wall, n), 1e3 * median(ours.cpu, n), peak > 0 ? 100 * flops / median(ours.wall, n) / peak : 0.0);
    memset(&row, 0, sizeof row);
    row.bench = "train", row.name = c->name, row.isa = isa, row.threads = (size_t)strtoul(threads, NULL, 10), row.unit = "s";
    row.ours = median(ours.wall, n), row.peak_fraction = flops / row.ours / peak;
    if (with) {
        row.peer_name = "PyTorch", row.peer = median(torch.wall, n), row.ratio = median_ratio(torch.wall, ours.wall, n);
        printf("  %-22s median %8.1f ms, least %8.1f ms, processor %8.1f ms; %5.1f %% of peak\n", "PyTorch", 1e3 * median(torch.wall, n),
               1e3 * least(torch.wall, n), 1e3 * median(torch.cpu, n), peak > 0 ? 100 * flops / median(torch.wall, n) / peak : 0.0);
        printf("  ours is faster by       %.2f (median of %d pairs of steps; least by least %.2f; processor time %.2f)\n", row.ratio, n,
               least(torch.wall, n) / least(ours.wall, n), median_ratio(torch.cpu, ours.cpu, n));
    } else if (script) {
        printf("  PyTorch is not there: apt install python3-torch (Debian), then /usr/bin/python3 has it\n");
    }
    bench_json(&row);
    printf("  memory: at most %.1f MB resident, estimated before the run %.1f MB: %+.1f %%\n", ours.rss / 1e6, (double)need / 1e6,
           100 * ((double)need / ours.rss - 1));
    if (with) printf("          PyTorch %.1f MB\n", torch.rss / 1e6);
    row.bench = "train memory", row.unit = "bytes", row.ours = ours.rss, row.peak_fraction = (double)NAN;
    row.peer = with ? torch.rss : 0, row.ratio = with ? torch.rss / ours.rss : 0;
    bench_json(&row);
    row.bench = "train memory estimate", row.peer_name = "estimate", row.peer = (double)need, row.ratio = (double)need / ours.rss;
    bench_json(&row);
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *threads = argc > 1 ? argv[1] : "2";
    const char *script = getenv("TORCH_LLAMA") ? getenv("TORCH_LLAMA") : "tests/bench/torch_llama.py"; /* empty: none */
    if (argc == 4 && strcmp(argv[1], "serve") == 0) return serve(case_named(argv[2]), (size_t)strtoul(argv[3], NULL, 10));
    signal(SIGPIPE, SIG_IGN);
    if (argc == 6 && strcmp(argv[1], "compare") == 0) return compare(case_named(argv[2]), argv[3], argv[4], argv[5]);
    table_row(&cases[0], argv[0], threads, script);
    table_row(&cases[1], argv[0], threads, NULL);
    return 0;
}
