"""lm-evaluation-harness's own `local-completions` client against `mtnlg serve`, beside `mtnlg score`: log-likelihoods and greedy texts of a small random GPT-2, without a network.

    python -m venv .venv && .venv/bin/pip install "lm_eval[api]" transformers
    cargo build --release && .venv/bin/python benches/peers/local_completions.py

The client tokenizes by itself (tokenizer_backend huggingface) and sends tokens, or texts. Fails where a log-likelihood differs by more than 1e-5 of itself,
where is_greedy differs, or where a greedy text is another one.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", OPENAI_API_KEY="none")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from transformers import PreTrainedTokenizerFast

FIXTURE = pathlib.Path(__file__).parents[2] / "trainer/tests/fixtures/gpt2"
POSITIONS = 24


def requests():
    made = [request[:2] for request in json.loads((FIXTURE / "scores.json").read_text())["scores"]]
    return [(context, continuation) for context, continuation in made]


def serve(mtnlg, run):
    command = [mtnlg, "serve", "--checkpoint", run, "--backend", "cpu", "--port", "0", "--name", "tiny"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if found := re.search(r"http://([^/\s]+)", line):
            return server, f"http://{found[1]}/v1/completions"
    raise SystemExit("the server said nothing")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mtnlg", default="target/release/mtnlg")
    mtnlg = parser.parse_args().mtnlg
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run = folder / "run"
        subprocess.run([mtnlg, "checkpoint", "import", FIXTURE, "--output", run], check=True, stderr=subprocess.DEVNULL)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(FIXTURE / "tokenizer.json"), eos_token="<|endoftext|>")
        tokenizer.save_pretrained(folder / "tokenizer")
        # The client keeps a place of the model's for the token that it has to ask for; what is longer it cuts elsewhere than the transformers class does.
        made = [one for one in requests() if len(tokenizer("".join(one))["input_ids"]) < POSITIONS]
        lines = "".join(json.dumps({"context": a, "continuation": b}) + "\n" for a, b in made)
        (folder / "requests.jsonl").write_text(lines)
        score = [mtnlg, "score", "--checkpoint", run, "--backend", "cpu", "--requests", folder / "requests.jsonl"]
        told = subprocess.run(score, check=True, capture_output=True, text=True).stdout.splitlines()
        all_ours = [(one["log_likelihood"], one["is_greedy"]) for one in map(json.loads, told)]
        prompts = ["the model", "the paper trained", "\u00fcber"]
        flags = [part for prompt in prompts for part in ("--prompt", prompt)]
        write = [mtnlg, "generate", "--checkpoint", run, "--backend", "cpu", "--json", "--max-tokens", "8", "--temperature", "0"]
        told = subprocess.run([*write, *flags], check=True, capture_output=True, text=True).stdout.splitlines()
        texts = [json.loads(line)["text"] for line in told]
        server, url = serve(mtnlg, run)
        wrong = 0
        try:
            for tokenized in (True, False):
                # Without a context the client sends the end-of-text token, as text where it sends texts: to this server that is text like any other.
                asked_of = [i for i, one in enumerate(made) if tokenized or one[0]]
                likely = [Instance("loglikelihood", {}, made[i], i) for i in asked_of]
                ours = [all_ours[i] for i in asked_of]
                for concurrent, batch in ((1, 1), (1, 8), (4, 2)):
                    client = LocalCompletionsAPI(
                        base_url=url, model="tiny", tokenizer=str(folder / "tokenizer"), tokenizer_backend="huggingface",
                        tokenized_requests=tokenized, num_concurrent=concurrent, batch_size=batch, max_length=POSITIONS + 1, max_retries=1,
                    )
                    theirs = client.loglikelihood(likely, disable_tqdm=True)
                    worst = max(abs(a[0] - b[0]) / abs(b[0]) for a, b in zip(theirs, ours, strict=True))
                    greedy = sum(a[1] != b[1] for a, b in zip(theirs, ours, strict=True))
                    asked = [Instance("generate_until", {}, (prompt, {"until": ["\n\n"], "max_gen_toks": 8}), i) for i, prompt in enumerate(prompts)]
                    written = client.generate_until(asked, disable_tqdm=True)
                    other = sum(a.split("\n\n")[0] != b.split("\n\n")[0] for a, b in zip(written, texts, strict=True))
                    wrong += worst > 1e-5 or greedy + other > 0
                    sent = "tokens" if tokenized else "texts"
                    print(f"{sent}, batches of {batch}, {concurrent} at once: {len(ours)} log-likelihoods differ by at most {worst:.1e}, "
                          f"is_greedy in {greedy}, {other} of {len(texts)} greedy texts")
        finally:
            server.terminate()
            server.wait()
    raise SystemExit(wrong)


if __name__ == "__main__":
    main()
