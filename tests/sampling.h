/* sampling.h - what the tests of section 12 share: prompts, options, logits worked out without a cache. */
#ifndef ORL_TEST_SAMPLING_H
#define ORL_TEST_SAMPLING_H
#include "test.h"

static orl_dataset *parse(orl_ctx *c, const char *text) { return orl_dataset_parse(c, text, strlen(text), "prompts"); }

static orl_generate_options options(size_t samples, size_t max_tokens) {
    orl_generate_options o = orl_generate_default();
    o.samples = samples, o.max_tokens = max_tokens, o.seed = 17;
    return o;
}

/* Logits after `ids`, from nothing: (vocab). */
static void logits_after(orl_model *m, const int32_t *ids, size_t n, orl_real *out) {
    orl_tape *tape = orli_tape_inference(orl_model_ctx(m));
    orl_stream *s = orl_stream_create(orl_model_ctx(m));
    orl_tensor *y;
    orl_stream_add(s, ids, n, ORL_ROOT);
    y = orl_logits(tape, m, s);
    check(y != NULL);
    if (y) memcpy(out, orl_data(y) + (n - 1) * orl_cols(y), orl_cols(y) * sizeof *out);
    orl_tape_free(tape);
    orl_stream_free(s);
}
#endif
