/* test_16_report.c - results as text and JSON, and the page: escaping, ticks, gaps, empty charts,
 * a page whose tags balance, and the table's text to the letter. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

/* What orli_put_… writes, in a buffer that the next call reuses. */
static const char *said(orli_str *s) {
    static char text[512];
    char *taken = orli_str_take(s);
    snprintf(text, sizeof text, "%s", taken ? taken : "(null)");
    orl_free(s->ctx, taken);
    return text;
}
#define check_said(s, expected) \
    do { \
        const char *got = said(s); \
        check(strcmp(got, expected) == 0); \
        if (strcmp(got, expected) != 0) printf("    \"%s\", expected \"%s\"\n", got, expected); \
    } while (0)

static void test_numbers(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx);
    const char *usual = setlocale(LC_NUMERIC, NULL);
    char before[64];
    snprintf(before, sizeof before, "%s", usual ? usual : "C");
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8")) setlocale(LC_NUMERIC, "de_DE"); /* a comma, where the machine has one */
    orli_put_number(&s, 'f', 2, 3.14159);
    check_said(&s, "3.14");
    setlocale(LC_NUMERIC, before);
    orli_put_number(&s, 'f', 1, -0.04);
    check_said(&s, "0.0");
    orli_put_number(&s, 'f', 1, -0.06);
    check_said(&s, "-0.1");
    orli_put_number(&s, 'g', 3, 0.00001234);
    check_said(&s, "1.23e-05");
    orli_put_number(&s, 'f', 0, 1e300); /* long, and still whole */
    check(strlen(said(&s)) == 301);
}

static void test_escaping(orl_ctx *ctx) {
    orli_str s = orli_str_new(ctx);
    orli_put_html(&s, "<b a=\"1\" c='2'>&amp; é\n\x01\xff</b>");
    check_said(&s, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp; é\n\xef\xbf\xbd\xef\xbf\xbd&lt;/b&gt;");
    check(orli_characters("a…é\xff") == 4);
}

/* The ticks of an axis over low … high, joined by spaces. */
static const char *ticks(orl_ctx *ctx, double low, double high, int logarithmic, int widen) {
    orli_str s = orli_str_new(ctx);
    orli_axis a = orli_axis_new(0, 100, logarithmic);
    int i;
    orli_axis_see(&a, low);
    orli_axis_see(&a, high);
    orli_axis_fit(&a, widen);
    for (i = 0; orli_finite(orli_axis_tick(&a, i)); i++) {
        if (i) orli_str_puts(&s, " ");
        orli_put_axis_tick(&s, &a, orli_axis_tick(&a, i));
    }
    return said(&s);
}

#define check_ticks(expected, low, high, logarithmic, widen) \
    do { \
        const char *got = ticks(ctx, low, high, logarithmic, widen); \
        check(strcmp(got, expected) == 0); \
        if (strcmp(got, expected) != 0) printf("    \"%s\", expected \"%s\"\n", got, expected); \
    } while (0)

static void test_ticks(orl_ctx *ctx) {
    check_ticks("0.2 0.4 0.6 0.8 1.0", 0.0001, 1, 0, 0);
    check_ticks("0 0.2 0.4 0.6 0.8 1.0", 0, 1, 0, 1);
    check_ticks("-0.4 -0.2 0 0.2 0.4 0.6 0.8", -0.27, 0.69, 0, 1);
    check_ticks("0 100 200 300 400", 0, 487, 0, 0);
    check_ticks("0 0.5M 1.0M 1.5M 2.0M 2.5M", 0, 2.3e6, 0, 1);
    check_ticks("0 5k 10k 15k 20k 25k", 0, 25000, 0, 0);
    check_ticks("0 2000 4000 6000 8000", 0, 9000, 0, 0);
    check_ticks("0 0.0005 0.0010 0.0015 0.0020", 0, 2e-3, 0, 0);
    check_ticks("0 5e-06 1e-05 1.5e-05 2e-05", 0, 2e-5, 0, 0);
    check_ticks("1.0 1.5 2.0 2.5 3.0", 2, 2, 0, 1);                    /* one value gets room around it */
    check_ticks("-1.0 -0.5 0 0.5 1.0", 0, 0, 0, 1);
    check_ticks("0 0.2 0.4 0.6 0.8 1.0", (double)NAN, (double)INFINITY, 0, 1); /* nothing to show */
    check_ticks("100G 1T 10T", 8e10, 2.3e13, 1, 0);
    check_ticks("100 1000 10k 100k 1M", 100, 1e6, 1, 0);
    check_ticks("200G 500G 1T", 2e11, 1.1e12, 1, 0);
    check_ticks("2 5", 3, 4, 1, 0);
    check_ticks("0.01 1 100 10k 1M 100M", 1e-3, 1e9, 1, 0);
}

/* Every tag of the page is closed in its turn; nothing may run, nothing may be fetched. */
static void check_page(const char *html) {
    char open[64][16];
    size_t depth = 0;
    const char *p;
    check(!strstr(html, "<script") && !strstr(html, "http:") && !strstr(html, "https:") && !strstr(html, "url("));
    check(!strstr(html, "nan") && !strstr(html, "NaN") && !strstr(html, "inf "));
    check(strncmp(html, "<!DOCTYPE html>", 15) == 0);
    for (p = strchr(html + 1, '<'); p; p = strchr(p, '<')) {
        int closing = p[1] == '/';
        const char *name = p + 1 + closing, *end = strchr(p, '>');
        size_t n = strcspn(name, " />\n");
        check(end != NULL && n > 0 && n < 16);
        if (!end || n >= 16) return;
        if (closing) {
            check(depth > 0 && strncmp(open[depth - 1], name, n) == 0 && !open[depth - 1][n]);
            if (depth) depth--;
        } else if (end[-1] != '/' && strncmp(name, "meta", 4) != 0) {
            check(depth < 64);
            if (depth == 64) return;
            memcpy(open[depth], name, n);
            open[depth++][n] = 0;
        }
        p = end;
    }
    check(depth == 0);
}

static char *read_page(const char *file) {
    static char text[1 << 18];
    FILE *f = fopen(file, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part)) n++;
    return n;
}

static orl_chart chart_of(const orl_series *series, size_t n) {
    orl_chart chart;
    memset(&chart, 0, sizeof chart);
    chart.title = "a <chart>";
    chart.x_label = "steps";
    chart.y_label = "loss & more";
    chart.series = series;
    chart.series_count = n;
    return chart;
}

static void test_page(orl_ctx *ctx, const char *file) {
    const double none = (double)NAN, x[6] = {0, 1, 2, 3, 4, 5}, y[6] = {3, 2, none, 1.5, 1.2, 1.1};
    const double low[6] = {2.5, 1.5, 1, 1, none, 1}, high[6] = {3.5, 2.5, 2, 2, 2, 1.3};
    const double blank[2] = {none, (double)INFINITY};
    const double *values[3];
    const size_t counts[3] = {6, 2, 0};
    const char *const names[3] = {"sft", "<empty>", "none at all"};
    const char *const cells[6] = {"method", "figure", "a & b", "1.5 ± 0.2", "<script>alert(1)</script>", "-3 %"};
    orl_series series[4];
    orl_chart chart;
    orl_report *report = orl_report_create(ctx, "Title <&>");
    char *page;
    memset(series, 0, sizeof series);
    series[0].name = "sft", series[0].x = x, series[0].y = y, series[0].n = 6;
    series[0].low = low, series[0].high = high;
    series[1] = series[0];
    series[1].name = "\"marks\"", series[1].marks = 1;
    series[2].name = "empty";
    series[3].name = "blank", series[3].x = blank, series[3].y = blank, series[3].n = 2;
    chart = chart_of(series, 4);
    chart.note = "a 'note'";
    orl_report_heading(report, "Heading");
    orl_report_text(report, "A paragraph with <tags> in it.");
    orl_report_chart(report, &chart);
    chart.log_x = 1; /* x = 0 has no place there */
    orl_report_chart(report, &chart);
    chart.log_x = 0, chart.diagonal = 1, chart.series_count = 1;
    orl_report_chart(report, &chart);
    chart.series = series + 2, chart.series_count = 2;
    orl_report_chart(report, &chart);
    chart.series = NULL, chart.series_count = 0;
    orl_report_chart(report, &chart);
    values[0] = y, values[1] = blank, values[2] = NULL;
    orl_report_histogram(report, "rewards", "reward", names, values, counts, 3, 10);
    orl_report_histogram(report, NULL, NULL, NULL, NULL, NULL, 0, 0);
    orl_report_table(report, "table", cells, 3, 2);
    orl_report_save(report, file);
    check(!orl_failed(ctx));
    page = read_page(file);
    check_page(page);
    check_contains(page, "<title>Title &lt;&amp;&gt;</title>");
    check_contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;");
    check_contains(page, "<td class=\"r\">1.5 ± 0.2</td>");
    check_contains(page, "loss &amp; more");
    check(count(page, ">no data</text>") == 3);
    check(count(page, ", no data</span>") == 2);
    check(count(page, "<circle") == 5 + 4);          /* the log axis has no place for x = 0 */
    check_contains(page, "y = x");
    orl_report_free(report);
    /* a page over a page: replaced as a whole */
    report = orl_report_create(ctx, "Second");
    orl_report_save(report, file);
    check_page(read_page(file));
    check_contains(read_page(file), "<h1>Second</h1>");
    remove(file);
    check(orl_report_save(report, "/no/such/place/page.html") == ORL_ERR_IO);
    check_contains(orl_error(ctx), "/no/such/place/page.html");
    orl_clear_error(ctx);
    check(orl_report_table(report, NULL, NULL, 0, 0) == ORL_ERR_ARGUMENT);
    check(orl_report_heading(report, "not after a failure") == ORL_ERR_ARGUMENT);
    orl_clear_error(ctx);
    check(orl_report_heading(NULL, "x") != ORL_OK && orl_report_save(NULL, "x") != ORL_OK);
    check(orl_report_chart(NULL, NULL) != ORL_OK && !orl_report_create(NULL, "x"));
    orl_report_free(report);
}

/* A line that NaN breaks is as many strokes as there are pieces; a lone point is a stroke of its own. */
static void test_gaps(orl_ctx *ctx) {
    const double none = (double)NAN, x[7] = {0, 1, 2, 3, 4, 5, 6}, y[7] = {0, 1, none, 1, none, 1, 0};
    orli_axis ax = orli_axis_new(0, 60, 0), ay = orli_axis_new(10, 0, 0);
    orli_str s = orli_str_new(ctx);
    orl_series series;
    size_t i;
    memset(&series, 0, sizeof series);
    series.x = x, series.y = y, series.n = 7;
    for (i = 0; i < 7; i++) orli_axis_see(&ax, x[i]), orli_axis_see(&ay, y[i]);
    orli_axis_fit(&ax, 0);
    orli_axis_fit(&ay, 1);
    orli_put_curve(&s, &ax, &ay, &series);
    check_said(&s, "<path class=\"l\" d=\"M0.0 10.0L0.0 10.0L10.0 0.0M30.0 0.0L30.0 0.0"
                   "M50.0 0.0L50.0 0.0L60.0 10.0\"/>");
}

static void test_labels(void) {
    orli_label label[3];
    int i;
    memset(label, 0, sizeof label);
    for (i = 0; i < 3; i++) label[i].point_y = label[i].y = 100 - i, label[i].width = 20;
    label[1].point_x = 50; /* beside the others: stays where it is */
    orli_spread_labels(label, 3, 110);
    check_near(label[0].y, 96, 0); /* makes room for the one that the bottom stopped */
    check_near(label[1].y, 99, 0);
    check_near(label[2].y, 110, 0);
}

static orl_result result_of(const char *method, double gold) {
    orl_result r;
    memset(&r, 0, sizeof r);
    snprintf(r.method, sizeof r.method, "%s", method);
    r.seed = 7, r.samples = 400, r.gold = gold, r.reward = -0.004;
    r.win_rate = 0.5, r.win_rate_lo = 0.45, r.win_rate_hi = 0.55;
    r.kl = 1.234, r.length = 23.45, r.distinct2 = 0.1234, r.truncated = 0.01;
    r.train_flops = 1.234e11, r.train_seconds = 12.34, r.train_tokens = 12345678901u;
    r.data_flops = r.data_seconds = (double)NAN;
    r.percent_of_ppo = 5.04, r.percent_of_ppo_total = (double)NAN;
    return r;
}

static void test_results(orl_ctx *ctx, const char *file) {
    static const char golden[] =
        "method         gold  reward  win %  95 % interval    KL  length  distinct2  cut %"
        "  train Mtok  train TFLOP  train s  % of PPO\n"
        "sft           0.123    0.00   50.0    45.0 … 55.0  1.23    23.4      0.123    1.0"
        "       12346        0.123     12.3       5.0\n"
        "décision <2>      -    0.00      -              -  1.23    23.4      0.123    1.0"
        "       12346         1234     12.3       5.0\n";
    static const char json[] =
        "{\"method\":\"sft\",\"seed\":7,\"gold\":0.123,\"reward\":-0.004,\"win_rate\":0.5,\"win_rate_lo\":0.45,"
        "\"win_rate_hi\":0.55,\"kl\":1.234,\"length\":23.45,\"distinct2\":0.1234,\"truncated\":0.01,\"samples\":400,"
        "\"train_tokens\":12345678901,\"train_flops\":123400000000,\"train_seconds\":12.34,\"data_flops\":null,"
        "\"data_seconds\":null,\"percent_of_ppo\":5.04,\"percent_of_ppo_total\":null}";
    orl_result r[2];
    orl_report *report;
    char *text;
    r[0] = result_of("sft", 0.123);
    r[1] = result_of("décision <2>", (double)NAN);
    r[1].win_rate = r[1].win_rate_lo = r[1].win_rate_hi = (double)NAN;
    r[1].train_flops = 1.234e15;
    text = orl_results_table(ctx, r, 2);
    check(text && strcmp(text, golden) == 0);
    if (text && strcmp(text, golden) != 0) printf("%s", text);
    orl_free(ctx, text);
    r[1].seed = 8; /* seeds that differ get their column */
    text = orl_results_table(ctx, r, 2);
    check_contains(text, "method        seed   gold");
    orl_free(ctx, text);
    text = orl_results_table(ctx, NULL, 0);
    check(text && strcmp(text, "method\n") == 0);
    orl_free(ctx, text);
    memset(r[1].method, 'x', sizeof r[1].method); /* a name without its zero */
    text = orl_results_table(ctx, r, 2);
    check(text && count(text, "x") == sizeof r[1].method);
    orl_free(ctx, text);
    text = orl_result_json(ctx, &r[1]);
    check(text && count(text, "x") == sizeof r[1].method);
    orl_free(ctx, text);
    text = orl_result_json(ctx, &r[0]);
    check(text && strcmp(text, json) == 0);
    if (text && strcmp(text, json) != 0) printf("    %s\n", text);
    orl_free(ctx, text);
    check(!orl_result_json(ctx, NULL) && !orl_results_table(NULL, r, 2));
    report = orl_report_create(ctx, "results");
    orl_report_results(report, r, 1);
    orl_report_results(report, NULL, 0);
    orl_report_save(report, file);
    check(!orl_failed(ctx));
    check_page(read_page(file));
    check_contains(read_page(file), "<td class=\"r\">45.0 … 55.0</td>");
    orl_report_free(report);
    remove(file);
}

/* Wherever memory runs out: an error, no page, no leak. */
static void test_memory(orl_ctx *ctx, const char *file) {
    const double x[3] = {1, 2, 3};
    const double *values[1];
    const size_t counts[1] = {3};
    const char *const names[1] = {"values"};
    orl_result r = result_of("sft", 0.5);
    orl_series series;
    orl_chart chart;
    size_t held = orl_memory_now(ctx), room, failures = 0;
    memset(&series, 0, sizeof series);
    series.name = "line", series.x = x, series.y = x, series.n = 3;
    chart = chart_of(&series, 1);
    values[0] = x;
    for (room = 64; room < 1000000 && (room == 64 || failures); room += room / 4) {
        orl_report *report;
        ctx->config.memory_limit = held + room;
        report = orl_report_create(ctx, "short of memory");
        orl_report_results(report, &r, 1);
        orl_report_chart(report, &chart);
        orl_report_histogram(report, "values", "x", names, values, counts, 1, 9);
        orl_report_save(report, file);
        failures = orl_failed(ctx) != 0;
        if (failures) check(orl_error_status(ctx) == ORL_ERR_MEMORY && !orli_exists(file));
        orl_clear_error(ctx);
        orl_report_free(report);
        check(orl_memory_now(ctx) == held);
    }
    check(!failures && room > 1000); /* at last there was enough */
    ctx->config.memory_limit = 0;
    remove(file);
}

int main(void) {
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    char file[64];
    config.threads = 1;
    ctx = orl_create(&config);
    snprintf(file, sizeof file, "/tmp/orl_report_%ld.html", (long)getpid());
    test_numbers(ctx);
    test_escaping(ctx);
    test_ticks(ctx);
    test_gaps(ctx);
    test_labels();
    test_page(ctx, file);
    test_results(ctx, file);
    test_memory(ctx, file);
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    return test_report("test_16_report");
}
