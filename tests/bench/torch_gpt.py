#!/usr/bin/python3
# torch_gpt.py - bench_train.c's peer for GPT-2 shapes: one training step each time a line is read on stdin.
#   torch_gpt.py LAYERS DIM HEADS FFN VOCAB ROWS LENGTH THREADS
# Prints a line "ready …", then for each line it reads "seconds loss kilobytes processor-seconds". bench_train.c sets
# the environment that makes Debian's PyTorch fast (see start_torch there).
# It is written to be as fast as eager PyTorch 1.13 lets it: q, k, v from one product, the causal mask added by
# baddbmm, all tokens' logits from one product, AdamW over lists of tensors. There is no gradient clipping, which
# ours has.
import math, resource, sys, time
try:
    import torch, torch.nn as nn, torch.nn.functional as F
except ImportError:
    print('missing', flush=True)
    sys.exit()

L, C, H, FFN, V, B, T, threads = map(int, sys.argv[1:9])
D = C // H
torch.set_num_threads(threads)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.up, self.down = nn.Linear(C, FFN), nn.Linear(FFN, C)

    def forward(self, x):  # (B, T, C)
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = (z.reshape(B * H, T, D) for z in (q, k, v))
        a = torch.baddbmm(mask.expand(B * H, T, T), q, k.transpose(1, 2), alpha=1 / math.sqrt(D))
        y = torch.bmm(F.softmax(a, -1), v)
        x = x + self.out(y.view(B, H, T, D).transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate='tanh'))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks, self.norm = nn.ModuleList([Block() for _ in range(L)]), nn.LayerNorm(C)
        for p in self.parameters():
            if p.dim() > 1: nn.init.normal_(p, 0, 0.02)

    def forward(self, x, y):
        h = self.embed(x) + self.position.weight
        for block in self.blocks: h = block(h)
        return F.cross_entropy(self.norm(h).view(-1, C) @ self.embed.weight.t(), y.view(-1))


mask = torch.full((T, T), float('-inf')).triu(1)
model = GPT()
adam = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, foreach=True)


def step():
    x, y = torch.randint(0, V, (B, T)), torch.randint(0, V, (B, T))
    start, cpu = time.perf_counter(), time.process_time()
    adam.zero_grad(set_to_none=True)
    loss = model(x, y)
    loss.backward()
    adam.step()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return seconds, loss.item(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, cpu


print('ready', torch.__version__, sum(p.numel() for p in model.parameters()), flush=True)
for _ in sys.stdin: print('%.6f %.4f %d %.6f' % step(), flush=True)
