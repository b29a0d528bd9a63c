/* bench_score.c - a reward model scores pairs, beside PyTorch with the same weights on the same ids.
 *   cc -O2 tests/bench/bench_score.c -o bench_score -lm -lpthread
 *   ./bench_score [threads] [PAIRS.jsonl …] [pairs=N] [rounds=N] [alone]     alone: without PyTorch
 * A Llama of 15M weights and a context of 1024. PAIRS: files of {"chosen", "rejected"} transcripts; a tokenizer is
 * learned from them, and a response past the context is cut. Without them ids are drawn at random, in prompts and
 * responses about as long as those of hh-rlhf. In each round both score `pairs` pairs that they have not seen, one
 * after the other; the rewards must agree. Ours computes a pair's prompt once and pads nothing. To be run where
 * tests/bench and build/ are: model and ids are handed over in build/bench/score. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"
#include "bench.h"
#include "worker.h"
#include <signal.h>

#define FOLDER "build/bench/score"
#define VOCAB 32000
#define CONTEXT 1024
#define MOST_ROUNDS 32
#define AGREE 1e-3 /* largest difference of rewards, which have a deviation of about 1 */

typedef struct options {
    size_t threads, pairs, rounds; /* pairs: in a round */
    int alone;
    const char *file[16];
    size_t files;
} options;

typedef struct measured {
    double ours[MOST_ROUNDS], torch[MOST_ROUNDS], ratio[MOST_ROUNDS];
    double cpu, torch_cpu;             /* processor-seconds of all rounds: they say more on a busy machine */
    double tokens, whole, fed, differ; /* ours fed; with the prompt twice; PyTorch with its padding */
    size_t scored;
} measured;

/* ---- pairs of ids ---------------------------------------------------------------------------------------------- */

static void put_ids(orli_str *s, const char *name, const int32_t *ids, size_t n) {
    size_t i;
    orli_str_printf(s, "%s\"%s\": [", s->length && s->data[s->length - 1] == ']' ? ", " : "{", name);
    for (i = 0; i < n; i++) orli_str_printf(s, "%s%d", i ? ", " : "", (int)ids[i]);
    orli_str_puts(s, "]");
}

/* median·e^(deviation·normal), within the range */
static size_t drawn_length(orli_rng *r, double median, double deviation, double low, double high) {
    const double x = median * exp(deviation * orli_rng_normal(r));
    return (size_t)ORLI_MIN(ORLI_MAX(x, low), high);
}

static void generated(orli_str *line, size_t n, size_t *end) {
    static const char *const name[] = {"prompt_ids", "chosen_ids", "rejected_ids"};
    orli_rng r = orli_rng_new(1, 0);
    int32_t ids[CONTEXT];
    size_t i, j, t;
    for (i = 0; i < n; i++) {
        for (j = 0; j < 3; j++) {
            size_t length = j ? drawn_length(&r, 34, 0.9, 2, 360) : drawn_length(&r, 90, 0.9, 8, 640);
            for (t = 0; t < length; t++) ids[t] = 3 + (int32_t)((VOCAB - 3) * orli_rng_uniform(&r));
            put_ids(line, name[j], ids, length);
        }
        orli_str_puts(line, "}\n");
        end[i] = line->length;
    }
}

/* Pairs of the files in turns, as the model sees them. Returns how many there are. */
static size_t from_files(orl_ctx *ctx, const options *o, const orl_model_config *mc, orli_str *line, size_t n,
                         size_t *end) {
    orl_dataset *d[16];
    orli_examples e[16];
    orli_str text = orli_str_new(ctx);
    orl_tokenizer *tok;
    orl_model *m, *rm;
    size_t f, i, k, have = 0;
    for (f = 0; f < o->files; f++) {
        d[f] = orl_dataset_load(ctx, o->file[f]);
        for (i = 0; i < orl_dataset_count(d[f]); i++) {
            const orl_row *r = orl_dataset_row(d[f], i);
            orli_str_add(&text, r->prompt.text, r->prompt.bytes);
            orli_str_add(&text, r->response.text, r->response.bytes);
        }
    }
    tok = orl_tokenizer_train(ctx, text.data, text.length, VOCAB, NULL);
    m = orl_model_create(ctx, mc, tok), rm = orl_reward_model(m);
    for (f = 0; f < o->files && !orl_failed(ctx); f++) orli_examples_build(&e[f], rm, d[f], 2);
    for (i = k = 0; have < n && k < o->files && !orl_failed(ctx); i++)
        for (f = k = 0; f < o->files && have < n; f++) {
            const orli_example *x = i < e[f].count ? &e[f].example[i] : NULL;
            if (!x) {
                k++; /* this one has no more */
                continue;
            }
            put_ids(line, "prompt_ids", e[f].ids + x->prompt, x->prompt_count);
            put_ids(line, "chosen_ids", e[f].ids + x->response[0], x->count[0]);
            put_ids(line, "rejected_ids", e[f].ids + x->response[1], x->count[1]);
            orli_str_puts(line, "}\n");
            end[have++] = line->length;
        }
    for (f = 0; f < o->files && !orl_failed(ctx); f++) orli_examples_free(&e[f]);
    orli_str_free(&text);
    orl_model_free(rm), orl_model_free(m);
    return have;
}

/* ---- rounds ---------------------------------------------------------------------------------------------------- */

static double process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double score_ours(orl_model *m, orl_dataset *d, measured *out) {
    const double begin = bench_seconds(), cpu = process_seconds();
    orl_score(m, d);
    if (out) out->cpu += process_seconds() - cpu;
    return bench_seconds() - begin;
}

/* Seconds, and how far its rewards are from ours. 0: it has stopped. */
static double score_torch(bench_worker *w, orl_dataset *d, size_t first, measured *out) {
    const struct timespec pause = {0, 30000000}; /* our threads may spin for a while */
    double seconds, cpu, fed, chosen, rejected;
    size_t i, n = orl_dataset_count(d);
    char line[128];
    nanosleep(&pause, NULL);
    fprintf(w->to, "%zu %zu\n", first, first + n);
    fflush(w->to);
    if (!fgets(line, sizeof line, w->from) || sscanf(line, "%lf %lf %lf", &seconds, &cpu, &fed) != 3) return 0;
    out->torch_cpu += cpu, out->fed += fed;
    for (i = 0; i < n; i++) {
        const orl_row *r = orl_dataset_row(d, i);
        if (!fgets(line, sizeof line, w->from) || sscanf(line, "%lf %lf", &chosen, &rejected) != 2) return 0;
        out->differ = ORLI_MAX(out->differ, fabs(chosen - r->reward_raw));
        out->differ = ORLI_MAX(out->differ, fabs(rejected - r->rejected_reward_raw));
    }
    nanosleep(&pause, NULL);
    return seconds;
}

static void report(orl_ctx *ctx, const options *o, const measured *m, size_t rounds, int with_torch) {
    const double pairs = (double)m->scored / (double)rounds;
    bench_row row;
    memset(&row, 0, sizeof row);
    row.bench = "score", row.name = o->files ? "15M, pairs from files" : "15M, pairs of random ids";
    row.isa = orl_isa(ctx), row.threads = orl_threads(ctx), row.unit = "pairs/s";
    row.peer_name = with_torch ? "PyTorch" : NULL, row.peak_fraction = (double)NAN;
    row.ours = pairs / bench_median(m->ours, rounds);
    printf("  %zu pairs in %zu rounds: %.0f tokens a pair, with the prompt twice %.0f\n", m->scored, rounds,
           m->tokens / (double)m->scored, m->whole / (double)m->scored);
    printf("  %-16s %7.1f pairs/s\n", "offline_rlhf.h", row.ours);
    if (with_torch) {
        row.peer = pairs / bench_median(m->torch, rounds), row.ratio = bench_median(m->ratio, rounds);
        printf("  %-16s %7.1f pairs/s, %.0f tokens a pair with padding; rewards differ by at most %.1e%s\n", "PyTorch",
               row.peer, m->fed / (double)m->scored, m->differ, m->differ <= AGREE ? "" : ": NOT THE SAME WORK");
        printf("  ours is %.2f × as fast (median of the rounds' ratios); by processor-seconds of all rounds %.2f ×\n",
               row.ratio, m->torch_cpu / m->cpu);
    }
    bench_json(&row);
}

static void rounds_of(orl_ctx *ctx, const options *o, orl_model *rm, const orli_str *line, const size_t *end,
                      bench_worker *torch) {
    static measured m;
    orl_dataset *few = orl_dataset_parse(ctx, line->data, end[ORLI_MIN(o->pairs, 32) - 1], "pairs");
    size_t r, i;
    score_ours(rm, few, NULL); /* to warm up: PyTorch has done so */
    orl_dataset_free(few);
    for (r = 0; r < o->rounds && !orl_failed(ctx); r++) {
        const size_t first = r * o->pairs, begin = first ? end[first - 1] : 0;
        orl_dataset *d = orl_dataset_parse(ctx, line->data + begin, end[first + o->pairs - 1] - begin, "pairs");
        m.ours[r] = score_ours(rm, d, &m);
        if (torch && (m.torch[r] = score_torch(torch, d, first, &m)) <= 0) {
            printf("  no figures: PyTorch stopped working\n");
            return;
        }
        m.ratio[r] = m.torch[r] / m.ours[r];
        m.scored += orl_dataset_count(d);
        for (i = 0; i < orl_dataset_count(d); i++) {
            const orl_row *x = orl_dataset_row(d, i);
            m.tokens += (double)(x->prompt.tokens + x->response.tokens + x->rejected.tokens);
            m.whole += (double)(2 * x->prompt.tokens + x->response.tokens + x->rejected.tokens);
        }
        orl_dataset_free(d);
    }
    if (!orl_failed(ctx)) report(ctx, o, &m, o->rounds, torch != NULL);
}

static void bench(orl_ctx *ctx, options *o) {
    const size_t wanted = o->pairs * o->rounds;
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orli_str line = orli_str_new(ctx);
    size_t *end = (size_t *)malloc(wanted * sizeof *end), have = wanted;
    const char *argv[6] = {NULL, "tests/bench/torch_score.py", FOLDER, FOLDER "/pairs.jsonl", NULL, NULL};
    char threads[24];
    bench_worker torch;
    orl_model *trunk, *rm;
    int with_torch;
    mc.dim = 288, mc.layers = 6, mc.heads = mc.kv_heads = 6, mc.ffn = 768, mc.vocab = VOCAB, mc.context = CONTEXT;
    if (o->files) have = from_files(ctx, o, &mc, &line, wanted, end);
    else generated(&line, wanted, end);
    if (have && have < wanted) o->rounds = ORLI_MAX(have / o->pairs, 1), o->pairs = ORLI_MIN(o->pairs, have);
    trunk = orl_model_create(ctx, &mc, NULL), rm = orl_reward_model(trunk);
    remove(FOLDER "/model.safetensors"), remove(FOLDER "/config.json"); /* of an earlier run */
    orl_model_save(rm, FOLDER);
    orli_write_file(ctx, argv[3], line.data, line.length);
    snprintf(threads, sizeof threads, "%zu", orl_threads(ctx));
    argv[4] = threads;
    with_torch = !o->alone && !orl_failed(ctx) && bench_width(orl_isa(ctx)) &&
                 bench_start_torch(&torch, argv, threads, bench_width(orl_isa(ctx)) == 16);
    if (with_torch) printf("  PyTorch %s", strchr(torch.ready, ' ') + 1);
    else if (!o->alone) printf("  PyTorch is not there: apt install python3-torch (Debian)\n");
    if (!orl_failed(ctx) && have) rounds_of(ctx, o, rm, &line, end, with_torch ? &torch : NULL);
    if (with_torch) bench_stop(&torch);
    free(end);
    orli_str_free(&line);
}

int main(int argc, char **argv) {
    orl_config config = orl_config_default();
    options o;
    orl_ctx *ctx;
    int i;
    memset(&o, 0, sizeof o);
    o.pairs = 150, o.rounds = 3, config.threads = 2;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "alone") == 0) o.alone = 1;
        else if (strncmp(argv[i], "pairs=", 6) == 0) o.pairs = ORLI_MAX(32, (size_t)strtoul(argv[i] + 6, NULL, 10));
        else if (strncmp(argv[i], "rounds=", 7) == 0) o.rounds = ORLI_MAX(1, (size_t)strtoul(argv[i] + 7, NULL, 10));
        else if (i == 1 && strtoul(argv[i], NULL, 10) > 0) config.threads = (size_t)strtoul(argv[i], NULL, 10);
        else if (o.files < 16) o.file[o.files++] = argv[i];
    }
    o.rounds = ORLI_MIN(o.rounds, MOST_ROUNDS);
    signal(SIGPIPE, SIG_IGN);
    ctx = orl_create(&config);
    if (o.files) printf("a reward model of 15M weights scores pairs from %zu files\n", o.files);
    else printf("a reward model of 15M weights scores pairs of random ids, as long as hh-rlhf's; "
                "BENCH_PAIRS=\"FILE …\" has it score real ones\n");
    fflush(stdout);
    bench(ctx, &o);
    if (orl_failed(ctx)) printf("  no figures: %s\n", orl_error(ctx));
    orl_destroy(ctx);
    return 0;
}
