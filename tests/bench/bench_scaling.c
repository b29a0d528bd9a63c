/* bench_scaling.c - how a training step would scale to more cores than this machine has.
 *   cc -O2 tests/bench/bench_scaling.c -o bench_scaling -lm -lpthread && ./bench_scaling [CASE …]
 *
 * A step is made of parallel regions (calls of orli_parallel) and of what runs between them. For W = 1 … 64 the step
 * is made with the work split as for W workers, but all tasks run one after the other on one core, and each is timed.
 * Then the regions are replayed as the pool of section 4 would run them on W cores:
 *   - The caller publishes a region and takes tasks. A worker that spins joins after `near` seconds. If the region has
 *     tasks for more than are awake, the caller wakes one, which costs it `call` seconds; that one joins `far` seconds
 *     later and, as long as this holds, wakes two more before it works. These costs are measured on a pool of two.
 *   - A worker that is free takes the next task of its own part or, if there is none, of another's; the counter of
 *     tasks serves one worker at a time (`grab`).
 *   - The region ends when its last task has; a worker that came too late delays nobody. A worker that had no task for
 *     `spin` seconds parks.
 * What the replay does not know: cores share the last cache, the bandwidth of memory and the clock; a cache line that
 * many workers poll takes longer to change than one that two poll. So it is the limit that the split of the work and
 * the pool's rules set; a machine stays below it. */
#define _GNU_SOURCE
#define OFFLINE_RLHF_IMPLEMENTATION
#include <stddef.h>

/* Every call of orli_parallel in the library becomes a call of recorded(), which learns the task's name too; the
 * definition is kept as orli_parallel_real. What tells them apart is the second argument: in the definition it begins
 * with the word orli_work, so that the macro KEEP_orli_work puts another name into second place. */
#define SECOND(a, b, ...) b
#define CHOOSE(...) SECOND(__VA_ARGS__)
#define KEEP_orli_work ~, orli_parallel_real,
#define RECORDED(ctx, kind, tasks, fn, arg) recorded(ctx, kind, tasks, fn, arg, #fn)
#define orli_parallel(ctx, kind, tasks, fn, arg) CHOOSE(KEEP_##kind, RECORDED, ~)(ctx, kind, tasks, fn, arg)
struct orl_ctx;
static void recorded(struct orl_ctx *ctx, unsigned kind, size_t tasks, void (*fn)(void *, size_t, size_t), void *arg,
                     const char *name);

#include "../../offline_rlhf.h"
#include "bench.h"
#include "cases.h"

enum { MOST_WORKERS = 64 };

/* ---- recording a step ------------------------------------------------------------------------------------------- */

typedef struct region {
    const char *name;    /* of the task's function */
    size_t tasks, first; /* times of its tasks begin here */
    double gap;          /* seconds of the caller alone before it */
} region;

typedef struct recording {
    region *region;
    double *time; /* of every task, in order */
    size_t regions, times, c_regions, c_times;
    double last_gap, total; /* after the last region; of all */
} recording;

static recording *recorder; /* NULL: nothing is recorded */
static double recorded_until, clock_cost;

static void *more(void *array, size_t *capacity, size_t n, size_t size) { /* room for one more than n */
    if (n < *capacity) return array;
    *capacity = 2 * n + 1024;
    array = realloc(array, *capacity * size);
    if (!array) exit(1);
    return array;
}

typedef struct timed_job {
    orli_task_fn fn;
    void *arg;
} timed_job;

static void timed_task(void *p, size_t task, size_t worker) {
    const timed_job *job = (const timed_job *)p;
    const double begin = bench_seconds();
    job->fn(job->arg, task, worker);
    recorder->time = (double *)more(recorder->time, &recorder->c_times, recorder->times, sizeof(double));
    recorder->time[recorder->times++] = ORLI_MAX(bench_seconds() - begin - clock_cost, 0.0);
}

static void recorded(orl_ctx *ctx, unsigned kind, size_t tasks, orli_task_fn fn, void *arg, const char *name) {
    timed_job job;
    region *r;
    if (!recorder) {
        orli_parallel_real(ctx, (orli_work)kind, tasks, fn, arg);
        return;
    }
    recorder->region = (region *)more(recorder->region, &recorder->c_regions, recorder->regions, sizeof(region));
    r = &recorder->region[recorder->regions++];
    r->name = name, r->tasks = tasks, r->first = recorder->times;
    r->gap = ORLI_MAX(bench_seconds() - recorded_until - clock_cost, 0.0);
    job.fn = fn, job.arg = arg;
    orli_parallel_real(ctx, (orli_work)kind, tasks, timed_task, &job);
    recorded_until = bench_seconds();
}

/* The step of each split: the least of some rounds, in which all splits have their turn. */
static const size_t splits[] = {1, 2, 4, 8, 16, 32, 64};
enum { SPLITS = sizeof splits / sizeof *splits };

typedef struct plan {
    orl_ctx *ctx;
    int rounds, round, split;
    recording best[SPLITS], now;
} plan;

static void recording_swap(recording *a, recording *b) {
    recording t = *a;
    *a = *b, *b = t;
}

static int next_step(void *user, const orl_step_info *info) { /* called after each step */
    plan *p = (plan *)user;
    (void)info;
    if (recorder) {
        size_t i;
        p->now.last_gap = p->now.total = bench_seconds() - recorded_until;
        for (i = 0; i < p->now.regions; i++) p->now.total += p->now.region[i].gap;
        for (i = 0; i < p->now.times; i++) p->now.total += p->now.time[i];
        if (!p->round || p->now.total < p->best[p->split].total) recording_swap(&p->now, &p->best[p->split]);
        if (++p->split == SPLITS) p->split = 0, p->round++;
        if (p->round == p->rounds) {
            recorder = NULL;
            return 1;
        }
    } /* else that step was to warm up */
    p->ctx->pool->threads = splits[p->split];
    p->now.regions = p->now.times = 0;
    recorder = &p->now;
    recorded_until = bench_seconds();
    return 0;
}

static int record(plan *p, const bench_case *c, int rounds) {
    orl_config config = orl_config_default();
    orl_train_options o = case_options(c);
    orl_model *m;
    orl_dataset *data;
    int ok;
    memset(p, 0, sizeof *p);
    config.threads = 1;
    p->ctx = orl_create(&config);
    p->rounds = rounds;
    m = case_model(p->ctx, c);
    data = case_rows(p->ctx, c, 1);
    o.shuffle = 0, o.progress = next_step, o.user = p; /* the same batch in every step */
    if (!orl_failed(p->ctx)) p->ctx->pool->threads = MOST_WORKERS; /* what is allocated once is so for all splits */
    orl_train(m, data, &o);
    ok = orl_error_status(p->ctx) == ORL_ERR_STOPPED;
    if (!ok) fprintf(stderr, "%s\n", orl_error(p->ctx));
    if (p->ctx && p->ctx->pool) p->ctx->pool->threads = 1;
    orl_destroy(p->ctx);
    return ok;
}

/* ---- what the pool costs ---------------------------------------------------------------------------------------- */

typedef struct pool_costs {
    double near, far, call, end, grab, spin;
} pool_costs;
static pool_costs costs;

typedef struct meeting { /* two tasks that wait for each other: so two workers have taken part */
    double begun[2];     /* by worker */
    double ended;
    size_t arrived;
} meeting;

static void meet(void *p, size_t task, size_t worker) {
    meeting *m = (meeting *)p;
    (void)task;
    m->begun[worker] = orl_seconds();
    __atomic_add_fetch(&m->arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&m->arrived, __ATOMIC_ACQUIRE) < 2) {}
    if (worker) m->ended = orl_seconds();
}
static void pin(void *p, size_t task, size_t worker) {
    meet(p, task, worker);
    bench_pin(0, worker);
}
static void nothing(void *p, size_t task, size_t worker) { (void)p, (void)task, (void)worker; }

static void wait_busily(double seconds) {
    const double begin = orl_seconds();
    while (orl_seconds() - begin < seconds) {}
}

static void measure_pool(void) {
    enum { TIMES = 200, GRABS = 10000 };
    static double first[2][TIMES], second[2][TIMES], end[TIMES], grab[TIMES]; /* [0]: the worker spins, [1]: parked */
    orl_config config = orl_config_default();
    orl_ctx *ctx;
    meeting m;
    double begin;
    int parked, i;
    config.threads = 2;
    ctx = orl_create(&config);
    for (i = 0; i < TIMES; i++) {
        int poll;
        begin = orl_seconds();
        for (poll = 0; poll < ORLI_SPIN; poll++) orli_pause(poll);
        end[i] = orl_seconds() - begin;
    }
    costs.spin = bench_median(end, TIMES);
    costs.near = 0.5e-6, costs.far = 20e-6, costs.call = 2e-6, costs.end = 0.5e-6, costs.grab = 50e-9;
    if (orl_failed(ctx) || ctx->pool->started != 1 || orli_cores() < 2) {
        printf("one core: the costs of the pool are assumed, not measured\n");
        orl_destroy(ctx);
        return;
    }
    m.arrived = 0;
    orli_parallel_real(ctx, ORLI_WORK_OTHER, 2, pin, &m);
    for (parked = 0; parked < 2; parked++)
        for (i = 0; i < TIMES; i++) {
            m.arrived = 0;
            wait_busily(parked ? 4 * costs.spin + 1e-4 : 0);
            begin = orl_seconds();
            orli_parallel_real(ctx, ORLI_WORK_OTHER, 2, meet, &m);
            end[i] = orl_seconds() - m.ended;
            first[parked][i] = m.begun[0] - begin, second[parked][i] = m.begun[1] - begin;
        }
    for (i = 0; i < TIMES / 10; i++) {
        begin = orl_seconds();
        orli_parallel_real(ctx, ORLI_WORK_OTHER, GRABS, nothing, NULL);
        grab[i] = (orl_seconds() - begin) / GRABS;
    }
    costs.near = bench_median(second[0], TIMES), costs.far = bench_median(second[1], TIMES);
    costs.call = ORLI_MAX(bench_median(first[1], TIMES) - bench_median(first[0], TIMES), 0.0);
    costs.end = bench_median(end, TIMES), costs.grab = bench_median(grab, TIMES / 10);
    orl_destroy(ctx);
}

/* ---- replay ------------------------------------------------------------------------------------------------------ */

typedef struct loss { /* of regions with the same function and number of tasks, or of the caller alone before them */
    const char *name;
    size_t tasks, regions;
    int serial;
    double seconds; /* more than work / W */
    double uneven;  /* of them: what would be left if the pool cost nothing */
} loss;

typedef struct replay {
    size_t workers;
    double total, work, serial;
    double free; /* total if the pool cost nothing */
    loss loss[512];
    size_t losses;
} replay;

static void add_loss(replay *p, const region *r, int serial, double seconds) {
    const size_t tasks = serial ? 0 : r->tasks;
    size_t i;
    for (i = 0; i < p->losses; i++)
        if (strcmp(p->loss[i].name, r->name) == 0 && p->loss[i].tasks == tasks && p->loss[i].serial == serial) break;
    if (i == sizeof p->loss / sizeof *p->loss) return;
    if (i == p->losses) {
        memset(&p->loss[i], 0, sizeof *p->loss);
        p->loss[i].name = r->name, p->loss[i].tasks = tasks, p->loss[i].serial = serial;
        p->losses++;
    }
    p->loss[i].regions++;
    p->loss[i].seconds += seconds;
}

typedef struct pool_state {
    double idle[MOST_WORKERS]; /* when a worker began to wait: after its last task, or when it was (or will be) up */
    int woken[MOST_WORKERS];   /* it was parked and has not yet looked whether more should be woken */
    int parked[MOST_WORKERS];
} pool_state;

/* Worker `who` (0: the caller) wakes up to `most` others at at[who] if `wanted` are more than are awake. */
static void replay_wake(pool_state *s, double *at, size_t who, size_t most, size_t workers, size_t wanted) {
    const double begin = at[who];
    size_t i, awake = 0;
    for (i = 1; i < workers; i++) awake += !s->parked[i];
    for (i = 1; i < workers && most && awake < wanted; i++) {
        if (!s->parked[i]) continue;
        s->parked[i] = 0, s->woken[i] = 1;
        at[i] = s->idle[i] = at[who] + costs.far; /* of this `call` seconds are those of the one who wakes */
        at[who] += costs.call;
        most--, awake++;
    }
    if (who) s->idle[who] += at[who] - begin;
}

/* As orli_pool_task. */
static size_t replay_task(size_t *next, size_t tasks, size_t who, size_t workers) {
    while (next[who] == orli_part(tasks, workers, who + 1)) who = (who + 1) % workers;
    return next[who]++;
}

/* One region that the caller publishes at time t. Returns its end. */
static double replay_region(const double *time, size_t tasks, double t, size_t workers, pool_state *s) {
    double at[MOST_WORKERS], last = t, counter = t; /* at: when a worker is free; counter: when the task counter is */
    size_t i, next[MOST_WORKERS], begun = 0;
    for (i = 0; i < workers; i++) next[i] = orli_part(tasks, workers, i);
    for (i = 1; i < workers; i++) {
        s->parked[i] |= t - s->idle[i] >= costs.spin;
        at[i] = s->parked[i] ? (double)INFINITY : ORLI_MAX(t + costs.near, s->idle[i]);
    }
    at[0] = t;
    replay_wake(s, at, 0, 1, workers, tasks - 1);
    while (begun < tasks) {
        size_t who = 0;
        for (i = 1; i < workers; i++)
            if (at[i] < at[who]) who = i;
        if (s->woken[who]) {
            s->woken[who] = 0;
            replay_wake(s, at, who, 2, workers, tasks - 1);
            continue;
        }
        counter = ORLI_MAX(counter, at[who]) + costs.grab;
        at[who] = s->idle[who] = counter + time[replay_task(next, tasks, who, workers)];
        begun++;
        last = ORLI_MAX(last, at[who]);
    }
    if (last - at[0] > costs.spin) last += costs.far; /* the caller has parked */
    return last > at[0] ? last + costs.end : at[0];
}

static void replay_once(replay *p, const recording *step, size_t workers) {
    pool_state s;
    double t = 0;
    size_t i, j;
    memset(p, 0, sizeof *p);
    p->workers = workers;
    memset(&s, 0, sizeof s);
    for (i = 1; i < workers; i++) s.parked[i] = costs.spin < 1; /* at first all sleep; a free pool's never do */
    for (i = 0; i < step->regions; i++) {
        const region *r = &step->region[i];
        double work = 0, begin;
        for (j = 0; j < r->tasks; j++) work += step->time[r->first + j];
        t += r->gap;
        begin = t;
        t = workers == 1 || r->tasks < 2 ? t + work : replay_region(step->time + r->first, r->tasks, t, workers, &s);
        p->work += work, p->serial += r->gap;
        add_loss(p, r, 1, r->gap * (1 - 1 / (double)workers));
        add_loss(p, r, 0, t - begin - work / (double)workers);
    }
    p->total = t + step->last_gap, p->serial += step->last_gap;
}

static void replay_step(replay *p, const recording *step, size_t workers) {
    static replay without;
    const pool_costs measured = costs;
    size_t i;
    memset(&costs, 0, sizeof costs);
    costs.spin = INFINITY;
    replay_once(&without, step, workers);
    costs = measured;
    replay_once(p, step, workers);
    p->free = without.total;
    for (i = 0; i < p->losses; i++) p->loss[i].uneven = without.loss[i].seconds; /* both in the same order */
}

static int by_seconds(const void *a, const void *b) {
    const double x = ((const loss *)a)->seconds, y = ((const loss *)b)->seconds;
    return (x < y) - (x > y);
}

static void print_losses(replay *p, const replay *one) {
    size_t i;
    printf("  at W = %zu a step is %.1f ms longer than a %zuth of one worker's step. The most is lost in\n", p->workers,
           1e3 * (p->total - one->total / (double)p->workers), p->workers);
    qsort(p->loss, p->losses, sizeof *p->loss, by_seconds);
    for (i = 0; i < 5 && i < p->losses; i++) {
        const loss *l = &p->loss[i];
        printf("    %8.2f ms  ", 1e3 * l->seconds);
        if (l->serial) printf("the caller alone before %s (%zu ×)\n", l->name, l->regions);
        else printf("%s in %zu tasks (%zu ×): %.2f ms as tasks are uneven, the rest by the pool\n", l->name, l->tasks,
                    l->regions, 1e3 * l->uneven);
    }
    printf("    %8.2f ms  more work than one worker has: packing, copies, smaller tiles\n",
           1e3 * (p->work - one->work) / (double)p->workers);
}

static void bench_case_scaling(const bench_case *c, int rounds) {
    static plan p;
    static replay replays[SPLITS];
    size_t i;
    if (!record(&p, c, rounds)) return;
    for (i = 0; i < SPLITS; i++) replay_step(&replays[i], &p.best[i], splits[i]);
    printf("%s: on one core %.1f ms in %zu regions of %zu tasks; replayed:\n", c->name, 1e3 * replays[0].total,
           p.best[0].regions, p.best[0].times);
    printf("   W     step ms  speed-up  efficiency   all tasks ms  caller alone ms  speed-up with a free pool\n");
    for (i = 0; i < SPLITS; i++) {
        const replay *r = &replays[i];
        const double gain = replays[0].total / r->total;
        char name[80];
        bench_row row;
        printf("%4zu %11.2f %9.2f %9.0f %% %14.1f %16.2f %17.2f\n", r->workers, 1e3 * r->total, gain,
               100 * gain / (double)r->workers, 1e3 * r->work, 1e3 * r->serial, replays[0].total / r->free);
        memset(&row, 0, sizeof row);
        snprintf(name, sizeof name, "%s, replayed", c->name);
        row.bench = "scaling", row.name = name, row.isa = "", row.threads = r->workers, row.unit = "times one worker";
        row.ours = gain, row.peer_name = "all cores", row.peer = (double)r->workers;
        row.ratio = gain / row.peer, row.peak_fraction = (double)NAN;
        bench_json(&row);
    }
    for (i = 1; i < SPLITS; i++)
        if (splits[i] == 16 || splits[i] == 64) print_losses(&replays[i], &replays[0]);
    fflush(stdout);
    for (i = 0; i < SPLITS; i++) free(p.best[i].region), free(p.best[i].time);
    free(p.now.region), free(p.now.time);
}

int main(int argc, char **argv) {
    double begin;
    int i;
    measure_pool();
    printf("the pool: a spinning worker joins after %.2f µs, a parked one after %.1f µs, %.1f of them the caller's;\n"
           "  ending a region takes %.2f µs, taking a task %.0f ns; a worker parks after %.0f µs\n",
           1e6 * costs.near, 1e6 * costs.far, 1e6 * costs.call, 1e6 * costs.end, 1e9 * costs.grab, 1e6 * costs.spin);
    bench_pin(0, 0);
    bench_own_time = 1; /* of this thread, which does all work from here on */
    begin = bench_seconds();
    for (i = 0; i < 1000; i++) clock_cost = bench_seconds() - begin;
    clock_cost /= 1000;
    for (i = 1; i < argc; i++) bench_case_scaling(case_named(argv[i]), 2);
    if (argc == 1) bench_case_scaling(case_named("b"), 2), bench_case_scaling(case_named("demo"), 5);
    return 0;
}
