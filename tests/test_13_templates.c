/* test_13_templates.c - section 13: chat templates, against what the published ones make of the same dialogues
 * (golden/templates.mjs); their begin and end tokens as ids; which template a tokenizer tells of. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"

static orl_ctx *ctx;

static orl_dataset *parse(const char *rows) { return orl_dataset_parse(ctx, rows, strlen(rows), "data"); }

static int is(const orl_text *t, const char *text) {
    int same = text ? t->text && t->bytes == strlen(text) && memcmp(t->text, text, t->bytes) == 0 : !t->text;
    if (!same)
        printf("    \"%.*s\"\n    is not \"%s\"\n", (int)t->bytes, t->text ? t->text : "", text ? text : "(none)");
    return same;
}

/* ---- golden texts ---- */

/* What the published template writes behind the last answer. */
static const char *const behind[ORL_TEMPLATE_COUNT] = {
    "", "<|im_end|>\n", "<|im_end|>\n", "<|im_end|>\n", "</s>", "<|eot_id|>", "</s>\n", "</s>\n\n", "<end_of_turn>\n",
    "</s>"};

static orl_template named(const char *name) {
    int i;
    for (i = 0; i < ORL_TEMPLATE_COUNT; i++)
        if (strcmp(orl_template_name((orl_template)i), name) == 0) break;
    check(i < ORL_TEMPLATE_COUNT);
    return (orl_template)i;
}

static void golden_case(orli_json *j, int *seen) {
    orli_str name = orli_str_new(ctx), text = orli_str_new(ctx), prompt = orli_str_new(ctx), row = orli_str_new(ctx);
    orl_template which;
    orl_dataset *d;
    int failed = test_failed;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "template")) orli_json_string(j, &name);
        else if (orli_json_is(j, "text")) orli_json_string(j, &text);
        else if (orli_json_is(j, "prompt")) orli_json_string(j, &prompt);
        else {
            orli_json_skip(j); /* the messages as they stand */
            orli_str_puts(&row, "{\"messages\": ");
            orli_str_add(&row, j->text + j->start, j->end - j->start);
            orli_str_puts(&row, "}");
        }
    }
    which = named(name.data);
    seen[which]++;
    d = parse(row.data);
    check(orl_dataset_set_template(d, which) == ORL_OK);
    if (d && !orl_failed(ctx)) {
        const orl_row *r = orl_dataset_row(d, 0);
        check(is(&r->prompt, prompt.data));
        if (r->response.text) {
            orli_str_add(&prompt, r->response.text, r->response.bytes);
            orli_str_puts(&prompt, behind[which]);
        }
        check(strcmp(prompt.data, text.data) == 0);
        check(r->flags & ORL_TEMPLATED);
    }
    if (test_failed > failed) printf("    %s: %s %s\n", name.data, row.data, orl_error(ctx));
    orl_dataset_free(d);
    orli_str_free(&name), orli_str_free(&text), orli_str_free(&prompt), orli_str_free(&row);
}

static void golden_texts(void) {
    const char *slash = strrchr(__FILE__, '/');
    int seen[ORL_TEMPLATE_COUNT + 1] = {0}, i;
    char path[800];
    orli_file file;
    orli_json j;
    snprintf(path, sizeof path, "%.*sgolden/templates.json", slash ? (int)(slash - __FILE__ + 1) : 0, __FILE__);
    if (orli_file_open(ctx, path, &file) != ORL_OK) {
        check(0);
        return;
    }
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);) golden_case(&j, seen);
    check(orli_json_end(&j) == ORL_OK);
    for (i = 1; i < ORL_TEMPLATE_COUNT; i++) check(seen[i] >= 10);
    orli_file_close(&file);
}

/* ---- what cannot be ---- */

#define SYSTEM "{\"role\": \"system\", \"content\": \"Be kind.\"}"
#define USER "{\"role\": \"user\", \"content\": \"Hi\"}"
#define ANSWER "{\"role\": \"assistant\", \"content\": \"Hello\"}"
#define TOOL "{\"role\": \"tool\", \"content\": \"7\"}"

static void refused(orl_template which, const char *messages, const char *part) {
    char row[800];
    orl_dataset *d;
    snprintf(row, sizeof row, "{\"messages\": [%s]}", messages);
    d = parse(row);
    check(d != NULL);
    if (part) {
        check(orl_dataset_set_template(d, which) == ORL_ERR_FORMAT);
        check_contains(orl_error(ctx), "data:1");
        expect_error(ORL_ERR_FORMAT, part);
    } else {
        check(orl_dataset_set_template(d, which) == ORL_OK);
    }
    orl_dataset_free(d);
}

static void roles(void) {
    static const orl_template in_turn[] = {ORL_TEMPLATE_LLAMA2, ORL_TEMPLATE_ALPACA, ORL_TEMPLATE_GEMMA,
                                           ORL_TEMPLATE_MISTRAL};
    size_t i;
    for (i = 0; i < 4; i++) {
        refused(in_turn[i], USER ", " USER, "out of turn");
        refused(in_turn[i], ANSWER, "out of turn");
        refused(in_turn[i], USER ", " ANSWER ", " SYSTEM ", " USER, "out of turn");
        refused(in_turn[i], SYSTEM ", " SYSTEM ", " USER, "out of turn");
        refused(in_turn[i], SYSTEM ", " ANSWER, "out of turn");
        refused(in_turn[i], USER ", " TOOL, "role");
        if (in_turn[i] != ORL_TEMPLATE_ALPACA) refused(in_turn[i], SYSTEM, "a system message alone");
    }
    refused(ORL_TEMPLATE_QWEN, USER ", " TOOL, "role");
    refused(ORL_TEMPLATE_ZEPHYR, USER ", " TOOL, "role");
    refused(ORL_TEMPLATE_CHATML, USER ", " TOOL ", " USER, NULL);
    refused(ORL_TEMPLATE_LLAMA3, SYSTEM ", " TOOL ", " SYSTEM, NULL);
    refused(ORL_TEMPLATE_HH, ANSWER ", " TOOL, NULL);
    {
        orl_dataset *d = parse("{\"messages\": [" USER "]}");
        check(orl_dataset_set_template(d, ORL_TEMPLATE_COUNT) == ORL_ERR_ARGUMENT);
        expect_error(ORL_ERR_ARGUMENT, "no template");
        check(!orl_template_name(ORL_TEMPLATE_COUNT) && !orl_template_name((orl_template)-1));
        orl_dataset_free(d);
    }
}

/* ---- thoughts ---- */

static void thoughts_are_left_out(void) {
    orl_dataset *d = parse("{\"messages\": [" USER ", "
                           "{\"role\": \"assistant\", \"content\": \"<think>\\nhm\\n</think>\\n\\nYes\"}, " USER ", "
                           "{\"role\": \"assistant\", \"content\": \"<think>\\nso\\n</think>\\n\\nNo\"}]}");
    const orl_row *r = orl_dataset_row(d, 0);
    check(orl_dataset_set_template(d, ORL_TEMPLATE_QWEN3) == ORL_OK);
    check(is(&r->prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nHi"
                         "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"));
    check(is(&r->response, "No"));
    orl_dataset_free(d);
}

/* ---- tokens ---- */

static orl_tokenizer *tokenizer(const char *const *specials) { /* each byte is a token: ids follow the specials' */
    size_t n = 0;
    while (specials[n]) n++;
    return orl_tokenizer_train(ctx, "", 0, 256 + n, specials);
}

static orl_model *model(orl_tokenizer *tok) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.layers = 1, c.dim = 8, c.heads = c.kv_heads = 1, c.ffn = 8, c.vocab = orl_vocab(tok), c.context = 512;
    return orl_model_create(ctx, &c, tok);
}

static void found(const char *special, const char *second, orl_template which) {
    const char *specials[4] = {"<|endoftext|>", NULL, NULL, NULL};
    orl_tokenizer *tok;
    specials[1] = special, specials[2] = second;
    tok = tokenizer(specials);
    check(orl_template_find(tok) == which);
    orl_tokenizer_free(tok);
}

static void tokenizers_tell(void) {
    found("<|im_start|>", "<|im_end|>", ORL_TEMPLATE_CHATML);
    found("<|im_start|>", "<|object_ref_start|>", ORL_TEMPLATE_QWEN);
    found("<|im_start|>", "<think>", ORL_TEMPLATE_QWEN3);
    found("<|start_header_id|>", "<|eot_id|>", ORL_TEMPLATE_LLAMA3);
    found("<start_of_turn>", "<end_of_turn>", ORL_TEMPLATE_GEMMA);
    found("<|user|>", "<|assistant|>", ORL_TEMPLATE_ZEPHYR);
    found("<|user|>", "<|end|>", ORL_TEMPLATE_HH);
    found("[INST]", "[/INST]", ORL_TEMPLATE_HH);
    check(orl_template_find(NULL) == ORL_TEMPLATE_HH);
}

/* The ids of an example, ends with -1. */
static void check_ids(const orl_model *m, const orl_dataset *d, const int32_t *prompt, const int32_t *response) {
    orli_examples e;
    const orli_example *x;
    size_t i;
    check(orli_examples_build(&e, m, d, 1) == ORL_OK && e.count == 1);
    x = e.example;
    for (i = 0; x && i < x->prompt_count && prompt[i] == e.ids[x->prompt + i]; i++) {}
    check(x && i == x->prompt_count && prompt[i] == -1);
    for (i = 0; x && i < x->count[0] && response[i] == e.ids[x->response[0] + i]; i++) {}
    check(x && i == x->count[0] && response[i] == -1);
    orli_examples_free(&e);
}

static void chatml_tokens(void) {
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
    static const int32_t prompt[] = {1, 's' + 3, 'y' + 3, '\n' + 3, 'X' + 3, 2, '\n' + 3, -1},
                         answer[] = {'Y' + 3, 2, -1}, plain[] = {'Y' + 3, 0, -1};
    orl_tokenizer *tok = tokenizer(specials);
    orl_model *m = model(tok), *copy, *back;
    orl_dataset *d = parse("{\"messages\": [{\"role\": \"sy\", \"content\": \"X\"}, "
                           "{\"role\": \"assistant\", \"content\": \"Y\"}]}");
    char *text;
    int32_t all[40], tail[] = {1, 'a', 's', 's', 'i', 's', 't', 'a', 'n', 't', '\n', -1};
    size_t i, n = 7;
    tok->bos = 0, tok->add_bos = 1; /* asked for by the tokenizer, not by the template: none is added */
    memcpy(all, prompt, 7 * sizeof *all);
    for (i = 0; i < sizeof tail / sizeof *tail; i++) all[n++] = tail[i] > 3 ? tail[i] + 3 : tail[i];
    check(m->config.eos == 0 && m->stops == 1);
    check(orl_dataset_set_template(d, ORL_TEMPLATE_CHATML) == ORL_OK);
    check_ids(m, d, all, plain);
    check(orl_dataset_use_template(d, m, NULL) == ORL_OK); /* and the model ends its turns now */
    check(m->config.eos == 2 && m->stops == 2 && m->stop[0] == 2 && m->stop[1] == 0);
    check_ids(m, d, all, answer);
    check(orl_dataset_use_template(d, m, "chatml") == ORL_OK && m->stops == 2 && m->config.eos == 2);
    text = orl_dataset_dump(d, m, 1);
    check_contains(text, "       2  1          \"<|im_end|>\"\n");
    check_contains(text, "       1  0          \"<|im_start|>\"\n");
    orl_free(ctx, text);
    copy = orl_model_copy(m);
    check(copy && copy->config.eos == 2 && copy->stops == 2);
    check(orl_model_save(m, in_dir("chat")) == ORL_OK);
    back = orl_model_load(ctx, in_dir("chat"));
    check(back && back->config.eos == 2 && back->stops == 2 && back->stop[1] == 0);
    check(orl_dataset_use_template(d, m, "vicuna") == ORL_ERR_ARGUMENT);
    expect_error(ORL_ERR_ARGUMENT, "choose one of hh, chatml, qwen");
    orl_dataset_free(d);
    orl_model_free(m), orl_model_free(copy), orl_model_free(back);
    orl_tokenizer_free(tok);
}

/* BOS comes from the template, once; the tokens are the tokenizer's own. */
static void llama_tokens(void) {
    static const char *const specials[] = {"<end>", "<begin>", NULL};
    static const int32_t prompt[] = {1,   '[', 'I', 'N', 'S', 'T', ']', ' ', 'Q',
                                     ' ', '[', '/', 'I', 'N', 'S', 'T', ']', -1},
                         answer[] = {' ', 'A', ' ', 0, -1};
    orl_tokenizer *tok = tokenizer(specials);
    orl_model *m = model(tok);
    orl_dataset *d = parse("{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, "
                           "{\"role\": \"assistant\", \"content\": \"A\"}]}"),
                *text = parse("{\"prompt\": \"Q\", \"completion\": \"A\"}");
    int32_t want[20], want_answer[5], bos[] = {1, 'Q' + 2, -1}, plain[] = {'A' + 2, 0, -1};
    int bos_asked;
    size_t i;
    for (i = 0; i < sizeof prompt / sizeof *prompt; i++) want[i] = prompt[i] > 2 ? prompt[i] + 2 : prompt[i];
    for (i = 0; i < 5; i++) want_answer[i] = answer[i] > 2 ? answer[i] + 2 : answer[i];
    for (bos_asked = 0; bos_asked < 2; bos_asked++) {
        tok->bos = 1, tok->add_bos = bos_asked;
        check(orl_dataset_use_template(d, m, "llama2") == ORL_OK);
        check(is(&orl_dataset_row(d, 0)->prompt, "<begin>[INST] Q [/INST]"));
        check_ids(m, d, want, want_answer);
        check(m->config.eos == 0 && m->stops == 1);
        check_ids(m, text, bos_asked ? bos : bos + 1, plain); /* rows of text as ever */
    }
    check(orl_dataset_use_template(d, m, NULL) == ORL_OK); /* its tokens tell of none: hh, with the tokenizer's BOS */
    check(is(&orl_dataset_row(d, 0)->prompt, "\n\nHuman: Q\n\nAssistant:"));
    check(is(&orl_dataset_row(d, 0)->response, " A"));
    check(!(orl_dataset_row(d, 0)->flags & ORL_TEMPLATED));
    orl_dataset_free(d), orl_dataset_free(text);
    orl_model_free(m);
    orl_tokenizer_free(tok);
}

/* A sample of a templated prompt says so when it is written, and stops at the end of turn. */
static void samples_stay_templated(void) {
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
    orl_tokenizer *tok = tokenizer(specials);
    orl_model *m = model(tok);
    orl_generate_options o = orl_generate_default();
    orl_dataset *d = parse("{\"messages\": [" USER "]}"), *s, *again;
    char *row;
    size_t i, stopped = 0;
    o.samples = 40, o.max_tokens = 400, o.seed = 3;
    tok->bos = 0, tok->add_bos = 1;
    check(orl_dataset_use_template(d, m, NULL) == ORL_OK);
    s = orl_sample(m, d, &o);
    check(s && orl_dataset_count(s) == 40);
    for (i = 0; i < orl_dataset_count(s); i++) {
        const orl_row *r = orl_dataset_row(s, i);
        int32_t last = r->response.ids[r->response.tokens - 1];
        check((r->flags & ORL_TRUNCATED) ? last != 2 && last != 0 : last == 2 || last == 0);
        stopped += last == 2;
    }
    check(stopped > 0);
    row = orl_dataset_row_json(s, 0);
    check_contains(row, "\"templated\": true");
    again = parse(row ? row : "");
    check(again && (orl_dataset_row(again, 0)->flags & ORL_TEMPLATED));
    check(orl_dataset_use_template(s, m, "zephyr") == ORL_OK); /* its prompts are what was asked */
    check(orl_dataset_row(s, 0)->response.ids && is(&orl_dataset_row(s, 0)->prompt, "<|im_start|>user\nHi<|im_end|>\n"
                                                                                      "<|im_start|>assistant\n"));
    orl_free(ctx, row);
    orl_dataset_free(again), orl_dataset_free(s), orl_dataset_free(d);
    orl_model_free(m);
    orl_tokenizer_free(tok);
}

int main(void) {
    orl_config config = orl_config_default();
    config.threads = 1;
    ctx = orl_create(&config);
    if (!ctx || !make_dir("test_13_templates", NULL)) return 1;
    golden_texts();
    roles();
    thoughts_are_left_out();
    tokenizers_tell();
    chatml_tokens();
    llama_tokens();
    samples_stay_templated();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    remove_tree(dir);
    orl_destroy(ctx);
    return test_report("test_13_templates");
}
