/* test_02_base.c - errors, checked sizes, memory, strings, objects, arena; and no memory, at every place.
 * builds: float double threads */

/* An allocator that counts what lives and can fail at the n-th call. */
#include <stddef.h>
static void *counted_malloc(size_t size);
static void counted_free(void *p);
#define ORL_MALLOC(size) counted_malloc(size)
#define ORL_FREE(p) counted_free(p)
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

static long live, calls, fail_at = -1; /* fail_at: which call from now on gets nothing; −1: none */

static void *counted_malloc(size_t size) {
    calls++;
    if (fail_at >= 0 && fail_at-- == 0) return NULL;
    live++;
    return malloc(size);
}
static void counted_free(void *p) {
    if (p) live--;
    free(p);
}

static orl_ctx *context(size_t threads, size_t memory_limit) {
    orl_config config = orl_config_default();
    config.threads = threads;
    config.memory_limit = memory_limit;
    return orl_create(&config);
}

/* ---- errors ---- */

static void test_errors(void) {
    orl_ctx *ctx = context(1, 0);
    char longest[3000];
    check(ctx != NULL && !orl_failed(ctx) && orl_error_status(ctx) == ORL_OK);
    check(strcmp(orl_error(ctx), "no error") == 0);
    check(orli_fail(ctx, ORL_ERR_FORMAT, "%s: line %d", "100%s.jsonl", 7) == ORL_ERR_FORMAT);
    check(orli_fail(ctx, ORL_ERR_IO, "an echo") == ORL_ERR_IO);
    check(orl_failed(ctx) && orl_error_status(ctx) == ORL_ERR_FORMAT); /* the first one stays */
    check(strcmp(orl_error(ctx), "100%s.jsonl: line 7") == 0);
    orl_clear_error(ctx);
    check(!orl_failed(ctx) && strcmp(orl_error(ctx), "no error") == 0);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    orli_fail(ctx, ORL_ERR_DATA, "%s", longest);
    check(strlen(orl_error(ctx)) > 500 && strlen(orl_error(ctx)) < sizeof longest);
    orl_destroy(ctx);
}

static void test_null(void) {
    check(orl_failed(NULL) && orl_error_status(NULL) != ORL_OK);
    check(orl_error(NULL) != NULL && strlen(orl_error(NULL)) > 10);
    check(orli_fail(NULL, ORL_ERR_IO, "nowhere to say it") == ORL_ERR_IO);
    check(orli_alloc(NULL, 1, 1) == NULL);
    check(orli_object_create(NULL, sizeof(orli_object), NULL) == NULL);
    orl_clear_error(NULL);
    orl_on_note(NULL, NULL, NULL);
    orl_free(NULL, NULL);
    orli_object_free(NULL);
    orl_destroy(NULL);
}

static char last_note[700];
static int notes;
static void keep_note(void *user, const char *sentence) {
    notes++;
    *(int *)user += 1;
    snprintf(last_note, sizeof last_note, "%s", sentence);
}

static void test_notes(void) {
    orl_ctx *ctx = context(1, 0);
    int mine = 0;
    orli_note(ctx, "nobody listens");
    orl_on_note(ctx, keep_note, &mine);
    orli_note(ctx, "%zu rows were dropped", (size_t)3);
    check(notes == 1 && mine == 1 && strcmp(last_note, "3 rows were dropped") == 0);
    check(!orl_failed(ctx));
    orl_on_note(ctx, NULL, NULL);
    orli_note(ctx, "nobody listens again");
    check(notes == 1);
    orl_destroy(ctx);
}

/* ---- sizes and memory ---- */

static void test_sizes(void) {
    size_t half = SIZE_MAX / 2 + 1; /* 2^63 */
    check(orli_mul(0, SIZE_MAX) == 0 && orli_mul(SIZE_MAX, 0) == 0);
    check(orli_mul(6, 7) == 42 && orli_mul(1, SIZE_MAX) == SIZE_MAX);
    check(orli_mul(half, 2) == SIZE_MAX && orli_mul(2, half) == SIZE_MAX && orli_mul(half, half) == SIZE_MAX);
    check(orli_add(1, 2) == 3 && orli_add(SIZE_MAX, 0) == SIZE_MAX && orli_add(SIZE_MAX, 1) == SIZE_MAX);
    check(orli_add(half, half) == SIZE_MAX && orli_add(half, half - 1) == SIZE_MAX);
    check(orli_round_up(0, 64) == 0 && orli_round_up(1, 64) == 64 && orli_round_up(64, 64) == 64 && orli_round_up(65, 64) == 128);
    check(ORLI_DOUBLE == (sizeof(orl_real) == sizeof(double)));
}

static void test_alloc(void) {
    orl_ctx *ctx = context(1, 0);
    size_t before = orl_memory_now(ctx), n;
    volatile size_t most = SIZE_MAX; /* a constant would be warned of */
    long lives = live;
    for (n = 0; n < 300; n++) {
        unsigned char *p = (unsigned char *)orli_alloc(ctx, n, 3);
        check(p && (uintptr_t)p % ORLI_ALIGN == 0 && orl_memory_now(ctx) == before + 3 * n);
        if (p) memset(p, 0xa5, 3 * n); /* all of it is ours: AddressSanitizer would say otherwise */
        orli_free(ctx, p);
    }
    check(orl_memory_now(ctx) == before && live == lives);
    {
        unsigned char *p = (unsigned char *)orli_alloc_zero(ctx, 1000, 7);
        size_t i, nonzero = 0;
        for (i = 0; p && i < 7000; i++) nonzero += p[i] != 0;
        check(p && nonzero == 0 && orl_memory_peak(ctx) >= before + 7000);
        orli_free(ctx, p);
    }
    check(orl_memory_peak(ctx) >= before + 7000 && orl_memory_now(ctx) == before);
    orl_free(ctx, NULL);
    check(!orl_failed(ctx));
    check(orli_alloc(ctx, most / 2, 3) == NULL && orl_error_status(ctx) == ORL_ERR_MEMORY); /* it would wrap round */
    orl_clear_error(ctx);
    check(orli_alloc_zero(ctx, most, 1) == NULL && orl_error_status(ctx) == ORL_ERR_MEMORY);
    orl_clear_error(ctx);
    check(orli_alloc(ctx, most - 100, 1) == NULL && orl_error_status(ctx) == ORL_ERR_MEMORY); /* the header would wrap */
    check(orl_memory_now(ctx) == before && live == lives);
    orl_destroy(ctx);
}

static void test_limit(void) {
    orl_ctx *ctx = context(1, (size_t)8 << 20);
    size_t room = ctx->config.memory_limit - orl_memory_now(ctx);
    void *p, *q;
    check(!orl_failed(ctx) && room > 1000);
    p = orli_alloc(ctx, room, 1); /* to the last byte */
    check(p && !orl_failed(ctx) && orl_memory_now(ctx) == ctx->config.memory_limit);
    q = orli_alloc(ctx, 1, 1);
    check(!q && orl_error_status(ctx) == ORL_ERR_MEMORY);
    check_contains(orl_error(ctx), "no memory");
    orl_clear_error(ctx);
    orli_free(ctx, p);
    p = orli_alloc(ctx, room + 1, 1);
    check(!p && orl_failed(ctx));
    orl_clear_error(ctx);
    ctx->config.memory_limit = 1; /* less than is held */
    check(orli_alloc(ctx, 2, 1) == NULL && orl_failed(ctx));
    orl_destroy(ctx);
}

static void test_reserve(void) {
    orl_ctx *ctx = context(1, 0);
    int32_t *a = NULL;
    size_t capacity = 0, i, wrong = 0;
    long before = calls;
    for (i = 0; i < 10000; i++) {
        wrong += ORLI_RESERVE(ctx, a, capacity, i + 1) != ORL_OK || capacity <= i;
        a[i] = (int32_t)i;
    }
    check(wrong == 0 && calls - before < 30); /* it grows by halves */
    fail_at = 0;
    check(ORLI_RESERVE(ctx, a, capacity, capacity + 1) == ORL_ERR_MEMORY && orl_failed(ctx));
    fail_at = -1;
    for (i = 0; i < 10000; i++) wrong += a[i] != (int32_t)i;
    check(wrong == 0);
    orl_clear_error(ctx);
    check(ORLI_RESERVE(ctx, a, capacity, SIZE_MAX / 4 + 2) == ORL_ERR_MEMORY && a[9999] == 9999);
    orli_free(ctx, a);
    orl_destroy(ctx);
}

/* ---- strings ---- */

static void test_strings(void) {
    orl_ctx *ctx = context(1, 0);
    orli_str s = orli_str_new(ctx);
    char filler[2000], *text;
    size_t n, i;
    text = orli_str_take(&s);
    check(text && text[0] == 0); /* nothing was added: an empty string, not NULL */
    orl_free(ctx, text);
    orli_str_puts(&s, "a");
    orli_str_add(&s, "b\0c", 3);
    orli_str_printf(&s, "%d%%", 50);
    check(s.length == 7 && memcmp(s.data, "ab\0c50%", 8) == 0);
    orli_str_free(&s);
    check(s.length == 0 && s.data == NULL);
    for (n = 505; n < 520; n++) { /* around the size of the buffer on the stack */
        memset(filler, 'y', n);
        filler[n] = 0;
        orli_str_puts(&s, "x");
        orli_str_printf(&s, "%s", filler);
        check(s.length == n + 1 && s.data[0] == 'x' && strcmp(s.data + 1, filler) == 0);
        orli_str_free(&s);
    }
    memset(filler, 'z', sizeof filler - 1);
    filler[sizeof filler - 1] = 0;
    for (i = 0; i < 50; i++) orli_str_printf(&s, "%s", filler);
    check(s.length == 50 * (sizeof filler - 1) && strlen(s.data) == s.length);
    fail_at = 0;
    while (!s.failed) orli_str_printf(&s, "%s", filler);
    fail_at = -1;
    orli_str_puts(&s, "an addition after the failure is no addition");
    check(orl_failed(ctx) && orli_str_take(&s) == NULL && s.data == NULL);
    orl_clear_error(ctx);
    text = orli_copy_bytes(ctx, "p\0q", 3);
    check(text && memcmp(text, "p\0q", 4) == 0);
    orl_free(ctx, text);
    text = orli_copy_bytes(ctx, NULL, 0);
    check(text && text[0] == 0);
    orl_free(ctx, text);
    orl_destroy(ctx);
}

/* ---- objects ---- */

typedef struct thing {
    orli_object object;
    int number;
    void *memory;
} thing;
static char gone[64];
static void thing_destroy(orli_object *object) {
    thing *t = (thing *)(void *)object;
    size_t n = strlen(gone);
    gone[n] = (char)('0' + t->number);
    gone[n + 1] = 0;
    orli_free(object->ctx, t->memory);
}
static thing *thing_create(orl_ctx *ctx, int number) {
    thing *t = (thing *)orli_object_create(ctx, sizeof *t, thing_destroy);
    if (!t) return NULL;
    t->number = number;
    t->memory = orli_alloc(ctx, 10, 1);
    return t;
}

static void test_objects(void) {
    orl_ctx *ctx = context(1, 0);
    thing *t[6];
    size_t before = orl_memory_now(ctx);
    int i;
    for (i = 0; i < 6; i++) t[i] = thing_create(ctx, i);
    check(t[5] && t[5]->object.ctx == ctx);
    gone[0] = 0;
    orli_object_free(&t[3]->object); /* from the middle, */
    orli_object_free(&t[5]->object); /* the head */
    orli_object_free(&t[0]->object); /* and the tail */
    check(strcmp(gone, "350") == 0);
    orli_fail(ctx, ORL_ERR_DATA, "a failure");
    check(thing_create(ctx, 7) == NULL); /* nothing is made after a failure */
    orl_destroy(ctx);                    /* takes the rest along, the youngest first */
    check(strcmp(gone, "350421") == 0);
    ctx = context(1, 0);
    for (i = 0; i < 6; i++) t[i] = thing_create(ctx, i);
    for (i = 0; i < 6; i++) orli_object_free(&t[i]->object);
    check(orl_memory_now(ctx) == before);
    orl_destroy(ctx);
}

/* ---- arena ---- */

static void fill(orli_arena *a, size_t seed) { /* always the same sizes for the same seed */
    size_t i, wrong = 0;
    for (i = 0; i < 200; i++) {
        size_t bytes = (i * 7919 + seed * 104729) % 40000;
        unsigned char *p = (unsigned char *)orli_arena_alloc(a, bytes, 1);
        if (p) memset(p, (int)(i & 255), bytes);
        wrong += !a->dry && (!p || (uintptr_t)p % ORLI_ALIGN != 0);
    }
    check(wrong == 0);
}

static void test_arena(void) {
    orl_ctx *ctx = context(1, 0);
    orli_arena a, dry;
    unsigned char *p[100];
    size_t before = orl_memory_now(ctx), i, j, wrong = 0, cycle;
    long calls_before;
    memset(&a, 0, sizeof a);
    a.ctx = ctx;
    dry = a;
    dry.dry = 1;
    for (i = 0; i < 100; i++) { /* blocks do not overlap, across chunks too */
        p[i] = (unsigned char *)orli_arena_alloc(&a, 9000 + i, 1);
        check(p[i] != NULL);
        memset(p[i], (int)i, 9000 + i);
    }
    for (i = 0; i < 100; i++) for (j = 0; j < 9000 + i; j++) wrong += p[i][j] != i;
    check(wrong == 0 && a.chunks > 1);
    orli_arena_reset(&a);
    check(a.chunks == 1 && a.total == 0);
    for (cycle = 0; cycle < 2; cycle++) fill(&a, 1), orli_arena_reset(&a);
    calls_before = calls;
    for (cycle = 0; cycle < 5; cycle++) fill(&a, 1), orli_arena_reset(&a);
    check(calls == calls_before); /* nothing is allocated any more */
    fill(&a, 1);
    fill(&dry, 1); /* a dry run gives nothing and counts the same */
    check(dry.total == a.total && dry.peak == a.total && dry.chunks == 0);
    check(orli_arena_alloc(&a, SIZE_MAX / 2, 4) == NULL && orl_failed(ctx));
    orl_clear_error(ctx);
    fail_at = 0;
    check(orli_arena_alloc(&a, (size_t)1 << 24, 1) == NULL && orl_failed(ctx));
    fail_at = -1;
    orl_clear_error(ctx);
    fill(&a, 2); /* it goes on after a failure */
    orli_arena_free(&a);
    check(ctx->spare && orl_memory_now(ctx) == before + orli_block_of(ctx->spare)->bytes); /* a large chunk stays … */
    calls_before = calls;
    check(orli_arena_alloc(&a, ORLI_SPARE, 1) != NULL && !ctx->spare && calls == calls_before); /* … for the next arena */
    orli_arena_free(&a);
    check(ctx->spare != NULL);
    ctx->config.memory_limit = orl_memory_now(ctx) + 4096; /* or until memory is wanted elsewhere */
    orli_free(ctx, orli_alloc(ctx, orli_block_of(ctx->spare)->bytes, 1));
    check(!orl_failed(ctx) && !ctx->spare && orl_memory_now(ctx) == before);
    orl_destroy(ctx);
}

/* Many small blocks up to a gigabyte, counted only where they would be too many to hold: chunks stay few. */
static void test_arena_growth(void) {
    orl_ctx *ctx = context(1, 0);
    orli_arena a;
    size_t i, refused = 0;
    memset(&a, 0, sizeof a);
    a.ctx = ctx;
    for (i = 0; i < 1000; i++) refused += orli_arena_alloc(&a, (size_t)200 << 10, 1) == NULL; /* 200 MB, never touched */
    check(refused == 0 && a.chunks < 40);
    orli_arena_free(&a);
    orl_destroy(ctx);
}

/* ---- no memory: at whichever allocation it happens, there is a status, and nothing leaks ---- */

static int everything(size_t threads) { /* 1 if it got through */
    orl_ctx *ctx = context(threads, 0);
    orli_str s = orli_str_new(ctx);
    orli_arena a;
    double *array = NULL;
    char *text;
    size_t capacity = 0, i;
    int fine = 1;
    if (!ctx) return 0;
    memset(&a, 0, sizeof a);
    a.ctx = ctx;
    for (i = 0; i < 5; i++) thing_create(ctx, (int)i);
    for (i = 0; i < 200; i++) orli_str_printf(&s, "%zu %s", i, "and so on and so on and so on");
    text = orli_str_take(&s);
    for (i = 0; i < 100 && fine; i++) fine = ORLI_RESERVE(ctx, array, capacity, i + 1) == ORL_OK;
    for (i = 0; i < 30; i++) orli_arena_alloc(&a, 30000, 1);
    orli_arena_reset(&a);
    fine = fine && text && array && a.chunks == 1;
    check(fine || orl_error_status(ctx) == ORL_ERR_MEMORY);
    orl_free(ctx, text);
    orl_free(ctx, array);
    orli_arena_free(&a);
    fine = fine && !orl_failed(ctx);
    orl_destroy(ctx);
    return fine;
}

static void test_no_memory(void) {
    size_t threads;
    for (threads = 1; threads <= 3; threads += 2) {
        long n, tries = 0;
        check(live == 0);
        for (n = 0; n < 1000; n++) {
            int through;
            gone[0] = 0;
            fail_at = n;
            through = everything(threads);
            tries++;
            if (fail_at >= 0) { /* it needed fewer than n: all failures were tried */
                check(through);
                break;
            }
            check(!through && live == 0);
        }
        fail_at = -1;
        check(tries > 15 && tries < 1000);
    }
}

int main(void) {
    test_errors();
    test_null();
    test_notes();
    test_sizes();
    test_alloc();
    test_limit();
    test_reserve();
    test_strings();
    test_objects();
    test_arena();
    test_arena_growth();
    test_no_memory();
    check(live == 0); /* every block went back to where it came from */
    return test_report("test_02_base");
}
