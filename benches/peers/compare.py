"""Our training step against PyTorch's on the same cores, interleaved: ours, theirs, ours, theirs … in one run.

    python compare.py [--rounds 5] [--setting best|eager|compiled] [--mtnlg PATH]

Both are the step of the `laptop` preset at batch 8. Each round measures one after the other, so that what else the machine does meets both; the ratio is
taken round by round, and its median is the result. Exits with 1 if that is below --at-least.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def answer(command):
    """What the command prints, as JSON."""
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} exited with {finished.returncode}")
    return json.loads(finished.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each side is measured a round")
    parser.add_argument("--setting", choices=["best", "eager", "compiled"], default="best")
    parser.add_argument("--mtnlg", type=pathlib.Path, default=ROOT / "target/release/mtnlg")
    parser.add_argument("--at-least", type=float, default=0.0, help="the smallest ratio that is not a failure")
    arguments = parser.parse_args()
    if not arguments.mtnlg.exists():
        sys.exit(f"{arguments.mtnlg} is missing: cargo build --release")
    peer = [sys.executable, HERE / "laptop_step.py", "--json", "--seconds", str(arguments.seconds), "--setting"]
    ours_command = [arguments.mtnlg, "bench", "step", "--json", "--backend", "cpu", "--seconds", str(arguments.seconds)]
    setting = arguments.setting
    if setting == "best":
        found = answer([*peer, "all"])
        setting = found["setting"]
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found["settings"].items())
        print(f"torch {found['torch']}, {found['threads']} threads: {rates} tokens/s; compared with {setting}")
    print(f"{'round':>5} {'ours':>10} {'torch':>10} {'ratio':>7}")
    ours, theirs, ratios = [], [], []
    for i in range(arguments.rounds):
        ours.append(answer(ours_command)["tokens_per_second"])
        theirs.append(answer([*peer, setting])["tokens_per_second"])
        ratios.append(ours[-1] / theirs[-1])
        print(f"{i + 1:>5} {ours[-1]:>10,.0f} {theirs[-1]:>10,.0f} {ratios[-1]:>7.3f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"median {statistics.median(ours):>8,.0f} {statistics.median(theirs):>10,.0f} {ratio:>7.3f}   tokens/s, and ours over torch ({setting})")
    sys.exit(ratio < arguments.at_least)


if __name__ == "__main__":
    main()
