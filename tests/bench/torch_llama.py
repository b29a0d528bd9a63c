#!/usr/bin/python3
# torch_llama.py - bench_train.c's peer: the same Llama, one training step each time a line is read on stdin.
#   torch_llama.py LAYERS DIM HEADS FFN VOCAB ROWS LENGTH THREADS
# Prints a line "ready …", then for each line it reads "seconds loss kilobytes processor-seconds". bench_train.c sets
# the environment that makes Debian's PyTorch fast (see start_torch there).
# It is written to be as fast as eager PyTorch 1.13 lets it: fused q, k, v and gate, up; the mask added by baddbmm;
# RoPE as one complex product (pairs side by side: the same model with its rows in another order); RMSNorm with a
# backward of its own. There is no gradient clipping, which ours has.
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


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):  # x: (n, C)
        r = torch.rsqrt(torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().mul_(1 / C).add_(1e-5))
        h = x * r
        ctx.save_for_backward(h, r, w)
        return h * w

    @staticmethod
    def backward(ctx, dy):
        h, r, w = ctx.saved_tensors
        dyh = dy * h
        dw = dyh.sum(0)
        dot = torch.mv(dyh, w).mul_(-1 / C).unsqueeze(1)  # −mean(g·h), g = dy·w
        return torch.addcmul(dy * w, h, dot).mul_(r), dw


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.Parameter(torch.ones(C)), nn.Parameter(torch.ones(C))
        self.qkv, self.out = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        self.gate_up, self.down = nn.Linear(C, 2 * FFN, bias=False), nn.Linear(FFN, C, bias=False)

    def forward(self, x):  # (B·T, C)
        q, k, v = self.qkv(Norm.apply(x, self.norm1)).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        qk = torch.stack((q, k)).view(2 * B * H, T, D // 2, 2)  # (2·B·H, T, D/2) complex
        q, k = torch.view_as_real(torch.view_as_complex(qk) * turn).view(2, B * H, T, D).unbind(0)
        a = torch.baddbmm(mask.expand(B * H, T, T), q, k.transpose(1, 2), alpha=1 / math.sqrt(D))
        y = torch.bmm(F.softmax(a, -1), v.reshape(B * H, T, D))
        x = x + self.out(y.view(B, H, T, D).transpose(1, 2).reshape(B * T, C))
        gate, up = self.gate_up(Norm.apply(x, self.norm2)).split(FFN, 1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(V, C), nn.Parameter(torch.ones(C))
        self.blocks = nn.ModuleList([Block() for _ in range(L)])
        for p in self.parameters():
            if p.dim() > 1: nn.init.normal_(p, 0, 0.02)

    def forward(self, x, y):
        h = self.embed(x)
        for block in self.blocks: h = block(h)
        return F.cross_entropy(Norm.apply(h, self.norm) @ self.embed.weight.t(), y)


mask = torch.full((T, T), float('-inf')).triu(1)
angle = torch.outer(torch.arange(T).float(), 10000.0 ** (-torch.arange(D // 2).float() / (D // 2)))
turn = torch.polar(torch.ones_like(angle), angle)
model = Llama()
adam = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, foreach=True)


def step():
    x, y = torch.randint(0, V, (B * T,)), torch.randint(0, V, (B * T,))
    start, cpu = time.perf_counter(), time.process_time()
    adam.zero_grad(set_to_none=True)
    loss = model(x, y)
    loss.backward()
    adam.step()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return seconds, loss.item(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, cpu


print('ready', torch.__version__, sum(p.numel() for p in model.parameters()), flush=True)
for _ in sys.stdin: print('%.6f %.4f %d %.6f' % step(), flush=True)
