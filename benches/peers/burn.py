"""Our wgpu backend against burn's on the same adapter: a product of two 1024 x 1024 matrices, and the training step of the preset `laptop`.

    python burn.py [--seconds 10] [--limit 900]

Rates for each two seconds of processor time, which on a software adapter do not change with what else the machine does. burn measures its kernels before the
first step; what has not answered after --limit seconds is given up.
"""

import argparse
import json
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def answer(command, limit, folder=ROOT):
    """What the command prints, or why it printed nothing."""
    try:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {limit} s"
    return done.stdout, None if done.returncode == 0 else f"exit code {done.returncode}"


def rate(what, pattern, command, limit, folder=ROOT):
    text, problem = answer(command, limit, folder)
    found = re.search(pattern, text or "")
    print(f"{what:44} {found.group(1) if found else problem or 'no figure'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--limit", type=float, default=900, help="seconds for each side, without compilation")
    arguments = parser.parse_args()
    burn = HERE / "burn"
    subprocess.run(["cargo", "build", "--release"], cwd=burn, check=True)
    subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "bench", "-p", "backend-wgpu", "--bench", "matmul", "--no-run"], cwd=ROOT, check=True)
    seconds, limit = str(arguments.seconds), arguments.limit
    print("for two seconds of processor time")
    bench = ["cargo", "bench", "-p", "backend-wgpu", "--bench", "matmul", "--", "1024 nn", "--seconds", seconds, "--rule"]
    rate("matmul 1024^3, ours, GFLOP/s", r"1024 nn +\S+ +(\S+)", bench, limit)
    rate("matmul 1024^3, burn, GFLOP/s", r"clock, (\S+) per 2 CPU-seconds", [burn / "target/release/peer-burn", "matmul", seconds], limit)
    text, problem = answer(["target/release/mtnlg", "bench", "step", "--backend", "wgpu", "--seconds", seconds, "--json"], limit)
    ours = json.loads(text)["tokens_per_2_cpu_seconds"] if not problem else None
    print(f"{'step of laptop, ours, tokens/s':44} {problem or f'{ours:.0f}'}", flush=True)
    rate("step of laptop, burn, tokens/s", r"clock, (\S+) per 2 CPU-seconds", [burn / "target/release/peer-burn", "step", seconds], limit)


if __name__ == "__main__":
    main()
