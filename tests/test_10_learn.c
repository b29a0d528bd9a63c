/* test_10_learn.c - section 10: learning a tokenizer. Against golden/bpe_reference.py, which follows the definition;
 * counts against a plain count; the same from a text and from files, for any number of threads; memory that is short.
 * builds: float threads */
#include "fault.h"
#include "files.h"

static int quick; /* $ORL_TEST_QUICK */
static orl_ctx *ctx;

static orl_ctx *with(size_t threads, size_t memory_limit) {
    orl_config config = orl_config_default();
    config.threads = threads, config.memory_limit = memory_limit;
    return orl_create(&config);
}

/* ---- the definition ---- */

static int same_merges(const orl_tokenizer *tok, const int32_t *merges, size_t n) {
    size_t i;
    if (!tok || tok->merges * 3 != n) return 0;
    for (i = 0; i < tok->merges; i++) {
        const orli_merge m = orli_merge_get(tok, i);
        if (m.left != merges[3 * i] || m.right != merges[3 * i + 1] || m.id != merges[3 * i + 2]) return 0;
    }
    return 1;
}

static int same_tokenizers(const orl_tokenizer *a, const orl_tokenizer *b) {
    size_t i, n, m;
    if (!a || !b || a->tokens != b->tokens || a->merges != b->merges || !a->merges) return 0;
    for (i = 0; i < a->tokens; i++) {
        const char *s = orl_token_text(a, (int32_t)i, &n), *t = orl_token_text(b, (int32_t)i, &m);
        if (n != m || memcmp(s, t, n) != 0) return 0;
    }
    return memcmp(a->merge, b->merge, a->merges * sizeof *a->merge) == 0;
}

typedef struct golden_case {
    orli_str name, text, special[4];
    const char *specials[5];
    size_t vocab, special_count, numbers;
    int32_t merges[4000];
} golden_case;

static void golden_read(orli_json *j, golden_case *c) {
    size_t i;
    memset(c, 0, sizeof *c);
    c->name = orli_str_new(ctx), c->text = orli_str_new(ctx);
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "name")) orli_json_string(j, &c->name);
        else if (orli_json_is(j, "text")) orli_json_string(j, &c->text);
        else if (orli_json_is(j, "vocab")) c->vocab = (size_t)orli_json_int(j, 0, 10000);
        else if (orli_json_is(j, "specials"))
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j) && c->special_count < 4; c->special_count++) {
                c->special[c->special_count] = orli_str_new(ctx);
                orli_json_string(j, &c->special[c->special_count]);
            }
        else if (orli_json_is(j, "merges"))
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); c->numbers++)
                c->merges[c->numbers % 4000] = (int32_t)orli_json_int(j, 0, 10000);
        else orli_json_skip(j);
    }
    for (i = 0; i < c->special_count; i++) c->specials[i] = c->special[i].data;
}

static void golden_merges(void) {
    static golden_case c;
    const char *slash = strrchr(__FILE__, '/'), *one[1];
    char path[800];
    orli_file file;
    orli_json j;
    size_t cases = 0, i;
    snprintf(path, sizeof path, "%.*sgolden/bpe_golden.json", slash ? (int)(slash - __FILE__ + 1) : 0, __FILE__);
    if (orli_file_open(ctx, path, &file) != ORL_OK) {
        check(0);
        return;
    }
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    one[0] = in_dir("golden.txt");
    for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j); cases++) {
        orl_tokenizer *tok, *from_file;
        golden_read(&j, &c);
        tok = orl_tokenizer_train(ctx, c.text.data ? c.text.data : "", c.text.length, c.vocab, c.specials);
        write_bytes(one[0], c.text.data, c.text.length);
        from_file = orl_tokenizer_train_files(ctx, one, 1, c.vocab, c.specials);
        check(c.numbers <= 4000 && same_merges(tok, c.merges, c.numbers));
        check(same_merges(from_file, c.merges, c.numbers));
        check(tok && orl_vocab(tok) == 256 + c.special_count + c.numbers / 3);
        if (test_failed) printf("    %s\n", c.name.data);
        orl_tokenizer_free(tok), orl_tokenizer_free(from_file);
        orli_str_free(&c.name), orli_str_free(&c.text);
        for (i = 0; i < c.special_count; i++) orli_str_free(&c.special[i]);
    }
    check(orli_json_end(&j) == ORL_OK && cases >= 7);
    orli_file_close(&file);
}

/* ---- words ---- */

static const char *const specials[] = {"<|endoftext|>", "<end of turn>", " \n", NULL};

/* A text of n bytes or a few more with many different words: of every script's bytes, long and short, with gaps
 * and special tokens of all sorts. */
static char *long_text(size_t *n, uint64_t seed, size_t words) {
    static const char *const gap[] = {" ", " ", " ", " ", " ", "\n", "  ", "\t", "\xc2\xa0", "\xe3\x80\x80", ", ", "'s ",
                                      "<end of turn>", "<|endoftext|>", " \n", "\r\n\r\n", ".", "", "\xe2\x80", "-"};
    static const char *const letter[] = {"a", "e", "i", "o", "n", "r", "s", "t", "\xc3\xa9", "\xd0\xb6", "\xe4\xbd\xa0",
                                         "1", "2", "\xff"};
    orli_rng r = orli_rng_new(seed, 1);
    char *text = (char *)malloc(*n + 600);
    size_t at = 0, i;
    while (text && at < *n) {
        const char *g = gap[orli_rng_below(&r, orli_rng_below(&r, 4) ? 5 : sizeof gap / sizeof *gap)];
        size_t word = orli_rng_below(&r, orli_rng_below(&r, 3) ? 300 : (uint32_t)words);
        orli_rng spelling = orli_rng_new(77, word);
        size_t letters = word % 97 == 0 ? 30 + orli_rng_below(&spelling, 100) : 1 + orli_rng_below(&spelling, 9);
        for (i = 0; i < letters; i++) {
            const char *l = letter[orli_rng_below(&spelling, sizeof letter / sizeof *letter - (word % 50 != 0))];
            memcpy(text + at, l, strlen(l)), at += strlen(l);
        }
        memcpy(text + at, g, strlen(g)), at += strlen(g);
    }
    *n = at;
    return text;
}

/* The words of a text, counted plainly. */
static void count_plainly(const orl_tokenizer *tok, const char *text, size_t n, orli_names *names, uint64_t *count) {
    const orli_added *found;
    size_t at, stop, i, end, piece;
    for (at = 0; at < n; at = stop + (found ? found->bytes : 0)) {
        stop = orli_added_find(tok, text, n, at, 1, &found);
        for (i = at; i < stop; i = end)
            for (end = orli_word_end(tok, text, stop, i); i < end; i += piece) {
                piece = ORLI_MIN(end - i, ORLI_WORD_MOST);
                count[orli_names_add(names, text + i, piece)]++;
            }
    }
}

static void words_are_counted(size_t threads, size_t n, size_t different) {
    orl_ctx *c = with(threads, 0);
    orl_tokenizer *tok = orli_train_begin(c, 1000, specials, NULL);
    char *text = long_text(&n, threads, different);
    uint64_t *count = (uint64_t *)calloc(n, sizeof *count);
    orli_names names = orli_names_new(c);
    orli_tally words;
    size_t shard, i, wrong = 0, at;
    if (!tok || !text || !count) exit(1);
    count_plainly(tok, text, n, &names, count);
    orli_tally_start(&words, tok);
    orli_tally_read(&words, text, n);
    memset(text, 0, n); /* nothing points into it any more */
    check(orli_tally_total(&words) == names.count);
    for (shard = 0; shard < ORLI_LEARN_SHARDS; shard++)
        for (i = 0; i < words.whole[shard].slots; i++) {
            const orli_counted *w = &words.whole[shard].slot[i];
            if (!w->count) continue;
            at = orli_names_find(&names, w->text ? w->text : (const char *)w->head, w->length);
            wrong += at == ORLI_NONE || count[at] != w->count;
        }
    check(wrong == 0);
    check(threads == 1 || n < 2 * ORLI_LEARN_PIECE || c->pool->most_tasks[ORLI_WORK_OTHER] > 1);
    orli_tally_free(&words);
    orli_names_free(&names);
    free(count);
    free(text);
    orl_destroy(c);
}

/* Wherever a text is cut, its words are those of the two parts. */
static void cuts_fall_between_words(void) {
    static const char *const piece[] = {"a", "don't", "x1", " ", "  ", "\n", "\xc2\xa0", "\xe3\x80\x80",
                                        "<end of turn>",
                                        "<end of", " turn>", "'", "!", "\xe4\xbd\xa0", "\xe3\x80", "\x80\x80",
                                        " \n", "\t"};
    orl_tokenizer *tok = orli_train_begin(ctx, 1000, specials, NULL);
    orli_rng r = orli_rng_new(3, 3);
    size_t round, i, cut, at, cuts = 0, wrong = 0;
    for (round = 0; round < (quick ? 200u : 1000u); round++) {
        char text[800];
        size_t n = 0, pieces = 1 + orli_rng_below(&r, 30);
        for (i = 0; i < pieces; i++) {
            const char *p = piece[orli_rng_below(&r, sizeof piece / sizeof *piece)];
            memcpy(text + n, p, strlen(p)), n += strlen(p);
        }
        for (at = 1; at < n; at = cut + 1) {
            orli_names whole = orli_names_new(ctx), parts = orli_names_new(ctx);
            uint64_t a[800] = {0}, b[800] = {0};
            cut = orli_text_cut(tok, text, n, at);
            cuts += cut < n;
            count_plainly(tok, text, n, &whole, a);
            count_plainly(tok, text, cut, &parts, b);
            count_plainly(tok, text + cut, n - cut, &parts, b);
            wrong += whole.count != parts.count;
            for (i = 0; i < whole.count; i++) {
                size_t k = orli_names_find(&parts, whole.name[i].text, whole.name[i].length);
                wrong += k == ORLI_NONE || a[i] != b[k];
            }
            orli_names_free(&whole), orli_names_free(&parts);
        }
    }
    check(wrong == 0 && cuts > 100);
    orl_tokenizer_free(tok);
}

/* ---- texts and files ---- */

static void threads_and_files_do_not_matter(void) {
    static const size_t threads[] = {1, 2, 3, 8};
    size_t n = quick ? 1500000 : 3000000, i;
    char *text = long_text(&n, 9, 60000);
    orl_tokenizer *first = orl_tokenizer_train(ctx, text, n, 3000, specials), *back;
    const char *file[2], *const none[] = {NULL};
    file[0] = in_dir("whole.txt"), file[1] = in_dir("empty.txt");
    write_bytes(file[0], text, n);
    write_bytes(file[1], "", 0);
    check(first && orl_vocab(first) == 3000 && orl_eos(first) == 0);
    for (i = 0; i < sizeof threads / sizeof *threads; i++) {
        orl_ctx *c = with(threads[i], 0);
        orl_tokenizer *t = i % 2 ? orl_tokenizer_train_files(c, file, 2, 3000, specials)
                                 : orl_tokenizer_train(c, text, n, 3000, specials);
        check(same_tokenizers(first, t));
        orl_destroy(c);
    }
    orl_tokenizer_save(first, dir);
    back = orl_tokenizer_load(ctx, dir);
    check(same_tokenizers(first, back));
    orl_tokenizer_free(first), orl_tokenizer_free(back);
    free(text);
    /* no word goes on from one file in the next */
    write_bytes(file[0], "ab ab ab", 8), write_bytes(file[1], "cd cd cd", 8);
    back = orl_tokenizer_train_files(ctx, file, 2, 300, none);
    check(back && orl_token_id(back, "ab") >= 0 && orl_token_id(back, "cd") >= 0 && orl_token_id(back, "abcd") < 0);
    orl_tokenizer_free(back);
}

static void wrong_files(void) {
    const char *file[2];
    check(!orl_tokenizer_train_files(ctx, NULL, 1, 300, NULL));
    expect_error(ORL_ERR_ARGUMENT, "needs files");
    file[0] = in_dir("there.txt"), file[1] = NULL;
    write_bytes(file[0], "abc", 3);
    check(!orl_tokenizer_train_files(ctx, file, 0, 300, NULL));
    expect_error(ORL_ERR_ARGUMENT, "needs files");
    check(!orl_tokenizer_train_files(ctx, file, 2, 300, NULL));
    expect_error(ORL_ERR_ARGUMENT, "file 2 of 2 is NULL");
    file[1] = in_dir("not there.txt");
    check(!orl_tokenizer_train_files(ctx, file, 2, 300, NULL));
    expect_error(ORL_ERR_IO, "not there.txt: cannot be opened");
    file[1] = dir;
    check(!orl_tokenizer_train_files(ctx, file, 2, 300, NULL));
    expect_error(ORL_ERR_IO, "is not a regular file");
    check(!orl_tokenizer_train_files(ctx, file, 1, 100, NULL));
    expect_error(ORL_ERR_ARGUMENT, "a vocabulary of 256");
}

/* ---- memory ---- */

static void memory_is_limited(void) {
    size_t n = 6000000, before;
    char *text = long_text(&n, 4, 1000000);
    orl_ctx *own = ctx;
    ctx = with(1, (size_t)20 << 20);
    before = orl_memory_now(ctx);
    check(!orl_tokenizer_train(ctx, text, n, 2000, NULL));
    check(orl_memory_now(ctx) == before && orl_memory_peak(ctx) <= (size_t)20 << 20);
    expect_error(ORL_ERR_MEMORY, "no memory to learn a tokenizer");
    check(orl_tokenizer_train(ctx, text, 200000, 2000, NULL) != NULL);
    orl_destroy(ctx);
    ctx = own;
    free(text);
}

static void each_allocation_fails(void) {
    size_t n = 3000, at = 1, done = 0, live, held;
    char *text = long_text(&n, 5, 100);
    const char *file[1];
    file[0] = in_dir("fault.txt");
    write_bytes(file[0], text, n);
    orli_spare_drop(ctx); /* or a request that fails would be met from it */
    while (!done) {
        orl_tokenizer *tok;
        live = fault_live, held = ctx->memory_now;
        fault_at = at, fault_count = 0;
        tok = at % 2 ? orl_tokenizer_train(ctx, text, n, 400, specials)
                     : orl_tokenizer_train_files(ctx, file, 1, 400, specials);
        done = fault_count < at;
        fault_at = 0;
        check(done ? tok != NULL : !tok && orl_error_status(ctx) == ORL_ERR_MEMORY);
        orl_tokenizer_free(tok);
        orl_clear_error(ctx);
        orli_spare_drop(ctx);
        check(ctx->memory_now == held && fault_live == live);
        at += quick && at > 60 ? 7 : 1;
    }
    free(text);
}

int main(void) {
    quick = getenv("ORL_TEST_QUICK") != NULL;
    ctx = with(2, 0);
    if (!ctx || !make_dir("test_10_learn", NULL)) return 1;
    golden_merges();
    cuts_fall_between_words();
    words_are_counted(1, 300000, 2000);
    words_are_counted(1, 1500000, 400000);
    words_are_counted(4, quick ? 2500000 : 5000000, 400000);
    threads_and_files_do_not_matter();
    wrong_files();
    memory_is_limited();
    each_allocation_fails();
    check(!orl_failed(ctx));
    remove_tree(dir);
    orl_destroy(ctx);
    check(fault_live == 0);
    return test_report("test_10_learn");
}
