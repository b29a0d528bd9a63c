/* bench_learn.c - learning a tokenizer of 30,000 tokens from a file, beside Hugging Face's trainer (Rust).
 *   cc -O2 tests/bench/bench_learn.c -o bench_learn -lm -lpthread && ./bench_learn [threads] [TEXT]
 * Without TEXT, 32 MB of words made up with natural frequencies. The peer needs node and, in the directory that
 * $ORL_TOKENIZERS names, `npm install tokenizers`; run from the top of the repository. Seconds of processor time. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include <sys/resource.h>

#define VOCAB 30000
#define LEXICON 300000

static double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + 1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

/* Words of syllables; the k-th most frequent occurs about 1/k as often as the first (Zipf). */
static void make_text(const char *path, size_t bytes) {
    static const char *const syllable[] = {"the", "an", "in", "er", "re", "on", "at", "st", "en", "al", "it",
                                           "or", "ti", "te", "le", "co", "ma", "pro", "ing", "ed", "ly", "qu"};
    static const char *const gap[] = {" ", " ", " ", " ", " ", " ", " ", ", ", ". ", "\n"};
    FILE *f = fopen(path, "wb");
    orli_rng r = orli_rng_new(1, 0);
    size_t at = 0, i, syllables;
    if (!f) exit(1);
    while (at < bytes) {
        size_t word = (size_t)exp(orli_rng_uniform(&r) * log(LEXICON));
        orli_rng spelling = orli_rng_new(2, word);
        char text[64];
        text[0] = 0;
        syllables = 1 + orli_rng_below(&spelling, 4);
        for (i = 0; i < syllables; i++)
            strcat(text, syllable[orli_rng_below(&spelling, sizeof syllable / sizeof *syllable)]);
        strcat(text, gap[orli_rng_below(&r, sizeof gap / sizeof *gap)]);
        at += strlen(text);
        fputs(text, f);
    }
    fclose(f);
}

/* Their wall-clock and processor seconds; 0: the peer is not there. */
static int peer(const char *path, size_t threads, double *wall, double *cpu) {
    const char *dir = getenv("ORL_TOKENIZERS");
    char command[8192], here[2048], line[1024];
    FILE *f;
    int ok = 0;
    if (!dir || !getcwd(here, sizeof here)) return 0;
    snprintf(command, sizeof command,
             "cd '%s' && RAYON_NUM_THREADS=%zu node '%s/tests/golden/bpe_huggingface.mjs' --time '%s' 2>/dev/null", dir,
             threads, here, path);
    f = popen(command, "r");
    while (f && fgets(line, sizeof line, f))
        ok |= sscanf(line, "{\"wall\":%lf,\"cpu\":%lf}", wall, cpu) == 2;
    if (f) pclose(f);
    return ok;
}

static void bench(const char *path, double megabytes, size_t threads) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    orl_tokenizer *tok;
    double walls[3], cpus[3], wall, cpu, their_wall = 0, their_cpu = 0;
    bench_row row;
    int found = peer(path, threads, &their_wall, &their_cpu), i;
    config.threads = threads;
    ctx = orl_create(&config);
    for (i = 0; i < 3; i++) {
        walls[i] = -bench_seconds(), cpus[i] = -cpu_seconds();
        tok = orl_tokenizer_train_files(ctx, &path, 1, VOCAB, NULL);
        if (!tok) fprintf(stderr, "%s\n", orl_error(ctx)), exit(1);
        orl_tokenizer_free(tok);
        walls[i] += bench_seconds(), cpus[i] += cpu_seconds();
    }
    wall = bench_median(walls, 3), cpu = bench_median(cpus, 3);
    printf("%7zu %10.1f %10.2f %10.2f %10.1f", threads, megabytes, wall, cpu, megabytes / wall);
    if (found) printf(" %10.2f %10.2f %9.1f\n", their_wall, their_cpu, their_cpu / cpu);
    else printf("          -          -         -\n");
    memset(&row, 0, sizeof row);
    row.bench = "learn", row.name = "bpe 30000", row.isa = orl_isa(ctx), row.threads = threads;
    row.unit = "MB per processor second", row.ours = megabytes / cpu, row.peak_fraction = (double)NAN;
    if (found) row.peer_name = "huggingface tokenizers", row.peer = megabytes / their_cpu, row.ratio = their_cpu / cpu;
    bench_json(&row);
    orl_destroy(ctx);
}

int main(int argc, char **argv) {
    size_t threads = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1, i;
    char made[] = "/tmp/orl_bench_learn_XXXXXX";
    char path[4096];
    struct stat info;
    if (argc > 2) {
        if (!realpath(argv[2], path)) return fprintf(stderr, "%s: cannot be found\n", argv[2]), 1;
    } else {
        int fd = mkstemp(made);
        if (fd < 0) return 1;
        close(fd);
        make_text(made, (size_t)32 << 20);
        snprintf(path, sizeof path, "%s", made);
    }
    if (stat(path, &info) != 0) return 1;
    if (!getenv("ORL_TOKENIZERS"))
        printf("no peer: Hugging Face's tokenizers (npm install tokenizers, and ORL_TOKENIZERS=that directory)\n");
    printf("threads   megabytes    seconds  processor      MB/s   theirs: s  processor  ratio of processor time\n");
    for (i = 1; i <= threads; i *= 2) bench(path, (double)info.st_size * 1e-6, i);
    if (argc <= 2) remove(made);
    return 0;
}
