// templates.mjs - makes templates.json: what published chat templates make of made-up dialogues.
//
//   npm install @huggingface/jinja                        in a directory outside, with NAME.jinja files beside it:
//   cd that directory && node …/tests/golden/templates.mjs
//
// NAME.jinja is the chat_template of tokenizer_config.json of one of the models named below. They are not kept here.
// Each case: the template, the messages as JSON, the whole text, and the text up to where an answer is waited for
// (the last message taken away if it is the assistant's, with the generation prompt).
import { createRequire } from "node:module";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(process.cwd() + "/");
const { Template } = require("@huggingface/jinja");

const models = {
    chatml: { of: "transformers' own, before models brought theirs" },
    llama2: { of: "meta-llama/Llama-2-7b-chat-hf", bos_token: "<s>", eos_token: "</s>" },
    llama3: { of: "meta-llama/Meta-Llama-3-8B-Instruct", bos_token: "<|begin_of_text|>", eos_token: "<|eot_id|>" },
    qwen: { of: "Qwen/Qwen2.5-7B-Instruct" },
    qwen3: { of: "Qwen/Qwen3-0.6B", enable_thinking: false },
    zephyr: { of: "HuggingFaceH4/zephyr-7b-beta", eos_token: "</s>" },
    alpaca: { of: "chujiezheng/chat_templates, alpaca.jinja without its indentation", bos_token: "<s>", eos_token: "</s>" },
    gemma: { of: "google/gemma-3-1b-it; of gemma-7b-it too where there is no system message", bos_token: "<bos>" },
    mistral: { of: "mistralai/Mistral-7B-Instruct-v0.2", bos_token: "<s>", eos_token: "</s>" },
};

const system = { role: "system", content: "Answer like a sailor." };
const user = content => ({ role: "user", content });
const assistant = content => ({ role: "assistant", content });
const dialogues = [
    [user("What is a knot?")],
    [user("What is a knot?"), assistant("A mile an hour, at sea.")],
    [system, user("What is a knot?")],
    [system, user("What is a knot?"), assistant("A mile an hour, at sea.")],
    [user("Hi"), assistant("Ahoy!"), user("Is it windy?"), assistant("It blows from the west.")],
    [system, user("Hi"), assistant("Ahoy!"), user("Is it windy?"), assistant("It blows."), user("How hard?")],
    [system, user(" two lines,\nblanks around \n"), assistant("\t an answer\u00a0\n\nof two \n "), user("\n?\n"), assistant(" ! ")],
    [{ role: "system", content: "  Be\nbrief. \n" }, user("  naïve 世界 "), assistant("😀 [INST] ### Response:")],
    [user("")],
    [system, user("")],
    [user("\n"), assistant("x")],
];

const out = [];
for (const [name, { of, ...given }] of Object.entries(models)) {
    if (!existsSync(name + ".jinja")) throw new Error(`${name}.jinja is not here: the chat_template of ${of}`);
    const template = new Template(readFileSync(name + ".jinja", "utf8"));
    const render = (messages, add_generation_prompt) =>
        template.render({ bos_token: "", eos_token: "", ...given, messages, add_generation_prompt });
    for (const messages of dialogues) {
        // this lstrip("\n") takes blanks too, which that of Python, for which Qwen 3's template was written, does not
        if (name === "qwen3" && /^ /.test(messages.at(-1).content)) continue;
        const answered = messages.at(-1).role === "assistant";
        out.push({ template: name, messages, text: render(messages, !answered), prompt: render(answered ? messages.slice(0, -1) : messages, true) });
    }
}
writeFileSync(join(dirname(fileURLToPath(import.meta.url)), "templates.json"), "[" + out.map(c => JSON.stringify(c)).join(",\n") + "]\n");
