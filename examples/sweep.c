/* sweep.c - how the settings of `orl demo` were chosen, for every method alike.
 *
 * It teaches: an honest comparison. Each method gets nine settings on the built-in world, with a seed
 * that the study does not use, and prompts that are neither trained nor tested on; the setting of the
 * highest LEARNED reward wins (of equal ones, to two decimals, the cheapest), because that is all a real
 * project would see. Gold is printed beside it, to show what the choice cost, and is not looked at. PPO
 * comes first, as an offline method's training may cost the share of PPO's that the paper claims for it:
 * settings beyond that are shown and cannot win.
 *
 *   cc -O2 examples/sweep.c -o sweep -lm -lpthread
 *   ./sweep [SEED [METHOD]] > sweep.jsonl  (a quarter of an hour on two cores; one method alone has no limit)
 *
 * It prints one line of JSON a setting; the last run's lines are in examples/sweep.jsonl. On stderr, the winners:
 *   mle   learned 1.31  gold 0.66  quantile 0.95, 6 epochs */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "demo.h"

typedef struct winner {
    char method[64], setting[96];
    double reward, gold, flops;
} winner;

static double budget; /* of training FLOPs, for the offline methods; 0 until PPO's are known */

static void report(demo_lab *lab, winner *w, const orl_result *r, const char *setting) {
    char *json = orl_result_json(lab->ctx, r);
    if (!json || orl_failed(lab->ctx)) return;
    printf("{\"setting\": \"%s\", %s\n", setting, json + 1);
    fflush(stdout);
    fprintf(stderr, "  %-6s %-36s learned %.3f  gold %.3f  kl %.2f  %.2f TFLOP\n", r->method, setting, r->reward,
            r->gold, r->kl, r->train_flops / 1e12);
    orl_free(lab->ctx, json);
    if (budget > 0 && r->train_flops > budget) return;
    if (w->method[0] && floor(100 * r->reward + 0.5) < floor(100 * w->reward + 0.5)) return;
    if (w->method[0] && floor(100 * r->reward + 0.5) <= floor(100 * w->reward + 0.5) && r->train_flops >= w->flops)
        return;
    snprintf(w->method, sizeof w->method, "%s", r->method);
    snprintf(w->setting, sizeof w->setting, "%s", setting);
    w->reward = r->reward, w->gold = r->gold, w->flops = r->train_flops;
}

/* Three by three settings of the filter, or of the weights. */
static winner sweep_views(demo_lab *lab, int weights) {
    static const double quantile[] = {0.8, 0.9, 0.95}, epochs[] = {3, 6, 12};
    static const double beta[] = {0.2, 0.3, 0.45}, clip[] = {20, 100, 1000};
    demo_method mle = {"mle", 0, 0, 0, ORL_CONDITION_NONE, 0, 0, 0, 0, 1e-3};
    demo_method rwr = {"rwr", 0, 0, 0, ORL_CONDITION_NONE, 0, 0, 0, 1, 1e-3};
    winner w = {"", "", 0, 0, 0};
    char setting[96];
    int i;
    for (i = 0; i < 9; i++) {
        orl_result r;
        mle.quantile = quantile[i / 3], mle.epochs = epochs[i % 3];
        rwr.beta = beta[i / 3], rwr.clip = clip[i % 3];
        if (weights) snprintf(setting, sizeof setting, "beta %g, clip %g, 1 epoch", rwr.beta, rwr.clip);
        else snprintf(setting, sizeof setting, "quantile %g, %g epochs", mle.quantile, mle.epochs);
        orl_model_free(demo_offline(lab, weights ? &rwr : &mle, NULL, NULL, &r));
        report(lab, &w, &r, setting);
    }
    return w;
}
static winner sweep_mle(demo_lab *lab) { return sweep_views(lab, 0); }
static winner sweep_rwr(demo_lab *lab) { return sweep_views(lab, 1); }

/* Guidance costs no training: three models, each asked in three ways. */
static winner sweep_dt(demo_lab *lab) {
    static const double lr[] = {1.5e-3, 3e-3, 3e-3}, epochs[] = {1, 1, 2}, guidance[] = {1, 2, 4};
    winner w = {"", "", 0, 0, 0};
    char setting[96];
    int i, k;
    for (i = 0; i < 3; i++) {
        demo_method how = {"dt", 0, 0, 0, ORL_CONDITION_BINS, 0.1, 0, 0.95, 0, 0};
        orl_result r;
        orl_model *m;
        how.lr = lr[i], how.epochs = epochs[i], how.guidance = guidance[0];
        m = demo_offline(lab, &how, NULL, NULL, &r);
        for (k = 0; k < 3; k++) {
            orl_result asked = r;
            how.guidance = guidance[k];
            if (k) {
                demo_measure(lab, m, &how, DEMO_TEST_SAMPLES, &asked);
                snprintf(asked.method, sizeof asked.method, "dt");
                asked.seed = r.seed, asked.train_flops = r.train_flops, asked.train_seconds = r.train_seconds;
                asked.data_flops = r.data_flops, asked.data_seconds = r.data_seconds;
            }
            snprintf(setting, sizeof setting, "lr %g, %g epochs, guidance %g", how.lr, how.epochs, how.guidance);
            report(lab, &w, &asked, setting);
        }
        orl_model_free(m);
    }
    return w;
}

static winner sweep_ppo(demo_lab *lab) {
    static const double kl[] = {0.02, 0.05, 0.1}, lr[] = {1.5e-4, 3e-4, 1e-3};
    winner w = {"", "", 0, 0, 0};
    char setting[96];
    int i;
    for (i = 0; i < 9; i++) {
        orl_ppo_options o = demo_ppo_options(lab);
        orl_result r;
        orl_model *m;
        o.kl = kl[i / 3], o.lr = lr[i % 3];
        m = demo_ppo(lab, "ppo", &o, NULL, NULL, &r);
        snprintf(setting, sizeof setting, "kl %g, lr %g", o.kl, o.lr);
        report(lab, &w, &r, setting);
        orl_model_free(m);
    }
    return w;
}

int main(int argc, char **argv) {
    static winner (*const sweep[])(demo_lab *) = {sweep_ppo, sweep_mle, sweep_rwr, sweep_dt};
    static const char *const name[] = {"ppo", "mle", "rwr", "dt"};
    orl_config config = orl_config_default();
    demo_lab lab;
    int i, failed;
    memset(&lab, 0, sizeof lab);
    lab.seed = config.seed = argc > 1 ? (uint64_t)strtoul(argv[1], NULL, 10) : 101;
    lab.ctx = orl_create(&config);
    lab.scale = demo_full;
    lab.say = demo_print_stage;
    demo_prepare(&lab);
    lab.tests = demo_prompts(lab.ctx, 400, lab.seed * 77 + 9, 0); /* for choosing: not those of the study */
    for (i = 0; i < 4; i++) {
        winner w;
        if (argc > 2 && strcmp(argv[2], name[i]) != 0) continue;
        w = sweep[i](&lab);
        if (!i) budget = DEMO_CLAIM * w.flops;
        fprintf(stderr, "%-6s learned %.3f  gold %.3f  %s\n", w.method, w.reward, w.gold, w.setting);
    }
    failed = orl_failed(lab.ctx);
    if (failed) fprintf(stderr, "sweep: %s\n", orl_error(lab.ctx));
    orl_destroy(lab.ctx);
    return failed;
}
