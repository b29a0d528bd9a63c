/* test_08_optim.c - section 8 against AdamW as it is written in the paper, in plain double.
 * builds: float double */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define BIG 18000 /* numbers in the matrix: more than one block of the optimizer */
#define VECTOR 37
#define STEPS 20

static orl_ctx *ctx;

static orl_ctx *context(size_t threads) {
    orl_config config = orl_config_default();
    config.threads = threads;
    return orl_create(&config);
}

typedef struct fixture {
    orl_params *set;
    orl_param *matrix, *vector;
    orli_adam adam;
    double divisor;
} fixture;

static void fixture_open(fixture *f, orl_ctx *c) {
    orli_rng r = orli_rng_new(1, 0);
    size_t i;
    f->set = orl_params_create(c);
    f->matrix = orl_param_add(f->set, "matrix", 150, 120, 2);
    f->vector = orl_param_add(f->set, "vector", 1, VECTOR, 1);
    for (i = 0; i < BIG; i++) f->matrix->data[i] = (orl_real)orli_rng_normal(&r);
    for (i = 0; i < VECTOR; i++) f->vector->data[i] = (orl_real)orli_rng_normal(&r);
    check(orli_adam_create(&f->adam, f->set) == ORL_OK);
    f->divisor = 3;
}
static void fixture_close(fixture *f) {
    orli_adam_free(&f->adam);
    orli_object_free(&f->set->object);
}
static void fixture_gradient(fixture *f, size_t step) { /* undivided: the divisor is taken off in the step */
    orli_rng r = orli_rng_new(2, step);
    size_t i;
    for (i = 0; i < BIG; i++) f->matrix->grad[i] = (orl_real)(0.03 * orli_rng_normal(&r));
    for (i = 0; i < VECTOR; i++) f->vector->grad[i] = (orl_real)(0.03 * orli_rng_normal(&r));
}

static orli_adam_options options(double clip) {
    orli_adam_options o;
    o.lr = 0.01, o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.weight_decay = 0.1, o.clip = clip;
    return o;
}

/* Loshchilov and Hutter's algorithm 2, one number at a time; g is the gradient as it is used. */
typedef struct plain { double w, m, v; } plain;
static void plain_step(plain *p, double g, const orli_adam_options *o, double decay, size_t step) {
    double m, v;
    p->m = o->beta1 * p->m + (1 - o->beta1) * g;
    p->v = o->beta2 * p->v + (1 - o->beta2) * g * g;
    m = p->m / (1 - pow(o->beta1, (double)step)), v = p->v / (1 - pow(o->beta2, (double)step));
    p->w -= o->lr * (m / (sqrt(v) + o->eps) + decay * p->w);
}

static void test_adamw(double clip) {
    static plain reference[BIG + VECTOR];
    static double g[BIG + VECTOR];
    fixture f;
    orli_adam_options o = options(clip);
    size_t i, step, clipped = 0;
    double tolerance = ORLI_DOUBLE ? 1e-13 : 3e-6, worst = 0;
    fixture_open(&f, ctx);
    for (i = 0; i < BIG + VECTOR; i++) {
        reference[i].w = (double)(i < BIG ? f.matrix->data[i] : f.vector->data[i - BIG]);
        reference[i].m = reference[i].v = 0;
    }
    for (step = 1; step <= STEPS; step++) {
        double norm = 0, have, scale;
        size_t version = f.matrix->version;
        fixture_gradient(&f, step);
        for (i = 0; i < BIG + VECTOR; i++) {
            g[i] = (double)(i < BIG ? f.matrix->grad[i] : f.vector->grad[i - BIG]) / f.divisor;
            norm += g[i] * g[i];
        }
        norm = sqrt(norm);
        scale = clip > 0 && norm > clip ? clip / norm : 1;
        clipped += scale < 1;
        o.lr = orli_learning_rate(0.01, ORL_COSINE, 5, 0.1, step - 1, STEPS);
        for (i = 0; i < BIG + VECTOR; i++) plain_step(&reference[i], g[i] * scale, &o, i < BIG ? o.weight_decay : 0, step);
        check(orli_adam_step(&f.adam, &o, f.divisor, &have) == ORL_OK);
        check_near(have, norm, 1e-6 * norm); /* of the divided gradient, before clipping */
        check(f.matrix->version > version && f.adam.step == step);
        for (i = 0; i < f.set->count && f.set->grads[i] == 0; i++) {}
        check(i == f.set->count); /* ready for the next sum */
    }
    check(clip > 0 ? clipped == STEPS : clipped == 0);
    for (i = 0; i < BIG + VECTOR; i++) worst = fmax(worst, fabs((double)(i < BIG ? f.matrix->data[i] : f.vector->data[i - BIG]) - reference[i].w));
    check_near(worst, 0, tolerance);
    fixture_close(&f);
}

static void test_decay(void) { /* without a gradient only matrices move, by lr·decay of themselves */
    fixture f;
    orli_adam_options o = options(0);
    double norm, matrix, vector;
    fixture_open(&f, ctx);
    matrix = (double)f.matrix->data[77], vector = (double)f.vector->data[7];
    check(orli_adam_step(&f.adam, &o, 1, &norm) == ORL_OK && norm == 0);
    check_near(f.matrix->data[77], matrix * (1 - 0.01 * 0.1), 1e-7);
    check_near(f.vector->data[7], vector, 0);
    fixture_close(&f);
}

static void test_not_finite(void) {
    const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    static orl_real weights[BIG], m[BIG + VECTOR], v[BIG + VECTOR];
    fixture f;
    orli_adam_options o = options(1);
    size_t k;
    double norm;
    fixture_open(&f, ctx);
    fixture_gradient(&f, 1);
    check(orli_adam_step(&f.adam, &o, 1, &norm) == ORL_OK);
    for (k = 0; k < 3; k++) {
        memcpy(weights, f.matrix->data, sizeof weights);
        memcpy(m, f.adam.m, sizeof m);
        memcpy(v, f.adam.v, sizeof v);
        fixture_gradient(&f, 2);
        f.vector->grad[5] = (orl_real)bad[k];
        check(orli_adam_step(&f.adam, &o, 1, &norm) == ORL_ERR_DATA);
        check_contains(orl_error(ctx), "gradient is not finite at step 2");
        check(memcmp(weights, f.matrix->data, sizeof weights) == 0 && f.adam.step == 1);
        check(memcmp(m, f.adam.m, sizeof m) == 0 && memcmp(v, f.adam.v, sizeof v) == 0);
        orl_clear_error(ctx);
    }
    fixture_gradient(&f, 2); /* a clean gradient goes on from there */
    check(orli_adam_step(&f.adam, &o, 1, &norm) == ORL_OK && f.adam.step == 2);
    fixture_close(&f);
}

static void test_schedules(void) {
    size_t k;
    double before;
    check_near(orli_learning_rate(0.5, ORL_CONSTANT, 0, 0.1, 0, 10), 0.5, 0);
    check_near(orli_learning_rate(0.5, ORL_CONSTANT, 0, 0.1, 9, 10), 0.5, 0);
    for (k = 0; k < 4; k++) check_near(orli_learning_rate(1, (orl_schedule)(k % 3), 4, 0.1, k, 10), 0.25 * (double)(k + 1), 1e-15);
    for (k = 4; k < 10; k++) {
        double done = (double)(k - 4) / 6;
        check_near(orli_learning_rate(2, ORL_LINEAR, 4, 0.1, k, 10), 2 * (1 - 0.9 * done), 1e-15);
        check_near(orli_learning_rate(2, ORL_COSINE, 4, 0.1, k, 10), 2 * (0.1 + 0.9 * 0.5 * (1 + cos(3.14159265358979324 * done))), 1e-14);
        check_near(orli_learning_rate(2, ORL_CONSTANT, 4, 0.1, k, 10), 2, 0);
    }
    for (k = 4, before = 3; k <= 10; k++) {
        double now = orli_learning_rate(2, ORL_COSINE, 4, 0.1, k, 10);
        check(now < before);
        before = now;
    }
    check_near(before, 0.2, 1e-15);                                       /* ends at lr·min_lr and stays there */
    check_near(orli_learning_rate(2, ORL_LINEAR, 4, 0.1, 99, 10), 0.2, 1e-15);
    check_near(orli_learning_rate(2, ORL_COSINE, 20, 0.1, 4, 10), 0.5, 1e-15); /* a run shorter than its warm-up */
    check_near(orli_learning_rate(2, ORL_COSINE, 10, 0.1, 10, 10), 2, 1e-15);
}

static void test_threads(void) { /* the same bits on 1 and 3 threads, from more than one task */
    orl_ctx *one = context(1), *three = context(3);
    fixture a, b;
    orli_adam_options o = options(0.5);
    size_t step;
    double x, y;
    fixture_open(&a, one), fixture_open(&b, three);
    for (step = 1; step <= 5; step++) {
        fixture_gradient(&a, step), fixture_gradient(&b, step);
        check(orli_adam_step(&a.adam, &o, 2, &x) == ORL_OK && orli_adam_step(&b.adam, &o, 2, &y) == ORL_OK);
        check(memcmp(&x, &y, sizeof x) == 0);
    }
    check(three->pool->most_tasks[ORLI_WORK_OPTIMIZER] >= 2);
    check(memcmp(a.matrix->data, b.matrix->data, BIG * sizeof(orl_real)) == 0);
    check(memcmp(a.vector->data, b.vector->data, VECTOR * sizeof(orl_real)) == 0);
    fixture_close(&a), fixture_close(&b);
    orl_destroy(one), orl_destroy(three);
}

int main(void) {
    size_t before;
    ctx = context(2);
    before = orl_memory_now(ctx);
    test_adamw(0);
    test_adamw(0.5);
    test_decay();
    test_not_finite();
    test_schedules();
    test_threads();
    check(!orl_failed(ctx) && orl_memory_now(ctx) == before);
    orl_destroy(ctx);
    return test_report("test_08_optim");
}
