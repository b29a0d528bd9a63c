/* bench_tokenizer.c - encoding and decoding beside npm's tokenizers, on one thread, and the worst a text can be.
 *   cc -O2 tests/bench/bench_tokenizer.c -o bench_tokenizer -lm -lpthread && ./bench_tokenizer
 * $ORL_DATA (../shared/data): the folders preference and tokenizers. $ORL_NPM: a node_modules with tiktoken,
 * gpt-tokenizer, ai-tokenizer and @huggingface/tokenizers. Of what is not there, it says so. Both sides encode the same
 * texts, one by one, in turns; what is counted is the time of the processor. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 5
#define WARM 2 /* rounds before, for both: JavaScript is compiled as it runs */

typedef struct texts {
    char **text;
    size_t *bytes, count, total, capacity, bytes_capacity;
} texts;

static const char *data_dir(void) { return getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data"; }

static void texts_add(orl_ctx *ctx, texts *t, const char *text, size_t n) {
    if (ORLI_RESERVE(ctx, t->text, t->capacity, t->count + 1) != ORL_OK ||
        ORLI_RESERVE(ctx, t->bytes, t->bytes_capacity, t->count + 1) != ORL_OK)
        return;
    t->text[t->count] = orli_copy_bytes(ctx, text, n);
    t->bytes[t->count++] = n;
    t->total += n;
}

/* The "chosen" of each row; without the data, pieces of the library's own text. */
static void texts_load(orl_ctx *ctx, texts *t) {
    static const char *const name[] = {"hh-helpful-base.jsonl", "hh-harmless-base.jsonl"};
    char path[900];
    orli_file file;
    size_t i, at, end;
    for (i = 0; i < 2; i++) {
        orl_dataset *d;
        snprintf(path, sizeof path, "%s/preference/%s", data_dir(), name[i]);
        if (!orli_exists(path)) continue;
        d = orl_dataset_load(ctx, path);
        for (at = 0; at < orl_dataset_count(d); at++) {
            const orl_row *r = orl_dataset_row(d, at);
            orli_str s = orli_str_new(ctx);
            orli_str_add(&s, r->prompt.text, r->prompt.bytes);
            orli_str_add(&s, r->response.text, r->response.bytes);
            texts_add(ctx, t, s.data, s.length);
            orli_str_free(&s);
        }
    }
    if (t->count || orl_failed(ctx)) return;
    printf("no %s/preference (set ORL_DATA): the text is offline_rlhf.h\n", data_dir());
    if (orli_file_open(ctx, "offline_rlhf.h", &file) != ORL_OK) return;
    for (at = 0; at < file.size; at = end) {
        for (end = ORLI_MIN(at + 800, file.size); end < file.size && file.data[end - 1] != '\n'; end++) {}
        texts_add(ctx, t, file.data + at, end - at);
    }
    orli_file_close(&file);
}

static void texts_write(orl_ctx *ctx, const texts *t, const char *path) {
    orli_str s = orli_str_new(ctx);
    size_t i;
    for (i = 0; i < t->count; i++) {
        orli_json_put_string(&s, t->text[i], t->bytes[i]);
        orli_str_puts(&s, "\n");
    }
    orli_write_file(ctx, path, s.data, s.length);
    orli_str_free(&s);
}

/* ---- a peer in a process of its own: a line in, seconds and ids out ---- */

typedef struct peer {
    pid_t pid;
    FILE *to, *from;
} peer;

static int peer_start(peer *p, const char *const *argv) {
    int in[2], out[2];
    char line[256];
    memset(p, 0, sizeof *p);
    if (pipe(in) != 0 || pipe(out) != 0) return 0;
    p->pid = fork();
    if (p->pid == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(in[0], 0), dup2(out[1], 1);
        if (nowhere >= 0) dup2(nowhere, 2);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execvp(argv[0], (char *const *)(size_t)argv);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    p->to = fdopen(in[1], "w"), p->from = fdopen(out[0], "r");
    return p->to && p->from && fgets(line, sizeof line, p->from) && strncmp(line, "ready", 5) == 0;
}

static void peer_stop(peer *p) {
    if (p->to) fclose(p->to);
    if (p->from) fclose(p->from);
    if (p->pid > 0) waitpid(p->pid, NULL, 0);
}

static double peer_round(peer *p, size_t *ids) { /* NaN: it broke down */
    char line[256];
    double seconds = NAN;
    if (!p->to) return seconds;
    fputs("\n", p->to), fflush(p->to);
    if (!fgets(line, sizeof line, p->from) || sscanf(line, "%lf %zu", &seconds, ids) != 2) return (double)NAN;
    return seconds;
}

/* ---- rows ---- */

static void put_row(const char *name, double ours, const char *peer_name, double theirs, double ratio) {
    bench_row row;
    memset(&row, 0, sizeof row);
    row.bench = "tokenizer", row.name = name, row.isa = "scalar", row.threads = 1, row.unit = "MB/s";
    row.ours = ours, row.peer = theirs, row.peer_name = peer_name, row.ratio = ratio, row.peak_fraction = (double)NAN;
    bench_json(&row);
    printf("%-34s %7.1f MB/s", name, ours);
    if (peer_name) printf("   %-24s %7.1f MB/s   ratio %.1f", peer_name, theirs, ratio);
    printf("\n");
    fflush(stdout);
}

static double encode_all(const orl_tokenizer *tok, const texts *t, size_t *ids) {
    double began = bench_seconds();
    size_t i, n, sum = 0;
    for (i = 0; i < t->count; i++) {
        int32_t *id = NULL;
        orl_encode(tok, t->text[i], t->bytes[i], 0, &id, &n);
        orl_free(tok->object.ctx, id);
        sum += n;
    }
    *ids = sum;
    return bench_seconds() - began;
}

/* Ours beside one peer, in turns. */
static void beside(const orl_tokenizer *tok, const texts *t, const char *name, const char *package, const char *kind,
                   const char *file, const char *source) {
    const char *npm = getenv("ORL_NPM"), *argv[8];
    char which[100], folder[900];
    double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS], mb = 1e-6 * (double)t->total;
    size_t ids = 0, their_ids = 0, i;
    peer p;
    snprintf(which, sizeof which, "%s:%s", package, kind);
    snprintf(folder, sizeof folder, "%s/%s", npm ? npm : "node_modules", package);
    argv[0] = "node", argv[1] = "tests/bench/tokenizers.mjs", argv[2] = npm ? npm : "node_modules", argv[3] = which;
    argv[4] = file, argv[5] = source, argv[6] = argv[7] = NULL;
    if (!orli_exists(folder) || !peer_start(&p, argv)) {
        printf("  %s is not there: npm install %s, and set ORL_NPM to that node_modules\n", package, package);
        return;
    }
    for (i = 0; i < WARM; i++) encode_all(tok, t, &ids), peer_round(&p, &their_ids);
    for (i = 0; i < ROUNDS; i++) {
        ours[i] = encode_all(tok, t, &ids);
        theirs[i] = peer_round(&p, &their_ids);
        ratio[i] = theirs[i] / ours[i];
    }
    peer_stop(&p);
    put_row(name, mb / bench_median(ours, ROUNDS), package, mb / bench_median(theirs, ROUNDS),
            bench_median(ratio, ROUNDS));
    if (ids != their_ids) printf("  the two do not agree: %zu ids, %zu theirs\n", ids, their_ids);
}

static void decoding(const orl_tokenizer *tok, const texts *t, const char *name) {
    double seconds[ROUNDS];
    size_t i, round, n;
    for (round = 0; round < ROUNDS; round++) {
        seconds[round] = 0;
        for (i = 0; i < t->count; i++) {
            int32_t *id = NULL;
            char *text = NULL;
            double began;
            orl_encode(tok, t->text[i], t->bytes[i], 0, &id, &n);
            began = bench_seconds();
            orl_decode(tok, id, n, 0, &text, NULL);
            seconds[round] += bench_seconds() - began;
            orl_free(tok->object.ctx, id), orl_free(tok->object.ctx, text);
        }
    }
    put_row(name, 1e-6 * (double)t->total / bench_median(seconds, ROUNDS), NULL, 0, 0);
}

/* One megabyte and two of what is hard: the speed, and how much longer twice the text takes. */
static void worst(const orl_tokenizer *tok, const char *of) {
    static const char *const what[] = {"one letter", "spaces", "random bytes", "random letters", "newlines"};
    const size_t most = (size_t)2 << 20;
    char *text = (char *)malloc(most), name[100];
    orli_rng r = orli_rng_new(5, 1);
    size_t i, k, n, round;
    for (i = 0; text && i < 5; i++) {
        double best[2] = {1e9, 1e9};
        for (k = 0; k < most; k++)
            text[k] = i == 0 ? 'a' : i == 1 ? ' ' : i == 4 ? '\n'
                      : (char)(i == 2 ? orli_rng_below(&r, 256) : 'a' + orli_rng_below(&r, 26));
        for (round = 0; round < 5; round++)
            for (k = 0; k < 2; k++) {
                int32_t *id = NULL;
                double began = bench_seconds();
                orl_encode(tok, text, most >> (1 - k), 0, &id, &n);
                best[k] = ORLI_MIN(best[k], bench_seconds() - began);
                orl_free(tok->object.ctx, id);
            }
        snprintf(name, sizeof name, "%s, 1 MB of %s", of, what[i]);
        put_row(name, 1.048576 / best[0], NULL, 0, 0);
        printf("  twice as much takes %.2f times as long\n", best[1] / best[0]);
    }
    free(text);
}

/* A rank file from npm's tiktoken, as in tests/test_10_tokenizer.c; 0 if it is not there. */
static int rank_file(orl_ctx *ctx, const char *kind, const char *path) {
    char source[900], *at, *line, *word;
    const char *npm = getenv("ORL_NPM");
    orli_str out = orli_str_new(ctx), lines = orli_str_new(ctx);
    orli_file file;
    orli_json j;
    snprintf(source, sizeof source, "%s/tiktoken/encoders/%s.json", npm ? npm : "node_modules", kind);
    if (!orli_exists(source) || orli_file_open(ctx, source, &file) != ORL_OK) return 0;
    j = orli_json_new(ctx, file.data, file.size, source, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "bpe_ranks")) orli_json_string(&j, &lines);
        else orli_json_skip(&j);
    }
    for (at = lines.data; at && *at; at = line) {
        long rank;
        line = at + strcspn(at, "\n");
        if (*line) *line++ = 0;
        word = strchr(at, ' ');
        for (rank = word ? strtol(word, &word, 10) : 0; word && *word == ' '; rank++) {
            size_t n = strcspn(++word, " ");
            orli_str_printf(&out, "%.*s %ld\n", (int)n, word, rank);
            word += n;
        }
    }
    orli_file_close(&file);
    orli_write_file(ctx, path, out.data, out.length);
    orli_str_free(&out), orli_str_free(&lines);
    return !orl_failed(ctx);
}

int main(void) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    orl_tokenizer *tok;
    texts t;
    char folder[] = "/tmp/bench_tokenizer_XXXXXX", file[100], ranks[100], path[900];
    memset(&t, 0, sizeof t);
    config.threads = 1;
    ctx = orl_create(&config);
    bench_own_time = 1;
    signal(SIGPIPE, SIG_IGN);
    texts_load(ctx, &t);
    if (!t.count || !mkdtemp(folder)) return printf("no text: start this in the repository\n"), 0;
    snprintf(file, sizeof file, "%s/texts", folder);
    texts_write(ctx, &t, file);
    printf("encoding %zu texts of %.1f MB, one by one, on one thread\n", t.count, 1e-6 * (double)t.total);
    snprintf(path, sizeof path, "%s/tokenizers/gpt2", data_dir());
    if (orli_exists(path)) {
        tok = orl_tokenizer_load(ctx, path);
        beside(tok, &t, "GPT-2", "tiktoken", "gpt2", file, NULL);
        beside(tok, &t, "GPT-2", "gpt-tokenizer", "r50k_base", file, NULL);
        decoding(tok, &t, "GPT-2, decoding");
        worst(tok, "GPT-2");
    } else {
        printf("no %s (set ORL_DATA)\n", path);
    }
    snprintf(path, sizeof path, "%s/tokenizers/qwen3", data_dir());
    if (orli_exists(path)) {
        tok = orl_tokenizer_load(ctx, path);
        strncat(path, "/tokenizer.json", sizeof path - strlen(path) - 1);
        beside(tok, &t, "Qwen3", "@huggingface/tokenizers", "json", file, path);
    }
    snprintf(ranks, sizeof ranks, "%s/cl100k_base.tiktoken", folder);
    if (rank_file(ctx, "cl100k_base", ranks)) {
        tok = orl_tokenizer_load_tiktoken(ctx, ranks, NULL);
        beside(tok, &t, "cl100k_base", "tiktoken", "cl100k_base", file, NULL);
        beside(tok, &t, "cl100k_base", "gpt-tokenizer", "cl100k_base", file, NULL);
        beside(tok, &t, "cl100k_base", "ai-tokenizer", "cl100k_base", file, NULL);
        decoding(tok, &t, "cl100k_base, decoding");
        worst(tok, "cl100k_base");
    } else {
        printf("no cl100k_base: npm install tiktoken, and set ORL_NPM to that node_modules\n");
    }
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    remove(ranks), remove(file), rmdir(folder);
    return 0;
}
