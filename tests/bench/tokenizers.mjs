// tokenizers.mjs - a peer of bench_tokenizer.c: encodes the texts of a file with an npm package, once for each line on
// standard input, and answers each with its seconds and ids.
//   node tokenizers.mjs NODE_MODULES PEER TEXTS [TOKENIZER.json]      TEXTS: one JSON string a line
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [modules, peer, file, source] = process.argv.slice(2);
const require = createRequire(modules + "/");
const texts = readFileSync(file, "utf8").split("\n").filter(l => l).map(l => JSON.parse(l));
const [name, kind] = peer.split(":");
let encode;
if (name === "gpt-tokenizer") {
    const { encode: f } = require("gpt-tokenizer/encoding/" + kind);
    encode = s => f(s).length;
} else if (name === "ai-tokenizer") {
    const { default: Tokenizer } = require("ai-tokenizer"), t = new Tokenizer(require("ai-tokenizer/encoding/" + kind));
    encode = s => t.encode(s).length;
} else if (name === "tiktoken") {
    const t = require("tiktoken").get_encoding(kind);
    encode = s => t.encode_ordinary(s).length;
} else if (name === "@huggingface/tokenizers") {
    const t = new (require("@huggingface/tokenizers").Tokenizer)(JSON.parse(readFileSync(source, "utf8")), {});
    encode = s => t.encode(s, { add_special_tokens: false }).ids.length;
}
console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
    const began = performance.now(), before = process.cpuUsage();
    let ids = 0;
    for (const s of texts) ids += encode(s);
    const used = process.cpuUsage(before), cpu = (used.user + used.system) / 1e6; // of helping threads too
    console.log(Math.min(cpu, (performance.now() - began) / 1000), ids);
}
