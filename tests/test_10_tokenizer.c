/* test_10_tokenizer.c - learning, loading, saving, encoding and decoding, against golden ids of
 * other implementations (golden/tokenizers.mjs), a slow trainer written from the definition,
 * and hostile input. test_10_tokenizer --make DIR writes the two small tokenizers that are kept
 * in golden/. */
#include "fault.h"
#include "files.h"

static orl_ctx *test_ctx(void) {
    orl_config config = orl_config_default();
    config.threads = 1;
    return orl_create(&config);
}
static void test_ctx_free(orl_ctx *ctx) { orl_destroy(ctx); }

static char golden[512] = "golden"; /* where this file's golden/ is */

/* Puts `text` into DIR/name/file, making the directory; gives the directory. */
static const char *made(const char *name, const char *file, const char *text) {
    char path[800];
    const char *d = in_dir(name);
    mkdir(d, 0777);
    snprintf(path, sizeof path, "%s/%s", d, file);
    write_bytes(path, text, strlen(text));
    return d;
}

/* ---- the small tokenizers ---- */

static const char *const specials[] = {"<|endoftext|>", "<|user|>", NULL};

/* A text of its own making: words of several scripts in a skewed distribution. */
static char *small_text(size_t *n) {
    static const char *const word[] = {
        "the", "The", "and", "to", "of", "a", "in", "is", "that", "was", "it", "he", "she", "said",
        "with", "little", "girl", "there", "time", "day",
        "playing", "played", "something", "thing", "nothing", "everything", "don't", "can't",
        "it's", "they're", "we've", "I'll", "I'm", "she'd",
        "one", "two", "12", "123", "1999", "2024", "3.14", "10,000", "caf\xc3\xa9", "na\xc3\xafve",
        "stra\xc3\x9f\x65", "\xd0\xbc\xd0\xb8\xd1\x80",
        "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", "\xe4\xbd\xa0\xe5\xa5\xbd",
        "\xe4\xb8\x96\xe7\x95\x8c", "\xe3\x81\x93\xe3\x82\x93", "\xf0\x9f\x98\x80",
        "quick", "brown", "fox", "jumped", "jumping", "over", "lazy", "dog", "dogs", "Hello",
        "world", "int", "return", "aaaa", "aaaaaaaa", "=====", "..."};
    static const char *const gap[] = {
        " ", " ", " ", " ", " ", " ", ", ", ". ", "\n", "\n\n", "  ", "    ", " (", ") ", "! ",
        "\r\n", "\t", "? "};
    orli_rng r = orli_rng_new(2024, 10);
    char *text = (char *)malloc(70000);
    size_t at = 0;
    while (text && at < 60000) {
        double u = orli_rng_uniform(&r);
        const char *w = word[(size_t)(u * u * (double)(sizeof word / sizeof *word))],
                   *g = gap[orli_rng_below(&r, sizeof gap / sizeof *gap)];
        memcpy(text + at, w, strlen(w)), at += strlen(w);
        memcpy(text + at, g, strlen(g)), at += strlen(g);
        if (orli_rng_below(&r, 400) == 0) memcpy(text + at, "<|endoftext|>", 13), at += 13;
    }
    *n = at;
    return text;
}

static orl_tokenizer *small_tokenizer(orl_ctx *ctx) {
    size_t n;
    char *text = small_text(&n);
    orl_tokenizer *tok = orl_tokenizer_train(ctx, text, n, 500, specials);
    free(text);
    return tok;
}

/* A file in llama2.c's form: what the small tokenizer learned, then the characters, with
 * falling scores. */
static void small_llama2c(orl_ctx *ctx, const orl_tokenizer *tok, const char *path) {
    orli_str s = orli_str_new(ctx);
    orli_names seen = orli_names_new(ctx);
    float score = 0;
    int32_t length = 27, id;
    size_t i, n, k, pass;
    uint32_t code = 0;
    orli_str_add(&s, (const char *)&length, 4);
    for (i = 0; i < 259; i++) {
        char name[16];
        if (i < 3)
            snprintf(name, sizeof name, "%s", i == 0 ? "<unk>" : i == 1 ? "\n<s>\n" : "\n</s>\n");
        else snprintf(name, sizeof name, "<0x%02X>", (unsigned)(i - 3));
        length = (int32_t)strlen(name);
        orli_str_add(&s, (const char *)&score, 4);
        orli_str_add(&s, (const char *)&length, 4);
        orli_str_add(&s, name, (size_t)length);
    }
    /* learned tokens that are whole characters, no space or newline but at the front; then
     * characters */
    for (pass = 0; pass < 2; pass++)
        for (id = 258; id < (int32_t)orl_vocab(tok); id++) {
            const char *t = orl_token_text(tok, id, &n);
            size_t ok = 1, used = 1;
            for (k = 0; k < n && ok; k += used) {
                used = orli_utf8_decode(t + k, n - k, &code);
                ok = used && code != '\n' && code != '\r' && !(code == ' ' && k && t[k - 1] != ' ');
                if (pass && ok && orli_names_find(&seen, t + k, used) == ORLI_NONE) {
                    orli_names_add(&seen, t + k, used);
                    score -= 1, length = (int32_t)used;
                    orli_str_add(&s, (const char *)&score, 4);
                    orli_str_add(&s, (const char *)&length, 4);
                    orli_str_add(&s, t + k, used);
                }
            }
            if (pass || !ok || used == n) continue; /* a single character comes with the others */
            score -= 1, length = (int32_t)n;
            orli_str_add(&s, (const char *)&score, 4);
            orli_str_add(&s, (const char *)&length, 4);
            orli_str_add(&s, t, n);
        }
    write_bytes(path, s.data, s.length);
    orli_str_free(&s);
    orli_names_free(&seen);
}

static orl_tokenizer *small_sentencepiece(orl_ctx *ctx) {
    orl_tokenizer *tok = small_tokenizer(ctx), *sp;
    small_llama2c(ctx, tok, in_dir("small.bin"));
    orl_tokenizer_free(tok);
    sp = orl_tokenizer_load_llama2c(ctx, in_dir("small.bin"), 0);
    return sp;
}

static int make_golden(orl_ctx *ctx, const char *to) {
    char from[800], path[800];
    orl_tokenizer *tok = small_tokenizer(ctx), *sp = small_sentencepiece(ctx);
    orl_tokenizer_save(tok, in_dir("a"));
    orl_tokenizer_save(sp, in_dir("b"));
    snprintf(from, sizeof from, "%s/a/tokenizer.json", dir);
    snprintf(path, sizeof path, "%s/tokenizer_small.json", to);
    rename(from, path);
    snprintf(from, sizeof from, "%s/b/tokenizer.json", dir);
    snprintf(path, sizeof path, "%s/tokenizer_small_sp.json", to);
    rename(from, path);
    return orl_failed(ctx);
}

/* ---- golden ids ---- */

/* The file `base` of golden/ with replacements made, as a tokenizer. */
static orl_tokenizer *edited(orl_ctx *ctx, const char *base, orli_str *from, orli_str *to,
                             size_t edits) {
    char path[800];
    size_t n, i;
    char *text, *at;
    orl_tokenizer *tok;
    snprintf(path, sizeof path, "%s/%s", golden, base);
    text = read_bytes(path, &n);
    for (i = 0; i < edits && text; i++) {
        char *next = (char *)malloc(strlen(text) + to[i].length + 1);
        at = strstr(text, from[i].data);
        check(at != NULL);
        if (!at || !next) return NULL;
        memcpy(next, text, (size_t)(at - text));
        strcpy(next + (at - text), to[i].data);
        strcat(next, at + from[i].length);
        free(text);
        text = next;
    }
    check(text != NULL);
    if (!text) return NULL;
    tok = orl_tokenizer_load(ctx, made("edited", "tokenizer.json", text));
    free(text);
    check(tok != NULL);
    if (!tok) printf("    %s\n", orl_error(ctx));
    return tok;
}

static void print_ids(const char *what, const int32_t *ids, size_t n) {
    size_t i;
    printf("    %s:", what);
    for (i = 0; i < n && i < 60; i++) printf(" %ld", (long)ids[i]);
    printf("\n");
}

/* One set: name, base or data, replacements, then ids. */
static void golden_set(orl_ctx *ctx, orli_json *j, orli_str *string, size_t strings) {
    orli_str name = orli_str_new(ctx), base = orli_str_new(ctx), from[4], to[4];
    orl_tokenizer *tok = NULL;
    size_t edits = 0, i = 0, bad = 0, compared = 0;
    int plain = 0, real = 0;
    const char *data = getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data";
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "name")) orli_json_string(j, &name);
        else if (orli_json_is(j, "plain")) plain = orli_json_bool(j);
        else if (orli_json_is(j, "base") || orli_json_is(j, "data")) {
            real = orli_json_is(j, "data");
            orli_json_string(j, &base);
        } else if (orli_json_is(j, "replace")) {
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); edits++) {
                from[edits] = orli_str_new(ctx), to[edits] = orli_str_new(ctx);
                orli_json_open(j, ORLI_JSON_ARRAY);
                orli_json_string(j, &from[edits]);
                orli_json_string(j, &to[edits]);
                orli_json_expect(j, ORLI_JSON_ARRAY_END);
            }
        } else if (orli_json_is(j, "ids")) {
            if (real) {
                char path[800];
                snprintf(path, sizeof path, "%s/tokenizers/%s", data, base.data);
                if (!orli_exists(path))
                    printf("test_10_tokenizer: skipped: no %s (set ORL_DATA)\n", path);
                else if (strstr(base.data, ".bin")) tok = orl_tokenizer_load_llama2c(ctx, path, 0);
                else tok = orl_tokenizer_load(ctx, path);
            } else {
                tok = edited(ctx, base.data, from, to, edits);
            }
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); i++) {
                int32_t want[2000], *ids = NULL;
                size_t n = 0, count = 0;
                if (orli_json_null(j)) continue;
                for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++)
                    want[n % 2000] = (int32_t)orli_json_int(j, 0, INT32_MAX);
                if (!tok || i >= strings) continue;
                orl_encode(tok, string[i].data, string[i].length, !plain, &ids, &count);
                compared++;
                if (count != n || memcmp(ids, want, n * sizeof *ids) != 0) {
                    if (bad++ == 0) {
                        printf("    %s: %s\n", name.data, string[i].data);
                        print_ids("want", want, n);
                        print_ids("got ", ids, count);
                    }
                }
                orl_free(ctx, ids);
            }
            if (tok) check(bad == 0 && compared > strings / 2);
            if (bad) printf("    %s: %zu of %zu differ\n", name.data, bad, compared);
        } else orli_json_skip(j);
    }
    orl_tokenizer_free(tok);
    for (i = 0; i < edits; i++) orli_str_free(&from[i]), orli_str_free(&to[i]);
    orli_str_free(&name);
    orli_str_free(&base);
}

static void golden_ids(orl_ctx *ctx) {
    char path[800];
    orli_file file;
    orli_json j;
    static orli_str string[400];
    size_t strings = 0, sets = 0, i;
    snprintf(path, sizeof path, "%s/tokenizer_golden.json", golden);
    if (orli_file_open(ctx, path, &file) != ORL_OK) {
        check(0);
        return;
    }
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "strings"))
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j); strings++)
                string[strings % 400] = orli_str_new(ctx),
                                 orli_json_string(&j, &string[strings % 400]);
        else
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j); sets++)
                golden_set(ctx, &j, string, strings);
    }
    check(orli_json_end(&j) == ORL_OK && strings > 100 && sets >= 12);
    for (i = 0; i < strings; i++) orli_str_free(&string[i]);
    orli_file_close(&file);
}

static int round_trips(const orl_tokenizer *tok, const char *text, size_t n, int special) {
    orl_ctx *ctx = tok ? tok->object.ctx : NULL;
    int32_t *ids = NULL;
    size_t count = 0, bytes = 0, i, at = 0, m;
    char *back = NULL;
    int same;
    if (orl_encode(tok, text, n, special, &ids, &count) != ORL_OK ||
        orl_decode(tok, ids, count, 0, &back, &bytes) != ORL_OK)
        return 0;
    same = bytes == n && memcmp(back, text, n) == 0 && back[n] == 0;
    for (i = 0; i < count && same && !tok->sentencepiece; i++) { /* token by token is the same */
        const char *t = orl_token_text(tok, ids[i], &m);
        same = at + m <= n && memcmp(text + at, t, m) == 0;
        at += m;
    }
    orl_free(ctx, ids);
    orl_free(ctx, back);
    return same;
}

/* ---- digests: what golden/tokenizer_fuzz.json says of many random strings (golden/tokenizers.mjs makes the same) ---- */

typedef struct fuzz_text {
    uint32_t x; /* xorshift32 */
    orli_str piece[200], *string;
    size_t pieces, strings, each;
} fuzz_text;

static uint32_t fuzz_next(fuzz_text *f, uint32_t n) {
    f->x ^= f->x << 13, f->x ^= f->x >> 17, f->x ^= f->x << 5;
    return f->x % n;
}

static void fuzz_char(orli_str *s, uint32_t code) {
    char c[4];
    orli_str_add(s, c, orli_utf8_encode(code, c));
}

static void fuzz_part(fuzz_text *f, orli_str *s) {
    uint32_t kind = fuzz_next(f, 12), n, c, plane;
    if (kind < 6) {
        const orli_str *piece = &f->piece[fuzz_next(f, (uint32_t)f->pieces)];
        orli_str_add(s, piece->data, piece->length);
    } else if (kind < 8) {
        for (n = 1 + fuzz_next(f, 12); n > 0; n--) fuzz_char(s, 97 + fuzz_next(f, 26));
    } else if (kind == 8) {
        c = 32 + fuzz_next(f, 95);
        for (n = 1 + (fuzz_next(f, 8) == 0 ? fuzz_next(f, 70) : 0); n > 0; n--) fuzz_char(s, c);
    } else {
        plane = fuzz_next(f, 8);
        c = fuzz_next(f, plane < 3 ? 0x250 : plane < 5 ? 0x3100 : plane < 7 ? 0x10000 : 0x110000);
        if (plane == 6) c += 0x10000;
        fuzz_char(s, c >= 0xd800 && c < 0xe000 ? '?' : c);
    }
}

static void fuzz_string(fuzz_text *f, orli_str *s) {
    uint32_t style = fuzz_next(f, 16), n;
    if (style == 0) {
        const orli_str *piece = &f->piece[fuzz_next(f, (uint32_t)f->pieces)];
        for (n = 1 + fuzz_next(f, fuzz_next(f, 4) ? 40 : 400); n > 0; n--) orli_str_add(s, piece->data, piece->length);
        return;
    }
    for (n = 1 + fuzz_next(f, style < 3 ? 60 : 14); n > 0; n--) fuzz_part(f, s);
}

/* A rank file made of what npm's tiktoken carries: lines of "name first-rank token token …". */
static const char *fuzz_ranks(orl_ctx *ctx, const char *source, const char *name) {
    orli_str out = orli_str_new(ctx), lines = orli_str_new(ctx);
    orli_file file;
    orli_json j;
    char *at, *line, *word;
    long rank;
    if (orli_file_open(ctx, source, &file) != ORL_OK) return NULL;
    j = orli_json_new(ctx, file.data, file.size, source, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "bpe_ranks")) orli_json_string(&j, &lines);
        else orli_json_skip(&j);
    }
    for (at = lines.data; at && *at; at = line) {
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
    at = (char *)(size_t)in_dir(name);
    write_bytes(at, out.data, out.length);
    orli_str_free(&out);
    orli_str_free(&lines);
    return at;
}

/* A tokenizer outside the repository, or NULL and a word about it. */
static orl_tokenizer *fuzz_real(orl_ctx *ctx, const char *kind, const char *base) {
    const char *data = getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data", *npm = getenv("ORL_NPM");
    char path[900], ranks[100];
    if (strcmp(kind, "data") == 0) snprintf(path, sizeof path, "%s/tokenizers/%s", data, base);
    else if (strcmp(kind, "npm") == 0) snprintf(path, sizeof path, "%s/%s", npm ? npm : "node_modules", base);
    else snprintf(path, sizeof path, "%s/tiktoken/encoders/%s.json", npm ? npm : "node_modules", base);
    if (!orli_exists(path)) {
        printf("test_10_tokenizer: skipped: no %s (set %s)\n", path, strcmp(kind, "data") ? "ORL_NPM" : "ORL_DATA");
        return NULL;
    }
    if (strstr(base, ".bin")) return orl_tokenizer_load_llama2c(ctx, path, 0);
    if (strcmp(kind, "ranks") != 0) return orl_tokenizer_load(ctx, path);
    snprintf(ranks, sizeof ranks, "%s.tiktoken", base);
    return orl_tokenizer_load_tiktoken(ctx, fuzz_ranks(ctx, path, ranks), NULL);
}

static uint32_t fuzz_digest(uint32_t digest, const int32_t *ids, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) digest = (digest ^ (uint32_t)ids[i]) * 16777619u;
    return (digest ^ 0xffffffffu) * 16777619u;
}

/* Bytes that are no UTF-8 survive, too. */
static void fuzz_bytes(fuzz_text *f, orl_tokenizer *tok, const orli_str *s) {
    char bytes[600];
    size_t n = ORLI_MIN(s->length, sizeof bytes), k;
    memcpy(bytes, s->data, n);
    for (k = 0; k < n; k += 1 + fuzz_next(f, 20)) bytes[k] = (char)fuzz_next(f, 256);
    check(round_trips(tok, bytes, n, 1) && round_trips(tok, bytes, n, 0));
}

/* Compares with the digests that come next, as far as there is time for. */
static void fuzz_compare(orl_ctx *ctx, fuzz_text *f, orli_json *j, const char *name, orl_tokenizer *tok, int plain) {
    size_t i = 0, end, most = getenv("ORL_TEST_QUICK") ? f->strings / 10 : f->strings, bad = 0;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        uint32_t want = (uint32_t)orli_json_int(j, 0, UINT32_MAX), got = 0x811c9dc5u;
        for (end = i + f->each; tok && i < end && i < most; i++) {
            int32_t *ids = NULL;
            size_t count = 0;
            orl_encode(tok, f->string[i].data, f->string[i].length, !plain, &ids, &count);
            got = fuzz_digest(got, ids, count);
            orl_free(ctx, ids);
            if (i % 16 == 0 && !tok->sentencepiece && !tok->nfc && !strstr(name, "flags") && !strstr(name, "strip") &&
                strcmp(name, "added") != 0 && strcmp(name, "prefix") != 0)
                fuzz_bytes(f, tok, &f->string[i]);
        }
        if (i == end && got != want && bad++ == 0)
            printf("    %s: ids differ among strings %zu to %zu\n", name, end - f->each, end - 1);
    }
    if (tok) check(bad == 0 && i == most);
}

static void fuzz_set(orl_ctx *ctx, fuzz_text *f, orli_json *j) {
    orli_str name = orli_str_new(ctx), base = orli_str_new(ctx), from[4], to[4];
    orl_tokenizer *tok = NULL;
    char kind[8] = "";
    size_t edits = 0, i;
    int plain = 0;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "name")) orli_json_string(j, &name);
        else if (orli_json_is(j, "plain")) plain = orli_json_bool(j);
        else if (orli_json_is(j, "nfc")) orli_json_skip(j);
        else if (orli_json_is(j, "replace")) {
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); edits++) {
                from[edits] = orli_str_new(ctx), to[edits] = orli_str_new(ctx);
                orli_json_open(j, ORLI_JSON_ARRAY);
                orli_json_string(j, &from[edits]);
                orli_json_string(j, &to[edits]);
                orli_json_expect(j, ORLI_JSON_ARRAY_END);
            }
        } else if (orli_json_is(j, "digests")) {
            tok = strcmp(kind, "base") ? fuzz_real(ctx, kind, base.data) : edited(ctx, base.data, from, to, edits);
            if (orl_failed(ctx)) printf("    %s: %s\n", name.data, orl_error(ctx));
            fuzz_compare(ctx, f, j, name.data, tok, plain);
        } else {
            snprintf(kind, sizeof kind, "%.*s", (int)(j->end - j->start), j->text + j->start);
            orli_json_string(j, &base);
        }
    }
    orl_tokenizer_free(tok);
    for (i = 0; i < edits; i++) orli_str_free(&from[i]), orli_str_free(&to[i]);
    orli_str_free(&name);
    orli_str_free(&base);
}

static void fuzz_digests(orl_ctx *ctx) {
    char path[800];
    orli_file file;
    orli_json j;
    fuzz_text f;
    size_t sets = 0, i;
    memset(&f, 0, sizeof f);
    snprintf(path, sizeof path, "%s/tokenizer_fuzz.json", golden);
    check(orli_file_open(ctx, path, &file) == ORL_OK);
    if (orl_failed(ctx)) return;
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "seed")) f.x = (uint32_t)orli_json_int(&j, 1, UINT32_MAX);
        else if (orli_json_is(&j, "strings")) f.strings = (size_t)orli_json_int(&j, 1, 1 << 20);
        else if (orli_json_is(&j, "each")) f.each = (size_t)orli_json_int(&j, 1, 1 << 20);
        else if (orli_json_is(&j, "pieces")) {
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j); f.pieces++) {
                f.piece[f.pieces] = orli_str_new(ctx);
                orli_json_string(&j, &f.piece[f.pieces]);
            }
            f.string = (orli_str *)malloc(f.strings * sizeof *f.string);
            for (i = 0; i < f.strings; i++) {
                f.string[i] = orli_str_new(ctx);
                orli_str_add(&f.string[i], "", 0);
                fuzz_string(&f, &f.string[i]);
            }
        } else
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j); sets++) fuzz_set(ctx, &f, &j);
    }
    check(orli_json_end(&j) == ORL_OK && f.strings >= 10000 && sets >= 30);
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    for (i = 0; i < f.strings; i++) orli_str_free(&f.string[i]);
    for (i = 0; i < f.pieces; i++) orli_str_free(&f.piece[i]);
    free(f.string);
    orli_file_close(&file);
}

/* ---- learning ---- */

/* Training is the same today as when the golden file was made, byte for byte. */
static void training_is_deterministic(orl_ctx *ctx) {
    orl_tokenizer *tok = small_tokenizer(ctx), *sp = small_sentencepiece(ctx);
    static const char *const name[2] = {"tokenizer_small.json", "tokenizer_small_sp.json"};
    int i;
    check(tok && orl_vocab(tok) == 500 && orl_eos(tok) == 0 && orl_bos(tok) == -1);
    check(sp && orl_eos(sp) == 2 && orl_bos(sp) == 1);
    check(orl_tokenizer_save(tok, in_dir("d0")) == ORL_OK &&
          orl_tokenizer_save(sp, in_dir("d1")) == ORL_OK);
    for (i = 0; i < 2; i++) {
        char path[800];
        size_t n = 0, m = 0;
        char *a, *b;
        snprintf(path, sizeof path, "%s/d%d/tokenizer.json", dir, i);
        a = read_bytes(path, &n);
        snprintf(path, sizeof path, "%s/%s", golden, name[i]);
        b = read_bytes(path, &m);
        check(a && b && n == m && memcmp(a, b, n) == 0);
        free(a);
        free(b);
    }
    orl_tokenizer_free(tok);
    orl_tokenizer_free(sp);
}

/* The definition, slowly: count every pair of every word, merge the most frequent, lowest ids
 * first. */
static void training_by_definition(orl_ctx *ctx) {
    static const char *const none[] = {NULL};
    orli_rng r = orli_rng_new(5, 5);
    size_t round, i, k, w;
    for (round = 0; round < 12; round++) {
        char text[1200];
        static int32_t symbol[1200];
        static size_t word_of[1200];
        size_t n = 300 + orli_rng_below(&r, 800), words = 0, at, m = n;
        orl_tokenizer *tok;
        for (i = 0; i < n; i++) text[i] = "aabbbc d"[orli_rng_below(&r, round % 2 ? 8 : 3)];
        tok = orl_tokenizer_train(ctx, text, n, 300, none);
        check(tok != NULL);
        if (!tok) return;
        for (i = 0; i < n; i = at) {
            at = orli_word_end(tok, text, n, i);
            for (k = i; k < at; k++)
                word_of[k] = words + (k - i) / ORLI_WORD_MOST, symbol[k] = (unsigned char)text[k];
            words += 1 + (at - i) / ORLI_WORD_MOST;
        }
        for (w = 0; w < tok->merges; w++) {
            static uint32_t count[300][300];
            int32_t a, b, best_a = 0, best_b = 0;
            uint32_t best = 0;
            const orli_merge made_here = orli_merge_get(tok, w);
            memset(count, 0, sizeof count);
            for (i = 0; i + 1 < m; i++)
                if (word_of[i] == word_of[i + 1]) count[symbol[i]][symbol[i + 1]]++;
            for (a = 0; a < 300; a++)
                for (b = 0; b < 300; b++)
                    if (count[a][b] > best) best = count[a][b], best_a = a, best_b = b;
            check(best >= 2 && made_here.left == best_a && made_here.right == best_b &&
                  made_here.id == (int32_t)(256 + w));
            for (i = k = 0; i < m; i++, k++) {
                int found = i + 1 < m && word_of[i] == word_of[i + 1] && symbol[i] == best_a &&
                            symbol[i + 1] == best_b;
                word_of[k] = word_of[i];
                symbol[k] = found ? (int32_t)(256 + w) : symbol[i];
                i += found ? 1 : 0;
            }
            m = k;
        }
        { /* encoding the text merges in the same order, so it gives the same symbols */
            int32_t *ids = NULL;
            size_t count = 0;
            orl_encode(tok, text, n, 0, &ids, &count);
            if (round % 2) check(count == m && memcmp(ids, symbol, m * sizeof *ids) == 0);
            orl_free(ctx, ids);
        }
        orl_tokenizer_free(tok);
    }
}

static char note_text[700];
static void take_note(void *user, const char *sentence) {
    (void)user;
    snprintf(note_text, sizeof note_text, "%s", sentence);
}

static void training_limits(orl_ctx *ctx) {
    static const char *const twice[] = {"<a>", "<a>", NULL};
    static const char *const letter[] = {"a", NULL};
    orl_tokenizer *tok;
    char *run = (char *)malloc(1 << 20);
    orl_on_note(ctx, take_note, NULL);
    tok = orl_tokenizer_train(ctx, "", 0, 1000, specials);
    check(tok && orl_vocab(tok) == 258);
    check_contains(note_text, "vocabulary of 1000: it is 258");
    orl_on_note(ctx, NULL, NULL);
    orl_tokenizer_free(tok);
    check(!orl_tokenizer_train(ctx, "abc", 3, 257, specials));
    check_contains(orl_error(ctx), "a vocabulary of 258");
    orl_clear_error(ctx);
    check(!orl_tokenizer_train(ctx, "abc", 3, 300, twice));
    check_contains(orl_error(ctx), "\"<a>\" is given twice");
    orl_clear_error(ctx);
    check(!orl_tokenizer_train(ctx, "abc", 3, 300, letter));
    check_contains(orl_error(ctx), "special token of one character");
    orl_clear_error(ctx);
    check(!orl_tokenizer_train(ctx, NULL, 3, 300, NULL));
    orl_clear_error(ctx);
    if (run) { /* a megabyte without a space is learned from in no time */
        orli_rng r = orli_rng_new(1, 2);
        size_t i;
        double started = orl_seconds();
        for (i = 0; i < 1 << 20; i++) run[i] = "etaoin"[orli_rng_below(&r, 6)];
        tok = orl_tokenizer_train(ctx, run, 1 << 20, 2000, NULL);
        check(tok && orl_vocab(tok) == 2000 && orl_eos(tok) == -1);
        check(orl_seconds() - started < 10);
        orl_tokenizer_free(tok);
        memset(run, 'a', 1 << 20);
        tok = orl_tokenizer_train(ctx, run, 1 << 20, 400, NULL);
        check(tok != NULL);
        orl_tokenizer_free(tok);
        free(run);
    }
}

/* ---- encoding and decoding ---- */

static void bytes_survive(orl_ctx *ctx) {
    orl_tokenizer *tok = small_tokenizer(ctx), *sp = small_sentencepiece(ctx);
    orli_rng r = orli_rng_new(7, 7);
    char text[301];
    size_t i, k, n;
    for (i = 0; i < 3000; i++) {
        n = orli_rng_below(&r, i % 10 ? 40 : 300);
        text[n] = 0;
        for (k = 0; k < n; k++) {
            uint32_t u = orli_rng_u32(&r);
            text[k] = i % 3 == 0   ? (char)u
                      : i % 3 == 1 ? " aeht's\n\r1\xc3\xa9\xe2"[u % 13]
                                   : (char)(u % 96 + 32);
        }
        text[n] = 0;
        check(round_trips(tok, text, n, 1) && round_trips(tok, text, n, 0));
        if (i % 3) check(round_trips(sp, text, n, 0));
        else if (!strstr(text, "\xe2\x96\x81")) check(round_trips(sp, text, n, 0));
    }
    for (i = 0; i < 256; i++) { /* every byte alone, and before and after a letter */
        text[0] = 'a', text[1] = (char)i, text[2] = 'b';
        check(round_trips(tok, text + 1, 1, 1) && round_trips(tok, text, 3, 1) &&
              round_trips(sp, text + 1, 1, 1) && round_trips(sp, text, 3, 1));
    }
    orl_tokenizer_free(tok);
    orl_tokenizer_free(sp);
}

/* What was saved and loaded again encodes as before. */
static void saving_keeps_ids(orl_ctx *ctx) {
    orl_tokenizer *a[2], *b;
    size_t n, i, k, bad = 0;
    orli_rng r = orli_rng_new(11, 3);
    char *text = small_text(&n);
    a[0] = small_tokenizer(ctx), a[1] = small_sentencepiece(ctx);
    check(orl_token_add_special(a[0], "<|new token|>") == 500 && orl_vocab(a[0]) == 501);
    check(orl_token_add_special(a[0], "<|new token|>") == 500 && orl_vocab(a[0]) == 501);
    for (i = 0; i < 2; i++) {
        check(orl_tokenizer_save(a[i], in_dir("saved")) == ORL_OK);
        b = orl_tokenizer_load(ctx, in_dir("saved"));
        check(b && orl_vocab(b) == orl_vocab(a[i]) && orl_eos(b) == orl_eos(a[i]) &&
              orl_bos(b) == orl_bos(a[i]));
        if (!b) printf("    %s\n", orl_error(ctx));
        for (k = 0; b && k < 600; k++) {
            size_t from = orli_rng_below(&r, n - 500), m = orli_rng_below(&r, 500), ca = 0, cb = 0;
            int32_t *ia = NULL, *ib = NULL;
            char piece[600];
            memcpy(piece, text + from, m);
            for (from = 0; from < m; from += 1 + orli_rng_below(&r, 60))
                piece[from] = "<a |\xe2\n'1"[orli_rng_below(&r, 8)];
            memcpy(piece + m, "<|new token|>", 13);
            orl_encode(a[i], piece, m + 13, 1, &ia, &ca);
            orl_encode(b, piece, m + 13, 1, &ib, &cb);
            bad += ca != cb || memcmp(ia, ib, ca * sizeof *ia) != 0;
            if (i == 0) bad += ia[ca - 1] != 500;
            orl_free(ctx, ia);
            orl_free(ctx, ib);
        }
        check(bad == 0);
        orl_tokenizer_free(b);
        orl_tokenizer_free(a[i]);
    }
    free(text);
}

static void special_tokens(orl_ctx *ctx) {
    orl_tokenizer *tok = small_tokenizer(ctx);
    int32_t *ids = NULL, out_of_range[1] = {500};
    size_t count = 0, n;
    char *text = NULL;
    static const char mixed[] = "the<|endoftext|>dog<|user|>";
    check(orl_token_id(tok, "<|endoftext|>") == 0 && orl_token_id(tok, "<|user|>") == 1 &&
          orl_token_id(tok, "no such token") == -1);
    check(orl_token_id(tok, " the") >= 258 &&
          strcmp(orl_token_text(tok, orl_token_id(tok, " the"), &n), " the") == 0 && n == 4);
    check(orl_encode(tok, mixed, sizeof mixed - 1, 1, &ids, &count) == ORL_OK &&
          ids[count - 1] == 1);
    check(orl_decode(tok, ids, count, 0, &text, &n) == ORL_OK && strcmp(text, mixed) == 0);
    orl_free(ctx, text);
    check(orl_decode(tok, ids, count, 1, &text, NULL) == ORL_OK && strcmp(text, "thedog") == 0);
    orl_free(ctx, text);
    orl_free(ctx, ids);
    /* text that looks like one */
    check(orl_encode(tok, mixed, sizeof mixed - 1, 0, &ids, &count) == ORL_OK);
    for (n = 0; n < count; n++) check(!orli_token_is_special(tok, ids[n]));
    orl_free(ctx, ids);
    check(orl_encode(tok, "", 0, 1, &ids, &count) == ORL_OK && count == 0 && ids);
    check(orl_decode(tok, ids, 0, 0, &text, &n) == ORL_OK && n == 0 && text && text[0] == 0);
    orl_free(ctx, ids);
    orl_free(ctx, text);
    check(orl_decode(tok, out_of_range, 1, 0, &text, &n) == ORL_ERR_ARGUMENT && !text);
    check_contains(orl_error(ctx), "there is no token 500: ids go from 0 to 499");
    orl_clear_error(ctx);
    check(orl_token_add_special(tok, "") == -1);
    orl_clear_error(ctx);
    check(orl_encode(NULL, "a", 1, 1, &ids, &count) != ORL_OK && !ids && orl_vocab(NULL) == 0 &&
          orl_eos(NULL) == -1 && orl_bos(NULL) == -1);
    check(orl_token_id(NULL, "a") == -1 && !orl_token_text(NULL, 0, &n) &&
          orl_tokenizer_save(NULL, "x") != ORL_OK);
    check(!orl_tokenizer_load(ctx, NULL) && orl_failed(ctx));
    orl_clear_error(ctx);
    orl_tokenizer_free(NULL);
    orl_tokenizer_free(tok);
}

/* SentencePiece: the space put before a text comes off again, but a text that goes on from
 * another has none. */
static void sentencepiece_spaces(orl_ctx *ctx) {
    orl_tokenizer *sp = small_sentencepiece(ctx);
    int32_t *a = NULL, *b = NULL, *both = NULL;
    size_t na = 0, nb = 0, n = 0, bytes;
    char *text = NULL;
    check(orl_encode(sp, "the dog", 7, 0, &a, &na) == ORL_OK &&
          orl_encode(sp, " the dog", 8, 0, &b, &nb) == ORL_OK);
    check(na != nb || memcmp(a, b, na * sizeof *a) != 0);
    orl_free(ctx, b);
    check(orli_encode(sp, " the dog", 8, 0, 1, &b, &nb) == ORL_OK && na == nb &&
          memcmp(a, b, na * sizeof *a) == 0);
    check(orli_decode(sp, b, nb, 0, 1, &text, &bytes) == ORL_OK && strcmp(text, " the dog") == 0);
    orl_free(ctx, text);
    orl_free(ctx, a);
    orl_free(ctx, b);
    check(orl_encode(sp, "a<s>b", 5, 1, &both, &n) == ORL_OK && n >= 3);
    /* as Hugging Face has it */
    check(orl_decode(sp, both, n, 1, &text, &bytes) == ORL_OK && strcmp(text, "a b") == 0);
    orl_free(ctx, text);
    orl_free(ctx, both);
    check(orl_token_id(sp, " the") > 258 && orl_token_id(sp, "<0x0A>") == 13 &&
          strcmp(orl_token_text(sp, 13, &n), "\n") == 0 && n == 1);
    check(orli_token_is_special(sp, 0) && orli_token_is_special(sp, 2) &&
          !orli_token_is_special(sp, 3) && !orli_token_is_special(sp, -1));
    orl_tokenizer_free(sp);
}

/* of this process: what others do on the machine does not count */
static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double encode_seconds(const orl_tokenizer *tok, const char *text, size_t n) {
    double best = 1e9;
    int i;
    for (i = 0; i < 3; i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        double started = cpu_seconds();
        orl_encode(tok, text, n, 1, &ids, &count);
        best = ORLI_MIN(best, cpu_seconds() - started);
        orl_free(tok->object.ctx, ids);
    }
    return best;
}

/* Twice the text takes at most three times as long, whatever it is. */
static void time_is_linear(orl_ctx *ctx) {
    static const char *const unit[] = {
        "a", " ", "ab", "etaoin", "\n", "'", "1", "=", "\xe4\xbd\xa0", "<|", " \n", "<|endoftext",
        "\xff", "the dog. "};
    orl_tokenizer *tok[2];
    size_t n = 100000, i, k;
    char *text = (char *)malloc(2 * n);
    int t;
    tok[0] = small_tokenizer(ctx), tok[1] = small_sentencepiece(ctx);
    for (t = 0; t < 2 && text; t++)
        for (i = 0; i < sizeof unit / sizeof *unit; i++) {
            double one = 1e9, two = 1e9;
            int attempt, ok = 0;
            for (k = 0; k < 2 * n; k++) text[k] = unit[i][k % strlen(unit[i])];
            for (attempt = 0; attempt < 4 && !ok; attempt++) {
                double a = encode_seconds(tok[t], text, n), b = encode_seconds(tok[t], text, 2 * n);
                one = ORLI_MIN(one, a), two = ORLI_MIN(two, b);
                ok = two <= 3 * one + 0.002;
            }
            check(ok);
            if (!ok) printf("    \"%s\": %.4f s, twice as much %.4f s\n", unit[i], one, two);
        }
    free(text);
    orl_tokenizer_free(tok[0]);
    orl_tokenizer_free(tok[1]);
}

/* ---- files ---- */

static void other_files(orl_ctx *ctx) {
    orl_tokenizer *tok;
    const char *d = made(
        "two", "vocab.json",
        "{\"a\": 0, \"b\": 1, \"\\u0120\": 2, \"ab\": 3, \"\\u0120ab\": 4, \"<|endoftext|>\": 5}");
    int32_t *ids = NULL;
    size_t n = 0;
    made("two", "merges.txt", "#version: 0.2\r\na b\r\n\xc4\xa0 ab\n");
    tok = orl_tokenizer_load(ctx, d);
    check(tok && orl_vocab(tok) == 6 && orl_eos(tok) == 5 && orl_bos(tok) == -1);
    check(orl_encode(tok, "ab ab<|endoftext|>", 18, 1, &ids, &n) == ORL_OK && n == 3 &&
          ids[0] == 3 && ids[1] == 4 && ids[2] == 5);
    orl_free(ctx, ids);
    check(orl_encode(tok, "abc", 3, 1, &ids, &n) == ORL_ERR_DATA && !ids);
    check_contains(orl_error(ctx), "byte 0x63 of a text has no token");
    orl_clear_error(ctx);
    orl_tokenizer_free(tok);
    made("two", "tokenizer_config.json",
         "{\"bos_token\": {\"content\": \"a\"}, \"eos_token\": \"b\", \"add_bos_token\": true, "
         "\"other\": [1]}");
    tok = orl_tokenizer_load(ctx, d);
    check(tok && orl_eos(tok) == 1 && orl_bos(tok) == 0);
    orl_tokenizer_free(tok);
    made("two", "tokenizer_config.json",
         "{\"bos_token\": \"a\", \"eos_token\": null, \"add_bos_token\": false}");
    tok = orl_tokenizer_load(ctx, d);
    check(tok && orl_eos(tok) == -1 && orl_bos(tok) == -1);
    orl_tokenizer_free(tok);
}

#define HEAD "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
#define MODEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]]}"

static void bad_files(orl_ctx *ctx) {
    static const struct {
        const char *json, *error; /* NULL: it is fine */
    } file[] = {
        {HEAD MODEL "}", NULL},
        {HEAD MODEL ", \"added_tokens\": null, \"post_processor\": null, \"normalizer\": {\"type\": \"NFC\"}, \"extra\": {}}",
         NULL},
        {"{" MODEL "}", "neither a pre_tokenizer ByteLevel"},
        {"[]", "an array stands where an object should be"},
        {"{}", "no \"model\""},
        {"", "the text ends where"},
        {HEAD MODEL, "the text ends where"},
        {HEAD MODEL ", " MODEL "}", "the key \"model\" occurs twice"},
        {HEAD "\"model\": {\"type\": \"Unigram\", \"vocab\": []}}",
         "type is \"Unigram\": only BPE"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0}}}", "no \"merges\""},
        {HEAD "\"model\": {\"merges\": []}}", "no \"vocab\""},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}",
         "the token \"b\" or the id 0 occurs twice"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}}",
         "the token \"a\" or the id 1 occurs twice"},
        {HEAD "\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}",
         "-1 stands where a whole number from 0"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 1000000}, \"merges\": []}}",
         "1000000 stands where a whole number from 0"},
        {HEAD "\"model\": {\"vocab\": {\"a\": \"b\"}, \"merges\": []}}",
         "a string stands where a number should be"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}}",
         "merge 1, \"a\" with \"b\": what they make is not in the vocabulary"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"ab\"]}}", "merge 1, \"ab\" with \"\": it is not two tokens"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\", \"a b\"]}}", "merge 2, \"a\" with \"b\": it occurs twice"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [[\"a\"]]}}",
         "stands where a string should be"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": 0.1}}",
         "dropout is 0.1, which is not known here"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"continuing_subword_prefix\": \"##\"}}",
         "continuing_subword_prefix is \"##\""},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"end_of_word_suffix\": \"</w>\"}}",
         "end_of_word_suffix is \"</w>\""},
        {HEAD MODEL ", \"normalizer\": {\"type\": \"Lowercase\"}}",
         "the normalizer \"Lowercase\" with these settings is not one"},
        {HEAD MODEL ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"NFKC\"}]}}",
         "the normalizer \"NFKC\""},
        {"{\"normalizer\": {\"type\": \"BertNormalizer\", \"lowercase\": true}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, "
         "\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"[UNK]\": 0}}}", "the normalizer \"BertNormalizer\""},
        {HEAD "\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"[UNK]\": 0}}}", "type is \"WordPiece\": only BPE"},
        {HEAD MODEL ", \"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AA==\"}}", "the normalizer \"Precompiled\""},
        {"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}, " MODEL "}",
         "the pre_tokenizer \"Whitespace\""},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\w+\"}, \"behavior\": \"Isolated\"}, " MODEL "}",
         "regex \"\\w+\""},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": false}, " MODEL "}",
         "the pre_tokenizer \"ByteLevel\" with these settings"},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", \"split\": true}, " MODEL "}",
         "the pre_tokenizer \"Metaspace\""},
        {HEAD MODEL ", \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\"}}", "the decoder \"WordPiece\""},
        {HEAD MODEL ", \"post_processor\": {\"type\": \"BertProcessing\"}}", "the post_processor \"BertProcessing\""},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": \"ByteLevel\"}]}, " MODEL "}",
         "the pre_tokenizer \"ByteLevel\""},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": \"Punctuation\"}]}, " MODEL "}",
         "the pre_tokenizer \"Punctuation\""},
        {"{\"pre_tokenizer\": 7, " MODEL "}", "a number stands where an object should be"},
        {HEAD MODEL ", \"added_tokens\": [{\"id\": 3}]}", "a token without id or content"},
        {HEAD MODEL ", \"added_tokens\": [{\"content\": \"x\"}]}", "a token without id or content"},
        {HEAD MODEL ", \"added_tokens\": [{\"id\": 1, \"content\": \"x\"}]}",
         "\"x\" or its id 1 is another token's"},
        {HEAD MODEL ", \"added_tokens\": [{\"id\": 5, \"content\": \"a\"}]}",
         "\"a\" or its id 5 is another token's"},
        {HEAD MODEL ", \"added_tokens\": [{\"id\": 5, \"content\": \"x\"}, {\"id\": 5, \"content\": \"x\"}]}",
         "\"x\" occurs twice"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1035}, \"merges\": []}}", "ids up to 1035 but only 2 tokens"},
        {HEAD "\"model\": {\"vocab\": {\"a\": 0, \"\xff\": 1}, \"merges\": []}}",
         "byte 0xff is not UTF-8"}};
    size_t i, now = ctx->memory_now, size;
    char *good, path[800];
    for (i = 0; i < sizeof file / sizeof *file; i++) {
        orl_tokenizer *tok = orl_tokenizer_load(ctx, made("bad", "tokenizer.json", file[i].json));
        if (!file[i].error) {
            check(tok != NULL);
            if (!tok) printf("    %s\n", orl_error(ctx));
        } else {
            check(!tok && orl_error_status(ctx) == ORL_ERR_FORMAT);
            check_contains(orl_error(ctx), file[i].error);
            check_contains(orl_error(ctx), "tokenizer.json:");
        }
        orl_tokenizer_free(tok);
        orl_clear_error(ctx);
    }
    check(ctx->memory_now == now);
    check(!orl_tokenizer_load(ctx, in_dir("nothing")) && orl_error_status(ctx) == ORL_ERR_IO);
    check_contains(orl_error(ctx), "holds no tokenizer");
    orl_clear_error(ctx);
    made("half", "vocab.json", "{\"a\": 0}");
    snprintf(path, sizeof path, "%s/half/merges.txt", dir);
    remove(path);
    check(!orl_tokenizer_load(ctx, in_dir("half")));
    check_contains(orl_error(ctx), "merges.txt: cannot be opened");
    orl_clear_error(ctx);
    made("half", "merges.txt", "#version: 0.2\na b\n");
    check(!orl_tokenizer_load(ctx, in_dir("half")));
    check_contains(orl_error(ctx), "merges.txt:2: merge \"a b\": one of them is not in the vocabulary");
    orl_clear_error(ctx);
    /* the golden file cut or damaged anywhere: an error or a tokenizer, never a crash */
    snprintf(path, sizeof path, "%s/tokenizer_small.json", golden);
    good = read_bytes(path, &size);
    if (good) {
        orli_rng r = orli_rng_new(3, 1);
        for (i = 0; i < 300; i++) {
            size_t at = orli_rng_below(&r, size), cut = i % 3 ? size : at;
            char kept = good[at];
            orl_tokenizer *tok;
            good[at] = (char)orli_rng_u32(&r);
            made("bad", "tokenizer.json", "");
            snprintf(path, sizeof path, "%s/bad/tokenizer.json", dir);
            write_bytes(path, good, cut);
            tok = orl_tokenizer_load(ctx, in_dir("bad"));
            check(tok || orl_failed(ctx));
            if (tok) round_trips(tok, "hello there<|user|>", 19, 1);
            orl_tokenizer_free(tok);
            orl_clear_error(ctx);
            good[at] = kept;
        }
        free(good);
    }
    check(ctx->memory_now == now);
}

static void bad_llama2c(orl_ctx *ctx) {
    orl_tokenizer *tok = small_tokenizer(ctx);
    size_t n = 0, i, now;
    char *good;
    orli_rng r = orli_rng_new(3, 9);
    small_llama2c(ctx, tok, in_dir("x.bin"));
    orl_tokenizer_free(tok);
    now = ctx->memory_now;
    good = read_bytes(in_dir("x.bin"), &n);
    if (!good) return;
    check(!orl_tokenizer_load_llama2c(ctx, in_dir("x.bin"), 5000));
    check_contains(orl_error(ctx), "x.bin");
    orl_clear_error(ctx);
    check(!orl_tokenizer_load_llama2c(ctx, in_dir("x.bin"), 100000));
    check_contains(orl_error(ctx), "cannot hold 100000 tokens");
    orl_clear_error(ctx);
    write_bytes(in_dir("x.bin"), "abc", 3);
    check(!orl_tokenizer_load_llama2c(ctx, in_dir("x.bin"), 0) &&
          orl_error_status(ctx) == ORL_ERR_FORMAT);
    orl_clear_error(ctx);
    good[8] = (char)-1, good[9] = (char)-1, good[10] = 127, good[11] = 127; /* the first length */
    write_bytes(in_dir("x.bin"), good, n);
    check(!orl_tokenizer_load_llama2c(ctx, in_dir("x.bin"), 300));
    check_contains(orl_error(ctx), "token 0 at byte 4 says it has 2139095039 bytes");
    orl_clear_error(ctx);
    good[8] = 5, good[9] = good[10] = good[11] = 0;
    for (i = 0; i < 300; i++) {
        size_t at = orli_rng_below(&r, n), cut = i % 2 ? n : at;
        char kept = good[at];
        good[at] = (char)orli_rng_u32(&r);
        write_bytes(in_dir("x.bin"), good, cut);
        tok = orl_tokenizer_load_llama2c(ctx, in_dir("x.bin"), i % 3 ? 0 : 400);
        check(tok || orl_failed(ctx));
        if (tok) round_trips(tok, "hello there<s>", 14, 1);
        orl_tokenizer_free(tok);
        orl_clear_error(ctx);
        good[at] = kept;
    }
    check(ctx->memory_now == now);
    free(good);
}

/* The tokens llama2.c gave for a prompt with the tokenizer of a real small model. */
static void real_llama2c(orl_ctx *ctx) {
    static const char prompt[] = "Once upon a time, there was a little girl named Lily. She loved "
                                 "to play outside in the park.";
    /* clang-format off */
    static const int32_t want[] = {403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401,
                                   396, 267, 337, 410, 408, 419, 292, 411, 322, 265, 282, 295, 433, 426};
    /* clang-format on */
    const char *data = getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data";
    char path[800];
    orl_tokenizer *tok;
    int32_t *ids = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/weights/stories260K/stories260K.tok512.bin", data);
    if (!orli_exists(path)) {
        printf("test_10_tokenizer: skipped: no %s (set ORL_DATA)\n", path);
        return;
    }
    tok = orl_tokenizer_load_llama2c(ctx, path, 512);
    check(tok && orl_bos(tok) == 1 &&
          orl_encode(tok, prompt, sizeof prompt - 1, 1, &ids, &n) == ORL_OK);
    check(n == sizeof want / sizeof *want && memcmp(ids, want, sizeof want) == 0);
    orl_free(ctx, ids);
    orl_tokenizer_free(tok);
}

/* ---- rank files ---- */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void rank_put(orli_str *s, const char *bytes, size_t n, size_t rank) {
    size_t i;
    for (i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)(unsigned char)bytes[i] << 16;
        if (i + 1 < n) bits |= (uint32_t)(unsigned char)bytes[i + 1] << 8;
        if (i + 2 < n) bits |= (uint32_t)(unsigned char)bytes[i + 2];
        orli_str_printf(s, "%c%c%c%c", base64_digits[bits >> 18], base64_digits[bits >> 12 & 63],
                        i + 1 < n ? base64_digits[bits >> 6 & 63] : '=', i + 2 < n ? base64_digits[bits & 63] : '=');
    }
    orli_str_printf(s, " %zu\n", rank);
}

/* The 256 bytes, some longer tokens, and as many that nothing is made of as the kind has. */
static orl_tokenizer *rank_tokenizer(orl_ctx *ctx, const char *kind, size_t ranks) {
    static const char *const longer[] = {"he", "ll", "hell", " w", "hello", "or", "xyz", "aa", "aaa", "12", "3 "};
    orli_str s = orli_str_new(ctx);
    orl_tokenizer *tok;
    size_t i, n = sizeof longer / sizeof *longer;
    char bytes[4];
    for (i = 0; i < ranks; i++) {
        bytes[0] = i < 256 ? (char)i : (char)0xff, bytes[1] = (char)0xfe, bytes[2] = (char)(i >> 8), bytes[3] = (char)i;
        if (i >= 65536) bytes[1] = (char)(0xf0 + (i >> 16));
        if (i >= 256 && i < 256 + n) rank_put(&s, longer[i - 256], strlen(longer[i - 256]), i);
        else rank_put(&s, bytes, i < 256 ? 1 : 4, i);
    }
    write_bytes(in_dir("ranks.tiktoken"), s.data, s.length);
    tok = orl_tokenizer_load_tiktoken(ctx, in_dir("ranks.tiktoken"), kind);
    orli_str_free(&s);
    return tok;
}

/* The best pair of neighbours is the one that makes the lowest rank, the leftmost of equals first; a word that is a
 * token needs no merges ("xyz"). */
static void rank_files(orl_ctx *ctx) {
    orl_tokenizer *tok = rank_tokenizer(ctx, NULL, 100256), *again;
    int32_t *ids = NULL, *other = NULL;
    size_t n = 0, m = 0;
    check(tok && orl_vocab(tok) == 100277 && orl_eos(tok) == 100257 && orl_bos(tok) == -1 &&
          orl_token_id(tok, "<|fim_middle|>") == 100259 && orl_token_id(tok, "<|endofprompt|>") == 100276);
    orl_encode(tok, "hello world", 11, 0, &ids, &n);
    check(n == 5 && ids[0] == 260 && ids[1] == 259 && ids[2] == 261 && ids[3] == 'l' && ids[4] == 'd');
    orl_free(ctx, ids);
    orl_encode(tok, "xyz xyz1234 aaaaa", 17, 0, &ids, &n);
    check(n == 11 && ids[0] == 262 && ids[1] == ' ' && ids[2] == 'x' && ids[5] == 265 && ids[6] == '3' &&
          ids[7] == '4' && ids[8] == ' ' && ids[9] == 263 && ids[10] == 264);
    orl_free(ctx, ids);
    check(orl_tokenizer_save(tok, in_dir("ranks")) == ORL_OK);
    again = orl_tokenizer_load(ctx, in_dir("ranks"));
    check(again && orl_vocab(again) == orl_vocab(tok) && orl_eos(again) == orl_eos(tok) && again->ignore_merges &&
          again->rank_by_token && !again->derives && again->merges == 11);
    orl_encode(again, "hello world xyz xyz1234 aaaaa", 29, 0, &other, &m);
    orl_encode(tok, "hello world xyz xyz1234 aaaaa", 29, 0, &ids, &n);
    check(n == m && n > 10 && memcmp(ids, other, n * sizeof *ids) == 0);
    orl_free(ctx, ids), orl_free(ctx, other);
    orl_tokenizer_free(again);
    orl_tokenizer_free(tok);
    tok = rank_tokenizer(ctx, NULL, 128000);
    check(tok && orl_bos(tok) == 128000 && orl_eos(tok) == 128001 && orl_token_id(tok, "<|eot_id|>") == 128009 &&
          orl_token_id(tok, "<|reserved_special_token_250|>") == 128255 && orl_vocab(tok) == 128256);
    orl_tokenizer_free(tok);
    tok = rank_tokenizer(ctx, "qwen", 151643);
    check(tok && orl_token_id(tok, "<|im_end|>") == 151645 && orl_token_id(tok, "<|extra_204|>") == 151850);
    orl_tokenizer_free(tok);
    check(!rank_tokenizer(ctx, NULL, 267));
    expect_error(ORL_ERR_FORMAT, "ranks.tiktoken: neither its name nor its size tells how it splits text (267 lines");
    check(!rank_tokenizer(ctx, "cl200k", 267));
    expect_error(ORL_ERR_ARGUMENT, "there is no kind \"cl200k\"");
    check(!rank_tokenizer(ctx, "gpt2", 267));
    expect_error(ORL_ERR_FORMAT, "has 267 ranks where gpt2 has 50256");
}

static void bad_ranks(orl_ctx *ctx) {
    static const struct {
        const char *text, *error;
    } file[] = {{"IQ== 0\nI*== 1\n", ":2: \"I*==\" is not a token in base64"},
                {"IQ== 0\nIQ= 1\n", ":2: \"IQ=\" is not a token in base64"},
                {"IR== 0\n", ":1: \"IR==\" is not a token in base64"},
                {" 0\n", ":1: \"\" is not a token in base64"},
                {"IQ==\n", ":1: \"IQ==\" is not a token, a blank and a rank below"},
                {"IQ== x\n", "is not a token, a blank and a rank"},
                {"IQ== 99999999999999999999\n", "is not a token, a blank and a rank"},
                {"IQ== 0\nIQ== 1\n", ":2: the token or its rank 1 occurs twice"},
                {"IQ== 0\nIg== 0\n", ":2: the token or its rank 0 occurs twice"}};
    const char *path = in_dir("gpt2.tiktoken");
    char copy[800];
    size_t i;
    snprintf(copy, sizeof copy, "%s", path);
    for (i = 0; i < sizeof file / sizeof *file; i++) {
        write_bytes(copy, file[i].text, strlen(file[i].text));
        check(!orl_tokenizer_load_tiktoken(ctx, copy, NULL));
        expect_error(ORL_ERR_FORMAT, file[i].error);
    }
    check(!orl_tokenizer_load(ctx, made("sp", "tokenizer.model", "\n\x0e\n\x05<unk>")));
    expect_error(ORL_ERR_FORMAT, "SentencePiece's own form is not known here");
    check(!orl_tokenizer_load_tiktoken(ctx, NULL, NULL));
    expect_error(ORL_ERR_ARGUMENT, "the file is NULL");
}

/* What a file says it needs is not allocated before it is known to be there. */
static void hostile_memory(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx);
    size_t i, k, before, peak;
    for (k = 0; k < 6; k++) {
        s.length = 0;
        orli_str_puts(&s, k == 0 ? "{\"normalizer\": " : HEAD "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2");
        if (k == 1) orli_str_puts(&s, ", \"c\": 40000");
        if (k == 2) orli_str_puts(&s, ", \"");
        if (k == 3) orli_str_puts(&s, "}, \"merges\": [\"a b\"");
        for (i = 0; i < 50000; i++)
            orli_str_puts(&s, k == 0 ? "[[[[[[[[" : k == 2 ? "abcdefgh" : k == 3 ? ", \"a b\"" : k == 4 ? ", \"a\": 3" : "        ");
        if (k == 1) orli_str_puts(&s, "}, \"merges\": []}}");
        made("hostile", "tokenizer.json", "");
        write_bytes(in_dir("hostile/tokenizer.json"), s.data, s.length);
        before = ctx->memory_now, ctx->memory_peak = before;
        check(!orl_tokenizer_load(ctx, in_dir("hostile")) && orl_error_status(ctx) == ORL_ERR_FORMAT);
        check_contains(orl_error(ctx), "tokenizer.json:");
        orl_clear_error(ctx);
        peak = ctx->memory_peak - before;
        check(peak <= 2 * s.length + (1 << 20));
        if (peak > 2 * s.length + (1 << 20)) printf("    file %zu: %zu bytes, peak %zu\n", k, s.length, peak);
    }
    orli_str_free(&s);
}

/* ---- what each class of file takes while it is loaded, as the section's contract has it ---- */

/* Token i of a dense vocabulary: the bytes of the alphabet, pairs and triples of letters. */
static size_t dense_spelling(size_t i, char *out) {
    size_t n = 0;
    if (i < 256) return orli_utf8_encode(orli_byte_to_char((unsigned)i), out);
    for (i -= 256; n < 2 || i; i /= 52) out[n++] = (char)(i % 52 < 26 ? 'A' + i % 52 : 'a' + i % 52 - 26);
    return n;
}

/* merges: each token of two letters or more, as the first letter and the rest. between: what stands before each entry. */
static void dense_json(orli_str *s, size_t tokens, int merges, size_t added, const char *between) {
    char spelling[16];
    size_t i, n;
    orli_str_puts(s, HEAD "\"added_tokens\": [");
    for (i = 0; i < added; i++) {
        n = dense_spelling(i + tokens, spelling);
        orli_str_printf(s, "%s%s{\"id\":%zu,\"content\":\"%.*s\",\"normalized\":%s}", i ? "," : "", between, tokens + i, (int)n, spelling,
                        i % 2 ? "true" : "false");
    }
    orli_str_puts(s, "], \"model\": {\"vocab\": {");
    for (i = 0; i < tokens; i++) {
        n = dense_spelling(i, spelling);
        orli_str_printf(s, "%s%s", i ? "," : "", between);
        orli_json_put_string(s, spelling, n);
        orli_str_printf(s, ":%zu", i);
    }
    orli_str_puts(s, "}, \"merges\": [");
    for (i = 256; merges && i < tokens; i++) {
        n = dense_spelling(i, spelling);
        if (dense_spelling(i, spelling) > 3) break; /* "bcd" may be no token */
        orli_str_printf(s, "%s%s\"%c %.*s\"", i > 256 ? "," : "", between, spelling[0], (int)n - 1, spelling + 1);
    }
    orli_str_puts(s, "]}}");
}

/* The densest vocabulary: all texts of one to three of `letters` letters, which JSON writes as they are. Number
 * i; gives its length. */
static size_t dense_letters(size_t i, size_t letters, char *out) {
    size_t n = 1, all = letters, k;
    for (; i >= all; n++) i -= all, all *= letters;
    for (k = n; k-- > 0; i /= letters) out[k] = (char)('#' + i % letters), out[k] = out[k] == '\\' ? '!' : out[k];
    return n;
}

static size_t dense_tokens(size_t letters) { return letters + letters * letters + letters * letters * letters; }

/* halves: by how much, in halves, an id is more than the one before; prefix: before all but single letters. */
static void dense_vocab(orli_str *s, size_t letters, size_t halves, const char *prefix) {
    char text[4];
    size_t i, n;
    for (i = 0; i < dense_tokens(letters); i++) {
        n = dense_letters(i, letters, text);
        orli_str_printf(s, "%s\"%s%.*s\":%zu", i ? "," : "{", i < letters ? "" : prefix, (int)n, text, i * halves / 2);
    }
    orli_str_puts(s, "}");
}

/* Each cut of each token: in JSON, or a line each. */
static void dense_cuts(orli_str *s, size_t letters, int json) {
    char text[4];
    size_t i, k, n;
    for (i = letters; i < dense_tokens(letters); i++) {
        n = dense_letters(i, letters, text);
        for (k = 1; k < n; k++)
            orli_str_printf(s, json ? "%s\"%.*s %.*s\"" : "%s%.*s %.*s\n", json && i > letters ? "," : "", (int)k, text,
                            (int)(n - k), text + k);
    }
}

/* a rank file: the bytes, then pairs of bytes, then three of them; each `step` ranks further */
static void rank_runs(orli_str *s, size_t ranks, size_t step) {
    size_t i;
    for (i = 0; i < ranks; i++) {
        char bytes[3];
        size_t k = i < 256 ? i : i < 65792 ? i - 256 : i - 65792, n = i < 256 ? 1 : i < 65792 ? 2 : 3;
        bytes[0] = (char)(k >> (8 * (n - 1))), bytes[1] = (char)(n == 3 ? k >> 8 : k), bytes[2] = (char)k;
        rank_put(s, bytes, n, i * step);
    }
}

static void llama2c_put(orli_str *s, float score, const char *text, size_t n) {
    const int32_t length = (int32_t)n;
    orli_str_add(s, (const char *)&score, 4);
    orli_str_add(s, (const char *)&length, 4);
    orli_str_add(s, text, n);
}

/* runs of one letter: a merge for each cut */
static void llama2c_runs(orli_str *s, size_t letters, size_t longest) {
    char run[256];
    size_t i, k;
    orli_str_add(s, "\xc8\0\0", 4);
    for (i = 0; i < 3 + letters * longest; i++) {
        k = i < 3 ? i : i - 3;
        memset(run, i < 3 ? '.' : (int)('a' + k / longest), sizeof run);
        if (i < 3) run[0] = (char)('0' + k);
        llama2c_put(s, 0, run, i < 3 ? 4 : k % longest + 1);
    }
}

/* Tokens of `n` bytes, spaces among them; scores that are all the same, or up and down. what: 'e': all empty, 's': all
 * "a", 'l': the last one's length is a lie. */
static void llama2c_dense(orli_str *s, size_t tokens, size_t n, char what) {
    size_t i;
    orli_str_add(s, what == 'l' ? "\xff\xff\xff\x7f" : "\0\0\0", 4); /* the longest, they say */
    for (i = 0; i < tokens; i++) {
        char text[4];
        text[0] = (char)(' ' + (i & 63)), text[1] = (char)(' ' + (i >> 6 & 63)), text[2] = (char)(' ' + (i >> 12 & 63));
        text[3] = (char)(' ' + (i >> 18 & 63));
        if (what == 's') text[0] = 'a';
        llama2c_put(s, i % 3 ? (float)(i * 7919 % 10007) : 1, text, what == 'e' ? 0 : what == 's' ? 1 : n);
    }
    if (what == 'l') memcpy(s->data + s->length - 4 - n, "\xff\xff\xff\x7f", 4);
}

/* Loads what was made, well-formed or not (fine: the first), and encodes. The peak of loading is at most twice its size
 * and 1 MiB, and so is what is held when it has encoded; what it learned of words and pairs, at most 2.5 MiB, apart. */
static void peak_at_most(orl_ctx *ctx, const char *what, const char *path, size_t size, int fine) {
    static const char text[] = "abc cab \xe4\xbd\xa0 the quick brown fox";
    const size_t most = 2 * size + ((size_t)1 << 20);
    orl_tokenizer *tok;
    size_t before, peak, n = 0;
    int32_t *ids = NULL;
    orli_spare_drop(ctx); /* or what it is used for would not be counted */
    before = ctx->memory_peak = ctx->memory_now;
    tok = strstr(path, ".tiktoken") ? orl_tokenizer_load_tiktoken(ctx, path, strstr(path, "any.") ? "gpt2" : NULL)
          : strstr(path, ".bin")    ? orl_tokenizer_load_llama2c(ctx, path, 0)
                                    : orl_tokenizer_load(ctx, path);
    peak = ctx->memory_peak - before;
    check((tok != NULL) == fine && peak <= most);
    if ((tok != NULL) != fine || peak > most || getenv("V"))
        printf("    %s: %zu bytes, peak %zu: %.2f times, %.2f but for 1 MiB%s%s\n", what, size, peak,
               (double)peak / (double)size, ORLI_MAX((double)peak - (1 << 20), 0) / (double)size, tok ? "" : ": ",
               tok ? "" : orl_error(ctx));
    if (tok) {
        orl_encode(tok, text, sizeof text - 1, 0, &ids, &n); /* some lack bytes */
        orl_clear_error(ctx);
        check(ctx->memory_now - before <= most + ((size_t)5 << 19));
        orl_free(ctx, ids);
    }
    orl_tokenizer_free(tok);
    orl_clear_error(ctx);
    orli_spare_drop(ctx);
    check(ctx->memory_now == before);
}

/* A file of the directory memory/ with this text, which goes, beside files of so many bytes. */
static void peak_of(orl_ctx *ctx, const char *what, const char *name, orli_str *s, size_t beside, int fine) {
    char path[900];
    snprintf(path, sizeof path, "%s/%s", in_dir("memory"), name);
    write_bytes(path, s->data, s->length);
    if (strstr(name, ".json") || strstr(name, ".txt")) snprintf(path, sizeof path, "%s", in_dir("memory"));
    peak_at_most(ctx, what, path, s->length + beside, fine);
    s->length = 0;
}

static void memory_of_json(orl_ctx *ctx, size_t letters) {
    static const struct {
        const char *what, *between;
        size_t tokens, merges, added;
    } c[] = {{"as Hugging Face writes it", "\n        ", 140000, 1, 100},
             {"dense", "", 140000, 0, 0},
             {"dense, with merges", "", 140000, 1, 0},
             {"dense, added", "", 300, 0, 100000}};
    static const char *const head[] = { /* "▁" as Metaspace and as the normalizer has it, NFC and ranks shared */
        HEAD "\"model\": {\"vocab\": ", HEAD "\"normalizer\": {\"type\": \"NFC\"}, \"model\": {\"vocab\": ",
        "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\"}, \"model\": {\"vocab\": "};
    orli_str s = orli_str_new(ctx);
    size_t i, step;
    for (i = 0; i < 4; i++) {
        dense_json(&s, c[i].tokens, (int)c[i].merges, c[i].added, c[i].between);
        peak_of(ctx, c[i].what, "tokenizer.json", &s, 0, 1);
    }
    for (i = 0; i < 3; i++) /* every cut a merge, or none; half of the ids unused, or none */
        for (step = 2; step < 5; step += 2) {
            orli_str_puts(&s, head[i]);
            dense_vocab(&s, letters, step, i == 2 ? " \xe2\x96\x81" : "");
            orli_str_puts(&s, ", \"merges\": [");
            if (i < 2) dense_cuts(&s, letters, 1);
            orli_str_puts(&s, "]}}");
            peak_of(ctx, i == 2 ? "dense, spelled oddly" : "dense, with all merges", "tokenizer.json", &s, 0, 1);
        }
    orli_str_puts(&s, "{\"orl_leftmost_merges\": true}");
    write_bytes(in_dir("memory/tokenizer_config.json"), s.data, s.length);
    s.length = 0, orli_str_puts(&s, head[1]);
    dense_vocab(&s, letters, 4, "");
    orli_str_puts(&s, ", \"merges\": [");
    dense_cuts(&s, letters, 1);
    orli_str_puts(&s, "]}}");
    peak_of(ctx, "dense, with shared ranks", "tokenizer.json", &s, 0, 1);
    remove(in_dir("memory/tokenizer_config.json"));
    orli_str_free(&s);
}

/* One thing again and again, or one that is very long, to be refused (but for a few). */
static void memory_of_repetitions(orl_ctx *ctx) {
    static const struct {
        const char *what, *head, *again, *tail;
        int fine;
    } c[] = {{"a key again", "", ",\"a\":0", "}, \"merges\": []}}", 0},
             {"an id again", "", ",\"\":0", "}, \"merges\": []}}", 0},
             {"a high id", ",\"c\":200000", ",\"a\":0", "}, \"merges\": []}}", 0},
             {"a merge again", "}, \"merges\": [\"a b\"", ",\"a b\"", "]}}", 0},
             {"a merge again, as a list", "}, \"merges\": [[\"a\",\"b\"]", ",[\"a\",\"b\"]", "]}}", 0},
             {"what is no merge", "}, \"merges\": [\"a b\"", ",\"\"", "]}}", 0},
             {"an added token again", "}, \"merges\": []}, \"added_tokens\": [{\"id\":3,\"content\":\"c\"}",
              ",{\"id\":3,\"content\":\"c\"}", "]}", 0},
             {"added tokens of nothing", "}, \"merges\": []}, \"added_tokens\": [{}", ",{}", "]}", 0},
             {"a long token", ",\"", "abcde\\n", "\": 3}, \"merges\": []}}", 0},
             {"a long merge", "}, \"merges\": [\"", "ab \\n", "\"]}}", 0},
             {"a long list of a merge", "}, \"merges\": [[\"a\", \"", "ab\\n", "\"]]}}", 0},
             {"a long added token", "}, \"merges\": []}, \"added_tokens\": [{\"id\":3,\"content\":\"", "abc\\n",
              "\"}]}", 0},
             {"a long name of the unknown", "}, \"merges\": [], \"unk_token\": \"\\n", "abcdef", "\"}}", 1},
             {"a long key", "}, \"merges\": [], \"\\n", "abcdef", "\": 1}}", 1}};
    orli_str s = orli_str_new(ctx);
    size_t i, k;
    for (k = 0; k < sizeof c / sizeof *c; k++) {
        orli_str_puts(&s, HEAD "\"model\": {\"vocab\": {\"a\":0,\"b\":1,\"ab\":2");
        orli_str_puts(&s, c[k].head);
        for (i = 0; i < 500000; i++) orli_str_puts(&s, c[k].again);
        orli_str_puts(&s, c[k].tail);
        peak_of(ctx, c[k].what, "tokenizer.json", &s, 0, c[k].fine);
    }
    remove(in_dir("memory/tokenizer.json"));
    orli_str_free(&s);
}

static void memory_of_two_files(orl_ctx *ctx, size_t letters) {
    orli_str s = orli_str_new(ctx);
    size_t step, i, k, beside;
    for (k = 0; k < 3; k++)
        for (step = 2; step < (letters > 60 ? 4 : 3); step++) { /* a small file may not have that high ids */
            dense_vocab(&s, letters, step, "");
            write_bytes(in_dir("memory/vocab.json"), s.data, beside = s.length);
            s.length = 0;
            if (k == 0) dense_cuts(&s, letters, 0);
            for (i = 0; k && i < 500000; i++) orli_str_puts(&s, k == 1 ? "# #\n" : "abc");
            peak_of(ctx, k ? "one merge and no end" : "dense, in two files", "merges.txt", &s, beside, k == 0);
        }
    remove(in_dir("memory/vocab.json"));
    orli_str_free(&s);
}

static void memory_of_ranks(orl_ctx *ctx, size_t many) {
    orli_str s = orli_str_new(ctx);
    size_t i;
    rank_runs(&s, 50256, 1);
    peak_of(ctx, "ranks", "gpt2.tiktoken", &s, 0, 1);
    rank_runs(&s, 151643, 1);
    peak_of(ctx, "more ranks, and NFC", "qwen.tiktoken", &s, 0, 1);
    rank_runs(&s, many, 1);
    peak_of(ctx, "too many ranks", "any.tiktoken", &s, 0, 0);
    rank_runs(&s, 50256, 1); /* the last one as high as may be */
    s.length -= 6;
    orli_str_printf(&s, "%zu\n", s.length / 8);
    peak_of(ctx, "a high rank", "gpt2.tiktoken", &s, 0, 1);
    for (i = 0; i < many; i++) orli_str_puts(&s, "IQ== 0\n");
    peak_of(ctx, "one rank again", "any.tiktoken", &s, 0, 0);
    for (i = 0; i < many; i++) orli_str_puts(&s, "a\n");
    peak_of(ctx, "no ranks", "any.tiktoken", &s, 0, 0);
    for (i = 0; i < many; i++) orli_str_puts(&s, "aaaaaaaa");
    peak_of(ctx, "one endless rank", "any.tiktoken", &s, 0, 0);
    orli_str_free(&s);
}

static void memory_of_llama2c(orl_ctx *ctx, size_t many) {
    orli_str s = orli_str_new(ctx);
    llama2c_runs(&s, 26, 200);
    peak_of(ctx, "runs", "runs.bin", &s, 0, 1);
    llama2c_dense(&s, 4096, 2, 0);
    peak_of(ctx, "two bytes", "runs.bin", &s, 0, 1);
    llama2c_dense(&s, 64 * 64 * 64, 3, 0);
    peak_of(ctx, "three bytes", "runs.bin", &s, 0, 1);
    llama2c_dense(&s, many, 4, 0);
    peak_of(ctx, "four bytes", "runs.bin", &s, 0, 1);
    llama2c_dense(&s, many, 4, 'e');
    peak_of(ctx, "nothing again", "runs.bin", &s, 0, 0);
    llama2c_dense(&s, many, 1, 's');
    peak_of(ctx, "one byte again", "runs.bin", &s, 0, 0);
    llama2c_dense(&s, many, 4, 'l');
    peak_of(ctx, "a length that is a lie", "runs.bin", &s, 0, 0);
    orli_str_free(&s);
}

static void memory_of_files(orl_ctx *ctx) {
    const int quick = getenv("ORL_TEST_QUICK") != NULL;
    made("memory", "tokenizer.json", "");
    memory_of_json(ctx, quick ? 40 : 91);
    memory_of_repetitions(ctx);
    memory_of_two_files(ctx, quick ? 40 : 91);
    memory_of_ranks(ctx, quick ? 100000 : 1000000);
    memory_of_llama2c(ctx, quick ? 300000 : 2000000);
}

static void memory_of_real_files(orl_ctx *ctx) {
    static const struct {
        const char *path, *file[2];
    } c[] = {{"gpt2", {"/encoder.json", "/vocab.bpe"}},
             {"qwen3", {"/tokenizer.json", NULL}},
             {"llama2/tokenizer.bin", {"", NULL}}};
    const char *data = getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data";
    char path[800], file[900];
    struct stat info;
    size_t i, k, size;
    for (i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/tokenizers/%s", data, c[i].path);
        for (k = size = 0; k < 2 && c[i].file[k]; k++) {
            snprintf(file, sizeof file, "%s%s", path, c[i].file[k]);
            if (stat(file, &info) == 0) size += (size_t)info.st_size;
        }
        if (size) peak_at_most(ctx, c[i].path, path, size, 1);
    }
}

/* A large file is not copied for being saved again: it may have lost its name by then, or be written over itself. */
static void kept_without_a_copy(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx);
    orl_tokenizer *tok;
    char *back;
    size_t n = 0, i;
    dense_json(&s, 20000, 1, 10, " ");
    made("large", "tokenizer.json", "");
    write_bytes(in_dir("large/tokenizer.json"), s.data, s.length);
    tok = orl_tokenizer_load(ctx, in_dir("large"));
    check(tok && s.length > ORLI_KEPT_COPIED && orl_tokenizer_save(tok, in_dir("large")) == ORL_OK);
    for (i = 0; i < 2; i++) {
        if (i) remove_tree(in_dir("large")), check(orl_tokenizer_save(tok, in_dir("larger")) == ORL_OK);
        back = read_bytes(in_dir(i ? "larger/tokenizer.json" : "large/tokenizer.json"), &n);
        check(back && n == s.length && memcmp(back, s.data, n) == 0);
        free(back);
    }
    orl_tokenizer_free(tok);
    orli_str_free(&s);
}

/* ---- NFC and streamed text ---- */

static void normal_forms(orl_ctx *ctx) {
    static const char *const form[][2] = {
        {"e\xcc\x81", "\xc3\xa9"}, {"\xe2\x84\xab", "\xc3\x85"}, {"a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81"},
        {"\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"}, {"\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"},
        {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"},          /* excluded from composition */
        {"\xf0\xaf\xa0\x80", "\xe4\xb8\xbd"},                  /* a compatibility ideograph */
        {"\xf0\x96\x84\x9e\xf0\x96\x84\xa3", "\xf0\x96\x84\xa6"}, /* begins with what may join */
        {"x\xcc\x81\xff\xcc\x81", "x\xcc\x81\xff\xcc\x81"}, {"\xff\xcc", "\xff\xcc"}, {"\xcc\x81", "\xcc\x81"}, {"", ""}};
    orl_tokenizer *tok = small_tokenizer(ctx);
    size_t i, n = 100000;
    char *run = (char *)malloc(2 * n + 1);
    double started;
    tok->nfc = 1;
    orli_nfc_expand(tok);
    for (i = 0; i < sizeof form / sizeof *form; i++) {
        orli_str out = orli_str_new(ctx);
        int changed = orli_nfc(tok, form[i][0], strlen(form[i][0]), &out);
        check(!strcmp(changed ? out.data : form[i][0], form[i][1]));
        orli_str_free(&out);
    }
    started = cpu_seconds();
    for (i = 0; run && i < n; i++) memcpy(run + 2 * i, i % 2 ? "\xcc\x81" : "\xcc\xa3", 2); /* marks alone, out of order */
    if (run) {
        orli_str out = orli_str_new(ctx);
        check(orli_nfc(tok, run, 2 * n, &out) && out.length == 2 * n && out.data[0] == '\xcc' && out.data[1] == '\xa3' &&
              out.data[n + 1] == '\x81');
        check(cpu_seconds() - started < 2);
        orli_str_free(&out);
    }
    free(run);
    orl_tokenizer_free(tok);
}

static void streamed_text(void) {
    static const char text[] = "a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80" "b";
    static const size_t ready[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    size_t i;
    for (i = 0; i < sizeof text; i++) check(orl_text_ready(text, i) == ready[i]);
    check(orl_text_ready("\x80\x80\x80\x80", 4) == 4 && orl_text_ready("a\xff", 2) == 2 && orl_text_ready(NULL, 0) == 0);
}

/* ---- faults and locale ---- */

static void life(orl_ctx *ctx, int which) {
    orl_tokenizer *tok = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    char *text = NULL;
    if (which == 0) {
        tok = orl_tokenizer_train(ctx, "the dog and the cat and the dog and the cow", 43, 270,
                                  specials);
        orl_token_add_special(tok, "<|x|>");
        orl_tokenizer_save(tok, in_dir("fault"));
    } else if (which == 1) {
        tok = orl_tokenizer_load(ctx, in_dir("fault"));
    } else if (which == 2) {
        tok = orl_tokenizer_load_llama2c(ctx, in_dir("tiny.bin"), 0);
    } else {
        tok = orl_tokenizer_load_tiktoken(ctx, in_dir("gpt2.tiktoken"), NULL);
        if (tok) orl_token_add_special(tok, " \x80");
    }
    orl_encode(tok, "the dog <|user|> and", 20, 1, &ids, &n);
    if (ids) orl_decode(tok, ids, n, 1, &text, NULL);
    orl_free(ctx, ids);
    orl_free(ctx, text);
    orl_tokenizer_free(tok);
}

/* Each allocation in turn fails: a clean error, and nothing is left. */
static void faults(orl_ctx *outer) {
    static const struct {
        float score;
        const char *text;
    } token[] = {{0, "<unk>"}, {0, "<s>"}, {0, "</s>"}, {-3, "t"}, {-4, "h"}, {-5, "e"}, {-6, " "}, {-1, "th"}, {-2, "the"}, {-2.5f, " the"}};
    orli_str s = orli_str_new(outer);
    int which;
    size_t n, live, i;
    int32_t length = 4;
    orli_str_add(&s, (const char *)&length, 4);
    for (i = 0; i < sizeof token / sizeof *token; i++) {
        length = (int32_t)strlen(token[i].text);
        orli_str_add(&s, (const char *)&token[i].score, 4);
        orli_str_add(&s, (const char *)&length, 4);
        orli_str_add(&s, token[i].text, (size_t)length);
    }
    write_bytes(in_dir("tiny.bin"), s.data, s.length);
    s.length = 0;
    rank_runs(&s, 50256, 1);
    write_bytes(in_dir("gpt2.tiktoken"), s.data, s.length);
    orli_str_free(&s);
    for (which = 0; which < 4; which++) {
        int done = 0;
        for (n = 1; n < 2000 && !done; n++) {
            orl_ctx *ctx = test_ctx();
            size_t held;
            if (!ctx) return;
            live = fault_live, held = ctx->memory_now;
            fault_at = n, fault_count = 0;
            life(ctx, which);
            done = fault_count < n;
            fault_at = 0;
            check(done ? !orl_failed(ctx) : orl_error_status(ctx) == ORL_ERR_MEMORY);
            if (done && orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
            check(ctx->memory_now == held && fault_live == live);
            test_ctx_free(ctx);
        }
        check(done && n > 10);
    }
}

static void comma_locale(orl_ctx *ctx) {
    static const char *const name[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    size_t i;
    for (i = 0; i < sizeof name / sizeof *name; i++)
        if (setlocale(LC_ALL, name[i])) break;
    if (i == sizeof name / sizeof *name) {
        printf("test_10_tokenizer: skipped: no locale with a comma is installed\n");
        return;
    }
    training_is_deterministic(ctx);
    bad_files(ctx);
    setlocale(LC_ALL, "C");
}

int main(int argc, char **argv) {
    orl_ctx *ctx = test_ctx();
    const char *slash = strrchr(__FILE__, '/');
    int failed;
    if (slash) snprintf(golden, sizeof golden, "%.*s/golden", (int)(slash - __FILE__), __FILE__);
    if (!ctx || !make_dir("test_10", NULL)) return 1;
    if (argc > 2 && strcmp(argv[1], "--make") == 0) {
        failed = make_golden(ctx, argv[2]);
        if (failed) printf("%s\n", orl_error(ctx));
        remove_tree(dir);
        test_ctx_free(ctx);
        return failed;
    }
    golden_ids(ctx);
    fuzz_digests(ctx);
    training_is_deterministic(ctx);
    training_by_definition(ctx);
    training_limits(ctx);
    bytes_survive(ctx);
    saving_keeps_ids(ctx);
    special_tokens(ctx);
    sentencepiece_spaces(ctx);
    time_is_linear(ctx);
    other_files(ctx);
    bad_files(ctx);
    bad_llama2c(ctx);
    real_llama2c(ctx);
    rank_files(ctx);
    bad_ranks(ctx);
    hostile_memory(ctx);
    memory_of_files(ctx);
    memory_of_real_files(ctx);
    kept_without_a_copy(ctx);
    normal_forms(ctx);
    streamed_text();
    faults(ctx);
    comma_locale(ctx);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    remove_tree(dir);
    test_ctx_free(ctx);
    check(fault_live == 0);
    return test_report("test_10_tokenizer");
}
