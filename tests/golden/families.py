#!/usr/bin/env python3
"""families.py - golden values for every model family, from an implementation that shares nothing with the library.

Each family is written here from its definition, in plain PyTorch and double precision: what a config.json means, the
forward pass, logits, the negative log-likelihood with its gradients, greedy continuations, scores of reward models.
The script writes families/NAME.json, one for each variant below; tests/test_11_families.c compares the library with
them and needs neither Python nor PyTorch. To make the files again:

    python3 tests/golden/families.py         (Debian: apt install python3-torch; about 5 seconds)

And to see whether what the library saves means the same to another reader, after a run of the test that was told to
keep it (ORL_FAMILIES_OUT=DIR build/test/test_11_families):

    python3 tests/golden/families.py --saved DIR

No weights are kept: both sides compute them. Number i of the tensor called `name` is

    offset + (top `bits` bits of mix(fnv1a(name), i) - 2^(bits - 1)) * 2^exponent

which is exact in the element type of the file. A golden file has, by key:

    config      the text of config.json
    dtype       of the tensors on disk: F32, BF16 or F16
    strip       what stands before a tensor's name below, and not in the file ("" if nothing)
    shards      in how many files the tensors lie
    tensors     rows [name, [shape], bits, exponent, offset, |g|, g·r0, g·r1, g·r2, g·r3]: where g is the gradient of
                the summed NLL (of a reward model: of the summed scores), r_k numbers 24 bits wide in [-1, 1) of the
                tensor called name#k
    buffers     rows [name, dtype, [shape]]: in the file, but no weights; to be ignored
    sequences   token ids; columns: which logits are kept
    logits      one row for each token of each sequence; logsumexp: over all columns, one for each row
    nll         mean over the tokens that are predicted
    greedy      prompt, the tokens that follow it at temperature 0, their log-probability
    score       of a reward model, one for each sequence
"""
import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

LENGTHS = 41, 14  # tokens of the two sequences: past every window, and past whole tiles that a window hides
GREEDY_PROMPT, GREEDY_TOKENS, GREEDY_MARGIN = 6, 24, 0.02
COLUMNS = 8


# ---- numbers that C makes too --------------------------------------------------------------------------------------

def mixed(name, count, bits):
    """`bits` bits each: FNV-1a of the name, then a splitmix64 step for each index."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(64 - bits)).astype(np.int64) - (1 << (bits - 1))


SIGNIFICANT = dict(F32=24, BF16=8, F16=11)


def numbers(name, shape, bits, exponent, offset, dtype):
    x = offset + mixed(name, int(np.prod(shape)), bits) * 2.0 ** exponent
    mantissa, _ = np.frexp(x)
    assert np.all(mantissa * 2.0 ** SIGNIFICANT[dtype] % 1 == 0), name  # exact in that type
    assert dtype != "F16" or exponent >= -14, name                    # and none of them subnormal
    return x.reshape(shape)


# ---- the parts -----------------------------------------------------------------------------------------------------

def attend(q, k, v, scale, window):
    """q: (heads, T, head_dim), k, v: (kv heads, T, head_dim). Token i sees j with i - window < j <= i."""
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
    i, j = torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None, :]
    seen = j <= i if window is None else (j <= i) & (j > i - window)
    a = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, -math.inf)
    return (torch.softmax(a, -1) @ v).transpose(0, 1).reshape(q.shape[1], -1)


def split_heads(x, heads):
    return x.view(x.shape[0], heads, -1).transpose(0, 1)


def frequencies(theta, size, scaling):
    """Of the size/2 rotating pairs; scaling: None, ("linear", factor) or ("llama3", factor, low, high, length)."""
    f = theta ** (-2.0 * torch.arange(size // 2) / size)
    if scaling is None:
        return f
    if scaling[0] == "linear":
        return f / scaling[1]
    _, factor, low, high, length = scaling
    out = []
    for x in f.tolist():
        wave = 2 * math.pi / x
        smooth = (length / wave - low) / (high - low)
        out.append(x / factor if wave > length / low else x if wave < length / high
                   else (1 - smooth) * x / factor + smooth * x)
    return torch.tensor(out)


def rotate(x, freq):
    """The first 2·len(freq) numbers of each head turn: pairs (i, i + len(freq)). x: (heads, T, head_dim)."""
    n = len(freq)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * freq[None, :]
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b = x[..., :n], x[..., n:2 * n]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., 2 * n:]], -1)


def gelu_exact(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATION = dict(silu=F.silu, gelu=gelu_exact, gelu_new=gelu_tanh, gelu_pytorch_tanh=gelu_tanh)


class Weights:
    """Parameters by name below a prefix; the functions apply them."""

    def __init__(self, p, prefix=""):
        self.p, self.prefix = p, prefix

    def below(self, more):
        return Weights(self.p, self.prefix + more)

    def __getitem__(self, name):
        return self.p[self.prefix + name]

    def get(self, name):
        return self.p.get(self.prefix + name)

    def linear(self, x, name):
        y, b = x @ self[name + ".weight"].T, self.get(name + ".bias")
        return y if b is None else y + b

    def conv1d(self, x, name):  # (in, out)
        return x @ self[name + ".weight"] + self[name + ".bias"]

    def layer_norm(self, x, name, eps):
        m = x.mean(-1, keepdim=True)
        s = ((x - m) ** 2).mean(-1, keepdim=True)
        return (x - m) / torch.sqrt(s + eps) * self[name + ".weight"] + self[name + ".bias"]

    def rms_norm(self, x, name, eps, plus=0.0):
        return x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + eps) * (plus + self[name + ".weight"])


def first(*values):
    """The first that is not None."""
    return next((x for x in values if x is not None), None)


def rope_of(c, default_theta, rules=None):
    """theta and scaling of a config.json, in its older and newer spelling: rope_scaling, beside which rope_theta
    stands, or rope_parameters, which hold it."""
    rules = dict(first(rules, c.get("rope_scaling"), c.get("rope_parameters"), {}))
    theta = first(rules.get("rope_theta"), c.get("rope_theta"), default_theta)
    kind = first(rules.get("rope_type"), rules.get("type"), "default")
    scaling = {"default": None}
    if kind == "linear":
        scaling[kind] = ("linear", rules["factor"])
    if kind == "llama3":
        scaling[kind] = ("llama3", rules["factor"], rules["low_freq_factor"], rules["high_freq_factor"],
                         rules.get("original_max_position_embeddings", c.get("max_position_embeddings")))
    return theta, scaling[kind]


# ---- the families: the hidden state after the last norm; the head's matrix ---------------------------------------

def gpt2_hidden(p, c, ids):
    w, eps, heads = Weights(p, "transformer."), c.get("layer_norm_epsilon", 1e-5), c["n_head"]
    x = w["wte.weight"][ids] + w["wpe.weight"][:len(ids)]
    for i in range(c["n_layer"]):
        h = w.below("h.%d." % i)
        q, k, v = (split_heads(y, heads) for y in h.conv1d(h.layer_norm(x, "ln_1", eps), "attn.c_attn").chunk(3, 1))
        scale = q.shape[2] ** -0.5 if c.get("scale_attn_weights", True) else 1.0
        if c.get("scale_attn_by_inverse_layer_idx", False):
            scale /= i + 1
        x = x + h.conv1d(attend(q, k, v, scale, None), "attn.c_proj")
        x = x + h.conv1d(gelu_tanh(h.conv1d(h.layer_norm(x, "ln_2", eps), "mlp.c_fc")), "mlp.c_proj")
    return w.layer_norm(x, "ln_f", eps)


def gpt_neo_hidden(p, c, ids):
    """Scores are not divided by anything; every other layer of the default pattern sees a window."""
    w, eps, heads = Weights(p, "transformer."), c.get("layer_norm_epsilon", 1e-5), c["num_heads"]
    kinds = [kind for pattern, times in c["attention_types"] for kind in pattern * times]
    assert len(kinds) == c["num_layers"]
    x = w["wte.weight"][ids] + w["wpe.weight"][:len(ids)]
    for i, kind in enumerate(kinds):
        h = w.below("h.%d." % i)
        n = h.layer_norm(x, "ln_1", eps)
        q, k, v = (split_heads(h.linear(n, "attn.attention.%s_proj" % y), heads) for y in "qkv")
        a = attend(q, k, v, 1.0, c.get("window_size", 256) if kind == "local" else None)
        x = x + h.linear(a, "attn.attention.out_proj")
        x = x + h.linear(gelu_tanh(h.linear(h.layer_norm(x, "ln_2", eps), "mlp.c_fc")), "mlp.c_proj")
    return w.layer_norm(x, "ln_f", eps)


def gpt_neox_hidden(p, c, ids):
    w, eps, heads = Weights(p, "gpt_neox."), c.get("layer_norm_eps", 1e-5), c["num_attention_heads"]
    size = c["hidden_size"] // heads
    theta, scaling = rope_of(c, first(c.get("rotary_emb_base"), 10000.0))
    part = (c.get("rope_parameters") or {}).get("partial_rotary_factor", c.get("rotary_pct", 0.25))
    freq = frequencies(theta, int(size * part), scaling)
    act = ACTIVATION[c.get("hidden_act", "gelu")]
    x = w["embed_in.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        h = w.below("layers.%d." % i)
        fused = h.linear(h.layer_norm(x, "input_layernorm", eps), "attention.query_key_value")
        q, k, v = fused.view(len(ids), heads, 3, size).permute(2, 1, 0, 3)  # a head's q, k and v follow each other
        a = h.linear(attend(rotate(q, freq), rotate(k, freq), v, size ** -0.5, None), "attention.dense")
        before = x if c.get("use_parallel_residual", True) else x + a
        m = act(h.linear(h.layer_norm(before, "post_attention_layernorm", eps), "mlp.dense_h_to_4h"))
        x = x + a + h.linear(m, "mlp.dense_4h_to_h")
    return w.layer_norm(x, "final_layer_norm", eps)


def llama_layers(c):
    """(rotates?, window) of each layer, for the families that are Llama with a little more."""
    family, n = c["model_type"], c["num_hidden_layers"]
    rotates, window = [True] * n, [None] * n
    if family == "mistral":
        window = [c.get("sliding_window", 4096)] * n
    if family == "smollm3":
        every = c.get("no_rope_layer_interval", 4)
        marks = first(c.get("no_rope_layers"), [(i + 1) % every for i in range(n)])
        rotates = [bool(x) for x in marks]
    if family in ("qwen2", "qwen3", "smollm3"):
        width = c.get("sliding_window", None if family == "smollm3" else 4096)
        if not c.get("use_sliding_window", False) and not (family == "smollm3" and c.get("layer_types")):
            width = None
        slides = [not r for r in rotates] if family == "smollm3" else [i >= c.get("max_window_layers", 28)
                                                                       for i in range(n)]
        if c.get("layer_types") is not None:
            slides = [kind == "sliding_attention" for kind in c["layer_types"]]
        window = [width if s else None for s in slides]
    return list(zip(rotates, window))


def llama_hidden(p, c, ids):
    """Llama, Mistral, Qwen2, Qwen3, SmolLM3. Biases and norms of heads are used where the tensors exist."""
    w, eps, heads = Weights(p, "model."), c.get("rms_norm_eps", 1e-6), c["num_attention_heads"]
    kv_heads = first(c.get("num_key_value_heads"), heads)
    theta, scaling = rope_of(c, 2e6 if c["model_type"] == "smollm3" else 10000.0)
    x = w["embed_tokens.weight"][ids]
    for i, (rotates, window) in enumerate(llama_layers(c)):
        h = w.below("layers.%d." % i)
        n = h.rms_norm(x, "input_layernorm", eps)
        q = split_heads(h.linear(n, "self_attn.q_proj"), heads)
        k, v = (split_heads(h.linear(n, "self_attn.%s_proj" % y), kv_heads) for y in "kv")
        assert q.shape[2] == first(c.get("head_dim"), c["hidden_size"] // heads)
        if c["model_type"] == "qwen3":
            q, k = h.rms_norm(q, "self_attn.q_norm", eps), h.rms_norm(k, "self_attn.k_norm", eps)
        if rotates:
            freq = frequencies(theta, q.shape[2], scaling)
            q, k = rotate(q, freq), rotate(k, freq)
        x = x + h.linear(attend(q, k, v, q.shape[2] ** -0.5, window), "self_attn.o_proj")
        n = h.rms_norm(x, "post_attention_layernorm", eps)
        x = x + h.linear(F.silu(h.linear(n, "mlp.gate_proj")) * h.linear(n, "mlp.up_proj"), "mlp.down_proj")
    return w.rms_norm(x, "norm", eps)


def gemma3_hidden(p, c, ids):
    """Every norm multiplies by 1 + w, and one stands before and one behind each half of a block."""
    w, eps, heads, layers = Weights(p, "model."), c.get("rms_norm_eps", 1e-6), c["num_attention_heads"], \
        c["num_hidden_layers"]
    every = c.get("sliding_window_pattern", 6)
    kinds = first(c.get("layer_types"),
                  ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)])
    rules = c.get("rope_parameters") or {}
    rope = dict(full_attention=rope_of(c, 1e6, first(c.get("rope_scaling"), rules.get("full_attention"), {})),
                sliding_attention=rope_of(dict(rope_theta=c.get("rope_local_base_freq")), 1e4,
                                          rules.get("sliding_attention", {})))
    x = w["embed_tokens.weight"][ids] * float(np.float32(math.sqrt(c["hidden_size"])))  # the root is a float there
    for i, kind in enumerate(kinds):
        h = w.below("layers.%d." % i)
        n = h.rms_norm(x, "input_layernorm", eps, 1)
        q = split_heads(h.linear(n, "self_attn.q_proj"), heads)
        k, v = (split_heads(h.linear(n, "self_attn.%s_proj" % y), c["num_key_value_heads"]) for y in "kv")
        q, k = h.rms_norm(q, "self_attn.q_norm", eps, 1), h.rms_norm(k, "self_attn.k_norm", eps, 1)
        theta, scaling = rope[kind]
        freq = frequencies(theta, c["head_dim"], scaling)
        a = attend(rotate(q, freq), rotate(k, freq), v, c["query_pre_attn_scalar"] ** -0.5,
                   c["sliding_window"] if kind == "sliding_attention" else None)
        x = x + h.rms_norm(h.linear(a, "self_attn.o_proj"), "post_attention_layernorm", eps, 1)
        n = h.rms_norm(x, "pre_feedforward_layernorm", eps, 1)
        m = h.linear(gelu_tanh(h.linear(n, "mlp.gate_proj")) * h.linear(n, "mlp.up_proj"), "mlp.down_proj")
        x = x + h.rms_norm(m, "post_feedforward_layernorm", eps, 1)
    return w.rms_norm(x, "norm", eps, 1)


FAMILIES = {  # hidden state, the embedding, the head where it is not tied, tied by default
    "gpt2": (gpt2_hidden, "transformer.wte.weight", "lm_head.weight", True),
    "gpt_neo": (gpt_neo_hidden, "transformer.wte.weight", "lm_head.weight", True),
    "gpt_neox": (gpt_neox_hidden, "gpt_neox.embed_in.weight", "embed_out.weight", False),
    "gemma3_text": (gemma3_hidden, "model.embed_tokens.weight", "lm_head.weight", True),
    "smollm3": (llama_hidden, "model.embed_tokens.weight", "lm_head.weight", True),
    "llama": (llama_hidden, "model.embed_tokens.weight", "lm_head.weight", False),
    "mistral": (llama_hidden, "model.embed_tokens.weight", "lm_head.weight", False),
    "qwen2": (llama_hidden, "model.embed_tokens.weight", "lm_head.weight", False),
    "qwen3": (llama_hidden, "model.embed_tokens.weight", "lm_head.weight", False)}


def is_tied(c):
    return c.get("tie_word_embeddings", FAMILIES[c["model_type"]][3])


def logits(p, c, ids):
    hidden, embedding, head, _ = FAMILIES[c["model_type"]]
    return hidden(p, c, ids) @ p[embedding if is_tied(c) else head].T


def nll(p, c, sequences):
    """Sum over all tokens but the first of each sequence."""
    total = 0
    for ids in sequences:
        logp = torch.log_softmax(logits(p, c, ids)[:-1], -1)
        total = total - logp.gather(1, torch.tensor(ids[1:])[:, None]).sum()
    return total


def score(p, c, ids):
    return FAMILIES[c["model_type"]][0](p, c, ids)[-1] @ p["score.weight"][0]


# ---- tensors of each family: name → (shape, kind); the kind gives the numbers' size ------------------------------

def block(out, base, norms, linears):
    """norms: names with their parts and size; linears: name, (out, in), bias?"""
    for name, size, bias in norms:
        out[base + name + ".weight"] = ((size,), "norm")
        if bias:
            out[base + name + ".bias"] = ((size,), "bias")
    for name, shape, bias in linears:
        out[base + name + ".weight"] = (shape, "linear")
        if bias:
            out[base + name + ".bias"] = ((bias,), "bias")


def tensors_of(c, reward):
    family, out = c["model_type"], {}
    if family in ("gpt2", "gpt_neo"):
        d, layers = (c["n_embd"], c["n_layer"]) if family == "gpt2" else (c["hidden_size"], c["num_layers"])
        ffn = first(c.get("n_inner"), c.get("intermediate_size"), 4 * d)
        out["transformer.wte.weight"] = ((c["vocab_size"], d), "embedding")
        out["transformer.wpe.weight"] = ((c.get("n_positions", c.get("max_position_embeddings")), d), "embedding")
        for i in range(layers):
            base = "transformer.h.%d." % i
            norms = [("ln_1", d, True), ("ln_2", d, True)]
            if family == "gpt2":  # (in, out)
                block(out, base, norms, [("attn.c_attn", (d, 3 * d), 3 * d), ("attn.c_proj", (d, d), d),
                                         ("mlp.c_fc", (d, ffn), ffn), ("mlp.c_proj", (ffn, d), d)])
            else:
                qkv = [("attn.attention.%s_proj" % x, (d, d), 0) for x in "qkv"]
                block(out, base, norms, qkv + [("attn.attention.out_proj", (d, d), d), ("mlp.c_fc", (ffn, d), ffn),
                                               ("mlp.c_proj", (d, ffn), d)])
        block(out, "transformer.", [("ln_f", d, True)], [])
    elif family == "gpt_neox":
        d, ffn, bias = c["hidden_size"], c["intermediate_size"], c.get("attention_bias", True)
        out["gpt_neox.embed_in.weight"] = ((c["vocab_size"], d), "embedding")
        for i in range(c["num_hidden_layers"]):
            block(out, "gpt_neox.layers.%d." % i,
                  [("input_layernorm", d, True), ("post_attention_layernorm", d, True)],
                  [("attention.query_key_value", (3 * d, d), bias and 3 * d), ("attention.dense", (d, d), bias and d),
                   ("mlp.dense_h_to_4h", (ffn, d), ffn), ("mlp.dense_4h_to_h", (d, ffn), d)])
        block(out, "gpt_neox.", [("final_layer_norm", d, True)], [])
    else:
        d, ffn, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
        kv_heads, size = first(c.get("num_key_value_heads"), heads), first(c.get("head_dim"), d // heads)
        q, kv = heads * size, kv_heads * size
        attention, mlp = c.get("attention_bias", False), c.get("mlp_bias", False)
        biased = attention or family == "qwen2"
        norms = [("input_layernorm", d, False), ("post_attention_layernorm", d, False)]
        if family == "gemma3_text":
            norms += [("pre_feedforward_layernorm", d, False), ("post_feedforward_layernorm", d, False)]
        if family in ("qwen3", "gemma3_text"):
            norms += [("self_attn.q_norm", size, False), ("self_attn.k_norm", size, False)]
        out["model.embed_tokens.weight"] = ((c["vocab_size"], d), "embedding")
        for i in range(c["num_hidden_layers"]):
            block(out, "model.layers.%d." % i, norms,
                  [("self_attn.q_proj", (q, d), biased and q), ("self_attn.k_proj", (kv, d), biased and kv),
                   ("self_attn.v_proj", (kv, d), biased and kv), ("self_attn.o_proj", (d, q), attention and d),
                   ("mlp.gate_proj", (ffn, d), mlp and ffn), ("mlp.up_proj", (ffn, d), mlp and ffn),
                   ("mlp.down_proj", (d, ffn), mlp and d)])
        block(out, "model.", [("norm", d, False)], [])
    if reward:
        out["score.weight"] = ((1, d), "linear")
    elif not is_tied(c):
        out[FAMILIES[family][2]] = ((c["vocab_size"], d), "linear")
    return out


def coded(c, name, shape, kind, dtype):
    """(bits, exponent, offset): matrices ±1/2, embeddings ±1/2 (Gemma's, which are scaled: ±1/8), norms around one
    (Gemma's, which are added to one: around zero) ±1/2, biases ±1/4. GPT-Neo's queries and keys are smaller, for
    its scores are not divided."""
    size = dict(linear=-1, embedding=-1, norm=-1, bias=-2)[kind]
    gemma = c["model_type"] == "gemma3_text"
    if gemma and kind == "embedding":
        size = -3
    if c["model_type"] == "gpt_neo" and (".q_proj." in name or ".k_proj." in name):
        size = -2
    offset = 1.0 if kind == "norm" and not gemma else 0.0
    bits = dict(F32=20, BF16=8, F16=11)[dtype] - (2 if offset else 0)
    return bits, size - (bits - 1), offset


# ---- the variants --------------------------------------------------------------------------------------------------

def gpt_neo_buffers(c):
    p, rows = c["max_position_embeddings"], []
    for i in range(c["num_layers"]):
        rows += [["transformer.h.%d.attn.attention.bias" % i, "BOOL", [1, 1, p, p]],
                 ["transformer.h.%d.attn.attention.masked_bias" % i, "F32", []]]
    return rows


def gpt_neox_buffers(c):
    p, rows = c["max_position_embeddings"], []
    for i in range(c["num_hidden_layers"]):
        rows += [["gpt_neox.layers.%d.attention.bias" % i, "U8", [1, 1, p, p]],
                 ["gpt_neox.layers.%d.attention.masked_bias" % i, "F32", []],
                 ["gpt_neox.layers.%d.attention.rotary_emb.inv_freq" % i, "F32",
                  [int(c["hidden_size"] // c["num_attention_heads"] * c["rotary_pct"]) // 2]]]
    return rows


def llama_buffers(c):
    half = first(c.get("head_dim"), c["hidden_size"] // c["num_attention_heads"]) // 2
    return [["model.layers.%d.self_attn.rotary_emb.inv_freq" % i, "F32", [half]]
            for i in range(c["num_hidden_layers"])]


def gpt2_buffers(c):
    p = c["n_positions"]
    return [["transformer.h.%d.attn.bias" % i, "F32", [1, 1, p, p]] for i in range(c["n_layer"])]


class Variant:
    def __init__(self, config, dtype="F32", strip="", shards=1, buffers=None):
        self.config, self.dtype, self.strip, self.shards, self.buffers = config, dtype, strip, shards, buffers


def neo(**more):
    return dict(architectures=["GPTNeoForCausalLM"], model_type="gpt_neo", activation_function="gelu_new",
                attention_dropout=0, embed_dropout=0, resid_dropout=0, layer_norm_epsilon=1e-05,
                bos_token_id=None, eos_token_id=None, initializer_range=0.02, torch_dtype="float32", **more)


def neox(**more):
    return dict(architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox", hidden_act="gelu", bos_token_id=None,
                eos_token_id=None, initializer_range=0.02, use_cache=True, **more)


def like_llama(family, name, **more):
    return dict(architectures=[name + "ForCausalLM"], model_type=family, hidden_act="silu", bos_token_id=None,
                eos_token_id=None, attention_dropout=0.0, initializer_range=0.02, use_cache=True, **more)


def gemma(**more):
    return dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh",
                attention_bias=False, attention_dropout=0.0, attn_logit_softcapping=None, bos_token_id=None,
                eos_token_id=None, final_logit_softcapping=None, **more)


def reward(config, name):
    config = dict(config, architectures=[name], num_labels=1, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    return config


NEOX_A = neox(vocab_size=53, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
              max_position_embeddings=64, layer_norm_eps=1e-05, rotary_pct=0.25, rotary_emb_base=10000,
              use_parallel_residual=True, tie_word_embeddings=False, torch_dtype="float16")
GEMMA_B = gemma(vocab_size=61, hidden_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                head_dim=8, intermediate_size=44, max_position_embeddings=96, rms_norm_eps=1e-06,
                query_pre_attn_scalar=8,
                sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=50000.0),
                                     sliding_attention=dict(rope_type="default", rope_theta=1000.0)),
                tie_word_embeddings=True, use_bidirectional_attention=False, dtype="float32")

VARIANTS = {
    # TinyStories' kind: both lists of kinds, no intermediate_size, masks in the file
    "gpt_neo_tied": Variant(
        neo(vocab_size=53, hidden_size=24, num_layers=4, num_heads=3, intermediate_size=None,
            max_position_embeddings=64, attention_types=[[["global", "local"], 2]],
            attention_layers=["global", "local", "global", "local"], window_size=6, use_cache=True),
        buffers=gpt_neo_buffers),
    "gpt_neo_untied": Variant(
        neo(vocab_size=47, hidden_size=20, num_layers=3, num_heads=5, intermediate_size=36,
            max_position_embeddings=48, attention_types=[[["global"], 1], [["local"], 2]], window_size=9,
            tie_word_embeddings=False), strip="transformer."),
    # Pythia's kind, in float16 as published
    "gpt_neox_parallel": Variant(NEOX_A, dtype="F16", buffers=gpt_neox_buffers),
    "gpt_neox_sequential": Variant(
        neox(vocab_size=59, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=52,
             max_position_embeddings=48, layer_norm_eps=1e-06, use_parallel_residual=False, attention_bias=True,
             rope_parameters=dict(rope_type="default", rope_theta=500, partial_rotary_factor=0.5),
             tie_word_embeddings=False, dtype="float32")),
    "gpt_neox_bare": Variant(  # no biases in attention, all of the head turns, tied
        neox(vocab_size=51, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
             max_position_embeddings=48, rotary_pct=1.0, rotary_emb_base=10000, attention_bias=False,
             rope_scaling=dict(type="linear", factor=2.0), tie_word_embeddings=True)),
    "llama_linear": Variant(
        like_llama("llama", "Llama", vocab_size=59, hidden_size=36, num_hidden_layers=2, num_attention_heads=6,
                   num_key_value_heads=2, intermediate_size=44, max_position_embeddings=64, rms_norm_eps=1e-05,
                   rope_theta=20000.0, rope_scaling=dict(type="linear", factor=2.5), pretraining_tp=1,
                   attention_bias=False, mlp_bias=False, tie_word_embeddings=False, torch_dtype="float32"),
        buffers=llama_buffers),
    "llama_llama3": Variant(  # heads wider than hidden_size / heads; waves on all three sides of the rule
        like_llama("llama", "Llama", vocab_size=53, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=10, intermediate_size=40, max_position_embeddings=128,
                   rms_norm_eps=1e-05, attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
                   rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                                        high_freq_factor=4.0, original_max_position_embeddings=64),
                   dtype="float32")),
    "llama_bias": Variant(  # rms_norm_eps absent: 1e-6; num_key_value_heads null; in bfloat16
        like_llama("llama", "Llama", vocab_size=50, hidden_size=30, num_hidden_layers=2, num_attention_heads=5,
                   num_key_value_heads=None, head_dim=None, intermediate_size=28, max_position_embeddings=64,
                   rope_theta=10000.0, rope_scaling=None, attention_bias=True, mlp_bias=True,
                   tie_word_embeddings=False, torch_dtype="bfloat16"), dtype="BF16"),
    "mistral_window": Variant(
        like_llama("mistral", "Mistral", vocab_size=55, hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=8, intermediate_size=36, max_position_embeddings=96,
                   rms_norm_eps=1e-05, rope_theta=10000.0, sliding_window=5, tie_word_embeddings=False,
                   torch_dtype="float32")),
    "mistral_full": Variant(
        like_llama("mistral", "Mistral", vocab_size=49, hidden_size=30, num_hidden_layers=2, num_attention_heads=3,
                   num_key_value_heads=1, head_dim=None, intermediate_size=33, max_position_embeddings=64,
                   rms_norm_eps=1e-05, rope_theta=1000000.0, sliding_window=None, tie_word_embeddings=False,
                   torch_dtype="float32"), shards=2),
    "qwen2_full": Variant(  # a window that is there and not used
        like_llama("qwen2", "Qwen2", vocab_size=57, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, intermediate_size=40, max_position_embeddings=64, rms_norm_eps=1e-06,
                   rope_theta=1000000.0, use_sliding_window=False, sliding_window=6, max_window_layers=1,
                   tie_word_embeddings=False, torch_dtype="float32")),
    "qwen2_window": Variant(
        like_llama("qwen2", "Qwen2", vocab_size=53, hidden_size=28, num_hidden_layers=3, num_attention_heads=7,
                   num_key_value_heads=1, intermediate_size=36, max_position_embeddings=64, rms_norm_eps=1e-06,
                   rope_theta=10000.0, use_sliding_window=True, sliding_window=7, max_window_layers=1,
                   tie_word_embeddings=True, torch_dtype="float32")),
    "qwen3_full": Variant(
        like_llama("qwen3", "Qwen3", vocab_size=57, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=12, intermediate_size=40, max_position_embeddings=64,
                   rms_norm_eps=1e-06, rope_theta=1000000, rope_scaling=None, attention_bias=False,
                   use_sliding_window=False, sliding_window=None, max_window_layers=2, tie_word_embeddings=True,
                   torch_dtype="float32")),
    "qwen3_window": Variant(
        like_llama("qwen3", "Qwen3", vocab_size=51, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                   num_key_value_heads=3, head_dim=6, intermediate_size=32, max_position_embeddings=64,
                   rms_norm_eps=1e-06, rope_parameters=dict(rope_type="default", rope_theta=10000.0),
                   attention_bias=True, use_sliding_window=True, sliding_window=6, max_window_layers=28,
                   layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                   tie_word_embeddings=False, dtype="float32")),
    "smollm": Variant(
        like_llama("llama", "Llama", vocab_size=49, hidden_size=36, num_hidden_layers=3, num_attention_heads=9,
                   num_key_value_heads=3, intermediate_size=48, max_position_embeddings=64, rms_norm_eps=1e-05,
                   rope_theta=100000, rope_scaling=None, rope_interleaved=False, is_llama_config=True,
                   pretraining_tp=1, attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
                   torch_dtype="float32"), strip="model."),
    "smollm3_list": Variant(
        like_llama("smollm3", "SmolLM3", vocab_size=53, hidden_size=24, num_hidden_layers=4, num_attention_heads=4,
                   num_key_value_heads=2, intermediate_size=36, max_position_embeddings=64, rms_norm_eps=1e-06,
                   rope_theta=5000000.0, rope_scaling=None, no_rope_layers=[1, 0, 1, 0], no_rope_layer_interval=4,
                   layer_types=["full_attention"] * 4, use_sliding_window=False, sliding_window=None,
                   attention_bias=False, mlp_bias=False, pretraining_tp=2, torch_dtype="float32")),
    "smollm3_interval": Variant(  # tied and theta by default; layers without RoPE slide
        like_llama("smollm3", "SmolLM3", vocab_size=47, hidden_size=20, num_hidden_layers=4, num_attention_heads=5,
                   num_key_value_heads=5, intermediate_size=28, max_position_embeddings=64, rms_norm_eps=1e-06,
                   no_rope_layer_interval=2, use_sliding_window=True, sliding_window=6, mlp_bias=True,
                   dtype="float32")),
    "gemma3_pattern": Variant(
        gemma(vocab_size=53, hidden_size=24, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=1,
              head_dim=10, intermediate_size=36, max_position_embeddings=96, rms_norm_eps=1e-4,
              query_pre_attn_scalar=20,
              sliding_window=6, sliding_window_pattern=3, rope_theta=1000000.0, rope_local_base_freq=10000.0,
              rope_scaling=dict(factor=8.0, rope_type="linear"), torch_dtype="float32")),
    "gemma3_types": Variant(GEMMA_B, dtype="BF16"),
    "gpt2_inverse": Variant(
        dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", vocab_size=51, n_embd=21, n_layer=3, n_head=3,
             n_inner=None, n_positions=48, n_ctx=48, activation_function="gelu_new", attn_pdrop=0.1, embd_pdrop=0.1,
             resid_pdrop=0.1, layer_norm_epsilon=1e-05, scale_attn_weights=True,
             scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=False, bos_token_id=None,
             eos_token_id=None), strip="transformer.", buffers=gpt2_buffers),
    "gpt_neox_reward": Variant(reward(dict(NEOX_A, torch_dtype="float32"), "GPTNeoXForSequenceClassification")),
    "gemma3_reward": Variant(reward(GEMMA_B, "Gemma3TextForSequenceClassification")),
}


# ---- golden values -------------------------------------------------------------------------------------------------

def weights_of(variant, tensors):
    return {name: torch.tensor(numbers(name, shape, *coded(variant.config, name, shape, kind, variant.dtype),
                                       variant.dtype), requires_grad=True)
            for name, (shape, kind) in tensors.items()}


def tokens(name, count, vocab):
    return [int(x) for x in mixed(name, count, 32) % vocab]


def continued(p, c, name):
    """A prompt whose greedy continuation has no near ties, so that float and double agree on it."""
    for attempt in range(200):
        ids, logp = tokens("%s/prompt%d" % (name, attempt), GREEDY_PROMPT, c["vocab_size"]), 0.0
        with torch.no_grad():
            while len(ids) < GREEDY_PROMPT + GREEDY_TOKENS:
                row = torch.log_softmax(logits(p, c, ids)[-1], -1)
                best, second = torch.topk(row, 2).values.tolist()
                if best - second < GREEDY_MARGIN:
                    break
                ids.append(int(row.argmax()))
                logp += best
        if len(ids) == GREEDY_PROMPT + GREEDY_TOKENS and len(set(ids[GREEDY_PROMPT:])) > 4:
            return dict(prompt=ids[:GREEDY_PROMPT], tokens=ids[GREEDY_PROMPT:], logp=logp)
    raise AssertionError("no prompt of %s goes on without near ties" % name)


def digits(x, n):
    return [digits(y, n) for y in x] if isinstance(x, list) else float("%.*g" % (n, x))


def golden(name, variant):
    c = variant.config
    is_reward = "Sequence" in c["architectures"][0]
    tensors = tensors_of(c, is_reward)
    p = weights_of(variant, tensors)
    sequences = [tokens("%s/sequence%d" % (name, i), n, c["vocab_size"]) for i, n in enumerate(LENGTHS)]
    out = dict(config=json.dumps(c), dtype=variant.dtype, strip=variant.strip, shards=variant.shards,
               tensors=[], buffers=variant.buffers(c) if variant.buffers else [], sequences=sequences)
    if is_reward:
        scores = [score(p, c, ids) for ids in sequences]
        sum(scores).backward()
        out["score"] = digits([x.item() for x in scores], 9)
    else:
        loss = nll(p, c, sequences)
        loss.backward()
        columns = sorted(set(i * c["vocab_size"] // COLUMNS for i in range(COLUMNS)))
        with torch.no_grad():
            rows = torch.cat([logits(p, c, ids) for ids in sequences])
        greedy = continued(p, c, name)
        out.update(columns=columns, logits=digits(rows[:, columns].tolist(), 8),
                   logsumexp=digits(torch.logsumexp(rows, 1).tolist(), 8),
                   nll=digits(loss.item() / (sum(LENGTHS) - len(LENGTHS)), 9),
                   greedy=dict(greedy, logp=digits(greedy["logp"], 9)))
    for tensor, (shape, kind) in tensors.items():
        g = p[tensor].grad.flatten()
        r = [torch.tensor(mixed("%s#%d" % (tensor, k), len(g), 24) / 2.0 ** 23) for k in range(4)]
        out["tensors"].append([tensor, list(shape), *coded(c, tensor, shape, kind, variant.dtype),
                               *digits([float(g.norm())] + [float(g @ x) for x in r], 8)])
    return out


def write(name, value):
    """One line for each key, and for each row of a list of lists."""
    lines = []
    for key, x in value.items():
        if isinstance(x, list) and x and isinstance(x[0], list):
            text = "[\n" + ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in x) + "\n ]"
        else:
            text = json.dumps(x, separators=(",", ":"))
        lines.append(' "%s": %s' % (key, text))
    os.makedirs(os.path.join(HERE, "families"), exist_ok=True)
    with open(os.path.join(HERE, "families", name + ".json"), "w") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


# ---- what the library has saved ------------------------------------------------------------------------------------

def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    return {name: torch.tensor(np.frombuffer(data[slice(*t["data_offsets"])], dict(F32="<f4", F64="<f8")[t["dtype"]])
                               .astype(np.float64).reshape(t["shape"])) for name, t in header.items()}


def check_saved(name, path):
    """Its config asks for exactly its tensors, and they compute what the variant's do."""
    with open(os.path.join(path, "config.json")) as f:
        c = json.load(f)
    with open(os.path.join(HERE, "families", name + ".json")) as f:
        wanted = json.load(f)
    p = read_safetensors(os.path.join(path, "model.safetensors"))
    shapes = {k: shape for k, (shape, _) in tensors_of(c, "score" in wanted).items()}
    assert shapes == {k: tuple(x.shape) for k, x in p.items()}, name
    if "score" in wanted:
        assert c["architectures"] == VARIANTS[name].config["architectures"] and len(c["id2label"]) == 1
        off = max(abs(score(p, c, ids).item() - x) for ids, x in zip(wanted["sequences"], wanted["score"]))
    else:
        rows = torch.cat([logits(p, c, ids) for ids in wanted["sequences"]])
        off = float((rows[:, wanted["columns"]] - torch.tensor(wanted["logits"])).abs().max())
    assert off < 1e-6, (name, off)
    print("%s: read from %s, off by %.1g" % (name, path, off))


# Where the meaning of each family was read: src/transformers of github.com/huggingface/transformers at 5.10.0.dev0
# (commit cc041637bc2b, June 2026): models/F/modeling_F.py and models/F/configuration_F.py for gpt2, gpt_neo, gpt_neox,
# llama, mistral, qwen2, qwen3, smollm3 and gemma3 (its text model), and modeling_rope_utils.py, masking_utils.py,
# modeling_layers.py, configuration_utils.py; compared with 5.0.0.dev0, 4.52.0.dev0 and 4.9.0.dev0. Where they differ
# the newest counts: 4.52 put the window of Qwen2 and Qwen3 on every layer. The buffers are those that releases before
# 4.30 wrote into files.
#
# It was checked: each variant's config.json and weights were given to the configuration and model classes of that
# commit themselves, in double precision under PyTorch 1.13, with stand-ins for what is around them (the base class of
# models, hub kernels, caches, and the masks: j <= i, and j > i - window). Names and shapes of parameters, tying,
# logits and scores of all variants agreed: to 3e-14, Gemma's to 1e-7, for its root of hidden_size was not rounded to
# float there.
#
# That root: transformers keeps it as a float32 and casts it to the type of the embedding. A model loaded as bfloat16
# multiplies by a rounded root (25.25 for 25.298…); loaded as float32, from whatever file, it does what is done here.


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--saved":
        for name in sorted(os.listdir(sys.argv[2])):
            check_saved(name, os.path.join(sys.argv[2], name))
        return
    for name, variant in VARIANTS.items():
        write(name, golden(name, variant))


if __name__ == "__main__":
    main()
