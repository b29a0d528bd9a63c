/* orl.c - the command-line tool: offline RLHF on your own files.
 *
 *   cc -O2 examples/orl.c -o orl -lm -lpthread
 *   ./orl --help          the subcommands
 *   ./orl align --help    the options of one of them
 *
 * JSONL rows and Hugging Face directories go in, Hugging Face directories and JSONL rows come out.
 * Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,
 * 130 interrupted (a training run finishes its step and saves, to be continued with --resume).
 *
 * The file reads top-down: terminal · options (one table) · files · the ledger · training · the
 * subcommands, each a short function on the library's public API · the command line · main. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "demo.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096
#define MAX_LIST 64
#define GO (-1) /* what a check returns when all is well; anything else is an exit status */

/* ==== the terminal ============================================================================= */

static struct {
    int redraw, quiet; /* redraw: one progress line; else plain lines, not too many */
    int open;          /* a progress line stands unfinished */
    double shown;      /* when the last one was written */
} terminal;

static volatile sig_atomic_t interrupted;
static void on_signal(int number) { interrupted = number; }

/* From here on SIGINT and SIGTERM only ask: progress callbacks look at `interrupted`. A second
 * signal finds the default action and ends the program at once. */
static void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void vsay(const char *format, va_list args) {
    if (terminal.open) fputs("\n", stderr);
    terminal.open = 0;
    fputs("orl: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
}
static void say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsay(format, args);
    va_end(args);
}
static int fail(const char *format, ...) { /* returns the exit status of a failure */
    va_list args;
    va_start(args, format);
    vsay(format, args);
    va_end(args);
    return 1;
}

/* Progress: redrawn ten times a second on a terminal, else a line every five seconds and the last. */
static void progress(int last, const char *format, ...) {
    char line[128];
    double now = orl_seconds();
    va_list args;
    if (terminal.quiet || (!last && terminal.shown > 0 && now - terminal.shown < (terminal.redraw ? 0.1 : 5))) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (terminal.redraw) line[79] = 0, fprintf(stderr, "\r\033[K%s%s", line, last ? "\n" : "");
    else fprintf(stderr, "%s\n", line);
    fflush(stderr);
    terminal.open = terminal.redraw && !last;
    terminal.shown = last ? 0 : now;
}

/* What the library has to say. A run is estimated before it starts, so it may say a thing twice. */
static void on_note(void *user, const char *sentence) {
    static char last[1024];
    (void)user;
    if (!strcmp(last, sentence)) return;
    snprintf(last, sizeof last, "%s", sentence);
    say("%s", sentence);
}

/* 1234567 → 1.23M; for reading only. */
static const char *brief(char buffer[16], double x) {
    static const char unit[] = " KMGTPE";
    size_t i = 0;
    while (x >= 999.5 && i + 2 < sizeof unit) x /= 1000, i++;
    if (i) snprintf(buffer, 16, "%.3g%c", x, unit[i]);
    else snprintf(buffer, 16, "%.0f", x);
    return buffer;
}
static double megabytes(size_t bytes) { return (double)bytes / 1048576; }

/* One helper at the end of everything: says what failed, if anything did, and gives the exit status. */
static int finish(orl_ctx *ctx) {
    if (!orl_failed(ctx)) return 0;
    if (orl_error_status(ctx) == ORL_ERR_STOPPED)
        return say("stopped"), 128 + (interrupted ? (int)interrupted : SIGINT);
    return fail("%s", orl_error(ctx));
}

/* ==== options ================================================================================== */

typedef struct list {
    const char *item[MAX_LIST];
    size_t count;
} list;

typedef struct options {
    /* files */
    const char *data, *eval_data, *ptx_data, *rm, *tokenizer, *llama2c, *ledger, *out_train, *out_test, *by, *prompt;
    const char *out, *system;
    list models, train_files, specials, stops, forbids;
    int32_t forbidden[MAX_LIST]; /* ids of `forbids` */
    double kv_mb;
    double test_fraction;
    int template_kind;
    /* what the library takes, filled in directly */
    orl_config config;
    orl_model_config shape; /* zeros stand for the architecture's defaults */
    orl_train_options train;
    orl_ppo_options ppo;
    orl_generate_options generate;
    orl_condition_options condition;
    orl_rm_loss rm_loss;
    demo_options demo;
    orl_lora_options lora; /* rank 0: none */
    int arch, untied, dtype, schedule, share, weights; /* weights: enum storage */
    size_t vocab;
    /* stages of align */
    const char *method;
    int filter_rule, condition_kind, baseline;
    double filter_x, beta, weight_clip;
    /* switches */
    int quiet, strict, resume, overwrite, estimate, dump_batch, dump, merge, frozen, lines, per_token, help;
    unsigned char given[128]; /* by index in option_table */
    const char *command;
} options;

enum storage { AS_F32, AS_BF16, AS_INT8, STORAGES }; /* of weights that are only used */

enum { /* which subcommands an option belongs to */
    DEMO = 1 << 0, TOKENIZER = 1 << 1, ENCODE = 1 << 2, DECODE = 1 << 3, INIT = 1 << 4, IMPORT = 1 << 5,
    SPLIT = 1 << 6, PRETRAIN = 1 << 7, SFT = 1 << 8, RM = 1 << 9, GENERATE = 1 << 10, LOGPROB = 1 << 11,
    SCORE = 1 << 12, ALIGN = 1 << 13, EVAL = 1 << 14, EXPORT = 1 << 15, CHAT = 1 << 16, PRECISION = 1 << 17,
    TRAINS = PRETRAIN | SFT | RM | ALIGN,
    SAMPLES = GENERATE | EVAL,
    SPEAKS = SAMPLES | CHAT,
    READS = SPLIT | TRAINS | SAMPLES | LOGPROB | SCORE | PRECISION,
    WRITES = TOKENIZER | INIT | IMPORT | EXPORT | SPLIT | TRAINS | SAMPLES | LOGPROB | SCORE,
    ALL = (1 << 18) - 1,
    /* and which methods of `align` */
    FOR_PPO = 1 << 20,  /* PPO alone */
    STAGE = 1 << 21,    /* the offline methods: a filter, a weight, a condition */
    NOT_PPO = 1 << 22,
    IN_PPO = ALIGN | FOR_PPO,
    OFFLINE = ALIGN | STAGE
};

typedef enum type { FLAG, OFF, COUNT, SEED, INTEGER, REAL, TEXT, LIST, CHOICE, TARGET, FILTER } type;

typedef struct option {
    const char *name, *value; /* value: how help calls it; of a CHOICE, its words */
    type kind;
    int commands;
    size_t target, second; /* where it goes; of a FILTER, second is the rule */
    const char *help;
} option;

#define AT(field) offsetof(options, field)
#define NOWHERE ((size_t)-1)
#define ONE(field) AT(field), NOWHERE
#define BOTH(field) AT(train.field), AT(ppo.field)

static const option option_table[] = {
    {"model", "DIR", LIST, ENCODE | DECODE | EXPORT | TRAINS | SPEAKS | LOGPROB | PRECISION, ONE(models),
     "a Hugging Face directory (eval: several; the first is what the others are compared with)"},
    {"data", "FILE", TEXT, READS, ONE(data), "JSONL rows; - is stdin"},
    {"data", "FILE", TEXT, ENCODE, ONE(data), "with --dump: JSONL rows instead of text, as training sees them"},
    {"prompt", "TEXT", TEXT, GENERATE, ONE(prompt), "one prompt instead of --data"},
    {"rm", "DIR", TEXT, SCORE | ALIGN | EVAL, ONE(rm), "a reward model"},
    {"out", "DIR|FILE", TEXT, WRITES & ~SPLIT, ONE(out), "where the result goes; rows without it go to stdout"},
    {"out", "DIR", TEXT, DEMO, ONE(demo.out), "where results.jsonl and report.html go"},
    {"dtype", "f32|f16|bf16", CHOICE, INIT | IMPORT | TRAINS, ONE(dtype), "how the weights are stored; default f32"},
    {"dtype", "f32|f16|bf16|q8_0", CHOICE, EXPORT, ONE(dtype), "how the weights are stored; default f32"},
    {"overwrite", NULL, FLAG, WRITES, ONE(overwrite), "replace an existing output"},
    {"ledger", "FILE", TEXT, TRAINS | SAMPLES | SCORE, ONE(ledger),
     "a line of cost (tokens, FLOPs, seconds) is added here; eval reads it and reports each model's"},
    {"template", "hh|chatml|qwen|qwen3|llama2|llama3|zephyr|alpaca|gemma|mistral", CHOICE, READS | ENCODE | CHAT,
     ONE(template_kind), "how messages become text; default: what the tokenizer's special tokens tell of, else hh"},
    /* tokenizer, encode, decode */
    {"train", "FILE…", LIST, TOKENIZER, ONE(train_files), "text to learn from; of .jsonl files the text fields"},
    {"vocab", "N", COUNT, TOKENIZER | INIT, ONE(vocab), "tokens in all"},
    {"special", "TOKEN…", LIST, TOKENIZER, ONE(specials), "special tokens beside <|endoftext|>"},
    {"dump", NULL, FLAG, ENCODE, ONE(dump), "a line for each token: id and text; of rows, its loss weight too"},
    {"lines", NULL, FLAG, ENCODE | DECODE, ONE(lines), "each line by itself"},
    /* init, import, export, split */
    {"arch", "gpt2|llama|gpt_neo|gpt_neox|mistral|qwen2|qwen3|smollm3|gemma3", CHOICE, INIT, ONE(arch),
     "family of transformer; default llama"},
    {"layers", "N", COUNT, INIT, ONE(shape.layers), "transformer blocks"},
    {"dim", "N", COUNT, INIT, ONE(shape.dim), "width"},
    {"heads", "N", COUNT, INIT, ONE(shape.heads), "attention heads"},
    {"kv-heads", "N", COUNT, INIT, ONE(shape.kv_heads), "heads of keys and values; default: as many as heads"},
    {"ffn", "N", COUNT, INIT, ONE(shape.ffn),
     "hidden width of the feed-forward part; default 4·dim (gpt2), 8/3·dim (llama)"},
    {"ctx", "N", COUNT, INIT, ONE(shape.context), "longest sequence in tokens"},
    {"untied", NULL, FLAG, INIT, ONE(untied), "a language head of its own instead of the token embedding"},
    {"llama2c", "FILE", TEXT, IMPORT, ONE(llama2c), "weights in llama2.c's format"},
    {"tokenizer", "DIR", TEXT, INIT, ONE(tokenizer), "the tokenizer the model gets"},
    {"tokenizer", "FILE", TEXT, IMPORT, ONE(tokenizer), "a tokenizer in llama2.c's format"},
    {"by", "FIELD", TEXT, SPLIT, ONE(by),
     "keep rows with the same value of this field on one side; default: the same prompt"},
    {"test-fraction", "X", REAL, SPLIT, ONE(test_fraction), "share of the groups that becomes the test set"},
    {"out-train", "FILE", TEXT, SPLIT, ONE(out_train), "training rows"},
    {"out-test", "FILE", TEXT, SPLIT, ONE(out_test), "test rows"},
    /* sampling */
    {"n", "N", COUNT, SAMPLES, ONE(generate.samples), "samples per prompt"},
    {"temperature", "X", REAL, SPEAKS, ONE(generate.temperature), "0 is greedy"},
    {"top-k", "K", COUNT, SPEAKS, ONE(generate.top_k), "sample from the K likeliest tokens; 0: all"},
    {"top-p", "P", REAL, SPEAKS, ONE(generate.top_p),
     "sample from the likeliest tokens that hold this much probability"},
    {"min-p", "P", REAL, SPEAKS, ONE(generate.min_p), "not from tokens less than P times as likely as the likeliest"},
    {"repetition-penalty", "X", REAL, SPEAKS, ONE(generate.repetition_penalty),
     "logits of tokens that are there already: positive ones divided by X, others multiplied"},
    {"stop", "TEXT…", LIST, SPEAKS, ONE(stops), "a response ends before this; \\n, \\t and \\\\ as in C"},
    {"forbid", "TOKEN…", LIST, SPEAKS, ONE(forbids), "never this token: its id, or its text"},
    {"kv-mb", "X", REAL, SPEAKS, ONE(kv_mb), "most MB of keys and values; 0: no bound; results do not depend on it"},
    {"kv-bf16", NULL, FLAG, SPEAKS, ONE(generate.kv_bf16), "keys and values rounded to bf16: half the memory"},
    {"system", "TEXT", TEXT, CHAT, ONE(system), "the system message"},
    {"max-tokens", "N", COUNT, SPEAKS, ONE(generate.max_tokens), "longest response; 0: as the context allows"},
    {"target-reward", "X|q0.99|none", TARGET, SPEAKS, ONE(generate),
     "what a conditioned model is asked for; default: its own"},
    {"guidance", "G", REAL, SPEAKS, ONE(generate.guidance),
     "classifier-free guidance of a conditioned model; 0: off"},
    {"best-of", "N", FILTER, EVAL, AT(filter_x), ORL_BEST_OF,
     "one more row: the best of N samples of the first model"},
    {"per-token", NULL, FLAG, LOGPROB, ONE(per_token), "add \"logprobs\", one for each response token"},
    /* reward model */
    {"margin", "M", REAL, RM, ONE(rm_loss.margin),
     "by how much chosen must score above rejected where rows have no margin"},
    {"center", "E", REAL, RM, ONE(rm_loss.center), "weight of the pull of scores to 0; 0.01 is customary"},
    /* stages of align */
    {"method", "NAME", TEXT, ALIGN, ONE(method),
     "sft|mle|rwr|dt|ppo|dpo; mle+dt and the like combine the offline ones"},
    {"threshold", "X", FILTER, OFFLINE, AT(filter_x), ORL_ABOVE, "filter: normalised reward above X (mle: 0)"},
    {"quantile", "Q", FILTER, OFFLINE, AT(filter_x), ORL_ABOVE_QUANTILE,
     "filter: above this quantile of all rewards"},
    {"top-k-per-prompt", "K", FILTER, OFFLINE, AT(filter_x), ORL_TOP_K, "filter: the K best of each prompt"},
    {"best-of", "N", FILTER, OFFLINE, AT(filter_x), ORL_BEST_OF, "filter: the best of each N samples of a prompt"},
    {"beta", "B", REAL, ALIGN | NOT_PPO, ONE(beta),
     "weight e^((reward − baseline)/B) (rwr: 1); of dpo, its β (default 0.1)"},
    {"baseline", "none|mean|prompt", CHOICE, OFFLINE, ONE(baseline),
     "what is taken off the reward before weighting; default none"},
    {"weight-clip", "C", REAL, OFFLINE, ONE(weight_clip), "largest weight"},
    {"condition", "text|bins", CHOICE, OFFLINE, ONE(condition_kind),
     "condition on the reward, as text (dt's default) or ordered tokens"},
    {"reward-decimals", "N", INTEGER, OFFLINE, ONE(condition.decimals), "digits after the point in the text"},
    {"condition-format", "TEXT", TEXT, OFFLINE, ONE(condition.format), "the text, with {reward} in it"},
    {"bins", "N", COUNT, OFFLINE, ONE(condition.bins), "how many ordered tokens"},
    {"condition-dropout", "P", REAL, OFFLINE, ONE(condition.dropout),
     "share of rows shown without their reward, for --guidance"},
    {"rank-per-prompt", NULL, FLAG, OFFLINE, ONE(condition.rank_per_prompt),
     "condition on the rank among the prompt's own samples"},
    {"default-quantile", "Q", REAL, OFFLINE, ONE(condition.target_quantile),
     "what the model asks itself for when nobody says"},
    /* PPO */
    {"kl", "X", REAL, IN_PPO, ONE(ppo.kl), "coefficient of the KL penalty"},
    {"kl-target", "X", REAL, IN_PPO, ONE(ppo.kl_target),
     "KL per response that the coefficient is steered to; 0: fixed"},
    {"kl-horizon", "X", REAL, IN_PPO, ONE(ppo.kl_horizon), "how slowly it is steered, in responses"},
    {"gamma", "X", REAL, IN_PPO, ONE(ppo.gamma), "discount"},
    {"lambda", "X", REAL, IN_PPO, ONE(ppo.lambda), "of generalised advantage estimation"},
    {"clip-lo", "X", REAL, IN_PPO, ONE(ppo.clip_low), "ratios are clipped at 1 − X"},
    {"clip-hi", "X", REAL, IN_PPO, ONE(ppo.clip_high), "… and 1 + X"},
    {"value-clip", "X", REAL, IN_PPO, ONE(ppo.value_clip), "how far the critic moves in one batch"},
    {"rollouts", "N", COUNT, IN_PPO, ONE(ppo.rollouts), "responses in a rollout batch"},
    {"ppo-epochs", "N", COUNT, IN_PPO, ONE(ppo.epochs), "passes over each rollout batch"},
    {"minibatch", "N", COUNT, IN_PPO, ONE(ppo.minibatch), "rollouts per optimizer step"},
    {"critic-lr", "X", REAL, IN_PPO, ONE(ppo.critic_lr), "learning rate of the critic"},
    {"reward-clip", "X", REAL, IN_PPO, ONE(ppo.reward_clip), "scores are clipped at ±X"},
    {"unfinished-penalty", "X", REAL, IN_PPO, ONE(ppo.unfinished_penalty),
     "taken off the reward of a response that --max-tokens cut"},
    {"ptx", "X", REAL, IN_PPO, ONE(ppo.ptx), "weight of the language-model loss on --ptx-data"},
    {"ptx-data", "FILE", TEXT, IN_PPO, ONE(ptx_data), "rows for it"},
    {"max-tokens", "N", COUNT, IN_PPO, ONE(ppo.max_tokens), "longest response; 0: as the context allows"},
    {"temperature", "X", REAL, IN_PPO, ONE(ppo.temperature), "of the rollouts"},
    /* training */
    {"steps", "N", COUNT, TRAINS, AT(train.steps), AT(ppo.iterations),
     "optimizer steps (ppo: rollout batches); 0: as --epochs says"},
    {"epochs", "X", REAL, TRAINS | NOT_PPO, ONE(train.epochs), "passes over the data"},
    {"batch", "ROWS", COUNT, TRAINS | NOT_PPO, ONE(train.batch), "rows (or pairs) per optimizer step"},
    {"micro-tokens", "N", COUNT, TRAINS, BOTH(micro_tokens), "most tokens in one forward pass: bounds memory"},
    {"lr", "X", REAL, TRAINS, BOTH(lr), "learning rate"},
    {"schedule", "constant|linear|cosine", CHOICE, TRAINS, ONE(schedule), "of the learning rate"},
    {"min-lr", "X", REAL, TRAINS | NOT_PPO, ONE(train.min_lr), "where the schedule ends, as a share of --lr"},
    {"warmup", "N", COUNT, TRAINS, BOTH(warmup), "steps over which it rises from 0"},
    {"beta1", "X", REAL, TRAINS, BOTH(beta1), "AdamW"},
    {"beta2", "X", REAL, TRAINS, BOTH(beta2), "AdamW"},
    {"eps", "X", REAL, TRAINS, BOTH(eps), "AdamW"},
    {"weight-decay", "X", REAL, TRAINS, BOTH(weight_decay), "AdamW; on matrices only"},
    {"clip", "X", REAL, TRAINS, BOTH(clip), "global norm that gradients are clipped to; 0: off"},
    {"lora", "RANK", COUNT, TRAINS, ONE(lora.rank),
     "train a low-rank adapter alone; BF16 weights stay in their file; OUT is the adapter, or the whole with --merge"},
    {"lora-alpha", "X", REAL, TRAINS, ONE(lora.alpha), "its scale is X/RANK; default 2·RANK"},
    {"lora-targets", "NAMES", TEXT, TRAINS, ONE(lora.targets), "modules, as q_proj,v_proj; default all linear layers"},
    {"merge", NULL, FLAG, TRAINS, ONE(merge), "write the model with the adapter merged into its weights"},
    {"share", "pair|prompt|none", CHOICE, TRAINS | NOT_PPO, ONE(share),
     "prompts computed once: of a pair, or of all rows of a prompt, which then stay together; default pair"},
    {"recompute", NULL, FLAG, TRAINS | NOT_PPO, ONE(train.recompute),
     "work activations out again in the backward pass: much less memory, a third slower"},
    {"frozen", NULL, FLAG, SPEAKS | LOGPROB | SCORE | ALIGN, ONE(frozen),
     "BF16 weights stay in their file: less memory, the same numbers (align: those of --rm)"},
    {"weights", "f32|bf16|int8", CHOICE, SPEAKS | LOGPROB | SCORE | ALIGN, ONE(weights),
     "how weights are kept in memory (align: those of --rm); default f32; orl precision says what others cost"},
    {"no-shuffle", NULL, OFF, TRAINS | NOT_PPO, ONE(train.shuffle), "rows in file order, wrapping around"},
    {"eval-data", "FILE", TEXT, TRAINS | NOT_PPO, ONE(eval_data), "validation rows"},
    {"eval-every", "N", COUNT, TRAINS | NOT_PPO, ONE(train.eval_every),
     "steps between validations; 0: at the end only"},
    {"log", "FILE", TEXT, TRAINS, BOTH(log), "JSONL log; default OUT/log.jsonl"},
    {"save-every", "N", COUNT, TRAINS, BOTH(save_every), "steps between checkpoints; 0: when interrupted only"},
    {"resume", NULL, FLAG, TRAINS, ONE(resume), "go on where OUT.partial/ stopped"},
    {"estimate", NULL, FLAG, TRAINS, ONE(estimate), "say memory and time, and stop"},
    {"dump-batch", NULL, FLAG, TRAINS, ONE(dump_batch), "show the first rows' tokens with their weights, and stop"},
    /* demo */
    {"seeds", "N", COUNT, DEMO, ONE(demo.seeds), "runs, with seeds S, S + 1, …"},
    {"quick", NULL, FLAG, DEMO, ONE(demo.quick), "a short form that only shows that everything works"},
    /* everywhere */
    {"threads", "N", COUNT, ALL, AT(config.threads), AT(demo.threads),
     "0: one per core; results do not depend on it"},
    {"seed", "S", SEED, ALL, AT(config.seed), AT(demo.seed), "of everything random"},
    {"quiet", NULL, FLAG, ALL, AT(quiet), AT(demo.quiet), "no progress, only warnings and errors"},
    {"strict", NULL, FLAG, ALL & ~DEMO, ONE(strict), "a row that must be cut or dropped is an error"},
    {"help", NULL, FLAG, ALL, ONE(help), "this text"},
};
#define OPTIONS (sizeof option_table / sizeof *option_table)
typedef char given_has_room_for_every_option[OPTIONS <= sizeof((options *)0)->given ? 1 : -1];

static const option *find_option(const char *name, size_t length, int commands) {
    size_t i;
    for (i = 0; i < OPTIONS; i++)
        if ((option_table[i].commands & commands) && strlen(option_table[i].name) == length &&
            !memcmp(option_table[i].name, name, length))
            return &option_table[i];
    return NULL;
}

static int given(const options *o, const char *name) { /* under any subcommand: only one is being run */
    size_t i;
    for (i = 0; i < OPTIONS; i++)
        if (o->given[i] && !strcmp(option_table[i].name, name)) return 1;
    return 0;
}

static const char *dashes(const char *name) { return name[1] ? "--" : "-"; }

static void defaults(options *o) {
    memset(o, 0, sizeof *o);
    o->config = orl_config_default();
    o->train = orl_train_default();
    o->ppo = orl_ppo_default();
    o->generate = orl_generate_default();
    o->condition = orl_condition_default(ORL_CONDITION_TEXT);
    o->demo.seed = 1;
    o->demo.seeds = 1;
    o->arch = ORL_LLAMA;
    o->schedule = o->share = o->weights = -1;
    o->test_fraction = 0.2;
    o->filter_rule = -1;
    o->weight_clip = 20;
}

/* ---- reading values ---- */

/* Index of `word` among "a|b|c", −1 if it is not there. */
static int choose(const char *words, const char *word) {
    size_t length = strlen(word);
    int index = 0;
    for (; *words; index++) {
        size_t n = strcspn(words, "|");
        if (n == length && !memcmp(words, word, n)) return index;
        words += n + (words[n] == '|');
    }
    return -1;
}

static int read_real(const char *text, double *x) {
    char *end;
    *x = strtod(text, &end);
    return end != text && !*end && isfinite(*x);
}

static int read_count(const char *text, uint64_t *n) {
    char *end;
    if (*text < '0' || *text > '9') return 0; /* strtoull would take -1 */
    errno = 0;
    *n = strtoull(text, &end, 10);
    return !*end && !errno;
}

/* Stores one value; 0 if the text is not one. */
static int store(options *o, const option *t, const char *text) {
    size_t where[2], k;
    uint64_t count = 0;
    double real = 0;
    where[0] = t->target;
    where[1] = t->kind == FILTER ? NOWHERE : t->second;
    for (k = 0; k < 2 && where[k] != NOWHERE; k++) {
        void *target = (char *)o + where[k];
        switch (t->kind) {
        case FLAG: *(int *)target = 1; break;
        case OFF: *(int *)target = 0; break;
        case COUNT:
            if (!read_count(text, &count) || count > SIZE_MAX / 4) return 0;
            *(size_t *)target = (size_t)count;
            break;
        case SEED:
            if (!read_count(text, (uint64_t *)target)) return 0;
            break;
        case INTEGER:
            if (!read_count(text, &count) || count > 1000) return 0;
            *(int *)target = (int)count;
            break;
        case REAL:
            if (!read_real(text, (double *)target)) return 0;
            break;
        case TEXT: *(const char **)target = text; break;
        case LIST: {
            list *l = (list *)target;
            if (l->count == MAX_LIST) return 0;
            l->item[l->count++] = text;
            break;
        }
        case CHOICE:
            if ((*(int *)target = choose(t->value, text)) < 0) return 0;
            break;
        case FILTER: /* K and N are whole numbers */
            if (!read_real(text, &real)) return 0;
            if (t->second >= ORL_TOP_K && !(read_count(text, &count) && count > 0)) return 0;
            *(double *)target = real;
            o->filter_rule = (int)t->second;
            break;
        case TARGET: {
            orl_generate_options *g = (orl_generate_options *)target;
            g->target = !strcmp(text, "none") ? ORL_TARGET_NONE : *text == 'q' ? ORL_TARGET_QUANTILE : ORL_TARGET_VALUE;
            if (g->target != ORL_TARGET_NONE && !read_real(text + (*text == 'q'), &g->target_value)) return 0;
            if (g->target == ORL_TARGET_QUANTILE && !(g->target_value >= 0 && g->target_value <= 1)) return 0;
            break;
        }
        }
    }
    return 1;
}

static int usage(const options *o, const char *format, ...) { /* returns the exit status of wrong usage */
    va_list args;
    va_start(args, format);
    vsay(format, args);
    va_end(args);
    fprintf(stderr, "see: orl %s%s--help\n", o->command ? o->command : "", o->command ? " " : "");
    return 2;
}

/* ==== files ==================================================================================== */

static int exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

static int join(char path[PATH_SIZE], const char *a, const char *b) {
    int n = snprintf(path, PATH_SIZE, "%s%s", a, b);
    return n > 0 && n < PATH_SIZE ? GO : fail("%.80s…: the path is too long", a);
}

/* All of a stream, allocated and zero-terminated. */
static char *read_all(FILE *f, size_t *bytes) {
    size_t capacity = 1 << 16, n = 0, got;
    char *text = (char *)malloc(capacity);
    while (text && (got = fread(text + n, 1, capacity - n - 1, f)) > 0) {
        char *grown = text;
        n += got;
        if (n + 1 == capacity && !(grown = (char *)realloc(text, capacity *= 2))) free(text);
        text = grown;
    }
    if (!text) return fail("no memory for the input"), NULL;
    text[n] = 0;
    *bytes = n;
    return text;
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    char *text = f ? read_all(f, bytes) : NULL;
    if (!f) fail("%s: cannot be opened: %s", path, strerror(errno));
    else fclose(f);
    return text;
}

/* Calls back for each entry of a directory; −1 if it is none, else how many entries there are. */
static int each_entry(const char *dir, void (*entry)(void *user, const char *path, const char *name), void *user) {
    DIR *d = opendir(dir);
    struct dirent *e;
    int count = 0;
    if (!d) return -1;
    while ((e = readdir(d)) != NULL) {
        char path[PATH_SIZE + 264];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (entry) entry(user, path, e->d_name);
        count++;
    }
    closedir(d);
    return count;
}

static void note_entry(void *user, const char *path, const char *name) {
    int *seen = (int *)user; /* [0] something of ours, [1] a directory */
    struct stat info;
    seen[0] |= choose("config.json|tokenizer.json|results.jsonl|checkpoint|log.jsonl|rows.txt", name) >= 0;
    seen[1] |= lstat(path, &info) == 0 && S_ISDIR(info.st_mode);
}
/* Only what this tool may have written is ever removed: a flat directory with a known file in it. */
static int is_ours(const char *dir) {
    int seen[2] = {0, 0}, count = each_entry(dir, note_entry, seen);
    return count == 0 || (count > 0 && seen[0] && !seen[1]);
}

static void remove_entry(void *user, const char *path, const char *name) {
    (void)user, (void)name;
    remove(path);
}
static void remove_dir(const char *dir) {
    if (!is_ours(dir)) return;
    each_entry(dir, remove_entry, NULL);
    rmdir(dir);
}

/* May this output be written? GO, or an exit status: 0 when --resume finds the work done. */
static int check_out(const options *o, const char *out, int directory) {
    struct stat info;
    char path[PATH_SIZE];
    int is_dir;
    if (!out || o->estimate || o->dump_batch || stat(out, &info) != 0) return GO;
    is_dir = S_ISDIR(info.st_mode);
    if (directory != is_dir && !(!directory && !S_ISREG(info.st_mode)))
        return fail("%s: is %s directory, the output is %s: choose another --out", out, is_dir ? "a" : "no",
                    directory ? "one" : "a file");
    if (is_dir ? each_entry(out, NULL, NULL) == 0 : info.st_size == 0) return GO;
    if (directory && o->resume) {
        if (join(path, out, "/config.json") != GO || !exists(path))
            return fail("%s: is no finished run: choose another --out", out);
        if (join(path, out, "/checkpoint") == GO) remove(path); /* left if the run was killed while it finished */
        return say("%s is finished: nothing to do", out), 0;
    }
    if (!o->overwrite)
        return fail("%s: is there already: choose another --out, or give --overwrite to replace it", out);
    if (directory && !is_ours(out))
        return fail("%s: does not look like something orl wrote, so it is not replaced: remove it yourself", out);
    return GO;
}

static int make_dir(const char *path) { /* with its parents */
    char part[PATH_SIZE];
    size_t i, n = strlen(path);
    if (join(part, path, "") != GO) return 1;
    for (i = 1; i <= n; i++)
        if (path[i] == '/' || !path[i]) {
            part[i] = 0;
            if (mkdir(part, 0777) != 0 && errno != EEXIST)
                return fail("%s: the directory cannot be made: %s", part, strerror(errno));
            part[i] = path[i];
        }
    return GO;
}

/* OUT.partial/ becomes OUT by one rename; what --overwrite replaces goes away just before. */
static int publish(const char *partial, const char *out) {
    remove_dir(out);
    if (rename(partial, out) != 0) return fail("%s: cannot be renamed to %s: %s", partial, out, strerror(errno));
    return GO;
}

/* A directory that is written at once, without steps. */
static int begin_dir(const options *o, char partial[PATH_SIZE]) {
    int code = check_out(o, o->out, 1);
    if (code == GO) code = join(partial, o->out, ".partial");
    if (code == GO && exists(partial)) { /* left by a run that was killed */
        if (!is_ours(partial)) return fail("%s: does not look like something orl wrote: remove it yourself", partial);
        remove_dir(partial);
    }
    return code;
}
static int end_dir(orl_ctx *ctx, const options *o, const char *partial) {
    if (orl_failed(ctx)) return remove_dir(partial), finish(ctx);
    return publish(partial, o->out) == GO ? 0 : 1;
}

/* ---- rows ---- */

/* model: what is to see the rows, which says how messages become text; NULL if nothing is. */
static orl_dataset *load_data(orl_ctx *ctx, const options *o, const char *path, orl_model *model) {
    const char *chosen = given(o, "template") ? orl_template_name((orl_template)o->template_kind) : NULL;
    orl_dataset *data;
    size_t bytes = 0;
    if (!strcmp(path, "-")) {
        char *text = read_all(stdin, &bytes);
        data = text ? orl_dataset_parse(ctx, text, bytes, "stdin") : NULL;
        free(text);
    } else {
        data = orl_dataset_load(ctx, path);
    }
    if (model) orl_dataset_use_template(data, model, chosen);
    else if (chosen) orl_dataset_set_template(data, (orl_template)o->template_kind);
    return data;
}

/* Writes rows to a file (which appears complete or not at all) or, without a path, to stdout: as they
 * are now or, with verbatim, as they were read. per_token (may be NULL): each row's log-probabilities
 * in turn, put before its closing brace. */
static int write_rows(orl_ctx *ctx, orl_dataset *data, const char *path, int verbatim, const orl_real *per_token) {
    char temporary[PATH_SIZE];
    FILE *f = stdout;
    size_t i, t, rows = orl_dataset_count(data);
    int written;
    if (orl_failed(ctx)) return finish(ctx);
    if (path && (join(temporary, path, ".tmp") != GO)) return 1;
    if (path && !(f = fopen(temporary, "wb"))) return fail("%s: cannot be written: %s", temporary, strerror(errno));
    for (i = 0; i < rows; i++) {
        const orl_row *row = orl_dataset_row(data, i);
        char *line = verbatim ? NULL : orl_dataset_row_json(data, i);
        size_t length = line ? strlen(line) : 0, n = row->tokens;
        if (verbatim) {
            fwrite(row->json, 1, row->json_bytes, f);
            fputs("\n", f);
        } else if (!line) {
            break;
        } else if (per_token) {
            fprintf(f, "%.*s, \"logprobs\": [", (int)length - 1, line);
            for (t = 0; t < n; t++) fprintf(f, "%s%.9g", t ? ", " : "", (double)*per_token++);
            fputs("]}\n", f);
        } else {
            fprintf(f, "%s\n", line);
        }
        orl_free(ctx, line);
    }
    written = fflush(f) == 0 && !ferror(f);
    if (path) written = fsync(fileno(f)) == 0 && written, written = fclose(f) == 0 && written;
    if (written && path && !orl_failed(ctx)) written = rename(temporary, path) == 0;
    if (path && (!written || orl_failed(ctx))) remove(temporary);
    if (!written && !orl_failed(ctx)) return fail("%s: cannot be written: %s", path ? path : "stdout", strerror(errno));
    return finish(ctx);
}

/* ==== the ledger ===============================================================================
 * One JSON line for each run: which command made which output of which input, at what cost. Eval
 * follows a model's data back through the lines: sampled from …, scored from …, labelled from ….  */

typedef struct entry {
    char command[16], method[64], data[PATH_SIZE], out[PATH_SIZE];
    double flops, seconds, tokens;
    int resumed;
} entry;

static void json_escape(char *to, size_t size, const char *text) {
    size_t n = 0;
    for (; text && *text && n + 8 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') to[n++] = '\\', to[n++] = (char)c;
        else if (c < 32) n += (size_t)snprintf(to + n, 8, "\\u%04x", c);
        else to[n++] = (char)c;
    }
    to[n] = 0;
}

static void ledger_add(const options *o, const char *what, const char *method, const char *data, const char *out,
                       orl_cost cost) {
    char from[PATH_SIZE], to[PATH_SIZE];
    FILE *f = o->ledger ? fopen(o->ledger, "ab") : NULL;
    if (o->ledger && !f) say("%s: cannot be written: %s", o->ledger, strerror(errno));
    if (!f) return;
    json_escape(from, sizeof from, data);
    json_escape(to, sizeof to, out);
    fprintf(f,
            "{\"command\":\"%s\",\"method\":\"%s\",\"data\":\"%s\",\"out\":\"%s\",\"resumed\":%d,\"tokens\":%.0f,"
            "\"flops\":%.9g,\"seconds\":%.6f,\"peak_bytes\":%zu}\n",
            what, method, from, to, o->resume, (double)cost.tokens, cost.flops, cost.seconds, cost.peak_bytes);
    fclose(f);
}

/* The value of "key" in a line as this tool or the library writes it; 0 if it is not there. */
static int line_number(const char *line, const char *key, double *x) {
    char quoted[40];
    const char *at;
    char *end;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(line, quoted);
    if (!at) return 0;
    at += strlen(quoted);
    *x = strtod(at, &end);
    return end != at;
}
static void line_string(const char *line, const char *key, char *to, size_t size) {
    char quoted[40];
    const char *at;
    size_t n = 0;
    snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
    at = strstr(line, quoted);
    if (at)
        for (at += strlen(quoted); *at && *at != '"' && n + 2 < size; at++) {
            if (*at == '\\' && at[1]) to[n++] = *at++;
            to[n++] = *at;
        }
    to[n] = 0;
}

/* Cuts the next line off a text that is used up on the way; NULL at its end. */
static char *next_line(char **text) {
    char *line = *text, *end = line ? strchr(line, '\n') : NULL;
    if (!line || !*line) return NULL;
    if (end) *end = 0;
    *text = end ? end + 1 : line + strlen(line);
    return line;
}

static entry *ledger_read(const options *o, size_t *count) {
    size_t bytes, lines = 0, i;
    char *text = o->ledger && exists(o->ledger) ? read_file(o->ledger, &bytes) : NULL, *rest = text, *line;
    entry *entries;
    *count = 0;
    if (!text) return NULL;
    for (i = 0; i < bytes; i++) lines += text[i] == '\n';
    entries = (entry *)calloc(lines + 1, sizeof *entries);
    while (entries && *count < lines && (line = next_line(&rest)) != NULL) {
        entry *e = &entries[(*count)++];
        double resumed = 0;
        line_string(line, "command", e->command, sizeof e->command);
        line_string(line, "method", e->method, sizeof e->method);
        line_string(line, "data", e->data, sizeof e->data);
        line_string(line, "out", e->out, sizeof e->out);
        line_number(line, "flops", &e->flops);
        line_number(line, "seconds", &e->seconds);
        line_number(line, "tokens", &e->tokens);
        line_number(line, "resumed", &resumed);
        e->resumed = resumed > 0;
    }
    free(text);
    return entries;
}

/* What making `out` cost: its latest run, with the parts that --resume added. NULL if nobody knows. */
static const entry *ledger_find(const entry *entries, size_t count, const char *out, entry *sum) {
    const entry *last = NULL;
    char path[PATH_SIZE];
    size_t i;
    json_escape(path, sizeof path, out);
    for (i = 0; i < count; i++) {
        if (!*path || strcmp(entries[i].out, path)) continue;
        if (!last || !entries[i].resumed) memset(sum, 0, sizeof *sum);
        last = &entries[i];
        sum->flops += last->flops, sum->seconds += last->seconds, sum->tokens += last->tokens;
    }
    return last;
}

/* Fills in what a model's training and its data cost. */
static void ledger_costs(const entry *entries, size_t count, const char *model, orl_result *result) {
    entry sum;
    const entry *e = ledger_find(entries, count, model, &sum);
    size_t depth;
    if (!e) return;
    result->train_flops = sum.flops, result->train_seconds = sum.seconds, result->train_tokens = (double)sum.tokens;
    result->data_flops = result->data_seconds = 0;
    for (depth = 0; depth < 16 && (e = ledger_find(entries, count, e->data, &sum)) != NULL; depth++)
        if (choose("generate|score", e->command) >= 0)
            result->data_flops += sum.flops, result->data_seconds += sum.seconds;
}

/* ==== training ================================================================================= */

typedef enum trainer { LANGUAGE, REWARD, DPO, PPO } trainer;

typedef struct run { /* a training run and its directory */
    const options *o;
    char partial[PATH_SIZE], checkpoint[PATH_SIZE], log[PATH_SIZE];
    int fresh;         /* there was no checkpoint: a refused run leaves nothing */
    size_t step, done; /* the last step, and how many of them were done here */
    double begun, val_loss;
} run;

static int on_step(void *user, const orl_step_info *info) {
    run *r = (run *)user;
    char more[64] = "", speed[16];
    double now = orl_seconds(), eta;
    if (!r->done++) r->begun = now - info->seconds;
    r->step = info->step;
    if (!isnan(info->val_loss)) r->val_loss = info->val_loss;
    eta = (now - r->begun) / (double)r->done * (double)(info->steps > info->step ? info->steps - info->step : 0);
    if (!isnan(info->reward)) snprintf(more, sizeof more, "  reward %.3f  kl %.3f", info->reward, info->kl);
    else if (!isnan(r->val_loss)) snprintf(more, sizeof more, "  val %.4f", r->val_loss);
    progress(info->step >= info->steps, "%s %zu/%zu  loss %.4f%s  %s tok/s  %d:%02d left",
             info->stage ? info->stage : "", info->step, info->steps, info->loss, more,
             brief(speed, (double)info->tokens / (info->seconds > 0 ? info->seconds : 1e-9)), (int)(eta / 60),
             (int)eta % 60);
    return interrupted;
}

static void print_estimate(const orl_estimate *e) {
    char flops[16];
    printf("weights      %10.1f MB\ngradients    %10.1f MB\noptimizer    %10.1f MB\nactivations  %10.1f MB\ntotal      "
           "  %10.1f MB\n",
           megabytes(e->weights), megabytes(e->gradients), megabytes(e->moments), megabytes(e->activations),
           megabytes(e->total));
    printf("rows         %10zu    (%zu cut, %zu dropped)\n", e->rows, e->cut, e->dropped);
    printf("tokens       %10.0f\nflops        %10s\nseconds      %10.1f\n", (double)e->tokens, brief(flops, e->flops),
           e->seconds);
}

static void start_line(orl_ctx *ctx, const options *o, orl_model *model, size_t bytes) {
    char parameters[16];
    if (!o->quiet && !orl_failed(ctx))
        say("%s: %s, %zu thread%s, %s parameters, about %.1f MB", o->command, orl_isa(ctx), orl_threads(ctx),
            orl_threads(ctx) == 1 ? "" : "s", brief(parameters, (double)orl_params_count(orl_model_params(model))),
            megabytes(bytes));
}

static int run_open(run *r, options *o) {
    memset(r, 0, sizeof *r);
    r->o = o;
    r->val_loss = (double)NAN;
    if (join(r->partial, o->out, ".partial") != GO || join(r->checkpoint, r->partial, "/checkpoint") != GO ||
        join(r->log, r->partial, "/log.jsonl") != GO)
        return 1;
    r->fresh = !exists(r->checkpoint);
    if (!r->fresh && !o->resume && !o->overwrite)
        return fail("%s: holds an unfinished run: give --resume to go on with it, or --overwrite to start again",
                    r->partial);
    if (exists(r->partial) && !is_ours(r->partial))
        return fail("%s: does not look like something orl wrote: remove it yourself", r->partial);
    if (!r->fresh && !o->resume) remove_dir(r->partial), r->fresh = 1;
    return make_dir(r->partial);
}

/* After a failure or a stop: what is left behind, and why. */
static int run_broken(orl_ctx *ctx, run *r) {
    int code = orl_error_status(ctx) == ORL_ERR_STOPPED ? 128 + (interrupted ? (int)interrupted : SIGINT) : 1;
    if (code != 1) {
        say("stopped after step %zu; %s/ keeps the run: --resume goes on with it", r->step, r->partial);
        return code;
    }
    fail("%s", orl_error(ctx));
    if (r->fresh && !r->done) remove_dir(r->partial);
    else say("%s/ keeps the run as of its last save", r->partial);
    return 1;
}

/* Estimate, train in OUT.partial/, save, rename: the one way through every training subcommand. */
static int train(orl_ctx *ctx, options *o, const char *stage, trainer how, orl_model *model, orl_model *rm,
                 orl_dataset *data) {
    run r;
    orl_estimate need;
    orl_cost before, cost;
    char path[PATH_SIZE];
    int code;
    memset(&need, 0, sizeof need);
    o->train.stage = stage;
    if (o->lora.rank && !orl_has_lora(model)) {
        if (!given(o, "lora-alpha")) o->lora.alpha = 2.0 * (double)o->lora.rank;
        orl_lora_add(model, &o->lora);
    }
    if (o->eval_data) o->train.eval = load_data(ctx, o, o->eval_data, model);
    if (o->ptx_data) o->ppo.ptx_data = load_data(ctx, o, o->ptx_data, model);
    if (o->dump_batch) {
        char *text = orl_dataset_dump(data, model, o->train.batch);
        if (text) fputs(text, stdout);
        orl_free(ctx, text);
        return finish(ctx);
    }
    if (how == DPO) {
        o->train.reference = orl_model_copy(model);
        o->train.loss = orl_loss_dpo;
        o->train.loss_user = &o->beta;
        o->train.per_pair = 1;
    }
    if (how == PPO) orl_ppo_estimate(model, rm, data, &o->ppo, &need);
    else orl_train_estimate(model, data, &o->train, &need);
    if (orl_failed(ctx)) return finish(ctx);
    start_line(ctx, o, model, need.total);
    if (o->estimate) return print_estimate(&need), 0;
    if (interrupted) return say("stopped before the first step"), 128 + (int)interrupted;

    if ((code = run_open(&r, o)) != GO) return code;
    o->train.checkpoint = o->ppo.checkpoint = r.checkpoint;
    if (!o->train.log) o->train.log = o->ppo.log = r.log;
    o->train.resume = o->ppo.resume = o->resume;
    o->train.progress = o->ppo.progress = on_step;
    o->train.user = o->ppo.user = &r;
    before = orl_cost_now(ctx);
    if (how == LANGUAGE) orl_train(model, data, &o->train);
    else if (how == REWARD) orl_train_reward(model, data, &o->train);
    else if (how == DPO) orl_train_dpo(model, data, o->train.reference, o->beta, &o->train);
    else orl_train_ppo(model, rm, data, &o->ppo);
    cost = orl_cost_since(ctx, before);
    if (!orl_failed(ctx) || orl_error_status(ctx) == ORL_ERR_STOPPED)
        ledger_add(o, o->command, stage, o->data, o->out, cost);
    if (o->merge) orl_lora_merge(model);
    if (!orl_failed(ctx) && orl_has_lora(model) && join(path, r.partial, "/adapter_model.safetensors") == GO) {
        remove(path); /* there if a run was killed between saving and renaming */
        orl_lora_save(model, r.partial);
    } else if (!orl_failed(ctx) && join(path, r.partial, "/model.safetensors") == GO) {
        remove(path);
        orl_model_save_as(model, r.partial, (orl_dtype)o->dtype);
    }
    if (orl_failed(ctx)) return run_broken(ctx, &r);
    if (publish(r.partial, o->out) != GO) return 1;
    if (join(r.checkpoint, o->out, "/checkpoint") == GO) remove(r.checkpoint); /* only now can nothing need it */
    if (!o->quiet)
        say("%s: done in %.1f s, peak memory %.1f MB", o->out, cost.seconds, megabytes(orl_memory_peak(ctx)));
    return 0;
}

/* ==== subcommands ============================================================================== */

static int cmd_demo(orl_ctx *ctx, options *o) {
    (void)ctx; /* the demo makes its own, one a seed */
    return demo_main(&o->demo);
}

/* ---- tokenizer, encode, decode ---- */

static void put_text(FILE *f, const orl_text *t) {
    if (t->text) fwrite(t->text, 1, t->bytes, f);
}

/* Writes a file's text where it can be read as a stream: of JSONL its rows' text fields, of a pipe all of it. */
static int spool(orl_ctx *ctx, const options *o, const char *path, int jsonl, FILE *to) {
    if (jsonl) {
        orl_dataset *data = load_data(ctx, o, path, NULL);
        size_t i;
        for (i = 0; i < orl_dataset_count(data); i++) {
            const orl_row *row = orl_dataset_row(data, i);
            put_text(to, &row->prompt);
            put_text(to, &row->response);
            putc('\n', to);
            if (!(row->flags & ORL_PAIR)) continue;
            put_text(to, &row->rejected);
            putc('\n', to);
        }
        orl_dataset_free(data);
        if (!data) return finish(ctx);
    } else {
        size_t bytes = 0;
        char *text = read_file(path, &bytes);
        if (!text) return 1;
        fwrite(text, 1, bytes, to);
        free(text);
    }
    return GO;
}

/* The files to learn from: those given, and `rows` in place of what cannot be read as a stream of text. */
static int text_files(orl_ctx *ctx, const options *o, const char *rows, const char **files, size_t *count) {
    FILE *to = NULL;
    size_t i;
    int code = GO;
    for (i = 0; i < o->train_files.count && code == GO; i++) {
        const char *path = o->train_files.item[i];
        size_t length = strlen(path);
        int jsonl = length > 6 && !strcmp(path + length - 6, ".jsonl");
        struct stat info;
        if (!jsonl && (stat(path, &info) != 0 || S_ISREG(info.st_mode))) {
            files[(*count)++] = path;
            continue;
        }
        if (!to && !(to = fopen(rows, "wb"))) return fail("%s: cannot be written: %s", rows, strerror(errno));
        code = spool(ctx, o, path, jsonl, to);
    }
    if (to) files[(*count)++] = rows;
    if (to && (ferror(to) | fclose(to)) && code == GO) code = fail("%s: cannot be written: %s", rows, strerror(errno));
    return code;
}

static int cmd_tokenizer(orl_ctx *ctx, options *o) {
    const char *specials[MAX_LIST + 2] = {"<|endoftext|>"}, *files[MAX_LIST + 1];
    char partial[PATH_SIZE], rows[PATH_SIZE];
    orl_tokenizer *tok = NULL;
    size_t i, n = 0;
    int code = begin_dir(o, partial);
    if (code != GO) return code;
    if ((code = make_dir(partial)) != GO || (code = join(rows, partial, "/rows.txt")) != GO) return code;
    for (i = 0; i < o->specials.count; i++) specials[i + 1] = o->specials.item[i];
    code = text_files(ctx, o, rows, files, &n);
    if (code == GO) tok = orl_tokenizer_train_files(ctx, files, n, o->vocab, specials);
    remove(rows);
    if (tok) orl_tokenizer_save(tok, partial);
    if (code == GO) return end_dir(ctx, o, partial);
    remove_dir(partial);
    return code;
}

/* Is it whole characters? A token may be a part of one. */
static int is_utf8(const char *s, size_t n) {
    size_t i, more = 0;
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c & 0xc0u) == 0x80 ? more-- == 0 : more) return 0;
        if (c >= 0xc0) more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    }
    return more == 0;
}

/* A token's bytes between quotation marks; what cannot be printed as \\xNN. */
static void put_quoted(const char *s, size_t n) {
    size_t i;
    putchar('"');
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n') fputs("\\n", stdout);
        else if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 32 || c == 127 || (c >= 128 && !is_utf8(s, n))) printf("\\x%02x", (unsigned)c);
        else putchar(c);
    }
    putchar('"');
}

static void print_ids(const int32_t *ids, size_t n) {
    size_t i;
    putchar('[');
    for (i = 0; i < n; i++) printf("%s%ld", i ? ", " : "", (long)ids[i]);
    puts("]");
}

/* Reads one JSON array of ids; the ids replace what `ids` held. NULL if it is none. */
static const char *scan_ids(const char *p, int32_t **ids, size_t *count, size_t *capacity) {
    static const char space[] = " \t\r\n";
    *count = 0;
    p += strspn(p, space);
    if (*p++ != '[') return NULL;
    p += strspn(p, space);
    while (*p != ']') {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p || id < 0 || id > INT32_MAX) return NULL;
        if (*count == *capacity) {
            int32_t *grown = (int32_t *)realloc(*ids, (*capacity = *capacity * 2 + 1024) * sizeof **ids);
            if (!grown) return NULL;
            *ids = grown;
        }
        (*ids)[(*count)++] = (int32_t)id;
        p = end + strspn(end, space);
        if (*p == ',') {
            p += 1 + strspn(p + 1, space);
            if (*p == ']') return NULL;
        } else if (*p != ']') {
            return NULL;
        }
    }
    return p + 1 + strspn(p + 1, space);
}

static int encode_piece(orl_ctx *ctx, orl_tokenizer *tok, const char *text, size_t bytes, size_t line) {
    int32_t *ids = NULL;
    size_t n = 0;
    (void)line;
    if (orl_encode(tok, text, bytes, 1, &ids, &n) == ORL_OK) print_ids(ids, n);
    orl_free(ctx, ids);
    return orl_failed(ctx) ? finish(ctx) : GO;
}

/* The same, a token a line. */
static int dump_piece(orl_ctx *ctx, orl_tokenizer *tok, const char *text, size_t bytes, size_t line) {
    int32_t *ids = NULL;
    size_t n = 0, i, length = 0;
    if (line) printf("line %zu\n", line);
    if (orl_encode(tok, text, bytes, 1, &ids, &n) == ORL_OK) puts("      id  token");
    for (i = 0; i < n && !orl_failed(ctx); i++) {
        const char *token = orl_token_text(tok, ids[i], &length);
        printf("%8ld  ", (long)ids[i]);
        put_quoted(token, length);
        putchar('\n');
    }
    orl_free(ctx, ids);
    return orl_failed(ctx) ? finish(ctx) : GO;
}

/* Rows as training sees them. A tokenizer alone gets the smallest of models: what is shown are its ids, no results. */
static int dump_rows(orl_ctx *ctx, options *o) {
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    orl_model *model = NULL;
    orl_tokenizer *tok;
    orl_dataset *data;
    char path[PATH_SIZE], *text;
    if (join(path, o->models.item[0], "/config.json") != GO) return 1;
    if (exists(path)) {
        model = orl_model_load(ctx, o->models.item[0]);
    } else if ((tok = orl_tokenizer_load(ctx, o->models.item[0])) != NULL) {
        c.layers = c.heads = c.kv_heads = 1, c.dim = c.ffn = 2, c.vocab = orl_vocab(tok), c.context = 1 << 20;
        model = orl_model_create(ctx, &c, tok);
    }
    data = load_data(ctx, o, o->data, model);
    text = orl_dataset_dump(data, model, orl_dataset_count(data));
    if (text) fputs(text, stdout);
    orl_free(ctx, text);
    return finish(ctx);
}

static int decode_piece(orl_ctx *ctx, orl_tokenizer *tok, const char *text, size_t bytes, size_t line) {
    int32_t *ids = NULL;
    size_t n = 0, capacity = 0;
    char *out = NULL, where[32] = "";
    const char *end = scan_ids(text, &ids, &n, &capacity);
    if (line) snprintf(where, sizeof where, ":%zu", line);
    if (!end || end != text + bytes) return free(ids), fail("stdin%s: is not a JSON array of token ids", where);
    if (orl_decode(tok, ids, n, 0, &out, &bytes) == ORL_OK) fwrite(out, 1, bytes, stdout);
    if (line) putchar('\n');
    orl_free(ctx, out);
    free(ids);
    return orl_failed(ctx) ? finish(ctx) : GO;
}

/* Applies one of the two above to the whole of stdin or, with --lines, to each of its lines. */
static int each_piece(orl_ctx *ctx, options *o,
                      int (*piece)(orl_ctx *, orl_tokenizer *, const char *, size_t, size_t)) {
    orl_tokenizer *tok = orl_tokenizer_load(ctx, o->models.item[0]);
    size_t bytes = 0, line = 0;
    char *text = tok ? read_all(stdin, &bytes) : NULL, *p = text, *end;
    int code = tok ? (text ? GO : 1) : finish(ctx);
    if (code == GO && !o->lines) code = piece(ctx, tok, text, bytes, 0);
    for (; code == GO && o->lines && p < text + bytes; p = end + 1) {
        end = (char *)memchr(p, '\n', (size_t)(text + bytes - p));
        if (!end) end = text + bytes;
        *end = 0;
        code = piece(ctx, tok, p, (size_t)(end - p), ++line);
    }
    free(text);
    if (code == GO && (fflush(stdout) != 0 || ferror(stdout)))
        code = fail("stdout: cannot be written: %s", strerror(errno));
    return code == GO ? 0 : code;
}
static int cmd_encode(orl_ctx *ctx, options *o) {
    if (o->data && !o->dump) return usage(o, "orl encode --data goes with --dump");
    return o->data ? dump_rows(ctx, o) : each_piece(ctx, o, o->dump ? dump_piece : encode_piece);
}
static int cmd_decode(orl_ctx *ctx, options *o) { return each_piece(ctx, o, decode_piece); }

/* ---- init, import, export, split ---- */

static int save_new_model(orl_ctx *ctx, options *o, const orl_model *model, const char *partial) {
    if (!model) return finish(ctx);
    if (make_dir(partial) != GO) return 1;
    orl_model_save_as(model, partial, (orl_dtype)o->dtype);
    return end_dir(ctx, o, partial);
}

static int cmd_init(orl_ctx *ctx, options *o) {
    orl_model_config c = orl_model_config_default((orl_arch)o->arch);
    int gated = o->arch != ORL_GPT2 && o->arch != ORL_GPT_NEO && o->arch != ORL_GPT_NEOX;
    orl_tokenizer *tok = NULL;
    char partial[PATH_SIZE];
    int code = begin_dir(o, partial);
    if (code != GO) return code;
    if (!o->tokenizer && !o->vocab) return usage(o, "orl init needs --tokenizer or --vocab");
    if (o->tokenizer) {
        tok = orl_tokenizer_load(ctx, o->tokenizer);
        if (!tok) return finish(ctx);
        c.vocab = orl_vocab(tok);
        c.bos = orl_bos(tok);
        c.eos = orl_eos(tok);
    }
    if (o->vocab) c.vocab = o->vocab;
    if (o->shape.layers) c.layers = o->shape.layers;
    if (o->shape.dim) c.dim = o->shape.dim;
    if (o->shape.heads) c.heads = o->shape.heads;
    if (o->shape.context) c.context = o->shape.context;
    if (o->untied) c.tied = 0;
    if (o->shape.heads || o->shape.kv_heads) c.kv_heads = o->shape.kv_heads ? o->shape.kv_heads : c.heads;
    if (o->shape.dim || o->shape.ffn)
        c.ffn = o->shape.ffn ? o->shape.ffn : gated ? (c.dim * 8 / 3 + 15) / 16 * 16 : 4 * c.dim;
    return save_new_model(ctx, o, orl_model_create(ctx, &c, tok), partial);
}

static int cmd_import(orl_ctx *ctx, options *o) {
    char partial[PATH_SIZE];
    int code = begin_dir(o, partial);
    return code != GO ? code : save_new_model(ctx, o, orl_model_load_llama2c(ctx, o->llama2c, o->tokenizer), partial);
}

static int cmd_export(orl_ctx *ctx, options *o) {
    const char *from = o->models.item[0], *dot = strrchr(o->out, '.');
    orl_model *model;
    int file = dot && !strcmp(dot, ".gguf"), code;
    char partial[PATH_SIZE];
    if (!file && o->dtype == (int)ORL_Q8_0) return usage(o, "--dtype q8_0 needs an --out that ends with .gguf");
    code = file ? check_out(o, o->out, 0) : begin_dir(o, partial);
    if (code != GO) return code;
    model = orl_model_load_frozen(ctx, from); /* BF16 stays in its file: memory for no more than a row of it */
    orl_lora_merge(model); /* of an adapter's directory: the model as a whole */
    if (!file) return save_new_model(ctx, o, model, partial);
    orl_model_save_gguf(model, o->out, (orl_dtype)o->dtype);
    return finish(ctx);
}

static int cmd_split(orl_ctx *ctx, options *o) {
    orl_dataset *data, *part[2] = {NULL, NULL};
    int code = check_out(o, o->out_train, 0);
    if (code == GO) code = check_out(o, o->out_test, 0);
    if (code != GO) return code;
    data = load_data(ctx, o, o->data, NULL);
    orl_dataset_split(data, o->by, o->test_fraction, o->config.seed, &part[0], &part[1]);
    code = write_rows(ctx, part[1], o->out_test, 1, NULL);
    if (code == 0) code = write_rows(ctx, part[0], o->out_train, 1, NULL);
    if (code == 0 && !o->quiet)
        say("%zu rows to %s, %zu to %s", orl_dataset_count(part[0]), o->out_train, orl_dataset_count(part[1]),
            o->out_test);
    return code;
}

/* ---- training ---- */

static void store_weights(orl_model *model, int how) {
    if (how == AS_BF16) orl_model_store_bf16(model);
    if (how == AS_INT8) orl_model_store_int8(model);
}

/* A model that is only used. What the file has in BF16 need not become floats on the way to bytes. */
static orl_model *load_to_use(orl_ctx *ctx, const options *o, const char *dir) {
    orl_model *model = o->frozen || o->weights > AS_F32 ? orl_model_load_frozen(ctx, dir) : orl_model_load(ctx, dir);
    store_weights(model, o->weights);
    return model;
}

/* The model to be trained: one whose adapter is trained keeps its BF16 weights in the file. */
static orl_model *load_to_train(orl_ctx *ctx, const options *o) {
    return o->lora.rank ? orl_model_load_frozen(ctx, o->models.item[0]) : orl_model_load(ctx, o->models.item[0]);
}

static int cmd_pretrain(orl_ctx *ctx, options *o) {
    orl_model *model;
    int code = check_out(o, o->out, 1);
    if (code != GO) return code;
    model = load_to_train(ctx, o);
    return train(ctx, o, "pretrain", LANGUAGE, model, NULL,
                 orl_dataset_blocks(load_data(ctx, o, o->data, model), model));
}

static int cmd_sft(orl_ctx *ctx, options *o) {
    orl_model *model;
    int code = check_out(o, o->out, 1);
    if (code != GO) return code;
    model = load_to_train(ctx, o);
    return train(ctx, o, "sft", LANGUAGE, model, NULL, load_data(ctx, o, o->data, model));
}

/* Accuracy on pairs that orl_score has seen. */
static void say_accuracy(const orl_dataset *pairs) {
    orl_accuracy a;
    if (orl_pair_accuracy(pairs, &a) != ORL_OK) return;
    say("accuracy %.4f, 95 %% interval %.4f to %.4f, on %zu pairs; mean margin %.3f; chosen %.3f ± %.3f, rejected %.3f "
        "± %.3f",
        a.accuracy, a.low, a.high, a.pairs, a.margin, a.mean_chosen, a.sd_chosen, a.mean_rejected, a.sd_rejected);
}

static int cmd_rm(orl_ctx *ctx, options *o) {
    orl_model *model;
    int code = check_out(o, o->out, 1);
    if (code != GO) return code;
    model = load_to_train(ctx, o);
    if (model && !orl_is_reward_model(model)) {
        orl_model *trunk = model;
        say("%s has no score.weight: a new one is made", o->models.item[0]);
        model = orl_reward_model(trunk);
        orl_model_free(trunk);
    }
    o->train.loss = orl_loss_reward;
    o->train.loss_user = &o->rm_loss;
    o->train.per_pair = 1;
    code = train(ctx, o, "rm", REWARD, model, NULL, load_data(ctx, o, o->data, model));
    if (code == 0 && o->eval_data && !o->estimate && !o->dump_batch) {
        orl_dataset *held_out = load_data(ctx, o, o->eval_data, model);
        orl_score(model, held_out);
        say_accuracy(held_out);
        code = finish(ctx);
    }
    return code;
}

/* ---- generate, logprob, score ---- */

/* Copies a text with its \n, \t and \\ resolved; *room moves on. 0 if there is no room left. */
static int unescape(const char *text, char **room, const char *end) {
    char *to = *room;
    for (; *text && to < end; text++) {
        int escape = *text == '\\' && text[1] && strchr("nt\\", text[1]);
        if (escape) text++;
        *to++ = (char)(!escape ? *text : *text == 'n' ? '\n' : *text == 't' ? '\t' : '\\');
    }
    if (to == end) return 0;
    *to++ = 0;
    *room = to;
    return 1;
}

/* The sampling options that are not numbers. GO, or an exit status. */
static int read_sampling(options *o, const orl_model *model) {
    static char room[PATH_SIZE];
    char *at = room;
    uint64_t id;
    size_t i;
    if (!model) return GO;
    for (i = 0; i < o->stops.count; i++) {
        const char *begin = at;
        if (!unescape(o->stops.item[i], &at, room + sizeof room)) return usage(o, "--stop: shorter texts, or fewer");
        o->stops.item[i] = begin;
    }
    for (i = 0; i < o->forbids.count; i++) {
        const char *token = o->forbids.item[i];
        if (!read_count(token, &id)) id = (uint64_t)orl_token_id(orl_model_tokenizer(model), token);
        if (id > INT32_MAX) return usage(o, "--forbid: \"%s\" is not one token of %s", token, orl_model_name(model));
        o->forbidden[i] = (int32_t)id;
    }
    if (!(o->kv_mb >= 0 && o->kv_mb < 1e12)) return usage(o, "--kv-mb must be 0 (no bound) or more");
    o->generate.kv_bytes = (size_t)ceil(o->kv_mb * 1048576);
    o->generate.stop_strings = o->stops.item, o->generate.stop_string_count = o->stops.count;
    o->generate.forbidden = o->forbidden, o->generate.forbids = o->forbids.count;
    return GO;
}

static int on_sample(void *user, size_t done, size_t total) {
    (void)user;
    progress(done >= total, "sampled %zu/%zu", done, total);
    return interrupted;
}

static int cmd_generate(orl_ctx *ctx, options *o) {
    orl_model *model;
    orl_dataset *prompts, *samples;
    orl_cost before;
    int code = check_out(o, o->out, 0);
    if (code != GO) return code;
    if (!o->data == !o->prompt) return usage(o, "orl generate needs either --data or --prompt");
    model = load_to_use(ctx, o, o->models.item[0]);
    prompts = o->prompt ? orl_dataset_create(ctx) : load_data(ctx, o, o->data, model);
    if (o->prompt) orl_dataset_add(prompts, o->prompt, NULL);
    if ((code = read_sampling(o, model)) != GO) return code;
    start_line(ctx, o, model, orl_memory_now(ctx));
    o->generate.progress = on_sample;
    before = orl_cost_now(ctx);
    samples = orl_sample(model, prompts, &o->generate);
    ledger_add(o, "generate", "", o->data, o->out, orl_cost_since(ctx, before));
    return write_rows(ctx, samples, o->out, 0, NULL);
}

static int cmd_logprob(orl_ctx *ctx, options *o) {
    orl_model *model;
    orl_dataset *data;
    orl_real *per_token = NULL;
    int code = check_out(o, o->out, 0);
    if (code != GO) return code;
    model = load_to_use(ctx, o, o->models.item[0]);
    data = load_data(ctx, o, o->data, model);
    start_line(ctx, o, model, orl_memory_now(ctx));
    orl_logprob(model, data, o->per_token ? &per_token : NULL, NULL);
    code = write_rows(ctx, data, o->out, 0, per_token);
    orl_free(ctx, per_token);
    return code;
}

static int cmd_score(orl_ctx *ctx, options *o) {
    orl_model *model;
    orl_dataset *data;
    orl_cost before;
    int code = check_out(o, o->out, 0);
    if (code != GO) return code;
    model = load_to_use(ctx, o, o->rm);
    data = load_data(ctx, o, o->data, model);
    start_line(ctx, o, model, orl_memory_now(ctx));
    before = orl_cost_now(ctx);
    orl_score(model, data);
    ledger_add(o, "score", "", o->data, o->out, orl_cost_since(ctx, before));
    code = write_rows(ctx, data, o->out, 0, NULL);
    if (code == 0 && orl_dataset_count(data) && (orl_dataset_row(data, 0)->flags & ORL_PAIR)) say_accuracy(data);
    return code ? code : finish(ctx);
}

/* ---- precision ---- */

/* What a way to store weights changes, as fields of JSON after `head`: of log-probabilities, … */
static void print_logprob_loss(const char *head, orl_model *model, orl_model *other, orl_dataset *data) {
    orl_logprob_loss loss;
    if (orl_compare_logprob(model, other, data, &loss) != ORL_OK) return;
    printf("%s, \"tokens\": %zu, \"perplexity\": %.6f, \"mean_difference\": %.6g, \"worst\": %.6g}\n", head,
           loss.tokens, loss.other_perplexity, loss.mean_difference, loss.worst);
}

/* … or of rewards, and how many pairs change places. */
static void print_reward_loss(const char *head, orl_model *model, orl_model *other, orl_dataset *data) {
    size_t i, side, rows = orl_dataset_count(data), n = 0, pairs = 0, turned = 0;
    orl_dataset *again = orl_dataset_view(data, 0, rows);
    double sum = 0, worst = 0;
    orl_score(model, data);
    if (orl_score(other, again) != ORL_OK) return;
    for (i = 0; i < rows; i++) {
        const orl_row *a = orl_dataset_row(data, i), *b = orl_dataset_row(again, i);
        size_t sides = a->flags & ORL_PAIR ? 2 : 1;
        for (side = 0; side < sides; side++) {
            double apart = fabs(side ? a->rejected_reward - b->rejected_reward : a->reward - b->reward);
            if (!isfinite(apart)) continue; /* a row that does not fit */
            n++, sum += apart, worst = apart > worst ? apart : worst;
        }
        if (sides == 1 || !isfinite(a->reward - a->rejected_reward)) continue;
        pairs++;
        turned += (a->reward > a->rejected_reward) != (b->reward > b->rejected_reward);
    }
    printf("%s, \"responses\": %zu, \"mean_difference\": %.6g, \"worst\": %.6g", head, n, n ? sum / (double)n : 0,
           worst);
    if (pairs) printf(", \"pairs\": %zu, \"ranked_otherwise\": %.6g", pairs, (double)turned / (double)pairs);
    printf("}\n");
    orl_dataset_free(again);
}

/* A line for each way to keep the weights in memory. */
static int cmd_precision(orl_ctx *ctx, options *o) {
    static const char *const names[] = {"f32", "bf16", "int8"};
    orl_model *model = orl_model_load(ctx, o->models.item[0]);
    orl_dataset *data = load_data(ctx, o, o->data, model);
    int how;
    start_line(ctx, o, model, orl_memory_now(ctx));
    for (how = 0; how < STORAGES && !orl_failed(ctx); how++) {
        size_t bytes = orl_memory_now(ctx);
        orl_model *other = orl_model_copy(model);
        char head[64];
        store_weights(other, how);
        bytes = orl_memory_now(ctx) - bytes;
        snprintf(head, sizeof head, "{\"weights\": \"%s\", \"bytes\": %zu", names[how], bytes);
        (orl_is_reward_model(model) ? print_reward_loss : print_logprob_loss)(head, model, other, data);
        orl_model_free(other);
    }
    return finish(ctx);
}

/* ---- align ---- */

typedef struct plan { /* what --method and the stage options come to */
    trainer how;
    int filter, weigh, condition, combinable;
} plan;

/* GO, or the exit status of wrong usage. */
static int make_plan(options *o, plan *p) {
    const char *word = o->method;
    size_t i, filters = 0;
    memset(p, 0, sizeof *p);
    while (word && *word) {
        char name[16];
        size_t n = strcspn(word, "+");
        int which;
        snprintf(name, sizeof name, "%.*s", (int)n, word);
        which = choose("sft|mle|rwr|dt|ppo|dpo", name);
        if (which < 0) return usage(o, "--method: \"%s\" is not sft, mle, rwr, dt, ppo or dpo", name);
        if (which >= 4 && strchr(o->method, '+')) return usage(o, "--method: %s does not combine with others", name);
        p->filter |= which == 1, p->weigh |= which == 2, p->condition |= which == 3;
        p->how = which == 4 ? PPO : which == 5 ? DPO : LANGUAGE;
        word += n + (word[n] == '+');
    }
    for (i = 0; i < OPTIONS; i++) {
        const option *t = &option_table[i];
        if (!o->given[i]) continue;
        if ((t->commands & FOR_PPO) && p->how != PPO) return usage(o, "--%s belongs to --method ppo", t->name);
        if ((t->commands & NOT_PPO) && p->how == PPO) return usage(o, "--%s does not go with --method ppo", t->name);
        if ((t->commands & STAGE) && p->how != LANGUAGE)
            return usage(o, "--%s does not go with --method %s", t->name, o->method);
        filters += t->kind == FILTER;
        p->filter |= t->kind == FILTER;
        p->weigh |= p->how == LANGUAGE && choose("beta|baseline|weight-clip", t->name) >= 0;
        p->condition |=
            choose("condition|reward-decimals|condition-format|bins|condition-dropout|rank-per-prompt|default-quantile",
                   t->name) >= 0;
    }
    if (filters > 1) return usage(o, "give one of --threshold, --quantile, --top-k-per-prompt, --best-of");
    if (!o->method && !p->filter && !p->weigh && !p->condition)
        return usage(o, "orl align needs --method, or stages such as --quantile 0.7");
    if (p->filter && o->filter_rule < 0) o->filter_rule = ORL_ABOVE; /* mle: above the mean */
    if (!given(o, "beta")) o->beta = p->how == DPO ? 0.1 : 1;
    if (p->how == PPO && !o->rm) return usage(o, "--method ppo needs --rm");
    return GO;
}

/* Sees to it that every row has a reward: the file's own, or the reward model's. */
static int label(orl_ctx *ctx, options *o, orl_dataset *data, orl_model *rm) {
    size_t i, rows = orl_dataset_count(data), labelled = 0, missing = 0;
    char labels[PATH_SIZE];
    orl_cost before = orl_cost_now(ctx);
    for (i = 0; i < rows; i++)
        if (orl_dataset_row(data, i)->flags & ORL_LABELLED) labelled++;
        else if (!missing) missing = i + 1;
    if (labelled == rows) {
        if (rm) say("%s has rewards: --rm is not used", o->data);
        return GO;
    }
    if (!o->rm) {
        size_t line = orl_dataset_row(data, missing - 1)->line;
        return fail("%s:%zu: the row has no \"reward\": give --rm DIR, or add rewards with orl score", o->data,
                    line ? line : missing);
    }
    say("%zu of %zu rows have no reward: %s scores all of them", rows - labelled, rows, o->rm);
    if (orl_score(rm, data) != ORL_OK) return finish(ctx);
    if (join(labels, o->out ? o->out : "", ".labels") != GO) return 1;
    ledger_add(o, "score", "", o->data, labels, orl_cost_since(ctx, before));
    return GO;
}

static int cmd_align(orl_ctx *ctx, options *o) {
    plan p;
    orl_model *model, *rm = NULL;
    orl_dataset *data;
    int code = make_plan(o, &p);
    if (code == GO) code = check_out(o, o->out, 1);
    if (code != GO) return code;
    model = load_to_train(ctx, o);
    data = load_data(ctx, o, o->data, model);
    if (o->rm) rm = load_to_use(ctx, o, o->rm);
    if (orl_failed(ctx)) return finish(ctx);
    if (p.filter || p.weigh || p.condition) {
        if ((code = label(ctx, o, data, rm)) != GO) return code;
        orl_normalise(data);
    }
    if (p.filter) data = orl_filter(data, (orl_filter_rule)o->filter_rule, o->filter_x);
    if (p.weigh) data = orl_weight(data, o->beta, (orl_baseline)o->baseline, o->weight_clip);
    if (p.condition) {
        orl_condition_options c = orl_condition_default(o->condition_kind ? ORL_CONDITION_BINS : ORL_CONDITION_TEXT);
        if (given(o, "reward-decimals")) c.decimals = o->condition.decimals;
        if (given(o, "condition-format")) c.format = o->condition.format;
        if (given(o, "bins")) c.bins = o->condition.bins;
        if (given(o, "condition-dropout")) c.dropout = o->condition.dropout;
        if (given(o, "rank-per-prompt")) c.rank_per_prompt = 1;
        if (given(o, "default-quantile")) c.target_quantile = o->condition.target_quantile;
        data = orl_condition(data, &c);
    }
    return train(ctx, o, o->method ? o->method : "align", p.how, model, rm, data);
}

/* ---- eval ---- */

/* A row's text as a string of its own; free() it. */
static char *text_of(const orl_text *t) {
    char *copy = (char *)malloc(t->bytes + 1);
    if (!copy) return NULL;
    if (t->text) memcpy(copy, t->text, t->bytes);
    copy[t->text ? t->bytes : 0] = 0;
    return copy;
}

static void report_rewards(orl_report *report, orl_dataset **samples, const orl_result *results, size_t models) {
    const char *names[MAX_LIST];
    const double *values[MAX_LIST];
    double *owned[MAX_LIST];
    size_t counts[MAX_LIST], i, j;
    for (i = 0; i < models; i++) {
        counts[i] = orl_dataset_count(samples[i]);
        names[i] = results[i].method;
        values[i] = owned[i] = (double *)malloc((counts[i] + 1) * sizeof **owned);
        if (!owned[i]) counts[i] = 0;
        for (j = 0; j < counts[i]; j++) owned[i][j] = orl_dataset_row(samples[i], j)->reward;
    }
    orl_report_histogram(report, "Rewards of the samples", "learned reward", names, values, counts, models, 40);
    for (i = 0; i < models; i++) free(owned[i]);
}

/* Loss curves from the logs that training left beside the models, where there are any. */
static void report_losses(orl_report *report, const options *o, const orl_result *results) {
    orl_series series[MAX_LIST];
    orl_chart chart;
    double *owned[MAX_LIST];
    size_t i, n = 0, bytes = 0;
    memset(series, 0, sizeof series);
    memset(&chart, 0, sizeof chart);
    for (i = 0; i < o->models.count; i++) {
        char path[PATH_SIZE], *text = NULL, *line, *rest;
        size_t lines = 0, points = 0;
        if (join(path, o->models.item[i], "/log.jsonl") == GO && exists(path)) text = read_file(path, &bytes);
        for (line = text; line && *line; line++) lines += *line == '\n';
        owned[n] = text ? (double *)malloc((2 * lines + 2) * sizeof **owned) : NULL;
        for (rest = text; owned[n] && points < lines && (line = next_line(&rest)) != NULL;)
            if (line_number(line, "step", &owned[n][points]) && line_number(line, "loss", &owned[n][lines + points]))
                points++;
        free(text);
        if (!owned[n]) continue;
        series[n].name = results[i].method;
        series[n].x = owned[n];
        series[n].y = owned[n] + lines;
        series[n++].n = points;
    }
    chart.title = "Training loss", chart.x_label = "step", chart.y_label = "loss";
    chart.series = series;
    chart.series_count = n;
    if (n) orl_report_chart(report, &chart);
    while (n) free(owned[--n]);
}

/* What conditioned models were asked for against what they gave. */
static void report_calibration(orl_report *report, const options *o, orl_model **models, const orl_result *results,
                               const orl_dataset *prompts, orl_model *rm) {
    static const double quantile[] = {0.05, 0.25, 0.5, 0.75, 0.95, 0.99};
    enum { POINTS = sizeof quantile / sizeof *quantile };
    double asked[MAX_LIST][POINTS], got[MAX_LIST][POINTS];
    orl_series series[MAX_LIST];
    orl_chart chart;
    size_t i, k, j, n = 0, rows = orl_dataset_count(prompts);
    memset(series, 0, sizeof series);
    memset(&chart, 0, sizeof chart);
    for (i = 0; i < o->models.count; i++) {
        orl_generate_options g = o->generate;
        if (orl_model_condition(models[i], 0.5, NULL) == ORL_CONDITION_NONE) continue;
        for (k = 0; k < POINTS; k++) {
            orl_dataset *samples;
            g.target = ORL_TARGET_QUANTILE;
            g.target_value = quantile[k];
            orl_model_condition(models[i], quantile[k], &asked[n][k]);
            samples = orl_sample(models[i], orl_dataset_view(prompts, 0, rows < 200 ? rows : 200), &g);
            orl_score(rm, samples);
            for (got[n][k] = 0, j = 0; j < orl_dataset_count(samples); j++)
                got[n][k] += orl_dataset_row(samples, j)->reward;
            got[n][k] /= j ? (double)j : 1;
            orl_dataset_free(samples);
        }
        series[n].name = results[i].method;
        series[n].x = asked[n];
        series[n].y = got[n];
        series[n++].n = POINTS;
    }
    chart.title = "Reward asked for and obtained", chart.x_label = "asked for", chart.y_label = "obtained";
    chart.note = "Quantiles 0.05 to 0.99 of the training rewards.";
    chart.series = series;
    chart.series_count = n;
    chart.diagonal = 1;
    if (n) orl_report_chart(report, &chart);
}

/* The models' first answers to the first prompts, side by side. */
static void report_answers(orl_report *report, orl_dataset *prompts, orl_dataset **samples, const orl_result *results,
                           size_t models, size_t per_prompt) {
    enum { SHOWN = 6 };
    size_t shown = orl_dataset_count(prompts) < SHOWN ? orl_dataset_count(prompts) : SHOWN, cols = models + 1, i, j;
    char *owned[SHOWN * (MAX_LIST + 1)];
    const char *cells[(SHOWN + 1) * (MAX_LIST + 1)];
    cells[0] = "prompt";
    for (j = 0; j < models; j++) cells[j + 1] = results[j].method;
    for (i = 0; i < shown; i++)
        for (j = 0; j < cols; j++) {
            size_t row = i * (j ? per_prompt : 1);
            orl_dataset *from = j ? samples[j - 1] : prompts;
            const orl_row *r = row < orl_dataset_count(from) ? orl_dataset_row(from, row) : NULL;
            char *text = r ? text_of(j ? &r->response : &r->prompt) : NULL;
            owned[i * cols + j] = text;
            cells[(i + 1) * cols + j] = text ? text : "";
        }
    orl_report_table(report, "Answers side by side", cells, shown + 1, cols);
    for (i = 0; i < shown * cols; i++) free(owned[i]);
}

static int write_results(orl_ctx *ctx, const char *dir, const orl_result *results, size_t n) {
    char path[PATH_SIZE];
    FILE *f;
    size_t i;
    if (join(path, dir, "/results.jsonl") != GO) return 1;
    if (!(f = fopen(path, "wb"))) return fail("%s: cannot be written: %s", path, strerror(errno));
    for (i = 0; i < n; i++) {
        char *line = orl_result_json(ctx, &results[i]);
        if (line) fprintf(f, "%s\n", line);
        orl_free(ctx, line);
    }
    i = (size_t)ferror(f);
    if (fclose(f) != 0 || i) return fail("%s: cannot be written: %s", path, strerror(errno));
    return GO;
}

/* The columns that the ledger knows: each model's cost, and its share of PPO's. */
static void fill_costs(const options *o, orl_result *results, size_t n) {
    size_t count, i, ppo = n;
    entry *entries = ledger_read(o, &count), sum;
    for (i = 0; i < n; i++) {
        const char *model = i < o->models.count ? o->models.item[i] : "";
        const entry *e = ledger_find(entries, count, model, &sum);
        ledger_costs(entries, count, model, &results[i]);
        if (!strcmp(e ? e->method : results[i].method, "ppo")) ppo = i;
    }
    for (i = 0; i < n && ppo < n; i++) {
        results[i].percent_of_ppo = 100 * results[i].train_flops / results[ppo].train_flops;
        results[i].percent_of_ppo_total = 100 * (results[i].train_flops + results[i].data_flops) /
                                          (results[ppo].train_flops + results[ppo].data_flops);
    }
    free(entries);
}

static int cmd_eval(orl_ctx *ctx, options *o) {
    orl_model *models[MAX_LIST], *rm;
    orl_dataset *samples[MAX_LIST + 1], *prompts;
    orl_result results[MAX_LIST + 1];
    orl_eval_options evaluation = orl_eval_default();
    orl_report *report;
    char partial[PATH_SIZE], path[PATH_SIZE], *table;
    size_t count = o->models.count, i;
    int code = o->out ? begin_dir(o, partial) : GO;
    if (code != GO) return code;
    memset(results, 0, sizeof results);
    memset(samples, 0, sizeof samples);
    for (i = 0; i < count; i++) { /* a model is called by the last part of its path */
        const char *slash = strrchr(o->models.item[i], '/');
        models[i] = load_to_use(ctx, o, o->models.item[i]);
        orl_model_set_name(models[i], slash && slash[1] ? slash + 1 : o->models.item[i]);
    }
    if ((code = read_sampling(o, models[0])) != GO) return code;
    rm = load_to_use(ctx, o, o->rm);
    prompts = load_data(ctx, o, o->data, models[0]);
    start_line(ctx, o, models[0], orl_memory_now(ctx));
    o->generate.progress = on_sample;
    evaluation.generate = o->generate;
    evaluation.samples = samples;
    orl_evaluate(models, count, prompts, rm, &evaluation, results);
    fill_costs(o, results, count);
    if (o->filter_rule == ORL_BEST_OF && !orl_failed(ctx)) {
        orl_generate_options many = o->generate;
        orl_cost before = orl_cost_now(ctx);
        many.samples = (size_t)o->filter_x * o->generate.samples; /* as many winners as others have samples */
        samples[count] = orl_sample(models[0], prompts, &many);
        orl_score(rm, samples[count]);
        samples[count] = orl_filter(samples[count], ORL_BEST_OF, o->filter_x);
        before = orl_cost_since(ctx, before);
        orl_evaluate_samples(samples[count], samples[0], rm, &evaluation, &results[count]);
        snprintf(results[count].method, sizeof results[count].method, "best_of_%.0f", o->filter_x);
        results[count].train_tokens = results[count].train_flops = results[count].train_seconds = 0;
        results[count].data_flops = before.flops;
        results[count].data_seconds = before.seconds;
        count++;
    }
    table = orl_results_table(ctx, results, count);
    if (table) fputs(table, stdout);
    orl_free(ctx, table);
    if (!o->out || orl_failed(ctx)) return finish(ctx);

    if (make_dir(partial) != GO || join(path, partial, "/report.html") != GO) return 1;
    report = orl_report_create(ctx, "Comparison of aligned models");
    orl_report_results(report, results, count);
    report_rewards(report, samples, results, count);
    report_calibration(report, o, models, results, prompts, rm);
    report_losses(report, o, results);
    report_answers(report, prompts, samples, results, count, o->generate.samples);
    orl_report_save(report, path);
    return write_results(ctx, partial, results, count) == GO ? end_dir(ctx, o, partial) : 1;
}

/* ==== chat ===================================================================================== */

typedef struct text { /* grows; failed: there was no memory */
    char *data;
    size_t n, capacity;
    int failed;
} text;

static void text_add(text *t, const char *bytes, size_t n) {
    if (t->n + n + 1 > t->capacity && !t->failed) {
        size_t capacity = 2 * (t->n + n) + 64;
        char *grown = (char *)realloc(t->data, capacity);
        if (grown) t->data = grown, t->capacity = capacity;
        else t->failed = 1;
    }
    if (t->failed) return;
    memcpy(t->data + t->n, bytes, n);
    t->data[t->n += n] = 0;
}
static void text_puts(text *t, const char *s) { text_add(t, s, strlen(s)); }

/* Bytes of the character that begins here; 0 if that is none (RFC 3629). */
static size_t character(const char *s) {
    const unsigned char *u = (const unsigned char *)s;
    size_t i, n = *u < 0x80 ? 1 : *u < 0xc2 ? 0 : *u < 0xe0 ? 2 : *u < 0xf0 ? 3 : *u < 0xf5 ? 4 : 0;
    for (i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    if ((*u == 0xe0 && u[1] < 0xa0) || (*u == 0xed && u[1] >= 0xa0)) return 0;
    return (*u == 0xf0 && u[1] < 0x90) || (*u == 0xf4 && u[1] >= 0x90) ? 0 : n;
}

/* A JSON string; stray bytes become U+FFFD. */
static void text_json(text *t, const char *s) {
    char code[8];
    text_puts(t, "\"");
    while (*s) {
        size_t n = character(s);
        if (!n) text_puts(t, "\\ufffd");
        else if ((unsigned char)*s < 32) snprintf(code, sizeof code, "\\u%04x", (unsigned char)*s), text_puts(t, code);
        else if (*s == '"' || *s == '\\') text_add(t, "\\", 1), text_add(t, s, 1);
        else text_add(t, s, n);
        s += n ? n : 1;
    }
    text_puts(t, "\"");
}

typedef struct turn { /* what was asked, and the answer to it, NULL if that is awaited */
    char *asked, *answer;
} turn;

typedef struct chat {
    options *o;
    orl_model *model;
    turn *turns;
    size_t count, capacity;
    text answer; /* as it comes in */
} chat;

static void chat_drop(chat *c, size_t first, size_t n) {
    size_t i;
    for (i = first; i < first + n; i++) free(c->turns[i].asked), free(c->turns[i].answer);
    memmove(c->turns + first, c->turns + first + n, (c->count - first - n) * sizeof *c->turns);
    c->count -= n;
}

/* Takes over `asked`. */
static int chat_ask(chat *c, char *asked) {
    if (c->count == c->capacity) {
        turn *grown = (turn *)realloc(c->turns, (2 * c->capacity + 8) * sizeof *grown);
        if (!grown) return free(asked), 0;
        c->turns = grown, c->capacity = 2 * c->capacity + 8;
    }
    c->turns[c->count].asked = asked;
    c->turns[c->count++].answer = NULL;
    return 1;
}

static void chat_message(text *t, const char *role, const char *content) {
    if (!content) return;
    text_puts(t, t->n ? ", {\"role\": \"" : "{\"messages\": [{\"role\": \"");
    text_puts(t, role);
    text_puts(t, "\", \"content\": ");
    text_json(t, content);
    text_puts(t, "}");
}

/* The conversation as a prompt, written by the template. */
static orl_dataset *chat_prompt(const chat *c) {
    const char *chosen = given(c->o, "template") ? orl_template_name((orl_template)c->o->template_kind) : NULL;
    orl_dataset *data = NULL;
    text t;
    size_t i;
    memset(&t, 0, sizeof t);
    chat_message(&t, "system", c->o->system);
    for (i = 0; i < c->count; i++) {
        chat_message(&t, "user", c->turns[i].asked);
        chat_message(&t, "assistant", c->turns[i].answer);
    }
    text_puts(&t, "]}");
    if (!t.failed) data = orl_dataset_parse(orl_model_ctx(c->model), t.data, t.n, "chat");
    orl_dataset_use_template(data, c->model, chosen);
    free(t.data);
    return data;
}

/* How many tokens of the context a prompt takes up. */
static size_t chat_tokens(const chat *c, orl_dataset *prompt) {
    const orl_row *r = orl_dataset_row(prompt, 0);
    const int conditioned = orl_model_condition(c->model, 0, NULL) != ORL_CONDITION_NONE;
    int32_t *ids = NULL;
    size_t n = 0;
    if (r) orl_encode(orl_model_tokenizer(c->model), r->prompt.text, r->prompt.bytes, 1, &ids, &n);
    orl_free(orl_model_ctx(c->model), ids);
    return n + (conditioned ? 24 : 1); /* begin token, condition */
}

/* The prompt for an answer; the oldest turns go if there is no room for one. NULL: even the last message is too long,
 * or something failed. */
static orl_dataset *chat_fit(chat *c) {
    const size_t context = orl_model_get_config(c->model)->context, most = c->o->generate.max_tokens;
    const size_t room = most && most < context / 2 ? most : context / 4 + 1; /* for the answer */
    size_t dropped = 0;
    for (;;) {
        orl_dataset *prompt = chat_prompt(c);
        size_t n = chat_tokens(c, prompt);
        if (!prompt || n + (c->count > 1 ? room : 1) <= context) {
            if (dropped)
                say("the context of %zu tokens is full: the oldest %zu turn%s left out", context, dropped,
                    dropped == 1 ? " is" : "s are");
            return prompt;
        }
        orl_dataset_free(prompt);
        if (c->count == 1) {
            say("%zu tokens do not fit the context of %zu: shorten the message", n, context);
            return NULL;
        }
        chat_drop(c, 0, 1), dropped++;
    }
}

static int chat_token(void *user, const orl_spoken *token) {
    chat *c = (chat *)user;
    const char *bytes = token->text;
    size_t n = token->bytes;
    while (!c->answer.n && n && (*bytes == ' ' || *bytes == '\n')) bytes++, n--; /* some templates' answers open so */
    text_add(&c->answer, bytes, n);
    fwrite(bytes, 1, n, stdout);
    fflush(stdout);
    return interrupted != 0;
}

/* Answers the last message. The first Ctrl-C ends the answer, which stays as far as it went; the next one ends the
 * program. */
static void chat_answer(chat *c, uint64_t number) {
    orl_ctx *ctx = orl_model_ctx(c->model);
    orl_dataset *prompt = chat_fit(c);
    orl_generate_options g = c->o->generate;
    c->answer.n = 0;
    text_add(&c->answer, "", 0);
    g.samples = 1, g.seed += number, g.on_token = chat_token, g.user = c;
    if (prompt) orl_dataset_free(orl_sample(c->model, prompt, &g));
    orl_dataset_free(prompt);
    if (orl_error_status(ctx) == ORL_ERR_STOPPED) {
        orl_clear_error(ctx);
        interrupted = 0;
        catch_signals();
    }
    if (prompt) fputs("\n", stdout), fflush(stdout);
    while (c->answer.n && strchr(" \n", c->answer.data[c->answer.n - 1])) c->answer.data[--c->answer.n] = 0;
    if (!prompt || c->answer.failed) chat_drop(c, c->count - 1, 1);
    else c->turns[c->count - 1].answer = c->answer.data, memset(&c->answer, 0, sizeof c->answer);
}

/* The next line of stdin without its end, to be freed; NULL at the end, or at Ctrl-C. */
static char *chat_line(int shows) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    if (shows) fputs("> ", stderr), fflush(stderr);
    n = getline(&line, &capacity, stdin);
    if (n < 0 || interrupted) return free(line), NULL;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    return line;
}

static int cmd_chat(orl_ctx *ctx, options *o) {
    const int shows = isatty(STDIN_FILENO) && !o->quiet;
    static const char turn_tag[] = "\n\nHuman:";
    uint64_t number = 0;
    char *line;
    chat c;
    int code, quit = 0;
    memset(&c, 0, sizeof c);
    c.o = o, c.model = load_to_use(ctx, o, o->models.item[0]);
    if ((code = read_sampling(o, c.model)) != GO) return code;
    if (!c.model) return finish(ctx);
    if (orl_is_reward_model(c.model)) return fail("%s is a reward model: it has nothing to say", o->models.item[0]);
    if (!orl_model_tokenizer(c.model)) return fail("%s has no tokenizer, and a chat is text", o->models.item[0]);
    if ((given(o, "template") ? o->template_kind : (int)orl_template_find(orl_model_tokenizer(c.model))) ==
            ORL_TEMPLATE_HH && o->stops.count < MAX_LIST) /* its turns end with no token, but where the next begins */
        o->stops.item[o->generate.stop_string_count++] = turn_tag;
    start_line(ctx, o, c.model, orl_memory_now(ctx));
    while (!orl_failed(ctx) && !quit && (line = chat_line(shows)) != NULL) {
        quit = !strcmp(line, "/quit");
        if (!strcmp(line, "/reset")) chat_drop(&c, 0, c.count);
        if (!*line || quit || !strcmp(line, "/reset")) free(line);
        else if (chat_ask(&c, line)) chat_answer(&c, number++);
    }
    chat_drop(&c, 0, c.count);
    free(c.turns), free(c.answer.data);
    return interrupted ? 128 + (int)interrupted : finish(ctx);
}

/* ==== the command line ========================================================================= */

typedef struct command {
    const char *name;
    int bit;
    const char *needs; /* options it cannot do without, separated by spaces */
    int (*run)(orl_ctx *ctx, options *o);
    const char *usage, *summary;
} command;

static const command command_table[] = {
    {"demo", DEMO, "", cmd_demo,
     "[--out DIR] [--seed S] [--seeds N]",
     "the whole pipeline on a built-in task, from nothing to a table"},
    {"tokenizer", TOKENIZER, "train vocab out", cmd_tokenizer,
     "--train FILE… --vocab N --out DIR",
     "learn a byte-level BPE tokenizer"},
    {"encode", ENCODE, "model", cmd_encode,
     "--model DIR [--dump [--data FILE]] < text",
     "text on stdin to a JSON array of token ids; adds neither BOS nor EOS"},
    {"decode", DECODE, "model", cmd_decode,
     "--model DIR < ids",
     "the inverse of encode"},
    {"init", INIT, "out", cmd_init,
     "--tokenizer DIR|--vocab N --out DIR",
     "a model with random weights"},
    {"import", IMPORT, "llama2c out", cmd_import,
     "--llama2c FILE --tokenizer FILE --out DIR",
     "llama2.c weights to a Hugging Face directory"},
    {"export", EXPORT, "model out", cmd_export,
     "--model DIR --out DIR|FILE.gguf [--dtype f32|f16|bf16|q8_0]",
     "a model with weights stored otherwise, or as one file for llama.cpp"},
    {"split", SPLIT, "data out-train out-test", cmd_split,
     "--data FILE --by FIELD|--test-fraction X --out-train FILE --out-test FILE",
     "rows into a training and a test set"},
    {"pretrain", PRETRAIN, "model data out", cmd_pretrain,
     "--model DIR --data FILE --out DIR",
     "train on every token of the rows' text"},
    {"sft", SFT, "model data out", cmd_sft,
     "--model DIR --data FILE --out DIR",
     "train on the responses to prompts"},
    {"rm", RM, "model data out", cmd_rm,
     "--model DIR --data PAIRS --out DIR",
     "train a reward model on chosen and rejected responses"},
    {"generate", GENERATE, "model", cmd_generate,
     "--model DIR --data FILE|--prompt TEXT [-n N] [--out FILE]",
     "sample responses"},
    {"chat", CHAT, "model", cmd_chat,
     "--model DIR [--system TEXT] [--template NAME] [--target-reward R]",
     "talk to a model: a line is a message; /reset begins anew, /quit ends"},
    {"logprob", LOGPROB, "model data", cmd_logprob,
     "--model DIR --data FILE [--out FILE]",
     "add \"logprob\" (of the response) and \"tokens\" to each row"},
    {"score", SCORE, "rm data", cmd_score,
     "--rm DIR --data FILE [--out FILE]",
     "add \"reward\" and \"reward_raw\" to each row; of pairs, to both sides"},
    {"precision", PRECISION, "model data", cmd_precision,
     "--model DIR --data FILE",
     "what weights kept in bf16 or int8 save and cost: a line of JSON for each"},
    {"align", ALIGN, "model data out", cmd_align,
     "--method NAME --model DIR --data FILE [--rm DIR] --out DIR",
     "align a model to rewards: filter, weight, condition, or PPO, DPO"},
    {"eval", EVAL, "model data rm", cmd_eval,
     "--model DIR… --data PROMPTS --rm DIR [--out DIR]",
     "compare models on prompts: a table, results.jsonl, report.html"},
};
#define COMMANDS (sizeof command_table / sizeof *command_table)

static void print_usage(FILE *f) {
    size_t i;
    fputs("orl " ORL_VERSION ": offline RLHF for language models\n\n", f);
    fputs("usage: orl COMMAND [options]      orl COMMAND --help says more\n\n", f);
    for (i = 0; i < COMMANDS; i++) fprintf(f, "  %-10s %s\n", command_table[i].name, command_table[i].summary);
}

static void print_help(const command *c, const options *o) {
    size_t i;
    printf("usage: orl %s %s\n\n%s\n\n", c->name, c->usage, c->summary);
    for (i = 0; i < OPTIONS; i++) {
        const option *t = &option_table[i];
        const void *value = (const char *)o + t->target;
        char left[96];
        if (!(t->commands & c->bit)) continue;
        snprintf(left, sizeof left, "%s%s %s", dashes(t->name), t->name, t->value ? t->value : "");
        printf(strlen(left) > 32 ? "  %s\n%35s%s" : "  %-32s%s%s", left, strlen(left) > 32 ? "" : " ", t->help);
        if (t->kind == COUNT && *(const size_t *)value) printf(" (default %zu)", *(const size_t *)value);
        if (t->kind == INTEGER && *(const int *)value) printf(" (default %d)", *(const int *)value);
        if (t->kind == REAL && *(const double *)value != 0) printf(" (default %g)", *(const double *)value);
        if (c->bit == ALIGN && t->second != NOWHERE) { /* PPO's own default, where it differs */
            value = (const char *)o + t->second;
            if (t->kind == COUNT && *(const size_t *)value != *(const size_t *)((const char *)o + t->target))
                printf(" (ppo: %zu)", *(const size_t *)value);
            if (t->kind == REAL && fabs(*(const double *)value - *(const double *)((const char *)o + t->target)) > 0)
                printf(" (ppo: %g)", *(const double *)value);
        }
        printf("%s\n", t->commands & FOR_PPO ? " [ppo]" : t->commands & STAGE ? " [offline]" : "");
    }
}

/* Edit distance (Levenshtein), for saying what may have been meant. */
static size_t distance(const char *a, const char *b, size_t n) { /* b: n bytes */
    size_t row[64], i, j;
    if (n > 63) return 64;
    for (j = 0; j <= n; j++) row[j] = j;
    for (i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static int unknown_option(const options *o, const command *c, const char *name, size_t length) {
    const option *elsewhere = find_option(name, length, ALL), *nearest = NULL;
    char owners[256] = "";
    size_t n = 0, i, best = length / 2 < 3 ? length / 2 + 1 : 4; /* at most 3 edits, and fewer for short names */
    for (i = 0; i < OPTIONS; i++) {
        size_t d = option_table[i].commands & c->bit ? distance(option_table[i].name, name, length) : best;
        if (d < best) best = d, nearest = &option_table[i];
    }
    if (nearest)
        return usage(o, "orl %s has no option --%.*s; did you mean %s%s?", c->name, (int)length, name,
                     dashes(nearest->name), nearest->name);
    for (i = 0; elsewhere && i < COMMANDS; i++)
        if (elsewhere->commands & command_table[i].bit)
            n += (size_t)snprintf(owners + n, sizeof owners - n, "%s%s", n ? ", " : "", command_table[i].name);
    if (n) return usage(o, "orl %s has no option --%.*s; it belongs to orl %s", c->name, (int)length, name, owners);
    return usage(o, "orl %s has no option --%.*s", c->name, (int)length, name);
}

static int unknown_command(const options *o, const char *name) {
    const char *nearest = NULL;
    size_t i, best = 4;
    for (i = 0; i < COMMANDS; i++) {
        size_t d = distance(command_table[i].name, name, strlen(name));
        if (d < best) best = d, nearest = command_table[i].name;
    }
    return nearest ? usage(o, "there is no command %s; did you mean %s?", name, nearest)
                   : usage(o, "there is no command %s", name);
}

/* Everything after the subcommand. GO, or an exit status (of --help, 0). */
static int parse(options *o, const command *c, int argc, char **argv) {
    int i;
    for (i = 0; i < argc; i++) {
        const char *name = argv[i], *value;
        const option *t;
        size_t length;
        if (*name != '-' || !name[1]) return usage(o, "%s: orl %s takes options only", name, c->name);
        if (!strcmp(name, "-h")) name = "--help";
        name += name[1] == '-' ? 2 : 1;
        length = strcspn(name, "=");
        t = find_option(name, length, c->bit);
        if (!t) return unknown_option(o, c, name, length);
        o->given[t - option_table] = 1;
        value = name[length] == '=' ? name + length + 1 : NULL;
        if (t->kind == FLAG || t->kind == OFF) {
            if (value) return usage(o, "--%s takes no value", t->name);
            store(o, t, "");
            continue;
        }
        if (!value && i + 1 < argc) value = argv[++i];
        if (!value) return usage(o, "%s%s needs a value: %s", dashes(t->name), t->name, t->value);
        if (!store(o, t, value)) return usage(o, "%s%s: \"%s\" is not %s", dashes(t->name), t->name, value, t->value);
        while (t->kind == LIST && i + 1 < argc && argv[i + 1][0] != '-') /* DIR…: up to the next option */
            if (!store(o, t, argv[++i])) return usage(o, "--%s: more than %d", t->name, MAX_LIST);
    }
    return GO;
}

/* What the table cannot say by itself: options that are missing, or mean several things. */
static int settle(options *o, const command *c) {
    const char *need = c->needs;
    while (*need) {
        size_t n = strcspn(need, " ");
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)n, need);
        if (!given(o, name) && !(!strcmp(name, "out") && (o->estimate || o->dump_batch)))
            return usage(o, "orl %s needs --%s", c->name, name);
        need += n + (need[n] == ' ');
    }
    if (o->models.count > 1 && c->bit != EVAL) return usage(o, "orl %s takes one --model", c->name);
    if (o->frozen && o->weights == AS_F32) return usage(o, "--frozen and --weights f32 exclude each other");
    if (o->share >= 0) o->train.share = (orl_share)o->share;
    if (o->schedule >= 0) o->train.schedule = o->ppo.schedule = (orl_schedule)o->schedule;
    if (given(o, "seed")) o->train.seed = o->ppo.seed = o->generate.seed = o->config.seed;
    o->config.strict = o->strict;
    terminal.quiet = o->quiet;
    return GO;
}

int main(int argc, char **argv) {
    static options o;
    static char out[PATH_SIZE];
    const command *c = NULL;
    const char *name = argc > 1 ? argv[1] : "", *kind = getenv("TERM");
    orl_ctx *ctx;
    size_t i;
    int code;
    /* One line is redrawn where that works. No colour is ever used, so NO_COLOR has nothing to take away. */
    terminal.redraw = isatty(STDERR_FILENO) && kind && *kind && strcmp(kind, "dumb") != 0;
    defaults(&o);
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) return print_usage(stdout), 0;
    if (!strcmp(name, "--version")) return puts("orl " ORL_VERSION), 0;
    if (!*name) return print_usage(stderr), 2;
    for (i = 0; i < COMMANDS; i++)
        if (!strcmp(name, command_table[i].name)) c = &command_table[i];
    if (!c) return unknown_command(&o, name);
    o.command = c->name;
    code = parse(&o, c, argc - 2, argv + 2);
    if (code == GO && o.help) return defaults(&o), print_help(c, &o), 0;
    if (code == GO) code = settle(&o, c);
    if (code != GO) return code;
    if (o.out) { /* DIR/ is DIR: OUT.partial stands beside it */
        size_t n = strlen(o.out);
        if (join(out, o.out, "") != GO) return 1;
        while (n > 1 && out[n - 1] == '/') out[--n] = 0;
        o.out = out;
    }
    if (c->bit == DEMO) return cmd_demo(NULL, &o);
    if (c->bit & (TRAINS | SPEAKS)) catch_signals();
    ctx = orl_create(&o.config);
    orl_on_note(ctx, on_note, NULL);
    code = orl_failed(ctx) ? finish(ctx) : c->run(ctx, &o);
    orl_destroy(ctx);
    return code;
}
