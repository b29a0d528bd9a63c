/* test.h - the little that every test program here shares.
 * A check that fails prints where and what; the last line of a program is "name: N passed, M failed". */
#ifndef ORL_TEST_H
#define ORL_TEST_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed;

static void test_check(int ok, const char *what, const char *file, int line) {
    if (ok) test_passed++;
    else test_failed++, printf("%s:%d: failed: %s\n", file, line, what);
}
#define check(condition) test_check(!!(condition), #condition, __FILE__, __LINE__)

static void test_near(double a, double b, double tolerance, const char *what, const char *file, int line) {
    int ok = fabs(a - b) <= tolerance || a == b;
    test_check(ok, what, file, line);
    if (!ok) printf("    %.17g against %.17g, difference %.3g, allowed %.3g\n", a, b, fabs(a - b), tolerance);
}
#define check_near(a, b, tolerance) test_near((double)(a), (double)(b), (tolerance), #a " ~ " #b, __FILE__, __LINE__)

static void test_contains(const char *text, const char *part, const char *file, int line) {
    int ok = text && strstr(text, part) != NULL;
    test_check(ok, "text contains part", file, line);
    if (!ok) printf("    \"%s\" does not contain \"%s\"\n", text ? text : "(null)", part);
}
#define check_contains(text, part) test_contains((text), (part), __FILE__, __LINE__)

/* The context has failed with this status and such a sentence; the failure is cleared. */
static void test_error(orl_ctx *c, orl_status status, const char *part, const char *file, int line) {
    test_check(orl_error_status(c) == status, "the status is the expected one", file, line);
    test_contains(orl_error(c), part, file, line);
    orl_clear_error(c);
}
#define expect_error(status, part) test_error(ctx, (status), (part), __FILE__, __LINE__)

static int test_report(const char *name) {
    printf("%s: %d passed, %d failed\n", name, test_passed, test_failed);
    return test_failed != 0;
}
#endif
