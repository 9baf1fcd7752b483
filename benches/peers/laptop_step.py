"""PyTorch's training step of the `laptop` preset, in tokens per second.

    python laptop_step.py [--setting eager|compiled|all] [--seconds 8] [--threads N] [--json]

The same step as `mtnlg bench step`: 4 layers, hidden 128, 4 heads, sequence 256, vocabulary 4096, batch 8, fp32: forward, backward, clipping of the
global norm, AdamW. Written as a PyTorch user would who wants it fast on a CPU: fused attention, fused AdamW, gradients set to None, one process,
a thread a core; eager and torch.compile. A measurement is the best of three runs after a warm-up.
"""

import argparse
import json
import os
import sys
import time

# glibc gives large blocks back to the system and takes them again, page fault by page fault, at every step; told to keep them, PyTorch gains a fifth.
# It reads this when a program starts.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
if any(os.environ.get(name) != value for name, value in MALLOC.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

LAYERS, HIDDEN, HEADS, SEQ, VOCAB, BATCH = 4, 128, 4, 256, 4096, 8


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, s, 3, HEADS, h // HEADS).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(context.transpose(1, 2).reshape(b, s, h))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCAB, HIDDEN), nn.Embedding(SEQ, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.final_ln = nn.LayerNorm(HIDDEN)
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=(1 / (3 * HIDDEN)) ** 0.5)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.final_ln(x), self.token.weight)
        return F.cross_entropy(logits.view(-1, VOCAB), targets.view(-1))


def measure(compiled, seconds):
    torch.manual_seed(0)
    model = Gpt()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model) if compiled else model
    sequences = torch.randint(VOCAB, (BATCH, SEQ + 1))
    tokens, targets = sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return loss.item()

    for _ in range(5):
        step()
    best = 0.0
    for _ in range(3):
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 3:
            step()
            steps += 1
        best = max(best, steps * BATCH * SEQ / (time.perf_counter() - start))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=["eager", "compiled", "all"], default="all")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each setting is measured")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for setting in ["eager", "compiled"] if arguments.setting == "all" else [arguments.setting]:
        try:
            results[setting] = measure(setting == "compiled", arguments.seconds)
        except Exception as error:  # torch.compile needs a C++ compiler, and says so in many ways
            print(f"{setting}: not measured: {error}", file=sys.stderr)
    if not results:
        sys.exit(1)
    best = max(results, key=results.get)
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "threads": arguments.threads, "settings": results, "setting": best, "tokens_per_second": results[best]}))
    else:
        for setting, rate in results.items():
            print(f"torch {torch.__version__}, {arguments.threads} threads, {setting}: {rate:,.0f} tokens/s")


if __name__ == "__main__":
    main()
