"""PyTorch's side of `scripts/gpu-check`: matrix products through cuBLAS, its scaled-dot-product attention, and the training step of a GPT, in bf16 on one GPU.

    python gpu.py ops | step --preset gpt2|gpt2-xl [--micro-batch 8] [--seconds 10] [--device cuda]

Prints JSON. `ops` times what `mtnlg conformance perf` times, at the same shapes, each the best of some rounds. `step` is what `mtnlg bench step` does: forward,
backward, clipping of the global norm, AdamW on fp32 master weights (autocast), with torch.compile and whichever fused attention PyTorch chooses. `--device cpu`
is there to try the script without a GPU.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn

# layers, hidden, heads, sequence, vocabulary: those of `mtnlg presets`, and of `mtnlg conformance perf --sizes tiny`.
PRESETS = {
    "tiny": (1, 64, 1, 64, 256),
    "laptop": (4, 128, 4, 256, 4096),
    "gpt2": (12, 768, 12, 1024, 50304),
    "gpt2-xl": (48, 1600, 25, 1024, 50304),
}


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def best(work, device, seconds):
    """Seconds of a call: of the fastest round of several, which wait for the device once."""
    work()
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    repeat = max(1, min(1000, int(0.05 / max(time.perf_counter() - begun, 1e-6)) + 1))
    start, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        for _ in range(repeat):
            work()
        wait(device)
        fastest = min(fastest, (time.perf_counter() - begun) / repeat)
    return fastest


def ops(args):
    layers, h, a, s, v = PRESETS[args.preset]
    b, d, kind = args.micro_batch, h // a, {"device": args.device, "dtype": torch.bfloat16}
    t, rows = b * s, []
    square = 64 if args.preset == "tiny" else 1024
    products = [(square, square, square, False, True), (t, 3 * h, h, False, True), (t, 4 * h, h, False, True), (4 * h, h, t, True, False), (t, v, h, False, True)]
    for m, n, k, ta, tb in products:
        x, w = torch.randn((k, m) if ta else (m, k), **kind), torch.randn((n, k) if tb else (k, n), **kind)
        x, w = x.T if ta else x, w.T if tb else w
        seconds = best(lambda: x @ w, args.device, args.seconds)
        rows.append({"operation": "matmul", "shape": f"m={m},n={n},k={k},ta={int(ta)},tb={int(tb)}", "seconds": seconds, "gflops": 2e-9 * m * n * k / seconds})
    q, k, value = (torch.randn(b, a, s, d, **kind).requires_grad_() for _ in range(3))
    upstream, flops = torch.randn(b, a, s, d, **kind), 2 * b * a * s * s * d

    def forward():
        return F.scaled_dot_product_attention(q, k, value, is_causal=True)

    def both():
        torch.autograd.grad(forward(), (q, k, value), upstream)

    with torch.no_grad():
        seconds = best(forward, args.device, args.seconds)
    shape = f"b={b},s={s},a={a},d={d}"
    rows.append({"operation": "attention", "shape": shape, "seconds": seconds, "gflops": flops / seconds / 1e9})
    seconds = best(both, args.device, args.seconds)
    rows.append({"operation": "attention, forward and backward", "shape": shape, "seconds": seconds, "gflops": 3.5 * flops / seconds / 1e9})
    return {"rows": rows}


class Layer(nn.Module):
    def __init__(self, h, a):
        super().__init__()
        self.heads = a
        self.ln1, self.ln2 = nn.LayerNorm(h), nn.LayerNorm(h)
        self.qkv, self.out = nn.Linear(h, 3 * h), nn.Linear(h, h)
        self.up, self.down = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, s, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(context.transpose(1, 2).reshape(b, s, h))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers, h, a, s, v):
        super().__init__()
        self.vocabulary = v
        self.token, self.position = nn.Embedding(v, h), nn.Embedding(s, h)
        self.layers, self.final_ln = nn.ModuleList(Layer(h, a) for _ in range(layers)), nn.LayerNorm(h)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.final_ln(x), self.token.weight)
        return F.cross_entropy(logits.float().view(-1, self.vocabulary), targets.view(-1))


def step(args):
    torch.manual_seed(0)
    layers, h, a, s, v = PRESETS[args.preset]
    torch.set_float32_matmul_precision("high")
    model = Gpt(layers, h, a, s, v).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if args.device == "cuda" else model
    sequences = torch.randint(v, (args.micro_batch, s + 1), device=args.device)
    tokens, targets = sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()

    def work():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()

    for _ in range(3):
        work()
    wait(args.device)
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < args.seconds:
        work()
        wait(args.device)
        steps += 1
    seconds = (time.perf_counter() - begun) / steps
    return {"preset": args.preset, "micro_batch": args.micro_batch, "tokens_per_second": args.micro_batch * s / seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ops", "step"])
    parser.add_argument("--preset", choices=PRESETS, default="gpt2")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(json.dumps({"torch": torch.__version__, "device": name, **(ops if args.what == "ops" else step)(args)}, indent=2))


if __name__ == "__main__":
    main()
