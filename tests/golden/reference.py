#!/usr/bin/env python3
"""reference.py - golden values for offline_rlhf.h, from an implementation that shares nothing with it.

Two tiny models with random weights (a GPT-2 and a Llama, Hugging Face names and layouts) and every
loss of the library are written here once more, in plain PyTorch and double precision. The script
writes the small files beside it that tests/test_golden.c compares the library with. The tests need
neither Python nor PyTorch; run this only to make the files again:

    python3 tests/golden/reference.py        (Debian: apt install python3-torch; about 6 seconds)

What it writes:
    gpt2/ llama/ gpt2_rm/ llama_rm/   config.json and model.safetensors, as Hugging Face has them
    sft.jsonl pairs.jsonl dt.jsonl    rows of token ids: demonstrations with rewards, preference
                                      pairs, demonstrations with a reward-bin token after the prompt
    data.json                         r̂, weights, filters of sft.jsonl
    gpt2.json llama.json              logits, log-probabilities, scores, gradients, ten training steps
    ppo.json                          rewards, advantages, losses and their gradients from given numbers
    optim.json                        learning rates, AdamW with clipping on given gradients

Weights are rounded to float32 before anything is computed, so that float and double builds start
from the same numbers. In the JSON files an array of arrays is a matrix or a ragged list, row by row.
"""
import json
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

GPT2 = dict(arch="gpt2", vocab=61, dim=24, layers=2, heads=3, kv_heads=3, ffn=96, context=40, eps=1e-5)
LLAMA = dict(arch="llama", vocab=67, dim=32, layers=2, heads=4, kv_heads=2, ffn=56, context=48, eps=1e-5,
             theta=10000.0)
EOS = 0
BINS, FIRST_BIN = 8, 53  # dt.jsonl: ids 53 … 60 stand for r̂ in eight equal bins over -3 … 3

STEPS, LR, BETA1, BETA2, EPS, DECAY, CLIP = 10, 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0


# ---- models: a dict of parameters by their Hugging Face names, and functions of it -----------------

def gpt2_weights(c, seed):
    """Conv1D weights are (in, out); q, k, v lie side by side in c_attn's columns."""
    r, d, w = np.random.RandomState(seed), c["dim"], {}

    def normal(name, *shape, std=0.2, mean=0.0):
        w["transformer." + name] = mean + std * r.randn(*shape)

    normal("wte.weight", c["vocab"], d, std=0.3)
    normal("wpe.weight", c["context"], d, std=0.2)
    for i in range(c["layers"]):
        h = "h.%d." % i
        normal(h + "ln_1.weight", d, std=0.1, mean=1.0)
        normal(h + "ln_1.bias", d, std=0.1)
        normal(h + "attn.c_attn.weight", d, 3 * d)
        normal(h + "attn.c_attn.bias", 3 * d, std=0.1)
        normal(h + "attn.c_proj.weight", d, d)
        normal(h + "attn.c_proj.bias", d, std=0.1)
        normal(h + "ln_2.weight", d, std=0.1, mean=1.0)
        normal(h + "ln_2.bias", d, std=0.1)
        normal(h + "mlp.c_fc.weight", d, c["ffn"])
        normal(h + "mlp.c_fc.bias", c["ffn"], std=0.1)
        normal(h + "mlp.c_proj.weight", c["ffn"], d)
        normal(h + "mlp.c_proj.bias", d, std=0.1)
    normal("ln_f.weight", d, std=0.1, mean=1.0)
    normal("ln_f.bias", d, std=0.1)
    return w


def llama_weights(c, seed):
    """Linear weights are (out, in), without biases."""
    r, d, w = np.random.RandomState(seed), c["dim"], {}
    kv = d // c["heads"] * c["kv_heads"]

    def normal(name, *shape, std=0.2, mean=0.0):
        w[name] = mean + std * r.randn(*shape)

    normal("model.embed_tokens.weight", c["vocab"], d, std=0.3)
    for i in range(c["layers"]):
        h = "model.layers.%d." % i
        normal(h + "input_layernorm.weight", d, std=0.1, mean=1.0)
        normal(h + "self_attn.q_proj.weight", d, d, std=0.3)
        normal(h + "self_attn.k_proj.weight", kv, d, std=0.3)
        normal(h + "self_attn.v_proj.weight", kv, d)
        normal(h + "self_attn.o_proj.weight", d, d)
        normal(h + "post_attention_layernorm.weight", d, std=0.1, mean=1.0)
        normal(h + "mlp.gate_proj.weight", c["ffn"], d)
        normal(h + "mlp.up_proj.weight", c["ffn"], d)
        normal(h + "mlp.down_proj.weight", d, c["ffn"])
    normal("model.norm.weight", d, std=0.1, mean=1.0)
    normal("lm_head.weight", c["vocab"], d, std=0.25)
    return w


def rounded(weights):
    return {k: v.astype(np.float32) for k, v in weights.items()}


def leaves(weights):
    """Fresh double-precision leaves that autograd differentiates."""
    return {k: torch.tensor(np.asarray(v, dtype=np.float64), requires_grad=True) for k, v in weights.items()}


def attend(q, k, v):
    """Causal attention of one sequence. q, k, v: (heads, T, head_dim)."""
    t = q.shape[1]
    a = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
    a = a.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(a, -1) @ v


def split_heads(x, heads):
    return x.view(x.shape[0], heads, -1).transpose(0, 1)


def gpt2_hidden(p, c, ids):
    p = {k[len("transformer."):]: v for k, v in p.items() if k.startswith("transformer.")}
    d = c["dim"]

    def norm(x, name):
        m = x.mean(-1, keepdim=True)
        s = ((x - m) ** 2).mean(-1, keepdim=True)
        return (x - m) / torch.sqrt(s + c["eps"]) * p[name + ".weight"] + p[name + ".bias"]

    def conv1d(x, name):
        return x @ p[name + ".weight"] + p[name + ".bias"]

    def gelu(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

    x = p["wte.weight"][ids] + p["wpe.weight"][: len(ids)]
    for i in range(c["layers"]):
        h = "h.%d." % i
        q, k, v = (split_heads(t, c["heads"]) for t in conv1d(norm(x, h + "ln_1"), h + "attn.c_attn").split(d, 1))
        x = x + conv1d(attend(q, k, v).transpose(0, 1).reshape(len(ids), d), h + "attn.c_proj")
        x = x + conv1d(gelu(conv1d(norm(x, h + "ln_2"), h + "mlp.c_fc")), h + "mlp.c_proj")
    return norm(x, "ln_f")


def rope(x, theta):
    """x: (heads, T, head_dim). Hugging Face's rotate_half: pairs (i, i + head_dim/2)."""
    half = x.shape[2] // 2
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * theta ** (-torch.arange(half) / half)[None, :]
    cos, sin = torch.cos(torch.cat([angle, angle], 1)), torch.sin(torch.cat([angle, angle], 1))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def llama_hidden(p, c, ids):
    def norm(x, name):
        return x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + c["eps"]) * p[name + ".weight"]

    x = p["model.embed_tokens.weight"][ids]
    shared = c["heads"] // c["kv_heads"]
    for i in range(c["layers"]):
        h = "model.layers.%d." % i
        n = norm(x, h + "input_layernorm")
        q = rope(split_heads(n @ p[h + "self_attn.q_proj.weight"].T, c["heads"]), c["theta"])
        k = rope(split_heads(n @ p[h + "self_attn.k_proj.weight"].T, c["kv_heads"]), c["theta"])
        v = split_heads(n @ p[h + "self_attn.v_proj.weight"].T, c["kv_heads"])
        k, v = k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)
        a = attend(q, k, v).transpose(0, 1).reshape(len(ids), -1)
        x = x + a @ p[h + "self_attn.o_proj.weight"].T
        n = norm(x, h + "post_attention_layernorm")
        x = x + (F.silu(n @ p[h + "mlp.gate_proj.weight"].T) * (n @ p[h + "mlp.up_proj.weight"].T)) \
            @ p[h + "mlp.down_proj.weight"].T
    return norm(x, "model.norm")


def hidden(p, c, ids):
    return (gpt2_hidden if c["arch"] == "gpt2" else llama_hidden)(p, c, ids)


def logits(p, c, ids):
    head = "transformer.wte.weight" if c["arch"] == "gpt2" else "lm_head.weight"
    return hidden(p, c, ids) @ p[head].T


def token_logp(p, c, prompt, response, want_entropy=False):
    """log π(y_t | x, y_<t) of every response token: the logit at position p-1 predicts token p."""
    all_logp = torch.log_softmax(logits(p, c, prompt + response)[len(prompt) - 1:-1], -1)
    logp = all_logp.gather(1, torch.tensor(response)[:, None])[:, 0]
    return (logp, -(all_logp.exp() * all_logp).sum(-1)) if want_entropy else logp


def score(p, c, prompt, response):
    """The reward head reads the final hidden state at the last token. A critic has a bias too."""
    return hidden(p, c, prompt + response)[-1] @ p["score.weight"][0]


# ---- data ------------------------------------------------------------------------------------------

def make_rows():
    """Rows 1 and 2, and 5 and 6, share their prompts; row 3 has a one-token prompt, row 4 a one-token
    response; row 6 ends without EOS, as a response does that was cut."""
    r = np.random.RandomState(11)

    def tokens(n):
        return [int(t) for t in r.randint(1, FIRST_BIN, n)]

    prompts = [tokens(5), tokens(7), None, tokens(1), tokens(9), tokens(4), None, tokens(12)]
    prompts[2], prompts[6] = prompts[1], prompts[5]
    lengths = [6, 4, 9, 5, 1, 8, 7, 14]
    rewards = [0.75, -1.5, 1.25, 0.5, -0.25, 2.75, -0.875, 0.125]
    rows = []
    for i in range(8):
        response = tokens(lengths[i] - 1) + [EOS] if i != 6 else tokens(lengths[i])
        rows.append(dict(prompt_ids=prompts[i], completion_ids=response, reward=rewards[i]))
    pairs = []
    prompts = [tokens(n) for n in (6, 3, 8, 1, 10, 5)]
    prompts = [prompts[0], prompts[0], prompts[1], prompts[2], prompts[3], prompts[4], prompts[4], prompts[5]]
    for prompt, chosen, rejected in zip(prompts, (5, 8, 3, 11, 1, 6, 2, 9), (7, 4, 3, 2, 6, 1, 12, 9)):
        pairs.append(dict(prompt_ids=prompt, chosen_ids=tokens(chosen - 1) + [EOS],
                          rejected_ids=tokens(rejected - 1) + [EOS]))
    margins = [0.0, 0.5, 0.25, 0.0, 1.0, 0.125, 0.0, 2.0]
    return rows, pairs, margins


def z_scores(rewards):
    mean = sum(rewards) / len(rewards)
    sd = math.sqrt(sum((x - mean) ** 2 for x in rewards) / len(rewards))  # population
    return [(x - mean) / sd for x in rewards], mean, sd


def weights_of(rhat, keys, beta, clip, baseline):
    """w = min(e^((r̂ - b)/β), C), rescaled to mean 1. keys: rows of one prompt have the same."""
    b = [0.0] * len(rhat)
    if baseline == "mean":
        b = [sum(rhat) / len(rhat)] * len(rhat)
    if baseline == "prompt":
        b = [np.mean([y for y, k in zip(rhat, keys) if k == key]) for key in keys]
    w = [min(math.exp((x - y) / beta), clip) for x, y in zip(rhat, b)]
    return [float(x * len(w) / sum(w)) for x in w]


def data_golden(rows):
    rhat, mean, sd = z_scores([row["reward"] for row in rows])
    keys = [str(row["prompt_ids"]) for row in rows]
    kept = [i for i, x in enumerate(rhat) if x > 0]
    best = [i for i in range(len(rows))
            if i == max((j for j in range(len(rows)) if keys[j] == keys[i]), key=lambda j: (rhat[j], -j))]
    median = sorted(rhat)[3:5]
    above_median = [i for i, x in enumerate(rhat) if x > (median[0] + median[1]) / 2]
    variants = {}
    for name, beta, clip, baseline in (("none", 1.0, 20.0, "none"), ("mean", 1.0, 20.0, "mean"),
                                       ("prompt", 1.0, 20.0, "prompt"), ("sharp", 0.5, 2.0, "none"),
                                       ("sharp_prompt", 0.25, 3.0, "prompt")):
        w = weights_of(rhat, keys, beta, clip, baseline)
        variants[name] = dict(beta=beta, clip=clip, weight=w,
                              effective=sum(w) ** 2 / sum(x * x for x in w))
    filtered = weights_of([rhat[i] for i in kept], None, 0.5, 2.0, "none")
    return rhat, kept, dict(mean=mean, sd=sd, rhat=rhat, kept_above_0=kept, kept_best_per_prompt=best,
                            kept_above_median=above_median, weights=variants,
                            filter_then_weight=dict(beta=0.5, clip=2.0, weight=filtered))


# ---- losses: undivided sums over a batch, with what they are divided by ------------------------------

def nll_loss(c, rows, weight=None):
    """-Σ w log π(y_t | c, y_<t) / number of response tokens (not of weights)."""
    def loss(p):
        total = 0
        for i, row in enumerate(rows):
            total = total - (1.0 if weight is None else weight[i]) \
                * token_logp(p, c, row["prompt_ids"], row["completion_ids"]).sum()
        return total / sum(len(row["completion_ids"]) for row in rows)
    return loss


def reward_loss(c, pairs, center=0.0, margin=None):
    """softplus(-(r_c - r_r - m)) + η (r_c + r_r)², mean over pairs."""
    def loss(p):
        total = 0
        for i, pair in enumerate(pairs):
            a, b = (score(p, c, pair["prompt_ids"], pair[k]) for k in ("chosen_ids", "rejected_ids"))
            total = total + F.softplus(-(a - b - (margin[i] if margin else 0.0))) + center * (a + b) ** 2
        return total / len(pairs)
    return loss


def pair_sums(p, c, pair):
    return [token_logp(p, c, pair["prompt_ids"], pair[k]).sum() for k in ("chosen_ids", "rejected_ids")]


def dpo_loss(c, pairs, reference, beta=0.1):
    """-log σ(β (Σ log π/π_ref of chosen - of rejected)), mean over pairs."""
    with torch.no_grad():
        ref = [pair_sums(reference, c, pair) for pair in pairs]

    def loss(p):
        total = 0
        for pair, (ref_chosen, ref_rejected) in zip(pairs, ref):
            chosen, rejected = pair_sums(p, c, pair)
            total = total - F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
        return total / len(pairs)
    return loss


# ---- optimizer ---------------------------------------------------------------------------------------

class AdamW:
    """Decoupled decay on rank ≥ 2 only, bias-corrected, eps outside the root, global-norm clipping by
    exactly clip/norm. step() returns the norm before clipping."""

    def __init__(self, params, decay=DECAY, clip=CLIP):
        self.params, self.decay, self.clip, self.t = params, decay, clip, 0
        self.m = {k: torch.zeros_like(v) for k, v in params.items()}
        self.v = {k: torch.zeros_like(v) for k, v in params.items()}

    @torch.no_grad()
    def step(self, lr):
        norm = math.sqrt(sum(float((p.grad ** 2).sum()) for p in self.params.values()))
        factor = self.clip / norm if self.clip and norm > self.clip else 1.0
        self.t += 1
        for k, p in self.params.items():
            g = p.grad * factor
            self.m[k] = BETA1 * self.m[k] + (1 - BETA1) * g
            self.v[k] = BETA2 * self.v[k] + (1 - BETA2) * g * g
            if p.dim() >= 2:
                p -= lr * self.decay * p
            p -= lr * (self.m[k] / (1 - BETA1 ** self.t)) / (torch.sqrt(self.v[k] / (1 - BETA2 ** self.t)) + EPS)
            p.grad = None
        return norm


def describe(x):
    x = x.detach()
    return dict(shape=list(x.shape), norm=float(x.norm()), sum=float(x.sum()), first=x.flatten()[:8].tolist())


END_PARAMS = {  # what a training run's end is judged by: an embedding, a norm, some matrices, a head
    "gpt2": ["transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.attn.c_attn.weight",
             "transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias", "transformer.ln_f.weight",
             "score.weight"],
    "llama": ["model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight",
              "model.layers.0.input_layernorm.weight", "model.layers.1.mlp.down_proj.weight",
              "model.norm.weight", "lm_head.weight", "score.weight"],
}


def train(c, weights, loss_fn):
    p = leaves(weights)
    optimizer, losses, norms = AdamW(p), [], []
    for _ in range(STEPS):
        loss = loss_fn(p)
        loss.backward()
        losses.append(loss.item())
        norms.append(optimizer.step(LR))
    return p, dict(loss=losses, grad_norm=norms,
                   params={k: describe(p[k]) for k in END_PARAMS[c["arch"]] if k in p})


def arch_golden(c, weights, rm_weights, rows, pairs, margins, dt_rows, data):
    p, rm, out = leaves(weights), leaves(rm_weights), dict(arch=c["arch"])
    ids = (rows[2]["prompt_ids"] + rows[2]["completion_ids"])[:10]
    out["logits"] = dict(ids=ids, values=logits(p, c, ids).tolist())
    logp, entropy = zip(*(token_logp(p, c, r["prompt_ids"], r["completion_ids"], True) for r in rows))
    out["logp"] = [x.tolist() for x in logp]
    out["entropy"] = [x.tolist() for x in entropy]
    chosen, rejected = zip(*(pair_sums(p, c, pair) for pair in pairs))
    out["pair_logp"] = dict(chosen=[x.item() for x in chosen], rejected=[x.item() for x in rejected])
    out["score"] = dict(
        completion=[score(rm, c, r["prompt_ids"], r["completion_ids"]).item() for r in rows],
        chosen=[score(rm, c, r["prompt_ids"], r["chosen_ids"]).item() for r in pairs],
        rejected=[score(rm, c, r["prompt_ids"], r["rejected_ids"]).item() for r in pairs])

    loss = nll_loss(c, rows)(p)
    loss.backward()
    out["grad"] = dict(loss=loss.item(), norm=math.sqrt(sum(float((x.grad ** 2).sum()) for x in p.values())),
                       params={k: describe(x.grad) for k, x in p.items()})

    runs = out["train"] = {}
    kept = [rows[i] for i in data["kept_above_0"]]
    runs["sft"] = train(c, weights, nll_loss(c, rows))[1]
    runs["rwr"] = train(c, weights, nll_loss(c, rows, data["weights"]["none"]["weight"]))[1]
    runs["rwr_sharp"] = train(c, weights, nll_loss(c, rows, data["weights"]["sharp"]["weight"]))[1]
    runs["mle"] = train(c, weights, nll_loss(c, kept))[1]
    runs["mle_rwr"] = train(c, weights, nll_loss(c, kept, data["filter_then_weight"]["weight"]))[1]
    runs["dt"] = train(c, weights, nll_loss(c, dt_rows))[1]
    runs["dpo"] = train(c, weights, dpo_loss(c, pairs, leaves(weights)))[1]
    runs["rm_center"] = train(c, rm_weights, reward_loss(c, pairs, center=0.01))[1]
    runs["rm_margin"] = train(c, rm_weights, reward_loss(c, pairs, margin=margins))[1]
    trained, runs["rm"] = train(c, rm_weights, reward_loss(c, pairs))
    final = [score(trained, c, r["prompt_ids"], r[k]).item() for k in ("chosen_ids", "rejected_ids") for r in pairs]
    _, runs["rm"]["score_mean"], runs["rm"]["score_sd"] = z_scores(final)
    return out


# ---- PPO -----------------------------------------------------------------------------------------------

def token_rewards(old, ref, score, kl, score_clip=10.0):
    """r_t = -β_kl (log π - log π_ref), plus the clipped score at the last response token."""
    r = [-kl * (a - b) for a, b in zip(old, ref)]
    r[-1] += max(-score_clip, min(score_clip, score))
    return r


def gae(rewards, values, gamma, lam):
    """δ_t = r_t + γ V_{t+1} - V_t, A_t = δ_t + γ λ A_{t+1}, V_{T+1} = 0; returns = A + V."""
    advantage, following = [0.0] * len(rewards), 0.0
    for t in reversed(range(len(rewards))):
        v_next = values[t + 1] if t + 1 < len(values) else 0.0
        following = rewards[t] + gamma * v_next - values[t] + gamma * lam * following
        advantage[t] = following
    return advantage, [a + v for a, v in zip(advantage, values)]


def whiten(x):
    """Over all tokens of the batch: population standard deviation, 1e-8 outside the root."""
    x = torch.as_tensor(x)
    return (x - x.mean()) / (torch.sqrt(((x - x.mean()) ** 2).mean()) + 1e-8)


def policy_objective(new, old, advantage, low=0.2, high=0.2):
    """Per token -min(ρA, clip(ρ)A); also whether ρ is outside the clip range, and whether it mattered."""
    ratio = torch.exp(torch.clamp(new - old, -20, 20))
    plain, clipped = ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage
    outside = (ratio < 1 - low) | (ratio > 1 + high)
    return -torch.minimum(plain, clipped), outside, clipped < plain


def value_objective(new, old, returns, clip=0.2):
    """Per token ½ max((V - R)², (V_old + clip(V - V_old) - R)²)."""
    clipped = old + torch.clamp(new - old, -clip, clip)
    return 0.5 * torch.maximum((new - returns) ** 2, (clipped - returns) ** 2)


def ppo_numbers():
    r, lengths, kl, lam = np.random.RandomState(23), (5, 3, 6), 0.05, 0.95

    def ragged(mean, sd):
        return [np.round(mean + sd * r.randn(n), 3).tolist() for n in lengths]

    old, values = ragged(-2.0, 0.7), ragged(0.2, 0.6)
    ref = [[round(a + 0.4 * r.randn(), 3) for a in row] for row in old]
    new = [[round(a + 0.4 * r.randn(), 3) for a in row] for row in old]
    new_values = [[round(a + 0.3 * r.randn(), 3) for a in row] for row in values]
    scores = [0.8, 12.5, -1.3]  # the second is clipped to 10
    new[1][2] = round(old[1][2] - 0.4, 3)  # so that each sign of A meets a ratio on either side of the range
    out = dict(lengths=list(lengths), kl=kl, lambda_=lam, score_clip=10.0, clip=0.2, value_clip=0.2,
               old_logp=old, ref_logp=ref, values=values, score=scores, new_logp=new, new_values=new_values)
    out["lambda"] = out.pop("lambda_")

    flat = lambda rows: torch.tensor([x for row in rows for x in row])
    d = flat(old) - flat(ref)
    out["k1"], out["k2"] = d.mean().item(), (d * d / 2).mean().item()
    out["k3"] = (torch.exp(-d) - 1 + d).mean().item()

    for name, gamma in (("gamma_1", 1.0), ("gamma_097", 0.97)):
        rewards, advantages, returns = [], [], []
        for o, f, v, s in zip(old, ref, values, scores):
            rewards.append(token_rewards(o, f, s, kl))
            a, g = gae(rewards[-1], v, gamma, lam)
            advantages.append(a)
            returns.append(g)
        a = whiten(flat(advantages))
        leaf, value_leaf = flat(new).requires_grad_(), flat(new_values).requires_grad_()
        policy, outside, active = policy_objective(leaf, flat(old), a)
        value = value_objective(value_leaf, flat(values), flat(returns))
        (policy.mean() + value.mean()).backward()
        out[name] = dict(gamma=gamma, rewards=rewards, advantages=advantages, returns=returns,
                         whitened=a.tolist(), policy_loss=policy.mean().item(), policy_grad=leaf.grad.tolist(),
                         value_loss=value.mean().item(), value_grad=value_leaf.grad.tolist(),
                         clip_outside=outside.double().mean().item(), clip_active=active.double().mean().item())

    # a ratio of e^29 is clamped to e^20, alone because its loss would drown the others'
    leaf = torch.tensor([-1.0], requires_grad=True)
    loss = policy_objective(leaf, torch.tensor([-30.0]), torch.tensor([-0.5]))[0].sum()
    loss.backward()
    out["extreme"] = dict(new_logp=-1.0, old_logp=-30.0, advantage=-0.5, policy_loss=loss.item(),
                          policy_grad=leaf.grad.item())
    return out


def ppo_end_to_end(c, weights, rm_weights, rows):
    """Four optimizer steps on one batch of fixed rollouts (sft.jsonl's rows), all of it one minibatch.
    The reference is the policy as it starts, so KL is 0 and the first ratios are 1. The critic is a
    copy of the reward model with its normalisation: V = (h·w - mean)/sd, mean and sd constant. Policy
    and critic have an AdamW and a clip of their own."""
    mean, sd, kl, lr, critic_lr = 0.25, 0.75, 0.05, 1e-4, 1e-3
    policy, rm, critic = leaves(weights), leaves(rm_weights), leaves(rm_weights)

    def logps():
        return [token_logp(policy, c, r["prompt_ids"], r["completion_ids"]) for r in rows]

    def values():  # V_t is read at the position before token t
        return [(hidden(critic, c, r["prompt_ids"] + r["completion_ids"])[len(r["prompt_ids"]) - 1:-1]
                 @ critic["score.weight"][0] - mean) / sd for r in rows]

    with torch.no_grad():
        old, old_values = logps(), values()
        raw = [score(rm, c, r["prompt_ids"], r["completion_ids"]).item() for r in rows]
        scores = [(x - mean) / sd for x in raw]
        advantages, returns = [], []
        for o, v, s in zip(old, old_values, scores):
            a, g = gae(token_rewards(o.tolist(), o.tolist(), s, kl), v.tolist(), 1.0, 0.95)
            advantages += a
            returns += g
        a, returns = whiten(advantages), torch.tensor(returns)

    out = dict(mean=mean, sd=sd, kl=kl, gamma=1.0, lr=lr, critic_lr=critic_lr, score_raw=raw, score=scores,
               old_logp=[x.tolist() for x in old], old_values=[x.tolist() for x in old_values],
               advantages=advantages, returns=returns.tolist(), whitened=a.tolist(),
               policy_loss=[], value_loss=[], policy_grad_norm=[], critic_grad_norm=[], clip_outside=[], ratio_max=[])
    policy_optimizer, critic_optimizer = AdamW(policy), AdamW(critic)
    for _ in range(4):
        new = torch.cat(logps())
        loss, outside, _ = policy_objective(new, torch.cat(old), a)
        value_loss = value_objective(torch.cat(values()), torch.cat(old_values), returns)
        loss.mean().backward()
        value_loss.mean().backward()
        out["policy_loss"].append(loss.mean().item())
        out["value_loss"].append(value_loss.mean().item())
        out["policy_grad_norm"].append(policy_optimizer.step(lr))
        out["critic_grad_norm"].append(critic_optimizer.step(critic_lr))
        out["clip_outside"].append(outside.double().mean().item())
        out["ratio_max"].append(torch.exp(new - torch.cat(old)).max().item())
    out["policy_params"] = {k: describe(policy[k]) for k in END_PARAMS[c["arch"]] if k in policy}
    out["critic_params"] = {k: describe(critic[k]) for k in END_PARAMS[c["arch"]] if k in critic}
    return out


# ---- learning rates and the optimizer alone ---------------------------------------------------------

def learning_rate(schedule, k, n, lr, warmup, floor):
    """Of step k of n, k from 0."""
    if k < warmup:
        return lr * (k + 1) / warmup
    x = (k - warmup) / (n - warmup)
    if schedule == "linear":
        return lr * (1 - (1 - floor) * x)
    if schedule == "cosine":
        return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * x)))
    return lr


def optim_golden():
    n, lr, warmup, floor = 12, 2e-3, 3, 0.1
    out = dict(steps=n, lr=lr, warmup=warmup, min_lr=floor)
    for schedule in ("constant", "linear", "cosine"):
        out[schedule] = [learning_rate(schedule, k, n, lr, warmup, floor) for k in range(n)]
        out[schedule + "_no_warmup"] = [learning_rate(schedule, k, n, lr, 0, floor) for k in range(n)]
    # a matrix that decays and a vector that does not; half of the steps are clipped
    r = np.random.RandomState(31)
    f32 = lambda *shape: r.randn(*shape).astype(np.float32).astype(np.float64)
    p = leaves(dict(matrix=f32(3, 5), vector=f32(4)))
    out["matrix"], out["vector"] = p["matrix"].tolist(), p["vector"].tolist()
    trace = out["trace"] = dict(lr=out["cosine"], decay=DECAY, clip=CLIP, matrix_grad=[], vector_grad=[],
                                grad_norm=[], matrix=[], vector=[])
    optimizer = AdamW(p)
    for k in range(n):
        for name, x in p.items():
            g = (0.1 if k % 2 else 1.0) * f32(*x.shape)
            g = g.astype(np.float32).astype(np.float64)
            x.grad = torch.tensor(g)
            trace[name + "_grad"].append(g.flatten().tolist())
        trace["grad_norm"].append(optimizer.step(out["cosine"][k]))
        for name, x in p.items():
            trace[name].append(x.detach().flatten().tolist())
    return out


# ---- is this itself right? ---------------------------------------------------------------------------

def close(a, b, tolerance=1e-11):
    error = float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())
    assert error <= tolerance, error


def check_gpt2_forward(c, weights, ids):
    """The same model out of PyTorch's own modules."""
    w = {k[len("transformer."):]: torch.tensor(v, dtype=torch.float64) for k, v in weights.items()}
    d, t = c["dim"], len(ids)
    x = w["wte.weight"][ids] + w["wpe.weight"][:t]
    for i in range(c["layers"]):
        g = lambda name: w["h.%d.%s" % (i, name)]
        n = F.layer_norm(x, (d,), g("ln_1.weight"), g("ln_1.bias"), c["eps"])[:, None]  # (T, 1, d)
        a, _ = F.multi_head_attention_forward(
            n, n, n, d, c["heads"], g("attn.c_attn.weight").T, g("attn.c_attn.bias"), None, None, False, 0.0,
            g("attn.c_proj.weight").T, g("attn.c_proj.bias"), training=False, need_weights=False,
            attn_mask=torch.ones(t, t, dtype=torch.bool).triu(1))
        x = x + a[:, 0]
        n = F.layer_norm(x, (d,), g("ln_2.weight"), g("ln_2.bias"), c["eps"])
        n = F.gelu(F.linear(n, g("mlp.c_fc.weight").T, g("mlp.c_fc.bias")), approximate="tanh")
        x = x + F.linear(n, g("mlp.c_proj.weight").T, g("mlp.c_proj.bias"))
    x = F.layer_norm(x, (d,), w["ln_f.weight"], w["ln_f.bias"], c["eps"])
    close(x @ w["wte.weight"].T, logits(leaves(weights), c, ids))


def check_llama_forward(c, weights, ids):
    """The same model in numpy, one position and one head at a time; RoPE as a complex rotation."""
    w = {k: np.asarray(v, dtype=np.float64) for k, v in weights.items()}
    size, t = c["dim"] // c["heads"], len(ids)
    norm = lambda x, g: x / np.sqrt(np.mean(x * x) + c["eps"]) * g

    def rotate(x, position):
        z = x[: size // 2] + 1j * x[size // 2:]
        z = z * np.exp(1j * position * c["theta"] ** (-2.0 * np.arange(size // 2) / size))
        return np.concatenate([z.real, z.imag])

    x = [w["model.embed_tokens.weight"][i] for i in ids]
    for layer in range(c["layers"]):
        g = lambda name: w["model.layers.%d.%s.weight" % (layer, name)]
        n = [norm(row, g("input_layernorm")) for row in x]
        keys = [[rotate((g("self_attn.k_proj") @ n[s])[j * size:(j + 1) * size], s) for j in range(c["kv_heads"])]
                for s in range(t)]
        vals = [(g("self_attn.v_proj") @ n[s]).reshape(c["kv_heads"], size) for s in range(t)]
        for s in range(t):
            q, heads = g("self_attn.q_proj") @ n[s], []
            for h in range(c["heads"]):
                j = h * c["kv_heads"] // c["heads"]
                query = rotate(q[h * size:(h + 1) * size], s)
                a = np.array([np.exp(query @ keys[u][j] / math.sqrt(size)) for u in range(s + 1)])
                heads.append(sum(a[u] * vals[u][j] for u in range(s + 1)) / a.sum())
            x[s] = x[s] + g("self_attn.o_proj") @ np.concatenate(heads)
        for s in range(t):
            m = norm(x[s], g("post_attention_layernorm"))
            gate = g("mlp.gate_proj") @ m
            x[s] = x[s] + g("mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * (g("mlp.up_proj") @ m))
    x = np.stack([w["lm_head.weight"] @ norm(row, w["model.norm.weight"]) for row in x])
    close(x, logits(leaves(weights), c, ids))


def check_gradient(loss_fn, weights, seed):
    """Autograd against fourth-order differences along random directions, one for each parameter."""
    r, p, h = np.random.RandomState(seed), leaves(weights), 3e-5
    loss_fn(p).backward()
    for k in p:
        direction, slope = torch.tensor(r.randn(*p[k].shape)), 0.0
        for at, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            with torch.no_grad():
                slope += factor * loss_fn(dict(p, **{k: p[k].detach() + at * h * direction})).item() / (12 * h)
        close(slope, (p[k].grad * direction).sum(), 1e-9 * max(1.0, abs(slope)))


def check_optimizer(c, weights, rows):
    """Our AdamW against torch's, with two groups for the decay and clip_grad_norm_ for the clip."""
    p, loss_fn = leaves(weights), nll_loss(c, rows)
    groups = [dict(params=[x for x in p.values() if x.dim() >= 2], weight_decay=DECAY),
              dict(params=[x for x in p.values() if x.dim() < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(BETA1, BETA2), eps=EPS)
    for _ in range(3):
        optimizer.zero_grad()
        loss_fn(p).backward()
        torch.nn.utils.clip_grad_norm_(p.values(), CLIP)
        optimizer.step()
    q = leaves(weights)
    ours = AdamW(q)
    for _ in range(3):
        loss_fn(q).backward()
        ours.step(LR)
    for k in p:  # clip_grad_norm_ divides by norm + 1e-6, Adam forgives a factor
        close(p[k], q[k].detach(), 1e-6)


def check_gae(numbers):
    """A_t as the sum it abbreviates; λ = 1 and γ = 1 give the return less V."""
    for name in ("gamma_1", "gamma_097"):
        g = numbers[name]
        for v, r, a in zip(numbers["values"], g["rewards"], g["advantages"]):
            v, n = v + [0.0], len(r)
            delta = [r[t] + g["gamma"] * v[t + 1] - v[t] for t in range(n)]
            for t in range(n):
                close(a[t], sum((g["gamma"] * 0.95) ** (s - t) * delta[s] for s in range(t, n)))
    a, _ = gae([0.5, -1.0, 2.0], [0.1, 0.2, 0.3], 1.0, 1.0)
    close(a, [1.5 - 0.1, 1.0 - 0.2, 2.0 - 0.3])


def check_policy_gradient(numbers):
    """The closed form: -A ρ / n where the unclipped term is the smaller one and log ρ is not clamped, else 0."""
    old = [x for row in numbers["old_logp"] for x in row]
    new = [x for row in numbers["new_logp"] for x in row]
    for name in ("gamma_1", "gamma_097"):
        g = numbers[name]
        for o, w, a, grad in zip(old, new, g["whitened"], g["policy_grad"]):
            ratio = math.exp(min(max(w - o, -20), 20))
            blocked = (a > 0 and ratio > 1.2) or (a < 0 and ratio < 0.8) or abs(w - o) > 20
            close(grad, 0.0 if blocked else -a * ratio / len(old))


# ---- files -------------------------------------------------------------------------------------------

def safetensors(path, weights):
    """8 bytes of header length, a JSON header padded by spaces to 8 bytes, float32 data."""
    header, at, blobs = {"__metadata__": {"format": "pt"}}, 0, []
    for name in sorted(weights):
        blob = np.ascontiguousarray(weights[name], dtype="<f4").tobytes()
        header[name] = dict(dtype="F32", shape=list(weights[name].shape), data_offsets=[at, at + len(blob)])
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def hf_config(c, reward_model):
    if c["arch"] == "gpt2":
        out = dict(architectures=["GPT2ForSequenceClassification" if reward_model else "GPT2LMHeadModel"],
                   model_type="gpt2", vocab_size=c["vocab"], n_embd=c["dim"], n_layer=c["layers"],
                   n_head=c["heads"], n_inner=None, n_positions=c["context"], n_ctx=c["context"],
                   activation_function="gelu_new", layer_norm_epsilon=c["eps"], tie_word_embeddings=True)
    else:
        out = dict(architectures=["LlamaForSequenceClassification" if reward_model else "LlamaForCausalLM"],
                   model_type="llama", vocab_size=c["vocab"], hidden_size=c["dim"],
                   num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
                   num_key_value_heads=c["kv_heads"], intermediate_size=c["ffn"],
                   max_position_embeddings=c["context"], hidden_act="silu", rms_norm_eps=c["eps"],
                   rope_theta=c["theta"], rope_scaling=None, attention_bias=False, mlp_bias=False,
                   tie_word_embeddings=False)
    out.update(eos_token_id=EOS, bos_token_id=None, torch_dtype="float32")
    if reward_model:
        out.update(num_labels=1, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    return out


def write_model(name, c, weights, reward_model):
    os.makedirs(os.path.join(HERE, name), exist_ok=True)
    with open(os.path.join(HERE, name, "config.json"), "w") as f:
        json.dump(hf_config(c, reward_model), f, indent=2)
        f.write("\n")
    safetensors(os.path.join(HERE, name, "model.safetensors"), weights)


def write_json(name, value):
    def render(x, indent):
        if isinstance(x, dict):
            pad = "\n" + " " * (indent + 1)
            return "{" + ",".join(pad + json.dumps(k) + ": " + render(v, indent + 1) for k, v in x.items()) + "}"
        return json.dumps(x, allow_nan=False)
    with open(os.path.join(HERE, name), "w") as f:
        f.write(render(value, 0) + "\n")


def write_jsonl(name, rows):
    with open(os.path.join(HERE, name), "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def main():
    rows, pairs, margins = make_rows()
    rhat, _, data = data_golden(rows)
    data["margin"] = margins
    dt_rows = [dict(prompt_ids=r["prompt_ids"] + [FIRST_BIN + min(BINS - 1, max(0, int((x + 3) / 6 * BINS)))],
                    completion_ids=r["completion_ids"]) for r, x in zip(rows, rhat)]
    numbers = ppo_numbers()
    check_gae(numbers)
    check_policy_gradient(numbers)

    for c, make, seed in ((GPT2, gpt2_weights, 1), (LLAMA, llama_weights, 2)):
        weights, rm_weights = rounded(make(c, seed)), make(c, seed + 100)
        rm_weights.pop("lm_head.weight", None)
        rm_weights["score.weight"] = 0.25 * np.random.RandomState(seed + 200).randn(1, c["dim"])
        rm_weights = rounded(rm_weights)

        ids = rows[7]["prompt_ids"] + rows[7]["completion_ids"]
        (check_gpt2_forward if c is GPT2 else check_llama_forward)(c, weights, ids)
        check_gradient(nll_loss(c, rows[:3], data["weights"]["sharp"]["weight"]), weights, 3)
        check_gradient(reward_loss(c, pairs[:2], center=0.01, margin=margins), rm_weights, 4)
        check_gradient(dpo_loss(c, pairs[:2], leaves(make(c, seed + 300))), weights, 5)
        check_optimizer(c, weights, rows)

        write_model(c["arch"], c, weights, False)
        write_model(c["arch"] + "_rm", c, rm_weights, True)
        out = arch_golden(c, weights, rm_weights, rows, pairs, margins, dt_rows, data)
        if c is LLAMA:
            out["ppo"] = ppo_end_to_end(c, weights, rm_weights, rows)
        write_json(c["arch"] + ".json", out)

    write_jsonl("sft.jsonl", rows)
    write_jsonl("pairs.jsonl", pairs)
    write_jsonl("dt.jsonl", dt_rows)
    write_json("data.json", data)
    write_json("ppo.json", numbers)
    write_json("optim.json", optim_golden())


if __name__ == "__main__":
    main()
