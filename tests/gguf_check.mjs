// gguf_check.mjs - GGUF files as others read them: the parser of Hugging Face, and llama.cpp itself.
//
//   npm install --prefix PEERS --ignore-scripts node-llama-cpp @huggingface/gguf
//   node tests/gguf_check.mjs PEERS             (or the directory in $ORL_PEERS; the tool in $ORL, else build/orl)
//
// Of each model and type: every tensor and key parses; llama.cpp's token ids are ours; its log-probabilities of our
// greedy continuation are ours within the type's precision, and it would have chosen the same tokens. What is missing
// is named and skipped; the last line is "gguf_check: N passed, M failed". Names behind PEERS: these models alone.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, mkdirSync, rmSync, writeFileSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const peers = process.argv[2] || process.env.ORL_PEERS || "";
const tool = process.env.ORL || join(root, "build", "orl");
const data = process.env.ORL_DATA || join(root, "..", "shared", "data");
const only = process.argv.slice(3); // names of models; none: all
let passed = 0, failed = 0;

function check(ok, what) {
    if (ok) passed++;
    else failed++, console.log(`failed: ${what}`);
}
function finish() {
    console.log(`gguf_check: ${passed} passed, ${failed} failed`);
    process.exit(failed ? 1 : 0);
}
async function peer(path, what) {
    const file = join(resolve(peers), "node_modules", path);
    if (peers && existsSync(file)) return import(pathToFileURL(file));
    console.log(`gguf_check: skipped: no ${what} in "${peers}" (see the head of this file)`);
    return null;
}
if (!existsSync(tool)) {
    console.log(`gguf_check: skipped: no ${tool} (make build/orl, or set ORL)`);
    finish();
}
const reader = await peer("@huggingface/gguf/dist/index.mjs", "@huggingface/gguf");
const cpp = await peer("node-llama-cpp/dist/index.js", "node-llama-cpp");
if (!reader && !cpp) finish();

const work = mkdtempSync(join(tmpdir(), "gguf_check_"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
const at = (...names) => join(work, ...names);
function orl(args, input = "") {
    return execFileSync(tool, [...args, "--quiet", "--threads", "1"], { input, encoding: "utf8", maxBuffer: 1 << 28 });
}
const rowsOf = (text) => text.split("\n").filter(Boolean).map((line) => JSON.parse(line));

// ---- models: real weights, and random ones of each family and kind of tokenizer ----

const models = [];
function add(name, needs, make) {
    const missing = needs.find((file) => !existsSync(file));
    if (only.length && !only.includes(name)) return;
    if (missing) console.log(`gguf_check: skipped ${name}: no ${missing} (set ORL_DATA)`);
    else make(), models.push(name);
}
const stories = join(data, "weights", "stories260K");
add("stories", [stories], () => {
    const file = join(stories, "stories260K");
    orl(["import", "--llama2c", `${file}.bin`, "--tokenizer", `${file}.tok512.bin`, "--out", at("stories")]);
});
writeFileSync(at("corpus.txt"), readFileSync(join(root, "README.md"), "utf8"));
orl(["tokenizer", "--train", at("corpus.txt"), "--vocab", "600", "--out", at("small")]);
const shape = ["--layers", "3", "--dim", "64", "--heads", "4", "--ctx", "256"];
writeFileSync(at("text.jsonl"), readFileSync(at("corpus.txt"), "utf8").split("\n\n")
    .map((text) => JSON.stringify({ text }) + "\n").join(""));
for (const [arch, ...more] of [["gpt2"], ["gpt_neox"], ["mistral", "--kv-heads", "2"], ["qwen2", "--kv-heads", "1"],
    ["qwen3", "--kv-heads", "2"], ["smollm3", "--layers", "5"], ["gemma3", "--kv-heads", "1", "--layers", "8"]])
    add(arch, [], () => { // some steps, so that biases and norms are not what they were made as
        orl(["init", "--arch", arch, ...shape, ...more, "--tokenizer", at("small"), "--out", at(`${arch}-new`)]);
        orl(["pretrain", "--model", at(`${arch}-new`), "--data", at("text.jsonl"), "--steps", "30", "--batch", "2",
            "--lr", "0.01", "--out", at(arch)]);
    });
add("narrow", [], () => orl(["init", "--arch", "gpt2", "--layers", "2", "--dim", "40", "--heads", "2", "--ctx", "256",
    "--vocab", "700", "--tokenizer", at("small"), "--out", at("narrow")])); // no multiples of 32; ids without tokens
// other ways of falling into words, on the same merges
const llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" +
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const split = (regex) => ({ type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false });
for (const [name, first, use_regex] of [["digits", { type: "Digits", individual_digits: true }, true],
    ["llama3", split(llama3), false]])
    add(name, [], () => {
        const t = JSON.parse(readFileSync(at("small", "tokenizer.json"), "utf8"));
        const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex };
        t.pre_tokenizer = { type: "Sequence", pretokenizers: [first, bytes] };
        t.model.ignore_merges = name === "llama3";
        mkdirSync(at(`${name}-tok`));
        writeFileSync(at(`${name}-tok`, "tokenizer.json"), JSON.stringify(t));
        orl(["init", "--arch", "llama", ...shape, "--tokenizer", at(`${name}-tok`), "--out", at(name)]);
    });
const real2 = join(data, "tokenizers", "gpt2");
add("gpt2-real", [real2], () => orl(["init", "--arch", "gpt2", ...shape, "--tokenizer", real2,
    "--out", at("gpt2-real")]));
const qwen = join(data, "tokenizers", "qwen3");
add("llama-qwen", [qwen], () => orl(["init", "--arch", "llama", ...shape, "--kv-heads", "2", "--untied",
    "--tokenizer", qwen, "--out", at("llama-qwen")]));

// ---- what is compared ----

const texts = ["Once upon a time", "Lily and Tom went to the park. They", " two  spaces, 12345 and\n\na tab\t!",
    "don't we'll I'VE", "caf\u00e9 na\u00efve \u20ac \u4e16\u754c \ud83d\ude00"];
// the largest difference of log-probabilities; llama.cpp rounds activations too where weights are rounded
const tolerance = { f32: 5e-4, f16: 1e-2, bf16: 0.1, q8_0: 0.15 };
const codes = { f32: 0, f16: 1, bf16: 30, q8_0: 8 };

async function checkParsed(file, dtype, config) {
    const g = await reader.gguf(file, { allowLocalFile: true });
    const m = g.metadata, arch = m["general.architecture"];
    check(g.metadata.version === 3 && arch, `${file}: version and architecture`);
    check(m[`${arch}.block_count`] === (config.n_layer ?? config.num_hidden_layers), `${file}: block_count`);
    check(m[`${arch}.vocab_size`] === config.vocab_size, `${file}: vocab_size`);
    check(m["tokenizer.ggml.tokens"].length === config.vocab_size, `${file}: as many tokens as embeddings`);
    check(new Set(m["tokenizer.ggml.tokens"]).size === config.vocab_size, `${file}: tokens are different`);
    check(Number(g.tensorDataOffset) % 32 === 0, `${file}: data is aligned`);
    for (const t of g.tensorInfos) {
        const matrix = t.n_dims === 2 && t.name !== "position_embd.weight";
        const expected = !matrix ? 0 : dtype === "q8_0" && t.shape[0] % 32n ? codes.f16 : codes[dtype];
        check(t.dtype === expected && t.offset % 32n === 0n, `${file}: ${t.name} is of type ${t.dtype} at ${t.offset}`);
    }
}

/* Our greedy continuation of a text with its log-probabilities, from a directory. */
function continuation(dir, text, tokens) {
    const prompt_ids = JSON.parse(orl(["encode", "--model", dir], text));
    const bos = JSON.parse(readFileSync(join(dir, "tokenizer_config.json"), "utf8")).add_bos_token;
    if (bos) prompt_ids.unshift(JSON.parse(readFileSync(join(dir, "config.json"), "utf8")).bos_token_id);
    writeFileSync(at("row"), JSON.stringify({ prompt_ids }) + "\n");
    const made = rowsOf(orl(["generate", "--model", dir, "--data", at("row"), "-n", "1", "--temperature", "0",
        "--max-tokens", `${tokens}`]))[0];
    const completion_ids = made.completion_ids;
    writeFileSync(at("row"), JSON.stringify({ prompt_ids, completion_ids }) + "\n");
    const logprobs = rowsOf(orl(["logprob", "--model", dir, "--data", at("row"), "--per-token"]))[0].logprobs;
    return { prompt_ids, completion_ids, logprobs };
}

/* llama.cpp's log-probabilities of the same tokens, and how much better its own choices were. */
async function theirs(model, c) {
    const context = await model.createContext({ contextSize: 256, sequences: 1, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" });
    const ids = [...c.prompt_ids, ...c.completion_ids], from = c.prompt_ids.length - 1;
    const input = ids.slice(0, -1).map((id, i) => i < from ? id : [id, { generateNext: { probabilities: true } }]);
    const out = await context.getSequence().controlledEvaluate(input);
    const result = c.completion_ids.map((id, i) => {
        const p = out[from + i].next.probabilities;
        return { logprob: Math.log(p.get(id)), behind: Math.log(p.values().next().value / p.get(id)) };
    });
    await context.dispose();
    return result;
}

async function checkModel(llama, name, dtype) {
    const file = at(`${name}.${dtype}.gguf`), config = JSON.parse(readFileSync(at(name, "config.json"), "utf8"));
    orl(["export", "--model", at(name), "--out", file, "--dtype", dtype]);
    if (reader) await checkParsed(file, dtype, config);
    if (!llama) return;
    const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
    let worst = 0, behind = 0, tokens = 0;
    for (const text of texts) { // a large vocabulary takes long to load: fewer runs
        const mine = JSON.parse(orl(["encode", "--model", at(name)], text)), other = [...model.tokenize(text, false)];
        check(`${mine}` === `${other}`, `${name}: ids of ${JSON.stringify(text)}: ${mine} / ${other}`);
        if ((config.vocab_size > 1e4 || dtype !== "f32") && text !== texts[0]) continue;
        // llama.cpp does not know Mistral's window of 64, so that its texts stay within it
        const c = continuation(at(name), text, name === "mistral" ? 16 : 96), t = await theirs(model, c);
        t.forEach((x, i) => {
            worst = Math.max(worst, Math.abs(x.logprob - c.logprobs[i]));
            behind = Math.max(behind, x.behind);
        });
        tokens += t.length;
    }
    check(worst <= tolerance[dtype], `${name} ${dtype}: log-probabilities differ by ${worst}`);
    check(behind <= 2 * tolerance[dtype], `${name} ${dtype}: llama.cpp prefers other tokens by ${behind}`);
    if (tokens) console.log(`${name} ${dtype}: ${tokens} tokens, log-probabilities within ${worst.toExponential(2)}, ` +
        `choices within ${behind.toExponential(2)}`);
    await model.dispose();
}

const llama = cpp && await cpp.getLlama({ gpu: false, build: "never", logLevel: "error", progressLogs: false });
for (const name of models)
    for (const dtype of ["f32", "f16", "bf16", "q8_0"]) await checkModel(llama, name, dtype);
finish();
