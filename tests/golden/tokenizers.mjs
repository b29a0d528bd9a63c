// tokenizers.mjs - makes tokenizer_golden.json: what Hugging Face's tokenizers (the Rust library) and, for the
// vocabularies that are not in the repository, tiktoken and llama-tokenizer-js make of difficult texts.
//
//   cc -I.. test_10_tokenizer.c -o test_10 -lm -lpthread && ./test_10 --make golden     writes the small tokenizers
//   npm install @anush008/tokenizers tiktoken llama-tokenizer-js                        in a directory outside
//   cd that directory && ORL_DATA=… node …/tests/golden/tokenizers.mjs
//
// Sets with "base" work on a small tokenizer committed beside this file, after the replacements named in
// "replace"; sets with "data" on $ORL_DATA/tokenizers/…. ids[i] belongs to strings[i]; null: not compared.
//
//   node …/tests/golden/tokenizers.mjs --fuzz        makes tokenizer_fuzz.json: digests of the ids of 10,000 strings
// of many kinds, made from a seed here and in test_10_tokenizer.c alike. It takes the npm packages above and
// @lenml/tokenizer-{llama2,llama3,llama3_1,gemma3,gemini,gpt4o,gpt35turbo}. Sets with "npm" are compared where $ORL_NPM is that directory's
// node_modules. NFC: the Rust library's is of an older Unicode, so its strings are normalized by node before.
//
// Two more uses, for comparing by hand: --strings OUT N writes N random strings and the fixed ones, one JSON
// string a line; --ids SET|FILE.json STRINGS OUT writes a line of ids for each.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(process.cwd() + "/");
const { Tokenizer } = require("@anush008/tokenizers");
const here = dirname(fileURLToPath(import.meta.url));
const data = process.env.ORL_DATA;

export const fixed = [
    "", " ", "  ", "   ", "a", " a", "a ", "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "don't I'll you've we're he's I'm she'd o'clock 's 't 'LL DON'T I'M YOU'RE ''s '''ll 'ſ 'Ve 'xs",
    "1 12 123 1234 12345 123456 3.14159 1,000,000 ½ ² ③ Ⅷ ٣٤٥ 0x1F 1st",
    "a\nb\r\nc\rd\n\ne\n \n f\t\tg \t h\n\n\n", "\n", "\r\n", " \n", "\n ", "\t", "x\u00a0y\u2003z\u3000w\u0085v\u1680u\u200bt\ufeffs",
    "   leading and trailing   ", "tabs\t and  spaces   mixed    up     here",
    "naïve café über straße Ångström ñandú", "e\u0301 a\u0308 o\u0302\u0323 \u0301\u0301", "Привет, мир! Как дела?", "γειά σου Κόσμε",
    "你好，世界。这是一个测试。", "こんにちは世界 カタカナ", "안녕하세요 세계", "مرحبا بالعالم ١٢٣", "שלום עולם", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก",
    "😀", "👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 🇩🇪 ❤️ ☃", "𝒜𝔅 𐍈 𓀀 🀄 \u{1F600}\u{10FFFF}\u{E0001}", "\u0000\u0001\u001f\u007f\u0080\u009f", "\ufffd\ufffe\uffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "=".repeat(70), " ".repeat(67) + "x", "\n".repeat(33), "ab".repeat(40),
    "!?!?!?...---___***", "{\"key\": [1, 2.5e-3, null], \"ß\": \"\\u00e9\"}", "int main(void) {\n    return 0;\n}\n", "https://example.org/a?b=c&d=%20#e",
    "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|endoftext|", "<|endoftext|><|endoftext|>", "<|endof<|endoftext|>text|>",
    "<|im_start|>user\nHi<|im_end|>\n", "<think>\nwell\n</think>", "<s>", "</s>", "<unk>", "x<s>y</s> z", "<s", "<0x0A>", "▁", "a▁b ▁ c", "Ġ Ċ Ġthe",
    "<|user|> hello <|user|>", "[tool]  x [tool]", "ſ K Å ǅ ʰ ª º ﬁ", "x²y₃ ⅓ 一二三 ㊿", "a\u0301b", "can\u2019t \u201cquote\u201d \u2014 \u2026",
    "MixedCASEWords camelCase snake_case kebab-case", "ends with space ", "(a)(b)[c]{d}<e>", "....   ....", " .", " \n.", "\n.", "a.\n\n b", "?\r\n\r\n!",
    "\u0301", " \u0301x", "'", "''", " '", "' s", "'s's's", "१२३४५६७", "x\u200dy", "1a2b3c", " 1 a", "\u3000\u3000漢字", "ÀÉÎõü", "ΑΒΓ'Σ 'Τ"];

// The same generator everywhere: xorshift32.
export function random_strings(count, seed) {
    let x = seed >>> 0;
    const next = n => { x ^= x << 13; x >>>= 0; x ^= x >>> 17; x ^= x << 5; x >>>= 0; return x % n; };
    const pieces = [" ", "  ", "\n", "\r\n", "\t", "'s", "'ll", "'RE", "'", ".", "...", ",", "-", "the", "The", " of", "ing", "tion", "42", "7", "é", "ß", "ж",
        "字", "ん", "😀", "\u0301", "\u200d", "\u00a0", "\u3000", "\u0085", "<|endoftext|>", "<|user|>", "[tool]", "<|", "|>", "<s>", "_", "²", "Ⅷ", "Å", "ſ", "ก", "ि"];
    const out = [];
    for (let i = 0; i < count; i++) {
        let s = "";
        for (let k = next(14) + 1; k > 0; k--) {
            const kind = next(10);
            if (kind < 6) s += pieces[next(pieces.length)];
            else if (kind < 9) s += String.fromCharCode(97 + next(26)).repeat(1 + (next(8) === 0 ? next(20) : 0));
            else {
                let c = next(next(4) ? 0x3000 : 0x110000);
                s += c >= 0xd800 && c < 0xe000 ? "?" : String.fromCodePoint(c);
            }
        }
        out.push(s);
    }
    return out;
}

const regex = digits => "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" + digits + "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const byte_level = '{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}';
const split = (digits, how) => '{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": ' + JSON.stringify(regex(digits)) + "}, " + how +
    '}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}';
const llama_normalizer = '"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},\n  "pre_tokenizer": null';
const metaspace = scheme => '"normalizer": null,\n  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "' + scheme + '", "split": false}';
const strip = (l, r) => ['"content": "<|user|>", "single_word": false, "lstrip": false, "rstrip": false', '"content": "<|user|>", "single_word": false, "lstrip": ' + l + ', "rstrip": ' + r];

export const small_sets = [
    { name: "gpt2", base: "tokenizer_small.json", replace: [] },
    { name: "llama3", base: "tokenizer_small.json", replace: [[byte_level, split("\\p{N}{1,3}", '"behavior": "Isolated", "invert": false')]] },
    { name: "qwen2", base: "tokenizer_small.json", replace: [[byte_level, split("\\p{N}", '"behavior": "Removed", "invert": true')]] },
    { name: "prefix", base: "tokenizer_small.json", replace: [['"add_prefix_space": false', '"add_prefix_space": true']] },
    { name: "ignore_merges", base: "tokenizer_small.json", replace: [[byte_level, split("\\p{N}{1,3}", '"behavior": "Isolated", "invert": false')], ['"ignore_merges": false', '"ignore_merges": true']] },
    { name: "lstrip", base: "tokenizer_small.json", replace: [strip(true, false)] },
    { name: "rstrip", base: "tokenizer_small.json", replace: [strip(false, true)] },
    { name: "added", base: "tokenizer_small.json", replace: [['"added_tokens": [', '"added_tokens": [{"id": 500, "content": "[tool]", "single_word": false, "lstrip": true, "rstrip": true, "normalized": false, "special": false},']] },
    { name: "sentencepiece", base: "tokenizer_small_sp.json", replace: [] },
    { name: "metaspace_first", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, metaspace("first")]] },
    { name: "metaspace_always", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, metaspace("always")]] },
    { name: "metaspace_never", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, metaspace("never")]] },
    { name: "spanning", base: "tokenizer_small_sp.json", replace: [['"vocab": {', '"vocab": {"e▁": 900,'], ['"merges": [', '"merges": ["e ▁",']] },
    { name: "no_fallback", base: "tokenizer_small_sp.json", replace: [['"byte_fallback": true', '"byte_fallback": false']] },
];

function edited(set) {
    let text = readFileSync(join(here, set.base), "utf8");
    for (const [from, to] of set.replace) {
        if (!text.includes(from)) throw new Error(set.name + ": nothing to replace: " + from);
        text = text.replace(from, () => to);
    }
    return text;
}

async function ids_of(tokenizer, strings) {
    const out = [];
    for (const s of strings) out.push((await tokenizer.encode(s, null, { addSpecialTokens: false })).getIds());
    return out;
}

function gpt2_json() { // the two files of GPT-2 as one tokenizer.json
    const vocab = JSON.parse(readFileSync(join(data, "tokenizers/gpt2/encoder.json"), "utf8"));
    const merges = readFileSync(join(data, "tokenizers/gpt2/vocab.bpe"), "utf8").split("\n").slice(1).filter(l => l);
    return JSON.stringify({
        version: "1.0", truncation: null, padding: null, normalizer: null, post_processor: null, decoder: null,
        added_tokens: [{ id: 50256, content: "<|endoftext|>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }],
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
        model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: "", end_of_word_suffix: "", fuse_unk: false, vocab, merges }
    });
}

export async function data_sets(strings) {
    const sets = [], same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const gpt2 = await ids_of(Tokenizer.fromString(gpt2_json()), strings);
    const other = require("tiktoken").get_encoding("gpt2"); // OpenAI's own: the two must agree
    strings.forEach((s, i) => {
        if (!same(Array.from(other.encode(s, "all")), gpt2[i])) throw new Error("gpt2: disagreement on " + JSON.stringify(s));
    });
    sets.push({ name: "gpt2_real", data: "gpt2", ids: gpt2 });
    const qwen = await ids_of(Tokenizer.fromFile(join(data, "tokenizers/qwen3/tokenizer.json")), strings);
    sets.push({ name: "qwen3_real", data: "qwen3", ids: strings.map((s, i) => s.normalize("NFC") === s ? qwen[i] : null) });
    const { default: llama } = await import(require.resolve("llama-tokenizer-js"));
    sets.push({ name: "llama2_real", data: "llama2/tokenizer.bin", plain: true, ids: strings.map(s => s ? llama.encode(s, false, true) : []) });
    return sets;
}

// ---- digests ----

const many = 10000, seed = 20240607, each = 250;
const pieces = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "'s", "'ll", "'RE", "'", "'\u017f", "''", ".", "...", ",", "-", "!?", "/", "/\n", "_",
    "the", "The", " of", "ing", "tion", " hello", "World", "don't", "HTTPServer", "camelCase", "iPhone", "x", "A", "42", "7", "2024", " 1", "3.14", "é", "ß", "ж",
    "Привет", "字", "你好", "ん", "😀", "👨‍👩‍👧", "🇩🇪", "👩🏽‍🚀", "❤\ufe0f", "\u0301", "\u0308\u0301", "\u0323\u0307", "e\u0301", "A\u030a", "\u212b", "\u1e9b\u0323",
    "\uac00", "\u1100\u1161\u11a8", "\u1100\u1161", "\u0928\u093c", "\u0958", "\u200d", "\u200b", "\ufeff", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028",
    "\u00ad", "\u0000", "\u007f", "\ufffd", "\uffff", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>",
    "<start_of_turn>", "<|", "|>", "<|endoftext", "<0x0A>", "[tool]", "<think>", "<|user|>", "▁", "▁the", "Ġ", "²", "Ⅷ", "٣", "½", "ſ", "ǅ", "ʰ", "ª", "ก",
    "\u093f", "\u1d40", "𝐀", "𐍈", "12345678", "ÀÉ", "\u0301A", "ᾖ", "\u0f73", "\u0344"];

function fuzz_string(next) {
    const style = next(16);
    let s = "";
    if (style === 0) {
        const piece = pieces[next(pieces.length)];
        return piece.repeat(1 + next(next(4) ? 40 : 400));
    }
    for (let k = 1 + next(style < 3 ? 60 : 14); k > 0; k--) {
        const kind = next(12);
        if (kind < 6) s += pieces[next(pieces.length)];
        else if (kind < 8) for (let n = 1 + next(12); n > 0; n--) s += String.fromCharCode(97 + next(26));
        else if (kind === 8) {
            const c = 32 + next(95);
            s += String.fromCharCode(c).repeat(1 + (next(8) === 0 ? next(70) : 0));
        } else {
            const plane = next(8), from = plane === 6 ? 0x10000 : 0;
            const c = from + next(plane < 3 ? 0x250 : plane < 5 ? 0x3100 : plane < 7 ? 0x10000 : 0x110000);
            s += c >= 0xd800 && c < 0xe000 ? "?" : String.fromCodePoint(c);
        }
    }
    return s;
}

function fuzz_strings() {
    let x = seed;
    const next = n => { x ^= x << 13; x >>>= 0; x ^= x >>> 17; x ^= x << 5; x >>>= 0; return x % n; };
    return Array.from({ length: many }, () => fuzz_string(next));
}

function digests(ids) { // FNV-1a over whole ids, and an end for each string
    const out = [];
    ids.forEach((list, i) => {
        if (i % each === 0) out.push(0x811c9dc5);
        for (const id of [...list, 0xffffffff]) out[out.length - 1] = Math.imul(out[out.length - 1] ^ id, 16777619) >>> 0;
    });
    return out;
}

const token = (id, content, flags) => JSON.stringify({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false, ...flags });
const flagged = '"added_tokens": [' + [
    token(500, "<s>", { lstrip: true, normalized: true }), token(501, "</s>", { rstrip: true, special: true }), token(502, "[tool]", { lstrip: true, rstrip: true }),
    token(503, "e\u0301", { normalized: true, single_word: true }), token(504, "\n\n", { rstrip: true }), token(505, "<unk>", { single_word: true, lstrip: true, rstrip: true, normalized: true }),
    token(506, "World", { single_word: true }), token(507, "\u212b", { normalized: true }), token(508, "<|", {})].join(", ") + ",";
const sp_flagged = '"added_tokens": [' + [token(523, " x", { normalized: true, lstrip: true }), token(524, "[tool]", { normalized: true, single_word: true, rstrip: true })].join(", ") + ",";
const nfc = ['"normalizer": null', '"normalizer": {"type": "NFC"}'];
const digit_parts = one => '{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": ' + one + "}, " + byte_level + "]}";
const o200k = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const tekken = o200k.replaceAll("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("\\p{N}{1,3}", "\\p{N}");
const fuzz_sets = [
    ...small_sets,
    { name: "digits", base: "tokenizer_small.json", replace: [[byte_level, digit_parts(true)]] },
    { name: "digit_runs", base: "tokenizer_small.json", replace: [[byte_level, digit_parts(false)]] },
    { name: "o200k", base: "tokenizer_small.json", replace: [[byte_level, split("@", '"behavior": "Removed", "invert": true').replace(JSON.stringify(regex("@")), () => JSON.stringify(o200k))]] },
    { name: "tekken", base: "tokenizer_small.json", replace: [[byte_level, split("@", '"behavior": "Removed", "invert": true').replace(JSON.stringify(regex("@")), () => JSON.stringify(tekken))]] },
    { name: "nfc", base: "tokenizer_small.json", nfc: true, replace: [nfc, [byte_level, split("\\p{N}", '"behavior": "Isolated", "invert": false')]] },
    { name: "flags", base: "tokenizer_small.json", replace: [['"added_tokens": [', flagged]] },
    { name: "flags_nfc", base: "tokenizer_small.json", nfc: true, replace: [['"added_tokens": [', flagged], nfc] },
    { name: "metaspace_split", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, metaspace("first").replace('"split": false', '"split": true')]] },
    { name: "metaspace_default", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, '"normalizer": null, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}']] },
    { name: "sp_normalized", base: "tokenizer_small_sp.json", replace: [['"normalized": false', '"normalized": true'], ['"added_tokens": [', sp_flagged]] },
    { name: "gemma", base: "tokenizer_small_sp.json", replace: [[llama_normalizer, '"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},\n  "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}'], [', {"type": "Strip", "content": " ", "start": 1, "stop": 0}', ""]] },
    { name: "no_fusing", base: "tokenizer_small_sp.json", replace: [['"byte_fallback": true', '"byte_fallback": false'], ['"fuse_unk": true', '"fuse_unk": false']] },
    { name: "gpt2_real", data: "gpt2" },
    { name: "qwen3_real", data: "qwen3", nfc: true },
    { name: "llama2_bin_real", data: "llama2/tokenizer.bin", plain: true },
    ...["llama2", "llama3", "llama3_1", "gemma3", "gemini", "gpt4o", "gpt35turbo"].map(name => ({ name, npm: "@lenml/tokenizer-" + name + "/models" })),
    ...["cl100k_base", "o200k_base", "p50k_base", "gpt2"].map(name => ({ name: "ranks_" + name, ranks: name })),
];

async function fuzz_ids(set, strings) {
    const modules = join(process.cwd(), "node_modules");
    if (set.nfc) strings = strings.map(s => s.normalize("NFC"));
    if (set.base) return ids_of(Tokenizer.fromString(edited(set)), strings);
    if (set.npm) return ids_of(Tokenizer.fromFile(join(modules, set.npm, "tokenizer.json")), strings);
    if (set.data === "gpt2") return ids_of(Tokenizer.fromString(gpt2_json()), strings);
    if (set.data === "qwen3") return ids_of(Tokenizer.fromFile(join(data, "tokenizers/qwen3/tokenizer.json")), strings);
    if (set.ranks) {
        const encoding = require("tiktoken").get_encoding(set.ranks);
        return strings.map(s => Array.from(encoding.encode(s, "all")));
    }
    const { default: llama } = await import(require.resolve("llama-tokenizer-js"));
    return strings.map(s => s ? llama.encode(s, false, true) : []);
}

async function make_fuzz() {
    const strings = fuzz_strings(), lines = [];
    for (const set of fuzz_sets) lines.push(JSON.stringify({ ...set, digests: digests(await fuzz_ids(set, strings)) }));
    writeFileSync(join(here, "tokenizer_fuzz.json"), JSON.stringify({ seed, strings: many, each, pieces }).slice(0, -1) + ',\n"sets": [\n' + lines.join(",\n") + "]}\n");
}

const strings = fixed.concat(random_strings(40, 12345));
if (process.argv[2] === "--fuzz") {
    await make_fuzz();
} else if (process.argv[2] === "--strings") {
    writeFileSync(process.argv[3], random_strings(+process.argv[4], 99).concat(fixed).map(s => JSON.stringify(s)).join("\n") + "\n");
} else if (process.argv[2] === "--ids") { // --ids SET strings out: one line of ids a string
    const list = readFileSync(process.argv[4], "utf8").split("\n").filter(l => l).map(l => JSON.parse(l));
    const small = small_sets.find(s => s.name === process.argv[3]);
    const ids = small ? await ids_of(Tokenizer.fromString(edited(small)), list)
        : process.argv[3].endsWith(".json") ? await ids_of(Tokenizer.fromFile(process.argv[3]), list)
        : (await data_sets(list)).find(s => s.name === process.argv[3]).ids;
    writeFileSync(process.argv[5], ids.map(i => JSON.stringify(i)).join("\n") + "\n");
} else {
    const sets = [];
    for (const set of small_sets) sets.push({ ...set, ids: await ids_of(Tokenizer.fromString(edited(set)), strings) });
    if (data) sets.push(...await data_sets(strings));
    const lines = list => "[\n" + list.map(x => JSON.stringify(x)).join(",\n") + "]";
    writeFileSync(join(here, "tokenizer_golden.json"), '{"strings": ' + lines(strings) + ',\n"sets": [' + sets.map(({ ids, ...rest }) =>
        JSON.stringify(rest).slice(0, -1) + ',"ids":[' + ids.map(i => JSON.stringify(i)).join(",") + "]}").join(",\n") + "]}\n");
}
