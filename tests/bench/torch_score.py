#!/usr/bin/python3
# torch_score.py - bench_score.c's peer: the same Llama reward model scores the same pairs of ids.
#   torch_score.py MODEL_DIR PAIRS.jsonl THREADS
# Prints a line "ready …", then for each line "FIRST END" it reads one with the seconds, processor-seconds and tokens
# fed, padding included, and one with both rewards for each of the pairs FIRST … END-1. bench_score.c sets the
# environment that makes Debian's PyTorch fast (see bench_start_torch in worker.h).
# It is written to be as fast as eager PyTorch 1.13 lets it: inference mode; sequences sorted by length, in batches
# padded on the right to their longest (the causal mask keeps padding from what is before it), of as many tokens as
# turned out best in trials; fused q, k, v and gate, up; the mask added by baddbmm; RoPE as one complex product.
import json, math, os, struct, sys, time
try:
    import torch, torch.nn.functional as F
except ImportError:
    print('missing', flush=True)
    sys.exit()

folder, pairs, threads = sys.argv[1:4]
torch.set_num_threads(int(threads))
with open(os.path.join(folder, 'config.json')) as f: config = json.load(f)
C, L, H, FFN = (config[k] for k in ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size'))
D, T, eps = C // H, config['max_position_embeddings'], config['rms_norm_eps']

with open(os.path.join(folder, 'model.safetensors'), 'rb') as f: blob = bytearray(f.read())
length = struct.unpack('<Q', blob[:8])[0]
tensors = {}
for name, t in json.loads(blob[8:8 + length]).items():
    if name == '__metadata__': continue
    assert t['dtype'] == 'F32'
    begin, end = (8 + length + x for x in t['data_offsets'])
    tensors[name] = torch.frombuffer(blob, dtype=torch.float32, count=(end - begin) // 4, offset=begin).view(t['shape'])

# rows of a head in the order of complex numbers, so that RoPE turns neighbours
order = (torch.arange(H)[:, None, None] * D + torch.arange(D // 2)[:, None] + torch.tensor([0, D // 2])).flatten()
layers = []
for i in range(L):
    t = lambda name: tensors['model.layers.%d.%s.weight' % (i, name)]
    q, k, v, out = (t('self_attn.%s_proj' % x) for x in 'qkvo')
    gate, up, down = (t('mlp.%s_proj' % x) for x in ('gate', 'up', 'down'))
    layers.append((t('input_layernorm').clone(), torch.cat((q[order], k[order], v)), out.clone(),
                   t('post_attention_layernorm').clone(), torch.cat((gate, up)), down.clone()))
embed, final, score = (tensors[n].clone() for n in ('model.embed_tokens.weight', 'model.norm.weight', 'score.weight'))

mask = torch.full((T, T), float('-inf')).triu(1)
angle = torch.outer(torch.arange(T).float(), config['rope_theta'] ** (-torch.arange(D // 2).float() / (D // 2)))
turn = torch.polar(torch.ones_like(angle), angle)


def norm(x, w):  # x: (n, C)
    return (x * torch.rsqrt(torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().mul_(1 / C).add_(eps))).mul_(w)


def rewards(ids, last):  # (B, T) padded ids and where each ends → (B)
    B, T = ids.shape
    x, seen = F.embedding(ids.view(-1), embed), mask[:T, :T].expand(B * H, T, T)
    for norm1, qkv, out, norm2, gate_up, down in layers:
        q, k, v = F.linear(norm(x, norm1), qkv).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        qk = torch.stack((q, k)).view(2 * B * H, T, D // 2, 2)  # (2·B·H, T, D/2) complex
        q, k = torch.view_as_real(torch.view_as_complex(qk).mul_(turn[:T])).view(2, B * H, T, D).unbind(0)
        a = F.softmax(torch.baddbmm(seen, q, k.transpose(1, 2), alpha=1 / math.sqrt(D)), -1)
        y = torch.bmm(a, v.reshape(B * H, T, D))
        x.add_(F.linear(y.view(B, H, T, D).transpose(1, 2).reshape(B * T, C), out))
        gate, up = F.linear(norm(x, norm2), gate_up).split(FFN, 1)
        x.add_(F.linear(F.silu(gate).mul_(up), down))
    return F.linear(norm(x.view(B, T, C)[torch.arange(B), last], final), score).view(-1)


@torch.inference_mode()
def run(first, end, budget):  # budget: tokens of a batch, padding included
    texts = [side for pair in sequences[first:end] for side in pair]
    start, cpu, fed = time.perf_counter(), time.process_time(), 0
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    result = torch.empty(len(texts))
    while by_length:  # from the longest
        rows = max(1, budget // len(texts[by_length[-1]]))
        chosen, by_length = by_length[-rows:], by_length[:-rows]
        ids = torch.nn.utils.rnn.pad_sequence([texts[i] for i in chosen], batch_first=True)
        result[chosen] = rewards(ids, torch.tensor([len(texts[i]) - 1 for i in chosen]))
        fed += ids.numel()
    return time.perf_counter() - start, time.process_time() - cpu, fed, result.view(-1, 2).tolist()


with open(pairs) as f: rows = [json.loads(line) for line in f]
sequences = [[torch.tensor(r['prompt_ids'] + r[side]) for side in ('chosen_ids', 'rejected_ids')] for r in rows]
run(0, 8, 1024)
best = min((min(run(0, 32, n)[0] for _ in range(2)), n) for n in (512, 1024, 2048, 4096))[1]
print('ready', torch.__version__, best, flush=True)
for line in sys.stdin:
    seconds, cpu, fed, found = run(*map(int, line.split()), best)
    print('%.6f %.6f %d' % (seconds, cpu, fed))
    for pair in found: print('%.7g %.7g' % tuple(pair))
    sys.stdout.flush()
