/* test_12_sampling.c - section 12: the options of sampling against a plain reference, stop strings, streaming, bounds.
 * builds: float double threads
 * The reference computes each distribution in double, by sorting. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"
#include "sampling.h"

#define VOCAB 13
#define CONTEXT 60
#define MOST 5000 /* entries the reference can sort */

static orl_ctx *ctx;
static int quick; /* under sanitizers */

static orl_ctx *context(size_t threads) {
    orl_config config = orl_config_default();
    config.threads = threads;
    return orl_create(&config);
}

static orl_model *make_model(orl_ctx *c, size_t vocab, double spread, orl_tokenizer *tok) {
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_model *m;
    orl_param *p;
    orli_rng r = orli_rng_new(5, 0);
    size_t i;
    mc.dim = 16, mc.heads = 4, mc.kv_heads = 2, mc.layers = 2, mc.ffn = 18;
    mc.vocab = vocab, mc.context = CONTEXT, mc.tied = 0;
    m = orl_model_create(c, &mc, tok);
    for (p = m ? m->params->first : NULL; p; p = p->next) {
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] += (orl_real)(spread * orli_rng_normal(&r));
        orl_param_changed(p);
    }
    return m;
}

/* ---- the reference: bias and bans, penalty, temperature, top-k, top-p, min-p ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Zeroes what is below `least` and rescales to 1. */
static void keep(double *p, size_t n, double least) {
    double sum = 0;
    size_t i;
    for (i = 0; i < n; i++) sum += p[i] = p[i] >= least ? p[i] : 0;
    for (i = 0; i < n; i++) p[i] /= sum;
}

static double sorted[MOST];
static void sort_into(const double *p, size_t n) {
    memcpy(sorted, p, n * sizeof *p);
    qsort(sorted, n, sizeof *sorted, by_size);
}

static void reference(const orl_real *z, size_t n, const int32_t *ids, size_t count, const orl_generate_options *o,
                      double *p) {
    size_t i, k, best = 0;
    double mass, most = -HUGE_VAL;
    for (i = 0; i < n; i++) p[i] = (double)z[i];
    for (i = 0; i < o->biases; i++) p[o->logit_bias[i].id] += o->logit_bias[i].bias;
    for (i = 0; i < o->forbids; i++) p[o->forbidden[i]] = -HUGE_VAL;
    for (i = 0; i < n; i++) {
        for (k = 0; k < count && (size_t)ids[k] != i; k++) {}
        if (k < count) p[i] = p[i] < 0 ? p[i] * o->repetition_penalty : p[i] / o->repetition_penalty;
        if (p[i] > most) most = p[best = i];
    }
    if (!(o->temperature > 0)) {
        for (i = 0; i < n; i++) p[i] = i == best;
        return;
    }
    for (i = 0; i < n; i++) p[i] = exp((p[i] - most) / o->temperature);
    keep(p, n, 0);
    if (o->top_k && o->top_k < n) sort_into(p, n), keep(p, n, sorted[o->top_k - 1]);
    if (o->top_p < 1) {
        sort_into(p, n);
        for (k = 0, mass = 0; k < n && mass < o->top_p; k++) mass += sorted[k];
        keep(p, n, sorted[k - 1]);
    }
    if (o->min_p > 0) sort_into(p, n), keep(p, n, o->min_p * sorted[0]);
}

/* ---- each option alone, and all together ---- */

static const orl_bias biases[] = {{3, 2.5}, {7, -1.5}, {3, -0.5}, {0, 0.25}};
static const int32_t bans[] = {1, 5, 5, 12};
static const struct way { /* bias, ban: how many of these */
    double temperature, top_p, min_p, penalty;
    size_t top_k, bias, ban;
} ways[] = {
    {1, 1, 0, 1, 0, 0, 0},   {1, 1, 0.1, 1, 0, 0, 0},  {1, 1, 0.5, 1, 0, 0, 0},  {1, 1, 1, 1, 0, 0, 0},
    {2, 1, 0.3, 1, 0, 0, 0}, {1, 1, 0, 1.7, 0, 0, 0},  {1, 1, 0, 0.6, 0, 0, 0},  {1, 1, 0, 1, 0, 4, 0},
    {1, 1, 0, 1, 0, 0, 4},   {1, 0.8, 0, 1, 6, 0, 0},  {0.7, 0.9, 0.05, 1.2, 9, 2, 2},
    {1.5, 0.95, 0.02, 1.4, 11, 4, 4}, {3, 0.7, 0.4, 0.8, 5, 1, 3}, {1, 1, 0, 1, 12, 0, 4}, {0, 1, 0, 2, 0, 4, 4}};
#define WAYS (sizeof ways / sizeof *ways)

static orl_generate_options way_options(size_t w, size_t samples, size_t max_tokens) {
    orl_generate_options o = options(samples, max_tokens);
    o.temperature = ways[w].temperature, o.top_p = ways[w].top_p, o.min_p = ways[w].min_p, o.top_k = ways[w].top_k;
    o.repetition_penalty = ways[w].penalty;
    o.logit_bias = biases, o.biases = ways[w].bias, o.forbidden = bans, o.forbids = ways[w].ban;
    o.seed = w;
    return o;
}

/* First tokens: their frequencies. */
static void test_frequencies(void) {
    static const int32_t ids[] = {1, 2, 3, 3};
    orl_model *m = make_model(ctx, VOCAB, 0.3, NULL);
    orl_dataset *prompts = parse(ctx, "{\"prompt_ids\": [1, 2, 3, 3]}\n"), *d;
    size_t w, i, n = quick ? 2000 : 20000;
    orl_real z[VOCAB];
    logits_after(m, ids, 4, z);
    for (w = 0; w < WAYS; w++) {
        orl_generate_options o = way_options(w, n, 1);
        double p[VOCAB], chi = 0, degrees = -1;
        size_t count[VOCAB] = {0}, impossible = 0;
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == n);
        reference(z, VOCAB, ids, 4, &o, p);
        for (i = 0; i < orl_dataset_count(d); i++) count[orl_dataset_row(d, i)->response.ids[0]]++;
        for (i = 0; i < VOCAB; i++) {
            double expected = p[i] * (double)n;
            if (p[i] <= 0) impossible += count[i];
            else degrees++, chi += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
        }
        check(impossible == 0);
        check(chi <= degrees + 4 * sqrt(2 * degrees) + 1e-9); /* four standard deviations of χ² */
        orl_dataset_free(d);
    }
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* Whole responses: both log-probabilities of each row, and of each token that on_token() sees. */
typedef struct spoken_sums {
    double logp[64], sampling[64];
    size_t tokens;
} spoken_sums;
static int add_up(void *user, const orl_spoken *t) {
    spoken_sums *s = (spoken_sums *)user;
    check(t->row < 2 && t->sample < 20 && !t->text && !t->bytes);
    s->logp[t->row * 20 + t->sample] += (double)(orl_real)t->logp;
    s->sampling[t->row * 20 + t->sample] += t->sampling_logp;
    s->tokens++;
    return 0;
}

static void test_logps(void) {
    orl_model *m = make_model(ctx, VOCAB, 0.3, NULL);
    orl_dataset *prompts = parse(ctx, "{\"prompt_ids\": [1, 2, 3, 3]}\n{\"prompt_ids\": [9, 12]}\n"), *d;
    size_t w, i, t;
    for (w = 0; w < WAYS; w++) {
        orl_generate_options o = way_options(w, 20, 6);
        spoken_sums sums;
        size_t tokens = 0;
        memset(&sums, 0, sizeof sums);
        o.on_token = add_up, o.user = &sums;
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == 40);
        for (i = 0; i < orl_dataset_count(d); i++) {
            const orl_row *r = orl_dataset_row(d, i);
            int32_t ids[CONTEXT];
            size_t n = r->prompt.tokens;
            double logp = 0, sampling = 0;
            memcpy(ids, r->prompt.ids, n * sizeof *ids);
            for (t = 0; t < r->response.tokens; t++, n++) {
                orl_real z[VOCAB];
                double p[VOCAB];
                logits_after(m, ids, n, z);
                reference(z, VOCAB, ids, n, &o, p);
                ids[n] = r->response.ids[t];
                sampling += log(p[ids[n]]);
                logp += (double)(orl_real)(z[ids[n]] - ctx->kernels->log_sum_exp(VOCAB, z));
            }
            check_near(r->sampling_logp, sampling, 1e-4);
            check_near(r->logp, logp, 1e-5);
            check_near(sums.logp[i], r->logp, 1e-9);
            check_near(sums.sampling[i], r->sampling_logp, 1e-9);
            tokens += r->response.tokens;
        }
        check(sums.tokens == tokens);
        orl_dataset_free(d);
    }
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* Larger vocabularies, with ties: the draw for a ladder of u against the reference's running sum. */
static void test_large(void) {
    static orl_real z[MOST];
    static double p[MOST];
    static orl_real weight[MOST + MOST / ORLI_WEIGHTS_BLOCK + 1];
    size_t w, i, u, round, steps = quick ? 50 : 1000;
    for (round = 0; round < 3; round++) {
        orli_rng r = orli_rng_new(round, 1);
        for (i = 0; i < MOST; i++) {
            z[i] = (orl_real)(2 * orli_rng_normal(&r));
            if (round == 1) z[i] = (orl_real)floor((double)z[i]); /* ties everywhere */
            if (round == 2 && i) z[i] = z[0];                     /* … and nothing else */
        }
        for (w = 0; w < WAYS; w++) {
            const double near = sizeof(orl_real) == 8 ? 1e-9 : 2e-6;
            orl_generate_options o = way_options(w, 1, 1);
            double at = 0, before = 0;
            int wrong = 0;
            o.biases = o.forbids = 0, o.repetition_penalty = 1;
            if (o.top_k) o.top_k *= 100;
            reference(z, MOST, NULL, 0, &o, p);
            for (u = i = 0; u < steps; u++) {
                double x = ((double)u + 0.5) / (double)steps;
                orli_choice c = orli_draw(ctx->kernels, z, MOST, &o, x, weight);
                for (; i < MOST && at < x; i++) before = at, at += p[i];
                wrong += (size_t)c.id + 1 != i && fabs(at - x) > near && fabs(before - x) > near;
                wrong += !(fabs(c.sampling_logp - log(p[c.id])) < near);
            }
            check(!wrong);
        }
    }
}

/* ---- text: a model that says a, b, c and bytes of characters ---- */

static const char corpus[] = "abc cab bca ab abc cabbage bacc ab cab \xc3\xa9\xe2\x82\xac abc abc cab ab ab ab cab cab";
static const char *const said[] = {"a", "b", "c", "ab", "\xc3", "\xa9", "\xe2", "\x82", "\xac"};
#define SAID (sizeof said / sizeof *said)

static orl_model *make_speaker(orl_ctx *c, orl_bias *bias) {
    static const char *const specials[] = {"<|endoftext|>", NULL};
    orl_tokenizer *tok = orl_tokenizer_train(c, corpus, strlen(corpus), 264, specials);
    size_t i;
    for (i = 0; i < SAID; i++) {
        bias[i].id = orl_token_id(tok, said[i]), bias[i].bias = 60;
        check(bias[i].id >= 0);
    }
    return make_model(c, orl_vocab(tok), 0.2, tok);
}

static const char asked[] =
    "{\"prompt\": \"abc\"}\n{\"prompt\": \"\"}\n{\"prompt\": \"cab ab cab bca abc, cabbage\"}\n";

typedef struct heard { /* what came by on_token() */
    char text[8][8][256];
    char border[8][8][256]; /* pieces end here */
    size_t length[8][8], calls, stop_after;
    int ended[8][8];
} heard;
static int listen(void *user, const orl_spoken *t) {
    heard *h = (heard *)user;
    char *text = h->text[t->row][t->sample];
    size_t *n = &h->length[t->row][t->sample];
    check(!h->ended[t->row][t->sample] && t->text);
    memcpy(text + *n, t->text, t->bytes);
    *n += t->bytes;
    h->border[t->row][t->sample][*n] = 1;
    h->ended[t->row][t->sample] = t->ends + t->truncated;
    return ++h->calls == h->stop_after;
}

static void check_heard(const heard *h, orl_dataset *d, size_t samples) {
    size_t i, k, length, halves = 0;
    for (i = 0; i < orl_dataset_count(d); i++) {
        const orl_row *r = orl_dataset_row(d, i);
        size_t n = h->length[i / samples][i % samples], at;
        uint32_t code;
        for (at = 0; at < n; at += ORLI_MAX(length, (size_t)1)) {
            length = orli_utf8_decode(r->response.text + at, r->response.bytes - at, &code);
            for (k = 1; k < length; k++) halves += (size_t)h->border[i / samples][i % samples][at + k];
        }
        check(n == orl_text_ready(r->response.text, r->response.bytes));
        check(n <= r->response.bytes && memcmp(r->response.text, h->text[i / samples][i % samples], n) == 0);
        check(h->ended[i / samples][i % samples] == (r->flags & ORL_TRUNCATED ? 2 : 1));
    }
    check(!halves);
}

/* What a stop leaves of a response that ran on: its tokens and its text. */
static void cut_reference(const orl_tokenizer *tok, const orl_row *whole, const orl_generate_options *o, int continues,
                          size_t *tokens, size_t *bytes, int *stopped) {
    size_t k, s, i;
    *stopped = 0;
    for (k = 1; k <= whole->response.tokens && !*stopped; k++) {
        char *text;
        size_t n;
        check(orli_decode(tok, whole->response.ids, k, 1, continues, &text, &n) == ORL_OK);
        *tokens = k, *bytes = n;
        for (i = 0; i < n && !*stopped; i++)
            for (s = 0; s < o->stop_string_count; s++) {
                size_t length = strlen(o->stop_strings[s]);
                if (length <= n - i && memcmp(text + i, o->stop_strings[s], length) == 0) *stopped = 1, *bytes = i;
            }
        for (s = 0; s < o->stop_id_count && !*stopped; s++)
            *stopped = whole->response.ids[k - 1] == o->stop_ids[s];
        orl_free(ctx, text);
    }
}

static void test_stops(void) {
    static const char *const strings[][3] = {
        {"abc", "", ""}, {"ca", "bbb", ""}, {"\xe2\x82\xac", "acb", "bab"}, {"cabcab", "aab", "\xc3\xa9"}};
    static const size_t counts[] = {1, 2, 3, 3};
    orl_bias bias[SAID];
    orl_model *m = make_speaker(ctx, bias);
    orl_dataset *prompts = parse(ctx, asked), *whole, *d;
    orl_generate_options o = options(6, 30);
    size_t s, i, ended = 0, empty = 0, across = 0;
    int32_t stop_id = bias[8].id;
    o.logit_bias = bias, o.biases = SAID;
    whole = orl_sample(m, prompts, &o);
    check(whole && orl_dataset_count(whole) == 18);
    for (s = 0; s < 5; s++) {
        heard *h = (heard *)calloc(1, sizeof *h);
        o.stop_strings = s < 4 ? strings[s] : NULL, o.stop_string_count = s < 4 ? counts[s] : 0;
        o.stop_ids = &stop_id, o.stop_id_count = s >= 3;
        o.on_token = listen, o.user = h;
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == 18);
        for (i = 0; i < orl_dataset_count(d); i++) {
            const orl_row *r = orl_dataset_row(d, i), *w = orl_dataset_row(whole, i);
            size_t tokens = 0, bytes = 0;
            int stopped = 0;
            cut_reference(m->tokenizer, w, &o, w->prompt.bytes > 0, &tokens, &bytes, &stopped);
            check(r->response.tokens == tokens && r->tokens == tokens && r->response.bytes == bytes);
            check(memcmp(r->response.ids, w->response.ids, tokens * sizeof *r->response.ids) == 0);
            check(memcmp(r->response.text, w->response.text, r->response.bytes) == 0);
            check(((r->flags & ORL_TRUNCATED) == 0) == stopped);
            ended += (size_t)stopped, empty += stopped && !bytes;
            across += stopped && tokens > 1 && bytes + 1 < w->response.bytes;
        }
        check_heard(h, d, 6);
        free(h);
        orl_dataset_free(d);
    }
    check(ended > 20 && across > 10);
    (void)empty;
    orl_dataset_free(whole);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* A row whose text a stop string cut is read by its text, and its fields come back. */
static void test_rows(void) {
    static const char *const stop[] = {"c"};
    orl_bias bias[SAID];
    orl_model *m = make_speaker(ctx, bias);
    orl_dataset *prompts = parse(ctx, asked), *d, *back;
    orl_generate_options o = options(3, 20);
    char *line;
    size_t i;
    o.logit_bias = bias, o.biases = 4, o.stop_strings = stop, o.stop_string_count = 1, o.temperature = 1.3;
    d = orl_sample(m, prompts, &o);
    check(d && orl_dataset_count(d) == 9);
    for (i = 0; i < orl_dataset_count(d); i++) {
        char *again;
        line = orl_dataset_row_json(d, i);
        check_contains(line, "\"sampling_logprob\": -");
        check_contains(line, "\"logprob\": -");
        back = parse(ctx, line);
        check_near(orl_dataset_row(back, 0)->sampling_logp, orl_dataset_row(d, i)->sampling_logp, 1e-12);
        again = orl_dataset_row_json(back, 0);
        check(line && again && strlen(line) == strlen(again));
        orl_free(ctx, line), orl_free(ctx, again);
        orl_dataset_free(back);
    }
    check(orl_logprob(m, d, NULL, NULL) == ORL_OK);
    back = parse(ctx, "{\"prompt\": \"a\", \"completion\": \"b\", \"sample\": 0, \"logprob\": -1, \"tokens\": 1}\n");
    line = orl_dataset_row_json(back, 0);
    check(line && strstr(line, "sampling_logprob") == NULL); /* nobody knows */
    orl_free(ctx, line);
    orl_dataset_free(back);
    orl_dataset_free(d);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* ---- nothing depends on batch, threads, the cache's bound, or who is listening ---- */

static void check_same(orl_dataset *a, orl_dataset *b) {
    size_t i;
    check(a && b && orl_dataset_count(a) == orl_dataset_count(b));
    for (i = 0; i < orl_dataset_count(a) && i < orl_dataset_count(b); i++) {
        const orl_row *x = orl_dataset_row(a, i), *y = orl_dataset_row(b, i);
        check(x->response.tokens == y->response.tokens && x->response.bytes == y->response.bytes);
        if (x->response.tokens != y->response.tokens || x->response.bytes != y->response.bytes) continue;
        check(memcmp(x->response.ids, y->response.ids, x->response.tokens * sizeof *x->response.ids) == 0);
        check(!x->response.bytes || memcmp(x->response.text, y->response.text, x->response.bytes) == 0);
        check(memcmp(&x->logp, &y->logp, sizeof x->logp) == 0);
        check(memcmp(&x->sampling_logp, &y->sampling_logp, sizeof x->logp) == 0 && x->flags == y->flags);
    }
}

static orl_generate_options everything(orl_bias *bias) {
    static const char *const strings[] = {"cab", "bbb"};
    static const int32_t banned[] = {100, 101}, stops[] = {102};
    orl_generate_options o = options(7, 35);
    o.temperature = 1.2, o.top_k = 40, o.top_p = 0.97, o.min_p = 0.01, o.repetition_penalty = 1.1;
    o.logit_bias = bias, o.biases = SAID, o.forbidden = banned, o.forbids = 2, o.stop_ids = stops, o.stop_id_count = 1;
    o.stop_strings = strings, o.stop_string_count = 2;
    return o;
}

static void test_independence(void) {
    static const size_t batches[] = {1, 3, 64}, threads[] = {1, 3};
    orl_bias bias[SAID];
    orl_model *m = make_speaker(ctx, bias);
    orl_dataset *prompts = parse(ctx, asked), *expected, *d;
    orl_generate_options o = everything(bias);
    orli_pages pages = orli_pages_new(m, 0, 0);
    size_t b, t, page = pages.page * sizeof(orl_real);
    expected = orl_sample(m, prompts, &o);
    for (b = 0; b < 3; b++)
        for (t = 0; t < 2; t++) {
            orl_ctx *c = context(threads[t]), *before = ctx;
            heard *h = (heard *)calloc(1, sizeof *h);
            orl_dataset *p;
            ctx = c;
            o.batch = batches[b], o.on_token = t ? listen : NULL, o.user = h;
            o.kv_bytes = b == 1 ? page * 9 : 0;
            p = parse(c, asked);
            d = orl_sample(make_speaker(c, bias), p, &o);
            check_same(expected, d);
            if (t) check_heard(h, d, 7);
            ctx = before;
            free(h);
            orl_destroy(c);
        }
    orl_dataset_free(expected);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* Every bound that can hold one sequence gives the same rows; one byte less than the least is refused. */
static void test_bound(void) {
    orl_model *m = make_model(ctx, VOCAB, 0.3, NULL);
    orl_dataset *prompts = parse(ctx, "{\"prompt_ids\": [1, 2, 3]}\n"
                                      "{\"prompt_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7]}\n"
                                      "{\"prompt_ids\": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8]}\n"),
                *expected, *d;
    orli_pages pages = orli_pages_new(m, 0, 0);
    size_t page = pages.page * sizeof(orl_real), n, samples, least, peak[2];
    m->stop[m->stops++] = 4;
    for (samples = 1; samples <= 5; samples += 4) {
        orl_generate_options o = options(samples, 30);
        expected = orl_sample(m, prompts, &o);
        /* 19 + 30 − 1 positions of the last; its samples share one whole page, and its last one until they write */
        least = samples == 1 ? 3 : 4;
        for (n = least; n < least + 14; n++) {
            o.kv_bytes = n * page + n;
            d = orl_sample(m, prompts, &o);
            check(d != NULL);
            check(d && memcmp(&orl_dataset_row(d, 0)->logp, &orl_dataset_row(expected, 0)->logp, sizeof(double)) == 0);
            check_same(expected, d);
            orl_dataset_free(d);
        }
        o.kv_bytes = least * page - 1;
        check(!orl_sample(m, prompts, &o));
        expect_error(ORL_ERR_ARGUMENT, "kv_bytes");
        orl_dataset_free(expected);
    }
    for (n = 0; n < 2; n++) { /* and memory is really less */
        orl_generate_options o = options(40, 30);
        orl_ctx *c = context(1);
        orl_model *own = make_model(c, VOCAB, 0.3, NULL);
        o.kv_bytes = n ? 6 * page : 0;
        check(orl_sample(own, parse(c, "{\"prompt_ids\": [1, 2, 3]}\n"), &o) != NULL);
        peak[n] = orl_memory_peak(c);
        orl_destroy(c);
    }
    check(peak[1] + 58 * page <= peak[0]);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* ---- on_token() stops ---- */

static void test_cancel(void) {
    orl_bias bias[SAID];
    orl_model *m = make_speaker(ctx, bias);
    orl_dataset *prompts = parse(ctx, asked), *whole, *d;
    orl_generate_options o = options(2, 12);
    heard *h = (heard *)calloc(1, sizeof *h);
    size_t i, after;
    char *text;
    o.logit_bias = bias, o.biases = 3;
    whole = orl_sample(m, prompts, &o);
    for (after = 1; after < 75; after += 7) {
        size_t tokens = 0;
        memset(h, 0, sizeof *h);
        o.on_token = listen, o.user = h, h->stop_after = after;
        d = orl_sample(m, prompts, &o);
        check(d != NULL && h->calls <= after);
        if (h->calls == after) expect_error(ORL_ERR_STOPPED, "on_token");
        for (i = 0; i < orl_dataset_count(d); i++) {
            const orl_row *r = orl_dataset_row(d, i), *w;
            size_t k;
            for (k = 0, w = NULL; k < 6; k++)
                if (orl_dataset_row(whole, k)->group == r->group && orl_dataset_row(whole, k)->sample == r->sample)
                    w = orl_dataset_row(whole, k);
            check(w && r->tokens <= w->tokens && memcmp(r->response.ids, w->response.ids, r->tokens * 4) == 0);
            check(w && (r->tokens == w->tokens || (r->flags & ORL_TRUNCATED)));
            tokens += r->tokens;
        }
        check(tokens == h->calls);
        orl_dataset_free(d);
    }
    memset(h, 0, sizeof *h);
    h->stop_after = 3;
    text = orl_generate_text(m, "abc", &o);
    expect_error(ORL_ERR_STOPPED, "on_token");
    check(text && strcmp(text, h->text[0][0]) == 0 && strlen(text) >= 3);
    orl_free(ctx, text);
    free(h);
    orl_dataset_free(whole);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* ---- refusals ---- */

static void test_errors(void) {
    static const orl_bias far_id[] = {{VOCAB, 1}}, negative_id[] = {{-1, 1}}, infinite[] = {{1, HUGE_VAL}},
                          not_a_number[] = {{1, (double)NAN}};
    static const int32_t all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, unknown[] = {3, 99}, below[] = {-2};
    static const char *const strings[] = {"a", ""}, *const null[] = {NULL};
    orl_model *m = make_model(ctx, VOCAB, 0.3, NULL), *speaker;
    orl_dataset *prompts = parse(ctx, "{\"prompt_ids\": [1, 2, 3]}\n{\"prompt_ids\": [4]}\n"), *d;
    orl_bias bias[SAID];
    orl_generate_options o;
    orl_param *w;
#define FAILS(model, change, part) do { \
        o = options(3, 5); \
        change; \
        check(orl_sample(model, prompts, &o) == NULL); \
        expect_error(ORL_ERR_ARGUMENT, part); \
    } while (0)
    FAILS(m, o.min_p = -0.1, "min_p must be");
    FAILS(m, o.min_p = 1.1, "min_p must be");
    FAILS(m, o.min_p = (double)NAN, "min_p must be");
    FAILS(m, o.repetition_penalty = 0, "repetition_penalty must be");
    FAILS(m, o.repetition_penalty = -1, "repetition_penalty must be");
    FAILS(m, o.repetition_penalty = (double)NAN, "repetition_penalty must be");
    FAILS(m, o.repetition_penalty = HUGE_VAL, "repetition_penalty must be");
    FAILS(m, o.temperature = -HUGE_VAL, "temperature must be");
    FAILS(m, (o.logit_bias = far_id, o.biases = 1), "logit_bias names an id");
    FAILS(m, (o.logit_bias = negative_id, o.biases = 1), "logit_bias names an id");
    FAILS(m, (o.logit_bias = infinite, o.biases = 1), "use forbidden");
    FAILS(m, (o.logit_bias = not_a_number, o.biases = 1), "use forbidden");
    FAILS(m, o.biases = 1, "is NULL");
    FAILS(m, o.forbids = 1, "is NULL");
    FAILS(m, o.stop_id_count = 1, "is NULL");
    FAILS(m, o.stop_string_count = 1, "is NULL");
    FAILS(m, (o.forbidden = unknown, o.forbids = 2), "forbidden has an id");
    FAILS(m, (o.forbidden = below, o.forbids = 1), "forbidden has an id");
    FAILS(m, (o.forbidden = all, o.forbids = VOCAB), "all tokens are forbidden");
    FAILS(m, (o.stop_ids = unknown, o.stop_id_count = 2), "stop_ids has an id");
    FAILS(m, (o.stop_strings = strings, o.stop_string_count = 1), "need a tokenizer");
    FAILS(m, o.kv_bytes = 1, "kv_bytes");
    speaker = make_speaker(ctx, bias);
    FAILS(speaker, (o.stop_strings = strings, o.stop_string_count = 2), "stop string is empty");
    FAILS(speaker, (o.stop_strings = null, o.stop_string_count = 1), "stop string is empty");
#undef FAILS
    o = options(20, 5); /* one token left is enough */
    o.forbidden = all + 1, o.forbids = VOCAB - 1;
    d = orl_sample(m, prompts, &o);
    check(d && orl_dataset_row(d, 3)->response.ids[4] == 0);
    check(d && orl_dataset_row(d, 3)->sampling_logp >= 0 && orl_dataset_row(d, 3)->logp < 0);
    orl_dataset_free(d);
    w = orli_model_weight(m, ORLI_W_EMBED, 0); /* what is not finite is found in any row, not in the first alone */
    w->data[4 * w->cols] = (orl_real)NAN;
    orl_param_changed(w);
    o = options(1, 5);
    check(orl_sample(m, prompts, &o) == NULL);
    expect_error(ORL_ERR_DATA, "not finite");
    orl_dataset_free(prompts);
    orl_model_free(m);
    orl_model_free(speaker);
}

/* Nothing stays behind, in a good call or in one that runs out of memory. */
static void test_memory(void) {
    orl_ctx *c = context(1), *before = ctx;
    orl_bias bias[SAID];
    orl_model *m;
    orl_dataset *prompts;
    orl_generate_options o;
    size_t held, more, ran_out = 0;
    ctx = c;
    m = make_speaker(c, bias), prompts = parse(c, asked), o = everything(bias);
    orl_dataset_free(orl_sample(m, prompts, &o)); /* weights are packed now */
    held = orl_memory_now(c);
    for (more = 0; more < 40; more++) {
        orl_dataset *d;
        c->config.memory_limit = held + more * more * 1500 + 1;
        d = orl_sample(m, prompts, &o);
        check(d || orl_error_status(c) == ORL_ERR_MEMORY);
        ran_out += !d;
        orl_dataset_free(d);
        orl_clear_error(c);
        check(orl_memory_now(c) == held);
    }
    check(ran_out > 3 && ran_out < 40);
    ctx = before;
    orl_destroy(c);
}

int main(void) {
    quick = getenv("ORL_TEST_QUICK") != NULL;
    ctx = context(2);
    test_frequencies();
    test_logps();
    test_large();
    test_stops();
    test_rows();
    test_independence();
    test_bound();
    test_cancel();
    test_errors();
    test_memory();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    orl_destroy(ctx);
    return test_report("test_12_sampling");
}
