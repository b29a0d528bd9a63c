/* cases.h - the models and batches whose training steps are measured. Include it after the library. */
#ifndef ORL_BENCH_CASES_H
#define ORL_BENCH_CASES_H

enum { NO_PEER = 1, SINGLE = 2, RECOMPUTE = 4 }; /* without PyTorch; ours on one thread too; orl_train_options.recompute */

typedef struct bench_case {
    const char *name;
    orl_arch arch;
    size_t layers, dim, heads, ffn, vocab;
    size_t rows, length, spread; /* a row has length − spread … length + spread tokens */
    size_t micro;                /* micro_tokens; 0: as the library has it */
    int rounds, more;
} bench_case;

static const bench_case cases[] = {
    {"a", ORL_GPT2, 6, 256, 8, 1024, 4096, 8, 256, 0, 0, 15, 0},
    {"b", ORL_GPT2, 12, 768, 12, 3072, 50257, 4, 256, 0, 0, 5, SINGLE}, /* GPT-2 124M */
    {"b256", ORL_GPT2, 12, 768, 12, 3072, 50257, 4, 256, 0, 256, 2, NO_PEER}, /* the same in less memory */
    {"b-recompute", ORL_GPT2, 12, 768, 12, 3072, 50257, 4, 256, 0, 0, 2, NO_PEER | RECOMPUTE},
    {"c", ORL_GPT2, 12, 768, 12, 3072, 50257, 1, 1024, 0, 0, 4, 0},
    {"llama6x256", ORL_LLAMA, 6, 256, 8, 688, 4096, 8, 256, 0, 0, 15, 0},
    {"demo", ORL_LLAMA, 3, 96, 4, 256, 512, 64, 38, 6, 0, 40, NO_PEER},
};
enum { CASES = sizeof cases / sizeof *cases };

static const bench_case *case_named(const char *name) {
    size_t i;
    for (i = 0; i < CASES; i++)
        if (strcmp(cases[i].name, name) == 0) return &cases[i];
    fprintf(stderr, "no case \"%s\"\n", name);
    exit(2);
}

/* Rows of random ids. A language model is not fed a row's last token: a row of n fed tokens has n + 1. */
static orl_dataset *case_rows(orl_ctx *ctx, const bench_case *c, size_t batches) {
    const size_t rows = c->rows * batches;
    char *text = (char *)malloc(rows * ((c->length + c->spread) * 8 + 64)), *at = text;
    orl_dataset *data;
    size_t i, j;
    unsigned x = 1;
    for (i = 0; text && i < rows; i++) {
        size_t n = c->length - c->spread + (c->spread ? i * 7 % (2 * c->spread + 1) : 0);
        for (j = 0; j <= n; j++) {
            x = x * 1664525u + 1013904223u;
            at += sprintf(at, "%s%u", j > 1 ? ", " : j ? "], \"completion_ids\": [" : "{\"prompt_ids\": [",
                          (x >> 8) % (unsigned)c->vocab);
        }
        at += sprintf(at, "]}\n");
    }
    data = text ? orl_dataset_parse(ctx, text, (size_t)(at - text), "random") : NULL;
    free(text);
    return data;
}

static orl_model *case_model(orl_ctx *ctx, const bench_case *c) {
    orl_model_config mc = orl_model_config_default(c->arch);
    mc.layers = c->layers, mc.dim = c->dim, mc.heads = mc.kv_heads = c->heads, mc.ffn = c->ffn, mc.vocab = c->vocab;
    mc.context = c->length + c->spread + 1, mc.tied = 1;
    return orl_model_create(ctx, &mc, NULL);
}

static orl_train_options case_options(const bench_case *c) {
    orl_train_options o = orl_train_default();
    o.steps = 1000000, o.batch = c->rows, o.lr = 1e-4, o.schedule = ORL_CONSTANT, o.warmup = 0;
    o.micro_tokens = c->micro, o.recompute = (c->more & RECOMPUTE) != 0;
    return o;
}

#endif
