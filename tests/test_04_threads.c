/* test_04_threads.c - every task runs exactly once for any number of threads, parked or awake.
 * builds: float threads */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"
#include <fenv.h>

#define MOST_TASKS 1000
static const size_t thread_counts[] = {1, 2, 3, 4, 7};
static const size_t task_counts[] = {0, 1, 2, 3, 5, 8, 13, 64, 250, MOST_TASKS};
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static orl_ctx *context(size_t threads) {
    orl_config config = orl_config_default();
    config.threads = threads;
    return orl_create(&config);
}

static void sleep_ms(long ms) {
    struct timespec pause;
    pause.tv_sec = 0;
    pause.tv_nsec = ms * 1000000;
    nanosleep(&pause, NULL);
}

/* What a job leaves behind. Only `busy` and `trouble` are shared between tasks, and atomic; the rest
 * is a task's own, or a worker's, so that ThreadSanitizer sees a pool that fails to hand results over. */
typedef struct job {
    size_t threads, ran[MOST_TASKS];
    double value[MOST_TASKS];
    size_t by_worker[8];
    int busy[8], trouble;
    int slow; /* ms that task 0 sleeps */
    orl_ctx *ctx;
} job;

static void work(void *arg, size_t task, size_t worker) {
    job *j = (job *)arg;
    double *scratch;
    size_t i;
    if (worker >= j->threads || __atomic_exchange_n(&j->busy[worker], 1, __ATOMIC_RELAXED)) {
        __atomic_store_n(&j->trouble, 1, __ATOMIC_RELAXED); /* a worker that does not exist, or two that are one */
        return;
    }
    scratch = (double *)orli_scratch(j->ctx, worker);
    for (i = 0; i < 50; i++) scratch[i] = (double)task + (double)i;
    for (i = 0; i < 50; i++) j->value[task] += scratch[i] * scratch[i];
    j->ran[task]++;
    j->by_worker[worker]++;
    if (j->slow && task == 0) sleep_ms(j->slow);
    __atomic_store_n(&j->busy[worker], 0, __ATOMIC_RELAXED);
}

static double expected(size_t task) {
    double sum = 0;
    size_t i;
    for (i = 0; i < 50; i++) sum += ((double)task + (double)i) * ((double)task + (double)i);
    return sum;
}

static void run(orl_ctx *ctx, job *j, size_t tasks, int slow) { /* one job, and all that must be true of it */
    size_t i, wrong = 0, done = 0;
    memset(j, 0, sizeof *j);
    j->threads = orl_threads(ctx);
    j->ctx = ctx;
    j->slow = slow;
    orli_parallel(ctx, ORLI_WORK_OTHER, tasks, work, j);
    for (i = 0; i < tasks; i++) wrong += j->ran[i] != 1 || j->value[i] != expected(i);
    for (i = tasks; i < MOST_TASKS; i++) wrong += j->ran[i] != 0;
    for (i = 0; i < 8; i++) done += j->by_worker[i];
    check(wrong == 0 && done == tasks && !j->trouble);
}

static void test_every_task_once(void) {
    static job j;
    size_t t, n, i;
    for (t = 0; t < COUNT(thread_counts); t++) {
        orl_ctx *ctx = context(thread_counts[t]);
        check(ctx && !orl_failed(ctx) && orl_threads(ctx) == thread_counts[t]);
        for (n = 0; n < COUNT(task_counts); n++) for (i = 0; i < 5; i++) run(ctx, &j, task_counts[n], 0);
        orl_destroy(ctx);
    }
}

/* Jobs that follow at once find the workers spinning, jobs after a pause find them parked, and a slow
 * task makes the caller park. */
static void test_parking(void) {
    static job j;
    size_t t;
    int i;
    for (t = 0; t < COUNT(thread_counts); t++) {
        orl_ctx *ctx = context(thread_counts[t]);
        for (i = 0; i < 12; i++) {
            sleep_ms(i % 4);
            run(ctx, &j, 9, 0);
            run(ctx, &j, 2, i % 3 == 0 ? 4 : 0);
            run(ctx, &j, 1, 0);
        }
        orl_destroy(ctx);
    }
}

typedef struct counter {
    size_t sum;
} counter;
static void count(void *arg, size_t task, size_t worker) {
    (void)worker;
    __atomic_fetch_add(&((counter *)arg)->sum, task + 1, __ATOMIC_RELAXED);
}

static void test_many_short_jobs(void) {
    const int quick = getenv("ORL_TEST_QUICK") != NULL;
    static const size_t threads[] = {2, 3, 7}; /* 7: most jobs have fewer tasks than there are workers */
    size_t t;
    int i;
    for (t = 0; t < COUNT(threads); t++) {
        orl_ctx *ctx = context(threads[t]);
        int wrong = 0;
        for (i = 0; i < (quick ? 1000 : 10000); i++) {
            size_t tasks = i % 50 == 0 ? 40 : (size_t)i % 6;
            counter c;
            c.sum = 0;
            orli_parallel(ctx, ORLI_WORK_OTHER, tasks, count, &c);
            wrong += c.sum != tasks * (tasks + 1) / 2; /* the counter is gone after this: nobody may still hold it */
        }
        check(wrong == 0);
        orl_destroy(ctx);
    }
}

/* ---- workers that wake: no more than have work, and all that have; who comes late touches no job that is over ---- */

static size_t parked(orl_ctx *ctx) {
    size_t n;
    pthread_mutex_lock(&ctx->pool->mutex);
    n = ctx->pool->parked;
    pthread_mutex_unlock(&ctx->pool->mutex);
    return n;
}
static void wait_until_parked(orl_ctx *ctx) {
    while (parked(ctx) != ctx->pool->started) sleep_ms(1);
}

typedef struct meeting { /* as many tasks as workers; none ends before all have begun, so each has a worker: its own */
    size_t expected, arrived, strange;
} meeting;
static void meet(void *arg, size_t task, size_t worker) {
    meeting *m = (meeting *)arg;
    if (task != worker) __atomic_add_fetch(&m->strange, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&m->arrived, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&m->arrived, __ATOMIC_RELAXED) < m->expected) sched_yield();
}

static void test_waking(void) {
    const int rounds = getenv("ORL_TEST_QUICK") ? 10 : 50;
    size_t t, tasks;
    int i;
    for (t = 1; t < COUNT(thread_counts); t++) {
        orl_ctx *ctx = context(thread_counts[t]);
        for (i = 0; i < rounds; i++) {
            counter c;
            meeting m;
            for (tasks = 2; tasks <= ctx->pool->threads; tasks += 2) { /* never more than these have woken */
                c.sum = 0;
                wait_until_parked(ctx);
                orli_parallel(ctx, ORLI_WORK_OTHER, tasks, count, &c);
                check(parked(ctx) + tasks - 1 >= ctx->pool->started && c.sum == tasks * (tasks + 1) / 2);
            }
            if (i % 2) wait_until_parked(ctx); /* all asleep, or some on their way */
            m.expected = ctx->pool->threads, m.arrived = m.strange = 0;
            orli_parallel(ctx, ORLI_WORK_OTHER, m.expected, meet, &m); /* hangs if a worker is forgotten */
            check(m.arrived == m.expected && m.strange == 0);
        }
        orl_destroy(ctx);
    }
}

/* Two kinds of jobs in turn, and each knows its own arguments: a worker woken for one job arrives in the next. */
typedef struct kind {
    int tag, wrong;
    size_t tasks, sum;
} kind;
static void tagged(void *arg, int tag, size_t task) {
    kind *k = (kind *)arg;
    if (k->tag != tag || task >= k->tasks) __atomic_store_n(&k->wrong, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&k->sum, task + 1, __ATOMIC_RELAXED);
}
static void kind_a(void *arg, size_t task, size_t worker) { (void)worker, tagged(arg, 1, task); }
static void kind_b(void *arg, size_t task, size_t worker) { (void)worker, tagged(arg, 2, task); }

static void test_late_workers(void) {
    const int rounds = getenv("ORL_TEST_QUICK") ? 30 : 150;
    size_t t;
    int i, j, wrong = 0;
    for (t = 1; t < COUNT(thread_counts); t++) {
        orl_ctx *ctx = context(thread_counts[t]);
        for (i = 0; i < rounds; i++) {
            wait_until_parked(ctx);
            for (j = 0; j < 40; j++) { /* over before the first woken worker is up */
                kind a, b;
                memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
                a.tag = 1, a.tasks = 2 + (size_t)(i + j) % 3;
                b.tag = 2, b.tasks = 2 + (size_t)j % 9;
                orli_parallel(ctx, ORLI_WORK_OTHER, a.tasks, kind_a, &a);
                orli_parallel(ctx, ORLI_WORK_OTHER, b.tasks, kind_b, &b);
                wrong += a.wrong || b.wrong || a.sum != a.tasks * (a.tasks + 1) / 2 ||
                         b.sum != b.tasks * (b.tasks + 1) / 2;
            }
        }
        orl_destroy(ctx);
    }
    check(wrong == 0);
}

static void test_start_and_stop(void) { /* contexts that never had a job, or one only, end cleanly */
    static job j;
    int i;
    for (i = 0; i < 60; i++) {
        orl_ctx *ctx = context(2 + (size_t)i % 3);
        if (i % 2) run(ctx, &j, 4, 0);
        if (i % 5 == 0) sleep_ms(2);
        orl_destroy(ctx);
    }
    {
        orl_ctx *a = context(2), *b = context(3); /* two contexts do not know of each other */
        for (i = 0; i < 50; i++) run(i % 2 ? a : b, &j, 20, 0);
        orl_destroy(a);
        run(b, &j, 20, 0);
        orl_destroy(b);
    }
}

/* Tests of determinism look at most_tasks to see that a path really ran in parallel. */
static void test_most_tasks(void) {
    orl_ctx *ctx = context(2);
    counter c;
    c.sum = 0;
    check(ctx->pool->most_tasks[ORLI_WORK_HEAD] == 0);
    orli_parallel(ctx, ORLI_WORK_HEAD, 5, count, &c);
    orli_parallel(ctx, ORLI_WORK_HEAD, 2, count, &c);
    check(ctx->pool->most_tasks[ORLI_WORK_HEAD] == 5 && ctx->pool->most_tasks[ORLI_WORK_GEMM] == 0);
    orl_destroy(ctx);
}

/* ---- float mode: nearest and flush-to-zero in every task, the caller's own before and after ---- */

typedef struct modes {
    int nearest[64], flushed[64];
} modes;
static void look(void *arg, size_t task, size_t worker) {
    modes *m = (modes *)arg;
    volatile float small = 1e-30f, one = 1.0f, tiny = 1e-10f, sum = one + tiny;
    (void)worker;
    m->nearest[task] = sum == 1.0f;
    m->flushed[task] = small * 1e-10f == 0.0f;
    sleep_ms(1); /* so that more than one worker gets some */
}

static void test_float_mode(void) {
    size_t t;
    for (t = 0; t < COUNT(thread_counts); t++) {
        orl_ctx *ctx = context(thread_counts[t]);
        size_t i, tasks;
        for (tasks = 1; tasks <= 16; tasks *= 4) {
            volatile float small = 1e-30f;
            modes m;
            memset(&m, 0, sizeof m);
            fesetround(FE_DOWNWARD);
            orli_parallel(ctx, ORLI_WORK_OTHER, tasks, look, &m);
            check(fegetround() == FE_DOWNWARD);
            fesetround(FE_TONEAREST);
            check(small * 1e-10f > 0.0f);
#if ORLI_X86 || ORLI_NEON
            for (i = 0; i < tasks; i++) check(m.nearest[i] && m.flushed[i]);
#else
            (void)i;
#endif
        }
        orl_destroy(ctx);
    }
}

int main(void) {
    test_every_task_once();
    test_parking();
    test_many_short_jobs();
    test_waking();
    test_late_workers();
    test_start_and_stop();
    test_most_tasks();
    test_float_mode();
    return test_report("test_04_threads");
}
