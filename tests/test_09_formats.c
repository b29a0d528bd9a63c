/* test_09_formats.c - JSON and safetensors: what is accepted, what is refused and with which words,
 * exact round trips, and memory on hostile files. */
#include "fault.h"
#include "files.h"

static orl_ctx *test_ctx(void) {
    orl_config config = orl_config_default();
    config.threads = 1;
    return orl_create(&config);
}
static void test_ctx_free(orl_ctx *ctx) { orl_destroy(ctx); }

/* ---- JSON reader ---- */

/* Reads any text whole; 1 if it is JSON. The error, if any, is left in the context. */
static int accepts(orl_ctx *ctx, const char *text, size_t n) {
    orli_json j = orli_json_new(ctx, text, n, "x.json", 1);
    orl_clear_error(ctx);
    orli_json_skip(&j);
    return orli_json_end(&j) == ORL_OK;
}
static int ok(orl_ctx *ctx, const char *text) { return accepts(ctx, text, strlen(text)); }

static void json_grammar(orl_ctx *ctx) {
    static const char *const good[] = {
        "0", "-0", "1.5e-3", "1E+2", "\"\"", "[]", "{}", " [ ] ", "{\"a\":{}}",
        "[1,[2,[3]],{\"a\":[]}]", "true", "false", "null",
        "\"\\u0041\\ud83d\\ude00\\n\"", "\"\xf0\x9f\x98\x80\"", "\xef\xbb\xbf{}", "[\"\x7f\"]",
        "{\"a\":1,\"a\":2}", "-1.0", "[0.0]"};
    static const char *const bad[] = {
        "", " ", "01", "1.", ".5", "+1", "1e", "-", "--1", "0x1", "NaN", "Infinity", "-Infinity",
        "tru", "True", "[1,]", "[,1]", "[1 2]", "{,}",
        "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}", "[", "]", "{", "}", "[1}",
        "{\"a\":1]", "\"", "\"\\x\"", "\"\\u12\"",
        "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800x\"", "\"\\ud800\\u0041\"", "\"\\udc00\"",
        "\"a\nb\"", "\"\t\"", "1 2", "{} {}", "[1],",
        "'a'", "// x\n1", "\"\x80\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
        "\"\xe2\x82\"", "\"\\", "\"\\\"", "[\"a\",", "nul"};
    size_t i;
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        check(ok(ctx, good[i]));
        if (orl_failed(ctx)) printf("    %s: %s\n", good[i], orl_error(ctx));
    }
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        check(!ok(ctx, bad[i]));
        check(orl_error_status(ctx) == ORL_ERR_FORMAT);
        if (!orl_failed(ctx)) printf("    accepted: %s\n", bad[i]);
    }
    check(!accepts(ctx, "\"a\0b\"", 5));
    check(!accepts(ctx, "1\0", 2));
    orl_clear_error(ctx);
}

static void json_depth(orl_ctx *ctx) {
    static char text[2 * 100000 + 1];
    size_t n = 128, i;
    for (i = 0; i < n; i++) text[i] = '[', text[n + i] = ']';
    check(accepts(ctx, text, 2 * n));
    n = 129;
    for (i = 0; i < n; i++) text[i] = '[', text[n + i] = ']';
    check(!accepts(ctx, text, 2 * n));
    check_contains(orl_error(ctx), "nested deeper than 128");
    memset(text, '[', 200000);
    check(!accepts(ctx, text, 200000));
    orl_clear_error(ctx);
}

static void json_positions(orl_ctx *ctx) {
    orli_json j;
    check(!ok(ctx, "{\n  \"a\": 1,\n  \"b\" 2\n}"));
    check_contains(orl_error(ctx), "x.json:3:7 (byte 18): '2' stands where ':' should be");
    check(!ok(ctx, "[1,\n2"));
    check_contains(orl_error(ctx), "x.json:2:2 (byte 5): the text ends where");
    check(!ok(ctx, "[1, \xc3\xa9]"));
    check_contains(orl_error(ctx), "'\xc3\xa9' stands where");
    orl_clear_error(ctx);
    j = orli_json_new(ctx, "[tru]", 5, "rows.jsonl", 41); /* a line out of many */
    orli_json_skip(&j);
    check_contains(orl_error(ctx), "rows.jsonl:41:2 ");
    orl_clear_error(ctx);
}

static void json_loop(orl_ctx *ctx) {
    static const char text[] =
        "{\"n\": 7, \"list\": [1, 2.5, -3], \"s\\u0041\": \"x\\ny\", \"skip\": {\"a\": [1, "
        "\"}\"]}, \"none\": null, \"yes\": true, \"raw\" : \"q\" }";
    orli_json j = orli_json_new(ctx, text, sizeof text - 1, "c.json", 1);
    orli_str s = orli_str_new(ctx);
    double sum = 0;
    int64_t n = 0;
    int yes = 0, none = 0, keys = 0;
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j); keys++) {
        if (orli_json_is(&j, "n")) n = orli_json_int(&j, 0, 10);
        else if (orli_json_is(&j, "list"))
            for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);)
                sum += orli_json_number(&j);
        else if (orli_json_is(&j, "sA")) orli_json_string(&j, &s);
        else if (orli_json_is(&j, "none")) none = orli_json_null(&j);
        else if (orli_json_is(&j, "yes")) yes = !orli_json_null(&j) && orli_json_bool(&j);
        else if (orli_json_skip(&j) == ORL_OK && keys == 3)
            check(j.end - j.start == 15 && memcmp(text + j.start, "{\"a\": [1, \"}\"]}", 15) == 0);
        else check(j.end - j.start == 3 && memcmp(text + j.start, "\"q\"", 3) == 0);
    }
    check(orli_json_end(&j) == ORL_OK && keys == 7);
    check(n == 7 && sum == 0.5 && yes && none);
    check(s.length == 3 && strcmp(s.data, "x\ny") == 0);
    orli_str_free(&s);

    j = orli_json_new(ctx, "{\"a\":1,\"b\":2,\"\\u0061\":3}", 24, "d.json", 1);
    {
        orli_names seen = orli_names_new(ctx);
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key_once(&j, &seen);)
            orli_json_skip(&j);
        check_contains(orl_error(ctx), "the key \"a\" occurs twice");
        orli_names_free(&seen);
        orl_clear_error(ctx);
    }
    j = orli_json_new(ctx, "[300]", 5, "d.json", 1);
    orli_json_open(&j, ORLI_JSON_ARRAY);
    orli_json_int(&j, 0, 255);
    check_contains(orl_error(ctx), "300 stands where a whole number from 0 to 255 should be");
    orl_clear_error(ctx);
    j = orli_json_new(ctx, "[\"x\"]", 5, "d.json", 1);
    orli_json_open(&j, ORLI_JSON_ARRAY);
    check(orli_json_number(&j) == 0);
    check_contains(orl_error(ctx), "a string stands where a number should be");
    orl_clear_error(ctx);
}

static int64_t one_int(orl_ctx *ctx, const char *text) {
    orli_json j = orli_json_new(ctx, text, strlen(text), "i", 1);
    orl_clear_error(ctx);
    return orli_json_int(&j, INT64_MIN, INT64_MAX);
}
static double one_number(orl_ctx *ctx, const char *text) {
    orli_json j = orli_json_new(ctx, text, strlen(text), "i", 1);
    orl_clear_error(ctx);
    return orli_json_number(&j);
}

static void json_numbers(orl_ctx *ctx) {
    orli_rng r = orli_rng_new(9, 9);
    size_t i;
    char many[1300];
    check(one_int(ctx, "9223372036854775807") == INT64_MAX);
    check(one_int(ctx, "-9223372036854775807") == -INT64_MAX);
    check(one_int(ctx, "3e2") == 300 && one_int(ctx, "4.0") == 4 && !orl_failed(ctx));
    check(one_int(ctx, "9223372036854775808") == 0 && orl_failed(ctx));
    check(one_int(ctx, "1.5") == 0 && orl_failed(ctx));
    check(one_number(ctx, "0.1") == 0.1 && one_number(ctx, "-1e-5") == -1e-5 &&
          one_number(ctx, "5e-324") == 5e-324);
    check(one_number(ctx, "1.7976931348623157e308") == 1.7976931348623157e308 && !orl_failed(ctx));
    check(one_number(ctx, "1e309") == 0 && orl_failed(ctx));
    check(one_number(ctx, "9007199254740993") == 9007199254740992.0); /* a tie: to even */
    memset(many, '1', sizeof many);
    many[1200] = 0;
    check(one_number(ctx, many) == 0 && orl_failed(ctx));
    orl_clear_error(ctx);
    for (i = 0; i < 20000; i++) { /* every double and float survives its text */
        uint64_t bits = (uint64_t)orli_rng_u32(&r) << 32 | orli_rng_u32(&r);
        uint32_t half = orli_rng_u32(&r);
        orli_str s = orli_str_new(ctx);
        double x;
        float y;
        memcpy(&x, &bits, 8);
        memcpy(&y, &half, 4);
        if (i % 4 == 0) x = (double)((int64_t)bits >> 40) / 1000.0;
        if (i % 64 == 1) bits &= 0x000fffffffffffffu, memcpy(&x, &bits, 8); /* subnormal */
        orli_json_put_double(&s, x);
        if (x - x == 0) {
            double back = one_number(ctx, s.data);
            if (back != x || s.length > 24 || orl_failed(ctx))
                check(0), printf("    %.17g -> %s\n", x, s.data);
        } else {
            check(strcmp(s.data, "null") == 0);
        }
        s.length = 0;
        orli_json_put_float(&s, y);
        if (y - y == 0 && (float)one_number(ctx, s.data) != y)
            check(0), printf("    float %.9g -> %s\n", (double)y, s.data);
        orli_str_free(&s);
    }
    check(1);
    {
        static const double x[] = {0,    1,          -1,     0.1, 0.3,   1e22,
                                   1e-7, 123456.789, 5e-324, 2.5, 1e300, 1.0 / 3.0};
        /* clang-format off */
        static const char *const text[] = {
            "0", "1", "-1", "0.1", "0.3", "1e+22", "1e-07", "123456.789", "5e-324", "2.5", "1e+300",
            "0.3333333333333333"};
        orli_str s = orli_str_new(ctx);
        for (i = 0; i < sizeof x / sizeof *x; i++) {
            s.length = 0;
            orli_json_put_double(&s, x[i]);
            check(strcmp(s.data, text[i]) == 0);
            if (strcmp(s.data, text[i]) != 0) printf("    %s, not %s\n", s.data, text[i]);
        }
        s.length = 0;
        orli_json_put_float(&s, 0.1f);
        check(strcmp(s.data, "0.1") == 0);
        orli_str_free(&s);
    }
}

static void json_strings(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx), back = orli_str_new(ctx);
    orli_rng r = orli_rng_new(4, 2);
    char text[64];
    size_t i, k, n;
    uint32_t code;
    orli_json j;
    orli_json_put_string(&s, "a\"b\\\n\t\r\x01\xff\xc3\xa9\xe2\x82", 13);
    check(strcmp(s.data, "\"a\\\"b\\\\\\n\\t\\r\\u0001\\ufffd\xc3\xa9\\ufffd\\ufffd\"") == 0);
    for (i = 0; i < 2000; i++) { /* every valid string, zeros too, comes back as it was */
        for (n = 0, k = 0; k < 12; k++) {
            do code = orli_rng_u32(&r) % (k % 3 ? 0x200u : 0x110000u);
            while (code >= 0xd800 && code < 0xe000);
            n += orli_utf8_encode(code, text + n);
        }
        s.length = 0;
        orli_json_put_string(&s, text, n);
        j = orli_json_new(ctx, s.data, s.length, "s", 1);
        check(orli_json_string(&j, &back) && back.length == n && memcmp(back.data, text, n) == 0 &&
              orli_json_end(&j) == ORL_OK);
    }
    /* the decoder undoes the encoder, and refuses surrogates */
    for (code = 0; code < 0x110000; code++) {
        uint32_t out = 0;
        n = orli_utf8_encode(code, text);
        k = orli_utf8_decode(text, n, &out);
        if (code >= 0xd800 && code < 0xe000 ? k != 0 : k != n || out != code) check(0);
    }
    orli_str_free(&s);
    orli_str_free(&back);
}

/* Text cut anywhere is an error, never a crash; a byte changed is either. */
static void json_mutations(orl_ctx *ctx) {
    static const char text[] =
        "{\"a\":[1,2.5e3,\"\\ud83d\\ude00 x\"],\"b\":{\"c\":null,\"d\":[true,false]}}";
    orli_rng r = orli_rng_new(1, 1);
    size_t n, i;
    for (n = 0; n + 1 < sizeof text - 1; n++) {
        /* exact size, so that a sanitizer sees a read past the end */
        char *copy = (char *)malloc(n ? n : 1);
        if (!copy) return;
        memcpy(copy, text, n);
        check(!accepts(ctx, copy, n));
        free(copy);
    }
    for (i = 0; i < 20000; i++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        copy[orli_rng_below(&r, sizeof text - 1)] = (char)orli_rng_u32(&r);
        copy[orli_rng_below(&r, sizeof text - 1)] = "\"\\{}[],:0e"[orli_rng_below(&r, 10)];
        accepts(ctx, copy, sizeof text - 1);
    }
    orl_clear_error(ctx);
}

/* ---- names and sorting ---- */

static int by_int(const void *a, const void *b) {
    return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

static void names_and_sort(orl_ctx *ctx) {
    orli_names n = orli_names_new(ctx);
    orli_rng r = orli_rng_new(3, 3);
    char text[32];
    static int a[1000];
    size_t i, round;
    for (i = 0; i < 10000; i++) {
        snprintf(text, sizeof text, "name %zu", i);
        check(orli_names_add(&n, text, strlen(text)) == i);
    }
    check(orli_names_add(&n, "name 77", 7) == 77 && n.count == 10000);
    check(orli_names_find(&n, "name 9999", 9) == 9999 &&
          orli_names_find(&n, "nam", 3) == ORLI_NONE);
    check(orli_names_add(&n, "", 0) == 10000 && orli_names_find(&n, "", 0) == 10000);
    check(orli_names_add(&n, "a\0b", 3) == 10001 && orli_names_find(&n, "a\0c", 3) == ORLI_NONE);
    orli_names_free(&n);
    for (round = 0; round < 200; round++) {
        size_t count = round < 40 ? round : 1000, k;
        for (k = 0; k < count; k++) a[k] = (int)orli_rng_below(&r, 1 + round * 3);
        orli_sort(a, count, sizeof *a, by_int);
        for (k = 1; k < count; k++)
            if (a[k - 1] > a[k]) check(0);
    }
    check(1);
}

/* ---- safetensors ---- */

/* Halves against a slow definition: the nearest of all 65536, ties to the even one. */
static void halves(void) {
    orli_rng r = orli_rng_new(8, 8);
    size_t i;
    unsigned h;
    for (h = 0; h < 0x10000; h++) {
        double x = (double)orli_f16_float((uint16_t)h),
               y = (double)orli_bits_float((uint32_t)h << 16);
        if (x == x && orli_narrow(x, 10, 15) != h) check(0);
        if (x != x &&
            ((orli_narrow(x, 10, 15) & 0x7c00) != 0x7c00 || !(orli_narrow(x, 10, 15) & 0x3ff)))
            check(0);
        if (y == y && orli_narrow(y, 7, 127) != h) check(0);
        if (y != y &&
            ((orli_narrow(y, 7, 127) & 0x7f80) != 0x7f80 || !(orli_narrow(y, 7, 127) & 0x7f)))
            check(0);
        /* between two neighbours: the middle goes to the even one, a little beside it to the
         * nearer */
        if (h < 0x7bff) {
            double next = (double)orli_f16_float((uint16_t)(h + 1)), middle = (x + next) / 2;
            check(orli_narrow(middle, 10, 15) == (h & 1 ? h + 1 : h));
            check(orli_narrow(middle * (1 + 1e-13), 10, 15) == h + 1);
            check(orli_narrow(-middle * (1 - 1e-13), 10, 15) == (h | 0x8000));
        }
    }
    check(orli_narrow(65519.999, 10, 15) == 0x7bff && orli_narrow(65520, 10, 15) == 0x7c00 &&
          orli_narrow(1e300, 10, 15) == 0x7c00);
    check(orli_narrow(2.98e-8, 10, 15) == 0 && orli_narrow(2.99e-8, 10, 15) == 1 &&
          orli_narrow(-1e-300, 10, 15) == 0x8000);
    for (i = 0; i < 20000; i++) { /* BF16 from a float: the textbook integer rounding */
        uint32_t bits = orli_rng_u32(&r);
        float x = orli_bits_float(bits);
        if (x == x)
            check(orli_narrow((double)x, 7, 127) ==
                  (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
    }
}

static void fill_squares(void *user, size_t first, size_t n, orl_real *out) {
    size_t i;
    for (i = 0; i < n; i++) out[i] = (orl_real)((first + i) % *(size_t *)user);
}

static void round_trip(orl_ctx *ctx) {
    const char *path = in_dir("a.safetensors");
    size_t shape[2] = {3, 1000}, one[1] = {5}, none[2] = {0, 7}, period = 200, i;
    static orl_real x[3000], y[3000];
    int64_t counters[5] = {1, -2, INT64_MAX, INT64_MIN, 0};
    unsigned char blob[5] = {0, 255, 7, 1, 0};
    orli_rng r = orli_rng_new(6, 6);
    orli_st_writer w = orli_st_writer_new(ctx);
    orli_safetensors st;
    const orli_st_tensor *t;
    char *first, *again;
    long size;
    for (i = 0; i < 3000; i++) x[i] = (orl_real)orli_rng_normal(&r);
    x[0] = (orl_real)NAN, x[1] = (orl_real)INFINITY, x[2] = (orl_real)-0.0;
    orli_st_put_metadata(&w, "format", "pt");
    orli_st_put_metadata(&w, "key \"q\"", "line\nbreak \xc3\xa9");
    orli_st_put_tensor(&w, "blob", ORLI_U8, 1, one, ORLI_U8, blob);
    orli_st_put_tensor(&w, "x", ORLI_DTYPE_REAL, 2, shape, ORLI_DTYPE_REAL, x);
    orli_st_put_tensor(&w, "half \\ name", ORLI_F16, 2, shape, ORLI_DTYPE_REAL, x);
    orli_st_put_tensor(&w, "brain", ORLI_BF16, 2, shape, ORLI_DTYPE_REAL, x);
    orli_st_put_tensor(&w, "counters", ORLI_I64, 1, one, ORLI_I64, counters);
    orli_st_put_tensor(&w, "empty", ORLI_F32, 2, none, ORLI_F32, NULL);
    orli_st_put_tensor(&w, "scalar", ORLI_DTYPE_REAL, 0, NULL, ORLI_DTYPE_REAL, x + 5);
    orli_st_put_source(&w, "computed", ORLI_F32, 2, shape, fill_squares, &period);
    check(orli_st_save(&w, path) == ORL_OK);
    check(orli_safetensors_open(ctx, path, &st) == ORL_OK);
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    check(st.count == 8 && st.metadata_count == 2);
    check(strcmp(orli_safetensors_metadata(&st, "format"), "pt") == 0);
    check(strcmp(orli_safetensors_metadata(&st, "key \"q\""), "line\nbreak \xc3\xa9") == 0);
    check(!orli_safetensors_metadata(&st, "nothing") && !orli_safetensors_find(&st, "nothing"));
    t = orli_safetensors_find(&st, "x");
    check(t && t->rank == 2 && t->shape[0] == 3 && t->shape[1] == 1000 &&
          t->dtype == ORLI_DTYPE_REAL && (uintptr_t)t->data % 8 == 0);
    check(t && memcmp(t->data, x, sizeof x) == 0 &&
          orli_safetensors_read(&st, t, 0, 3000, y) == ORL_OK && memcmp(x, y, sizeof x) == 0);
    t = orli_safetensors_find(&st, "counters");
    check(t && t->dtype == ORLI_I64 && t->bytes == 40 && memcmp(t->data, counters, 40) == 0 &&
          (uintptr_t)t->data % 8 == 0);
    t = orli_safetensors_find(&st, "blob");
    check(t && t->bytes == 5 && memcmp(t->data, blob, 5) == 0);
    t = orli_safetensors_find(&st, "half \\ name");
    check(t && orli_safetensors_read(&st, t, 100, 100, y) == ORL_OK);
    for (i = 0; i < 100; i++) check_near(y[i], x[100 + i], 1e-3 * fabs((double)x[100 + i]) + 1e-7);
    t = orli_safetensors_find(&st, "brain");
    check(t && orli_safetensors_read(&st, t, 0, 3000, y) == ORL_OK && y[0] != y[0] && y[1] == x[1]);
    t = orli_safetensors_find(&st, "empty");
    check(t && t->bytes == 0 && orli_st_count(t) == 0);
    t = orli_safetensors_find(&st, "scalar");
    check(t && t->rank == 0 && orli_st_count(t) == 1 &&
          orli_safetensors_read(&st, t, 0, 1, y) == ORL_OK && y[0] == x[5]);
    t = orli_safetensors_find(&st, "computed");
    check(t && orli_safetensors_read(&st, t, 0, 3000, y) == ORL_OK && y[2999] == (orl_real)199 &&
          y[1024] == (orl_real)24);
    check(orli_safetensors_read(&st, orli_safetensors_find(&st, "counters"), 0, 5, y) ==
          ORL_ERR_FORMAT);
    check_contains(orl_error(ctx),
                   "tensor \"counters\" is of type I64, which cannot be read as numbers");
    orl_clear_error(ctx);
    orli_safetensors_close(&st);
    { /* what was read and written again has the same bytes */
        FILE *f = fopen(path, "rb");
        size_t k;
        if (!f) return;
        fseek(f, 0, SEEK_END);
        size = ftell(f);
        rewind(f);
        first = (char *)malloc((size_t)size), again = (char *)malloc((size_t)size);
        check(fread(first, 1, (size_t)size, f) == (size_t)size);
        fclose(f);
        check(orli_safetensors_open(ctx, path, &st) == ORL_OK);
        w = orli_st_writer_new(ctx);
        orli_st_put_metadata(&w, "format", orli_safetensors_metadata(&st, "format"));
        orli_st_put_metadata(&w, "key \"q\"", orli_safetensors_metadata(&st, "key \"q\""));
        {
            static const char *const order[] = {
                "blob", "x", "half \\ name", "brain", "counters", "empty", "scalar", "computed"};
            for (k = 0; k < 8; k++) {
                t = orli_safetensors_find(&st, order[k]);
                orli_st_put_tensor(&w, t->name, t->dtype, t->rank, t->shape, t->dtype, t->data);
            }
        }
        check(orli_st_save(&w, in_dir("b.safetensors")) == ORL_OK);
        orli_safetensors_close(&st);
        f = fopen(in_dir("b.safetensors"), "rb");
        check(f && fread(again, 1, (size_t)size, f) == (size_t)size &&
              memcmp(first, again, (size_t)size) == 0);
        if (f) fclose(f);
        free(first);
        free(again);
    }
}

/* Writes header + `data` zero bytes as a file and opens it; `length` < 0: the header's true
 * length. */
static orl_status open_made(orl_ctx *ctx, const char *header, long long length, size_t data) {
    const char *path = in_dir("bad.safetensors");
    size_t n = strlen(header);
    uint64_t stated = length < 0 ? n : (uint64_t)length;
    char *bytes = (char *)calloc(1, 8 + n + data);
    orli_safetensors st;
    orl_status status;
    if (!bytes) return ORL_ERR_MEMORY;
    memcpy(bytes, &stated, 8);
    memcpy(bytes + 8, header, n);
    write_bytes(path, bytes, 8 + n + data);
    free(bytes);
    orl_clear_error(ctx);
    status = orli_safetensors_open(ctx, path, &st);
    if (status == ORL_OK) orli_safetensors_close(&st);
    return status;
}

static void malformed(orl_ctx *ctx) {
    static const struct {
        const char *header;
        long long length;
        size_t data;
        const char *error; /* NULL: it is fine */
    } made[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"extra\":[{}]}}   ", -1,
         8, NULL},
        {"{}", -1, 0, NULL},
        {"{\"__metadata__\":{\"a\":\"1\"}}", -1, 0, NULL},
        /* unknown: only an error when read */
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", -1, 1, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 7,
         "tensor \"a\" ends at byte 8 of the data and the file has 7"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 9,
         "1 bytes stand behind the last tensor"},
        {"{}", 1000, 0, "the header is 1000 bytes long and the file ends after 10"},
        {"{}", 100000001, 0, "100 MB are allowed"},
        {"{}", 0, 0, "does not begin with '{'"},
        {"[]", -1, 0, "does not begin with '{'"},
        {"{\"a\":}", -1, 0, ":1:6 (byte 5): '}' stands where a value"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         -1, 12,
         "tensor \"b\" overlaps \"a\" at byte 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         -1, 12,
         "a gap of 4 bytes stands before tensor \"b\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8,
         "a gap of 4 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", -1, 8,
         "its shape times the size of F32 is not the 8 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,2,9],\"data_offsets\":[0,8]}}",
         -1, 8, "its shape times"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", -1,
         0, "its shape times"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}", -1, 8,
         "-1 stands where a whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", -1, 8,
         "more than 8 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", -1, 8,
         "ends at 0, before its begin 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", -1, 8, "stands where"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", -1, 8,
         "stands where the end of an array should be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99999999999999999999]}}", -1,
         8, "stands where a whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", -1, 8, "has no data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", -1, 8, "has no shape"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8, "has no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1,
         8, "a key occurs twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         -1, 8,
         "two tensors have the name \"a\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         -1, 8,
         "two tensors have the name \"a\""},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8,
         "a zero character"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", -1, 0,
         "the metadata key \"a\" occurs twice"},
        {"{\"__metadata__\":{\"a\":\"1\"},\"__metadata__\":{}}", -1, 0,
         "\"__metadata__\" occurs twice"},
        {"{\"__metadata__\":{\"a\":1}}", -1, 0, "a number stands where a string should be"},
        {"{\"a\":7}", -1, 0, "a number stands where an object should be"},
        {"{\"a\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8,
         "a number stands where a string should be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x", -1, 8,
         "'x' stands where the end of the text should be"}};
    orli_safetensors st;
    size_t i, now = ctx->memory_now;
    for (i = 0; i < sizeof made / sizeof *made; i++) {
        orl_status status = open_made(ctx, made[i].header, made[i].length, made[i].data);
        if (!made[i].error) {
            check(status == ORL_OK);
            if (status != ORL_OK) printf("    %s: %s\n", made[i].header, orl_error(ctx));
        } else {
            check(status == ORL_ERR_FORMAT);
            check_contains(orl_error(ctx), made[i].error);
            check_contains(orl_error(ctx), "bad.safetensors");
        }
    }
    check(ctx->memory_now == now);
    orl_clear_error(ctx);
    write_bytes(in_dir("short.safetensors"), "abc", 3);
    check(orli_safetensors_open(ctx, in_dir("short.safetensors"), &st) == ORL_ERR_FORMAT);
    check_contains(orl_error(ctx), "3 bytes are too few");
    orl_clear_error(ctx);
    check(orli_safetensors_open(ctx, in_dir("missing.safetensors"), &st) == ORL_ERR_IO);
    orl_clear_error(ctx);
    check(orli_safetensors_open(ctx, in_dir("empty_dir_that_is_not"), &st) == ORL_ERR_IO);
    orl_clear_error(ctx);
    /* an unknown type is an error once its numbers are asked for */
    {
        const char *header = "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}";
        char bytes[128];
        uint64_t n = strlen(header);
        orl_real y[2];
        memcpy(bytes, &n, 8);
        memcpy(bytes + 8, header, (size_t)n);
        memset(bytes + 8 + n, 0, 2);
        write_bytes(in_dir("f8.safetensors"), bytes, (size_t)n + 10);
        check(orli_safetensors_open(ctx, in_dir("f8.safetensors"), &st) == ORL_OK);
        check(orli_safetensors_read(&st, orli_safetensors_find(&st, "a"), 0, 2, y) ==
              ORL_ERR_FORMAT);
        check_contains(orl_error(ctx), "\"a\" is of type F8_E4M3, which");
        orli_safetensors_close(&st);
        orl_clear_error(ctx);
    }
}

/* Every prefix and many byte changes of a good file: a status, no crash, nothing left allocated. */
static void mutations(orl_ctx *ctx) {
    const char *path = in_dir("m.safetensors");
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_"
        "offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}";
    char bytes[sizeof header + 32], copy[sizeof header + 32];
    uint64_t n = sizeof header - 1;
    size_t size = (size_t)n + 19, i, now = ctx->memory_now;
    orli_rng r = orli_rng_new(2, 2);
    orli_safetensors st;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, (size_t)n);
    for (i = 0; i < size + 600; i++) {
        size_t cut = i < size ? i : size;
        memcpy(copy, bytes, size);
        if (i >= size) copy[orli_rng_below(&r, size)] = (char)orli_rng_u32(&r);
        write_bytes(path, copy, cut);
        orl_clear_error(ctx);
        if (orli_safetensors_open(ctx, path, &st) == ORL_OK) orli_safetensors_close(&st);
        else check(i < size || orl_failed(ctx));
        if (i < size) check(orl_failed(ctx));
    }
    check(ctx->memory_now == now);
    orl_clear_error(ctx);
}

/* The file that asks for the most memory for its size: very many, very small tensors. */
static void hostile_memory(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx);
    orli_safetensors st;
    uint64_t n;
    size_t i, count = 60000, size, before;
    orli_str_add(&s, "01234567{", 9);
    for (i = 0; i < count; i++)
        orli_str_printf(&s, "%s\"%zx\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                        i ? "," : "", i);
    orli_str_puts(&s, "}");
    n = s.length - 8;
    memcpy(s.data, &n, 8);
    write_bytes(in_dir("many.safetensors"), s.data, s.length);
    size = s.length;
    orli_str_free(&s);
    before = ctx->memory_now;
    ctx->memory_peak = before;
    check(orli_safetensors_open(ctx, in_dir("many.safetensors"), &st) == ORL_OK &&
          st.count == count);
    check(ctx->memory_peak - before <= 2 * size + (1u << 20));
    check(orli_safetensors_find(&st, "ea5f") && orli_safetensors_find(&st, "0"));
    orli_safetensors_close(&st);
    s = orli_str_new(ctx);
    orli_str_add(&s, "01234567{\"__metadata__\":{", 25);
    for (i = 0; i < 200000; i++) orli_str_printf(&s, "%s\"%zx\":\"\"", i ? "," : "", i);
    orli_str_puts(&s, "}}");
    n = s.length - 8;
    memcpy(s.data, &n, 8);
    write_bytes(in_dir("many.safetensors"), s.data, s.length);
    size = s.length;
    orli_str_free(&s);
    before = ctx->memory_now;
    ctx->memory_peak = before;
    check(orli_safetensors_open(ctx, in_dir("many.safetensors"), &st) == ORL_OK &&
          st.metadata_count == 200000);
    check(ctx->memory_peak - before <= 2 * size + (1u << 20));
    orli_safetensors_close(&st);
}

static void shards(orl_ctx *ctx) {
    size_t shape[1] = {2};
    orl_real x[2] = {1, 2}, y[2];
    orli_safetensors st;
    orli_st_writer w = orli_st_writer_new(ctx);
    const char *index = in_dir("model.safetensors.index.json");
    static const char good[] = "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"a\":\"s1."
                               "safetensors\",\"b\":\"s2.safetensors\"}}";
    /* clang-format off */
    static const struct {
        const char *text, *error;
    } bad[] = {{"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}", "the shard s3.safetensors is missing"},
               {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\"}}",
                "tensor \"b\" is not in s1.safetensors"},
               {"{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}}",
                "tensor \"a\" is not in s2.safetensors"},
               {"{\"weight_map\":{\"a\":\"../s1.safetensors\"}}",
                "is not the name of a file beside this one"},
               {"{\"weight_map\":{\"a\":3}}", "a number stands where a string should be"},
               {"{}", "no \"weight_map\""},
               {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s4.safetensors\"}}",
                "two tensors have the name \"a\""},
               {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"a\":\"s1.safetensors\"}}",
                "bad.index.json:1:59 (byte 58): the key \"a\" occurs twice"},
               {"{\"weight_map\":{\"c\":\"s4.safetensors\"}}", "tensor \"a\" is in a shard and not in the index"},
               {"{\"weight_map\":{\"a\":\"m-00001-of-00003.safetensors\",\"b\":\"m-00003-of-00003.safetensors\"}}",
                "names 2 shards, whose names say that there are 3"}};
    size_t i;
    orli_st_put_metadata(&w, "format", "pt");
    orli_st_put_tensor(&w, "a", ORLI_F32, 1, shape, ORLI_DTYPE_REAL, x);
    check(orli_st_save(&w, in_dir("s1.safetensors")) == ORL_OK);
    w = orli_st_writer_new(ctx);
    orli_st_put_metadata(&w, "format", "pt");
    orli_st_put_tensor(&w, "b", ORLI_F64, 1, shape, ORLI_DTYPE_REAL, x);
    check(orli_st_save(&w, in_dir("s2.safetensors")) == ORL_OK);
    w = orli_st_writer_new(ctx);
    orli_st_put_tensor(&w, "a", ORLI_F32, 1, shape, ORLI_DTYPE_REAL, x);
    orli_st_put_tensor(&w, "c", ORLI_F32, 1, shape, ORLI_DTYPE_REAL, x);
    check(orli_st_save(&w, in_dir("s4.safetensors")) == ORL_OK);
    write_bytes(index, good, sizeof good - 1);
    for (i = 0; i < 2; i++) {
        w = orli_st_writer_new(ctx);
        orli_st_put_tensor(&w, i ? "b" : "a", ORLI_F16, 1, shape, ORLI_DTYPE_REAL, x);
        check(orli_st_save(&w, in_dir(i ? "m-00003-of-00003.safetensors" : "m-00001-of-00003.safetensors")) == ORL_OK);
    }
    check(orli_safetensors_open(ctx, dir, &st) == ORL_OK); /* a directory: finds the index */
    check(st.count == 2 && st.shards == 2 &&
          strcmp(orli_safetensors_metadata(&st, "format"), "pt") == 0);
    check(orli_safetensors_find(&st, "b") &&
          orli_safetensors_read(&st, orli_safetensors_find(&st, "b"), 0, 2, y) == ORL_OK &&
          y[1] == 2);
    orli_safetensors_close(&st);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        index = in_dir("bad.index.json");
        write_bytes(index, bad[i].text, strlen(bad[i].text));
        check(orli_safetensors_open(ctx, index, &st) != ORL_OK);
        check_contains(orl_error(ctx), bad[i].error);
        orl_clear_error(ctx);
    }
}

/* Numbers that a type cannot hold are refused by the tensor's name; what is infinite already is not. */
static void overflows(orl_ctx *ctx) {
    static const struct {
        double x;
        orli_dtype dtype;
        const char *error;
    } cases[] = {{65519.99, ORLI_F16, NULL},       {-65520, ORLI_F16, "tensor \"big\" has the number -65520, which F16"},
                 {1e38, ORLI_F16, "1e+38"},        {3.3961e38, ORLI_BF16, NULL},
                 {3.39618e38, ORLI_BF16, "BF16"},  {(double)INFINITY, ORLI_F16, NULL},
                 {-(double)INFINITY, ORLI_BF16, NULL}, {(double)NAN, ORLI_F16, NULL}};
    static orl_real x[3000];
    size_t shape[1] = {3000}, i, now = ctx->memory_now;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        orli_st_writer w = orli_st_writer_new(ctx);
        x[2999] = (orl_real)cases[i].x;
        orli_st_put_tensor(&w, "big", cases[i].dtype, 1, shape, ORLI_DTYPE_REAL, x);
        check((orli_st_save(&w, in_dir("big.safetensors")) == ORL_OK) == !cases[i].error);
        if (cases[i].error) check_contains(orl_error(ctx), cases[i].error);
        check(orli_exists(in_dir("big.safetensors")) == !cases[i].error);
        if (!cases[i].error) check(remove(in_dir("big.safetensors")) == 0);
        orl_clear_error(ctx);
    }
    check(ctx->memory_now == now);
}

/* Members of one object that another does not have are passed on as they are spelled. */
static void others(orl_ctx *ctx) {
    static const char *const without[] = {"c", NULL};
    static const struct {
        const char *mine, *text, *result; /* NULL: an error */
    } cases[] = {
        {"{\"a\": {\"b\": 1}}\n", "{\"z\":[1, {}],\"a\":2,\"c\":3,\"z\":4}", "{\"a\": {\"b\": 1},\n  \"z\": [1, {}]\n}\n"},
        {"{}", "{\"x\" : \"}\"}", "{\n  \"x\": \"}\"\n}\n"},
        {"{\n  \"a\": 1\n}\n", "{\"\\u0061\": 2}", "{\n  \"a\": 1\n}\n"},
        {"{\"a\": 1}", "{}", "{\"a\": 1\n}\n"},
        {"{\"a\": 1}", "{\"b\": }", NULL},
        {"{\"a\": 1}", "[]", NULL}};
    size_t i, now = ctx->memory_now;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        orli_str out = orli_str_new(ctx);
        orli_str_puts(&out, cases[i].mine);
        check((orli_json_add_others(&out, cases[i].text, strlen(cases[i].text), "them", without) == ORL_OK) ==
              (cases[i].result != NULL));
        if (cases[i].result) check(strcmp(out.data, cases[i].result) == 0);
        else check_contains(orl_error(ctx), "them:1:");
        orl_clear_error(ctx);
        orli_str_free(&out);
    }
    check(orli_json_check_once(ctx, "{\"a\":1,\"b\":{\"a\":2}}", 21, "once") == ORL_OK);
    check(orli_json_check_once(ctx, "{\"a\":1,\"\\u0061\":2}", 20, "once") == ORL_ERR_FORMAT);
    check_contains(orl_error(ctx), "once:1:9 (byte 8): the key \"a\" occurs twice");
    orl_clear_error(ctx);
    check(ctx->memory_now == now);
}

/* Writing where nothing can be written leaves nothing behind and says so. */
static void unwritable(orl_ctx *ctx) {
    size_t shape[1] = {1};
    orl_real x[1] = {1};
    orli_st_writer w = orli_st_writer_new(ctx);
    size_t now = ctx->memory_now;
    orli_st_put_tensor(&w, "a", ORLI_F32, 1, shape, ORLI_F32, x);
    check(orli_st_save(&w, in_dir("no/such/place.safetensors")) == ORL_ERR_IO);
    check(ctx->memory_now == now);
    orl_clear_error(ctx);
}

static void give_two(void *user, size_t row, orl_real *out) {
    (void)row;
    memcpy(out, user, 2 * sizeof *out);
}

/* Each allocation in turn fails: a clean error, and nothing is left. */
static void faults(void) {
    static const char *const files[] = {"f.safetensors", "nothing", "s1.safetensors", NULL};
    size_t n, live;
    int done = 0;
    for (n = 1; n < 200 && !done; n++) {
        orl_ctx *ctx = test_ctx();
        size_t shape[1] = {2}, held;
        orl_real x[2] = {1, 2};
        orli_st_writer w;
        orli_safetensors st;
        orli_names names;
        orli_kept kept;
        orli_gguf g;
        if (!ctx) return;
        live = fault_live, held = ctx->memory_now;
        fault_at = n, fault_count = 0;
        w = orli_st_writer_new(ctx);
        orli_st_put_metadata(&w, "format", "pt");
        orli_st_put_tensor(&w, "a", ORLI_F32, 1, shape, ORLI_DTYPE_REAL, x);
        orli_st_save(&w, in_dir("f.safetensors"));
        memset(&kept, 0, sizeof kept);
        orli_kept_read(ctx, &kept, dir, files);
        orli_kept_free(ctx, &kept);
        g = orli_gguf_new(ctx);
        orli_gguf_put_text(&g, "general.architecture", "none");
        orli_gguf_put_tensor(&g, "a", ORL_F16, 2, 1, 2, give_two, x);
        orli_gguf_save(&g, in_dir("f.gguf"));
        if (!orl_failed(ctx) && orli_safetensors_open(ctx, in_dir("f.safetensors"), &st) == ORL_OK)
            orli_safetensors_close(&st);
        if (!orl_failed(ctx) && orli_safetensors_open(ctx, dir, &st) == ORL_OK)
            orli_safetensors_close(&st);
        names = orli_names_new(ctx);
        if (!orl_failed(ctx)) orli_names_add(&names, "abc", 3);
        orli_names_free(&names);
        done = fault_count < n;
        fault_at = 0;
        check(done ? !orl_failed(ctx) : orl_error_status(ctx) == ORL_ERR_MEMORY);
        check(ctx->memory_now == held && fault_live == live);
        test_ctx_free(ctx);
    }
    check(done && n > 8);
}

/* Nothing may change under a locale whose decimal point is a comma. */
static void comma_locale(orl_ctx *ctx) {
    static const char *const name[] = {
        "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "test_comma"};
    size_t i;
    for (i = 0; i < sizeof name / sizeof *name; i++)
        if (setlocale(LC_ALL, name[i])) break;
    if (i == sizeof name / sizeof *name) {
        printf("test_09_formats: skipped: no locale with a comma is installed\n");
        return;
    }
    check(strcmp(localeconv()->decimal_point, ",") == 0);
    json_numbers(ctx);
    setlocale(LC_ALL, "C");
}

/* A real file, if there is one. */
static void real_file(orl_ctx *ctx) {
    const char *data = getenv("ORL_DATA") ? getenv("ORL_DATA") : "../shared/data";
    char path[512];
    orli_safetensors st;
    const orli_st_tensor *t;
    static orl_real x[64];
    snprintf(path, sizeof path, "%s/weights/hf-stories260K", data);
    if (!orli_exists(path)) {
        printf("test_09_formats: skipped: no %s (set ORL_DATA)\n", path);
        return;
    }
    check(orli_safetensors_open(ctx, path, &st) == ORL_OK);
    t = orli_safetensors_find(&st, "model.embed_tokens.weight");
    check(t && t->rank == 2 && t->shape[0] == 512 && t->shape[1] == 64 &&
          orli_safetensors_read(&st, t, 0, 64, x) == ORL_OK);
    check(fabs((double)x[0]) > 0 && fabs((double)x[0]) < 10);
    orli_safetensors_close(&st);
}

int main(void) {
    orl_ctx *ctx = test_ctx();
    if (!ctx || !make_dir("test_09", NULL)) return 1;
    json_grammar(ctx);
    json_depth(ctx);
    json_positions(ctx);
    json_loop(ctx);
    json_numbers(ctx);
    json_strings(ctx);
    json_mutations(ctx);
    names_and_sort(ctx);
    halves();
    round_trip(ctx);
    malformed(ctx);
    mutations(ctx);
    hostile_memory(ctx);
    shards(ctx);
    overflows(ctx);
    others(ctx);
    unwritable(ctx);
    faults();
    comma_locale(ctx);
    real_file(ctx);
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("    %s\n", orl_error(ctx));
    test_ctx_free(ctx);
    check(fault_live == 0);
    remove_tree(dir);
    return test_report("test_09_formats");
}
