/* test_13_data.c - section 13: JSONL in and out, views, and what a model sees of a row. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"

static orl_ctx *ctx;
static orl_tokenizer *tok; /* bytes: <eos> 0, <bos> 1, then 256 bytes */

static char last_note[700];
static void take_note(void *user, const char *sentence) {
    (void)user;
    snprintf(last_note, sizeof last_note, "%s", sentence);
}

static orl_dataset *parse(const char *text) { return orl_dataset_parse(ctx, text, strlen(text), "data"); }

static int text_is(const orl_text *t, const char *s) { return t->text && t->bytes == strlen(s) && memcmp(t->text, s, t->bytes) == 0; }
static int ids_are(const orl_text *t, const int32_t *ids, size_t n) { return t->ids && t->tokens == n && memcmp(t->ids, ids, n * sizeof *ids) == 0; }

static void check_row(const orl_row *r, const char *prompt, const char *response, const char *rejected, int line) {
    int ok = r && text_is(&r->prompt, prompt) && (!response || text_is(&r->response, response)) && (!rejected || text_is(&r->rejected, rejected));
    test_check(ok, "the row has these texts", __FILE__, line);
    if (!ok && r)
        printf("    line %d: prompt \"%.*s\", response \"%.*s\", rejected \"%.*s\"\n", line, (int)r->prompt.bytes, r->prompt.text, (int)r->response.bytes,
               r->response.text ? r->response.text : "", (int)r->rejected.bytes, r->rejected.text ? r->rejected.text : "");
}
#define check_texts(r, prompt, response, rejected) check_row(r, prompt, response, rejected, __LINE__)

/* ---- kinds of rows ---- */

static void test_kinds(void) {
    static const int32_t p[] = {5, 6}, c[] = {7}, j[] = {8, 9, 2147483647};
    orl_dataset *d = parse("{\"text\": \"Once.\"}\n"
                           "{\"prompt\": \"Q\", \"completion\": \" A\"}\n"
                           "{\"prompt\": \"Q\"}\n"
                           "{\"prompt\": \"Q\", \"chosen\": \"good\", \"rejected\": \"bad\", \"margin\": 0.5}\n"
                           "{\"prompt_ids\": [5, 6], \"completion_ids\": [7]}\n"
                           "{\"prompt_ids\": [5, 6], \"chosen_ids\": [7], \"rejected_ids\": [8, 9, 2147483647], \"margin\": null}\n"
                           "{\"prompt\": \"Q\", \"completion\": \"x\", \"reward\": -1.25}\n"
                           "{\"completion\": \"tab\\there\\u00e9\\ud83d\\ude00\\\"\", \"prompt\": \"\\n\", \"truncated\": true}\n"
                           "{\"prompt\": \"\", \"completion\": \"from nothing\", \"sample\": 3, \"logprob\": -2.5, \"tokens\": 4, \"reward_raw\": 7, \"reward\": 0.5}\n");
    orl_row *r;
    check(orl_dataset_count(d) == 9);
    check_texts(orl_dataset_row(d, 0), "", "Once.", NULL);
    check_texts(r = orl_dataset_row(d, 1), "Q", " A", NULL);
    check(r->flags == 0 && r->weight == 1 && r->line == 2);
    check_texts(r = orl_dataset_row(d, 2), "Q", NULL, NULL);
    check(!r->response.text && !r->response.ids && r->group == orl_dataset_row(d, 1)->group);
    check_texts(r = orl_dataset_row(d, 3), "Q", "good", "bad");
    check(r->flags == ORL_PAIR && r->margin == 0.5);
    r = orl_dataset_row(d, 4);
    check(ids_are(&r->prompt, p, 2) && ids_are(&r->response, c, 1) && r->flags == ORL_IDS_GIVEN && r->group != orl_dataset_row(d, 0)->group);
    r = orl_dataset_row(d, 5);
    check(ids_are(&r->prompt, p, 2) && ids_are(&r->response, c, 1) && ids_are(&r->rejected, j, 3) && r->margin == 0 && r->group == orl_dataset_row(d, 4)->group);
    r = orl_dataset_row(d, 6);
    check(r->flags == ORL_LABELLED && r->reward == -1.25 && r->reward_raw == -1.25);
    check_texts(r = orl_dataset_row(d, 7), "\n", "tab\there\xc3\xa9\xf0\x9f\x98\x80\"", NULL);
    check(r->flags == ORL_TRUNCATED);
    r = orl_dataset_row(d, 8);
    check(r->flags == (ORL_SAMPLED | ORL_LOGP | ORL_LABELLED) && r->sample == 3 && r->logp == -2.5 && r->tokens == 4 && r->reward_raw == 7 && r->reward == 0.5);
    check(orl_dataset_row(d, 9) == NULL);
    orl_dataset_free(d);
    d = orl_dataset_create(ctx);
    check(orl_dataset_add(d, "p", "r") == ORL_OK && orl_dataset_add(d, "p", NULL) == ORL_OK && orl_dataset_add_pair(d, "q", "c", "j") == ORL_OK);
    check_texts(orl_dataset_row(d, 0), "p", "r", NULL);
    check_texts(orl_dataset_row(d, 2), "q", "c", "j");
    check(orl_dataset_row(d, 0)->group == orl_dataset_row(d, 1)->group && orl_dataset_row(d, 2)->group != orl_dataset_row(d, 1)->group);
    check(orl_dataset_add(d, "p", "") == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "empty response");
    check(orl_dataset_add_pair(d, "p", "c", NULL) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "NULL");
    check(orl_dataset_count(d) == 3);
    orl_dataset_free(d);
}

/* The border of transcripts: the last tag inside what both sides share, never one behind it. */
static void test_transcripts(void) {
    orl_dataset *d = parse("{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: yes\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: no\"}\n"
                           "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: d\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: e\"}\n"
                           "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: same\\n\\nAssistant: x\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: other\\n\\nAssistant: x\"}\n"
                           "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: long\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: longer\"}\n");
    check_texts(orl_dataset_row(d, 0), "\n\nHuman: a\n\nAssistant:", " yes", " no");
    check_texts(orl_dataset_row(d, 1), "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", " d", " e");
    check_texts(orl_dataset_row(d, 2), "\n\nHuman: a\n\nAssistant:", " same\n\nAssistant: x", " other\n\nAssistant: x");
    check_texts(orl_dataset_row(d, 3), "\n\nHuman: a\n\nAssistant:", " long", " longer"); /* one side is the other's beginning */
    check(orl_dataset_row(d, 0)->group == orl_dataset_row(d, 2)->group);
    orl_dataset_free(d);
    check(!parse("{\"chosen\": \"Hello\", \"rejected\": \"Help\"}")), expect_error(ORL_ERR_FORMAT, "data:1");
    check(!parse("{\"chosen\": \"a\\n\\nAssistant: x\", \"rejected\": \"b\\n\\nAssistant: x\"}")), expect_error(ORL_ERR_FORMAT, "share no prompt");
    check(!parse("{\"chosen\": \"a\\n\\nAssistant:\", \"rejected\": \"a\\n\\nAssistant: x\"}")), expect_error(ORL_ERR_FORMAT, "empty response");
    check(!parse("{\"chosen\": \"a\\n\\nAssistant: x\"}")), expect_error(ORL_ERR_FORMAT, "both");
    check(!parse("{\"chosen_ids\": [1, 2], \"rejected_ids\": [1, 3]}")), expect_error(ORL_ERR_FORMAT, "prompt_ids");
}

static void test_given_twice(void) {
    check(!parse("{\"prompt\": \"a\", \"completion\": \"b\", \"text\": \"c\"}")), expect_error(ORL_ERR_FORMAT, "second time");
    check(!parse("{\"prompt\": \"a\", \"completion\": \"\", \"text\": \"c\"}")), expect_error(ORL_ERR_FORMAT, "second time");
    check(!parse("{\"prompt\": \"a\", \"completion\": \"b\", \"chosen\": \"c\", \"rejected\": \"d\"}")), expect_error(ORL_ERR_FORMAT, "second time");
    check(!parse("{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}], \"prompt\": \"a\"}")), expect_error(ORL_ERR_FORMAT, "second time");
    check(!parse("{\"prompt\": \"a\", \"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}")), expect_error(ORL_ERR_FORMAT, "messages");
    orl_dataset_free(parse("{\"prompt\": \"a\", \"completion\": \"b\", \"completion_ids\": [1]}")); /* text and its ids are one */
    check(!orl_failed(ctx));
}

static void test_messages(void) {
    orl_dataset *d = parse("{\"messages\": [{\"role\": \"system\", \"content\": \"Be kind.\"}, {\"role\": \"user\", \"content\": \"Hi\"}, {\"content\": \"Hello\", \"role\": \"assistant\"}, "
                           "{\"role\": \"user\", \"content\": \"Bye\"}, {\"role\": \"assistant\", \"content\": \"So long\"}]}\n"
                           "{\"prompt\": \"plain\", \"completion\": \"x\"}\n");
    check_texts(orl_dataset_row(d, 0), "Be kind.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:", " So long", NULL);
    check(orl_dataset_set_template(d, ORL_TEMPLATE_CHATML) == ORL_OK);
    check_texts(orl_dataset_row(d, 0),
                "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
                "So long", NULL);
    check_texts(orl_dataset_row(d, 1), "plain", "x", NULL);
    check(orl_dataset_row(d, 0)->group != orl_dataset_row(d, 1)->group);
    check(orl_dataset_set_template(d, ORL_TEMPLATE_HH) == ORL_OK);
    check_texts(orl_dataset_row(d, 0), "Be kind.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:", " So long", NULL);
    { /* in a view too, without confusing its groups */
        orl_dataset *v = orl_dataset_view(d, 0, 2);
        check(orl_dataset_set_template(v, ORL_TEMPLATE_CHATML) == ORL_OK);
        check(orl_dataset_row(v, 0)->group != orl_dataset_row(v, 1)->group);
        check(orl_dataset_add(v, "plain", "y") == ORL_OK);
        check(orl_dataset_row(v, 2)->group == orl_dataset_row(v, 1)->group);
        orl_dataset_free(v);
    }
    orl_dataset_free(d);
    check(!parse("{\"messages\": []}")), expect_error(ORL_ERR_FORMAT, "data:1");
    d = parse("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}"); /* a prompt that waits for its answer */
    check_texts(orl_dataset_row(d, 0), "\n\nHuman: Hi\n\nAssistant:", NULL, NULL);
    check(orl_dataset_set_template(d, ORL_TEMPLATE_CHATML) == ORL_OK);
    check_texts(orl_dataset_row(d, 0), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", NULL, NULL);
    orl_dataset_free(d);
    check(!parse("{\"messages\": [{\"content\": \"Hi\"}]}")), expect_error(ORL_ERR_FORMAT, "role");
    check(!parse("{\"messages\": [{\"role\": \"user\", \"content\": 3}]}")), expect_error(ORL_ERR_FORMAT, "data:1");
    check(!parse("{\"messages\": {\"role\": \"user\"}}")), expect_error(ORL_ERR_FORMAT, "data:1");
    check(!parse("{\"messages\": [{\"role\": \"assistant\", \"content\": \"\"}]}")), expect_error(ORL_ERR_FORMAT, "empty response");
}

/* ---- lines ---- */

static void test_lines(void) {
    orl_dataset *d = parse("\n  \t\r\n{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}\n\n\n   {\"text\": \"three\"}");
    check(orl_dataset_count(d) == 3);
    check_texts(orl_dataset_row(d, 2), "", "three", NULL);
    check(orl_dataset_row(d, 0)->line == 3 && orl_dataset_row(d, 1)->line == 5 && orl_dataset_row(d, 2)->line == 8);
    orl_dataset_free(d);
    check(!parse("")), expect_error(ORL_ERR_DATA, "no rows");
    check(!parse("\n \r\n")), expect_error(ORL_ERR_DATA, "no rows");
}

static void test_malformed(void) {
    static const char *const bad[][2] = {
        /* the second line of a file, and what the sentence must have */
        {"{\"text\": \"x\"", "data:2:"},
        {"{\"text\": \"x}", "data:2:"},
        {"[1]", "data:2:"},
        {"\"text\"", "data:2:"},
        {"{\"text\": \"x\"} {\"text\": \"y\"}", "data:2:"},
        {"{\"text\": 3}", "data:2:"},
        {"{\"text\": null}", "data:2:"},
        {"{\"text\": \"\"}", "empty response"},
        {"{\"prompt\": \"a\", \"completion\": \"\"}", "empty response"},
        {"{\"prompt_ids\": [1], \"completion_ids\": []}", "empty response"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"\"}", "empty response"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\"}", "both"},
        {"{\"prompt\": \"a\", \"rejected\": \"b\"}", "both"},
        {"{}", "data:2:"},
        {"{\"id\": 4}", "data:2:"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "data:2:"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"reward\": NaN}", "data:2:"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"reward\": Infinity}", "data:2:"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"reward\": 1e999}", "too large"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"reward\": \"3\"}", "data:2:"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"reward\": null}", "data:2:"},
        {"{\"prompt_ids\": [1.5], \"completion_ids\": [2]}", "data:2:"},
        {"{\"prompt_ids\": [-1], \"completion_ids\": [2]}", "data:2:"},
        {"{\"prompt_ids\": [2147483648], \"completion_ids\": [2]}", "data:2:"},
        {"{\"prompt_ids\": [[1]], \"completion_ids\": [2]}", "data:2:"},
        {"{\"prompt_ids\": \"1\", \"completion_ids\": [2]}", "data:2:"},
        {"{\"text\": \"a\\ud800\"}", "data:2:"},
        {"{\"text\": \"a\\q\"}", "data:2:"},
        {"{\"text\": \"a\tb\"}", "data:2:"},
        {"{\"text\": \"\xff\xfe\"}", "data:2:"},
        {"{\"text\": \"a\", \"truncated\": 1}", "data:2:"},
        {"{\"text\": \"a\", \"sample\": -1}", "data:2:"},
        {"{'text': 'a'}", "data:2:"},
        {"{\"text\": \"a\",}", "data:2:"}};
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        char file[300];
        size_t held = orl_memory_now(ctx);
        snprintf(file, sizeof file, "{\"text\": \"fine\"}\n%s\n{\"text\": \"fine\"}\n", bad[i][0]);
        check(!parse(file));
        if (orl_error_status(ctx) != ORL_ERR_FORMAT) printf("    %s: %s\n", bad[i][0], orl_error(ctx));
        check(orl_error_status(ctx) == ORL_ERR_FORMAT);
        check_contains(orl_error(ctx), "data:2");
        check_contains(orl_error(ctx), bad[i][1]);
        orl_clear_error(ctx);
        check(orl_memory_now(ctx) == held);
    }
}

/* ---- out ---- */

static void test_save(void) {
    static const char source[] = "{ \"id\" : 17, \"prompt\": \"a\\u00e9\\/\", \"meta\": {\"x\":[1, 2.50,  null]}, \"completion\": \"b\", \"note\": \"\\u0041\" }\n"
                                 "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"j\", \"big\": 12345678901234567890}\n"
                                 "{\"prompt_ids\": [1, 2], \"completion_ids\": [3]}\n"
                                 "{\"text\": \"t\", \"reward\": 0.1}\n";
    orl_dataset *d = parse(source), *e;
    const char *path = in_dir("out.jsonl");
    char *text;
    size_t i;
    text = orl_dataset_row_json(d, 0); /* every field verbatim, in its place */
    check(text && strcmp(text, "{\"id\": 17, \"prompt\": \"a\\u00e9\\/\", \"meta\": {\"x\":[1, 2.50,  null]}, \"completion\": \"b\", \"note\": \"\\u0041\"}") == 0);
    orl_free(ctx, text);
    text = orl_dataset_row_json(d, 1);
    check_contains(text, "\"big\": 12345678901234567890");
    orl_free(ctx, text);
    check(orl_dataset_add(d, "new \"quoted\"\n", "response") == ORL_OK && orl_dataset_add_pair(d, "x", "y", "z") == ORL_OK);
    orl_dataset_row(d, 0)->logp = -1.0 / 3, orl_dataset_row(d, 0)->tokens = 2, orl_dataset_row(d, 0)->flags |= ORL_LOGP;
    orl_dataset_row(d, 1)->reward = 0.1, orl_dataset_row(d, 1)->rejected_reward = -0.7, orl_dataset_row(d, 1)->reward_raw = 5, orl_dataset_row(d, 1)->rejected_reward_raw = 1e-300;
    orl_dataset_row(d, 1)->flags |= ORL_LABELLED;
    orl_dataset_row(d, 2)->logp = (double)NAN, orl_dataset_row(d, 2)->flags |= ORL_LOGP; /* did not fit */
    check(orl_dataset_save(d, path) == ORL_OK);
    e = orl_dataset_load(ctx, path);
    check(orl_dataset_count(e) == 6);
    for (i = 0; i < 6 && e; i++) {
        const orl_row *a = orl_dataset_row(d, i), *b = orl_dataset_row(e, i);
        check(a->flags == b->flags && a->group == b->group && a->margin == b->margin && a->tokens == b->tokens);
        check(a->reward == b->reward && a->reward_raw == b->reward_raw && a->rejected_reward == b->rejected_reward && a->rejected_reward_raw == b->rejected_reward_raw);
        check(a->logp == b->logp || (a->logp != a->logp && b->logp != b->logp));
        check(a->prompt.bytes == b->prompt.bytes && a->response.bytes == b->response.bytes && a->rejected.bytes == b->rejected.bytes);
        check(!a->prompt.text == !b->prompt.text && (!a->prompt.text || memcmp(a->prompt.text, b->prompt.text, a->prompt.bytes) == 0));
        check(!a->response.ids == !b->response.ids && a->response.tokens == b->response.tokens);
    }
    check(orl_dataset_save(e, path) == ORL_OK); /* over the file it maps */
    orl_dataset_free(d);
    d = orl_dataset_load(ctx, path);
    check(orl_dataset_count(d) == 6);
    for (i = 0; i < 6 && d; i++) { /* a second trip changes nothing */
        char *a = orl_dataset_row_json(d, i), *b = orl_dataset_row_json(e, i);
        check(a && b && strcmp(a, b) == 0);
        orl_free(ctx, a);
        orl_free(ctx, b);
    }
    orl_dataset_free(d);
    orl_dataset_free(e);
    check(!orl_dataset_load(ctx, in_dir("none.jsonl"))), expect_error(ORL_ERR_IO, "none.jsonl");
    check(!orl_dataset_load(ctx, dir)), expect_error(ORL_ERR_IO, dir);
    d = parse("{\"text\": \"x\"}");
    check(orl_dataset_save(d, in_dir("no/dir.jsonl")) == ORL_ERR_IO), expect_error(ORL_ERR_IO, "no/dir.jsonl");
    orl_dataset_free(d);
}

/* ---- views ---- */

static size_t tests_of(const orl_dataset *test, const char *value) { /* rows whose JSON has the value */
    size_t i, n = 0;
    for (i = 0; i < orl_dataset_count(test); i++) {
        char *text = orl_dataset_row_json(test, i);
        n += text && strstr(text, value) != NULL;
        orl_free(ctx, text);
    }
    return n;
}

static void test_split(void) {
    orli_str s = orli_str_new(ctx), backwards = orli_str_new(ctx);
    orl_dataset *d, *other, *train, *test, *train2, *test2;
    size_t i, k, moved = 0;
    for (i = 0; i < 60; i++) orli_str_printf(&s, "{\"prompt\": \"p%zu\", \"completion\": \"c%zu\", \"topic\": \"<%zu>\"}\n", i % 20, i, i % 12);
    for (i = 60; i-- > 0;) orli_str_printf(&backwards, "{\"prompt\": \"p%zu\", \"completion\": \"c%zu\", \"topic\": \"<%zu>\"}\n", i % 20, i, i % 12);
    d = parse(s.data), other = parse(backwards.data);
    check(orl_dataset_split(d, "topic", 0.25, 7, &train, &test) == ORL_OK);
    check(orl_dataset_count(test) == 15 && orl_dataset_count(train) == 45);
    check(orl_dataset_split(other, "topic", 0.25, 7, &train2, &test2) == ORL_OK);
    for (i = 0; i < 12; i++) { /* whole groups, and the same ones whatever the order */
        char topic[16];
        snprintf(topic, sizeof topic, "\"<%zu>\"", i);
        k = tests_of(test, topic);
        check(k == 0 || k == 5);
        check(tests_of(train, topic) == 5 - k);
        check(tests_of(test2, topic) == k);
    }
    orl_dataset_free(train), orl_dataset_free(test), orl_dataset_free(train2), orl_dataset_free(test2);
    check(orl_dataset_split(d, NULL, 0.3, 1, &train, &test) == ORL_OK); /* by prompt */
    check(orl_dataset_count(test) == 18);
    for (i = 0; i < 18; i++)
        for (k = 0; k < 42; k++) check(orl_dataset_row(test, i)->group != orl_dataset_row(train, k)->group);
    check(orl_dataset_split(d, NULL, 0.3, 2, &train2, &test2) == ORL_OK);
    for (i = 0; i < 18; i++) moved += orl_dataset_row(test, i)->group != orl_dataset_row(test2, i)->group;
    check(moved > 0); /* another seed, another split */
    orl_dataset_free(train), orl_dataset_free(test), orl_dataset_free(train2), orl_dataset_free(test2);
    check(orl_dataset_split(d, NULL, 0.0001, 1, &train, &test) == ORL_OK && orl_dataset_count(test) == 3); /* never nothing */
    check(orl_dataset_split(d, "nothing", 0.5, 1, &train, &test) == ORL_ERR_DATA && !train && !test), expect_error(ORL_ERR_DATA, "\"nothing\"");
    check(orl_dataset_split(d, NULL, 1, 1, &train, &test) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "fraction");
    orl_dataset_free(d);
    d = parse("{\"prompt\": \"one\"}\n{\"prompt\": \"one\"}\n");
    check(orl_dataset_split(d, NULL, 0.5, 1, &train, &test) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "one group");
    orl_dataset_free(d);
    orl_dataset_free(other);
    orli_str_free(&s), orli_str_free(&backwards);
}

static void test_views(void) {
    orl_dataset *a = parse("{\"prompt\": \"same\", \"completion\": \"a1\"}\n{\"prompt\": \"other\", \"completion\": \"a2\", \"k\": 1}\n");
    orl_dataset *b = orl_dataset_create(ctx), *join, *view;
    size_t i, held;
    char *text;
    orl_dataset_add(b, "new", "b1"), orl_dataset_add(b, "same", "b2");
    join = orl_dataset_join(a, b);
    view = orl_dataset_view(join, 1, 3);
    orl_dataset_free(a), orl_dataset_free(b), orl_dataset_free(join); /* a view keeps what it needs alive */
    check(orl_dataset_count(view) == 3);
    check_texts(orl_dataset_row(view, 0), "other", "a2", NULL);
    check_texts(orl_dataset_row(view, 1), "new", "b1", NULL);
    check_texts(orl_dataset_row(view, 2), "same", "b2", NULL);
    text = orl_dataset_row_json(view, 0);
    check_contains(text, "\"k\": 1");
    orl_free(ctx, text);
    for (i = 0; i < 2000; i++) { /* a long chain of views is let go without recursion */
        a = orl_dataset_view(view, 0, orl_dataset_count(view));
        orl_dataset_free(view);
        view = a;
    }
    check_texts(orl_dataset_row(view, 2), "same", "b2", NULL);
    orl_dataset_free(view);
    held = orl_memory_now(ctx);
    a = parse("{\"prompt\": \"same\", \"completion\": \"x\"}\n{\"prompt\": \"q\", \"completion\": \"y\"}");
    join = orl_dataset_join(a, a);
    check(orl_dataset_count(join) == 4 && orl_dataset_row(join, 0)->group == orl_dataset_row(join, 2)->group && orl_dataset_row(join, 0)->group != orl_dataset_row(join, 1)->group);
    check(!orl_dataset_view(a, 1, 2)), expect_error(ORL_ERR_ARGUMENT, "orl_dataset_view");
    check(!orl_dataset_view(a, 3, 0)), expect_error(ORL_ERR_ARGUMENT, "orl_dataset_view");
    view = orl_dataset_view(a, 2, 0);
    check(view && orl_dataset_count(view) == 0);
    orl_dataset_free(view), orl_dataset_free(join), orl_dataset_free(a);
    check(orl_memory_now(ctx) == held);
}

/* ---- rows as a model sees them ---- */

static orl_model *make_model(size_t context, int32_t eos, orl_tokenizer *t) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.vocab = 258, c.dim = 8, c.heads = 2, c.kv_heads = 2, c.layers = 1, c.ffn = 8, c.context = context;
    c.eos = eos;
    return orl_model_create(ctx, &c, t);
}

/* "prompt|response|rejected" of an example: ids as the bytes they stand for, <eos> as $, <bos> as ^. */
static const char *shown(const orli_examples *e, size_t i) {
    static char text[400];
    const orli_example *x = &e->example[i];
    size_t part, k, n = 0;
    for (part = 0; part < 3; part++) {
        size_t at = part ? x->response[part - 1] : x->prompt, count = part ? x->count[part - 1] : x->prompt_count;
        if (part == 2 && !count) break;
        if (part) text[n++] = '|';
        for (k = 0; k < count && n + 8 < sizeof text; k++) {
            size_t bytes = 0;
            const char *s = orl_token_text(tok, e->ids[at + k], &bytes);
            text[n++] = e->ids[at + k] == 0 ? '$' : e->ids[at + k] == 1 ? '^' : s ? s[0] : '?';
        }
    }
    text[n] = 0;
    return text;
}

static void check_shown(const char *rows, const orl_model *m, int sides, size_t i, const char *want, size_t cut, size_t dropped, int line) {
    orl_dataset *d = parse(rows);
    orli_examples e;
    int ok = orli_examples_build(&e, m, d, sides) == ORL_OK;
    test_check(ok, "the rows build", __FILE__, line);
    if (!ok) printf("    line %d: %s\n", line, orl_error(ctx));
    else {
        ok = i < e.count && strcmp(shown(&e, i), want) == 0 && e.cut == cut && e.dropped == dropped;
        test_check(ok, "the model sees this", __FILE__, line);
        if (!ok) printf("    line %d: %s, cut %zu, dropped %zu\n", line, i < e.count ? shown(&e, i) : "nothing", e.cut, e.dropped);
    }
    orl_clear_error(ctx);
    orli_examples_free(&e);
    orl_dataset_free(d);
}
#define check_seen(rows, m, sides, i, want, cut, dropped) check_shown(rows, m, sides, i, want, cut, dropped, __LINE__)

static void test_examples(void) {
    orl_model *m = make_model(64, 0, tok), *no_eos = make_model(64, -1, NULL), *bare = make_model(64, 0, NULL);
    orl_dataset *d;
    orli_examples e;
    check_seen("{\"prompt\": \"ab\", \"completion\": \"cd\"}", m, 1, 0, "ab|cd$", 0, 0);
    check_seen("{\"prompt\": \"ab\", \"completion\": \"cd\", \"truncated\": true}", m, 1, 0, "ab|cd", 0, 0);
    check_seen("{\"prompt\": \"ab\", \"completion\": \"cd\", \"truncated\": false}", m, 1, 0, "ab|cd$", 0, 0);
    check_seen("{\"prompt\": \"ab\", \"chosen\": \"c\", \"rejected\": \"de\"}", m, 2, 0, "ab|c$|de$", 0, 0);
    check_seen("{\"prompt\": \"ab\"}", m, 0, 0, "ab|", 0, 0);
    check_seen("{\"text\": \"ab\"}", m, 1, 0, "$|ab$", 0, 0); /* something must stand before the first token */
    check_seen("{\"prompt\": \"a<eos>b\", \"completion\": \"c<eos>\"}", m, 1, 0, "a$b|c<eos>$", 0, 0); /* specials are read in prompts, not in responses */
    check_seen("{\"prompt_ids\": [99, 100], \"completion_ids\": [101]}", m, 1, 0, "ab|c", 0, 0);     /* ids as they are: nothing is added */
    check_seen("{\"prompt_ids\": [99, 100], \"completion_ids\": [101]}", bare, 1, 0, "ab|c", 0, 0);
    check_seen("{\"prompt_ids\": [99], \"chosen_ids\": [100], \"rejected_ids\": [101, 0]}", no_eos, 2, 0, "a|b|c$", 0, 0);
    check_seen("{\"prompt\": \"ab\", \"completion_ids\": [101]}", m, 1, 0, "ab|c", 0, 0);
    check_seen("{\"prompt_ids\": [99], \"completion\": \"c\"}", m, 1, 0, "a|c$", 0, 0);

    tok->add_bos = 1;
    check_seen("{\"prompt\": \"ab\", \"completion\": \"cd\"}", m, 1, 0, "^ab|cd$", 0, 0);
    check_seen("{\"text\": \"ab\"}", m, 1, 0, "^|ab$", 0, 0);
    check_seen("{\"prompt\": \"<bos>ab\", \"completion\": \"cd\"}", m, 1, 0, "^ab|cd$", 0, 0); /* once */
    check_seen("{\"prompt_ids\": [99], \"completion_ids\": [101]}", m, 1, 0, "a|c", 0, 0);
    check_seen("{\"prompt\": \"ab\", \"chosen\": \"c\", \"rejected\": \"de\"}", m, 2, 0, "^ab|c$|de$", 0, 0);
    tok->add_bos = 0;

    d = parse("{\"prompt\": \"ab\", \"completion\": \"c\"}");
    check(orli_examples_build(&e, bare, d, 1) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "data:1"), orli_examples_free(&e);
    check(orli_examples_build(&e, m, d, 2) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "no pair"), orli_examples_free(&e);
    orl_dataset_row(d, 0)->weight = (double)NAN;
    check(orli_examples_build(&e, m, d, 1) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "weight"), orli_examples_free(&e);
    orl_dataset_free(d), d = parse("{\"prompt\": \"ab\"}");
    check(orli_examples_build(&e, m, d, 1) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "no response"), orli_examples_free(&e);
    orl_dataset_free(d), d = parse("{\"prompt_ids\": [3], \"completion_ids\": [4]}\n{\"prompt_ids\": [3], \"completion_ids\": [258]}");
    check(orli_examples_build(&e, m, d, 1) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "data:2"), orli_examples_free(&e);
    orl_dataset_free(d), d = parse("{\"prompt_ids\": [], \"completion_ids\": [4]}");
    check(orli_examples_build(&e, no_eos, d, 1) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "empty prompt"), orli_examples_free(&e);
    orl_dataset_free(d);
    orl_model_free(m), orl_model_free(bare), orl_model_free(no_eos);
}

static void test_over_long(void) {
    orl_model *m = make_model(8, 0, tok);
    orl_config strict_config = orl_config_default();
    orl_dataset *d;
    orli_examples e;
    last_note[0] = 0;
    check_seen("{\"prompt\": \"abc\", \"completion\": \"1234\"}", m, 1, 0, "abc|1234$", 0, 0); /* just fits */
    check(!last_note[0]);
    check_seen("{\"prompt\": \"abc\", \"completion\": \"12345\"}", m, 1, 0, "abc|12345", 1, 0); /* its EOS is what was cut */
    check_contains(last_note, "1 responses were cut");
    check_seen("{\"prompt\": \"abcdefg\", \"completion\": \"12345\"}", m, 1, 0, "abcdefg|1", 1, 0);
    check_seen("{\"prompt\": \"abcdefgh\", \"completion\": \"1\"}\n{\"prompt\": \"a\", \"completion\": \"123456789\"}\n{\"prompt\": \"b\", \"completion\": \"1\"}", m, 1, 1, "b|1$", 1, 1);
    check_contains(last_note, "of 3 rows, 1 responses were cut");
    check_contains(last_note, "1 rows dropped");
    check_seen("{\"prompt\": \"abcdef\", \"chosen\": \"123\", \"rejected\": \"124\"}\n{\"prompt\": \"abcdef\", \"chosen\": \"13\", \"rejected\": \"124\"}", m, 2, 0, "abcdef|13|12", 1, 1);
    check_seen("{\"prompt\": \"abcdefgh\"}\n{\"prompt\": \"abcdefg\"}", m, 0, 0, "abcdefg|", 0, 1);
    d = parse("{\"prompt\": \"abcdefgh\", \"completion\": \"1\"}");
    check(orli_examples_build(&e, m, d, 1) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "no row is left"), orli_examples_free(&e);
    orl_dataset_free(d);
    { /* --strict: any cut or drop is an error */
        orl_ctx *strict;
        orl_tokenizer *strict_tok;
        orl_model *sm;
        orl_model_config c = *orl_model_get_config(m);
        static const char *const rows[] = {"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"abc\", \"completion\": \"12345\"}",
                                           "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"abcdefgh\", \"completion\": \"1\"}"};
        size_t i;
        strict_config.strict = 1, strict_config.threads = 1;
        strict = orl_create(&strict_config);
        check(orl_tokenizer_save(tok, in_dir("tok")) == ORL_OK);
        strict_tok = orl_tokenizer_load(strict, in_dir("tok"));
        sm = orl_model_create(strict, &c, strict_tok);
        for (i = 0; i < 2; i++) {
            orl_dataset *sd = orl_dataset_parse(strict, rows[i], strlen(rows[i]), "data");
            check(orl_logprob(sm, sd, NULL, NULL) == ORL_ERR_DATA);
            check_contains(orl_error(strict), "data:2");
            orl_clear_error(strict);
        }
        orl_destroy(strict);
    }
    orl_model_free(m);
}

/* ---- blocks, dump ---- */

static void test_blocks(void) {
    orl_model *m = make_model(6, 0, tok);
    orl_dataset *d = parse("{\"text\": \"abcdefghijkl\"}\n{\"prompt\": \"p\", \"completion\": \"q\"}\n{\"prompt\": \"x\", \"chosen\": \"c\", \"rejected\": \"r\"}\n{\"prompt\": \"only\"}\n"), *b;
    static const char *const want[] = {"$|abcde", "e|fghij", "j|kl$", "p|q$", "x|c$", "x|r$", "o|nly$"};
    orli_examples e;
    size_t i;
    b = orl_dataset_blocks(d, m);
    check(orl_dataset_count(b) == 7);
    check(orli_examples_build(&e, m, b, 1) == ORL_OK && e.cut == 0 && e.dropped == 0);
    for (i = 0; i < 7 && i < e.count; i++) {
        check(strcmp(shown(&e, i), want[i]) == 0);
        if (strcmp(shown(&e, i), want[i]) != 0) printf("    %s, not %s\n", shown(&e, i), want[i]);
    }
    orli_examples_free(&e);
    orl_dataset_free(b), orl_dataset_free(d), orl_model_free(m);
}

static void test_dump(void) {
    orl_model *m = make_model(32, 0, tok);
    orl_dataset *d = parse("{\"prompt\": \"a\", \"completion\": \"\\\"\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}\n"), *p = parse("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}");
    char *text;
    size_t i;
    orl_dataset_row(d, 0)->weight = 0.25;
    text = orl_dataset_dump(d, m, 1);
    check_contains(text, "row 1\n");
    check_contains(text, "      99  0          \"a\"\n");
    check_contains(text, "0.25       \"\\\"\"\n"); /* the response, quoted as JSON */
    check_contains(text, "       0  0.25");          /* and its end token */
    check(text && !strstr(text, "row 2"));
    orl_free(ctx, text);
    text = orl_dataset_dump(p, m, 5);
    check_contains(text, "row 1, chosen");
    check_contains(text, "row 1, rejected");
    orl_free(ctx, text);
    { /* a conditioned view shows its reward token, between prompt and response, as training would feed it */
        orl_condition_options o = orl_condition_default(ORL_CONDITION_BINS);
        char told[64];
        orl_dataset *v;
        for (i = 0; i < 2; i++) {
            orl_row *r = orl_dataset_row(d, i);
            r->reward = r->reward_raw = (double)i, r->flags |= ORL_LABELLED;
        }
        o.bins = 4;
        v = orl_condition(d, &o);
        text = orl_dataset_dump(v, m, 1);
        snprintf(told, sizeof told, "\"a\"\n%8d  0", (int)orl_vocab(tok));
        check_contains(text, told);
        check_contains(text, "reward bin 1 of 4\n");
        check(m->condition.kind == ORL_CONDITION_BINS);
        orl_free(ctx, text), orl_dataset_free(v);
    }
    orl_dataset_free(d), orl_dataset_free(p), orl_model_free(m);
}

/* ---- samples: what they are made of goes along ---- */

static void test_samples(void) {
    static const char asks[] = "{\"id\": 1, \"prompt\": \"ab\", \"completion\": \"old\", \"reward\": 3}\n"
                               "{\"id\": 2, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"x\"}]}\n"
                               "{\"id\": 3, \"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: y\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: n\"}\n"
                               "{\"id\": 4, \"prompt_ids\": [99], \"chosen_ids\": [100], \"rejected_ids\": [101]}\n";
    static const char *const prompts[] = {"ab", "\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: a\n\nAssistant:", ""};
    orl_model *m = make_model(64, 0, tok);
    orl_generate_options o = orl_generate_default();
    orl_dataset *d = parse(asks), *s, *back;
    size_t i, t;
    o.samples = 3, o.max_tokens = 5;
    s = orl_sample(m, d, &o);
    orl_dataset_free(d);
    check(orl_dataset_count(s) == 12);
    check(orl_dataset_save(s, in_dir("samples.jsonl")) == ORL_OK);
    back = orl_dataset_load(ctx, in_dir("samples.jsonl"));
    check(orl_dataset_count(back) == 12);
    for (i = 0; i < 12 && back; i++) {
        const orl_row *a = orl_dataset_row(s, i), *b = orl_dataset_row(back, i);
        char *text = orl_dataset_row_json(back, i), id[16];
        snprintf(id, sizeof id, "\"id\": %zu", i / 3 + 1);
        check_contains(text, id);
        check(text && !strstr(text, "chosen") && !strstr(text, "messages") && !strstr(text, "reward"));
        orl_free(ctx, text);
        check(a->sample == i % 3 && b->sample == i % 3 && a->logp == b->logp && a->tokens == b->tokens);
        check((a->flags & (ORL_SAMPLED | ORL_TRUNCATED | ORL_PAIR)) == (b->flags & (ORL_SAMPLED | ORL_TRUNCATED | ORL_PAIR)));
        check(b->response.tokens == a->response.tokens && memcmp(a->response.ids, b->response.ids, a->response.tokens * sizeof(int32_t)) == 0);
        if (i < 9) check_texts(b, prompts[i / 3], NULL, NULL);
        else check(b->prompt.tokens == 1 && b->prompt.ids[0] == 99);
        for (t = 0; t + 1 < a->tokens; t++) check(a->response.ids[t] != 0); /* only the last may be the end */
        check((a->response.ids[a->tokens - 1] == 0) == !(a->flags & ORL_TRUNCATED));
    }
    { /* log-probabilities of samples, before and after the trip through the file, are the sampler's */
        check(orl_logprob(m, back, NULL, NULL) == ORL_OK);
        for (i = 0; i < 12 && back; i++) check_near(orl_dataset_row(back, i)->logp, orl_dataset_row(s, i)->logp, 1e-4);
    }
    orl_dataset_free(s), orl_dataset_free(back), orl_model_free(m);
}

static orl_tokenizer *byte_tokenizer(orl_ctx *c) {
    static const char *const specials[] = {"<eos>", "<bos>", NULL};
    orl_tokenizer *t = orl_tokenizer_train(c, "abc", 3, 258, specials);
    if (t) t->bos = 1;
    return t;
}

int main(void) {
    orl_config config = orl_config_default();
    if (!make_dir("test_13", NULL)) return 1;
    config.threads = 2;
    ctx = orl_create(&config);
    orl_on_note(ctx, take_note, NULL);
    tok = byte_tokenizer(ctx);
    check(orl_token_id(tok, "a") == 99);
    test_kinds();
    test_transcripts();
    test_given_twice();
    test_messages();
    test_lines();
    test_malformed();
    test_save();
    test_split();
    test_views();
    test_examples();
    test_over_long();
    test_blocks();
    test_dump();
    test_samples();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_13_data");
}
