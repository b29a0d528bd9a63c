/* test_15_rlhf.c - section 15: r̂, filter, weight, condition and their compositions, targets, scores and
 * their statistics, PPO's pieces by hand, evaluation. What the methods converge to is in
 * test_closed_form.c, their numbers against an independent implementation in test_golden.c. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "files.h"
#include <locale.h>

static orl_ctx *ctx;
static char notes[4000]; /* all since the last clearing */

static void take_note(void *user, const char *sentence) {
    size_t n = strlen(notes);
    (void)user;
    snprintf(notes + n, sizeof notes - n, "%s\n", sentence);
}

/* n rows with these rewards; rows of prompt[i] belong together. Each prompt is one id, so is each response. */
static orl_dataset *rewarded(const double *reward, const int *prompt, size_t n) {
    orli_str s = orli_str_new(ctx);
    orl_dataset *d;
    size_t i;
    for (i = 0; i < n; i++) {
        orli_str_printf(&s, "{\"prompt_ids\": [%d], \"completion_ids\": [%d], \"reward\": ", prompt ? prompt[i] + 1 : 1, (int)(i % 5) + 1);
        orli_json_put_double(&s, reward[i]);
        orli_str_puts(&s, "}\n");
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "rewards");
    orli_str_free(&s);
    return d;
}

/* The lines of the rows that are left, as a string of letters: a is the first. */
static const char *left(orl_dataset *d) {
    static char text[64];
    size_t i, n = orl_dataset_count(d);
    for (i = 0; i < n && i < 63; i++) text[i] = (char)('a' + (int)orl_dataset_row(d, i)->line - 1);
    text[i] = 0;
    return text;
}

static void check_left(orl_dataset *d, const char *want, int line) {
    int ok = d && strcmp(left(d), want) == 0;
    double sum = 0;
    size_t i;
    test_check(ok, "these rows are left", __FILE__, line);
    if (!ok) printf("    line %d: %s, not %s (%s)\n", line, d ? left(d) : "none", want, orl_error(ctx));
    for (i = 0; i < orl_dataset_count(d); i++) sum += orl_dataset_row(d, i)->weight;
    if (d) test_near(sum / (double)orl_dataset_count(d), 1, 1e-12, "mean weight is 1", __FILE__, line);
    orl_dataset_free(d);
}
#define check_filter(d, want) check_left(d, want, __LINE__)

/* ---- r̂ ---- */

static void test_normalise(void) {
    static const double r[] = {1, 2, 3, 4, 10};
    static const double huge[] = {1e9, 1e9 + 1, 1e9 + 2};
    static const double same[] = {0.1, 0.1, 0.1};
    orl_dataset *d = rewarded(r, NULL, 5);
    double mean = 0, square = 0, sd = sqrt(10.0);
    size_t i;
    check(orl_normalise(d) == ORL_OK);
    for (i = 0; i < 5; i++) {
        const orl_row *row = orl_dataset_row(d, i);
        check_near(row->reward, (r[i] - 4) / sd, 1e-14);
        check(row->reward_raw == r[i]);
        mean += row->reward / 5, square += row->reward * row->reward / 5;
    }
    check_near(mean, 0, 1e-14);
    check_near(square, 1, 1e-14); /* the population's */
    check(orl_normalise(d) == ORL_OK); /* twice is once */
    check_near(orl_dataset_row(d, 4)->reward, 6 / sd, 1e-14);
    orl_dataset_free(d);
    d = rewarded(huge, NULL, 3);
    check(orl_normalise(d) == ORL_OK);
    check_near(orl_dataset_row(d, 2)->reward, sqrt(1.5), 1e-9);
    orl_dataset_free(d);
    d = rewarded(same, NULL, 3);
    check(orl_normalise(d) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "equal");
    orl_dataset_free(d);
    d = rewarded(same, NULL, 1);
    check(orl_normalise(d) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "equal");
    orl_dataset_free(d);
}

/* ---- filters ---- */

static void test_filters(void) {
    static const double r[] = {0, 1, 2, 3, 4};
    static const double ties[] = {2, 5, 5, 1, 5, 0, 5};
    static const int two[] = {0, 0, 0, 0, 0, 1, 1};
    static const int mixed[] = {0, 1, 0, 1, 0, 1, 0};
    orl_dataset *d = rewarded(r, NULL, 5);
    double z3 = 1 / sqrt(2.0);
    notes[0] = 0;
    check_filter(orl_filter(d, ORL_ABOVE, 0), "de"); /* strictly: r̂ = 0 goes */
    check_contains(notes, "keeps 2 of 5 rows, of 1 prompts of 1");
    check_filter(orl_filter(d, ORL_ABOVE, -1e-9), "cde");
    check_filter(orl_filter(d, ORL_ABOVE, z3), "e");
    check_filter(orl_filter(d, ORL_ABOVE, -HUGE_VAL), "abcde");
    check_filter(orl_filter(d, ORL_ABOVE_QUANTILE, 0), "bcde");
    check_filter(orl_filter(d, ORL_ABOVE_QUANTILE, 0.25), "cde"); /* the 0.25-quantile of five is the second */
    check_filter(orl_filter(d, ORL_ABOVE_QUANTILE, 0.5), "de");
    check_filter(orl_filter(d, ORL_ABOVE_QUANTILE, 0.7), "de"); /* between the third and the fourth */
    check_filter(orl_filter(d, ORL_ABOVE_QUANTILE, 0.75), "e");
    check(!orl_filter(d, ORL_ABOVE_QUANTILE, 1)), expect_error(ORL_ERR_DATA, "keeps none");
    check(!orl_filter(d, ORL_ABOVE_QUANTILE, 1.1)), expect_error(ORL_ERR_ARGUMENT, "quantile");
    check(!orl_filter(d, ORL_TOP_K, 0)), expect_error(ORL_ERR_ARGUMENT, "at least 1");
    orl_dataset_free(d);
    d = rewarded(ties, two, 7);
    check_filter(orl_filter(d, ORL_TOP_K, 1), "bg"); /* the first wins a tie */
    check_filter(orl_filter(d, ORL_TOP_K, 2), "bcfg");
    check_filter(orl_filter(d, ORL_TOP_K, 4), "abcefg");
    check_filter(orl_filter(d, ORL_TOP_K, 100), "abcdefg");
    check_filter(orl_filter(d, ORL_BEST_OF, 2), "bceg"); /* ab, cd, e; fg */
    check_filter(orl_filter(d, ORL_BEST_OF, 3), "beg");  /* abc, de; fg */
    check_filter(orl_filter(d, ORL_BEST_OF, 1), "abcdefg");
    check_filter(orl_filter(d, ORL_BEST_OF, 100), "bg");
    orl_dataset_free(d);
    d = rewarded(ties, mixed, 7); /* prompts that take turns: a c e g and b d f */
    check_filter(orl_filter(d, ORL_BEST_OF, 2), "bcef"); /* ac, eg; bd, f: rows stay in order */
    check_filter(orl_filter(d, ORL_TOP_K, 1), "bc");
    orl_dataset_free(d);
}

/* ---- weights ---- */

static void test_weights(void) {
    static const double r[] = {-1, 0, 1, 5};
    static const int prompt[] = {0, 0, 1, 1};
    orl_dataset *d = rewarded(r, prompt, 4), *w;
    double mean = 1.25, sd = 0, z[4], raw[4], sum, square, baseline;
    size_t i;
    int kind;
    for (i = 0; i < 4; i++) sd += (r[i] - mean) * (r[i] - mean) / 4;
    for (i = 0, sd = sqrt(sd); i < 4; i++) z[i] = (r[i] - mean) / sd;
    for (kind = ORL_BASELINE_NONE; kind <= ORL_BASELINE_PROMPT; kind++) {
        notes[0] = 0;
        w = orl_weight(d, 0.8, (orl_baseline)kind, 3);
        for (i = 0, sum = square = 0; i < 4; i++) {
            baseline = kind == ORL_BASELINE_PROMPT ? (z[i / 2 * 2] + z[i / 2 * 2 + 1]) / 2 : 0;
            raw[i] = fmin(exp((z[i] - baseline) / 0.8), 3);
            sum += raw[i], square += raw[i] * raw[i];
        }
        for (i = 0; i < 4; i++) check_near(orl_dataset_row(w, i)->weight, raw[i] * 4 / sum, 1e-12);
        { /* (Σw)²/Σw² is said */
            char want[80];
            snprintf(want, sizeof want, "effective sample size %.1f %% of 4 rows", 100 * sum * sum / square / 4);
            check_contains(notes, want);
        }
        orl_dataset_free(w);
    }
    w = orl_weight(d, 1e9, ORL_BASELINE_MEAN, 20); /* β → ∞ is SFT */
    for (i = 0; i < 4; i++) check_near(orl_dataset_row(w, i)->weight, 1, 1e-6);
    orl_dataset_free(w);
    w = orl_weight(d, 1e-4, ORL_BASELINE_MEAN, 20); /* β → 0 with the clip is filtering at b = 0 */
    for (i = 0; i < 4; i++) check_near(orl_dataset_row(w, i)->weight, z[i] > 0 ? 4 : 0, 1e-12); /* one row is above the mean */
    orl_dataset_free(w);
    w = orl_weight(d, 1e-4, ORL_BASELINE_PROMPT, HUGE_VAL); /* without it, the best samples alone; nothing overflows */
    check_near(orl_dataset_row(w, 3)->weight, 4, 1e-9);
    orl_dataset_free(w);
    orl_dataset_free(d);
    { /* few rows do all the pulling: said */
        double many[40];
        for (i = 0; i < 40; i++) many[i] = i ? 0.001 * (double)i : 3;
        d = rewarded(many, NULL, 40);
        notes[0] = 0;
        w = orl_weight(d, 0.3, ORL_BASELINE_NONE, 1e9);
        check_contains(notes, "raise");
        orl_dataset_free(w), orl_dataset_free(d);
    }
}

/* ---- conditions ---- */

static const char *spoken(const orli_condition *c, double x) {
    static char text[200];
    orli_str s = orli_str_new(ctx);
    orli_condition_text(c, x, &s);
    snprintf(text, sizeof text, "%s", s.data ? s.data : "");
    orli_str_free(&s);
    return text;
}
#define check_spoken(c, x, want) check(strcmp(spoken(c, x), want) == 0)

static void test_condition_text(void) {
    static const char *const comma[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "es_ES.UTF-8"};
    orli_condition c;
    size_t i;
    int found = 0;
    memset(&c, 0, sizeof c);
    c.kind = ORL_CONDITION_TEXT, c.decimals = 1;
    snprintf(c.format, sizeof c.format, "%s", orl_condition_default(ORL_CONDITION_TEXT).format);
    check_spoken(&c, 1.26, " <rm_score>: 1.3 ");
    check_spoken(&c, -0.04, " <rm_score>: 0.0 ");
    check_spoken(&c, -0.0, " <rm_score>: 0.0 ");
    check_spoken(&c, -0.06, " <rm_score>: -0.1 ");
    check_spoken(&c, 5, " <rm_score>: 5.0 ");
    check_spoken(&c, -12.34, " <rm_score>: -12.3 ");
    c.decimals = 2;
    check_spoken(&c, -0.004, " <rm_score>: 0.00 ");
    check_spoken(&c, 0.125, " <rm_score>: 0.12 ");
    c.decimals = 0;
    check_spoken(&c, -0.4, " <rm_score>: 0 ");
    snprintf(c.format, sizeof c.format, "[%%s{reward}%%n]"); /* no format string of C's */
    check_spoken(&c, 2, "[%s2%n]");
    snprintf(c.format, sizeof c.format, "{reward}"), c.decimals = 2;
    for (i = 0; i < sizeof comma / sizeof *comma && !found; i++) found = setlocale(LC_NUMERIC, comma[i]) != NULL;
    check_spoken(&c, -1.5, "-1.50");
    setlocale(LC_NUMERIC, "C");
    if (!found) printf("skipped: no locale with a decimal comma is installed\n");
}

/* Bins hold equal shares of the rewards the model was trained on. */
static void test_condition_bins(void) {
    orl_condition_options o = orl_condition_default(ORL_CONDITION_BINS);
    orli_condition c;
    double r[1000];
    size_t count[10] = {0}, last = 0, i;
    orl_dataset *d, *v;
    memset(&c, 0, sizeof c);
    c.kind = ORL_CONDITION_BINS, c.bins = 4;
    for (i = 0; i <= 100; i++) c.quantile[i] = (double)i;
    check(orli_condition_bin(&c, 0) == 0 && orli_condition_bin(&c, 24.999) == 0 && orli_condition_bin(&c, 25) == 1 && orli_condition_bin(&c, 49.999) == 1);
    check(orli_condition_bin(&c, 50) == 2 && orli_condition_bin(&c, 99.9) == 3 && orli_condition_bin(&c, 100) == 3);
    check(orli_condition_bin(&c, -5) == 0 && orli_condition_bin(&c, -1e300) == 0 && orli_condition_bin(&c, 1e300) == 3);
    check(orli_condition_bin(&c, (double)NAN) < 4);
    for (i = 40; i <= 80; i++) c.quantile[i] = 40; /* two fifths of the rewards are equal: one bin, and order stays */
    check(orli_condition_bin(&c, 39.9) == 1 && orli_condition_bin(&c, 40) == 3 && orli_condition_bin(&c, 80.5) == 3);
    for (i = 0; i < 1000; i++) r[i] = exp(3 * sin(12.9898 * (double)i)); /* skewed */
    d = rewarded(r, NULL, 1000);
    o.bins = 10;
    v = orl_condition(d, &o);
    for (i = 0; i < 1000; i++) count[orli_condition_bin(&v->condition, orl_dataset_row(v, i)->condition)]++;
    for (i = 0; i < 10; i++) check(count[i] >= 95 && count[i] <= 105);
    for (i = 0; i < 1000; i++) { /* the bin rises with the reward */
        size_t bin = orli_condition_bin(&v->condition, v->labels->sorted[i]);
        check(bin >= last);
        last = bin;
    }
    orl_dataset_free(v), orl_dataset_free(d);
}

static void test_condition(void) {
    static const double r[] = {0, 1, 2, 3, 4, 7, 7, 6};
    static const int prompt[] = {0, 0, 0, 0, 0, 1, 1, 1};
    orl_dataset *d = rewarded(r, prompt, 8), *v;
    orl_condition_options o = orl_condition_default(ORL_CONDITION_BINS);
    static const double rank[] = {-2.4, -1.2, 0, 1.2, 2.4, 1, 1, -2};
    size_t i;
    orl_normalise(d);
    v = orl_condition(d, &o);
    for (i = 0; i < 8; i++) check_near(orl_dataset_row(v, i)->condition, orl_dataset_row(d, i)->reward, 1e-14);
    for (i = 0; i < 8; i++) check((orl_dataset_row(v, i)->flags & ORL_CONDITIONED) && !(orl_dataset_row(d, i)->flags & ORL_CONDITIONED)); /* a view */
    check_near(v->condition.quantile[0], orl_dataset_row(d, 0)->reward, 1e-14);
    check_near(v->condition.quantile[100], orl_dataset_row(d, 5)->reward, 1e-14);
    check_near(v->condition.mean, 3.75, 1e-14);
    check(v->condition.bins == o.bins && v->dropout == o.dropout);
    orl_dataset_free(v);
    o.rank_per_prompt = 1;
    v = orl_condition(d, &o);
    for (i = 0; i < 8; i++) check_near(orl_dataset_row(v, i)->condition, rank[i], 1e-12); /* equals share a rank */
    orl_dataset_free(v);
    o.bins = 1, check(!orl_condition(d, &o)), expect_error(ORL_ERR_ARGUMENT, "bins");
    o = orl_condition_default(ORL_CONDITION_TEXT);
    o.format = " score ", check(!orl_condition(d, &o)), expect_error(ORL_ERR_ARGUMENT, "{reward}");
    o = orl_condition_default(ORL_CONDITION_TEXT);
    o.decimals = -1, check(!orl_condition(d, &o)), expect_error(ORL_ERR_ARGUMENT, "decimals");
    o = orl_condition_default(ORL_CONDITION_NONE);
    check(!orl_condition(d, &o)), expect_error(ORL_ERR_ARGUMENT, "kind");
    o = orl_condition_default(ORL_CONDITION_BINS);
    o.dropout = 1, check(!orl_condition(d, &o)), expect_error(ORL_ERR_ARGUMENT, "dropout");
    orl_dataset_free(d);
}

/* Filter, weight and condition in any order: the same rows, weights and conditions, from the whole set. */
static void test_compositions(void) {
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    orl_condition_options o = orl_condition_default(ORL_CONDITION_BINS);
    double r[20], sum = 0, mean = 0, square = 0;
    orl_dataset *d, *v, *next;
    size_t i, k, step, kept = 0;
    for (i = 0; i < 20; i++) r[i] = sin(3.7 * (double)i) + 0.05 * (double)i, mean += r[i] / 20;
    for (i = 0; i < 20; i++) square += (r[i] - mean) * (r[i] - mean) / 20;
    for (i = 0; i < 20; i++) {
        double z = (r[i] - mean) / sqrt(square);
        if (z > 0.3) sum += exp(z / 0.5), kept++;
    }
    d = rewarded(r, NULL, 20);
    for (k = 0; k < 6; k++) {
        v = orl_dataset_view(d, 0, 20);
        for (step = 0; step < 3; step++) {
            if (orders[k][step] == 0) next = orl_filter(v, ORL_ABOVE, 0.3);
            else if (orders[k][step] == 1) next = orl_weight(v, 0.5, ORL_BASELINE_MEAN, 1e9);
            else next = orl_condition(v, &o);
            orl_dataset_free(v);
            v = next;
        }
        check(orl_dataset_count(v) == kept && kept > 3 && kept < 12);
        check(v->condition.kind == ORL_CONDITION_BINS && v->dropout == o.dropout); /* a filter after it keeps it */
        for (i = 0; i < orl_dataset_count(v); i++) {
            const orl_row *row = orl_dataset_row(v, i);
            double z = (r[row->line - 1] - mean) / sqrt(square);
            check_near(row->condition, z, 1e-12);
            check_near(row->weight, exp(z / 0.5) * (double)kept / sum, 1e-10);
        }
        check_near(v->condition.quantile[0], (-1e9 < 0 ? v->labels->sorted[0] : 0), 0); /* of all twenty */
        check(v->labels->count == 20);
        orl_dataset_free(v);
    }
    { /* what is told by the prompt knows all its samples too, whatever a filter left of them */
        static const int prompts[20] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3};
        orl_dataset *g = rewarded(r, prompts, 20), *all = orl_weight(g, 0.5, ORL_BASELINE_PROMPT, 1e9), *few = orl_filter(g, ORL_ABOVE, 0.3), *w;
        double left = 0;
        o.rank_per_prompt = 1;
        w = orl_weight(few, 0.5, ORL_BASELINE_PROMPT, 1e9);
        v = orl_condition(few, &o), next = orl_condition(g, &o);
        check(orl_dataset_count(v) == kept && orl_dataset_count(w) == kept);
        for (i = 0; i < kept; i++) left += orl_dataset_row(all, orl_dataset_row(w, i)->line - 1)->weight / (double)kept;
        for (i = 0; i < kept; i++) {
            size_t row = orl_dataset_row(v, i)->line - 1;
            check_near(orl_dataset_row(v, i)->condition, orl_dataset_row(next, row)->condition, 1e-12);
            check_near(orl_dataset_row(w, i)->weight, orl_dataset_row(all, row)->weight / left, 1e-10);
        }
        orl_dataset_free(g), orl_dataset_free(all), orl_dataset_free(few), orl_dataset_free(w), orl_dataset_free(v), orl_dataset_free(next);
        o.rank_per_prompt = 0;
    }
    v = orl_condition(d, &o);
    check(!orl_dataset_join(v, d)), expect_error(ORL_ERR_ARGUMENT, "join first");
    orl_dataset_free(v);
    orl_dataset_free(d);
}

/* ---- conditioned models ---- */

static orl_model *make_model(orl_tokenizer *tok) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.vocab = tok ? orl_vocab(tok) : 9, c.dim = 16, c.heads = 2, c.kv_heads = 1, c.layers = 2, c.ffn = 24, c.context = 64;
    c.eos = 0;
    return orl_model_create(ctx, &c, tok);
}

static void test_targets(orl_condition_kind kind) {
    static const char *const specials[] = {"<eos>", NULL};
    orl_tokenizer *tok = kind == ORL_CONDITION_TEXT ? orl_tokenizer_train(ctx, "abc", 3, 257, specials) : NULL;
    orl_model *m = make_model(tok), *back;
    double r[40], target, z99;
    orl_dataset *d, *v, *s;
    orl_condition_options c = orl_condition_default(kind);
    orl_train_options o = orl_train_default();
    orl_generate_options g = orl_generate_default();
    size_t i;
    for (i = 0; i < 40; i++) r[i] = (double)i;
    d = rewarded(r, NULL, 40);
    check(orl_model_condition(m, 0.5, &target) == ORL_CONDITION_NONE && target != target);
    g.target = ORL_TARGET_VALUE;
    check(!orl_sample(m, d, &g)), expect_error(ORL_ERR_ARGUMENT, "condition");
    v = orl_condition(d, &c);
    o.steps = 2;
    check(orl_train(m, v, &o) == ORL_OK);
    z99 = orli_quantile(v->labels->sorted, 40, 0.99);
    check(orl_model_condition(m, 0, &target) == kind);
    check_near(target, v->labels->sorted[0], 1e-14);
    orl_model_condition(m, 0.5, &target);
    check_near(target, 0, 1e-12);
    snprintf(notes, sizeof notes, "%s", in_dir(kind == ORL_CONDITION_TEXT ? "text" : "bins"));
    check(orl_model_save(m, notes) == ORL_OK);
    back = orl_model_load(ctx, notes);
    check(back && memcmp(&back->condition, &m->condition, sizeof m->condition) == 0);
    check(back && back->classes == m->classes && back->config.vocab == m->config.vocab);
    { /* it survives being copied, too */
        orl_model *copy = orl_model_copy(back);
        check(orl_model_condition(copy, 0.99, &target) == kind);
        orl_model_free(copy);
    }
    g.max_tokens = 3;
    g.target = ORL_TARGET_DEFAULT; /* is applied unless told otherwise */
    notes[0] = 0;
    s = orl_sample(back, d, &g);
    check(s && (orl_dataset_row(s, 0)->flags & ORL_CONDITIONED));
    check_near(orl_dataset_row(s, 0)->condition, z99, 1e-12);
    check(!notes[0]);
    for (i = 0; i < orl_dataset_count(s); i++) { /* condition tokens are never said */
        const orl_row *row = orl_dataset_row(s, i);
        size_t t;
        for (t = 0; t < row->tokens; t++) check((size_t)row->response.ids[t] < back->classes);
    }
    { /* and the log-probabilities are those of what was said, told the same */
        double *said = (double *)calloc(40, sizeof *said);
        for (i = 0; said && i < 40; i++) said[i] = orl_dataset_row(s, i)->logp;
        check(orl_logprob(back, s, NULL, NULL) == ORL_OK);
        for (i = 0; said && i < 40; i++) check_near(orl_dataset_row(s, i)->logp, said[i], 1e-4);
        free(said);
    }
    orl_dataset_free(s);
    g.target = ORL_TARGET_NONE;
    s = orl_sample(back, d, &g);
    check(s && !(orl_dataset_row(s, 0)->flags & ORL_CONDITIONED));
    orl_dataset_free(s);
    g.target = ORL_TARGET_QUANTILE, g.target_value = 0.5;
    s = orl_sample(back, d, &g);
    check_near(orl_dataset_row(s, 0)->condition, 0, 1e-12);
    orl_dataset_free(s);
    g.target_value = 1.5;
    check(!orl_sample(back, d, &g)), expect_error(ORL_ERR_ARGUMENT, "quantile");
    g.target = ORL_TARGET_VALUE, g.target_value = 5; /* far outside: clamped, and said */
    notes[0] = 0;
    s = orl_sample(back, d, &g);
    check_near(orl_dataset_row(s, 0)->condition, v->labels->sorted[39], 1e-12);
    check_contains(notes, "clamped");
    orl_dataset_free(s);
    g.target_value = 1, notes[0] = 0;
    s = orl_sample(back, d, &g);
    check_near(orl_dataset_row(s, 0)->condition, 1, 0);
    check(!notes[0]);
    orl_dataset_free(s);
    g.target_value = (double)NAN;
    check(!orl_sample(back, d, &g)), expect_error(ORL_ERR_ARGUMENT, "not a number");
    g.target_value = 1, g.guidance = 1;
    s = orl_sample(back, d, &g);
    check(orl_dataset_count(s) == 40);
    orl_dataset_free(s);
    if (kind == ORL_CONDITION_BINS) { /* another number of bins does not fit this model */
        orl_dataset_free(v);
        c.bins = 5, v = orl_condition(d, &c);
        check(orl_train(back, v, &o) == ORL_ERR_MISMATCH), expect_error(ORL_ERR_MISMATCH, "bins");
    } else { /* no tokenizer, no text */
        orl_model *bare = make_model(NULL);
        check(orl_train(bare, v, &o) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "tokenizer");
        orl_model_free(bare);
    }
    orl_model_free(m), orl_model_free(back);
    orl_dataset_free(v), orl_dataset_free(d);
    orl_tokenizer_free(tok);
}

/* ---- reward models ---- */

static orl_dataset *some_pairs(size_t n, uint64_t seed) {
    orli_str s = orli_str_new(ctx);
    orli_rng r = orli_rng_new(seed, 0);
    orl_dataset *d;
    size_t i, side, t, k;
    for (i = 0; i < n; i++) {
        orli_str_printf(&s, "{\"prompt_ids\": [%d, %d]", (int)(i % 4) + 1, (int)(i % 3) + 1);
        for (side = 0; side < 2; side++) {
            orli_str_printf(&s, ", \"%s\": [%d", side ? "rejected_ids" : "chosen_ids", side ? 5 : 6);
            for (t = 0, k = orli_rng_below(&r, 6); t < k; t++) orli_str_printf(&s, ", %d", 1 + (int)orli_rng_below(&r, 8));
            orli_str_puts(&s, ", 0]");
        }
        orli_str_puts(&s, "}\n");
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "pairs");
    orli_str_free(&s);
    return d;
}

static void test_reward_model(void) {
    orl_model *trunk = make_model(NULL), *rm = orl_reward_model(trunk), *back;
    orl_dataset *pairs = some_pairs(40, 1), *rows[2];
    orl_train_options o = orl_train_default();
    orl_accuracy a;
    double mean = 0, square = 0;
    size_t i, side;
    check(!orl_is_reward_model(trunk) && orl_is_reward_model(rm));
    { /* the head is N(0, 1/(H + 1)) */
        const orl_param *head = orli_model_weight(rm, ORLI_W_SCORE, 0);
        for (i = 0; i < 16; i++) square += (double)head->data[i] * (double)head->data[i] / 16;
        check(square > 0.2 / 17 && square < 3.0 / 17);
    }
    o.steps = 60, o.batch = 20, o.lr = 3e-3;
    check(orl_train_reward(rm, pairs, &o) == ORL_OK);
    check(orl_score(rm, pairs) == ORL_OK);
    for (i = 0, square = 0; i < 40; i++) {
        const orl_row *r = orl_dataset_row(pairs, i);
        mean += (r->reward + r->rejected_reward) / 80, square += (r->reward * r->reward + r->rejected_reward * r->rejected_reward) / 80;
        check_near(r->reward, (r->reward_raw - rm->reward_mean) / rm->reward_sd, 1e-12);
    }
    check_near(mean, 0, 1e-9); /* over both sides of what it was trained on */
    check_near(square, 1, 1e-9);
    check(orl_pair_accuracy(pairs, &a) == ORL_OK && a.pairs == 40);
    check(a.accuracy > 0.9); /* 6 against 5 */
    check_near(a.margin, a.mean_chosen - a.mean_rejected, 1e-12);
    check(orl_model_save(rm, in_dir("rm")) == ORL_OK);
    back = orl_model_load(ctx, in_dir("rm"));
    check(orl_is_reward_model(back) && back->reward_mean == rm->reward_mean && back->reward_sd == rm->reward_sd);
    for (side = 0; side < 2; side++) { /* each side as a row of its own: the same as with the prompt shared, to the bit */
        orli_str s = orli_str_new(ctx);
        for (i = 0; i < 40; i++) {
            const orl_row *r = orl_dataset_row(pairs, i);
            const orl_text *t = side ? &r->rejected : &r->response;
            size_t k;
            orli_str_printf(&s, "{\"prompt_ids\": [%d, %d], \"completion_ids\": [", (int)r->prompt.ids[0], (int)r->prompt.ids[1]);
            for (k = 0; k < t->tokens; k++) orli_str_printf(&s, k ? ", %d" : "%d", (int)t->ids[k]);
            orli_str_puts(&s, "]}\n");
        }
        rows[side] = orl_dataset_parse(ctx, s.data, s.length, "sides");
        check(orl_score(back, rows[side]) == ORL_OK);
        for (i = 0; i < 40; i++) {
            const orl_row *r = orl_dataset_row(pairs, i);
            check(orl_dataset_row(rows[side], i)->reward_raw == (side ? r->rejected_reward_raw : r->reward_raw));
        }
        orli_str_free(&s);
        orl_dataset_free(rows[side]);
    }
    orl_model_free(rm), orl_model_free(back);
    rm = orl_reward_model(trunk); /* all scores equal: said, not divided by */
    memset(orli_model_weight(rm, ORLI_W_SCORE, 0)->data, 0, 16 * sizeof(orl_real));
    o.steps = 1, o.lr = 1e-300;
    check(orl_train_reward(rm, pairs, &o) == ORL_ERR_DATA), expect_error(ORL_ERR_DATA, "same score");
    orl_model_free(rm), orl_model_free(trunk);
    orl_dataset_free(pairs);
}

static void test_pair_accuracy(void) {
    orl_dataset *d = orl_dataset_create(ctx);
    orl_accuracy a;
    size_t i;
    for (i = 0; i < 10; i++) { /* 7 right, 2 wrong, a tie */
        orl_row *r;
        orl_dataset_add_pair(d, "p", "c", "j");
        r = orl_dataset_row(d, i);
        r->flags |= ORL_LABELLED;
        r->reward = r->reward_raw = i < 7 ? 1.0 + 0.1 * (double)i : i < 9 ? -0.5 : 0;
        r->rejected_reward = r->rejected_reward_raw = 0;
    }
    check(orl_pair_accuracy(d, &a) == ORL_OK);
    check(a.pairs == 10);
    check_near(a.accuracy, 0.75, 1e-15);
    check_near(a.low, 0.442181424, 1e-9); /* Wilson's interval of 7.5 of 10 */
    check_near(a.high, 0.919052176, 1e-9);
    check_near(a.mean_chosen, (7 + 2.1 - 1) / 10, 1e-12);
    check_near(a.mean_rejected, 0, 0);
    check_near(a.margin, 0.81, 1e-12);
    check_near(a.sd_chosen, sqrt((1 + 1.21 + 1.44 + 1.69 + 1.96 + 2.25 + 2.56 + 0.5) / 10 - 0.81 * 0.81), 1e-12);
    check_near(a.calibration[0], 0.5, 0);  /* the tie: σ(0) = ½ */
    check_near(a.calibration[2], 0, 0);    /* σ(0.5) = 0.62, both wrong */
    check_near(a.calibration[4], 1, 0);    /* σ(1) = 0.73 */
    check(a.calibration[9] != a.calibration[9]);
    orl_dataset_free(d);
}

/* ---- PPO's pieces ---- */

static void test_gae(void) {
    static const double reward[] = {0.1, -0.2, 1.0};
    static const orl_real value[] = {(orl_real)0.5, (orl_real)0.25, (orl_real)-0.125};
    orl_real advantage[3], target[3], x[4] = {1, 2, 3, 6};
    double gamma = 0.9, lambda = 0.8, delta[3], a;
    size_t t;
    delta[2] = 1.0 + 0.125, delta[1] = -0.2 + gamma * -0.125 - 0.25, delta[0] = 0.1 + gamma * 0.25 - 0.5;
    orli_gae(reward, value, 3, gamma, lambda, advantage, target);
    for (t = 3, a = 0; t-- > 0;) {
        a = delta[t] + gamma * lambda * a;
        check_near(advantage[t], a, 1e-6);
        check_near(target[t], a + (double)value[t], 1e-6);
    }
    orli_gae(reward, value, 3, 1, 1, advantage, target); /* λ = γ = 1: what is still to come */
    check_near(target[0], 0.9, 1e-6);
    check_near(target[1], 0.8, 1e-6);
    check_near(target[2], 1.0, 1e-6);
    orli_whiten(x, 4);
    check_near(x[0], -2 / sqrt(3.5), 1e-6);
    check_near(x[3], 3 / sqrt(3.5), 1e-6);
    x[0] = x[1] = x[2] = x[3] = 5; /* nothing to tell apart */
    orli_whiten(x, 4);
    check(x[0] == 0);
}

static void test_ppo_losses(void) {
    static const orl_real logp[] = {(orl_real)-1, (orl_real)-1, (orl_real)-1, (orl_real)-1, (orl_real)30};
    static const orl_real old[] = {(orl_real)-1, (orl_real)-2, (orl_real)-2, (orl_real)-0.5, (orl_real)-30};
    static const orl_real adv[] = {2, 1, -1, -1, -1};
    static const orl_real v[] = {1, 2, 0}, v_old[] = {(orl_real)1.05, 1, 1}, ret[] = {2, 3, 0};
    orl_tape *tape = orl_tape_create(ctx);
    orl_tensor *ratio, *loss, *x;
    double want;
    /* ρ = 1; e clipped to 1.3; e, not clipped as A < 0; e^−½ clipped to 0.8; e^20 */
    want = -(2 + 1.3 - exp(1.0) - 0.8 - exp(20.0));
    x = orl_variable(tape, logp, 5, 1);
    loss = orli_loss_ppo(tape, x, orl_constant(tape, old, 5, 1), orl_constant(tape, adv, 5, 1), 0.2, 0.3, &ratio);
    check_near(orl_data(loss)[0], want, 1e-5 * fabs(want));
    check(orl_data(ratio)[0] == 1);
    check(orl_backward(tape, loss) == ORL_OK);
    check_near(orl_grad(x)[0], -2, 1e-6);
    check_near(orl_grad(x)[1], 0, 0);
    check_near(orl_grad(x)[2], exp(1.0), 1e-5);
    check_near(orl_grad(x)[3], 0, 0);
    check_near(orl_grad(x)[4], 0, 0); /* log ρ is clamped */
    orl_tape_reset(tape);
    /* (1−2)² against (1−2)²; (2−3)² against (1.2−3)²; 0 against (0.8)² */
    x = orl_variable(tape, v, 3, 1);
    loss = orli_loss_value(tape, x, orl_constant(tape, v_old, 3, 1), orl_constant(tape, ret, 3, 1), 0.2);
    check_near(orl_data(loss)[0], 0.5 * (1 + 1.8 * 1.8 + 0.64), 1e-5);
    check(orl_backward(tape, loss) == ORL_OK);
    check_near(orl_grad(x)[0], -1, 1e-6);
    check_near(orl_grad(x)[1], 0, 0);
    orl_tape_free(tape);
}

/* The score at the last token, the penalty of an unfinished answer, the KL of each token, and the clip. */
static void test_ppo_rewards(void) {
    orl_ppo_options o = orl_ppo_default();
    orli_ppo p;
    size_t start[] = {0, 2, 3};
    orl_real old_logp[] = {(orl_real)-1, (orl_real)-2, (orl_real)-3}, ref[] = {(orl_real)-1.5, (orl_real)-1, (orl_real)-3};
    double score[] = {0.7, 25}, reward[2];
    unsigned char unfinished[] = {0, 1};
    memset(&p, 0, sizeof p);
    p.o = &o, p.kl = 0.1;
    p.roll.start = start, p.roll.old_logp = old_logp, p.roll.ref_logp = ref, p.roll.score = score, p.roll.unfinished = unfinished;
    orli_ppo_rewards(&p, 0, reward);
    check_near(reward[0], -0.05, 1e-12);
    check_near(reward[1], 0.1 + 0.7, 1e-12);
    orli_ppo_rewards(&p, 1, reward);
    check_near(reward[0], 10 - 1, 1e-12);
}

static double sevens(const orl_row *r, void *user) { /* how many sevens it says */
    double n = 0;
    size_t i;
    (void)user;
    for (i = 0; i < r->response.tokens; i++) n += r->response.ids[i] == 7;
    return n;
}
static double nothing(const orl_row *r, void *user) {
    (void)r, (void)user;
    return 0;
}

static double log_value(const char *text, size_t line, const char *key) {
    char name[64], row[1024];
    const char *at;
    while (line-- && text) text = strchr(text, '\n'), text = text ? text + 1 : NULL;
    if (!text) return (double)NAN;
    snprintf(row, sizeof row, "%.*s", (int)strcspn(text, "\n"), text);
    snprintf(name, sizeof name, "\"%s\": ", key);
    at = strstr(row, name);
    return at ? atof(at + strlen(name)) : (double)NAN;
}

static void test_ppo(void) {
    static const double r[] = {0, 1, 2, 3};
    static const int prompts[] = {0, 1, 2, 3};
    static const char *const fields[] = {"step", "loss", "value_loss", "grad_norm", "lr", "reward", "kl", "k1", "k3", "entropy", "clip_fraction",
                                         "explained_variance", "sampler_difference", "length", "unfinished", "tokens", "seconds", "elapsed"};
    orl_dataset *d = rewarded(r, prompts, 4), *s;
    orl_model *m = make_model(NULL), *start = orl_model_copy(m);
    orl_ppo_options o = orl_ppo_default();
    orl_generate_options g = orl_generate_default();
    char *text = (char *)calloc(1, 1u << 16);
    FILE *f;
    size_t i, k;
    double before = 0, after = 0, coefficient = 0.02;
    o.iterations = 15, o.rollouts = 64, o.minibatch = 20, o.epochs = 2, o.max_tokens = 6, o.lr = 3e-3, o.critic_lr = 1e-2;
    o.reward = sevens, o.unfinished_penalty = 0;
    o.kl = 0.02, o.kl_target = 0.1, o.kl_horizon = 200;
    o.log = in_dir("ppo.jsonl");
    check(orl_train_ppo(m, NULL, d, &o) == ORL_OK); /* first ratios exactly 1 and KL exactly 0, or it had failed */
    f = fopen(o.log, "rb");
    check(f && text && fread(text, 1, (1u << 16) - 1, f) > 0);
    if (f) fclose(f);
    for (i = 1; i <= 15; i++) {
        double kl = log_value(text, i, "kl");
        for (k = 0; k < sizeof fields / sizeof *fields; k++) {
            double x = log_value(text, i, fields[k]);
            test_check(x == x, fields[k], __FILE__, __LINE__);
        }
        check(log_value(text, i, "sampler_difference") <= 1e-4);
        check(log_value(text, i, "k3") >= 0);
        coefficient *= 1 + fmax(-0.2, fmin(0.2, kl / 0.1 - 1)) * 64 / 200;
        check_near(log_value(text, i, "kl_coefficient"), coefficient, 1e-9);
    }
    check(log_value(text, 1, "kl") == 0);
    check(log_value(text, 15, "kl") > 0);
    check(!m->params->grads); /* frozen again */
    g.samples = 32, g.max_tokens = 6, g.target = ORL_TARGET_NONE;
    s = orl_sample(start, d, &g);
    for (i = 0; i < 128; i++) before += sevens(orl_dataset_row(s, i), NULL) / 128;
    orl_dataset_free(s), s = orl_sample(m, d, &g);
    for (i = 0; i < 128; i++) after += sevens(orl_dataset_row(s, i), NULL) / 128;
    printf("PPO: %.2f sevens before, %.2f after\n", before, after);
    check(after > before + 1);
    orl_dataset_free(s);
    o.log = NULL, o.kl_target = 0, o.kl = 0.01; /* an unfinished answer costs: answers are finished */
    o.reward = nothing, o.unfinished_penalty = 2;
    orl_model_free(m), m = orl_model_copy(start);
    check(orl_train_ppo(m, NULL, d, &o) == ORL_OK);
    for (i = 0, before = after = 0; i < 2; i++) {
        s = orl_sample(i ? m : start, d, &g);
        for (k = 0; k < 128; k++) *(i ? &after : &before) += orl_dataset_row(s, k)->flags & ORL_TRUNCATED ? 1.0 / 128 : 0;
        orl_dataset_free(s);
    }
    printf("PPO: %.2f unfinished before, %.2f after\n", before, after);
    check(after < 0.6 * before);
    { /* with a reward model: the critic begins as it, its normalisation folded in */
        orl_dataset *pairs = some_pairs(24, 3);
        orl_model *rm = orl_reward_model(start), *critic;
        orl_train_options t = orl_train_default();
        t.steps = 5;
        check(orl_train_reward(rm, pairs, &t) == ORL_OK);
        critic = orli_ppo_make_critic(start, rm);
        check(critic && critic->reward_mean == rm->reward_mean && critic->reward_sd == rm->reward_sd);
        o.iterations = 2, o.ptx = 0.05, o.ptx_data = d;
        check(orl_train_ppo(m, rm, d, &o) == ORL_OK);
        orl_model_free(rm), orl_model_free(critic), orl_dataset_free(pairs);
    }
    free(text);
    orl_model_free(m), orl_model_free(start), orl_dataset_free(d);
}

/* Memory and FLOPs as estimated, against the most that was held and the ledger's: nothing ends these answers early. */
static void test_ppo_estimate(int with_reward_model) {
    orl_ctx *outer = ctx;
    orl_ppo_options o = orl_ppo_default();
    orl_model_config mc = orl_model_config_default(ORL_LLAMA);
    orl_model *m, *rm = NULL;
    orl_dataset *d;
    orl_estimate e;
    orl_cost cost;
    orli_str s;
    size_t i, t;
    double peak;
    ctx = orl_create(NULL);
    s = orli_str_new(ctx);
    for (i = 0; i < 300; i++) {
        for (t = 0; t < 10 + i % 9; t++) orli_str_printf(&s, t ? ", %d" : "{\"prompt_ids\": [%d", (int)((31 * i + 7 * t) % 512));
        orli_str_puts(&s, "]}\n");
    }
    d = orl_dataset_parse(ctx, s.data, s.length, "prompts");
    orli_str_free(&s);
    mc.vocab = 512, mc.dim = 64, mc.heads = 4, mc.kv_heads = 2, mc.ffn = 160, mc.layers = 3, mc.context = 128, mc.eos = -1;
    m = orl_model_create(ctx, &mc, NULL);
    if (with_reward_model) rm = orl_reward_model(m);
    else o.reward = nothing;
    o.iterations = 2, o.rollouts = 128, o.minibatch = 64, o.epochs = 2, o.max_tokens = 40;
    check(orl_ppo_estimate(m, rm, d, &o, &e) == ORL_OK);
    check(m && !m->params->grads && (!rm || !rm->params->grads)); /* nothing stays behind */
    cost = orl_cost_now(ctx);
    check(orl_train_ppo(m, rm, d, &o) == ORL_OK);
    cost = orl_cost_since(ctx, cost);
    peak = (double)orl_memory_peak(ctx);
    printf("PPO%s: estimated %.1f MB, peak %.1f MB; %.3f GFLOP, counted %.3f\n", rm ? " with a reward model" : "", (double)e.total / 1e6, peak / 1e6, e.flops / 1e9, cost.flops / 1e9);
    check_near((double)e.total / peak, 1, 0.1);
    check_near(e.flops / cost.flops, 1, 0.1);
    orl_destroy(ctx);
    ctx = outer;
}

/* ---- evaluation ---- */

static void test_evaluate(void) {
    static const double r[] = {0, 1, 2, 3};
    static const int prompts[] = {0, 1, 2, 3};
    orl_dataset *d = rewarded(r, prompts, 4), *samples[2];
    orl_model *m = make_model(NULL), *models[2];
    orl_eval_options o = orl_eval_default();
    orl_result result[2];
    double z = 1.959963984540054, length = 0, gold = 0;
    size_t i;
    models[0] = m, models[1] = orl_model_copy(m);
    orl_model_set_name(models[0], "sft"), orl_model_set_name(models[1], "same");
    o.generate.samples = 5, o.generate.max_tokens = 6;
    o.gold = sevens, o.samples = samples;
    check(orl_evaluate(models, 2, d, NULL, &o, result) == ORL_OK);
    check(result[1].samples == 20);
    check_near(result[1].win_rate, 0.5, 0); /* the same samples: ties, which count ½ */
    check_near(result[1].win_rate_hi, (0.5 + z * z / 40 + z * sqrt(0.25 / 20 + z * z / 1600)) / (1 + z * z / 20), 1e-9);
    check_near(result[1].win_rate_lo, 1 - result[1].win_rate_hi, 1e-9);
    check_near(result[1].kl, 0, 1e-5);
    check(result[0].kl == 0 && strcmp(result[1].method, "same") == 0);
    check(result[1].reward != result[1].reward); /* no reward model, no number */
    for (i = 0; i < 20; i++) gold += sevens(orl_dataset_row(samples[0], i), NULL) / 20, length += (double)orl_dataset_row(samples[0], i)->tokens / 20;
    check_near(result[0].gold, gold, 1e-12);
    check_near(result[0].length, length, 1e-12);
    check_near(result[0].gold, result[1].gold, 0);
    { /* by hand: 3 wins, 1 tie; bigrams 1 2, 2 1, 1 2, 2 2 */
        static const char rows[] = "{\"prompt_ids\": [1], \"completion_ids\": [1, 2, 1], \"reward\": 1}\n{\"prompt_ids\": [1], \"completion_ids\": [1, 2, 2], \"reward\": 2}\n"
                                   "{\"prompt_ids\": [1], \"completion_ids\": [1], \"reward\": 3, \"truncated\": true}\n{\"prompt_ids\": [1], \"completion_ids\": [2], \"reward\": 0}";
        orl_dataset *a = orl_dataset_parse(ctx, rows, sizeof rows - 1, "a");
        orl_dataset *b = orl_dataset_view(a, 0, 4), *three = orl_dataset_view(a, 0, 3);
        orl_result x;
        for (i = 0; i < 3; i++) orl_dataset_row(b, i)->reward = -1;
        o = orl_eval_default();
        check(orl_evaluate_samples(a, b, NULL, &o, &x) == ORL_OK);
        check_near(x.win_rate, 3.5 / 4, 1e-15);
        check_near(x.distinct2, 0.75, 1e-15);
        check_near(x.length, 2, 1e-15);
        check_near(x.truncated, 0.25, 1e-15);
        check(x.gold != x.gold);
        check(orl_evaluate_samples(a, three, NULL, &o, &x) == ORL_ERR_ARGUMENT), expect_error(ORL_ERR_ARGUMENT, "4 samples against 3");
        orl_dataset_free(a), orl_dataset_free(b), orl_dataset_free(three);
    }
    { /* KL of another model: the mean of Σ log π − log π_first over its own samples */
        orl_train_options t = orl_train_default();
        orl_dataset *copy;
        double kl = 0;
        t.steps = 20, t.lr = 1e-2;
        check(orl_train(models[1], d, &t) == ORL_OK);
        orl_dataset_free(samples[0]), orl_dataset_free(samples[1]);
        o = orl_eval_default();
        o.generate.samples = 5, o.generate.max_tokens = 6, o.gold = sevens, o.samples = samples;
        check(orl_evaluate(models, 2, d, NULL, &o, result) == ORL_OK);
        copy = orl_dataset_view(samples[1], 0, 20);
        orl_logprob(models[1], copy, NULL, NULL);
        for (i = 0; i < 20; i++) kl += orl_dataset_row(copy, i)->logp / 20;
        orl_logprob(models[0], copy, NULL, NULL);
        for (i = 0; i < 20; i++) kl -= orl_dataset_row(copy, i)->logp / 20;
        check_near(result[1].kl, kl, 1e-4);
        check(result[1].kl > 0.5);
        orl_dataset_free(copy);
    }
    orl_dataset_free(samples[0]), orl_dataset_free(samples[1]);
    orl_model_free(models[0]), orl_model_free(models[1]), orl_dataset_free(d);
}

int main(void) {
    orl_config config = orl_config_default();
    if (!make_dir("test_15", NULL)) return 1;
    config.threads = 2;
    ctx = orl_create(&config);
    orl_on_note(ctx, take_note, NULL);
    test_normalise();
    test_filters();
    test_weights();
    test_condition_text();
    test_condition_bins();
    test_condition();
    test_compositions();
    test_targets(ORL_CONDITION_TEXT);
    test_targets(ORL_CONDITION_BINS);
    test_reward_model();
    test_pair_accuracy();
    test_gae();
    test_ppo_losses();
    test_ppo_rewards();
    test_ppo();
    test_ppo_estimate(0);
    test_ppo_estimate(1);
    test_evaluate();
    check(!orl_failed(ctx));
    if (orl_failed(ctx)) printf("%s\n", orl_error(ctx));
    orl_destroy(ctx);
    remove_tree(dir);
    return test_report("test_15_rlhf");
}
