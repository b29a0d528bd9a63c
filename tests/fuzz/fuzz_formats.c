/* fuzz_formats.c - every kind of file that is read, under libFuzzer: `make fuzz` builds and runs it.
 *
 * The first byte of an input says what it is, the rest is the file: JSONL rows, or one file of a small
 * model's directory whose other files are good. Whatever it is, reading ends in an object or in a status
 * with a sentence; ASan and UBSan see to the rest. What it starts from it makes by itself: a model is
 * saved, and its files are the first inputs. Everything is written below the working directory. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../../offline_rlhf.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { JSONL, CONFIG, WEIGHTS, TOKENIZER, SETTINGS, MERGES, LLAMA2C, GENERATION, RANKS, ADAPTER, LOW_RANK, OWN, KINDS };
static const char *const file_of[KINDS] = {
    "rows.jsonl", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "model.bin",
    "generation_config.json", "tokenizer.model", "adapter_config.json", "adapter_model.safetensors", "orl_adapter.json"};
static const char rows[] =
    "{\"prompt\": \"ab\", \"completion\": \" c\\u00e9\", \"reward\": -1.5e0, \"x\": [1, {\"y\": null}]}\n"
    "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", "
    "\"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: c\", \"margin\": 1}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
    "{\"role\": \"assistant\", \"content\": \"b\"}]}\n"
    "{\"prompt_ids\": [1, 2], \"completion_ids\": [3], \"truncated\": true}\n{\"text\": \"abc\"}\n";

static void require(int held) {
    if (!held) __builtin_trap();
}

static orl_ctx *context(void) {
    orl_config config = orl_config_default();
    config.threads = 1, config.memory_limit = (size_t)256 << 20;
    return orl_create(&config);
}

static void write_whole(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    require(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static orl_model *small_model(orl_ctx *ctx) {
    static const char text[] = "a ab abc abcd a ab abc abcd";
    static const char *const specials[] = {"<|end|>", NULL};
    orl_model_config c = orl_model_config_default(ORL_LLAMA);
    c.vocab = 260, c.dim = 4, c.layers = c.heads = c.kv_heads = 1, c.ffn = 4, c.context = 16;
    return orl_model_create(ctx, &c, orl_tokenizer_train(ctx, text, sizeof text - 1, 260, specials));
}

/* An adapter beside its base. */
static void save_adapter(orl_ctx *ctx, const char *dir) {
    orl_lora_options o = orl_lora_default();
    orl_model *m = small_model(ctx);
    char base[48];
    snprintf(base, sizeof base, "%s/base", dir);
    mkdir(dir, 0777);
    orl_model_save(m, base);
    orl_model_set_name(m, "base");
    o.rank = 1;
    orl_lora_add(m, &o);
    orl_lora_save(m, dir);
}

/* config.json of every family, as inputs: with the weights there a load fails at the first tensor that differs. */
static void save_configs(void) {
    int arch;
    for (arch = 0; arch < (int)ORLI_FAMILIES; arch++) {
        orl_ctx *ctx = context();
        orl_model_config c = orl_model_config_default((orl_arch)arch);
        orli_str s = orli_str_new(ctx);
        char path[64];
        orl_model *m;
        c.rope.factor = arch % 2 ? 8 : 0, c.rope.low = 1, c.rope.high = 4, c.rope.original = arch % 3 ? 64 : 0;
        m = orl_model_create(ctx, &c, NULL);
        orli_str_add(&s, "\1", 1);
        if (m) orli_config_write(&s, m, ORLI_F32);
        snprintf(path, sizeof path, "corpus/family%d", arch);
        require(!orl_failed(ctx) && CONFIG == 1);
        write_whole(path, s.data, s.length);
        orli_str_free(&s);
        orl_destroy(ctx);
    }
}

/* A directory for each kind with good files beside the one that is fuzzed; a first input of each kind. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const int32_t llama2c[7] = {2, 2, 1, 1, 1, 4, 2};
    static float weights[7 + 64];
    static const char vocab[] = "{\"a\": 0, \"b\": 1, \"ab\": 2}";
    int kind;
    (void)argc, (void)argv;
    mkdir("corpus", 0777);
    save_configs();
    memcpy(weights, llama2c, sizeof llama2c);
    for (kind = 0; kind < KINDS; kind++) {
        static char seed[1 << 20];
        char dir[32], path[64];
        orl_ctx *ctx = context();
        size_t n = 0;
        FILE *f;
        snprintf(dir, sizeof dir, "kind%d", kind);
        if (!orli_exists(dir) && kind >= ADAPTER) save_adapter(ctx, dir);
        else if (!orli_exists(dir)) orl_model_save(small_model(ctx), dir);
        require(!orl_failed(ctx));
        snprintf(path, sizeof path, "%s/%s", dir, file_of[kind]);
        if (kind == JSONL) write_whole(path, rows, sizeof rows - 1);
        if (kind == LLAMA2C) write_whole(path, weights, 28 + 4 * 46); /* as many as its header says */
        if (kind == GENERATION) write_whole(path, "{\"eos_token_id\": [0, 3], \"top_k\": 5}", 36);
        if (kind == RANKS) write_whole(path, "YQ== 0\nYg== 1\nYWI= 2\n", 21);
        if (kind == MERGES) { /* vocab.json is fuzzed, merges.txt is there, tokenizer.json is not */
            write_whole("kind5/merges.txt", "#version: 0.2\na b\n", 18);
            write_whole(path, vocab, sizeof vocab - 1);
            remove("kind5/tokenizer.json");
        }
        seed[0] = (char)kind;
        if ((f = fopen(path, "rb")) != NULL) n = fread(seed + 1, 1, sizeof seed - 1, f), fclose(f);
        snprintf(path, sizeof path, "corpus/first%d", kind);
        write_whole(path, seed, n + 1);
        orl_destroy(ctx);
    }
    return 0;
}

static void use_rows(orl_ctx *ctx, const char *text, size_t n) {
    orl_dataset *d = orl_dataset_parse(ctx, text, n, "rows");
    size_t i;
    require((d == NULL) == (orl_failed(ctx) != 0));
    for (i = 0; i < orl_dataset_count(d); i++) orl_free(ctx, orl_dataset_row_json(d, i));
    orl_dataset_set_template(d, ORL_TEMPLATE_CHATML);
    orl_free(ctx, orl_dataset_dump(d, small_model(ctx), 4));
}

static void use_model(orl_ctx *ctx, orl_model *m) {
    orl_generate_options o = orl_generate_default();
    require((m == NULL) == (orl_failed(ctx) != 0));
    o.max_tokens = 4;
    if (m && !orl_is_reward_model(m) && orl_model_tokenizer(m))
        orl_free(ctx, orl_generate_text(m, "ab", &o));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[32], path[64];
    orl_ctx *ctx;
    int kind;
    if (!size) return 0;
    kind = data[0] % KINDS;
    ctx = context();
    snprintf(dir, sizeof dir, "kind%d", kind);
    snprintf(path, sizeof path, "%s/%s", dir, file_of[kind]);
    if (kind != JSONL) write_whole(path, data + 1, size - 1);
    if (kind == JSONL) use_rows(ctx, (const char *)data + 1, size - 1);
    else if (kind == LLAMA2C) use_model(ctx, orl_model_load_llama2c(ctx, path, NULL));
    else if (kind == RANKS) orl_tokenizer_load_tiktoken(ctx, path, "qwen");
    else use_model(ctx, kind % 2 ? orl_model_load(ctx, dir) : orl_model_load_frozen(ctx, dir));
    require((orl_error_status(ctx) == ORL_OK) == !orl_failed(ctx) && orl_error(ctx)[0]);
    orl_destroy(ctx);
    return 0;
}
