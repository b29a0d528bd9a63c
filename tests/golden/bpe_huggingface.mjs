// bpe_huggingface.mjs - learns the cases of bpe_golden.json, or a text, with Hugging Face's tokenizers (the Rust library).
//
//   npm install tokenizers@0.23                                          in a directory outside
//   cd that directory && node …/tests/golden/bpe_huggingface.mjs         compares the merges of every case
//   … bpe_huggingface.mjs --time FILE                                    learns 30,000 tokens from FILE, says the seconds
//
// The package's trainer has no options: a vocabulary of 30,000, pairs that occur once too, and ids in the order of the
// characters that occur. So it gets the words one a line, cut here by GPT-2's pattern, each byte b as the character
// U+0100 + b: its ids then have the order of the bytes, as ours, and equal counts are decided alike.
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { tmpdir } from "node:os";

const require = createRequire(process.cwd() + "/");
const { Tokenizer, BPE, byteLevelPreTokenizer, whitespaceSplitPreTokenizer } = require("tokenizers");

function learn(file, preTokenizer) {
    const t = new Tokenizer(BPE.empty());
    t.setPreTokenizer(preTokenizer);
    const start = process.hrtime.bigint(), cpu = process.cpuUsage();
    t.train([file]);
    const { user, system } = process.cpuUsage(cpu);
    return { tokenizer: t, wall: Number(process.hrtime.bigint() - start) / 1e9, cpu: (user + system) / 1e6 };
}

function merges(tokenizer, dir) {
    tokenizer.save(join(dir, "theirs.json"), false);
    return JSON.parse(readFileSync(join(dir, "theirs.json"), "utf8")).model.merges.map(m => Array.isArray(m) ? m : m.split(" "));
}

const word = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
const escaped = s => s.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

function lines(text, specials) { // specials: the longest first
    const parts = specials.length ? text.split(new RegExp(specials.map(escaped).join("|"), "u")) : [text];
    const out = [];
    for (const part of parts)
        for (const w of part.match(word) ?? []) {
            const bytes = Buffer.from(w);
            for (let i = 0; i < bytes.length; i += 256)
                out.push([...bytes.subarray(i, i + 256)].map(b => String.fromCodePoint(256 + b)).join(""));
        }
    return out.join("\n") + "\n";
}

if (process.argv[2] === "--time") {
    const { wall, cpu } = learn(process.argv[3], byteLevelPreTokenizer(false));
    console.log(JSON.stringify({ wall, cpu }));
} else {
    const dir = mkdtempSync(join(tmpdir(), "bpe-")), file = join(dir, "words.txt");
    const cases = JSON.parse(readFileSync(join(dirname(fileURLToPath(import.meta.url)), "bpe_golden.json"), "utf8"));
    let bad = 0;
    for (const c of cases.filter(c => c.text)) {
        writeFileSync(file, lines(c.text, [...c.specials].sort((a, b) => b.length - a.length)));
        const theirs = merges(learn(file, whitespaceSplitPreTokenizer()).tokenizer, dir)
            .map(m => m.map(s => Buffer.from([...s].map(ch => ch.codePointAt(0) - 256)).toString("latin1")));
        const spelling = [...c.specials, ...Array.from({ length: 256 }, (_, b) => String.fromCharCode(b))];
        let same = 0;
        for (let i = 0; i + 2 < c.merges.length; i += 3) {
            const [left, right] = [spelling[c.merges[i]], spelling[c.merges[i + 1]]];
            spelling[c.merges[i + 2]] = left + right;
            same += theirs[i / 3]?.[0] === left && theirs[i / 3]?.[1] === right;
        }
        bad += same !== c.merges.length / 3;
        console.log(`${c.name}: ${same} of ${c.merges.length / 3} merges are the same`);
    }
    rmSync(dir, { recursive: true });
    process.exit(bad ? 1 : 0);
}
