/* offline_rlhf.h - aligning language models with offline RL from human feedback, in C.
 *
 * Everything from raw text to an aligned model in one header: tokenizer, transformer, autograd,
 * sampling, reward model, and the three offline methods of Hu, Tao, Yang and Zhou (arXiv
 * 2308.12050): MLE with filtering, reward-weighted regression, decision transformer; DPO beside
 * them, and PPO as the baseline they are measured against. It needs libc, libm and pthreads and
 * nothing else; it reads and writes Hugging Face directories and JSONL; it gives the same bits on
 * any number of threads.
 *
 *     cc -O2 program.c -o program -lm -lpthread
 *
 *     #define OFFLINE_RLHF_IMPLEMENTATION                // in one source file of a program
 *     #include "offline_rlhf.h"
 *
 *     int main(void) {
 *         orl_ctx *ctx = orl_create(NULL);               // all cores, best instruction set
 *         orl_model *sft = orl_model_load(ctx, "sft/");  // a Hugging Face directory
 *         orl_model *rm = orl_reward_model(sft), *aligned = orl_model_copy(sft);
 *         orl_train_reward(rm, orl_dataset_load(ctx, "pairs.jsonl"), NULL);
 *         orl_dataset *data = orl_sample(sft, orl_dataset_load(ctx, "prompts.jsonl"), NULL);
 *         orl_score(rm, data);                           // label the samples, once
 *         orl_train(aligned, orl_filter(data, ORL_ABOVE_QUANTILE, 0.8), NULL);
 *         orl_model_save(aligned, "aligned/");
 *         if (orl_failed(ctx)) fprintf(stderr, "%s\n", orl_error(ctx));
 *         orl_destroy(ctx);                              // frees whatever is left
 *         return 0;
 *     }
 *
 * Lessons: examples/quickstart.c (this, in full, needs no file), own_loss.c (operators, a loss of
 * one's own), valence.c (a reward of one's own), orl.c (the command-line tool). The API is section
 * 1 below.
 *
 * CONTENTS OF THIS MANUAL
 *   A map of the sections   B what to read first     C the one idea      D options
 *   E threads               F the same bits          G memory            H errors and notes
 *   I model files           J data                   K files it writes   L a loss of your own
 *   M a new model family    N what it does not do    O sources
 *
 * A. MAP OF THE SECTIONS
 * Search for the tag to get there. A section uses only what stands above it: private functions have
 * no forward declarations, so a call to what stands below does not compile.
 *
 *   tag          what it is                                                       depends on
 *   >>api        1  every public type and function                                -
 *   >>base       2  sticky errors, checked sizes, counted memory, strings, arena  api
 *   >>platform   3  clock, processor features, files read and written whole       base
 *   >>threads    4  one pool; who runs a task does not matter to its result       platform
 *   >>rng        5  random numbers as a function of (key, stream, counter)        -
 *   >>kernels    6  matrix products, row kernels, attention, per instruction set  threads
 *   >>tensor     7  contexts, parameters, the tape and its fused operators        kernels
 *   >>optim      8  AdamW, schedules, clipping                                    tensor
 *   >>formats    9  JSON and safetensors, in and out; GGUF, out                   platform
 *   >>tokenizer  10 byte-pair encoding: learned, loaded, saved                    formats
 *   >>model      11 nine families, language or reward head; LoRA; bf16, int8      tensor, tokenizer
 *   >>generate   12 paged KV cache, continuous batching, sampling                 model
 *   >>data       13 rows, views, and the token ids a model sees of them           model
 *   >>train      14 one trainer: micro-batches, losses, checkpoints, logs         data, optim
 *   >>rlhf       15 filter, weight, condition; reward model, DPO, PPO; evaluation train, generate
 *   >>report     16 results as text, JSON and a page of charts                    formats
 *
 * Each section opens with a contract (purpose, invariants, threads, numerics, the test that holds
 * it to them). Shapes stand beside tensors, x: (n, d); orli_ and ORLI_ are private.
 *
 * B. IF YOU READ ONLY 400 LINES, READ THESE
 *   the methods    orl_filter, orl_weight, orl_condition                          >>rlhf 15.2
 *   the losses     orl_loss_nll, orl_loss_reward, orl_loss_dpo                    >>train 14.2
 *   what they see  orli_micro_add, orli_micro_run                                 >>train 14.1
 *   one step       orli_trainer_fill, orli_trainer_micro, orli_trainer_step       >>train 14.6
 *   the model      orli_model_block, orli_model_forward                           >>model 11.3
 *   a gradient     orl_linear, orli_linear_backward, orl_backward                 >>tensor 7.3, 7.7
 *   the baseline   orli_gae, orli_loss_ppo, orli_loss_value, orli_ppo_iteration     >>rlhf 15.6
 *
 * C. THE ONE IDEA
 * Every offline method of the paper is supervised fine-tuning on a transformed data set. One
 * trainer, one loss, over the tokens t of the responses y_i in one optimizer batch:
 *
 *     L = - sum_i w_i sum_t log pi(y_it | c_i, y_i<t) / (number of response tokens in the batch)
 *
 *     method                filter: which rows   weight w_i                condition c_i
 *     SFT                   all demonstrations   1                         the prompt
 *     MLE with filtering    r > threshold        1                         the prompt
 *     RWR                   all                  min(e^((r - b)/beta), C)  the prompt
 *     decision transformer  all, good and bad    1                         the prompt and the reward
 *
 *     orl_filter(data, ORL_ABOVE, 0)                             MLE with filtering
 *     orl_weight(data, 1.0, ORL_BASELINE_NONE, 20)               RWR, beta = 1, C = 20
 *     orl_condition(data, NULL)                                  DT, the reward written as text
 *     orl_condition(orl_filter(data, ORL_TOP_K, 2), &options)    both, and so on
 *
 * r is the z-score of the raw rewards over the whole labelled set (mean 0, population sd 1), also
 * in views of views; w is rescaled to mean 1 over the rows that are left. A batch of poor samples
 * pulls less: the divisor counts tokens, not weights. The three give new views that share the text,
 * and compose in any order. DT writes the reward as text between prompt and response (" <rm_score>:
 * 1.3 "), or, with ORL_CONDITION_BINS, as one of `bins` ordered tokens that are added to the model;
 * a share of rows (`dropout`) goes without, so that sampling can be guided. Sampling then asks for
 * a reward (`target`), by default the 0.99-quantile of those trained on; what lies outside that
 * range is clamped, with a note. How a token is drawn, what is banned and what ends a response: orl_generate_options.
 *
 * D. OPTIONS
 * Define them before including the header. ORL_STATIC, ORL_API and ORL_REAL must be the same in
 * every file of a program; the others matter where the implementation is.
 *
 *     OFFLINE_RLHF_IMPLEMENTATION    compile the functions here; once in a program
 *     ORL_STATIC                     all functions static: each including file has its own copy
 *     ORL_API                        what stands before each public function (extern, or static)
 *     ORL_REAL                       float, or double: scalar kernels, for gradient checks
 *     ORL_MALLOC(size), ORL_FREE(p)  malloc and free; define both or neither
 *     ORL_ASSERT(x)                  assert; it guards the library's own promises, never input
 *     ORL_NO_SIMD                    scalar kernels alone, no intrinsics of x86-64 or arm64
 *     ORL_HEADER                     "offline_rlhf.h": the name by which this file includes itself,
 *                                    once per instruction set; define it if you rename the file
 *     ORL_ALLOW_FAST_MATH            accept -ffast-math, which is refused: it breaks section F
 *     ORL_USE_BLIS                   gradients' large products through BLIS: <blis.h>, -lblis
 *     ORL_STOP_AFTER                 a number: leave out the sections behind it (for tests)
 *
 * At run time, $ORL_ISA (scalar, avx2 or avx512; on arm64 scalar or neon) goes before
 * orl_config.isa; one that this machine or build does not have is an error. -march=native is not
 * needed: kernels are chosen when a context is made. Under a strict -std=c99 include the
 * implementation before any libc header, so that it can ask for POSIX; an #error says so where it
 * matters. C99 and later, C++11 and later; gcc and clang.
 *
 * ORL_USE_BLIS pays in the double build (such a product is 6 to 7 times faster with BLIS 0.9 on an
 * AVX-512 machine), and not in float there (0.75 to 0.95 times the speed). BLIS chooses
 * its kernels apart from ORL_ISA: BLIS 0.9 does not know newer processors, and $BLIS_ARCH_TYPE must
 * tell it by number (0: skx, in Debian's x86-64 build). It runs on one thread in each task of the
 * pool; its buffers, some MB a thread, are not counted. Forward products stay with our kernels, so
 * that a model in training and its copy that scores agree bit for bit, which PPO insists on: section
 * F holds, but a build with BLIS trains to other last bits than one without.
 *
 * E. THREADS
 * A context owns a pool: orl_config.threads, 0 for one per core that this process may use; the
 * calling thread is one of them. Use a context, and all that was made in it, from one thread at a
 * time; different contexts know nothing of each other, as there is no global state. Callbacks are
 * called from the calling thread. Idle workers spin for a fraction of a millisecond, then sleep. Kernels
 * round to nearest and flush denormals to zero; the caller's mode is restored.
 *
 * F. THE SAME BITS
 * On one machine with one build, equal calls give equal bits: for any number of threads; for a
 * prompt sampled alone or with others, in any `batch` and `kv_bytes`; for a row scored alone or among others; for
 * a run resumed from a checkpoint. A sample depends on (model, seed, prompt index, sample index)
 * alone, the order of rows on (seed, step) alone. Sums are split by size and added in a fixed
 * order; a row of a matrix product is one chain of fused multiply-adds whoever is beside it. Not
 * covered: another instruction set; another libm (sampling, schedules and what is in double use
 * it); other compiler settings on arithmetic, such as contraction; another `micro_tokens`, which
 * splits a sum elsewhere; times and thread counts in logs.
 *
 * G. MEMORY
 * The library's memory goes through ORL_MALLOC, is counted (orl_memory_now, orl_memory_peak), and
 * refused above orl_config.memory_limit; files that are read are mapped and not counted. What a
 * function returns lives until its x_free(), or until the context is destroyed; strings and arrays
 * are given back by orl_free(ctx, p). A model does not own its tokenizer; views keep the text they
 * share alive.
 *
 * A model in training holds its weights four times (weights, gradients, two moments: 16 bytes a
 * parameter), one that samples or scores up to twice (weights, and packed for matrix products). With
 * a LoRA adapter only the adapter has gradients and moments, and its base may be frozen: bf16, 2
 * bytes a parameter, or none if it stays in its file (orl_model_load_frozen). What samples or scores
 * alone may be int8, little more than one byte (orl_model_store_int8; orl_compare_logprob says what
 * that costs). PPO has policy and critic in training, reference and reward model in use. Activations are those of one
 * micro-batch of `micro_tokens` tokens (0: 4096): orl_train() sizes their arena before its first
 * step, by a run without arithmetic, and the same run tells orl_train_estimate() what will be
 * needed. Within it, what no later operator reads makes room at once: gradients as the backward pass
 * goes, values that are cheap to make again, all of a pass without gradient. `recompute` keeps only
 * the blocks' results: much less memory for one more forward pass, the same bits. The largest chunk
 * such an arena leaves is kept for the next one, counted as held, and given up when memory is short.
 * Keys and values of sampling are bounded by `kv_bytes`: each sequence sets all pages aside that it may need, so what
 * does not fit waits, and nothing is computed twice.
 * A batch is packed end to end: there is no padding; a prompt is computed once for both sides of a
 * pair, in sampling for all its samples, and in training for all its rows if `share` says so;
 * training never holds more logits than those of 256 tokens.
 *
 * H. ERRORS AND NOTES
 * The first failure stays in the context as a status and one sentence that names the file, the
 * field or the option, and the remedy. From then on every call does nothing and returns NULL or
 * that status, so a program may check once, at its end; orl_clear_error() begins anew. NULL objects
 * are accepted everywhere. A run that a progress callback stops ends as ORL_ERR_STOPPED, after
 * saving its checkpoint if it has one; so does sampling that `on_token` stops, and returns what there is.
 * The library never prints and never exits. What is no error
 * but must not be lost (rows cut or dropped, how many a filter keeps, the effective sample size of
 * weights, a clamped target) goes to the callback of orl_on_note() as a sentence, and is dropped if
 * there is none.
 *
 * I. MODEL FILES
 * A model is a directory as Hugging Face's transformers have it: config.json, model.safetensors (or
 * shards with an index), tokenizer.json, or vocab.json + merges.txt, or GPT-2's encoder.json +
 * vocab.bpe, or a rank file of tiktoken. Of tokenizer.json BPE is known: byte-level (split as in
 * GPT-2, Llama 3, Qwen, GPT-4o, Mistral NeMo or SmolLM; NFC) or as SentencePiece has it (Llama 2, Mistral,
 * Gemma), with all flags of added tokens; another part of it is an error that names it.
 *
 * F32, F16, BF16 and F64 weights are read; F32 is written (F64 in the double build), or
 * what orl_model_save_as() is told. Settings that are not used here, and the tokenizer's files with
 * their chat template, go out as they came; a new special token makes a new tokenizer.json.
 * orl_model_save_gguf() makes one file for llama.cpp (F32, F16, BF16, Q8_0), which reads it as we do:
 * the same token ids, log-probabilities equal to 2e-4 in F32.
 *
 * A reward model is a sequence classifier with one label: its head is score.weight (1, dim), read at
 * the last token of the response; its normalisation is orl_reward {mean, std} in config.json. A
 * conditioned model carries orl_condition there (kind, template, quantiles, default target), and
 * sampling applies it. Settings that are known to change the computation and are not implemented
 * (another activation, yarn, soft-capped scores, …) are refused by name; a tensor that is missing, of
 * another shape, or has no place in the model, is an error, found before memory is asked for; masks
 * and tables that files carry are passed over. generation_config.json's end tokens go before those of
 * config.json. Keys are known in older and newer spellings (rope_scaling, rope_parameters, layer_types,
 * sliding_window_pattern, …). llama2.c checkpoints and its tokenizer.bin are read too.
 *
 * An adapter (orl_lora_add) is saved as PEFT has it: adapter_config.json and adapter_model.safetensors,
 * and beside them orl_adapter.json for what PEFT does not know, a condition or a reward's normalisation.
 * Where a model is loaded from, such a directory does as well: its base is loaded first.
 *
 * J. DATA
 * JSONL, one object a line, with the field names of TRL:
 *
 *     {"text"}                              all of it is response
 *     {"prompt", "completion"}              a demonstration or a sample; to sample, a prompt alone
 *     {"prompt", "chosen", "rejected"}      a pair; "margin" if there is one
 *     {"chosen", "rejected"}                two transcripts as in hh-rlhf: the prompt ends with the
 *                                           last "\n\nAssistant:" of what they share
 *     {"messages": [{"role", "content"}]}   the last turn is the response, or a prompt alone if it is not the
 *                                           assistant's; tags: see orl_template
 *     prompt_ids, completion_ids, chosen_ids, rejected_ids    token ids, used as they are
 *     reward, reward_raw, truncated, templated, logprob, sampling_logprob, sample, condition
 *                                           what this library writes
 *
 * Fields it does not know come out as they went in. Prompt and response are encoded apart and their
 * ids joined: that is the border, in training and in sampling alike. So the blank between them
 * belongs to the response (" Paris") with byte-level tokenizers. Text gets the tokenizer's BOS in
 * front if its configuration asks for it, and the end token behind a response unless the row is
 * "truncated"; rows of ids get nothing. Special tokens are recognised in prompts, not in responses.
 * Messages become text by a chat template, hh's unless orl_dataset_use_template() or _set_template()
 * says otherwise. Other templates bring their own BOS, or none, and the first of the two gives the
 * model their end of turn (<|im_end|>, <|eot_id|>, …) as its end token, which its config.json then
 * has: what is trained to end so is sampled to stop there.
 * A response beyond the context is cut, and a prompt that leaves no room for one token drops the
 * row: both are counted in a note, or an error with orl_config.strict. A malformed row, an empty
 * response, a reward that is not finite: an error with its line or row. orl_dataset_dump() shows
 * every token with its loss weight. Loss falls on response tokens only; orl_dataset_blocks() makes
 * rows for pretraining, where it falls on all.
 *
 * K. FILES IT WRITES
 * Each but the log is written beside its name, flushed and renamed, so that a killed process leaves
 * the old file or the new one. orl_model_save() makes a new directory, or fills one that
 * holds no model yet; data sets and reports replace the file that was there. `checkpoint` is one safetensors file
 * with weights, moments, step and, of PPO, the KL coefficient: call the same function with the same
 * arguments (models as they were before the run: they are the reference) and `resume`, and it goes
 * on as if nothing had happened, or says what does not match. A finished run leaves its result in
 * the model: save it. `log` is JSONL, appended to as the run goes: first what the run is, then one
 * object a step; on resume it is cut back to the checkpoint.
 *
 * L. A LOSS OF YOUR OWN
 * orl_train_options.loss is a function from a micro-batch (orl_batch) to a (1, 1) tensor, written
 * with the operators of 1.3; orl_backward() does the rest. DPO, in full:
 *
 *     size_t tokens = b->offset[b->sequences];
 *     orl_tensor *ratio = orl_sub(tape, b->logp, orl_constant(tape, b->ref_logp, tokens, 1));
 *     orl_tensor *s = orl_sum_groups(tape, ratio, b->offset, b->sequences);
 *     orl_tensor *gap = orl_sub(tape, orl_every(tape, s, 0, 2), orl_every(tape, s, 1, 2));
 *     return orl_sum(tape, orl_softplus(tape, orl_scale(tape, gap, -beta)));
 *
 *   - Return the SUM over the micro-batch. The trainer adds up gradients and divides once a step,
 *     by the response tokens of the whole batch, or by its pairs or rows if `per_pair` is set.
 *   - Of pairs, sequence 2i is chosen and 2i + 1 rejected. logp is of language models, score of
 *     reward models; ref_logp is there if `reference` is.
 *   - Build it from operators alone. It is also called on a tape that only measures memory, where
 *     orl_data() of a tensor is NULL, and without gradients for validation.
 *   - `reduce` is called with the gradient sum of a step and its divisor, before one is divided by the
 *     other and clipped: data parallelism adds up both over its processes.
 *
 * M. A NEW MODEL FAMILY (section 11)
 * What differs between families is data and a few choices:
 *   1. a member of orl_arch, and its defaults: of a new model in orl_model_config_default, of a file
 *      that leaves a key out in orli_config_defaults;
 *   2. a table like orli_weights_llama: each weight, its name on disk, how it lies there, whether it is a
 *      third of a fused q, k, v, whether a setting decides if it is there; and its line in
 *      orli_families, in the order of orl_arch. What is in the table is computed, what is not is left
 *      out by itself: biases, norms of heads and of branches, gates, learned positions. A new kind of
 *      weight is a member of orli_weight, with its shape in orli_weight_shape;
 *   3. operators it lacks, and where they are called: orli_model_attention, orli_model_feed,
 *      orli_model_block; what differs by layer (windows, rotations, scales) in orli_model_heads and
 *      orli_model_rotation;
 *   4. the keys of its config.json: a line in orli_config_keys for each, what must be refused in
 *      orli_config_foreign, and orli_config_write;
 *   5. what llama.cpp calls it: a line in orli_gguf_families, new weights in orli_gguf_rows, settings
 *      in orli_gguf_put_config.
 * Training, sampling, scoring and resuming then work: they know of a model only its forward pass and
 * its heads. Golden logits and gradients from another implementation: tests/golden/families.py.
 *
 * N. WHAT IT DOES NOT DO
 *   - GPUs, several machines (but for `reduce`), gradients in bf16 or less, dropout. It is for models
 *     that fit a CPU's memory, and for seeing how the methods work.
 *   - Families beyond the nine of orl_arch: no experts, no images; a head is at most 256 wide.
 *   - Instruction sets beyond AVX2, AVX-512 and arm64's NEON: elsewhere the scalar kernels run.
 *   - Windows (it needs POSIX), big-endian machines.
 *   - Serving: sampling is by batch, and a call returns when all is done; `on_token` hears each token before.
 *   - Deciding what is good. A reward model errs, and a policy finds where; look at samples,
 *     lengths, KL and distinct-2 (orl_evaluate), not at the learned reward alone.
 *
 * O. SOURCES
 * The methods: Hu, Tao, Yang, Zhou, arXiv 2308.12050. DPO: Rafailov et al., 2305.18290. PPO:
 * Schulman et al., 1707.06347; GAE: 1506.02438; adaptive KL: Ziegler et al., 1909.08593. AdamW:
 * Loshchilov and Hutter, 1711.05101. GPT-2: Radford et al. 2019; Llama: Touvron et al., 2302.13971;
 * grouped queries: Ainslie et al., 2305.13245; rotary positions: Su et al., 2104.09864; LoRA: Hu et
 * al., 2106.09685; the other families: as transformers 5 computes them. BPE: Sennrich et al. 2016;
 * SentencePiece: Kudo and Richardson 2018; NFC: Unicode 16.0, Annex 15. Random numbers: Philox, Salmon
 * et al., SC 2011. exp, tanh, log and Φ: after Moshier's Cephes. Formats: RFC 8259, safetensors, Hugging
 * Face's config.json and tokenizer.json, tiktoken's ranks, PEFT's adapters, TRL's data sets, GGUF 3 as
 * llama.cpp reads it.
 *
 * Licence: MIT, in full at the end of the file. */
#ifndef OFFLINE_RLHF_H
#define OFFLINE_RLHF_H
#if defined(OFFLINE_RLHF_IMPLEMENTATION)
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1 /* madvise */
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1 /* _SC_NPROCESSORS_ONLN, madvise */
#endif
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* sched_getaffinity */
#endif
#endif
#include <stddef.h>
#include <stdint.h>
/* =================================================================================================
 * >>api   1. PUBLIC API
 * =================================================================================================
 * Conventions, true of every function below unless it says otherwise:
 *   - An object belongs to the context it was made in; orl_destroy() frees whatever is left.
 *   - Functions that do something return an orl_status; functions that make something return it, or
 *     NULL on failure. The first failure sticks in the context (orl_failed, orl_error), and every
 *     function accepts a NULL object and passes the failure on, so a program may check once, at its end.
 *   - A context and what hangs off it is used from one thread at a time; work inside is parallel.
 *   - Options structs come from an x_options() function that fills in the defaults; NULL means the
 *     defaults. Strings passed in are copied.
 *   - Matrices are row-major; `x: (n, d)` means n rows of d numbers. Times are in seconds. */

#ifndef ORL_API
#if defined(ORL_STATIC) && defined(__GNUC__)
#define ORL_API static __attribute__((unused)) /* nobody uses every function */
#elif defined(ORL_STATIC)
#define ORL_API static
#else
#define ORL_API extern
#endif
#endif

#ifndef ORL_REAL
#define ORL_REAL float /* double exists for gradient checks: scalar kernels, slow, exact */
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef ORL_REAL orl_real;

#define ORL_VERSION "0.1.0"

/* ---- 1.1 context, errors, memory ------------------------------------------------------------- */

typedef enum orl_status {
    ORL_OK = 0,
    ORL_ERR_ARGUMENT, /* a call that makes no sense: a NULL, an option out of range */
    ORL_ERR_MEMORY,   /* no memory, or more than config.memory_limit */
    ORL_ERR_IO,       /* a file cannot be opened, read, written */
    ORL_ERR_FORMAT,   /* a file is not what it claims to be */
    ORL_ERR_DATA,     /* well-formed data nothing can be learned from: empty, NaN, all filtered */
    ORL_ERR_MISMATCH, /* two things that do not fit: model and tokenizer, checkpoint and run */
    ORL_ERR_EXISTS,   /* an output that is there already */
    ORL_ERR_STOPPED   /* a callback asked to stop: everything is saved */
} orl_status;

typedef struct orl_ctx orl_ctx;             /* everything hangs off it */
typedef struct orl_tokenizer orl_tokenizer; /* byte-level or SentencePiece-style BPE */
typedef struct orl_model orl_model;         /* a transformer, with a language or a reward head */
typedef struct orl_dataset orl_dataset;     /* rows of text, tokens, rewards, weights */
typedef struct orl_params orl_params;       /* a set of trainable matrices */
typedef struct orl_param orl_param;         /* one of them */
typedef struct orl_tape orl_tape;           /* records operators, runs them backwards */
typedef struct orl_tensor orl_tensor;       /* a value on the tape, (rows, cols) */
typedef struct orl_report orl_report;       /* a page of charts and tables */

typedef struct orl_config {
    size_t threads;      /* 0: one per core. Results do not depend on it, bit for bit. */
    int strict;          /* a row that does not fit the context is an error, not dropped or cut */
    const char *isa;     /* NULL: the best; or "scalar", "avx2", "avx512", "neon". $ORL_ISA goes before it. */
    uint64_t seed;       /* of everything random */
    size_t memory_limit; /* bytes the library may hold at once; 0: no limit */
} orl_config;

ORL_API orl_config orl_config_default(void);
ORL_API orl_ctx *orl_create(const orl_config *config); /* NULL only if there is no memory for it */
ORL_API void orl_destroy(orl_ctx *ctx);

ORL_API int orl_failed(const orl_ctx *ctx);            /* nonzero once anything has failed */
ORL_API orl_status orl_error_status(const orl_ctx *ctx);
ORL_API const char *orl_error(const orl_ctx *ctx);     /* one sentence: what, where, what to do */
ORL_API void orl_clear_error(orl_ctx *ctx);
/* Notes: sentences that are no errors but must not be lost (rows dropped, targets clamped). The
 * library never prints; it hands each note to this callback, and drops it if there is none. */
typedef void (*orl_note_fn)(void *user, const char *sentence);
ORL_API void orl_on_note(orl_ctx *ctx, orl_note_fn note, void *user);

ORL_API const char *orl_isa(const orl_ctx *ctx);       /* the instruction set in use */
ORL_API size_t orl_threads(const orl_ctx *ctx);
ORL_API size_t orl_memory_now(const orl_ctx *ctx);     /* bytes held */
ORL_API size_t orl_memory_peak(const orl_ctx *ctx);    /* most ever held */
ORL_API double orl_seconds(void);                      /* a monotonic clock */

/* ---- 1.2 the compute ledger ------------------------------------------------------------------- */
/* What each stage of a run cost, so that "this method needs x % of that one's compute" is a number.
 * FLOPs are those of matrix products and attention, counted where they are done. */

typedef struct orl_cost {
    uint64_t tokens; /* tokens that went through a model */
    double flops, seconds;
    size_t peak_bytes;
} orl_cost;

ORL_API orl_cost orl_cost_now(const orl_ctx *ctx);                    /* everything so far */
ORL_API orl_cost orl_cost_since(const orl_ctx *ctx, orl_cost before); /* now - before */

/* ---- 1.3 tensors: a tape of operators, differentiated backwards ------------------------------- */
/* A tape is an arena: operators allocate their results on it, orl_tape_reset() forgets them all.
 * Every tensor is a matrix. Operators take tensors of the same tape and return a new one. */

ORL_API orl_params *orl_params_create(orl_ctx *ctx);
ORL_API orl_param *orl_param_add(orl_params *set, const char *name, size_t rows, size_t cols, int rank);
ORL_API orl_param *orl_param_find(orl_params *set, const char *name);      /* NULL if absent: no error */
ORL_API orl_real *orl_param_data(orl_param *param);                        /* (rows, cols) */
ORL_API orl_real *orl_param_grad(orl_param *param);                        /* NULL if frozen */
ORL_API void orl_param_changed(orl_param *param);                          /* call after writing data */
ORL_API void orl_params_zero_grad(orl_params *set);
ORL_API size_t orl_params_count(const orl_params *set);                    /* numbers in all */

ORL_API orl_tape *orl_tape_create(orl_ctx *ctx);
ORL_API void orl_tape_reset(orl_tape *tape);
ORL_API void orl_tape_free(orl_tape *tape);

ORL_API size_t orl_rows(const orl_tensor *x);
ORL_API size_t orl_cols(const orl_tensor *x);
ORL_API const orl_real *orl_data(const orl_tensor *x);
/* After orl_backward, the gradient of a leaf, or of a result that orl_keep_grad was called for; NULL if none flowed.
 * Other results' gradients are gone: their memory serves the next operator. */
ORL_API const orl_real *orl_grad(const orl_tensor *x);
ORL_API void orl_keep_grad(orl_tensor *x);

ORL_API orl_tensor *orl_constant(orl_tape *tape, const orl_real *data, size_t rows, size_t cols);
ORL_API orl_tensor *orl_variable(orl_tape *tape, const orl_real *data, size_t rows, size_t cols);
ORL_API orl_tensor *orl_use(orl_tape *tape, orl_param *param); /* its gradient adds up in the param */

/* elementwise: a, b of one shape */
ORL_API orl_tensor *orl_add(orl_tape *tape, orl_tensor *a, orl_tensor *b);
ORL_API orl_tensor *orl_sub(orl_tape *tape, orl_tensor *a, orl_tensor *b);
ORL_API orl_tensor *orl_mul(orl_tape *tape, orl_tensor *a, orl_tensor *b);
ORL_API orl_tensor *orl_min(orl_tape *tape, orl_tensor *a, orl_tensor *b);
ORL_API orl_tensor *orl_max(orl_tape *tape, orl_tensor *a, orl_tensor *b);
ORL_API orl_tensor *orl_scale(orl_tape *tape, orl_tensor *x, double factor);
ORL_API orl_tensor *orl_shift(orl_tape *tape, orl_tensor *x, double term);
ORL_API orl_tensor *orl_exp(orl_tape *tape, orl_tensor *x);
ORL_API orl_tensor *orl_log(orl_tape *tape, orl_tensor *x);
ORL_API orl_tensor *orl_tanh(orl_tape *tape, orl_tensor *x);
ORL_API orl_tensor *orl_square(orl_tape *tape, orl_tensor *x);
ORL_API orl_tensor *orl_softplus(orl_tape *tape, orl_tensor *x); /* log(1 + e^x); −log σ(x) = softplus(−x) */
ORL_API orl_tensor *orl_clamp(orl_tape *tape, orl_tensor *x, double low, double high);
/* shape */
ORL_API orl_tensor *orl_sum(orl_tape *tape, orl_tensor *x);                                  /* (1, 1) */
ORL_API orl_tensor *orl_sum_groups(orl_tape *tape, orl_tensor *x, const size_t *start, size_t groups);
                                    /* x: (n, 1), start: groups + 1 ascending → (groups, 1) */
ORL_API orl_tensor *orl_gather(orl_tape *tape, orl_tensor *x, const size_t *row, size_t n); /* (n, cols) */
/* rows first, first+stride, … */
ORL_API orl_tensor *orl_every(orl_tape *tape, orl_tensor *x, size_t first, size_t stride);
/* layers */
/* x·wᵀ + b; w: (out, in); b may be NULL */
ORL_API orl_tensor *orl_linear(orl_tape *tape, orl_tensor *x, orl_tensor *w, orl_tensor *b);
ORL_API orl_tensor *orl_embedding(orl_tape *tape, orl_tensor *table, const int32_t *id, size_t n);
ORL_API orl_tensor *orl_layernorm(orl_tape *tape, orl_tensor *x, orl_tensor *w, orl_tensor *b, double eps);
/* w may be shorter than a row of x and divide it: then each such part, a head for example, is normalised by itself. */
ORL_API orl_tensor *orl_rmsnorm(orl_tape *tape, orl_tensor *x, orl_tensor *w, double eps);
ORL_API orl_tensor *orl_gelu(orl_tape *tape, orl_tensor *x);                      /* the tanh form, as in GPT-2 */
ORL_API orl_tensor *orl_gelu_erf(orl_tape *tape, orl_tensor *x);                  /* x·Φ(x) as it was defined */
ORL_API orl_tensor *orl_swiglu(orl_tape *tape, orl_tensor *gate, orl_tensor *up); /* silu(gate) ⊙ up */
ORL_API orl_tensor *orl_geglu(orl_tape *tape, orl_tensor *gate, orl_tensor *up);  /* gelu(gate) ⊙ up */

/* A packed stream of sequences: no padding. A segment may continue a parent segment: it attends to
 * the parent and all its ancestors and its positions go on from there, so that a prompt is computed
 * once for all its responses. A parent comes before its children, a tree is contiguous. */
typedef struct orl_segment {
    size_t start, length; /* in the stream */
    size_t parent;        /* index of the segment it continues, or ORL_ROOT */
    size_t position;      /* of its first token: 0 in a root */
    size_t root;          /* index of its tree's root */
} orl_segment;
#define ORL_ROOT ((size_t)-1)

typedef struct orl_stream {
    orl_ctx *ctx;
    int32_t *token;       /* (tokens) */
    int32_t *position;    /* (tokens) */
    size_t tokens, token_capacity, position_capacity;
    orl_segment *segment; /* (segments) */
    size_t segments, segment_capacity;
} orl_stream;

ORL_API orl_stream *orl_stream_create(orl_ctx *ctx);
ORL_API void orl_stream_free(orl_stream *stream);
ORL_API void orl_stream_clear(orl_stream *stream);
/* Appends n tokens as a segment; gives its index, or ORL_ROOT if it failed. */
ORL_API size_t orl_stream_add(orl_stream *stream, const int32_t *token, size_t n, size_t parent);

/* Rotary positions: pair i of the first `width` numbers of a head turns by position·f(theta^(−2i/width)). */
typedef struct orl_rotation {
    double theta;
    size_t width;           /* 0: the whole head */
    double factor;          /* 0: f is the identity; linear scaling: f(x) = x/factor */
    double low, high;       /* Llama 3's: turns that are fewer than `low` in `original` tokens are scaled, those that */
    size_t original;        /* are more than `high` are not, between them a mixture; original 0: linear */
} orl_rotation;
/* x: (tokens, heads·head_dim). Rotates pairs (i, i + width/2) of each head. */
ORL_API orl_tensor *orl_rope(orl_tape *tape, orl_tensor *x, const orl_stream *stream, size_t heads,
                             const orl_rotation *rotation);
/* Causal softmax(scale·q·kᵀ)·v within each segment and its ancestors: a token sees itself and the window − 1 before it.
 * q: (tokens, heads·head_dim); k, v: (tokens, kv_heads·head_dim); head h reads kv head h·kv_heads/heads. */
typedef struct orl_heads {
    size_t heads, kv_heads;
    size_t window;          /* 0: it sees all before it */
    double scale;           /* 0: 1/√head_dim */
} orl_heads;
ORL_API orl_tensor *orl_attention(orl_tape *tape, orl_tensor *q, orl_tensor *k, orl_tensor *v,
                                  const orl_stream *stream, const orl_heads *shape);
/* log softmax(h·wᵀ)[target], never holding the n × vocabulary logits. h: (n, d), w: (vocab, d), of
 * which the first `classes` rows compete. → (n, 1). entropy, if not NULL, receives (n, 1). */
ORL_API orl_tensor *orl_token_logp(orl_tape *tape, orl_tensor *h, orl_tensor *w, size_t classes,
                                   const int32_t *target, orl_tensor **entropy);

/* Fills the gradients of everything the scalar `loss` depends on; params add to what they hold. */
ORL_API orl_status orl_backward(orl_tape *tape, orl_tensor *loss);

/* ---- 1.4 tokenizer ---------------------------------------------------------------------------- */

/* Byte-level BPE learned from text. specials: NULL-ended list of special tokens, ids 0, 1, …;
 * the first is the end-of-text token. vocab counts everything (specials + 256 bytes + merges).
 * The most frequent pair is merged first, of equally frequent ones that with the lowest ids. */
ORL_API orl_tokenizer *orl_tokenizer_train(orl_ctx *ctx, const char *text, size_t bytes, size_t vocab,
                                           const char *const *specials);
/* The same from files of text (no word goes on from one in the next). They are read as streams on all threads: what
 * is held is the different words with their counts, not the text. */
ORL_API orl_tokenizer *orl_tokenizer_train_files(orl_ctx *ctx, const char *const *files, size_t n, size_t vocab,
                                                 const char *const *specials);
/* From a directory: tokenizer.json, or vocab.json + merges.txt (or GPT-2's encoder.json + vocab.bpe), or a rank file
 * of tiktoken (tokenizer.model as Llama 3 has it, qwen.tiktoken, cl100k_base.tiktoken …). */
ORL_API orl_tokenizer *orl_tokenizer_load(orl_ctx *ctx, const char *dir);
ORL_API orl_tokenizer *orl_tokenizer_load_llama2c(orl_ctx *ctx, const char *file, size_t vocab);
/* A rank file of tiktoken. kind: cl100k_base, o200k_base, llama3, qwen, gpt2, r50k_base or p50k_base, which tells how
 * text is split and what the special tokens are; NULL: as the file's name or its number of ranks says. */
ORL_API orl_tokenizer *orl_tokenizer_load_tiktoken(orl_ctx *ctx, const char *file, const char *kind);
/* tokenizer.json, tokenizer_config.json */
ORL_API orl_status orl_tokenizer_save(const orl_tokenizer *tok, const char *dir);
ORL_API void orl_tokenizer_free(orl_tokenizer *tok);

ORL_API size_t orl_vocab(const orl_tokenizer *tok);
ORL_API int32_t orl_token_id(const orl_tokenizer *tok, const char *token);  /* −1 if there is none: no error */
ORL_API const char *orl_token_text(const orl_tokenizer *tok, int32_t id, size_t *bytes); /* the bytes it stands for */
ORL_API int32_t orl_eos(const orl_tokenizer *tok);                           /* −1 if there is none */
ORL_API int32_t orl_bos(const orl_tokenizer *tok);                           /* −1 unless it is to be added */
ORL_API int32_t orl_token_add_special(orl_tokenizer *tok, const char *token); /* appends one; its id, −1 on failure */
/* Text to ids, special tokens in the text recognised if parse_special; neither BOS nor EOS is added.
 * *ids is allocated; free it with orl_free(ctx, *ids). */
ORL_API orl_status orl_encode(const orl_tokenizer *tok, const char *text, size_t bytes, int parse_special,
                              int32_t **ids, size_t *count);
ORL_API orl_status orl_decode(const orl_tokenizer *tok, const int32_t *ids, size_t count, int skip_special,
                              char **text, size_t *bytes); /* zero-terminated; free with orl_free */
/* Of a text that grows token by token (orl_token_text): how many of its bytes may be shown now. The others, at most
 * three, begin a character whose end is still to come. */
ORL_API size_t orl_text_ready(const char *text, size_t bytes);
ORL_API void orl_free(orl_ctx *ctx, void *memory);

/* ---- 1.5 models ------------------------------------------------------------------------------- */

/* The families, by config.json's model_type: gpt2, llama (SmolLM and SmolLM2 too), gpt_neo (TinyStories), gpt_neox
 * (Pythia), mistral, qwen2 (Qwen2.5 too), qwen3, smollm3, gemma3_text. */
typedef enum orl_arch {
    ORL_GPT2, ORL_LLAMA, ORL_GPT_NEO, ORL_GPT_NEOX, ORL_MISTRAL, ORL_QWEN2, ORL_QWEN3, ORL_SMOLLM3, ORL_GEMMA3
} orl_arch;

typedef enum orl_activation { ORL_SILU, ORL_GELU, ORL_GELU_ERF } orl_activation;

#define ORL_MAX_LAYERS 1024
#define ORL_LAYER_LOCAL 1     /* its tokens see the last `window` alone */
#define ORL_LAYER_UNROTATED 2 /* knows no positions */

typedef struct orl_model_config {
    orl_arch arch;
    size_t vocab, dim, layers, heads, kv_heads, ffn, context;
    double norm_eps;
    int tied;                      /* the language head is the token embedding */
    int32_t bos, eos;              /* −1: none */
    /* What follows is the family's own: leave it as orl_model_config_default() sets it, or as a file says. */
    size_t head_dim;               /* 0: dim / heads */
    orl_rotation rope;
    double local_theta;            /* of local layers, which are then not scaled; 0: as the others */
    size_t window;                 /* of local layers, the token itself counted; 0: none */
    double query_scalar;           /* scores are q·k/√this; 0: head_dim */
    int by_layer;                  /* … and layer l's divided by l + 1 */
    orl_activation activation;
    int attention_bias, mlp_bias;  /* where a family leaves it open */
    int parallel;                  /* attention and feed-forward read the same x */
    uint8_t layer[ORL_MAX_LAYERS]; /* ORL_LAYER_LOCAL | ORL_LAYER_UNROTATED */
} orl_model_config;

/* A small one: 4 layers of 128. */
ORL_API orl_model_config orl_model_config_default(orl_arch arch);
/* Weights N(0, 0.02), residual projections scaled by 1/√(2·layers); tok (may be NULL) is shared. */
ORL_API orl_model *orl_model_create(orl_ctx *ctx, const orl_model_config *config, orl_tokenizer *tok);
/* A Hugging Face directory: config.json, model.safetensors, tokenizer files if there are any. */
ORL_API orl_model *orl_model_load(orl_ctx *ctx, const char *dir);
ORL_API orl_model *orl_model_load_llama2c(orl_ctx *ctx, const char *file, const char *tokenizer_file);
/* Writes config.json, model.safetensors and tokenizer files: a new directory by one rename, or into one that
 * is there and holds no model yet. Settings and tokenizer files that a model came with and that this library does not
 * use are written too. */
ORL_API orl_status orl_model_save(const orl_model *model, const char *dir); /* in F32 (the double build: F64) */
/* How numbers are stored. F16 and BF16 are rounded to nearest even; Q8_0, blocks of 32 bytes with a scale, is GGUF's
 * alone. A number that the type cannot hold is an error that names the tensor. */
typedef enum orl_dtype { ORL_F32 = 0, ORL_F16 = 1, ORL_BF16 = 2, ORL_Q8_0 = 3 } orl_dtype;
ORL_API orl_status orl_model_save_as(const orl_model *model, const char *dir, orl_dtype dtype);
/* One file for llama.cpp: weights (vectors and positions stay F32), tokenizer, chat template; a file that is there is
 * replaced. Not for reward models. */
ORL_API orl_status orl_model_save_gguf(const orl_model *model, const char *file, orl_dtype dtype);
ORL_API orl_model *orl_model_copy(const orl_model *model);
ORL_API void orl_model_free(orl_model *model);

ORL_API orl_ctx *orl_model_ctx(const orl_model *model);
ORL_API const orl_model_config *orl_model_get_config(const orl_model *model);
ORL_API orl_tokenizer *orl_model_tokenizer(const orl_model *model);         /* NULL if it has none */
ORL_API orl_params *orl_model_params(orl_model *model);                     /* what training changes */
ORL_API int orl_is_reward_model(const orl_model *model);
ORL_API void orl_model_set_name(orl_model *model, const char *name);        /* for tables and logs */
ORL_API const char *orl_model_name(const orl_model *model);
/* Same trunk, scalar head score.weight: (1, dim), N(0, 1/(dim + 1)). */
ORL_API orl_model *orl_reward_model(const orl_model *trunk);

/* Frozen weights in bf16, computed with in float: half the memory, or next to none. For what is not trained (a
 * reference, a reward model) and for the base of an adapter. Copies share them.
 * orl_model_load_frozen: matrices that the files have in BF16 stay there, mapped (not counted as memory; fused ones of
 * GPT-2 and GPT-NeoX are copied); all others are floats as usual. */
ORL_API orl_model *orl_model_load_frozen(orl_ctx *ctx, const char *dir);
ORL_API orl_status orl_model_store_bf16(orl_model *model); /* rounds all matrices but a reward model's head */
/* int8 (per row, groups of 64 numbers with a scale: 8.5 bits a number), for sampling and scoring alone, which then
 * compute with bytes, activations quantised likewise: a quarter of the memory, and faster. All matrices but those of
 * positions and a reward model's head. What that costs: orl_compare_logprob(). */
ORL_API orl_status orl_model_store_int8(orl_model *model);

/* LoRA (Hu et al., arXiv 2106.09685): x·Wᵀ becomes x·Wᵀ + alpha/rank·(x·Aᵀ)·Bᵀ, A: (rank, in), B: (out, rank), zero at
 * first. The model then trains A and B alone (and a reward model its head); its other functions stay as they are. */
typedef struct orl_lora_options {
    size_t rank;
    double alpha;
    int root;            /* alpha/√rank instead (rank-stabilised, arXiv 2312.03732) */
    const char *targets; /* modules by the end of their names, as "q_proj,v_proj"; NULL: all linear layers of blocks */
} orl_lora_options;
ORL_API orl_lora_options orl_lora_default(void);     /* rank 8, alpha 16 */
ORL_API orl_status orl_lora_add(orl_model *model, const orl_lora_options *options);
ORL_API orl_status orl_lora_merge(orl_model *model); /* W += alpha/rank·B·A, in floats; the adapter is gone */
/* As PEFT has them: adapter_config.json, adapter_model.safetensors. orl_model_load() and orl_model_load_frozen() take
 * such a directory too, and load the base that it names first. */
ORL_API orl_status orl_lora_save(const orl_model *model, const char *dir); /* base: where the model was loaded from */
ORL_API orl_status orl_lora_load(orl_model *model, const char *dir);
ORL_API int orl_has_lora(const orl_model *model);
/* Final hidden states: (tokens, dim), after the last norm. */
ORL_API orl_tensor *orl_hidden(orl_tape *tape, orl_model *model, const orl_stream *stream);
/* The matrix of the language head, (vocab, dim), for orl_token_logp or orl_linear on hidden states. */
ORL_API orl_tensor *orl_head(orl_tape *tape, orl_model *model);
/* Logits of every token, for looking at: (tokens, vocab). Training never holds them. */
ORL_API orl_tensor *orl_logits(orl_tape *tape, orl_model *model, const orl_stream *stream);

/* ---- 1.6 data --------------------------------------------------------------------------------- */
/* JSONL in TRL's field names: {"text"}; {"prompt","completion"}; {"prompt","chosen","rejected"};
 * {"chosen","rejected"} whole transcripts; {"messages":[{"role","content"}]}; "reward" where labelled;
 * "_ids" variants carry tokens. Views (filter, weight, condition, split) share the rows' text. */

typedef struct orl_text {
    const char *text;    /* NULL if the row has ids alone; not zero-terminated */
    size_t bytes;
    const int32_t *ids;  /* NULL if the row has text alone */
    size_t tokens;
} orl_text;

#define ORL_TRUNCATED 1u  /* the response was cut: no EOS follows it */
#define ORL_PAIR 2u       /* response = chosen, rejected is there */
#define ORL_LABELLED 4u   /* reward is there */
#define ORL_SAMPLED 8u    /* logp, sampling_logp, tokens and sample are there */
#define ORL_LOGP 16u      /* logp and tokens were computed */
#define ORL_CONDITIONED 32u /* condition is there */
#define ORL_IDS_GIVEN 64u /* the row came with token ids: nothing is added to them */
#define ORL_TEMPLATED 128u /* a template wrote the prompt: no BOS is added to it */

typedef struct orl_row {
    orl_text prompt, response, rejected;
    double reward;            /* normalised: by the reward model's mean and sd, or r̂ by orl_normalise */
    double reward_raw;        /* as it was given: by a file, a reward model, a function */
    double rejected_reward, rejected_reward_raw;
    double margin;            /* of a pair; 0 if the data has none */
    double weight;            /* of the loss; mean 1 over the data set */
    double condition;         /* the reward it is conditioned on */
    double logp;              /* Σ log π(response) of the model that was asked, at temperature 1 */
    double sampling_logp;     /* of a sample: Σ log of the probabilities its tokens were drawn with; NaN: not known */
    size_t tokens;            /* of the response, its end token included */
    size_t group;             /* rows of one prompt share it */
    size_t sample;            /* which sample of the prompt */
    size_t line;              /* in the file it came from; 0 if none */
    unsigned flags;
    const char *json;         /* the row as it was read, verbatim, or NULL */
    size_t json_bytes;
} orl_row;

ORL_API orl_dataset *orl_dataset_create(orl_ctx *ctx);
ORL_API orl_dataset *orl_dataset_load(orl_ctx *ctx, const char *jsonl);
ORL_API orl_dataset *orl_dataset_parse(orl_ctx *ctx, const char *jsonl_text, size_t bytes, const char *name);
/* response may be NULL */
ORL_API orl_status orl_dataset_add(orl_dataset *data, const char *prompt, const char *response);
ORL_API orl_status orl_dataset_add_pair(orl_dataset *data, const char *prompt, const char *chosen,
                                        const char *rejected);
ORL_API orl_status orl_dataset_save(const orl_dataset *data, const char *jsonl); /* unknown fields kept verbatim */
/* One row as a line of JSON, without newline; free with orl_free. */
ORL_API char *orl_dataset_row_json(const orl_dataset *data, size_t i);
ORL_API orl_ctx *orl_dataset_ctx(const orl_dataset *data);
ORL_API size_t orl_dataset_count(const orl_dataset *data);
ORL_API orl_row *orl_dataset_row(orl_dataset *data, size_t i);
ORL_API orl_dataset *orl_dataset_view(const orl_dataset *data, size_t first, size_t count);
ORL_API orl_dataset *orl_dataset_join(const orl_dataset *a, const orl_dataset *b);
/* Splits off a test part: whole groups of rows with the same value of JSON field `field`, or (NULL)
 * the same prompt, go to one side; which side depends on the value and the seed alone. */
ORL_API orl_status orl_dataset_split(const orl_dataset *data, const char *field, double test_fraction, uint64_t seed,
                                     orl_dataset **train, orl_dataset **test);
ORL_API void orl_dataset_free(orl_dataset *data);
/* For pretraining: every token of every row is trained on, prompt and response alike, an end token after
 * each text, in rows of at most the context; a longer text goes on in the next row. */
ORL_API orl_dataset *orl_dataset_blocks(const orl_dataset *data, const orl_model *model);
/* What the model would see: every token of the first n rows with its loss weight. A conditioned view brings its
 * condition to the model, as training does. Free with orl_free. */
ORL_API char *orl_dataset_dump(orl_dataset *data, orl_model *model, size_t n);

/* Messages → text, as the chat templates of published models have it. A template owns the tags around each turn, the
 * begin token (none is added to what it wrote) and the token that ends a turn. */
typedef enum orl_template {
    ORL_TEMPLATE_HH = 0,     /* hh-rlhf's "\n\nHuman: … \n\nAssistant: …"; begin and end as for any text */
    ORL_TEMPLATE_CHATML = 1, /* <|im_start|>role … <|im_end|> */
    ORL_TEMPLATE_QWEN,       /* Qwen 2.5: ChatML, with its system message where there is none */
    ORL_TEMPLATE_QWEN3,      /* Qwen 3 without thinking: an empty <think> block before the last answer */
    ORL_TEMPLATE_LLAMA2,     /* [INST] … [/INST], <<SYS>> */
    ORL_TEMPLATE_LLAMA3,     /* <|start_header_id|>role<|end_header_id|> … <|eot_id|> */
    ORL_TEMPLATE_ZEPHYR,     /* <|user|> … <|assistant|> */
    ORL_TEMPLATE_ALPACA,     /* ### Instruction: … ### Response: */
    ORL_TEMPLATE_GEMMA,      /* <start_of_turn>user … <end_of_turn>, the system message in the first turn */
    ORL_TEMPLATE_MISTRAL,    /* [INST] … [/INST], the system message in the first turn */
    ORL_TEMPLATE_COUNT
} orl_template;
ORL_API const char *orl_template_name(orl_template which); /* "hh", "chatml", …; NULL if there is none */
/* The template that a tokenizer's special tokens tell of; ORL_TEMPLATE_HH if they tell of none: Llama 2's, Mistral's
 * and Alpaca's tags are plain text, so these are chosen by name. */
ORL_API orl_template orl_template_find(const orl_tokenizer *tok);
/* Writes all rows of messages anew, with the begin and end tokens of the models the template comes from. */
ORL_API orl_status orl_dataset_set_template(orl_dataset *data, orl_template which);
/* The same for a model, with its tokenizer's own begin and end tokens: the template of this name, or (NULL) the one
 * that orl_template_find() finds. If data has messages and the tokenizer the template's end of turn, the model takes
 * that for its end token: training appends it to each response, sampling stops there (and where it did before). */
ORL_API orl_status orl_dataset_use_template(orl_dataset *data, orl_model *model, const char *name);

/* The three transformations of the paper; each gives a new view and they compose in any order.
 * r̂, its quantiles and the reward written into a condition come from the whole labelled set. */
typedef enum orl_filter_rule {
    ORL_ABOVE,          /* r̂ > x */
    ORL_ABOVE_QUANTILE, /* r̂ > the x-quantile */
    ORL_TOP_K,          /* the x best of each prompt */
    ORL_BEST_OF         /* the best of each x samples of a prompt; the first wins a tie */
} orl_filter_rule;
ORL_API orl_dataset *orl_filter(orl_dataset *data, orl_filter_rule rule, double x);

typedef enum orl_baseline { ORL_BASELINE_NONE, ORL_BASELINE_MEAN, ORL_BASELINE_PROMPT } orl_baseline;
/* w = min(e^((r̂ − b)/β), clip), rescaled to mean 1. */
ORL_API orl_dataset *orl_weight(orl_dataset *data, double beta, orl_baseline baseline, double clip);

typedef enum orl_condition_kind { ORL_CONDITION_NONE, ORL_CONDITION_TEXT, ORL_CONDITION_BINS } orl_condition_kind;
typedef struct orl_condition_options {
    orl_condition_kind kind;
    int decimals;           /* text: digits after the point, 1 or 2 */
    const char *format;     /* text: " <rm_score>: {reward} " */
    size_t bins;            /* bins: how many ordered tokens, of equal shares of the rewards */
    double dropout;         /* share of training rows shown without their reward */
    int rank_per_prompt;    /* condition on the rank within the prompt's samples instead of r̂ */
    double target_quantile; /* default target: this quantile of the training rewards */
} orl_condition_options;
ORL_API orl_condition_options orl_condition_default(orl_condition_kind kind);
/* What a model was conditioned on (ORL_CONDITION_NONE: nothing); *target, if not NULL, receives this quantile
 * (0 … 1) of the rewards it was trained on. */
ORL_API orl_condition_kind orl_model_condition(const orl_model *model, double quantile, double *target);
ORL_API orl_dataset *orl_condition(orl_dataset *data, const orl_condition_options *options);

/* r̂ = (r − mean)/sd over the whole set, population sd. Zero variance or NaN is an error. */
ORL_API orl_status orl_normalise(orl_dataset *data);
/* A reward of one's own in place of a reward model's: called for every row in order. */
typedef double (*orl_reward_fn)(const orl_row *row, void *user);
ORL_API orl_status orl_score_with(orl_dataset *data, orl_reward_fn reward, void *user);

/* ---- 1.7 sampling and scoring ------------------------------------------------------------------ */

typedef enum orl_target { ORL_TARGET_DEFAULT, ORL_TARGET_NONE, ORL_TARGET_VALUE, ORL_TARGET_QUANTILE } orl_target;

typedef struct orl_bias { /* `bias` is added to the logit of token `id` */
    int32_t id;
    double bias;
} orl_bias;

typedef struct orl_spoken { /* a token that has just been drawn */
    size_t row, sample;     /* of which prompt, counted in rows of the data set; which of its samples */
    int32_t id;
    const char *text;       /* what the response has gained, not zero-terminated; NULL: no tokenizer */
    size_t bytes;           /* of whole characters; what may still become a stop string waits too */
    double logp, sampling_logp; /* as in orl_row */
    int ends, truncated;    /* the response ends here; it was cut: half a character at its end is left out */
} orl_spoken;

/* From a row of logits to a token, in this order: guidance; logit_bias and forbidden; repetition_penalty; temperature;
 * top_k; top_p, of what top_k left; min_p. Tokens tied with the last one that stays in do so too. */
typedef struct orl_generate_options {
    size_t samples;       /* per prompt; for the best of n: orl_score() them, orl_filter(…, ORL_BEST_OF, n) */
    size_t max_tokens;    /* of a response; 0: as the context allows */
    double temperature;   /* 0: greedy */
    size_t top_k;         /* 0: off */
    double top_p;         /* 1: off */
    double min_p;         /* drops tokens less than this times as likely as the likeliest; 0: off */
    double repetition_penalty; /* each logit of a token that prompt or response has is divided by this if it is
                                  positive, else multiplied (CTRL, arXiv 1909.05858); 1: off */
    const orl_bias *logit_bias;
    size_t biases;        /* how many; of an id that is there twice they add up */
    const int32_t *forbidden; /* ids that are never drawn */
    size_t forbids;
    /* What ends a response, beside the model's own end tokens. A stop id stays in it, and so does its text. The text
     * ends before the first stop string, wherever tokens begin and end; the ids end with the token that completed it.
     * Such a row's text and ids differ: training and scoring go by its text, and let the end token follow. */
    const int32_t *stop_ids;
    size_t stop_id_count;
    const char *const *stop_strings; /* in what is decoded: special tokens have no text there */
    size_t stop_string_count;
    uint64_t seed;        /* a sample depends on (model, seed, prompt index, sample index) alone */
    size_t batch;         /* sequences decoded side by side */
    size_t kv_bytes;      /* most memory for keys and values; 0: no bound. Fewer go side by side then, nothing else */
    orl_target target;    /* of a conditioned model */
    double target_value;  /* a reward or a quantile */
    double guidance;      /* classifier-free guidance, log π(·|c) + g·(log π(·|c) − log π(·|∅)); 0: off */
    int (*progress)(void *user, size_t done, size_t total); /* nonzero stops: the samples are gone */
    /* Called for every token, those of one response in order. Nonzero stops: the context then fails with
     * ORL_ERR_STOPPED, and what has been generated is returned all the same, unfinished responses as truncated ones. */
    int (*on_token)(void *user, const orl_spoken *token);
    void *user;           /* of both */
} orl_generate_options;

ORL_API orl_generate_options orl_generate_default(void);
/* Prompts → a new data set, one row a sample, in prompt order, with the prompts' other fields. row.logp is under the
 * model alone (guided, if it is) at temperature 1, row.sampling_logp under what the tokens were drawn from, all options
 * applied (0 of a greedy response); in JSONL "logprob" and "sampling_logprob". */
ORL_API orl_dataset *orl_sample(orl_model *model, const orl_dataset *prompts, const orl_generate_options *options);
/* One prompt, one response; free with orl_free. */
ORL_API char *orl_generate_text(orl_model *model, const char *prompt, const orl_generate_options *options);
/* Sets row.logp = Σ log π(response | prompt). per_token (may be NULL) receives, for each row in turn, its
 * response tokens' log-probabilities; total_tokens (may be NULL) how many there are. Free with orl_free. */
ORL_API orl_status orl_logprob(orl_model *model, orl_dataset *data, orl_real **per_token, size_t *total_tokens);

typedef struct orl_logprob_loss { /* of tokens that two models gave log-probabilities */
    size_t tokens;
    double perplexity, other_perplexity; /* e^(−mean log-probability) */
    double mean_difference, worst;       /* of |log π − log π_other|, over tokens */
} orl_logprob_loss;
/* What it costs to store weights otherwise, measured on held-out rows: the same tokens by `model` and by `other`, its
 * copy in bf16 or int8, or any model of the same vocabulary (else ORL_ERR_MISMATCH). Of a row the response counts; a
 * row of plain text is a response. The rows stay as they are. */
ORL_API orl_status orl_compare_logprob(orl_model *model, orl_model *other, const orl_dataset *data,
                                       orl_logprob_loss *out);
/* Sets reward_raw and, with the model's stored mean and sd, reward (both sides of a pair). */
ORL_API orl_status orl_score(orl_model *reward_model, orl_dataset *data);

typedef struct orl_accuracy { /* of a scored set of pairs */
    size_t pairs;
    double accuracy, low, high;       /* ties count ½; 95 % Wilson interval */
    double margin;                    /* mean of chosen − rejected, normalised */
    double mean_chosen, sd_chosen, mean_rejected, sd_rejected;
    double calibration[10];           /* accuracy where σ(margin) is in the j-th tenth of ½ … 1; NaN if none */
} orl_accuracy;
ORL_API orl_status orl_pair_accuracy(const orl_dataset *scored_pairs, orl_accuracy *out);

/* ---- 1.8 training ------------------------------------------------------------------------------ */

/* What a loss sees: one micro-batch. Sequence s has response tokens offset[s] … offset[s+1]−1 of logp;
 * of pairs, sequence 2i is chosen and 2i+1 rejected. */
typedef struct orl_batch {
    size_t sequences;
    const size_t *offset;      /* (sequences + 1) */
    orl_tensor *logp;          /* (tokens, 1): log π(y_t | c, y_<t); NULL for a reward model */
    orl_tensor *score;         /* (sequences, 1): reward head; NULL for a language model */
    const orl_real *ref_logp;  /* (tokens): the reference model's; NULL unless options.reference */
    const double *weight;      /* (sequences) */
    const double *reward;      /* (sequences) */
    const double *margin;      /* (sequences) */
    const size_t *row;         /* (sequences): row index in the data set */
} orl_batch;

/* A loss returns a (1, 1) tensor, the SUM over the micro-batch; the trainer divides the gradient once
 * per optimizer step by the whole batch's count of response tokens, or of pairs. */
typedef orl_tensor *(*orl_loss_fn)(orl_tape *tape, const orl_batch *batch, void *user);

/* −Σ w log π: SFT, MLE, RWR, DT */
ORL_API orl_tensor *orl_loss_nll(orl_tape *tape, const orl_batch *batch, void *user);
/* Bradley–Terry; user: const orl_rm_loss* */
ORL_API orl_tensor *orl_loss_reward(orl_tape *tape, const orl_batch *batch, void *user);
ORL_API orl_tensor *orl_loss_dpo(orl_tape *tape, const orl_batch *batch, void *user);    /* user: const double *beta */
typedef struct orl_rm_loss { double margin, center; } orl_rm_loss;

typedef enum orl_schedule { ORL_CONSTANT, ORL_LINEAR, ORL_COSINE } orl_schedule;

typedef struct orl_step_info {
    const char *stage;
    size_t step, steps;
    double loss, val_loss;           /* val_loss is NaN on steps without validation */
    double grad_norm, lr, seconds, elapsed;
    uint64_t tokens;                 /* of this step */
    double reward, kl;               /* PPO; NaN elsewhere */
} orl_step_info;

/* A prompt that several responses of a micro-batch answer is a segment they continue: the same gradient, less work. */
typedef enum orl_share {
    ORL_SHARE_PAIR,   /* both sides of a pair */
    ORL_SHARE_PROMPT, /* all that follow each other; the shuffle keeps rows of a prompt together, in file order */
    ORL_SHARE_NONE    /* every response has its own: to compare with */
} orl_share;

typedef struct orl_train_options {
    size_t steps;              /* optimizer steps; 0: as `epochs` says */
    double epochs;
    size_t batch;              /* rows (or pairs) per optimizer step */
    size_t micro_tokens;       /* most tokens in one forward pass; 0: 4096 */
    double lr;
    orl_schedule schedule;     /* after warm-up; linear and cosine end at lr·min_lr */
    double min_lr;
    size_t warmup;             /* steps */
    double beta1, beta2, eps, weight_decay; /* decay on matrices only */
    double clip;               /* global gradient norm; 0: off */
    int shuffle;               /* 0: rows in file order, wrapping around */
    orl_share share;           /* of what prompts are computed once */
    int recompute;             /* work activations out again in the backward pass: much less memory, a third slower */
    uint64_t seed;
    orl_loss_fn loss;          /* NULL: nll for language models, Bradley–Terry for reward models */
    void *loss_user;
    int per_pair;              /* the loss is divided by pairs, not by response tokens */
    orl_model *reference;      /* fills batch.ref_logp */
    const orl_dataset *eval;   /* validation rows; loss reported every eval_every steps and at the end */
    size_t eval_every;
    const char *log;           /* JSONL file, one object a step; NULL: none */
    const char *checkpoint;    /* one file; NULL: none */
    size_t save_every;         /* steps; 0: only when stopped */
    int resume;                /* continue from the checkpoint if it is there */
    const char *stage;         /* name in logs */
    int (*progress)(void *user, const orl_step_info *info); /* nonzero: save and stop */
    void *user;
    /* called with a step's gradient sum and what it will be divided by: data parallelism adds up both over processes */
    void (*reduce)(void *user, orl_real *gradient, size_t count, double *divisor);
    void *reduce_user;
} orl_train_options;

ORL_API orl_train_options orl_train_default(void);
/* One trainer for every method: what differs is the data's view and the loss. */
ORL_API orl_status orl_train(orl_model *model, const orl_dataset *data, const orl_train_options *options);
/* Pairs → reward model; afterwards its scores of both sides of (at most 1,024 of) the pairs give its mean and sd. */
ORL_API orl_status orl_train_reward(orl_model *reward_model, const orl_dataset *pairs,
                                    const orl_train_options *options);
/* DPO: preference pairs against a frozen reference, −log σ(β·Δs). reference NULL: the model as it starts. */
ORL_API orl_status orl_train_dpo(orl_model *model, const orl_dataset *pairs, orl_model *reference, double beta,
                                 const orl_train_options *options);

typedef struct orl_estimate {
    size_t weights, gradients, moments, activations, total; /* bytes */
    size_t rows, dropped, cut;
    uint64_t tokens;                                        /* of the whole run */
    double flops;
    double seconds;                                         /* at this machine's measured speed */
} orl_estimate;
/* What a training run will need, without running it. */
ORL_API orl_status orl_train_estimate(orl_model *model, const orl_dataset *data, const orl_train_options *options,
                                      orl_estimate *out);

typedef struct orl_ppo_options {
    size_t iterations;         /* rollout batches */
    size_t rollouts;           /* responses per batch */
    size_t epochs;             /* passes over each batch */
    size_t minibatch;          /* rollouts per optimizer step */
    double lr, critic_lr;
    orl_schedule schedule;
    size_t warmup;
    double clip_low, clip_high, value_clip;
    double gamma, lambda;
    double kl;                 /* coefficient of the per-token penalty */
    double kl_target, kl_horizon; /* > 0: adaptive coefficient */
    double reward_clip;
    int whiten;                /* advantages over the batch */
    double unfinished_penalty; /* taken off the reward of a response that max_tokens cut */
    double ptx;                /* weight of the language-model loss on ptx_data */
    const orl_dataset *ptx_data;
    size_t max_tokens;
    double temperature;
    size_t micro_tokens;
    double beta1, beta2, eps, weight_decay, clip;
    uint64_t seed;
    orl_reward_fn reward;      /* used when reward_model is NULL */
    void *reward_user;
    const char *log, *checkpoint;
    size_t save_every;         /* iterations */
    int resume;
    int (*progress)(void *user, const orl_step_info *info);
    void *user;
} orl_ppo_options;

ORL_API orl_ppo_options orl_ppo_default(void);
/* The same for PPO, every response taken to be as long as max_tokens allows. */
ORL_API orl_status orl_ppo_estimate(orl_model *policy, orl_model *reward_model, const orl_dataset *prompts,
                                    const orl_ppo_options *options, orl_estimate *out);
/* Policy gradient with rollouts, critic and reference (the policy as it starts). prompts: rows' prompts. */
ORL_API orl_status orl_train_ppo(orl_model *policy, orl_model *reward_model, const orl_dataset *prompts,
                                 const orl_ppo_options *options);

/* ---- 1.9 evaluation and report ------------------------------------------------------------------ */

typedef struct orl_result {
    char method[64];
    uint64_t seed;
    size_t samples;
    double gold;                              /* NaN where no gold reward is known */
    double reward;                            /* normalised reward model score */
    double win_rate, win_rate_lo, win_rate_hi;/* against the first model, by gold if known; ties ½ */
    double kl;                                /* mean Σ log π(y|c) − log π_first(y|x) over own samples */
    double length, distinct2, truncated;      /* mean tokens; distinct bigrams / bigrams; share cut */
    double train_tokens, train_flops, train_seconds; /* filled in by the caller, who knows */
    double data_flops, data_seconds;
    double percent_of_ppo, percent_of_ppo_total;
} orl_result;

typedef struct orl_eval_options {
    orl_generate_options generate;
    orl_reward_fn gold;        /* NULL: none */
    void *gold_user;
    orl_dataset **samples;     /* NULL, or (models): receives each model's samples */
} orl_eval_options;
ORL_API orl_eval_options orl_eval_default(void);
/* Samples from each model on the same prompts with the same seed and compares with models[0]. */
ORL_API orl_status orl_evaluate(orl_model **models, size_t count, const orl_dataset *prompts, orl_model *reward_model,
                                const orl_eval_options *options, orl_result *results);
/* The same figures for samples one already has (best-of-n, say); base: the first model's samples. */
ORL_API orl_status orl_evaluate_samples(orl_dataset *samples, orl_dataset *base, orl_model *reward_model,
                                        const orl_eval_options *options, orl_result *result);
ORL_API char *orl_result_json(orl_ctx *ctx, const orl_result *result);              /* one line; free with orl_free */
ORL_API char *orl_results_table(orl_ctx *ctx, const orl_result *results, size_t n); /* plain text; free with orl_free */

/* A self-contained HTML page: inline SVG, no script, no network; text is escaped. */
typedef struct orl_series {
    const char *name;
    const double *x, *y;
    const double *low, *high; /* interval around y; NULL: none */
    size_t n;
    int marks;                /* points instead of a line */
} orl_series;
typedef struct orl_chart {
    const char *title, *x_label, *y_label, *note;
    const orl_series *series;
    size_t series_count;
    int log_x;
    int diagonal;             /* draw y = x */
} orl_chart;
ORL_API orl_report *orl_report_create(orl_ctx *ctx, const char *title);
ORL_API orl_status orl_report_heading(orl_report *report, const char *text);
ORL_API orl_status orl_report_text(orl_report *report, const char *paragraph);
ORL_API orl_status orl_report_chart(orl_report *report, const orl_chart *chart);
/* Histograms over one another on common bins. */
ORL_API orl_status orl_report_histogram(orl_report *report, const char *title, const char *x_label,
                                        const char *const *names, const double *const *values, const size_t *counts,
                                        size_t sets, size_t bins);
/* cells: (rows, cols) strings, the first row is the head. */
ORL_API orl_status orl_report_table(orl_report *report, const char *title, const char *const *cells, size_t rows,
                                    size_t cols);
ORL_API orl_status orl_report_results(orl_report *report, const orl_result *results, size_t n);
ORL_API orl_status orl_report_save(const orl_report *report, const char *file);
ORL_API void orl_report_free(orl_report *report);

#ifdef __cplusplus
}
#endif
#endif /* OFFLINE_RLHF_H */

#if defined(OFFLINE_RLHF_IMPLEMENTATION) && !defined(ORLI_IMPLEMENTED)
#define ORLI_IMPLEMENTED

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if (defined(__x86_64__) || defined(_M_X64)) && !defined(ORL_NO_SIMD)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__) && !defined(ORL_NO_SIMD)
#include <arm_neon.h>
#endif
#ifdef ORL_USE_BLIS
#include <blis.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 2
/* =================================================================================================
 * >>base   2. BASE: errors, checked sizes, memory, strings
 * =================================================================================================
 * Purpose:    what everything else stands on: one sticky error per context, memory that is counted
 *             and limited, growing arrays and strings, an arena.
 * Depends on: the API types.        Owns: all memory of a context.
 * Invariants: a failed allocation sets the context's error and returns NULL; sizes are multiplied in
 *             one checked place; freed memory leaves the count it entered.
 * Threads:    the calling thread only; workers never allocate and never fail.
 * Tested by:  tests/test_02_base.c */

#if defined(__FAST_MATH__) && !defined(ORL_ALLOW_FAST_MATH)
#error "offline_rlhf.h: -ffast-math breaks its promise of equal bits; define ORL_ALLOW_FAST_MATH to go on without it"
#endif

#ifndef ORL_MALLOC
#define ORL_MALLOC(size) malloc(size)
#define ORL_FREE(p) free(p)
#endif
#ifndef ORL_ASSERT
#include <assert.h>
#define ORL_ASSERT(x) assert(x)
#endif

#if defined(__cplusplus)
#define ORLI_RESTRICT __restrict
#else
#define ORLI_RESTRICT restrict
#endif
#if defined(__GNUC__)
#define ORLI_PRINTF(a, b) __attribute__((format(printf, a, b)))
#define ORLI_UNUSED __attribute__((unused))
#else
#define ORLI_PRINTF(a, b)
#define ORLI_UNUSED
#endif
#define ORLI_ALIGN 64
#define ORLI_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ORLI_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Is the build in double? ORL_REAL is a type's name, so paste it onto a prefix and look that up. */
#define ORLI_REAL_IS_float 0
#define ORLI_REAL_IS_double 1
#define ORLI_PASTE_(a, b) a##b
#define ORLI_PASTE(a, b) ORLI_PASTE_(a, b)
#define ORLI_DOUBLE ORLI_PASTE(ORLI_REAL_IS_, ORL_REAL)

typedef struct orli_object orli_object;
struct orli_object { /* first member of everything a context owns */
    orl_ctx *ctx;
    void (*destroy)(orli_object *);
    orli_object *next, *prev;
};

struct orl_ctx {
    orl_config config;
    orl_status status;
    char error[640];
    orl_note_fn note;
    void *note_user;
    size_t memory_now, memory_peak, memory_mark; /* mark: peak since the ledger last looked */
    char *spare;                        /* the largest chunk that an arena left, for the next arena, or NULL */
    orli_object *objects;
    struct orli_pool *pool;             /* section 4 */
    const struct orli_kernels *kernels; /* section 6 */
    int vnni;                           /* has the processor this instruction, and the kernels too? */
    const char *isa_name;
    uint64_t tokens;                    /* the ledger: what went through models … */
    double flops;                       /* … and what it cost */
    double started;
};

/* ---- errors ---- */

static orl_status orli_fail(orl_ctx *ctx, orl_status status, const char *format, ...) ORLI_PRINTF(3, 4);
static orl_status orli_fail(orl_ctx *ctx, orl_status status, const char *format, ...) {
    if (ctx && ctx->status == ORL_OK) { /* the first failure is the cause; later ones are its echo */
        va_list args;
        va_start(args, format);
        vsnprintf(ctx->error, sizeof ctx->error, format, args);
        va_end(args);
        ctx->status = status;
    }
    return status;
}

static void orli_note(orl_ctx *ctx, const char *format, ...) ORLI_PRINTF(2, 3);
static void orli_note(orl_ctx *ctx, const char *format, ...) {
    char sentence[640];
    va_list args;
    if (!ctx || !ctx->note) return;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    ctx->note(ctx->note_user, sentence);
}

ORL_API int orl_failed(const orl_ctx *ctx) { return !ctx || ctx->status != ORL_OK; }
ORL_API orl_status orl_error_status(const orl_ctx *ctx) { return ctx ? ctx->status : ORL_ERR_MEMORY; }
ORL_API const char *orl_error(const orl_ctx *ctx) {
    if (!ctx) return "no memory for a context";
    return ctx->status == ORL_OK ? "no error" : ctx->error;
}
ORL_API void orl_clear_error(orl_ctx *ctx) {
    if (ctx) ctx->status = ORL_OK, ctx->error[0] = 0;
}
ORL_API void orl_on_note(orl_ctx *ctx, orl_note_fn note, void *user) {
    if (ctx) ctx->note = note, ctx->note_user = user;
}

/* ---- checked sizes ---- */

/* a·b, or SIZE_MAX (which no allocation grants) if it does not fit. */
static size_t orli_mul(size_t a, size_t b) { return b && a > SIZE_MAX / b ? SIZE_MAX : a * b; }
static size_t orli_add(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }
static size_t orli_round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

/* ---- memory: every block is 64-byte aligned and carries its size and its origin in front. A large one begins at a
 * huge page, as it is asked for: the processor keeps the addresses of some thousand pages at hand, no more ---- */
#define ORLI_HUGE ((size_t)2 << 20)

static size_t orli_alignment(size_t bytes) { return bytes < ORLI_HUGE ? ORLI_ALIGN : ORLI_HUGE; }

typedef struct orli_block {
    void *origin;
    size_t bytes;
} orli_block;

static orli_block *orli_block_of(const void *p) {
    return (orli_block *)((uintptr_t)p - ORLI_ALIGN); /* the 64 bytes before p hold the header */
}

static void orli_free(orl_ctx *ctx, const void *p) {
    if (!p || !ctx) return;
    ctx->memory_now -= orli_block_of(p)->bytes;
    ORL_FREE(orli_block_of(p)->origin);
}

static char *orli_malloc(orl_ctx *ctx, size_t bytes) { /* within the limit */
    const size_t limit = ctx->config.memory_limit, whole = orli_add(bytes, ORLI_ALIGN + orli_alignment(bytes));
    if (whole == SIZE_MAX || (limit && bytes > limit - ORLI_MIN(ctx->memory_now, limit))) return NULL;
    return (char *)ORL_MALLOC(whole);
}

static void orli_spare_drop(orl_ctx *ctx) {
    orli_free(ctx, ctx->spare);
    ctx->spare = NULL;
}

static void *orli_alloc(orl_ctx *ctx, size_t count, size_t size) {
    size_t bytes = orli_mul(count, size);
    char *origin, *p;
    if (!ctx) return NULL;
    origin = orli_malloc(ctx, bytes);
    if (!origin && ctx->spare) {
        orli_spare_drop(ctx);
        origin = orli_malloc(ctx, bytes);
    }
    if (!origin) {
        orli_fail(ctx, ORL_ERR_MEMORY,
                  "no memory for %zu × %zu bytes (%zu MB are held): use a smaller model, batch or micro_tokens", count,
                  size, ctx->memory_now >> 20);
        return NULL;
    }
    p = origin + ORLI_ALIGN;
    p += orli_round_up((uintptr_t)p, orli_alignment(bytes)) - (uintptr_t)p;
#if defined(MADV_HUGEPAGE)
    if (bytes >= ORLI_HUGE) madvise(p, bytes / ORLI_HUGE * ORLI_HUGE, MADV_HUGEPAGE);
#endif
    orli_block_of(p)->origin = origin;
    orli_block_of(p)->bytes = bytes;
    ctx->memory_now += bytes;
    ctx->memory_peak = ORLI_MAX(ctx->memory_peak, ctx->memory_now);
    ctx->memory_mark = ORLI_MAX(ctx->memory_mark, ctx->memory_now);
    return p;
}

static void *orli_alloc_zero(orl_ctx *ctx, size_t count, size_t size) {
    void *p = orli_alloc(ctx, count, size);
    if (p) memset(p, 0, count * size);
    return p;
}

ORL_API void orl_free(orl_ctx *ctx, void *memory) { orli_free(ctx, memory); }

/* Makes room for `need` elements in a growing array; the array is left as it was on failure. */
static orl_status orli_reserve(orl_ctx *ctx, void **array, size_t *capacity, size_t need, size_t size) {
    void *grown;
    size_t wanted;
    if (need <= *capacity) return ORL_OK;
    wanted = ORLI_MAX(need, orli_add(*capacity, *capacity / 2 + 8));
    grown = orli_alloc(ctx, wanted, size);
    if (!grown) return ORL_ERR_MEMORY;
    if (*array) memcpy(grown, *array, *capacity * size);
    orli_free(ctx, *array);
    *array = grown;
    *capacity = wanted;
    return ORL_OK;
}
/* ORLI_RESERVE(ctx, array, capacity, need): array of any element type. C++ forbids &array as void **. */
#define ORLI_RESERVE(ctx, array, capacity, need) \
    orli_reserve((ctx), (void **)(void *)&(array), &(capacity), (need), sizeof *(array))

static char *orli_copy_bytes(orl_ctx *ctx, const void *bytes, size_t n) { /* n bytes and a zero */
    char *p = (char *)orli_alloc(ctx, orli_add(n, 1), 1);
    if (p) {
        if (n) memcpy(p, bytes, n);
        p[n] = 0;
    }
    return p;
}
static char *orli_copy_string(orl_ctx *ctx, const char *s) { return orli_copy_bytes(ctx, s, strlen(s)); }

/* ---- objects ---- */

/* A zeroed object of `size` bytes whose first member is an orli_object. */
static void *orli_object_create(orl_ctx *ctx, size_t size, void (*destroy)(orli_object *)) {
    orli_object *object;
    if (orl_failed(ctx)) return NULL;
    object = (orli_object *)orli_alloc_zero(ctx, 1, size);
    if (!object) return NULL;
    object->ctx = ctx;
    object->destroy = destroy;
    object->next = ctx->objects;
    if (ctx->objects) ctx->objects->prev = object;
    ctx->objects = object;
    return object;
}

static void orli_object_free(orli_object *object) {
    orl_ctx *ctx;
    if (!object) return;
    ctx = object->ctx;
    if (object->prev) object->prev->next = object->next;
    else ctx->objects = object->next;
    if (object->next) object->next->prev = object->prev;
    if (object->destroy) object->destroy(object);
    orli_free(ctx, object);
}

/* ---- growing strings ---- */

typedef struct orli_str {
    orl_ctx *ctx;
    char *data; /* zero-terminated once anything was added */
    size_t length, capacity;
    int failed; /* an addition found no memory; the context knows */
} orli_str;

static orli_str orli_str_new(orl_ctx *ctx) {
    orli_str s;
    memset(&s, 0, sizeof s);
    s.ctx = ctx;
    return s;
}

static void orli_str_add(orli_str *s, const char *bytes, size_t n) {
    if (s->failed || ORLI_RESERVE(s->ctx, s->data, s->capacity, orli_add(s->length, orli_add(n, 1))) != ORL_OK) {
        s->failed = 1;
        return;
    }
    if (n) memcpy(s->data + s->length, bytes, n);
    s->length += n;
    s->data[s->length] = 0;
}
static void orli_str_puts(orli_str *s, const char *text) { orli_str_add(s, text, strlen(text)); }

static void orli_str_printf(orli_str *s, const char *format, ...) ORLI_PRINTF(2, 3);
static void orli_str_printf(orli_str *s, const char *format, ...) {
    char small[512];
    int n;
    va_list args;
    va_start(args, format);
    n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n < 0) return;
    if ((size_t)n < sizeof small) {
        orli_str_add(s, small, (size_t)n);
    } else if (ORLI_RESERVE(s->ctx, s->data, s->capacity, orli_add(s->length, (size_t)n + 1)) == ORL_OK) {
        va_start(args, format);
        vsnprintf(s->data + s->length, (size_t)n + 1, format, args);
        va_end(args);
        s->length += (size_t)n;
    } else {
        s->failed = 1;
    }
}

static void orli_str_free(orli_str *s) {
    orli_free(s->ctx, s->data);
    *s = orli_str_new(s->ctx);
}

/* Hands the text over (an empty string if nothing was added), or NULL if memory ran out. */
static char *orli_str_take(orli_str *s) {
    char *text;
    if (!s->data) orli_str_add(s, "", 0);
    text = s->failed ? NULL : s->data;
    if (s->failed) orli_free(s->ctx, s->data);
    *s = orli_str_new(s->ctx);
    return text;
}

/* ---- arena: a stack of bytes that is emptied at once ----
 * It grows by whole chunks; the next reset melts them into one, so that after the first steps of a
 * training run nothing is allocated any more. A dry arena only counts. */

#define ORLI_ARENA_CHUNKS 64
typedef struct orli_arena {
    orl_ctx *ctx;
    char *chunk[ORLI_ARENA_CHUNKS];
    size_t size[ORLI_ARENA_CHUNKS];
    size_t chunks, current, used; /* used: in the current chunk */
    size_t total, peak;           /* bytes handed out since the reset; the most ever */
    int dry;
} orli_arena;

/* A large chunk is kept for the next arena: a pass over data makes and frees one, and a fresh one costs
 * the system a fault for each page. */
#define ORLI_SPARE ((size_t)1 << 20) /* bytes from which on it is worth it */

static void orli_chunk_leave(orl_ctx *ctx, char *chunk) {
    const size_t bytes = orli_block_of(chunk)->bytes;
    if (bytes < ORLI_SPARE || (ctx->spare && orli_block_of(ctx->spare)->bytes >= bytes)) {
        orli_free(ctx, chunk);
    } else {
        orli_spare_drop(ctx);
        ctx->spare = chunk;
    }
}

static char *orli_chunk_take(orl_ctx *ctx, size_t bytes) {
    char *chunk = bytes >= ORLI_SPARE ? ctx->spare : NULL;
    if (!chunk) return (char *)orli_alloc(ctx, bytes, 1);
    ctx->spare = NULL;
    if (orli_block_of(chunk)->bytes >= bytes) return chunk;
    orli_free(ctx, chunk);
    return (char *)orli_alloc(ctx, bytes, 1);
}

static void orli_arena_free(orli_arena *a) {
    size_t i;
    for (i = 0; i < a->chunks; i++) orli_chunk_leave(a->ctx, a->chunk[i]);
    a->chunks = a->current = a->used = a->total = 0;
}

static void orli_arena_reset(orli_arena *a) {
    if (a->chunks > 1) {
        orli_arena_free(a);
        a->chunk[0] = orli_chunk_take(a->ctx, a->peak);
        a->chunks = a->chunk[0] ? 1 : 0;
        a->size[0] = a->chunks ? orli_block_of(a->chunk[0])->bytes : 0;
    }
    a->current = a->used = a->total = 0;
}

static void *orli_arena_alloc(orli_arena *a, size_t count, size_t size) {
    size_t bytes = orli_mul(count, size);
    char *p = NULL;
    if (bytes < SIZE_MAX - ORLI_ALIGN) bytes = orli_round_up(bytes, ORLI_ALIGN);
    if (!a->dry) {
        if (!a->chunks || bytes > a->size[a->current] - a->used) {
            size_t fresh = ORLI_MAX(bytes, (size_t)1 << 18);
            fresh = ORLI_MAX(fresh, a->total / 4); /* a quarter of what is there, so that chunks stay few */
            if (a->chunks == ORLI_ARENA_CHUNKS) {
                orli_fail(a->ctx, ORL_ERR_MEMORY, "no memory: an arena of %zu bytes has too many pieces", a->total);
                return NULL;
            }
            if (!(a->chunk[a->chunks] = orli_chunk_take(a->ctx, fresh))) return NULL; /* and nothing is counted */
            a->size[a->chunks] = orli_block_of(a->chunk[a->chunks])->bytes;
            a->current = a->chunks++;
            a->used = 0;
        }
        p = a->chunk[a->current] + a->used;
        a->used += bytes;
    }
    a->total = orli_add(a->total, bytes);
    a->peak = ORLI_MAX(a->peak, a->total);
    return p;
}
#endif /* section 2 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 3
/* =================================================================================================
 * >>platform   3. PLATFORM: clock, processor, files
 * =================================================================================================
 * Purpose:    everything that asks the operating system or the processor something.
 * Depends on: base.
 * Invariants: a file appears whole or not at all: written beside its name, flushed, renamed, the
 *             directory flushed. Reading maps the file where it can.
 * Threads:    any.
 * Tested by:  tests/test_03_platform.c */

#ifndef CLOCK_MONOTONIC
#error "offline_rlhf.h: POSIX is hidden. Include this header before any libc header, or compile with -std=gnu99, or define _POSIX_C_SOURCE=200809L"
#endif

ORL_API double orl_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t orli_cores(void) {
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set; /* what this process may use, which is less than the machine has in a container */
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (size_t)CPU_COUNT(&set);
#endif
    {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        return n > 0 ? (size_t)n : 1;
    }
}

/* ---- instruction sets ---- */

typedef enum orli_isa { ORLI_ISA_SCALAR, ORLI_ISA_AVX2, ORLI_ISA_AVX512, ORLI_ISA_NEON, ORLI_ISA_COUNT } orli_isa;

#if (defined(__x86_64__) || defined(_M_X64)) && !defined(ORL_NO_SIMD)
#define ORLI_X86 1
#else
#define ORLI_X86 0
#endif
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__) && !defined(ORL_NO_SIMD)
#define ORLI_NEON 1
#else
#define ORLI_NEON 0
#endif

/* The best instruction set that the processor has and the operating system saves the registers of. */
static orli_isa orli_isa_detect(void) {
#if ORLI_X86
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return ORLI_ISA_SCALAR;
    if (!(c & (1u << 27)) || !(c & (1u << 12))) return ORLI_ISA_SCALAR; /* OSXSAVE, FMA */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    /* AVX2 */
    if ((low & 6u) != 6u || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & (1u << 5))) return ORLI_ISA_SCALAR;
    if ((low & 0xe6u) == 0xe6u && (b & (1u << 16)) && (b & (1u << 17)) && (b & (1u << 30)) && (b & (1u << 31)))
        return ORLI_ISA_AVX512; /* F, DQ, BW, VL */
    return ORLI_ISA_AVX2;
#elif ORLI_NEON
    return ORLI_ISA_NEON; /* part of every AArch64 */
#else
    return ORLI_ISA_SCALAR;
#endif
}

/* Has the processor AVX-512's instruction for products of bytes? */
static int orli_vnni_detect(void) {
#if ORLI_X86
    unsigned a, b, c, d;
    return orli_isa_detect() == ORLI_ISA_AVX512 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 11));
#else
    return 0;
#endif
}

/* Rounding to nearest and flush-to-zero, for the calling thread; returns what was set before. */
static unsigned orli_float_mode_enter(void) {
#if ORLI_X86
    unsigned before = _mm_getcsr();
    _mm_setcsr((before & ~0xe040u) | 0x9fc0u); /* RC = nearest, FTZ = DAZ = 1, no exception traps */
    return before;
#elif ORLI_NEON
    uint64_t before, mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    mode = (before & ~(uint64_t)0xc09f00) | 0x1000000; /* RMode = nearest, FZ = 1, no exception traps */
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
    return (unsigned)before;
#else
    return 0;
#endif
}
static void orli_float_mode_leave(unsigned before) {
#if ORLI_X86
    _mm_setcsr(before);
#elif ORLI_NEON
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)before));
#else
    (void)before;
#endif
}

/* ---- files ---- */

typedef struct orli_file { /* a whole file to read, mapped */
    const char *data;
    size_t size;
    int mapped;
} orli_file;

static orl_status orli_file_open(orl_ctx *ctx, const char *path, orli_file *file) {
    struct stat info;
    int fd;
    void *p;
    memset(file, 0, sizeof *file);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe that nobody writes to must not hang us */
    if (fd < 0) return orli_fail(ctx, ORL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return orli_fail(ctx, ORL_ERR_IO, "%s: is not a regular file", path);
    }
    file->size = (size_t)info.st_size;
    file->data = "";
    if (file->size) {
        p = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            orli_fail(ctx, ORL_ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
            memset(file, 0, sizeof *file);
            close(fd);
            return ORL_ERR_IO;
        }
        file->data = (const char *)p;
        file->mapped = 1;
    }
    close(fd);
    return ORL_OK;
}

static void orli_file_close(orli_file *file) {
    if (file->mapped) munmap((void *)(uintptr_t)file->data, file->size);
    memset(file, 0, sizeof *file);
}

static int orli_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

/* Flushes the directory that holds `path`, so that a rename in it survives a power cut. */
static void orli_sync_parent(const char *path) {
    char dir[4096];
    const char *slash = strrchr(path, '/');
    int fd;
    if (slash && (size_t)(slash - path) >= sizeof dir) return;
    if (!slash) snprintf(dir, sizeof dir, ".");
    else snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    fd = open(dir, O_RDONLY);
    if (fd >= 0) fsync(fd), close(fd);
}

/* A file that is being written under path.tmp and takes its name when it is complete. */
typedef struct orli_writer {
    orl_ctx *ctx;
    FILE *file;
    char path[4096], temporary[4096 + 8];
} orli_writer;

static orl_status orli_writer_open(orl_ctx *ctx, const char *path, orli_writer *w) {
    memset(w, 0, sizeof *w);
    w->ctx = ctx;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (strlen(path) >= sizeof w->path) return orli_fail(ctx, ORL_ERR_ARGUMENT, "%.80s…: the path is too long", path);
    snprintf(w->path, sizeof w->path, "%s", path);
    snprintf(w->temporary, sizeof w->temporary, "%s.tmp", path);
    w->file = fopen(w->temporary, "wb");
    if (!w->file) return orli_fail(ctx, ORL_ERR_IO, "%s: cannot be written: %s", w->temporary, strerror(errno));
    return ORL_OK;
}

static void orli_writer_put(orli_writer *w, const void *bytes, size_t n) {
    if (w->file && n && fwrite(bytes, 1, n, w->file) != n && !orl_failed(w->ctx))
        orli_fail(w->ctx, ORL_ERR_IO, "%s: cannot be written: %s", w->temporary, strerror(errno));
}

/* Completes the file, or removes what was written if anything has failed. */
static orl_status orli_writer_close(orli_writer *w) {
    if (!w->file) return orl_error_status(w->ctx);
    if (!orl_failed(w->ctx) && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0))
        orli_fail(w->ctx, ORL_ERR_IO, "%s: cannot be written: %s", w->temporary, strerror(errno));
    fclose(w->file);
    w->file = NULL;
    if (!orl_failed(w->ctx) && rename(w->temporary, w->path) != 0)
        orli_fail(w->ctx, ORL_ERR_IO, "%s: cannot be renamed to %s: %s", w->temporary, w->path, strerror(errno));
    if (orl_failed(w->ctx)) remove(w->temporary);
    else orli_sync_parent(w->path);
    return orl_error_status(w->ctx);
}

static orl_status orli_write_file(orl_ctx *ctx, const char *path, const void *bytes, size_t n) {
    orli_writer w;
    if (orli_writer_open(ctx, path, &w) != ORL_OK) return orl_error_status(ctx);
    orli_writer_put(&w, bytes, n);
    return orli_writer_close(&w);
}

static orl_status orli_make_dir(orl_ctx *ctx, const char *path) {
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (mkdir(path, 0777) == 0) return ORL_OK;
    if (errno == EEXIST) {
        struct stat info;
        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return ORL_OK;
        errno = EEXIST; /* by a file */
    }
    return orli_fail(ctx, ORL_ERR_IO, "%s: the directory cannot be made: %s", path, strerror(errno));
}

/* dir + "/" + name into a buffer of 4096. */
static orl_status orli_join(orl_ctx *ctx, char *path, const char *dir, const char *name) {
    int n = snprintf(path, 4096, "%s/%s", dir, name);
    return n > 0 && n < 4096 ? ORL_OK : orli_fail(ctx, ORL_ERR_ARGUMENT, "%.80s…: the path is too long", dir);
}
#endif /* section 3 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 4
/* =================================================================================================
 * >>threads   4. THREADS: one pool, deterministic by construction
 * =================================================================================================
 * Purpose:    orli_parallel(ctx, kind, tasks, fn, arg) runs fn(arg, task, worker) for every task.
 * Depends on: platform.             Owns: the worker threads and a scratch block for each.
 * Invariants: which worker runs a task is left to chance, so a task writes only what is its own and
 *             sums within itself; then the bits do not depend on the number of threads.
 * Threads:    called from the context's thread; not re-entrant (a task never calls it).
 * Numerics:   workers and, for the call, the caller run in round-to-nearest with flush-to-zero.
 * Tested by:  tests/test_04_threads.c */

typedef void (*orli_task_fn)(void *arg, size_t task, size_t worker);

/* Who asks for parallel work: tests look here to see that a path really ran as two tasks or more. */
typedef enum orli_work {
    ORLI_WORK_GEMM, ORLI_WORK_PACK, ORLI_WORK_ROWS, ORLI_WORK_ATTENTION, ORLI_WORK_ATTENTION_BACKWARD,
    ORLI_WORK_EMBEDDING, ORLI_WORK_HEAD, ORLI_WORK_OPTIMIZER, ORLI_WORK_SAMPLE, ORLI_WORK_OTHER, ORLI_WORK_COUNT
} orli_work;

#define ORLI_SCRATCH ((size_t)4 << 20) /* bytes per worker */
#define ORLI_SPIN 5000                 /* polls before a thread parks: 100 to 200 µs, as gaps within a step are */

typedef struct orli_worker {
    struct orli_pool *pool;
    size_t index;
} orli_worker;

/* One job at a time. A worker that has taken a task holds the job: the caller waits until every task is done. So fn,
 * arg and tasks are read by those who hold a task and by nobody else, and a worker that comes when the job is over,
 * or another has begun, finds left ≤ 0, or takes a task of the other. Nobody waits for workers without a task. */
typedef struct orli_pool {
    orl_ctx *ctx;
    size_t threads, started;
    pthread_t *thread;
    orli_worker *worker;
    char *scratch;
    int spin; /* ORLI_SPIN, or 0 where threads outnumber cores: spinning would take the time from those who work */
    size_t most_tasks[ORLI_WORK_COUNT]; /* the most tasks any call of a kind had */
    orli_task_fn fn;
    void *arg;
    size_t tasks;
    /* held by the mutex: workers asleep, of those woken who are not up yet, awake at most for this job */
    pthread_mutex_t mutex;
    pthread_cond_t wake, finished;
    size_t parked, called, wanted;
    int stop;
    char apart[64];  /* what is polled lies in a cache line of its own */
    ptrdiff_t left;  /* atomic: tasks nobody has taken; below 0 by those who came too late */
    char far[64];
    size_t undone;   /* atomic: tasks that have not ended */
} orli_pool;

/* Between two polls. Now and then the core is offered to others: the thread that is waited for may have been put on
 * this very core, or another program may have use for it. */
static void orli_pause(int polls) {
    if (polls % 64 == 63) sched_yield();
#if ORLI_X86
    _mm_pause();
#elif ORLI_NEON
    __asm__ volatile("isb"); /* waits about as long; most cores pass over a yield at once */
#endif
}

/* Runs tasks until none is left; returns how many. Acquiring `left` makes the job visible, which the caller released
 * by setting it (other workers' subtractions in between do not break that); releasing `undone` hands over results. */
static size_t orli_pool_drain(orli_pool *pool, size_t worker) {
    size_t ran = 0;
    ptrdiff_t left;
    while (__atomic_load_n(&pool->left, __ATOMIC_RELAXED) > 0 &&
           (left = __atomic_fetch_sub(&pool->left, 1, __ATOMIC_ACQUIRE)) > 0) {
        pool->fn(pool->arg, pool->tasks - (size_t)left, worker);
        ran++;
    }
    if (ran && __atomic_sub_fetch(&pool->undone, ran, __ATOMIC_ACQ_REL) == 0 && worker) {
        pthread_mutex_lock(&pool->mutex); /* the caller may have parked */
        pthread_cond_signal(&pool->finished);
        pthread_mutex_unlock(&pool->mutex);
    }
    return ran;
}

/* Wakes up to `most` workers if fewer are awake than the job can use. Waking one costs microseconds, so who is woken
 * wakes others before it works. Called with the mutex, which it gives back: the woken would only wait for it. */
static void orli_pool_wake(orli_pool *pool, size_t most) {
    size_t n;
    for (n = 0; n < most && pool->parked && pool->started - pool->parked < pool->wanted; n++)
        pool->parked--, pool->called++;
    pthread_mutex_unlock(&pool->mutex);
    for (; n; n--) pthread_cond_signal(&pool->wake);
}

/* Sleeps until a job wants this worker; 0: the pool ends. A job is published under the mutex: either it is seen here,
 * or its caller sees that this worker is parked. */
static int orli_pool_park(orli_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    if (__atomic_load_n(&pool->left, __ATOMIC_RELAXED) <= 0 && !pool->stop) {
        pool->parked++;
        while (!pool->called && !pool->stop) pthread_cond_wait(&pool->wake, &pool->mutex);
        if (pool->called) pool->called--;
    }
    if (pool->stop) {
        pthread_mutex_unlock(&pool->mutex);
        return 0;
    }
    orli_pool_wake(pool, __atomic_load_n(&pool->left, __ATOMIC_RELAXED) > 0 ? 2 : 0);
    return 1;
}

static void *orli_pool_main(void *p) {
    orli_worker *self = (orli_worker *)p;
    orli_pool *pool = self->pool;
    int spin = 0;
    orli_float_mode_enter();
    for (;;) {
        if (orli_pool_drain(pool, self->index)) {
            spin = 0;
        } else if (spin < pool->spin) { /* a job that had nothing for this worker does not keep it up */
            orli_pause(spin++);
        } else if (orli_pool_park(pool)) {
            spin = 0;
        } else {
            return NULL;
        }
    }
}

static void orli_parallel(orl_ctx *ctx, orli_work kind, size_t tasks, orli_task_fn fn, void *arg) {
    orli_pool *pool = ctx->pool;
    unsigned mode = orli_float_mode_enter();
    size_t i;
    int spin;
    pool->most_tasks[kind] = ORLI_MAX(pool->most_tasks[kind], tasks);
    if (pool->started == 0 || tasks < 2) {
        for (i = 0; i < tasks; i++) fn(arg, i, 0);
        orli_float_mode_leave(mode);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->tasks = tasks;
    __atomic_store_n(&pool->undone, tasks, __ATOMIC_RELAXED);
    pthread_mutex_lock(&pool->mutex);
    __atomic_store_n(&pool->left, (ptrdiff_t)tasks, __ATOMIC_RELEASE); /* workers that spin begin here */
    pool->wanted = tasks - 1;
    orli_pool_wake(pool, 1);
    orli_pool_drain(pool, 0);
    for (spin = 0; spin < pool->spin && __atomic_load_n(&pool->undone, __ATOMIC_ACQUIRE); spin++) orli_pause(spin);
    if (__atomic_load_n(&pool->undone, __ATOMIC_ACQUIRE)) {
        pthread_mutex_lock(&pool->mutex);
        while (__atomic_load_n(&pool->undone, __ATOMIC_ACQUIRE)) pthread_cond_wait(&pool->finished, &pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
    }
    orli_float_mode_leave(mode);
}

static void *orli_scratch(orl_ctx *ctx, size_t worker) { return ctx->pool->scratch + worker * ORLI_SCRATCH; }

static void orli_pool_destroy(orl_ctx *ctx) {
    orli_pool *pool = ctx->pool;
    size_t i;
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (i = 0; i < pool->started; i++) pthread_join(pool->thread[i], NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->finished);
    orli_free(ctx, pool->thread);
    orli_free(ctx, pool->worker);
    orli_free(ctx, pool->scratch);
    orli_free(ctx, pool);
    ctx->pool = NULL;
}

/* The caller is worker 0; threads − 1 more are started. A thread that cannot be started is done without. */
static orl_status orli_pool_create(orl_ctx *ctx, size_t threads) {
    orli_pool *pool = (orli_pool *)orli_alloc_zero(ctx, 1, sizeof *pool);
    size_t i;
    if (!pool) return ORL_ERR_MEMORY;
    pool->ctx = ctx;
    pool->threads = threads;
    pool->spin = threads <= orli_cores() ? ORLI_SPIN : 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->finished, NULL);
    ctx->pool = pool;
    pool->thread = (pthread_t *)orli_alloc_zero(ctx, threads, sizeof *pool->thread);
    pool->worker = (orli_worker *)orli_alloc_zero(ctx, threads, sizeof *pool->worker);
    pool->scratch = (char *)orli_alloc(ctx, threads, ORLI_SCRATCH);
    if (!pool->thread || !pool->worker || !pool->scratch) return ORL_ERR_MEMORY;
    for (i = 1; i < threads; i++) {
        pool->worker[i].pool = pool;
        pool->worker[i].index = i;
        if (pthread_create(&pool->thread[i - 1], NULL, orli_pool_main, &pool->worker[i]) != 0) break;
        pool->started++;
    }
    pool->threads = pool->started + 1;
    return ORL_OK;
}
#endif /* section 4 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 5
/* =================================================================================================
 * >>rng   5. RNG: counter-based
 * =================================================================================================
 * Purpose:    random numbers that are a pure function of (key, stream, counter): nothing to save but
 *             the counter, nothing to share between threads.
 * Depends on: nothing.
 * Source:     Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 * Tested by:  tests/test_05_rng.c (the authors' known answers) */

typedef struct orli_rng {
    uint64_t key, stream, counter; /* counter: of blocks of four 32-bit words */
    uint32_t word[4];
    unsigned left;                 /* words of the block not used yet */
} orli_rng;

static void orli_philox(uint64_t key, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    int round;
    for (round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

static orli_rng orli_rng_new(uint64_t key, uint64_t stream) {
    orli_rng r;
    memset(&r, 0, sizeof r);
    r.key = key;
    r.stream = stream;
    return r;
}

static uint32_t orli_rng_u32(orli_rng *r) {
    if (!r->left) {
        orli_philox(r->key, r->stream, r->counter++, r->word);
        r->left = 4;
    }
    return r->word[4 - r->left--];
}

/* [0, 1) with 53 bits */
static double orli_rng_uniform(orli_rng *r) {
    uint32_t high = orli_rng_u32(r) >> 5, low = orli_rng_u32(r) >> 6;
    return ((double)high * 67108864.0 + (double)low) / 9007199254740992.0;
}

/* 0 … n−1, every value equally likely up to n / 2^53. */
static size_t orli_rng_below(orli_rng *r, size_t n) {
    return (size_t)(orli_rng_uniform(r) * (double)n);
}

/* N(0, 1) by Box and Muller; a pair is drawn and one thrown away, so that no state hides here. */
static double orli_rng_normal(orli_rng *r) {
    double u = 1.0 - orli_rng_uniform(r), v = orli_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* A random order of 0 … n−1 (Fisher and Yates). */
static void orli_shuffle(size_t *order, size_t n, uint64_t key, uint64_t stream) {
    orli_rng r = orli_rng_new(key, stream);
    size_t i;
    for (i = 0; i < n; i++) order[i] = i;
    for (i = n; i > 1; i--) {
        size_t j = orli_rng_below(&r, i), t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}
#endif /* section 5 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 6
/* =================================================================================================
 * >>kernels   6. KERNELS: everything that computes in bulk
 * =================================================================================================
 * Purpose:    matrix products (orli_gemm …) and a table of row kernels (orli_kernels) for each
 *             instruction set; all other sections compute through these.
 * Depends on: threads.              Owns: nothing; temporary memory is the worker's scratch block.
 * Invariants: an element of a matrix product is one chain of fused multiply-adds in ascending k
 *             within blocks of k that depend on k alone, the blocks added in order. So a row has the
 *             same bits alone or in a batch, packed or not, on any number of threads. Elementwise
 *             kernels give each element the same bits wherever it stands; reductions have an order
 *             that n alone fixes. All this per instruction set: two sets need not agree.
 * Threads:    orli_gemm* and orli_pack run in parallel; the kernels in the table are for use in tasks.
 * Numerics:   every multiply that is added to something is an explicit fused multiply-add, so that
 *             nothing is left for a compiler to contract in its own way (the scalar set fuses where
 *             the build has the instruction). Denormal results may be flushed to zero.
 * Tested by:  tests/test_06_kernels.c;  measured by tests/bench/bench_kernels.c
 *
 * How to read it: the driver of a product goes orli_gemm → orli_gemm_task → orli_gemm_block → tile. The
 * tile is the micro-kernel: `tile_rows` × `tile_cols` numbers of C in registers, one step of k at a time. */

/* Element (i, j) is at data[i·rs + j·cs]; one of rs, cs is 1. A frozen B may be bf16 numbers, the upper halves of
 * floats: packing widens them, and nothing else reads them. */
typedef struct orli_mat {
    const orl_real *data;
    const uint16_t *half; /* in the place of data; else NULL */
    size_t rs, cs;
} orli_mat;

typedef struct orli_adamw { /* corrections: 1 − β^t */
    orl_real lr, beta1, beta2, eps, decay, correction1, correction2, grad_scale;
} orli_adamw;

/* How a tile leaves C: C = Σ, C = C + Σ, or the chain goes on from C. */
enum { ORLI_SET, ORLI_ADD, ORLI_CHAIN };

/* C (rows, tile_cols) from A (rows, k), element (i, p) at a[i·a_row + p·a_k], and from B (k, tile_cols):
 * row p is the vector at b0 + p·b_k, then the vector at b1 + p·b_k. One function for each number of rows. */
typedef void (*orli_tile_fn)(size_t k, const orl_real *a, size_t a_row, size_t a_k, const orl_real *b0,
                             const orl_real *b1, size_t b_k, orl_real *c, size_t c_row, int mode);

#define ORLI_TILE 16       /* positions in a tile of keys or values */
#define ORLI_TILE_ROWS 14  /* the most rows a register tile has in any instruction set, … */
#define ORLI_TILE_COLS 32  /* … and columns */
#define ORLI_GEMM_K 512    /* longest block of k */
#define ORLI_INT8_GROUP ((size_t)64)  /* numbers along k that share a scale */
#define ORLI_INT8_COLS ((size_t)32)   /* columns of a panel */
#define ORLI_INT8_ROWS 12             /* the most rows a register tile has in any instruction set */

/* One table for each instruction set. y, dx, … do not overlap x unless it is said. */
typedef struct orli_kernels {
    const char *name;
    size_t width;                /* lanes of a vector */
    size_t tile_rows, tile_cols; /* of the register tile; tile_cols is 2·width */
    /* An orli_tile_fn for rows ≤ tile_rows, cols ≤ tile_cols: B has all columns, C is touched in the first cols. */
    void (*tile)(size_t rows, size_t cols, size_t k, const orl_real *a, size_t a_row, size_t a_k, const orl_real *b0,
                 const orl_real *b1, size_t b_k, orl_real *c, size_t c_row, int mode);
    /* C (1, 4·tile_cols) from one row of A and four panels of B, `stride` apart: what decoding does with
     * packed weights. */
    void (*thin_tile)(size_t k, const orl_real *a, size_t a_k, const orl_real *panel, size_t stride, size_t b_k,
                      orl_real *c, int mode);
    void (*thin_half)(size_t k, const orl_real *a, size_t a_k, const uint16_t *panel, size_t stride, size_t b_k,
                      orl_real *c, int mode); /* of bf16 panels */
    /* panel[p·step + l] = x[l·lane + p·next] for lanes l < count ≤ width, p < k: one of lane, next is 1 */
    void (*pack)(size_t count, size_t k, const orl_real *x, size_t lane, size_t next, orl_real *panel, size_t step);

    void (*quantise)(size_t k, const orl_real *x, int8_t *row);           /* see "int8" below, and for … */
    /* … C (rows, cols ≤ ORLI_INT8_COLS) = or += quantised rows, row_bytes apart, · k rows of a panel */
    void (*int8_tile)(size_t rows, size_t cols, size_t k, const int8_t *a, size_t row_bytes, const int8_t *panel,
                      orl_real *c, size_t c_row, int mode);
    void (*int8_vnni)(size_t rows, size_t cols, size_t k, const int8_t *a, size_t row_bytes, const int8_t *panel,
                      orl_real *c, size_t c_row, int mode); /* the same bits by VNNI's instruction; or NULL */

    void (*widen)(size_t n, orl_real *y, const uint16_t *x); /* from bf16 */
    void (*add)(size_t n, orl_real *y, const orl_real *x);                /* y += x */
    void (*axpy)(size_t n, orl_real *y, orl_real a, const orl_real *x);   /* y += a·x */
    void (*scale)(size_t n, orl_real *y, orl_real a);                     /* y *= a */
    void (*mul)(size_t n, orl_real *y, const orl_real *a, const orl_real *b);
    orl_real (*dot)(size_t n, const orl_real *a, const orl_real *b);
    orl_real (*sum)(size_t n, const orl_real *x);
    orl_real (*max)(size_t n, const orl_real *x);                         /* −∞ if n = 0 */
    double (*sum_squares)(size_t n, const orl_real *x);

    void (*exp)(size_t n, orl_real *y, const orl_real *x);                /* these three: y may be x */
    void (*tanh)(size_t n, orl_real *y, const orl_real *x);
    void (*log)(size_t n, orl_real *y, const orl_real *x);
    /* Σ e^((x − shift)·scale), its terms in y (which may be x) unless that is NULL */
    orl_real (*sum_exp)(size_t n, orl_real *y, const orl_real *x, orl_real shift, orl_real scale);
    orl_real (*softmax_row)(size_t n, orl_real *y, const orl_real *x);    /* y may be x; returns log Σ e^x */
    orl_real (*log_sum_exp)(size_t n, const orl_real *x);

    void (*layernorm)(size_t d, const orl_real *x, const orl_real *w, const orl_real *b, orl_real eps, orl_real *y,
                      orl_real *mean, orl_real *rstd);
    void (*layernorm_backward)(size_t d, const orl_real *x, const orl_real *w, const orl_real *dy, orl_real mean,
                               orl_real rstd, orl_real *dx, orl_real *dw, orl_real *db); /* each += or NULL */
    void (*rmsnorm)(size_t d, const orl_real *x, const orl_real *w, orl_real eps, orl_real *y, orl_real *rstd);
    void (*rmsnorm_backward)(size_t d, const orl_real *x, const orl_real *w, const orl_real *dy, orl_real rstd,
                             orl_real *dx, orl_real *dw);                                /* each += or NULL */
    void (*gelu)(size_t n, orl_real *y, const orl_real *x);
    void (*gelu_backward)(size_t n, orl_real *dx, const orl_real *x, const orl_real *dy);
    void (*gelu_erf)(size_t n, orl_real *y, const orl_real *x);
    void (*gelu_erf_backward)(size_t n, orl_real *dx, const orl_real *x, const orl_real *dy);
    void (*swiglu)(size_t n, orl_real *y, const orl_real *gate, const orl_real *up);
    void (*swiglu_backward)(size_t n, orl_real *dgate, orl_real *dup, const orl_real *gate, const orl_real *up,
                            const orl_real *dy); /* dgate, dup: += or NULL; those of geglu too */
    void (*geglu)(size_t n, orl_real *y, const orl_real *gate, const orl_real *up);
    void (*geglu_backward)(size_t n, orl_real *dgate, orl_real *dup, const orl_real *gate, const orl_real *up,
                           const orl_real *dy);
    void (*rope)(size_t half, orl_real *x, const orl_real *cosine, const orl_real *sine);
    void (*adamw)(size_t n, orl_real *w, const orl_real *g, orl_real *m, orl_real *v, const orli_adamw *p);

    /* Causal attention of one head. Query i, at position p = position0 + i, sees the keys
     * max(0, p + 1 − window) … p. ktile[t]: (d, 16), vtile[t]: (16, d), of positions 16t … 16t+15. What lies
     * beyond the last visible position may be anything. lse[i] = log Σ e^(scale·q·k). */
    void (*attention)(size_t d, size_t nq, const orl_real *q, size_t q_stride, size_t position0,
                      const orl_real *const *ktile, const orl_real *const *vtile, size_t window, orl_real scale,
                      orl_real *out, size_t out_stride, orl_real *lse, void *scratch);
    /* Adds to dq, to the tiles dktile and dvtile (visible positions only). */
    void (*attention_backward)(size_t d, size_t nq, const orl_real *q, size_t q_stride, size_t position0,
                               const orl_real *const *ktile, const orl_real *const *vtile, size_t window,
                               orl_real scale, const orl_real *out, size_t out_stride, const orl_real *dout,
                               size_t dout_stride, const orl_real *lse, orl_real *dq, size_t dq_stride,
                               orl_real *const *dktile, orl_real *const *dvtile, void *scratch);
} orli_kernels;

/* The template below is compiled once for each instruction set. To that end this header includes itself
 * (under the name ORL_HEADER) inside a region that lets the compiler use the set: in such a pass
 * ORLI_KERNEL_PASS says which set it is, the guards hide all but the template, and ORLI_K(name) gives its
 * functions names of their own. So the implementation's #if is closed here, the template stands
 * between two such blocks, and the second block begins with the passes. A new set needs a pass number,
 * a block of vocabulary and an instantiation. */
#ifndef ORL_HEADER
#define ORL_HEADER "offline_rlhf.h"
#endif
#define ORLI_PASS_SCALAR 1
#define ORLI_PASS_AVX2 2
#define ORLI_PASS_AVX512 3
#define ORLI_PASS_NEON 4


static int32_t orli_int32_at(const int8_t *p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}
static float orli_single_at(const int8_t *p) {
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}
typedef void (*orli_int8_fn)(size_t k, const int8_t *a, size_t row_bytes, const int8_t *panel, orl_real *sum);

typedef struct orli_halves_job {
    size_t n, k, cols;
    const uint16_t *from; /* (n, k): Bᵀ */
    uint16_t *to;
} orli_halves_job;

static void orli_halves_task(void *arg, size_t task, size_t worker) { /* one panel */
    const orli_halves_job *j = (const orli_halves_job *)arg;
    const size_t first = task * j->cols, count = ORLI_MIN(j->cols, j->n - first);
    uint16_t *panel = j->to + first * j->k;
    size_t i, p;
    (void)worker;
    for (p = 0; p < j->k; p++) {
        for (i = 0; i < count; i++) panel[p * j->cols + i] = j->from[(first + i) * j->k + p];
        for (; i < j->cols; i++) panel[p * j->cols + i] = 0;
    }
}

static void orli_pack_halves(orl_ctx *ctx, size_t n, size_t k, const uint16_t *from, uint16_t *to) {
    orli_halves_job job;
    job.n = n, job.k = k, job.cols = ctx->kernels->tile_cols, job.from = from, job.to = to;
    orli_parallel(ctx, ORLI_WORK_PACK, (n + job.cols - 1) / job.cols, orli_halves_task, &job);
}
#endif /* section 6 */
#endif /* first half of the implementation */

#if defined(ORLI_KERNEL_PASS)

/* ---- the vector vocabulary ----------------------------------------------------------------------
 * orli_v is a vector of ORLI_W numbers. load_n and store_n touch only the first n lanes where n < ORLI_W
 * (load_n fills up with zeros). fma(a, b, c) = a·b + c, fnma = c − a·b. min(a, b) is a < b ? a : b, so b
 * if either is NaN; max likewise. less(a, b, yes, no) selects by lane. ldexp(x, n) = x·2^n for integral
 * −252 ≤ n ≤ 254; split(x, &e) = x/2^e in [1, 2) for normal x > 0. sum and top reduce the lanes in a fixed order.
 * orli_i is a vector of as many integers of 32 bits: i_dot(sum, w, x) = sum + Σ of the products of their four bytes.
 * bytes(p, a) writes a, within ±127 and rounded to integers, and returns what it wrote, not finite where a is not.
 * For `pack`, in each group a0 … a3 of four lanes: ziplo(a, b) = a0 b0 a1 b1, ziphi(a, b) = a2 b2 a3 b3,
 * pairlo(a, b) = a0 a1 b0 b1, pairhi(a, b) = a2 a3 b2 b3; quads(x, lane) is rows l, l + 4, … of four numbers. */

#if ORLI_KERNEL_PASS == ORLI_PASS_SCALAR

#define ORLI_K(name) orli_##name##_scalar
#define ORLI_W 1
#define ORLI_ROWS 4
#define orli_v orl_real
#define orli_v_set1(a) ((orl_real)(a))
#define orli_v_load(p) (*(p))
#define orli_v_load_n(p, n) ((n) ? *(p) : (orl_real)0)
static inline orli_v ORLI_K(v_widen)(const uint16_t *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (orl_real)x;
}
#define orli_v_store(p, a) ((void)(*(p) = (a)))
#define orli_v_store_n(p, n, a) ((void)((n) ? (*(p) = (a)) : (a)))
#define orli_v_add(a, b) ((a) + (b))
#define orli_v_sub(a, b) ((a) - (b))
#define orli_v_mul(a, b) ((a) * (b))
#define orli_v_div(a, b) ((a) / (b))
#define orli_v_min(a, b) ((a) < (b) ? (a) : (b))
#define orli_v_max(a, b) ((a) > (b) ? (a) : (b))
#define orli_v_less(a, b, yes, no) ((a) < (b) ? (yes) : (no))
#define orli_v_sum(a) (a)
#define orli_v_top(a) (a)
#define orli_i int32_t
#define orli_i_set1(a) (a)
#define orli_i_load(p) orli_int32_at(p)
#define orli_i_float(a) ((orl_real)(a))
static inline int32_t ORLI_K(i_dot)(int32_t sum, int32_t w, int32_t x) {
    int8_t a[4], b[4];
    memcpy(a, &w, sizeof a), memcpy(b, &x, sizeof b);
    return sum + (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3]);
}
static inline orli_v ORLI_K(v_bytes)(int8_t *p, orli_v a) {
    orli_v r = (orli_v)rint((double)a);
    *p = (int8_t)(r >= -127 && r <= 127 ? r : 0);
    return r;
}
#if ORLI_DOUBLE
#define orli_v_sqrt(a) sqrt(a)
#define orli_v_abs(a) fabs(a)
#define orli_v_sign(a, b) copysign(a, b)
#else
#define orli_v_sqrt(a) sqrtf(a)
#define orli_v_abs(a) fabsf(a)
#define orli_v_sign(a, b) copysignf(a, b)
#endif
#if ORLI_DOUBLE && defined(__FP_FAST_FMA)
#define orli_v_fma(a, b, c) __builtin_fma(a, b, c)
#elif !ORLI_DOUBLE && defined(__FP_FAST_FMAF)
#define orli_v_fma(a, b, c) __builtin_fmaf(a, b, c)
#else
#define orli_v_fma(a, b, c) ((a) * (b) + (c)) /* no instruction for it; a call would be far too slow */
#endif
#define orli_v_fnma(a, b, c) orli_v_fma(-(a), b, c)
#if !ORLI_DOUBLE
static inline orli_v ORLI_K(v_ldexp)(orli_v x, orli_v n) {
    int32_t whole = n >= -252.0f ? (int32_t)n : 0, half = whole / 2, bits[2]; /* 0 for NaN, which x is then */
    float power[2];
    bits[0] = (half + 127) * (1 << 23);
    bits[1] = (whole - half + 127) * (1 << 23);
    memcpy(power, bits, sizeof power);
    return x * power[0] * power[1];
}
static inline orli_v ORLI_K(v_split)(orli_v x, orli_v *e) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    *e = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7fffffu) | 0x3f800000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}
#endif

#elif ORLI_KERNEL_PASS == ORLI_PASS_AVX2

#define ORLI_K(name) orli_##name##_avx2
#define ORLI_W 8
#define ORLI_ROWS 6
#define orli_v __m256
#define orli_v_set1(a) _mm256_set1_ps(a)
#define orli_v_load(p) _mm256_loadu_ps(p)
#define orli_v_store(p, a) _mm256_storeu_ps(p, a)
#define orli_v_add(a, b) _mm256_add_ps(a, b)
#define orli_v_sub(a, b) _mm256_sub_ps(a, b)
#define orli_v_mul(a, b) _mm256_mul_ps(a, b)
#define orli_v_div(a, b) _mm256_div_ps(a, b)
#define orli_v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define orli_v_fnma(a, b, c) _mm256_fnmadd_ps(a, b, c)
#define orli_v_min(a, b) _mm256_min_ps(a, b)
#define orli_v_max(a, b) _mm256_max_ps(a, b)
#define orli_v_less(a, b, yes, no) _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define orli_v_sqrt(a) _mm256_sqrt_ps(a)
#define orli_v_abs(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define orli_v_sign(a, b) _mm256_or_ps(a, _mm256_and_ps(_mm256_set1_ps(-0.0f), b)) /* a ≥ 0 */

static inline orli_v ORLI_K(v_widen)(const uint16_t *p) {
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
#define orli_i __m256i
#define orli_i_set1(a) _mm256_set1_epi32(a)
#define orli_i_load(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define orli_i_float(a) _mm256_cvtepi32_ps(a)
static inline __m256i ORLI_K(i_dot)(__m256i sum, __m256i w, __m256i x) { /* |w|·(x with w's sign) */
    __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline orli_v ORLI_K(v_bytes)(int8_t *p, orli_v a) {
    __m256i whole = _mm256_cvtps_epi32(a);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
    return _mm256_add_ps(_mm256_cvtepi32_ps(whole), _mm256_sub_ps(a, a)); /* a − a: NaN, if a is not finite */
}
static inline __m256i ORLI_K(v_mask)(size_t n) { /* the first n lanes, n < 8 */
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - n));
}
static inline orli_v ORLI_K(v_load_n)(const float *p, size_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, ORLI_K(v_mask)(n));
}
static inline void ORLI_K(v_store_n)(float *p, size_t n, orli_v a) {
    if (n >= 8) _mm256_storeu_ps(p, a);
    else _mm256_maskstore_ps(p, ORLI_K(v_mask)(n), a);
}
static inline float ORLI_K(v_sum)(orli_v a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float ORLI_K(v_top)(orli_v a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline orli_v ORLI_K(v_ldexp)(orli_v x, orli_v n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
static inline orli_v ORLI_K(v_split)(orli_v x, orli_v *e) {
    __m256i bits = _mm256_castps_si256(x);
    *e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
    bits = _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff)), _mm256_set1_epi32(0x3f800000));
    return _mm256_castsi256_ps(bits);
}
/* Row l of four numbers and row l + 4 in the two halves. */
static inline __m256 ORLI_K(v_quads)(const float *x, size_t lane) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x)), _mm_loadu_ps(x + 4 * lane), 1);
}
#define orli_v_ziplo(a, b) _mm256_unpacklo_ps(a, b)
#define orli_v_ziphi(a, b) _mm256_unpackhi_ps(a, b)
#define orli_v_pairlo(a, b) _mm256_shuffle_ps(a, b, 0x44)
#define orli_v_pairhi(a, b) _mm256_shuffle_ps(a, b, 0xee)

#elif ORLI_KERNEL_PASS == ORLI_PASS_AVX512

#define ORLI_K(name) orli_##name##_avx512
#define ORLI_W 16
#define ORLI_ROWS 14
#define orli_v __m512
#define ORLI_ALL ((__mmask16)0xffff) /* some intrinsics are written with it since g++ 12 warns of their plain forms */
#define orli_v_set1(a) _mm512_set1_ps(a)
#define orli_v_load(p) _mm512_loadu_ps(p)
#define orli_v_store(p, a) _mm512_storeu_ps(p, a)
#define orli_v_add(a, b) _mm512_add_ps(a, b)
#define orli_v_sub(a, b) _mm512_sub_ps(a, b)
#define orli_v_mul(a, b) _mm512_mul_ps(a, b)
#define orli_v_div(a, b) _mm512_div_ps(a, b)
#define orli_v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define orli_v_fnma(a, b, c) _mm512_fnmadd_ps(a, b, c)
#define orli_v_min(a, b) _mm512_maskz_min_ps(ORLI_ALL, a, b)
#define orli_v_max(a, b) _mm512_maskz_max_ps(ORLI_ALL, a, b)
#define orli_v_less(a, b, yes, no) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes)
#define orli_v_sqrt(a) _mm512_maskz_sqrt_ps(ORLI_ALL, a)
#define orli_v_abs(a) _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a)
#define orli_v_sign(a, b) _mm512_or_ps(a, _mm512_and_ps(_mm512_set1_ps(-0.0f), b)) /* a ≥ 0 */

static inline orli_v ORLI_K(v_widen)(const uint16_t *p) {
    __m512i bits = _mm512_maskz_cvtepu16_epi32(ORLI_ALL, _mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(ORLI_ALL, bits, 16));
}
#define orli_i __m512i
#define orli_i_set1(a) _mm512_set1_epi32(a)
#define orli_i_load(p) _mm512_loadu_si512(p)
#define orli_i_float(a) _mm512_maskz_cvtepi32_ps(ORLI_ALL, a)
static inline __m512i ORLI_K(i_dot)(__m512i sum, __m512i w, __m512i x) { /* |w|·(x with w's sign) */
    __m512i signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
/* The instruction takes w as numbers without sign: w + 128 it is, for which sums begin at −128·Σx. Written as such,
 * since the set of this pass does not include it. */
#define ORLI_VNNI 1
static inline __m512i ORLI_K(i_dot_vnni)(__m512i sum, __m512i w, __m512i x) {
    w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}
static inline orli_v ORLI_K(v_bytes)(int8_t *p, orli_v a) {
    __m512i whole = _mm512_maskz_cvtps_epi32(ORLI_ALL, a);
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_maskz_cvtepi32_epi8(ORLI_ALL, whole));
    return _mm512_add_ps(orli_i_float(whole), _mm512_sub_ps(a, a)); /* a − a: NaN, if a is not finite */
}
static inline __mmask16 ORLI_K(v_mask)(size_t n) { return (__mmask16)((1u << n) - 1u); }
static inline orli_v ORLI_K(v_load_n)(const float *p, size_t n) {
    return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(ORLI_K(v_mask)(n), p);
}
static inline void ORLI_K(v_store_n)(float *p, size_t n, orli_v a) {
    if (n >= 16) _mm512_storeu_ps(p, a);
    else _mm512_mask_storeu_ps(p, ORLI_K(v_mask)(n), a);
}
#define orli_v_half(a, which) _mm512_maskz_extractf32x8_ps((__mmask8)0xff, a, which)
static inline float ORLI_K(v_sum)(orli_v a) {
    __m256 y = _mm256_add_ps(orli_v_half(a, 0), orli_v_half(a, 1));
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float ORLI_K(v_top)(orli_v a) {
    __m256 y = _mm256_max_ps(orli_v_half(a, 0), orli_v_half(a, 1));
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline orli_v ORLI_K(v_ldexp)(orli_v x, orli_v n) { return _mm512_maskz_scalef_ps(ORLI_ALL, x, n); }
static inline orli_v ORLI_K(v_split)(orli_v x, orli_v *e) {
    __m512i bits = _mm512_castps_si512(x), exponent = _mm512_maskz_srlv_epi32(ORLI_ALL, bits, _mm512_set1_epi32(23));
    *e = _mm512_maskz_cvtepi32_ps(ORLI_ALL, _mm512_sub_epi32(exponent, _mm512_set1_epi32(127)));
    bits = _mm512_or_si512(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff)), _mm512_set1_epi32(0x3f800000));
    return _mm512_castsi512_ps(bits);
}
/* Rows l, l + 4, l + 8, l + 12 of four numbers in the four quarters. */
static inline __m512 ORLI_K(v_quads)(const float *x, size_t lane) {
    __m512 a = _mm512_castps128_ps512(_mm_loadu_ps(x));
    a = _mm512_maskz_insertf32x4(ORLI_ALL, a, _mm_loadu_ps(x + 4 * lane), 1);
    a = _mm512_maskz_insertf32x4(ORLI_ALL, a, _mm_loadu_ps(x + 8 * lane), 2);
    return _mm512_maskz_insertf32x4(ORLI_ALL, a, _mm_loadu_ps(x + 12 * lane), 3);
}
#define orli_v_ziplo(a, b) _mm512_maskz_unpacklo_ps(ORLI_ALL, a, b)
#define orli_v_ziphi(a, b) _mm512_maskz_unpackhi_ps(ORLI_ALL, a, b)
#define orli_v_pairlo(a, b) _mm512_shuffle_ps(a, b, 0x44)
#define orli_v_pairhi(a, b) _mm512_shuffle_ps(a, b, 0xee)

#elif ORLI_KERNEL_PASS == ORLI_PASS_NEON

#define ORLI_K(name) orli_##name##_neon
#define ORLI_W 4
#define ORLI_ROWS 10 /* 12 would fit the 32 registers, but compilers load A far ahead and spill accumulators */
#define orli_v float32x4_t
#define orli_v_set1(a) vdupq_n_f32(a)
#define orli_v_load(p) vld1q_f32(p)
#define orli_v_store(p, a) vst1q_f32(p, a)
#define orli_v_add(a, b) vaddq_f32(a, b)
#define orli_v_sub(a, b) vsubq_f32(a, b)
#define orli_v_mul(a, b) vmulq_f32(a, b)
#define orli_v_div(a, b) vdivq_f32(a, b)
#define orli_v_fma(a, b, c) vfmaq_f32(c, a, b)
#define orli_v_fnma(a, b, c) vfmsq_f32(c, a, b)
#define orli_v_min(a, b) ORLI_K(v_min)(a, b)
#define orli_v_max(a, b) ORLI_K(v_max)(a, b)
#define orli_v_less(a, b, yes, no) vbslq_f32(vcltq_f32(a, b), yes, no)
#define orli_v_sqrt(a) vsqrtq_f32(a)
#define orli_v_abs(a) vabsq_f32(a)
#define orli_v_sign(a, b) vbslq_f32(vdupq_n_u32(0x80000000u), b, a) /* a ≥ 0 */

static inline orli_v ORLI_K(v_widen)(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
}
#define orli_i int32x4_t
#define orli_i_set1(a) vdupq_n_s32(a)
#define orli_i_load(p) vreinterpretq_s32_s8(vld1q_s8(p))
#define orli_i_float(a) vcvtq_f32_s32(a)
static inline int32x4_t ORLI_K(i_dot)(int32x4_t sum, int32x4_t w, int32x4_t x) {
    int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(x);
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}
static inline orli_v ORLI_K(v_bytes)(int8_t *p, orli_v a) {
    int32x4_t whole = vcvtnq_s32_f32(a);
    int16x4_t words = vqmovn_s32(whole);
    int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
    int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    memcpy(p, &four, sizeof four);
    return vaddq_f32(vcvtq_f32_s32(whole), vsubq_f32(a, a)); /* a − a: NaN, if a is not finite */
}
/* The instructions for these give NaN if either is NaN. */
static inline orli_v ORLI_K(v_min)(orli_v a, orli_v b) { return orli_v_less(a, b, a, b); }
static inline orli_v ORLI_K(v_max)(orli_v a, orli_v b) { return orli_v_less(b, a, a, b); }
static inline orli_v ORLI_K(v_load_n)(const float *p, size_t n) {
    float32x2_t low = vdup_n_f32(0.0f), high = low;
    if (n >= 4) return vld1q_f32(p);
    if (n >= 2) low = vld1_f32(p);
    if (n == 1) low = vld1_lane_f32(p, low, 0);
    if (n == 3) high = vld1_lane_f32(p + 2, high, 0);
    return vcombine_f32(low, high);
}
static inline void ORLI_K(v_store_n)(float *p, size_t n, orli_v a) {
    if (n >= 4) vst1q_f32(p, a);
    else if (n >= 2) vst1_f32(p, vget_low_f32(a));
    if (n == 1) vst1q_lane_f32(p, a, 0);
    if (n == 3) vst1q_lane_f32(p + 2, a, 2);
}
static inline float ORLI_K(v_sum)(orli_v a) {
    float32x2_t x = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(x, 0) + vget_lane_f32(x, 1);
}
static inline float ORLI_K(v_top)(orli_v a) {
    orli_v b = ORLI_K(v_max)(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(ORLI_K(v_max)(b, vextq_f32(b, b, 1)), 0);
}
static inline orli_v ORLI_K(v_ldexp)(orli_v x, orli_v n) {
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(x, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}
static inline orli_v ORLI_K(v_split)(orli_v x, orli_v *e) {
    int32x4_t bits = vreinterpretq_s32_f32(x);
    *e = vcvtq_f32_s32(vsubq_s32(vshrq_n_s32(bits, 23), vdupq_n_s32(127)));
    bits = vorrq_s32(vandq_s32(bits, vdupq_n_s32(0x7fffff)), vdupq_n_s32(0x3f800000));
    return vreinterpretq_f32_s32(bits);
}
static inline orli_v ORLI_K(v_quads)(const float *x, size_t lane) {
    (void)lane;
    return vld1q_f32(x);
}
#define orli_v_ziplo(a, b) vzip1q_f32(a, b)
#define orli_v_ziphi(a, b) vzip2q_f32(a, b)
#define orli_v_pairlo(a, b) vcombine_f32(vget_low_f32(a), vget_low_f32(b))
#define orli_v_pairhi(a, b) vcombine_f32(vget_high_f32(a), vget_high_f32(b))

#endif /* vocabulary */

#if ORLI_W > 1
#define orli_v_load_n(p, n) ORLI_K(v_load_n)(p, n)
#define orli_v_store_n(p, n, a) ORLI_K(v_store_n)(p, n, a)
#define orli_v_sum(a) ORLI_K(v_sum)(a)
#define orli_v_top(a) ORLI_K(v_top)(a)
#endif
#define orli_v_zero() orli_v_set1((orl_real)0)
#define orli_v_widen(p) ORLI_K(v_widen)(p) /* ORLI_W bf16 numbers, the upper halves of floats */
#if ORLI_W > 1
#define orli_v_singles(p) orli_v_load((const float *)(const void *)(p)) /* ORLI_W floats, in any build */
#else
#define orli_v_singles(p) ((orl_real)orli_single_at(p))
#endif
#define orli_c(x) orli_v_set1((orl_real)(x)) /* a constant in every lane */

/* ---- matrix products: the register tile ---------------------------------------------------------
 * The accumulators have names, p0 q0 p1 q1 …, because gcc keeps an array of them in memory. Row i
 * loads nothing but one number of A, broadcast; the strides of A are free, so that A may lie as it is,
 * copied row by row, or transposed. */

#define ORLI_TILE_ZERO(i) orli_v p##i = orli_v_zero(), q##i = orli_v_zero();
#define ORLI_TILE_LOAD(i) p##i = orli_v_load(c + i * c_row), q##i = orli_v_load(c + i * c_row + ORLI_W);
#define ORLI_TILE_STEP(i)                                                              \
    {                                                                                  \
        orli_v x = orli_v_set1(*(const orl_real *)(const void *)(at + i * row_bytes)); \
        p##i = orli_v_fma(x, u, p##i), q##i = orli_v_fma(x, v, q##i);                  \
    }
#define ORLI_TILE_FETCH(i) __builtin_prefetch(c + i * c_row, 1), __builtin_prefetch(c + i * c_row + ORLI_W, 1);
#define ORLI_TILE_PLUS(i)                                \
    p##i = orli_v_add(orli_v_load(c + i * c_row), p##i); \
    q##i = orli_v_add(orli_v_load(c + i * c_row + ORLI_W), q##i);
#define ORLI_TILE_STORE(i) orli_v_store(c + i * c_row, p##i), orli_v_store(c + i * c_row + ORLI_W, q##i);

#define ORLI_TILE_DEFINE(rows)                                                                             \
    static void ORLI_K(tile##rows)(size_t k, const orl_real *a, size_t a_row, size_t a_k, const orl_real *b0,    \
                                   const orl_real *b1, size_t b_k, orl_real *c, size_t c_row, int mode) {  \
        const char *at = (const char *)a;                                                                  \
        const size_t row_bytes = a_row * sizeof *a, step_bytes = a_k * sizeof *a;                          \
        ORLI_REPEAT##rows(ORLI_TILE_ZERO)                                                                  \
        (void)row_bytes;                                                                                   \
        if (mode == ORLI_CHAIN) { ORLI_REPEAT##rows(ORLI_TILE_LOAD) }                                      \
        else if (k > 32) { ORLI_REPEAT##rows(ORLI_TILE_FETCH) }                                            \
        for (; k; k--) {                                                                                   \
            orli_v u = orli_v_load(b0), v = orli_v_load(b1);                                               \
            ORLI_REPEAT##rows(ORLI_TILE_STEP)                                                              \
            at += step_bytes, b0 += b_k, b1 += b_k;                                                        \
        }                                                                                                  \
        if (mode == ORLI_ADD) { ORLI_REPEAT##rows(ORLI_TILE_PLUS) }                                        \
        ORLI_REPEAT##rows(ORLI_TILE_STORE)                                                                 \
    }

#define ORLI_REPEAT1(X) X(0)
#define ORLI_REPEAT2(X) ORLI_REPEAT1(X) X(1)
#define ORLI_REPEAT3(X) ORLI_REPEAT2(X) X(2)
#define ORLI_REPEAT4(X) ORLI_REPEAT3(X) X(3)
#define ORLI_REPEAT5(X) ORLI_REPEAT4(X) X(4)
#define ORLI_REPEAT6(X) ORLI_REPEAT5(X) X(5)
#define ORLI_REPEAT7(X) ORLI_REPEAT6(X) X(6)
#define ORLI_REPEAT8(X) ORLI_REPEAT7(X) X(7)
#define ORLI_REPEAT9(X) ORLI_REPEAT8(X) X(8)
#define ORLI_REPEAT10(X) ORLI_REPEAT9(X) X(9)
#define ORLI_REPEAT11(X) ORLI_REPEAT10(X) X(10)
#define ORLI_REPEAT12(X) ORLI_REPEAT11(X) X(11)
#define ORLI_REPEAT13(X) ORLI_REPEAT12(X) X(12)
#define ORLI_REPEAT14(X) ORLI_REPEAT13(X) X(13)

ORLI_TILE_DEFINE(1)
ORLI_TILE_DEFINE(2)
ORLI_TILE_DEFINE(3)
ORLI_TILE_DEFINE(4)
#if ORLI_ROWS > 4
ORLI_TILE_DEFINE(5)
ORLI_TILE_DEFINE(6)
#endif
#if ORLI_ROWS > 6
ORLI_TILE_DEFINE(7)
ORLI_TILE_DEFINE(8)
ORLI_TILE_DEFINE(9)
ORLI_TILE_DEFINE(10)
#endif
#if ORLI_ROWS > 10
ORLI_TILE_DEFINE(11)
ORLI_TILE_DEFINE(12)
ORLI_TILE_DEFINE(13)
ORLI_TILE_DEFINE(14)
#endif

static const orli_tile_fn ORLI_K(tiles)[ORLI_ROWS + 1] = {
    NULL, ORLI_K(tile1), ORLI_K(tile2), ORLI_K(tile3), ORLI_K(tile4),
#if ORLI_ROWS > 4
    ORLI_K(tile5), ORLI_K(tile6),
#endif
#if ORLI_ROWS > 6
    ORLI_K(tile7), ORLI_K(tile8), ORLI_K(tile9), ORLI_K(tile10),
#endif
#if ORLI_ROWS > 10
    ORLI_K(tile11), ORLI_K(tile12), ORLI_K(tile13), ORLI_K(tile14),
#endif
};

static void ORLI_K(tile)(size_t rows, size_t cols, size_t k, const orl_real *a, size_t a_row, size_t a_k,
                         const orl_real *b0, const orl_real *b1, size_t b_k, orl_real *c, size_t c_row, int mode) {
    orl_real whole[ORLI_ROWS * 2 * ORLI_W]; /* a narrow tile is computed here, in full width */
    size_t i, j;
    if (cols == 2 * ORLI_W) {
        ORLI_K(tiles)[rows](k, a, a_row, a_k, b0, b1, b_k, c, c_row, mode);
        return;
    }
    for (i = 0; mode == ORLI_CHAIN && i < rows; i++)
        for (j = 0; j < 2 * ORLI_W; j += ORLI_W)
            orli_v_store(whole + i * 2 * ORLI_W + j, orli_v_load_n(c + i * c_row + j, cols - ORLI_MIN(cols, j)));
    ORLI_K(tiles)[rows](k, a, a_row, a_k, b0, b1, b_k, whole, 2 * ORLI_W, mode == ORLI_CHAIN ? ORLI_CHAIN : ORLI_SET);
    for (i = 0; i < rows; i++)
        for (j = 0; j < cols; j += ORLI_W) {
            orli_v sum = orli_v_load(whole + i * 2 * ORLI_W + j);
            if (mode == ORLI_ADD) sum = orli_v_add(orli_v_load_n(c + i * c_row + j, cols - j), sum);
            orli_v_store_n(c + i * c_row + j, cols - j, sum);
        }
}

/* One row alone has two chains, and waits for each step of them; four tiles side by side have eight. */
#define ORLI_THIN_STEP(i)                                               \
    p##i = orli_v_fma(x, orli_v_load(panel + i * stride), p##i);        \
    q##i = orli_v_fma(x, orli_v_load(panel + i * stride + ORLI_W), q##i);
static void ORLI_K(thin_tile)(size_t k, const orl_real *a, size_t a_k, const orl_real *panel, size_t stride, size_t b_k,
                              orl_real *c, int mode) {
    const size_t c_row = 2 * ORLI_W; /* tile i is “row” i of c */
    ORLI_REPEAT4(ORLI_TILE_ZERO)
    for (; k; k--, a += a_k, panel += b_k) {
        orli_v x = orli_v_set1(*a);
        ORLI_REPEAT4(ORLI_THIN_STEP)
    }
    if (mode == ORLI_ADD) { ORLI_REPEAT4(ORLI_TILE_PLUS) }
    ORLI_REPEAT4(ORLI_TILE_STORE)
}
#define ORLI_HALF_STEP(i)                                                \
    p##i = orli_v_fma(x, orli_v_widen(panel + i * stride), p##i);        \
    q##i = orli_v_fma(x, orli_v_widen(panel + i * stride + ORLI_W), q##i);
static void ORLI_K(thin_half)(size_t k, const orl_real *a, size_t a_k, const uint16_t *panel, size_t stride, size_t b_k,
                              orl_real *c, int mode) {
    const size_t c_row = 2 * ORLI_W;
    ORLI_REPEAT4(ORLI_TILE_ZERO)
    for (; k; k--, a += a_k, panel += b_k) {
        orli_v x = orli_v_set1(*a);
        ORLI_REPEAT4(ORLI_HALF_STEP)
    }
    if (mode == ORLI_ADD) { ORLI_REPEAT4(ORLI_TILE_PLUS) }
    ORLI_REPEAT4(ORLI_TILE_STORE)
}

/* ---- int8 -----------------------------------------------------------------------------------------
 * y = x·Wᵀ with both as bytes: a row of either is cut into groups of 64 numbers, a group has the scale max|x|/127 and
 * integers round(x/scale) in −127 … 127. Sums of products within a group are exact; groups are added as floats.
 *   a quantised row of x, for each group:  its scale (float), −128·Σ of its integers (int32), and the integers;
 *   a panel of W, 32 of its rows, for each group of k:  32 scales (float), then 32 × 4 bytes for each four of k.
 * What lacks to four at the end of k is 0. All instruction sets read the same layout. */

static void ORLI_K(quantise)(size_t k, const orl_real *x, int8_t *row) { /* may write 15 bytes too many */
    while (k) {
        const size_t n = ORLI_MIN(k, ORLI_INT8_GROUP);
        orli_v most = orli_v_zero(), sum = most;
        orl_real top, total;
        float scale;
        int32_t bias;
        size_t i;
        for (i = 0; i < n; i += ORLI_W) most = orli_v_max(orli_v_abs(orli_v_load_n(x + i, n - i)), most);
        top = orli_v_top(most);
        most = orli_v_set1(top > (orl_real)1e-30 ? 127 / top : 0);
        for (i = 0; i < n; i += ORLI_W)
            sum = orli_v_add(sum, ORLI_K(v_bytes)(row + 8 + i, orli_v_mul(orli_v_load_n(x + i, n - i), most)));
        for (i = n; i % 4; i++) row[8 + i] = 0;
        total = orli_v_sum(sum);
        scale = (float)(top / 127 + (total - total)); /* NaN, if any x is not finite */
        bias = total - total == 0 ? -128 * (int32_t)total : 0;
        memcpy(row, &scale, sizeof scale), memcpy(row + 4, &bias, sizeof bias);
        row += 8 + orli_round_up(n, 4), x += n, k -= n;
    }
}

/* The register tile: sum (rows, 2·ORLI_W) += quantised rows · k rows of these columns of a panel. vnni: `dot` takes w
 * as w + 128, which the sums' beginning makes up for. */
#define ORLI_INT8_NAMES(i) orli_i p##i = orli_i_set1(0), q##i = p##i;
#define ORLI_INT8_BIAS(i) p##i = q##i = orli_i_set1(orli_int32_at(head + i * row_bytes + 4));
#define ORLI_INT8_STEP(i)                                             \
    {                                                                 \
        orli_i x = orli_i_set1(orli_int32_at(a + i * row_bytes));     \
        p##i = dot(p##i, u, x), q##i = dot(q##i, v, x);               \
    }
#define ORLI_INT8_SCALE(i)                                                                       \
    {                                                                                            \
        orli_v f = orli_v_set1((orl_real)orli_single_at(head + i * row_bytes));                  \
        orl_real *to = sum + i * 2 * ORLI_W;                                                     \
        orli_v_store(to, orli_v_fma(orli_i_float(p##i), orli_v_mul(f, s), orli_v_load(to)));     \
        to += ORLI_W;                                                                            \
        orli_v_store(to, orli_v_fma(orli_i_float(q##i), orli_v_mul(f, t), orli_v_load(to)));     \
    }
#define ORLI_INT8_DEFINE(name, rows, vnni)                                                                     \
    static void ORLI_K(name##rows)(size_t k, const int8_t *a, size_t row_bytes, const int8_t *panel,           \
                                   orl_real *sum) {                                                            \
        size_t n, quads;                                                                                       \
        for (; k; k -= n) {                                                                                    \
            const int8_t *head = a;                                                                            \
            const orli_v s = orli_v_singles(panel), t = orli_v_singles(panel + 4 * ORLI_W);                    \
            ORLI_REPEAT##rows(ORLI_INT8_NAMES)                                                                 \
            if (vnni) { ORLI_REPEAT##rows(ORLI_INT8_BIAS) }                                                    \
            n = ORLI_MIN(k, ORLI_INT8_GROUP);                                                                  \
            a += 8, panel += 4 * ORLI_INT8_COLS;                                                               \
            for (quads = (n + 3) / 4; quads; quads--, a += 4, panel += 4 * ORLI_INT8_COLS) {                   \
                const orli_i u = orli_i_load(panel), v = orli_i_load(panel + 4 * ORLI_W);                      \
                ORLI_REPEAT##rows(ORLI_INT8_STEP)                                                              \
            }                                                                                                  \
            ORLI_REPEAT##rows(ORLI_INT8_SCALE)                                                                 \
        }                                                                                                      \
    }

#if ORLI_ROWS >= ORLI_INT8_ROWS
#define ORLI_INT8_TALL(X, name, vnni) X(name, 8, vnni) X(name, 12, vnni)
#define ORLI_INT8_TALL_NAMES(name) ORLI_K(name##8), NULL, NULL, NULL, ORLI_K(name##12)
#else
#define ORLI_INT8_TALL(X, name, vnni)
#define ORLI_INT8_TALL_NAMES(name) NULL
#endif
/* The tiles of some heights, and the kernel of any. */
#define ORLI_INT8_KERNEL(name, vnni)                                                                             \
    ORLI_INT8_DEFINE(name, 1, vnni) ORLI_INT8_DEFINE(name, 2, vnni) ORLI_INT8_DEFINE(name, 4, vnni)              \
    ORLI_INT8_TALL(ORLI_INT8_DEFINE, name, vnni)                                                                 \
    static void ORLI_K(name)(size_t rows, size_t cols, size_t k, const int8_t *a, size_t row_bytes,              \
                             const int8_t *panel, orl_real *c, size_t c_row, int mode) {                         \
        static const orli_int8_fn tiles[ORLI_INT8_ROWS + 1] = {                                                  \
            NULL, ORLI_K(name##1), ORLI_K(name##2), NULL, ORLI_K(name##4), NULL, NULL, NULL,                     \
            ORLI_INT8_TALL_NAMES(name)};                                                                         \
        orl_real sum[ORLI_INT8_ROWS * 2 * ORLI_W];                                                               \
        size_t i, j, l, r;                                                                                       \
        for (j = 0; j < cols; j += 2 * ORLI_W)                                                                   \
            for (i = 0; i < rows; i += r) {                                                                      \
                for (r = ORLI_MIN(rows - i, (size_t)ORLI_INT8_ROWS); !tiles[r]; r--) {}                          \
                memset(sum, 0, r * 2 * ORLI_W * sizeof *sum);                                                    \
                tiles[r](k, a + i * row_bytes, row_bytes, panel + 4 * j, sum);                                   \
                for (l = 0; l < r * 2 * ORLI_W; l += ORLI_W) {                                                   \
                    const size_t at = j + l % (2 * ORLI_W), n = cols - ORLI_MIN(cols, at);                       \
                    orl_real *to = c + (i + l / (2 * ORLI_W)) * c_row + at;                                      \
                    orli_v x = orli_v_load(sum + l);                                                             \
                    if (mode == ORLI_ADD) x = orli_v_add(orli_v_load_n(to, n), x);                               \
                    orli_v_store_n(to, n, x);                                                                    \
                }                                                                                                \
            }                                                                                                    \
    }

#define dot ORLI_K(i_dot)
ORLI_INT8_KERNEL(int8_tile, 0)
#undef dot
#ifdef ORLI_VNNI
#define dot ORLI_K(i_dot_vnni)
ORLI_INT8_KERNEL(int8_vnni, 1)
#undef dot
#undef ORLI_VNNI
#define ORLI_INT8_VNNI ORLI_K(int8_vnni)
#else
#define ORLI_INT8_VNNI NULL
#endif

/* Brings a strip of up to ORLI_W lanes into the order the tile reads: one vector for each step of k. */
static void ORLI_K(pack)(size_t count, size_t k, const orl_real *x, size_t lane, size_t next, orl_real *panel,
                         size_t step) {
    size_t p = 0, l;
    if (lane == 1 || count == 0) {
        for (; p < k; p++) orli_v_store(panel + p * step, orli_v_load_n(x + p * next, count));
        return;
    }
#if ORLI_W > 1
    /* lanes lie in different rows: 4 × 4 blocks are transposed within each quarter of the vector */
    for (; next == 1 && count == ORLI_W && p + 4 <= k; p += 4) {
        orli_v a = ORLI_K(v_quads)(x + p, lane), b = ORLI_K(v_quads)(x + lane + p, lane);
        orli_v c = ORLI_K(v_quads)(x + 2 * lane + p, lane), d = ORLI_K(v_quads)(x + 3 * lane + p, lane);
        orli_v ab = orli_v_ziplo(a, b), cd = orli_v_ziplo(c, d);
        orli_v_store(panel + p * step, orli_v_pairlo(ab, cd));
        orli_v_store(panel + (p + 1) * step, orli_v_pairhi(ab, cd));
        ab = orli_v_ziphi(a, b), cd = orli_v_ziphi(c, d);
        orli_v_store(panel + (p + 2) * step, orli_v_pairlo(ab, cd));
        orli_v_store(panel + (p + 3) * step, orli_v_pairhi(ab, cd));
    }
#endif
    for (; p < k; p++)
        for (l = 0; l < ORLI_W; l++) panel[p * step + l] = l < count ? x[l * lane + p * next] : (orl_real)0;
}

/* ---- exp, tanh, log, Φ ---------------------------------------------------------------------------
 * Polynomials of S. L. Moshier's Cephes library (expf, tanhf, logf, ndtrf) on reduced arguments; at most 4 ulp
 * of error, of Φ(x) 16 (and x²/2 more where the scalar kernels have no fused multiply-add), checked over the whole
 * range. In double precision these are libm's. */

#if ORLI_DOUBLE
#define orli_v_exp(x) exp(x)
#define orli_v_tanh(x) tanh(x)
#define orli_v_log(x) log(x)
#define orli_v_normal_cdf(x) (0.5 * erfc((x) / -1.4142135623730951))
#else
#define orli_v_normal_cdf(x) ORLI_K(v_normal_cdf)(x)
#define orli_v_exp(x) ORLI_K(v_exp)(x)
#define orli_v_tanh(x) ORLI_K(v_tanh)(x)
#define orli_v_log(x) ORLI_K(v_log)(x)

/* e^x = 2^n·e^r, n = round(x / log 2), |r| ≤ log(2)/2; log 2 in two parts, the first of few bits. */
static inline orli_v ORLI_K(v_exp)(orli_v x) {
    const orli_v shift = orli_c(12582912.0f); /* 1.5·2^23: adding it rounds to an integer */
    orli_v n, r, y;
    x = orli_v_max(orli_c(-104.0f), orli_v_min(orli_c(89.0f), x)); /* beyond: 0 and ∞. NaN stays. */
    n = orli_v_sub(orli_v_fma(x, orli_c(1.44269504088896341f), shift), shift);
    r = orli_v_fnma(n, orli_c(0.693359375f), x);
    r = orli_v_fnma(n, orli_c(-2.12194440e-4f), r);
    y = orli_v_fma(orli_c(1.9875691500e-4f), r, orli_c(1.3981999507e-3f));
    y = orli_v_fma(y, r, orli_c(8.3334519073e-3f));
    y = orli_v_fma(y, r, orli_c(4.1665795894e-2f));
    y = orli_v_fma(y, r, orli_c(1.6666665459e-1f));
    y = orli_v_fma(y, r, orli_c(5.0000001201e-1f));
    y = orli_v_add(orli_v_fma(y, orli_v_mul(r, r), r), orli_c(1.0f));
    return ORLI_K(v_ldexp)(y, n);
}

/* A polynomial near 0, where 1 − 2/(e^2|x| + 1) would cancel. */
static inline orli_v ORLI_K(v_tanh)(orli_v x) {
    orli_v a = orli_v_abs(x), z = orli_v_mul(x, x), near, far;
    near = orli_v_fma(orli_c(-5.70498872745e-3f), z, orli_c(2.06390887954e-2f));
    near = orli_v_fma(near, z, orli_c(-5.37397155531e-2f));
    near = orli_v_fma(near, z, orli_c(1.33314422036e-1f));
    near = orli_v_fma(near, z, orli_c(-3.33332819422e-1f));
    near = orli_v_fma(orli_v_mul(near, z), x, x);
    far = orli_v_add(orli_v_exp(orli_v_add(a, a)), orli_c(1.0f));
    far = orli_v_sign(orli_v_sub(orli_c(1.0f), orli_v_div(orli_c(2.0f), far)), x);
    return orli_v_less(a, orli_c(0.625f), near, far);
}

/* log x = e·log 2 + log(1 + m), √½ ≤ 1 + m < √2. */
static inline orli_v ORLI_K(v_log)(orli_v x) {
    const orli_v zero = orli_v_zero(), one = orli_c(1.0f), infinity = orli_c(INFINITY), tiny = orli_c(1.17549435e-38f);
    orli_v e, m, z, y;
    m = ORLI_K(v_split)(orli_v_less(x, tiny, orli_v_mul(x, orli_c(33554432.0f)), x), &e);
    e = orli_v_less(x, tiny, orli_v_sub(e, orli_c(25.0f)), e); /* a denormal number was taken times 2^25 */
    e = orli_v_less(orli_c(1.41421356f), m, orli_v_add(e, one), e);
    m = orli_v_sub(orli_v_less(orli_c(1.41421356f), m, orli_v_mul(m, orli_c(0.5f)), m), one);
    z = orli_v_mul(m, m);
    y = orli_v_fma(orli_c(7.0376836292e-2f), m, orli_c(-1.1514610310e-1f));
    y = orli_v_fma(y, m, orli_c(1.1676998740e-1f));
    y = orli_v_fma(y, m, orli_c(-1.2420140846e-1f));
    y = orli_v_fma(y, m, orli_c(1.4249322787e-1f));
    y = orli_v_fma(y, m, orli_c(-1.6668057665e-1f));
    y = orli_v_fma(y, m, orli_c(2.0000714765e-1f));
    y = orli_v_fma(y, m, orli_c(-2.4999993993e-1f));
    y = orli_v_fma(y, m, orli_c(3.3333331174e-1f));
    y = orli_v_fma(e, orli_c(-2.12194440e-4f), orli_v_mul(orli_v_mul(y, m), z));
    y = orli_v_add(m, orli_v_fnma(z, orli_c(0.5f), y));
    y = orli_v_fma(e, orli_c(0.693359375f), y);
    y = orli_v_less(zero, x, y, orli_v_less(x, zero, orli_c(NAN), orli_c(-INFINITY)));
    return orli_v_less(x, infinity, y, x); /* ∞ and NaN are their own logarithms */
}

/* The normal distribution's Φ(x) = ½(1 + erf a), a = x/√2: near 0 from erf's polynomial, else from ½·erfc|a| =
 * e^(−a²)·Q(1/a²)/|a|, one Q below |a| = 2 and another above. */
static inline orli_v ORLI_K(v_normal_cdf)(orli_v x) {
    static const float erf[7] = {7.853861353e-5f, -8.010193625e-4f, 5.188327686e-3f, -2.685381193e-2f,
                                 1.128358515e-1f, -3.761262582e-1f, 1.128379165f};
    static const float middle[9] = {2.326819970e-2f, -1.387039389e-1f, 3.687424675e-1f,
                                    -5.824733027e-1f, 6.210004622e-1f, -4.944515323e-1f,
                                    3.404879938e-1f, -2.741127028e-1f, 5.638259427e-1f};
    static const float outer[8] = {-1.047766400e1f, 1.297719955e1f, -7.495518718f, 2.921019019f,
                                   -1.015265279f, 4.218463358e-1f, -2.820767440e-1f, 5.641895068e-1f};
    const orli_v half = orli_c(0.5f), one = orli_c(1.0f), two = orli_c(2.0f);
    orli_v a = orli_v_mul(x, orli_c(0.707106781186547524f)), size = orli_v_abs(a), halved = orli_v_mul(x, half);
    orli_v square = orli_v_mul(halved, x), rest = orli_v_fma(halved, x, orli_v_sub(orli_v_zero(), square));
    orli_v inverse = orli_v_div(one, orli_v_max(one, size)), z = orli_v_mul(inverse, inverse);
    orli_v near = orli_v_set1(erf[0]), tail = orli_v_set1(middle[0]), far = orli_v_set1(outer[0]);
    size_t i;
    for (i = 1; i < 7; i++) near = orli_v_fma(near, square, orli_v_set1(erf[i]));
    for (i = 1; i < 9; i++) tail = orli_v_fma(tail, z, orli_v_set1(middle[i]));
    for (i = 1; i < 8; i++) far = orli_v_fma(far, z, orli_v_set1(outer[i]));
    near = orli_v_fma(orli_v_mul(near, half), a, half);
    far = orli_v_mul(inverse, orli_v_less(size, two, tail, far));
    far = orli_v_mul(orli_v_mul(half, orli_v_exp(orli_v_sub(orli_v_zero(), square))), far);
    tail = orli_v_fnma(far, rest, far); /* e^−(square + rest) */
    tail = orli_v_less(a, orli_v_zero(), tail, orli_v_sub(one, tail));
    return orli_v_less(size, one, near, tail);
}
#endif

/* σ(x) = 1 / (1 + e^−x) */
static inline orli_v ORLI_K(v_sigmoid)(orli_v x) {
    return orli_v_div(orli_c(1.0f), orli_v_add(orli_c(1.0f), orli_v_exp(orli_v_sub(orli_v_zero(), x))));
}

/* ---- elementwise --------------------------------------------------------------------------------- */

#define ORLI_EACH(i, n) for (i = 0; i < (n); i += ORLI_W)
#define ORLI_GET(x) orli_v_load_n((x) + i, n - i) /* within ORLI_EACH(i, n) */
#define ORLI_PUT(y, value) orli_v_store_n((y) + i, n - i, value)

static void ORLI_K(widen)(size_t n, orl_real *y, const uint16_t *x) {
    uint16_t rest[ORLI_W] = {0};
    size_t i;
    for (i = 0; n - i >= ORLI_W; i += ORLI_W) orli_v_store(y + i, orli_v_widen(x + i));
    memcpy(rest, x + i, (n - i) * sizeof *rest);
    orli_v_store_n(y + i, n - i, orli_v_widen(rest));
}
static void ORLI_K(add)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_add(ORLI_GET(y), ORLI_GET(x)));
}
static void ORLI_K(axpy)(size_t n, orl_real *y, orl_real a, const orl_real *x) {
    const orli_v factor = orli_v_set1(a);
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_fma(factor, ORLI_GET(x), ORLI_GET(y)));
}
static void ORLI_K(scale)(size_t n, orl_real *y, orl_real a) {
    const orli_v factor = orli_v_set1(a);
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_mul(factor, ORLI_GET(y)));
}
static void ORLI_K(mul)(size_t n, orl_real *y, const orl_real *a, const orl_real *b) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_mul(ORLI_GET(a), ORLI_GET(b)));
}
static void ORLI_K(exp)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_exp(ORLI_GET(x)));
}
static void ORLI_K(tanh)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_tanh(ORLI_GET(x)));
}
static void ORLI_K(log)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_log(ORLI_GET(x)));
}

/* ½x(1 + tanh u) = x·σ(2u), u = √(2/π)·(x + 0.044715x³). This is 2u. */
static inline orli_v ORLI_K(v_gelu_inner)(orli_v x) {
    orli_v x2 = orli_v_mul(x, x);
    return orli_v_mul(orli_v_mul(orli_c(1.5957691216057308), x), orli_v_fma(orli_c(0.044715), x2, orli_c(1.0)));
}
static void ORLI_K(gelu)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v a = ORLI_GET(x);
        ORLI_PUT(y, orli_v_mul(a, ORLI_K(v_sigmoid)(ORLI_K(v_gelu_inner)(a))));
    }
}
/* d/dx x·σ(z) = σ + x·σ(1 − σ)·z', z' = 2√(2/π)·(1 + 3·0.044715x²); s = σ(z) */
static inline orli_v ORLI_K(v_gelu_slope)(orli_v x, orli_v s) {
    orli_v slope = orli_v_fma(orli_c(0.2140644488178007), orli_v_mul(x, x), orli_c(1.5957691216057308));
    return orli_v_add(s, orli_v_mul(orli_v_mul(x, slope), orli_v_fnma(s, s, s)));
}
static void ORLI_K(gelu_backward)(size_t n, orl_real *dx, const orl_real *x, const orl_real *dy) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v a = ORLI_GET(x), s = ORLI_K(v_sigmoid)(ORLI_K(v_gelu_inner)(a));
        ORLI_PUT(dx, orli_v_fma(ORLI_GET(dy), ORLI_K(v_gelu_slope)(a, s), ORLI_GET(dx)));
    }
}

/* x·Φ(x); its slope is Φ + x·φ, φ = e^(−x²/2)/√(2π)  (Hendrycks and Gimpel 2016, without the tanh) */
static void ORLI_K(gelu_erf)(size_t n, orl_real *y, const orl_real *x) {
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_mul(ORLI_GET(x), orli_v_normal_cdf(ORLI_GET(x))));
}
static void ORLI_K(gelu_erf_backward)(size_t n, orl_real *dx, const orl_real *x, const orl_real *dy) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v a = ORLI_GET(x), density = orli_v_exp(orli_v_mul(orli_c(-0.5), orli_v_mul(a, a)));
        orli_v slope = orli_v_fma(orli_v_mul(orli_c(0.3989422804014327), a), density, orli_v_normal_cdf(a));
        ORLI_PUT(dx, orli_v_fma(ORLI_GET(dy), slope, ORLI_GET(dx)));
    }
}

static void ORLI_K(swiglu)(size_t n, orl_real *y, const orl_real *gate, const orl_real *up) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v g = ORLI_GET(gate);
        ORLI_PUT(y, orli_v_mul(orli_v_mul(g, ORLI_K(v_sigmoid)(g)), ORLI_GET(up)));
    }
}
/* d silu(g) = σ + g·σ(1 − σ) */
static void ORLI_K(swiglu_backward)(size_t n, orl_real *dgate, orl_real *dup, const orl_real *gate,
                                    const orl_real *up, const orl_real *dy) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v g = ORLI_GET(gate), s = ORLI_K(v_sigmoid)(g), d = ORLI_GET(dy);
        orli_v slope = orli_v_fma(g, orli_v_fnma(s, s, s), s);
        if (dup) ORLI_PUT(dup, orli_v_fma(d, orli_v_mul(g, s), ORLI_GET(dup)));
        if (dgate) ORLI_PUT(dgate, orli_v_fma(orli_v_mul(d, ORLI_GET(up)), slope, ORLI_GET(dgate)));
    }
}

static void ORLI_K(geglu)(size_t n, orl_real *y, const orl_real *gate, const orl_real *up) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v g = ORLI_GET(gate);
        ORLI_PUT(y, orli_v_mul(orli_v_mul(g, ORLI_K(v_sigmoid)(ORLI_K(v_gelu_inner)(g))), ORLI_GET(up)));
    }
}
static void ORLI_K(geglu_backward)(size_t n, orl_real *dgate, orl_real *dup, const orl_real *gate,
                                   const orl_real *up, const orl_real *dy) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v g = ORLI_GET(gate), s = ORLI_K(v_sigmoid)(ORLI_K(v_gelu_inner)(g)), d = ORLI_GET(dy);
        orli_v slope = ORLI_K(v_gelu_slope)(g, s);
        if (dup) ORLI_PUT(dup, orli_v_fma(d, orli_v_mul(g, s), ORLI_GET(dup)));
        if (dgate) ORLI_PUT(dgate, orli_v_fma(orli_v_mul(d, ORLI_GET(up)), slope, ORLI_GET(dgate)));
    }
}

static void ORLI_K(rope)(size_t n, orl_real *x, const orl_real *cosine, const orl_real *sine) {
    size_t i;
    ORLI_EACH(i, n) {
        orli_v a = ORLI_GET(x), b = ORLI_GET(x + n), c = ORLI_GET(cosine), s = ORLI_GET(sine);
        ORLI_PUT(x, orli_v_fnma(b, s, orli_v_mul(a, c)));
        ORLI_PUT(x + n, orli_v_fma(a, s, orli_v_mul(b, c)));
    }
}

/* Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2. */
static void ORLI_K(adamw)(size_t n, orl_real *w, const orl_real *g, orl_real *m, orl_real *v, const orli_adamw *p) {
    const orli_v beta1 = orli_v_set1(p->beta1), rest1 = orli_v_set1((orl_real)1 - p->beta1),
                 scale = orli_v_set1(p->grad_scale);
    const orli_v beta2 = orli_v_set1(p->beta2), rest2 = orli_v_set1((orl_real)1 - p->beta2), eps = orli_v_set1(p->eps);
    const orli_v c1 = orli_v_set1(p->correction1), c2 = orli_v_set1(p->correction2);
    const orli_v lr = orli_v_set1(p->lr), decay = orli_v_set1(p->decay);
    size_t i;
    ORLI_EACH(i, n) {
        orli_v a = orli_v_mul(ORLI_GET(g), scale), weight = ORLI_GET(w), step;
        orli_v first = orli_v_fma(beta1, ORLI_GET(m), orli_v_mul(rest1, a));
        orli_v second = orli_v_fma(beta2, ORLI_GET(v), orli_v_mul(orli_v_mul(rest2, a), a));
        step = orli_v_div(orli_v_div(first, c1), orli_v_add(orli_v_sqrt(orli_v_div(second, c2)), eps));
        ORLI_PUT(m, first);
        ORLI_PUT(v, second);
        ORLI_PUT(w, orli_v_fnma(lr, orli_v_fma(decay, weight, step), weight));
    }
}

/* ---- reductions: four accumulators, then the lanes ------------------------------------------------ */

static orl_real ORLI_K(dot)(size_t n, const orl_real *a, const orl_real *b) {
    orli_v s = orli_v_zero(), t = s, u = s, v = s;
    size_t i = 0;
    for (; n - i >= 4 * ORLI_W; i += 4 * ORLI_W) {
        s = orli_v_fma(orli_v_load(a + i), orli_v_load(b + i), s);
        t = orli_v_fma(orli_v_load(a + i + ORLI_W), orli_v_load(b + i + ORLI_W), t);
        u = orli_v_fma(orli_v_load(a + i + 2 * ORLI_W), orli_v_load(b + i + 2 * ORLI_W), u);
        v = orli_v_fma(orli_v_load(a + i + 3 * ORLI_W), orli_v_load(b + i + 3 * ORLI_W), v);
    }
    for (; i < n; i += ORLI_W) s = orli_v_fma(ORLI_GET(a), ORLI_GET(b), s);
    return orli_v_sum(orli_v_add(orli_v_add(s, t), orli_v_add(u, v)));
}

static orl_real ORLI_K(sum)(size_t n, const orl_real *x) {
    orli_v s = orli_v_zero(), t = s, u = s, v = s;
    size_t i = 0;
    for (; n - i >= 4 * ORLI_W; i += 4 * ORLI_W) {
        s = orli_v_add(s, orli_v_load(x + i));
        t = orli_v_add(t, orli_v_load(x + i + ORLI_W));
        u = orli_v_add(u, orli_v_load(x + i + 2 * ORLI_W));
        v = orli_v_add(v, orli_v_load(x + i + 3 * ORLI_W));
    }
    for (; i < n; i += ORLI_W) s = orli_v_add(s, ORLI_GET(x));
    return orli_v_sum(orli_v_add(orli_v_add(s, t), orli_v_add(u, v)));
}

static orl_real ORLI_K(max)(size_t n, const orl_real *x) {
    orl_real top = (orl_real)-INFINITY;
    size_t i = 0;
    if (n >= ORLI_W) {
        orli_v s = orli_v_load(x), t = s;
        for (i = ORLI_W; n - i >= 2 * ORLI_W; i += 2 * ORLI_W) {
            s = orli_v_max(s, orli_v_load(x + i));
            t = orli_v_max(t, orli_v_load(x + i + ORLI_W));
        }
        for (; n - i >= ORLI_W; i += ORLI_W) s = orli_v_max(s, orli_v_load(x + i));
        top = orli_v_top(orli_v_max(s, t));
    }
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

static double ORLI_K(sum_squares)(size_t n, const orl_real *x) {
    double s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    size_t i, j;
    for (i = 0; n - i >= 8; i += 8)
        for (j = 0; j < 8; j++) s[j] += (double)x[i + j] * (double)x[i + j]; /* exact products of floats */
    for (; i < n; i++) s[0] += (double)x[i] * (double)x[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

static orl_real ORLI_K(sum_exp)(size_t n, orl_real *y, const orl_real *x, orl_real shift, orl_real scale) {
    const orli_v c = orli_v_set1(shift), f = orli_v_set1(scale);
    orli_v total = orli_v_zero();
    orl_real rest[ORLI_W];
    size_t i = 0, tail = n % ORLI_W;
    for (; n - i >= ORLI_W; i += ORLI_W) {
        orli_v e = orli_v_exp(orli_v_mul(orli_v_sub(orli_v_load(x + i), c), f));
        if (y) orli_v_store(y + i, e);
        total = orli_v_add(total, e);
    }
    if (tail) { /* lanes past the end must count as 0, not as e^(−shift·scale) */
        orli_v_store(rest, orli_v_exp(orli_v_mul(orli_v_sub(ORLI_GET(x), c), f)));
        if (y) memcpy(y + i, rest, tail * sizeof *rest);
        total = orli_v_add(total, orli_v_load_n(rest, tail));
    }
    return orli_v_sum(total);
}

static orl_real ORLI_K(log1)(orl_real x) {
    ORLI_K(log)(1, &x, &x);
    return x;
}

static orl_real ORLI_K(softmax_row)(size_t n, orl_real *y, const orl_real *x) {
    orl_real top = ORLI_K(max)(n, x), total = ORLI_K(sum_exp)(n, y, x, top, 1);
    ORLI_K(scale)(n, y, (orl_real)1 / total);
    return top + ORLI_K(log1)(total);
}
static orl_real ORLI_K(log_sum_exp)(size_t n, const orl_real *x) {
    orl_real top = ORLI_K(max)(n, x);
    return n ? top + ORLI_K(log1)(ORLI_K(sum_exp)(n, NULL, x, top, 1)) : top;
}

/* ---- normalisation --------------------------------------------------------------------------------- */

/* y = x̂·w + b, x̂ = (x − mean)·rstd, rstd = 1/√(variance + eps)  (Ba et al. 2016) */
static void ORLI_K(layernorm)(size_t n, const orl_real *x, const orl_real *w, const orl_real *b, orl_real eps,
                              orl_real *y, orl_real *mean, orl_real *rstd) {
    orl_real m = ORLI_K(sum)(n, x) / (orl_real)n, r;
    const orli_v centre = orli_v_set1(m);
    orli_v factor;
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_sub(ORLI_GET(x), centre));
    r = (orl_real)1 / (orl_real)sqrt((double)(ORLI_K(dot)(n, y, y) / (orl_real)n + eps));
    factor = orli_v_set1(r);
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_fma(orli_v_mul(ORLI_GET(y), factor), ORLI_GET(w), ORLI_GET(b)));
    *mean = m;
    *rstd = r;
}

/* dx = rstd·(g − mean(g) − x̂·mean(g ⊙ x̂)), g = dy ⊙ w;  dw = dy ⊙ x̂;  db = dy.
 * LayerNorm and, with mean 0 and no mean(g), RMSNorm. */
static void ORLI_K(norm_backward)(size_t n, const orl_real *x, const orl_real *w, const orl_real *dy, orl_real mean,
                                  orl_real rstd, orl_real *dx, orl_real *dw, orl_real *db, int centred) {
    const orli_v centre = orli_v_set1(mean), factor = orli_v_set1(rstd);
    orli_v sum_g = orli_v_zero(), sum_gx = sum_g, mean_g = sum_g, mean_gx;
    size_t i;
    ORLI_EACH(i, n) {
        orli_v h = orli_v_mul(orli_v_sub(ORLI_GET(x), centre), factor), d = ORLI_GET(dy),
               g = orli_v_mul(d, ORLI_GET(w));
        sum_g = orli_v_add(sum_g, g);
        sum_gx = orli_v_fma(g, h, sum_gx);
        if (dw) ORLI_PUT(dw, orli_v_fma(d, h, ORLI_GET(dw)));
        if (db) ORLI_PUT(db, orli_v_add(ORLI_GET(db), d));
    }
    if (!dx) return;
    if (centred) mean_g = orli_v_set1(orli_v_sum(sum_g) / (orl_real)n);
    mean_gx = orli_v_set1(orli_v_sum(sum_gx) / (orl_real)n);
    ORLI_EACH(i, n) {
        orli_v h = orli_v_mul(orli_v_sub(ORLI_GET(x), centre), factor), g = orli_v_mul(ORLI_GET(dy), ORLI_GET(w));
        g = orli_v_fnma(h, mean_gx, orli_v_sub(g, mean_g));
        ORLI_PUT(dx, orli_v_fma(g, factor, ORLI_GET(dx)));
    }
}
static void ORLI_K(layernorm_backward)(size_t n, const orl_real *x, const orl_real *w, const orl_real *dy,
                                       orl_real mean, orl_real rstd, orl_real *dx, orl_real *dw, orl_real *db) {
    ORLI_K(norm_backward)(n, x, w, dy, mean, rstd, dx, dw, db, 1);
}

/* y = x·rstd·w, rstd = 1/√(mean(x²) + eps)  (Zhang & Sennrich 2019) */
static void ORLI_K(rmsnorm)(size_t n, const orl_real *x, const orl_real *w, orl_real eps, orl_real *y, orl_real *rstd) {
    orl_real r = (orl_real)1 / (orl_real)sqrt((double)(ORLI_K(dot)(n, x, x) / (orl_real)n + eps));
    const orli_v factor = orli_v_set1(r);
    size_t i;
    ORLI_EACH(i, n) ORLI_PUT(y, orli_v_mul(orli_v_mul(ORLI_GET(x), factor), ORLI_GET(w)));
    *rstd = r;
}
static void ORLI_K(rmsnorm_backward)(size_t n, const orl_real *x, const orl_real *w, const orl_real *dy, orl_real rstd,
                                     orl_real *dx, orl_real *dw) {
    ORLI_K(norm_backward)(n, x, w, dy, (orl_real)0, rstd, dx, dw, NULL, 0);
}

/* ---- attention -------------------------------------------------------------------------------------
 * S = scale·Q·Kᵀ, P = softmax of the visible part, O = P·V  (Vaswani et al. 2017, eq. 1). A block of
 * queries at a time, as many as a register tile has rows. A row's arithmetic is its own: scores are
 * chains over d; the maximum is exact; the sum runs over whole tiles with 0 for what is not
 * visible; the chain over positions has the visible ones and zeros, which change nothing. So a query has the
 * same bits whatever stands in its block, and a decoded token those of training. */

/* The visible positions of the query at position p are first … p. */
#define ORLI_FIRST(p, window) ((p) + 1 > (window) ? (p) + 1 - (window) : 0)

/* S (rows, positions of tiles t0 … t1−1) = A (rows, d)·tiles (d, 16): lanes run over positions. */
static void ORLI_K(tile_scores)(size_t d, size_t rows, const orl_real *a, size_t a_row, const orl_real *const *tile,
                                size_t t0, size_t t1, orl_real *s, size_t s_row) {
    size_t p, last = ORLI_TILE * t1 - ORLI_W; /* the last vector of positions */
    for (p = ORLI_TILE * t0; p <= last; p += 2 * ORLI_W) {
        size_t next = ORLI_MIN(p + ORLI_W, last); /* the second half repeats the first if the tiles are odd */
        ORLI_K(tiles)[rows](d, a, a_row, 1, tile[p / ORLI_TILE] + p % ORLI_TILE,
                            tile[next / ORLI_TILE] + next % ORLI_TILE, ORLI_TILE, s + (p - ORLI_TILE * t0), s_row,
                            ORLI_SET);
    }
}

/* C (m, n) from A (m, k) and a small B (k, n) that lies as it is; pad: (k, 2·ORLI_W), for n's tail. */
static void ORLI_K(product)(size_t m, size_t n, size_t k, const orl_real *a, size_t a_row, size_t a_k,
                            const orl_real *b, size_t b_k, orl_real *c, size_t c_row, int mode, orl_real *pad) {
    size_t i, j, rows;
    for (j = 0; j < n; j += 2 * ORLI_W) {
        size_t cols = ORLI_MIN(n - j, (size_t)2 * ORLI_W), step = b_k;
        const orl_real *strip = b + j;
        if (cols < 2 * ORLI_W) {
            ORLI_K(pack)(ORLI_MIN(cols, (size_t)ORLI_W), k, b + j, 1, b_k, pad, 2 * ORLI_W);
            ORLI_K(pack)(cols > ORLI_W ? cols - ORLI_W : 0, k, b + j + ORLI_MIN(cols, (size_t)ORLI_W), 1, b_k,
                         pad + ORLI_W, 2 * ORLI_W);
            strip = pad;
            step = 2 * ORLI_W;
        }
        for (i = 0; i < m; i += rows) {
            const size_t tiles = (m - i + ORLI_ROWS - 1) / ORLI_ROWS; /* of about equal height: a thin one is slow */
            rows = (m - i + tiles - 1) / tiles;
            ORLI_K(tile)(rows, cols, k, a + i * a_row, a_row, a_k, strip, strip + ORLI_W, step, c + i * c_row + j,
                         c_row, mode);
        }
    }
}

#define ORLI_PAD_ROWS 64 /* rows of `pad` */

/* C (rows, d) goes on with P (rows, positions low … high−1)·V; p points at position 16·t0 of its rows. Tiles
 * that lie one after the other in memory are one longer chain. */
static void ORLI_K(tile_values)(size_t d, size_t rows, const orl_real *p, size_t p_row, size_t t0, size_t low,
                                size_t high, const orl_real *const *vtile, orl_real *c, size_t c_row, orl_real *pad) {
    while (low < high) {
        size_t t = low / ORLI_TILE, end = (t + 1) * ORLI_TILE;
        while (end < high && end - low <= ORLI_PAD_ROWS - ORLI_TILE &&
               vtile[end / ORLI_TILE] == vtile[t] + (end - t * ORLI_TILE) * d)
            end += ORLI_TILE;
        end = ORLI_MIN(high, end);
        ORLI_K(product)(rows, d, end - low, p + (low - t0 * ORLI_TILE), p_row, 1, vtile[t] + (low - t * ORLI_TILE) * d,
                        d, c, c_row, ORLI_CHAIN, pad);
        low = end;
    }
}

/* One row of `row` scores, s[0] being position `base`, becomes e^(s − max), 0 where it is not visible. */
static orl_real ORLI_K(softmax_visible)(orl_real *s, size_t row, size_t base, size_t first, size_t position,
                                        orl_real *top) {
    size_t begin = first / ORLI_TILE * ORLI_TILE - base, end = (position / ORLI_TILE + 1) * ORLI_TILE - base, n;
    for (n = begin; n < first - base; n++) s[n] = (orl_real)-INFINITY;
    for (n = position + 1 - base; n < end; n++) s[n] = (orl_real)-INFINITY;
    memset(s, 0, begin * sizeof *s);
    memset(s + end, 0, (row - end) * sizeof *s);
    *top = ORLI_K(max)(end - begin, s + begin);
    return ORLI_K(sum_exp)(end - begin, s + begin, s + begin, *top, 1);
}

static void ORLI_K(attention)(size_t d, size_t nq, const orl_real *q, size_t q_stride, size_t position0,
                              const orl_real *const *ktile, const orl_real *const *vtile, size_t window, orl_real scale,
                              orl_real *out, size_t out_stride, orl_real *lse, void *scratch) {
    orl_real *scaled = (orl_real *)scratch, *pad = scaled + ORLI_ROWS * d, *s = pad + ORLI_PAD_ROWS * 2 * ORLI_W;
    const size_t room = ORLI_SCRATCH / sizeof *s - (size_t)(s - scaled);
    orl_real total[ORLI_ROWS], log_total[ORLI_ROWS];
    size_t i0, i, rows, row;
    for (i0 = 0; i0 < nq; i0 += rows) {
        const size_t p0 = position0 + i0, t0 = ORLI_FIRST(p0, window) / ORLI_TILE;
        size_t low, high;
        orl_real *o = out + i0 * out_stride;
        rows = ORLI_MIN(nq - i0, (size_t)ORLI_ROWS); /* or as many as there is room for */
        while (row = ((p0 + rows - 1) / ORLI_TILE + 2 - t0) * ORLI_TILE, rows > 1 && row > room / rows) rows--;
        for (i = 0; i < rows; i++) {
            memcpy(scaled + i * d, q + (i0 + i) * q_stride, d * sizeof *q);
            ORLI_K(scale)(d, scaled + i * d, scale);
        }
        ORLI_K(tile_scores)(d, rows, scaled, d, ktile, t0, (p0 + rows - 1) / ORLI_TILE + 1, s, row);
        for (i = 0; i < rows; i++)
            total[i] = ORLI_K(softmax_visible)(s + i * row, row, t0 * ORLI_TILE, ORLI_FIRST(p0 + i, window), p0 + i,
                                               &lse[i0 + i]);
        ORLI_K(log)(rows, log_total, total);
        ORLI_K(add)(rows, lse + i0, log_total);
        /* what begins before the last row's window goes row by row; the rest through one
         * tile, a row's future being 0 */
        high = p0 + rows;
        low = ORLI_MIN(ORLI_FIRST(p0 + rows - 1, window), p0 + 1);
        for (i = 0; i < rows; i++) {
            memset(o + i * out_stride, 0, d * sizeof *o);
            ORLI_K(tile_values)(d, 1, s + i * row, row, t0, ORLI_FIRST(p0 + i, window), low, vtile, o + i * out_stride,
                                0, pad);
        }
        ORLI_K(tile_values)(d, rows, s, row, t0, low, high, vtile, o, out_stride, pad);
        for (i = 0; i < rows; i++) ORLI_K(scale)(d, o + i * out_stride, (orl_real)1 / total[i]);
    }
}

/* Backward, with D_i = Σ dO_i ⊙ O_i (Dao et al. 2022, algorithm 4):
 *   dV = Pᵀ·dO   dS = P ⊙ (dO·Vᵀ − D)   dQ = scale·dS·K   dK = dSᵀ·(scale·Q)
 * P is computed again from the scores and lse, for blocks of 64 queries and two tiles of positions. */

#define ORLI_BACK_ROWS 64
#define ORLI_BACK_COLS (2 * ORLI_TILE)

typedef struct ORLI_K(back) { /* buffers of a block; r: its rows */
    orl_real *q, *dq;         /* (r, d): scale·Q; dQ/scale, summed over the tiles */
    orl_real *p, *ds;         /* (r, 32): P; dO·Vᵀ and then dS */
    orl_real *vt, *dk;        /* (d, 32): Vᵀ; dK */
    orl_real *kt;             /* (32, kt_row): Kᵀ of a d-major tile, so rows of keys */
    orl_real *pad, d_sum[ORLI_BACK_ROWS];
    size_t kt_row;
} ORLI_K(back);

/* P and dS of one row from its scores and dO·Vᵀ; the visible positions are low … high−1 of the 32. */
static void ORLI_K(back_row)(orl_real *p, orl_real *ds, size_t low, size_t high, orl_real lse, orl_real d_sum) {
    size_t i;
    for (i = 0; i < ORLI_BACK_COLS; i++)
        if (i < low || i >= high) p[i] = (orl_real)-INFINITY, ds[i] = d_sum; /* P = 0, dS = 0·0 */
    ORLI_K(sum_exp)(ORLI_BACK_COLS, p, p, lse, 1);
    ORLI_EACH(i, ORLI_BACK_COLS)
        orli_v_store(ds + i, orli_v_mul(orli_v_load(p + i), orli_v_sub(orli_v_load(ds + i), orli_v_set1(d_sum))));
}

/* Fills vt and kt from `tiles` tiles; positions from `count` on, which may be anything, become 0. */
static void ORLI_K(back_tiles)(size_t d, const ORLI_K(back) *b, const orl_real *const *ktile,
                               const orl_real *const *vtile, size_t tiles, size_t count) {
    size_t t, i;
    for (t = 0; t < tiles; t++) {
        for (i = 0; i < ORLI_TILE; i += ORLI_W) { /* lanes: positions */
            size_t at = t * ORLI_TILE + i;
            ORLI_K(pack)(at < count ? ORLI_MIN(count - at, (size_t)ORLI_W) : 0, d, vtile[t] + i * d, d, 1, b->vt + at,
                         ORLI_BACK_COLS);
        }
        for (i = 0; i < d; i += ORLI_W) /* lanes: d */
            ORLI_K(pack)(ORLI_MIN(d - i, (size_t)ORLI_W), ORLI_TILE, ktile[t] + i * ORLI_TILE, ORLI_TILE, 1,
                         b->kt + t * ORLI_TILE * b->kt_row + i, b->kt_row);
    }
    for (i = tiles * ORLI_TILE; i < ORLI_BACK_COLS; i += ORLI_W)
        ORLI_K(pack)(0, d, b->vt, 1, 0, b->vt + i, ORLI_BACK_COLS);
    memset(b->kt + count * b->kt_row, 0, (ORLI_BACK_COLS - count) * b->kt_row * sizeof *b->kt);
}

static void ORLI_K(attention_backward)(size_t d, size_t nq, const orl_real *q, size_t q_stride, size_t position0,
                                       const orl_real *const *ktile, const orl_real *const *vtile, size_t window,
                                       orl_real scale, const orl_real *out, size_t out_stride, const orl_real *dout,
                                       size_t dout_stride, const orl_real *lse, orl_real *dq, size_t dq_stride,
                                       orl_real *const *dktile, orl_real *const *dvtile, void *scratch) {
    ORLI_K(back) b;
    size_t i0, i, j, t, rows;
    b.kt_row = orli_round_up(d, ORLI_W);
    b.q = (orl_real *)scratch, b.dq = b.q + ORLI_BACK_ROWS * d;
    b.p = b.dq + ORLI_BACK_ROWS * d, b.ds = b.p + ORLI_BACK_ROWS * ORLI_BACK_COLS;
    b.vt = b.ds + ORLI_BACK_ROWS * ORLI_BACK_COLS, b.dk = b.vt + d * ORLI_BACK_COLS;
    b.kt = b.dk + d * ORLI_BACK_COLS, b.pad = b.kt + ORLI_BACK_COLS * b.kt_row;
    for (i0 = 0; i0 < nq; i0 += rows) {
        const size_t p0 = position0 + i0, first_seen = ORLI_FIRST(p0, window);
        const orl_real *dO = dout + i0 * dout_stride;
        rows = ORLI_MIN(nq - i0, (size_t)ORLI_BACK_ROWS);
        for (i = 0; i < rows; i++) {
            memcpy(b.q + i * d, q + (i0 + i) * q_stride, d * sizeof *q);
            ORLI_K(scale)(d, b.q + i * d, scale);
            b.d_sum[i] = ORLI_K(dot)(d, dO + i * dout_stride, out + (i0 + i) * out_stride);
        }
        memset(b.dq, 0, rows * d * sizeof *b.dq);
        for (t = first_seen / ORLI_TILE; t * ORLI_TILE < p0 + rows; t += 2) {
            const size_t base = t * ORLI_TILE, count = ORLI_MIN(p0 + rows - base, (size_t)ORLI_BACK_COLS);
            const size_t tiles = (count - 1) / ORLI_TILE + 1, start = ORLI_MAX(base, first_seen) - base;
            /* rows that see none of these positions; the others */
            const size_t past = ORLI_MAX(base, p0) - p0, left = rows - past;
            orl_real *p = b.p + past * ORLI_BACK_COLS, *ds = b.ds + past * ORLI_BACK_COLS;
            ORLI_K(back_tiles)(d, &b, ktile + t, vtile + t, tiles, count);
            for (i = 0; i < left; i += ORLI_ROWS)
                ORLI_K(tile_scores)(d, ORLI_MIN(left - i, (size_t)ORLI_ROWS), b.q + (past + i) * d, d, ktile, t,
                                    t + tiles, p + i * ORLI_BACK_COLS, ORLI_BACK_COLS);
            ORLI_K(product)(left, ORLI_BACK_COLS, d, dO + past * dout_stride, dout_stride, 1, b.vt, ORLI_BACK_COLS, ds,
                            ORLI_BACK_COLS, ORLI_SET, b.pad);
            for (i = past; i < rows; i++) {
                size_t low = ORLI_MAX(ORLI_FIRST(p0 + i, window), base) - base;
                size_t high = ORLI_MIN(ORLI_MAX(p0 + i + 1, base) - base, (size_t)ORLI_BACK_COLS);
                ORLI_K(back_row)(b.p + i * ORLI_BACK_COLS, b.ds + i * ORLI_BACK_COLS, low, high, lse[i0 + i],
                                 b.d_sum[i]);
            }
            ORLI_K(product)(left, d, ORLI_BACK_COLS, ds, ORLI_BACK_COLS, 1, b.kt, b.kt_row, b.dq + past * d, d,
                            ORLI_ADD, b.pad);
            ORLI_K(product)(d, ORLI_BACK_COLS, left, b.q + past * d, 1, d, ds, ORLI_BACK_COLS, b.dk, ORLI_BACK_COLS,
                            ORLI_SET, b.pad);
            for (i = 0; i < tiles; i++) { /* into the tiles, at positions from … to−1 of each */
                size_t from = start > i * ORLI_TILE ? ORLI_MIN(start - i * ORLI_TILE, (size_t)ORLI_TILE) : 0;
                size_t to = ORLI_MIN(count - i * ORLI_TILE, (size_t)ORLI_TILE);
                if (from >= to) continue;
                for (j = 0; j < d; j++)
                    ORLI_K(add)(to - from, dktile[t + i] + j * ORLI_TILE + from,
                                b.dk + j * ORLI_BACK_COLS + i * ORLI_TILE + from);
                ORLI_K(product)(to - from, d, left, p + i * ORLI_TILE + from, 1, ORLI_BACK_COLS,
                                dO + past * dout_stride, dout_stride, dvtile[t + i] + from * d, d, ORLI_ADD, b.pad);
            }
        }
        for (i = 0; i < rows; i++) ORLI_K(axpy)(d, dq + (i0 + i) * dq_stride, scale, b.dq + i * d);
    }
}

static const orli_kernels ORLI_K(kernels) = {
    ORLI_KERNEL_NAME, ORLI_W, ORLI_ROWS, 2 * ORLI_W, ORLI_K(tile), ORLI_K(thin_tile), ORLI_K(thin_half),
    ORLI_K(pack), ORLI_K(quantise), ORLI_K(int8_tile), ORLI_INT8_VNNI, ORLI_K(widen), ORLI_K(add), ORLI_K(axpy),
    ORLI_K(scale), ORLI_K(mul), ORLI_K(dot), ORLI_K(sum), ORLI_K(max), ORLI_K(sum_squares),
    ORLI_K(exp), ORLI_K(tanh), ORLI_K(log), ORLI_K(sum_exp), ORLI_K(softmax_row), ORLI_K(log_sum_exp),
    ORLI_K(layernorm), ORLI_K(layernorm_backward), ORLI_K(rmsnorm), ORLI_K(rmsnorm_backward),
    ORLI_K(gelu), ORLI_K(gelu_backward), ORLI_K(gelu_erf), ORLI_K(gelu_erf_backward),
    ORLI_K(swiglu), ORLI_K(swiglu_backward), ORLI_K(geglu), ORLI_K(geglu_backward), ORLI_K(rope), ORLI_K(adamw),
    ORLI_K(attention), ORLI_K(attention_backward)
};

/* the names are free again for the next pass */
#undef ORLI_K
#undef ORLI_W
#undef ORLI_ROWS
#undef orli_v
#undef ORLI_ALL
#undef orli_v_half
#undef orli_v_set1
#undef orli_v_load
#undef orli_v_load_n
#undef orli_v_widen
#undef orli_v_singles
#undef orli_i
#undef orli_i_set1
#undef orli_i_load
#undef orli_i_float
#undef ORLI_INT8_TALL
#undef ORLI_INT8_TALL_NAMES
#undef ORLI_INT8_VNNI
#undef orli_v_store
#undef orli_v_store_n
#undef orli_v_add
#undef orli_v_sub
#undef orli_v_mul
#undef orli_v_div
#undef orli_v_fma
#undef orli_v_fnma
#undef orli_v_min
#undef orli_v_max
#undef orli_v_less
#undef orli_v_sqrt
#undef orli_v_abs
#undef orli_v_sign
#undef orli_v_sum
#undef orli_v_top
#undef orli_v_ziplo
#undef orli_v_ziphi
#undef orli_v_pairlo
#undef orli_v_pairhi

#endif /* ORLI_KERNEL_PASS */

/* ---- second half of the implementation: the passes, then what is compiled once ---- */

#if defined(OFFLINE_RLHF_IMPLEMENTATION) && !defined(ORLI_KERNELS_INSTANTIATED)
#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 6
#define ORLI_KERNELS_INSTANTIATED

#define ORLI_KERNEL_PASS ORLI_PASS_SCALAR
#define ORLI_KERNEL_NAME "scalar"
#include ORL_HEADER
#undef ORLI_KERNEL_NAME
#undef ORLI_KERNEL_PASS

#if ORLI_X86 && !ORLI_DOUBLE

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ORLI_KERNEL_PASS ORLI_PASS_AVX2
#define ORLI_KERNEL_NAME "avx2"
#include ORL_HEADER
#undef ORLI_KERNEL_NAME
#undef ORLI_KERNEL_PASS
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#pragma GCC diagnostic push /* gcc's own intrinsics warn where they are used: of lanes left undefined … */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wsign-conversion" /* … and, without optimisation, of a mask of −1 */
#endif
#define ORLI_KERNEL_PASS ORLI_PASS_AVX512
#define ORLI_KERNEL_NAME "avx512"
#include ORL_HEADER
#undef ORLI_KERNEL_NAME
#undef ORLI_KERNEL_PASS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif

#elif ORLI_NEON && !ORLI_DOUBLE /* every AArch64 compiler may use it as it is */

#define ORLI_KERNEL_PASS ORLI_PASS_NEON
#define ORLI_KERNEL_NAME "neon"
#include ORL_HEADER
#undef ORLI_KERNEL_NAME
#undef ORLI_KERNEL_PASS

#endif /* ORLI_X86, ORLI_NEON */

/* ---- choosing an instruction set ---- */

static const orli_kernels *orli_kernels_of(orli_isa isa) { /* NULL if it is not compiled in */
    if (isa == ORLI_ISA_SCALAR) return &orli_kernels_scalar;
#if ORLI_X86 && !ORLI_DOUBLE
    if (isa == ORLI_ISA_AVX2) return &orli_kernels_avx2;
    if (isa == ORLI_ISA_AVX512) return &orli_kernels_avx512;
#elif ORLI_NEON && !ORLI_DOUBLE
    if (isa == ORLI_ISA_NEON) return &orli_kernels_neon;
#endif
    return NULL;
}

/* By name, or the best there is if name is NULL. */
static const orli_kernels *orli_kernels_select(orl_ctx *ctx, const char *name) {
    char there[64] = "";
    int isa;
    for (isa = (int)orli_isa_detect(); isa >= 0; isa--) {
        const orli_kernels *kern = orli_kernels_of((orli_isa)isa);
        if (!kern) continue;
        if (!name || strcmp(name, kern->name) == 0) return kern;
        snprintf(there + strlen(there), sizeof there - strlen(there), "%s%s", there[0] ? ", " : "", kern->name);
    }
    orli_fail(ctx, ORL_ERR_ARGUMENT, "isa \"%.32s\" is not available: choose among %s, or none for the best", name,
              there);
    return NULL;
}

/* ---- matrix products: the driver -------------------------------------------------------------------
 * C is worked through in blocks of k. Of each, a block of B packed into panels of tile_cols columns stays in the
 * second-level cache while the row tiles of A pass by it; a row tile stays in the first level while it meets each
 * panel, and its successor is fetched meanwhile. A panel is (k, tile_cols), one row for each step of k. Row tiles are
 * copied when the first block of B meets them and kept for the others: rows of A far apart would fight for the same
 * cache sets. Panels packed beforehand hold the whole k and are used in place. */

#define ORLI_GEMM_ROW (ORLI_GEMM_K + 16)         /* from one row of a copied row tile to the next */
#define ORLI_GEMM_SLOT (ORLI_TILE * ORLI_GEMM_ROW) /* numbers of scratch for a row tile */
#define ORLI_GEMM_B (ORLI_SCRATCH / 6 / sizeof(orl_real)) /* … for a block of B; the rest is for row tiles */
#define ORLI_GEMM_SLOTS (ORLI_SCRATCH / sizeof(orl_real) - ORLI_GEMM_B) / ORLI_GEMM_SLOT
#define ORLI_PACK_ROWS 8          /* of a matrix that are read side by side, while the next are fetched */
#define ORLI_PACK_TILES 8         /* row tiles of a transposed A that are copied side by side */
#define ORLI_GEMM_SERIAL 300000.0 /* FLOPs not worth a second thread */

typedef struct orli_gemm_job {
    const orli_kernels *kern;
    orl_ctx *ctx;
    size_t m, n, k;
    orli_mat a, b;
    const orl_real *panels; /* B packed by orli_pack, or NULL … */
    const uint16_t *halves; /* … or by orli_pack_halves */
    orl_real *c;
    size_t ldc;
    int accumulate;
    size_t grid_m, grid_n;  /* tasks along m and n */
} orli_gemm_job;

static orli_mat orli_mat_of(const orl_real *data, size_t rs, size_t cs) {
    orli_mat m;
    m.data = data, m.half = NULL, m.rs = rs, m.cs = cs;
    return m;
}
/* The part of m that begins with element (i, j). */
static orli_mat orli_mat_at(orli_mat m, size_t i, size_t j) {
    if (m.half) m.half += i * m.rs + j * m.cs;
    else m.data += i * m.rs + j * m.cs;
    return m;
}

/* Where part `index` of `parts` of n things begins. */
static size_t orli_part(size_t n, size_t parts, size_t index) { return n / parts * index + ORLI_MIN(index, n % parts); }

/* Asks for `rows` rows of n numbers before they are read. */
static void orli_fetch(const orl_real *data, size_t stride, size_t rows, size_t n) {
    const size_t line = 64 / sizeof *data;
    size_t i, j;
    for (i = 0; i < rows; i++)
        for (j = 0; j < n + line - 1; j += line) __builtin_prefetch(data + i * stride + ORLI_MIN(j, n - 1));
}

/* `count` columns and k rows of bf16 numbers, widened and then packed as kern->pack does. */
static void orli_pack_half(const orli_kernels *kern, size_t count, size_t k, orli_mat b, orl_real *panel, size_t step) {
    orl_real strip[ORLI_TILE * ORLI_GEMM_K];
    const int rows = b.cs == 1; /* lie whole */
    const size_t lines = rows ? k : count, length = rows ? count : k;
    size_t i;
    for (i = 0; i < lines; i++) kern->widen(length, strip + i * length, b.half + i * (rows ? b.rs : b.cs));
    kern->pack(count, k, strip, rows ? 1 : length, rows ? length : 1, panel, step);
}

/* B (k, n) into panels, `stride` numbers from one to the next. If rows of B lie whole in memory a few of them are
 * read at a time, from end to end; if columns do, each strip is read from end to end. */
static void orli_pack_panels(const orli_kernels *kern, size_t n, size_t k, orli_mat b, orl_real *panels,
                             size_t stride) {
    const size_t w = kern->width, cols = kern->tile_cols;
    const size_t chunk = b.cs == 1 ? ORLI_PACK_ROWS : b.half ? ORLI_GEMM_K : k;
    size_t j, p, next;
    for (p = 0; p < k; p = next) {
        next = ORLI_MIN(p + chunk, k);
        if (!b.half) orli_fetch(b.data + next * b.rs, b.rs, ORLI_MIN(chunk, k - next), n);
        for (j = 0; j < orli_round_up(n, cols); j += w) {
            const size_t count = ORLI_MIN(n - ORLI_MIN(j, n), w);
            const orli_mat part = orli_mat_at(b, p, ORLI_MIN(j, n));
            orl_real *panel = panels + j / cols * stride + p * cols + j % cols;
            if (b.half) orli_pack_half(kern, count, next - p, part, panel, cols);
            else kern->pack(count, next - p, part.data, b.cs, b.rs, panel, cols);
        }
    }
}

/* Some rows of C, cut into row tiles of nearly the same size, at a block of k. */
typedef struct orli_gemm_rows {
    const orli_gemm_job *g;
    size_t begin, count, tiles; /* rows of A and C */
    size_t p, k;                /* steps p … p+k−1 */
    int copy;                   /* are row tiles copied to their slots? */
    orl_real *slots;
} orli_gemm_rows;

static size_t orli_gemm_row(const orli_gemm_rows *r, size_t tile) { return orli_part(r->count, r->tiles, tile); }

/* Row tile t as it lies in A, or where its copy is. Rows of A that lie whole are copied as rows, others as columns. */
static orli_mat orli_gemm_source(const orli_gemm_rows *r, size_t t) {
    orli_mat a = r->g->a;
    a.data += (r->begin + orli_gemm_row(r, t)) * a.rs + r->p * a.cs;
    return a;
}
/* From one step of k to the next in a slot of columns. They lie close, so that they take no more of the first level
 * than they must: a vector that is longer than they are writes over the next one's place before that is written. */
static size_t orli_gemm_step(const orli_kernels *kern) {
    return kern->width >= kern->tile_rows ? kern->tile_rows : orli_round_up(kern->tile_rows, kern->width);
}
static orli_mat orli_gemm_slot(const orli_gemm_rows *r, size_t t) {
    const orl_real *slot = r->slots + t * ORLI_GEMM_SLOT;
    return r->g->a.cs == 1 ? orli_mat_of(slot, ORLI_GEMM_ROW, 1) : orli_mat_of(slot, 1, orli_gemm_step(r->g->kern));
}

/* Copies a row tile whose rows lie whole. */
static void orli_gemm_copy_rows(const orli_gemm_rows *r, size_t t) {
    const orli_mat a = orli_gemm_source(r, t);
    const size_t rows = orli_gemm_row(r, t + 1) - orli_gemm_row(r, t);
    size_t i;
    for (i = 0; i < rows; i++)
        memcpy(r->slots + t * ORLI_GEMM_SLOT + i * ORLI_GEMM_ROW, a.data + i * a.rs, r->k * sizeof *a.data);
}

/* Copies tiles first … end−1 of a transposed A together, as what is whole in memory runs through all of them. */
static void orli_gemm_copy_columns(const orli_gemm_rows *r, size_t first, size_t end) {
    const size_t w = r->g->kern->width, step = orli_gemm_step(r->g->kern), row0 = orli_gemm_row(r, first);
    const orli_mat a = orli_gemm_source(r, first);
    size_t t, p, next, i;
    for (p = 0; p < r->k; p = next) {
        next = ORLI_MIN(p + ORLI_PACK_ROWS, r->k);
        orli_fetch(a.data + next * a.cs, a.cs, ORLI_MIN((size_t)ORLI_PACK_ROWS, r->k - next),
                   orli_gemm_row(r, end) - row0);
        for (t = first; t < end; t++) {
            orl_real *to = r->slots + t * ORLI_GEMM_SLOT + p * step;
            const size_t begin = orli_gemm_row(r, t) - row0, rows = orli_gemm_row(r, t + 1) - row0 - begin;
            for (i = 0; i < rows; i += w)
                r->g->kern->pack(ORLI_MIN(rows - i, w), next - p, a.data + (begin + i) * a.rs + p * a.cs, a.rs, a.cs,
                                 to + i, step);
        }
    }
}

/* Asks the second-level cache for share `step` of `steps` of what tile t is read from, while arithmetic goes on. */
static void orli_gemm_fetch(const orli_gemm_rows *r, size_t t, int copied, size_t step, size_t steps) {
    const size_t line = 64 / sizeof(orl_real);
    orli_mat a;
    size_t at, end, rows, n, row, x;
    if (t >= r->tiles || (!copied && r->g->a.cs != 1)) return;
    a = copied ? orli_gemm_slot(r, t) : orli_gemm_source(r, t);
    if (a.cs == 1) rows = orli_gemm_row(r, t + 1) - orli_gemm_row(r, t), n = (r->k + line - 1) / line + 1;
    else rows = 1, n = r->k * a.cs / line + 1;
    at = orli_part(rows * n, steps, step), end = orli_part(rows * n, steps, step + 1);
    row = at / n, x = at % n;
    for (; at < end; at++) {
        __builtin_prefetch(a.data + row * a.rs + x * line, 0, 2);
        if (++x == n) x = 0, row++;
    }
}

/* n columns of C from j on, from their panels: `stride` numbers from one to the next, `step` from one row of it to the
 * next. `first`: the rows meet a panel for the first time. */
static void orli_gemm_pass(const orli_gemm_rows *r, size_t j, size_t n, const orl_real *panels, size_t stride,
                           size_t step, int first) {
    const orli_gemm_job *g = r->g;
    const orli_kernels *kern = g->kern;
    const size_t cols = kern->tile_cols, count = (n + cols - 1) / cols;
    const int mode = r->p || g->accumulate ? ORLI_ADD : ORLI_SET, copy = r->copy && first;
    size_t t, x;
    for (t = 0; t < r->tiles; t++) {
        const size_t rows = orli_gemm_row(r, t + 1) - orli_gemm_row(r, t);
        orl_real *c = g->c + (r->begin + orli_gemm_row(r, t)) * g->ldc + j;
        orli_mat a = r->copy ? orli_gemm_slot(r, t) : orli_gemm_source(r, t);
        if (copy && g->a.cs == 1) orli_gemm_copy_rows(r, t);
        else if (copy && t % ORLI_PACK_TILES == 0)
            orli_gemm_copy_columns(r, t, ORLI_MIN(t + ORLI_PACK_TILES, r->tiles));
        for (x = 0; rows == 1 && x + 4 * cols <= n; x += 4 * cols)
            kern->thin_tile(r->k, a.data, a.cs, panels + x / cols * stride, stride, step, c + x, mode);
        for (; x < n; x += cols) {
            const orl_real *panel = panels + x / cols * stride;
            orli_gemm_fetch(r, t + 1, r->copy && !first, x / cols, count);
            kern->tile(rows, ORLI_MIN(cols, n - x), r->k, a.data, a.rs, a.cs, panel, panel + kern->width, step, c + x,
                       g->ldc, mode);
        }
    }
}

/* The same from panels of bf16 numbers, `stride` apart: one row of A meets them as they are; for more rows they are
 * widened first. */
static void orli_gemm_pass_halves(const orli_gemm_rows *r, size_t j, size_t n, const uint16_t *halves, size_t stride,
                                  orl_real *b_copy, int first) {
    const orli_gemm_job *g = r->g;
    const size_t cols = g->kern->tile_cols;
    const orli_mat a = orli_gemm_source(r, 0);
    size_t x = 0, wide;
    if (r->count == 1 && !r->copy)
        for (; x + 4 * cols <= n; x += 4 * cols)
            g->kern->thin_half(r->k, a.data, a.cs, halves + x / cols * stride, stride, cols,
                               g->c + r->begin * g->ldc + j + x, r->p || g->accumulate ? ORLI_ADD : ORLI_SET);
    for (wide = x; wide < n; wide += cols)
        g->kern->widen(r->k * cols, b_copy + (wide - x) * r->k, halves + wide / cols * stride);
    if (x < n) orli_gemm_pass(r, j + x, n - x, b_copy, r->k * cols, cols, first);
}

/* Do rows so far apart fight for the same sets of a first-level cache of 4 KB a way? */
static int orli_gemm_crowded(size_t stride) {
    const size_t apart = stride * sizeof(orl_real) % 4096;
    return ORLI_MIN(apart, 4096 - apart) < 4096 / ORLI_TILE;
}

/* Rows i0 … i1−1, columns j0 … j1−1 (j0 begins a panel) of C. */
static void orli_gemm_block(const orli_gemm_job *g, size_t i0, size_t i1, size_t j0, size_t j1, void *scratch) {
    const orli_kernels *kern = g->kern;
    const size_t cols = kern->tile_cols, k_blocks = (g->k + ORLI_GEMM_K - 1) / ORLI_GEMM_K;
    const size_t kc = g->k ? orli_round_up((g->k + k_blocks - 1) / k_blocks, 16) : 16;
    const size_t most = ORLI_GEMM_B / kc / cols * cols, j_blocks = j1 > j0 ? (j1 - j0 - 1) / most + 1 : 1;
    const size_t nc = orli_round_up((j1 - j0 + j_blocks - 1) / j_blocks, cols);
    const size_t all = (i1 - i0 + kern->tile_rows - 1) / kern->tile_rows;
    const size_t chunks = (all + ORLI_GEMM_SLOTS - 1) / (ORLI_GEMM_SLOTS);
    orl_real *b_copy = (orl_real *)scratch;
    orli_gemm_rows r;
    size_t i, j, chunk;
    if (g->k == 0 && !g->accumulate)
        for (i = i0; i < i1; i++) memset(g->c + i * g->ldc + j0, 0, (j1 - j0) * sizeof *g->c);
    r.g = g;
    r.slots = b_copy + ORLI_GEMM_B;
    for (chunk = 0; chunk < chunks; chunk++) {
        const size_t tile = orli_part(all, chunks, chunk), end = orli_part(all, chunks, chunk + 1);
        r.begin = i0 + orli_part(i1 - i0, all, tile), r.count = i0 + orli_part(i1 - i0, all, end) - r.begin;
        r.tiles = end - tile;
        r.copy = (j1 - j0) > 2 * cols && (g->a.cs != 1 || (r.count > 4 && orli_gemm_crowded(g->a.rs)));
        for (r.p = 0; r.p < g->k; r.p += kc) {
            r.k = ORLI_MIN(kc, g->k - r.p);
            for (j = j0; j < j1; j += nc) {
                const size_t n = ORLI_MIN(nc, j1 - j);
                const orli_mat b = g->panels || g->halves ? g->b : orli_mat_at(g->b, r.p, j);
                if (g->halves) {
                    orli_gemm_pass_halves(&r, j, n, g->halves + j * g->k + r.p * cols, g->k * cols, b_copy, j == j0);
                } else if (g->panels) {
                    orli_gemm_pass(&r, j, n, g->panels + j * g->k + r.p * cols, g->k * cols, cols, j == j0);
                } else if (b.cs == 1 && !b.half && n % cols == 0 && all == 1) { /* used once: as it lies */
                    orli_gemm_pass(&r, j, n, b.data, cols, b.rs, j == j0);
                } else {
                    orli_pack_panels(kern, n, r.k, b, b_copy, r.k * cols);
                    orli_gemm_pass(&r, j, n, b_copy, r.k * cols, cols, j == j0);
                }
            }
        }
    }
}

static void orli_gemm_task(void *arg, size_t task, size_t worker) {
    const orli_gemm_job *g = (const orli_gemm_job *)arg;
    const size_t mi = task % g->grid_m, ni = task / g->grid_m, cols = g->kern->tile_cols,
                 panels = (g->n + cols - 1) / cols;
    const size_t j0 = orli_part(panels, g->grid_n, ni) * cols, j1 = orli_part(panels, g->grid_n, ni + 1) * cols;
    orli_gemm_block(g, orli_part(g->m, g->grid_m, mi), orli_part(g->m, g->grid_m, mi + 1), j0, ORLI_MIN(j1, g->n),
                    orli_scratch(g->ctx, worker));
}

#ifdef ORL_USE_BLIS
#if ORLI_DOUBLE
#define orli_blis_gemm bli_dgemm_ex
#define ORLI_BLIS_LEAST 3e5 /* FLOPs worth a call of BLIS: our kernels are scalar here */
#else
#define orli_blis_gemm bli_sgemm_ex
#define ORLI_BLIS_LEAST 1e7
#endif
#define ORLI_BLIS_BLOCK 384 /* most rows and columns of a task: smaller ones share the work better but pack more */

/* A block of C on one thread of BLIS. Without its kernels for small matrices, whose order of sums depends on where
 * an element stands. Its pointers to A and B are not const, but it only reads them. */
static void orli_blis_task(void *arg, size_t task, size_t worker) {
    const orli_gemm_job *g = (const orli_gemm_job *)arg;
    const size_t mi = task % g->grid_m, ni = task / g->grid_m;
    const size_t i = orli_part(g->m, g->grid_m, mi), rows = orli_part(g->m, g->grid_m, mi + 1) - i;
    const size_t j = orli_part(g->n, g->grid_n, ni), cols = orli_part(g->n, g->grid_n, ni + 1) - j;
    orl_real *a = (orl_real *)(uintptr_t)(g->a.data + i * g->a.rs);
    orl_real *b = (orl_real *)(uintptr_t)(g->b.data + j * g->b.cs);
    orl_real one = 1, beta = g->accumulate ? 1 : 0;
    rntm_t alone;
    (void)worker;
    bli_rntm_init(&alone);
    bli_rntm_set_num_threads(1, &alone);
    bli_rntm_disable_l3_sup(&alone);
    orli_blis_gemm(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, (dim_t)rows, (dim_t)cols, (dim_t)g->k, &one, a,
                   (inc_t)g->a.rs, (inc_t)g->a.cs, b, (inc_t)g->b.rs, (inc_t)g->b.cs, &beta,
                   g->c + i * g->ldc + j, (inc_t)g->ldc, 1, NULL, &alone);
}

/* The grid depends on m and n alone, so that any number of threads gives the same bits. */
static void orli_blis_run(orl_ctx *ctx, orli_gemm_job *g) {
    g->grid_m = (g->m + ORLI_BLIS_BLOCK - 1) / ORLI_BLIS_BLOCK;
    g->grid_n = (g->n + ORLI_BLIS_BLOCK - 1) / ORLI_BLIS_BLOCK;
    orli_parallel(ctx, ORLI_WORK_GEMM, g->grid_m * g->grid_n, orli_blis_task, g);
}
#endif

/* One task a thread. Along n if each then has 8 panels or more (each packs its own part of B), else along m; along m
 * too where A must be copied and has more to copy than B. */
static void orli_gemm_run(orl_ctx *ctx, orli_gemm_job *g) {
    const size_t panels = (g->n + g->kern->tile_cols - 1) / g->kern->tile_cols;
    const size_t row_tiles = (g->m + g->kern->tile_rows - 1) / g->kern->tile_rows;
    const double flops = 2.0 * (double)g->m * (double)g->n * (double)g->k;
    const int along_m = g->a.cs != 1 && g->m > g->n;
    size_t threads = flops < ORLI_GEMM_SERIAL ? 1 : ctx->pool->threads;
    if (!g->m || !g->n) return;
    g->ctx = ctx;
    g->grid_n = along_m ? 1 : ORLI_MAX(1, ORLI_MIN(threads, g->panels || g->halves ? panels : panels / 8));
    while (threads % g->grid_n) g->grid_n--; /* as many tasks as threads */
    g->grid_m = ORLI_MIN(row_tiles, threads / g->grid_n);
    g->grid_n = ORLI_MIN(panels, threads / g->grid_m);
    ctx->flops += flops;
#ifdef ORL_USE_BLIS
    /* Wᵀ has cs > 1: this is a gradient, no forward product */
    if (!g->panels && !g->halves && g->b.cs == 1 && !g->b.half && flops >= ORLI_BLIS_LEAST) {
        orli_blis_run(ctx, g);
        return;
    }
#endif
    orli_parallel(ctx, ORLI_WORK_GEMM, g->grid_m * g->grid_n, orli_gemm_task, g);
}

static orli_gemm_job orli_gemm_job_new(const orli_kernels *kern, size_t m, size_t n, size_t k, orli_mat a, orl_real *c,
                                       size_t ldc, int accumulate) {
    orli_gemm_job g;
    memset(&g, 0, sizeof g);
    g.kern = kern;
    g.m = m, g.n = n, g.k = k;
    g.a = a;
    g.c = c;
    g.ldc = ldc;
    g.accumulate = accumulate;
    return g;
}

/* C (m, n), row stride ldc, = A (m, k)·B (k, n), or += it. */
static void orli_gemm(orl_ctx *ctx, size_t m, size_t n, size_t k, orli_mat a, orli_mat b, orl_real *c, size_t ldc,
                      int accumulate) {
    orli_gemm_job g = orli_gemm_job_new(ctx->kernels, m, n, k, a, c, ldc, accumulate);
    g.b = b;
    orli_gemm_run(ctx, &g);
}

/* The same with a B that orli_pack has packed. */
static void orli_gemm_packed(orl_ctx *ctx, size_t m, size_t n, size_t k, orli_mat a, const orl_real *panels,
                             orl_real *c, size_t ldc, int accumulate) {
    orli_gemm_job g = orli_gemm_job_new(ctx->kernels, m, n, k, a, c, ldc, accumulate);
    g.panels = panels;
    orli_gemm_run(ctx, &g);
}

/* … or a B of bf16 numbers that orli_pack_halves has packed. */
static void orli_gemm_halves(orl_ctx *ctx, size_t m, size_t n, size_t k, orli_mat a, const uint16_t *halves,
                             orl_real *c, size_t ldc) {
    orli_gemm_job g = orli_gemm_job_new(ctx->kernels, m, n, k, a, c, ldc, 0);
    g.halves = halves;
    orli_gemm_run(ctx, &g);
}

static size_t orli_pack_size(const orl_ctx *ctx, size_t n, size_t k) { /* in orl_real; depends on the instruction set */
    return orli_mul(orli_round_up(n, ctx->kernels->tile_cols), k);
}

typedef struct orli_pack_job {
    const orli_kernels *kern;
    size_t n, k, parts;
    orli_mat b;
    orl_real *panels;
} orli_pack_job;

static void orli_pack_task(void *arg, size_t task, size_t worker) {
    const orli_pack_job *job = (const orli_pack_job *)arg;
    const size_t cols = job->kern->tile_cols, panels = (job->n + cols - 1) / cols;
    const size_t j0 = orli_part(panels, job->parts, task) * cols, j1 = orli_part(panels, job->parts, task + 1) * cols;
    const orli_mat b = orli_mat_at(job->b, 0, j0);
    (void)worker;
    orli_pack_panels(job->kern, ORLI_MIN(j1, job->n) - j0, job->k, b, job->panels + j0 * job->k, cols * job->k);
}

static void orli_pack(orl_ctx *ctx, size_t n, size_t k, orli_mat b, orl_real *panels) {
    orli_pack_job job;
    job.kern = ctx->kernels;
    job.n = n, job.k = k;
    job.parts = ORLI_MIN(ctx->pool->threads, (n + job.kern->tile_cols - 1) / job.kern->tile_cols);
    job.b = b;
    job.panels = panels;
    if (n && k) orli_parallel(ctx, ORLI_WORK_PACK, job.parts, orli_pack_task, &job);
}

/* ---- products of bytes: the driver. Each task quantises its rows of x for itself ---- */

#define ORLI_INT8_K ((size_t)1024) /* longest block of k: 33 KB of a panel stay in the first level for all rows */

static size_t orli_int8_groups(size_t k) { return (k + ORLI_INT8_GROUP - 1) / ORLI_INT8_GROUP; }
static size_t orli_int8_row(size_t k) { return 8 * orli_int8_groups(k) + orli_round_up(k, 4); } /* bytes of a row, … */
static size_t orli_int8_panel(size_t k) { /* … and of a panel */
    return ORLI_INT8_COLS * (4 * orli_int8_groups(k) + orli_round_up(k, 4));
}
static size_t orli_int8_size(size_t n, size_t k) { /* … and of all panels */
    return orli_mul((n + ORLI_INT8_COLS - 1) / ORLI_INT8_COLS, orli_int8_panel(k));
}

typedef struct orli_int8_job {
    orl_ctx *ctx;
    size_t m, n, k;
    const orl_real *x; /* (m, k); where panels are made: (n, k), or … */
    const uint16_t *half; /* … in bf16 */
    int8_t *panels;
    orl_real *y;       /* (m, n) */
    size_t grid_m, grid_n;
} orli_int8_job;

static void orli_int8_pack_task(void *arg, size_t task, size_t worker) { /* one panel */
    const orli_int8_job *j = (const orli_int8_job *)arg;
    const size_t first = task * ORLI_INT8_COLS, count = ORLI_MIN(ORLI_INT8_COLS, j->n - first);
    int8_t *panel = j->panels + task * orli_int8_panel(j->k);
    orl_real *wide = (orl_real *)orli_scratch(j->ctx, worker);
    int8_t *row = (int8_t *)(wide + ORLI_INT8_GROUP);
    size_t i, p, q;
    memset(panel, 0, orli_int8_panel(j->k));
    for (p = 0; p < j->k; p += ORLI_INT8_GROUP) {
        const size_t n = ORLI_MIN(j->k - p, ORLI_INT8_GROUP);
        for (i = 0; i < count; i++) {
            const size_t at = (first + i) * j->k + p;
            if (j->half) j->ctx->kernels->widen(n, wide, j->half + at);
            j->ctx->kernels->quantise(n, j->half ? wide : j->x + at, row);
            memcpy(panel + 4 * i, row, 4);
            for (q = 0; q < n; q += 4) memcpy(panel + (4 + q) * ORLI_INT8_COLS + 4 * i, row + 8 + q, 4);
        }
        panel += ORLI_INT8_COLS * (4 + orli_round_up(n, 4));
    }
}

/* Panels of B (k, n) from Bᵀ, x or half. */
static void orli_int8_pack(orl_ctx *ctx, size_t n, size_t k, const orl_real *x, const uint16_t *half, int8_t *panels) {
    orli_int8_job job;
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.n = n, job.k = k, job.x = x, job.half = half, job.panels = panels;
    orli_parallel(ctx, ORLI_WORK_PACK, (n + ORLI_INT8_COLS - 1) / ORLI_INT8_COLS, orli_int8_pack_task, &job);
}

/* Numbers first … first + n − 1 of a row of Bᵀ again. */
static void orli_int8_read(size_t k, const int8_t *panels, size_t row, size_t first, size_t n, orl_real *out) {
    const int8_t *panel = panels + row / ORLI_INT8_COLS * orli_int8_panel(k) + 4 * (row % ORLI_INT8_COLS);
    size_t i;
    for (i = first; i < first + n; i++) {
        const int8_t *group = panel + i / ORLI_INT8_GROUP * ORLI_INT8_COLS * (4 + ORLI_INT8_GROUP);
        const size_t p = i % ORLI_INT8_GROUP;
        *out++ = (orl_real)orli_single_at(group) * group[(4 + p / 4 * 4) * ORLI_INT8_COLS + p % 4];
    }
}

static void orli_int8_task(void *arg, size_t task, size_t worker) {
    const orli_int8_job *j = (const orli_int8_job *)arg;
    const orli_kernels *kern = j->ctx->kernels;
    const size_t mi = task % j->grid_m, ni = task / j->grid_m, row_bytes = orli_int8_row(j->k);
    const size_t panels = (j->n + ORLI_INT8_COLS - 1) / ORLI_INT8_COLS, most = (ORLI_SCRATCH - 64) / row_bytes;
    const size_t end = orli_part(j->m, j->grid_m, mi + 1), x1 = orli_part(panels, j->grid_n, ni + 1);
    int8_t *a = (int8_t *)orli_scratch(j->ctx, worker);
    size_t i, x, p, rows, r;
    for (i = orli_part(j->m, j->grid_m, mi); i < end; i += rows) {
        rows = ORLI_MIN(end - i, most);
        for (r = 0; r < rows; r++) kern->quantise(j->k, j->x + (i + r) * j->k, a + r * row_bytes);
        for (x = orli_part(panels, j->grid_n, ni); x < x1; x++) {
            const int8_t *panel = j->panels + x * orli_int8_panel(j->k);
            const size_t cols = ORLI_MIN(j->n - x * ORLI_INT8_COLS, ORLI_INT8_COLS);
            for (p = 0; p < j->k; p += ORLI_INT8_K)
                (j->ctx->vnni ? kern->int8_vnni : kern->int8_tile)(
                    rows, cols, ORLI_MIN(j->k - p, ORLI_INT8_K), a + orli_int8_row(p), row_bytes,
                    panel + orli_int8_panel(p), j->y + i * j->n + x * ORLI_INT8_COLS, j->n, p ? ORLI_ADD : ORLI_SET);
        }
    }
}

/* C (m, n) = A (m, k)·B. One task a thread: along m where there are rows enough, else along n. */
static void orli_int8_gemm(orl_ctx *ctx, size_t m, size_t n, size_t k, const orl_real *a, const int8_t *panels,
                           orl_real *c) {
    const double flops = 2.0 * (double)m * (double)n * (double)k;
    const size_t threads = flops < ORLI_GEMM_SERIAL ? 1 : ctx->pool->threads;
    orli_int8_job job;
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.m = m, job.n = n, job.k = k, job.x = a, job.panels = (int8_t *)(uintptr_t)panels, job.y = c;
    job.grid_m = ORLI_MAX(1, ORLI_MIN(threads, m / ORLI_INT8_ROWS));
    while (threads % job.grid_m) job.grid_m--;
    job.grid_n = ORLI_MAX(1, ORLI_MIN(threads / job.grid_m, (n + ORLI_INT8_COLS - 1) / ORLI_INT8_COLS));
    ctx->flops += flops;
    if (m && n) orli_parallel(ctx, ORLI_WORK_GEMM, job.grid_m * job.grid_n, orli_int8_task, &job);
}
#endif /* section 6 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 7
/* =================================================================================================
 * >>tensor   7. TENSOR: contexts, parameters, a tape of fused operators
 * =================================================================================================
 * Purpose:    reverse-mode differentiation over coarse operators on packed sequences.
 * Depends on: kernels, threads, base.   Owns: a tape owns its tensors until the next reset.
 * Invariants: every operator is a node with its inputs, its result and one backward function; nodes
 *             are visited in reverse order of creation, so a gradient is complete when it is read.
 *             An operator given NULL returns NULL: the first failure travels to the end.
 *             Values stay until the tape's reset, but for those that the model forgets by name
 *             (orli_forget); gradients of results go as soon as they have been passed on.
 *             On a dry tape shapes and bytes are worked out, nothing is computed: that is how the
 *             memory of a training run is known before it starts.
 * Threads:    operators are called from one thread and split their rows over the pool.
 * Numerics:   sums over rows run in a fixed order that depends on sizes alone.
 * Tested by:  tests/test_07_tensor.c (every gradient, in double) */

/* ---- 7.1 context ---- */

ORL_API orl_config orl_config_default(void) {
    orl_config c;
    memset(&c, 0, sizeof c);
    return c;
}

ORL_API orl_ctx *orl_create(const orl_config *config) {
    orl_ctx *ctx = (orl_ctx *)ORL_MALLOC(sizeof *ctx);
    const char *isa = getenv("ORL_ISA");
    if (!ctx) return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->config = config ? *config : orl_config_default();
    if (!isa || !*isa) isa = ctx->config.isa;
    ctx->config.isa = NULL; /* the string is the caller's */
    ctx->started = orl_seconds();
    ctx->kernels = orli_kernels_select(ctx, isa);
    ctx->vnni = ctx->kernels && ctx->kernels->int8_vnni && orli_vnni_detect();
    if (!ctx->kernels) ctx->kernels = orli_kernels_of(ORLI_ISA_SCALAR); /* the error is remembered */
    ctx->isa_name = ctx->kernels->name;
    if (orli_pool_create(ctx, ctx->config.threads ? ctx->config.threads : orli_cores()) != ORL_OK) {
        orl_destroy(ctx); /* without a pool nothing can run */
        return NULL;
    }
    return ctx;
}

ORL_API void orl_destroy(orl_ctx *ctx) {
    if (!ctx) return;
    while (ctx->objects) orli_object_free(ctx->objects);
    orli_spare_drop(ctx);
    orli_pool_destroy(ctx);
    ORL_FREE(ctx);
}

ORL_API const char *orl_isa(const orl_ctx *ctx) { return ctx ? ctx->isa_name : "none"; }
ORL_API size_t orl_threads(const orl_ctx *ctx) { return ctx ? ctx->pool->started + 1 : 0; }
ORL_API size_t orl_memory_now(const orl_ctx *ctx) { return ctx ? ctx->memory_now : 0; }
ORL_API size_t orl_memory_peak(const orl_ctx *ctx) { return ctx ? ctx->memory_peak : 0; }

ORL_API orl_cost orl_cost_now(const orl_ctx *ctx) {
    orl_cost cost;
    memset(&cost, 0, sizeof cost);
    if (!ctx) return cost;
    cost.tokens = ctx->tokens;
    cost.flops = ctx->flops;
    cost.seconds = orl_seconds() - ctx->started;
    cost.peak_bytes = ctx->memory_peak;
    return cost;
}

ORL_API orl_cost orl_cost_since(const orl_ctx *ctx, orl_cost before) {
    orl_cost cost = orl_cost_now(ctx);
    cost.tokens -= before.tokens;
    cost.flops -= before.flops;
    cost.seconds -= before.seconds;
    return cost;
}

/* ---- 7.2 parameters ---- */

/* What frozen parameters read, of several models maybe: an array, or a file that stays mapped. */
typedef struct orli_frozen {
    size_t users;
    orli_file file;
    void *own;
} orli_frozen;

static void orli_frozen_release(orl_ctx *ctx, orli_frozen *h) {
    if (!h || --h->users) return;
    if (h->own) orli_free(ctx, h->own);
    else orli_file_close(&h->file);
    orli_free(ctx, h);
}

struct orl_param {
    orl_params *set;
    char *name;
    size_t rows, cols;
    int rank;               /* decay falls on rank ≥ 2 alone */
    orl_real *data, *grad;  /* grad: into the set's one gradient array; NULL if nothing trains */
    const uint16_t *half;   /* in the place of data: frozen, (rows, cols) in bf16 … */
    const int8_t *int8;     /* … or panels of bytes … */
    orli_frozen *store;     /* … which lie in here */
    uint16_t *packed_half;  /* panels of half */
    orl_real *packed;       /* panels of dataᵀ for frozen use, valid while packed_version == version */
    size_t version, packed_version;
    orl_param *next;
};

struct orl_params {
    orli_object object;
    orl_param *first, *last;
    size_t count;    /* numbers in all */
    orl_real *grads; /* (count), all parameters end to end */
};

static void orli_params_clear(orl_params *set) {
    orl_ctx *ctx = set->object.ctx;
    while (set->first) {
        orl_param *p = set->first;
        set->first = p->next;
        orli_free(ctx, p->name);
        orli_free(ctx, p->data);
        orli_frozen_release(ctx, p->store);
        orli_free(ctx, p->packed);
        orli_free(ctx, p->packed_half);
        orli_free(ctx, p);
    }
    orli_free(ctx, set->grads);
    set->last = NULL, set->grads = NULL, set->count = 0;
}
static void orli_params_destroy(orli_object *object) { orli_params_clear((orl_params *)object); }

ORL_API orl_params *orl_params_create(orl_ctx *ctx) {
    return (orl_params *)orli_object_create(ctx, sizeof(orl_params), orli_params_destroy);
}

/* A parameter without its numbers. */
static orl_param *orli_param_add(orl_params *set, const char *name, size_t rows, size_t cols, int rank) {
    orl_ctx *ctx = set ? set->object.ctx : NULL;
    orl_param *p;
    if (orl_failed(ctx)) return NULL;
    if (orl_param_find(set, name)) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "parameter '%s' is there already: give it another name", name);
        return NULL;
    }
    if (set->grads) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "parameter '%s': add parameters before their first gradient", name);
        return NULL;
    }
    p = (orl_param *)orli_alloc_zero(ctx, 1, sizeof *p);
    if (!p) return NULL;
    p->set = set;
    p->rows = rows, p->cols = cols, p->rank = rank, p->version = 1;
    p->name = orli_copy_string(ctx, name);
    if (set->last) set->last->next = p;
    else set->first = p;
    set->last = p;
    set->count += rows * cols;
    return p->name ? p : NULL;
}
static orl_status orli_param_alloc(orl_param *p) { /* zeros */
    orl_ctx *ctx = p->set->object.ctx;
    p->data = (orl_real *)orli_alloc_zero(ctx, orli_mul(p->rows, p->cols), sizeof(orl_real));
    return orl_error_status(ctx);
}
ORL_API orl_param *orl_param_add(orl_params *set, const char *name, size_t rows, size_t cols, int rank) {
    orl_param *p = orli_param_add(set, name, rows, cols, rank);
    return p && orli_param_alloc(p) == ORL_OK ? p : NULL;
}

static int orli_param_stored(const orl_param *p) { return p->half || p->int8; } /* not as numbers that can change */

static void orli_param_drop(orl_param *p) { /* its numbers, in whatever form */
    orl_ctx *ctx = p->set->object.ctx;
    orli_frozen_release(ctx, p->store);
    orli_free(ctx, p->data);
    orli_free(ctx, p->packed);
    orli_free(ctx, p->packed_half);
    p->data = p->packed = NULL, p->half = p->packed_half = NULL, p->int8 = NULL, p->store = NULL;
    p->packed_version = 0, p->version++;
}
/* The numbers become those of `store`: bf16 ones or bytes. */
static void orli_param_set_store(orl_param *p, orli_frozen *store, const uint16_t *half, const int8_t *int8) {
    store->users++;
    orli_param_drop(p);
    p->half = half, p->int8 = int8, p->store = store;
}
/* Numbers first … first + n − 1. */
static void orli_param_read(const orl_param *p, size_t first, size_t n, orl_real *out) {
    size_t row = first / p->cols, col = first % p->cols, count;
    if (p->half) p->set->object.ctx->kernels->widen(n, out, p->half + first);
    else if (!p->int8) memcpy(out, p->data + first, n * sizeof *out);
    for (; p->int8 && n; n -= count, out += count, row++, col = 0) {
        count = ORLI_MIN(n, p->cols - col);
        orli_int8_read(p->cols, p->int8, row, col, count, out);
    }
}
/* … or floats again, so that they can change. */
static orl_status orli_param_widen(orl_param *p) {
    orl_ctx *ctx = p->set->object.ctx;
    orl_real *data;
    if (!orli_param_stored(p)) return ORL_OK;
    data = (orl_real *)orli_alloc(ctx, orli_mul(p->rows, p->cols), sizeof(orl_real));
    if (!data) return orl_error_status(ctx);
    orli_param_read(p, 0, p->rows * p->cols, data);
    orli_param_drop(p);
    p->data = data;
    return ORL_OK;
}

ORL_API orl_param *orl_param_find(orl_params *set, const char *name) {
    orl_param *p;
    for (p = set ? set->first : NULL; p; p = p->next)
        if (p->name && strcmp(p->name, name) == 0) return p;
    return NULL;
}

ORL_API orl_real *orl_param_data(orl_param *p) { return p ? p->data : NULL; }
ORL_API orl_real *orl_param_grad(orl_param *p) { return p ? p->grad : NULL; }
ORL_API void orl_param_changed(orl_param *p) {
    if (p) p->version++;
}
ORL_API size_t orl_params_count(const orl_params *set) { return set ? set->count : 0; }

/* Gives the set its gradient array: from now on operators on its parameters record themselves. */
static orl_status orli_params_train(orl_params *set) {
    orl_param *p;
    size_t at = 0;
    if (set->grads) return ORL_OK;
    for (p = set->first; p; p = p->next)
        if (orli_param_stored(p))
            return orli_fail(set->object.ctx, ORL_ERR_ARGUMENT,
                             "the weights are stored in %s and frozen (%s): %sload the model with orl_model_load()",
                             p->half ? "bf16" : "int8", p->name,
                             p->half ? "add a LoRA adapter to train, or " : "to train, ");
    set->grads = (orl_real *)orli_alloc_zero(set->object.ctx, set->count, sizeof(orl_real));
    if (!set->grads) return ORL_ERR_MEMORY;
    for (p = set->first; p; at += p->rows * p->cols, p = p->next) p->grad = set->grads + at;
    return ORL_OK;
}

/* Takes it away: the set is frozen. */
static void orli_params_freeze(orl_params *set) {
    orl_param *p;
    orli_free(set->object.ctx, set->grads);
    set->grads = NULL;
    for (p = set->first; p; p = p->next) p->grad = NULL;
}

ORL_API void orl_params_zero_grad(orl_params *set) {
    if (!set || orl_failed(set->object.ctx) || orli_params_train(set) != ORL_OK) return;
    memset(set->grads, 0, set->count * sizeof(orl_real));
}

/* Its transpose as an operand, for x·wᵀ. */
static orli_mat orli_param_mat(const orl_param *p) {
    orli_mat m = orli_mat_of(p->data, 1, p->cols);
    m.half = p->half;
    return m;
}

/* Panels of dataᵀ for x·wᵀ, packed at most once per version; NULL if there is no memory for them. */
static const orl_real *orli_param_packed(orl_ctx *ctx, orl_param *p) {
    if (p->packed && p->packed_version == p->version) return p->packed;
    if (!p->packed) p->packed = (orl_real *)orli_alloc(ctx, orli_pack_size(ctx, p->rows, p->cols), sizeof(orl_real));
    if (!p->packed) return NULL;
    orli_pack(ctx, p->rows, p->cols, orli_param_mat(p), p->packed);
    p->packed_version = p->version;
    return p->packed;
}

/* A product with panels kept beside the weight is worth their memory up to so many rows: in sampling. */
#define ORLI_HALF_ROWS 256

/* y (n, outs) = x (n, cols of p)·pᵀ, of its first `outs` rows, from a frozen parameter's panels. */
static orl_status orli_param_product(orl_ctx *ctx, orl_param *p, size_t n, size_t outs, const orl_real *x,
                                     orl_real *y) {
    const orli_mat a = orli_mat_of(x, p->cols, 1);
    const orl_real *panels;
    if (p->int8) orli_int8_gemm(ctx, n, outs, p->cols, x, p->int8, y);
    else if (p->half && n > ORLI_HALF_ROWS) orli_gemm(ctx, n, outs, p->cols, a, orli_param_mat(p), y, outs, 0);
    else if (p->half) {
        if (!p->packed_half) {
            p->packed_half = (uint16_t *)orli_alloc(ctx, orli_pack_size(ctx, p->rows, p->cols), sizeof(uint16_t));
            if (!p->packed_half) return orl_error_status(ctx);
            orli_pack_halves(ctx, p->rows, p->cols, p->half, p->packed_half);
        }
        orli_gemm_halves(ctx, n, outs, p->cols, a, p->packed_half, y, outs);
    } else if ((panels = orli_param_packed(ctx, p)) != NULL)
        orli_gemm_packed(ctx, n, outs, p->cols, a, panels, y, outs, 0);
    return orl_error_status(ctx);
}

/* ---- 7.3 the tape ---- */

typedef void (*orli_backward_fn)(orl_tape *tape, orl_tensor *y);

struct orl_tensor {
    size_t rows, cols;
    orl_real *data, *grad;  /* grad: NULL until something flows */
    orl_tensor *in[3];      /* inputs; NULL where there is none */
    orli_backward_fn backward;
    void *saved;            /* the operator's own: attributes and what its backward needs */
    orl_param *param;       /* of a leaf */
    int needs_grad, flowed; /* flowed: a gradient was asked for, so that a dry tape counts it once */
    int keeps_grad;         /* the gradient's memory is not free after this node's backward */
    int forgotten;          /* the values' memory serves others … */
    int remembered;         /* … or did: they were made again for the backward pass */
    int borrowed;           /* the values are a parameter's or another node's */
    struct orli_room *kept; /* what the operator keeps for its backward beside its result */
    orl_tensor *previous;   /* the node created before this one */
};

/* Numbers that nobody needs any more, for the next operator that needs as many. */
typedef struct orli_room {
    size_t count;
    orl_real *data; /* NULL on a dry tape */
    struct orli_room *next;
} orli_room;

typedef struct orli_rope_table orli_rope_table;
struct orli_rope_table { /* cos, sin, −sin of position·f(theta^(−2i/width)): (positions, half) each */
    orl_rotation rotation;
    size_t half, positions;
    orl_real *cosine, *sine, *minus_sine;
    orli_rope_table *next; /* of another rotation: layers may differ, models may share a tape */
};

struct orl_tape {
    orli_object object;
    orli_arena nodes, values; /* nodes: structs and attributes; values: numbers, not there when dry */
    orl_tensor *last;
    int inference;            /* frozen: nothing is recorded, packed weights are used */
    orli_room *free, *lent;   /* lent: until the operator at work returns */
    int recompute;            /* blocks of a model keep nothing but their result */
    orli_rope_table *rope;
    struct orli_tile_plan *plan; /* of the stream attended to last */
};

static void orli_tape_destroy(orli_object *object) {
    orl_tape *tape = (orl_tape *)object;
    orli_arena_free(&tape->nodes);
    orli_arena_free(&tape->values);
    while (tape->rope) {
        orli_rope_table *t = tape->rope;
        tape->rope = t->next;
        orli_free(object->ctx, t->cosine);
        orli_free(object->ctx, t);
    }
}

ORL_API orl_tape *orl_tape_create(orl_ctx *ctx) {
    orl_tape *tape = (orl_tape *)orli_object_create(ctx, sizeof *tape, orli_tape_destroy);
    if (tape) tape->nodes.ctx = tape->values.ctx = ctx;
    return tape;
}

ORL_API void orl_tape_reset(orl_tape *tape) {
    if (!tape) return;
    orli_arena_reset(&tape->nodes);
    orli_arena_reset(&tape->values);
    tape->last = NULL;
    tape->plan = NULL;
    tape->free = tape->lent = NULL;
}

ORL_API void orl_tape_free(orl_tape *tape) {
    if (tape) orli_object_free(&tape->object);
}

ORL_API size_t orl_rows(const orl_tensor *x) { return x ? x->rows : 0; }
ORL_API size_t orl_cols(const orl_tensor *x) { return x ? x->cols : 0; }
ORL_API const orl_real *orl_data(const orl_tensor *x) { return x ? x->data : NULL; }
ORL_API const orl_real *orl_grad(const orl_tensor *x) { return x ? x->grad : NULL; }
ORL_API void orl_keep_grad(orl_tensor *x) {
    if (x) x->keeps_grad = 1;
}

static orl_real *orli_values(orl_tape *tape, size_t rows, size_t cols) {
    return (orl_real *)orli_arena_alloc(&tape->values, orli_mul(rows, cols), sizeof(orl_real));
}
static int orli_dry(const orl_tape *tape) { return tape->values.dry; }

/* As many numbers as were given back before, or fresh ones. */
static orl_real *orli_take(orl_tape *tape, size_t rows, size_t cols) {
    orli_room **at = &tape->free, *found;
    while (*at && (*at)->count != orli_mul(rows, cols)) at = &(*at)->next;
    if (!(found = *at)) return orli_values(tape, rows, cols);
    *at = found->next;
    return found->data;
}
static void orli_put(orl_tape *tape, orli_room **list, orl_real *data, size_t count) {
    orli_room *room = count ? (orli_room *)orli_arena_alloc(&tape->nodes, 1, sizeof *room) : NULL;
    if (!room) return; /* it is not used again before the reset: nothing is lost but room */
    room->count = count, room->data = data;
    room->next = *list;
    *list = room;
}
static void orli_put_all(orl_tape *tape, orli_room **list) {
    while (*list) {
        orli_room *room = *list;
        *list = room->next;
        room->next = tape->free;
        tape->free = room;
    }
}
/* Scratch of an operator at work: orli_return gives it back. */
static orl_real *orli_lend(orl_tape *tape, size_t rows, size_t cols) {
    orl_real *data = orli_take(tape, rows, cols);
    if (data || orli_dry(tape)) orli_put(tape, &tape->lent, data, orli_mul(rows, cols));
    return data;
}
static void orli_return(orl_tape *tape) { orli_put_all(tape, &tape->lent); }

/* The parameter whose frozen numbers, bf16 or bytes, are in the place of data; or NULL. */
static orl_param *orli_stored(const orl_tensor *x) {
    return x && x->param && orli_param_stored(x->param) ? x->param : NULL;
}

/* A new node with room for its result. `saved_bytes` of zeroed memory for the operator. */
static orl_tensor *orli_node(orl_tape *tape, size_t rows, size_t cols, orl_tensor *a, orl_tensor *b, orl_tensor *c,
                             orli_backward_fn backward, size_t saved_bytes) {
    orl_tensor *y;
    if (orl_failed(tape->object.ctx)) return NULL;
    if (orli_stored(a) || orli_stored(b) || orli_stored(c)) {
        orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT,
                  "weights stored in bf16 or int8 can be those of a linear layer, an embedding or a head, and nothing "
                  "else");
        return NULL;
    }
    y = (orl_tensor *)orli_arena_alloc(&tape->nodes, 1, sizeof *y + saved_bytes);
    if (!y) return NULL;
    memset(y, 0, sizeof *y + saved_bytes);
    y->rows = rows, y->cols = cols;
    y->in[0] = a, y->in[1] = b, y->in[2] = c;
    y->needs_grad = !tape->inference && ((a && a->needs_grad) || (b && b->needs_grad) || (c && c->needs_grad));
    y->backward = backward;
    y->saved = y + 1;
    y->previous = tape->last;
    tape->last = y;
    y->data = orli_take(tape, rows, cols);
    return y->data || orli_dry(tape) ? y : NULL;
}

/* What y keeps for its backward beside its result. */
static orl_real *orli_keep(orl_tape *tape, orl_tensor *y, size_t rows, size_t cols) {
    orl_real *data = orli_take(tape, rows, cols);
    if (data || orli_dry(tape)) orli_put(tape, &y->kept, data, orli_mul(rows, cols));
    return data;
}

/* Nothing that is to come reads the values of x, or, of an elementwise operator's, only orli_linear's backward. */
static void orli_forget(orl_tape *tape, orl_tensor *x) {
    if (!x || x->borrowed || x->forgotten) return;
    orli_put(tape, &tape->free, x->data, x->rows * x->cols);
    x->data = NULL, x->forgotten = 1;
}
/* Forgets all that was recorded after `mark`, and the nodes with it. */
static void orli_forget_since(orl_tape *tape, orl_tensor *mark) {
    for (; tape->last != mark; tape->last = tape->last->previous) {
        orli_forget(tape, tape->last);
        orli_put_all(tape, &tape->last->kept);
    }
}
/* The same where the backward pass still reads them: only a tape without one forgets. */
static void orli_forget_if_frozen(orl_tape *tape, orl_tensor *x) {
    if (tape->inference) orli_forget(tape, x);
}

/* Where the gradient of x adds up: zeroed memory at first; NULL if x needs none (or the tape is dry). */
static orl_real *orli_grad(orl_tape *tape, orl_tensor *x) {
    if (!x || !x->needs_grad) return NULL;
    if (!x->grad && !x->flowed) {
        x->grad = orli_take(tape, x->rows, x->cols);
        if (x->grad) memset(x->grad, 0, x->rows * x->cols * sizeof(orl_real));
    }
    x->flowed = 1;
    return x->grad;
}

/* The same for an operator that can overwrite: *accumulate tells whether there is something to add to. */
static orl_real *orli_grad_or_fresh(orl_tape *tape, orl_tensor *x, int *accumulate) {
    if (!x || !x->needs_grad) return NULL;
    *accumulate = x->grad || x->flowed;
    if (!*accumulate) x->grad = orli_take(tape, x->rows, x->cols);
    x->flowed = 1;
    return x->grad;
}

/* The same for an operator that works out all its gradients at once: where none is wanted, scratch. */
static orl_real *orli_grad_or_scratch(orl_tape *tape, orl_tensor *x, int *accumulate) {
    *accumulate = 0;
    return x->needs_grad ? orli_grad_or_fresh(tape, x, accumulate) : orli_lend(tape, x->rows, x->cols);
}

static orl_tensor *orli_mismatch(orl_tape *tape, const char *op, const orl_tensor *a, const orl_tensor *b) {
    orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT, "%s: shapes (%zu, %zu) and (%zu, %zu) do not fit", op, a->rows,
              a->cols, b->rows, b->cols);
    return NULL;
}

/* The backward functions of what was recorded after `mark`, last first. */
static void orli_backward_since(orl_tape *tape, orl_tensor *mark) {
    orl_tensor *y;
    for (y = tape->last; y != mark && !orl_failed(tape->object.ctx); y = y->previous) {
        if (!y->backward || !y->needs_grad || !(y->grad || y->flowed)) continue;
        y->backward(tape, y);
        orli_return(tape);
        if (y->remembered) orli_forget(tape, y);
        if (y->keeps_grad) continue;
        orli_put(tape, &tape->free, y->grad, y->rows * y->cols); /* its inputs have what they need */
        y->grad = NULL, y->flowed = 0;
    }
}

ORL_API orl_status orl_backward(orl_tape *tape, orl_tensor *loss) {
    orl_ctx *ctx = tape ? tape->object.ctx : NULL;
    unsigned mode;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (!loss || loss->rows != 1 || loss->cols != 1)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_backward: the loss must be one number, (1, 1): orl_sum makes it");
    if (!loss->needs_grad) return ORL_OK;
    mode = orli_float_mode_enter();
    loss->keeps_grad = 1;
    if (orli_grad(tape, loss)) loss->grad[0] += 1;
    orli_backward_since(tape, NULL);
    orli_float_mode_leave(mode);
    return orl_error_status(ctx);
}

/* ---- 7.4 leaves ---- */

static orl_tensor *orli_leaf(orl_tape *tape, const orl_real *data, size_t rows, size_t cols, int needs_grad) {
    orl_tensor *y;
    if (!tape) return NULL;
    y = orli_node(tape, rows, cols, NULL, NULL, NULL, NULL, 0);
    if (!y) return NULL;
    y->needs_grad = needs_grad && !tape->inference;
    if (data && y->data) memcpy(y->data, data, rows * cols * sizeof(orl_real));
    return y;
}
ORL_API orl_tensor *orl_constant(orl_tape *tape, const orl_real *data, size_t rows, size_t cols) {
    return orli_leaf(tape, data, rows, cols, 0);
}
ORL_API orl_tensor *orl_variable(orl_tape *tape, const orl_real *data, size_t rows, size_t cols) {
    return orli_leaf(tape, data, rows, cols, 1);
}

ORL_API orl_tensor *orl_use(orl_tape *tape, orl_param *p) {
    orl_tensor *y;
    if (!tape || !p) return NULL;
    y = orli_node(tape, 0, 0, NULL, NULL, NULL, NULL, 0);
    if (!y) return NULL;
    y->rows = p->rows, y->cols = p->cols;
    y->data = p->data, y->borrowed = 1;
    y->grad = tape->inference ? NULL : p->grad;
    y->needs_grad = y->grad != NULL;
    y->param = p;
    return y;
}

/* ---- 7.5 elementwise ----
 * One node kind for f(x), one for f(a, b); what f is stands in two switches each, forward and slope. */

#define ORLI_CHUNK 16384 /* elements per task */

typedef enum orli_map {
    ORLI_MAP_SCALE, ORLI_MAP_SHIFT, ORLI_MAP_EXP, ORLI_MAP_LOG, ORLI_MAP_TANH, ORLI_MAP_SQUARE, ORLI_MAP_SOFTPLUS,
    ORLI_MAP_CLAMP, ORLI_MAP_GELU, ORLI_MAP_GELU_ERF, ORLI_MAP_ADD, ORLI_MAP_SUB, ORLI_MAP_MUL, ORLI_MAP_MINIMUM,
    ORLI_MAP_MAXIMUM, ORLI_MAP_SWIGLU, ORLI_MAP_GEGLU
} orli_map;

typedef struct orli_map_saved {
    orli_map kind;
    orl_real p, q; /* scale factor, shift term, clamp's bounds */
} orli_map_saved;

typedef struct orli_map_job {
    const orli_kernels *kern;
    orli_map_saved f;
    size_t n;
    orl_real *y;              /* forward: result */
    const orl_real *a, *b;    /* inputs */
    const orl_real *dy;       /* backward: gradient of the result … */
    orl_real *da, *db;        /* … and where those of the inputs add up; NULL if not wanted */
    int add_a, add_b;         /* 0: there is nothing yet to add to */
} orli_map_job;

static void orli_map_forward(void *arg, size_t task, size_t worker) {
    const orli_map_job *j = (const orli_map_job *)arg;
    size_t first = task * ORLI_CHUNK, n = ORLI_MIN(j->n - first, (size_t)ORLI_CHUNK), i;
    orl_real *y = j->y + first;
    const orl_real *a = j->a + first, *b = j->b ? j->b + first : NULL, p = j->f.p, q = j->f.q;
    (void)worker;
    switch (j->f.kind) {
    case ORLI_MAP_SCALE: for (i = 0; i < n; i++) y[i] = p * a[i]; break;
    case ORLI_MAP_SHIFT: for (i = 0; i < n; i++) y[i] = a[i] + p; break;
    case ORLI_MAP_EXP: j->kern->exp(n, y, a); break;
    case ORLI_MAP_LOG: j->kern->log(n, y, a); break;
    case ORLI_MAP_TANH: j->kern->tanh(n, y, a); break;
    case ORLI_MAP_SQUARE: for (i = 0; i < n; i++) y[i] = a[i] * a[i]; break;
    case ORLI_MAP_SOFTPLUS: /* max(x, 0) + log(1 + e^−|x|): never overflows */
        for (i = 0; i < n; i++) y[i] = (orl_real)(ORLI_MAX((double)a[i], 0.0) + log1p(exp(-fabs((double)a[i]))));
        break;
    case ORLI_MAP_CLAMP: for (i = 0; i < n; i++) y[i] = a[i] < p ? p : a[i] > q ? q : a[i]; break;
    case ORLI_MAP_GELU: j->kern->gelu(n, y, a); break;
    case ORLI_MAP_GELU_ERF: j->kern->gelu_erf(n, y, a); break;
    case ORLI_MAP_ADD: memcpy(y, a, n * sizeof *y), j->kern->add(n, y, b); break;
    case ORLI_MAP_SUB: for (i = 0; i < n; i++) y[i] = a[i] - b[i]; break;
    case ORLI_MAP_MUL: j->kern->mul(n, y, a, b); break;
    case ORLI_MAP_MINIMUM: for (i = 0; i < n; i++) y[i] = a[i] <= b[i] ? a[i] : b[i]; break;
    case ORLI_MAP_MAXIMUM: for (i = 0; i < n; i++) y[i] = a[i] >= b[i] ? a[i] : b[i]; break;
    case ORLI_MAP_SWIGLU: j->kern->swiglu(n, y, a, b); break;
    case ORLI_MAP_GEGLU: j->kern->geglu(n, y, a, b); break;
    }
}

/* da += dy·∂f/∂a, db += dy·∂f/∂b */
static void orli_map_backward(void *arg, size_t task, size_t worker) {
    const orli_map_job *j = (const orli_map_job *)arg;
    size_t first = task * ORLI_CHUNK, n = ORLI_MIN(j->n - first, (size_t)ORLI_CHUNK), i;
    const orl_real *a = j->a + first, *b = j->b ? j->b + first : NULL, *y = j->y + first, *dy = j->dy + first;
    orl_real *da = j->da ? j->da + first : NULL, *db = j->db ? j->db + first : NULL;
    orl_real p = j->f.p, q = j->f.q;
    (void)worker;
    if (da && !j->add_a) memset(da, 0, n * sizeof *da);
    if (db && !j->add_b) memset(db, 0, n * sizeof *db);
    switch (j->f.kind) {
    case ORLI_MAP_SCALE: j->kern->axpy(n, da, p, dy); break;
    case ORLI_MAP_SHIFT: j->kern->add(n, da, dy); break;
    case ORLI_MAP_EXP: for (i = 0; i < n; i++) da[i] += dy[i] * y[i]; break;
    case ORLI_MAP_LOG: for (i = 0; i < n; i++) da[i] += dy[i] / a[i]; break;
    case ORLI_MAP_TANH: for (i = 0; i < n; i++) da[i] += dy[i] * (1 - y[i] * y[i]); break;
    case ORLI_MAP_SQUARE: for (i = 0; i < n; i++) da[i] += dy[i] * 2 * a[i]; break;
    case ORLI_MAP_SOFTPLUS:
        for (i = 0; i < n; i++) da[i] += (orl_real)((double)dy[i] / (1.0 + exp(-(double)a[i])));
        break;
    case ORLI_MAP_CLAMP: for (i = 0; i < n; i++) da[i] += a[i] < p || a[i] > q ? 0 : dy[i]; break;
    case ORLI_MAP_GELU: j->kern->gelu_backward(n, da, a, dy); break;
    case ORLI_MAP_GELU_ERF: j->kern->gelu_erf_backward(n, da, a, dy); break;
    case ORLI_MAP_ADD:
        if (da) j->kern->add(n, da, dy);
        if (db) j->kern->add(n, db, dy);
        break;
    case ORLI_MAP_SUB:
        if (da) j->kern->add(n, da, dy);
        if (db) j->kern->axpy(n, db, -1, dy);
        break;
    case ORLI_MAP_MUL:
        for (i = 0; da && i < n; i++) da[i] += dy[i] * b[i];
        for (i = 0; db && i < n; i++) db[i] += dy[i] * a[i];
        break;
    case ORLI_MAP_MINIMUM: /* at a tie a gets it all */
        for (i = 0; da && i < n; i++) da[i] += a[i] <= b[i] ? dy[i] : 0;
        for (i = 0; db && i < n; i++) db[i] += a[i] <= b[i] ? 0 : dy[i];
        break;
    case ORLI_MAP_MAXIMUM:
        for (i = 0; da && i < n; i++) da[i] += a[i] >= b[i] ? dy[i] : 0;
        for (i = 0; db && i < n; i++) db[i] += a[i] >= b[i] ? 0 : dy[i];
        break;
    case ORLI_MAP_SWIGLU: j->kern->swiglu_backward(n, da, db, a, b, dy); break;
    case ORLI_MAP_GEGLU: j->kern->geglu_backward(n, da, db, a, b, dy); break;
    }
}

static orli_map_job orli_map_job_of(orl_tape *tape, orl_tensor *y) {
    orli_map_job job;
    memset(&job, 0, sizeof job);
    job.kern = tape->object.ctx->kernels;
    job.f = *(orli_map_saved *)y->saved;
    job.n = y->rows * y->cols;
    job.y = y->data;
    job.a = y->in[0]->data;
    job.b = y->in[1] ? y->in[1]->data : NULL;
    return job;
}

/* The gradient of a sum is its terms': the first that has none yet takes it over as it is. */
static int orli_hand_over(orl_tensor *y, orl_tensor *x) {
    if (y->keeps_grad || !x->needs_grad || x->grad || x->flowed) return 0;
    x->grad = y->grad, x->flowed = 1;
    y->keeps_grad = 1;
    return 1;
}

static void orli_map_gradient(orl_tape *tape, orl_tensor *y) {
    orli_map_job job = orli_map_job_of(tape, y);
    job.dy = y->grad;
    if (job.f.kind == ORLI_MAP_ADD && orli_hand_over(y, y->in[0])) job.da = NULL;
    else job.da = orli_grad_or_fresh(tape, y->in[0], &job.add_a); /* the task zeroes what is fresh, in its cache */
    job.db = orli_grad_or_fresh(tape, y->in[1], &job.add_b); /* of a·a: not fresh any more */
    if (!orli_dry(tape) && !orl_failed(tape->object.ctx))
        orli_parallel(tape->object.ctx, ORLI_WORK_ROWS, (job.n + ORLI_CHUNK - 1) / ORLI_CHUNK, orli_map_backward, &job);
}

static orl_tensor *orli_map_apply(orl_tape *tape, orli_map kind, const char *name, orl_tensor *a, orl_tensor *b,
                                  double p, double q) {
    orl_tensor *y;
    orli_map_saved *f;
    orli_map_job job;
    if (!tape || !a || (kind >= ORLI_MAP_ADD && !b)) return NULL;
    if (b && (a->rows != b->rows || a->cols != b->cols)) return orli_mismatch(tape, name, a, b);
    y = orli_node(tape, a->rows, a->cols, a, b, NULL, orli_map_gradient, sizeof *f);
    if (!y) return NULL;
    f = (orli_map_saved *)y->saved;
    f->kind = kind, f->p = (orl_real)p, f->q = (orl_real)q;
    if (orli_dry(tape)) return y;
    job = orli_map_job_of(tape, y);
    orli_parallel(tape->object.ctx, ORLI_WORK_ROWS, (job.n + ORLI_CHUNK - 1) / ORLI_CHUNK, orli_map_forward, &job);
    return y;
}

/* Makes an elementwise operator's forgotten values again. */
static void orli_remember(orl_tape *tape, orl_tensor *y) {
    orli_map_job job;
    y->data = orli_take(tape, y->rows, y->cols);
    y->forgotten = 0, y->remembered = 1;
    if (orli_dry(tape) || !y->data) return;
    job = orli_map_job_of(tape, y);
    orli_parallel(tape->object.ctx, ORLI_WORK_ROWS, (job.n + ORLI_CHUNK - 1) / ORLI_CHUNK, orli_map_forward, &job);
}

ORL_API orl_tensor *orl_add(orl_tape *t, orl_tensor *a, orl_tensor *b) {
    return orli_map_apply(t, ORLI_MAP_ADD, "orl_add", a, b, 0, 0);
}
ORL_API orl_tensor *orl_sub(orl_tape *t, orl_tensor *a, orl_tensor *b) {
    return orli_map_apply(t, ORLI_MAP_SUB, "orl_sub", a, b, 0, 0);
}
ORL_API orl_tensor *orl_mul(orl_tape *t, orl_tensor *a, orl_tensor *b) {
    return orli_map_apply(t, ORLI_MAP_MUL, "orl_mul", a, b, 0, 0);
}
ORL_API orl_tensor *orl_min(orl_tape *t, orl_tensor *a, orl_tensor *b) {
    return orli_map_apply(t, ORLI_MAP_MINIMUM, "orl_min", a, b, 0, 0);
}
ORL_API orl_tensor *orl_max(orl_tape *t, orl_tensor *a, orl_tensor *b) {
    return orli_map_apply(t, ORLI_MAP_MAXIMUM, "orl_max", a, b, 0, 0);
}
ORL_API orl_tensor *orl_swiglu(orl_tape *t, orl_tensor *gate, orl_tensor *up) {
    return orli_map_apply(t, ORLI_MAP_SWIGLU, "orl_swiglu", gate, up, 0, 0);
}
ORL_API orl_tensor *orl_geglu(orl_tape *t, orl_tensor *gate, orl_tensor *up) {
    return orli_map_apply(t, ORLI_MAP_GEGLU, "orl_geglu", gate, up, 0, 0);
}
ORL_API orl_tensor *orl_scale(orl_tape *t, orl_tensor *x, double factor) {
    return orli_map_apply(t, ORLI_MAP_SCALE, "orl_scale", x, NULL, factor, 0);
}
ORL_API orl_tensor *orl_shift(orl_tape *t, orl_tensor *x, double term) {
    return orli_map_apply(t, ORLI_MAP_SHIFT, "orl_shift", x, NULL, term, 0);
}
ORL_API orl_tensor *orl_exp(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_EXP, "orl_exp", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_log(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_LOG, "orl_log", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_tanh(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_TANH, "orl_tanh", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_square(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_SQUARE, "orl_square", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_softplus(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_SOFTPLUS, "orl_softplus", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_gelu(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_GELU, "orl_gelu", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_gelu_erf(orl_tape *t, orl_tensor *x) {
    return orli_map_apply(t, ORLI_MAP_GELU_ERF, "orl_gelu_erf", x, NULL, 0, 0);
}
ORL_API orl_tensor *orl_clamp(orl_tape *t, orl_tensor *x, double low, double high) {
    return orli_map_apply(t, ORLI_MAP_CLAMP, "orl_clamp", x, NULL, low, high);
}

/* ---- 7.6 sums and choices of rows ---- */

/* y[g] = Σ x[start[g]] … x[start[g+1] − 1]; a plain sum is one group of everything. */
typedef struct orli_groups_saved {
    const size_t *start;
    size_t whole[2];
} orli_groups_saved;

static void orli_sum_backward(orl_tape *tape, orl_tensor *y) {
    const size_t *start = ((orli_groups_saved *)y->saved)->start;
    orl_real *dx = orli_grad(tape, y->in[0]);
    size_t g, i;
    if (orli_dry(tape) || !dx) return;
    for (g = 0; g < y->rows; g++)
        for (i = start[g]; i < start[g + 1]; i++) dx[i] += y->grad[g];
}

static void orli_sum_forward(orl_tensor *y, const orl_real *x) {
    const size_t *start = ((orli_groups_saved *)y->saved)->start;
    size_t g, i;
    for (g = 0; g < y->rows; g++) {
        double sum = 0; /* losses are summed in double */
        for (i = start[g]; i < start[g + 1]; i++) sum += (double)x[i];
        y->data[g] = (orl_real)sum;
    }
}

ORL_API orl_tensor *orl_sum(orl_tape *tape, orl_tensor *x) {
    orli_groups_saved *s;
    orl_tensor *y;
    if (!tape || !x) return NULL;
    y = orli_node(tape, 1, 1, x, NULL, NULL, orli_sum_backward, sizeof *s);
    if (!y) return NULL;
    s = (orli_groups_saved *)y->saved;
    s->whole[1] = x->rows * x->cols;
    s->start = s->whole;
    if (!orli_dry(tape)) orli_sum_forward(y, x->data);
    return y;
}

ORL_API orl_tensor *orl_sum_groups(orl_tape *tape, orl_tensor *x, const size_t *start, size_t groups) {
    orl_tensor *y;
    size_t *copy, g;
    if (!tape || !x || !start) return NULL;
    for (g = 0; g < groups && start[g] <= start[g + 1]; g++) {}
    if (g < groups || x->cols != 1 || start[groups] > x->rows) {
        orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT,
                  "orl_sum_groups: x must be (n, 1), starts must ascend and the last be at most n");
        return NULL;
    }
    y = orli_node(tape, groups, 1, x, NULL, NULL, orli_sum_backward, sizeof(orli_groups_saved));
    copy = (size_t *)orli_arena_alloc(&tape->nodes, groups + 1, sizeof *copy);
    if (!y || !copy) return NULL;
    memcpy(copy, start, (groups + 1) * sizeof *copy);
    ((orli_groups_saved *)y->saved)->start = copy;
    if (!orli_dry(tape)) orli_sum_forward(y, x->data);
    return y;
}

static void orli_gather_backward(orl_tape *tape, orl_tensor *y) {
    const size_t *row = *(size_t **)y->saved;
    orl_real *dx = orli_grad(tape, y->in[0]);
    size_t i;
    if (orli_dry(tape) || !dx) return; /* in order: several may name one row (a shared prompt's last) */
    for (i = 0; i < y->rows; i++) tape->object.ctx->kernels->add(y->cols, dx + row[i] * y->cols, y->grad + i * y->cols);
}

ORL_API orl_tensor *orl_gather(orl_tape *tape, orl_tensor *x, const size_t *row, size_t n) {
    orl_tensor *y;
    size_t *copy, i;
    if (!tape || !x || (n && !row)) return NULL;
    y = orli_node(tape, n, x->cols, x, NULL, NULL, orli_gather_backward, sizeof copy);
    copy = (size_t *)orli_arena_alloc(&tape->nodes, n, sizeof *copy);
    if (!y || !copy) return NULL;
    *(size_t **)y->saved = copy;
    for (i = 0; i < n; i++) {
        if (row[i] >= x->rows) {
            orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT, "orl_gather: row %zu of %zu", row[i], x->rows);
            return NULL;
        }
        copy[i] = row[i];
        if (!orli_dry(tape)) memcpy(y->data + i * x->cols, x->data + row[i] * x->cols, x->cols * sizeof(orl_real));
    }
    return y;
}

ORL_API orl_tensor *orl_every(orl_tape *tape, orl_tensor *x, size_t first, size_t stride) {
    size_t n, i, *row;
    if (!tape || !x || !stride) return NULL;
    n = first < x->rows ? (x->rows - first + stride - 1) / stride : 0;
    row = (size_t *)orli_arena_alloc(&tape->nodes, n, sizeof *row);
    if (!row) return NULL;
    for (i = 0; i < n; i++) row[i] = first + i * stride;
    return orl_gather(tape, x, row, n);
}

/* ---- 7.7 linear: y = x·wᵀ + b.   x: (n, in), w: (out, in), b: (1, out) → (n, out)
 *      dx = dy·w,  dw = dyᵀ·x,  db = Σ rows of dy.   Cost: 2·n·in·out each way and operand. ---- */


#define ORLI_COLUMN_BLOCK 64 /* per task of a sum over rows */
#define ORLI_ROWS 32    /* rows per task of a row operator */

typedef struct orli_bias_job {
    const orli_kernels *kern;
    size_t n, d;
    orl_real *y;
    const orl_real *x;
} orli_bias_job;

static void orli_bias_rows(void *arg, size_t task, size_t worker) { /* y[i] += x for every row i */
    const orli_bias_job *j = (const orli_bias_job *)arg;
    size_t i, end = ORLI_MIN(j->n, (task + 1) * ORLI_ROWS);
    (void)worker;
    for (i = task * ORLI_ROWS; i < end; i++) j->kern->add(j->d, j->y + i * j->d, j->x);
}
static void orli_bias_columns(void *arg, size_t task, size_t worker) { /* y += Σ_i x[i], a block of columns */
    const orli_bias_job *j = (const orli_bias_job *)arg;
    size_t first = task * ORLI_COLUMN_BLOCK, width = ORLI_MIN(j->d - first, (size_t)ORLI_COLUMN_BLOCK), i;
    (void)worker;
    for (i = 0; i < j->n; i++) j->kern->add(width, j->y + first, j->x + i * j->d + first);
}

static void orli_add_bias(orl_ctx *ctx, orl_real *y, size_t n, size_t d, const orl_real *b) {
    orli_bias_job job;
    job.kern = ctx->kernels, job.n = n, job.d = d, job.y = y, job.x = b;
    orli_parallel(ctx, ORLI_WORK_ROWS, (n + ORLI_ROWS - 1) / ORLI_ROWS, orli_bias_rows, &job);
}
static void orli_add_column_sums(orl_ctx *ctx, orl_real *db, const orl_real *dy, size_t n, size_t d) {
    orli_bias_job job;
    job.kern = ctx->kernels, job.n = n, job.d = d, job.y = db, job.x = dy;
    orli_parallel(ctx, ORLI_WORK_ROWS, (d + ORLI_COLUMN_BLOCK - 1) / ORLI_COLUMN_BLOCK, orli_bias_columns, &job);
}

/* w: (rows, cols) as an operand, or wᵀ. */
static orli_mat orli_mat_of_weight(const orl_tensor *w, int transposed) {
    orli_mat m = orli_mat_of(w->data, transposed ? 1 : w->cols, transposed ? w->cols : 1);
    if (orli_stored(w)) m.half = w->param->half;
    return m;
}
/* What a node may have as its input: frozen numbers take no part in the backward pass. */
static orl_tensor *orli_unless_stored(orl_tensor *w) { return orli_stored(w) ? NULL : w; }

/* Is the product with w taken from panels that are kept beside the parameter, or in its place? */
static int orli_weight_kept(const orl_tape *tape, const orl_tensor *w) {
    return w->param && (tape->inference || w->param->int8);
}

/* Bytes serve where no gradient is to go through them. */
static orl_status orli_weight_serves(orl_tape *tape, const orl_tensor *x, const orl_tensor *w) {
    if (tape->inference || !x->needs_grad || !orli_stored(w) || !w->param->int8) return ORL_OK;
    return orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT,
                     "the weights are stored in int8 (%s), for sampling and scoring alone: to train, or to train an "
                     "adapter, load the model with orl_model_load() or orl_model_load_frozen()", w->param->name);
}

static void orli_linear_backward(orl_tape *tape, orl_tensor *y) {
    orl_tensor *x = y->in[0], *w = *(orl_tensor **)y->saved;
    orl_ctx *ctx = tape->object.ctx;
    size_t n = x->rows, in = x->cols, out = w->rows;
    int accumulate = 0;
    orl_real *dx = orli_grad_or_fresh(tape, x, &accumulate), *dw = orli_grad(tape, w), *db = orli_grad(tape, y->in[2]);
    if (w->needs_grad && x->forgotten) orli_remember(tape, x);
    if (orli_dry(tape) || orl_failed(ctx)) return;
    if (dx) orli_gemm(ctx, n, in, out, orli_mat_of(y->grad, out, 1), orli_mat_of_weight(w, 0), dx, in, accumulate);
    if (dw) orli_gemm(ctx, out, in, n, orli_mat_of(y->grad, 1, out), orli_mat_of(x->data, in, 1), dw, in, 1);
    if (db) orli_add_column_sums(ctx, db, y->grad, n, out);
}

ORL_API orl_tensor *orl_linear(orl_tape *tape, orl_tensor *x, orl_tensor *w, orl_tensor *b) {
    orl_tensor *y;
    orl_ctx *ctx;
    if (!tape || !x || !w) return NULL;
    if (x->cols != w->cols) return orli_mismatch(tape, "orl_linear", x, w);
    if (b && (b->rows * b->cols != w->rows)) return orli_mismatch(tape, "orl_linear's bias", w, b);
    if (orli_weight_serves(tape, x, w) != ORL_OK) return NULL;
    y = orli_node(tape, x->rows, w->rows, x, orli_unless_stored(w), b, orli_linear_backward, sizeof w);
    if (!y) return NULL;
    *(orl_tensor **)y->saved = w;
    ctx = tape->object.ctx;
    if (orli_dry(tape)) return y;
    if (!orli_weight_kept(tape, w))
        orli_gemm(ctx, x->rows, w->rows, x->cols, orli_mat_of(x->data, x->cols, 1), orli_mat_of_weight(w, 1), y->data,
                  w->rows, 0);
    else if (orli_param_product(ctx, w->param, x->rows, w->rows, x->data, y->data) != ORL_OK) return NULL;
    if (b) orli_add_bias(ctx, y->data, x->rows, w->rows, b->data);
    return y;
}

/* base + x·wᵀ in the place of base, an operator's result that nothing else reads: what a low-rank adapter adds.
 * dx = dy·w,  dw = dyᵀ·x,  dbase = dy. */
static void orli_onto_backward(orl_tape *tape, orl_tensor *y) {
    orl_tensor *x = y->in[0], *w = y->in[1], *base = y->in[2];
    orl_ctx *ctx = tape->object.ctx;
    size_t n = x->rows, in = x->cols, out = w->rows;
    int accumulate = 0;
    orl_real *dx = orli_grad_or_fresh(tape, x, &accumulate), *dw = orli_grad(tape, w), *dbase;
    int real = !orli_dry(tape) && !orl_failed(ctx);
    if (dx && real)
        orli_gemm(ctx, n, in, out, orli_mat_of(y->grad, out, 1), orli_mat_of(w->data, in, 1), dx, in, accumulate);
    if (dw && real) orli_gemm(ctx, out, in, n, orli_mat_of(y->grad, 1, out), orli_mat_of(x->data, in, 1), dw, in, 1);
    if (!base->needs_grad || orli_hand_over(y, base)) return;
    dbase = orli_grad(tape, base);
    if (dbase && !orli_dry(tape)) ctx->kernels->add(n * out, dbase, y->grad);
}

static orl_tensor *orli_linear_onto(orl_tape *tape, orl_tensor *base, orl_tensor *x, orl_tensor *w) {
    orl_tensor *y;
    if (!tape || !base || !x || !w) return NULL;
    if (x->cols != w->cols || base->cols != w->rows) return orli_mismatch(tape, "a low-rank adapter", x, w);
    y = orli_node(tape, 0, 0, x, w, base, orli_onto_backward, 0);
    if (!y) return NULL;
    y->rows = base->rows, y->cols = base->cols, y->data = base->data;
    base->data = NULL, base->forgotten = 1;
    if (!orli_dry(tape))
        orli_gemm(tape->object.ctx, x->rows, w->rows, x->cols, orli_mat_of(x->data, x->cols, 1),
                  orli_mat_of(w->data, 1, w->cols), y->data, w->rows, 1);
    return y;
}

/* ---- 7.8 embedding: y[i] = table[id[i]].   dtable[id[i]] += dy[i], in order of i ---- */

typedef struct orli_embedding_job {
    const orli_kernels *kern;
    const int32_t *id;
    size_t n, d;
    orl_real *table_grad;
    const orl_real *dy;
} orli_embedding_job;

static void orli_embedding_columns(void *arg, size_t task, size_t worker) {
    const orli_embedding_job *j = (const orli_embedding_job *)arg;
    size_t first = task * ORLI_COLUMN_BLOCK, width = ORLI_MIN(j->d - first, (size_t)ORLI_COLUMN_BLOCK), i;
    (void)worker;
    for (i = 0; i < j->n; i++)
        j->kern->add(width, j->table_grad + (size_t)j->id[i] * j->d + first, j->dy + i * j->d + first);
}

static void orli_embedding_backward(orl_tape *tape, orl_tensor *y) {
    orli_embedding_job job;
    job.kern = tape->object.ctx->kernels;
    job.id = *(int32_t **)y->saved;
    job.n = y->rows, job.d = y->cols, job.dy = y->grad;
    job.table_grad = orli_grad(tape, y->in[0]);
    if (orli_dry(tape) || !job.table_grad) return;
    orli_parallel(tape->object.ctx, ORLI_WORK_EMBEDDING, (job.d + ORLI_COLUMN_BLOCK - 1) / ORLI_COLUMN_BLOCK,
                  orli_embedding_columns, &job);
}

ORL_API orl_tensor *orl_embedding(orl_tape *tape, orl_tensor *table, const int32_t *id, size_t n) {
    orl_tensor *y;
    int32_t *copy;
    size_t i;
    if (!tape || !table || (n && !id)) return NULL;
    y = orli_node(tape, n, table->cols, orli_unless_stored(table), NULL, NULL, orli_embedding_backward, sizeof copy);
    copy = (int32_t *)orli_arena_alloc(&tape->nodes, n, sizeof *copy);
    if (!y || !copy) return NULL;
    *(int32_t **)y->saved = copy;
    for (i = 0; i < n; i++) {
        if (id[i] < 0 || (size_t)id[i] >= table->rows) {
            orli_fail(tape->object.ctx, ORL_ERR_MISMATCH,
                      "token id %d is outside the vocabulary of %zu: model and tokenizer do not belong together",
                      (int)id[i], table->rows);
            return NULL;
        }
        copy[i] = id[i];
        if (orli_dry(tape)) continue;
        if (orli_stored(table))
            orli_param_read(table->param, (size_t)id[i] * table->cols, table->cols, y->data + i * table->cols);
        else
            memcpy(y->data + i * table->cols, table->data + (size_t)id[i] * table->cols,
                   table->cols * sizeof(orl_real));
    }
    return y;
}

/* ---- 7.9 norms ----
 * LayerNorm: y = (x − mean)·rstd ⊙ w + b;  RMSNorm: y = x·rstd ⊙ w, rstd = 1/√(mean square + eps).
 * x: (rows, cols) is read as (n, d), d the width of w.
 * dw and db sum over rows: each task sums its own block of rows, the blocks are added in order. */

typedef struct orli_norm_saved {
    orl_real eps, *mean, *rstd; /* mean: NULL for RMSNorm */
} orli_norm_saved;

typedef struct orli_norm_job {
    const orli_kernels *kern;
    const orli_norm_saved *s;
    const orl_real *x, *w, *b, *dy;
    orl_real *y, *dx, *partial; /* partial: (tasks, 2, d) of dw and db */
    size_t n, d;
} orli_norm_job;

static void orli_norm_forward(void *arg, size_t task, size_t worker) {
    const orli_norm_job *j = (const orli_norm_job *)arg;
    size_t i, end = ORLI_MIN(j->n, (task + 1) * ORLI_ROWS), d = j->d;
    (void)worker;
    for (i = task * ORLI_ROWS; i < end; i++) {
        if (j->s->mean)
            j->kern->layernorm(d, j->x + i * d, j->w, j->b, j->s->eps, j->y + i * d, &j->s->mean[i], &j->s->rstd[i]);
        else j->kern->rmsnorm(d, j->x + i * d, j->w, j->s->eps, j->y + i * d, &j->s->rstd[i]);
    }
}

static void orli_norm_backward_rows(void *arg, size_t task, size_t worker) {
    const orli_norm_job *j = (const orli_norm_job *)arg;
    size_t i, end = ORLI_MIN(j->n, (task + 1) * ORLI_ROWS), d = j->d;
    orl_real *dw = j->partial ? j->partial + task * 2 * d : NULL, *db = dw ? dw + d : NULL;
    (void)worker;
    if (dw) memset(dw, 0, 2 * d * sizeof *dw);
    for (i = task * ORLI_ROWS; i < end; i++) {
        const orl_real *x = j->x + i * d, *dy = j->dy + i * d;
        orl_real *dx = j->dx ? j->dx + i * d : NULL;
        if (j->s->mean) j->kern->layernorm_backward(d, x, j->w, dy, j->s->mean[i], j->s->rstd[i], dx, dw, db);
        else j->kern->rmsnorm_backward(d, x, j->w, dy, j->s->rstd[i], dx, dw);
    }
}

static void orli_norm_backward(orl_tape *tape, orl_tensor *y) {
    orli_norm_job job;
    orl_real *dw = orli_grad(tape, y->in[1]), *db = orli_grad(tape, y->in[2]);
    size_t d = y->in[1]->rows * y->in[1]->cols, n = y->rows * (y->cols / d), tasks = (n + ORLI_ROWS - 1) / ORLI_ROWS, i;
    memset(&job, 0, sizeof job);
    job.kern = tape->object.ctx->kernels;
    job.s = (orli_norm_saved *)y->saved;
    job.x = y->in[0]->data, job.w = y->in[1]->data, job.dy = y->grad;
    job.n = n, job.d = d;
    job.dx = orli_grad(tape, y->in[0]);
    if (dw || db || (orli_dry(tape) && y->in[1]->needs_grad)) job.partial = orli_lend(tape, tasks * 2, d);
    if (orli_dry(tape) || orl_failed(tape->object.ctx)) return;
    orli_parallel(tape->object.ctx, ORLI_WORK_ROWS, tasks, orli_norm_backward_rows, &job);
    for (i = 0; i < tasks; i++) {
        if (dw) job.kern->add(job.d, dw, job.partial + i * 2 * job.d);
        if (db) job.kern->add(job.d, db, job.partial + i * 2 * job.d + job.d);
    }
}

static orl_tensor *orli_norm(orl_tape *tape, orl_tensor *x, orl_tensor *w, orl_tensor *b, double eps, int centered) {
    orl_tensor *y;
    orli_norm_saved *s;
    orli_norm_job job;
    size_t d, n;
    if (!tape || !x || !w || (centered && !b)) return NULL;
    d = w->rows * w->cols;
    if (!d || x->cols % d || (b && b->rows * b->cols != d)) return orli_mismatch(tape, "norm", x, w);
    n = x->rows * (x->cols / d);
    y = orli_node(tape, x->rows, x->cols, x, w, b, orli_norm_backward, sizeof *s);
    if (!y) return NULL;
    s = (orli_norm_saved *)y->saved;
    s->eps = (orl_real)eps;
    s->rstd = orli_keep(tape, y, n, 1);
    if (centered) s->mean = orli_keep(tape, y, n, 1);
    if (orli_dry(tape)) return y;
    if (!s->rstd || (centered && !s->mean)) return NULL;
    memset(&job, 0, sizeof job);
    job.kern = tape->object.ctx->kernels;
    job.s = s;
    job.x = x->data, job.w = w->data, job.b = b ? b->data : NULL, job.y = y->data;
    job.n = n, job.d = d;
    orli_parallel(tape->object.ctx, ORLI_WORK_ROWS, (n + ORLI_ROWS - 1) / ORLI_ROWS, orli_norm_forward, &job);
    return y;
}
ORL_API orl_tensor *orl_layernorm(orl_tape *tape, orl_tensor *x, orl_tensor *w, orl_tensor *b, double eps) {
    return orli_norm(tape, x, w, b, eps, 1);
}
ORL_API orl_tensor *orl_rmsnorm(orl_tape *tape, orl_tensor *x, orl_tensor *w, double eps) {
    return orli_norm(tape, x, w, NULL, eps, 0);
}

/* ---- 7.10 packed streams ---- */

typedef struct orli_stream_holder { /* the public struct, behind what a context needs to own it */
    orli_object object;
    orl_stream stream;
} orli_stream_holder;

static void orli_stream_destroy(orli_object *object) {
    orl_stream *s = &((orli_stream_holder *)object)->stream;
    orli_free(s->ctx, s->token);
    orli_free(s->ctx, s->position);
    orli_free(s->ctx, s->segment);
}
ORL_API orl_stream *orl_stream_create(orl_ctx *ctx) {
    orli_stream_holder *h = (orli_stream_holder *)orli_object_create(ctx, sizeof *h, orli_stream_destroy);
    if (!h) return NULL;
    h->stream.ctx = ctx;
    return &h->stream;
}
ORL_API void orl_stream_free(orl_stream *s) {
    if (s)
        orli_object_free(&((orli_stream_holder *)(void *)((char *)s - offsetof(orli_stream_holder, stream)))->object);
}
ORL_API void orl_stream_clear(orl_stream *s) {
    if (s) s->tokens = s->segments = 0;
}

ORL_API size_t orl_stream_add(orl_stream *s, const int32_t *token, size_t n, size_t parent) {
    orl_segment *g;
    size_t i;
    if (!s || orl_failed(s->ctx) || (n && !token)) return ORL_ROOT;
    if (parent != ORL_ROOT && (parent >= s->segments || s->segment[parent].root != s->segment[s->segments - 1].root)) {
        orli_fail(s->ctx, ORL_ERR_ARGUMENT, "orl_stream_add: the parent must be a segment of the tree added last");
        return ORL_ROOT;
    }
    if (ORLI_RESERVE(s->ctx, s->token, s->token_capacity, s->tokens + n) != ORL_OK ||
        ORLI_RESERVE(s->ctx, s->position, s->position_capacity, s->tokens + n) != ORL_OK ||
        ORLI_RESERVE(s->ctx, s->segment, s->segment_capacity, s->segments + 1) != ORL_OK)
        return ORL_ROOT;
    g = &s->segment[s->segments];
    g->start = s->tokens;
    g->length = n;
    g->parent = parent;
    g->root = parent == ORL_ROOT ? s->segments : s->segment[parent].root;
    g->position = parent == ORL_ROOT ? 0 : s->segment[parent].position + s->segment[parent].length;
    if (n) memcpy(s->token + s->tokens, token, n * sizeof *token);
    for (i = 0; i < n; i++) s->position[s->tokens + i] = (int32_t)(g->position + i);
    s->tokens += n;
    return s->segments++;
}

/* Makes the segment added last longer. */
static orl_status orli_stream_append(orl_stream *s, const int32_t *token, size_t n) {
    orl_segment *g = &s->segment[s->segments - 1];
    size_t i;
    if (ORLI_RESERVE(s->ctx, s->token, s->token_capacity, s->tokens + n) != ORL_OK ||
        ORLI_RESERVE(s->ctx, s->position, s->position_capacity, s->tokens + n) != ORL_OK)
        return ORL_ERR_MEMORY;
    if (n) memcpy(s->token + s->tokens, token, n * sizeof *token);
    for (i = 0; i < n; i++) s->position[s->tokens + i] = (int32_t)(g->position + g->length + i);
    g->length += n;
    s->tokens += n;
    return ORL_OK;
}

/* The stream's row that holds position p of the sequence ending in segment s. */
static size_t orli_stream_row(const orl_stream *stream, size_t s, size_t p) {
    while (p < stream->segment[s].position) s = stream->segment[s].parent;
    return stream->segment[s].start + p - stream->segment[s].position;
}

/* ---- 7.11 rotary embedding (Su et al., arXiv 2104.09864), the half-split form:
 *      (x_i, x_{i+w/2}) is rotated by position·f(theta^(−2i/w)); backwards by minus that ---- */

/* What pair i turns by each position. Llama 3's scaling: Grattafiori et al., arXiv 2407.21783, and Meta's code. */
static double orli_rope_frequency(const orl_rotation *r, size_t i) {
    double f = pow(r->theta, -2.0 * (double)i / (double)r->width), turns, mixture;
    if (!(r->factor > 0)) return f;
    if (!r->original) return f / r->factor;
    turns = (double)r->original * f / 6.283185307179586477; /* in the context it was first trained on */
    mixture = ORLI_MAX(0.0, ORLI_MIN(1.0, (turns - r->low) / (r->high - r->low)));
    return (1 - mixture) * f / r->factor + mixture * f;
}

static int orli_rotation_equal(const orl_rotation *a, const orl_rotation *b) {
    return a->theta <= b->theta && a->theta >= b->theta && a->width == b->width && a->factor <= b->factor &&
           a->factor >= b->factor && a->original == b->original && a->low <= b->low && a->low >= b->low &&
           a->high <= b->high && a->high >= b->high;
}

static const orli_rope_table *orli_rope_prepare(orl_tape *tape, const orl_rotation *rotation, size_t positions) {
    orl_ctx *ctx = tape->object.ctx;
    orli_rope_table *t = tape->rope;
    size_t p, i, half = rotation->width / 2;
    while (t && !orli_rotation_equal(&t->rotation, rotation)) t = t->next;
    if (t && t->positions >= positions) return t;
    if (!t) {
        t = (orli_rope_table *)orli_alloc_zero(ctx, 1, sizeof *t);
        if (!t) return NULL;
        t->next = tape->rope;
        tape->rope = t;
    }
    positions = orli_round_up(positions, 64);
    orli_free(ctx, t->cosine);
    t->positions = 0;
    t->cosine = (orl_real *)orli_alloc(ctx, orli_mul(positions, 3 * half), sizeof(orl_real));
    if (!t->cosine) return NULL;
    t->sine = t->cosine + positions * half;
    t->minus_sine = t->sine + positions * half; /* rotates back */
    t->rotation = *rotation, t->half = half, t->positions = positions;
    for (i = 0; i < half; i++) {
        double frequency = orli_rope_frequency(rotation, i);
        for (p = 0; p < positions; p++) {
            t->cosine[p * half + i] = (orl_real)cos((double)p * frequency);
            t->sine[p * half + i] = (orl_real)sin((double)p * frequency);
            t->minus_sine[p * half + i] = -t->sine[p * half + i];
        }
    }
    return t;
}

typedef struct orli_rope_job {
    const orli_kernels *kern;
    const int32_t *position;
    const orl_real *cosine, *sine, *from;
    orl_real *x;
    size_t n, heads, half, d; /* d: of a head, of which 2·half turn */
} orli_rope_job;

static void orli_rope_rows(void *arg, size_t task, size_t worker) {
    const orli_rope_job *j = (const orli_rope_job *)arg;
    size_t i, h, half = j->half, end = ORLI_MIN(j->n, (task + 1) * ORLI_ROWS);
    (void)worker;
    for (i = task * ORLI_ROWS; i < end; i++) {
        orl_real *x = j->x + i * j->heads * j->d;
        if (j->from != j->x) memcpy(x, j->from + i * j->heads * j->d, j->heads * j->d * sizeof *x);
        for (h = 0; h < j->heads; h++)
            j->kern->rope(half, x + h * j->d, j->cosine + (size_t)j->position[i] * half,
                          j->sine + (size_t)j->position[i] * half);
    }
}

/* x = `from` (or x itself) rotated: with the table's sine forwards, minus_sine backwards. */
static void orli_rope_apply(orl_ctx *ctx, const orli_rope_table *table, const orl_real *sine, const orl_real *from,
                            orl_real *x, const int32_t *position, size_t n, size_t heads, size_t d) {
    orli_rope_job job;
    job.kern = ctx->kernels, job.position = position, job.cosine = table->cosine, job.sine = sine;
    job.from = from, job.x = x, job.n = n, job.heads = heads, job.half = table->half, job.d = d;
    orli_parallel(ctx, ORLI_WORK_ROWS, (n + ORLI_ROWS - 1) / ORLI_ROWS, orli_rope_rows, &job);
}

typedef struct orli_rope_saved {
    const orl_stream *stream;
    const orli_rope_table *table;
    size_t heads;
} orli_rope_saved;

static void orli_rope_backward(orl_tape *tape, orl_tensor *y) {
    const orli_rope_saved *s = (orli_rope_saved *)y->saved;
    orl_ctx *ctx = tape->object.ctx;
    int accumulate = 0;
    orl_real *dx = orli_grad_or_fresh(tape, y->in[0], &accumulate),
             *turned = accumulate ? orli_lend(tape, y->rows, y->cols) : dx;
    if (orli_dry(tape) || orl_failed(ctx)) return;
    orli_rope_apply(ctx, s->table, s->table->minus_sine, y->grad, turned, s->stream->position, y->rows, s->heads,
                    y->cols / s->heads);
    if (accumulate) ctx->kernels->add(y->rows * y->cols, dx, turned);
}

static size_t orli_stream_positions(const orl_stream *stream) { /* 1 + the highest */
    size_t s, most = 0;
    for (s = 0; s < stream->segments; s++)
        most = ORLI_MAX(most, stream->segment[s].position + stream->segment[s].length);
    return most;
}

ORL_API orl_tensor *orl_rope(orl_tape *tape, orl_tensor *x, const orl_stream *stream, size_t heads,
                             const orl_rotation *rotation) {
    orl_tensor *y;
    orli_rope_saved *s;
    orl_ctx *ctx;
    orl_rotation r;
    if (!tape || !x || !stream || !rotation) return NULL;
    ctx = tape->object.ctx;
    r = *rotation;
    if (heads && !r.width) r.width = x->cols / heads;
    if (x->rows != stream->tokens || !heads || x->cols % heads || r.width % 2 || r.width > x->cols / heads) {
        orli_fail(ctx, ORL_ERR_ARGUMENT,
                  "orl_rope: (%zu, %zu) does not fit %zu tokens of %zu heads of which an even %zu numbers turn",
                  x->rows, x->cols, stream->tokens, heads, r.width);
        return NULL;
    }
    y = orli_node(tape, x->rows, x->cols, x, NULL, NULL, orli_rope_backward, sizeof *s);
    if (!y) return NULL;
    s = (orli_rope_saved *)y->saved;
    s->stream = stream, s->heads = heads;
    if (orli_dry(tape)) return y;
    s->table = orli_rope_prepare(tape, &r, orli_stream_positions(stream));
    if (!s->table) return NULL;
    orli_rope_apply(ctx, s->table, s->table->sine, x->data, y->data, stream->position, x->rows, heads, x->cols / heads);
    return y;
}

/* ---- 7.12 attention: y = softmax(scale·q·kᵀ + causal mask)·v, per head and sequence ----
 * Keys and values are laid out in tiles of ORLI_TILE positions, K by columns (d, tile), V by rows
 * (tile, d). A segment owns the tiles from the one its first position falls into; the columns of that
 * first tile that belong to its ancestors are copied. A query then walks the tiles of its chain:
 * ancestors' prompts, pages of a KV cache and plain sequences look the same to the kernel and give
 * the same bits. Backwards, a tree is one task per kv head: gradients of a shared prompt add up in
 * the order of the segments.
 * Cost: 4·d per visible (query, key) forward, 10·d backward. */

typedef struct orli_tile_plan {
    const orl_stream *stream;
    size_t segments, tokens;  /* as they were: a changed stream needs a new plan */
    size_t tiles;             /* in all */
    size_t *first;            /* (segments): its first own tile */
    size_t *chain;            /* (segments + 1): where its chain's tile list begins in `list` */
    size_t *list;             /* tiles by position: own and ancestors' */
    size_t *root;             /* (roots + 1): segments that begin a tree */
    size_t roots;
} orli_tile_plan;

/* The keys that tokens first … end−1 of a sequence see, each itself and what its window reaches. */
static double orli_visible(size_t first, size_t end, size_t window) {
    size_t full = ORLI_MIN(ORLI_MAX(first, window), end); /* from here on a whole window */
    return 0.5 * (double)(full - first) * (double)(first + full + 1) + (double)(end - full) * (double)window;
}
static double orli_stream_visible(const orl_stream *stream, size_t window) {
    double visible = 0;
    size_t s;
    for (s = 0; s < stream->segments; s++) {
        const orl_segment *g = &stream->segment[s];
        visible += orli_visible(g->position, g->position + g->length, window);
    }
    return visible;
}

static size_t orli_own_tiles(const orl_segment *g) {
    return (g->position + g->length + ORLI_TILE - 1) / ORLI_TILE - g->position / ORLI_TILE;
}

static orli_tile_plan *orli_plan_tiles(orl_tape *tape, const orl_stream *stream) {
    orli_tile_plan *plan = tape->plan;
    orli_arena *nodes = &tape->nodes;
    size_t s, t, listed = 0, n = stream->segments;
    if (plan && plan->stream == stream && plan->segments == n && plan->tokens == stream->tokens) return plan;
    plan = (orli_tile_plan *)orli_arena_alloc(nodes, 1, sizeof *plan);
    if (!plan) return NULL;
    memset(plan, 0, sizeof *plan);
    plan->stream = stream, plan->segments = n, plan->tokens = stream->tokens;
    for (s = 0; s < n; s++)
        listed += (stream->segment[s].position + stream->segment[s].length + ORLI_TILE - 1) / ORLI_TILE;
    plan->first = (size_t *)orli_arena_alloc(nodes, n, sizeof(size_t));
    plan->chain = (size_t *)orli_arena_alloc(nodes, n + 1, sizeof(size_t));
    plan->root = (size_t *)orli_arena_alloc(nodes, n + 1, sizeof(size_t));
    plan->list = (size_t *)orli_arena_alloc(nodes, listed, sizeof(size_t));
    if (!plan->first || !plan->chain || !plan->root || !plan->list) return NULL;
    for (s = 0, listed = 0; s < n; s++) {
        const orl_segment *g = &stream->segment[s];
        size_t base = g->position / ORLI_TILE, own = orli_own_tiles(g), i;
        if (g->parent == ORL_ROOT) plan->root[plan->roots++] = s;
        plan->first[s] = plan->tiles;
        plan->tiles += own;
        plan->chain[s] = listed;
        /* base > 0 only with a parent */
        for (t = 0; t < base; t++) plan->list[listed++] = plan->list[plan->chain[g->parent] + t];
        for (i = 0; i < own; i++) plan->list[listed++] = plan->first[s] + i;
    }
    plan->chain[n] = listed;
    plan->root[plan->roots] = n;
    return tape->plan = plan;
}

static size_t orli_window(const orl_heads *shape) { return shape->window ? shape->window : SIZE_MAX; }
static orl_real orli_score_scale(const orl_heads *shape, size_t d) {
    return (orl_real)(shape->scale > 0 ? shape->scale : 1.0 / sqrt((double)d));
}

typedef struct orli_attention_saved {
    const orl_stream *stream;
    orli_tile_plan *plan;
    size_t heads, kv_heads, window;
    orl_real scale;
    orl_real *k, *v;           /* (kv_heads, tiles, ORLI_TILE·d) */
    orl_real *lse;             /* (heads, tokens) */
    const orl_real **pointers; /* (kv_heads, 2, listed): K and V tiles of every chain */
} orli_attention_saved;

typedef struct orli_attention_job {
    orl_ctx *ctx;
    const orli_attention_saved *s;
    const orl_real *q, *k, *v;
    orl_real *y;
    const orl_real *dy;
    orl_real *dq, *dk, *dv;      /* tensors' gradients */
    int add_q, add_k, add_v;     /* 0: there is nothing yet to add to */
    orl_real *dktile, *dvtile;   /* (kv_heads, tiles, ORLI_TILE·d) */
    orl_real **dpointers;        /* (kv_heads, 2, listed) */
    size_t d;
} orli_attention_job;

/* Copies a segment's own tiles of one kv head, and points its chain at them. */
static void orli_attention_pack(void *arg, size_t task, size_t worker) {
    const orli_attention_job *j = (const orli_attention_job *)arg;
    const orli_attention_saved *a = j->s;
    const orli_tile_plan *plan = a->plan;
    const orli_kernels *kern = j->ctx->kernels;
    size_t s = task / a->kv_heads, h = task % a->kv_heads, d = j->d, stride = a->kv_heads * d, t, c, i;
    const orl_segment *g = &a->stream->segment[s];
    size_t own = orli_own_tiles(g), end = g->position + g->length, base = g->position / ORLI_TILE;
    size_t listed = plan->chain[plan->segments];
    const orl_real **kp = a->pointers + h * 2 * listed, **vp = kp + listed;
    (void)worker;
    for (t = 0; t < own; t++) {
        orl_real *kt = a->k + (h * plan->tiles + plan->first[s] + t) * ORLI_TILE * d;
        orl_real *vt = a->v + (h * plan->tiles + plan->first[s] + t) * ORLI_TILE * d;
        size_t first = (base + t) * ORLI_TILE, count = ORLI_MIN(end - first, (size_t)ORLI_TILE), width = kern->width;
        if (first >= g->position) { /* nothing of an ancestor: its rows follow one another */
            size_t row = (g->start + first - g->position) * stride + h * d;
            for (c = 0; c < ORLI_TILE; c += width)
                kern->pack(ORLI_MIN(width, count - ORLI_MIN(c, count)), d, j->k + row + ORLI_MIN(c, count - 1) * stride,
                           stride, 1, kt + c, ORLI_TILE);
            for (c = 0; c < count; c++) memcpy(vt + c * d, j->v + row + c * stride, d * sizeof *vt);
            memset(vt + count * d, 0, (ORLI_TILE - count) * d * sizeof *vt);
            continue;
        }
        for (c = 0; c < ORLI_TILE; c++) {
            size_t p = first + c;
            size_t row = p < end ? orli_stream_row(a->stream, s, p) : 0;
            const orl_real *k = j->k + row * stride + h * d, *v = j->v + row * stride + h * d;
            for (i = 0; i < d; i++) kt[i * ORLI_TILE + c] = p < end ? k[i] : 0;
            for (i = 0; i < d; i++) vt[c * d + i] = p < end ? v[i] : 0;
        }
    }
    for (i = plan->chain[s]; i < plan->chain[s + 1]; i++) {
        kp[i] = a->k + (h * plan->tiles + plan->list[i]) * ORLI_TILE * d;
        vp[i] = a->v + (h * plan->tiles + plan->list[i]) * ORLI_TILE * d;
    }
}

static void orli_attention_forward(void *arg, size_t task, size_t worker) { /* one segment, one query head */
    const orli_attention_job *j = (const orli_attention_job *)arg;
    const orli_attention_saved *a = j->s;
    size_t s = task / a->heads, h = task % a->heads, kv = h * a->kv_heads / a->heads, d = j->d, width = a->heads * d;
    const orl_segment *g = &a->stream->segment[s];
    size_t listed = a->plan->chain[a->plan->segments];
    const orl_real **kp = a->pointers + kv * 2 * listed + a->plan->chain[s];
    j->ctx->kernels->attention(d, g->length, j->q + g->start * width + h * d, width, g->position, kp, kp + listed,
                               a->window, a->scale, j->y + g->start * width + h * d, width,
                               a->lse + h * a->stream->tokens + g->start, orli_scratch(j->ctx, worker));
}

static void orli_clear_columns(orl_real *x, size_t rows, size_t stride, size_t columns) {
    size_t i;
    for (i = 0; i < rows; i++) memset(x + i * stride, 0, columns * sizeof *x);
}

static void orli_attention_backward_tree(void *arg, size_t task, size_t worker) { /* one tree, one kv head */
    const orli_attention_job *j = (const orli_attention_job *)arg;
    const orli_attention_saved *a = j->s;
    const orli_tile_plan *plan = a->plan;
    size_t tree = task / a->kv_heads, kv = task % a->kv_heads, d = j->d, width = a->heads * d, stride = a->kv_heads * d;
    size_t group = a->heads / a->kv_heads, listed = plan->chain[plan->segments], s, h, i, t, c;
    const orl_real **kp = a->pointers + kv * 2 * listed;
    orl_real **dkp = j->dpointers + kv * 2 * listed, *rows = (orl_real *)orli_scratch(j->ctx, worker);
    const orli_kernels *kern = j->ctx->kernels;
    size_t step = orli_round_up(d, kern->width), begin = a->stream->segment[plan->root[tree]].start;
    size_t n =
        (plan->root[tree + 1] < plan->segments ? a->stream->segment[plan->root[tree + 1]].start : a->stream->tokens) -
        begin;
    if (!j->add_q) orli_clear_columns(j->dq + begin * width + kv * group * d, n, width, group * d);
    if (!j->add_k) orli_clear_columns(j->dk + begin * stride + kv * d, n, stride, d);
    if (!j->add_v) orli_clear_columns(j->dv + begin * stride + kv * d, n, stride, d);
    for (s = plan->root[tree]; s < plan->root[tree + 1]; s++) {
        const orl_segment *g = &a->stream->segment[s];
        size_t own = orli_own_tiles(g), first = (kv * plan->tiles + plan->first[s]) * ORLI_TILE * d;
        memset(j->dktile + first, 0, own * ORLI_TILE * d * sizeof(orl_real));
        memset(j->dvtile + first, 0, own * ORLI_TILE * d * sizeof(orl_real));
        for (i = plan->chain[s]; i < plan->chain[s + 1]; i++) {
            dkp[i] = j->dktile + (kv * plan->tiles + plan->list[i]) * ORLI_TILE * d;
            dkp[listed + i] = j->dvtile + (kv * plan->tiles + plan->list[i]) * ORLI_TILE * d;
        }
        for (h = kv * group; h < (kv + 1) * group; h++) {
            size_t at = g->start * width + h * d, chain = plan->chain[s];
            kern->attention_backward(d, g->length, j->q + at, width, g->position, kp + chain, kp + listed + chain,
                                     a->window, a->scale, j->y + at, width, j->dy + at, width,
                                     a->lse + h * a->stream->tokens + g->start, j->dq + at, width, dkp + chain,
                                     dkp + listed + chain, orli_scratch(j->ctx, worker));
        }
    }
    /* from tiles back to rows, ancestors' columns to their rows */
    for (s = plan->root[tree]; s < plan->root[tree + 1]; s++) {
        const orl_segment *g = &a->stream->segment[s];
        size_t end = g->position + g->length, base = g->position / ORLI_TILE, own = orli_own_tiles(g);
        for (t = 0; t < own; t++) {
            const orl_real *kt = j->dktile + (kv * plan->tiles + plan->first[s] + t) * ORLI_TILE * d;
            const orl_real *vt = j->dvtile + (kv * plan->tiles + plan->first[s] + t) * ORLI_TILE * d;
            for (i = 0; i < d; i += kern->width) /* rows: (ORLI_TILE, step) */
                kern->pack(ORLI_MIN(kern->width, d - i), ORLI_TILE, kt + i * ORLI_TILE, ORLI_TILE, 1, rows + i, step);
            for (c = 0; c < ORLI_TILE && (base + t) * ORLI_TILE + c < end; c++) {
                size_t row = orli_stream_row(a->stream, s, (base + t) * ORLI_TILE + c) * stride + kv * d;
                kern->add(d, j->dk + row, rows + c * step);
                kern->add(d, j->dv + row, vt + c * d);
            }
        }
    }
}

static void orli_attention_backward(orl_tape *tape, orl_tensor *y) {
    const orli_attention_saved *a = (orli_attention_saved *)y->saved;
    const orli_tile_plan *plan = a->plan;
    orli_attention_job job;
    orl_ctx *ctx = tape->object.ctx;
    size_t tiled;
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.s = a, job.d = y->cols / a->heads;
    job.q = y->in[0]->data, job.y = y->data, job.dy = y->grad;
    job.dq = orli_grad_or_scratch(tape, y->in[0], &job.add_q);
    job.dk = orli_grad_or_scratch(tape, y->in[1], &job.add_k);
    job.dv = orli_grad_or_scratch(tape, y->in[2], &job.add_v);
    tiled = orli_mul(a->kv_heads * plan->tiles, ORLI_TILE * job.d);
    job.dktile = orli_lend(tape, tiled, 1);
    job.dvtile = orli_lend(tape, tiled, 1);
    job.dpointers = (orl_real **)orli_arena_alloc(&tape->nodes, a->kv_heads * 2 * plan->chain[plan->segments],
                                                  sizeof *job.dpointers);
    if (orli_dry(tape) || orl_failed(ctx)) return;
    orli_parallel(ctx, ORLI_WORK_ATTENTION_BACKWARD, plan->roots * a->kv_heads, orli_attention_backward_tree, &job);
    ctx->flops += 10.0 * (double)y->cols * orli_stream_visible(a->stream, a->window);
}

ORL_API orl_tensor *orl_attention(orl_tape *tape, orl_tensor *q, orl_tensor *k, orl_tensor *v, const orl_stream *stream,
                                  const orl_heads *shape) {
    orl_tensor *y;
    orli_attention_saved *a;
    orli_attention_job job;
    orl_ctx *ctx;
    size_t heads, kv_heads, d, tiled;
    if (!tape || !q || !k || !v || !stream || !shape) return NULL;
    ctx = tape->object.ctx;
    heads = shape->heads, kv_heads = shape->kv_heads;
    d = heads ? q->cols / heads : 0;
    if (!d || !kv_heads || heads % kv_heads || q->cols != heads * d || k->cols != kv_heads * d || v->cols != k->cols ||
        q->rows != stream->tokens || k->rows != q->rows || v->rows != q->rows) {
        orli_fail(
            ctx, ORL_ERR_ARGUMENT,
            "orl_attention: q (%zu, %zu), k (%zu, %zu), v (%zu, %zu) do not fit %zu tokens, %zu heads, %zu kv heads",
            q->rows, q->cols, k->rows, k->cols, v->rows, v->cols, stream->tokens, heads, kv_heads);
        return NULL;
    }
    y = orli_node(tape, q->rows, q->cols, q, k, v, orli_attention_backward, sizeof *a);
    if (!y) return NULL;
    a = (orli_attention_saved *)y->saved;
    a->stream = stream, a->heads = heads, a->kv_heads = kv_heads;
    a->window = orli_window(shape), a->scale = orli_score_scale(shape, d);
    a->plan = orli_plan_tiles(tape, stream);
    if (!a->plan) return NULL;
    tiled = orli_mul(kv_heads * a->plan->tiles, ORLI_TILE * d);
    a->k = orli_keep(tape, y, tiled, 1);
    a->v = orli_keep(tape, y, tiled, 1);
    a->lse = orli_keep(tape, y, heads, stream->tokens);
    a->pointers = (const orl_real **)orli_arena_alloc(&tape->nodes, kv_heads * 2 * a->plan->chain[stream->segments],
                                                      sizeof *a->pointers);
    if (orli_dry(tape)) return y;
    if (!a->k || !a->v || !a->lse || !a->pointers) return NULL;
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.s = a, job.d = d, job.q = q->data, job.k = k->data, job.v = v->data, job.y = y->data;
    orli_parallel(ctx, ORLI_WORK_PACK, stream->segments * kv_heads, orli_attention_pack, &job);
    orli_parallel(ctx, ORLI_WORK_ATTENTION, stream->segments * heads, orli_attention_forward, &job);
    ctx->flops += 4.0 * (double)q->cols * orli_stream_visible(stream, a->window);
    return y;
}

/* ---- 7.13 the language head: log softmax(h·wᵀ)[target] ----
 * h: (n, d), w: (vocab, d) → (n, 1). Logits exist for one block of rows at a time and are computed
 * again backwards: dlogit_j = g·(1[j = target] − p_j), and for the entropy H: −g_H·p_j·(log p_j + H). */

#define ORLI_HEAD_ROWS 256

typedef struct orli_head_saved {
    orl_tensor *w;
    const int32_t *target;
    size_t classes;
    orl_real *lse;        /* (n) */
    orl_tensor *entropy;  /* its node, or NULL */
    orl_real *known;      /* (n): the gradient that will arrive, if it is known, … */
    orl_real *dh;         /* … and (n, d) what it makes of h's */
} orli_head_saved;

typedef struct orli_head_job {
    const orli_kernels *kern;
    const int32_t *target;
    size_t rows, classes;
    orl_real *logits;                 /* (rows, classes) */
    orl_real *lse, *logp, *entropy;   /* forward results */
    const orl_real *dlogp, *dentropy; /* backward, or forward if it is known: NULL if none flowed */
} orli_head_job;

#define ORLI_HEAD_TASK 8 /* rows per task */

static void orli_head_slope(const orli_head_job *j, size_t i) { /* probabilities of row i become g·(1[target] − p) */
    orl_real *p = j->logits + i * j->classes, g = j->dlogp ? j->dlogp[i] : 0;
    j->kern->scale(j->classes, p, -g);
    p[j->target[i]] += g;
}

static void orli_head_forward_rows(void *arg, size_t task, size_t worker) {
    const orli_head_job *j = (const orli_head_job *)arg;
    size_t i, c, end = ORLI_MIN(j->rows, (task + 1) * ORLI_HEAD_TASK);
    (void)worker;
    for (i = task * ORLI_HEAD_TASK; i < end; i++) {
        orl_real *z = j->logits + i * j->classes, target = z[j->target[i]];
        const int softmax = j->entropy || j->dlogp;
        j->lse[i] = softmax ? j->kern->softmax_row(j->classes, z, z) : j->kern->log_sum_exp(j->classes, z);
        j->logp[i] = target - j->lse[i];
        if (j->entropy) { /* H = −Σ p·log p */
            double expected = 0;
            for (c = 0; c < j->classes; c++)
                if (z[c] > 0) expected += (double)z[c] * log((double)z[c]);
            j->entropy[i] = (orl_real)-expected;
        }
        if (j->dlogp) orli_head_slope(j, i);
    }
}

static void orli_head_backward_rows(void *arg, size_t task, size_t worker) { /* logits become their gradient */
    const orli_head_job *j = (const orli_head_job *)arg;
    size_t i, c, end = ORLI_MIN(j->rows, (task + 1) * ORLI_HEAD_TASK);
    (void)worker;
    for (i = task * ORLI_HEAD_TASK; i < end; i++) {
        orl_real *p = j->logits + i * j->classes, g = j->dlogp ? j->dlogp[i] : 0;
        j->kern->softmax_row(j->classes, p, p);
        if (j->dentropy) {
            orl_real gh = j->dentropy[i], entropy = j->entropy[i];
            for (c = 0; c < j->classes; c++)
                p[c] = p[c] > 0 ? -p[c] * (g + gh * ((orl_real)log((double)p[c]) + entropy)) : 0;
            p[j->target[i]] += g;
        } else {
            orli_head_slope(j, i);
        }
    }
}

/* dh = dlogits·w and dw += dlogitsᵀ·h of a block of rows, where they are wanted. */
static void orli_head_products(orl_ctx *ctx, const orli_head_job *j, const orl_real *h, const orl_tensor *w, size_t d,
                               orl_real *dh, int accumulate, orl_real *dw) {
    if (dh)
        orli_gemm(ctx, j->rows, d, j->classes, orli_mat_of(j->logits, j->classes, 1), orli_mat_of_weight(w, 0), dh, d,
                  accumulate);
    if (dw)
        orli_gemm(ctx, j->classes, d, j->rows, orli_mat_of(j->logits, 1, j->classes), orli_mat_of(h, d, 1), dw, d, 1);
}

/* The gradient that was foretold has arrived: dw is done, dh waits. */
static void orli_head_known_backward(orl_tape *tape, orl_tensor *y) {
    const orli_head_saved *s = (orli_head_saved *)y->saved;
    orl_tensor *h = y->in[0];
    size_t i = 0;
    while (!orli_dry(tape) && i < y->rows && y->grad[i] == s->known[i]) i++;
    if (!orli_dry(tape) && i < y->rows) {
        orli_fail(tape->object.ctx, ORL_ERR_ARGUMENT, "the gradient of the log-probabilities is not the one foretold");
    } else if (h->needs_grad && !h->grad && !h->flowed) {
        h->grad = s->dh, h->flowed = 1;
    } else if (h->needs_grad) {
        orl_real *dh = orli_grad(tape, h);
        if (dh) tape->object.ctx->kernels->add(h->rows * h->cols, dh, s->dh);
    }
}

static void orli_head_backward(orl_tape *tape, orl_tensor *y) {
    const orli_head_saved *s = (orli_head_saved *)y->saved;
    orl_tensor *h = y->in[0], *w = s->w;
    orl_ctx *ctx = tape->object.ctx;
    orl_real *dh, *dw, *logits;
    size_t n = y->rows, d = h->cols, at, block = ORLI_MIN(n, (size_t)ORLI_HEAD_ROWS);
    int accumulate = 0;
    dh = orli_grad_or_fresh(tape, h, &accumulate), dw = orli_grad(tape, w);
    logits = orli_lend(tape, block, s->classes);
    if (orli_dry(tape) || orl_failed(ctx)) return;
    for (at = 0; at < n; at += block) {
        orli_head_job job;
        memset(&job, 0, sizeof job);
        job.kern = ctx->kernels, job.target = s->target + at, job.rows = ORLI_MIN(block, n - at),
        job.classes = s->classes;
        job.logits = logits, job.dlogp = y->grad + at;
        if (s->entropy && s->entropy->grad) job.dentropy = s->entropy->grad + at, job.entropy = s->entropy->data + at;
        orli_gemm(ctx, job.rows, s->classes, d, orli_mat_of(h->data + at * d, d, 1), orli_mat_of_weight(w, 1), logits,
                  s->classes, 0);
        orli_parallel(ctx, ORLI_WORK_HEAD, (job.rows + ORLI_HEAD_TASK - 1) / ORLI_HEAD_TASK, orli_head_backward_rows,
                      &job);
        orli_head_products(ctx, &job, h->data + at * d, w, d, dh ? dh + at * d : NULL, accumulate, dw);
    }
}

/* The entropy is a second result: its gradient waits in its node, and the log-probability's backward,
 * which runs after it, uses both. This makes sure that it runs. */
static void orli_entropy_backward(orl_tape *tape, orl_tensor *entropy) { orli_grad(tape, entropy->in[0]); }

/* `known`: (n), the gradient that will reach the result, for a loss of known weights; or NULL. The logits of a block
 * then become their gradient at once and w's is complete, instead of being computed twice. */
static orl_tensor *orli_token_logp(orl_tape *tape, orl_tensor *h, orl_tensor *w, size_t classes, const int32_t *target,
                                   orl_tensor **entropy, const orl_real *known) {
    orl_tensor *y;
    orli_head_saved *s;
    orl_ctx *ctx;
    orl_real *logits, *dw = NULL;
    int32_t *copy;
    size_t n, d, at, i, block;
    if (entropy) *entropy = NULL;
    if (!tape || !h || !w || (h->rows && !target)) return NULL;
    ctx = tape->object.ctx, n = h->rows, d = h->cols;
    if (h->cols != w->cols || classes > w->rows) return orli_mismatch(tape, "orl_token_logp", h, w);
    if (orli_weight_serves(tape, h, w) != ORL_OK) return NULL;
    y = orli_node(tape, n, 1, h, orli_unless_stored(w), NULL, orli_head_backward, sizeof *s);
    copy = (int32_t *)orli_arena_alloc(&tape->nodes, n, sizeof *copy);
    if (!y || !copy) return NULL;
    s = (orli_head_saved *)y->saved;
    s->target = copy, s->classes = classes, s->w = w;
    for (i = 0; i < n; i++) {
        copy[i] = target[i];
        if (target[i] < 0 || (size_t)target[i] >= classes) {
            orli_fail(ctx, ORL_ERR_MISMATCH,
                      "token id %d is outside the vocabulary of %zu: model and tokenizer do not belong together",
                      (int)target[i], classes);
            return NULL;
        }
    }
    s->lse = orli_values(tape, n, 1);
    if (known && y->needs_grad) {
        y->backward = orli_head_known_backward;
        s->known = orli_values(tape, n, 1);
        s->dh = h->needs_grad ? orli_values(tape, n, d) : NULL;
        dw = orli_grad(tape, w);
        if (!orli_dry(tape) && (!s->known || (h->needs_grad && !s->dh))) return NULL;
        if (s->known) memcpy(s->known, known, n * sizeof *known);
    }
    if (entropy) *entropy = s->entropy = orli_node(tape, n, 1, y, NULL, NULL, orli_entropy_backward, 0);
    if (entropy) orl_keep_grad(s->entropy);
    block = ORLI_MIN(n, (size_t)ORLI_HEAD_ROWS);
    logits = orli_lend(tape, block, classes);
    orli_return(tape); /* nobody takes it before the next operator */
    if (orli_dry(tape)) return y;
    if (!s->lse || !logits || (entropy && !s->entropy)) return NULL;
    for (at = 0; at < n; at += block) {
        orli_head_job job;
        orli_mat hm = orli_mat_of(h->data + at * d, d, 1);
        memset(&job, 0, sizeof job);
        job.kern = ctx->kernels, job.target = copy + at, job.rows = ORLI_MIN(block, n - at), job.classes = classes;
        job.logits = logits, job.lse = s->lse + at, job.logp = y->data + at;
        if (s->entropy) job.entropy = s->entropy->data + at;
        if (s->known) job.dlogp = s->known + at;
        if (orli_weight_kept(tape, w)) {
            if (orli_param_product(ctx, w->param, job.rows, classes, hm.data, logits) != ORL_OK) return NULL;
        } else orli_gemm(ctx, job.rows, classes, d, hm, orli_mat_of_weight(w, 1), logits, classes, 0);
        orli_parallel(ctx, ORLI_WORK_HEAD, (job.rows + ORLI_HEAD_TASK - 1) / ORLI_HEAD_TASK, orli_head_forward_rows,
                      &job);
        if (s->known) orli_head_products(ctx, &job, hm.data, w, d, s->dh ? s->dh + at * d : NULL, 0, dw);
    }
    return y;
}

ORL_API orl_tensor *orl_token_logp(orl_tape *tape, orl_tensor *h, orl_tensor *w, size_t classes, const int32_t *target,
                                   orl_tensor **entropy) {
    return orli_token_logp(tape, h, w, classes, target, entropy, NULL);
}
#endif /* section 7 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 8
/* =================================================================================================
 * >>optim   8. OPTIM: AdamW, learning-rate schedules, clipping
 * =================================================================================================
 * Purpose:    one optimizer step over a parameter set.
 * Depends on: tensor.               Owns: the moments.
 * Invariants: gradients arrive as undivided sums; the division by the batch's count, the clipping by
 *             the global norm and the update are one pass over memory, and gradients are zero after.
 * Numerics:   AdamW (Loshchilov and Hutter, arXiv 1711.05101): decoupled decay on matrices only,
 *             bias-corrected moments, eps outside the root. Norms are summed in double, by blocks.
 * Tested by:  tests/test_08_optim.c, tests/test_golden.c */

typedef struct orli_adam_block { /* at most ORLI_CHUNK elements of one parameter */
    orl_real *weight;
    size_t at, count; /* in the set's gradient array */
    int decays;
} orli_adam_block;

typedef struct orli_adam {
    orl_params *set;
    orl_real *m, *v;  /* first and second moments: (set->count) */
    uint64_t step;    /* optimizer steps done */
    orli_adam_block *block;
    size_t blocks;
    double *norm2;    /* (blocks) */
} orli_adam;

typedef struct orli_adam_options {
    double lr, beta1, beta2, eps, weight_decay, clip;
} orli_adam_options;

static void orli_adam_free(orli_adam *a) {
    orl_ctx *ctx = a->set ? a->set->object.ctx : NULL;
    orli_free(ctx, a->m);
    orli_free(ctx, a->v);
    orli_free(ctx, a->block);
    orli_free(ctx, a->norm2);
    memset(a, 0, sizeof *a);
}

/* Makes the set trainable, with zero moments. */
static orl_status orli_adam_create(orli_adam *a, orl_params *set) {
    orl_ctx *ctx = set->object.ctx;
    orl_param *p;
    size_t at = 0, blocks = 0;
    memset(a, 0, sizeof *a);
    a->set = set;
    if (orli_params_train(set) != ORL_OK) return orl_error_status(ctx);
    for (p = set->first; p; p = p->next) blocks += (p->rows * p->cols + ORLI_CHUNK - 1) / ORLI_CHUNK;
    a->m = (orl_real *)orli_alloc_zero(ctx, set->count, sizeof(orl_real));
    a->v = (orl_real *)orli_alloc_zero(ctx, set->count, sizeof(orl_real));
    a->block = (orli_adam_block *)orli_alloc_zero(ctx, blocks, sizeof *a->block);
    a->norm2 = (double *)orli_alloc_zero(ctx, blocks, sizeof *a->norm2);
    if (!a->m || !a->v || !a->block || !a->norm2) return ORL_ERR_MEMORY;
    for (p = set->first; p; p = p->next) {
        size_t done, n = p->rows * p->cols;
        for (done = 0; done < n; done += ORLI_CHUNK) {
            orli_adam_block *b = &a->block[a->blocks++];
            b->weight = p->data + done;
            b->at = at + done;
            b->count = ORLI_MIN(n - done, (size_t)ORLI_CHUNK);
            b->decays = p->rank >= 2;
        }
        at += n;
    }
    return ORL_OK;
}

typedef struct orli_adam_job {
    orli_adam *a;
    const orli_kernels *kern;
    orli_adamw step; /* of the kernel */
    orl_real decay;
} orli_adam_job;

static void orli_adam_norm(void *arg, size_t task, size_t worker) {
    const orli_adam_job *j = (const orli_adam_job *)arg;
    const orli_adam_block *b = &j->a->block[task];
    (void)worker;
    j->a->norm2[task] = j->kern->sum_squares(b->count, j->a->set->grads + b->at);
}

static void orli_adam_update(void *arg, size_t task, size_t worker) {
    const orli_adam_job *j = (const orli_adam_job *)arg;
    const orli_adam_block *b = &j->a->block[task];
    orli_adamw step = j->step;
    orl_real *g = j->a->set->grads + b->at;
    (void)worker;
    step.decay = b->decays ? j->decay : 0;
    j->kern->adamw(b->count, b->weight, g, j->a->m + b->at, j->a->v + b->at, &step);
    memset(g, 0, b->count * sizeof *g);
}

/* One step with the gradient Σ/divisor. *norm receives its global norm before clipping; a norm that is
 * not finite changes nothing and is an error. */
static orl_status orli_adam_step(orli_adam *a, const orli_adam_options *o, double divisor, double *norm) {
    orl_ctx *ctx = a->set->object.ctx;
    orli_adam_job job;
    orl_param *p;
    size_t i;
    double sum = 0, scale = 1.0 / divisor;
    job.a = a, job.kern = ctx->kernels, job.decay = (orl_real)o->weight_decay;
    orli_parallel(ctx, ORLI_WORK_OPTIMIZER, a->blocks, orli_adam_norm, &job);
    for (i = 0; i < a->blocks; i++) sum += a->norm2[i];
    *norm = sqrt(sum) * scale;
    if (!(*norm <= DBL_MAX))
        return orli_fail(ctx, ORL_ERR_DATA,
                         "the gradient is not finite at step %llu: lower the learning rate or look at the data",
                         (unsigned long long)a->step + 1);
    if (o->clip > 0 && *norm > o->clip) scale *= o->clip / *norm;
    a->step++;
    job.step.lr = (orl_real)o->lr;
    job.step.beta1 = (orl_real)o->beta1;
    job.step.beta2 = (orl_real)o->beta2;
    job.step.eps = (orl_real)o->eps;
    job.step.grad_scale = (orl_real)scale;
    job.step.correction1 = (orl_real)(1.0 - pow(o->beta1, (double)a->step));
    job.step.correction2 = (orl_real)(1.0 - pow(o->beta2, (double)a->step));
    orli_parallel(ctx, ORLI_WORK_OPTIMIZER, a->blocks, orli_adam_update, &job);
    for (p = a->set->first; p; p = p->next) p->version++;
    return ORL_OK;
}

/* The learning rate of step k = 0 … n−1: up linearly over `warmup` steps, then down to lr·min_lr. */
static double orli_learning_rate(double lr, orl_schedule schedule, size_t warmup, double min_lr, size_t k, size_t n) {
    double done;
    if (k < warmup) return lr * (double)(k + 1) / (double)warmup;
    if (schedule == ORL_CONSTANT || n <= warmup) return lr;
    done = (double)(k - warmup) / (double)(n - warmup);
    if (done > 1) done = 1;
    if (schedule == ORL_COSINE) done = 0.5 * (1.0 - cos(3.141592653589793 * done));
    return lr * (1.0 - (1.0 - min_lr) * done);
}
#endif /* section 8 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 9
/* =================================================================================================
 * >>formats   9. FORMATS: JSON, safetensors and GGUF
 * =================================================================================================
 * Purpose:    reading and writing the two formats everything here is kept in, writing llama.cpp's.
 * Depends on: base, platform.       Owns: nothing beyond the structs its callers hold.
 * Invariants: a file is validated before anything is allocated for it; what is allocated is less
 *             than twice its size; a reader that has failed reads nothing more, so loops end.
 * Threads:    the calling thread only.
 * Numerics:   numbers do not depend on the locale; doubles and floats survive a round trip exactly;
 *             narrowing to F16 and BF16 rounds to nearest even; a finite number that would become
 *             infinite is an error that names the tensor.
 * Source:     RFC 8259 (JSON); github.com/huggingface/safetensors (the format's definition);
 *             github.com/ggml-org/ggml, docs/gguf.md (GGUF 3).
 * Tested by:  tests/test_09_formats.c, tests/test_11_gguf.c
 *
 * Reading a JSON object is a loop over its keys (every value must be read or skipped):
 *     orli_json j = orli_json_new(ctx, text, size, path, 1);
 *     for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
 *         if (orli_json_is(&j, "vocab_size")) vocab = (size_t)orli_json_int(&j, 1, 1 << 24);
 *         else if (orli_json_is(&j, "sizes"))
 *             for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);) read(&j);
 *         else orli_json_skip(&j);
 *     }
 *     if (orli_json_end(&j) != ORL_OK) …the context names the file, line and column. */

#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__) && \
    __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "offline_rlhf.h: safetensors are mapped as they are: little-endian machines only"
#endif

/* ---- sorting in place ---- */

/* Heapsort: no allocation and no quadratic case, unlike qsort(). compare is a total order.
 * Elements ≤ 128 bytes. */
static void orli_sort(void *base, size_t n, size_t size,
                      int (*compare)(const void *, const void *)) {
    char *a = (char *)base, t[128];
    size_t start = n / 2, end = n, parent, child;
    ORL_ASSERT(size <= sizeof t);
    while (end > 1) {
        if (start > 0) {
            memcpy(t, a + --start * size, size); /* still building the heap */
        } else {
            memcpy(t, a + --end * size, size); /* the largest goes to the end */
            memcpy(a + end * size, a, size);
        }
        for (parent = start; (child = 2 * parent + 1) < end; parent = child) {
            if (child + 1 < end && compare(a + child * size, a + (child + 1) * size) < 0) child++;
            if (compare(t, a + child * size) >= 0) break;
            memcpy(a + parent * size, a + child * size, size);
        }
        memcpy(a + parent * size, t, size);
    }
}

/* ---- UTF-8 ---- */

/* The bytes of the well-formed character at s (1 … 4) and its code point; 0 if there is none
 * (Unicode 15, table 3-7). */
static size_t orli_utf8_decode(const char *s, size_t n, uint32_t *code) {
    const unsigned char *u = (const unsigned char *)s;
    size_t length, i;
    uint32_t c;
    if (!n) return 0;
    if (u[0] < 0x80) {
        *code = u[0];
        return 1;
    }
    if (u[0] < 0xc2 || u[0] > 0xf4) return 0;
    length = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (n < length) return 0;
    c = u[0] & (0x7fu >> length);
    for (i = 1; i < length; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (u[i] & 0x3fu);
    }
    if ((length == 3 && c < 0x800) || (length == 4 && (c < 0x10000 || c > 0x10ffff)) ||
        (c >= 0xd800 && c < 0xe000))
        return 0;
    *code = c;
    return length;
}

static size_t orli_utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)),
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f)), out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* ---- texts: many small strings that stay where they are until all are freed ---- */

typedef struct orli_texts {
    orli_arena arena;
    char *room; /* the rest of a piece of the arena, which itself deals in 64 bytes */
    size_t left;
} orli_texts;

/* A zero-terminated copy, or NULL. */
static char *orli_texts_add(orli_texts *t, const char *text, size_t length) {
    char *copy;
    if (t->left <= length) {
        size_t piece = ORLI_MAX(orli_add(length, 1), 4096);
        t->left = 0;
        t->room = (char *)orli_arena_alloc(&t->arena, piece, 1);
        if (!t->room) {
            orli_fail(t->arena.ctx, ORL_ERR_MEMORY, "no memory for more names");
            return NULL;
        }
        t->left = piece;
    }
    copy = t->room;
    if (length) memcpy(copy, text, length);
    copy[length] = 0;
    t->room += length + 1;
    t->left -= length + 1;
    return copy;
}

/* ---- names: a set of byte strings, numbered 0, 1, … as they come ---- */

#define ORLI_NONE ((size_t)-1)

typedef struct orli_name {
    const char *text; /* zero-terminated, and stays where it is */
    uint32_t length;
    int32_t id;       /* its holder's to use */
} orli_name;

typedef struct orli_names {
    orli_texts texts;
    orli_name *name;
    size_t count, capacity;
    uint32_t *slot; /* 1 + number, 0 empty; open addressing, at most two thirds full */
    size_t slots;
} orli_names;

static orli_names orli_names_new(orl_ctx *ctx) {
    orli_names n;
    memset(&n, 0, sizeof n);
    n.texts.arena.ctx = ctx;
    return n;
}

static void orli_names_free(orli_names *n) {
    orl_ctx *ctx = n->texts.arena.ctx;
    orli_arena_free(&n->texts.arena);
    orli_free(ctx, n->name);
    orli_free(ctx, n->slot);
    *n = orli_names_new(ctx);
}

static uint64_t orli_hash(const void *bytes, size_t n) {
    const unsigned char *p = (const unsigned char *)bytes;
    uint64_t h = 0x9E3779B97F4A7C15u ^ n, word;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    for (word = 0; n; n--) word = word << 8 | *p++;
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

/* The place in a table of any size that a hash's upper half asks for. */
static size_t orli_hash_place(uint64_t hash, size_t slots) { return (size_t)((hash >> 32) * slots >> 32); }

/* Where the name is, or the empty slot where it would be. */
static size_t orli_names_slot(const orli_names *n, const char *text, size_t length) {
    size_t i = orli_hash_place(orli_hash(text, length), n->slots);
    for (; n->slot[i]; i = i + 1 < n->slots ? i + 1 : 0) {
        const orli_name *name = &n->name[n->slot[i] - 1];
        if (name->length == length && (!length || memcmp(name->text, text, length) == 0)) break;
    }
    return i;
}

/* The name's number, or ORLI_NONE. */
static size_t orli_names_find(const orli_names *n, const char *text, size_t length) {
    size_t slot = n->slots ? n->slot[orli_names_slot(n, text, length)] : 0;
    return slot ? slot - 1 : ORLI_NONE;
}

static orl_status orli_names_grow(orli_names *n, size_t slots) {
    orl_ctx *ctx = n->texts.arena.ctx;
    size_t i;
    uint32_t *slot = (uint32_t *)orli_alloc_zero(ctx, slots, sizeof *slot);
    if (!slot) return ORL_ERR_MEMORY;
    orli_free(ctx, n->slot);
    n->slot = slot;
    n->slots = slots;
    for (i = 0; i < n->count; i++)
        slot[orli_names_slot(n, n->name[i].text, n->name[i].length)] = (uint32_t)(i + 1);
    return ORL_OK;
}

/* Makes room for so many names in all, and no more. */
static orl_status orli_names_reserve(orli_names *n, size_t count) {
    if (ORLI_RESERVE(n->texts.arena.ctx, n->name, n->capacity, count) != ORL_OK) return ORL_ERR_MEMORY;
    return orli_mul(count, 3) > 2 * n->slots ? orli_names_grow(n, orli_add(count, count / 2 + 8)) : ORL_OK;
}

/* The number, new or old (is it new? the count has grown), of the name that is the first `length` of these bytes; all
 * of them are kept with it. ORLI_NONE if memory ran out. */
static size_t orli_names_add_more(orli_names *n, const char *text, size_t length, size_t bytes) {
    const char *copy;
    size_t at;
    if (n->count >= UINT32_MAX / 4 || length > UINT32_MAX) {
        orli_fail(n->texts.arena.ctx, ORL_ERR_MEMORY, "no memory for more than %zu names, or one of %zu bytes",
                  n->count, length);
        return ORLI_NONE;
    }
    if (3 * (n->count + 1) > 2 * n->slots && orli_names_grow(n, n->slots ? 2 * n->slots : 64) != ORL_OK)
        return ORLI_NONE;
    at = orli_names_slot(n, text, length);
    if (n->slot[at]) return n->slot[at] - 1;
    if (ORLI_RESERVE(n->texts.arena.ctx, n->name, n->capacity, n->count + 1) != ORL_OK) return ORLI_NONE;
    copy = orli_texts_add(&n->texts, text, bytes);
    if (!copy) return ORLI_NONE;
    n->name[n->count].text = copy;
    n->name[n->count].length = (uint32_t)length;
    n->name[n->count].id = 0;
    n->slot[at] = (uint32_t)++n->count;
    return n->count - 1;
}
static size_t orli_names_add(orli_names *n, const char *text, size_t length) {
    return orli_names_add_more(n, text, length, length);
}

/* ---- numbers as text ---- */

/* Decimal text to the nearest double, whatever the locale. The text is a JSON number of at most
 * 1000 bytes. */
static double orli_parse_double(const char *text, size_t n) {
    char probe[16], copy[1100], *out = copy;
    /* what stands between the digits of 1.5 is the locale's decimal point */
    const char *point = probe + 1;
    size_t i, width;
    int printed = snprintf(probe, sizeof probe, "%.1f", 1.5);
    width = printed > 2 && printed < (int)sizeof probe ? (size_t)printed - 2 : 1;
    for (i = 0; i < n && i < 1000; i++) {
        if (text[i] != '.') {
            *out++ = text[i];
        } else {
            memcpy(out, point, width);
            out += width;
        }
    }
    *out = 0;
    return strtod(copy, NULL);
}

/* Shortest of first … last digits that read back as x; single: read back as a float. */
static void orli_put_shortest(orli_str *s, double x, int first, int last, int single) {
    char text[64], *from, *to;
    int digits;
    if (x != x || x - x != 0) {
        orli_str_puts(s, "null"); /* JSON has neither NaN nor infinity */
        return;
    }
    for (digits = first; digits <= last; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (digits == last || (single ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x))
            break;
    }
    for (from = to = text; *from; from++) { /* the locale's decimal point becomes "." */
        int plain = (*from >= '0' && *from <= '9') || *from == '-' || *from == '+' || *from == 'e';
        if (plain) *to++ = *from;
        else if (to == text || to[-1] != '.') *to++ = '.';
    }
    orli_str_add(s, text, (size_t)(to - text));
}

static void orli_json_put_double(orli_str *s, double x) {
    /* subnormals have fewer digits */
    orli_put_shortest(s, x, fabs(x) < 2.2250738585072014e-308 ? 1 : 15, 17, 0);
}
static ORLI_UNUSED void orli_json_put_float(orli_str *s, float x) {
    orli_put_shortest(s, (double)x, fabsf(x) < 1.17549435e-38f ? 1 : 6, 9, 1);
}

/* "text", escaped; bytes that are no UTF-8 become U+FFFD. */
static void orli_json_put_string(orli_str *s, const char *text, size_t n) {
    size_t i = 0, plain = 0, length;
    uint32_t code = 0;
    orli_str_add(s, "\"", 1);
    while (i < n) {
        unsigned char c = (unsigned char)text[i];
        length = orli_utf8_decode(text + i, n - i, &code);
        if (length && c >= 0x20 && c != '"' && c != '\\') {
            i += length;
            continue;
        }
        orli_str_add(s, text + plain, i - plain);
        plain = ++i;
        if (!length) orli_str_puts(s, "\\ufffd");
        else if (c == '"' || c == '\\') orli_str_printf(s, "\\%c", c);
        else if (c == '\n') orli_str_puts(s, "\\n");
        else if (c == '\t') orli_str_puts(s, "\\t");
        else if (c == '\r') orli_str_puts(s, "\\r");
        else orli_str_printf(s, "\\u%04x", c);
    }
    orli_str_add(s, text + plain, n - plain);
    orli_str_add(s, "\"", 1);
}

/* ---- JSON reader ---- */

#define ORLI_JSON_DEPTH 128

typedef enum orli_json_event {
    ORLI_JSON_ERROR, ORLI_JSON_END, ORLI_JSON_OBJECT, ORLI_JSON_OBJECT_END, ORLI_JSON_ARRAY,
    ORLI_JSON_ARRAY_END, ORLI_JSON_KEY, ORLI_JSON_STRING, ORLI_JSON_NUMBER, ORLI_JSON_TRUE,
    ORLI_JSON_FALSE, ORLI_JSON_NULL
} orli_json_event;
static const char *const orli_json_event_names[] = {
    "an error", "the end", "an object", "the end of an object", "an array", "the end of an array",
    "a key", "a string", "a number", "true", "false", "null"};

/* what may come next */
enum { ORLI_JSON_WANT_VALUE, ORLI_JSON_WANT_KEY, ORLI_JSON_WANT_FIRST, ORLI_JSON_WANT_MORE };

typedef struct orli_json { /* holds no memory: copy it to look ahead, drop it at any time */
    orl_ctx *ctx;
    const char *text, *name; /* name: of the file, for errors */
    size_t size, position;
    size_t line;             /* number of the text's first line */
    size_t start, end;       /* span of the token read last; of a string, without its quotes */
    size_t depth;
    int want, escaped;       /* escaped: the string read last has escapes in it */
    unsigned char object[ORLI_JSON_DEPTH]; /* is the container at this depth an object? */
} orli_json;

static orli_json orli_json_new(orl_ctx *ctx, const char *text, size_t size, const char *name,
                               size_t line) {
    orli_json j;
    memset(&j, 0, sizeof j);
    j.ctx = ctx, j.text = text, j.size = size, j.name = name, j.line = line;
    /* a byte order mark is let pass (RFC 8259, 8.1) */
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) j.position = 3;
    return j;
}

/* Fails with "file:line:column (byte n): …" for what stands at byte `at`. */
static orl_status orli_json_fail_at(orli_json *j, size_t at, const char *format, ...)
    ORLI_PRINTF(3, 4);
static orl_status orli_json_fail_at(orli_json *j, size_t at, const char *format, ...) {
    char sentence[400];
    size_t i, line = j->line, first = 0;
    va_list args;
    if (orl_failed(j->ctx)) return orl_error_status(j->ctx);
    for (i = 0; i < at && i < j->size; i++)
        if (j->text[i] == '\n') line++, first = i + 1;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return orli_fail(j->ctx, ORL_ERR_FORMAT, "%.180s:%zu:%zu (byte %zu): %s", j->name, line,
                     at - first + 1, at, sentence);
}

static void orli_json_space(orli_json *j) {
    while (j->position < j->size && (j->text[j->position] == ' ' || j->text[j->position] == '\n' ||
                                     j->text[j->position] == '\r' || j->text[j->position] == '\t'))
        j->position++;
}

static orli_json_event orli_json_bad(orli_json *j, const char *expected) {
    if (j->position >= j->size) {
        orli_json_fail_at(j, j->position, "the text ends where %s should be: is the file complete?",
                          expected);
    } else {
        uint32_t code = 0;
        size_t n = orli_utf8_decode(j->text + j->position, j->size - j->position, &code);
        if (n && code >= 0x20)
            orli_json_fail_at(j, j->position, "'%.*s' stands where %s should be", (int)n,
                              j->text + j->position, expected);
        else
            orli_json_fail_at(j, j->position, "byte 0x%02x stands where %s should be",
                              (unsigned char)j->text[j->position], expected);
    }
    return ORLI_JSON_ERROR;
}

/* Four hexadecimal digits at p, or −1. */
static int32_t orli_json_hex(const char *p, size_t n) {
    int32_t value = 0;
    size_t i;
    if (n < 4) return -1;
    for (i = 0; i < 4; i++) {
        int c = p[i], digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* One character of a string's inside at p, unescaped into out: its bytes there, *used bytes
 * here. 0: malformed. */
static size_t orli_json_char(const char *p, size_t n, char out[4], size_t *used) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t code = 0;
    int32_t high, low;
    const char *at;
    if (*p != '\\') {
        *used = orli_utf8_decode(p, n, &code);
        memcpy(out, p, *used);
        return (unsigned char)*p < 0x20 ? 0 : *used;
    }
    *used = 2;
    if (n < 2) return 0;
    if (p[1] != 'u') {
        at = p[1] ? strchr(from, p[1]) : NULL;
        if (at) out[0] = to[at - from];
        return at ? 1 : 0;
    }
    high = orli_json_hex(p + 2, n - 2);
    *used = 6;
    if (high < 0 || (high >= 0xdc00 && high < 0xe000)) return 0;
    if (high < 0xd800 || high >= 0xe000) return orli_utf8_encode((uint32_t)high, out);
    if (n < 12 || p[6] != '\\' || p[7] != 'u') return 0; /* half of a surrogate pair */
    low = orli_json_hex(p + 8, n - 8);
    *used = 12;
    if (low < 0xdc00 || low >= 0xe000) return 0;
    return orli_utf8_encode(0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00),
                            out);
}

static orl_status orli_json_scan_string(orli_json *j) {
    char out[4];
    size_t used;
    j->start = ++j->position;
    j->escaped = 0;
    while (j->position < j->size && j->text[j->position] != '"') {
        unsigned char c = (unsigned char)j->text[j->position];
        if (c >= 0x20 && c < 0x80 && c != '\\') {
            j->position++;
        } else if (orli_json_char(j->text + j->position, j->size - j->position, out, &used)) {
            if (c == '\\') j->escaped = 1;
            j->position += used;
        } else if (c == '\\') {
            return orli_json_fail_at(j, j->position,
                                     "a string has a malformed escape (or half of a surrogate "
                                     "pair): \\\\, \\\" and \\uXXXX are allowed");
        } else if (c < 0x20) {
            return orli_json_fail_at(j, j->position,
                                     "control character 0x%02x in a string: write it as \\u%04x "
                                     "(is a closing quote missing?)",
                                     c, c);
        } else {
            return orli_json_fail_at(j, j->position,
                                     "byte 0x%02x is not UTF-8 here: save the file as UTF-8", c);
        }
    }
    if (j->position >= j->size)
        return orli_json_fail_at(j, j->start - 1, "a string is not closed: is the file complete?");
    j->end = j->position++;
    return ORL_OK;
}

static size_t orli_json_digits(orli_json *j) {
    size_t from = j->position;
    while (j->position < j->size && j->text[j->position] >= '0' && j->text[j->position] <= '9')
        j->position++;
    return j->position - from;
}

static orli_json_event orli_json_scan_number(orli_json *j) {
    j->start = j->position;
    if (j->text[j->position] == '-') j->position++;
    /* and no digit after it */
    if (j->position < j->size && j->text[j->position] == '0') j->position++;
    else if (!orli_json_digits(j)) return orli_json_bad(j, "a digit");
    if (j->position < j->size && j->text[j->position] == '.') {
        j->position++;
        if (!orli_json_digits(j)) return orli_json_bad(j, "a digit");
    }
    if (j->position < j->size && (j->text[j->position] == 'e' || j->text[j->position] == 'E')) {
        j->position++;
        if (j->position < j->size && (j->text[j->position] == '+' || j->text[j->position] == '-'))
            j->position++;
        if (!orli_json_digits(j)) return orli_json_bad(j, "a digit");
    }
    j->end = j->position;
    j->want = ORLI_JSON_WANT_MORE;
    return ORLI_JSON_NUMBER;
}

static orli_json_event orli_json_scan_word(orli_json *j) {
    static const char *const word[3] = {"true", "false", "null"};
    int i;
    for (i = 0; i < 3; i++) {
        size_t n = strlen(word[i]);
        if (j->size - j->position < n || memcmp(j->text + j->position, word[i], n) != 0) continue;
        j->start = j->position;
        j->end = j->position += n;
        j->want = ORLI_JSON_WANT_MORE;
        return (orli_json_event)(ORLI_JSON_TRUE + i);
    }
    return orli_json_bad(j,
                         "a value (true, false, null, a number, a string, an object or an array)");
}

static orli_json_event orli_json_value(orli_json *j) {
    char c = j->position < j->size ? j->text[j->position] : 0;
    if (c == '"') {
        if (orli_json_scan_string(j) != ORL_OK) return ORLI_JSON_ERROR;
        j->want = ORLI_JSON_WANT_MORE;
        return ORLI_JSON_STRING;
    }
    if (c == '-' || (c >= '0' && c <= '9')) return orli_json_scan_number(j);
    if (c != '{' && c != '[') return orli_json_scan_word(j);
    if (j->depth == ORLI_JSON_DEPTH) {
        orli_json_fail_at(j, j->position, "nested deeper than %d levels", ORLI_JSON_DEPTH);
        return ORLI_JSON_ERROR;
    }
    j->object[j->depth++] = c == '{';
    j->start = j->position++;
    j->end = j->position;
    j->want = ORLI_JSON_WANT_FIRST;
    return c == '{' ? ORLI_JSON_OBJECT : ORLI_JSON_ARRAY;
}

/* The next event. After ORLI_JSON_KEY comes its value; after a failure nothing but
 * ORLI_JSON_ERROR. */
static orli_json_event orli_json_next(orli_json *j) {
    int in_object = j->depth && j->object[j->depth - 1];
    char c;
    if (orl_failed(j->ctx)) return ORLI_JSON_ERROR;
    orli_json_space(j);
    if (!j->depth && j->want == ORLI_JSON_WANT_MORE)
        return j->position == j->size ? ORLI_JSON_END : orli_json_bad(j, "the end of the text");
    c = j->position < j->size ? j->text[j->position] : 0;
    if (j->want >= ORLI_JSON_WANT_FIRST && c == (in_object ? '}' : ']')) {
        j->start = j->position++;
        j->end = j->position;
        j->depth--;
        j->want = ORLI_JSON_WANT_MORE;
        return in_object ? ORLI_JSON_OBJECT_END : ORLI_JSON_ARRAY_END;
    }
    if (j->want == ORLI_JSON_WANT_MORE) {
        if (c != ',') return orli_json_bad(j, in_object ? "',' or '}'" : "',' or ']'");
        j->position++;
        orli_json_space(j);
        j->want = ORLI_JSON_WANT_FIRST;
        c = j->position < j->size ? j->text[j->position] : 0;
    }
    if (!in_object || j->want == ORLI_JSON_WANT_VALUE) return orli_json_value(j);
    if (c != '"') return orli_json_bad(j, "a key in quotes");
    if (orli_json_scan_string(j) != ORL_OK) return ORLI_JSON_ERROR;
    orli_json_space(j);
    if (j->position >= j->size || j->text[j->position] != ':') return orli_json_bad(j, "':'");
    j->position++;
    j->want = ORLI_JSON_WANT_VALUE;
    return ORLI_JSON_KEY;
}

/* What comes next, without taking it. */
static orli_json_event orli_json_peek(const orli_json *j) {
    orli_json copy = *j;
    return orli_json_next(&copy);
}

/* Takes the next event, which must be `event`: 1, or an error and 0. */
static int orli_json_expect(orli_json *j, orli_json_event event) {
    orli_json_event got = orli_json_next(j);
    if (got == event) return 1;
    if (got != ORLI_JSON_ERROR)
        orli_json_fail_at(j, j->start, "%s stands where %s should be", orli_json_event_names[got],
                          orli_json_event_names[event]);
    return 0;
}
static int orli_json_open(orli_json *j, orli_json_event container) {
    return orli_json_expect(j, container);
}

/* In an object: takes the next key, 1; or its end, 0. */
static int orli_json_key(orli_json *j) { return orli_json_next(j) == ORLI_JSON_KEY; }

/* In an array: is there another value (to be read by the caller)? If not, its end has been
 * taken. */
static int orli_json_item(orli_json *j) {
    orli_json_event next = orli_json_peek(j);
    if (next == ORLI_JSON_ARRAY_END) orli_json_next(j);
    return next != ORLI_JSON_ARRAY_END && next != ORLI_JSON_ERROR;
}

/* Is the key or string read last equal to `text`? */
static int orli_json_is(const orli_json *j, const char *text) {
    size_t i = j->start, used, n, left = strlen(text);
    char out[4];
    if (!j->escaped)
        return left == j->end - j->start && memcmp(j->text + j->start, text, left) == 0;
    for (; i < j->end; i += used, text += n, left -= n) {
        n = orli_json_char(j->text + i, j->end - i, out, &used);
        if (!n || n > left || memcmp(out, text, n) != 0) return 0;
    }
    return left == 0;
}

/* Adds the key or string read last, unescaped, to `out`. */
static void orli_json_text(const orli_json *j, orli_str *out) {
    size_t i = j->start, used, n;
    char c[4];
    if (!j->escaped) {
        orli_str_add(out, j->text + i, j->end - i);
        return;
    }
    for (; i < j->end && !out->failed; i += used) {
        n = orli_json_char(j->text + i, j->end - i, c, &used);
        if (!n) return;
        orli_str_add(out, c, n);
    }
}

/* The number of the key or string read last, unescaped, among the names, new or old; ORLI_NONE if memory ran out. */
static size_t orli_json_name(orli_json *j, orli_names *names) {
    orli_str text = orli_str_new(j->ctx);
    size_t number;
    orli_json_text(j, &text);
    number = text.failed ? ORLI_NONE : orli_names_add(names, text.data ? text.data : "", text.length);
    orli_str_free(&text);
    return number;
}

/* Like orli_json_key(), and a key that `seen` (empty at the object's begin) holds already is an
 * error. */
static int orli_json_key_once(orli_json *j, orli_names *seen) {
    size_t before = seen->count, number;
    if (!orli_json_key(j)) return 0;
    number = orli_json_name(j, seen);
    if (number != ORLI_NONE && seen->count == before)
        orli_json_fail_at(j, j->start, "the key \"%.100s\" occurs twice in one object: remove one",
                          seen->name[number].text);
    return !orl_failed(j->ctx);
}

/* Replaces `out` by the string that comes next; 1, or an error and 0. */
static int orli_json_string(orli_json *j, orli_str *out) {
    out->length = 0;
    if (!orli_json_expect(j, ORLI_JSON_STRING)) return 0;
    orli_str_add(out, "", 0); /* so that data is there even if the string is empty */
    orli_json_text(j, out);
    return !out->failed;
}

static double orli_json_number(orli_json *j) {
    double x;
    if (!orli_json_expect(j, ORLI_JSON_NUMBER)) return 0;
    if (j->end - j->start > 1000) {
        orli_json_fail_at(j, j->start, "a number of %zu digits: 1000 are allowed",
                          j->end - j->start);
        return 0;
    }
    x = orli_parse_double(j->text + j->start, j->end - j->start);
    if (x - x != 0) {
        orli_json_fail_at(j, j->start, "the number %.40s… is too large for a double",
                          j->text + j->start);
        return 0;
    }
    return x;
}

/* A whole number in low … high; 3.0 and 3e0 are whole. */
static int64_t orli_json_int(orli_json *j, int64_t low, int64_t high) {
    uint64_t size = 0, limit = (uint64_t)INT64_MAX;
    size_t i;
    int64_t value = 0;
    int negative, fits = 1;
    orli_json before = *j;
    if (!orli_json_expect(j, ORLI_JSON_NUMBER)) return 0;
    negative = j->text[j->start] == '-';
    for (i = j->start + (negative ? 1 : 0); i < j->end && j->text[i] >= '0' && j->text[i] <= '9';
         i++) {
        unsigned digit = (unsigned)(j->text[i] - '0');
        if (size > (limit - digit) / 10) fits = 0;
        else size = size * 10 + digit;
    }
    if (i == j->end) {
        value = negative ? -(int64_t)size : (int64_t)size;
    } else {
        double x = orli_json_number(&before);
        if (orl_failed(j->ctx)) return 0;
        fits = fabs(x) < 9007199254740992.0 && floor(x) == x;
        if (fits) value = (int64_t)x;
    }
    if (!fits || value < low || value > high) {
        orli_json_fail_at(j, j->start,
                          "%.*s stands where a whole number from %lld to %lld should be",
                          (int)ORLI_MIN(j->end - j->start, 40), j->text + j->start, (long long)low,
                          (long long)high);
        return 0;
    }
    return value;
}

static int orli_json_bool(orli_json *j) {
    orli_json_event got = orli_json_next(j);
    if (got != ORLI_JSON_TRUE && got != ORLI_JSON_FALSE && got != ORLI_JSON_ERROR)
        orli_json_fail_at(j, j->start, "%s stands where true or false should be",
                          orli_json_event_names[got]);
    return got == ORLI_JSON_TRUE;
}

/* Takes a null if one comes next, 1; else leaves things as they are, 0. */
static int orli_json_null(orli_json *j) {
    if (orli_json_peek(j) != ORLI_JSON_NULL) return 0;
    orli_json_next(j);
    return 1;
}

/* Takes a whole value; its verbatim bytes are then text[start … end−1] (of a string: with its
 * quotes). */
static orl_status orli_json_skip(orli_json *j) {
    size_t depth = j->depth, from = 0;
    int first = 1;
    do {
        orli_json_event got = orli_json_next(j);
        if (got == ORLI_JSON_ERROR) return orl_error_status(j->ctx);
        if (first &&
            (got == ORLI_JSON_END || got == ORLI_JSON_OBJECT_END || got == ORLI_JSON_ARRAY_END))
            return orli_json_fail_at(j, j->start, "%s stands where a value should be",
                                     orli_json_event_names[got]);
        if (first) from = got == ORLI_JSON_STRING ? j->start - 1 : j->start;
        first = 0;
    } while (j->depth > depth || j->want == ORLI_JSON_WANT_VALUE);
    j->start = from;
    j->end = j->position;
    return ORL_OK;
}

/* How many members or values the object or array that comes next has. */
static size_t orli_json_count(orli_json j) {
    size_t n = 0;
    orli_json_event container = orli_json_next(&j);
    if (container == ORLI_JSON_OBJECT)
        for (; orli_json_key(&j); n++) orli_json_skip(&j);
    else if (container == ORLI_JSON_ARRAY)
        for (; orli_json_item(&j); n++) orli_json_skip(&j);
    return n;
}

/* Nothing but white space may be left. */
static orl_status orli_json_end(orli_json *j) {
    orli_json_expect(j, ORLI_JSON_END);
    return orl_error_status(j->ctx);
}

/* ---- JSON that is passed on ---- */

/* Takes the end of the object that a text ends with off it. */
static void orli_json_reopen(orli_str *s) {
    int brace = 0;
    while (s->length && strchr(brace ? " \n" : "} \n", s->data[s->length - 1]))
        if (s->data[--s->length] == '}') brace = 1;
}

/* out: an object. The members of the object `text` that it does not have are added to it, as they are spelled there,
 * but for those named in `without` (ended by NULL). */
static orl_status orli_json_add_others(orli_str *out, const char *text, size_t size, const char *name,
                                       const char *const *without) {
    orl_ctx *ctx = out->ctx;
    orli_names seen = orli_names_new(ctx);
    orli_json mine = orli_json_new(ctx, out->data, out->length, name, 1),
              other = orli_json_new(ctx, text, size, name, 1);
    size_t known, key, length;
    for (; *without; without++) orli_names_add(&seen, *without, strlen(*without));
    for (orli_json_open(&mine, ORLI_JSON_OBJECT); orli_json_key(&mine); orli_json_skip(&mine))
        orli_json_name(&mine, &seen);
    orli_json_reopen(out);
    for (orli_json_open(&other, ORLI_JSON_OBJECT); orli_json_key(&other) && !out->failed;) {
        known = seen.count, key = other.start, length = other.end - other.start;
        orli_json_name(&other, &seen);
        orli_json_skip(&other);
        if (seen.count == known || orl_failed(ctx)) continue;
        orli_str_puts(out, out->data[out->length - 1] == '{' ? "\n  \"" : ",\n  \"");
        orli_str_add(out, text + key, length);
        orli_str_puts(out, "\": ");
        orli_str_add(out, text + other.start, other.end - other.start);
    }
    orli_str_puts(out, "\n}\n");
    orli_names_free(&seen);
    return orl_error_status(ctx);
}

/* Has the object two members of one name, very many, or one of a very long name? Then that is an error. */
static orl_status orli_json_check_once(orl_ctx *ctx, const char *text, size_t size, const char *name) {
    orli_names seen = orli_names_new(ctx);
    orli_json j = orli_json_new(ctx, text, size, name, 1);
    size_t before, number;
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j); orli_json_skip(&j)) {
        before = seen.count;
        number = before < 4096 && j.end - j.start < 1000 ? orli_json_name(&j, &seen) : ORLI_NONE;
        if (number == ORLI_NONE)
            orli_json_fail_at(&j, j.start, "more than 4096 keys, or one of 1000 bytes: is this the right file?");
        else if (seen.count == before)
            orli_json_fail_at(&j, j.start, "the key \"%.100s\" occurs twice in one object: remove one",
                              seen.name[number].text);
    }
    orli_names_free(&seen);
    return orl_error_status(ctx);
}

/* ---- files that are kept as they came: what a directory holds beside what is read of it ----
 * A mapped one may be renamed, removed or replaced, as everything here and most programs do it; to cut the file itself
 * short would take the pages away that are still to be read. */

#define ORLI_KEPT_FILES 12
#define ORLI_KEPT_COPIED ((size_t)1 << 16) /* bytes; a larger file stays mapped, where it takes no memory of ours */

typedef struct orli_kept { /* the directory may be gone when they are written: a mapping outlives its file's name */
    struct {
        const char *name; /* a literal */
        const char *bytes;
        size_t size;
        orli_file map;    /* of nothing, if it is a copy */
    } file[ORLI_KEPT_FILES];
    size_t count;
} orli_kept;

static void orli_kept_free(orl_ctx *ctx, orli_kept *kept) {
    while (kept->count--) {
        if (kept->file[kept->count].map.mapped) orli_file_close(&kept->file[kept->count].map);
        else orli_free(ctx, kept->file[kept->count].bytes);
    }
    kept->count = 0;
}

/* The number of the file, or ORLI_NONE. */
static size_t orli_kept_find(const orli_kept *kept, const char *name) {
    size_t i;
    for (i = 0; i < kept->count; i++)
        if (strcmp(kept->file[i].name, name) == 0) return i;
    return ORLI_NONE;
}

static void orli_kept_add(orl_ctx *ctx, orli_kept *kept, const char *name, const char *bytes, size_t size) {
    char *copy = (char *)orli_alloc(ctx, ORLI_MAX(size, 1), 1);
    ORL_ASSERT(kept->count < ORLI_KEPT_FILES);
    if (!copy) return;
    if (size) memcpy(copy, bytes, size);
    memset(&kept->file[kept->count], 0, sizeof *kept->file);
    kept->file[kept->count].name = name, kept->file[kept->count].bytes = copy;
    kept->file[kept->count++].size = size;
}

/* The same of a mapped file, which is taken over. */
static void orli_kept_take(orli_kept *kept, const char *name, orli_file file) {
    ORL_ASSERT(kept->count < ORLI_KEPT_FILES);
    kept->file[kept->count].name = name, kept->file[kept->count].bytes = file.data;
    kept->file[kept->count].size = file.size, kept->file[kept->count++].map = file;
}

/* Remembers those of the files (their names ended by NULL) that the directory has. */
static orl_status orli_kept_read(orl_ctx *ctx, orli_kept *kept, const char *dir, const char *const *names) {
    char path[4096];
    orli_file file;
    for (; *names && !orl_failed(ctx); names++) {
        if (orli_join(ctx, path, dir, *names) != ORL_OK || !orli_exists(path) ||
            orli_file_open(ctx, path, &file) != ORL_OK)
            continue;
        if (file.size > ORLI_KEPT_COPIED) {
            orli_kept_take(kept, *names, file);
            continue;
        }
        orli_kept_add(ctx, kept, *names, file.data, file.size);
        orli_file_close(&file);
    }
    return orl_error_status(ctx);
}

static orl_status orli_kept_copy(orl_ctx *ctx, orli_kept *to, const orli_kept *from) {
    size_t i;
    for (i = 0; i < from->count; i++)
        orli_kept_add(ctx, to, from->file[i].name, from->file[i].bytes, from->file[i].size);
    return orl_error_status(ctx);
}

/* Writes file i into a directory. */
static orl_status orli_kept_write(orl_ctx *ctx, const orli_kept *kept, size_t i, const char *dir) {
    char path[4096];
    if (orl_failed(ctx) || orli_join(ctx, path, dir, kept->file[i].name) != ORL_OK) return orl_error_status(ctx);
    return orli_write_file(ctx, path, kept->file[i].bytes, kept->file[i].size);
}

/* ---- element types ---- */

typedef enum orli_dtype {
    ORLI_F32, ORLI_F16, ORLI_BF16, ORLI_F64, ORLI_I64, ORLI_I32, ORLI_I16, ORLI_I8, ORLI_U64,
    ORLI_U32, ORLI_U16, ORLI_U8, ORLI_BOOL,
    ORLI_DTYPE_UNKNOWN, ORLI_DTYPE_COUNT = ORLI_DTYPE_UNKNOWN
} orli_dtype;
#define ORLI_DTYPE_REAL (ORLI_DOUBLE ? ORLI_F64 : ORLI_F32) /* orl_real as an element type */
static const struct {
    const char *name;
    size_t size;
} orli_dtypes[ORLI_DTYPE_COUNT] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},
                                   {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8}, {"U32", 4},
                                   {"U16", 2}, {"U8", 1},  {"BOOL", 1}};

/* x as a binary float of `mantissa` stored bits and this exponent bias, rounded to nearest even
 * (IEEE 754, 4.3.1). */
static uint16_t orli_narrow(double x, int mantissa, int bias) {
    uint64_t bits, fraction, result;
    /* top: the exponent field of infinity */
    int exponent, shift = 52 - mantissa, top = 2 * bias + 1;
    unsigned sign;
    memcpy(&bits, &x, 8);
    sign = (unsigned)(bits >> 63) << 15;
    exponent = (int)(bits >> 52 & 0x7ff);
    fraction = bits & 0xfffffffffffffu;
    if (exponent == 0x7ff) /* infinity; a NaN stays a NaN, quiet, with the top of its payload */
        return (uint16_t)(sign | (unsigned)top << mantissa |
                          (fraction ? (unsigned)(fraction >> shift) | 1u << (mantissa - 1) : 0));
    if (exponent == 0) return (uint16_t)sign; /* a double's subnormals are far below any half */
    exponent += bias - 1023;
    fraction |= (uint64_t)1 << 52;
    if (exponent <= 0) shift += 1 - exponent, exponent = 1; /* subnormal here: fewer bits */
    if (shift > 54) return (uint16_t)sign;
    result = fraction >> shift;
    fraction &= ((uint64_t)1 << shift) - 1;
    if (fraction > (uint64_t)1 << (shift - 1) ||
        (fraction == (uint64_t)1 << (shift - 1) && (result & 1)))
        result++;
    /* the leading 1 adds one to the exponent, as does a carry */
    result += (uint64_t)(exponent - 1) << mantissa;
    return (uint16_t)(sign | (result >= (uint64_t)top << mantissa ? (unsigned)top << mantissa
                                                                  : (unsigned)result));
}

/* x as BF16, which is the upper half of a float, rounded to nearest even; a NaN stays one. */
static uint16_t orli_float_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float orli_bits_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float orli_f16_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return orli_bits_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return orli_bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
    /* subnormal: in units of 2^−24 */
    return (sign ? -1.0f : 1.0f) * (float)mantissa * 5.9604644775390625e-8f;
}

/* n floating-point elements at src (of any alignment) as orl_real; 0 if dtype is not a
 * floating-point type. */
static int orli_tensor_to_real(orli_dtype dtype, const void *src, size_t n, orl_real *dst) {
    const char *p = (const char *)src;
    size_t i;
    if (dtype > ORLI_F64) return 0;
    if (dtype == ORLI_DTYPE_REAL) {
        if (n) memcpy(dst, p, n * sizeof *dst); /* the bits as they are, NaNs too */
        return 1;
    }
    for (i = 0; i < n; i++) {
        uint16_t half;
        float single;
        double twice;
        switch (dtype) {
        case ORLI_F32: memcpy(&single, p + 4 * i, 4); dst[i] = (orl_real)single; break;
        case ORLI_F64: memcpy(&twice, p + 8 * i, 8); dst[i] = (orl_real)twice; break;
        case ORLI_F16: memcpy(&half, p + 2 * i, 2); dst[i] = (orl_real)orli_f16_float(half); break;
        default:
            memcpy(&half, p + 2 * i, 2);
            dst[i] = (orl_real)orli_bits_float((uint32_t)half << 16);
            break;
        }
    }
    return 1;
}

/* The other way, into any of the four floating-point types. */
static int orli_tensor_from_real(orli_dtype dtype, const orl_real *src, size_t n, void *dst) {
    char *p = (char *)dst;
    size_t i;
    if (dtype > ORLI_F64) return 0;
    if (dtype == ORLI_DTYPE_REAL) {
        if (n) memcpy(p, src, n * sizeof *src);
        return 1;
    }
    for (i = 0; i < n; i++) {
        uint16_t half = 0;
        float single = (float)src[i];
        double twice = (double)src[i];
        if (dtype == ORLI_F32) memcpy(p + 4 * i, &single, 4);
        else if (dtype == ORLI_F64) memcpy(p + 8 * i, &twice, 8);
        else if (dtype == ORLI_F16) half = orli_narrow(twice, 10, 15);
        else half = ORLI_DOUBLE ? orli_narrow(twice, 7, 127) : orli_float_bf16(single);
        if (dtype == ORLI_F16 || dtype == ORLI_BF16) memcpy(p + 2 * i, &half, 2);
    }
    return 1;
}

/* Where the first of n finite numbers stands that would become infinite in this type; n: nowhere. */
static size_t orli_tensor_overflow(orli_dtype dtype, const orl_real *src, size_t n) {
    /* the largest number and half a step: 2^128 − 2^103, 2^16 − 2^4, 2^128 − 2^119 */
    static const double limits[3] = {3.4028235677973366e38, 65520, 3.39617752923046e38};
    size_t i;
    if (dtype > ORLI_BF16 || dtype == ORLI_DTYPE_REAL) return n;
    for (i = 0; i < n; i++) {
        double size = fabs((double)src[i]);
        if (size >= limits[dtype] && size - size <= 0) return i;
    }
    return n;
}

static orl_status orli_fail_overflow(orl_ctx *ctx, const char *path, const char *name, double x, const char *type) {
    return orli_fail(ctx, ORL_ERR_ARGUMENT,
                     "%s: tensor \"%.100s\" has the number %.6g, which %s cannot hold: choose BF16 or F32", path,
                     name, x, type);
}

/* ---- safetensors: reading ----
 * A file is: the header's length (8 bytes), the header (JSON: name → dtype, shape,
 * data_offsets), the data. It stays mapped while it is open; tensors point into it. Their
 * number and the length of their names are counted in a first pass over the header, so that
 * memory is asked for once and is what the file justifies. */

#define ORLI_RANK_MAX 8
#define ORLI_ST_HEADER_MAX ((uint64_t)100000000)

typedef struct orli_st_tensor { /* 104 bytes, less than twice what it takes to declare one */
    const char *name;
    const char *data; /* of any alignment */
    size_t bytes;
    const char *spelling; /* of the dtype, in the header, up to a quote */
    size_t shape[ORLI_RANK_MAX];
    uint16_t rank, listed; /* listed: an index has named it */
    orli_dtype dtype;
} orli_st_tensor;

typedef struct orli_st_shard {
    orli_file file;
    const char *path;
    size_t header; /* bytes of JSON */
} orli_st_shard;

typedef struct orli_safetensors {
    orl_ctx *ctx;
    char path[4096];
    orli_st_shard *shard;
    size_t shards, shard_capacity;
    orli_st_tensor *tensor; /* sorted by name */
    size_t count;
    char *text; /* names, then metadata as key \0 value \0 */
    size_t text_bytes;
    const char **metadata; /* keys, sorted; each value stands behind its key */
    size_t metadata_count;
} orli_safetensors;

static void orli_safetensors_close(orli_safetensors *st) {
    size_t i;
    for (i = 0; i < st->shards; i++) {
        orli_file_close(&st->shard[i].file);
        orli_free(st->ctx, st->shard[i].path);
    }
    orli_free(st->ctx, st->shard);
    orli_free(st->ctx, st->tensor);
    orli_free(st->ctx, st->text);
    orli_free(st->ctx, st->metadata);
    memset(st, 0, sizeof *st);
}

static size_t orli_st_count(const orli_st_tensor *t) { /* elements */
    size_t i, n = 1;
    for (i = 0; i < t->rank; i++) n = orli_mul(n, t->shape[i]);
    return n;
}

static int orli_st_by_data(const void *a, const void *b) {
    const orli_st_tensor *s = (const orli_st_tensor *)a, *t = (const orli_st_tensor *)b;
    if (s->data != t->data) return s->data < t->data ? -1 : 1;
    return s->bytes < t->bytes ? -1 : s->bytes > t->bytes;
}
static int orli_st_by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}
static int orli_st_by_name(const void *a, const void *b) {
    return strcmp(((const orli_st_tensor *)a)->name, ((const orli_st_tensor *)b)->name);
}

/* The tensor of this name, or NULL: no error. */
static const orli_st_tensor *orli_safetensors_find(const orli_safetensors *st, const char *name) {
    size_t low = 0, high = st->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(st->tensor[middle].name, name);
        if (order == 0) return &st->tensor[middle];
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* The metadata of this key, or NULL: no error. */
static const char *orli_safetensors_metadata(const orli_safetensors *st, const char *key) {
    size_t low = 0, high = st->metadata_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *text = st->metadata[middle];
        int order = strcmp(text, key);
        if (order == 0) return text + strlen(text) + 1;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

#define ORLI_READ_CHUNK 65536 /* numbers of a task */

typedef struct orli_read_job { /* most files have BF16: their pages and ours are touched on all threads */
    const orli_kernels *kern;
    const uint16_t *from;
    orl_real *to;
    size_t n;
} orli_read_job;

static void orli_read_task(void *arg, size_t task, size_t worker) {
    const orli_read_job *j = (const orli_read_job *)arg;
    size_t first = task * ORLI_READ_CHUNK;
    (void)worker;
    j->kern->widen(ORLI_MIN(j->n - first, (size_t)ORLI_READ_CHUNK), j->to + first, j->from + first);
}

/* Elements first … first+n−1 of a tensor as orl_real. */
static orl_status orli_safetensors_read(const orli_safetensors *st, const orli_st_tensor *t,
                                        size_t first, size_t n, orl_real *dst) {
    size_t quote;
    ORL_ASSERT(orli_add(first, n) <= orli_st_count(t));
    if (t->dtype == ORLI_BF16 && n > ORLI_READ_CHUNK && (uintptr_t)t->data % sizeof(uint16_t) == 0) {
        orli_read_job job;
        job.kern = st->ctx->kernels, job.n = n, job.to = dst;
        job.from = (const uint16_t *)(const void *)t->data + first;
        orli_parallel(st->ctx, ORLI_WORK_OTHER, (n - 1) / ORLI_READ_CHUNK + 1, orli_read_task, &job);
        return ORL_OK;
    }
    if (t->dtype <= ORLI_F64 &&
        orli_tensor_to_real(t->dtype, t->data + first * orli_dtypes[t->dtype].size, n, dst))
        return ORL_OK;
    quote = (size_t)((const char *)memchr(t->spelling, '"', 64 + ORLI_ST_HEADER_MAX) - t->spelling);
    return orli_fail(st->ctx, ORL_ERR_FORMAT,
                     "%s: tensor \"%.100s\" is of type %.*s, which cannot be read as numbers: "
                     "convert it to F32, F16, BF16 or F64",
                     st->path, t->name, (int)ORLI_MIN(quote, 32), t->spelling);
}

/* Opens the reader on a shard's header. */
static orli_json orli_st_header(orl_ctx *ctx, const orli_st_shard *s) {
    return orli_json_new(ctx, s->file.data + 8, s->header, s->path, 1);
}

static orl_status orli_st_shard_open(orl_ctx *ctx, const char *path, orli_st_shard *s) {
    uint64_t header;
    if (orli_file_open(ctx, path, &s->file) != ORL_OK) return orl_error_status(ctx);
    if (s->file.size < 8)
        return orli_fail(
            ctx, ORL_ERR_FORMAT,
            "%s: %zu bytes are too few for a safetensors file: it was cut off, fetch it again",
            path, s->file.size);
    memcpy(&header, s->file.data, 8);
    if (header > ORLI_ST_HEADER_MAX)
        return orli_fail(
            ctx, ORL_ERR_FORMAT,
            "%s: a header of %llu bytes (100 MB are allowed): this is no safetensors file", path,
            (unsigned long long)header);
    if (header > s->file.size - 8)
        return orli_fail(ctx, ORL_ERR_FORMAT,
                         "%s: the header is %llu bytes long and the file ends after %zu: it was "
                         "cut off, fetch it again",
                         path, (unsigned long long)header, s->file.size);
    s->header = (size_t)header;
    if (!s->header || s->file.data[8] != '{')
        return orli_fail(
            ctx, ORL_ERR_FORMAT,
            "%s: the header at byte 8 does not begin with '{': this is no safetensors file", path);
    return ORL_OK;
}

/* First pass: how many tensors and metadata pairs there are, and how much text. */
static void orli_st_survey(orli_safetensors *st, const orli_st_shard *s) {
    orli_json j = orli_st_header(st->ctx, s);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (!orli_json_is(&j, "__metadata__")) {
            st->count++;
            st->text_bytes += j.end - j.start + 1;
            orli_json_skip(&j);
            continue;
        }
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            st->metadata_count++;
            st->text_bytes += j.end - j.start + 1;
            if (orli_json_expect(&j, ORLI_JSON_STRING)) st->text_bytes += j.end - j.start + 1;
        }
    }
    orli_json_end(&j);
}

/* Copies the string read last into the text; zeros inside would cut it short, so they are
 * errors. */
static const char *orli_st_copy(orli_safetensors *st, orli_json *j) {
    char *at = st->text + st->text_bytes, *out = at;
    size_t i = j->start, used, n;
    for (; i < j->end; i += used, out += n) {
        /* never longer than what it is read from, plus the zero */
        n = orli_json_char(j->text + i, j->end - i, out, &used);
        if (!n || !*out) {
            orli_json_fail_at(j, i, "a zero character in a name or in metadata: remove it");
            break;
        }
    }
    *out = 0;
    st->text_bytes += (size_t)(out - at) + 1;
    return at;
}

static void orli_st_read_metadata(orli_safetensors *st, orli_json *j) {
    if (st->metadata_count)
        orli_json_fail_at(j, j->start, "\"__metadata__\" occurs twice: remove one");
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        st->metadata[st->metadata_count++] = orli_st_copy(st, j);
        if (orli_json_expect(j, ORLI_JSON_STRING)) orli_st_copy(st, j);
    }
}

/* {"dtype": …, "shape": […], "data_offsets": [begin, end]} */
static void orli_st_read_tensor(orli_safetensors *st, const orli_st_shard *s, orli_json *j,
                                orli_st_tensor *t) {
    size_t size = s->file.size - 8 - s->header, key = j->start, n;
    int64_t offset[2] = {0, 0};
    int seen = 0, bit, i;
    t->dtype = ORLI_DTYPE_UNKNOWN;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        bit = orli_json_is(j, "dtype")          ? 1
              : orli_json_is(j, "shape")        ? 2
              : orli_json_is(j, "data_offsets") ? 4
                                                : 0;
        if (seen & bit)
            orli_json_fail_at(j, j->start, "tensor \"%.100s\": a key occurs twice: remove one",
                              t->name);
        seen |= bit;
        if (bit == 1 && orli_json_expect(j, ORLI_JSON_STRING)) {
            t->spelling = j->text + j->start;
            for (i = 0; i < ORLI_DTYPE_COUNT; i++)
                if (orli_json_is(j, orli_dtypes[i].name)) t->dtype = (orli_dtype)i;
        } else if (bit == 2) {
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
                size_t dimension = (size_t)orli_json_int(j, 0, INT64_MAX);
                if (t->rank == ORLI_RANK_MAX)
                    orli_json_fail_at(j, j->start, "tensor \"%.100s\" has more than %d dimensions",
                                      t->name, ORLI_RANK_MAX);
                else t->shape[t->rank++] = dimension;
            }
        } else if (bit == 4) {
            orli_json_open(j, ORLI_JSON_ARRAY);
            for (i = 0; i < 2; i++) offset[i] = orli_json_int(j, 0, INT64_MAX);
            orli_json_expect(j, ORLI_JSON_ARRAY_END);
        } else {
            orli_json_skip(j);
        }
    }
    if (orl_failed(st->ctx)) return;
    if (seen != 7) {
        orli_json_fail_at(j, key, "tensor \"%.100s\" has no %s: fetch the file again", t->name,
                          !(seen & 1)   ? "dtype"
                          : !(seen & 2) ? "shape"
                                        : "data_offsets");
        return;
    }
    if (offset[0] > offset[1])
        orli_json_fail_at(j, key, "tensor \"%.100s\" ends at %lld, before its begin %lld", t->name,
                          (long long)offset[1], (long long)offset[0]);
    else if ((uint64_t)offset[1] > size)
        orli_json_fail_at(j, key,
                          "tensor \"%.100s\" ends at byte %lld of the data and the file has %zu of "
                          "them: it was cut off, fetch it again",
                          t->name, (long long)offset[1], size);
    t->bytes = (size_t)(offset[1] - offset[0]);
    t->data = s->file.data + 8 + s->header + (size_t)ORLI_MIN((uint64_t)offset[0], size);
    n = orli_st_count(t);
    if (t->dtype != ORLI_DTYPE_UNKNOWN &&
        (n == SIZE_MAX || orli_mul(n, orli_dtypes[t->dtype].size) != t->bytes))
        orli_json_fail_at(j, key,
                          "tensor \"%.100s\": its shape times the size of %s is not the %zu bytes "
                          "that its data_offsets span",
                          t->name, orli_dtypes[t->dtype].name, t->bytes);
}

/* The tensors of one shard, which lie in its data end to end. */
static orl_status orli_st_check_layout(orli_safetensors *st, const orli_st_shard *s,
                                       orli_st_tensor *t, size_t n) {
    const char *begin = s->file.data + 8 + s->header, *at = begin,
               *end = s->file.data + s->file.size;
    size_t i;
    orli_sort(t, n, sizeof *t, orli_st_by_data);
    for (i = 0; i < n; i++) {
        if (t[i].data < at)
            return orli_fail(st->ctx, ORL_ERR_FORMAT,
                             "%s: tensor \"%.100s\" overlaps \"%.100s\" at byte %zu of the data: "
                             "the file is damaged",
                             s->path, t[i].name, t[i - 1].name, (size_t)(t[i].data - begin));
        if (t[i].data > at)
            return orli_fail(
                st->ctx, ORL_ERR_FORMAT,
                "%s: a gap of %zu bytes stands before tensor \"%.100s\": the file is damaged",
                s->path, (size_t)(t[i].data - at), t[i].name);
        at = t[i].data + t[i].bytes;
    }
    if (at != end)
        return orli_fail(st->ctx, ORL_ERR_FORMAT,
                         "%s: %zu bytes stand behind the last tensor: the file is damaged", s->path,
                         (size_t)(end - at));
    return ORL_OK;
}

/* Second pass over all shards. */
static orl_status orli_st_read(orli_safetensors *st) {
    size_t i, first;
    st->tensor = (orli_st_tensor *)orli_alloc_zero(st->ctx, st->count, sizeof *st->tensor);
    st->text = (char *)orli_alloc(st->ctx, st->text_bytes, 1);
    st->metadata = (const char **)orli_alloc(st->ctx, st->metadata_count, sizeof *st->metadata);
    if (!st->tensor || !st->text || !st->metadata) return ORL_ERR_MEMORY;
    st->count = st->text_bytes = st->metadata_count = 0;
    for (i = 0; i < st->shards; i++) {
        orli_json j = orli_st_header(st->ctx, &st->shard[i]);
        first = st->count;
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            if (orli_json_is(&j, "__metadata__")) {
                if (i == 0) orli_st_read_metadata(st, &j);
                else orli_json_skip(&j); /* shards repeat it */
            } else {
                st->tensor[st->count].name = orli_st_copy(st, &j);
                orli_st_read_tensor(st, &st->shard[i], &j, &st->tensor[st->count]);
                st->count++;
            }
        }
        if (orl_failed(st->ctx) || orli_st_check_layout(st, &st->shard[i], st->tensor + first,
                                                        st->count - first) != ORL_OK)
            return orl_error_status(st->ctx);
    }
    orli_sort(st->tensor, st->count, sizeof *st->tensor, orli_st_by_name);
    for (i = 1; i < st->count; i++)
        if (strcmp(st->tensor[i - 1].name, st->tensor[i].name) == 0)
            return orli_fail(st->ctx, ORL_ERR_FORMAT,
                             "%s: two tensors have the name \"%.100s\": remove one", st->path,
                             st->tensor[i].name);
    orli_sort(st->metadata, st->metadata_count, sizeof *st->metadata, orli_st_by_key);
    for (i = 1; i < st->metadata_count; i++)
        if (strcmp(st->metadata[i - 1], st->metadata[i]) == 0)
            return orli_fail(st->ctx, ORL_ERR_FORMAT,
                             "%s: the metadata key \"%.100s\" occurs twice: remove one", st->path,
                             st->metadata[i]);
    return ORL_OK;
}

static orl_status orli_st_add_shard(orli_safetensors *st, const char *path) {
    orli_st_shard *s;
    if (ORLI_RESERVE(st->ctx, st->shard, st->shard_capacity, st->shards + 1) != ORL_OK)
        return ORL_ERR_MEMORY;
    s = &st->shard[st->shards++];
    memset(s, 0, sizeof *s);
    s->path = orli_copy_string(st->ctx, path);
    if (!s->path || orli_st_shard_open(st->ctx, path, s) != ORL_OK)
        return orl_error_status(st->ctx);
    orli_st_survey(st, s);
    return orl_error_status(st->ctx);
}

/* The shard of this path, or NULL: the one opened last, most often. */
static orli_st_shard *orli_st_find_shard(const orli_safetensors *st, const char *path) {
    size_t i = st->shards;
    while (i > 0 && strcmp(st->shard[i - 1].path, path) != 0) i--;
    return i ? &st->shard[i - 1] : NULL;
}

/* One line of an index: the tensor must be in the shard that is named for it, and be named once. */
static void orli_st_index_check(orli_safetensors *st, orli_json *j, size_t key, const char *name, const char *file,
                                const orli_st_shard *shard) {
    const orli_st_tensor *t = orli_safetensors_find(st, name);
    if (!t || !shard || t->data < shard->file.data || t->data > shard->file.data + shard->file.size)
        orli_json_fail_at(j, key,
                          "tensor \"%.100s\" is not in %.100s: the index and the shards do not belong together", name,
                          file);
    else if (t->listed)
        orli_json_fail_at(j, key, "the key \"%.100s\" occurs twice in one object: remove one", name);
    else st->tensor[t - st->tensor].listed = 1;
}

/* {tensor name: file beside the index}. check: the second time round, when the shards are open. */
static void orli_st_index_map(orli_safetensors *st, orli_json *j, int check) {
    orli_str name = orli_str_new(st->ctx), file = orli_str_new(st->ctx);
    char path[4096];
    const char *slash = strrchr(st->path, '/');
    int dir = slash ? (int)(slash - st->path) + 1 : 0;
    size_t key;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        key = j->start, name.length = 0;
        orli_str_add(&name, "", 0);
        orli_json_text(j, &name);
        if (!orli_json_string(j, &file) || name.failed) break;
        if (strchr(file.data, '/') ||
            snprintf(path, sizeof path, "%.*s%s", dir, st->path, file.data) >= (int)sizeof path) {
            orli_json_fail_at(j, j->start, "\"%.100s\" is not the name of a file beside this one", file.data);
        } else if (check) {
            orli_st_index_check(st, j, key, name.data, file.data, orli_st_find_shard(st, path));
        } else if (!orli_st_find_shard(st, path)) {
            if (orli_exists(path)) orli_st_add_shard(st, path);
            else
                orli_json_fail_at(j, j->start, "the shard %.200s is missing: fetch it into the same directory",
                                  file.data);
        }
    }
    orli_str_free(&name);
    orli_str_free(&file);
}

/* What no line of the index says: that a shard has a tensor more, or that there is a shard more than the "…-of-00003"
 * in its name. */
static void orli_st_index_whole(orli_safetensors *st) {
    const char *of = st->shards ? strstr(st->shard[0].path, "-of-") : NULL;
    unsigned long shards = of ? strtoul(of + 4, NULL, 10) : 0;
    size_t i;
    for (i = 0; i < st->count && !orl_failed(st->ctx); i++)
        if (!st->tensor[i].listed)
            orli_fail(st->ctx, ORL_ERR_FORMAT,
                      "%s: tensor \"%.100s\" is in a shard and not in the index: they do not belong together", st->path,
                      st->tensor[i].name);
    if (shards && shards != st->shards)
        orli_fail(st->ctx, ORL_ERR_FORMAT, "%s: names %zu shards, whose names say that there are %lu: fetch it again",
                  st->path, st->shards, shards);
}

/* model.safetensors.index.json: {"weight_map": {…}} */
static void orli_st_index(orli_safetensors *st, const orli_file *index, int check) {
    orli_json j = orli_json_new(st->ctx, index->data, index->size, st->path, 1);
    int found = 0;
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (!orli_json_is(&j, "weight_map")) {
            orli_json_skip(&j);
            continue;
        }
        found = 1;
        orli_st_index_map(st, &j, check);
    }
    if (!found)
        orli_json_fail_at(&j, 0, "no \"weight_map\": this is no index of safetensors shards");
    orli_json_end(&j);
    if (check) orli_st_index_whole(st);
}

/* path: a .safetensors file, an index (….json), or a directory with model.safetensors or its index.
 * On failure nothing is left open. */
static orl_status orli_safetensors_open(orl_ctx *ctx, const char *path, orli_safetensors *st) {
    struct stat info;
    orli_file index;
    size_t n;
    memset(st, 0, sizeof *st);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    st->ctx = ctx;
    if (strlen(path) >= sizeof st->path)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%.80s…: the path is too long", path);
    strcpy(st->path, path);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        if (orli_join(ctx, st->path, path, "model.safetensors") != ORL_OK)
            return orl_error_status(ctx);
        if (!orli_exists(st->path) &&
            orli_join(ctx, st->path, path, "model.safetensors.index.json") != ORL_OK)
            return orl_error_status(ctx);
        if (!orli_exists(st->path))
            return orli_fail(ctx, ORL_ERR_IO,
                             "%s: holds neither model.safetensors nor model.safetensors.index.json",
                             path);
    }
    n = strlen(st->path);
    if (n > 5 && strcmp(st->path + n - 5, ".json") == 0) {
        if (orli_file_open(ctx, st->path, &index) == ORL_OK) {
            orli_st_index(st, &index, 0);
            if (!orl_failed(ctx) && orli_st_read(st) == ORL_OK) orli_st_index(st, &index, 1);
            orli_file_close(&index);
        }
    } else if (orli_st_add_shard(st, st->path) == ORL_OK) {
        orli_st_read(st);
    }
    if (orl_failed(ctx)) orli_safetensors_close(st);
    return orl_error_status(ctx);
}

/* ---- safetensors: writing ----
 *     orli_st_writer w = orli_st_writer_new(ctx);
 *     orli_st_put_metadata(&w, "format", "pt");
 *     orli_st_put_tensor(&w, "weight", ORLI_BF16, 2, shape, ORLI_DTYPE_REAL, data);
 *     orli_st_save(&w, path);                       frees what the writer holds, also on failure
 * Sources are read while saving. Wider elements come first, so that each is aligned to its size. */

/* Gives elements first … first+n−1 of a tensor. */
typedef void (*orli_st_source)(void *user, size_t first, size_t n, orl_real *out);

typedef struct orli_st_entry {
    char *name;
    orli_dtype dtype;
    size_t rank, shape[ORLI_RANK_MAX], count;
    const char *bytes;       /* elements of type dtype, or … */
    const orl_real *reals;   /* … elements to convert, or … */
    orli_st_source source;   /* … something that computes them */
    void *user;
} orli_st_entry;

typedef struct orli_st_writer {
    orl_ctx *ctx;
    orli_str metadata;
    orli_st_entry *entry;
    size_t entries, capacity;
} orli_st_writer;

static orli_st_writer orli_st_writer_new(orl_ctx *ctx) {
    orli_st_writer w;
    memset(&w, 0, sizeof w);
    w.ctx = ctx;
    w.metadata = orli_str_new(ctx);
    return w;
}

static void orli_st_put_metadata(orli_st_writer *w, const char *key, const char *value) {
    if (w->metadata.length) orli_str_puts(&w->metadata, ",");
    orli_json_put_string(&w->metadata, key, strlen(key));
    orli_str_puts(&w->metadata, ":");
    orli_json_put_string(&w->metadata, value, strlen(value));
}

static orli_st_entry *orli_st_declare(orli_st_writer *w, const char *name, orli_dtype dtype,
                                      size_t rank, const size_t *shape) {
    orli_st_entry *e;
    size_t i;
    ORL_ASSERT(rank <= ORLI_RANK_MAX && dtype < ORLI_DTYPE_COUNT);
    if (orl_failed(w->ctx) || ORLI_RESERVE(w->ctx, w->entry, w->capacity, w->entries + 1) != ORL_OK)
        return NULL;
    e = &w->entry[w->entries];
    memset(e, 0, sizeof *e);
    e->name = orli_copy_string(w->ctx, name);
    if (!e->name) return NULL;
    w->entries++;
    e->dtype = dtype;
    e->rank = rank;
    e->count = 1;
    for (i = 0; i < rank; i++) e->shape[i] = shape[i], e->count = orli_mul(e->count, shape[i]);
    return e;
}

/* data: elements of type `from`, which is dtype itself or, to be converted, ORLI_DTYPE_REAL. It
 * must last until saved. */
static void orli_st_put_tensor(orli_st_writer *w, const char *name, orli_dtype dtype, size_t rank,
                               const size_t *shape, orli_dtype from, const void *data) {
    orli_st_entry *e = orli_st_declare(w, name, dtype, rank, shape);
    ORL_ASSERT(from == dtype || (from == ORLI_DTYPE_REAL && dtype <= ORLI_F64));
    if (!e) return;
    if (from == dtype) e->bytes = (const char *)data;
    else e->reals = (const orl_real *)data;
}

static void orli_st_put_source(orli_st_writer *w, const char *name, orli_dtype dtype, size_t rank,
                               const size_t *shape, orli_st_source source, void *user) {
    orli_st_entry *e = orli_st_declare(w, name, dtype, rank, shape);
    ORL_ASSERT(dtype <= ORLI_F64);
    if (!e) return;
    e->source = source;
    e->user = user;
}

static void orli_st_put_data(orli_writer *out, const orli_st_entry *e) {
    orl_real block[1024];
    const orl_real *from;
    char narrow[1024 * 8];
    size_t size = orli_dtypes[e->dtype].size, done, n, bad;
    if (e->bytes) {
        orli_writer_put(out, e->bytes, e->count * size);
        return;
    }
    for (done = 0; done < e->count && !orl_failed(out->ctx); done += n) {
        n = ORLI_MIN(e->count - done, sizeof block / sizeof *block);
        if (e->source) e->source(e->user, done, n, block);
        from = e->source ? block : e->reals + done;
        bad = orli_tensor_overflow(e->dtype, from, n);
        if (bad < n) orli_fail_overflow(out->ctx, out->path, e->name, (double)from[bad], orli_dtypes[e->dtype].name);
        orli_tensor_from_real(e->dtype, from, n, narrow);
        orli_writer_put(out, narrow, n * size);
    }
}

static void orli_st_put_header(orli_st_writer *w, orli_str *s) {
    size_t size, i, d, offset = 0;
    orli_str_puts(s, "{");
    if (w->metadata.length) {
        orli_str_puts(s, "\"__metadata__\":{");
        orli_str_add(s, w->metadata.data, w->metadata.length);
        orli_str_puts(s, "}");
    }
    for (size = 8; size; size /= 2)
        for (i = 0; i < w->entries; i++) {
            const orli_st_entry *e = &w->entry[i];
            if (orli_dtypes[e->dtype].size != size) continue;
            orli_str_puts(s, s->length > 1 ? "," : "");
            orli_json_put_string(s, e->name, strlen(e->name));
            orli_str_printf(s, ":{\"dtype\":\"%s\",\"shape\":[", orli_dtypes[e->dtype].name);
            for (d = 0; d < e->rank; d++) orli_str_printf(s, "%s%zu", d ? "," : "", e->shape[d]);
            orli_str_printf(s, "],\"data_offsets\":[%zu,%zu]}", offset, offset + e->count * size);
            offset += e->count * size;
        }
    orli_str_puts(s, "}");
    while (s->length % 8 && !s->failed) orli_str_puts(s, " ");
}

static orl_status orli_st_save(orli_st_writer *w, const char *path) {
    orli_str header = orli_str_new(w->ctx);
    orli_writer out;
    uint64_t length;
    size_t size, i;
    if (!orl_failed(w->ctx)) orli_st_put_header(w, &header);
    length = header.length;
    if (orli_writer_open(w->ctx, path, &out) == ORL_OK) {
        orli_writer_put(&out, &length, 8);
        orli_writer_put(&out, header.data, header.length);
        for (size = 8; size; size /= 2)
            for (i = 0; i < w->entries; i++)
                if (orli_dtypes[w->entry[i].dtype].size == size)
                    orli_st_put_data(&out, &w->entry[i]);
        orli_writer_close(&out);
    }
    orli_str_free(&header);
    orli_str_free(&w->metadata);
    for (i = 0; i < w->entries; i++) orli_free(w->ctx, w->entry[i].name);
    orli_free(w->ctx, w->entry);
    w->entry = NULL;
    w->entries = w->capacity = 0;
    return orl_error_status(w->ctx);
}

/* ---- GGUF: writing ----
 * llama.cpp's files: "GGUF", the version 3, the numbers of tensors and of pairs, the pairs of key and value, a line
 * for each tensor, the data. A tensor's data begins at a multiple of 32 bytes, and its fastest dimension is named
 * first: (cols, rows).
 *     orli_gguf g = orli_gguf_new(ctx);
 *     orli_gguf_put_text(&g, "general.architecture", "llama");
 *     orli_gguf_put_tensor(&g, "token_embd.weight", ORL_Q8_0, 2, rows, cols, give, user);
 *     orli_gguf_save(&g, path);                     frees what the writer holds, also on failure
 * Rows are asked for while saving: no more than one is held. */

#define ORLI_GGUF_ALIGN 32
typedef enum orli_gguf_type { /* of a value */
    ORLI_GGUF_U32 = 4, ORLI_GGUF_I32 = 5, ORLI_GGUF_F32 = 6, ORLI_GGUF_BOOL = 7, ORLI_GGUF_TEXT = 8, ORLI_GGUF_ARRAY = 9
} orli_gguf_type;

static const struct { /* by orl_dtype */
    const char *name;
    uint32_t code, file;  /* of a tensor's type; of a file that is mostly of it */
    size_t block, bytes;  /* elements are stored by blocks of so many bytes */
} orli_ggml_types[] = {{"F32", 0, 0, 1, 4}, {"F16", 1, 1, 1, 2}, {"BF16", 30, 32, 1, 2}, {"Q8_0", 8, 7, 32, 34}};

/* Gives a row of a tensor. */
typedef void (*orli_gguf_source)(void *user, size_t row, orl_real *out);

typedef struct orli_gguf_entry {
    char *name;
    orl_dtype dtype;
    size_t rank, rows, cols;
    orli_gguf_source source;
    void *user;
} orli_gguf_entry;

typedef struct orli_gguf {
    orl_ctx *ctx;
    orli_str pairs; /* as they stand in the file */
    uint64_t count; /* of pairs */
    orli_gguf_entry *entry;
    size_t entries, capacity;
} orli_gguf;

static orli_gguf orli_gguf_new(orl_ctx *ctx) {
    orli_gguf g;
    memset(&g, 0, sizeof g);
    g.ctx = ctx;
    g.pairs = orli_str_new(ctx);
    return g;
}

static void orli_gguf_free(orli_gguf *g) {
    size_t i;
    for (i = 0; i < g->entries; i++) orli_free(g->ctx, g->entry[i].name);
    orli_free(g->ctx, g->entry);
    orli_str_free(&g->pairs);
    *g = orli_gguf_new(g->ctx);
}

static void orli_gguf_u32(orli_str *s, uint32_t x) { orli_str_add(s, (const char *)&x, 4); }
static void orli_gguf_u64(orli_str *s, uint64_t x) { orli_str_add(s, (const char *)&x, 8); }
static void orli_gguf_text(orli_str *s, const char *text, size_t n) {
    orli_gguf_u64(s, n);
    orli_str_add(s, text, n);
}

/* A key and the type of its value, which the caller adds to g->pairs. */
static void orli_gguf_key(orli_gguf *g, const char *key, orli_gguf_type type) {
    g->count++;
    orli_gguf_text(&g->pairs, key, strlen(key));
    orli_gguf_u32(&g->pairs, (uint32_t)type);
}
static void orli_gguf_array(orli_gguf *g, const char *key, orli_gguf_type type, size_t count) {
    orli_gguf_key(g, key, ORLI_GGUF_ARRAY);
    orli_gguf_u32(&g->pairs, (uint32_t)type);
    orli_gguf_u64(&g->pairs, count);
}
static void orli_gguf_put_u32(orli_gguf *g, const char *key, size_t x) {
    orli_gguf_key(g, key, ORLI_GGUF_U32);
    orli_gguf_u32(&g->pairs, (uint32_t)x);
}
static void orli_gguf_put_f32(orli_gguf *g, const char *key, double x) {
    float single = (float)x;
    orli_gguf_key(g, key, ORLI_GGUF_F32);
    orli_str_add(&g->pairs, (const char *)&single, 4);
}
static void orli_gguf_put_bool(orli_gguf *g, const char *key, int x) {
    orli_gguf_key(g, key, ORLI_GGUF_BOOL);
    orli_str_add(&g->pairs, x ? "\1" : "", 1);
}
static void orli_gguf_put_text(orli_gguf *g, const char *key, const char *text) {
    orli_gguf_key(g, key, ORLI_GGUF_TEXT);
    orli_gguf_text(&g->pairs, text, strlen(text));
}

/* dtype: that of a tensor whose rows its blocks do not divide becomes F16, as in llama.cpp's own converter. rank 1:
 * one row. */
static void orli_gguf_put_tensor(orli_gguf *g, const char *name, orl_dtype dtype, size_t rank, size_t rows, size_t cols,
                                 orli_gguf_source source, void *user) {
    orli_gguf_entry *e;
    if (orl_failed(g->ctx) || ORLI_RESERVE(g->ctx, g->entry, g->capacity, g->entries + 1) != ORL_OK) return;
    e = &g->entry[g->entries];
    e->name = orli_copy_string(g->ctx, name);
    if (!e->name) return;
    g->entries++;
    e->dtype = cols % orli_ggml_types[dtype].block ? ORL_F16 : dtype;
    e->rank = rank, e->rows = rows, e->cols = cols, e->source = source, e->user = user;
}

static size_t orli_gguf_row_bytes(const orli_gguf_entry *e) {
    return e->cols / orli_ggml_types[e->dtype].block * orli_ggml_types[e->dtype].bytes;
}

/* Q8_0: blocks of 32, a scale d in F16 and x ≈ d·q, q in −127 … 127. Where the first number stands that cannot be
 * stored, or n. */
static size_t orli_ggml_q8_0(const orl_real *x, size_t n, char *out) {
    size_t i, k;
    for (i = 0; i < n; i += 32, out += 34) {
        float most = 0, d, inverse;
        uint16_t half;
        for (k = 0; k < 32; k++) {
            float size = fabsf((float)x[i + k]);
            if (!(size < 127.0f * 65504.0f)) return i + k;
            most = ORLI_MAX(most, size);
        }
        d = most / 127.0f;
        inverse = d > 0 ? 1.0f / d : 0.0f;
        half = orli_narrow((double)d, 10, 15);
        memcpy(out, &half, 2);
        for (k = 0; k < 32; k++) out[2 + k] = (char)(int)roundf((float)x[i + k] * inverse);
    }
    return n;
}

static void orli_gguf_put_data(const orli_gguf_entry *e, orl_real *row, char *packed, orli_writer *out) {
    size_t r, bad, bytes = orli_gguf_row_bytes(e);
    for (r = 0; r < e->rows && !orl_failed(out->ctx); r++) {
        orli_dtype dtype = e->dtype == ORL_F16 ? ORLI_F16 : e->dtype == ORL_BF16 ? ORLI_BF16 : ORLI_F32;
        e->source(e->user, r, row);
        if (e->dtype == ORL_Q8_0) bad = orli_ggml_q8_0(row, e->cols, packed);
        else bad = orli_tensor_overflow(dtype, row, e->cols), orli_tensor_from_real(dtype, row, e->cols, packed);
        if (bad < e->cols)
            orli_fail_overflow(out->ctx, out->path, e->name, (double)row[bad], orli_ggml_types[e->dtype].name);
        orli_writer_put(out, packed, bytes);
    }
}

static size_t orli_gguf_padding(uint64_t at) {
    return (size_t)((ORLI_GGUF_ALIGN - at % ORLI_GGUF_ALIGN) % ORLI_GGUF_ALIGN);
}

/* The lines of the tensors; at: where in the file they stand. They end with what aligns the data. */
static void orli_gguf_put_lines(const orli_gguf *g, uint64_t at, orli_str *s) {
    static const char zeros[ORLI_GGUF_ALIGN] = {0};
    uint64_t offset = 0;
    size_t i;
    for (i = 0; i < g->entries; i++) {
        const orli_gguf_entry *e = &g->entry[i];
        orli_gguf_text(s, e->name, strlen(e->name));
        orli_gguf_u32(s, (uint32_t)e->rank);
        orli_gguf_u64(s, e->cols);
        if (e->rank == 2) orli_gguf_u64(s, e->rows);
        orli_gguf_u32(s, orli_ggml_types[e->dtype].code);
        orli_gguf_u64(s, offset);
        offset += e->rows * orli_gguf_row_bytes(e);
        offset += orli_gguf_padding(offset);
    }
    orli_str_add(s, zeros, orli_gguf_padding(at + s->length));
}

static orl_status orli_gguf_save(orli_gguf *g, const char *path) {
    static const char zeros[ORLI_GGUF_ALIGN] = {0};
    orl_ctx *ctx = g->ctx;
    orli_str head = orli_str_new(ctx), lines = orli_str_new(ctx);
    orl_real *row;
    char *packed;
    orli_writer out;
    size_t i, most = 1;
    for (i = 0; i < g->entries; i++) most = ORLI_MAX(most, g->entry[i].cols);
    row = (orl_real *)orli_alloc(ctx, most, sizeof *row);
    packed = (char *)orli_alloc(ctx, most, 4);
    orli_str_puts(&head, "GGUF");
    orli_gguf_u32(&head, 3);
    orli_gguf_u64(&head, g->entries);
    orli_gguf_u64(&head, g->count);
    orli_gguf_put_lines(g, head.length + g->pairs.length, &lines);
    if (!orl_failed(ctx) && orli_writer_open(ctx, path, &out) == ORL_OK) {
        orli_writer_put(&out, head.data, head.length);
        orli_writer_put(&out, g->pairs.data, g->pairs.length);
        orli_writer_put(&out, lines.data, lines.length);
        for (i = 0; i < g->entries; i++) {
            orli_gguf_put_data(&g->entry[i], row, packed, &out);
            orli_writer_put(&out, zeros, orli_gguf_padding(g->entry[i].rows * orli_gguf_row_bytes(&g->entry[i])));
        }
        orli_writer_close(&out);
    }
    orli_free(ctx, row);
    orli_free(ctx, packed);
    orli_str_free(&head);
    orli_str_free(&lines);
    orli_gguf_free(g);
    return orl_error_status(ctx);
}
#endif /* section 9 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 10
/* =================================================================================================
 * >>tokenizer   10. TOKENIZER: byte-pair encoding
 * =================================================================================================
 * Purpose:    text to token ids and back: byte-level BPE (GPT-2, Llama 3, Qwen) and
 *             SentencePiece-style BPE (Llama 2), learned, loaded and saved in the files other tools
 *             use.
 * Depends on: formats.              Owns: vocabulary, merges, a cache of words.
 * Invariants: ids are those of Hugging Face's tokenizers and of tiktoken; decoding what was encoded
 *             gives the same bytes back, UTF-8 or not (but for what those lose too: "▁" is
 *             SentencePiece's space, Metaspace drops a leading space, lstrip and rstrip drop white
 *             space beside a token, and NFC is another spelling); what is saved
 *             encodes as what it was saved from; a file with settings that are not known here is
 *             an error that names them, never a guess. Encoding takes time in proportion to the
 *             text, whatever it is; nothing recurses.
 * Memory:     while a file is loaded, at most 1 MiB and so many times its size: 2 for a tokenizer.json as Hugging
 *             Face writes it, and for GPT-2's two files; 2.75 whatever a JSON file holds (a token takes 30 bytes and
 *             its text, a merge 20); 7 for llama2.c's and tiktoken's files as they are published, and 20 whatever
 *             they hold, as they leave out the merges: every cut of a token into two others is one. The file itself is
 *             not held but mapped.
 * Threads:    the context's thread only (the cache of words is written while encoding); learning counts
 *             words on all threads, and what it learns does not depend on how many there are.
 * Source:     Sennrich et al., "Neural machine translation of rare words with subword units", 2016;
 *             Radford et al., "Language models are unsupervised multitask learners" (GPT-2), 2019;
 *             Kudo and Richardson, "SentencePiece", 2018; Unicode 16.0.0 and its Annex #15 (NFC).
 * Tested by:  tests/test_10_tokenizer.c (ids of Hugging Face's tokenizers, tiktoken and
 *             llama-tokenizer-js on 10,000 strings for each of some thirty tokenizers), test_10_learn.c
 *             (merges of a trainer written from the definition, and Hugging Face's) */

/* Classes of characters as bits, so that a set of them is a byte. */
typedef enum orli_class {
    ORLI_OTHER = 1,
    ORLI_UPPER = 2,  /* categories Lu, Lt */
    ORLI_LOWER = 4,  /* Ll */
    ORLI_LETTER = 8, /* Lm, Lo: letters that have no case */
    ORLI_MARK = 16,  /* M */
    ORLI_DIGIT = 32, /* Nd, Nl */
    ORLI_NUMBER = 64, /* No */
    ORLI_SPACE = 128 /* White_Space */
} orli_class;
#define ORLI_LETTERS ((unsigned)(ORLI_UPPER | ORLI_LOWER | ORLI_LETTER))
#define ORLI_NUMBERS ((unsigned)(ORLI_DIGIT | ORLI_NUMBER))
#define ORLI_OTHERS ((unsigned)(ORLI_OTHER | ORLI_MARK))

/* Unicode 16.0.0, made by tests/golden/unicode.py: 10685 bytes. */
#define ORLI_UNICODE_END 0x323b0u /* everything from here on is ORLI_OTHER, and in NFC */
/* runs of one class; how they are written: orli_unicode_expand() */
static const unsigned char orli_unicode_classes[] = {
    72,47,144,15,120,85,56,209,48,210,80,15,208,15,72,11,56,22,8,10,24,14,11,8,30,8,185,8,57,194,8,66,0,28,10,0,8,10,0,
    23,9,0,3,18,9,0,2,17,10,25,18,33,10,17,10,25,26,17,10,9,0,3,9,0,2,10,9,10,17,10,17,0,2,17,18,11,9,26,35,17,10,17,
    10,9,0,9,10,0,9,10,9,0,2,17,0,30,50,17,10,17,18,9,10,25,0,5,250,37,11,218,147,32,99,112,43,56,11,8,11,136,252,81,0,
    2,11,8,9,10,16,11,26,8,9,48,9,8,25,8,9,8,17,10,137,8,73,250,4,9,18,25,26,0,12,34,9,10,8,9,10,17,18,249,20,250,17,0,
    17,8,60,0,27,9,0,7,10,0,48,8,249,7,16,11,48,250,10,64,252,14,8,12,8,20,8,20,8,12,64,219,32,35,232,92,40,251,12,172,
    85,32,19,12,251,68,8,11,60,16,52,19,20,8,36,19,85,27,16,11,128,11,12,243,220,16,251,58,92,11,112,85,251,2,76,19,32,
    11,16,12,16,179,36,11,76,11,28,11,44,144,203,28,32,91,40,195,8,51,64,76,251,11,196,8,252,2,251,23,28,11,148,11,60,
    83,20,16,85,8,131,28,8,67,16,19,16,179,8,59,8,11,24,35,16,12,11,60,16,20,16,28,11,64,12,32,19,8,27,20,16,85,19,16,
    54,16,11,8,12,16,28,8,51,32,19,16,179,8,59,8,19,8,19,8,19,16,12,8,44,32,20,16,28,24,12,56,35,8,11,56,85,20,27,12,
    88,28,8,75,8,27,8,179,8,59,8,19,8,43,16,12,11,68,8,28,8,28,16,11,120,19,20,16,85,72,11,52,8,28,8,67,16,19,16,179,8,
    59,8,19,8,43,16,12,11,60,16,20,16,28,56,28,32,19,8,27,20,16,85,8,11,54,80,12,11,8,51,24,27,8,35,24,19,8,11,8,19,24,
    19,24,27,24,99,32,44,24,28,8,36,16,11,48,12,112,85,30,104,44,67,8,27,8,187,8,131,16,12,11,60,8,28,8,36,56,20,8,27,
    16,11,16,19,20,16,85,64,62,8,11,28,8,67,8,27,8,187,8,83,8,43,16,12,11,60,8,28,8,36,56,20,48,19,8,19,20,16,85,8,19,
    12,96,36,75,8,27,8,251,10,20,11,60,8,28,8,36,11,40,27,12,62,27,20,16,85,78,8,51,8,28,8,147,24,195,8,75,8,11,16,59,
    24,12,32,52,8,12,8,68,48,85,16,20,104,251,17,12,19,60,40,59,68,8,85,248,8,19,8,11,8,43,8,195,8,11,8,83,12,19,76,11,
    16,43,8,11,8,60,8,85,16,35,248,1,11,184,20,48,85,86,8,12,8,12,8,12,32,20,67,8,251,5,32,164,8,20,43,92,8,252,5,72,
    12,248,26,251,12,164,11,85,48,51,36,35,28,11,28,19,60,27,36,107,100,11,12,85,36,16,249,7,8,9,40,9,16,250,12,8,11,
    26,251,170,2,8,35,16,59,8,11,8,35,16,251,10,8,35,16,251,2,8,35,16,59,8,11,8,35,16,123,8,251,26,8,35,16,251,36,16,
    28,72,166,24,131,128,249,55,16,50,24,251,205,4,16,139,15,211,40,251,44,24,29,67,56,147,36,72,155,28,88,147,20,96,
    107,8,27,8,20,96,251,21,252,1,24,11,32,11,12,16,85,48,86,136,28,8,12,85,48,251,58,56,43,20,251,3,12,11,40,251,39,
    80,251,0,8,100,32,100,80,85,243,16,43,88,251,13,32,211,48,85,14,248,6,187,44,32,251,22,84,8,236,16,12,85,48,85,104,
    11,64,252,0,248,18,44,251,16,140,67,24,85,136,76,96,28,243,108,19,85,251,13,116,96,251,5,164,64,85,24,27,85,251,5,
    16,74,9,10,40,249,12,16,25,128,28,8,172,35,12,51,12,19,28,11,40,250,13,251,32,106,11,250,3,251,6,252,33,0,75,66,0,
    49,66,65,50,16,49,16,66,65,66,65,50,16,49,16,66,8,9,8,9,8,9,8,9,66,65,114,16,66,65,66,65,66,65,42,8,18,41,8,10,24,
    26,8,18,41,24,34,16,18,33,32,66,41,40,26,8,18,41,24,95,232,23,40,15,248,16,15,128,14,11,16,54,40,11,86,48,107,248,
    20,252,2,136,9,32,9,16,10,25,18,25,10,8,9,24,41,48,9,8,9,8,9,8,33,8,10,33,10,35,10,16,18,17,40,9,34,32,10,8,134,
    253,4,9,10,37,14,248,183,5,254,29,248,47,182,248,215,4,246,248,205,8,249,17,250,17,9,10,25,18,0,3,25,0,2,10,9,50,
    19,17,0,50,10,48,0,2,28,9,10,72,14,16,250,7,8,10,40,10,16,251,25,56,11,120,12,187,72,59,8,59,8,59,8,59,8,59,8,59,8,
    59,8,59,8,252,1,248,16,11,248,177,3,15,32,19,13,200,77,52,8,43,16,29,19,32,251,55,16,20,16,27,8,251,59,8,35,40,251,
    12,8,251,63,24,38,80,251,1,248,17,131,248,1,86,240,70,8,126,248,1,86,248,8,126,248,161,2,251,161,51,248,33,251,238,
    172,1,248,36,251,15,16,251,238,1,24,131,85,19,160,0,23,11,36,8,84,8,11,0,14,19,20,251,39,85,20,248,6,75,16,0,7,18,
    0,31,11,66,0,2,9,0,5,11,16,0,2,11,0,2,18,0,10,41,10,33,0,8,25,0,2,17,10,16,9,10,8,10,8,10,0,3,9,168,27,9,10,27,10,
    59,12,27,12,35,12,187,44,32,12,24,54,80,251,21,96,20,251,19,148,80,85,48,148,51,24,11,8,19,12,85,227,68,16,187,108,
    96,235,24,36,251,16,116,112,11,85,48,43,12,83,85,43,8,251,10,116,72,27,12,67,20,16,85,48,187,24,11,28,251,19,12,11,
    28,19,20,43,20,11,12,11,192,27,16,91,44,16,27,20,80,51,16,51,16,51,72,59,8,59,8,250,12,8,35,74,11,48,250,49,251,4,
    68,8,20,16,85,48,251,133,87,96,187,32,251,18,248,229,65,251,207,2,16,251,75,248,7,58,96,42,40,11,12,83,8,107,8,43,
    8,11,8,19,8,19,8,251,77,248,2,251,204,2,144,251,33,16,251,23,248,9,99,32,132,128,132,248,33,43,8,251,104,152,85,56,
    209,48,210,88,251,58,24,51,16,51,16,51,16,27,248,4,99,8,211,8,155,8,19,8,123,16,115,248,3,251,92,96,254,14,96,253,
    22,38,136,22,248,82,12,248,99,235,24,251,18,120,12,222,32,251,1,38,72,163,13,67,13,40,251,7,44,40,243,16,251,5,32,
    67,8,45,248,11,249,9,250,9,251,47,16,85,48,249,5,32,250,5,32,251,9,64,251,21,96,89,8,121,8,57,8,17,8,90,8,122,8,58,
    8,18,24,251,21,96,251,152,2,72,179,80,67,192,51,8,251,11,8,75,248,38,51,16,11,8,251,13,8,19,24,11,16,187,16,70,187,
    16,62,251,0,64,78,248,17,155,8,19,40,46,179,54,32,211,248,39,251,25,32,22,19,134,16,254,15,11,28,8,20,40,36,35,8,
    27,8,235,16,28,32,12,78,184,235,22,8,235,30,248,1,67,8,227,20,32,46,128,251,23,80,179,16,70,155,40,70,147,184,62,
    248,49,251,42,248,24,249,20,104,250,20,56,54,251,5,36,64,85,48,85,51,177,24,44,8,11,178,248,187,1,254,0,8,251,11,8,
    20,24,19,128,27,248,24,36,235,86,11,64,179,92,38,216,147,36,248,11,171,62,160,187,72,28,251,22,124,88,166,85,12,19,
    20,11,72,36,251,14,92,56,12,104,203,56,85,48,28,251,5,116,8,85,32,11,20,11,64,251,4,12,16,11,72,28,251,17,116,35,
    32,36,8,20,85,11,8,11,32,166,88,147,8,203,100,48,12,19,12,248,31,59,8,11,8,35,8,123,8,83,56,251,16,100,40,85,48,36,
    8,67,16,19,16,179,8,59,8,19,8,43,8,20,11,60,16,20,16,28,16,11,48,12,40,43,20,16,60,24,44,88,83,8,11,16,11,8,251,7,
    8,11,76,8,12,16,12,8,36,8,44,11,12,11,104,20,232,251,22,148,35,40,85,32,12,27,240,251,17,164,19,8,11,64,85,248,135,
    1,251,16,60,16,76,184,35,20,248,3,251,17,140,24,11,88,85,248,7,251,12,108,11,56,85,48,165,224,219,16,124,32,85,22,
    32,59,248,154,1,251,13,124,248,70,249,1,250,1,85,78,96,67,16,11,16,67,8,19,8,195,52,8,20,16,36,11,12,11,20,96,85,
    248,39,67,16,251,8,60,16,60,11,8,11,12,216,11,84,251,9,60,11,36,64,12,64,11,92,251,15,132,24,11,144,251,42,248,168,
    1,251,2,120,85,48,75,8,251,6,68,8,68,11,120,85,158,40,243,16,180,8,116,248,42,59,8,19,8,251,7,52,24,12,8,20,8,60,
    11,12,64,85,48,51,8,19,8,251,1,44,8,20,8,44,11,56,85,248,151,2,155,36,72,20,11,12,107,8,251,3,60,24,44,104,85,12,
    248,54,11,120,174,248,12,251,251,6,248,71,253,80,136,251,165,1,248,173,20,251,66,120,251,145,8,128,12,51,124,80,
    251,252,30,40,251,168,4,248,154,53,243,148,85,248,167,13,251,154,4,56,251,0,8,85,48,251,48,8,85,48,243,16,44,88,
    251,17,60,72,35,96,85,8,62,8,171,40,155,248,145,3,251,14,24,85,248,167,1,249,1,250,1,190,248,74,251,44,32,12,11,
    252,24,56,36,107,248,33,19,8,11,12,88,20,112,251,217,47,64,251,183,9,248,10,83,248,200,69,35,8,59,8,19,8,251,132,2,
    120,11,232,27,16,11,112,35,64,251,237,2,248,229,17,251,76,40,107,24,75,56,83,24,20,248,178,32,85,248,231,3,252,15,
    16,188,248,255,3,44,24,52,64,68,16,60,240,36,248,117,28,248,92,166,96,166,248,77,206,248,104,209,210,209,58,8,146,
    209,210,9,8,17,16,9,16,17,16,33,8,65,34,8,10,8,58,8,90,209,210,17,8,33,16,65,8,57,8,210,17,8,33,8,41,8,9,24,57,8,
    210,209,210,209,210,209,210,209,210,209,210,209,226,16,201,8,202,8,50,201,8,202,8,50,201,8,202,8,50,201,8,202,8,50,
    201,8,202,8,50,9,10,16,253,19,248,225,3,252,24,32,252,19,64,12,112,12,176,44,8,124,248,177,8,82,11,162,48,50,248,
    182,1,60,8,140,16,60,8,20,8,44,40,251,31,248,2,12,248,81,251,14,24,60,59,16,85,32,11,248,162,2,243,12,136,251,13,
    36,85,248,183,3,227,36,85,248,183,1,243,20,11,85,248,198,3,59,8,35,8,19,8,123,8,251,166,1,16,78,60,248,10,249,3,
    250,3,60,11,32,85,248,248,5,254,28,8,30,8,38,248,45,254,14,8,126,248,163,1,35,8,219,8,19,8,11,16,11,8,83,8,35,8,11,
    8,11,48,11,32,11,8,11,8,11,8,27,8,19,8,11,16,11,8,11,8,11,8,11,8,11,8,19,8,11,16,35,8,59,8,35,8,35,8,11,8,83,8,139,
    40,27,8,43,8,139,248,165,4,110,248,196,21,85,248,231,7,251,193,205,2,248,1,251,155,32,48,251,191,1,16,251,227,44,
    112,251,146,58,120,251,207,4,248,131,19,251,255,3,248,195,11,251,172,38,40,251,193,32};

/* canonical decompositions: orli_nfc_expand() */
static const unsigned char orli_unicode_parts[] = {
    94,128,6,1,1,1,1,2,1,1,1,1,1,1,3,2,2,1,7,8,1,1,1,1,1,5,1,2,1,7,10,3,239,4,3,1,1,3,3,2,1,145,1,1,1,231,5,128,1,2,25,
    101,128,2,2,24,1,103,25,127,108,19,1,104,25,115,5,16,147,3,2,12,53,2,119,135,22,228,42,1,160,192,3,109,151,4,25,97,
    3,7,7,231,1,10,3,242,1,129,7,238,143,1,1,1,9,190,24,254,199,1,9,1,1,1,1,129,3,130,1,0,3,0,1,3,0,2,3,0,3,3,0,7,3,0,
    9,5,4,21,3,4,0,3,0,1,3,0,2,3,0,7,3,8,0,3,0,1,3,0,2,3,0,7,5,10,3,3,2,0,3,0,1,3,0,2,3,0,3,3,0,7,7,12,0,3,0,1,3,0,2,3,
    0,7,3,8,1,7,16,0,3,0,1,3,0,2,3,0,3,3,0,7,3,0,9,5,4,21,3,4,0,3,0,1,3,0,2,3,0,7,3,8,0,3,0,1,3,0,2,3,0,7,5,10,3,3,2,0,
    3,0,1,3,0,2,3,0,3,3,0,7,7,12,0,3,0,1,3,0,2,3,0,7,3,8,1,5,0,7,3,111,4,3,64,4,3,63,5,3,64,5,3,63,22,3,64,22,3,59,1,3,
    64,1,3,63,2,3,64,2,3,63,6,3,64,6,3,63,11,3,64,11,3,61,11,3,64,11,7,61,4,3,64,4,3,63,5,3,64,5,3,63,6,3,64,6,3,63,22,
    3,64,22,3,63,11,3,64,11,3,59,2,3,64,2,3,63,5,3,64,5,3,63,6,3,64,6,3,63,21,3,64,21,3,61,2,3,64,2,7,61,3,3,64,3,3,63,
    4,3,64,4,3,63,5,3,64,5,3,63,22,3,64,22,3,63,6,9,2,2,3,64,2,3,61,21,3,64,21,5,61,1,3,64,1,3,63,21,3,64,21,3,63,11,3,
    64,11,11,59,1,3,64,1,3,63,21,3,64,21,3,63,11,3,64,11,9,61,4,3,64,4,3,63,5,3,64,5,3,63,10,3,64,10,7,57,1,3,64,1,3,
    63,21,3,64,21,3,63,11,3,64,11,3,61,1,3,64,1,3,63,2,3,64,2,3,63,21,3,64,21,3,63,11,3,64,11,3,61,21,3,64,21,3,63,11,
    3,64,11,7,61,3,3,64,3,3,63,4,3,64,4,3,63,5,3,64,5,3,63,9,3,64,9,3,63,10,3,64,10,3,63,22,3,64,22,3,59,2,3,64,2,3,59,
    2,3,64,2,3,63,7,3,2,1,3,64,1,3,63,6,3,64,6,3,63,11,3,64,11,69,85,16,3,64,16,29,51,16,3,64,16,59,103,11,3,64,11,3,
    47,11,3,64,11,3,51,11,3,64,11,3,51,11,3,64,11,3,206,1,4,3,64,4,3,63,1,3,64,1,3,63,11,3,64,11,3,63,0,3,64,0,5,111,4,
    3,64,4,3,132,5,4,3,2,4,3,193,5,4,3,64,4,7,189,2,11,3,64,11,3,55,11,3,64,11,3,55,22,3,64,22,3,246,5,4,3,2,4,3,103,
    11,3,182,3,11,3,207,8,11,9,69,1,3,64,1,7,49,0,3,64,0,3,174,1,1,3,64,1,3,61,1,3,64,1,3,27,1,3,64,1,3,237,2,12,3,64,
    12,3,63,13,3,64,13,3,55,12,3,64,12,3,63,13,3,64,13,3,55,12,3,64,12,3,63,13,3,64,13,3,51,12,3,64,12,3,63,13,3,64,13,
    3,57,12,3,64,12,3,63,13,3,64,13,3,57,12,3,64,12,3,63,13,3,64,13,3,67,20,3,64,20,3,61,20,3,64,20,7,87,11,3,64,11,15,
    77,6,3,64,6,3,55,21,3,64,21,3,226,1,4,3,64,4,3,65,4,3,64,4,3,203,2,6,3,64,6,3,254,6,4,3,2,4,3,171,7,4,3,64,4,165,5,
    94,1,3,210,11,1,5,8,1,3,4,1,3,4,1,5,12,1,5,12,1,3,8,1,3,66,1,53,97,7,3,24,7,3,24,1,3,8,1,3,4,1,3,4,1,3,36,1,53,35,
    7,3,24,7,3,11,1,3,12,1,3,8,1,11,18,1,3,0,7,89,134,1,0,3,0,7,5,3,1,9,25,7,11,40,1,3,3,0,3,22,5,23,21,5,65,64,5,47,5,
    0,3,0,7,5,3,1,9,70,7,11,55,1,3,3,0,3,22,5,49,98,12,3,2,12,149,1,189,1,5,3,64,5,29,75,5,3,64,5,3,63,7,3,64,7,7,53,5,
    3,64,5,7,198,2,7,3,2,7,3,133,3,7,3,64,7,3,61,7,3,64,7,7,61,4,3,64,4,3,63,7,3,64,7,3,51,7,3,64,7,7,212,2,7,3,2,7,3,
    247,2,7,3,64,7,3,83,4,3,64,4,3,63,7,3,64,7,3,63,10,3,64,10,3,55,7,3,64,7,7,55,7,3,64,7,211,4,184,7,38,3,0,39,3,66,
    39,3,65,40,3,70,39,181,2,150,2,39,5,39,39,35,34,39,173,9,172,9,41,17,16,41,7,6,41,175,2,168,2,43,3,0,44,249,5,128,
    6,48,7,0,47,3,0,49,145,1,150,1,51,109,104,50,3,2,50,3,1,51,249,1,128,2,52,241,1,242,1,54,15,14,54,3,0,55,5,0,53,3,
    8,54,255,1,248,1,56,3,2,56,3,1,57,157,2,166,2,58,5,0,59,3,6,58,3,5,60,145,9,152,9,66,193,43,192,43,67,5,4,67,5,4,
    67,5,4,67,5,4,67,9,8,67,83,82,67,5,4,67,7,4,67,3,2,67,5,6,67,251,10,129,108,19,3,64,19,3,61,6,3,64,6,3,63,17,3,64,
    17,3,63,26,3,64,26,3,202,1,1,3,64,1,3,197,2,6,3,64,6,3,63,17,3,64,17,3,63,26,3,64,26,3,63,21,3,64,21,3,63,23,3,64,
    23,3,220,2,0,3,2,0,3,1,1,3,2,1,3,155,3,23,3,64,23,3,63,25,3,64,25,3,134,7,5,3,2,5,3,197,7,6,3,64,6,3,61,4,3,64,4,3,
    61,6,3,64,6,3,63,17,3,64,17,3,63,7,3,64,7,3,63,21,3,64,21,3,63,24,3,64,24,3,61,25,3,64,25,3,204,1,1,3,64,1,3,199,2,
    1,3,64,1,3,63,17,3,64,17,3,63,26,3,64,26,3,61,17,3,64,17,3,148,119,4,3,2,4,3,213,119,26,3,64,26,3,63,23,3,64,23,3,
    61,1,3,64,1,3,63,6,3,64,6,3,63,17,3,64,17,3,61,6,3,64,6,3,63,17,3,64,17,3,63,26,3,64,26,3,63,23,3,64,23,3,206,1,1,
    3,64,1,3,63,7,3,64,7,3,174,1,0,3,2,0,3,1,1,3,2,1,3,249,3,1,3,64,1,3,63,6,3,64,6,3,59,6,3,64,6,3,63,17,3,64,17,3,
    208,119,4,3,2,4,3,145,120,26,3,64,26,3,61,6,3,64,6,3,63,17,3,64,17,3,206,3,6,3,2,6,3,10,6,3,2,6,3,130,116,6,3,2,6,
    3,157,120,6,3,64,6,3,63,17,3,64,17,3,63,26,3,64,26,3,63,23,3,64,23,3,61,18,3,64,18,3,63,25,3,64,25,3,63,23,3,64,23,
    3,230,3,1,3,2,1,3,2,7,3,2,7,3,169,4,3,3,64,3,3,63,17,3,64,17,3,61,0,3,64,0,3,63,1,3,64,1,3,63,7,3,64,7,3,63,6,3,64,
    6,3,63,17,3,64,17,3,61,6,3,64,6,3,63,7,3,64,7,3,61,6,3,64,6,3,61,2,3,64,2,3,63,17,3,64,17,3,63,26,3,64,26,3,35,26,
    3,24,7,3,6,9,3,4,9,5,140,4,6,11,251,4,17,3,64,17,3,63,8,3,64,8,3,194,1,1,3,64,1,3,63,0,3,64,0,3,63,8,3,64,8,3,63,3,
    3,64,3,3,252,118,2,3,2,2,3,189,118,1,3,2,1,3,1,0,3,2,0,3,1,8,3,2,8,3,1,3,3,2,3,3,186,118,5,3,2,5,3,183,121,17,3,64,
    17,3,63,8,3,64,8,3,63,3,3,64,3,3,202,1,1,3,64,1,3,63,0,3,64,0,3,63,8,3,64,8,3,63,3,3,64,3,3,156,119,2,3,2,2,3,223,
    121,8,3,64,8,3,63,17,3,64,17,3,51,17,3,64,17,3,63,8,3,64,8,3,202,1,1,3,64,1,3,63,0,3,64,0,3,63,8,3,64,8,3,63,3,3,
    64,3,3,176,119,2,3,2,2,3,217,116,1,3,2,1,3,1,0,3,2,0,3,1,8,3,2,8,3,1,3,3,2,3,3,1,17,3,2,17,3,151,5,17,3,64,17,3,63,
    8,3,64,8,3,244,4,1,3,2,1,3,1,0,3,2,0,3,1,8,3,2,8,3,1,3,3,2,3,3,1,17,3,2,17,3,173,5,0,3,64,0,3,63,17,3,64,17,3,63,8,
    3,64,8,3,63,3,3,64,3,15,240,12,14,3,0,15,3,158,109,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,223,109,14,3,0,15,3,238,109,
    0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,167,109,14,3,0,15,3,182,109,0,3,2,0,3,1,1,3,2,1,7,247,109,14,3,0,15,3,134,110,
    0,3,2,0,3,1,1,3,2,1,7,195,109,14,3,0,15,3,210,109,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,147,110,14,3,0,15,3,162,110,
    0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,223,109,14,3,0,15,3,238,109,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,175,110,14,3,0,
    15,3,190,110,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,243,109,14,3,0,15,3,130,110,0,3,2,0,3,1,1,3,2,1,7,195,110,14,3,0,
    15,3,210,110,0,3,2,0,3,1,1,3,2,1,7,135,110,14,3,0,15,3,150,110,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,5,215,110,15,5,
    232,110,0,5,0,1,5,0,28,3,159,110,14,3,0,15,3,174,110,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,239,110,14,3,0,15,3,254,
    110,0,3,2,0,3,1,1,3,2,1,3,1,28,3,2,28,3,239,110,0,5,8,0,5,4,0,5,4,0,5,12,0,5,12,0,5,8,0,9,238,108,29,3,2,29,3,2,29,
    3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,34,29,3,2,29,3,2,29,3,
    2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,98,29,3,2,29,3,2,29,3,2,
    29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,2,29,3,251,110,5,3,0,4,3,254,110,
    29,3,253,110,29,3,9,29,5,10,28,3,138,112,29,3,201,112,5,3,0,4,3,0,0,5,0,29,11,209,11,28,3,152,123,29,3,249,110,29,
    3,17,29,5,18,28,3,158,112,29,3,225,112,0,5,4,0,5,0,29,3,208,112,0,3,0,1,3,0,28,3,139,112,5,3,0,4,3,34,0,9,33,28,3,
    34,28,3,97,5,3,0,4,3,0,0,7,202,113,0,3,0,1,3,0,28,3,241,112,5,3,0,4,3,12,0,5,19,14,3,0,15,3,8,28,3,12,28,3,75,5,3,
    0,4,3,0,0,5,7,15,3,241,11,0,11,168,123,29,3,229,110,29,3,10,29,5,9,28,3,218,112,29,3,173,113,0,5,20,0,5,0,29,189,6,
    206,119,27,3,4,27,39,4,27,63,120,27,3,8,27,3,3,27,107,98,27,11,10,27,7,6,27,49,48,27,5,4,27,55,46,27,7,14,27,7,4,
    27,5,6,27,47,149,136,1,27,5,200,136,1,27,23,39,27,3,161,136,1,27,3,4,27,3,204,136,1,27,3,2,27,7,26,27,3,2,27,7,6,
    27,3,2,27,15,6,27,3,2,27,7,14,27,3,2,27,7,6,27,3,2,27,71,54,27,3,12,27,3,2,27,3,4,27,99,93,27,3,2,27,3,40,27,3,2,
    27,15,64,27,3,2,27,3,2,27,3,2,27,191,53,172,54,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,
    4,68,5,4,68,7,6,68,5,4,68,5,4,68,15,14,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,47,105,68,
    21,174,1,68,29,28,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,5,4,68,7,6,68,5,4,68,5,
    4,68,15,14,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,5,6,68,3,0,69,47,105,68,7,146,1,68,3,2,68,3,2,68,3,
    2,68,9,22,68,151,211,6,170,211,6,6,55,16,6,237,42,254,42,70,5,4,70,31,20,70,135,2,152,2,71,3,2,71,185,8,170,8,72,3,
    0,73,111,118,77,5,4,75,19,14,76,7,10,77,105,100,76,5,0,74,3,0,77,231,3,238,3,79,3,0,78,5,0,80,249,3,254,3,81,3,2,
    81,251,13,248,13,82,211,159,2,210,159,2,83,3,0,86,3,0,84,3,22,84,3,21,85,3,6,84,3,2,84,3,1,85,129,49,140,49,87,3,7,
    87,3,12,87,0,128,13,128,12,2,2,4,36,3,21,1,96,157,1,20,251,9,18,248,1,163,23,188,33,41,3,2,41,3,2,41,3,10,41,3,10,
    41,3,2,41,3,18,41,3,8,41,251,1,228,1,42,3,2,42,5,26,42,169,1,134,2,45,7,12,45,71,67,45,3,2,45,3,10,45,7,30,45,253,
    3,236,3,46,3,2,46,205,15,192,16,65,21,20,65,11,10,65,11,10,65,11,10,65,27,53,64,21,98,61,5,0,62,3,130,1,63,5,2,63,
    19,131,1,63,37,66,65,21,20,65,11,10,65,11,10,65,11,10,65,27,53,64,240,62,199,47,4,2,4,2,4,2,4,58,4,2,4,2,124,143,1,
    6,102,22,97,4,2,16,14,16,11,16,76,16,67,6,17,2,201,12,20,216,12,4,6,4,181,11,6,156,125,2,2,202,4,179,113,8,187,13,
    2,244,1,252,7,134,189,1,2,2,229,30,215,20,27,200,184,6,214,133,3,2,167,149,1,2,172,159,1,2,131,8,2,237,119,2,189,
    130,1,2,230,22,2,238,174,2,2,0,2,149,153,2,2,128,226,1,2,147,241,1,2,130,15,2,220,34,2,230,81,2,184,36,2,244,26,2,
    246,5,2,252,4,2,174,30,2,153,154,1,2,178,12,2,252,14,2,138,12,2,190,65,2,218,52,2,142,34,2,221,173,2,2,230,19,2,
    158,94,2,174,28,2,164,80,2,226,95,2,155,131,2,2,182,74,2,196,87,2,174,14,2,181,154,1,2,158,124,2,142,25,2,169,165,
    1,2,154,33,2,166,25,2,164,22,2,164,119,2,143,133,2,2,226,8,2,206,4,2,204,71,2,158,24,2,250,28,2,174,19,2,180,36,2,
    138,24,2,172,1,2,166,30,2,134,37,2,250,16,2,150,10,2,219,149,1,2,230,3,2,194,16,2,210,24,2,246,60,2,246,45,2,209,
    78,2,237,199,1,2,202,24,2,184,117,2,188,16,2,183,56,2,208,25,2,240,79,2,234,40,2,189,248,1,2,148,14,2,226,54,2,142,
    15,2,234,4,2,192,56,2,144,4,2,168,96,2,241,141,2,2,242,182,1,2,221,186,1,2,31,2,160,161,1,2,196,14,2,230,24,2,136,
    74,2,233,43,2,225,162,1,2,230,28,2,248,131,1,2,137,243,1,2,220,54,2,214,16,2,234,77,2,210,7,2,177,137,1,2,200,151,
    1,2,247,164,1,2,212,63,2,183,70,2,254,122,2,167,29,2,212,94,2,189,165,1,2,182,18,2,198,122,2,144,53,2,194,25,2,223,
    123,2,236,143,1,2,207,140,1,2,147,38,2,206,127,2,137,125,2,138,71,2,237,154,1,2,246,10,2,192,1,2,240,90,2,204,81,2,
    144,22,2,198,33,2,250,27,2,179,251,1,2,154,5,2,226,20,2,242,21,2,178,27,2,242,40,2,216,36,2,134,114,2,250,18,2,218,
    16,2,110,2,229,176,2,2,214,80,2,226,18,2,214,143,1,2,219,195,1,2,184,12,2,224,1,2,180,10,2,146,42,2,204,8,2,128,13,
    2,130,21,2,212,16,2,246,9,2,238,58,2,239,40,2,234,44,2,206,12,2,229,132,2,2,152,2,2,180,8,2,150,112,2,244,95,2,208,
    7,2,193,175,1,2,216,4,2,140,14,2,230,32,2,160,66,2,145,35,2,161,146,1,2,170,32,2,220,19,2,166,7,2,196,9,2,172,78,2,
    238,2,2,226,44,2,216,2,2,220,71,2,132,19,2,164,1,2,160,3,2,153,162,2,2,198,168,1,2,140,96,2,136,20,2,173,215,1,2,
    181,73,2,168,9,2,168,44,2,162,1,2,180,37,2,210,17,2,152,31,2,232,17,2,244,58,2,128,46,2,162,60,2,137,228,1,2,204,
    190,1,2,201,142,2,2,228,83,2,240,1,2,156,21,2,182,5,2,218,21,2,160,5,2,164,12,2,202,18,2,156,109,2,225,155,2,2,130,
    67,2,148,209,1,2,153,153,2,2,220,51,2,162,67,2,128,133,1,2,189,190,1,2,242,6,2,166,27,2,224,45,2,254,139,1,2,185,
    145,2,2,204,7,2,172,33,2,220,38,2,246,4,2,180,5,2,250,16,2,194,28,2,184,7,2,174,38,2,172,37,2,36,2,214,35,2,172,20,
    2,197,142,2,2,246,109,2,185,106,2,230,118,2,144,11,2,196,69,2,210,66,2,232,22,2,144,9,2,143,220,1,2,232,24,2,186,
    80,2,185,28,2,170,1,2,228,5,2,163,39,2,205,8,2,254,106,2,175,242,1,2,236,209,1,2,247,195,1,2,101,2,190,50,2,218,16,
    2,134,104,2,161,133,1,2,178,70,2,211,25,2,142,162,1,2,221,27,2,130,56,2,131,51,2,239,170,1,2,165,54,2,128,18,6,180,
    10,4,180,56,6,171,82,2,152,133,1,2,192,14,2,228,9,2,68,2,14,2,84,2,142,119,2,175,106,2,254,11,4,170,25,4,204,19,6,
    128,21,2,138,3,8,228,31,2,26,2,88,2,152,18,2,171,51,2,178,23,2,145,156,2,2,242,4,2,204,1,2,248,5,2,54,2,218,1,2,
    152,9,2,210,1,2,196,1,2,176,7,2,208,1,2,248,14,2,20,2,204,16,2,168,3,2,76,2,200,1,2,186,13,2,166,2,2,222,2,2,232,7,
    2,228,19,2,198,2,2,144,4,2,152,9,2,250,2,2,238,7,2,222,17,2,218,2,2,22,2,1,2,16,2,12,2,14,2,96,2,2,2,228,2,2,130,1,
    2,254,4,2,232,8,2,42,2,112,2,226,4,2,166,2,2,208,7,2,152,2,2,0,2,188,7,2,242,18,2,140,2,2,214,5,2,112,2,180,6,2,
    106,2,220,10,2,132,2,2,214,26,2,184,4,2,120,2,139,223,1,2,242,137,15,2,171,131,14,6,227,207,1,2,158,14,2,153,1,2,
    207,7,2,138,7,2,118,2,142,5,2,102,2,198,10,2,143,1,2,136,1,2,146,1,2,240,9,2,178,1,2,162,2,2,32,2,156,4,2,140,3,2,
    212,14,2,14,2,160,2,2,136,1,2,214,4,2,236,1,2,139,1,2,140,2,2,91,2,164,2,2,132,1,2,160,6,2,176,1,2,108,2,136,4,2,
    188,4,2,198,2,2,8,2,118,2,198,16,2,130,1,2,142,6,2,180,6,2,31,2,174,1,2,248,3,2,160,5,2,242,24,2,227,21,2,244,1,2,
    246,1,2,142,5,2,170,2,2,106,2,196,3,2,4,2,214,2,2,34,2,50,2,172,1,2,19,2,152,6,2,202,7,2,158,4,2,246,2,2,192,3,2,
    178,2,2,148,5,2,142,3,2,154,13,2,186,2,2,148,14,2,144,7,2,138,1,2,32,2,210,4,2,114,2,89,2,108,2,5,2,33,2,152,1,2,
    162,1,2,252,5,2,224,8,2,244,4,2,206,4,2,186,3,2,140,16,2,206,1,2,230,1,2,138,2,2,72,2,24,2,96,2,174,11,2,148,18,2,
    220,162,12,2,11,2,162,46,2,239,224,15,2,246,17,2,66,2,160,200,16,2,142,42,2,134,136,1,2,159,254,14,2,150,1,137,1,
    233,230,4,30,5,50,31,23,17,36,3,0,37,3,192,213,7,36,3,0,37,3,241,213,7,31,3,0,32,3,0,34,3,2,34,3,2,34,3,2,34,3,2,
    34,3,2,34,3,2,34,5,4,34,3,2,34,3,2,34,3,2,34,3,2,34,5,4,34,5,4,34,3,2,34,5,4,34,3,2,34,5,4,34,3,2,34,3,2,34,3,2,34,
    3,2,34,3,41,33,3,7,35,3,20,35,3,18,35,161,216,6,230,173,14,88,3,2,88,3,14,89,3,0,90,3,0,91,3,0,92,3,0,93,175,1,180,
    1,88,3,2,88,3,2,89,3,2,89,3,1,90,3,2,90,128,153,9,253,141,12,2,9,2,18,2,194,203,13,2,131,199,13,2,156,1,2,26,2,142,
    1,2,240,1,2,62,2,156,1,2,47,2,225,112,2,184,198,14,2,217,211,13,2,14,2,32,2,38,2,202,206,13,2,197,193,14,2,220,114,
    2,76,2,252,206,13,2,231,206,13,2,26,2,175,11,2,192,11,2,18,2,212,128,18,2,211,255,17,2,28,2,199,116,2,184,117,2,22,
    2,88,2,10,2,195,117,2,228,118,2,4,2,54,2,44,2,22,2,2,2,34,2,100,2,16,2,18,2,50,2,20,2,4,2,0,2,0,2,218,218,13,2,247,
    230,12,2,203,114,2,42,2,136,222,13,2,239,221,13,2,12,2,42,2,176,2,2,203,1,2,32,2,64,2,116,2,168,1,2,52,2,134,1,2,
    32,2,66,2,0,2,42,2,36,2,16,2,30,2,168,5,2,159,4,2,162,4,2,139,3,2,70,2,217,17,2,206,27,2,191,4,2,76,2,50,2,131,2,2,
    206,2,2,1,2,246,1,2,240,240,13,2,227,239,13,2,10,2,30,2,40,2,16,2,128,1,2,140,245,13,2,132,1,2,251,243,13,2,94,2,
    24,2,157,1,2,156,2,2,239,141,1,2,28,2,152,144,1,2,108,2,0,2,148,250,13,2,137,248,13,2,42,2,30,2,24,2,202,252,13,2,
    177,252,13,2,14,2,154,13,2,225,12,2,193,146,1,2,190,147,1,2,28,2,164,1,2,101,2,174,133,14,2,193,130,14,2,198,130,
    14,2,239,129,14,2,5,2,34,2,202,1,2,2,2,229,150,1,2,156,151,1,2,86,2,42,2,88,2,141,152,1,2,194,164,15,2,141,164,15,
    2,232,152,1,2,6,2,6,2,40,2,144,147,18,2,167,146,18,2,230,144,14,2,0,2,223,132,13,2,189,139,1,2,0,2,181,153,1,2,226,
    231,15,2,196,188,1,2,239,137,16,2,18,2,143,154,1,2,238,154,1,2,102,2,20,2,68,2,144,2,2,141,157,1,2,59,2,240,157,1,
    2,128,153,14,2,153,152,14,2,130,2,2,8,2,4,2,3,2,92,2,40,2,72,2,27,2,22,2,94,2,40,2,8,2,52,2,22,2,132,1,2,168,1,2,
    70,2,248,1,2,248,158,14,2,157,159,14,2,129,1,2,216,1,2,54,2,194,1,2,154,160,14,2,157,159,14,2,185,1,2,55,2,245,165,
    1,2,246,168,1,2,42,2,62,2,75,2,149,168,1,2,198,171,1,2,58,2,188,170,14,2,205,168,14,2,170,4,2,221,2,2,223,172,1,2,
    240,173,1,2,145,174,1,2,71,2,220,90,2,6,2,214,85,2,199,1,2,162,104,2,167,243,1,2,252,140,1,2,8,2,12,2,122,2,21,2,
    224,177,14,2,243,225,15,2,226,178,1,2,233,1,2,154,3,2,102,2,208,175,14,2,189,175,14,2,221,1,2,234,3,2,237,181,1,2,
    202,182,1,2,194,1,2,142,1,2,252,2,2,246,175,14,2,143,175,14,2,133,187,1,2,146,188,1,2,140,182,14,2,165,181,14,2,
    139,188,1,2,200,188,1,2,90,2,54,2,2,2,164,187,14,2,131,118,2,222,119,2,215,186,14,2,220,193,14,2,249,191,14,2,28,2,
    203,1,2,222,2,2,80,2,114,2,107,2,80,2,30,2,26,2,178,190,14,2,211,191,14,2,246,3,2,126,2,245,196,1,2,176,198,1,2,7,
    2,148,192,14,2,175,195,14,2,234,5,2,224,191,14,2,96,2,143,191,14,2,230,1,2,53,2,5,2,137,202,1,2,232,202,1,2,102,2,
    11,2,108,2,240,209,12,2,191,207,12,2,188,196,14,2,141,195,14,2,158,200,14,2,133,198,14,2,26,2,54,2,240,206,14,2,
    143,206,14,2,42,2,192,210,14,2,190,3,2,179,210,14,2,34,2,189,211,1,2,242,211,1,2,217,211,1,2,0,2,158,214,1,2,42,2,
    42,2,40,2,138,1,2,221,214,1,2,146,216,1,2,164,220,14,2,239,219,14,2,168,221,14,2,195,220,14,2,222,176,13,2,157,174,
    13,2,162,230,14,2,46,2,152,2,2,143,193,16,2,24,2,216,219,1,2,254,231,14,2,1,2,78,2,52,2,169,232,14,2,2,2,0,2,86,2,
    161,220,1,2,164,221,1,2,137,221,1,2,160,1,2,142,206,16,2,157,239,14,2,124,2,128,1,2,209,223,1,2,134,213,16,2,159,
    243,14,2,136,245,14,2,86,2,235,244,14,2,184,1,2,247,226,1,2,162,228,1,2,20,2,10,2,218,252,14,2,214,4,2,0,2,241,254,
    14,2,215,227,1,2,210,230,16,2,201,255,14,2,6,2,195,230,1,2,178,233,16,2,219,254,14,2,227,232,1,2,144,233,1,2,9,2,
    58,2,140,138,15,2,197,136,15,2,195,233,1,2,140,235,1,2,118,2,134,1,2,161,236,1,2,232,251,16,2,62,2,219,251,16,2,
    128,254,16,2,189,141,15,2,136,143,15,2,209,142,15,2,202,1,2,22,2,170,147,15,2,146,1,2,133,147,15,2,144,149,15,2,
    239,148,15,2,222,203,13,2,147,190,15,2,186,243,1,2,162,1,2,239,243,1,2,230,244,1,2,145,154,1,2,228,179,16,2,28,2,
    195,208,1,2,18,2,181,198,13,2,6,2,180,54,2,229,172,2,2,204,248,1,2,11,2,36,2,211,191,1,2,252,191,1,2,4,2,20,2,82,2,
    172,161,15,2,173,161,15,2,112,2,140,1,2,148,1,2,147,2,2,180,2,2,84,2,224,1,2,135,4,2,238,1,2,4,2,32,2,180,161,15,2,
    234,4,2,171,2,2,211,158,17,2,140,255,1,2,4,2,70,2,232,186,15,2,203,185,15,2,144,167,15,2,157,167,17,2,8,2,160,169,
    17,2,194,4,2,205,173,17,2,202,131,2,2,24,2,22,2,4,2,128,1,2,65,2,140,2,2,87,2,174,2,2,161,1,2,134,1,2,54,2,221,134,
    2,2,148,136,2,2,64,2,143,136,2,2,206,137,2,2,6,2,136,184,15,2,159,182,15,2,14,2,209,138,2,2,138,139,2,2,253,208,2,
    2,230,143,18,2,240,2,2,207,202,17,2,18,2,178,143,2,2,154,1,2,186,2,2,150,3,2,166,193,15,2,249,191,15,2,44,2,180,1,
    2,184,1,2,240,198,15,2,213,220,3,2,241,232,11,2,29,2,104,2,220,235,11,2,147,232,11,2,200,1,2,180,218,15,2,54,2,177,
    213,15,2,186,1,2,64,2,186,216,15,2,165,216,15,2,186,4,2,190,2,2,2,2,183,1,2,250,5,2,56,2,202,223,15,2,221,217,15,2,
    235,175,2,2,196,176,2,2,128,223,15,2,161,142,18,2,186,179,2,2,161,228,1,2,226,229,1,2,196,232,15,2,170,3,2,215,158,
    18,2,16,2,212,181,2,2,212,240,15,2,175,165,18,2,200,167,18,2,149,242,15,2,0,2,60,2,154,246,15,2,167,243,15,2,221,
    182,2,2,236,183,2,2,252,1,2,54,2,120,2,223,184,2,2,196,189,18,2,187,128,16,2,220,4,2,250,2,2,221,192,2,2,62,2,244,
    193,2,2,206,141,16,2,171,207,18,2,154,208,18,2,146,4,2,134,2,2,171,143,16,2,201,197,2,2,198,198,2,2,10,2,14,2,20,2,
    14,2,74,2,138,155,16,0};

/* canonical combining classes that are not 0: orli_nfc_expand() */
static const unsigned char orli_unicode_orders[] = {
    21,128,6,230,1,1,0,232,1,4,0,220,1,1,0,232,1,1,0,216,1,5,0,220,1,2,0,202,1,4,0,220,1,2,0,202,1,11,0,220,1,5,0,1,4,
    0,220,1,8,0,230,1,1,0,240,1,1,0,230,1,3,0,220,1,3,0,230,1,2,0,220,1,3,1,230,1,4,0,220,1,1,0,230,1,1,0,232,1,2,0,
    220,1,1,0,230,1,1,0,233,1,2,0,234,1,1,0,233,1,2,0,234,1,1,0,233,1,13,0,230,1,5,147,2,230,1,1,137,2,220,1,4,0,230,1,
    1,0,220,1,3,0,230,1,1,0,222,1,1,0,220,1,6,0,230,1,6,0,220,1,2,0,230,1,1,0,220,1,2,0,230,1,1,0,222,1,1,0,228,1,1,0,
    230,1,1,0,10,1,0,11,1,0,12,1,0,13,1,0,14,1,0,15,1,0,16,1,0,17,1,0,18,2,0,19,1,0,20,1,0,21,1,0,22,1,1,23,1,1,24,1,0,
    25,1,1,230,1,1,0,220,1,1,1,18,8,72,230,1,1,0,30,1,0,31,1,0,32,1,48,27,1,0,28,1,0,29,1,0,30,1,0,31,1,0,32,1,0,33,1,
    0,34,2,0,230,1,2,0,220,1,5,0,230,1,1,0,220,1,2,0,230,1,1,0,220,1,1,16,35,7,101,230,1,4,2,230,1,1,0,220,1,1,0,230,1,
    2,2,230,1,1,1,220,1,2,0,230,1,1,0,220,1,1,35,36,1,30,230,1,1,0,220,1,2,0,230,1,1,0,220,1,2,0,230,1,3,0,220,1,1,0,
    230,1,2,0,220,1,1,0,230,1,1,0,220,1,3,0,230,1,1,0,220,1,1,0,230,1,1,0,220,1,1,0,230,1,1,0,220,1,1,0,230,1,1,0,220,
    1,2,0,230,1,7,160,1,230,1,1,0,220,1,1,0,230,1,1,9,220,1,4,24,230,1,9,1,230,1,3,1,230,1,5,1,230,1,3,43,220,1,2,59,
    230,1,3,0,220,1,4,0,230,1,5,42,230,1,5,0,220,1,14,0,230,1,1,1,220,1,2,0,230,1,1,0,220,1,2,0,230,1,1,0,220,1,3,0,
    230,1,3,0,220,1,1,0,27,1,0,28,1,0,29,3,0,230,1,1,0,220,1,2,0,230,1,2,0,220,1,5,0,230,1,1,60,7,1,16,9,1,3,230,1,1,0,
    220,1,2,0,230,1,1,103,7,1,16,9,1,48,230,1,1,61,7,1,16,9,1,110,7,1,16,9,1,110,7,1,16,9,1,127,9,1,110,7,1,16,9,1,7,
    84,1,0,91,1,101,7,1,16,9,2,109,9,1,16,9,1,124,9,2,109,103,1,0,9,4,13,107,2,108,118,1,0,9,4,13,122,2,76,220,1,1,27,
    220,1,1,1,220,1,1,1,216,1,1,55,129,1,1,0,130,1,1,1,132,1,4,5,130,1,1,2,130,1,2,1,230,1,1,0,9,2,1,230,1,1,62,220,1,
    1,112,7,2,1,9,1,82,220,1,3,207,5,230,1,2,180,7,9,1,30,9,1,157,1,9,1,10,230,1,1,203,1,228,1,1,143,1,222,1,1,0,230,1,
    1,0,220,1,1,219,1,230,1,1,0,220,1,1,71,9,8,20,230,1,1,2,220,1,5,48,230,1,6,0,220,1,2,0,230,1,1,0,220,1,2,1,220,1,2,
    0,230,1,2,0,220,1,5,0,230,1,1,0,220,1,4,0,230,1,1,101,7,1,15,9,1,38,230,1,1,0,220,1,7,0,230,1,2,54,9,1,58,7,2,11,9,
    1,67,7,3,152,1,230,1,1,1,1,5,0,220,1,2,0,230,1,4,0,220,1,1,0,230,1,7,1,1,1,4,220,1,1,6,230,1,2,3,230,1,2,198,1,230,
    1,1,0,220,1,7,0,230,1,1,0,220,1,2,0,230,1,1,0,234,1,1,0,214,1,1,0,220,1,1,0,202,1,37,0,230,1,1,0,232,1,2,0,228,1,1,
    0,220,1,1,0,218,1,1,0,230,1,1,0,233,1,1,0,220,1,1,0,230,1,1,0,220,1,2,208,5,230,1,2,0,1,4,0,230,1,3,0,1,2,0,230,1,
    1,4,230,1,2,3,1,1,0,230,1,1,0,220,1,1,0,230,1,2,0,1,4,0,220,1,1,0,230,1,3,254,23,230,1,1,141,1,9,32,96,230,1,1,170,
    4,218,1,1,0,228,1,1,0,232,1,1,0,222,1,2,0,224,1,2,105,8,1,212,235,1,230,1,10,4,230,1,2,32,230,1,2,80,230,1,1,148,2,
    9,1,37,9,1,151,1,9,18,27,230,1,3,57,220,1,1,37,9,1,95,7,1,12,9,1,239,1,230,1,2,1,230,1,1,0,220,1,2,2,230,1,2,5,230,
    1,1,1,230,1,1,52,9,1,246,1,9,1,176,158,1,26,7,129,6,230,1,7,0,220,1,2,0,230,1,1,205,7,220,1,1,226,1,220,1,5,149,1,
    230,1,1,146,13,220,1,1,1,230,1,1,40,230,1,1,0,1,1,0,220,1,1,4,9,1,165,1,230,1,1,0,220,1,4,189,4,230,1,5,65,230,1,2,
    189,2,230,1,3,80,220,1,2,70,220,1,3,0,230,1,1,0,220,1,1,0,230,1,4,0,220,1,1,49,230,1,1,0,220,1,1,0,230,1,1,0,220,1,
    1,192,1,9,1,41,9,1,14,9,1,57,9,1,0,7,3,69,230,1,2,48,9,1,62,7,1,76,9,1,9,7,1,106,9,1,0,7,1,178,1,7,1,0,9,2,80,7,1,
    16,9,7,24,230,1,5,3,230,1,3,89,9,1,113,9,1,3,7,1,23,230,1,1,99,9,1,0,7,1,251,1,9,1,0,7,1,126,9,1,118,9,1,0,7,1,115,
    9,1,141,2,9,1,0,7,2,130,2,9,1,4,7,1,156,1,9,1,83,9,1,18,9,1,81,9,1,165,3,9,1,130,2,7,2,1,9,1,81,9,2,169,3,9,1,236,
    131,1,9,5,192,19,1,7,59,230,1,2,185,9,6,1,172,153,1,1,2,198,41,216,1,3,0,1,1,3,226,1,5,0,216,1,8,8,220,1,5,2,230,1,
    2,0,220,1,4,30,230,1,3,148,1,230,1,7,187,27,230,1,17,1,230,1,7,2,230,1,2,1,230,1,5,1,230,1,1,100,230,1,7,160,1,230,
    1,1,247,2,230,1,4,61,230,1,2,252,3,232,1,1,0,220,1,1,0,230,1,1,254,1,230,1,1,0,220,1,7,224,5,220,1,6,109,230,1,1,0,
    7,0};

/* A number of 7 bits a byte, low ones first; the high bit says that more follow. */
static size_t orli_unicode_number(const unsigned char **at) {
    size_t n = 0;
    unsigned shift = 0;
    do n |= (size_t)(**at & 127) << shift, shift += 7;
    while (*(*at)++ & 128);
    return n;
}

/* The table of classes, expanded to half a byte a code point: a class's number (its bit's place), and
 * ORLI_NOT_NFC. A run is one byte, 3 bits of class and 5 of length (31: and a number more); a zero
 * byte goes before the number of pairs of an upper and a lower letter. */
#define ORLI_NOT_NFC 8u /* the character may change, or join what stands before it, in NFC */
static unsigned char *orli_unicode_expand(orl_ctx *ctx) {
    unsigned char *table = (unsigned char *)orli_alloc_zero(ctx, ORLI_UNICODE_END / 2 + 1, 1);
    const unsigned char *at = orli_unicode_classes;
    size_t code = 0, i, n;
    while (table && code < ORLI_UNICODE_END) {
        unsigned run = *at++;
        n = run >> 3;
        if (!run) n = 2 * orli_unicode_number(&at);
        else if (n == 31) n += orli_unicode_number(&at);
        for (i = 0; i < n; i++, code++)
            table[code / 2] |= (unsigned char)((run ? run & 7 : 1 + i % 2) << code % 2 * 4);
    }
    return table;
}

/* ---- a heap, smallest key first, then smallest value ---- */

typedef struct orli_heap_item {
    uint64_t key, value;
} orli_heap_item;

typedef struct orli_heap {
    orli_heap_item *item;
    size_t count, capacity;
} orli_heap;

static int orli_heap_before(orli_heap_item a, orli_heap_item b) {
    return a.key != b.key ? a.key < b.key : a.value < b.value;
}

static orl_status orli_heap_push(orl_ctx *ctx, orli_heap *h, uint64_t key, uint64_t value) {
    orli_heap_item fresh;
    size_t i = h->count;
    fresh.key = key, fresh.value = value;
    if (ORLI_RESERVE(ctx, h->item, h->capacity, h->count + 1) != ORL_OK) return ORL_ERR_MEMORY;
    for (h->count++; i > 0 && orli_heap_before(fresh, h->item[(i - 1) / 2]); i = (i - 1) / 2)
        h->item[i] = h->item[(i - 1) / 2];
    h->item[i] = fresh;
    return ORL_OK;
}

static orli_heap_item orli_heap_pop(orli_heap *h) {
    orli_heap_item top = h->item[0], last = h->item[--h->count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < h->count) {
        if (child + 1 < h->count && orli_heap_before(h->item[child + 1], h->item[child])) child++;
        if (!orli_heap_before(h->item[child], last)) break;
        h->item[i] = h->item[child];
        i = child;
    }
    h->item[i] = last;
    return top;
}

/* ---- a map from pairs of ids ---- */

typedef struct orli_pairs {
    /* key: the pair, or ORLI_NO_PAIR; open addressing, at most two thirds full */
    orli_heap_item *slot;
    size_t slots, count;
} orli_pairs;
#define ORLI_NO_PAIR UINT64_MAX

static uint64_t orli_pair(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}
static int32_t orli_pair_left(uint64_t pair) { return (int32_t)(pair >> 32); }
static int32_t orli_pair_right(uint64_t pair) { return (int32_t)(pair & 0xffffffffu); }

/* Where the pair is, or the free slot where it would be. */
static orli_heap_item *orli_pairs_slot(const orli_pairs *p, uint64_t pair) {
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    size_t i = (size_t)(h ^ h >> 32) & (p->slots - 1);
    while (p->slot[i].key != pair && p->slot[i].key != ORLI_NO_PAIR) i = (i + 1) & (p->slots - 1);
    return &p->slot[i];
}

/* The pair's value, or ORLI_NO_PAIR. */
static uint64_t orli_pairs_find(const orli_pairs *p, uint64_t pair) {
    const orli_heap_item *slot;
    if (!p->slots) return ORLI_NO_PAIR;
    slot = orli_pairs_slot(p, pair);
    return slot->key == pair ? slot->value : ORLI_NO_PAIR;
}

/* Makes room for n pairs in all. */
static orl_status orli_pairs_reserve(orl_ctx *ctx, orli_pairs *p, size_t n) {
    orli_pairs grown;
    size_t i;
    if (orli_mul(n, 3) <= orli_mul(p->slots, 2) && p->slots) return ORL_OK;
    memset(&grown, 0, sizeof grown);
    for (grown.slots = 64; grown.slots * 2 < orli_mul(n, 3);) grown.slots *= 2;
    grown.slot = (orli_heap_item *)orli_alloc(ctx, grown.slots, sizeof *grown.slot);
    if (!grown.slot) return ORL_ERR_MEMORY;
    memset(grown.slot, 0xff, grown.slots * sizeof *grown.slot);
    for (i = 0; i < p->slots; i++)
        if (p->slot[i].key != ORLI_NO_PAIR) *orli_pairs_slot(&grown, p->slot[i].key) = p->slot[i];
    grown.count = p->count;
    orli_free(ctx, p->slot);
    *p = grown;
    return ORL_OK;
}

static orl_status orli_pairs_set(orl_ctx *ctx, orli_pairs *p, uint64_t pair, uint64_t value) {
    orli_heap_item *slot;
    if (orli_pairs_reserve(ctx, p, p->count + 1) != ORL_OK) return ORL_ERR_MEMORY;
    slot = orli_pairs_slot(p, pair);
    if (slot->key == ORLI_NO_PAIR) p->count++;
    slot->key = pair;
    slot->value = value;
    return ORL_OK;
}

/* ---- the tokenizer ---- */

#define ORLI_TOKEN_BYTES_MOST ((size_t)1 << 28)
typedef struct orli_token {
    /* name: its spelling's number: "Ġthe", "▁the", "<0x0A>", "<|endoftext|>" */
    unsigned name : 30, special : 1, added : 1;
    /* bytes: how many it stands for; text: 0: no token has this id; behind: they follow the spelling and its zero,
     * else they are the spelling */
    unsigned bytes : 30, text : 1, behind : 1;
} orli_token;

/* A token that is looked for in the text before anything else. */
typedef struct orli_added {
    const char *text;          /* what is looked for: its spelling, or (normalized) what the normalizer makes of it */
    uint32_t bytes;
    int32_t id;
    char special;
    char lstrip, rstrip;       /* it takes the white space on that side along */
    char single_word;          /* not beside a letter, a digit or an underscore */
    char normalized;           /* looked for in the normalized text, when the others have been found */
} orli_added;

typedef struct orli_added_set { /* in order of their bytes */
    orli_added *item;
    size_t count, capacity;
    uint32_t first[257];        /* those that begin with byte b: first[b] … first[b + 1] − 1 */
} orli_added_set;

typedef struct orli_merge {
    int32_t left, right, id;
} orli_merge;

typedef enum orli_split { /* how text falls into words; merges stay within a word */
    ORLI_SPLIT_NONE,      /* SentencePiece: nowhere, or where no merge ever joins two bytes */
    ORLI_SPLIT_SPACES,    /* SentencePiece: before each space */
    ORLI_SPLIT_GPT2, ORLI_SPLIT_LLAMA3, ORLI_SPLIT_QWEN2, ORLI_SPLIT_O200K,
    ORLI_SPLIT_TEKKEN     /* Mistral NeMo */
} orli_split;

typedef enum orli_prefix { ORLI_PREFIX_NONE, ORLI_PREFIX_FIRST, ORLI_PREFIX_ALWAYS } orli_prefix;

/* A cache of words: pairs of places; a new word goes to the first of its pair, what was there to the second. It grows
 * while it is often missed. */
#define ORLI_WORDS_MOST 32768
#define ORLI_WORD_BYTES 24 /* words are shorter: the last byte of a key is the length */
typedef struct orli_word { /* one cache line */
    uint64_t key[3];       /* its bytes, zeros behind them */
    int32_t count, id[9];
} orli_word;

typedef struct orli_words {
    orli_word *word;       /* (count), a power of two; NULL: none yet */
    size_t count, missed;  /* since it grew */
} orli_words;

struct orl_tokenizer {
    orli_object object;
    unsigned char *unicode;          /* the class of each character, as orli_unicode_expand() has it … */
    unsigned char ascii[256];        /* … and of those of one byte, as a bit; 0: of several bytes */
    orli_names names;                /* spellings of all tokens, and the ids that go with them */
    orli_token *token;               /* (tokens), by id */
    size_t tokens, token_capacity;
    orli_texts texts;                /* of added tokens that the normalizer changes */
    orli_merge *merge;               /* in order of rank: less goes first */
    size_t merges, merge_capacity;
    int32_t *rank;                   /* rank_by_token: the rank of all merges that make a token; else NULL */
    uint32_t *merge_slot;            /* 1 + number of a merge, by its pair, 0 empty; at most half full */
    size_t merge_slots;
    orli_pairs forms;                /* for NFC: see orli_nfc_expand() */
    orli_added_set added[2];         /* those found in the text, those found in the normalized text */
    orli_words *cache;               /* written while encoding */
    unsigned char *joined;           /* bit 256 a + b: may a merge join bytes a and b? */
    int32_t byte_id[256];            /* −1: none. SentencePiece: the ids of <0x00> … */
    int32_t char_id[128];            /* SentencePiece: of one-byte characters */
    int32_t bos, eos, unk;           /* −1: none */
    int sentencepiece;               /* else byte-level */
    int add_bos, byte_fallback, fuse_unk, ignore_merges, nfc;
    /* all pairs that make one token have one rank: the leftmost is merged first */
    int rank_by_token;
    orli_prefix prefix;              /* a space is put before text … */
    int prefix_twice;                /* … even if it begins with one: the normalizer Prepend */
    int replaces;                    /* the normalizer makes "▁" of spaces, not the pre-tokenizer */
    int strips;                      /* the decoder takes a leading space away */
    int digits;                      /* numbers are words of their own: 1: each character, 2: each run */
    orli_split split;
    orli_kept kept;                  /* the files it came from, … */
    int changed;                     /* … which have other tokens by now */
};

static void orli_tokenizer_destroy(orli_object *object) {
    orl_tokenizer *tok = (orl_tokenizer *)object;
    orl_ctx *ctx = object->ctx;
    orli_free(ctx, tok->unicode);
    orli_names_free(&tok->names);
    orli_free(ctx, tok->token);
    orli_arena_free(&tok->texts.arena);
    orli_free(ctx, tok->merge);
    orli_free(ctx, tok->rank);
    orli_free(ctx, tok->merge_slot);
    orli_free(ctx, tok->forms.slot);
    orli_free(ctx, tok->added[0].item);
    orli_free(ctx, tok->added[1].item);
    if (tok->cache) orli_free(ctx, tok->cache->word);
    orli_free(ctx, tok->cache);
    orli_kept_free(ctx, &tok->kept);
    orli_free(ctx, tok->joined);
}

ORL_API void orl_tokenizer_free(orl_tokenizer *tok) {
    if (tok) orli_object_free(&tok->object);
}

/* The class of a character, a bit. */
static unsigned orli_class_of(const orl_tokenizer *tok, uint32_t code) {
    if (code < ORLI_UNICODE_END) return 1u << ((unsigned)tok->unicode[code / 2] >> code % 2 * 4 & 7);
    return code - 0xe0100u < 240 ? ORLI_MARK : ORLI_OTHER; /* variation selectors */
}

static orl_tokenizer *orli_tokenizer_new(orl_ctx *ctx) {
    orl_tokenizer *tok =
        (orl_tokenizer *)orli_object_create(ctx, sizeof *tok, orli_tokenizer_destroy);
    uint32_t c;
    if (!tok) return NULL;
    tok->names = orli_names_new(ctx);
    tok->texts.arena.ctx = ctx;
    tok->bos = tok->eos = tok->unk = -1;
    tok->split = ORLI_SPLIT_GPT2;
    tok->unicode = orli_unicode_expand(ctx);
    tok->cache = (orli_words *)orli_alloc_zero(ctx, 1, sizeof *tok->cache);
    for (c = 0; tok->unicode && c < 128; c++) tok->ascii[c] = (unsigned char)orli_class_of(tok, c);
    return tok;
}

/* tok, or NULL (and nothing left of it) if anything failed since it was made. */
static orl_tokenizer *orli_tokenizer_finished(orl_tokenizer *tok) {
    if (!tok || !orl_failed(tok->object.ctx)) return tok;
    orl_tokenizer_free(tok);
    return NULL;
}

/* ---- spelling: how the files write a token's bytes ---- */

/* Byte-level files write each byte as a printable character (GPT-2's encoder.py): '!' … '~',
 * '¡' … '¬' and '®' … 'ÿ' are themselves, the 68 others are 256, 257, … in order. */
static uint32_t orli_byte_to_char(unsigned b) {
    if (b <= 32) return 256 + b;
    if (b >= 127 && b <= 160) return 256 + 33 + (b - 127);
    return b == 173 ? 256 + 67 : b;
}
static int orli_char_to_byte(uint32_t c) { /* −1: no byte is written so */
    if (c < 256) return orli_byte_to_char(c) == c ? (int)c : -1;
    return c < 256 + 33    ? (int)(c - 256)
           : c < 256 + 67  ? (int)(c - 256 - 33 + 127)
           : c == 256 + 67 ? 173
                           : -1;
}

#define ORLI_SP_SPACE "\xe2\x96\x81" /* ▁, U+2581: SentencePiece's space */

/* Appends the spelling of n bytes. */
static void orli_spell(const orl_tokenizer *tok, const char *bytes, size_t n, orli_str *out) {
    char c[4];
    size_t i;
    for (i = 0; i < n; i++) {
        if (!tok->sentencepiece)
            orli_str_add(out, c, orli_utf8_encode(orli_byte_to_char((unsigned char)bytes[i]), c));
        else if (bytes[i] == ' ') orli_str_puts(out, ORLI_SP_SPACE);
        else orli_str_add(out, bytes + i, 1);
    }
}

/* The byte that a SentencePiece spelling "<0x0A>" names, or −1. */
static int orli_byte_token(const char *s, size_t n) {
    char digits[4] = {'0', '0', '0', '0'};
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    memcpy(digits + 2, s + 3, 2);
    return (int)orli_json_hex(digits, 4);
}

/* Appends the bytes that a spelling stands for; what no byte-level spelling could be is taken
 * as it is. */
static void orli_unspell(const orl_tokenizer *tok, const char *s, size_t n, orli_str *out) {
    size_t i, length, before = out->length;
    uint32_t code = 0;
    int byte = tok->sentencepiece ? orli_byte_token(s, n) : -1;
    char c;
    if (byte >= 0) {
        c = (char)byte;
        orli_str_add(out, &c, 1);
        return;
    }
    for (i = 0; i < n; i += length) {
        length = orli_utf8_decode(s + i, n - i, &code);
        if (!length) length = 1, code = 0x110000;
        if (tok->sentencepiece) {
            if (code == 0x2581) orli_str_add(out, " ", 1);
            else orli_str_add(out, s + i, length);
            continue;
        }
        byte = orli_char_to_byte(code);
        if (byte < 0) {
            out->length = before;
            orli_str_add(out, s, n);
            return;
        }
        c = (char)byte;
        orli_str_add(out, &c, 1);
    }
}

/* The id of a spelling, or −1. */
static int32_t orli_spelling_id(const orl_tokenizer *tok, const char *s, size_t n) {
    size_t name = orli_names_find(&tok->names, s, n);
    return name == ORLI_NONE ? -1 : tok->names.name[name].id;
}

/* ---- NFC: Unicode Standard Annex #15 ----
 * tok->forms holds, by keys that cannot meet:
 *     (first, second)         the character they compose
 *     (code, ORLI_NFC_PARTS)  orli_pair(first, second or −1), its canonical decomposition
 *     (code, ORLI_NFC_ORDER)  its canonical combining class, if not 0
 * Hangul is computed. Bytes that are no UTF-8 stay, and nothing is reordered or composed across them. */

enum { ORLI_NFC_PARTS = -1, ORLI_NFC_ORDER = -2 };

static void orli_nfc_mark(orl_tokenizer *tok, uint32_t code) {
    tok->unicode[code / 2] |= (unsigned char)(ORLI_NOT_NFC << code % 2 * 4);
}
static int orli_nfc_marked(const orl_tokenizer *tok, uint32_t code) {
    return code < ORLI_UNICODE_END && ((unsigned)tok->unicode[code / 2] >> code % 2 * 4 & ORLI_NOT_NFC);
}

/* A decomposition: twice the step from the last code, plus 1 if there is a second part; the first part as a
 * step (2 n forwards, 2 n − 1 back); the second by its place. Those that compose come first. enter: puts them into
 * tok->forms; then: marks those whose first part is marked, as it may join what stands before. */
static void orli_nfc_parts(orl_tokenizer *tok, const unsigned char *at, const uint32_t *second, int enter) {
    int composes, two;
    for (composes = 1; composes >= 0; composes--) {
        size_t code = 0, n;
        int32_t first = 0, other;
        while ((n = orli_unicode_number(&at)) != 0) {
            code += n / 2, two = n % 2;
            n = orli_unicode_number(&at);
            first += n % 2 ? -(int32_t)((n + 1) / 2) : (int32_t)(n / 2);
            other = two ? (int32_t)second[orli_unicode_number(&at)] : -1;
            if (!enter) {
                if (orli_nfc_marked(tok, (uint32_t)first)) orli_nfc_mark(tok, (uint32_t)code);
                continue;
            }
            orli_pairs_set(tok->object.ctx, &tok->forms, orli_pair((int32_t)code, ORLI_NFC_PARTS),
                           orli_pair(first, other));
            if (composes) orli_pairs_set(tok->object.ctx, &tok->forms, orli_pair(first, other), code);
            orli_nfc_mark(tok, composes ? (uint32_t)other : (uint32_t)code);
        }
    }
}

/* Fills tok->forms, and marks in tok->unicode what is not simply kept. */
static void orli_nfc_expand(orl_tokenizer *tok) {
    const unsigned char *at = orli_unicode_parts;
    uint32_t second[128], code = 0, n, order;
    size_t i, seconds = orli_unicode_number(&at);
    ORL_ASSERT(seconds <= sizeof second / sizeof *second);
    memset(second, 0, sizeof second);
    if (orli_pairs_reserve(tok->object.ctx, &tok->forms, 4096) != ORL_OK) return;
    for (i = 0; i < seconds; i++) second[i] = (i ? second[i - 1] : 0) + (uint32_t)orli_unicode_number(&at);
    for (i = 0; i < 3; i++) orli_nfc_parts(tok, at, second, i == 0);
    for (at = orli_unicode_orders; (n = (uint32_t)orli_unicode_number(&at)) != 0;) {
        code += (uint32_t)orli_unicode_number(&at), order = (uint32_t)orli_unicode_number(&at);
        for (; n; n--, code++) {
            orli_nfc_mark(tok, code);
            orli_pairs_set(tok->object.ctx, &tok->forms, orli_pair((int32_t)code, ORLI_NFC_ORDER), order);
        }
    }
    for (code = 0x1161; code < 0x1176; code++) orli_nfc_mark(tok, code); /* Hangul vowels */
    for (code = 0x11a8; code < 0x11c3; code++) orli_nfc_mark(tok, code); /* and final consonants */
}

/* A stretch of text on its way: combining class << 56 | place << 24 | code point. */
typedef struct orli_nfc_run {
    orl_ctx *ctx;
    uint64_t *item;
    size_t count, capacity;
} orli_nfc_run;

static void orli_nfc_put(const orl_tokenizer *tok, orli_nfc_run *r, uint32_t code) {
    uint64_t order = orli_pairs_find(&tok->forms, orli_pair((int32_t)code, ORLI_NFC_ORDER));
    if (order == ORLI_NO_PAIR) order = 0;
    if (ORLI_RESERVE(r->ctx, r->item, r->capacity, r->count + 1) != ORL_OK) return;
    r->item[r->count] = order << 56 | (uint64_t)r->count << 24 | code;
    r->count++;
}

/* A character's full decomposition: at most four deep, and only first parts have parts. */
static void orli_nfc_decompose(const orl_tokenizer *tok, orli_nfc_run *r, uint32_t code) {
    uint32_t hangul = code - 0xac00u, later[4];
    uint64_t parts;
    size_t n = 0;
    if (hangul < 11172) {
        orli_nfc_put(tok, r, 0x1100 + hangul / 588);
        orli_nfc_put(tok, r, 0x1161 + hangul % 588 / 28);
        if (hangul % 28) orli_nfc_put(tok, r, 0x11a7 + hangul % 28);
        return;
    }
    while ((parts = orli_pairs_find(&tok->forms, orli_pair((int32_t)code, ORLI_NFC_PARTS))) != ORLI_NO_PAIR) {
        ORL_ASSERT(n < 4);
        if (orli_pair_right(parts) >= 0) later[n++] = (uint32_t)orli_pair_right(parts);
        code = (uint32_t)orli_pair_left(parts);
    }
    orli_nfc_put(tok, r, code);
    while (n) orli_nfc_put(tok, r, later[--n]);
}

static int orli_nfc_order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Puts marks in order of their classes: stable, as the place follows the class. */
static void orli_nfc_sort(orli_nfc_run *r) {
    size_t i, from = 0, sorted = 1;
    for (i = 0; i <= r->count; i++) {
        if (i < r->count && r->item[i] >> 56) {
            if (i > from && r->item[i] < r->item[i - 1]) sorted = 0;
            continue;
        }
        if (!sorted) orli_sort(r->item + from, i - from, sizeof *r->item, orli_nfc_order);
        from = i + 1, sorted = 1;
    }
}

/* The character that two compose, or 0. */
static uint32_t orli_nfc_pair(const orl_tokenizer *tok, uint32_t a, uint32_t b) {
    uint64_t found;
    if (a - 0x1100u < 19 && b - 0x1161u < 21) return 0xac00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
    if (a - 0xac00u < 11172 && (a - 0xac00) % 28 == 0 && b - 0x11a8u < 27) return a + (b - 0x11a7);
    found = orli_pairs_find(&tok->forms, orli_pair((int32_t)a, (int32_t)b));
    return found == ORLI_NO_PAIR ? 0 : (uint32_t)found;
}

/* Joins each mark to its starter where they compose and nothing of its class or above stands between. */
static void orli_nfc_compose(const orl_tokenizer *tok, orli_nfc_run *r) {
    size_t i, n = 0, starter = ORLI_NONE;
    int last = -1;
    for (i = 0; i < r->count; i++) {
        uint32_t code = (uint32_t)(r->item[i] & 0xffffffu), both = 0;
        int order = (int)(r->item[i] >> 56);
        if (starter != ORLI_NONE && last < order) both = orli_nfc_pair(tok, (uint32_t)r->item[starter], code);
        if (both) {
            r->item[starter] = both;
            continue;
        }
        if (!order) starter = n;
        last = order ? order : -1;
        r->item[n++] = code;
    }
    r->count = n;
}

/* The end of what must be normalized together with the character at i, which is marked. */
static size_t orli_nfc_end(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    size_t length;
    uint32_t code = 0;
    while ((length = orli_utf8_decode(text + i, n - i, &code)) > 1 && orli_nfc_marked(tok, code)) i += length;
    return i;
}

static void orli_nfc_stretch(const orl_tokenizer *tok, orli_nfc_run *r, const char *text, size_t n,
                             orli_str *out) {
    size_t i, length;
    uint32_t code = 0;
    char c[4];
    r->count = 0;
    for (i = 0; i < n; i += length) {
        length = orli_utf8_decode(text + i, n - i, &code);
        orli_nfc_decompose(tok, r, code);
    }
    orli_nfc_sort(r);
    orli_nfc_compose(tok, r);
    for (i = 0; i < r->count; i++) orli_str_add(out, c, orli_utf8_encode((uint32_t)r->item[i], c));
}

/* 1 if `out` now holds the text's NFC, 0 if the text is in NFC as it stands. */
static int orli_nfc(const orl_tokenizer *tok, const char *text, size_t n, orli_str *out) {
    orli_nfc_run run;
    size_t i = 0, kept = 0, before = ORLI_NONE, length, end;
    uint32_t code = 0;
    memset(&run, 0, sizeof run);
    run.ctx = tok->object.ctx;
    while (i < n && !out->failed) {
        if (!((unsigned char)text[i] & 0x80)) {
            before = i++;
            continue;
        }
        length = orli_utf8_decode(text + i, n - i, &code);
        end = length > 1 ? orli_nfc_end(tok, text, n, i) : i;
        if (end > i) { /* the character before it may compose with it */
            size_t from = before == ORLI_NONE ? i : before;
            orli_str_add(out, text + kept, from - kept);
            orli_nfc_stretch(tok, &run, text + from, end - from, out);
            i = kept = end;
            before = ORLI_NONE;
        } else {
            before = length ? i : ORLI_NONE;
            i += ORLI_MAX(length, 1);
        }
    }
    orli_free(run.ctx, run.item);
    if (!kept) return 0;
    orli_str_add(out, text + kept, n - kept);
    return 1;
}

/* ---- normalizing ---- */

/* Appends SentencePiece text as it is kept here: "▁" in it is a space. */
static void orli_spaces_add(orli_str *out, const char *text, size_t n) {
    size_t i, from = 0;
    for (i = 0; i + 3 <= n; i++) {
        if (text[i] != ORLI_SP_SPACE[0] || memcmp(text + i, ORLI_SP_SPACE, 3) != 0) continue;
        orli_str_add(out, text + from, i - from);
        orli_str_add(out, " ", 1);
        from = i + 3;
        i += 2;
    }
    orli_str_add(out, text + from, n - from);
}

/* What the normalizer makes of a text, in *text and *n; the memory for it is `out`'s. begins: no text was
 * before it. */
static void orli_normalize(const orl_tokenizer *tok, const char **text, size_t *n, int begins,
                           orli_str *out) {
    int prefix = tok->prefix_twice && begins;
    if (tok->nfc && orli_nfc(tok, *text, *n, out)) *text = out->data, *n = out->length;
    if (!*n || out->failed || !(prefix || tok->replaces)) return;
    if (*text == out->data) { /* NFC and these at once: none does, but they may */
        orli_str nfc = *out;
        *out = orli_str_new(nfc.ctx);
        orli_str_add(out, " ", prefix ? 1 : 0);
        orli_spaces_add(out, *text, *n);
        orli_str_free(&nfc);
    } else {
        orli_str_add(out, " ", prefix ? 1 : 0);
        orli_spaces_add(out, *text, *n);
    }
    if (!out->failed) *text = out->data, *n = out->length;
}

/* ---- building ---- */

/* The bytes a token stands for, zero-terminated. */
static const char *orli_token_start(const orl_tokenizer *tok, const orli_token *t) {
    const orli_name *name = &tok->names.name[t->name];
    return name->text + (t->behind ? name->length + 1 : 0);
}

/* Makes room for so many tokens in all, and for a few ids that no token has. */
static orl_status orli_tokens_reserve(orl_tokenizer *tok, size_t n) {
    if (orli_names_reserve(&tok->names, n) != ORL_OK) return ORL_ERR_MEMORY;
    return ORLI_RESERVE(tok->object.ctx, tok->token, tok->token_capacity, n + 256);
}

/* Enters a token. literal: its text is its spelling (added tokens). 0: the spelling or the id
 * is taken (no error set). */
static int orli_token_enter(orl_tokenizer *tok, const char *spelling, size_t n, int32_t id,
                            int literal) {
    orl_ctx *ctx = tok->object.ctx;
    size_t before = tok->names.count, name, bytes;
    orli_str both = orli_str_new(ctx);
    orli_token *t;
    int behind;
    if ((size_t)id < tok->tokens && tok->token[id].text) return 0;
    if (n > ORLI_TOKEN_BYTES_MOST) {
        orli_fail(ctx, ORL_ERR_FORMAT, "token %ld has %zu bytes: more than %zu are not known here", (long)id, n,
                  ORLI_TOKEN_BYTES_MOST);
        return 1;
    }
    orli_str_add(&both, spelling, n);
    orli_str_add(&both, "", 1);
    if (literal && !tok->sentencepiece) orli_str_add(&both, spelling, n);
    else orli_unspell(tok, spelling, n, &both);
    bytes = both.length - n - 1;
    behind = bytes != n || (n && memcmp(both.data, both.data + n + 1, n) != 0);
    name = both.failed ? ORLI_NONE : orli_names_add_more(&tok->names, both.data, n, behind ? both.length : n);
    orli_str_free(&both);
    if (name == ORLI_NONE ||
        ORLI_RESERVE(ctx, tok->token, tok->token_capacity, (size_t)id + 1) != ORL_OK)
        return 1;
    if (tok->names.count == before) return 0;
    tok->names.name[name].id = id;
    for (; tok->tokens <= (size_t)id; tok->tokens++)
        memset(&tok->token[tok->tokens], 0, sizeof *tok->token);
    t = &tok->token[id];
    t->name = (unsigned)name & 0x3fffffffu;
    t->bytes = (unsigned)bytes & 0x3fffffffu;
    t->text = 1, t->behind = behind != 0;
    return 1;
}

/* Where the merge of a pair is, or the empty slot where it would be. */
static size_t orli_merge_place(const orl_tokenizer *tok, int32_t left, int32_t right) {
    size_t i = orli_hash_place(orli_pair(left, right) * 0x9E3779B97F4A7C15u, tok->merge_slots);
    for (; tok->merge_slot[i]; i = i + 1 < tok->merge_slots ? i + 1 : 0) {
        const orli_merge *m = &tok->merge[tok->merge_slot[i] - 1];
        if (m->left == left && m->right == right) break;
    }
    return i;
}

/* orli_pair(rank, id) of the merge of a pair, or ORLI_NO_PAIR. */
static uint64_t orli_merge_of(const orl_tokenizer *tok, int32_t left, int32_t right) {
    uint32_t number = tok->merge_slots ? tok->merge_slot[orli_merge_place(tok, left, right)] : 0;
    int32_t id = number ? tok->merge[number - 1].id : 0;
    if (!number) return ORLI_NO_PAIR;
    return orli_pair(tok->rank ? tok->rank[id] : (int32_t)(number - 1), id);
}

static orl_status orli_merges_grow(orl_tokenizer *tok, size_t slots) {
    size_t i;
    orli_free(tok->object.ctx, tok->merge_slot);
    tok->merge_slot = (uint32_t *)orli_alloc_zero(tok->object.ctx, slots, sizeof *tok->merge_slot);
    tok->merge_slots = tok->merge_slot ? slots : 0;
    for (i = 0; tok->merge_slot && i < tok->merges; i++)
        tok->merge_slot[orli_merge_place(tok, tok->merge[i].left, tok->merge[i].right)] = (uint32_t)(i + 1);
    return orl_error_status(tok->object.ctx);
}

/* Makes room for so many merges in all, and no more. */
static orl_status orli_merges_reserve(orl_tokenizer *tok, size_t n) {
    if (ORLI_RESERVE(tok->object.ctx, tok->merge, tok->merge_capacity, n) != ORL_OK) return ORL_ERR_MEMORY;
    return 2 * n > tok->merge_slots ? orli_merges_grow(tok, 2 * n) : ORL_OK;
}

/* Enters the merge that comes next in rank. 0: there is one of this pair (no error set). */
static int orli_merge_enter(orl_tokenizer *tok, int32_t left, int32_t right, int32_t id) {
    orli_merge *m;
    size_t place;
    if (ORLI_RESERVE(tok->object.ctx, tok->merge, tok->merge_capacity, tok->merges + 1) != ORL_OK ||
        (2 * (tok->merges + 1) > tok->merge_slots &&
         orli_merges_grow(tok, tok->merge_slots ? 2 * tok->merge_slots : 64) != ORL_OK))
        return 1;
    place = orli_merge_place(tok, left, right);
    if (tok->merge_slot[place]) return 0;
    m = &tok->merge[tok->merges++];
    m->left = left, m->right = right, m->id = id;
    tok->merge_slot[place] = (uint32_t)tok->merges;
    return 1;
}

static int orli_added_order(const void *a, const void *b) {
    const orli_added *s = (const orli_added *)a, *t = (const orli_added *)b;
    int order = memcmp(s->text, t->text, ORLI_MIN(s->bytes, t->bytes));
    if (order) return order;
    if (s->bytes != t->bytes) return s->bytes < t->bytes ? -1 : 1;
    return s->id < t->id ? -1 : s->id > t->id;
}

/* Makes the token `flags.id` one that is looked for in text (once orli_added_sort() has been called). */
static void orli_added_enter(orl_tokenizer *tok, orli_added flags) {
    orl_ctx *ctx = tok->object.ctx;
    orli_token *t = &tok->token[flags.id];
    const orli_name *name = &tok->names.name[t->name];
    orli_added_set *set = &tok->added[flags.normalized ? 1 : 0];
    orli_str made = orli_str_new(ctx);
    size_t i = set->count, bytes = name->length;
    if (!name->length || ORLI_RESERVE(ctx, set->item, set->capacity, set->count + 1) != ORL_OK) return;
    if (!t->added) set->count++;
    else for (i = 0; i < set->count && set->item[i].id != flags.id;) i++;
    if (i == set->count) return; /* it is in the other set: a second one would never be found */
    flags.text = name->text;
    if (flags.normalized) {
        orli_normalize(tok, &flags.text, &bytes, 1, &made);
        if (flags.text == made.data) flags.text = orli_texts_add(&tok->texts, made.data, made.length);
    }
    flags.bytes = (uint32_t)bytes;
    orli_str_free(&made);
    if (!flags.text) return;
    set->item[i] = flags;
    if (!tok->sentencepiece) t->behind = 0, t->bytes = name->length & 0x3fffffffu; /* it stands for its spelling */
    t->special = flags.special != 0;
    t->added = 1;
}

/* The same with no flags but `special`. */
static void orli_added_plain(orl_tokenizer *tok, int32_t id, int special) {
    orli_added flags;
    memset(&flags, 0, sizeof flags);
    flags.id = id, flags.special = special != 0;
    orli_added_enter(tok, flags);
}

static void orli_added_sort(orl_tokenizer *tok) {
    size_t i, k, b;
    for (k = 0; k < 2; k++) {
        orli_added_set *set = &tok->added[k];
        orli_sort(set->item, set->count, sizeof *set->item, orli_added_order);
        for (b = i = 0; b < 257; b++) {
            while (i < set->count && (unsigned char)set->item[i].text[0] < b) i++;
            set->first[b] = (uint32_t)i;
        }
    }
    /* whole words may have become special */
    if (tok->cache->word) memset(tok->cache->word, 0, tok->cache->count * sizeof *tok->cache->word);
}

/* A word may be cut between two bytes that stand side by side in no token that is merged: tok->joined marks the
 * others. SentencePiece text is never cut within a character, nor (where characters may be unknown, and unknown
 * neighbours are one) but before a space. */
static int orli_never_cut(const orl_tokenizer *tok, int all_bytes, size_t second) {
    if (!tok->sentencepiece) return !all_bytes;
    if (tok->ignore_merges) return 1; /* the whole text may be a token */
    return (second & 0xc0) == 0x80 || (second != ' ' && !(all_bytes && tok->byte_fallback)) || tok->char_id[0x20] < 0;
}

static void orli_joined_mark(orl_tokenizer *tok) {
    orli_str text = orli_str_new(tok->object.ctx);
    size_t i, k, pair, bytes = 0;
    unsigned char *joined = (unsigned char *)orli_alloc_zero(tok->object.ctx, 65536 / 8, 1);
    tok->joined = joined;
    for (i = 0; i < 256; i++) bytes += tok->byte_id[i] >= 0;
    for (pair = 0; joined && pair < 65536; pair++)
        if (orli_never_cut(tok, bytes == 256, pair & 255)) joined[pair / 8] |= (unsigned char)(1u << pair % 8);
    for (i = 0; joined && i < tok->tokens; i++) {
        const orli_name *name = &tok->names.name[tok->token[i].name];
        if (!tok->token[i].text) continue;
        text.length = 0;
        orli_unspell(tok, name->text, name->length, &text);
        for (k = 1; k < text.length; k++) {
            pair = 256u * (unsigned char)text.data[k - 1] + (unsigned char)text.data[k];
            joined[pair / 8] |= (unsigned char)(1u << pair % 8);
        }
    }
    orli_str_free(&text);
}

/* rank_by_token: the first merge that makes a token lends its rank to all that do. */
static void orli_ranks_share(orl_tokenizer *tok) {
    size_t i;
    orli_free(tok->object.ctx, tok->rank);
    tok->rank = (int32_t *)orli_alloc_zero(tok->object.ctx, tok->tokens, sizeof *tok->rank);
    for (i = tok->merges; tok->rank && i-- > 0;) tok->rank[tok->merge[i].id] = (int32_t)i;
}

/* Tables that follow from vocabulary and merges. */
static void orli_tokenizer_index(orl_tokenizer *tok) {
    orl_ctx *ctx = tok->object.ctx;
    char spelling[8];
    size_t i;
    for (i = 0; i < 256; i++) {
        size_t n = tok->sentencepiece
                       ? (size_t)snprintf(spelling, sizeof spelling, "<0x%02X>", (unsigned)i)
                       : orli_utf8_encode(orli_byte_to_char((unsigned)i), spelling);
        tok->byte_id[i] = orli_spelling_id(tok, spelling, n);
    }
    for (i = 0; i < 128; i++) {
        spelling[0] = (char)i;
        tok->char_id[i] =
            i == ' ' ? orli_spelling_id(tok, ORLI_SP_SPACE, 3) : orli_spelling_id(tok, spelling, 1);
    }
    if (!orl_failed(ctx) && tok->rank_by_token) orli_ranks_share(tok);
    orli_free(ctx, tok->joined);
    tok->joined = NULL;
    if (!orl_failed(ctx)) orli_joined_mark(tok);
    if (!orl_failed(ctx)) orli_added_sort(tok);
}

/* ---- words ---- */

/* The class (a bit) of the character at text, and its length; a byte that is no UTF-8 is a
 * character of class ORLI_OTHER. */
static unsigned orli_class_long(const orl_tokenizer *tok, const char *text, size_t n, size_t *length) {
    uint32_t code = 0;
    *length = orli_utf8_decode(text, n, &code);
    if (*length) return orli_class_of(tok, code);
    *length = 1;
    return ORLI_OTHER;
}
static unsigned orli_class_at(const orl_tokenizer *tok, const char *text, size_t n, size_t i,
                              size_t *length) {
    unsigned c = tok->ascii[(unsigned char)text[i]];
    if (!c) return orli_class_long(tok, text + i, n - i, length);
    *length = 1;
    return c;
}

/* The end of the run of characters of these classes from i on. */
static size_t orli_run(const orl_tokenizer *tok, const char *text, size_t n, size_t i, unsigned classes) {
    size_t length;
    for (;;) {
        while (i < n && (tok->ascii[(unsigned char)text[i]] & classes)) i++;
        if (i >= n || !(orli_class_at(tok, text, n, i, &length) & classes)) return i;
        i += length;
    }
}

/* The same, of at most `most` characters. */
static size_t orli_run_of(const orl_tokenizer *tok, const char *text, size_t n, size_t i, unsigned classes,
                          size_t most) {
    size_t length;
    for (; i < n && most-- && (orli_class_at(tok, text, n, i, &length) & classes); i += length) {}
    return i;
}

/* Where the character that ends at i begins (a byte that is no UTF-8 is one). */
static size_t orli_char_before(const char *text, size_t low, size_t i) {
    size_t at = i - 1;
    uint32_t code = 0;
    while (at > low && i - at < 4 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    return orli_utf8_decode(text + at, i - at, &code) == i - at ? at : i - 1;
}

/* The bytes of 's 't 'm 'd 're 've 'll at text, or 0. fold: capitals too, and ſ (U+017F), which
 * folds to s. */
static size_t orli_contraction(const char *text, size_t n, int fold) {
    char a = n > 1 ? text[1] : 0, b = n > 2 ? text[2] : 0;
    if (fold && n > 2 && memcmp(text + 1, "\xc5\xbf", 2) == 0) return 3;
    if (fold && a >= 'A' && a <= 'Z') a = (char)(a + 32);
    if (fold && b >= 'A' && b <= 'Z') b = (char)(b + 32);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* White space: up to its last newline if `newlines` and it has one; else all but its last
 * character, which goes to the word that follows; all of it if it is one character, or the end:
 * \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t orli_space_end(const orl_tokenizer *tok, const char *text, size_t n, size_t i,
                             int newlines) {
    size_t end = orli_run(tok, text, n, i, ORLI_SPACE), k, length;
    if (newlines)
        for (k = end; k > i; k--)
            if (text[k - 1] == '\n' || text[k - 1] == '\r') return k;
    if (end >= n || (tok->digits && (orli_class_at(tok, text, n, end, &length) & ORLI_NUMBERS))) return end;
    k = orli_char_before(text, i, end);
    return k > i ? k : end;
}

/* '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * digits: numbers have been cut out before, each or each run of them. */
static size_t orli_word_gpt2(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    size_t length, from = i;
    unsigned c;
    if (text[i] == '\'' && (length = orli_contraction(text + i, n - i, 0)) != 0) return i + length;
    if (text[i] == ' ' && i + 1 < n) from++;
    c = orli_class_at(tok, text, n, from, &length);
    if (c & ORLI_LETTERS) return orli_run(tok, text, n, from, ORLI_LETTERS);
    if (c & ORLI_OTHERS) return orli_run(tok, text, n, from, ORLI_OTHERS);
    if (c & ORLI_SPACE) return orli_space_end(tok, text, n, i, 0);
    if (tok->digits && from > i) return from;
    return tok->digits == 1 ? i + length : orli_run(tok, text, n, from, ORLI_NUMBERS);
}

/*  ?[^\s\p{L}\p{N}]+[\r\n]* (slash: [\r\n/]*) | \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t orli_word_rest(const orl_tokenizer *tok, const char *text, size_t n, size_t i, int slash) {
    size_t from = i + (text[i] == ' ' && i + 1 < n), length, end;
    if (!(orli_class_at(tok, text, n, from, &length) & ORLI_OTHERS)) return orli_space_end(tok, text, n, i, 1);
    end = orli_run(tok, text, n, from, ORLI_OTHERS);
    while (end < n && (text[end] == '\r' || text[end] == '\n' || (slash && text[end] == '/'))) end++;
    return end;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|… as orli_word_rest() */
static size_t orli_word_llama3(const orl_tokenizer *tok, const char *text, size_t n, size_t i,
                               size_t digits) {
    size_t length, next, end;
    unsigned c = orli_class_at(tok, text, n, i, &length);
    if (c & ORLI_LETTERS) return orli_run(tok, text, n, i + length, ORLI_LETTERS);
    if (c & ORLI_NUMBERS) return orli_run_of(tok, text, n, i, ORLI_NUMBERS, digits);
    if (text[i] == '\'' && (end = orli_contraction(text + i, n - i, 1)) != 0) return i + end;
    if (text[i] != '\r' && text[i] != '\n' && i + length < n &&
        (orli_class_at(tok, text, n, i + length, &next) & ORLI_LETTERS))
        return orli_run(tok, text, n, i + length + next, ORLI_LETTERS);
    return orli_word_rest(tok, text, n, i, 0);
}

/* The end of [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ at i, or 0; *upper: of
 * [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]* alone. What is in both sets goes to the first, if something is left
 * for the second. */
static size_t orli_cased(const orl_tokenizer *tok, const char *text, size_t n, size_t i, size_t *upper) {
    const unsigned both = (unsigned)(ORLI_LETTER | ORLI_MARK);
    size_t end = *upper = orli_run(tok, text, n, i, both | ORLI_UPPER), at, length;
    if (end < n && (orli_class_at(tok, text, n, end, &length) & ORLI_LOWER))
        return orli_run(tok, text, n, end, both | ORLI_LOWER);
    for (; end > i; end = at) {
        at = orli_char_before(text, i, end);
        if (orli_class_at(tok, text, n, at, &length) & both) return end;
    }
    return 0;
}

/* [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|
 * [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|
 * \p{N}{1,3}|… as orli_word_rest() with slash
 * tekken: without contractions, and each digit a word */
static size_t orli_word_o200k(const orl_tokenizer *tok, const char *text, size_t n, size_t i, int tekken) {
    size_t length, from = i, upper, ignored, end;
    unsigned c = orli_class_at(tok, text, n, i, &length);
    if (c & ORLI_NUMBERS) return orli_run_of(tok, text, n, i, ORLI_NUMBERS, tekken ? 1 : 3);
    if (!(c & ORLI_LETTERS) && text[i] != '\r' && text[i] != '\n') from += length;
    upper = from;
    end = from < n ? orli_cased(tok, text, n, from, &upper) : 0;
    if (!end && from > i) end = orli_cased(tok, text, n, i, &ignored); /* a mark is no prefix if it is all there is */
    if (!end && upper > from) end = upper;
    if (!end) return orli_word_rest(tok, text, n, i, 1);
    return end < n && text[end] == '\'' && !tekken ? end + orli_contraction(text + end, n - end, 1) : end;
}

/* The first place behind i where no merge can join what stands there. */
static size_t orli_joined_end(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    size_t pair;
    for (i++; i < n; i++) {
        pair = 256u * (unsigned char)text[i - 1] + (unsigned char)text[i];
        if (!(tok->joined[pair / 8] >> pair % 8 & 1)) break;
    }
    return i;
}

/* Where the word that begins at i ends. */
static size_t orli_word_end(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    switch (tok->split) {
    case ORLI_SPLIT_GPT2: return orli_word_gpt2(tok, text, n, i);
    case ORLI_SPLIT_LLAMA3: return orli_word_llama3(tok, text, n, i, 3);
    case ORLI_SPLIT_QWEN2: return orli_word_llama3(tok, text, n, i, 1);
    case ORLI_SPLIT_O200K: return orli_word_o200k(tok, text, n, i, 0);
    case ORLI_SPLIT_TEKKEN: return orli_word_o200k(tok, text, n, i, 1);
    case ORLI_SPLIT_SPACES:
        for (i++; i < n && text[i] != ' '; i++) {}
        return i;
    default: break;
    }
    return orli_joined_end(tok, text, n, i);
}

/* ---- encoding a word ---- */

typedef struct orli_symbol { /* of a list that shrinks as neighbours are merged */
    int32_t id;              /* −1: merged into the one before it */
    uint32_t previous, next; /* 0 … count − 1, or count at either end */
} orli_symbol;

typedef struct orli_place { /* of a list of places where one merge may be done */
    uint32_t symbol, next;  /* next: 1 + its number, 0: none */
} orli_place;

typedef struct orli_place_list {
    uint32_t first, last; /* 1 + number, 0: none */
    int unordered;        /* not from left to right */
} orli_place_list;

typedef struct orli_encoder {
    orl_ctx *ctx;
    int parse_special, continues; /* see orli_encode() */
    int32_t *start;               /* (count): a long word's first symbols … */
    size_t count, start_capacity;
    orli_symbol *symbol;          /* … and those that are left of them */
    size_t capacity;
    orli_heap heap, ranks;        /* proposals; ranks whose list is not empty */
    orli_place_list *list;        /* (merges): of each rank, for the longest words */
    orli_place *place;
    size_t places, place_capacity;
    uint32_t *sweep;
    size_t sweep_capacity, free_place;
    int32_t *id; /* the result */
    size_t ids, id_capacity;
} orli_encoder;

static void orli_encoder_free(orli_encoder *e) { /* all but the result */
    orli_free(e->ctx, e->start);
    orli_free(e->ctx, e->symbol);
    orli_free(e->ctx, e->heap.item);
    orli_free(e->ctx, e->ranks.item);
    orli_free(e->ctx, e->list);
    orli_free(e->ctx, e->place);
    orli_free(e->ctx, e->sweep);
}

static void orli_encoder_emit(orli_encoder *e, int32_t id) {
    if (ORLI_RESERVE(e->ctx, e->id, e->id_capacity, e->ids + 1) == ORL_OK) e->id[e->ids++] = id;
}

static void orli_symbol_add(orli_encoder *e, int32_t id) {
    if (ORLI_RESERVE(e->ctx, e->start, e->start_capacity, e->count + 1) == ORL_OK) e->start[e->count++] = id;
}

/* A character without a token: its bytes' tokens, or the unknown token. */
static void orli_symbol_fall_back(const orl_tokenizer *tok, orli_encoder *e, const char *text,
                                  size_t length) {
    size_t i, known = 0;
    for (i = 0; i < length; i++) known += tok->byte_id[(unsigned char)text[i]] >= 0;
    if (known == length && (tok->byte_fallback || !tok->sentencepiece)) {
        for (i = 0; i < length; i++) orli_symbol_add(e, tok->byte_id[(unsigned char)text[i]]);
    } else if (tok->unk < 0) {
        orli_fail(e->ctx, ORL_ERR_DATA,
                  "byte 0x%02x of a text has no token, and the vocabulary no token for the "
                  "unknown: use another tokenizer",
                  (unsigned char)text[0]);
    } else if (!(tok->fuse_unk && e->count && e->start[e->count - 1] == tok->unk)) {
        orli_symbol_add(e, tok->unk);
    }
}

/* A word's first symbols: bytes, or (SentencePiece) characters. */
static void orli_symbols(const orl_tokenizer *tok, orli_encoder *e, const char *word, size_t n) {
    size_t i, length;
    uint32_t code = 0;
    int32_t id;
    e->count = 0;
    for (i = 0; i < n && !orl_failed(e->ctx); i += length) {
        length = 1;
        if (!tok->sentencepiece) {
            id = tok->byte_id[(unsigned char)word[i]];
        } else if ((unsigned char)word[i] < 128) {
            id = tok->char_id[(unsigned char)word[i]];
        } else {
            length = orli_utf8_decode(word + i, n - i, &code);
            id = length ? orli_spelling_id(tok, word + i, length) : -1;
            length = ORLI_MAX(length, 1);
        }
        if (id >= 0) orli_symbol_add(e, id);
        else orli_symbol_fall_back(tok, e, word + i, length);
    }
}

/* Few symbols: looks for the best pair again after each merge. (rank, id) of a pair is a number, and less is better. */
#define ORLI_FEW 32
static void orli_merge_few(const orl_tokenizer *tok, orli_encoder *e, int32_t *id, size_t count) {
    uint64_t merge[ORLI_FEW + 1];
    size_t i, best, left = count;
    for (i = 0; i + 1 < count; i++) merge[i] = orli_merge_of(tok, id[i], id[i + 1]);
    while (left > 1) {
        for (best = 0, i = 1; i + 1 < left; i++)
            if (merge[i] >> 32 < merge[best] >> 32) best = i;
        if (merge[best] == ORLI_NO_PAIR) break;
        id[best] = orli_pair_right(merge[best]);
        left--;
        for (i = best + 1; i < left; i++) id[i] = id[i + 1];
        for (i = best; i + 1 < left; i++) merge[i] = merge[i + 1];
        if (best + 1 < left) merge[best] = orli_merge_of(tok, id[best], id[best + 1]);
        if (best) merge[best - 1] = orli_merge_of(tok, id[best - 1], id[best]);
    }
    if (ORLI_RESERVE(e->ctx, e->id, e->id_capacity, e->ids + left) != ORL_OK) return;
    memcpy(e->id + e->ids, id, left * sizeof *id);
    e->ids += left;
}

/* The (rank, id) of the merge of symbol i with the next, or ORLI_NO_PAIR. */
static uint64_t orli_merge_at(const orl_tokenizer *tok, const orli_encoder *e, size_t i) {
    const orli_symbol *s = &e->symbol[i];
    if (s->id < 0 || s->next >= e->count) return ORLI_NO_PAIR;
    return orli_merge_of(tok, s->id, e->symbol[s->next].id);
}

static void orli_place_add(orli_encoder *e, size_t rank, size_t i) {
    orli_place_list *list = &e->list[rank];
    size_t at = e->free_place;
    if (at) {
        e->free_place = e->place[at - 1].next;
    } else {
        if (ORLI_RESERVE(e->ctx, e->place, e->place_capacity, e->places + 1) != ORL_OK) return;
        at = ++e->places;
    }
    e->place[at - 1].symbol = (uint32_t)i;
    e->place[at - 1].next = 0;
    if (!list->first) {
        list->first = (uint32_t)at;
        list->unordered = 0;
        orli_heap_push(e->ctx, &e->ranks, rank, 0);
    } else {
        e->place[list->last - 1].next = (uint32_t)at;
        if (e->place[list->last - 1].symbol > i) list->unordered = 1;
    }
    list->last = (uint32_t)at;
}

static int orli_place_order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Empties a rank's list into e->sweep, from left to right; gives the number of places. */
static size_t orli_places_take(orli_encoder *e, orli_place_list *list) {
    size_t n = 0;
    uint32_t at = list->first, next;
    for (; at; at = next) {
        if (ORLI_RESERVE(e->ctx, e->sweep, e->sweep_capacity, n + 1) != ORL_OK) return 0;
        e->sweep[n++] = e->place[at - 1].symbol;
        next = e->place[at - 1].next;
        e->place[at - 1].next = (uint32_t)e->free_place;
        e->free_place = at;
    }
    list->first = 0;
    if (list->unordered) orli_sort(e->sweep, n, sizeof *e->sweep, orli_place_order);
    return n;
}

/* Notes that symbol i and the next may be merged. Ranks up to `now` go to the heap: by rank, then from left to right.
 * Higher ones go to the lists of places. */
static void orli_propose(const orl_tokenizer *tok, orli_encoder *e, size_t i, int64_t now) {
    uint64_t merge = orli_merge_at(tok, e, i);
    if (merge == ORLI_NO_PAIR) return;
    if ((int64_t)(merge >> 32) <= now)
        orli_heap_push(e->ctx, &e->heap, (merge & ~(uint64_t)0xffffffffu) | i, merge);
    else orli_place_add(e, (size_t)(merge >> 32), i);
}

/* Makes symbol i and the next one `id`, and proposes what that makes possible. */
static void orli_merge_do(const orl_tokenizer *tok, orli_encoder *e, size_t i, int32_t id, int64_t now) {
    orli_symbol *s = &e->symbol[i], *t = &e->symbol[s->next];
    s->id = id;
    t->id = -1;
    s->next = t->next;
    if (s->next < e->count) e->symbol[s->next].previous = (uint32_t)i;
    if (s->previous < e->count) orli_propose(tok, e, s->previous, now);
    orli_propose(tok, e, i, now);
}

/* Empties the heap. A proposal whose symbols have changed since is dropped. */
static void orli_merge_heap(const orl_tokenizer *tok, orli_encoder *e, int64_t now) {
    while (e->heap.count && !orl_failed(e->ctx)) {
        orli_heap_item best = orli_heap_pop(&e->heap);
        size_t i = (size_t)(best.key & 0xffffffffu);
        if (orli_merge_at(tok, e, i) == best.value) orli_merge_do(tok, e, i, orli_pair_right(best.value), now);
    }
}

/* Many symbols: all by the heap. */
static void orli_merge_many(const orl_tokenizer *tok, orli_encoder *e) {
    size_t i;
    for (i = 0; i + 1 < e->count; i++) orli_propose(tok, e, i, INT64_MAX);
    orli_merge_heap(tok, e, INT64_MAX);
}

/* A great many symbols, in the same order but without so large a heap: each rank's list of places is swept from left
 * to right. What a merge there makes possible is at its left or at the place itself: if it is of this rank or a
 * better one, it is done before the sweep goes on. */
static void orli_merge_most(const orl_tokenizer *tok, orli_encoder *e) {
    size_t i, k, n;
    if (!e->list) e->list = (orli_place_list *)orli_alloc_zero(e->ctx, tok->merges, sizeof *e->list);
    e->places = e->free_place = 0;
    for (i = 0; i + 1 < e->count && !orl_failed(e->ctx); i++) orli_propose(tok, e, i, -1);
    while (e->ranks.count && !orl_failed(e->ctx)) {
        uint64_t rank = orli_heap_pop(&e->ranks).key, merge;
        n = orli_places_take(e, &e->list[rank]);
        for (k = 0; k < n; k++) {
            merge = orli_merge_at(tok, e, e->sweep[k]);
            if (merge == ORLI_NO_PAIR || merge >> 32 != rank) continue;
            orli_merge_do(tok, e, e->sweep[k], orli_pair_right(merge), (int64_t)rank);
            orli_merge_heap(tok, e, (int64_t)rank);
        }
    }
}
#define ORLI_MOST 2048

/* ignore_merges: a word that is a token is that token, whatever merges would make of it. */
static int32_t orli_whole_word(const orl_tokenizer *tok, orli_encoder *e, const char *word,
                               size_t n) {
    char few[256];
    orli_str spelling = orli_str_new(e->ctx);
    size_t i, length = 0;
    int32_t id = -1;
    if (!tok->sentencepiece && n <= sizeof few / 2) {
        for (i = 0; i < n; i++)
            length += orli_utf8_encode(orli_byte_to_char((unsigned char)word[i]), few + length);
        id = orli_spelling_id(tok, few, length);
    } else {
        orli_spell(tok, word, n, &spelling);
        if (!spelling.failed && spelling.data) id = orli_spelling_id(tok, spelling.data, spelling.length);
        orli_str_free(&spelling);
    }
    return id >= 0 && !tok->token[id].special ? id : -1;
}

/* A word's part that merges may join. */
static void orli_encode_joined(const orl_tokenizer *tok, orli_encoder *e, const char *word, size_t n) {
    int32_t few[ORLI_FEW];
    size_t i;
    orli_symbols(tok, e, word, n);
    if (orl_failed(e->ctx)) return;
    if (e->count <= ORLI_FEW) {
        if (e->count) memcpy(few, e->start, e->count * sizeof *few);
        orli_merge_few(tok, e, few, e->count);
        return;
    }
    if (ORLI_RESERVE(e->ctx, e->symbol, e->capacity, e->count) != ORL_OK) return;
    for (i = 0; i < e->count; i++) {
        e->symbol[i].id = e->start[i];
        e->symbol[i].previous = i ? (uint32_t)(i - 1) : (uint32_t)e->count;
        e->symbol[i].next = (uint32_t)(i + 1);
    }
    if (e->count >= ORLI_MOST) orli_merge_most(tok, e);
    else orli_merge_many(tok, e);
    for (i = 0; i < e->count && !orl_failed(e->ctx); i = e->symbol[i].next) orli_encoder_emit(e, e->symbol[i].id);
}

/* A word that is not in the cache. */
static void orli_encode_new(const orl_tokenizer *tok, orli_encoder *e, const char *word, size_t n) {
    size_t i, end = tok->sentencepiece ? n : orli_joined_end(tok, word, n, 0);
    int32_t whole = tok->ignore_merges && end == n ? orli_whole_word(tok, e, word, n) : -1;
    if (whole >= 0) {
        orli_encoder_emit(e, whole);
        return;
    }
    for (i = 0; i < n && !orl_failed(e->ctx); i = end) {
        end = tok->sentencepiece ? n : orli_joined_end(tok, word, n, i);
        if (end == i + 1 && !tok->sentencepiece && tok->byte_id[(unsigned char)word[i]] >= 0)
            orli_encoder_emit(e, tok->byte_id[(unsigned char)word[i]]);
        else orli_encode_joined(tok, e, word + i, end - i);
    }
}

/* A short word as three numbers. room: bytes that may be read from it on. */
static void orli_word_key(const char *word, size_t n, size_t room, uint64_t key[3]) {
    key[0] = key[1] = key[2] = 0;
    if (room >= ORLI_WORD_BYTES) {
        memcpy(key, word, 8);
        if (n < 8) key[0] &= ((uint64_t)1 << 8 * n) - 1;
        if (n > 8) {
            memcpy(key + 1, word + 8, 16);
            if (n < 16) key[1] &= ((uint64_t)1 << 8 * (n - 8)) - 1, key[2] = 0;
            else key[2] &= ((uint64_t)1 << 8 * (n - 16)) - 1;
        }
    } else {
        memcpy(key, word, n);
    }
    key[2] |= (uint64_t)n << 56;
}

static size_t orli_word_hash(const uint64_t key[3]) {
    uint64_t h = (key[0] ^ key[2] * 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32 ^ key[1]) * 0xD6E8FEB86659FD93u;
    return (size_t)(h >> 40);
}

static int orli_word_is(const orli_word *w, const uint64_t key[3]) {
    return w->key[0] == key[0] && w->key[1] == key[1] && w->key[2] == key[2];
}

/* Four times the places (or the first 1024), if so many words were not there; what was in the cache is forgotten. */
static void orli_words_grow(orl_ctx *ctx, orli_words *cache) {
    size_t count = cache->count ? ORLI_MIN(4 * cache->count, ORLI_WORDS_MOST) : 1024;
    orli_word *word;
    if (cache->count == ORLI_WORDS_MOST || cache->missed++ < 2 * cache->count) return;
    word = (orli_word *)orli_alloc_zero(ctx, count, sizeof *word);
    if (!word) return;
    orli_free(ctx, cache->word);
    cache->word = word;
    cache->count = count;
    cache->missed = 0;
}

/* The word's place in the cache: there, or where it may be put (its count is −1 then); NULL if memory ran out. */
static orli_word *orli_word_place(orl_ctx *ctx, orli_words *cache, const uint64_t key[3]) {
    size_t hash = orli_word_hash(key), slot;
    orli_word *w;
    if (cache->count) {
        slot = hash & (cache->count - 1);
        if (orli_word_is(&cache->word[slot], key)) return &cache->word[slot];
        if (orli_word_is(&cache->word[slot ^ 1], key)) return &cache->word[slot ^ 1];
    }
    orli_words_grow(ctx, cache);
    if (!cache->count) return NULL;
    slot = hash & (cache->count - 1);
    w = &cache->word[slot];
    cache->word[slot ^ 1] = *w;
    memcpy(w->key, key, sizeof w->key);
    w->count = -1;
    return w;
}

/* room: bytes that may be read from the word on. */
static void orli_encode_word(const orl_tokenizer *tok, orli_encoder *e, const char *word, size_t n, size_t room) {
    orli_word *w;
    uint64_t key[3];
    size_t from = e->ids;
    if (n >= ORLI_WORD_BYTES) {
        orli_encode_new(tok, e, word, n);
        return;
    }
    orli_word_key(word, n, room, key);
    w = orli_word_place(e->ctx, tok->cache, key);
    if (!w) return;
    if (w->count >= 0) {
        if (ORLI_RESERVE(e->ctx, e->id, e->id_capacity, e->ids + sizeof w->id / sizeof *w->id) != ORL_OK) return;
        memcpy(e->id + e->ids, w->id, sizeof w->id); /* more than it has: a copy of a known size is fast */
        e->ids += (size_t)w->count;
        return;
    }
    orli_encode_new(tok, e, word, n);
    if (orl_failed(e->ctx) || e->ids - from > sizeof w->id / sizeof *w->id) {
        memset(w->key, 0, sizeof w->key);
    } else {
        w->count = (int32_t)(e->ids - from);
        memcpy(w->id, e->id + from, (e->ids - from) * sizeof *e->id);
    }
}

/* ---- encoding a text ---- */

/* The longest token of the set that stands at text, or NULL. */
static const orli_added *orli_added_at(const orli_added_set *set, const char *text, size_t n) {
    size_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1], k = 1, a, b, m;
    const orli_added *found = NULL;
    while (low < high) {
        if (set->item[low].bytes == k) found = &set->item[low++];
        while (low < high && set->item[low].bytes == k) low++; /* spelled the same once normalized: the first has it */
        if (k >= n || low >= high) break;
        for (a = low, b = high; a < b;) { /* the first whose byte k is not below the text's */
            m = a + (b - a) / 2;
            if ((unsigned char)set->item[m].text[k] < (unsigned char)text[k]) a = m + 1;
            else b = m;
        }
        low = a;
        for (b = high; a < b;) {
            m = a + (b - a) / 2;
            if ((unsigned char)set->item[m].text[k] <= (unsigned char)text[k]) a = m + 1;
            else b = m;
        }
        high = a;
        k++;
    }
    return found;
}

/* Is there a letter, mark, digit, connector or joiner (\w) at text[i]? */
static int orli_is_word(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    static const uint32_t more[][2] = {{0x5f, 0x5f}, {0x200c, 0x200d}, {0x203f, 0x2040}, {0x2054, 0x2054},
                                       {0x24b6, 0x24e9}, {0xfe33, 0xfe34}, {0xfe4d, 0xfe4f}, {0xff3f, 0xff3f},
                                       {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
    uint32_t code = 0;
    size_t k;
    if (!orli_utf8_decode(text + i, n - i, &code)) return 0;
    for (k = 0; k < sizeof more / sizeof *more; k++)
        if (code >= more[k][0] && code <= more[k][1]) return 1;
    return (orli_class_of(tok, code) & (ORLI_LETTERS | ORLI_MARK | ORLI_DIGIT)) != 0;
}

/* Does nothing speak against this token from i on? */
static int orli_added_fits(const orl_tokenizer *tok, const orli_added *a, const char *text, size_t n, size_t i,
                           int parse_special) {
    if (a->special && !parse_special) return 0;
    if (!a->single_word) return 1;
    return !(i && orli_is_word(tok, text, n, orli_char_before(text, 0, i))) &&
           !(i + a->bytes < n && orli_is_word(tok, text, n, i + a->bytes));
}

/* The next added token of a set at or after `from`: where it begins, or n. The longest goes first; one that does
 * not fit is passed over as a whole. */
static size_t orli_added_next(const orl_tokenizer *tok, const orli_added_set *set, const char *text, size_t n,
                              size_t from, int parse_special, const orli_added **found) {
    const orli_added *a;
    const char *next;
    size_t i;
    *found = NULL;
    if (!set->count) return n;
    for (i = from; i < n; i++) {
        if (set->item[0].text[0] == set->item[set->count - 1].text[0]) { /* all begin with one byte */
            next = (const char *)memchr(text + i, set->item[0].text[0], n - i);
            if (!next) return n;
            i = (size_t)(next - text);
        } else if (set->first[(unsigned char)text[i]] == set->first[(unsigned char)text[i] + 1]) {
            continue;
        }
        a = orli_added_at(set, text + i, n - i);
        if (a && orli_added_fits(tok, a, text, n, i, parse_special)) {
            *found = a;
            return i;
        }
        if (a) i += a->bytes - 1;
    }
    return n;
}

static size_t orli_added_find(const orl_tokenizer *tok, const char *text, size_t n, size_t from,
                              int parse_special, const orli_added **found) {
    return orli_added_next(tok, &tok->added[0], text, n, from, parse_special, found);
}

/* White space before text[i]; blank: spaces are such, and not a replaced "▁". */
static size_t orli_space_before(const orl_tokenizer *tok, const char *text, size_t i, int blank) {
    size_t at, length;
    for (; i > 0 && (blank || text[i - 1] != ' '); i = at) {
        at = orli_char_before(text, 0, i);
        if (orli_class_at(tok, text, i, at, &length) != ORLI_SPACE) break;
    }
    return i;
}

/* The same from text[i] on. */
static size_t orli_space_behind(const orl_tokenizer *tok, const char *text, size_t n, size_t i, int blank) {
    size_t length;
    for (; i < n && (blank || text[i] != ' ') && orli_class_at(tok, text, n, i, &length) == ORLI_SPACE; i += length) {}
    return i;
}

/* Emits the set's tokens in a text, and gives what stands between them to `piece`. begins: no text was before it. */
static void orli_encode_between(const orl_tokenizer *tok, orli_encoder *e, const orli_added_set *set, const char *text,
                                size_t n, int begins,
                                void (*piece)(const orl_tokenizer *, orli_encoder *, const char *, size_t, int)) {
    const orli_added *found;
    size_t at = 0, from = 0, found_at, end;
    const int blank = set == &tok->added[0] || !tok->replaces;
    do {
        found_at = end = orli_added_next(tok, set, text, n, from, e->parse_special, &found);
        if (found && found->lstrip) end = ORLI_MAX(orli_space_before(tok, text, found_at, blank), at);
        if (at < end) piece(tok, e, text + at, end - at, begins && at == 0);
        if (!found) break;
        orli_encoder_emit(e, found->id);
        at = from = found_at + found->bytes; /* white space that rstrip takes is searched, too */
        if (found->rstrip) at = orli_space_behind(tok, text, n, from, blank);
    } while (!orl_failed(e->ctx));
}

/* Normalized text without added tokens: the pre-tokenizer's prefix and replacements, then words. */
static void orli_encode_piece(const orl_tokenizer *tok, orli_encoder *e, const char *text, size_t n, int begins) {
    orli_str copy = orli_str_new(e->ctx);
    size_t i, end;
    int starts = text[0] == ' ' || (tok->sentencepiece && n >= 3 && memcmp(text, ORLI_SP_SPACE, 3) == 0),
        prefix = !tok->prefix_twice && !starts && (begins ? !e->continues && tok->prefix != ORLI_PREFIX_NONE
                                                          : tok->prefix == ORLI_PREFIX_ALWAYS);
    if (prefix || (tok->sentencepiece && !tok->replaces)) {
        orli_str_add(&copy, " ", prefix ? 1 : 0);
        if (tok->sentencepiece) orli_spaces_add(&copy, text, n);
        else orli_str_add(&copy, text, n);
        if (copy.failed) n = 0;
        else text = copy.data, n = copy.length;
    }
    if (ORLI_RESERVE(e->ctx, e->id, e->id_capacity, e->ids + n / 4 + 16) != ORL_OK) n = 0;
    for (i = 0; i < n && !orl_failed(e->ctx); i = end) {
        end = orli_word_end(tok, text, n, i);
        orli_encode_word(tok, e, text + i, end - i, n - i);
    }
    orli_str_free(&copy);
}

/* Text as it was given, without the added tokens that are found in such. */
static void orli_encode_segment(const orl_tokenizer *tok, orli_encoder *e, const char *text, size_t n, int begins) {
    orli_str made = orli_str_new(e->ctx);
    orli_normalize(tok, &text, &n, !(begins && e->continues), &made);
    if (!made.failed) orli_encode_between(tok, e, &tok->added[1], text, n, begins, orli_encode_piece);
    orli_str_free(&made);
}

/* orl_encode(); continues: the text goes on from another one, so nothing is put before it. */
static orl_status orli_encode(const orl_tokenizer *tok, const char *text, size_t bytes,
                              int parse_special, int continues, int32_t **ids, size_t *count) {
    orli_encoder e;
    memset(&e, 0, sizeof e);
    e.ctx = tok->object.ctx;
    e.parse_special = parse_special, e.continues = continues;
    if (bytes > UINT32_MAX / 2)
        return orli_fail(e.ctx, ORL_ERR_ARGUMENT,
                         "a text of %zu bytes: encode at most 2 GB at once", bytes);
    orli_encode_between(tok, &e, &tok->added[0], text, bytes, 1, orli_encode_segment);
    orli_encoder_free(&e);
    /* so that there is something to free */
    if (!orl_failed(e.ctx)) ORLI_RESERVE(e.ctx, e.id, e.id_capacity, 1);
    if (orl_failed(e.ctx)) {
        orli_free(e.ctx, e.id);
        return orl_error_status(e.ctx);
    }
    *ids = e.id;
    *count = e.ids;
    return ORL_OK;
}

ORL_API orl_status orl_encode(const orl_tokenizer *tok, const char *text, size_t bytes,
                              int parse_special, int32_t **ids, size_t *count) {
    if (ids) *ids = NULL;
    if (count) *count = 0;
    if (!tok) return ORL_ERR_ARGUMENT;
    if (orl_failed(tok->object.ctx)) return orl_error_status(tok->object.ctx);
    if ((!text && bytes) || !ids || !count)
        return orli_fail(tok->object.ctx, ORL_ERR_ARGUMENT,
                         "orl_encode: text, ids or count is NULL");
    return orli_encode(tok, text ? text : "", bytes, parse_special, 0, ids, count);
}

/* ---- decoding, looking up ---- */

ORL_API size_t orl_vocab(const orl_tokenizer *tok) { return tok ? tok->tokens : 0; }
ORL_API int32_t orl_eos(const orl_tokenizer *tok) { return tok ? tok->eos : -1; }
ORL_API int32_t orl_bos(const orl_tokenizer *tok) { return tok && tok->add_bos ? tok->bos : -1; }

static ORLI_UNUSED int orli_token_is_special(const orl_tokenizer *tok, int32_t id) {
    return id >= 0 && (size_t)id < tok->tokens && tok->token[id].special;
}

/* `token` is a text such as " the" or "<|endoftext|>", not a file's spelling of it. */
ORL_API int32_t orl_token_id(const orl_tokenizer *tok, const char *token) {
    orli_str spelling;
    size_t n;
    int32_t id;
    if (!tok || !token || orl_failed(tok->object.ctx)) return -1;
    n = strlen(token);
    id = orli_spelling_id(tok, token, n);
    if (id >= 0 && tok->token[id].added) return id;
    id = -1;
    spelling = orli_str_new(tok->object.ctx);
    orli_spell(tok, token, n, &spelling);
    if (spelling.data && !spelling.failed)
        id = orli_spelling_id(tok, spelling.data, spelling.length);
    orli_str_free(&spelling);
    return id;
}

ORL_API const char *orl_token_text(const orl_tokenizer *tok, int32_t id, size_t *bytes) {
    const orli_token *t;
    if (bytes) *bytes = 0;
    if (!tok) return NULL;
    if (id < 0 || (size_t)id >= tok->tokens) {
        orli_fail(tok->object.ctx, ORL_ERR_ARGUMENT, "there is no token %ld: ids go from 0 to %zu",
                  (long)id, tok->tokens - 1);
        return NULL;
    }
    t = &tok->token[id];
    if (bytes) *bytes = t->bytes;
    return t->text ? orli_token_start(tok, t) : "";
}

/* The bytes of a token, or 0 and an error. */
static size_t orli_token_bytes(const orl_tokenizer *tok, int32_t id) {
    size_t n = 0;
    if (id >= 0 && (size_t)id < tok->tokens) return tok->token[id].bytes;
    orl_token_text(tok, id, &n);
    return 0;
}

/* orl_decode(); continues: as in orli_encode(), so a leading space is the text's own. */
static orl_status orli_decode(const orl_tokenizer *tok, const int32_t *ids, size_t count,
                              int skip_special, int continues, char **text, size_t *bytes) {
    orl_ctx *ctx = tok->object.ctx;
    orli_str out = orli_str_new(ctx);
    size_t i, n, skip;
    /* the space that was put first */
    int strip = tok->strips && !continues;
    for (i = n = 0; i < count && !orl_failed(ctx); i++) n += orli_token_bytes(tok, ids[i]);
    if (!orl_failed(ctx) && ORLI_RESERVE(ctx, out.data, out.capacity, n + 1) != ORL_OK) out.failed = 1;
    for (i = 0; i < count && !orl_failed(ctx); i++) {
        const orli_token *t = &tok->token[ids[i]];
        const char *start;
        if (!t->bytes || (skip_special && t->special)) continue;
        start = orli_token_start(tok, t);
        skip = strip && start[0] == ' ' ? 1 : 0;
        strip = 0;
        memcpy(out.data + out.length, start + skip, t->bytes - skip);
        out.length += t->bytes - skip;
    }
    if (!orl_failed(ctx)) out.data[out.length] = 0;
    if (orl_failed(ctx)) {
        orli_str_free(&out);
        return orl_error_status(ctx);
    }
    if (bytes) *bytes = out.length;
    *text = orli_str_take(&out);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_decode(const orl_tokenizer *tok, const int32_t *ids, size_t count,
                              int skip_special, char **text, size_t *bytes) {
    if (text) *text = NULL;
    if (bytes) *bytes = 0;
    if (!tok) return ORL_ERR_ARGUMENT;
    if (orl_failed(tok->object.ctx)) return orl_error_status(tok->object.ctx);
    if ((!ids && count) || !text)
        return orli_fail(tok->object.ctx, ORL_ERR_ARGUMENT, "orl_decode: ids or text is NULL");
    return orli_decode(tok, ids, count, skip_special, 0, text, bytes);
}

ORL_API size_t orl_text_ready(const char *text, size_t bytes) {
    size_t k, length;
    for (k = 1; text && k <= 3 && k <= bytes; k++) {
        unsigned char c = (unsigned char)text[bytes - k];
        if ((c & 0xc0) == 0x80) continue;
        length = c >= 0xf5 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
        return length > k ? bytes - k : bytes;
    }
    return bytes;
}

ORL_API int32_t orl_token_add_special(orl_tokenizer *tok, const char *token) {
    orl_ctx *ctx;
    int32_t id;
    if (!tok || orl_failed(tok->object.ctx)) return -1;
    ctx = tok->object.ctx;
    if (!token || !token[0]) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_token_add_special: a special token needs a text");
        return -1;
    }
    id = orli_spelling_id(tok, token, strlen(token));
    if (id < 0) {
        id = (int32_t)tok->tokens;
        orli_token_enter(tok, token, strlen(token), id, 1);
    }
    if (!orl_failed(ctx)) {
        orli_added_plain(tok, id, 1);
        orli_added_sort(tok);
        tok->changed = 1;
    }
    return orl_failed(ctx) ? -1 : id;
}

/* ---- learning: the words of a text and how often they occur ----
 * A text is cut into pieces where no word can span the cut. Each task counts words in a small table of its own;
 * when one is full, all are emptied into the shards of the whole, one task a shard. Words are told apart by their
 * bytes and the merges depend on the counts alone: who counted what, and in which order, makes no difference. */

/* longer words are counted in pieces, so that one endless run cannot make encoding or learning slow */
#define ORLI_WORD_MOST 256
#define ORLI_LEARN_SHARDS 16                /* by the top bits of a word's hash */
#define ORLI_LEARN_SLOTS 2048               /* of a shard in a task's table, which stays in its core's cache */
#define ORLI_LEARN_PIECE ((size_t)1 << 20)  /* bytes of text in a task */

typedef struct orli_counted {
    uint64_t head[2]; /* the first 16 bytes, zeros behind the last */
    const char *text; /* all of them; the whole keeps its own copy of what does not fit in head */
    uint64_t count;   /* 0: a free slot */
    size_t length;
} orli_counted;

typedef struct orli_counts { /* open addressing, at most three quarters full */
    orli_counted *slot;
    size_t slots, used, long_bytes; /* long_bytes: of words that do not fit in head */
} orli_counts;

static void orli_counted_set(orli_counted *w, const char *text, size_t length, size_t room) {
    w->text = text;
    w->count = 1;
    w->length = length;
    if (room < 16) {
        w->head[0] = w->head[1] = 0;
        memcpy(w->head, text, ORLI_MIN(length, 16));
        return;
    }
    memcpy(w->head, text, 16);
    if (length <= 8) w->head[0] &= UINT64_MAX >> 8 * (8 - length), w->head[1] = 0;
    else if (length < 16) w->head[1] &= UINT64_MAX >> 8 * (16 - length);
}

static uint64_t orli_counted_hash(const orli_counted *w) {
    uint64_t h = (w->head[0] ^ w->length) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32 ^ w->head[1]) * 0xD6E8FEB86659FD93u;
    if (w->length > 16) h ^= orli_hash(w->text + 16, w->length - 16);
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static int orli_counted_same(const orli_counted *a, const orli_counted *b) {
    return a->head[0] == b->head[0] && a->head[1] == b->head[1] && a->length == b->length &&
           (a->length <= 16 || memcmp(a->text + 16, b->text + 16, a->length - 16) == 0);
}

/* Where the word is, or the free slot where it would be. */
static orli_counted *orli_counts_slot(const orli_counts *c, const orli_counted *w, uint64_t hash) {
    size_t i = (size_t)hash & (c->slots - 1);
    while (c->slot[i].count && !orli_counted_same(&c->slot[i], w)) i = (i + 1) & (c->slots - 1);
    return &c->slot[i];
}

static orl_status orli_counts_reserve(orl_ctx *ctx, orli_counts *c, size_t n) {
    orli_counts grown;
    size_t i;
    if (orli_mul(n, 4) <= orli_mul(c->slots, 3) && c->slots) return ORL_OK;
    grown = *c;
    for (grown.slots = ORLI_LEARN_SLOTS; grown.slots * 3 < orli_mul(n, 4);) grown.slots *= 2;
    grown.slot = (orli_counted *)orli_alloc_zero(ctx, grown.slots, sizeof *grown.slot);
    if (!grown.slot) return ORL_ERR_MEMORY;
    for (i = 0; i < c->slots; i++)
        if (c->slot[i].count)
            *orli_counts_slot(&grown, &c->slot[i], orli_counted_hash(&c->slot[i])) = c->slot[i];
    orli_free(ctx, c->slot);
    *c = grown;
    return ORL_OK;
}

typedef struct orli_piece { /* of a text; it may be left in the middle */
    const char *text;
    size_t n, at;   /* counted up to here */
    size_t end;     /* of the word that `at` is in */
    size_t stop;    /* where the next special token is, or n … */
    size_t special; /* … and its bytes */
} orli_piece;

typedef struct orli_tally {
    orl_ctx *ctx;
    const orl_tokenizer *tok;
    orli_piece *piece;      /* (4 · tables): what a round counts … */
    size_t pieces, next;    /* … and the next to be taken, atomic */
    size_t tables;          /* tasks of a round: one a thread, fewer for a short text */
    orli_counted *slots;    /* (tables, ORLI_LEARN_SHARDS, ORLI_LEARN_SLOTS) */
    orli_counts *table;     /* (tables, ORLI_LEARN_SHARDS), into slots */
    unsigned char *full;    /* (tables) */
    orli_counts whole[ORLI_LEARN_SHARDS];
    char *room[ORLI_LEARN_SHARDS];       /* for the text of long words … */
    size_t room_left[ORLI_LEARN_SHARDS]; /* … and how much is left of it */
    orli_arena arena;                    /* what it is taken from */
} orli_tally;

static void orli_tally_start(orli_tally *t, const orl_tokenizer *tok) {
    memset(t, 0, sizeof *t);
    t->ctx = t->arena.ctx = tok->object.ctx;
    t->tok = tok;
}

static void orli_tally_drop_tables(orli_tally *t) {
    orli_free(t->ctx, t->piece);
    orli_free(t->ctx, t->slots);
    orli_free(t->ctx, t->table);
    orli_free(t->ctx, t->full);
    t->piece = NULL, t->slots = NULL, t->table = NULL, t->full = NULL, t->tables = 0;
}

static void orli_tally_free(orli_tally *t) {
    size_t i;
    orli_tally_drop_tables(t);
    for (i = 0; i < ORLI_LEARN_SHARDS; i++) orli_free(t->ctx, t->whole[i].slot);
    orli_arena_free(&t->arena);
    orli_tally_start(t, t->tok);
}

/* Tables for a text of n bytes. */
static void orli_tally_tables(orli_tally *t, size_t n) {
    const size_t wanted = ORLI_MIN(t->ctx->pool->threads, 1 + n / ORLI_LEARN_PIECE);
    size_t i;
    if (wanted <= t->tables) return;
    orli_tally_drop_tables(t);
    t->piece = (orli_piece *)orli_alloc(t->ctx, 4 * wanted, sizeof *t->piece);
    t->slots = (orli_counted *)orli_alloc_zero(t->ctx, wanted * ORLI_LEARN_SHARDS * ORLI_LEARN_SLOTS, sizeof *t->slots);
    t->table = (orli_counts *)orli_alloc_zero(t->ctx, wanted * ORLI_LEARN_SHARDS, sizeof *t->table);
    t->full = (unsigned char *)orli_alloc_zero(t->ctx, wanted, 1);
    t->tables = wanted;
    for (i = 0; !orl_failed(t->ctx) && i < wanted * ORLI_LEARN_SHARDS; i++)
        t->table[i].slot = t->slots + i * ORLI_LEARN_SLOTS, t->table[i].slots = ORLI_LEARN_SLOTS;
}

/* Counts one word in a table; 1: it is full now. */
static int orli_tally_count(orli_counts *table, const orli_counted *w) {
    uint64_t hash = orli_counted_hash(w);
    orli_counts *c = &table[hash >> 60];
    orli_counted *slot = orli_counts_slot(c, w, hash);
    if (slot->count) {
        slot->count++;
        return 0;
    }
    *slot = *w;
    if (w->length > sizeof w->head) c->long_bytes += w->length;
    return ++c->used >= ORLI_LEARN_SLOTS / 4 * 3;
}

/* Counts words until the piece ends, or the table is full (1); special tokens belong to no word. */
static int orli_piece_count(const orl_tokenizer *tok, orli_piece *piece, orli_counts *table) {
    orli_piece p = *piece; /* its neighbours in memory are other threads' */
    const orli_added *found;
    orli_counted word;
    int full = 0;
    while (!full) {
        if (p.at == p.end && p.at == p.stop) {
            p.at = p.end = p.at + p.special;
            if (p.at >= p.n) break;
            p.stop = orli_added_find(tok, p.text, p.n, p.at, 1, &found);
            p.special = found ? found->bytes : 0;
        } else {
            if (p.at == p.end) p.end = orli_word_end(tok, p.text, p.stop, p.at);
            orli_counted_set(&word, p.text + p.at, ORLI_MIN(p.end - p.at, ORLI_WORD_MOST), p.n - p.at);
            p.at += word.length;
            full = orli_tally_count(table, &word);
        }
    }
    *piece = p;
    return full;
}

static void orli_tally_task(void *arg, size_t task, size_t worker) {
    orli_tally *t = (orli_tally *)arg;
    size_t i;
    (void)worker;
    while (!t->full[task] && (i = __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED)) < t->pieces)
        t->full[task] =
            (unsigned char)orli_piece_count(t->tok, &t->piece[i], t->table + task * ORLI_LEARN_SHARDS);
}

/* Empties one shard of a table into the whole, which has room. */
static void orli_tally_move(orli_tally *t, orli_counts *from, size_t shard) {
    orli_counts *to = &t->whole[shard];
    orli_counted *word, *slot;
    for (word = from->slot; from->used && word < from->slot + from->slots; word++) {
        if (!word->count) continue;
        slot = orli_counts_slot(to, word, orli_counted_hash(word));
        if (slot->count) {
            slot->count += word->count;
        } else {
            to->used++;
            *slot = *word;
            slot->text = NULL;
            if (word->length > sizeof word->head) {
                slot->text = (const char *)memcpy(t->room[shard], word->text, word->length);
                t->room[shard] += word->length, t->room_left[shard] -= word->length;
            }
        }
        word->count = 0;
    }
    from->used = from->long_bytes = 0;
}

static void orli_tally_move_task(void *arg, size_t shard, size_t worker) {
    orli_tally *t = (orli_tally *)arg;
    size_t i;
    (void)worker;
    for (i = 0; i < t->tables; i++) orli_tally_move(t, &t->table[i * ORLI_LEARN_SHARDS + shard], shard);
}

/* Empties all tables. */
static void orli_tally_gather(orli_tally *t) {
    size_t shard, i, words, bytes;
    for (shard = 0; shard < ORLI_LEARN_SHARDS; shard++) { /* tasks do not allocate */
        for (i = words = bytes = 0; i < t->tables; i++)
            words += t->table[i * ORLI_LEARN_SHARDS + shard].used,
                bytes += t->table[i * ORLI_LEARN_SHARDS + shard].long_bytes;
        if (orli_counts_reserve(t->ctx, &t->whole[shard], t->whole[shard].used + words) != ORL_OK) return;
        if (bytes <= t->room_left[shard]) continue;
        t->room_left[shard] = 4 * bytes;
        t->room[shard] = (char *)orli_arena_alloc(&t->arena, t->room_left[shard], 1);
        if (!t->room[shard]) return;
    }
    orli_parallel(t->ctx, ORLI_WORK_OTHER, ORLI_LEARN_SHARDS, orli_tally_move_task, t);
    memset(t->full, 0, t->tables);
}

/* Does a special token of the text span the place i? */
static int orli_special_spans(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    size_t set, k, at;
    for (set = 0; set < 2; set++)
        for (k = 0; k < tok->added[set].count; k++) {
            const orli_added *a = &tok->added[set].item[k];
            for (at = i - ORLI_MIN(i, a->bytes - 1); at < i && at + a->bytes <= n; at++)
                if (memcmp(text + at, a->text, a->bytes) == 0) return 1;
        }
    return 0;
}

/* The first place from i on where a text may be cut: white space follows something else, outside of special tokens.
 * A word ends there, and what it would find behind it makes no difference to it. */
static size_t orli_text_cut(const orl_tokenizer *tok, const char *text, size_t n, size_t i) {
    size_t before, length;
    for (; i < n; i++) {
        if (text[i] != ' ' && (text[i] < '\t' || text[i] > '\r')) continue;
        for (before = i - 1; before && i - before < 4 && ((unsigned char)text[before] & 0xc0u) == 0x80;) before--;
        if (orli_class_at(tok, text, i, before, &length) == ORLI_SPACE) continue;
        if (!orli_special_spans(tok, text, n, i)) return i;
    }
    return n;
}

/* Counts the words of a text, which may go afterwards. */
static void orli_tally_read(orli_tally *t, const char *text, size_t n) {
    size_t at = 0, i, left;
    int full;
    orli_tally_tables(t, n);
    for (t->pieces = 0; !orl_failed(t->ctx) && (t->pieces || at < n);) {
        for (; t->pieces < 4 * t->tables && at < n; t->pieces++) {
            orli_piece *p = &t->piece[t->pieces];
            memset(p, 0, sizeof *p);
            p->text = text + at;
            p->n = orli_text_cut(t->tok, text, n, at + ORLI_MIN(n - at, ORLI_LEARN_PIECE)) - at;
            at += p->n;
        }
        t->next = 0;
        orli_parallel(t->ctx, ORLI_WORK_OTHER, t->tables, orli_tally_task, t);
        for (i = left = 0; i < t->pieces; i++)
            if (t->piece[i].at < t->piece[i].n) t->piece[left++] = t->piece[i];
        t->pieces = left;
        for (i = 0, full = 0; i < t->tables; i++) full |= t->full[i];
        if (full || (!left && at >= n)) orli_tally_gather(t);
    }
}

static size_t orli_tally_total(const orli_tally *t) {
    size_t i, total = 0;
    for (i = 0; i < ORLI_LEARN_SHARDS; i++) total += t->whole[i].used;
    return total;
}

/* ---- learning: merges ----
 * The pair of neighbouring symbols that occurs most often becomes a token, again and again. Ties go to the lowest left
 * id, then the lowest right id (ids are given in order of creation). All words lie end to end in one array, a cell for
 * each byte: a symbol's first cell holds its id, its last one says how to get back to the first. So neighbours are
 * found from the symbols' lengths, and an entry of a pair's list, which names a first cell, is out of date just when
 * the pair is not found there. A merge costs as much as its list is long; counts in the heap may be too high, and a
 * pair that comes up with an old count goes back in with its new one. */

typedef struct orli_pair_place { /* of a pair */
    uint32_t at, word;
} orli_pair_place;

typedef struct orli_pair_count {
    uint64_t pair, count;
    const orli_pair_place *place; /* (places): made once, as its newer symbol was */
    size_t places;
} orli_pair_count;

typedef struct orli_beside { /* what a merge changes with one neighbour, on one side */
    uint64_t count;          /* how often it stands there */
    uint32_t places, at;     /* … in words; where its places go */
} orli_beside;

typedef struct orli_fresh { /* a place of a pair that a merge makes */
    orli_pair_place place;
    int32_t beside;
} orli_fresh;

typedef struct orli_side { /* what a merge finds to its left, or to its right */
    orli_beside *beside;   /* (vocabulary) */
    int32_t *met;          /* ids that were met */
    size_t met_count, met_capacity;
    orli_fresh *fresh;
    size_t fresh_count, fresh_capacity;
} orli_side;

typedef struct orli_learner {
    orl_ctx *ctx;
    orl_tokenizer *tok;
    uint64_t *count; /* (words): how often each occurs */
    int32_t *cell;   /* ≥ 0: a symbol begins; APART: between words, within a symbol; below: a symbol ends */
    size_t cells;
    orli_pairs index; /* pair → its number below */
    orli_pair_count *pair;
    size_t pairs, pair_capacity;
    orli_arena arena; /* of places */
    orli_side side[2];
    orli_heap heap;
} orli_learner;
#define ORLI_CELL_APART (-1)
#define ORLI_CELL_LAST(id) (-2 - (id)) /* its own inverse */

static void orli_learner_free(orli_learner *t) {
    size_t i;
    orli_free(t->ctx, t->count);
    orli_free(t->ctx, t->cell);
    orli_free(t->ctx, t->index.slot);
    orli_free(t->ctx, t->pair);
    orli_arena_free(&t->arena);
    for (i = 0; i < 2; i++) {
        orli_free(t->ctx, t->side[i].beside);
        orli_free(t->ctx, t->side[i].met);
        orli_free(t->ctx, t->side[i].fresh);
    }
    orli_free(t->ctx, t->heap.item);
}

/* The number of a pair that may be new, or ORLI_NONE if memory ran out. */
static size_t orli_learner_pair(orli_learner *t, uint64_t pair) {
    uint64_t number = orli_pairs_find(&t->index, pair);
    if (number != ORLI_NO_PAIR) return (size_t)number;
    if (ORLI_RESERVE(t->ctx, t->pair, t->pair_capacity, t->pairs + 1) != ORL_OK ||
        orli_pairs_set(t->ctx, &t->index, pair, t->pairs) != ORL_OK)
        return ORLI_NONE;
    memset(&t->pair[t->pairs], 0, sizeof *t->pair);
    t->pair[t->pairs].pair = pair;
    return t->pairs++;
}

static void orli_learner_push(orli_learner *t, size_t pair) { /* a pair that occurs once is never merged */
    if (t->pair[pair].count > 1) orli_heap_push(t->ctx, &t->heap, ~t->pair[pair].count, t->pair[pair].pair);
}

/* Lays out the words: cells, and APART before each word and behind the last. One byte makes no pair. */
static void orli_learner_lay_out(orli_learner *t, const orli_tally *words) {
    size_t shard, i, k, n = 0;
    uint64_t total = 1;
    for (shard = 0; shard < ORLI_LEARN_SHARDS; shard++)
        for (i = 0; i < words->whole[shard].slots; i++)
            if (words->whole[shard].slot[i].length > 1) n++, total += words->whole[shard].slot[i].length + 1;
    if (total > UINT32_MAX) {
        orli_fail(t->ctx, ORL_ERR_DATA,
                  "a tokenizer cannot be learned from more than 4 GB of different words (%zu MB): use part of the text",
                  (size_t)(total >> 20));
        return;
    }
    t->count = (uint64_t *)orli_alloc(t->ctx, n, sizeof *t->count);
    t->cell = (int32_t *)orli_alloc(t->ctx, (size_t)total, sizeof *t->cell);
    if (orl_failed(t->ctx)) return;
    for (shard = n = 0; shard < ORLI_LEARN_SHARDS; shard++)
        for (i = 0; i < words->whole[shard].slots; i++) {
            const orli_counted *w = &words->whole[shard].slot[i];
            const unsigned char *text = (const unsigned char *)(w->text ? w->text : (const char *)w->head);
            if (w->length < 2) continue;
            t->count[n++] = w->count;
            t->cell[t->cells++] = ORLI_CELL_APART;
            for (k = 0; k < w->length; k++) t->cell[t->cells++] = t->tok->byte_id[text[k]];
        }
    t->cell[t->cells++] = ORLI_CELL_APART;
}

/* Counts the pairs of bytes and lists their places. */
static void orli_learner_count(orli_learner *t) {
    uint64_t *count = (uint64_t *)orli_alloc_zero(t->ctx, 65536, sizeof *count);
    uint32_t *at = (uint32_t *)orli_alloc_zero(t->ctx, 65536, sizeof *at), sum = 0, n;
    const int32_t first = t->tok->byte_id[0]; /* the bytes' ids follow one another */
    orli_pair_place *place;
    size_t i, k, word = (size_t)0 - 1;
    for (i = 0; !orl_failed(t->ctx) && i + 1 < t->cells; i++) {
        if (t->cell[i] == ORLI_CELL_APART) word++;
        if (t->cell[i] == ORLI_CELL_APART || t->cell[i + 1] == ORLI_CELL_APART) continue;
        k = (size_t)((t->cell[i] - first) * 256 + t->cell[i + 1] - first);
        count[k] += t->count[word], at[k]++, sum++;
    }
    place = (orli_pair_place *)orli_arena_alloc(&t->arena, sum, sizeof *place);
    for (k = sum = 0; place && k < 65536 && !orl_failed(t->ctx); k++) {
        n = at[k], at[k] = sum, sum += n;
        if (!n) continue;
        i = orli_learner_pair(t, orli_pair(first + (int32_t)(k / 256), first + (int32_t)(k % 256)));
        if (i == ORLI_NONE) break;
        t->pair[i].count = count[k];
        t->pair[i].place = place + at[k], t->pair[i].places = n;
        orli_learner_push(t, i);
    }
    for (i = 0, word = (size_t)0 - 1; !orl_failed(t->ctx) && i + 1 < t->cells; i++) {
        if (t->cell[i] == ORLI_CELL_APART) word++;
        if (t->cell[i] == ORLI_CELL_APART || t->cell[i + 1] == ORLI_CELL_APART) continue;
        k = (size_t)((t->cell[i] - first) * 256 + t->cell[i + 1] - first);
        place[at[k]].at = (uint32_t)i, place[at[k]++].word = (uint32_t)word;
    }
    orli_free(t->ctx, count);
    orli_free(t->ctx, at);
}

/* A merge has made a pair with the symbol `id` on this side, at a place. */
static void orli_side_add(orli_learner *t, orli_side *s, int32_t id, size_t at, orli_pair_place from) {
    orli_beside *b = &s->beside[id];
    if (ORLI_RESERVE(t->ctx, s->met, s->met_capacity, s->met_count + 1) != ORL_OK ||
        ORLI_RESERVE(t->ctx, s->fresh, s->fresh_capacity, s->fresh_count + 1) != ORL_OK)
        return;
    if (!b->places++) s->met[s->met_count++] = id;
    b->count += t->count[from.word];
    s->fresh[s->fresh_count].beside = id;
    s->fresh[s->fresh_count].place.word = from.word;
    s->fresh[s->fresh_count++].place.at = (uint32_t)at;
}

/* Writes `id` for each pair of a list, from left to right, and notes its neighbours. */
static void orli_learner_rewrite(orli_learner *t, const orli_pair_place *place, size_t n, uint64_t pair, int32_t id) {
    const int32_t left = orli_pair_left(pair), right = orli_pair_right(pair);
    const size_t left_bytes = t->tok->token[left].bytes, bytes = t->tok->token[id].bytes;
    int32_t before, behind;
    size_t i;
    for (i = 0; i < n; i++) {
        int32_t *cell = t->cell + place[i].at;
        if (cell[0] != left || cell[left_bytes] != right) continue;
        before = cell[-1], behind = cell[bytes];
        if (before < ORLI_CELL_APART) before = ORLI_CELL_LAST(before);
        if (before >= 0) orli_side_add(t, &t->side[0], before, place[i].at - t->tok->token[before].bytes, place[i]);
        if (behind >= 0) orli_side_add(t, &t->side[1], behind, place[i].at, place[i]);
        cell[left_bytes] = ORLI_CELL_APART;
        cell[bytes - 1] = ORLI_CELL_LAST(id);
        cell[0] = id;
    }
}

/* What a merge changed on one side (0: left): each pair with its old symbol there becomes one with `id`. */
static void orli_learner_settle(orli_learner *t, size_t side, int32_t old, int32_t id) {
    orli_side *s = &t->side[side];
    orli_pair_place *place = (orli_pair_place *)orli_arena_alloc(&t->arena, s->fresh_count, sizeof *place);
    uint32_t sum = 0;
    size_t i, pair;
    if (!place) return;
    for (i = 0; i < s->met_count; i++) {
        int32_t beside = s->met[i];
        orli_beside *b = &s->beside[beside];
        b->at = sum, sum += b->places;
        pair = orli_learner_pair(t, side ? orli_pair(old, beside) : orli_pair(beside, old));
        if (pair != ORLI_NONE) t->pair[pair].count -= b->count;
        pair = orli_learner_pair(t, side ? orli_pair(id, beside) : orli_pair(beside, id));
        if (pair == ORLI_NONE) return;
        t->pair[pair].count += b->count;
        t->pair[pair].place = place + b->at, t->pair[pair].places = b->places;
    }
    for (i = 0; i < s->fresh_count; i++) place[s->beside[s->fresh[i].beside].at++] = s->fresh[i].place;
}

/* Puts the new pairs of one side in the heap. */
static void orli_learner_offer(orli_learner *t, size_t side, int32_t id) {
    orli_side *s = &t->side[side];
    size_t i;
    for (i = 0; i < s->met_count && !orl_failed(t->ctx); i++) {
        int32_t beside = s->met[i];
        orli_learner_push(t, orli_learner_pair(t, side ? orli_pair(id, beside) : orli_pair(beside, id)));
        memset(&s->beside[beside], 0, sizeof *s->beside);
    }
    s->met_count = s->fresh_count = 0;
}

/* The token that a pair becomes; −1 if a special token is spelled so (two pairs never make the same spelling). */
static int32_t orli_learner_token(orli_learner *t, uint64_t pair) {
    orl_tokenizer *tok = t->tok;
    const orli_name *left = &tok->names.name[tok->token[orli_pair_left(pair)].name],
                    *right = &tok->names.name[tok->token[orli_pair_right(pair)].name];
    orli_str spelling = orli_str_new(t->ctx);
    int32_t id = -1;
    orli_str_add(&spelling, left->text, left->length);
    orli_str_add(&spelling, right->text, right->length);
    if (!spelling.failed && orli_spelling_id(tok, spelling.data, spelling.length) < 0) {
        id = (int32_t)tok->tokens;
        orli_token_enter(tok, spelling.data, spelling.length, id, 0);
    }
    orli_str_free(&spelling);
    return id;
}

static void orli_learner_merge(orli_learner *t, size_t number) {
    const orli_pair_count p = t->pair[number];
    const int32_t id = orli_learner_token(t, p.pair);
    if (id < 0 || orl_failed(t->ctx)) return;
    orli_merge_enter(t->tok, orli_pair_left(p.pair), orli_pair_right(p.pair), id);
    orli_learner_rewrite(t, p.place, p.places, p.pair, id);
    orli_learner_settle(t, 0, orli_pair_left(p.pair), id);
    orli_learner_settle(t, 1, orli_pair_right(p.pair), id);
    t->pair[number].count = 0;
    orli_learner_offer(t, 0, id);
    orli_learner_offer(t, 1, id);
}

/* Merges the most frequent pair: 1, or 0 when no pair occurs twice. */
static int orli_learner_step(orli_learner *t) {
    while (t->heap.count && !orl_failed(t->ctx)) {
        orli_heap_item best = orli_heap_pop(&t->heap);
        size_t number = orli_learner_pair(t, best.value);
        if (t->pair[number].count == ~best.key) {
            orli_learner_merge(t, number);
            return !orl_failed(t->ctx);
        }
        orli_learner_push(t, number);
    }
    return 0;
}

static void orli_learner_run(orl_tokenizer *tok, orli_tally *words, size_t vocab) {
    orli_learner t;
    size_t i;
    memset(&t, 0, sizeof t);
    t.ctx = t.arena.ctx = tok->object.ctx;
    t.tok = tok;
    for (i = 0; i < 2; i++) t.side[i].beside = (orli_beside *)orli_alloc_zero(t.ctx, vocab, sizeof *t.side[i].beside);
    orli_learner_lay_out(&t, words);
    orli_tally_free(words);
    if (!orl_failed(t.ctx)) orli_learner_count(&t);
    while (!orl_failed(t.ctx) && tok->tokens < vocab && orli_learner_step(&t)) {}
    orli_learner_free(&t);
}

/* The specials and the 256 bytes. */
static void orli_train_alphabet(orl_tokenizer *tok, const char *const *specials) {
    size_t i, before;
    char spelling[4];
    for (i = 0; specials && specials[i]; i++) {
        before = tok->tokens;
        orl_token_add_special(tok, specials[i]);
        if (tok->tokens == before)
            orli_fail(tok->object.ctx, ORL_ERR_ARGUMENT,
                      "orl_tokenizer_train: the special token \"%.100s\" is given twice",
                      specials[i]);
    }
    if (i) tok->eos = 0;
    for (i = 0; i < 256 && !orl_failed(tok->object.ctx); i++) {
        size_t n = orli_utf8_encode(orli_byte_to_char((unsigned)i), spelling);
        before = tok->tokens;
        orli_token_enter(tok, spelling, n, (int32_t)before, 0);
        if (tok->tokens == before)
            orli_fail(
                tok->object.ctx, ORL_ERR_ARGUMENT,
                "orl_tokenizer_train: a special token of one character (\"%.*s\") is not possible",
                (int)n, spelling);
    }
}

/* A tokenizer that knows the specials and the bytes, or NULL. */
static orl_tokenizer *orli_train_begin(orl_ctx *ctx, size_t vocab, const char *const *specials, const char *lacks) {
    orl_tokenizer *tok;
    size_t least = 256;
    if (orl_failed(ctx)) return NULL;
    while (specials && specials[least - 256]) least++;
    if (lacks || vocab < least || vocab > INT32_MAX / 2) {
        orli_fail(ctx, ORL_ERR_ARGUMENT,
                  "orl_tokenizer_train: needs %s, and a vocabulary of %zu (special tokens and 256 bytes) or more",
                  lacks ? lacks : "a text", least);
        return NULL;
    }
    tok = orli_tokenizer_new(ctx);
    if (!orl_failed(ctx)) orli_train_alphabet(tok, specials);
    if (!orl_failed(ctx)) orli_tokenizer_index(tok);
    return orli_tokenizer_finished(tok);
}

/* Learns the merges from the words, which go. */
static orl_tokenizer *orli_train_end(orl_tokenizer *tok, orli_tally *words, size_t vocab) {
    orl_ctx *ctx = tok->object.ctx;
    const size_t different = orli_tally_total(words);
    if (!orl_failed(ctx)) orli_learner_run(tok, words, vocab);
    orli_tally_free(words);
    if (!orl_failed(ctx)) orli_tokenizer_index(tok);
    if (orl_error_status(ctx) == ORL_ERR_MEMORY) { /* the remedy is another one than a model's */
        orl_clear_error(ctx);
        orli_fail(ctx, ORL_ERR_MEMORY,
                  "no memory to learn a tokenizer from so many different words (%zu were counted): use a part of the "
                  "text, or a higher memory_limit",
                  different);
    }
    if (!orl_failed(ctx) && tok->tokens < vocab)
        orli_note(ctx,
                  "the text has too few pairs that occur twice for a vocabulary of %zu: it is %zu",
                  vocab, tok->tokens);
    return orli_tokenizer_finished(tok);
}

ORL_API orl_tokenizer *orl_tokenizer_train(orl_ctx *ctx, const char *text, size_t bytes,
                                           size_t vocab, const char *const *specials) {
    orl_tokenizer *tok = orli_train_begin(ctx, vocab, specials, text ? NULL : "a text");
    orli_tally words;
    if (!tok) return NULL;
    orli_tally_start(&words, tok);
    orli_tally_read(&words, text, bytes);
    return orli_train_end(tok, &words, vocab);
}

ORL_API orl_tokenizer *orl_tokenizer_train_files(orl_ctx *ctx, const char *const *files, size_t n, size_t vocab,
                                                 const char *const *specials) {
    orl_tokenizer *tok = orli_train_begin(ctx, vocab, specials, files && n ? NULL : "files");
    orli_tally words;
    orli_file file;
    size_t i;
    if (!tok) return NULL;
    orli_tally_start(&words, tok);
    for (i = 0; i < n && !orl_failed(ctx); i++) {
        if (!files[i]) orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_tokenizer_train_files: file %zu of %zu is NULL", i + 1, n);
        else if (orli_file_open(ctx, files[i], &file) == ORL_OK) {
            orli_tally_read(&words, file.data, file.size);
            orli_file_close(&file);
        }
    }
    return orli_train_end(tok, &words, vocab);
}

/* ---- loading tokenizer.json ----
 * Its parts may come in any order, but each needs the ones before it in orli_load_json(): a
 * first pass remembers where each begins (a reader can be copied). */

/* One step of a normalizer, pre-tokenizer, decoder or post-processor. */
typedef struct orli_pipeline_part {
    /* cut if longer: then it is none we know */
    char type[32], behavior[32], text[16], content[16], scheme[16], regex[520];
    int add_prefix_space, use_regex, split, invert, individual, prefix_given;
    int64_t start, stop;
    orli_json at, list; /* where it begins; its list of parts, or special tokens */
    int has_list;
} orli_pipeline_part;

/* The string (or null) that comes next, cut to the buffer. */
static void orli_json_short(orli_json *j, char *buffer, size_t size) {
    orli_str s = orli_str_new(j->ctx);
    if (!orli_json_null(j) && orli_json_string(j, &s)) snprintf(buffer, size, "%s", s.data);
    orli_str_free(&s);
}

static void orli_pipeline_read(orli_json *j, orli_pipeline_part *p) {
    memset(p, 0, sizeof *p);
    p->add_prefix_space = p->use_regex = p->split = 1; /* what they are when left out */
    p->at = *j;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "type")) orli_json_short(j, p->type, sizeof p->type);
        else if (orli_json_is(j, "behavior")) orli_json_short(j, p->behavior, sizeof p->behavior);
        else if (orli_json_is(j, "content")) orli_json_short(j, p->content, sizeof p->content);
        else if (orli_json_is(j, "prepend_scheme")) orli_json_short(j, p->scheme, sizeof p->scheme);
        else if (orli_json_is(j, "prepend") || orli_json_is(j, "replacement"))
            orli_json_short(j, p->text, sizeof p->text);
        else if (orli_json_is(j, "add_prefix_space"))
            p->add_prefix_space = orli_json_bool(j), p->prefix_given = 1;
        else if (orli_json_is(j, "individual_digits")) p->individual = orli_json_bool(j);
        else if (orli_json_is(j, "start")) p->start = orli_json_int(j, 0, 1 << 20);
        else if (orli_json_is(j, "stop")) p->stop = orli_json_int(j, 0, 1 << 20);
        else if (orli_json_is(j, "use_regex")) p->use_regex = orli_json_bool(j);
        else if (orli_json_is(j, "split")) p->split = orli_json_bool(j);
        else if (orli_json_is(j, "invert")) p->invert = orli_json_bool(j);
        else if (orli_json_is(j, "pattern") && orli_json_peek(j) == ORLI_JSON_OBJECT) {
            for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
                if (orli_json_is(j, "Regex")) orli_json_short(j, p->regex, sizeof p->regex);
                else if (orli_json_is(j, "String")) orli_json_short(j, p->text, sizeof p->text);
                else orli_json_skip(j);
            }
        } else {
            if (orli_json_is(j, "normalizers") || orli_json_is(j, "pretokenizers") ||
                orli_json_is(j, "processors") || orli_json_is(j, "decoders") ||
                orli_json_is(j, "single"))
                p->has_list = 1, p->list = *j;
            orli_json_skip(j);
        }
    }
}

/* Applies a part, or each part of a Sequence, or nothing for null. */
static void orli_pipeline_apply(orl_tokenizer *tok, orli_json j,
                                void (*apply)(orl_tokenizer *, orli_pipeline_part *)) {
    orli_pipeline_part part;
    if (!j.ctx || orli_json_null(&j)) return; /* no ctx: the file has no such key */
    orli_pipeline_read(&j, &part);
    if (strcmp(part.type, "Sequence") != 0 || !part.has_list) {
        if (!orl_failed(j.ctx)) apply(tok, &part);
        return;
    }
    j = part.list;
    for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);) {
        orli_pipeline_read(&j, &part);
        if (!orl_failed(j.ctx)) apply(tok, &part);
    }
}

static void orli_part_unknown(orli_pipeline_part *p, const char *kind) {
    orli_json_fail_at(&p->at, p->at.position,
                      "the %s \"%s\" with these settings is not one that is known here (its text "
                      "\"%.16s\", regex \"%.200s\"): convert the tokenizer to "
                      "a known form",
                      kind, p->type, p->text, p->regex);
}

static void orli_apply_normalizer(orl_tokenizer *tok, orli_pipeline_part *p) {
    if (strcmp(p->type, "NFC") == 0 && !tok->nfc && !tok->replaces && !tok->prefix_twice) {
        tok->nfc = 1;
    } else if (strcmp(p->type, "Prepend") == 0 && strcmp(p->text, ORLI_SP_SPACE) == 0 && !tok->replaces) {
        tok->sentencepiece = tok->prefix_twice = 1;
        tok->prefix = ORLI_PREFIX_ALWAYS;
    } else if (strcmp(p->type, "Replace") == 0 && strcmp(p->text, " ") == 0 &&
               strcmp(p->content, ORLI_SP_SPACE) == 0) {
        tok->sentencepiece = tok->replaces = 1;
    } else {
        orli_part_unknown(p, "normalizer");
    }
}

/* The regular expressions that are known, by their exact text; the first of a kind is the one that is saved. */
#define ORLI_REGEX_CL100K(digits)                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct {
    orli_split split;
    const char *regex;
} orli_regexes[] = {
    {ORLI_SPLIT_GPT2,
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {ORLI_SPLIT_GPT2,
     "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {ORLI_SPLIT_LLAMA3, ORLI_REGEX_CL100K("\\p{N}{1,3}")},
    {ORLI_SPLIT_QWEN2, ORLI_REGEX_CL100K("\\p{N}")},
    {ORLI_SPLIT_O200K,
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    {ORLI_SPLIT_TEKKEN,
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
     "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}};

/* Split by a known regex: all of the text falls into matches, so "Isolated" and "Removed" with "invert" are the same.
 * Or Gemma's: at spaces, of which the normalizer has left none. */
static int orli_apply_split(orl_tokenizer *tok, const orli_pipeline_part *p) {
    size_t i;
    if (!p->regex[0])
        return tok->replaces && strcmp(p->text, " ") == 0 && strcmp(p->behavior, "MergedWithPrevious") == 0 &&
               !p->invert;
    if (strcmp(p->behavior, p->invert ? "Removed" : "Isolated") != 0 || tok->split != ORLI_SPLIT_NONE || tok->digits ||
        tok->sentencepiece)
        return 0;
    for (i = 0; i < sizeof orli_regexes / sizeof *orli_regexes; i++)
        if (strcmp(p->regex, orli_regexes[i].regex) == 0) tok->split = orli_regexes[i].split;
    return tok->split != ORLI_SPLIT_NONE;
}

/* ByteLevel, with GPT-2's regex of its own, or behind a Split and with neither regex nor prefix (which every word
 * would get). */
static int orli_apply_byte_level(orl_tokenizer *tok, const orli_pipeline_part *p) {
    if (tok->sentencepiece || (p->use_regex && tok->split != ORLI_SPLIT_NONE)) return 0;
    if (p->add_prefix_space && (tok->digits || !p->use_regex)) return 0;
    if (p->add_prefix_space) tok->prefix = ORLI_PREFIX_ALWAYS;
    if (p->use_regex) tok->split = ORLI_SPLIT_GPT2;
    return tok->split != ORLI_SPLIT_NONE;
}

static int orli_apply_metaspace(orl_tokenizer *tok, const orli_pipeline_part *p) {
    if (strcmp(p->text, ORLI_SP_SPACE) != 0 || tok->split != ORLI_SPLIT_NONE || tok->digits || tok->prefix_twice)
        return 0;
    tok->sentencepiece = 1;
    if (p->split) tok->split = ORLI_SPLIT_SPACES;
    tok->prefix = !strcmp(p->scheme, "first")   ? ORLI_PREFIX_FIRST
                  : !strcmp(p->scheme, "never") || !p->add_prefix_space ? ORLI_PREFIX_NONE
                                                                        : ORLI_PREFIX_ALWAYS;
    return 1;
}

/* tok->split begins as NONE. */
static void orli_apply_pretokenizer(orl_tokenizer *tok, orli_pipeline_part *p) {
    int known = 0;
    if (strcmp(p->type, "ByteLevel") == 0) {
        known = orli_apply_byte_level(tok, p);
    } else if (strcmp(p->type, "Metaspace") == 0) {
        known = orli_apply_metaspace(tok, p);
    } else if (strcmp(p->type, "Split") == 0) {
        known = orli_apply_split(tok, p);
    } else if (strcmp(p->type, "Digits") == 0 && tok->split == ORLI_SPLIT_NONE && !tok->sentencepiece) {
        tok->digits = p->individual ? 1 : 2;
        known = 1;
    }
    if (!known) orli_part_unknown(p, "pre_tokenizer");
}

/* A decoder says but one thing that is not known already: whether a leading space goes. */
static void orli_apply_decoder(orl_tokenizer *tok, orli_pipeline_part *p) {
    int known = 0;
    if (!tok->sentencepiece) known = strcmp(p->type, "ByteLevel") == 0;
    else if (strcmp(p->type, "Replace") == 0)
        known = strcmp(p->text, ORLI_SP_SPACE) == 0 && strcmp(p->content, " ") == 0;
    else if (strcmp(p->type, "Strip") == 0)
        known = tok->strips = strcmp(p->content, " ") == 0 && p->start == 1 && p->stop == 0;
    else if (strcmp(p->type, "Metaspace") == 0) {
        tok->strips = strcmp(p->scheme, "never") != 0 && p->add_prefix_space;
        known = strcmp(p->text, ORLI_SP_SPACE) == 0;
    } else
        known = strcmp(p->type, "ByteFallback") == 0 || strcmp(p->type, "Fuse") == 0;
    if (!known) orli_part_unknown(p, "decoder");
}

/* TemplateProcessing whose first piece is a special token adds that token: it is the BOS. */
static void orli_apply_processor(orl_tokenizer *tok, orli_pipeline_part *p) {
    orli_json j = p->list;
    orli_str id = orli_str_new(tok->object.ctx);
    if (strcmp(p->type, "ByteLevel") == 0) return; /* of offsets alone */
    if (strcmp(p->type, "TemplateProcessing") != 0 || !p->has_list) {
        orli_part_unknown(p, "post_processor");
        return;
    }
    orli_json_open(&j, ORLI_JSON_ARRAY);
    if (orli_json_item(&j)) {
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            if (!orli_json_is(&j, "SpecialToken")) {
                orli_json_skip(&j);
                continue;
            }
            for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
                if (!orli_json_is(&j, "id")) orli_json_skip(&j);
                else if (orli_json_string(&j, &id))
                    tok->bos = orli_spelling_id(tok, id.data, id.length);
            }
        }
        tok->add_bos = tok->bos >= 0;
    }
    orli_str_free(&id);
}

/* The highest id a file of this size may use: nearly all tokens take more than eight bytes of it, and holes
 * between ids are few. */
static int64_t orli_id_limit(size_t size) { return (int64_t)ORLI_MIN(size / 8 + 1024, (size_t)1 << 29); }

#define ORLI_SPELLING_MOST 65536

/* Room for what a file says it has, as far as its size makes that believable: most tokens take 12 bytes or more of it.
 * What is not believed makes room as it comes. */
static void orli_load_room(orl_tokenizer *tok, const orli_json *j, size_t tokens, size_t merges) {
    if (!orl_failed(j->ctx)) orli_tokens_reserve(tok, ORLI_MIN(tokens, j->size / 12 + 256));
    if (!orl_failed(j->ctx)) orli_merges_reserve(tok, ORLI_MIN(merges, j->size / 8 + 256));
}

/* {"spelling": id, …} */
static void orli_load_vocab(orl_tokenizer *tok, orli_json *j) {
    orli_str s = orli_str_new(j->ctx);
    int32_t id;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        size_t key = j->start;
        if (j->end - j->start > ORLI_SPELLING_MOST) {
            orli_json_fail_at(j, key, "model: a token of %zu bytes: more than %d are not known here", j->end - j->start,
                              ORLI_SPELLING_MOST);
            break;
        }
        s.length = 0;
        orli_str_add(&s, "", 0);
        orli_json_text(j, &s);
        id = (int32_t)orli_json_int(j, 0, orli_id_limit(j->size));
        if (s.failed || orl_failed(j->ctx)) break;
        if (!orli_token_enter(tok, s.data, s.length, id, 0))
            orli_json_fail_at(
                j, key,
                "the token \"%.60s\" or the id %ld occurs twice in the vocabulary: remove one",
                s.data, (long)id);
    }
    orli_str_free(&s);
}

/* Enters the merge of two spellings; NULL, or what is wrong with it. */
static const char *orli_load_merge(orl_tokenizer *tok, const char *left, size_t left_bytes,
                                   const char *right, size_t right_bytes, orli_str *whole) {
    int32_t a = orli_spelling_id(tok, left, left_bytes),
            b = orli_spelling_id(tok, right, right_bytes), id;
    whole->length = 0;
    orli_str_add(whole, left, left_bytes);
    orli_str_add(whole, right, right_bytes);
    if (whole->failed) return NULL;
    id = orli_spelling_id(tok, whole->data, whole->length);
    if (!left_bytes || !right_bytes) return "it is not two tokens";
    if (a < 0 || b < 0) return "one of them is not in the vocabulary";
    if (id < 0) return "what they make is not in the vocabulary";
    return orli_merge_enter(tok, a, b, id) ? NULL : "it occurs twice: remove one";
}

/* ["a b", …] or [["a", "b"], …] */
static void orli_load_merges(orl_tokenizer *tok, orli_json *j) {
    orli_str left = orli_str_new(j->ctx), right = orli_str_new(j->ctx),
             whole = orli_str_new(j->ctx);
    const char *space, *wrong;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        if (orli_json_peek(j) == ORLI_JSON_ARRAY) {
            orli_json_open(j, ORLI_JSON_ARRAY);
            orli_json_string(j, &left);
            orli_json_string(j, &right);
            orli_json_expect(j, ORLI_JSON_ARRAY_END);
        } else if (orli_json_string(j, &left)) {
            space = (const char *)memchr(left.data, ' ', left.length);
            right.length = 0;
            if (space) {
                orli_str_add(&right, space + 1, left.length - (size_t)(space + 1 - left.data));
                left.length = (size_t)(space - left.data);
                left.data[left.length] = 0;
            }
        }
        if (left.failed || right.failed || orl_failed(j->ctx)) break;
        wrong = orli_load_merge(tok, left.data, left.length, right.data ? right.data : "", right.length, &whole);
        if (wrong)
            orli_json_fail_at(j, j->start, "model: merge %zu, \"%.60s\" with \"%.60s\": %s", tok->merges + 1, left.data,
                              right.data ? right.data : "", wrong);
    }
    orli_str_free(&left);
    orli_str_free(&right);
    orli_str_free(&whole);
}

/* A key of the model that must be null, empty, false or zero. */
static void orli_load_must_be_off(orli_json *j, const char *key) {
    orli_json_event got;
    if (orli_json_skip(j) != ORL_OK) return;
    got = j->text[j->start] == 'n' || j->text[j->start] == 'f' ? ORLI_JSON_NULL : ORLI_JSON_STRING;
    if (got == ORLI_JSON_NULL || (j->end - j->start == 2 && j->text[j->start] == '"')) return;
    if (strspn(j->text + j->start, "0.") >= j->end - j->start) return;
    orli_json_fail_at(j, j->start, "model: %s is %.*s, which is not known here: only null is", key,
                      (int)ORLI_MIN(j->end - j->start, 60), j->text + j->start);
}

static void orli_load_model(orl_tokenizer *tok, orli_json j, size_t added) {
    orli_json vocab, merges;
    orli_str unk = orli_str_new(tok->object.ctx);
    memset(&vocab, 0, sizeof vocab);
    memset(&merges, 0, sizeof merges);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "type")) {
            if (orli_json_string(&j, &unk) && strcmp(unk.data, "BPE") != 0)
                orli_json_fail_at(&j, j.start, "model: type is \"%.40s\": only BPE is known here",
                                  unk.data);
            unk.length = 0;
        } else if (orli_json_is(&j, "dropout")) orli_load_must_be_off(&j, "dropout");
        else if (orli_json_is(&j, "continuing_subword_prefix"))
            orli_load_must_be_off(&j, "continuing_subword_prefix");
        else if (orli_json_is(&j, "end_of_word_suffix"))
            orli_load_must_be_off(&j, "end_of_word_suffix");
        else if (orli_json_is(&j, "fuse_unk")) tok->fuse_unk = orli_json_bool(&j);
        else if (orli_json_is(&j, "byte_fallback")) tok->byte_fallback = orli_json_bool(&j);
        else if (orli_json_is(&j, "ignore_merges")) tok->ignore_merges = orli_json_bool(&j);
        else if (orli_json_is(&j, "unk_token")) {
            if (!orli_json_null(&j)) orli_json_string(&j, &unk);
        } else {
            if (orli_json_is(&j, "vocab")) vocab = j;
            else if (orli_json_is(&j, "merges")) merges = j;
            orli_json_skip(&j);
        }
    }
    if (!orl_failed(j.ctx) && (!vocab.ctx || !merges.ctx))
        orli_json_fail_at(&j, j.start, "model: no \"%s\"", vocab.ctx ? "merges" : "vocab");
    if (!orl_failed(j.ctx)) orli_load_room(tok, &j, orli_json_count(vocab) + added, orli_json_count(merges));
    if (!orl_failed(j.ctx)) orli_load_vocab(tok, &vocab);
    if (!orl_failed(j.ctx)) orli_load_merges(tok, &merges);
    if (unk.length) tok->unk = orli_spelling_id(tok, unk.data, unk.length);
    orli_str_free(&unk);
}

/* One of added_tokens: its flags, and its content in `content`; 1, or an error and 0. */
static int orli_load_added_one(orli_json *j, orli_added *flags, orli_str *content) {
    memset(flags, 0, sizeof *flags);
    flags->id = -1;
    content->length = 0;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "id")) flags->id = (int32_t)orli_json_int(j, 0, orli_id_limit(j->size));
        else if (orli_json_is(j, "content")) orli_json_string(j, content);
        else if (orli_json_is(j, "special")) flags->special = orli_json_bool(j) != 0;
        else if (orli_json_is(j, "lstrip")) flags->lstrip = orli_json_bool(j) != 0;
        else if (orli_json_is(j, "rstrip")) flags->rstrip = orli_json_bool(j) != 0;
        else if (orli_json_is(j, "single_word")) flags->single_word = orli_json_bool(j) != 0;
        else if (orli_json_is(j, "normalized")) flags->normalized = orli_json_bool(j) != 0;
        else orli_json_skip(j);
    }
    if (content->failed || orl_failed(j->ctx)) return 0;
    if (flags->id < 0 || !content->length)
        orli_json_fail_at(j, j->start, "added_tokens: a token without id or content");
    return !orl_failed(j->ctx);
}

/* Makes room for as many as there are of either kind. */
static void orli_load_added_room(orl_tokenizer *tok, orli_json j) {
    orli_str s = orli_str_new(j.ctx);
    orli_added flags;
    size_t n[2] = {0, 0}, i;
    for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j) && orli_load_added_one(&j, &flags, &s);)
        n[flags.normalized ? 1 : 0]++;
    for (i = 0; i < 2 && !orl_failed(j.ctx); i++)
        ORLI_RESERVE(j.ctx, tok->added[i].item, tok->added[i].capacity, n[i]);
    orli_str_free(&s);
}

/* [{"id": …, "content": "…", "special": …, "lstrip": …, …}, …]. The first of the usual
 * end-of-text tokens is the EOS until tokenizer_config.json says otherwise. */
static void orli_load_added(orl_tokenizer *tok, orli_json j) {
    orli_str s = orli_str_new(tok->object.ctx);
    orli_added flags;
    int32_t known;
    if (!j.ctx || orli_json_null(&j)) return;
    orli_load_added_room(tok, j);
    for (orli_json_open(&j, ORLI_JSON_ARRAY); orli_json_item(&j);) {
        if (!orli_load_added_one(&j, &flags, &s)) break;
        known = orli_spelling_id(tok, s.data, s.length);
        if (known < 0 ? !orli_token_enter(tok, s.data, s.length, flags.id, 1) : known != flags.id)
            orli_json_fail_at(
                &j, j.start,
                "added_tokens: \"%.60s\" or its id %ld is another token's in the vocabulary",
                s.data, (long)flags.id);
        else if (!orl_failed(j.ctx) && tok->token[flags.id].added)
            orli_json_fail_at(&j, j.start, "added_tokens: \"%.60s\" occurs twice: remove one", s.data);
        if (orl_failed(j.ctx)) break;
        orli_added_enter(tok, flags);
        if (flags.special && tok->eos < 0 &&
            (strcmp(s.data, "<|endoftext|>") == 0 || strcmp(s.data, "</s>") == 0))
            tok->eos = flags.id;
    }
    orli_str_free(&s);
}

/* Between ids there may be a few that no token has, but memory goes by the highest. */
static void orli_check_holes(const orl_tokenizer *tok, orli_json *j) {
    size_t i, used = 0;
    for (i = 0; i < tok->tokens; i++) used += tok->token[i].text;
    if (tok->tokens - used > used + 1024)
        orli_json_fail_at(j, j->start,
                          "model: the vocabulary has ids up to %zu but only %zu tokens: number them 0, 1, …",
                          tok->tokens - 1, used);
}

static void orli_load_json(orl_tokenizer *tok, const char *path) {
    orl_ctx *ctx = tok->object.ctx;
    static const char *const key[6] = {"normalizer", "pre_tokenizer", "model", "added_tokens",
                                       "post_processor", "decoder"};
    orli_json part[6], j;
    orli_file file;
    int i;
    memset(part, 0, sizeof part);
    if (orli_file_open(ctx, path, &file) != ORL_OK) return;
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j); orli_json_skip(&j))
        for (i = 0; i < 6; i++) {
            if (!orli_json_is(&j, key[i])) continue;
            if (part[i].ctx)
                orli_json_fail_at(&j, j.start, "the key \"%s\" occurs twice: remove one", key[i]);
            part[i] = j;
        }
    orli_json_end(&j);
    if (!orl_failed(ctx) && !part[2].ctx)
        orli_json_fail_at(&j, 0, "no \"model\": this is no tokenizer.json");
    tok->split = ORLI_SPLIT_NONE;
    if (!orl_failed(ctx)) orli_pipeline_apply(tok, part[0], orli_apply_normalizer);
    if (!orl_failed(ctx)) orli_pipeline_apply(tok, part[1], orli_apply_pretokenizer);
    if (!orl_failed(ctx) && tok->split == ORLI_SPLIT_NONE && !tok->sentencepiece)
        orli_json_fail_at(&j, 0,
                          "neither a pre_tokenizer ByteLevel nor one of SentencePiece's: only such "
                          "tokenizers are known here");
    tok->strips = tok->sentencepiece && tok->prefix != ORLI_PREFIX_NONE;
    if (part[5].ctx && tok->sentencepiece && orli_json_peek(&part[5]) != ORLI_JSON_NULL) tok->strips = 0;
    if (!orl_failed(ctx)) orli_pipeline_apply(tok, part[5], orli_apply_decoder);
    if (!orl_failed(ctx) && tok->nfc) orli_nfc_expand(tok);
    if (!orl_failed(ctx)) orli_load_model(tok, part[2], part[3].ctx ? orli_json_count(part[3]) : 0);
    if (!orl_failed(ctx)) orli_load_added(tok, part[3]);
    if (!orl_failed(ctx)) orli_check_holes(tok, &part[2]);
    if (!orl_failed(ctx)) orli_pipeline_apply(tok, part[4], orli_apply_processor);
    orli_file_close(&file);
}

/* ---- loading the other forms ---- */

/* The number of lines with anything on them. */
static size_t orli_lines_count(const orli_file *file) {
    size_t at, count = 0, inside = 0;
    for (at = 0; at < file->size; at++) {
        if (file->data[at] == '\n') inside = 0;
        else if (file->data[at] != '\r' && !inside) inside = 1, count++;
    }
    return count;
}

/* A file of merges, one "a b" a line, after a line "#version". */
static void orli_load_merges_txt(orl_tokenizer *tok, const char *path) {
    orl_ctx *ctx = tok->object.ctx;
    orli_str whole = orli_str_new(ctx);
    orli_file file;
    size_t at, end, line = 1, next;
    if (orli_file_open(ctx, path, &file) != ORL_OK) return;
    orli_merges_reserve(tok, orli_lines_count(&file));
    for (at = 0; at < file.size && !orl_failed(ctx); at = next, line++) {
        const char *text = file.data + at, *stop = (const char *)memchr(text, '\n', file.size - at),
                   *space, *wrong;
        end = stop ? (size_t)(stop - file.data) : file.size;
        next = end + 1;
        if (end > at && file.data[end - 1] == '\r') end--;
        if (end == at || (line == 1 && end - at >= 8 && memcmp(text, "#version", 8) == 0)) continue;
        space = (const char *)memchr(text, ' ', end - at);
        wrong = space ? orli_load_merge(tok, text, (size_t)(space - text), space + 1,
                                        end - (size_t)(space + 1 - file.data), &whole)
                      : "it is not two tokens with a space between";
        if (wrong)
            orli_fail(ctx, ORL_ERR_FORMAT, "%s:%zu: merge \"%.*s\": %s", path, line, (int)ORLI_MIN(end - at, 60), text,
                      wrong);
    }
    orli_file_close(&file);
    orli_str_free(&whole);
}

static void orli_load_vocab_json(orl_tokenizer *tok, const char *path) {
    orl_ctx *ctx = tok->object.ctx;
    orli_file file;
    orli_json j;
    int32_t end;
    if (orli_file_open(ctx, path, &file) != ORL_OK) return;
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    orli_load_room(tok, &j, orli_json_count(j), 0);
    orli_load_vocab(tok, &j);
    orli_json_end(&j);
    orli_file_close(&file);
    if (orl_failed(ctx)) return;
    end = orli_spelling_id(tok, "<|endoftext|>", 13);
    if (end < 0) return;
    orli_added_plain(tok, end, 1);
    tok->eos = end;
}

/* "token": a string or {"content": a string}; null and tokens that do not exist give −1. */
static int32_t orli_config_token(const orl_tokenizer *tok, orli_json *j) {
    orli_str s = orli_str_new(j->ctx);
    int32_t id;
    if (orli_json_null(j)) return -1;
    if (orli_json_peek(j) != ORLI_JSON_OBJECT) {
        orli_json_string(j, &s);
    } else {
        for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
            if (orli_json_is(j, "content")) orli_json_string(j, &s);
            else orli_json_skip(j);
        }
    }
    id = s.data && !s.failed ? orli_spelling_id(tok, s.data, s.length) : -1;
    orli_str_free(&s);
    return id;
}

/* tokenizer_config.json, if there is one: which token ends a text, which begins it and whether
 * it is added. */
static void orli_load_config(orl_tokenizer *tok, const char *dir) {
    orl_ctx *ctx = tok->object.ctx;
    char path[4096];
    orli_file file;
    orli_json j;
    if (orli_join(ctx, path, dir, "tokenizer_config.json") != ORL_OK || !orli_exists(path) ||
        orli_file_open(ctx, path, &file) != ORL_OK)
        return;
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        if (orli_json_is(&j, "eos_token")) tok->eos = orli_config_token(tok, &j);
        else if (orli_json_is(&j, "bos_token")) tok->bos = orli_config_token(tok, &j);
        else if (orli_json_is(&j, "add_bos_token") && !orli_json_null(&j))
            tok->add_bos = orli_json_bool(&j);
        else if (orli_json_is(&j, "orl_leftmost_merges")) tok->rank_by_token = orli_json_bool(&j);
        else orli_json_skip(&j);
    }
    orli_json_end(&j);
    orli_file_close(&file);
}

/* What a tokenizer is saved with again; those with tokens in them come first. */
static const char *const orli_tokenizer_files[] = {
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "added_tokens.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", NULL};
#define ORLI_TOKENIZER_FILES_WITH_TOKENS 7

/* ---- llama2.c's tokenizer.bin: int max_token_length; vocab × (float score; int length; bytes)
 * ---- */

/* Bytes of a token, in the forms whose merges are found by trying where to cut it. */
#define ORLI_TOKEN_MOST 1024

typedef struct orli_scored {
    float score;
    int32_t id;
} orli_scored;

static int orli_scored_order(const void *a, const void *b) { /* best score first, then lowest id */
    const orli_scored *s = (const orli_scored *)a, *t = (const orli_scored *)b;
    if (s->score < t->score || s->score > t->score) return s->score > t->score ? -1 : 1;
    return s->id < t->id ? -1 : s->id > t->id;
}

static int orli_merge_order(const void *a, const void *b) { /* of merges that make one token */
    const orli_merge *s = (const orli_merge *)a, *t = (const orli_merge *)b;
    if (s->left != t->left) return s->left < t->left ? -1 : 1;
    return s->right < t->right ? -1 : s->right > t->right;
}

/* Reads the tokens and their scores. Spaces are spelled "▁"; the newlines some writers put
 * around <s> go. */
static void orli_llama2c_read(orl_tokenizer *tok, const orli_file *file, const char *path,
                              size_t vocab, orli_scored *order) {
    orl_ctx *ctx = tok->object.ctx;
    orli_str spelling = orli_str_new(ctx);
    size_t at = 4, i;
    int32_t length;
    for (i = 0; i < vocab && !orl_failed(ctx); i++) {
        const char *text = file->data + at + 8;
        if (file->size < 8 || at > file->size - 8) {
            orli_fail(
                ctx, ORL_ERR_FORMAT,
                "%s: ends at byte %zu, within token %zu of %zu: is it this model's tokenizer?",
                path, file->size, i, vocab);
            break;
        }
        memcpy(&order[i].score, file->data + at, 4);
        order[i].id = (int32_t)i;
        memcpy(&length, file->data + at + 4, 4);
        if (length < 0 || (size_t)length > file->size - at - 8) {
            orli_fail(ctx, ORL_ERR_FORMAT,
                      "%s: token %zu at byte %zu says it has %ld bytes, past the end of the file: "
                      "is it a tokenizer of llama2.c?",
                      path, i, at, (long)length);
            break;
        }
        at += 8 + (size_t)length;
        if (length > ORLI_TOKEN_MOST) {
            orli_fail(ctx, ORL_ERR_FORMAT, "%s: token %zu at byte %zu has %ld bytes: more than %d are not known here",
                      path, i, at - 8 - (size_t)length, (long)length, ORLI_TOKEN_MOST);
            break;
        }
        for (; i < 3 && length > 2 && text[0] == '\n' && text[length - 1] == '\n'; length -= 2)
            text++;
        spelling.length = 0;
        orli_spell(tok, text, (size_t)length, &spelling);
        if (!spelling.failed && !orli_token_enter(tok, spelling.data ? spelling.data : "",
                                                  spelling.length, (int32_t)i, 0))
            orli_fail(ctx, ORL_ERR_FORMAT, "%s: token %zu, \"%.60s\", occurs twice", path, i,
                      spelling.data ? spelling.data : "");
    }
    orli_str_free(&spelling);
}

/* Pairs of tokens from `from` on that make this one: how many; `found` has room for ORLI_TOKEN_MOST. SentencePiece's
 * bytes take no part. */
static size_t orli_token_pairs(const orl_tokenizer *tok, int32_t id, int32_t from, orli_merge *found) {
    const orli_name *name = &tok->names.name[tok->token[id].name];
    size_t count = 0, k;
    if (tok->sentencepiece && orli_byte_token(name->text, name->length) >= 0) return 0;
    for (k = 1; k < name->length && count < ORLI_TOKEN_MOST; k++) {
        int32_t left = orli_spelling_id(tok, name->text, k),
                right = left < from ? -1 : orli_spelling_id(tok, name->text + k, name->length - k);
        if (left < from || right < from ||
            (tok->sentencepiece && (orli_byte_token(name->text, k) >= 0 ||
                                    orli_byte_token(name->text + k, name->length - k) >= 0)))
            continue;
        found[count].left = left, found[count].right = right;
        count++;
    }
    return count;
}

/* Every pair of tokens that makes a third one is a merge, as good as the third one is early in `order` (NULL: by id).
 * They are counted first, as they take most of the memory. */
static void orli_derive_merges(orl_tokenizer *tok, const orli_scored *order, int32_t from) {
    orli_merge found[ORLI_TOKEN_MOST];
    size_t pass, i, k, count, total = 0;
    for (pass = 0; pass < 2; pass++) {
        for (i = (size_t)from; i < tok->tokens && !orl_failed(tok->object.ctx); i++) {
            int32_t id = order ? order[i].id : (int32_t)i;
            if (!tok->token[id].text) continue;
            count = orli_token_pairs(tok, id, from, found);
            total += count;
            if (!pass) continue;
            orli_sort(found, count, sizeof *found, orli_merge_order);
            for (k = 0; k < count; k++) orli_merge_enter(tok, found[k].left, found[k].right, id);
        }
        if (!pass) orli_merges_reserve(tok, total);
    }
}

/* vocab 0: as many tokens as the file has. */
static size_t orli_llama2c_count(const orli_file *file) {
    size_t at = 4, n = 0;
    int32_t length;
    for (; file->size >= 8 && at <= file->size - 8; n++, at += 8 + (size_t)length) {
        memcpy(&length, file->data + at + 4, 4);
        /* the reader will say what is wrong */
        if (length < 0 || (size_t)length > file->size - at - 8) return n + 1;
    }
    return n;
}

ORL_API orl_tokenizer *orl_tokenizer_load_llama2c(orl_ctx *ctx, const char *path, size_t vocab) {
    orl_tokenizer *tok;
    orli_file file;
    orli_scored *order;
    size_t i;
    if (orl_failed(ctx)) return NULL;
    if (!path) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_tokenizer_load_llama2c: the file is NULL");
        return NULL;
    }
    if (orli_file_open(ctx, path, &file) != ORL_OK) return NULL;
    if (!vocab) vocab = orli_llama2c_count(&file);
    if (vocab < 3 || vocab > file.size / 8) {
        orli_fail(ctx, ORL_ERR_FORMAT,
                  "%s: %zu bytes cannot hold %zu tokens: is it this model's tokenizer?", path,
                  file.size, vocab);
        orli_file_close(&file);
        return NULL;
    }
    tok = orli_tokenizer_new(ctx);
    order = (orli_scored *)orli_alloc(ctx, vocab, sizeof *order);
    if (!orl_failed(ctx)) {
        tok->sentencepiece = tok->byte_fallback = tok->fuse_unk = tok->add_bos =
            tok->rank_by_token = tok->prefix_twice = tok->replaces = tok->strips = 1;
        tok->prefix = ORLI_PREFIX_ALWAYS;
        tok->split = ORLI_SPLIT_NONE;
        orli_tokens_reserve(tok, vocab);
        orli_llama2c_read(tok, &file, path, vocab, order);
    }
    if (!orl_failed(ctx)) {
        orli_sort(order + 3, vocab - 3, sizeof *order, orli_scored_order);
        orli_derive_merges(tok, order, 3);
    }
    orli_free(ctx, order);
    for (i = 0; i < 3 && !orl_failed(ctx); i++) orli_added_plain(tok, (int32_t)i, 1);
    if (!orl_failed(ctx)) {
        tok->unk = 0, tok->bos = 1, tok->eos = 2;
        orli_tokenizer_index(tok);
    }
    orli_file_close(&file);
    return orli_tokenizer_finished(tok);
}

/* ---- tiktoken's rank files: lines of a token's bytes in base64, a blank, its rank, which is its id ---- */

typedef struct orli_rank_kind {
    const char *name;
    size_t ranks; /* how many the file has */
    orli_split split;
    int nfc;
    int32_t first;       /* id of the first special token */
    const char *special; /* their texts, each in its place: "a b - c": "-" is an id without a token; in the end …#n: the
                          * number n and those that follow, as far as to `last` */
    int32_t last;
} orli_rank_kind;

static const orli_rank_kind orli_rank_kinds[] = {
    {"cl100k_base", 100256, ORLI_SPLIT_LLAMA3, 0, 100257,
     "<|endoftext|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> - - - - - - - - - - - - - - - <|endofprompt|>",
     100276},
    {"o200k_base", 199998, ORLI_SPLIT_O200K, 0, 199999,
     "<|endoftext|> - - - - - - - - - - - - - - - - - - <|endofprompt|>", 200018},
    {"llama3", 128000, ORLI_SPLIT_LLAMA3, 0, 128000,
     "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|reserved_special_token_1|> "
     "<|reserved_special_token_2|> <|reserved_special_token_3|> <|start_header_id|> <|end_header_id|> "
     "<|reserved_special_token_4|> <|eot_id|> <|reserved_special_token_#5", 128255},
    {"qwen", 151643, ORLI_SPLIT_QWEN2, 1, 151643, "<|endoftext|> <|im_start|> <|im_end|> <|extra_#0", 151850},
    {"gpt2", 50256, ORLI_SPLIT_GPT2, 0, 50256, "<|endoftext|>", 50256},
    {"r50k_base", 50256, ORLI_SPLIT_GPT2, 0, 50256, "<|endoftext|>", 50256},
    {"p50k_base", 50280, ORLI_SPLIT_GPT2, 0, 50256, "<|endoftext|>", 50256}};

/* Appends the bytes of n characters of base64; 0 if they are none. */
static int orli_base64(const char *text, size_t n, orli_str *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t i, waiting = 0, padding = 0;
    for (; padding < 2 && n > padding && text[n - 1 - padding] == '='; padding++) {}
    if (n % 4 || n == 0) return 0;
    for (i = 0; i < n - padding; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        char c;
        if (!digit) return 0;
        bits = bits << 6 | (uint32_t)(digit - digits);
        waiting += 6;
        if (waiting < 8) continue;
        waiting -= 8;
        c = (char)(bits >> waiting & 0xff);
        orli_str_add(out, &c, 1);
    }
    return !(bits & ((1u << waiting) - 1)); /* what is left over is zero */
}

/* A line's token and rank: 1, or 0 and an error. */
static int orli_rank_line(orl_tokenizer *tok, const char *path, size_t line, const char *text, size_t n, size_t most,
                          orli_str *bytes, orli_str *spelling) {
    orl_ctx *ctx = tok->object.ctx;
    const char *space = (const char *)memchr(text, ' ', n);
    const size_t encoded = space ? (size_t)(space - text) : n;
    size_t rank = 0, i;
    bytes->length = spelling->length = 0;
    if (!orli_base64(text, encoded, bytes)) {
        orli_fail(ctx, ORL_ERR_FORMAT, "%s:%zu: \"%.*s\" is not a token in base64", path, line,
                  (int)ORLI_MIN(encoded, 60), text);
        return 0;
    }
    for (i = encoded + 1; i < n && rank < most && text[i] >= '0' && text[i] <= '9'; i++)
        rank = 10 * rank + (size_t)(text[i] - '0');
    if (i < n || i <= encoded + 1 || rank >= most)
        orli_fail(ctx, ORL_ERR_FORMAT, "%s:%zu: \"%.*s\" is not a token, a blank and a rank below %zu", path, line,
                  (int)ORLI_MIN(n, 60), text, most);
    else if (bytes->length > ORLI_TOKEN_MOST)
        orli_fail(ctx, ORL_ERR_FORMAT, "%s:%zu: a token of %zu bytes: more than %d are not known here", path, line,
                  bytes->length, ORLI_TOKEN_MOST);
    if (bytes->failed || orl_failed(ctx)) return 0;
    orli_spell(tok, bytes->data, bytes->length, spelling);
    if (!spelling->failed && !orli_token_enter(tok, spelling->data, spelling->length, (int32_t)rank, 0))
        orli_fail(ctx, ORL_ERR_FORMAT, "%s:%zu: the token or its rank %zu occurs twice", path, line, rank);
    return !orl_failed(ctx);
}

static void orli_ranks_read(orl_tokenizer *tok, const orli_file *file, const char *path) {
    orli_str bytes = orli_str_new(tok->object.ctx), spelling = orli_str_new(tok->object.ctx);
    size_t at, end, line = 1, next, most = (size_t)orli_id_limit(file->size);
    for (at = 0; at < file->size && !orl_failed(tok->object.ctx); at = next, line++) {
        const char *stop = (const char *)memchr(file->data + at, '\n', file->size - at);
        end = stop ? (size_t)(stop - file->data) : file->size;
        next = end + 1;
        if (end > at && file->data[end - 1] == '\r') end--;
        if (end > at) orli_rank_line(tok, path, line, file->data + at, end - at, most, &bytes, &spelling);
    }
    orli_str_free(&bytes);
    orli_str_free(&spelling);
}

/* Which kind the caller, or the file's name, or the number of its ranks says it is; NULL and an error. */
static const orli_rank_kind *orli_rank_kind_of(orl_ctx *ctx, const char *path, const char *name, size_t ranks) {
    const char *slash = strrchr(path, '/');
    size_t i, n = sizeof orli_rank_kinds / sizeof *orli_rank_kinds;
    for (i = 0; i < n; i++)
        if (name && strcmp(name, orli_rank_kinds[i].name) == 0) return &orli_rank_kinds[i];
    for (i = 0; i < n && !name; i++)
        if (strstr(slash ? slash : path, orli_rank_kinds[i].name)) return &orli_rank_kinds[i];
    for (i = 0; i < n && !name; i++)
        if (ranks == orli_rank_kinds[i].ranks) return &orli_rank_kinds[i];
    orli_fail(ctx, name ? ORL_ERR_ARGUMENT : ORL_ERR_FORMAT,
              "%s: %s%s%s (%zu lines of ranks; SentencePiece's own form is not known here): name one of cl100k_base, "
              "o200k_base, llama3, qwen, gpt2, r50k_base and p50k_base", path,
              name ? "there is no kind \"" : "neither its name nor its size tells how it splits text", name ? name : "",
              name ? "\"" : "", ranks);
    return NULL;
}

/* The special tokens that the file does not have. */
static void orli_rank_specials(orl_tokenizer *tok, const orli_rank_kind *kind, const char *path) {
    orl_ctx *ctx = tok->object.ctx;
    const char *at = kind->special;
    int32_t id, number = -1;
    for (id = kind->first; id <= kind->last && !orl_failed(ctx); id++) {
        char text[64];
        size_t n = strcspn(at, " "), hash = strcspn(at, " #");
        if (hash < n && number < 0) number = (int32_t)(at[hash + 1] - '0');
        if (hash < n) snprintf(text, sizeof text, "%.*s%ld|>", (int)hash, at, (long)number++);
        else snprintf(text, sizeof text, "%.*s", (int)n, at);
        if (hash == n && at[n]) at += n + 1;
        if (strcmp(text, "-") == 0) continue;
        if (!orli_token_enter(tok, text, strlen(text), id, 1))
            orli_fail(ctx, ORL_ERR_FORMAT, "%s: has a token %ld or \"%s\", which %s keeps for itself", path, (long)id,
                      text, kind->name);
        else if (!orl_failed(ctx)) orli_added_plain(tok, id, 1);
    }
    if (orl_failed(ctx)) return;
    tok->bos = orli_spelling_id(tok, "<|begin_of_text|>", 17);
    tok->add_bos = tok->bos >= 0;
    tok->eos = orli_spelling_id(tok, tok->add_bos ? "<|end_of_text|>" : "<|endoftext|>", tok->add_bos ? 15 : 13);
}

ORL_API orl_tokenizer *orl_tokenizer_load_tiktoken(orl_ctx *ctx, const char *path, const char *name) {
    orl_tokenizer *tok;
    const orli_rank_kind *kind = NULL;
    orli_file file;
    size_t ranks;
    if (orl_failed(ctx)) return NULL;
    if (!path) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_tokenizer_load_tiktoken: the file is NULL");
        return NULL;
    }
    if (orli_file_open(ctx, path, &file) != ORL_OK) return NULL;
    ranks = orli_lines_count(&file);
    kind = orli_rank_kind_of(ctx, path, name, ranks);
    tok = orli_tokenizer_new(ctx);
    if (!orl_failed(ctx)) orli_tokens_reserve(tok, ranks + (size_t)(kind->last - kind->first) + 1);
    if (!orl_failed(ctx)) orli_ranks_read(tok, &file, path);
    if (!orl_failed(ctx) && ranks != kind->ranks)
        orli_fail(ctx, ORL_ERR_FORMAT, "%s: has %zu ranks where %s has %zu: is the file complete, and of that kind?",
                  path, ranks, kind->name, kind->ranks);
    if (!orl_failed(ctx)) {
        tok->split = kind->split, tok->nfc = kind->nfc;
        tok->ignore_merges = tok->rank_by_token = 1;
        orli_derive_merges(tok, NULL, 0);
    }
    if (!orl_failed(ctx) && tok->nfc) orli_nfc_expand(tok);
    if (!orl_failed(ctx)) orli_rank_specials(tok, kind, path);
    if (!orl_failed(ctx)) orli_tokenizer_index(tok);
    orli_file_close(&file);
    return orli_tokenizer_finished(tok);
}

/* ---- loading a directory ---- */

/* What a tokenizer is loaded from: the first of these that is there. */
static const char *const orli_vocab_files[] = {"tokenizer.json", "vocab.json", "encoder.json", NULL};
static const char *const orli_rank_files[] = {"tokenizer.model", "qwen.tiktoken", "cl100k_base.tiktoken",
                                              "o200k_base.tiktoken", "r50k_base.tiktoken", "p50k_base.tiktoken", NULL};

/* The first of some files that is in a directory, and its path; −1: none. */
static int orli_first_file(orl_ctx *ctx, char *path, const char *dir, const char *const *names) {
    int i;
    for (i = 0; names[i] && orli_join(ctx, path, dir, names[i]) == ORL_OK; i++)
        if (orli_exists(path)) return i;
    return -1;
}

static int orli_has_tokenizer(orl_ctx *ctx, const char *dir) {
    char path[4096];
    return orli_first_file(ctx, path, dir, orli_vocab_files) >= 0 ||
           orli_first_file(ctx, path, dir, orli_rank_files) >= 0;
}

ORL_API orl_tokenizer *orl_tokenizer_load(orl_ctx *ctx, const char *dir) {
    static const char *const merges[] = {NULL, "merges.txt", "vocab.bpe"}; /* of orli_vocab_files */
    orl_tokenizer *tok;
    char path[4096], second[4096];
    int which;
    if (orl_failed(ctx)) return NULL;
    if (!dir) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_tokenizer_load: the directory is NULL");
        return NULL;
    }
    which = orli_first_file(ctx, path, dir, orli_vocab_files);
    if (which < 0 && orli_first_file(ctx, path, dir, orli_rank_files) >= 0)
        return orl_tokenizer_load_tiktoken(ctx, path, NULL);
    if (which < 0 && !orl_failed(ctx))
        orli_fail(ctx, ORL_ERR_IO,
                  "%s: holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt nor encoder.json and "
                  "vocab.bpe nor a rank file of tiktoken", dir);
    tok = orli_tokenizer_new(ctx);
    if (!tok) return NULL;
    if (which == 0) orli_load_json(tok, path);
    if (which > 0) orli_load_vocab_json(tok, path);
    if (which > 0 && !orl_failed(ctx) && orli_join(ctx, second, dir, merges[which]) == ORL_OK)
        orli_load_merges_txt(tok, second);
    if (!orl_failed(ctx)) orli_load_config(tok, dir);
    if (!orl_failed(ctx)) orli_tokenizer_index(tok);
    if (!orl_failed(ctx)) orli_kept_read(ctx, &tok->kept, dir, orli_tokenizer_files);
    return orli_tokenizer_finished(tok);
}

/* ---- saving ---- */

static void orli_save_spelling(const orl_tokenizer *tok, orli_str *s, int32_t id) {
    const orli_name *name = &tok->names.name[tok->token[id].name];
    orli_json_put_string(s, name->text, name->length);
}

static const char *orli_json_word(int value) { return value ? "true" : "false"; }

static int orli_added_id_order(const void *a, const void *b) {
    const orli_added *s = (const orli_added *)a, *t = (const orli_added *)b;
    return s->id < t->id ? -1 : s->id > t->id;
}

static void orli_save_added(const orl_tokenizer *tok, orli_str *s) {
    const size_t before = tok->added[0].count, count = before + tok->added[1].count;
    orli_added *all = (orli_added *)orli_alloc(s->ctx, count, sizeof *all);
    size_t i;
    if (all && count) {
        for (i = 0; i < count; i++) all[i] = i < before ? tok->added[0].item[i] : tok->added[1].item[i - before];
        orli_sort(all, count, sizeof *all, orli_added_id_order);
    }
    orli_str_puts(s, "  \"added_tokens\": [");
    for (i = 0; all && i < count; i++) {
        orli_str_printf(s, "%s\n    {\"id\": %ld, \"content\": ", i ? "," : "", (long)all[i].id);
        orli_save_spelling(tok, s, all[i].id);
        orli_str_printf(s,
                        ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": "
                        "%s, \"special\": %s}",
                        orli_json_word(all[i].single_word), orli_json_word(all[i].lstrip),
                        orli_json_word(all[i].rstrip), orli_json_word(all[i].normalized),
                        orli_json_word(all[i].special));
    }
    orli_str_puts(s, "],\n");
    orli_free(s->ctx, all);
}

/* normalizer, pre_tokenizer and decoder of a byte-level tokenizer */
static void orli_save_byte_level(const orl_tokenizer *tok, orli_str *s) {
    const char *prefix = tok->prefix != ORLI_PREFIX_NONE ? "true" : "false";
    size_t i;
    orli_str_puts(s, tok->nfc ? "  \"normalizer\": {\"type\": \"NFC\"},\n"
                              : "  \"normalizer\": null,\n");
    if (tok->split == ORLI_SPLIT_GPT2) {
        orli_str_puts(s, "  \"pre_tokenizer\": ");
        if (tok->digits)
            orli_str_printf(s,
                            "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
                            "\"individual_digits\": %s}, ",
                            orli_json_word(tok->digits == 1));
        orli_str_printf(s,
                        "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, "
                        "\"trim_offsets\": true, \"use_regex\": true}%s,\n",
                        prefix, tok->digits ? "]}" : "");
    } else {
        for (i = 0; orli_regexes[i].split != tok->split; i++) {}
        orli_str_puts(s, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": "
                         "[{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        orli_json_put_string(s, orli_regexes[i].regex, strlen(orli_regexes[i].regex));
        orli_str_printf(s,
                        "}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": "
                        "\"ByteLevel\", \"add_prefix_space\": %s, "
                        "\"trim_offsets\": true, \"use_regex\": false}]},\n",
                        prefix);
    }
    orli_str_puts(s, "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                     "\"trim_offsets\": true, \"use_regex\": true},\n");
}

/* the same of a SentencePiece-style one, in the form of Llama 2's, or with Metaspace where that
 * was read */
static void orli_save_sentencepiece(const orl_tokenizer *tok, orli_str *s) {
    const int metaspace = (tok->prefix != ORLI_PREFIX_NONE && !tok->prefix_twice) || tok->split == ORLI_SPLIT_SPACES ||
                          !tok->replaces;
    const char *between = "";
    orli_str_puts(s, tok->replaces || tok->prefix_twice || tok->nfc
                         ? "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": ["
                         : "  \"normalizer\": null,\n");
    if (tok->nfc) orli_str_puts(s, "{\"type\": \"NFC\"}"), between = ", ";
    if (tok->prefix_twice)
        orli_str_printf(s, "%s{\"type\": \"Prepend\", \"prepend\": \"" ORLI_SP_SPACE "\"}", between), between = ", ";
    if (tok->replaces)
        orli_str_printf(s, "%s{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
                           "\"" ORLI_SP_SPACE "\"}", between);
    if (tok->replaces || tok->prefix_twice || tok->nfc) orli_str_puts(s, "]},\n");
    if (metaspace)
        orli_str_printf(s,
                        "  \"pre_tokenizer\": {\"type\": \"Metaspace\", "
                        "\"replacement\": \"" ORLI_SP_SPACE
                        "\", \"prepend_scheme\": \"%s\", \"split\": %s},\n",
                        tok->prefix == ORLI_PREFIX_FIRST    ? "first"
                        : tok->prefix == ORLI_PREFIX_ALWAYS ? "always"
                                                            : "never",
                        orli_json_word(tok->split == ORLI_SPLIT_SPACES));
    else orli_str_puts(s, "  \"pre_tokenizer\": null,\n");
    orli_str_puts(s,
                  "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                  "\"pattern\": {\"String\": \"" ORLI_SP_SPACE
                  "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    if (tok->strips)
        orli_str_puts(s, ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    orli_str_puts(s, "]},\n");
}

static void orli_save_processor(const orl_tokenizer *tok, orli_str *s) {
    int32_t bos = orl_bos(tok);
    if (bos < 0) {
        orli_str_puts(s, "  \"post_processor\": null,\n");
        return;
    }
    orli_str_puts(s, "  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                     "[{\"SpecialToken\": {\"id\": ");
    orli_save_spelling(tok, s, bos);
    orli_str_puts(s, ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], "
                     "\"pair\": [{\"SpecialToken\": {\"id\": ");
    orli_save_spelling(tok, s, bos);
    orli_str_puts(s, ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
                     "{\"Sequence\": {\"id\": \"B\", \"type_id\": 0}}], "
                     "\"special_tokens\": {");
    orli_save_spelling(tok, s, bos);
    orli_str_puts(s, ": {\"id\": ");
    orli_save_spelling(tok, s, bos);
    orli_str_printf(s, ", \"ids\": [%ld], \"tokens\": [", (long)bos);
    orli_save_spelling(tok, s, bos);
    orli_str_puts(s, "]}}},\n");
}

/* Merges: "a b" where no spelling has a space, as older readers need it, else ["a", "b"]. */
static void orli_save_merges(const orl_tokenizer *tok, orli_str *s) {
    orli_str both = orli_str_new(s->ctx);
    size_t i, spaces = 0;
    for (i = 0; i < tok->tokens; i++)
        if (tok->token[i].text && !tok->token[i].added)
            spaces += strchr(tok->names.name[tok->token[i].name].text, ' ') != NULL;
    for (i = 0; i < tok->merges; i++) {
        const orli_name *left = &tok->names.name[tok->token[tok->merge[i].left].name],
                        *right = &tok->names.name[tok->token[tok->merge[i].right].name];
        orli_str_puts(s, i ? ",\n      " : "\n      ");
        both.length = 0;
        orli_str_add(&both, left->text, left->length);
        if (spaces) {
            orli_str_puts(s, "[");
            orli_json_put_string(s, both.data, both.length);
            orli_str_puts(s, ", ");
            both.length = 0;
        } else {
            orli_str_puts(&both, " ");
        }
        orli_str_add(&both, right->text, right->length);
        if (both.failed) s->failed = 1;
        if (s->failed) break;
        orli_json_put_string(s, both.data, both.length);
        if (spaces) orli_str_puts(s, "]");
    }
    orli_str_free(&both);
}

static void orli_save_model(const orl_tokenizer *tok, orli_str *s) {
    size_t i, first = 1;
    orli_str_puts(s, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (tok->unk >= 0) orli_save_spelling(tok, s, tok->unk);
    else orli_str_puts(s, "null");
    orli_str_printf(s,
                    ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                    "\"fuse_unk\": %s, \"byte_fallback\": %s, "
                    "\"ignore_merges\": %s,\n    \"vocab\": {",
                    tok->fuse_unk ? "true" : "false", tok->byte_fallback ? "true" : "false",
                    tok->ignore_merges ? "true" : "false");
    for (i = 0; i < tok->tokens; i++) {
        if (!tok->token[i].text) continue;
        orli_str_puts(s, first ? "\n      " : ",\n      ");
        orli_save_spelling(tok, s, (int32_t)i);
        orli_str_printf(s, ": %zu", i);
        first = 0;
    }
    orli_str_puts(s, "},\n    \"merges\": [");
    orli_save_merges(tok, s);
    orli_str_puts(s, "]}\n}\n");
}

static void orli_save_config_token(const orl_tokenizer *tok, orli_str *s, const char *key,
                                   int32_t id) {
    orli_str_printf(s, ",\n  \"%s\": ", key);
    if (id >= 0) orli_save_spelling(tok, s, id);
    else orli_str_puts(s, "null");
}

static void orli_save_json(const orl_tokenizer *tok, orli_str *s) { /* tokenizer.json */
    orli_str_puts(s, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    orli_save_added(tok, s);
    if (tok->sentencepiece) orli_save_sentencepiece(tok, s);
    else orli_save_byte_level(tok, s);
    orli_save_processor(tok, s);
    orli_save_model(tok, s);
}

static void orli_save_config(const orl_tokenizer *tok, orli_str *s) { /* tokenizer_config.json */
    orli_str_printf(s,
                    "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  "
                    "\"clean_up_tokenization_spaces\": false,\n  \"add_bos_token\": %s",
                    orl_bos(tok) >= 0 ? "true" : "false");
    orli_save_config_token(tok, s, "bos_token", tok->bos);
    orli_save_config_token(tok, s, "eos_token", tok->eos);
    if (tok->unk >= 0) orli_save_config_token(tok, s, "unk_token", tok->unk);
    if (tok->rank_by_token) orli_str_puts(s, ",\n  \"orl_leftmost_merges\": true");
    orli_str_puts(s, "\n}\n");
}

/* The files it came from as they were, but for those with tokens if it has others by now; then what is not among
 * them. */
ORL_API orl_status orl_tokenizer_save(const orl_tokenizer *tok, const char *dir) {
    orl_ctx *ctx;
    orli_str s;
    char path[4096];
    size_t i, k, first;
    if (!tok) return ORL_ERR_ARGUMENT;
    ctx = tok->object.ctx;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (!dir) return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_tokenizer_save: the directory is NULL");
    if (orli_make_dir(ctx, dir) != ORL_OK) return orl_error_status(ctx);
    first = tok->changed ? ORLI_TOKENIZER_FILES_WITH_TOKENS : 0;
    for (i = first; orli_tokenizer_files[i]; i++)
        if ((k = orli_kept_find(&tok->kept, orli_tokenizer_files[i])) != ORLI_NONE)
            orli_kept_write(ctx, &tok->kept, k, dir);
    s = orli_str_new(ctx);
    if (tok->changed || orli_kept_find(&tok->kept, "tokenizer.json") == ORLI_NONE) orli_save_json(tok, &s);
    if (s.length && !s.failed && orli_join(ctx, path, dir, "tokenizer.json") == ORL_OK)
        orli_write_file(ctx, path, s.data, s.length);
    s.length = 0;
    if (orli_kept_find(&tok->kept, "tokenizer_config.json") == ORLI_NONE) orli_save_config(tok, &s);
    if (s.length && !s.failed && orli_join(ctx, path, dir, "tokenizer_config.json") == ORL_OK)
        orli_write_file(ctx, path, s.data, s.length);
    orli_str_free(&s);
    return orl_error_status(ctx);
}
#endif /* section 10 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 11
/* =================================================================================================
 * >>model   11. MODEL: transformers of nine families, language or reward head; adapters; frozen weights
 * =================================================================================================
 * Purpose:    one forward pass for every family and use; weights in from and out to Hugging Face
 *             directories, out to GGUF; low-rank adapters in PEFT's layout.
 * Depends on: tensor, formats, tokenizer.   Owns: a model owns its parameters and its adapter, not its
 *             tokenizer. Frozen weights belong to all copies that read them.
 * Invariants: what differs between families is data: a table of weights with their names on disk. A block
 *             computes what its weights imply. A file's config is taken in full or refused with the key's
 *             name and value; a missing, odd-shaped or superfluous tensor is an error.
 * Source:     GPT-2: Radford et al. 2019; Llama: Touvron et al., arXiv 2302.13971; grouped queries:
 *             Ainslie et al., arXiv 2305.13245; the others: the modeling files of transformers 5.
 * Tested by:  tests/test_11_model.c, test_11_families.c, test_11_lora.c, test_11_int8.c, test_11_gguf.c,
 *             test_golden.c */

/* ---- 11.1 families: the weights of a block, and of the whole ---- */

typedef enum orli_weight {
    ORLI_W_EMBED, ORLI_W_POSITION, ORLI_W_NORM, ORLI_W_NORM_B, ORLI_W_HEAD, ORLI_W_SCORE, /* once */
    ORLI_W_NORM1, ORLI_W_NORM1_B, ORLI_W_Q, ORLI_W_K, ORLI_W_V, ORLI_W_O,                  /* per layer */
    ORLI_W_Q_B, ORLI_W_K_B, ORLI_W_V_B, ORLI_W_O_B, ORLI_W_NORM2, ORLI_W_NORM2_B,
    ORLI_W_GATE, ORLI_W_UP, ORLI_W_UP_B, ORLI_W_DOWN, ORLI_W_DOWN_B,
    ORLI_W_Q_NORM, ORLI_W_K_NORM, ORLI_W_POST1, ORLI_W_POST2, ORLI_W_GATE_B,
    ORLI_W_COUNT /* also: none. The numbers name streams of random numbers: add new ones here. */
} orli_weight;
#define ORLI_W_FIRST_OF_LAYER ORLI_W_NORM1
#define ORLI_W_PER_LAYER (ORLI_W_COUNT - ORLI_W_FIRST_OF_LAYER)

typedef enum orli_layout { /* of a matrix on disk */
    ORLI_OUT_IN,   /* (out, in), as we have it */
    ORLI_IN_OUT,   /* transposed: GPT-2 */
    ORLI_HEADWISE  /* of a fused q, k, v: each head's q, k, v follow each other (GPT-NeoX); else all q, all k, all v */
} orli_layout;

typedef enum orli_when { ORLI_ALWAYS, ORLI_IF_ATTENTION_BIAS, ORLI_IF_MLP_BIAS } orli_when;

typedef struct orli_weight_row {
    orli_weight weight;
    const char *name;   /* on disk; %zu is the layer; the prefix of the family may stand before it */
    orli_layout layout;
    int third;          /* 1, 2, 3: a third of a fused q, k, v; 0: all of it */
    orli_when when;
} orli_weight_row;

#define ORLI_ROWS_HEADS /* they stand outside the trunk */ \
    {ORLI_W_HEAD, "lm_head.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_SCORE, "score.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_COUNT, NULL, ORLI_OUT_IN, 0, ORLI_ALWAYS}

#define ORLI_ROWS_LLAMA /* what all of Llama's kin have */ \
    {ORLI_W_EMBED, "embed_tokens.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM, "norm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM1, "layers.%zu.input_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_Q, "layers.%zu.self_attn.q_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_K, "layers.%zu.self_attn.k_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_V, "layers.%zu.self_attn.v_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_O, "layers.%zu.self_attn.o_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_GATE, "layers.%zu.mlp.gate_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_UP, "layers.%zu.mlp.up_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_DOWN, "layers.%zu.mlp.down_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    ORLI_ROWS_HEADS
#define ORLI_ROWS_QKV_BIAS(when) \
    {ORLI_W_Q_B, "layers.%zu.self_attn.q_proj.bias", ORLI_OUT_IN, 0, when}, \
    {ORLI_W_K_B, "layers.%zu.self_attn.k_proj.bias", ORLI_OUT_IN, 0, when}, \
    {ORLI_W_V_B, "layers.%zu.self_attn.v_proj.bias", ORLI_OUT_IN, 0, when}
#define ORLI_ROWS_ATTENTION_BIAS \
    ORLI_ROWS_QKV_BIAS(ORLI_IF_ATTENTION_BIAS), \
    {ORLI_W_O_B, "layers.%zu.self_attn.o_proj.bias", ORLI_OUT_IN, 0, ORLI_IF_ATTENTION_BIAS}
#define ORLI_ROW_NORM2 {ORLI_W_NORM2, "layers.%zu.post_attention_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}
#define ORLI_ROWS_QK_NORM \
    {ORLI_W_Q_NORM, "layers.%zu.self_attn.q_norm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_K_NORM, "layers.%zu.self_attn.k_norm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}

static const orli_weight_row orli_weights_llama[] = {
    ORLI_ROW_NORM2, ORLI_ROWS_ATTENTION_BIAS,
    {ORLI_W_GATE_B, "layers.%zu.mlp.gate_proj.bias", ORLI_OUT_IN, 0, ORLI_IF_MLP_BIAS},
    {ORLI_W_UP_B, "layers.%zu.mlp.up_proj.bias", ORLI_OUT_IN, 0, ORLI_IF_MLP_BIAS},
    {ORLI_W_DOWN_B, "layers.%zu.mlp.down_proj.bias", ORLI_OUT_IN, 0, ORLI_IF_MLP_BIAS},
    ORLI_ROWS_LLAMA};

static const orli_weight_row orli_weights_mistral[] = {ORLI_ROW_NORM2, ORLI_ROWS_LLAMA};

static const orli_weight_row orli_weights_qwen2[] = {ORLI_ROW_NORM2, ORLI_ROWS_QKV_BIAS(ORLI_ALWAYS), ORLI_ROWS_LLAMA};

static const orli_weight_row orli_weights_qwen3[] = {ORLI_ROW_NORM2, ORLI_ROWS_QK_NORM, ORLI_ROWS_ATTENTION_BIAS,
                                                     ORLI_ROWS_LLAMA};

static const orli_weight_row orli_weights_gemma3[] = { /* its post_attention_layernorm is another thing than Llama's */
    {ORLI_W_POST1, "layers.%zu.post_attention_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM2, "layers.%zu.pre_feedforward_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_POST2, "layers.%zu.post_feedforward_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    ORLI_ROWS_QK_NORM, ORLI_ROWS_ATTENTION_BIAS, ORLI_ROWS_LLAMA};

#define ORLI_ROWS_GPT /* what GPT-2 and GPT-Neo share */ \
    {ORLI_W_EMBED, "wte.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_POSITION, "wpe.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM, "ln_f.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM_B, "ln_f.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM1, "h.%zu.ln_1.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM1_B, "h.%zu.ln_1.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM2, "h.%zu.ln_2.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_NORM2_B, "h.%zu.ln_2.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_UP_B, "h.%zu.mlp.c_fc.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    {ORLI_W_DOWN_B, "h.%zu.mlp.c_proj.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS}, \
    ORLI_ROWS_HEADS

static const orli_weight_row orli_weights_gpt2[] = {
    {ORLI_W_Q, "h.%zu.attn.c_attn.weight", ORLI_IN_OUT, 1, ORLI_ALWAYS},
    {ORLI_W_K, "h.%zu.attn.c_attn.weight", ORLI_IN_OUT, 2, ORLI_ALWAYS},
    {ORLI_W_V, "h.%zu.attn.c_attn.weight", ORLI_IN_OUT, 3, ORLI_ALWAYS},
    {ORLI_W_Q_B, "h.%zu.attn.c_attn.bias", ORLI_OUT_IN, 1, ORLI_ALWAYS},
    {ORLI_W_K_B, "h.%zu.attn.c_attn.bias", ORLI_OUT_IN, 2, ORLI_ALWAYS},
    {ORLI_W_V_B, "h.%zu.attn.c_attn.bias", ORLI_OUT_IN, 3, ORLI_ALWAYS},
    {ORLI_W_O, "h.%zu.attn.c_proj.weight", ORLI_IN_OUT, 0, ORLI_ALWAYS},
    {ORLI_W_O_B, "h.%zu.attn.c_proj.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_UP, "h.%zu.mlp.c_fc.weight", ORLI_IN_OUT, 0, ORLI_ALWAYS},
    {ORLI_W_DOWN, "h.%zu.mlp.c_proj.weight", ORLI_IN_OUT, 0, ORLI_ALWAYS},
    ORLI_ROWS_GPT};

static const orli_weight_row orli_weights_gpt_neo[] = {
    {ORLI_W_Q, "h.%zu.attn.attention.q_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_K, "h.%zu.attn.attention.k_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_V, "h.%zu.attn.attention.v_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_O, "h.%zu.attn.attention.out_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_O_B, "h.%zu.attn.attention.out_proj.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_UP, "h.%zu.mlp.c_fc.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_DOWN, "h.%zu.mlp.c_proj.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    ORLI_ROWS_GPT};

static const orli_weight_row orli_weights_gpt_neox[] = {
    {ORLI_W_EMBED, "embed_in.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM, "final_layer_norm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM_B, "final_layer_norm.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM1, "layers.%zu.input_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM1_B, "layers.%zu.input_layernorm.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_Q, "layers.%zu.attention.query_key_value.weight", ORLI_HEADWISE, 1, ORLI_ALWAYS},
    {ORLI_W_K, "layers.%zu.attention.query_key_value.weight", ORLI_HEADWISE, 2, ORLI_ALWAYS},
    {ORLI_W_V, "layers.%zu.attention.query_key_value.weight", ORLI_HEADWISE, 3, ORLI_ALWAYS},
    {ORLI_W_Q_B, "layers.%zu.attention.query_key_value.bias", ORLI_HEADWISE, 1, ORLI_IF_ATTENTION_BIAS},
    {ORLI_W_K_B, "layers.%zu.attention.query_key_value.bias", ORLI_HEADWISE, 2, ORLI_IF_ATTENTION_BIAS},
    {ORLI_W_V_B, "layers.%zu.attention.query_key_value.bias", ORLI_HEADWISE, 3, ORLI_IF_ATTENTION_BIAS},
    {ORLI_W_O, "layers.%zu.attention.dense.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_O_B, "layers.%zu.attention.dense.bias", ORLI_OUT_IN, 0, ORLI_IF_ATTENTION_BIAS},
    {ORLI_W_NORM2, "layers.%zu.post_attention_layernorm.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_NORM2_B, "layers.%zu.post_attention_layernorm.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_UP, "layers.%zu.mlp.dense_h_to_4h.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_UP_B, "layers.%zu.mlp.dense_h_to_4h.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_DOWN, "layers.%zu.mlp.dense_4h_to_h.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_DOWN_B, "layers.%zu.mlp.dense_4h_to_h.bias", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_HEAD, "embed_out.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_SCORE, "score.weight", ORLI_OUT_IN, 0, ORLI_ALWAYS},
    {ORLI_W_COUNT, NULL, ORLI_OUT_IN, 0, ORLI_ALWAYS}};

#define ORLI_NORM_PLUS_ONE 1    /* RMSNorm's weights are stored less 1 */
#define ORLI_SCALED_EMBEDDING 2 /* … by √dim, but not where it is the head */

/* A family is its weights and a few words. The rest follows from the weights: with a norm's bias it is a LayerNorm,
 * else an RMSNorm; with positions they are learned, else rotary; with a gate the feed-forward has one; a bias, a norm
 * of heads or of a branch's result that is not there is not applied. */
typedef struct orli_family {
    const char *model_type, *prefix, *causal, *classifier; /* config.json's words */
    const orli_weight_row *weights;
    int traits;
} orli_family;

static const orli_family orli_families[] = { /* by orl_arch */
    {"gpt2", "transformer.", "GPT2LMHeadModel", "GPT2ForSequenceClassification", orli_weights_gpt2, 0},
    {"llama", "model.", "LlamaForCausalLM", "LlamaForSequenceClassification", orli_weights_llama, 0},
    {"gpt_neo", "transformer.", "GPTNeoForCausalLM", "GPTNeoForSequenceClassification", orli_weights_gpt_neo, 0},
    {"gpt_neox", "gpt_neox.", "GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification", orli_weights_gpt_neox, 0},
    {"mistral", "model.", "MistralForCausalLM", "MistralForSequenceClassification", orli_weights_mistral, 0},
    {"qwen2", "model.", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", orli_weights_qwen2, 0},
    {"qwen3", "model.", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification", orli_weights_qwen3, 0},
    {"smollm3", "model.", "SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification", orli_weights_llama, 0},
    {"gemma3_text", "model.", "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification", orli_weights_gemma3,
     ORLI_NORM_PLUS_ONE | ORLI_SCALED_EMBEDDING}};
#define ORLI_FAMILIES (sizeof orli_families / sizeof *orli_families)

/* The line of a family's table for a weight; NULL if it has none. */
static const orli_weight_row *orli_weight_find(orl_arch arch, orli_weight w) {
    const orli_weight_row *row = orli_families[arch].weights;
    while (row->name && row->weight != w) row++;
    return row->name ? row : NULL;
}

/* How a model is conditioned on its reward (section 15); config.json carries it as orl_condition. */
typedef struct orli_condition {
    orl_condition_kind kind;
    char format[128];      /* text */
    int decimals;
    size_t bins;           /* bins: tokens first_id … first_id + bins − 1, then one for "not told" */
    int32_t first_id;
    double mean, sd;       /* of the raw rewards it was trained on */
    double quantile[101];  /* of the normalised ones */
    double target;         /* asked for by default */
    int ranked;            /* conditions are ranks in −3 … 3, not rewards */
} orli_condition;

struct orl_model {
    orli_object object;
    orl_model_config config;
    orl_params *params;
    orl_tokenizer *tokenizer;
    char name[64];
    char *from;                       /* the directory it was loaded from, or NULL */
    int reward;                       /* reads score.weight, not the language head */
    double reward_mean, reward_sd;    /* of its scores: normalisation */
    size_t classes;                   /* tokens that compete: vocab less the condition's own */
    int32_t stop[8];                  /* ids that end a response; the first is appended in training */
    size_t stops;
    orli_condition condition;
    orl_param **weight;               /* by orli_slot(); NULL where the family has none */
    int frozen;                       /* matrices may be bf16 */
    orl_params *adapter;              /* LoRA's A and B (and a reward head); empty: none */
    orl_param **down, **up;           /* A and B, by orli_slot(); NULL where there is none */
    orl_lora_options lora;            /* targets: its own copy */
    orli_kept kept;                   /* the configuration it came with */
};

static size_t orli_slot(orli_weight w, size_t layer) {
    return (size_t)w < ORLI_W_FIRST_OF_LAYER ? (size_t)w : (size_t)w + layer * ORLI_W_PER_LAYER;
}
static orl_param *orli_model_weight(const orl_model *m, orli_weight w, size_t layer) {
    return w == ORLI_W_COUNT ? NULL : m->weight[orli_slot(w, layer)];
}

/* (rows, cols) of a weight, and whether a model has it. */
static int orli_weight_shape(const orl_model *m, orli_weight w, size_t *rows, size_t *cols) {
    const orl_model_config *c = &m->config;
    const orli_weight_row *row = orli_weight_find(c->arch, w);
    size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    *rows = 1, *cols = c->dim;
    switch (w) {
    case ORLI_W_EMBED: case ORLI_W_HEAD: *rows = c->vocab; break;
    case ORLI_W_POSITION: *rows = c->context; break;
    case ORLI_W_Q: *rows = q; break;
    case ORLI_W_K: case ORLI_W_V: *rows = kv; break;
    case ORLI_W_O: *rows = c->dim, *cols = q; break;
    case ORLI_W_Q_B: *cols = q; break;
    case ORLI_W_K_B: case ORLI_W_V_B: *cols = kv; break;
    case ORLI_W_Q_NORM: case ORLI_W_K_NORM: *cols = c->head_dim; break;
    case ORLI_W_GATE: case ORLI_W_UP: *rows = c->ffn; break;
    case ORLI_W_GATE_B: case ORLI_W_UP_B: *cols = c->ffn; break;
    case ORLI_W_DOWN: *rows = c->dim, *cols = c->ffn; break;
    default: break; /* the other norms and biases */
    }
    if (!row || (row->when == ORLI_IF_ATTENTION_BIAS && !c->attention_bias) ||
        (row->when == ORLI_IF_MLP_BIAS && !c->mlp_bias))
        return 0;
    return w == ORLI_W_HEAD ? !c->tied && !m->reward : w == ORLI_W_SCORE ? m->reward : 1;
}

/* ---- 11.2 making models ---- */

ORL_API orl_model_config orl_model_config_default(orl_arch arch) {
    orl_model_config c;
    size_t i;
    memset(&c, 0, sizeof c);
    c.arch = arch;
    c.vocab = 512, c.dim = 128, c.layers = 4, c.heads = 4, c.kv_heads = 4, c.context = 256;
    c.ffn = arch == ORL_GPT2 || arch == ORL_GPT_NEO || arch == ORL_GPT_NEOX ? 512 : 344;
    c.norm_eps = 1e-5;
    c.tied = 1;
    c.bos = c.eos = -1;
    c.rope.theta = 10000.0;
    c.activation = arch == ORL_GPT2 || arch == ORL_GPT_NEO || arch == ORL_GEMMA3 ? ORL_GELU
                   : arch == ORL_GPT_NEOX                                        ? ORL_GELU_ERF
                                                                                 : ORL_SILU;
    if (arch == ORL_GPT_NEO) c.query_scalar = 1, c.window = 64;
    if (arch == ORL_GPT_NEOX) c.parallel = c.attention_bias = 1, c.rope.width = 8;
    if (arch == ORL_MISTRAL || arch == ORL_GEMMA3) c.window = 64;
    if (arch == ORL_GEMMA3) c.rope.theta = 1e6, c.local_theta = 10000.0;
    for (i = 0; i < ORL_MAX_LAYERS; i++) {
        if (arch == ORL_MISTRAL || (arch == ORL_GPT_NEO && i % 2) || (arch == ORL_GEMMA3 && (i + 1) % 6))
            c.layer[i] = ORL_LAYER_LOCAL;
        if (arch == ORL_SMOLLM3 && (i + 1) % 4 == 0) c.layer[i] = ORL_LAYER_UNROTATED;
    }
    return c;
}

static int orli_is_rotary(orl_arch arch) { return !orli_weight_find(arch, ORLI_W_POSITION); }

/* Everything a model needs to be sound; the names are config.json's. Fills in what 0 stands for. */
static orl_status orli_config_check(orl_ctx *ctx, orl_model_config *c, const char *where) {
    const char *bad = NULL;
    if ((size_t)c->arch >= ORLI_FAMILIES) bad = "arch is none of orl_arch";
    else if (!c->dim || c->dim > (1u << 20)) bad = "hidden_size must be 1 to 1048576";
    else if (!c->layers || c->layers > ORL_MAX_LAYERS) bad = "num_hidden_layers must be 1 to 1024";
    else if (!c->heads || c->heads > (1u << 16)) bad = "num_attention_heads must be 1 to 65536";
    else if (!c->head_dim && c->dim % c->heads) bad = "num_attention_heads must divide hidden_size";
    else if (!c->kv_heads || c->heads % c->kv_heads) bad = "num_key_value_heads must divide num_attention_heads";
    if (!bad && !c->head_dim) c->head_dim = c->dim / c->heads;
    if (!bad && orli_is_rotary(c->arch) && !c->rope.width) c->rope.width = c->head_dim;
    if (bad) {}
    else if (c->head_dim > 256) bad = "a head may be 256 wide at most (head_dim)";
    else if (orli_is_rotary(c->arch) && (c->rope.width % 2 || c->rope.width > c->head_dim))
        bad = "the width of a head (head_dim), or of its part that rotates, must be even";
    else if (!c->ffn || c->ffn > (1u << 24)) bad = "intermediate_size must be 1 to 16777216";
    else if (!c->vocab || c->vocab > (1u << 26)) bad = "vocab_size must be 1 to 67108864";
    else if (!c->context || c->context > (1u << 26)) bad = "max_position_embeddings must be 1 to 67108864";
    else if (!(c->norm_eps >= 0 && c->norm_eps < 1)) bad = "the norm's epsilon must be 0 to 1";
    else if (!(c->rope.theta > 0) || !(c->local_theta >= 0)) bad = "rope_theta must be positive";
    else if (!(c->rope.factor >= 0) || (c->rope.original && !(c->rope.low > 0 && c->rope.high > c->rope.low)))
        bad = "rope_scaling needs a positive factor, and low_freq_factor below high_freq_factor";
    else if (!(c->query_scalar >= 0)) bad = "query_pre_attn_scalar must be positive";
    else if (orli_weight_find(c->arch, ORLI_W_Q)->third && c->kv_heads != c->heads)
        bad = "GPT-2 and GPT-NeoX have as many key heads as heads";
    return bad ? orli_fail(ctx, ORL_ERR_ARGUMENT, "%s: %s", where, bad) : ORL_OK;
}

static void orli_model_destroy(orli_object *object) {
    orl_model *m = (orl_model *)object;
    orli_free(object->ctx, m->weight);
    orli_kept_free(object->ctx, &m->kept);
    orli_free(object->ctx, m->from);
    orli_free(object->ctx, m->down);
    orli_free(object->ctx, m->up);
    orli_free(object->ctx, (char *)(uintptr_t)m->lora.targets);
    if (m->adapter) orli_object_free(&m->adapter->object);
    if (m->params) orli_object_free(&m->params->object);
}

static void orli_weight_name(char *name, size_t size, const orli_weight_row *row, const char *prefix, size_t layer) {
    int bare = row->weight == ORLI_W_HEAD || row->weight == ORLI_W_SCORE; /* the heads stand outside the trunk */
    int n = snprintf(name, size, "%s", bare ? "" : prefix);
    if ((int)row->weight < ORLI_W_FIRST_OF_LAYER) snprintf(name + n, size - (size_t)n, "%s", row->name);
    else {
        const char *mark = strstr(row->name, "%zu"); /* the layer's number goes there */
        snprintf(name + n, size - (size_t)n, "%.*s%zu%s", (int)(mark - row->name), row->name, layer, mark + 3);
    }
}

/* A parameter's name: that on disk, and for a third of a fused tensor which one. */
static void orli_param_name(char *name, size_t size, orl_arch arch, orli_weight w, size_t layer) {
    static const char *const third[] = {"", ".q", ".k", ".v"};
    const orli_weight_row *row = orli_weight_find(arch, w);
    orli_weight_name(name, size, row, orli_families[arch].prefix, layer);
    snprintf(name + strlen(name), size - strlen(name), "%s", third[row->third]);
}

/* A model with zero weights; of a bare one, matrices have no numbers yet, but for a reward model's head. */
static orl_model *orli_model_new(orl_ctx *ctx, const orl_model_config *config, orl_tokenizer *tok, int reward,
                                 int bare) {
    orl_model *m;
    orl_params *params, *adapter;
    size_t w, layer, rows, cols;
    char name[200];
    /* before the model, so that a context, which frees the newest first, frees the model first */
    params = orl_params_create(ctx);
    adapter = orl_params_create(ctx);
    m = (orl_model *)orli_object_create(ctx, sizeof *m, orli_model_destroy);
    if (!m) return NULL;
    m->config = *config, m->params = params, m->adapter = adapter, m->tokenizer = tok, m->reward = reward;
    m->reward_sd = 1, m->classes = config->vocab;
    if (config->eos >= 0) m->stop[m->stops++] = config->eos;
    snprintf(m->name, sizeof m->name, "model");
    m->weight = (orl_param **)orli_alloc_zero(ctx, ORLI_W_FIRST_OF_LAYER + config->layers * ORLI_W_PER_LAYER,
                                              sizeof *m->weight);
    for (layer = 0; layer < config->layers && m->weight && m->params; layer++) {
        for (w = layer ? ORLI_W_FIRST_OF_LAYER : 0; w < ORLI_W_COUNT; w++) {
            orl_param *p;
            if (!orli_weight_shape(m, (orli_weight)w, &rows, &cols)) continue;
            orli_param_name(name, sizeof name, config->arch, (orli_weight)w, layer);
            p = orli_param_add(m->params, name, rows, cols, rows > 1 || w == ORLI_W_SCORE ? 2 : 1);
            if (p && (!bare || p->rank < 2 || w == ORLI_W_SCORE)) orli_param_alloc(p);
            m->weight[orli_slot((orli_weight)w, layer)] = p;
        }
    }
    if (!orl_failed(ctx)) return m;
    orli_object_free(&m->object);
    return NULL;
}

static void orli_fill_normal(orl_param *p, double sd, uint64_t seed, uint64_t stream) {
    orli_rng r = orli_rng_new(seed, stream);
    size_t i;
    for (i = 0; i < p->rows * p->cols; i++) p->data[i] = (orl_real)(sd * orli_rng_normal(&r));
    p->version++;
}

static int orli_is_norm(orli_weight w) {
    return w == ORLI_W_NORM || w == ORLI_W_NORM1 || w == ORLI_W_NORM2 || w == ORLI_W_POST1 || w == ORLI_W_POST2 ||
           w == ORLI_W_Q_NORM || w == ORLI_W_K_NORM;
}

ORL_API orl_model *orl_model_create(orl_ctx *ctx, const orl_model_config *config, orl_tokenizer *tok) {
    orl_model_config c;
    orl_model *m;
    size_t layer, w, i;
    if (orl_failed(ctx)) return NULL;
    if (!config) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_model_create: config is NULL: start from orl_model_config_default()");
        return NULL;
    }
    c = *config;
    if (orli_config_check(ctx, &c, "orl_model_create") != ORL_OK) return NULL;
    if (tok && orl_vocab(tok) > config->vocab) {
        orli_fail(ctx, ORL_ERR_MISMATCH,
                  "orl_model_create: the tokenizer has %zu tokens and the model only %zu: set config.vocab",
                  orl_vocab(tok), config->vocab);
        return NULL;
    }
    m = orli_model_new(ctx, &c, tok, 0, 0);
    if (!m) return NULL;
    if (config->eos < 0 && tok && orl_eos(tok) >= 0) m->config.eos = m->stop[m->stops++] = orl_eos(tok);
    if (config->bos < 0 && tok) m->config.bos = orl_bos(tok);
    for (layer = 0; layer < config->layers; layer++) {
        for (w = layer ? ORLI_W_FIRST_OF_LAYER : 0; w < ORLI_W_COUNT; w++) {
            orl_param *p = orli_model_weight(m, (orli_weight)w, layer);
            int residual = w == ORLI_W_O || w == ORLI_W_DOWN; /* scaled down, GPT-2 section 2.3 */
            int norm = orli_is_norm((orli_weight)w) && !(orli_families[c.arch].traits & ORLI_NORM_PLUS_ONE);
            if (!p) continue;
            for (i = 0; norm && i < p->cols; i++) p->data[i] = 1;
            if (p->rank >= 2)
                orli_fill_normal(p, residual ? 0.02 / sqrt(2.0 * (double)config->layers) : 0.02, ctx->config.seed,
                                 (layer << 8) + w);
        }
    }
    return m;
}

static size_t orli_model_slots(const orl_model *m) {
    return ORLI_W_FIRST_OF_LAYER + m->config.layers * ORLI_W_PER_LAYER;
}

/* b's numbers into a, or if they are bf16 the same array. */
static orl_status orli_param_copy(orl_param *a, const orl_param *b) {
    if (orli_param_stored(b)) orli_param_set_store(a, b->store, b->half, b->int8);
    else {
        if (!a->data) a->data = (orl_real *)orli_alloc(a->set->object.ctx, a->rows * a->cols, sizeof(orl_real));
        if (a->data) memcpy(a->data, b->data, a->rows * a->cols * sizeof(orl_real)), a->version++;
    }
    return orl_error_status(a->set->object.ctx);
}

static orl_status orli_copy_weights(orl_model *to, const orl_model *from) {
    size_t i, n = orli_model_slots(to);
    for (i = 0; i < n; i++)
        if (to->weight[i] && from->weight[i] && orli_param_copy(to->weight[i], from->weight[i]) != ORL_OK)
            return orl_error_status(to->object.ctx);
    return ORL_OK;
}

/* ---- low-rank adapters ---- */

ORL_API orl_lora_options orl_lora_default(void) {
    orl_lora_options o;
    memset(&o, 0, sizeof o);
    o.rank = 8, o.alpha = 16;
    return o;
}

ORL_API int orl_has_lora(const orl_model *m) { return m && m->adapter->first; }

/* The parameters that training changes. */
static orl_params *orli_model_trained(const orl_model *m) { return orl_has_lora(m) ? m->adapter : m->params; }

static double orli_lora_scale(const orl_model *m) {
    return m->lora.alpha / (m->lora.root ? sqrt((double)m->lora.rank) : (double)m->lora.rank);
}

/* Is a row of the family's table one of a linear layer in a block? */
static int orli_is_linear(orli_weight w) {
    return w == ORLI_W_Q || w == ORLI_W_K || w == ORLI_W_V || w == ORLI_W_O || w == ORLI_W_GATE || w == ORLI_W_UP ||
           w == ORLI_W_DOWN;
}

/* The name of its module: that of the weight without the last word. */
static void orli_module_name(char *name, size_t size, const orli_weight_row *row, const char *prefix, size_t layer) {
    orli_weight_name(name, size, row, prefix, layer);
    *strrchr(name, '.') = 0;
}

/* Does a module's name end with one of the targets? */
static int orli_lora_wants(const char *targets, const char *module) {
    size_t n = strlen(module), length;
    const char *at;
    for (at = targets; at; at = at[length] ? at + length + 1 : NULL) {
        while (*at == ' ') at++;
        length = strcspn(at, ",");
        if (length && length <= n && strncmp(module + n - length, at, length) == 0 &&
            (length == n || module[n - length - 1] == '.'))
            return 1;
    }
    return !targets;
}

/* A and B of one layer. Thirds of a fused tensor share their A, as that is one module. */
static orl_status orli_lora_add_layer(orl_model *m, const orli_weight_row *row, size_t layer) {
    static const char *const third[] = {"", ".q", ".k", ".v"};
    const orl_param *w = orli_model_weight(m, row->weight, layer);
    size_t slot = orli_slot(row->weight, layer), i;
    orl_param *down;
    double bound = 1.0 / sqrt((double)w->cols);
    orli_rng r = orli_rng_new(m->object.ctx->config.seed, 0x10ca000000u + slot);
    char module[160], name[200];
    orli_module_name(module, sizeof module, row, orli_families[m->config.arch].prefix, layer);
    snprintf(name, sizeof name, "%s.lora_A", module);
    if (row->third > 1) m->down[slot] = m->down[slot - (size_t)row->third + 1];
    else {
        m->down[slot] = down = orl_param_add(m->adapter, name, m->lora.rank, w->cols, 2);
        for (i = 0; down && i < down->rows * down->cols; i++)
            down->data[i] = (orl_real)(bound * (2 * orli_rng_uniform(&r) - 1));
    }
    snprintf(name, sizeof name, "%s.lora_B%s", module, third[row->third]);
    m->up[slot] = orl_param_add(m->adapter, name, w->rows, m->lora.rank, 2);
    return orl_error_status(m->object.ctx);
}

/* The reward head moves to what is trained, and back. */
static void orli_lora_take_head(orl_model *m) {
    orl_param *head = orl_param_add(m->adapter, "score.weight", 1, m->config.dim, 2);
    if (head) orli_param_copy(head, m->weight[ORLI_W_SCORE]), m->weight[ORLI_W_SCORE] = head;
}
static void orli_lora_drop(orl_model *m) {
    size_t slots = orli_model_slots(m);
    if (m->reward) {
        orl_param *head = orl_param_find(m->params, "score.weight");
        if (head != m->weight[ORLI_W_SCORE]) orli_param_copy(head, m->weight[ORLI_W_SCORE]);
        m->weight[ORLI_W_SCORE] = head;
    }
    orli_params_clear(m->adapter);
    if (m->down) memset(m->down, 0, slots * sizeof *m->down);
    if (m->up) memset(m->up, 0, slots * sizeof *m->up);
}

ORL_API orl_status orl_lora_add(orl_model *m, const orl_lora_options *options) {
    orl_lora_options o = options ? *options : orl_lora_default();
    orl_ctx *ctx = orl_model_ctx(m);
    const orli_weight_row *row;
    size_t layer, found = 0, rows, cols;
    char module[160];
    if (!m || orl_failed(ctx)) return orl_error_status(ctx);
    if (orl_has_lora(m))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_lora_add: %s has an adapter: merge it first", m->name);
    if (!o.rank || o.rank > m->config.dim || !(o.alpha > 0))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_lora_add: rank must be 1 to %zu and alpha positive",
                         m->config.dim);
    if (m->params->grads)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_lora_add: %s is being trained: add the adapter before", m->name);
    if (!m->down) m->down = (orl_param **)orli_alloc_zero(ctx, orli_model_slots(m), sizeof *m->down);
    if (!m->up) m->up = (orl_param **)orli_alloc_zero(ctx, orli_model_slots(m), sizeof *m->up);
    orli_free(ctx, (char *)(uintptr_t)m->lora.targets);
    m->lora = o;
    m->lora.targets = o.targets ? orli_copy_string(ctx, o.targets) : NULL;
    for (layer = 0; layer < m->config.layers; layer++)
        for (row = orli_families[m->config.arch].weights; row->name && !orl_failed(ctx); row++) {
            if (!orli_is_linear(row->weight) || !orli_weight_shape(m, row->weight, &rows, &cols)) continue;
            orli_module_name(module, sizeof module, row, "", layer);
            if (orli_lora_wants(m->lora.targets, module)) orli_lora_add_layer(m, row, layer), found++;
        }
    if (!found)
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_lora_add: no linear layer of a %s model is called \"%s\": %s is",
                  orli_families[m->config.arch].model_type, o.targets, strrchr(module, '.') + 1);
    if (m->reward && !orl_failed(ctx)) orli_lora_take_head(m);
    if (orl_failed(ctx)) orli_lora_drop(m);
    return orl_error_status(ctx);
}

/* W += scale·B·A, in floats. */
static orl_status orli_lora_merge_layer(orl_model *m, size_t slot) {
    orl_ctx *ctx = m->object.ctx;
    orl_param *w = m->weight[slot], *up = m->up[slot], *down = m->down[slot];
    size_t n = up->rows * up->cols;
    orl_real *scaled = (orl_real *)orli_alloc(ctx, n, sizeof *scaled);
    if (!scaled || orli_param_widen(w) != ORL_OK) {
        orli_free(ctx, scaled);
        return orl_error_status(ctx);
    }
    memcpy(scaled, up->data, n * sizeof *scaled);
    ctx->kernels->scale(n, scaled, (orl_real)orli_lora_scale(m));
    orli_gemm(ctx, w->rows, w->cols, up->cols, orli_mat_of(scaled, up->cols, 1), orli_mat_of(down->data, w->cols, 1),
              w->data, w->cols, 1);
    w->version++;
    orli_free(ctx, scaled);
    return ORL_OK;
}

ORL_API orl_status orl_lora_merge(orl_model *m) {
    orl_ctx *ctx = orl_model_ctx(m);
    size_t slot;
    if (!m || orl_failed(ctx) || !orl_has_lora(m)) return orl_error_status(ctx);
    for (slot = 0; slot < orli_model_slots(m); slot++)
        if (m->up[slot] && orli_lora_merge_layer(m, slot) != ORL_OK) return orl_error_status(ctx);
    orli_lora_drop(m);
    return ORL_OK;
}

/* ---- copies ---- */

static orl_model *orli_model_like(const orl_model *m, int reward) {
    orl_model *copy = orli_model_new(m->object.ctx, &m->config, m->tokenizer, reward, 1);
    orl_param *a;
    const orl_param *b;
    if (!copy) return NULL;
    copy->frozen = m->frozen;
    copy->classes = m->classes;
    copy->condition = m->condition;
    copy->stops = m->stops;
    memcpy(copy->stop, m->stop, sizeof m->stop);
    memcpy(copy->name, m->name, sizeof m->name);
    if (m->from) copy->from = orli_copy_string(m->object.ctx, m->from);
    orli_kept_copy(m->object.ctx, &copy->kept, &m->kept);
    orli_copy_weights(copy, m);
    if (orl_has_lora(m) && orl_lora_add(copy, &m->lora) == ORL_OK)
        for (b = m->adapter->first; b; b = b->next)
            if ((a = orl_param_find(copy->adapter, b->name)) != NULL) orli_param_copy(a, b);
    if (!orl_failed(m->object.ctx)) return copy;
    orl_model_free(copy);
    return NULL;
}

static orli_frozen *orli_frozen_new(orl_ctx *ctx, size_t bytes) {
    orli_frozen *h = (orli_frozen *)orli_alloc_zero(ctx, 1, sizeof *h);
    if (h && !(h->own = orli_alloc(ctx, bytes, 1))) orli_free(ctx, h), h = NULL;
    return h;
}

static orl_status orli_param_store(orl_param *p, int int8) { /* … its numbers in bf16 or int8, from now on */
    orl_ctx *ctx = p->set->object.ctx;
    const size_t n = orli_mul(p->rows, p->cols);
    orli_frozen *h;
    if (p->int8 || (p->half && !int8)) return ORL_OK;
    h = orli_frozen_new(ctx, int8 ? orli_int8_size(p->rows, p->cols) : orli_mul(n, sizeof(uint16_t)));
    if (!h) return orl_error_status(ctx);
    if (int8) orli_int8_pack(ctx, p->rows, p->cols, p->data, p->half, (int8_t *)h->own);
    else orli_tensor_from_real(ORLI_BF16, p->data, n, h->own);
    orli_param_set_store(p, h, int8 ? NULL : (const uint16_t *)h->own, int8 ? (const int8_t *)h->own : NULL);
    return ORL_OK;
}

static orl_status orli_model_store(orl_model *m, int int8) {
    orl_ctx *ctx = orl_model_ctx(m);
    orl_param *p;
    if (!m || orl_failed(ctx)) return orl_error_status(ctx);
    if (m->params->grads)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_model_store_%s: %s is being trained", int8 ? "int8" : "bf16",
                         m->name);
    m->frozen = 1; /* before the first is: memory may be short for the next */
    for (p = m->params->first; p; p = p->next) {
        if (p->rank < 2 || p == m->weight[ORLI_W_SCORE] || (int8 && p == m->weight[ORLI_W_POSITION])) continue;
        if (orli_param_store(p, int8) != ORL_OK) return orl_error_status(ctx);
    }
    return ORL_OK;
}
ORL_API orl_status orl_model_store_bf16(orl_model *m) { return orli_model_store(m, 0); }
ORL_API orl_status orl_model_store_int8(orl_model *m) { return orli_model_store(m, 1); }

ORL_API orl_model *orl_model_copy(const orl_model *m) {
    orl_model *copy;
    if (!m || orl_failed(m->object.ctx)) return NULL;
    copy = orli_model_like(m, m->reward);
    if (copy) copy->reward_mean = m->reward_mean, copy->reward_sd = m->reward_sd;
    return copy;
}

ORL_API orl_model *orl_reward_model(const orl_model *trunk) {
    orl_model *m;
    orl_param *score;
    if (!trunk || orl_failed(trunk->object.ctx)) return NULL;
    m = orli_model_like(trunk, 1);
    if (!m) return NULL;
    score = orli_model_weight(m, ORLI_W_SCORE, 0);
    orli_fill_normal(score, 1.0 / sqrt((double)m->config.dim + 1.0), m->object.ctx->config.seed, ORLI_W_SCORE);
    snprintf(m->name, sizeof m->name, "reward model");
    return m;
}

ORL_API void orl_model_free(orl_model *m) {
    if (m) orli_object_free(&m->object);
}
ORL_API orl_ctx *orl_model_ctx(const orl_model *m) { return m ? m->object.ctx : NULL; }
ORL_API const orl_model_config *orl_model_get_config(const orl_model *m) { return m ? &m->config : NULL; }
ORL_API orl_tokenizer *orl_model_tokenizer(const orl_model *m) { return m ? m->tokenizer : NULL; }
ORL_API orl_params *orl_model_params(orl_model *m) { return m ? orli_model_trained(m) : NULL; }
ORL_API int orl_is_reward_model(const orl_model *m) { return m && m->reward; }
ORL_API void orl_model_set_name(orl_model *m, const char *name) {
    if (m && name) snprintf(m->name, sizeof m->name, "%s", name);
}
ORL_API const char *orl_model_name(const orl_model *m) { return m ? m->name : ""; }

/* Appends `extra` rows to the embedding (and an untied head) for ordered condition tokens: on a line through
 * the mean of the others, from −1 to 1 times a random direction of their size; the last one is the mean
 * itself. Neighbours begin alike, so what one bin learns serves the next. Nothing must be training. */
static orl_status orli_model_grow(orl_model *m, size_t extra) {
    orl_ctx *ctx = m->object.ctx;
    orli_weight which[2] = {ORLI_W_EMBED, ORLI_W_HEAD};
    size_t k, r, c, old = m->config.vocab;
    orli_rng direction = orli_rng_new(ctx->config.seed, 0xb1a5);
    if (m->frozen || orl_has_lora(m))
        return orli_fail(ctx, ORL_ERR_ARGUMENT,
                         "%s: condition tokens need a trained embedding, which is frozen: condition by text", m->name);
    for (k = 0; k < 2; k++) {
        orl_param *p = orli_model_weight(m, which[k], 0);
        orl_real *data;
        if (!p) continue;
        data = (orl_real *)orli_alloc_zero(ctx, orli_mul(old + extra, p->cols), sizeof *data);
        if (!data) return ORL_ERR_MEMORY;
        memcpy(data, p->data, old * p->cols * sizeof *data);
        for (c = 0; c < p->cols; c++) {
            double mean = 0, square = 0, way, at;
            for (r = 0; r < old; r++) mean += (double)data[r * p->cols + c] / (double)old;
            for (r = 0; r < old; r++)
                square += ((double)data[r * p->cols + c] - mean) * ((double)data[r * p->cols + c] - mean);
            way = orli_rng_normal(&direction) * sqrt(square / (double)old);
            for (r = 0; r < extra; r++) {
                at = r + 1 == extra || extra < 3 ? 0 : 2.0 * (double)r / (double)(extra - 2) - 1.0;
                data[(old + r) * p->cols + c] = (orl_real)(mean + at * way);
            }
        }
        orli_free(ctx, p->data);
        orli_free(ctx, p->packed);
        p->data = data, p->packed = NULL, p->packed_version = 0;
        p->rows += extra, p->version++;
        m->params->count += extra * p->cols;
    }
    m->config.vocab += extra;
    return ORL_OK;
}

/* ---- 11.3 the forward pass ---- */

static orl_tensor *orli_weight_use(orl_tape *tape, const orl_model *m, orli_weight w, size_t layer) {
    orl_param *p = orli_model_weight(m, w, layer);
    return p ? orl_use(tape, p) : NULL;
}

/* x normalised; with a bias it is a LayerNorm. Of heads each by itself. */
static orl_tensor *orli_model_norm(orl_tape *tape, const orl_model *m, orl_tensor *x, orli_weight w, orli_weight bias,
                                   size_t layer) {
    orl_tensor *scale = orli_weight_use(tape, m, w, layer), *shift = orli_weight_use(tape, m, bias, layer);
    if (shift) return orl_layernorm(tape, x, scale, shift, m->config.norm_eps);
    if (orli_families[m->config.arch].traits & ORLI_NORM_PLUS_ONE) scale = orl_shift(tape, scale, 1);
    return orl_rmsnorm(tape, x, scale, m->config.norm_eps);
}

static orl_tensor *orli_model_linear(orl_tape *tape, const orl_model *m, orl_tensor *x, orli_weight w, orli_weight bias,
                                     size_t layer) {
    orl_tensor *y, *low;
    orl_param *down = m->down ? m->down[orli_slot(w, layer)] : NULL;
    y = orl_linear(tape, x, orli_weight_use(tape, m, w, layer), orli_weight_use(tape, m, bias, layer));
    if (!down) return y;
    low = orl_scale(tape, orl_linear(tape, x, orl_use(tape, down), NULL), orli_lora_scale(m));
    return orli_linear_onto(tape, y, low, orl_use(tape, m->up[orli_slot(w, layer)]));
}

/* x + h·Wᵀ + b, the product normalised first where there is a weight for it. It is read by nothing else. */
static orl_tensor *orli_model_residual(orl_tape *tape, const orl_model *m, orl_tensor *x, orl_tensor *h, orli_weight w,
                                       orli_weight bias, orli_weight norm, size_t layer) {
    orl_tensor *branch = orli_model_linear(tape, m, h, w, bias, layer), *product = branch, *sum;
    if (orli_model_weight(m, norm, layer)) {
        branch = orli_model_norm(tape, m, product, norm, ORLI_W_COUNT, layer);
        orli_forget_if_frozen(tape, product);
    }
    sum = orl_add(tape, branch, x);
    orli_forget(tape, branch);
    return sum;
}

/* What attends in a layer, and how its queries and keys turn; 0 if they do not. */
static orl_heads orli_model_heads(const orl_model *m, size_t layer) {
    const orl_model_config *c = &m->config;
    orl_heads h;
    h.heads = c->heads, h.kv_heads = c->kv_heads;
    h.window = c->layer[layer] & ORL_LAYER_LOCAL ? c->window : 0;
    h.scale = 1.0 / sqrt(c->query_scalar > 0 ? c->query_scalar : (double)c->head_dim);
    if (c->by_layer) h.scale /= (double)(layer + 1);
    return h;
}
static int orli_model_rotation(const orl_model *m, size_t layer, orl_rotation *r) {
    const orl_model_config *c = &m->config;
    *r = c->rope;
    if (c->layer[layer] & ORL_LAYER_LOCAL && c->local_theta > 0) {
        memset(r, 0, sizeof *r);
        r->theta = c->local_theta, r->width = c->rope.width;
    }
    return !orli_model_weight(m, ORLI_W_POSITION, 0) && !(c->layer[layer] & ORL_LAYER_UNROTATED);
}

/* Queries or keys from x: projected, normalised by head, turned by position, where the family does. */
static orl_tensor *orli_model_heads_of(orl_tape *tape, const orl_model *m, orl_tensor *x, orli_weight w,
                                       orli_weight bias, orli_weight norm, const orl_stream *stream, size_t layer) {
    orl_tensor *h = orli_model_linear(tape, m, x, w, bias, layer), *before = h;
    orl_rotation r;
    if (orli_model_weight(m, norm, layer)) {
        h = orli_model_norm(tape, m, before, norm, ORLI_W_COUNT, layer);
        orli_forget_if_frozen(tape, before);
    }
    if (!orli_model_rotation(m, layer, &r)) return h;
    before = h;
    h = orl_rope(tape, before, stream, w == ORLI_W_Q ? m->config.heads : m->config.kv_heads, &r);
    orli_forget(tape, before);
    return h;
}

/* What attends: section 12 puts a KV cache in the place of the stream's own keys. */
typedef orl_tensor *(*orli_attend_fn)(void *user, orl_tape *tape, size_t layer, orl_tensor *q, orl_tensor *k,
                                      orl_tensor *v, const orl_stream *stream, const orl_model *m);

static orl_tensor *orli_attend_stream(void *user, orl_tape *tape, size_t layer, orl_tensor *q, orl_tensor *k,
                                      orl_tensor *v, const orl_stream *stream, const orl_model *m) {
    orl_heads shape = orli_model_heads(m, layer);
    (void)user;
    return orl_attention(tape, q, k, v, stream, &shape);
}

/* attention(norm(x)): (n, heads·head_dim), before its projection back to dim */
static orl_tensor *orli_model_attention(orl_tape *tape, const orl_model *m, size_t layer, orl_tensor *x,
                                        const orl_stream *stream, orli_attend_fn attend, void *user) {
    orl_tensor *h = orli_model_norm(tape, m, x, ORLI_W_NORM1, ORLI_W_NORM1_B, layer), *q, *k, *v;
    q = orli_model_heads_of(tape, m, h, ORLI_W_Q, ORLI_W_Q_B, ORLI_W_Q_NORM, stream, layer);
    k = orli_model_heads_of(tape, m, h, ORLI_W_K, ORLI_W_K_B, ORLI_W_K_NORM, stream, layer);
    v = orli_model_linear(tape, m, h, ORLI_W_V, ORLI_W_V_B, layer);
    orli_forget_if_frozen(tape, h);
    h = attend(user, tape, layer, q, k, v, stream, m);
    orli_forget_if_frozen(tape, q);
    orli_forget(tape, k), orli_forget(tape, v); /* attention has its own copy */
    if (h && tape->inference) orli_put_all(tape, &h->kept);
    return h;
}

/* feed-forward(norm(x)): (n, ffn), before its projection back to dim */
static orl_tensor *orli_model_feed(orl_tape *tape, const orl_model *m, size_t layer, orl_tensor *x) {
    orl_tensor *h = orli_model_norm(tape, m, x, ORLI_W_NORM2, ORLI_W_NORM2_B, layer), *up, *gate = NULL;
    orl_activation f = m->config.activation;
    if (orli_model_weight(m, ORLI_W_GATE, layer))
        gate = orli_model_linear(tape, m, h, ORLI_W_GATE, ORLI_W_GATE_B, layer);
    up = orli_model_linear(tape, m, h, ORLI_W_UP, ORLI_W_UP_B, layer);
    orli_forget_if_frozen(tape, h);
    if (gate) h = f == ORL_SILU ? orl_swiglu(tape, gate, up) : orl_geglu(tape, gate, up);
    else h = f == ORL_GELU_ERF ? orl_gelu_erf(tape, up) : orl_gelu(tape, up);
    orli_forget_if_frozen(tape, gate), orli_forget_if_frozen(tape, up);
    return h;
}

/* x: (n, dim) → (n, dim): x + attention(norm(x)), then that + feed-forward(norm(that)); or both of the same x */
static orl_tensor *orli_model_block(orl_tape *tape, const orl_model *m, size_t layer, orl_tensor *x,
                                    const orl_stream *stream, orli_attend_fn attend, void *user) {
    orl_tensor *h = orli_model_attention(tape, m, layer, x, stream, attend, user), *y, *out;
    y = orli_model_residual(tape, m, x, h, ORLI_W_O, ORLI_W_O_B, ORLI_W_POST1, layer);
    orli_forget_if_frozen(tape, h);
    if (!m->config.parallel) orli_forget_if_frozen(tape, x), x = y;
    h = orli_model_feed(tape, m, layer, x);
    out = orli_model_residual(tape, m, y, h, ORLI_W_DOWN, ORLI_W_DOWN_B, ORLI_W_POST2, layer);
    orli_forget(tape, h); /* four times as wide as x, and cheap to make again */
    if (m->config.parallel) orli_forget_if_frozen(tape, x);
    orli_forget_if_frozen(tape, y);
    return out;
}

/* A block that keeps nothing but its result and is worked out again in the backward pass (Chen et al., "Training Deep
 * Nets with Sublinear Memory Cost", 2016): the same bits for one more forward pass. */
typedef struct orli_block_saved {
    const orl_model *m;
    size_t layer;
    const orl_stream *stream;
} orli_block_saved;

static orl_tensor *orli_block_again(orl_tape *tape, const orli_block_saved *b, orl_tensor *x, orl_tensor **inner_x) {
    *inner_x = orli_node(tape, 0, 0, NULL, NULL, NULL, NULL, 0);
    if (!*inner_x) return NULL;
    (*inner_x)->rows = x->rows, (*inner_x)->cols = x->cols;
    (*inner_x)->data = x->data, (*inner_x)->borrowed = 1;
    (*inner_x)->needs_grad = x->needs_grad;
    return orli_model_block(tape, b->m, b->layer, *inner_x, b->stream, orli_attend_stream, NULL);
}

static void orli_block_backward(orl_tape *tape, orl_tensor *y) {
    orl_tensor *x = y->in[0], *mark = tape->last, *inner_x, *inner;
    if (!(inner = orli_block_again(tape, (const orli_block_saved *)y->saved, x, &inner_x))) return;
    inner->grad = y->grad, inner->flowed = 1;
    y->keeps_grad = 1; /* the inner one's now */
    orli_backward_since(tape, mark);
    if (x->needs_grad && !orli_hand_over(inner_x, x)) {
        orl_real *dx = orli_grad(tape, x);
        if (dx && inner_x->grad) tape->object.ctx->kernels->add(x->rows * x->cols, dx, inner_x->grad);
        orli_put(tape, &tape->free, inner_x->grad, x->rows * x->cols);
    }
    orli_forget_since(tape, mark);
}

static orl_tensor *orli_block_recomputed(orl_tape *tape, const orl_model *m, size_t layer, orl_tensor *x,
                                         const orl_stream *stream) {
    orl_tensor *mark = tape->last, *inner_x, *inner, *y;
    orli_block_saved b;
    b.m = m, b.layer = layer, b.stream = stream;
    if (!x || !(inner = orli_block_again(tape, &b, x, &inner_x))) return NULL;
    y = orli_node(tape, 0, 0, x, NULL, NULL, orli_block_backward, sizeof b);
    if (!y) return NULL;
    memcpy(y->saved, &b, sizeof b);
    y->rows = inner->rows, y->cols = inner->cols, y->data = inner->data;
    y->needs_grad = inner->needs_grad;
    inner->borrowed = 1;
    tape->last = y->previous;
    orli_forget_since(tape, mark);
    tape->last = y, y->previous = mark;
    return y;
}

static orl_tensor *orli_model_forward(orl_tape *tape, const orl_model *m, const orl_stream *stream,
                                      orli_attend_fn attend, void *user) {
    orl_ctx *ctx = tape->object.ctx;
    /* a row of scores lies in a worker's scratch */
    size_t layer, limit = ORLI_MIN(m->config.context, ORLI_SCRATCH / sizeof(orl_real) / 2);
    orl_tensor *x;
    if (orli_stream_positions(stream) > limit) {
        orli_fail(ctx, ORL_ERR_DATA,
                  "a sequence of %zu tokens does not fit the context of %zu: cut it, or use a model with a longer one",
                  orli_stream_positions(stream), limit);
        return NULL;
    }
    x = orl_embedding(tape, orli_weight_use(tape, m, ORLI_W_EMBED, 0), stream->token, stream->tokens);
    if (orli_families[m->config.arch].traits & ORLI_SCALED_EMBEDDING)
        x = orl_scale(tape, x, sqrt((double)m->config.dim));
    if (orli_model_weight(m, ORLI_W_POSITION, 0))
        x = orl_add(
            tape, x,
            orl_embedding(tape, orli_weight_use(tape, m, ORLI_W_POSITION, 0), stream->position, stream->tokens));
    for (layer = 0; layer < m->config.layers; layer++)
        x = tape->recompute ? orli_block_recomputed(tape, m, layer, x, stream)
                            : orli_model_block(tape, m, layer, x, stream, attend, user);
    if (!orli_dry(tape)) ctx->tokens += stream->tokens;
    return orli_model_norm(tape, m, x, ORLI_W_NORM, ORLI_W_NORM_B, 0);
}

ORL_API orl_tensor *orl_hidden(orl_tape *tape, orl_model *m, const orl_stream *stream) {
    if (!tape || !m || !stream || orl_failed(m->object.ctx)) return NULL;
    return orli_model_forward(tape, m, stream, orli_attend_stream, NULL);
}

ORL_API orl_tensor *orl_head(orl_tape *tape, orl_model *m) {
    if (!tape || !m || m->reward) return NULL;
    return orli_weight_use(tape, m, m->config.tied ? ORLI_W_EMBED : ORLI_W_HEAD, 0);
}

ORL_API orl_tensor *orl_logits(orl_tape *tape, orl_model *m, const orl_stream *stream) {
    if (!m || m->reward) return NULL;
    return orl_linear(tape, orl_hidden(tape, m, stream), orl_head(tape, m), NULL);
}

/* ---- 11.4 config.json ---- */

/* A key's value is one of `allowed`, or the file is refused by its name. */
static void orli_config_require(orli_json *j, const char *key, const char *const *allowed) {
    orli_json before;
    size_t i;
    orli_json_skip(j);
    before = *j;
    for (i = 0; allowed[i]; i++)
        if (j->end - j->start == strlen(allowed[i]) && memcmp(j->text + j->start, allowed[i], j->end - j->start) == 0)
            return;
    orli_json_fail_at(&before, before.start, "%s is %.*s, which is not supported", key,
                      (int)ORLI_MIN(j->end - j->start, 60), j->text + j->start);
}

/* The value's number among the words of a list; a word that is not there is refused. */
static size_t orli_config_word(orli_json *j, const char *key, const char *const *words) {
    orli_str s = orli_str_new(j->ctx);
    size_t i = 0;
    if (orli_json_string(j, &s)) {
        while (words[i] && strcmp(words[i], s.data) != 0) i++;
        if (!words[i]) orli_json_fail_at(j, j->start, "%s is \"%.60s\", which is not supported", key, s.data);
    }
    orli_str_free(&s);
    return i;
}

/* rope_scaling, or in newer files rope_parameters: a kind, and what it needs */
typedef enum orli_rope_kind { ORLI_ROPE_DEFAULT, ORLI_ROPE_LINEAR, ORLI_ROPE_LLAMA3 } orli_rope_kind;
static const char *const orli_rope_kinds[] = {"default", "linear", "llama3", NULL};

typedef struct orli_rope_said {
    size_t kind;
    int named; /* 1: by `type`; 2: by rope_type, which goes before it */
    double theta, factor, low, high, part;
    size_t original;
} orli_rope_said;

static void orli_config_read_rope_key(orli_json *j, orli_rope_said *r) {
    if (orli_json_is(j, "rope_type")) r->kind = orli_config_word(j, "rope_type", orli_rope_kinds), r->named = 2;
    else if (orli_json_is(j, "type")) {
        size_t kind = orli_config_word(j, "rope_scaling's type", orli_rope_kinds);
        if (r->named < 2) r->kind = kind, r->named = 1;
    } else if (orli_json_is(j, "rope_theta")) r->theta = orli_json_number(j);
    else if (orli_json_is(j, "factor")) r->factor = orli_json_number(j);
    else if (orli_json_is(j, "low_freq_factor")) r->low = orli_json_number(j);
    else if (orli_json_is(j, "high_freq_factor")) r->high = orli_json_number(j);
    else if (orli_json_is(j, "partial_rotary_factor")) r->part = orli_json_number(j);
    else if (orli_json_is(j, "original_max_position_embeddings")) r->original = (size_t)orli_json_int(j, 1, 1 << 27);
    else orli_json_skip(j);
}
/* Gemma's newer files have one such object for each kind of layer. */
static void orli_config_read_rope(orli_json *j, orli_rope_said *all, orli_rope_said *local) {
    if (orli_json_null(j)) return;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        int full = orli_json_is(j, "full_attention");
        if (!full && !orli_json_is(j, "sliding_attention")) orli_config_read_rope_key(j, all);
        else if (!orli_json_null(j))
            for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);)
                orli_config_read_rope_key(j, full ? all : local);
    }
}

typedef struct orli_config_file { /* what a config.json says, and what is worked out of it */
    orl_model_config c;
    int classifier;
    double reward_mean, reward_sd;
    int32_t stop[8];
    size_t stops, labels;
    orli_condition condition;
    orli_rope_said rope, local;
    double part;                           /* of a head that turns */
    int windowed, divided;                 /* use_sliding_window; scale_attn_weights */
    size_t pattern, full, listed;          /* each pattern-th layer, or the first `full`, are not local; or a list */
    size_t rotated_pattern, rotated_listed;
    uint8_t kinds[ORL_MAX_LAYERS];         /* of layer_types and the like */
    uint8_t rotated[ORL_MAX_LAYERS];       /* of no_rope_layers, where 1 is with */
} orli_config_file;

static void orli_config_read_ids(orli_json *j, int32_t *ids, size_t *n) { /* null, a number or a list of them */
    *n = 0;
    if (orli_json_null(j)) return;
    if (orli_json_peek(j) != ORLI_JSON_ARRAY) {
        ids[(*n)++] = (int32_t)orli_json_int(j, -1, INT32_MAX);
        if (ids[0] < 0) *n = 0;
        return;
    }
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        int32_t id = (int32_t)orli_json_int(j, 0, INT32_MAX);
        if (*n < 8) ids[(*n)++] = id;
        else orli_json_fail_at(j, j->start, "more than 8 end tokens");
    }
}

static const char *const orli_layer_kinds[] = {"full_attention", "global", "sliding_attention", "local", NULL};

static void orli_config_read_kinds(orli_json *j, const char *key, uint8_t *kinds, size_t *n) {
    if (orli_json_null(j)) return;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        uint8_t kind = orli_config_word(j, key, orli_layer_kinds) >= 2 ? ORL_LAYER_LOCAL : 0;
        if (*n < ORL_MAX_LAYERS) kinds[(*n)++] = kind;
        else orli_json_fail_at(j, j->start, "%s has more than %d layers", key, ORL_MAX_LAYERS);
    }
}

/* GPT-Neo's attention_types: [[["global", "local"], 12], …], each list so many times */
static void orli_config_read_attention_types(orli_json *j, orli_config_file *f) {
    f->listed = 0;
    if (orli_json_null(j)) return;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        size_t first = f->listed, n, times, i;
        if (!orli_json_open(j, ORLI_JSON_ARRAY) || !orli_json_item(j)) return;
        orli_config_read_kinds(j, "attention_types", f->kinds, &f->listed);
        if (!orli_json_item(j)) return;
        times = (size_t)orli_json_int(j, 1, ORL_MAX_LAYERS), n = f->listed - first;
        for (i = n; i < n * times && f->listed < ORL_MAX_LAYERS; i++, f->listed++)
            f->kinds[f->listed] = f->kinds[first + i % n];
        if (orli_json_item(j)) orli_json_fail_at(j, j->start, "attention_types has a third member: a list and a count");
    }
}

static void orli_config_read_rotated(orli_json *j, orli_config_file *f) { /* no_rope_layers: 1 is with */
    if (orli_json_null(j)) return;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
        uint8_t with = (uint8_t)orli_json_int(j, 0, 1);
        if (f->rotated_listed < ORL_MAX_LAYERS) f->rotated[f->rotated_listed++] = with;
    }
}

static void orli_config_read_condition(orli_json *j, orli_condition *c) {
    orli_str s = orli_str_new(j->ctx);
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "kind")) {
            if (orli_json_string(j, &s))
                c->kind = strcmp(s.data, "bins") == 0 ? ORL_CONDITION_BINS : ORL_CONDITION_TEXT;
        } else if (orli_json_is(j, "template")) {
            if (orli_json_string(j, &s)) snprintf(c->format, sizeof c->format, "%s", s.data);
        } else if (orli_json_is(j, "decimals")) c->decimals = (int)orli_json_int(j, 0, 6);
        else if (orli_json_is(j, "bins")) c->bins = (size_t)orli_json_int(j, 0, 4096);
        else if (orli_json_is(j, "first_id")) c->first_id = (int32_t)orli_json_int(j, 0, INT32_MAX);
        else if (orli_json_is(j, "mean")) c->mean = orli_json_number(j);
        else if (orli_json_is(j, "std")) c->sd = orli_json_number(j);
        else if (orli_json_is(j, "default_target")) c->target = orli_json_number(j);
        else if (orli_json_is(j, "ranked")) c->ranked = orli_json_bool(j);
        else if (orli_json_is(j, "quantiles")) {
            size_t n = 0;
            for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++) {
                double q = orli_json_number(j);
                if (n < 101) c->quantile[n] = q;
            }
            if (n != 101) orli_json_fail_at(j, j->start, "orl_condition.quantiles has %zu numbers and not 101", n);
        } else orli_json_skip(j);
    }
    orli_str_free(&s);
}

/* Keys by what their value is. Old and new spellings stand side by side. */
typedef enum orli_key_kind {
    ORLI_KEY_COUNT,     /* a positive number; null: 0 */
    ORLI_KEY_FROM_0,    /* or none */
    ORLI_KEY_REAL,      /* null: as it was */
    ORLI_KEY_BOOL,      /* null: as it was */
    ORLI_KEY_ONLY       /* what is allowed, nothing else */
} orli_key_kind;

static const char *const orli_config_none[] = {"null", NULL};
static const char *const orli_config_no[] = {"false", "null", NULL};

#define ORLI_AT(member) offsetof(orli_config_file, member)

static const struct orli_config_key {
    const char *name;
    orli_key_kind kind;
    size_t at;
    const char *const *allowed;
} orli_config_keys[] = {
    {"hidden_size", ORLI_KEY_COUNT, ORLI_AT(c.dim), NULL},
    {"n_embd", ORLI_KEY_COUNT, ORLI_AT(c.dim), NULL},
    {"num_hidden_layers", ORLI_KEY_COUNT, ORLI_AT(c.layers), NULL},
    {"num_layers", ORLI_KEY_COUNT, ORLI_AT(c.layers), NULL},
    {"n_layer", ORLI_KEY_COUNT, ORLI_AT(c.layers), NULL},
    {"num_attention_heads", ORLI_KEY_COUNT, ORLI_AT(c.heads), NULL},
    {"num_heads", ORLI_KEY_COUNT, ORLI_AT(c.heads), NULL},
    {"n_head", ORLI_KEY_COUNT, ORLI_AT(c.heads), NULL},
    {"num_key_value_heads", ORLI_KEY_COUNT, ORLI_AT(c.kv_heads), NULL},
    {"head_dim", ORLI_KEY_COUNT, ORLI_AT(c.head_dim), NULL},
    {"intermediate_size", ORLI_KEY_COUNT, ORLI_AT(c.ffn), NULL},
    {"n_inner", ORLI_KEY_COUNT, ORLI_AT(c.ffn), NULL},
    {"vocab_size", ORLI_KEY_COUNT, ORLI_AT(c.vocab), NULL},
    {"max_position_embeddings", ORLI_KEY_COUNT, ORLI_AT(c.context), NULL},
    {"n_positions", ORLI_KEY_COUNT, ORLI_AT(c.context), NULL},
    {"rms_norm_eps", ORLI_KEY_REAL, ORLI_AT(c.norm_eps), NULL},
    {"layer_norm_epsilon", ORLI_KEY_REAL, ORLI_AT(c.norm_eps), NULL},
    {"layer_norm_eps", ORLI_KEY_REAL, ORLI_AT(c.norm_eps), NULL},
    {"tie_word_embeddings", ORLI_KEY_BOOL, ORLI_AT(c.tied), NULL},
    {"rope_theta", ORLI_KEY_REAL, ORLI_AT(c.rope.theta), NULL},
    {"rotary_emb_base", ORLI_KEY_REAL, ORLI_AT(c.rope.theta), NULL},
    {"rope_local_base_freq", ORLI_KEY_REAL, ORLI_AT(c.local_theta), NULL},
    {"rotary_pct", ORLI_KEY_REAL, ORLI_AT(part), NULL},
    {"partial_rotary_factor", ORLI_KEY_REAL, ORLI_AT(part), NULL},
    {"sliding_window", ORLI_KEY_COUNT, ORLI_AT(c.window), NULL},
    {"window_size", ORLI_KEY_COUNT, ORLI_AT(c.window), NULL},
    {"use_sliding_window", ORLI_KEY_BOOL, ORLI_AT(windowed), NULL},
    {"max_window_layers", ORLI_KEY_FROM_0, ORLI_AT(full), NULL},
    {"sliding_window_pattern", ORLI_KEY_COUNT, ORLI_AT(pattern), NULL},
    {"_sliding_window_pattern", ORLI_KEY_COUNT, ORLI_AT(pattern), NULL},
    {"no_rope_layer_interval", ORLI_KEY_COUNT, ORLI_AT(rotated_pattern), NULL},
    {"query_pre_attn_scalar", ORLI_KEY_REAL, ORLI_AT(c.query_scalar), NULL},
    {"scale_attn_by_inverse_layer_idx", ORLI_KEY_BOOL, ORLI_AT(c.by_layer), NULL},
    {"scale_attn_weights", ORLI_KEY_BOOL, ORLI_AT(divided), NULL},
    {"attention_bias", ORLI_KEY_BOOL, ORLI_AT(c.attention_bias), NULL},
    {"mlp_bias", ORLI_KEY_BOOL, ORLI_AT(c.mlp_bias), NULL},
    {"use_parallel_residual", ORLI_KEY_BOOL, ORLI_AT(c.parallel), NULL},
    {"num_labels", ORLI_KEY_COUNT, ORLI_AT(labels), NULL},
    {"attn_logit_softcapping", ORLI_KEY_ONLY, 0, orli_config_none},
    {"final_logit_softcapping", ORLI_KEY_ONLY, 0, orli_config_none},
    {"use_bidirectional_attention", ORLI_KEY_ONLY, 0, orli_config_no},
    {"rope_interleaved", ORLI_KEY_ONLY, 0, orli_config_no},
    {"use_qk_norm", ORLI_KEY_ONLY, 0, orli_config_no},
    {"use_mrope", ORLI_KEY_ONLY, 0, orli_config_no},
    {"add_cross_attention", ORLI_KEY_ONLY, 0, orli_config_no},
    {"quantization_config", ORLI_KEY_ONLY, 0, orli_config_none},
};

static void orli_config_read_key(orli_json *j, orli_config_file *f) { /* by the table; what is not in it is skipped */
    const struct orli_config_key *k = orli_config_keys, *end = k + sizeof orli_config_keys / sizeof *k;
    void *value;
    while (k < end && !orli_json_is(j, k->name)) k++;
    if (k == end) {
        orli_json_skip(j);
        return;
    }
    value = (char *)f + k->at;
    if (k->kind == ORLI_KEY_ONLY) orli_config_require(j, k->name, k->allowed);
    else if (orli_json_null(j)) {
        if (k->kind == ORLI_KEY_COUNT || k->kind == ORLI_KEY_FROM_0) *(size_t *)value = 0;
    } else if (k->kind == ORLI_KEY_COUNT || k->kind == ORLI_KEY_FROM_0) {
        const int least = k->kind == ORLI_KEY_COUNT;
        int64_t n = orli_json_int(j, INT32_MIN, INT32_MAX);
        if (n < least || n > 1 << 27)
            orli_json_fail_at(j, j->start, "%s is %lld and must be %d to 134217728", k->name, (long long)n, least);
        *(size_t *)value = (size_t)n;
    }
    else if (k->kind == ORLI_KEY_REAL) *(double *)value = orli_json_number(j);
    else *(int *)value = orli_json_bool(j);
}

/* What a family takes where its file says nothing: the defaults of transformers' configuration classes. */
static void orli_config_defaults(orli_config_file *f, orl_arch arch) {
    orl_model_config *c = &f->c;
    int gpt = arch == ORL_GPT2 || arch == ORL_GPT_NEO;
    memset(f, 0, sizeof *f);
    *c = orl_model_config_default(arch);
    c->dim = c->layers = c->heads = c->kv_heads = c->ffn = c->vocab = c->context = c->rope.width = 0;
    memset(c->layer, 0, sizeof c->layer);
    c->norm_eps = gpt || arch == ORL_GPT_NEOX ? 1e-5 : 1e-6;
    c->tied = gpt || arch == ORL_SMOLLM3 || arch == ORL_GEMMA3;
    c->kv_heads = arch == ORL_MISTRAL ? 8 : arch == ORL_QWEN2 || arch == ORL_QWEN3 ? 32
                  : arch == ORL_SMOLLM3 || arch == ORL_GEMMA3                      ? 4 : 0;
    c->head_dim = arch == ORL_QWEN3 ? 128 : arch == ORL_GEMMA3 ? 256 : 0;
    c->window = arch == ORL_GPT_NEO ? 256 : arch == ORL_MISTRAL || arch == ORL_GEMMA3 ? 4096
                : arch == ORL_QWEN2 || arch == ORL_QWEN3                              ? 4096 : 0;
    if (arch == ORL_GEMMA3) c->query_scalar = 256;
    if (arch == ORL_SMOLLM3) c->rope.theta = 2e6;
    f->part = arch == ORL_GPT_NEOX ? 0.25 : 1;
    f->windowed = arch == ORL_GPT_NEO || arch == ORL_MISTRAL || arch == ORL_GEMMA3;
    f->divided = 1;
    f->full = arch == ORL_QWEN2 || arch == ORL_QWEN3 ? 28 : 0;
    f->pattern = arch == ORL_GPT_NEO ? 2 : arch == ORL_GEMMA3 ? 6 : 0;
    f->rotated_pattern = arch == ORL_SMOLLM3 ? 4 : 0;
    f->reward_sd = 1, f->labels = 2;
}

static const char *const orli_activations[] = {
    "silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", NULL};

static void orli_config_read_activation(orli_json *j, const char *key, orli_config_file *f) {
    size_t which;
    if (orli_json_null(j)) return;
    which = orli_config_word(j, key, orli_activations);
    f->c.activation = which < 2 ? ORL_SILU : which == 2 ? ORL_GELU_ERF : ORL_GELU;
}

/* First pass: model_type alone, as the defaults of all other keys hang on it. */
static int orli_config_read_family(orli_json *j, orl_arch *arch) {
    orli_str s = orli_str_new(j->ctx);
    int found = 0;
    size_t i;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (!orli_json_is(j, "model_type")) orli_json_skip(j);
        else if (orli_json_string(j, &s)) {
            for (i = 0; i < ORLI_FAMILIES; i++)
                if (strcmp(s.data, orli_families[i].model_type) == 0) found = 1, *arch = (orl_arch)i;
            if (!found)
                orli_json_fail_at(j, j->start,
                                  "model_type \"%.40s\" is not supported: gpt2, llama, gpt_neo, gpt_neox, mistral, "
                                  "qwen2, qwen3, smollm3 and gemma3_text are", s.data);
        }
    }
    orli_json_end(j);
    orli_str_free(&s);
    return found;
}

static void orli_config_read_architectures(orli_json *j, orli_config_file *f) {
    orli_str s = orli_str_new(j->ctx);
    if (!orli_json_null(j))
        for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);)
            if (orli_json_string(j, &s) && strstr(s.data, "ForSequenceClassification")) f->classifier = 1;
    orli_str_free(&s);
}

static void orli_config_read_reward(orli_json *j, orli_config_file *f) {
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "mean")) f->reward_mean = orli_json_number(j);
        else if (orli_json_is(j, "std")) f->reward_sd = orli_json_number(j);
        else orli_json_skip(j);
    }
}

static void orli_config_read(orli_json *j, orli_config_file *f) {
    int32_t ids[8];
    size_t bos = 0;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "architectures")) orli_config_read_architectures(j, f);
        else if (orli_json_is(j, "rope_scaling") || orli_json_is(j, "rope_parameters"))
            orli_config_read_rope(j, &f->rope, &f->local);
        else if (orli_json_is(j, "hidden_act")) orli_config_read_activation(j, "hidden_act", f);
        else if (orli_json_is(j, "hidden_activation")) orli_config_read_activation(j, "hidden_activation", f);
        else if (orli_json_is(j, "activation_function")) orli_config_read_activation(j, "activation_function", f);
        else if (orli_json_is(j, "layer_types"))
            f->listed = 0, orli_config_read_kinds(j, "layer_types", f->kinds, &f->listed);
        else if (orli_json_is(j, "attention_types")) orli_config_read_attention_types(j, f);
        else if (orli_json_is(j, "no_rope_layers")) orli_config_read_rotated(j, f);
        else if (orli_json_is(j, "id2label"))
            for (f->labels = 0, orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j); f->labels++) orli_json_skip(j);
        else if (orli_json_is(j, "eos_token_id")) orli_config_read_ids(j, f->stop, &f->stops);
        else if (orli_json_is(j, "bos_token_id")) orli_config_read_ids(j, ids, &bos), f->c.bos = bos ? ids[0] : -1;
        else if (orli_json_is(j, "orl_reward")) orli_config_read_reward(j, f);
        else if (orli_json_is(j, "orl_condition")) orli_config_read_condition(j, &f->condition);
        else orli_config_read_key(j, f);
    }
    orli_json_end(j);
}

/* From what the file says of windows and rotations to each layer's own. */
static orl_status orli_config_layers(orl_ctx *ctx, const char *path, orli_config_file *f) {
    orl_model_config *c = &f->c;
    size_t i;
    int slides = 0;
    if (f->listed && f->listed != c->layers)
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: %s is for %zu layers and there are %zu", path,
                         c->arch == ORL_GPT_NEO ? "attention_types" : "layer_types", f->listed, c->layers);
    if (f->rotated_listed && f->rotated_listed < c->layers)
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: no_rope_layers is for %zu layers and there are %zu", path,
                         f->rotated_listed, c->layers);
    for (i = 0; i < f->listed; i++) slides |= f->kinds[i] & ORL_LAYER_LOCAL;
    if (slides && c->arch == ORL_SMOLLM3) f->windowed = 1; /* there the list alone decides */
    if (slides && (!f->windowed || !c->window))
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: layer_types has \"sliding_attention\" and %s", path,
                         c->window ? "use_sliding_window is false" : "sliding_window is null");
    for (i = 0; i < c->layers; i++) {
        int turns = f->rotated_listed ? f->rotated[i] : !f->rotated_pattern || (i + 1) % f->rotated_pattern;
        int local = f->listed                ? f->kinds[i] & ORL_LAYER_LOCAL
                    : c->arch == ORL_GPT_NEO ? i % 2 != 0
                    : c->arch == ORL_SMOLLM3 ? !turns
                    : f->pattern             ? (i + 1) % f->pattern != 0
                                             : i >= f->full;
        c->layer[i] = (uint8_t)((turns ? 0 : ORL_LAYER_UNROTATED) |
                                (local && f->windowed && c->window ? ORL_LAYER_LOCAL : 0));
    }
    if (!f->windowed) c->window = 0;
    return ORL_OK;
}

static orl_status orli_config_rope(orl_ctx *ctx, const char *path, orli_config_file *f) {
    orl_model_config *c = &f->c;
    const orli_rope_said *r = &f->rope;
    double part = r->part > 0 ? r->part : f->part;
    int partial = c->arch == ORL_GPT_NEOX;
    const char *bad = NULL;
    if (r->theta > 0) c->rope.theta = r->theta;
    if (f->local.theta > 0) c->local_theta = f->local.theta;
    if (f->local.kind != ORLI_ROPE_DEFAULT) bad = "rope_parameters of sliding_attention layers may only be \"default\"";
    else if (!r->named && r->factor > 0) bad = "rope_scaling has a factor and no rope_type";
    else if (r->kind != ORLI_ROPE_DEFAULT && !(r->factor > 0)) bad = "rope_scaling needs a factor above 0";
    else if (r->kind == ORLI_ROPE_LLAMA3 && !(r->low > 0 && r->high > r->low))
        bad = "rope_scaling needs low_freq_factor below high_freq_factor";
    if (bad) return orli_fail(ctx, ORL_ERR_FORMAT, "%s: %s", path, bad);
    if (!(part > 0 && part <= 1) || (part < 1 && !partial))
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: %s is %g, which is not supported%s", path,
                         partial ? "rotary_pct (partial_rotary_factor)" : "partial_rotary_factor", part,
                         partial ? ": it must be above 0 and at most 1" : " in this family");
    if (partial) c->rope.width = (size_t)((double)c->head_dim * part);
    if (r->kind != ORLI_ROPE_DEFAULT) c->rope.factor = r->factor;
    if (r->kind == ORLI_ROPE_LLAMA3)
        c->rope.low = r->low, c->rope.high = r->high, c->rope.original = r->original ? r->original : c->context;
    return ORL_OK;
}

/* Settings that a family does not know would be read by nobody. */
static orl_status orli_config_foreign(orl_ctx *ctx, const char *path, const orli_config_file *f) {
    const orl_model_config *c = &f->c;
    int gated = orli_weight_find(c->arch, ORLI_W_GATE) != NULL;
    int may_bias = c->arch != ORL_GPT2 && c->arch != ORL_GPT_NEO && orli_weight_find(c->arch, ORLI_W_O_B);
    const char *bad = NULL;
    if (c->window && c->arch == ORL_LLAMA)
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: sliding_window is %zu, which is not supported in the family llama",
                         path, c->window);
    if (c->attention_bias && !may_bias) bad = "attention_bias true";
    else if (c->mlp_bias && !orli_weight_find(c->arch, ORLI_W_GATE_B)) bad = "mlp_bias true";
    else if (c->parallel && c->arch != ORL_GPT_NEOX) bad = "use_parallel_residual true";
    else if (gated && c->activation == ORL_GELU_ERF) bad = "hidden_act \"gelu\"";
    else if (!gated && c->activation == ORL_SILU) bad = "the activation \"silu\"";
    if (!bad) return ORL_OK;
    return orli_fail(ctx, ORL_ERR_FORMAT, "%s: %s is not supported in the family %s", path, bad,
                     orli_families[c->arch].model_type);
}

static orl_status orli_config_finish(orl_ctx *ctx, const char *path, orli_config_file *f) {
    orl_model_config *c = &f->c;
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (!c->ffn && (c->arch == ORL_GPT2 || c->arch == ORL_GPT_NEO)) c->ffn = 4 * c->dim;
    if (!f->divided) c->query_scalar = 1;
    c->eos = f->stops ? f->stop[0] : -1;
    if (c->layers > ORL_MAX_LAYERS || !c->heads || (!c->head_dim && c->dim % c->heads))
        return orli_config_check(ctx, c, path);
    if (!c->head_dim) c->head_dim = c->dim / c->heads;
    if (c->arch == ORL_GEMMA3 && !(c->query_scalar > 0))
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: query_pre_attn_scalar is %g and must be positive", path,
                         c->query_scalar);
    if (orli_config_foreign(ctx, path, f) != ORL_OK || orli_config_rope(ctx, path, f) != ORL_OK ||
        orli_config_layers(ctx, path, f) != ORL_OK || orli_config_check(ctx, c, path) != ORL_OK)
        return orl_error_status(ctx);
    if (!(f->reward_sd > 0)) return orli_fail(ctx, ORL_ERR_FORMAT, "%s: orl_reward.std must be positive", path);
    if (f->condition.kind == ORL_CONDITION_BINS && (size_t)f->condition.first_id + f->condition.bins + 1 != c->vocab)
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: orl_condition's tokens are not the last %zu of vocab_size %zu", path,
                         f->condition.bins + 1, c->vocab);
    if (f->classifier && f->labels != 1)
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: a classifier of %zu labels is no reward model: num_labels must be 1",
                         path, f->labels);
    return ORL_OK;
}

static orl_status orli_config_load(orl_ctx *ctx, const char *path, orli_config_file *f) {
    orli_file file;
    orli_json j;
    orl_arch arch = ORL_LLAMA;
    if (orli_file_open(ctx, path, &file) != ORL_OK) return orl_error_status(ctx);
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    if (!orli_config_read_family(&j, &arch) && !orl_failed(ctx))
        orli_fail(ctx, ORL_ERR_FORMAT, "%s: no model_type: add \"model_type\": \"llama\", or what it is", path);
    if (!orl_failed(ctx)) {
        orli_config_defaults(f, arch);
        j = orli_json_new(ctx, file.data, file.size, path, 1);
        orli_config_read(&j, f);
    }
    orli_file_close(&file);
    return orl_failed(ctx) ? orl_error_status(ctx) : orli_config_finish(ctx, path, f);
}

/* The end tokens that a generation_config.json has. */
static size_t orli_config_read_stops(orli_json *j, int32_t *ids) {
    size_t n = 0;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "eos_token_id")) orli_config_read_ids(j, ids, &n);
        else orli_json_skip(j);
    }
    orli_json_end(j);
    return n;
}

/* They go before those of config.json, if there is such a file. */
static orl_status orli_config_load_stops(orl_ctx *ctx, const char *dir, orli_config_file *f) {
    orli_file file;
    orli_json j;
    char path[4096];
    int32_t ids[8];
    size_t n;
    if (orli_join(ctx, path, dir, "generation_config.json") != ORL_OK) return orl_error_status(ctx);
    if (!orli_exists(path) || orli_file_open(ctx, path, &file) != ORL_OK) return orl_error_status(ctx);
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    n = orli_config_read_stops(&j, ids);
    orli_file_close(&file);
    if (n && !orl_failed(ctx)) memcpy(f->stop, ids, sizeof ids), f->stops = n, f->c.eos = ids[0];
    return orl_error_status(ctx);
}

static void orli_config_put_count(orli_str *s, const char *key, size_t value) {
    orli_str_printf(s, "  \"%s\": %zu,\n", key, value);
}
static void orli_config_put_real(orli_str *s, const char *key, double value) {
    orli_str_printf(s, "  \"%s\": ", key);
    orli_json_put_double(s, value);
    orli_str_puts(s, ",\n");
}
static void orli_config_put_bool(orli_str *s, const char *key, int value) {
    orli_str_printf(s, "  \"%s\": %s,\n", key, value ? "true" : "false");
}
static void orli_config_put_layers(orli_str *s, const char *key, const orl_model_config *c, int flag, const char *with,
                                   const char *without) {
    size_t i;
    for (i = 0; i < c->layers; i++) {
        if (i) orli_str_puts(s, ", ");
        else orli_str_printf(s, "  \"%s\": [", key);
        orli_str_puts(s, c->layer[i] & flag ? with : without);
    }
    orli_str_puts(s, "],\n");
}

static void orli_config_write_gpt(orli_str *s, const orl_model_config *c) {
    int neo = c->arch == ORL_GPT_NEO;
    size_t i;
    orli_config_put_count(s, neo ? "hidden_size" : "n_embd", c->dim);
    orli_config_put_count(s, neo ? "num_layers" : "n_layer", c->layers);
    orli_config_put_count(s, neo ? "num_heads" : "n_head", c->heads);
    orli_config_put_count(s, neo ? "intermediate_size" : "n_inner", c->ffn);
    orli_config_put_count(s, neo ? "max_position_embeddings" : "n_positions", c->context);
    orli_str_printf(s, "  \"activation_function\": \"%s\",\n", c->activation == ORL_GELU ? "gelu_new" : "gelu");
    orli_config_put_real(s, "layer_norm_epsilon", c->norm_eps);
    if (neo) {
        orli_config_put_count(s, "window_size", c->window ? c->window : c->context);
        orli_str_puts(s, "  \"attention_types\": [[[");
        orli_str_puts(s, c->layer[0] & ORL_LAYER_LOCAL ? "\"local\"" : "\"global\"");
        for (i = 1; i < c->layers; i++)
            orli_str_puts(s, c->layer[i] & ORL_LAYER_LOCAL ? ", \"local\"" : ", \"global\"");
        orli_str_puts(s, "], 1]],\n");
        orli_str_puts(s, "  \"attention_dropout\": 0.0,\n  \"embed_dropout\": 0.0,\n  \"resid_dropout\": 0.0,\n");
        return;
    }
    orli_config_put_bool(s, "scale_attn_weights", !(c->query_scalar > 0));
    orli_config_put_bool(s, "scale_attn_by_inverse_layer_idx", c->by_layer);
    orli_str_puts(s, "  \"attn_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"resid_pdrop\": 0.0,\n");
}

/* In the older spelling, which newer versions of transformers read as well. */
static void orli_config_write_rope(orli_str *s, const orl_rotation *r) {
    orli_config_put_real(s, "rope_theta", r->theta);
    if (!(r->factor > 0)) return;
    orli_str_puts(s, "  \"rope_scaling\": {");
    orli_str_puts(s, r->original ? "\"rope_type\": \"llama3\", \"factor\": "
                                 : "\"type\": \"linear\", \"rope_type\": \"linear\", \"factor\": ");
    orli_json_put_double(s, r->factor);
    if (r->original) {
        orli_str_puts(s, ", \"low_freq_factor\": ");
        orli_json_put_double(s, r->low);
        orli_str_puts(s, ", \"high_freq_factor\": ");
        orli_json_put_double(s, r->high);
        orli_str_printf(s, ", \"original_max_position_embeddings\": %zu", r->original);
    }
    orli_str_puts(s, "},\n");
}

/* sliding_window and its kin: all layers in Mistral, a list elsewhere */
static void orli_config_write_window(orli_str *s, const orl_model_config *c) {
    size_t i, pattern = 1;
    if (c->window) orli_config_put_count(s, "sliding_window", c->window);
    else orli_str_puts(s, "  \"sliding_window\": null,\n");
    if (c->arch == ORL_MISTRAL) return;
    if (c->arch != ORL_GEMMA3) {
        orli_config_put_bool(s, "use_sliding_window", c->window > 0);
        orli_config_put_count(s, "max_window_layers", c->layers);
    } else { /* older versions know a pattern alone */
        for (i = 0; i < c->layers && c->layer[i] & ORL_LAYER_LOCAL; i++) pattern++;
        orli_config_put_count(s, "sliding_window_pattern", pattern);
    }
    orli_config_put_layers(s, "layer_types", c, ORL_LAYER_LOCAL, "\"sliding_attention\"", "\"full_attention\"");
}

static void orli_config_write_llama(orli_str *s, const orl_model_config *c) { /* GPT-NeoX, Llama and its kin */
    static const char *const activations[] = {"silu", "gelu_pytorch_tanh", "gelu"};
    int neox = c->arch == ORL_GPT_NEOX;
    orli_config_put_count(s, "hidden_size", c->dim);
    orli_config_put_count(s, "num_hidden_layers", c->layers);
    orli_config_put_count(s, "num_attention_heads", c->heads);
    if (!neox) orli_config_put_count(s, "num_key_value_heads", c->kv_heads);
    if (!neox) orli_config_put_count(s, "head_dim", c->head_dim);
    orli_config_put_count(s, "intermediate_size", c->ffn);
    orli_config_put_count(s, "max_position_embeddings", c->context);
    orli_str_printf(s, "  \"%s\": \"%s\",\n", c->arch == ORL_GEMMA3 ? "hidden_activation" : "hidden_act",
                    activations[c->activation]);
    orli_config_put_real(s, neox ? "layer_norm_eps" : "rms_norm_eps", c->norm_eps);
    if (c->arch != ORL_MISTRAL && c->arch != ORL_QWEN2) orli_config_put_bool(s, "attention_bias", c->attention_bias);
    if (orli_weight_find(c->arch, ORLI_W_GATE_B)) orli_config_put_bool(s, "mlp_bias", c->mlp_bias);
    if (neox) {
        orli_config_put_bool(s, "use_parallel_residual", c->parallel);
        orli_config_put_real(s, "rotary_pct", (double)c->rope.width / (double)c->head_dim);
        orli_config_put_real(s, "rotary_emb_base", c->rope.theta);
        if (c->rope.factor > 0) orli_config_write_rope(s, &c->rope);
        return;
    }
    orli_config_write_rope(s, &c->rope);
    if (c->arch == ORL_GEMMA3) {
        orli_config_put_real(s, "rope_local_base_freq", c->local_theta);
        orli_config_put_real(s, "query_pre_attn_scalar", c->query_scalar > 0 ? c->query_scalar : (double)c->head_dim);
    }
    if (c->arch == ORL_SMOLLM3) orli_config_put_layers(s, "no_rope_layers", c, ORL_LAYER_UNROTATED, "0", "1");
    if (c->arch != ORL_LLAMA) orli_config_write_window(s, c);
}

static void orli_config_write_condition(orli_str *s, const orli_condition *q) {
    size_t i;
    orli_str_printf(s, "  \"orl_condition\": {\"kind\": \"%s\", \"template\": ",
                    q->kind == ORL_CONDITION_BINS ? "bins" : "text");
    orli_json_put_string(s, q->format, strlen(q->format));
    orli_str_printf(s, ", \"decimals\": %d, \"bins\": %zu, \"first_id\": %d, \"ranked\": %s, \"mean\": ", q->decimals,
                    q->bins, (int)q->first_id, q->ranked ? "true" : "false");
    orli_json_put_double(s, q->mean);
    orli_str_puts(s, ", \"std\": ");
    orli_json_put_double(s, q->sd);
    orli_str_puts(s, ", \"default_target\": ");
    orli_json_put_double(s, q->target);
    for (i = 0; i < 101; i++) {
        orli_str_puts(s, i ? ", " : ", \"quantiles\": [");
        orli_json_put_double(s, q->quantile[i]);
    }
    orli_str_puts(s, "]},\n");
}

static void orli_config_write_stops(orli_str *s, const orl_model *m) {
    size_t i;
    if (m->stops == 1) orli_str_printf(s, "  \"eos_token_id\": %d,\n", (int)m->stop[0]);
    for (i = 0; m->stops > 1 && i < m->stops; i++)
        orli_str_printf(s, "%s%d%s", i ? ", " : "  \"eos_token_id\": [", (int)m->stop[i],
                        i + 1 == m->stops ? "],\n" : "");
}

static void orli_config_write_reward(orli_str *s, const orl_model *m) {
    if (!m->reward) return;
    orli_str_puts(s, "  \"num_labels\": 1,\n  \"id2label\": {\"0\": \"reward\"},\n  \"orl_reward\": {\"mean\": ");
    orli_json_put_double(s, m->reward_mean);
    orli_str_puts(s, ", \"std\": ");
    orli_json_put_double(s, m->reward_sd);
    orli_str_puts(s, "},\n");
}

/* dtype: of the weights beside it. */
static void orli_config_write(orli_str *s, const orl_model *m, orli_dtype dtype) {
    static const char *const torch[] = {"float32", "float16", "bfloat16", "float64"};
    const orl_model_config *c = &m->config;
    const orli_family *family = &orli_families[c->arch];
    orli_str_printf(s, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
                    m->reward ? family->classifier : family->causal, family->model_type);
    if (c->arch == ORL_GPT2 || c->arch == ORL_GPT_NEO) orli_config_write_gpt(s, c);
    else orli_config_write_llama(s, c);
    orli_config_put_count(s, "vocab_size", c->vocab);
    orli_config_put_bool(s, "tie_word_embeddings", c->tied);
    if (c->bos >= 0) orli_str_printf(s, "  \"bos_token_id\": %d,\n", (int)c->bos);
    orli_config_write_stops(s, m);
    orli_config_write_reward(s, m);
    if (m->condition.kind != ORL_CONDITION_NONE) orli_config_write_condition(s, &m->condition);
    orli_str_printf(s, "  \"torch_dtype\": \"%s\"\n}\n", torch[dtype]);
}

/* ---- 11.5 weights in and out ---- */

/* A tensor on disk: (outs·parts, ins), or the other way round, with q, k, v as its parts if it is fused. */
typedef struct orli_disk_shape {
    size_t outs, ins, parts, d; /* of one part; d: rows of a head */
    int rank, transposed, headwise;
} orli_disk_shape;

static orli_disk_shape orli_disk_shape_of(const orl_model *m, const orli_weight_row *row) {
    orli_disk_shape s;
    size_t rows, cols;
    orli_weight_shape(m, row->weight, &rows, &cols);
    s.rank = rows > 1 || row->weight == ORLI_W_SCORE ? 2 : 1;
    s.outs = s.rank == 2 ? rows : cols, s.ins = s.rank == 2 ? cols : 1;
    s.parts = row->third ? 3 : 1, s.d = m->config.head_dim;
    s.transposed = row->layout == ORLI_IN_OUT, s.headwise = row->layout == ORLI_HEADWISE;
    return s;
}
/* Where number `in` of output `out` of a part lies. */
static size_t orli_disk_at(const orli_disk_shape *s, size_t part, size_t out, size_t in) {
    size_t at = s->headwise ? (out / s->d * s->parts + part) * s->d + out % s->d : part * s->outs + out;
    return s->transposed ? in * (s->parts * s->outs) + at : at * s->ins + in;
}
/* … and which number of which part lies at `at`. */
static size_t orli_disk_from(const orli_disk_shape *s, size_t at, size_t *part) {
    size_t wide = s->parts * s->outs, row = s->transposed ? at % wide : at / s->ins, out;
    *part = s->headwise ? row / s->d % s->parts : row / s->outs;
    out = s->headwise ? row / (s->d * s->parts) * s->d + row % s->d : row % s->outs;
    return out * s->ins + (s->transposed ? at / wide : at % s->ins);
}

/* The tensor that a weight of the model is read from, if it has that weight; NULL and an error if the file has none
 * of its shape. */
static const orli_st_tensor *orli_weight_tensor(const orl_model *m, const orli_safetensors *st,
                                                const orli_weight_row *row, size_t layer) {
    const orli_st_tensor *t;
    orli_disk_shape s = orli_disk_shape_of(m, row);
    size_t rows, cols, have[2] = {1, 1}, want[2], i;
    char name[160], bare[160];
    if (!orli_weight_shape(m, row->weight, &rows, &cols)) return NULL;
    orli_weight_name(name, sizeof name, row, orli_families[m->config.arch].prefix, layer);
    orli_weight_name(bare, sizeof bare, row, "", layer);
    t = orli_safetensors_find(st, name);
    if (!t) t = orli_safetensors_find(st, bare);
    if (!t) {
        orli_fail(m->object.ctx, ORL_ERR_FORMAT,
                  "%s: tensor \"%s\" is missing: the file does not belong to this config.json", st->path, name);
        return NULL;
    }
    want[0] = s.transposed ? s.ins : s.rank == 2 ? s.parts * s.outs : 1;
    want[1] = s.transposed || s.rank == 1 ? s.parts * s.outs : s.ins;
    for (i = 0; i < t->rank && t->rank <= 2; i++) have[2 - t->rank + i] = t->shape[i];
    if (t->rank <= 2 && have[0] == want[0] && have[1] == want[1] && /* and of numbers */
        orli_safetensors_read(st, t, 0, 0, NULL) == ORL_OK)
        return t;
    orli_fail(m->object.ctx, ORL_ERR_FORMAT, "%s: tensor \"%s\" is (%zu, %zu) and config.json asks for (%zu, %zu)",
              st->path, t->name, have[0], have[1], want[0], want[1]);
    return NULL;
}

/* Files that stay open because frozen parameters read them where they are: one for each shard. */
typedef struct orli_held_files {
    orli_safetensors *st;
    orli_frozen **shard;
} orli_held_files;

static orli_frozen *orli_held_file_of(orli_held_files *held, const orli_st_tensor *t) {
    orl_ctx *ctx = held->st->ctx;
    size_t i = 0;
    while (t->data < held->st->shard[i].file.data ||
           t->data >= held->st->shard[i].file.data + held->st->shard[i].file.size)
        i++;
    if (!held->shard[i]) held->shard[i] = (orli_frozen *)orli_alloc_zero(ctx, 1, sizeof *held->shard[i]);
    return held->shard[i];
}
/* The files that are read from now on belong to those who read them. */
static void orli_held_files_leave(orli_held_files *held) {
    size_t i;
    for (i = 0; held->shard && i < held->st->shards; i++) {
        if (!held->shard[i]) continue;
        if (!held->shard[i]->users) orli_free(held->st->ctx, held->shard[i]);
        else {
            held->shard[i]->file = held->st->shard[i].file;
            memset(&held->st->shard[i].file, 0, sizeof held->st->shard[i].file);
        }
    }
    orli_free(held->st->ctx, held->shard);
}

/* A matrix of a frozen model that the file has in BF16: it stays there, or is copied if it lies otherwise. */
static orl_status orli_weight_load_half(orl_param *p, const orli_st_tensor *t, const orli_disk_shape *s, size_t part,
                                        orli_held_files *held) {
    orl_ctx *ctx = p->set->object.ctx;
    orli_frozen *h;
    uint16_t *to;
    size_t r, c;
    if (!s->transposed && s->parts == 1 && (uintptr_t)t->data % sizeof(uint16_t) == 0) {
        h = orli_held_file_of(held, t);
        if (h) orli_param_set_store(p, h, (const uint16_t *)(const void *)t->data, NULL);
        return orl_error_status(ctx);
    }
    if (!(h = orli_frozen_new(ctx, p->rows * p->cols * sizeof *to))) return orl_error_status(ctx);
    to = (uint16_t *)h->own;
    for (r = 0; r < s->outs; r++)
        for (c = 0; c < s->ins; c++)
            memcpy(&to[r * s->ins + c], t->data + 2 * orli_disk_at(s, part, r, c), sizeof *to);
    orli_param_set_store(p, h, to, NULL);
    return ORL_OK;
}

/* Reads a weight from its tensor, which may be the other way round (in, parts·out), and hold q, k and v. */
static orl_status orli_weight_load(orl_model *m, orli_held_files *held, const orli_weight_row *row, size_t layer) {
    orl_ctx *ctx = m->object.ctx;
    const orli_safetensors *st = held->st;
    orl_param *p = orli_model_weight(m, row->weight, layer);
    const orli_st_tensor *t = orli_weight_tensor(m, st, row, layer);
    orli_disk_shape s = orli_disk_shape_of(m, row);
    size_t part = row->third ? (size_t)row->third - 1 : 0, run = s.headwise ? s.d : s.outs, r, c;
    orl_real *column;
    if (!t) return orl_error_status(ctx);
    if (m->frozen && !p->data && t->dtype == ORLI_BF16) return orli_weight_load_half(p, t, &s, part, held);
    if (!p->data) p->data = (orl_real *)orli_alloc(ctx, orli_mul(p->rows, p->cols), sizeof(orl_real));
    if (!p->data) return orl_error_status(ctx);
    for (r = 0; r < s.outs && !s.transposed; r += run)
        orli_safetensors_read(st, t, orli_disk_at(&s, part, r, 0), run * s.ins, p->data + r * s.ins);
    if (!s.transposed) return orl_error_status(ctx);
    column = (orl_real *)orli_alloc(ctx, s.outs, sizeof *column);
    for (c = 0; c < s.ins && column; c++) {
        orli_safetensors_read(st, t, orli_disk_at(&s, part, 0, c), s.outs, column);
        for (r = 0; r < s.outs; r++) p->data[r * s.ins + c] = column[r];
    }
    orli_free(ctx, column);
    return orl_error_status(ctx);
}

/* Published files carry masks and tables that are no weights, and heads this model may have no use for. Anything
 * else would change what the model computes. */
static orl_status orli_weights_unused(const orl_model *m, const orli_safetensors *st, const uint8_t *used) {
    static const char *const harmless[] = {"attn.bias", "attention.bias", ".masked_bias", ".inv_freq",
                                           "lm_head.weight", "embed_out.weight", "score.weight"};
    size_t i, k, n;
    for (i = 0; i < st->count; i++) {
        n = strlen(st->tensor[i].name);
        for (k = 0; k < sizeof harmless / sizeof *harmless; k++) {
            size_t tail = strlen(harmless[k]);
            if (n >= tail && strcmp(st->tensor[i].name + n - tail, harmless[k]) == 0) break;
        }
        if (!used[i] && k == sizeof harmless / sizeof *harmless)
            return orli_fail(m->object.ctx, ORL_ERR_FORMAT,
                             "%s: tensor \"%s\" has no place in the %s model that config.json describes", st->path,
                             st->tensor[i].name, orli_families[m->config.arch].model_type);
    }
    return ORL_OK;
}

/* Are all weights there, and nothing else? Asked before memory is: config.json may say any size. */
static orl_status orli_weights_check(orl_ctx *ctx, const orl_model_config *config, int reward,
                                     const orli_safetensors *st) {
    uint8_t *used = (uint8_t *)orli_alloc_zero(ctx, st->count, 1);
    const orli_weight_row *row;
    orl_model probe; /* as much of a model as says what its weights are */
    size_t layer;
    memset(&probe, 0, sizeof probe);
    probe.object.ctx = ctx, probe.config = *config, probe.reward = reward;
    for (row = orli_families[config->arch].weights; used && row->name; row++)
        for (layer = 0; layer < ((int)row->weight < ORLI_W_FIRST_OF_LAYER ? 1 : config->layers); layer++) {
            const orli_st_tensor *t = orl_failed(ctx) ? NULL : orli_weight_tensor(&probe, st, row, layer);
            if (t) used[t - st->tensor] = 1;
        }
    if (!orl_failed(ctx)) orli_weights_unused(&probe, st, used);
    orli_free(ctx, used);
    return orl_error_status(ctx);
}

static orl_status orli_weights_load(orl_model *m, orli_safetensors *st) {
    orl_ctx *ctx = m->object.ctx;
    orli_held_files held;
    const orli_weight_row *row;
    size_t layer;
    held.st = st;
    held.shard = (orli_frozen **)orli_alloc_zero(ctx, st->shards, sizeof *held.shard);
    for (row = orli_families[m->config.arch].weights; row->name; row++)
        for (layer = 0; layer < ((int)row->weight < ORLI_W_FIRST_OF_LAYER ? 1 : m->config.layers); layer++)
            if (!orl_failed(ctx)) orli_weight_load(m, &held, row, layer);
    orli_held_files_leave(&held);
    return orl_error_status(ctx);
}

/* What a model is saved with again; of config.json, what we do not write ourselves. */
static const char *const orli_model_files[] = {"config.json", "generation_config.json", NULL};

static orl_status orli_model_keep(orl_model *m, const char *dir) {
    orl_ctx *ctx = m->object.ctx;
    char path[4096];
    size_t i;
    if (orli_kept_read(ctx, &m->kept, dir, orli_model_files) != ORL_OK) return orl_error_status(ctx);
    i = orli_kept_find(&m->kept, "config.json");
    if (i == ORLI_NONE || orli_join(ctx, path, dir, "config.json") != ORL_OK) return orl_error_status(ctx);
    return orli_json_check_once(ctx, m->kept.file[i].bytes, m->kept.file[i].size, path);
}

/* All tokens have an embedding, but for added ones (Gemma's for images) that no text of ours may have. */
static orl_status orli_tokenizer_fits(const orl_tokenizer *tok, size_t vocab, const char *dir) {
    size_t id, beyond = 0;
    for (id = vocab; id < tok->tokens; id++) {
        if (!tok->token[id].added)
            return orli_fail(tok->object.ctx, ORL_ERR_MISMATCH,
                             "%s: the tokenizer has %zu tokens and config.json's vocab_size is %zu: they do not belong "
                             "together", dir, orl_vocab(tok), vocab);
        beyond++;
    }
    if (beyond)
        orli_note(tok->object.ctx, "%s: %zu added tokens lie beyond vocab_size %zu: text with them is an error", dir,
                  beyond, vocab);
    return ORL_OK;
}

static orl_model *orli_model_load(orl_ctx *ctx, const char *dir, int frozen) {
    orli_config_file f;
    orli_safetensors st;
    orl_model *m = NULL;
    orl_tokenizer *tok = NULL;
    char path[4096];
    if (orl_failed(ctx) || !dir || orli_join(ctx, path, dir, "config.json") != ORL_OK ||
        orli_config_load(ctx, path, &f) != ORL_OK || orli_config_load_stops(ctx, dir, &f) != ORL_OK)
        return NULL;
    if (orli_has_tokenizer(ctx, dir) && !(tok = orl_tokenizer_load(ctx, dir))) return NULL;
    if (tok && orli_tokenizer_fits(tok, f.c.vocab, dir) != ORL_OK) return NULL;
    if (orli_safetensors_open(ctx, dir, &st) != ORL_OK) return NULL;
    if (!f.classifier && !f.c.tied && orli_safetensors_find(&st, "score.weight") &&
        !orli_safetensors_find(&st, orli_weight_find(f.c.arch, ORLI_W_HEAD)->name))
        f.classifier = 1;
    if (orli_weights_check(ctx, &f.c, f.classifier, &st) == ORL_OK)
        m = orli_model_new(ctx, &f.c, tok, f.classifier, 1);
    if (m) m->frozen = frozen;
    if (m) orli_model_keep(m, dir);
    if (m) orli_weights_load(m, &st);
    orli_safetensors_close(&st);
    if (m && orl_failed(ctx)) {
        orl_model_free(m);
        return NULL;
    }
    if (!m) return NULL;
    m->reward_mean = f.reward_mean, m->reward_sd = f.reward_sd;
    m->condition = f.condition;
    if (f.condition.kind == ORL_CONDITION_BINS) m->classes = (size_t)f.condition.first_id;
    memcpy(m->stop, f.stop, sizeof f.stop);
    m->stops = f.stops;
    if (!m->stops && tok && orl_eos(tok) >= 0) m->config.eos = m->stop[m->stops++] = orl_eos(tok);
    orl_model_set_name(m, dir);
    m->from = orli_copy_string(ctx, dir);
    return m;
}

/* ---- adapters as PEFT has them ---- */

typedef struct orli_adapter_file { /* what adapter_config.json says */
    orl_lora_options o;
    orli_str targets, base;
    int lora, head; /* of peft_type; modules_to_save */
} orli_adapter_file;

static void orli_adapter_read_targets(orli_json *j, orli_adapter_file *f) {
    orli_str s = orli_str_new(j->ctx);
    f->targets.length = 0;
    if (orli_json_peek(j) == ORLI_JSON_STRING) { /* one word for all, or a pattern */
        if (orli_json_string(j, &s) && strcmp(s.data, "all-linear") != 0)
            orli_json_fail_at(j, j->start, "target_modules is the pattern \"%.60s\": a list is supported", s.data);
    } else {
        for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);)
            if (orli_json_string(j, &s)) orli_str_printf(&f->targets, "%s%s", f->targets.length ? "," : "", s.data);
    }
    orli_str_free(&s);
}

static void orli_adapter_read_head(orli_json *j, orli_adapter_file *f) {
    orli_str s = orli_str_new(j->ctx);
    if (!orli_json_null(j))
        for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
            if (!orli_json_string(j, &s)) break;
            if (strcmp(s.data, "score") == 0) f->head = 1;
            else if (strcmp(s.data, "classifier") != 0)
                orli_json_fail_at(j, j->start, "modules_to_save has \"%.60s\": only \"score\" is supported", s.data);
        }
    orli_str_free(&s);
}

/* A key that must be absent, null, false, empty or "none". */
static void orli_adapter_refuse(orli_json *j, const char *key) {
    static const char *const allowed[] = {"null", "false", "\"none\"", NULL};
    if (orli_json_peek(j) == ORLI_JSON_OBJECT) {
        for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);)
            orli_json_fail_at(j, j->start, "%s is not empty, which is not supported", key);
    } else orli_config_require(j, key, allowed);
}

static void orli_adapter_read(orli_json *j, orli_adapter_file *f) {
    static const char *const refused[] = {"use_dora", "bias", "rank_pattern", "alpha_pattern", "layers_to_transform",
                                          "layer_replication", "lora_bias", "target_parameters", "exclude_modules",
                                          "trainable_token_indices", "megatron_config", "use_qalora",
                                          "alora_invocation_tokens"};
    static const char *const lora[] = {"LORA", NULL};
    size_t i;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        for (i = 0; i < sizeof refused / sizeof *refused && !orli_json_is(j, refused[i]);) i++;
        if (i < sizeof refused / sizeof *refused) orli_adapter_refuse(j, refused[i]);
        else if (orli_json_is(j, "peft_type")) orli_config_word(j, "peft_type", lora), f->lora = 1;
        else if (orli_json_is(j, "r")) f->o.rank = (size_t)orli_json_int(j, 1, 1 << 20);
        else if (orli_json_is(j, "lora_alpha")) f->o.alpha = orli_json_number(j);
        else if (orli_json_is(j, "use_rslora")) f->o.root = orli_json_bool(j);
        else if (orli_json_is(j, "target_modules")) orli_adapter_read_targets(j, f);
        else if (orli_json_is(j, "modules_to_save")) orli_adapter_read_head(j, f);
        else if (orli_json_is(j, "base_model_name_or_path")) {
            if (!orli_json_null(j)) orli_json_string(j, &f->base);
        } else orli_json_skip(j);
    }
    orli_json_end(j);
}

static void orli_adapter_file_free(orli_adapter_file *f) {
    orli_str_free(&f->targets);
    orli_str_free(&f->base);
}

static orl_status orli_adapter_open(orl_ctx *ctx, const char *dir, orli_adapter_file *f) {
    orli_file file;
    orli_json j;
    char path[4096];
    memset(f, 0, sizeof *f);
    f->targets = orli_str_new(ctx), f->base = orli_str_new(ctx);
    f->o = orl_lora_default();
    if (orli_join(ctx, path, dir, "adapter_config.json") != ORL_OK || orli_file_open(ctx, path, &file) != ORL_OK)
        return orl_error_status(ctx);
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    orli_adapter_read(&j, f);
    orli_file_close(&file);
    if (!f->lora) orli_fail(ctx, ORL_ERR_FORMAT, "%s: no peft_type: it must be \"LORA\"", path);
    f->o.targets = f->targets.length ? f->targets.data : NULL;
    return orl_error_status(ctx);
}

/* Tensors of an adapter: A and B by module, B of a fused one with its parts as they lie in the whole. */
typedef struct orli_lora_source {
    const orl_model *m;
    const orli_weight_row *row;
    size_t layer;
} orli_lora_source;

static orli_disk_shape orli_lora_shape(const orl_model *m, const orli_weight_row *row) {
    orli_disk_shape s = orli_disk_shape_of(m, row);
    s.ins = m->lora.rank, s.transposed = 0;
    return s;
}
static void orli_lora_give(void *user, size_t first, size_t n, orl_real *out) {
    const orli_lora_source *s = (const orli_lora_source *)user;
    orli_disk_shape shape = orli_lora_shape(s->m, s->row);
    size_t i, part, at, slot = orli_slot(s->row->weight, s->layer);
    for (i = 0; i < n; i++) {
        at = orli_disk_from(&shape, first + i, &part);
        out[i] = s->m->up[slot + part]->data[at];
    }
}
static void orli_lora_name(char *name, size_t size, const orl_model *m, const orli_weight_row *row, size_t layer,
                           const char *which) {
    char module[160];
    orli_module_name(module, sizeof module, row, orli_families[m->config.arch].prefix, layer);
    snprintf(name, size, "base_model.model.%s.lora_%s.weight", module, which);
}

static orl_status orli_lora_save_weights(const orl_model *m, const char *path) {
    orl_ctx *ctx = m->object.ctx;
    orli_st_writer w = orli_st_writer_new(ctx);
    orli_lora_source *source =
        (orli_lora_source *)orli_alloc_zero(ctx, ORLI_W_PER_LAYER * m->config.layers, sizeof *source), *next = source;
    const orli_weight_row *row;
    size_t layer, shape[2];
    char name[220];
    orli_st_put_metadata(&w, "format", "pt");
    for (layer = 0; source && layer < m->config.layers; layer++)
        for (row = orli_families[m->config.arch].weights; row->name; row++) {
            const orl_param *down = orli_is_linear(row->weight) ? m->down[orli_slot(row->weight, layer)] : NULL;
            orli_disk_shape s;
            if (!down || row->third > 1) continue;
            orli_lora_name(name, sizeof name, m, row, layer, "A");
            shape[0] = down->rows, shape[1] = down->cols;
            orli_st_put_tensor(&w, name, ORLI_DTYPE_REAL, 2, shape, ORLI_DTYPE_REAL, down->data);
            orli_lora_name(name, sizeof name, m, row, layer, "B");
            s = orli_lora_shape(m, row);
            shape[0] = s.parts * s.outs, shape[1] = s.ins;
            next->m = m, next->row = row, next->layer = layer;
            orli_st_put_source(&w, name, ORLI_DTYPE_REAL, 2, shape, orli_lora_give, next++);
        }
    if (m->reward) {
        shape[0] = 1, shape[1] = m->config.dim;
        orli_st_put_tensor(&w, "base_model.model.score.weight", ORLI_DTYPE_REAL, 2, shape, ORLI_DTYPE_REAL,
                           m->weight[ORLI_W_SCORE]->data);
    }
    orli_st_save(&w, path);
    orli_free(ctx, source);
    return orl_error_status(ctx);
}

/* The targets as a list, or the last words of all modules that are adapted. */
static void orli_lora_put_targets(orli_str *s, const orl_model *m) {
    const orli_weight_row *row, *before;
    char module[160], other[160];
    const char *at = m->lora.targets;
    size_t n, written = 0;
    for (; at; at = at[n] ? at + n + 1 : NULL) {
        while (*at == ' ') at++;
        n = strcspn(at, ",");
        if (n) orli_str_puts(s, written++ ? ", " : ""), orli_json_put_string(s, at, n);
    }
    for (row = orli_families[m->config.arch].weights; !m->lora.targets && row->name; row++) {
        if (!orli_is_linear(row->weight) || !m->down[orli_slot(row->weight, 0)]) continue;
        orli_module_name(module, sizeof module, row, "", 0);
        for (before = orli_families[m->config.arch].weights; before < row; before++) {
            if (!orli_is_linear(before->weight)) continue;
            orli_module_name(other, sizeof other, before, "", 0);
            if (strcmp(strrchr(other, '.'), strrchr(module, '.')) == 0) break;
        }
        if (before < row) continue;
        orli_str_puts(s, written++ ? ", " : "");
        orli_json_put_string(s, strrchr(module, '.') + 1, strlen(strrchr(module, '.') + 1));
    }
}

static void orli_lora_write_config(orli_str *s, const orl_model *m) {
    const char *base = m->from ? m->from : m->name;
    orli_str_puts(s, "{\n  \"peft_type\": \"LORA\",\n  \"base_model_name_or_path\": ");
    orli_json_put_string(s, base, strlen(base));
    orli_str_printf(s, ",\n  \"task_type\": \"%s\",\n  \"inference_mode\": true,\n  \"r\": %zu,\n  \"lora_alpha\": ",
                    m->reward ? "SEQ_CLS" : "CAUSAL_LM", m->lora.rank);
    orli_json_put_double(s, m->lora.alpha);
    orli_str_printf(s, ",\n  \"use_rslora\": %s,\n  \"lora_dropout\": 0.0,\n  \"bias\": \"none\",\n  "
                    "\"fan_in_fan_out\": %s,\n  \"modules_to_save\": %s,\n  \"target_modules\": [",
                    m->lora.root ? "true" : "false", m->config.arch == ORL_GPT2 ? "true" : "false",
                    m->reward ? "[\"score\"]" : "null");
    orli_lora_put_targets(s, m);
    orli_str_puts(s, "]\n}\n");
}

/* What PEFT's configuration has no room for: the condition, a reward model's normalisation, a template's end token. */
static void orli_lora_write_own(orli_str *s, const orl_model *m) {
    orli_str_puts(s, "{\n");
    if (m->condition.kind != ORL_CONDITION_NONE) orli_config_write_condition(s, &m->condition);
    orli_config_write_reward(s, m);
    orli_config_write_stops(s, m);
    orli_str_printf(s, "  \"format\": 1\n}\n");
}

/* One tensor of an adapter, of that shape. */
static const orli_st_tensor *orli_lora_tensor(const orli_safetensors *st, uint8_t *used, const char *name, size_t rows,
                                              size_t cols) {
    const orli_st_tensor *t = orli_safetensors_find(st, name);
    if (!t) orli_fail(st->ctx, ORL_ERR_FORMAT, "%s: tensor \"%s\" is missing", st->path, name);
    else if (t->rank != 2 || t->shape[0] != rows || t->shape[1] != cols)
        orli_fail(st->ctx, ORL_ERR_FORMAT, "%s: tensor \"%s\" is not (%zu, %zu), as this model and rank ask for",
                  st->path, name, rows, cols);
    else used[t - st->tensor] = 1;
    return orl_failed(st->ctx) ? NULL : t;
}

static void orli_lora_load_layer(orl_model *m, const orli_safetensors *st, uint8_t *used, const orli_weight_row *row,
                                 size_t layer) {
    size_t slot = orli_slot(row->weight, layer), part = row->third ? (size_t)row->third - 1 : 0, r, run;
    orl_param *down = m->down[slot], *up = m->up[slot];
    orli_disk_shape s;
    const orli_st_tensor *t;
    char name[220];
    if (!down) return;
    orli_lora_name(name, sizeof name, m, row, layer, "A");
    if (!(t = orli_lora_tensor(st, used, name, down->rows, down->cols))) return;
    orli_safetensors_read(st, t, 0, down->rows * down->cols, down->data);
    s = orli_lora_shape(m, row);
    run = s.headwise ? s.d : s.outs;
    orli_lora_name(name, sizeof name, m, row, layer, "B");
    if (!(t = orli_lora_tensor(st, used, name, s.parts * s.outs, s.ins))) return;
    for (r = 0; r < s.outs; r += run)
        orli_safetensors_read(st, t, orli_disk_at(&s, part, r, 0), run * s.ins, up->data + r * s.ins);
    down->version++, up->version++;
}

static orl_status orli_lora_load_weights(orl_model *m, const char *path) {
    orl_ctx *ctx = m->object.ctx;
    orli_safetensors st;
    const orli_weight_row *row;
    const orli_st_tensor *t;
    uint8_t *used;
    size_t layer, i;
    if (orli_safetensors_open(ctx, path, &st) != ORL_OK) return orl_error_status(ctx);
    used = (uint8_t *)orli_alloc_zero(ctx, st.count, 1);
    for (layer = 0; used && layer < m->config.layers; layer++)
        for (row = orli_families[m->config.arch].weights; row->name; row++)
            if (orli_is_linear(row->weight) && !orl_failed(ctx)) orli_lora_load_layer(m, &st, used, row, layer);
    if (used && m->reward && (t = orli_lora_tensor(&st, used, "base_model.model.score.weight", 1, m->config.dim)))
        orli_safetensors_read(&st, t, 0, m->config.dim, m->weight[ORLI_W_SCORE]->data);
    for (i = 0; used && i < st.count && !orl_failed(ctx); i++)
        if (!used[i])
            orli_fail(ctx, ORL_ERR_FORMAT, "%s: tensor \"%s\" has no place in this %s model", path, st.tensor[i].name,
                      orli_families[m->config.arch].model_type);
    orli_free(ctx, used);
    orli_safetensors_close(&st);
    return orl_error_status(ctx);
}

/* orl_adapter.json, if there is one. */
static orl_status orli_lora_load_own(orl_model *m, const char *dir) {
    orl_ctx *ctx = m->object.ctx;
    orli_config_file f;
    orli_file file;
    orli_json j;
    char path[4096];
    if (orli_join(ctx, path, dir, "orl_adapter.json") != ORL_OK || !orli_exists(path)) return orl_error_status(ctx);
    if (orli_file_open(ctx, path, &file) != ORL_OK) return orl_error_status(ctx);
    memset(&f, 0, sizeof f);
    f.reward_mean = m->reward_mean, f.reward_sd = m->reward_sd;
    j = orli_json_new(ctx, file.data, file.size, path, 1);
    orli_config_read(&j, &f);
    orli_file_close(&file);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (f.condition.kind == ORL_CONDITION_BINS || !(f.reward_sd > 0))
        return orli_fail(ctx, ORL_ERR_FORMAT, "%s: an adapter's condition is a text, and a deviation positive", path);
    m->reward_mean = f.reward_mean, m->reward_sd = f.reward_sd;
    if (f.stops) memcpy(m->stop, f.stop, sizeof f.stop), m->stops = f.stops, m->config.eos = f.stop[0];
    if (f.condition.kind != ORL_CONDITION_NONE) m->condition = f.condition;
    return ORL_OK;
}

ORL_API orl_status orl_lora_load(orl_model *m, const char *dir) {
    orl_ctx *ctx = orl_model_ctx(m);
    orli_adapter_file f;
    char path[4096];
    if (!m || !dir || orl_failed(ctx)) return orl_error_status(ctx);
    if (orli_adapter_open(ctx, dir, &f) == ORL_OK && f.head && !m->reward)
        orli_fail(ctx, ORL_ERR_MISMATCH, "%s: is a reward model's adapter (modules_to_save), and %s is none", dir,
                  m->name);
    if (!orl_failed(ctx) && orl_lora_add(m, &f.o) == ORL_OK &&
        orli_join(ctx, path, dir, "adapter_model.safetensors") == ORL_OK) {
        if (orli_lora_load_weights(m, path) != ORL_OK || orli_lora_load_own(m, dir) != ORL_OK) orli_lora_drop(m);
    }
    orli_adapter_file_free(&f);
    return orl_error_status(ctx);
}

/* A directory with an adapter alone names its base: a path, as it is or from there. */
static orl_model *orli_model_load_any(orl_ctx *ctx, const char *dir, int frozen) {
    orli_adapter_file f;
    orl_model *m = NULL, *reward;
    char path[4096], config[4096];
    if (orl_failed(ctx) || !dir || orli_join(ctx, config, dir, "config.json") != ORL_OK ||
        orli_join(ctx, path, dir, "adapter_config.json") != ORL_OK)
        return NULL;
    if (orli_exists(config) || !orli_exists(path)) return orli_model_load(ctx, dir, frozen);
    if (orli_adapter_open(ctx, dir, &f) == ORL_OK && !f.base.length)
        orli_fail(ctx, ORL_ERR_FORMAT, "%s: has no base_model_name_or_path: load the base, then orl_lora_load()", path);
    if (!orl_failed(ctx) && !orli_exists(f.base.data) &&
        snprintf(path, sizeof path, "%s/%s", dir, f.base.data) < (int)sizeof path && orli_exists(path)) {
        m = orli_model_load(ctx, path, frozen);
    } else if (!orl_failed(ctx)) m = orli_model_load(ctx, f.base.data, frozen);
    if (m && f.head && !m->reward) { /* the trunk of a language model */
        reward = orl_reward_model(m);
        orl_model_free(m);
        m = reward;
    }
    if (m && orl_lora_load(m, dir) == ORL_OK) orl_model_set_name(m, dir);
    orli_adapter_file_free(&f);
    if (!m || !orl_failed(ctx)) return m;
    orl_model_free(m);
    return NULL;
}

ORL_API orl_model *orl_model_load(orl_ctx *ctx, const char *dir) { return orli_model_load_any(ctx, dir, 0); }
ORL_API orl_model *orl_model_load_frozen(orl_ctx *ctx, const char *dir) { return orli_model_load_any(ctx, dir, 1); }

typedef struct orli_weight_source { /* gives a tensor on disk from the one to three parameters that make it up */
    const orl_model *m;
    const orli_weight_row *row;
    size_t layer;
} orli_weight_source;

static void orli_weight_give(void *user, size_t first, size_t n, orl_real *out) {
    const orli_weight_source *s = (const orli_weight_source *)user;
    const orl_param *part[3] = {NULL, NULL, NULL};
    orli_disk_shape shape = orli_disk_shape_of(s->m, s->row);
    size_t i, which, at;
    for (i = 0; i < shape.parts; i++) /* q, k, v follow each other */
        part[i] = orli_model_weight(s->m, (orli_weight)(s->row->weight + i), s->layer);
    for (i = 0; i < n; i++) {
        at = orli_disk_from(&shape, first + i, &which);
        orli_param_read(part[which], at, 1, &out[i]);
    }
}

static orl_status orli_weights_save(const orl_model *m, const char *path, orli_dtype dtype) {
    orl_ctx *ctx = m->object.ctx;
    const orli_weight_row *row;
    orli_st_writer w = orli_st_writer_new(ctx);
    orli_weight_source *source;
    size_t layer, used = 0;
    source = (orli_weight_source *)orli_alloc_zero(ctx, ORLI_W_COUNT * m->config.layers, sizeof *source);
    orli_st_put_metadata(&w, "format", "pt");
    for (row = orli_families[m->config.arch].weights; source && row->name; row++) {
        if (row->third > 1) continue; /* its first third writes all */
        for (layer = 0; layer < ((int)row->weight < ORLI_W_FIRST_OF_LAYER ? 1 : m->config.layers); layer++) {
            const orl_param *p = orli_model_weight(m, row->weight, layer);
            orli_disk_shape s;
            size_t shape[2];
            char name[160];
            if (!p) continue;
            orli_weight_name(name, sizeof name, row, orli_families[m->config.arch].prefix, layer);
            s = orli_disk_shape_of(m, row);
            shape[0] = s.transposed ? s.ins : s.parts * s.outs;
            shape[1] = s.transposed ? s.parts * s.outs : s.ins;
            if (!s.transposed && !row->third && !p->int8 && (!p->half || dtype == ORLI_BF16)) { /* as it lies there */
                orli_st_put_tensor(&w, name, dtype, s.rank == 2 ? 2 : 1, shape, p->half ? ORLI_BF16 : ORLI_DTYPE_REAL,
                                   p->half ? (const void *)p->half : (const void *)p->data);
                continue;
            }
            source[used].m = m, source[used].row = row, source[used].layer = layer;
            orli_st_put_source(&w, name, dtype, p->rank >= 2 ? 2 : 1, shape, orli_weight_give, &source[used]);
            used++;
        }
    }
    orli_st_save(&w, path);
    orli_free(ctx, source);
    return orl_error_status(ctx);
}

/* config.json: ours, and what else the model came with; what follows from ours is not taken over. */
static void orli_model_write_config(const orl_model *m, const char *dir, orli_dtype dtype) {
    static const char *const without[] = {"torch_dtype", "dtype", "num_labels", "id2label", "label2id", "problem_type",
                                          "orl_reward", "orl_condition", "bos_token_id", "eos_token_id", NULL};
    orl_ctx *ctx = m->object.ctx;
    orli_str s = orli_str_new(ctx);
    char path[4096];
    size_t i = orli_kept_find(&m->kept, "config.json");
    orli_config_write(&s, m, dtype);
    if (i != ORLI_NONE && !s.failed)
        orli_json_add_others(&s, m->kept.file[i].bytes, m->kept.file[i].size, "config.json", without);
    if (!s.failed && orli_join(ctx, path, dir, "config.json") == ORL_OK) orli_write_file(ctx, path, s.data, s.length);
    orli_str_free(&s);
}

/* generation_config.json as it came, but for end tokens that a chat template has changed since. */
static void orli_model_write_generation(const orl_model *m, const char *dir) {
    static const char *const without[] = {NULL};
    orl_ctx *ctx = m->object.ctx;
    size_t i = orli_kept_find(&m->kept, "generation_config.json"), n;
    int32_t ids[8];
    char path[4096];
    orli_json j;
    orli_str s;
    if (i == ORLI_NONE || orl_failed(ctx)) return;
    j = orli_json_new(ctx, m->kept.file[i].bytes, m->kept.file[i].size, "generation_config.json", 1);
    n = orli_config_read_stops(&j, ids);
    if (!n || (n == m->stops && memcmp(ids, m->stop, n * sizeof *ids) == 0)) {
        orli_kept_write(ctx, &m->kept, i, dir);
        return;
    }
    s = orli_str_new(ctx);
    orli_str_puts(&s, "{\n");
    orli_config_write_stops(&s, m);
    orli_str_printf(&s, "  \"_from_model_config\": false\n}\n");
    if (!s.failed)
        orli_json_add_others(&s, m->kept.file[i].bytes, m->kept.file[i].size, "generation_config.json", without);
    if (!s.failed && orli_join(ctx, path, dir, "generation_config.json") == ORL_OK)
        orli_write_file(ctx, path, s.data, s.length);
    orli_str_free(&s);
}

static orl_status orli_model_write(const orl_model *m, const char *dir, orli_dtype dtype) {
    orl_ctx *ctx = m->object.ctx;
    char path[4096];
    if (orli_make_dir(ctx, dir) != ORL_OK) return orl_error_status(ctx);
    orli_model_write_config(m, dir, dtype);
    orli_model_write_generation(m, dir);
    if (m->tokenizer) orl_tokenizer_save(m->tokenizer, dir);
    if (!orl_failed(ctx) && orli_join(ctx, path, dir, "model.safetensors") == ORL_OK) orli_weights_save(m, path, dtype);
    return orl_error_status(ctx);
}

/* Removes what a failed save has left; a directory with anything else in it stays. */
static void orli_model_unwrite(const char *dir) {
    static const char *const weights[] = {"model.safetensors", "adapter_config.json", "orl_adapter.json",
                                          "adapter_model.safetensors", NULL};
    const char *const *lists[3], *const *name;
    char path[4096];
    size_t i;
    lists[0] = orli_model_files, lists[1] = orli_tokenizer_files, lists[2] = weights;
    for (i = 0; i < 3; i++)
        for (name = lists[i]; *name; name++)
            if (snprintf(path, sizeof path, "%s/%s", dir, *name) < (int)sizeof path) remove(path);
    rmdir(dir);
}

typedef orl_status (*orli_write_fn)(const orl_model *m, const char *dir, orli_dtype dtype);

/* A new directory by one rename, or into one that is there and has no such weights yet. */
static orl_status orli_save_dir(const orl_model *m, const char *dir, const char *weights, orli_write_fn write,
                                orli_dtype dtype) {
    orl_ctx *ctx = m->object.ctx;
    char path[4096];
    if (orli_exists(dir)) {
        if (orli_join(ctx, path, dir, weights) != ORL_OK) return orl_error_status(ctx);
        if (orli_exists(path))
            return orli_fail(ctx, ORL_ERR_EXISTS, "%s: is there already: choose another directory or remove it", path);
        return write(m, dir, dtype);
    }
    if (snprintf(path, sizeof path, "%s.writing", dir) >= (int)sizeof path)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%.80s…: the path is too long", dir);
    if (write(m, path, dtype) != ORL_OK) {
        orli_model_unwrite(path);
        return orl_error_status(ctx);
    }
    if (rename(path, dir) != 0)
        return orli_fail(ctx, ORL_ERR_IO, "%s: cannot be renamed to %s: %s", path, dir, strerror(errno));
    orli_sync_parent(dir);
    return ORL_OK;
}

static orl_status orli_lora_write(const orl_model *m, const char *dir, orli_dtype dtype) {
    static const char *const names[] = {"adapter_config.json", "orl_adapter.json"};
    static void (*const texts[])(orli_str *, const orl_model *) = {orli_lora_write_config, orli_lora_write_own};
    orl_ctx *ctx = m->object.ctx;
    char path[4096];
    size_t i;
    (void)dtype;
    if (orli_make_dir(ctx, dir) != ORL_OK) return orl_error_status(ctx);
    for (i = 0; i < 2 && !orl_failed(ctx); i++) {
        orli_str s = orli_str_new(ctx);
        texts[i](&s, m);
        if (!s.failed && orli_join(ctx, path, dir, names[i]) == ORL_OK) orli_write_file(ctx, path, s.data, s.length);
        orli_str_free(&s);
    }
    if (!orl_failed(ctx) && orli_join(ctx, path, dir, "adapter_model.safetensors") == ORL_OK)
        orli_lora_save_weights(m, path);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_lora_save(const orl_model *m, const char *dir) {
    orl_ctx *ctx = orl_model_ctx(m);
    if (!m || !dir || orl_failed(ctx)) return orl_error_status(ctx);
    if (!orl_has_lora(m))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_lora_save: %s has no adapter: orl_lora_add() makes one", m->name);
    return orli_save_dir(m, dir, "adapter_model.safetensors", orli_lora_write, ORLI_DTYPE_REAL);
}

static orl_status orli_lora_unsaved(const orl_model *m, const char *path) {
    if (!orl_has_lora(m)) return ORL_OK;
    return orli_fail(m->object.ctx, ORL_ERR_ARGUMENT,
                     "%s: the model has an adapter: orl_lora_save() writes it, orl_lora_merge() makes it part of the "
                     "weights", path);
}

static orl_status orli_model_save(const orl_model *m, const char *dir, orli_dtype dtype) {
    if (!m || !dir || orl_failed(m->object.ctx) || orli_lora_unsaved(m, dir) != ORL_OK)
        return orl_error_status(orl_model_ctx(m));
    return orli_save_dir(m, dir, "model.safetensors", orli_model_write, dtype);
}

ORL_API orl_status orl_model_save(const orl_model *m, const char *dir) {
    return orli_model_save(m, dir, ORLI_DTYPE_REAL);
}

ORL_API orl_status orl_model_save_as(const orl_model *m, const char *dir, orl_dtype dtype) {
    static const orli_dtype stored[] = {ORLI_F32, ORLI_F16, ORLI_BF16}; /* by orl_dtype */
    if (m && (int)dtype >= (int)ORL_F32 && (int)dtype <= (int)ORL_BF16) return orli_model_save(m, dir, stored[dtype]);
    return orli_fail(m ? m->object.ctx : NULL, ORL_ERR_ARGUMENT,
                     "orl_model_save_as: safetensors take F32, F16 and BF16: Q8_0 goes into a GGUF file");
}

/* ---- 11.6 llama2.c: seven int32 (dim, ffn, layers, heads, kv heads, vocab, context), then float32 weights
 * by kind; q and k have a head's pairs side by side, so they are dealt into halves ---- */

static const float *orli_llama2c_take(orl_model *m, orli_weight w, size_t layer, const float *at) {
    orl_param *p = orli_model_weight(m, w, layer);
    size_t d = m->config.head_dim, r, c;
    int paired = w == ORLI_W_Q || w == ORLI_W_K;
    for (r = 0; r < p->rows; r++) {
        size_t within = r % d, to = paired ? r - within + within / 2 + (within % 2 ? d / 2 : 0) : r;
        for (c = 0; c < p->cols; c++) {
            float x;
            memcpy(&x, at + r * p->cols + c, sizeof x); /* the file owes us no alignment */
            p->data[to * p->cols + c] = (orl_real)x;
        }
    }
    return at + p->rows * p->cols;
}

ORL_API orl_model *orl_model_load_llama2c(orl_ctx *ctx, const char *path, const char *tokenizer_file) {
    static const orli_weight order[] = {ORLI_W_NORM1, ORLI_W_Q,    ORLI_W_K,    ORLI_W_V, ORLI_W_O,
                                        ORLI_W_NORM2, ORLI_W_GATE, ORLI_W_DOWN, ORLI_W_UP};
    orli_file file;
    int32_t header[7];
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    orl_model *m = NULL;
    orl_tokenizer *tok = NULL;
    const float *at;
    size_t i, layer, numbers;
    if (orl_failed(ctx) || !path || orli_file_open(ctx, path, &file) != ORL_OK) return NULL;
    if (file.size < sizeof header) {
        orli_fail(ctx, ORL_ERR_FORMAT, "%s: %zu bytes are too few for a llama2.c header of 28", path, file.size);
        orli_file_close(&file);
        return NULL;
    }
    memcpy(header, file.data, sizeof header);
    c.tied = header[5] > 0;
    for (i = 0; i < 7; i++)
        if (header[i] == INT32_MIN || (i != 5 && header[i] < 1)) header[i] = 0;
    c.dim = (size_t)header[0], c.ffn = (size_t)header[1], c.layers = (size_t)header[2], c.heads = (size_t)header[3];
    c.kv_heads = (size_t)header[4], c.vocab = (size_t)(header[5] < 0 ? -header[5] : header[5]),
    c.context = (size_t)header[6];
    c.bos = 1, c.eos = 2;
    if (orli_config_check(ctx, &c, path) == ORL_OK) {
        size_t kv = c.kv_heads * c.head_dim,
               per = orli_add(orli_mul(c.dim, 2 * c.dim + 2 * kv + 2), orli_mul(3 * c.ffn, c.dim));
        numbers = orli_add(orli_add(orli_mul(c.vocab, c.dim), orli_mul(c.layers, per)), c.dim);
        numbers =
            orli_add(numbers, orli_add(orli_mul(c.context, c.head_dim), c.tied ? 0 : orli_mul(c.vocab, c.dim)));
        if (orli_mul(numbers, 4) != file.size - sizeof header)
            orli_fail(ctx, ORL_ERR_FORMAT,
                      "%s: its header asks for %zu numbers and the file has %zu bytes of them: it is cut off or no "
                      "llama2.c model",
                      path, numbers, file.size - sizeof header);
    }
    if (!orl_failed(ctx) && tokenizer_file) tok = orl_tokenizer_load_llama2c(ctx, tokenizer_file, c.vocab);
    if (!orl_failed(ctx)) m = orli_model_new(ctx, &c, tok, 0, 0);
    if (m) {
        at = orli_llama2c_take(m, ORLI_W_EMBED, 0, (const float *)(const void *)(file.data + sizeof header));
        for (i = 0; i < sizeof order / sizeof *order; i++)
            for (layer = 0; layer < c.layers; layer++) at = orli_llama2c_take(m, order[i], layer, at);
        at = orli_llama2c_take(m, ORLI_W_NORM, 0, at);
        at += c.context * c.head_dim; /* tables of the rotation, which we make ourselves */
        if (!c.tied) orli_llama2c_take(m, ORLI_W_HEAD, 0, at);
        m->stop[m->stops++] = 1; /* its stories end with the next one's BOS */
        orl_model_set_name(m, path);
    }
    orli_file_close(&file);
    return m;
}

/* ---- 11.7 GGUF, for llama.cpp ----
 * What its loader expects of each family: names of metadata and tensors as in its converter (github.com/ggml-org/
 * llama.cpp, conversion/ and gguf-py/gguf/constants.py). Vectors, norms and position embeddings stay F32. */

typedef struct orli_gguf_family {
    const char *arch;  /* llama.cpp's word; NULL: it does not know the family */
    const char *norm;  /* the key of the norm's epsilon */
    int fused;         /* q, k and v are one tensor */
    int rope;          /* it has rotary positions … */
    int paired;        /* … of neighbours, not of halves: rows of q and k are dealt accordingly */
    int head;          /* the language head is written even if it is the token embedding */
} orli_gguf_family;

static const orli_gguf_family orli_gguf_families[] = { /* by orl_arch */
    {"gpt2", "attention.layer_norm_epsilon", 1, 0, 0, 0},
    {"llama", "attention.layer_norm_rms_epsilon", 0, 1, 1, 0},
    {NULL, NULL, 0, 0, 0, 0}, /* GPT-Neo */
    {"gptneox", "attention.layer_norm_epsilon", 1, 1, 0, 1},
    {"llama", "attention.layer_norm_rms_epsilon", 0, 1, 1, 0}, /* Mistral */
    {"qwen2", "attention.layer_norm_rms_epsilon", 0, 1, 0, 0},
    {"qwen3", "attention.layer_norm_rms_epsilon", 0, 1, 0, 0},
    {"smollm3", "attention.layer_norm_rms_epsilon", 0, 1, 1, 0},
    {"gemma3", "attention.layer_norm_rms_epsilon", 0, 1, 0, 0}};

static const struct orli_gguf_row {
    orli_weight weight;
    const char *name; /* %zu is the layer */
    int fused;        /* of q, k and v: for families that fuse them (1) or do not (0); −1: for all */
} orli_gguf_rows[] = {
    {ORLI_W_EMBED, "token_embd.weight", -1},
    {ORLI_W_POSITION, "position_embd.weight", -1},
    {ORLI_W_NORM, "output_norm.weight", -1},
    {ORLI_W_NORM_B, "output_norm.bias", -1},
    {ORLI_W_HEAD, "output.weight", -1},
    {ORLI_W_NORM1, "blk.%zu.attn_norm.weight", -1},
    {ORLI_W_NORM1_B, "blk.%zu.attn_norm.bias", -1},
    {ORLI_W_Q, "blk.%zu.attn_qkv.weight", 1},
    {ORLI_W_Q_B, "blk.%zu.attn_qkv.bias", 1},
    {ORLI_W_Q, "blk.%zu.attn_q.weight", 0},
    {ORLI_W_Q_B, "blk.%zu.attn_q.bias", 0},
    {ORLI_W_K, "blk.%zu.attn_k.weight", 0},
    {ORLI_W_K_B, "blk.%zu.attn_k.bias", 0},
    {ORLI_W_V, "blk.%zu.attn_v.weight", 0},
    {ORLI_W_V_B, "blk.%zu.attn_v.bias", 0},
    {ORLI_W_Q_NORM, "blk.%zu.attn_q_norm.weight", -1},
    {ORLI_W_K_NORM, "blk.%zu.attn_k_norm.weight", -1},
    {ORLI_W_O, "blk.%zu.attn_output.weight", -1},
    {ORLI_W_O_B, "blk.%zu.attn_output.bias", -1},
    {ORLI_W_POST1, "blk.%zu.post_attention_norm.weight", -1},
    {ORLI_W_NORM2, "blk.%zu.ffn_norm.weight", -1},
    {ORLI_W_NORM2_B, "blk.%zu.ffn_norm.bias", -1},
    {ORLI_W_GATE, "blk.%zu.ffn_gate.weight", -1},
    {ORLI_W_GATE_B, "blk.%zu.ffn_gate.bias", -1},
    {ORLI_W_UP, "blk.%zu.ffn_up.weight", -1},
    {ORLI_W_UP_B, "blk.%zu.ffn_up.bias", -1},
    {ORLI_W_DOWN, "blk.%zu.ffn_down.weight", -1},
    {ORLI_W_DOWN_B, "blk.%zu.ffn_down.bias", -1},
    {ORLI_W_POST2, "blk.%zu.post_ffw_norm.weight", -1},
};
#define ORLI_GGUF_ROWS (sizeof orli_gguf_rows / sizeof *orli_gguf_rows)

/* ---- its tensors ---- */

typedef struct orli_gguf_tensor {
    const orl_model *m;
    const struct orli_gguf_row *row;
    orli_weight weight; /* what it is made of: the row's, but for a head that is the embedding */
    size_t layer;
} orli_gguf_tensor;

/* Row `to` of q or k is row … of ours: a head of ours has the first halves of all pairs, then the second ones. */
static size_t orli_gguf_pair(size_t to, size_t head) {
    size_t within = to % head;
    return to - within + within / 2 + (within % 2 ? head / 2 : 0);
}

/* One parameter's row r; of a vector, all of it. */
static void orli_gguf_give_part(const orl_model *m, orli_weight w, size_t layer, size_t r, orl_real *out) {
    const orl_param *p = orli_model_weight(m, w, layer);
    int key = w == ORLI_W_K || w == ORLI_W_K_B, vector = p->rank < 2;
    int paired = orli_gguf_families[m->config.arch].paired && (key || w == ORLI_W_Q || w == ORLI_W_Q_B);
    size_t head = (vector ? p->cols : p->rows) / (key ? m->config.kv_heads : m->config.heads), i;
    if (paired && !vector) r = orli_gguf_pair(r, head);
    orli_param_read(p, r * p->cols, p->cols, out);
    for (i = 0; paired && vector && i < p->cols; i++) out[i] = p->data[orli_gguf_pair(i, head)];
}

static void orli_gguf_give(void *user, size_t r, orl_real *out) {
    const orli_gguf_tensor *t = (const orli_gguf_tensor *)user;
    int plus_one = orli_families[t->m->config.arch].traits & ORLI_NORM_PLUS_ONE && strstr(t->row->name, "norm.w");
    int parts = t->row->fused == 1 ? 3 : 1, k; /* q, k, v follow each other */
    size_t i;
    for (k = 0; k < parts; k++) {
        orli_weight w = (orli_weight)((int)t->weight + k);
        const orl_param *p = orli_model_weight(t->m, w, t->layer);
        if (p->rank < 2) {
            orli_gguf_give_part(t->m, w, t->layer, 0, out);
            for (i = 0; plus_one && i < p->cols; i++) out[i] += 1;
            out += p->cols;
        } else if (r < p->rows) {
            orli_gguf_give_part(t->m, w, t->layer, r, out);
            return;
        } else {
            r -= p->rows;
        }
    }
}

/* Declares the tensor of a row of the table, if the model has it. */
static void orli_gguf_put_weight(orli_gguf *g, orli_gguf_tensor *t, orl_dtype dtype) {
    const orl_param *p = orli_model_weight(t->m, t->weight, t->layer), *part;
    orli_weight_row named;
    size_t rows = 0, cols = 0, k;
    char name[160];
    if (!p) return;
    memset(&named, 0, sizeof named);
    named.weight = t->row->weight, named.name = t->row->name;
    orli_weight_name(name, sizeof name, &named, "", t->layer);
    for (k = 0; k < (t->row->fused == 1 ? 3u : 1u); k++) {
        part = orli_model_weight(t->m, (orli_weight)((size_t)t->weight + k), t->layer);
        if (p->rank < 2) rows = 1, cols += part->cols;
        else rows += part->rows, cols = part->cols;
    }
    if (p->rank < 2 || t->row->weight == ORLI_W_POSITION) dtype = ORL_F32;
    orli_gguf_put_tensor(g, name, dtype, p->rank < 2 ? 1 : 2, rows, cols, orli_gguf_give, t);
}

/* tensor: room for ORLI_GGUF_ROWS of each layer. */
static void orli_gguf_put_weights(orli_gguf *g, const orl_model *m, orl_dtype dtype, orli_gguf_tensor *tensor) {
    const orli_gguf_family *family = &orli_gguf_families[m->config.arch];
    size_t i, layer, layers, other = 0;
    for (i = 0; i < ORLI_GGUF_ROWS; i++) {
        const struct orli_gguf_row *row = &orli_gguf_rows[i];
        if (row->fused >= 0 && row->fused != family->fused) continue;
        layers = (int)row->weight < ORLI_W_FIRST_OF_LAYER ? 1 : m->config.layers;
        for (layer = 0; layer < layers; layer++, tensor++) {
            tensor->m = m, tensor->row = row, tensor->weight = row->weight, tensor->layer = layer;
            if (row->weight == ORLI_W_HEAD && m->config.tied && family->head) tensor->weight = ORLI_W_EMBED;
            orli_gguf_put_weight(g, tensor, dtype);
        }
    }
    for (i = 0; i < g->entries; i++) other += dtype == ORL_Q8_0 && g->entry[i].dtype == ORL_F16;
    if (other)
        orli_note(g->ctx, "%zu tensors are stored in F16: their rows are no multiple of Q8_0's blocks of 32", other);
}

/* ---- its settings ---- */

static void orli_gguf_put_size(orli_gguf *g, const char *arch, const char *key, size_t x) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    orli_gguf_put_u32(g, name, x);
}
static void orli_gguf_put_real(orli_gguf *g, const char *arch, const char *key, double x) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    orli_gguf_put_f32(g, name, x);
}

/* Of Llama 3's scaling llama.cpp is told what the frequency of each pair is divided by. */
static orl_rotation orli_gguf_rotation(const orl_model *m) {
    orl_rotation r = m->config.rope;
    if (!r.width) r.width = orli_model_weight(m, ORLI_W_Q, 0)->rows / m->config.heads;
    return r;
}
static void orli_gguf_give_factors(void *user, size_t row, orl_real *out) {
    orl_rotation scaled = orli_gguf_rotation((const orl_model *)user), plain = scaled;
    size_t i;
    (void)row;
    plain.factor = 0;
    for (i = 0; i < scaled.width / 2; i++)
        out[i] = (orl_real)(orli_rope_frequency(&plain, i) / orli_rope_frequency(&scaled, i));
}

static void orli_gguf_put_rope(orli_gguf *g, const orl_model *m, const char *arch) {
    const orl_model_config *c = &m->config;
    orl_rotation r = orli_gguf_rotation(m);
    char name[96];
    orli_gguf_put_size(g, arch, "rope.dimension_count", r.width);
    orli_gguf_put_real(g, arch, "rope.freq_base", r.theta);
    if (c->local_theta > 0) orli_gguf_put_real(g, arch, "rope.freq_base_swa", c->local_theta);
    if (r.factor > 0 && r.original) {
        orli_gguf_put_tensor(g, "rope_freqs.weight", ORL_F32, 1, 1, r.width / 2, orli_gguf_give_factors,
                             (void *)(uintptr_t)m);
    } else if (r.factor > 0) {
        snprintf(name, sizeof name, "%s.rope.scaling.type", arch);
        orli_gguf_put_text(g, name, "linear");
        orli_gguf_put_real(g, arch, "rope.scaling.factor", r.factor);
    }
}

static void orli_gguf_put_config(orli_gguf *g, const orl_model *m, orl_dtype dtype) {
    const orl_model_config *c = &m->config;
    const orli_gguf_family *family = &orli_gguf_families[c->arch];
    const char *arch = family->arch, *slash = strrchr(m->name, '/');
    size_t head = orli_model_weight(m, ORLI_W_Q, 0)->rows / c->heads;
    char name[96];
    orli_gguf_put_text(g, "general.architecture", arch);
    orli_gguf_put_text(g, "general.type", "model");
    orli_gguf_put_text(g, "general.name", slash && slash[1] ? slash + 1 : m->name);
    orli_gguf_put_u32(g, "general.file_type", orli_ggml_types[dtype].file);
    orli_gguf_put_u32(g, "general.quantization_version", 2);
    orli_gguf_put_size(g, arch, "vocab_size", orli_model_weight(m, ORLI_W_EMBED, 0)->rows);
    orli_gguf_put_size(g, arch, "context_length", c->context);
    orli_gguf_put_size(g, arch, "embedding_length", c->dim);
    orli_gguf_put_size(g, arch, "block_count", c->layers);
    orli_gguf_put_size(g, arch, "feed_forward_length", c->ffn);
    orli_gguf_put_size(g, arch, "attention.head_count", c->heads);
    orli_gguf_put_size(g, arch, "attention.head_count_kv", c->kv_heads);
    orli_gguf_put_size(g, arch, "attention.key_length", head);
    orli_gguf_put_size(g, arch, "attention.value_length", head);
    orli_gguf_put_real(g, arch, family->norm, c->norm_eps);
    if (c->arch == ORL_GEMMA3) orli_gguf_put_size(g, arch, "attention.sliding_window", c->window);
    snprintf(name, sizeof name, "%s.use_parallel_residual", arch);
    if (c->arch == ORL_GPT_NEOX) orli_gguf_put_bool(g, name, c->parallel);
    if (family->rope) orli_gguf_put_rope(g, m, arch);
}

/* What llama.cpp would compute otherwise than this model does; NULL: nothing. It knows the layers of a family, and what
 * their scores are divided by, by itself. */
static const char *orli_gguf_differs(const orl_model *m) {
    const orl_model_config *c = &m->config;
    int gemma = c->arch == ORL_GEMMA3, gated = orli_model_weight(m, ORLI_W_GATE, 0) != NULL, expected;
    size_t l, head = orli_model_weight(m, ORLI_W_Q, 0)->rows / c->heads;
    double scalar = (double)(gemma && c->layers == 62 ? c->dim / c->heads : head); /* Gemma 3 27B */
    if (gated ? c->activation != (gemma ? ORL_GELU : ORL_SILU) : c->activation == ORL_SILU) return "its activation";
    if (c->by_layer || fabs((c->query_scalar > 0 ? c->query_scalar : (double)head) - scalar) > 1e-6)
        return "what attention scores are divided by";
    if (c->rope.factor > 0 && c->rope.original && !orli_gguf_families[c->arch].paired) return "its rope_scaling";
    if (c->rope.factor > 0 && c->rope.original && c->arch == ORL_SMOLLM3) return "its rope_scaling";
    if (gemma && fabs(c->local_theta - 10000) > 1e-6) return "rope_local_base_freq";
    if ((gemma || c->arch == ORL_QWEN3) && c->attention_bias) return "its biases";
    if (c->arch == ORL_GPT_NEOX && !c->attention_bias) return "that it has no biases";
    for (l = 0; l < c->layers; l++) {
        expected = gemma && (l + 1) % 6                       ? ORL_LAYER_LOCAL
                   : c->arch == ORL_SMOLLM3 && (l + 1) % 4 == 0 ? ORL_LAYER_UNROTATED
                                                                : 0;
        if ((c->layer[l] & (gemma ? ORL_LAYER_LOCAL | ORL_LAYER_UNROTATED : ORL_LAYER_UNROTATED)) != expected)
            return "which of its layers are local or know no positions";
    }
    return NULL;
}

/* … and what it does not apply, and the model can do without. */
static void orli_gguf_note(const orl_model *m, const char *path) {
    const orl_model_config *c = &m->config;
    size_t l, local = 0;
    for (l = 0; l < c->layers && c->arch != ORL_GEMMA3; l++) local += (c->layer[l] & ORL_LAYER_LOCAL) != 0;
    if (local && c->window < c->context)
        orli_note(m->object.ctx, "%s: llama.cpp lets %zu layers see more than their %zu last tokens", path, local,
                  c->window);
    if (m->condition.kind != ORL_CONDITION_NONE)
        orli_note(m->object.ctx, "%s: llama.cpp knows nothing of the model's condition: prompts must carry it", path);
}

/* ---- its tokenizer ---- */

enum { ORLI_GGUF_NORMAL = 1, ORLI_GGUF_UNKNOWN, ORLI_GGUF_CONTROL, ORLI_GGUF_USER, ORLI_GGUF_UNUSED, ORLI_GGUF_BYTE };

static int32_t orli_gguf_token_type(const orl_tokenizer *tok, size_t id) {
    const orli_token *t = id < tok->tokens ? &tok->token[id] : NULL;
    const orli_name *name = t && t->text ? &tok->names.name[t->name] : NULL;
    if (!name) return ORLI_GGUF_UNUSED;
    if (tok->sentencepiece && (int32_t)id == tok->unk) return ORLI_GGUF_UNKNOWN;
    if (t->special) return ORLI_GGUF_CONTROL;
    if (t->added) return ORLI_GGUF_USER;
    return tok->sentencepiece && orli_byte_token(name->text, name->length) >= 0 ? ORLI_GGUF_BYTE : ORLI_GGUF_NORMAL;
}

/* Spellings and types of `vocab` ids; what no token has gets a name that no token has. */
static void orli_gguf_put_tokens(orli_gguf *g, const orl_tokenizer *tok, size_t vocab) {
    size_t i, n;
    char pad[48];
    orli_gguf_array(g, "tokenizer.ggml.tokens", ORLI_GGUF_TEXT, vocab);
    for (i = 0; i < vocab; i++) {
        if (orli_gguf_token_type(tok, i) != ORLI_GGUF_UNUSED) {
            const orli_name *name = &tok->names.name[tok->token[i].name];
            orli_gguf_text(&g->pairs, name->text, name->length);
            continue;
        }
        n = (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i);
        while (orli_spelling_id(tok, pad, n) >= 0 && n + 1 < sizeof pad) pad[n++] = ']', pad[n] = 0;
        orli_gguf_text(&g->pairs, pad, n);
    }
    orli_gguf_array(g, "tokenizer.ggml.token_type", ORLI_GGUF_I32, vocab);
    for (i = 0; i < vocab; i++) orli_gguf_u32(&g->pairs, (uint32_t)orli_gguf_token_type(tok, i));
}

/* "llama": pairs are merged by the score of what they make, which is how early we would make it. */
static void orli_gguf_put_scores(orli_gguf *g, const orl_tokenizer *tok, size_t vocab) {
    float *score = (float *)orli_alloc(g->ctx, vocab, sizeof *score);
    size_t i;
    if (!score) return;
    for (i = 0; i < vocab; i++) {
        int32_t type = orli_gguf_token_type(tok, i);
        score[i] = type == ORLI_GGUF_NORMAL ? -(float)(tok->merges + 1) : 0;
    }
    for (i = tok->merges; i-- > 0;) /* the first that makes it counts */
        if ((size_t)tok->merge[i].id < vocab) score[tok->merge[i].id] = -(float)i;
    orli_gguf_array(g, "tokenizer.ggml.scores", ORLI_GGUF_F32, vocab);
    orli_str_add(&g->pairs, (const char *)score, vocab * sizeof *score);
    orli_free(g->ctx, score);
}

static void orli_gguf_put_merges(orli_gguf *g, const orl_tokenizer *tok) {
    size_t i;
    orli_gguf_array(g, "tokenizer.ggml.merges", ORLI_GGUF_TEXT, tok->merges);
    for (i = 0; i < tok->merges; i++) {
        const orli_name *left = &tok->names.name[tok->token[tok->merge[i].left].name],
                        *right = &tok->names.name[tok->token[tok->merge[i].right].name];
        orli_gguf_u64(&g->pairs, left->length + 1 + right->length);
        orli_str_add(&g->pairs, left->text, left->length);
        orli_str_add(&g->pairs, " ", 1);
        orli_str_add(&g->pairs, right->text, right->length);
    }
}

/* What llama.cpp calls the way text falls into words; NULL: it has none like it. */
static const char *orli_gguf_pre(const orl_tokenizer *tok) {
    if (tok->digits) return tok->split == ORLI_SPLIT_GPT2 && tok->digits == 1 ? "smollm" : NULL;
    switch (tok->split) {
    case ORLI_SPLIT_GPT2: return "gpt-2";
    case ORLI_SPLIT_LLAMA3: return "llama-bpe";
    case ORLI_SPLIT_QWEN2: return "qwen2";
    case ORLI_SPLIT_O200K: return "gpt-4o";
    case ORLI_SPLIT_TEKKEN: return "tekken";
    default: return NULL;
    }
}

/* "chat_template" of tokenizer_config.json: a text, or a list of named ones of which "default" is taken. */
static void orli_gguf_read_template(orli_json *j, orli_str *out) {
    orli_str name = orli_str_new(j->ctx), text = orli_str_new(j->ctx);
    if (orli_json_peek(j) == ORLI_JSON_STRING) orli_json_string(j, out);
    else if (orli_json_peek(j) != ORLI_JSON_ARRAY) orli_json_skip(j);
    else
        for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j);) {
            for (name.length = 0, orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
                if (orli_json_is(j, "name")) orli_json_string(j, &name);
                else if (orli_json_is(j, "template")) orli_json_string(j, &text);
                else orli_json_skip(j);
            }
            if (name.length && text.data && strcmp(name.data, "default") == 0) {
                out->length = 0;
                orli_str_add(out, text.data, text.length);
            }
        }
    orli_str_free(&name);
    orli_str_free(&text);
}

static void orli_gguf_put_template(orli_gguf *g, const orl_tokenizer *tok) {
    size_t jinja = orli_kept_find(&tok->kept, "chat_template.jinja"),
           config = orli_kept_find(&tok->kept, "tokenizer_config.json");
    orli_str s = orli_str_new(g->ctx);
    if (jinja != ORLI_NONE) {
        orli_str_add(&s, tok->kept.file[jinja].bytes, tok->kept.file[jinja].size);
    } else if (config != ORLI_NONE) {
        orli_json j = orli_json_new(g->ctx, tok->kept.file[config].bytes, tok->kept.file[config].size,
                                    "tokenizer_config.json", 1);
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            if (orli_json_is(&j, "chat_template")) orli_gguf_read_template(&j, &s);
            else orli_json_skip(&j);
        }
    }
    if (s.length && !s.failed) orli_gguf_put_text(g, "tokenizer.chat_template", s.data);
    orli_str_free(&s);
}

static void orli_gguf_put_id(orli_gguf *g, const char *key, int32_t id) {
    if (id >= 0) orli_gguf_put_u32(g, key, (size_t)id);
}

static void orli_gguf_put_tokenizer(orli_gguf *g, const orl_model *m, const char *path) {
    const orl_tokenizer *tok = m->tokenizer;
    size_t vocab = orli_model_weight(m, ORLI_W_EMBED, 0)->rows;
    const char *pre = tok ? orli_gguf_pre(tok) : NULL;
    if (!tok) {
        orli_gguf_put_text(g, "tokenizer.ggml.model", "none");
        return;
    }
    if (!tok->sentencepiece && !pre) {
        orli_fail(g->ctx, ORL_ERR_ARGUMENT, "%s: llama.cpp does not split text into words as this tokenizer does",
                  path);
        return;
    }
    orli_gguf_put_text(g, "tokenizer.ggml.model", tok->sentencepiece ? "llama" : "gpt2");
    orli_gguf_put_text(g, "tokenizer.ggml.pre", tok->sentencepiece ? "default" : pre);
    orli_gguf_put_tokens(g, tok, vocab);
    if (tok->sentencepiece) orli_gguf_put_scores(g, tok, vocab);
    else orli_gguf_put_merges(g, tok);
    orli_gguf_put_id(g, "tokenizer.ggml.bos_token_id", tok->bos >= 0 ? tok->bos : m->config.bos);
    orli_gguf_put_id(g, "tokenizer.ggml.eos_token_id", m->stops ? m->stop[0] : tok->eos);
    if (m->stops > 1) orli_gguf_put_id(g, "tokenizer.ggml.eot_token_id", m->stop[1]);
    orli_gguf_put_id(g, "tokenizer.ggml.unknown_token_id", tok->unk);
    orli_gguf_put_bool(g, "tokenizer.ggml.add_bos_token", orl_bos(tok) >= 0);
    orli_gguf_put_bool(g, "tokenizer.ggml.add_eos_token", 0);
    orli_gguf_put_bool(g, "tokenizer.ggml.add_space_prefix", tok->prefix != ORLI_PREFIX_NONE);
    orli_gguf_put_template(g, tok);
}

ORL_API orl_status orl_model_save_gguf(const orl_model *m, const char *path, orl_dtype dtype) {
    orl_ctx *ctx = m ? m->object.ctx : NULL;
    orli_gguf_tensor *tensor;
    orli_gguf g;
    if (!m || orl_failed(ctx)) return orl_error_status(ctx);
    if (!path || (int)dtype < (int)ORL_F32 || (int)dtype > (int)ORL_Q8_0)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_model_save_gguf: a path, and F32, F16, BF16 or Q8_0 are needed");
    if (!orli_gguf_families[m->config.arch].arch)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%s: llama.cpp does not know the family %s: save a directory instead",
                         path, orli_families[m->config.arch].model_type);
    if (orli_lora_unsaved(m, path) != ORL_OK) return orl_error_status(ctx);
    if (orli_lora_unsaved(m, path) != ORL_OK) return orl_error_status(ctx);
    if (m->reward)
        return orli_fail(ctx, ORL_ERR_ARGUMENT,
                         "%s: GGUF is for language models: llama.cpp does not read a reward model's head", path);
    if (orli_gguf_differs(m))
        return orli_fail(ctx, ORL_ERR_ARGUMENT,
                         "%s: llama.cpp's %s models differ in %s: save a directory instead", path,
                         orli_gguf_families[m->config.arch].arch, orli_gguf_differs(m));
    orli_gguf_note(m, path);
    g = orli_gguf_new(ctx);
    tensor = (orli_gguf_tensor *)orli_alloc(ctx, orli_mul(ORLI_GGUF_ROWS, m->config.layers), sizeof *tensor);
    if (tensor) {
        orli_gguf_put_config(&g, m, dtype);
        orli_gguf_put_tokenizer(&g, m, path);
        orli_gguf_put_weights(&g, m, dtype, tensor);
    }
    orli_gguf_save(&g, path);
    orli_free(ctx, tensor);
    return orl_error_status(ctx);
}
#endif /* section 11 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 12
/* =================================================================================================
 * >>generate   12. GENERATE: a paged KV cache, continuous batching, sampling
 * =================================================================================================
 * Purpose:    many prompts × many samples at once, with the forward pass of section 11.
 * Depends on: model.                Owns: the cache's pages, for the length of one call.
 * Invariants: a sample's tokens depend only on (model, seed, prompt index, sample index): a row of a
 *             matrix product, an attention query and a random draw do not know who else is in the
 *             batch. A prompt is computed once; its samples share its pages and copy one when they
 *             write to it. Sequences run only if the cache's bound holds all that they may come to.
 * Threads:    a step's rows, heads and draws are spread over the pool.
 * Tested by:  tests/test_12_generate.c, tests/test_12_sampling.c */

/* ---- 12.1 pages: ORLI_TILE positions of every layer's and kv head's keys and values ---- */

#define ORLI_PAGES_PER_CHUNK ((size_t)64)

typedef struct orli_pages {
    orl_ctx *ctx;
    size_t kv_heads, d, page; /* page: reals per page */
    orl_real **chunk;
    size_t chunks, chunk_capacity;
    uint32_t *references;     /* (pages) */
    size_t *unused;           /* stack of free page numbers */
    size_t pages, free_pages, reference_capacity, unused_capacity;
    size_t limit;             /* most pages */
} orli_pages;

typedef struct orli_sequence { /* a page table */
    size_t *page;
    size_t capacity, length;   /* length: positions held */
} orli_sequence;

static orli_pages orli_pages_new(const orl_model *m, size_t bytes) { /* bytes: most of them; 0: no bound */
    orli_pages p;
    memset(&p, 0, sizeof p);
    p.ctx = m->object.ctx;
    p.kv_heads = m->config.kv_heads;
    p.d = m->config.head_dim;
    p.page = m->config.layers * p.kv_heads * 2 * ORLI_TILE * p.d;
    p.limit = bytes ? bytes / (p.page * sizeof(orl_real)) : SIZE_MAX;
    return p;
}

static void orli_pages_free(orli_pages *p) {
    size_t i;
    for (i = 0; i < p->chunks; i++) orli_free(p->ctx, p->chunk[i]);
    orli_free(p->ctx, p->chunk);
    orli_free(p->ctx, p->references);
    orli_free(p->ctx, p->unused);
}

static orl_real *orli_page_at(const orli_pages *p, size_t page) {
    return p->chunk[page / ORLI_PAGES_PER_CHUNK] + page % ORLI_PAGES_PER_CHUNK * p->page;
}
/* The tile of keys of (page, layer, kv head): (d, tile); that of values, (tile, d), follows it. */
static orl_real *orli_page_tile(const orli_pages *p, size_t page, size_t layer, size_t head) {
    return orli_page_at(p, page) + (layer * p->kv_heads + head) * 2 * ORLI_TILE * p->d;
}

static orl_status orli_page_take(orli_pages *p, size_t *page) {
    size_t i;
    if (!p->free_pages) {
        size_t fresh = ORLI_MIN(ORLI_PAGES_PER_CHUNK, p->limit - p->pages), more = p->pages + fresh;
        ORL_ASSERT(fresh > 0); /* who takes a page has counted them */
        if (ORLI_RESERVE(p->ctx, p->chunk, p->chunk_capacity, p->chunks + 1) != ORL_OK ||
            ORLI_RESERVE(p->ctx, p->references, p->reference_capacity, more) != ORL_OK ||
            ORLI_RESERVE(p->ctx, p->unused, p->unused_capacity, more) != ORL_OK)
            return ORL_ERR_MEMORY;
        p->chunk[p->chunks] = (orl_real *)orli_alloc(p->ctx, orli_mul(p->page, fresh), sizeof(orl_real));
        if (!p->chunk[p->chunks]) return ORL_ERR_MEMORY;
        p->chunks++;
        for (i = more; i > p->pages; i--) p->unused[p->free_pages++] = i - 1;
        p->pages = more;
    }
    *page = p->unused[--p->free_pages];
    p->references[*page] = 1;
    return ORL_OK;
}

static void orli_sequence_release(orli_pages *p, orli_sequence *s) {
    size_t i, n = (s->length + ORLI_TILE - 1) / ORLI_TILE;
    for (i = 0; i < n; i++)
        if (--p->references[s->page[i]] == 0) p->unused[p->free_pages++] = s->page[i];
    orli_free(p->ctx, s->page);
    memset(s, 0, sizeof *s);
}

/* Another sequence that shares all pages of `from`. */
static orl_status orli_sequence_fork(orli_pages *p, const orli_sequence *from, orli_sequence *to) {
    size_t i, n = (from->length + ORLI_TILE - 1) / ORLI_TILE;
    memset(to, 0, sizeof *to);
    if (ORLI_RESERVE(p->ctx, to->page, to->capacity, n) != ORL_OK) return ORL_ERR_MEMORY;
    for (i = 0; i < n; i++) p->references[to->page[i] = from->page[i]]++;
    to->length = from->length;
    return ORL_OK;
}

/* Makes room for n more positions in pages that are this sequence's alone. */
static orl_status orli_sequence_extend(orli_pages *p, orli_sequence *s, size_t n) {
    size_t have = (s->length + ORLI_TILE - 1) / ORLI_TILE, need = (s->length + n + ORLI_TILE - 1) / ORLI_TILE;
    if (ORLI_RESERVE(p->ctx, s->page, s->capacity, need) != ORL_OK) return ORL_ERR_MEMORY;
    if (n && s->length % ORLI_TILE && p->references[s->page[have - 1]] > 1) { /* copy on write */
        size_t fresh;
        if (orli_page_take(p, &fresh) != ORL_OK) return ORL_ERR_MEMORY;
        memcpy(orli_page_at(p, fresh), orli_page_at(p, s->page[have - 1]), p->page * sizeof(orl_real));
        p->references[s->page[have - 1]]--;
        s->page[have - 1] = fresh;
    }
    for (; have < need; have++) {
        if (orli_page_take(p, &s->page[have]) != ORL_OK) {
            s->length = have * ORLI_TILE; /* what has been taken is given back by release */
            return ORL_ERR_MEMORY;
        }
    }
    s->length += n;
    return ORL_OK;
}

/* ---- 12.2 attention over pages: segment i of the stream continues sequence i ---- */

typedef struct orli_cache {
    orli_pages *pages;
    orli_sequence **sequence; /* (segments of the stream), already extended by their new tokens */
} orli_cache;

typedef struct orli_cached_job {
    orl_ctx *ctx;
    const orli_cache *cache;
    const orl_stream *stream;
    size_t layer, heads, kv_heads, d, most; /* most: tiles of the longest sequence */
    size_t window;
    orl_real scale;
    const orl_real *q, *k, *v;
    orl_real *y, *lse;
    const orl_real **pointers;              /* (segments, kv_heads, 2, most) */
} orli_cached_job;

static void orli_cached_store(void *arg, size_t task, size_t worker) { /* one segment, one kv head */
    const orli_cached_job *j = (const orli_cached_job *)arg;
    size_t s = task / j->kv_heads, h = task % j->kv_heads, i, c, d = j->d;
    const orl_segment *g = &j->stream->segment[s];
    const orli_sequence *seq = j->cache->sequence[s];
    const orl_real **kp = j->pointers + task * 2 * j->most, **vp = kp + j->most;
    (void)worker;
    for (i = 0; i * ORLI_TILE < seq->length; i++) {
        kp[i] = orli_page_tile(j->cache->pages, seq->page[i], j->layer, h);
        vp[i] = kp[i] + ORLI_TILE * d;
    }
    for (i = 0; i < g->length; i++) {
        size_t p = g->position + i, row = (g->start + i) * j->kv_heads * d + h * d;
        orl_real *kt = orli_page_tile(j->cache->pages, seq->page[p / ORLI_TILE], j->layer, h) + p % ORLI_TILE;
        orl_real *vt = kt - p % ORLI_TILE + (ORLI_TILE + p % ORLI_TILE) * d;
        for (c = 0; c < d; c++) kt[c * ORLI_TILE] = j->k[row + c];
        for (c = 0; c < d; c++) vt[c] = j->v[row + c];
    }
}

static void orli_cached_attend(void *arg, size_t task, size_t worker) { /* one segment, one query head */
    const orli_cached_job *j = (const orli_cached_job *)arg;
    size_t s = task / j->heads, h = task % j->heads, kv = h * j->kv_heads / j->heads, d = j->d, width = j->heads * d;
    const orl_segment *g = &j->stream->segment[s];
    const orl_real **kp = j->pointers + (s * j->kv_heads + kv) * 2 * j->most;
    j->ctx->kernels->attention(d, g->length, j->q + g->start * width + h * d, width, g->position, kp, kp + j->most,
                               j->window, j->scale, j->y + g->start * width + h * d, width,
                               j->lse + h * j->stream->tokens + g->start, orli_scratch(j->ctx, worker));
}

static orl_tensor *orli_attend_cached(void *user, orl_tape *tape, size_t layer, orl_tensor *q, orl_tensor *k,
                                      orl_tensor *v, const orl_stream *stream, const orl_model *m) {
    orli_cached_job job;
    orl_ctx *ctx = tape->object.ctx;
    orl_tensor *y;
    orl_heads shape = orli_model_heads(m, layer);
    size_t s;
    if (!q || !k || !v) return NULL;
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.cache = (const orli_cache *)user, job.stream = stream, job.layer = layer;
    job.heads = shape.heads, job.kv_heads = shape.kv_heads, job.d = m->config.head_dim;
    job.window = orli_window(&shape), job.scale = orli_score_scale(&shape, job.d);
    for (s = 0; s < stream->segments; s++) {
        const orl_segment *g = &stream->segment[s];
        job.most = ORLI_MAX(job.most, (g->position + g->length + ORLI_TILE - 1) / ORLI_TILE);
    }
    y = orli_node(tape, q->rows, q->cols, NULL, NULL, NULL, NULL, 0);
    job.lse = orli_lend(tape, job.heads, stream->tokens);
    job.pointers = (const orl_real **)orli_arena_alloc(
        &tape->nodes, orli_mul(stream->segments * job.kv_heads * 2, job.most), sizeof *job.pointers);
    if (!y || !job.lse || !job.pointers) return NULL;
    job.q = q->data, job.k = k->data, job.v = v->data, job.y = y->data;
    orli_parallel(ctx, ORLI_WORK_PACK, stream->segments * job.kv_heads, orli_cached_store, &job);
    orli_parallel(ctx, ORLI_WORK_ATTENTION, stream->segments * job.heads, orli_cached_attend, &job);
    orli_return(tape);
    ctx->flops += 4.0 * (double)q->cols * orli_stream_visible(stream, job.window);
    return y;
}

/* ---- 12.3 drawing a token ---- */

#define ORLI_BINS 1024

typedef struct orli_bins { /* entries between two values, by size: their weight, the lowest and the highest of each */
    double weight[ORLI_BINS], low[ORLI_BINS], high[ORLI_BINS];
} orli_bins;

static void orli_bins_fill(orli_bins *b, const orl_real *z, const orl_real *weight, size_t n, double low, double high,
                           double scale) {
    size_t i;
    for (i = 0; i < ORLI_BINS; i++) b->weight[i] = 0, b->low[i] = HUGE_VAL, b->high[i] = -HUGE_VAL;
    for (i = 0; i < n; i++) {
        double x = (double)z[i];
        size_t k;
        if (!(x >= low && x <= high)) continue;
        k = (size_t)((x - low) * scale);
        k = ORLI_MIN(k, (size_t)ORLI_BINS - 1);
        b->weight[k] += weight ? (double)weight[i] : 1.0;
        if (x < b->low[k]) b->low[k] = x;
        if (x > b->high[k]) b->high[k] = x;
    }
}

/* The highest value such that the entries that reach it are `enough` many (top-k) or have that weight (top-p); the
 * lowest finite one if all are too few. weight NULL counts entries. No sorting: the bin in which there is enough is
 * split anew, until it holds one value; two or three times, as a rule. */
static double orli_cut(const orl_real *z, const orl_real *weight, size_t n, double enough) {
    double low = HUGE_VAL, high = -HUGE_VAL, above = 0, scale;
    orli_bins b;
    size_t i;
    for (i = 0; i < n; i++) {
        if ((double)z[i] > high) high = (double)z[i];
        if ((double)z[i] < low && (double)z[i] > -HUGE_VAL) low = (double)z[i];
    }
    while (low < high && (scale = ORLI_BINS / (high - low)) <= DBL_MAX) {
        orli_bins_fill(&b, z, weight, n, low, high, scale);
        for (i = ORLI_BINS - 1; i > 0 && above + b.weight[i] < enough; i--) above += b.weight[i];
        low = b.low[i], high = b.high[i]; /* not empty: it has weight, or is the first. Narrower: low, high are apart */
    }
    return low;
}

typedef struct orli_choice { /* a token that was drawn */
    int32_t id;              /* −1: the logits are not finite */
    double logp, sampling_logp;
} orli_choice;

/* What a draw is made from: entries' weights e^((z − max)/temperature), and their sums block by block. */
#define ORLI_WEIGHTS_BLOCK ((size_t)256)

typedef struct orli_weights {
    const orli_kernels *kern;
    size_t n;
    orl_real *weight, *block; /* (n), (blocks) */
    double sum;
} orli_weights;

static size_t orli_weights_blocks(size_t n) { return (n + ORLI_WEIGHTS_BLOCK - 1) / ORLI_WEIGHTS_BLOCK; }
static size_t orli_weights_size(size_t n) { return n + orli_weights_blocks(n); } /* reals of memory for n entries */

static orli_weights orli_weights_of(const orli_kernels *kern, const orl_real *z, size_t n, orl_real most,
                                    double temperature, orl_real *memory) {
    const orl_real scale = (orl_real)ORLI_MIN(1 / temperature, 1e30);
    orli_weights w;
    size_t i, b;
    w.kern = kern, w.n = n, w.weight = memory, w.block = memory + n, w.sum = 0;
    for (i = b = 0; i < n; i += ORLI_WEIGHTS_BLOCK, b++) {
        w.block[b] = kern->sum_exp(ORLI_MIN(n - i, ORLI_WEIGHTS_BLOCK), w.weight + i, z + i, most, scale);
        w.sum += (double)w.block[b];
    }
    return w;
}

/* Entries below `cut`, or of a weight below `least`, lose theirs. */
static void orli_weights_keep(orli_weights *w, const orl_real *z, double cut, double least) {
    size_t i, b, end;
    w->sum = 0;
    for (i = b = 0; i < w->n; i = end, b++) {
        const size_t begin = i;
        for (end = ORLI_MIN(w->n, i + ORLI_WEIGHTS_BLOCK); i < end; i++)
            if (!((double)z[i] >= cut && (double)w->weight[i] >= least)) w->weight[i] = 0;
        w->block[b] = w->kern->sum(end - begin, w->weight + begin);
        w->sum += (double)w->block[b];
    }
}

/* The entry at which the running sum passes u·Σ. */
static size_t orli_weights_draw(const orli_weights *w, double u) {
    const size_t blocks = orli_weights_blocks(w->n);
    double at = u * w->sum;
    size_t i, b, last = 0;
    for (b = 0; b + 1 < blocks && at >= (double)w->block[b]; b++) at -= (double)w->block[b];
    while (b && w->block[b] <= 0) b--; /* rounding has left a rest: the last block with any weight, … */
    for (i = b * ORLI_WEIGHTS_BLOCK; i < w->n && i < (b + 1) * ORLI_WEIGHTS_BLOCK; i++) {
        if (w->weight[i] <= 0) continue;
        last = i; /* … and the last entry of it */
        at -= (double)w->weight[i];
        if (at < 0) break;
    }
    return last;
}

/* Draws from softmax(z/temperature) within top-k, top-p and min-p by u in [0, 1). memory: orli_weights_size(n). */
static orli_choice orli_draw(const orli_kernels *kern, const orl_real *z, size_t n, const orl_generate_options *o,
                             double u, orl_real *memory) {
    orli_choice c = {0, 0, 0};
    const orl_real most = kern->max(n, z);
    orli_weights w;
    if (!(o->temperature > 0)) {
        while (z[c.id] < most) c.id++;
        return c;
    }
    w = orli_weights_of(kern, z, n, most, o->temperature, memory);
    if (o->top_k && o->top_k < n) orli_weights_keep(&w, z, orli_cut(z, NULL, n, (double)o->top_k), 0);
    if (o->top_p < 1 || o->min_p > 0) /* the likeliest has weight 1 */
        orli_weights_keep(&w, z, o->top_p < 1 ? orli_cut(z, w.weight, n, o->top_p * w.sum) : -HUGE_VAL, o->min_p);
    c.id = (int32_t)orli_weights_draw(&w, u);
    c.sampling_logp = ((double)z[c.id] - (double)most) / o->temperature - log(w.sum);
    return c;
}

/* Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), on log-probabilities of the conditioned and
 * the plain model: l_c + g·(l_c − l_plain). Of tokens that the conditioned model finds less than a tenth as
 * likely as its likeliest one, the difference is mostly noise: it may lower them and never raise them (a
 * plausibility constraint, as in Li et al., arXiv 2210.15097). */
static void orli_guide(const orli_kernels *kern, const orl_real *told, const orl_real *plain, size_t n, double guidance,
                       orl_real *out) {
    double lse = (double)kern->log_sum_exp(n, told), plain_lse = (double)kern->log_sum_exp(n, plain);
    double bar = (double)kern->max(n, told) - log(10.0);
    size_t i;
    for (i = 0; i < n; i++) {
        double push = guidance * (((double)told[i] - lse) - ((double)plain[i] - plain_lse));
        out[i] = (orl_real)((double)told[i] + ((double)told[i] < bar && push > 0 ? 0 : push));
    }
}

/* ---- 12.4 continuous batching ---- */

typedef struct orli_prompt { /* token ids; plain: the prompt without its condition, for guidance */
    const int32_t *ids, *plain;
    size_t count, plain_count;
    size_t row;        /* of the data set it comes from */
    int continues;     /* the response's text goes on from another one */
} orli_prompt;

typedef struct orli_sampled {
    int32_t *ids;      /* (count), the stop token included */
    orl_real *logp;    /* (count) at temperature 1 */
    size_t count;
    double sampling_logp; /* Σ, under what they were drawn from */
    int truncated;
    char *text;        /* (bytes) what a stop string left of the response's text; NULL: that of the ids */
    size_t bytes;
} orli_sampled;

typedef struct orli_live { /* a sample in the making */
    orli_sequence sequence[2]; /* [1]: without the condition, if guided */
    size_t prompt, sample, capacity, logp_capacity;
    orli_sampled out;
    orli_str text;             /* of its tokens, if anybody looks at it */
    size_t shown;              /* how much of it on_token() has seen */
    int spoke;                 /* a token that has a text has come */
} orli_live;

typedef struct orli_draw_task { /* the row of logits a sample draws from */
    size_t live, row;
} orli_draw_task;

typedef struct orli_generator {
    orl_ctx *ctx;
    orl_model *m;
    const orl_generate_options *o;
    const orli_prompt *prompt;
    size_t prompts, next_prompt, lanes, finished; /* lanes: sequences per sample, 2 if guided */
    orli_sampled *out;                            /* (prompts, samples) */
    orli_pages pages;
    orli_live *live;
    size_t lives, live_capacity;
    orl_tape *tape;
    orl_stream *stream;
    orli_sequence **sequence;                     /* (segments) */
    size_t sequence_capacity, row_capacity, draw_capacity;
    size_t *row;                                  /* last row of each segment */
    orli_draw_task *draw;
    size_t draws;
    orl_real *logits;                             /* (segments, vocab) of the step */
    size_t vocab;
    orl_real *weights;                            /* (threads, orli_weights_size(vocab)) */
    orl_real *shaped;                             /* (threads, 2, vocab) logits: guided; with bias, bans, penalty */
    unsigned char *seen;                          /* (threads, vocab) zeros, to penalise each token once */
    int shapes, looks;                            /* are there any of these; does anybody look at the text */
    orli_choice *drawn;                           /* (draws) */
    size_t drawn_capacity;
    int stopped;                                  /* by on_token */
} orli_generator;

/* most tokens of a response */
static size_t orli_generate_limit(const orl_model *m, const orl_generate_options *o, const orli_prompt *p) {
    size_t room = m->config.context - ORLI_MIN(m->config.context, ORLI_MAX(p->count, p->plain_count));
    return o->max_tokens ? ORLI_MIN(o->max_tokens, room) : room;
}

/* Appends a segment for `s` to the step's stream, its tokens at the positions that follow. */
static orl_status orli_generator_feed(orli_generator *g, orli_sequence *s, const int32_t *ids, size_t n) {
    size_t i, at = s->length, index;
    if (orli_sequence_extend(&g->pages, s, n) != ORL_OK) return ORL_ERR_MEMORY;
    index = orl_stream_add(g->stream, ids, n, ORL_ROOT);
    if (index == ORL_ROOT || ORLI_RESERVE(g->ctx, g->sequence, g->sequence_capacity, index + 1) != ORL_OK ||
        ORLI_RESERVE(g->ctx, g->row, g->row_capacity, index + 1) != ORL_OK)
        return orl_error_status(g->ctx);
    g->stream->segment[index].position = at;
    for (i = 0; i < n; i++) g->stream->position[g->stream->tokens - n + i] = (int32_t)(at + i);
    g->sequence[index] = s;
    g->row[index] = g->stream->tokens - 1;
    return ORL_OK;
}

static orl_status orli_generator_plan_draw(orli_generator *g, size_t live, size_t row) {
    if (ORLI_RESERVE(g->ctx, g->draw, g->draw_capacity, g->draws + 1) != ORL_OK) return ORL_ERR_MEMORY;
    g->draw[g->draws].live = live;
    g->draw[g->draws].row = row;
    g->draws++;
    return ORL_OK;
}

/* Puts the next prompt's samples among the living; the first holds the prompt's pages until they fork. */
static orl_status orli_generator_admit(orli_generator *g) {
    size_t i;
    if (ORLI_RESERVE(g->ctx, g->live, g->live_capacity, g->lives + g->o->samples) != ORL_OK) return ORL_ERR_MEMORY;
    for (i = 0; i < g->o->samples; i++) {
        memset(&g->live[g->lives], 0, sizeof *g->live);
        g->live[g->lives].text = orli_str_new(g->ctx);
        g->live[g->lives].prompt = g->next_prompt;
        g->live[g->lives].sample = i;
        g->lives++;
    }
    g->next_prompt++;
    return ORL_OK;
}

/* Pages that a sample may need while it runs, and (first of its prompt's) those of the prompt: its full ones are shared
 * by all, the last one is too until a sample writes to its own copy. The last token drawn is never fed. */
static size_t orli_generator_pages(const orli_generator *g, size_t prompt, int first) {
    const orli_prompt *p = &g->prompt[prompt];
    size_t lane, pages = 0, limit = orli_generate_limit(g->m, g->o, p);
    for (lane = 0; lane < g->lanes; lane++) {
        size_t n = lane ? p->plain_count : p->count, whole = n / ORLI_TILE;
        pages += (n + limit - 1 + ORLI_TILE - 1) / ORLI_TILE - whole;
        if (first) pages += whole + (g->o->samples > 1 && n % ORLI_TILE);
    }
    return pages;
}

/* How many of the living, from the first on, run side by side: as `batch` and the cache's bound allow. What runs keeps
 * its place: those before it only become fewer. */
static size_t orli_generator_room(const orli_generator *g) {
    size_t i, pages = 0, most = ORLI_MIN(g->lives, g->o->batch);
    for (i = 0; i < most && g->pages.limit != SIZE_MAX; i++) {
        pages += orli_generator_pages(g, g->live[i].prompt, !i || g->live[i].prompt != g->live[i - 1].prompt);
        if (pages > g->pages.limit) return i;
    }
    return most;
}

static void orli_penalise(orl_real *z, size_t n, double penalty, const int32_t *ids, size_t count,
                          unsigned char *seen) {
    size_t i;
    for (i = 0; i < count; i++) {
        size_t id = (size_t)ids[i];
        if (id >= n || seen[id]) continue;
        seen[id] = 1;
        z[id] = (orl_real)(z[id] > 0 ? (double)z[id] / penalty : (double)z[id] * penalty);
    }
}

/* Bias, bans and penalty, in place. */
static void orli_generator_shape(const orli_generator *g, const orli_live *l, orl_real *z, unsigned char *seen) {
    const orl_generate_options *o = g->o;
    const orli_prompt *p = &g->prompt[l->prompt];
    size_t i, n = g->m->classes;
    for (i = 0; i < o->biases; i++)
        z[o->logit_bias[i].id] = (orl_real)((double)z[o->logit_bias[i].id] + o->logit_bias[i].bias);
    for (i = 0; i < o->forbids; i++) z[o->forbidden[i]] = (orl_real)-HUGE_VAL;
    if (!(o->repetition_penalty < 1 || o->repetition_penalty > 1)) return;
    orli_penalise(z, n, o->repetition_penalty, p->ids, p->count, seen);
    orli_penalise(z, n, o->repetition_penalty, l->out.ids, l->out.count, seen);
    for (i = 0; i < p->count; i++) seen[p->ids[i]] = 0;
    for (i = 0; i < l->out.count; i++) seen[l->out.ids[i]] = 0;
}

static void orli_generator_draw(void *arg, size_t task, size_t worker) {
    orli_generator *g = (orli_generator *)arg;
    const orli_live *l = &g->live[g->draw[task].live];
    const orli_kernels *kern = g->ctx->kernels;
    const orl_real *z = g->logits + g->draw[task].row * g->vocab, *asked;
    /* rows of a prompt's first step are shared by its samples */
    orl_real *own = g->shaped ? g->shaped + worker * 2 * g->vocab : NULL;
    orli_rng r = orli_rng_new(g->o->seed, ((uint64_t)l->prompt << 24) + l->sample);
    orli_choice *c = &g->drawn[task];
    size_t n = g->m->classes, lane;
    r.counter = l->out.count;
    c->id = -1;
    for (lane = 0; lane < g->lanes; lane++)
        if (!(kern->sum_squares(g->vocab, z + lane * g->vocab) <= DBL_MAX)) return;
    if (g->lanes == 2) {
        orli_guide(kern, z, z + g->vocab, n, g->o->guidance, own);
        z = own;
    }
    asked = z;
    if (g->shapes) {
        memcpy(own + g->vocab, z, n * sizeof *own);
        orli_generator_shape(g, l, own + g->vocab, g->seen + worker * g->vocab);
        z = own + g->vocab;
    }
    *c = orli_draw(kern, z, n, g->o, orli_rng_uniform(&r), g->weights + worker * orli_weights_size(g->vocab));
    c->logp = (double)asked[c->id] - (double)kern->log_sum_exp(n, asked);
}

/* Adds what a token says, as orli_decode() would. */
static void orli_live_say(orli_live *l, const orl_tokenizer *tok, int32_t id, int continues) {
    const orli_token *t = (size_t)id < tok->tokens ? &tok->token[id] : NULL;
    const char *text;
    size_t skip;
    if (!t || !t->bytes || t->special) return;
    text = orli_token_start(tok, t);
    skip = tok->strips && !continues && !l->spoke && text[0] == ' ';
    l->spoke = 1;
    orli_str_add(&l->text, text + skip, t->bytes - skip);
}

/* Where the first stop string begins that ends behind `from`; ORLI_NONE if there is none. */
static size_t orli_stop_at(const orl_generate_options *o, const orli_str *text, size_t from) {
    size_t i, k, at = ORLI_NONE;
    for (k = 0; k < o->stop_string_count; k++) {
        const char *stop = o->stop_strings[k];
        size_t n = strlen(stop);
        for (i = from >= n ? from - n + 1 : 0; i + n <= text->length && i < at; i++)
            if (memcmp(text->data + i, stop, n) == 0) at = i;
    }
    return at;
}

/* How much of the text will stay as it is: not half a character, nor what may become a stop string. */
static size_t orli_stop_free(const orl_generate_options *o, const orli_str *text) {
    size_t k, n, sure = text->length;
    for (k = 0; k < o->stop_string_count; k++) {
        const char *stop = o->stop_strings[k];
        for (n = ORLI_MIN(strlen(stop) - 1, text->length); n > 0; n--)
            if (memcmp(text->data + text->length - n, stop, n) == 0) break;
        sure = ORLI_MIN(sure, text->length - n);
    }
    return orl_text_ready(text->data, sure);
}

/* Does the last token end the response? */
static int orli_generator_ends(orli_generator *g, orli_live *l) {
    const orl_generate_options *o = g->o;
    const int32_t token = l->out.ids[l->out.count - 1];
    size_t i, before = l->text.length, at;
    if (g->looks) orli_live_say(l, g->m->tokenizer, token, g->prompt[l->prompt].continues);
    if (o->stop_string_count && (at = orli_stop_at(o, &l->text, before)) != ORLI_NONE) {
        l->text.length = l->out.bytes = at;
        l->out.text = orli_copy_bytes(g->ctx, l->text.data, at);
        return 1;
    }
    for (i = 0; i < g->m->stops; i++)
        if (token == g->m->stop[i]) return 1;
    for (i = 0; i < o->stop_id_count; i++)
        if (token == o->stop_ids[i]) return 1;
    l->out.truncated = l->out.count >= orli_generate_limit(g->m, o, &g->prompt[l->prompt]);
    return l->out.truncated;
}

static void orli_generator_tell(orli_generator *g, orli_live *l, const orli_choice *c, int ends) {
    orl_spoken s;
    size_t sure = ends ? orl_text_ready(l->text.data, l->text.length) : orli_stop_free(g->o, &l->text);
    memset(&s, 0, sizeof s);
    s.row = g->prompt[l->prompt].row, s.sample = l->sample, s.id = c->id;
    s.text = !g->looks ? NULL : l->text.data ? l->text.data + l->shown : "";
    s.bytes = ORLI_MAX(sure, l->shown) - l->shown;
    s.logp = c->logp, s.sampling_logp = c->sampling_logp;
    s.ends = ends, s.truncated = l->out.truncated;
    l->shown += s.bytes;
    g->stopped |= g->o->on_token(g->o->user, &s) != 0;
}

/* Takes in one drawn token; 1 if that ends the sample. */
static int orli_generator_accept(orli_generator *g, orli_live *l, const orli_choice *c) {
    int ends;
    if (ORLI_RESERVE(g->ctx, l->out.ids, l->capacity, l->out.count + 1) != ORL_OK ||
        ORLI_RESERVE(g->ctx, l->out.logp, l->logp_capacity, l->out.count + 1) != ORL_OK)
        return 0;
    l->out.ids[l->out.count] = c->id;
    l->out.logp[l->out.count++] = (orl_real)c->logp;
    l->out.sampling_logp += c->sampling_logp;
    ends = orli_generator_ends(g, l);
    if (g->o->on_token && !orl_failed(g->ctx)) orli_generator_tell(g, l, c, ends);
    return ends;
}

/* Hands a sample over: it lives no longer. */
static void orli_generator_finish(orli_generator *g, orli_live *l) {
    size_t lane;
    for (lane = 0; lane < g->lanes; lane++) orli_sequence_release(&g->pages, &l->sequence[lane]);
    g->out[l->prompt * g->o->samples + l->sample] = l->out;
    memset(&l->out, 0, sizeof l->out);
    orli_str_free(&l->text);
    l->prompt = SIZE_MAX;
    g->finished++;
}

/* What on_token() has stopped: what there is of responses is cut here. */
static void orli_generator_cut(orli_generator *g) {
    size_t i;
    for (i = 0; i < g->lives; i++) {
        if (!g->live[i].out.count) continue;
        g->live[i].out.truncated = 1;
        orli_generator_finish(g, &g->live[i]);
    }
}

/* One forward pass: prompts that came in, and the last token of those that are under way. */
static orl_status orli_generator_step(orli_generator *g) {
    orl_ctx *ctx = g->ctx;
    orli_cache cache;
    orl_tensor *h, *logits;
    size_t i, kept, fed = 0, budget = 4096, in_use = orli_generator_room(g);
    orl_stream_clear(g->stream);
    orl_tape_reset(g->tape);
    g->draws = 0;
    for (i = 0; i < in_use && !orl_failed(ctx); i++) {
        orli_live *l = &g->live[i];
        const orli_prompt *p = &g->prompt[l->prompt];
        size_t lane, row = g->stream->segments;
        if (l->out.count) {
            for (lane = 0; lane < g->lanes; lane++)
                orli_generator_feed(g, &l->sequence[lane], &l->out.ids[l->out.count - 1], 1);
        } else if (l->sample == 0) { /* a new prompt: its other samples follow it and draw from the same row */
            if (fed && fed + p->count > budget) {
                in_use = i; /* they wait for the next step */
                break;
            }
            orli_generator_feed(g, &l->sequence[0], p->ids, p->count);
            if (g->lanes == 2) orli_generator_feed(g, &l->sequence[1], p->plain, p->plain_count);
            fed += p->count + (g->lanes == 2 ? p->plain_count : 0);
            for (; i + 1 < g->lives && g->live[i + 1].prompt == l->prompt; i++) orli_generator_plan_draw(g, i + 1, row);
            orli_generator_plan_draw(g, (size_t)(l - g->live), row);
            continue;
        }
        orli_generator_plan_draw(g, i, row);
    }
    cache.pages = &g->pages, cache.sequence = g->sequence;
    h = orl_failed(ctx) ? NULL : orli_model_forward(g->tape, g->m, g->stream, orli_attend_cached, &cache);
    h = orl_gather(g->tape, h, g->row, g->stream->segments);
    logits = orl_linear(g->tape, h, orl_head(g->tape, g->m), NULL);
    if (!logits || ORLI_RESERVE(ctx, g->drawn, g->drawn_capacity, g->draws) != ORL_OK) return orl_error_status(ctx);
    g->logits = logits->data;
    orli_parallel(ctx, ORLI_WORK_SAMPLE, g->draws, orli_generator_draw, g);
    for (i = 0; i < g->draws; i++)
        if (g->drawn[i].id < 0)
            return orli_fail(ctx, ORL_ERR_DATA,
                             "%s: its logits are not finite: its weights are damaged, or training diverged",
                             g->m->name);
    /* forks before the first sample writes: it is the last of its prompt's draws */
    for (i = 0; i < g->draws && !orl_failed(ctx); i++) {
        orli_live *l = &g->live[g->draw[i].live], *first = l - l->sample;
        size_t lane;
        for (lane = 0; lane < g->lanes && l->sample && !l->out.count; lane++)
            orli_sequence_fork(&g->pages, &first->sequence[lane], &l->sequence[lane]);
    }
    for (i = 0; i < g->draws && !orl_failed(ctx) && !g->stopped; i++) {
        orli_live *l = &g->live[g->draw[i].live];
        if (orli_generator_accept(g, l, &g->drawn[i])) orli_generator_finish(g, l);
    }
    for (i = kept = 0; i < g->lives; i++)
        if (g->live[i].prompt != SIZE_MAX) g->live[kept++] = g->live[i];
    g->lives = kept;
    return orl_error_status(ctx);
}

static void orli_generator_free(orli_generator *g) {
    size_t i, lane;
    for (i = 0; i < g->lives; i++) {
        for (lane = 0; lane < 2; lane++)
            if (g->live[i].sequence[lane].page) orli_sequence_release(&g->pages, &g->live[i].sequence[lane]);
        orli_free(g->ctx, g->live[i].out.ids);
        orli_free(g->ctx, g->live[i].out.logp);
        orli_free(g->ctx, g->live[i].out.text);
        orli_str_free(&g->live[i].text);
    }
    orli_pages_free(&g->pages);
    orl_tape_free(g->tape);
    orl_stream_free(g->stream);
    orli_free(g->ctx, g->live);
    orli_free(g->ctx, g->sequence);
    orli_free(g->ctx, g->row);
    orli_free(g->ctx, g->draw);
    orli_free(g->ctx, g->weights);
    orli_free(g->ctx, g->shaped);
    orli_free(g->ctx, g->seen);
    orli_free(g->ctx, g->drawn);
}

/* Is every id a token that can be drawn? */
static int orli_generate_ids(const orl_model *m, const void *ids, size_t stride, size_t n) { /* an id each `stride` */
    size_t i;
    for (i = 0; i < n; i++) {
        int32_t id = *(const int32_t *)(const void *)((const char *)ids + i * stride);
        if (id < 0 || (size_t)id >= m->classes) return 0;
    }
    return 1;
}

/* Do the forbidden ids leave a token? */
static orl_status orli_generate_any(orl_ctx *ctx, const orl_model *m, const orl_generate_options *o, int *any) {
    unsigned char *banned = o->forbids < m->classes ? NULL : (unsigned char *)orli_alloc_zero(ctx, m->classes, 1);
    size_t i, left = m->classes;
    for (i = 0; banned && i < o->forbids; i++) {
        left -= !banned[o->forbidden[i]];
        banned[o->forbidden[i]] = 1;
    }
    orli_free(ctx, banned);
    *any = left > 0;
    return orl_error_status(ctx);
}

/* What is wrong with the options that have lists, or NULL. */
static const char *orli_generate_lists(const orl_model *m, const orl_generate_options *o) {
    size_t i;
    if ((o->biases && !o->logit_bias) || (o->forbids && !o->forbidden) || (o->stop_id_count && !o->stop_ids) ||
        (o->stop_string_count && !o->stop_strings))
        return "logit_bias, forbidden, stop_ids or stop_strings is NULL, and its count is not 0";
    if (!orli_generate_ids(m, o->logit_bias, sizeof *o->logit_bias, o->biases))
        return "logit_bias names an id that is no token of the vocabulary";
    for (i = 0; i < o->biases; i++)
        if (!(o->logit_bias[i].bias >= -1e6 && o->logit_bias[i].bias <= 1e6))
            return "a logit_bias must lie within ±1e6: to rule a token out use forbidden";
    if (!orli_generate_ids(m, o->forbidden, sizeof *o->forbidden, o->forbids))
        return "forbidden has an id that is no token of the vocabulary";
    if (!orli_generate_ids(m, o->stop_ids, sizeof *o->stop_ids, o->stop_id_count))
        return "stop_ids has an id that is no token of the vocabulary";
    if (o->stop_string_count && !m->tokenizer) return "stop_strings need a tokenizer, and it has none: use stop_ids";
    for (i = 0; i < o->stop_string_count; i++)
        if (!o->stop_strings[i] || !o->stop_strings[i][0]) return "a stop string is empty: leave it out";
    return NULL;
}

static orl_status orli_generate_check(orl_ctx *ctx, const orl_model *m, const orl_generate_options *o) {
    const char *bad = NULL;
    int any = 1;
    if (m->reward) bad = "a reward model has no language head to sample from";
    else if (!o->samples || o->samples >= (1u << 24)) bad = "samples must be 1 to 16777215";
    else if (!o->batch) bad = "batch must be at least 1";
    else if (!(o->temperature >= 0 && o->temperature <= 1e6)) bad = "temperature must be 0 (greedy) or more";
    else if (!(o->top_p > 0 && o->top_p <= 1)) bad = "top_p must be above 0 and at most 1";
    else if (!(o->min_p >= 0 && o->min_p <= 1)) bad = "min_p must be 0 (off) to 1";
    else if (!(o->repetition_penalty >= 1e-6 && o->repetition_penalty <= 1e6))
        bad = "repetition_penalty must be above 0; 1 is off";
    else if (!(o->guidance >= 0 && o->guidance <= 1e6)) bad = "guidance must be 0 or more";
    else bad = orli_generate_lists(m, o);
    if (!bad && orli_generate_any(ctx, m, o, &any) != ORL_OK) return ORL_ERR_MEMORY;
    if (!any) bad = "all tokens are forbidden";
    return bad ? orli_fail(ctx, ORL_ERR_ARGUMENT, "sampling from %s: %s", m->name, bad) : ORL_OK;
}

static void orli_sampled_free(orl_ctx *ctx, orli_sampled *out, size_t n) {
    size_t i;
    for (i = 0; out && i < n; i++) {
        orli_free(ctx, out[i].ids);
        orli_free(ctx, out[i].logp);
        orli_free(ctx, out[i].text);
    }
    orli_free(ctx, out);
}

/* Can every prompt be continued, in the context and within the cache's bound? */
static orl_status orli_generate_fits(const orli_generator *g) {
    const size_t page = g->pages.page * sizeof(orl_real);
    size_t i, pages;
    for (i = 0; i < g->prompts; i++) {
        const orli_prompt *p = &g->prompt[i];
        if (!p->count || (g->lanes == 2 && !p->plain_count))
            return orli_fail(g->ctx, ORL_ERR_DATA,
                             "prompt %zu is empty and the tokenizer has no begin token: nothing to continue", i + 1);
        if (!orli_generate_limit(g->m, g->o, p))
            return orli_fail(g->ctx, ORL_ERR_DATA,
                             "prompt %zu has %zu tokens, which fills the context of %zu: shorten it", i + 1, p->count,
                             g->m->config.context);
        pages = orli_generator_pages(g, i, 1);
        if (pages > g->pages.limit)
            return orli_fail(g->ctx, ORL_ERR_ARGUMENT,
                             "kv_bytes: %zu bytes of keys and values are too few for prompt %zu alone, which may need "
                             "%zu: allow more, or lower max_tokens",
                             g->o->kv_bytes, i + 1, orli_mul(pages, page));
    }
    return ORL_OK;
}

static orl_status orli_generator_open(orli_generator *g, orl_model *m, const orli_prompt *prompt, size_t prompts,
                                      const orl_generate_options *o) {
    orl_ctx *ctx = m->object.ctx;
    const size_t threads = ctx->pool->threads;
    memset(g, 0, sizeof *g);
    g->ctx = ctx, g->m = m, g->o = o, g->prompt = prompt, g->prompts = prompts;
    g->lanes = o->guidance > 0 ? 2 : 1;
    g->vocab = m->config.vocab;
    g->shapes = o->biases || o->forbids || o->repetition_penalty < 1 || o->repetition_penalty > 1;
    g->looks = m->tokenizer && (o->stop_string_count || o->on_token);
    g->pages = orli_pages_new(m, o->kv_bytes);
    if (orli_generate_check(ctx, m, o) != ORL_OK || orli_generate_fits(g) != ORL_OK) return orl_error_status(ctx);
    g->tape = orl_tape_create(ctx);
    if (g->tape) g->tape->inference = 1;
    g->stream = orl_stream_create(ctx);
    g->out = (orli_sampled *)orli_alloc_zero(ctx, orli_mul(prompts, o->samples), sizeof *g->out);
    g->weights = (orl_real *)orli_alloc(ctx, orli_mul(threads, orli_weights_size(g->vocab)), sizeof *g->weights);
    if (g->lanes == 2 || g->shapes) {
        g->shaped = (orl_real *)orli_alloc(ctx, orli_mul(2 * threads, g->vocab), sizeof *g->shaped);
        g->seen = (unsigned char *)orli_alloc_zero(ctx, orli_mul(threads, g->vocab), 1);
    }
    return orl_error_status(ctx);
}

/* prompts × samples responses into *out (prompts·samples), which orli_sampled_free frees; NULL on failure. Where
 * on_token() has stopped it, *stopped is 1, nothing has failed, and samples without a token are empty. */
static orl_status orli_generate(orl_model *m, const orli_prompt *prompt, size_t prompts, const orl_generate_options *o,
                                orli_sampled **out, int *stopped) {
    orl_ctx *ctx = m->object.ctx;
    orli_generator g;
    size_t total = orli_mul(prompts, o->samples), seen = 0;
    *out = NULL, *stopped = 0;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    orli_generator_open(&g, m, prompt, prompts, o);
    while (!orl_failed(ctx) && g.finished < total && !g.stopped) {
        while (g.next_prompt < prompts && g.lives < o->batch && orli_generator_admit(&g) == ORL_OK) {}
        if (orli_generator_step(&g) != ORL_OK) break;
        if (o->progress && g.finished > seen && o->progress(o->user, g.finished, total))
            orli_fail(ctx, ORL_ERR_STOPPED, "sampling was stopped");
        seen = g.finished;
    }
    if (g.stopped) orli_generator_cut(&g);
    *stopped = g.stopped;
    orli_generator_free(&g);
    if (orl_failed(ctx)) orli_sampled_free(ctx, g.out, total);
    else *out = g.out;
    return orl_error_status(ctx);
}

ORL_API orl_generate_options orl_generate_default(void) {
    orl_generate_options o;
    memset(&o, 0, sizeof o);
    o.samples = 1;
    o.temperature = 1, o.top_p = 1, o.repetition_penalty = 1;
    o.batch = 256;
    o.target = ORL_TARGET_DEFAULT;
    return o;
}
#endif /* section 12 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 13
/* =================================================================================================
 * >>data   13. DATA: rows, views, and what a model sees of them
 * =================================================================================================
 * Purpose:    JSONL in and out; views that share text; rows → token ids with their borders.
 * Depends on: model, tokenizer, formats.   Owns: text, in a store that views share.
 * Invariants: a row's unknown fields come out as they went in. The border between prompt and response
 *             is where the ids of one were joined to those of the other, never a string searched for.
 *             Every row that is cut or dropped is counted and said.
 * Threads:    the calling thread only.
 * Tested by:  tests/test_13_data.c */

/* ---- 13.1 storage ---- */

typedef struct orli_store { /* text and arrays that data sets share; the last one to go frees it */
    orl_ctx *ctx;
    size_t references;
    orli_arena arena;
    orli_file file;
    char *owned;                  /* a text handed to orl_dataset_parse, copied */
    struct orli_store *parent[2]; /* whose text this one's rows point into as well */
    struct orli_store *next_dead;
} orli_store;

typedef struct orli_ranked { /* a row among those of its prompt */
    size_t group, row;
    double reward;
} orli_ranked;

typedef struct orli_labels { /* of a whole labelled set */
    double mean, sd;
    double *sorted;      /* (count) normalised rewards, ascending */
    orli_ranked *ranked; /* (count) by prompt, best first */
    size_t count;
} orli_labels;

struct orl_dataset {
    orli_object object;
    orl_row *row;
    size_t count, capacity;
    orli_store *store;
    const orli_labels *labels;  /* of the set this is a view of; NULL until asked for */
    orli_names groups;          /* prompts seen, while rows are being added */
    orli_condition condition;   /* kind NONE: not a conditioned view */
    double dropout;
    char name[256];
};

static orli_store *orli_store_new(orl_ctx *ctx) {
    orli_store *s = (orli_store *)orli_alloc_zero(ctx, 1, sizeof *s);
    if (s) s->ctx = s->arena.ctx = ctx, s->references = 1;
    return s;
}

static void orli_store_release(orli_store *s) {
    orli_store *dead = NULL;
    size_t i;
    if (s && --s->references == 0) s->next_dead = NULL, dead = s;
    while (dead) { /* a list instead of recursion: chains of views may be long */
        s = dead, dead = s->next_dead;
        for (i = 0; i < 2; i++)
            if (s->parent[i] && --s->parent[i]->references == 0) s->parent[i]->next_dead = dead, dead = s->parent[i];
        orli_arena_free(&s->arena);
        orli_file_close(&s->file);
        orli_free(s->ctx, s->owned);
        orli_free(s->ctx, s);
    }
}

static void *orli_store_copy(orli_store *s, const void *bytes, size_t n) { /* n bytes and a zero */
    char *p = (char *)orli_arena_alloc(&s->arena, orli_add(n, 1), 1);
    if (p && n) memcpy(p, bytes, n);
    if (p) p[n] = 0;
    return p;
}

static void orli_dataset_destroy(orli_object *object) {
    orl_dataset *d = (orl_dataset *)object;
    orli_free(object->ctx, d->row);
    orli_names_free(&d->groups);
    orli_store_release(d->store);
}

static orl_dataset *orli_dataset_new(orl_ctx *ctx, orli_store *parent, orli_store *parent2) {
    orl_dataset *d = (orl_dataset *)orli_object_create(ctx, sizeof *d, orli_dataset_destroy);
    if (!d) return NULL;
    d->groups = orli_names_new(ctx);
    d->store = orli_store_new(ctx);
    snprintf(d->name, sizeof d->name, "data");
    if (!d->store) {
        orli_object_free(&d->object);
        return NULL;
    }
    if (parent) parent->references++, d->store->parent[0] = parent;
    if (parent2) parent2->references++, d->store->parent[1] = parent2;
    return d;
}

ORL_API orl_dataset *orl_dataset_create(orl_ctx *ctx) {
    return orl_failed(ctx) ? NULL : orli_dataset_new(ctx, NULL, NULL);
}
ORL_API void orl_dataset_free(orl_dataset *d) {
    if (d) orli_object_free(&d->object);
}
ORL_API orl_ctx *orl_dataset_ctx(const orl_dataset *d) { return d ? d->object.ctx : NULL; }
ORL_API size_t orl_dataset_count(const orl_dataset *d) { return d ? d->count : 0; }
ORL_API orl_row *orl_dataset_row(orl_dataset *d, size_t i) { return d && i < d->count ? &d->row[i] : NULL; }

/* A zeroed row at the end, of weight 1. */
static orl_row *orli_dataset_append(orl_dataset *d) {
    orl_row *r;
    if (ORLI_RESERVE(d->object.ctx, d->row, d->capacity, d->count + 1) != ORL_OK) return NULL;
    r = &d->row[d->count++];
    memset(r, 0, sizeof *r);
    r->weight = 1;
    d->labels = NULL; /* of another set now */
    return r;
}

/* Rows with equal prompts share a group. A view has its base's numbers without the prompts behind them:
 * before the first new one all its rows are numbered anew. */
static orl_status orli_dataset_group(orl_dataset *d, orl_row *r) {
    int known = d->groups.count > 0;
    orl_row *end = known ? r + 1 : d->row + d->count;
    for (r = known ? r : d->row; r < end; r++) {
        const orl_text *p = &r->prompt;
        r->group = p->text ? orli_names_add(&d->groups, p->text, p->bytes)
                           : orli_names_add(&d->groups, (const char *)p->ids, p->tokens * sizeof *p->ids);
        if (r->group == ORLI_NONE) return ORL_ERR_MEMORY;
    }
    return ORL_OK;
}

/* ---- 13.2 JSONL in ---- */

/* points into the file unless there are escapes */
static void orli_row_text(orl_dataset *d, orli_json *j, orl_text *t) {
    if (!orli_json_expect(j, ORLI_JSON_STRING)) return;
    if (t->text) {
        orli_json_fail_at(j, j->start, "this text is given a second time, under another name: keep one of them");
    } else if (j->escaped) {
        orli_str s = orli_str_new(j->ctx);
        orli_json_text(j, &s);
        t->text = s.failed ? NULL : (const char *)orli_store_copy(d->store, s.data ? s.data : "", s.length);
        t->bytes = s.length;
        orli_str_free(&s);
    } else {
        t->text = j->text + j->start;
        t->bytes = j->end - j->start;
    }
}

static void orli_row_ids(orl_dataset *d, orli_json *j, orl_row *r, orl_text *t) {
    int32_t *ids = NULL;
    size_t capacity = 0, n = 0;
    for (orli_json_open(j, ORLI_JSON_ARRAY); orli_json_item(j); n++) {
        int32_t id = (int32_t)orli_json_int(j, 0, INT32_MAX);
        if (ORLI_RESERVE(j->ctx, ids, capacity, n + 1) != ORL_OK) break;
        ids[n] = id;
    }
    t->ids = (const int32_t *)orli_store_copy(d->store, ids, n * sizeof *ids);
    t->tokens = n;
    r->flags |= ORL_IDS_GIVEN;
    orli_free(j->ctx, ids);
}

/* ---- templates ----
 * What stands around the messages of system, user and assistant. In tags \1 is the role, \2 the begin token, \3 the
 * end token. The assistant's turn is open, lead, content, rest, end, close: its response begins with lead, and the end
 * token is appended to it as an id. */

#define ORLI_ROLES_ANY 1u    /* a role that is not known is written like the user's */
#define ORLI_ROLES_IN_TURN 2u /* user and assistant alternate, after one system message at most */
#define ORLI_INSIDE 4u       /* the system message stands within the first user's turn */
#define ORLI_TRIM 8u         /* contents lose the white space around them … */
#define ORLI_TRIM_WHOLE 16u  /* … with the system message in front of them */
#define ORLI_BLANK 32u       /* a blank before a content that is not empty */
#define ORLI_NO_THOUGHTS 64u /* what stands before </think> is left out */

enum { ORLI_SYSTEM, ORLI_USER, ORLI_ASSISTANT };

typedef struct orli_template {
    const char *name, *bos, *eos; /* of the published models */
    const char *begin, *open[3], *close[3];
    const char *lead, *rest, *end;
    const char *answer; /* opens the last answer instead of open[2], if not NULL */
    const char *system; /* the message where there is none, if not NULL */
    unsigned traits;
} orli_template;

#define ORLI_IM_OPEN "<|im_start|>\1\n"
#define ORLI_IM_CLOSE "<|im_end|>\n"
#define ORLI_CHATML \
    {ORLI_IM_OPEN, ORLI_IM_OPEN, ORLI_IM_OPEN}, {ORLI_IM_CLOSE, ORLI_IM_CLOSE, "\n"}, "", "", "<|im_end|>"
static const orli_template orli_templates[ORL_TEMPLATE_COUNT] = {
    {"hh", "", "", "", {"", "\n\nHuman:", "\n\nAssistant:"}, {"", "", ""}, "", "", "", NULL, NULL,
     ORLI_ROLES_ANY | ORLI_BLANK},
    {"chatml", "", "", "", ORLI_CHATML, NULL, NULL, ORLI_ROLES_ANY},
    {"qwen", "", "", "", ORLI_CHATML, NULL, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", 0},
    {"qwen3", "", "", "", ORLI_CHATML, ORLI_IM_OPEN "<think>\n\n</think>\n\n", NULL, ORLI_NO_THOUGHTS},
    {"llama2", "<s>", "</s>", "", {"<<SYS>>\n", "\2[INST] ", ""}, {"\n<</SYS>>\n\n", " [/INST]", ""}, " ", " ", "\3",
     NULL, NULL, ORLI_ROLES_IN_TURN | ORLI_INSIDE | ORLI_TRIM | ORLI_TRIM_WHOLE},
    {"llama3", "<|begin_of_text|>", "<|eot_id|>", "\2",
     {"<|start_header_id|>\1<|end_header_id|>\n\n", "<|start_header_id|>\1<|end_header_id|>\n\n",
      "<|start_header_id|>\1<|end_header_id|>\n\n"},
     {"<|eot_id|>", "<|eot_id|>", ""}, "", "", "<|eot_id|>", NULL, NULL, ORLI_ROLES_ANY | ORLI_TRIM},
    {"zephyr", "", "</s>", "", {"<|\1|>\n", "<|\1|>\n", "<|\1|>\n"}, {"\3\n", "\3\n", "\n"}, "", "", "\3",
     NULL, NULL, 0},
    {"alpaca", "<s>", "</s>", "\2", {"", "### Instruction:\n", "### Response:\n"}, {"\n\n", "\n\n", "\n\n"},
     "", "", "\3", NULL, NULL, ORLI_ROLES_IN_TURN | ORLI_TRIM},
    {"gemma", "<bos>", "<eos>", "\2", {"", "<start_of_turn>user\n", "<start_of_turn>model\n"},
     {"\n\n", "<end_of_turn>\n", "\n"}, "", "", "<end_of_turn>", NULL, NULL,
     ORLI_ROLES_IN_TURN | ORLI_INSIDE | ORLI_TRIM},
    {"mistral", "<s>", "</s>", "\2", {"", " [INST] ", ""}, {"\n\n", " [/INST]", ""}, " ", "", "\3", NULL, NULL,
     ORLI_ROLES_IN_TURN | ORLI_INSIDE}};

/* White space as Python's str.strip() has it, which the templates were written for. */
static int orli_blank(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
        (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* s from `from` on without the white space around it. */
static void orli_str_trim(orli_str *s, size_t from) {
    size_t i, length, first = from, last = from;
    uint32_t code;
    for (i = from; i < s->length; i += length) {
        length = orli_utf8_decode(s->data + i, s->length - i, &code);
        if (!length) length = 1, code = 0;
        if (!orli_blank(code)) last = i + length;
        else if (last == from) first = i + length;
    }
    if (last == from) first = from;
    if (last > first) memmove(s->data + from, s->data + first, last - first);
    s->length = from + (last - first);
    if (s->data) s->data[s->length] = 0;
}

/* Rows of messages, written in one template. */
typedef struct orli_chat {
    const orli_template *t;
    const char *bos, *eos;
} orli_chat;

static orli_chat orli_chat_of(orl_template which) {
    orli_chat c;
    c.t = &orli_templates[which], c.bos = c.t->bos, c.eos = c.t->eos;
    return c;
}

static void orli_chat_tag(const orli_chat *c, orli_str *s, const char *tag, const char *role) {
    for (; *tag; tag++)
        if (*tag > '\3') orli_str_add(s, tag, 1);
        else orli_str_puts(s, *tag == '\1' ? role : *tag == '\2' ? c->bos : c->eos);
}

typedef struct orli_turns { /* messages on their way into a text */
    const orli_chat *chat;
    orli_json *j;
    orli_str text, role, content; /* role, content: of the message that is to be written */
    orli_str inside;              /* the system message, until the first user's turn takes it in */
    size_t messages, turns;       /* written; turns: but for system messages */
    size_t border;                /* where the response begins */
} orli_turns;

/* The role of the message, or −1 if it cannot stand here. */
static int orli_turns_role(orli_turns *t) {
    const char *role = t->role.data;
    const unsigned traits = t->chat->t->traits;
    const int known = strcmp(role, "system") == 0 ? ORLI_SYSTEM
        : strcmp(role, "assistant") == 0          ? ORLI_ASSISTANT
                                                  : ORLI_USER;
    if (known == ORLI_USER && !(traits & ORLI_ROLES_ANY) && strcmp(role, "user") != 0) {
        orli_json_fail_at(t->j, t->j->start, "a message of a role that its template does not have");
        return -1;
    }
    if ((traits & ORLI_ROLES_IN_TURN) &&
        (known == ORLI_SYSTEM ? t->messages > 0 : t->turns % 2 != (known == ORLI_ASSISTANT))) {
        orli_json_fail_at(t->j, t->j->start,
                          "roles out of turn: in its template a user and the assistant alternate, and a system message "
                          "comes first");
        return -1;
    }
    return known;
}

/* What stands between a turn's tags. */
static void orli_turns_content(orli_turns *t, int role, int last) {
    const unsigned traits = t->chat->t->traits, silent = role == ORLI_ASSISTANT ? traits & ORLI_NO_THOUGHTS : 0;
    const char *content = t->content.length ? t->content.data : "";
    const size_t begin = t->text.length, n = t->content.length;
    size_t i, first = 0, trim = begin;
    for (i = 0; silent && i + 8 <= n; i++)
        if (memcmp(content + i, "</think>", 8) == 0) first = i + 8;
    while (silent && (first || last) && first < n && content[first] == '\n') first++;
    if (role == ORLI_USER && t->inside.length) {
        orli_str_add(&t->text, t->inside.data, t->inside.length);
        t->inside.length = 0;
        if (!(traits & ORLI_TRIM_WHOLE)) trim = t->text.length;
    }
    if ((traits & ORLI_BLANK) && role != ORLI_SYSTEM && n) orli_str_puts(&t->text, " ");
    orli_str_add(&t->text, content + first, n - first);
    if (traits & ORLI_TRIM) orli_str_trim(&t->text, trim);
}

/* Writes the message; of an answer that is the last one, no more than its response. */
static void orli_turns_write(orli_turns *t, int last) {
    const orli_template *form = t->chat->t;
    const int role = orli_turns_role(t), answer = role == ORLI_ASSISTANT;
    const char *name = t->role.data;
    if (role < 0 || t->text.failed) return;
    t->messages++, t->turns += role != ORLI_SYSTEM;
    if (role == ORLI_SYSTEM && (form->traits & ORLI_INSIDE)) {
        orli_chat_tag(t->chat, &t->inside, form->open[role], name);
        orli_str_add(&t->inside, t->content.data ? t->content.data : "", t->content.length);
        orli_chat_tag(t->chat, &t->inside, form->close[role], name);
        return;
    }
    orli_chat_tag(t->chat, &t->text, answer && last && form->answer ? form->answer : form->open[role], name);
    if (answer) t->border = t->text.length, orli_str_puts(&t->text, form->lead);
    orli_turns_content(t, role, last);
    if (answer) orli_str_puts(&t->text, form->rest);
    if (answer && last) return;
    if (answer) orli_chat_tag(t->chat, &t->text, form->end, name);
    orli_chat_tag(t->chat, &t->text, form->close[role], name);
}

/* What comes before the first message: the begin token, and the template's own system message if it has one. */
static void orli_turns_begin(orli_turns *t) {
    const orli_template *form = t->chat->t;
    orli_chat_tag(t->chat, &t->text, form->begin, "");
    if (!form->system || strcmp(t->role.data, "system") == 0) return;
    orli_chat_tag(t->chat, &t->text, form->open[ORLI_SYSTEM], "system");
    orli_str_puts(&t->text, form->system);
    orli_chat_tag(t->chat, &t->text, form->close[ORLI_SYSTEM], "system");
}

/* Behind the last message: the tag of an answer that is waited for. */
static void orli_turns_ask(orli_turns *t) {
    const orli_template *form = t->chat->t;
    if (t->inside.length)
        orli_json_fail_at(t->j, t->j->start, "a system message alone: its template writes it into a user's turn");
    orli_chat_tag(t->chat, &t->text, form->answer ? form->answer : form->open[ORLI_ASSISTANT], "assistant");
    t->border = t->text.length;
}

/* Reads one message. */
static void orli_turns_read(orli_turns *t) {
    orli_json *j = t->j;
    t->role.length = t->content.length = 0;
    for (orli_json_open(j, ORLI_JSON_OBJECT); orli_json_key(j);) {
        if (orli_json_is(j, "role")) orli_json_string(j, &t->role);
        else if (orli_json_is(j, "content")) orli_json_string(j, &t->content);
        else orli_json_skip(j);
    }
    if (!t->role.length) orli_json_fail_at(j, j->start, "a message without a role");
}

/* [{"role", "content"}, …] → prompt (all before the assistant's last turn, and its tag) and response (that turn). If
 * the last turn is another's there is no response: a prompt that waits for its answer. 1 if there is one. */
static int orli_row_messages(orl_dataset *d, orli_json *j, orl_row *r, const orli_chat *chat) {
    orli_turns t;
    size_t read = 0;
    int answered = 0;
    memset(&t, 0, sizeof t);
    t.chat = chat, t.j = j;
    t.text = t.role = t.content = t.inside = orli_str_new(j->ctx);
    orli_json_open(j, ORLI_JSON_ARRAY);
    for (; orli_json_item(j); read++) { /* one behind: is there another? */
        if (read) orli_turns_write(&t, 0);
        orli_turns_read(&t);
        if (orl_failed(j->ctx)) break;
        if (!read) orli_turns_begin(&t);
    }
    if (!orl_failed(j->ctx) && !read) orli_json_fail_at(j, j->start, "no messages");
    if (!orl_failed(j->ctx)) orli_turns_write(&t, 1);
    if (!orl_failed(j->ctx)) answered = strcmp(t.role.data, "assistant") == 0;
    if (!orl_failed(j->ctx) && !answered) orli_turns_ask(&t);
    if (!orl_failed(j->ctx)) {
        const char *text = (const char *)orli_store_copy(d->store, t.text.data, t.text.length);
        r->prompt.text = text, r->prompt.bytes = t.border;
        r->response.text = text && answered ? text + t.border : NULL, r->response.bytes = t.text.length - t.border;
        r->flags = (r->flags & ~ORL_TEMPLATED) | (chat->t == orli_templates ? 0 : ORL_TEMPLATED);
    }
    orli_str_free(&t.text);
    orli_str_free(&t.role);
    orli_str_free(&t.content);
    orli_str_free(&t.inside);
    return answered;
}

/* hh-rlhf pairs are whole transcripts: the prompt ends with the last "\n\nAssistant:" inside the part both share. */
static void orli_row_split_transcripts(orli_json *j, orl_row *r) {
    static const char tag[] = "\n\nAssistant:";
    size_t n = sizeof tag - 1, shared = 0, at;
    const char *a = r->response.text, *b = r->rejected.text;
    while (shared < r->response.bytes && shared < r->rejected.bytes && a[shared] == b[shared]) shared++;
    for (at = shared + 1; at-- > n;)
        if (memcmp(a + at - n, tag, n) == 0) break;
    if (at < n || at > shared) {
        orli_json_fail_at(j, j->start,
                          "\"chosen\" and \"rejected\" share no prompt up to \"\\n\\nAssistant:\": give a \"prompt\"");
        return;
    }
    r->prompt.text = a, r->prompt.bytes = at;
    r->response.text += at, r->response.bytes -= at;
    r->rejected.text += at, r->rejected.bytes -= at;
}

static int orli_text_empty(const orl_text *t) { return !t->bytes && !t->tokens; } /* an end token alone is an answer */

/* One line of JSON into a row. */
static orl_status orli_row_parse(orl_dataset *d, const char *json, size_t bytes, size_t line) {
    orl_ctx *ctx = d->object.ctx;
    orli_json j = orli_json_new(ctx, json, bytes, d->name, line);
    orli_names seen = orli_names_new(ctx);
    orl_row *r = orli_dataset_append(d);
    const orli_chat hh = orli_chat_of(ORL_TEMPLATE_HH);
    int raw = 0, prompt = 0, response = 0, chosen = 0, rejected = 0, raw_rejected = 0;
    if (!r) return ORL_ERR_MEMORY;
    r->json = json, r->json_bytes = bytes, r->line = line;
    r->sampling_logp = nan("");
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key_once(&j, &seen);) {
        if (orli_json_is(&j, "prompt")) prompt = 1, orli_row_text(d, &j, &r->prompt);
        else if (orli_json_is(&j, "completion") || orli_json_is(&j, "text"))
            response = 1, orli_row_text(d, &j, &r->response);
        else if (orli_json_is(&j, "chosen")) chosen = 1, orli_row_text(d, &j, &r->response);
        else if (orli_json_is(&j, "rejected")) rejected = 1, orli_row_text(d, &j, &r->rejected);
        else if (orli_json_is(&j, "prompt_ids")) prompt = 1, orli_row_ids(d, &j, r, &r->prompt);
        else if (orli_json_is(&j, "completion_ids")) response = 1, orli_row_ids(d, &j, r, &r->response);
        else if (orli_json_is(&j, "chosen_ids")) chosen = 1, orli_row_ids(d, &j, r, &r->response);
        else if (orli_json_is(&j, "rejected_ids")) rejected = 1, orli_row_ids(d, &j, r, &r->rejected);
        else if (orli_json_is(&j, "messages") && (prompt || response || chosen))
            orli_json_fail_at(&j, j.start, "\"messages\" beside a prompt or a response: keep one of them");
        else if (orli_json_is(&j, "messages")) prompt = 1, response = orli_row_messages(d, &j, r, &hh);
        else if (orli_json_is(&j, "reward")) r->reward = orli_json_number(&j), r->flags |= ORL_LABELLED;
        else if (orli_json_is(&j, "reward_raw")) r->reward_raw = orli_json_number(&j), raw = 1;
        else if (orli_json_is(&j, "chosen_reward")) r->reward = orli_json_number(&j), r->flags |= ORL_LABELLED;
        else if (orli_json_is(&j, "chosen_reward_raw")) r->reward_raw = orli_json_number(&j), raw = 1;
        else if (orli_json_is(&j, "rejected_reward")) r->rejected_reward = orli_json_number(&j);
        else if (orli_json_is(&j, "rejected_reward_raw"))
            r->rejected_reward_raw = orli_json_number(&j), raw_rejected = 1;
        else if (orli_json_is(&j, "margin")) r->margin = orli_json_null(&j) ? 0 : orli_json_number(&j);
        else if (orli_json_is(&j, "condition")) r->condition = orli_json_number(&j), r->flags |= ORL_CONDITIONED;
        /* null: it did not fit */
        else if (orli_json_is(&j, "logprob"))
            r->logp = orli_json_null(&j) ? nan("") : orli_json_number(&j), r->flags |= ORL_LOGP;
        else if (orli_json_is(&j, "sampling_logprob"))
            r->sampling_logp = orli_json_null(&j) ? nan("") : orli_json_number(&j);
        else if (orli_json_is(&j, "tokens")) r->tokens = (size_t)orli_json_int(&j, 0, INT32_MAX);
        else if (orli_json_is(&j, "sample"))
            r->sample = (size_t)orli_json_int(&j, 0, INT32_MAX), r->flags |= ORL_SAMPLED;
        else if (orli_json_is(&j, "truncated")) r->flags |= orli_json_bool(&j) ? ORL_TRUNCATED : 0;
        else if (orli_json_is(&j, "templated")) r->flags |= orli_json_bool(&j) ? ORL_TEMPLATED : 0;
        else orli_json_skip(&j);
    }
    orli_json_end(&j);
    if (!orl_failed(ctx)) {
        if (rejected != chosen) orli_json_fail_at(&j, 0, "a pair needs both \"chosen\" and \"rejected\"");
        else if (!prompt && !response && !chosen)
            orli_json_fail_at(&j, 0,
                              "none of \"text\", \"prompt\", \"completion\", \"chosen\", \"messages\": no row of a "
                              "kind that is known");
        else if (rejected) r->flags |= ORL_PAIR;
        if (!raw) r->reward_raw = r->reward;
        if (!raw_rejected) r->rejected_reward_raw = r->rejected_reward;
    }
    if (!orl_failed(ctx) && rejected && !prompt) {
        if (r->response.text && r->rejected.text) orli_row_split_transcripts(&j, r);
        else orli_json_fail_at(&j, 0, "a pair of token ids needs \"prompt_ids\"");
    }
    if (!orl_failed(ctx) && !r->prompt.text && !r->prompt.ids) r->prompt.text = "";
    if (!orl_failed(ctx) &&
        ((response && orli_text_empty(&r->response)) ||
         (rejected && (orli_text_empty(&r->response) || orli_text_empty(&r->rejected)))))
        orli_json_fail_at(&j, 0, "an empty response: remove the row or fill it in");
    orli_names_free(&seen);
    return orl_failed(ctx) ? orl_error_status(ctx) : orli_dataset_group(d, r);
}

/* Every line that is not blank is a row. The bytes must last as long as the store. */
static orl_dataset *orli_dataset_read(orl_dataset *d, const char *text, size_t bytes) {
    size_t at = 0, line = 1, end;
    for (; at < bytes && !orl_failed(d->object.ctx); at = end + 1, line++) {
        const char *newline = (const char *)memchr(text + at, '\n', bytes - at);
        size_t i = at;
        end = newline ? (size_t)(newline - text) : bytes;
        while (i < end && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r')) i++;
        if (i < end) orli_row_parse(d, text + at, end - at, line);
    }
    if (!orl_failed(d->object.ctx) && !d->count) orli_fail(d->object.ctx, ORL_ERR_DATA, "%s: has no rows", d->name);
    if (!orl_failed(d->object.ctx)) return d;
    orl_dataset_free(d);
    return NULL;
}

ORL_API orl_dataset *orl_dataset_load(orl_ctx *ctx, const char *path) {
    orl_dataset *d;
    orli_file file;
    if (!path || !(d = orl_dataset_create(ctx))) return NULL;
    snprintf(d->name, sizeof d->name, "%s", path);
    if (orli_file_open(ctx, path, &file) != ORL_OK) {
        orl_dataset_free(d);
        return NULL;
    }
    d->store->file = file;
    return orli_dataset_read(d, file.data, file.size);
}

ORL_API orl_dataset *orl_dataset_parse(orl_ctx *ctx, const char *text, size_t bytes, const char *name) {
    orl_dataset *d;
    if (!text || !(d = orl_dataset_create(ctx))) return NULL;
    if (name) snprintf(d->name, sizeof d->name, "%s", name);
    d->store->owned = orli_copy_bytes(ctx, text, bytes);
    if (d->store->owned) return orli_dataset_read(d, d->store->owned, bytes);
    orl_dataset_free(d);
    return NULL;
}

static void orli_text_set(orl_dataset *d, orl_text *t, const char *s) {
    t->bytes = strlen(s);
    t->text = (const char *)orli_store_copy(d->store, s, t->bytes);
}

static orl_row *orli_dataset_add_row(orl_dataset *d, const char *prompt, const char *response, const char *rejected) {
    orl_row *r;
    if (!d || orl_failed(d->object.ctx)) return NULL;
    if (!prompt || (response && !*response) || (rejected && !*rejected)) {
        orli_fail(d->object.ctx, ORL_ERR_DATA, "%s: row %zu: an empty response", d->name, d->count + 1);
        return NULL;
    }
    if (!(r = orli_dataset_append(d))) return NULL;
    orli_text_set(d, &r->prompt, prompt);
    if (response) orli_text_set(d, &r->response, response);
    if (rejected) orli_text_set(d, &r->rejected, rejected), r->flags |= ORL_PAIR;
    if (!r->prompt.text || orli_dataset_group(d, r) != ORL_OK) return NULL;
    return r;
}
ORL_API orl_status orl_dataset_add(orl_dataset *d, const char *prompt, const char *response) {
    return orli_dataset_add_row(d, prompt, response, NULL) ? ORL_OK : orl_error_status(orl_dataset_ctx(d));
}
ORL_API orl_status orl_dataset_add_pair(orl_dataset *d, const char *prompt, const char *chosen, const char *rejected) {
    if (d && (!chosen || !rejected))
        return orli_fail(d->object.ctx, ORL_ERR_ARGUMENT, "orl_dataset_add_pair: a side is NULL");
    return orli_dataset_add_row(d, prompt, chosen, rejected) ? ORL_OK : orl_error_status(orl_dataset_ctx(d));
}

/* Writes the rows of messages anew; how many there are. A sample has its prompt from before. */
static size_t orli_dataset_chat(orl_dataset *d, const orli_chat *chat) {
    orl_ctx *ctx = d->object.ctx;
    size_t i, rows = 0;
    for (i = 0; i < d->count && !orl_failed(ctx); i++) {
        orl_row *r = &d->row[i];
        orli_json j;
        if (!r->json || (r->flags & ORL_SAMPLED)) continue;
        j = orli_json_new(ctx, r->json, r->json_bytes, d->name, r->line);
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            if (orli_json_is(&j, "messages")) rows++, orli_row_messages(d, &j, r, chat), orli_dataset_group(d, r);
            else orli_json_skip(&j);
        }
    }
    return rows;
}

ORL_API const char *orl_template_name(orl_template which) {
    return (unsigned)which < ORL_TEMPLATE_COUNT ? orli_templates[which].name : NULL;
}

ORL_API orl_template orl_template_find(const orl_tokenizer *tok) {
    if (orl_token_id(tok, "<|im_start|>") >= 0)
        return orl_token_id(tok, "<think>") >= 0          ? ORL_TEMPLATE_QWEN3
            : orl_token_id(tok, "<|object_ref_start|>") >= 0 ? ORL_TEMPLATE_QWEN
                                                             : ORL_TEMPLATE_CHATML;
    if (orl_token_id(tok, "<|start_header_id|>") >= 0) return ORL_TEMPLATE_LLAMA3;
    if (orl_token_id(tok, "<start_of_turn>") >= 0) return ORL_TEMPLATE_GEMMA;
    /* with <|end|> it is Phi's, which is not one of these */
    if (orl_token_id(tok, "<|user|>") >= 0 && orl_token_id(tok, "<|end|>") < 0) return ORL_TEMPLATE_ZEPHYR;
    return ORL_TEMPLATE_HH;
}

ORL_API orl_status orl_dataset_set_template(orl_dataset *d, orl_template which) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    orli_chat chat;
    if (!d || orl_failed(ctx)) return orl_error_status(ctx);
    if ((unsigned)which >= ORL_TEMPLATE_COUNT)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_dataset_set_template: there is no template %d", (int)which);
    chat = orli_chat_of(which);
    orli_dataset_chat(d, &chat);
    return orl_error_status(ctx);
}

static orl_status orli_template_named(orl_ctx *ctx, const char *name, orl_template *which) {
    orli_str all = orli_str_new(ctx);
    size_t i;
    for (i = 0; i < ORL_TEMPLATE_COUNT; i++) {
        if (strcmp(orli_templates[i].name, name) == 0) break;
        orli_str_printf(&all, "%s%s", i ? ", " : "", orli_templates[i].name);
    }
    *which = (orl_template)i;
    if (i == ORL_TEMPLATE_COUNT)
        orli_fail(ctx, ORL_ERR_ARGUMENT, "there is no template \"%.40s\": choose one of %s", name,
                  all.data ? all.data : "those the manual names");
    orli_str_free(&all);
    return orl_error_status(ctx);
}

/* Makes a token the one that training appends to responses; sampling still stops where it did. */
static void orli_model_end(orl_model *m, int32_t id) {
    size_t i;
    for (i = 0; i < m->stops && m->stop[i] != id; i++) {}
    if (i == m->stops && m->stops < sizeof m->stop / sizeof *m->stop) m->stops++;
    else if (i == m->stops) i--;
    memmove(m->stop + 1, m->stop, i * sizeof *m->stop);
    m->stop[0] = m->config.eos = id;
}

ORL_API orl_status orl_dataset_use_template(orl_dataset *d, orl_model *m, const char *name) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    const orl_tokenizer *tok = m ? m->tokenizer : NULL;
    orl_template which = orl_template_find(tok);
    orli_str bos = orli_str_new(ctx), eos = orli_str_new(ctx);
    orli_chat chat;
    size_t bytes;
    int32_t end;
    if (!d || !m || orl_failed(ctx)) return orl_error_status(ctx);
    if (name && orli_template_named(ctx, name, &which) != ORL_OK) return orl_error_status(ctx);
    chat = orli_chat_of(which);
    if (tok && tok->bos >= 0) orli_str_puts(&bos, orl_token_text(tok, tok->bos, &bytes));
    if (tok && tok->eos >= 0) orli_str_puts(&eos, orl_token_text(tok, tok->eos, &bytes));
    if (tok) chat.bos = bos.data ? bos.data : "", chat.eos = eos.data ? eos.data : "";
    if (!bos.failed && !eos.failed && orli_dataset_chat(d, &chat) && tok && chat.t->end[0]) {
        end = chat.t->end[0] == '\3' ? tok->eos : orl_token_id(tok, chat.t->end);
        if (end >= 0 && (size_t)end < m->config.vocab) orli_model_end(m, end);
    }
    orli_str_free(&bos);
    orli_str_free(&eos);
    return orl_error_status(ctx);
}

/* ---- 13.3 JSONL out ---- */

static void orli_row_put_ids(orli_str *s, const char *key, const orl_text *t) {
    size_t i;
    orli_str_printf(s, ", \"%s\": [", key);
    for (i = 0; i < t->tokens; i++) orli_str_printf(s, i ? ", %d" : "%d", (int)t->ids[i]);
    orli_str_puts(s, "]");
}
static void orli_row_put_text(orli_str *s, const char *key, const orl_text *t) {
    if (!t->text) return;
    orli_str_printf(s, ", \"%s\": ", key);
    orli_json_put_string(s, t->text, t->bytes);
}
static void orli_row_put_number(orli_str *s, const char *key, double x) {
    orli_str_printf(s, ", \"%s\": ", key);
    orli_json_put_double(s, x);
}

/* Fields that are written from the row itself; all others of its JSON go out as they came in. */
static int orli_row_owns(const orl_row *r, const orli_json *j) {
    static const char *const sampled[] = {
        "completion", "completion_ids", "sample",     "truncated", "logprob",    "tokens",
        "text",       "messages",       "chosen",     "rejected",  "chosen_ids", "rejected_ids",
        "margin",     "reward",         "reward_raw", "condition", "templated", "sampling_logprob", NULL};
    static const char *const labelled[] = {"reward", "reward_raw", NULL}, *const logp[] = {"logprob", "tokens", NULL};
    static const char *const pair[] = {"chosen_reward", "chosen_reward_raw", "rejected_reward", "rejected_reward_raw",
                                       NULL};
    const char *const *lists[3];
    size_t n = 0, k, i;
    if (r->flags & ORL_SAMPLED) lists[n++] = sampled;
    if (r->flags & ORL_LABELLED) lists[n++] = r->flags & ORL_PAIR ? pair : labelled;
    if (r->flags & ORL_LOGP) lists[n++] = logp;
    for (k = 0; k < n; k++)
        for (i = 0; lists[k][i]; i++)
            if (orli_json_is(j, lists[k][i])) return 1;
    return (r->flags & ORL_CONDITIONED) && orli_json_is(j, "condition");
}

static void orli_row_write(orli_str *s, const orl_row *r, orl_ctx *ctx, const char *name) {
    size_t begin = s->length;
    int prompt = 0; /* written yet? of a sample whose prompt came as messages or a transcript it is not */
    if (r->json) {
        orli_json j = orli_json_new(ctx, r->json, r->json_bytes, name, r->line);
        for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
            size_t key = j.start - 1, key_end = j.end + 1;
            int owns = orli_row_owns(r, &j);
            prompt |= orli_json_is(&j, "prompt") || orli_json_is(&j, "prompt_ids");
            orli_json_skip(&j);
            if (owns) continue;
            orli_str_puts(s, ", ");
            orli_str_add(s, r->json + key, key_end - key);
            orli_str_puts(s, ": ");
            orli_str_add(s, r->json + j.start, j.end - j.start);
        }
    }
    if (!r->json || (!prompt && (r->flags & ORL_SAMPLED))) {
        orli_row_put_text(s, "prompt", &r->prompt);
        if (r->prompt.ids) orli_row_put_ids(s, "prompt_ids", &r->prompt);
    }
    if (!r->json || (r->flags & ORL_SAMPLED)) {
        orli_row_put_text(s, r->flags & ORL_PAIR ? "chosen" : "completion", &r->response);
        if (r->response.ids) orli_row_put_ids(s, r->flags & ORL_PAIR ? "chosen_ids" : "completion_ids", &r->response);
        orli_row_put_text(s, "rejected", &r->rejected);
        if (r->rejected.ids) orli_row_put_ids(s, "rejected_ids", &r->rejected);
    }
    if (r->flags & ORL_SAMPLED)
        orli_str_printf(s, ", \"sample\": %zu, \"truncated\": %s", r->sample,
                        r->flags & ORL_TRUNCATED ? "true" : "false");
    if ((r->flags & ORL_SAMPLED) && (r->flags & ORL_TEMPLATED)) orli_str_puts(s, ", \"templated\": true");
    if (r->flags & (ORL_SAMPLED | ORL_LOGP)) {
        orli_row_put_number(s, "logprob", r->logp);
        if ((r->flags & ORL_SAMPLED) && r->sampling_logp - r->sampling_logp == 0)
            orli_row_put_number(s, "sampling_logprob", r->sampling_logp);
        orli_str_printf(s, ", \"tokens\": %zu", r->tokens);
    }
    if (r->flags & ORL_CONDITIONED) orli_row_put_number(s, "condition", r->condition);
    if (r->flags & ORL_LABELLED) {
        int pair = (r->flags & ORL_PAIR) != 0;
        orli_row_put_number(s, pair ? "chosen_reward_raw" : "reward_raw", r->reward_raw);
        orli_row_put_number(s, pair ? "chosen_reward" : "reward", r->reward);
        if (pair)
            orli_row_put_number(s, "rejected_reward_raw", r->rejected_reward_raw),
                orli_row_put_number(s, "rejected_reward", r->rejected_reward);
    }
    orli_str_puts(s, "}");
    if (s->failed) return;
    if (s->length - begin < 2) orli_str_puts(s, " "); /* no field at all */
    s->data[begin + 1] = '{'; /* where the first ", " was */
    memmove(s->data + begin, s->data + begin + 1, s->length - begin);
    s->length--;
}

ORL_API char *orl_dataset_row_json(const orl_dataset *d, size_t i) {
    orli_str s;
    if (!d || i >= d->count || orl_failed(d->object.ctx)) return NULL;
    s = orli_str_new(d->object.ctx);
    orli_row_write(&s, &d->row[i], d->object.ctx, d->name);
    return orli_str_take(&s);
}

ORL_API orl_status orl_dataset_save(const orl_dataset *d, const char *path) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    orli_writer w;
    orli_str s = orli_str_new(ctx);
    size_t i;
    if (!d || !path || orli_writer_open(ctx, path, &w) != ORL_OK) return orl_error_status(ctx);
    for (i = 0; i < d->count && !orl_failed(ctx); i++) {
        s.length = 0;
        orli_row_write(&s, &d->row[i], ctx, d->name);
        orli_str_puts(&s, "\n");
        if (!s.failed) orli_writer_put(&w, s.data, s.length);
    }
    orli_str_free(&s);
    return orli_writer_close(&w);
}

/* ---- 13.4 views ---- */

/* The rows of d for which keep[i] (NULL: all), sharing its text and labels. */
static orl_dataset *orli_dataset_select(const orl_dataset *d, const unsigned char *keep) {
    orl_dataset *v;
    size_t i;
    if (!d || orl_failed(d->object.ctx) || !(v = orli_dataset_new(d->object.ctx, d->store, NULL))) return NULL;
    for (i = 0; i < d->count; i++) {
        orl_row *r;
        if (keep && !keep[i]) continue;
        if (!(r = orli_dataset_append(v))) break;
        *r = d->row[i];
    }
    v->labels = d->labels;
    v->condition = d->condition, v->dropout = d->dropout;
    memcpy(v->name, d->name, sizeof v->name);
    if (!orl_failed(d->object.ctx)) return v;
    orl_dataset_free(v);
    return NULL;
}

ORL_API orl_dataset *orl_dataset_view(const orl_dataset *d, size_t first, size_t count) {
    unsigned char *keep;
    orl_dataset *v;
    size_t i;
    if (!d || orl_failed(d->object.ctx)) return NULL;
    if (first > d->count || count > d->count - first) {
        orli_fail(d->object.ctx, ORL_ERR_ARGUMENT, "orl_dataset_view: rows %zu to %zu of %zu", first, first + count,
                  d->count);
        return NULL;
    }
    if (!(keep = (unsigned char *)orli_alloc_zero(d->object.ctx, d->count, 1))) return NULL;
    for (i = first; i < first + count; i++) keep[i] = 1;
    v = orli_dataset_select(d, keep);
    orli_free(d->object.ctx, keep);
    return v;
}

ORL_API orl_dataset *orl_dataset_join(const orl_dataset *a, const orl_dataset *b) {
    orl_dataset *v;
    size_t i;
    if (!a || !b || orl_failed(a->object.ctx)) return NULL;
    if (a->condition.kind != ORL_CONDITION_NONE || b->condition.kind != ORL_CONDITION_NONE) {
        orli_fail(a->object.ctx, ORL_ERR_ARGUMENT,
                  "orl_dataset_join: %s is a conditioned view: join first, then condition",
                  a->condition.kind != ORL_CONDITION_NONE ? a->name : b->name);
        return NULL;
    }
    if (!(v = orli_dataset_new(a->object.ctx, a->store, b->store))) return NULL;
    for (i = 0; i < a->count + b->count; i++) {
        orl_row *r = orli_dataset_append(v);
        if (!r) break;
        *r = i < a->count ? a->row[i] : b->row[i - a->count];
        orli_dataset_group(v, r);
    }
    memcpy(v->name, a->name, sizeof v->name);
    if (!orl_failed(a->object.ctx)) return v;
    orl_dataset_free(v);
    return NULL;
}

/* The value of a field of the row's JSON, verbatim; 0 if it has none. */
static int orli_row_field(orl_ctx *ctx, const orl_row *r, const char *field, const char **value, size_t *bytes) {
    orli_json j;
    if (!r->json) return 0;
    j = orli_json_new(ctx, r->json, r->json_bytes, "row", r->line);
    for (orli_json_open(&j, ORLI_JSON_OBJECT); orli_json_key(&j);) {
        int found = orli_json_is(&j, field);
        orli_json_skip(&j);
        if (!found || orl_failed(ctx)) continue;
        *value = r->json + j.start, *bytes = j.end - j.start;
        return 1;
    }
    return 0;
}

typedef struct orli_drawn { /* a group and its lot */
    uint64_t lot;
    size_t group;
} orli_drawn;

static int orli_by_lot(const void *a, const void *b) {
    const orli_drawn *x = (const orli_drawn *)a, *y = (const orli_drawn *)b;
    if (x->lot != y->lot) return x->lot < y->lot ? -1 : 1;
    return x->group < y->group ? -1 : x->group > y->group;
}

/* Every group draws a lot from its value and the seed, whatever the order of rows; the lowest are the test part. */
static unsigned char *orli_split_lots(const orli_names *names, size_t tests, uint64_t seed) {
    orl_ctx *ctx = names->texts.arena.ctx;
    orli_drawn *drawn = (orli_drawn *)orli_alloc(ctx, names->count, sizeof *drawn);
    unsigned char *test = (unsigned char *)orli_alloc_zero(ctx, names->count, 1);
    size_t i;
    for (i = 0; drawn && test && i < names->count; i++) {
        orli_rng r = orli_rng_new(seed, orli_hash(names->name[i].text, names->name[i].length));
        drawn[i].lot = (uint64_t)orli_rng_u32(&r) << 32, drawn[i].lot |= orli_rng_u32(&r);
        drawn[i].group = i;
    }
    if (drawn && test) orli_sort(drawn, names->count, sizeof *drawn, orli_by_lot);
    for (i = 0; drawn && test && i < tests; i++) test[drawn[i].group] = 1;
    orli_free(ctx, drawn);
    return test;
}

ORL_API orl_status orl_dataset_split(const orl_dataset *d, const char *field, double fraction, uint64_t seed,
                                     orl_dataset **train, orl_dataset **test) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    unsigned char *keep, *chosen = NULL;
    size_t i, groups, *group, tests;
    orli_names names = orli_names_new(ctx);
    if (train) *train = NULL;
    if (test) *test = NULL;
    if (!d || !train || !test || orl_failed(ctx)) return orl_error_status(ctx);
    if (!(fraction > 0 && fraction < 1))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_dataset_split: the test fraction must lie between 0 and 1");
    keep = (unsigned char *)orli_alloc(ctx, d->count, 1);
    group = (size_t *)orli_alloc(ctx, d->count, sizeof *group);
    for (i = 0; i < d->count && keep && group && !orl_failed(ctx); i++) {
        const orl_row *r = &d->row[i];
        const char *value = r->prompt.text ? r->prompt.text : (const char *)r->prompt.ids;
        size_t bytes = r->prompt.text ? r->prompt.bytes : r->prompt.tokens * sizeof(int32_t);
        if (field && !orli_row_field(ctx, r, field, &value, &bytes))
            orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: has no field \"%s\" to split by", d->name, r->line, field);
        else group[i] = orli_names_add(&names, value, bytes);
    }
    groups = names.count;
    tests = (size_t)((double)groups * fraction + 0.5);
    if (!orl_failed(ctx) && (groups < 2))
        orli_fail(ctx, ORL_ERR_DATA, "%s: all rows are of one group: nothing to split", d->name);
    tests = ORLI_MIN(ORLI_MAX(tests, 1), groups ? groups - 1 : 0);
    if (!orl_failed(ctx)) chosen = orli_split_lots(&names, tests, seed);
    if (!orl_failed(ctx)) {
        for (i = 0; i < d->count; i++) keep[i] = !chosen[group[i]];
        *train = orli_dataset_select(d, keep);
        for (i = 0; i < d->count; i++) keep[i] = !keep[i];
        *test = orli_dataset_select(d, keep);
    }
    orli_free(ctx, chosen);
    orli_free(ctx, group);
    orli_free(ctx, keep);
    orli_names_free(&names);
    return orl_error_status(ctx);
}

/* ---- 13.5 conditions as tokens ---- */

/* The text of a condition: {reward} in the format, with fixed decimals; −0.0 is written 0.0. */
static void orli_condition_text(const orli_condition *c, double reward, orli_str *out) {
    char number[64];
    const char *mark = strstr(c->format, "{reward}");
    size_t head = mark ? (size_t)(mark - c->format) : strlen(c->format), i;
    int n = snprintf(number, sizeof number, "%.*f", c->decimals, reward), zero = 1;
    for (i = 0; i < (size_t)n; i++) {
        if (number[i] == ',') number[i] = '.'; /* a locale's decimal comma */
        if (number[i] >= '1' && number[i] <= '9') zero = 0;
    }
    orli_str_add(out, c->format, head);
    if (mark) {
        orli_str_puts(out, zero && number[0] == '-' ? number + 1 : number);
        orli_str_puts(out, mark + 8);
    }
}

/* Bins of equal mass: how far up the rewards it was trained on a reward lies, in steps of 1/bins. */
static size_t orli_condition_bin(const orli_condition *c, double reward) {
    size_t i = 0;
    double share;
    while (i < 100 && c->quantile[i + 1] <= reward) i++;
    share = (double)i +
        (i < 100 && reward > c->quantile[i] ? (reward - c->quantile[i]) / (c->quantile[i + 1] - c->quantile[i]) : 0);
    return ORLI_MIN((size_t)(share / 100 * (double)c->bins), c->bins - 1);
}

/* Appends the ids of a condition; told 0: those that stand for "not told". */
static orl_status orli_condition_ids(orl_ctx *ctx, const orl_model *m, double reward, int told, int32_t **ids,
                                     size_t *capacity, size_t *count) {
    const orli_condition *c = &m->condition;
    orl_status status = ORL_OK;
    if (c->kind == ORL_CONDITION_BINS) {
        if (ORLI_RESERVE(ctx, *ids, *capacity, *count + 1) != ORL_OK) return ORL_ERR_MEMORY;
        (*ids)[(*count)++] = c->first_id + (int32_t)(told ? orli_condition_bin(c, reward) : c->bins);
    } else if (c->kind == ORL_CONDITION_TEXT && told) {
        orli_str text = orli_str_new(ctx);
        int32_t *more = NULL;
        size_t n = 0;
        if (!m->tokenizer)
            return orli_fail(ctx, ORL_ERR_ARGUMENT, "a text condition needs a tokenizer and %s has none: use bins",
                             m->name);
        orli_condition_text(c, reward, &text);
        status = text.failed ? ORL_ERR_MEMORY : orli_encode(m->tokenizer, text.data, text.length, 0, 1, &more, &n);
        if (status == ORL_OK) status = ORLI_RESERVE(ctx, *ids, *capacity, *count + n);
        if (status == ORL_OK && n) memcpy(*ids + *count, more, n * sizeof *more), *count += n;
        orli_free(ctx, more);
        orli_str_free(&text);
    }
    return status;
}

/* ---- 13.6 rows as a model sees them ---- */

typedef struct orli_example { /* spans of one array of ids */
    size_t row;                 /* in the data set */
    size_t prompt, prompt_count;     /* with BOS where the tokenizer asks for it */
    size_t told, told_count;         /* the condition, after the prompt */
    size_t untold, untold_count;     /* what stands there when it is dropped */
    size_t response[2], count[2];    /* with EOS unless cut; [1]: the rejected side of a pair */
} orli_example;

typedef struct orli_examples {
    orl_ctx *ctx;
    int32_t *ids;
    size_t id_count, id_capacity;
    orli_example *example;
    size_t count, capacity, cut, dropped;
} orli_examples;

static void orli_examples_free(orli_examples *e) {
    orli_free(e->ctx, e->ids);
    orli_free(e->ctx, e->example);
    memset(e, 0, sizeof *e);
}

/* Is `read` the text, or the text as JSON gives it back: with U+FFFD for each byte that is no UTF-8? */
static int orli_text_same(const char *text, size_t bytes, const char *read, size_t read_bytes) {
    size_t i, k = 0, length, n;
    uint32_t code;
    if (bytes == read_bytes && memcmp(text, read, bytes) == 0) return 1;
    for (i = 0; i < bytes; i += ORLI_MAX(length, (size_t)1), k += n) {
        length = orli_utf8_decode(text + i, bytes - i, &code);
        n = length ? length : 3;
        if (read_bytes - k < n || memcmp(read + k, length ? text + i : "\xef\xbf\xbd", n) != 0) return 0;
    }
    return k == read_bytes;
}

/* Are the row's ids to be taken as they are? Where it carries text too (a sample does), the ids must mean
 * that text to this model's tokenizer: a reward model with another one reads the text. */
static int orli_text_by_ids(const orl_model *m, const orl_text *t, int continues) {
    char *text = NULL;
    size_t bytes = 0;
    int same = 1;
    if (!t->ids || !t->text || !m->tokenizer) return t->ids != NULL;
    for (bytes = 0; bytes < t->tokens; bytes++)
        if (t->ids[bytes] < 0 || (size_t)t->ids[bytes] >= m->config.vocab) return 0;
    if (orli_decode(m->tokenizer, t->ids, t->tokens, 1, continues, &text, &bytes) != ORL_OK) return 0;
    same = orli_text_same(text, bytes, t->text, t->bytes);
    orli_free(m->object.ctx, text);
    return same;
}

/* Appends a text's ids; gives their number, or ORLI_NONE. A response continues its prompt: a tokenizer that
 * puts a blank before a text puts none there; a prompt may hold special tokens, spelled out. */
static size_t orli_examples_encode(orli_examples *e, const orl_model *m, const orl_dataset *d, const orl_row *r,
                                   const orl_text *t, int by_ids, int continues) {
    int32_t *ids = NULL;
    const int32_t *from = t->ids;
    size_t n = t->tokens, i;
    if (!by_ids) {
        if (!m->tokenizer) {
            orli_fail(e->ctx, ORL_ERR_ARGUMENT, "%s:%zu: is text, and %s has no tokenizer: give it one, or rows of ids",
                      d->name, r->line, m->name);
            return ORLI_NONE;
        }
        if (orli_encode(m->tokenizer, t->text, t->bytes, t == &r->prompt, continues, &ids, &n) != ORL_OK)
            return ORLI_NONE;
        from = ids;
    }
    for (i = 0; i < n; i++)
        if (from[i] < 0 || (size_t)from[i] >= m->config.vocab) {
            orli_fail(e->ctx, ORL_ERR_MISMATCH,
                      "%s:%zu: token id %d is outside the vocabulary of %zu: model and data do not belong together",
                      d->name, r->line, (int)from[i], m->config.vocab);
            n = ORLI_NONE;
            break;
        }
    /* room for BOS or EOS too */
    if (n != ORLI_NONE && ORLI_RESERVE(e->ctx, e->ids, e->id_capacity, e->id_count + n + 2) != ORL_OK) n = ORLI_NONE;
    if (n != ORLI_NONE && n) memcpy(e->ids + e->id_count, from, n * sizeof *from), e->id_count += n;
    orli_free(e->ctx, ids);
    return n;
}

static orl_status orli_examples_prompt(orli_examples *e, const orl_model *m, const orl_dataset *d, const orl_row *r,
                                       orli_example *x) {
    orl_ctx *ctx = e->ctx;
    int given = orli_text_by_ids(m, &r->prompt, 0), told = (r->flags & ORL_CONDITIONED) != 0;
    int32_t bos = m->tokenizer ? orl_bos(m->tokenizer) : -1;
    size_t n;
    x->prompt = e->id_count;
    if (ORLI_RESERVE(ctx, e->ids, e->id_capacity, e->id_count + 1) != ORL_OK) return ORL_ERR_MEMORY;
    if (!given && bos >= 0 && !(r->flags & ORL_TEMPLATED)) e->ids[e->id_count++] = bos;
    n = orli_examples_encode(e, m, d, r, &r->prompt, given, 0);
    if (n == ORLI_NONE) return orl_error_status(ctx);
    if (n && e->id_count - n > x->prompt && e->ids[x->prompt + 1] == bos) /* the text begins with it already */
        e->id_count--, memmove(e->ids + x->prompt, e->ids + x->prompt + 1, n * sizeof *e->ids);
    /* a first token needs something before it */
    if (e->id_count == x->prompt && !given && m->config.eos >= 0) e->ids[e->id_count++] = m->config.eos;
    x->prompt_count = e->id_count - x->prompt;
    if (!x->prompt_count)
        return orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: an empty prompt, and no begin or end token to stand for it",
                         d->name, r->line);
    x->told = e->id_count;
    if (orli_condition_ids(ctx, m, r->condition, told, &e->ids, &e->id_capacity, &e->id_count) != ORL_OK)
        return orl_error_status(ctx);
    x->told_count = e->id_count - x->told;
    x->untold = e->id_count;
    if (orli_condition_ids(ctx, m, 0, 0, &e->ids, &e->id_capacity, &e->id_count) != ORL_OK)
        return orl_error_status(ctx);
    x->untold_count = e->id_count - x->untold;
    return ORL_OK;
}

static orl_status orli_examples_response(orli_examples *e, const orl_model *m, const orl_dataset *d, const orl_row *r,
                                         int side, orli_example *x, int *cut) {
    const orl_text *t = side ? &r->rejected : &r->response;
    int continues = !orli_text_empty(&r->prompt), given = orli_text_by_ids(m, t, continues);
    size_t room = m->config.context -
        ORLI_MIN(m->config.context, x->prompt_count + ORLI_MAX(x->told_count, x->untold_count)),
           n;
    x->response[side] = e->id_count;
    n = orli_examples_encode(e, m, d, r, t, given, continues);
    if (n == ORLI_NONE) return orl_error_status(e->ctx);
    if (!given && !(r->flags & ORL_TRUNCATED) && m->config.eos >= 0) e->ids[e->id_count++] = m->config.eos;
    if (e->id_count == x->response[side])
        return orli_fail(e->ctx, ORL_ERR_DATA, "%s:%zu: an empty response", d->name, r->line);
    if (e->id_count - x->response[side] > room) e->id_count = x->response[side] + room, *cut = 1;
    x->count[side] = e->id_count - x->response[side];
    return ORL_OK;
}

/* Rows → examples. sides: 0 prompts alone, 1 responses, 2 pairs. Over-long rows follow one rule: the
 * response is cut, a prompt that leaves no room for one token drops the row; both are counted and said. */
static orl_status orli_examples_build(orli_examples *e, const orl_model *m, const orl_dataset *d, int sides) {
    orl_ctx *ctx = m->object.ctx;
    size_t i;
    int side;
    memset(e, 0, sizeof *e);
    e->ctx = ctx;
    for (i = 0; i < d->count && !orl_failed(ctx); i++) {
        const orl_row *r = &d->row[i];
        orli_example x;
        size_t begin = e->id_count;
        int cut = 0, drop;
        memset(&x, 0, sizeof x);
        x.row = i;
        if (sides == 2 && !(r->flags & ORL_PAIR))
            return orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: is no pair: \"chosen\" and \"rejected\" are needed here",
                             d->name, r->line);
        if (sides == 1 && !r->response.text && !r->response.ids)
            return orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: has no response to learn from or to score", d->name, r->line);
        if (!(r->weight - r->weight == 0))
            return orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: its weight is not finite", d->name, r->line);
        if (orli_examples_prompt(e, m, d, r, &x) != ORL_OK) return orl_error_status(ctx);
        drop = x.prompt_count + ORLI_MAX(x.told_count, x.untold_count) >= m->config.context;
        for (side = 0; side < sides && !drop; side++)
            if (orli_examples_response(e, m, d, r, side, &x, &cut) != ORL_OK) return orl_error_status(ctx);
        if (!drop && sides == 2 && cut && x.count[0] == x.count[1] &&
            memcmp(e->ids + x.response[0], e->ids + x.response[1], x.count[0] * sizeof *e->ids) == 0)
            drop = 1; /* what told them apart was cut off */
        if ((drop || cut) && ctx->config.strict)
            return orli_fail(ctx, ORL_ERR_DATA, "%s:%zu: does not fit the context of %zu tokens", d->name, r->line,
                             m->config.context);
        if (drop) {
            e->dropped++;
            e->id_count = begin;
            continue;
        }
        e->cut += (size_t)cut;
        if (ORLI_RESERVE(ctx, e->example, e->capacity, e->count + 1) == ORL_OK) e->example[e->count++] = x;
    }
    if (!orl_failed(ctx) && (e->cut || e->dropped))
        orli_note(ctx,
                  "%s: of %zu rows, %zu responses were cut to the context of %zu tokens and %zu rows dropped, whose "
                  "prompts fill it",
                  d->name, d->count, e->cut, m->config.context, e->dropped);
    if (!orl_failed(ctx) && !e->count)
        orli_fail(ctx, ORL_ERR_DATA, "%s: no row is left that fits the context of %zu tokens", d->name,
                  m->config.context);
    return orl_error_status(ctx);
}

ORL_API orl_dataset *orl_dataset_blocks(const orl_dataset *d, const orl_model *m) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    orl_dataset *out;
    size_t i, k;
    if (!d || !m || orl_failed(ctx) || !(out = orli_dataset_new(ctx, NULL, NULL))) return NULL;
    memcpy(out->name, d->name, sizeof out->name);
    for (i = 0; i < d->count && !orl_failed(ctx); i++) {
        const orl_row *r = &d->row[i];
        for (k = 0; k < (r->flags & ORL_PAIR ? 2u : 1u) && !orl_failed(ctx); k++) {
            const orl_text *t = k ? &r->rejected : &r->response;
            orli_examples e;
            orli_example x;
            size_t at, n;
            int continues, given;
            memset(&e, 0, sizeof e);
            memset(&x, 0, sizeof x);
            e.ctx = ctx;
            if (orli_examples_prompt(&e, m, d, r, &x) != ORL_OK) break;
            continues = !orli_text_empty(&r->prompt), given = orli_text_by_ids(m, t, continues);
            if ((t->text || t->ids) && orli_examples_encode(&e, m, d, r, t, given, continues) == ORLI_NONE) break;
            if (!given && !(r->flags & ORL_TRUNCATED) && m->config.eos >= 0) e.ids[e.id_count++] = m->config.eos;
            for (at = 1; at < e.id_count; at += n) { /* predict ids[at …], the one before them stands as the prompt */
                orl_row *b = orli_dataset_append(out);
                n = ORLI_MIN(e.id_count - at, m->config.context - 1);
                if (!b) break;
                b->prompt.ids = (const int32_t *)orli_store_copy(out->store, e.ids + at - 1, sizeof *e.ids);
                b->response.ids = (const int32_t *)orli_store_copy(out->store, e.ids + at, n * sizeof *e.ids);
                b->prompt.tokens = 1, b->response.tokens = n;
                b->flags = ORL_IDS_GIVEN, b->line = r->line;
                if (!b->prompt.ids || !b->response.ids) break;
            }
            orli_examples_free(&e);
        }
    }
    if (!orl_failed(ctx) && !out->count) orli_fail(ctx, ORL_ERR_DATA, "%s: no text to train on", d->name);
    if (!orl_failed(ctx)) return out;
    orl_dataset_free(out);
    return NULL;
}

/* A conditioned view brings its condition to the model; a model that has the same already is left alone. */
static orl_status orli_condition_attach(orl_model *m, const orl_dataset *d) {
    orl_ctx *ctx = m->object.ctx;
    orli_condition c = d->condition;
    orl_status status = ORL_OK;
    if (c.kind == ORL_CONDITION_NONE) return ORL_OK;
    if (c.kind == ORL_CONDITION_TEXT && !m->tokenizer)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "a text condition needs a tokenizer and %s has none: use bins",
                         m->name);
    if (c.kind == ORL_CONDITION_BINS) {
        int same = m->condition.kind == ORL_CONDITION_BINS && m->condition.bins == c.bins;
        if (m->condition.kind == ORL_CONDITION_BINS && !same)
            return orli_fail(ctx, ORL_ERR_MISMATCH, "%s has %zu reward bins and the data asks for %zu: use as many",
                             m->name, m->condition.bins, c.bins);
        c.first_id = (int32_t)(same ? (size_t)m->condition.first_id : m->config.vocab);
        if (!same) status = orli_model_grow(m, c.bins + 1);
        m->classes = (size_t)c.first_id;
    }
    if (status == ORL_OK) m->condition = c;
    return status;
}

static void orli_dump_span(orli_str *s, const orl_model *m, const int32_t *ids, size_t n, double weight) {
    size_t i, bytes = 0;
    for (i = 0; i < n; i++) {
        const int bin = m->condition.kind == ORL_CONDITION_BINS && ids[i] >= m->condition.first_id;
        const char *text = m->tokenizer && !bin ? orl_token_text(m->tokenizer, ids[i], &bytes) : NULL;
        orli_str_printf(s, "%8d  %-10.4g ", (int)ids[i], weight);
        if (bin)
            orli_str_printf(s, "reward bin %d of %zu", (int)(ids[i] - m->condition.first_id) + 1, m->condition.bins);
        else if (text) orli_json_put_string(s, text, bytes);
        orli_str_puts(s, "\n");
    }
}

ORL_API char *orl_dataset_dump(orl_dataset *d, orl_model *m, size_t n) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    orli_examples e;
    orli_str s = orli_str_new(ctx);
    size_t i, rows = 0;
    int side, pairs, sides;
    if (!d || !m || orl_failed(ctx) || !d->count) return NULL;
    pairs = (d->row[0].flags & ORL_PAIR) != 0;
    sides = pairs ? 2 : d->row[0].response.text || d->row[0].response.ids; /* 0: prompts */
    memset(&e, 0, sizeof e);
    if (orli_condition_attach(m, d) == ORL_OK && orli_examples_build(&e, m, d, sides) == ORL_OK) {
        for (i = 0; i < e.count && rows < n; i++, rows++) {
            const orli_example *x = &e.example[i];
            const orl_row *r = &d->row[x->row];
            for (side = 0; side <= pairs; side++) {
                orli_str_printf(&s, "row %zu%s\n      id  weight     token\n", x->row + 1,
                                !pairs     ? ""
                                    : side ? ", rejected"
                                           : ", chosen");
                orli_dump_span(&s, m, e.ids + x->prompt, x->prompt_count, 0);
                orli_dump_span(&s, m, e.ids + x->told, x->told_count, 0);
                orli_dump_span(&s, m, e.ids + x->response[side], x->count[side], r->weight);
            }
        }
    }
    orli_examples_free(&e);
    return orli_str_take(&s);
}
#endif /* section 13 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 14
/* =================================================================================================
 * >>train   14. TRAIN: one trainer
 * =================================================================================================
 * Purpose:    rows → micro-batches → loss → gradient → step; validation, log, checkpoint, estimate.
 * Depends on: data, model, optim.   Owns: for the length of a run, moments, arena, log.
 * Invariants: the gradient of a step is the undivided sum over its rows, divided once, so micro-batches
 *             and a last partial batch weigh right. Which rows a step sees follows from (seed, step)
 *             alone, so a checkpoint needs only the step, weights and moments to go on bit for bit.
 *             A pair's prompt is computed once for both sides.
 * Threads:    the calling thread; kernels are parallel.
 * Tested by:  tests/test_14_train.c, tests/test_golden.c */

/* ---- 14.1 micro-batches ---- */

typedef struct orli_micro { /* some examples, packed, with what the heads need */
    orl_ctx *ctx;
    orl_stream *stream;
    size_t sequences, tokens;               /* tokens: of responses */
    size_t *predict, *last, *offset, *row;  /* predict: (tokens) row before each token; last: (sequences) */
    int32_t *target;                        /* (tokens) */
    double *weight, *reward, *margin;       /* (sequences) */
    orl_real *ref_logp, *slope;             /* (tokens); slope: of orl_loss_nll, −weight */
    size_t c_predict, c_last, c_offset, c_row, c_target, c_weight, c_reward, c_margin, c_ref, c_slope;
    orl_share share;
    size_t root, border;        /* of the prompt that was added last: its segment, its last token … */
    const orli_example *shared; /* … and its example */
} orli_micro;

static orl_status orli_micro_create(orli_micro *b, orl_ctx *ctx) {
    memset(b, 0, sizeof *b);
    b->ctx = ctx;
    b->stream = orl_stream_create(ctx);
    return orl_error_status(ctx);
}
static void orli_micro_free(orli_micro *b) {
    orl_stream_free(b->stream);
    orli_free(b->ctx, b->predict);
    orli_free(b->ctx, b->last);
    orli_free(b->ctx, b->offset);
    orli_free(b->ctx, b->row);
    orli_free(b->ctx, b->target);
    orli_free(b->ctx, b->weight);
    orli_free(b->ctx, b->reward);
    orli_free(b->ctx, b->margin);
    orli_free(b->ctx, b->ref_logp);
    orli_free(b->ctx, b->slope);
    memset(b, 0, sizeof *b);
}

static void orli_micro_clear(orli_micro *b) {
    orl_stream_clear(b->stream);
    b->sequences = b->tokens = 0;
    b->shared = NULL;
}

/* Does x begin with the prompt that was added last? */
static int orli_micro_continues(const orli_micro *b, const orli_examples *e, const orli_example *x) {
    const orli_example *y = b->shared;
    return b->share == ORL_SHARE_PROMPT && y && y->prompt_count == x->prompt_count &&
        memcmp(e->ids + y->prompt, e->ids + x->prompt, x->prompt_count * sizeof *e->ids) == 0;
}

static orl_status orli_micro_reserve(orli_micro *b, size_t tokens, size_t sequences) {
    orl_ctx *ctx = b->ctx;
    const size_t at = b->tokens + tokens, s = b->sequences + sequences;
    if (ORLI_RESERVE(ctx, b->predict, b->c_predict, at) != ORL_OK ||
        ORLI_RESERVE(ctx, b->target, b->c_target, at) != ORL_OK ||
        ORLI_RESERVE(ctx, b->ref_logp, b->c_ref, at) != ORL_OK ||
        ORLI_RESERVE(ctx, b->slope, b->c_slope, at) != ORL_OK || ORLI_RESERVE(ctx, b->last, b->c_last, s) != ORL_OK ||
        ORLI_RESERVE(ctx, b->offset, b->c_offset, s + 1) != ORL_OK ||
        ORLI_RESERVE(ctx, b->row, b->c_row, s) != ORL_OK || ORLI_RESERVE(ctx, b->weight, b->c_weight, s) != ORL_OK ||
        ORLI_RESERVE(ctx, b->reward, b->c_reward, s) != ORL_OK ||
        ORLI_RESERVE(ctx, b->margin, b->c_margin, s) != ORL_OK)
        return ORL_ERR_MEMORY;
    return ORL_OK;
}

/* Adds one example: its prompt, unless the last one's serves, then each side's response. A response continues the
 * prompt's segment, or is a child of it if others may be. A language model is not fed the last token: nothing
 * follows it. */
static orl_status orli_micro_add(orli_micro *b, const orli_examples *e, const orli_example *x, const orl_row *r,
                                 int sides, int untold, int feed_last) {
    const int branch = b->share == ORL_SHARE_PROMPT || (b->share == ORL_SHARE_PAIR && sides > 1);
    const int32_t *told = e->ids + (untold ? x->untold : x->told);
    const size_t told_count = untold ? x->untold_count : x->told_count, n = (size_t)sides;
    size_t side, i;
    if (orli_micro_reserve(b, x->count[0] + (n > 1 ? x->count[1] : 0), n) != ORL_OK) return ORL_ERR_MEMORY;
    for (side = 0; side < n; side++) {
        const size_t fed = x->count[side] - (feed_last ? 0 : 1), s = b->sequences++;
        const int32_t *ids = e->ids + x->response[side];
        size_t first;
        if (!(branch && side) && !orli_micro_continues(b, e, x)) {
            b->root = orl_stream_add(b->stream, e->ids + x->prompt, x->prompt_count, ORL_ROOT);
            if (b->root == ORL_ROOT) return orl_error_status(b->ctx);
            b->border = b->stream->tokens - 1;
            b->shared = x;
        }
        if (!branch) orli_stream_append(b->stream, told, told_count);
        else if (told_count) orl_stream_add(b->stream, told, told_count, b->root);
        i = told_count ? b->stream->tokens - 1 : b->border; /* predicts the response's first token */
        first = b->stream->tokens;
        if (branch && !told_count && fed) orl_stream_add(b->stream, ids, fed, b->root);
        else orli_stream_append(b->stream, ids, fed);
        b->last[s] = fed ? first + fed - 1 : i;
        b->row[s] = x->row;
        b->weight[s] = r ? r->weight : 1;
        b->reward[s] = r ? (side ? r->rejected_reward : r->reward) : 0;
        b->margin[s] = r ? r->margin : 0;
        b->offset[s] = b->tokens;
        for (; b->tokens < b->offset[s] + x->count[side]; i = first++) {
            b->predict[b->tokens] = i;
            b->slope[b->tokens] = (orl_real)-b->weight[s];
            b->target[b->tokens++] = *ids++;
        }
        b->offset[s + 1] = b->tokens;
    }
    return orl_error_status(b->ctx);
}

/* Forward pass and heads: what a loss sees. `loss`: the one that follows, or NULL; the slope of one is known. */
static orl_status orli_micro_run(orl_tape *tape, orl_model *m, const orli_micro *b, orl_loss_fn loss, orl_batch *out) {
    orl_tensor *h = orl_hidden(tape, m, b->stream);
    memset(out, 0, sizeof *out);
    out->sequences = b->sequences;
    out->offset = b->offset, out->row = b->row;
    out->weight = b->weight, out->reward = b->reward, out->margin = b->margin;
    if (m->reward)
        out->score = orl_linear(tape, orl_gather(tape, h, b->last, b->sequences),
                                orli_weight_use(tape, m, ORLI_W_SCORE, 0), NULL);
    else
        out->logp = orli_token_logp(tape, orl_gather(tape, h, b->predict, b->tokens), orl_head(tape, m), m->classes,
                                    b->target, NULL, loss == orl_loss_nll ? b->slope : NULL);
    return orl_error_status(m->object.ctx);
}

static size_t orli_example_tokens(const orli_example *x) {
    return x->prompt_count + ORLI_MAX(x->told_count, x->untold_count) + x->count[0] + x->count[1];
}

/* Would x, added, exceed the budget of tokens? */
static int orli_micro_full(const orli_micro *b, const orli_examples *e, const orli_example *x, size_t budget) {
    const size_t shared = orli_micro_continues(b, e, x) ? x->prompt_count : 0;
    return b->sequences && b->stream->tokens + orli_example_tokens(x) - shared > budget;
}

/* Fills the micro-batch with examples at … end−1 (of `order`, if given): as many as the budget of tokens takes,
 * at least one. d gives rows their weights, or is NULL. Returns where the next begins. */
static size_t orli_micro_fill(orli_micro *b, const orli_examples *e, const size_t *order, size_t at, size_t end,
                              const orl_dataset *d, int sides, int feed_last, size_t budget) {
    orli_micro_clear(b);
    for (; at < end && !orl_failed(b->ctx); at++) {
        const orli_example *x = &e->example[order ? order[at] : at];
        if (orli_micro_full(b, e, x, budget)) break;
        orli_micro_add(b, e, x, d ? &d->row[x->row] : NULL, sides, 0, feed_last);
    }
    return at;
}

/* ---- 14.2 losses: sums over a micro-batch ---- */

/* One number per sequence → a constant with one per token (n: tokens) or per sequence. */
static orl_tensor *orli_constant_of(orl_tape *tape, const double *x, const size_t *offset, size_t sequences) {
    orl_tensor *y = orl_constant(tape, NULL, offset ? offset[sequences] : sequences, 1);
    size_t s, i;
    if (!y || !y->data) return y;
    for (s = 0; s < sequences; s++) {
        if (!offset) y->data[s] = (orl_real)x[s];
        for (i = offset ? offset[s] : 0; offset && i < offset[s + 1]; i++) y->data[i] = (orl_real)x[s];
    }
    return y;
}

/* −Σ_s w_s Σ_t log π(y_t | c, y_<t) */
ORL_API orl_tensor *orl_loss_nll(orl_tape *tape, const orl_batch *b, void *user) {
    (void)user;
    return orl_scale(
        tape, orl_sum(tape, orl_mul(tape, b->logp, orli_constant_of(tape, b->weight, b->offset, b->sequences))), -1);
}

/* Σ pairs −log σ(r_c − r_r − margin) + center·(r_c + r_r)² */
ORL_API orl_tensor *orl_loss_reward(orl_tape *tape, const orl_batch *b, void *user) {
    const orl_rm_loss *o = (const orl_rm_loss *)user;
    orl_tensor *c = orl_every(tape, b->score, 0, 2), *r = orl_every(tape, b->score, 1, 2), *gap, *loss;
    gap = orl_sub(tape, orl_sub(tape, c, r),
                  orl_every(tape, orli_constant_of(tape, b->margin, NULL, b->sequences), 0, 2));
    if (o && o->margin != 0) gap = orl_shift(tape, gap, -o->margin);
    loss = orl_sum(tape, orl_softplus(tape, orl_scale(tape, gap, -1)));
    if (!o || o->center == 0) return loss;
    return orl_add(tape, loss, orl_scale(tape, orl_sum(tape, orl_square(tape, orl_add(tape, c, r))), o->center));
}

/* Σ pairs −log σ(β((s_c − s_r))), s = Σ_t log π/π_ref (Rafailov et al., arXiv 2305.18290) */
ORL_API orl_tensor *orl_loss_dpo(orl_tape *tape, const orl_batch *b, void *user) {
    double beta = user ? *(const double *)user : 0.1;
    orl_tensor *ratio = orl_sub(tape, b->logp, orl_constant(tape, b->ref_logp, b->offset[b->sequences], 1));
    orl_tensor *s = orl_sum_groups(tape, ratio, b->offset, b->sequences);
    orl_tensor *gap = orl_sub(tape, orl_every(tape, s, 0, 2), orl_every(tape, s, 1, 2));
    return orl_sum(tape, orl_softplus(tape, orl_scale(tape, gap, -beta)));
}

/* ---- 14.3 passes without gradient: scores, log-probabilities, validation ---- */

/* Called for each micro-batch, in the order of the examples. */
typedef void (*orli_visit_fn)(void *user, orl_tape *tape, const orl_batch *batch);

static orl_tape *orli_tape_inference(orl_ctx *ctx) {
    orl_tape *tape = orl_tape_create(ctx);
    if (tape) tape->inference = 1;
    return tape;
}

static void orli_tape_reserve(orl_tape *tape, size_t bytes) { /* at once: growing in pieces takes more */
    if (tape && bytes) orli_arena_alloc(&tape->values, bytes, 1);
    orl_tape_reset(tape);
}

/* Fills b->ref_logp with the reference model's log-probabilities of the same tokens. */
static orl_status orli_micro_reference(orl_tape *tape, orl_model *reference, orli_micro *b) {
    orl_batch batch;
    orl_tape_reset(tape);
    if (orli_micro_run(tape, reference, b, NULL, &batch) != ORL_OK || !batch.logp || orli_dry(tape))
        return orl_error_status(b->ctx);
    memcpy(b->ref_logp, batch.logp->data, b->tokens * sizeof *b->ref_logp);
    return ORL_OK;
}

#define ORLI_MICRO_TOKENS 4096

/* Bytes of tape that a pass without gradient takes, by a dry run. */
static size_t orli_examples_plan(orl_model *m, const orli_examples *e, int sides) {
    orl_ctx *ctx = m->object.ctx;
    orl_tape *tape = orli_tape_inference(ctx);
    orli_micro b;
    size_t i = 0, largest = 0, bytes;
    orli_micro_create(&b, ctx);
    if (tape) tape->values.dry = 1;
    while (i < e->count && !orl_failed(ctx)) {
        orl_batch batch;
        i = orli_micro_fill(&b, e, NULL, i, e->count, NULL, sides, m->reward, ORLI_MICRO_TOKENS);
        /* what needs most is among the large ones, not always the largest */
        if (b.stream->tokens < largest - largest / 8) continue;
        largest = ORLI_MAX(largest, b.stream->tokens);
        orl_tape_reset(tape);
        orli_micro_run(tape, m, &b, NULL, &batch);
    }
    bytes = tape ? tape->values.peak : 0;
    orl_tape_free(tape);
    orli_micro_free(&b);
    return bytes;
}

static orl_status orli_examples_visit(orl_model *m, const orl_dataset *d, const orli_examples *e, int sides,
                                      orl_model *reference, orli_visit_fn visit, void *user) {
    orl_ctx *ctx = m->object.ctx;
    orl_tape *tape = orli_tape_inference(ctx);
    orli_micro b;
    size_t i = 0, plan;
    orli_micro_create(&b, ctx);
    plan = orli_examples_plan(m, e, sides);
    /* more than it takes, so that the next pass, which may need a little more, finds this chunk good */
    orli_tape_reserve(tape, plan + plan / 8);
    while (i < e->count && !orl_failed(ctx)) {
        orl_batch batch;
        i = orli_micro_fill(&b, e, NULL, i, e->count, d, sides, m->reward, ORLI_MICRO_TOKENS);
        if (orl_failed(ctx) || (reference && orli_micro_reference(tape, reference, &b) != ORL_OK)) break;
        orl_tape_reset(tape);
        if (orli_micro_run(tape, m, &b, NULL, &batch) != ORL_OK) break;
        batch.ref_logp = reference ? b.ref_logp : NULL;
        visit(user, tape, &batch);
    }
    orl_tape_free(tape);
    orli_micro_free(&b);
    return orl_error_status(ctx);
}

/* ---- 14.4 checkpoints: one safetensors file ---- */

typedef struct orli_checkpoint_part { /* a parameter set and its optimizer, under a name */
    const char *name;
    orl_params *set;
    orli_adam *adam;
} orli_checkpoint_part;

typedef struct orli_progress { /* what besides weights and moments decides how a run goes on */
    const char *stage;
    uint64_t step, seed, log_bytes;
    double extra;              /* PPO: the KL coefficient */
    uint64_t rows, steps;      /* to recognise the run */
} orli_progress;

static void orli_checkpoint_name(char *name, const char *part, const char *what, const char *which) {
    snprintf(name, 200, "%s.%s%s%s", part, what, *which ? "." : "", which);
}

static void orli_checkpoint_put(orli_st_writer *w, const char *key, uint64_t value) {
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)value);
    orli_st_put_metadata(w, key, number);
}

static orl_status orli_checkpoint_save(orl_ctx *ctx, const char *path, const orli_checkpoint_part *part, size_t parts,
                                       const orli_progress *p) {
    orli_st_writer w = orli_st_writer_new(ctx);
    char name[200];
    uint64_t bits;
    size_t i;
    orli_st_put_metadata(&w, "format", "orl-checkpoint");
    orli_st_put_metadata(&w, "version", ORL_VERSION);
    orli_st_put_metadata(&w, "stage", p->stage);
    orli_checkpoint_put(&w, "step", p->step);
    orli_checkpoint_put(&w, "seed", p->seed);
    orli_checkpoint_put(&w, "rows", p->rows);
    orli_checkpoint_put(&w, "steps", p->steps);
    orli_checkpoint_put(&w, "log_bytes", p->log_bytes);
    memcpy(&bits, &p->extra, sizeof bits); /* nothing may be rounded */
    orli_checkpoint_put(&w, "extra", bits);
    for (i = 0; i < parts; i++) {
        const orl_param *q;
        size_t n = part[i].set->count;
        for (q = part[i].set->first; q; q = q->next) {
            size_t shape[2];
            shape[0] = q->rows, shape[1] = q->cols;
            orli_checkpoint_name(name, part[i].name, "weight", q->name);
            orli_st_put_tensor(&w, name, ORLI_DTYPE_REAL, 2, shape, ORLI_DTYPE_REAL, q->data);
        }
        orli_checkpoint_name(name, part[i].name, "moment1", "");
        orli_st_put_tensor(&w, name, ORLI_DTYPE_REAL, 1, &n, ORLI_DTYPE_REAL, part[i].adam->m);
        orli_checkpoint_name(name, part[i].name, "moment2", "");
        orli_st_put_tensor(&w, name, ORLI_DTYPE_REAL, 1, &n, ORLI_DTYPE_REAL, part[i].adam->v);
        orli_checkpoint_name(name, part[i].name, "steps", "");
        orli_checkpoint_put(&w, name, part[i].adam->step);
    }
    return orli_st_save(&w, path);
}

static uint64_t orli_checkpoint_number(const orli_safetensors *st, const char *key) {
    const char *text = orli_safetensors_metadata(st, key);
    uint64_t x = 0;
    if (!text || !*text) {
        orli_fail(st->ctx, ORL_ERR_FORMAT, "%s: no \"%s\" in its metadata: it is no checkpoint of this library",
                  st->path, key);
        return 0;
    }
    for (; *text >= '0' && *text <= '9'; text++) x = x * 10 + (uint64_t)(*text - '0');
    return x;
}

/* to NULL: only looks */
static void orli_checkpoint_read(const orli_safetensors *st, const char *name, size_t n, orl_real *to) {
    const orli_st_tensor *t = orli_safetensors_find(st, name);
    if (!t || orli_st_count(t) != n)
        orli_fail(st->ctx, ORL_ERR_MISMATCH,
                  "%s: tensor \"%s\" is missing or of another shape: the checkpoint is of another model", st->path,
                  name);
    else if (to) orli_safetensors_read(st, t, 0, n, to);
}

/* Loads into the parts; expected->stage, seed, rows and steps must be the run's own. Nothing is changed
 * unless everything fits: a first pass only looks. */
static orl_status orli_checkpoint_load(orl_ctx *ctx, const char *path, const orli_checkpoint_part *part, size_t parts,
                                       orli_progress *p) {
    orli_safetensors st;
    const char *stage;
    char name[200];
    uint64_t bits;
    size_t i;
    int pass;
    if (orli_safetensors_open(ctx, path, &st) != ORL_OK) return orl_error_status(ctx);
    stage = orli_safetensors_metadata(&st, "stage");
    if (!stage || strcmp(stage, p->stage) != 0)
        orli_fail(ctx, ORL_ERR_MISMATCH,
                  "%s: is a checkpoint of stage \"%.60s\" and this run is \"%s\": give it another directory", path,
                  stage ? stage : "?", p->stage);
    else if (orli_checkpoint_number(&st, "seed") != p->seed)
        orli_fail(ctx, ORL_ERR_MISMATCH, "%s: was made with another seed: resume with the same options", path);
    else if (orli_checkpoint_number(&st, "rows") != p->rows)
        orli_fail(ctx, ORL_ERR_MISMATCH, "%s: was made with another number of rows: resume with the same data", path);
    else if (orli_checkpoint_number(&st, "steps") != p->steps)
        orli_fail(ctx, ORL_ERR_MISMATCH, "%s: was made for another number of steps: resume with the same options",
                  path);
    p->step = orli_checkpoint_number(&st, "step");
    p->log_bytes = orli_checkpoint_number(&st, "log_bytes");
    bits = orli_checkpoint_number(&st, "extra");
    memcpy(&p->extra, &bits, sizeof bits);
    for (pass = 0; pass < 2; pass++) {
        for (i = 0; i < parts && !orl_failed(ctx); i++) {
            orli_adam *adam = part[i].adam;
            orl_param *q;
            for (q = part[i].set->first; q && !orl_failed(ctx); q = q->next) {
                orli_checkpoint_name(name, part[i].name, "weight", q->name);
                orli_checkpoint_read(&st, name, q->rows * q->cols, pass ? q->data : NULL);
                if (pass) q->version++;
            }
            orli_checkpoint_name(name, part[i].name, "moment1", "");
            orli_checkpoint_read(&st, name, part[i].set->count, pass ? adam->m : NULL);
            orli_checkpoint_name(name, part[i].name, "moment2", "");
            orli_checkpoint_read(&st, name, part[i].set->count, pass ? adam->v : NULL);
            orli_checkpoint_name(name, part[i].name, "steps", "");
            adam->step = orli_checkpoint_number(&st, name);
        }
    }
    orli_safetensors_close(&st);
    return orl_error_status(ctx);
}

/* ---- 14.5 the log: JSONL, one object a step ---- */

typedef struct orli_log {
    orl_ctx *ctx;
    FILE *file;
    const char *path;
    orli_str line;
} orli_log;

static void orli_log_number(orli_log *log, const char *key, double x) {
    orli_str_printf(&log->line, "%s\"%s\": ", log->line.length ? ", " : "{", key);
    orli_json_put_double(&log->line, x);
}
static void orli_log_text(orli_log *log, const char *key, const char *text) {
    orli_str_printf(&log->line, "%s\"%s\": ", log->line.length ? ", " : "{", key);
    orli_json_put_string(&log->line, text, strlen(text));
}

static void orli_log_end(orli_log *log) {
    if (log->file && !log->line.failed && log->line.length) {
        orli_str_puts(&log->line, "}\n");
        if (fwrite(log->line.data, 1, log->line.length, log->file) != log->line.length || fflush(log->file) != 0)
            orli_fail(log->ctx, ORL_ERR_IO, "%s: cannot be written: %s", log->path, strerror(errno));
    }
    log->line.length = 0;
}

/* Opens the log, cut back to `keep` bytes (0: a fresh one; what is shorter already is left as it is).
 * path may be NULL. */
static orl_status orli_log_open(orli_log *log, orl_ctx *ctx, const char *path, uint64_t keep) {
    struct stat info;
    memset(log, 0, sizeof *log);
    log->ctx = ctx, log->path = path, log->line = orli_str_new(ctx);
    if (!path || orl_failed(ctx)) return orl_error_status(ctx);
    if (keep && stat(path, &info) == 0 && (uint64_t)info.st_size > keep && truncate(path, (off_t)keep) != 0)
        return orli_fail(ctx, ORL_ERR_IO, "%s: cannot be cut back to the checkpoint: %s", path, strerror(errno));
    log->file = fopen(path, keep ? "ab" : "wb");
    return log->file ? ORL_OK : orli_fail(ctx, ORL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
}
static uint64_t orli_log_bytes(const orli_log *log) {
    struct stat info;
    return log->file && fflush(log->file) == 0 && fstat(fileno(log->file), &info) == 0 ? (uint64_t)info.st_size : 0;
}
static void orli_log_close(orli_log *log) {
    if (log->file) fclose(log->file);
    log->file = NULL;
    orli_str_free(&log->line);
}

static void orli_log_header(orli_log *log, const char *stage, const orl_model *m, uint64_t seed) {
    orli_log_text(log, "version", ORL_VERSION);
    orli_log_text(log, "stage", stage);
    orli_log_text(log, "isa", log->ctx->isa_name);
    orli_log_number(log, "threads", (double)orl_threads(log->ctx));
    orli_log_number(log, "seed", (double)seed);
    orli_log_number(log, "parameters", (double)m->params->count);
    if (orl_has_lora(m)) orli_log_number(log, "trained", (double)m->adapter->count);
}

/* ---- 14.6 the trainer ---- */

typedef struct orli_trainer {
    orl_ctx *ctx;
    orl_model *m;
    const orl_dataset *data;
    orl_train_options o;
    int sides, untold_drop;
    orli_examples examples;
    orli_adam adam;
    orl_tape *tape, *reference_tape;
    orli_micro micro;
    size_t *order, epoch;   /* order: of the epoch being walked through */
    size_t *group, groups;  /* ORL_SHARE_PROMPT: where each prompt's examples begin in … */
    size_t *by_prompt;      /* … the examples by prompt, */
    size_t *group_order;    /* and the order of the prompts in the epoch */
    size_t steps;
    uint64_t tokens;        /* fed in this step */
} orli_trainer;

static size_t orli_trainer_rows(const orli_trainer *t, size_t step) { /* rows in a step: the last may be short */
    double all = t->o.epochs * (double)t->examples.count, left = all - (double)(step * t->o.batch);
    return t->o.steps || left >= (double)t->o.batch ? t->o.batch : (size_t)(left + 0.5);
}

/* Puts the examples into the order of an epoch: each for itself, or a prompt's together. */
static void orli_trainer_shuffle(orli_trainer *t, size_t epoch) {
    const uint64_t stream = 0x0bde0000u + epoch;
    size_t i, k, at = 0;
    if (!t->groups) {
        orli_shuffle(t->order, t->examples.count, t->o.seed, stream);
        return;
    }
    orli_shuffle(t->group_order, t->groups, t->o.seed, stream);
    for (i = 0; i < t->groups; i++)
        for (k = t->group[t->group_order[i]]; k < t->group[t->group_order[i] + 1]; k++)
            t->order[at++] = t->by_prompt[k];
}

/* The example at place g of the run's endless row of epochs, each in an order of its own. */
static size_t orli_trainer_example(orli_trainer *t, size_t g) {
    size_t n = t->examples.count, epoch = g / n;
    if (!t->o.shuffle) return g % n;
    if (t->epoch != epoch + 1) {
        orli_trainer_shuffle(t, epoch);
        t->epoch = epoch + 1;
    }
    return t->order[g % n];
}

/* Is the row at place g shown without its reward? (condition dropout) */
static int orli_trainer_untold(const orli_trainer *t, size_t g) {
    orli_rng r;
    if (t->data->dropout <= 0) return 0;
    r = orli_rng_new(t->o.seed, 0xd90f0000u);
    r.counter = g;
    return orli_rng_uniform(&r) < t->data->dropout;
}

/* Fills the micro-batch from place *g on, up to `end`; adds what the divisor counts to *divisor. */
static orl_status orli_trainer_fill(orli_trainer *t, size_t *g, size_t end, double *divisor) {
    size_t budget = t->o.micro_tokens ? t->o.micro_tokens : ORLI_MICRO_TOKENS;
    orli_micro_clear(&t->micro);
    for (; *g < end && !orl_failed(t->ctx); ++*g) {
        const orli_example *x = &t->examples.example[orli_trainer_example(t, *g)];
        const orl_row *r = &t->data->row[x->row];
        if (orli_micro_full(&t->micro, &t->examples, x, budget)) break;
        *divisor += t->o.per_pair ? 1.0 : (double)(x->count[0] + x->count[1]);
        if (t->o.loss == orl_loss_nll && r->weight == 0) continue; /* pulls nothing; the divisor knows of it */
        orli_micro_add(&t->micro, &t->examples, x, r, t->sides, orli_trainer_untold(t, *g), t->m->reward);
    }
    return orl_error_status(t->ctx);
}

/* Loss and gradient of the micro-batch; the gradient adds up in the parameters. */
static double orli_trainer_micro(orli_trainer *t) {
    orl_batch batch;
    orl_tensor *loss;
    if (t->o.reference) orli_micro_reference(t->reference_tape, t->o.reference, &t->micro);
    orl_tape_reset(t->tape);
    if (orl_failed(t->ctx) || orli_micro_run(t->tape, t->m, &t->micro, t->o.loss, &batch) != ORL_OK) return 0;
    batch.ref_logp = t->o.reference ? t->micro.ref_logp : NULL;
    loss = t->o.loss(t->tape, &batch, t->o.loss_user);
    if (!loss && !orl_failed(t->ctx))
        orli_fail(t->ctx, ORL_ERR_ARGUMENT, "%s: the loss function returned NULL", t->o.stage);
    orl_backward(t->tape, loss);
    t->tokens += t->micro.stream->tokens;
    return orl_failed(t->ctx) || orli_dry(t->tape) ? 0 : (double)loss->data[0];
}

static double orli_trainer_step(orli_trainer *t, size_t step, double lr, double *norm) {
    size_t g = step * t->o.batch, end = g + orli_trainer_rows(t, step);
    orli_adam_options a;
    double loss = 0, divisor = 0;
    t->tokens = 0;
    while (g < end && !orl_failed(t->ctx)) {
        orli_trainer_fill(t, &g, end, &divisor);
        if (t->micro.sequences) loss += orli_trainer_micro(t);
    }
    if (orl_failed(t->ctx)) return 0;
    if (!(loss - loss == 0)) {
        orli_fail(t->ctx, ORL_ERR_DATA,
                  "%s: the loss is not finite at step %zu: lower the learning rate or look at the data", t->o.stage,
                  step + 1);
        return 0;
    }
    loss /= divisor;
    if (t->o.reduce) t->o.reduce(t->o.reduce_user, t->adam.set->grads, t->adam.set->count, &divisor);
    a.lr = lr, a.beta1 = t->o.beta1, a.beta2 = t->o.beta2, a.eps = t->o.eps, a.weight_decay = t->o.weight_decay,
    a.clip = t->o.clip;
    orli_adam_step(&t->adam, &a, divisor, norm);
    return loss;
}

static void orli_trainer_dry(orli_trainer *t, int dry) {
    t->tape->values.dry = dry;
    orl_tape_reset(t->tape);
    if (!t->reference_tape) return;
    t->reference_tape->values.dry = dry;
    orl_tape_reset(t->reference_tape);
}

/* Works out on dry tapes what the largest micro-batches need: bytes of the tape's and the reference's arenas. */
static orl_status orli_trainer_plan(orli_trainer *t, size_t *activations, size_t *reference) {
    size_t step, largest = 0, most = ORLI_MIN(t->steps, (size_t)2000);
    orli_trainer_dry(t, 1);
    for (step = 0; step < most && !orl_failed(t->ctx); step++) {
        size_t g = step * t->o.batch, end = g + orli_trainer_rows(t, step);
        double divisor = 0;
        while (g < end && orli_trainer_fill(t, &g, end, &divisor) == ORL_OK) {
            size_t size = t->micro.stream->tokens + t->micro.tokens;
            if (size < largest - largest / 8) continue; /* as in orli_examples_plan */
            largest = ORLI_MAX(largest, size);
            if (t->micro.sequences) orli_trainer_micro(t);
        }
    }
    *activations = t->tape->values.peak;
    *reference = t->reference_tape ? t->reference_tape->values.peak : 0;
    orli_trainer_dry(t, 0);
    t->epoch = 0;
    t->tokens = 0;
    return orl_error_status(t->ctx);
}

static orl_status orli_train_check(orl_ctx *ctx, const orl_train_options *o) {
    const char *bad = NULL;
    if (!o->batch) bad = "batch must be at least 1";
    else if (!o->steps && !(o->epochs > 0 && o->epochs < 1e9)) bad = "give steps, or epochs above 0";
    else if (!(o->lr > 0 && o->lr < 1e6)) bad = "lr must be positive";
    else if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        bad = "beta1 and beta2 must be 0 to below 1";
    else if (!(o->eps >= 0) || !(o->weight_decay >= 0) || !(o->clip >= 0))
        bad = "eps, weight_decay and clip must not be negative";
    else if ((int)o->share < 0 || o->share > ORL_SHARE_NONE) bad = "share is none of orl_share";
    else if (!(o->min_lr >= 0 && o->min_lr <= 1)) bad = "min_lr is a share of lr: 0 to 1";
    return bad ? orli_fail(ctx, ORL_ERR_ARGUMENT, "training: %s", bad) : ORL_OK;
}

ORL_API orl_train_options orl_train_default(void) {
    orl_train_options o;
    memset(&o, 0, sizeof o);
    o.epochs = 1, o.batch = 64;
    o.lr = 3e-4, o.schedule = ORL_COSINE, o.min_lr = 0.1, o.warmup = 20;
    o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.weight_decay = 0.01, o.clip = 1;
    o.shuffle = 1;
    o.seed = 1;
    return o;
}

static void orli_trainer_free(orli_trainer *t) {
    orli_adam_free(&t->adam);
    if (t->m && orli_model_trained(t->m)->grads) orli_params_freeze(orli_model_trained(t->m));
    orl_tape_free(t->tape);
    orl_tape_free(t->reference_tape);
    orli_micro_free(&t->micro);
    orli_examples_free(&t->examples);
    orli_free(t->ctx, t->order);
    orli_free(t->ctx, t->group);
    orli_free(t->ctx, t->by_prompt);
    orli_free(t->ctx, t->group_order);
}

/* Finds the examples of each prompt: prompts in the order of their first rows, their rows in file order. */
static orl_status orli_trainer_group(orli_trainer *t) {
    const orli_examples *e = &t->examples;
    size_t i, k, groups = 0, *of = (size_t *)orli_alloc(t->ctx, e->count, sizeof *of), *seen = NULL, most = 0;
    t->by_prompt = (size_t *)orli_alloc(t->ctx, e->count, sizeof *t->by_prompt);
    for (i = 0; i < e->count; i++) most = ORLI_MAX(most, t->data->row[e->example[i].row].group + 1);
    seen = (size_t *)orli_alloc_zero(t->ctx, most, sizeof *seen); /* 1 + the number of a data set's group */
    for (i = 0; of && seen && i < e->count; i++) {
        size_t g = t->data->row[e->example[i].row].group;
        if (!seen[g]) seen[g] = ++groups;
        of[i] = seen[g] - 1;
    }
    t->group = (size_t *)orli_alloc_zero(t->ctx, groups + 2, sizeof *t->group);
    t->group_order = (size_t *)orli_alloc(t->ctx, groups, sizeof *t->group_order);
    if (of && seen && t->group && t->group_order && t->by_prompt) {
        for (i = 0; i < e->count; i++) t->group[of[i] + 2]++;
        for (k = 0; k < groups; k++) t->group[k + 2] += t->group[k + 1];
        for (i = 0; i < e->count; i++) t->by_prompt[t->group[of[i] + 1]++] = i;
        t->groups = groups;
    }
    orli_free(t->ctx, of);
    orli_free(t->ctx, seen);
    return orl_error_status(t->ctx);
}

static orl_status orli_trainer_create(orli_trainer *t, orl_model *m, const orl_dataset *d,
                                      const orl_train_options *options) {
    orl_ctx *ctx = m->object.ctx;
    size_t i, pairs = 0;
    memset(t, 0, sizeof *t);
    t->ctx = ctx, t->m = m, t->data = d;
    t->o = options ? *options : orl_train_default();
    if (!t->o.loss) t->o.loss = m->reward ? orl_loss_reward : orl_loss_nll;
    if (!t->o.stage) t->o.stage = m->reward ? "reward" : "train";
    if (m->reward) t->o.per_pair = 1;
    for (i = 0; i < d->count; i++) pairs += (d->row[i].flags & ORL_PAIR) != 0;
    t->sides = pairs ? 2 : 1;
    if (pairs && t->o.loss == orl_loss_nll) { /* nobody learns to say what was rejected */
        t->sides = 1;
        orli_note(ctx,
                  "%s: %zu of its %zu rows are pairs: their chosen answers are learned, the rejected ones left out",
                  d->name, pairs, d->count);
    }
    if (orli_train_check(ctx, &t->o) != ORL_OK) return orl_error_status(ctx);
    if (t->o.reference && t->o.reference->reward)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%s is a reward model: a reference must be a language model",
                         t->o.reference->name);
    if (m->reward && t->sides != 2 && t->o.loss == orl_loss_reward)
        return orli_fail(ctx, ORL_ERR_DATA, "%s: rows of pairs are needed to train a reward model", d->name);
    if (orli_condition_attach(m, d) != ORL_OK || orli_examples_build(&t->examples, m, d, t->sides) != ORL_OK)
        return orl_error_status(ctx);
    t->steps =
        t->o.steps ? t->o.steps : (size_t)ceil(t->o.epochs * (double)t->examples.count / (double)t->o.batch - 1e-9);
    t->order = (size_t *)orli_alloc(ctx, t->examples.count, sizeof *t->order);
    t->tape = orl_tape_create(ctx);
    if (t->tape) t->tape->recompute = t->o.recompute;
    if (t->o.reference) t->reference_tape = orli_tape_inference(ctx);
    orli_micro_create(&t->micro, ctx);
    t->micro.share = t->o.share;
    return t->o.share == ORL_SHARE_PROMPT ? orli_trainer_group(t) : orl_error_status(ctx);
}

typedef struct orli_validation {
    const orl_train_options *o;
    double loss, divisor;
} orli_validation;

static void orli_validate_visit(void *user, orl_tape *tape, const orl_batch *batch) {
    orli_validation *v = (orli_validation *)user;
    orl_tensor *loss = v->o->loss(tape, batch, v->o->loss_user);
    if (loss) v->loss += (double)loss->data[0];
    v->divisor += v->o->per_pair ? (double)batch->sequences / 2 : (double)batch->offset[batch->sequences];
}

static double orli_validate(orli_trainer *t, const orli_examples *e) {
    orli_validation v;
    v.o = &t->o, v.loss = v.divisor = 0;
    orli_examples_visit(t->m, t->o.eval, e, t->sides, t->o.reference, orli_validate_visit, &v);
    return v.loss / v.divisor;
}

static void orli_trainer_log(orli_log *log, const orl_step_info *info) {
    orli_log_number(log, "step", (double)info->step);
    orli_log_number(log, "loss", info->loss);
    orli_log_number(log, "grad_norm", info->grad_norm);
    orli_log_number(log, "lr", info->lr);
    orli_log_number(log, "tokens", (double)info->tokens);
    orli_log_number(log, "seconds", info->seconds);
    orli_log_number(log, "elapsed", info->elapsed);
    if (info->val_loss == info->val_loss) orli_log_number(log, "val_loss", info->val_loss);
    orli_log_end(log);
}

static orl_status orli_trainer_save(orli_trainer *t, const orli_checkpoint_part *part, orli_progress *p,
                                    const orli_log *log, size_t step) {
    p->step = step;
    p->log_bytes = orli_log_bytes(log);
    return orli_checkpoint_save(t->ctx, t->o.checkpoint, part, 1, p);
}

static orl_status orli_trainer_loop(orli_trainer *t, const orli_examples *eval, orli_log *log,
                                    const orli_checkpoint_part *part, orli_progress *p) {
    orl_ctx *ctx = t->ctx;
    double begin = orl_seconds();
    size_t step;
    for (step = (size_t)p->step; step < t->steps && !orl_failed(ctx); step++) {
        orl_step_info info;
        double from = orl_seconds();
        int last = step + 1 == t->steps;
        memset(&info, 0, sizeof info);
        info.stage = t->o.stage, info.step = step + 1, info.steps = t->steps;
        info.lr = orli_learning_rate(t->o.lr, t->o.schedule, t->o.warmup, t->o.min_lr, step, t->steps);
        info.loss = orli_trainer_step(t, step, info.lr, &info.grad_norm);
        if (orl_failed(ctx)) break;
        info.val_loss = info.reward = info.kl = nan("");
        if (t->o.eval && (last || (t->o.eval_every && (step + 1) % t->o.eval_every == 0)))
            info.val_loss = orli_validate(t, eval);
        info.tokens = t->tokens;
        info.seconds = orl_seconds() - from, info.elapsed = orl_seconds() - begin;
        orli_trainer_log(log, &info);
        if (t->o.checkpoint && t->o.save_every && (step + 1) % t->o.save_every == 0 && !last)
            orli_trainer_save(t, part, p, log, step + 1);
        if (t->o.progress && t->o.progress(t->o.user, &info) && !last) {
            if (t->o.checkpoint) orli_trainer_save(t, part, p, log, step + 1);
            return orli_fail(ctx, ORL_ERR_STOPPED, "%s: stopped after step %zu of %zu%s", t->o.stage, step + 1,
                             t->steps, t->o.checkpoint ? "; resume goes on from there" : "");
        }
    }
    return orl_error_status(ctx);
}

ORL_API orl_status orl_train(orl_model *m, const orl_dataset *d, const orl_train_options *options) {
    orl_ctx *ctx = orl_model_ctx(m);
    orli_trainer t;
    orli_examples eval;
    orli_log log;
    orli_checkpoint_part part;
    orli_progress p;
    size_t activations, reference;
    memset(&eval, 0, sizeof eval);
    memset(&log, 0, sizeof log);
    memset(&p, 0, sizeof p);
    if (!m || !d || orl_failed(ctx)) return orl_error_status(ctx);
    if (orli_trainer_create(&t, m, d, options) == ORL_OK) orli_adam_create(&t.adam, orli_model_trained(m));
    if (!orl_failed(ctx) && t.o.eval) orli_examples_build(&eval, m, t.o.eval, t.sides);
    part.name = "model", part.set = orli_model_trained(m), part.adam = &t.adam;
    p.stage = t.o.stage, p.seed = t.o.seed, p.rows = t.examples.count, p.steps = t.steps;
    if (!orl_failed(ctx) && t.o.resume && t.o.checkpoint) {
        if (orli_exists(t.o.checkpoint)) orli_checkpoint_load(ctx, t.o.checkpoint, &part, 1, &p);
        else orli_note(ctx, "%s: there is no checkpoint to resume from: starting at step 0", t.o.checkpoint);
    }
    if (!orl_failed(ctx) && orli_trainer_plan(&t, &activations, &reference) == ORL_OK) {
        orli_tape_reserve(t.tape, activations); /* the step loop allocates nothing */
        orli_tape_reserve(t.reference_tape, reference);
        orli_log_open(&log, ctx, t.o.log, p.log_bytes);
        if (!p.step) orli_log_header(&log, t.o.stage, m, t.o.seed);
        else orli_log_number(&log, "resumed_from", (double)p.step);
        orli_log_end(&log);
        orli_trainer_loop(&t, &eval, &log, &part, &p);
        orli_log_close(&log);
    }
    orli_examples_free(&eval);
    orli_trainer_free(&t);
    return orl_error_status(ctx);
}

/* ---- 14.7 what a run will need ---- */

/* This machine's speed at products of the model's size, measured for some tens of milliseconds. */
static double orli_flops_per_second(const orl_model *m) {
    orl_ctx *ctx = m->object.ctx;
    const orl_param *p = orli_model_weight(m, ORLI_W_UP, 0);
    size_t n = 512, rounds = 0;
    orl_real *x = (orl_real *)orli_alloc_zero(ctx, n * (p->rows + p->cols), sizeof *x);
    double flops = ctx->flops, begin = orl_seconds(), speed = 0;
    if (!x) return 0;
    while (rounds++ < 3 || orl_seconds() - begin < 0.03)
        orli_gemm(ctx, n, p->rows, p->cols, orli_mat_of(x, p->cols, 1), orli_param_mat(p),
                  x + n * p->cols, p->rows, 0);
    speed = (ctx->flops - flops) / (orl_seconds() - begin);
    ctx->flops = flops; /* a measurement is no training */
    orli_free(ctx, x);
    return speed;
}

/* Has example i the prompt of the one before it, and shares it? */
static int orli_example_continues(const orli_examples *e, size_t i, orl_share share) {
    orli_micro b;
    memset(&b, 0, sizeof b);
    b.share = share, b.shared = i ? &e->example[i - 1] : NULL;
    return orli_micro_continues(&b, e, &e->example[i]);
}

/* The keys that tokens first … end−1 of a sequence see, in all layers. */
static double orli_model_visible(const orl_model *m, size_t first, size_t end) {
    double visible = 0;
    size_t layer;
    for (layer = 0; layer < m->config.layers; layer++) {
        orl_heads shape = orli_model_heads(m, layer);
        visible += orli_visible(first, end, orli_window(&shape));
    }
    return visible;
}

/* FLOPs of training once on the examples, without the head: 6 per weight and token, and attention. */
static double orli_trunk_flops(const orl_model *m, const orli_examples *e, int sides, orl_share share,
                               uint64_t *tokens) {
    const orl_model_config *c = &m->config;
    double per_token = 0, flops = 0;
    const orl_param *p;
    size_t i, w;
    for (p = m->params->first; p; p = p->next)
        if (p->rank >= 2) per_token += (double)p->rows * (double)p->cols;
    for (w = ORLI_W_EMBED; w <= ORLI_W_SCORE; w++) { /* tables are looked up; heads are counted by response token */
        p = orli_model_weight(m, (orli_weight)w, 0);
        if (p && p->rank >= 2) per_token -= (double)p->rows * (double)p->cols;
    }
    if (orl_has_lora(m)) per_token = per_token * 4 / 6 + (double)m->adapter->count; /* W has no gradient */
    *tokens = 0;
    for (i = 0; i < e->count; i++) {
        const orli_example *x = &e->example[i];
        const size_t prompt = x->prompt_count, told = x->told_count;
        size_t side, fed = 0;
        double visible = 0;
        for (side = 0; side < (size_t)sides; side++) {
            size_t n = told + x->count[side] - (m->reward ? 0 : 1); /* a language model's last is not fed */
            int repeated = share == ORL_SHARE_NONE || (!side && !orli_example_continues(e, i, share));
            fed += n + (repeated ? prompt : 0);
            visible += orli_model_visible(m, repeated ? 0 : prompt, prompt + n);
        }
        *tokens += fed;
        flops += 6 * per_token * (double)fed + 14 * (double)(c->heads * c->head_dim) * visible;
    }
    return flops;
}

/* The head's: 8 per weight and response token, as its logits are computed twice; 6 where the loss is known. */
static double orli_head_flops(const orl_model *m, const orli_examples *e, int sides) {
    double tokens = 0;
    size_t i;
    for (i = 0; i < e->count; i++)
        tokens += (double)(e->example[i].count[0] + (sides > 1 ? e->example[i].count[1] : 0));
    return m->reward ? 0 : 8 * (double)m->classes * (double)m->config.dim * tokens;
}

/* Bytes of a model: what a copy of it has for itself, … */
static size_t orli_copied_bytes(const orl_model *m) {
    const orl_param *p;
    size_t n = m->adapter->count;
    for (p = m->params->first; p; p = p->next) n += orli_param_stored(p) ? 0 : p->rows * p->cols;
    return n * sizeof(orl_real);
}
/* … all of it, … */
static size_t orli_model_bytes(const orl_model *m) {
    const orl_param *p;
    size_t n = orli_copied_bytes(m);
    for (p = m->params->first; p; p = p->next)
        if (orli_param_stored(p) && p->store->own)
            n += p->int8 ? orli_int8_size(p->rows, p->cols) : p->rows * p->cols * sizeof *p->half;
    return n;
}
/* … packed for use without gradient, beside that (bytes are packed as they are stored), … */
static size_t orli_packed_bytes(const orl_model *m) {
    const orl_param *p;
    size_t n = orli_copied_bytes(m);
    for (p = m->params->first; p; p = p->next) n += p->half ? p->rows * p->cols * sizeof *p->half : 0;
    return n;
}
/* … and of what is trained. */
static size_t orli_trained_bytes(const orl_model *m) { return orli_model_trained(m)->count * sizeof(orl_real); }

ORL_API orl_status orl_train_estimate(orl_model *m, const orl_dataset *d, const orl_train_options *options,
                                      orl_estimate *out) {
    orl_ctx *ctx = orl_model_ctx(m);
    orli_trainer t;
    orli_examples eval;
    double share;
    size_t reference = 0;
    memset(&eval, 0, sizeof eval);
    if (out) memset(out, 0, sizeof *out);
    if (!m || !d || !out || orl_failed(ctx)) return orl_error_status(ctx);
    if (orli_trainer_create(&t, m, d, options) == ORL_OK) {
        orli_params_train(orli_model_trained(m)); /* so that a dry run sees what will need gradients */
        if (!orl_failed(ctx)) orli_trainer_plan(&t, &out->activations, &reference);
        out->activations += reference;
        out->weights = orli_model_bytes(m), out->gradients = orli_trained_bytes(m), out->moments = 2 * out->gradients;
        if (t.o.reference) /* its own, and packed */
            out->weights += orli_model_bytes(t.o.reference) + orli_packed_bytes(t.o.reference);
        if (!orl_failed(ctx) && t.o.eval && orli_examples_build(&eval, m, t.o.eval, t.sides) == ORL_OK) {
            out->activations += orli_examples_plan(m, &eval, t.sides);
            out->weights += orli_packed_bytes(m); /* for validation */
        }
        orli_examples_free(&eval);
        out->rows = t.examples.count, out->dropped = t.examples.dropped, out->cut = t.examples.cut;
        share = (double)t.steps * (double)t.o.batch / (double)t.examples.count;
        out->flops = orli_trunk_flops(m, &t.examples, t.sides, t.o.share, &out->tokens) +
            orli_head_flops(m, &t.examples, t.sides) * (t.o.loss == orl_loss_nll ? 0.75 : 1);
        if (t.o.recompute) out->flops += orli_trunk_flops(m, &t.examples, t.sides, t.o.share, &out->tokens) / 3;
        out->flops *= t.o.steps ? share : t.o.epochs;
        out->tokens = (uint64_t)((double)out->tokens * (t.o.steps ? share : t.o.epochs));
        out->total = out->weights + out->gradients + out->moments + out->activations +
            t.examples.id_capacity * sizeof(int32_t) + t.examples.capacity * sizeof *t.examples.example +
            ctx->pool->threads * ORLI_SCRATCH;
        out->seconds = out->flops / (0.6 * orli_flops_per_second(m));
    }
    orli_trainer_free(&t);
    return orl_error_status(ctx);
}
#endif /* section 14 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 15
/* =================================================================================================
 * >>rlhf   15. RLHF: filter, weight, condition; scoring; reward model, DPO, PPO; evaluation
 * =================================================================================================
 * Purpose:    the methods. Every offline one is a view of the data for the one trainer:
 *                 filter (which samples stay) × weight (how hard they pull) × condition (what the
 *                 model is told beforehand).
 *             PPO alone needs rollouts, a critic and a reference, and a loop of its own.
 * Depends on: train, generate, data.
 * Invariants: r̂, its quantiles and what is written into a condition come from the whole labelled set,
 *             whatever view of it is asked; w has mean 1 over the rows that are left.
 * Source:     Hu, Tao, Yang, Zhou, "Aligning Language Models with Offline Reinforcement Learning from
 *             Human Feedback", arXiv 2308.12050.
 * Tested by:  tests/test_15_rlhf.c, tests/test_closed_form.c */

/* ---- 15.1 labels: r̂ = (r − mean)/sd over the whole labelled set ---- */

static int orli_by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Order of rows by prompt, then best first, then as they came. */
static int orli_by_rank(const void *a, const void *b) {
    const orli_ranked *x = (const orli_ranked *)a, *y = (const orli_ranked *)b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->reward != y->reward) return x->reward > y->reward ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}
static int orli_by_group(const void *a, const void *b) {
    const orli_ranked *x = (const orli_ranked *)a, *y = (const orli_ranked *)b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* The rows by prompt, within a prompt best first or as they came: into r (count), or allocated. */
static orli_ranked *orli_rank(const orl_dataset *d, int (*order)(const void *, const void *), orli_ranked *r) {
    size_t i;
    if (!r) r = (orli_ranked *)orli_alloc(d->object.ctx, d->count, sizeof *r);
    for (i = 0; r && i < d->count; i++) r[i].group = d->row[i].group, r[i].row = i, r[i].reward = d->row[i].reward_raw;
    if (r) orli_sort(r, d->count, sizeof *r, order);
    return r;
}

/* The labels of the set that d is a view of, worked out at the first question. */
static const orli_labels *orli_labels_of(orl_dataset *d) {
    orl_ctx *ctx = d->object.ctx;
    orli_labels *l;
    size_t i;
    double sum = 0, square = 0;
    for (i = 0; i < d->count; i++) { /* even if they are known already: rows can be written to */
        const orl_row *r = &d->row[i];
        if (!(r->flags & ORL_LABELLED)) {
            orli_fail(ctx, ORL_ERR_DATA, "%s: row %zu has no reward: score the data first", d->name, i + 1);
            return NULL;
        }
        if (!(r->reward_raw - r->reward_raw == 0)) {
            orli_fail(ctx, ORL_ERR_DATA, "%s: the reward of row %zu is not finite", d->name, i + 1);
            return NULL;
        }
        sum += r->reward_raw;
    }
    if (d->labels) return d->labels;
    l = (orli_labels *)orli_arena_alloc(&d->store->arena, 1, sizeof *l);
    if (!l || !(l->sorted = (double *)orli_arena_alloc(&d->store->arena, d->count, sizeof *l->sorted)) ||
        !(l->ranked = (orli_ranked *)orli_arena_alloc(&d->store->arena, d->count, sizeof *l->ranked)))
        return NULL;
    l->count = d->count;
    orli_rank(d, orli_by_rank, l->ranked);
    l->mean = sum / (double)d->count;
    for (i = 0; i < d->count; i++) square += (d->row[i].reward_raw - l->mean) * (d->row[i].reward_raw - l->mean);
    l->sd = sqrt(square / (double)d->count);
    if (!d->count || !(l->sd > 1e-12 * (fabs(l->mean) + 1e-300))) {
        orli_fail(ctx, ORL_ERR_DATA, "%s: all %zu rewards are equal: there is nothing to tell samples apart by",
                  d->name, d->count);
        return NULL;
    }
    for (i = 0; i < d->count; i++) l->sorted[i] = (d->row[i].reward_raw - l->mean) / l->sd;
    orli_sort(l->sorted, l->count, sizeof *l->sorted, orli_by_value);
    return d->labels = l;
}

static double orli_rhat(const orli_labels *l, const orl_row *r) { return (r->reward_raw - l->mean) / l->sd; }

/* Where r stands among all samples of its prompt: mean r̂, their number, and how many are better or equal to it. */
typedef struct orli_standing {
    double mean;
    size_t count, better, equal;
} orli_standing;

static orli_standing orli_standing_of(const orli_labels *l, const orl_row *r) {
    orli_standing s = {0, 0, 0, 0};
    size_t low = 0, high = l->count;
    while (low < high) { /* the first of its prompt */
        size_t middle = low + (high - low) / 2;
        if (l->ranked[middle].group < r->group) low = middle + 1;
        else high = middle;
    }
    for (; low < l->count && l->ranked[low].group == r->group; low++, s.count++) {
        s.mean += (l->ranked[low].reward - l->mean) / l->sd;
        s.better += l->ranked[low].reward > r->reward_raw;
        s.equal += l->ranked[low].reward >= r->reward_raw && l->ranked[low].reward <= r->reward_raw;
    }
    s.mean /= (double)s.count;
    return s;
}

/* The q-quantile of ascending numbers, linear between neighbours. */
static double orli_quantile(const double *sorted, size_t n, double q) {
    double at = q * (double)(n - 1);
    size_t i = at <= 0 ? 0 : ORLI_MIN((size_t)at, n - 1);
    double rest = at - (double)i;
    return i + 1 < n && rest > 0 ? sorted[i] + rest * (sorted[i + 1] - sorted[i]) : sorted[i];
}

ORL_API orl_status orl_normalise(orl_dataset *d) {
    const orli_labels *l;
    size_t i;
    if (!d || orl_failed(d->object.ctx)) return orl_error_status(orl_dataset_ctx(d));
    if (!(l = orli_labels_of(d))) return orl_error_status(d->object.ctx);
    for (i = 0; i < d->count; i++) d->row[i].reward = orli_rhat(l, &d->row[i]);
    return ORL_OK;
}

ORL_API orl_status orl_score_with(orl_dataset *d, orl_reward_fn reward, void *user) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    size_t i;
    if (!d || orl_failed(ctx)) return orl_error_status(ctx);
    if (!reward) return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_score_with: the reward function is NULL");
    for (i = 0; i < d->count; i++) {
        orl_row *r = &d->row[i];
        r->reward = r->reward_raw = reward(r, user);
        r->flags |= ORL_LABELLED;
        if (!(r->reward - r->reward == 0))
            return orli_fail(ctx, ORL_ERR_DATA, "%s: the reward of row %zu is not finite", d->name, i + 1);
    }
    d->labels = NULL;
    return ORL_OK;
}

/* ---- 15.2 the three transformations ---- */

static size_t orli_groups_kept(const orl_dataset *d) { /* prompts with at least one row */
    orli_ranked *r = orli_rank(d, orli_by_group, NULL);
    size_t i, n = 0;
    for (i = 0; r && i < d->count; i++) n += !i || r[i].group != r[i - 1].group;
    orli_free(d->object.ctx, r);
    return n;
}

ORL_API orl_dataset *orl_filter(orl_dataset *d, orl_filter_rule rule, double x) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    const orli_labels *l;
    orli_ranked *ranked = NULL;
    unsigned char *keep;
    orl_dataset *out = NULL;
    double threshold = x;
    size_t i, k = 0, best = 0, kept = 0;
    if (!d || orl_failed(ctx) || !(l = orli_labels_of(d))) return NULL;
    if (rule == ORL_ABOVE_QUANTILE && !(x >= 0 && x <= 1))
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_filter: a quantile lies between 0 and 1");
    if ((rule == ORL_TOP_K || rule == ORL_BEST_OF) && !(x >= 1))
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_filter: the number of samples must be at least 1");
    if (orl_failed(ctx) || !(keep = (unsigned char *)orli_alloc_zero(ctx, d->count, 1))) return NULL;
    if (rule == ORL_ABOVE_QUANTILE) threshold = orli_quantile(l->sorted, l->count, x);
    if (rule == ORL_TOP_K) ranked = orli_rank(d, orli_by_rank, NULL);
    if (rule == ORL_BEST_OF) ranked = orli_rank(d, orli_by_group, NULL);
    for (i = 0; i < d->count && (ranked || rule == ORL_ABOVE || rule == ORL_ABOVE_QUANTILE); i++) {
        if (!ranked) {
            keep[i] = orli_rhat(l, &d->row[i]) > threshold;
            continue;
        }
        if (!i || ranked[i].group != ranked[i - 1].group || (rule == ORL_BEST_OF && k >= (size_t)x)) k = 0;
        if (rule == ORL_TOP_K) {
            keep[ranked[i].row] = k < (size_t)x;
        } else { /* the first of each x leads until a better one comes */
            if (!k || ranked[i].reward > ranked[best].reward) {
                if (k) keep[ranked[best].row] = 0;
                keep[ranked[i].row] = 1;
                best = i;
            }
        }
        k++;
    }
    orli_free(ctx, ranked);
    for (i = 0; i < d->count; i++) kept += keep[i];
    if (!orl_failed(ctx) && !kept)
        orli_fail(ctx, ORL_ERR_DATA, "%s: the filter keeps none of %zu rows: lower the threshold (the best r̂ is %.3g)",
                  d->name, d->count, l->sorted[l->count - 1]);
    if (!orl_failed(ctx)) out = orli_dataset_select(d, keep);
    if (out) {
        double sum = 0;
        for (i = 0; i < out->count; i++) sum += out->row[i].weight;
        for (i = 0; i < out->count && sum > 0; i++) out->row[i].weight *= (double)out->count / sum;
        orli_note(ctx, "%s: the filter keeps %zu of %zu rows, of %zu prompts of %zu", d->name, out->count, d->count,
                  orli_groups_kept(out), orli_groups_kept(d));
    }
    orli_free(ctx, keep);
    return out;
}

ORL_API orl_dataset *orl_weight(orl_dataset *d, double beta, orl_baseline baseline, double clip) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    const orli_labels *l;
    orl_dataset *out;
    size_t i;
    double sum = 0, square = 0, top = -HUGE_VAL, ess;
    if (!d || orl_failed(ctx) || !(l = orli_labels_of(d))) return NULL;
    if (!(beta > 0) || !(clip > 0)) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_weight: beta and the clip must be positive");
        return NULL;
    }
    if (!(out = orli_dataset_select(d, NULL))) return NULL;
    for (i = 0; i < out->count; i++) { /* log w = (r̂ − b)/β; the mean of all r̂ is 0 */
        orl_row *r = &out->row[i];
        double b = baseline == ORL_BASELINE_PROMPT ? orli_standing_of(l, r).mean : 0;
        r->weight = ORLI_MIN((orli_rhat(l, r) - b) / beta, log(clip));
        top = ORLI_MAX(top, r->weight);
    }
    for (i = 0; i < out->count; i++) sum += out->row[i].weight = exp(out->row[i].weight - top);
    for (i = 0; i < out->count; i++) {
        out->row[i].weight *= (double)out->count / sum;
        square += out->row[i].weight * out->row[i].weight;
    }
    ess = (double)out->count / square; /* (Σw)²/Σw² as a share, for Σw = n */
    orli_note(ctx, "%s: weights of β = %g: effective sample size %.1f %% of %zu rows%s", d->name, beta, 100 * ess,
              out->count, ess < 0.1 ? ": few rows do all the pulling, raise β or lower the clip" : "");
    return out;
}

ORL_API orl_condition_options orl_condition_default(orl_condition_kind kind) {
    orl_condition_options o;
    memset(&o, 0, sizeof o);
    o.kind = kind;
    o.decimals = 1;
    o.format = " <rm_score>: {reward} ";
    o.bins = 12;
    o.dropout = kind == ORL_CONDITION_BINS ? 0.1 : 0;
    o.target_quantile = 0.99;
    return o;
}

/* The rank among all samples of a prompt as a number of −3 (worst) … 3 (best); equals share the
 * middle of their ranks. */
static double orli_condition_rank(const orli_labels *l, const orl_row *r) {
    orli_standing s = orli_standing_of(l, r);
    return 3.0 - 6.0 * ((double)s.better + 0.5 * (double)s.equal) / (double)s.count;
}

ORL_API orl_dataset *orl_condition(orl_dataset *d, const orl_condition_options *options) {
    orl_condition_options o = options ? *options : orl_condition_default(ORL_CONDITION_TEXT);
    orl_ctx *ctx = orl_dataset_ctx(d);
    const orli_labels *l;
    orl_dataset *out;
    orli_condition *c;
    const char *bad = NULL;
    double *values, *from;
    size_t i, n;
    if (!d || orl_failed(ctx) || !(l = orli_labels_of(d))) return NULL;
    if (o.kind != ORL_CONDITION_TEXT && o.kind != ORL_CONDITION_BINS) bad = "kind must be text or bins";
    else if (o.kind == ORL_CONDITION_TEXT &&
             (!o.format || !strstr(o.format, "{reward}") || strlen(o.format) >= sizeof c->format))
        bad = "format must contain {reward} and be short";
    else if (o.kind == ORL_CONDITION_TEXT && (o.decimals < 0 || o.decimals > 6)) bad = "decimals must be 0 to 6";
    else if (o.kind == ORL_CONDITION_BINS && (o.bins < 2 || o.bins > 1000)) bad = "bins must be 2 to 1000";
    else if (!(o.dropout >= 0 && o.dropout < 1)) bad = "dropout must be 0 to below 1";
    else if (!(o.target_quantile >= 0 && o.target_quantile <= 1)) bad = "target_quantile must be 0 to 1";
    if (bad) {
        orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_condition: %s", bad);
        return NULL;
    }
    if (!(out = orli_dataset_select(d, NULL))) return NULL;
    c = &out->condition;
    memset(c, 0, sizeof *c);
    c->kind = o.kind, c->decimals = o.decimals, c->mean = l->mean, c->sd = l->sd, c->ranked = o.rank_per_prompt;
    if (o.kind == ORL_CONDITION_TEXT) snprintf(c->format, sizeof c->format, "%s", o.format);
    else c->bins = o.bins;
    out->dropout = o.dropout;
    for (i = 0; i < out->count; i++) {
        orl_row *r = &out->row[i];
        r->condition = o.rank_per_prompt ? orli_condition_rank(l, r) : orli_rhat(l, r);
        r->flags |= ORL_CONDITIONED;
    }
    values = (double *)orli_alloc(ctx, out->count, sizeof *values);
    for (i = 0; values && i < out->count; i++) values[i] = out->row[i].condition;
    if (values) orli_sort(values, out->count, sizeof *values, orli_by_value);
    from = o.rank_per_prompt ? values : l->sorted, n = o.rank_per_prompt ? out->count : l->count;
    for (i = 0; values && i < 101; i++) c->quantile[i] = orli_quantile(from, n, (double)i / 100);
    if (values) c->target = orli_quantile(from, n, o.target_quantile);
    orli_free(ctx, values);
    return out;
}

ORL_API orl_condition_kind orl_model_condition(const orl_model *m, double quantile, double *target) {
    if (!m) return ORL_CONDITION_NONE;
    if (target)
        *target =
            m->condition.kind == ORL_CONDITION_NONE ? nan("") : orli_quantile(m->condition.quantile, 101, quantile);
    return m->condition.kind;
}

/* ---- 15.3 sampling from data sets ---- */

/* What a conditioned model is asked for; clamped to what it was trained on, with a note. */
static orl_status orli_target_of(const orl_model *m, const orl_generate_options *o, double *target, int *told) {
    orl_ctx *ctx = m->object.ctx;
    const orli_condition *c = &m->condition;
    *told = c->kind != ORL_CONDITION_NONE && o->target != ORL_TARGET_NONE;
    *target = c->target;
    if (c->kind == ORL_CONDITION_NONE) {
        if (o->target == ORL_TARGET_VALUE || o->target == ORL_TARGET_QUANTILE)
            return orli_fail(ctx, ORL_ERR_ARGUMENT,
                             "%s was not trained with a condition: a target reward means nothing to it", m->name);
        return ORL_OK;
    }
    if (o->target == ORL_TARGET_QUANTILE) {
        if (!(o->target_value >= 0 && o->target_value <= 1))
            return orli_fail(ctx, ORL_ERR_ARGUMENT, "a target quantile lies between 0 and 1");
        *target = orli_quantile(c->quantile, 101, o->target_value);
    }
    if (o->target == ORL_TARGET_VALUE) {
        if (!(o->target_value - o->target_value == 0))
            return orli_fail(ctx, ORL_ERR_ARGUMENT, "the target reward is not a number");
        *target = ORLI_MAX(c->quantile[0], ORLI_MIN(c->quantile[100], o->target_value));
        if (*target < o->target_value || *target > o->target_value)
            orli_note(ctx, "%s: the target %g lies outside the rewards it was trained on and is clamped to %g", m->name,
                      o->target_value, *target);
    }
    return ORL_OK;
}

static orl_status orli_sample_rows(orl_model *m, orl_dataset *out, const orl_dataset *asked, const orli_examples *e,
                                   const orl_generate_options *o, const orli_sampled *s) {
    orl_ctx *ctx = m->object.ctx;
    size_t i, k, t;
    for (i = 0; i < e->count && !orl_failed(ctx); i++) {
        for (k = 0; k < o->samples && !orl_failed(ctx); k++, s++) {
            orl_row *r = s->count ? orli_dataset_append(out) : NULL;
            char *text = NULL;
            if (!r) continue; /* sampling was stopped before its first token */
            *r = asked->row[e->example[i].row];
            r->flags =
                (r->flags & (ORL_CONDITIONED | ORL_IDS_GIVEN | ORL_TEMPLATED)) | ORL_SAMPLED |
                (s->truncated ? ORL_TRUNCATED : 0);
            r->sample = k, r->tokens = s->count, r->weight = 1;
            r->reward = r->reward_raw = r->logp = 0;
            for (t = 0; t < s->count; t++) r->logp += (double)s->logp[t];
            r->sampling_logp = s->sampling_logp;
            memset(&r->response, 0, sizeof r->response);
            memset(&r->rejected, 0, sizeof r->rejected);
            r->response.ids = (const int32_t *)orli_store_copy(out->store, s->ids, s->count * sizeof *s->ids);
            r->response.tokens = s->count;
            if (s->text) {
                r->response.text = (const char *)orli_store_copy(out->store, s->text, s->bytes);
                r->response.bytes = s->bytes;
            } else if (m->tokenizer &&
                orli_decode(m->tokenizer, s->ids, s->count, 1, !orli_text_empty(&r->prompt), &text,
                            &r->response.bytes) == ORL_OK)
                r->response.text = (const char *)orli_store_copy(out->store, text, r->response.bytes);
            orli_free(ctx, text);
        }
    }
    return orl_error_status(ctx);
}

/* orl_sample(); *stopped: by on_token(), which has not failed yet. */
static orl_dataset *orli_sample(orl_model *m, const orl_dataset *prompts, const orl_generate_options *options,
                                int *stopped) {
    orl_generate_options o = options ? *options : orl_generate_default();
    orl_ctx *ctx = orl_model_ctx(m);
    orl_dataset *asked, *out = NULL;
    orli_examples e;
    orli_prompt *prompt = NULL;
    orli_sampled *samples = NULL;
    int32_t *ids = NULL;
    size_t i, used = 0;
    double target;
    int told;
    *stopped = 0;
    if (!m || !prompts || orl_failed(ctx) || orli_generate_check(ctx, m, &o) != ORL_OK ||
        orli_target_of(m, &o, &target, &told) != ORL_OK)
        return NULL;
    if (!(asked = orli_dataset_select(prompts, NULL))) return NULL;
    for (i = 0; i < asked->count; i++) {
        asked->row[i].flags = (asked->row[i].flags & ~ORL_CONDITIONED) | (told ? ORL_CONDITIONED : 0u);
        asked->row[i].condition = target;
    }
    if (orli_examples_build(&e, m, asked, 0) == ORL_OK) {
        prompt = (orli_prompt *)orli_alloc_zero(ctx, e.count, sizeof *prompt);
        /* prompts with and without their condition, end to end */
        ids = (int32_t *)orli_alloc(ctx, 2 * e.id_count + 1, sizeof *ids);
    }
    for (i = 0; prompt && ids && i < e.count; i++) {
        const orli_example *x = &e.example[i];
        prompt[i].ids = ids + used, prompt[i].count = x->prompt_count + x->told_count;
        /* the condition follows the prompt in e.ids */
        memcpy(ids + used, e.ids + x->prompt, prompt[i].count * sizeof *ids);
        used += prompt[i].count;
        prompt[i].row = x->row, prompt[i].continues = !orli_text_empty(&asked->row[x->row].prompt);
        prompt[i].plain = ids + used, prompt[i].plain_count = x->prompt_count + x->untold_count;
        memcpy(ids + used, e.ids + x->prompt, x->prompt_count * sizeof *ids);
        memcpy(ids + used + x->prompt_count, e.ids + x->untold, x->untold_count * sizeof *ids);
        used += prompt[i].plain_count;
    }
    if (!told) o.guidance = 0; /* nothing to guide towards */
    if (prompt && ids && orli_generate(m, prompt, e.count, &o, &samples, stopped) == ORL_OK &&
        (out = orli_dataset_new(ctx, prompts->store, NULL)) != NULL) {
        memcpy(out->name, prompts->name, sizeof out->name);
        orli_sample_rows(m, out, asked, &e, &o, samples);
    }
    orli_sampled_free(ctx, samples, e.count * o.samples);
    orli_free(ctx, prompt);
    orli_free(ctx, ids);
    orli_examples_free(&e);
    orl_dataset_free(asked);
    if (!orl_failed(ctx)) return out;
    orl_dataset_free(out);
    return NULL;
}

static void orli_sample_stopped(orl_ctx *ctx, int stopped) {
    if (stopped) orli_fail(ctx, ORL_ERR_STOPPED, "sampling was stopped by on_token: what there is was returned");
}

ORL_API orl_dataset *orl_sample(orl_model *m, const orl_dataset *prompts, const orl_generate_options *options) {
    int stopped;
    orl_dataset *out = orli_sample(m, prompts, options, &stopped);
    orli_sample_stopped(orl_model_ctx(m), stopped);
    return out;
}

ORL_API char *orl_generate_text(orl_model *m, const char *prompt, const orl_generate_options *options) {
    orl_generate_options o = options ? *options : orl_generate_default();
    orl_ctx *ctx = orl_model_ctx(m);
    orl_dataset *ask = orl_dataset_create(ctx), *answer;
    char *text = NULL;
    int stopped;
    o.samples = 1;
    orl_dataset_add(ask, prompt, NULL);
    answer = orli_sample(m, ask, &o, &stopped);
    if (answer && !answer->row[0].response.text)
        orli_fail(ctx, ORL_ERR_ARGUMENT, "%s has no tokenizer: sample from rows of ids", m->name);
    else if (answer) text = orli_copy_bytes(ctx, answer->row[0].response.text, answer->row[0].response.bytes);
    orl_dataset_free(answer);
    orl_dataset_free(ask);
    orli_sample_stopped(ctx, stopped);
    return text;
}

/* ---- 15.4 log-probabilities and scores of rows ---- */

typedef struct orli_logprob_job {
    orl_ctx *ctx;
    orl_dataset *data;
    orl_real *token;
    size_t tokens, capacity;
} orli_logprob_job;

static void orli_logprob_visit(void *user, orl_tape *tape, const orl_batch *b) {
    orli_logprob_job *j = (orli_logprob_job *)user;
    size_t s, t, n = b->offset[b->sequences];
    (void)tape;
    if (ORLI_RESERVE(j->ctx, j->token, j->capacity, j->tokens + n) != ORL_OK) return;
    memcpy(j->token + j->tokens, orl_data(b->logp), n * sizeof *j->token);
    j->tokens += n;
    for (s = 0; s < b->sequences; s++) {
        orl_row *r = &j->data->row[b->row[s]];
        r->logp = 0;
        for (t = b->offset[s]; t < b->offset[s + 1]; t++) r->logp += (double)orl_data(b->logp)[t];
        r->tokens = b->offset[s + 1] - b->offset[s];
    }
}

ORL_API orl_status orl_logprob(orl_model *m, orl_dataset *d, orl_real **per_token, size_t *total) {
    orl_ctx *ctx = orl_model_ctx(m);
    orli_logprob_job job;
    orli_examples e;
    size_t i;
    if (per_token) *per_token = NULL;
    if (total) *total = 0;
    if (!m || !d || orl_failed(ctx)) return orl_error_status(ctx);
    if (m->reward)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%s is a reward model: it has no log-probabilities", m->name);
    memset(&job, 0, sizeof job);
    job.ctx = ctx, job.data = d;
    /* of rows that do not fit */
    for (i = 0; i < d->count; i++) d->row[i].logp = nan(""), d->row[i].tokens = 0, d->row[i].flags |= ORL_LOGP;
    if (orli_examples_build(&e, m, d, 1) == ORL_OK) orli_examples_visit(m, d, &e, 1, NULL, orli_logprob_visit, &job);
    orli_examples_free(&e);
    if (orl_failed(ctx) || !per_token) orli_free(ctx, job.token);
    else *per_token = job.token;
    if (total && !orl_failed(ctx)) *total = job.tokens;
    return orl_error_status(ctx);
}

static int orli_same_vocabulary(const orl_model *a, const orl_model *b) {
    const orl_tokenizer *x = a->tokenizer, *y = b->tokenizer;
    size_t i, n, k;
    if (a->classes != b->classes) return 0;
    if (!x || !y || x == y) return 1;
    if (orl_vocab(x) != orl_vocab(y)) return 0;
    for (i = 0; i < orl_vocab(x); i++) {
        const char *s = orl_token_text(x, (int32_t)i, &n), *t = orl_token_text(y, (int32_t)i, &k);
        if (n != k || (n && memcmp(s, t, n) != 0)) return 0;
    }
    return 1;
}

ORL_API orl_status orl_compare_logprob(orl_model *m, orl_model *other, const orl_dataset *d, orl_logprob_loss *out) {
    orl_ctx *ctx = orl_model_ctx(m);
    orl_dataset *rows;
    orl_real *p = NULL, *q = NULL;
    size_t i, n = 0, k = 0;
    double sum[3] = {0, 0, 0}, worst = 0;
    if (out) memset(out, 0, sizeof *out);
    if (!m || !other || !d || !out || orl_failed(ctx)) return orl_error_status(ctx);
    if (orl_model_ctx(other) != ctx)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_compare_logprob: %s is of another context", other->name);
    if (!orli_same_vocabulary(m, other))
        return orli_fail(ctx, ORL_ERR_MISMATCH, "orl_compare_logprob: %s and %s have different vocabularies", m->name,
                         other->name);
    rows = orl_dataset_view(d, 0, d->count);
    if (orl_logprob(m, rows, &p, &n) == ORL_OK) orl_logprob(other, rows, &q, &k);
    orl_dataset_free(rows);
    if (p && q && n != k)
        orli_fail(ctx, ORL_ERR_MISMATCH, "orl_compare_logprob: %s sees %zu tokens in %s, %s %zu: their contexts differ",
                  m->name, n, d->name, other->name, k);
    for (i = 0; p && q && n == k && i < n; i++) {
        const double apart = fabs((double)p[i] - (double)q[i]);
        sum[0] += (double)p[i], sum[1] += (double)q[i], sum[2] += apart;
        worst = apart > worst || apart != apart ? apart : worst;
    }
    orli_free(ctx, p);
    orli_free(ctx, q);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    out->tokens = n;
    out->perplexity = exp(-sum[0] / (double)n), out->other_perplexity = exp(-sum[1] / (double)n);
    out->mean_difference = sum[2] / (double)n, out->worst = worst;
    return ORL_OK;
}

typedef struct orli_score_job {
    orl_dataset *data;
    int sides;
} orli_score_job;

static void orli_score_visit(void *user, orl_tape *tape, const orl_batch *b) {
    orli_score_job *j = (orli_score_job *)user;
    size_t s;
    (void)tape;
    for (s = 0; s < b->sequences; s++) {
        orl_row *r = &j->data->row[b->row[s]];
        double x = (double)orl_data(b->score)[s];
        if (j->sides == 2 && s % 2) r->rejected_reward_raw = x;
        else r->reward_raw = x;
    }
}

ORL_API orl_status orl_score(orl_model *m, orl_dataset *d) {
    orl_ctx *ctx = orl_model_ctx(m);
    orli_score_job job;
    orli_examples e;
    size_t i;
    if (!m || !d || orl_failed(ctx)) return orl_error_status(ctx);
    if (!m->reward)
        return orli_fail(ctx, ORL_ERR_ARGUMENT,
                         "%s is a language model, no reward model: orl_reward_model() makes one of it", m->name);
    if (!d->count) return orli_fail(ctx, ORL_ERR_DATA, "%s: there are no rows to score", d->name);
    job.data = d, job.sides = d->row[0].flags & ORL_PAIR ? 2 : 1;
    /* of rows that do not fit */
    for (i = 0; i < d->count; i++) d->row[i].reward_raw = d->row[i].rejected_reward_raw = nan("");
    if (orli_examples_build(&e, m, d, job.sides) == ORL_OK)
        orli_examples_visit(m, d, &e, job.sides, NULL, orli_score_visit, &job);
    orli_examples_free(&e);
    for (i = 0; i < d->count && !orl_failed(ctx); i++) {
        orl_row *r = &d->row[i];
        r->reward = (r->reward_raw - m->reward_mean) / m->reward_sd;
        r->rejected_reward = (r->rejected_reward_raw - m->reward_mean) / m->reward_sd;
        r->flags |= ORL_LABELLED;
    }
    d->labels = NULL;
    return orl_error_status(ctx);
}

/* Wilson's 95 % interval for `wins` of n. */
static void orli_wilson(double wins, double n, double *low, double *high) {
    double z = 1.959963984540054, p = n > 0 ? wins / n : 0.5, center = p + z * z / (2 * n),
           half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    *low = n > 0 ? (center - half) / (1 + z * z / n) : 0;
    *high = n > 0 ? (center + half) / (1 + z * z / n) : 1;
}

ORL_API orl_status orl_pair_accuracy(const orl_dataset *d, orl_accuracy *out) {
    orl_ctx *ctx = orl_dataset_ctx(d);
    double wins = 0, bin_wins[10] = {0}, bin_count[10] = {0}, square[2] = {0, 0};
    size_t i;
    if (out) memset(out, 0, sizeof *out);
    if (!d || !out || orl_failed(ctx)) return orl_error_status(ctx);
    for (i = 0; i < d->count; i++) {
        const orl_row *r = &d->row[i];
        double gap = r->reward - r->rejected_reward, sure, win = gap > 0 ? 1 : gap < 0 ? 0 : 0.5;
        size_t bin;
        if (!(r->flags & ORL_PAIR) || !(r->flags & ORL_LABELLED))
            return orli_fail(ctx, ORL_ERR_DATA, "%s: row %zu is no scored pair", d->name, i + 1);
        if (!(gap - gap == 0)) continue; /* a row that did not fit: said when it was scored */
        sure = 1.0 / (1.0 + exp(-fabs(r->reward_raw - r->rejected_reward_raw)));
        bin = ORLI_MIN((size_t)((sure - 0.5) * 20), (size_t)9);
        bin_wins[bin] += win, bin_count[bin] += 1;
        wins += win;
        out->pairs++;
        out->mean_chosen += r->reward, out->mean_rejected += r->rejected_reward;
        square[0] += r->reward * r->reward, square[1] += r->rejected_reward * r->rejected_reward;
    }
    if (!out->pairs) return orli_fail(ctx, ORL_ERR_DATA, "%s: there are no scored pairs", d->name);
    {
        double n = (double)out->pairs;
        out->accuracy = wins / n;
        orli_wilson(wins, n, &out->low, &out->high);
        out->mean_chosen /= n, out->mean_rejected /= n;
        out->margin = out->mean_chosen - out->mean_rejected;
        out->sd_chosen = sqrt(ORLI_MAX(square[0] / n - out->mean_chosen * out->mean_chosen, 0.0));
        out->sd_rejected = sqrt(ORLI_MAX(square[1] / n - out->mean_rejected * out->mean_rejected, 0.0));
    }
    for (i = 0; i < 10; i++) out->calibration[i] = bin_count[i] > 0 ? bin_wins[i] / bin_count[i] : nan("");
    return ORL_OK;
}

/* ---- 15.5 reward model, DPO ---- */

ORL_API orl_status orl_train_reward(orl_model *m, const orl_dataset *pairs, const orl_train_options *options) {
    orl_ctx *ctx = orl_model_ctx(m);
    orl_dataset *scored = NULL;
    unsigned char *keep;
    size_t i, n = 0, some = pairs ? ORLI_MIN(pairs->count, (size_t)1024) : 0;
    double sum = 0, square = 0, x;
    int side;
    if (!m || !pairs || orl_failed(ctx)) return orl_error_status(ctx);
    if (!m->reward)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "%s is a language model: orl_reward_model() gives it a scalar head",
                         m->name);
    m->reward_mean = 0, m->reward_sd = 1;
    if (orl_train(m, pairs, options) != ORL_OK || !(keep = (unsigned char *)orli_alloc_zero(ctx, pairs->count, 1)))
        return orl_error_status(ctx);
    for (i = 0; i < some; i++) keep[(size_t)((double)i * (double)pairs->count / (double)some)] = 1;
    scored = orli_dataset_select(pairs, keep);
    orli_free(ctx, keep);
    if (scored && orl_score(m, scored) == ORL_OK) { /* its normalisation: over both sides of what it was trained on */
        for (side = 0; side < 4; side++) {
            for (i = 0; i < scored->count; i++) {
                x = side % 2 ? scored->row[i].rejected_reward_raw : scored->row[i].reward_raw;
                if (!(x - x == 0)) continue;
                if (side < 2) sum += x, n++;
                else square += (x - sum / (double)n) * (x - sum / (double)n);
            }
        }
        m->reward_mean = n ? sum / (double)n : 0;
        m->reward_sd = n ? sqrt(square / (double)n) : 0;
        if (!(m->reward_sd > 0)) {
            m->reward_sd = 1;
            orli_fail(
                ctx, ORL_ERR_DATA,
                "%s: the reward model gives all responses the same score: train longer, or with a higher learning rate",
                pairs->name);
        }
    }
    orl_dataset_free(scored);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_train_dpo(orl_model *m, const orl_dataset *pairs, orl_model *reference, double beta,
                                 const orl_train_options *options) {
    orl_train_options o = options ? *options : orl_train_default();
    orl_ctx *ctx = orl_model_ctx(m);
    orl_model *copy = NULL;
    if (!m || !pairs || orl_failed(ctx)) return orl_error_status(ctx);
    if (!(beta > 0)) return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_train_dpo: beta must be positive");
    if (pairs->count && !(pairs->row[0].flags & ORL_PAIR))
        return orli_fail(ctx, ORL_ERR_DATA, "%s: rows of pairs are needed for DPO: \"chosen\" and \"rejected\"",
                         pairs->name);
    if (!reference) reference = copy = orl_model_copy(m);
    o.loss = orl_loss_dpo, o.loss_user = &beta, o.per_pair = 1, o.reference = reference;
    if (!o.stage) o.stage = "dpo";
    orl_train(m, pairs, &o);
    orl_model_free(copy);
    return orl_error_status(ctx);
}

/* ---- 15.6 PPO (Schulman et al., arXiv 1707.06347), as used for language models ----
 * One iteration: rollouts → score → log-probabilities of policy and reference, values → per-token
 * rewards −β_kl·(log π − log π_ref), plus the score at the last token → advantages by GAE → several
 * epochs of minibatch steps on policy and critic. */

typedef struct orli_rollouts {
    orli_examples examples;  /* prompt and response of each */
    size_t *start;           /* (count + 1): where its tokens begin below */
    size_t tokens;
    orl_real *behaviour, *old_logp, *ref_logp, *value, *advantage, *target; /* (tokens); target: of the critic */
    double *score;           /* (count), normalised */
    unsigned char *unfinished;
} orli_rollouts;

typedef struct orli_ppo_stats { /* of one iteration */
    double reward, kl, k1, k3, entropy_k, clipped, explained, drift, policy_loss, value_loss, norm, critic_norm, length,
        unfinished;
    size_t steps;
} orli_ppo_stats;

typedef struct orli_ppo {
    orl_ctx *ctx;
    const orl_ppo_options *o;
    orl_model *policy, *reference, *critic, *rm;
    orli_examples prompts, ptx;
    const orl_dataset *prompt_rows;
    orli_adam actor_adam, critic_adam;
    orl_tape *tape;
    orli_micro micro;
    orli_rollouts roll;
    size_t *order;           /* of rollouts within an epoch */
    size_t *prompt_order, prompt_epoch;
    size_t ptx_at;
    double kl;               /* the coefficient */
} orli_ppo;

ORL_API orl_ppo_options orl_ppo_default(void) {
    orl_ppo_options o;
    memset(&o, 0, sizeof o);
    o.iterations = 36, o.rollouts = 256, o.epochs = 4, o.minibatch = 64;
    o.lr = 3e-4, o.critic_lr = 1e-3, o.schedule = ORL_CONSTANT;
    o.clip_low = o.clip_high = o.value_clip = 0.2;
    o.gamma = 1, o.lambda = 0.95;
    o.kl = 0.05;
    o.kl_horizon = 10000;
    o.reward_clip = 10, o.whiten = 1, o.unfinished_penalty = 1;
    o.temperature = 1;
    o.beta1 = 0.9, o.beta2 = 0.95, o.eps = 1e-8, o.clip = 1;
    o.seed = 1;
    return o;
}

static void orli_rollouts_free(orl_ctx *ctx, orli_rollouts *r) {
    orli_examples_free(&r->examples);
    orli_free(ctx, r->start);
    orli_free(ctx, r->behaviour);
    orli_free(ctx, r->old_logp);
    orli_free(ctx, r->ref_logp);
    orli_free(ctx, r->value);
    orli_free(ctx, r->advantage);
    orli_free(ctx, r->target);
    orli_free(ctx, r->score);
    orli_free(ctx, r->unfinished);
    memset(r, 0, sizeof *r);
}

/* Copies a micro-batch's per-token results to the places of their rollouts. */
typedef struct orli_spread {
    orli_rollouts *r;
    orl_real *to;
} orli_spread;

static void orli_spread_logp(void *user, orl_tape *tape, const orl_batch *b) {
    orli_spread *s = (orli_spread *)user;
    size_t q;
    (void)tape;
    for (q = 0; q < b->sequences; q++)
        memcpy(s->to + s->r->start[b->row[q]], orl_data(b->logp) + b->offset[q],
               (b->offset[q + 1] - b->offset[q]) * sizeof(orl_real));
}
static void orli_spread_score(void *user, orl_tape *tape, const orl_batch *b) {
    orli_rollouts *r = (orli_rollouts *)user;
    size_t q;
    (void)tape;
    for (q = 0; q < b->sequences; q++) r->score[b->row[q]] = (double)orl_data(b->score)[q];
}

/* The critic's values at the position before each response token: (tokens, 1), normalised. */
static orl_tensor *orli_ppo_values(orl_tape *tape, const orl_model *critic, const orli_micro *b) {
    orl_tensor *h =
        orl_gather(tape, orl_hidden(tape, (orl_model *)(uintptr_t)critic, b->stream), b->predict, b->tokens);
    orl_tensor *v = orl_linear(tape, h, orli_weight_use(tape, critic, ORLI_W_SCORE, 0), NULL);
    return orl_scale(tape, orl_shift(tape, v, -critic->reward_mean), 1.0 / critic->reward_sd);
}

static orl_status orli_ppo_old_values(orli_ppo *p) {
    orli_rollouts *r = &p->roll;
    orl_tape *tape = orli_tape_inference(p->ctx);
    size_t i = 0, q;
    while (i < r->examples.count && !orl_failed(p->ctx)) {
        orl_tensor *v;
        i = orli_micro_fill(&p->micro, &r->examples, NULL, i, r->examples.count, NULL, 1, 0, ORLI_MICRO_TOKENS);
        orl_tape_reset(tape);
        v = orl_failed(p->ctx) ? NULL : orli_ppo_values(tape, p->critic, &p->micro);
        for (q = 0; v && q < p->micro.sequences; q++)
            memcpy(r->value + r->start[p->micro.row[q]], v->data + p->micro.offset[q],
                   (p->micro.offset[q + 1] - p->micro.offset[q]) * sizeof(orl_real));
    }
    orl_tape_free(tape);
    return orl_error_status(p->ctx);
}

/* The prompt at place g of the endless row of shuffled epochs. */
static const orli_example *orli_ppo_prompt(orli_ppo *p, size_t g) {
    size_t n = p->prompts.count, epoch = g / n;
    if (p->prompt_epoch != epoch + 1) {
        orli_shuffle(p->prompt_order, n, p->o->seed, 0x99000000u + epoch);
        p->prompt_epoch = epoch + 1;
    }
    return &p->prompts.example[p->prompt_order[g % n]];
}

/* One sampled response behind its prompt. */
static orl_status orli_rollouts_add(orli_rollouts *r, const orli_prompt *prompt, const orli_sampled *s) {
    orli_examples *e = &r->examples;
    orli_example x;
    if (ORLI_RESERVE(e->ctx, e->ids, e->id_capacity, e->id_count + prompt->count + s->count) != ORL_OK ||
        ORLI_RESERVE(e->ctx, e->example, e->capacity, e->count + 1) != ORL_OK)
        return ORL_ERR_MEMORY;
    memset(&x, 0, sizeof x);
    x.row = e->count;
    x.prompt = e->id_count, x.prompt_count = prompt->count;
    x.told = x.untold = x.response[0] = x.prompt + x.prompt_count;
    x.count[0] = s->count;
    memcpy(e->ids + x.prompt, prompt->ids, x.prompt_count * sizeof *e->ids);
    memcpy(e->ids + x.response[0], s->ids, x.count[0] * sizeof *e->ids);
    e->id_count = x.response[0] + x.count[0];
    r->start[e->count] = r->tokens;
    r->unfinished[e->count] = (unsigned char)s->truncated;
    r->tokens += s->count;
    e->example[e->count++] = x;
    return ORL_OK;
}

/* A reward function sees a row as a sampled data set would have it. */
static double orli_ppo_reward_of(orli_ppo *p, const orl_row *asked, const orli_sampled *s) {
    const orl_tokenizer *tok = p->policy->tokenizer;
    orl_row row = *asked;
    char *text = NULL;
    double reward;
    row.response.ids = s->ids, row.response.tokens = row.tokens = s->count;
    row.flags = ORL_SAMPLED | (s->truncated ? ORL_TRUNCATED : 0);
    if (tok) orli_decode(tok, s->ids, s->count, 1, !orli_text_empty(&row.prompt), &text, &row.response.bytes);
    row.response.text = text;
    reward = p->o->reward(&row, p->o->reward_user);
    orli_free(p->ctx, text);
    return reward;
}

/* Samples one response to each of this iteration's prompts. */
static orl_status orli_ppo_roll(orli_ppo *p, size_t iteration) {
    orl_ctx *ctx = p->ctx;
    const orl_ppo_options *o = p->o;
    orl_generate_options g = orl_generate_default();
    const size_t n = o->rollouts;
    orli_prompt *prompt = (orli_prompt *)orli_alloc_zero(ctx, n, sizeof *prompt);
    size_t *source = (size_t *)orli_alloc(ctx, n, sizeof *source), i, t;
    int stopped;
    orli_sampled *s = NULL;
    orli_rollouts *r = &p->roll;
    for (i = 0; prompt && source && i < n; i++) {
        const orli_example *x = orli_ppo_prompt(p, iteration * n + i);
        prompt[i].ids = p->prompts.ids + x->prompt, prompt[i].count = x->prompt_count;
        source[i] = x->row;
    }
    g.max_tokens = o->max_tokens, g.temperature = o->temperature;
    g.seed = o->seed ^ ((uint64_t)(iteration + 1) * 0x9E3779B97F4A7C15u);
    if (prompt && source) orli_generate(p->policy, prompt, n, &g, &s, &stopped);
    orli_rollouts_free(ctx, r);
    r->examples.ctx = ctx;
    r->start = (size_t *)orli_alloc(ctx, n + 1, sizeof *r->start);
    r->score = (double *)orli_alloc_zero(ctx, n, sizeof *r->score);
    r->unfinished = (unsigned char *)orli_alloc_zero(ctx, n, 1);
    for (i = 0; s && i < n && !orl_failed(ctx); i++) orli_rollouts_add(r, &prompt[i], &s[i]);
    if (!orl_failed(ctx)) {
        orl_real **arrays[6];
        arrays[0] = &r->behaviour, arrays[1] = &r->old_logp, arrays[2] = &r->ref_logp;
        arrays[3] = &r->value, arrays[4] = &r->advantage, arrays[5] = &r->target;
        r->start[n] = r->tokens;
        for (i = 0; i < 6; i++) *arrays[i] = (orl_real *)orli_alloc(ctx, r->tokens, sizeof(orl_real));
    }
    for (i = 0; !orl_failed(ctx) && i < n; i++) {
        for (t = 0; t < s[i].count; t++) r->behaviour[r->start[i] + t] = s[i].logp[t];
        if (!p->rm) r->score[i] = orli_ppo_reward_of(p, &p->prompt_rows->row[source[i]], &s[i]);
    }
    orli_sampled_free(ctx, s, n);
    orli_free(ctx, prompt);
    orli_free(ctx, source);
    return orl_error_status(ctx);
}

/* Scores, log-probabilities of policy and reference, and values of the rollouts. */
static orl_status orli_ppo_measure(orli_ppo *p) {
    orli_rollouts *r = &p->roll;
    orli_spread spread;
    size_t i;
    spread.r = r;
    if (p->rm) {
        orli_examples_visit(p->rm, NULL, &r->examples, 1, NULL, orli_spread_score, r);
        for (i = 0; i < r->examples.count; i++) r->score[i] = (r->score[i] - p->rm->reward_mean) / p->rm->reward_sd;
    }
    spread.to = r->old_logp;
    orli_examples_visit(p->policy, NULL, &r->examples, 1, NULL, orli_spread_logp, &spread);
    spread.to = r->ref_logp;
    orli_examples_visit(p->reference, NULL, &r->examples, 1, NULL, orli_spread_logp, &spread);
    return orli_ppo_old_values(p);
}

/* Generalised advantage estimation over one response (Schulman et al., arXiv 1506.02438):
 * δ_t = r_t + γ V_{t+1} − V_t,  A_t = δ_t + γλ A_{t+1},  return = A + V;  V behind the end is 0. */
static void orli_gae(const double *reward, const orl_real *value, size_t n, double gamma, double lambda,
                     orl_real *advantage, orl_real *target) {
    double a = 0, next = 0;
    size_t t;
    for (t = n; t-- > 0;) {
        double v = (double)value[t];
        a = reward[t] + gamma * next - v + gamma * lambda * a;
        next = v;
        advantage[t] = (orl_real)a;
        target[t] = (orl_real)(a + v);
    }
}

/* (x − mean)/sd over all tokens. */
static void orli_whiten(orl_real *x, size_t n) {
    double mean = 0, square = 0, scale;
    size_t i;
    for (i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    for (i = 0; i < n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    scale = 1.0 / (sqrt(square) + 1e-8);
    for (i = 0; i < n; i++) x[i] = (orl_real)(((double)x[i] - mean) * scale);
}

/* Per-token rewards: −β_kl·(log π − log π_ref), and the clipped score at the last response token. */
static void orli_ppo_rewards(const orli_ppo *p, size_t i, double *reward) {
    const orli_rollouts *r = &p->roll;
    size_t t, n = r->start[i + 1] - r->start[i];
    double score = ORLI_MAX(-p->o->reward_clip, ORLI_MIN(p->o->reward_clip, r->score[i]));
    for (t = 0; t < n; t++)
        reward[t] = -p->kl * ((double)r->old_logp[r->start[i] + t] - (double)r->ref_logp[r->start[i] + t]);
    reward[n - 1] += score - (r->unfinished[i] ? p->o->unfinished_penalty : 0.0);
}

static orl_status orli_ppo_advantages(orli_ppo *p, orli_ppo_stats *stats) {
    orli_rollouts *r = &p->roll;
    size_t i, t, n = r->examples.count, longest = 0;
    double *reward, mean = 0, bias = 0, residual = 0, variance = 0;
    for (i = 0; i < n; i++) longest = ORLI_MAX(longest, r->start[i + 1] - r->start[i]);
    reward = (double *)orli_alloc(p->ctx, longest, sizeof *reward);
    for (i = 0; reward && i < n; i++) {
        orli_ppo_rewards(p, i, reward);
        orli_gae(reward, r->value + r->start[i], r->start[i + 1] - r->start[i], p->o->gamma, p->o->lambda,
                 r->advantage + r->start[i], r->target + r->start[i]);
        stats->reward += r->score[i] / (double)n;
        stats->unfinished += (double)r->unfinished[i] / (double)n;
    }
    orli_free(p->ctx, reward);
    stats->length = (double)r->tokens / (double)n;
    for (t = 0; t < r->tokens; t++) {
        double d = (double)r->old_logp[t] - (double)r->ref_logp[t], all = (double)r->tokens;
        stats->kl += d / (double)n; /* a sequence */
        stats->k1 += d / all, stats->k3 += (exp(-d) - 1 + d) / all;
        stats->entropy_k -= (double)r->old_logp[t] / all;
        stats->drift += fabs((double)r->old_logp[t] - (double)r->behaviour[t]) / all;
        mean += (double)r->target[t] / all, bias += ((double)r->target[t] - (double)r->value[t]) / all;
    }
    for (t = 0; t < r->tokens; t++) {
        double gap = (double)r->target[t] - (double)r->value[t] - bias, off = (double)r->target[t] - mean;
        residual += gap * gap, variance += off * off;
    }
    stats->explained = variance > 0 ? 1 - residual / variance : 0;
    if (p->o->whiten) orli_whiten(r->advantage, r->tokens);
    return orl_error_status(p->ctx);
}

/* Slices of a per-token array for the micro-batch's sequences, as a constant. */
static orl_tensor *orli_ppo_slice(orli_ppo *p, const orl_real *x) {
    const orli_micro *b = &p->micro;
    orl_tensor *y = orl_constant(p->tape, NULL, b->tokens, 1);
    size_t q;
    for (q = 0; y && y->data && q < b->sequences; q++)
        memcpy(y->data + b->offset[q], x + p->roll.start[b->row[q]],
               (b->offset[q + 1] - b->offset[q]) * sizeof(orl_real));
    return y;
}

/* −Σ min(ρA, clip(ρ, 1 − ε_lo, 1 + ε_hi)·A), ρ = π/π_old. ratio receives ρ. */
static orl_tensor *orli_loss_ppo(orl_tape *tape, orl_tensor *logp, orl_tensor *old_logp, orl_tensor *advantage,
                                 double low, double high, orl_tensor **ratio) {
    orl_tensor *rho = orl_exp(tape, orl_clamp(tape, orl_sub(tape, logp, old_logp), -20, 20));
    orl_tensor *plain = orl_mul(tape, rho, advantage),
               *clipped = orl_mul(tape, orl_clamp(tape, rho, 1 - low, 1 + high), advantage);
    *ratio = rho;
    return orl_scale(tape, orl_sum(tape, orl_min(tape, plain, clipped)), -1);
}

/* ½ Σ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²) */
static orl_tensor *orli_loss_value(orl_tape *tape, orl_tensor *value, orl_tensor *old_value, orl_tensor *target,
                                   double clip) {
    orl_tensor *near = orl_add(tape, old_value, orl_clamp(tape, orl_sub(tape, value, old_value), -clip, clip));
    orl_tensor *a = orl_square(tape, orl_sub(tape, value, target)), *b = orl_square(tape, orl_sub(tape, near, target));
    return orl_scale(tape, orl_sum(tape, orl_max(tape, a, b)), 0.5);
}

/* The two losses of the micro-batch in p->micro. */
static orl_tensor *orli_ppo_policy_loss(orli_ppo *p, orl_tensor **ratio) {
    orl_batch batch;
    orl_tape_reset(p->tape);
    orli_micro_run(p->tape, p->policy, &p->micro, NULL, &batch);
    return orli_loss_ppo(p->tape, batch.logp, orli_ppo_slice(p, p->roll.old_logp), orli_ppo_slice(p, p->roll.advantage),
                         p->o->clip_low, p->o->clip_high, ratio);
}
static orl_tensor *orli_ppo_critic_loss(orli_ppo *p) {
    orl_tape_reset(p->tape);
    return orli_loss_value(p->tape, orli_ppo_values(p->tape, p->critic, &p->micro), orli_ppo_slice(p, p->roll.value),
                           orli_ppo_slice(p, p->roll.target), p->o->value_clip);
}

/* Gradients of policy and critic from the micro-batch in p->micro. */
static orl_status orli_ppo_micro(orli_ppo *p, orli_ppo_stats *stats, int first) {
    const orl_ppo_options *o = p->o;
    orl_tensor *ratio = NULL, *loss = orli_ppo_policy_loss(p, &ratio);
    size_t t;
    if (orl_backward(p->tape, loss) != ORL_OK || !loss) return orl_error_status(p->ctx);
    stats->policy_loss += (double)loss->data[0];
    for (t = 0; t < ratio->rows; t++) {
        double rho = (double)ratio->data[t];
        if (rho < 1 - o->clip_low || rho > 1 + o->clip_high) stats->clipped += 1;
        if (first && (rho < 1 || rho > 1))
            return orli_fail(p->ctx, ORL_ERR_DATA,
                             "ppo: a ratio before the first step is %.9g and not 1: training and scoring disagree",
                             rho);
    }
    loss = orli_ppo_critic_loss(p);
    if (orl_backward(p->tape, loss) != ORL_OK || !loss) return orl_error_status(p->ctx);
    stats->value_loss += (double)loss->data[0];
    return ORL_OK;
}

/* Adds ptx·(language-model loss on the next ptx rows), scaled so that the step's one division leaves its mean. */
static orl_status orli_ppo_ptx(orli_ppo *p, double tokens) {
    size_t i;
    orl_batch batch;
    orli_micro_clear(&p->micro);
    for (i = 0; i < ORLI_MIN(p->o->minibatch, p->ptx.count); i++, p->ptx_at++)
        orli_micro_add(&p->micro, &p->ptx, &p->ptx.example[p->ptx_at % p->ptx.count], NULL, 1, 0, 0);
    orl_tape_reset(p->tape);
    if (orli_micro_run(p->tape, p->policy, &p->micro, NULL, &batch) != ORL_OK) return orl_error_status(p->ctx);
    return orl_backward(
        p->tape, orl_scale(p->tape, orl_loss_nll(p->tape, &batch, NULL), p->o->ptx * tokens / (double)p->micro.tokens));
}

static orl_status orli_ppo_step(orli_ppo *p, size_t iteration, const size_t *chosen, size_t n, orli_ppo_stats *stats,
                                int first) {
    const orl_ppo_options *o = p->o;
    orli_adam_options a;
    size_t i = 0, budget = o->micro_tokens ? o->micro_tokens : ORLI_MICRO_TOKENS;
    double tokens = 0, norm;
    while (i < n && !orl_failed(p->ctx)) {
        i = orli_micro_fill(&p->micro, &p->roll.examples, chosen, i, n, NULL, 1, 0, budget);
        tokens += (double)p->micro.tokens;
        if (!orl_failed(p->ctx)) orli_ppo_micro(p, stats, first);
    }
    if (!orl_failed(p->ctx) && o->ptx > 0 && p->ptx.count) orli_ppo_ptx(p, tokens);
    if (orl_failed(p->ctx)) return orl_error_status(p->ctx);
    a.beta1 = o->beta1, a.beta2 = o->beta2, a.eps = o->eps, a.weight_decay = o->weight_decay, a.clip = o->clip;
    a.lr = orli_learning_rate(o->lr, o->schedule, o->warmup, 0.1, iteration, o->iterations);
    orli_adam_step(&p->actor_adam, &a, tokens, &norm);
    stats->norm += norm;
    a.lr *= o->critic_lr / o->lr;
    if (!orl_failed(p->ctx)) orli_adam_step(&p->critic_adam, &a, tokens, &norm);
    stats->critic_norm += norm;
    stats->steps++;
    return orl_error_status(p->ctx);
}

static orl_status orli_ppo_iteration(orli_ppo *p, size_t iteration, orli_ppo_stats *stats) {
    const orl_ppo_options *o = p->o;
    size_t epoch, at, n = o->rollouts;
    memset(stats, 0, sizeof *stats);
    if (orli_ppo_roll(p, iteration) != ORL_OK || orli_ppo_measure(p) != ORL_OK ||
        orli_ppo_advantages(p, stats) != ORL_OK)
        return orl_error_status(p->ctx);
    for (at = 0; at < n; at++)
        if (!(p->roll.score[at] - p->roll.score[at] == 0))
            return orli_fail(p->ctx, ORL_ERR_DATA, "ppo: the reward of a rollout is not finite");
    if (!iteration && (stats->kl < 0 || stats->kl > 0))
        return orli_fail(p->ctx, ORL_ERR_DATA, "ppo: KL to the reference is %.9g before the first step and not 0",
                         stats->kl);
    for (epoch = 0; epoch < o->epochs; epoch++) {
        orli_shuffle(p->order, n, o->seed, ((uint64_t)(iteration + 1) << 16) + epoch);
        for (at = 0; at < n; at += o->minibatch)
            if (orli_ppo_step(p, iteration, p->order + at, ORLI_MIN(o->minibatch, n - at), stats, !epoch && !at) !=
                ORL_OK)
                return orl_error_status(p->ctx);
    }
    if (o->kl_target > 0) { /* Ziegler et al., arXiv 1909.08593 */
        double error = ORLI_MAX(-0.2, ORLI_MIN(0.2, stats->kl / o->kl_target - 1));
        p->kl *= 1 + error * (double)n / o->kl_horizon;
    }
    return ORL_OK;
}

static void orli_ppo_log(orli_log *log, const orl_step_info *info, const orli_ppo *p, const orli_ppo_stats *s) {
    double passes = (double)p->roll.tokens * (double)p->o->epochs, steps = (double)s->steps;
    orli_log_number(log, "step", (double)info->step);
    orli_log_number(log, "loss", s->policy_loss / passes);
    orli_log_number(log, "value_loss", s->value_loss / passes);
    orli_log_number(log, "grad_norm", s->norm / steps);
    orli_log_number(log, "critic_grad_norm", s->critic_norm / steps);
    orli_log_number(log, "lr", info->lr);
    orli_log_number(log, "reward", s->reward);
    orli_log_number(log, "kl", s->kl);
    orli_log_number(log, "k1", s->k1);
    orli_log_number(log, "k3", s->k3);
    orli_log_number(log, "kl_coefficient", p->kl);
    orli_log_number(log, "entropy", s->entropy_k);
    orli_log_number(log, "clip_fraction", s->clipped / passes);
    orli_log_number(log, "explained_variance", s->explained);
    orli_log_number(log, "sampler_difference", s->drift);
    orli_log_number(log, "length", s->length);
    orli_log_number(log, "unfinished", s->unfinished);
    orli_log_number(log, "tokens", (double)info->tokens);
    orli_log_number(log, "seconds", info->seconds);
    orli_log_number(log, "elapsed", info->elapsed);
    orli_log_end(log);
}

static orl_status orli_ppo_check(orl_ctx *ctx, const orl_model *policy, const orl_model *rm, const orl_ppo_options *o) {
    const char *bad = NULL;
    if (policy->reward) bad = "the policy is a reward model";
    else if (rm && !rm->reward)
        bad = "the reward model is a language model: orl_reward_model() and training make one of it";
    else if (!rm && !o->reward) bad = "neither a reward model nor a reward function is given";
    else if (rm && rm->config.vocab < policy->config.vocab) bad = "policy and reward model have different vocabularies";
    else if (!o->iterations || !o->rollouts || !o->epochs || !o->minibatch)
        bad = "iterations, rollouts, epochs and minibatch must be at least 1";
    else if (!(o->lr > 0 && o->critic_lr > 0)) bad = "lr and critic_lr must be positive";
    else if (!(o->clip_low > 0 && o->clip_low < 1 && o->clip_high > 0 && o->value_clip > 0))
        bad = "the clip ranges must be positive, clip_low below 1";
    else if (!(o->gamma >= 0 && o->gamma <= 1 && o->lambda >= 0 && o->lambda <= 1))
        bad = "gamma and lambda must be 0 to 1";
    else if (!(o->kl >= 0) || !(o->temperature > 0))
        bad = "kl must not be negative and the temperature must be positive";
    return bad ? orli_fail(ctx, ORL_ERR_ARGUMENT, "ppo: %s", bad) : ORL_OK;
}

/* Frozen weights become floats where they could not train: without an adapter, or stored as bytes. */
static orl_model *orli_model_trainable(orl_model *m) {
    orl_param *p;
    for (p = m ? m->params->first : NULL; p; p = p->next)
        if (p->int8 || !orl_has_lora(m)) orli_param_widen(p);
    return m;
}

static orl_model *orli_ppo_make_critic(const orl_model *policy, const orl_model *rm) {
    orl_model *critic;
    if (rm) return orli_model_trainable(orl_model_copy(rm)); /* trunk, head and normalisation */
    critic = orl_reward_model(policy);
    if (critic) memset(orli_model_weight(critic, ORLI_W_SCORE, 0)->data, 0, critic->config.dim * sizeof(orl_real));
    return critic;
}

/* Prompts as examples, each answered by as many tokens as allowed: what rollouts may come to. */
static orl_status orli_ppo_prompts(orli_examples *e, const orl_model *policy, const orl_dataset *prompts,
                                   size_t max_tokens) {
    const size_t context = policy->config.context, most = max_tokens ? ORLI_MIN(max_tokens, context) : context;
    size_t i;
    if (orli_examples_build(e, policy, prompts, 0) != ORL_OK ||
        ORLI_RESERVE(e->ctx, e->ids, e->id_capacity, e->id_count + most) != ORL_OK)
        return orl_error_status(e->ctx);
    memset(e->ids + e->id_count, 0, most * sizeof *e->ids);
    for (i = 0; i < e->count; i++) {
        e->example[i].response[0] = e->id_count;
        e->example[i].count[0] = ORLI_MIN(most, context - e->example[i].prompt_count);
    }
    return ORL_OK;
}

/* Bytes of the training tape for a minibatch of the longest rollouts: dry runs of both losses, and of ptx. */
static size_t orli_ppo_plan(orli_ppo *p) {
    const orli_examples *e = &p->prompts;
    size_t budget = p->o->micro_tokens ? p->o->micro_tokens : ORLI_MICRO_TOKENS,
           n = ORLI_MIN(e->count, p->o->minibatch), i;
    orli_ranked *ranked = (orli_ranked *)orli_alloc_zero(p->ctx, e->count, sizeof *ranked);
    orl_tensor *ratio;
    if (!ranked) return 0;
    for (i = 0; i < e->count; i++) ranked[i].row = i, ranked[i].reward = (double)orli_example_tokens(&e->example[i]);
    orli_sort(ranked, e->count, sizeof *ranked, orli_by_rank); /* the longest first */
    for (i = 0; i < n; i++) p->order[i] = ranked[i].row;
    p->tape->values.dry = 1;
    for (i = 0; i < n && !orl_failed(p->ctx);) {
        i = orli_micro_fill(&p->micro, e, p->order, i, n, NULL, 1, 0, budget);
        orl_backward(p->tape, orli_ppo_policy_loss(p, &ratio));
        orl_backward(p->tape, orli_ppo_critic_loss(p));
    }
    if (p->o->ptx > 0 && p->ptx.count && !orl_failed(p->ctx)) orli_ppo_ptx(p, 1);
    p->ptx_at = 0;
    orl_tape_reset(p->tape);
    p->tape->values.dry = 0;
    orli_free(p->ctx, ranked);
    return p->tape->values.peak + p->tape->values.peak / 32; /* with a budget, others may come nearer to it */
}

static orl_status orli_ppo_loop(orli_ppo *p, orli_log *log, const orli_checkpoint_part *part, orli_progress *progress) {
    const orl_ppo_options *o = p->o;
    orl_ctx *ctx = p->ctx;
    double begin = orl_seconds();
    size_t it;
    for (it = (size_t)progress->step; it < o->iterations && !orl_failed(ctx); it++) {
        orli_ppo_stats stats;
        orl_step_info info;
        double from = orl_seconds();
        uint64_t tokens = ctx->tokens;
        int last = it + 1 == o->iterations, stop;
        memset(&info, 0, sizeof info);
        info.stage = "ppo", info.step = it + 1, info.steps = o->iterations;
        info.lr = orli_learning_rate(o->lr, o->schedule, o->warmup, 0.1, it, o->iterations);
        if (orli_ppo_iteration(p, it, &stats) != ORL_OK) break;
        info.loss = stats.policy_loss / ((double)p->roll.tokens * (double)o->epochs);
        info.val_loss = nan("");
        info.grad_norm = stats.norm / (double)stats.steps;
        info.reward = stats.reward, info.kl = stats.kl;
        info.tokens = ctx->tokens - tokens;
        info.seconds = orl_seconds() - from, info.elapsed = orl_seconds() - begin;
        orli_ppo_log(log, &info, p, &stats);
        stop = o->progress && o->progress(o->user, &info) && !last;
        if (o->checkpoint && !last && (stop || (o->save_every && (it + 1) % o->save_every == 0))) {
            progress->step = it + 1, progress->extra = p->kl, progress->log_bytes = orli_log_bytes(log);
            orli_checkpoint_save(ctx, o->checkpoint, part, 2, progress);
        }
        if (stop)
            return orli_fail(ctx, ORL_ERR_STOPPED, "ppo: stopped after iteration %zu of %zu%s", it + 1, o->iterations,
                             o->checkpoint ? "; resume goes on from there" : "");
    }
    return orl_error_status(ctx);
}

ORL_API orl_status orl_train_ppo(orl_model *policy, orl_model *rm, const orl_dataset *prompts,
                                 const orl_ppo_options *options) {
    orl_ppo_options o = options ? *options : orl_ppo_default();
    orl_ctx *ctx = orl_model_ctx(policy);
    orli_ppo p;
    orli_log log;
    orli_checkpoint_part part[2];
    orli_progress progress;
    if (!policy || !prompts || orl_failed(ctx) || orli_ppo_check(ctx, policy, rm, &o) != ORL_OK)
        return orl_error_status(ctx);
    memset(&p, 0, sizeof p);
    memset(&log, 0, sizeof log);
    memset(&progress, 0, sizeof progress);
    p.ctx = ctx, p.o = &o, p.policy = policy, p.rm = rm, p.prompt_rows = prompts, p.kl = o.kl;
    p.reference = orl_model_copy(policy);
    p.critic = orli_ppo_make_critic(policy, rm);
    p.tape = orl_tape_create(ctx);
    orli_micro_create(&p.micro, ctx);
    if (!orl_failed(ctx)) orli_ppo_prompts(&p.prompts, policy, prompts, o.max_tokens);
    if (!orl_failed(ctx) && o.ptx > 0 && o.ptx_data) orli_examples_build(&p.ptx, policy, o.ptx_data, 1);
    p.order = (size_t *)orli_alloc(ctx, ORLI_MAX(o.rollouts, o.minibatch), sizeof *p.order);
    if (!orl_failed(ctx)) p.prompt_order = (size_t *)orli_alloc(ctx, p.prompts.count, sizeof *p.prompt_order);
    if (!orl_failed(ctx)) orli_adam_create(&p.actor_adam, orli_model_trained(policy));
    if (!orl_failed(ctx)) orli_adam_create(&p.critic_adam, orli_model_trained(p.critic));
    if (!orl_failed(ctx)) orli_tape_reserve(p.tape, orli_ppo_plan(&p));
    part[0].name = "policy", part[0].set = orli_model_trained(policy), part[0].adam = &p.actor_adam;
    part[1].name = "critic", part[1].adam = &p.critic_adam;
    part[1].set = p.critic ? orli_model_trained(p.critic) : NULL;
    progress.stage = "ppo", progress.seed = o.seed, progress.rows = p.prompts.count, progress.steps = o.iterations;
    if (!orl_failed(ctx) && o.resume && o.checkpoint) {
        if (!orli_exists(o.checkpoint))
            orli_note(ctx, "%s: there is no checkpoint to resume from: starting at step 0", o.checkpoint);
        else if (orli_checkpoint_load(ctx, o.checkpoint, part, 2, &progress) == ORL_OK) p.kl = progress.extra;
    }
    if (!orl_failed(ctx) && orli_log_open(&log, ctx, o.log, progress.log_bytes) == ORL_OK) {
        if (!progress.step) orli_log_header(&log, "ppo", policy, o.seed);
        else orli_log_number(&log, "resumed_from", (double)progress.step);
        orli_log_end(&log);
        p.ptx_at = (size_t)progress.step * o.epochs * ((o.rollouts + o.minibatch - 1) / o.minibatch) *
            ORLI_MIN(o.minibatch, p.ptx.count);
        orli_ppo_loop(&p, &log, part, &progress);
    }
    orli_log_close(&log);
    orli_rollouts_free(ctx, &p.roll);
    orli_adam_free(&p.actor_adam);
    orli_adam_free(&p.critic_adam);
    orli_params_freeze(orli_model_trained(policy));
    orli_examples_free(&p.prompts);
    orli_examples_free(&p.ptx);
    orli_micro_free(&p.micro);
    orl_tape_free(p.tape);
    orli_free(ctx, p.order);
    orli_free(ctx, p.prompt_order);
    orl_model_free(p.critic);
    orl_model_free(p.reference);
    return orl_error_status(ctx);
}

/* What rollouts and their scoring hold beside the training tape: pages, logits, a pass without gradient. */
static size_t orli_ppo_rollout_bytes(orl_model *policy, const orli_examples *longest, size_t rollouts) {
    orli_pages pages = orli_pages_new(policy, 0);
    size_t i, positions = 0, live = ORLI_MIN(rollouts, orl_generate_default().batch);
    for (i = 0; i < longest->count; i++)
        positions += orli_round_up(orli_example_tokens(&longest->example[i]), ORLI_TILE);
    positions = orli_round_up(positions / longest->count * live, ORLI_TILE * ORLI_PAGES_PER_CHUNK);
    return positions / ORLI_TILE * pages.page * sizeof(orl_real) + live * policy->config.vocab * sizeof(orl_real) +
        orli_examples_plan(policy, longest, 1);
}

ORL_API orl_status orl_ppo_estimate(orl_model *policy, orl_model *rm, const orl_dataset *prompts,
                                    const orl_ppo_options *options, orl_estimate *out) {
    orl_ppo_options o = options ? *options : orl_ppo_default();
    orl_ctx *ctx = orl_model_ctx(policy);
    orli_ppo p;
    double passes, trunk, head;
    size_t rest;
    if (out) memset(out, 0, sizeof *out);
    if (!policy || !prompts || !out || orl_failed(ctx) || orli_ppo_check(ctx, policy, rm, &o) != ORL_OK)
        return orl_error_status(ctx);
    memset(&p, 0, sizeof p);
    p.ctx = ctx, p.o = &o, p.policy = policy;
    p.critic = rm && !rm->frozen ? rm : orli_ppo_make_critic(policy, rm); /* of its shape */
    p.tape = orl_tape_create(ctx);
    p.order = (size_t *)orli_alloc(ctx, o.minibatch, sizeof *p.order);
    orli_micro_create(&p.micro, ctx);
    if (!orl_failed(ctx) && orli_ppo_prompts(&p.prompts, policy, prompts, o.max_tokens) == ORL_OK) {
        const orli_examples *e = &p.prompts;
        /* so that a dry run sees what needs gradients */
        orli_params_train(orli_model_trained(policy)), orli_params_train(orli_model_trained(p.critic));
        out->gradients = orli_trained_bytes(policy) + orli_trained_bytes(p.critic), out->moments = 2 * out->gradients;
        /* with reference and reward model, which are copies; packed, as all score */
        out->weights = orli_model_bytes(policy) + orli_copied_bytes(policy) + 2 * orli_packed_bytes(policy);
        out->weights += orli_copied_bytes(p.critic) + orli_packed_bytes(p.critic);
        out->weights += rm ? orli_model_bytes(rm) + orli_packed_bytes(rm) : 0;
        out->activations = orli_ppo_plan(&p) + orli_ppo_rollout_bytes(policy, e, o.rollouts);
        rest = ctx->pool->threads * ORLI_SCRATCH + e->id_capacity * sizeof *e->ids + e->capacity * sizeof *e->example;
        out->total = out->weights + out->gradients + out->moments + out->activations + rest;
        out->rows = e->count, out->dropped = e->dropped;
        trunk = orli_trunk_flops(policy, e, 1, ORL_SHARE_PAIR, &out->tokens), head = orli_head_flops(policy, e, 1);
        passes = (double)o.iterations * (double)o.rollouts / (double)e->count;
        out->tokens = (uint64_t)((double)out->tokens * passes * (double)o.epochs * 2);
        /* updates of both; then without gradient rollouts, policy, reference, values, and scores
         * if a model gives them */
        out->flops = passes * ((double)o.epochs * (2 * trunk + head) + (rm ? 5 : 4) * trunk / 3 + 3 * head / 4);
        out->seconds = out->flops / (0.6 * orli_flops_per_second(policy));
        orli_params_freeze(orli_model_trained(policy)), orli_params_freeze(orli_model_trained(p.critic));
    }
    orli_examples_free(&p.prompts);
    orli_micro_free(&p.micro);
    orli_free(ctx, p.order);
    orl_tape_free(p.tape);
    if (p.critic != rm) orl_model_free(p.critic);
    return orl_error_status(ctx);
}

/* ---- 15.7 evaluation ---- */

ORL_API orl_eval_options orl_eval_default(void) {
    orl_eval_options o;
    memset(&o, 0, sizeof o);
    o.generate = orl_generate_default();
    return o;
}

/* Distinct bigrams of token ids / all of them. */
static double orli_distinct2(const orl_dataset *d) {
    orli_names seen = orli_names_new(d->object.ctx);
    size_t i, t, all = 0;
    double share;
    for (i = 0; i < d->count; i++)
        for (t = 1; t < d->row[i].response.tokens; t++, all++)
            orli_names_add(&seen, (const char *)(d->row[i].response.ids + t - 1), 2 * sizeof(int32_t));
    share = all ? (double)seen.count / (double)all : 0;
    orli_names_free(&seen);
    return share;
}

ORL_API orl_status orl_evaluate_samples(orl_dataset *d, orl_dataset *base, orl_model *rm,
                                        const orl_eval_options *options, orl_result *out) {
    orl_eval_options o = options ? *options : orl_eval_default();
    orl_ctx *ctx = orl_dataset_ctx(d);
    size_t i;
    double wins = 0, n;
    if (out) memset(out, 0, sizeof *out);
    if (!d || !base || !out || orl_failed(ctx)) return orl_error_status(ctx);
    if (d->count != base->count || !d->count)
        return orli_fail(
            ctx, ORL_ERR_ARGUMENT,
            "orl_evaluate_samples: %zu samples against %zu: they must answer the same prompts in the same order",
            d->count, base->count);
    if (rm && orl_score(rm, d) != ORL_OK) return orl_error_status(ctx);
    if (rm && base != d && orl_score(rm, base) != ORL_OK) return orl_error_status(ctx);
    n = (double)d->count;
    out->samples = d->count;
    out->gold = o.gold ? 0 : nan("");
    for (i = 0; i < d->count; i++) {
        const orl_row *r = &d->row[i], *b = &base->row[i];
        double mine = o.gold ? o.gold(r, o.gold_user) : r->reward, its = o.gold ? o.gold(b, o.gold_user) : b->reward;
        wins += mine > its ? 1 : mine < its ? 0 : 0.5;
        if (o.gold) out->gold += mine / n;
        out->reward += r->reward / n;
        out->length += (double)r->response.tokens / n;
        out->truncated += r->flags & ORL_TRUNCATED ? 1 / n : 0;
    }
    if (!rm) out->reward = nan("");
    out->win_rate = wins / n;
    orli_wilson(wins, n, &out->win_rate_lo, &out->win_rate_hi);
    out->distinct2 = orli_distinct2(d);
    out->kl = out->percent_of_ppo = out->percent_of_ppo_total = nan("");
    /* for who knows what it cost to fill in */
    out->train_tokens = out->train_flops = out->train_seconds = out->data_flops = out->data_seconds = nan("");
    return orl_error_status(ctx);
}

/* mean over samples of Σ log π(y|c) − log π_base(y|x); logp of the rows is the sampler's own. */
static double orli_sample_kl(orl_model *base, const orl_dataset *d) {
    orl_dataset *copy = orli_dataset_select(d, NULL);
    size_t i;
    double kl = 0;
    if (copy && orl_logprob(base, copy, NULL, NULL) == ORL_OK)
        for (i = 0; i < d->count; i++) kl += (d->row[i].logp - copy->row[i].logp) / (double)d->count;
    orl_dataset_free(copy);
    return kl;
}

ORL_API orl_status orl_evaluate(orl_model **models, size_t count, const orl_dataset *prompts, orl_model *rm,
                                const orl_eval_options *options, orl_result *results) {
    orl_eval_options o = options ? *options : orl_eval_default();
    orl_ctx *ctx = count && models ? orl_model_ctx(models[0]) : NULL;
    orl_dataset *base = NULL, *d;
    size_t i;
    for (i = 0; o.samples && i < count; i++) o.samples[i] = NULL;
    if (!ctx || !prompts || !results || orl_failed(ctx)) return orl_error_status(ctx);
    for (i = 0; i < count && !orl_failed(ctx); i++) {
        orl_generate_options g = o.generate;
        /* targets are for those that know them */
        if (models[i] && models[i]->condition.kind == ORL_CONDITION_NONE) g.target = ORL_TARGET_NONE;
        d = orl_sample(models[i], prompts, &g);
        if (!d) break;
        if (!i) base = d;
        orl_evaluate_samples(d, base, rm, &o, &results[i]);
        snprintf(results[i].method, sizeof results[i].method, "%s", models[i]->name);
        results[i].seed = o.generate.seed;
        results[i].kl = i ? orli_sample_kl(models[0], d) : 0;
        if (o.samples) o.samples[i] = d;
        else if (i) orl_dataset_free(d);
    }
    if (!o.samples) orl_dataset_free(base);
    return orl_error_status(ctx);
}
#endif /* section 15 */

#if !defined(ORL_STOP_AFTER) || ORL_STOP_AFTER >= 16
/* =================================================================================================
 * >>report   16. REPORT: results as text, JSON and a page of charts
 * =================================================================================================
 * Purpose:    what a run has found, for a terminal, for a program and for a reader.
 * Depends on: base, platform, formats.       Owns: the page's text until it is saved.
 * Invariants: the page is one HTML file that needs nothing else: inline SVG, no script, no network;
 *             every text that comes from outside is escaped; equal input gives equal bytes.
 * Threads:    the calling thread only.
 * Numerics:   numbers do not depend on the locale; what is not finite is left out and breaks a line.
 * Tested by:  tests/test_16_report.c */

/* ---- numbers and text ---- */

/* printf's %.*f (kind 'f') or %.*g ('g') with a point in every locale, and no negative zero. */
static void orli_put_number(orli_str *s, char kind, int digits, double x) {
    char text[400], *from, *to;
    int zero = 1;
    if (kind == 'f') snprintf(text, sizeof text, "%.*f", digits, x);
    else snprintf(text, sizeof text, "%.*g", digits, x);
    for (from = to = text; *from; from++) { /* the locale's point may be several bytes */
        int plain = (*from >= '0' && *from <= '9') || *from == '-' || *from == '+' || *from == 'e';
        if (plain) *to++ = *from;
        else if (to == text || to[-1] != '.') *to++ = '.';
        if (*from >= '1' && *from <= '9') zero = 0;
    }
    from = text + (zero && text[0] == '-');
    orli_str_add(s, from, (size_t)(to - from));
}

static int orli_finite(double x) { return x - x == 0; }

/* Text for HTML, in an element or in an attribute; bytes that are no UTF-8 become U+FFFD. */
static void orli_put_html(orli_str *s, const char *text) {
    size_t n = strlen(text), i = 0, length;
    uint32_t code = 0;
    for (; i < n; i += length ? length : 1) {
        length = orli_utf8_decode(text + i, n - i, &code);
        if (!length || (code < 0x20 && code != '\n' && code != '\t') || code == 0x7f) orli_str_puts(s, "\xef\xbf\xbd");
        else if (code == '&') orli_str_puts(s, "&amp;");
        else if (code == '<') orli_str_puts(s, "&lt;");
        else if (code == '>') orli_str_puts(s, "&gt;");
        else if (code == '"') orli_str_puts(s, "&quot;");
        else if (code == '\'') orli_str_puts(s, "&#39;");
        else orli_str_add(s, text + i, length);
    }
}

/* How many characters the text shows (malformed bytes count as one each). */
static size_t orli_characters(const char *text) {
    size_t n = strlen(text), i = 0, count = 0, length;
    uint32_t code;
    for (; i < n; count++) {
        length = orli_utf8_decode(text + i, n - i, &code);
        i += length ? length : 1;
    }
    return count;
}

/* ---- results: one list of columns for the text table and the page's ---- */

typedef struct orli_column {
    const char *head;
    size_t field;  /* offset in orl_result, of a double unless kind is 'n' or 's' */
    char kind;     /* n: method, s: seed, i: interval, f: fixed digits, g: significant digits */
    int digits;
    double factor;
} orli_column;

#define ORLI_FIELD(name) offsetof(orl_result, name)
static const orli_column orli_columns[] = {
    {"method", ORLI_FIELD(method), 'n', 0, 1},
    {"seed", ORLI_FIELD(seed), 's', 0, 1},
    {"gold", ORLI_FIELD(gold), 'f', 3, 1},
    {"reward", ORLI_FIELD(reward), 'f', 2, 1},
    {"win %", ORLI_FIELD(win_rate), 'f', 1, 100},
    {"95 % interval", ORLI_FIELD(win_rate_lo), 'i', 1, 100},
    {"KL", ORLI_FIELD(kl), 'f', 2, 1},
    {"length", ORLI_FIELD(length), 'f', 1, 1},
    {"distinct2", ORLI_FIELD(distinct2), 'f', 3, 1},
    {"cut %", ORLI_FIELD(truncated), 'f', 1, 100},
    {"train Mtok", ORLI_FIELD(train_tokens), 'g', 3, 1e-6},
    {"train TFLOP", ORLI_FIELD(train_flops), 'g', 3, 1e-12},
    {"train s", ORLI_FIELD(train_seconds), 'g', 3, 1},
    {"% of PPO", ORLI_FIELD(percent_of_ppo), 'f', 1, 1},
    {"data TFLOP", ORLI_FIELD(data_flops), 'g', 3, 1e-12},
    {"data s", ORLI_FIELD(data_seconds), 'g', 3, 1},
    {"% of PPO in all", ORLI_FIELD(percent_of_ppo_total), 'f', 1, 1}};
#define ORLI_RESULT_COLUMNS (sizeof orli_columns / sizeof *orli_columns)

static double orli_field(const orl_result *result, size_t offset) {
    double x;
    memcpy(&x, (const char *)result + offset, sizeof x);
    return x;
}

/* Is there anything in the column? A seed that is everywhere the same says nothing either. */
static int orli_column_used(const orli_column *column, const orl_result *results, size_t n) {
    size_t i;
    if (column->kind == 'n') return 1;
    for (i = 0; i < n; i++) {
        if (column->kind == 's' && results[i].seed != results[0].seed) return 1;
        if (column->kind != 's' && orli_finite(orli_field(&results[i], column->field))) return 1;
    }
    return 0;
}

static size_t orli_method_length(const orl_result *result) { /* callers may fill it to the brim */
    size_t n = 0;
    while (n < sizeof result->method && result->method[n]) n++;
    return n;
}

static void orli_put_figure(orli_str *s, const orli_column *column, double x) {
    x *= column->factor;
    if (!orli_finite(x)) orli_str_puts(s, "-");
    else if (column->kind == 'g' && fabs(x) < 100) orli_put_number(s, 'g', column->digits, x);
    else orli_put_number(s, 'f', column->kind == 'g' ? 0 : column->digits, x);
}

static void orli_put_cell(orli_str *s, const orli_column *column, const orl_result *result) {
    if (column->kind == 'n') {
        orli_str_add(s, result->method, orli_method_length(result));
    } else if (column->kind == 's') {
        orli_str_printf(s, "%llu", (unsigned long long)result->seed);
    } else if (column->kind == 'i' && orli_finite(result->win_rate_lo) && orli_finite(result->win_rate_hi)) {
        orli_put_figure(s, column, result->win_rate_lo);
        orli_str_puts(s, " … ");
        orli_put_figure(s, column, result->win_rate_hi);
    } else {
        orli_put_figure(s, column, column->kind == 'i' ? (double)NAN : orli_field(result, column->field));
    }
}

/* The used columns as zero-terminated cells, row by row, the head first. */
static size_t orli_result_cells(orli_str *cells, const orl_result *results, size_t n) {
    size_t row, k, cols = 0;
    for (k = 0; k < ORLI_RESULT_COLUMNS; k++) cols += (size_t)orli_column_used(&orli_columns[k], results, n);
    for (row = 0; row <= n; row++)
        for (k = 0; k < ORLI_RESULT_COLUMNS; k++) {
            if (!orli_column_used(&orli_columns[k], results, n)) continue;
            if (row) orli_put_cell(cells, &orli_columns[k], &results[row - 1]);
            else orli_str_puts(cells, orli_columns[k].head);
            orli_str_add(cells, "", 1); /* a real zero byte */
        }
    return cells->failed ? 0 : cols;
}

ORL_API char *orl_results_table(orl_ctx *ctx, const orl_result *results, size_t n) {
    orli_str cells, table;
    size_t width[ORLI_RESULT_COLUMNS] = {0}, cols, row, k, pad;
    const char *cell;
    if (orl_failed(ctx) || (n && !results)) return NULL;
    cells = orli_str_new(ctx);
    table = orli_str_new(ctx);
    cols = orli_result_cells(&cells, results, n);
    for (cell = cells.data, row = 0; cols && row <= n; row++)
        for (k = 0; k < cols; k++, cell += strlen(cell) + 1) width[k] = ORLI_MAX(width[k], orli_characters(cell));
    for (cell = cells.data, row = 0; cols && row <= n; row++) {
        for (k = 0; k < cols; k++, cell += strlen(cell) + 1) { /* the method to the left, figures to the right */
            pad = width[k] - orli_characters(cell);
            if (k) orli_str_printf(&table, "%*s%s", (int)(pad + 2), "", cell);
            else orli_str_printf(&table, "%s%*s", cell, (int)pad, "");
        }
        orli_str_puts(&table, "\n");
    }
    orli_str_free(&cells);
    table.failed |= !cols;
    return orli_str_take(&table);
}

static void orli_put_field(orli_str *s, const char *name, double x) {
    orli_str_printf(s, ",\"%s\":", name);
    orli_json_put_double(s, x);
}

ORL_API char *orl_result_json(orl_ctx *ctx, const orl_result *result) {
    orli_str s;
    if (orl_failed(ctx) || !result) return NULL;
    s = orli_str_new(ctx);
    orli_str_puts(&s, "{\"method\":");
    orli_json_put_string(&s, result->method, orli_method_length(result));
    orli_str_printf(&s, ",\"seed\":%llu", (unsigned long long)result->seed);
    orli_put_field(&s, "gold", result->gold);
    orli_put_field(&s, "reward", result->reward);
    orli_put_field(&s, "win_rate", result->win_rate);
    orli_put_field(&s, "win_rate_lo", result->win_rate_lo);
    orli_put_field(&s, "win_rate_hi", result->win_rate_hi);
    orli_put_field(&s, "kl", result->kl);
    orli_put_field(&s, "length", result->length);
    orli_put_field(&s, "distinct2", result->distinct2);
    orli_put_field(&s, "truncated", result->truncated);
    orli_str_printf(&s, ",\"samples\":%zu", result->samples);
    orli_put_field(&s, "train_tokens", result->train_tokens);
    orli_put_field(&s, "train_flops", result->train_flops);
    orli_put_field(&s, "train_seconds", result->train_seconds);
    orli_put_field(&s, "data_flops", result->data_flops);
    orli_put_field(&s, "data_seconds", result->data_seconds);
    orli_put_field(&s, "percent_of_ppo", result->percent_of_ppo);
    orli_put_field(&s, "percent_of_ppo_total", result->percent_of_ppo_total);
    orli_str_puts(&s, "}");
    return orli_str_take(&s);
}

/* ---- the page ---- */

struct orl_report {
    orli_object object;
    char *title;
    orli_str body;
    orli_names names; /* of series, so that one name has one colour all over the page */
};

/* Colours that colour-blind readers tell apart (after Okabe and Ito), darker on white, lighter on black. */
#define ORLI_COLOURS 8
static const char orli_page_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
    ":root{color-scheme:light;--bg:#fff;--ink:#1c2127;--soft:#5b6570;--line:#dfe3e8;--tint:#f5f7f9;"
    "--c0:#0068a8;--c1:#c9500a;--c2:#00805c;--c3:#b2478a;--c4:#b98000;--c5:#2f97d6;--c6:#555c64;--c7:#7a6500}\n"
    "@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;"
    "--bg:#14181d;--ink:#e4e8ec;--soft:#9ba6b2;--line:#2d343c;--tint:#1c2229;"
    "--c0:#4aa8ec;--c1:#ff8b4d;--c2:#2fc79b;--c3:#e58cc2;--c4:#f2b632;--c5:#8fd0ff;--c6:#b4bcc5;--c7:#d0bb52}}\n"
    "body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:72rem;background:var(--bg);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,Arial,sans-serif}\n"
    "main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,29rem),1fr));gap:1.75rem 2.25rem}\n"
    "h1,h2,p,.table{grid-column:1/-1;margin:0}h1{font-size:1.9rem;line-height:1.2;margin-bottom:1.5rem}\n"
    "h2{font-size:1.3rem;line-height:1.25;padding-top:1rem;border-top:1px solid var(--line)}\n"
    "p{max-width:46rem;white-space:pre-line}\n"
    "figure{margin:0;min-width:0;break-inside:avoid}figcaption{font-weight:600;line-height:1.35;margin-bottom:.4rem}\n"
    ".note,.keys,footer{color:var(--soft);font-size:.85rem;font-weight:400}footer{margin-top:3rem}\n"
    ".keys span{display:inline-block;margin-right:1rem}"
    ".keys i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px;background:var(--c)}\n"
    "svg{display:block;width:100%;height:auto;overflow:visible;fill:var(--soft);font-size:12px;"
    "font-variant-numeric:tabular-nums}\n"
    ".g{stroke:var(--line);fill:none}.z{stroke:var(--soft);fill:none}"
    ".d{stroke:var(--soft);fill:none;stroke-dasharray:4 4}\n"
    ".l{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".b{fill:var(--c);fill-opacity:.16}.h{fill:var(--c);fill-opacity:.22;stroke:var(--c);stroke-width:1.5}"
    ".m{fill:var(--c);stroke:var(--bg)}.e{stroke:var(--c);stroke-width:1.5;fill:none}"
    ".k{stroke:var(--c);stroke-width:.75;fill:none;opacity:.6}.dash{stroke-dasharray:6 4}\n"
    ".n{fill:var(--c);font-weight:600;paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round;"
    "stroke-dasharray:none}\n"
    ".table{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;line-height:1.4;min-width:100%}"
    "caption{text-align:left;font-weight:600;font-size:1rem;padding-bottom:.4rem}\n"
    "th,td{padding:.4rem .75rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;"
    "white-space:pre-line}th{border-bottom:2px solid var(--soft);vertical-align:bottom}"
    "tbody tr:nth-child(even){background:var(--tint)}\n"
    ".r{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}th.r{white-space:normal}\n"
    "@media print{body{padding:0;max-width:none;font-size:10pt}main{display:block}main>*{margin-bottom:1rem!important}"
    "figure{max-width:14cm}h2{break-after:avoid}tr{break-inside:avoid}.table{overflow:visible}"
    "table{font-size:7pt}caption{font-size:10pt}th,td{padding:2pt 3pt}.r{white-space:normal}}\n"
    "</style>\n<title>";

static void orli_report_destroy(orli_object *object) {
    orl_report *report = (orl_report *)object;
    orli_free(object->ctx, report->title);
    orli_str_free(&report->body);
    orli_names_free(&report->names);
}

ORL_API orl_report *orl_report_create(orl_ctx *ctx, const char *title) {
    orl_report *report = (orl_report *)orli_object_create(ctx, sizeof(orl_report), orli_report_destroy);
    if (!report) return NULL;
    report->body = orli_str_new(ctx);
    report->names = orli_names_new(ctx);
    report->title = orli_copy_string(ctx, title ? title : "Report");
    if (report->title) return report;
    orli_object_free(&report->object);
    return NULL;
}

ORL_API void orl_report_free(orl_report *report) {
    if (report) orli_object_free(&report->object);
}

static orl_ctx *orli_report_ctx(const orl_report *report) { return report ? report->object.ctx : NULL; }

static void orli_put_element(orli_str *s, const char *tag, const char *text) {
    orli_str_printf(s, "<%s>", tag);
    orli_put_html(s, text ? text : "");
    orli_str_printf(s, "</%s>\n", tag);
}

ORL_API orl_status orl_report_heading(orl_report *report, const char *text) {
    orl_ctx *ctx = orli_report_ctx(report);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    orli_put_element(&report->body, "h2", text);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_report_text(orl_report *report, const char *paragraph) {
    orl_ctx *ctx = orli_report_ctx(report);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    orli_put_element(&report->body, "p", paragraph);
    return orl_error_status(ctx);
}

/* ---- tables ---- */

/* Does it read as a figure, so that it is set to the right? */
static int orli_is_figure(const char *cell) {
    int digits = 0;
    if (strcmp(cell, "-") == 0 || !*cell) return 1;
    for (; *cell; cell++) {
        if (*cell >= '0' && *cell <= '9') digits = 1;
        else if (!strchr("+-.,%eEx ", *cell) && (unsigned char)*cell < 0x80) return 0;
    }
    return digits; /* signs beyond ASCII such as ± … ≤ × are welcome */
}

/* cell: (rows, cols). A column whose cells below the head are all figures goes to the right. */
static orl_status orli_put_table(orl_report *report, const char *title, const char *const *cell, size_t rows,
                                 size_t cols) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_str *s = &report->body;
    size_t i, k;
    int *right = (int *)orli_alloc(ctx, cols, sizeof *right);
    if (!right) return ORL_ERR_MEMORY;
    for (k = 0; k < cols; k++)
        for (right[k] = 1, i = 1; i < rows; i++)
            if (cell[i * cols + k] && !orli_is_figure(cell[i * cols + k])) right[k] = 0;
    orli_str_puts(s, "<div class=\"table\"><table>\n");
    if (title) orli_put_element(s, "caption", title);
    for (i = 0; i < rows; i++) {
        orli_str_puts(s, i == 0 ? "<thead><tr>" : i == 1 ? "<tbody>\n<tr>" : "<tr>");
        for (k = 0; k < cols; k++) {
            orli_str_puts(s, i ? "<td" : "<th");
            orli_str_puts(s, right[k] ? " class=\"r\">" : ">");
            orli_put_html(s, cell[i * cols + k] ? cell[i * cols + k] : "");
            orli_str_puts(s, i ? "</td>" : "</th>");
        }
        orli_str_puts(s, i ? "</tr>\n" : "</tr></thead>\n");
    }
    orli_str_puts(s, rows > 1 ? "</tbody></table></div>\n" : "</table></div>\n");
    orli_free(ctx, right);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_report_table(orl_report *report, const char *title, const char *const *cells, size_t rows,
                                    size_t cols) {
    orl_ctx *ctx = orli_report_ctx(report);
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (!cells || !rows || !cols)
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_report_table: a table needs a row, its head, and a column");
    return orli_put_table(report, title, cells, rows, cols);
}

ORL_API orl_status orl_report_results(orl_report *report, const orl_result *results, size_t n) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_str text;
    const char **cell, *at;
    size_t cols, i;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (n && !results) return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_report_results: results is NULL");
    text = orli_str_new(ctx);
    cols = orli_result_cells(&text, results, n);
    cell = cols ? (const char **)orli_alloc(ctx, orli_mul(n + 1, cols), sizeof *cell) : NULL;
    if (cell) {
        for (at = text.data, i = 0; i < (n + 1) * cols; i++, at += strlen(at) + 1) cell[i] = at;
        orli_put_table(report, NULL, cell, n + 1, cols);
    }
    orli_free(ctx, cell);
    orli_str_free(&text);
    return orl_error_status(ctx);
}

/* ---- axes ---- */

/* A chart is drawn in a box of 480 × 300 that the browser scales to its column. */
#define ORLI_CHART_WIDTH 480.0
#define ORLI_CHART_HEIGHT 300.0
#define ORLI_CHART_TOP 12.0
#define ORLI_CHART_BOTTOM 254.0
#define ORLI_CHART_LEFT 52.0
#define ORLI_CHART_LETTER 7.2 /* width of a letter, about */

typedef struct orli_axis {
    double low, high;      /* what it shows; of a log axis, log10 of it */
    double step;           /* from tick to tick; of a log axis, 0: ticks at 1, 2 and 5 */
    double start, end;     /* where low and high lie in the drawing */
    int logarithmic, seen; /* seen: it has met a number */
} orli_axis;

static orli_axis orli_axis_new(double start, double end, int logarithmic) {
    orli_axis a;
    memset(&a, 0, sizeof a);
    a.start = start;
    a.end = end;
    a.logarithmic = logarithmic;
    return a;
}

/* Can it be shown? */
static int orli_axis_takes(const orli_axis *a, double value) {
    return orli_finite(value) && (!a->logarithmic || value > 0);
}

static void orli_axis_see(orli_axis *a, double value) {
    if (!orli_axis_takes(a, value)) return;
    if (a->logarithmic) value = log10(value);
    if (!a->seen || value < a->low) a->low = value;
    if (!a->seen || value > a->high) a->high = value;
    a->seen = 1;
}

/* The least of 1, 2, 5, 10, … that makes at most `most` steps of a range (Heckbert, Graphics Gems, 1990). */
static double orli_nice_step(double range, double most) {
    double raw = range / most, power = pow(10, floor(log10(raw))), digit = raw / power;
    return power * (digit <= 1.0001 ? 1 : digit <= 2.0001 ? 2 : digit <= 5.0001 ? 5 : 10);
}

/* The i-th tick's value, i = 0, 1, …; NaN after the last one. */
static double orli_axis_tick(const orli_axis *a, int i) {
    static const double digit[3] = {1, 2, 5};
    double first, t, slack = 1e-6 * (a->high - a->low);
    if (a->logarithmic && a->step == 0) { /* 1, 2, 5 in each decade */
        for (first = floor(a->low) - 1; first <= a->high; first++) {
            int k;
            for (k = 0; k < 3; k++) {
                t = first + log10(digit[k]);
                if (t >= a->low - slack && t <= a->high + slack && i-- == 0) return digit[k] * pow(10, first);
            }
        }
        return (double)NAN;
    }
    first = ceil(a->low / a->step - 1e-6);
    t = (first + i) * a->step;
    if (t > a->high + slack) return (double)NAN;
    return a->logarithmic ? pow(10, t) : t;
}

static void orli_axis_fit_log(orli_axis *a) {
    double pad = 0.03 * (a->high - a->low);
    a->low -= pad;
    a->high += pad;
    a->step = a->high - a->low < 2.2 ? 0 : ceil((a->high - a->low) / 7);
    if (a->step == 0 && !orli_finite(orli_axis_tick(a, 1))) { /* fewer than two ticks: out to the next ones */
        a->low = -log10(orli_nice_step(pow(10, -a->low), 1)); /* 1, 2, 5 turned over are 1, 5, 2 */
        a->high = log10(orli_nice_step(pow(10, a->high), 1));
    }
}

/* Settles the range and the ticks; widen: up to the next tick on both sides. */
static void orli_axis_fit(orli_axis *a, int widen) {
    double pad;
    if (!a->seen) a->low = 0, a->high = 1;
    if (a->high - a->low <= 1e-9 * (fabs(a->high) + fabs(a->low))) { /* one value: give it room */
        pad = a->logarithmic ? 0.5 : a->high == 0 ? 1 : 0.5 * fabs(a->high);
        a->low -= pad;
        a->high += pad;
    }
    if (a->logarithmic) {
        orli_axis_fit_log(a);
        return;
    }
    a->step = orli_nice_step(a->high - a->low, 5.5);
    if (!widen) return;
    a->low = a->step * floor(a->low / a->step + 1e-6);
    a->high = a->step * ceil(a->high / a->step - 1e-6);
}

static double orli_axis_at(const orli_axis *a, double value) {
    if (a->logarithmic) value = log10(value);
    return a->start + (value - a->low) / (a->high - a->low) * (a->end - a->start);
}

/* 0.25, 1500, 20k, 1.5M, 3T, 2e-05: with as many digits as tell ticks `step` apart, in the unit that
 * suits the greatest of them. */
static void orli_put_tick(orli_str *s, double value, double step, double most) {
    static const char *const unit[6] = {"", "k", "M", "G", "T", "P"};
    double scaled;
    int u = 0, digits = 0;
    if (value == 0 || fabs(value) < 1e-9 * most) {
        orli_str_puts(s, "0");
        return;
    }
    if (most >= 1e18 || step < 1e-4) {
        orli_put_number(s, 'g', 3, value);
        return;
    }
    if (most >= 1e4)
        while (most >= 1e3 * 0.9999999 && u < 5) most /= 1e3, step /= 1e3, value /= 1e3, u++;
    for (scaled = step; digits < 6 && fabs(scaled - floor(scaled + 0.5)) > 1e-6 * scaled; digits++) scaled *= 10;
    orli_put_number(s, 'f', digits, value);
    orli_str_puts(s, unit[u]);
}

static void orli_put_axis_tick(orli_str *s, const orli_axis *a, double tick) {
    if (a->logarithmic) orli_put_tick(s, tick, tick, tick);
    else orli_put_tick(s, tick, a->step, ORLI_MAX(fabs(a->low), fabs(a->high)));
}

/* ---- drawing ---- */

static void orli_put_xy(orli_str *s, const char *before, double x, double y) {
    orli_str_puts(s, before);
    orli_put_number(s, 'f', 1, x);
    orli_str_puts(s, " ");
    orli_put_number(s, 'f', 1, y);
}

static void orli_put_line(orli_str *s, const char *kind, double x1, double y1, double x2, double y2) {
    orli_str_printf(s, "<path class=\"%s\" d=\"", kind);
    orli_put_xy(s, "M", x1, y1);
    orli_put_xy(s, "L", x2, y2);
    orli_str_puts(s, "\"/>");
}

/* Opens <text> at a place; anchor: start, middle, end. */
static void orli_open_text(orli_str *s, const char *kind, const char *anchor, double x, double y) {
    orli_str_printf(s, "<text class=\"%s\" text-anchor=\"%s\" x=\"", kind, anchor);
    orli_put_number(s, 'f', 1, x);
    orli_str_puts(s, "\" y=\"");
    orli_put_number(s, 'f', 1, y);
    orli_str_puts(s, "\">");
}

static void orli_put_text(orli_str *s, const char *kind, const char *anchor, double x, double y, const char *text) {
    orli_open_text(s, kind, anchor, x, y);
    orli_put_html(s, text);
    orli_str_puts(s, "</text>");
}

/* Opens the drawing: grid, ticks, labels. */
static void orli_put_frame(orli_str *s, const char *title, const char *x_label, const char *y_label, const orli_axis *x,
                           const orli_axis *y) {
    double tick;
    int i;
    orli_str_puts(s, "<svg viewBox=\"0 0 480 300\" role=\"img\" aria-label=\"");
    orli_put_html(s, title ? title : "chart");
    orli_str_puts(s, "\">\n");
    for (i = 0; orli_finite(tick = orli_axis_tick(y, i)); i++) {
        int base = tick == 0 || fabs(tick) < 1e-9 * y->step;
        orli_put_line(s, base ? "z" : "g", x->start, orli_axis_at(y, tick), x->end, orli_axis_at(y, tick));
        orli_open_text(s, "t", "end", x->start - 7, orli_axis_at(y, tick) + 4);
        orli_put_axis_tick(s, y, tick);
        orli_str_puts(s, "</text>");
    }
    for (i = 0; orli_finite(tick = orli_axis_tick(x, i)); i++) {
        orli_put_line(s, "z", orli_axis_at(x, tick), y->start, orli_axis_at(x, tick), y->start + 4);
        orli_open_text(s, "t", "middle", orli_axis_at(x, tick), y->start + 18);
        orli_put_axis_tick(s, x, tick);
        orli_str_puts(s, "</text>");
    }
    orli_put_line(s, "z", x->start, y->start, x->end, y->start);
    if (x_label) orli_put_text(s, "t", "middle", 0.5 * (x->start + x->end), y->start + 38, x_label);
    if (y_label) {
        orli_str_puts(s, "<g transform=\"translate(12 ");
        orli_put_number(s, 'f', 1, 0.5 * (y->start + y->end));
        orli_str_puts(s, ") rotate(-90)\">");
        orli_put_text(s, "t", "middle", 0, 0, y_label);
        orli_str_puts(s, "</g>");
    }
    orli_str_puts(s, "\n");
    if (!x->seen) orli_put_text(s, "t", "middle", 0.5 * (x->start + x->end), 0.5 * (y->start + y->end), "no data");
}

/* A name's number on this page, new or old. */
static size_t orli_colour_of(orl_report *report, const char *name) {
    size_t number = orli_names_add(&report->names, name, strlen(name));
    return number == ORLI_NONE ? 0 : number; /* no memory: the context knows */
}

/* The group that gives a name its colour; names past the eighth are dashed. */
static void orli_open_colour(orl_report *report, const char *name) {
    size_t number = orli_colour_of(report, name ? name : "");
    orli_str_printf(&report->body, "<g style=\"--c:var(--c%d)\"%s>", (int)(number % ORLI_COLOURS),
                    number >= ORLI_COLOURS ? " class=\"dash\"" : "");
}

/* ---- charts ---- */

static int orli_point_shown(const orli_axis *x, const orli_axis *y, const orl_series *s, size_t i) {
    return s->x && s->y && orli_axis_takes(x, s->x[i]) && orli_axis_takes(y, s->y[i]);
}
static int orli_band_shown(const orli_axis *x, const orli_axis *y, const orl_series *s, size_t i) {
    return s->low && s->high && orli_point_shown(x, y, s, i) && orli_finite(s->low[i]) && orli_finite(s->high[i]);
}

/* Bands: one closed path for each unbroken run of points. */
static void orli_put_band(orli_str *out, const orli_axis *x, const orli_axis *y, const orl_series *s) {
    size_t i, end, k;
    for (i = 0; i < s->n; i = end) {
        for (end = i; end < s->n && orli_band_shown(x, y, s, end); end++) {}
        if (end > i + 1) {
            orli_str_puts(out, "<path class=\"b\" d=\"");
            for (k = i; k < end; k++)
                orli_put_xy(out, k == i ? "M" : "L", orli_axis_at(x, s->x[k]), orli_axis_at(y, s->high[k]));
            for (k = end; k > i; k--)
                orli_put_xy(out, "L", orli_axis_at(x, s->x[k - 1]), orli_axis_at(y, s->low[k - 1]));
            orli_str_puts(out, "Z\"/>");
        }
        if (end == i) end++;
    }
}

/* A line that what is not finite breaks; points less than half a unit from the last one are left out. */
static void orli_put_curve(orli_str *out, const orli_axis *x, const orli_axis *y, const orl_series *s) {
    double px = 0, py = 0, last_x = 0, last_y = 0;
    int drawing = 0;
    size_t i;
    orli_str_puts(out, "<path class=\"l\" d=\"");
    for (i = 0; i < s->n; i++) {
        int shown = orli_point_shown(x, y, s, i);
        if (shown) px = orli_axis_at(x, s->x[i]), py = orli_axis_at(y, s->y[i]);
        if (shown && (!drawing || fabs(px - last_x) >= 0.5 || fabs(py - last_y) >= 0.5)) {
            orli_put_xy(out, drawing ? "L" : "M", px, py);
            if (!drawing) orli_put_xy(out, "L", px, py); /* a point alone shows as a dot, by its round caps */
            last_x = px;
            last_y = py;
        }
        drawing = shown;
    }
    orli_str_puts(out, "\"/>");
}

/* A mark with its interval; pointing at it shows its figures. */
static void orli_put_mark(orli_str *out, const orli_axis *x, const orli_axis *y, const orl_series *s, size_t i) {
    double px = orli_axis_at(x, s->x[i]), py = orli_axis_at(y, s->y[i]);
    if (orli_band_shown(x, y, s, i))
        orli_put_line(out, "e", px, orli_axis_at(y, s->low[i]), px, orli_axis_at(y, s->high[i]));
    orli_str_puts(out, "<circle class=\"m\" r=\"4\" cx=\"");
    orli_put_number(out, 'f', 1, px);
    orli_str_puts(out, "\" cy=\"");
    orli_put_number(out, 'f', 1, py);
    orli_str_puts(out, "\"><title>");
    orli_put_html(out, s->name ? s->name : "");
    orli_str_puts(out, ": ");
    orli_put_number(out, 'g', 4, s->x[i]);
    orli_str_puts(out, ", ");
    orli_put_number(out, 'g', 4, s->y[i]);
    orli_str_puts(out, "</title></circle>");
}

typedef struct orli_label { /* a series' name beside its last point */
    const char *name;
    double point_x, point_y, y, width;
} orli_label;

static int orli_labels_meet(const orli_label *a, const orli_label *b) {
    return a->point_x <= b->point_x + b->width && b->point_x <= a->point_x + a->width;
}

/* Moves labels that would overlap apart: down from the top, then up from the bottom edge. */
static void orli_spread_labels(orli_label *label, size_t n, double bottom) {
    const double apart = 14;
    size_t i, j;
    for (i = 1; i < n; i++) { /* sorted by height; they are few, and equal ones keep their order */
        orli_label moved = label[i];
        for (j = i; j > 0 && label[j - 1].point_y > moved.point_y; j--) label[j] = label[j - 1];
        label[j] = moved;
    }
    for (i = 0; i < n; i++)
        for (j = 0; j < i; j++)
            if (orli_labels_meet(&label[i], &label[j])) label[i].y = ORLI_MAX(label[i].y, label[j].y + apart);
    for (i = n; i-- > 0;)
        for (label[i].y = ORLI_MIN(label[i].y, bottom), j = i + 1; j < n; j++)
            if (orli_labels_meet(&label[i], &label[j])) label[i].y = ORLI_MIN(label[i].y, label[j].y - apart);
}

static void orli_put_label(orl_report *report, const orli_label *l) {
    orli_str *s = &report->body;
    orli_open_colour(report, l->name);
    if (fabs(l->y - l->point_y) > 6) orli_put_line(s, "k", l->point_x + 3, l->point_y, l->point_x + 8, l->y);
    orli_put_text(s, "n", "start", l->point_x + 10, l->y + 4, l->name);
    orli_str_puts(s, "</g>\n");
}

static void orli_put_series(orl_report *report, const orli_axis *x, const orli_axis *y, const orl_series *s) {
    orli_str *out = &report->body;
    size_t i;
    orli_open_colour(report, s->name);
    if (!s->marks) {
        orli_put_band(out, x, y, s);
        orli_put_curve(out, x, y, s);
    }
    for (i = 0; s->marks && i < s->n; i++)
        if (orli_point_shown(x, y, s, i)) orli_put_mark(out, x, y, s, i);
    orli_str_puts(out, "</g>\n");
}

/* The names of the series, each at its last point. */
static void orli_put_labels(orl_report *report, const orl_chart *chart, const orli_axis *x, const orli_axis *y) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_label *label = (orli_label *)orli_alloc(ctx, chart->series_count, sizeof *label);
    size_t i, k, n = 0;
    if (!label) return;
    for (k = 0; k < chart->series_count; k++) {
        const orl_series *s = &chart->series[k];
        for (i = s->n; i > 0 && !orli_point_shown(x, y, s, i - 1); i--) {}
        if (!i || !s->name || !*s->name) continue;
        label[n].name = s->name;
        label[n].point_x = orli_axis_at(x, s->x[i - 1]);
        label[n].point_y = label[n].y = orli_axis_at(y, s->y[i - 1]);
        label[n++].width = 12 + ORLI_CHART_LETTER * (double)orli_characters(s->name);
    }
    orli_spread_labels(label, n, y->start);
    for (k = 0; k < n; k++) orli_put_label(report, &label[k]);
    orli_free(ctx, label);
}

static void orli_put_diagonal(orli_str *s, const orli_axis *x, const orli_axis *y) {
    double from = ORLI_MAX(x->low, y->low), to = ORLI_MIN(x->high, y->high), label = from + 0.95 * (to - from);
    if (from >= to) return;
    orli_put_line(s, "d", orli_axis_at(x, from), orli_axis_at(y, from), orli_axis_at(x, to), orli_axis_at(y, to));
    orli_put_text(s, "t", "end", orli_axis_at(x, label) - 10, orli_axis_at(y, label) + 4, "y = x");
}

/* What both axes have to show. */
static void orli_see_series(orli_axis *x, orli_axis *y, const orl_series *s) {
    size_t i;
    for (i = 0; i < s->n; i++) {
        if (!orli_point_shown(x, y, s, i)) continue;
        orli_axis_see(x, s->x[i]);
        orli_axis_see(y, s->y[i]);
        if (!orli_band_shown(x, y, s, i)) continue;
        orli_axis_see(y, s->low[i]);
        orli_axis_see(y, s->high[i]);
    }
}

/* Marks keep clear of the chart's edges. */
static void orli_axis_pad(orli_axis *x, const orl_chart *chart) {
    double pad = 0.03 * (x->high - x->low);
    size_t k, marks = 0;
    for (k = 0; k < chart->series_count; k++) marks += chart->series[k].marks != 0;
    if (!marks || x->logarithmic) return;
    x->low -= pad;
    x->high += pad;
}

/* The least width on the right that holds every name beside a point at the very end. */
static double orli_name_margin(const orl_chart *chart) {
    double margin = 16;
    size_t k;
    for (k = 0; k < chart->series_count; k++)
        if (chart->series[k].name)
            margin = ORLI_MAX(margin, 14 + ORLI_CHART_LETTER * (double)orli_characters(chart->series[k].name));
    return ORLI_MIN(margin, 160);
}

ORL_API orl_status orl_report_chart(orl_report *report, const orl_chart *chart) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_str *s;
    orli_axis x, y;
    size_t k;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (!chart || (chart->series_count && !chart->series))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_report_chart: the chart is NULL, or its series are");
    x = orli_axis_new(ORLI_CHART_LEFT, ORLI_CHART_WIDTH - orli_name_margin(chart), chart->log_x);
    y = orli_axis_new(ORLI_CHART_BOTTOM, ORLI_CHART_TOP, 0);
    for (k = 0; k < chart->series_count; k++) orli_see_series(&x, &y, &chart->series[k]);
    orli_axis_pad(&x, chart);
    orli_axis_fit(&x, 0);
    orli_axis_fit(&y, 1);
    s = &report->body;
    orli_str_puts(s, "<figure>\n");
    if (chart->title) orli_put_element(s, "figcaption", chart->title);
    orli_put_frame(s, chart->title, chart->x_label, chart->y_label, &x, &y);
    if (chart->diagonal && !chart->log_x) orli_put_diagonal(s, &x, &y);
    for (k = 0; k < chart->series_count; k++) orli_put_series(report, &x, &y, &chart->series[k]);
    orli_put_labels(report, chart, &x, &y);
    orli_str_puts(s, "</svg>\n");
    if (chart->note) {
        orli_str_puts(s, "<div class=\"note\">");
        orli_put_html(s, chart->note);
        orli_str_puts(s, "</div>\n");
    }
    orli_str_puts(s, "</figure>\n");
    return orl_error_status(ctx);
}

/* ---- histograms ---- */

/* Shares of the finite values in each bin, in percent; gives their mean, NaN if there are none. */
static double orli_bin_shares(const double *value, size_t n, const orli_axis *x, size_t bins, double *share) {
    size_t i, count = 0;
    double sum = 0, place;
    for (i = 0; i < bins; i++) share[i] = 0;
    for (i = 0; i < n; i++) {
        if (!orli_finite(value[i])) continue;
        place = (value[i] - x->low) / (x->high - x->low) * (double)bins;
        share[place < 0 ? 0 : ORLI_MIN((size_t)place, bins - 1)]++;
        sum += value[i];
        count++;
    }
    for (i = 0; i < bins && count; i++) share[i] *= 100.0 / (double)count;
    return count ? sum / (double)count : (double)NAN;
}

/* The outline of a histogram, and a dashed line at the mean. */
static void orli_put_steps(orl_report *report, const char *name, const orli_axis *x, const orli_axis *y,
                           const double *share, size_t bins, double mean) {
    orli_str *s = &report->body;
    double width = (x->end - x->start) / (double)bins;
    size_t i;
    orli_open_colour(report, name);
    orli_put_xy(s, "<path class=\"h\" d=\"M", x->start, y->start);
    for (i = 0; i < bins; i++) {
        double top = orli_axis_at(y, share[i]);
        orli_put_xy(s, "L", x->start + width * (double)i, top);
        orli_put_xy(s, "L", x->start + width * (double)(i + 1), top);
    }
    orli_put_xy(s, "L", x->end, y->start);
    orli_str_puts(s, "\"/>");
    orli_put_line(s, "e dash", orli_axis_at(x, mean), y->start, orli_axis_at(x, mean), y->end);
    orli_str_puts(s, "</g>\n");
}

static void orli_put_key(orl_report *report, const char *name, double mean) {
    orli_str *s = &report->body;
    int colour = (int)(orli_colour_of(report, name) % ORLI_COLOURS);
    orli_str_printf(s, "<span><i style=\"--c:var(--c%d)\"></i>", colour);
    orli_put_html(s, name);
    orli_str_puts(s, orli_finite(mean) ? ", mean " : ", no data");
    if (orli_finite(mean)) orli_put_number(s, 'f', 2, mean);
    orli_str_puts(s, "</span>");
}

ORL_API orl_status orl_report_histogram(orl_report *report, const char *title, const char *x_label,
                                        const char *const *names, const double *const *values, const size_t *counts,
                                        size_t sets, size_t bins) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_axis x = orli_axis_new(ORLI_CHART_LEFT, ORLI_CHART_WIDTH - 16, 0);
    orli_axis y = orli_axis_new(ORLI_CHART_BOTTOM, ORLI_CHART_TOP, 0);
    orli_str *s;
    double *share, *mean;
    size_t k, i;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (sets && (!names || !values || !counts))
        return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_report_histogram: names, values or counts is NULL");
    if (!bins) bins = 30;
    share = (double *)orli_alloc(ctx, orli_mul(sets, orli_add(bins, 1)), sizeof *share); /* (sets, bins), then means */
    if (!share) return ORL_ERR_MEMORY;
    mean = share + sets * bins;
    for (k = 0; k < sets; k++)
        for (i = 0; i < counts[k]; i++) orli_axis_see(&x, values[k][i]);
    orli_axis_fit(&x, 0);
    for (k = 0; k < sets; k++) mean[k] = orli_bin_shares(values[k], counts[k], &x, bins, share + k * bins);
    orli_axis_see(&y, 0);
    for (i = 0; i < sets * bins; i++) orli_axis_see(&y, share[i]);
    orli_axis_fit(&y, 1);
    s = &report->body;
    orli_str_puts(s, "<figure>\n<figcaption>");
    orli_put_html(s, title ? title : "");
    orli_str_puts(s, "<div class=\"keys\">");
    for (k = 0; k < sets; k++) orli_put_key(report, names[k] ? names[k] : "", mean[k]);
    orli_str_puts(s, "</div></figcaption>\n");
    orli_put_frame(s, title, x_label, "share, %", &x, &y);
    for (k = 0; k < sets; k++)
        if (orli_finite(mean[k])) orli_put_steps(report, names[k], &x, &y, share + k * bins, bins, mean[k]);
    orli_str_puts(s, "</svg>\n</figure>\n");
    orli_free(ctx, share);
    return orl_error_status(ctx);
}

ORL_API orl_status orl_report_save(const orl_report *report, const char *file) {
    orl_ctx *ctx = orli_report_ctx(report);
    orli_str title;
    orli_writer w;
    if (orl_failed(ctx)) return orl_error_status(ctx);
    if (!file) return orli_fail(ctx, ORL_ERR_ARGUMENT, "orl_report_save: file is NULL");
    title = orli_str_new(ctx);
    orli_put_html(&title, report->title);
    orli_str_puts(&title, "</title>\n</head>\n<body>\n<h1>");
    orli_put_html(&title, report->title);
    orli_str_puts(&title, "</h1>\n<main>\n");
    if (orli_writer_open(ctx, file, &w) == ORL_OK) {
        static const char foot[] =
            "</main>\n<footer>Made by offline_rlhf.h " ORL_VERSION ".</footer>\n</body>\n</html>\n";
        orli_writer_put(&w, orli_page_head, sizeof orli_page_head - 1);
        orli_writer_put(&w, title.data, title.length);
        orli_writer_put(&w, report->body.data, report->body.length);
        orli_writer_put(&w, foot, sizeof foot - 1);
        orli_writer_close(&w);
    }
    orli_str_free(&title);
    return orl_error_status(ctx);
}
#endif /* section 16 */
#ifdef __cplusplus
}
#endif
#endif /* OFFLINE_RLHF_IMPLEMENTATION */

/*
 * MIT License
 *
 * Copyright (c) 2026 The offline_rlhf.h authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to deal
 * in the Software without restriction, including without limitation the rights
 * to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all
 * copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 * SOFTWARE.
 */
