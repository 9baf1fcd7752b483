"""HellaSwag's requests through a random model of GPT-2's shape (124M), by lm-evaluation-harness's transformers class and by `mtnlg score`, on the same threads; then greedy decoding.

    python -m venv .venv && .venv/bin/pip install torch transformers accelerate lm_eval
    cargo build --release && .venv/bin/python benches/peers/scoring.py --data hellaswag.jsonl --documents 60

The file is the published one as JSON lines (ctx, endings). The tokenizer is trained on its text, as GPT-2's own needs a download; both sides use it. Prints seconds, their ratio,
and the largest difference of the log-likelihoods.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def make(folder, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=50257, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    vocabulary = tokenizer.get_vocab_size()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    return model.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="of decoding")
    parser.add_argument("--mtnlg", default="target/release/mtnlg")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [json.loads(line) for line in open(args.data)]
    requests = [(line["ctx"], " " + ending) for line in lines[: args.documents] for ending in line["endings"]]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "hf").mkdir()
        model = make(folder / "hf", [line["ctx"] + " " + " ".join(line["endings"]) for line in lines])
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "hf/tokenizer.json"), eos_token="<|endoftext|>")
        harness = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=args.batch, max_length=1024)
        begun = time.perf_counter()
        theirs = harness.loglikelihood([Instance("loglikelihood", {}, request, i) for i, request in enumerate(requests)])
        seconds = time.perf_counter() - begun

        subprocess.run([args.mtnlg, "checkpoint", "import", folder / "hf", "--output", folder / "run"], check=True)
        (folder / "requests.jsonl").write_text("".join(json.dumps({"context": c, "continuation": e}) + "\n" for c, e in requests))
        common = ["--checkpoint", folder / "run", "--backend", "cpu"]
        score = [args.mtnlg, "score", *common, "--requests", folder / "requests.jsonl", "--output", folder / "answers.jsonl"]
        begun = time.perf_counter()
        subprocess.run(score, check=True)
        ours = time.perf_counter() - begun
        answers = [json.loads(line) for line in open(folder / "answers.jsonl")]
        worst = max(abs(a["log_likelihood"] - b[0]) / abs(b[0]) for a, b in zip(answers, theirs))
        greedy = sum(a["is_greedy"] != b[1] for a, b in zip(answers, theirs))
        print(f"{len(requests)} requests: transformers {seconds:.1f} s, mtnlg {ours:.1f} s with its start, ratio {seconds / ours:.2f}")
        print(f"largest relative difference {worst:.1e}, is_greedy differs in {greedy}")

        prompt, new = "The man is", 128
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        bytes_read = sum(p.numel() for p in model.parameters()) * 4
        x = torch.randn(bytes_read // 4)
        x.sum()
        generate = [args.mtnlg, "generate", *common, "--prompt", prompt, "--temperature", "0", "--json", "--max-tokens"]

        def took(work):
            begun = time.perf_counter()
            work()
            return time.perf_counter() - begun

        def theirs():
            with torch.no_grad():
                model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)

        def ours(count):
            subprocess.run([*generate, str(count)], check=True, stdout=subprocess.DEVNULL)

        # By turns, each as long as the others: what else the machine does meets all. The weights are summed as often as they are read for the new tokens.
        work = [theirs, lambda: [x.sum() for _ in range(new)], lambda: ours(1), lambda: ours(new + 1)]
        rounds = [[took(each) for each in work] for _ in range(args.rounds)]
        for name, seconds in [("of transformers", lambda r: r[0]), ("of reading the weights (torch's sum)", lambda r: r[1])]:
            ratios = [seconds(r) / (r[3] - r[2]) for r in rounds]
            print(f"decoding at {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {args.rounds} rounds) {name}")
        seconds, summing, *times = map(statistics.median, zip(*rounds))
        rates = [new / each for each in (seconds, summing, times[1] - times[0])]
        print("median tokens/s: transformers {:.1f}, reading {:.1f} ({:.1f} GB/s), mtnlg {:.1f}".format(*rates[:2], bytes_read * rates[1] / 1e9, rates[2]))


if __name__ == "__main__":
    main()
