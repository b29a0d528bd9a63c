/* test_12_generate.c - section 12: what is sampled, from what distribution, and who may not matter.
 * builds: float double threads
 * Everything the generator does with caches and batches is compared with computing each step from nothing. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"
#include "sampling.h"

#define VOCAB 13
#define CONTEXT 60

static orl_ctx *ctx;
static int quick; /* under sanitizers */

static orl_ctx *context(size_t threads, size_t memory_limit) {
    orl_config config = orl_config_default();
    config.threads = threads, config.memory_limit = memory_limit;
    return orl_create(&config);
}

static orl_model *make_model(orl_ctx *c, orl_arch arch, double spread) {
    orl_model_config mc = orl_model_config_default(arch);
    orl_model *m;
    orl_param *p;
    orli_rng r = orli_rng_new(5, 0);
    size_t i;
    mc.dim = 16, mc.heads = 4, mc.kv_heads = arch == ORL_GPT2 ? 4 : 2, mc.layers = 2, mc.ffn = 18, mc.vocab = VOCAB, mc.context = CONTEXT, mc.tied = 0;
    m = orl_model_create(c, &mc, NULL);
    for (p = m ? m->params->first : NULL; p; p = p->next) {
        for (i = 0; i < p->rows * p->cols; i++) p->data[i] += (orl_real)(spread * orli_rng_normal(&r));
        orl_param_changed(p);
    }
    return m;
}

/* The same model conditioned on four bins of reward. */
static orl_model *make_conditioned(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA, 0.5);
    orl_param *p = orli_model_weight(m, ORLI_W_EMBED, 0);
    orli_rng r = orli_rng_new(6, 0);
    size_t i;
    check(orli_model_grow(m, 5) == ORL_OK);
    for (i = VOCAB * p->cols; i < p->rows * p->cols; i++) p->data[i] = (orl_real)orli_rng_normal(&r);
    orl_param_changed(p);
    m->condition.kind = ORL_CONDITION_BINS, m->condition.bins = 4, m->condition.first_id = VOCAB, m->condition.sd = 1, m->condition.target = 1;
    for (i = 0; i < 101; i++) m->condition.quantile[i] = ((double)i - 50) / 25;
    m->classes = VOCAB;
    return m;
}

/* Lengths around the pages' 16 positions. */
static const char prompts_a[] =
    "{\"prompt_ids\": [1, 2, 3]}\n"
    "{\"prompt_ids\": [4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2, 3, 4, 5, 6]}\n"
    "{\"prompt_ids\": [9]}\n"
    "{\"prompt_ids\": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5, 0, 2, 8]}\n";
static int32_t argmax(const orl_real *z, size_t n) {
    size_t i, best = 0;
    for (i = 1; i < n; i++)
        if (z[i] > z[best]) best = i;
    return (int32_t)best;
}

static void test_greedy(void) {
    int arch;
    for (arch = 0; arch < 2; arch++) {
        orl_model *m = make_model(ctx, (orl_arch)arch, 0.3);
        orl_dataset *prompts = parse(ctx, prompts_a), *d;
        orl_generate_options o = options(1, 0);
        size_t i, t;
        o.temperature = 0;
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == 4);
        for (i = 0; i < orl_dataset_count(d); i++) {
            const orl_row *r = orl_dataset_row(d, i);
            int32_t ids[CONTEXT];
            orl_real z[VOCAB];
            double logp = 0;
            int right = 1;
            memcpy(ids, r->prompt.ids, r->prompt.tokens * sizeof *ids);
            memcpy(ids + r->prompt.tokens, r->response.ids, r->response.tokens * sizeof *ids);
            check(r->prompt.tokens + r->response.tokens == CONTEXT && (r->flags & ORL_TRUNCATED)); /* no end token: to the end of the context */
            for (t = r->prompt.tokens; t < CONTEXT; t++) {
                logits_after(m, ids, t, z);
                right &= argmax(z, VOCAB) == ids[t];
                logp += (double)(orl_real)(z[ids[t]] - ctx->kernels->log_sum_exp(VOCAB, z));
            }
            check(right);
            check(memcmp(&logp, &r->logp, sizeof logp) == 0);
        }
        orl_dataset_free(d);
        orl_dataset_free(prompts);
        orl_model_free(m);
    }
}

/* ---- a sample depends on model, seed, prompt index and sample index, and on nothing else ---- */

static void check_same_row(const orl_row *a, const orl_row *b) {
    check(a && b && a->response.tokens == b->response.tokens && a->tokens == b->tokens);
    if (!a || !b || a->response.tokens != b->response.tokens) return;
    check(memcmp(a->response.ids, b->response.ids, a->response.tokens * sizeof *a->response.ids) == 0);
    check(memcmp(&a->logp, &b->logp, sizeof a->logp) == 0);
    check((a->flags & ORL_TRUNCATED) == (b->flags & ORL_TRUNCATED) && a->sample == b->sample);
}

static orl_dataset *sample(size_t threads, const char *prompts, const orl_generate_options *o, orl_ctx **c, int conditioned) {
    orl_dataset *asked, *d;
    orl_model *m;
    orl_ctx *before = ctx;
    *c = ctx = context(threads, 0);
    m = conditioned ? make_conditioned() : make_model(*c, ORL_LLAMA, 0.3);
    m->stop[m->stops++] = 12;
    m->stop[m->stops++] = 7;
    asked = parse(*c, prompts);
    d = orl_sample(m, asked, o);
    check(d != NULL);
    ctx = before;
    return d;
}

static void test_independence(int conditioned, int half) {
    static const size_t batches[] = {1, 2, 7, 64}, threads[] = {1, 3};
    static const char other[] =
        "{\"prompt_ids\": [8, 8, 8, 8, 8, 8, 8, 8, 8]}\n"
        "{\"prompt_ids\": [4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2, 3, 4, 5, 6]}\n"
        "{\"prompt_ids\": [0]}\n{\"prompt_ids\": [0, 1]}\n{\"prompt_ids\": [0, 1, 2]}\n";
    orl_generate_options o = options(5, 30);
    orl_ctx *first, *c;
    orl_dataset *reference, *d;
    size_t b, t, i, ended = 0;
    if (conditioned) o.guidance = 0.7, o.min_p = 0.02, o.repetition_penalty = 1.2;
    o.batch = 256, o.kv_bf16 = half;
    reference = sample(2, prompts_a, &o, &first, conditioned);
    check(orl_dataset_count(reference) == 20);
    for (b = 0; b < 4; b++)
        for (t = 0; t < 2; t++) {
            o.batch = batches[b];
            /* 512 numbers a page; the longest prompt needs 5 for a sample, and as many without its condition */
            o.kv_bytes = b == 2 ? (conditioned ? 12u : 5u) * 512 * (half ? 2 : sizeof(orl_real)) : 0;
            d = sample(threads[t], prompts_a, &o, &c, conditioned);
            for (i = 0; i < 20; i++) check_same_row(orl_dataset_row(reference, i), orl_dataset_row(d, i));
            check(threads[t] == 1 || c->pool->most_tasks[ORLI_WORK_SAMPLE] >= 2 || b == 0);
            orl_destroy(c);
        }
    o.batch = 256, o.kv_bytes = 0, o.samples = 2; /* fewer samples are the first of more */
    d = sample(2, prompts_a, &o, &c, conditioned);
    for (i = 0; i < 8; i++) check_same_row(orl_dataset_row(reference, i / 2 * 5 + i % 2), orl_dataset_row(d, i));
    orl_destroy(c);
    o.samples = 5; /* other company, the same place */
    d = sample(2, other, &o, &c, conditioned);
    for (i = 5; i < 10; i++) check_same_row(orl_dataset_row(reference, i), orl_dataset_row(d, i));
    orl_destroy(c);
    o.seed++; /* another seed is another sample */
    d = sample(2, prompts_a, &o, &c, conditioned);
    for (i = t = 0; i < 20; i++) t += orl_dataset_row(d, i)->logp != orl_dataset_row(reference, i)->logp;
    check(t > 3);
    orl_destroy(c);
    for (i = 0; i < 20; i++) { /* end tokens stand at the end and nowhere else; the rest is cut */
        const orl_row *r = orl_dataset_row(reference, i);
        size_t k, at = r->response.tokens, room = CONTEXT - r->prompt.tokens - (conditioned ? 1 : 0);
        for (k = 0; k < r->response.tokens && at == r->response.tokens; k++)
            if (r->response.ids[k] == 12 || r->response.ids[k] == 7) at = k;
        if (r->flags & ORL_TRUNCATED) check(at == r->response.tokens && r->response.tokens == ORLI_MIN((size_t)30, room));
        else ended++, check(at + 1 == r->response.tokens);
        for (k = 0; k < r->response.tokens; k++) check(r->response.ids[k] >= 0 && r->response.ids[k] < VOCAB); /* no condition tokens */
    }
    check(ended > 0);
    orl_destroy(first);
}

/* Keys and values in bf16: nearly the same, and those of a prompt the same bits as those of tokens drawn one by one. */
typedef struct token_logps {
    double logp[2][16];
    size_t count[2];
} token_logps;
static int take_logp(void *user, const orl_spoken *t) {
    token_logps *l = (token_logps *)user;
    l->logp[t->row][l->count[t->row]++] = t->logp;
    return 0;
}

static void test_kv_bf16(void) {
    static const char prompts[] = "{\"prompt_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3]}\n{\"prompt_ids\": [5]}\n";
    orl_generate_options o = options(1, 12);
    size_t i, k, cut;
    int arch;
    o.temperature = 0, o.on_token = take_logp;
    for (arch = 0; arch < 2; arch++) {
        orl_model *m = make_model(ctx, arch ? ORL_GPT2 : ORL_LLAMA, 0.3);
        token_logps full, rounded, rest;
        orl_dataset *d;
        memset(&full, 0, sizeof full), memset(&rounded, 0, sizeof rounded);
        o.max_tokens = 12;
        o.kv_bf16 = 0, o.user = &full, orl_dataset_free(orl_sample(m, parse(ctx, prompts), &o));
        o.kv_bf16 = 1, o.user = &rounded, d = orl_sample(m, parse(ctx, prompts), &o);
        for (i = 0; d && i < 2; i++) {
            const orl_row *r = orl_dataset_row(d, i);
            check(rounded.logp[i][0] != full.logp[i][0]);
            check_near(rounded.logp[i][0], full.logp[i][0], 0.05);
            for (cut = 1; cut < 12; cut++) { /* the tokens drawn so far as a prompt */
                char text[512];
                size_t at = (size_t)sprintf(text, "{\"prompt_ids\": [%d", (int)r->prompt.ids[0]);
                for (k = 1; k < r->prompt.tokens; k++) at += (size_t)sprintf(text + at, ", %d", (int)r->prompt.ids[k]);
                for (k = 0; k < cut; k++) at += (size_t)sprintf(text + at, ", %d", (int)r->response.ids[k]);
                sprintf(text + at, "]}\n");
                memset(&rest, 0, sizeof rest);
                o.max_tokens = 12 - cut, o.user = &rest;
                orl_dataset_free(orl_sample(m, parse(ctx, text), &o));
                check(rest.count[0] == 12 - cut && memcmp(rest.logp[0], rounded.logp[i] + cut, (12 - cut) * sizeof(double)) == 0);
            }
        }
        orl_model_free(m);
    }
}

/* The sampler's log-probabilities are those of training's forward pass, bit for bit. */
static void test_logprob(void) {
    int arch;
    for (arch = 0; arch < 2; arch++) {
        orl_model *m = make_model(ctx, (orl_arch)arch, 0.3);
        orl_dataset *prompts = parse(ctx, prompts_a), *d;
        orl_generate_options o = options(6, 0);
        double logp[24];
        size_t i, total, tokens = 0;
        orl_real *each;
        m->stop[m->stops++] = 4;
        o.temperature = 1.3, o.top_p = 0.9; /* log-probabilities are at temperature 1 all the same */
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == 24);
        for (i = 0; i < 24; i++) logp[i] = orl_dataset_row(d, i)->logp;
        check(orl_logprob(m, d, &each, &total) == ORL_OK);
        for (i = 0; i < 24; i++) {
            check(memcmp(&logp[i], &orl_dataset_row(d, i)->logp, sizeof logp[i]) == 0);
            tokens += orl_dataset_row(d, i)->response.tokens;
        }
        check(total == tokens);
        orl_free(ctx, each);
        orl_dataset_free(d);
        orl_dataset_free(prompts);
        orl_model_free(m);
    }
}

/* ---- pages ---- */

static void test_pages(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA, 0.3);
    orli_pages p = orli_pages_new(m, 0, 0);
    orli_sequence a, b, c;
    size_t shared, i, times[256] = {0};
    memset(&a, 0, sizeof a);
    check(orli_sequence_extend(&p, &a, 20) == ORL_OK && a.length == 20 && p.pages == 2 && !p.free_pages); /* no more than is used */
    for (i = 0; i < p.page; i++) ((orl_real *)(void *)p.at[a.page[1]])[i] = (orl_real)i;
    check(orli_sequence_fork(&p, &a, &b) == ORL_OK && orli_sequence_fork(&p, &a, &c) == ORL_OK);
    check(p.free_pages == p.pages - 2 && p.references[a.page[0]] == 3); /* a prompt is held once */
    shared = a.page[1];
    check(orli_sequence_extend(&p, &b, 1) == ORL_OK && b.page[0] == a.page[0] && b.page[1] != shared && p.references[shared] == 2);
    check(memcmp(p.at[b.page[1]], p.at[shared], p.page * sizeof(orl_real)) == 0);
    orli_sequence_release(&p, &a);
    check(orli_sequence_extend(&p, &c, 1) == ORL_OK && c.page[1] == shared); /* the last holder writes in place */
    check(orli_sequence_extend(&p, &c, 11) == ORL_OK && orli_sequence_extend(&p, &c, 1) == ORL_OK && c.length == 33);
    check(p.free_pages == p.pages - 4);
    check(orli_sequence_fork(&p, &c, &a) == ORL_OK && orli_sequence_extend(&p, &a, 0) == ORL_OK && a.page[2] == c.page[2]);
    orli_sequence_release(&p, &a), orli_sequence_release(&p, &b), orli_sequence_release(&p, &c);
    check(p.free_pages == p.pages);
    check(orli_sequence_extend(&p, &a, 16 * 100) == ORL_OK && p.pages >= 100 && p.pages <= 100 + 100 / ORLI_PAGES_SPARE + 1);
    orli_sequence_release(&p, &a);
    check(p.free_pages == p.pages);
    for (i = 0; i < p.pages; i++) times[p.unused[i]]++;
    for (i = 0; i < p.pages && times[i] == 1; i++) {}
    check(i == p.pages); /* each is free once */
    orli_pages_free(&p);
    orl_model_free(m);
}

/* Pages follow the tokens that are held: at most 5 % more, and a page for each sequence. A prompt's tokens count once,
 * but for those of its last page if they do not fill it: each sample has a copy of that one. */
static void test_pages_follow(int half) {
    enum { LIVE = 40 };
    orl_model *m = make_model(ctx, ORL_LLAMA, 0.3);
    orli_pages p = orli_pages_new(m, 0, half);
    const orl_model_config *c = orl_model_get_config(m);
    const size_t token = 2 * c->layers * c->kv_heads * c->head_dim * (half ? 2 : sizeof(orl_real));
    orli_sequence prompt, live[LIVE];
    size_t i, step, round, held, most, before = orl_memory_now(ctx);
    orli_rng r = orli_rng_new(1, 1);
    memset(&prompt, 0, sizeof prompt);
    check(orli_page_bytes(&p) == ORLI_TILE * token);
    for (round = 0; round < 20; round++) {
        const size_t n = 1 + (size_t)(300 * orli_rng_uniform(&r)), samples = 1 + (size_t)((LIVE - 1) * orli_rng_uniform(&r));
        check(orli_sequence_extend(&p, &prompt, n) == ORL_OK);
        for (i = 0; i < samples; i++) check(orli_sequence_fork(&p, &prompt, &live[i]) == ORL_OK);
        for (step = most = 0; step < 100; step++)
            for (i = 0, held = n; i < samples; i++, held += n % ORLI_TILE) {
                check(orli_sequence_extend(&p, &live[i], 1) == ORL_OK);
                held += live[i].length - n, most = ORLI_MAX(most, held);
            }
        check((p.pages - p.free_pages) * ORLI_TILE <= held + ORLI_TILE * (samples + 1));
        if (round == 0) {
            check((double)p.pages * ORLI_TILE <= 1.05 * (double)most + ORLI_TILE * (double)(samples + 1));
            check((double)(orl_memory_now(ctx) - before) <= (1.05 * (double)most + ORLI_TILE * (double)(samples + 1)) * (double)token +
                                                                (double)p.pages * 64 + 4096 + (double)samples * 400);
        }
        for (i = 0; i < samples; i++) orli_sequence_release(&p, &live[i]);
        orli_sequence_release(&p, &prompt);
        check(p.free_pages == p.pages);
    }
    orli_pages_free(&p);
    orl_model_free(m);
}

/* ---- distributions: many first tokens of one prompt against the exact probabilities ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void exact_distribution(const orl_real *z, const orl_generate_options *o, double *p) {
    double sorted[VOCAB], sum = 0, least, mass;
    size_t i, k;
    for (i = 0; i < VOCAB; i++) sum += p[i] = exp((double)z[i] / o->temperature);
    for (i = 0; i < VOCAB; i++) sorted[i] = p[i];
    qsort(sorted, VOCAB, sizeof *sorted, by_size);
    k = o->top_k && o->top_k < VOCAB ? o->top_k : VOCAB; /* first the k best … */
    for (i = 0, sum = 0; i < k; i++) sum += sorted[i];
    least = sorted[k - 1];
    for (i = 0, mass = 0; i < k && o->top_p < 1 && mass < o->top_p * sum; i++) { /* … then as many as make up p of them */
        mass += sorted[i];
        least = sorted[i];
    }
    for (i = 0, sum = 0; i < VOCAB; i++) sum += p[i] = p[i] >= least ? p[i] : 0;
    for (i = 0; i < VOCAB; i++) p[i] /= sum;
}

static void test_distributions(void) {
    static const struct { double temperature, top_p; size_t top_k; } ways[] = {
        {1, 1, 0}, {0.5, 1, 0}, {3, 1, 0}, {1, 1, 1}, {1, 1, 4}, {0.7, 1, 12}, {1, 1, 99}, {1, 0.6, 0}, {1.5, 0.9, 0}, {1, 1e-9, 0}, {1, 0.8, 5}};
    orl_model *m = make_model(ctx, ORL_GPT2, 0.3);
    orl_dataset *prompts = parse(ctx, "{\"prompt_ids\": [1, 2, 3]}\n");
    static const int32_t ids[] = {1, 2, 3};
    size_t w, i, n = quick ? 2000 : 20000;
    orl_real z[VOCAB];
    logits_after(m, ids, 3, z);
    for (w = 0; w < sizeof ways / sizeof *ways; w++) {
        orl_generate_options o = options(n, 1);
        double p[VOCAB], chi = 0, degrees = -1;
        size_t count[VOCAB] = {0}, impossible = 0;
        orl_dataset *d;
        o.temperature = ways[w].temperature, o.top_p = ways[w].top_p, o.top_k = ways[w].top_k, o.seed = w;
        d = orl_sample(m, prompts, &o);
        check(d && orl_dataset_count(d) == n);
        exact_distribution(z, &o, p);
        for (i = 0; i < orl_dataset_count(d); i++) count[orl_dataset_row(d, i)->response.ids[0]]++;
        for (i = 0; i < VOCAB; i++) {
            double expected = p[i] * (double)n;
            if (p[i] <= 0) impossible += count[i];
            else degrees++, chi += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
        }
        check(impossible == 0);
        check(chi <= degrees + 4 * sqrt(2 * degrees) + 1e-9); /* four standard deviations of χ² */
        if (ways[w].top_k == 1 || ways[w].top_p < 1e-6) check(count[argmax(z, VOCAB)] == n);
        orl_dataset_free(d);
    }
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* ---- guidance: l_c + g·(l_c − l_∅), which never raises a token less than a tenth as likely as the likeliest ---- */

static void guide(const orli_kernels *kern, orl_real *told, const orl_real *untold, double g) {
    double told_lse = (double)kern->log_sum_exp(VOCAB, told), untold_lse = (double)kern->log_sum_exp(VOCAB, untold), most = -HUGE_VAL;
    size_t k;
    for (k = 0; k < VOCAB; k++) most = fmax(most, exp((double)told[k] - told_lse));
    for (k = 0; k < VOCAB; k++) {
        double l = (double)told[k] - told_lse, push = g * (l - ((double)untold[k] - untold_lse));
        if (exp(l) < most / 10 && push > 0) push = 0;
        told[k] = (orl_real)((double)told[k] + push);
    }
}

static void test_guidance(void) {
    orl_model *m = make_conditioned();
    orl_dataset *prompts = parse(ctx, prompts_a), *plain, *d;
    orl_generate_options o = options(1, 12);
    static const double strengths[] = {0.5, 2};
    size_t g, i, t, changed = 0;
    o.temperature = 0;
    plain = orl_sample(m, prompts, &o);
    o.guidance = 0;
    d = orl_sample(m, prompts, &o);
    for (i = 0; i < 4; i++) check_same_row(orl_dataset_row(plain, i), orl_dataset_row(d, i));
    orl_dataset_free(d);
    for (g = 0; g < 2; g++) {
        o.guidance = strengths[g];
        d = orl_sample(m, prompts, &o);
        for (i = 0; i < 4; i++) {
            const orl_row *r = orl_dataset_row(d, i);
            int32_t told[CONTEXT], untold[CONTEXT];
            size_t n = r->prompt.tokens;
            double logp = 0;
            int right = 1;
            memcpy(told, r->prompt.ids, n * sizeof *told);
            memcpy(untold, r->prompt.ids, n * sizeof *told);
            told[n] = (int32_t)(VOCAB + orli_condition_bin(&m->condition, 1)); /* the default target */
            untold[n] = VOCAB + 4;
            for (t = 0; t < r->response.tokens; t++) {
                orl_real a[VOCAB + 5], b[VOCAB + 5];
                logits_after(m, told, n + 1 + t, a);
                logits_after(m, untold, n + 1 + t, b);
                guide(ctx->kernels, a, b, o.guidance);
                right &= argmax(a, VOCAB) == r->response.ids[t];
                logp += (double)a[r->response.ids[t]] - (double)ctx->kernels->log_sum_exp(VOCAB, a);
                told[n + 1 + t] = untold[n + 1 + t] = r->response.ids[t];
            }
            check(right && r->response.tokens == 12);
            check_near(r->logp, logp, 1e-5);
            changed += memcmp(r->response.ids, orl_dataset_row(plain, i)->response.ids, 12 * sizeof(int32_t)) != 0;
        }
        orl_dataset_free(d);
    }
    check(changed > 0);
    o.target = ORL_TARGET_NONE; /* nothing to be guided by */
    d = orl_sample(m, prompts, &o);
    o.guidance = 0;
    orl_dataset_free(plain);
    plain = orl_sample(m, prompts, &o);
    for (i = 0; i < 4; i++) check_same_row(orl_dataset_row(plain, i), orl_dataset_row(d, i));
    orl_dataset_free(d);
    orl_dataset_free(plain);
    orl_dataset_free(prompts);
    orl_model_free(m);
}

/* ---- refusals ---- */

static int stop_now(void *user, size_t done, size_t total) {
    ++*(int *)user;
    return done > 2 && total == 4 * 3;
}

static void test_errors(void) {
    orl_model *m = make_model(ctx, ORL_LLAMA, 0.3), *rm = orl_reward_model(m);
    orl_dataset *prompts = parse(ctx, prompts_a), *full;
    orl_generate_options o;
    orli_sampled *out;
    orli_prompt p;
    int stopped;
    int32_t ids[CONTEXT + 1] = {0};
    int calls = 0;
    char text[8 * CONTEXT] = "{\"prompt_ids\": [0";
    orl_param *w;
    orl_real before;
    size_t i;
#define FAILS(change, part) do { \
        o = options(3, 5); \
        change; \
        check(orl_sample(m, prompts, &o) == NULL); \
        expect_error(ORL_ERR_ARGUMENT, part); \
    } while (0)
    FAILS(o.samples = 0, "samples must be");
    FAILS(o.samples = 1u << 24, "samples must be");
    FAILS(o.batch = 0, "batch must be");
    FAILS(o.temperature = -1, "temperature must be");
    FAILS(o.temperature = (double)NAN, "temperature must be");
    FAILS(o.temperature = (double)INFINITY, "temperature must be");
    FAILS(o.top_p = 0, "top_p must be");
    FAILS(o.top_p = (double)NAN, "top_p must be");
    FAILS(o.top_p = 1.5, "top_p must be");
    FAILS(o.guidance = -1, "guidance must be");
    FAILS(o.guidance = (double)NAN, "guidance must be");
    FAILS(o.target = ORL_TARGET_VALUE, "not trained with a condition");
#undef FAILS
    o = options(3, 5);
    check(orl_sample(rm, prompts, &o) == NULL);
    expect_error(ORL_ERR_ARGUMENT, "reward model: a reward model has no language head");
    check(orl_sample(NULL, prompts, &o) == NULL && orl_sample(m, NULL, &o) == NULL && !orl_failed(ctx));
    for (i = 1; i < CONTEXT; i++) strcat(text, ", 0");
    strcat(text, "]}\n");
    full = parse(ctx, text);
    check(orl_sample(m, full, &o) == NULL);
    expect_error(ORL_ERR_DATA, "context of 60");
    memset(&p, 0, sizeof p);
    p.ids = ids;
    check(orli_generate(m, &p, 1, &o, &out, &stopped) == ORL_ERR_DATA && !out);
    expect_error(ORL_ERR_DATA, "prompt 1 is empty");
    p.count = CONTEXT;
    check(orli_generate(m, &p, 1, &o, &out, &stopped) == ORL_ERR_DATA && !out);
    expect_error(ORL_ERR_DATA, "fills the context of 60");
    p.count = CONTEXT - 1; /* room for one token */
    check(orli_generate(m, &p, 1, &o, &out, &stopped) == ORL_OK && out[2].count == 1 && out[2].truncated);
    orli_sampled_free(ctx, out, 3);
    o.progress = stop_now, o.user = &calls, o.batch = 2;
    check(orl_sample(m, prompts, &o) == NULL && calls > 0);
    expect_error(ORL_ERR_STOPPED, "stopped");
    o.progress = NULL;
    w = orli_model_weight(m, ORLI_W_HEAD, 0);
    before = w->data[3];
    w->data[3] = (orl_real)NAN;
    orl_param_changed(w);
    check(orl_sample(m, prompts, &o) == NULL);
    expect_error(ORL_ERR_DATA, "not finite");
    w->data[3] = before;
    orl_param_changed(w);
    orl_dataset_free(full);
    orl_dataset_free(prompts);
    orl_model_free(m);
    orl_model_free(rm);
}

/* Nothing stays behind: not after a good call, not when memory runs out in the middle of one. */
static void test_memory(void) {
    orl_generate_options o = options(4, 20);
    size_t limit, ran_out = 0, good = 0, before;
    for (limit = 0; limit < 40 && !good; limit++) {
        orl_ctx *c = context(1, 0);
        orl_model *m = make_model(c, ORL_LLAMA, 0.3);
        orl_dataset *prompts = parse(c, prompts_a), *d;
        before = orl_memory_now(c);
        c->config.memory_limit = before + limit * limit * 6000 + 1;
        d = orl_sample(m, prompts, &o);
        if (d) good++;
        else ran_out++, check(orl_error_status(c) == ORL_ERR_MEMORY);
        orl_dataset_free(d);
        orl_clear_error(c);
        c->config.memory_limit = 0;
        if (d) { /* now that the weights have been packed, which stays */
            before = orl_memory_now(c);
            orl_dataset_free(orl_sample(m, prompts, &o));
            o.samples = 1;
            orl_dataset_free(orl_sample(m, prompts, &o));
            check(!orl_failed(c));
        } else {
            d = orl_sample(m, prompts, &o); /* the packed weights once more, then the same call again */
            check(d != NULL);
            orl_dataset_free(d);
            before = orl_memory_now(c);
            c->config.memory_limit = before + limit * 20000 + 1;
            orl_dataset_free(orl_sample(m, prompts, &o));
            orl_clear_error(c);
        }
        check(orl_memory_now(c) == before);
        orl_destroy(c);
    }
    check(good && ran_out > 3);
}

int main(void) {
    quick = getenv("ORL_TEST_QUICK") != NULL;
    ctx = context(2, 0);
    test_greedy();
    test_independence(0, 0);
    test_independence(1, 0);
    test_independence(0, 1);
    test_independence(1, 1);
    test_kv_bf16();
    test_pages_follow(0);
    test_pages_follow(1);
    test_logprob();
    test_pages();
    test_distributions();
    test_guidance();
    test_errors();
    test_memory();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    orl_destroy(ctx);
    return test_report("test_12_generate");
}
